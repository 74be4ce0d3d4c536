//! Half-open connections: how many a listener has, and which must go when there are too many
//! (RFC 4987 §3).
//!
//! Under pressure those that did not answer their first SYN-ACK give way: they are sent again less
//! often, and without cookies the oldest of them makes room for a new one. With cookies it is the
//! thread's time that runs out: then those who have shown that they exist are answered first.

use core::time::Duration;

use super::connection::{Features, Flags, NO_LINK};
use super::input::Segment;
use crate::address::Word;
use crate::config::SynCookies;
use crate::stack::Stack;

/// What a SYN gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// An entry of its own.
    Entry,
    /// A cookie, and nothing is remembered.
    Cookie,
    /// Nothing; that is counted.
    None,
}

impl Stack {
    /// What a SYN from `remote` to this listener gets.
    pub(crate) fn admit(&mut self, listener: usize, remote: Word) -> Admission {
        let state = &self.listeners[listener];
        // Half of the table is for those who have shown that they exist.
        let full = state.half_open >= state.syn_queue
            || self.half_open_total >= (self.config.connections / 2).max(1);
        match self.config.syn_cookies {
            SynCookies::Always => return self.admit_to_cookie(remote),
            SynCookies::WhenFull if full => return self.admit_to_cookie(remote),
            _ => {}
        }
        if full && !self.evict_half_open(listener) {
            self.counters.drop_listen_syn_queue_full += 1;
            return Admission::None;
        }
        Admission::Entry
    }

    /// A cookie takes no memory, but the time for it goes off what is left for connections.
    fn admit_to_cookie(&mut self, remote: Word) -> Admission {
        if self.backlog.is_behind(self.now)
            && !self.proven_peers.contains(&self.keys, remote)
            && self.backlog.leaves_undone(&self.keys)
        {
            self.counters.drop_listen_behind += 1;
            return Admission::None;
        }
        Admission::Cookie
    }

    /// The listener's oldest half-open connection makes way if it had its chance.
    fn evict_half_open(&mut self, listener: usize) -> bool {
        let oldest = self.listeners[listener].half_open_list.head;
        if oldest == NO_LINK || self.connections[oldest as usize].retries == 0 {
            return false;
        }
        self.counters.half_open_evicted += 1;
        self.free_connection(oldest as usize);
        true
    }

    /// Puts a new connection behind the listener's other half-open ones.
    pub(crate) fn enter_half_open(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.flags.set(Flags::HALF_OPEN);
        let listener = &mut self.listeners[usize::from(connection.listener)];
        listener.half_open_list.push_back(&mut self.connections, index);
        listener.half_open += 1;
        listener.young += 1;
        self.half_open_total += 1;
    }

    /// If the connection is half-open, it is so no longer.
    #[inline]
    pub(crate) fn leave_half_open(&mut self, index: usize) {
        if self.connections[index].flags.has(Flags::HALF_OPEN) {
            self.leave_syn_queue(index);
        }
    }

    fn leave_syn_queue(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.flags.clear(Flags::HALF_OPEN);
        let young = connection.retries == 0;
        let listener = &mut self.listeners[usize::from(connection.listener)];
        listener.half_open_list.remove(&mut self.connections, index);
        listener.half_open -= 1;
        listener.young -= u32::from(young);
        self.half_open_total -= 1;
    }

    /// SYN-ACKs that a connection in SYN-RECEIVED may send again. With a queue more than half
    /// full they are fewer, the fewer of its connections are young: so those who never answer
    /// leave soon, and a queue of slow peers is not emptied.
    pub(crate) fn syn_ack_limit(&self, index: usize) -> u8 {
        let connection = &self.connections[index];
        let most = self.config.syn_ack_retries;
        if !connection.flags.has(Flags::HALF_OPEN) {
            return most;
        }
        let listener = &self.listeners[usize::from(connection.listener)];
        let mut limit = most;
        if 2 * u64::from(listener.half_open) > u64::from(listener.syn_queue.max(8)) {
            let mut young = 2 * u64::from(listener.young);
            while limit > 2 && u64::from(listener.half_open) >= young {
                limit -= 1;
                young *= 2;
            }
        }
        // One that waits for data stays as long as its listener wants.
        limit.max(if connection.features.has(Features::DEFERRED) { listener.defer } else { 0 })
    }

    /// The SYN-ACK's timer ran out, for the first time or again (`retries` counts it already).
    pub(crate) fn syn_ack_timeout(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let number = usize::from(connection.listener);
        let half_open = connection.flags.has(Flags::HALF_OPEN);
        if half_open && connection.retries == 1 {
            self.listeners[number].young -= 1;
        }
        // The peer has answered, and only its data is missing: it is asked again when that has
        // taken too long, and its answer then is enough.
        let waits = half_open
            && connection.features.has(Features::DEFERRED)
            && connection.retries < self.listeners[number].defer;
        if !waits {
            connection.flags.set(Flags::SEND_SYN);
        }
    }

    /// Retransmissions of a SYN-ACK that take at least this long.
    pub(crate) fn defer_retries(&self, time: Option<Duration>) -> u8 {
        let Some(time) = time else { return 0 };
        let (mut passed, mut step, mut count) = (Duration::ZERO, self.config.initial_rto, 0);
        while passed < time && count < u8::MAX {
            passed += step.max(Duration::from_millis(1));
            step = (step * 2).min(self.config.max_rto);
            count += 1;
        }
        count
    }

    /// Whether the handshake's last acknowledgement is put aside because the listener wants data
    /// first (`TCP_DEFER_ACCEPT`).
    pub(crate) fn defers(&mut self, index: usize, segment: &Segment) -> bool {
        let connection = &mut self.connections[index];
        if !connection.flags.has(Flags::HALF_OPEN) || segment.sequence_len() > 0 {
            return false;
        }
        let listener = &self.listeners[usize::from(connection.listener)];
        if connection.retries >= listener.defer {
            return false;
        }
        connection.features.set(Features::DEFERRED);
        true
    }
}
