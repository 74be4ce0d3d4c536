//! When a small segment waits (RFC 9293 §3.7.4), with Minshall's modification (appendix A.3 there):
//! only while another small segment is unacknowledged. A large write then does not wait for a
//! delayed acknowledgement with its last bytes, and a run of tiny writes is still gathered.
//!
//! `TCP_CORK` lets it wait in any case, up to a ceiling. A write that says that more follows does
//! so up to the next acknowledgement of anything new: from then on it waits as any other.

use millrace_wire::seq::Seq;

use super::connection::Flags;
use crate::stack::Stack;

/// Whether the small segment that ends there is one of those between `una` and `nxt`. One of two
/// gigabytes ago is not, though by its number alone it would be still to come.
#[inline]
pub(crate) fn is_under_way(small: Option<Seq>, una: Seq, nxt: Seq) -> bool {
    small.is_some_and(|end| (end - 1).between(una, nxt))
}

impl Stack {
    /// Whether less than a whole segment has to wait.
    #[inline]
    pub(crate) fn nagle_holds(&self, index: usize) -> bool {
        let connection = &self.connections[index];
        if connection.flags.has(Flags::FIN_QUEUED.with(Flags::FORCE)) {
            return false;
        }
        if connection.flags.has(Flags::CORK) {
            return true;
        }
        if connection.flags.has(Flags::MORE) {
            let waited = self.transfer(index).and_then(|transfer| transfer.more_until);
            if waited != Some(connection.snd_end) {
                return true;
            }
        }
        if connection.flags.has(Flags::NO_DELAY) || connection.snd_una == connection.snd_nxt {
            return false;
        }
        let small = self.transfer(index).and_then(|transfer| transfer.small_until);
        is_under_way(small, connection.snd_una, connection.snd_nxt)
    }

    /// Something new was acknowledged: what was written so far has waited for more long enough.
    #[inline]
    pub(crate) fn more_is_late(&mut self, index: usize) {
        let connection = &self.connections[index];
        if connection.flags.has(Flags::MORE) && connection.unsent() > 0 {
            self.transfer_mut(index).more_until = Some(self.connections[index].snd_end);
        }
    }

    /// What the connection has waits for more, and nothing is under way whose acknowledgement would
    /// set it going: it leaves when the persist timer runs out, as in Linux.
    pub(crate) fn cork_ceiling(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.snd_una == connection.snd_nxt && !connection.flags.has(Flags::REXMIT_ARMED) {
            connection.flags.set(Flags::PERSIST);
            self.arm_retransmission(index);
        }
    }

    /// Remembers a segment that is less than a whole one, up to `end`.
    #[inline]
    pub(crate) fn note_small(&mut self, index: usize, end: Seq) {
        self.transfer_mut(index).small_until = Some(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_segment_of_gigabytes_ago_is_not_under_way() {
        let end = Some(Seq(1000));
        assert!(is_under_way(end, Seq(900), Seq(1000)));
        assert!(is_under_way(end, Seq(999), Seq(5000)));
        assert!(!is_under_way(end, Seq(1000), Seq(5000)), "acknowledged");
        for una in [5000, 1 << 31, (1 << 31) + 2000, 3 << 30] {
            assert!(!is_under_way(end, Seq(una), Seq(una + 5000)), "{una}");
        }
        assert!(!is_under_way(None, Seq(0), Seq(5000)));
    }
}
