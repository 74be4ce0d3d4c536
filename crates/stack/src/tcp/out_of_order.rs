//! What came beyond a gap, and waits for it to be filled (RFC 9293 §3.10.7.4, seventh).
//!
//! The frames are a list in the order of their numbers, without overlaps: of bytes that came
//! twice, those that came first are kept. What follows on each other without a gap is one block;
//! the blocks are an array to be searched, so that finding a segment's place costs the same
//! wherever it is. Nothing that is here is ever given up while the connection lives, for the peer
//! may have been told of it and forgotten it (RFC 2018 §8).

use millrace_frames::{Arena, Frame, Owners};
use millrace_wire::seq::Seq;

use super::connection::{Flags, NO_LINK, Queue};
use super::receive_queue::{COMPACT_BELOW, has_room};
use crate::stack::Stack;

/// Most gaps in what waits: an attacker's segments with holes between must not make the array
/// long.
const MOST_BLOCKS: usize = 2048;

/// A record that goes back to the pool keeps room for so many blocks.
const KEEP_BLOCKS: usize = 32;

/// Bytes without a gap, and the frames that hold them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) start: Seq,
    pub(crate) end: Seq,
    head: Frame,
    tail: Frame,
}

/// The blocks of a connection in order. Between any two of them is a gap.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    list: Vec<Block>,
    frames: u16,
}

/// What became of a segment beyond a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// At least a part of it is kept.
    Yes,
    /// All of it was there.
    Duplicate,
    /// There is no room.
    Full,
}

/// What an insertion did.
struct Inserted {
    /// The block that the bytes are in now.
    block: (Seq, Seq),
    /// The first bytes that were there already.
    duplicate: Option<(Seq, Seq)>,
    /// Frames more than before; fewer where several made way for one.
    frames: i32,
    kept: bool,
}

fn span(arena: &Arena, frame: Frame) -> (Seq, Seq) {
    let meta = arena.meta(frame);
    (Seq(meta.mark), Seq(meta.mark) + u32::from(meta.len))
}

