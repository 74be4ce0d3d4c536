//! Congestion window validation (RFC 7661): a window that was not used tells nothing of the path, so
//! it must not grow.

use millrace_wire::seq::Seq;

use super::congestion::Congestion;
use crate::stack::Stack;

/// How much of the window was used in this round trip.
#[derive(Debug, Default)]
pub(crate) struct WindowUsage {
    /// The window held the sender back.
    limited: bool,
    /// Most bytes in flight.
    most: u32,
    /// Where the round trip ends; `None`: there was none yet.
    until: Option<Seq>,
}

impl WindowUsage {
    /// Whether the window, and not the application or the peer, limits. While it doubles, it is
    /// used from half of it on: what is acknowledged lets twice as much leave.
    #[inline]
    pub(crate) fn limits(&self, congestion: &Congestion) -> bool {
        self.limited || (congestion.in_slow_start() && congestion.window / 2 < self.most)
    }
}

impl WindowUsage {
    /// So much was in flight up to `nxt`, and the window held the sender back or did not.
    #[inline]
    pub(crate) fn used(&mut self, in_flight: u32, limited: bool, una: Seq, nxt: Seq) {
        // A new round trip, or a better witness of this one.
        if self.until.is_none_or(|until| una.ge(until))
            || limited
            || (!self.limited && in_flight > self.most)
        {
            *self = WindowUsage { limited, most: in_flight, until: Some(nxt) };
        }
    }
}

impl Stack {
    /// Something has left, or could not for want of window (`limited`).
    #[inline]
    pub(crate) fn validate_window(&mut self, index: usize, limited: bool) {
        let in_flight = self.in_flight(index);
        let connection = &self.connections[index];
        let (una, nxt) = (connection.snd_una, connection.snd_nxt);
        let room = connection.congestion.window.saturating_sub(in_flight);
        let limited = limited || room < u32::from(connection.mss);
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        transfer.usage.used(in_flight, limited, una, nxt);
    }
}
