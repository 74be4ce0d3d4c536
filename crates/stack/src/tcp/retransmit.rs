//! Sending again what is lost, as far as the congestion window allows (RFC 6675 §5, `NextSeg`).

use millrace_frames::TxBatch;

use super::chronograph::Limit;
use super::congestion::CaState;
use super::connection::{Features, Flags};
use super::delivery_rate::Snapshot;
use super::frto::Frto;
use super::output::{Shape, Stop};
use super::push::Train;
use super::scoreboard::{Mark, Sent};
use super::transfer::Transfer;
use crate::stack::Stack;
use millrace_frames::Frame;
use millrace_wire::seq::Seq;

impl Stack {
    /// Puts a first transmission on the scoreboard.
    #[inline(always)]
    pub(crate) fn note_sent(&mut self, index: usize, start: Seq, end: Seq, frame: Frame) {
        let now_us = self.now_us;
        let before = self.in_flight(index);
        let len = (end - start) as u32;
        let transfer = self.transfer_mut(index);
        let held = transfer.limit != Limit::None;
        let idle = transfer.sent.is_empty();
        if idle {
            transfer.rack.begin_flight();
        }
        let mark = if transfer.pushed == end { Mark::PUSHED } else { Mark::default() };
        let snapshot = transfer.delivery.sent(now_us, idle, before + len);
        transfer.sent.push(Sent { start, end, frame, sent_at: now_us, mark, snapshot });
        if matches!(transfer.recovery.state, CaState::Cwr | CaState::Recovery) {
            transfer.prr.out += len;
        }
        if held {
            self.set_limit(index, Limit::None);
        }
    }

    /// Sends again what is lost.
    pub(crate) fn retransmit(&mut self, index: usize, out: &mut TxBatch) -> Stop {
        let mut train = Train::default();
        loop {
            let in_flight = self.in_flight(index);
            let connection = &self.connections[index];
            let (window, mss) = (connection.congestion.window, u32::from(connection.mss));
            let edge = connection.snd_una + connection.snd_wnd;
            let Some(transfer) = self.transfers.get_mut(connection.transfer) else {
                return Stop::Done;
            };
            let force = transfer.recovery.force;
            let tries_new = transfer.recovery.frto == Frto::SendingNew && !force;
            let high = transfer.recovery.high;
            let Some(at) = transfer.sent.next_lost() else {
                transfer.recovery.force = false;
                return Stop::Done;
            };
            let Some(&piece) = transfer.sent.get(at) else { return Stop::Done };
            let room = window.saturating_sub(in_flight);
            if !force && room < piece.len().min(mss) {
                return Stop::Done;
            }
            // A peer may take its window back, though it should not (RFC 9293 §3.8.6). What is left
            // of it is used, and where nothing is, it is probed.
            let left = (edge - piece.start).max(0) as u32;
            if left == 0 || (at > 0 && left < piece.len().min(mss)) {
                transfer.recovery.force = false;
                return Stop::Done;
            }
            if out.is_full() {
                return Stop::Again;
            }
            if !force && !self.may_leave(index) {
                return Stop::Done;
            }
            if tries_new {
                if self.connections[index].snd_nxt.le(high)
                    && self.send_data(index, out) == Stop::Again
                {
                    return Stop::Again;
                }
                if self.connections[index].snd_nxt.gt(high) {
                    return Stop::Done;
                }
                // The window does not take it, or Nagle's algorithm holds it (RFC 5682 §2.1, step 2b).
                if let Some(transfer) = self.transfer_if_any(index) {
                    transfer.recovery.frto = Frto::Off;
                }
            }
            let piece = match piece.len() < mss {
                true => self.coalesce(index, at, piece, mss.min(left).min(room.max(piece.len()))),
                false => piece,
            };
            let most = (room.max(mss) / mss * mss).min(left);
            let mut push = false;
            if self.config.tx_gso == 0 {
                let next = self.transfer(index).and_then(|transfer| transfer.sent.get(at + 1));
                // What left apart does so again.
                let follows = !piece.mark.has(Mark::PUSHED)
                    && next.is_some_and(|next| {
                        next.is_due() && room >= piece.len() + next.len().min(mss)
                    });
                push = train.push(self, index, !follows);
                if !follows {
                    train = Train::default();
                }
            }
            if !self.send_again(index, at, most, push, out) {
                return Stop::Again;
            }
            if let Some(transfer) = self.transfers.get_mut(self.connections[index].transfer) {
                transfer.recovery.force = false;
            }
        }
    }

