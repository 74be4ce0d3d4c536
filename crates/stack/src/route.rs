//! The routing table: the longest prefix first, gateways of both families (RFC 1122 §3.3.1,
//! RFC 4861 §5.2, RFC 4191).
//!
//! Bounded. What is on the link because an address of ours is there is not in it: [`crate::address`]
//! knows that.

use core::net::IpAddr;

use millrace_frames::Instant;

use crate::address::{Word, address, is_v4, network, word, word_bits};

/// Where packets to a network go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// An address of the network.
    pub destination: IpAddr,
    /// Bits of the network's prefix; 0: everywhere.
    pub prefix: u8,
    /// The router; `None`: the network is on the link.
    pub gateway: Option<IpAddr>,
}

impl Route {
    /// Everywhere, by this router.
    pub fn default_by(gateway: IpAddr) -> Route {
        let destination = match gateway {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        Route { destination, prefix: 0, gateway: Some(gateway) }
    }
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteOrigin {
    /// The network of an address of ours.
    Address,
    /// Given in the configuration or by [`crate::Stack::add_route`].
    Configured,
    /// A router advertised it (RFC 4861 §6.3.4).
    Router,
    /// A router sent us there (RFC 1122 §3.2.2.2, RFC 4861 §8.3).
    Redirect,
}

/// A look at a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// The route itself.
    pub route: Route,
    /// Where it comes from.
    pub origin: RouteOrigin,
    /// When it ends; `None`: never.
    pub expires: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) network: Word,
    /// Bits of the prefix, counted in the word.
    pub(crate) bits: u8,
    /// 0: on the link.
    pub(crate) gateway: Word,
    pub(crate) origin: RouteOrigin,
    /// The router that told it last, of a redirect the one whose way it corrects; 0: nobody did.
    pub(crate) told_by: Word,
    /// 1 high, 0 medium, -1 low (RFC 4191 §2.1).
    pub(crate) preference: i8,
    pub(crate) expires: Instant,
    /// The router did not answer when it was last asked.
    pub(crate) unreachable: bool,
}

impl Entry {
    fn covers(&self, target: Word) -> bool {
        is_v4(self.network) == is_v4(target) && network(self.network ^ target, self.bits) == 0
    }

    pub(crate) fn same(&self, other: &Entry) -> bool {
        (self.network, self.bits, self.gateway, self.origin)
            == (other.network, other.bits, other.gateway, other.origin)
    }

    pub(crate) fn info(&self) -> RouteInfo {
        let bits = if is_v4(self.network) { self.bits - 96 } else { self.bits };
        RouteInfo {
            route: Route {
                destination: address(self.network),
                prefix: bits,
                gateway: (self.gateway != 0).then(|| address(self.gateway)),
            },
            origin: self.origin,
            expires: (self.expires != Instant::FAR_FUTURE).then_some(self.expires),
        }
    }
}

/// The table, the longest prefix first, then the greatest preference, then the oldest.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    entries: Vec<Entry>,
    limit: usize,
}

impl Routes {
    pub(crate) fn new(limit: u16) -> Routes {
        Routes { entries: Vec::with_capacity(limit.into()), limit: limit.into() }
    }

    pub(crate) fn entry(route: Route) -> Entry {
        let bits = word_bits(route.destination, route.prefix);
        Entry {
            network: network(word(route.destination), bits),
            bits,
            gateway: route.gateway.map_or(0, word),
            origin: RouteOrigin::Configured,
            told_by: 0,
            preference: 0,
            expires: Instant::FAR_FUTURE,
            unreachable: false,
        }
    }

    /// Returns false if the table is full.
    pub(crate) fn add_configured(&mut self, route: Route) -> bool {
        self.add(Routes::entry(route))
    }

    /// Adds a route, or renews the same one. Returns false if the table is full.
    pub(crate) fn add(&mut self, mut entry: Entry) -> bool {
        if let Some(at) = self.entries.iter().position(|other| other.same(&entry)) {
            let old = &mut self.entries[at];
            if old.preference == entry.preference {
                (old.expires, old.told_by) = (entry.expires, entry.told_by);
                return true;
            }
            entry.unreachable = old.unreachable;
            self.entries.remove(at);
        } else if self.entries.len() >= self.limit {
            return false;
        }
        self.insert(entry);
        true
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.limit
    }

