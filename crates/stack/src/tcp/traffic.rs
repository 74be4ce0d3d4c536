//! What has passed over a connection, counted in its entry, so that TCP_INFO can tell it of every
//! connection and at any time. Counting costs an increment.

use millrace_wire::seq::Seq;

use super::connection::{Connection, Features, State};
use super::transfer::Totals;
use crate::stack::Stack;

/// Counts are modulo 2^32 as in Linux's `struct tcp_info`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Segments received and sent; a super-segment counts as what it is cut into.
    pub(crate) segs_in: u32,
    pub(crate) segs_out: u32,
    /// Those with payload.
    pub(crate) data_segs_in: u32,
    pub(crate) data_segs_out: u32,
    /// When payload in order, and when anything that is the peer's beyond doubt, came last: milliseconds
    /// modulo 2^32, as Linux has them, which is 49 days.
    pub(crate) last_data_recv: u32,
    pub(crate) last_recv: u32,
    /// Ticks of the timer wheel with something in the send queue, the lower 32 bits of them. With
    /// [`Connection::busy_high`] they go round in two years.
    busy: u32,
}

/// Segments that came as one, with pieces of `gso_size` bytes; 0: it is one.
#[inline]
pub(crate) fn segments(payload: u32, gso_size: u16) -> u32 {
    match gso_size {
        0 => 1,
        size => payload.div_ceil(size.into()).max(1),
    }
}

impl Traffic {
    pub(crate) const EMPTY: Traffic = Traffic {
        segs_in: 0,
        segs_out: 0,
        data_segs_in: 0,
        data_segs_out: 0,
        last_data_recv: 0,
        last_recv: 0,
        busy: 0,
    };

    /// A segment came, or a super-segment with pieces of `gso_size` bytes.
    #[inline]
    pub(crate) fn arrived(&mut self, payload: u32, gso_size: u16) {
        let segments = segments(payload, gso_size);
        self.segs_in = self.segs_in.wrapping_add(segments);
        if payload > 0 {
            self.data_segs_in = self.data_segs_in.wrapping_add(segments);
        }
    }

    /// Nothing was there, and came now.
    pub(crate) fn new(now_ms: u32) -> Self {
        Traffic { last_data_recv: now_ms, last_recv: now_ms, ..Traffic::EMPTY }
    }

    /// A segment left, or a super-segment with pieces of `mss` bytes.
    #[inline(always)]
    pub(crate) fn left(&mut self, payload: u32, mss: u32) {
        if payload == 0 {
            self.segs_out = self.segs_out.wrapping_add(1);
            return;
        }
        let segments = if payload <= mss { 1 } else { payload.div_ceil(mss) };
        self.segs_out = self.segs_out.wrapping_add(segments);
        self.data_segs_out = self.data_segs_out.wrapping_add(segments);
    }
}

impl Stack {
    /// `rcv_nxt` has gone once around the numbers. What has received so much is worth a record.
    #[cold]
    pub(crate) fn received_around(&mut self, index: usize) {
        let mut totals = self.transfer_mut(index).totals;
        self.connections[index].count_received_wrap(&mut totals);
        self.transfer_mut(index).totals = totals;
    }

    /// `snd_una` has gone once around the numbers.
    #[cold]
    pub(crate) fn acked_around(&mut self, index: usize) {
        let totals = &mut self.transfer_mut(index).totals;
        totals.acked_wraps = totals.acked_wraps.saturating_add(1);
    }

    /// A segment with `len` bytes left a second time.
    pub(crate) fn count_retransmission(&mut self, index: usize, len: u32) {
        self.counters.segments_retransmitted += 1;
        if self.connections[index].state == State::SynReceived {
            // A half-open connection is worth no record: a flood of SYNs would take them all.
            return;
        }
        let mss = u32::from(self.connections[index].mss);
        let totals = &mut self.transfer_mut(index).totals;
        totals.retransmitted = totals.retransmitted.wrapping_add(len.div_ceil(mss).max(1));
        totals.bytes_retransmitted += u64::from(len);
    }
}

impl Connection {
    fn add_busy(&mut self, ticks: u64) {
        let (low, carry) = self.traffic.busy.overflowing_add(ticks as u32);
        self.traffic.busy = low;
        self.busy_high =
            self.busy_high.wrapping_add((ticks >> 32) as u8).wrapping_add(carry.into());
    }

