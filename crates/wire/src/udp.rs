//! User Datagram Protocol (RFC 768).

use crate::{Malformed, checksum};

/// Length of the header.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum.
pub const CHECKSUM_OFFSET: usize = 6;

/// A view of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Checks the length field. Bytes beyond it do not belong to the datagram.
    ///
    /// # Errors
    /// [`Malformed::TotalLength`] if the length field is below 8, and [`Malformed::Truncated`] if
    /// it goes beyond the bytes.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload_len = len.checked_sub(HEADER_LEN).ok_or(Malformed::TotalLength)?;
        let payload = rest.get(..payload_len).ok_or(Malformed::Truncated)?;
        Ok(Self { header, payload })
    }

    /// Like [`parse`](Self::parse) for the beginning of a datagram, which goes on elsewhere. The
    /// header must be whole; [`payload`](Self::payload) is what there is of it.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); [`Malformed::Truncated`] for a cut header only.
    #[inline]
    pub fn parse_cut(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload_len = len.checked_sub(HEADER_LEN).ok_or(Malformed::TotalLength)?;
        Ok(Self { header, payload: rest.get(..payload_len).unwrap_or(rest) })
    }

    /// The sender's port; 0 if it expects no answer.
    #[inline]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// The receiver's port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Length of header and payload as the header states it: what the pseudo-header counts.
    #[inline]
    pub fn total_len(&self) -> usize {
        u16::from_be_bytes([self.header[4], self.header[5]]).into()
    }

    /// The checksum as it is in the datagram.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// False if the sender computed no checksum: the field is 0. IPv6 forbids that (RFC 8200 §8.1)
    /// but for the tunnels of RFC 6935.
    #[inline]
    pub fn has_checksum(&self) -> bool {
        self.checksum() != 0
    }

    /// What the datagram carries.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// True if the checksum is right, or if the sender computed none. `pseudo` is the
    /// pseudo-header's sum for [`total_len`](Self::total_len).
    #[inline]
    pub fn verify_checksum(&self, pseudo: u16) -> bool {
        if !self.has_checksum() {
            return true;
        }
        let sum = checksum::add(pseudo, checksum::sum(self.header));
        checksum::finish(checksum::add(sum, checksum::sum(self.payload))) == 0
    }

    /// True if the field holds the pseudo-header's sum and nothing more: a local link on which the
    /// kernel left the rest to hardware that does not exist (`CHECKSUM_PARTIAL`).
    #[inline]
    pub fn has_partial_checksum(&self, pseudo: u16) -> bool {
        self.checksum() == pseudo
    }
}

/// Writes a header with checksum 0, which means none, at the start of `buf`.
///
/// # Panics
/// If `buf` is shorter than [`HEADER_LEN`], or header and payload are longer than 65,535 bytes.
#[inline]
pub fn emit(buf: &mut [u8], source_port: u16, destination_port: u16, payload_len: usize) {
    let header: &mut [u8; HEADER_LEN] = buf.first_chunk_mut().expect("room for a UDP header");
    let len = u16::try_from(HEADER_LEN + payload_len).expect("a datagram of at most 65535 bytes");
    header[..2].copy_from_slice(&source_port.to_be_bytes());
    header[2..4].copy_from_slice(&destination_port.to_be_bytes());
    header[4..6].copy_from_slice(&len.to_be_bytes());
    header[6..].copy_from_slice(&[0; 2]);
}

/// Computes and writes the checksum of a header that [`emit`] wrote. `pseudo` is the sum of the
/// pseudo-header and `payload_sum` that of the payload. A result of 0 is sent as 0xffff, since 0
/// means that there is none.
///
/// # Panics
/// If `header` is shorter than [`HEADER_LEN`].
#[inline]
pub fn fill_checksum(header: &mut [u8], pseudo: u16, payload_sum: u16) {
    let header: &mut [u8; HEADER_LEN] = header.first_chunk_mut().expect("a whole UDP header");
    header[6..].copy_from_slice(&[0; 2]);
    let sum = checksum::add(checksum::add(pseudo, payload_sum), checksum::sum(header));
    let checksum = match checksum::finish(sum) {
        0 => 0xffff,
        other => other,
    };
    header[6..].copy_from_slice(&checksum.to_be_bytes());
}
