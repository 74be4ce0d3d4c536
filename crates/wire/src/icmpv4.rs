//! Internet Control Message Protocol for IPv4 (RFC 792, RFC 1191, RFC 4884).

use core::net::Ipv4Addr;

use crate::{Malformed, checksum};

/// Length of the header of every message here.
pub const HEADER_LEN: usize = 8;

/// Bytes of the offending packet that an error may quote: with an IPv4 header and its own, the
/// message is then at most 576 bytes long (RFC 1812 §4.3.2.3).
pub const MAX_QUOTE: usize = 576 - crate::ipv4::HEADER_LEN - HEADER_LEN;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const REDIRECT: u8 = 5;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// Codes of destination unreachable that a host sends or acts upon.
pub mod unreachable {
    /// No route to the network.
    pub const NETWORK: u8 = 0;
    /// No way to the host.
    pub const HOST: u8 = 1;
    /// The host does not speak the protocol.
    pub const PROTOCOL: u8 = 2;
    /// Nothing listens at the port.
    pub const PORT: u8 = 3;
    /// The packet is too big and must not be fragmented (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// The source route failed.
    pub const SOURCE_ROUTE_FAILED: u8 = 5;
    /// A filter forbids it (RFC 1812).
    pub const ADMINISTRATIVELY_PROHIBITED: u8 = 13;
}

/// What a message says.
///
/// `quote` is the beginning of the packet that an error is about, from its IPv4 header on: read it
/// with [`ipv4::Packet::parse_cut`](crate::ipv4::Packet::parse_cut). It is a claim of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Asks for an echo reply.
    EchoRequest {
        /// Tells one asker from another.
        identifier: u16,
        /// Tells one request from another.
        sequence: u16,
        /// To be returned as it is.
        data: &'a [u8],
    },
    /// Answers an echo request.
    EchoReply {
        /// As in the request.
        identifier: u16,
        /// As in the request.
        sequence: u16,
        /// As in the request.
        data: &'a [u8],
    },
    /// A packet could not be delivered.
    Unreachable {
        /// Why: one of [`mod@unreachable`], or anything else.
        code: u8,
        /// With code `FRAGMENTATION_NEEDED`, the largest packet that fits, in bytes; 0 from
        /// routers older than RFC 1191. Without meaning for other codes.
        next_hop_mtu: u16,
        /// The packet's beginning.
        quote: &'a [u8],
    },
    /// A router asks to send such packets to another.
    Redirect {
        /// 0 network, 1 host, 2 and 3 the same for one type of service.
        code: u8,
        /// The better router.
        gateway: Ipv4Addr,
        /// The packet's beginning.
        quote: &'a [u8],
    },
    /// A packet lived too long.
    TimeExceeded {
        /// 0 in transit, 1 while waiting for other fragments.
        code: u8,
        /// The packet's beginning.
        quote: &'a [u8],
    },
    /// A packet's header is wrong.
    ParameterProblem {
        /// 0 if `pointer` says where.
        code: u8,
        /// Offset of the wrong byte.
        pointer: u8,
        /// The packet's beginning.
        quote: &'a [u8],
    },
    /// Anything else.
    Other {
        /// The message's type.
        kind: u8,
        /// The message's code.
        code: u8,
    },
}

