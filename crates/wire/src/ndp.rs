//! Neighbour discovery for IPv6 (RFC 4861): messages and options, those of RFC 4191 (routes), RFC 8106
//! (name servers) and RFC 3971 (nonce, for RFC 7527) among them.
//!
//! A message is accepted whole or not at all: [`Message::parse`] checks every option's length
//! first, as RFC 4861 §6.1 and §7.1 ask. What depends on the IPv6 header (hop limit 255,
//! addresses) is for the caller to check.

use core::net::Ipv6Addr;

use crate::domain::Names;
use crate::icmpv6::kind;
use crate::{Mac, Malformed};

/// Hop limit of every message: a router would have lowered it (RFC 4861 §3.1).
pub const HOP_LIMIT: u8 = 255;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const PREFIX_INFORMATION: u8 = 3;
const REDIRECTED_HEADER: u8 = 4;
const MTU: u8 = 5;
const NONCE: u8 = 14;
const ROUTE_INFORMATION: u8 = 24;
const NAME_SERVERS: u8 = 25;
const SEARCH_DOMAINS: u8 = 31;

/// A preference of RFC 4191 §2.1; the reserved value reads as medium where a router says it of
/// itself, and a route of it is passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    /// Only if there is no other.
    Low,
    /// As usual.
    #[default]
    Medium,
    /// Before others.
    High,
}

impl Preference {
    #[inline]
    fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            1 => Self::High,
            3 => Self::Low,
            _ => Self::Medium,
        }
    }
}

/// What a message says.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// A host asks routers to speak up.
    RouterSolicitation {
        /// The options.
        options: Options<'a>,
    },
    /// A router says what it offers.
    RouterAdvertisement {
        /// Hop limit to send with; 0: not said.
        hop_limit: u8,
        /// Addresses come from DHCPv6.
        managed: bool,
        /// Other settings come from DHCPv6.
        other: bool,
        /// Among default routers.
        preference: Preference,
        /// Seconds as a default router; 0: none.
        lifetime: u16,
        /// Milliseconds that a neighbour is believed reachable; 0: not said.
        reachable_time: u32,
        /// Milliseconds between solicitations; 0: not said.
        retransmit_timer: u32,
        /// The options.
        options: Options<'a>,
    },
    /// Asks for a neighbour's hardware address.
    NeighbourSolicitation {
        /// Whose.
        target: Ipv6Addr,
        /// The options.
        options: Options<'a>,
    },
    /// Tells a hardware address.
    NeighbourAdvertisement {
        /// The sender is a router.
        router: bool,
        /// It answers a solicitation.
        solicited: bool,
        /// What was known of the address is to be replaced.
        override_: bool,
        /// Whose.
        target: Ipv6Addr,
        /// The options.
        options: Options<'a>,
    },
    /// A router tells of a better next hop.
    Redirect {
        /// The better next hop; the destination itself if it is on the link.
        target: Ipv6Addr,
        /// Where the redirected packet went.
        destination: Ipv6Addr,
        /// The options.
        options: Options<'a>,
    },
}

impl<'a> Message<'a> {
    /// Reads an ICMPv6 message of neighbour discovery, from its type on. `Ok(None)`: it is
    /// another message.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] for a message that is too short, [`Malformed::Option`] for an
    /// option of length 0 or one that goes beyond the message, [`Malformed::HeaderLength`] for a
    /// code other than 0.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some(&[number, code, ..]) = bytes.first_chunk::<8>() else {
            return Err(Malformed::Truncated);
        };
        let fixed = match number {
            kind::ROUTER_SOLICITATION => 8,
            kind::ROUTER_ADVERTISEMENT => 16,
            kind::NEIGHBOUR_SOLICITATION | kind::NEIGHBOUR_ADVERTISEMENT => 24,
            kind::REDIRECT => 40,
            _ => return Ok(None),
        };
        if code != 0 {
            return Err(Malformed::HeaderLength);
        }
        let (head, rest) = bytes.split_at_checked(fixed).ok_or(Malformed::Truncated)?;
        let options = Options::parse(rest)?;
        let long =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Ok(Some(match number {
            kind::ROUTER_SOLICITATION => Self::RouterSolicitation { options },
            kind::ROUTER_ADVERTISEMENT => Self::RouterAdvertisement {
                hop_limit: head[4],
                managed: head[5] & 0x80 != 0,
                other: head[5] & 0x40 != 0,
                preference: Preference::from_bits(head[5] >> 3),
                lifetime: u16::from_be_bytes([head[6], head[7]]),
                reachable_time: long(8),
                retransmit_timer: long(12),
                options,
            },
            kind::NEIGHBOUR_SOLICITATION => {
                Self::NeighbourSolicitation { target: address(head, 8), options }
            }
            kind::NEIGHBOUR_ADVERTISEMENT => Self::NeighbourAdvertisement {
                router: head[4] & 0x80 != 0,
                solicited: head[4] & 0x40 != 0,
                override_: head[4] & 0x20 != 0,
                target: address(head, 8),
                options,
            },
            _ => {
                Self::Redirect { target: address(head, 8), destination: address(head, 24), options }
            }
        }))
    }
}

