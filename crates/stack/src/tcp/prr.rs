//! Proportional rate reduction (RFC 9937): brings the window down to the threshold over one round
//! trip of recovery, sending in proportion to what is delivered.

/// State of RFC 9937 §5. Bytes.
#[derive(Debug, Default)]
pub(crate) struct Prr {
    delivered: u32,
    pub(crate) out: u32,
    /// In flight when recovery began.
    recover_fs: u32,
}

impl Prr {
    /// Recovery begins with so much in flight.
    pub(crate) fn begin(&mut self, in_flight: u32) {
        *self = Prr { delivered: 0, out: 0, recover_fs: in_flight.max(1) };
    }

    /// What was in flight then, or might have been.
    pub(crate) fn begun_with(&self) -> u32 {
        self.recover_fs
    }

    /// The window after an acknowledgement that delivered `newly` bytes. `safe`: it advanced the
    /// cumulative acknowledgement and told of no further loss.
    pub(crate) fn window(
        &mut self,
        newly: u32,
        in_flight: u32,
        threshold: u32,
        mss: u32,
        safe: bool,
    ) -> u32 {
        self.delivered = self.delivered.saturating_add(newly);
        let allowed = if in_flight > threshold {
            let share = u64::from(self.delivered) * u64::from(threshold);
            let share = share.div_ceil(u64::from(self.recover_fs));
            // Whole segments, as only those can leave.
            let whole = share.div_ceil(u64::from(mss)) * u64::from(mss);
            (whole.min(u64::from(u32::MAX)) as u32).saturating_sub(self.out)
        } else {
            let mut allowed = self.delivered.saturating_sub(self.out).max(newly);
            if safe {
                allowed = allowed.saturating_add(mss);
            }
            allowed.min(threshold - in_flight)
        };
        // The first retransmission always leaves.
        let allowed = if self.out == 0 { allowed.max(mss) } else { allowed };
        in_flight.saturating_add(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// Twenty segments in flight, one lost, the window goes to half: while the flight is above the
    /// threshold, every second delivery lets one leave.
    #[test]
    fn half_a_segment_for_each_delivered() {
        let mut prr = Prr::default();
        prr.begin(20 * MSS);
        let mut in_flight = 19 * MSS;
        let mut sent = 0;
        for _ in 0..19 {
            in_flight -= MSS;
            let window = prr.window(MSS, in_flight, 10 * MSS, MSS, false);
            while in_flight + MSS <= window {
                in_flight += MSS;
                prr.out += MSS;
                sent += 1;
            }
        }
        assert_eq!((in_flight, sent), (10 * MSS, 10));
    }

    #[test]
    fn heavy_loss_sends_as_much_as_is_delivered() {
        let mut prr = Prr::default();
        prr.begin(20 * MSS);
        // Fifteen of twenty are lost: far below the threshold of ten.
        let mut in_flight = 4 * MSS;
        let window = prr.window(MSS, in_flight, 10 * MSS, MSS, false);
        assert_eq!(window, in_flight + MSS);
        (in_flight, prr.out) = (in_flight + MSS, MSS);
        // An acknowledgement that advances and tells of no loss may add one.
        in_flight -= MSS;
        let window = prr.window(MSS, in_flight, 10 * MSS, MSS, true);
        assert_eq!(window, in_flight + 2 * MSS);
    }

    #[test]
    fn the_first_retransmission_leaves_whatever_the_window() {
        let mut prr = Prr::default();
        prr.begin(4 * MSS);
        assert_eq!(prr.window(0, 3 * MSS, 2 * MSS, MSS, false), 4 * MSS);
    }
}