    /// Makes room for a route of a router's that has fewer than another: that one loses what ends
    /// first, and its default route never, so whoever tells much leaves room for who comes after
    /// (RFC 4861 §6.3.4 wants two routers at least). Returns false if nobody has more than enough.
    pub(crate) fn make_room(&mut self, router: Word) -> bool {
        let told = || self.entries.iter().filter(|entry| entry.origin == RouteOrigin::Router);
        let count = |router| told().filter(|entry| entry.told_by == router).count();
        let Some(most) = told().map(|entry| entry.told_by).max_by_key(|&other| count(other)) else {
            return false;
        };
        if count(most) <= count(router) + 1 {
            return false;
        }
        let of_most = |entry: &Entry| {
            entry.origin == RouteOrigin::Router && entry.told_by == most && entry.bits > 0
        };
        let ends = self.entries.iter().filter(|&entry| of_most(entry)).map(|entry| entry.expires);
        let Some(first) = ends.min() else { return false };
        let gone = self.entries.iter().rposition(|entry| of_most(entry) && entry.expires == first);
        gone.map(|at| self.entries.remove(at)).is_some()
    }

    fn insert(&mut self, entry: Entry) {
        let order = |entry: &Entry| (entry.bits, entry.preference);
        let at = self.entries.partition_point(|other| order(other) >= order(&entry));
        self.entries.insert(at, entry);
    }

