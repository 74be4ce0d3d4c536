//! What a connection needs only while data moves, or after something unusual has happened: the
//! scoreboard, recovery, what congestion control has learned, settings other than the default.
//!
//! Records come from a pool and go back to it, so that an idle connection costs its entry and no
//! more. There are never more of them than connections.

use millrace_wire::seq::Seq;

use super::autotuning::RightSizing;
use super::chronograph::Limit;
use super::congestion::{CaState, Private};
use super::connection::NO_LINK;
use super::delivery_rate::Delivery;
use super::ecn::feedback::Accurate;
use super::fast_open::client::Attempt;
use super::held_timestamps::CopyTimestamps;
use super::keepalive::Probes;
use super::out_of_order::Blocks;
use super::pacing::Pacing;
use super::plpmtud::SegmentSize;
use super::prr::Prr;
use super::rack::Rack;
use super::recovery::Recovery;
use super::sack::Reports;
use super::scoreboard::Scoreboard;
use super::settings::Settings;
use super::tail_loss_probe::TailLossProbe;
use super::undo::Undo;
use super::user_timeout::Silence;
use super::user_timeout_option::Advice;
use super::window_validation::WindowUsage;
use crate::stack::Stack;

/// A pooled record. [`Transfer::is_plain`] says whether it may be given back.
///
/// What a request and its answer need stands first and together: with a thousand connections the cost
/// of an exchange is the number of cache lines that it touches.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Transfer {
    pub(crate) recovery: Recovery,
    pub(crate) probe: TailLossProbe,
    /// What holds the sender back.
    pub(crate) limit: Limit,
    /// More waits to be written, and somebody else keeps it back.
    pub(crate) withheld: bool,
    pub(crate) rack: Rack,
    pub(crate) pacing: Pacing,
    pub(crate) usage: WindowUsage,
    /// Where the last small segment ended (Nagle's algorithm).
    pub(crate) small_until: Option<Seq>,
    /// End of the last segment with PSH.
    pub(crate) pushed: Seq,
    pub(crate) delivery: Delivery,
    pub(crate) sent: Scoreboard,
    /// How the receive buffer is tuned.
    pub(crate) right_sizing: RightSizing,
    /// What congestion control has learned.
    pub(crate) congestion: Private,

    /// What came beyond a gap.
    pub(crate) blocks: Blocks,
    /// What our SYN tries.
    pub(crate) fast_open: Option<Attempt>,
    /// What selective acknowledgements are to say.
    pub(crate) reports: Reports,
    pub(crate) prr: Prr,
    pub(crate) undo: Undo,
    /// Timestamps of what was sent again.
    pub(crate) copies: CopyTimestamps,
    /// Where what was written ended when it had waited for more long enough (`MSG_MORE`).
    pub(crate) more_until: Option<Seq>,
    /// What size of segments the path takes.
    pub(crate) segment_size: SegmentSize,
    /// Settings that differ from the stack's.
    pub(crate) settings: Option<Box<Settings>>,
    /// Keepalive probes that wait for an answer.
    pub(crate) keepalive: Probes,
    /// Since when the peer takes nothing.
    pub(crate) silence: Silence,
    /// What the ends told each other of their user timeouts.
    pub(crate) advice: Advice,
    /// What is to be remembered of the connection's life.
    pub(crate) totals: Totals,
    /// Accurate ECN's counters.
    pub(crate) accurate: Accurate,
}

/// What has happened in a connection's life that happens to few; TCP_INFO tells of it. A
/// connection with any of it keeps its record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Segments sent again, and their payload bytes.
    pub(crate) retransmitted: u32,
    pub(crate) bytes_retransmitted: u64,
    /// Retransmission timeouts, in a row counted each.
    pub(crate) timeouts: u16,
    /// Of those, how many were SYNs.
    pub(crate) syn_retransmitted: u8,
    /// Runs of timeouts, and the time that those which ended took in milliseconds.
    pub(crate) timeout_recoveries: u16,
    pub(crate) timeout_millis: u32,
    /// Segments that arrived beyond a gap.
    pub(crate) out_of_order: u32,
    /// Ticks in which the peer's window, or our send buffer, held the sender back.
    pub(crate) window_limited: u64,
    pub(crate) buffer_limited: u64,
    /// Duplicates that the peer reported (RFC 2883), and reorderings seen.
    pub(crate) dsack_duplicates: u32,
    pub(crate) reorderings: u32,
    /// Segments delivered with a congestion mark.
    pub(crate) delivered_marked: u32,
    /// How often `snd_una` and `rcv_nxt` have gone once around, for totals of 64 bits.
    pub(crate) acked_wraps: u32,
    pub(crate) received_wraps: u32,
}

impl Totals {
    /// Nothing of it has happened. Put together first, for nearly always all of it is zero.
    #[inline(always)]
    fn are_none(&self) -> bool {
        let Totals {
            retransmitted,
            bytes_retransmitted,
            timeouts,
            syn_retransmitted,
            timeout_recoveries,
            timeout_millis,
            out_of_order,
            window_limited,
            buffer_limited,
            dsack_duplicates,
            reorderings,
            delivered_marked,
            acked_wraps,
            received_wraps,
        } = *self;
        let small = timeouts | u16::from(syn_retransmitted) | timeout_recoveries;
        let seen = retransmitted | timeout_millis | out_of_order | dsack_duplicates | reorderings;
        let seen = seen | acked_wraps | received_wraps;
        let seen = seen | delivered_marked | u32::from(small);
        u64::from(seen) | window_limited | buffer_limited | bytes_retransmitted == 0
    }
}

