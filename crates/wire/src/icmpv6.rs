//! Internet Control Message Protocol for IPv6 (RFC 4443, RFC 4884). Neighbour discovery's messages
//! are in [`ndp`](crate::ndp).

use crate::{Malformed, checksum, ipv6};

/// Length of the header of every message here.
pub const HEADER_LEN: usize = 8;

/// Bytes of the offending packet that an error may quote: the message must fit the smallest MTU
/// (RFC 4443 §2.4 c).
pub const MAX_QUOTE: usize = ipv6::MIN_MTU - ipv6::HEADER_LEN - HEADER_LEN;

/// Numbers of the messages.
pub mod kind {
    /// A packet could not be delivered.
    pub const UNREACHABLE: u8 = 1;
    /// A packet does not fit the next link.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// A packet lived too long.
    pub const TIME_EXCEEDED: u8 = 3;
    /// A packet's header is wrong.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Asks for an echo reply.
    pub const ECHO_REQUEST: u8 = 128;
    /// Answers an echo request.
    pub const ECHO_REPLY: u8 = 129;
    /// A router asks who is in which groups (RFC 2710, RFC 3810).
    pub const LISTENER_QUERY: u8 = 130;
    /// A host is in groups, version 1 (RFC 2710).
    pub const LISTENER_REPORT_V1: u8 = 131;
    /// A host left a group, version 1 (RFC 2710).
    pub const LISTENER_DONE: u8 = 132;
    /// A host asks routers to speak up (RFC 4861).
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// A router says what it offers (RFC 4861).
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Asks for a neighbour's hardware address (RFC 4861).
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Tells a hardware address (RFC 4861).
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// A router tells of a better next hop (RFC 4861).
    pub const REDIRECT: u8 = 137;
    /// A host is in groups, version 2 (RFC 3810).
    pub const LISTENER_REPORT_V2: u8 = 143;
}

/// Codes of destination unreachable (RFC 4443 §3.1).
pub mod unreachable {
    /// No route to the destination.
    pub const NO_ROUTE: u8 = 0;
    /// A filter forbids it.
    pub const PROHIBITED: u8 = 1;
    /// The source address does not reach that far.
    pub const BEYOND_SCOPE: u8 = 2;
    /// No way to the host.
    pub const ADDRESS: u8 = 3;
    /// Nothing listens at the port.
    pub const PORT: u8 = 4;
    /// The source address may not go there.
    pub const SOURCE_POLICY: u8 = 5;
    /// The route to the destination is shut.
    pub const REJECT_ROUTE: u8 = 6;
}

/// Codes of parameter problem (RFC 4443 §3.4).
pub mod parameter {
    /// A field of a header makes no sense.
    pub const FIELD: u8 = 0;
    /// The next header is not known.
    pub const NEXT_HEADER: u8 = 1;
    /// An option is not known.
    pub const OPTION: u8 = 2;
    /// The first fragment lacks a part of the headers (RFC 7112).
    pub const INCOMPLETE_CHAIN: u8 = 3;
}

