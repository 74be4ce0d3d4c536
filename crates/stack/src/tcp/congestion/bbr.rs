//! BBR, version 3 (draft-ietf-ccwg-bbr-06): a model of the path (what it delivers, how long a round
//! trip takes, how much may be in flight before it loses) sets the pacing rate and the window.
//!
//! Names, constants and the order of steps are the draft's. Sums are bytes modulo 2^32, times are
//! microseconds modulo 2^32; both are only ever compared with ones of the same hour.

use super::windowed_max::WindowedMax;
use super::{AckSample, CaState, Congestion, LostSegment, RateSample, Signal};

/// Infinity of a rate and of a volume.
const NO_RATE: u64 = u64::MAX;
const NO_VOLUME: u32 = u32::MAX;

/// Gains are percent (draft §2.4, §2.5).
const STARTUP_PACING_GAIN: u64 = 277;
const PACING_MARGIN_PERCENT: u64 = 1;
const DEFAULT_CWND_GAIN: u64 = 200;
const PROBE_UP_CWND_GAIN: u64 = 225;
const PROBE_RTT_CWND_GAIN: u64 = 50;
/// LossThresh: the share of loss that is put up with while probing, percent.
const LOSS_THRESHOLD: u64 = 2;
/// Beta, percent.
const BETA: u64 = 70;
/// Headroom, percent.
const HEADROOM: u64 = 15;
/// MinPipeCwnd, segments.
const MIN_PIPE_SEGMENTS: u32 = 4;
/// Rounds without growth after which the pipe is full.
const FULL_BW_ROUNDS: u8 = 3;
/// BBRStartupFullLossCnt: lost ranges in a round trip that end Startup.
const STARTUP_LOSSES: u8 = 6;
const EXTRA_ACKED_ROUNDS: u32 = 10;
const MIN_RTT_FILTER_US: u32 = 10_000_000;
const PROBE_RTT_INTERVAL_US: u32 = 5_000_000;
const PROBE_RTT_DURATION_US: u32 = 200_000;
/// Most rounds between two probes, so that Reno flows get their share.
const MOST_RENO_ROUNDS: u32 = 63;

/// States of the draft's §5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Startup,
    Drain,
    ProbeBwDown,
    ProbeBwCruise,
    ProbeBwRefill,
    ProbeBwUp,
    ProbeRtt,
}

/// What acknowledgements mean with respect to the last probe for bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AckPhase {
    Init,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

/// What stood before a loss that may turn out to be none.
#[derive(Clone, Copy, Debug)]
struct Undo {
    state: Option<State>,
    bw_shortterm: u64,
    inflight_shortterm: u32,
    inflight_longterm: u32,
}

/// Its own state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bbr {
    state: State,
    ca: CaState,
    /// The first acknowledgement has come.
    begun: bool,
    mss: u32,
    initial_window: u32,

    pacing_rate: u64,
    send_quantum: u32,

    // The model: rates.
    bw: u64,
    /// The best of the previous and of this probing cycle.
    max_bw_filter: [u64; 2],
    bw_shortterm: u64,
    bw_latest: u64,
    // The model: volumes.
    inflight_shortterm: u32,
    inflight_longterm: u32,
    inflight_latest: u32,

    // Round trips.
    round_count: u32,
    round_start: bool,
    next_round_delivered: u32,
    loss_round_delivered: u32,
    loss_round_start: bool,
    is_loss_in_round: bool,
    loss_events_in_round: u8,
    /// A Congestion Experienced mark that no acknowledgement has been seen with yet.
    marked: bool,

    // Is the pipe full?
    full_bw_reached: bool,
    full_bw_now: bool,
    full_bw_count: u8,
    full_bw: u64,
    drain_start_round: u32,

    // Probing for bandwidth.
    ack_phase: AckPhase,
    is_bw_probe_sample: bool,
    prev_probe_too_high: bool,
    prev_probe_precautionary: bool,
    bw_probe_up_rounds: u8,
    bw_probe_up_acked: u32,
    probe_up_acked_per_inc: u32,
    rounds_since_probe_up: u32,
    bw_probe_wait_us: u32,
    cycle_stamp: u32,

    // Round-trip time.
    min_rtt_us: u32,
    min_rtt_stamp: u32,
    probe_rtt_min_us: u32,
    probe_rtt_min_stamp: u32,
    probe_rtt_expired: bool,
    probe_rtt_done_stamp: Option<u32>,
    probe_rtt_round_done: bool,
    idle_restart: bool,

    // Aggregation.
    extra_acked: WindowedMax,
    extra_acked_start: u32,
    extra_acked_delivered: u32,

    prior_cwnd: u32,
    undo: Undo,
}

