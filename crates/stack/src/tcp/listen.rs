//! Opens from outside: listeners, their half-open connections and their accept queues.

use core::net::SocketAddr;
use std::io;

use millrace_wire::mac::Mac;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::Flags as Bits;

use super::api::{ConnectionId, ListenerId};
use super::connection::{Failure, Flags, NO_LINK, State};
use super::input::Segment;
use super::settings::Settings;
use super::table::FourTuple;
use crate::address::{Word, address};
use crate::stack::{NO_SOCKET, Stack};

#[derive(Clone, Debug)]
pub(crate) struct Listener {
    open: bool,
    generation: u16,
    /// 0: any of our addresses.
    local: Word,
    port: u16,
    /// Next listener of the same port.
    next: u16,
    pub(crate) backlog: u32,
    pub(crate) half_open: u32,
    /// Established and not accepted.
    pub(crate) queued: u32,
    pub(crate) head: u32,
    pub(crate) tail: u32,
    waiting: bool,
    /// Of the connections that it accepts, where they differ from the stack's.
    pub(crate) settings: Option<Box<Settings>>,
}

impl Stack {
    /// Takes connections to an address of ours (unspecified: any) and port. `backlog` bounds both
    /// the connections that wait to be accepted and the half-open ones.
    ///
    /// # Errors
    /// `InvalidInput` for port 0 or a backlog of 0, `AddrNotAvailable` when the address is not
    /// ours, `AddrInUse`, `QuotaExceeded` when all listeners are in use.
    pub fn listen(&mut self, local: SocketAddr, backlog: u32) -> io::Result<ListenerId> {
        if local.port() == 0 || backlog == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a listener needs a port other than 0 and a backlog of at least 1",
            ));
        }
        let local_word =
            if local.ip().is_unspecified() { 0 } else { self.own_address(local.ip())? };
        let mut next = self.tcp_ports[usize::from(local.port())];
        let first = next;
        while next != NO_SOCKET {
            let other = &self.listeners[usize::from(next)];
            if other.local == local_word {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    format!("TCP {local} is taken by another listener of this stack"),
                ));
            }
            next = other.next;
        }
        let index = match self.listeners.iter().position(|listener| !listener.open) {
            Some(index) => index,
            None if self.listeners.len() < usize::from(self.config.listeners) => {
                self.listeners.push(Listener {
                    open: false,
                    generation: 0,
                    local: 0,
                    port: 0,
                    next: NO_SOCKET,
                    backlog: 0,
                    half_open: 0,
                    queued: 0,
                    head: NO_LINK,
                    tail: NO_LINK,
                    waiting: false,
                    settings: None,
                });
                self.listeners.len() - 1
            }
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    format!("all {} listeners are in use", self.config.listeners),
                ));
            }
        };
        let listener = &mut self.listeners[index];
        *listener = Listener {
            open: true,
            generation: listener.generation,
            local: local_word,
            port: local.port(),
            next: first,
            backlog,
            half_open: 0,
            queued: 0,
            head: NO_LINK,
            tail: NO_LINK,
            waiting: listener.waiting,
            settings: None,
        };
        self.tcp_ports[usize::from(local.port())] = index as u16;
        Ok(ListenerId { index: index as u16, generation: listener.generation })
    }

    pub(crate) fn listener(&self, id: ListenerId) -> io::Result<&Listener> {
        self.listeners
            .get(usize::from(id.index))
            .filter(|listener| listener.open && listener.generation == id.generation)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the listener is closed"))
    }

    /// The address and port that a listener takes connections to.
    ///
    /// # Errors
    /// `NotConnected` if it is closed.
    pub fn listener_address(&self, id: ListenerId) -> io::Result<SocketAddr> {
        let listener = self.listener(id)?;
        let ip = match listener.local {
            0 => core::net::Ipv4Addr::UNSPECIFIED.into(),
            local => address(local),
        };
        Ok(SocketAddr::new(ip, listener.port))
    }

    /// Takes the oldest connection that waits, with whatever it has received already.
    ///
    /// # Errors
    /// `NotConnected` if the listener is closed.
    pub fn accept(&mut self, id: ListenerId) -> io::Result<Option<ConnectionId>> {
        self.listener(id)?;
        let listener = &mut self.listeners[usize::from(id.index)];
        if listener.head == NO_LINK {
            return Ok(None);
        }
        let index = listener.head as usize;
        let connection = &mut self.connections[index];
        listener.head = connection.link;
        if listener.head == NO_LINK {
            listener.tail = NO_LINK;
        }
        listener.queued -= 1;
        if listener.head != NO_LINK && !core::mem::replace(&mut listener.waiting, true) {
            self.ready_listeners.push_back(id.index);
        }
        connection.link = NO_LINK;
        connection.flags.clear(Flags::IN_ACCEPT);
        connection.flags.set(Flags::ATTACHED);
        let generation = connection.generation;
        // What happened before somebody could be told.
        let early = connection.ready;
        if !early.is_empty() {
            self.tell(index, early);
        }
        Ok(Some(ConnectionId { index: index as u32, generation }))
    }

    /// Closes a listener; connections that nobody accepted are reset.
    pub fn close_listener(&mut self, id: ListenerId) {
        if self.listener(id).is_err() {
            return;
        }
        while let Ok(Some(connection)) = self.accept(id) {
            self.abort(connection);
            self.release(connection);
        }
        let listener = &mut self.listeners[usize::from(id.index)];
        listener.open = false;
        listener.generation = listener.generation.wrapping_add(1);
        let (port, after, half_open) = (listener.port, listener.next, listener.half_open);
        if half_open > 0 {
            for index in 0..self.connections.len() {
                let connection = &self.connections[index];
                if connection.flags.has(Flags::HALF_OPEN) && connection.listener == id.index {
                    self.abort_connection(index, Failure::Aborted);
                }
            }
        }
        let mut at = self.tcp_ports[usize::from(port)];
        if at == id.index {
            self.tcp_ports[usize::from(port)] = after;
            return;
        }
        while at != NO_SOCKET {
            let next = self.listeners[usize::from(at)].next;
            if next == id.index {
                self.listeners[usize::from(at)].next = after;
                return;
            }
            at = next;
        }
    }

    pub(crate) fn listener_ready(&mut self, index: u16) -> Option<ListenerId> {
        let listener = &mut self.listeners[usize::from(index)];
        listener.waiting = false;
        (listener.open && listener.head != NO_LINK)
            .then_some(ListenerId { index, generation: listener.generation })
    }

    /// The listener for a segment: bound to its address before bound to any.
    pub(crate) fn find_listener(&self, tuple: &FourTuple) -> Option<usize> {
        let mut next = self.tcp_ports[usize::from(tuple.local_port)];
        let mut any = None;
        while next != NO_SOCKET {
            let listener = &self.listeners[usize::from(next)];
            if listener.local == 0 {
                any = Some(usize::from(next));
            } else if self.addresses.find(listener.local) == Some(tuple.local) {
                return Some(usize::from(next));
            }
            next = listener.next;
        }
        any
    }

    /// A segment that belongs to no connection (RFC 9293 §3.10.7.1 and §3.10.7.2). `before` is the
    /// highest sequence number of the TIME-WAIT that it ended, if it did.
    pub(crate) fn listener_segment(
        &mut self,
        hash: u32,
        segment: &Segment,
        mac: Mac,
        before: Option<Seq>,
    ) {
        if segment.has(Bits::RST) {
            self.counters.drop_tcp_no_connection += 1;
            return;
        }
        if !self.addresses.may_be_a_host(segment.tuple.remote) {
            self.counters.drop_ip_source += 1;
            return;
        }
        let listener = self.find_listener(&segment.tuple);
        let (Some(listener), true, false) =
            (listener, segment.has(Bits::SYN), segment.has(Bits::ACK))
        else {
            self.counters.drop_tcp_no_connection += 1;
            // Where somebody listens, a segment that is neither is not worth an answer (RFC 9293
            // §3.10.7.2, fourth).
            if listener.is_none() || segment.has(Bits::ACK) {
                self.send_reset(segment, Some(mac));
            }
            return;
        };
        let state = &self.listeners[listener];
        if state.half_open >= state.backlog {
            self.counters.drop_listen_syn_queue_full += 1;
            return;
        }
        if state.queued >= state.backlog {
            // A full accept queue must not take on more: the SYN comes again (and no reset is
            // sent, for the client can do nothing about it).
            self.counters.drop_listen_accept_queue_full += 1;
            return;
        }
        let Some(index) = self.take_connection(hash, &segment.tuple) else { return };
        self.counters.segments_in += 1;
        self.listeners[listener].half_open += 1;
        self.inherit_settings(index, listener);
        let iss = self.initial_sequence(&segment.tuple, before);
        let ts_offset = self.timestamp_offset(&segment.tuple);
        let timeout = self.config.initial_rto.as_micros().min(1 << 31) as u32;
        self.learn_sender(segment.tuple.remote, mac);
        self.take_syn(index, segment);
        let connection = &mut self.connections[index];
        connection.state = State::SynReceived;
        connection.listener = listener as u16;
        connection.flags.set(Flags::SEND_SYN.with(Flags::HALF_OPEN));
        connection.rtt = super::rtt::Rtt::new(timeout);
        connection.ts_offset = ts_offset;
        connection.iss = iss;
        connection.snd_una = iss;
        connection.snd_nxt = iss;
        connection.snd_end = iss + 1;
        self.push_out(index);
    }

    /// A neighbour that speaks to us first is known by the frame it sent: asking for an address
    /// that it just showed would add a round trip, and a flood of invented senders would fill the
    /// cache with questions.
    fn learn_sender(&mut self, remote: Word, mac: Mac) {
        if self.last_hop.0 == remote {
            return;
        }
        let on_link =
            self.addresses.route(address(remote)).is_some_and(|route| route.next_hop == remote);
        if on_link && mac.is_unicast() && !self.neighbours.knows(&self.keys, remote) {
            self.neighbours.learn(&self.keys, remote, mac, self.now, true);
            self.release_neighbour_packets();
        }
    }

    /// Moves a half-open connection to the accept queue, if there is room.
    pub(crate) fn enter_accept_queue(&mut self, index: usize) -> bool {
        let listener_index = self.connections[index].listener;
        let listener = &self.listeners[usize::from(listener_index)];
        if listener.queued >= listener.backlog {
            self.counters.drop_listen_accept_queue_full += 1;
            return false;
        }
        self.leave_half_open(index);
        let connection = &mut self.connections[index];
        connection.flags.set(Flags::IN_ACCEPT);
        connection.link = NO_LINK;
        let listener = &mut self.listeners[usize::from(listener_index)];
        match listener.tail {
            NO_LINK => listener.head = index as u32,
            tail => self.connections[tail as usize].link = index as u32,
        }
        listener.tail = index as u32;
        listener.queued += 1;
        if !core::mem::replace(&mut listener.waiting, true) {
            self.ready_listeners.push_back(listener_index);
        }
        true
    }

    pub(crate) fn leave_half_open(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.flags.has(Flags::HALF_OPEN) {
            connection.flags.clear(Flags::HALF_OPEN);
            self.listeners[usize::from(connection.listener)].half_open -= 1;
        }
    }

    /// A connection on an accept queue ended before it was accepted: it leaves the queue, which
    /// is searched for it. Bounded by the backlog, and rare.
    pub(crate) fn leave_accept_queue(&mut self, index: usize) {
        if !self.connections[index].flags.has(Flags::IN_ACCEPT) {
            return;
        }
        let after = self.connections[index].link;
        self.connections[index].flags.clear(Flags::IN_ACCEPT);
        self.connections[index].link = NO_LINK;
        let listener = &mut self.listeners[usize::from(self.connections[index].listener)];
        listener.queued -= 1;
        let (mut before, mut at) = (NO_LINK, listener.head);
        while at != index as u32 && at != NO_LINK {
            before = at;
            at = self.connections[at as usize].link;
        }
        match before {
            NO_LINK => listener.head = after,
            before => self.connections[before as usize].link = after,
        }
        if listener.tail == index as u32 {
            listener.tail = before;
        }
    }
}
