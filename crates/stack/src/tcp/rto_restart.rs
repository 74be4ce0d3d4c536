//! RTO restart (RFC 7765): the retransmission timer counts from when the first segment in flight
//! left and not from when the last acknowledgement came, where few segments are in flight: those
//! find no other way to tell of a loss.

use super::connection::Flags;
use crate::stack::Stack;

/// With no more segments than these in flight and ready to be sent, fast retransmit cannot help: one
/// less than rrthresh (RFC 7765 §4).
const FEW: u32 = 3;

impl Stack {
    /// How much of the timeout has passed already for the first segment in flight, microseconds.
    pub(crate) fn already_waited(&self, index: usize) -> u32 {
        let connection = &self.connections[index];
        // Probes of a closed window come later and later, however long the data waits.
        let probing = connection.flags.has(Flags::PERSIST);
        if !self.config.tcp.rto_restart || probing {
            return 0;
        }
        let Some(transfer) = self.transfer(index) else { return 0 };
        // A record may be of many segments, and a segment of a few bytes.
        let (mss, unsent) = (u32::from(connection.mss), connection.unsent());
        let left = FEW.saturating_sub(transfer.sent.len() as u32);
        let few = connection.flight() + unsent <= FEW * mss && unsent <= left * mss;
        match transfer.sent.first() {
            Some(first) if few && transfer.sent.len() <= FEW as usize => {
                self.now_us.wrapping_sub(first.sent_at)
            }
            _ => 0,
        }
    }
}
