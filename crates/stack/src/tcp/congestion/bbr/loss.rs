//! What losses and marks do to the model (draft §5.5.10, §5.5.11): the short-term bounds, the
//! long-term bound of a probe that went too high, and taking back what a spurious loss did.

use super::rival::Round;
use super::{
    AckPhase, BETA, Bbr, LOSS_THRESHOLD, NO_RATE, NO_VOLUME, State, Undo, percent, reached,
};
use crate::tcp::congestion::{AckSample, CaState, Congestion, LostSegment, RateSample, Signal};

/// The short-term bounds rise by one part in so many.
const RAISE: u64 = 8;

impl Bbr {
    pub(super) fn update_latest_delivery_signals(&mut self, sample: &AckSample, rate: u64) {
        self.loss_round_start = false;
        if rate == 0 {
            return;
        }
        self.bw_latest = self.bw_latest.max(rate);
        self.inflight_latest = self.inflight_latest.max(sample.rate.delivered);
        if reached(sample.rate.prior_delivered, self.loss_round_delivered) {
            self.loss_round_delivered = sample.rate.delivered_total;
            self.loss_round_start = true;
        }
    }

    pub(super) fn update_congestion_signals(
        &mut self,
        congestion: &Congestion,
        sample: &AckSample,
        rate: u64,
    ) {
        self.round_start = false;
        if rate > 0 {
            if reached(sample.rate.prior_delivered, self.next_round_delivered) {
                self.start_round(sample);
                self.round_count = self.round_count.wrapping_add(1);
                self.rounds_since_probe_up = self.rounds_since_probe_up.saturating_add(1);
                self.round_start = true;
                if let Some(told) = self.share.round(sample) {
                    self.share_told(sample, &told);
                }
            }
            if rate >= self.max_bw() || !sample.rate.app_limited {
                if !self.share.trial_is_acknowledged() {
                    self.rival.sample(rate, self.round_count);
                }
                self.max_bw_filter[1] = self.max_bw_filter[1].max(rate);
            }
        }
        if !self.loss_round_start {
            return;
        }
        let probes = self.is_probing_bw();
        let holds = !probes && self.ack_phase == AckPhase::Init && self.state != State::ProbeRtt;
        let lost = self.noise.lost_share(sample);
        self.noise.round(sample, self.min_rtt_us, holds || self.state == State::Startup);
        let quiet = self.noise.quiet();
        // Where there is a queue, what the path loses by itself is no reason either.
        let usual = if quiet { LOSS_THRESHOLD } else { 0 };
        let too_much = lost > usual + self.noise.allowance();
        // No path marks by itself.
        let unexplained = self.is_mark_in_round || (self.is_loss_in_round && too_much);
        let excess = if quiet { 0 } else { lost.saturating_sub(self.noise.allowance()) };
        let round = Round {
            now_us: sample.now_us,
            held_back: holds,
            lost: excess,
            queue_us: self.noise.mean_us().saturating_sub(self.min_rtt_us),
            min_rtt_us: self.min_rtt_us,
            segments: sample.prior_in_flight / self.mss,
        };
        if self.rival.present() {
            self.rival_round(sample, lost, quiet);
        } else if self.rival.round(&round) && self.state != State::ProbeRtt {
            self.meet_rival(sample);
        } else if unexplained && !probes {
            self.lower_bounds(congestion);
        } else if quiet {
            self.raise_bounds();
        }
        self.is_loss_in_round = false;
        self.is_mark_in_round = false;
    }

    /// Share of loss that means too much in flight, 1024ths.
    pub(super) fn loss_threshold(&self) -> u32 {
        LOSS_THRESHOLD + self.noise.allowance()
    }

    /// IsInflightTooHigh.
    pub(super) fn is_inflight_too_high(&self, lost: u32, in_flight: u32, no_sack: bool) -> bool {
        u64::from(lost) * 1024 > u64::from(in_flight) * u64::from(self.loss_threshold())
            || (lost > 0 && no_sack)
    }

    pub(super) fn is_probing_bw(&self) -> bool {
        matches!(self.state, State::Startup | State::ProbeBwRefill | State::ProbeBwUp)
    }

    /// Once a round trip with loss: down toward what was delivered in it.
    pub(super) fn lower_bounds(&mut self, congestion: &Congestion) {
        if self.bw_shortterm == NO_RATE {
            self.bw_shortterm = self.max_bw();
        }
        if self.inflight_shortterm == NO_VOLUME {
            self.inflight_shortterm = congestion.window;
        }
        // What this flow held down by itself, to let a queue go, is not what the path delivers.
        let held = self.pacing_gain().min(100);
        let (bw, in_flight) = (self.bw_latest * 100 / held, self.inflight_latest);
        let in_flight = (u64::from(in_flight) * 100 / held).min(u64::from(NO_VOLUME)) as u32;
        self.bw_shortterm = bw.max(self.bw_shortterm / 100 * BETA);
        self.inflight_shortterm = in_flight.max(percent(self.inflight_shortterm, BETA));
    }

    /// Once a round trip without a queue, in which nothing was lost that the path does not always
    /// lose: there is room. The draft keeps the bounds until the next probe, seconds later, also
    /// those that stem from what one round of Startup lost.
    fn raise_bounds(&mut self) {
        if self.bw_shortterm != NO_RATE {
            self.bw_shortterm += self.bw_shortterm / RAISE;
            self.inflight_shortterm =
                self.inflight_shortterm.saturating_add(self.inflight_shortterm / RAISE as u32);
            if self.bw_shortterm >= self.max_bw() {
                self.reset_short_term_model();
            }
        }
    }

    pub(super) fn start_round(&mut self, sample: &AckSample) {
        self.next_round_delivered = sample.rate.delivered_total;
    }

