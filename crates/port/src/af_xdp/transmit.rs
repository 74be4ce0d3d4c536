//! The way out: packets into the transmit ring, the kernel called to look at it, frames back from
//! the completion ring.

use std::io;

use millrace_frames::{Arena, Duration, Frame, Owners, Transmit};

use super::socket::Kick;
use super::sys::Descriptor;
use super::{AfXdp, ETHERNET_LEN, Open};
use crate::copy;

/// How often, and how far apart, closing looks for completions.
const DRAIN_TRIES: u32 = 50;
const DRAIN_PAUSE: Duration = Duration::from_millis(1);

impl AfXdp {
    /// Takes completed frames back.
    #[inline]
    pub(super) fn reap(&mut self, arena: &mut Arena) -> io::Result<()> {
        let Some(Open { socket, .. }) = &mut self.open else { return Ok(()) };
        while socket.completion.waiting() > 0 {
            while let Some(address) = socket.completion.pop() {
                self.umem.complete(arena, address)?;
            }
            socket.completion.release();
        }
        Ok(())
    }

    /// Lets the kernel transmit what is in the ring.
    pub(super) fn kick(&mut self, arena: &mut Arena) -> io::Result<()> {
        loop {
            let Some(Open { socket, .. }) = &self.open else { return Ok(()) };
            let untaken = socket.tx.untaken();
            // A zero-copy driver may need the call to complete what it has sent.
            let completing = socket.zero_copy() && self.umem.in_flight() > 0;
            if (untaken == 0 && !completing) || !socket.tx.needs_wakeup() {
                self.kick_pending = false;
                return Ok(());
            }
            self.statistics.system_calls += 1;
            let result = socket.kick_tx();
            let taken = socket.tx.untaken() < untaken;
            // What was dropped is the last one taken, or, where the kernel has not said so yet,
            // the next.
            let dropped = socket.tx.near_consumer(taken.into());
            // Older kernels say late what they have taken, but complete it at once.
            let in_flight = self.umem.in_flight();
            self.reap(arena)?;
            let progress = taken || self.umem.in_flight() < in_flight;
            match result {
                Ok(Kick::Done) => {
                    self.kick_pending = false;
                    return Ok(());
                }
                Ok(Kick::Again) if progress => {}
                Ok(Kick::Dropped) if progress => {
                    // `transmit` has counted it as sent, before its fate was known.
                    self.statistics.tx_refused += 1;
                    self.statistics.tx_packets -= 1;
                    self.statistics.tx_bytes -= u64::from(dropped.len);
                }
                Ok(Kick::Again | Kick::Dropped) => {
                    self.kick_pending = true;
                    return Ok(());
                }
                Err(error) => {
                    self.kick_pending = true;
                    return Err(self.failure(error));
                }
            }
        }
    }

    /// Puts one packet into the transmit ring. `false`: there is no room for it now.
    #[inline]
    pub(super) fn transmit(&mut self, arena: &mut Arena, packet: &Transmit) -> bool {
        let frame_size = arena.frame_size() as u32;
        if packet.total > self.max_packet || packet.total > frame_size {
            self.statistics.tx_too_long += 1;
            self.drop_packet(arena, packet);
            return true;
        }
        let whole = packet.frames == 1 && packet.checksum_start == 0;
        let (frame, offset) = if whole && is_sound(packet, frame_size) {
            if !self.umem.may_send(packet.head) {
                return false;
            }
            (packet.head, packet.offset)
        } else {
            let Some(frame) = arena.allocate(Owners::TRANSMIT) else { return false };
            let sound = is_sound(packet, frame_size) && gather(arena, packet, frame);
            self.drop_packet(arena, packet);
            if !sound {
                arena.release(frame, Owners::TRANSMIT);
                self.statistics.tx_refused += 1;
                return true;
            }
            self.statistics.tx_copied += 1;
            (frame, arena.meta(frame).offset)
        };
        let Some(Open { socket, .. }) = &mut self.open else { return false };
        let address = self.umem.address(frame, offset);
        let pushed = socket.tx.push(Descriptor { address, len: packet.total, options: 0 });
        debug_assert!(pushed, "the caller has seen a free slot");
        self.umem.send(frame);
        self.statistics.tx_packets += 1;
        self.statistics.tx_bytes += u64::from(packet.total);
        true
    }

    /// Ends a packet's `TRANSMIT` without sending it.
    fn drop_packet(&self, arena: &mut Arena, packet: &Transmit) {
        let mut frame = packet.head;
        for _ in 0..packet.frames.max(1) {
            let next = arena.meta(frame).next;
            self.umem.end(arena, frame);
            frame = next;
        }
    }

    /// Gives what is under way a last chance to leave: some drivers send from the frames
    /// themselves even in copy mode. What an interface that is down or stuck still has is given
    /// up; errors change nothing, as the port ends.
    pub(super) fn drain(&mut self, arena: &mut Arena) {
        for _ in 0..DRAIN_TRIES {
            if self.kick(arena).is_err() || self.reap(arena).is_err() || self.umem.in_flight() == 0
            {
                return;
            }
            std::thread::sleep(DRAIN_PAUSE);
        }
    }
}

/// Whether a packet's own description holds together.
#[inline]
fn is_sound(packet: &Transmit, frame_size: u32) -> bool {
    let in_first = u32::from(packet.len);
    let lengths = if packet.frames == 1 { packet.total == in_first } else { packet.frames > 1 };
    lengths
        && packet.total >= ETHERNET_LEN
        && u32::from(packet.offset) + in_first <= frame_size
        && copy::checksum_place_is_inside(packet)
}

/// Copies a packet that lies in several frames, or whose checksum is not finished, into the empty
/// frame `to`. `false` if its frames do not have as many bytes as it says.
fn gather(arena: &mut Arena, packet: &Transmit, to: Frame) -> bool {
    let total = packet.total as usize;
    arena.meta_mut(to).offset = Arena::HEADROOM.min(arena.frame_size() - total) as u16;
    let mut copied = 0;
    let (mut frame, mut start, mut len) = (packet.head, packet.offset, packet.len);
    for left in (0..packet.frames).rev() {
        copied += len as usize;
        if copied > total {
            return false;
        }
        arena.append_from(to, frame, start as usize, len as usize);
        if left > 0 {
            frame = arena.meta(frame).next;
            let meta = arena.meta(frame);
            (start, len) = (meta.offset, meta.len);
        }
    }
    if copied == total && packet.checksum_start != 0 {
        let (start, at) = (packet.checksum_start as usize, packet.checksum_offset as usize);
        copy::finish_checksum(arena.bytes_mut(to), start, at);
    }
    copied == total
}
