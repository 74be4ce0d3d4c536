//! Explicit congestion notification (RFC 3168) and Accurate ECN (RFC 9768).

mod feedback;

use core::net::SocketAddr;

use crate::common::craft::{STACK_IP, Segment, TcpSegment};
use crate::common::peer::{ACK, MSS, Peer, SYN, pattern};
use millrace_stack::{
    Algorithm, ConnectionId, Ecn, Failure, ListenOptions, Ready, State, SynCookies,
};
use millrace_wire::tcp::{AccurateEcn, Flags, OptionWriter};

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// (AE, CWR, ECE), as RFC 9768's tables have them.
fn three(segment: &Segment) -> u8 {
    u8::from(segment.ae) << 2 | segment.flags.0 >> 6
}

/// What a segment from the peer says of ECN.
#[derive(Clone, Copy, Default)]
struct Says {
    three: u8,
    ip: u8,
    option: Option<AccurateEcn>,
}

fn says(three: u8) -> Says {
    Says { three, ..Says::default() }
}

fn came(ip: u8) -> Says {
    Says { ip, ..Says::default() }
}

fn marked<'a>(segment: TcpSegment<'a>, says: Says) -> TcpSegment<'a> {
    let mut options = segment.options;
    if let Some(option) = says.option {
        assert!(options.accurate_ecn(&option));
    }
    TcpSegment {
        flags: segment.flags | Flags((says.three & 3) << 6),
        ae: says.three & 4 != 0,
        ecn: says.ip,
        options,
        ..segment
    }
}

trait Marked {
    fn say(&mut self, says: Says, flags: Flags, seq: u32, ack: u32, payload: &[u8]);
    fn say_syn(&mut self, says: Says, flags: Flags);
    fn answer(&mut self) -> Segment;
    fn window(&self, id: ConnectionId) -> u32;
}

impl Marked for Peer {
    fn say(&mut self, says: Says, flags: Flags, seq: u32, ack: u32, payload: &[u8]) {
        let bytes = marked(self.segment(flags, seq, ack, payload), says).bytes();
        self.inject(&bytes);
    }

    fn say_syn(&mut self, says: Says, flags: Flags) {
        let mut options = OptionWriter::new();
        options.mss(MSS);
        let ack = u32::from(flags.contains(ACK));
        let segment = TcpSegment { options, ..self.segment(flags, 0, ack, &[]) };
        self.inject(&marked(segment, says).bytes());
    }

