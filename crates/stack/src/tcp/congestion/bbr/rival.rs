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
//! [`ENTER`], and a queue that overflowed shrinks where room was made ([`Overflows`]). Nor does it
//! overflow with the rival's [`Beat`].
//!
//! Who is as hard as the other keeps what it has: a probe of a quarter more gains little where the
//! queue is full. So a rival is met with a trial that tells this flow's share of the path
//! ([`Share`](super::share::Share)). With little of it, it grows on at once; with more than its part it
//! has no need to be hard, and the rival is forgotten. Where a round trip is a millisecond it would be
//! met again before it has taken what it was left, so it is spared for a while ([`SPARED_US`]).
//!
//! A Startup that a rival ended, by what was lost or because it would not make room, begins again
//! once and takes no loss for a sign, as the rival's own did: an eighth of a round trip of probing
//! would take many seconds from a twentieth of the path to a half.
//!
//! A rival is believed for a while only: ProbeRTT, which all flows on a path come to at about the
//! same time, ends it, and the loss must show itself again, of one that was there for long enough not
//! as often.

use super::beat::Beat;
use super::overflows::{Overflows, SHORT_QUEUE_US};
use super::share::Told;
use super::{AckPhase, Bbr, NO_VOLUME, State, elapsed};
use crate::tcp::congestion::AckSample;
use crate::tcp::congestion::windowed_max::WindowedMax;

/// Mean shares of loss, 1024ths: from which on there is a rival, and what is left of the suspicion
/// afterwards.
const ENTER: u32 = 16;
const LEFT: u32 = 4;
/// The same where the way in which the queue overflows shows one.
const ENTER_SHOWN: u32 = 2;
/// With no more segments in flight, what is lost in a short queue is lost to bursts, whoever sends
/// them, and to be hard gains nothing.
const FEW_SEGMENTS: u32 = 16;
/// One part in so many of the mean is the last round trip's.
const FADING: u32 = 32;
/// One round trip says no more than this, 1024ths, whatever it lost.
const MOST_TOLD: u32 = 128;
/// Round trips without a queue, in a row, after which the rival is gone.
const QUIET_ROUNDS: u8 = 6;
/// A rival that was one for so many round trips is soon known again.
const CONFIRMED_ROUNDS: u32 = 8;
/// How fast a trial of the share sends, percent.
pub(super) const TRIAL_PACING_GAIN: u64 = 150;
/// Percent of the path: who has less than this grows on.
const LITTLE: u32 = 35;
/// And who has more than this has no need to be hard.
const ENOUGH: u32 = 60;
/// Microseconds for which a rival of whom this flow had enough is not met again.
const SPARED_US: u32 = 16_000;
/// The rate is the best of so many round trips.
const RATE_ROUNDS: u32 = 10;
/// Startup begins again if there is found to be a rival not more than so many round trips after it.
const RESTART_ROUNDS: u32 = 64;
/// Percent: what grows beside a queue of a whole product, where the draft's 200 only keep a rate.
pub(super) const GROWTH_CWND_GAIN: u64 = 289;
/// Round trips between two probes.
const CRUISE_ROUNDS: u32 = 6;
/// More lost in a round trip than this is too much in any company, 1024ths.
const MOST_LOST: u32 = 384;
const MOST_LOST_STARTUP: u32 = 512;

/// A round trip without a rival.
pub(super) struct Round {
    /// When it ended, microseconds.
    pub(super) now_us: u32,
    /// This flow held back: it neither probed nor waited for what a probe would tell.
    pub(super) held_back: bool,
    /// The share of loss in it that nothing explains, 1024ths.
    pub(super) lost: u32,
    /// Its mean queue, microseconds.
    pub(super) queue_us: u32,
    /// The shortest round trip, microseconds.
    pub(super) min_rtt_us: u32,
    /// In flight.
    pub(super) segments: u32,
}

/// What is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rival {
    present: bool,
    /// Mean share of loss, in parts of 1024 times [`FADING`].
    lost: u32,
    quiet_rounds: u8,
    /// The round trip in which it was met.
    met: u32,
    /// When this flow was found to have enough, while that still counts.
    spared_at: Option<u32>,
    overflows: Overflows,
    beat: Beat,
    /// In units of [`UNIT`].
    rate: WindowedMax,
}

/// Bytes a second: rates fit 32 bits up to two terabits a second.
const UNIT: u64 = 64;

impl Rival {
    pub(super) const NONE: Rival = Rival {
        present: false,
        lost: 0,
        quiet_rounds: 0,
        met: 0,
        spared_at: None,
        overflows: Overflows::NONE,
        beat: Beat::NONE,
        rate: WindowedMax::NONE,
    };

    /// Whether there is one.
    #[inline]
    pub(super) fn present(&self) -> bool {
        self.present
    }

    /// Nothing was sent for long: the next loss is on nobody's beat.
    pub(super) fn paused(&mut self) {
        self.beat.paused();
    }

    /// The best rate of late.
    pub(super) fn rate(&self) -> u64 {
        u64::from(self.rate.get()) * UNIT
    }

