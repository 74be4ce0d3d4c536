//! What an application calls: open, write, read, close (RFC 9293 §3.9.1).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;

use millrace_frames::Frame;
use millrace_wire::seq::Seq;

use super::connection::{Failure, Flags, Ready, State};
use super::rtt::Rtt;
use super::settings::SocketOption;
use super::table::FourTuple;
use crate::address::{Word, address, is_v4, word};
use crate::destination::canonical;
use crate::first_hop::Path;
use crate::stack::{NO_SOCKET, Stack};

/// A connection of this stack. Another connection that later uses the same entry has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl ConnectionId {
    /// Number of the entry, below the configured number of connections.
    #[inline]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// A keyed function of a connection's four numbers, the halves of which tell nothing of each other.
pub(crate) struct Secrets {
    /// What is added to the clock of initial sequence numbers (RFC 6528).
    pub(crate) sequence: u32,
    /// What is added to the clock of timestamps (RFC 7323 §5.4).
    pub(crate) timestamp: u32,
}

/// Where a new connection goes in the flow table, and the old one that makes way.
struct Place {
    hash: u32,
    time_wait: Option<usize>,
}

/// A listener of this stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId {
    pub(crate) index: u16,
    pub(crate) generation: u16,
}

impl ListenerId {
    /// Number of the listener, below the configured number.
    #[inline]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// A look at a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// State of RFC 9293.
    pub state: State,
    /// Bytes written and not acknowledged.
    pub send_queue: u32,
    /// Bytes received and not read.
    pub receive_queue: u32,
    /// Bytes of the frames that it holds, whatever is in them: to be sent, received, and beyond a
    /// gap.
    pub memory: usize,
    /// Bytes sent and not acknowledged.
    pub in_flight: u32,
    /// Largest payload of a segment.
    pub mss: u16,
    /// Congestion window, bytes.
    pub congestion_window: u32,
    /// Slow start threshold, bytes; `u32::MAX` before the first loss.
    pub slow_start_threshold: u32,
    /// Window that the peer announces, bytes.
    pub send_window: u32,
    /// Window that the peer was told, bytes.
    pub receive_window: u32,
    /// Smoothed round-trip time; zero before the first sample.
    pub round_trip: Duration,
    /// Retransmission timeout without back-off.
    pub retransmission_timeout: Duration,
    /// Timeouts in a row.
    pub retries: u8,
}

impl Stack {
    /// The entry of a live id.
    #[inline]
    pub(crate) fn entry(&self, id: ConnectionId) -> io::Result<usize> {
        match self.connections.get(id.index as usize) {
            Some(connection)
                if connection.generation == id.generation
                    && connection.flags.has(Flags::ATTACHED) =>
            {
                Ok(id.index as usize)
            }
            _ => Err(io::Error::new(io::ErrorKind::NotConnected, "the connection is closed")),
        }
    }