    /// The one segment that the stack has sent.
    fn answer(&mut self) -> Segment {
        let mut sent = self.take();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn window(&self, id: ConnectionId) -> u32 {
        self.stack.info(id).unwrap().congestion_window
    }
}

fn with(ecn: Ecn) -> Peer {
    Peer::with(|config| config.ecn = ecn)
}

/// A connection that the peer opened, which asked with `asks` and acknowledges with `acks`.
fn accepted(peer: &mut Peer, asks: Says, acks: Says) -> (ConnectionId, Segment) {
    let listener = peer.listen(80, 16);
    peer.say_syn(asks, SYN);
    let syn_ack = peer.answer();
    peer.say(acks, ACK, 1, 1, &[]);
    (peer.accept(listener).expect("a connection"), syn_ack)
}

/// A connection that the stack opened, and the peer agreed to with `grants`. Returns the SYN and
/// the acknowledgement of the SYN-ACK too.
fn connected(peer: &mut Peer, grants: Says) -> (ConnectionId, Segment, Segment) {
    let id = peer.connect();
    let syn = peer.answer();
    peer.say_syn(grants, SYN | ACK);
    let ack = peer.answer();
    (id, syn, ack)
}

fn classic() -> (Peer, ConnectionId) {
    let mut peer = with(Ecn::Passive);
    let (id, _) = accepted(&mut peer, says(0b011), Says::default());
    (peer, id)
}

/// Accurate ECN with a client that got our SYN-ACK unchanged.
fn accurate() -> (Peer, ConnectionId) {
    let mut peer = with(Ecn::Passive);
    let (id, _) = accepted(&mut peer, says(0b111), says(0b010));
    (peer, id)
}

/// Every request against every configuration: bits of the SYN-ACK.
#[test]
fn a_listener_grants_what_is_asked_for() {
    for (ecn, asks, grants) in [
        (Ecn::Off, 0b011, 0),
        (Ecn::Off, 0b111, 0),
        (Ecn::Passive, 0, 0),
        (Ecn::Passive, 0b011, 0b001),
        (Ecn::Passive, 0b111, 0b010),
        (Ecn::On, 0b011, 0b001),
        (Ecn::On, 0b111, 0b010),
        (Ecn::Accurate, 0, 0),
        (Ecn::Accurate, 0b011, 0b001),
        (Ecn::Accurate, 0b111, 0b010),
        (Ecn::Accurate, 0b101, 0b010),
    ] {
        let mut peer = with(ecn);
        peer.listen(80, 16);
        peer.say_syn(says(asks), SYN);
        let syn_ack = peer.answer();
        assert_eq!(three(&syn_ack), grants, "{ecn:?} {asks:03b}");
        assert_eq!(syn_ack.ecn, NOT_ECT);
    }
}

/// RFC 9768 table 2, for a host that asks, and what it does with data afterwards.
#[test]
fn a_client_takes_what_it_gets() {
    for (ecn, asks, grants, capable) in [
        (Ecn::Off, 0, 0b001, false),
        (Ecn::Passive, 0, 0b001, false),
        (Ecn::On, 0b011, 0, false),
        (Ecn::On, 0b011, 0b001, true),
        (Ecn::On, 0b011, 0b011, false),
        (Ecn::Accurate, 0b111, 0, false),
        (Ecn::Accurate, 0b111, 0b001, true),
        (Ecn::Accurate, 0b111, 0b010, true),
        (Ecn::Accurate, 0b111, 0b101, true),
        // The SYN came changed.
        (Ecn::Accurate, 0b111, 0b011, false),
        (Ecn::Accurate, 0b111, 0b100, false),
        (Ecn::Accurate, 0b111, 0b110, false),
        // A server that sends back what it got.
        (Ecn::Accurate, 0b111, 0b111, false),
    ] {
        let mut peer = with(ecn);
        let (id, syn, _) = connected(&mut peer, says(grants));
        assert_eq!((three(&syn), syn.ecn), (asks, NOT_ECT), "{ecn:?}");
        peer.write(id, 0, 1000);
        let data = peer.answer();
        assert_eq!(data.ecn == ECT_0, capable, "{ecn:?} {grants:03b}");
    }
}

#[test]
fn a_syn_that_gets_no_answer_is_sent_again_without() {
    for (ecn, bits) in [(Ecn::On, [0b011, 0, 0]), (Ecn::Accurate, [0b111, 0b111, 0])] {
        let mut peer = with(ecn);
        let id = peer.connect();
        for bits in bits {
            assert_eq!(three(&peer.answer()), bits, "{ecn:?}");
            peer.wait();
        }
        peer.take();
        assert!(peer.stack.counters().ecn_fallbacks > 0);
        // The answer to an earlier one counts all the same.
        peer.say_syn(says(0b001), SYN | ACK);
        peer.take();
        peer.write(id, 0, 1000);
        assert_eq!(peer.answer().ecn, ECT_0);
    }
}

#[test]
fn only_new_data_is_ecn_capable() {
    let (mut peer, id) = classic();
    peer.write(id, 0, 1000);
    assert_eq!(peer.expect_data(1, 1000).ecn, ECT_0);
    peer.wait();
    let again = peer.take();
    assert!(again.iter().all(|segment| segment.ecn == NOT_ECT), "{again:?}");
    peer.send(ACK, 1, 1001, &pattern(0, 3000));
    let answers = peer.take();
    assert!(!answers.is_empty() && answers.iter().all(|ack| ack.ecn == NOT_ECT));
    peer.shutdown_write(id);
    assert_eq!(peer.answer().ecn, NOT_ECT);
}

#[test]
fn a_mark_is_echoed_until_the_sender_has_slowed_down() {
    let (mut peer, _id) = classic();
    peer.say(came(ECT_0), ACK, 1, 1, &pattern(0, 1000));
    peer.say(came(CE), ACK, 1001, 1, &pattern(1000, 1000));
    assert_eq!(three(&peer.answer()), 0b001, "and at once");
    for n in 2..6u32 {
        peer.say(came(ECT_0), ACK, 1 + n * 1000, 1, &pattern(n as usize * 1000, 1000));
    }
    assert!(peer.take().iter().all(|ack| three(ack) == 0b001));
    peer.say(Says { three: 0b010, ip: ECT_0, option: None }, ACK, 6001, 1, &pattern(6000, 1000));
    assert_eq!(three(&peer.answer()), 0);
    // A CWR that is marked itself begins anew.
    peer.say(Says { three: 0b010, ip: CE, option: None }, ACK, 7001, 1, &pattern(7000, 1000));
    assert_eq!(three(&peer.answer()), 0b001);
    assert_eq!(peer.stack.counters().ce_received, 2);
}

#[test]
fn an_echo_halves_the_window_once_a_round_trip_and_is_confirmed() {
    let (mut peer, id) = classic();
    peer.write(id, 0, 60_000);
    peer.take();
    assert_eq!(peer.window(id), 10_000);
    for at in 1..=5 {
        peer.say(says(0b001), ACK, 1, 1 + at * 2000, &[]);
    }
    assert_eq!(peer.stack.info(id).unwrap().slow_start_threshold, 5000);
    let sent = peer.take();
    let confirmed: Vec<_> = sent.iter().map(three).collect();
    assert_eq!(confirmed.iter().filter(|&&bits| bits == 0b010).count(), 1, "{confirmed:?}");
    assert_eq!(confirmed[0], 0b010, "with the first new data");
    assert!(peer.window(id) <= 5000, "{}", peer.window(id));
    assert_eq!(peer.stack.counters().congestion_reductions, 1);
    assert_eq!(peer.stack.counters().fast_retransmits, 0);
    // The next round trip's echo is a new one.
    let end = sent.last().map(|last| last.seq + last.payload.len() as u32).unwrap();
    peer.say(says(0), ACK, 1, end, &[]);
    peer.take();
    peer.say(says(0b001), ACK, 1, end + 1000, &[]);
    assert_eq!(peer.stack.counters().congestion_reductions, 2);
}

#[test]
fn without_an_agreement_nothing_of_it_is_heard() {
    let mut peer = with(Ecn::Off);
    let (id, _) = accepted(&mut peer, says(0b011), Says::default());
    peer.write(id, 0, 60_000);
    assert!(peer.take().iter().all(|data| data.ecn == NOT_ECT && three(data) == 0));
    peer.say(Says { three: 0b001, ip: CE, option: None }, ACK, 1, 2001, &pattern(0, 1000));
    assert!(peer.take().iter().all(|data| three(data) == 0));
    assert_eq!(peer.stack.counters().congestion_reductions, 0);
    assert!(peer.window(id) > 10_000);
}

#[test]
fn accurate_ecn_tells_how_the_syn_came() {
    for (ip, grants) in [(NOT_ECT, 0b010), (ECT_1, 0b011), (ECT_0, 0b100), (CE, 0b110)] {
        let mut peer = with(Ecn::Passive);
        peer.listen(80, 16);
        peer.say_syn(Says { three: 0b111, ip, option: None }, SYN);
        let syn_ack = peer.answer();
        assert_eq!(three(&syn_ack), grants);
        let option = AccurateEcn { e0b: Some(1), ceb: Some(0), e1b: Some(1) };
        assert_eq!(syn_ack.options.accurate_ecn, Some(option));
    }
}

#[test]
fn accurate_ecn_tells_how_the_syn_ack_came() {
    for (ip, handshake, ace) in
        [(NOT_ECT, 0b010, 5), (ECT_1, 0b011, 5), (ECT_0, 0b100, 5), (CE, 0b110, 6)]
    {
        let mut peer = with(Ecn::Accurate);
        let id = peer.connect();
        peer.take();
        // Data waits already, and does not go first.
        peer.stack.write(id, &pattern(0, 500)).unwrap();
        peer.say_syn(Says { three: 0b010, ip, option: None }, SYN | ACK);
        let sent = peer.take();
        assert_eq!((sent[0].payload.len(), three(&sent[0])), (0, handshake), "{sent:?}");
        assert_eq!((sent[1].payload.len(), three(&sent[1])), (500, ace));
        assert!(sent.iter().all(|one| one.options.accurate_ecn.is_some()), "{sent:?}");
        // The same for a SYN-ACK that comes again.
        peer.say_syn(Says { three: 0b010, ip, option: None }, SYN | ACK);
        assert_eq!(three(&peer.answer()), handshake);
    }
}

#[test]
fn a_syn_ack_that_gets_no_answer_is_sent_again_with_less() {
    let mut peer = with(Ecn::Passive);
    let listener = peer.listen(80, 16);
    peer.say_syn(says(0b111), SYN);
    let first = peer.answer();
    peer.wait();
    let second = peer.answer();
    peer.wait();
    let third = peer.answer();
    assert_eq!([&first, &second, &third].map(three), [0b010, 0b010, 0]);
    let options = [&first, &second, &third].map(|one| one.options.accurate_ecn.is_some());
    assert_eq!(options, [true, false, false]);
    // The server stays as it was, but whether the client knows is not known: nothing is ECT.
    peer.say(says(0b010), ACK, 1, 1, &[]);
    let id = peer.accept(listener).unwrap();
    peer.write(id, 0, 1000);
    let data = peer.answer();
    assert_eq!((data.ecn, three(&data)), (NOT_ECT, 5));
}

#[test]
fn accurate_ecn_counts_packets_and_bytes() {
    let (mut peer, id) = accurate();
    let mut at = 1u32;
    let mut send = |peer: &mut Peer, ip, len: usize| {
        let payload = pattern(at as usize - 1, len);
        peer.say(Says { three: 5, ip, option: None }, ACK, at, 1, &payload);
        at += len as u32;
        peer.take()
    };
    assert!(send(&mut peer, ECT_0, 1000).len() <= 1);
    let ack = send(&mut peer, CE, 500).pop().expect("at once");
    assert_eq!(three(&ack), 6);
    let option = ack.options.accurate_ecn.expect("the option");
    assert_eq!((option.e0b, option.ceb), (Some(1001), Some(500)));
    let acks = [send(&mut peer, CE, 100), send(&mut peer, CE, 100)].concat();
    assert_eq!(acks.last().map(three), Some(0), "seven and one more");
    let option = acks.last().and_then(|ack| ack.options.accurate_ecn).expect("the option");
    assert_eq!(option.ceb, Some(700));
    let info = peer.stack.tcp_info(id).unwrap();
    assert_eq!((info.received_ce, info.received_ce_bytes, info.received_e0_bytes), (3, 700, 1000));
}

#[test]
fn accurate_feedback_halves_the_window_once_a_round_trip() {
    let (mut peer, id) = accurate();
    peer.write(id, 0, 60_000);
    assert!(peer.take().iter().all(|data| data.ecn == ECT_0));
    peer.say(says(5), ACK, 1, 2001, &[]);
    peer.take();
    for (at, ace) in [(2, 6), (3, 7), (4, 0)] {
        peer.say(says(ace), ACK, 1, 1 + at * 2000, &[]);
    }
    let info = peer.stack.info(id).unwrap();
    assert_eq!(info.slow_start_threshold, 6000);
    assert_eq!(peer.stack.counters().congestion_reductions, 1);
    assert_eq!(peer.stack.tcp_info(id).unwrap().delivered_ce, 3);
    // No CWR: the bit is the counter's.
    assert!(peer.take().iter().all(|data| three(data) == 5));
}

#[test]
fn a_zeroed_counter_ends_ecn_and_slows_nothing_down() {
    let (mut peer, id) = accurate();
    peer.write(id, 0, 60_000);
    peer.take();
    peer.say(says(0), ACK, 1, 2001, &[]);
    peer.say(says(3), ACK, 1, 4001, &[]);
    assert_eq!(peer.stack.counters().congestion_reductions, 0);
    assert_eq!(peer.stack.counters().ecn_mangled, 1);
    let sent = peer.take();
    assert!(!sent.is_empty() && sent.iter().all(|data| data.ecn == NOT_ECT));
}

/// RFC 9768 table 4.
#[test]
fn every_acknowledgement_of_a_syn_ack_is_understood() {
    for (ace, capable) in
        [(0, false), (1, true), (2, true), (3, false), (4, false), (5, true), (6, false), (7, true)]
    {
        let mut peer = with(Ecn::Passive);
        let (id, _) = accepted(&mut peer, says(0b111), says(ace));
        peer.write(id, 0, 1000);
        let data = peer.answer();
        assert_eq!(data.ecn == ECT_0, capable, "{ace:03b}");
        // What comes is counted all the same.
        assert_eq!(three(&data), 5);
    }
}

#[test]
fn two_kinds_of_request_in_one_handshake_are_refused() {
    for (first, second) in [(0b111, 0b011), (0b011, 0b111)] {
        let mut peer = with(Ecn::Passive);
        peer.listen(80, 16);
        peer.say_syn(says(first), SYN);
        peer.take();
        peer.say_syn(says(second), SYN);
        let answer = peer.answer();
        assert!(answer.flags.contains(Flags::RST), "{answer:?}");
        peer.say(Says::default(), ACK, 1, 1, &[]);
        assert!(peer.answer().flags.contains(Flags::RST));
    }
}

#[test]
fn an_application_that_has_the_connection_already_hears_of_the_refusal() {
    let mut peer = Peer::with(|config| {
        config.ecn = Ecn::Passive;
        config.fast_open.server_without_cookie = true;
    });
    let options = ListenOptions { fast_open: 4, ..ListenOptions::new(8) };
    let listener = peer.stack.listen_with((STACK_IP, 80).into(), options).unwrap();
    let bytes = marked(peer.segment(SYN, 0, 0, b"hello"), says(0b111)).bytes();
    peer.inject(&bytes);
    let early = peer.answer();
    assert!(early.flags.contains(SYN) && early.ack == 6, "{early:?}");
    let id = peer.accept(listener).unwrap();
    assert!(!peer.ready(id).has(Ready::CLOSED));
    peer.say_syn(says(0b011), SYN);
    assert!(peer.answer().flags.contains(Flags::RST));
    assert!(peer.ready(id).has(Ready::CLOSED));
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::Aborted));
    peer.stack.close_listener(listener);
}