/// The address at an offset, which must be there.
#[inline]
fn address(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    Ipv6Addr::from(octets)
}

/// The options of a message. Iterates over those that are known.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    bytes: &'a [u8],
}

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt<'a> {
    /// The sender's hardware address.
    SourceLinkLayer(Mac),
    /// The target's hardware address.
    TargetLinkLayer(Mac),
    /// A network that is on the link, or that addresses may be made from, or both.
    PrefixInformation(Prefix),
    /// The beginning of the packet that was redirected, from its IPv6 header on.
    RedirectedHeader(&'a [u8]),
    /// The link's MTU in bytes.
    Mtu(u32),
    /// A network behind the router (RFC 4191 §2.3).
    RouteInformation {
        /// The network.
        network: Ipv6Addr,
        /// Bits of its prefix, at most 128.
        prefix: u8,
        /// Among routes to the same network.
        preference: Preference,
        /// Seconds; 0: the route ends, `u32::MAX`: it does not end by itself.
        lifetime: u32,
    },
    /// Name servers, in the order in which they are to be asked (RFC 8106 §5.1).
    NameServers {
        /// Seconds; 0: they are not to be asked any more, `u32::MAX`: without end.
        lifetime: u32,
        /// Their addresses.
        servers: &'a [[u8; 16]],
    },
    /// Domains that names are completed with (RFC 8106 §5.2).
    SearchDomains {
        /// Seconds; 0: they are not to be used any more, `u32::MAX`: without end.
        lifetime: u32,
        /// The domains.
        names: Names<'a>,
    },
    /// Tells our own solicitation, come back by a loop, from another's (RFC 7527 §4).
    Nonce(&'a [u8]),
}

/// A network that a router advertises (RFC 4861 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The network.
    pub network: Ipv6Addr,
    /// Bits of its prefix, at most 128.
    pub len: u8,
    /// Its hosts are on the link.
    pub on_link: bool,
    /// Hosts may make themselves addresses in it.
    pub autonomous: bool,
    /// Seconds that such an address is valid; `u32::MAX`: without end.
    pub valid_lifetime: u32,
    /// Seconds that it is preferred; `u32::MAX`: without end.
    pub preferred_lifetime: u32,
}

impl<'a> Options<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = match rest {
                [_, 0, ..] | [_] => return Err(Malformed::Option),
                [_, units, ..] => usize::from(*units) * 8,
                [] => break,
            };
            rest = rest.get(len..).ok_or(Malformed::Option)?;
        }
        Ok(Self { bytes })
    }

    /// The sender's hardware address, if it is told.
    #[inline]
    pub fn source_link_layer(self) -> Option<Mac> {
        self.into_iter().find_map(|option| match option {
            Opt::SourceLinkLayer(mac) => Some(mac),
            _ => None,
        })
    }

    /// The target's hardware address, if it is told.
    #[inline]
    pub fn target_link_layer(self) -> Option<Mac> {
        self.into_iter().find_map(|option| match option {
            Opt::TargetLinkLayer(mac) => Some(mac),
            _ => None,
        })
    }
}

impl<'a> IntoIterator for Options<'a> {
    type Item = Opt<'a>;
    type IntoIter = Iter<'a>;

    #[inline]
    fn into_iter(self) -> Iter<'a> {
        Iter { rest: self.bytes }
    }
}

/// Goes through [`Options`]; those that are not known, or whose length is not theirs, are passed
/// over (RFC 4861 §4.6).
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = Opt<'a>;

    #[inline]
    fn next(&mut self) -> Option<Opt<'a>> {
        loop {
            let len = usize::from(*self.rest.get(1)?) * 8;
            let (option, rest) = self.rest.split_at_checked(len.max(8))?;
            self.rest = rest;
            if let Some(option) = read(option) {
                return Some(option);
            }
        }
    }
}

