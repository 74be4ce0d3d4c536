//! The way in: bursts of the port become a batch.

use std::io;
use std::sync::Arc;

use millrace_frames::{Arena, Frame, Meta, Owners, RxBatch, RxFlags};
use millrace_port::clock;

use crate::batch::{Batch, Columns, Row, Storage};
use crate::flags;
use crate::raw_port::{RawPort, Stamp};

impl RawPort {
    /// Takes at most `limit` packets that have arrived. `None`: there was none. Never blocks.
    ///
    /// # Errors
    /// As [`RawPort::gather`].
    pub fn receive(&mut self, limit: usize) -> io::Result<Option<Batch>> {
        self.gather(limit)?;
        Ok(self.take())
    }

    /// Adds packets that have arrived to the batch that is being made, up to `limit`; returns how
    /// many it has. Never blocks.
    ///
    /// # Errors
    /// As [`millrace_port::Port::rx`], when the batch is empty; else a later call says it.
    pub fn gather(&mut self, limit: usize) -> io::Result<usize> {
        let shared = self.arena.clone();
        let mut arena = shared.lock();
        arena.collect_held();
        let scarce = arena.frames() / 4;
        while self.heads.len() < limit {
            if self.pending.is_empty() {
                if !self.heads.is_empty() && arena.free() < scarce {
                    break;
                }
                match self.take_burst(&mut arena) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) if self.heads.is_empty() => return Err(error),
                    Err(error) => {
                        self.rx_failed = Some(error);
                        break;
                    }
                }
            }
            let count = self.pending.len().min(limit - self.heads.len());
            self.heads.extend_from_slice(&self.pending[..count]);
            self.pending.consume(count);
        }
        Ok(self.heads.len())
    }

    /// The batch that was made; `None` without packets.
    ///
    /// They stay where they came in, unless fewer than a quarter of the frames are free or one of
    /// them lies in several frames: then the batch is a copy, and counted.
    pub fn take(&mut self) -> Option<Batch> {
        if self.heads.is_empty() {
            return None;
        }
        let shared = self.arena.clone();
        let mut arena = shared.lock();
        Some(self.make_batch(&mut arena))
    }

    /// Fills `pending` from the port with packets that pass the filter. False when nothing was
    /// there.
    fn take_burst(&mut self, arena: &mut Arena) -> io::Result<bool> {
        if let Some(error) = self.rx_failed.take() {
            return Err(error);
        }
        loop {
            if self.port.rx(clock::now(), arena, &mut self.pending)? == 0 {
                return Ok(false);
            }
            self.filter_pending(arena);
            if !self.pending.is_empty() {
                break;
            }
        }
        if let Stamp::Taken = self.stamp {
            let now = clock::wall().as_nanos() as u64;
            for &head in self.pending.iter() {
                arena.meta_mut(head).timestamp = now;
            }
        }
        Ok(true)
    }

    /// Drops what the filter rejects.
    fn filter_pending(&mut self, arena: &mut Arena) {
        let Some(filter) = &self.filter else { return };
        let mut kept = RxBatch::new();
        for &head in self.pending.iter() {
            let meta = arena.meta(head);
            let length =
                if meta.rx_flags().contains(RxFlags::CUT) { meta.mark } else { meta.total };
            let accepted = if meta.next.is_none() {
                filter.accepts(arena.bytes(head), length)
            } else {
                self.whole.clear();
                append(arena, head, &mut self.whole);
                filter.accepts(&self.whole, length)
            };
            if accepted {
                // There is room: there was for all of them.
                let _ = kept.push(head);
            } else {
                arena.release_chain(head, Owners::RECEIVED);
                self.counters.rx_filtered += 1;
            }
        }
        self.pending = kept;
    }

    /// Shows at most `limit` packets that have arrived, in one piece each: their bytes, their length
    /// on the wire, when they came in nanoseconds since 1970, and what else is known of them.
    /// Returns how many. Never blocks.
    ///
    /// # Errors
    /// As [`RawPort::gather`].
    pub(crate) fn visit(
        &mut self,
        limit: usize,
        mut visitor: impl FnMut(&[u8], u32, u64, RxFlags),
    ) -> io::Result<usize> {
        let shared = self.arena.clone();
        let mut arena = shared.lock();
        if self.pending.is_empty() && !self.take_burst(&mut arena)? {
            return Ok(0);
        }
        let count = self.pending.len().min(limit);
        for &head in &self.pending[..count] {
            let meta = *arena.meta(head);
            let length =
                if meta.rx_flags().contains(RxFlags::CUT) { meta.mark } else { meta.total };
            let time = self.time(&meta);
            if meta.next.is_none() {
                visitor(arena.bytes(head), length, time, meta.rx_flags());
            } else {
                self.whole.clear();
                append(&arena, head, &mut self.whole);
                visitor(&self.whole, length, time, meta.rx_flags());
            }
            arena.release_chain(head, Owners::RECEIVED);
        }
        self.pending.consume(count);
        Ok(count)
    }

    /// When a packet came, nanoseconds since 1970.
    #[inline]
    fn time(&self, meta: &Meta) -> u64 {
        match self.stamp {
            Stamp::Given | Stamp::Taken => meta.timestamp,
            Stamp::Since(epoch) => meta.timestamp.saturating_add(epoch),
        }
    }

    fn make_batch(&mut self, arena: &mut Arena) -> Batch {
        let whole = |&head: &Frame| arena.meta(head).next.is_none();
        let batch = match arena.free() >= arena.frames() / 4 && self.heads.iter().all(whole) {
            true => self.hold_heads(arena),
            false => None,
        };
        let batch = batch.unwrap_or_else(|| self.copy_heads(arena));
        self.release_heads(arena);
        batch
    }

    /// A batch over the frames in `heads`, each of which is a packet. `None`: somebody else holds
    /// one of them.
    pub(crate) fn hold_heads(&mut self, arena: &mut Arena) -> Option<Batch> {
        let held = arena.hold_all(&self.heads)?;
        let size = arena.frame_size() as i64;
        let mut columns = Columns::with_capacity(self.heads.len());
        for (slot, &head) in self.heads.iter().enumerate() {
            let meta = arena.meta(head);
            let offset = i64::from(head.index()) * size + i64::from(meta.offset);
            columns.push(self.row(meta, offset, slot as u32));
        }
        Some(Batch { columns, storage: Arc::new(Storage::Held(held)) })
    }

    /// A batch of copies of the packets that start in `heads`.
    fn copy_heads(&mut self, arena: &Arena) -> Batch {
        let kept = |&head: &Frame| arena.meta(head).total.min(self.snap_length) as usize;
        let mut bytes = Vec::with_capacity(self.heads.iter().map(kept).sum());
        let mut columns = Columns::with_capacity(self.heads.len());
        for &head in &self.heads {
            let start = bytes.len();
            columns.push(self.row(arena.meta(head), start as i64, 0));
            append(arena, head, &mut bytes);
            bytes.truncate(start.saturating_add(self.snap_length as usize));
        }
        self.counters.rx_copied += self.heads.len() as u64;
        Batch { columns, storage: Arc::new(Storage::Owned(bytes.into_boxed_slice())) }
    }

    pub(crate) fn release_heads(&mut self, arena: &mut Arena) {
        for head in self.heads.drain(..) {
            arena.release_chain(head, Owners::RECEIVED);
        }
    }

    #[inline]
    fn row(&self, meta: &Meta, offset: i64, slot: u32) -> Row {
        let mut flags = flags::of(meta);
        let timestamp = self.time(meta);
        // A port of one queue says which it is; one of several says it of each packet.
        let queue = self.capabilities().queue as u16;
        let original = if flags & flags::CUT == 0 { meta.total } else { meta.mark };
        let length = meta.total.min(self.snap_length);
        if length < original {
            flags |= flags::CUT;
        }
        Row {
            offset,
            length,
            original,
            timestamp: i64::try_from(timestamp).unwrap_or(i64::MAX),
            queue: queue.max(meta.rx_queue().into()),
            flags,
            slot,
            gso_size: meta.gso_size,
        }
    }
}

/// Puts the bytes of a packet that starts in `head` behind those in `to`.
fn append(arena: &Arena, head: Frame, to: &mut Vec<u8>) {
    let mut frame = head;
    while frame.is_some() {
        to.extend_from_slice(arena.bytes(frame));
        frame = arena.meta(frame).next;
    }
}
