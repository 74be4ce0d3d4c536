//! One side of a conversation at work: an application that writes, reads, closes and aborts, and
//! that knows of each byte it receives which one it should be.

use millrace_frames::{Duration, Instant, Owners};
use millrace_stack::{ConnectionId, Ready, Stack, State};

use crate::content::Content;
use crate::conversation::{Behaviour, Exchange, Manner, Pace, SideReport};
use crate::random::Dice;

/// Bytes offered to the stack at once by an eager side.
const WRITE: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: u32,
    pub(crate) conversation: u32,
    /// 0: the client, 1: the server.
    pub(crate) side: u8,
    pub(crate) id: Option<ConnectionId>,
    pub(crate) behaviour: Behaviour,
    exchange: Option<Exchange>,
    dice: Dice,
    pub(crate) report: SideReport,
    shut: bool,
    readable: bool,
    writable: bool,
    /// When it looks again.
    look: Option<Instant>,
    /// When the world will call [`Endpoint::act`] without an event.
    pub(crate) scheduled: Option<Instant>,
    /// Requests that were answered.
    answered: u64,
    asked_at: Option<Instant>,
    resume_at: Instant,
    pub(crate) latencies: Vec<Duration>,
    /// What should never happen, and did.
    pub(crate) wrong: Option<String>,
    /// When it last read or wrote a byte, or heard of its connection.
    pub(crate) moved: Instant,
}

impl Endpoint {
    pub(crate) fn new(
        host: u32,
        conversation: u32,
        side: u8,
        behaviour: Behaviour,
        exchange: Option<Exchange>,
        dice: Dice,
    ) -> Endpoint {
        Endpoint {
            host,
            conversation,
            side,
            id: None,
            behaviour,
            exchange,
            dice,
            report: SideReport::default(),
            shut: false,
            readable: false,
            writable: false,
            look: None,
            scheduled: None,
            answered: 0,
            asked_at: None,
            resume_at: Instant::ZERO,
            latencies: Vec::new(),
            wrong: None,
            moved: Instant::ZERO,
        }
    }

    pub(crate) fn over(&self) -> bool {
        self.report.ended.is_some()
    }

    fn stream(&self, side: u8) -> u64 {
        u64::from(self.conversation) * 2 + u64::from(side)
    }

    fn fail(&mut self, what: impl FnOnce(&Endpoint) -> String) {
        if self.wrong.is_none() {
            self.wrong = Some(what(self));
        }
    }

    /// Options of a connection that was just made.
    pub(crate) fn set_up(&mut self, stack: &mut Stack, id: ConnectionId) {
        self.id = Some(id);
        stack.set_no_delay(id, self.behaviour.no_delay).expect("a connection just made");
        if self.behaviour.linger.is_some() {
            stack.set_linger(id, self.behaviour.linger).expect("a connection just made");
        }
    }

    /// Takes what the stack tells.
    pub(crate) fn hear(
        &mut self,
        stack: &mut Stack,
        content: &Content,
        now: Instant,
        ready: Ready,
    ) {
        let Some(id) = self.id else { return };
        self.moved = now;
        if ready.has(Ready::CONNECTED) {
            self.report.connected = Some(now);
            self.writable = true;
            if self.behaviour.manner == Manner::Deaf {
                let _ = stack.shutdown_read(id);
            }
        }
        self.readable |= ready.has(Ready::READABLE);
        self.writable |= ready.has(Ready::WRITABLE);
        if ready.has(Ready::FINISHED) {
            if stack.finished(id).ok() != Some(true) {
                self.fail(|_| "FINISHED was told before the end".into());
            }
            self.readable = true;
        }
        if ready.has(Ready::CLOSED) {
            let Ok(info) = stack.info(id) else { return };
            if !matches!(info.state, State::Closed | State::TimeWait) {
                self.fail(|_| format!("CLOSED was told in state {}", info.state.name()));
            }
            self.report.failure = stack.failure(id).ok().flatten();
            self.take(stack, content, now, u32::MAX);
            let manner = self.behaviour.manner;
            let polite = manner.is_polite() || manner == Manner::Deaf;
            if polite && self.report.failure.is_none() && !self.report.finished {
                self.fail(|_| "closed in order, but without the other side's end".into());
            }
            self.let_go(stack, now);
        }
    }

    /// The connection is over, or given up: releases it.
    fn let_go(&mut self, stack: &mut Stack, now: Instant) {
        let Some(id) = self.id.take() else { return };
        self.report.info = stack.info(id).ok();
        stack.release(id);
        self.report.ended = Some(now);
    }

    /// Gives the connection up.
    pub(crate) fn abort(&mut self, stack: &mut Stack, now: Instant) {
        if let Some(id) = self.id {
            self.report.let_go = true;
            self.report.info = stack.info(id).ok();
            stack.abort(id);
        }
        self.let_go(stack, now);
    }

