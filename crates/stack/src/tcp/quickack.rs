//! When an acknowledgement goes at once (RFC 9293 §3.8.6.3, RFC 5681 §4.2).

use super::connection::{Connection, Flags};
use crate::stack::Stack;

impl Connection {
    /// Data goes both ways in turn, so that acknowledgements are likely to find data to ride on.
    pub(crate) fn is_interactive(&self) -> bool {
        self.traffic.data_segs_in > 0 && self.traffic.data_segs_out > 0
    }
}

impl Stack {
    /// How long an acknowledgement is delayed, microseconds.
    pub(crate) fn delayed_ack_us(&self, _index: usize) -> u32 {
        u32::try_from(self.config.delayed_ack.as_micros()).unwrap_or(u32::MAX)
    }

    /// Payload of the peer's full segments.
    pub(crate) fn received_mss(&self, index: usize) -> u32 {
        self.connections[index].mss.into()
    }

    /// `TCP_QUICKACK`.
    pub(crate) fn set_quick_ack(&mut self, index: usize, on: bool) {
        if on && self.connections[index].flags.has(Flags::DELACK_ARMED) {
            self.acknowledge_now(index);
        }
    }
}
