//! Which segments a connection sends, and what is in them (RFC 9293 §3.8 and §3.10).
//!
//! Payload leaves in the frames it was written to; the headers are put into the head room before
//! it ([`super::emit`]). Several frames leave as one super-segment where the port cuts them up.

use millrace_frames::{Arena, Frame, Owners, TxBatch};
use millrace_wire::checksum;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::Flags as Bits;

use super::chronograph::Limit;
use super::congestion::Private;
use super::connection::{Connection, Features, Flags, NO_LINK, State};
use super::emit::Outgoing;
use super::options::SegmentOptions;
use super::push::Train;
use crate::stack::Stack;

/// Frames in one super-segment, at most: what a port can gather in one call.
const MOST_FRAMES: u16 = 46;

/// What a transmission of payload may be besides the payload.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shape {
    /// The FIN stands behind the last byte, if the segment has that.
    pub(crate) fin: bool,
    /// Several frames may leave as one super-segment.
    pub(crate) super_: bool,
    /// PSH, whether or not more is there to be sent.
    pub(crate) push: bool,
    /// A timestamp other than the clock's.
    pub(crate) timestamp: Option<u32>,
}

/// Payload that leaves in a frame of its own.
pub(crate) struct Copied {
    pub(crate) frame: Frame,
    pub(crate) len: u32,
    pub(crate) sum: u16,
    /// The frame that holds what follows.
    pub(crate) next: Frame,
    pub(crate) record_end: bool,
}

/// Payload of a SYN.
pub(crate) struct Payload {
    pub(crate) frame: Frame,
    pub(crate) len: u32,
    pub(crate) sum: u16,
}

/// Why a connection stopped sending.
#[derive(PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nothing more to send now.
    Done,
    /// No room in the batch or no free frame: to be called again.
    Again,
}

impl Connection {
    /// The sequence number of a segment without payload: `snd_nxt`, or where the peer's window
    /// ends if it has taken back what was sent into. Beyond that end it would have to refuse the
    /// acknowledgement too (RFC 9293 §3.10.7.4), and two such peers would wait for each other.
    #[inline]
    fn acceptable_seq(&self) -> Seq {
        let edge = self.snd_una + self.snd_wnd;
        if self.snd_nxt.le(edge) || self.state < State::Established { self.snd_nxt } else { edge }
    }
}

impl Stack {
    /// Sends what the connection may send now. Returns false if it must be called again because
    /// the batch is full or no frame is free.
    #[inline]
    pub(crate) fn tcp_output(&mut self, index: usize, out: &mut TxBatch) -> bool {
        if self.send_one_segment(index, out) {
            return true;
        }
        match self.connections[index].state {
            State::Closed => true,
            State::SynSent => self.send_syn(index, out) == Stop::Done,
            State::SynReceived => {
                self.send_syn(index, out) == Stop::Done
                    && self.send_early(index, out) == Stop::Done
                    && self.send_acknowledgements(index, out) == Stop::Done
            }
            _ => {
                (!self.ecn_wants_ack(index) || self.send_acknowledgements(index, out) == Stop::Done)
                    && self.send_window_probe(index, out) == Stop::Done
                    && self.send_lost(index, out) == Stop::Done
                    && self.send_data(index, out) == Stop::Done
                    && self.send_acknowledgements(index, out) == Stop::Done
            }
        }
    }

