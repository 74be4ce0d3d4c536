//! NewReno's window (RFC 5681 §3.1, RFC 6582), with appropriate byte counting (RFC 3465).

use super::{AckSample, Congestion};

/// Its own state.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NewReno {
    /// Bytes acknowledged since the last increase (RFC 3465 §2.1).
    acknowledged: u32,
}

impl NewReno {
    pub(crate) const EMPTY: NewReno = NewReno { acknowledged: 0 };

    /// An acknowledgement counts for all that it covers (RFC 3465 §2.2 would stop at two
    /// segments): pacing keeps it from becoming a burst, and receivers that join segments
    /// acknowledge many at once.
    #[inline]
    pub(super) fn on_ack(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        if !sample.may_grow(congestion) {
            return;
        }
        let mut acked = sample.delivered;
        if congestion.in_slow_start() {
            acked = congestion.slow_start(acked);
            if acked == 0 {
                return;
            }
        }
        congestion.increase(&mut self.acknowledged, acked, congestion.window, sample.mss);
    }

    /// Half of the window, as Linux has it, and not of what is in flight (RFC 5681 §3.1 equation
    /// 4): a window that was not used did not grow.
    pub(super) fn on_congestion(&mut self, congestion: &mut Congestion, mss: u32) {
        congestion.threshold = (congestion.window / 2 / mss * mss).max(2 * mss);
        self.acknowledged = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AckSample, Algorithm, Congestion, Private, Signal};

    fn acked(bytes: u32) -> AckSample {
        AckSample {
            acked: bytes,
            delivered: bytes,
            mss: 1000,
            window_limited: true,
            ..AckSample::default()
        }
    }

    fn new() -> (Congestion, Private) {
        (Congestion::new(1000, 10), Private::new(Algorithm::NewReno))
    }

    #[test]
    fn slow_start_doubles_and_avoidance_adds_a_segment() {
        let (mut state, mut private) = new();
        state.on_ack(&mut private, &acked(10_000));
        assert_eq!(state.window, 20_000);
        state.on_congestion(&mut private, 20_000, 1000, 0, Signal::Loss);
        state.window = state.threshold;
        assert_eq!(state.window, 10_000);
        state.on_ack(&mut private, &acked(9_999));
        assert_eq!(state.window, 10_000);
        state.on_ack(&mut private, &acked(1));
        assert_eq!(state.window, 11_000);
    }

    #[test]
    fn what_slow_start_leaves_over_counts_for_avoidance() {
        let (mut state, mut private) = new();
        state.threshold = 12_000;
        state.on_ack(&mut private, &acked(10_000));
        assert_eq!(state.window, 12_000);
        state.on_ack(&mut private, &acked(4_000));
        assert_eq!(state.window, 13_000);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let (mut state, mut private) = new();
        state.on_ack(&mut private, &AckSample { window_limited: false, ..acked(5_000) });
        assert_eq!(state.window, 10_000);
    }

    #[test]
    fn half_of_it_in_use_is_enough_while_it_doubles() {
        let (mut state, mut private) = new();
        let half = AckSample { window_limited: false, prior_in_flight: 5_001, ..acked(5_000) };
        state.on_ack(&mut private, &half);
        assert_eq!(state.window, 15_000);
        state.threshold = 15_000;
        state.on_ack(&mut private, &AckSample { prior_in_flight: 14_000, ..half });
        assert_eq!(state.window, 15_000);
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_halves_once() {
        let (mut state, mut private) = new();
        state.on_timeout(&mut private, 0, 1000, 0, true);
        assert_eq!((state.window, state.threshold), (1_000, 5_000));
        state.on_timeout(&mut private, 0, 1000, 0, false);
        assert_eq!(state.threshold, 5_000);
    }
}
