//! Congestion control: how much may be in flight, and how fast it leaves.
//!
//! Every algorithm is a set of pure functions on [`Congestion`], which each connection has, and on
//! [`Private`], the algorithm's own state, which only a connection that sends has. Which one runs
//! is the variant of `Private` and one `match` an event, no dynamic call. What is lost and what is
//! sent again belongs to the connection: it says what happened, and the algorithm answers with a
//! window, a threshold and, if it likes, a pacing rate.
//!
//! Counts are in bytes, but a window moves by whole segments as Linux's does, so that its
//! `tcpi_snd_cwnd` can be compared with ours.

mod bbr;
#[cfg(test)]
mod bbr1;
mod cubic;
mod dctcp;
mod hystart;
#[cfg(test)]
mod model;
mod newreno;
mod setting;
mod windowed_max;

use millrace_wire::seq::Seq;

use bbr::Bbr;
use cubic::Cubic;
use dctcp::Dctcp;
use newreno::NewReno;

/// No window grows beyond this: sequence numbers must stay comparable.
const LARGEST_WINDOW: u32 = 1 << 30;

/// Names as Linux's `TCP_CONGESTION` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Algorithm {
    /// `cubic`: RFC 9438 with HyStart++ (RFC 9406).
    #[default]
    Cubic,
    /// `reno`: RFC 5681 and RFC 6582.
    NewReno,
    /// `bbr`: version 3 (draft-ietf-ccwg-bbr).
    Bbr,
    /// `dctcp`: RFC 8257; for networks whose queues mark by it. Without ECN it is NewReno.
    Dctcp,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 4] =
        [Algorithm::Cubic, Algorithm::NewReno, Algorithm::Bbr, Algorithm::Dctcp];

    /// It is made for ECN that tells every mark: a connection that uses it asks for that.
    pub(crate) fn needs_ecn(self) -> bool {
        self == Algorithm::Dctcp
    }

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Cubic => "cubic",
            Algorithm::NewReno => "reno",
            Algorithm::Bbr => "bbr",
            Algorithm::Dctcp => "dctcp",
        }
    }
}

impl core::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no algorithm has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm(String);

impl core::fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "no congestion control is called {:?}; there are", self.0)?;
        for (at, algorithm) in Algorithm::ALL.iter().enumerate() {
            write!(f, "{} {algorithm}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownAlgorithm {}

impl core::str::FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| UnknownAlgorithm(name.chars().take(32).collect()))
    }
}

/// Where a connection stands, as Linux's `tcpi_ca_state` numbers it.
#[allow(dead_code, reason = "the whole vocabulary; recovery does not tell all of them yet")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum CaState {
    /// Nothing is amiss.
    #[default]
    Open,
    /// Duplicate acknowledgements or SACK blocks, and no loss yet.
    Disorder,
    /// The window comes down because of ECN.
    Cwr,
    /// Fast recovery.
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

/// Why a window must come down.
#[allow(dead_code, reason = "ECN is not spoken yet")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// A segment is lost; acknowledgements still come.
    Loss,
    /// The peer tells of a Congestion Experienced mark (RFC 3168).
    Ecn,
    /// The retransmission timer ran out.
    Timeout,
}

/// Delivery rate over the flight that an acknowledgement ends (draft-ietf-ccwg-bbr, section on
/// delivery rate samples). Totals are bytes modulo 2^32.
#[allow(dead_code, reason = "what BBR reads")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RateSample {
    /// Bytes delivered in the interval.
    pub(crate) delivered: u32,
    /// The interval; 0: the sample is none.
    pub(crate) interval_us: u32,
    /// `delivered_total` when the newest of the delivered segments was sent.
    pub(crate) prior_delivered: u32,
    /// The application left the pipe unfilled when that segment was sent.
    pub(crate) app_limited: bool,
    /// Bytes in flight just after that segment was sent.
    pub(crate) in_flight_at_send: u32,
    /// Bytes marked lost since that segment was sent.
    pub(crate) lost_since_send: u32,
    /// Bytes delivered in the connection's life.
    pub(crate) delivered_total: u32,
    /// Bytes marked lost in the connection's life.
    pub(crate) lost_total: u32,
}

