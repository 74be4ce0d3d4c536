//! What has passed over a connection, counted in its entry, so that TCP_INFO can tell it of every
//! connection and at any time. Counting costs an increment.

use millrace_wire::seq::Seq;

use super::connection::{Connection, State};
use crate::stack::Stack;

/// Counts are modulo 2^32 as in Linux's `struct tcp_info`; times are ticks of the timer wheel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Segments received and sent; a super-segment counts as what it is cut into.
    pub(crate) segs_in: u32,
    pub(crate) segs_out: u32,
    /// Those with payload.
    pub(crate) data_segs_in: u32,
    pub(crate) data_segs_out: u32,
    /// When payload in order, and when anything, came last.
    pub(crate) last_data_recv: u32,
    pub(crate) last_recv: u32,
    /// Ticks with something in the send queue. While something is there its start is subtracted
    /// already, so that the end needs only be added.
    pub(crate) busy: u32,
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
    pub(crate) fn arrived(&mut self, tick: u64, payload: u32, gso_size: u16) {
        let segments = match gso_size {
            0 => 1,
            size => payload.div_ceil(size.into()).max(1),
        };
        self.segs_in = self.segs_in.wrapping_add(segments);
        self.last_recv = tick as u32;
        if payload > 0 {
            self.data_segs_in = self.data_segs_in.wrapping_add(segments);
        }
    }

    /// Something is in the send queue, which was empty.
    #[inline]
    pub(crate) fn begin_busy(&mut self, tick: u64) {
        self.busy = self.busy.wrapping_sub(tick as u32);
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
    /// `snd_una` goes to `ack`.
    #[inline(always)]
    pub(crate) fn advance_una(&mut self, ack: Seq, tick: u64) {
        let before = (self.snd_una - self.iss) as u32;
        if self.snd_una.lt(self.snd_end) && ack.ge(self.snd_end) {
            self.traffic.busy = self.traffic.busy.wrapping_add(tick as u32);
        }
        self.snd_una = ack;
        let wrapped = ((ack - self.iss) as u32) < before;
        self.acked_wraps = self.acked_wraps.wrapping_add(wrapped.into());
    }

    /// `rcv_nxt` goes up by `len`.
    #[inline]
    pub(crate) fn advance_received(&mut self, len: u32) {
        let before = (self.rcv_nxt - self.irs) as u32;
        self.rcv_nxt += len;
        let wrapped = before.wrapping_add(len) < before;
        self.received_wraps = self.received_wraps.wrapping_add(wrapped.into());
    }

    /// Bytes that the peer has acknowledged in the connection's life; an opener's SYN counts, and
    /// a FIN, as in Linux.
    pub(crate) fn bytes_acked(&self) -> u64 {
        u64::from(self.acked_wraps) << 32 | u64::from((self.snd_una - self.iss) as u32)
    }

    /// Bytes received in order in the connection's life, a FIN included.
    pub(crate) fn bytes_received(&self) -> u64 {
        let since = (self.rcv_nxt - self.irs) as u32;
        (u64::from(self.received_wraps) << 32 | u64::from(since)).saturating_sub(1)
    }
}