impl Default for Bbr {
    fn default() -> Self {
        Bbr {
            state: State::Startup,
            ca: CaState::Open,
            begun: false,
            mss: 0,
            initial_window: 0,
            pacing_rate: 0,
            send_quantum: 0,
            bw: 0,
            max_bw_filter: [0; 2],
            bw_shortterm: NO_RATE,
            bw_latest: 0,
            inflight_shortterm: NO_VOLUME,
            inflight_longterm: NO_VOLUME,
            inflight_latest: 0,
            round_count: 0,
            round_start: false,
            next_round_delivered: 0,
            loss_round_delivered: 0,
            loss_round_start: false,
            is_loss_in_round: false,
            loss_events_in_round: 0,
            marked: false,
            full_bw_reached: false,
            full_bw_now: false,
            full_bw_count: 0,
            full_bw: 0,
            drain_start_round: 0,
            ack_phase: AckPhase::Init,
            is_bw_probe_sample: false,
            prev_probe_too_high: false,
            prev_probe_precautionary: false,
            bw_probe_up_rounds: 0,
            bw_probe_up_acked: 0,
            probe_up_acked_per_inc: NO_VOLUME,
            rounds_since_probe_up: 0,
            bw_probe_wait_us: 0,
            cycle_stamp: 0,
            min_rtt_us: NO_VOLUME,
            min_rtt_stamp: 0,
            probe_rtt_min_us: NO_VOLUME,
            probe_rtt_min_stamp: 0,
            probe_rtt_expired: false,
            probe_rtt_done_stamp: None,
            probe_rtt_round_done: false,
            idle_restart: false,
            extra_acked: WindowedMax::default(),
            extra_acked_start: 0,
            extra_acked_delivered: 0,
            prior_cwnd: 0,
            undo: Undo {
                state: None,
                bw_shortterm: 0,
                inflight_shortterm: 0,
                inflight_longterm: 0,
            },
        }
    }
}

/// Whether `now` is later than `interval` after `stamp`.
fn elapsed(now_us: u32, stamp: u32, interval_us: u32) -> bool {
    now_us.wrapping_sub(stamp) > interval_us
}

/// Whether one total of bytes is not before another.
fn reached(total: u32, mark: u32) -> bool {
    total.wrapping_sub(mark) as i32 >= 0
}

fn percent(value: u32, of: u64) -> u32 {
    (u64::from(value) * of / 100).min(u64::from(NO_VOLUME)) as u32
}

impl Bbr {
    pub(super) fn is_plain(&self) -> bool {
        !self.begun
    }

    /// `None` before the first acknowledgement.
    #[inline]
    pub(super) fn pacing_rate(&self) -> Option<u64> {
        (self.pacing_rate > 0).then_some(self.pacing_rate)
    }

    /// Largest burst that the algorithm wants to leave at once, bytes.
    #[inline]
    pub(super) fn send_quantum(&self) -> Option<u32> {
        (self.send_quantum > 0).then_some(self.send_quantum)
    }

    /// It sends less than the path takes, on purpose: samples of it are to be marked as limited
    /// by the application.
    #[inline]
    pub(super) fn holds_back(&self) -> bool {
        self.state == State::ProbeRtt
    }

    /// UpdateOnACK (draft §5.2.3).
    pub(super) fn on_ack(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        if !self.begun {
            self.begin(congestion, sample);
        }
        self.ca = sample.state;
        self.mss = sample.mss;
        let rate = self.delivery_rate(sample);
        if core::mem::take(&mut self.marked) {
            self.congestion_experienced(congestion, sample);
        }
        // Model and state.
        self.update_latest_delivery_signals(sample, rate);
        self.update_congestion_signals(congestion, sample, rate);
        self.update_ack_aggregation(congestion, sample);
        self.check_full_bw_reached(sample, rate);
        self.check_startup_done(sample);
        self.check_drain_done(sample);
        self.update_probe_bw_cycle_phase(congestion, sample, rate);
        self.update_min_rtt(sample);
        self.check_probe_rtt(congestion, sample);
        if self.loss_round_start {
            self.bw_latest = rate;
            self.inflight_latest = sample.rate.delivered;
        }
        self.bound_bw_for_model();
        // Control parameters.
        self.set_pacing_rate(self.pacing_gain());
        self.send_quantum = self
            .pacing_rate
            .checked_div(1000)
            .map_or(0, |quantum| (quantum.min(65_536) as u32).max(2 * self.mss));
        self.set_cwnd(congestion, sample);
    }

