//! When an acknowledgement goes at once and when it waits for data to ride on (RFC 9293 §3.8.6.3,
//! RFC 1122 §4.2.3.2, RFC 5681 §4.2), by Linux's heuristics.
//!
//! A sender in slow start needs every acknowledgement, so a connection begins in quick mode, and
//! goes back to it after a loss or a long silence. Answers that follow what they answer make it
//! interactive, and then acknowledgements wait. How long is learned from the time between arrivals.

use core::time::Duration;

use super::connection::{Connection, Features, Flags};
use super::timers::ticks;
use crate::stack::Stack;

/// Most acknowledgements that go at once in a row.
const MOST_QUICK: u8 = 16;
/// The least estimate of the time between arrivals, and the least delay.
const LEAST_MS: u32 = 40;
/// What a full segment has at least, while no larger one was seen.
const LEAST_FULL: u16 = 536;
/// The greatest delay.
const MOST_MS: u32 = 200;

/// What decides about the next acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuickAck {
    /// Acknowledgements that still go at once; the highest bit: data went out soon after data
    /// came, which makes the connection interactive.
    quick: u8,
    /// Estimated time between arrivals, milliseconds; 0: nothing has come.
    between_ms: u8,
    /// Largest payload of a segment seen, which a full one has.
    full: u16,
}

const INTERACTIVE: u8 = 0x80;

impl QuickAck {
    pub(crate) const EMPTY: QuickAck = QuickAck { quick: 0, between_ms: 0, full: 0 };

    fn quick_left(self) -> u8 {
        self.quick & !INTERACTIVE
    }

    fn is_interactive(self) -> bool {
        self.quick & INTERACTIVE != 0
    }

    /// So many go at once, if it is not more already.
    fn go_quick(&mut self, window: u32) {
        let segments = window / (2 * u32::from(self.full.max(1)));
        let wanted = if segments == 0 { 2 } else { segments.min(MOST_QUICK.into()) as u8 };
        let left = self.quick_left().max(wanted);
        self.quick = self.quick & INTERACTIVE | left;
    }

    /// Acknowledgements go at once from now on, interactive or not.
    fn enter(&mut self, window: u32) {
        self.quick &= !INTERACTIVE;
        self.between_ms = LEAST_MS as u8;
        self.go_quick(window);
    }

    /// An acknowledgement has left.
    #[inline]
    pub(crate) fn acknowledged(&mut self) {
        if self.quick_left() > 0 {
            self.quick -= 1;
            if self.quick_left() == 0 {
                self.between_ms = LEAST_MS as u8;
            }
        }
    }

    /// Data has left, so many milliseconds after the last data came.
    #[inline]
    pub(crate) fn data_left(&mut self, since: u32) {
        if since < u32::from(self.between_ms) {
            self.quick |= INTERACTIVE;
        }
    }

    /// Estimated time between arrivals, microseconds; 0: nothing has come.
    pub(crate) fn between_us(self) -> u32 {
        u32::from(self.between_ms) * 1000
    }

    /// Payload of the peer's full segments, as far as it was seen.
    pub(crate) fn full_segment(self) -> u32 {
        self.full.into()
    }
}

impl Connection {
    /// Whether an acknowledgement need not wait for reasons of the connection's state.
    #[inline]
    pub(crate) fn is_quick(&self) -> bool {
        self.quick_ack.quick_left() > 0 && !self.quick_ack.is_interactive()
    }

    /// Whether acknowledgements are delayed whenever they may be.
    pub(crate) fn is_interactive(&self) -> bool {
        self.quick_ack.is_interactive()
    }
}

