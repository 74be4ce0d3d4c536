//! What was written and is not acknowledged: frames in sequence, each with its payload's sum.

use millrace_frames::{Arena, Frame, Owners};
use millrace_wire::checksum;
use millrace_wire::seq::Seq;

use super::connection::{Connection, Flags, Queue};
use crate::config::Config;
use crate::memory::Memory;

impl Connection {
    /// [`Connection::enqueue_data`] where nothing is queued and a frame takes all of `data`. Returns
    /// false, with nothing done, if it is not so.
    #[inline]
    pub(crate) fn enqueue_first(
        &mut self,
        arena: &mut Arena,
        config: &Config,
        data: &[u8],
    ) -> bool {
        let fits = self.send.is_empty()
            && data.len().wrapping_sub(1) < usize::from(self.mss)
            && data.len() <= arena.frame_size() - Arena::HEADROOM
            && !config.tx_checksum;
        if !fits {
            return false;
        }
        let reserve = config.frame_reserve as usize;
        let Some(frame) = arena.allocate_keeping(Owners::UNACKED, reserve) else { return false };
        let start = usize::from(arena.meta(frame).offset);
        let sum = checksum::copy_and_sum(&mut arena.room_mut(frame)[start..], data);
        let meta = arena.meta_mut(frame);
        meta.mark = self.snd_end.0;
        meta.len = data.len() as u16;
        meta.sum = sum;
        (meta.write_end, meta.pushed) = (true, !self.flags.has(Flags::MORE));
        self.send = Queue { head: frame, tail: frame };
        self.send_frames = 1;
        if self.cursor.is_none() {
            self.cursor = frame;
        }
        self.snd_end += data.len() as u32;
        true
    }

    /// Copies `data` behind what is queued, summing it in the same pass. Returns how much there
    /// was room for: `room` bytes in the send buffer, and the connection's share of the frames.
    #[inline]
    pub(crate) fn enqueue_data(
        &mut self,
        arena: &mut Arena,
        config: &Config,
        memory: &Memory,
        room: usize,
        data: &[u8],
    ) -> usize {
        let mut left = &data[..data.len().min(room)];
        let most = arena.frame_size() - Arena::HEADROOM;
        // A frame is a segment, or several where the port cuts super-segments, so that those can
        // be cut without a remainder.
        let mss = usize::from(self.mss);
        let fill = if config.tx_gso > 0 && most > mss { most / mss * mss } else { most.min(mss) };
        let mut written = 0;
        while !left.is_empty() {
            let tail = self.send.tail;
            let frame = if tail.is_some() && self.may_grow(arena, tail, fill) {
                let meta = arena.meta_mut(tail);
                (meta.write_end, meta.pushed) = (false, false);
                tail
            } else {
                let reserve = config.frame_reserve as usize;
                if !memory.fair(arena.free(), self.send_frames) {
                    break;
                }
                let Some(frame) = arena.allocate_keeping(Owners::UNACKED, reserve) else { break };
                arena.meta_mut(frame).mark = self.snd_end.0;
                self.send.push(arena, frame);
                self.send_frames += 1;
                if self.cursor.is_none() {
                    self.cursor = frame;
                }
                frame
            };
            let meta = arena.meta_mut(frame);
            let len = usize::from(meta.len);
            let part = left.len().min(fill - len);
            let (now, later) = left.split_at(part);
            let start = usize::from(meta.offset) + len;
            let before = meta.sum;
            meta.len += part as u16;
            let room = &mut arena.room_mut(frame)[start..start + part];
            if config.tx_checksum {
                room.copy_from_slice(now);
            } else {
                let sum = checksum::copy_and_sum(room, now);
                arena.meta_mut(frame).sum = checksum::concat(before, len, sum);
            }
            self.snd_end += part as u32;
            written += part;
            left = later;
        }
        if written > 0 {
            let meta = arena.meta_mut(self.send.tail);
            (meta.write_end, meta.pushed) = (true, !self.flags.has(Flags::MORE));
        }
        if written < data.len() {
            self.flags.set(Flags::WANT_WRITE);
        }
        written
    }

    /// Lets go of everything.
    pub(crate) fn forget_data(&mut self, arena: &mut Arena) {
        self.send.release_all(arena, Owners::UNACKED);
        self.send_frames = 0;
        self.cursor = Frame::NONE;
    }

    /// Whether bytes may be added to a frame: none of it was ever sent, and there is room.
    #[inline]
    fn may_grow(&self, arena: &Arena, frame: Frame, fill: usize) -> bool {
        let meta = arena.meta(frame);
        self.snd_nxt.le(Seq(meta.mark))
            && !meta.record_end
            && usize::from(meta.len) < fill
            && !arena.owners(frame).intersects(Owners::TRANSMIT)
    }

    /// What was written last ends a record, if none of it was sent.
    pub(crate) fn end_record(&mut self, arena: &mut Arena) {
        let tail = self.send.tail;
        if tail.is_some() && self.snd_nxt.lt(self.snd_end) {
            arena.meta_mut(tail).record_end = true;
        }
    }

    /// Lets go of what `ack` covers.
    #[inline(always)]
    pub(crate) fn acknowledge_data(&mut self, arena: &mut Arena, ack: Seq) {
        while self.send.head.is_some() {
            let head = self.send.head;
            let meta = arena.meta(head);
            if (Seq(meta.mark) + u32::from(meta.len)).gt(ack) {
                break;
            }
            let next = meta.next;
            self.send.head = next;
            self.send_frames -= 1;
            if self.cursor == head {
                self.cursor = next;
            }
            arena.release(head, Owners::UNACKED);
        }
        if self.send.head.is_none() {
            self.send.tail = Frame::NONE;
        }
    }
}
