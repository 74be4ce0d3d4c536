//! Acknowledgements of new data while all that was sent arrives, and in order: nothing is lost, doubtful
//! or marked, and the window follows what is acknowledged. [`super::acknowledgement`] would do the same
//! with them, step by step; here the steps that find nothing to do are left out.

use super::congestion::{AckSample, CaState};
use super::connection::Flags;
use super::input::Segment;
use super::rtt::Sample;
use super::transfer::Transfer;
use crate::stack::Stack;

impl Transfer {
    /// Nothing of what is in flight needs a second look.
    #[inline]
    pub(crate) fn goes_well(&self) -> bool {
        self.recovery.state == CaState::Open
            && self.recovery.duplicates == 0
            && !self.sent.was_marked()
            && self.probe.is_idle()
            && !self.rack.reordering_seen
            && self.congestion.counts_only()
    }
}

impl Stack {
    /// Takes the acknowledgement if it is of that kind. Returns false, with nothing done, if not.
    #[inline]
    pub(crate) fn acknowledged_in_order(&mut self, index: usize, segment: &Segment) -> bool {
        let (now_us, whole_us, bounds) = (self.now_us, self.whole_us, self.rtt_bounds);
        let connection = &mut self.connections[index];
        let ack = segment.ack;
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return false };
        if !self.config.tcp.prediction
            || ack.le(connection.snd_una)
            || !transfer.goes_well()
            || connection.has_ecn()
            || !segment.options.sack().is_empty()
        {
            return false;
        }
        let Some(first_sent_at) = transfer.sent.first().map(|first| first.sent_at) else {
            return false;
        };
        let prior_in_flight = connection.flight();
        let acked = (ack - connection.snd_una) as u32;
        if connection.advance_una(ack, self.tick) {
            transfer.totals.acked_wraps = transfer.totals.acked_wraps.saturating_add(1);
        }
        connection.acknowledge_data(&mut self.arena, ack);

        let Transfer { sent, rack, delivery, .. } = &mut *transfer;
        let rtt = now_us.wrapping_sub(first_sent_at).max(1);
        sent.acknowledge_before(ack);
        let last_sent_at = sent.first().map_or(first_sent_at, |last| last.sent_at);
        let rtt_us = now_us.wrapping_sub(last_sent_at).max(1);
        let (una, nxt) = (connection.snd_una, connection.snd_nxt);
        connection.rtt.sample(Sample { rtt, path: rtt_us }, una, nxt, whole_us, bounds);
        let min_rtt_us = connection.rtt.least();
        if let Some(last) = sent.first() {
            rack.arrived_in_order(last.sent_at, last.end.min(ack), now_us);
            delivery.delivered_in_order(acked, last, now_us, min_rtt_us);
        }
        sent.acknowledge_first(&self.arena, ack);
        let congestion = &mut connection.congestion;
        let window_limited = transfer.usage.limits(congestion);
        // Most windows are not used up, and then they do not grow.
        if window_limited || (congestion.in_slow_start() && congestion.window / 2 < prior_in_flight)
        {
            let sample = AckSample {
                now_us,
                acked,
                delivered: acked,
                lost: 0,
                in_flight: (nxt - una) as u32,
                prior_in_flight,
                rtt_us,
                min_rtt_us,
                smoothed_us: connection.rtt.smoothed(),
                mss: connection.mss.into(),
                window_limited,
                reorders: false,
                no_sack: false,
                state: CaState::Open,
                ack,
                snd_nxt: nxt,
                ce_bytes: 0,
                ..AckSample::default()
            };
            congestion.on_ack(&mut transfer.congestion, &sample);
        }
        let unsent = connection.unsent() > 0;
        if una == nxt {
            connection.flags.clear(Flags::REXMIT_ARMED);
            if !unsent {
                transfer.sent.settle();
                self.settle_transfer(index);
            }
        } else {
            self.arm_retransmission(index);
        }
        true
    }
}
