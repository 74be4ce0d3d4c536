//! HyStart++ (RFC 9406): leaves the initial slow start when round-trip times rise, before a queue
//! overflows, and makes sure of it at a quarter of the speed first.
//!
//! The RFC looks at the first eight samples of a round. A window that is paced doubles within the
//! round in which it outgrows the path, and those samples say nothing of it yet: a queue as long as
//! the path is full a round later, and half of the window is lost. So every eight samples are
//! looked at.

use millrace_wire::seq::Seq;

use super::AckSample;

/// RFC 9406 §4.3.
const MIN_RTT_THRESH_US: u32 = 4_000;
const MAX_RTT_THRESH_US: u32 = 16_000;
const MIN_RTT_DIVISOR: u32 = 8;
const RTT_SAMPLES: u8 = 8;
/// The window of conservative slow start grows by this part of what is acknowledged.
pub(super) const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u8 = 5;

const NONE: u32 = u32::MAX;

/// What to do with an acknowledgement in the initial slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// Grow by all of it.
    Full,
    /// Conservative slow start: grow by a part of it.
    Conservative,
    /// The path is full: go on with congestion avoidance.
    Leave,
}

/// State of the rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HyStart {
    /// The round ends when this is acknowledged.
    window_end: Seq,
    /// A round has begun.
    started: bool,
    last_min_us: u32,
    /// Least of this round, and of the samples since eight were looked at last.
    current_min_us: u32,
    recent_min_us: u32,
    samples: u8,
    /// Rounds of conservative slow start that ended; `None` outside of it.
    conservative: Option<u8>,
    baseline_us: u32,
}

impl HyStart {
    pub(super) const NEW: HyStart = HyStart {
        window_end: Seq(0),
        started: false,
        last_min_us: NONE,
        current_min_us: NONE,
        recent_min_us: NONE,
        samples: 0,
        conservative: None,
        baseline_us: NONE,
    };

