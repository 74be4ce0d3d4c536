//! Delivery rate: how fast the path carried what was delivered (draft-cheng-iccrg-delivery-rate-
//! estimation, now a section of draft-ietf-ccwg-bbr).
//!
//! Each transmission remembers what had been delivered when it left. Its acknowledgement then tells
//! the rate over the time in between, be that the sender's or the receiver's, whichever was longer.

use super::congestion::{LostSegment, RateSample};
use super::scoreboard::Sent;

/// What a transmission remembers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    /// Bytes delivered by then, and when the last of them were.
    delivered: u32,
    delivered_at: u32,
    /// When the first transmission of this flight left.
    first_sent_at: u32,
    /// Bytes in flight, this transmission included.
    in_flight: u32,
    /// Bytes marked lost by then.
    lost: u32,
    app_limited: bool,
}

/// The connection's account. Totals are bytes modulo 2^32, times microseconds modulo 2^32.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    pub(crate) delivered: u32,
    delivered_at: u32,
    first_sent_at: u32,
    pub(crate) lost: u32,
    /// The sender had nothing to send until so much is delivered; `None`: the network limits.
    limited_until: Option<u32>,
    /// Bytes and microseconds of the last sample, and whether the application limited it.
    last: Option<(u32, u32, bool)>,
    /// Newest delivered transmission of this acknowledgement, with when it left.
    newest: Option<(Snapshot, u32)>,
}

impl Delivery {
    /// A transmission leaves now; `idle`: nothing was in flight.
    #[inline]
    pub(crate) fn sent(&mut self, now_us: u32, idle: bool, in_flight: u32) -> Snapshot {
        if idle {
            self.first_sent_at = now_us;
            self.delivered_at = now_us;
        }
        Snapshot {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            in_flight,
            lost: self.lost,
            app_limited: self.limited_until.is_some(),
        }
    }

    /// A transmission has been delivered. `earlier`: a copy of it that had left before, of which
    /// nothing is known any more: the bytes count, but they make no sample. What the last copy
    /// remembers is of a moment ago, and so would be the rate, and the round trip.
    #[inline]
    pub(crate) fn delivered(&mut self, sent: &Sent, now_us: u32, earlier: bool) {
        self.delivered = self.delivered.wrapping_add(sent.len());
        self.delivered_at = now_us;
        if earlier {
            return;
        }
        let sent_at = sent.sent_at;
        let newer = self.newest.is_none_or(|(_, other)| sent_at.wrapping_sub(other) as i32 >= 0);
        if newer {
            self.newest = Some((sent.snapshot, sent_at));
            self.first_sent_at = sent_at;
        }
    }

    /// [`Delivery::delivered`] for all that an acknowledgement covers, `last` being its last
    /// transmission, and [`Delivery::sample`] for who does not look at the sample.
    #[inline]
    pub(crate) fn delivered_in_order(
        &mut self,
        bytes: u32,
        last: &Sent,
        now_us: u32,
        min_rtt_us: u32,
    ) {
        self.delivered = self.delivered.wrapping_add(bytes);
        self.delivered_at = now_us;
        self.first_sent_at = last.sent_at;
        if self.limited_until.is_some_and(|until| self.delivered.wrapping_sub(until) as i32 > 0) {
            self.limited_until = None;
        }
        self.keep_rate(&last.snapshot, last.sent_at, min_rtt_us);
    }

    /// Keeps the rate that a delivered transmission shows. Returns the bytes and the time.
    #[inline(always)]
    fn keep_rate(&mut self, snapshot: &Snapshot, sent_at: u32, min_rtt_us: u32) -> (u32, u32) {
        let sending = sent_at.wrapping_sub(snapshot.first_sent_at);
        let acknowledging = self.delivered_at.wrapping_sub(snapshot.delivered_at);
        let interval_us = sending.max(acknowledging);
        let interval_us = if interval_us < min_rtt_us { 0 } else { interval_us };
        let delivered = self.delivered.wrapping_sub(snapshot.delivered);
        // A rate that the application limited is worth keeping only where it is the higher one.
        if interval_us > 0 && (!snapshot.app_limited || self.is_exceeded(delivered, interval_us)) {
            self.last = Some((delivered, interval_us, snapshot.app_limited));
        }
        (delivered, interval_us)
    }

