//! Addresses that the stack makes for itself: of the link (RFC 4862 §5.3) and from routers'
//! prefixes (§5.5), stable (RFC 7217) and temporary ones (RFC 8981).

use core::time::Duration;

use millrace_frames::Instant;
use millrace_wire::ndp::Prefix;

use super::dad::Detection;
use super::router::end;
use crate::address::{AddressOrigin, AddressState, Slot, Word, is_link_local, network};
use crate::first_hop::Advertisers;
use crate::stack::Stack;

/// Bits of a prefix that leaves room for our 64 bits (RFC 4862 §5.5.3 d, RFC 4291 §2.5.1).
const PREFIX: u8 = 64;
const LINK_LOCAL: Word = 0xfe80 << 112;
/// A shorter lifetime is believed only when the old one is shorter still, or who forges one
/// advertisement takes every address away (RFC 4862 §5.5.3 e).
const TWO_HOURS: Duration = Duration::from_secs(2 * 3600);
/// A temporary address is replaced so long before it is deprecated (RFC 8981 §3.8,
/// REGEN_ADVANCE).
const RENEW_BEFORE: Duration = Duration::from_secs(5);
/// The first solicitation for an address that many hosts may make at once waits up to so long
/// (RFC 4862 §5.4.2).
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// Identifiers that have a meaning (RFC 5453).
fn is_reserved(identifier: u64) -> bool {
    identifier == 0
        || identifier >> 24 == 0x0002_005e_fffe
        || (0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff).contains(&identifier)
}

impl Stack {
    /// Makes a link-local address, if there is none and it is wanted.
    pub(crate) fn make_link_local(&mut self) {
        let there = self.addresses.slots().any(|(_, slot)| is_link_local(slot.address));
        if !self.config.ipv6.link_local || there {
            return;
        }
        let made = made_slot(LINK_LOCAL, AddressOrigin::LinkLocal, Instant::FAR_FUTURE);
        self.make_address(&made, 0);
    }

    /// Adds an address of the same prefix, origin and lifetimes as `like`, with an identifier of
    /// its own.
    pub(crate) fn make_address(&mut self, like: &Slot, attempt: u8) {
        let prefix = network(like.address, PREFIX);
        let identifier = match like.origin {
            AddressOrigin::Temporary => self.temporary_identifier(),
            _ => self.stable_identifier(prefix, attempt),
        };
        let address = prefix | Word::from(identifier);
        if self.addresses.find_any(address).is_some() {
            return;
        }
        let detection = Detection { attempt, ..Detection::NONE };
        let state = Some(AddressState::Tentative);
        let slot = Slot { address, detection, state, in_group: false, users: 0, ..*like };
        let Some(local) = self.addresses.add(slot) else { return };
        self.routes_changed();
        let delay = match like.origin {
            AddressOrigin::LinkLocal => Duration::ZERO,
            _ => self.random_time(FIRST_DELAY),
        };
        self.detect_duplicate(local, delay);
        self.lifetimes_due(slot.preferred_until.min(slot.valid_until).min(slot.renew_at));
    }

    /// The same for the same prefix on the same interface, and nothing to who does not know the
    /// secret (RFC 7217 §5).
    fn stable_identifier(&self, prefix: Word, attempt: u8) -> u64 {
        const PURPOSE: u64 = 0x7374_6162_6c65;
        let secret = self.config.ipv6.stable_secret;
        let mac = self.config.mac.0.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let mut counter = u64::from(attempt);
        loop {
            let words = [PURPOSE, (prefix >> 64) as u64, mac, counter];
            let identifier = match secret {
                Some(secret) => crate::hash::prf(secret, &words),
                None => self.keys.prf(&words),
            };
            if !is_reserved(identifier) {
                return identifier;
            }
            // Far from other attempts' counters.
            counter += 256;
        }
    }

    /// RFC 8981 §3.3.1.
    fn temporary_identifier(&mut self) -> u64 {
        loop {
            let identifier = self.random();
            if !is_reserved(identifier) {
                return identifier;
            }
        }
    }

