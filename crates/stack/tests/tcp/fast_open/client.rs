//! Who connects: cookies that are kept, data that goes with the SYN, and where it does not.

use millrace_frames::Duration;
use millrace_stack::{Config, ConnectionId, FastOpenConfig, State};
use millrace_wire::tcp::{FastOpen, Flags, OptionWriter};

use crate::common::craft::{self, PEER_IP, STACK_IP, Segment, TcpSegment};
use crate::common::peer::{ACK, FIN, MSS, PSH, Peer, RST, SYN, pattern};

fn connect(peer: &mut Peer, data: &[u8]) -> (ConnectionId, Segment) {
    let id = peer.connect_with_data(data);
    let syn = peer.expect(SYN);
    (id, syn)
}

/// A SYN-ACK with a cookie.
fn answer(peer: &mut Peer, ack: u32, mss: u16, cookie: Option<&FastOpen>, data: &[u8]) {
    let mut segment = TcpSegment { ..peer.segment(SYN | ACK, 0, ack, data) };
    segment.options = OptionWriter::new();
    segment.options.mss(mss);
    if let Some(cookie) = cookie {
        segment.options.fast_open(cookie);
    }
    let bytes = segment.bytes();
    peer.inject(&bytes);
}

fn cookie() -> FastOpen {
    FastOpen::new(b"COOKIE").unwrap()
}

/// A client that has a cookie.
fn with_cookie(change: impl FnOnce(&mut Config)) -> Peer {
    let mut peer = Peer::with(change);
    let (id, syn) = connect(&mut peer, &[]);
    assert_eq!(syn.options.fast_open, Some(FastOpen::REQUEST));
    answer(&mut peer, 1, MSS, Some(&cookie()), &[]);
    peer.expect_ack(1);
    peer.stack.abort(id);
    peer.stack.release(id);
    peer.take();
    peer.flow.peer_port += 1;
    peer
}

fn exchange(peer: &mut Peer, flags: Flags, ack: u32) {
    peer.send(flags, 1, ack, &[]);
}

#[test]
fn a_cookie_is_asked_for_and_the_data_follows_the_handshake() {
    let mut peer = Peer::new();
    let (id, syn) = connect(&mut peer, &pattern(0, 500));
    assert_eq!(syn.options.fast_open, Some(FastOpen::REQUEST));
    assert!(syn.payload.is_empty());
    assert_eq!(peer.stack.fast_open_room(PEER_IP.into()), None);
    answer(&mut peer, 1, MSS, Some(&cookie()), &[]);
    peer.expect_data(1, 500);
    assert_eq!(peer.state(id), State::Established);
    assert_eq!(peer.stack.fast_open_room(PEER_IP.into()), Some(MSS - 40));
}

#[test]
fn with_a_cookie_data_goes_with_the_syn() {
    let mut peer = with_cookie(|_| {});
    let (id, syn) = connect(&mut peer, &pattern(0, 1900));
    assert_eq!(syn.options.fast_open, Some(cookie()));
    assert!(syn.payload == pattern(0, 960));
    // All of it is taken: the rest follows.
    answer(&mut peer, 961, MSS, None, &[]);
    peer.expect_data(961, 940);
    exchange(&mut peer, ACK, 1901);
    assert_eq!(peer.stack.info(id).unwrap().send_queue, 0);
    assert_eq!(peer.stack.counters().fast_open_active, 1);
    assert_eq!(peer.stack.counters().segments_retransmitted, 0);
}

#[test]
fn what_the_server_did_not_take_is_sent_again_at_once() {
    for taken in [0, 1, 100, 699] {
        let mut peer = with_cookie(|_| {});
        let (id, syn) = connect(&mut peer, &pattern(0, 700));
        assert_eq!(syn.payload.len(), 700);
        answer(&mut peer, 1 + taken, MSS, None, &[]);
        peer.expect_data(1 + taken, 700 - taken as usize);
        exchange(&mut peer, ACK, 701);
        assert_eq!(peer.stack.info(id).unwrap().send_queue, 0);
        assert_eq!(peer.stack.counters().fast_open_active_failed, 1);
    }
}

#[test]
fn what_follows_the_syns_data_is_cut_by_what_the_server_takes() {
    let mut peer = with_cookie(|_| {});
    let (_, syn) = connect(&mut peer, &pattern(0, 2960));
    assert_eq!(syn.payload.len(), 960);
    answer(&mut peer, 961, 1460, None, &[]);
    peer.expect_data(961, 1460);
    peer.expect_data(2421, 540);
}

#[test]
fn what_is_written_later_does_not_join_the_syns_data() {
    let mut peer = with_cookie(|_| {});
    let (id, _) = connect(&mut peer, &pattern(0, 300));
    peer.write(id, 300, 200);
    answer(&mut peer, 1, MSS, None, &[]);
    assert!(peer.expect_data(1, 300).flags.contains(PSH));
    peer.expect_data(301, 200);
}

