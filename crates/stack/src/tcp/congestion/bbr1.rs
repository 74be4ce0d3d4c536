//! An opponent for tests: BBR as its first version had it, which Linux's `bbr` still is
//! (draft-cardwell-iccrg-bbr-congestion-control-00). It takes no loss for a sign of anything, so
//! it shows whether ours holds its own beside it. Written from the draft; nothing but a model's
//! flow uses it.

use super::windowed_max::WindowedMax;
use super::{AckSample, CaState, Congestion, RateSample};

/// Gains are percent.
const HIGH_GAIN: u64 = 289;
const DRAIN_GAIN: u64 = 35;
const CYCLE: [u64; 8] = [125, 75, 100, 100, 100, 100, 100, 100];
const BW_ROUNDS: u32 = 10;
const MIN_RTT_US: u32 = 10_000_000;
const PROBE_RTT_US: u32 = 200_000;
const MIN_SEGMENTS: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    ProbeBw,
    ProbeRtt,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bbr1 {
    mode: Mode,
    ca: CaState,
    mss: u32,
    initial_window: u32,
    pacing_rate: u64,
    max_bw: WindowedMax,
    round: u32,
    round_start: bool,
    next_round: u32,
    full_bw: u64,
    full_count: u8,
    full: bool,
    phase: usize,
    phase_stamp: u32,
    min_rtt_us: u32,
    min_rtt_stamp: u32,
    probe_rtt_done: Option<u32>,
    probe_rtt_round_done: bool,
    conserves: bool,
    prior_cwnd: u32,
    extra_acked: WindowedMax,
    extra_start: u32,
    extra_delivered: u32,
}

impl Bbr1 {
    pub(super) fn new() -> Self {
        Bbr1 {
            mode: Mode::Startup,
            ca: CaState::Open,
            mss: 0,
            initial_window: 0,
            pacing_rate: 0,
            max_bw: WindowedMax::default(),
            round: 0,
            round_start: false,
            next_round: 0,
            full_bw: 0,
            full_count: 0,
            full: false,
            phase: 0,
            phase_stamp: 0,
            min_rtt_us: u32::MAX,
            min_rtt_stamp: 0,
            probe_rtt_done: None,
            probe_rtt_round_done: false,
            conserves: false,
            prior_cwnd: 0,
            extra_acked: WindowedMax::default(),
            extra_start: 0,
            extra_delivered: 0,
        }
    }

    pub(super) fn pacing_rate(&self) -> Option<u64> {
        (self.pacing_rate > 0).then_some(self.pacing_rate)
    }

    pub(super) fn holds_back(&self) -> bool {
        self.mode == Mode::ProbeRtt
    }

    fn bw(&self) -> u64 {
        self.max_bw.get().into()
    }

    fn in_flight(&self, gain: u64) -> u32 {
        if self.min_rtt_us == u32::MAX {
            return self.initial_window;
        }
        let bytes = self.bw() * u64::from(self.min_rtt_us) / 1_000_000 * gain / 100;
        let quantum = ((self.pacing_rate / 1000) as u32).max(2 * self.mss);
        let extra = if self.mode == Mode::ProbeBw && self.phase == 0 { 2 * self.mss } else { 0 };
        bytes as u32 + 3 * quantum + extra
    }

    pub(super) fn on_congestion(&mut self, congestion: &Congestion) {
        let fresh = self.ca < CaState::Recovery && self.mode != Mode::ProbeRtt;
        let prior = if fresh { 0 } else { self.prior_cwnd };
        self.prior_cwnd = prior.max(congestion.window);
    }

    pub(super) fn on_timeout(&mut self, congestion: &Congestion) {
        self.on_congestion(congestion);
        (self.full_bw, self.round_start) = (0, true);
        self.ca = CaState::Loss;
    }

    pub(super) fn on_ack(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        self.mss = sample.mss;
        if self.initial_window == 0 {
            self.initial_window = congestion.window;
            self.min_rtt_stamp = sample.now_us;
            let smoothed = u64::from(sample.smoothed_us.max(1));
            self.pacing_rate = u64::from(congestion.window) * HIGH_GAIN * 10_000 / smoothed;
        }
        self.update_bw(&sample.rate);
        self.update_aggregation(congestion, sample);
        self.update_phase(sample);
        self.check_full(&sample.rate);
        self.check_drain(sample);
        self.update_min_rtt(congestion, sample);
        let gain = match self.mode {
            Mode::Startup => HIGH_GAIN,
            Mode::Drain => DRAIN_GAIN,
            Mode::ProbeBw => CYCLE[self.phase],
            Mode::ProbeRtt => 100,
        };
        let rate = self.bw() * gain / 100 * 99 / 100;
        if self.full || rate > self.pacing_rate {
            self.pacing_rate = rate.max(1);
        }
        self.set_window(congestion, sample);
    }

