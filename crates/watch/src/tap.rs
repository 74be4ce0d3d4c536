//! A tap: copies of the frames that pass, for somebody who looks at them elsewhere.
//!
//! The packet path copies into pieces of fixed size that were allocated beforehand and go round
//! between the two ends by two rings. With no piece free the frame goes unseen and is counted; it is
//! never waited for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millrace_frames::ring::{Consumer, Producer, ring};
use millrace_frames::{Arena, Frame, Instant, Transmit};

/// Bytes of a piece: a common packet is in one.
const PIECE: usize = 2048;

/// Which way a frame goes, as pcapng's `epb_flags` number it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// Received.
    Inbound = 1,
    /// Sent.
    Outbound = 2,
}

struct Piece {
    time: Instant,
    /// Bytes of the whole frame.
    original: u32,
    direction: Direction,
    /// The last of its frame.
    last: bool,
    len: u16,
    bytes: [u8; PIECE],
}

/// Counters and the end of a tap.
#[derive(Debug, Default)]
struct Shared {
    placed: AtomicBool,
    unwanted: AtomicBool,
    ended: AtomicBool,
    seen: AtomicU64,
    lost: AtomicU64,
}

/// The end in the packet path.
pub struct Tap {
    free: Consumer<Box<Piece>>,
    full: Producer<Box<Piece>>,
    /// Taken from `free` for a frame that needed more than there were.
    #[allow(clippy::vec_box, reason = "the boxes go round, and are not to be copied")]
    spare: Vec<Box<Piece>>,
    shared: Arc<Shared>,
    snap: usize,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tap({:?})", self.shared)
    }
}

/// The end that reads.
pub(crate) struct TapReader {
    free: Producer<Box<Piece>>,
    full: Consumer<Box<Piece>>,
    shared: Arc<Shared>,
    bytes: Vec<u8>,
    /// What is in `bytes` was given out.
    complete: bool,
}

/// A frame as it passed.
pub(crate) struct Seen<'a> {
    pub(crate) time: Instant,
    pub(crate) original: u32,
    pub(crate) direction: Direction,
    pub(crate) bytes: &'a [u8],
}

/// Makes a tap that keeps at most `snap` bytes of a frame, and `buffer` bytes altogether.
pub(crate) fn tap(snap: usize, buffer: usize) -> (Tap, TapReader) {
    let count = (buffer / size_of::<Piece>()).max(snap.div_ceil(PIECE)).max(1);
    let (mut free_in, free_out) = ring(count);
    let (full_in, full_out) = ring(count);
    for _ in 0..count {
        let piece = Box::new(Piece {
            time: Instant::ZERO,
            original: 0,
            direction: Direction::Inbound,
            last: true,
            len: 0,
            bytes: [0; PIECE],
        });
        // The ring has room for all.
        let _ = free_in.push(piece);
    }
    let shared = Arc::new(Shared::default());
    let spare = Vec::with_capacity(snap.div_ceil(PIECE).max(1));
    let tap = Tap { free: free_out, full: full_in, spare, shared: Arc::clone(&shared), snap };
    (tap, TapReader { free: free_in, full: full_out, shared, bytes: Vec::new(), complete: false })
}

impl Tap {
    /// Whether anybody still looks.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        !self.shared.unwanted.load(Ordering::Relaxed)
    }

    /// From now on everything is shown: who asked for the tap may be told.
    pub fn place(&self) {
        self.shared.placed.store(true, Ordering::Release);
    }

    /// Shows received packets, each a chain of frames.
    pub fn received(&mut self, now: Instant, arena: &Arena, packets: &[Frame]) {
        for &head in packets {
            let total = arena.meta(head).total as usize;
            let mut frame = head;
            let mut left = total.max(arena.bytes(head).len());
            let total = left;
            let pieces = core::iter::from_fn(|| {
                if left == 0 || frame.is_none() {
                    return None;
                }
                let bytes = arena.bytes(frame);
                left = left.saturating_sub(bytes.len().max(1));
                frame = arena.meta(frame).next;
                Some(bytes)
            });
            self.show(now, total, Direction::Inbound, pieces);
        }
    }

    /// Shows packets that are about to be sent.
    pub fn sent(&mut self, now: Instant, arena: &Arena, packets: &[Transmit]) {
        for packet in packets {
            let start = usize::from(packet.offset);
            let first = &arena.room(packet.head)[start..start + usize::from(packet.len)];
            let mut frame = packet.head;
            let rest = (1..packet.frames).map(|_| {
                frame = arena.meta(frame).next;
                arena.bytes(frame)
            });
            let pieces = core::iter::once(first).chain(rest);
            self.show(now, packet.total as usize, Direction::Outbound, pieces);
        }
    }

    fn show<'a>(
        &mut self,
        now: Instant,
        total: usize,
        direction: Direction,
        bytes: impl Iterator<Item = &'a [u8]>,
    ) {
        let wanted = total.min(self.snap);
        let pieces = wanted.div_ceil(PIECE).max(1);
        while self.spare.len() < pieces {
            let Some(piece) = self.free.pop() else {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                return;
            };
            self.spare.push(piece);
        }
        let mut left = wanted;
        let mut piece = None;
        for mut bytes in bytes {
            while !bytes.is_empty() && left > 0 {
                let mut at = piece.take().unwrap_or_else(|| self.piece(now, total, direction));
                let room = PIECE - usize::from(at.len);
                let len = bytes.len().min(room).min(left);
                let filled = usize::from(at.len);
                at.bytes[filled..filled + len].copy_from_slice(&bytes[..len]);
                at.len += len as u16;
                bytes = &bytes[len..];
                left -= len;
                if usize::from(at.len) == PIECE && left > 0 {
                    self.push(at);
                } else {
                    piece = Some(at);
                }
            }
        }
        let mut last = piece.unwrap_or_else(|| self.piece(now, total, direction));
        last.last = true;
        self.push(last);
        self.shared.seen.fetch_add(1, Ordering::Relaxed);
    }

    fn piece(&mut self, time: Instant, original: usize, direction: Direction) -> Box<Piece> {
        let mut piece = self.spare.pop().expect("as many as the frame needs were taken before");
        (piece.time, piece.original, piece.direction) = (time, original as u32, direction);
        (piece.last, piece.len) = (false, 0);
        piece
    }

    fn push(&mut self, piece: Box<Piece>) {
        // Both rings have room for all pieces there are.
        let _ = self.full.push(piece);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
    }
}

