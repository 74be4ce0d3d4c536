//! Packets in one piece between one producer thread and one consumer thread, without a lock.
//!
//! Records and bytes lie one behind the other in one ring. Each side publishes one word a burst:
//! how many packets it has put or taken, and where that left it in the ring. When the producer
//! finds at the beginning of a burst that everything was taken it starts over at the ring's
//! beginning, so a pipe with little in it stays in few cache lines.
//!
//! Sleeping is a bit in the producer's word: the consumer sets it only if the word is still the
//! one that it has seen, and the producer finds it when it replaces the word. One of the two comes
//! first, so no wake-up is lost. Waking itself is the caller's: this module calls no system.
//!
//! Checked with loom: `RUSTFLAGS="--cfg loom" cargo test -p millrace-frames --release --lib loom`.

use core::cell;
use core::fmt;
use core::ptr::NonNull;
use std::sync::Arc;

use crate::meta::ChecksumState;
#[cfg(loom)]
use crate::sync::UnsafeCell;
use crate::sync::{AtomicU32, AtomicU64, Ordering, Padded};
use crate::time::Instant;

/// What travels with a packet's bytes, and lies before them in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// When the packet arrived.
    pub arrival: Instant,
    /// Its bytes.
    pub len: u32,
    /// Payload bytes of each segment when it is a super-segment, else 0.
    pub gso_size: u16,
    /// What is known of its transport checksum.
    pub checksum: ChecksumState,
}

/// Records start at multiples of this, so that the lowest bits of a position are free for flags.
const UNIT: usize = size_of::<Record>();
const _: () = assert!(UNIT == size_of::<u128>() && align_of::<Record>() <= UNIT);
const _: () = assert!(usize::BITS > u32::BITS, "a packet's footprint must not overflow");

/// The consumer sleeps or is about to. In the producer's word.
const ASLEEP: u64 = 1 << 32;
/// The side whose word it is in has left.
const LEFT: u64 = 2 << 32;

/// Packets ever put or taken (modulo 2^32), and the position behind the last of them: what a side
/// publishes, with flags in the position's lowest bits. The count is in the lower half.
#[inline]
fn word(count: u32, at: usize) -> u64 {
    (at as u64) << 32 | u64::from(count)
}

#[inline]
fn count(word: u64) -> u32 {
    word as u32
}

/// Of a word without flags.
#[inline]
fn position(word: u64) -> usize {
    (word >> 32) as usize
}

/// Bytes of the ring that a packet of `len` bytes takes: its record and at least one byte for it,
/// which saves more in code than it costs.
#[inline]
const fn footprint(len: u32) -> usize {
    (len as usize | (UNIT - 1)) + 1 + UNIT
}

/// What the producer writes.
struct Written {
    tail: AtomicU64,
    /// Which packet was put at the ring's beginning last, by its number. There is at most one that
    /// the consumer has not taken: the producer only comes back to the beginning when the packet
    /// that was put there before is gone.
    first: AtomicU32,
    refused: AtomicU64,
}

struct Shared {
    written: Padded<Written>,
    /// Written by the consumer.
    head: Padded<AtomicU64>,
    units: Box<[cell::UnsafeCell<u128>]>,
    /// Tells loom of each access to the units, which are too many things in one for its own cells.
    #[cfg(loom)]
    watched: Box<[UnsafeCell<()>]>,
}

// SAFETY: the producer writes only units that hold no packet, which are those behind `tail` and
// before the oldest packet that `head` says is not taken; the consumer reads only the packets that
// `tail` says are put. Each side stores its own word, with Release after its accesses, and loads
// the other's with Acquire before them. So no unit is written on one side while it is accessed on
// the other.
unsafe impl Sync for Shared {}

/// The end that puts packets in.
pub struct Producer {
    shared: Arc<Shared>,
    memory: Memory,
    /// Packets ever put, and where the next one goes.
    tail: u64,
    /// Where the free room there ends.
    end: usize,
    /// The count at which there are as many packets as there may be, as far as we have seen.
    full: u32,
    /// Most packets.
    limit: u32,
    /// Bytes of the ring.
    size: usize,
}