impl Blocks {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Frames that hold them.
    pub(crate) fn frames(&self) -> u16 {
        self.frames
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Block> {
        self.list.iter()
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.list.shrink_to(KEEP_BLOCKS);
        self.frames = 0;
    }

    /// The block that has `seq` in it.
    pub(crate) fn containing(&self, seq: Seq) -> Option<(Seq, Seq)> {
        let block = self.list.get(self.list.partition_point(|block| block.end.le(seq)))?;
        block.start.le(seq).then_some((block.start, block.end))
    }

    /// Puts a numbered frame in its place in `queue`, cut to what was not there. Where more than
    /// `pack_above` frames wait, what fits into the frame before it goes there.
    fn insert(
        &mut self,
        queue: &mut Queue,
        arena: &mut Arena,
        frame: Frame,
        pack_above: u16,
    ) -> Inserted {
        let (mut start, mut end) = span(arena, frame);
        let at = match self.list.last() {
            Some(last) if last.end.lt(start) => self.list.len(),
            _ => self.list.partition_point(|block| block.end.lt(start)),
        };
        let mut duplicate = None;
        let mut frames = 0;

        let left = self.list.get(at).copied().filter(|block| block.start.le(start));
        if let Some(left) = left {
            if left.end.ge(end) {
                arena.release(frame, Owners::RECEIVED);
                let block = (left.start, left.end);
                return Inserted { block, duplicate: Some((start, end)), frames, kept: false };
            }
            let old = (left.end - start) as u16;
            if old > 0 {
                duplicate = Some((start, left.end));
                let meta = arena.meta_mut(frame);
                meta.offset += old;
                meta.len -= old;
                meta.mark = left.end.0;
                start = left.end;
            }
        }
        let first = at + usize::from(left.is_some());
        let before = match left {
            Some(left) => left.tail,
            None => first.checked_sub(1).map_or(Frame::NONE, |at| self.list[at].tail),
        };
        let mut after = match before.get() {
            Some(before) => arena.meta(before).next,
            None => queue.head,
        };

        // Blocks that lie within make way: one frame in the place of several.
        let mut right = first;
        while let Some(block) = self.list.get(right).filter(|block| block.end.le(end)) {
            duplicate = duplicate.or(Some((block.start, block.end)));
            let stop = arena.meta(block.tail).next;
            while after != stop {
                let next = arena.meta(after).next;
                arena.release(after, Owners::RECEIVED);
                after = next;
                frames -= 1;
            }
            right += 1;
        }
        let mut joined = None;
        if let Some(block) = self.list.get(right) {
            if block.start.lt(end) {
                duplicate = duplicate.or(Some((block.start, end)));
                arena.meta_mut(frame).len -= (end - block.start) as u16;
                end = block.start;
            }
            joined = (block.start == end).then_some(*block);
        }

        let len = arena.meta(frame).len;
        let mut tail = frame;
        if before.is_some()
            && left.is_some()
            && (len <= COMPACT_BELOW || self.frames > pack_above)
            && has_room(arena, before, len)
        {
            let offset = usize::from(arena.meta(frame).offset);
            arena.append_from(before, frame, offset, usize::from(len));
            arena.release(frame, Owners::RECEIVED);
            arena.meta_mut(before).next = after;
            tail = before;
        } else {
            frames += 1;
            arena.meta_mut(frame).next = after;
            match before.get() {
                Some(before) => arena.meta_mut(before).next = frame,
                None => queue.head = frame,
            }
        }
        if after.is_none() {
            queue.tail = tail;
        }

        let block = Block {
            start: left.map_or(start, |left| left.start),
            end: joined.map_or(end, |joined| joined.end),
            head: left.map_or(frame, |left| left.head),
            tail: joined.map_or(tail, |joined| joined.tail),
        };
        let replaced = at..right + usize::from(joined.is_some());
        match replaced.len() {
            0 => self.list.insert(at, block),
            1 => self.list[at] = block,
            _ => {
                self.list[at] = block;
                self.list.drain(at + 1..replaced.end);
            }
        }
        self.frames = self.frames.wrapping_add_signed(frames as i16);
        Inserted { block: (block.start, block.end), duplicate, frames, kept: true }
    }

    /// Takes the first block off if it begins at or before `rcv_nxt`.
    fn take_due(&mut self, rcv_nxt: Seq) -> Option<Block> {
        self.list.first().filter(|block| block.start.le(rcv_nxt))?;
        Some(self.list.remove(0))
    }
}

impl Stack {
    /// Keeps a numbered chain that begins beyond a gap.
    pub(crate) fn keep_out_of_order(&mut self, index: usize, chain: Frame) -> Kept {
        let mut next = chain;
        let mut kept = Kept::Duplicate;
        while next.is_some() {
            let frame = next;
            if !self.room_out_of_order(index) {
                self.arena.release_chain(frame, Owners::RECEIVED);
                return if kept == Kept::Yes { kept } else { Kept::Full };
            }
            next = self.arena.meta(frame).next;
            let number = self.connections[index].transfer;
            let Some(transfer) = self.transfers.get_mut(number) else { return kept };
            let queue = &mut self.connections[index].out_of_order;
            let packed = self.memory.pack_above;
            let inserted = transfer.blocks.insert(queue, &mut self.arena, frame, packed);
            self.out_of_order_total = self.out_of_order_total.wrapping_add_signed(inserted.frames);
            transfer.reports.arrived(inserted.block);
            if inserted.kept {
                kept = Kept::Yes;
            }
            if let Some((start, end)) = inserted.duplicate {
                self.report_duplicate(index, start, end);
            }
        }
        kept
    }

    /// Whether another frame may wait. A connection may have as many as are left to all others
    /// together: so a few that hoard take much, many get little each, and some are always left
    /// for whoever comes next. What waits is a part of the connection's share of the arena, too.
    fn room_out_of_order(&mut self, index: usize) -> bool {
        let left = self.out_of_order_most.saturating_sub(self.out_of_order_total);
        let most = u32::from(self.config.out_of_order_frames).min(left);
        let free = self.arena.free();
        let few = free <= self.config.frame_reserve as usize;
        let blocks = &self.transfer_mut(index).blocks;
        let (frames, gaps) = (blocks.frames, blocks.list.len());
        !few && u32::from(frames) < most && gaps < MOST_BLOCKS && self.memory.fair(free, frames)
    }

