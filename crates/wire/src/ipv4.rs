//! Internet Protocol version 4 (RFC 791).

use core::net::Ipv4Addr;

use crate::{Malformed, checksum};

/// Length of a header without options.
pub const HEADER_LEN: usize = 20;
/// Length of the longest header.
pub const MAX_HEADER_LEN: usize = 60;
/// Offset of the header checksum.
pub const CHECKSUM_OFFSET: usize = 10;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// A view of an IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks version and lengths. Bytes beyond the total length, such as Ethernet's padding, do
    /// not belong to the packet. The checksum is not verified here: see
    /// [`verify_checksum`](Self::verify_checksum).
    ///
    /// # Errors
    /// [`Malformed::Version`], [`Malformed::HeaderLength`], [`Malformed::TotalLength`], or
    /// [`Malformed::Truncated`] if the total length goes beyond the bytes.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let packet = Self::parse_cut(bytes)?;
        if packet.total_len() > bytes.len() {
            return Err(Malformed::Truncated);
        }
        Ok(packet)
    }

    /// Like [`parse`](Self::parse) for a packet whose end may be missing: one that an ICMP error
    /// quotes, or one of which a capture kept the beginning only. The header must be whole.
    /// [`payload`](Self::payload) is what there is of it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); [`Malformed::Truncated`] for a cut header only.
    #[inline]
    pub fn parse_cut(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        if header[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let options_len =
            header_len(header).checked_sub(HEADER_LEN).ok_or(Malformed::HeaderLength)?;
        let payload_len =
            total_len(header).checked_sub(header_len(header)).ok_or(Malformed::TotalLength)?;
        let (options, rest) = rest.split_at_checked(options_len).ok_or(Malformed::Truncated)?;
        let payload = rest.get(..payload_len).unwrap_or(rest);
        Ok(Self { header, options, payload })
    }

    /// The sender's address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        let h = self.header;
        Ipv4Addr::new(h[12], h[13], h[14], h[15])
    }

    /// The receiver's address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        let h = self.header;
        Ipv4Addr::new(h[16], h[17], h[18], h[19])
    }

    /// What the payload is: one of [`protocol`](crate::protocol), or anything else.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// Time to live: how many routers may still forward the packet.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.header[8]
    }

    /// The byte of DSCP and ECN, once called type of service.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.header[1]
    }

    /// Differentiated services code point, 0 to 63 (RFC 2474).
    #[inline]
    pub fn dscp(&self) -> u8 {
        self.tos() >> 2
    }

    /// Explicit congestion notification, 0 to 3 (RFC 3168): 0 not capable, 1 ECT(1), 2 ECT(0), 3 CE.
    #[inline]
    pub fn ecn(&self) -> u8 {
        self.tos() & 3
    }

    /// What the fragments of one packet have in common.
    #[inline]
    pub fn identification(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// True if routers must not fragment the packet.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.fragment_field() & DONT_FRAGMENT != 0
    }

    /// True for every fragment but the last.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.fragment_field() & MORE_FRAGMENTS != 0
    }

    /// Where the payload begins in that of the whole packet, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.fragment_field() & OFFSET_MASK) * 8
    }

    /// True if this is a part of a packet only. All parts but the first have no upper header.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment_field() & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// Length of the header with its options: the offset of the payload.
    #[inline]
    pub fn header_len(&self) -> usize {
        header_len(self.header)
    }

    /// Length of header and payload as the header states it.
    #[inline]
    pub fn total_len(&self) -> usize {
        total_len(self.header)
    }

    /// The header checksum as it is in the packet.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[CHECKSUM_OFFSET], self.header[CHECKSUM_OFFSET + 1]])
    }

    /// The bytes of all options, not checked.
    #[inline]
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// The options one by one.
    #[inline]
    pub fn options_iter(&self) -> Options<'a> {
        Options { rest: self.options }
    }

    /// What the packet carries, without link padding.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// True if the header checksum is right.
    #[inline]
    pub fn verify_checksum(&self) -> bool {
        let sum = checksum::sum(self.header);
        let sum = checksum::add(sum, checksum::sum(self.options));
        checksum::finish(sum) == 0
    }

    #[inline]
    fn fragment_field(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }
}

