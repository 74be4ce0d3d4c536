//! Accurate ECN's counters (RFC 9768 §3.2): what came marked, and what the peer says that it got.
//!
//! Pure state, which no path can bring to anything but less trust: feedback that contradicts
//! itself ends with packets that are not ECN-capable.

use millrace_wire::seq::Seq;
use millrace_wire::tcp::AccurateEcn;

use super::codepoint;
use super::negotiation::decode_handshake;
use crate::tcp::timestamps::newer;

/// Counters begin here (RFC 9768 §3.2.1), so that a zeroed field shows.
const INITIAL_PACKETS: u32 = 5;
const INITIAL_ECT_BYTES: u32 = 1;

/// Marks without an acknowledgement that are worth one (RFC 9768 §3.2.2.5.1), while data waits to
/// be acknowledged and while none does.
const MARKS_WITH_DATA: u8 = 2;
const MARKS_WITHOUT_DATA: u8 = 3;

/// Rounds and packets of nothing but marks after which they are not believed (RFC 9768 §3.2.2.3).
const ROUNDS_OF_MARKS: u8 = 4;
const PACKETS_OF_MARKS: u32 = 40;

/// Options field's modulus.
const FIELD: u32 = (1 << 24) - 1;

/// Bits of [`Received::changed`].
const CE: u8 = 1;
const ECT_0: u8 = 2;
const ECT_1: u8 = 4;

/// What has come (r.cep, r.ceb, r.e0b, r.e1b).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    ce_packets: u32,
    ce_bytes: u32,
    ect_0_bytes: u32,
    ect_1_bytes: u32,
    /// Byte counters that were ever counted up.
    changed: u8,
    /// Some were since the last acknowledgement.
    news: bool,
    /// CE packets since the last acknowledgement.
    marks: u8,
    /// The last packet was marked.
    was_ce: bool,
}

impl Default for Received {
    fn default() -> Self {
        Received {
            ce_packets: INITIAL_PACKETS,
            ce_bytes: 0,
            ect_0_bytes: INITIAL_ECT_BYTES,
            ect_1_bytes: INITIAL_ECT_BYTES,
            changed: 0,
            news: false,
            marks: 0,
            was_ce: false,
        }
    }
}

impl Received {
    /// A SYN-ACK came with this codepoint: a mark counts once.
    pub(crate) fn syn_ack(&mut self, ip: u8) {
        if ip == codepoint::CE && self.ce_packets == INITIAL_PACKETS {
            self.ce_packets += 1;
        }
    }

    /// Acceptable packets came as one, no SYNs, with so many bytes of payload. Returns whether they
    /// are to be acknowledged at once.
    #[inline]
    pub(crate) fn packets(&mut self, ip: u8, count: u32, len: u32, data_waits: bool) -> bool {
        let (counter, bit) = match ip {
            codepoint::CE => (&mut self.ce_bytes, CE),
            codepoint::ECT_0 => (&mut self.ect_0_bytes, ECT_0),
            codepoint::ECT_1 => (&mut self.ect_1_bytes, ECT_1),
            _ => {
                self.was_ce = false;
                return false;
            }
        };
        *counter = counter.wrapping_add(len);
        if len > 0 {
            self.changed |= bit;
            self.news = true;
        }
        if ip != codepoint::CE {
            self.was_ce = false;
            return false;
        }
        self.ce_packets = self.ce_packets.wrapping_add(count);
        self.marks = self.marks.saturating_add(count.min(u8::MAX.into()) as u8);
        let begins = !core::mem::replace(&mut self.was_ce, true) && len > 0;
        let enough = if data_waits || len > 0 { MARKS_WITH_DATA } else { MARKS_WITHOUT_DATA };
        begins || self.marks >= enough
    }

    /// The ACE field of a segment that leaves now.
    #[inline]
    pub(crate) fn ace(&self) -> u8 {
        (self.ce_packets & 7) as u8
    }

    /// An acknowledgement leaves, with the ACE field.
    #[inline]
    pub(crate) fn told(&mut self) {
        self.marks = 0;
    }

    /// The option leaves.
    #[inline]
    pub(crate) fn option_told(&mut self) {
        self.news = false;
    }