    pub(super) fn sample(&mut self, rate: u64, round: u32) {
        let rate = (rate / UNIT).min(u32::MAX.into()) as u32;
        self.rate.update(rate, round, RATE_ROUNDS);
    }

    /// Startup made the queue overflow.
    pub(super) fn startup_overflowed(&mut self, queue_us: u32) {
        self.overflows = Overflows::of_startup(queue_us);
    }

    /// A round trip is over. Returns whether there is a rival now.
    pub(super) fn round(&mut self, round: &Round) -> bool {
        if let Some(at) = self.spared_at {
            if !elapsed(round.now_us, at, SPARED_US) {
                return false;
            }
            self.spared_at = None;
        }
        self.beat.round(round);
        if self.overflows.round(round) {
            return true;
        }
        if !round.held_back {
            return false;
        }
        let of_bursts = round.queue_us < SHORT_QUEUE_US && round.segments < FEW_SEGMENTS;
        self.lost -= self.lost / FADING;
        self.lost += if of_bursts { 0 } else { round.lost.min(MOST_TOLD) };
        let shown = self.overflows.are_unheeded() || self.beat.is_known();
        let enter = if shown { ENTER_SHOWN } else { ENTER };
        self.lost >= FADING * enter
    }
}

impl Bbr {
    /// From now on this flow is as hard as the other.
    pub(super) fn meet_rival(&mut self, sample: &AckSample) {
        let known = self.max_bw();
        self.rival.present = true;
        self.rival.met = self.round_count;
        self.rival.quiet_rounds = 0;
        self.rival.rate = WindowedMax::NONE;
        self.rival.sample(known, self.round_count);
        self.reset_short_term_model();
        self.inflight_longterm = NO_VOLUME;
        self.is_bw_probe_sample = false;
        self.ack_phase = AckPhase::Init;
        self.cycle_stamp = sample.now_us;
        let since_startup = self.round_count.wrapping_sub(self.drain_start_round);
        if !core::mem::replace(&mut self.started_again, true) && since_startup < RESTART_ROUNDS {
            self.state = State::Startup;
            self.full_bw_reached = false;
            self.reset_full_bw();
        } else {
            self.share.begin_trial();
            self.state = State::ProbeBwCruise;
        }
    }

    /// A trial has told this flow's share of the path.
    pub(super) fn share_told(&mut self, sample: &AckSample, told: &Told) {
        if !self.rival.present() || self.state != State::ProbeBwUp {
            return;
        }
        if told.most < LITTLE {
            // Without a queue the others have let go for a moment only.
            if !self.noise.is_quiet_now(self.min_rtt_us) {
                self.rival.sample(told.rate, self.round_count);
            }
            self.share.begin_trial();
            self.state = State::ProbeBwCruise;
        } else if told.least > ENOUGH {
            self.spare_rival(sample);
            self.start_probe_bw_down(sample);
        } else {
            self.state = State::ProbeBwDown;
            self.cycle_stamp = sample.now_us;
        }
    }

    /// The rival is forgotten.
    pub(super) fn forget_rival(&mut self) {
        if self.rival.present {
            self.max_bw_filter = [self.rival.rate(), 0];
            self.rival.present = false;
            self.rival.lost = LEFT * FADING;
            let rounds = self.round_count.wrapping_sub(self.rival.met);
            let confirmed = rounds >= CONFIRMED_ROUNDS;
            (self.rival.overflows, self.rival.beat) = if confirmed {
                (Overflows::SUSPECTED, Beat::SUSPECTED)
            } else {
                (Overflows::NONE, Beat::NONE)
            };
            self.share.end_trial();
        }
    }

    /// This flow has enough, or nearly all that a trial sent on top was lost.
    fn spare_rival(&mut self, sample: &AckSample) {
        self.forget_rival();
        self.rival.spared_at = Some(sample.now_us);
    }

    /// A round trip with a rival has ended, of which this share was lost.
    pub(super) fn rival_round(&mut self, sample: &AckSample, lost: u32, quiet: bool) {
        let quiet_rounds = self.rival.quiet_rounds.saturating_add(1);
        self.rival.quiet_rounds = if quiet { quiet_rounds } else { 0 };
        let most = if self.state == State::Startup { MOST_LOST_STARTUP } else { MOST_LOST };
        let too_much = lost > most;
        if too_much || self.rival.quiet_rounds >= QUIET_ROUNDS {
            if too_much && self.share.on_trial() {
                self.spare_rival(sample);
            } else {
                self.forget_rival();
            }
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
            State::ProbeBwUp if self.share.on_trial() => None,
            State::ProbeBwUp => {
                let full = sample.prior_in_flight >= self.inflight(self.max_bw(), 125);
                (passed(1) && (sample.lost > 0 || full)).then_some(State::ProbeBwDown)
            }
            State::ProbeBwDown => {
                let drained = sample.in_flight <= self.inflight(self.max_bw(), 100);
                (passed(1) || drained).then_some(State::ProbeBwCruise)
            }
            State::ProbeBwCruise if self.share.rests() => None,
            State::ProbeBwCruise if self.share.on_trial() => Some(State::ProbeBwUp),
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
