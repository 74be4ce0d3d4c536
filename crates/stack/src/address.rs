//! Addresses of both families in one word, and which of ours a packet came to.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::InterfaceAddress;

/// Both families as one number: IPv4 as an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2).
pub(crate) type Word = u128;

#[inline]
pub(crate) fn word_v4(address: Ipv4Addr) -> Word {
    0xffff_0000_0000 | u128::from(address.to_bits())
}

#[inline]
pub(crate) fn word(address: IpAddr) -> Word {
    match address {
        IpAddr::V4(v4) => word_v4(v4),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address that [`word`] made the number of. A mapped IPv6 address comes back as IPv4.
#[inline]
pub(crate) fn address(word: Word) -> IpAddr {
    if word >> 32 == 0xffff {
        IpAddr::V4(Ipv4Addr::from_bits(word as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(word))
    }
}

/// The stack's own addresses and its routes: what is on the link, and the gateway for the rest.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    own: Vec<InterfaceAddress>,
    words: Vec<Word>,
    gateway: Option<IpAddr>,
}

/// Where a packet for a destination goes next, and from which address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) local: u8,
    pub(crate) next_hop: Word,
}

impl Addresses {
    pub(crate) fn new(own: &[InterfaceAddress], gateway: Option<IpAddr>) -> Self {
        Addresses {
            own: own.to_vec(),
            words: own.iter().map(|own| word(own.address)).collect(),
            gateway,
        }
    }

    /// The number of our address, if it is ours.
    #[inline]
    pub(crate) fn find(&self, wanted: Word) -> Option<u8> {
        self.words.iter().position(|&word| word == wanted).map(|index| index as u8)
    }

    #[inline]
    pub(crate) fn get(&self, local: u8) -> IpAddr {
        self.own.get(local as usize).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |own| own.address)
    }

    #[inline]
    pub(crate) fn v4(&self, local: u8) -> Ipv4Addr {
        match self.get(local) {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Whether the destination is a broadcast address of one of our networks (or the limited one).
    pub(crate) fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        address.is_broadcast()
            || self.own.iter().any(|own| match own.address {
                IpAddr::V4(v4) if own.prefix < 31 => {
                    address.to_bits() == v4.to_bits() | !mask_v4(own.prefix)
                }
                _ => false,
            })
    }

    /// Whether packets may come from the address: no multicast, broadcast, loopback or
    /// unspecified one (RFC 1122 §3.2.1.3), and none of ours.
    pub(crate) fn may_be_a_host(&self, source: Word) -> bool {
        let allowed = match address(source) {
            IpAddr::V4(v4) => {
                !(v4.is_multicast()
                    || v4.is_loopback()
                    || v4.is_unspecified()
                    || self.is_broadcast(v4))
            }
            IpAddr::V6(v6) => !(v6.is_multicast() || v6.is_loopback() || v6.is_unspecified()),
        };
        allowed && self.find(source).is_none()
    }

    /// Longest prefix first; then the gateway. `None`: there is no way there.
    pub(crate) fn route(&self, destination: IpAddr) -> Option<Route> {
        let on_link = |target: IpAddr| {
            self.own
                .iter()
                .enumerate()
                .filter(|(_, own)| in_network(own, target))
                .max_by_key(|(index, own)| (own.prefix, core::cmp::Reverse(*index)))
                .map(|(index, _)| index as u8)
        };
        if let Some(local) = on_link(destination) {
            return Some(Route { local, next_hop: word(destination) });
        }
        let gateway = self.gateway?;
        if gateway.is_ipv4() != destination.is_ipv4() {
            return None;
        }
        let local = on_link(gateway)?;
        Some(Route { local, next_hop: word(gateway) })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, IpAddr)> + '_ {
        self.own.iter().enumerate().map(|(index, own)| (index as u8, own.address))
    }
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn in_network(own: &InterfaceAddress, target: IpAddr) -> bool {
    match (own.address, target) {
        (IpAddr::V4(own_address), IpAddr::V4(target)) => {
            (own_address.to_bits() ^ target.to_bits()) & mask_v4(own.prefix) == 0
        }
        (IpAddr::V6(own_address), IpAddr::V6(target)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(own.prefix.min(128))).unwrap_or(0);
            (own_address.to_bits() ^ target.to_bits()) & mask == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(text: &str, prefix: u8) -> InterfaceAddress {
        InterfaceAddress { address: text.parse().unwrap(), prefix }
    }

    #[test]
    fn both_families_survive_the_word() {
        for text in ["192.0.2.1", "2001:db8::1", "255.255.255.255", "::"] {
            let original: IpAddr = text.parse().unwrap();
            assert_eq!(address(word(original)), original);
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_the_rest_goes_to_the_gateway() {
        let addresses = Addresses::new(
            &[own("10.0.0.1", 8), own("10.1.0.1", 16)],
            Some("10.1.0.254".parse().unwrap()),
        );
        let route = |text: &str| addresses.route(text.parse().unwrap());
        let hop = |text: &str| word(text.parse().unwrap());
        assert_eq!(route("10.1.2.3"), Some(Route { local: 1, next_hop: hop("10.1.2.3") }));
        assert_eq!(route("10.2.2.3"), Some(Route { local: 0, next_hop: hop("10.2.2.3") }));
        assert_eq!(route("192.0.2.1"), Some(Route { local: 1, next_hop: hop("10.1.0.254") }));
        assert_eq!(route("2001:db8::1"), None);
    }

    #[test]
    fn broadcasts_are_known_by_the_prefix() {
        let addresses = Addresses::new(&[own("192.0.2.2", 24), own("198.51.100.1", 31)], None);
        assert!(addresses.is_broadcast("192.0.2.255".parse().unwrap()));
        assert!(addresses.is_broadcast("255.255.255.255".parse().unwrap()));
        assert!(!addresses.is_broadcast("192.0.2.254".parse().unwrap()));
        assert!(!addresses.is_broadcast("198.51.100.1".parse().unwrap()));
    }
}
