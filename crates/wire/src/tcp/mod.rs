//! Transmission Control Protocol: segments (RFC 9293 §3.1). Options have a module of their own.

mod flags;
mod options;
mod writer;

pub use flags::Flags;
pub use options::{
    AccurateEcn, FastOpen, MAX_SACK_BLOCKS, MAX_WINDOW_SCALE, Options, UserTimeout, timestamps_only,
};
pub use writer::{OptionWriter, timestamps};

use crate::{Malformed, Seq, checksum};

/// Length of a header without options.
pub const HEADER_LEN: usize = 20;
/// Length of the longest header.
pub const MAX_HEADER_LEN: usize = 60;
/// Bytes that a header has for options.
pub const MAX_OPTIONS_LEN: usize = MAX_HEADER_LEN - HEADER_LEN;
/// Offset of the checksum.
pub const CHECKSUM_OFFSET: usize = 16;

/// A view of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Checks the data offset. `bytes` must be the payload of an IP packet, without link padding.
    /// Options are checked when they are read.
    ///
    /// # Errors
    /// [`Malformed::HeaderLength`] if the data offset is below 5, and [`Malformed::Truncated`] if
    /// it goes beyond the bytes.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        let options_len =
            header_len(header).checked_sub(HEADER_LEN).ok_or(Malformed::HeaderLength)?;
        let (options, payload) = rest.split_at_checked(options_len).ok_or(Malformed::Truncated)?;
        Ok(Self { header, options, payload })
    }

    /// The sender's port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// The receiver's port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Number of the first byte of payload, or of SYN.
    #[inline]
    pub fn sequence(&self) -> Seq {
        let h = self.header;
        Seq(u32::from_be_bytes([h[4], h[5], h[6], h[7]]))
    }

    /// Number of the byte that the sender expects next; without meaning unless ACK is set.
    #[inline]
    pub fn acknowledgement(&self) -> Seq {
        let h = self.header;
        Seq(u32::from_be_bytes([h[8], h[9], h[10], h[11]]))
    }

    /// The control bits but for [`ae`](Self::ae).
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags(self.header[13])
    }

    /// Accurate ECN's bit, once the nonce sum (RFC 9768).
    #[inline]
    pub fn ae(&self) -> bool {
        self.header[12] & 1 != 0
    }

    /// The receive window as it is in the segment, not scaled.
    #[inline]
    pub fn window(&self) -> u16 {
        u16::from_be_bytes([self.header[14], self.header[15]])
    }

    /// The checksum as it is in the segment.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[16], self.header[17]])
    }

    /// The urgent pointer; without meaning unless URG is set.
    #[inline]
    pub fn urgent(&self) -> u16 {
        u16::from_be_bytes([self.header[18], self.header[19]])
    }

    /// Length of the header with its options: the offset of the payload.
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    /// Length of header and payload: what the pseudo-header counts.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.header_len() + self.payload.len()
    }

    /// Sequence numbers that the segment occupies: its payload, and one for each of SYN and FIN
    /// (SEG.LEN of RFC 9293 §3.3.1).
    #[inline]
    pub fn sequence_len(&self) -> u32 {
        let flags = self.flags();
        self.payload.len() as u32
            + u32::from(flags.contains(Flags::SYN))
            + u32::from(flags.contains(Flags::FIN))
    }

    /// What the segment carries.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The bytes of all options, not checked.
    #[inline]
    pub fn options_bytes(&self) -> &'a [u8] {
        self.options
    }

    /// All options, in one pass. Options that are not known are skipped; of an option that is
    /// there twice, the last one counts.
    ///
    /// # Errors
    /// [`Malformed::Option`] if a length goes beyond the header, is below 2, or is not one that
    /// its kind can have.
    #[inline]
    pub fn options(&self) -> Result<Options, Malformed> {
        Options::parse(self.options)
    }

    /// True if the checksum is right. `pseudo` is the pseudo-header's sum for
    /// [`total_len`](Self::total_len).
    #[inline]
    pub fn verify_checksum(&self, pseudo: u16) -> bool {
        // Header and options end at multiples of four, so no part has to be swapped.
        let sum = checksum::add(pseudo, checksum::sum(self.header));
        let sum = checksum::add(sum, checksum::sum(self.options));
        checksum::finish(checksum::add(sum, checksum::sum(self.payload))) == 0
    }

    /// True if the field holds the pseudo-header's sum and nothing more: a local link on which the
    /// kernel left the rest to hardware that does not exist (`CHECKSUM_PARTIAL`).
    #[inline]
    pub fn has_partial_checksum(&self, pseudo: u16) -> bool {
        self.checksum() == pseudo
    }
}

