//! Round-trip time and the retransmission timeout (RFC 6298).
//!
//! Every acknowledgement of something sent once is a sample, so the variation is the greatest mean
//! deviation of a round trip and not of a sample: many samples in one round trip would otherwise
//! bring it down to nothing (RFC 7323 appendix G has the problem; this is Linux's answer to it).

use millrace_wire::seq::Seq;

/// Estimator state, microseconds; scaled ones say by how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    /// Eight times the smoothed round-trip time; 0: no sample yet.
    smoothed8: u32,
    /// Four times the mean deviation, and the greatest of them in this round trip.
    deviation4: u32,
    greatest4: u32,
    /// Four times the variation.
    variation4: u32,
    /// Timeout without back-off.
    pub(crate) timeout: u32,
    /// Where this round trip ends.
    round: Seq,
    /// Least sample of late, and when it was taken, in units of 2^22 microseconds: a connection has to
    /// be silent for three days before an old one can seem new.
    least: u32,
    least_at: u16,
    /// How often the timeout was doubled since the last sample.
    pub(crate) backoff: u8,
}

/// Timeout of the first data after a SYN that was lost, microseconds.
const AFTER_LOST_SYN: u32 = 3_000_000;

/// How long the least sample is believed, in those units: five minutes.
const LEAST_LASTS: u16 = (300_000_000 >> LEAST_UNIT) as u16;
const LEAST_UNIT: u32 = 22;

/// A timeout is doubled no more often.
const MOST_BACKOFF: u8 = 16;

/// What an acknowledgement shows, microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Since the first segment that it covers left: a timeout must leave time for acknowledgements
    /// that were delayed.
    pub(crate) rtt: u32,
    /// Since the last one left: how long the path takes. A peer with a gap may wait a millisecond
    /// before it tells of all that came in it (Linux: a twentieth of the round trip, if that is less).
    pub(crate) path: u32,
}

