//! What a generated packet carries so that its receiver can tell what was lost, out of order or
//! doubled, and how long it took: sixteen bytes of its payload.

/// Bytes of a stamp.
pub const LEN: usize = 16;
/// "MR".
const MAGIC: u16 = 0x4d52;

/// The number of a packet in its stream, and when it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Tells streams apart.
    pub stream: u16,
    /// Which packet of the stream, from 0 on, modulo 2^32.
    pub sequence: u32,
    /// When it was sent: nanoseconds since 1970.
    pub time: u64,
}

impl Stamp {
    /// Its bytes, in network order.
    #[inline]
    pub fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0..2].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.stream.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.time.to_be_bytes());
        bytes
    }

    /// The stamp in these bytes, if they are one.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Stamp> {
        let bytes: &[u8; LEN] = bytes.first_chunk()?;
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        if half(0) != MAGIC {
            return None;
        }
        let (words, _) = bytes.as_chunks::<4>();
        let (longs, _) = bytes.as_chunks::<8>();
        Some(Stamp {
            stream: half(2),
            sequence: u32::from_be_bytes(words[1]),
            time: u64::from_be_bytes(longs[1]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let stamp = Stamp { stream: 7, sequence: 0xdead_beef, time: 1_700_000_000_123_456_789 };
        let mut bytes = stamp.bytes();
        assert_eq!(Stamp::read(&bytes), Some(stamp));
        assert_eq!(Stamp::read(&bytes[..15]), None);
        bytes[0] ^= 1;
        assert_eq!(Stamp::read(&bytes), None);
    }
}
