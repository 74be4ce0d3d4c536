//! What was received in order and is not read.

use millrace_frames::{Arena, Frame, Owners};
use millrace_wire::seq::Seq;

use super::connection::Connection;
use super::connection::Flags;
use crate::stack::Stack;

/// Payload up to this size is moved into the frame before it when that one still waits to be
/// read, so that many tiny segments do not hold many large frames.
pub(crate) const COMPACT_BELOW: u16 = 256;

impl Stack {
    /// Cuts `count` bytes off the front of a chain. Returns what is left of it.
    pub(crate) fn trim_front(&mut self, mut frame: Frame, mut count: usize) -> Frame {
        while frame.is_some() && count > 0 {
            let meta = self.arena.meta_mut(frame);
            let part = count.min(usize::from(meta.len));
            meta.offset += part as u16;
            meta.len -= part as u16;
            meta.mark = meta.mark.wrapping_add(part as u32);
            count -= part;
            if meta.len == 0 {
                let next = meta.next;
                self.arena.release(frame, Owners::RECEIVED);
                frame = next;
            }
        }
        frame
    }

    /// Cuts a chain to `len` bytes, and marks each frame with its sequence number on the way.
    /// Frames that hold nothing are released. Returns what is left.
    #[inline]
    pub(crate) fn number_and_trim(&mut self, frame: Frame, seq: Seq, len: usize) -> Frame {
        if len == 0 {
            self.arena.release_chain(frame, Owners::RECEIVED);
            return Frame::NONE;
        }
        let (mut at, mut seq, mut left) = (frame, seq, len);
        loop {
            let meta = self.arena.meta_mut(at);
            meta.mark = seq.0;
            let part = left.min(usize::from(meta.len));
            meta.len = part as u16;
            seq += part as u32;
            left -= part;
            let next = meta.next;
            if left == 0 || next.is_none() {
                meta.next = Frame::NONE;
                self.arena.release_chain(next, Owners::RECEIVED);
                return frame;
            }
            at = next;
        }
    }

    /// Nobody will read what was received.
    pub(crate) fn discard_received(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.receive.release_all(&mut self.arena, Owners::RECEIVED);
        (connection.receive_bytes, connection.receive_frames) = (0, 0);
    }
}

impl Connection {
    /// Appends a numbered chain that begins at `rcv_nxt`. A queue of more than `pack_above` frames
    /// is packed, so that what it holds is never much more than twice its payload.
    #[inline]
    pub(crate) fn append_received(&mut self, arena: &mut Arena, mut frame: Frame, pack_above: u16) {
        while frame.is_some() {
            let meta = arena.meta(frame);
            let (start, len, next) = (usize::from(meta.offset), meta.len, meta.next);
            self.advance_received(len.into());
            self.receive_bytes += u32::from(len);
            let tail = self.receive.tail;
            if len == 0 || self.flags.has(Flags::READ_SHUT) {
                self.receive_bytes -= u32::from(len);
                arena.release(frame, Owners::RECEIVED);
            } else if (len <= COMPACT_BELOW || self.receive_frames > pack_above)
                && tail.is_some()
                && has_room(arena, tail, len)
            {
                arena.append_from(tail, frame, start, usize::from(len));
                arena.release(frame, Owners::RECEIVED);
            } else {
                self.receive.push(arena, frame);
                self.receive_frames += 1;
            }
            frame = next;
        }
    }

    /// Takes the first frame off the receive queue.
    #[inline]
    pub(crate) fn take_received(&mut self, arena: &mut Arena) -> Option<Frame> {
        let frame = self.receive.head.get()?;
        let meta = arena.meta_mut(frame);
        self.receive.head = core::mem::take(&mut meta.next);
        self.receive_bytes -= u32::from(meta.len);
        self.receive_frames -= 1;
        if self.receive.head.is_none() {
            self.receive.tail = Frame::NONE;
        }
        Some(frame)
    }
}

#[inline]
pub(crate) fn has_room(arena: &Arena, frame: Frame, len: u16) -> bool {
    let meta = arena.meta(frame);
    usize::from(meta.offset) + usize::from(meta.len) + usize::from(len) <= arena.frame_size()
        && !arena.owners(frame).intersects(Owners::HELD)
}