    /// Something is in the send queue, which was empty. The start is subtracted already, so that
    /// the end needs only be added.
    #[inline]
    pub(crate) fn begin_busy(&mut self, tick: u64) {
        self.add_busy(tick.wrapping_neg());
    }

    /// What was in the send queue has arrived, or never will.
    #[inline]
    pub(crate) fn end_busy(&mut self, tick: u64) {
        self.add_busy(tick);
    }

    /// Something is in the send queue, and has been so since [`Connection::begin_busy`]. For what waits
    /// for the SYN-ACK of an early connection, that is when it leaves.
    pub(crate) fn is_busy(&self) -> bool {
        let waits = self.state == State::SynReceived && self.snd_una == self.iss;
        self.sends_data() && self.queued() > 0 && !waits
    }

    /// Ticks with something in the send queue; `running`: the time, if something is in it.
    pub(crate) fn busy(&self, running: Option<u64>) -> u64 {
        let mut sum = *self;
        sum.add_busy(running.unwrap_or(0));
        u64::from(sum.busy_high) << 32 | u64::from(sum.traffic.busy)
    }

    /// `snd_una` goes to `ack`. Returns whether it has gone once around the numbers, which
    /// [`Totals::acked_wraps`] counts.
    #[must_use]
    #[inline(always)]
    pub(crate) fn advance_una(&mut self, ack: Seq, tick: u64) -> bool {
        let before = (self.snd_una - self.iss) as u32;
        if self.snd_una.lt(self.snd_end) && ack.ge(self.snd_end) {
            self.end_busy(tick);
        }
        self.snd_una = ack;
        ((ack - self.iss) as u32) < before
    }

    /// `rcv_nxt` goes up by `len`.
    #[inline]
    pub(crate) fn advance_received(&mut self, len: u32) {
        let before = (self.rcv_nxt - self.irs) as u32;
        self.rcv_nxt += len;
        if before.wrapping_add(len) < before {
            self.features.set(Features::RECEIVED_AROUND);
        }
    }

    /// Bytes that the peer has acknowledged in the connection's life; an opener's SYN counts, and
    /// a FIN, as in Linux.
    pub(crate) fn bytes_acked(&self, totals: &Totals) -> u64 {
        u64::from(totals.acked_wraps) << 32 | u64::from((self.snd_una - self.iss) as u32)
    }

    /// Bytes received in order in the connection's life, a FIN included.
    pub(crate) fn bytes_received(&self, totals: &Totals) -> u64 {
        let since = (self.rcv_nxt - self.irs) as u32;
        let around = u64::from(self.features.has(Features::RECEIVED_AROUND));
        let wraps = u64::from(totals.received_wraps) + around;
        (wraps << 32 | u64::from(since)).saturating_sub(1)
    }

    /// Counts that `rcv_nxt` has gone once around.
    fn count_received_wrap(&mut self, totals: &mut Totals) {
        self.features.clear(Features::RECEIVED_AROUND);
        totals.received_wraps = totals.received_wraps.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_goes_on_beyond_78_hours() {
        let mut connection = Connection { snd_end: Seq(1000), ..Connection::EMPTY };
        connection.begin_busy(5);
        let later = 7 << 32;
        assert_eq!(connection.busy(Some(later)), later - 5);
        let _ = connection.advance_una(Seq(1000), later);
        assert_eq!(connection.busy(None), later - 5);
        connection.begin_busy(later + 10);
        assert_eq!(connection.busy(Some(later + 11)), later - 4);
    }

    #[test]
    fn bytes_are_counted_beyond_any_number_of_turns_of_the_sequence_numbers() {
        let mut connection = Connection::EMPTY;
        let mut totals = Totals::default();
        for step in 1..=1025u64 {
            let around = connection.advance_una(Seq((step << 30) as u32), 0);
            totals.acked_wraps += u32::from(around);
            assert_eq!(connection.bytes_acked(&totals), step << 30, "after {step} GiB");
            connection.advance_received(1 << 30);
            assert_eq!(connection.bytes_received(&totals), (step << 30) - 1, "after {step} GiB");
            if connection.features.has(Features::RECEIVED_AROUND) {
                connection.count_received_wrap(&mut totals);
            }
            assert_eq!(connection.bytes_received(&totals), (step << 30) - 1, "after {step} GiB");
        }
    }
}
