//! The neighbour cache: hardware addresses of hosts on the link (RFC 826, RFC 1122 §2.3.2).
//!
//! Bounded; entries expire, are asked for again while they are still used, and keep the latest few
//! packets that wait for an answer ([`waiting`]). It decides what to ask; the stack writes the
//! requests.
//!
//! Whoever sends packets from invented addresses can make us ask for them. So questions that have half of
//! the cache push out no answers, but one another (RFC 6583 §7).

mod waiting;

use millrace_frames::{Duration, Instant, Transmit};
use millrace_wire::mac::Mac;

use crate::address::{Word, address, is_v4};
use crate::hash::Keys;
use crate::table::FlowTable;
use crate::tables::NeighbourInfo;
use waiting::Waiting;

/// An entry by number and generation, so that one who kept it notices that it is another's now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeighbourRef(u32);

impl NeighbourRef {
    pub(crate) const NONE: NeighbourRef = NeighbourRef(u32::MAX);

    fn new(index: usize, generation: u16) -> Self {
        NeighbourRef(u32::from(generation) << 16 | index as u32)
    }

    #[inline]
    fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    #[inline]
    fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// What is known of a neighbour (RFC 4861 §7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No neighbour.
    Free,
    /// Asked, no answer yet.
    Incomplete,
    /// A SYN came from there, of whomever: its answer goes back the same way, and nothing else does.
    Shown,
    /// Known, believed until the deadline.
    Reachable,
    /// Known, used, and being asked again.
    Probing,
    /// Known, not confirmed or not for long, not used since (RFC 4861 §7.3.2).
    Stale,
    /// The same, used, and to be asked again if nothing confirms it soon. IPv6 only.
    Delay,
}

impl State {
    /// The name, as `ip neighbour` writes those that Linux has too.
    pub fn name(self) -> &'static str {
        match self {
            State::Free => "NONE",
            State::Incomplete => "INCOMPLETE",
            State::Shown => "SHOWN",
            State::Reachable => "REACHABLE",
            State::Probing => "PROBE",
            State::Stale => "STALE",
            State::Delay => "DELAY",
        }
    }

    /// Nobody has confirmed it yet, so that a stranger may have made it.
    fn is_unproven(self) -> bool {
        matches!(self, State::Incomplete | State::Shown)
    }

    /// The deadline is one that something must be done at.
    fn is_timed(self) -> bool {
        matches!(self, State::Incomplete | State::Probing | State::Delay)
    }
}

/// What a neighbour advertisement says (RFC 4861 §4.4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advertised {
    pub(crate) mac: Option<Mac>,
    pub(crate) solicited: bool,
    pub(crate) override_: bool,
}

/// How long a stale entry that is used may wait for a confirmation (RFC 4861 §10,
/// DELAY_FIRST_PROBE_TIME).
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);

/// How long a place is kept for who only showed itself: by then its handshake has ended, or nobody is
/// there.
const SHOWN_LASTS: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
struct Entry {
    address: Word,
    hash: u32,
    generation: u16,
    mac: Mac,
    state: State,
    attempts: u8,
    /// A connection attempt of ours waits for it.
    connecting: bool,
    /// Incomplete, Probing, Delay: when to ask next. Reachable: when belief ends.
    deadline: Instant,
    used: Instant,
    waiting: Waiting,
}

/// What is known of a next hop now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    Known(Mac),
    /// Being asked for.
    Wait,
    /// The reference is stale: look up again.
    Gone,
}

/// What the cache wants done when a deadline has come.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Send a request: to the known address where there is one, else to all.
    Ask { address: Word, known: Option<Mac> },
    /// The neighbour did not answer: these packets are lost, connection attempts fail.
    Lost { neighbour: NeighbourRef, address: Word, packets: usize, connecting: bool },
}

/// What came of a neighbour telling its hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// It is no business of ours, or there is no room.
    Nothing,
    /// The address is known now.
    Known,
    /// The same, and packets for it were lost that found too many waiting.
    Overflowed(NeighbourRef),
}

#[derive(Debug)]
pub(crate) struct Neighbours {
    entries: Vec<Entry>,
    table: FlowTable,
    /// Entries whose deadline something must be done at.
    asking: u16,
    /// No deadline of those is earlier.
    earliest: Instant,
    queue_limit: usize,
    retry: Duration,
    retries: u8,
    reachable: Duration,
    /// The same for IPv6, where routers tell them (RFC 4861 §6.3.2).
    retry_v6: Duration,
    reachable_v6: Duration,
    /// Packets of the last lost or answered neighbour, taken by the stack.
    pub(crate) released: Vec<Transmit>,
    /// Packets of neighbours that made way for others, likewise. Apart, for they are nothing that may
    /// go to whoever has their place now.
    pub(crate) evicted: Vec<Transmit>,
}