    fn begin(&mut self, congestion: &Congestion, sample: &AckSample) {
        self.begun = true;
        self.mss = sample.mss;
        self.initial_window = congestion.window;
        let now = sample.now_us;
        (self.min_rtt_stamp, self.probe_rtt_min_stamp) = (now, now);
        (self.cycle_stamp, self.extra_acked_start) = (now, now);
        if sample.min_rtt_us > 0 {
            self.min_rtt_us = sample.min_rtt_us;
            self.probe_rtt_min_us = sample.min_rtt_us;
        }
        let start = sample.rate.delivered_total.wrapping_sub(sample.delivered);
        (self.next_round_delivered, self.loss_round_delivered) = (start, start);
        let smoothed = if sample.smoothed_us > 0 { sample.smoothed_us } else { 1000 };
        self.pacing_rate =
            u64::from(congestion.window) * STARTUP_PACING_GAIN * 10_000 / u64::from(smoothed);
    }

    fn delivery_rate(&self, sample: &AckSample) -> u64 {
        match sample.rate.interval_us {
            0 => 0,
            interval => u64::from(sample.rate.delivered) * 1_000_000 / u64::from(interval),
        }
    }

    fn pacing_gain(&self) -> u64 {
        match self.state {
            State::Startup => STARTUP_PACING_GAIN,
            State::Drain => 50,
            State::ProbeBwDown => 90,
            State::ProbeBwUp => 125,
            State::ProbeBwCruise | State::ProbeBwRefill | State::ProbeRtt => 100,
        }
    }

    fn cwnd_gain(&self) -> u64 {
        match self.state {
            State::ProbeBwUp => PROBE_UP_CWND_GAIN,
            State::ProbeRtt => PROBE_RTT_CWND_GAIN,
            _ => DEFAULT_CWND_GAIN,
        }
    }

    fn in_probe_bw(&self) -> bool {
        use State::{ProbeBwCruise, ProbeBwDown, ProbeBwRefill, ProbeBwUp};
        matches!(self.state, ProbeBwDown | ProbeBwCruise | ProbeBwRefill | ProbeBwUp)
    }

    fn max_bw(&self) -> u64 {
        self.max_bw_filter[0].max(self.max_bw_filter[1])
    }

    // Rounds and congestion signals (draft §5.5.1, §5.5.10).

