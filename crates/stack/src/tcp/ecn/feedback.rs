//! A connection's marks: what it sends, what it tells the peer, and what it is told (RFC 3168 §6.1,
//! RFC 9768 §3.2).
//!
//! Only new data is ECN-capable (RFC 3168 §6.1.5). The codepoint is ECT(0).

use millrace_wire::tcp::{Flags as Bits, OptionWriter};

use super::accurate::{Covered, Received, Sent};
use super::negotiation::{self, Mode};
use super::{codepoint, negotiation::ASKS_CLASSIC};
use crate::stack::Stack;
use crate::tcp::acknowledgement::Told;
use crate::tcp::congestion::{Algorithm, Signal};
use crate::tcp::connection::{Connection, Features, Flags, State};
use crate::tcp::input::Segment;

/// Either way of telling marks.
const AGREED: Features = Features::ECN.with(Features::ACCURATE_ECN);
const SYN_CAME_AS: Features = Features::SYN_CAME_AS_0.with(Features::SYN_CAME_AS_1);

/// What Accurate ECN keeps of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accurate {
    pub(crate) received: Received,
    pub(crate) sent: Sent,
    /// Segments that carry the option even without news (RFC 9768 §3.2.3.2.1).
    first_options: u8,
    /// The next acknowledgement tells how the SYN-ACK came (RFC 9768 §3.2.2.1).
    pub(crate) tells_of_syn_ack: bool,
    in_use: bool,
}

impl Accurate {
    /// Nothing is kept.
    pub(crate) fn is_plain(&self) -> bool {
        !self.in_use
    }
}

/// What a segment that leaves says of ECN.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marking {
    /// The IP header's codepoint in the lower two bits, AE in the third.
    pub(crate) ecn: u8,
    /// CWR and ECE.
    pub(crate) bits: Bits,
}

/// (AE, CWR, ECE) in the places where they are written.
fn marking(three: u8, ip: u8) -> Marking {
    Marking { ecn: ip | three & 0b100, bits: Bits((three & 0b11) << 6) }
}

impl Segment<'_> {
    /// The IP header's codepoint.
    #[inline]
    pub(crate) fn codepoint(&self) -> u8 {
        self.ecn & 0b11
    }

    /// (AE, CWR, ECE), as RFC 9768's tables have them.
    #[inline]
    pub(crate) fn ace(&self) -> u8 {
        self.ecn & 0b100 | self.bits.0 >> 6
    }
}

impl Connection {
    /// Whether the connection has ECN of either kind.
    #[inline]
    pub(crate) fn has_ecn(&self) -> bool {
        self.features.has(AGREED)
    }

    fn ecn_mode(&self) -> Mode {
        if self.features.has(Features::ACCURATE_ECN) {
            Mode::Accurate
        } else if self.features.has(Features::ECN) {
            Mode::Classic
        } else {
            Mode::Not
        }
    }

    fn set_ecn_mode(&mut self, mode: Mode) {
        self.features.clear(AGREED);
        self.flags.clear(Flags::COUNTS_MARKS);
        match mode {
            Mode::Not => {}
            Mode::Classic => self.features.set(Features::ECN),
            Mode::Accurate => self.features.set(Features::ACCURATE_ECN),
        }
    }

    /// The codepoint with which the peer's SYN or SYN-ACK came.
    fn syn_came_as(&self) -> u8 {
        u8::from(self.features.has(Features::SYN_CAME_AS_0))
            | u8::from(self.features.has(Features::SYN_CAME_AS_1)) << 1
    }

    fn note_syn(&mut self, ip: u8) {
        self.features.clear(SYN_CAME_AS);
        if ip & 0b01 != 0 {
            self.features.set(Features::SYN_CAME_AS_0);
        }
        if ip & 0b10 != 0 {
            self.features.set(Features::SYN_CAME_AS_1);
        }
    }

    /// The window has come down: an RFC 3168 peer is told with the next data.
    #[inline]
    pub(crate) fn ecn_reduced(&mut self) {
        if self.features.has(Features::ECN) {
            self.features.set(Features::CWR_OWED);
        }
    }
}

