//! Opens from outside: listeners, their half-open connections and their accept queues.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;

use millrace_frames::Frame;
use millrace_wire::mac::Mac;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::Flags as Bits;

use super::api::{ConnectionId, ListenerId, Secrets};
use super::connection::{Failure, Features, Flags, NO_LINK, State};
use super::fast_open::server::Pending;
use super::input::Segment;
use super::list::List;
use super::settings::Settings;
use super::syn_queue::Admission;
use super::table::FourTuple;
use crate::address::address;
use crate::bound::Bound;
use crate::config::AcceptOverflow;
use crate::neighbour::NeighbourRef;
use crate::stack::{NO_SOCKET, Stack};

#[derive(Clone, Debug)]
pub(crate) struct Listener {
    open: bool,
    generation: u16,
    local: Bound,
    port: u16,
    /// Next listener of the same port.
    next: u16,
    pub(crate) backlog: u32,
    /// Half-open connections, how many there may be, and how many have sent their SYN-ACK once.
    pub(crate) half_open: u32,
    pub(crate) syn_queue: u32,
    pub(crate) young: u32,
    /// They in the order they came.
    pub(crate) half_open_list: List,
    /// When the last SYN was answered with a cookie, in seconds.
    pub(crate) cookie_at: Option<u32>,
    /// SYN-ACKs sent again before a connection without data is handed over.
    pub(crate) defer: u8,
    pub(crate) fast_open: Pending,
    /// Established and not accepted.
    pub(crate) queued: u32,
    pub(crate) head: u32,
    pub(crate) tail: u32,
    waiting: bool,
    /// Of the connections that it accepts, where they differ from the stack's.
    pub(crate) settings: Option<Box<Settings>>,
}

/// What a listener is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Most connections that wait to be accepted, at least 1.
    pub backlog: u32,
    /// Most half-open connections; `None`: as [`crate::Config::syn_queue`] says.
    pub syn_queue: Option<u32>,
    /// Connections are handed over when their first data has come, or after this time without
    /// any (`TCP_DEFER_ACCEPT`). It is rounded to the SYN-ACK's retransmissions.
    pub defer_accept: Option<Duration>,
    /// Most connections that are handed over, with the data of their SYN, before their handshake
    /// has ended (Fast Open, RFC 7413; `TCP_FASTOPEN`); 0: none are.
    pub fast_open: u32,
    /// `::` means any IPv6 address only, and not those of IPv4 too (RFC 3493 §5.3,
    /// `IPV6_V6ONLY`).
    pub v6_only: bool,
}

impl ListenOptions {
    /// With everything but the backlog as usual.
    pub fn new(backlog: u32) -> Self {
        ListenOptions { backlog, syn_queue: None, defer_accept: None, fast_open: 0, v6_only: false }
    }
}

/// A look at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Where it listens.
    pub local: SocketAddr,
    /// Connections that wait to be accepted, and how many may.
    pub accept_queue: u32,
    /// How many may wait to be accepted.
    pub backlog: u32,
    /// Half-open connections.
    pub half_open: u32,
    /// How many may be half-open before cookies are sent, or SYNs dropped.
    pub syn_queue: u32,
    /// Whether a SYN was answered with a cookie in the last two minutes.
    pub cookies: bool,
}

impl Stack {
    /// Takes connections to an address of ours and port. 0.0.0.0 is any IPv4 address of ours,
    /// `::` any of both families. `backlog` bounds those that wait to be accepted;
    /// [`Stack::listen_with`] has the other bounds and options.
    ///
    /// # Errors
    /// `InvalidInput` for port 0 or a backlog of 0, `AddrNotAvailable` when the address is not
    /// ours, `AddrInUse`, `QuotaExceeded` when all listeners are in use.
    pub fn listen(&mut self, local: SocketAddr, backlog: u32) -> io::Result<ListenerId> {
        self.listen_with(local, ListenOptions::new(backlog))
    }

