//! ProbeBW (draft §5.3.3): down, cruise, refill, up, and what the probing taught about how much may
//! be in flight in the long term.

use super::{AckPhase, Bbr, HEADROOM, MOST_RENO_ROUNDS, NO_VOLUME, State, elapsed, percent};
use crate::tcp::congestion::{AckSample, Congestion};

/// A flow that may not have in flight what the path was seen to hold, though there is no queue,
/// probes after so many round trips: an outage, or what Startup lost, bounds it and no other flow.
const HELD_DOWN_ROUNDS: u32 = 8;

impl Bbr {
    pub(super) fn start_probe_bw_down(&mut self, sample: &AckSample) {
        self.reset_congestion_signals();
        self.probe_up_acked_per_inc = NO_VOLUME;
        // PickProbeWait. What has passed so far is as good a source of chance as any, and the
        // same input gives the same output.
        let chance =
            (sample.now_us ^ sample.rate.delivered_total.rotate_left(16)).wrapping_mul(0x9e37_79b1);
        self.rounds_since_probe_up = chance >> 31;
        self.bw_probe_wait_us = 2_000_000 + (chance >> 8 & 0xf_ffff).min(1_000_000);
        self.cycle_stamp = sample.now_us;
        self.ack_phase = AckPhase::ProbeStopping;
        self.start_round(sample);
        self.state = State::ProbeBwDown;
    }

    pub(super) fn start_probe_bw_refill(&mut self, delivered_total: u32) {
        self.reset_short_term_model();
        self.bw_probe_up_rounds = 0;
        self.bw_probe_up_acked = 0;
        self.prev_probe_precautionary = false;
        self.ack_phase = AckPhase::Refilling;
        self.next_round_delivered = delivered_total;
        self.state = State::ProbeBwRefill;
    }

    pub(super) fn start_probe_bw_up(
        &mut self,
        congestion: &Congestion,
        sample: &AckSample,
        rate: u64,
    ) {
        self.ack_phase = AckPhase::ProbeStarting;
        self.start_round(sample);
        self.reset_full_bw();
        self.full_bw = rate;
        self.state = State::ProbeBwUp;
        self.raise_inflight_longterm_slope(congestion);
    }

    pub(super) fn update_probe_bw_cycle_phase(
        &mut self,
        congestion: &Congestion,
        sample: &AckSample,
        rate: u64,
    ) {
        if self.rival.present() {
            return self.update_rival_cycle_phase(sample);
        }
        if !self.full_bw_reached || self.adapt_long_term_model(congestion, sample) {
            return;
        }
        match self.state {
            State::ProbeBwDown | State::ProbeBwCruise => {
                let probes = self.is_time_to_probe_bw(congestion, sample);
                if !probes && self.is_time_to_cruise(sample) {
                    self.state = State::ProbeBwCruise;
                }
            }
            State::ProbeBwRefill if self.round_start => {
                self.is_bw_probe_sample = true;
                self.start_probe_bw_up(congestion, sample, rate);
            }
            State::ProbeBwUp => {
                let down = self.is_time_to_go_down(congestion, sample, rate);
                if down {
                    self.prev_probe_too_high = false;
                    self.start_probe_bw_down(sample);
                }
            }
            _ => {}
        }
    }

    pub(super) fn is_time_to_cruise(&self, sample: &AckSample) -> bool {
        let in_flight = self.noise.arriving(sample.in_flight);
        in_flight <= self.inflight_with_headroom() && in_flight <= self.inflight(self.max_bw(), 100)
    }

    pub(super) fn is_time_to_go_down(
        &mut self,
        congestion: &Congestion,
        sample: &AckSample,
        rate: u64,
    ) -> bool {
        if self.prev_probe_too_high && sample.in_flight >= self.inflight_longterm {
            self.prev_probe_precautionary = true;
            return true;
        }
        if sample.window_limited && congestion.window >= self.inflight_longterm {
            // The limit on what is in flight limits the rate.
            self.reset_full_bw();
            self.full_bw = rate;
            return false;
        }
        self.full_bw_now
    }

