//! What an application asks for: open, end, look.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io;

use millrace_stack::{
    ConnectionInfo, Failure, ListenOptions, OptionName, SocketId, SocketOption, TcpInfo,
};

use crate::handle::Inner;
use crate::{Channel, Handle};

/// The errno that a socket would show.
pub fn errno(failure: Failure) -> i32 {
    match failure {
        Failure::Reset => libc::ECONNRESET,
        Failure::Refused => libc::ECONNREFUSED,
        Failure::TimedOut => libc::ETIMEDOUT,
        Failure::HostUnreachable => libc::EHOSTUNREACH,
        Failure::Aborted => libc::ECONNABORTED,
    }
}

impl Channel {
    /// Takes TCP connections to an address of the channel's (unspecified: any) and a port, at most
    /// `backlog` of them between two turns.
    ///
    /// # Errors
    /// `InvalidInput` for port 0 or a backlog of 0, `AddrNotAvailable` when the address is not the
    /// channel's, `AddrInUse`, `QuotaExceeded` when all listeners are in use.
    pub fn listen(&mut self, local: SocketAddr, backlog: u32) -> io::Result<Handle> {
        self.listen_with(local, ListenOptions::new(backlog))
    }

    /// As [`Channel::listen`], with a bound for half-open connections, Fast Open (RFC 7413) and
    /// connections that are told of only when they have data.
    ///
    /// # Errors
    /// As [`Channel::listen`].
    pub fn listen_with(&mut self, local: SocketAddr, options: ListenOptions) -> io::Result<Handle> {
        self.check_open()?;
        let id = self.stack.listen_with(local, options)?;
        self.listeners.push(id);
        Ok(Handle::listener(id))
    }

    /// Opens a connection; [`crate::Kind::Connected`] or [`crate::Kind::Closed`] follows. What may
    /// be written before is sent after. `local` may name an address of the channel's and a port.
    ///
    /// # Errors
    /// `NetworkUnreachable` without a route, `AddrNotAvailable` when the address is not the
    /// channel's or no port is free, `AddrInUse`, `QuotaExceeded` when the table is full.
    pub fn connect(&mut self, remote: SocketAddr, local: Option<SocketAddr>) -> io::Result<Handle> {
        self.check_open()?;
        let id = self.stack.connect(remote, local)?;
        self.adopt(id);
        Ok(Handle::connection(id))
    }

    /// As [`Channel::connect`], by Fast Open (RFC 7413): what is written in this turn, beginning
    /// with `data`, goes with the SYN as far as it fits and the server is known to take it; if it
    /// is not known, it is asked for the next time, and the data waits for the handshake. Returns
    /// how many bytes of `data` were taken, as [`Channel::write`] does.
    ///
    /// Data in a SYN may reach the server's application twice: use it for requests that may be
    /// repeated (RFC 7413 §6.1).
    ///
    /// # Errors
    /// As [`Channel::connect`].
    pub fn connect_with_data(
        &mut self,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        data: &[u8],
    ) -> io::Result<(Handle, usize)> {
        self.check_open()?;
        let (id, _) = self.stack.connect_with_data(remote, local, &[])?;
        self.adopt(id);
        let handle = Handle::connection(id);
        let written = if data.is_empty() { 0 } else { self.write(handle, data)? };
        Ok((handle, written))
    }

    /// Opens a UDP socket. An unspecified address takes datagrams to any of the channel's, port 0
    /// is chosen.
    ///
    /// # Errors
    /// `AddrNotAvailable` when the address is not the channel's or no port is free, `AddrInUse`,
    /// `QuotaExceeded` when all sockets are in use.
    pub fn bind_datagram(&mut self, local: SocketAddr) -> io::Result<Handle> {
        self.check_open()?;
        let id = self.stack.bind_datagram(local)?;
        self.sockets.push(id);
        Ok(Handle::datagram(id))
    }

    /// Takes datagrams of one peer only, and sends to it where no other is given.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale, `NetworkUnreachable` without a route.
    pub fn connect_datagram(&mut self, handle: Handle, remote: SocketAddr) -> io::Result<()> {
        match handle.0 {
            Inner::Datagram(id) => self.stack.connect_datagram(id, remote),
            _ => Err(not_a("datagram socket", handle)),
        }
    }

