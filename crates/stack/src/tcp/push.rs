//! Which segments carry the PSH flag. The last one that is there to be sent must (RFC 9293
//! §3.9.1.2); so does the last one of each train of segments that leave together, because the peer's
//! receive offload and its application need not wait for more then. A train is what a host with
//! segmentation offload would hand to its adapter at once: about a millisecond's worth, at least
//! [`crate::Config::least_train`] segments, and never more than half of the congestion window. It
//! ends where a write does that ends with a segment. And half of the peer's window does not go
//! without one.

use millrace_wire::seq::Seq;

use super::congestion::CaState;
use crate::stack::Stack;

/// Bytes of which it has at most.
const MOST_BYTES: u32 = 65_535;

/// Segments that leave in one turn of a connection.
#[derive(Default)]
pub(crate) struct Train {
    /// Those since the last PSH.
    segments: u32,
    /// How many a train has; 0: not known yet.
    goal: u32,
}

impl Train {
    /// The next segment begins another train.
    pub(crate) fn is_new(&self) -> bool {
        self.segments == 0
    }

    /// Counts one more whole segment of what was never sent. `last`: no other follows in this turn.
    /// Returns whether it carries the flag.
    #[inline]
    pub(crate) fn push_new(&mut self, stack: &Stack, index: usize, last: bool) -> bool {
        let connection = &stack.connections[index];
        let meta = stack.arena.meta(connection.cursor);
        let ends =
            meta.write_end && Seq(meta.mark) == connection.snd_nxt && meta.len <= connection.mss;
        let pushes = self.push(stack, index, last || ends) || (ends && meta.pushed);
        if ends {
            self.segments = 0;
        }
        pushes
    }

    /// Counts one more segment. `last`: no other follows in this train. Returns whether it carries
    /// the flag.
    #[inline]
    pub(crate) fn push(&mut self, stack: &Stack, index: usize, last: bool) -> bool {
        self.segments += 1;
        if self.segments == 1 {
            return false;
        }
        if self.goal == 0 {
            self.goal = stack.train_goal(index);
        }
        if self.goal == 1 {
            // Each leaves alone.
            self.segments = 1;
            return false;
        }
        if !last && self.segments < self.goal {
            return false;
        }
        self.segments = 0;
        true
    }
}

impl Stack {
    /// Whether the segment that ends at `end` carries the flag: for what is known of it already, or
    /// because half of the peer's largest window has gone without one.
    #[inline]
    pub(crate) fn pushes(&mut self, index: usize, known: bool, end: Seq) -> bool {
        let connection = &self.connections[index];
        let (half, una) = (connection.max_window / 2, connection.snd_una);
        let transfer = self.transfer_mut(index);
        if transfer.sent.is_empty() {
            transfer.pushed = una;
        }
        if known || (end - transfer.pushed).max(0) as u32 > half {
            transfer.pushed = transfer.pushed.max(end);
            return true;
        }
        false
    }

    /// Whether a part of the window that is so small (bytes) waits for the next acknowledgement, so
    /// that what leaves leaves in longer trains: where one is about to come, and it is less than
    /// [`crate::Config::tso_win_divisor`] says (Linux's `tcp_tso_should_defer`).
    pub(crate) fn waits_for_more_window(&self, index: usize, room: u32) -> bool {
        const RECENT_US: u64 = 1000;
        let connection = &self.connections[index];
        let Some(transfer) = self.transfer(index) else { return false };
        let Some(first) = transfer.sent.first() else { return false };
        let mss = u32::from(connection.mss);
        let chunk = connection.snd_wnd.min(connection.congestion.window)
            / u32::from(self.config.tso_win_divisor);
        let age = self.now_us.wrapping_sub(first.sent_at);
        transfer.recovery.state < CaState::Recovery
            && room < chunk
            && room < self.train_goal(index) * mss
            && connection.since_sent(self.whole_us) <= RECENT_US
            && age >= connection.rtt.smoothed() / 2
    }

    /// Segments of a train: what leaves in a millisecond at twice the rate of a window in each
    /// round trip.
    fn train_goal(&self, index: usize) -> u32 {
        let connection = &self.connections[index];
        let mss = u32::from(connection.mss).max(1);
        let window = u64::from(connection.congestion.window);
        let bytes = match u64::from(connection.rtt.smoothed()) {
            0 => MOST_BYTES,
            smoothed => (2 * window * 1000 / smoothed).min(MOST_BYTES.into()) as u32,
        };
        let half = connection.congestion.window / mss / 2;
        (bytes / mss).max(self.config.least_train.into()).min(half).max(1)
    }
}