impl Neighbours {
    pub(crate) fn new(config: &crate::Config) -> Self {
        let queue_limit = usize::from(config.neighbour_queue);
        Neighbours {
            entries: (0..config.neighbours)
                .map(|_| Entry {
                    address: 0,
                    hash: 0,
                    generation: 0,
                    mac: Mac([0; 6]),
                    state: State::Free,
                    attempts: 0,
                    connecting: false,
                    deadline: Instant::ZERO,
                    used: Instant::ZERO,
                    waiting: Waiting::new(queue_limit),
                })
                .collect(),
            table: FlowTable::new(config.neighbours.into()),
            asking: 0,
            earliest: Instant::FAR_FUTURE,
            queue_limit,
            retry: config.neighbour_retry,
            retries: config.neighbour_retries,
            reachable: config.neighbour_reachable,
            retry_v6: config.ipv6.retransmit_timer,
            reachable_v6: config.ipv6.reachable_time,
            released: Vec::with_capacity(queue_limit),
            evicted: Vec::with_capacity(queue_limit),
        }
    }

    fn find(&self, keys: &Keys, address: Word) -> (u32, Option<usize>) {
        let hash = keys.flow(address, 0, 0);
        let found = self.table.find(hash, |at| self.entries[at as usize].address == address);
        (hash, found.map(|at| at as usize))
    }

    /// The entry for a next hop; a new one will be asked for at the next [`Neighbours::act`].
    /// `None` when every entry is being asked for by now. Packets that waited for a neighbour that
    /// made way are moved to `evicted`.
    pub(crate) fn look_up(
        &mut self,
        keys: &Keys,
        address: Word,
        now: Instant,
        connecting: bool,
    ) -> Option<NeighbourRef> {
        let (hash, found) = self.find(keys, address);
        let index = match found {
            Some(index) => index,
            None => {
                let index = self.enter(hash, address, now)?;
                self.ask(index, now);
                index
            }
        };
        if self.entries[index].state == State::Shown {
            // Another packet than the answer: it takes more to be believed.
            self.ask(index, now);
        }
        let entry = &mut self.entries[index];
        entry.used = now;
        entry.connecting |= connecting && entry.state == State::Incomplete;
        Some(NeighbourRef::new(index, entry.generation))
    }