impl Stack {
    /// Payload came in order, in segments of `piece` bytes.
    #[inline(always)]
    pub(crate) fn data_came(&mut self, index: usize, piece: u32) {
        if self.connections[index].features.has(Features::RECEIVED_AROUND) {
            self.received_around(index);
        }
        let on = self.config.tcp.quick_ack;
        let now = self.now_ms;
        if piece > self.connections[index].quick_ack.full_segment() {
            let most = self.own_mss(self.connections[index].remote);
            let state = &mut self.connections[index].quick_ack;
            state.full = (piece.min(most.into()) as u16).max(LEAST_FULL);
        }
        let connection = &mut self.connections[index];
        let before = core::mem::replace(&mut connection.traffic.last_data_recv, now);
        let since = now.wrapping_sub(before);
        if piece < connection.quick_ack.full.into() {
            connection.flags.set(Flags::PUSHED);
        }
        let window = connection.rcv_wnd();
        let timeout = connection.rtt.timeout;
        let state = &mut connection.quick_ack;
        let between = u32::from(state.between_ms);
        if between == 0 {
            state.between_ms = LEAST_MS as u8;
            if on {
                state.go_quick(window);
            }
            return;
        }
        if since <= LEAST_MS / 2 {
            state.between_ms = (between / 2 + LEAST_MS / 2) as u8;
            return;
        }
        let rto_ms = timeout / 1000;
        if since < between {
            state.between_ms = (between / 2 + since).min(rto_ms.clamp(LEAST_MS, MOST_MS)) as u8;
        } else if on && since > rto_ms {
            // Too long a gap: perhaps the sender restarts its window, and needs them.
            state.go_quick(window);
        }
    }

    /// Something is wrong with the stream (a gap, a duplicate): the sender is to hear of all that
    /// comes.
    #[inline]
    pub(crate) fn enter_quick_ack(&mut self, index: usize) {
        if self.config.tcp.quick_ack {
            let connection = &mut self.connections[index];
            let window = connection.rcv_wnd();
            connection.quick_ack.enter(window);
        }
    }

    /// How long the next acknowledgement is delayed.
    #[inline]
    pub(crate) fn delayed_ack_ticks(&self, index: usize) -> u32 {
        if u32::from(self.connections[index].quick_ack.between_ms) <= LEAST_MS {
            return self.delayed_ack_ticks;
        }
        ticks(Duration::from_micros(self.delayed_ack_us(index).into()))
    }

    /// How long the next acknowledgement is delayed, microseconds.
    fn delayed_ack_us(&self, index: usize) -> u32 {
        let least = u32::try_from(self.config.delayed_ack.as_micros()).unwrap_or(u32::MAX);
        let connection = &self.connections[index];
        let between = u32::from(connection.quick_ack.between_ms) * 1000;
        if !self.config.tcp.quick_ack || between <= LEAST_MS * 1000 {
            return least;
        }
        let smoothed = connection.rtt.smoothed();
        let mut most = MOST_MS * 1000;
        if smoothed > 0 {
            most = most.min(smoothed.max(LEAST_MS * 1000));
        }
        between.min(most).max(least.min(MOST_MS * 1000))
    }

    /// The delay is over and no data came to ride on: next time it is longer, or this is not an
    /// interactive connection.
    pub(crate) fn delay_in_vain(&mut self, index: usize) {
        let state = &mut self.connections[index].quick_ack;
        if state.is_interactive() {
            state.quick &= !INTERACTIVE;
            state.between_ms = LEAST_MS as u8;
        } else {
            state.between_ms = u32::from(state.between_ms).saturating_mul(2).min(MOST_MS) as u8;
        }
    }

    /// The application has taken what there was. A sender that wrote it all and waits need not
    /// wait for the timer, unless an answer is likely to come.
    #[inline]
    pub(crate) fn read_everything(&mut self, index: usize) {
        let connection = &self.connections[index];
        if connection.flags.has(Flags::PUSHED)
            && connection.flags.has(Flags::DELACK_ARMED)
            && self.config.tcp.quick_ack
            && !connection.is_interactive()
        {
            self.acknowledge_now(index);
        }
    }

    /// `TCP_QUICKACK`: acknowledge at once for now, or delay from now on.
    pub(crate) fn set_quick_ack(&mut self, index: usize, on: bool) {
        let connection = &mut self.connections[index];
        if on {
            let window = connection.rcv_wnd();
            connection.quick_ack.enter(window);
            if connection.flags.has(Flags::DELACK_ARMED) {
                self.acknowledge_now(index);
            }
        } else {
            connection.quick_ack.quick = INTERACTIVE;
        }
    }

    /// Payload of the peer's full segments: the largest seen, or what it may be.
    pub(crate) fn received_mss(&self, index: usize) -> u32 {
        match self.connections[index].quick_ack.full_segment() {
            0 => self.connections[index].mss.into(),
            full => full,
        }
    }
}
