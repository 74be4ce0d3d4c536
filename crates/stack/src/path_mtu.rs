//! The largest packet that a path takes, as routers tell it (RFC 1191, RFC 8201): a bounded cache by
//! destination, whose entries are forgotten after a while, since paths change.
//!
//! What an operator says of a path ([`Stack::set_path_mtu`]) is kept beside it, and for good.
//!
//! A report is believed only if it quotes a segment in flight (RFC 5927 §7), or a datagram as
//! [`crate::large_datagrams`] says, and never below what every path must take, so that nobody can make
//! a stack send dust.

use std::collections::BTreeMap;

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::io;

use millrace_frames::Instant;
use millrace_wire::tcp::{self, Quoted};
use millrace_wire::{ipv4, ipv6};

use crate::Stack;
use crate::address::{Word, is_v4, word, word_v4};
use crate::rate::{Purpose, RateLimit};

/// How long a report is believed (RFC 1191 §6.3, RFC 8201 §5.3).
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);

/// No packet is made smaller than this for a report: Linux's `min_pmtu`. What a path takes less is
/// found by packetization-layer discovery.
const LEAST_V4: u16 = 552;
/// A report of less is not believed (RFC 8200 §5, RFC 8201 §4).
const LEAST_V6: u16 = 1280;
/// What an operator may set: headers of IPv6 and TCP, and the least segment. Every path takes more
/// than that (RFC 791, RFC 8200 §5); whoever wants smaller segments on one may have them.
const LEAST_SET: u16 = 60 + crate::tcp::settings::LEAST_MSS;

/// Sizes to try where a router tells none (RFC 1191 §7.1).
const PLATEAUS: [u16; 9] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 576, 552];

/// Connections that are looked at in a second because a report may be about them, too. A peer can send
/// as many as it likes, each of a byte less, and there may be millions of connections.
const LOOKED_AT: u32 = 1 << 22;

pub(crate) fn rate(connections: u32, now: Instant) -> RateLimit {
    RateLimit::new((LOOKED_AT / connections).max(1), Purpose::Paths, now)
}

/// The least MTU that is believed of the path to a destination.
pub(crate) fn least(destination: Word) -> u16 {
    if is_v4(destination) { LEAST_V4 } else { LEAST_V6 }
}

/// What to try next where a router tells nothing but that a packet of that length is too big.
pub(crate) fn plateau(total_len: usize) -> u16 {
    PLATEAUS.into_iter().find(|&size| usize::from(size) < total_len).unwrap_or(LEAST_V4)
}

#[derive(Debug)]
pub(crate) struct PathMtus {
    /// Destination: the MTU, and until when it is believed.
    entries: BTreeMap<Word, (u16, Instant)>,
    /// Destination: the MTU that the operator set.
    set: BTreeMap<Word, u16>,
    most: usize,
}

impl PathMtus {
    pub(crate) fn new(most: u16) -> Self {
        PathMtus { entries: BTreeMap::new(), set: BTreeMap::new(), most: most.into() }
    }

    #[inline]
    fn get(&self, destination: Word, now: Instant) -> Option<u16> {
        if self.entries.is_empty() && self.set.is_empty() {
            return None;
        }
        let told = self.entries.get(&destination).filter(|&&(_, until)| now < until);
        let set = self.set.get(&destination).copied();
        told.map(|&(mtu, _)| mtu).into_iter().chain(set).min()
    }

