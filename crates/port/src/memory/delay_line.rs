//! An impaired direction: a link with a rate and a queue before it, then a delay, and what may go
//! wrong on the way. Packets are kept in order of arrival.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io;

use millrace_frames::{Arena, ChecksumState, Duration, Instant, Transmit};

use super::queue::Record;
use super::random::Random;
use crate::copy;

const ETHERNET_HEADER: usize = 14;

/// What may go wrong with packets of one direction. The default is a perfect wire.
///
/// A super-segment is one packet here: it is lost, delayed or damaged whole. For impairments of
/// each segment, join the ends without `gso`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairment {
    /// Probability that a packet is lost.
    pub loss: f64,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Probability that one bit behind the Ethernet header arrives flipped. A checksum that was
    /// left unfinished is finished before, so the receiver can tell.
    pub corrupt: f64,
    /// Time on the wire.
    pub delay: Duration,
    /// Up to so much more time on the wire, evenly distributed. Jitter alone keeps the order.
    pub jitter: Duration,
    /// Probability that a packet takes `reorder_delay` longer, and that others overtake it.
    pub reorder: f64,
    /// How much longer a reordered packet takes.
    pub reorder_delay: Duration,
    /// Bits of Ethernet frames (without preamble, check sequence and gap) that leave in a second;
    /// `None`: as many as come.
    pub rate_bits_per_s: Option<u64>,
    /// Bytes that may wait to leave when there is a rate; more are dropped (tail drop). A packet
    /// that need not wait is always taken.
    pub queue_bytes: u64,
}

impl Default for Impairment {
    fn default() -> Self {
        Impairment {
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: 0.0,
            reorder_delay: Duration::ZERO,
            rate_bits_per_s: None,
            queue_bytes: 256 << 10,
        }
    }
}

impl Impairment {
    /// Whether nothing goes wrong.
    pub fn is_none(&self) -> bool {
        Impairment { queue_bytes: 0, ..*self } == Impairment { queue_bytes: 0, ..Self::default() }
    }

