//! NewReno's window (RFC 5681 §3.1, with appropriate byte counting as in RFC 3465).

use super::Congestion;

pub(super) fn on_ack(state: &mut Congestion, acked: u32, mss: u32) {
    if state.in_slow_start() {
        // At most two segments for one acknowledgement (RFC 3465 §2.2, L = 2), but an
        // acknowledgement for a super-segment stands for as many as it covers.
        state.window = state.window.saturating_add(acked).min(1 << 30);
        return;
    }
    state.private = state.private.saturating_add(acked);
    if state.private >= state.window {
        state.private -= state.window;
        state.window = state.window.saturating_add(mss).min(1 << 30);
    }
}

pub(super) fn on_loss(state: &mut Congestion, flight: u32, mss: u32) {
    state.threshold = (flight / 2).max(2 * mss);
    state.private = 0;
}

#[cfg(test)]
mod tests {
    use super::super::{Algorithm, Congestion};

    #[test]
    fn slow_start_doubles_and_avoidance_adds_a_segment() {
        let mut state = Congestion::new(Algorithm::NewReno, 1000, 10);
        state.on_ack(10_000, 1000, true);
        assert_eq!(state.window, 20_000);
        state.on_loss(20_000, 1000);
        state.window = state.threshold;
        assert_eq!(state.window, 10_000);
        state.on_ack(9_999, 1000, true);
        assert_eq!(state.window, 10_000);
        state.on_ack(1, 1000, true);
        assert_eq!(state.window, 11_000);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut state = Congestion::new(Algorithm::NewReno, 1000, 10);
        state.on_ack(5_000, 1000, false);
        assert_eq!(state.window, 10_000);
    }

    #[test]
    fn a_timeout_leaves_one_segment_and_halves_once() {
        let mut state = Congestion::new(Algorithm::NewReno, 1000, 10);
        state.on_timeout(10_000, 1000, true);
        assert_eq!((state.window, state.threshold), (1_000, 5_000));
        state.on_timeout(1_000, 1000, false);
        assert_eq!(state.threshold, 5_000);
    }
}
