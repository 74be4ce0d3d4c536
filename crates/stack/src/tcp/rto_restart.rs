//! RTO restart (RFC 7765): the retransmission timer counts from when the first segment in flight
//! left and not from when the last acknowledgement came, where few segments are in flight: those
//! find no other way to tell of a loss.

use super::connection::Flags;
use crate::stack::Stack;

/// With fewer segments in flight, and nothing more to send, fast retransmit cannot help.
const FEW: usize = 4;

impl Stack {
    /// How much of the timeout has passed already for the first segment in flight, microseconds.
    pub(crate) fn already_waited(&self, index: usize) -> u32 {
        let connection = &self.connections[index];
        // Probes of a closed window come later and later, however long the data waits.
        let probing = connection.flags.has(Flags::PERSIST);
        if !self.config.tcp.rto_restart || connection.unsent() > 0 || probing {
            return 0;
        }
        let Some(transfer) = self.transfer(index) else { return 0 };
        match transfer.sent.first() {
            Some(first) if transfer.sent.len() < FEW => self.now_us.wrapping_sub(first.sent_at),
            _ => 0,
        }
    }
}
