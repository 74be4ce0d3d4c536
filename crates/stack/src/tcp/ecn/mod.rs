//! Explicit congestion notification: queues mark packets instead of dropping them, and the receiver
//! tells the sender.
//!
//! Two ways of telling are spoken. With RFC 3168 the receiver echoes that there was a
//! mark until the sender says that it has slowed down: one signal a round trip. With Accurate ECN
//! (RFC 9768, [`accurate`]) it counts, and every mark is known. Which one a connection uses is
//! agreed on in the handshake ([`negotiation`]); [`feedback`] is what a connection does with it.

pub(crate) mod accurate;
pub(crate) mod feedback;
pub(crate) mod negotiation;

/// Whether a stack uses explicit congestion notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// Neither asked for nor granted.
    Off,
    /// Asked for as RFC 3168 has it; granted as the peer asks for it.
    On,
    /// Asked for as RFC 9768 has it, which falls back to RFC 3168; granted as the peer asks for
    /// it.
    Accurate,
    /// Granted as the peer asks for it and not asked for, as Linux does.
    #[default]
    Passive,
}

impl Ecn {
    /// All of them.
    pub const ALL: [Ecn; 4] = [Ecn::Off, Ecn::On, Ecn::Accurate, Ecn::Passive];

    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Ecn::Off => "off",
            Ecn::On => "on",
            Ecn::Accurate => "accurate",
            Ecn::Passive => "passive",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Ecn> {
        Ecn::ALL.into_iter().find(|ecn| ecn.name() == name)
    }
}

/// The two ECN bits of an IP header (RFC 3168 §5).
pub(crate) mod codepoint {
    pub(crate) const NOT_ECT: u8 = 0b00;
    pub(crate) const ECT_1: u8 = 0b01;
    pub(crate) const ECT_0: u8 = 0b10;
    /// Congestion Experienced.
    pub(crate) const CE: u8 = 0b11;
}
