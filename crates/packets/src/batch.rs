//! A batch: the packets of one call, as columns over one piece of memory.
//!
//! The bytes lie where they came, in the arena's frames, which the batch keeps from being used
//! again; or, where that cannot be had, in memory of the batch's own. Either way they do not
//! change, and a part of a batch shares them with the whole.

use std::sync::Arc;

use millrace_frames::{Frame, HeldFrames};

use crate::headers::{self, Header};

/// Packets, and what is known of each.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) columns: Columns,
    pub(crate) storage: Arc<Storage>,
}

/// One entry in each for every packet.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Where the packet starts in the memory; signed, because NumPy counts so.
    pub offset: Vec<i64>,
    /// How many of its bytes are there.
    pub length: Vec<u32>,
    /// How many were on the wire.
    pub original: Vec<u32>,
    /// When it arrived, nanoseconds since 1970.
    pub timestamp: Vec<i64>,
    /// The queue that it came from.
    pub queue: Vec<u16>,
    /// See [`crate::flags`].
    pub flags: Vec<u16>,
    /// Its place among the held frames.
    slot: Vec<u32>,
    /// Payload bytes of each segment of a super-segment, else 0.
    gso_size: Vec<u16>,
}

/// One packet's entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// As [`Columns::offset`].
    pub offset: i64,
    /// As [`Columns::length`].
    pub length: u32,
    /// As [`Columns::original`].
    pub original: u32,
    /// As [`Columns::timestamp`].
    pub timestamp: i64,
    /// As [`Columns::queue`].
    pub queue: u16,
    /// As [`Columns::flags`].
    pub flags: u16,
    pub(crate) slot: u32,
    pub(crate) gso_size: u16,
}

impl Columns {
    pub(crate) fn with_capacity(count: usize) -> Columns {
        Columns {
            offset: Vec::with_capacity(count),
            length: Vec::with_capacity(count),
            original: Vec::with_capacity(count),
            timestamp: Vec::with_capacity(count),
            queue: Vec::with_capacity(count),
            flags: Vec::with_capacity(count),
            slot: Vec::with_capacity(count),
            gso_size: Vec::with_capacity(count),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, row: Row) {
        self.offset.push(row.offset);
        self.length.push(row.length);
        self.original.push(row.original);
        self.timestamp.push(row.timestamp);
        self.queue.push(row.queue);
        self.flags.push(row.flags);
        self.slot.push(row.slot);
        self.gso_size.push(row.gso_size);
    }

    #[inline]
    pub(crate) fn row(&self, index: usize) -> Row {
        Row {
            offset: self.offset[index],
            length: self.length[index],
            original: self.original[index],
            timestamp: self.timestamp[index],
            queue: self.queue[index],
            flags: self.flags[index],
            slot: self.slot[index],
            gso_size: self.gso_size[index],
        }
    }
}

/// Where the bytes of a batch are.
#[derive(Debug)]
pub(crate) enum Storage {
    /// In frames of an arena.
    Held(HeldFrames),
    /// In memory of the batch's own, one packet after the other.
    Owned(Box<[u8]>),
}

impl Batch {
    /// A batch without packets.
    pub fn empty() -> Batch {
        Batch { columns: Columns::default(), storage: Arc::new(Storage::Owned(Box::default())) }
    }

    /// A batch of packets that were made here, in memory of its own.
    pub fn copied<'a>(packets: impl Iterator<Item = &'a [u8]>, timestamp: i64) -> Batch {
        let mut columns = Columns::default();
        let mut bytes = Vec::new();
        for packet in packets {
            let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
            let row = Row {
                offset: bytes.len() as i64,
                length,
                original: length,
                timestamp,
                ..Row::default()
            };
            columns.push(row);
            bytes.extend_from_slice(packet);
        }
        Batch { columns, storage: Arc::new(Storage::Owned(bytes.into_boxed_slice())) }
    }

    /// How many packets.
    #[inline]
    pub fn len(&self) -> usize {
        self.columns.length.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Whether the bytes are a copy, and not where they came in.
    pub fn is_copied(&self) -> bool {
        matches!(*self.storage, Storage::Owned(_))
    }

    /// The bytes of a packet.
    ///
    /// # Panics
    /// When there is no such packet.
    #[inline]
    pub fn packet(&self, index: usize) -> &[u8] {
        let (start, len) = (self.columns.offset[index] as usize, self.columns.length[index]);
        match &*self.storage {
            Storage::Owned(bytes) => &bytes[start..start + len as usize],
            Storage::Held(held) => {
                let slot = self.columns.slot[index] as usize;
                held.bytes(slot, start & (held.frame_size() - 1), len as usize)
            }
        }
    }

    /// The bytes of every packet.
    #[inline]
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.packet(index))
    }

    /// The frame that a packet lies in, and where in it, if it lies in an arena.
    #[inline]
    pub(crate) fn frame(&self, index: usize) -> Option<(Frame, u16)> {
        match &*self.storage {
            Storage::Owned(_) => None,
            Storage::Held(held) => {
                let frame = held.frames()[self.columns.slot[index] as usize];
                Some((
                    frame,
                    (self.columns.offset[index] as usize & (held.frame_size() - 1)) as u16,
                ))
            }
        }
    }

    /// Where the memory that the offsets count in starts, and its length. Only the batch's own
    /// packets are to be looked at in it: what lies beside them is not ours and changes.
    pub fn memory(&self) -> (*const u8, usize) {
        match &*self.storage {
            Storage::Owned(bytes) => (bytes.as_ptr(), bytes.len()),
            Storage::Held(held) => held.memory(),
        }
    }

    /// Bytes of all packets together, as they are there.
    pub fn bytes(&self) -> u64 {
        self.columns.length.iter().map(|&len| u64::from(len)).sum()
    }

    /// Some of the packets, in the order given; one may be named more than once. They share the
    /// bytes.
    ///
    /// # Panics
    /// When there is no such packet.
    pub fn select(&self, indices: impl ExactSizeIterator<Item = usize>) -> Batch {
        let mut columns = Columns::with_capacity(indices.len());
        for index in indices {
            columns.push(self.columns.row(index));
        }
        Batch { columns, storage: Arc::clone(&self.storage) }
    }

    /// Calls `each` with the bytes of every packet, in order. What all have in common is looked
    /// at once.
    #[inline]
    pub(crate) fn for_each<'a>(&'a self, mut each: impl FnMut(&'a [u8])) {
        let places = self.columns.offset.iter().zip(&self.columns.length);
        match &*self.storage {
            Storage::Owned(bytes) => {
                for (&start, &len) in places {
                    let start = start as usize;
                    each(&bytes[start..start + len as usize]);
                }
            }
            Storage::Held(held) => {
                let mask = held.frame_size() - 1;
                let places = places.zip(&self.columns.slot);
                for ((&start, &len), &slot) in places {
                    each(held.bytes(slot as usize, start as usize & mask, len as usize));
                }
            }
        }
    }

    /// The table of headers.
    pub fn headers(&self) -> Vec<Header> {
        let mut table = vec![Header::default(); self.len()];
        let (lengths, times) = (&self.columns.original[..], &self.columns.timestamp[..]);
        let mut rows = table.iter_mut().zip(lengths.iter().zip(times));
        self.for_each(|packet| {
            if let Some((row, (&length, &time))) = rows.next() {
                headers::parse_into(row, packet, length, time);
            }
        });
        table
    }
}
