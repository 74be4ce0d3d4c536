//! The queue of what will happen, ordered by time, and for one time by when it was put in.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use millrace_frames::Instant;

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A packet comes out of the wire's `end`.
    Arrive { wire: u32, end: u8, packet: u32 },
    /// A host's stack has a timer that runs out.
    Timer { host: u32 },
    /// A host's port is done with the oldest packet that it was given.
    Sent { host: u32 },
    /// The application of an endpoint looks at it again.
    Look { endpoint: u32 },
    /// The next conversation of a series starts.
    Start { series: u32 },
    /// The network or a host changes.
    Change { number: u32 },
    /// The scenario asked to be called.
    Call { number: u64 },
}

#[derive(Debug)]
struct Entry {
    time: Instant,
    sequence: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.time, self.sequence).cmp(&(other.time, other.sequence))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Events {
    heap: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
}

impl Events {
    pub(crate) fn push(&mut self, time: Instant, event: Event) {
        self.heap.push(Reverse(Entry { time, sequence: self.sequence, event }));
        self.sequence += 1;
    }

    pub(crate) fn next_time(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.time)
    }

    pub(crate) fn pop_until(&mut self, time: Instant) -> Option<Event> {
        if self.next_time()? > time {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry.event)
    }
}
