//! How the queue overflows while this flow holds back: whether others make room when it does.
//!
//! A flow that makes room loses a round trip now and then. Beside a rival that has most of a fast
//! path, a small flow loses no more than that itself. But where room was made the queue shrinks, and
//! takes dozens of round trips to overflow again. So overflows that follow each other in a queue that
//! stays give the rival away, and so does one that this flow's own Startup caused, in which everybody
//! lost much.
//!
//! A queue that was emptied tells nothing: who looks for the shortest round trip does that too, and a
//! rival more than anybody. So such a time does not count, neither for nor against; and nor does one
//! in which this flow made so much room itself that the queue had to shrink.

use super::rival::Round;

/// So many overflows that nobody heeded are a rival's, and so many more where there was one of late.
const UNHEEDED: u8 = 4;
const UNHEEDED_AGAIN: u8 = 2;
/// Each is at most so many round trips after the one before; more, if the queue was emptied since.
const SOON_ROUNDS: u8 = 12;
const SOON_AFTER_EMPTY: u8 = 24;
/// Losses of so many round trips are of one overflow: they are found after it.
pub(super) const SAME_ROUNDS: u8 = 2;
/// Who makes room leaves less than this of the queue, percent. CUBIC, which makes the least, leaves
/// 55 of a queue of two products, and of a shorter one less; the first version of BBR leaves 78.
const LEFT_OF_QUEUE: u32 = 67;
/// Less than one part in so many of what overflowed is an empty queue.
const EMPTY: u32 = 16;
/// The first version keeps two products in flight: with more of a queue than this, percent of the
/// shortest round trip, it is not alone, and what is lost may be lost elsewhere.
const LONGEST_QUEUE: u32 = 150;
/// After so many round trips what Startup had too much of is drained, and others have heeded it.
const STARTUP_ROUNDS: u8 = 8;
/// A queue shorter than this, microseconds, may overflow by a burst alone.
pub(super) const SHORT_QUEUE_US: u32 = 4_000;
/// A window of less than so many segments is soon as large as it was.
const SMALL_WINDOW: u32 = 32;

/// What is known of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overflows {
    /// So many that nobody heeded, since the last that somebody did.
    unheeded: u8,
    /// Round trips since the last one, but for those in which the queue was emptied.
    since: u8,
    /// The queue when it overflowed, and the shortest since, microseconds.
    queue_us: u32,
    shortest_us: u32,
    /// What this flow had in flight then, segments.
    segments: u32,
    /// The queue was emptied since, or this flow had half as much in flight.
    emptied: bool,
    /// This flow's Startup caused it, and much was lost: who makes room has done so soon after.
    of_startup: bool,
}

impl Overflows {
    pub(super) const NONE: Overflows = Overflows {
        unheeded: 0,
        since: u8::MAX,
        queue_us: 0,
        shortest_us: 0,
        segments: 0,
        emptied: false,
        of_startup: false,
    };

    /// Of a rival that may still be there.
    pub(super) const SUSPECTED: Overflows = Overflows {
        unheeded: UNHEEDED - UNHEEDED_AGAIN,
        since: 0,
        emptied: true,
        ..Overflows::NONE
    };

    /// Startup makes the queue overflow.
    pub(super) fn of_startup(queue_us: u32) -> Overflows {
        Overflows { of_startup: true, ..Overflows::now(queue_us, 0) }
    }

    fn now(queue_us: u32, segments: u32) -> Overflows {
        Overflows { since: 0, queue_us, shortest_us: queue_us, segments, ..Overflows::NONE }
    }

    /// A round trip is over. Returns whether what Startup caused was heeded by nobody.
    pub(super) fn round(&mut self, round: &Round) -> bool {
        self.shortest_us = self.shortest_us.min(round.queue_us);
        let empty = round.queue_us < self.queue_us / EMPTY || round.segments < self.segments / 2;
        self.emptied |= empty;
        if !empty {
            self.since = self.since.saturating_add(1);
        }
        if self.of_startup {
            self.of_startup = self.since < STARTUP_ROUNDS;
            return !self.of_startup && self.stayed(round.min_rtt_us);
        }
        if round.lost > 0 && self.since > SAME_ROUNDS {
            let unheeded = self.heeded_by_nobody(round);
            *self = Overflows { unheeded, ..Overflows::now(round.queue_us, round.segments) };
        }
        false
    }

    /// The queue overflows again. How many were not heeded then?
    fn heeded_by_nobody(&self, round: &Round) -> u8 {
        let most = if self.emptied { SOON_AFTER_EMPTY } else { SOON_ROUNDS };
        if self.since > most || round.segments < SMALL_WINDOW {
            0
        } else if self.emptied {
            self.unheeded
        } else if self.stayed(round.min_rtt_us) {
            // One that this flow's probe caused is none of another's, but may have been heeded.
            self.unheeded.saturating_add(round.held_back.into())
        } else {
            0
        }
    }

    /// It was a rival's by its length, and has not shrunk since.
    fn stayed(&self, min_rtt_us: u32) -> bool {
        // Nothing may be known of the path yet.
        let lengths = SHORT_QUEUE_US..=(min_rtt_us / 100).saturating_mul(LONGEST_QUEUE);
        lengths.contains(&self.queue_us) && self.shortest_us >= self.queue_us / 100 * LEFT_OF_QUEUE
    }

    /// Whether so many were not heeded that there is a rival.
    pub(super) fn are_unheeded(&self) -> bool {
        self.unheeded >= UNHEEDED
    }
}
