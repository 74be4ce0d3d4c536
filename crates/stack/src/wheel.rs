//! A hierarchical timer wheel: start, stop and expiry in O(1), and the next deadline without
//! looking at timers one by one.
//!
//! One timer for each entry, linked by index through one flat array. Level `n` has 64 slots of
//! 64^n ticks; a timer sits on the level of the highest group of six bits in which its deadline
//! differs from the wheel's time, so it is moved at most once a level on its way down
//! (Varghese and Lauck, 1987, scheme 7).

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 11;
const NONE: u32 = u32::MAX;

/// Nanoseconds in a tick, as a shift: 65.5 µs, so that 32 bits of ticks are 78 hours.
pub(crate) const TICK_SHIFT: u32 = 16;

#[derive(Clone, Copy, Debug)]
struct Node {
    expires: u64,
    next: u32,
    /// The node before, or `NONE` for the first in its slot.
    previous: u32,
}

/// `expires` of a timer that is not running.
const IDLE: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Wheel {
    nodes: Box<[Node]>,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    /// Timers whose time has come and that `pop` has not handed out.
    due: u32,
    now: u64,
}

/// The tick that `deadline_nanos` falls in, rounded up: never early.
#[inline]
pub(crate) fn tick_at_or_after(nanos: u64) -> u64 {
    (nanos >> TICK_SHIFT) + u64::from(nanos & ((1 << TICK_SHIFT) - 1) != 0)
}

impl Wheel {
    /// A wheel with a timer for each of `entries`, none running, at tick `now`.
    pub(crate) fn new(entries: u32, now: u64) -> Self {
        Wheel {
            nodes: vec![Node { expires: IDLE, next: NONE, previous: NONE }; entries as usize]
                .into_boxed_slice(),
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            due: NONE,
            now,
        }
    }

    /// When the entry's timer runs out, if it runs.
    #[inline]
    pub(crate) fn expires(&self, entry: u32) -> Option<u64> {
        match self.nodes[entry as usize].expires {
            IDLE => None,
            tick => Some(tick),
        }
    }

    /// Starts the entry's timer, or moves it.
    pub(crate) fn start(&mut self, entry: u32, expires: u64) {
        self.stop(entry);
        self.link(entry, expires.min(IDLE - 1));
    }

    /// Stops the entry's timer if it runs.
    #[inline]
    pub(crate) fn stop(&mut self, entry: u32) {
        if self.nodes[entry as usize].expires != IDLE {
            self.unlink(entry);
        }
    }

    /// The next tick at which something has to be done: a timer runs out, or moves down a level.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.due != NONE {
            return Some(self.now);
        }
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = u64::from(self.occupied[level].trailing_zeros());
        let shift = BITS * level as u32;
        let above = self.now.checked_shr(shift + BITS).unwrap_or(0);
        Some((above.checked_shl(shift + BITS).unwrap_or(0)) | slot << shift)
    }

    /// Moves the wheel to tick `now` and hands out a timer that has run out by then, with when it was
    /// to; to be called until it gives none.
    pub(crate) fn pop(&mut self, now: u64) -> Option<(u32, u64)> {
        loop {
            if self.due != NONE {
                let entry = self.due;
                let expires = self.nodes[entry as usize].expires;
                self.unlink(entry);
                return Some((entry, expires));
            }
            match self.next() {
                Some(next) if next <= now => self.turn_to(next),
                _ => {
                    self.now = self.now.max(now);
                    return None;
                }
            }
        }
    }

    /// Moves to `tick`, where the first slot in use begins, and lets its timers down.
    fn turn_to(&mut self, tick: u64) {
        let Some(level) = self.occupied.iter().position(|&slots| slots != 0) else { return };
        let slot = self.occupied[level].trailing_zeros() as usize;
        self.now = tick;
        let mut entry = core::mem::replace(&mut self.heads[level][slot], NONE);
        self.occupied[level] &= !(1 << slot);
        while entry != NONE {
            let Node { expires, next, .. } = self.nodes[entry as usize];
            self.link(entry, expires);
            entry = next;
        }
    }

    #[inline]
    fn place(&self, expires: u64) -> Option<(usize, usize)> {
        if expires <= self.now {
            return None;
        }
        let level = (63 - (expires ^ self.now).leading_zeros()) / BITS;
        Some((level as usize, (expires >> (BITS * level)) as usize & (SLOTS - 1)))
    }

    fn link(&mut self, entry: u32, expires: u64) {
        let head = match self.place(expires) {
            Some((level, slot)) => {
                self.occupied[level] |= 1 << slot;
                &mut self.heads[level][slot]
            }
            None => &mut self.due,
        };
        let next = core::mem::replace(head, entry);
        self.nodes[entry as usize] = Node { expires, next, previous: NONE };
        if next != NONE {
            self.nodes[next as usize].previous = entry;
        }
    }

    fn unlink(&mut self, entry: u32) {
        let Node { expires, next, previous } = self.nodes[entry as usize];
        self.nodes[entry as usize].expires = IDLE;
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
            return;
        }
        match self.place(expires) {
            // A timer that is due stays where `turn_to` found it only in the due list.
            Some((level, slot)) if self.heads[level][slot] == entry => {
                self.heads[level][slot] = next;
                if next == NONE {
                    self.occupied[level] &= !(1 << slot);
                }
            }
            _ => self.due = next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(
            start in 0u64..1 << 40,
            steps in prop::collection::vec((0u32..16, 0u64..1 << 20, 0u8..4), 1..200),
        ) {
            let mut wheel = Wheel::new(16, start);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = start;
            for (entry, delta, what) in steps {
                match what {
                    0 | 1 => {
                        wheel.start(entry, now + delta);
                        model.insert(entry, now + delta);
                    }
                    2 => {
                        wheel.stop(entry);
                        model.remove(&entry);
                    }
                    _ => {
                        now += delta;
                        if let Some(first) = model.values().min() {
                            prop_assert!(wheel.next().unwrap() <= (*first).max(now));
                        }
                        let mut popped = Vec::new();
                        while let Some((entry, expires)) = wheel.pop(now) {
                            prop_assert_eq!(Some(&expires), model.get(&entry));
                            popped.push(entry);
                        }
                        popped.sort_unstable();
                        let due: Vec<u32> =
                            model.iter().filter(|&(_, &at)| at <= now).map(|(&e, _)| e).collect();
                        prop_assert_eq!(&popped, &due);
                        model.retain(|_, at| *at > now);
                    }
                }
                for entry in 0..16 {
                    prop_assert_eq!(wheel.expires(entry), model.get(&entry).copied());
                }
            }
        }
    }

    #[test]
    fn an_empty_wheel_has_no_deadline() {
        let mut wheel = Wheel::new(1, 5);
        assert_eq!(wheel.next(), None);
        assert_eq!(wheel.pop(1 << 50), None);
        wheel.start(0, (1 << 50) + 3);
        assert_eq!(wheel.pop((1 << 50) + 2), None);
        assert_eq!(wheel.pop((1 << 50) + 3), Some((0, (1 << 50) + 3)));
    }
}