    /// A byte counter was counted up since the peer was told.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.news
    }

    /// The option: every counter that was ever counted up, in the order that makes it shortest.
    /// `all`: all of them, as in the handshake.
    pub(crate) fn option(&self, all: bool) -> AccurateEcn {
        let (e0b, ceb, e1b) =
            (self.ect_0_bytes & FIELD, self.ce_bytes & FIELD, self.ect_1_bytes & FIELD);
        let has = |bit: u8| self.changed & bit != 0;
        if all || (has(ECT_0) && has(ECT_1)) {
            return AccurateEcn { e0b: Some(e0b), ceb: Some(ceb), e1b: Some(e1b) };
        }
        let ceb = has(CE).then_some(ceb);
        if has(ECT_1) {
            AccurateEcn { e0b: None, ceb, e1b: Some(e1b) }
        } else {
            AccurateEcn { e0b: Some(e0b), ceb, e1b: None }
        }
    }

    /// Marked packets and bytes by codepoint, for those who look.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            ce_packets: self.ce_packets.wrapping_sub(INITIAL_PACKETS),
            ce_bytes: self.ce_bytes,
            ect_0_bytes: self.ect_0_bytes.wrapping_sub(INITIAL_ECT_BYTES),
            ect_1_bytes: self.ect_1_bytes.wrapping_sub(INITIAL_ECT_BYTES),
        }
    }
}

/// Counters without their initial values, modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) ce_packets: u32,
    pub(crate) ce_bytes: u32,
    pub(crate) ect_0_bytes: u32,
    pub(crate) ect_1_bytes: u32,
}

/// Whether the peer's options are believed (RFC 9768 §3.2.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Options {
    /// None has come yet.
    #[default]
    Unseen,
    Believed,
    /// The first one had a zero where none can be.
    Ignored,
}

/// What the peer says that it got (s.cep, s.ceb, s.e0b, s.e1b).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    ce_packets: u32,
    ce_bytes: u32,
    ect_0_bytes: u32,
    ect_1_bytes: u32,
    options: Options,
    /// Packets and bytes that were reported as marked since the last option.
    since_option: (u32, u32),
    /// The peer's timestamp on the last that was heard.
    heard: Option<u32>,
    /// Some feedback has come after the handshake.
    begun: bool,
    /// Feedback is not to be acted on.
    deaf: bool,
    /// Something that we sent came unmarked.
    unmarked: bool,
    rounds: u8,
    round_end: Seq,
    marks: u32,
}

impl Default for Sent {
    fn default() -> Self {
        Sent {
            ce_packets: INITIAL_PACKETS,
            ce_bytes: 0,
            ect_0_bytes: INITIAL_ECT_BYTES,
            ect_1_bytes: INITIAL_ECT_BYTES,
            options: Options::Unseen,
            since_option: (0, 0),
            heard: None,
            begun: false,
            deaf: false,
            unmarked: false,
            rounds: 0,
            round_end: Seq(0),
            marks: 0,
        }
    }
}

/// What an acknowledgement says of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Feedback {
    /// Packets and bytes newly reported as marked.
    pub(crate) packets: u32,
    pub(crate) bytes: u32,
    /// The feedback cannot be trusted: nothing ECN-capable may be sent any more.
    pub(crate) mangled: bool,
}

/// What an acknowledgement covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covered {
    /// Bytes that it newly tells to be delivered, and in how many packets.
    pub(crate) bytes: u32,
    pub(crate) packets: u32,
    pub(crate) mss: u32,
    pub(crate) ack: Seq,
    pub(crate) snd_nxt: Seq,
}

impl Sent {
    /// A SYN-ACK's bits say with which codepoint the SYN came (RFC 9768 §3.2.2.3). Ours are not
    /// ECN-capable.
    pub(crate) fn syn_ack(&mut self, bits: u8) -> Feedback {
        match decode_handshake(bits) {
            // A reserved combination says that nothing was changed (§3.1.3).
            None | Some(codepoint::NOT_ECT) => Feedback::default(),
            Some(ip) => {
                Feedback { packets: u32::from(ip == codepoint::CE), bytes: 0, mangled: true }
            }
        }
    }

    /// The acknowledgement of our SYN-ACK says with which codepoint that came (RFC 9768
    /// §3.2.2.1): a pure one without SACK blocks.
    pub(crate) fn handshake_ack(&mut self, ace: u8) -> Feedback {
        match decode_handshake(ace) {
            // The client does not speak this after all.
            None if ace == 0 => {
                self.deaf = true;
                Feedback { mangled: true, ..Feedback::default() }
            }
            None | Some(codepoint::NOT_ECT) => Feedback::default(),
            Some(codepoint::CE) => {
                self.ce_packets = INITIAL_PACKETS + 1;
                Feedback { packets: 1, bytes: 0, mangled: true }
            }
            Some(_) => Feedback { mangled: true, ..Feedback::default() },
        }
    }

