//! The round-trip time without a queue, and ProbeRTT, which looks for it (draft §5.3.4); restarting
//! from idle (§5.4).

use super::{
    AckPhase, Bbr, MIN_RTT_FILTER_US, PROBE_RTT_DURATION_US, PROBE_RTT_INTERVAL_US, State, elapsed,
};
use crate::tcp::congestion::{AckSample, Congestion, RateSample};

/// A round trip that takes no more than this part longer than the shortest is as good.
const CONFIRMS: u32 = 32;

fn confirms(rtt_us: u32, least_us: u32) -> bool {
    rtt_us > 0 && rtt_us <= least_us.saturating_add(least_us / CONFIRMS)
}

/// After a longer pause a moment before it may look like one of a moment ago, for the clock goes
/// round.
const LONG_PAUSE_US: u32 = 1 << 31;

impl Bbr {
    /// Every moment that is remembered is so long ago that how long does not matter.
    fn forget_moments(&mut self, now_us: u32) {
        let long_ago = now_us.wrapping_sub(LONG_PAUSE_US);
        self.min_rtt_stamp = long_ago;
        self.probe_rtt_min_stamp = long_ago;
        self.cycle_stamp = long_ago;
        self.probe_rtt_done_stamp = self.probe_rtt_done_stamp.map(|_| long_ago);
        self.rival.paused();
        self.share.paused(long_ago);
    }

    pub(super) fn update_min_rtt(&mut self, sample: &AckSample) {
        let now = sample.now_us;
        self.probe_rtt_expired = elapsed(now, self.probe_rtt_min_stamp, PROBE_RTT_INTERVAL_US);
        let rtt = sample.rtt_us;
        if rtt > 0 && (rtt < self.probe_rtt_min_us || self.probe_rtt_expired) {
            self.probe_rtt_min_us = rtt;
            self.probe_rtt_min_stamp = now;
        } else if confirms(rtt, self.probe_rtt_min_us) {
            // No queue to speak of: what is known is still so, and need not be looked for.
            self.probe_rtt_min_stamp = now;
        }
        if confirms(rtt, self.min_rtt_us) {
            self.min_rtt_stamp = now;
        }
        let expired = elapsed(now, self.min_rtt_stamp, MIN_RTT_FILTER_US);
        if self.probe_rtt_min_us < self.min_rtt_us || expired {
            self.min_rtt_us = self.probe_rtt_min_us;
            self.min_rtt_stamp = self.probe_rtt_min_stamp;
        }
    }

    pub(super) fn check_probe_rtt(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        if self.state != State::ProbeRtt && self.probe_rtt_expired && !self.idle_restart {
            self.save_cwnd(congestion);
            self.state = State::ProbeRtt;
            self.probe_rtt_done_stamp = None;
            self.ack_phase = AckPhase::ProbeStopping;
            self.start_round(sample);
        }
        if self.state == State::ProbeRtt {
            self.handle_probe_rtt(congestion, sample);
        }
        if sample.delivered > 0 {
            self.idle_restart = false;
        }
    }

    pub(super) fn handle_probe_rtt(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        if self.probe_rtt_done_stamp.is_none() {
            if sample.in_flight <= self.probe_rtt_cwnd() {
                let done = sample.now_us.wrapping_add(PROBE_RTT_DURATION_US);
                self.probe_rtt_done_stamp = Some(done);
                self.probe_rtt_round_done = false;
                self.start_round(sample);
            }
            return;
        }
        if self.round_start {
            self.probe_rtt_round_done = true;
        }
        if self.probe_rtt_round_done {
            self.check_probe_rtt_done(congestion, sample);
        }
    }

    pub(super) fn check_probe_rtt_done(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        let Some(done) = self.probe_rtt_done_stamp else { return };
        // Counted from its beginning: a pause may be longer than half of the clock's turn.
        let begun = done.wrapping_sub(PROBE_RTT_DURATION_US);
        if !elapsed(sample.now_us, begun, PROBE_RTT_DURATION_US) {
            return;
        }
        self.probe_rtt_min_stamp = sample.now_us;
        congestion.window = congestion.window.max(self.prior_cwnd);
        self.reset_short_term_model();
        self.forget_rival();
        if self.full_bw_reached {
            self.start_probe_bw_down(sample);
            self.state = State::ProbeBwCruise;
        } else {
            self.state = State::Startup;
        }
    }

    /// HandleRestartFromIdle (draft §5.4.1).
    pub(in super::super) fn on_idle_restart(
        &mut self,
        congestion: &mut Congestion,
        now_us: u32,
        idle_us: u32,
    ) {
        if !self.begun {
            return;
        }
        self.idle_restart = true;
        if idle_us > LONG_PAUSE_US {
            self.forget_moments(now_us);
        }
        self.extra_acked_start = now_us;
        if self.in_probe_bw() {
            self.set_pacing_rate(100);
        } else if self.state == State::ProbeRtt {
            let delivered_total = self.next_round_delivered;
            let rate = RateSample { delivered_total, ..RateSample::default() };
            self.check_probe_rtt_done(
                congestion,
                &AckSample { now_us, rate, ..AckSample::default() },
            );
        }
    }
}
