//! CUBIC (RFC 9438) with HyStart++ (RFC 9406).
//!
//! The arithmetic is in whole segments and 1024ths of a second, so that a window grows at the same
//! acknowledgement as Linux's does.

use millrace_wire::seq::Seq;

use super::hystart::{CSS_GROWTH_DIVISOR, Growth, HyStart};
use super::{AckSample, Congestion, Signal};

/// β, of 1024 (RFC 9438 §4.6).
const BETA: u64 = 717;
/// C, of 1024 (RFC 9438 §5.1): 0.4.
const SCALE: u64 = 410;
/// Bytes acknowledged, in eighths of a window, for which Reno's window at this β would grow by a
/// segment: 1/α (RFC 9438 §4.3).
const RENO_EIGHTHS: u64 = 8 * (1024 + BETA) / 3 / (1024 - BETA);
/// The curve is evaluated anew after this time, or a round trip, or when the window has changed.
const RECALCULATE_US: u32 = 1_000_000 / 32;
/// Before the first loss on a path the window grows by at least a twentieth each round trip.
const MOST_WITHOUT_MAXIMUM: u32 = 20;
/// Longest time on the curve, 1024ths of a second. No window needs more, and its cube fits 64
/// bits.
const LONGEST: u64 = 1 << 17;

/// The curve that is being followed.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    /// When it began.
    start_us: u32,
    /// Time from there to the plateau: K, 1024ths of a second.
    k: u32,
    /// The window at the plateau, segments.
    origin: u32,
    /// The window that Reno would have: W_est, segments.
    reno: u32,
    /// Bytes acknowledged since it last grew.
    reno_acked: u32,
}

/// Its own state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cubic {
    /// Payload of the segments that are counted; 0: none was yet.
    mss: u32,
    epoch: Option<Epoch>,
    /// W_max, segments; 0: none.
    maximum: u32,
    /// The window before the last reduction, segments.
    prior: u32,
    /// Segments to be acknowledged for each that the window grows by.
    every: u32,
    /// Bytes acknowledged since the last increase.
    acknowledged: u32,
    /// Window and time of the last look at the curve.
    last_window: u32,
    last_us: u32,
    /// When the window was used up last, and what had been sent by then.
    used_us: u32,
    used_until: Seq,
    hystart: HyStart,
    /// What stood before the last reduction (RFC 9438 §4.9.1).
    undo: Option<(Option<Epoch>, u32, u32)>,
}

impl Default for Cubic {
    fn default() -> Self {
        Cubic {
            mss: 0,
            epoch: None,
            maximum: 0,
            prior: 0,
            every: 0,
            acknowledged: 0,
            last_window: 0,
            last_us: 0,
            used_us: 0,
            used_until: Seq(0),
            hystart: HyStart::NEW,
            undo: None,
        }
    }
}

impl Cubic {
    pub(super) fn is_plain(&self) -> bool {
        self.maximum == 0 && self.epoch.is_none()
    }

    /// The curve does not run.
    #[inline]
    pub(super) fn has_no_epoch(&self) -> bool {
        self.epoch.is_none()
    }

    #[inline]
    pub(super) fn on_ack(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        if !sample.may_grow(congestion) {
            return;
        }
        self.skip_unused(sample);
        let mut acked = sample.delivered;
        if congestion.in_slow_start() {
            acked = self.slow_start(congestion, sample);
            if acked == 0 {
                return;
            }
        }
        self.update(congestion.window / sample.mss, acked, sample);
        let every = self.every.saturating_mul(sample.mss);
        congestion.increase(&mut self.acknowledged, acked, every, sample.mss);
    }

    /// Time in which something else than the window was the limit is none on the curve (RFC 9438
    /// §4.2, §5.8). No acknowledgement of that time comes here, so it shows afterwards: more than
    /// one round trip has passed, and what was sent meanwhile is acknowledged already. A path that
    /// stood still for as long has acknowledged nothing of the kind.
    #[inline]
    fn skip_unused(&mut self, sample: &AckSample) {
        if let Some(epoch) = &mut self.epoch {
            let since = sample.now_us.wrapping_sub(self.used_us);
            let round = sample.smoothed_us;
            // What was sent gigabytes ago is acknowledged, though by its number it would be to come.
            let acknowledged = !self.used_until.between(sample.ack, sample.snd_nxt + 1);
            if round > 0 && since > round.saturating_mul(2) && acknowledged {
                epoch.start_us = epoch.start_us.wrapping_add(since - round);
            }
        }
        self.used_us = sample.now_us;
        self.used_until = sample.snd_nxt;
    }

