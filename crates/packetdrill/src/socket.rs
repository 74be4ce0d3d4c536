//! Stream sockets: what they are between `socket` and `close`.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;

use millrace_frames::Owners;
use millrace_stack::{ConnectionId, ListenerId, Stack, State};

use crate::address::Address;
use crate::descriptor::Object;
use crate::errno::{Errno, Result, of_failure};
use crate::error_queue::ErrorQueue;
use crate::options::Options;
use crate::send_buffer::{Progress, SendBuffer};
use crate::shared::Outcome;
use crate::world::World;

/// One socket.
pub(crate) struct Socket {
    /// Made with `AF_INET6`: it shows IPv4's addresses as mapped ones.
    pub(crate) v6: bool,
    pub(crate) nonblocking: bool,
    pub(crate) bound: Option<SocketAddr>,
    pub(crate) options: Options,
    pub(crate) errors: ErrorQueue,
    pub(crate) kind: Kind,
}

/// What the socket became.
pub(crate) enum Kind {
    Fresh,
    /// `connect` was called, and the SYN waits for data to take along.
    Deferred {
        remote: SocketAddr,
    },
    Listener {
        id: ListenerId,
        /// The stack said that a connection waits.
        acceptable: bool,
        backlog: u32,
    },
    Stream(Stream),
}

/// A connection and what its socket remembers of it.
pub(crate) struct Stream {
    pub(crate) id: ConnectionId,
    pub(crate) connected: bool,
    /// `connect` has returned success (or failure) once.
    pub(crate) connect_told: bool,
    /// Taken from the stack and not yet read.
    pub(crate) unread: VecDeque<u8>,
    /// The error was reported; a socket reports it once.
    pub(crate) error_told: bool,
    pub(crate) read_shut: bool,
    pub(crate) write_shut: bool,
    /// Bytes that the stack has taken.
    pub(crate) written: u64,
    pub(crate) buffer: SendBuffer,
}

impl Stream {
    pub(crate) fn new(id: ConnectionId, connected: bool) -> Stream {
        Stream {
            id,
            connected,
            connect_told: connected,
            unread: VecDeque::new(),
            error_told: false,
            read_shut: false,
            write_shut: false,
            written: 0,
            buffer: SendBuffer::default(),
        }
    }

    /// Takes from the stack until `wanted` bytes are here, if so many have come.
    pub(crate) fn fill(&mut self, stack: &mut Stack, wanted: usize) {
        while self.unread.len() < wanted
            && let Ok(Some(frame)) = stack.read(self.id)
        {
            self.unread.extend(stack.arena().bytes(frame));
            stack.arena_mut().release(frame, Owners::RECEIVED);
        }
    }

    /// Bytes that could be read.
    pub(crate) fn readable(&self, stack: &Stack) -> usize {
        let queued = stack.info(self.id).map_or(0, |info| info.receive_queue as usize);
        self.unread.len() + queued
    }

    /// How far what was written has come.
    pub(crate) fn progress(&self, stack: &Stack) -> Progress {
        let (queued, unsent) = stack.info(self.id).map_or((0, 0), |info| {
            (info.send_queue, info.send_queue.saturating_sub(info.in_flight))
        });
        Progress {
            written: self.written,
            sent: self.written.saturating_sub(unsent.into()),
            acknowledged: self.written.saturating_sub(queued.into()),
        }
    }

    /// The error that is still to be told.
    pub(crate) fn error(&self, stack: &Stack) -> Option<Errno> {
        if self.error_told {
            return None;
        }
        stack.failure(self.id).ok().flatten().map(of_failure)
    }

    /// Tells the error, once.
    pub(crate) fn take_error(&mut self, stack: &Stack) -> Option<Errno> {
        let error = self.error(stack)?;
        self.error_told = true;
        Some(error)
    }

    pub(crate) fn state(&self, stack: &Stack) -> State {
        stack.info(self.id).map_or(State::Closed, |info| info.state)
    }

    /// Whether nothing more will come.
    pub(crate) fn at_end(&self, stack: &Stack) -> bool {
        self.read_shut
            || stack.finished(self.id).unwrap_or(true)
            || matches!(self.state(stack), State::Closed | State::TimeWait)
    }
}

