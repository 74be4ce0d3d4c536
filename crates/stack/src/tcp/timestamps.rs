//! Timestamps and protection against wrapped sequence numbers (RFC 7323 §3 to §5).
//!
//! The clock counts milliseconds, and each connection adds an offset of its own, a keyed function
//! of the four numbers: so values tell nobody how long the stack has been up, nor which
//! connections are of one host, and yet the next connection with the same four numbers goes on
//! where the last one was (RFC 7323 §5.4, RFC 6191).

use millrace_wire::seq::Seq;
use millrace_wire::tcp::Flags as Bits;

use super::connection::{Connection, Features};
use super::input::Segment;
use crate::stack::Stack;

/// By so much may a value be older than the last one and still pass: a peer's processors may read
/// clocks that are a tick apart. Numbers take many ticks to wrap.
const TOLERANCE: i32 = 1;

/// After so many seconds without a segment `TS.Recent` says nothing, for the peer's clock may have
/// gone round by half (RFC 7323 §5.5).
const OUTDATED: u32 = 24 * 24 * 3600;

impl Connection {
    /// The connection's clock at that time: milliseconds, and its offset.
    #[inline]
    pub(crate) fn timestamp(&self, now_ms: u32) -> u32 {
        now_ms.wrapping_add(self.ts_offset)
    }

    /// Everything below was acknowledged by a segment that left (RFC 7323's `Last.ACK.sent`).
    #[inline]
    fn last_ack_sent(&self) -> Seq {
        self.rcv_nxt - self.unacknowledged
    }

    /// RFC 7323 §4.3: the value to echo is the one of the segment that the acknowledgement owed
    /// will be for, which is the first that came since the last one left. After a long silence any
    /// value is as good as the next (§5.5).
    #[inline]
    pub(crate) fn note_timestamp(&mut self, seq: Seq, value: u32, now_s: u32) {
        let later = newer(value, self.ts_recent) >= 0 || self.is_outdated(now_s);
        if later && seq.le(self.last_ack_sent()) {
            self.ts_recent = value;
            self.ts_recent_at = now_s;
        }
    }

    /// Whether `ts_recent` says nothing any more.
    #[inline]
    fn is_outdated(&self, now_s: u32) -> bool {
        now_s.wrapping_sub(self.ts_recent_at) > OUTDATED
    }

    /// Whether a segment's timestamp is as header prediction wants it: not older than the last
    /// one, alone among the options, or none where none was agreed on.
    #[inline]
    pub(crate) fn timestamp_predicted(&self, timestamps: Option<(u32, u32)>) -> bool {
        if !self.features.has(Features::TIMESTAMPS) {
            return true;
        }
        timestamps.is_some_and(|(value, _)| newer(value, self.ts_recent) >= 0)
    }
}

/// How much later one value is than another.
#[inline]
pub(crate) fn newer(value: u32, than: u32) -> i32 {
    value.wrapping_sub(than) as i32
}

impl Stack {
    /// The connection's clock now.
    #[inline]
    pub(crate) fn timestamp(&self, index: usize) -> u32 {
        self.connections[index].timestamp(self.now_ms)
    }

    /// Milliseconds since the connection sent the value that the peer echoes; `None` if it never
    /// did in the last 24 days (RFC 7323 §4.1).
    pub(crate) fn echo_age(&self, index: usize, echo: u32) -> Option<u32> {
        let age = newer(self.timestamp(index), echo);
        (age >= 0).then_some(age as u32)
    }

    /// Whether a SYN-ACK echoes a timestamp that none of our SYNs had. In SYN-SENT `ts_recent`
    /// is the first one's.
    pub(crate) fn echoes_wrong(&self, index: usize, segment: &Segment) -> bool {
        let connection = &self.connections[index];
        match segment.timestamps {
            Some((_, echo)) if self.config.tcp.timestamps && echo != 0 => {
                newer(echo, connection.ts_recent) < 0 || newer(self.timestamp(index), echo) < 0
            }
            _ => false,
        }
    }

    /// Whether the segment is to be dropped because its timestamp is older than what came before
    /// (PAWS, RFC 7323 §5.3, R1). Resets pass: §5.2.
    #[inline]
    pub(crate) fn wrapped(&mut self, index: usize, segment: &Segment) -> bool {
        let connection = &self.connections[index];
        if !connection.features.has(Features::TIMESTAMPS) || segment.has(Bits::RST) {
            return false;
        }
        let Some((value, _)) = segment.timestamps else {
            // RFC 7323 §3.2 would have it dropped. A box on the path that takes options off
            // segments would then stop a connection that could go on.
            self.counters.timestamps_missing += 1;
            return false;
        };
        if newer(value, connection.ts_recent) >= -TOLERANCE {
            return false;
        }
        if connection.is_outdated(self.now_s) {
            // It is taken when the segment's number was found acceptable (R3), or anybody could set
            // it to what shuts the peer out.
            return false;
        }
        // Acknowledgements that overtook each other carry nothing that could be old data.
        let disordered = segment.bits.0 & !Bits::PSH.0 == Bits::ACK.0
            && segment.len == 0
            && segment.seq == connection.rcv_nxt
            && segment.ack == connection.snd_una
            && u32::from(segment.window) << connection.snd_shift == connection.snd_wnd
            && newer(connection.ts_recent, value) as u32 <= connection.rtt.timeout / 1000;
        !disordered
    }

    /// Takes the segment's timestamp once everything about it was found acceptable.
    #[inline]
    pub(crate) fn take_timestamp(&mut self, index: usize, segment: &Segment) {
        let now_s = self.now_s;
        let connection = &mut self.connections[index];
        if connection.features.has(Features::TIMESTAMPS)
            && let Some((value, _)) = segment.timestamps
        {
            connection.note_timestamp(segment.seq, value, now_s);
        }
    }
}
