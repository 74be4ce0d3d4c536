//! What selective acknowledgements say of what came (RFC 2018), duplicates included (RFC 2883).
//!
//! What received blocks say of what was sent is the scoreboard's business.

use millrace_wire::seq::Seq;
use millrace_wire::tcp::{MAX_SACK_BLOCKS, OptionWriter};

use super::connection::{Features, Flags};
use crate::stack::Stack;

/// Duplicates that wait to be reported; more are not worth it.
const MOST_DUPLICATES: usize = 8;

type Range = (Seq, Seq);

/// What a connection has to report.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Blocks in which something came, the last one first.
    recent: [Range; MAX_SACK_BLOCKS],
    recent_len: usize,
    /// Duplicates, the oldest first; each is reported once.
    duplicates: [Range; MOST_DUPLICATES],
    duplicates_len: usize,
}

fn within(inner: Range, outer: Range) -> bool {
    outer.0.le(inner.0) && inner.1.le(outer.1)
}

impl Reports {
    pub(crate) fn is_empty(&self) -> bool {
        self.recent_len == 0 && self.duplicates_len == 0
    }

    pub(crate) fn clear(&mut self) {
        self.recent_len = 0;
        self.duplicates_len = 0;
    }

    /// Something came, and is now in this block: it goes first, and those that it was made of go.
    pub(crate) fn arrived(&mut self, block: Range) {
        let mut kept = [block; MAX_SACK_BLOCKS];
        let mut len = 1;
        for &range in &self.recent[..self.recent_len] {
            if !within(range, block) && len < kept.len() {
                kept[len] = range;
                len += 1;
            }
        }
        self.recent = kept;
        self.recent_len = len;
    }

    /// What begins below has become in order.
    pub(crate) fn forget_below(&mut self, rcv_nxt: Seq) {
        let mut len = 0;
        for at in 0..self.recent_len {
            if self.recent[at].0.gt(rcv_nxt) {
                self.recent[len] = self.recent[at];
                len += 1;
            }
        }
        self.recent_len = len;
    }
}

impl Stack {
    /// Bytes came that were there: the next acknowledgement says so (RFC 2883 §4).
    pub(crate) fn report_duplicate(&mut self, index: usize, start: Seq, end: Seq) {
        let connection = &self.connections[index];
        if !self.config.tcp.dsack || !connection.features.has(Features::SACK) || start == end {
            return;
        }
        if connection.flags.has(Flags::HALF_OPEN) {
            // It has no record, so that a flood of SYNs takes none.
            return;
        }
        let reports = &mut self.transfer_mut(index).reports;
        if reports.duplicates_len < MOST_DUPLICATES {
            reports.duplicates[reports.duplicates_len] = (start, end);
            reports.duplicates_len += 1;
        }
        let owed = reports.duplicates_len as u8;
        let connection = &mut self.connections[index];
        connection.acks_owed = connection.acks_owed.max(owed);
        connection.flags.set(Flags::REPORT_DUPLICATE);
        self.push_out(index);
    }

    /// SACK blocks for a segment of `len` bytes, as many as fit beside them: a duplicate and the
    /// block around it, the last blocks in which something came, and of the rest the first ones.
    pub(crate) fn sack_option(&mut self, index: usize, len: u32, to: &mut OptionWriter) {
        let connection = &mut self.connections[index];
        let room = if len == 0 { u32::MAX } else { u32::from(connection.mss).saturating_sub(len) };
        let most = (room.saturating_sub(4) / 8).min(MAX_SACK_BLOCKS as u32) as usize;
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        if most == 0 {
            return;
        }
        let (blocks, reports) = (&transfer.blocks, &mut transfer.reports);
        let mut list = [(Seq(0), Seq(0)); MAX_SACK_BLOCKS];
        let mut count = 0;
        if reports.duplicates_len > 0 {
            list[0] = reports.duplicates[0];
            reports.duplicates.copy_within(1.., 0);
            reports.duplicates_len -= 1;
            count = 1;
            if reports.duplicates_len == 0 {
                connection.flags.clear(Flags::REPORT_DUPLICATE);
            }
            self.counters.duplicates_reported += 1;
        }
        let duplicates = count;
        let around = (duplicates > 0).then(|| blocks.containing(list[0].0)).flatten();
        let recent = reports.recent[..reports.recent_len].iter().copied();
        let rest = blocks.iter().take(MAX_SACK_BLOCKS).map(|block| (block.start, block.end));
        for range in around.into_iter().chain(recent).chain(rest) {
            if count == most {
                break;
            }
            if !list[duplicates..count].contains(&range) {
                list[count] = range;
                count += 1;
            }
        }
        if connection.flags.has(Flags::FIN_SEEN) {
            // A FIN beyond the gap is kept as well.
            for (_, end) in &mut list[duplicates..count] {
                if *end == connection.fin_seq {
                    *end += 1;
                }
            }
        }
        to.sack(&list[..count]);
    }
}
