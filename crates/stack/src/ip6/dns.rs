//! Name servers and search domains that routers advertise (RFC 8106).

use core::net::Ipv6Addr;

use millrace_frames::Instant;
use millrace_wire::domain::Names;

use super::router::end;
use crate::address::{Word, is_v4};
use crate::stack::Stack;

/// Something that a router told for a time.
#[derive(Clone, Debug)]
struct Told<T> {
    what: T,
    router: Word,
    expires: Instant,
}

/// What routers told, the oldest first. Whether it still holds is seen when it is read.
#[derive(Clone, Debug)]
pub(crate) struct Learned<T> {
    told: Vec<Told<T>>,
}

impl<T> Default for Learned<T> {
    fn default() -> Self {
        Learned { told: Vec::new() }
    }
}

impl<T: PartialEq> Learned<T> {
    /// A router tells something until `expires`, which ends it if that is over. Returns false if
    /// there was no room: the router that has told most then loses what ends first, but not to one
    /// that has told as much.
    fn learn(&mut self, what: T, router: Word, expires: Instant, now: Instant, most: u8) -> bool {
        self.told.retain(|one| one.expires > now && (one.what != what || one.router != router));
        if expires <= now {
            return true;
        }
        let full = self.told.len() >= usize::from(most);
        if full && !self.make_room(router) {
            return false;
        }
        self.told.push(Told { what, router, expires });
        !full
    }

    fn make_room(&mut self, router: Word) -> bool {
        let count = |router| self.told.iter().filter(|one| one.router == router).count();
        let routers = self.told.iter().map(|one| one.router);
        let Some(most) = routers.max_by_key(|&other| count(other)) else { return false };
        if count(most) <= count(router) + 1 {
            return false;
        }
        let of_most = self.told.iter().enumerate().filter(|(_, one)| one.router == most);
        let first = of_most.min_by_key(|(_, one)| one.expires).map(|(at, _)| at);
        first.is_some_and(|at| {
            self.told.remove(at);
            true
        })
    }

    /// What holds, each once.
    fn iter(&self, now: Instant) -> impl Iterator<Item = &T> {
        let hold = move |one: &&Told<T>| one.expires > now;
        let told = self.told.iter().enumerate().filter(move |(_, one)| hold(one));
        told.filter(move |(at, one)| {
            !self.told[..*at].iter().filter(hold).any(|other| other.what == one.what)
        })
        .map(|(_, one)| &one.what)
    }
}

impl Stack {
    /// Name servers that routers advertised, while that holds, in the order in which they were told.
    pub fn advertised_name_servers(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.ip6.name_servers.iter(self.now).map(|&server| Ipv6Addr::from_bits(server))
    }

    /// Domains that routers advertised for names to be completed with, likewise.
    pub fn advertised_search_domains(&self) -> impl Iterator<Item = &str> {
        self.ip6.search_domains.iter(self.now).map(String::as_str)
    }

    pub(crate) fn learn_name_servers(&mut self, router: Word, servers: &[[u8; 16]], seconds: u32) {
        let (now, expires) = (self.now, end(self.now, seconds));
        let most = self.config.ipv6.learned_name_servers;
        for server in servers.iter().map(|&octets| u128::from_be_bytes(octets)) {
            // IPv4 written as IPv6 is no address on any wire.
            if is_v4(server) || !self.addresses.may_be_a_host(server) {
                continue;
            }
            if !self.ip6.name_servers.learn(server, router, expires, now, most) {
                self.counters.learned_name_servers_refused += 1;
            }
        }
    }

    pub(crate) fn learn_search_domains(&mut self, router: Word, names: Names<'_>, seconds: u32) {
        let (now, expires) = (self.now, end(self.now, seconds));
        let most = self.config.ipv6.learned_name_servers;
        for domain in names.filter(|name| name.is_plain()) {
            let domain = domain.to_string();
            if !self.ip6.search_domains.learn(domain, router, expires, now, most) {
                self.counters.learned_name_servers_refused += 1;
            }
        }
    }
}
