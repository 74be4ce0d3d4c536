//! The window that the peer is told (RFC 9293 §3.8.6): what there is room for, moved only if that is
//! worth telling, and never to the left.

use super::connection::{Connection, Flags, State};
use crate::memory::{LEAST_SEGMENT, Memory};
use crate::stack::Stack;

/// By so much of the receive buffer may the roundings of scaled windows exceed it.
pub(crate) const ROUNDING: u32 = 16;

impl Connection {
    /// Bytes that may still come: what is left of the receive buffer, and what the frames that
    /// its queue may come to hold (its share) take in full segments. And what that would be with
    /// nothing in the queue.
    #[inline]
    fn receive_room(&self, buffer: u32, memory: &Memory) -> (u32, u32) {
        let in_frame = memory.in_each_frame(self.quick_ack.full_segment().max(LEAST_SEGMENT));
        let share = memory.share;
        let frames = share.saturating_sub(self.receive_frames.into());
        let room = buffer.saturating_sub(self.receive_bytes).min(frames.saturating_mul(in_frame));
        let most = 0xffff << self.rcv_shift;
        (room.min(most), buffer.min(share.saturating_mul(in_frame)).min(most))
    }

    /// The window to announce, moved only if it is worth telling (RFC 9293 §3.8.6.2.2), and never
    /// to the left. `buffer` is the receive buffer's size.
    #[inline(always)]
    pub(crate) fn announce(&mut self, buffer: u32, memory: &Memory) -> u16 {
        let (free, most) = self.receive_room(buffer, memory);
        let edge = self.rcv_nxt + free;
        // Half of what there may be at all: a window that never grows by a segment would stay closed.
        let step = u32::from(self.mss).min(most / 2) as i32;
        if edge - self.rcv_adv >= step {
            self.rcv_adv = edge;
        }
        let shift = self.rcv_shift;
        // Rounded up, for rounding down would take back what was promised. But each rounding
        // moves the edge, and a peer that makes us acknowledge every byte would move it forever.
        let mut field = ((self.rcv_wnd() + (1 << shift) - 1) >> shift).min(0xffff);
        let last = self.rcv_nxt - self.receive_bytes + buffer + buffer / ROUNDING;
        if (self.rcv_nxt + (field << shift)).gt(last) {
            field = self.rcv_wnd() >> shift;
        }
        self.rcv_adv = self.rcv_adv.max(self.rcv_nxt + (field << shift));
        field as u16
    }

    /// A segment leaves with an acknowledgement of all that has come.
    #[inline(always)]
    pub(crate) fn acknowledges(&mut self) {
        self.acks_owed = 0;
        self.unacknowledged = 0;
        self.flags.clear(Flags::DELACK_ARMED.with(Flags::PUSHED));
        self.quick_ack.acknowledged();
    }

    /// The same for one that is owed at most once by that: beyond a gap each arrival has its own.
    #[inline(always)]
    pub(crate) fn acknowledges_once(&mut self) {
        let owed = self.acks_owed;
        self.acknowledges();
        if owed > 1 {
            self.acks_owed = owed;
        }
    }
}

impl Stack {
    /// Shift that makes the whole receive buffer announceable (RFC 7323 §2.2).
    pub(crate) fn receive_shift(&self) -> u8 {
        let most = self.config.receive_buffer.max(self.config.receive_buffer_max);
        // As many bits as are beyond the field's 16.
        (u32::BITS - most.leading_zeros()).saturating_sub(16).min(14) as u8
    }

    /// After the application has read: whether the window has grown so much that the peer must
    /// be told without waiting for a reason.
    #[inline]
    pub(crate) fn window_update(&mut self, index: usize) {
        let buffer = self.receive_limit(index);
        let connection = &self.connections[index];
        if !matches!(connection.state, State::Established | State::FinWait1 | State::FinWait2) {
            return;
        }
        // What the share of frames allows is less, if anything.
        if connection.rcv_wnd() >= buffer.min(0xffff << connection.rcv_shift) / 2 {
            return;
        }
        let (free, most) = connection.receive_room(buffer, &self.memory);
        let edge = connection.rcv_nxt + free;
        let gain = edge - connection.rcv_adv;
        let wanted = (2 * u32::from(connection.mss)).min(most / 2) as i32;
        if gain >= wanted && connection.rcv_wnd() < most / 2 {
            self.acknowledge_now(index);
        }
    }
}
