//! Reading from and writing to sockets and pipes, in all their variants.

use std::os::fd::RawFd;

use millrace_stack::State;

use crate::address::Address;
use crate::descriptor::Object;
use crate::errno::{Errno, Result};
use crate::fast_open::Writing;
use crate::options::TCP_CM_INQ;
use crate::shared::Outcome;
use crate::socket::Kind;
use crate::world::World;

/// Flags of `send` that change nothing about what is sent: no signal is ever raised, and what is
/// written is copied whether the caller asks for it or not.
const SEND_IGNORED: i32 =
    libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_CONFIRM | libc::MSG_ZEROCOPY;

/// Flags of `send` that the stack has functions for.
const SEND_KNOWN: i32 = SEND_IGNORED | libc::MSG_MORE | libc::MSG_EOR;

/// What one attempt to send came to.
enum Sent {
    /// So many bytes were taken.
    Bytes(usize),
    /// None can be taken now.
    Wait,
}

/// Flags of `recv` that are understood.
const RECEIVE_KNOWN: i32 = libc::MSG_PEEK
    | libc::MSG_WAITALL
    | libc::MSG_DONTWAIT
    | libc::MSG_TRUNC
    | libc::MSG_NOSIGNAL
    | libc::MSG_ERRQUEUE
    | libc::MSG_CMSG_CLOEXEC;

impl World {
    /// Whether a call on the descriptor with these flags may wait.
    pub(crate) fn waits(&self, number: RawFd, flags: i32) -> bool {
        match self.descriptors.get(number) {
            Ok(Object::Socket(socket)) => !socket.nonblocking && flags & libc::MSG_DONTWAIT == 0,
            _ => false,
        }
    }

