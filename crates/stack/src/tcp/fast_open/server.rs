//! The server's side of Fast Open (RFC 7413 §4.2.2 and §5.1): which SYN opens a connection at once,
//! and how many such connections may wait for their handshake to end.

use std::collections::VecDeque;

use millrace_frames::Frame;
use millrace_wire::tcp::FastOpen;

use super::{Key, cookie};
use crate::stack::Stack;
use crate::tcp::connection::{Features, Flags, State};
use crate::tcp::input::Segment;
use crate::tcp::table::FourTuple;

/// Seconds for which a connection that was opened early and reset counts as one that waits: so
/// long a SYN with an invented source must not make room for the next (RFC 7413 §5.1).
const PENALTY: u32 = 60;

/// What a listener keeps for Fast Open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// Most connections that were opened early and whose handshake has not ended; 0: none are.
    pub(crate) most: u32,
    /// How many there are.
    pub(crate) count: u32,
    /// Until when others count that were reset, in seconds.
    penalties: VecDeque<u32>,
    /// The listener's own keys, the one that makes cookies first.
    pub(crate) keys: Option<(Key, Option<Key>)>,
}

impl Pending {
    pub(crate) fn new(most: u32) -> Self {
        Pending { most, ..Pending::default() }
    }

    fn is_full(&mut self, now_s: u32) -> bool {
        while self.penalties.front().is_some_and(|&end| now_s.wrapping_sub(end) as i32 >= 0) {
            self.penalties.pop_front();
        }
        self.count as usize + self.penalties.len() >= self.most as usize
    }
}

/// What a SYN gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// A connection at once.
    pub(crate) early: bool,
    /// A cookie with the SYN-ACK.
    pub(crate) cookie: bool,
}

impl Stack {
    fn keys(&self, listener: usize) -> (Key, Option<Key>) {
        if let Some(keys) = self.listeners[listener].fast_open.keys {
            return keys;
        }
        let own = &self.config.fast_open.keys;
        match own.first() {
            Some(&first) => (first, own.get(1).copied()),
            None => (self.keys.fast_open(), None),
        }
    }

    /// What Fast Open means for a SYN to this listener.
    pub(crate) fn fast_open_verdict(&mut self, listener: usize, syn: &Segment) -> Verdict {
        const PLAIN: Verdict = Verdict { early: false, cookie: false };
        let config = &self.config.fast_open;
        let free = config.server_without_cookie;
        if !config.server || self.listeners[listener].fast_open.most == 0 {
            return PLAIN;
        }
        let Some(given) =
            syn.options.fast_open.or((free && syn.len > 0).then_some(FastOpen::REQUEST))
        else {
            return PLAIN;
        };
        if self.listeners[listener].fast_open.is_full(self.now_s) {
            self.counters.fast_open_overflow += 1;
            return PLAIN;
        }
        if free {
            return Verdict { early: true, cookie: false };
        }
        if given.is_request() {
            self.counters.fast_open_cookies_asked += 1;
            return Verdict { early: false, cookie: true };
        }
        let (first, second) = self.keys(listener);
        let right = |key: &Key| self.cookie_for(key, &syn.tuple) == Some(given);
        if right(&first) {
            Verdict { early: true, cookie: false }
        } else if second.as_ref().is_some_and(right) {
            // It will be outdated soon.
            Verdict { early: true, cookie: true }
        } else {
            self.counters.fast_open_cookies_wrong += 1;
            Verdict { early: false, cookie: true }
        }
    }

    fn cookie_for(&self, key: &Key, tuple: &FourTuple) -> Option<FastOpen> {
        cookie(key, tuple.remote, crate::address::word(self.addresses.get(tuple.local)))
    }

    /// The cookie for the peer of a half-open connection.
    pub(crate) fn cookie_of(&self, index: usize) -> Option<FastOpen> {
        let (key, _) = self.keys(self.connections[index].listener.into());
        self.cookie_for(&key, &self.tuple_of(index))
    }

    /// Hands a connection in SYN-RECEIVED over before its handshake has ended, with the data of
    /// its SYN. Takes the frame.
    pub(crate) fn open_early(&mut self, index: usize, syn: &Segment, frame: Frame) {
        self.counters.fast_open_passive += 1;
        let listener = usize::from(self.connections[index].listener);
        self.listeners[listener].fast_open.count += 1;
        self.connections[index].features.set(Features::EARLY);
        self.start_sending(index);
        self.enter_accept_queue(index);
        if syn.len == 0 {
            return self.drop_chain(frame);
        }
        self.connections[index].features.set(Features::FAST_OPEN);
        // A FIN in a SYN is left to come again.
        self.text(index, syn.seq + 1, syn.len, false, frame);
        // The SYN-ACK acknowledges it.
        self.connections[index].acks_owed = 0;
    }

    /// The handshake of an early connection has ended, or the connection has.
    pub(crate) fn leave_early(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.features.has(Features::EARLY) {
            connection.features.clear(Features::EARLY);
            if let Some(listener) = self.listeners.get_mut(usize::from(connection.listener)) {
                listener.fast_open.count -= 1;
            }
        }
    }

    /// The listener goes, and what it has handed over early stays.
    pub(crate) fn release_early(&mut self, listener: u16) {
        let pending = &mut self.listeners[usize::from(listener)].fast_open;
        if core::mem::take(&mut pending.count) == 0 {
            return;
        }
        for connection in &mut self.connections {
            if connection.features.has(Features::EARLY) && connection.listener == listener {
                connection.features.clear(Features::COOKIE_DUE);
                connection.listener = u16::MAX;
            }
        }
    }

    /// A reset ended an early connection: its place stays taken for a while.
    pub(crate) fn punish_early_reset(&mut self, index: usize) {
        let listener = usize::from(self.connections[index].listener);
        let Some(listener) = self.listeners.get_mut(listener) else { return };
        let pending = &mut listener.fast_open;
        if pending.penalties.len() < pending.most as usize {
            pending.penalties.push_back(self.now_s.wrapping_add(PENALTY));
        }
    }

    /// The ACK of an early connection's SYN-ACK. What it says of data follows in
    /// [`Stack::acknowledgement`].
    pub(crate) fn early_established(&mut self, index: usize, segment: &Segment) {
        self.leave_early(index);
        let connection = &mut self.connections[index];
        connection.state = if connection.flags.has(Flags::FIN_QUEUED) {
            State::FinWait1
        } else {
            State::Established
        };
        // Data that has left has its own time.
        if connection.retries > 0 || connection.flight() == 0 {
            self.measure_handshake(index, segment);
        }
        let connection = &mut self.connections[index];
        connection.retries = 0;
        connection.flags.clear(Flags::REXMIT_ARMED.with(Flags::SEND_SYN));
        if connection.flight() > 0 {
            self.arm_retransmission(index);
        }
        if self.settings(index).keepalive {
            self.restart_keepalive(index);
        }
        self.push_out(index);
    }
}
