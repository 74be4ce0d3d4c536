//! Taking back a reduction that proves unnecessary.
//!
//! Two proofs are believed: the peer echoes a timestamp that is older than the first
//! retransmission, so the original arrived (Eifel, RFC 3522 and RFC 4015); or it reports every
//! retransmission as a duplicate (RFC 3708 with RFC 2883).

use millrace_wire::seq::Seq;

use super::congestion::Congestion;

/// What stood before the reduction, and what was sent again since.
#[derive(Debug)]
pub(crate) struct Undo {
    /// `snd_una` when the reduction was made; `None`: there is none to take back.
    marker: Option<Seq>,
    /// What stood before it.
    prior: Congestion,
    /// `snd_una` when the recovery ended: what is sent again later belongs to no reduction.
    ended: Option<Seq>,
    /// Bytes sent again that were not reported as duplicates; `None`: nothing was sent again yet.
    outstanding: Option<u32>,
    /// Our timestamp when the first retransmission left.
    stamp: Option<u32>,
}

impl Default for Undo {
    fn default() -> Self {
        Undo { marker: None, prior: Congestion::EMPTY, ended: None, outstanding: None, stamp: None }
    }
}

impl Undo {
    /// The window is reduced now. `retransmitted`: bytes that were sent again before (by a tail
    /// loss probe) and are under way.
    pub(crate) fn begin(&mut self, snd_una: Seq, prior: Congestion, retransmitted: u32) {
        self.marker = Some(snd_una);
        self.prior = prior;
        self.ended = None;
        self.outstanding = (retransmitted > 0).then_some(retransmitted);
    }

    /// A further timeout for the same data: what it reduces from is not what stood before.
    pub(crate) fn begin_again(&mut self, snd_una: Seq) {
        self.marker = Some(snd_una);
        self.ended = None;
        self.outstanding = None;
    }

    /// Something leaves again. `timestamp`: the value that it carries, where timestamps are spoken.
    #[inline]
    pub(crate) fn retransmitted(&mut self, bytes: u32, timestamp: Option<u32>) {
        if self.stamp.is_none() {
            self.stamp = timestamp;
        }
        if self.ended.is_none() {
            self.outstanding = Some(self.outstanding.unwrap_or(0).saturating_add(bytes));
        }
    }

    /// A duplicate of so many bytes was reported.
    pub(crate) fn duplicate_reported(&mut self, (start, end): (Seq, Seq)) {
        if self.marker.is_some_and(|marker| start.ge(marker))
            && self.ended.is_none_or(|ended| end.le(ended))
            && let Some(outstanding) = &mut self.outstanding
        {
            *outstanding = outstanding.saturating_sub((end - start).max(0) as u32);
        }
    }

    /// The echo is older than the first retransmission. Only that of an acknowledgement of new data
    /// says that an original arrived (RFC 3522 §3.2, step 3).
    pub(crate) fn original_arrived(&self, echo: Option<u32>) -> bool {
        match (self.stamp, echo) {
            (Some(stamp), Some(echo)) => (echo.wrapping_sub(stamp) as i32) < 0,
            _ => false,
        }
    }

    /// There is a reduction that may still be taken back.
    pub(crate) fn armed(&self) -> bool {
        self.marker.is_some()
    }

    /// Every retransmission was reported as a duplicate.
    pub(crate) fn all_duplicates(&self) -> bool {
        self.marker.is_some() && self.outstanding == Some(0)
    }

    /// The reduction was not necessary.
    pub(crate) fn proven(&self, echo: Option<u32>) -> bool {
        self.marker.is_some() && (self.outstanding == Some(0) || self.original_arrived(echo))
    }

    /// What stood before; nothing is left to take back.
    pub(crate) fn take(&mut self) -> Option<Congestion> {
        self.marker.take().map(|_| core::mem::take(self).prior)
    }

    /// Everything up to `snd_una` has arrived. Copies of it may still be reported as duplicates, for
    /// a report comes a round trip after the copy left, and the recovery has ended by then if the
    /// original was only a little late (RFC 3708 §3). An echo proves nothing any more.
    pub(crate) fn recovered(&mut self, snd_una: Seq) {
        self.ended = Some(snd_una);
        self.stamp = None;
    }

    /// There is nothing to take back, or something else has reduced the window.
    pub(crate) fn end(&mut self) {
        *self = Undo::default();
    }
}
