//! The beat of the first version of BBR.
//!
//! It sends a quarter more in one of eight shortest round trips, and a quarter less in the next. A
//! short queue overflows then with this beat, and is drained at once as if somebody had made room, so
//! that [`Overflows`](super::overflows::Overflows) are heeded by all appearance. Who makes room has to
//! grow back first, by about a segment each round trip: a beat of eight is that of windows of some
//! sixteen segments. A flow with many times that in flight does not share its path with those.

use core::ops::RangeInclusive;

use super::overflows::SAME_ROUNDS;
use super::rival::Round;

/// A beat, percent of the shortest round trip: one that is an eighth shorter or longer still, and a
/// round trip each way, for losses are found at the end of one.
const BEAT: RangeInclusive<u64> = 600..=950;
/// So many more that are on it than are not are the first version's, and so many more where it was
/// there of late.
const BEATS: u8 = 4;
const BEATS_AGAIN: u8 = 2;
/// With less in flight, segments, it may be anybody's.
const LEAST_SEGMENTS: u32 = 64;

/// What is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    /// So many more on it than not.
    beats: u8,
    /// Round trips since one with loss.
    since: u8,
    /// When the queue overflowed, microseconds.
    last_us: Option<u32>,
}

impl Beat {
    pub(super) const NONE: Beat = Beat { beats: 0, since: u8::MAX, last_us: None };

    /// Of a rival that may still be there.
    pub(super) const SUSPECTED: Beat = Beat { beats: BEATS - BEATS_AGAIN, ..Beat::NONE };

    /// Nothing was sent for long.
    pub(super) fn paused(&mut self) {
        self.last_us = None;
    }

    /// A round trip is over.
    pub(super) fn round(&mut self, round: &Round) {
        self.since = self.since.saturating_add(1);
        if round.lost == 0 || core::mem::take(&mut self.since) <= SAME_ROUNDS {
            return;
        }
        let Some(last_us) = self.last_us else {
            self.last_us = Some(round.now_us);
            return;
        };
        let passed = u64::from(round.now_us.wrapping_sub(last_us)) * 100;
        let beat = passed / u64::from(round.min_rtt_us.max(1));
        if round.segments >= LEAST_SEGMENTS && BEAT.contains(&beat) {
            self.beats = self.beats.saturating_add(1);
        } else {
            self.beats = self.beats.saturating_sub(1);
            // What comes too soon may be of a probe of this flow's own.
            if beat < *BEAT.start() {
                return;
            }
        }
        self.last_us = Some(round.now_us);
    }

    /// Whether there were so many that they are the first version's.
    pub(super) fn is_known(&self) -> bool {
        self.beats >= BEATS
    }
}
