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
//! [`ENTER`]. Beside a rival that has most of a fast path, a small flow loses no more than that
//! itself. But where room was made the queue shrinks, and takes dozens of round trips to overflow
//! again. So overflows that follow each other in a queue that stays give the rival away, and so
//! does one that this flow's own Startup caused, in which everybody lost much ([`Overflows`]).
//!
//! A Startup that a rival ended, by what was lost or because it would not make room, begins again
//! once and takes no loss for a sign, as the rival's own did: an eighth of a round trip of probing
//! would take many seconds from a twentieth of the path to a half.
//!
//! A rival is believed for a while only: ProbeRTT, which all flows on a path come to at about the
//! same time, ends it, and the loss must show itself again.

use super::{AckPhase, Bbr, NO_VOLUME, State, elapsed};
use crate::tcp::congestion::AckSample;
use crate::tcp::congestion::windowed_max::WindowedMax;

/// Mean shares of loss, 1024ths: from which on there is a rival, and what is left of the suspicion
/// afterwards.
const ENTER: u32 = 16;
const LEFT: u32 = 4;
/// The same where the queue overflows again and again.
const ENTER_UNHEEDED: u32 = 2;
/// One part in so many of the mean is the last round trip's.
const FADING: u32 = 32;
/// One round trip says no more than this, 1024ths, whatever it lost.
const MOST_TOLD: u32 = 128;
/// Round trips without a queue, in a row, after which the rival is gone.
const QUIET_ROUNDS: u8 = 6;
/// The rate is the best of so many round trips.
const RATE_ROUNDS: u32 = 10;
/// Startup begins again if there is found to be a rival not more than so many round trips after it.
const RESTART_ROUNDS: u32 = 64;
/// Percent: what grows beside a queue of a whole product, where the draft's 200 only keep a rate.
pub(super) const STARTUP_CWND_GAIN: u64 = 289;
/// Round trips between two probes.
const CRUISE_ROUNDS: u32 = 6;
/// More lost in a round trip than this is too much in any company, 1024ths.
const MOST_LOST: u32 = 384;
const MOST_LOST_STARTUP: u32 = 512;

/// Overflows in a row, each at most so many round trips after the one before, that nobody heeded.
const UNHEEDED: u8 = 4;
const SOON_ROUNDS: u8 = 12;
/// Losses of so many round trips are of one overflow: they are found after it.
const SAME_ROUNDS: u8 = 2;
/// Who makes room leaves less than this of the queue, percent. CUBIC, which makes the least, leaves
/// 55 of a queue of two products, and of a shorter one less; the first version of BBR leaves 78.
const LEFT_OF_QUEUE: u32 = 67;
/// The first version keeps two products in flight: with more of a queue than this, percent of the
/// shortest round trip, it is not alone, and what is lost may be lost elsewhere.
const LONGEST_QUEUE: u32 = 150;
/// After so many round trips what Startup had too much of is drained, and others have heeded it.
const STARTUP_ROUNDS: u8 = 8;
/// A queue shorter than this, microseconds, may overflow by a burst alone.
const SHORT_QUEUE_US: u32 = 4_000;
/// A window of less than so many segments is soon as large as it was.
const SMALL_WINDOW: u32 = 32;

/// How the queue overflows while this flow holds back.
#[derive(Clone, Copy, Debug)]
struct Overflows {
    /// Overflows in a row that nobody heeded.
    unheeded: u8,
    /// Round trips since the last overflow.
    since: u8,
    /// The queue when it overflowed, and the shortest since, microseconds.
    queue_us: u32,
    shortest_us: u32,
    /// This flow's Startup caused it, and much was lost: who makes room has done so soon after.
    of_startup: bool,
}

impl Overflows {
    const NONE: Overflows =
        Overflows { unheeded: 0, since: u8::MAX, queue_us: 0, shortest_us: 0, of_startup: false };

    /// A round trip is over.
    fn round(&mut self, round: &Round) {
        self.since = self.since.saturating_add(1);
        self.shortest_us = self.shortest_us.min(round.queue_us);
        if self.of_startup || round.lost == 0 || self.since <= SAME_ROUNDS {
            return;
        }
        let again = self.since <= SOON_ROUNDS
            && self.stayed(round.min_rtt_us)
            && round.segments >= SMALL_WINDOW;
        let unheeded = if again { self.unheeded.saturating_add(1) } else { 0 };
        *self = Overflows { unheeded, ..Overflows::now(round.queue_us) };
    }

    /// The queue overflows.
    fn now(queue_us: u32) -> Overflows {
        Overflows { since: 0, queue_us, shortest_us: queue_us, ..Overflows::NONE }
    }

    /// It was a rival's by its length, and has not shrunk since.
    fn stayed(&self, min_rtt_us: u32) -> bool {
        let lengths = SHORT_QUEUE_US..=min_rtt_us / 100 * LONGEST_QUEUE;
        lengths.contains(&self.queue_us) && self.shortest_us >= self.queue_us / 100 * LEFT_OF_QUEUE
    }
}

/// A round trip without a rival.
pub(super) struct Round {
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
    overflows: Overflows,
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
        overflows: Overflows::NONE,
        rate: WindowedMax::NONE,
    };

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

    /// Startup made the queue overflow.
    pub(super) fn startup_overflowed(&mut self, queue_us: u32) {
        self.overflows = Overflows { of_startup: true, ..Overflows::now(queue_us) };
    }

    /// A round trip is over. Returns whether there is a rival now.
    pub(super) fn round(&mut self, round: &Round) -> bool {
        let lost = if round.held_back { round.lost } else { 0 };
        let overflows = &mut self.overflows;
        overflows.round(&Round { lost, ..*round });
        if overflows.of_startup && overflows.since >= STARTUP_ROUNDS {
            overflows.of_startup = false;
            if overflows.stayed(round.min_rtt_us) {
                return true;
            }
        }
        if !round.held_back {
            return false;
        }
        self.lost -= self.lost / FADING;
        self.lost += lost.min(MOST_TOLD);
        let unheeded = self.overflows.unheeded >= UNHEEDED;
        self.lost >= FADING * if unheeded { ENTER_UNHEEDED } else { ENTER }
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
        self.cycle_stamp = sample.now_us;
        self.state = State::ProbeBwCruise;
        let since_startup = self.round_count.wrapping_sub(self.drain_start_round);
        if !core::mem::replace(&mut self.started_again, true) && since_startup < RESTART_ROUNDS {
            self.state = State::Startup;
            self.full_bw_reached = false;
            self.reset_full_bw();
        }
    }

    /// The rival is forgotten.
    pub(super) fn forget_rival(&mut self) {
        if self.rival.present {
            self.max_bw_filter = [self.rival.rate(), 0];
            self.rival.present = false;
            self.rival.lost = LEFT * FADING;
            self.rival.overflows = Overflows::NONE;
        }
    }

    /// A round trip with a rival has ended, of which this share was lost.
    pub(super) fn rival_round(&mut self, sample: &AckSample, lost: u32, quiet: bool) {
        let quiet_rounds = self.rival.quiet_rounds.saturating_add(1);
        self.rival.quiet_rounds = if quiet { quiet_rounds } else { 0 };
        let most = if self.state == State::Startup { MOST_LOST_STARTUP } else { MOST_LOST };
        if lost > most || self.rival.quiet_rounds >= QUIET_ROUNDS {
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
