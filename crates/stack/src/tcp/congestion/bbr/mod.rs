//! BBR, version 3 (draft-ietf-ccwg-bbr-06): a model of the path (what it delivers, how long a round
//! trip takes, how much may be in flight before it loses) sets the pacing rate and the window.
//!
//! Names, constants and the order of steps are the draft's. Sums are bytes modulo 2^32, times are
//! microseconds modulo 2^32. How long ago something was is asked only of what is less than 71 minutes
//! old: who comes back from a longer pause makes everything look old first
//! (`Bbr::on_idle_restart`).

mod beat;
mod loss;
mod noise;
mod overflows;
mod probe_bw;
mod probe_rtt;
mod rival;
mod share;
mod startup;
#[cfg(test)]
mod tests;

use super::windowed_max::WindowedMax;
use super::{AckSample, CaState, Congestion};
use noise::Noise;
use rival::Rival;
use share::Share;

/// Infinity of a rate and of a volume.
const NO_RATE: u64 = u64::MAX;
const NO_VOLUME: u32 = u32::MAX;

/// Gains are percent, here and below. This one is 2/ln 2, as in the first version: with the draft's 277
/// (§2.4) each of the first flights takes 4 % longer, and a short flow is nothing but those.
const STARTUP_PACING_GAIN: u64 = 289;
/// Draft §2.4, §2.5.
const PACING_MARGIN_PERCENT: u64 = 1;
const DEFAULT_CWND_GAIN: u64 = 200;
const PROBE_UP_CWND_GAIN: u64 = 225;
const PROBE_RTT_CWND_GAIN: u64 = 50;
/// LossThresh: the share of loss that is put up with while probing, 1024ths: 2 %.
const LOSS_THRESHOLD: u32 = 20;
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
    /// There was one in this round.
    is_mark_in_round: bool,

    // Is the pipe full?
    full_bw_reached: bool,
    full_bw_now: bool,
    full_bw_count: u8,
    full_bw: u64,
    /// The peer's window held this flow back in this round.
    full_bw_held: bool,
    /// The same of the last round.
    last_round_held: bool,
    drain_start_round: u32,
    /// Startup began again, for a rival had ended it.
    started_again: bool,

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
    noise: Noise,
    rival: Rival,
    share: Share,
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
            is_mark_in_round: false,
            full_bw_reached: false,
            full_bw_now: false,
            full_bw_count: 0,
            full_bw: 0,
            full_bw_held: false,
            last_round_held: false,
            drain_start_round: 0,
            started_again: false,
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
            noise: Noise::NONE,
            rival: Rival::NONE,
            share: Share::default(),
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
        self.noise.observe(sample);
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
        self.noise.begin(sample);
        self.share.begin(sample);
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
            State::ProbeBwDown if self.rival.present() => 75,
            State::ProbeBwDown => 90,
            State::ProbeBwUp if self.share.sends() => rival::TRIAL_PACING_GAIN,
            State::ProbeBwUp if self.share.on_trial() => 100,
            State::ProbeBwUp => 125,
            State::ProbeBwCruise | State::ProbeBwRefill | State::ProbeRtt => 100,
        }
    }

    fn cwnd_gain(&self) -> u64 {
        match self.state {
            State::ProbeBwUp if !self.rival.present() => PROBE_UP_CWND_GAIN,
            State::ProbeRtt => PROBE_RTT_CWND_GAIN,
            State::ProbeBwUp if self.share.on_trial() => rival::GROWTH_CWND_GAIN,
            State::Startup if self.rival.present() => rival::GROWTH_CWND_GAIN,
            _ => DEFAULT_CWND_GAIN,
        }
    }

    fn in_probe_bw(&self) -> bool {
        use State::{ProbeBwCruise, ProbeBwDown, ProbeBwRefill, ProbeBwUp};
        matches!(self.state, ProbeBwDown | ProbeBwCruise | ProbeBwRefill | ProbeBwUp)
    }

    fn max_bw(&self) -> u64 {
        if self.rival.present() {
            return self.rival.rate();
        }
        self.max_bw_filter[0].max(self.max_bw_filter[1])
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

    // Control parameters (draft §5.6).

    fn set_pacing_rate(&mut self, gain: u64) {
        // Both factors are percent.
        let rate = u128::from(self.bw) * u128::from(gain * (100 - PACING_MARGIN_PERCENT)) / 10_000;
        let rate = rate.min(u128::from(u64::MAX)) as u64;
        let rate = self.noise.made_up_for(rate);
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
            State::ProbeRtt => self.inflight_with_headroom(),
            State::ProbeBwCruise => self.inflight_to_cruise(),
            State::Startup | State::Drain => NO_VOLUME,
        };
        let cap = cap.min(self.inflight_shortterm).max(self.min_pipe());
        *window = (*window).min(cap).min(super::LARGEST_WINDOW);
    }
}
