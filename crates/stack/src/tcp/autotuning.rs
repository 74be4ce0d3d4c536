//! Buffers that grow with what a connection moves in a round trip.
//!
//! Receiving: dynamic right-sizing (Fisk and Feng, 2001), as Linux has it. What the application read
//! in a round trip is what the sender managed to send; the window is kept at twice that, so that a
//! sender in slow start is never held back by it. Sending: twice the congestion window. Neither
//! grows while the arena is short of frames, and a window that was announced is never taken back.

use millrace_wire::seq::Seq;

use super::connection::Flags;
use crate::memory::MemoryState;
use crate::stack::Stack;

/// What right-sizing measures.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RightSizing {
    on: bool,
    /// The buffer's size now; 0: the configuration's.
    pub(crate) buffer: u32,
    /// Bytes read in the last round trip that brought more than those before.
    pub(crate) space: u32,
    /// What was read by the beginning of this round trip, and when that was.
    read: Seq,
    read_at: u32,
    /// Shortest time in which a whole window came, microseconds; 0: not known.
    pub(crate) rtt_us: u32,
    /// Where that window ends, and when it began.
    window_end: Seq,
    window_at: u32,
}

impl Stack {
    /// Buffers may grow.
    #[inline]
    fn frames_abound(&self) -> bool {
        self.memory.state == MemoryState::Plenty
    }

    /// What one connection's buffer may grow to, whatever the configuration: a quarter of the arena.
    #[inline]
    fn fair_share(&self) -> u32 {
        let bytes = self.arena.frames() * self.arena.frame_size() / 4;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// Most bytes, unsent and unacknowledged, that the connection takes, where nobody fixed them.
    #[inline]
    pub(crate) fn tuned_send_limit(&self, index: usize) -> u32 {
        let least = self.config.send_buffer;
        let most = self.config.send_buffer_max.min(self.fair_share());
        let window = self.connections[index].congestion.window;
        if most <= least || window <= least / 2 || !self.frames_abound() {
            return least;
        }
        window.saturating_mul(2).clamp(least, most)
    }

    /// Most received bytes that the connection keeps, where nobody fixed them.
    #[inline]
    pub(crate) fn tuned_receive_limit(&self, index: usize) -> u32 {
        match self.transfer(index) {
            Some(transfer) => transfer.right_sizing.buffer.max(self.config.receive_buffer),
            None => self.config.receive_buffer,
        }
    }

    /// The application has read. Measures, and lets the buffer grow.
    #[inline]
    pub(crate) fn right_size(&mut self, index: usize) {
        let most = self.config.receive_buffer_max.min(self.fair_share());
        if most <= self.config.receive_buffer {
            return;
        }
        let connection = &self.connections[index];
        // Most connections never receive so much that a larger buffer could help them. The others
        // stop measuring for a moment when the numbers have gone round.
        if ((connection.rcv_nxt - connection.irs) as u32) < self.config.receive_buffer / 2 {
            return;
        }
        let read = connection.rcv_nxt - connection.receive_bytes;
        if self.transfer(index).is_some_and(|transfer| {
            let mark = &transfer.right_sizing;
            // However short the round trip is, so little asks for no larger buffer. And there is
            // nothing to measure before it is over.
            mark.on
                && connection.rcv_nxt.lt(mark.window_end)
                && (((read - mark.read).max(0) as u32) <= mark.space
                    || self.now_us.wrapping_sub(mark.read_at) < mark.rtt_us)
        }) {
            return;
        }
        self.measure_reading(index, most);
    }

    fn measure_reading(&mut self, index: usize, most: u32) {
        let now_us = self.now_us;
        let before = self.receive_limit(index);
        let abound = self.frames_abound();
        let connection = &self.connections[index];
        if connection.flags.has(Flags::CUSTOM) && self.settings(index).receive_buffer > 0 {
            return;
        }
        let (rcv_nxt, window) = (connection.rcv_nxt, connection.rcv_wnd());
        let read = rcv_nxt - connection.receive_bytes;
        let smoothed = connection.rtt.smoothed();
        let full = connection.quick_ack.full_segment().max(536);
        let mark = &mut self.transfer_mut(index).right_sizing;
        if !mark.on {
            *mark = RightSizing {
                on: true,
                space: (window / 2).max(10 * full),
                read,
                read_at: now_us,
                window_end: rcv_nxt + window,
                window_at: now_us,
                ..*mark
            };
            return;
        }
        if rcv_nxt.ge(mark.window_end) {
            let sample = now_us.wrapping_sub(mark.window_at).max(1);
            mark.rtt_us = if mark.rtt_us == 0 { sample } else { mark.rtt_us.min(sample) };
            mark.window_end = rcv_nxt + window;
            mark.window_at = now_us;
        }
        let rtt = if mark.rtt_us == 0 { smoothed } else { mark.rtt_us.max(smoothed) };
        let elapsed = now_us.wrapping_sub(mark.read_at);
        if rtt == 0 || elapsed < rtt {
            return;
        }
        // In a round trip, should it be longer ago that the last one was measured.
        let copied = u64::from((read - mark.read).max(0) as u32) * u64::from(rtt);
        let copied = (copied / u64::from(elapsed)) as u32;
        mark.read = read;
        mark.read_at = now_us;
        if copied <= mark.space {
            return;
        }
        // Twice what came in a round trip, and as much more as it has grown by.
        let wanted = 2 * u64::from(copied) + 16 * u64::from(full);
        let growth = wanted * u64::from(copied - mark.space) / u64::from(mark.space.max(1));
        mark.space = copied;
        let wanted = (wanted + 2 * growth).min(most.into()) as u32;
        if abound && wanted > before {
            mark.buffer = wanted;
            self.counters.receive_buffers_grown += 1;
            self.window_update(index);
        }
    }
}
