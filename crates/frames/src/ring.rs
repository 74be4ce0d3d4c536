//! A bounded ring between one producer thread and one consumer thread.
//!
//! The index that the other side owns is cached and read again only when the cached value says
//! full or empty, so a burst costs one cache line transfer and not one for each item. Checked with
//! loom: `RUSTFLAGS="--cfg loom" cargo test -p millrace-frames --release --lib ring`.

use core::mem::MaybeUninit;
use std::sync::Arc;

use crate::sync::{AtomicUsize, Ordering, Padded, UnsafeCell};

struct Ring<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Items ever taken. Written by the consumer.
    head: Padded<AtomicUsize>,
    /// Items ever put. Written by the producer.
    tail: Padded<AtomicUsize>,
}

// SAFETY: the producer writes only slots in tail..head+capacity and the consumer reads only slots
// in head..tail, each side moves only its own index, with Release after the access and Acquire
// before the other's; so no slot is accessed from both sides at once. `T: Send` lets items move.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: as above; the ring owns its items.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let (mut head, tail) =
            (self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed));
        while head != tail {
            let slot = &self.slots[head & (self.slots.len() - 1)];
            // SAFETY: slots head..tail hold items that nobody took, and `&mut self` is exclusive.
            slot.with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The end that puts items in.
pub struct Producer<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
    cached_head: usize,
}

/// The end that takes items out.
pub struct Consumer<T> {
    ring: Arc<Ring<T>>,
    head: usize,
    cached_tail: usize,
}

/// Makes a ring for `capacity` items, rounded up to a power of two (at least 1).
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let ring = Arc::new(Ring {
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
    });
    (
        Producer { ring: Arc::clone(&ring), tail: 0, cached_head: 0 },
        Consumer { ring, head: 0, cached_tail: 0 },
    )
}

impl<T> Producer<T> {
    /// Puts an item in. Gives it back when the ring is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let capacity = self.ring.slots.len();
        if self.tail.wrapping_sub(self.cached_head) == capacity {
            self.cached_head = self.ring.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.cached_head) == capacity {
                return Err(item);
            }
        }
        // SAFETY: the slot at `tail` is free (checked above) and the consumer does not read it
        // before the store below.
        self.ring.slots[self.tail & (capacity - 1)].with_mut(|slot| unsafe {
            (*slot).write(item);
        });
        self.tail = self.tail.wrapping_add(1);
        self.ring.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest item out.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.cached_tail {
            self.cached_tail = self.ring.tail.0.load(Ordering::Acquire);
            if self.head == self.cached_tail {
                return None;
            }
        }
        let slot = &self.ring.slots[self.head & (self.ring.slots.len() - 1)];
        // SAFETY: the slot at `head` holds an item (checked above); moving `head` past it makes
        // this the only time it is read.
        let item = slot.with(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.ring.head.0.store(self.head, Ordering::Release);
        Some(item)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn full_and_empty() {
        let (mut producer, mut consumer) = ring(2);
        assert_eq!(consumer.pop(), None);
        producer.push(1).unwrap();
        producer.push(2).unwrap();
        assert_eq!(producer.push(3), Err(3));
        assert_eq!(consumer.pop(), Some(1));
        producer.push(3).unwrap();
        assert_eq!((consumer.pop(), consumer.pop(), consumer.pop()), (Some(2), Some(3), None));
    }

    #[test]
    fn items_left_inside_are_dropped() {
        let token = Arc::new(());
        let (mut producer, consumer) = ring(4);
        producer.push(Arc::clone(&token)).unwrap();
        producer.push(Arc::clone(&token)).unwrap();
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn order_is_kept_between_threads() {
        let (mut producer, mut consumer) = ring(8);
        let thread = std::thread::spawn(move || {
            for item in 0..10_000u32 {
                while producer.push(item).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        for expected in 0..10_000 {
            let item = loop {
                match consumer.pop() {
                    Some(item) => break item,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(item, expected);
        }
        thread.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn every_interleaving_keeps_order_and_loses_nothing() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring(2);
            let thread = loom::thread::spawn(move || {
                let mut refused = 0;
                for item in 0..3u32 {
                    if producer.push(Box::new(item)).is_err() {
                        refused += 1;
                    }
                }
                refused
            });
            let mut taken = Vec::new();
            for _ in 0..3 {
                if let Some(item) = consumer.pop() {
                    taken.push(*item);
                }
            }
            let refused = thread.join().unwrap();
            while let Some(item) = consumer.pop() {
                taken.push(*item);
            }
            assert_eq!(taken.len() + refused, 3);
            assert!(taken.windows(2).all(|pair| pair[0] < pair[1]));
        });
    }
}
