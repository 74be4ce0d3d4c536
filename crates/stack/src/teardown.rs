//! The end of a stack: what a channel does before it lets go of port and arena.

use crate::Stack;
use crate::tcp::connection::{Failure, Flags, State};

impl Stack {
    /// Ends up to `most` connections with a reset each, whoever has them, and forgets those in
    /// TIME-WAIT on the way. Returns whether there may be more. The caller transmits in between,
    /// for the resets wait in a bounded queue.
    pub fn abort_some(&mut self, most: usize) -> bool {
        let mut aborted = 0;
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if !connection.flags.has(Flags::IN_TABLE.with(Flags::ATTACHED)) {
                continue;
            }
            if aborted == most {
                return true;
            }
            aborted += usize::from(connection.state != State::TimeWait);
            self.connections[index].flags.clear(Flags::ATTACHED);
            if self.connections[index].flags.has(Flags::IN_TABLE) {
                self.abort_connection(index, Failure::Aborted);
            } else {
                self.free_connection(index);
            }
        }
        false
    }

    /// Gives up the packets that wait for a neighbour's address or to be transmitted.
    pub fn drop_waiting(&mut self) {
        self.neighbours.release_waiting();
        self.release_neighbour_packets();
        self.release_control_packets();
    }
}
