//! Addresses of both families in one word, which of ours a packet came to, and which of ours is
//! the source of a packet to somebody else (RFC 6724 §5).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use millrace_frames::Instant;

use crate::config::InterfaceAddress;
use crate::first_hop::Advertisers;
use crate::ip6::Detection;
use crate::route::{Route, Routes};

/// Both families as one number: IPv4 as an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2).
pub(crate) type Word = u128;

/// The word of 0.0.0.0.
pub(crate) const ANY_V4: Word = 0xffff_0000_0000;

#[inline]
pub(crate) fn word_v4(address: Ipv4Addr) -> Word {
    ANY_V4 | u128::from(address.to_bits())
}

#[inline]
pub(crate) fn word(address: IpAddr) -> Word {
    match address {
        IpAddr::V4(v4) => word_v4(v4),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[inline]
pub(crate) fn is_v4(word: Word) -> bool {
    word >> 32 == 0xffff
}

/// The address that [`word`] made the number of. A mapped IPv6 address comes back as IPv4.
#[inline]
pub(crate) fn address(word: Word) -> IpAddr {
    if is_v4(word) {
        IpAddr::V4(Ipv4Addr::from_bits(word as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(word))
    }
}

/// Whether an IPv6 address is of the link only (RFC 4291 §2.5.6).
#[inline]
pub(crate) fn is_link_local(word: Word) -> bool {
    word >> 118 == 0xfe80 >> 6
}

/// The same for both families: no router gets packets to it (RFC 3927 §2.6.2), but for hosts of IPv4
/// that a route names more closely.
#[inline]
pub(crate) fn is_on_every_link(word: Word) -> bool {
    is_link_local(word) || word >> 16 == (ANY_V4 | 0xa9fe_0000) >> 16
}

/// Bits of a prefix as counted in the word: an IPv4 network lies behind 96 bits.
pub(crate) fn word_bits(address: IpAddr, prefix: u8) -> u8 {
    if address.is_ipv4() { prefix.min(32) + 96 } else { prefix.min(128) }
}

/// The first `bits` bits of a word.
pub(crate) fn network(word: Word, bits: u8) -> Word {
    word & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// What an address of ours may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressState {
    /// Being looked for on the link (RFC 4862 §5.4): nothing is received for it yet.
    Tentative,
    /// The same, but used already (RFC 4429).
    Optimistic,
    /// In use.
    Preferred,
    /// In use by what has it already, avoided for what is new (RFC 4862 §5.5.4).
    Deprecated,
    /// Another host has it: it is not used.
    Duplicate,
}

/// Where an address of ours comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressOrigin {
    /// Given in the configuration or by [`crate::Stack::add_address`].
    Configured,
    /// The link-local address that the stack made for itself (RFC 4862 §5.3).
    LinkLocal,
    /// Made from a router's prefix, always the same one on the same network (RFC 7217).
    Stable,
    /// Made from a router's prefix, for a time (RFC 8981).
    Temporary,
}

/// A look at an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressInfo {
    /// The address.
    pub address: IpAddr,
    /// Bits of its network's prefix.
    pub prefix: u8,
    /// What it may be used for.
    pub state: AddressState,
    /// Where it comes from.
    pub origin: AddressOrigin,
    /// When it becomes deprecated; `None`: never.
    pub preferred_until: Option<Instant>,
    /// When it is removed; `None`: never.
    pub valid_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) address: Word,
    /// Bits of the network's prefix, counted in the word.
    pub(crate) bits: u8,
    /// `None`: free, or leaving while connections still name it.
    pub(crate) state: Option<AddressState>,
    pub(crate) origin: AddressOrigin,
    /// Whether the rest of its network is on the link. Not so for addresses made from a router's
    /// prefix, of which the router tells that by itself (RFC 5942).
    pub(crate) on_link: bool,
    pub(crate) preferred_until: Instant,
    pub(crate) valid_until: Instant,
    /// Of a temporary address: how far its lifetimes may be extended, and when the next one is
    /// to be made.
    pub(crate) most_preferred: Instant,
    pub(crate) most_valid: Instant,
    pub(crate) renew_at: Instant,
    /// The routers that told the prefix.
    pub(crate) told_by: Advertisers,
    pub(crate) detection: Detection,
    /// When it was last defended against another host's claim (RFC 5227 §2.4).
    pub(crate) defended: Option<Instant>,
    /// The stack is in the group of solicitations for it.
    pub(crate) in_group: bool,
    /// Connection entries that name the slot.
    pub(crate) users: u32,
}

