//! Fast retransmit and fast recovery: NewReno (RFC 5681 §3.2, RFC 6582).

use millrace_wire::seq::Seq;

use super::congestion::{AckSample, Signal};
use super::connection::Flags;
use crate::stack::Stack;

/// Duplicate acknowledgements that mean a loss.
const THRESHOLD: u8 = 3;

impl Stack {
    /// RFC 5681 §3.2, steps 1 to 4.
    pub(crate) fn duplicate_acknowledgement(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.duplicate_acks = connection.duplicate_acks.saturating_add(1);
        let mss = u32::from(connection.mss);
        if connection.flags.has(Flags::IN_RECOVERY) {
            // Another segment has left the network.
            connection.congestion.window = connection.congestion.window.saturating_add(mss);
        } else if connection.duplicate_acks == THRESHOLD
            // RFC 6582 §3.2 step 2: not for duplicates that an earlier recovery caused.
            && connection.snd_una.gt(connection.recover)
        {
            let flight = (connection.snd_max - connection.snd_una).max(0) as u32;
            let now_us = self.now_us;
            let mut congestion = connection.congestion;
            let private = &mut self.transfer_mut(index).congestion;
            congestion.on_congestion(private, flight, mss, now_us, Signal::Loss);
            let connection = &mut self.connections[index];
            connection.congestion = congestion;
            connection.congestion.window =
                connection.congestion.threshold + u32::from(THRESHOLD) * mss;
            connection.recover = connection.snd_max;
            connection.flags.set(Flags::IN_RECOVERY.with(Flags::RETRANSMIT));
            connection.rtt.cancel();
            self.counters.fast_retransmits += 1;
        } else {
            return;
        }
        self.push_out(index);
    }

    /// New data was acknowledged: RFC 6582 §3.2 step 3 in recovery, plain growth outside.
    #[inline]
    pub(crate) fn recovery_on_ack(&mut self, index: usize, ack: Seq, acked: u32) {
        let connection = &mut self.connections[index];
        let mss = u32::from(connection.mss);
        if !connection.flags.has(Flags::IN_RECOVERY) {
            connection.duplicate_acks = 0;
            let limited = connection.flags.has(Flags::WINDOW_LIMITED);
            let sample = AckSample {
                now_us: self.now_us,
                acked,
                delivered: acked,
                mss,
                window_limited: limited,
                ack,
                snd_nxt: connection.snd_nxt,
                ..AckSample::default()
            };
            let mut congestion = connection.congestion;
            congestion.on_ack(&mut self.transfer_mut(index).congestion, &sample);
            self.connections[index].congestion = congestion;
            return;
        }
        if ack.ge(connection.recover) {
            let flight = (connection.snd_max - ack).max(0) as u32;
            connection.congestion.window =
                connection.congestion.threshold.min(flight.max(mss) + mss);
            connection.flags.clear(Flags::IN_RECOVERY);
            connection.duplicate_acks = 0;
            return;
        }
        // A partial acknowledgement: the next hole is lost too.
        connection.flags.set(Flags::RETRANSMIT);
        let mut window = connection.congestion.window.saturating_sub(acked);
        if acked >= mss {
            window += mss;
        }
        connection.congestion.window = window.max(mss);
        self.push_out(index);
    }
}
