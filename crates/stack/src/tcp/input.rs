//! What a segment does to a connection (RFC 9293 §3.10.7), with the checks of RFC 5961 for
//! resets, SYNs and acknowledgements that somebody off the path may have invented.

use millrace_frames::Frame;
use millrace_wire::mac::Mac;
use millrace_wire::protocol;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{self, Flags as Bits, Options};

use super::connection::{Connection, Failure, Features, Flags, Ready, State};
use super::out_of_order::Kept;
use super::table::FourTuple;
use super::traffic;
use crate::ip::IpInfo;
use crate::stack::Stack;

/// What the stack needs of a segment; its payload is in the frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) tuple: FourTuple,
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    pub(crate) bits: Bits,
    pub(crate) window: u16,
    /// Payload bytes.
    pub(crate) len: u32,
    /// The IP header's ECN codepoint in the lower two bits, and AE in the third.
    pub(crate) ecn: u8,
    /// Value and echo of the timestamps option.
    pub(crate) timestamps: Option<(u32, u32)>,
    /// The other options. Nearly all segments have none, and share one list of nothing.
    pub(crate) options: &'a Options,
}

/// Most frames in a receive queue, whatever its size in bytes: a segment and what waits beyond a
/// gap must not take the count over 16 bits.
pub(super) const MOST_RECEIVE_FRAMES: u16 = 32_768;
/// Most frames of a segment, which may have come in fragments of eight bytes.
const MOST_SEGMENT_FRAMES: u16 = 8192;
/// Most frames that wait beyond a gap.
pub(crate) const MOST_OUT_OF_ORDER_FRAMES: u16 =
    u16::MAX - (MOST_RECEIVE_FRAMES - 1) - MOST_SEGMENT_FRAMES;

impl Segment<'_> {
    #[inline]
    pub(crate) fn has(&self, bit: Bits) -> bool {
        self.bits.intersects(bit)
    }

    /// Sequence numbers that it takes up.
    #[inline]
    pub(crate) fn sequence_len(&self) -> u32 {
        self.len + u32::from(self.has(Bits::SYN)) + u32::from(self.has(Bits::FIN))
    }
}

/// The ECN codepoint of the IP header that begins at `start`.
fn ip_codepoint(bytes: &[u8], start: usize) -> u8 {
    match bytes.get(start..start + 2) {
        Some(&[first, second]) if first >> 4 == 4 => second & 0b11,
        // The traffic class lies across the first two bytes.
        Some(&[_, second]) => second >> 4 & 0b11,
        _ => 0,
    }
}

impl Connection {
    /// Whether a reset has the number of the peer's FIN. Some that have sent one, macOS among them,
    /// reset from it and not from the number behind it.
    fn resets_from_fin(&self, seq: Seq) -> bool {
        seq + 1 == self.rcv_nxt
            && matches!(self.state, State::CloseWait | State::Closing | State::LastAck)
    }
}

impl Stack {
    /// A TCP packet. Takes the frames: queues or releases them.
    pub(crate) fn tcp_packet(&mut self, frame: Frame, ip: &IpInfo) {
        if ip.many {
            self.counters.drop_tcp_not_unicast += 1;
            return self.drop_chain(frame);
        }
        let bytes = &self.arena.bytes(frame)[ip.payload..];
        let header = match tcp::Segment::parse(&bytes[..bytes.len().min(ip.len)]) {
            Ok(header) => header,
            Err(_) => {
                self.counters.drop_tcp_malformed += 1;
                return self.drop_chain(frame);
            }
        };
        let pseudo = ip.pseudo(protocol::TCP, ip.len);
        if !self.checksum_holds(
            frame,
            self.arena.bytes(frame),
            ip.payload,
            ip.len,
            header.checksum(),
            pseudo,
        ) {
            self.counters.drop_tcp_checksum += 1;
            return self.drop_chain(frame);
        }
        let Ok(options) = header.options() else {
            self.counters.drop_tcp_options += 1;
            return self.drop_chain(frame);
        };
        let header_len = header.header_len();
        let ecn = ip_codepoint(self.arena.bytes(frame), ip.start) | u8::from(header.ae()) << 2;
        let segment = Segment {
            tuple: FourTuple {
                remote: ip.source,
                remote_port: header.source_port(),
                local_port: header.destination_port(),
                local: ip.local,
            },
            seq: header.sequence(),
            ack: header.acknowledgement(),
            bits: header.flags(),
            window: header.window(),
            len: (ip.len - header_len) as u32,
            ecn,
            timestamps: options.timestamps,
            options: &options,
        };
        let meta = self.arena.meta_mut(frame);
        let skip = (ip.payload + header_len) as u16;
        meta.offset += skip;
        meta.len -= skip;
        self.uncommon_segment(frame, &segment, ip.mac);
    }

