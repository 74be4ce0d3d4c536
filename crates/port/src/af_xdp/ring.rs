//! The rings that a process shares with the kernel: one side writes, the other reads, and each
//! publishes how far it is in a counter of its own.
//!
//! Counters run freely through all 32 bits and are masked only to find a slot. A side looks at the
//! other's counter only when the value it remembers is not enough, because that load is a cache
//! miss while the other side is at work. The orderings are those of the kernel's `xsk_queue.h`:
//! slots are written before the producer's counter is released, and read after it is acquired.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::sys::{Layout, RingOffsets, XDP_RING_NEED_WAKEUP};

/// Mapped memory of one ring.
#[derive(Debug)]
struct Memory {
    base: NonNull<u8>,
    len: usize,
}

impl Memory {
    fn map(fd: i32, flags: i32, len: usize, page_offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing existing.
        let base =
            unsafe { libc::mmap(core::ptr::null_mut(), len, protection, flags, fd, page_offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned 0"))?;
        Ok(Memory { base, len })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, unmapped once; the views of it ended before.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Where the parts of a ring are, and how many slots it has.
#[derive(Debug)]
struct View<T> {
    memory: Memory,
    offsets: [usize; 4],
    size: u32,
    slots: PhantomData<T>,
}

// SAFETY: a view owns its mapping, which has no thread affinity.
unsafe impl<T: Send> Send for View<T> {}

impl<T: Layout> View<T> {
    fn map(
        socket: BorrowedFd<'_>,
        offsets: RingOffsets,
        size: u32,
        page_offset: i64,
    ) -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        let len = offsets.slots as usize + size as usize * size_of::<T>();
        let memory = Memory::map(socket.as_raw_fd(), flags, len, page_offset)?;
        Self::within(memory, offsets, size)
    }

    /// Checks once what every access relies on.
    fn within(memory: Memory, offsets: RingOffsets, size: u32) -> io::Result<Self> {
        let counters = [offsets.producer, offsets.consumer, offsets.flags];
        let counters_fit =
            counters.iter().all(|&at| at.is_multiple_of(4) && at + 4 <= memory.len as u64);
        let slots_end = offsets.slots + u64::from(size) * size_of::<T>() as u64;
        let slots_fit =
            offsets.slots.is_multiple_of(align_of::<T>() as u64) && slots_end <= memory.len as u64;
        if !size.is_power_of_two() || !counters_fit || !slots_fit {
            return Err(io::Error::other(format!("a ring of {size} slots has no sound layout")));
        }
        let offsets = [offsets.producer, offsets.consumer, offsets.slots, offsets.flags];
        Ok(View { memory, offsets: offsets.map(|at| at as usize), size, slots: PhantomData })
    }

    #[inline]
    fn counter(&self, part: usize) -> &AtomicU32 {
        // SAFETY: `within` checked that four aligned bytes lie there; kernel and process access
        // them as atomic words only, and they stay mapped as long as `self`.
        unsafe { &*self.memory.base.as_ptr().add(self.offsets[part]).cast::<AtomicU32>() }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        self.counter(0)
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        self.counter(1)
    }

    #[inline]
    fn slot(&self, index: u32) -> *mut T {
        // SAFETY: the masked index is below `size`, and `within` checked that `size` aligned slots
        // lie there.
        unsafe {
            let first = self.memory.base.as_ptr().add(self.offsets[2]).cast::<T>();
            first.add((index & (self.size - 1)) as usize)
        }
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        // The kernel sets the flag before it looks at the ring for the last time, and a ring is
        // published before the flag is read: without the fence both could miss the other.
        fence(Ordering::SeqCst);
        self.counter(3).load(Ordering::Relaxed) & XDP_RING_NEED_WAKEUP != 0
    }
}

/// A ring that the process writes: fill or transmit.
#[derive(Debug)]
pub(super) struct Producer<T> {
    view: View<T>,
    /// Written, though not all of it published.
    written: u32,
    published: u32,
    /// The consumer's counter as last seen, plus the size: what may be written up to here.
    limit: u32,
}

impl<T: Layout> Producer<T> {
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        offsets: RingOffsets,
        size: u32,
        page_offset: i64,
    ) -> io::Result<Self> {
        Ok(Self::new(View::map(socket, offsets, size, page_offset)?))
    }

    fn new(view: View<T>) -> Self {
        let written = view.producer().load(Ordering::Relaxed);
        let limit = view.consumer().load(Ordering::Acquire).wrapping_add(view.size);
        Producer { view, written, published: written, limit }
    }

    /// How many slots are free, looking again only if fewer than `wanted` are known to be.
    #[inline]
    pub(super) fn free(&mut self, wanted: u32) -> u32 {
        let known = self.limit.wrapping_sub(self.written);
        if known >= wanted {
            return known;
        }
        let consumer = self.view.consumer().load(Ordering::Acquire);
        self.limit = consumer.wrapping_add(self.view.size);
        self.limit.wrapping_sub(self.written)
    }

    /// Writes the next slot; `false` if `free` has not found one.
    #[inline]
    pub(super) fn push(&mut self, value: T) -> bool {
        if self.limit == self.written {
            return false;
        }
        // SAFETY: the slot is in bounds, and it is free: the consumer does not read it before it
        // is published.
        unsafe { self.view.slot(self.written).write(value) };
        self.written = self.written.wrapping_add(1);
        true
    }

    /// Lets the kernel see what was pushed. Returns how many slots that is.
    #[inline]
    pub(super) fn publish(&mut self) -> u32 {
        let count = self.written.wrapping_sub(self.published);
        if count > 0 {
            self.view.producer().store(self.written, Ordering::Release);
            self.published = self.written;
        }
        count
    }

    /// Published slots that the kernel has not taken yet.
    #[inline]
    pub(super) fn untaken(&self) -> u32 {
        self.published.wrapping_sub(self.view.consumer().load(Ordering::Acquire))
    }

    /// The entry that is `back` places before the next one that the kernel will take.
    pub(super) fn near_consumer(&self, back: u32) -> T {
        let index = self.view.consumer().load(Ordering::Acquire).wrapping_sub(back);
        // SAFETY: the slot is in bounds; only this side writes it, and any bytes are a value.
        unsafe { self.view.slot(index).read() }
    }

    /// Whether the kernel must be called to look at the ring.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.view.needs_wakeup()
    }
}

/// A ring that the process reads: receive or completion.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    view: View<T>,
    read: u32,
    released: u32,
    /// The producer's counter as last seen.
    limit: u32,
}

