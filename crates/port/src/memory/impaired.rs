//! An impaired direction: a [`DelayLine`] behind a lock that each side takes once a burst.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_frames::{Arena, Instant, RxBatch, TxBatch};

use super::delay_line::{DelayLine, Fate};
use super::{Counters, Limits};
use crate::impair;
use crate::wait::Bell;

/// Both ends of a direction.
pub(super) fn direction(line: DelayLine, bell: Bell) -> (Sender, Receiver) {
    let direction = Arc::new(Direction {
        state: Mutex::new(State {
            line,
            sleeping: false,
            rung: false,
            receiver_gone: false,
            full: 0,
        }),
        earliest: AtomicU64::new(NOTHING),
        sender_gone: AtomicBool::new(false),
        bell,
    });
    let receiver = Receiver {
        direction: Arc::clone(&direction),
        armed: false,
        promised: Cell::new(NOTHING),
        knows_it_left: false,
    };
    (Sender(direction), receiver)
}

#[derive(Debug)]
struct Direction {
    state: Mutex<State>,
    /// When the next packet arrives, [`NOTHING`] when there is none: what an idle receiver looks
    /// at instead of taking the lock. Written under the lock.
    earliest: AtomicU64,
    /// Written after the sender's last packet.
    sender_gone: AtomicBool,
    /// Rung, under the lock, when a packet is sent to a receiver that sleeps.
    bell: Bell,
}

const NOTHING: u64 = u64::MAX;

#[derive(Debug)]
struct State {
    line: DelayLine,
    /// The receiver is about to sleep or does.
    sleeping: bool,
    /// The bell was rung and not yet silenced.
    rung: bool,
    receiver_gone: bool,
    /// Packets that found no room on the wire.
    full: u64,
}

impl Direction {
    /// The lock guards plain data that is whole between any two statements, so a panic of the
    /// other thread (on a bad frame of its own) spoils nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: &State) {
        let earliest = state.line.earliest().map_or(NOTHING, Instant::as_nanos);
        self.earliest.store(earliest, Ordering::Relaxed);
    }

    fn wake(&self, state: &mut State) -> bool {
        let wake = core::mem::take(&mut state.sleeping);
        if wake {
            state.rung = true;
            self.bell.ring();
        }
        wake
    }
}

#[derive(Debug)]
pub(super) struct Sender(Arc<Direction>);

impl Sender {
    /// Puts the packets of `batch` on the line, or drops them.
    pub(super) fn transmit(
        &self,
        now: Instant,
        arena: &mut Arena,
        batch: &TxBatch,
        limits: &Limits,
        counters: &mut Counters,
    ) {
        let mut state = self.0.lock();
        for packet in batch.iter() {
            if state.receiver_gone {
                counters.tx_no_carrier += 1;
            } else if limits.admit(packet, counters) {
                match state.line.push(now, arena, packet) {
                    Fate::Lost => counters.tx_lost += 1,
                    Fate::QueueFull => counters.tx_queue_full += 1,
                    fate @ (Fate::Sent | Fate::WireFull) => {
                        state.full += u64::from(fate == Fate::WireFull);
                        counters.sent(packet);
                    }
                }
            }
            arena.transmitted(packet);
        }
        self.0.publish(&state);
        counters.system_calls += u64::from(self.0.wake(&mut state));
    }

    pub(super) fn counters(&self) -> impair::Counters {
        self.0.lock().line.counters()
    }

    pub(super) fn leave(&self) {
        self.0.sender_gone.store(true, Ordering::Release);
        let mut state = self.0.lock();
        self.0.wake(&mut state);
    }
}

#[derive(Debug)]
pub(super) struct Receiver {
    direction: Arc<Direction>,
    /// Whether the sender was told that we sleep.
    armed: bool,
    /// The arrival that the user was last told to wake up for.
    promised: Cell<u64>,
    /// Whether [`Receiver::arm`] has taken note that the sender has left.
    knows_it_left: bool,
}

impl Receiver {
    /// Receives what has arrived by `now`.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        arena: &mut Arena,
        batch: &mut RxBatch,
        counters: &mut Counters,
    ) {
        let due = self.direction.earliest.load(Ordering::Relaxed) <= now.as_nanos();
        if !self.armed && (!due || batch.is_full()) {
            return;
        }
        let mut state = self.direction.lock();
        if core::mem::take(&mut self.armed) {
            state.sleeping = false;
        }
        for _ in 0..batch.room() {
            let Some((record, bytes)) = state.line.pop(now) else {
                break;
            };
            counters.arrived(record, bytes, arena, batch);
        }
        self.direction.publish(&state);
    }

    /// See [`crate::Port::arm`].
    pub(super) fn arm(&mut self, now: Instant, counters: &mut Counters) -> bool {
        let mut state = self.direction.lock();
        let earliest = state.line.earliest().map_or(NOTHING, Instant::as_nanos);
        // A packet that was sent after the user asked for `next_arrival` would be slept through,
        // and a sender that has left since the user asked wakes nobody any more.
        let sent = self.promised.replace(earliest) != earliest && earliest != NOTHING;
        let left = self.direction.sender_gone.load(Ordering::Acquire);
        let left = left && !core::mem::replace(&mut self.knows_it_left, left);
        if earliest <= now.as_nanos() || sent || left {
            return false;
        }
        if core::mem::take(&mut state.rung) {
            self.direction.bell.silence();
            counters.system_calls += 1;
        }
        state.sleeping = true;
        self.armed = true;
        true
    }

    pub(super) fn next_arrival(&self) -> Option<Instant> {
        let earliest = self.direction.earliest.load(Ordering::Relaxed);
        self.promised.set(earliest);
        (earliest != NOTHING).then(|| Instant::from_nanos(earliest))
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.direction.bell
    }

    pub(super) fn exhausted(&self) -> bool {
        self.direction.sender_gone.load(Ordering::Acquire)
            && self.direction.earliest.load(Ordering::Relaxed) == NOTHING
    }

    /// Packets that found no room.
    pub(super) fn full(&self) -> u64 {
        let state = self.direction.lock();
        state.full + state.line.duplicates_dropped()
    }

    pub(super) fn leave(&self) {
        self.direction.lock().receiver_gone = true;
    }
}
