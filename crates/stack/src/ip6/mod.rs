//! IPv6 as a host speaks it (RFC 8504).

pub(crate) mod config;
mod dad;
mod datagram;
mod dns;
mod extension;
mod fragment;
mod group;
mod icmpv6;
mod input;
mod ndp;
mod router;
mod slaac;

use core::time::Duration;

use millrace_frames::Instant;

use crate::address::Word;
use crate::stack::Stack;
use config::Ipv6Config;
pub(crate) use dad::Detection;

/// What the stack knows of its link, and when it has something to do for IPv6.
#[derive(Debug)]
pub(crate) struct State {
    /// Hop limit of what we send.
    pub(crate) hop_limit: u8,
    /// Largest IPv6 packet on the link, as routers tell it.
    pub(crate) mtu: u16,
    /// What the interface takes, whatever anybody tells.
    most_mtu: u16,
    /// Time between solicitations.
    pub(crate) retransmit_timer: Duration,
    /// No timer is due earlier.
    pub(crate) due: Instant,
    pub(crate) solicitation: router::Solicitation,
    pub(crate) name_servers: dns::Learned<Word>,
    pub(crate) search_domains: dns::Learned<String>,
    /// So that no two random numbers are the same.
    draws: u64,
}

impl State {
    pub(crate) fn new(config: &Ipv6Config, mtu: u16) -> State {
        State {
            hop_limit: config.hop_limit,
            mtu,
            most_mtu: mtu,
            retransmit_timer: config.retransmit_timer,
            due: Instant::FAR_FUTURE,
            solicitation: router::Solicitation::default(),
            name_servers: dns::Learned::default(),
            search_domains: dns::Learned::default(),
            draws: 0,
        }
    }
}

impl Stack {
    /// A number that nobody else can foresee.
    pub(crate) fn random(&mut self) -> u64 {
        const PURPOSE: u64 = 0x6970_7636;
        self.ip6.draws += 1;
        self.keys.prf(&[PURPOSE, self.ip6.draws])
    }

    /// A time from 0 to `most`.
    pub(crate) fn random_time(&mut self, most: Duration) -> Duration {
        let fraction = (self.random() >> 32) as u32;
        Duration::from_nanos(((most.as_nanos() * u128::from(fraction)) >> 32) as u64)
    }

    /// What time does to IPv6: duplicate address detection, lifetimes, solicitations for routers.
    #[inline]
    pub(crate) fn ipv6_timers(&mut self) {
        if self.now >= self.ip6.due {
            self.run_ipv6_timers();
        }
    }

    fn run_ipv6_timers(&mut self) {
        self.detection_timers();
        self.address_timers();
        self.router_timers();
        self.schedule_ipv6();
    }

    /// Works out when there is something to do next.
    pub(crate) fn schedule_ipv6(&mut self) {
        self.ip6.due = self
            .addresses
            .slots()
            .map(|(_, slot)| {
                let lifetime = match slot.preferred_until > self.now {
                    true => slot.preferred_until,
                    false => Instant::FAR_FUTURE,
                };
                slot.detection.next.min(lifetime).min(slot.valid_until).min(slot.renew_at)
            })
            .min()
            .unwrap_or(Instant::FAR_FUTURE)
            .min(self.addresses.routes.next_expiry())
            .min(self.ip6.solicitation.next);
    }

    /// A lifetime ends at that time, or a step of configuration is due: of addresses, of routes of both
    /// families, of solicitations.
    pub(crate) fn lifetimes_due(&mut self, at: Instant) {
        self.ip6.due = self.ip6.due.min(at);
    }
}
