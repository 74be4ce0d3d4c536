//! Data Center TCP (RFC 8257): the window comes down by as much as the share of marked bytes says.
//!
//! It needs ECN that tells every mark. Without ECN, or where segments are lost, it is NewReno
//! (RFC 8257 §3.4 and §3.5): a loss halves the window, also one that is coming down for marks.

use millrace_wire::seq::Seq;

use super::newreno::NewReno;
use super::{AckSample, Congestion, Signal};

/// α is counted in 1024ths.
const ONE: u32 = 1024;
/// g, the weight of a new sample, is 1/16 (RFC 8257 §4.2).
const WEIGHT_SHIFT: u32 = 4;

/// Its own state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dctcp {
    growth: NewReno,
    /// Share of marked bytes, smoothed.
    alpha: u32,
    /// An observation window ends when this is acknowledged.
    window_end: Seq,
    started: bool,
    acked: u32,
    marked: u32,
}

impl Default for Dctcp {
    /// RFC 8257 §4.2: begins with the most careful estimate.
    fn default() -> Self {
        Dctcp {
            growth: NewReno::EMPTY,
            alpha: ONE,
            window_end: Seq(0),
            started: false,
            acked: 0,
            marked: 0,
        }
    }
}

impl Dctcp {
    pub(super) fn is_plain(&self) -> bool {
        self.alpha == ONE
    }

    /// Counts marks in every state, and grows as NewReno does.
    #[inline]
    pub(super) fn on_ack(&mut self, congestion: &mut Congestion, sample: &AckSample) {
        self.growth.on_ack(congestion, sample);
    }

    /// RFC 8257 §3.3, steps 1 to 8: once for each window of data.
    #[inline]
    pub(super) fn observe(&mut self, sample: &AckSample) {
        self.acked = self.acked.saturating_add(sample.delivered);
        self.marked = self.marked.saturating_add(sample.ce_bytes);
        if !self.started {
            self.started = true;
            self.window_end = sample.snd_nxt;
        }
        if sample.ack.lt(self.window_end) {
            return;
        }
        self.window_end = sample.snd_nxt;
        let decay = self.alpha >> WEIGHT_SHIFT;
        // The last steps would round to nothing and leave α above zero for ever.
        self.alpha -= if decay == 0 { self.alpha } else { decay };
        let marked = u64::from(self.marked.min(self.acked)) << (10 - WEIGHT_SHIFT);
        self.alpha = (self.alpha + (marked / u64::from(self.acked.max(1))) as u32).min(ONE);
        (self.acked, self.marked) = (0, 0);
    }

    pub(super) fn on_congestion(&mut self, congestion: &mut Congestion, mss: u32, signal: Signal) {
        self.growth.on_congestion(congestion, mss);
        if signal == Signal::Ecn {
            // §3.3 step 9: cwnd (1 - α / 2). Less than a segment is none, as in Linux: a window of
            // four would otherwise give a quarter of itself for one mark in hundreds.
            let segments = congestion.window / mss;
            let cut = (u64::from(segments) * u64::from(self.alpha) / 2048) as u32;
            congestion.threshold = (segments - cut).max(2) * mss;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// One observation window of 100 segments of which so many are marked.
    fn window(dctcp: &mut Dctcp, at: &mut u32, marked: u32) {
        for n in 0..100 {
            *at += MSS;
            dctcp.observe(&AckSample {
                acked: MSS,
                delivered: MSS,
                ce_bytes: if n < marked { MSS } else { 0 },
                mss: MSS,
                ack: Seq(*at),
                // Acknowledged when the last of the hundred is.
                snd_nxt: Seq(*at + 100 * MSS),
                ..AckSample::default()
            });
        }
    }

    fn cut(dctcp: &mut Dctcp, signal: Signal) -> u32 {
        cut_from(100, dctcp, signal)
    }

    fn cut_from(segments: u32, dctcp: &mut Dctcp, signal: Signal) -> u32 {
        let mut congestion = Congestion { window: segments * MSS, threshold: u32::MAX };
        dctcp.on_congestion(&mut congestion, MSS, signal);
        congestion.threshold / MSS
    }

    #[test]
    fn alpha_goes_to_the_share_of_marked_bytes() {
        for (marked, alpha) in [(0u32, 0u32), (10, 102), (50, 512), (100, 1024)] {
            let mut dctcp = Dctcp::default();
            let mut at = 0;
            (0..120).for_each(|_| window(&mut dctcp, &mut at, marked));
            assert!(dctcp.alpha.abs_diff(alpha) <= 20, "{marked}: {}", dctcp.alpha);
        }
    }

    /// α = α (1 - g) + g M.
    #[test]
    fn one_window_moves_it_by_a_sixteenth() {
        let mut dctcp = Dctcp { alpha: 512, ..Dctcp::default() };
        let mut at = 0;
        // The first acknowledgement begins the window, and the hundredth after it ends it.
        window(&mut dctcp, &mut at, 100);
        assert_eq!(dctcp.alpha, 512);
        window(&mut dctcp, &mut at, 0);
        assert!((542..=544).contains(&dctcp.alpha), "{}", dctcp.alpha);
    }

    #[test]
    fn the_window_comes_down_by_half_of_alpha_for_marks_and_by_half_for_losses() {
        let mut dctcp = Dctcp { alpha: 102, ..Dctcp::default() };
        assert_eq!(cut(&mut dctcp, Signal::Ecn), 96);
        assert_eq!(cut(&mut dctcp, Signal::Loss), 50);
        assert_eq!(cut(&mut dctcp, Signal::Timeout), 50);
        assert_eq!(cut(&mut Dctcp::default(), Signal::Ecn), 50);
    }

    #[test]
    fn a_small_window_does_not_come_down_for_a_small_share() {
        for (alpha, segments) in [(10, 4), (511, 4), (512, 3), (1024, 2)] {
            let mut dctcp = Dctcp { alpha, ..Dctcp::default() };
            assert_eq!(cut_from(4, &mut dctcp, Signal::Ecn), segments, "{alpha}");
        }
    }

    #[test]
    fn more_marks_than_bytes_are_no_more_than_all() {
        let mut dctcp = Dctcp::default();
        for at in 1..1000 {
            dctcp.observe(&AckSample {
                delivered: 1,
                ce_bytes: u32::MAX,
                ack: Seq(at * 10),
                snd_nxt: Seq(at * 10 + 5),
                ..AckSample::default()
            });
            assert!(dctcp.alpha <= ONE);
        }
        assert_eq!(dctcp.alpha, ONE);
    }
}