    /// Remembers a report. The entry that is forgotten soonest makes way when there are too many.
    fn learn(&mut self, destination: Word, mtu: u16, now: Instant) {
        if self.most == 0 {
            return;
        }
        if self.entries.len() >= self.most && !self.entries.contains_key(&destination) {
            let oldest = self.entries.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(&oldest) = oldest.map(|(destination, _)| destination) {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(destination, (mtu, now + LIFETIME));
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The largest packets that the link takes, of IPv4 and of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkMtus {
    v4: u16,
    v6: u16,
}

impl LinkMtus {
    fn of(self, destination: Word) -> u16 {
        if is_v4(destination) { self.v4 } else { self.v6 }
    }
}

impl Stack {
    /// The largest IPv6 packet that the link takes: what a router says of it, and what else is known
    /// of the interface, but never less than every link of IPv6 takes (RFC 8200 §5). A DHCP server
    /// that gives less means IPv4.
    #[inline]
    pub(crate) fn link_mtu_v6(&self) -> u16 {
        self.ip6.mtu.min(self.config.mtu.max(LEAST_V6))
    }

    fn link_mtus(&self) -> LinkMtus {
        LinkMtus { v4: self.config.mtu, v6: self.link_mtu_v6() }
    }

    /// Changes what is known of the link's MTU. Connections that are open follow (RFC 4861 §6.3.4),
    /// and look for larger segments when it has become more.
    pub(crate) fn change_link_mtu(&mut self, change: impl FnOnce(&mut Stack)) {
        let before = self.link_mtus();
        change(self);
        if self.link_mtus() == before {
            return;
        }
        for index in 0..self.connections.len() {
            let remote = self.connections[index].remote;
            let before = self.path_mtu_within(before, remote);
            self.follow_path_mtu(index, before);
        }
    }

    /// A connection's path has an MTU now that may differ from what it was before.
    fn follow_path_mtu(&mut self, index: usize, before: u16) {
        let after = self.path_mtu(self.connections[index].remote);
        if after < before {
            self.path_mtu_lowered(index, after);
        } else if after > before {
            self.path_mtu_raised(index);
        }
    }

    /// The largest packet to send to a destination, bytes with its IP header.
    #[inline]
    pub(crate) fn path_mtu(&self, destination: Word) -> u16 {
        self.path_mtu_within(self.link_mtus(), destination)
    }

    #[inline]
    fn path_mtu_within(&self, link: LinkMtus, destination: Word) -> u16 {
        let own = link.of(destination);
        self.path_mtus.get(destination, self.now).map_or(own, |mtu| mtu.min(own))
    }

    /// Largest payload of a segment that we can receive whole from there, and so announce.
    pub(crate) fn own_mss(&self, remote: Word) -> u16 {
        let (mtu, header) = match is_v4(remote) {
            true => (self.config.mtu, ipv4::HEADER_LEN),
            false => (self.link_mtu_v6(), ipv6::HEADER_LEN),
        };
        mtu - (header + tcp::HEADER_LEN) as u16
    }

    /// Largest payload of a segment that is known to get through to there.
    pub(crate) fn path_mss(&self, remote: Word) -> u16 {
        let header = if is_v4(remote) { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        self.path_mtu(remote) - (header + tcp::HEADER_LEN) as u16
    }

    /// Sets the largest packet to send to a destination, as the `mtu` of a route says it; `None`:
    /// what the interface takes. Segments and datagrams follow it. Routers may still report less.
    /// Connections that are open follow, and look for larger segments when it has become more.
    ///
    /// # Errors
    /// `InvalidInput` if it leaves no room for data, `QuotaExceeded` when as many are set as there
    /// may be entries ([`crate::Config::path_mtus`]).
    pub fn set_path_mtu(&mut self, destination: IpAddr, mtu: Option<u16>) -> io::Result<()> {
        let to = word(destination);
        if let Some(mtu) = mtu.filter(|&mtu| mtu < LEAST_SET) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("an MTU of {mtu} leaves no room for data; {LEAST_SET} is the least"),
            ));
        }
        let before = self.path_mtu(to);
        let set = &mut self.path_mtus.set;
        match mtu {
            Some(_) if set.len() >= self.path_mtus.most && !set.contains_key(&to) => {
                return Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    format!("{} paths have an MTU of their own", self.path_mtus.most),
                ));
            }
            Some(mtu) => set.insert(to, mtu),
            None => set.remove(&to),
        };
        for index in 0..self.connections.len() {
            if self.connections[index].remote == to {
                self.follow_path_mtu(index, before);
            }
        }
        Ok(())
    }

    /// A router has told the largest packet that gets through to a destination, about what did
    /// leave: a segment of a connection, or a datagram. Other connections to there follow, unless
    /// many such reports have come; then each waits for what is said of its own segments.
    pub(crate) fn path_mtu_reported(
        &mut self,
        destination: Word,
        mtu: u32,
        connection: Option<usize>,
    ) {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        let least = least(destination);
        // No link of IPv6 takes less, so nobody who says so is a router (RFC 8201 §4).
        let possible = is_v4(destination) || mtu >= least;
        let mtu = mtu.max(least);
        let known = self.path_mtu(destination);
        if let Some(index) = connection.filter(|_| possible) {
            self.path_mtu_lowered(index, mtu.min(known));
        }
        if !possible || mtu >= known {
            self.counters.path_mtu_ignored += 1;
            return;
        }
        self.counters.path_mtu_reductions += 1;
        self.path_mtus.learn(destination, mtu, self.now);
        if !self.path_rate.take(&self.keys, self.now) {
            return;
        }
        for index in 0..self.connections.len() {
            if self.connections[index].remote == destination {
                self.path_mtu_lowered(index, mtu);
            }
        }
    }

    /// A router could not forward a packet of `total_len` bytes without fragmenting it, and tells
    /// the next hop's MTU, or 0 if it is older than RFC 1191.
    pub(crate) fn fragmentation_needed(
        &mut self,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        quoted: Quoted,
        total_len: usize,
        next_hop_mtu: u16,
    ) {
        let (source, destination) = (word_v4(source), word_v4(destination));
        let connection = self.quoted_connection(source, destination, quoted);
        if connection.is_none() {
            self.counters.drop_icmp_unrelated += 1;
            return;
        }
        self.counters.icmp_errors_taken += 1;
        let mtu = match next_hop_mtu {
            0 => plateau(total_len),
            mtu => mtu,
        };
        self.path_mtu_reported(destination, mtu.into(), connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_forgets() {
        let mut cache = PathMtus::new(3);
        let start = Instant::from_millis(1000);
        for number in 0..5u64 {
            let now = start + Duration::from_secs(number);
            cache.learn(number.into(), 1000, now);
            assert!(cache.len() <= 3);
        }
        assert_eq!(cache.get(0, start), None, "the oldest made way");
        assert_eq!(cache.get(4, start), Some(1000));
        assert_eq!(cache.get(4, start + Duration::from_secs(605)), None, "it is forgotten");
    }
}