    /// A prefix of a router advertisement (RFC 4861 §6.3.4, RFC 4862 §5.5.3).
    pub(crate) fn advertised_prefix(&mut self, prefix: &Prefix, router: Word) {
        let word = network(prefix.network.to_bits(), prefix.len);
        if is_link_local(word) || prefix.network.is_multicast() || word >> 64 == 0 {
            return;
        }
        if prefix.on_link {
            self.learn_on_link(prefix, router);
        }
        if prefix.len == PREFIX && self.addresses.told_by(word, router, prefix.valid_lifetime > 0) {
            // What comes from there may go by another router now.
            self.routes_changed();
        }
        let sane = prefix.preferred_lifetime <= prefix.valid_lifetime && prefix.len == PREFIX;
        if !self.config.ipv6.slaac || !prefix.autonomous || !sane {
            return;
        }
        let preferred_until = end(self.now, prefix.preferred_lifetime);
        let valid_until = end(self.now, prefix.valid_lifetime);
        let found = self.made_from(word, AddressOrigin::Stable).next();
        if let Some(local) = found {
            self.renew(local, preferred_until, valid_until);
        } else {
            if prefix.valid_lifetime == 0 {
                return;
            }
            if self.stable().count() >= usize::from(self.config.ipv6.learned_prefixes) {
                self.counters.learned_prefixes_refused += 1;
                if !self.give_up_prefix(router) {
                    return;
                }
            }
            let made = made_slot(word, AddressOrigin::Stable, Instant::FAR_FUTURE);
            let mut told_by = Advertisers::NONE;
            told_by.add(router);
            self.make_address(&Slot { preferred_until, valid_until, told_by, ..made }, 0);
        }
        self.renew_temporary(word, preferred_until, valid_until);
    }

