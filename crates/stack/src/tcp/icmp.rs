//! ICMP errors that quote a segment of ours (RFC 5927, RFC 1122 §4.2.3.9).

use millrace_wire::tcp;

use super::connection::{Failure, State};
use super::table::FourTuple;
use crate::address::Word;
use crate::stack::Stack;

impl Stack {
    /// The connection that a quoted segment of ours belongs to, if its sequence number is of data
    /// in flight (RFC 5927 §4): only then is the error believed.
    pub(crate) fn quoted_connection(
        &self,
        source: Word,
        destination: Word,
        quoted: tcp::Quoted,
    ) -> Option<usize> {
        let tuple = FourTuple {
            remote: destination,
            remote_port: quoted.destination_port,
            local_port: quoted.source_port,
            local: self.addresses.find(source)?,
        };
        let index = self.find_connection(self.flow_hash(&tuple), &tuple)?;
        let connection = &self.connections[index];
        // An early connection's SYN-ACK is in flight, too (RFC 7413).
        let first = match connection.state {
            State::SynReceived => connection.iss,
            _ => connection.snd_una,
        };
        let live = quoted.sequence.ge(first) && quoted.sequence.lt(connection.snd_nxt);
        live.then_some(index)
    }

    /// An ICMP error of either family quotes a segment from `source` to `destination`.
    pub(crate) fn tcp_icmp_error(
        &mut self,
        source: Word,
        destination: Word,
        quoted: tcp::Quoted,
        hard: bool,
    ) {
        let Some(index) = self.quoted_connection(source, destination, quoted) else {
            self.counters.drop_icmp_unrelated += 1;
            return;
        };
        self.counters.icmp_errors_taken += 1;
        let connection = &mut self.connections[index];
        // RFC 1122 §4.2.3.9 and RFC 5461: hard errors end an attempt, and only that; an
        // established connection goes on until its own timers say otherwise.
        match connection.state {
            State::SynSent | State::SynReceived => {
                connection.failure =
                    Some(if hard { Failure::Refused } else { Failure::HostUnreachable });
                self.end_connection(index);
            }
            _ => self.counters.icmp_errors_soft += 1,
        }
    }
}
