//! What is on its way, in order of arrival.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use millrace_frames::Instant;

/// Things with a time of arrival; those that arrive at the same time keep the order in which they
/// were put in.
#[derive(Debug)]
pub struct InFlight<T> {
    waiting: BinaryHeap<Reverse<Waiting<T>>>,
    sequence: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    arrival: Instant,
    sequence: u64,
    item: T,
}

impl<T> Waiting<T> {
    fn key(&self) -> (Instant, u64) {
        (self.arrival, self.sequence)
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> InFlight<T> {
    /// Nothing, with room for so many before it must grow.
    pub fn with_capacity(capacity: usize) -> Self {
        InFlight { waiting: BinaryHeap::with_capacity(capacity), sequence: 0 }
    }

    /// How many are on their way.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next arrives.
    pub fn earliest(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.arrival)
    }

    /// Puts one on its way.
    pub fn push(&mut self, arrival: Instant, item: T) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.waiting.push(Reverse(Waiting { arrival, sequence, item }));
    }

    /// The next, if it has arrived by `now`.
    pub fn pop(&mut self, now: Instant) -> Option<(Instant, T)> {
        if self.earliest()? > now {
            return None;
        }
        let Reverse(Waiting { arrival, item, .. }) = self.waiting.pop()?;
        Some((arrival, item))
    }
}
