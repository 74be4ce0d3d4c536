//! Packets that wait for a neighbour's hardware address. At least one must be kept, and when there is no
//! room the newest is the one to keep (RFC 1122 §2.3.2.2, RFC 4861 §7.2.2). Who they wait for, and what
//! comes of it, is the cache's.

use millrace_frames::Transmit;

use super::{NeighbourRef, Neighbours, State};

/// What waits for one neighbour.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    packets: Vec<Transmit>,
    /// More came than may wait.
    overflowed: bool,
}

impl Waiting {
    pub(super) fn new(limit: usize) -> Self {
        Waiting { packets: Vec::with_capacity(limit), overflowed: false }
    }

    /// The oldest first.
    pub(super) fn packets(&self) -> &[Transmit] {
        &self.packets
    }

    /// Moves the packets; whether there had been more.
    pub(super) fn leave(&mut self, to: &mut Vec<Transmit>) -> bool {
        to.append(&mut self.packets);
        core::mem::take(&mut self.overflowed)
    }
}

impl Neighbours {
    /// Lets a packet wait for an entry that is Incomplete. Gives it back when nothing may wait.
    pub(crate) fn enqueue(
        &mut self,
        neighbour: NeighbourRef,
        packet: Transmit,
    ) -> Result<(), Transmit> {
        match self.entries.get_mut(neighbour.index()) {
            Some(entry)
                if entry.generation == neighbour.generation()
                    && entry.state == State::Incomplete
                    && self.queue_limit > 0 =>
            {
                entry.waiting.packets.push(packet);
                Ok(())
            }
            Some(entry) if entry.generation == neighbour.generation() => {
                entry.waiting.overflowed = true;
                Err(packet)
            }
            _ => Err(packet),
        }
    }

    /// Whether as many packets wait for an entry as may. The oldest is then to make way for another.
    pub(crate) fn is_full(&self, neighbour: NeighbourRef) -> bool {
        self.waiting(neighbour).len() >= self.queue_limit.max(1)
    }

    /// Takes the oldest packet that waits for an entry, to be lost.
    pub(crate) fn lose_oldest(&mut self, neighbour: NeighbourRef) -> Option<Transmit> {
        let entry = self.entries.get_mut(neighbour.index())?;
        if entry.generation != neighbour.generation() || entry.waiting.packets.is_empty() {
            return None;
        }
        entry.waiting.overflowed = true;
        Some(entry.waiting.packets.remove(0))
    }

    /// The packets that wait for an entry, the oldest first.
    pub(crate) fn waiting(&self, neighbour: NeighbourRef) -> &[Transmit] {
        match self.entries.get(neighbour.index()) {
            Some(entry) if entry.generation == neighbour.generation() => entry.waiting.packets(),
            _ => &[],
        }
    }

    /// Lets a packet wait that belongs to the one that was the last to wait, whatever the limit.
    pub(crate) fn enqueue_behind_last(&mut self, neighbour: NeighbourRef, packet: Transmit) {
        self.entries[neighbour.index()].waiting.packets.push(packet);
    }

    /// Moves the packets that wait, whoever they wait for, to `released`.
    pub(crate) fn release_waiting(&mut self) {
        for entry in &mut self.entries {
            entry.waiting.leave(&mut self.released);
        }
    }
}