/// The end that takes packets out.
pub struct Consumer {
    shared: Arc<Shared>,
    memory: Memory,
    /// Packets ever taken, and where the last one ended.
    head: u64,
    /// The producer's word, without flags, as we saw it last.
    seen: u64,
    /// Whether [`Consumer::sleep`] has taken note that the producer has left.
    knows_it_left: bool,
}

/// The ring's bytes, at hand without the way over [`Shared`], which keeps them.
struct Memory(NonNull<u8>);

// SAFETY: the bytes belong to `Shared`, which may be used by two threads; see there for who may
// access which of them.
unsafe impl Send for Memory {}
// SAFETY: as above; a shared reference alone gives nothing but the address.
unsafe impl Sync for Memory {}

/// Makes a pipe for `packets` packets, if none is longer than `longest` bytes, and for `more`
/// bytes of longer ones. Pages are touched when they are needed.
///
/// # Panics
/// When that is more than 2 GiB, or 2^31 packets.
pub fn pipe(packets: usize, longest: u32, more: usize) -> (Producer, Consumer) {
    let size = size(packets, longest, more).filter(|&size| size <= 1 << 31);
    let limit = u32::try_from(packets).ok().filter(|&packets| packets <= 1 << 31);
    let (Some(size), Some(limit)) = (size, limit) else {
        panic!("a pipe for {packets} packets of {longest} bytes is too large");
    };
    let units = Box::into_raw(vec![0u128; size / UNIT].into_boxed_slice())
        as *mut [cell::UnsafeCell<u128>];
    let shared = Arc::new(Shared {
        written: Padded(Written {
            tail: AtomicU64::new(0),
            first: AtomicU32::new(0),
            refused: AtomicU64::new(0),
        }),
        head: Padded(AtomicU64::new(0)),
        // SAFETY: made by `into_raw` of a box that nothing else has, and a cell has the layout of
        // what is in it.
        units: unsafe { Box::from_raw(units) },
        #[cfg(loom)]
        watched: (0..size / UNIT).map(|_| UnsafeCell::new(())).collect(),
    });
    // As a slice of cells, which may be written through a shared reference.
    let memory = || Memory(NonNull::from(&shared.units[..]).cast());
    let consumer = Consumer {
        memory: memory(),
        shared: Arc::clone(&shared),
        head: 0,
        seen: 0,
        knows_it_left: false,
    };
    let memory = memory();
    (Producer { shared, memory, tail: 0, end: size, full: limit, limit, size }, consumer)
}

/// Bytes of the ring of such a [`pipe`]; `None`: more than there can be.
pub fn size(packets: usize, longest: u32, more: usize) -> Option<usize> {
    // One more for the gap at the ring's end.
    let packets = packets.checked_add(1)?.checked_mul(footprint(longest))?;
    packets.checked_add(more.checked_next_multiple_of(UNIT)?)
}

impl Producer {
    /// Begins a burst. False: the consumer has left, so that nobody will take what is put.
    #[inline]
    pub fn begin(&mut self) -> bool {
        // Acquire: what was taken has been read.
        let head = self.shared.head.0.load(Ordering::Acquire);
        if count(head) == count(self.tail) {
            // All is free, so what we knew to be free still is.
            self.put_first();
        }
        head & LEFT == 0
    }