#[test]
fn an_accurate_server_that_hears_of_a_client_without_ecn_marks_nothing() {
    let mut peer = with(Ecn::Passive);
    let listener = peer.listen(80, 16);
    peer.say_syn(says(0b111), SYN);
    peer.take();
    peer.say_syn(says(0), SYN);
    assert_eq!(three(&peer.answer()), 0b010);
    peer.say(says(0b010), ACK, 1, 1, &[]);
    let id = peer.accept(listener).unwrap();
    peer.write(id, 0, 1000);
    assert_eq!(peer.answer().ecn, NOT_ECT);
}

#[test]
fn dctcp_asks_for_accurate_ecn_whatever_is_configured() {
    let mut peer = Peer::with(|config| {
        config.ecn = Ecn::Off;
        config.congestion = Algorithm::Dctcp;
    });
    let (id, syn, _) = connected(&mut peer, says(0b001));
    assert_eq!(three(&syn), 0b111);
    peer.write(id, 0, 1000);
    assert_eq!(peer.answer().ecn, ECT_0);
}

/// RFC 8257 §3.2: with RFC 3168's bits the echo follows the marks.
#[test]
fn dctcp_echoes_marks_one_by_one() {
    for keeps_up in [false, true] {
        let mut peer = Peer::with(|config| config.congestion = Algorithm::Dctcp);
        let (id, _) = accepted(&mut peer, says(0b011), Says::default());
        peer.say(came(CE), ACK, 1, 1, &pattern(0, 1000));
        assert_eq!(three(&peer.answer()), 0b001);
        if keeps_up {
            assert_eq!(peer.read(id).len(), 1000);
        }
        peer.say(came(ECT_0), ACK, 1001, 1, &pattern(1000, 1000));
        assert_eq!(three(&peer.answer()), 0, "the application keeps up: {keeps_up}");
    }
}