    /// [`Stack::tcp_segment`], for who is not in a hurry.
    #[inline(never)]
    pub(super) fn uncommon_segment(&mut self, frame: Frame, segment: &Segment, mac: Mac) {
        self.tcp_segment(frame, segment, mac);
    }

    /// A segment whose headers are right. `mac` sent the frame, whose bytes are the payload.
    #[inline(always)]
    pub(super) fn tcp_segment(&mut self, frame: Frame, segment: &Segment, mac: Mac) {
        let hash = self.flow_hash(&segment.tuple);
        match self.find_connection(hash, &segment.tuple) {
            Some(index) => {
                self.counters.segments_in += 1;
                let pieces = self.arena.meta(frame).gso_size;
                self.connections[index].traffic.arrived(segment.len, pieces);
                if self.predicted(index, segment, frame) {
                    return;
                }
                let reopened = self.connections[index].state == State::TimeWait
                    && self.reopens_time_wait(index, segment);
                if reopened {
                    self.counters.time_wait_reused += 1;
                    let before = self.connections[index].snd_nxt;
                    self.forget_time_wait(index);
                    self.listener_segment(hash, segment, mac, Some(before), frame);
                } else {
                    self.segment_arrives(index, segment, frame);
                }
            }
            None => self.listener_segment(hash, segment, mac, None, frame),
        }
    }

