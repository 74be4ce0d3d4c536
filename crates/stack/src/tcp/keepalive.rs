//! Keepalive (RFC 9293 §3.8.4, RFC 1122 §4.2.3.6): whether the peer of an idle connection still lives.
//!
//! The probe is the window probe's: an acknowledgement from before the window, which any receiver
//! must answer. Nothing is done when a segment arrives; the timer, when it runs out, looks at when
//! the last one did.

use core::time::Duration;

use super::connection::{Failure, Flags, State};
use super::timers::millis;
use crate::stack::Stack;

/// Probes without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probes {
    count: u8,
    /// When the last segment had come as they began: another one since ends them.
    last_recv: u32,
}

impl Stack {
    /// The connection is established, or its settings have changed.
    pub(crate) fn restart_keepalive(&mut self, index: usize) {
        let settings = self.settings(index);
        let (on, idle) = (settings.keepalive, settings.keepalive_idle);
        let connection = &mut self.connections[index];
        let live = matches!(
            connection.state,
            State::Established | State::CloseWait | State::FinWait1 | State::FinWait2
        ) && !connection.flags.has(Flags::APP_CLOSED.with(Flags::LINGERING));
        if on && live {
            let elapsed = self.now_ms.wrapping_sub(connection.traffic.last_recv);
            self.arm_keepalive(index, millis(idle).saturating_sub(elapsed));
        } else if connection.flags.has(Flags::KEEPALIVE) {
            connection.flags.clear(Flags::KEEPALIVE.with(Flags::EXPIRE_ARMED));
        }
    }

    fn arm_keepalive(&mut self, index: usize, after_ms: u32) {
        self.arm_expiry(index, Duration::from_millis(after_ms.into()));
        self.connections[index].flags.set(Flags::KEEPALIVE);
    }

    /// The keepalive timer ran out.
    pub(crate) fn keepalive_expired(&mut self, index: usize) {
        let settings = self.settings(index);
        if !settings.keepalive {
            return;
        }
        let idle = millis(settings.keepalive_idle);
        let interval = millis(settings.keepalive_interval);
        let most = settings.keepalive_count;
        let patience = self.user_timeout(index).map(millis);
        let connection = &self.connections[index];
        let last_recv = connection.traffic.last_recv;
        let elapsed = self.now_ms.wrapping_sub(last_recv);
        // Retransmission sees to a connection with something under way.
        if connection.snd_una != connection.snd_nxt || connection.queued() > 0 {
            return self.arm_keepalive(index, idle);
        }
        let mut probes = self.transfer(index).map_or(Probes::default(), |one| one.keepalive);
        if elapsed < idle || probes.last_recv != last_recv {
            probes = Probes { count: 0, last_recv };
        }
        if elapsed < idle {
            if self.transfer(index).is_some() {
                self.transfer_mut(index).keepalive = Probes::default();
                self.settle_transfer(index);
            }
            return self.arm_keepalive(index, idle - elapsed);
        }
        let over = match patience {
            Some(patience) => probes.count > 0 && elapsed >= patience,
            None => probes.count >= most,
        };
        if over {
            self.counters.connections_timed_out += 1;
            return self.abort_connection(index, Failure::TimedOut);
        }
        probes.count = probes.count.saturating_add(1);
        self.transfer_mut(index).keepalive = probes;
        self.counters.keepalive_probes += 1;
        self.connections[index].flags.set(Flags::PROBE);
        self.push_out(index);
        let next =
            patience.map_or(interval, |patience| interval.min(patience - elapsed.min(patience)));
        self.arm_keepalive(index, next.max(1));
    }

    /// Keepalive probes that went without an answer so far.
    pub(crate) fn keepalive_probes(&self, index: usize) -> u8 {
        let last_recv = self.connections[index].traffic.last_recv;
        self.transfer(index)
            .filter(|one| one.keepalive.last_recv == last_recv)
            .map_or(0, |one| one.keepalive.count)
    }
}