    /// Returns what is left for congestion avoidance.
    fn slow_start(&mut self, congestion: &mut Congestion, sample: &AckSample) -> u32 {
        // HyStart++ is for the first slow start, when nothing is known of the path.
        let growth = if congestion.threshold == u32::MAX {
            self.hystart.on_ack(sample)
        } else {
            Growth::Full
        };
        match growth {
            Growth::Full => congestion.slow_start(sample.delivered),
            Growth::Conservative => {
                let every = CSS_GROWTH_DIVISOR * sample.mss;
                congestion.increase(&mut self.acknowledged, sample.delivered, every, sample.mss);
                0
            }
            Growth::Leave => {
                congestion.threshold = congestion.window;
                self.acknowledged = 0;
                sample.delivered
            }
        }
    }

    /// Finds how many segments are to be acknowledged for the next increase (RFC 9438 §4.2 to
    /// §4.5).
    fn update(&mut self, window: u32, acked: u32, sample: &AckSample) {
        let now_us = sample.now_us;
        if let Some(epoch) = &mut self.epoch {
            epoch.reno_acked = epoch.reno_acked.saturating_add(acked);
        }
        if self.last_window == window
            && now_us.wrapping_sub(self.last_us) <= RECALCULATE_US.min(sample.min_rtt_us)
            && self.every > 0
        {
            return;
        }
        if self.mss != sample.mss {
            self.resize(sample.mss);
        }
        self.last_window = window;
        self.last_us = now_us;
        let maximum = self.maximum;
        let epoch = self.epoch.get_or_insert_with(|| {
            let (k, origin) = if maximum <= window {
                (0, window)
            } else {
                (cube_root((u64::from(maximum - window) << 40) / SCALE), maximum)
            };
            Epoch { start_us: now_us, k, origin, reno: window, reno_acked: acked }
        });
        let mut elapsed_us = now_us.wrapping_sub(epoch.start_us);
        if elapsed_us > 1 << 31 {
            // The clock goes round after 71 minutes, the curve must not.
            elapsed_us = 1 << 31;
            epoch.start_us = now_us.wrapping_sub(elapsed_us);
        }
        let time = ((u64::from(elapsed_us) + u64::from(sample.min_rtt_us)) << 10) / 1_000_000;
        let distance = time.abs_diff(u64::from(epoch.k)).min(LONGEST);
        let height = ((SCALE * distance * distance * distance) >> 40) as u32;
        let target = if time < u64::from(epoch.k) {
            epoch.origin.saturating_sub(height)
        } else {
            epoch.origin.saturating_add(height)
        };
        let mut every =
            if target > window { window / (target - window) } else { window.saturating_mul(100) };
        if maximum == 0 {
            every = every.min(MOST_WITHOUT_MAXIMUM);
        }

        // The Reno-friendly region (RFC 9438 §4.3). Once Reno would be where the last reduction
        // was, it would gain a whole segment for each window.
        let bytes = u64::from(window) * u64::from(sample.mss);
        let eighths = if epoch.reno < self.prior { RENO_EIGHTHS } else { RENO_EIGHTHS.min(8) };
        let each = ((bytes * eighths) >> 3).max(1);
        let acked = u64::from(epoch.reno_acked);
        if acked > each {
            let segments = (acked - 1) / each;
            epoch.reno_acked = (acked - segments * each) as u32;
            epoch.reno = epoch.reno.saturating_add(segments as u32);
        }
        if epoch.reno > window {
            every = every.min(window / (epoch.reno - window));
        }
        self.every = every.max(2);
    }

