//! Fast Open: data in a SYN, for a peer that has shown before that it is where it says (RFC 7413).
//!
//! [`server`] makes and checks cookies and opens connections early, [`client`] asks for them and
//! puts data into SYNs, and [`cache`] remembers what servers gave and how that went.

pub(crate) mod cache;
pub(crate) mod client;
pub(crate) mod server;

use millrace_wire::tcp::FastOpen;

use crate::address::Word;
use crate::hash::siphash24;

/// A server's secret.
pub(crate) type Key = [u8; 16];

/// The cookie of a client's address, at one of ours: SipHash-2-4 of both, as Linux makes it, so
/// that servers behind one address may share a key.
pub(crate) fn cookie(key: &Key, client: Word, server: Word) -> Option<FastOpen> {
    let half = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| key[at + byte]));
    let key = [half(0), half(8)];
    let hash = if client >> 32 == 0xffff && server >> 32 == 0xffff {
        let addresses = u64::from(client as u32) << 32 | u64::from(server as u32);
        siphash24(key, &[addresses.swap_bytes()])
    } else {
        let words = [client >> 64, client, server >> 64, server].map(|part| part as u64);
        siphash24(key, &words.map(u64::swap_bytes))
    };
    FastOpen::new(&hash.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::word;

    #[test]
    fn cookies_are_those_that_linux_makes() {
        let mut key = [0; 16];
        for (at, byte) in [0xa1, 0xb2, 0xc3, 0xd4].into_iter().enumerate() {
            key[at * 4..at * 4 + 4].fill(byte);
        }
        let (client, server) = ("192.0.2.1".parse().unwrap(), "192.168.0.1".parse().unwrap());
        let made = cookie(&key, word(client), word(server)).unwrap();
        assert_eq!(made.cookie(), 0x3021_b9d8_8901_7eeb_u64.to_be_bytes());
    }

    #[test]
    fn both_addresses_and_the_key_count() {
        let all = [
            cookie(&[1; 16], 0xffff_0000_0001, 0xffff_0000_0002),
            cookie(&[2; 16], 0xffff_0000_0001, 0xffff_0000_0002),
            cookie(&[1; 16], 0xffff_0000_0003, 0xffff_0000_0002),
            cookie(&[1; 16], 0xffff_0000_0001, 0xffff_0000_0003),
            cookie(&[1; 16], 1 << 100, 2),
            cookie(&[1; 16], 1 << 101, 2),
            cookie(&[1; 16], 1 << 100, 2 << 64),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(one.is_some() && !all[..at].contains(one), "{at}");
        }
    }
}
