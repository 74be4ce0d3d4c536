//! Connections that their application has closed and that are not over: bounded in number and in
//! patience, for what they hold serves nobody here any more (Linux's `tcp_max_orphans` and
//! `tcp_orphan_retries`).

use super::api::ConnectionId;
use super::connection::{Failure, Features, Flags, NO_LINK, State};
use crate::stack::Stack;

impl Stack {
    /// The application has let go of a connection for which more is still to be written: what comes
    /// is thrown away, its linger time runs, and it has the bounds of all that are closed.
    /// [`Stack::close`] is to follow when everything is written.
    pub fn orphan(&mut self, id: ConnectionId) {
        let Ok(index) = self.entry(id) else { return };
        let linger = self.settings(index).linger;
        if linger.is_some_and(|time| time.is_zero()) {
            return self.abort_connection(index, Failure::Aborted);
        }
        // Only a stale id fails.
        let _ = self.shutdown_read(id);
        self.enter_orphans(index);
        if self.connections[index].state != State::Closed
            && let Some(time) = linger
        {
            self.begin_linger(index, time);
        }
    }

    /// An application has let go of a connection that goes on. One too many is reset, unless there is
    /// another that has delivered everything.
    pub(crate) fn enter_orphans(&mut self, index: usize) {
        if self.connections[index].features.has(Features::ORPHAN) {
            return;
        }
        if self.orphans >= self.config.orphans && !self.end_fin_wait_2() {
            self.counters.orphans_reset += 1;
            return self.abort_connection(index, Failure::Aborted);
        }
        self.connections[index].features.set(Features::ORPHAN);
        self.orphans += 1;
    }

    /// An orphan is over, or waits in TIME-WAIT.
    #[inline]
    pub(crate) fn leave_orphans(&mut self, index: usize) {
        if self.connections[index].features.has(Features::ORPHAN) {
            self.leave_fin_wait_2(index);
            self.connections[index].features.clear(Features::ORPHAN);
            self.orphans -= 1;
        }
    }

    /// Our FIN is acknowledged and nobody waits for the peer's: it has the time that is set, and no
    /// longer than nobody else needs the place, for peers that never send one cost nothing to have.
    pub(crate) fn orphan_in_fin_wait_2(&mut self, index: usize) {
        let Some(time) = self.settings(index).fin_wait_2 else {
            return self.end_connection(index);
        };
        let time = if time.is_zero() { self.config.fin_wait_2 } else { time };
        self.fin_wait_2.push_back(&mut self.connections, index);
        self.arm_expiry(index, time);
    }

    fn leave_fin_wait_2(&mut self, index: usize) {
        let connection = &self.connections[index];
        let listed = connection.link_back != NO_LINK || self.fin_wait_2.head == index as u32;
        if connection.state == State::FinWait2 && listed {
            self.fin_wait_2.remove(&mut self.connections, index);
        }
    }

    /// The orphan that has waited longest for its peer's FIN ends. Returns whether there was one.
    pub(crate) fn end_fin_wait_2(&mut self) -> bool {
        let oldest = self.fin_wait_2.head;
        if oldest == NO_LINK {
            return false;
        }
        self.counters.fin_wait_2_recycled += 1;
        self.end_connection(oldest as usize);
        true
    }

    /// Whether the timer ran out once too often for an orphan. A peer that acknowledges every probe of
    /// its closed window may take its time until the probes are as far apart as they can be, and is
    /// then no better than one that is silent.
    pub(crate) fn orphan_gives_up(&self, index: usize) -> bool {
        let connection = &self.connections[index];
        let probing = connection.flags.has(Flags::PERSIST);
        connection.features.has(Features::ORPHAN)
            && (connection.retries >= self.config.orphan_retries
                || probing
                    && connection.rtt.backoff >= self.config.orphan_retries
                    && connection.rtt.is_fully_backed_off(self.rtt_bounds))
    }
}