/// An option of 8 bytes or a multiple of that.
#[inline]
fn read(option: &[u8]) -> Option<Opt<'_>> {
    let long = |at: usize| {
        u32::from_be_bytes([option[at], option[at + 1], option[at + 2], option[at + 3]])
    };
    let mac = || Mac([option[2], option[3], option[4], option[5], option[6], option[7]]);
    match (option[0], option.len()) {
        (SOURCE_LINK_LAYER, 8) => Some(Opt::SourceLinkLayer(mac())),
        (TARGET_LINK_LAYER, 8) => Some(Opt::TargetLinkLayer(mac())),
        (PREFIX_INFORMATION, 32) if option[2] <= 128 => Some(Opt::PrefixInformation(Prefix {
            network: address(option, 16),
            len: option[2],
            on_link: option[3] & 0x80 != 0,
            autonomous: option[3] & 0x40 != 0,
            valid_lifetime: long(4),
            preferred_lifetime: long(8),
        })),
        (REDIRECTED_HEADER, 16..) => Some(Opt::RedirectedHeader(&option[8..])),
        (MTU, 8) => Some(Opt::Mtu(long(4))),
        (NONCE, _) => Some(Opt::Nonce(&option[2..])),
        (ROUTE_INFORMATION, len @ (8 | 16 | 24)) => {
            let prefix = option[2];
            let reserved = option[3] >> 3 & 3 == 2;
            if prefix > 128 || usize::from(prefix) > (len - 8) * 8 || reserved {
                return None;
            }
            let mut octets = [0; 16];
            octets[..len - 8].copy_from_slice(&option[8..]);
            Some(Opt::RouteInformation {
                network: Ipv6Addr::from(octets),
                prefix,
                preference: Preference::from_bits(option[3] >> 3),
                lifetime: long(4),
            })
        }
        (NAME_SERVERS, 24..) => match option[8..].as_chunks() {
            (servers, []) => Some(Opt::NameServers { lifetime: long(4), servers }),
            _ => None,
        },
        (SEARCH_DOMAINS, 16..) => {
            let names = Names::parse(&option[8..])?;
            Some(Opt::SearchDomains { lifetime: long(4), names })
        }
        _ => None,
    }
}

/// Length of a solicitation or an advertisement of a neighbour without options.
pub const NEIGHBOUR_LEN: usize = 24;
/// Length of an option with a hardware address, and of one with a nonce of six bytes.
pub const OPTION_LEN: usize = 8;

/// Writes a neighbour solicitation without its checksum and returns its length. `source` is the
/// sender's hardware address, absent in duplicate address detection, where a `nonce` may be.
///
/// # Panics
/// If `buf` has no room for it.
#[inline]
pub fn emit_neighbour_solicitation(
    buf: &mut [u8],
    target: Ipv6Addr,
    source: Option<Mac>,
    nonce: Option<[u8; 6]>,
) -> usize {
    buf[..8].copy_from_slice(&[kind::NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
    buf[8..24].copy_from_slice(&target.octets());
    let mut len = NEIGHBOUR_LEN;
    if let Some(mac) = source {
        len += emit_option(&mut buf[len..], SOURCE_LINK_LAYER, mac.0);
    }
    if let Some(nonce) = nonce {
        len += emit_option(&mut buf[len..], NONCE, nonce);
    }
    len
}

/// Flags of a neighbour advertisement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdvertisementFlags {
    /// The sender is a router.
    pub router: bool,
    /// It answers a solicitation.
    pub solicited: bool,
    /// What was known of the address is to be replaced.
    pub override_: bool,
}

/// Writes a neighbour advertisement without its checksum and returns its length. `mac` is the
/// target's hardware address.
///
/// # Panics
/// If `buf` has no room for it.
#[inline]
pub fn emit_neighbour_advertisement(
    buf: &mut [u8],
    target: Ipv6Addr,
    flags: AdvertisementFlags,
    mac: Option<Mac>,
) -> usize {
    let bits = u8::from(flags.router) << 7
        | u8::from(flags.solicited) << 6
        | u8::from(flags.override_) << 5;
    buf[..8].copy_from_slice(&[kind::NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, bits, 0, 0, 0]);
    buf[8..24].copy_from_slice(&target.octets());
    match mac {
        Some(mac) => {
            NEIGHBOUR_LEN + emit_option(&mut buf[NEIGHBOUR_LEN..], TARGET_LINK_LAYER, mac.0)
        }
        None => NEIGHBOUR_LEN,
    }
}

/// Writes a router solicitation without its checksum and returns its length.
///
/// # Panics
/// If `buf` has no room for it.
#[inline]
pub fn emit_router_solicitation(buf: &mut [u8], source: Option<Mac>) -> usize {
    buf[..8].copy_from_slice(&[kind::ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
    8 + source.map_or(0, |mac| emit_option(&mut buf[8..], SOURCE_LINK_LAYER, mac.0))
}

#[inline]
fn emit_option(buf: &mut [u8], kind: u8, data: [u8; 6]) -> usize {
    buf[..2].copy_from_slice(&[kind, 1]);
    buf[2..OPTION_LEN].copy_from_slice(&data);
    OPTION_LEN
}

/// The group that solicitations for an address are sent to (RFC 4291 §2.7.1).
#[inline]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from(b) << 8 | u16::from(c))
}

/// The Ethernet address that packets to a group go to (RFC 2464 §7).
#[inline]
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}