/// What one acknowledgement tells.
#[allow(dead_code, reason = "what other algorithms read")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AckSample {
    /// The clock, microseconds modulo 2^32.
    pub(crate) now_us: u32,
    /// Bytes newly acknowledged cumulatively.
    pub(crate) acked: u32,
    /// Bytes newly delivered: acknowledged or selectively acknowledged for the first time.
    pub(crate) delivered: u32,
    /// Bytes newly marked lost.
    pub(crate) lost: u32,
    /// Bytes in flight now.
    pub(crate) in_flight: u32,
    /// Bytes in flight before the acknowledgement.
    pub(crate) prior_in_flight: u32,
    /// This acknowledgement's round-trip time; 0: none.
    pub(crate) rtt_us: u32,
    /// Least round-trip time of late; 0: none.
    pub(crate) min_rtt_us: u32,
    /// Smoothed round-trip time; 0: none.
    pub(crate) smoothed_us: u32,
    /// Payload bytes of a full segment, TCP options taken off.
    pub(crate) mss: u32,
    /// The window, and not the application, held the sender back (RFC 7661): only then may it
    /// grow.
    pub(crate) window_limited: bool,
    /// The peer's receive window held the sender back until now.
    pub(crate) peer_limited: bool,
    /// The path is known to reorder: bytes that are only selectively acknowledged count too.
    pub(crate) reorders: bool,
    /// The peer tells of one loss a round trip at most, having no SACK.
    pub(crate) no_sack: bool,
    /// Where the connection stands after the acknowledgement.
    pub(crate) state: CaState,
    /// First unacknowledged sequence number now.
    pub(crate) ack: Seq,
    /// Next sequence number to be sent.
    pub(crate) snd_nxt: Seq,
    /// Delivery rate.
    pub(crate) rate: RateSample,
    /// Delivered bytes whose packets were marked Congestion Experienced.
    pub(crate) ce_bytes: u32,
}

/// A segment that was marked lost, for algorithms that look at each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LostSegment {
    pub(crate) now_us: u32,
    /// Its bytes.
    pub(crate) len: u32,
    /// Bytes in flight just after it was sent.
    pub(crate) in_flight_at_send: u32,
    /// Bytes marked lost since it was sent, itself included.
    pub(crate) lost_since_send: u32,
    /// Bytes delivered in the connection's life.
    pub(crate) delivered_total: u32,
    /// The application left the pipe unfilled when it was sent.
    pub(crate) app_limited: bool,
    /// The peer has no SACK.
    pub(crate) no_sack: bool,
}

/// What every connection has. Bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    /// Congestion window.
    pub(crate) window: u32,
    /// Slow start below it, congestion avoidance from there.
    pub(crate) threshold: u32,
}

/// The algorithm's own state; needed only while data is in flight, or where something was learned.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "it is part of a pooled record")]
pub(crate) enum Private {
    Cubic(Cubic),
    Reno(NewReno),
    Bbr(Bbr),
    Dctcp(Dctcp),
}

impl Default for Private {
    fn default() -> Self {
        Private::new(Algorithm::default())
    }
}