impl Stack {
    /// Our SYN leaves for the first time: what it asks for.
    pub(crate) fn ask_for_ecn(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.retries == 0 {
            let needed = connection.algorithm.needs_ecn();
            connection.set_ecn_mode(negotiation::asks(self.config.ecn, needed));
        }
    }

    /// The peer's SYN or SYN-ACK: `asked` is what we asked for, if we did.
    pub(crate) fn agree_on_ecn(&mut self, index: usize, segment: &Segment, asked: Mode) {
        let connection = &mut self.connections[index];
        let mode = if segment.has(Bits::ACK) {
            negotiation::agreed(asked, segment.ace())
        } else {
            let needed = connection.algorithm.needs_ecn();
            negotiation::grants(self.config.ecn, needed, segment.ace(), segment.codepoint())
        };
        connection.set_ecn_mode(mode);
        connection.note_syn(segment.codepoint());
    }

    /// What was asked for in our SYN.
    pub(crate) fn ecn_asked(&self, index: usize) -> Mode {
        self.connections[index].ecn_mode()
    }

    /// The peer's SYN once more. Returns false if it asks for something that it did not ask for
    /// before in a way that ends the connection (RFC 9768 §3.1.5).
    pub(crate) fn ecn_of_repeated_syn(&mut self, index: usize, segment: &Segment) -> bool {
        let connection = &mut self.connections[index];
        match (connection.ecn_mode(), segment.ace()) {
            (Mode::Not, _) | (Mode::Classic, 0 | ASKS_CLASSIC) => {}
            (Mode::Classic, _) | (Mode::Accurate, ASKS_CLASSIC) => return false,
            (Mode::Accurate, bits) => {
                connection.note_syn(segment.codepoint());
                if bits == 0 {
                    // The client may end without ECN.
                    connection.features.set(Features::NOT_ECN_CAPABLE);
                }
            }
        }
        true
    }

    /// The peer's SYN-ACK once more: it is acknowledged as the first one was (RFC 9768 §3.2.2.1). One
    /// with other numbers is not the peer's, which would take what that is told for a count of marks.
    pub(crate) fn ecn_of_repeated_syn_ack(&mut self, index: usize, segment: &Segment) {
        let connection = &mut self.connections[index];
        let repeated = segment.has(Bits::ACK)
            && segment.seq == connection.irs
            && segment.ack.gt(connection.iss)
            && segment.ack.le(connection.snd_una);
        if connection.flags.has(Flags::COUNTS_MARKS) && repeated {
            connection.note_syn(segment.codepoint());
            let accurate = &mut self.transfer_mut(index).accurate;
            accurate.tells_of_syn_ack = true;
            accurate.received.syn_ack(segment.codepoint());
        }
    }

    /// The handshake is over, with this segment.
    pub(crate) fn ecn_established(&mut self, index: usize, segment: &Segment) {
        match self.connections[index].ecn_mode() {
            Mode::Not => return,
            Mode::Classic => {
                self.counters.ecn_connections += 1;
                return;
            }
            Mode::Accurate => self.counters.accurate_ecn_connections += 1,
        }
        let came_as = self.connections[index].syn_came_as();
        let accurate = &mut self.transfer_mut(index).accurate;
        *accurate = Accurate { in_use: true, first_options: 2, ..Accurate::default() };
        let ace = segment.ace();
        let pure = segment.sequence_len() == 0 && segment.options.sack().is_empty();
        let feedback = match (segment.has(Bits::SYN), segment.has(Bits::ACK)) {
            (true, true) => {
                accurate.tells_of_syn_ack = true;
                accurate.received.syn_ack(came_as);
                accurate.sent.syn_ack(ace)
            }
            (false, true) if pure => accurate.sent.handshake_ack(ace),
            _ => Default::default(),
        };
        if let Some(option) = &segment.options.accurate_ecn {
            accurate.sent.first_option(option);
        }
        accurate.sent.hears(segment.timestamps.map(|(value, _)| value), true, false);
        let connection = &mut self.connections[index];
        connection.flags.set(Flags::COUNTS_MARKS);
        if feedback.mangled {
            self.counters.ecn_mangled += 1;
            connection.features.set(Features::NOT_ECN_CAPABLE);
        }
        if feedback.packets > 0 {
            let least = 2 * u32::from(connection.mss);
            let window = &mut connection.congestion.window;
            *window = (*window / 2).max(least.min(*window));
        }
    }