/// The stack's own addresses, and its routes.
///
/// A connection knows our address by its slot's number, so a slot is not given to another address
/// while a connection's entry names it.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    slots: Vec<Slot>,
    /// What packets may come to, by slot; 0 where nothing may.
    words: Vec<Word>,
    pub(crate) routes: Routes,
    /// Temporary addresses are preferred to stable ones (RFC 6724 §5, rule 7).
    prefer_temporary: bool,
    /// Some were added or removed, or may be used for something else, since this was cleared.
    pub(crate) changed: bool,
}

/// Most addresses: their number must fit a connection's entry.
const MOST: usize = 255;

impl Addresses {
    pub(crate) fn new(own: &[InterfaceAddress], gateway: Option<IpAddr>, routes: u16) -> Self {
        let mut addresses = Addresses {
            slots: Vec::with_capacity(own.len()),
            words: Vec::with_capacity(own.len()),
            routes: Routes::new(routes.max(1)),
            prefer_temporary: true,
            changed: true,
        };
        for &address in own {
            addresses.add(Slot::new(address, AddressState::Preferred));
        }
        if let Some(gateway) = gateway {
            addresses.routes.add_configured(Route::default_by(gateway));
        }
        addresses
    }

    /// Adds an address that is not there yet. `None` when there are too many.
    pub(crate) fn add(&mut self, slot: Slot) -> Option<u8> {
        let free = self.slots.iter().position(|slot| slot.state.is_none() && slot.users == 0);
        let index = match free {
            Some(index) => {
                self.slots[index] = slot;
                index
            }
            None if self.slots.len() < MOST => {
                self.slots.push(slot);
                self.words.push(0);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.set_word(index);
        Some(index as u8)
    }

    fn set_word(&mut self, index: usize) {
        self.changed = true;
        let slot = &self.slots[index];
        let unused =
            matches!(slot.state, None | Some(AddressState::Tentative | AddressState::Duplicate));
        self.words[index] = if unused { 0 } else { slot.address };
    }

    pub(crate) fn set_state(&mut self, local: u8, state: AddressState) {
        self.slots[usize::from(local)].state = Some(state);
        self.set_word(usize::from(local));
    }

    /// Nothing comes to the address or leaves from it any more.
    pub(crate) fn remove(&mut self, local: u8) {
        self.slots[usize::from(local)].state = None;
        self.set_word(usize::from(local));
    }

    /// A connection's entry names the slot.
    #[inline]
    pub(crate) fn hold(&mut self, local: u8) {
        if let Some(slot) = self.slots.get_mut(usize::from(local)) {
            slot.users += 1;
        }
    }

    /// A connection's entry that named the slot is free.
    #[inline]
    pub(crate) fn let_go(&mut self, local: u8) {
        if let Some(slot) = self.slots.get_mut(usize::from(local)) {
            slot.users -= 1;
        }
    }

    /// How many connection entries name each slot.
    pub(crate) fn users(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().map(|slot| slot.users)
    }

    /// The number of our address, if it is ours and in use.
    #[inline]
    pub(crate) fn find(&self, wanted: Word) -> Option<u8> {
        // 0 stands for slots that nothing may come to.
        if wanted == 0 {
            return None;
        }
        // Most stacks have one address, or nearly everything comes to the first.
        let mut words = self.words.iter();
        if words.next() == Some(&wanted) {
            return Some(0);
        }
        words.position(|&word| word == wanted).map(|index| index as u8 + 1)
    }

    /// The number of our address, in whatever state.
    pub(crate) fn find_any(&self, wanted: Word) -> Option<u8> {
        self.slots
            .iter()
            .position(|slot| slot.state.is_some() && slot.address == wanted)
            .map(|index| index as u8)
    }

    #[inline]
    pub(crate) fn word(&self, local: u8) -> Word {
        self.slots.get(usize::from(local)).map_or(ANY_V4, |slot| slot.address)
    }

    #[inline]
    pub(crate) fn get(&self, local: u8) -> IpAddr {
        address(self.word(local))
    }

    #[inline]
    pub(crate) fn v4(&self, local: u8) -> Ipv4Addr {
        match self.get(local) {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// The addresses that are there, by number.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u8, &Slot)> + '_ {
        let slots = self.slots.iter().enumerate().map(|(index, slot)| (index as u8, slot));
        slots.filter(|(_, slot)| slot.state.is_some())
    }

    pub(crate) fn slot(&self, local: u8) -> Option<&Slot> {
        self.slots.get(usize::from(local)).filter(|slot| slot.state.is_some())
    }

    pub(crate) fn slot_mut(&mut self, local: u8) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(local)).filter(|slot| slot.state.is_some())
    }

    pub(crate) fn is_tentative(&self, local: u8) -> bool {
        self.slot(local).is_some_and(|slot| slot.state == Some(AddressState::Tentative))
    }

    pub(crate) fn is_duplicate(&self, local: u8) -> bool {
        self.slot(local).is_some_and(|slot| slot.state == Some(AddressState::Duplicate))
    }

    pub(crate) fn has_v6(&self) -> bool {
        self.slots().any(|(_, slot)| !is_v4(slot.address))
    }

    /// Whether the destination is a broadcast address of one of our networks (or the limited one).
    pub(crate) fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        address.is_broadcast()
            || self.slots().any(|(_, slot)| {
                let last = (!network(u128::MAX, slot.bits)) as u32;
                is_v4(slot.address)
                    && slot.bits < 96 + 31
                    && address.to_bits() == slot.address as u32 | last
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

    /// A router advertises the network of 64 bits, or does so no more. Returns whether that is new for
    /// an address of ours.
    pub(crate) fn told_by(&mut self, network_of: Word, router: Word, still: bool) -> bool {
        let mut new = false;
        for slot in self.slots.iter_mut().filter(|slot| slot.state.is_some()) {
            if !is_v4(slot.address) && network(slot.address ^ network_of, 64) == 0 {
                new |= slot.told_by.has(router) != still;
                match still {
                    true => slot.told_by.add(router),
                    false => slot.told_by.remove(router),
                }
            }
        }
        new
    }

    /// The first of our IPv4 addresses, for what is in no network of theirs.
    pub(crate) fn first_v4(&self) -> Option<u8> {
        self.slots()
            .find(|&(local, slot)| is_v4(slot.address) && self.words[usize::from(local)] != 0)
            .map(|(local, _)| local)
    }

    /// The address of ours that packets to an IPv6 destination come from (RFC 6724 §5). One that
    /// is still tentative is the last choice.
    pub(crate) fn source(&self, destination: Word) -> Option<u8> {
        self.source_by(destination, 0)
    }

    /// The same for packets by a router, or 0.
    pub(crate) fn source_by(&self, destination: Word, next_hop: Word) -> Option<u8> {
        let wanted_scope = scope(destination);
        self.slots()
            .filter(|(_, slot)| !is_v4(slot.address) && slot.state != Some(AddressState::Duplicate))
            .max_by_key(|(local, slot)| {
                let scope = i16::from(scope(slot.address));
                let reaches = scope >= i16::from(wanted_scope);
                let temporary = slot.origin == AddressOrigin::Temporary;
                let shared = (slot.address ^ destination).leading_zeros().min(slot.bits.into());
                (
                    (
                        slot.state != Some(AddressState::Tentative),
                        // Rule 1: the same address.
                        slot.address == destination,
                        // Rule 2: the smallest scope that reaches there, else the largest.
                        reaches,
                        if reaches { -scope } else { scope },
                    ),
                    // Rule 3: none that is deprecated.
                    slot.state == Some(AddressState::Preferred),
                    // Rule 5.5: of a prefix of the next hop's, for others may not forward it.
                    slot.told_by.has(next_hop),
                    // Rule 6: the same label.
                    label(slot.address) == label(destination),
                    // Rule 7: temporary ones, if wanted.
                    temporary == self.prefer_temporary,
                    // Rule 8: the longest prefix in common.
                    shared,
                    core::cmp::Reverse(*local),
                )
            })
            .map(|(local, _)| local)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, IpAddr)> + '_ {
        self.slots().map(|(local, slot)| (local, address(slot.address)))
    }
}

impl Slot {
    pub(crate) const EMPTY: Slot = Slot {
        address: 0,
        bits: 0,
        state: None,
        origin: AddressOrigin::Configured,
        on_link: false,
        preferred_until: Instant::FAR_FUTURE,
        valid_until: Instant::FAR_FUTURE,
        most_preferred: Instant::FAR_FUTURE,
        most_valid: Instant::FAR_FUTURE,
        renew_at: Instant::FAR_FUTURE,
        told_by: Advertisers::NONE,
        detection: Detection::NONE,
        defended: None,
        in_group: false,
        users: 0,
    };

    /// An address from the configuration, without an end.
    pub(crate) fn new(own: InterfaceAddress, state: AddressState) -> Slot {
        Slot {
            address: word(own.address),
            bits: word_bits(own.address, own.prefix),
            state: Some(state),
            on_link: true,
            ..Slot::EMPTY
        }
    }

    /// Bits of the prefix as its family counts them.
    pub(crate) fn prefix(&self) -> u8 {
        if is_v4(self.address) { self.bits - 96 } else { self.bits }
    }
}

/// Scope of an address, in the numbers of multicast scopes (RFC 6724 §3.1).
fn scope(word: Word) -> u8 {
    const LINK: u8 = 2;
    const SITE: u8 = 5;
    const GLOBAL: u8 = 14;
    if word >> 120 == 0xff {
        (word >> 112) as u8 & 0x0f
    } else if is_link_local(word) || word == 1 {
        LINK
    } else if word >> 118 == 0xfec0 >> 6 {
        SITE
    } else {
        GLOBAL
    }
}

/// The default policy table (RFC 6724 §2.1).
fn label(word: Word) -> u8 {
    const POLICY: [(Word, u8, u8); 8] = [
        (1, 128, 0),
        (ANY_V4, 96, 4),
        (0, 96, 3),
        (0x2001_0000 << 96, 32, 5),
        (0x2002 << 112, 16, 2),
        (0x3ffe << 112, 16, 12),
        (0xfec0 << 112, 10, 11),
        (0xfc00 << 112, 7, 13),
    ];
    POLICY
        .iter()
        .find(|(prefix, bits, _)| network(word ^ prefix, *bits) == 0)
        .map_or(1, |&(_, _, label)| label)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn own(text: &str, prefix: u8) -> InterfaceAddress {
        InterfaceAddress { address: text.parse().unwrap(), prefix }
    }

    pub(crate) fn hop(text: &str) -> Word {
        word(text.parse().unwrap())
    }

    #[test]
    fn both_families_survive_the_word() {
        for text in ["192.0.2.1", "2001:db8::1", "255.255.255.255", "::"] {
            let original: IpAddr = text.parse().unwrap();
            assert_eq!(address(word(original)), original);
        }
    }

    #[test]
    fn broadcasts_are_known_by_the_prefix() {
        let addresses = Addresses::new(&[own("192.0.2.2", 24), own("198.51.100.1", 31)], None, 8);
        assert!(addresses.is_broadcast("192.0.2.255".parse().unwrap()));
        assert!(addresses.is_broadcast("255.255.255.255".parse().unwrap()));
        assert!(!addresses.is_broadcast("192.0.2.254".parse().unwrap()));
        assert!(!addresses.is_broadcast("198.51.100.1".parse().unwrap()));
    }

    #[test]
    fn a_slot_in_use_is_not_given_away() {
        let mut addresses = Addresses::new(&[own("192.0.2.2", 24)], None, 8);
        addresses.hold(0);
        addresses.remove(0);
        assert_eq!(addresses.find(hop("192.0.2.2")), None);
        assert_eq!(addresses.get(0), "192.0.2.2".parse::<IpAddr>().unwrap());
        let slot = || Slot::new(own("192.0.2.3", 24), AddressState::Preferred);
        assert_eq!(addresses.add(slot()), Some(1));
        addresses.remove(1);
        addresses.let_go(0);
        assert_eq!(addresses.add(slot()), Some(0));
    }

    #[test]
    fn nothing_comes_to_a_tentative_address() {
        let mut addresses = Addresses::new(&[], None, 8);
        let slot = Slot::new(own("2001:db8::1", 64), AddressState::Tentative);
        let local = addresses.add(slot).unwrap();
        assert_eq!(addresses.find(hop("2001:db8::1")), None);
        assert_eq!(addresses.find(0), None);
        assert_eq!(addresses.find_any(hop("2001:db8::1")), Some(local));
        addresses.set_state(local, AddressState::Preferred);
        assert_eq!(addresses.find(hop("2001:db8::1")), Some(local));
    }

    /// The examples of RFC 6724 §10.1, as far as they have only one interface.
    #[test]
    fn sources_are_chosen_as_rfc_6724_says() {
        let chosen = |own: &[(&str, AddressState, AddressOrigin)], destination: &str| {
            let mut addresses = Addresses::new(&[], None, 8);
            for &(text, state, origin) in own {
                let slot = Slot { origin, ..Slot::new(self::own(text, 64), state) };
                addresses.add(slot);
            }
            addresses.get(addresses.source(hop(destination)).unwrap()).to_string()
        };
        use AddressOrigin::{Configured, Temporary};
        use AddressState::{Deprecated, Preferred, Tentative};
        let one = |text| (text, Preferred, Configured);
        // Scope.
        assert_eq!(
            chosen(&[one("2001:db8:3::1"), one("fe80::1")], "2001:db8:1::1"),
            "2001:db8:3::1"
        );
        assert_eq!(chosen(&[one("2001:db8:3::1"), one("fe80::1")], "fe80::2"), "fe80::1");
        assert_eq!(chosen(&[one("2001:db8:3::1"), one("fe80::1")], "ff02::1"), "fe80::1");
        // The longest prefix in common.
        let two = [one("2001:db8:1::1"), one("2001:db8:3::1")];
        assert_eq!(chosen(&two, "2001:db8:1::9"), "2001:db8:1::1");
        assert_eq!(chosen(&two, "2001:db8:3::9"), "2001:db8:3::1");
        // The same address, even where it is deprecated.
        let two = [("2001:db8:1::1", Deprecated, Configured), one("2001:db8:1::2")];
        assert_eq!(chosen(&two, "2001:db8:1::1"), "2001:db8:1::1");
        assert_eq!(chosen(&two, "2001:db8:1::9"), "2001:db8:1::2");
        // Labels keep unique local addresses to themselves.
        let two = [one("fd00:1::1"), one("2001:db8:9::1")];
        assert_eq!(chosen(&two, "2600::1"), "2001:db8:9::1");
        assert_eq!(chosen(&two, "fd99::1"), "fd00:1::1");
        let two = [one("2001:db8:1::1"), ("2001:db8:1::77", Preferred, Temporary)];
        assert_eq!(chosen(&two, "2600::1"), "2001:db8:1::77");
        let two = [("2001:db8:1::1", Tentative, Configured), one("fe80::1")];
        assert_eq!(chosen(&two, "2001:db8:1::9"), "fe80::1");
    }
}
