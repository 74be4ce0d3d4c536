//! The first hop of a packet: its destination, or a router (RFC 1122 §3.3.1, RFC 4861 §5.2). Of several
//! routers it is one that advertised the network which the packet comes from, for another may not
//! forward it (RFC 8028).

use core::net::IpAddr;

use crate::address::{AddressState, Addresses, Word, is_on_every_link, is_v4, word};
use crate::route::Entry;

/// Where a packet for a destination goes next, and from which address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) local: u8,
    pub(crate) next_hop: Word,
}

/// The routers that told a prefix, the last one first. Of more than there is room for, those that told
/// it longest ago are forgotten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advertisers([Word; 4]);

impl Advertisers {
    pub(crate) const NONE: Advertisers = Advertisers([0; 4]);

    pub(crate) fn add(&mut self, router: Word) {
        let routers = &mut self.0;
        let at = routers.iter().position(|&one| one == router).unwrap_or(routers.len() - 1);
        routers[..=at].rotate_right(1);
        routers[0] = router;
    }

    pub(crate) fn remove(&mut self, router: Word) {
        let routers = &mut self.0;
        if let Some(at) = routers.iter().position(|&one| one == router) {
            routers[at..].rotate_left(1);
            routers[routers.len() - 1] = 0;
        }
    }

    /// Whether the router told it; 0, which stands for none, did not.
    pub(crate) fn has(&self, router: Word) -> bool {
        router != 0 && self.0.contains(&router)
    }

    /// The one that told it last; 0: none did.
    pub(crate) fn last(&self) -> Word {
        self.0[0]
    }
}

impl Addresses {
    /// Our address in whose network the target is, the longest prefix first.
    fn on_link(&self, target: Word) -> Option<(u8, u8)> {
        self.slots()
            .filter(|(_, slot)| {
                slot.on_link
                    && slot.state != Some(AddressState::Duplicate)
                    && is_v4(slot.address) == is_v4(target)
                    && (slot.address ^ target).leading_zeros() >= slot.bits.into()
            })
            .map(|(local, slot)| (slot.bits, local))
            .max_by_key(|&(bits, local)| (bits, core::cmp::Reverse(local)))
    }

    /// Whether the target is reached without a router.
    pub(crate) fn is_on_link(&self, target: Word) -> bool {
        self.on_link(target).is_some()
            || match self.route_of(target, None) {
                Some(route) => route.gateway == 0,
                None => is_on_every_link(target),
            }
    }

    /// The route that a destination has, from an address of ours. One to all link-local hosts does not
    /// count, for they are on the link; one to some of IPv4's is meant as it is: a router has the hosts
    /// by which clouds tell a machine about itself.
    fn route_of(&self, target: Word, from: Option<u8>) -> Option<&Entry> {
        let route = self.routes.find(target, self.preferred_routers(from))?;
        let counts = !is_on_every_link(target) || (is_v4(target) && route.bits > 96 + 16);
        counts.then_some(route)
    }

    /// Which routers packets from an address of ours had better go to; without one, any.
    fn preferred_routers(&self, from: Option<u8>) -> impl Fn(Word) -> bool + use<> {
        let told_by = from.and_then(|local| self.slot(local)).map(|slot| slot.told_by);
        move |router| told_by.is_none_or(|told_by| told_by.has(router))
    }

    /// Who packets to the target go to next, from an address of ours: the longest prefix wins, on the
    /// link before a router. `None`: there is no way there.
    fn next_hop(&self, target: Word, from: Option<u8>) -> Option<Word> {
        if target >> 120 == 0xff {
            return Some(target);
        }
        match (self.on_link(target), self.route_of(target, from)) {
            (Some((bits, _)), Some(route)) if route.bits > bits && route.gateway != 0 => {
                Some(route.gateway)
            }
            (Some(_), _) => Some(target),
            (None, Some(route)) if route.gateway == 0 => Some(target),
            (None, Some(route)) if self.is_on_link(route.gateway) => Some(route.gateway),
            (None, None) if is_on_every_link(target) => Some(target),
            (None, _) => None,
        }
    }

    /// Where packets to the destination go next, and from where. `None`: there is no way there.
    pub(crate) fn route(&self, destination: IpAddr) -> Option<Path> {
        let target = word(destination);
        let next_hop = self.next_hop(target, None)?;
        if !is_v4(target) {
            // The source may be of a prefix that another router than this one told.
            return self.route_from(destination, self.source_by(target, next_hop)?);
        }
        // A network or a router that is on the link because a route says so is in none of ours.
        let local = self.on_link(next_hop).map(|(_, local)| local).or_else(|| self.first_v4())?;
        Some(Path { local, next_hop })
    }

    /// The same from an address of ours; to IPv4 destinations all go the same way.
    pub(crate) fn route_from(&self, destination: IpAddr, local: u8) -> Option<Path> {
        if destination.is_ipv4() {
            return self.route(destination);
        }
        Some(Path { local, next_hop: self.next_hop(word(destination), Some(local))? })
    }

    /// The router whose way to the destination `router` may correct, for packets to there go to it from
    /// some address of ours: it is another one where that is a way corrected already.
    pub(crate) fn corrected_by(&self, router: Word, destination: Word) -> Option<Word> {
        let corrected = |from: Option<u8>| {
            (self.next_hop(destination, from) == Some(router))
                .then(|| self.routes.first(destination, self.preferred_routers(from)))
                .flatten()
                .map(|route| route.gateway)
        };
        if is_v4(destination) {
            return corrected(None);
        }
        self.slots()
            .filter(|(_, slot)| !is_v4(slot.address))
            .find_map(|(local, _)| corrected(Some(local)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::tests::{hop, own};

    #[test]
    fn the_longest_prefix_wins_and_the_rest_goes_to_the_gateway() {
        let addresses = Addresses::new(
            &[own("10.0.0.1", 8), own("10.1.0.1", 16)],
            Some("10.1.0.254".parse().unwrap()),
            8,
        );
        let route = |text: &str| addresses.route(text.parse().unwrap());
        assert_eq!(route("10.1.2.3"), Some(Path { local: 1, next_hop: hop("10.1.2.3") }));
        assert_eq!(route("10.2.2.3"), Some(Path { local: 0, next_hop: hop("10.2.2.3") }));
        assert_eq!(route("192.0.2.1"), Some(Path { local: 1, next_hop: hop("10.1.0.254") }));
        assert_eq!(route("2001:db8::1"), None);
    }

    #[test]
    fn the_last_routers_that_told_a_prefix_are_known() {
        let mut told = Advertisers::NONE;
        assert_eq!(told.last(), 0);
        assert!(!told.has(0));
        for router in [1, 2, 3, 4, 1] {
            told.add(router);
            assert_eq!(told.last(), router);
        }
        told.add(5);
        assert_eq!([1, 2, 3, 4, 5].map(|router| told.has(router)), [true, false, true, true, true]);
        told.remove(5);
        told.remove(9);
        assert_eq!(told.last(), 1);
        told.add(6);
        assert_eq!([1, 3, 4, 6].map(|router| told.has(router)), [true; 4]);
    }
}