/// Marks on everything, from a path that has gone mad or a peer that lies: nothing breaks, and the
/// window keeps its least size.
#[test]
fn a_peer_that_claims_marks_for_everything_slows_itself_down_only() {
    let (mut peer, id) = accurate();
    let (mut ace, mut acked, mut written) = (5u8, 1u32, 0usize);
    for _ in 0..200 {
        if written < acked as usize + 50_000 {
            peer.write(id, written, 10_000);
            written += 10_000;
        }
        let end = peer.take().iter().map(|one| one.seq + one.payload.len() as u32).max();
        let Some(end) = end else {
            peer.wait();
            continue;
        };
        ace = (ace + 7) & 7;
        let option = AccurateEcn { e0b: Some(1), ceb: Some(0xff_ffff), e1b: Some(0) };
        peer.say(Says { three: ace, ip: CE, option: Some(option) }, ACK, 1, end, &[]);
        acked = end;
        assert!(peer.window(id) >= 2000, "{}", peer.window(id));
    }
    assert_eq!(peer.state(id), State::Established);
    assert!(acked > 100_000);
}

/// A connection from a SYN cookie: the bits of the SYN-ACK, and what was agreed on.
fn from_cookie(ecn: Ecn, asks: u8, timestamps: bool, acks: u8, data: &[u8]) -> (u8, u64, u64) {
    let mut peer = Peer::with(|config| {
        config.ecn = ecn;
        config.syn_cookies = SynCookies::Always;
    });
    let listener = peer.listen(80, 16);
    peer.timestamp = timestamps.then_some(7);
    let mut syn = peer.segment(SYN, 0, 0, &[]);
    syn.options.mss(MSS);
    peer.inject(&marked(syn, says(asks)).bytes());
    assert_eq!(peer.stack.connections(), 0, "nothing is kept");
    let syn_ack = peer.answer();
    assert_eq!(syn_ack.options.accurate_ecn.is_some(), three(&syn_ack) > 1);
    peer.say(says(acks), ACK, 1, 1, data);
    let id = peer.accept(listener).expect("a connection");
    let counters = peer.stack.counters();
    let agreed = (counters.ecn_connections, counters.accurate_ecn_connections);
    // What is sent is ECN-capable where it was agreed on, and only there.
    peer.take();
    peer.write(id, 0, 1000);
    let sent = peer.take();
    assert!(!sent.is_empty());
    assert!(sent.iter().all(|segment| (segment.ecn == ECT_0) == (agreed != (0, 0))), "{sent:?}");
    (three(&syn_ack), agreed.0, agreed.1)
}

