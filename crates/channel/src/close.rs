//! The end of a channel: connections, port, frames.

use core::time::Duration;
use std::io;

use millrace_port::clock;

use crate::completion::Completions;
use crate::{Channel, Wake};

/// Connections that are aborted between two calls of the port: the resets wait in a bounded queue.
const ABORTS_AT_ONCE: usize = 128;
/// How often a port that is full of the last resets is asked again.
const LAST_TRIES: usize = 64;

impl Channel {
    /// Closes listeners, sockets and connections, then the port. For as long as `flush`, what was
    /// written is still delivered; what is left then is reset. Returns how many frames are still
    /// out: those that readers hold. A second call does nothing, and neither does one in a child that
    /// fork(2) made: the connections are its parent's.
    ///
    /// # Errors
    /// What the port said while flushing; it is closed all the same.
    pub fn close(&mut self, flush: Duration) -> io::Result<usize> {
        if self.closed {
            return Ok(0);
        }
        if !self.owner.is_here() {
            self.closed = true;
            return Ok(0);
        }
        let flushed = self.flush(flush);
        self.closed = true;
        self.stop_watch();
        self.port.close(self.stack.arena_mut());
        self.stack.arena_mut().collect_held();
        flushed?;
        Ok(self.total_frames() - self.free_frames())
    }

    fn flush(&mut self, time: Duration) -> io::Result<()> {
        for listener in core::mem::take(&mut self.listeners) {
            self.stack.close_listener(listener);
        }
        for socket in core::mem::take(&mut self.sockets) {
            self.stack.close_datagram(socket);
        }
        let mut batch = Completions::new();
        self.begin(&mut batch);
        let mut result = Ok(());
        if !time.is_zero() {
            for index in 0..self.slots.len() {
                if let Some(id) = self.slots[index].id {
                    self.close_connection(id);
                }
            }
            result = self.deliver(time, &mut batch);
        }
        result.and(self.reset_all())
    }

    /// Goes on until no connection has anything to deliver, or the time is over.
    fn deliver(&mut self, time: Duration, batch: &mut Completions) -> io::Result<()> {
        let idle = |channel: &Channel| {
            channel.stack.connections() == channel.stack.time_wait_connections()
        };
        self.now = clock::now();
        let end = self.now + time;
        while !idle(self) {
            match self.run(batch, Some(end), idle)? {
                Wake::Work | Wake::Bell => self.begin(batch),
                Wake::Timeout | Wake::Signal | Wake::Exhausted => break,
            }
        }
        Ok(())
    }

    fn reset_all(&mut self) -> io::Result<()> {
        self.abort_orphans();
        let mut result = Ok(());
        let mut aborted = 0;
        for index in 0..self.slots.len() {
            if let Some(id) = self.slots[index].id {
                self.abort_connection(id);
                aborted += 1;
                if aborted % ABORTS_AT_ONCE == 0 && result.is_ok() {
                    result = self.send_last();
                }
            }
        }
        while self.stack.abort_some(ABORTS_AT_ONCE) && result.is_ok() {
            result = self.send_last();
        }
        self.stack.dhcp_release();
        result = result.and_then(|()| self.send_last());
        self.drop_unsent();
        self.stack.drop_waiting();
        result
    }

    fn send_last(&mut self) -> io::Result<()> {
        self.now = clock::now();
        for _ in 0..LAST_TRIES {
            self.transmit()?;
            if !self.stalled {
                break;
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.close(Duration::ZERO);
    }
}