    fn update_latest_delivery_signals(&mut self, sample: &AckSample, rate: u64) {
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

    fn update_congestion_signals(
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
            }
            if rate >= self.max_bw() || !sample.rate.app_limited {
                self.max_bw_filter[1] = self.max_bw_filter[1].max(rate);
            }
        }
        if !self.loss_round_start {
            return;
        }
        if self.is_loss_in_round && !self.is_probing_bw() {
            self.lower_bounds(congestion);
        }
        self.is_loss_in_round = false;
    }

    fn is_probing_bw(&self) -> bool {
        matches!(self.state, State::Startup | State::ProbeBwRefill | State::ProbeBwUp)
    }

    /// Once a round trip with loss: down toward what was delivered in it.
    fn lower_bounds(&mut self, congestion: &Congestion) {
        if self.bw_shortterm == NO_RATE {
            self.bw_shortterm = self.max_bw();
        }
        if self.inflight_shortterm == NO_VOLUME {
            self.inflight_shortterm = congestion.window;
        }
        self.bw_shortterm = self.bw_latest.max(self.bw_shortterm / 100 * BETA);
        self.inflight_shortterm = self.inflight_latest.max(percent(self.inflight_shortterm, BETA));
    }

    fn start_round(&mut self, sample: &AckSample) {
        self.next_round_delivered = sample.rate.delivered_total;
    }

    fn reset_congestion_signals(&mut self) {
        self.is_loss_in_round = false;
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }

    fn reset_short_term_model(&mut self) {
        self.bw_shortterm = NO_RATE;
        self.inflight_shortterm = NO_VOLUME;
    }

    fn bound_bw_for_model(&mut self) {
        self.bw = self.max_bw().min(self.bw_shortterm);
    }

    /// Draft §5.5.9.
    fn update_ack_aggregation(&mut self, congestion: &Congestion, sample: &AckSample) {
        let interval = u64::from(sample.now_us.wrapping_sub(self.extra_acked_start));
        let mut expected = u128::from(self.bw) * u128::from(interval) / 1_000_000;
        if u128::from(self.extra_acked_delivered) <= expected {
            self.extra_acked_delivered = 0;
            self.extra_acked_start = sample.now_us;
            expected = 0;
        }
        self.extra_acked_delivered = self.extra_acked_delivered.saturating_add(sample.delivered);
        let extra = self.extra_acked_delivered - expected.min(u128::from(NO_VOLUME)) as u32;
        let rounds = if self.full_bw_reached { EXTRA_ACKED_ROUNDS } else { 1 };
        self.extra_acked.update(extra.min(congestion.window), self.round_count, rounds);
    }

    // Startup and Drain (draft §5.3.1, §5.3.2).

    fn reset_full_bw(&mut self) {
        self.full_bw = 0;
        self.full_bw_count = 0;
        self.full_bw_now = false;
    }

    fn check_full_bw_reached(&mut self, sample: &AckSample, rate: u64) {
        if self.full_bw_now || !self.round_start || sample.rate.app_limited {
            return;
        }
        if rate >= self.full_bw / 4 * 5 {
            self.reset_full_bw();
            self.full_bw = rate;
            return;
        }
        self.full_bw_count += 1;
        if self.full_bw_count >= FULL_BW_ROUNDS {
            self.full_bw_now = true;
            self.full_bw_reached = true;
        }
    }

    fn check_startup_done(&mut self, sample: &AckSample) {
        self.check_startup_high_loss(sample);
        if self.state == State::Startup && self.full_bw_reached {
            self.state = State::Drain;
            self.drain_start_round = self.round_count;
        }
    }

    fn check_startup_high_loss(&mut self, sample: &AckSample) {
        if self.full_bw_reached {
            return;
        }
        if sample.lost > 0 {
            self.loss_events_in_round = self.loss_events_in_round.saturating_add(1);
        }
        let enough = self.loss_events_in_round >= STARTUP_LOSSES || sample.no_sack;
        if self.loss_round_start
            && sample.state == CaState::Recovery
            && enough
            && is_inflight_too_high(
                sample.rate.lost_since_send,
                sample.rate.in_flight_at_send,
                sample.no_sack,
            )
        {
            self.undo.state = Some(State::Startup);
            self.full_bw_reached = true;
            self.inflight_longterm = self.bdp(100).max(self.inflight_latest);
            return;
        }
        if self.loss_round_start {
            self.loss_events_in_round = 0;
        }
    }

    fn check_drain_done(&mut self, sample: &AckSample) {
        if self.state == State::Drain
            && (sample.in_flight <= self.inflight(self.bw, 100)
                || self.round_count.wrapping_sub(self.drain_start_round) > 3)
        {
            self.start_probe_bw_down(sample);
        }
    }

    // ProbeBW (draft §5.3.3).

    fn start_probe_bw_down(&mut self, sample: &AckSample) {
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

    fn start_probe_bw_refill(&mut self, delivered_total: u32) {
        self.reset_short_term_model();
        self.bw_probe_up_rounds = 0;
        self.bw_probe_up_acked = 0;
        self.prev_probe_precautionary = false;
        self.ack_phase = AckPhase::Refilling;
        self.next_round_delivered = delivered_total;
        self.state = State::ProbeBwRefill;
    }

    fn start_probe_bw_up(&mut self, congestion: &Congestion, sample: &AckSample, rate: u64) {
        self.ack_phase = AckPhase::ProbeStarting;
        self.start_round(sample);
        self.reset_full_bw();
        self.full_bw = rate;
        self.state = State::ProbeBwUp;
        self.raise_inflight_longterm_slope(congestion);
    }

    fn update_probe_bw_cycle_phase(
        &mut self,
        congestion: &Congestion,
        sample: &AckSample,
        rate: u64,
    ) {
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

    fn is_time_to_cruise(&self, sample: &AckSample) -> bool {
        sample.in_flight <= self.inflight_with_headroom()
            && sample.in_flight <= self.inflight(self.max_bw(), 100)
    }

    fn is_time_to_go_down(
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
    fn is_time_to_probe_bw(&mut self, congestion: &Congestion, sample: &AckSample) -> bool {
        let reno_rounds = (self.target_inflight(congestion) / self.mss).min(MOST_RENO_ROUNDS);
        if elapsed(sample.now_us, self.cycle_stamp, self.bw_probe_wait_us)
            || self.rounds_since_probe_up >= reno_rounds
        {
            self.start_probe_bw_refill(sample.rate.delivered_total);
            return true;
        }
        false
    }

    fn inflight_with_headroom(&self) -> u32 {
        if self.inflight_longterm == NO_VOLUME {
            return NO_VOLUME;
        }
        let headroom = percent(self.inflight_longterm, HEADROOM).max(self.mss);
        self.inflight_longterm.saturating_sub(headroom).max(self.min_pipe())
    }

    fn raise_inflight_longterm_slope(&mut self, congestion: &Congestion) {
        let growth = 1u32 << self.bw_probe_up_rounds;
        self.bw_probe_up_rounds = (self.bw_probe_up_rounds + 1).min(30);
        self.probe_up_acked_per_inc = (congestion.window / growth).max(self.mss);
    }

    fn probe_inflight_longterm_upward(&mut self, congestion: &Congestion, sample: &AckSample) {
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
    fn adapt_long_term_model(&mut self, congestion: &Congestion, sample: &AckSample) -> bool {
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
        if !is_inflight_too_high(rate.lost_since_send, rate.in_flight_at_send, sample.no_sack) {
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

    // Loss (draft §5.5.10.2, §5.5.11).

    /// HandleLostPacket: called for each segment that is marked lost, before the acknowledgement
    /// that told of it.
    pub(super) fn on_segment_lost(&mut self, congestion: &Congestion, lost: &LostSegment) {
        if !self.begun {
            return;
        }
        if !self.is_loss_in_round {
            self.loss_round_delivered = lost.delivered_total;
            self.save_state_upon_loss(congestion);
        }
        self.is_loss_in_round = true;
        if !self.is_bw_probe_sample {
            return;
        }
        if !is_inflight_too_high(lost.lost_since_send, lost.in_flight_at_send, lost.no_sack) {
            return;
        }
        // InflightAtLoss: how much of a burst fitted before losses went over the threshold.
        let before = u64::from(lost.in_flight_at_send.saturating_sub(lost.len));
        let lost_before = u64::from(lost.lost_since_send.saturating_sub(lost.len));
        let prefix =
            (LOSS_THRESHOLD * before).saturating_sub(100 * lost_before) / (100 - LOSS_THRESHOLD);
        let in_flight = (before + prefix).min(u64::from(NO_VOLUME)) as u32;
        self.handle_inflight_too_high(congestion, in_flight, lost);
    }

    fn handle_inflight_too_high(
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

    fn save_state_upon_loss(&mut self, congestion: &Congestion) {
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
    fn congestion_experienced(&mut self, congestion: &Congestion, sample: &AckSample) {
        self.is_loss_in_round = true;
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
    pub(super) fn on_congestion(&mut self, congestion: &Congestion, signal: Signal) {
        self.save_state_upon_loss(congestion);
        match signal {
            Signal::Loss => self.ca = CaState::Recovery,
            Signal::Timeout => self.ca = CaState::Loss,
            Signal::Ecn => self.marked = true,
        }
    }

    /// RestoreCwnd.
    pub(super) fn on_recovery_done(&mut self, congestion: &mut Congestion) {
        self.ca = CaState::Open;
        congestion.window = congestion.window.max(self.prior_cwnd);
    }

    /// HandleSpuriousLossDetection.
    pub(super) fn on_undo(&mut self, congestion: &mut Congestion) {
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

    fn save_cwnd(&mut self, congestion: &Congestion) {
        let recovering = matches!(self.ca, CaState::Recovery | CaState::Loss);
        self.prior_cwnd = if recovering || self.state == State::ProbeRtt {
            self.prior_cwnd.max(congestion.window)
        } else {
            congestion.window
        };
    }

    // Round-trip time and ProbeRTT (draft §5.3.4).

    fn update_min_rtt(&mut self, sample: &AckSample) {
        let now = sample.now_us;
        self.probe_rtt_expired = elapsed(now, self.probe_rtt_min_stamp, PROBE_RTT_INTERVAL_US);
        let rtt = sample.rtt_us;
        if rtt > 0 && (rtt < self.probe_rtt_min_us || self.probe_rtt_expired) {
            self.probe_rtt_min_us = rtt;
            self.probe_rtt_min_stamp = now;
        }
        let expired = elapsed(now, self.min_rtt_stamp, MIN_RTT_FILTER_US);
        if self.probe_rtt_min_us < self.min_rtt_us || expired {
            self.min_rtt_us = self.probe_rtt_min_us;
            self.min_rtt_stamp = self.probe_rtt_min_stamp;
        }
    }

    fn check_probe_rtt(&mut self, congestion: &mut Congestion, sample: &AckSample) {
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

    fn handle_probe_rtt(&mut self, congestion: &mut Congestion, sample: &AckSample) {
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

    fn check_probe_rtt_done(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        let Some(done) = self.probe_rtt_done_stamp else { return };
        if (sample.now_us.wrapping_sub(done) as i32) <= 0 {
            return;
        }
        self.probe_rtt_min_stamp = sample.now_us;
        congestion.window = congestion.window.max(self.prior_cwnd);
        self.reset_short_term_model();
        if self.full_bw_reached {
            self.start_probe_bw_down(sample);
            self.state = State::ProbeBwCruise;
        } else {
            self.state = State::Startup;
        }
    }

    /// HandleRestartFromIdle (draft §5.4.1).
    pub(super) fn on_idle_restart(&mut self, congestion: &mut Congestion, now_us: u32) {
        if !self.begun {
            return;
        }
        self.idle_restart = true;
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

    // Control parameters (draft §5.6).

    fn set_pacing_rate(&mut self, gain: u64) {
        // Both factors are percent.
        let rate = u128::from(self.bw) * u128::from(gain * (100 - PACING_MARGIN_PERCENT)) / 10_000;
        let rate = rate.min(u128::from(u64::MAX)) as u64;
        if rate > 0 && (self.full_bw_reached || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    fn bdp_of(&self, bw: u64, gain: u64) -> u32 {
        if self.min_rtt_us == NO_VOLUME {
            return self.initial_window;
        }
        let bytes = u128::from(bw) * u128::from(self.min_rtt_us) * u128::from(gain) / 100_000_000;
        bytes.min(u128::from(NO_VOLUME / 2)) as u32
    }

    /// BDPMultiple.
    fn bdp(&self, gain: u64) -> u32 {
        self.bdp_of(self.bw, gain)
    }

    fn min_pipe(&self) -> u32 {
        MIN_PIPE_SEGMENTS * self.mss
    }

    fn quantization_budget(&self, cap: u32) -> u32 {
        let up = if self.state == State::ProbeBwUp { 2 * self.mss } else { 0 };
        cap.max(3 * self.send_quantum).max(self.min_pipe()) + up
    }

    fn inflight(&self, bw: u64, gain: u64) -> u32 {
        self.quantization_budget(self.bdp_of(bw, gain))
    }

    fn target_inflight(&self, congestion: &Congestion) -> u32 {
        self.bdp(100).min(congestion.window)
    }

    fn probe_rtt_cwnd(&self) -> u32 {
        self.bdp(PROBE_RTT_CWND_GAIN).max(self.min_pipe())
    }

    fn set_cwnd(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        let cap = self.bdp(self.cwnd_gain()).saturating_add(self.extra_acked.get());
        let max_inflight = self.quantization_budget(cap);
        let window = &mut congestion.window;
        if self.full_bw_reached {
            *window = window.saturating_add(sample.delivered).min(max_inflight);
        } else if *window < max_inflight || sample.rate.delivered_total < self.initial_window {
            *window = window.saturating_add(sample.delivered);
        }
        *window = (*window).max(self.min_pipe());
        if self.state == State::ProbeRtt {
            *window = (*window).min(self.probe_rtt_cwnd());
        }
        let cap = match self.state {
            State::ProbeBwDown | State::ProbeBwRefill | State::ProbeBwUp => self.inflight_longterm,
            State::ProbeRtt | State::ProbeBwCruise => self.inflight_with_headroom(),
            State::Startup | State::Drain => NO_VOLUME,
        };
        let cap = cap.min(self.inflight_shortterm).max(self.min_pipe());
        *window = (*window).min(cap).min(super::LARGEST_WINDOW);
    }
}

/// IsInflightTooHigh.
fn is_inflight_too_high(lost: u32, in_flight: u32, no_sack: bool) -> bool {
    u64::from(lost) * 100 > u64::from(in_flight) * LOSS_THRESHOLD || (lost > 0 && no_sack)
}
