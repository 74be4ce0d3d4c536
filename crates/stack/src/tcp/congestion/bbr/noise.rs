//! Loss that no queue explains.
//!
//! The draft takes every loss for a sign of too much in flight. Radio links and bad cables lose
//! packets whatever is in flight; slowing down for those gives the path away, and gains nobody
//! anything. So a share of loss that is there while this flow neither probes nor sees a queue
//! (round trips take about as long as the shortest ones) is learned. Only what goes beyond it
//! counts, and while there is no queue, as much more is sent as the path loses: the rate that the
//! model speaks of is the one at which it delivers. [`Noise::NONE`] is the draft as it is.
//!
//! A policer drops without a queue, too. It drops what is over its rate though, which a flow that
//! has learned the rate does not send: the pacing margin keeps what was learned of it falling. And
//! more than [`MOST`] is never put up with.

use crate::tcp::congestion::AckSample;

/// Shares are in 1024ths. The largest that is learned: about an eighth.
const MOST: u32 = 130;

/// So many segments show what share is lost: of a hundredth they tell a quarter of it.
const ENOUGH_SEGMENTS: u32 = 2_000;

/// A round trip is quiet up to this part over the shortest, and a little for timers. Short queues,
/// of a tenth of what the path holds, must not pass for none.
const QUIET_DIVISOR: u32 = 16;
const QUIET_US: u32 = 250;

/// What is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise {
    /// Bytes lost and sent in quiet rounds, the older ones fading.
    lost: u32,
    sent: u32,
    /// The same in rounds with a queue or just after it, since they were last looked at.
    queued_lost: u32,
    queued_sent: u32,
    /// The round: totals when it began, and its round-trip times.
    lost_before: u32,
    delivered_before: u32,
    rtt_sum: u64,
    rtt_count: u32,
    /// Eight times the smoothed round-trip time of the path; 0: no sample yet.
    smoothed8: u32,
    quiet: bool,
    /// Mean round-trip time of the last whole round; 0: no sample.
    mean_us: u32,
}

impl Noise {
    pub(super) const NONE: Noise = Noise {
        lost: 0,
        sent: 0,
        queued_lost: 0,
        queued_sent: 0,
        lost_before: 0,
        delivered_before: 0,
        rtt_sum: 0,
        rtt_count: 0,
        smoothed8: 0,
        quiet: false,
        mean_us: 0,
    };

    pub(super) fn begin(&mut self, sample: &AckSample) {
        self.lost_before = sample.rate.lost_total;
        self.delivered_before = sample.rate.delivered_total;
    }

    /// An acknowledgement of the round.
    #[inline]
    pub(super) fn observe(&mut self, sample: &AckSample) {
        if sample.rtt_us > 0 {
            self.rtt_sum += u64::from(sample.rtt_us);
            self.rtt_count += 1;
            self.smoothed8 = match self.smoothed8 {
                0 => sample.rtt_us.saturating_mul(8),
                before => (before - before / 8).saturating_add(sample.rtt_us),
            };
        }
    }

    /// Share of loss in the round so far, 1024ths.
    pub(super) fn lost_share(&self, sample: &AckSample) -> u32 {
        let lost = u64::from(sample.rate.lost_total.wrapping_sub(self.lost_before));
        let delivered = u64::from(sample.rate.delivered_total.wrapping_sub(self.delivered_before));
        (lost * 1024).checked_div(lost + delivered).unwrap_or(0) as u32
    }

    /// A round is over. `learns`: this flow did not probe in it.
    pub(super) fn round(&mut self, sample: &AckSample, min_rtt_us: u32, learns: bool) {
        let lost = sample.rate.lost_total.wrapping_sub(self.lost_before);
        let delivered = sample.rate.delivered_total.wrapping_sub(self.delivered_before);
        let mean = self.rtt_sum.checked_div(u64::from(self.rtt_count));
        self.mean_us = mean.unwrap_or(0).min(u32::MAX.into()) as u32;
        // The mean of a round in which a queue has only now filled up says nothing of it; the
        // smoothed time is that of its end.
        let quiet_before = self.quiet;
        let bound = Self::longest_quiet_us(min_rtt_us);
        self.quiet = mean.is_some_and(|mean| mean <= bound) && self.is_quiet_now(min_rtt_us);
        let sent = lost.saturating_add(delivered);
        // What is found lost in the first round without a queue was sent while there still was one.
        if learns && self.quiet && quiet_before {
            // Eight rounds of a quarter of a gigabyte fit 32 bits; of more than that a part will do.
            let part = (sent >> 28) + 1;
            self.lost = self.lost - self.lost / 8 + lost / part;
            self.sent = self.sent - self.sent / 8 + sent / part;
        } else if learns {
            self.queued_lost = self.queued_lost.saturating_add(lost);
            self.queued_sent = self.queued_sent.saturating_add(sent);
            if self.queued_sent >= ENOUGH_SEGMENTS * sample.mss {
                self.bound_by_queued();
            }
        }
        self.begin(sample);
        (self.rtt_sum, self.rtt_count) = (0, 0);
    }

    /// A path with a queue loses no less than it does by itself.
    fn bound_by_queued(&mut self) {
        let lost = u64::from(self.queued_lost) * u64::from(self.sent);
        let most = lost.checked_div(self.queued_sent.into()).unwrap_or(u64::MAX);
        self.lost = u64::from(self.lost).min(most) as u32;
        (self.queued_lost, self.queued_sent) = (0, 0);
    }

    /// Mean round-trip time of the last whole round, microseconds; 0: it is not known.
    pub(super) fn mean_us(&self) -> u32 {
        self.mean_us
    }

    /// No queue was seen in the last whole round.
    pub(super) fn quiet(&self) -> bool {
        self.quiet
    }

    /// No queue was seen in the last few samples.
    pub(super) fn is_quiet_now(&self, min_rtt_us: u32) -> bool {
        u64::from(self.smoothed8 / 8) <= Self::longest_quiet_us(min_rtt_us)
    }

    fn longest_quiet_us(min_rtt_us: u32) -> u64 {
        u64::from(min_rtt_us) + u64::from((min_rtt_us / QUIET_DIVISOR).max(QUIET_US))
    }

    /// The rate at which to send for so much to arrive. Only while there is no queue: what the path
    /// no longer loses would make one, and that ends it.
    pub(super) fn made_up_for(&self, rate: u64) -> u64 {
        if !self.quiet {
            return rate;
        }
        rate.saturating_mul(1024) / u64::from(1024 - self.share())
    }

    /// How much of what is in flight will arrive. Only while there is no queue: what is sent in the
    /// place of what the path loses would else keep a flow from ever getting down to the model's
    /// volume.
    pub(super) fn arriving(&self, in_flight: u32) -> u32 {
        if !self.quiet {
            return in_flight;
        }
        (u64::from(in_flight) * u64::from(1024 - self.share()) / 1024) as u32
    }

    /// The share of loss that was learned, 1024ths.
    fn share(&self) -> u32 {
        let share = (u64::from(self.lost) * 1024).checked_div(self.sent.into()).unwrap_or(0);
        (share as u32).min(MOST)
    }

    /// The share of loss to put up with besides the draft's, 1024ths. Twice what was seen, for
    /// chance does not spread losses evenly.
    pub(super) fn allowance(&self) -> u32 {
        2 * self.share()
    }

    /// The largest share that is ever put up with.
    pub(super) fn most() -> u32 {
        2 * MOST
    }
}