    /// The path takes segments of another size. What was learned of it stays the same in bytes, and
    /// the curve begins anew at the window as it is.
    #[cold]
    fn resize(&mut self, mss: u32) {
        let before = u64::from(core::mem::replace(&mut self.mss, mss));
        if before == 0 {
            return;
        }
        let resized = |segments: &mut u32| {
            let bytes = u64::from(*segments) * before;
            *segments = (bytes / u64::from(mss)).min(u32::MAX.into()) as u32;
        };
        self.epoch = None;
        resized(&mut self.maximum);
        resized(&mut self.prior);
        if let Some((epoch, maximum, prior)) = &mut self.undo {
            *epoch = None;
            resized(maximum);
            resized(prior);
        }
    }

    pub(super) fn on_congestion(&mut self, congestion: &mut Congestion, mss: u32, signal: Signal) {
        if self.mss != mss {
            self.resize(mss);
        }
        let window = congestion.window / mss;
        self.undo = Some((self.epoch.take(), self.maximum, self.prior));
        // Fast convergence (RFC 9438 §4.7): a flow that did not reach its last maximum makes room.
        self.maximum = if window < self.maximum {
            (u64::from(window) * (1024 + BETA) / 2048) as u32
        } else {
            window
        };
        self.prior = window;
        self.every = 0;
        let threshold = ((u64::from(window) * BETA) >> 10) as u32;
        congestion.threshold = threshold.max(2) * mss;
        if signal == Signal::Timeout {
            // RFC 9438 §4.8: the stage after it begins without a maximum to return to.
            self.maximum = 0;
            self.acknowledged = 0;
        }
    }

    pub(super) fn on_undo(&mut self) {
        if let Some((epoch, maximum, prior)) = self.undo.take() {
            (self.epoch, self.maximum, self.prior) = (epoch, maximum, prior);
            self.every = 0;
        }
    }

    /// Nothing was in flight for so long: the curve waits meanwhile (RFC 9438 §4.2, §5.8).
    pub(super) fn on_idle(&mut self, idle_us: u32, now_us: u32) {
        if let Some(epoch) = &mut self.epoch {
            let idle_us = idle_us.min(now_us.wrapping_sub(epoch.start_us));
            epoch.start_us = epoch.start_us.wrapping_add(idle_us);
            self.used_us = self.used_us.wrapping_add(idle_us);
        }
    }
}

/// The whole part of the cube root.
fn cube_root(value: u64) -> u32 {
    let mut root = 0u64;
    let mut bit = 1u64 << 21;
    while bit > 0 {
        let next = root + bit;
        // 2^22 cubed would not fit.
        if next < 1 << 21 && next * next * next <= value {
            root = next;
        }
        bit >>= 1;
    }
    root as u32
}

#[cfg(test)]
mod tests {
    use super::super::{AckSample, Algorithm, Congestion, Private, Signal};
    use super::*;
    use millrace_wire::seq::Seq;

    const MSS: u32 = 1000;

    struct Flow {
        congestion: Congestion,
        private: Private,
        mss: u32,
        now_us: u32,
        rtt_us: u32,
        at: u32,
    }

    impl Flow {
        /// In congestion avoidance at a window of so many segments, never a loss.
        fn new(window: u32, rtt_us: u32) -> Flow {
            let congestion = Congestion { window: window * MSS, threshold: window * MSS };
            let private = Private::new(Algorithm::Cubic);
            Flow { congestion, private, mss: MSS, now_us: 0, rtt_us, at: 0 }
        }

        fn segments(&self) -> u32 {
            self.congestion.window / self.mss
        }

        fn ack(&mut self, bytes: u32) {
            self.at = self.at.wrapping_add(bytes);
            let sample = AckSample {
                now_us: self.now_us,
                acked: bytes,
                delivered: bytes,
                mss: self.mss,
                rtt_us: self.rtt_us,
                min_rtt_us: self.rtt_us,
                smoothed_us: self.rtt_us,
                window_limited: true,
                ack: Seq(self.at),
                snd_nxt: Seq(self.at) + self.congestion.window,
                ..AckSample::default()
            };
            self.congestion.on_ack(&mut self.private, &sample);
        }

        /// A window is acknowledged, two segments at a time, evenly over the round trip.
        fn round(&mut self) {
            let acks = self.segments().div_ceil(2);
            for _ in 0..acks {
                self.now_us += self.rtt_us / acks;
                self.ack(2 * self.mss);
            }
        }