    /// Sends one datagram, to the peer that the socket is connected to or to another: in fragments
    /// if it does not fit the MTU.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale or there is no peer, `InvalidInput` when it is too
    /// long, `NetworkUnreachable`, `WouldBlock` when not enough frames are free.
    pub fn send_datagram(
        &mut self,
        handle: Handle,
        data: &[u8],
        remote: Option<SocketAddr>,
    ) -> io::Result<()> {
        match handle.0 {
            Inner::Datagram(id) => self.stack.send_datagram(id, data, remote),
            _ => Err(not_a("datagram socket", handle)),
        }
    }

    /// Whether datagrams of the socket carry the don't-fragment bit, and one that does not fit the
    /// MTU is refused. Off at first.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn set_dont_fragment(&mut self, handle: Handle, on: bool) -> io::Result<()> {
        match handle.0 {
            Inner::Datagram(id) => self.stack.set_dont_fragment(id, on),
            _ => Err(not_a("datagram socket", handle)),
        }
    }

    /// Takes datagrams to a multicast group: from every source, or from this one and those of
    /// further calls (`IP_ADD_MEMBERSHIP`, `IP_ADD_SOURCE_MEMBERSHIP`).
    ///
    /// # Errors
    /// `InvalidInput` for what is no group or no source of it, `AlreadyExists`, `QuotaExceeded` at
    /// a bound of the stack's, `NotConnected` when the handle is stale.
    pub fn join_group(
        &mut self,
        handle: Handle,
        group: IpAddr,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        self.stack.join_group(datagram(handle)?, group, source)
    }

    /// Takes them no more, or no more from one source that was joined by name.
    ///
    /// # Errors
    /// `AddrNotAvailable` when the socket is no member; as [`Channel::join_group`].
    pub fn leave_group(
        &mut self,
        handle: Handle,
        group: IpAddr,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        self.stack.leave_group(datagram(handle)?, group, source)
    }

    /// Takes no datagrams of one source any more, of a group that was joined for every source.
    ///
    /// # Errors
    /// As [`Channel::join_group`].
    pub fn block_source(
        &mut self,
        handle: Handle,
        group: IpAddr,
        source: IpAddr,
    ) -> io::Result<()> {
        self.stack.block_source(datagram(handle)?, group, source)
    }

    /// Takes datagrams of a source again that was blocked.
    ///
    /// # Errors
    /// As [`Channel::leave_group`].
    pub fn unblock_source(
        &mut self,
        handle: Handle,
        group: IpAddr,
        source: IpAddr,
    ) -> io::Result<()> {
        self.stack.unblock_source(datagram(handle)?, group, source)
    }

    /// How many routers may forward what the socket sends to groups: 1 at first, which is none.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn set_multicast_ttl(&mut self, handle: Handle, ttl: u8) -> io::Result<()> {
        self.stack.set_multicast_ttl(datagram(handle)?, ttl)
    }

    /// Whether sockets of this channel get what the socket sends to groups that they listen to. On
    /// at first.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn set_multicast_loop(&mut self, handle: Handle, on: bool) -> io::Result<()> {
        self.stack.set_multicast_loop(datagram(handle)?, on)
    }

    /// The channel's address that what is sent to groups comes from; `None`: the first one.
    ///
    /// # Errors
    /// `AddrNotAvailable` when it is not the channel's, `NotConnected` when the handle is stale.
    pub fn set_multicast_source(
        &mut self,
        handle: Handle,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        self.stack.set_multicast_source(datagram(handle)?, source)
    }

    /// Closes whatever it is. What was written to a connection is still delivered, for as long as
    /// the linger time allows where one is set; what it received and nobody read makes this an
    /// abort (RFC 2525 §2.17). Nothing more is told of the handle. A stale one is ignored.
    pub fn close_handle(&mut self, handle: Handle) {
        match handle.0 {
            Inner::Connection(_) => {
                if let Ok(id) = self.live(handle) {
                    self.close_connection(id);
                }
            }
            Inner::Listener(id) => {
                self.listeners.retain(|&other| other != id);
                self.stack.close_listener(id);
            }
            Inner::Datagram(id) => {
                self.sockets.retain(|&other| other != id);
                self.stack.close_datagram(id);
            }
        }
    }

    /// Ends a connection with a reset, and forgets what it had to send. Nothing more is told of the
    /// handle. The other kinds are closed; a stale handle is ignored.
    pub fn abort(&mut self, handle: Handle) {
        match self.live(handle) {
            Ok(id) => self.abort_connection(id),
            Err(_) if handle.is_connection() => {}
            Err(_) => self.close_handle(handle),
        }
    }

    /// No more will be written: a FIN follows the data. Reading goes on.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn shutdown_write(&mut self, handle: Handle) -> io::Result<()> {
        let id = self.live(handle)?;
        self.end_writing(id)
    }

    /// How long [`Channel::close_handle`] may take to deliver what was written before it aborts.
    /// `None`: for as long as retransmission goes on; zero: abort at once.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn set_linger(&mut self, handle: Handle, linger: Option<Duration>) -> io::Result<()> {
        let id = self.live(handle)?;
        self.stack.set_linger(id, linger)
    }

    /// Send small segments at once, without waiting for acknowledgements (no Nagle).
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn set_no_delay(&mut self, handle: Handle, no_delay: bool) -> io::Result<()> {
        let id = self.live(handle)?;
        self.stack.set_no_delay(id, no_delay)
    }

    /// Sets an option of a connection, as setsockopt(2) does, or of a listener, whose connections
    /// inherit it.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale, `InvalidInput` for a value out of bounds and for a
    /// datagram socket.
    pub fn set_option(&mut self, handle: Handle, option: SocketOption) -> io::Result<()> {
        match handle.0 {
            Inner::Listener(id) => self.stack.set_listener_option(id, option),
            _ => {
                let id = self.live(handle)?;
                self.stack.set_option(id, option)
            }
        }
    }

    /// An option of a connection or a listener.
    ///
    /// # Errors
    /// As [`Channel::set_option`].
    pub fn option(&self, handle: Handle, name: OptionName) -> io::Result<SocketOption> {
        match handle.0 {
            Inner::Listener(id) => self.stack.listener_option(id, name),
            _ => self.stack.option(self.live(handle)?, name),
        }
    }

    /// All that TCP knows of a connection, under the names of Linux's `struct tcp_info`.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn tcp_info(&self, handle: Handle) -> io::Result<TcpInfo> {
        let id = self.live(handle)?;
        self.stack.tcp_info(id)
    }

    /// A look at a connection.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn info(&self, handle: Handle) -> io::Result<ConnectionInfo> {
        let id = self.live(handle)?;
        self.stack.info(id)
    }

    /// The address and port on this side.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn local_address(&mut self, handle: Handle) -> io::Result<SocketAddr> {
        match handle.0 {
            Inner::Connection(_) => Ok(self.info(handle)?.local),
            Inner::Listener(id) => self.stack.listener_address(id),
            Inner::Datagram(id) => self.stack.datagram_address(id),
        }
    }

    /// Datagrams that a socket dropped because its queue was full.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn datagrams_dropped(&mut self, handle: Handle) -> io::Result<u64> {
        match handle.0 {
            Inner::Datagram(id) => self.stack.datagrams_dropped(id),
            _ => Err(not_a("datagram socket", handle)),
        }
    }

    /// Any of the channel's addresses, of both families, with this port, for [`Channel::listen`].
    pub fn any(port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
    }

    /// How it works: the port, what was chosen when it was opened, and the stack's end of the wire.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let port = self.port.capabilities();
        let config = self.stack.config();
        let mut facts = vec![
            ("port", format!("{}:{}", port.kind, port.name)),
            ("queue", format!("{} of {}", port.queue, port.queues)),
            ("hardware address", config.mac.to_string()),
            ("mtu", format!("{} bytes", port.mtu)),
            ("transmit checksum", if port.tx_checksum { "the port's" } else { "ours" }.to_owned()),
            (
                "super-segments",
                match port.tx_gso {
                    0 => "no".to_owned(),
                    bytes => format!("up to {bytes} bytes"),
                },
            ),
            (
                "frames",
                format!("{} of {} bytes", self.total_frames(), self.stack.arena().frame_size()),
            ),
        ];
        facts.extend(self.facts.iter().cloned());
        facts.extend(port.facts.iter().cloned());
        facts
    }
}

fn datagram(handle: Handle) -> io::Result<SocketId> {
    match handle.0 {
        Inner::Datagram(id) => Ok(id),
        _ => Err(not_a("datagram socket", handle)),
    }
}

fn not_a(wanted: &str, handle: Handle) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("a {} is no {wanted}", handle.what()))
}
