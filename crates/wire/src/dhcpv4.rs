//! Dynamic Host Configuration Protocol for IPv4 (RFC 2131, RFC 2132, RFC 3396).

use core::net::Ipv4Addr;

use crate::mac::Mac;
use crate::{Malformed, ipv4};

/// UDP port of servers.
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// Length of a message without options: the fixed fields and the magic cookie.
pub const HEADER_LEN: usize = 240;
/// Least length of a message that is sent: BOOTP relays drop what is shorter (RFC 1542 §2.1).
pub const MIN_LEN: usize = 300;
/// Longest message that every client takes (RFC 2131 §2): 576 bytes with IP and UDP headers.
pub const MAX_LEN: usize = 576 - ipv4::HEADER_LEN - crate::udp::HEADER_LEN;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BROADCAST: u8 = 0x80;
const CHADDR: usize = 28;
const SNAME: core::ops::Range<usize> = 44..108;
const FILE: core::ops::Range<usize> = 108..236;

/// Numbers of options (RFC 2132).
pub mod option {
    /// Mask of the subnet.
    pub const SUBNET_MASK: u8 = 1;
    /// Routers, the best first.
    pub const ROUTER: u8 = 3;
    /// Name servers, the best first.
    pub const DOMAIN_NAME_SERVER: u8 = 6;
    /// The client's name.
    pub const HOST_NAME: u8 = 12;
    /// The domain that the client is in.
    pub const DOMAIN_NAME: u8 = 15;
    /// Largest IP packet of the link.
    pub const INTERFACE_MTU: u8 = 26;
    /// The address that the client wants.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// Seconds of the lease.
    pub const LEASE_TIME: u8 = 51;
    /// Options go on in the fields for names: 1 file, 2 server name, 3 both.
    pub const OVERLOAD: u8 = 52;
    /// What the message is.
    pub const MESSAGE_TYPE: u8 = 53;
    /// Which server.
    pub const SERVER_IDENTIFIER: u8 = 54;
    /// Options that the client asks for.
    pub const PARAMETER_LIST: u8 = 55;
    /// Why a message was sent, as text.
    pub const MESSAGE: u8 = 56;
    /// Longest message that the client takes.
    pub const MAX_MESSAGE_SIZE: u8 = 57;
    /// Seconds until the client renews.
    pub const RENEWAL_TIME: u8 = 58;
    /// Seconds until the client asks any server.
    pub const REBINDING_TIME: u8 = 59;
    /// Tells one client from another.
    pub const CLIENT_IDENTIFIER: u8 = 61;
    /// Domains that names are completed with (RFC 3397).
    pub const DOMAIN_SEARCH: u8 = 119;
    /// Routes with prefixes of any length (RFC 3442).
    pub const CLASSLESS_ROUTES: u8 = 121;
}

/// What a message is (RFC 2132 §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageType {
    /// The client looks for servers.
    Discover = 1,
    /// A server offers an address.
    Offer = 2,
    /// The client takes an offer, or wants to keep what it has.
    Request = 3,
    /// The client found the address in use.
    Decline = 4,
    /// The server agrees.
    Ack = 5,
    /// The server does not.
    Nak = 6,
    /// The client gives its address back.
    Release = 7,
    /// The client has an address and wants the rest.
    Inform = 8,
}

impl MessageType {
    fn from_number(number: u8) -> Option<MessageType> {
        use MessageType::{Ack, Decline, Discover, Inform, Nak, Offer, Release, Request};
        [Discover, Offer, Request, Decline, Ack, Nak, Release, Inform]
            .into_iter()
            .find(|&kind| kind as u8 == number)
    }
}