impl World {
    pub(crate) fn socket(&mut self, domain: i32, kind: i32, protocol: i32) -> Result<RawFd> {
        self.refresh()?;
        const FLAGS: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        if domain != libc::AF_INET && domain != libc::AF_INET6 {
            return Err(Errno(libc::EAFNOSUPPORT));
        }
        if kind & !FLAGS != libc::SOCK_STREAM {
            return Err(Errno(libc::ESOCKTNOSUPPORT));
        }
        if protocol != 0 && protocol != libc::IPPROTO_TCP {
            return Err(Errno(libc::EPROTONOSUPPORT));
        }
        self.descriptors.insert(Object::Socket(Box::new(Socket {
            v6: domain == libc::AF_INET6,
            nonblocking: kind & libc::SOCK_NONBLOCK != 0,
            bound: None,
            options: Options::default(),
            errors: ErrorQueue::default(),
            kind: Kind::Fresh,
        })))
    }

    pub(crate) fn bind(&mut self, number: RawFd, address: Address) -> Result<()> {
        let Address::Internet(address) = address else { return Err(Errno(libc::EINVAL)) };
        let socket = self.descriptors.socket_mut(number)?;
        if socket.bound.is_some() || !matches!(socket.kind, Kind::Fresh) {
            return Err(Errno(libc::EINVAL));
        }
        socket.bound = Some(address);
        Ok(())
    }

    pub(crate) fn listen(&mut self, number: RawFd, backlog: i32) -> Result<()> {
        let socket = self.descriptors.socket(number)?;
        match socket.kind {
            Kind::Fresh => {}
            // Linux changes the backlog; the stack's is given when a listener is made.
            Kind::Listener { .. } => return Ok(()),
            Kind::Stream(_) | Kind::Deferred { .. } => return Err(Errno(libc::EINVAL)),
        }
        let Some(address) = socket.bound else { return Err(Errno(libc::EADDRNOTAVAIL)) };
        // Linux takes one more than the backlog says, and 0 is one.
        let backlog = u32::try_from(backlog).unwrap_or(u32::MAX).saturating_add(1);
        let id = self.stack_for(Some(address.ip()), None)?.listen(address, backlog)?;
        self.configure_listener(number, id)?;
        self.configure_fast_open(number, id, backlog)?;
        self.descriptors.socket_mut(number)?.kind =
            Kind::Listener { id, acceptable: false, backlog };
        Ok(())
    }