    /// One attempt to receive up to `most` bytes.
    pub(crate) fn receive_from(
        &mut self,
        number: RawFd,
        most: usize,
        flags: i32,
        last: bool,
    ) -> Option<Result<Outcome>> {
        match self.try_receive(number, most, flags, last) {
            Ok(Some(outcome)) => Some(Ok(outcome)),
            Ok(None) if last => Some(Err(Errno(libc::EAGAIN))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn try_receive(
        &mut self,
        number: RawFd,
        most: usize,
        flags: i32,
        last: bool,
    ) -> Result<Option<Outcome>> {
        if flags & !RECEIVE_KNOWN != 0 {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        if let Object::Pipe(end) = self.descriptors.get(number)? {
            let bytes = end.peek(most);
            end.consume(bytes.len());
            return Ok(Some(Outcome { value: bytes.len() as i64, bytes, ..Outcome::default() }));
        }
        if flags & libc::MSG_ERRQUEUE != 0 {
            let socket = self.descriptors.socket_mut(number)?;
            // Never waits (recv(2)).
            return socket.errors.take(socket.v6).map(Some).ok_or(Errno(libc::EAGAIN));
        }
        let (stack, socket) = self.parts(number)?;
        let inq = socket.options.inq;
        let stream = match &mut socket.kind {
            Kind::Stream(stream) => stream,
            Kind::Deferred { .. } => return Ok(None),
            _ => return Err(Errno(libc::ENOTCONN)),
        };
        stream.fill(stack, most);
        let at_end = stream.at_end(stack);
        let enough =
            if flags & libc::MSG_WAITALL != 0 && !at_end && !last { most.max(1) } else { 1 };
        if stream.unread.len() < enough {
            if let Some(error) = stream.take_error(stack) {
                return Err(error);
            }
            return Ok(at_end.then(Outcome::default));
        }
        let count = stream.unread.len().min(most);
        let mut bytes: Vec<u8> = stream.unread.iter().take(count).copied().collect();
        if flags & libc::MSG_PEEK == 0 {
            stream.unread.drain(..count);
        }
        if flags & libc::MSG_TRUNC != 0 {
            // tcp(7): the bytes are thrown away.
            bytes.clear();
        }
        let mut control = Vec::new();
        if inq {
            // One more than there are at the end of the stream, so that the reader comes back.
            let rest = stream.readable(stack);
            let hint = if rest == 0 && stream.at_end(stack) { 1 } else { rest };
            control.push((libc::IPPROTO_TCP, TCP_CM_INQ, (hint as i32).to_ne_bytes().to_vec()));
        }
        Ok(Some(Outcome { value: count as i64, bytes, control, ..Outcome::default() }))
    }

    /// One attempt to send `data` from where it has come to. All of it must go before a call that
    /// may wait returns.
    pub(crate) fn send_to(
        &mut self,
        number: RawFd,
        data: &[u8],
        flags: i32,
        address: Option<Address>,
        writing: &mut Writing,
        last: bool,
    ) -> Option<Result<Outcome>> {
        if !core::mem::replace(&mut writing.begun, true) {
            match self.open_with_data(number, data, flags, address, last) {
                Ok(None) => {}
                Ok(Some(taken)) => {
                    writing.sent = taken;
                    writing.opens = true;
                    if last {
                        self.note_written(number, taken, flags);
                        return Some(Ok(Outcome::value(taken as i64)));
                    }
                    return None;
                }
                Err(error) => return Some(Err(error)),
            }
        }
        let flags = flags & !libc::MSG_FASTOPEN;
        loop {
            match self.try_send(number, &data[writing.sent..], flags) {
                Ok(Sent::Wait) => break,
                Ok(Sent::Bytes(taken)) => {
                    writing.opens = false;
                    writing.sent += taken;
                    if writing.sent == data.len() {
                        self.note_written(number, writing.sent, flags);
                        return Some(Ok(Outcome::value(writing.sent as i64)));
                    }
                    // A packet that is full leaves, if it may, before the next one is begun.
                    self.transmit();
                }
                Err(error) if writing.sent == 0 || writing.opens => return Some(Err(error)),
                Err(_) => {
                    self.note_written(number, writing.sent, flags);
                    return Some(Ok(Outcome::value(writing.sent as i64)));
                }
            }
        }
        match (last, writing.sent) {
            (false, _) => None,
            (true, 0) => Some(Err(Errno(libc::EAGAIN))),
            (true, sent) => {
                self.note_written(number, sent, flags);
                Some(Ok(Outcome::value(sent as i64)))
            }
        }
    }

    /// A write is over; some of its bytes may be reported on later.
    fn note_written(&mut self, number: RawFd, sent: usize, flags: i32) {
        if sent > 0
            && let Ok(socket) = self.descriptors.socket_mut(number)
            && let Kind::Stream(stream) = &socket.kind
        {
            let zero_copy = flags & libc::MSG_ZEROCOPY != 0 && socket.options.zero_copy;
            socket.errors.written(stream.written, zero_copy);
        }
    }

    fn try_send(&mut self, number: RawFd, data: &[u8], flags: i32) -> Result<Sent> {
        if let Object::Pipe(end) = self.descriptors.get(number)? {
            return Ok(match end.write(data) {
                0 if !data.is_empty() => Sent::Wait,
                taken => Sent::Bytes(taken),
            });
        }
        if flags & !SEND_KNOWN != 0 {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let sysctl = self.sysctl.clone();
        let (stack, socket) = self.parts(number)?;
        let limits = socket.options.limits(&sysctl);
        // A socket that never had a connection has a broken pipe, says Linux, not a missing one.
        let Kind::Stream(stream) = &mut socket.kind else { return Err(Errno(libc::EPIPE)) };
        if let Some(error) = stream.take_error(stack) {
            return Err(error);
        }
        if stream.write_shut {
            return Err(Errno(libc::EPIPE));
        }
        let info = stack.info(stream.id)?;
        match info.state {
            // One that Fast Open accepted early may be written to.
            State::SynSent | State::SynReceived if !stream.connected => return Ok(Sent::Wait),
            State::SynReceived | State::Established | State::CloseWait => {}
            _ => return Err(Errno(libc::EPIPE)),
        }
        let progress = stream.progress(stack);
        let room = stream.buffer.room(&limits, &stack.tcp_info(stream.id)?, progress);
        if room == 0 && !data.is_empty() {
            stream.buffer.wait();
            // More was to follow what was taken, and cannot for now.
            stack.write(stream.id, &[])?;
            stack.set_withheld(stream.id, true)?;
            return Ok(Sent::Wait);
        }
        stack.set_withheld(stream.id, false)?;
        let room = room.min(data.len());
        let (part, last) = (&data[..room], room == data.len());
        // Only a write's last part ends a record, and only that pushes, as long as others do often
        // enough.
        let pushes = stream.buffer.pushes(stream.written + room as u64, last);
        let taken = if flags & libc::MSG_EOR != 0 && last {
            stack.write_record(stream.id, part)?
        } else if flags & libc::MSG_MORE != 0 || !pushes {
            stack.write_more(stream.id, part)?
        } else {
            stack.write(stream.id, part)?
        };
        stream.written += taken as u64;
        Ok(if taken == 0 && room > 0 { Sent::Wait } else { Sent::Bytes(taken) })
    }

    /// `splice` between a socket and a pipe, one attempt.
    pub(crate) fn splice(
        &mut self,
        from: RawFd,
        to: RawFd,
        most: usize,
        last: bool,
    ) -> Option<Result<Outcome>> {
        match self.try_splice(from, to, most) {
            Ok(Some(moved)) => Some(Ok(Outcome::value(moved as i64))),
            Ok(None) if last => Some(Err(Errno(libc::EAGAIN))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn try_splice(&mut self, from: RawFd, to: RawFd, most: usize) -> Result<Option<usize>> {
        if let Object::Pipe(end) = self.descriptors.get(to)? {
            let end = end.clone();
            if !end.writes {
                return Err(Errno(libc::EBADF));
            }
            let most = most.min(end.room());
            if most == 0 {
                return Ok(None);
            }
            let Some(outcome) = self.try_receive(from, most, 0, false)? else { return Ok(None) };
            return Ok(Some(end.write(&outcome.bytes)));
        }
        let Object::Pipe(end) = self.descriptors.get(from)? else {
            // splice(2): one of the two must be a pipe.
            return Err(Errno(libc::EINVAL));
        };
        let end = end.clone();
        if end.len() == 0 {
            return Ok(None);
        }
        let data = end.peek(most);
        Ok(match self.try_send(to, &data, 0)? {
            Sent::Wait => None,
            Sent::Bytes(taken) => {
                end.consume(taken);
                Some(taken)
            }
        })
    }
}