impl TapReader {
    /// The next frame, if one has passed.
    pub(crate) fn next(&mut self) -> Option<Seen<'_>> {
        if core::mem::take(&mut self.complete) {
            self.bytes.clear();
        }
        loop {
            // The pieces of a frame come one by one; what there is of it stays for the next call.
            let piece = self.full.pop()?;
            self.bytes.extend_from_slice(&piece.bytes[..usize::from(piece.len)]);
            let Piece { time, original, direction, last, .. } = *piece;
            let _ = self.free.push(piece);
            if last {
                self.complete = true;
                return Some(Seen { time, original, direction, bytes: &self.bytes });
            }
        }
    }

    /// Whether the other end shows what passes.
    pub(crate) fn is_placed(&self) -> bool {
        self.shared.placed.load(Ordering::Acquire)
    }

    /// Whether the other end is gone.
    pub(crate) fn is_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Frames that were shown, and frames that found no room.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.shared.seen.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }

    /// Has the other end let go.
    pub(crate) fn stop(&self) {
        self.shared.unwanted.store(true, Ordering::Relaxed);
    }
}

impl Drop for TapReader {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_frames::{ArenaConfig, Hugepages, Owners};

    fn arena() -> Arena {
        let config = ArenaConfig { frames: 64, frame_size: 2048, hugepages: Hugepages::Never };
        Arena::new(config).unwrap()
    }

    /// A received packet of these bytes, in frames of at most 1000.
    fn receive(arena: &mut Arena, bytes: &[u8]) -> Frame {
        let mut head = Frame::NONE;
        let mut before = Frame::NONE;
        for part in bytes.chunks(1000) {
            let frame = arena.allocate(Owners::RECEIVED).unwrap();
            arena.room_mut(frame)[10..10 + part.len()].copy_from_slice(part);
            let meta = arena.meta_mut(frame);
            (meta.offset, meta.len, meta.total) = (10, part.len() as u16, bytes.len() as u32);
            match before.get() {
                Some(before) => arena.meta_mut(before).next = frame,
                None => head = frame,
            }
            before = frame;
        }
        head
    }

    #[test]
    fn frames_come_out_as_they_passed_cut_at_the_snap_length() {
        let mut arena = arena();
        let bytes: Vec<u8> = (0..9000u32).map(|at| (at % 251) as u8).collect();
        for snap in [1, 60, 2047, 2048, 2049, 4096, 8999, 9000, 20_000] {
            for len in [1, 60, 999, 1000, 2048, 4096, 9000] {
                let (mut tap, mut reader) = tap(snap, 1 << 16);
                let head = receive(&mut arena, &bytes[..len]);
                tap.received(Instant::from_nanos(7), &arena, &[head]);
                let seen = reader.next().unwrap();
                assert_eq!(seen.bytes, &bytes[..len.min(snap)], "snap {snap} len {len}");
                assert_eq!((seen.original, seen.time), (len as u32, Instant::from_nanos(7)));
                assert_eq!(seen.direction, Direction::Inbound);
                assert!(reader.next().is_none());
                arena.release_chain(head, Owners::RECEIVED);
            }
        }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_later_frames_are_seen_again() {
        let mut arena = arena();
        let (mut tap, mut reader) = tap(4096, 4 * size_of::<Piece>());
        let large = receive(&mut arena, &[7; 4000]);
        let small = receive(&mut arena, &[1; 60]);
        let frames = [large, small, large, small, small];
        tap.received(Instant::ZERO, &arena, &frames);
        // Two pieces, one, too few, the one that is left, none.
        assert_eq!(reader.counts(), (3, 2));
        let sizes = |reader: &mut TapReader| {
            core::iter::from_fn(|| reader.next().map(|seen| seen.bytes.len())).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&mut reader), [4000, 60, 60]);
        tap.received(Instant::ZERO, &arena, &frames[..2]);
        assert_eq!(sizes(&mut reader), [4000, 60]);
        assert!(tap.is_wanted() && !reader.is_ended());
        reader.stop();
        assert!(!tap.is_wanted());
        drop(tap);
        assert!(reader.is_ended());
    }
}
