//! ICMP errors that quote a segment of ours (RFC 5927, RFC 1122 §4.2.3.9).

use millrace_wire::seq::Seq;
use millrace_wire::tcp;

use super::connection::{Failure, Features, Flags, State};
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
        let (index, first, next) = self.quoted_numbers(source, destination, quoted)?;
        quoted.sequence.between(first, next).then_some(index)
    }

    /// Whether a connection may have sent a quoted segment of ours just now: one in flight, or one
    /// without data, as who only receives sends.
    pub(crate) fn quotes_connection(
        &self,
        source: Word,
        destination: Word,
        quoted: tcp::Quoted,
    ) -> bool {
        self.quoted_numbers(source, destination, quoted).is_some_and(|(_, first, next)| {
            quoted.sequence.between(first, next) || quoted.sequence == next
        })
    }

    /// The connection with the addresses and ports of a quoted segment, its first sequence number in
    /// flight, and its next one.
    fn quoted_numbers(
        &self,
        source: Word,
        destination: Word,
        quoted: tcp::Quoted,
    ) -> Option<(usize, Seq, Seq)> {
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
        Some((index, first, connection.snd_nxt))
    }

    /// An ICMP error of either family quotes a segment from `source` to `destination`.
    pub(crate) fn tcp_icmp_error(
        &mut self,
        source: Word,
        destination: Word,
        quoted: tcp::Quoted,
        hard: bool,
    ) {
        let Some(index) = self.take_icmp_error(source, destination, quoted) else { return };
        let connection = &mut self.connections[index];
        // An early connection is one as soon as somebody has accepted it (RFC 7413 §4.2.2); Linux's
        // are, too.
        let early =
            connection.features.has(Features::EARLY) && connection.flags.has(Flags::ATTACHED);
        let attempt = match connection.state {
            State::SynSent => true,
            State::SynReceived => !early,
            _ => false,
        };
        // RFC 1122 §4.2.3.9 and RFC 5461: errors end an attempt, and only that; an established
        // connection goes on until its own timers say otherwise.
        if attempt {
            connection.failure =
                Some(if hard { Failure::Refused } else { Failure::HostUnreachable });
            self.end_connection(index);
        } else {
            self.counters.icmp_errors_soft += 1;
        }
    }

    /// An ICMP error of either family that says nothing of where the segment was to go: the path
    /// was too long for it or broke it, as a loop does that routers are about to mend. No state of
    /// a connection ends for that (RFC 9293 §3.9.2.2).
    pub(crate) fn tcp_icmp_soft_error(
        &mut self,
        source: Word,
        destination: Word,
        quoted: tcp::Quoted,
    ) {
        if self.take_icmp_error(source, destination, quoted).is_some() {
            self.counters.icmp_errors_soft += 1;
        }
    }

    /// The connection that an error is about, if it is believed.
    fn take_icmp_error(
        &mut self,
        source: Word,
        destination: Word,
        quoted: tcp::Quoted,
    ) -> Option<usize> {
        let index = self.quoted_connection(source, destination, quoted);
        match index {
            Some(_) => self.counters.icmp_errors_taken += 1,
            None => self.counters.drop_icmp_unrelated += 1,
        }
        index
    }
}
