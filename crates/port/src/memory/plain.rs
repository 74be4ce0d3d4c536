//! An unimpaired direction: packets in a pipe without a lock, each there as soon as it is sent.

use millrace_frames::pipe::{Consumer, Producer, Record, pipe};
use millrace_frames::{Arena, ChecksumState, Instant, RxBatch, Transmit, TxBatch};

use super::{Counters, Limits, record};
use crate::copy;
use crate::wait::Bell;

/// Both ends of a direction for `packets` packets of at most `longest` bytes, and for `more` bytes
/// of longer ones, for which the pipe's size has been found to be within bounds.
pub(super) fn direction(
    packets: usize,
    longest: u32,
    more: usize,
    bell: Bell,
) -> (Sender, Receiver) {
    let (producer, consumer) = pipe(packets, longest, more);
    let sender = Sender { pipe: producer, bell: bell.clone() };
    (sender, Receiver { pipe: consumer, bell, armed: false, rung: false })
}

#[derive(Debug)]
pub(super) struct Sender {
    pipe: Producer,
    bell: Bell,
}

impl Sender {
    /// Puts a lone packet into the pipe, by the shortest way. False: nothing was done, and
    /// [`Sender::transmit`] is to be asked.
    #[inline(always)]
    pub(super) fn transmit_one(
        &mut self,
        packet: &Transmit,
        now: Instant,
        arena: &mut Arena,
        limits: &Limits,
        counters: &mut Counters,
    ) -> bool {
        let ordinary = packet.gso_size | packet.checksum_start == 0;
        if !ordinary || packet.total > limits.largest || !self.pipe.begin() {
            return false;
        }
        let checksum = ChecksumState::Unknown;
        let record = Record { arrival: now, len: packet.total, gso_size: 0, checksum };
        let Some(slot) = self.pipe.slot(record) else {
            return false;
        };
        arena.transmit_to(packet, slot.bytes);
        slot.put();
        counters.sent(packet);
        if self.pipe.publish() {
            self.wake(counters);
        }
        true
    }

    /// Puts the packets of `batch` into the pipe, or drops them.
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        arena: &mut Arena,
        batch: &TxBatch,
        limits: &Limits,
        counters: &mut Counters,
    ) {
        let heard = self.pipe.begin();
        for packet in batch.iter() {
            if !heard {
                counters.tx_no_carrier += 1;
            } else if limits.admit(packet, counters) {
                counters.sent(packet);
                if let Some(slot) = self.pipe.slot(record(packet, now)) {
                    arena.transmit_to(packet, slot.bytes);
                    slot.put();
                    continue;
                }
                self.pipe.refuse();
            }
            arena.transmitted(packet);
        }
        if self.pipe.publish() {
            self.wake(counters);
        }
    }

    #[cold]
    fn wake(&self, counters: &mut Counters) {
        self.bell.ring();
        counters.system_calls += 1;
    }

    pub(super) fn leave(&mut self) {
        if self.pipe.leave() {
            self.bell.ring();
        }
    }
}

#[derive(Debug)]
pub(super) struct Receiver {
    pipe: Consumer,
    bell: Bell,
    /// The sender was told that we sleep.
    armed: bool,
    /// The bell was rung, or is about to be, and we have not silenced it.
    rung: bool,
}

impl Receiver {
    /// Receives a lone packet, by the shortest way. False: nothing was done, and
    /// [`Receiver::receive`] is to be asked.
    #[inline(always)]
    pub(super) fn receive_one(
        &mut self,
        arena: &mut Arena,
        batch: &mut RxBatch,
        counters: &mut Counters,
    ) -> bool {
        if self.armed || batch.is_full() {
            return false;
        }
        let Some(packet) = self.pipe.only() else {
            return false;
        };
        if arena.free() == 0 || !copy::fits_a_frame(arena, packet.bytes) {
            return false;
        }
        counters.arrived(packet.record, packet.bytes, arena, batch);
        packet.take();
        self.pipe.publish();
        true
    }

    /// Receives what is in the pipe, which has arrived whatever the time is.
    pub(super) fn receive(
        &mut self,
        arena: &mut Arena,
        batch: &mut RxBatch,
        counters: &mut Counters,
    ) {
        if self.armed {
            self.awake();
        }
        for _ in 0..self.pipe.begin().min(batch.room()) {
            if let Some(packet) = self.pipe.front() {
                counters.arrived(packet.record, packet.bytes, arena, batch);
                packet.take();
            }
        }
        self.pipe.publish();
    }

    /// See [`crate::Port::arm`].
    pub(super) fn arm(&mut self, counters: &mut Counters) -> bool {
        if self.armed {
            self.awake();
        }
        if !self.pipe.is_empty() {
            return false;
        }
        if self.rung {
            // A sender that is about to ring may not have done so. Then it ends this sleep for
            // nothing, and the next attempt finds the ring.
            self.rung = !self.bell.silence();
            counters.system_calls += 1;
        }
        self.armed = self.pipe.sleep();
        self.armed
    }

    #[cold]
    fn awake(&mut self) {
        self.armed = false;
        self.rung |= self.pipe.awake();
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.pipe.earliest()
    }

    pub(super) fn exhausted(&self) -> bool {
        self.pipe.is_over()
    }

    /// Packets that found no room.
    pub(super) fn full(&self) -> u64 {
        self.pipe.refused()
    }

    pub(super) fn leave(&mut self) {
        self.pipe.leave();
    }
}
