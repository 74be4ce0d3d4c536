//! Which algorithm a connection uses (Linux's `TCP_CONGESTION`).

use std::io;

use super::{Algorithm, Private};
use crate::stack::Stack;
use crate::tcp::api::ConnectionId;

impl Stack {
    /// Chooses a connection's congestion control, before or while data flows. The window stays as
    /// it is. A connection begins with [`Config::congestion`](crate::Config::congestion).
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn set_congestion(&mut self, id: ConnectionId, algorithm: Algorithm) -> io::Result<()> {
        let index = self.entry(id)?;
        let connection = &mut self.connections[index];
        let before = core::mem::replace(&mut connection.algorithm, algorithm);
        match self.transfers.get_mut(connection.transfer) {
            Some(transfer) => {
                let bbr = transfer.congestion.owns_window();
                if bbr && algorithm != before {
                    // What stood before a reduction of it had no threshold, and its window comes back
                    // without.
                    transfer.undo.end();
                }
                connection.congestion.switch(&mut transfer.congestion, algorithm);
            }
            None => connection.congestion.switch(&mut Private::new(before), algorithm),
        }
        Ok(())
    }

    /// A connection's congestion control.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn congestion(&self, id: ConnectionId) -> io::Result<Algorithm> {
        Ok(self.connections[self.entry(id)?].algorithm)
    }
}
