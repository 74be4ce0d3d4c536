//! `poll` and `epoll`: what is true of a socket now, and what has become true since it was asked.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use millrace_stack::{Ready, Stack, State};

use crate::descriptor::Object;
use crate::errno::{Errno, Result};
use crate::send_buffer::Limits;
use crate::shared::Outcome;
use crate::socket::{Kind, Socket};
use crate::world::World;

const IN: u32 = (libc::EPOLLIN | libc::EPOLLRDNORM) as u32;
const OUT: u32 = (libc::EPOLLOUT | libc::EPOLLWRNORM) as u32;
const RDHUP: u32 = libc::EPOLLRDHUP as u32;
const HUP: u32 = libc::EPOLLHUP as u32;
const ERR: u32 = libc::EPOLLERR as u32;
/// Reported whether they are asked for or not.
const ALWAYS: u32 = HUP | ERR;

/// What an event of the stack may have made true.
pub(crate) fn edges(ready: Ready) -> u32 {
    let mut edges = 0;
    for (what, bits) in [
        (Ready::CONNECTED, OUT),
        (Ready::READABLE, IN),
        (Ready::WRITABLE, OUT),
        (Ready::FINISHED, IN | RDHUP | HUP),
        (Ready::CLOSED, IN | OUT | RDHUP | HUP | ERR),
    ] {
        if ready.has(what) {
            edges |= bits;
        }
    }
    edges
}

/// One descriptor that an epoll watches.
struct Watch {
    events: u32,
    data: u64,
    /// Became true and was not reported, for `EPOLLET`.
    edges: u32,
    /// `EPOLLONESHOT` has fired.
    spent: bool,
}

/// An epoll instance.
#[derive(Default)]
pub(crate) struct Epoll {
    watches: BTreeMap<RawFd, Watch>,
}

impl Epoll {
    pub(crate) fn note(&mut self, number: RawFd, edges: u32) {
        if let Some(watch) = self.watches.get_mut(&number) {
            watch.edges |= edges;
        }
    }

    pub(crate) fn forget(&mut self, number: RawFd) {
        self.watches.remove(&number);
    }
}

/// What `poll` would say of a socket (the order of Linux's `tcp_poll`, from its manual pages).
fn mask(socket: &Socket, stack: Option<&Stack>, limits: &Limits) -> u32 {
    let stream = match &socket.kind {
        Kind::Fresh => return HUP | OUT,
        Kind::Deferred { .. } => return OUT,
        Kind::Listener { acceptable, .. } => return if *acceptable { IN } else { 0 },
        Kind::Stream(stream) => stream,
    };
    let Some(stack) = stack else { return 0 };
    let state = stream.state(stack);
    let mut mask = 0;
    let over = matches!(state, State::Closed | State::TimeWait);
    let ended = over || stream.read_shut || stack.finished(stream.id).unwrap_or(true);
    if over || (ended && stream.write_shut) {
        mask |= HUP;
    }
    if ended {
        mask |= IN | RDHUP;
    }
    if over || stream.connected {
        if stream.readable(stack) > 0 {
            mask |= IN;
        }
        let writable = || {
            let info = stack.tcp_info(stream.id).unwrap_or_default();
            stream.buffer.is_writable(limits, &info, stream.progress(stack))
        };
        if stream.write_shut || over || writable() {
            mask |= OUT;
        }
    }
    if stream.error(stack).is_some() || !socket.errors.is_empty() {
        mask |= ERR;
    }
    mask
}

impl World {
    fn mask(&self, number: RawFd) -> Result<u32> {
        Ok(match self.descriptors.get(number)? {
            Object::Socket(socket) => {
                mask(socket, self.stack_ref(), &socket.options.limits(&self.sysctl))
            }
            Object::Pipe(end) if end.writes => {
                if end.room() > 0 {
                    OUT
                } else {
                    0
                }
            }
            Object::Pipe(end) => {
                if end.len() > 0 {
                    IN
                } else {
                    0
                }
            }
            Object::Epoll(_) => 0,
        })
    }