    pub(super) fn validate(&self) -> io::Result<()> {
        let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        for (name, probability) in [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
            ("reorder", self.reorder),
        ] {
            if !(0.0..=1.0).contains(&probability) {
                return invalid(format!("{name} is a probability from 0 to 1, not {probability}"));
            }
        }
        for (name, time) in
            [("delay", self.delay), ("jitter", self.jitter), ("reorder_delay", self.reorder_delay)]
        {
            if time > Duration::from_secs(3600) {
                return invalid(format!("{name} is at most one hour, not {time:?}"));
            }
        }
        if self.rate_bits_per_s == Some(0) {
            return invalid("a rate of 0 bit/s carries nothing; leave the rate out".into());
        }
        Ok(())
    }
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(rate) = self.rate_bits_per_s {
            parts.push(format!("rate {rate} bit/s behind {} bytes", self.queue_bytes));
        }
        for (name, time) in [("delay", self.delay), ("jitter", self.jitter)] {
            if !time.is_zero() {
                parts.push(format!("{name} {time:?}"));
            }
        }
        for (name, probability) in
            [("loss", self.loss), ("duplicate", self.duplicate), ("corrupt", self.corrupt)]
        {
            if probability > 0.0 {
                parts.push(format!("{name} {probability}"));
            }
        }
        if self.reorder > 0.0 {
            parts.push(format!("reorder {} by {:?}", self.reorder, self.reorder_delay));
        }
        f.write_str(if parts.is_empty() { "none" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// What became of a packet that was put on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is on its way.
    Sent,
    /// Lost on purpose.
    Lost,
    /// It found the queue before the link full.
    QueueFull,
    /// It is under way, but the wire holds no more packets, so it will not arrive.
    WireFull,
}

/// What happened on the way, besides the drops.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mishaps {
    pub(super) duplicated: u64,
    pub(super) corrupted: u64,
    pub(super) reordered: u64,
    /// Copies that found no room on the wire.
    pub(super) duplicates_dropped: u64,
}

#[derive(Debug)]
pub(super) struct DelayLine {
    impairment: Impairment,
    random: Random,
    cells: Box<[u8]>,
    cell: usize,
    free: Vec<u32>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Packets ever put on the line; those that arrive at the same time keep this order.
    sequence: u64,
    /// When the link will have sent all that waits, and the fraction of a nanosecond behind it in
    /// units of one over the rate.
    link_free: Instant,
    link_fraction: u64,
    /// Arrival of the latest packet that was not reordered.
    latest: Instant,
    mishaps: Mishaps,
}

#[derive(Debug)]
struct Waiting {
    sequence: u64,
    record: Record,
}

impl Waiting {
    fn key(&self) -> (Instant, u64) {
        (self.record.arrival, self.sequence)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl DelayLine {
    /// Holds `limit` packets of at most `largest` bytes. Pages are touched when they are needed.
    pub(super) fn new(impairment: Impairment, seed: u64, limit: usize, largest: usize) -> Self {
        let cell = Self::cell_size(largest);
        DelayLine {
            impairment,
            random: Random::new(seed),
            cells: vec![0; limit * cell].into_boxed_slice(),
            cell,
            free: (0..limit as u32).rev().collect(),
            waiting: BinaryHeap::with_capacity(limit),
            sequence: 0,
            link_free: Instant::ZERO,
            link_fraction: 0,
            latest: Instant::ZERO,
            mishaps: Mishaps::default(),
        }
    }

    /// An odd number of cache lines, so that the cells' first lines spread over all cache sets.
    pub(super) fn cell_size(largest: usize) -> usize {
        (largest.div_ceil(64) | 1) * 64
    }

    pub(super) fn mishaps(&self) -> Mishaps {
        self.mishaps
    }

    /// When the next packet arrives.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.record.arrival)
    }

    pub(super) fn push(
        &mut self,
        now: Instant,
        arena: &Arena,
        packet: &Transmit,
        checksum: ChecksumState,
    ) -> Fate {
        if self.random.happens(self.impairment.loss) {
            return Fate::Lost;
        }
        let Some(left) = self.leave(now, packet.total) else {
            return Fate::QueueFull;
        };
        let arrival = self.arrival(left);
        let Some(cell) = self.free.pop() else {
            return Fate::WireFull;
        };
        let start = cell as usize * self.cell;
        let bytes = &mut self.cells[start..start + packet.total as usize];
        let len = copy::gather(arena, packet, bytes);
        debug_assert_eq!(len, bytes.len(), "the frames of a packet must hold its total");
        let mut record = Record {
            start: start as u32,
            len: len as u32,
            arrival,
            gso_size: packet.gso_size,
            checksum,
        };
        if len > 0 && self.random.happens(self.impairment.corrupt) {
            let bytes = &mut self.cells[start..start + len];
            if packet.checksum_start != 0 {
                let (start, offset) = (packet.checksum_start, packet.checksum_offset);
                copy::finish_checksum(bytes, start.into(), offset.into());
            }
            record.checksum = ChecksumState::Unknown;
            let first = if len > ETHERNET_HEADER { ETHERNET_HEADER } else { 0 };
            let bit = self.random.below((len - first) as u64 * 8) as usize;
            bytes[first + bit / 8] ^= 1 << (bit % 8);
            self.mishaps.corrupted += 1;
        }
        self.wait(record);
        if self.random.happens(self.impairment.duplicate) {
            self.mishaps.duplicated += 1;
            self.duplicate(record);
        }
        Fate::Sent
    }

    /// The next packet, if it has arrived by `now`, which is then gone.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Record, &[u8])> {
        if self.earliest()? > now {
            return None;
        }
        let Reverse(Waiting { record, .. }) = self.waiting.pop()?;
        let start = record.start as usize;
        self.free.push((start / self.cell) as u32);
        Some((record, &self.cells[start..start + record.len as usize]))
    }

    fn wait(&mut self, record: Record) {
        self.waiting.push(Reverse(Waiting { sequence: self.sequence, record }));
        self.sequence += 1;
    }

    fn duplicate(&mut self, record: Record) {
        let Some(cell) = self.free.pop() else {
            self.mishaps.duplicates_dropped += 1;
            return;
        };
        let to = cell as usize * self.cell;
        let from = record.start as usize;
        self.cells.copy_within(from..from + record.len as usize, to);
        self.wait(Record { start: to as u32, ..record });
    }

    /// When the packet's last bit has left, or `None` when too many bytes wait before it.
    fn leave(&mut self, now: Instant, total: u32) -> Option<Instant> {
        let Some(rate) = self.impairment.rate_bits_per_s else {
            return Some(now);
        };
        if self.link_free > now {
            let wait = (self.link_free - now).as_nanos();
            let bytes = wait * u128::from(rate) / 8_000_000_000;
            if bytes + u128::from(total) > u128::from(self.impairment.queue_bytes) {
                return None;
            }
        } else {
            self.link_free = now;
            self.link_fraction = 0;
        }
        let time = u64::from(total) * 8 * 1_000_000_000 + self.link_fraction;
        self.link_free += Duration::from_nanos(time / rate);
        self.link_fraction = time % rate;
        Some(self.link_free)
    }

    fn arrival(&mut self, left: Instant) -> Instant {
        let jitter = self.impairment.jitter.as_nanos() as u64;
        let jitter = if jitter == 0 { 0 } else { self.random.below(jitter + 1) };
        let arrival = left + self.impairment.delay + Duration::from_nanos(jitter);
        if self.random.happens(self.impairment.reorder) {
            self.mishaps.reordered += 1;
            return arrival + self.impairment.reorder_delay;
        }
        self.latest = self.latest.max(arrival);
        self.latest
    }
}
