//! Internet Protocol version 6 (RFC 8200): the fixed header, and the way past extension headers.

pub mod extension;

use core::net::Ipv6Addr;

use crate::Malformed;

/// Smallest MTU of a link that carries IPv6 (RFC 8200 §5).
pub const MIN_MTU: usize = 1280;

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Extension headers that [`Packet::upper_layer`] walks past before it gives up.
pub const MAX_EXTENSIONS: usize = 8;

/// A view of an IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks version and length. Bytes beyond the payload length, such as Ethernet's padding, do
    /// not belong to the packet.
    ///
    /// # Errors
    /// [`Malformed::Version`], or [`Malformed::Truncated`] if the payload length goes beyond the
    /// bytes.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let packet = Self::parse_cut(bytes)?;
        if packet.payload_len() > packet.payload.len() {
            return Err(Malformed::Truncated);
        }
        Ok(packet)
    }

    /// Like [`parse`](Self::parse) for a packet whose end may be missing: one that an ICMPv6 error
    /// quotes, or one of which a capture kept the beginning only. The fixed header must be whole.
    ///
    /// # Errors
    /// [`Malformed::Version`], or [`Malformed::Truncated`] for a cut header.
    #[inline]
    pub fn parse_cut(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        let payload_len = u16::from_be_bytes([header[4], header[5]]).into();
        Ok(Self { header, payload: rest.get(..payload_len).unwrap_or(rest) })
    }

    /// The sender's address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        self.address::<8>()
    }

    /// The receiver's address.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        self.address::<24>()
    }

    #[inline]
    fn address<const AT: usize>(&self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.header[AT..AT + 16]);
        Ipv6Addr::from(octets)
    }

    /// DSCP in the upper six bits, ECN in the lower two.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        self.header[0] << 4 | self.header[1] >> 4
    }

    /// Differentiated services code point, 0 to 63 (RFC 2474).
    #[inline]
    pub fn dscp(&self) -> u8 {
        self.traffic_class() >> 2
    }

    /// Explicit congestion notification, 0 to 3 (RFC 3168).
    #[inline]
    pub fn ecn(&self) -> u8 {
        self.traffic_class() & 3
    }

    /// The flow label, 20 bits (RFC 6437).
    #[inline]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.header[1] & 0x0f, self.header[2], self.header[3]])
    }

    /// Length of all after the fixed header, as the header states it.
    #[inline]
    pub fn payload_len(&self) -> usize {
        u16::from_be_bytes([self.header[4], self.header[5]]).into()
    }

    /// What follows the fixed header: an extension header or one of [`protocol`](crate::protocol).
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.header[6]
    }

    /// How many routers may still forward the packet.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// What follows the fixed header, without link padding.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Walks past extension headers to the upper-layer protocol.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] if the payload ends within an extension header, and
    /// [`Malformed::Extension`] if there are more than [`MAX_EXTENSIONS`].
    #[inline]
    pub fn upper_layer(&self) -> Result<UpperLayer<'a>, Malformed> {
        let mut protocol = self.next_header();
        let mut rest = self.payload;
        let mut fragment = None;
        let mut extensions = 0;
        while let Some(extension) = Extension::from_number(protocol) {
            if extensions == MAX_EXTENSIONS {
                return Err(Malformed::Extension);
            }
            extensions += 1;
            let &[next, len, high, low, ..] =
                rest.first_chunk::<8>().ok_or(Malformed::Truncated)?;
            let len = match extension {
                Extension::Options => (usize::from(len) + 1) * 8,
                Extension::Authentication => (usize::from(len) + 2) * 4,
                Extension::Fragment => 8,
            };
            protocol = next;
            rest = rest.get(len..).ok_or(Malformed::Truncated)?;
            if extension == Extension::Fragment {
                let field = u16::from_be_bytes([high, low]);
                let (offset, more) = (usize::from(field & !7), field & 1 != 0);
                fragment = Some(Fragment { offset, more });
                if offset > 0 {
                    break;
                }
            }
        }
        let offset = HEADER_LEN + self.payload.len() - rest.len();
        Ok(UpperLayer { protocol, offset, payload: rest, fragment })
    }
}

/// The shapes that extension headers have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extension {
    /// Length in units of 8 bytes, the first not counted.
    Options,
    /// Length in units of 4 bytes, the first two not counted (RFC 4302).
    Authentication,
    Fragment,
}

impl Extension {
    #[inline]
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            // Hop-by-hop options, routing, destination options, mobility, HIP, shim6.
            0 | 43 | 60 | 135 | 139 | 140 => Some(Self::Options),
            44 => Some(Self::Fragment),
            51 => Some(Self::Authentication),
            _ => None,
        }
    }
}

/// Where a packet is a fragment, which one (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where the payload begins in that of the whole packet, in bytes.
    pub offset: usize,
    /// True for every fragment but the last.
    pub more: bool,
}

/// What is behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer<'a> {
    /// The upper-layer protocol. In a fragment other than the first, that of the header which
    /// followed the fragment header in the whole packet.
    pub protocol: u8,
    /// Offset of the upper-layer header from the start of the IPv6 header.
    pub offset: usize,
    /// The upper-layer header and its payload.
    pub payload: &'a [u8],
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
}

/// What a fixed header says, for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's address.
    pub source: Ipv6Addr,
    /// The receiver's address.
    pub destination: Ipv6Addr,
    /// What follows the header.
    pub next_header: u8,
    /// How many routers may forward the packet.
    pub hop_limit: u8,
    /// DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// The flow label; bits above the lower 20 are cut off.
    pub flow_label: u32,
}

impl Header {
    /// Writes 40 bytes at the start of `buf`.
    ///
    /// # Panics
    /// If `buf` is shorter than [`HEADER_LEN`], or the payload is longer than 65,535 bytes.
    #[inline]
    pub fn emit(&self, buf: &mut [u8], payload_len: usize) {
        let header: &mut [u8; HEADER_LEN] = buf.first_chunk_mut().expect("room for an IPv6 header");
        let payload_len =
            u16::try_from(payload_len).expect("an IPv6 payload of at most 65535 bytes");
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | (self.flow_label & 0xf_ffff);
        header[..4].copy_from_slice(&first.to_be_bytes());
        header[4..6].copy_from_slice(&payload_len.to_be_bytes());
        header[6] = self.next_header;
        header[7] = self.hop_limit;
        header[8..24].copy_from_slice(&self.source.octets());
        header[24..].copy_from_slice(&self.destination.octets());
    }
}
