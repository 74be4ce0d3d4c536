//! Bursts: what passes between a port and a stack in one turn.

use core::ops::{Deref, DerefMut};

use crate::meta::Frame;

/// Most packets in one batch.
pub const BURST: usize = 64;

/// A list of at most [`BURST`] things, without allocation.
#[derive(Clone, Debug)]
pub struct Batch<T: Copy + Default> {
    items: [T; BURST],
    len: usize,
    /// What [`Batch::room`] counts up to.
    limit: usize,
}

/// Received packets: the first frame of each; the rest is in the frames' [`crate::Meta`].
pub type RxBatch = Batch<Frame>;
/// Packets to transmit.
pub type TxBatch = Batch<Transmit>;

impl<T: Copy + Default> Batch<T> {
    /// An empty batch.
    pub fn new() -> Self {
        Batch::with_limit(BURST)
    }

    /// An empty batch whose [`Batch::room`] is that for `limit` items, 1 to [`BURST`]: a port puts
    /// no more into it.
    pub fn with_limit(limit: usize) -> Self {
        Batch { items: [T::default(); BURST], len: 0, limit: limit.clamp(1, BURST) }
    }

    /// Adds an item. Gives it back when the batch is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        match self.items.get_mut(self.len) {
            Some(slot) => {
                *slot = item;
                self.len += 1;
                Ok(())
            }
            None => Err(item),
        }
    }

    /// Adds an item that is made in its place: one that is made elsewhere, field by field, and then
    /// copied in larger pieces, waits for its own stores. Returns false, with nothing made, when the
    /// batch is full.
    #[inline(always)]
    pub fn push_with(&mut self, make: impl FnOnce() -> T) -> bool {
        match self.items.get_mut(self.len) {
            Some(slot) => {
                *slot = make();
                self.len += 1;
                true
            }
            None => false,
        }
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many more there is room for.
    #[inline]
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.len)
    }

    /// Whether there is no room.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len >= self.limit
    }

    /// Forgets all items. Frames they name are not released.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Removes the first `count` items, keeping the order of the rest.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.len);
        self.items.copy_within(count..self.len, 0);
        self.len -= count;
    }
}

impl<T: Copy + Default> Default for Batch<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy + Default> Deref for Batch<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` is never more than there are items.
        unsafe { self.items.get_unchecked(..self.len) }
    }
}

impl<T: Copy + Default> DerefMut for Batch<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { self.items.get_unchecked_mut(..self.len) }
    }
}

/// A packet to transmit: the first `len` bytes are at `offset` in `head`; where `frames` is more
/// than one, the bytes of the frames that follow it (by `next`) come after. Who makes one marks
/// every frame in it [`crate::Owners::TRANSMIT`]; the port ends that mark when it is done.
///
/// The place in the first frame stands here and not in its [`crate::Meta`], because that one
/// describes the payload, which is kept until it is acknowledged, while headers come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transmit {
    /// First frame.
    pub head: Frame,
    /// Bytes of the whole packet.
    pub total: u32,
    /// Where the packet starts in the first frame's room.
    pub offset: u16,
    /// Bytes of the packet in the first frame.
    pub len: u16,
    /// Number of frames, at least 1.
    pub frames: u16,
    /// Payload bytes of each segment that a super-segment is to be cut into, else 0.
    pub gso_size: u16,
    /// Where the port must start to sum if it is to finish the transport checksum (whose field
    /// holds the pseudo-header's sum), counted from the packet's first byte; 0: it is finished.
    pub checksum_start: u16,
    /// Where the checksum field is, counted from `checksum_start`.
    pub checksum_offset: u16,
    /// Whether the packet carries IPv6 (a port that cuts super-segments must know).
    pub ipv6: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_batch_gives_the_item_back() {
        let mut batch = RxBatch::new();
        for index in 0..BURST as u32 {
            batch.push(Frame::new(index)).unwrap();
        }
        assert_eq!(batch.push(Frame::new(99)), Err(Frame::new(99)));
        assert_eq!(batch.len(), BURST);
    }

    #[test]
    fn a_limited_batch_has_that_much_room() {
        let mut batch = RxBatch::with_limit(2);
        assert_eq!((batch.room(), batch.is_full()), (2, false));
        batch.push(Frame::new(1)).unwrap();
        batch.push(Frame::new(2)).unwrap();
        assert_eq!((batch.room(), batch.is_full()), (0, true));
        assert_eq!(RxBatch::with_limit(0).room(), 1);
        assert_eq!(RxBatch::with_limit(1000).room(), BURST);
    }

    #[test]
    fn consume_keeps_the_order() {
        let mut batch = RxBatch::new();
        for index in 0..5 {
            batch.push(Frame::new(index)).unwrap();
        }
        batch.consume(2);
        assert_eq!(&batch[..], &[Frame::new(2), Frame::new(3), Frame::new(4)]);
        batch.consume(99);
        assert!(batch.is_empty());
    }
}
