//! What does not fit the send buffer, and what else only few connections have.
//!
//! Bytes that wait belong to the application's own objects and are not copied before there is room
//! for them. A connection that is closed meanwhile goes on until they are sent.

use core::fmt;
use std::collections::VecDeque;
use std::io;

use millrace_stack::{ConnectionId, Ready, State};

use crate::channel::NO_EXTRA;
use crate::completion::{Completions, Kind};
use crate::{Channel, Handle};

/// Bytes that are given away until they are sent.
pub type Owned = Box<dyn AsRef<[u8]> + Send>;

/// What to do once nothing waits any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum End {
    #[default]
    Open,
    /// Send a FIN.
    Shutdown,
    /// Close; the application has let go already.
    Close,
}

#[derive(Default)]
pub(crate) struct Extra {
    /// What waits, and how much of each is sent already.
    queue: VecDeque<(Owned, usize)>,
    /// Bytes of all that are not sent.
    waiting: usize,
    end: End,
    /// The id of a connection that the application has let go of.
    orphan: Option<ConnectionId>,
    /// On the list of those that found no frame.
    starved: bool,
    paused: bool,
    /// On the list of those that the next turn reads without an event.
    resumed: bool,
    /// What is told when all that came before it was.
    kept: Ready,
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extra")
            .field("waiting", &self.waiting)
            .field("end", &self.end)
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
}

impl Channel {
    /// The connection's extra entry, made if it has none.
    fn extra(&mut self, id: ConnectionId) -> &mut Extra {
        let slot = &mut self.slots[id.index()];
        if slot.extra == NO_EXTRA {
            slot.extra = self.free_extras.pop().unwrap_or_else(|| {
                self.extras.push(Extra::default());
                self.extras.len() as u32 - 1
            });
        }
        &mut self.extras[slot.extra as usize]
    }

    /// The entry of a connection that is the application's or an orphan.
    fn extra_of(&mut self, id: ConnectionId) -> Option<&mut Extra> {
        let slot = self.slots[id.index()];
        let extra = self.extras.get_mut(slot.extra as usize)?;
        (slot.id == Some(id) || extra.orphan == Some(id)).then_some(extra)
    }

    pub(crate) fn drop_extra(&mut self, id: ConnectionId) {
        let extra = core::mem::replace(&mut self.slots[id.index()].extra, NO_EXTRA);
        if extra != NO_EXTRA {
            self.extras[extra as usize] = Extra::default();
            self.free_extras.push(extra);
        }
    }

    fn drop_extra_if_done(&mut self, id: ConnectionId) {
        let done = |extra: &mut Extra| {
            extra.queue.is_empty()
                && extra.end == End::Open
                && !extra.starved
                && !extra.paused
                && !extra.resumed
                && extra.kept.is_empty()
        };
        if self.extra_of(id).is_some_and(done) {
            self.drop_extra(id);
        }
    }

    /// Writes behind what was written. Returns how many bytes were taken, copied already; when
    /// fewer than given, [`Kind::Writable`] tells when to go on. While bytes of
    /// [`Channel::write_owned`] wait, none are taken. What is written to a connection that has ended
    /// is lost, like what was on its way then: [`Kind::Closed`] tells, in this turn.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale, `BrokenPipe` after [`Channel::shutdown_write`].
    #[inline]
    pub fn write(&mut self, handle: Handle, data: &[u8]) -> io::Result<usize> {
        let id = self.live(handle)?;
        if self.slots[id.index()].extra != NO_EXTRA {
            let extra = self.extra(id);
            if extra.end != End::Open {
                return Err(ended());
            }
            if !extra.queue.is_empty() {
                return Ok(0);
            }
        }
        match self.stack.write(id, data) {
            Ok(written) if written == data.len() => Ok(written),
            Ok(written) => {
                self.note_short(id);
                Ok(written)
            }
            Err(_) if self.is_over(id) => Ok(data.len()),
            Err(error) => Err(error),
        }
    }