impl Private {
    /// The state of an algorithm that knows nothing of its path yet.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Cubic => Private::Cubic(Cubic::default()),
            Algorithm::NewReno => Private::Reno(NewReno::default()),
            Algorithm::Bbr => Private::Bbr(Bbr::default()),
            Algorithm::Dctcp => Private::Dctcp(Dctcp::default()),
        }
    }

    /// As [`Private::new`], in place: the largest state is many times the smallest, and a new one of
    /// the same kind writes no more than its own.
    #[inline]
    pub(crate) fn renew(&mut self, algorithm: Algorithm) {
        match (self, algorithm) {
            (Private::Cubic(cubic), Algorithm::Cubic) => *cubic = Cubic::default(),
            (Private::Reno(reno), Algorithm::NewReno) => *reno = NewReno::default(),
            (private, algorithm) => *private = Private::new(algorithm),
        }
    }

    /// Whose state it is.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Private::Cubic(_) => Algorithm::Cubic,
            Private::Reno(_) => Algorithm::NewReno,
            Private::Bbr(_) => Algorithm::Bbr,
            Private::Dctcp(_) => Algorithm::Dctcp,
        }
    }

    /// Nothing was learned that is worth keeping: [`Private::new`] serves as well.
    pub(crate) fn is_plain(&self) -> bool {
        match self {
            Private::Cubic(cubic) => cubic.is_plain(),
            Private::Reno(_) => true,
            Private::Bbr(bbr) => bbr.is_plain(),
            Private::Dctcp(dctcp) => dctcp.is_plain(),
        }
    }

    /// The algorithm sets the window in every state, recovery included, and by itself: no
    /// proportional rate reduction.
    #[inline]
    pub(crate) fn owns_window(&self) -> bool {
        matches!(self, Private::Bbr(_))
    }

    /// The window depends on what is acknowledged in order by nothing but [`Congestion::on_ack`], and
    /// not at all while it is not used up.
    #[inline]
    pub(crate) fn counts_only(&self) -> bool {
        matches!(self, Private::Cubic(_) | Private::Reno(_))
    }

    /// A loss brings the window down further than a mark has done in the same round trip.
    pub(crate) fn heeds_losses_more(&self) -> bool {
        matches!(self, Private::Dctcp(_))
    }

    /// [`Congestion::on_idle_restart`] does nothing after a pause that is no longer than a timeout.
    #[inline]
    pub(crate) fn ignores_pauses(&self) -> bool {
        match self {
            Private::Cubic(cubic) => cubic.has_no_epoch(),
            Private::Reno(_) | Private::Dctcp(_) => true,
            Private::Bbr(_) => false,
        }
    }

    /// Bytes a second at which to send; `None`: [`Congestion::pacing_rate`] serves.
    #[inline]
    pub(crate) fn pacing_rate(&self) -> Option<u64> {
        match self {
            Private::Bbr(bbr) => bbr.pacing_rate(),
            Private::Cubic(_) | Private::Reno(_) | Private::Dctcp(_) => None,
        }
    }

    /// Largest burst, in bytes, that the algorithm wants to leave at once; `None`: no opinion.
    #[inline]
    pub(crate) fn send_quantum(&self) -> Option<u32> {
        match self {
            Private::Bbr(bbr) => bbr.send_quantum(),
            Private::Cubic(_) | Private::Reno(_) | Private::Dctcp(_) => None,
        }
    }

    /// The algorithm sends less than the path takes, on purpose: what is sent now is to be marked
    /// as limited by the application.
    #[inline]
    pub(crate) fn holds_back(&self) -> bool {
        match self {
            Private::Bbr(bbr) => bbr.holds_back(),
            Private::Cubic(_) | Private::Reno(_) | Private::Dctcp(_) => false,
        }
    }
}

impl Congestion {
    pub(crate) const EMPTY: Congestion = Congestion { window: 0, threshold: u32::MAX };

    /// RFC 6928 and RFC 5681 §3.1.
    pub(crate) fn new(mss: u32, initial_segments: u8) -> Self {
        let window = mss * u32::from(initial_segments.max(1));
        Congestion { window, threshold: u32::MAX }
    }

    #[inline]
    pub(crate) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Bytes a second at which a window leaves that its algorithm does not pace, as Linux has it:
    /// twice the window each round trip while it doubles, and a fifth more than it after that.
    /// `None` before the first round-trip time.
    #[allow(dead_code, reason = "for pacing")]
    pub(crate) fn pacing_rate(&self, in_flight: u32, smoothed_us: u32) -> Option<u64> {
        if smoothed_us == 0 {
            return None;
        }
        let percent = if self.window < self.threshold / 2 { 200 } else { 120 };
        let window = u64::from(self.window.max(in_flight));
        Some(window * percent * 10_000 / u64::from(smoothed_us))
    }

    /// An acknowledgement came. Called for every one, in every state; in `Cwr` and `Recovery` only
    /// an algorithm that owns its window changes it.
    #[inline]
    pub(crate) fn on_ack(&mut self, private: &mut Private, sample: &AckSample) {
        let grows = !matches!(sample.state, CaState::Cwr | CaState::Recovery);
        match private {
            Private::Cubic(cubic) if grows => cubic.on_ack(self, sample),
            Private::Reno(reno) if grows => reno.on_ack(self, sample),
            Private::Cubic(_) | Private::Reno(_) => {}
            Private::Bbr(bbr) => bbr.on_ack(self, sample),
            Private::Dctcp(dctcp) => {
                dctcp.observe(sample);
                if grows {
                    dctcp.on_ack(self, sample);
                }
            }
        }
    }

