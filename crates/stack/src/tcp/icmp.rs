//! ICMP errors that quote a segment of ours (RFC 5927, RFC 1122 §4.2.3.9).

use core::net::Ipv4Addr;

use millrace_wire::tcp;

use super::connection::{Failure, State};
use super::table::FourTuple;
use crate::address::word_v4;
use crate::stack::Stack;

impl Stack {
    /// An ICMP error quotes one of our segments (RFC 5927 §4: believed only if the quoted
    /// sequence number is of data in flight).
    pub(crate) fn tcp_icmp_error(
        &mut self,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        quoted: tcp::Quoted,
        hard: bool,
    ) {
        let Some(local) = self.addresses.find(word_v4(source)) else { return };
        let tuple = FourTuple {
            remote: word_v4(destination),
            remote_port: quoted.destination_port,
            local_port: quoted.source_port,
            local,
        };
        let found = self.find_connection(self.flow_hash(&tuple), &tuple);
        let live = found.filter(|&index| {
            let connection = &self.connections[index];
            quoted.sequence.ge(connection.snd_una) && quoted.sequence.lt(connection.snd_max)
        });
        let Some(index) = live else {
            self.counters.drop_icmp_unrelated += 1;
            return;
        };
        self.counters.icmp_errors_taken += 1;
        let connection = &mut self.connections[index];
        // RFC 1122 §4.2.3.9 and RFC 5461: hard errors end an attempt, and only that; an
        // established connection goes on until its own timers say otherwise.
        if matches!(connection.state, State::SynSent) {
            connection.failure =
                Some(if hard { Failure::Refused } else { Failure::HostUnreachable });
            self.end_connection(index);
        }
    }
}