        fn lose(&mut self, signal: Signal) {
            let (window, now) = (self.congestion.window, self.now_us);
            self.congestion.on_congestion(&mut self.private, window, self.mss, now, signal);
            self.congestion.window = self.congestion.threshold;
        }
    }

    #[test]
    fn cube_roots() {
        for (value, root) in [(0, 0), (1, 1), (7, 1), (8, 2), (26, 2), (27, 3), (1 << 60, 1 << 20)]
        {
            assert_eq!(cube_root(value), root, "{value}");
        }
    }

    #[test]
    fn a_loss_leaves_seven_tenths() {
        let mut flow = Flow::new(100, 100_000);
        flow.lose(Signal::Loss);
        assert_eq!(flow.segments(), 70);
    }

    /// RFC 9438 §4.2, equation 1, against the window that comes out: W(t) = C (t - K)^3 + W_max
    /// with K = cbrt((W_max - cwnd_epoch) / C), looking a round trip ahead.
    #[test]
    fn the_window_follows_the_curve() {
        let mut flow = Flow::new(2000, 100_000);
        flow.lose(Signal::Loss);
        let (start, epoch) = (f64::from(flow.segments()), flow.now_us);
        let k = ((2000.0 - start) / 0.4).cbrt();
        for _ in 0..160 {
            flow.round();
            let t = f64::from(flow.now_us - epoch) / 1e6;
            let want = 0.4 * (t - k).powi(3) + 2000.0;
            let seen = f64::from(flow.segments());
            assert!((seen - want).abs() < 0.02 * want, "t = {t}: {seen} for {want}");
        }
        assert!(flow.segments() > 2000);
    }

    /// RFC 9438 §4.3: on a short path it is no slower than Reno with α = 3 (1 - β) / (1 + β), and
    /// with α = 1 from the last maximum on.
    #[test]
    fn on_a_short_path_it_grows_as_reno_does() {
        let mut flow = Flow::new(40, 1_000);
        flow.lose(Signal::Loss);
        assert_eq!(flow.segments(), 28);
        let mut reno = 28.0f64;
        for round in 0..60 {
            flow.round();
            reno += if reno < 40.0 { 0.53 } else { 1.0 };
            let seen = f64::from(flow.segments());
            assert!((seen - reno).abs() <= 2.0, "round {round}: {seen}, reno {reno}");
        }
    }

    #[test]
    fn a_flow_that_did_not_reach_its_maximum_makes_room() {
        let mut flow = Flow::new(100, 100_000);
        flow.lose(Signal::Loss);
        let Private::Cubic(cubic) = &flow.private else { panic!() };
        assert_eq!(cubic.maximum, 100);
        flow.lose(Signal::Loss);
        let Private::Cubic(cubic) = &flow.private else { panic!() };
        // 70 * (1 + 0.7) / 2
        assert_eq!(cubic.maximum, 59);
    }

    #[test]
    fn no_ack_gains_more_than_half_of_itself_in_avoidance() {
        let mut flow = Flow::new(10, 100_000);
        flow.lose(Signal::Loss);
        flow.now_us += 1;
        flow.ack(2 * MSS);
        flow.now_us += 100_000_000;
        flow.ack(2 * MSS);
        for _ in 0..20 {
            let before = flow.segments();
            flow.ack(2 * MSS);
            assert_eq!(flow.segments(), before + 1);
        }
    }

    #[test]
    fn the_curve_waits_while_nothing_is_sent() {
        let mut busy = Flow::new(100, 100_000);
        busy.lose(Signal::Loss);
        (0..5).for_each(|_| busy.round());
        let before = busy.segments();
        let mut idle = Flow { ..busy };
        idle.now_us += 60_000_000;
        let Private::Cubic(cubic) = &mut idle.private else { panic!() };
        cubic.on_idle(60_000_000, idle.now_us);
        idle.round();
        busy.round();
        assert_eq!(idle.segments(), busy.segments());
        assert!(idle.segments() < before + 10);
    }

    /// For a minute the application writes little, and keeps something in flight all the time.
    #[test]
    fn the_curve_waits_while_the_application_limits() {
        let mut busy = Flow::new(100, 100_000);
        busy.lose(Signal::Loss);
        (0..5).for_each(|_| busy.round());
        let mut slow = Flow { ..busy };
        slow.now_us += 60_000_000;
        slow.at += 600 * MSS;
        slow.round();
        busy.round();
        assert!(slow.segments().abs_diff(busy.segments()) <= 1);
    }