#[test]
fn data_that_the_server_did_not_take_is_a_retransmission_like_any_other() {
    let mut peer = with_cookie(|config| config.tcp.pacing = false);
    let (id, syn) = connect(&mut peer, &pattern(0, 2960));
    assert_eq!(syn.payload.len(), 960);
    peer.advance_ms(20);
    peer.send_syn_sack(SYN | ACK);
    peer.expect_data(1, 960);
    peer.expect_data(961, 1000);
    peer.expect_data(1961, 1000);
    let info = peer.stack.tcp_info(id).unwrap();
    assert_eq!((info.retrans, info.total_retrans, info.bytes_retrans), (1, 1, 960));
    assert_eq!((info.unacked, info.delivered), (3, 1), "the SYN was delivered");
    // It is lost once more, and what arrived after it tells.
    peer.advance_ms(20);
    peer.send_sack(1, 1, &[(961, 2961)]);
    peer.expect_data(1, 960);
    peer.expect_silence();
    peer.send(ACK, 1, 2961, &[]);
    let info = peer.stack.tcp_info(id).unwrap();
    assert_eq!((info.retrans, info.unacked, info.delivered), (0, 0, 4));
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
}

/// A router tells that our SYN was too large.
fn syn_too_large(peer: &mut Peer, seq: u32, mtu: u16) {
    let ours = TcpSegment {
        source: (STACK_IP, peer.flow.stack_port),
        destination: (PEER_IP, peer.flow.peer_port),
        sequence: peer.flow.iss.wrapping_add(seq),
        flags: SYN,
        ..TcpSegment::default()
    };
    let quote = ours.bytes()[14..14 + 28].to_vec();
    peer.inject(&craft::fragmentation_needed(PEER_IP, mtu, &quote));
}

#[test]
fn a_syn_too_large_for_the_path_comes_again_at_once_without_data() {
    let mut peer = with_cookie(|_| {});
    let (id, syn) = connect(&mut peer, &pattern(0, 900));
    assert_eq!(syn.payload.len(), 900);
    // Whoever does not know what was sent is not believed.
    syn_too_large(&mut peer, 5000, 800);
    peer.expect_silence();
    syn_too_large(&mut peer, 0, 800);
    let again = peer.expect(SYN);
    assert_eq!((again.payload.len(), again.options.fast_open), (0, None));
    assert_eq!(again.options.mss, Some(760), "nor is the way back likely to take more");
    // Once is enough.
    syn_too_large(&mut peer, 0, 700);
    peer.expect_silence();
    answer(&mut peer, 1, MSS, None, &[]);
    peer.expect_data(1, 660);
    peer.expect_data(661, 240);
    exchange(&mut peer, ACK, 901);
    assert_eq!(peer.state(id), State::Established);
    // No more than the server takes is looked for later.
    assert_eq!(peer.stack.info(id).unwrap().mss, 660);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
}

#[test]
fn more_than_was_sent_is_not_acknowledged() {
    let mut peer = with_cookie(|_| {});
    let (id, _) = connect(&mut peer, &pattern(0, 100));
    answer(&mut peer, 102, MSS, Some(&FastOpen::new(&[9; 8]).unwrap()), &[]);
    assert_eq!(peer.expect(RST).seq, 102);
    assert_eq!(peer.state(id), State::SynSent);
    // And nothing else of it is believed.
    answer(&mut peer, 101, MSS, None, &[]);
    peer.expect_ack(1);
    peer.flow.peer_port += 1;
    let (_, syn) = connect(&mut peer, b"x");
    assert_eq!(syn.options.fast_open, Some(cookie()));
}

#[test]
fn a_syn_that_is_lost_comes_again_without_anything() {
    let mut peer = with_cookie(|_| {});
    let (id, _) = connect(&mut peer, &pattern(0, 700));
    peer.wait();
    let again = peer.expect(SYN);
    assert_eq!((again.payload.len(), again.options.fast_open), (0, None));
    answer(&mut peer, 1, MSS, None, &[]);
    peer.expect_data(1, 700);
    assert_eq!(peer.state(id), State::Established);
}

#[test]
fn where_syns_with_data_are_lost_again_and_again_they_go_without_for_a_while() {
    let mut peer = with_cookie(|_| {});
    let attempt = |peer: &mut Peer| {
        peer.flow.peer_port += 1;
        let (_, syn) = connect(peer, &pattern(0, 100));
        if syn.payload.is_empty() {
            assert_eq!(syn.options.fast_open, None);
            return false;
        }
        peer.wait();
        peer.expect(SYN);
        answer(peer, 1, MSS, None, &[]);
        peer.expect_data(1, 100);
        exchange(peer, ACK, 101);
        true
    };
    assert!(attempt(&mut peer));
    assert!(attempt(&mut peer));
    assert!(!attempt(&mut peer));
    assert_eq!(peer.stack.counters().fast_open_black_holes, 1);
    peer.take();
    peer.advance(Duration::from_secs(300));
    peer.take();
    assert!(attempt(&mut peer));
}