#[test]
fn cookies_keep_it() {
    for (ecn, asks, timestamps, acks, data, wanted) in [
        // RFC 3168 needs the timestamp's bit.
        (Ecn::Passive, 0b011, true, 0, &b""[..], (0b001, 1, 0)),
        (Ecn::Passive, 0b011, true, 0, b"x", (0b001, 1, 0)),
        (Ecn::Passive, 0b011, false, 0, b"", (0, 0, 0)),
        // Accurate ECN shows in the acknowledgement, or in what a lost one leaves.
        (Ecn::Passive, 0b111, true, 0b010, b"", (0b010, 0, 1)),
        (Ecn::Passive, 0b111, true, 0b101, b"x", (0b010, 0, 1)),
        (Ecn::Passive, 0b111, false, 0b010, b"", (0b010, 0, 1)),
        (Ecn::Passive, 0b111, false, 0b101, b"x", (0b010, 0, 0)),
        // Nothing was asked for, or nothing is granted.
        (Ecn::Passive, 0, true, 0, b"", (0, 0, 0)),
        (Ecn::Off, 0b011, true, 0, b"", (0, 0, 0)),
        (Ecn::Off, 0b111, true, 0b010, b"", (0, 0, 0)),
    ] {
        let got = from_cookie(ecn, asks, timestamps, acks, data);
        assert_eq!(got, wanted, "{ecn:?} {asks:03b} {timestamps} {acks:03b} {data:?}");
    }
}
