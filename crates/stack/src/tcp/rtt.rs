//! Round-trip time and the retransmission timeout (RFC 6298), one sample a window (Karn).

use millrace_wire::seq::Seq;

/// Estimator state, microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    /// Smoothed round-trip time; 0: no sample yet.
    pub(crate) smoothed: u32,
    /// Its variation.
    pub(crate) variation: u32,
    /// Timeout without back-off.
    pub(crate) timeout: u32,
    /// The segment that is being timed ends here...
    timed: Seq,
    /// ...and left at this time.
    sent_at: u32,
    timing: bool,
    /// How often the timeout was doubled since the last sample.
    backoff: u8,
}

/// Timeout of the first data after a SYN that was lost, microseconds.
const AFTER_LOST_SYN: u32 = 3_000_000;

/// Bounds of the timeout, microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl Rtt {
    pub(crate) const EMPTY: Rtt = Rtt {
        smoothed: 0,
        variation: 0,
        timeout: 0,
        timed: Seq(0),
        sent_at: 0,
        timing: false,
        backoff: 0,
    };

    pub(crate) fn new(initial_timeout: u32) -> Self {
        Rtt { timeout: initial_timeout, ..Rtt::EMPTY }
    }

    /// Starts to time a segment that is sent for the first time, unless one is being timed.
    #[inline]
    pub(crate) fn sent(&mut self, end: Seq, now_us: u32) {
        if !self.timing {
            self.timing = true;
            self.timed = end;
            self.sent_at = now_us;
        }
    }

    /// Something was sent again: an acknowledgement no longer tells which copy it is for.
    #[inline]
    pub(crate) fn cancel(&mut self) {
        self.timing = false;
    }

    /// Takes a sample if the timed segment is acknowledged.
    #[inline]
    pub(crate) fn acknowledged(&mut self, ack: Seq, now_us: u32, bounds: Bounds) {
        if self.timing && ack.ge(self.timed) {
            self.timing = false;
            self.sample(now_us.wrapping_sub(self.sent_at), bounds);
        }
    }

    /// RFC 6298 §2.2 and §2.3.
    fn sample(&mut self, rtt: u32, bounds: Bounds) {
        // 0 means "none yet", and a wheel tick is more than a microsecond anyway.
        let rtt = rtt.clamp(1, 1 << 28);
        self.backoff = 0;
        if self.smoothed == 0 {
            self.smoothed = rtt;
            self.variation = rtt / 2;
        } else {
            let error = self.smoothed.abs_diff(rtt);
            self.variation = self.variation - self.variation / 4 + error / 4;
            self.smoothed = (self.smoothed - self.smoothed / 8 + rtt / 8).max(1);
        }
        // Linux bounds the variance term and not the sum; RFC 6298 §2.4 bounds the sum.
        self.timeout =
            self.smoothed.saturating_add(4 * self.variation).clamp(bounds.min, bounds.max);
    }

    /// The timer ran out: the next timeout is twice as long (RFC 6298 §5.5), until a sample shows
    /// what the path is like now. An acknowledgement of something that was sent twice is none, and
    /// a timeout that fell back for it would be too short again (Karn).
    pub(crate) fn back_off(&mut self) {
        self.timing = false;
        self.backoff = (self.backoff + 1).min(16);
    }

    /// What the doubling was for is over, and it was not the path.
    pub(crate) fn forget_back_off(&mut self) {
        self.backoff = 0;
    }

    /// Our SYN had to be sent again: data begins with a careful timeout (RFC 6298 §5.7).
    pub(crate) fn start_carefully(&mut self, bounds: Bounds) {
        self.backoff = 0;
        self.timeout = self.timeout.max(AFTER_LOST_SYN).min(bounds.max);
    }

    /// The timeout, as long as the back-off makes it.
    pub(crate) fn backed_off(&self, bounds: Bounds) -> u32 {
        let doubled = u64::from(self.timeout) << self.backoff;
        doubled.min(u64::from(bounds.max)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min: 200_000, max: 120_000_000 };

    #[test]
    fn the_first_sample_sets_the_rest_smooth() {
        let mut rtt = Rtt::new(1_000_000);
        rtt.sent(Seq(100), 0);
        rtt.acknowledged(Seq(100), 100_000, BOUNDS);
        assert_eq!((rtt.smoothed, rtt.variation, rtt.timeout), (100_000, 50_000, 300_000));
        rtt.sent(Seq(200), 1_000_000);
        rtt.acknowledged(Seq(200), 1_180_000, BOUNDS);
        assert_eq!((rtt.smoothed, rtt.variation), (110_000, 57_500));
    }

    #[test]
    fn a_segment_sent_again_is_no_sample() {
        let mut rtt = Rtt::new(1_000_000);
        rtt.sent(Seq(100), 0);
        rtt.cancel();
        rtt.acknowledged(Seq(100), 5, BOUNDS);
        assert_eq!(rtt.smoothed, 0);
    }

    #[test]
    fn back_off_doubles_to_the_bound() {
        let mut rtt = Rtt::new(1_000_000);
        (0..3).for_each(|_| rtt.back_off());
        assert_eq!(rtt.backed_off(BOUNDS), 8_000_000);
        (0..252).for_each(|_| rtt.back_off());
        assert_eq!(rtt.backed_off(BOUNDS), 120_000_000);
    }

    #[test]
    fn only_a_sample_ends_the_back_off() {
        let mut rtt = Rtt::new(1_000_000);
        rtt.sent(Seq(100), 0);
        rtt.back_off();
        rtt.acknowledged(Seq(100), 1_100_000, BOUNDS);
        assert_eq!(rtt.backed_off(BOUNDS), 2_000_000);
        rtt.sent(Seq(200), 2_000_000);
        rtt.acknowledged(Seq(200), 2_500_000, BOUNDS);
        assert_eq!(rtt.backed_off(BOUNDS), 1_500_000);
    }
}
