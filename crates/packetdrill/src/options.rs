//! Socket options (socket(7), ip(7), tcp(7)): what is set on a socket, and its connection's part
//! of it.

use core::time::Duration;
use std::os::fd::RawFd;

use millrace_stack::{ConnectionId, ListenerId, Stack};

use crate::errno::{Errno, Result};
use crate::info;
use crate::socket::Kind;
use crate::sysctl::Sysctl;
use crate::world::World;

/// The control message of `TCP_INQ`; it has the option's number.
pub(crate) const TCP_CM_INQ: i32 = libc::TCP_INQ;

/// `linux/sock_diag.h`; libc has no name for the count.
const SO_MEMINFO_WORDS: usize = 9;

/// Linux's `net.core.rmem_default` and `wmem_default`.
const DEFAULT_BUFFER: u32 = 212_992;

/// What was set on a socket. A listener's go to the sockets that it accepts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) no_delay: bool,
    pub(crate) linger: Option<Duration>,
    /// `TCP_INQ`.
    pub(crate) inq: bool,
    reuse_address: bool,
    reuse_port: bool,
    /// As set, doubled as Linux does; `None` while it sizes itself.
    send_buffer: Option<u32>,
    receive_buffer: Option<u32>,
}

impl Options {
    /// Gives a new connection what its socket was told.
    pub(crate) fn apply(&self, stack: &mut Stack, id: ConnectionId) -> Result<()> {
        if self.no_delay {
            stack.set_no_delay(id, true)?;
        }
        if self.linger.is_some() {
            stack.set_linger(id, self.linger)?;
        }
        Ok(())
    }

    /// Most bytes that may be written and not acknowledged.
    pub(crate) fn send_limit(&self, sysctl: &Sysctl) -> usize {
        let most = sysctl.wmem.map_or(u64::from(u32::MAX), |[_, _, most]| most);
        self.send_buffer.map_or(most, u64::from) as usize
    }
}

fn integer(value: &[u8]) -> Result<i32> {
    value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno(libc::EINVAL))
}

impl World {
    /// # Errors
    /// `ENOPROTOOPT` for an option that the stack does not have.
    pub(crate) fn set_option(
        &mut self,
        number: RawFd,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<()> {
        let socket = self.descriptors.socket_mut(number)?;
        let options = &mut socket.options;
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => options.reuse_address = integer(value)? != 0,
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => options.reuse_port = integer(value)? != 0,
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => {
                options.send_buffer = Some(doubled(integer(value)?, 4608));
            }
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => {
                options.receive_buffer = Some(doubled(integer(value)?, 2304));
            }
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let seconds = value.get(4..).ok_or(Errno(libc::EINVAL)).and_then(integer)?;
                options.linger = (integer(value)? != 0)
                    .then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
            }
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => options.no_delay = integer(value)? != 0,
            (libc::IPPROTO_TCP, libc::TCP_INQ) => match integer(value)? {
                0 => options.inq = false,
                1 => options.inq = true,
                _ => return Err(Errno(libc::EINVAL)),
            },
            _ => return Err(Errno(libc::ENOPROTOOPT)),
        }
        let options = options.clone();
        if let Kind::Stream(stream) = &socket.kind {
            let id = stream.id;
            let stack = self.stack()?;
            match (level, name) {
                (libc::IPPROTO_TCP, libc::TCP_NODELAY) => {
                    stack.set_no_delay(id, options.no_delay)?
                }
                (libc::SOL_SOCKET, libc::SO_LINGER) => stack.set_linger(id, options.linger)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The value of an option, at most `most` bytes.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for an option that the stack does not have.
    pub(crate) fn get_option(
        &mut self,
        number: RawFd,
        level: i32,
        name: i32,
        most: usize,
    ) -> Result<Vec<u8>> {
        let value = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => self.take_error(number)?,
            (libc::SOL_SOCKET, libc::SO_MEMINFO) => return self.memory_info(number, most),
            (libc::IPPROTO_TCP, libc::TCP_INFO) => {
                let socket = self.descriptors.socket(number)?;
                return Ok(info::tcp_info(socket, self.stack_ref(), most));
            }
            (libc::IPPROTO_TCP, libc::TCP_CC_INFO) => {
                let socket = self.descriptors.socket(number)?;
                return Ok(info::congestion_info(socket, self.stack_ref(), most));
            }
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => {
                let socket = self.descriptors.socket(number)?;
                match (&socket.kind, self.stack_ref()) {
                    (Kind::Stream(stream), Some(stack)) => i32::from(stack.info(stream.id)?.mss),
                    // RFC 9293 §3.7.1.
                    _ => 536,
                }
            }
            _ => self.stored_option(number, level, name)?,
        };
        let mut bytes = value.to_ne_bytes().to_vec();
        bytes.truncate(most);
        Ok(bytes)
    }

    fn stored_option(&self, number: RawFd, level: i32, name: i32) -> Result<i32> {
        let socket = self.descriptors.socket(number)?;
        let options = &socket.options;
        Ok(match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => options.reuse_address.into(),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => options.reuse_port.into(),
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => self.send_buffer(number)? as i32,
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => self.receive_buffer(number)? as i32,
            (libc::SOL_SOCKET, libc::SO_TYPE) => libc::SOCK_STREAM,
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => libc::IPPROTO_TCP,
            (libc::SOL_SOCKET, libc::SO_DOMAIN) if socket.v6 => libc::AF_INET6,
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => libc::AF_INET,
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => {
                matches!(socket.kind, Kind::Listener { .. }).into()
            }
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => options.no_delay.into(),
            (libc::IPPROTO_TCP, libc::TCP_INQ) => options.inq.into(),
            _ => return Err(Errno(libc::ENOPROTOOPT)),
        })
    }