    /// RFC 9406 §4.2. An acknowledgement of new data in the initial slow start.
    #[inline]
    pub(super) fn on_ack(&mut self, sample: &AckSample) -> Growth {
        if !self.started {
            self.started = true;
            self.window_end = sample.snd_nxt;
        } else if !(self.window_end - 1).between(sample.ack, sample.snd_nxt) {
            self.window_end = sample.snd_nxt;
            self.last_min_us = self.current_min_us;
            self.current_min_us = NONE;
            self.recent_min_us = NONE;
            self.samples = 0;
            if let Some(rounds) = &mut self.conservative {
                *rounds += 1;
                if *rounds >= CSS_ROUNDS {
                    return Growth::Leave;
                }
            }
        }
        if sample.rtt_us > 0 {
            self.current_min_us = self.current_min_us.min(sample.rtt_us);
            self.recent_min_us = self.recent_min_us.min(sample.rtt_us);
            self.samples += 1;
        }
        if self.samples >= RTT_SAMPLES {
            if self.conservative.is_some() {
                if self.recent_min_us < self.baseline_us {
                    // The rise was jitter.
                    self.conservative = None;
                    self.baseline_us = NONE;
                }
            } else if self.last_min_us != NONE {
                let threshold = (self.last_min_us / MIN_RTT_DIVISOR)
                    .clamp(MIN_RTT_THRESH_US, MAX_RTT_THRESH_US);
                if self.recent_min_us >= self.last_min_us.saturating_add(threshold) {
                    self.conservative = Some(0);
                    self.baseline_us = self.recent_min_us;
                }
            }
            self.recent_min_us = NONE;
            self.samples = 0;
        }
        if self.conservative.is_some() { Growth::Conservative } else { Growth::Full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of ten acknowledgements, a segment of 1000 bytes each.
    struct Rounds {
        hystart: HyStart,
        at: u32,
    }

    impl Rounds {
        fn new() -> Self {
            Rounds { hystart: HyStart::NEW, at: 0 }
        }

        /// One round with this round-trip time; the answer to its last acknowledgement.
        fn round(&mut self, rtt_us: u32) -> Growth {
            self.acks(rtt_us, 10)
        }

        fn acks(&mut self, rtt_us: u32, count: u32) -> Growth {
            let mut growth = Growth::Full;
            for _ in 0..count {
                self.at += 1000;
                growth = self.hystart.on_ack(&AckSample {
                    acked: 1000,
                    delivered: 1000,
                    rtt_us,
                    ack: Seq(self.at),
                    snd_nxt: Seq(self.at + 10_000),
                    ..AckSample::default()
                });
            }
            growth
        }
    }

    #[test]
    fn a_steady_round_trip_time_changes_nothing() {
        let mut rounds = Rounds::new();
        assert!((0..50).all(|_| rounds.round(50_000) == Growth::Full));
    }

    #[test]
    fn a_rise_by_an_eighth_slows_down_and_leaves_after_five_rounds() {
        let mut rounds = Rounds::new();
        rounds.round(80_000);
        rounds.round(80_000);
        assert_eq!(rounds.round(89_999), Growth::Full);
        rounds.round(80_000);
        assert_eq!(rounds.round(90_001), Growth::Conservative);
        for _ in 0..4 {
            assert_eq!(rounds.round(95_000), Growth::Conservative);
        }
        assert_eq!(rounds.acks(95_000, 1), Growth::Leave);
    }

    #[test]
    fn a_rise_within_a_round_is_seen_in_it() {
        let mut rounds = Rounds::new();
        rounds.acks(20_000, 10);
        rounds.acks(20_000, 10);
        // One long round: its first acknowledgements find no queue, its last ones do.
        let mut growth = Growth::Full;
        for rtt_us in [20_000, 20_500, 21_000, 25_000, 26_000] {
            for _ in 0..8 {
                growth = rounds.hystart.on_ack(&AckSample {
                    acked: 1000,
                    delivered: 1000,
                    rtt_us,
                    ack: Seq(rounds.at + 1000),
                    snd_nxt: Seq(rounds.at + 50_000),
                    ..AckSample::default()
                });
            }
        }
        assert_eq!(growth, Growth::Conservative);
    }

    #[test]
    fn the_rise_that_counts_is_between_4_and_16_ms() {
        for (base, little, enough) in [(8_000, 3_900, 4_000), (800_000, 15_900, 16_000)] {
            let mut rounds = Rounds::new();
            rounds.round(base);
            rounds.round(base);
            assert_eq!(rounds.round(base + little), Growth::Full, "{base}");
            let mut rounds = Rounds::new();
            rounds.round(base);
            rounds.round(base);
            assert_eq!(rounds.round(base + enough), Growth::Conservative, "{base}");
        }
    }

    #[test]
    fn jitter_is_forgiven() {
        let mut rounds = Rounds::new();
        rounds.round(50_000);
        rounds.round(50_000);
        assert_eq!(rounds.round(60_000), Growth::Conservative);
        assert_eq!(rounds.round(52_000), Growth::Full);
        assert_eq!(rounds.round(52_000), Growth::Full);
    }

    #[test]
    fn rounds_go_on_after_gigabytes_that_did_not_count() {
        let mut rounds = Rounds::new();
        rounds.round(50_000);
        rounds.round(50_000);
        // An application that did not use its window: such acknowledgements do not come here.
        rounds.at += 2_200_000_000;
        rounds.round(50_000);
        rounds.round(50_000);
        assert_eq!(rounds.round(90_000), Growth::Conservative);
        for _ in 0..4 {
            assert_eq!(rounds.round(95_000), Growth::Conservative);
        }
        assert_eq!(rounds.acks(95_000, 1), Growth::Leave);
    }

    #[test]
    fn fewer_than_eight_samples_say_nothing() {
        let mut rounds = Rounds::new();
        rounds.round(50_000);
        rounds.round(50_000);
        assert_eq!(rounds.acks(90_000, 7), Growth::Full);
        assert_eq!(rounds.acks(90_000, 1), Growth::Conservative);
    }
}
