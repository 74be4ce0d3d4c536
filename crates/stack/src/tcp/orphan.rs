//! Connections that their application has closed and that are not over: bounded in number and in
//! patience, for what they hold serves nobody here any more (Linux's `tcp_max_orphans` and
//! `tcp_orphan_retries`).

use super::api::ConnectionId;
use super::connection::{Failure, Features, Flags, State};
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

    /// An application has let go of a connection that goes on. One too many is reset.
    pub(crate) fn enter_orphans(&mut self, index: usize) {
        if self.connections[index].features.has(Features::ORPHAN) {
            return;
        }
        if self.orphans >= self.config.orphans {
            self.counters.orphans_reset += 1;
            return self.abort_connection(index, Failure::Aborted);
        }
        self.connections[index].features.set(Features::ORPHAN);
        self.orphans += 1;
    }

    /// An orphan is over, or waits in TIME-WAIT.
    #[inline]
    pub(crate) fn leave_orphans(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.features.has(Features::ORPHAN) {
            connection.features.clear(Features::ORPHAN);
            self.orphans -= 1;
        }
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
