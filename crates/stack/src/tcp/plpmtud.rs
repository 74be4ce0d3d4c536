//! The segment size where the path does not take the interface's MTU: what routers tell, and
//! packetization-layer path MTU discovery (RFC 4821, RFC 8899) where they tell nothing.
//!
//! Full segments that time out again and again, while nothing is known to be wrong with the path,
//! are taken for a black hole: the size falls to the base, with the next timeout to what every path
//! takes, and by IPv4, which promises little, to the least that is ever sent. A path that loses that
//! too is perhaps a bad one and no narrow one, and the sizes take turns until something arrives. From
//! a small one single larger segments search upwards: half of the way, then all of it. One that is
//! lost was too large, and says nothing about congestion.

use millrace_frames::{Owners, TxBatch};
use millrace_wire::seq::Seq;
use millrace_wire::tcp::Flags as Bits;

use super::congestion::CaState;
use super::connection::{Features, Flags, State};
use super::emit::Outgoing;
use super::output::Copied;
use super::scoreboard::Sent;
use super::settings::{LEAST_MSS, MtuDiscovery};
use crate::address::is_v4;
use crate::config::MtuProbing;
use crate::path_mtu::LIFETIME;
use crate::stack::Stack;

/// Timeouts in a row that make a black hole of full segments that are lost (Linux's
/// `tcp_retries1`).
const BLACK_HOLE: u8 = 3;
/// Payload of a segment that every path takes, options apart: IPv4's packets of 576 bytes, near
/// enough, and IPv6's of 1280 (RFC 1122 §3.3.2, RFC 8200 §5).
const EVERY_PATH: u16 = 512;
const EVERY_PATH_V6: u16 = 1220;
/// IPv4 promises no more than packets of 68 bytes (RFC 791 §3.2), and routers' reports are not followed
/// so far down. This gets through wherever anybody still sends data.
const NARROWEST_PATH: u16 = LEAST_MSS;
/// The search ends when what is left to gain is less.
const CLOSE_ENOUGH: u16 = 8;
/// Segments that the congestion window holds at least for a probe to be sent, and that must follow
/// it so that its loss is found without a timeout.
const LEAST_WINDOW: u32 = 11;
const FOLLOWERS: u32 = 4;

/// What is known of the path's segment size. All sizes are payload bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SegmentSize {
    /// What was agreed on with the peer, and what is searched for; 0: that is in use.
    pub(crate) agreed: u16,
    /// The largest that is known to work, or taken for it: where the search begins.
    proven: u16,
    /// The largest that may still work.
    highest: u16,
    /// A probe has arrived since the size was lowered.
    rose: bool,
    /// A probe is under way.
    probe: Option<(Seq, Seq)>,
    /// When the search goes on, seconds.
    next_s: u32,
}

impl SegmentSize {
    /// A piece goes again. If it is of the probe, others were lost with that, and it may have been for
    /// congestion: the probe has told nothing, and a later one has the same size (RFC 4821 §7.6.4).
    pub(crate) fn is_sent_again(&mut self, piece: &Sent) {
        self.probe.take_if(|(start, end)| piece.start.lt(*end) && piece.end.gt(*start));
    }
}

impl Stack {
    /// The path's MTU became known, or less than it was.
    #[inline(always)]
    pub(crate) fn path_mtu_lowered(&mut self, index: usize, mtu: u16) {
        let connection = &self.connections[index];
        match connection.state {
            State::Closed | State::TimeWait => return,
            // What the peer takes is not known yet; when it is, the path is looked at again.
            State::SynSent => return self.syn_too_large(index),
            // A SYN-ACK fits everywhere, and at the end of the handshake the path is looked at again.
            State::SynReceived if connection.flags.has(Flags::HALF_OPEN) => return,
            _ => {}
        }
        let headers = if is_v4(connection.remote) { 40 } else { 60 };
        let options = connection.features.options_len();
        let mss = mtu.saturating_sub(headers + options).max(LEAST_MSS);
        if mss >= connection.mss || !self.follows_reports(index) {
            return;
        }
        self.segments_too_large(index, mss);
    }

    #[cold]
    fn segments_too_large(&mut self, index: usize, mss: u16) {
        let later = self.now_s + LIFETIME.as_secs() as u32;
        self.lower_segment_size(index, mss, mss, later);
        self.resend_too_large(index);
    }

    /// Whether what is known of the path is for this connection.
    fn follows_reports(&self, index: usize) -> bool {
        match self.settings(index).mtu_discovery {
            MtuDiscovery::Want | MtuDiscovery::Always => true,
            MtuDiscovery::Never => !is_v4(self.connections[index].remote),
            MtuDiscovery::Probe => false,
        }
    }

    /// The path's MTU is more than it was.
    pub(crate) fn path_mtu_raised(&mut self, index: usize) {
        let connection = &self.connections[index];
        if !connection.flags.has(Flags::SMALL_SEGMENTS) {
            return;
        }
        let now_s = self.now_s;
        let most = self.path_payload(index);
        let size = &mut self.transfer_mut(index).segment_size;
        let highest = size.agreed.min(most);
        size.highest = highest;
        size.next_s = now_s;
        if self.config.mtu_probing != MtuProbing::Always {
            // Whoever says so knows it; a black hole would be found.
            self.raise_segment_size(index, highest);
        }
    }

