//! A reader's hold on a frame, which may outlive the turn, the arena and the thread.
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
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            self.before[frame.index() as usize].store(head, Ordering::Relaxed);
            // Release: the reader's last look at the bytes happens before the arena's reuse.
            match self.head.compare_exchange_weak(
                head,
                frame.index(),
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
