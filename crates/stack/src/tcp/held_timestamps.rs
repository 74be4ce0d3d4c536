//! Timestamps of what leaves once more, on a path that reorders.
//!
//! A peer remembers the value of the segment at its left edge, and refuses what is older (PAWS, RFC
//! 7323 §5.3). A copy that fills a gap there has overtaken whatever left shortly before it and took
//! longer: all of that is refused, is lost, is sent again, and each of those copies does the same.
//! One lost segment then costs one reduction after the other, and Linux's receivers are no different.
//!
//! So in fast recovery on such a path a copy's value is a tick younger than that of the original.
//! Nothing that is under way now is older, and an echo still tells the two apart (RFC 3522). It is no
//! older than any copy's before it: nothing at the peer's left edge is younger, or the copy would be
//! refused itself. After a timeout copies have the clock's value, in case a peer sees that otherwise.

use super::congestion::CaState;
use super::scoreboard::{Mark, Sent};
use super::timestamps::newer;
use crate::stack::Stack;

/// Values that copies of what is in flight had.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CopyTimestamps {
    /// The youngest.
    newest: Option<u32>,
    /// The youngest of those that were older than the clock.
    held: Option<u32>,
}

impl CopyTimestamps {
    fn note(&mut self, value: u32, clock: u32) {
        let youngest = |of: Option<u32>| of.filter(|&of| newer(of, value) > 0).or(Some(value));
        self.newest = youngest(self.newest);
        if value != clock {
            self.held = youngest(self.held);
        }
    }

    /// Whether it can be told from this echo when the segment left that has it.
    pub(crate) fn dates(&self, echo: u32) -> bool {
        self.held.is_none_or(|held| newer(echo, held) > 0)
    }
}

impl Stack {
    /// The timestamp for a copy of `piece` that leaves now.
    pub(crate) fn copy_timestamp(&self, index: usize, piece: &Sent) -> u32 {
        let clock = self.timestamp(index);
        let holds = self.config.tcp.held_timestamps;
        let Some(transfer) = self.transfer(index).filter(|transfer| {
            holds && transfer.rack.reordering_seen && transfer.recovery.state == CaState::Recovery
        }) else {
            return clock;
        };
        let newest = transfer.copies.newest;
        let value = if piece.mark.has(Mark::EVER) {
            newest.unwrap_or(clock)
        } else {
            let age = self.now_us.wrapping_sub(piece.sent_at);
            let sent_us = (self.now.as_nanos() / 1000).saturating_sub(age.into());
            let offset = self.connections[index].ts_offset;
            let own = ((sent_us / 1000) as u32).wrapping_add(1).wrapping_add(offset);
            newest.filter(|&newest| newer(newest, own) > 0).unwrap_or(own)
        };
        if newer(value, clock) > 0 { clock } else { value }
    }

    /// A copy has left with this value.
    pub(crate) fn note_copy_timestamp(&mut self, index: usize, value: u32) {
        let clock = self.timestamp(index);
        if let Some(transfer) = self.transfers.get_mut(self.connections[index].transfer) {
            transfer.copies.note(value, clock);
        }
    }
}