    fn send_syn(&mut self, index: usize, out: &mut TxBatch) -> Stop {
        let connection = &self.connections[index];
        // One from an address that is still tentative waits until that is settled.
        if !connection.flags.has(Flags::SEND_SYN) || self.addresses.is_tentative(connection.local) {
            return Stop::Done;
        }
        let passive = connection.state == State::SynReceived;
        if !passive {
            self.ask_for_ecn(index);
        }
        let connection = &self.connections[index];
        if !passive && connection.snd_nxt == connection.iss {
            // What a SYN-ACK may echo begins here.
            self.connections[index].ts_recent = self.timestamp(index);
        }
        let connection = &self.connections[index];
        let bits = if passive { Bits::SYN | Bits::ACK } else { Bits::SYN };
        let seq = connection.iss;
        let payload = match self.syn_payload(index) {
            Some(payload) => payload,
            None => match self.arena.allocate(Owners::TRANSMIT) {
                Some(frame) => Payload { frame, len: 0, sum: 0 },
                None => {
                    self.counters.drop_no_frame += 1;
                    return Stop::Again;
                }
            },
        };
        let segment = Outgoing {
            head: payload.frame,
            frames: 1,
            len: payload.len,
            sum: payload.sum,
            seq,
            bits,
        };
        if !self.emit_ordinary_syn(index, &segment, passive, out) {
            let options = self.syn_options(index, passive);
            self.emit(index, &segment, SegmentOptions::Written(options.padded()), out);
        }
        let (whole_us, tick) = (self.whole_us, self.tick);
        let connection = &mut self.connections[index];
        connection.flags.clear(Flags::SEND_SYN);
        connection.sent_now(whole_us);
        if connection.snd_nxt == seq {
            connection.snd_nxt = seq + 1;
            if connection.features.has(Features::EARLY) {
                // Data may follow at once; that the SYN-ACK is not acknowledged, the state says.
                connection.snd_una = seq + 1;
                if connection.queued() > 0 {
                    connection.begin_busy(tick);
                }
            }
        } else {
            self.count_retransmission(index, 0);
            if !passive {
                let totals = &mut self.transfer_mut(index).totals;
                totals.syn_retransmitted = totals.syn_retransmitted.saturating_add(1);
            }
        }
        let connection = &mut self.connections[index];
        // Only the first SYN-ACK has it.
        connection.features.clear(Features::COOKIE_DUE);
        if !connection.flags.has(Flags::REXMIT_ARMED) {
            self.arm_timeout(index);
        }
        Stop::Done
    }

    /// What an early connection has to send before its handshake has ended (RFC 7413 §4.2.2).
    fn send_early(&mut self, index: usize, out: &mut TxBatch) -> Stop {
        if !self.connections[index].features.has(Features::EARLY) {
            return Stop::Done;
        }
        match self.send_window_probe(index, out) {
            Stop::Done => self.send_data(index, out),
            again => again,
        }
    }

    /// A window probe that the persist timer asked for.
    #[inline]
    fn send_window_probe(&mut self, index: usize, out: &mut TxBatch) -> Stop {
        if !self.connections[index].flags.has(Flags::PROBE) {
            return Stop::Done;
        }
        if out.is_full() {
            return Stop::Again;
        }
        // One number before the window: whoever gets it must answer with an acknowledgement,
        // and with it the window (RFC 9293 §3.8.6.1), and no byte need be kept for it.
        let seq = self.connections[index].snd_una - 1;
        if !self.send_empty(index, seq, Bits::ACK, out) {
            return Stop::Again;
        }
        self.connections[index].flags.clear(Flags::PROBE);
        let persisting = self.connections[index].flags.has(Flags::PERSIST);
        self.counters.window_probes += u64::from(persisting);
        Stop::Done
    }

    /// What is to be sent again.
    #[inline]
    fn send_lost(&mut self, index: usize, out: &mut TxBatch) -> Stop {
        let Some(transfer) = self.transfer(index) else { return Stop::Done };
        if transfer.probe.due {
            return self.transmit_probe(index, out);
        }
        if transfer.sent.lost > 0 || transfer.recovery.force {
            return self.retransmit(index, out);
        }
        Stop::Done
    }