    /// Room for a packet's bytes behind its record. It is put in by [`Slot::put`], and the consumer
    /// sees it after [`Producer::publish`]. `None` when there is no room.
    #[inline(always)]
    pub fn slot(&mut self, record: Record) -> Option<Slot<'_>> {
        let needed = footprint(record.len);
        if (count(self.tail) == self.full || needed > self.end - position(self.tail))
            && !self.find_room(needed)
        {
            return None;
        }
        let (at, len) = (position(self.tail), record.len as usize);
        self.shared.written(at, needed);
        // SAFETY: `needed` bytes from `at` on are within the ring and hold no packet (see
        // `find_room`), so the consumer does not read them before they are published, and the slot
        // keeps us from giving them out again. They were initialised when the ring was made, and a
        // position is a multiple of the record's alignment.
        let bytes = unsafe {
            let to = self.memory.0.as_ptr().add(at);
            to.cast::<Record>().write(record);
            core::slice::from_raw_parts_mut(to.add(UNIT), len)
        };
        let next = word(count(self.tail).wrapping_add(1), at + needed);
        Some(Slot { bytes, next, tail: &mut self.tail })
    }

    /// Counts a packet that found no room, for [`Consumer::refused`].
    pub fn refuse(&mut self) {
        let refused = &self.shared.written.0.refused;
        refused.store(refused.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Ends a burst: the consumer sees what was put. True: it sleeps, and must be woken.
    #[inline]
    #[must_use = "a consumer that sleeps must be woken"]
    pub fn publish(&mut self) -> bool {
        self.replace_tail(self.tail)
    }

    /// Leaves the pipe: nothing more will be put. True as for [`Producer::publish`].
    #[must_use = "a consumer that sleeps must be woken"]
    pub fn leave(&mut self) -> bool {
        self.replace_tail(self.tail | LEFT)
    }

    #[inline]
    fn replace_tail(&mut self, tail: u64) -> bool {
        // Release: what was put has been written.
        self.shared.written.0.tail.swap(tail, Ordering::Release) & ASLEEP != 0
    }

    /// The next packet goes to the ring's beginning.
    #[inline]
    fn put_first(&mut self) {
        let number = count(self.tail);
        self.tail = word(number, 0);
        self.shared.written.0.first.store(number, Ordering::Relaxed);
    }

    /// Looks at what was taken since the last time.
    #[cold]
    #[inline(never)]
    fn find_room(&mut self, needed: usize) -> bool {
        // Acquire: what was taken has been read.
        let head = self.shared.head.0.load(Ordering::Acquire);
        self.full = count(head).wrapping_add(self.limit);
        let at = position(self.tail);
        let first = self.shared.written.0.first.load(Ordering::Relaxed);
        let oldest = if count(head) == first { 0 } else { position(head & !(ASLEEP | LEFT)) };
        let empty = count(head) == count(self.tail);
        if !empty && at <= oldest {
            self.end = oldest;
        } else if empty || needed > self.size - at && needed <= oldest {
            self.end = if empty { self.size } else { oldest };
            self.put_first();
        } else {
            self.end = self.size;
        }
        count(self.tail) != self.full && needed <= self.end - position(self.tail)
    }
}

/// Room for a packet in a pipe. Dropped without [`Slot::put`], it was for nothing.
pub struct Slot<'a> {
    /// Where its bytes belong: as many as its record says.
    pub bytes: &'a mut [u8],
    /// The producer's word after it.
    next: u64,
    tail: &'a mut u64,
}

impl Slot<'_> {
    /// Puts the packet in.
    #[inline(always)]
    pub fn put(self) {
        *self.tail = self.next;
    }
}

impl Consumer {
    /// Begins a burst. Returns how many packets there are.
    #[inline]
    pub fn begin(&mut self) -> usize {
        self.look();
        count(self.seen).wrapping_sub(count(self.head)) as usize
    }

