//! How long a sender was busy, and how long the peer's window or its own buffer held it back: Linux's
//! `tcpi_busy_time`, `tcpi_rwnd_limited` and `tcpi_sndbuf_limited`.

use std::io;

use super::api::ConnectionId;
use crate::stack::Stack;

/// What holds a sender back that has something to send, besides the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Limit {
    #[default]
    None,
    /// The peer's window.
    Window,
    /// The send buffer: all of it is under way, and more waits outside.
    Buffer,
}

impl Stack {
    /// For who bounds an application's writes itself, beside the send buffer: whether something
    /// waits outside that is not written for that reason. It shows as time that the send buffer
    /// held the connection back (`tcpi_sndbuf_limited`).
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn set_withheld(&mut self, id: ConnectionId, withheld: bool) -> io::Result<()> {
        let index = self.entry(id)?;
        if withheld != self.transfer(index).is_some_and(|transfer| transfer.withheld) {
            self.transfer_mut(index).withheld = withheld;
            if !withheld && self.transfer_mut(index).limit == Limit::Buffer {
                self.set_limit(index, Limit::None);
            }
        }
        Ok(())
    }

    /// What holds the sender back from now on. A total has its start subtracted while it runs.
    pub(crate) fn set_limit(&mut self, index: usize, limit: Limit) {
        let now = self.tick;
        if limit == Limit::None && self.transfer(index).is_none() {
            return;
        }
        let transfer = self.transfer_mut(index);
        let before = core::mem::replace(&mut transfer.limit, limit);
        if before == limit {
            return;
        }
        let totals = &mut transfer.totals;
        match before {
            Limit::None => {}
            Limit::Window => totals.window_limited = totals.window_limited.wrapping_add(now),
            Limit::Buffer => totals.buffer_limited = totals.buffer_limited.wrapping_add(now),
        }
        match limit {
            Limit::None => {}
            Limit::Window => totals.window_limited = totals.window_limited.wrapping_sub(now),
            Limit::Buffer => totals.buffer_limited = totals.buffer_limited.wrapping_sub(now),
        }
    }

    /// The connection is over, and what it has to send waits no more.
    pub(crate) fn stop_chronograph(&mut self, index: usize) {
        self.set_limit(index, Limit::None);
        let tick = self.tick;
        let connection = &mut self.connections[index];
        if connection.is_busy() {
            connection.end_busy(tick);
        }
    }

    /// Ticks in which the window and the buffer held the sender back, up to now.
    pub(crate) fn limited(&self, index: usize) -> (u64, u64) {
        let now = self.tick;
        let Some(transfer) = self.transfer(index) else { return (0, 0) };
        let (window, buffer) = (transfer.totals.window_limited, transfer.totals.buffer_limited);
        match transfer.limit {
            Limit::None => (window, buffer),
            Limit::Window => (window.wrapping_add(now), buffer),
            Limit::Buffer => (window, buffer.wrapping_add(now)),
        }
    }
}