    /// As [`Stack::listen`], with all options.
    ///
    /// # Errors
    /// As [`Stack::listen`]; `InvalidInput` for a SYN queue of 0, too.
    pub fn listen_with(
        &mut self,
        local: SocketAddr,
        options: ListenOptions,
    ) -> io::Result<ListenerId> {
        if local.port() == 0 || options.backlog == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a listener needs a port other than 0 and a backlog of at least 1",
            ));
        }
        if options.syn_queue == Some(0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a listener needs room for at least 1 half-open connection",
            ));
        }
        let bound = self.bound(local.ip(), options.v6_only)?;
        let mut next = self.tcp_ports[usize::from(local.port())];
        let first = next;
        while next != NO_SOCKET {
            let other = &self.listeners[usize::from(next)];
            if other.local.conflicts(bound) {
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
                    local: Bound::Any,
                    port: 0,
                    next: NO_SOCKET,
                    backlog: 0,
                    half_open: 0,
                    syn_queue: 0,
                    young: 0,
                    half_open_list: List::EMPTY,
                    cookie_at: None,
                    defer: 0,
                    fast_open: Pending::default(),
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
                    format!(
                        "all {} listeners are in use; `listeners` allows more",
                        self.config.listeners
                    ),
                ));
            }
        };
        let defer = self.defer_retries(options.defer_accept);
        let listener = &mut self.listeners[index];
        *listener = Listener {
            open: true,
            generation: listener.generation,
            local: bound,
            port: local.port(),
            next: first,
            backlog: options.backlog,
            half_open: 0,
            syn_queue: options.syn_queue.unwrap_or(self.config.syn_queue),
            young: 0,
            half_open_list: List::EMPTY,
            cookie_at: None,
            defer,
            fast_open: Pending::new(options.fast_open),
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
        Ok(SocketAddr::new(listener.local.address(), listener.port))
    }

    /// How many connections may be handed over before their handshake has ended, from now on
    /// (`TCP_FASTOPEN`).
    ///
    /// # Errors
    /// `NotConnected` if the listener is closed.
    pub fn set_fast_open(&mut self, id: ListenerId, most: u32) -> io::Result<()> {
        self.listener(id)?;
        self.listeners[usize::from(id.index)].fast_open.most = most;
        Ok(())
    }

    /// Gives a listener keys of its own for Fast Open cookies: the first makes them, both are
    /// believed (`TCP_FASTOPEN_KEY`).
    ///
    /// # Errors
    /// `NotConnected` if the listener is closed.
    pub fn set_fast_open_keys(
        &mut self,
        id: ListenerId,
        key: [u8; 16],
        older: Option<[u8; 16]>,
    ) -> io::Result<()> {
        self.listener(id)?;
        self.listeners[usize::from(id.index)].fast_open.keys = Some((key, older));
        Ok(())
    }

    pub(crate) fn listener_ids(&self) -> impl Iterator<Item = ListenerId> + '_ {
        let open = self.listeners.iter().enumerate().filter(|(_, listener)| listener.open);
        open.map(|(index, one)| ListenerId { index: index as u16, generation: one.generation })
    }

    /// A look at a listener.
    ///
    /// # Errors
    /// `NotConnected` if it is closed.
    pub fn listener_info(&self, id: ListenerId) -> io::Result<ListenerInfo> {
        let local = self.listener_address(id)?;
        let listener = self.listener(id)?;
        Ok(ListenerInfo {
            local,
            accept_queue: listener.queued,
            backlog: listener.backlog,
            half_open: listener.half_open,
            syn_queue: listener.syn_queue,
            cookies: self.cookies_recent(usize::from(id.index)),
        })
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
        let (port, after) = (listener.port, listener.next);
        self.release_early(id.index);
        loop {
            let oldest = self.listeners[usize::from(id.index)].half_open_list.head;
            if oldest == NO_LINK {
                break;
            }
            self.abort_connection(oldest as usize, Failure::Aborted);
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

    /// The listener for a segment: bound to its address before bound to any of its family, before
    /// bound to any.
    pub(crate) fn find_listener(&self, tuple: &FourTuple) -> Option<usize> {
        let local = self.addresses.word(tuple.local);
        let mut next = self.tcp_ports[usize::from(tuple.local_port)];
        let mut best = None;
        while next != NO_SOCKET {
            let listener = &self.listeners[usize::from(next)];
            if let Some(rank) = listener.local.takes(local)
                && best.is_none_or(|(best_rank, _)| rank > best_rank)
            {
                best = Some((rank, usize::from(next)));
            }
            next = listener.next;
        }
        best.map(|(_, index)| index)
    }

    /// A segment that belongs to no connection (RFC 9293 §3.10.7.1 and §3.10.7.2). `before` is the
    /// highest sequence number of the TIME-WAIT that it ended, if it did. Takes the frame.
    pub(crate) fn listener_segment(
        &mut self,
        hash: u32,
        segment: &Segment,
        mac: Mac,
        before: Option<Seq>,
        frame: Frame,
    ) {
        if segment.has(Bits::RST) {
            self.counters.drop_tcp_no_connection += 1;
            return self.drop_chain(frame);
        }
        let remote = segment.tuple.remote;
        if self.last_hop.destination != remote && !self.addresses.may_be_a_host(remote) {
            self.counters.drop_ip_source += 1;
            return self.drop_chain(frame);
        }
        match (self.find_listener(&segment.tuple), segment.has(Bits::SYN), segment.has(Bits::ACK)) {
            (Some(listener), true, false) => {
                self.syn_arrives(listener, hash, segment, mac, before, frame);
            }
            (Some(listener), false, true) if self.cookies_recent(listener) => {
                self.cookie_returns(listener, hash, segment, mac, frame);
            }
            (listener, _, acked) => {
                self.counters.drop_tcp_no_connection += 1;
                // Where somebody listens, a segment that is neither is not worth an answer (RFC
                // 9293 §3.10.7.2, fourth).
                if listener.is_none() || acked {
                    self.send_reset(segment, Some(mac));
                }
                self.drop_chain(frame);
            }
        }
    }

    /// A SYN to a listener.
    fn syn_arrives(
        &mut self,
        listener: usize,
        hash: u32,
        segment: &Segment,
        mac: Mac,
        before: Option<Seq>,
        frame: Frame,
    ) {
        if !self.may_queue(listener) {
            // A full accept queue must not take on more: the SYN comes again (and no reset is
            // sent, for the client can do nothing about it).
            self.counters.drop_listen_accept_queue_full += 1;
            return self.drop_chain(frame);
        }
        // Whoever takes over a TIME-WAIT has had a connection already, and needs a sequence number
        // that no cookie can promise.
        if before.is_none() {
            match self.admit(listener, segment.tuple.remote) {
                Admission::Entry => {}
                Admission::Cookie => {
                    self.send_cookie(listener, segment, mac);
                    return self.drop_chain(frame);
                }
                Admission::None => return self.drop_chain(frame),
            }
        }
        let verdict = self.fast_open_verdict(listener, segment);
        let secrets = self.secrets_of(&segment.tuple);
        let iss = self.initial_sequence(&secrets, before);
        let Some(index) = self.open_passive(listener, hash, segment, mac, (iss, &secrets)) else {
            return self.drop_chain(frame);
        };
        self.counters.segments_in += 1;
        let connection = &mut self.connections[index];
        connection.flags.set(Flags::SEND_SYN);
        if verdict.cookie {
            connection.features.set(Features::COOKIE_DUE);
            if segment.options.fast_open_experiment {
                connection.features.set(Features::EXPERIMENT);
            }
        }
        self.push_out(index);
        if verdict.early {
            self.open_early(index, segment, frame);
        } else {
            self.enter_half_open(index);
            self.drop_chain(frame);
        }
    }

    /// An entry in SYN-RECEIVED for a SYN, with `iss` as our first number.
    pub(crate) fn open_passive(
        &mut self,
        listener: usize,
        hash: u32,
        syn: &Segment,
        mac: Mac,
        (iss, secrets): (Seq, &Secrets),
    ) -> Option<usize> {
        let index = self.take_connection(hash, &syn.tuple)?;
        self.inherit_settings(index, listener);
        let timeout = self.initial_timeout_us;
        self.answer_sender(index, mac);
        self.take_syn(index, syn);
        let connection = &mut self.connections[index];
        connection.state = State::SynReceived;
        connection.listener = listener as u16;
        connection.rtt = super::rtt::Rtt::new(timeout);
        connection.ts_offset = secrets.timestamp;
        connection.iss = iss;
        connection.snd_una = iss;
        connection.snd_nxt = iss;
        connection.snd_end = iss + 1;
        Some(index)
    }

    /// The answer to a neighbour that speaks to us first goes where its frame came from: asking for
    /// an address that it just showed would add a round trip. Anybody can have written that frame, so
    /// nothing else goes there before the handshake has ended.
    fn answer_sender(&mut self, index: usize, mac: Mac) {
        let (remote, local) = (self.connections[index].remote, self.connections[index].local);
        if self.last_neighbour(remote, local) != NeighbourRef::NONE {
            return;
        }
        let route = self.addresses.route_from(address(remote), local);
        let on_link = route.is_some_and(|route| route.next_hop == remote);
        if on_link
            && mac.is_unicast()
            && let Some(neighbour) = self.neighbours.show(&self.keys, remote, mac, self.now)
        {
            self.connections[index].neighbour = neighbour;
            self.drop_evicted_packets();
        }
    }

    /// Whether another connection may wait to be accepted.
    pub(crate) fn may_queue(&self, listener: usize) -> bool {
        let listener = &self.listeners[listener];
        listener.queued < listener.backlog
    }

    /// The accept queue is full, and a peer thinks that it is connected: it hears of it only if
    /// the configuration says so. Returns whether it does.
    pub(crate) fn refuse_overflow(&mut self, segment: &Segment) -> bool {
        let reset = self.config.accept_overflow == AcceptOverflow::Reset;
        if reset {
            self.send_reset(segment, None);
        }
        reset
    }

    /// Moves a half-open connection to the accept queue, if there is room.
    pub(crate) fn enter_accept_queue(&mut self, index: usize) -> bool {
        let listener_index = self.connections[index].listener;
        if !self.may_queue(listener_index.into()) {
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
