//! An unimpaired direction: packets in a byte ring, in order, each there as soon as it is sent.

use std::collections::VecDeque;

use millrace_frames::{Arena, ChecksumState, Instant, Transmit};

use crate::copy;

/// What travels with a packet's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where the bytes start in their store.
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) arrival: Instant,
    pub(super) gso_size: u16,
    pub(super) checksum: ChecksumState,
}

/// Bytes of the packets lie whole, one after the other; one that does not fit before the end of
/// the ring starts over at its beginning. Whenever the ring is empty it starts over too, so that
/// a wire with few packets on it stays in few cache lines.
#[derive(Debug)]
pub(super) struct Queue {
    bytes: Box<[u8]>,
    records: VecDeque<Record>,
    /// Most packets.
    limit: usize,
    /// Where the next packet's bytes go.
    tail: usize,
}

impl Queue {
    /// For `limit` packets and `bytes` bytes, whichever is reached first. Pages are touched when
    /// they are needed.
    pub(super) fn new(limit: usize, bytes: usize) -> Self {
        Queue {
            bytes: vec![0; bytes].into_boxed_slice(),
            records: VecDeque::with_capacity(limit),
            limit,
            tail: 0,
        }
    }

    /// When the oldest packet arrived.
    #[inline]
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.records.front().map(|record| record.arrival)
    }

    /// Copies a packet in. False when there is no room.
    #[inline]
    pub(super) fn push(
        &mut self,
        now: Instant,
        arena: &Arena,
        packet: &Transmit,
        checksum: ChecksumState,
    ) -> bool {
        let total = packet.total as usize;
        let Some(start) = self.place(total) else {
            return false;
        };
        let len = copy::gather(arena, packet, &mut self.bytes[start..start + total]);
        debug_assert_eq!(len, total, "the frames of a packet must hold its total");
        self.tail = start + len;
        self.records.push_back(Record {
            start: start as u32,
            len: len as u32,
            arrival: now,
            gso_size: packet.gso_size,
            checksum,
        });
        true
    }

    /// The oldest packet, if any, which is then gone.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<(Record, &[u8])> {
        let record = self.records.pop_front()?;
        if self.records.is_empty() {
            self.records.clear();
            self.tail = 0;
        }
        let start = record.start as usize;
        Some((record, &self.bytes[start..start + record.len as usize]))
    }

    /// Where `len` bytes in one piece are free.
    #[inline]
    fn place(&self, len: usize) -> Option<usize> {
        if self.records.len() == self.limit {
            return None;
        }
        let Some(oldest) = self.records.front() else {
            return (len <= self.bytes.len()).then_some(0);
        };
        let head = oldest.start as usize;
        // A packet without bytes asks for one, so that in a ring that wraps the newest packet always
        // starts before the oldest.
        let len = len.max(1);
        if self.wraps(head) {
            (len <= head - self.tail).then_some(self.tail)
        } else if len <= self.bytes.len() - self.tail {
            Some(self.tail)
        } else {
            (len <= head).then_some(0)
        }
    }

    #[inline]
    fn wraps(&self, head: usize) -> bool {
        self.records.back().is_some_and(|newest| (newest.start as usize) < head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_frames::{ArenaConfig, Hugepages, Owners};
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn packet(arena: &mut Arena, len: usize, fill: u8) -> Transmit {
        let head = arena.allocate(Owners::TRANSMIT).unwrap();
        arena.room_mut(head)[..len].fill(fill);
        Transmit { head, total: len as u32, len: len as u16, frames: 1, ..Transmit::default() }
    }

    proptest! {
        /// Any order of pushes and pops gives the packets back whole and in order, and refuses
        /// only what does not fit.
        #[test]
        fn what_goes_in_comes_out(steps in prop::collection::vec((any::<bool>(), 0..=300usize), 1..400)) {
            let config = ArenaConfig { frames: 1, frame_size: 2048, hugepages: Hugepages::Never };
            let mut arena = Arena::new(config).unwrap();
            let mut queue = Queue::new(8, 1000);
            let mut model: VecDeque<(usize, u8)> = VecDeque::new();
            for (step, (push, len)) in steps.into_iter().enumerate() {
                let fill = step as u8;
                if push {
                    let transmit = packet(&mut arena, len, fill);
                    if queue.push(Instant::ZERO, &arena, &transmit, ChecksumState::Unknown) {
                        model.push_back((len, fill));
                    } else {
                        let held: usize = model.iter().map(|&(len, _)| len).sum();
                        // Less than the longest packet may be lost in a gap at the ring's end.
                        prop_assert!(model.len() == 8 || held + len + 300 >= 1000);
                    }
                    arena.transmitted(&transmit);
                } else {
                    let expected = model.pop_front();
                    match queue.pop() {
                        Some((record, bytes)) => {
                            let (len, fill) = expected.unwrap();
                            prop_assert_eq!(record.len as usize, len);
                            prop_assert!(bytes.len() == len && bytes.iter().all(|&b| b == fill));
                        }
                        None => prop_assert!(expected.is_none()),
                    }
                }
                prop_assert!(model.len() <= 8);
            }
        }
    }
}
