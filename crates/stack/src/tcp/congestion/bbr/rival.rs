//! A flow on the same path that takes no loss for a sign.
//!
//! The draft makes room when something is lost, as every flow it was made to live with does. The
//! first version of BBR, which is what Linux's `bbr` is, does not: it goes on until the queue
//! overflows, eight round trips later again, and takes what the other lets go, until that has a tenth
//! of the path. So loss that comes back again and again while this flow holds back, in a queue that
//! never empties, is taken for what it is, and answered in kind: the rate is the best of ten round
//! trips, an eighth of the time is for probing, and losses bound nothing. Two such flows share
//! evenly.
//!
//! A flow that does make room (this one, CUBIC, Reno) loses a round trip now and then, far below
//! [`ENTER`]. And it is believed for a while only: ProbeRTT, which all flows on a path come to at
//! about the same time, ends it, and the loss must show itself again.

use super::{AckPhase, Bbr, NO_VOLUME, State, elapsed};
use crate::tcp::congestion::AckSample;
use crate::tcp::congestion::windowed_max::WindowedMax;

/// Mean shares of loss, 1024ths: from which on there is a rival, and what is left of the suspicion
/// afterwards.
const ENTER: u32 = 16;
const LEFT: u32 = 4;
/// One part in so many of the mean is the last round trip's.
const FADING: u32 = 32;
/// One round trip says no more than this, 1024ths, whatever it lost.
const MOST_TOLD: u32 = 128;
/// Round trips without a queue, in a row, after which the rival is gone.
const QUIET_ROUNDS: u8 = 6;
/// The rate is the best of so many round trips.
const RATE_ROUNDS: u32 = 10;
/// Round trips between two probes.
const CRUISE_ROUNDS: u32 = 6;
/// More lost in a round trip than this is too much in any company, 1024ths.
const MOST_LOST: u32 = 256;

/// What is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rival {
    present: bool,
    /// Mean share of loss, in parts of 1024 times [`FADING`].
    lost: u32,
    quiet_rounds: u8,
    /// In units of [`UNIT`].
    rate: WindowedMax,
}

/// Bytes a second: rates fit 32 bits up to two terabits a second.
const UNIT: u64 = 64;

impl Rival {
    pub(super) const NONE: Rival =
        Rival { present: false, lost: 0, quiet_rounds: 0, rate: WindowedMax::NONE };

    /// Whether there is one.
    #[inline]
    pub(super) fn present(&self) -> bool {
        self.present
    }

    /// The best rate of late.
    pub(super) fn rate(&self) -> u64 {
        u64::from(self.rate.get()) * UNIT
    }

    pub(super) fn sample(&mut self, rate: u64, round: u32) {
        let rate = (rate / UNIT).min(u32::MAX.into()) as u32;
        self.rate.update(rate, round, RATE_ROUNDS);
    }

    /// A round trip in which this flow held back, and the share of loss in it that nothing
    /// explains, 1024ths. Returns whether there is a rival now.
    pub(super) fn held_back(&mut self, lost: u32) -> bool {
        self.lost -= self.lost / FADING;
        self.lost += lost.min(MOST_TOLD);
        self.lost >= ENTER * FADING
    }
}

impl Bbr {
    /// From now on this flow is as hard as the other.
    pub(super) fn meet_rival(&mut self, sample: &AckSample) {
        let known = self.max_bw();
        self.rival.present = true;
        self.rival.quiet_rounds = 0;
        self.rival.rate = WindowedMax::NONE;
        self.rival.sample(known, self.round_count);
        self.reset_short_term_model();
        self.inflight_longterm = NO_VOLUME;
        self.is_bw_probe_sample = false;
        self.ack_phase = AckPhase::Init;
        self.state = State::ProbeBwCruise;
        self.cycle_stamp = sample.now_us;
    }

    /// The rival is forgotten.
    pub(super) fn forget_rival(&mut self) {
        if self.rival.present {
            self.max_bw_filter = [self.rival.rate(), 0];
            self.rival.present = false;
            self.rival.lost = LEFT * FADING;
        }
    }

    /// A round trip with a rival has ended, of which this share was lost.
    pub(super) fn rival_round(&mut self, sample: &AckSample, lost: u32, quiet: bool) {
        let quiet_rounds = self.rival.quiet_rounds.saturating_add(1);
        self.rival.quiet_rounds = if quiet { quiet_rounds } else { 0 };
        if lost > MOST_LOST || self.rival.quiet_rounds >= QUIET_ROUNDS {
            self.forget_rival();
            if self.in_probe_bw() {
                self.start_probe_bw_down(sample);
            }
        }
    }

    /// The cycle: a round trip of more, one of less, and some of what the path is believed to give.
    pub(super) fn update_rival_cycle_phase(&mut self, sample: &AckSample) {
        let passed = |rounds| {
            elapsed(sample.now_us, self.cycle_stamp, self.min_rtt_us.saturating_mul(rounds))
        };
        let next = match self.state {
            State::ProbeBwUp => {
                let full = sample.prior_in_flight >= self.inflight(self.max_bw(), 125);
                (passed(1) && (sample.lost > 0 || full)).then_some(State::ProbeBwDown)
            }
            State::ProbeBwDown => {
                let drained = sample.in_flight <= self.inflight(self.max_bw(), 100);
                (passed(1) || drained).then_some(State::ProbeBwCruise)
            }
            State::ProbeBwCruise => passed(CRUISE_ROUNDS).then_some(State::ProbeBwUp),
            State::ProbeBwRefill => Some(State::ProbeBwCruise),
            State::Startup | State::Drain | State::ProbeRtt => None,
        };
        if let Some(next) = next {
            self.state = next;
            self.cycle_stamp = sample.now_us;
        }
    }
}