    pub(crate) fn segment_arrives(&mut self, index: usize, segment: &Segment, frame: Frame) {
        let connection = &self.connections[index];
        let (state, has_ecn) = (connection.state, connection.has_ecn());
        if state == State::SynSent {
            return self.syn_sent(index, segment, frame);
        }
        let mut seq = segment.seq;
        let mut len = segment.len;
        let mut fin = segment.has(Bits::FIN);
        let mut syn = segment.has(Bits::SYN);

        if state == State::SynReceived && syn && seq == connection.irs {
            // The peer's SYN once more: it missed our SYN-ACK. With an ACK it is its own
            // SYN-ACK, the other half of a simultaneous open (RFC 9293 §3.5, figure 8).
            if !segment.has(Bits::ACK) {
                if has_ecn && !self.ecn_of_repeated_syn(index, segment) {
                    self.send_reset(segment, None);
                    // An application may have it already.
                    self.connections[index].failure = Some(Failure::Aborted);
                    self.end_connection(index);
                    return self.drop_chain(frame);
                }
                let connection = &mut self.connections[index];
                connection.flags.set(Flags::SEND_SYN);
                self.push_out(index);
                return self.drop_chain(frame);
            }
            self.report_duplicate(index, seq, seq + 1);
            seq += 1;
            syn = false;
        }

        // First, the sequence number, and before it the timestamp (RFC 7323 §5.3).
        if self.wrapped(index, segment) {
            self.counters.drop_tcp_paws += 1;
            if syn {
                // Whoever sends many gets no more answers than for others (RFC 5961 §4 and §7).
                self.challenge(index);
                return self.drop_chain(frame);
            }
            self.answer_outside_window(index, segment);
            return self.drop_chain(frame);
        }
        let connection = &mut self.connections[index];
        let sequence_len = len + u32::from(syn) + u32::from(fin);
        let end = seq + sequence_len;
        let acceptable = if sequence_len == 0 {
            // The right edge itself is taken too: a peer that filled the window sends from there.
            seq.ge(connection.rcv_nxt) && seq.le(connection.rcv_adv)
        } else {
            end.gt(connection.rcv_nxt) && seq.lt(connection.rcv_adv)
        };
        if !acceptable {
            let probes_window = seq == connection.rcv_nxt && connection.rcv_wnd() == 0;
            if probes_window && !syn {
                // Its data is refused. Its acknowledgement is not (RFC 9293 §3.10.7.4), nor is it as a
                // reset, which may come with data (§3.4 and §3.5.3).
                len = 0;
                fin = false;
                if !segment.has(Bits::RST) {
                    self.acknowledge_now(index);
                }
            } else {
                return self.refuse_sequence(index, segment, sequence_len, frame);
            }
        }

        // Second, RST; fourth, SYN (RFC 5961 §3 and §4).
        if segment.has(Bits::RST) {
            if state == State::TimeWait {
                // It would let an old segment of this connection into the next (RFC 1337 §3).
                self.counters.drop_tcp_time_wait_reset += 1;
                return self.drop_chain(frame);
            }
            // A peer that aborts while something of its data is missing here sends its reset from
            // the end of what it sent, which may be where the last block ends.
            let connection = &self.connections[index];
            if seq == connection.rcv_nxt
                || connection.resets_from_fin(seq)
                || self.ends_out_of_order(index, seq)
            {
                self.reset_received(index);
            } else {
                self.counters.drop_tcp_challenged += 1;
                self.challenge(index);
            }
            return self.drop_chain(frame);
        }
        if syn {
            self.counters.drop_tcp_challenged += 1;
            self.challenge(index);
            return self.drop_chain(frame);
        }

        // Fifth, ACK.
        if !segment.has(Bits::ACK) {
            self.counters.drop_tcp_no_ack += 1;
            return self.drop_chain(frame);
        }
        if has_ecn
            && state != State::SynReceived
            && self.connections[index].may_acknowledge(segment.ack)
        {
            let count = traffic::segments(segment.len, self.arena.meta(frame).gso_size);
            self.ecn_received(index, segment, count);
        }
        if state == State::SynReceived {
            if !self.handshake_done(index, segment) {
                return self.drop_chain(frame);
            }
        } else if !self.acknowledgement(index, segment) {
            return self.drop_chain(frame);
        }
        // Not before: somebody off the path who knows the four numbers must not make a dead peer seem
        // alive (RFC 5961 §1.2).
        self.connections[index].traffic.last_recv = self.now_ms;
        self.take_timestamp(index, segment);
        if let Some(timeout) = segment.options.user_timeout {
            self.user_timeout_received(index, timeout);
        }

        // Sixth, URG: urgent data is delivered in line (RFC 6093 §3.2). Seventh, the text.
        let connection = &mut self.connections[index];
        if len == 0 && !fin {
            return self.drop_chain(frame);
        }
        match connection.state {
            State::Established | State::FinWait1 | State::FinWait2 => {}
            State::TimeWait | State::CloseWait | State::Closing | State::LastAck => {
                if len > 0 {
                    self.counters.drop_tcp_after_fin += 1;
                }
                return self.drop_chain(frame);
            }
            State::Closed | State::SynSent | State::SynReceived => return self.drop_chain(frame),
        }
        if connection.flags.has(Flags::APP_CLOSED) && (seq + len).gt(connection.rcv_nxt) {
            // Nobody will read it, and the peer must know (RFC 1122 §4.2.2.13).
            if connection.retries > 0 {
                // What was sent was lost on the way, so the peer expects what it acknowledges, and
                // a reset with another number is challenged (RFC 5961 §3.2).
                self.send_reset(segment, None);
                self.connections[index].failure = Some(Failure::Aborted);
                self.end_connection(index);
            } else {
                self.abort_connection(index, Failure::Aborted);
            }
            return self.drop_chain(frame);
        }
        if segment.has(Bits::PSH) {
            connection.flags.set(Flags::PUSHED);
        }
        self.text(index, seq, len, fin, frame);
    }