    /// One attempt at `poll` for descriptors and what is asked of each; the outcome holds one
    /// answer of two bytes for each.
    pub(crate) fn poll(&mut self, asked: &[(RawFd, i16)], last: bool) -> Option<Result<Outcome>> {
        let mut outcome = Outcome::default();
        for &(number, events) in asked {
            let answer = if number < 0 {
                0
            } else {
                self.mask(number)
                    .map_or(libc::POLLNVAL, |mask| (mask & (events as u32 | ALWAYS)) as i16)
            };
            outcome.value += i64::from(answer != 0);
            outcome.bytes.extend(answer.to_ne_bytes());
        }
        (last || outcome.value > 0).then_some(Ok(outcome))
    }

    pub(crate) fn epoll_create(&mut self, size: i32) -> Result<RawFd> {
        if size <= 0 {
            return Err(Errno(libc::EINVAL));
        }
        self.descriptors.insert(Object::Epoll(Epoll::default()))
    }

    pub(crate) fn epoll_ctl(
        &mut self,
        epoll: RawFd,
        operation: i32,
        number: RawFd,
        event: Option<(u32, u64)>,
    ) -> Result<()> {
        if epoll == number {
            return Err(Errno(libc::EINVAL));
        }
        let current = self.mask(number)?;
        let Object::Epoll(epoll) = self.descriptors.get_mut(epoll)? else {
            return Err(Errno(libc::EINVAL));
        };
        let watched = epoll.watches.contains_key(&number);
        match operation {
            libc::EPOLL_CTL_DEL if watched => epoll.forget(number),
            libc::EPOLL_CTL_ADD if watched => return Err(Errno(libc::EEXIST)),
            libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD
                if watched || operation == libc::EPOLL_CTL_ADD =>
            {
                let (events, data) = event.ok_or(Errno(libc::EFAULT))?;
                let watch = Watch { events, data, edges: current, spent: false };
                epoll.watches.insert(number, watch);
            }
            libc::EPOLL_CTL_DEL | libc::EPOLL_CTL_MOD => return Err(Errno(libc::ENOENT)),
            _ => return Err(Errno(libc::EINVAL)),
        }
        Ok(())
    }

    /// One attempt at `epoll_wait`; the outcome holds events (4 bytes) and data (8 bytes) of each.
    pub(crate) fn epoll_wait(
        &mut self,
        number: RawFd,
        most: usize,
        last: bool,
    ) -> Option<Result<Outcome>> {
        let watched: Vec<RawFd> = match self.descriptors.get(number) {
            Ok(Object::Epoll(epoll)) => epoll.watches.keys().copied().collect(),
            Ok(_) => return Some(Err(Errno(libc::EINVAL))),
            Err(error) => return Some(Err(error)),
        };
        let masks: Vec<(RawFd, u32)> =
            watched.into_iter().map(|fd| (fd, self.mask(fd).unwrap_or(0))).collect();
        let Ok(Object::Epoll(epoll)) = self.descriptors.get_mut(number) else {
            return Some(Err(Errno(libc::EINVAL)));
        };
        let mut outcome = Outcome::default();
        for (fd, mask) in masks {
            let Some(watch) = epoll.watches.get_mut(&fd) else { continue };
            let wanted = mask & (watch.events | ALWAYS);
            let edge = watch.events & libc::EPOLLET as u32 != 0;
            if wanted == 0
                || watch.spent
                || (edge && watch.edges & (watch.events | ALWAYS) == 0)
                || outcome.value as usize >= most
            {
                continue;
            }
            watch.edges = 0;
            watch.spent = watch.events & libc::EPOLLONESHOT as u32 != 0;
            outcome.value += 1;
            outcome.bytes.extend(wanted.to_ne_bytes());
            outcome.bytes.extend(watch.data.to_ne_bytes());
        }
        (last || outcome.value > 0).then_some(Ok(outcome))
    }
}