impl<T: Layout> Consumer<T> {
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        offsets: RingOffsets,
        size: u32,
        page_offset: i64,
    ) -> io::Result<Self> {
        Ok(Self::new(View::map(socket, offsets, size, page_offset)?))
    }

    fn new(view: View<T>) -> Self {
        let read = view.consumer().load(Ordering::Relaxed);
        let limit = view.producer().load(Ordering::Acquire);
        Consumer { view, read, released: read, limit }
    }

    /// How many entries wait, looking again only if none is known of.
    #[inline]
    pub(super) fn waiting(&mut self) -> u32 {
        if self.limit == self.read {
            self.limit = self.view.producer().load(Ordering::Acquire);
        }
        self.limit.wrapping_sub(self.read)
    }

    /// Takes the next entry; `None` if `waiting` has not found one.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.limit == self.read {
            return None;
        }
        // SAFETY: the slot is in bounds, and the kernel has published it and writes it no more
        // before it is released.
        let value = unsafe { self.view.slot(self.read).read() };
        self.read = self.read.wrapping_add(1);
        Some(value)
    }

    /// Gives the slots of what was taken back to the kernel.
    #[inline]
    pub(super) fn release(&mut self) {
        if self.released != self.read {
            self.view.consumer().store(self.read, Ordering::Release);
            self.released = self.read;
        }
    }

    /// Whether an entry waits, without taking note of it.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.view.producer().load(Ordering::Acquire) == self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSETS: RingOffsets = RingOffsets { producer: 0, consumer: 64, slots: 192, flags: 128 };

    /// Both ends of one ring whose counters start at `first`. The ends share the memory, which
    /// the consumer's view must not free: it is unmapped by the producer.
    fn pair(size: u32, first: u32) -> (Producer<u64>, std::mem::ManuallyDrop<Consumer<u64>>) {
        let len = OFFSETS.slots as usize + size as usize * 8;
        let memory = Memory::map(-1, libc::MAP_SHARED | libc::MAP_ANONYMOUS, len, 0).unwrap();
        let same = Memory { base: memory.base, len };
        let view = View::<u64>::within(memory, OFFSETS, size).unwrap();
        view.producer().store(first, Ordering::Relaxed);
        view.consumer().store(first, Ordering::Relaxed);
        let other = View::within(same, OFFSETS, size).unwrap();
        (Producer::new(view), std::mem::ManuallyDrop::new(Consumer::new(other)))
    }

    #[test]
    fn what_goes_in_comes_out_in_order_across_the_wrap() {
        for first in [0, 5, u32::MAX - 2] {
            let (mut producer, mut consumer) = pair(4, first);
            for round in 0..5u64 {
                assert_eq!(producer.free(4), 4);
                for value in 0..4 {
                    assert!(producer.push(round * 10 + value));
                }
                assert!(!producer.push(99), "full");
                assert_eq!(consumer.waiting(), 0, "not published yet");
                assert_eq!(producer.publish(), 4);
                assert_eq!(producer.untaken(), 4);
                assert_eq!(producer.free(1), 0);
                assert_eq!(consumer.waiting(), 4);
                for value in 0..4 {
                    assert_eq!(consumer.pop(), Some(round * 10 + value));
                }
                assert_eq!(consumer.pop(), None);
                assert_eq!(producer.free(1), 0, "not released yet");
                consumer.release();
                assert_eq!(producer.untaken(), 0);
            }
        }
    }

    #[test]
    fn two_threads_pass_everything_once() {
        let (mut producer, mut consumer) = pair(16, u32::MAX - 1000);
        let sent = 200_000u64;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut next = 0;
                while next < sent {
                    for _ in 0..producer.free(5).min(5).min((sent - next) as u32) {
                        assert!(producer.push(next));
                        next += 1;
                    }
                    if producer.publish() == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < sent {
                if consumer.waiting() == 0 {
                    std::thread::yield_now();
                }
                while let Some(value) = consumer.pop() {
                    assert_eq!(value, expected);
                    expected += 1;
                }
                consumer.release();
            }
            assert!(consumer.is_empty());
        });
    }

    #[test]
    fn wakeup_flag_is_seen() {
        let (producer, _consumer) = pair(4, 0);
        assert!(!producer.needs_wakeup());
        producer.view.counter(3).store(XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }

    #[test]
    fn unsound_layouts_are_refused() {
        for (offsets, size) in [
            (OFFSETS, 3),
            (OFFSETS, 0),
            (RingOffsets { slots: 196, ..OFFSETS }, 4),
            (RingOffsets { producer: 1 << 20, ..OFFSETS }, 4),
            (RingOffsets { flags: 2, ..OFFSETS }, 4),
            (OFFSETS, 1 << 20),
        ] {
            let memory = Memory::map(-1, libc::MAP_SHARED | libc::MAP_ANONYMOUS, 4096, 0).unwrap();
            assert!(View::<u64>::within(memory, offsets, size).is_err());
        }
    }
}