    /// Writes the bytes of `data` from `from` on, and keeps it until all of them are in the send
    /// buffer; [`Kind::Written`] tells when nothing waits any more. Returns how many bytes wait, 0
    /// when they fitted at once (and nothing is told).
    ///
    /// # Errors
    /// `WouldBlock` when [`crate::Config::write_queue`] bytes wait already: nothing of `data` is
    /// taken. As [`Channel::write`] otherwise.
    pub fn write_owned(&mut self, handle: Handle, data: Owned, from: usize) -> io::Result<usize> {
        let id = self.live(handle)?;
        let most = self.write_queue;
        let waiting = match self.extra_of(id) {
            Some(extra) if extra.end != End::Open => return Err(ended()),
            Some(extra) => extra.waiting,
            None => 0,
        };
        if waiting > 0 && waiting >= most {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{waiting} bytes wait for the peer already, and at most {most} may"),
            ));
        }
        let rest = (*data).as_ref().get(from..).unwrap_or_default();
        let left = rest.len();
        let written = if waiting == 0 { self.write(handle, rest)? } else { 0 };
        if written == left {
            return Ok(waiting);
        }
        let extra = self.extra(id);
        extra.queue.push_back((data, from + written));
        extra.waiting += left - written;
        Ok(extra.waiting)
    }

    /// Bytes that wait after [`Channel::write_owned`].
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn waiting(&self, handle: Handle) -> io::Result<usize> {
        let id = self.live(handle)?;
        let extra = self.extras.get(self.slots[id.index()].extra as usize);
        Ok(extra.map_or(0, |extra| extra.waiting))
    }

    /// Bytes that [`Channel::write`] would take now, if the arena has frames for them.
    ///
    /// # Errors
    /// As [`Channel::write`].
    pub fn write_room(&self, handle: Handle) -> io::Result<usize> {
        let id = self.live(handle)?;
        match self.waiting(handle)? {
            0 => self.stack.write_room(id),
            _ => Ok(0),
        }
    }

    /// Ends the connection's outgoing direction behind what was written and what waits.
    pub(crate) fn end_writing(&mut self, id: ConnectionId) -> io::Result<()> {
        match self.extra_of(id) {
            Some(extra) if extra.waiting > 0 => {
                extra.end = End::Shutdown;
                Ok(())
            }
            _ => self.stack.shutdown_write(id),
        }
    }

    /// Lets go of a connection; what waits is still sent, unless the connection has ended: then
    /// nothing will ever tell that it is over.
    pub(crate) fn close_connection(&mut self, id: ConnectionId) {
        let waits = self.extra_of(id).is_some_and(|extra| extra.waiting > 0);
        if !waits || self.is_over(id) {
            self.drop_slot(id);
            return self.stack.close(id);
        }
        let extra = self.extra(id);
        extra.end = End::Close;
        extra.orphan = Some(id);
        extra.paused = false;
        extra.kept = Ready::default();
        self.slots[id.index()].id = None;
        self.stack.orphan(id);
    }

    fn is_over(&self, id: ConnectionId) -> bool {
        self.stack.info(id).is_ok_and(|info| info.state == State::Closed)
    }

    /// Ends a connection with a reset; what waits is dropped.
    pub(crate) fn abort_connection(&mut self, id: ConnectionId) {
        self.drop_slot(id);
        self.stack.abort(id);
        self.stack.release(id);
    }

    /// Aborts the connections that were closed and still have bytes that wait.
    pub(crate) fn abort_orphans(&mut self) {
        for index in 0..self.extras.len() {
            if let Some(id) = self.extras[index].orphan {
                self.abort_connection(id);
            }
        }
    }

    /// Stops taking what comes in: it stays in the stack, whose window closes as it fills, and so
    /// the peer stops. What this turn has told already stays told. The end of a connection that
    /// failed is told all the same.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn pause(&mut self, handle: Handle) -> io::Result<()> {
        let id = self.live(handle)?;
        self.extra(id).paused = true;
        Ok(())
    }

    /// Takes again what comes in, beginning with what came meanwhile.
    ///
    /// # Errors
    /// `NotConnected` when the handle is stale.
    pub fn resume(&mut self, handle: Handle) -> io::Result<()> {
        let id = self.live(handle)?;
        if let Some(extra) = self.extra_of(id)
            && core::mem::take(&mut extra.paused)
        {
            self.read_next_turn(id);
        }
        Ok(())
    }

    /// There is more to be read than a turn may tell; what comes after it waits.
    #[cold]
    pub(crate) fn keep_reading(&mut self, id: ConnectionId, ready: &mut Ready) {
        let after = Ready::FINISHED.with(Ready::CLOSED);
        let extra = self.extra(id);
        for bit in [Ready::FINISHED, Ready::CLOSED] {
            if ready.has(bit) {
                extra.kept.set(bit);
            }
        }
        ready.clear(after);
        self.read_next_turn(id);
    }

    fn read_next_turn(&mut self, id: ConnectionId) {
        if !core::mem::replace(&mut self.extra(id).resumed, true) {
            self.resumed.push(id);
        }
    }

    /// Tells what came while connections were paused, or was too much for the last turn.
    pub(crate) fn tell_resumed(&mut self, batch: &mut Completions) {
        let count = self.resumed.len();
        for at in 0..count {
            let id = self.resumed[at];
            let Some(extra) = self.extra_of(id) else { continue };
            extra.resumed = false;
            if extra.paused || extra.orphan.is_some() {
                continue;
            }
            let mut kept = core::mem::take(&mut extra.kept);
            self.drop_extra_if_done(id);
            if !self.read(id, batch) {
                self.keep_reading(id, &mut kept);
            }
            if kept.has(Ready::FINISHED) {
                batch.push(self.completion(Kind::Finished, Handle::connection(id)));
            }
            if kept.has(Ready::CLOSED) {
                self.tell_closed(id, batch);
            }
        }
        self.resumed.drain(..count);
    }

    /// What a connection with an extra entry makes of an event. Returns what is left to tell.
    #[cold]
    pub(crate) fn special_event(
        &mut self,
        id: ConnectionId,
        mut ready: Ready,
        batch: &mut Completions,
    ) -> Ready {
        let failed = self.stack.failure(id).is_ok_and(|failure| failure.is_some());
        let Some(extra) = self.extra_of(id) else { return ready };
        let (orphan, queued) = (extra.orphan.is_some(), !extra.queue.is_empty());
        if ready.has(Ready::CLOSED) && orphan {
            self.drop_extra(id);
            self.stack.release(id);
            return Ready::default();
        }
        if extra.paused || extra.resumed {
            let mut hidden = Ready::READABLE.with(Ready::FINISHED);
            // What was received before a failure is told first, unless the application wants none.
            if !(failed && extra.paused) {
                hidden.set(Ready::CLOSED);
            }
            for bit in [Ready::FINISHED, Ready::CLOSED] {
                if ready.has(bit) && hidden.has(bit) {
                    extra.kept.set(bit);
                }
            }
            ready.clear(hidden);
        }
        if ready.has(Ready::WRITABLE) && queued {
            ready.clear(Ready::WRITABLE);
            self.send_waiting(id, batch);
        }
        if orphan { Ready::default() } else { ready }
    }

    /// Moves what waits to the send buffer, as far as there is room.
    fn send_waiting(&mut self, id: ConnectionId, batch: &mut Completions) {
        let index = self.slots[id.index()].extra as usize;
        let Some(extra) = self.extras.get_mut(index) else { return };
        while let Some((data, sent)) = extra.queue.front_mut() {
            let rest = (**data).as_ref().get(*sent..).unwrap_or_default();
            let Ok(written) = self.stack.write(id, rest) else {
                // Over; that is told by itself.
                extra.queue.clear();
                extra.waiting = 0;
                return;
            };
            extra.waiting = extra.waiting.saturating_sub(written);
            if written < rest.len() {
                *sent += written;
                return self.note_short(id);
            }
            extra.queue.pop_front();
        }
        extra.waiting = 0;
        let end = core::mem::take(&mut extra.end);
        if end == End::Close {
            self.drop_extra(id);
            return self.stack.close(id);
        }
        if end == End::Shutdown {
            // Only a stale id fails.
            let _ = self.stack.shutdown_write(id);
        }
        batch.push(self.completion(Kind::Written, Handle::connection(id)));
        self.drop_extra_if_done(id);
    }

    /// A write was short. Where the send buffer has room it was for want of frames: nothing of
    /// this connection may be on its way, so nobody would tell when there are frames again.
    #[cold]
    fn note_short(&mut self, id: ConnectionId) {
        if self.stack.write_room(id).is_ok_and(|room| room > 0) {
            self.counters.writes_starved += 1;
            if !core::mem::replace(&mut self.extra(id).starved, true) {
                self.forget_starved_that_ended();
                self.starved.push_back(id);
            }
        }
    }

    /// Those that wait stay in the list when they end. While there are no frames nobody looks at it,
    /// and it must not grow by all that come and go meanwhile.
    fn forget_starved_that_ended(&mut self) {
        if self.starved.len() >= self.slots.len() {
            let mut starved = core::mem::take(&mut self.starved);
            starved.retain(|&id| self.extra_of(id).is_some_and(|extra| extra.starved));
            self.starved = starved;
        }
    }

    /// Goes on with the connections that found no frame, in turn.
    pub(crate) fn feed_starved(&mut self, batch: &mut Completions) {
        let reserve = self.stack.config().frame_reserve as usize;
        for _ in 0..self.starved.len() {
            if self.stack.arena().free() <= reserve {
                return;
            }
            let Some(id) = self.starved.pop_front() else { return };
            let Some(extra) = self.extra_of(id) else { continue };
            extra.starved = false;
            if extra.queue.is_empty() {
                batch.push(self.completion(Kind::Writable, Handle::connection(id)));
                self.drop_extra_if_done(id);
            } else {
                self.send_waiting(id, batch);
            }
        }
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection takes no more data")
}

#[cfg(test)]
mod tests {
    use millrace_port::Port;
    use millrace_port::memory::{WireConfig, wire};

    use super::*;
    use crate::Config;

    #[test]
    fn connections_that_end_while_there_are_no_frames_are_forgotten() {
        let mut config = Config::new("192.0.2.1/24".parse().unwrap());
        config.frames = 64;
        config.stack.frame_reserve = 16;
        config.stack.connections = 8;
        let (port, _peer) = wire(WireConfig::default());
        let arena = config.arena(port.capabilities().mtu).unwrap();
        let mut channel = Channel::new(Box::new(port), arena, &config).unwrap();
        let peer = "192.0.2.2:80".parse().unwrap();
        let data = || Box::new(vec![0; 1 << 20]);
        let first = channel.connect(peer, None).unwrap();
        channel.write_owned(first, data(), 0).unwrap();
        for _ in 0..100 {
            let next = channel.connect(peer, None).unwrap();
            channel.write_owned(next, data(), 0).unwrap();
            channel.abort(next);
            assert!(channel.starved.len() <= 9, "{}", channel.starved.len());
        }
        assert!(channel.counters().writes_starved > 100);
    }
}
