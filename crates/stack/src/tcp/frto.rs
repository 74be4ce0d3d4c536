//! F-RTO (RFC 5682 §3, with selective acknowledgements): after a timeout, was anything lost? If
//! the peer acknowledges what was sent once only, the segments were late and not lost.

use millrace_wire::seq::Seq;

/// State of a timeout under examination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Frto {
    /// Not examined, or found to be a real loss.
    #[default]
    Off,
    /// The first segment was sent again; wait for what its acknowledgement says (step 2).
    Retransmitted,
    /// It advanced, so new data was sent instead of more retransmissions (step 2b); the next
    /// acknowledgement decides (step 3).
    SendingNew,
}

/// What an acknowledgement decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Go on with recovery as after any timeout.
    Lost,
    /// Send new data, and no retransmissions, until the next acknowledgement.
    SendNew,
    /// Nothing was lost.
    Spurious,
}

/// What the decision needs to know of an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// It delivered something that was sent before the timeout, and once only.
    pub(crate) original: bool,
    /// It advanced the cumulative acknowledgement, though not to the end of what was sent before.
    pub(crate) advanced: bool,
    /// It is a duplicate, or told of more that arrived out of order.
    pub(crate) duplicate: bool,
    /// There is new data that the peer's window takes.
    pub(crate) new_data: bool,
    pub(crate) snd_nxt: Seq,
    /// End of what was sent before the timeout.
    pub(crate) high: Seq,
}

impl Frto {
    /// RFC 5682 §3.1 and §2.1, steps 2 and 3.
    pub(crate) fn decide(&mut self, seen: &Seen) -> Decision {
        if *self == Frto::Off {
            return Decision::Lost;
        }
        if seen.original {
            *self = Frto::Off;
            return Decision::Spurious;
        }
        if seen.snd_nxt.gt(seen.high) {
            if seen.duplicate {
                *self = Frto::Off;
            }
            return if *self == Frto::Off { Decision::Lost } else { Decision::SendNew };
        }
        if seen.advanced {
            if seen.new_data {
                *self = Frto::SendingNew;
                return Decision::SendNew;
            }
            *self = Frto::Off;
        }
        Decision::Lost
    }
}