    /// A first option whose initial values were zeroed is the last one that is looked at (RFC
    /// 9768 §3.2.3.2.4).
    pub(crate) fn first_option(&mut self, option: &AccurateEcn) {
        if self.options == Options::Unseen {
            let zeroed = option.e0b == Some(0) || option.e1b == Some(0);
            self.options = if zeroed { Options::Ignored } else { Options::Believed };
        }
    }

    /// Whether nothing that left later has been heard: another may have superseded what acknowledges
    /// nothing for the first time, or only selectively (RFC 9768 §3.2.2.2). Data that overtook other
    /// data has a timestamp that the connection does not remember.
    pub(crate) fn hears(&mut self, timestamp: Option<u32>, acked: bool, sacked: bool) -> bool {
        let Some(value) = timestamp else { return acked || sacked };
        let later = self.heard.map_or(1, |heard| newer(value, heard));
        if later > 0 {
            self.heard = Some(value);
        }
        acked || later > 0 || (later == 0 && sacked)
    }

    /// An acknowledgement that no other has superseded (RFC 9768 §3.2.2.2, §3.2.3.1, appendix A).
    pub(crate) fn acknowledgement(
        &mut self,
        ace: u8,
        option: Option<&AccurateEcn>,
        covered: &Covered,
    ) -> Feedback {
        if !core::mem::replace(&mut self.begun, true) && ace == 0 {
            self.deaf = true;
            return Feedback { mangled: true, ..Feedback::default() };
        }
        let newly = covered.packets;
        let size = covered.bytes.checked_div(newly).unwrap_or(covered.mss).max(1);
        let least = u32::from(ace).wrapping_sub(self.ce_packets) & 7;
        let mut mangled = false;
        let told = option.and_then(|option| {
            self.first_option(option);
            self.options_say(option)
        });
        let (packets, bytes) = match told {
            Some(bytes) => {
                let (known, known_bytes) = core::mem::take(&mut self.since_option);
                // The counter may have gone round: as often as the bytes say, and the packets allow.
                let estimate = bytes.div_ceil(size).saturating_sub(known).min(newly);
                let packets = least + (estimate.saturating_sub(least) + 4) / 8 * 8;
                // Bytes are marked that were in no packet (§3.2.3.2.5).
                mangled = bytes > 0 && packets == 0 && known == 0 && newly < 8;
                (packets, bytes.saturating_sub(known_bytes))
            }
            None => {
                // Where it may have gone round, it has, as often as it can (§3.2.2.5.2).
                let packets =
                    if newly > 7 { newly - (newly.wrapping_sub(least) & 7) } else { least };
                let bytes = packets.saturating_mul(size).min(covered.bytes);
                self.since_option.0 = self.since_option.0.saturating_add(packets);
                self.since_option.1 = self.since_option.1.saturating_add(bytes);
                (packets, bytes)
            }
        };
        self.ce_packets = self.ce_packets.wrapping_add(packets);
        self.watch(packets, newly, covered);
        if self.never_unmarked() {
            self.deaf = true;
            mangled = true;
        }
        if self.deaf {
            return Feedback { packets: 0, bytes: 0, mangled };
        }
        Feedback { packets, bytes, mangled }
    }

    /// Newly marked bytes by the option; `None`: it does not tell.
    fn options_say(&mut self, option: &AccurateEcn) -> Option<u32> {
        if self.options != Options::Believed {
            return None;
        }
        // Forward by less than half of the modulus, or an old one.
        let advance = |counter: &mut u32, field: Option<u32>| {
            let Some(field) = field else { return Some(0) };
            let delta = field.wrapping_sub(*counter) & FIELD;
            if delta > FIELD / 2 {
                return None;
            }
            *counter = counter.wrapping_add(delta);
            Some(delta)
        };
        let mut after = *self;
        let ect_0 = advance(&mut after.ect_0_bytes, option.e0b);
        let ect_1 = advance(&mut after.ect_1_bytes, option.e1b);
        let ce = advance(&mut after.ce_bytes, option.ceb);
        let (Some(_), Some(_), Some(ce)) = (ect_0, ect_1, ce) else { return None };
        *self = after;
        Some(ce)
    }