    fn take_error(&mut self, number: RawFd) -> Result<i32> {
        let (stack, socket) = self.parts(number)?;
        let Kind::Stream(stream) = &mut socket.kind else { return Ok(0) };
        Ok(stream.take_error(stack).map_or(0, |Errno(number)| number))
    }

    fn send_buffer(&self, number: RawFd) -> Result<u32> {
        let set = self.descriptors.socket(number)?.options.send_buffer;
        let first = self.sysctl.wmem.map(|[_, first, _]| first as u32);
        Ok(set.or(first).unwrap_or(DEFAULT_BUFFER))
    }

    fn receive_buffer(&self, number: RawFd) -> Result<u32> {
        let set = self.descriptors.socket(number)?.options.receive_buffer;
        let first = self.sysctl.rmem.map(|[_, first, _]| first as u32);
        Ok(set.or(first).unwrap_or(DEFAULT_BUFFER))
    }

    /// `linux/sock_diag.h`: what is allocated and its bounds. Bytes of payload stand for memory.
    fn memory_info(&mut self, number: RawFd, most: usize) -> Result<Vec<u8>> {
        let (send, receive) = (self.send_buffer(number)?, self.receive_buffer(number)?);
        let socket = self.descriptors.socket(number)?;
        let (mut received, mut queued) = (0, 0);
        if let (Kind::Stream(stream), Some(stack)) = (&socket.kind, self.stack_ref()) {
            received = stream.readable(stack) as u32;
            queued = stack.info(stream.id).map_or(0, |info| info.send_queue);
        }
        let words: [u32; SO_MEMINFO_WORDS] = [received, receive, queued, send, 0, queued, 0, 0, 0];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.truncate(most);
        Ok(bytes)
    }

    pub(crate) fn configure_listener(&mut self, number: RawFd, _id: ListenerId) -> Result<()> {
        self.descriptors.socket(number).map(drop)
    }
}

/// Linux counts its own overhead into a buffer, so it doubles what was asked for (socket(7)).
fn doubled(asked: i32, least: u32) -> u32 {
    u32::try_from(asked).unwrap_or(0).saturating_mul(2).max(least)
}