    pub(crate) fn own_address(&self, wanted: IpAddr) -> io::Result<Word> {
        let wanted_word = word(wanted);
        if self.addresses.find_any(wanted_word).is_some() {
            return Ok(wanted_word);
        }
        let own: Vec<String> = self.addresses.iter().map(|(_, own)| own.to_string()).collect();
        Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            format!("{wanted} is not an address of this stack, which has: {}", own.join(", ")),
        ))
    }

    /// The way to a destination that must be one host.
    fn route_to_host(&self, destination: IpAddr) -> io::Result<Path> {
        let last = &self.last_hop;
        // Where an IPv6 packet comes from may change for reasons that are none of the routes'.
        if last.destination == word(destination) && destination.is_ipv4() {
            return Ok(last.path);
        }
        let broadcast = matches!(destination, IpAddr::V4(v4) if self.addresses.is_broadcast(v4));
        if destination.is_multicast() || broadcast {
            // RFC 9293 §3.9.2.3 (MUST-46).
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{destination} is not the address of one host; TCP needs one"),
            ));
        }
        self.route_to(destination)
    }

    /// Opens a connection. [`Ready::CONNECTED`] or [`Ready::CLOSED`] follows. `local` may name an
    /// address and a port of ours; what it leaves open (unspecified, 0) is chosen.
    ///
    /// # Errors
    /// No route; `InvalidInput` for what is not the address of one other host (RFC 9293 §3.9.2.3,
    /// RFC 1122 §3.2.1.3); `AddrNotAvailable` when the address is not ours or no port is free;
    /// `AddrInUse` when the port is; `QuotaExceeded` when the table is full.
    pub fn connect(
        &mut self,
        remote: SocketAddr,
        local: Option<SocketAddr>,
    ) -> io::Result<ConnectionId> {
        // IPv4 written as IPv6 is IPv4, and what is forbidden there is so by either name.
        let (remote, local) = (canonical(remote), local.map(canonical));
        let route = self.route_to_host(remote.ip())?;
        if remote.port() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "port 0 takes no connections"));
        }
        let local_index = match local {
            Some(local) if !local.ip().is_unspecified() => {
                let own = self.own_address(local.ip())?;
                if is_v4(own) != remote.is_ipv4() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("{} and {remote} are of different families", local.ip()),
                    ));
                }
                let found = self.addresses.find_any(own).unwrap_or(route.local);
                if self.addresses.is_duplicate(found) {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrNotAvailable,
                        format!("{} is not used: another host has it", local.ip()),
                    ));
                }
                found
            }
            _ => route.local,
        };
        let mut tuple = FourTuple {
            remote: word(remote.ip()),
            remote_port: remote.port(),
            local_port: local.map_or(0, |local| local.port()),
            local: local_index,
        };
        let Place { hash, time_wait } = if tuple.local_port == 0 {
            let (port, place) = self.choose_port(&tuple)?;
            tuple.local_port = port;
            place
        } else {
            self.place_for(&tuple, true).ok_or_else(|| self.port_in_use(&tuple, remote))?
        };
        let mut before = None;
        if let Some(old) = time_wait {
            self.counters.time_wait_reused += 1;
            before = Some(self.connections[old].snd_nxt);
            self.forget_time_wait(old);
        }
        let Some(index) = self.take_connection(hash, &tuple) else {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!("all {} connections are in use", self.config.connections),
            ));
        };
        let secrets = self.secrets_of(&tuple);
        let iss = self.initial_sequence(&secrets, before);
        let mss = self.own_mss(tuple.remote);
        let timeout = self.initial_timeout_us;
        let connection = &mut self.connections[index];
        connection.state = State::SynSent;
        connection.flags.set(Flags::SEND_SYN.with(Flags::ATTACHED).with(Flags::ACTIVE));
        connection.rtt = Rtt::new(timeout);
        connection.mss = mss;
        connection.ts_offset = secrets.timestamp;
        connection.iss = iss;
        connection.snd_una = iss;
        connection.snd_nxt = iss;
        connection.snd_end = iss + 1;
        let generation = connection.generation;
        self.push_out(index);
        Ok(ConnectionId { index: index as u32, generation })
    }

    /// What is secret of the connection with these four numbers.
    pub(crate) fn secrets_of(&self, tuple: &FourTuple) -> Secrets {
        let secret = self.keys.prf(&tuple.words());
        Secrets { sequence: secret as u32, timestamp: (secret >> 32) as u32 }
    }

    /// RFC 6528: a clock of 4 microseconds plus a secret function of the connection. Where the
    /// last connection with the same four numbers was faster than that clock, the next number
    /// after all that it used (`before`; RFC 1122 §4.2.2.13).
    pub(crate) fn initial_sequence(&self, secrets: &Secrets, before: Option<Seq>) -> Seq {
        let clock = Seq(((self.now.as_nanos() / 4000) as u32).wrapping_add(secrets.sequence));
        before.map_or(clock, |before| clock.max(before + 1))
    }

    /// RFC 6056 §3.3.4, "double-hash port selection": successive ports for one destination, from
    /// a place that nobody else can foresee.
    fn choose_port(&mut self, tuple: &FourTuple) -> io::Result<(u16, Place)> {
        let (first, last) =
            (*self.config.ephemeral_ports.start(), *self.config.ephemeral_ports.end());
        let count = u32::from(last - first) + 1;
        let hash = match self.port_secret {
            Some((of, hash)) if of == *tuple => hash,
            _ => self.keys.prf(&tuple.words()),
        };
        self.port_secret = Some((*tuple, hash));
        let offset = hash as u32;
        let counter = (hash >> 60) as usize;
        for reuse in [false, true] {
            for _ in 0..count {
                let step = self.port_counter[counter];
                self.port_counter[counter] = step.wrapping_add(1);
                let port = first + (offset.wrapping_add(step) % count) as u16;
                let candidate = FourTuple { local_port: port, ..*tuple };
                if let Some(place) = self.place_for(&candidate, reuse) {
                    return Ok((port, place));
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            format!(
                "every port from {first} to {last} is in use to {}:{}",
                address(tuple.remote),
                tuple.remote_port
            ),
        ))
    }

    /// Where a connection with these four numbers goes, if nobody listens on the port and no other
    /// connection has them; with `reuse`, one in TIME-WAIT may be taken over: our sequence numbers
    /// only ever go forward.
    fn place_for(&self, tuple: &FourTuple, reuse: bool) -> Option<Place> {
        if self.tcp_ports[usize::from(tuple.local_port)] != NO_SOCKET {
            return None;
        }
        let hash = self.flow_hash(tuple);
        let time_wait = self.find_connection(hash, tuple);
        let free = time_wait.is_none_or(|index| reuse && self.may_succeed_time_wait(index));
        free.then_some(Place { hash, time_wait })
    }

    /// Why there is no place for a connection with these four numbers.
    fn port_in_use(&self, tuple: &FourTuple, remote: SocketAddr) -> io::Error {
        let port = tuple.local_port;
        let found = self.find_connection(self.flow_hash(tuple), tuple);
        let why = match found.map(|index| self.connections[index].state) {
            _ if self.tcp_ports[usize::from(port)] != NO_SOCKET => {
                format!("port {port} is in use by a listener")
            }
            Some(State::TimeWait) => {
                format!("port {port} to {remote} is in use: its last connection is in TIME-WAIT")
            }
            _ => format!("port {port} to {remote} is in use: there is a connection already"),
        };
        let text = format!("{why}; connect from another one, or from 0 for one that is free");
        io::Error::new(io::ErrorKind::AddrInUse, text)
    }

    /// Writes behind what was written. Returns how many bytes were taken; when fewer than given,
    /// [`Ready::WRITABLE`] tells when to go on.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale, `BrokenPipe` after a close or a shutdown.
    #[inline]
    pub fn write(&mut self, id: ConnectionId, data: &[u8]) -> io::Result<usize> {
        let index = self.entry(id)?;
        self.connections[index].flags.clear(Flags::MORE);
        self.append(index, data)
    }

    /// As [`Stack::write`], and says that more follows: what does not fill a segment waits for it
    /// (`MSG_MORE`), for at most as long as `TCP_CORK` lets it, or until something that is under way
    /// is acknowledged.
    ///
    /// # Errors
    /// As [`Stack::write`].
    pub fn write_more(&mut self, id: ConnectionId, data: &[u8]) -> io::Result<usize> {
        let index = self.entry(id)?;
        self.connections[index].flags.set(Flags::MORE);
        self.append(index, data)
    }

    /// As [`Stack::write`], and says that a record ends: what is written later does not share a
    /// segment with it, and its last segment carries PSH (`MSG_EOR`). Where less was taken than
    /// given, the record goes on.
    ///
    /// # Errors
    /// As [`Stack::write`].
    pub fn write_record(&mut self, id: ConnectionId, data: &[u8]) -> io::Result<usize> {
        let written = self.write(id, data)?;
        if written == data.len() {
            let index = self.entry(id)?;
            self.connections[index].end_record(&mut self.arena);
        }
        Ok(written)
    }

    #[inline]
    fn append(&mut self, index: usize, data: &[u8]) -> io::Result<usize> {
        let connection = &self.connections[index];
        if connection.flags.has(Flags::FIN_QUEUED)
            || matches!(connection.state, State::Closed | State::TimeWait)
        {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the connection takes no more data",
            ));
        }
        let sending = connection.sends_data();
        if self.has_room(index, data.len()) {
            let connection = &mut self.connections[index];
            let idle = sending && connection.queued() == 0;
            if connection.enqueue_first(&mut self.arena, &self.config, data) {
                if idle {
                    connection.begin_busy(self.tick);
                }
                if sending {
                    self.push_out(index);
                }
                return Ok(data.len());
            }
        }
        let room = self.send_room(index);
        let connection = &mut self.connections[index];
        let idle = sending && connection.queued() == 0;
        let written =
            connection.enqueue_data(&mut self.arena, &self.config, &self.memory, room, data);
        if idle && written > 0 {
            connection.begin_busy(self.tick);
        }
        if written < data.len().min(room) {
            self.counters.writes_starved += 1;
            self.push_starved(index);
        }
        if sending && written > 0 {
            self.push_out(index);
        }
        Ok(written)
    }

    /// Bytes that [`Stack::write`] would take now.
    ///
    /// # Errors
    /// As [`Stack::write`].
    pub fn write_room(&self, id: ConnectionId) -> io::Result<usize> {
        let index = self.entry(id)?;
        Ok(self.send_room(index))
    }

    /// Takes the first frame of what was received; it belongs to the caller
    /// ([`millrace_frames::Owners::RECEIVED`]), and its bytes are the payload. `None`: nothing is
    /// there.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    #[inline]
    pub fn read(&mut self, id: ConnectionId) -> io::Result<Option<Frame>> {
        let index = self.entry(id)?;
        let frame = self.connections[index].take_received(&mut self.arena);
        if frame.is_some() {
            self.right_size(index);
            self.window_update(index);
            if self.connections[index].receive_bytes == 0 {
                self.read_everything(index);
            }
        }
        Ok(frame)
    }

    /// No more will be written: a FIN follows the data. Reading goes on.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn shutdown_write(&mut self, id: ConnectionId) -> io::Result<()> {
        let index = self.entry(id)?;
        self.queue_fin(index);
        Ok(())
    }

    /// No more will be read: what is there and what comes is thrown away.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn shutdown_read(&mut self, id: ConnectionId) -> io::Result<()> {
        let index = self.entry(id)?;
        self.discard_received(index);
        self.connections[index].flags.set(Flags::READ_SHUT);
        self.window_update(index);
        Ok(())
    }

    fn queue_fin(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.flags.has(Flags::FIN_QUEUED) {
            return;
        }
        match connection.state {
            State::SynReceived | State::SynSent => {}
            State::Established => connection.state = State::FinWait1,
            State::CloseWait => connection.state = State::LastAck,
            _ => return,
        }
        connection.flags.set(Flags::FIN_QUEUED);
        self.push_out(index);
    }

    /// Closes the connection and lets go of the id. What was written is still delivered, for as
    /// long as the linger time allows where one is set, and though the peer has not answered the SYN
    /// yet: RFC 9293 §3.10.4 would have it given up with an error, of which nobody is left to hear.
    /// What was received and not read makes this an abort (RFC 2525 §2.17).
    pub fn close(&mut self, id: ConnectionId) {
        let Ok(index) = self.entry(id) else { return };
        let connection = &mut self.connections[index];
        connection.flags.set(Flags::APP_CLOSED);
        connection.flags.clear(Flags::ATTACHED);
        if connection.flags.has(Flags::KEEPALIVE) {
            connection.flags.clear(Flags::KEEPALIVE.with(Flags::EXPIRE_ARMED));
        }
        let state = connection.state;
        let unread = connection.receive_bytes > 0 && !connection.flags.has(Flags::READ_SHUT);
        let nothing_written = connection.snd_end == connection.iss + 1;
        let linger = self.settings(index).linger;
        match state {
            State::Closed => self.free_connection(index),
            State::SynSent if nothing_written || linger.is_some_and(|time| time.is_zero()) => {
                self.free_connection(index);
            }
            State::TimeWait => {
                self.discard_received(index);
                self.release_transfer(index);
            }
            _ if unread || linger.is_some_and(|time| time.is_zero()) => {
                self.abort_connection(index, Failure::Aborted)
            }
            _ => {
                self.enter_orphans(index);
                if self.connections[index].state == State::Closed {
                    return;
                }
                self.queue_fin(index);
                if state == State::FinWait2 {
                    self.orphan_in_fin_wait_2(index);
                } else if let Some(time) = linger {
                    self.begin_linger(index, time);
                }
            }
        }
    }

    /// What was written is to be delivered within this time, if that has not begun already.
    pub(crate) fn begin_linger(&mut self, index: usize, time: Duration) {
        if !self.connections[index].flags.has(Flags::LINGERING) {
            self.connections[index].flags.set(Flags::LINGERING);
            self.arm_expiry(index, time);
        }
    }

    /// How long [`Stack::close`] may take to deliver what was written before it aborts. `None`:
    /// as long as retransmission goes on; zero: abort at once (RFC 9293 §3.9.1, `SO_LINGER`).
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn set_linger(&mut self, id: ConnectionId, linger: Option<Duration>) -> io::Result<()> {
        self.set_option(id, SocketOption::Linger(linger))
    }

    /// Ends the connection with a reset; the id tells so until it is released.
    pub fn abort(&mut self, id: ConnectionId) {
        if let Ok(index) = self.entry(id) {
            self.abort_connection(index, Failure::Aborted);
        }
    }

    pub(crate) fn abort_connection(&mut self, index: usize, failure: Failure) {
        match self.connections[index].state {
            // How it ended is known already.
            State::Closed => return,
            // A connection that never was needs no reset, nor one that is over.
            State::SynSent | State::TimeWait => {}
            _ => self.reset_connection(index),
        }
        self.connections[index].failure = Some(failure);
        self.end_connection(index);
    }

    /// Lets go of the id of a connection that is over ([`Ready::CLOSED`]). On a live one the same
    /// as [`Stack::close`].
    pub fn release(&mut self, id: ConnectionId) {
        self.close(id);
    }

    /// Send small segments at once, without waiting for acknowledgements (no Nagle).
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn set_no_delay(&mut self, id: ConnectionId, no_delay: bool) -> io::Result<()> {
        self.set_option(id, SocketOption::NoDelay(no_delay))
    }

    /// Why a connection ended. `None`: in order, or not at all yet.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn failure(&self, id: ConnectionId) -> io::Result<Option<Failure>> {
        self.entry(id).map(|index| self.connections[index].failure)
    }

    /// Whether all of the peer's data has come, its FIN included.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn finished(&self, id: ConnectionId) -> io::Result<bool> {
        let connection = &self.connections[self.entry(id)?];
        Ok(connection.flags.has(Flags::FIN_SEEN) && connection.rcv_nxt.gt(connection.fin_seq))
    }

    /// A look at a connection.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn info(&self, id: ConnectionId) -> io::Result<ConnectionInfo> {
        Ok(self.look(self.entry(id)?))
    }

    /// Tells again what is true of a connection now (something to read, room to write), for an
    /// application that has stopped listening for a while.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn rearm(&mut self, id: ConnectionId) -> io::Result<()> {
        let index = self.entry(id)?;
        let connection = &self.connections[index];
        let mut ready = Ready::default();
        if connection.receive_bytes > 0 {
            ready.set(Ready::READABLE);
        }
        if connection.sends_data()
            && !connection.flags.has(Flags::FIN_QUEUED)
            && self.send_room(index) > 0
        {
            ready.set(Ready::WRITABLE);
        }
        if self.finished(id)? {
            ready.set(Ready::FINISHED);
        }
        if matches!(connection.state, State::Closed | State::TimeWait) {
            ready.set(Ready::CLOSED);
        }
        if !ready.is_empty() {
            self.tell(index, ready);
        }
        Ok(())
    }
}
