//! What handshakes agree on (RFC 3168 §6.1.1, RFC 9768 §3.1).
//!
//! The three bits AE, CWR and ECE are a number from 0 to 7 here, as in RFC 9768's tables.

use super::{Ecn, codepoint};

/// How marks are told on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Not,
    Classic,
    Accurate,
}

/// (AE, CWR, ECE) of a SYN that asks for RFC 3168, and for RFC 9768.
pub(crate) const ASKS_CLASSIC: u8 = 0b011;
pub(crate) const ASKS_ACCURATE: u8 = 0b111;
/// (AE, CWR, ECE) of a SYN-ACK that grants RFC 3168.
pub(crate) const GRANTS_CLASSIC: u8 = 0b001;

/// What to ask for. `needed`: congestion control is made for marks.
pub(crate) fn asks(config: Ecn, needed: bool) -> Mode {
    match config {
        _ if needed => Mode::Accurate,
        Ecn::Accurate => Mode::Accurate,
        Ecn::On => Mode::Classic,
        Ecn::Off | Ecn::Passive => Mode::Not,
    }
}

/// Bits of a SYN that asks for `mode`, sent again `retries` times. Somebody on the way may drop
/// SYNs with these bits: RFC 3168's are given up at the first timeout, as Linux does (RFC 3168
/// §6.1.1.1), Accurate ECN's at the second (RFC 9768 §3.1.4.1).
pub(crate) fn syn(mode: Mode, retries: u8) -> u8 {
    match (mode, retries) {
        (Mode::Classic, 0) => ASKS_CLASSIC,
        (Mode::Accurate, 0 | 1) => ASKS_ACCURATE,
        _ => 0,
    }
}

/// What a listener grants to a SYN with these bits, whose packet had this codepoint.
pub(crate) fn grants(config: Ecn, needed: bool, bits: u8, ip: u8) -> Mode {
    match bits {
        _ if config == Ecn::Off && !needed => Mode::Not,
        0 => Mode::Not,
        // RFC 3168 §6.1.1 forbids ECN-capable SYNs; somebody on the way sets these bits.
        ASKS_CLASSIC if ip != codepoint::NOT_ECT => Mode::Not,
        ASKS_CLASSIC => Mode::Classic,
        // RFC 9768 §3.1.3: what other combinations mean is for the future, and asks for this.
        _ => Mode::Accurate,
    }
}

/// A codepoint as (AE, CWR, ECE) of an Accurate ECN SYN-ACK and of the acknowledgement of it (RFC
/// 9768 tables 2 and 3).
pub(crate) fn handshake_encoding(ip: u8) -> u8 {
    match ip & 0b11 {
        codepoint::NOT_ECT => 0b010,
        codepoint::ECT_1 => 0b011,
        codepoint::ECT_0 => 0b100,
        _ => 0b110,
    }
}

/// What it said. `None`: it is no such encoding.
pub(crate) fn decode_handshake(bits: u8) -> Option<u8> {
    match bits {
        0b010 => Some(codepoint::NOT_ECT),
        0b011 => Some(codepoint::ECT_1),
        0b100 => Some(codepoint::ECT_0),
        0b110 => Some(codepoint::CE),
        _ => None,
    }
}

/// Bits of a SYN-ACK that was sent again `retries` times and answers a SYN that came with the
/// codepoint `ip` (RFC 9768 §3.2.3.2.2).
pub(crate) fn syn_ack(mode: Mode, ip: u8, retries: u8) -> u8 {
    match mode {
        Mode::Not => 0,
        Mode::Classic => GRANTS_CLASSIC,
        Mode::Accurate if retries < 2 => handshake_encoding(ip),
        Mode::Accurate => 0,
    }
}