    /// The oldest packet that was there when the burst began. [`Packet::take`] takes it out.
    #[inline(always)]
    pub fn front(&mut self) -> Option<Packet<'_>> {
        if count(self.head) == count(self.seen) {
            return None;
        }
        // SAFETY: there is a packet.
        let (at, record) = unsafe { self.oldest() };
        let next = word(count(self.head).wrapping_add(1), at + footprint(record.len));
        Some(self.packet(at, record, next))
    }

    /// Begins a burst. The packet, if there is one and no other: as [`Consumer::begin`] and
    /// [`Consumer::front`], and shorter.
    #[inline(always)]
    pub fn only(&mut self) -> Option<Packet<'_>> {
        self.look();
        if count(self.head).wrapping_add(1) != count(self.seen) {
            return None;
        }
        // SAFETY: there is a packet.
        let (at, record) = unsafe { self.oldest() };
        // Behind the last packet is where the producer was.
        Some(self.packet(at, record, self.seen))
    }

    #[inline(always)]
    fn look(&mut self) {
        // Acquire: what was put has been written.
        self.seen = self.shared.written.0.tail.load(Ordering::Acquire) & !(ASLEEP | LEFT);
    }

    /// Where the oldest packet is, and its record.
    ///
    /// # Safety
    /// There must be a packet.
    #[inline(always)]
    unsafe fn oldest(&self) -> (usize, Record) {
        // The first in the ring may also be a packet that was put later, but then it is not this
        // one: see there.
        let first = self.shared.written.0.first.load(Ordering::Relaxed);
        let at = if count(self.head) == first { 0 } else { position(self.head) };
        self.shared.read(at, UNIT);
        // SAFETY: the packet's room was not given back, so the producer leaves it alone. A position
        // is a multiple of the record's alignment. Field by field, so that the compiler knows what
        // each can be.
        let Record { arrival, len, gso_size, checksum } =
            unsafe { *self.memory.0.as_ptr().add(at).cast::<Record>() };
        (at, Record { arrival, len, gso_size, checksum })
    }

    #[inline(always)]
    fn packet(&mut self, at: usize, record: Record, next: u64) -> Packet<'_> {
        let (start, len) = (at + UNIT, record.len as usize);
        self.shared.read(start, len);
        // SAFETY: only called with the oldest packet, whose room was not given back, so the
        // producer leaves it alone, and so do we while it is lent.
        let bytes = unsafe { core::slice::from_raw_parts(self.memory.0.as_ptr().add(start), len) };
        Packet { record, bytes, next, head: &mut self.head }
    }

    /// Ends a burst: the producer may use the room of what was taken.
    #[inline]
    pub fn publish(&mut self) {
        // Release: what was taken has been read.
        self.shared.head.0.store(self.head, Ordering::Release);
    }

    /// Whether there is no packet.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.tail_if_empty().is_some()
    }

    /// When the oldest packet arrived.
    pub fn earliest(&self) -> Option<Instant> {
        // SAFETY: there is a packet.
        (!self.is_empty()).then(|| unsafe { self.oldest().1.arrival })
    }

    /// Whether the producer has left and everything was taken.
    pub fn is_over(&self) -> bool {
        self.tail_if_empty().is_some_and(|tail| tail & LEFT != 0)
    }

    /// Packets that found no room, by [`Producer::refuse`].
    pub fn refused(&self) -> u64 {
        self.shared.written.0.refused.load(Ordering::Relaxed)
    }

    /// To be called before sleeping: from now on the producer wakes us. False: do not sleep, for
    /// there is a packet, or the producer has left, which is told once.
    pub fn sleep(&mut self) -> bool {
        let Some(tail) = self.tail_if_empty() else {
            return false;
        };
        if tail & LEFT != 0 && !self.knows_it_left {
            self.knows_it_left = true;
            return false;
        }
        let word = &self.shared.written.0.tail;
        // Relaxed: the two sides meet at this one word, whose values have one order.
        word.compare_exchange(tail, tail | ASLEEP, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// To be called after [`Consumer::sleep`]: the producer need not wake us any more. True: it
    /// has done so, or is about to.
    pub fn awake(&mut self) -> bool {
        self.shared.written.0.tail.fetch_and(!ASLEEP, Ordering::Relaxed) & ASLEEP == 0
    }

    /// Leaves the pipe: nothing more will be taken.
    pub fn leave(&mut self) {
        self.shared.head.0.store(self.head | LEFT, Ordering::Release);
    }

    #[inline]
    fn tail_if_empty(&self) -> Option<u64> {
        let tail = self.shared.written.0.tail.load(Ordering::Acquire);
        (count(tail) == count(self.head)).then_some(tail)
    }
}

/// The oldest packet of a pipe.
pub struct Packet<'a> {
    /// What travelled with it.
    pub record: Record,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The consumer's word after it.
    next: u64,
    head: &'a mut u64,
}

impl Packet<'_> {
    /// Takes the packet out. Its room is given back by [`Consumer::publish`].
    #[inline(always)]
    pub fn take(self) {
        *self.head = self.next;
    }
}

impl Shared {
    /// The producer writes `len` bytes from `at` on.
    #[inline]
    fn written(&self, at: usize, len: usize) {
        debug_assert!(at + len <= self.units.len() * UNIT);
        #[cfg(loom)]
        self.watched[at / UNIT..(at + len).div_ceil(UNIT)].iter().for_each(|u| u.with_mut(|_| ()));
    }