    /// Our stable addresses: there is one for each prefix.
    fn stable(&self) -> impl Iterator<Item = (u8, &Slot)> + '_ {
        self.addresses.slots().filter(|(_, slot)| slot.origin == AddressOrigin::Stable)
    }

    /// Makes room for a prefix of a router's that has fewer than another: that one loses a prefix
    /// whose addresses no connection uses. So whoever tells much leaves room for who comes after,
    /// and nobody's connections end because a stranger tells something. Returns false if nobody has
    /// more than enough.
    fn give_up_prefix(&mut self, router: Word) -> bool {
        let count =
            |router| self.stable().filter(|(_, slot)| slot.told_by.last() == router).count();
        let routers = self.stable().map(|(_, slot)| slot.told_by.last());
        let Some(most) = routers.max_by_key(|&other| count(other)) else { return false };
        if count(most) <= count(router) + 1 {
            return false;
        }
        let made_from = |prefix: Word| {
            let made = move |&(_, slot): &(u8, &Slot)| {
                matches!(slot.origin, AddressOrigin::Stable | AddressOrigin::Temporary)
                    && network(slot.address, PREFIX) == prefix
            };
            self.addresses.slots().filter(made)
        };
        let unused = self
            .stable()
            .filter(|(_, slot)| slot.told_by.last() == most)
            .map(|(_, slot)| network(slot.address, PREFIX))
            .filter(|&prefix| made_from(prefix).all(|(_, slot)| slot.users == 0))
            .last();
        let Some(prefix) = unused else { return false };
        let gone: Vec<u8> = made_from(prefix).map(|(local, _)| local).collect();
        gone.into_iter().for_each(|local| self.drop_address(local));
        true
    }

    /// Our addresses made from a prefix.
    fn made_from(&self, prefix: Word, origin: AddressOrigin) -> impl Iterator<Item = u8> + use<'_> {
        self.addresses
            .slots()
            .filter(move |(_, slot)| {
                slot.origin == origin && network(slot.address, PREFIX) == prefix
            })
            .map(|(local, _)| local)
    }

    /// An address's prefix was advertised again (RFC 4862 §5.5.3 e).
    fn renew(&mut self, local: u8, preferred_until: Instant, valid_until: Instant) {
        let now = self.now;
        let Some(slot) = self.addresses.slot_mut(local) else { return };
        slot.preferred_until = preferred_until;
        slot.valid_until = believed(slot.valid_until, valid_until, now);
        let due = slot.preferred_until.min(slot.valid_until);
        self.settle_preference(local);
        self.lifetimes_due(due);
    }

    /// Preferred or deprecated, by the lifetime.
    fn settle_preference(&mut self, local: u8) {
        let now = self.now;
        let Some(slot) = self.addresses.slot_mut(local) else { return };
        let state = match (slot.state, slot.preferred_until > now) {
            (Some(AddressState::Preferred), false) => AddressState::Deprecated,
            (Some(AddressState::Deprecated), true) => AddressState::Preferred,
            _ => return,
        };
        self.addresses.set_state(local, state);
    }

    /// Temporary addresses last no longer than their prefix and than RFC 8981 §3.4 allows; where
    /// there is none that still will be preferred for a while, one is made.
    fn renew_temporary(&mut self, prefix: Word, preferred_until: Instant, valid_until: Instant) {
        if !self.config.ipv6.temporary_addresses {
            return;
        }
        let now = self.now;
        let mut due = Instant::FAR_FUTURE;
        let mut current = false;
        for local in self.made_from(prefix, AddressOrigin::Temporary).collect::<Vec<_>>() {
            let Some(slot) = self.addresses.slot_mut(local) else { continue };
            slot.preferred_until = preferred_until.min(slot.most_preferred);
            slot.valid_until = believed(slot.valid_until, valid_until, now).min(slot.most_valid);
            due = due.min(slot.preferred_until).min(slot.valid_until);
            current |=
                slot.renew_at != Instant::FAR_FUTURE || slot.state == Some(AddressState::Duplicate);
            self.settle_preference(local);
        }
        self.lifetimes_due(due);
        if current || preferred_until <= self.now + RENEW_BEFORE {
            return;
        }
        let most = self.config.ipv6.temporary_preferred;
        // So that addresses of different hosts, or of one host's networks, do not change together.
        let lasting = most - self.random_time(most * 2 / 5);
        let most_preferred = self.now + lasting;
        let most_valid = self.now + self.config.ipv6.temporary_valid;
        let renew_at = self.now + lasting.saturating_sub(RENEW_BEFORE);
        if renew_at <= self.now {
            return;
        }
        let made = made_slot(prefix, AddressOrigin::Temporary, renew_at);
        let stable = self.made_from(prefix, AddressOrigin::Stable).next();
        let told_by = stable.and_then(|local| self.addresses.slot(local)).map(|slot| slot.told_by);
        let slot = Slot {
            told_by: told_by.unwrap_or(Advertisers::NONE),
            preferred_until: preferred_until.min(most_preferred),
            valid_until: valid_until.min(most_valid),
            most_preferred,
            most_valid,
            ..made
        };
        self.make_address(&slot, 0);
    }

    /// What time does to addresses: they are deprecated, replaced, removed.
    pub(crate) fn address_timers(&mut self) {
        let now = self.now;
        for local in 0..=u8::MAX {
            let Some(slot) = self.addresses.slot_mut(local) else { continue };
            if slot.valid_until <= now {
                self.drop_address(local);
                continue;
            }
            if slot.renew_at <= now {
                slot.renew_at = Instant::FAR_FUTURE;
                let prefix = network(slot.address, PREFIX);
                let stable = self.made_from(prefix, AddressOrigin::Stable).next();
                if let Some(stable) = stable.and_then(|local| self.addresses.slot(local)) {
                    let (preferred, valid) = (stable.preferred_until, stable.valid_until);
                    self.renew_temporary(prefix, preferred, valid);
                }
            }
            self.settle_preference(local);
        }
    }
}

/// When an address ends of which an advertisement says `told` (RFC 4862 §5.5.3 e).
fn believed(until: Instant, told: Instant, now: Instant) -> Instant {
    let soon = now + TWO_HOURS;
    if told > soon || told > until { told } else { until.min(soon) }
}

fn made_slot(prefix: Word, origin: AddressOrigin, renew_at: Instant) -> Slot {
    Slot {
        address: prefix,
        bits: PREFIX,
        origin,
        on_link: origin == AddressOrigin::LinkLocal,
        renew_at,
        ..Slot::EMPTY
    }
}
