//! A raw port that several threads may use: who waits for packets holds no lock that a sender
//! needs.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_frames::Instant;
use millrace_packets::loops::Done;
use millrace_packets::{Batch, RawPort};
use millrace_port::wait::{self, Bell, Wake};
use millrace_port::{Wait, clock};

/// How long a sleep may be. An interface that vanishes does not wake who sleeps on AF_XDP.
const LOOK: Duration = Duration::from_millis(200);

pub(super) struct Shared {
    /// Held by a receiver for the whole of its wait, so that two of them do not share a sleep, and
    /// so that closing can wait for it.
    receiving: Mutex<()>,
    /// The same for a sender that waits for room.
    sending: Mutex<()>,
    raw: Mutex<RawPort>,
    /// Threads that wait for `raw`; a receiver that spins lets them in.
    contenders: AtomicU32,
    closed: AtomicBool,
    bell: Bell,
}

/// How to receive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Most packets of a batch.
    pub(super) limit: usize,
    /// How long a batch that is not full waits for more packets.
    pub(super) linger: Duration,
    /// What to do while there is nothing.
    pub(super) wait: Wait,
}

/// How a wait for packets ended.
pub(super) enum Received {
    Batch(Batch),
    /// There is nothing yet.
    Nothing,
    /// There will be nothing any more.
    End,
}

impl Shared {
    pub(super) fn new(raw: RawPort) -> io::Result<Shared> {
        Ok(Shared {
            receiving: Mutex::new(()),
            sending: Mutex::new(()),
            raw: Mutex::new(raw),
            contenders: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            bell: Bell::new()?,
        })
    }

    /// The port, for one short piece of work.
    pub(super) fn raw(&self) -> MutexGuard<'_, RawPort> {
        self.contenders.fetch_add(1, Ordering::Relaxed);
        let raw = lock(&self.raw);
        self.contenders.fetch_sub(1, Ordering::Relaxed);
        raw
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Receives what there is, or waits for at most `timeout` for something, until the port is
    /// closed, or a signal came.
    pub(super) fn receive(
        &self,
        manner: Manner,
        timeout: Option<Duration>,
    ) -> io::Result<Received> {
        let _turn = lock(&self.receiving);
        let begun = clock::now();
        let end = timeout.map(|timeout| begun + timeout);
        loop {
            if self.is_closed() {
                return Ok(Received::End);
            }
            let mut raw = lock(&self.raw);
            let count = raw.gather(manner.limit)?;
            if count > 0 {
                if count < manner.limit && !manner.linger.is_zero() && !raw.exhausted() {
                    drop(raw);
                    self.linger(manner.linger, end)?;
                    raw = lock(&self.raw);
                    raw.gather(manner.limit)?;
                }
                if let Some(batch) = raw.take() {
                    return Ok(Received::Batch(batch));
                }
                continue;
            }
            if raw.exhausted() {
                return Ok(Received::End);
            }
            let now = clock::now();
            if end.is_some_and(|end| now >= end) {
                return Ok(Received::Nothing);
            }
            let spins = match manner.wait {
                Wait::Spin => true,
                Wait::Sleep => false,
                Wait::SpinThenSleep(time) => now < begun + time,
            };
            if spins {
                drop(raw);
                core::hint::spin_loop();
                self.let_others_in();
                continue;
            }
            let Some(armed) = raw.arm(now) else { continue };
            drop(raw);
            let deadline =
                [end, armed.arrival].into_iter().flatten().fold(now + LOOK, Instant::min);
            match wait::poll(&armed.fds, &self.bell, now, Some(deadline))? {
                Wake::Arrival | Wake::Deadline | Wake::Bell => {}
                Wake::Signal => return Ok(Received::Nothing),
            }
        }
    }

    /// Lets more packets come. What the bell says is looked at by the caller.
    fn linger(&self, time: Duration, end: Option<Instant>) -> io::Result<()> {
        let now = clock::now();
        let until = now + time;
        let until = end.map_or(until, |end| end.min(until));
        wait::poll(&[], &self.bell, now, Some(until)).map(|_| ())
    }

    /// Calls `send` until it has taken everything or `timeout` is over, and waits for room in
    /// between. `send` is told how many were taken before; returns how many were taken.
    pub(super) fn send(
        &self,
        count: usize,
        timeout: Duration,
        mut send: impl FnMut(&mut RawPort, usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let _turn = lock(&self.sending);
        let end = clock::now() + timeout;
        let mut taken = 0;
        loop {
            let fd = {
                let mut raw = self.raw();
                if self.is_closed() {
                    return if taken > 0 { Ok(taken) } else { Err(closed(&raw)) };
                }
                match send(&mut raw, taken) {
                    Ok(more) => taken += more,
                    Err(error) if taken == 0 => return Err(error),
                    // It is said by the next call.
                    Err(error) => {
                        raw.put_off(error);
                        return Ok(taken);
                    }
                }
                raw.fd()
            };
            let now = clock::now();
            if taken >= count || now >= end {
                return Ok(taken);
            }
            match fd {
                Some(fd) => match wait::poll_writable(fd, now, end)? {
                    Wake::Signal => return Ok(taken),
                    _ => std::thread::yield_now(),
                },
                None => std::thread::yield_now(),
            }
        }
    }

    /// Runs a loop on the port that ends when the port is closed.
    pub(super) fn drive<T>(
        &self,
        work: impl FnOnce(&mut RawPort, &Bell, &AtomicBool) -> io::Result<T>,
    ) -> io::Result<T> {
        let _receiver = lock(&self.receiving);
        let _sender = lock(&self.sending);
        self.let_others_in();
        work(&mut lock(&self.raw), &self.bell, &self.closed)
    }

    /// As [`Shared::drive`], on this port and another one.
    pub(super) fn drive_both(
        &self,
        other: &Shared,
        work: impl FnOnce(&mut RawPort, &mut RawPort, &Bell, &AtomicBool) -> io::Result<Done>,
    ) -> io::Result<Done> {
        // In one order for all, so that two loops over the same two ports wait for one another.
        let (low, high) = match core::ptr::from_ref(self) < core::ptr::from_ref(other) {
            true => (self, other),
            false => (other, self),
        };
        let _receivers = (lock(&low.receiving), lock(&high.receiving));
        let _senders = (lock(&low.sending), lock(&high.sending));
        self.let_others_in();
        other.let_others_in();
        let (mut low_raw, mut high_raw) = (lock(&low.raw), lock(&high.raw));
        if other.is_closed() {
            return Err(closed(if core::ptr::eq(low, other) { &low_raw } else { &high_raw }));
        }
        let (first, second) = match core::ptr::eq(low, self) {
            true => (&mut *low_raw, &mut *high_raw),
            false => (&mut *high_raw, &mut *low_raw),
        };
        work(first, second, &self.bell, &self.closed)
    }

    /// Waits until nobody waits for the port for a short piece of work.
    fn let_others_in(&self) {
        while self.contenders.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
    }

    /// Closes the port once nobody waits on it.
    pub(super) fn close(&self) -> io::Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.bell.ring();
        let _receiver = lock(&self.receiving);
        let _sender = lock(&self.sending);
        self.raw().close()
    }
}

/// The error of a port that was closed.
pub(super) fn closed(raw: &RawPort) -> io::Error {
    let capabilities = raw.capabilities();
    let text = format!("the port {}:{} is closed", capabilities.kind, capabilities.name);
    io::Error::new(io::ErrorKind::NotConnected, text)
}

/// What a panic elsewhere left is whole: a port's calls change one thing at a time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