    /// A segment was marked lost. Called for each, before the acknowledgement that told of it.
    #[inline]
    pub(crate) fn on_segment_lost(&mut self, private: &mut Private, lost: &LostSegment) {
        match private {
            Private::Bbr(bbr) => bbr.on_segment_lost(self, lost),
            Private::Cubic(_) | Private::Reno(_) | Private::Dctcp(_) => {}
        }
    }

    /// The window must come down: sets the threshold. The caller brings the window down to it,
    /// by proportional rate reduction or at once, unless the algorithm owns it. Once for each
    /// window of data.
    pub(crate) fn on_congestion(
        &mut self,
        private: &mut Private,
        _in_flight: u32,
        mss: u32,
        _now_us: u32,
        signal: Signal,
    ) {
        match private {
            Private::Cubic(cubic) => cubic.on_congestion(self, mss, signal),
            Private::Reno(reno) => reno.on_congestion(self, mss),
            Private::Dctcp(dctcp) => dctcp.on_congestion(self, mss, signal),
            Private::Bbr(bbr) => bbr.on_congestion(self, signal),
        }
    }

    /// The retransmission timer ran out; `in_flight` is what is still believed to be under way.
    /// `first`: for this data, so that back-off does not lower the threshold again and again
    /// (RFC 5681 §3.1).
    pub(crate) fn on_timeout(
        &mut self,
        private: &mut Private,
        in_flight: u32,
        mss: u32,
        now_us: u32,
        first: bool,
    ) {
        if first {
            self.on_congestion(private, in_flight, mss, now_us, Signal::Timeout);
        }
        self.window = in_flight.saturating_add(mss);
    }

    /// A reduction or a recovery is over: everything sent before it began is acknowledged. Not
    /// called after a timeout, from which slow start has brought the window to where it is, but
    /// for an algorithm that owns its window.
    pub(crate) fn on_recovery_done(&mut self, private: &mut Private) {
        match private {
            Private::Bbr(bbr) => bbr.on_recovery_done(self),
            Private::Cubic(_) | Private::Reno(_) | Private::Dctcp(_) => {
                if self.threshold != u32::MAX {
                    self.window = self.threshold;
                }
            }
        }
    }

    /// What was taken for a loss was none. `prior` is what stood before it.
    pub(crate) fn on_undo(&mut self, private: &mut Private, prior: Congestion) {
        self.window = self.window.max(prior.window);
        self.threshold = self.threshold.max(prior.threshold);
        match private {
            Private::Cubic(cubic) => cubic.on_undo(),
            Private::Bbr(bbr) => bbr.on_undo(self),
            Private::Reno(_) | Private::Dctcp(_) => {}
        }
    }

    /// Data leaves while nothing was in flight for `idle_us`. After more than a retransmission
    /// timeout the window halves for each further one, down to the initial window, since what is
    /// known of the path is old (RFC 5681 §4.1 in the form that RFC 2861 and Linux have). An
    /// algorithm that paces by a model of the path keeps the window. The algorithm hears of shorter
    /// pauses too, and of all where the window is to stay as it is (`timeout_us` is `u32::MAX`).
    pub(crate) fn on_idle_restart(
        &mut self,
        private: &mut Private,
        now_us: u32,
        idle_us: u32,
        timeout_us: u32,
        mss: u32,
        initial_segments: u8,
    ) {
        match private {
            Private::Bbr(bbr) => return bbr.on_idle_restart(self, now_us, idle_us),
            Private::Cubic(cubic) => cubic.on_idle(idle_us, now_us),
            Private::Reno(_) | Private::Dctcp(_) => {}
        }
        if idle_us <= timeout_us {
            return;
        }
        let halvings = idle_us / timeout_us.max(1);
        let least = self.window.min(mss * u32::from(initial_segments.max(1)));
        if self.threshold != u32::MAX {
            self.threshold = self.threshold.max(self.window / 4 * 3);
        }
        self.window = self.window.checked_shr(halvings).unwrap_or(0).max(least);
    }