/// A view of a message.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks the length, the hardware, the magic cookie, and that every option is whole, those in
    /// the fields for names included if they are used.
    ///
    /// # Errors
    /// [`Malformed::Truncated`], [`Malformed::Hardware`] for another link than Ethernet,
    /// [`Malformed::Version`] without the magic cookie (BOOTP), [`Malformed::Option`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, options) =
            bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        if header[1] != ETHERNET || header[2] != 6 {
            return Err(Malformed::Hardware);
        }
        if header[236..] != COOKIE {
            return Err(Malformed::Version);
        }
        let packet = Self { header, options };
        match packet.options().find_map(Result::err) {
            Some(malformed) => Err(malformed),
            None => Ok(packet),
        }
    }

    /// True if a server sent it.
    pub fn is_reply(&self) -> bool {
        self.header[0] == REPLY
    }

    /// True if a client sent it.
    pub fn is_request(&self) -> bool {
        self.header[0] == REQUEST
    }

    /// Number of the exchange, chosen by the client.
    pub fn transaction(&self) -> u32 {
        u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]])
    }

    /// Seconds since the client began.
    pub fn seconds(&self) -> u16 {
        u16::from_be_bytes([self.header[8], self.header[9]])
    }

    /// The client cannot take an answer to an address that it does not have yet.
    pub fn wants_broadcast(&self) -> bool {
        self.header[10] & BROADCAST != 0
    }

    /// The address that the client has.
    pub fn client_address(&self) -> Ipv4Addr {
        self.address(12)
    }

    /// The address that the server gives.
    pub fn your_address(&self) -> Ipv4Addr {
        self.address(16)
    }

    /// The client's hardware address.
    pub fn hardware_address(&self) -> Mac {
        let mut octets = [0; 6];
        octets.copy_from_slice(&self.header[CHADDR..CHADDR + 6]);
        Mac(octets)
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        let h = self.header;
        Ipv4Addr::new(h[at], h[at + 1], h[at + 2], h[at + 3])
    }

    /// The options one by one, then those in the fields for names if option 52 says that there are
    /// any (RFC 2132 §9.3). Of a parsed message none is an error.
    pub fn options(&self) -> impl Iterator<Item = Result<Item<'a>, Malformed>> + Clone + use<'a> {
        let overload = Items { rest: self.options }
            .find_map(|item| item.ok().filter(|item| item.code == option::OVERLOAD))
            .and_then(|item| item.data.first().copied())
            .unwrap_or(0);
        let field =
            |bit: u8, range| if overload & bit != 0 { &self.header[range] } else { &[][..] };
        Items { rest: self.options }
            .chain(Items { rest: field(1, FILE) })
            .chain(Items { rest: field(2, SNAME) })
    }

    /// The data of an option that may be longer than one can be, all its parts one after the other
    /// (RFC 3396 §5). A part may end anywhere.
    pub fn joined(&self, code: u8) -> impl Iterator<Item = u8> + Clone + use<'a> {
        let parts = self.options().filter_map(Result::ok).filter(move |item| item.code == code);
        parts.flat_map(|item| item.data.iter().copied())
    }

    /// The first option with this code.
    pub fn option(&self, code: u8) -> Option<&'a [u8]> {
        self.options().filter_map(Result::ok).find(|item| item.code == code).map(|item| item.data)
    }

    /// What the message is; `None` without the option, or with one that makes no sense.
    pub fn message_type(&self) -> Option<MessageType> {
        match self.option(option::MESSAGE_TYPE)? {
            &[number] => MessageType::from_number(number),
            _ => None,
        }
    }

    /// An option that is one address, or the first of several.
    pub fn address_option(&self, code: u8) -> Option<Ipv4Addr> {
        self.addresses(code).next()
    }

    /// An option that is a list of addresses.
    pub fn addresses(&self, code: u8) -> impl Iterator<Item = Ipv4Addr> + use<'a> {
        let mut data = self.joined(code);
        core::iter::from_fn(move || next_address(&mut data))
    }

    /// An option that is a number of four bytes.
    pub fn long_option(&self, code: u8) -> Option<u32> {
        self.option(code)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// An option that is a number of two bytes.
    pub fn short_option(&self, code: u8) -> Option<u16> {
        self.option(code)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// Routes of option 121 (RFC 3442), `None` without it. It ends at the first that makes no
    /// sense.
    pub fn classless_routes(&self) -> Option<impl Iterator<Item = ClasslessRoute> + use<'a>> {
        self.option(option::CLASSLESS_ROUTES)?;
        let mut data = self.joined(option::CLASSLESS_ROUTES);
        Some(core::iter::from_fn(move || ClasslessRoute::read(&mut data)).fuse())
    }
}

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// One of [`option`], or anything else.
    pub code: u8,
    /// What follows the length byte.
    pub data: &'a [u8],
}