    /// Segments are no smaller from now on. A window of one holds one of the new size, or data would
    /// wait for the persist timer with nothing in flight.
    fn raise_segment_size(&mut self, index: usize, mss: u16) {
        let connection = &mut self.connections[index];
        connection.mss = connection.mss.max(mss);
        let window = &mut connection.congestion.window;
        *window = (*window).max(connection.mss.into());
    }

    /// A new connection's path may be known already. If not, and the configuration says so, the
    /// search begins with the base.
    pub(crate) fn clamp_to_path(&mut self, index: usize) {
        let mtu = self.path_mtu(self.connections[index].remote);
        self.path_mtu_lowered(index, mtu);
        if self.config.mtu_probing != MtuProbing::Always {
            return;
        }
        let (agreed, base) = (self.connections[index].mss, self.config.base_mss);
        if self.connections[index].flags.has(Flags::SMALL_SEGMENTS) {
            self.transfer_mut(index).segment_size.proven = base.min(agreed);
        } else if base < agreed {
            self.lower_segment_size(index, base, agreed, self.now_s);
        }
    }

    /// Payload of the largest segment that the path is said to take.
    fn path_payload(&self, index: usize) -> u16 {
        let connection = &self.connections[index];
        let options = connection.features.options_len();
        self.path_mss(connection.remote).saturating_sub(options).max(LEAST_MSS)
    }

    fn lower_segment_size(&mut self, index: usize, mss: u16, highest: u16, next_s: u32) {
        let before = core::mem::replace(&mut self.connections[index].mss, mss);
        self.connections[index].flags.set(Flags::SMALL_SEGMENTS);
        let size = &mut self.transfer_mut(index).segment_size;
        if size.agreed == 0 {
            size.agreed = before;
        }
        *size = SegmentSize { proven: mss, highest, probe: None, rose: false, next_s, ..*size };
    }

    /// What is in flight and larger than a segment was lost on the way, and not to congestion.
    fn resend_too_large(&mut self, index: usize) {
        let connection = &self.connections[index];
        let mss = u32::from(connection.mss);
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        transfer.sent.keeps_losses = false;
        let mut lost = 0;
        for at in 0..transfer.sent.len() {
            let too_large = transfer.sent.get(at).is_some_and(|piece| {
                piece.len() > mss && !piece.mark.has(super::scoreboard::Mark::SACKED)
            });
            if too_large {
                lost += transfer.sent.mark_lost(at);
            }
        }
        if lost == 0 {
            return;
        }
        transfer.recovery.lost_without_congestion(connection.snd_nxt);
        transfer.undo.end();
        self.push_out(index);
    }

    /// The retransmission timer ran out, `retries` times in a row now.
    pub(crate) fn suspect_black_hole(&mut self, index: usize) {
        self.fail_probe(index);
        let connection = &self.connections[index];
        if connection.retries < BLACK_HOLE || self.config.mtu_probing == MtuProbing::Off {
            return;
        }
        let mss = connection.mss;
        let (least, narrowest) = match is_v4(connection.remote) {
            true => (EVERY_PATH, NARROWEST_PATH),
            false => {
                let least = EVERY_PATH_V6 - connection.features.options_len();
                (least, least)
            }
        };
        let full = self
            .transfer(index)
            .and_then(|transfer| transfer.sent.first())
            .is_some_and(|first| first.len() >= mss.into());
        if !full {
            return;
        }
        let base = self.config.base_mss.max(least);
        let pause = self.now_s + 1;
        let smaller = [base, least].into_iter().find(|&size| size < mss).unwrap_or(narrowest);
        if smaller < mss {
            self.counters.path_mtu_black_holes += 1;
            self.lower_segment_size(index, smaller, mss - 1, pause);
        } else if let Some(agreed) = self.transfer(index).map(|one| one.segment_size.agreed)
            && agreed > mss
        {
            let known = self.path_payload(index).clamp(mss, agreed);
            self.lower_segment_size(index, known, known, pause);
        }
    }