    /// One attempt to take a connection.
    pub(crate) fn accept(&mut self, number: RawFd, last: bool) -> Option<Result<Outcome>> {
        match self.try_accept(number) {
            Ok(Some(outcome)) => Some(Ok(outcome)),
            Ok(None) if last => Some(Err(Errno(libc::EAGAIN))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn try_accept(&mut self, number: RawFd) -> Result<Option<Outcome>> {
        let socket = self.descriptors.socket_mut(number)?;
        let (v6, options) = (socket.v6, socket.options.clone());
        let Kind::Listener { id, acceptable, .. } = &mut socket.kind else {
            return Err(Errno(libc::EINVAL));
        };
        let listener = *id;
        *acceptable = false;
        let Some(id) = self.stack()?.accept(listener)? else { return Ok(None) };
        let remote = self.stack()?.info(id)?.remote;
        options.apply(self.stack()?, id)?;
        let number = self.descriptors.insert(Object::Socket(Box::new(Socket {
            v6,
            nonblocking: false,
            bound: None,
            options,
            errors: ErrorQueue::default(),
            kind: Kind::Stream(Stream::new(id, true)),
        })))?;
        Ok(Some(Outcome { value: number.into(), address: Some(remote), ..Outcome::default() }))
    }

    /// One attempt to finish `connect`; `begun` tells this call's first attempt from the others.
    pub(crate) fn connect(
        &mut self,
        number: RawFd,
        address: Address,
        begun: &mut bool,
        last: bool,
    ) -> Option<Result<Outcome>> {
        match self.try_connect(number, address, begun) {
            Ok(true) => Some(Ok(Outcome::default())),
            Ok(false) if last => Some(Err(Errno(libc::EINPROGRESS))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn try_connect(&mut self, number: RawFd, address: Address, begun: &mut bool) -> Result<bool> {
        let first = !core::mem::replace(begun, true);
        let Address::Internet(remote) = address else {
            self.disconnect(number)?;
            return Ok(true);
        };
        // RFC 1122 §3.3.4.2 leaves it open; Linux connects to itself, and this stack has no self.
        let remote = match remote.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => return Err(Errno(libc::ECONNREFUSED)),
            _ => remote,
        };
        let socket = self.descriptors.socket(number)?;
        match &socket.kind {
            Kind::Listener { .. } | Kind::Deferred { .. } => Err(Errno(libc::EISCONN)),
            Kind::Fresh if socket.options.fast_open_connect => self.defer_connect(number, remote),
            Kind::Fresh => {
                let bound = socket.bound;
                let options = socket.options.clone();
                let stack = self.stack_for(bound.map(|bound| bound.ip()), Some(remote.ip()))?;
                let id = stack.connect(remote, bound)?;
                options.apply(stack, id)?;
                self.descriptors.socket_mut(number)?.kind = Kind::Stream(Stream::new(id, false));
                Ok(false)
            }
            Kind::Stream(stream) if stream.connect_told => Err(Errno(libc::EISCONN)),
            Kind::Stream(stream) => {
                let (connected, id) = (stream.connected, stream.id);
                let failure = self.stack()?.failure(id).ok().flatten();
                if let Some(failure) = failure {
                    self.stack()?.release(id);
                    self.descriptors.socket_mut(number)?.kind = Kind::Fresh;
                    return Err(of_failure(failure));
                }
                if !connected {
                    // A call that began earlier waits on; another one does not join it.
                    return if first { Err(Errno(libc::EALREADY)) } else { Ok(false) };
                }
                if let Kind::Stream(stream) = &mut self.descriptors.socket_mut(number)?.kind {
                    stream.connect_told = true;
                }
                Ok(true)
            }
        }
    }

    /// `connect` to `AF_UNSPEC`: the connection ends, the socket may be used again.
    fn disconnect(&mut self, number: RawFd) -> Result<()> {
        let socket = self.descriptors.socket_mut(number)?;
        if let Kind::Stream(Stream { id, .. }) = core::mem::replace(&mut socket.kind, Kind::Fresh) {
            let stack = self.stack()?;
            stack.abort(id);
            stack.release(id);
        }
        Ok(())
    }

    pub(crate) fn shutdown(&mut self, number: RawFd, how: i32) -> Result<()> {
        let (read, write) = match how {
            libc::SHUT_RD => (true, false),
            libc::SHUT_WR => (false, true),
            libc::SHUT_RDWR => (true, true),
            _ => return Err(Errno(libc::EINVAL)),
        };
        let id = match &self.descriptors.socket(number)?.kind {
            Kind::Stream(stream) => stream.id,
            Kind::Listener { .. } if read => {
                self.close_kind(number)?;
                return Ok(());
            }
            _ => return Err(Errno(libc::ENOTCONN)),
        };
        let stack = self.stack()?;
        if stack.info(id)?.state == State::Closed {
            return Err(Errno(libc::ENOTCONN));
        }
        if write {
            stack.shutdown_write(id)?;
        }
        if let Kind::Stream(stream) = &mut self.descriptors.socket_mut(number)?.kind {
            // The stack is not told of `SHUT_RD`: it would throw away what comes, and a socket of
            // Linux still delivers it.
            stream.read_shut |= read;
            stream.write_shut |= write;
        }
        Ok(())
    }

    pub(crate) fn close(&mut self, number: RawFd) -> Result<()> {
        if matches!(self.descriptors.get(number)?, Object::Socket(_)) {
            self.close_kind(number)?;
        }
        for (_, object) in self.descriptors.iter_mut() {
            if let Object::Epoll(epoll) = object {
                epoll.forget(number);
            }
        }
        self.descriptors.remove(number).map(drop)
    }

    fn close_kind(&mut self, number: RawFd) -> Result<()> {
        let socket = self.descriptors.socket_mut(number)?;
        match core::mem::replace(&mut socket.kind, Kind::Fresh) {
            Kind::Fresh | Kind::Deferred { .. } => {}
            Kind::Listener { id, .. } => self.stack()?.close_listener(id),
            Kind::Stream(stream) => {
                let stack = self.stack()?;
                // What was taken from the stack and not read counts as unread (RFC 2525 §2.17).
                if !stream.unread.is_empty() {
                    stack.abort(stream.id);
                }
                stack.close(stream.id);
            }
        }
        Ok(())
    }

    pub(crate) fn fcntl(&mut self, number: RawFd, command: i32, argument: i32) -> Result<i32> {
        let socket = match self.descriptors.get_mut(number)? {
            Object::Socket(socket) => socket,
            _ => return Err(Errno(libc::EINVAL)),
        };
        match command {
            libc::F_GETFL if socket.nonblocking => Ok(libc::O_RDWR | libc::O_NONBLOCK),
            libc::F_GETFL => Ok(libc::O_RDWR),
            libc::F_SETFL => {
                socket.nonblocking = argument & libc::O_NONBLOCK != 0;
                Ok(0)
            }
            libc::F_GETFD => Ok(0),
            libc::F_SETFD => Ok(0),
            _ => Err(Errno(libc::EINVAL)),
        }
    }
}