#[test]
fn a_server_without_it_is_asked_in_the_other_form_once() {
    let mut peer = Peer::new();
    let mut forms = Vec::new();
    for _ in 0..4 {
        peer.flow.peer_port += 1;
        let (_, syn) = connect(&mut peer, b"x");
        assert_eq!(syn.options.fast_open, Some(FastOpen::REQUEST));
        forms.push(syn.options.fast_open_experiment);
        answer(&mut peer, 1, MSS, None, &[]);
        peer.expect(ACK);
    }
    assert_eq!(forms, [false, true, false, false]);
}

#[test]
fn without_cookies_where_that_is_set() {
    let mut peer = Peer::with(|config| config.fast_open.client_without_cookie = true);
    let (_, syn) = connect(&mut peer, &pattern(0, 2000));
    assert_eq!((syn.options.fast_open, syn.payload.len()), (None, 1420));
    // What was not asked for is not kept.
    answer(&mut peer, 1421, 1000, Some(&cookie()), &[]);
    peer.expect(ACK);
    peer.flow.peer_port += 1;
    let (_, syn) = connect(&mut peer, &pattern(0, 2000));
    assert_eq!((syn.options.fast_open, syn.payload.len()), (None, 960));
}

#[test]
fn switched_off_data_waits() {
    let mut peer = Peer::with(|config| config.fast_open.client = false);
    let (_, syn) = connect(&mut peer, &pattern(0, 100));
    assert_eq!((syn.options.fast_open, syn.payload.len()), (None, 0));
    answer(&mut peer, 1, MSS, Some(&cookie()), &[]);
    peer.expect_data(1, 100);
    assert_eq!(peer.stack.fast_open_room(PEER_IP.into()), None);
}

#[test]
fn forgotten_cookies_are_asked_for_again() {
    let mut peer = with_cookie(|_| {});
    peer.stack.forget_fast_open();
    let (_, syn) = connect(&mut peer, &pattern(0, 100));
    assert_eq!(syn.options.fast_open, Some(FastOpen::REQUEST));
}

#[test]
fn data_of_a_syn_ack_is_taken() {
    let mut peer = with_cookie(|_| {});
    let (id, _) = connect(&mut peer, &pattern(0, 100));
    answer(&mut peer, 101, MSS, None, &pattern(0, 300));
    peer.expect_ack(301);
    assert_eq!(peer.read(id), pattern(0, 300));
    peer.flow.peer_port += 1;
    let (id, _) = connect(&mut peer, &[]);
    let fin = TcpSegment {
        acknowledgement: peer.flow.iss.wrapping_add(1),
        destination: (STACK_IP, peer.flow.stack_port),
        ..peer.segment(SYN | ACK | FIN, 0, 1, b"all")
    };
    peer.inject(&fin.bytes());
    peer.expect_ack(5);
    assert_eq!(peer.state(id), State::CloseWait);
    assert_eq!(peer.read(id), b"all");
}

#[test]
fn a_simultaneous_open_may_acknowledge_the_data() {
    let mut peer = with_cookie(|_| {});
    let (id, _) = connect(&mut peer, &pattern(0, 100));
    peer.send(SYN, 0, 0, b"theirs");
    assert_eq!(peer.expect(SYN | ACK).ack, 1);
    answer(&mut peer, 101, MSS, None, &[]);
    assert_eq!(peer.state(id), State::Established);
    assert_eq!(peer.stack.info(id).unwrap().send_queue, 0);
    peer.take();
}

#[test]
fn an_echo_of_no_timestamp_of_ours_is_refused() {
    let mut peer = Peer::new();
    peer.timestamp = Some(50);
    let (id, _) = connect(&mut peer, &[]);
    let right = peer.echo;
    for wrong in [right.wrapping_sub(1), right.wrapping_add(1000)] {
        peer.echo = wrong;
        peer.send_syn_sack(SYN | ACK);
        peer.expect(RST);
        assert_eq!(peer.state(id), State::SynSent);
    }
    peer.echo = right;
    peer.send_syn_sack(SYN | ACK);
    peer.expect_ack(1);
}

#[test]
fn modes_may_change_and_keys_and_cookies_stay() {
    let mut peer = with_cookie(|_| {});
    let modes = FastOpenConfig { client: false, ..FastOpenConfig::default() };
    peer.stack.set_fast_open_modes(modes.clone());
    let (_, syn) = connect(&mut peer, &pattern(0, 100));
    assert_eq!((syn.payload.len(), syn.options.fast_open), (0, None));
    peer.flow.peer_port += 1;
    peer.stack.set_fast_open_modes(FastOpenConfig { client: true, keys: vec![[9; 16]], ..modes });
    let (_, syn) = connect(&mut peer, &pattern(0, 100));
    assert_eq!((syn.payload.len(), syn.options.fast_open), (100, Some(cookie())));
    assert!(peer.stack.config().fast_open.keys.is_empty());
}