    /// It stands still with a window of data in flight, which tells nothing of the application.
    #[test]
    fn the_curve_goes_on_while_the_path_stands_still() {
        let mut flow = Flow::new(100, 100_000);
        flow.lose(Signal::Loss);
        (0..5).for_each(|_| flow.round());
        let mut stalled = Flow { ..flow };
        stalled.now_us += 20_000_000;
        stalled.round();
        flow.round();
        assert!(stalled.segments() > flow.segments());
    }

    #[test]
    fn an_epoch_longer_than_the_clock_goes_on_growing() {
        let mut flow = Flow::new(100, 100_000);
        flow.lose(Signal::Loss);
        flow.round();
        // Three hours, in steps.
        for _ in 0..36 {
            flow.now_us = flow.now_us.wrapping_add(300_000_000);
            let before = flow.segments();
            flow.ack(2 * MSS);
            flow.ack(2 * MSS);
            assert!(flow.segments() > before);
        }
    }

    /// A path has its maximum in bytes. Counted in the segments of before, it would be three times as
    /// much, or so little that nothing grows any more.
    #[test]
    fn the_maximum_stays_where_it_was_when_segments_change_their_size() {
        let mut flow = Flow::new(300, 100_000);
        flow.lose(Signal::Loss);
        (0..3).for_each(|_| flow.round());
        for (mss, rounds) in [(3 * MSS, 15), (MSS / 3, 100)] {
            let mut other = Flow { mss, ..flow };
            (0..rounds).for_each(|_| other.round());
            let window = other.congestion.window;
            assert!((230_000..=320_000).contains(&window), "{window} bytes in segments of {mss}");
            other.lose(Signal::Loss);
            assert!(other.congestion.threshold.abs_diff(window / 10 * 7) < 2 * mss);
        }
    }

    /// The acknowledgements of a time in which the application limits do not come here.
    #[test]
    fn the_curve_waits_while_gigabytes_are_sent_that_do_not_use_the_window() {
        for bytes in [1u32 << 20, 1 << 30, (1 << 31) + 1_000_000, 3 << 30, u32::MAX - 1_000_000] {
            let mut flow = Flow::new(100, 100_000);
            flow.lose(Signal::Loss);
            (0..5).for_each(|_| flow.round());
            let before = flow.segments();
            flow.now_us += 300_000_000;
            flow.at = flow.at.wrapping_add(bytes);
            (0..3).for_each(|_| flow.round());
            assert!(flow.segments() < before + 10, "{before} and {} {bytes}", flow.segments());
        }
    }

    #[test]
    fn undo_brings_the_curve_back() {
        let mut flow = Flow::new(100, 100_000);
        flow.lose(Signal::Loss);
        (0..20).for_each(|_| flow.round());
        let prior = flow.congestion;
        let mut spared = Flow { ..flow };
        flow.lose(Signal::Timeout);
        flow.congestion.on_undo(&mut flow.private, prior);
        assert_eq!(flow.congestion.window, prior.window);
        for _ in 0..20 {
            flow.round();
            spared.round();
            assert!(flow.segments().abs_diff(spared.segments()) <= 1);
        }
    }

    #[test]
    fn after_a_timeout_it_plateaus_where_slow_start_ends() {
        let mut flow = Flow::new(10, 100_000);
        flow.congestion.on_timeout(&mut flow.private, 0, MSS, 0, true);
        assert_eq!((flow.segments(), flow.congestion.threshold), (1, 7 * MSS));
        for _ in 0..6 {
            flow.ack(MSS);
        }
        assert_eq!(flow.segments(), 7);
        // As Linux: a segment for twenty, or for thirteen where Reno would have gained one and it
        // is time to look again.
        for _ in 0..15 {
            flow.now_us += 2_000;
            flow.ack(MSS);
        }
        assert_eq!(flow.segments(), 7);
        flow.now_us += 98_000;
        flow.ack(MSS);
        assert_eq!(flow.segments(), 8);
    }
}
