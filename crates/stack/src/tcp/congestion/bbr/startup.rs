//! Startup and Drain (draft §5.3.1, §5.3.2): doubling until the pipe is full, then letting the queue
//! go.

use super::noise::Noise;
use super::{Bbr, FULL_BW_ROUNDS, STARTUP_LOSSES, State};
use crate::tcp::congestion::{AckSample, CaState};

impl Bbr {
    pub(super) fn reset_full_bw(&mut self) {
        self.full_bw = 0;
        self.full_bw_count = 0;
        self.full_bw_now = false;
    }

    pub(super) fn check_full_bw_reached(&mut self, sample: &AckSample, rate: u64) {
        let held = self.full_bw_held;
        self.full_bw_held = sample.peer_limited || (held && !self.round_start);
        if self.round_start {
            self.last_round_held = held;
        }
        if self.full_bw_now || sample.rate.app_limited {
            return;
        }
        // Any sample of a round may show growth: the first one alone, of a path that loses or
        // reorders, may well be a low one.
        if rate >= self.full_bw / 4 * 5 {
            self.reset_full_bw();
            self.full_bw = rate;
            return;
        }
        // A round in which the peer's window was full tells of the peer; unless there is a queue,
        // which tells of the path.
        if !self.round_start || (held && self.noise.quiet()) {
            return;
        }
        self.full_bw_count += 1;
        if self.full_bw_count >= FULL_BW_ROUNDS {
            self.full_bw_now = true;
            self.full_bw_reached = true;
        }
    }

    pub(super) fn check_startup_done(&mut self, sample: &AckSample) {
        self.check_startup_high_loss(sample);
        if self.state == State::Startup && self.full_bw_reached {
            self.state = State::Drain;
            self.drain_start_round = self.round_count;
        }
    }

    pub(super) fn check_startup_high_loss(&mut self, sample: &AckSample) {
        if self.full_bw_reached || self.rival.present() {
            return;
        }
        if sample.lost > 0 {
            self.loss_events_in_round = self.loss_events_in_round.saturating_add(1);
        }
        let enough = self.loss_events_in_round >= STARTUP_LOSSES || sample.no_sack;
        let (lost, in_flight) = (sample.rate.lost_since_send, sample.rate.in_flight_at_send);
        // Without a queue it takes more loss than a path may have by itself, and no loss is too much
        // where the peer's window was full: then little is in flight, and what is found lost is of a
        // flight that was many times as large.
        let too_high = if self.noise.quiet() && !sample.no_sack {
            let held = self.full_bw_held || self.last_round_held;
            !held && u64::from(lost) * 1024 > u64::from(in_flight) * u64::from(Noise::most())
        } else {
            self.is_inflight_too_high(lost, in_flight, sample.no_sack)
        };
        if self.loss_round_start && sample.state == CaState::Recovery && enough && too_high {
            self.undo.state = Some(State::Startup);
            self.full_bw_reached = true;
            self.rival.startup_overflowed(sample.rtt_us.saturating_sub(self.min_rtt_us));
            self.inflight_longterm = self.bdp(100).max(self.inflight_latest);
            return;
        }
        if self.loss_round_start {
            self.loss_events_in_round = 0;
        }
    }

    pub(super) fn check_drain_done(&mut self, sample: &AckSample) {
        if self.state == State::Drain
            && (sample.in_flight <= self.inflight(self.bw, 100)
                || self.round_count.wrapping_sub(self.drain_start_round) > 3)
        {
            self.start_probe_bw_down(sample);
            if !self.full_bw_now {
                // Losses ended Startup, and the rate still grew: it is not known yet.
                self.bw_probe_wait_us = 0;
            }
        }
    }
}