    /// The segment's payload and FIN, of which at least a part is in the window.
    pub(crate) fn text(
        &mut self,
        index: usize,
        mut seq: Seq,
        mut len: u32,
        mut fin: bool,
        frame: Frame,
    ) {
        let connection = &mut self.connections[index];
        if connection.flags.has(Flags::FIN_SEEN) && (seq + len).gt(connection.fin_seq) {
            self.counters.drop_tcp_after_fin += 1;
            return self.drop_chain(frame);
        }
        let data_end = seq + len;
        let over = (data_end - connection.rcv_adv).max(0) as u32;
        if over > 0 {
            // More than the window takes: the rest, and so the FIN, comes again.
            len -= over.min(len);
            fin = false;
        }
        let mut frame = self.number_and_trim(frame, seq, len as usize);
        let connection = &mut self.connections[index];
        let old = (connection.rcv_nxt - seq).max(0) as u32;
        if old > 0 {
            let old = old.min(len);
            frame = self.trim_front(frame, old as usize);
            self.report_duplicate(index, seq, seq + old);
            seq += old;
            len -= old;
        }
        let connection = &mut self.connections[index];
        let repeated = connection.flags.has(Flags::FIN_SEEN);
        if fin {
            connection.flags.set(Flags::FIN_SEEN);
            connection.fin_seq = data_end;
        }
        if seq != connection.rcv_nxt {
            // A gap: the acknowledgement must go at once, one for each segment, so that the
            // peer counts them (RFC 5681 §4.2). What was dropped has not left the network as they
            // have, and says nothing new: an answer once in a while is enough for all of it.
            let mut owed = connection.acks_owed.saturating_add(1);
            if len > 0 {
                match self.keep_out_of_order(index, frame) {
                    Kept::Yes => {
                        self.counters.out_of_order += 1;
                        self.transfer_mut(index).totals.out_of_order += 1;
                    }
                    Kept::Duplicate => self.counters.drop_tcp_duplicate += 1,
                    Kept::Full => {
                        self.counters.drop_tcp_out_of_order_full += 1;
                        owed = u8::from(self.may_answer(index));
                    }
                }
            } else if fin {
                if repeated {
                    self.report_duplicate(index, data_end, data_end + 1);
                }
                self.report_lone_fin(index);
            }
            if owed > 0 {
                let connection = &mut self.connections[index];
                connection.acks_owed = connection.acks_owed.max(owed);
                self.enter_quick_ack(index);
                self.push_out(index);
            }
            return;
        }
        if len > 0 {
            let connection = &mut self.connections[index];
            let (free, own) = (self.arena.free(), connection.receive_frames);
            let few = free <= self.config.frame_reserve as usize / 2;
            if few || !self.memory.fair(free, own) || own >= MOST_RECEIVE_FRAMES {
                self.counters.drop_tcp_receive_queue_full += 1;
                self.take_window_back(index);
                return self.drop_chain(frame);
            }
            let piece = match self.arena.meta(frame).gso_size {
                0 => len,
                size => size.into(),
            };
            let wanted = !connection.flags.has(Flags::READ_SHUT);
            connection.append_received(&mut self.arena, frame, self.memory.pack_above);
            if wanted {
                self.tell(index, Ready::READABLE);
            }
            let connection = &mut self.connections[index];
            connection.unacknowledged += len;
            // Duplicates that were owed for segments beyond the gap would now acknowledge
            // something new, and the peer would take the rest of them for another loss.
            connection.acks_owed = connection.acks_owed.min(1);
            if connection.out_of_order.is_empty() {
                self.acknowledge_text(index, piece);
            } else {
                self.data_came(index, piece);
                self.fill_gap(index);
                self.acknowledge_now(index);
            }
        }
        let connection = &mut self.connections[index];
        // Not only at it: a peer that sent data behind its FIN contradicts itself.
        if connection.flags.has(Flags::FIN_SEEN) && connection.rcv_nxt.ge(connection.fin_seq) {
            self.fin_received(index);
        }
    }

    /// There was no frame for what came in order. The peer hears of it as of a window that closed,
    /// and waits, where it would otherwise take it for a loss (RFC 9293 §3.8.6 has senders prepared
    /// for that, and Linux does the same).
    #[cold]
    fn take_window_back(&mut self, index: usize) {
        self.look_at_memory();
        let connection = &mut self.connections[index];
        if connection.rcv_adv.gt(connection.rcv_nxt) {
            connection.rcv_adv = connection.rcv_nxt;
            self.counters.windows_taken_back += 1;
        }
        self.acknowledge_now(index);
    }

