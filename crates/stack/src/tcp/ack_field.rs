//! The ACK field of a segment that arrives in a synchronised state (RFC 9293 §3.10.7.4, fifth step):
//! whether it is believed, the send window that comes with it, and what follows from progress.
//! What it says of data in flight is [`super::acknowledgement`]'s.

use millrace_wire::seq::Seq;

use super::connection::{Flags, Ready, State};
use super::input::Segment;
use crate::stack::Stack;

/// Somebody waits for more to be acknowledged: an application, a size probe, a write that more was to
/// follow, or a window probe, whose answers have set `retries` to 0.
const AWAITS_PROGRESS: Flags =
    Flags::WANT_WRITE.with(Flags::SMALL_SEGMENTS).with(Flags::MORE).with(Flags::PERSIST);

impl Stack {
    /// Whether it acknowledges what is before our SYN. RFC 5961 §5.2 takes what is not older than
    /// a window, and a window may be larger than all that was ever sent: then anybody's guess between
    /// would do.
    #[inline]
    fn never_sent(&self, index: usize, ack: Seq) -> bool {
        let connection = &self.connections[index];
        let behind = connection.snd_una - ack;
        behind > 0
            && behind as u32 > (connection.snd_una - connection.iss) as u32
            && self.transfer(index).is_none_or(|transfer| transfer.totals.acked_wraps == 0)
    }

    /// An acknowledgement in a synchronised state. Returns whether the segment is to be looked at
    /// any further.
    #[inline]
    pub(crate) fn acknowledgement(&mut self, index: usize, segment: &Segment) -> bool {
        let connection = &self.connections[index];
        let ack = segment.ack;
        if !connection.may_acknowledge(ack) || self.never_sent(index, ack) {
            self.counters.drop_tcp_bad_ack += 1;
            self.challenge(index);
            return false;
        }
        let window = u32::from(segment.window) << connection.snd_shift;
        // One that was overtaken may still tell of what arrived out of order.
        let tells = ack.ge(connection.snd_una) || !segment.options.sack().is_empty();
        if tells
            && (connection.snd_una != connection.snd_nxt || self.hears_of_copies(index, segment))
        {
            let connection = &self.connections[index];
            let duplicate = ack == connection.snd_una
                && segment.sequence_len() == 0
                && window == connection.snd_wnd;
            if self.acknowledged(index, segment, duplicate) {
                self.progress(index);
            }
        }
        let connection = &mut self.connections[index];
        // RFC 9293's SND.WL2 is never beyond SND.UNA, so its comparison is this one.
        let newest = ack.ge(connection.snd_una) && connection.snd_wl1.le(segment.seq);
        let grew = newest && window > connection.snd_wnd;
        if newest {
            connection.snd_wnd = window;
            connection.snd_wl1 = segment.seq;
            connection.max_window = connection.max_window.max(window);
        }
        if grew {
            self.window_opened(index);
        } else if connection.flags.has(Flags::PERSIST) {
            // The peer answers our probes, so it lives (RFC 9293 §3.8.6.1). The next one still
            // comes later than the last one did.
            connection.retries = 0;
        }
        self.our_fin_acknowledged(index)
    }

    /// What follows when something was acknowledged for the first time.
    #[inline(always)]
    pub(crate) fn progress(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let flags = connection.flags;
        if connection.snd_una == connection.snd_nxt {
            connection.flags.clear(Flags::PERSIST.with(Flags::REXMIT_ARMED));
        }
        if connection.retries > 0 || flags.has(AWAITS_PROGRESS) {
            self.progress_was_awaited(index);
        }
        let connection = &self.connections[index];
        if connection.unsent() > 0 || connection.fin_unsent() {
            self.push_out(index);
        }
    }

    #[inline(never)]
    fn progress_was_awaited(&mut self, index: usize) {
        self.connections[index].retries = 0;
        self.tell_room(index);
        if self.connections[index].flags.has(Flags::SMALL_SEGMENTS) {
            self.probe_may_have_arrived(index);
        }
        self.silence_ended(index);
        self.more_is_late(index);
    }

    fn window_opened(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.flags.has(Flags::PERSIST) {
            connection.flags.clear(Flags::PERSIST.with(Flags::REXMIT_ARMED));
            connection.retries = 0;
            connection.rtt.forget_back_off();
            self.silence_ended(index);
            let connection = &self.connections[index];
            if connection.snd_una != connection.snd_nxt {
                // What had been sent before the window was taken back still waits.
                self.arm_retransmission(index);
                self.push_out(index);
            }
        }
        let connection = &self.connections[index];
        if connection.unsent() > 0 || connection.fin_unsent() {
            self.push_out(index);
        }
    }

    /// What follows when our FIN was acknowledged. Returns false when the connection is gone.
    #[inline]
    fn our_fin_acknowledged(&mut self, index: usize) -> bool {
        let connection = &self.connections[index];
        if !connection.flags.has(Flags::FIN_QUEUED) || connection.snd_una.le(connection.snd_end) {
            return true;
        }
        match connection.state {
            State::FinWait1 => {
                let connection = &mut self.connections[index];
                connection.state = State::FinWait2;
                // All is delivered, so there is nothing to linger for.
                connection.flags.clear(Flags::LINGERING);
                if connection.flags.has(Flags::ATTACHED) {
                    self.tell(index, Ready::FLUSHED);
                } else {
                    self.orphan_in_fin_wait_2(index);
                }
                self.connections[index].state != State::Closed
            }
            State::Closing => {
                self.tell(index, Ready::FLUSHED);
                self.enter_time_wait(index);
                true
            }
            State::LastAck => {
                self.tell(index, Ready::FLUSHED);
                self.end_connection(index);
                false
            }
            _ => true,
        }
    }
}
