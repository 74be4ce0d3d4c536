//! Whether the stack keeps up with what arrives, and what it leaves undone when it does not.
//!
//! Once the ring before the stack is full, chance decides who is heard. A queue that is emptied now
//! and then was a burst; one that never is has more coming in than this thread can do, and lasts
//! (the standing queue of CoDel, RFC 8289 §3). What an answer costs, and what else the thread has to
//! do, is in that measure without anybody having to know it.

use core::time::Duration;

use millrace_frames::Instant;

use crate::hash::Keys;

/// Of the work that is left undone, one piece in so many is done all the same, so that nobody is
/// shut out for as long as it lasts.
const DONE_ALL_THE_SAME: u64 = 16;

/// Sets these hashes apart from other uses of the key.
const DOMAIN: u64 = 0x6261_636b_6c6f_6721;

/// The queue before the stack, by the batches that come from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    /// Since when all batches have been full ones; in the far future: the last was not.
    since: Instant,
    /// For how long that may go on.
    patience: Duration,
    /// Pieces of work that could be left undone.
    asked: u64,
}

impl Backlog {
    pub(crate) fn new(patience: Duration) -> Self {
        Backlog { since: Instant::FAR_FUTURE, patience, asked: 0 }
    }

    /// A batch has come. After a full one there may be another.
    #[inline]
    pub(crate) fn batch(&mut self, now: Instant, full: bool) {
        self.since = if full { self.since.min(now) } else { Instant::FAR_FUTURE };
    }

    /// Whether something has waited for longer than is right.
    #[inline]
    pub(crate) fn is_behind(&self, now: Instant) -> bool {
        self.since <= now && now - self.since >= self.patience
    }

    /// Whether a piece of work is left undone, being behind. Which ones nobody can foresee, so that no
    /// flood can be timed to take the place of all others.
    pub(crate) fn leaves_undone(&mut self, keys: &Keys) -> bool {
        self.asked += 1;
        !keys.prf(&[self.asked, DOMAIN]).is_multiple_of(DONE_ALL_THE_SAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_queue_that_is_emptied_is_a_burst() {
        let mut backlog = Backlog::new(Duration::from_millis(3));
        for millis in [1, 2, 3].map(millis) {
            backlog.batch(millis, true);
            assert!(!backlog.is_behind(millis));
        }
        backlog.batch(millis(4), false);
        assert!(!backlog.is_behind(millis(5)));
        for (at, behind) in [(6, false), (8, false), (9, true), (20, true)] {
            backlog.batch(millis(at), true);
            assert_eq!(backlog.is_behind(millis(at)), behind, "{at} ms");
        }
        backlog.batch(millis(21), false);
        assert!(!backlog.is_behind(millis(21)));
    }

    #[test]
    fn one_in_sixteen_is_done() {
        let keys = Keys::new([1, 2, 3, 4]);
        let mut backlog = Backlog::new(Duration::ZERO);
        let done = (0..16_000).filter(|_| !backlog.leaves_undone(&keys)).count();
        assert!((900..1100).contains(&done), "{done}");
    }
}
