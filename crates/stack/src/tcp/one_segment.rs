//! The segment of a request or of an answer: all that was written and not sent fits into one segment
//! and lies in one frame, the windows have room for it, and nothing else is going on. A FIN goes with
//! it, or alone where everything else has left. It is what header prediction is for receiving:
//! [`super::output`] would send the same segment after asking many questions, to all of which the
//! answer is no.

use millrace_frames::{Frame, Owners, TxBatch};
use millrace_wire::tcp::Flags as Bits;

use super::chronograph::Limit;
use super::connection::{Features, Flags, NO_LINK};
use super::emit::Outgoing;
use super::nagle::is_under_way;
use super::scoreboard::{Mark, Sent};
use crate::stack::Stack;

/// Something is going on that needs the general way.
const UNUSUAL: Flags = Flags::PERSIST
    .with(Flags::PROBE)
    .with(Flags::FORCE)
    .with(Flags::WANT_WRITE)
    .with(Flags::CUSTOM)
    .with(Flags::CORK)
    .with(Flags::MORE)
    .with(Flags::SMALL_SEGMENTS)
    .with(Flags::REPORT_DUPLICATE);

/// What was agreed on and makes segments differ from each other.
const UNUSUAL_FEATURES: Features = Features::ECN.with(Features::ACCURATE_ECN);

impl Stack {
    /// Sends what the connection has to send if it is a segment of that kind. Returns false, with
    /// nothing done, if not.
    #[inline]
    pub(crate) fn send_one_segment(&mut self, index: usize, out: &mut TxBatch) -> bool {
        let connection = &self.connections[index];
        if !connection.state.sends_data() {
            return false;
        }
        match connection.fin_unsent() {
            true => self.send_last_segment(index, out),
            false => self.send_whole::<false>(index, out),
        }
    }

    /// Apart from the others, so that those are asked nothing about a FIN.
    #[inline(never)]
    fn send_last_segment(&mut self, index: usize, out: &mut TxBatch) -> bool {
        self.send_whole::<true>(index, out)
    }

    #[inline(always)]
    fn send_whole<const FIN: bool>(&mut self, index: usize, out: &mut TxBatch) -> bool {
        let connection = &self.connections[index];
        let (seq, flight, len) = (connection.snd_nxt, connection.flight(), connection.unsent());
        let fin = u32::from(FIN);
        let (end, in_flight) = (connection.snd_end + fin, flight + len + fin);
        let (mss, window) = (u32::from(connection.mss), connection.congestion.window);
        let ordinary = self.config.tcp.prediction
            && len + fin > 0
            && len + fin <= mss
            && in_flight <= window
            && in_flight <= connection.snd_wnd
            && !connection.flags.has(UNUSUAL)
            && !connection.features.has(UNUSUAL_FEATURES)
            && connection.out_of_order.is_empty()
            // It carries the one that may be owed.
            && connection.acks_owed <= 1
            && (!FIN || self.arena.free() > 0)
            && !out.is_full();
        if !ordinary {
            return false;
        }
        let cursor = connection.cursor;
        let mut sum = 0;
        if len > 0 {
            let meta = self.arena.meta(cursor);
            sum = meta.sum;
            let whole = meta.mark == seq.0
                && u32::from(meta.len) == len
                && !self.arena.owners(cursor).intersects(Owners::TRANSMIT);
            if !whole {
                return false;
            }
        }
        // What is alone on the path is not paced.
        let paced = flight > 0 && self.config.tcp.pacing && !self.is_too_short_to_pace(index);
        let no_delay = connection.flags.has(Flags::NO_DELAY);
        let idle_too_long = flight == 0 && connection.may_have_idled(self.whole_us);
        let una = connection.snd_una;
        if connection.transfer == NO_LINK {
            self.transfer_mut(index);
        }
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return false };
        let unhindered = transfer.goes_well()
            && transfer.limit == Limit::None
            && !transfer.withheld
            && !paced
            && transfer.pacing.most == 0
            && (flight == 0 || !transfer.pacing.in_force())
            && !transfer.pacing.holds_back(self.now.as_nanos())
            && !idle_too_long
            && (flight > 0 || transfer.congestion.ignores_pauses())
            // Nagle's algorithm, with Minshall's modification. Nothing comes behind a FIN.
            && (no_delay
                || FIN
                || flight == 0
                || !is_under_way(transfer.small_until, una, seq));
        if !unhindered {
            return false;
        }
        let mut head = cursor;
        if len > 0 {
            self.arena.own(cursor, Owners::TRANSMIT);
        } else {
            let Some(empty) = self.arena.allocate(Owners::TRANSMIT) else { return false };
            head = empty;
        }
        if flight == 0 {
            transfer.rack.begin_flight();
        }
        let mut bits = Bits::ACK;
        let mut mark = Mark::default();
        if len > 0 {
            transfer.pushed = seq + len;
            bits |= Bits::PSH;
        } else if flight > 0 && flight < window {
            transfer.delivery.app_limited(flight);
        }
        if FIN {
            bits |= Bits::FIN;
        } else {
            mark = Mark::PUSHED;
        }
        let snapshot = transfer.delivery.sent(self.now_us, flight == 0, in_flight);
        transfer.sent.push(Sent {
            start: seq,
            end,
            frame: if len > 0 { cursor } else { Frame::NONE },
            sent_at: self.now_us,
            mark,
            snapshot,
        });
        if len > 0 {
            transfer.usage.used(in_flight, window.saturating_sub(in_flight) < mss, una, end);
            if in_flight < window {
                transfer.delivery.app_limited(in_flight);
            }
            if !no_delay && len < mss {
                transfer.small_until = Some(end);
            }
        }

        connection.cursor = Frame::NONE;
        let timestamp = connection.timestamp(self.now_ms);
        let segment = Outgoing { head, frames: 1, len, sum, seq, bits };
        self.emit_plain(index, &segment, timestamp, out);
        self.advance_unpaced(index, end);
        true
    }
}
