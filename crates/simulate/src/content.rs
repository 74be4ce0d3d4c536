//! What conversations say: bytes that tell where in which stream they belong, so that a receiver
//! knows each byte that should come next without being told.

use crate::random::Dice;

/// A prime, so that no segment size and no power of two is a period of the content.
const PERIOD: usize = 262_139;

/// The bytes of all streams: one block of random bytes, in which each stream starts elsewhere.
#[derive(Debug)]
pub(crate) struct Content(Box<[u8]>);

impl Content {
    pub(crate) fn new() -> Content {
        let mut dice = Dice::new(0x6d69_6c6c_7261_6365);
        let words = (0..PERIOD.div_ceil(8)).flat_map(|_| dice.roll().to_le_bytes());
        Content(words.take(PERIOD).collect())
    }

    fn place(stream: u64, offset: u64) -> usize {
        let start = stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        ((start + offset % PERIOD as u64) % PERIOD as u64) as usize
    }

    /// Bytes of a stream from `offset` on, at least one and at most `most`.
    pub(crate) fn at(&self, stream: u64, offset: u64, most: usize) -> &[u8] {
        let rest = &self.0[Self::place(stream, offset)..];
        &rest[..rest.len().min(most)]
    }

    /// Where `bytes` differs from the stream at `offset`.
    pub(crate) fn mismatch(&self, stream: u64, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut at = 0;
        while at < bytes.len() {
            let wanted = self.at(stream, offset + at as u64, bytes.len() - at);
            let got = &bytes[at..at + wanted.len()];
            if got != wanted {
                let inside = got.iter().zip(wanted).position(|(got, wanted)| got != wanted);
                return Some(offset + (at + inside.unwrap_or(0)) as u64);
            }
            at += wanted.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_out_of_place_is_found() {
        let content = Content::new();
        let mut bytes = Vec::new();
        while bytes.len() < 600_000 {
            bytes.extend_from_slice(content.at(7, bytes.len() as u64, 5_000));
        }
        assert_eq!(content.mismatch(7, 0, &bytes), None);
        assert_eq!(content.mismatch(7, 1_448, &bytes[1_448..]), None);
        assert!(content.mismatch(8, 0, &bytes).is_some());
        assert!(content.mismatch(7, 1_448, &bytes).is_some());
        bytes[400_000] ^= 1;
        assert_eq!(content.mismatch(7, 0, &bytes), Some(400_000));
    }
}