#[inline]
fn header_len(header: &[u8; HEADER_LEN]) -> usize {
    usize::from(header[0] & 0x0f) * 4
}

#[inline]
fn total_len(header: &[u8; HEADER_LEN]) -> usize {
    u16::from_be_bytes([header[2], header[3]]).into()
}

/// An option of an IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Option<'a> {
    /// Copied flag, class and number in one byte, as RFC 791 lists them: 131 is loose source route.
    pub kind: u8,
    /// What follows the length byte.
    pub data: &'a [u8],
}

/// Iterator over options. No-operations are skipped, the end of options ends it, and so does the
/// first [`Malformed::Option`]. It yields at most 20 items, for 40 bytes hold no more.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<Ipv4Option<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        loop {
            let (&kind, rest) = self.rest.split_first()?;
            match kind {
                END => {
                    self.rest = &[];
                    return None;
                }
                NO_OPERATION => self.rest = rest,
                _ => {
                    // The length counts the kind and itself.
                    let option =
                        rest.first().and_then(|&len| self.rest.split_at_checked(len.into()));
                    let Some(([kind, _, data @ ..], rest)) = option else {
                        self.rest = &[];
                        return Some(Err(Malformed::Option));
                    };
                    self.rest = rest;
                    return Some(Ok(Ipv4Option { kind: *kind, data }));
                }
            }
        }
    }
}

/// What a header without options says, for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's address.
    pub source: Ipv4Addr,
    /// The receiver's address.
    pub destination: Ipv4Addr,
    /// What the payload is: one of [`protocol`](crate::protocol).
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// DSCP in the upper six bits, ECN in the lower two.
    pub tos: u8,
    /// What fragments of this packet would have in common; without meaning if `dont_fragment`
    /// (RFC 6864).
    pub identification: u16,
    /// Forbid routers to fragment the packet.
    pub dont_fragment: bool,
}

impl Header {
    /// Writes 20 bytes with their checksum at the start of `buf`.
    ///
    /// # Panics
    /// If `buf` is shorter than [`HEADER_LEN`], or header and payload are longer than 65,535 bytes.
    #[inline]
    pub fn emit(&self, buf: &mut [u8], payload_len: usize) {
        let fragment = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        self.emit_with(buf, payload_len, fragment);
    }

    /// As [`emit`](Self::emit) for a fragment that begins `offset` bytes into the whole packet's
    /// payload; `more` for all but the last. `dont_fragment` is without meaning here.
    ///
    /// # Panics
    /// As [`emit`](Self::emit), and if `offset` is no multiple of 8 or above 65,528.
    #[inline]
    pub fn emit_fragment(&self, buf: &mut [u8], payload_len: usize, offset: usize, more: bool) {
        let units = offset / 8;
        assert!(units * 8 == offset && units <= usize::from(OFFSET_MASK), "offset {offset}");
        let more = if more { MORE_FRAGMENTS } else { 0 };
        self.emit_with(buf, payload_len, units as u16 | more);
    }

    #[inline]
    fn emit_with(&self, buf: &mut [u8], payload_len: usize, fragment: u16) {
        let header: &mut [u8; HEADER_LEN] = buf.first_chunk_mut().expect("room for an IPv4 header");
        let total_len =
            u16::try_from(HEADER_LEN + payload_len).expect("an IPv4 packet of at most 65535 bytes");
        let words = [
            (4 << 12 | (HEADER_LEN as u32 / 4) << 8 | u32::from(self.tos)) << 16
                | u32::from(total_len),
            u32::from(self.identification) << 16 | u32::from(fragment),
            u32::from(self.ttl) << 24 | u32::from(self.protocol) << 16,
            self.source.to_bits(),
            self.destination.to_bits(),
        ];
        let sum = words.iter().map(|word| u64::from(*word)).sum();
        let (fields, _) = header.as_chunks_mut::<4>();
        for (field, word) in fields.iter_mut().zip(words) {
            *field = word.to_be_bytes();
        }
        let checksum = checksum::finish(checksum::fold(sum));
        header[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}