/// A view of a message.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks that there is a whole header. `bytes` must be the payload of an IPv4 packet, without
    /// link padding.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, body) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        Ok(Self { header, body })
    }

    /// The message's type.
    #[inline]
    pub fn message_type(&self) -> u8 {
        self.header[0]
    }

    /// The message's code.
    #[inline]
    pub fn code(&self) -> u8 {
        self.header[1]
    }

    /// What follows the header.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// True for errors, which must never be answered by an error (RFC 1122 §3.2.2). Types that
    /// are not known count as errors: then nothing wrong can be sent.
    #[inline]
    pub fn is_error(&self) -> bool {
        !matches!(self.message_type(), ECHO_REPLY | ECHO_REQUEST | 9 | 10 | 13..=18)
    }

    /// What the message says.
    #[inline]
    pub fn kind(&self) -> Kind<'a> {
        let [kind, code, _, _, a, b, c, d] = *self.header;
        let (identifier, sequence) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let data = self.body;
        match kind {
            ECHO_REQUEST => Kind::EchoRequest { identifier, sequence, data },
            ECHO_REPLY => Kind::EchoReply { identifier, sequence, data },
            UNREACHABLE => Kind::Unreachable { code, next_hop_mtu: sequence, quote: self.quote(b) },
            REDIRECT => Kind::Redirect { code, gateway: Ipv4Addr::new(a, b, c, d), quote: data },
            TIME_EXCEEDED => Kind::TimeExceeded { code, quote: self.quote(b) },
            PARAMETER_PROBLEM => Kind::ParameterProblem { code, pointer: a, quote: self.quote(b) },
            _ => Kind::Other { kind, code },
        }
    }

    /// True if the checksum is right.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        let sum = checksum::add(checksum::sum(self.header), checksum::sum(self.body));
        checksum::finish(sum) == 0
    }

    /// The quoted packet without the extensions that may follow it: the length is then stated in
    /// units of four bytes (RFC 4884 §4).
    #[inline]
    fn quote(&self, words: u8) -> &'a [u8] {
        match usize::from(words) * 4 {
            0 => self.body,
            len => self.body.get(..len).unwrap_or(self.body),
        }
    }
}

/// Writes an echo reply with its checksum and returns its length. All arguments are those of the
/// request.
///
/// # Panics
/// If `buf` has no room for [`HEADER_LEN`] and `data`.
#[inline]
pub fn emit_echo_reply(buf: &mut [u8], identifier: u16, sequence: u16, data: &[u8]) -> usize {
    emit(buf, [ECHO_REPLY, 0], pair(identifier, sequence), data)
}

/// Writes an echo request with its checksum and returns its length.
///
/// # Panics
/// If `buf` has no room for [`HEADER_LEN`] and `data`.
#[inline]
pub fn emit_echo_request(buf: &mut [u8], identifier: u16, sequence: u16, data: &[u8]) -> usize {
    emit(buf, [ECHO_REQUEST, 0], pair(identifier, sequence), data)
}

/// Writes destination unreachable with its checksum and returns its length. `code` is one of
/// [`mod@unreachable`]. Of the offending packet, from its IPv4 header on, at most [`MAX_QUOTE`] bytes
/// are quoted, and no more than `buf` has room for. `next_hop_mtu` is 0 unless the code is
/// `FRAGMENTATION_NEEDED`.
///
/// # Panics
/// If `buf` is shorter than [`HEADER_LEN`].
#[inline]
pub fn emit_unreachable(buf: &mut [u8], code: u8, next_hop_mtu: u16, packet: &[u8]) -> usize {
    emit_error(buf, [UNREACHABLE, code], pair(0, next_hop_mtu), packet)
}

/// Writes time exceeded with its checksum and returns its length; see [`emit_unreachable`] for
/// what is quoted.
///
/// # Panics
/// If `buf` is shorter than [`HEADER_LEN`].
#[inline]
pub fn emit_time_exceeded(buf: &mut [u8], code: u8, packet: &[u8]) -> usize {
    emit_error(buf, [TIME_EXCEEDED, code], [0; 4], packet)
}

#[inline]
fn emit_error(buf: &mut [u8], kind: [u8; 2], rest: [u8; 4], packet: &[u8]) -> usize {
    let room = buf.len().saturating_sub(HEADER_LEN).min(MAX_QUOTE);
    emit(buf, kind, rest, packet.get(..room).unwrap_or(packet))
}

#[inline]
fn emit(buf: &mut [u8], kind: [u8; 2], rest: [u8; 4], body: &[u8]) -> usize {
    let len = HEADER_LEN + body.len();
    let (header, to) =
        buf[..len].split_first_chunk_mut::<HEADER_LEN>().expect("room for an ICMP header");
    header[..2].copy_from_slice(&kind);
    header[2..4].copy_from_slice(&[0; 2]);
    header[4..].copy_from_slice(&rest);
    let sum = checksum::add(checksum::sum(header), checksum::copy_and_sum(to, body));
    header[2..4].copy_from_slice(&checksum::finish(sum).to_be_bytes());
    len
}

#[inline]
fn pair(a: u16, b: u16) -> [u8; 4] {
    (u32::from(a) << 16 | u32::from(b)).to_be_bytes()
}
