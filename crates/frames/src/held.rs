//! A reader's hold on a frame, or on those of a burst, which may outlive the turn, the arena and the
//! thread.
//!
//! Dropping a [`Held`] puts the frame's number on a list that any thread may push to and that only
//! the arena empties, whole, so there is no ABA problem and no lock.

use core::ops::Deref;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use crate::mapping::Mapping;
use crate::meta::Frame;

/// What an arena and its readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    mapping: Mapping,
    /// Last frame returned.
    head: AtomicU32,
    /// For each returned frame the one that was returned before it.
    before: Box<[AtomicU32]>,
}

impl Shared {
    pub(crate) fn new(mapping: Mapping, frames: u32) -> Self {
        Shared {
            mapping,
            head: AtomicU32::new(Frame::NONE.index()),
            before: (0..frames).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    #[inline]
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn give_back(&self, frame: Frame) {
        self.push(frame, frame);
    }

    /// Many frames with one change of the list's head.
    fn give_back_all(&self, frames: &[Frame]) {
        let (Some(&first), Some(&last)) = (frames.first(), frames.last()) else { return };
        for pair in frames.windows(2) {
            self.before[pair[0].index() as usize].store(pair[1].index(), Ordering::Relaxed);
        }
        self.push(first, last);
    }

    /// Puts a list of frames, linked from `first` to `last`, before those that were returned.
    fn push(&self, first: Frame, last: Frame) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            self.before[last.index() as usize].store(head, Ordering::Relaxed);
            // Release: the reader's last look at the bytes happens before the arena's reuse.
            match self.head.compare_exchange_weak(
                head,
                first.index(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    #[inline]
    pub(crate) fn nothing_returned(&self) -> bool {
        self.head.load(Ordering::Relaxed) == Frame::NONE.index()
    }

    pub(crate) fn take_returned(&self) -> Frame {
        Frame::new(self.head.swap(Frame::NONE.index(), Ordering::Acquire))
    }

    pub(crate) fn returned_after(&self, frame: Frame) -> Frame {
        Frame::new(self.before[frame.index() as usize].load(Ordering::Relaxed))
    }
}

/// Bytes of one frame, kept unchanged and mapped for as long as this lives. Dereferences to them.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    frame: Frame,
    start: usize,
    len: usize,
}

impl Held {
    /// `start` is counted from the mapping's first byte; the arena has checked the range and
    /// marked the frame as held.
    pub(crate) fn new(shared: Arc<Shared>, frame: Frame, start: usize, len: usize) -> Self {
        Held { shared, frame, start, len }
    }
}

impl Deref for Held {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the arena checked that the range lies within one frame of this mapping, which
        // `shared` keeps mapped. The frame is marked HELD until our drop has been collected, and a
        // frame so marked is written neither by the arena (it asserts) nor by the kernel (it is
        // not FILL).
        unsafe {
            core::slice::from_raw_parts(
                self.shared.mapping.base().as_ptr().add(self.start),
                self.len,
            )
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.give_back(self.frame);
    }
}

/// The bytes of many frames, kept unchanged and mapped for as long as this lives: what one reader
/// has of a burst, at the cost of one reference and one list operation for all of it.
#[derive(Debug)]
pub struct HeldFrames {
    shared: Arc<Shared>,
    frames: Box<[Frame]>,
    frame_size: usize,
}

impl HeldFrames {
    /// The arena has marked all of the frames as held.
    pub(crate) fn new(shared: Arc<Shared>, frames: Box<[Frame]>, frame_size: usize) -> Self {
        HeldFrames { shared, frames, frame_size }
    }

    /// The frames, in the order in which they were held.
    #[inline]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Bytes of a frame.
    #[inline]
    pub fn frame_size(&self) -> usize {
        self.frame_size
    }

    /// Bytes `start..start + len` of the room of the frame at `position` of
    /// [`HeldFrames::frames`].
    ///
    /// # Panics
    /// When there is no such frame, or the range leaves it.
    #[inline]
    pub fn bytes(&self, position: usize, start: usize, len: usize) -> &[u8] {
        let frame = self.frames[position];
        assert!(start <= self.frame_size && len <= self.frame_size - start);
        // SAFETY: the arena made the frame, so it lies within the mapping, which `shared` keeps
        // mapped, and the range lies within the frame. The frame is marked HELD until our drop has
        // been collected, so nobody writes it, as for `Held`.
        unsafe {
            let base = self.shared.mapping.base().as_ptr();
            let start = frame.index() as usize * self.frame_size + start;
            core::slice::from_raw_parts(base.add(start), len)
        }
    }

    /// Where the first byte of all frames is, held or not, and how many bytes they have. Frame
    /// number `n` starts at `n` times the frame's size. What lies outside the held frames changes
    /// at any time, so Rust may not look at it; it is for a user who is told places in it.
    pub fn memory(&self) -> (*const u8, usize) {
        (self.shared.mapping.base().as_ptr(), self.shared.before.len() * self.frame_size)
    }
}

impl Drop for HeldFrames {
    fn drop(&mut self) {
        self.shared.give_back_all(&self.frames);
    }
}
