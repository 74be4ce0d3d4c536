//! Header prediction (Van Jacobson, 1990): nearly every segment of an established connection is
//! the next in sequence and carries data, or an acknowledgement, or both, and nothing else is
//! going on. Such a segment needs none of the tests that [`super::input`] makes. The last one of a
//! peer that closes when it has answered carries its FIN.
//!
//! What is done here is what the general way does with the same segment; the property test of the
//! stack runs both against each other by way of impaired wires.

use millrace_frames::{Frame, Owners};
use millrace_wire::tcp::Flags as Bits;

use super::connection::{Features, Flags, Ready, State};
use super::ecn::codepoint;
use super::input::{MOST_RECEIVE_FRAMES, Segment};
use crate::stack::Stack;

/// Something is going on that needs the general way.
const UNUSUAL: Flags = Flags::FIN_SEEN
    .with(Flags::FIN_QUEUED)
    .with(Flags::APP_CLOSED)
    .with(Flags::READ_SHUT)
    .with(Flags::PERSIST)
    .with(Flags::COUNTS_MARKS)
    .with(Flags::WANT_WRITE);

impl Stack {
    /// Takes the segment if it is as predicted. Returns false, with nothing done, if not.
    #[inline(always)]
    pub(crate) fn predicted(&mut self, index: usize, segment: &Segment, frame: Frame) -> bool {
        let connection = &mut self.connections[index];
        let (ack, len) = (segment.ack, segment.len);
        let meta = self.arena.meta(frame);
        let as_predicted = self.config.tcp.prediction
            && connection.state == State::Established
            && segment.bits.0 & !(Bits::PSH | Bits::FIN).0 == Bits::ACK.0
            && segment.seq == connection.rcv_nxt
            // No segment beyond it has told of a window already.
            && connection.snd_wl1.le(segment.seq)
            && segment.ecn < codepoint::CE
            // What comes unmarked after a mark may be worth telling at once (RFC 8257 §3.2).
            && !connection.features.has(Features::ECHOES_CE)
            && len > 0
            && len == u32::from(meta.len)
            && meta.next.is_none()
            && len <= connection.rcv_wnd()
            && ack.ge(connection.snd_una)
            && ack.le(connection.snd_nxt)
            && segment.options.sack().is_empty()
            && !connection.flags.has(UNUSUAL)
            && connection.timestamp_predicted(segment.timestamps)
            && segment.options.user_timeout.is_none()
            // Nothing before it waits for a gap to be filled.
            && connection.out_of_order.is_empty()
            && connection.receive_frames < MOST_RECEIVE_FRAMES
            && self.arena.free() > self.config.frame_reserve as usize / 2
            && self.memory.fair(self.arena.free(), connection.receive_frames);
        if !as_predicted {
            return false;
        }
        // One that acknowledges nothing may still be what makes a loss certain.
        let in_doubt = ack == connection.snd_una
            && connection.snd_una != connection.snd_nxt
            && self.transfers.get(connection.transfer).is_some_and(|it| !it.goes_well());
        if in_doubt {
            return false;
        }
        connection.traffic.last_recv = self.now_ms;
        if let Some((value, _)) = segment.timestamps {
            connection.note_timestamp(segment.seq, value, self.now_s);
        }
        if ack.gt(connection.snd_una) {
            self.acknowledged(index, segment, false);
            self.progress(index);
        } else if connection.unsent() > 0 {
            self.push_out(index);
        }
        let connection = &mut self.connections[index];
        connection.snd_wnd = u32::from(segment.window) << connection.snd_shift;
        connection.snd_wl1 = segment.seq;
        connection.max_window = connection.max_window.max(connection.snd_wnd);

        let fin = segment.has(Bits::FIN);
        if fin {
            connection.flags.set(Flags::FIN_SEEN);
            connection.fin_seq = segment.seq + len;
        }
        let meta = self.arena.meta_mut(frame);
        meta.mark = segment.seq.0;
        let piece = if meta.gso_size == 0 { len } else { meta.gso_size.into() };
        debug_assert!(self.arena.owners(frame).contains(Owners::RECEIVED));
        if connection.receive.is_empty() {
            connection.receive.head = frame;
            connection.receive.tail = frame;
            connection.receive_frames = 1;
            connection.receive_bytes = len;
            connection.advance_received(len);
        } else {
            connection.append_received(&mut self.arena, frame, self.memory.pack_above);
        }
        connection.acks_owed = connection.acks_owed.min(1);
        connection.unacknowledged += len;
        if segment.has(Bits::PSH) {
            connection.flags.set(Flags::PUSHED);
        }
        self.tell(index, Ready::READABLE);
        self.acknowledge_text(index, piece);
        if fin {
            self.fin_received(index);
        }
        true
    }
}