    fn update_bw(&mut self, rate: &RateSample) {
        self.round_start = false;
        if rate.interval_us == 0 {
            return;
        }
        if rate.prior_delivered.wrapping_sub(self.next_round) as i32 >= 0 {
            self.next_round = rate.delivered_total;
            self.round += 1;
            self.round_start = true;
            self.conserves = false;
        }
        let bw = u64::from(rate.delivered) * 1_000_000 / u64::from(rate.interval_us);
        if !rate.app_limited || bw >= self.bw() {
            self.max_bw.update(bw as u32, self.round, BW_ROUNDS);
        }
    }

    fn update_aggregation(&mut self, congestion: &Congestion, sample: &AckSample) {
        let interval = u64::from(sample.now_us.wrapping_sub(self.extra_start));
        let mut expected = self.bw() * interval / 1_000_000;
        if u64::from(self.extra_delivered) <= expected {
            (self.extra_delivered, self.extra_start, expected) = (0, sample.now_us, 0);
        }
        self.extra_delivered += sample.delivered;
        let extra = self.extra_delivered - expected as u32;
        self.extra_acked.update(extra.min(congestion.window), self.round, BW_ROUNDS);
    }

    fn update_phase(&mut self, sample: &AckSample) {
        if self.mode != Mode::ProbeBw {
            return;
        }
        let passed = sample.now_us.wrapping_sub(self.phase_stamp) > self.min_rtt_us;
        let in_flight = sample.prior_in_flight;
        let next = match CYCLE[self.phase] {
            100 => passed,
            125 => passed && (sample.lost > 0 || in_flight >= self.in_flight(125)),
            _ => passed || in_flight <= self.in_flight(100),
        };
        if next {
            self.phase = (self.phase + 1) % CYCLE.len();
            self.phase_stamp = sample.now_us;
        }
    }

    fn check_full(&mut self, rate: &RateSample) {
        if self.full || !self.round_start || rate.app_limited {
            return;
        }
        if self.bw() >= self.full_bw * 5 / 4 {
            (self.full_bw, self.full_count) = (self.bw(), 0);
            return;
        }
        self.full_count += 1;
        self.full = self.full_count >= 3;
    }

    fn cruise(&mut self, sample: &AckSample) {
        self.mode = Mode::ProbeBw;
        // Any phase but the one that drains.
        self.phase = (2 + sample.now_us as usize / 7 % 7) % CYCLE.len();
        self.phase_stamp = sample.now_us;
    }

    fn check_drain(&mut self, sample: &AckSample) {
        if self.mode == Mode::Startup && self.full {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && sample.in_flight <= self.in_flight(100) {
            self.cruise(sample);
        }
    }

    fn update_min_rtt(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        let now = sample.now_us;
        let expired = now.wrapping_sub(self.min_rtt_stamp) > MIN_RTT_US;
        if sample.rtt_us > 0 && (sample.rtt_us < self.min_rtt_us || expired) {
            (self.min_rtt_us, self.min_rtt_stamp) = (sample.rtt_us, now);
        }
        if expired && self.mode != Mode::ProbeRtt {
            self.on_congestion(congestion);
            self.mode = Mode::ProbeRtt;
            self.probe_rtt_done = None;
        }
        if self.mode != Mode::ProbeRtt {
            return;
        }
        match self.probe_rtt_done {
            None if sample.in_flight <= MIN_SEGMENTS * self.mss => {
                self.probe_rtt_done = Some(now.wrapping_add(PROBE_RTT_US));
                self.probe_rtt_round_done = false;
                self.next_round = sample.rate.delivered_total;
            }
            None => {}
            Some(done) => {
                self.probe_rtt_round_done |= self.round_start;
                if self.probe_rtt_round_done && now.wrapping_sub(done) as i32 > 0 {
                    self.min_rtt_stamp = now;
                    congestion.window = congestion.window.max(self.prior_cwnd);
                    if self.full { self.cruise(sample) } else { self.mode = Mode::Startup }
                }
            }
        }
    }

    fn set_window(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        let window = &mut congestion.window;
        let (before, now) = (self.ca, sample.state);
        self.ca = now;
        if sample.lost > 0 {
            *window = window.saturating_sub(sample.lost).max(self.mss);
        }
        if now == CaState::Recovery && before != CaState::Recovery {
            self.conserves = true;
            self.next_round = sample.rate.delivered_total;
            *window = sample.in_flight + sample.delivered;
        } else if before >= CaState::Recovery && now < CaState::Recovery {
            *window = (*window).max(self.prior_cwnd);
            self.conserves = false;
        }
        if self.conserves {
            *window = (*window).max(sample.in_flight + sample.delivered);
        } else {
            let gain = match self.mode {
                Mode::Startup | Mode::Drain => HIGH_GAIN,
                Mode::ProbeBw => 200,
                Mode::ProbeRtt => 100,
            };
            let target = self.in_flight(gain) + self.extra_acked.get();
            if self.full {
                *window = (*window + sample.delivered).min(target);
            } else if *window < target || sample.rate.delivered_total < self.initial_window {
                *window += sample.delivered;
            }
            *window = (*window).max(MIN_SEGMENTS * self.mss);
        }
        if self.mode == Mode::ProbeRtt {
            *window = (*window).min(MIN_SEGMENTS * self.mss);
        }
    }
}
