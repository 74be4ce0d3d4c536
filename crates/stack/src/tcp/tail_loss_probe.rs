//! Tail loss probes (RFC 8985 §7): when the last segments of a flight are lost, no later one
//! arrives to tell. After two round trips of silence one segment more is sent, so that its
//! acknowledgement does, long before the retransmission timeout.

use millrace_wire::seq::Seq;

use super::congestion::CaState;
use super::connection::{Features, State};
use crate::stack::Stack;

/// State of RFC 8985 §7.1.
#[derive(Debug, Default)]
pub(crate) struct TailLossProbe {
    /// `snd_nxt` when the probe had left; `None`: none is under way.
    end: Option<Seq>,
    /// The probe was a retransmission.
    retransmission: bool,
    /// A probe is to leave now.
    pub(crate) due: bool,
}

impl TailLossProbe {
    /// No probe waits for its acknowledgement.
    pub(crate) fn is_idle(&self) -> bool {
        self.end.is_none()
    }

    /// The probe is to be something sent before, for there is nothing new.
    pub(crate) fn repeats(&self) -> bool {
        self.retransmission
    }

    /// It has left, and `snd_nxt` is behind it: what it carried is part of what is waited for (RFC
    /// 8985 §7.3).
    pub(crate) fn has_left(&mut self, snd_nxt: Seq) {
        self.end = Some(snd_nxt);
        self.due = false;
    }

    /// A timeout has taken over, or it did not leave.
    pub(crate) fn cancel(&mut self) {
        *self = TailLossProbe::default();
    }
}

/// What an acknowledgement says of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing yet, or nothing was lost.
    Nothing,
    /// The probe repaired a loss that nobody else will tell of.
    Repaired,
}

impl TailLossProbe {
    /// RFC 8985 §7.4.2. `plain_duplicate`: the segment acknowledges nothing new, of no kind.
    pub(crate) fn acknowledged(&mut self, ack: Seq, dsack: bool, plain_duplicate: bool) -> Verdict {
        let Some(end) = self.end else { return Verdict::Nothing };
        if ack.lt(end) {
            return Verdict::Nothing;
        }
        if !self.retransmission || dsack {
            self.end = None;
        } else if ack.gt(end) {
            self.end = None;
            return Verdict::Repaired;
        } else if plain_duplicate {
            self.end = None;
        }
        Verdict::Nothing
    }
}

impl Stack {
    /// How long to wait for an acknowledgement before a probe (RFC 8985 §7.2), microseconds;
    /// `None`: no probe now.
    pub(crate) fn probe_timeout(&self, index: usize) -> Option<u32> {
        let connection = &self.connections[index];
        let transfer = self.transfer(index)?;
        if !self.config.tcp.tail_loss_probe
            || !connection.features.has(Features::SACK)
            || !matches!(transfer.recovery.state, CaState::Open | CaState::Cwr)
            || transfer.sent.sacked > 0
            || !transfer.probe.is_idle()
            || connection.state < State::Established
            // With nothing in flight the timer is the persist timer.
            || connection.snd_una == connection.snd_nxt
        {
            return None;
        }
        let smoothed = connection.rtt.smoothed();
        if smoothed == 0 {
            return None;
        }
        let single = connection.flight() <= u32::from(connection.mss);
        // One segment may meet a delayed acknowledgement.
        let allowance = if single { self.rtt_bounds.min } else { 2_000 };
        Some(2 * smoothed + allowance)
    }

    /// The probe timer ran out (RFC 8985 §7.3).
    pub(crate) fn send_probe(&mut self, index: usize) {
        let connection = &self.connections[index];
        let (nxt, unsent) = (connection.snd_nxt, connection.unsent());
        // A part of a segment would be a silly one, and more than the window takes is refused.
        let segment = unsent.min(connection.mss.into());
        let in_window = (connection.snd_una + connection.snd_wnd).ge(nxt + segment);
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let new_data = unsent > 0 && in_window;
        if transfer.probe.end.is_none() {
            transfer.probe.end = Some(nxt);
            transfer.probe.retransmission = !new_data;
            transfer.probe.due = true;
            self.counters.tail_loss_probes += 1;
            self.push_out(index);
        }
    }
}
