//! Datagrams that wait for fragments: by key, and in the order of their age.
//!
//! It knows of no frames but their number; whoever takes an entry out has its frames.

use millrace_frames::{Arena, Frame, Instant, Owners};

use super::{Fragment, ReassemblyConfig, Refused};
use crate::address::Word;
use crate::hash::Keys;
use crate::table::FlowTable;

/// What the fragments of one datagram have in common. IPv6 does not count the protocol in
/// (RFC 8200 §4.5): it is 0 there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) source: Word,
    pub(crate) destination: Word,
    pub(crate) identification: u32,
    pub(crate) protocol: u8,
}

/// No entry.
pub(super) const NONE: u16 = u16::MAX;
/// Where a datagram ends whose last fragment has not come.
pub(super) const UNKNOWN: u32 = u32::MAX;

/// A datagram that waits, or was given up.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) hash: u32,
    pub(super) deadline: Instant,
    /// Frames in the order of their offsets, which are in `Meta::mark`.
    pub(super) head: Frame,
    pub(super) tail: Frame,
    pub(super) frames: u16,
    /// Packets that they came in, for the counters.
    pub(super) packets: u16,
    pub(super) received: u32,
    pub(super) total: u32,
    /// The first fragment's: bytes before its payload, and where its IP header begins in them.
    pub(super) header: u16,
    pub(super) start: u16,
    /// Bytes of the largest datagram behind the first fragment's headers.
    pub(super) most: u32,
    /// Which ECN codes came, one bit for each.
    pub(super) ecn: u8,
    pub(super) many: bool,
    /// It was given up for this: it has no frames any more, and takes none.
    pub(super) refused: Option<Refused>,
    pub(super) in_use: bool,
    /// Neighbours in the order of age; `younger` links the free ones too.
    pub(super) older: u16,
    pub(super) younger: u16,
}

impl Entry {
    const EMPTY: Entry = Entry {
        key: Key { source: 0, destination: 0, identification: 0, protocol: 0 },
        hash: 0,
        deadline: Instant::ZERO,
        head: Frame::NONE,
        tail: Frame::NONE,
        frames: 0,
        packets: 0,
        received: 0,
        total: UNKNOWN,
        header: 0,
        start: 0,
        most: 0,
        ecn: 0,
        many: false,
        refused: None,
        in_use: false,
        older: NONE,
        younger: NONE,
    };
}

/// Datagrams that wait for fragments.
#[derive(Debug)]
pub(crate) struct Reassembly {
    pub(super) entries: Box<[Entry]>,
    table: FlowTable,
    pub(super) free: u16,
    pub(super) oldest: u16,
    youngest: u16,
    in_use: u16,
    /// Frames held by all.
    pub(super) frames: u32,
    pub(super) frame_limit: u32,
    pub(super) frames_per_datagram: u16,
    pub(super) per_source: u16,
    /// No deadline is earlier.
    earliest: Instant,
}

