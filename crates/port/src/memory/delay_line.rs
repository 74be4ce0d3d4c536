//! The packets that are on a [`Link`], in order of arrival.

use millrace_frames::pipe::Record;
use millrace_frames::{Arena, ChecksumState, Instant, Transmit};

use crate::copy;
use crate::impair::{Counters, Impairment, InFlight, Link, Verdict};

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

/// A packet under way: its cell, and what travels with it.
#[derive(Clone, Copy, Debug)]
struct Travelling {
    cell: u32,
    record: Record,
}

#[derive(Debug)]
pub(super) struct DelayLine {
    link: Link,
    in_flight: InFlight<Travelling>,
    cells: Box<[u8]>,
    cell: usize,
    free: Vec<u32>,
    /// Copies that found no room on the wire.
    duplicates_dropped: u64,
}

impl DelayLine {
    /// Holds `limit` packets of at most `largest` bytes. Pages are touched when they are needed.
    pub(super) fn new(impairment: Impairment, seed: u64, limit: usize, largest: usize) -> Self {
        let cell = Self::cell_size(largest);
        DelayLine {
            link: Link::new(impairment, seed),
            in_flight: InFlight::with_capacity(limit),
            cells: vec![0; limit * cell].into_boxed_slice(),
            cell,
            free: (0..limit as u32).rev().collect(),
            duplicates_dropped: 0,
        }
    }

    /// An odd number of cache lines, so that the cells' first lines spread over all cache sets.
    pub(super) fn cell_size(largest: usize) -> usize {
        (largest.div_ceil(64) | 1) * 64
    }

    pub(super) fn counters(&self) -> Counters {
        *self.link.counters()
    }

    pub(super) fn duplicates_dropped(&self) -> u64 {
        self.duplicates_dropped
    }

    /// When the next packet arrives.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.in_flight.earliest()
    }

    pub(super) fn push(&mut self, now: Instant, arena: &Arena, packet: &Transmit) -> Fate {
        let passage = match self.link.offer(now, packet.total) {
            Verdict::Lost => return Fate::Lost,
            Verdict::QueueDropped => return Fate::QueueFull,
            Verdict::Passes(passage) => passage,
        };
        let Some(cell) = self.free.pop() else {
            self.duplicates_dropped += u64::from(passage.duplicate);
            return Fate::WireFull;
        };
        let start = cell as usize * self.cell;
        let bytes = &mut self.cells[start..start + packet.total as usize];
        arena.gather(packet, bytes);
        let mut record = super::record(packet, passage.arrival);
        if passage.flipped_bit.is_some() {
            if packet.checksum_start != 0 {
                let (start, offset) = (packet.checksum_start, packet.checksum_offset);
                copy::finish_checksum(bytes, start.into(), offset.into());
            }
            record.checksum = ChecksumState::Unknown;
        }
        self.link.alter(&passage, bytes);
        let travelling = Travelling { cell, record };
        self.in_flight.push(record.arrival, travelling);
        if passage.duplicate {
            self.duplicate(travelling);
        }
        Fate::Sent
    }

    /// The next packet, if it has arrived by `now`, which is then gone.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Record, &[u8])> {
        let (_, Travelling { cell, record }) = self.in_flight.pop(now)?;
        self.free.push(cell);
        let start = cell as usize * self.cell;
        Some((record, &self.cells[start..start + record.len as usize]))
    }

    fn duplicate(&mut self, original: Travelling) {
        let Some(cell) = self.free.pop() else {
            self.duplicates_dropped += 1;
            return;
        };
        let Travelling { cell: from, record } = original;
        let (from, to) = (from as usize * self.cell, cell as usize * self.cell);
        self.cells.copy_within(from..from + record.len as usize, to);
        self.in_flight.push(record.arrival, Travelling { cell, record });
    }
}