    /// Before new data leaves on a connection with small segments: sends a larger one as a probe
    /// where that is due. Returns false if no frame was free.
    pub(crate) fn search_segment_size(
        &mut self,
        index: usize,
        usable: u32,
        out: &mut TxBatch,
    ) -> bool {
        let now_s = self.now_s;
        let connection = &self.connections[index];
        let (mss, window) = (connection.mss, connection.congestion.window);
        let unsent = connection.unsent();
        let probing = self.config.mtu_probing != MtuProbing::Off;
        let path = self.path_payload(index);
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return true };
        let open = transfer.recovery.state == CaState::Open && transfer.sent.sacked == 0;
        let size = &mut transfer.segment_size;
        if size.agreed <= mss {
            size.agreed = 0;
            self.connections[index].flags.clear(Flags::SMALL_SEGMENTS);
            return true;
        }
        if size.probe.is_some() || (now_s.wrapping_sub(size.next_s) as i32) < 0 {
            return true;
        }
        let most = size.agreed.min(path);
        size.highest = size.highest.min(most);
        if size.highest.saturating_sub(mss) < CLOSE_ENOUGH {
            // All of it again after a while: the path may have changed.
            size.highest = most;
            size.next_s = now_s + LIFETIME.as_secs() as u32;
            if !probing {
                // Without a search, by trying it.
                self.raise_segment_size(index, most);
            }
            return true;
        }
        if !probing || !open {
            return true;
        }
        // A path that takes more than was thought most often takes all of it.
        let wanted = match size.highest == most && size.rose {
            true => most,
            false => {
                let half = size.proven + (size.highest - size.proven).div_ceil(2);
                half.max(mss + (size.highest - mss).div_ceil(2).min(CLOSE_ENOUGH))
            }
        };
        let room = u32::from(wanted) + FOLLOWERS * u32::from(mss);
        let fits = self.arena.frame_size() - millrace_frames::Arena::HEADROOM >= wanted.into();
        if !fits || usable < room || unsent < room || window < LEAST_WINDOW * u32::from(mss) {
            return true;
        }
        self.send_size_probe(index, wanted, out)
    }

    /// One segment of `size` bytes, gathered from as many frames as that takes.
    fn send_size_probe(&mut self, index: usize, size: u16, out: &mut TxBatch) -> bool {
        let connection = &self.connections[index];
        let (seq, first) = (connection.snd_nxt, connection.cursor);
        let into = (seq - Seq(self.arena.meta(first).mark)).max(0) as u32;
        let Some(copied) = self.copy_piece(first, into, size.into()) else { return false };
        let Copied { frame: head, len, sum, next, record_end } = copied;
        if record_end || len < size.into() {
            // The record is no larger: it leaves the common way.
            self.arena.release(head, Owners::TRANSMIT);
            return true;
        }
        let end = seq + len;
        let bits = if self.pushes(index, false, end) { Bits::ACK | Bits::PSH } else { Bits::ACK };
        let timestamp = self.timestamp(index);
        let segment = Outgoing { head, frames: 1, len, sum, seq, bits };
        // For once this is the size of a segment.
        let mss = core::mem::replace(&mut self.connections[index].mss, size);
        self.emit_plain(index, &segment, timestamp, out);
        self.connections[index].mss = mss;
        self.note_sent(index, seq, end, first);
        self.connections[index].cursor = next;
        self.advance_past(index, end);
        self.transfer_mut(index).segment_size.probe = Some((seq, end));
        self.counters.path_mtu_probes += 1;
        true
    }

    /// Something was acknowledged on a connection with small segments: a probe that is has
    /// arrived.
    pub(crate) fn probe_may_have_arrived(&mut self, index: usize) {
        let una = self.connections[index].snd_una;
        let Some(transfer) = self.transfers.get_mut(self.connections[index].transfer) else {
            return;
        };
        let size = &mut transfer.segment_size;
        if let Some((start, end)) = size.probe
            && una.ge(end)
        {
            size.probe = None;
            size.rose = true;
            let mss = (end - start) as u16;
            size.proven = size.proven.max(mss);
            if mss > self.connections[index].mss {
                self.connections[index].mss = mss;
                self.counters.path_mtu_increases += 1;
            }
        }
    }

    /// Losses were found. If a probe is all that was lost, it was too large, and nothing else
    /// follows from it; returns whether that is so.
    pub(crate) fn only_the_probe_was_lost(&mut self, index: usize) -> bool {
        let connection = &self.connections[index];
        let una = connection.snd_una;
        let selective = connection.features.has(Features::SACK);
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return false };
        let Some((start, end)) = transfer.segment_size.probe else { return false };
        let mut rest = 0;
        if start == una && !selective {
            // Of such a peer's losses no more is known than where they begin, and of a large segment
            // that is the first piece. The others have not arrived either.
            while let Some(piece) = transfer.sent.get(rest)
                && piece.start.lt(end)
            {
                rest += 1;
            }
        }
        let before = transfer.sent.lost;
        (0..rest).for_each(|at| {
            transfer.sent.mark_lost(at);
        });
        let lost = transfer.sent.lost;
        let alone = start == una && lost == (end - start) as u32;
        if lost > before {
            let most = self.connections[index].flight().saturating_sub(lost);
            let duplicates = &mut transfer.recovery.duplicate_bytes;
            *duplicates = most.min(*duplicates);
            self.count_losses(index, lost - before);
        }
        if alone {
            self.transfer_mut(index).recovery.force = true;
            self.fail_probe(index);
            self.push_out(index);
        }
        alone
    }

    fn fail_probe(&mut self, index: usize) {
        if let Some(transfer) = self.transfers.get_mut(self.connections[index].transfer)
            && let Some((start, end)) = transfer.segment_size.probe.take()
        {
            transfer.segment_size.highest = ((end - start) as u16) - 1;
        }
    }
}
