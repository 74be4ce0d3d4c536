//! Addresses that have shown that they exist, by a handshake (Linux: `tcp_peer_is_proven`).
//!
//! Whoever floods with SYNs from invented addresses does not know these, so where not everybody can
//! be served they come first. None may depend on being here: the newer takes the older's place.

use crate::address::{Word, is_v4};
use crate::hash::Keys;

/// How many there can be.
const ENTRIES: usize = 4096;

/// Sets these hashes apart from other uses of the key.
const DOMAIN: u64 = 0x7072_6f76_656e_7065;

/// What is known of them.
#[derive(Clone, Debug)]
pub(crate) struct ProvenPeers {
    /// One half of each one's hash, at the place that the other half gives; 0 is nobody's.
    marks: Box<[u32]>,
    /// Who came last, and so is there: many connections in a row are one peer's.
    last: Word,
}

impl ProvenPeers {
    pub(crate) fn new() -> Self {
        ProvenPeers { marks: vec![0; ENTRIES].into_boxed_slice(), last: 0 }
    }

    /// A handshake with this peer has ended.
    pub(crate) fn add(&mut self, keys: &Keys, remote: Word) {
        if remote != self.last {
            let (place, mark) = place(keys, remote);
            self.marks[place] = mark;
            self.last = remote;
        }
    }

    pub(crate) fn contains(&self, keys: &Keys, remote: Word) -> bool {
        let (place, mark) = place(keys, remote);
        self.marks[place] == mark
    }
}

/// By IPv6, whoever has one address has all of its /64.
fn place(keys: &Keys, remote: Word) -> (usize, u32) {
    let who = if is_v4(remote) { remote as u64 } else { (remote >> 64) as u64 };
    let hash = keys.prf(&[who, u64::from(is_v4(remote)), DOMAIN]);
    (hash as usize % ENTRIES, (hash >> 32) as u32 | 1)
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;
    use crate::address::word;

    fn peer(address: &str) -> Word {
        word(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn an_address_and_an_ipv6_network_are_known_again() {
        let keys = Keys::new([1, 2, 3, 4]);
        let mut peers = ProvenPeers::new();
        let known = ["192.0.2.1", "2001:db8::1"];
        let (same, others) = ("2001:db8::ffff", ["192.0.2.2", "2001:db8:0:1::1", "::"]);
        assert!(known.iter().all(|address| !peers.contains(&keys, peer(address))));
        known.iter().for_each(|address| peers.add(&keys, peer(address)));
        assert!(known.iter().all(|address| peers.contains(&keys, peer(address))));
        assert!(peers.contains(&keys, peer(same)));
        assert!(others.iter().all(|address| !peers.contains(&keys, peer(address))));
    }

    #[test]
    fn invented_addresses_are_not_among_many() {
        let keys = Keys::new([5, 6, 7, 8]);
        let mut peers = ProvenPeers::new();
        let at = |n: u32| word(IpAddr::V4(n.into()));
        (0..20_000).for_each(|n| peers.add(&keys, at(n)));
        // The latest is there; of those before, who lost the place to nobody.
        assert!(peers.contains(&keys, at(19_999)));
        let kept = (0..20_000).filter(|&n| peers.contains(&keys, at(n))).count();
        assert!((3900..=ENTRIES).contains(&kept), "{kept}");
        let lost = (0..20_000).find(|&n| !peers.contains(&keys, at(n))).unwrap();
        for again in [lost, lost] {
            peers.add(&keys, at(again));
            assert!(peers.contains(&keys, at(again)));
        }
        assert_eq!((20_000..1_000_000).filter(|&n| peers.contains(&keys, at(n))).count(), 0);
    }
}
