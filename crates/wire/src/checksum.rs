//! The Internet checksum (RFC 1071): sums, copy and sum in one pass, and updates (RFC 1624).
//!
//! A *partial sum* is the one's-complement sum of 16-bit big-endian words, folded to 16 bits. It
//! is a plain number: the word `12 34` counts 0x1234 on any machine, and a checksum is written to
//! a packet with `to_be_bytes`. Bytes of odd length count as if a zero byte followed them.
//!
//! One's complement has two zeros. A partial sum is 0 only if every byte summed was 0; any other
//! multiple of 0xffff is 0xffff. [`add`] and [`concat()`] keep that, and so sums of the same bytes
//! are equal however they were cut. [`subtract`] and [`update`] cannot tell the zeros apart: where
//! nothing but zeros remain, their result is the other zero.

use core::hint::black_box;
use core::net::{Ipv4Addr, Ipv6Addr};

/// Bytes that one turn of the main loop takes.
const CHUNK: usize = 64;
/// 32-bit lanes of the main loop.
const LANES: usize = CHUNK / 4;
/// Chunks after which the lanes must be emptied, so that the sum of all 16-bit words in them stays
/// below 2^32.
const MAX_CHUNKS: usize = 2048;
/// Up to so many chunks, words are added one by one: to empty the lanes takes longer.
const SCALAR_CHUNKS: usize = 3;
const _: () = assert!((MAX_CHUNKS * CHUNK / 2) as u64 * 0xffff < 1 << 32);

/// Sums of 32-bit words, lane by lane, in the machine's byte order.
///
/// `total` counts whole words and `high` their upper halves, both modulo 2^32. A word is
/// `high << 16 + low`, so the sum of all halves is `total - (high << 16) + high`, exact while it
/// is below 2^32. That takes two additions and a shift for a word, in lanes of any width: three
/// vector instructions for 16 bytes on plain SSE2. To widen each word to 64 bits takes four, and
/// two of them compete for one port.
struct Lanes {
    total: [u32; LANES],
    high: [u32; LANES],
}

impl Lanes {
    #[inline(always)]
    fn new() -> Self {
        Self { total: [0; LANES], high: [0; LANES] }
    }

    #[inline(always)]
    fn add(&mut self, chunk: &[u8; CHUNK]) {
        let (words, _) = chunk.as_chunks::<4>();
        for ((total, high), word) in self.total.iter_mut().zip(&mut self.high).zip(words) {
            let word = u32::from_ne_bytes(*word);
            *total = total.wrapping_add(word);
            *high = high.wrapping_add(word >> 16);
        }
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        let mut total: u32 = 0;
        let mut high: u32 = 0;
        for (lane_total, lane_high) in self.total.iter().zip(&self.high) {
            total = total.wrapping_add(*lane_total);
            high = high.wrapping_add(*lane_high);
        }
        total.wrapping_sub(high.wrapping_mul(0xffff)).into()
    }
}