    /// All that are known or asked for.
    pub(crate) fn look(&self, now: Instant) -> impl Iterator<Item = NeighbourInfo> + '_ {
        let used = self.entries.iter().filter(|entry| entry.state != State::Free);
        used.map(move |entry| NeighbourInfo {
            address: address(entry.address),
            mac: (entry.state != State::Incomplete).then_some(entry.mac),
            state: match entry.state {
                // Nothing is done when belief ends; whoever sends next finds that it has.
                State::Reachable if now >= entry.deadline => State::Stale,
                state => state,
            },
        })
    }

    fn ask(&mut self, index: usize, now: Instant) {
        let entry = &mut self.entries[index];
        entry.state = State::Incomplete;
        entry.attempts = 0;
        entry.connecting = false;
        entry.deadline = now;
        self.asking += 1;
        self.earliest = self.earliest.min(now);
    }

    /// An entry for the address, of which nothing is known yet.
    fn enter(&mut self, hash: u32, address: Word, now: Instant) -> Option<usize> {
        let index = self.make_room(now)?;
        self.table.insert(hash, index as u32);
        let entry = &mut self.entries[index];
        entry.address = address;
        entry.hash = hash;
        entry.used = now;
        Some(index)
    }

    /// A free entry. If there is none, the oldest that nobody has confirmed makes way where those have
    /// their half, else the known one that was used longest ago. What is being asked for again stays.
    fn make_room(&mut self, now: Instant) -> Option<usize> {
        let (mut free, mut unproven) = (None, 0);
        let (mut question, mut known): (Option<usize>, Option<usize>) = (None, None);
        let older = |than: Option<usize>, entries: &[Entry], used| {
            than.is_none_or(|than| used < entries[than].used)
        };
        for (index, entry) in self.entries.iter().enumerate() {
            match entry.state {
                State::Free => free = free.or(Some(index)),
                // No timer ends it, so whoever wants the place does.
                State::Shown if now - entry.used > SHOWN_LASTS => free = free.or(Some(index)),
                State::Incomplete | State::Shown => {
                    unproven += 1;
                    if older(question, &self.entries, entry.used) {
                        question = Some(index);
                    }
                }
                State::Reachable | State::Stale => {
                    if older(known, &self.entries, entry.used) {
                        known = Some(index);
                    }
                }
                State::Probing | State::Delay => {}
            }
        }
        let index = free.or(match 2 * unproven >= self.entries.len() {
            true => question,
            false => known.or(question),
        })?;
        if self.entries[index].state != State::Free {
            self.forget(index);
            self.entries[index].waiting.leave(&mut self.evicted);
        }
        Some(index)
    }

    /// A packet came from a host on the link of which nothing was known, and is to be answered: the
    /// answer goes where it came from, and those to others of its burst do too. Nothing if anything
    /// else is known.
    pub(crate) fn show(
        &mut self,
        keys: &Keys,
        address: Word,
        mac: Mac,
        now: Instant,
    ) -> Option<NeighbourRef> {
        let (hash, found) = self.find(keys, address);
        if let Some(index) = found {
            let entry = &mut self.entries[index];
            let again = entry.state == State::Shown && entry.mac == mac;
            return again.then(|| {
                entry.used = now;
                NeighbourRef::new(index, entry.generation)
            });
        }
        let index = self.enter(hash, address, now)?;
        let entry = &mut self.entries[index];
        entry.mac = mac;
        entry.state = State::Shown;
        entry.connecting = false;
        Some(NeighbourRef::new(index, entry.generation))
    }

    /// The host that a packet showed has answered what went there (RFC 4861 §7.3.1).
    #[inline]
    pub(crate) fn confirm(&mut self, neighbour: NeighbourRef, now: Instant) {
        let Some(entry) = self.entries.get(neighbour.index()) else { return };
        if entry.generation == neighbour.generation() && entry.state == State::Shown {
            let mac = entry.mac;
            self.settle(neighbour.index(), mac, State::Reachable, now);
        }
    }

    fn forget(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        self.table.remove(entry.hash, index as u32);
        if entry.state.is_timed() {
            self.asking -= 1;
        }
        entry.state = State::Free;
        entry.generation = entry.generation.wrapping_add(1);
    }

    /// The address of an entry that was confirmed of late.
    #[inline(always)]
    pub(crate) fn reachable(&self, neighbour: NeighbourRef, now: Instant) -> Option<Mac> {
        let entry = self.entries.get(neighbour.index())?;
        let fresh = entry.generation == neighbour.generation()
            && entry.state == State::Reachable
            && now < entry.deadline;
        fresh.then_some(entry.mac)
    }

    /// What is known of an entry. One whose time is over is still used, and asked for again.
    pub(crate) fn resolve(&mut self, neighbour: NeighbourRef, now: Instant) -> Resolution {
        if let Some(mac) = self.reachable(neighbour, now) {
            return Resolution::Known(mac);
        }
        let Some(entry) = self.entries.get_mut(neighbour.index()) else { return Resolution::Gone };
        if entry.generation != neighbour.generation() {
            return Resolution::Gone;
        }
        match entry.state {
            State::Reachable | State::Stale => {
                // A host of IPv4 is asked at once, one of IPv6 a little later.
                (entry.state, entry.deadline) = match is_v4(entry.address) {
                    true => (State::Probing, now),
                    false => (State::Delay, now + DELAY_FIRST_PROBE),
                };
                entry.attempts = 0;
                entry.used = now;
                self.asking += 1;
                self.earliest = self.earliest.min(entry.deadline);
                Resolution::Known(entry.mac)
            }
            State::Probing | State::Delay | State::Shown => Resolution::Known(entry.mac),
            State::Incomplete => Resolution::Wait,
            State::Free => Resolution::Gone,
        }
    }

    /// A neighbour told its hardware address. Where nobody has asked, it is believed only if
    /// `to_us` (RFC 826: whoever asks for us will hear from us). Packets that waited for it are
    /// moved to `released`, those of one that made way to `evicted`; [`Learned::Overflowed`] says that
    /// there had been more.
    pub(crate) fn learn(
        &mut self,
        keys: &Keys,
        address: Word,
        mac: Mac,
        now: Instant,
        to_us: bool,
    ) -> Learned {
        let (hash, found) = self.find(keys, address);
        let index = match found {
            Some(index) => index,
            None if to_us => match self.enter(hash, address, now) {
                Some(index) => index,
                None => return Learned::Nothing,
            },
            None => return Learned::Nothing,
        };
        self.settle(index, mac, State::Reachable, now)
    }

    /// An entry's address is known now.
    fn settle(&mut self, index: usize, mac: Mac, state: State, now: Instant) -> Learned {
        let entry = &mut self.entries[index];
        if entry.state.is_timed() {
            self.asking -= 1;
        }
        entry.mac = mac;
        entry.state = state;
        entry.connecting = false;
        entry.deadline =
            now + if is_v4(entry.address) { self.reachable } else { self.reachable_v6 };
        match entry.waiting.leave(&mut self.released) {
            true => Learned::Overflowed(NeighbourRef::new(index, entry.generation)),
            false => Learned::Known,
        }
    }

    /// A neighbour showed its hardware address by a message of its own, which proves nothing of
    /// the way to it (RFC 4861 §7.2.3): known, and to be confirmed when it is used.
    pub(crate) fn learn_stale(
        &mut self,
        keys: &Keys,
        address: Word,
        mac: Mac,
        now: Instant,
    ) -> Learned {
        match self.find(keys, address).1 {
            Some(index) => {
                let entry = &self.entries[index];
                if !entry.state.is_unproven() && entry.mac == mac {
                    return Learned::Known;
                }
                self.settle(index, mac, State::Stale, now)
            }
            None => match self.learn(keys, address, mac, now, true) {
                Learned::Nothing => Learned::Nothing,
                learned => {
                    if let Some(index) = self.find(keys, address).1 {
                        self.entries[index].state = State::Stale;
                    }
                    learned
                }
            },
        }
    }

    /// A neighbour advertisement (RFC 4861 §7.2.5). Gives the hardware address if it is known
    /// after it, and nothing if the neighbour is no business of ours or the advertisement changes
    /// nothing that is known of it.
    pub(crate) fn advertised(
        &mut self,
        keys: &Keys,
        address: Word,
        advertised: Advertised,
        now: Instant,
    ) -> (Learned, Option<Mac>) {
        let Some(index) = self.find(keys, address).1 else { return (Learned::Nothing, None) };
        let entry = &mut self.entries[index];
        let state = if advertised.solicited { State::Reachable } else { State::Stale };
        if entry.state.is_unproven() {
            return match advertised.mac {
                Some(mac) => (self.settle(index, mac, state, now), Some(mac)),
                None => (Learned::Nothing, None),
            };
        }
        let known = entry.mac;
        let differs = advertised.mac.is_some_and(|mac| mac != known);
        if differs && !advertised.override_ {
            // Somebody contradicts what is known, and does not insist.
            if entry.state == State::Reachable {
                entry.state = State::Stale;
            }
            return (Learned::Nothing, None);
        }
        let mac = advertised.mac.unwrap_or(known);
        if advertised.solicited || differs {
            return (self.settle(index, mac, state, now), Some(mac));
        }
        (Learned::Known, Some(mac))
    }

    /// A router told the time between solicitations.
    pub(crate) fn set_retransmit_v6(&mut self, time: Duration) {
        self.retry_v6 = time;
    }

    /// A router told how long a neighbour is believed reachable.
    pub(crate) fn set_reachable_v6(&mut self, time: Duration) {
        self.reachable_v6 = time;
    }

    /// When [`Neighbours::act`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        (self.asking > 0).then_some(self.earliest)
    }

    /// What is due now; to be called until it gives nothing. The packets of a lost neighbour are
    /// in `released`.
    pub(crate) fn act(&mut self, now: Instant) -> Option<Action> {
        if self.asking == 0 || now < self.earliest {
            return None;
        }
        let due =
            self.entries.iter().position(|entry| entry.state.is_timed() && entry.deadline <= now);
        let Some(index) = due else {
            self.earliest = self
                .entries
                .iter()
                .filter(|entry| entry.state.is_timed())
                .map(|entry| entry.deadline)
                .min()
                .unwrap_or(Instant::FAR_FUTURE);
            return None;
        };
        let entry = &mut self.entries[index];
        if entry.attempts >= self.retries {
            let neighbour = NeighbourRef::new(index, entry.generation);
            let (address, packets) = (entry.address, entry.waiting.packets().len());
            let connecting = entry.connecting;
            self.forget(index);
            self.entries[index].waiting.leave(&mut self.released);
            return Some(Action::Lost { neighbour, address, packets, connecting });
        }
        if entry.state == State::Delay {
            entry.state = State::Probing;
        }
        entry.attempts += 1;
        entry.deadline = now + if is_v4(entry.address) { self.retry } else { self.retry_v6 };
        Some(Action::Ask {
            address: entry.address,
            known: (entry.state == State::Probing).then_some(entry.mac),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const NOW: Instant = Instant::from_millis(1_000);

    fn cache(entries: u16) -> (Neighbours, Keys) {
        let config = Config { neighbours: entries, neighbour_queue: 2, ..Config::default() };
        (Neighbours::new(&config), Keys::new([1, 2, 3, 4]))
    }

    #[test]
    fn asks_waits_and_learns() {
        let (mut cache, keys) = cache(4);
        let neighbour = cache.look_up(&keys, 9, NOW, false).unwrap();
        assert!(matches!(cache.act(NOW), Some(Action::Ask { address: 9, known: None })));
        assert!(cache.act(NOW).is_none());
        assert_eq!(cache.resolve(neighbour, NOW), Resolution::Wait);
        for total in 0..2 {
            assert!(!cache.is_full(neighbour));
            cache.enqueue(neighbour, Transmit { total, ..Transmit::default() }).unwrap();
        }
        assert!(cache.is_full(neighbour));
        assert_eq!(cache.lose_oldest(neighbour).unwrap().total, 0);
        cache.enqueue(neighbour, Transmit { total: 2, ..Transmit::default() }).unwrap();
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        assert!(matches!(cache.learn(&keys, 9, mac, NOW, false), Learned::Overflowed(_)));
        assert_eq!(cache.released.iter().map(|packet| packet.total).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(cache.resolve(neighbour, NOW), Resolution::Known(mac));
        assert_eq!(cache.next_deadline(), None);
    }

    #[test]
    fn an_old_entry_is_used_and_asked_for_again() {
        const OLD: Word = crate::address::ANY_V4 | 9;
        let (mut cache, keys) = cache(4);
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        cache.learn(&keys, OLD, mac, NOW, true);
        let neighbour = cache.look_up(&keys, OLD, NOW, false).unwrap();
        let later = NOW + Duration::from_secs(61);
        assert_eq!(cache.resolve(neighbour, later), Resolution::Known(mac));
        assert!(matches!(cache.act(later), Some(Action::Ask { known: Some(_), .. })));
        let mut time = later;
        let lost = loop {
            time += Duration::from_secs(1);
            if let Some(Action::Lost { .. }) = cache.act(time) {
                break time;
            }
        };
        assert_eq!(lost, later + Duration::from_secs(3));
        assert_eq!(cache.resolve(neighbour, time), Resolution::Gone);
    }

    #[test]
    fn what_a_neighbour_of_ipv6_says_is_weighed() {
        let (mut cache, keys) = cache(4);
        let (one, two) = (Mac([2, 0, 0, 0, 0, 9]), Mac([2, 0, 0, 0, 0, 10]));
        let says = |mac, solicited, override_| Advertised { mac, solicited, override_ };
        let unasked = cache.advertised(&keys, 9, says(Some(one), true, true), NOW);
        assert_eq!(unasked, (Learned::Nothing, None));
        let neighbour = cache.look_up(&keys, 9, NOW, false).unwrap();
        let empty = cache.advertised(&keys, 9, says(None, true, true), NOW);
        assert_eq!(empty, (Learned::Nothing, None));
        cache.advertised(&keys, 9, says(Some(one), true, false), NOW);
        let state = |cache: &Neighbours| (cache.entries[0].state, cache.entries[0].mac);
        assert_eq!(state(&cache), (State::Reachable, one));
        // Contradicted, not overridden; then overridden, unsolicited.
        cache.advertised(&keys, 9, says(Some(two), true, false), NOW);
        assert_eq!(state(&cache), (State::Stale, one));
        cache.advertised(&keys, 9, says(Some(two), false, true), NOW);
        assert_eq!(state(&cache), (State::Stale, two));
        // Confirmed without the address.
        cache.advertised(&keys, 9, says(None, true, false), NOW);
        assert_eq!(state(&cache), (State::Reachable, two));
        // Old, used: five seconds until it is asked, of itself, three times.
        let old = NOW + Duration::from_secs(31);
        assert_eq!(cache.resolve(neighbour, old), Resolution::Known(two));
        assert!(cache.act(old).is_none());
        assert_eq!(cache.next_deadline(), Some(old + Duration::from_secs(5)));
        let mut time = old + Duration::from_secs(5);
        for _ in 0..3 {
            let asked = cache.act(time);
            assert!(matches!(asked, Some(Action::Ask { known: Some(mac), .. }) if mac == two));
            assert!(cache.act(time).is_none());
            time += Duration::from_secs(1);
        }
        assert!(matches!(cache.act(time), Some(Action::Lost { .. })));
        assert_eq!(cache.resolve(neighbour, time), Resolution::Gone);
    }

    #[test]
    fn unasked_claims_about_strangers_are_not_believed() {
        let (mut cache, keys) = cache(4);
        assert_eq!(cache.learn(&keys, 9, Mac([2; 6]), NOW, false), Learned::Nothing);
    }

    #[test]
    fn a_full_cache_forgets_the_longest_unused_and_never_grows() {
        let (mut cache, keys) = cache(2);
        for address in 0..10 {
            let now = NOW + Duration::from_millis(address as u64);
            cache.learn(&keys, address, Mac([2; 6]), now, true);
        }
        assert_eq!(cache.entries.len(), 2);
        assert!(cache.find(&keys, 9).1.is_some() && cache.find(&keys, 8).1.is_some());
        // One that is used and being asked for again stays.
        let (mut cache, keys) = self::cache(1);
        cache.learn(&keys, 1, Mac([2; 6]), NOW, true);
        let neighbour = cache.look_up(&keys, 1, NOW, false).unwrap();
        cache.resolve(neighbour, NOW + Duration::from_secs(3600));
        assert!(cache.look_up(&keys, 2, NOW, false).is_none());
    }

    #[test]
    fn a_question_makes_way_for_a_newer_one_and_no_answer_does() {
        let (mut cache, keys) = cache(4);
        let mac = Mac([2; 6]);
        (0..2).for_each(|address| {
            cache.learn(&keys, address, mac, NOW, true);
        });
        for address in 10..20 {
            let now = NOW + Duration::from_millis(address as u64);
            let neighbour = cache.look_up(&keys, address, now, false).unwrap();
            cache.enqueue(neighbour, Transmit::default()).unwrap();
        }
        let known = |cache: &Neighbours, address| cache.find(&keys, address).1.is_some();
        assert!([0, 1, 18, 19].iter().all(|&address| known(&cache, address)));
        assert_eq!((cache.evicted.len(), cache.released.len(), cache.asking), (8, 0, 2));
        // An answer to come has its place too, where a stranger's packet only showed itself.
        assert!(cache.show(&keys, 30, mac, NOW + Duration::from_secs(1)).is_some());
        assert!(cache.show(&keys, 31, mac, NOW + Duration::from_secs(2)).is_some());
        assert_eq!(cache.asking, 0);
        let shown = cache.show(&keys, 32, mac, NOW + Duration::from_secs(3)).unwrap();
        assert!(known(&cache, 0) && known(&cache, 1));
        assert_eq!(cache.resolve(shown, NOW), Resolution::Known(mac));
        assert_eq!(cache.show(&keys, 32, Mac([4; 6]), NOW), None);
        assert_eq!(cache.show(&keys, 32, mac, NOW), Some(shown));
        assert_eq!(cache.show(&keys, 0, mac, NOW), None);
        // Who wants to send something else there asks.
        cache.look_up(&keys, 32, NOW, false).unwrap();
        assert_eq!(cache.resolve(shown, NOW), Resolution::Wait);
        cache.confirm(shown, NOW);
        assert_eq!(cache.resolve(shown, NOW), Resolution::Wait);
    }

    #[test]
    fn who_only_showed_himself_is_not_kept_for_long() {
        let (mut cache, keys) = cache(4);
        let mac = Mac([2; 6]);
        for address in 10..14 {
            cache.show(&keys, address, mac, NOW).unwrap();
        }
        for address in 0..4u8 {
            let now = NOW + Duration::from_secs(60 + u64::from(address));
            cache.learn(&keys, address.into(), mac, now, true);
        }
        assert!((0..4).all(|address| cache.find(&keys, address).1.is_some()));
    }
}