    #[inline]
    pub(super) fn send_data(&mut self, index: usize, out: &mut TxBatch) -> Stop {
        let mut train = Train::default();
        let before = self.connections[index].snd_nxt;
        loop {
            let connection = &mut self.connections[index];
            if !connection.sends_data() {
                return Stop::Done;
            }
            let unsent = connection.unsent();
            if unsent == 0 {
                let in_flight = self.in_flight(index);
                let connection = &mut self.connections[index];
                let window = connection.congestion.window;
                if before != connection.snd_nxt {
                    self.validate_window(index, false);
                }
                let connection = &mut self.connections[index];
                let mut more = connection.flags.has(Flags::WANT_WRITE);
                if in_flight < window
                    && let Some(transfer) = self.transfers.get_mut(connection.transfer)
                    && !transfer.sent.is_empty()
                {
                    transfer.delivery.app_limited(in_flight);
                    more |= transfer.withheld;
                }
                if more && in_flight < window && in_flight > 0 {
                    self.set_limit(index, Limit::Buffer);
                }
                let connection = &self.connections[index];
                if !connection.fin_unsent() {
                    return Stop::Done;
                }
                if out.is_full() || !self.send_fin(index, out) {
                    return Stop::Again;
                }
                return Stop::Done;
            }
            if out.is_full() {
                return Stop::Again;
            }
            let flight = connection.flight();
            if flight == 0 && connection.snd_wnd > 0 {
                self.restart_after_idle(index);
            }
            let in_flight = self.in_flight(index);
            let connection = &mut self.connections[index];
            let by_congestion = connection.congestion.window.saturating_sub(in_flight);
            let by_peer = connection.snd_wnd.saturating_sub(flight);
            let mut usable = by_congestion.min(by_peer).min(unsent);
            let mss = u32::from(connection.mss);
            if usable < mss.min(unsent) {
                // The window takes less than a whole segment (or than all there is). Silly
                // window avoidance (RFC 9293 §3.8.6.2.1): wait, unless it is half of the largest
                // window the peer ever had, or the persist timer overrides.
                if by_congestion <= by_peer || before != connection.snd_nxt {
                    self.validate_window(index, by_congestion <= by_peer);
                }
                let connection = &mut self.connections[index];
                let worth_it = usable > 0
                    && flight == 0
                    && (usable >= connection.max_window / 2 || connection.flags.has(Flags::FORCE));
                if !worth_it {
                    let by_window = by_peer < by_congestion;
                    if by_window {
                        self.set_limit(index, Limit::Window);
                    }
                    let connection = &mut self.connections[index];
                    if connection.snd_una == connection.snd_nxt
                        && !connection.flags.has(Flags::REXMIT_ARMED)
                    {
                        connection.flags.set(Flags::PERSIST);
                        self.arm_retransmission(index);
                    }
                    return Stop::Done;
                }
            } else if (usable < mss || self.config.tx_gso > 0)
                && !usable.is_multiple_of(mss)
                && (usable < unsent || self.nagle_holds(index))
            {
                // Whole segments only; where each leaves alone, this one is.
                usable -= usable % mss;
                if usable == 0 {
                    self.cork_ceiling(index);
                    return Stop::Done;
                }
            }
            if self.config.tso_win_divisor > 0
                && usable < unsent
                && train.is_new()
                && self.waits_for_more_window(index, by_congestion.min(by_peer))
            {
                self.validate_window(index, by_congestion <= by_peer);
                return Stop::Done;
            }
            if !self.may_leave(index) {
                self.validate_window(index, false);
                return Stop::Done;
            }
            if self.connections[index].flags.has(Flags::SMALL_SEGMENTS) {
                let next = self.connections[index].snd_nxt;
                if !self.search_segment_size(index, usable, out) {
                    return Stop::Again;
                }
                if next != self.connections[index].snd_nxt {
                    continue;
                }
            }
            let usable = if self.config.tx_gso > 0 && usable > mss {
                usable.min(self.burst(index))
            } else {
                usable
            };
            let mut shape = Shape { super_: true, ..Shape::default() };
            let more = self.connections[index].flags.has(Flags::MORE);
            if self.config.tx_gso == 0 && (unsent > mss || more) {
                let left = by_congestion.min(by_peer).saturating_sub(mss);
                let last = unsent <= mss || left < mss.min(unsent - mss);
                shape.push = train.push_new(self, index, last);
            }
            if !self.send_segment(index, usable, shape, out) {
                return Stop::Again;
            }
            let connection = &mut self.connections[index];
            connection.flags.clear(Flags::FORCE);
            let end = connection.snd_nxt;
            if usable == unsent
                && !unsent.is_multiple_of(mss)
                && end.ge(connection.snd_end)
                && !connection.flags.has(Flags::NO_DELAY)
            {
                self.note_small(index, end);
            }
        }
    }

    /// RFC 5681 §4.1.
    #[inline]
    fn restart_after_idle(&mut self, index: usize) {
        let (initial, restarts) =
            (self.config.initial_window, self.config.tcp.slow_start_after_idle);
        let (now_us, whole_us) = (self.now_us, self.whole_us);
        let connection = &mut self.connections[index];
        let idle_us = u32::try_from(connection.since_sent(whole_us)).unwrap_or(u32::MAX);
        let timeout_us = if restarts { connection.rtt.timeout } else { u32::MAX };
        let mss = u32::from(connection.mss);
        if idle_us <= timeout_us && connection.transfer == NO_LINK {
            return;
        }
        let mut fresh = Private::new(connection.algorithm);
        let private = match self.transfers.get_mut(connection.transfer) {
            Some(transfer) => &mut transfer.congestion,
            None => &mut fresh,
        };
        connection.congestion.on_idle_restart(private, now_us, idle_us, timeout_us, mss, initial);
    }