    /// Eighth, FIN: everything before it has come.
    pub(super) fn fin_received(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.advance_received(1);
        connection.unacknowledged += 1;
        // What a peer sent beyond its own FIN belongs to nothing.
        self.discard_out_of_order(index);
        self.acknowledge_now(index);
        let connection = &mut self.connections[index];
        match connection.state {
            State::Established => {
                connection.state = State::CloseWait;
                self.tell(index, Ready::FINISHED);
            }
            State::FinWait1 => {
                connection.state = State::Closing;
                self.tell(index, Ready::FINISHED);
            }
            State::FinWait2 => {
                self.tell(index, Ready::FINISHED);
                self.enter_time_wait(index);
            }
            _ => {}
        }
    }

    /// A segment outside the window.
    fn refuse_sequence(
        &mut self,
        index: usize,
        segment: &Segment,
        sequence_len: u32,
        frame: Frame,
    ) {
        let connection = &mut self.connections[index];
        if segment.has(Bits::RST) {
            match connection.resets_from_fin(segment.seq) {
                true => self.reset_received(index),
                false => self.counters.drop_tcp_outside_window += 1,
            }
            return self.drop_chain(frame);
        }
        if segment.has(Bits::SYN) {
            self.ecn_of_repeated_syn_ack(index, segment);
            self.counters.drop_tcp_challenged += 1;
            self.challenge(index);
            return self.drop_chain(frame);
        }
        let end = segment.seq + sequence_len;
        if end == connection.rcv_nxt
            && segment.has(Bits::ACK)
            && connection.state != State::SynReceived
        {
            // The last that was acknowledged, once more: our acknowledgement is lost, and what this one
            // acknowledges may be told by nothing else, for a peer that waits sends nothing new.
            if !self.acknowledgement(index, segment)
                || self.connections[index].state == State::Closed
            {
                return self.drop_chain(frame);
            }
        }
        let connection = &self.connections[index];
        if end.le(connection.rcv_nxt) && sequence_len > 0 {
            self.counters.drop_tcp_duplicate += 1;
            self.counters.duplicates += 1;
            if self.connections[index].state == State::TimeWait {
                // The peer's FIN again: our last acknowledgement was lost (RFC 9293 §3.10.7.4).
                self.arm_expiry(index, self.config.time_wait);
            }
            if segment.len > 0 {
                self.enter_quick_ack(index);
            }
        } else {
            self.counters.drop_tcp_outside_window += 1;
        }
        self.answer_outside_window(index, segment);
        self.drop_chain(frame);
    }

    #[inline]
    pub(crate) fn acknowledge_now(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.acks_owed = connection.acks_owed.max(1);
        self.push_out(index);
    }

    /// Text came in order, in segments of `piece` bytes: more than one full segment is acknowledged
    /// at once, the rest may ride on data (RFC 9293 §3.8.6.3).
    #[inline]
    pub(crate) fn acknowledge_text(&mut self, index: usize, piece: u32) {
        self.data_came(index, piece);
        let connection = &self.connections[index];
        if connection.unacknowledged > connection.quick_ack.full_segment() || connection.is_quick()
        {
            self.acknowledge_now(index);
        } else if !connection.flags.has(Flags::DELACK_ARMED) {
            self.arm_delayed_ack(index);
        }
    }

    fn reset_received(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        self.counters.connections_reset += 1;
        match connection.state {
            // A passive open goes back to LISTEN without a word (RFC 9293 §3.10.7.4).
            State::SynReceived if connection.features.has(Features::EARLY) => {
                connection.failure = Some(Failure::Reset);
                self.punish_early_reset(index);
                self.end_connection(index);
            }
            State::SynReceived if !connection.flags.has(Flags::ACTIVE) => {
                self.free_connection(index);
            }
            State::SynReceived => {
                connection.failure = Some(Failure::Refused);
                self.end_connection(index);
            }
            // Both directions were done, and at most our FIN is lost.
            State::Closing | State::LastAck if connection.queued() == 0 => {
                self.end_connection(index);
            }
            _ => {
                connection.failure = Some(Failure::Reset);
                self.end_connection(index);
            }
        }
    }
}
