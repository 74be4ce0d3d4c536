//! What selective acknowledgements say of what came (RFC 2018), duplicates included (RFC 2883).
//!
//! What received blocks say of what was sent is the scoreboard's business.

use millrace_wire::seq::Seq;
use millrace_wire::tcp::{MAX_OPTIONS_LEN, MAX_SACK_BLOCKS, OptionWriter};

use super::connection::{Features, Flags};
use crate::stack::Stack;

/// Blocks that are remembered in the order in which something came: more than fit into an
/// acknowledgement, for what came in one turn is told of by several that leave together.
const MOST_RECENT: usize = 16;

/// Duplicates that wait to be reported; more are not worth it.
const MOST_DUPLICATES: usize = 8;

type Range = (Seq, Seq);

/// What a connection has to report.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Blocks in which something came, the last one first.
    recent: [Range; MOST_RECENT],
    recent_len: usize,
    /// So many of them, the first ones, the peer was not told of as they are now.
    untold: usize,
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
        self.untold = 0;
        self.duplicates_len = 0;
    }

    /// Something came, and is now in this block: it goes first, and those that it was made of go.
    pub(crate) fn arrived(&mut self, block: Range) {
        self.retain(|range| !within(range, block));
        self.recent_len = (self.recent_len + 1).min(MOST_RECENT);
        self.recent.copy_within(..self.recent_len - 1, 1);
        self.recent[0] = block;
        self.untold = (self.untold + 1).min(MOST_RECENT);
    }

    /// What begins below has become in order.
    pub(crate) fn forget_below(&mut self, rcv_nxt: Seq) {
        self.retain(|range| range.0.gt(rcv_nxt));
    }

    fn retain(&mut self, stays: impl Fn(Range) -> bool) {
        let (mut len, mut untold) = (0, 0);
        for at in 0..self.recent_len {
            if stays(self.recent[at]) {
                self.recent[len] = self.recent[at];
                len += 1;
                untold += usize::from(at < self.untold);
            }
        }
        (self.recent_len, self.untold) = (len, untold);
    }

    /// Where an acknowledgement with room for `most` blocks begins in the recent ones, if so many
    /// leave together. What the peer is not told of it takes for lost, so those that wait to be
    /// told of are spread over them all, the last one with what came last first.
    fn tell(&mut self, most: usize, together: u8) -> usize {
        self.untold -= self.untold.div_ceil(together.max(1).into()).min(most);
        self.untold
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

    /// A FIN came alone, beyond a gap. It is in no frame: its block has no bytes here, and gets the FIN's
    /// number where it is written.
    pub(crate) fn report_lone_fin(&mut self, index: usize) {
        let connection = &self.connections[index];
        let fin_seq = connection.fin_seq;
        if !connection.features.has(Features::SACK) || connection.flags.has(Flags::HALF_OPEN) {
            return;
        }
        let transfer = self.transfer_mut(index);
        let before = transfer.blocks.iter().last().filter(|block| block.end == fin_seq);
        let block = before.map_or((fin_seq, fin_seq), |block| (block.start, block.end));
        transfer.reports.arrived(block);
        self.connections[index].flags.set(Flags::REPORT_DUPLICATE);
    }

    /// SACK blocks for a segment of `len` bytes, as many as fit beside them: a duplicate and the
    /// block around it, the last blocks in which something came, and of the rest the first ones. Of
    /// acknowledgements that leave together each has the blocks that it would have had alone.
    pub(crate) fn sack_option(&mut self, index: usize, len: u32, to: &mut OptionWriter) {
        let connection = &mut self.connections[index];
        let room = match len {
            0 => usize::MAX,
            len => usize::from(connection.mss).saturating_sub(len as usize),
        };
        let room = room.min(MAX_OPTIONS_LEN - to.padded().len());
        let most = (room.saturating_sub(4) / 8).min(MAX_SACK_BLOCKS);
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
            self.counters.duplicates_reported += 1;
        }
        let fin = connection.flags.has(Flags::FIN_SEEN).then_some(connection.fin_seq);
        let lone = fin.filter(|&fin| {
            fin.gt(connection.rcv_nxt) && blocks.iter().last().is_none_or(|last| last.end.lt(fin))
        });
        if reports.duplicates_len == 0 && lone.is_none() {
            connection.flags.clear(Flags::REPORT_DUPLICATE);
        }
        let duplicates = count;
        let around = (duplicates > 0).then(|| blocks.containing(list[0].0)).flatten();
        let room = most.saturating_sub(duplicates + usize::from(around.is_some()));
        let first = reports.tell(room, connection.acks_owed);
        let recent = reports.recent[first..reports.recent_len].iter().copied();
        let rest = blocks.iter().take(MAX_SACK_BLOCKS).map(|block| (block.start, block.end));
        let lone = lone.map(|fin| (fin, fin));
        for range in around.into_iter().chain(recent).chain(rest).chain(lone) {
            if count == most {
                break;
            }
            if !list[duplicates..count].contains(&range) {
                list[count] = range;
                count += 1;
            }
        }
        // A FIN beyond the gap is kept as well.
        for (_, end) in &mut list[duplicates..count] {
            if Some(*end) == fin {
                *end += 1;
            }
        }
        to.sack(&list[..count]);
    }
}