    pub(super) fn reset_congestion_signals(&mut self) {
        self.is_loss_in_round = false;
        self.is_mark_in_round = false;
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }

    pub(super) fn reset_short_term_model(&mut self) {
        self.bw_shortterm = NO_RATE;
        self.inflight_shortterm = NO_VOLUME;
    }

    pub(super) fn bound_bw_for_model(&mut self) {
        self.bw = self.max_bw().min(self.bw_shortterm);
    }

    /// HandleLostPacket: called for each segment that is marked lost, before the acknowledgement
    /// that told of it.
    pub(in super::super) fn on_segment_lost(
        &mut self,
        congestion: &Congestion,
        lost: &LostSegment,
    ) {
        if !self.begun {
            return;
        }
        if !self.is_loss_in_round {
            self.loss_round_delivered = lost.delivered_total;
            self.save_state_upon_loss(congestion);
        }
        self.is_loss_in_round = true;
        if !self.is_bw_probe_sample || self.rival.present() {
            return;
        }
        if !self.is_inflight_too_high(lost.lost_since_send, lost.in_flight_at_send, lost.no_sack) {
            return;
        }
        // InflightAtLoss: how much of a burst fitted before losses went over the threshold.
        let before = u64::from(lost.in_flight_at_send.saturating_sub(lost.len));
        let lost_before = u64::from(lost.lost_since_send.saturating_sub(lost.len));
        let threshold = u64::from(self.loss_threshold());
        let prefix = (threshold * before).saturating_sub(1024 * lost_before) / (1024 - threshold);
        let in_flight = (before + prefix).min(u64::from(NO_VOLUME)) as u32;
        self.handle_inflight_too_high(congestion, in_flight, lost);
    }

    pub(super) fn handle_inflight_too_high(
        &mut self,
        congestion: &Congestion,
        in_flight: u32,
        lost: &LostSegment,
    ) {
        self.prev_probe_too_high = true;
        self.is_bw_probe_sample = false;
        if !lost.app_limited {
            self.inflight_longterm = in_flight.max(percent(self.target_inflight(congestion), BETA));
        }
        if self.state == State::ProbeBwUp {
            self.undo.state = Some(State::ProbeBwUp);
            let sample = AckSample {
                now_us: lost.now_us,
                rate: RateSample { delivered_total: lost.delivered_total, ..RateSample::default() },
                ..AckSample::default()
            };
            self.start_probe_bw_down(&sample);
        }
    }

    pub(super) fn save_state_upon_loss(&mut self, congestion: &Congestion) {
        self.save_cwnd(congestion);
        self.undo = Undo {
            state: None,
            bw_shortterm: self.bw_shortterm,
            inflight_shortterm: self.inflight_shortterm,
            inflight_longterm: self.inflight_longterm,
        };
    }

    /// The draft leaves the answer to a mark open, but that it must be one of congestion (§3.6):
    /// it counts as a lost segment of a round that lost too many.
    pub(super) fn congestion_experienced(&mut self, congestion: &Congestion, sample: &AckSample) {
        self.is_loss_in_round = true;
        self.is_mark_in_round = true;
        if self.state == State::Startup {
            self.full_bw_reached = true;
            self.inflight_longterm = self.bdp(100).max(self.inflight_latest);
        } else if self.is_bw_probe_sample {
            let rate = &sample.rate;
            let lost = LostSegment {
                now_us: sample.now_us,
                delivered_total: rate.delivered_total,
                app_limited: rate.app_limited,
                ..LostSegment::default()
            };
            self.handle_inflight_too_high(congestion, rate.in_flight_at_send, &lost);
        }
    }

    /// Fast recovery begins, or the retransmission timer ran out.
    pub(in super::super) fn on_congestion(&mut self, congestion: &Congestion, signal: Signal) {
        self.save_state_upon_loss(congestion);
        match signal {
            Signal::Loss => self.ca = CaState::Recovery,
            Signal::Timeout => self.ca = CaState::Loss,
            Signal::Ecn => self.marked = true,
        }
    }

    /// RestoreCwnd.
    pub(in super::super) fn on_recovery_done(&mut self, congestion: &mut Congestion) {
        self.ca = CaState::Open;
        congestion.window = congestion.window.max(self.prior_cwnd);
    }

    /// HandleSpuriousLossDetection.
    pub(in super::super) fn on_undo(&mut self, congestion: &mut Congestion) {
        self.on_recovery_done(congestion);
        self.is_loss_in_round = false;
        self.reset_full_bw();
        let undo = self.undo;
        self.bw_shortterm = self.bw_shortterm.max(undo.bw_shortterm);
        self.inflight_shortterm = self.inflight_shortterm.max(undo.inflight_shortterm);
        self.inflight_longterm = self.inflight_longterm.max(undo.inflight_longterm);
        match undo.state {
            Some(State::Startup) if self.state != State::Startup => {
                self.full_bw_reached = false;
                if self.state != State::ProbeRtt {
                    self.state = State::Startup;
                }
            }
            Some(State::ProbeBwUp) if !matches!(self.state, State::ProbeBwUp | State::ProbeRtt) => {
                self.start_probe_bw_refill(self.next_round_delivered);
            }
            _ => {}
        }
        self.undo.state = None;
    }

    pub(super) fn save_cwnd(&mut self, congestion: &Congestion) {
        self.prior_cwnd = self.usual_window(congestion.window);
    }

    /// The window before it became small for a while, by a loss or to look for the shortest round
    /// trip.
    pub(in super::super) fn usual_window(&self, window: u32) -> u32 {
        let recovering = matches!(self.ca, CaState::Recovery | CaState::Loss);
        if recovering || self.state == State::ProbeRtt {
            self.prior_cwnd.max(window)
        } else {
            window
        }
    }
}