impl Transfer {
    /// Nothing in it is worth keeping: another record made anew would do as well.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.blocks.is_empty()
            && self.reports.is_empty()
            && self.fast_open.is_none()
            && self.sent.is_empty()
            && self.recovery.state == CaState::Open
            && !self.undo.armed()
            && self.probe.is_idle()
            && self.rack.is_plain()
            && self.pacing.most == 0
            && self.congestion.is_plain()
            && self.right_sizing.buffer == 0
            && self.segment_size.agreed == 0
            && !self.withheld
            && self.settings.is_none()
            && self.keepalive == Probes::default()
            && self.silence == Silence::default()
            && self.advice == Advice::default()
            && self.totals.are_none()
            && self.accurate.is_plain()
    }

    /// As new, when it is plain: what [`Transfer::is_plain`] has looked at needs no second look, and
    /// a large record is not written again for a few words.
    fn clear_plain(&mut self) {
        self.recovery = Recovery::default();
        self.rack = Rack::default();
        self.undo = Undo::default();
        self.copies = CopyTimestamps::default();
        self.delivery = Delivery::default();
        self.pacing = Pacing::default();
        self.usage = WindowUsage::default();
        self.small_until = None;
        self.more_until = None;
        self.pushed = Seq(0);
        self.segment_size = SegmentSize::default();
        self.limit = Limit::default();
    }

    /// As new, keeping the memory of its lists.
    fn clear(&mut self) {
        let mut sent = core::mem::take(&mut self.sent);
        sent.clear();
        let mut blocks = core::mem::take(&mut self.blocks);
        blocks.clear();
        *self = Transfer { sent, blocks, ..Transfer::default() };
    }
}

/// Records that connections keep although nothing is in flight.
const KEPT: usize = 4096;

/// The pool. It grows with the number of connections that use it at once.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    // Boxed, so that growing moves no record.
    #[expect(clippy::vec_box, reason = "a record is large, and growing must not copy them all")]
    records: Vec<Box<Transfer>>,
    free: Vec<u32>,
}

impl Transfers {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.records.push(Box::default());
            (self.records.len() - 1) as u32
        })
    }

    fn give_back(&mut self, number: u32) {
        let record = &mut self.records[number as usize];
        if self.free.len() >= KEPT {
            // After a flood nobody needs them so soon again.
            **record = Transfer::default();
        } else if record.is_plain() {
            record.clear_plain();
        } else {
            record.clear();
        }
        self.free.push(number);
    }

    fn give_back_plain(&mut self, number: u32) {
        self.records[number as usize].clear_plain();
        self.free.push(number);
    }

    /// Record of a connection, if it has one.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&Transfer> {
        self.records.get(number as usize).map(Box::as_ref)
    }

    /// Record of a connection, if it has one.
    #[inline]
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Transfer> {
        self.records.get_mut(number as usize).map(Box::as_mut)
    }

    /// Records that connections have.
    pub(crate) fn in_use(&self) -> usize {
        self.records.len() - self.free.len()
    }
}

impl Stack {
    /// The connection's record, taken from the pool if it has none.
    #[inline(always)]
    pub(crate) fn transfer_mut(&mut self, index: usize) -> &mut Transfer {
        if self.connections[index].transfer == NO_LINK {
            self.take_transfer(index);
        }
        &mut self.transfers.records[self.connections[index].transfer as usize]
    }

    #[inline(never)]
    fn take_transfer(&mut self, index: usize) {
        let number = self.transfers.take();
        let connection = &mut self.connections[index];
        connection.transfer = number;
        self.transfers.records[number as usize].congestion.renew(connection.algorithm);
    }

    /// The connection's record, if it has one.
    #[inline]
    pub(crate) fn transfer(&self, index: usize) -> Option<&Transfer> {
        self.transfers.get(self.connections[index].transfer)
    }

    /// Gives the record back, whatever is in it.
    pub(crate) fn release_transfer(&mut self, index: usize) {
        let number = core::mem::replace(&mut self.connections[index].transfer, NO_LINK);
        if number != NO_LINK {
            self.transfers.give_back(number);
        }
    }

    /// Nothing is in flight: the record goes back unless it holds something worth keeping. While
    /// few connections have one, each keeps its own, for it will soon want it again.
    #[inline]
    pub(crate) fn settle_transfer(&mut self, index: usize) {
        if self.transfers.in_use() > KEPT {
            self.give_back_if_plain(index);
        }
    }

    /// Gives the record back unless it holds something worth keeping.
    pub(crate) fn give_back_if_plain(&mut self, index: usize) {
        if self.transfer(index).is_some_and(Transfer::is_plain) {
            let number = core::mem::replace(&mut self.connections[index].transfer, NO_LINK);
            self.transfers.give_back_plain(number);
        }
    }
}
