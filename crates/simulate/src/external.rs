//! Connections that the scenario itself drives: what it writes is taken whole and goes on as the
//! stack has room; what happens is told in notices.

use std::collections::VecDeque;

use millrace_frames::Owners;
use millrace_stack::{ConnectionId, ConnectionInfo, Failure, Ready, Stack, TcpInfo};

/// A connection of the scenario's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExternalId(pub u32);

/// Something that the scenario must know.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A listener has a new connection.
    Accepted {
        /// The handler's number, given to `listen`.
        handler: u32,
        /// The connection.
        connection: ExternalId,
    },
    /// A connection that was opened is established.
    Connected(ExternalId),
    /// Bytes came in.
    Data(ExternalId, Vec<u8>),
    /// Nothing that was written waits for room any more.
    Drained(ExternalId),
    /// The peer sends no more.
    Finished(ExternalId),
    /// The connection is over, in order or by a failure.
    Closed(ExternalId, Option<Failure>),
    /// The time has come that this number was asked for.
    Call(u64),
}

#[derive(Debug)]
pub(crate) struct External {
    pub(crate) host: u32,
    pub(crate) id: Option<ConnectionId>,
    /// A look at it when it was over.
    pub(crate) last: Option<(ConnectionInfo, TcpInfo)>,
    connected: bool,
    outgoing: VecDeque<u8>,
    waiting: bool,
    shutting: bool,
    closing: bool,
    paused: bool,
    finished_told: bool,
}

/// What a stack knows of a connection, in its own words and in Linux's.
pub(crate) fn look(stack: &Stack, id: ConnectionId) -> Option<(ConnectionInfo, TcpInfo)> {
    Some((stack.info(id).ok()?, stack.tcp_info(id).ok()?))
}

impl External {
    pub(crate) fn new(host: u32, id: ConnectionId, connected: bool) -> External {
        External {
            host,
            id: Some(id),
            last: None,
            connected,
            outgoing: VecDeque::new(),
            waiting: false,
            shutting: false,
            closing: false,
            paused: false,
            finished_told: false,
        }
    }

    pub(crate) fn hear(
        &mut self,
        number: ExternalId,
        stack: &mut Stack,
        ready: Ready,
        notices: &mut VecDeque<Notice>,
    ) {
        if self.id.is_none() {
            return;
        }
        if ready.has(Ready::CONNECTED) && !self.connected {
            self.connected = true;
            if !self.closing {
                notices.push_back(Notice::Connected(number));
            }
        }
        self.work(number, stack, notices);
        if ready.has(Ready::CLOSED) {
            // What is there is told before the end, paused or not.
            self.paused = false;
            self.work(number, stack, notices);
            // One that was to be closed is so by now, and was looked at.
            let Some(id) = self.id.take() else { return };
            let failure = stack.failure(id).ok().flatten();
            self.last = look(stack, id);
            stack.release(id);
            notices.push_back(Notice::Closed(number, failure));
        }
    }

    /// Reads, writes and closes what can be.
    pub(crate) fn work(
        &mut self,
        number: ExternalId,
        stack: &mut Stack,
        notices: &mut VecDeque<Notice>,
    ) {
        let Some(id) = self.id else { return };
        if !self.paused && !self.closing {
            self.read(number, id, stack, notices);
        }
        while !self.outgoing.is_empty() && self.connected {
            let (first, _) = self.outgoing.as_slices();
            match stack.write(id, first) {
                Ok(taken) => {
                    let all = taken == first.len();
                    self.outgoing.drain(..taken);
                    if !all {
                        break;
                    }
                }
                Err(_) => {
                    self.outgoing.clear();
                    break;
                }
            }
        }
        if self.outgoing.is_empty() {
            if core::mem::take(&mut self.waiting) && !self.closing {
                notices.push_back(Notice::Drained(number));
            }
            if self.closing {
                self.last = look(stack, id);
                self.id = None;
                stack.close(id);
            } else if core::mem::take(&mut self.shutting) {
                let _ = stack.shutdown_write(id);
            }
        }
    }

    fn read(
        &mut self,
        number: ExternalId,
        id: ConnectionId,
        stack: &mut Stack,
        notices: &mut VecDeque<Notice>,
    ) {
        let mut data = Vec::new();
        while let Ok(Some(frame)) = stack.read(id) {
            data.extend_from_slice(stack.arena().bytes(frame));
            stack.arena_mut().release(frame, Owners::RECEIVED);
        }
        if !data.is_empty() {
            notices.push_back(Notice::Data(number, data));
        }
        if !self.finished_told && stack.finished(id).is_ok_and(|finished| finished) {
            self.finished_told = true;
            notices.push_back(Notice::Finished(number));
        }
    }

    pub(crate) fn write(&mut self, data: &[u8]) {
        self.outgoing.extend(data);
        self.waiting = true;
    }

    pub(crate) fn shut(&mut self) {
        self.shutting = true;
    }

    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    pub(crate) fn abort(&mut self, stack: &mut Stack) {
        if let Some(id) = self.id.take() {
            self.last = look(stack, id);
            stack.abort(id);
            stack.release(id);
        }
    }

    /// Bytes written that wait for room in the stack.
    pub(crate) fn waiting(&self) -> usize {
        self.outgoing.len()
    }

    /// Nobody writes, closes or shuts after this, so it may not be done twice.
    pub(crate) fn ends_writing(&self) -> bool {
        self.shutting || self.closing
    }
}
