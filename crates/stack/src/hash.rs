//! Keyed hashes: a quick one for the flow table, and SipHash where a peer must not foresee the
//! result.

/// Sets the keys of Fast Open apart from other uses of the stack's.
const FAST_OPEN_DOMAIN: u64 = 0x6661_7374_6f70_656e;

/// The stack's secrets.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    fold: [u64; 2],
    sip: [u64; 2],
}

impl Keys {
    pub(crate) fn new(seed: [u64; 4]) -> Self {
        // A seed of small numbers must not make weak multipliers.
        let mut state = seed[0] ^ seed[3].rotate_left(32);
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        Keys {
            fold: [seed[0] ^ next(), seed[1] ^ next()],
            sip: [seed[2] ^ next(), seed[3] ^ next()],
        }
    }

    /// Where a flow is in the table. Two 64-bit multiplications, folded; without the key nobody
    /// can choose addresses that collide.
    #[inline(always)]
    pub(crate) fn flow(&self, remote: u128, ports: u32, local: u8) -> u32 {
        let low = remote as u64 ^ self.fold[0];
        let high =
            (remote >> 64) as u64 ^ (u64::from(ports) << 8 | u64::from(local)) ^ self.fold[1];
        let once = fold(low ^ (u64::from(ports) << 32), high | 1);
        let twice = fold(once ^ self.fold[1], self.fold[0] | 1);
        (twice ^ (twice >> 32)) as u32
    }

    /// 20 bits that are the same for the same flow; one multiplication, for nothing depends on
    /// their quality.
    #[inline]
    pub(crate) fn flow_label(&self, flow: u64) -> u32 {
        (fold(flow ^ self.fold[0], self.fold[1] | 1) >> 44) as u32
    }

    /// A pseudo-random function of a few words, for sequence numbers and ports.
    #[inline]
    pub(crate) fn prf<const N: usize>(&self, words: &[u64; N]) -> u64 {
        prf(self.sip, words)
    }

    /// A key for cookies of Fast Open, where the configuration has none.
    pub(crate) fn fast_open(&self) -> [u8; 16] {
        let halves = [self.prf(&[FAST_OPEN_DOMAIN, 0]), self.prf(&[FAST_OPEN_DOMAIN, 1])];
        let mut key = [0; 16];
        for (to, half) in key.chunks_exact_mut(8).zip(halves) {
            to.copy_from_slice(&half.to_le_bytes());
        }
        key
    }
}

/// The same under another secret.
pub(crate) fn prf<const N: usize>(secret: [u64; 2], words: &[u64; N]) -> u64 {
    siphash::<1, 3, N>(secret, words)
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// SipHash-2-4 of whole 64-bit words.
pub(crate) fn siphash24<const N: usize>(key: [u64; 2], words: &[u64; N]) -> u64 {
    siphash::<2, 4, N>(key, words)
}

/// SipHash (Aumasson and Bernstein, 2012) of whole 64-bit words, with so many rounds for each and
/// so many at the end. The number of words is known when it is compiled, so that no loop is left.
fn siphash<const EACH: usize, const LAST: usize, const N: usize>(
    key: [u64; 2],
    words: &[u64; N],
) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut take = |word: u64| {
        v[3] ^= word;
        for _ in 0..EACH {
            sip_round(&mut v);
        }
        v[0] ^= word;
    };
    for &word in words {
        take(word);
    }
    take((N as u64 * 8) << 56);
    v[2] ^= 0xff;
    for _ in 0..LAST {
        sip_round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline]
fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(deprecated)]
    fn siphash_agrees_with_the_standard_library() {
        use core::hash::{Hasher, SipHasher};
        // The library's public one is SipHash-2-4; DefaultHasher is 1-3 with a zero key.
        let mut default = std::collections::hash_map::DefaultHasher::new();
        default.write_u64(7);
        default.write_u64(u64::MAX);
        assert_eq!(siphash::<1, 3, 2>([0, 0], &[7, u64::MAX]), default.finish());
        let mut older = SipHasher::new_with_keys(5, 6);
        older.write_u64(u64::MAX);
        assert_eq!(siphash24([5, 6], &[u64::MAX]), older.finish());
    }

    #[test]
    fn neighbouring_flows_spread() {
        let keys = Keys::new([1, 2, 3, 4]);
        let mut buckets = [0u32; 256];
        for port in 0..25_600u32 {
            buckets[(keys.flow(0xffff_c000_0201, port << 16 | 80, 0) >> 24) as usize] += 1;
        }
        assert!(buckets.iter().all(|&count| (40..200).contains(&count)), "{buckets:?}");
    }

    #[test]
    fn another_seed_is_another_order() {
        let (a, b) = (Keys::new([1, 0, 0, 0]), Keys::new([2, 0, 0, 0]));
        assert_ne!(a.flow(1, 2, 3), b.flow(1, 2, 3));
        assert_ne!(a.prf(&[1]), b.prf(&[1]));
    }
}