    /// Removes the routes for which `gone` holds, and returns whether there were any.
    pub(crate) fn remove(&mut self, mut gone: impl FnMut(&Entry) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| !gone(entry));
        self.entries.len() != before
    }

    /// The route for a destination. A redirect is followed in place of the route that it corrects.
    pub(crate) fn find(&self, target: Word, preferred: impl Fn(Word) -> bool) -> Option<&Entry> {
        let route = self.first(target, preferred);
        let holds = |redirect: &Entry| match route {
            // That it is on the link is so from wherever packets come (RFC 8028 §3.4).
            _ if redirect.gateway == 0 => route.is_none_or(|route| route.bits < redirect.bits),
            Some(route) => route.gateway == redirect.told_by,
            None => false,
        };
        self.entries
            .iter()
            .take_while(|entry| entry.bits == 128)
            .filter(|entry| entry.origin == RouteOrigin::Redirect && entry.network == target)
            .find(|redirect| holds(redirect))
            .or(route)
    }

    /// The route for a destination before redirects: the longest prefix first, then by a preferred
    /// router, then the greatest preference. A router that was found dead is taken only if no other
    /// leads there (RFC 4191 §3.2).
    pub(crate) fn first(&self, target: Word, preferred: impl Fn(Word) -> bool) -> Option<&Entry> {
        let mut best: Option<((bool, u8, bool), &Entry)> = None;
        for entry in &self.entries {
            if entry.origin == RouteOrigin::Redirect || !entry.covers(target) {
                continue;
            }
            let alive = !entry.unreachable;
            let preferred = alive && (entry.gateway == 0 || preferred(entry.gateway));
            let rank = (alive, entry.bits, preferred);
            if best.is_none_or(|(other, _)| rank > other) {
                best = Some((rank, entry));
            }
            // Those behind it have no longer prefix.
            if preferred {
                break;
            }
        }
        best.map(|(_, entry)| entry)
    }

    /// A router did not answer: it goes behind its equals, so that if all are dead each gets its
    /// turn (RFC 4861 §6.3.6). Only learned routes: what was configured is meant.
    pub(crate) fn gateway_lost(&mut self, gateway: Word) -> bool {
        let learned = |entry: &Entry| match entry.origin {
            RouteOrigin::Router => entry.gateway == gateway,
            // It may say that the host itself is on the link.
            RouteOrigin::Redirect => {
                entry.gateway == gateway || (entry.gateway == 0 && entry.network == gateway)
            }
            RouteOrigin::Address | RouteOrigin::Configured => false,
        };
        let lost: Vec<Entry> = self.entries.iter().copied().filter(learned).collect();
        self.entries.retain(|entry| !learned(entry));
        for entry in &lost {
            // A redirect is of no more use: the router that sent it knows better (§7.3.3).
            if entry.origin == RouteOrigin::Router {
                self.insert(Entry { unreachable: true, ..*entry });
            }
        }
        !lost.is_empty()
    }

    /// A router answers.
    pub(crate) fn gateway_answers(&mut self, gateway: Word) {
        for entry in &mut self.entries {
            if entry.gateway == gateway {
                entry.unreachable = false;
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> + '_ {
        self.entries.iter()
    }

    /// When the first route ends.
    pub(crate) fn next_expiry(&self) -> Instant {
        self.entries.iter().map(|entry| entry.expires).min().unwrap_or(Instant::FAR_FUTURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(network: &str, prefix: u8, gateway: &str) -> Entry {
        Routes::entry(Route {
            destination: network.parse().unwrap(),
            prefix,
            gateway: gateway.parse().ok(),
        })
    }

    fn gateway(routes: &Routes, target: &str) -> Option<String> {
        let entry = routes.find(word(target.parse().unwrap()), |_| true)?;
        Some(address(entry.gateway).to_string())
    }

    #[test]
    fn the_longest_prefix_of_the_same_family_is_found() {
        let mut routes = Routes::new(8);
        for entry in [
            route("::", 0, "fe80::1"),
            route("0.0.0.0", 0, "10.0.0.1"),
            route("192.0.2.0", 24, "10.0.0.2"),
            route("2001:db8::", 32, "fe80::2"),
            route("2001:db8:1::", 48, "fe80::3"),
        ] {
            assert!(routes.add(entry));
        }
        assert_eq!(gateway(&routes, "192.0.2.9").unwrap(), "10.0.0.2");
        assert_eq!(gateway(&routes, "192.0.3.9").unwrap(), "10.0.0.1");
        assert_eq!(gateway(&routes, "2001:db8:1::9").unwrap(), "fe80::3");
        assert_eq!(gateway(&routes, "2001:db8:2::9").unwrap(), "fe80::2");
        assert_eq!(gateway(&routes, "2600::1").unwrap(), "fe80::1");
        assert!(routes.remove(|entry| is_v4(entry.network) && entry.bits == 96));
        assert_eq!(gateway(&routes, "192.0.3.9"), None);
    }

    #[test]
    fn preference_orders_equals_and_dead_routers_take_turns() {
        let learned = |gateway: &str, preference| Entry {
            origin: RouteOrigin::Router,
            preference,
            ..route("::", 0, gateway)
        };
        let mut routes = Routes::new(8);
        for (router, preference) in [("fe80::1", -1), ("fe80::2", 0), ("fe80::3", 0)] {
            assert!(routes.add(learned(router, preference)));
        }
        let lost = |routes: &mut Routes, text: &str| {
            assert!(routes.gateway_lost(word(text.parse().unwrap())));
        };
        assert_eq!(gateway(&routes, "2600::1").unwrap(), "fe80::2");
        lost(&mut routes, "fe80::2");
        assert_eq!(gateway(&routes, "2600::1").unwrap(), "fe80::3");
        lost(&mut routes, "fe80::3");
        assert_eq!(gateway(&routes, "2600::1").unwrap(), "fe80::1");
        lost(&mut routes, "fe80::1");
        assert_eq!(gateway(&routes, "2600::1").unwrap(), "fe80::2");
        lost(&mut routes, "fe80::2");
        assert_eq!(gateway(&routes, "2600::1").unwrap(), "fe80::3");
        routes.gateway_answers(word("fe80::1".parse().unwrap()));
        assert_eq!(gateway(&routes, "2600::1").unwrap(), "fe80::1");
        // The same route again is renewed, and one with another preference takes its place.
        assert!(routes.add(learned("fe80::1", 1)));
        assert_eq!(routes.iter().count(), 3);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut routes = Routes::new(1);
        assert!(routes.add(route("10.0.0.0", 8, "192.0.2.1")));
        assert!(routes.add(route("10.0.0.0", 8, "192.0.2.1")));
        assert!(!routes.add(route("11.0.0.0", 8, "192.0.2.1")));
    }
}