    /// The probe of a tail: new data if there is any and the peer takes it, whatever the congestion
    /// window, else the last segment once more (RFC 8985 §7.3).
    pub(crate) fn transmit_probe(&mut self, index: usize, out: &mut TxBatch) -> Stop {
        let connection = &self.connections[index];
        let (mss, unsent) = (u32::from(connection.mss), connection.unsent());
        let room = connection.snd_wnd.saturating_sub(connection.flight());
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else {
            return Stop::Done;
        };
        if !transfer.probe.due {
            return Stop::Done;
        }
        if out.is_full() {
            return Stop::Again;
        }
        let sent = if !transfer.probe.repeats() && unsent > 0 {
            let most = unsent.min(mss);
            if most > room {
                // The window was taken back since the probe fell due.
                transfer.probe.cancel();
                return Stop::Done;
            }
            self.send_segment(index, most, Shape::default(), out)
        } else {
            let Transfer { sent, .. } = transfer;
            let Some(&last) = sent.last() else {
                // Everything was acknowledged since, and there is no probe that it could tell of.
                transfer.probe.cancel();
                return Stop::Done;
            };
            let mut at = sent.len() - 1;
            if last.len() > mss {
                let whole = (last.len() - 1) / mss * mss;
                sent.split(&self.arena, at, last.start + whole);
                at += 1;
            }
            self.send_again(index, at, mss, false, out)
        };
        if !sent {
            return Stop::Again;
        }
        let connection = &self.connections[index];
        if let Some(transfer) = self.transfers.get_mut(connection.transfer) {
            transfer.probe.has_left(connection.snd_nxt);
        }
        self.arm_timeout(index);
        Stop::Done
    }

    /// Sends a record, or its first `most` bytes, once more. Returns false if no frame was free.
    fn send_again(
        &mut self,
        index: usize,
        at: usize,
        most: u32,
        push: bool,
        out: &mut TxBatch,
    ) -> bool {
        let connection = &self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return true };
        let Some(&piece) = transfer.sent.get(at) else { return true };
        let small = connection.flags.has(Flags::SMALL_SEGMENTS);
        if small {
            transfer.segment_size.is_sent_again(&piece);
        }
        let data = ((connection.snd_end - piece.start).max(0) as u32).min(piece.len());
        let fin = piece.end.gt(connection.snd_end);
        let timestamp = connection
            .features
            .has(Features::TIMESTAMPS)
            .then(|| self.copy_timestamp(index, &piece));
        let shape = Shape { fin, super_: true, push, timestamp };
        let Some((end, _)) =
            self.transmit_piece(index, piece.frame, piece.start, data.min(most), shape, out)
        else {
            return false;
        };
        if let Some(timestamp) = timestamp {
            self.note_copy_timestamp(index, timestamp);
        }
        let now_us = self.now_us;
        let in_flight = self.in_flight(index);
        let Some(transfer) = self.transfers.get_mut(self.connections[index].transfer) else {
            return true;
        };
        if end.lt(piece.end) {
            transfer.sent.split(&self.arena, at, end);
        }
        let len = (end - piece.start) as u32;
        let snapshot: Snapshot = transfer.delivery.sent(now_us, false, in_flight + len);
        transfer.sent.retransmitted(at, now_us, snapshot);
        transfer.prr.out += len;
        transfer.undo.retransmitted(len, timestamp);
        self.count_retransmission(index, len);
        self.connections[index].sent_now(self.whole_us);
        self.pace(index, len);
        if at == 0 || !self.connections[index].flags.has(Flags::REXMIT_ARMED) {
            self.arm_retransmission(index);
        }
        true
    }
}