/// Adds modulo 2^64 - 1. As 2^16 - 1 divides it, folding later gives the same sum.
#[inline(always)]
fn add64(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

/// Folds a sum of big-endian numbers of 16, 32 or 64 bits: modulo 2^16 - 1, each number is the sum
/// of its words. With fields that are about to be written this is faster than to read them back,
/// which must wait for the stores.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let sum = sum + carry as u32;
    let (sum, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
    sum + carry as u16
}

/// Folds a sum of words in the machine's byte order and turns it into big-endian words' sum:
/// swapping the bytes of every word swaps the bytes of their sum (RFC 1071 §2 B).
#[inline(always)]
fn finish_native(sum: u64) -> u16 {
    u16::from_be(fold(sum))
}

/// Sums the 64-bit words of a piece whose length is known when compiling.
#[inline(always)]
fn sum_words<const N: usize>(piece: &[u8; N]) -> u64 {
    let (words, _) = piece.as_chunks::<8>();
    let mut sum = 0;
    for word in words {
        sum = add64(sum, u64::from_ne_bytes(*word));
    }
    sum
}

/// Sums less than a chunk. Halving pieces take a branch each, but no loop: most headers are two
/// or three pieces long.
#[inline(always)]
fn sum_tail(mut bytes: &[u8]) -> u64 {
    let mut sum = 0;
    if let Some((piece, rest)) = bytes.split_first_chunk::<32>() {
        sum = sum_words(piece);
        bytes = rest;
    }
    if let Some((piece, rest)) = bytes.split_first_chunk::<16>() {
        sum = add64(sum, sum_words(piece));
        bytes = rest;
    }
    if let Some((piece, rest)) = bytes.split_first_chunk::<8>() {
        sum = add64(sum, sum_words(piece));
        bytes = rest;
    }
    let mut last = 0;
    if let Some((piece, rest)) = bytes.split_first_chunk::<4>() {
        last += u64::from(u32::from_ne_bytes(*piece));
        bytes = rest;
    }
    if let Some((piece, rest)) = bytes.split_first_chunk::<2>() {
        last += u64::from(u16::from_ne_bytes(*piece));
        bytes = rest;
    }
    if let [byte] = bytes {
        last += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    add64(sum, last)
}

/// Partial sum of bytes.
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    if bytes.len() < CHUNK {
        return finish_native(sum_tail(bytes));
    }
    sum_long(bytes)
}

fn sum_long(bytes: &[u8]) -> u16 {
    let (chunks, rest) = bytes.as_chunks::<CHUNK>();
    let mut sum = sum_tail(rest);
    if chunks.len() <= SCALAR_CHUNKS {
        for chunk in chunks {
            sum = add64(sum, sum_words(chunk));
        }
        return finish_native(sum);
    }
    for block in chunks.chunks(MAX_CHUNKS) {
        let mut lanes = Lanes::new();
        for chunk in block {
            lanes.add(chunk);
            // Without this, on targets with AVX2, the compiler lays its vectors across chunks
            // instead of along the lanes, gathers each word on its own, and takes six times as
            // long. It costs no instruction.
            black_box(());
        }
        sum = add64(sum, lanes.sum());
    }
    finish_native(sum)
}

/// Copies `src` to the start of `dst` and returns the partial sum of what was copied, in one pass.
/// If the lengths differ, as many bytes are copied and summed as the shorter one has.
#[inline]
pub fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> u16 {
    let len = dst.len().min(src.len());
    let (dst, src) = (&mut dst[..len], &src[..len]);
    if len < CHUNK {
        dst.copy_from_slice(src);
        return finish_native(sum_tail(src));
    }
    copy_and_sum_long(dst, src)
}

fn copy_and_sum_long(dst: &mut [u8], src: &[u8]) -> u16 {
    let (chunks, rest) = src.as_chunks::<CHUNK>();
    if chunks.len() <= SCALAR_CHUNKS {
        dst.copy_from_slice(src);
        return sum_long(src);
    }
    let (to_chunks, to_rest) = dst.as_chunks_mut::<CHUNK>();
    let mut sum = 0;
    if !rest.is_empty() {
        to_rest.copy_from_slice(rest);
        sum = sum_tail(rest);
    }
    for (to_block, block) in to_chunks.chunks_mut(MAX_CHUNKS).zip(chunks.chunks(MAX_CHUNKS)) {
        let mut lanes = Lanes::new();
        for (to, chunk) in to_block.iter_mut().zip(block) {
            lanes.add(chunk);
            // A whole chunk at once would be seen as a loop that copies: the compiler would call
            // memcpy for all of it and then go through it a second time.
            let (to_halves, _) = to.as_chunks_mut::<{ CHUNK / 2 }>();
            let (halves, _) = chunk.as_chunks::<{ CHUNK / 2 }>();
            to_halves[0] = halves[0];
            to_halves[1] = halves[1];
        }
        sum = add64(sum, lanes.sum());
    }
    finish_native(sum)
}

/// One's-complement sum of two partial sums.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// Takes a partial sum out of one that it was added to. Of equal sums 0xffff remains.
#[inline]
pub const fn subtract(sum: u16, part: u16) -> u16 {
    add(sum, !part)
}

/// Partial sum of two pieces laid end to end. After a first piece of odd length every byte of the
/// second is in the other half of its word, so its sum's bytes are swapped.
#[inline]
pub const fn concat(first: u16, first_len: usize, second: u16) -> u16 {
    add(first, if first_len.is_multiple_of(2) { second } else { second.swap_bytes() })
}

/// The checksum for the header field: the complement of the partial sum of all else.
///
/// To verify, sum everything with the field as it is: right if `finish(sum) == 0`.
#[inline]
pub const fn finish(sum: u16) -> u16 {
    !sum
}

/// The checksum after one 16-bit word that it covers went from `old` to `new` (RFC 1624 eqn. 3).
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !add(add(!checksum, !old), new)
}

/// The checksum after 32 bits that it covers went from `old` to `new`, such as an IPv4 address.
/// They must begin at an even offset.
#[inline]
pub const fn update32(checksum: u16, old: u32, new: u32) -> u16 {
    update(update(checksum, (old >> 16) as u16, (new >> 16) as u16), old as u16, new as u16)
}

/// Partial sum of IPv4's pseudo-header (RFC 9293 §3.1, RFC 768). `len` counts the header of TCP
/// or UDP and its payload.
#[inline]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: usize) -> u16 {
    let sum = u64::from(source.to_bits())
        + u64::from(destination.to_bits())
        + u64::from(protocol)
        + u64::from(len as u32);
    fold(sum)
}

