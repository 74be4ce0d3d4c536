//! Fast Open through a socket's calls (RFC 7413, tcp(7)): `MSG_FASTOPEN`, and `connect` that waits
//! for the first write.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use millrace_stack::ListenerId;

use crate::address::Address;
use crate::errno::{Errno, Result};
use crate::socket::{Kind, Stream};
use crate::world::World;

/// Bits of `tcp_fastopen` (`Documentation/networking/ip-sysctl.rst` of Linux).
pub(crate) mod bits {
    pub(crate) const CLIENT: u64 = 0x1;
    pub(crate) const SERVER: u64 = 0x2;
    pub(crate) const CLIENT_WITHOUT_COOKIE: u64 = 0x4;
    pub(crate) const SERVER_WITHOUT_COOKIE: u64 = 0x200;
    pub(crate) const ALL_LISTENERS: u64 = 0x400;
}

/// A write as far as it has come, over all its attempts.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    /// Bytes that were taken.
    pub(crate) sent: usize,
    /// It opened the connection, which is to be established before it may end.
    pub(crate) opens: bool,
    /// An attempt was made.
    pub(crate) begun: bool,
}

impl World {
    /// The part of a write that opens a connection, if it does. `None`: it goes on as any other.
    ///
    /// # Errors
    /// What the write returns at once, `EINPROGRESS` among it.
    pub(crate) fn open_with_data(
        &mut self,
        number: RawFd,
        data: &[u8],
        flags: i32,
        address: Option<Address>,
        last: bool,
    ) -> Result<Option<usize>> {
        let asked = flags & libc::MSG_FASTOPEN != 0;
        let socket = self.descriptors.socket(number)?;
        let remote = match (&socket.kind, address) {
            (Kind::Deferred { remote }, _) => *remote,
            _ if !asked => return Ok(None),
            (_, None | Some(Address::Unspecified)) => return Err(Errno(libc::EOPNOTSUPP)),
            (_, Some(Address::Internet(remote))) => remote,
        };
        self.refresh()?;
        if !self.sysctl.fast_open(bits::CLIENT) {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        match &mut self.descriptors.socket_mut(number)?.kind {
            Kind::Fresh | Kind::Deferred { .. } => {}
            Kind::Listener { .. } => return Err(Errno(libc::EISCONN)),
            Kind::Stream(stream) if stream.connected && stream.connect_told => {
                return Err(Errno(libc::EISCONN));
            }
            Kind::Stream(stream) if stream.connected => {
                // As a second `connect` would: it says once that the first one succeeded.
                stream.connect_told = true;
                return Ok(None);
            }
            Kind::Stream(_) => return Err(Errno(libc::EALREADY)),
        }
        let taken = self.begin(number, remote, data, !last)?;
        if last && taken == 0 {
            return Err(Errno(libc::EINPROGRESS));
        }
        Ok(Some(taken))
    }

    /// Opens the connection. Returns how much of the data was taken: what goes with the SYN, and
    /// all of it of a call that `waits`. What was not is left to the caller.
    fn begin(
        &mut self,
        number: RawFd,
        remote: SocketAddr,
        data: &[u8],
        waits: bool,
    ) -> Result<usize> {
        let socket = self.descriptors.socket(number)?;
        let (bound, options) = (socket.bound, socket.options.clone());
        let stack = self.stack_for(bound.map(|bound| bound.ip()), Some(remote.ip()))?;
        // A smaller segment size that was asked for bounds the SYN, too (`TCP_MAXSEG`).
        let room = stack.fast_open_room(remote.ip()).map_or(0, usize::from);
        let room = room.min(options.syn_room());
        let first = if waits && room > 0 { data } else { &data[..data.len().min(room)] };
        let (id, taken) = stack.connect_with_data(remote, bound, first)?;
        options.apply(stack, id)?;
        let mut stream = Stream::new(id, false);
        stream.written = taken as u64;
        self.descriptors.socket_mut(number)?.kind = Kind::Stream(stream);
        Ok(taken)
    }

    /// `connect` on a socket with `TCP_FASTOPEN_CONNECT`: true if it may wait for the first write,
    /// because the peer has given a cookie. If not, it is asked for one.
    pub(crate) fn defer_connect(&mut self, number: RawFd, remote: SocketAddr) -> Result<bool> {
        let bound = self.descriptors.socket(number)?.bound;
        let stack = self.stack_for(bound.map(|bound| bound.ip()), Some(remote.ip()))?;
        if stack.fast_open_room(remote.ip()).is_some() {
            self.descriptors.socket_mut(number)?.kind = Kind::Deferred { remote };
            return Ok(true);
        }
        self.begin(number, remote, &[], false).map(|_| false)
    }

    /// Gives a listener what its socket was told of Fast Open. `backlog` bounds it where all
    /// listeners have it.
    pub(crate) fn configure_fast_open(
        &mut self,
        number: RawFd,
        id: ListenerId,
        backlog: u32,
    ) -> Result<()> {
        let options = self.descriptors.socket(number)?.options.clone();
        let serves = self.sysctl.fast_open(bits::SERVER);
        let all = self.sysctl.fast_open(bits::ALL_LISTENERS);
        let most = match options.fast_open {
            Some(most) => most,
            None if serves && all => backlog,
            None => 0,
        };
        let stack = self.stack()?;
        stack.set_fast_open(id, most)?;
        if let Some((key, older)) = options.fast_open_keys {
            stack.set_fast_open_keys(id, key, older)?;
        }
        Ok(())
    }
}