    /// Whether what waits ends there, with the FIN or before it.
    pub(crate) fn ends_out_of_order(&self, index: usize, seq: Seq) -> bool {
        let connection = &self.connections[index];
        if connection.flags.has(Flags::FIN_SEEN) && seq == connection.fin_seq + 1 {
            return true;
        }
        self.transfer(index)
            .and_then(|transfer| transfer.blocks.list.last())
            .is_some_and(|block| block.end == seq)
    }

    /// Moves what has become in order to the receive queue.
    pub(crate) fn fill_gap(&mut self, index: usize) {
        loop {
            let connection = &mut self.connections[index];
            let rcv_nxt = connection.rcv_nxt;
            let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
            let Some(block) = transfer.blocks.take_due(rcv_nxt) else {
                transfer.reports.forget_below(rcv_nxt);
                if transfer.blocks.is_empty() {
                    transfer.blocks.clear();
                }
                return;
            };
            let mut count = 1;
            let mut last = block.head;
            while last != block.tail {
                last = self.arena.meta(last).next;
                count += 1;
            }
            let rest = core::mem::take(&mut self.arena.meta_mut(block.tail).next);
            connection.out_of_order.head = rest;
            if rest.is_none() {
                connection.out_of_order.tail = rest;
            }
            transfer.blocks.frames -= count;
            self.out_of_order_total -= u32::from(count);
            let old = rcv_nxt - block.start;
            if old > 0 {
                self.report_duplicate(index, block.start, rcv_nxt.min(block.end));
            }
            let frame = self.trim_front(block.head, old as usize);
            let connection = &mut self.connections[index];
            connection.append_received(&mut self.arena, frame, self.memory.pack_above);
            connection.unacknowledged += (connection.rcv_nxt - rcv_nxt) as u32;
        }
    }

    /// Nothing that waits is wanted any more.
    #[inline]
    pub(crate) fn discard_out_of_order(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.flags.clear(Flags::REPORT_DUPLICATE);
        let transfer = self.transfers.get(connection.transfer);
        if !connection.out_of_order.is_empty() || transfer.is_some_and(|it| !it.reports.is_empty())
        {
            self.discard_blocks(index);
        }
    }

    #[cold]
    fn discard_blocks(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.out_of_order.release_all(&mut self.arena, Owners::RECEIVED);
        if connection.transfer != NO_LINK
            && let Some(transfer) = self.transfers.get_mut(connection.transfer)
        {
            self.out_of_order_total -= u32::from(transfer.blocks.frames);
            transfer.blocks.clear();
            transfer.reports.clear();
        }
    }

    /// Asserts that blocks, frames and counts agree.
    pub(crate) fn check_out_of_order(&self, index: usize) {
        let connection = &self.connections[index];
        let Some(transfer) = self.transfer(index) else {
            assert!(connection.out_of_order.is_empty(), "frames without blocks");
            return;
        };
        let mut at = connection.out_of_order.head;
        let mut frames = 0;
        let mut before: Option<Seq> = None;
        for block in transfer.blocks.iter() {
            assert!(before.is_none_or(|end| end.lt(block.start)), "blocks without a gap between");
            assert_eq!(at, block.head, "a block's first frame");
            let mut seq = block.start;
            loop {
                let (start, end) = span(&self.arena, at);
                assert_eq!(start, seq, "a hole in a block, or an overlap");
                seq = end;
                frames += 1;
                if at == block.tail {
                    break;
                }
                at = self.arena.meta(at).next;
            }
            assert_eq!(seq, block.end, "a block's last byte");
            at = self.arena.meta(at).next;
            before = Some(block.end);
        }
        assert!(at.is_none(), "frames beyond the last block");
        assert_eq!(frames, transfer.blocks.frames, "frames out of order");
        assert!(frames <= self.config.out_of_order_frames);
    }
}