    /// Another algorithm takes over. It begins with the window as it is, and with the threshold: a
    /// window that a timeout or a pause has made small grows back. Where the path was measured by one
    /// that knows no threshold, slow start is for what its window is short of.
    pub(crate) fn switch(&mut self, private: &mut Private, to: Algorithm) {
        if private.algorithm() == to {
            return;
        }
        if let Private::Bbr(bbr) = private
            && !bbr.is_plain()
        {
            self.threshold = bbr.usual_window(self.window);
        }
        *private = Private::new(to);
    }

    /// Additive increase: a segment for every `every` bytes acknowledged.
    #[inline]
    fn increase(&mut self, counter: &mut u32, acked: u32, every: u32, mss: u32) {
        let every = every.max(1);
        // Counted under a larger divisor, it may be worth a segment already, but not many.
        if *counter >= every {
            *counter = 0;
            self.grow(mss);
        }
        *counter = counter.saturating_add(acked);
        if *counter >= every {
            let segments = *counter / every;
            *counter -= segments * every;
            self.grow(segments.saturating_mul(mss));
        }
    }

    #[inline]
    fn grow(&mut self, bytes: u32) {
        self.window = self.window.saturating_add(bytes).min(LARGEST_WINDOW);
    }

    /// Slow start (RFC 5681 §3.1): grows by what was acknowledged, up to the threshold. Returns
    /// the rest.
    #[inline]
    fn slow_start(&mut self, acked: u32) -> u32 {
        let after = self.window.saturating_add(acked).min(self.threshold).min(LARGEST_WINDOW);
        let rest = acked - after.saturating_sub(self.window).min(acked);
        self.window = after.max(self.window);
        rest
    }
}

impl AckSample {
    /// Whether a window that follows losses may grow by this acknowledgement, as Linux decides.
    #[inline]
    fn may_grow(&self, congestion: &Congestion) -> bool {
        let progress = self.acked > 0 || (self.reorders && self.delivered > 0);
        // A doubling window counts as used from half of it on.
        let used = self.window_limited
            || (congestion.in_slow_start() && congestion.window / 2 < self.prior_in_flight);
        progress && used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
        }
        let error = "vegas".parse::<Algorithm>().unwrap_err().to_string();
        assert!(
            error.starts_with("no congestion control is called \"vegas\"; there are "),
            "{error}"
        );
    }

    #[test]
    fn a_pause_halves_the_window_for_each_timeout_that_it_lasts() {
        let mut private = Private::default();
        let start = Congestion { window: 80_000, threshold: 50_000 };
        for (idle, window, threshold) in [
            (200, 80_000, 50_000),
            (201, 40_000, 60_000),
            (500, 20_000, 60_000),
            (9000, 10_000, 60_000),
        ] {
            let mut congestion = start;
            congestion.on_idle_restart(&mut private, 0, idle, 200, 1000, 10);
            assert_eq!((congestion.window, congestion.threshold), (window, threshold), "{idle}");
        }
    }

    #[test]
    fn another_algorithm_goes_on_with_the_threshold() {
        for (from, to) in [
            (Algorithm::Cubic, Algorithm::NewReno),
            (Algorithm::NewReno, Algorithm::Cubic),
            (Algorithm::Dctcp, Algorithm::Cubic),
        ] {
            let mut private = Private::new(from);
            let mut congestion = Congestion { window: 100_000, threshold: 100_000 };
            congestion.on_timeout(&mut private, 0, 1000, 0, true);
            let Congestion { window, threshold } = congestion;
            congestion.switch(&mut private, to);
            assert_eq!((congestion.window, congestion.threshold), (window, threshold), "{from}");
            // Nothing has ended the first slow start.
            let mut congestion = Congestion::new(1000, 10);
            congestion.switch(&mut Private::new(from), to);
            assert!(congestion.in_slow_start(), "{from}");
        }
    }

    #[test]
    fn pacing_is_twice_the_window_while_it_doubles() {
        let doubling = Congestion { window: 10_000, threshold: u32::MAX };
        assert_eq!(doubling.pacing_rate(0, 100_000), Some(200_000));
        let settled = Congestion { window: 10_000, threshold: 10_000 };
        assert_eq!(settled.pacing_rate(0, 100_000), Some(120_000));
        assert_eq!(settled.pacing_rate(0, 0), None);
    }
}