#[derive(Clone, Debug)]
struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        const PAD: u8 = 0;
        const END: u8 = 255;
        loop {
            let (&code, rest) = self.rest.split_first()?;
            match code {
                PAD => self.rest = rest,
                END => {
                    self.rest = &[];
                    return None;
                }
                _ => {
                    let item = rest
                        .split_first()
                        .and_then(|(&len, rest)| rest.split_at_checked(len.into()));
                    let Some((data, rest)) = item else {
                        self.rest = &[];
                        return Some(Err(Malformed::Option));
                    };
                    self.rest = rest;
                    return Some(Ok(Item { code, data }));
                }
            }
        }
    }
}

/// A route of option 121.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClasslessRoute {
    /// The network.
    pub destination: Ipv4Addr,
    /// Bits of its prefix, at most 32.
    pub prefix: u8,
    /// The router; `0.0.0.0`: the network is on the link.
    pub router: Ipv4Addr,
}

impl ClasslessRoute {
    fn read(data: &mut impl Iterator<Item = u8>) -> Option<ClasslessRoute> {
        let prefix = data.next().filter(|&prefix| prefix <= 32)?;
        // Only the bytes of the network that the prefix covers are there.
        let mut octets = [0; 4];
        for octet in &mut octets[..usize::from(prefix).div_ceil(8)] {
            *octet = data.next()?;
        }
        let router = next_address(data)?;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let destination = Ipv4Addr::from_bits(u32::from_be_bytes(octets) & mask);
        Some(ClasslessRoute { destination, prefix, router })
    }
}

fn next_address(data: &mut impl Iterator<Item = u8>) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::new(data.next()?, data.next()?, data.next()?, data.next()?))
}

/// The fixed fields of a client's message, for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// A server's message, in tests of clients.
    pub reply: bool,
    /// Number of the exchange.
    pub transaction: u32,
    /// Seconds since the client began.
    pub seconds: u16,
    /// Answers are to be broadcast.
    pub broadcast: bool,
    /// The address that the client has, or `0.0.0.0`.
    pub client_address: Ipv4Addr,
    /// The address that the server gives.
    pub your_address: Ipv4Addr,
    /// The client's hardware address.
    pub hardware_address: Mac,
}

/// Writes a message option by option.
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// Writes the fixed fields and the type.
    ///
    /// # Panics
    /// If `buf` is shorter than [`MIN_LEN`].
    pub fn new(buf: &'a mut [u8], header: Header, kind: MessageType) -> Self {
        assert!(buf.len() >= MIN_LEN, "room for a DHCP message");
        buf[..HEADER_LEN].fill(0);
        let op = if header.reply { REPLY } else { REQUEST };
        buf[..4].copy_from_slice(&[op, ETHERNET, 6, 0]);
        buf[4..8].copy_from_slice(&header.transaction.to_be_bytes());
        buf[8..10].copy_from_slice(&header.seconds.to_be_bytes());
        buf[10] = if header.broadcast { BROADCAST } else { 0 };
        buf[12..16].copy_from_slice(&header.client_address.octets());
        buf[16..20].copy_from_slice(&header.your_address.octets());
        buf[CHADDR..CHADDR + 6].copy_from_slice(&header.hardware_address.0);
        buf[236..HEADER_LEN].copy_from_slice(&COOKIE);
        let mut writer = Writer { buf, len: HEADER_LEN };
        writer.option(option::MESSAGE_TYPE, &[kind as u8]);
        writer
    }

    /// Adds an option.
    ///
    /// # Panics
    /// If it is longer than 255 bytes, or there is no room.
    pub fn option(&mut self, code: u8, data: &[u8]) {
        let len = u8::try_from(data.len()).expect("an option of at most 255 bytes");
        let room = &mut self.buf[self.len..self.len + 2 + data.len()];
        room[..2].copy_from_slice(&[code, len]);
        room[2..].copy_from_slice(data);
        self.len += 2 + data.len();
    }

    /// Ends the options, fills up to [`MIN_LEN`], and returns the message's length.
    ///
    /// # Panics
    /// If there is no room for the end.
    pub fn finish(self) -> usize {
        self.buf[self.len] = 255;
        let len = (self.len + 1).max(MIN_LEN);
        self.buf[self.len + 1..len].fill(0);
        len
    }
}