/// Bounds of the timeout, microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl Rtt {
    pub(crate) const EMPTY: Rtt = Rtt {
        smoothed8: 0,
        deviation4: 0,
        greatest4: 0,
        variation4: 0,
        timeout: 0,
        round: Seq(0),
        least: 0,
        least_at: 0,
        backoff: 0,
    };

    pub(crate) fn new(initial_timeout: u32) -> Self {
        Rtt { timeout: initial_timeout, ..Rtt::EMPTY }
    }

    /// Smoothed round-trip time; 0: no sample yet.
    #[inline]
    pub(crate) fn smoothed(&self) -> u32 {
        self.smoothed8 / 8
    }

    /// Its mean deviation (RFC 6298's RTTVAR); the timeout has a greater one in it.
    pub(crate) fn deviation(&self) -> u32 {
        self.deviation4 / 4
    }

    /// Least round-trip time of the last minutes; 0: no sample yet.
    #[inline]
    pub(crate) fn least(&self) -> u32 {
        self.least
    }

    /// Takes a sample (RFC 6298 §2.2 and §2.3), when everything before `una` is acknowledged and
    /// `nxt` is sent next.
    #[inline]
    pub(crate) fn sample(
        &mut self,
        sample: Sample,
        una: Seq,
        nxt: Seq,
        whole_us: u64,
        bounds: Bounds,
    ) {
        // 0 means "none yet".
        let rtt = sample.rtt.clamp(1, 1 << 27);
        let path = sample.path.clamp(1, 1 << 27);
        self.backoff = 0;
        let now = (whole_us >> LEAST_UNIT) as u16;
        let age = now.wrapping_sub(self.least_at);
        if self.least == 0 || path <= self.least || age > LEAST_LASTS {
            self.least = path;
            self.least_at = now;
        }
        // The least timeout bounds the variation, so that the sum leaves time for a delayed
        // acknowledgement whatever the round-trip time is.
        let least4 = bounds.min;
        if self.smoothed8 == 0 {
            self.smoothed8 = rtt * 8;
            self.deviation4 = rtt * 2;
            self.variation4 = self.deviation4.max(least4);
            self.greatest4 = self.variation4;
            self.round = nxt;
        } else {
            let error = rtt as i32 - (self.smoothed8 / 8) as i32;
            self.smoothed8 = self.smoothed8.saturating_add_signed(error).max(1);
            let mut change = error.abs() - (self.deviation4 / 4) as i32;
            if error < 0 && change > 0 {
                // A round trip that got shorter is no reason to wait much longer.
                change /= 8;
            }
            self.deviation4 = self.deviation4.saturating_add_signed(change);
            if self.deviation4 > self.greatest4 {
                self.greatest4 = self.deviation4;
                self.variation4 = self.variation4.max(self.greatest4);
            }
            if una.gt(self.round) {
                if self.greatest4 < self.variation4 {
                    self.variation4 -= (self.variation4 - self.greatest4) / 4;
                }
                self.round = nxt;
                self.greatest4 = least4;
            }
        }
        self.timeout = self.smoothed().saturating_add(self.variation4).min(bounds.max);
    }

    /// The timer ran out: the next timeout is twice as long (RFC 6298 §5.5), until a sample shows
    /// what the path is like now. An acknowledgement of something that was sent twice is none, and
    /// a timeout that fell back for it would be too short again (Karn).
    pub(crate) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(MOST_BACKOFF);
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
    #[inline]
    pub(crate) fn backed_off(&self, bounds: Bounds) -> u32 {
        let doubled = u64::from(self.timeout) << self.backoff;
        doubled.min(u64::from(bounds.max)) as u32
    }

    /// It is as long as doubling makes it, which is less than the bound where it began very small.
    pub(crate) fn is_fully_backed_off(&self, bounds: Bounds) -> bool {
        self.backoff >= MOST_BACKOFF || self.backed_off(bounds) >= bounds.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { min: 200_000, max: 120_000_000 };

    fn at_once(rtt: u32) -> Sample {
        Sample { rtt, path: rtt }
    }

    fn sampled(samples: &[u32]) -> Rtt {
        let mut rtt = Rtt::new(1_000_000);
        for (round, &sample) in (0u32..).zip(samples) {
            let (una, nxt) = (Seq(round * 1000 + 1), Seq(round * 1000 + 1000));
            rtt.sample(at_once(sample), una, nxt, round.into(), BOUNDS);
        }
        rtt
    }

    #[test]
    fn the_first_sample_sets_the_rest_smooth() {
        let rtt = sampled(&[160_000]);
        assert_eq!((rtt.smoothed(), rtt.variation4, rtt.timeout), (160_000, 320_000, 480_000));
        assert_eq!(sampled(&[160_000, 240_000]).smoothed(), 170_000);
    }

    #[test]
    fn the_least_timeout_bounds_the_variation() {
        let rtt = sampled(&[1_000; 50]);
        assert_eq!((rtt.smoothed(), rtt.timeout), (1_000, 201_000));
    }

    #[test]
    fn a_path_that_varies_gets_a_longer_timeout_than_one_that_does_not() {
        let steady = sampled(&[400_000; 40]);
        let varying: Vec<u32> = (0..40).map(|at| 200_000 + at % 2 * 400_000).collect();
        let varying = sampled(&varying);
        assert!((600_000..600_100).contains(&steady.timeout), "{}", steady.timeout);
        assert!(varying.timeout > 900_000, "{}", varying.timeout);
    }

    #[test]
    fn many_samples_in_one_round_trip_do_not_hide_its_variation() {
        let mut rtt = sampled(&[100_000]);
        for _ in 0..100 {
            rtt.sample(at_once(100_000), Seq(2), Seq(900), 1, BOUNDS);
        }
        assert!(rtt.timeout >= 300_000);
    }

    #[test]
    fn the_least_round_trip_is_kept_and_forgotten_after_minutes() {
        let mut rtt = sampled(&[300, 100, 200]);
        assert_eq!(rtt.least(), 100);
        rtt.sample(at_once(250), Seq(1), Seq(2), 299_000_000, BOUNDS);
        assert_eq!(rtt.least(), 100);
        rtt.sample(at_once(250), Seq(1), Seq(2), 309_000_000, BOUNDS);
        assert_eq!(rtt.least(), 250);
        // Neither clock of 32 bits tells so long a silence from none.
        rtt.sample(at_once(400), Seq(1), Seq(2), 309_000_000 + (1 << 32), BOUNDS);
        assert_eq!(rtt.least(), 400);
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
        let mut rtt = sampled(&[500_000]);
        rtt.back_off();
        assert_eq!(rtt.backed_off(BOUNDS), 3_000_000);
        rtt.sample(at_once(500_000), Seq(1), Seq(2), 1, BOUNDS);
        assert_eq!(rtt.backoff, 0);
    }
}