/// What the SYN-ACK's bits agree on after we asked for `asked` (RFC 9768 table 2).
pub(crate) fn agreed(asked: Mode, bits: u8) -> Mode {
    match (asked, bits) {
        (Mode::Not, _) => Mode::Not,
        // The nonce sum of RFC 3540 may be in AE.
        (Mode::Classic, 0b001 | 0b101) => Mode::Classic,
        (Mode::Classic, _) => Mode::Not,
        // A server that sends back what it got understands none of it.
        (Mode::Accurate, 0 | ASKS_ACCURATE) => Mode::Not,
        (Mode::Accurate, GRANTS_CLASSIC) => Mode::Classic,
        (Mode::Accurate, _) => Mode::Accurate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Ecn; 4] = [Ecn::Off, Ecn::On, Ecn::Accurate, Ecn::Passive];

    /// Both ends from the same tables, over a path that changes nothing.
    fn outcome(client: Ecn, server: Ecn) -> (Mode, Mode) {
        let asked = asks(client, false);
        let granted = grants(server, false, syn(asked, 0), codepoint::NOT_ECT);
        (agreed(asked, syn_ack(granted, codepoint::NOT_ECT, 0)), granted)
    }

    #[test]
    fn both_ends_come_to_the_same_for_every_pair() {
        for client in ALL {
            for server in ALL {
                let (ours, theirs) = outcome(client, server);
                assert_eq!(ours, theirs, "{client:?} {server:?}");
                let want = match (client, server) {
                    (Ecn::Off | Ecn::Passive, _) | (_, Ecn::Off) => Mode::Not,
                    (Ecn::On, _) => Mode::Classic,
                    (Ecn::Accurate, _) => Mode::Accurate,
                };
                assert_eq!(ours, want, "{client:?} {server:?}");
            }
        }
    }

    /// RFC 9768 table 2, whose host A is ours.
    #[test]
    fn every_answer_to_a_request_for_accurate_ecn() {
        use Mode::{Accurate, Classic, Not};
        let modes = [Not, Classic, Accurate, Accurate, Accurate, Accurate, Accurate, Not];
        for (bits, mode) in modes.into_iter().enumerate() {
            assert_eq!(agreed(Accurate, bits as u8), mode, "{bits:03b}");
        }
        assert_eq!(agreed(Not, GRANTS_CLASSIC), Not);
        for bits in 0..8 {
            let classic = bits & 0b11 == 0b01;
            assert_eq!(agreed(Classic, bits), if classic { Classic } else { Not }, "{bits:03b}");
        }
    }

    /// RFC 9768 §3.1.3.
    #[test]
    fn unknown_requests_are_for_accurate_ecn() {
        for bits in [1, 2, 4, 5, 6, 7] {
            assert_eq!(grants(Ecn::Passive, false, bits, 0), Mode::Accurate, "{bits:03b}");
        }
    }

    #[test]
    fn an_ecn_capable_request_for_rfc_3168_is_somebody_elses_work() {
        for ip in [codepoint::ECT_0, codepoint::ECT_1, codepoint::CE] {
            assert_eq!(grants(Ecn::On, false, ASKS_CLASSIC, ip), Mode::Not);
            assert_eq!(grants(Ecn::On, false, ASKS_ACCURATE, ip), Mode::Accurate);
        }
    }

    #[test]
    fn every_codepoint_survives_the_handshake() {
        for ip in 0..4 {
            let bits = handshake_encoding(ip);
            assert_eq!(decode_handshake(bits), Some(ip));
            assert_eq!(agreed(Mode::Accurate, bits), Mode::Accurate);
        }
        assert_eq!([0, 1, 5, 7].map(decode_handshake), [None; 4]);
    }

    #[test]
    fn repeated_requests_ask_for_less() {
        assert_eq!([0, 1, 2].map(|retries| syn(Mode::Classic, retries)), [0b011, 0, 0]);
        assert_eq!([0, 1, 2].map(|retries| syn(Mode::Accurate, retries)), [0b111, 0b111, 0]);
        assert_eq!([0, 1, 2].map(|retries| syn_ack(Mode::Accurate, 0, retries)), [0b010, 0b010, 0]);
    }

    #[test]
    fn an_algorithm_that_needs_marks_asks_for_them_whatever_is_configured() {
        for config in ALL {
            assert_eq!(asks(config, true), Mode::Accurate);
            assert_eq!(grants(config, true, ASKS_CLASSIC, 0), Mode::Classic);
        }
    }
}
