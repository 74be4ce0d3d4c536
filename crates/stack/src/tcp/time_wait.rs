//! Who may follow on a connection in TIME-WAIT, and what may not end it (RFC 9293 §3.6.1,
//! RFC 6191, RFC 1337).

use millrace_wire::tcp::Flags as Bits;

use super::connection::{Connection, Features, State};
use super::input::Segment;
use super::timestamps::newer;
use crate::config::TimeWaitReuse;
use crate::stack::Stack;

impl Connection {
    /// Whether a SYN is certainly newer than everything of the connection in TIME-WAIT with the
    /// same four numbers (RFC 6191 §2): by its timestamp, or else by its number.
    fn is_succeeded_by(&self, syn: &Segment) -> bool {
        let later_number = syn.seq.gt(self.rcv_nxt);
        match syn.timestamps {
            Some((value, _)) if self.features.has(Features::TIMESTAMPS) => {
                let difference = newer(value, self.ts_recent);
                difference > 0 || difference == 0 && later_number
            }
            // None of the old connection's segments has a timestamp, so none passes for a new one.
            Some(_) => true,
            None => later_number,
        }
    }
}

impl Stack {
    /// Whether a segment to a connection in TIME-WAIT is a SYN that opens the next one.
    pub(crate) fn reopens_time_wait(&self, index: usize, segment: &Segment) -> bool {
        segment.has(Bits::SYN)
            && !segment.has(Bits::ACK | Bits::RST)
            && self.connections[index].is_succeeded_by(segment)
            && self.find_listener(&segment.tuple).is_some_and(|listener| self.may_queue(listener))
    }

    /// Whether `connect` may take the four numbers of a connection in TIME-WAIT: our sequence
    /// numbers only ever go forward, and the peer's old segments are known by their timestamps.
    pub(crate) fn may_succeed_time_wait(&self, index: usize) -> bool {
        let connection = &self.connections[index];
        if connection.state != State::TimeWait {
            return false;
        }
        match self.config.time_wait_reuse {
            TimeWaitReuse::Never => false,
            TimeWaitReuse::Always => true,
            // The peer's clock must have moved on, and it may count seconds.
            TimeWaitReuse::WithTimestamps => {
                connection.features.has(Features::TIMESTAMPS)
                    && self.now_s.wrapping_sub(connection.ts_recent_at) > 1
            }
        }
    }
}