    /// Starts to refill the pipe if it is time. Returns whether it did.
    pub(super) fn is_time_to_probe_bw(
        &mut self,
        congestion: &Congestion,
        sample: &AckSample,
    ) -> bool {
        let reno_rounds = (self.target_inflight(congestion) / self.mss).min(MOST_RENO_ROUNDS);
        let held_down = self.noise.quiet()
            && self.inflight_longterm < self.bdp_of(self.max_bw(), 100)
            && self.rounds_since_probe_up >= HELD_DOWN_ROUNDS;
        if elapsed(sample.now_us, self.cycle_stamp, self.bw_probe_wait_us)
            || self.rounds_since_probe_up >= reno_rounds
            || held_down
        {
            self.start_probe_bw_refill(sample.rate.delivered_total);
            return true;
        }
        false
    }

    pub(super) fn inflight_with_headroom(&self) -> u32 {
        if self.inflight_longterm == NO_VOLUME {
            return NO_VOLUME;
        }
        let headroom = percent(self.inflight_longterm, HEADROOM).max(self.mss);
        self.inflight_longterm.saturating_sub(headroom).max(self.min_pipe())
    }

    /// Headroom is for flows that come; while there is no queue, the path itself has room for them,
    /// and what it holds without one may be in flight.
    pub(super) fn inflight_to_cruise(&self) -> u32 {
        let headroom = self.inflight_with_headroom();
        if !self.noise.quiet() {
            return headroom;
        }
        headroom.max(self.inflight(self.bw, 100)).min(self.inflight_longterm)
    }

    pub(super) fn raise_inflight_longterm_slope(&mut self, congestion: &Congestion) {
        let growth = 1u32 << self.bw_probe_up_rounds;
        self.bw_probe_up_rounds = (self.bw_probe_up_rounds + 1).min(30);
        self.probe_up_acked_per_inc = (congestion.window / growth).max(self.mss);
    }

    pub(super) fn probe_inflight_longterm_upward(
        &mut self,
        congestion: &Congestion,
        sample: &AckSample,
    ) {
        if !sample.window_limited || congestion.window < self.inflight_longterm {
            return;
        }
        self.bw_probe_up_acked = self.bw_probe_up_acked.saturating_add(sample.delivered);
        if self.bw_probe_up_acked >= self.probe_up_acked_per_inc {
            let segments = self.bw_probe_up_acked / self.probe_up_acked_per_inc;
            self.bw_probe_up_acked -= segments * self.probe_up_acked_per_inc;
            self.inflight_longterm =
                self.inflight_longterm.saturating_add(segments.saturating_mul(self.mss));
        }
        if self.round_start {
            self.raise_inflight_longterm_slope(congestion);
        }
    }

    /// Returns whether it decided on another state.
    pub(super) fn adapt_long_term_model(
        &mut self,
        congestion: &Congestion,
        sample: &AckSample,
    ) -> bool {
        if self.ack_phase == AckPhase::ProbeStarting && self.round_start {
            self.ack_phase = AckPhase::ProbeFeedback;
        }
        if self.ack_phase == AckPhase::ProbeStopping && self.round_start {
            self.is_bw_probe_sample = false;
            self.ack_phase = AckPhase::Init;
            if self.in_probe_bw() {
                // AdvanceMaxBwFilter; a cycle without a sample leaves what is known.
                if !sample.rate.app_limited && self.max_bw_filter[1] > 0 {
                    self.max_bw_filter = [self.max_bw_filter[1], 0];
                }
                if self.prev_probe_precautionary && !self.prev_probe_too_high {
                    self.start_probe_bw_refill(sample.rate.delivered_total);
                    return true;
                }
            }
        }
        let rate = &sample.rate;
        if !self.is_inflight_too_high(rate.lost_since_send, rate.in_flight_at_send, sample.no_sack)
        {
            if self.inflight_longterm == NO_VOLUME {
                return false;
            }
            self.inflight_longterm = self.inflight_longterm.max(rate.in_flight_at_send);
            if self.state == State::ProbeBwUp {
                self.probe_inflight_longterm_upward(congestion, sample);
            }
        }
        false
    }
}