    /// An acceptable segment came on a connection with ECN, or so many as one.
    pub(crate) fn ecn_received(&mut self, index: usize, segment: &Segment, count: u32) {
        let ip = segment.codepoint();
        let marked = ip == codepoint::CE;
        self.counters.ce_received += u64::from(if marked { count } else { 0 });
        let connection = &mut self.connections[index];
        let waits = connection.unacknowledged > 0;
        match connection.ecn_mode() {
            Mode::Accurate => {
                let accurate = &mut self.transfer_mut(index).accurate;
                if accurate.received.packets(ip, count, segment.len, waits) {
                    self.acknowledge_now(index);
                }
            }
            Mode::Classic if segment.len > 0 => {
                let echoed = connection.features.has(Features::ECHOES_CE);
                let echoes = if connection.algorithm == Algorithm::Dctcp {
                    // Every mark is told: the echo follows them (RFC 8257 §3.2).
                    marked
                } else {
                    // It goes on until the sender says that it has heard (RFC 3168 §6.1.3).
                    marked || (echoed && !segment.has(Bits::CWR))
                };
                if echoes {
                    connection.features.set(Features::ECHOES_CE);
                } else {
                    connection.features.clear(Features::ECHOES_CE);
                }
                // A sender that has slowed down may have little in flight to wait with.
                if echoes != echoed || segment.has(Bits::CWR) {
                    self.acknowledge_now(index);
                }
            }
            Mode::Classic | Mode::Not => {}
        }
    }

    /// What a segment says that leaves now: `new`, with payload that was never sent before.
    pub(crate) fn ecn_marking(
        &mut self,
        index: usize,
        bits: Bits,
        new: bool,
        options: &[u8],
    ) -> Marking {
        let connection = &mut self.connections[index];
        let mode = connection.ecn_mode();
        if bits.intersects(Bits::SYN) {
            let came_as = connection.syn_came_as();
            let three = if bits.intersects(Bits::ACK) {
                negotiation::syn_ack(mode, came_as, connection.retries)
            } else {
                negotiation::syn(mode, connection.retries)
            };
            if three == 0 && mode != Mode::Not {
                self.counters.ecn_fallbacks += 1;
                if connection.state == State::SynReceived {
                    // The client may end without ECN (RFC 9768 §3.1.5).
                    connection.features.set(Features::NOT_ECN_CAPABLE);
                }
            }
            return marking(three, codepoint::NOT_ECT);
        }
        let ect = if new && !connection.features.has(Features::NOT_ECN_CAPABLE) {
            codepoint::ECT_0
        } else {
            codepoint::NOT_ECT
        };
        match mode {
            Mode::Classic => {
                let mut three = u8::from(connection.features.has(Features::ECHOES_CE));
                if new && connection.features.has(Features::CWR_OWED) {
                    connection.features.clear(Features::CWR_OWED);
                    three |= 0b010;
                }
                marking(three, ect)
            }
            Mode::Accurate => {
                let came_as = connection.syn_came_as();
                let Some(transfer) = self.transfers.get_mut(connection.transfer) else {
                    return Marking::default();
                };
                let tells = core::mem::take(&mut transfer.accurate.tells_of_syn_ack);
                let received = &mut transfer.accurate.received;
                let three = if tells && bits == Bits::ACK && !has_sack(options) && !new {
                    negotiation::handshake_encoding(came_as)
                } else {
                    received.ace()
                };
                received.told();
                marking(three, ect)
            }
            Mode::Not => Marking::default(),
        }
    }

    /// Whether an acknowledgement without data must go first: how the SYN-ACK came is told by
    /// none other.
    #[inline]
    pub(crate) fn ecn_wants_ack(&self, index: usize) -> bool {
        self.connections[index].flags.has(Flags::COUNTS_MARKS)
            && self.transfer(index).is_some_and(|transfer| transfer.accurate.tells_of_syn_ack)
    }