/// What a message says.
///
/// `quote` is the beginning of the packet that an error is about, from its IPv6 header on: read it
/// with [`ipv6::Packet::parse_cut`]. It is a claim of the sender.
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
        /// The packet's beginning.
        quote: &'a [u8],
    },
    /// A packet does not fit the next link.
    PacketTooBig {
        /// The largest packet that does, in bytes.
        mtu: u32,
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
        /// What is: one of [`mod@parameter`], or anything else.
        code: u8,
        /// Offset of the wrong byte.
        pointer: u32,
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
    /// Checks that there is a whole header. `bytes` must be the upper-layer payload of an IPv6
    /// packet, without link padding.
    ///
    /// # Errors
    /// [`Malformed::Truncated`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, body) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        Ok(Self { header, body })
    }

    /// The message's type, one of [`mod@kind`] or anything else.
    #[inline]
    pub fn message_type(&self) -> u8 {
        self.header[0]
    }

    /// The message's code.
    #[inline]
    pub fn code(&self) -> u8 {
        self.header[1]
    }

    /// The checksum as it is in the message.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// What follows the header.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// True for errors, which must never be answered by an error (RFC 4443 §2.4 e).
    #[inline]
    pub fn is_error(&self) -> bool {
        is_error(self.message_type())
    }

    /// What the message says.
    #[inline]
    pub fn kind(&self) -> Kind<'a> {
        let [kind, code, _, _, a, b, c, d] = *self.header;
        let (identifier, sequence) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let (data, word) = (self.body, u32::from_be_bytes([a, b, c, d]));
        match kind {
            kind::ECHO_REQUEST => Kind::EchoRequest { identifier, sequence, data },
            kind::ECHO_REPLY => Kind::EchoReply { identifier, sequence, data },
            kind::UNREACHABLE => Kind::Unreachable { code, quote: self.quote(a) },
            kind::PACKET_TOO_BIG => Kind::PacketTooBig { mtu: word, quote: data },
            kind::TIME_EXCEEDED => Kind::TimeExceeded { code, quote: self.quote(a) },
            kind::PARAMETER_PROBLEM => Kind::ParameterProblem { code, pointer: word, quote: data },
            _ => Kind::Other { kind, code },
        }
    }

    /// True if the checksum is right. `pseudo` is the pseudo-header's sum for the whole message.
    #[inline]
    pub fn verify_checksum(&self, pseudo: u16) -> bool {
        let sum = checksum::add(checksum::sum(self.header), checksum::sum(self.body));
        checksum::finish(checksum::add(pseudo, sum)) == 0
    }

    /// The quoted packet without the extensions that may follow it: the length is then stated in
    /// units of eight bytes (RFC 4884 §4).
    #[inline]
    fn quote(&self, words: u8) -> &'a [u8] {
        match usize::from(words) * 8 {
            0 => self.body,
            len => self.body.get(..len).unwrap_or(self.body),
        }
    }
}

/// Whether a message of this type is an error: all below 128 are, known or not.
#[inline]
pub const fn is_error(kind: u8) -> bool {
    kind < 128
}

/// Writes an error without its checksum and returns its length. `word` is what follows the
/// checksum: an MTU, a pointer, or 0. Of the offending packet, from its IPv6 header on, at most
/// [`MAX_QUOTE`] bytes are quoted, and no more than `buf` has room for.
///
/// # Panics
/// If `buf` has no room for [`HEADER_LEN`].
#[inline]
pub fn emit_error(buf: &mut [u8], kind: u8, code: u8, word: u32, offending: &[u8]) -> usize {
    let (header, body) =
        buf.split_first_chunk_mut::<HEADER_LEN>().expect("room for an ICMPv6 header");
    let quoted = offending.len().min(MAX_QUOTE).min(body.len());
    header[..4].copy_from_slice(&[kind, code, 0, 0]);
    header[4..].copy_from_slice(&word.to_be_bytes());
    body[..quoted].copy_from_slice(&offending[..quoted]);
    HEADER_LEN + quoted
}

/// Writes an echo request without its checksum and returns its length.
///
/// # Panics
/// If `buf` has no room for [`HEADER_LEN`] and `data`.
#[inline]
pub fn emit_echo_request(buf: &mut [u8], identifier: u16, sequence: u16, data: &[u8]) -> usize {
    let len = HEADER_LEN + data.len();
    let buf = &mut buf[..len];
    buf[..4].copy_from_slice(&[kind::ECHO_REQUEST, 0, 0, 0]);
    buf[4..6].copy_from_slice(&identifier.to_be_bytes());
    buf[6..8].copy_from_slice(&sequence.to_be_bytes());
    buf[8..].copy_from_slice(data);
    len
}

/// Computes and writes the checksum of a message. `pseudo` is the pseudo-header's sum for it.
///
/// # Panics
/// If `message` is shorter than four bytes.
#[inline]
pub fn fill_checksum(message: &mut [u8], pseudo: u16) {
    message[2..4].fill(0);
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(message)));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}
