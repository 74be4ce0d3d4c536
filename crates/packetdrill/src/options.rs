//! Socket options (socket(7), ip(7), tcp(7)): which of them the stack has, and what the socket
//! itself remembers.

use core::time::Duration;
use std::os::fd::RawFd;

use millrace_stack::{Algorithm, ConnectionId, ListenerId, OptionName, SocketOption, Stack};

use crate::errno::{Errno, Result};
use crate::fast_open::bits;
use crate::info;
use crate::send_buffer::Limits;
use crate::socket::Kind;
use crate::sysctl::Sysctl;
use crate::world::World;

/// The control message of `TCP_INQ`; it has the option's number.
pub(crate) const TCP_CM_INQ: i32 = libc::TCP_INQ;

// `linux/tcp.h`; libc has no names for these.
const TCP_FASTOPEN_CONNECT: i32 = 30;
const TCP_FASTOPEN_KEY: i32 = 33;

/// `linux/sock_diag.h`; libc has no name for the count.
const SO_MEMINFO_WORDS: usize = 9;

/// Linux's `net.core.rmem_default` and `wmem_default`.
const DEFAULT_BUFFER: u32 = 212_992;

/// Options that are the stack's, by their numbers.
const STACK_OPTIONS: &[(i32, i32, OptionName)] = &[
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, OptionName::KeepAlive),
    (libc::SOL_SOCKET, libc::SO_LINGER, OptionName::Linger),
    (libc::SOL_SOCKET, libc::SO_SNDBUF, OptionName::SendBuffer),
    (libc::SOL_SOCKET, libc::SO_RCVBUF, OptionName::ReceiveBuffer),
    (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, OptionName::MaxPacingRate),
    (libc::IPPROTO_IP, libc::IP_TOS, OptionName::TypeOfService),
    (libc::IPPROTO_IP, libc::IP_TTL, OptionName::TimeToLive),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, OptionName::MtuDiscover),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, OptionName::TypeOfService),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, OptionName::TimeToLive),
    (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, OptionName::MtuDiscover),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY, OptionName::NoDelay),
    (libc::IPPROTO_TCP, libc::TCP_CORK, OptionName::Cork),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK, OptionName::QuickAck),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, OptionName::KeepIdle),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, OptionName::KeepInterval),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, OptionName::KeepCount),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, OptionName::UserTimeout),
    (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, OptionName::NotSentLowat),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG, OptionName::MaxSegment),
    (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, OptionName::WindowClamp),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2, OptionName::Linger2),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT, OptionName::SynCount),
    (libc::IPPROTO_TCP, libc::TCP_CONGESTION, OptionName::Congestion),
];

fn stack_option(level: i32, name: i32) -> Result<OptionName> {
    STACK_OPTIONS
        .iter()
        .find(|&&(its_level, its_name, _)| (its_level, its_name) == (level, name))
        .map(|&(_, _, option)| option)
        .ok_or(Errno(libc::ENOPROTOOPT))
}

/// What was set on a socket. A listener's go to the sockets that it accepts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// The stack's, in the order in which they were set.
    set: Vec<SocketOption>,
    /// `TCP_INQ`.
    pub(crate) inq: bool,
    /// `SO_ZEROCOPY`.
    pub(crate) zero_copy: bool,
    reuse_address: bool,
    reuse_port: bool,
    free_bind: bool,
    mark: i32,
    /// `TCP_FASTOPEN`.
    pub(crate) fast_open: Option<u32>,
    /// `TCP_FASTOPEN_KEY`.
    pub(crate) fast_open_keys: Option<Keys>,
    /// `TCP_FASTOPEN_CONNECT`.
    pub(crate) fast_open_connect: bool,
}

/// A listener's key for cookies, and the one before it.
type Keys = ([u8; 16], Option<[u8; 16]>);

impl Options {
    /// Gives a new connection what its socket was told before there was one.
    pub(crate) fn apply(&self, stack: &mut Stack, id: ConnectionId) -> Result<()> {
        for &option in self.set.iter().filter(|option| is_the_stacks(option.name())) {
            stack.set_option(id, option)?;
        }
        Ok(())
    }

    fn get(&self, name: OptionName) -> Option<SocketOption> {
        self.set.iter().copied().find(|option| option.name() == name)
    }

    fn keep(&mut self, option: SocketOption) {
        self.set.retain(|other| other.name() != option.name());
        self.set.push(option);
    }