    /// Whether the next segment must not be a super-segment: a port that cuts them up takes CWR
    /// for RFC 3168's, which only the first piece keeps (RFC 9768 §3.3.4).
    #[inline]
    pub(crate) fn ecn_wants_one(&self, index: usize) -> bool {
        let connection = &self.connections[index];
        connection.has_ecn()
            && (connection.features.has(Features::CWR_OWED)
                || self
                    .transfer(index)
                    .is_some_and(|transfer| transfer.accurate.received.ace() & 0b010 != 0))
    }

    /// Accurate ECN's option, if there is room and something to say (RFC 9768 §3.2.3.3). SACK
    /// blocks have gone before.
    pub(crate) fn accurate_ecn_option(&mut self, index: usize, len: u32, to: &mut OptionWriter) {
        let connection = &self.connections[index];
        let mss = u32::from(connection.mss);
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let accurate = &mut transfer.accurate;
        if accurate.first_options == 0 && !accurate.received.has_news() {
            return;
        }
        let option = accurate.received.option(accurate.first_options > 0);
        // What every segment has is off the MSS already.
        let fixed = usize::from(connection.features.options_len());
        let spare = if len == 0 { usize::MAX } else { mss.saturating_sub(len) as usize };
        let used = to.padded().len();
        if used - fixed + option.padded_len() > spare || !to.accurate_ecn(&option) {
            return;
        }
        accurate.first_options = accurate.first_options.saturating_sub(1);
        accurate.received.option_told();
    }

    /// The option of a SYN-ACK (RFC 9768 §3.2.3.2.1), not of one that is sent again: somebody may
    /// drop what has it.
    pub(crate) fn syn_ack_ecn_option(&self, index: usize, to: &mut OptionWriter) {
        let connection = &self.connections[index];
        if connection.ecn_mode() == Mode::Accurate && connection.retries == 0 {
            to.accurate_ecn(&Received::default().option(true));
        }
    }

    /// What an acknowledgement tells of marks lets the window come down. Returns how many of the bytes
    /// that it delivers were marked, for algorithms that count.
    pub(in crate::tcp) fn ecn_feedback(
        &mut self,
        index: usize,
        segment: &Segment,
        told: &Told,
    ) -> u32 {
        let &Told { delivered, segments, .. } = told;
        let connection = &mut self.connections[index];
        let (packets, bytes) = match connection.ecn_mode() {
            Mode::Not => return 0,
            Mode::Classic if segment.has(Bits::ECE) => (segments, delivered),
            Mode::Classic => return 0,
            // What ends the handshake of an early connection has no count (RFC 9768 §3.2.2.1).
            Mode::Accurate if !connection.flags.has(Flags::COUNTS_MARKS) => return 0,
            // The counter of one that was overtaken would be taken for one that has gone round.
            Mode::Accurate if segment.ack.lt(connection.snd_una) => return 0,
            Mode::Accurate => {
                let timestamps = connection.features.has(Features::TIMESTAMPS);
                let value = segment.timestamps.filter(|_| timestamps).map(|(value, _)| value);
                let covered = Covered {
                    bytes: delivered,
                    packets: segments,
                    mss: connection.mss.into(),
                    ack: connection.snd_una,
                    snd_nxt: connection.snd_nxt,
                };
                let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return 0 };
                let sent = &mut transfer.accurate.sent;
                if !sent.hears(value, told.acked > 0, told.sacked) {
                    return 0;
                }
                let option = segment.options.accurate_ecn.as_ref();
                let feedback = sent.acknowledgement(segment.ace(), option, &covered);
                if feedback.mangled && !connection.features.has(Features::NOT_ECN_CAPABLE) {
                    self.counters.ecn_mangled += 1;
                    connection.features.set(Features::NOT_ECN_CAPABLE);
                }
                if feedback.packets == 0 {
                    return 0;
                }
                (feedback.packets, feedback.bytes)
            }
        };
        if let Some(transfer) = self.transfers.get_mut(connection.transfer) {
            let told = &mut transfer.totals.delivered_marked;
            *told = told.saturating_add(packets);
        }
        self.enter_reduction(index, Signal::Ecn);
        bytes.min(delivered)
    }
}

/// Whether options as they are written have SACK blocks.
fn has_sack(options: &[u8]) -> bool {
    millrace_wire::tcp::Options::parse(options).is_ok_and(|options| !options.sack().is_empty())
}