    fn send_fin(&mut self, index: usize, out: &mut TxBatch) -> bool {
        let seq = self.connections[index].snd_end;
        if !self.send_empty(index, seq, Bits::FIN | Bits::ACK, out) {
            return false;
        }
        self.note_sent(index, seq, seq + 1, Frame::NONE);
        self.advance_past(index, seq + 1);
        true
    }

    #[inline]
    fn send_acknowledgements(&mut self, index: usize, out: &mut TxBatch) -> Stop {
        while self.connections[index].acks_owed > 0 {
            if out.is_full() {
                return Stop::Again;
            }
            let owed = self.connections[index].acks_owed;
            let seq = self.connections[index].acceptable_seq();
            if !self.send_empty(index, seq, Bits::ACK, out) {
                return Stop::Again;
            }
            self.connections[index].acks_owed = owed - 1;
        }
        Stop::Done
    }

    /// A segment without payload.
    fn send_empty(&mut self, index: usize, seq: Seq, bits: Bits, out: &mut TxBatch) -> bool {
        let Some(frame) = self.arena.allocate(Owners::TRANSMIT) else {
            self.counters.drop_no_frame += 1;
            return false;
        };
        let timestamp = self.timestamp(index);
        let empty = Outgoing { head: frame, frames: 1, len: 0, sum: 0, seq, bits };
        self.emit_plain(index, &empty, timestamp, out);
        true
    }

    /// Sends one segment (or super-segment) of at most `most` bytes from `snd_nxt` on. Returns false
    /// if no frame was free for a copy.
    #[inline(always)]
    pub(crate) fn send_segment(
        &mut self,
        index: usize,
        most: u32,
        shape: Shape,
        out: &mut TxBatch,
    ) -> bool {
        let connection = &self.connections[index];
        let (cursor, seq) = (connection.cursor, connection.snd_nxt);
        let shape = Shape { fin: connection.flags.has(Flags::FIN_QUEUED), ..shape };
        let Some((end, next)) = self.transmit_piece(index, cursor, seq, most, shape, out) else {
            return false;
        };
        self.note_sent(index, seq, end, cursor);
        self.connections[index].cursor = next;
        self.advance_past(index, end);
        true
    }