    /// Most data of a SYN: what the segment size that was asked for leaves beside all options.
    pub(crate) fn syn_room(&self) -> usize {
        let asked = self.get(OptionName::MaxSegment).and_then(SocketOption::number);
        asked.map_or(usize::MAX, |bytes| (bytes as usize).saturating_sub(40))
    }

    /// What bounds the socket's writes.
    pub(crate) fn limits(&self, sysctl: &Sysctl) -> Limits {
        let number = |name| self.get(name).and_then(SocketOption::number).map(|n| n as u32);
        let [_, first, most] = sysctl.wmem.unwrap_or([0, 16_384, 4_194_304]);
        // 0 leaves the stack's in force.
        let lowat = number(OptionName::NotSentLowat).filter(|&bytes| bytes > 0);
        Limits {
            fixed: number(OptionName::SendBuffer),
            tuned: [first, most],
            lowat: lowat.unwrap_or(sysctl.lowat()),
            least_segments: sysctl.least_segments(),
        }
    }
}

/// Whether the stack is told. It is not about the size of what is written: a socket counts that
/// as Linux does ([`crate::send_buffer`]).
fn is_the_stacks(name: OptionName) -> bool {
    !matches!(name, OptionName::SendBuffer | OptionName::NotSentLowat)
}

fn integer(value: &[u8]) -> Result<i32> {
    value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno(libc::EINVAL))
}

/// ip(7)'s options may be a single byte.
fn byte_or_integer(value: &[u8]) -> Result<i32> {
    match value {
        [byte, rest @ ..] if rest.len() < 3 => Ok((*byte).into()),
        value => integer(value),
    }
}

/// The option that C's value means.
fn parse(name: OptionName, value: &[u8]) -> Result<SocketOption> {
    match name {
        OptionName::Congestion => {
            let text = value.split(|&byte| byte == 0).next().unwrap_or(&[]);
            let text = core::str::from_utf8(text).map_err(|_| Errno(libc::ENOENT))?;
            let algorithm = text.parse::<Algorithm>().map_err(|_| Errno(libc::ENOENT))?;
            Ok(SocketOption::Congestion(algorithm))
        }
        OptionName::Linger => {
            let seconds = value.get(4..).ok_or(Errno(libc::EINVAL)).and_then(integer)?;
            let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            Ok(SocketOption::Linger((integer(value)? != 0).then_some(time)))
        }
        // Linux counts its own overhead into a buffer, so it doubles what was asked for
        // (socket(7)).
        OptionName::SendBuffer => Ok(SocketOption::SendBuffer(doubled(integer(value)?, 4608))),
        OptionName::ReceiveBuffer => {
            Ok(SocketOption::ReceiveBuffer(doubled(integer(value)?, 2304)))
        }
        OptionName::NotSentLowat => {
            Ok(SocketOption::from_number(name, i64::from(integer(value)? as u32))?)
        }
        OptionName::TypeOfService | OptionName::TimeToLive | OptionName::MtuDiscover => {
            Ok(SocketOption::from_number(name, byte_or_integer(value)?.into())?)
        }
        _ => Ok(SocketOption::from_number(name, integer(value)?.into())?),
    }
}

fn doubled(asked: i32, least: u32) -> u32 {
    u32::try_from(asked).unwrap_or(0).saturating_mul(2).max(least)
}