#[inline]
fn header_len(header: &[u8; HEADER_LEN]) -> usize {
    usize::from(header[12] >> 4) * 4
}

/// What the first eight bytes of a segment say. An ICMP error may quote no more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Number of the first byte of payload, or of SYN.
    pub sequence: Seq,
}

impl Quoted {
    /// Reads the beginning of a segment.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] if there are less than eight bytes.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let &[a, b, c, d, e, f, g, h] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        Ok(Self {
            source_port: u16::from_be_bytes([a, b]),
            destination_port: u16::from_be_bytes([c, d]),
            sequence: Seq(u32::from_be_bytes([e, f, g, h])),
        })
    }
}

/// What a header says besides its options, for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Number of the first byte of payload, or of SYN.
    pub sequence: Seq,
    /// Number of the byte expected next.
    pub acknowledgement: Seq,
    /// The control bits.
    pub flags: Flags,
    /// The receive window, already scaled down.
    pub window: u16,
    /// The urgent pointer.
    pub urgent: u16,
}

impl Header {
    /// Writes the header with its options and checksum 0 at the start of `buf`, and returns its
    /// length: the offset for the payload. `options` are padded, as [`OptionWriter::padded`] does.
    ///
    /// # Panics
    /// If `buf` is too short, or `options` are not a multiple of four bytes or more than 40.
    #[inline]
    pub fn emit(&self, buf: &mut [u8], options: &[u8]) -> usize {
        self.write(buf, options);
        HEADER_LEN + options.len()
    }

    /// Like [`emit`](Self::emit), but with the right checksum. `pseudo` is the sum of the
    /// pseudo-header, whose length counts header, options and payload, and `payload_sum` that of
    /// the payload. Faster than [`emit`](Self::emit) and [`fill_checksum`], for the header is not
    /// read back.
    ///
    /// # Panics
    /// As [`emit`](Self::emit).
    #[inline]
    pub fn emit_with_checksum(
        &self,
        buf: &mut [u8],
        options: &[u8],
        pseudo: u16,
        payload_sum: u16,
    ) -> usize {
        let sum = checksum::add(self.write(buf, options), checksum::sum(options));
        let sum = checksum::add(checksum::add(sum, pseudo), payload_sum);
        set_checksum(buf, checksum::finish(sum));
        HEADER_LEN + options.len()
    }

    /// Writes everything but the checksum, and returns the sum of the first 20 bytes.
    #[inline]
    fn write(&self, buf: &mut [u8], options: &[u8]) -> u16 {
        assert!(
            options.len().is_multiple_of(4) && options.len() <= MAX_OPTIONS_LEN,
            "TCP options fill 32-bit words, at most ten"
        );
        let len = HEADER_LEN + options.len();
        let (header, to) =
            buf[..len].split_first_chunk_mut::<HEADER_LEN>().expect("room for a TCP header");
        let words = [
            u32::from(self.source_port) << 16 | u32::from(self.destination_port),
            self.sequence.0,
            self.acknowledgement.0,
            (len as u32 / 4) << 28 | u32::from(self.flags.0) << 16 | u32::from(self.window),
            u32::from(self.urgent),
        ];
        let (fields, _) = header.as_chunks_mut::<4>();
        for (field, word) in fields.iter_mut().zip(words) {
            *field = word.to_be_bytes();
        }
        to.copy_from_slice(options);
        checksum::fold(words.iter().map(|word| u64::from(*word)).sum())
    }
}

/// Computes and writes the checksum. `header` is the whole header with its options and nothing
/// else, `pseudo` the sum of the pseudo-header and `payload_sum` that of the payload.
///
/// # Panics
/// If `header` is shorter than [`HEADER_LEN`].
#[inline]
pub fn fill_checksum(header: &mut [u8], pseudo: u16, payload_sum: u16) {
    set_checksum(header, 0);
    let sum = checksum::add(checksum::add(pseudo, payload_sum), checksum::sum(header));
    set_checksum(header, checksum::finish(sum));
}

/// Writes a value into the checksum field: [`fill_checksum`] is not needed when a port's hardware
/// finishes the checksum and wants the pseudo-header's sum there.
///
/// # Panics
/// If `header` is shorter than [`HEADER_LEN`].
#[inline]
pub fn set_checksum(header: &mut [u8], value: u16) {
    let header: &mut [u8; HEADER_LEN] = header.first_chunk_mut().expect("a whole TCP header");
    header[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&value.to_be_bytes());
}