    /// Reads at most `frames` frames.
    fn take(&mut self, stack: &mut Stack, content: &Content, now: Instant, frames: u32) {
        let Some(id) = self.id else { return };
        let stream = self.stream(1 - self.side);
        for _ in 0..frames {
            let Ok(Some(frame)) = stack.read(id) else {
                self.readable = false;
                break;
            };
            let bytes = stack.arena().bytes(frame);
            let mismatch = content.mismatch(stream, self.report.received, bytes);
            self.report.received += bytes.len() as u64;
            stack.arena_mut().release(frame, Owners::RECEIVED);
            if let Some(at) = mismatch {
                self.fail(|_| format!("byte {at} is not the one that was written"));
            }
            self.report.first_byte.get_or_insert(now);
            self.report.last_byte = Some(now);
            self.moved = now;
        }
        self.note_answers(now);
        let end = stack.finished(id).is_ok_and(|finished| finished);
        if end && stack.info(id).is_ok_and(|info| info.receive_queue == 0) {
            self.report.finished = true;
        }
    }

    fn note_answers(&mut self, now: Instant) {
        let Some(exchange) = self.exchange.filter(|_| self.side == 0) else { return };
        let answered = self.report.received / u64::from(exchange.response);
        if answered > self.answered {
            self.answered = answered;
            self.resume_at = now + exchange.think;
            self.latencies.extend(self.asked_at.take().map(|asked| now - asked));
        }
    }

    /// How many bytes may be written so far, in all.
    fn allowance(&mut self, now: Instant) -> u64 {
        let over =
            |end: Duration, from: Option<Instant>| from.is_some_and(|from| now >= from + end);
        if self.behaviour.writes_for.is_some_and(|end| over(end, self.report.connected)) {
            self.behaviour.bytes = self.report.written;
        }
        let Some(exchange) = self.exchange else { return self.behaviour.bytes };
        let (request, response) = (u64::from(exchange.request), u64::from(exchange.response));
        let allowed = if self.side == 1 {
            self.report.received / request * response
        } else {
            let answered = self.answered;
            if now < self.resume_at { answered * request } else { (answered + 1) * request }
        };
        allowed.min(self.behaviour.bytes)
    }

    /// Writes up to `most` bytes.
    fn put(&mut self, stack: &mut Stack, content: &Content, most: usize, now: Instant) -> bool {
        let Some(id) = self.id else { return false };
        let left = self.allowance(now).saturating_sub(self.report.written);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(most);
        if most == 0 || !self.writable {
            return false;
        }
        if self.exchange.is_some() {
            self.asked_at.get_or_insert(now);
        }
        let data = content.at(self.stream(self.side), self.report.written, most);
        match stack.write(id, data) {
            Ok(taken) => {
                self.report.written += taken as u64;
                if taken > 0 {
                    self.moved = now;
                }
                self.writable = taken == data.len();
            }
            // It ended under us; CLOSED says how.
            Err(_) => self.writable = false,
        }
        self.writable
    }

    /// One turn of the application. Returns when it wants another without being told anything.
    pub(crate) fn act(
        &mut self,
        stack: &mut Stack,
        content: &Content,
        now: Instant,
    ) -> Option<Instant> {
        self.id?;
        if self.behaviour.manner == Manner::Fickle && self.side == 0 {
            self.close(stack, now);
            return None;
        }
        self.report.connected?;
        if let Manner::Rude(after) = self.behaviour.manner
            && self.report.written + self.report.received >= after
        {
            self.abort(stack, now);
            return None;
        }
        match self.behaviour.pace {
            Pace::Eager => {
                if self.readable {
                    self.take(stack, content, now, u32::MAX);
                }
                while self.put(stack, content, WRITE, now) {}
            }
            Pace::Lazy { pause, frames, bytes } => {
                if self.look.is_some_and(|look| look > now) {
                    return None;
                }
                if self.dice.happens(0.6) {
                    let frames = self.dice.below(u64::from(frames) + 1) as u32;
                    self.take(stack, content, now, frames);
                }
                if self.dice.happens(0.6) {
                    let bytes = 1 + self.dice.below(u64::from(bytes)) as usize;
                    self.put(stack, content, bytes, now);
                }
                if self.readable || (self.writable && self.report.written < self.allowance(now)) {
                    let pause = 1 + self.dice.below(pause.as_nanos() as u64);
                    self.look = Some(now + Duration::from_nanos(pause));
                }
            }
        }
        self.finish(stack, now);
        self.id?;
        self.next_look(now)
    }

    fn finish(&mut self, stack: &mut Stack, now: Instant) {
        let Some(id) = self.id else { return };
        if self.report.written == self.behaviour.bytes && !self.shut {
            self.shut = true;
            if self.behaviour.manner == Manner::Hasty {
                return self.close(stack, now);
            }
            if let Err(error) = stack.shutdown_write(id) {
                self.fail(|_| format!("shutdown_write: {error}"));
            }
        }
        if self.shut && self.report.finished && self.behaviour.manner != Manner::Patient {
            self.close(stack, now);
        }
    }

    fn close(&mut self, stack: &mut Stack, now: Instant) {
        let Some(id) = self.id.take() else { return };
        self.report.info = stack.info(id).ok();
        self.report.let_go = true;
        self.report.ended = Some(now);
        stack.close(id);
    }

    /// When there is something to do that nothing will tell of.
    fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let stop = match (self.behaviour.writes_for, self.report.connected) {
            (Some(time), Some(connected)) if !self.shut => Some(connected + time),
            _ => None,
        };
        let more = self.report.written < self.behaviour.bytes;
        let resume = (self.side == 0 && more && self.resume_at > now).then_some(self.resume_at);
        [self.look, stop, resume].into_iter().flatten().filter(|&at| at > now).min()
    }
}