impl Reassembly {
    pub(crate) fn new(config: &ReassemblyConfig, frame_size: usize) -> Self {
        let mut entries = vec![Entry::EMPTY; usize::from(config.datagrams)].into_boxed_slice();
        let last = entries.len() - 1;
        for (index, entry) in entries[..last].iter_mut().enumerate() {
            entry.younger = index as u16 + 1;
        }
        Reassembly {
            entries,
            table: FlowTable::new(config.datagrams.into()),
            free: 0,
            oldest: NONE,
            youngest: NONE,
            in_use: 0,
            frames: 0,
            frame_limit: config.memory / frame_size as u32,
            frames_per_datagram: config.frames_per_datagram,
            per_source: config.datagrams_per_source,
            earliest: Instant::FAR_FUTURE,
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        (self.oldest != NONE).then_some(self.earliest)
    }

    pub(super) fn hash(keys: &Keys, key: &Key) -> u32 {
        keys.flow(key.source ^ key.destination.rotate_left(64), key.identification, key.protocol)
    }

    pub(super) fn find(&self, hash: u32, key: &Key) -> Option<u16> {
        self.table.find(hash, |at| self.entries[at as usize].key == *key).map(|at| at as u16)
    }

    pub(super) fn oldest_of(&self, source: Word) -> (u16, u16) {
        let (mut at, mut count, mut oldest) = (self.oldest, 0, NONE);
        while at != NONE {
            let entry = &self.entries[usize::from(at)];
            if entry.key.source == source {
                count += 1;
                if oldest == NONE {
                    oldest = at;
                }
            }
            at = entry.younger;
        }
        (count, oldest)
    }

    /// Takes an entry out; its frames stay with the caller.
    pub(super) fn remove(&mut self, index: u16) {
        let entry = &mut self.entries[usize::from(index)];
        self.table.remove(entry.hash, index.into());
        self.frames -= u32::from(entry.frames);
        self.in_use -= 1;
        entry.in_use = false;
        let (older, younger) = (entry.older, entry.younger);
        entry.younger = self.free;
        self.free = index;
        match older {
            NONE => self.oldest = younger,
            older => self.entries[usize::from(older)].younger = younger,
        }
        match younger {
            NONE => self.youngest = older,
            younger => self.entries[usize::from(younger)].older = older,
        }
    }

    /// A new entry at the young end. There is a free one.
    pub(super) fn insert(&mut self, hash: u32, fragment: &Fragment, now: Instant) -> u16 {
        let index = self.free;
        let deadline = now + fragment.timeout;
        let entry = &mut self.entries[usize::from(index)];
        self.free = entry.younger;
        *entry = Entry {
            key: fragment.key,
            hash,
            deadline,
            in_use: true,
            older: self.youngest,
            ..Entry::EMPTY
        };
        match self.youngest {
            NONE => self.oldest = index,
            youngest => self.entries[usize::from(youngest)].younger = index,
        }
        self.youngest = index;
        self.in_use += 1;
        self.earliest = self.earliest.min(deadline);
        self.table.insert(hash, index.into());
        index
    }

    /// An entry whose time is over.
    pub(super) fn due(&mut self, now: Instant) -> Option<u16> {
        if self.oldest == NONE || now < self.earliest {
            return None;
        }
        let (mut at, mut earliest) = (self.oldest, Instant::FAR_FUTURE);
        while at != NONE {
            let entry = &self.entries[usize::from(at)];
            if entry.deadline <= now {
                return Some(at);
            }
            earliest = earliest.min(entry.deadline);
            at = entry.younger;
        }
        self.earliest = earliest;
        None
    }

    /// Asserts that lists and counts agree.
    pub(crate) fn check(&self, arena: &Arena) {
        let (mut at, mut before, mut count, mut frames) = (self.oldest, NONE, 0, 0);
        while at != NONE {
            let entry = &self.entries[usize::from(at)];
            assert!(entry.in_use && entry.older == before, "the list of datagrams");
            assert!(self.find(entry.hash, &entry.key) == Some(at), "a datagram not in the table");
            assert!(self.earliest <= entry.deadline, "a deadline that nobody waits for");
            let (mut frame, mut last, mut number, mut bytes) = (entry.head, Frame::NONE, 0, 0);
            let mut end = 0;
            while frame.is_some() {
                let meta = arena.meta(frame);
                assert!(arena.owners(frame).contains(Owners::RECEIVED), "{frame:?} of a datagram");
                assert!(meta.mark >= end, "fragments overlap");
                end = meta.mark + u32::from(meta.len);
                number += 1;
                bytes += u32::from(meta.len);
                (last, frame) = (frame, meta.next);
            }
            assert_eq!((last, number, bytes), (entry.tail, entry.frames, entry.received));
            assert!(entry.frames <= self.frames_per_datagram);
            assert!(end <= entry.total && (entry.refused.is_none() || number == 0));
            frames += u32::from(number);
            count += 1;
            (before, at) = (at, entry.younger);
        }
        assert_eq!((before, count, frames), (self.youngest, self.in_use, self.frames));
        assert!(self.frames <= self.frame_limit, "{} frames of fragments", self.frames);
    }
}