/// Partial sum of IPv6's pseudo-header (RFC 8200 §8.1). `len` counts the upper-layer header and
/// its payload.
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, len: usize) -> u16 {
    let mut sum = u64::from(next_header) + u64::from(len as u32);
    for bits in [source.to_bits(), destination.to_bits()] {
        sum = add64(sum, (bits >> 64) as u64);
        sum = add64(sum, bits as u64);
    }
    fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum: u64 = 0;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// Bytes that look random but are the same in each run.
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn sums_of_nothing_and_of_zeros() {
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0; 200]), 0);
        assert_eq!(sum(&[0xff; 2]), 0xffff);
        assert_eq!(sum(&[0xff; 200]), 0xffff);
    }

    #[test]
    fn every_short_length_at_every_alignment() {
        let bytes = noise(300 + 64, 1);
        for start in 0..64 {
            for len in 0..=300 {
                let bytes = &bytes[start..][..len];
                assert_eq!(sum(bytes), naive(bytes), "start {start}, length {len}");
            }
        }
    }

    #[test]
    fn copies_and_sums_every_short_length_at_every_pair_of_alignments() {
        let source = noise(300 + 8, 2);
        let mut target = vec![0; 300 + 8];
        for (from, to) in (0..8).flat_map(|from| (0..8).map(move |to| (from, to))) {
            for len in 0..=300 {
                target.fill(0x55);
                let source = &source[from..][..len];
                assert_eq!(copy_and_sum(&mut target[to..][..len], source), naive(source));
                assert_eq!(&target[to..][..len], source);
                assert!(target[..to].iter().chain(&target[to + len..]).all(|&byte| byte == 0x55));
            }
        }
    }

    #[test]
    fn lanes_are_emptied_before_they_overflow() {
        let block = MAX_CHUNKS * CHUNK;
        for len in [block - 1, block, block + 1, 2 * block + CHUNK + 3] {
            for bytes in [vec![0xff; len], noise(len, 3)] {
                let expected = naive(&bytes);
                assert_eq!(sum(&bytes), expected);
                let mut target = vec![0; len];
                assert_eq!(copy_and_sum(&mut target, &bytes), expected);
                assert_eq!(target, bytes);
            }
        }
    }

    #[test]
    fn copies_as_many_bytes_as_the_shorter_slice_has() {
        for (to, from) in [(3, 10), (10, 3), (100, 70), (70, 100), (0, 5), (5, 0)] {
            let source = noise(from, 4);
            let mut target = vec![0; to];
            let len = to.min(from);
            assert_eq!(copy_and_sum(&mut target, &source), naive(&source[..len]));
            assert_eq!(target[..len], source[..len]);
            assert!(target[len..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn update_of_the_example_in_rfc_1624() {
        // §4: the header's checksum is 0xdd2f, and a word goes from 0x5555 to 0x3285.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn pseudo_headers_are_the_sums_of_their_bytes() {
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 255));
        let mut bytes = [a.octets(), b.octets()].concat();
        bytes.extend([0, 6, 0x12, 0x34]);
        assert_eq!(pseudo_v4(a, b, 6, 0x1234), naive(&bytes));

        let (a, b) = (Ipv6Addr::from(!1_u128), Ipv6Addr::from(0x2001_0db8_u128 << 96 | 0xffff));
        let mut bytes = [a.octets(), b.octets()].concat();
        bytes.extend([0, 1, 0x12, 0x34, 0, 0, 0, 17]);
        assert_eq!(pseudo_v6(a, b, 17, 0x11234), naive(&bytes));
    }

    proptest! {

        #![proptest_config(crate::deterministic::config())]

        #[test]
        fn agrees_with_naive(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let expected = naive(&bytes);
            prop_assert_eq!(sum(&bytes), expected);
            let mut target = vec![0; bytes.len()];
            prop_assert_eq!(copy_and_sum(&mut target, &bytes), expected);
            prop_assert_eq!(target, bytes);
        }

        #[test]
        fn pieces_sum_to_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            cut in any::<prop::sample::Index>(),
        ) {
            let cut = cut.index(bytes.len() + 1);
            let (first, second) = bytes.split_at(cut);
            prop_assert_eq!(concat(sum(first), first.len(), sum(second)), sum(&bytes));
        }

        #[test]
        fn subtract_undoes_add(a: u16, b: u16) {
            let back = subtract(add(a, b), b);
            prop_assert!(back == a || (matches!(back, 0 | 0xffff) && matches!(a, 0 | 0xffff)), "{back} {a}");
        }

        #[test]
        fn updated_checksum_is_the_recomputed_one(
            mut bytes in prop::collection::vec(any::<u8>(), 20..61),
            at in any::<prop::sample::Index>(),
            new: u32,
        ) {
            bytes[0] = 0x45; // No header is all zeros, so there is only one zero to meet.
            let at = 2 + at.index((bytes.len() - 6) / 2 + 1) / 2 * 2;
            let before = finish(sum(&bytes));
            let old = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update32(before, old, new), finish(sum(&bytes)));

            let again = finish(sum(&bytes));
            bytes[at..at + 2].copy_from_slice(&(old as u16).to_be_bytes());
            prop_assert_eq!(update(again, (new >> 16) as u16, old as u16), finish(sum(&bytes)));
        }

        #[test]
        fn a_right_checksum_verifies_and_a_flipped_bit_does_not(
            mut bytes in prop::collection::vec(any::<u8>(), 4..200),
            bit: prop::sample::Index,
        ) {
            bytes[..2].fill(0);
            bytes[2] = 1;
            let checksum = finish(sum(&bytes));
            bytes[..2].copy_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(finish(sum(&bytes)), 0);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(finish(sum(&bytes)), 0);
        }
    }
}
