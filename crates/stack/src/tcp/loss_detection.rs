//! What is lost: by time where the peer sends selective acknowledgements (RFC 8985, or by count as RFC
//! 6675 has it), by duplicate and partial acknowledgements where it does not (RFC 5681, RFC 6582).

use super::acknowledgement::Told;
use super::congestion::{CaState, LostSegment};
use super::connection::Features;
use super::frto::Frto;
use super::rack::{self, Circumstances};
use super::scoreboard::Mark;
use super::transfer::Transfer;
use crate::stack::Stack;

/// Duplicate acknowledgements that mean a loss where the peer cannot say more (RFC 5681 §3.2).
const DUPLICATES: u32 = 3;

impl Stack {
    /// What is lost, by time or by count.
    pub(super) fn detect_losses(&mut self, index: usize, told: &mut Told) {
        let (by_time, now_us) = (self.config.tcp.rack, self.now_us);
        let connection = &self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let Transfer { sent, rack, recovery, congestion, .. } = transfer;
        sent.keeps_losses = congestion.owns_window();
        let mss = u32::from(connection.mss);
        let recovering = matches!(recovery.state, CaState::Recovery | CaState::Loss);
        if connection.features.has(Features::SACK) {
            if sent.is_empty() || (sent.sacked == 0 && !recovering && !rack.reordering_seen) {
                // Everything arrived in order.
                return;
            }
            if by_time {
                let with = Circumstances {
                    now_us,
                    min_rtt_us: connection.rtt.least(),
                    smoothed_us: connection.rtt.smoothed(),
                    mss,
                    recovering,
                };
                (told.lost, told.wait_us) = rack.detect(sent, &with);
            } else {
                told.lost = rack::detect_by_count(sent, mss);
            }
        } else {
            if told.duplicate && recovery.state != CaState::Loss {
                recovery.duplicates += 1;
                let most = connection.flight().saturating_sub(sent.lost.max(mss));
                recovery.duplicate_bytes = (recovery.duplicate_bytes + mss).min(most);
                told.delivered += mss;
            } else if told.duplicate
                && (recovery.frto == Frto::SendingNew || recovery.duplicate_bytes > 0)
            {
                // What F-RTO tried has arrived (RFC 5682 §2.1, step 3a). Later ones are of copies.
                let tried = (connection.snd_nxt - recovery.high).max(0) as u32;
                let known = recovery.duplicate_bytes;
                recovery.duplicate_bytes = (known + mss).min(tried).max(known);
                told.delivered += recovery.duplicate_bytes - known;
            } else if told.acked > 0 {
                let known = recovery.duplicate_bytes;
                told.delivered = told.delivered.saturating_sub(known).max(mss.min(told.acked));
                // One segment of what was acknowledged had been lost, the others were duplicates'.
                recovery.duplicate_bytes = match recovery.state {
                    CaState::Recovery => {
                        recovery.duplicate_bytes.saturating_sub(told.acked.saturating_sub(mss))
                    }
                    _ => 0,
                };
                let most = connection.flight().saturating_sub(sent.lost);
                recovery.duplicate_bytes = recovery.duplicate_bytes.min(most);
                if recovery.state != CaState::Recovery {
                    recovery.duplicates = 0;
                }
            }
            let third = recovery.state < CaState::Recovery && recovery.duplicates >= DUPLICATES;
            let partial = recovery.state == CaState::Recovery
                && told.acked > 0
                && connection.snd_una.lt(recovery.high);
            let head = sent.first().map(|first| (first.mark, first.len(), first.start));
            if (third || partial)
                && let Some((mark, len, start)) = head
                && !mark.has(Mark::LOST)
            {
                if len > mss {
                    sent.split(&self.arena, 0, start + mss);
                }
                told.lost += sent.mark_lost(0);
                // RFC 6582 §3.2: at once, for no other acknowledgement tells of it.
                recovery.force = true;
                let most = connection.flight().saturating_sub(sent.lost);
                recovery.duplicate_bytes = recovery.duplicate_bytes.min(most);
            }
        }
        self.count_losses(index, told.lost);
    }

    /// So many bytes were marked lost.
    pub(super) fn count_losses(&mut self, index: usize, bytes: u32) {
        let now_us = self.now_us;
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let Transfer { sent, delivery, congestion, .. } = transfer;
        if !sent.keeps_losses {
            delivery.lost = delivery.lost.wrapping_add(bytes);
            return;
        }
        let no_sack = !connection.features.has(Features::SACK);
        for (len, snapshot) in sent.losses.drain(..) {
            let lost = LostSegment { no_sack, ..delivery.lose(len, &snapshot, now_us) };
            connection.congestion.on_segment_lost(congestion, &lost);
        }
    }

    /// The time to wait for reordering is over (RFC 8985 §6.3).
    pub(crate) fn reordering_over(&mut self, index: usize) {
        let mut told = Told::default();
        self.detect_losses(index, &mut told);
        let Some(transfer) = self.transfer_if_any(index) else { return };
        if told.lost > 0 && transfer.recovery.state < CaState::Recovery {
            self.enter_recovery(index);
        }
        if told.lost > 0 {
            let in_flight = self.in_flight(index);
            let proportional = self.config.tcp.prr;
            let connection = &mut self.connections[index];
            let mss = u32::from(connection.mss);
            if let Some(transfer) = self.transfers.get_mut(connection.transfer)
                && transfer.recovery.state == CaState::Recovery
                && !transfer.congestion.owns_window()
                && proportional
            {
                let threshold = connection.congestion.threshold;
                connection.congestion.window =
                    transfer.prr.window(0, in_flight, threshold, mss, false);
            }
            self.push_out(index);
        }
        if told.wait_us > 0 {
            self.arm_reorder(index, told.wait_us);
        } else {
            self.arm_retransmission(index);
        }
    }
}