    /// A transmission of `len` bytes that remembers this is lost: what congestion control is told
    /// of it. Counts it.
    pub(crate) fn lose(&mut self, len: u32, snapshot: &Snapshot, now_us: u32) -> LostSegment {
        self.lost = self.lost.wrapping_add(len);
        LostSegment {
            now_us,
            len,
            in_flight_at_send: snapshot.in_flight,
            lost_since_send: self.lost.wrapping_sub(snapshot.lost),
            delivered_total: self.delivered,
            app_limited: snapshot.app_limited,
            no_sack: false,
        }
    }

    /// The application has less to send than the window takes (RFC 7661's application-limited).
    #[inline]
    pub(crate) fn app_limited(&mut self, in_flight: u32) {
        self.limited_until = Some(self.delivered.wrapping_add(in_flight.max(1)));
    }

    fn is_exceeded(&self, delivered: u32, interval_us: u32) -> bool {
        self.last.is_none_or(|(bytes, time, _)| {
            u64::from(delivered) * u64::from(time) >= u64::from(bytes) * u64::from(interval_us)
        })
    }

    /// The last rate in bytes a second, and whether the application limited it.
    pub(crate) fn rate(&self) -> (u64, bool) {
        self.last.map_or((0, false), |(bytes, time, limited)| {
            (u64::from(bytes) * 1_000_000 / u64::from(time), limited)
        })
    }

    /// The sample that an acknowledgement makes, once all it covers was told. `min_rtt_us`: an
    /// interval shorter than that comes from acknowledgements that were held back and let go at
    /// once.
    #[inline]
    pub(crate) fn sample(&mut self, min_rtt_us: u32) -> RateSample {
        if self.limited_until.is_some_and(|until| self.delivered.wrapping_sub(until) as i32 > 0) {
            self.limited_until = None;
        }
        let totals = RateSample {
            delivered_total: self.delivered,
            lost_total: self.lost,
            ..RateSample::default()
        };
        let Some((snapshot, sent_at)) = self.newest.take() else { return totals };
        let (delivered, interval_us) = self.keep_rate(&snapshot, sent_at, min_rtt_us);
        RateSample {
            delivered,
            interval_us,
            prior_delivered: snapshot.delivered,
            app_limited: snapshot.app_limited,
            in_flight_at_send: snapshot.in_flight,
            lost_since_send: self.lost.wrapping_sub(snapshot.lost),
            ..totals
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_frames::Frame;
    use millrace_wire::seq::Seq;

    use super::super::scoreboard::Mark;
    use super::*;

    fn sent(number: u32, sent_at: u32, snapshot: Snapshot) -> Sent {
        let start = Seq(number * 1000);
        let (frame, mark) = (Frame::NONE, Mark::default());
        Sent { start, end: start + 1000, frame, sent_at, mark, snapshot }
    }

    /// A round of the algorithms ends when something is delivered that left after the round began. A
    /// copy that left a moment ago, and whose original arrives now, would end one at once.
    #[test]
    fn an_original_that_arrives_after_its_copy_left_makes_no_sample() {
        let mut delivery = Delivery::default();
        let first = sent(0, 0, delivery.sent(0, true, 1000));
        let second = sent(1, 1_000, delivery.sent(1_000, false, 2000));
        delivery.delivered(&second, 101_000, false);
        let sample = delivery.sample(100_000);
        assert_eq!(
            (sample.delivered, sample.interval_us, sample.prior_delivered),
            (1000, 101_000, 0)
        );
        // The first was only late; by then its copy is two milliseconds old.
        let copy = sent(0, 103_000, delivery.sent(103_000, false, 1000));
        assert!(!first.earlier_copy_arrived(105_000, 100_000, false));
        delivery.delivered(&copy, 105_000, true);
        let sample = delivery.sample(100_000);
        assert_eq!((sample.delivered, sample.interval_us), (0, 0));
        assert_eq!(sample.delivered_total, 2000, "it counts all the same");
    }
}