    /// Sends at most `most` bytes that begin at `seq` in the frame `cursor`. Returns the sequence
    /// number after them, and the frame that holds it; `None`: no frame was free.
    #[inline]
    pub(crate) fn transmit_piece(
        &mut self,
        index: usize,
        cursor: Frame,
        seq: Seq,
        most: u32,
        shape: Shape,
        out: &mut TxBatch,
    ) -> Option<(Seq, Frame)> {
        let Shape { fin, super_, push, timestamp } = shape;
        if most == 0 {
            return self
                .send_empty(index, seq, Bits::FIN | Bits::ACK, out)
                .then_some((seq + 1, Frame::NONE));
        }
        let mss = u32::from(self.connections[index].mss);
        let meta = *self.arena.meta(cursor);
        let into = (seq - Seq(meta.mark)).max(0) as u32;
        let gso = self.config.tx_gso;
        // Each packet that may be cut needs an identification of its own.
        let super_ = super_ && !self.ecn_wants_one(index) && !self.may_be_cut(index);
        let limit = match gso > 0 && super_ {
            // One segment may be larger than what is cut for us may be.
            true if most > gso => (gso / mss).max(1) * mss,
            true => most,
            false => most.min(mss),
        };
        let whole = into == 0
            && u32::from(meta.len) <= limit
            && !self.arena.owners(cursor).intersects(Owners::TRANSMIT);

        let (head, frames, len, sum, next, record_end);
        if whole {
            let mut total = u32::from(meta.len);
            let mut total_sum = meta.sum;
            let mut count = 1;
            let mut last = meta;
            if gso > 0 && super_ {
                while count < MOST_FRAMES && last.next.is_some() {
                    let more = *self.arena.meta(last.next);
                    if total + u32::from(more.len) > limit
                        || last.record_end
                        || self.arena.owners(last.next).intersects(Owners::TRANSMIT)
                    {
                        break;
                    }
                    total_sum = checksum::concat(total_sum, total as usize, more.sum);
                    total += u32::from(more.len);
                    count += 1;
                    last = more;
                }
            }
            let mut frame = cursor;
            for _ in 0..count {
                self.arena.own(frame, Owners::TRANSMIT);
                frame = self.arena.meta(frame).next;
            }
            record_end = last.record_end;
            (head, frames, len, sum, next) = (cursor, count, total, total_sum, last.next);
        } else {
            // Not a whole frame, or one that is still in flight: a copy leaves in its stead.
            let copied = self.copy_piece(cursor, into, limit.min(mss))?;
            record_end = copied.record_end;
            (head, frames, len, sum, next) = (copied.frame, 1, copied.len, copied.sum, copied.next);
        }

        let connection = &self.connections[index];
        let end = seq + len;
        let mut bits = Bits::ACK;
        let last = end == connection.snd_end && !connection.flags.has(Flags::MORE);
        let push = push || last || record_end || len > mss;
        let mut next_seq = end;
        if fin && end == connection.snd_end {
            bits |= Bits::FIN;
            next_seq += 1;
        }
        if self.pushes(index, push, end) {
            bits |= Bits::PSH;
        }
        let timestamp = timestamp.unwrap_or_else(|| self.timestamp(index));
        self.emit_plain(index, &Outgoing { head, frames, len, sum, seq, bits }, timestamp, out);
        Some((next_seq, next))
    }

    /// Gathers at most `most` bytes, which begin `into` bytes after the first of the frame `from`,
    /// into a frame of their own: no segment is small because frames were filled for another
    /// size. A record's end is one of the segment's too. `None`: no frame was free.
    pub(crate) fn copy_piece(&mut self, from: Frame, into: u32, most: u32) -> Option<Copied> {
        let Some(copy) = self.arena.allocate(Owners::TRANSMIT) else {
            self.counters.drop_no_frame += 1;
            return None;
        };
        let most = (most as usize).min(self.arena.frame_size() - Arena::HEADROOM);
        let (mut len, mut into, mut next) = (0, into as usize, from);
        let mut record_end = false;
        while len < most && next.is_some() && !record_end {
            let meta = *self.arena.meta(next);
            let part = (usize::from(meta.len) - into).min(most - len);
            self.arena.append_from(copy, next, usize::from(meta.offset) + into, part);
            len += part;
            if into + part < usize::from(meta.len) {
                break;
            }
            record_end = meta.record_end;
            into = 0;
            next = meta.next;
        }
        let sum = if self.config.tx_checksum { 0 } else { checksum::sum(self.arena.bytes(copy)) };
        Some(Copied { frame: copy, len: len as u32, sum, next, record_end })
    }

    /// `snd_nxt` goes to `next`, the retransmission timer runs, and what leaves next keeps its pace.
    #[inline(always)]
    pub(crate) fn advance_past(&mut self, index: usize, next: Seq) {
        let len = (next - self.connections[index].snd_nxt) as u32;
        self.advance_unpaced(index, next);
        self.pace(index, len);
    }

    /// The same for what is not paced.
    #[inline(always)]
    pub(crate) fn advance_unpaced(&mut self, index: usize, next: Seq) {
        let whole_us = self.whole_us;
        let connection = &mut self.connections[index];
        // The lower half of the clock is enough to know the same moment by.
        let at_once = connection.last_sent == whole_us as u32;
        let burst = at_once && connection.flight() > connection.mss.into();
        connection.snd_nxt = next;
        connection.sent_now(whole_us);
        let since = self.now_ms.wrapping_sub(connection.traffic.last_data_recv);
        connection.quick_ack.data_left(since);
        let flags = connection.flags;
        connection.flags.clear(Flags::PERSIST);
        if flags.has(Flags::WANT_WRITE) {
            self.tell_unsent_room(index);
        }
        if !flags.has(Flags::REXMIT_ARMED) || flags.has(Flags::PERSIST) {
            self.arm_retransmission(index);
        } else {
            self.push_back_probe(index, burst);
        }
    }
}
