//! The Toeplitz hash of receive side scaling (RSS): which queue a NIC gives a flow to.
//!
//! The input is addresses and ports in the order of the wire: source address, destination
//! address, source port, destination port.
//!
//! This hash is for agreeing with hardware about queues. It is linear, so whoever knows the key
//! finds as many colliding flows as he likes: a table of connections must not be keyed by it
//! alone. That is worse for [`SYMMETRIC`], which has at most 65,536 different results.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A secret of 320 bits, as NICs take it.
pub type Key = [u8; KEY_LEN];

/// Length of a key.
pub const KEY_LEN: usize = 40;

/// Bytes of input that a key is long enough for: two IPv6 addresses and two ports.
pub const MAX_INPUT: usize = KEY_LEN - 4;

/// The key of Microsoft's published examples, the default of many drivers.
pub const MICROSOFT: Key = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// 0x6d5a over and over. Every 16-bit word of the input then meets the same part of the key, so
/// both directions of a flow have the same hash.
pub const SYMMETRIC: Key = {
    let mut key = [0x6d; KEY_LEN];
    let mut i = 1;
    while i < KEY_LEN {
        key[i] = 0x5a;
        i += 2;
    }
    key
};

/// The key that Millrace gives to NICs if nobody chose another.
pub const DEFAULT: Key = SYMMETRIC;

/// The hash of any input, bit by bit. Bytes beyond [`MAX_INPUT`] are ignored, for there is no key
/// for them. [`Hasher`] is the fast way.
pub fn hash(key: &Key, input: &[u8]) -> u32 {
    let mut hash = 0;
    for (position, byte) in input.iter().take(MAX_INPUT).enumerate() {
        hash ^= hash_byte(key, position, *byte);
    }
    hash
}

/// What one byte of input adds to the hash: for each of its bits that is set, the 32 bits of the
/// key that begin at the bit's position. `position` is below [`MAX_INPUT`].
#[inline]
const fn hash_byte(key: &Key, position: usize, byte: u8) -> u32 {
    let mut window = (key[position] as u64) << 32
        | (key[position + 1] as u64) << 24
        | (key[position + 2] as u64) << 16
        | (key[position + 3] as u64) << 8
        | key[position + 4] as u64;
    let mut hash = 0;
    let mut bit = 0x80;
    while bit != 0 {
        if byte & bit != 0 {
            hash ^= (window >> 8) as u32;
        }
        window <<= 1;
        bit >>= 1;
    }
    hash
}

/// The hash of a flow over IPv4.
#[inline]
pub fn hash_v4(
    key: &Key,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    source_port: u16,
    destination_port: u16,
) -> u32 {
    hash(key, &input_v4(source, destination, source_port, destination_port))
}

/// The hash of IPv4 addresses alone: of fragments, and of protocols without ports.
#[inline]
pub fn hash_v4_addresses(key: &Key, source: Ipv4Addr, destination: Ipv4Addr) -> u32 {
    hash(key, input_v4(source, destination, 0, 0).first_chunk::<8>().expect("12 bytes hold 8"))
}

/// The hash of a flow over IPv6.
#[inline]
pub fn hash_v6(
    key: &Key,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    source_port: u16,
    destination_port: u16,
) -> u32 {
    hash(key, &input_v6(source, destination, source_port, destination_port))
}

/// The hash of IPv6 addresses alone: of fragments, and of protocols without ports.
#[inline]
pub fn hash_v6_addresses(key: &Key, source: Ipv6Addr, destination: Ipv6Addr) -> u32 {
    hash(key, input_v6(source, destination, 0, 0).first_chunk::<32>().expect("36 bytes hold 32"))
}

#[inline]
fn input_v4(source: Ipv4Addr, destination: Ipv4Addr, from: u16, to: u16) -> [u8; 12] {
    let mut input = [0; 12];
    input[..4].copy_from_slice(&source.octets());
    input[4..8].copy_from_slice(&destination.octets());
    input[8..10].copy_from_slice(&from.to_be_bytes());
    input[10..].copy_from_slice(&to.to_be_bytes());
    input
}

#[inline]
fn input_v6(source: Ipv6Addr, destination: Ipv6Addr, from: u16, to: u16) -> [u8; 36] {
    let mut input = [0; 36];
    input[..16].copy_from_slice(&source.octets());
    input[16..32].copy_from_slice(&destination.octets());
    input[32..34].copy_from_slice(&from.to_be_bytes());
    input[34..].copy_from_slice(&to.to_be_bytes());
    input
}

/// Tables of one key: what each value of each byte adds to the hash. A byte of input costs one
/// look-up, and of the 36 KiB the first 12 serve IPv4. Build it once, and keep it in a `static` or
/// in a box.
#[derive(Clone, Debug)]
pub struct Hasher {
    tables: [[u32; 256]; MAX_INPUT],
}

impl Hasher {
    /// Computes the tables. In a `static` the compiler does it.
    pub const fn new(key: &Key) -> Self {
        let mut tables = [[0; 256]; MAX_INPUT];
        let mut position = 0;
        while position < MAX_INPUT {
            // By linearity: a value is its lowest bit and a smaller value that is already there.
            let mut value = 1;
            while value < 256 {
                let rest = tables[position][value & (value - 1)];
                let bit = (value & value.wrapping_neg()) as u8;
                tables[position][value] = rest ^ hash_byte(key, position, bit);
                value += 1;
            }
            position += 1;
        }
        Self { tables }
    }

    /// The same as [`hash`] with the key.
    #[inline]
    pub fn hash(&self, input: &[u8]) -> u32 {
        let mut hash = 0;
        for (table, byte) in self.tables.iter().zip(input) {
            hash ^= table[usize::from(*byte)];
        }
        hash
    }

    /// The same as [`hash_v4`] with the key.
    #[inline]
    pub fn hash_v4(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        source_port: u16,
        destination_port: u16,
    ) -> u32 {
        self.hash(&input_v4(source, destination, source_port, destination_port))
    }

    /// The same as [`hash_v4_addresses`] with the key.
    #[inline]
    pub fn hash_v4_addresses(&self, source: Ipv4Addr, destination: Ipv4Addr) -> u32 {
        let input = input_v4(source, destination, 0, 0);
        self.hash(input.first_chunk::<8>().expect("12 bytes hold 8"))
    }

    /// The same as [`hash_v6`] with the key.
    #[inline]
    pub fn hash_v6(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        source_port: u16,
        destination_port: u16,
    ) -> u32 {
        self.hash(&input_v6(source, destination, source_port, destination_port))
    }

    /// The same as [`hash_v6_addresses`] with the key.
    #[inline]
    pub fn hash_v6_addresses(&self, source: Ipv6Addr, destination: Ipv6Addr) -> u32 {
        let input = input_v6(source, destination, 0, 0);
        self.hash(input.first_chunk::<32>().expect("36 bytes hold 32"))
    }
}