    /// The consumer reads them.
    #[inline]
    fn read(&self, at: usize, len: usize) {
        debug_assert!(at + len <= self.units.len() * UNIT);
        #[cfg(loom)]
        self.watched[at / UNIT..(at + len).div_ceil(UNIT)].iter().for_each(|u| u.with(|_| ()));
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("put", &count(self.tail)).finish_non_exhaustive()
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("taken", &count(self.head)).finish_non_exhaustive()
    }
}

#[cfg(test)]
fn record(len: u32) -> Record {
    Record { arrival: Instant::ZERO, len, gso_size: 0, checksum: ChecksumState::Unknown }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn push(producer: &mut Producer, len: u32, fill: u8) -> bool {
        let Some(slot) = producer.slot(record(len)) else {
            producer.refuse();
            return false;
        };
        slot.bytes.fill(fill);
        slot.put();
        true
    }

    fn take(consumer: &mut Consumer, most: usize, mut packet: impl FnMut(Record, &[u8])) -> usize {
        if let Some(only) = consumer.only() {
            if most > 0 {
                packet(only.record, only.bytes);
                only.take();
                consumer.publish();
            }
            return most.min(1);
        }
        let taken = consumer.begin().min(most);
        for _ in 0..taken {
            let front = consumer.front().unwrap();
            packet(front.record, front.bytes);
            front.take();
        }
        consumer.publish();
        taken
    }

    fn lengths(consumer: &mut Consumer, most: usize) -> Vec<u32> {
        let mut lengths = Vec::new();
        take(consumer, most, |record, _| lengths.push(record.len));
        lengths
    }

    #[test]
    fn a_record_travels_with_its_packet() {
        let (mut producer, mut consumer) = pipe(2, 100, 0);
        assert!(producer.begin() && consumer.is_empty());
        assert_eq!(consumer.earliest(), None);
        let record = Record {
            arrival: Instant::from_nanos(7),
            len: 5,
            gso_size: 1448,
            checksum: ChecksumState::Unfinished,
        };
        assert!(producer.slot(record).is_some(), "and not put in");
        let slot = producer.slot(record).unwrap();
        slot.bytes.copy_from_slice(b"paper");
        slot.put();
        assert!(consumer.is_empty(), "nothing is there before it is published");
        assert!(!producer.publish());
        assert_eq!(consumer.earliest(), Some(record.arrival));
        let taken = take(&mut consumer, 9, |taken, bytes| {
            assert_eq!((taken, bytes), (record, &b"paper"[..]))
        });
        assert_eq!(taken, 1);
        assert_eq!(lengths(&mut consumer, 9), []);
    }

    #[test]
    fn a_packet_that_never_fits_is_refused() {
        let (mut producer, mut consumer) = pipe(2, 100, 0);
        for len in [368, 1 << 31, u32::MAX] {
            assert!(!push(&mut producer, len, 0));
        }
        assert!(push(&mut producer, 367, 0), "all there is");
        let _ = producer.publish();
        assert_eq!(lengths(&mut consumer, 9), [367]);
        assert_eq!(consumer.refused(), 3);
    }

    #[test]
    fn so_many_packets_always_fit_and_one_more_does_not() {
        let (mut producer, mut consumer) = pipe(3, 50, 0);
        // From every place in the ring.
        for turn in 0..20 {
            for _ in 0..3 {
                assert!(push(&mut producer, 50, turn), "{turn}");
            }
            assert!(!push(&mut producer, 0, turn));
            let _ = producer.publish();
            assert_eq!(lengths(&mut consumer, 1), [50]);
            assert!(push(&mut producer, 1 + u32::from(turn), turn));
            let _ = producer.publish();
            assert_eq!(lengths(&mut consumer, 9), [50, 50, 1 + u32::from(turn)]);
        }
        assert_eq!(consumer.refused(), 20);
    }

    #[test]
    fn a_pipe_that_was_emptied_starts_over() {
        let (mut producer, mut consumer) = pipe(100, 100, 0);
        let mut places = Vec::new();
        for _ in 0..10 {
            assert!(producer.begin());
            assert!(push(&mut producer, 100, 0));
            let _ = producer.publish();
            take(&mut consumer, 1, |_, bytes| places.push(bytes.as_ptr()));
        }
        places.dedup();
        assert_eq!(places.len(), 1);
    }

    #[test]
    fn a_consumer_that_sleeps_is_woken_once() {
        let (mut producer, mut consumer) = pipe(4, 100, 0);
        assert!(consumer.sleep());
        assert!(consumer.sleep(), "asleep is asleep");
        assert!(push(&mut producer, 1, 0) && producer.publish());
        assert!(push(&mut producer, 1, 0) && !producer.publish());
        assert!(!consumer.sleep(), "there is something");
        assert!(consumer.awake());
        assert_eq!(lengths(&mut consumer, 9), [1, 1]);
        assert!(consumer.sleep() && !consumer.awake());
        assert!(push(&mut producer, 1, 0) && !producer.publish());
    }

    #[test]
    fn who_leaves_is_missed() {
        let (mut producer, mut consumer) = pipe(4, 100, 0);
        assert!(push(&mut producer, 1, 0));
        assert!(!producer.publish() && !producer.leave());
        assert!(!consumer.is_over());
        assert_eq!(lengths(&mut consumer, 9), [1]);
        assert!(consumer.is_over());
        assert!(!consumer.sleep(), "news");
        assert!(consumer.sleep(), "no news any more");

        let (mut producer, mut consumer) = pipe(4, 100, 0);
        assert!(consumer.sleep());
        assert!(producer.leave() && consumer.awake() && consumer.is_over());

        let (mut producer, mut consumer) = pipe(4, 100, 0);
        assert!(producer.begin());
        consumer.leave();
        assert!(!producer.begin());
    }

    #[test]
    #[should_panic(expected = "too large")]
    fn a_size_beyond_its_bounds_is_refused() {
        let _ = pipe(usize::MAX, 1500, 0);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begin,
        Push(u32),
        Publish,
        Take(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Begin),
            4 => (0..=300u32).prop_map(Step::Push),
            3 => Just(Step::Publish),
            2 => (1..=4usize).prop_map(Step::Take),
        ]
    }

    proptest! {
        /// Any order of calls gives the packets back whole and in order, and refuses only what
        /// does not fit. The counts pass 2^32 on the way.
        #[test]
        fn what_goes_in_comes_out(steps in prop::collection::vec(step(), 1..400)) {
            let (mut producer, mut consumer) = pipe(8, 100, 300);
            let bytes = producer.size;
            let start = u32::MAX - 20;
            (producer.tail, consumer.head) = (word(start, 0), word(start, 0));
            producer.full = start.wrapping_add(producer.limit);
            let shared = &producer.shared;
            shared.written.0.first.store(start, Ordering::Relaxed);
            shared.written.0.tail.store(word(start, 0), Ordering::Relaxed);
            shared.head.0.store(word(start, 0), Ordering::Relaxed);
            let mut put: VecDeque<(u32, u8)> = VecDeque::new();
            let mut published = 0;
            for (number, step) in steps.into_iter().enumerate() {
                let fill = number as u8;
                match step {
                    Step::Begin => prop_assert!(producer.begin()),
                    Step::Push(len) => {
                        if push(&mut producer, len, fill) {
                            put.push_back((len, fill));
                        } else {
                            let held: usize = put.iter().map(|&(len, _)| footprint(len)).sum();
                            // Less than the longest packet may be lost in a gap at the ring's end.
                            let longest = footprint(300);
                            prop_assert!(put.len() == 8 || held + footprint(len) + longest > bytes);
                        }
                    }
                    Step::Publish => {
                        prop_assert!(!producer.publish());
                        published = put.len();
                    }
                    Step::Take(most) => {
                        let mut seen = Vec::new();
                        take(&mut consumer, most, |record, bytes| {
                            let whole = bytes.len() == record.len as usize
                                && bytes.iter().all(|byte| *byte == bytes[0]);
                            seen.push((record.len, bytes.first().copied(), whole));
                        });
                        prop_assert_eq!(seen.len(), most.min(published));
                        published -= seen.len();
                        for (len, first, whole) in seen {
                            let (expected, fill) = put.pop_front().unwrap();
                            prop_assert!(whole && len == expected);
                            prop_assert!(first.is_none_or(|first| first == fill));
                        }
                    }
                }
                prop_assert_eq!(consumer.is_empty(), published == 0);
                prop_assert!(put.len() <= 8);
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Notify;
    use loom::thread;

    fn push(producer: &mut Producer, number: u8, len: u32) -> bool {
        let Some(slot) = producer.slot(record(len)) else {
            producer.refuse();
            return false;
        };
        slot.bytes.fill(number);
        slot.put();
        true
    }

    fn take(consumer: &mut Consumer, numbers: &mut Vec<u8>) {
        fn look(packet: Packet<'_>, numbers: &mut Vec<u8>) {
            assert_eq!(packet.bytes.len(), packet.record.len as usize);
            assert!(packet.bytes.iter().all(|&byte| byte == packet.bytes[0]));
            numbers.push(packet.bytes[0]);
            packet.take();
        }
        if let Some(packet) = consumer.only() {
            look(packet, numbers);
        } else {
            while let Some(packet) = consumer.front() {
                look(packet, numbers);
            }
        }
        consumer.publish();
    }

    /// The ring is short, so that packets go over its end and start over at its beginning.
    #[test]
    fn every_interleaving_keeps_order_and_loses_nothing() {
        loom::model(|| {
            let (mut producer, mut consumer) = pipe(2, 0, 0);
            let thread = thread::spawn(move || {
                let mut put = 0;
                for (number, len) in [(1, 16), (2, 8), (3, 16)] {
                    assert!(producer.begin());
                    put += usize::from(push(&mut producer, number, len));
                    assert!(!producer.publish());
                }
                put
            });
            let mut numbers = Vec::new();
            for _ in 0..2 {
                take(&mut consumer, &mut numbers);
            }
            let put = thread.join().unwrap();
            while !consumer.is_empty() {
                take(&mut consumer, &mut numbers);
            }
            assert_eq!(numbers.len(), put);
            assert_eq!(numbers.len() + consumer.refused() as usize, 3);
            assert!(numbers.is_sorted_by(|a, b| a < b));
        });
    }

    /// Loom calls it a deadlock when the consumer waits and nobody wakes it.
    #[test]
    fn nobody_sleeps_through_a_packet_or_a_farewell() {
        loom::model(|| {
            let (mut producer, mut consumer) = pipe(2, 16, 0);
            let bell = loom::sync::Arc::new(Notify::new());
            let heard = loom::sync::Arc::clone(&bell);
            let thread = thread::spawn(move || {
                for number in 1..=2 {
                    assert!(push(&mut producer, number, 1));
                    if producer.publish() {
                        bell.notify();
                    }
                }
                if producer.leave() {
                    bell.notify();
                }
            });
            let mut numbers = Vec::new();
            while !consumer.is_over() {
                take(&mut consumer, &mut numbers);
                if consumer.sleep() {
                    // Now and then loom ends a wait for no reason, as a kernel may.
                    heard.wait();
                    consumer.awake();
                }
            }
            assert_eq!(numbers, [1, 2]);
            thread.join().unwrap();
        });
    }

    /// A consumer that wakes by itself (a timer, another descriptor) and one that is woken agree
    /// on whether the bell was rung.
    #[test]
    fn both_sides_agree_on_whether_the_bell_was_rung() {
        loom::model(|| {
            let (mut producer, mut consumer) = pipe(2, 16, 0);
            let thread = thread::spawn(move || {
                assert!(push(&mut producer, 1, 1));
                producer.publish()
            });
            let taken = consumer.sleep() && consumer.awake();
            assert_eq!(thread.join().unwrap(), taken);
        });
    }

    /// What the consumer leaves behind, the producer may find at any time and is not harmed by.
    #[test]
    fn a_consumer_leaves_at_any_time() {
        loom::model(|| {
            let (mut producer, mut consumer) = pipe(1, 16, 0);
            let mut seen = Vec::new();
            let thread = thread::spawn(move || {
                let mut put = 0;
                for number in 1..=2 {
                    if producer.begin() {
                        put += u32::from(push(&mut producer, number, 16));
                        let _ = producer.publish();
                    }
                }
                put
            });
            take(&mut consumer, &mut seen);
            consumer.leave();
            drop(consumer);
            assert!(thread.join().unwrap() as usize >= seen.len());
        });
    }
}