/// C's value of an option.
fn write(option: SocketOption) -> Vec<u8> {
    match option {
        SocketOption::Congestion(algorithm) => {
            // TCP_CA_NAME_MAX.
            let mut bytes = algorithm.name().as_bytes().to_vec();
            bytes.resize(16, 0);
            bytes
        }
        SocketOption::Linger(time) => {
            let seconds = time.map_or(0, |time| time.as_secs() as i32);
            let mut bytes = i32::from(time.is_some()).to_ne_bytes().to_vec();
            bytes.extend(seconds.to_ne_bytes());
            bytes
        }
        option => {
            let number = option.number().unwrap_or(0);
            // Unsigned ones keep their bits.
            (number as u32).to_ne_bytes().to_vec()
        }
    }
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
            // For routing and filters, of which there are none here.
            (libc::SOL_SOCKET, libc::SO_MARK) => options.mark = integer(value)?,
            // Nothing is checked when a socket is bound; the listener's address is.
            (libc::IPPROTO_IP, libc::IP_FREEBIND) => options.free_bind = integer(value)? != 0,
            (libc::SOL_SOCKET, libc::SO_ZEROCOPY) => match integer(value)? {
                0 => options.zero_copy = false,
                1 => options.zero_copy = true,
                _ => return Err(Errno(libc::EINVAL)),
            },
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) => {
                let written = match &socket.kind {
                    Kind::Stream(stream) => stream.written,
                    _ => 0,
                };
                if !socket.errors.set_stamps(integer(value)? as u32, written) {
                    return Err(Errno(libc::EINVAL));
                }
            }
            (libc::IPPROTO_TCP, libc::TCP_INQ) => match integer(value)? {
                0 => options.inq = false,
                1 => options.inq = true,
                _ => return Err(Errno(libc::EINVAL)),
            },
            (libc::IPPROTO_TCP, libc::TCP_FASTOPEN | TCP_FASTOPEN_KEY | TCP_FASTOPEN_CONNECT) => {
                return self.set_fast_open_option(number, name, value);
            }
            _ => return self.set_stack_option(number, stack_option(level, name)?, value),
        }
        Ok(())
    }

    fn set_fast_open_option(&mut self, number: RawFd, name: i32, value: &[u8]) -> Result<()> {
        self.refresh()?;
        let client = self.sysctl.fast_open(bits::CLIENT);
        let socket = self.descriptors.socket_mut(number)?;
        match name {
            libc::TCP_FASTOPEN => {
                let most = u32::try_from(integer(value)?).map_err(|_| Errno(libc::EINVAL))?;
                socket.options.fast_open = Some(most);
            }
            TCP_FASTOPEN_KEY => {
                let older = match value.len() {
                    16 => None,
                    32 => value.last_chunk().copied(),
                    _ => return Err(Errno(libc::EINVAL)),
                };
                let key = *value.first_chunk().ok_or(Errno(libc::EINVAL))?;
                socket.options.fast_open_keys = Some((key, older));
            }
            _ => {
                let on = match integer(value)? {
                    0 => false,
                    1 => true,
                    _ => return Err(Errno(libc::EINVAL)),
                };
                if !client {
                    return Err(Errno(libc::EOPNOTSUPP));
                }
                if !matches!(socket.kind, Kind::Fresh) {
                    return Err(Errno(libc::EINVAL));
                }
                socket.options.fast_open_connect = on;
            }
        }
        match socket.kind {
            Kind::Listener { id, backlog, .. } => self.configure_fast_open(number, id, backlog),
            Kind::Stream(_) if name == libc::TCP_FASTOPEN => Err(Errno(libc::EINVAL)),
            _ => Ok(()),
        }
    }

    fn set_stack_option(&mut self, number: RawFd, name: OptionName, value: &[u8]) -> Result<()> {
        let option = parse(name, value)?;
        match self.descriptors.socket(number)?.kind {
            _ if !is_the_stacks(name) => {}
            Kind::Fresh | Kind::Deferred { .. } => {}
            Kind::Listener { id, .. } => self.stack()?.set_listener_option(id, option)?,
            Kind::Stream(ref stream) => {
                let id = stream.id;
                self.stack()?.set_option(id, option)?;
            }
        }
        self.descriptors.socket_mut(number)?.options.keep(option);
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
        let mut bytes = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => self.take_error(number)?.to_ne_bytes().to_vec(),
            (libc::SOL_SOCKET, libc::SO_MEMINFO) => self.memory_info(number)?,
            (libc::IPPROTO_TCP, libc::TCP_INFO) => {
                info::tcp_info(self.descriptors.socket(number)?, self.stack_ref())
            }
            (libc::IPPROTO_TCP, libc::TCP_CC_INFO) => {
                info::congestion_info(self.descriptors.socket(number)?, self.stack_ref())
            }
            (libc::IPPROTO_TCP, TCP_FASTOPEN_KEY) => {
                let keys = self.descriptors.socket(number)?.options.fast_open_keys;
                keys.map_or(Vec::new(), |(key, older)| {
                    [&key[..], older.as_ref().map_or(&[], |older| &older[..])].concat()
                })
            }
            _ => match self.own_option(number, level, name)? {
                Some(value) => value.to_ne_bytes().to_vec(),
                None => self.get_stack_option(number, stack_option(level, name)?)?,
            },
        };
        bytes.truncate(most);
        Ok(bytes)
    }

    /// Options that the socket keeps itself.
    fn own_option(&self, number: RawFd, level: i32, name: i32) -> Result<Option<i32>> {
        let socket = self.descriptors.socket(number)?;
        let options = &socket.options;
        Ok(Some(match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => options.reuse_address.into(),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => options.reuse_port.into(),
            (libc::SOL_SOCKET, libc::SO_MARK) => options.mark,
            (libc::IPPROTO_IP, libc::IP_FREEBIND) => options.free_bind.into(),
            (libc::SOL_SOCKET, libc::SO_ZEROCOPY) => options.zero_copy.into(),
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => self.send_buffer(number)? as i32,
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => self.receive_buffer(number)? as i32,
            (libc::SOL_SOCKET, libc::SO_TYPE) => libc::SOCK_STREAM,
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => libc::IPPROTO_TCP,
            (libc::SOL_SOCKET, libc::SO_DOMAIN) if socket.v6 => libc::AF_INET6,
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => libc::AF_INET,
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => {
                matches!(socket.kind, Kind::Listener { .. }).into()
            }
            (libc::IPPROTO_TCP, libc::TCP_FASTOPEN) => options.fast_open.unwrap_or(0) as i32,
            (libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT) => options.fast_open_connect.into(),
            (libc::IPPROTO_TCP, libc::TCP_INQ) => options.inq.into(),
            // Linux shows what was set on the socket, not what applies without it.
            (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT) => {
                options.get(OptionName::NotSentLowat).and_then(SocketOption::number).unwrap_or(0)
                    as u32 as i32
            }
            _ => return Ok(None),
        }))
    }

    fn get_stack_option(&mut self, number: RawFd, name: OptionName) -> Result<Vec<u8>> {
        let socket = self.descriptors.socket(number)?;
        let option = match (&socket.kind, self.stack_ref()) {
            (Kind::Stream(stream), Some(stack)) => stack.option(stream.id, name)?,
            (Kind::Listener { id, .. }, Some(stack)) => stack.listener_option(*id, name)?,
            _ => match (socket.options.get(name), name) {
                (Some(option), _) => option,
                // RFC 9293 §3.7.1.
                (None, OptionName::MaxSegment) => SocketOption::MaxSegment(536),
                // What applies is known once there is a stack.
                (None, _) => return Err(Errno(libc::ENOPROTOOPT)),
            },
        };
        Ok(match option {
            SocketOption::MaxSegment(0) => write(SocketOption::MaxSegment(536)),
            option => write(option),
        })
    }

    fn take_error(&mut self, number: RawFd) -> Result<i32> {
        let (stack, socket) = self.parts(number)?;
        let Kind::Stream(stream) = &mut socket.kind else { return Ok(0) };
        Ok(stream.take_error(stack).map_or(0, |Errno(number)| number))
    }

    fn send_buffer(&self, number: RawFd) -> Result<u32> {
        let set = self.descriptors.socket(number)?.options.get(OptionName::SendBuffer);
        let first = self.sysctl.wmem.map(|[_, first, _]| first as u32);
        Ok(match set {
            Some(SocketOption::SendBuffer(bytes)) => bytes,
            _ => first.unwrap_or(DEFAULT_BUFFER),
        })
    }

    fn receive_buffer(&self, number: RawFd) -> Result<u32> {
        let set = self.descriptors.socket(number)?.options.get(OptionName::ReceiveBuffer);
        let first = self.sysctl.rmem.map(|[_, first, _]| first as u32);
        Ok(match set {
            Some(SocketOption::ReceiveBuffer(bytes)) => bytes,
            _ => first.unwrap_or(DEFAULT_BUFFER),
        })
    }

    /// `linux/sock_diag.h`: what is allocated and its bounds. Bytes of payload stand for memory.
    fn memory_info(&self, number: RawFd) -> Result<Vec<u8>> {
        let (send, receive) = (self.send_buffer(number)?, self.receive_buffer(number)?);
        let socket = self.descriptors.socket(number)?;
        let (mut received, mut queued) = (0, 0);
        if let (Kind::Stream(stream), Some(stack)) = (&socket.kind, self.stack_ref()) {
            received = stream.readable(stack) as u32;
            queued = stack.info(stream.id).map_or(0, |info| info.send_queue);
        }
        let words: [u32; SO_MEMINFO_WORDS] = [received, receive, queued, send, 0, queued, 0, 0, 0];
        Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
    }

    /// Gives a new listener what its socket was told.
    pub(crate) fn configure_listener(&mut self, number: RawFd, id: ListenerId) -> Result<()> {
        let set = self.descriptors.socket(number)?.options.set.clone();
        for option in set.into_iter().filter(|option| is_the_stacks(option.name())) {
            self.stack()?.set_listener_option(id, option)?;
        }
        Ok(())
    }
}