    /// Looks for marks on everything (RFC 9768 §3.2.2.3).
    fn watch(&mut self, packets: u32, newly: u32, covered: &Covered) {
        if self.unmarked || newly == 0 {
            return;
        }
        if packets < newly {
            self.unmarked = true;
            return;
        }
        self.marks = self.marks.saturating_add(packets);
        if self.rounds == 0 || covered.ack.ge(self.round_end) {
            self.round_end = covered.snd_nxt;
            self.rounds = self.rounds.saturating_add(1);
        }
    }

    fn never_unmarked(&self) -> bool {
        !self.unmarked && self.rounds > ROUNDS_OF_MARKS && self.marks >= PACKETS_OF_MARKS
    }

    /// Marked packets and bytes by codepoint, for those who look.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            ce_packets: self.ce_packets.wrapping_sub(INITIAL_PACKETS),
            ce_bytes: self.ce_bytes,
            ect_0_bytes: self.ect_0_bytes.wrapping_sub(INITIAL_ECT_BYTES),
            ect_1_bytes: self.ect_1_bytes.wrapping_sub(INITIAL_ECT_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MSS: u32 = 1000;

    fn covered(packets: u32) -> Covered {
        of_size(packets, MSS)
    }

    fn of_size(packets: u32, size: u32) -> Covered {
        let bytes = packets * size;
        Covered { bytes, packets, mss: MSS, ack: Seq(1), snd_nxt: Seq(100_000) }
    }

    /// Both ends of a path, one direction.
    #[derive(Default)]
    struct Pair {
        received: Received,
        sent: Sent,
    }

    impl Pair {
        fn started() -> Pair {
            let mut pair = Pair::default();
            pair.send(1, 0);
            pair.tell(1, true);
            pair
        }

        fn send(&mut self, packets: u32, marked: u32) {
            for n in 0..packets {
                let ip = if n < marked { codepoint::CE } else { codepoint::ECT_0 };
                self.received.packets(ip, 1, MSS, true);
            }
        }

        fn tell(&mut self, covers: u32, with_option: bool) -> Feedback {
            let option = self.received.option(false);
            let ace = self.received.ace();
            self.received.told();
            self.sent.acknowledgement(ace, with_option.then_some(&option), &covered(covers))
        }
    }

    #[test]
    fn every_mark_is_told_with_and_without_the_option() {
        for with_option in [false, true] {
            let mut pair = Pair::started();
            for (packets, marked) in [(2, 0), (2, 1), (2, 2), (7, 7), (5, 3), (1, 1)] {
                pair.send(packets, marked);
                let feedback = pair.tell(packets, with_option);
                assert_eq!((feedback.packets, feedback.bytes), (marked, marked * MSS));
                assert!(!feedback.mangled);
            }
            assert_eq!(pair.sent.totals().ce_packets, pair.received.totals().ce_packets);
        }
    }

    /// RFC 9768 §3.2.2.5.2: without the option, a jump that may hide a turn of the counter does.
    #[test]
    fn a_counter_that_may_have_gone_round_has() {
        let mut pair = Pair::started();
        pair.send(40, 3);
        // 3 and multiples of 8 more, up to 40.
        assert_eq!(pair.tell(40, false).packets, 35);
        let mut pair = Pair::started();
        pair.send(40, 3);
        assert_eq!(pair.tell(40, true), Feedback { packets: 3, bytes: 3000, mangled: false });
        pair.send(40, 29);
        assert_eq!(pair.tell(40, true).packets, 29);
    }

    /// What a peer's receive offload joined is acknowledged at once, be it ever so small.
    #[test]
    fn packets_are_counted_whatever_their_size() {
        // Eight of eight were marked: the counter is where it was.
        let mut sent = Sent::default();
        let option = AccurateEcn { e0b: Some(1), ceb: Some(800), e1b: None };
        let feedback = sent.acknowledgement(5, Some(&option), &of_size(8, 100));
        assert_eq!(feedback, Feedback { packets: 8, bytes: 800, mangled: false });
        // One of two.
        let feedback = sent.acknowledgement(6, None, &of_size(2, 100));
        assert_eq!(feedback, Feedback { packets: 1, bytes: 100, mangled: false });
        // 3 and multiples of 8 more, up to 20.
        let feedback = sent.acknowledgement(1, None, &of_size(20, 100));
        assert_eq!((feedback.packets, feedback.bytes), (19, 1900));
    }

    #[test]
    fn acknowledgements_that_are_lost_lose_no_marks() {
        let mut pair = Pair::started();
        for _ in 0..10 {
            pair.send(20, 13);
            pair.received.told();
        }
        assert_eq!(pair.tell(200, true).packets, 130);
    }

    #[test]
    fn a_zeroed_field_is_not_believed_and_ends_ecn() {
        let mut sent = Sent::default();
        assert!(sent.acknowledgement(0, None, &covered(2)).mangled);
        // And what it says later is no reason to slow down.
        assert_eq!(sent.acknowledgement(7, None, &covered(2)).packets, 0);
    }

    #[test]
    fn a_zero_later_on_is_a_count() {
        let mut pair = Pair::started();
        pair.send(3, 3);
        assert_eq!(pair.received.ace(), 0);
        let feedback = pair.tell(3, false);
        assert_eq!((feedback.packets, feedback.mangled), (3, false));
    }

    #[test]
    fn a_zeroed_option_is_ignored() {
        let mut sent = Sent::default();
        let zeroed = AccurateEcn { e0b: Some(0), ceb: Some(0), e1b: Some(0) };
        sent.acknowledgement(5, Some(&zeroed), &covered(2));
        let lies = AccurateEcn { e0b: Some(0), ceb: Some(9000), e1b: Some(0) };
        let feedback = sent.acknowledgement(6, Some(&lies), &covered(2));
        assert_eq!((feedback.packets, feedback.bytes), (1, 1000));
    }

    #[test]
    fn marked_bytes_without_a_marked_packet_end_ecn() {
        let mut sent = Sent::default();
        let option = AccurateEcn { e0b: Some(1001), ceb: Some(0), e1b: None };
        assert!(!sent.acknowledgement(5, Some(&option), &covered(1)).mangled);
        let option = AccurateEcn { e0b: Some(1001), ceb: Some(2000), e1b: None };
        assert!(sent.acknowledgement(5, Some(&option), &covered(2)).mangled);
    }

    #[test]
    fn counters_that_go_back_say_nothing() {
        let mut sent = Sent::default();
        let option = AccurateEcn { e0b: Some(5000), ceb: Some(3000), e1b: None };
        sent.acknowledgement(5, Some(&option), &covered(5));
        let before = sent.totals();
        let old = AccurateEcn { e0b: Some(4000), ceb: Some(2000), e1b: None };
        let feedback = sent.acknowledgement(5, Some(&old), &covered(1));
        assert_eq!((feedback.packets, sent.totals()), (0, before));
    }

    #[test]
    fn nothing_but_marks_is_not_believed_after_four_rounds() {
        let mut sent = Sent::default();
        let mut ace = 5u8;
        let mut at = 1u32;
        let mut last = Feedback::default();
        for round in 0..6 {
            for _ in 0..5 {
                ace = (ace + 2) & 7;
                at += 2 * MSS;
                let end = Seq(1 + (round + 1) * 10 * MSS);
                last = sent.acknowledgement(
                    ace,
                    None,
                    &Covered { ack: Seq(at), snd_nxt: end + 10 * MSS, ..covered(2) },
                );
            }
            assert_eq!(last.mangled, round >= 4, "round {round}");
        }
        assert_eq!(last.packets, 0);
    }

    #[test]
    fn one_unmarked_packet_is_enough_to_believe() {
        let mut pair = Pair::started();
        for _ in 0..200 {
            pair.send(2, 2);
            let feedback = pair.tell(2, false);
            assert_eq!((feedback.packets, feedback.mangled), (2, false));
        }
    }

    #[test]
    fn a_syn_that_came_changed_ends_ecn() {
        let mut sent = Sent::default();
        for (bits, mangled, packets) in [
            (0b010, false, 0),
            (0b101, false, 0),
            (0b011, true, 0),
            (0b100, true, 0),
            (0b110, true, 1),
        ] {
            let feedback = sent.syn_ack(bits);
            assert_eq!((feedback.mangled, feedback.packets), (mangled, packets), "{bits:03b}");
        }
    }

    /// RFC 9768 table 4.
    #[test]
    fn every_acknowledgement_of_a_syn_ack() {
        let mangled = [true, false, false, true, true, false, true, false];
        for (ace, mangled) in mangled.into_iter().enumerate() {
            let mut sent = Sent::default();
            let feedback = sent.handshake_ack(ace as u8);
            assert_eq!(feedback.mangled, mangled, "{ace:03b}");
            assert_eq!(sent.totals().ce_packets, u32::from(ace == 0b110), "{ace:03b}");
            assert_eq!(sent.deaf, ace == 0, "{ace:03b}");
        }
    }

    #[test]
    fn marks_are_acknowledged_at_once_when_they_begin_and_when_they_are_many() {
        let mut received = Received::default();
        assert!(!received.packets(codepoint::ECT_0, 1, 1000, true));
        assert!(received.packets(codepoint::CE, 1, 1000, true));
        received.told();
        assert!(!received.packets(codepoint::CE, 1, 1000, true));
        assert!(received.packets(codepoint::CE, 1, 1000, true));
        received.told();
        // Marked acknowledgements: every third one (RFC 9768 §3.2.2.5.1).
        let pure = (0..6).map(|_| {
            let now = received.packets(codepoint::CE, 1, 0, false);
            if now {
                received.told();
            }
            now
        });
        assert_eq!(pure.collect::<Vec<_>>(), [false, false, true, false, false, true]);
    }

    /// RFC 9768 §3.2: every packet counts, also where something joined them on the way.
    #[test]
    fn packets_that_came_as_one_are_many() {
        let mut received = Received::default();
        assert!(received.packets(codepoint::CE, 10, 10 * MSS, false));
        received.told();
        assert_eq!(received.totals().ce_packets, 10);
        assert_eq!(received.ace(), (5 + 10) & 7);
        assert!(received.packets(codepoint::CE, 1000, 1000 * MSS, true));
        assert_eq!(received.totals().ce_packets, 1010);
    }

    #[test]
    fn a_marked_syn_ack_counts_once() {
        let mut received = Received::default();
        (0..3).for_each(|_| received.syn_ack(codepoint::CE));
        assert_eq!(received.ace(), 6);
    }

    #[test]
    fn the_option_is_as_short_as_it_can_be() {
        let fields =
            |option: AccurateEcn| [option.e0b, option.ceb, option.e1b].map(|f| f.is_some());
        let mut received = Received::default();
        received.packets(codepoint::ECT_0, 1, 10, true);
        assert_eq!(fields(received.option(false)), [true, false, false]);
        received.packets(codepoint::CE, 1, 10, true);
        assert_eq!(fields(received.option(false)), [true, true, false]);
        let mut received = Received::default();
        received.packets(codepoint::ECT_1, 1, 10, true);
        assert_eq!(fields(received.option(false)), [false, false, true]);
        received.packets(codepoint::ECT_0, 1, 10, true);
        assert_eq!(fields(received.option(false)), [true, true, true]);
        assert_eq!(fields(Received::default().option(true)), [true, true, true]);
    }

    proptest! {
        /// Whatever a peer or a path says, nothing overflows, and no more is believed to be marked
        /// than was covered.
        #[test]
        fn any_feedback_is_survived(
            acks in prop::collection::vec(
                (0u8..8, prop::option::of((any::<[Option<u32>; 3]>(), any::<bool>())), 0u32..1 << 20),
                0..50,
            ),
        ) {
            let mut sent = Sent::default();
            for (ace, option, bytes) in acks {
                let option = option.map(|([e0b, ceb, e1b], _)| AccurateEcn {
                    e0b: e0b.map(|field| field & FIELD),
                    ceb: ceb.map(|field| field & FIELD),
                    e1b: e1b.map(|field| field & FIELD),
                });
                let (packets, ack) = (bytes.div_ceil(MSS), Seq(bytes));
                let covered = Covered { bytes, packets, mss: MSS, ack, snd_nxt: ack + 5000 };
                let feedback = sent.acknowledgement(ace, option.as_ref(), &covered);
                if option.is_none() {
                    prop_assert!(feedback.bytes <= bytes);
                    prop_assert!(feedback.packets <= bytes.div_ceil(MSS).max(7));
                }
            }
        }

        /// Every packet told of exactly, over a path that loses acknowledgements at random, as
        /// long as no more than seven packets are covered at once.
        #[test]
        fn a_path_that_changes_nothing_is_understood(
            rounds in prop::collection::vec((1u32..8, 0u32..8, any::<bool>()), 0..100),
        ) {
            let mut pair = Pair::started();
            let mut total = 0;
            for (packets, marked, with_option) in rounds {
                let marked = marked.min(packets);
                pair.send(packets, marked);
                total += marked;
                let feedback = pair.tell(packets, with_option);
                prop_assert_eq!(feedback.packets, marked);
                prop_assert_eq!(pair.sent.totals().ce_packets, total);
            }
        }
    }
}
