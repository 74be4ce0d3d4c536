//! The neighbour cache: hardware addresses of hosts on the link (RFC 826, RFC 1122 §2.3.2).
//!
//! Bounded; entries expire, are asked for again while they are still used, and keep the first few
//! packets that wait for an answer. It decides what to ask; the stack writes the requests.

use millrace_frames::{Duration, Instant, Transmit};
use millrace_wire::mac::Mac;

use crate::address::Word;
use crate::hash::Keys;
use crate::table::FlowTable;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// Asked, no answer yet.
    Incomplete,
    /// Known, believed until the deadline.
    Reachable,
    /// Known, used, and being asked again.
    Probing,
}

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
    /// More packets came than may wait.
    overflowed: bool,
    /// Incomplete, Probing: when to ask next. Reachable: when belief ends.
    deadline: Instant,
    used: Instant,
    queue: Vec<Transmit>,
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
    /// Entries in Incomplete or Probing.
    asking: u16,
    /// No deadline of those is earlier.
    earliest: Instant,
    queue_limit: usize,
    retry: Duration,
    retries: u8,
    reachable: Duration,
    /// Packets of the last lost or answered neighbour, taken by the stack.
    pub(crate) released: Vec<Transmit>,
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
                    overflowed: false,
                    deadline: Instant::ZERO,
                    used: Instant::ZERO,
                    queue: Vec::with_capacity(queue_limit),
                })
                .collect(),
            table: FlowTable::new(config.neighbours.into()),
            asking: 0,
            earliest: Instant::FAR_FUTURE,
            queue_limit,
            retry: config.neighbour_retry,
            retries: config.neighbour_retries,
            reachable: config.neighbour_reachable,
            released: Vec::with_capacity(queue_limit),
        }
    }

    fn find(&self, keys: &Keys, address: Word) -> (u32, Option<usize>) {
        let hash = keys.flow(address, 0, 0);
        let found = self.table.find(hash, |at| self.entries[at as usize].address == address);
        (hash, found.map(|at| at as usize))
    }

    /// The entry for a next hop; a new one will be asked for at the next [`Neighbours::act`].
    /// `None` when every entry is being asked for by now.
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
                let index = self.make_room(now)?;
                self.table.insert(hash, index as u32);
                let entry = &mut self.entries[index];
                entry.address = address;
                entry.hash = hash;
                entry.state = State::Incomplete;
                entry.attempts = 0;
                entry.connecting = false;
                entry.overflowed = false;
                entry.deadline = now;
                self.asking += 1;
                self.earliest = self.earliest.min(now);
                index
            }
        };
        let entry = &mut self.entries[index];
        entry.used = now;
        entry.connecting |= connecting && entry.state == State::Incomplete;
        Some(NeighbourRef::new(index, entry.generation))
    }

    /// Whether there is an entry for the address.
    pub(crate) fn knows(&self, keys: &Keys, address: Word) -> bool {
        self.find(keys, address).1.is_some()
    }

    /// A free entry, or the known one that was used longest ago. Entries that are being asked for
    /// stay: they time out by themselves.
    fn make_room(&mut self, _now: Instant) -> Option<usize> {
        if let Some(index) = self.entries.iter().position(|entry| entry.state == State::Free) {
            return Some(index);
        }
        let (index, _) = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.state == State::Reachable)
            .min_by_key(|(_, entry)| entry.used)?;
        self.forget(index);
        Some(index)
    }

    fn forget(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        self.table.remove(entry.hash, index as u32);
        if matches!(entry.state, State::Incomplete | State::Probing) {
            self.asking -= 1;
        }
        entry.state = State::Free;
        entry.generation = entry.generation.wrapping_add(1);
        self.released.append(&mut entry.queue);
    }

    /// What is known of an entry. One whose time is over is still used, and asked for again.
    #[inline]
    pub(crate) fn resolve(&mut self, neighbour: NeighbourRef, now: Instant) -> Resolution {
        let Some(entry) = self.entries.get_mut(neighbour.index()) else { return Resolution::Gone };
        if entry.generation != neighbour.generation() {
            return Resolution::Gone;
        }
        match entry.state {
            State::Reachable if now < entry.deadline => Resolution::Known(entry.mac),
            State::Reachable => {
                entry.state = State::Probing;
                entry.attempts = 0;
                entry.deadline = now;
                entry.used = now;
                self.asking += 1;
                self.earliest = self.earliest.min(now);
                Resolution::Known(entry.mac)
            }
            State::Probing => Resolution::Known(entry.mac),
            State::Incomplete => Resolution::Wait,
            State::Free => Resolution::Gone,
        }
    }

    /// Lets a packet wait for an entry that is Incomplete. Gives it back when too many wait.
    pub(crate) fn enqueue(
        &mut self,
        neighbour: NeighbourRef,
        packet: Transmit,
    ) -> Result<(), Transmit> {
        match self.entries.get_mut(neighbour.index()) {
            Some(entry)
                if entry.generation == neighbour.generation()
                    && entry.state == State::Incomplete
                    && entry.queue.len() < self.queue_limit =>
            {
                entry.queue.push(packet);
                Ok(())
            }
            Some(entry) if entry.generation == neighbour.generation() => {
                entry.overflowed = true;
                Err(packet)
            }
            _ => Err(packet),
        }
    }

    /// The packet that was the last to wait for an entry.
    pub(crate) fn last_waiting(&self, neighbour: NeighbourRef) -> Option<&Transmit> {
        let entry = self.entries.get(neighbour.index())?;
        (entry.generation == neighbour.generation()).then(|| entry.queue.last()).flatten()
    }

    /// Lets a packet wait that belongs to the one that was the last to wait, whatever the limit.
    pub(crate) fn enqueue_behind_last(&mut self, neighbour: NeighbourRef, packet: Transmit) {
        self.entries[neighbour.index()].queue.push(packet);
    }

    /// A neighbour told its hardware address. Where nobody has asked, it is believed only if
    /// `to_us` (RFC 826: whoever asks for us will hear from us). Packets that waited for it are
    /// moved to `released`; [`Learned::Overflowed`] says that there had been more.
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
            None if to_us => {
                let Some(index) = self.make_room(now) else { return Learned::Nothing };
                self.table.insert(hash, index as u32);
                self.entries[index].address = address;
                self.entries[index].hash = hash;
                self.entries[index].used = now;
                self.entries[index].overflowed = false;
                index
            }
            None => return Learned::Nothing,
        };
        let entry = &mut self.entries[index];
        if matches!(entry.state, State::Incomplete | State::Probing) {
            self.asking -= 1;
        }
        entry.mac = mac;
        entry.state = State::Reachable;
        entry.connecting = false;
        entry.deadline = now + self.reachable;
        self.released.append(&mut entry.queue);
        if core::mem::take(&mut entry.overflowed) {
            Learned::Overflowed(NeighbourRef::new(index, entry.generation))
        } else {
            Learned::Known
        }
    }

    /// Moves the packets that wait, whoever they wait for, to `released`.
    pub(crate) fn release_waiting(&mut self) {
        for entry in &mut self.entries {
            self.released.append(&mut entry.queue);
        }
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
        let due = self.entries.iter().position(|entry| {
            matches!(entry.state, State::Incomplete | State::Probing) && entry.deadline <= now
        });
        let Some(index) = due else {
            self.earliest = self
                .entries
                .iter()
                .filter(|entry| matches!(entry.state, State::Incomplete | State::Probing))
                .map(|entry| entry.deadline)
                .min()
                .unwrap_or(Instant::FAR_FUTURE);
            return None;
        };
        let entry = &mut self.entries[index];
        if entry.attempts >= self.retries {
            let neighbour = NeighbourRef::new(index, entry.generation);
            let (address, packets) = (entry.address, entry.queue.len());
            let connecting = entry.connecting;
            self.forget(index);
            return Some(Action::Lost { neighbour, address, packets, connecting });
        }
        entry.attempts += 1;
        entry.deadline = now + self.retry;
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
        for _ in 0..2 {
            cache.enqueue(neighbour, Transmit::default()).unwrap();
        }
        cache.enqueue(neighbour, Transmit::default()).unwrap_err();
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        assert!(matches!(cache.learn(&keys, 9, mac, NOW, false), Learned::Overflowed(_)));
        assert_eq!(cache.released.len(), 2);
        assert_eq!(cache.resolve(neighbour, NOW), Resolution::Known(mac));
        assert_eq!(cache.next_deadline(), None);
    }

    #[test]
    fn an_old_entry_is_used_and_asked_for_again() {
        let (mut cache, keys) = cache(4);
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        cache.learn(&keys, 9, mac, NOW, true);
        let neighbour = cache.look_up(&keys, 9, NOW, false).unwrap();
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
        // Both being asked for: there is no room for a third.
        let (mut cache, keys) = self::cache(1);
        cache.look_up(&keys, 1, NOW, false).unwrap();
        assert!(cache.look_up(&keys, 2, NOW, false).is_none());
    }
}
