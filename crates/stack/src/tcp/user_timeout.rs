//! The user timeout (RFC 9293 §3.9.1, RFC 5482): how long what was sent may stay unacknowledged, or a
//! closed window stay closed, before the connection is given up. It takes the place of the number
//! of retransmissions, as `TCP_USER_TIMEOUT` does in Linux.

use millrace_wire::seq::Seq;

use super::connection::{Flags, State};
use super::timers::millis;
use crate::stack::Stack;

/// Since when nothing more is acknowledged although something is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Silence {
    on: bool,
    /// When what waits first was sent, milliseconds modulo 2^32: a user timeout may be of weeks
    /// (RFC 5482 §3), and ticks would go round in days.
    since: u32,
    /// When it timed out first.
    timed_out: u32,
    /// What is acknowledged: when more is, this silence is over, whatever else has seen to it.
    una: Seq,
}

impl Stack {
    /// The retransmission or persist timer ran out. Whether the peer was silent for longer than
    /// the user timeout; `None`: there is none, and retransmissions are counted.
    pub(crate) fn user_timeout_over(&mut self, index: usize) -> Option<bool> {
        if self.connections[index].state == State::SynReceived {
            return None;
        }
        let connection = &self.connections[index];
        let (una, probing) = (connection.snd_una, connection.flags.has(Flags::PERSIST));
        if probing && connection.snd_wnd > 0 {
            // The peer's window is open: what waits is too little to be sent, and nobody is silent.
            return None;
        }
        let now = self.now_ms;
        let patience = self.user_timeout(index).map(millis);
        if self.transfer(index).is_some_and(|transfer| transfer.silence.una != una) {
            self.silence_ended(index);
        }
        if patience.is_some() || !probing {
            let timeout = self.connections[index].rtt.backed_off(self.rtt_bounds);
            let transfer = self.transfer_mut(index);
            if !probing {
                transfer.totals.timeouts = transfer.totals.timeouts.saturating_add(1);
            }
            if !transfer.silence.on {
                let since = now.wrapping_sub(timeout / 1000);
                transfer.silence = Silence { on: true, since, timed_out: now, una };
                transfer.totals.timeout_recoveries += u16::from(!probing);
            }
        }
        let since = self.transfer(index).map_or(now, |transfer| transfer.silence.since);
        patience.map(|patience| now.wrapping_sub(since) >= patience)
    }

    /// Something was acknowledged after a timeout, or the window has opened, or the timeout has proved
    /// needless: a later silence is counted from its own beginning.
    pub(crate) fn silence_ended(&mut self, index: usize) {
        let now = self.now_ms;
        if self.transfer(index).is_none_or(|transfer| !transfer.silence.on) {
            return;
        }
        let transfer = self.transfer_mut(index);
        let took = now.wrapping_sub(transfer.silence.timed_out);
        transfer.silence = Silence::default();
        if transfer.totals.timeouts > 0 {
            transfer.totals.timeout_millis = transfer.totals.timeout_millis.saturating_add(took);
        }
    }

    /// The next timeout, in microseconds, is no later than the end of the user timeout.
    #[inline]
    pub(crate) fn clamp_to_user_timeout(&self, index: usize, timeout_us: u32) -> u32 {
        let Some(patience) = self.user_timeout(index) else { return timeout_us };
        let left = match self.transfer(index).map(|transfer| transfer.silence) {
            Some(Silence { on: true, since, una, .. })
                if una == self.connections[index].snd_una =>
            {
                millis(patience).saturating_sub(self.now_ms.wrapping_sub(since))
            }
            _ => millis(patience),
        };
        timeout_us.min(left.saturating_mul(1000))
    }
}
