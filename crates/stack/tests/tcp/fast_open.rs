//! Fast Open (RFC 7413), the server's side and the client's.

use core::net::SocketAddr;
use millrace_frames::{Duration, RxBatch};
use millrace_wire::icmpv4::unreachable;
use millrace_wire::tcp::{FastOpen, Flags, OptionWriter};

use crate::common::craft::{self, PEER_IP, STACK_IP, Segment, TcpSegment};
use crate::common::peer::{ACK, FIN, MSS, PSH, Peer, RST, SYN, pattern};
use millrace_stack::{
    Config, ConnectionId, Failure, FastOpenConfig, ListenOptions, ListenerId, Ready, State,
    SynCookies,
};

// The server.

fn serving(most: u32, change: impl FnOnce(&mut Config)) -> (Peer, ListenerId) {
    let mut peer = Peer::with(change);
    let options = ListenOptions { fast_open: most, ..ListenOptions::new(8) };
    let id = peer.stack.listen_with(SocketAddr::new(STACK_IP.into(), 80), options).unwrap();
    (peer, id)
}

/// Sends a SYN with a cookie, or what there is instead, and data.
fn syn(peer: &mut Peer, cookie: Option<&FastOpen>, experiment: bool, data: &[u8]) {
    let mut segment = peer.segment(SYN, 0, 0, data);
    segment.options.mss(MSS);
    match cookie {
        Some(cookie) if experiment => {
            segment.options.fast_open_experiment(cookie);
        }
        Some(cookie) => {
            segment.options.fast_open(cookie);
        }
        None => {}
    }
    let bytes = segment.bytes();
    peer.inject(&bytes);
}

/// Asks for a cookie and goes away.
fn ask(peer: &mut Peer) -> FastOpen {
    let port = core::mem::replace(&mut peer.flow.peer_port, 4999);
    syn(peer, Some(&FastOpen::REQUEST), false, &[]);
    let answer = peer.expect(SYN | ACK);
    assert_eq!(answer.ack, 1);
    peer.send(RST, 1, 1, &[]);
    peer.flow.peer_port = port;
    answer.options.fast_open.expect("a cookie")
}

#[test]
fn a_cookie_is_given_to_who_asks_and_a_syn_with_it_opens_at_once() {
    let (mut peer, listener) = serving(4, |_| {});
    let cookie = ask(&mut peer);
    assert_eq!(cookie.cookie().len(), 8);
    syn(&mut peer, Some(&cookie), false, &pattern(0, 500));
    let answer = peer.expect(SYN | ACK);
    assert_eq!((answer.ack, answer.options.fast_open), (501, None));
    let id = peer.accept(listener).expect("a connection before its handshake");
    assert_eq!(peer.state(id), State::SynReceived);
    assert!(peer.ready(id).has(Ready::READABLE));
    assert_eq!(peer.read(id), pattern(0, 500));
    // The answer does not wait either.
    peer.write(id, 0, 2000);
    peer.expect_data(1, 1000);
    peer.expect_data(1001, 1000);
    peer.send(ACK, 501, 2001, &[]);
    assert_eq!(peer.state(id), State::Established);
    assert_eq!(peer.stack.info(id).unwrap().in_flight, 0);
    assert_eq!(peer.stack.counters().fast_open_passive, 1);
    assert_eq!(peer.stack.counters().connections_accepted, 1);
    peer.stack.close_listener(listener);
}

#[test]
fn the_window_of_the_syn_ack_is_kept() {
    let (mut peer, listener) = serving(4, |config| config.receive_buffer = 65_536);
    let cookie = ask(&mut peer);
    syn(&mut peer, Some(&cookie), false, &pattern(0, 500));
    assert_eq!(peer.expect(SYN | ACK).window, 65_535);
    let id = peer.accept(listener).expect("a connection before its handshake");
    peer.write(id, 0, 100);
    // Nothing has come since, so the edge is where it was.
    assert_eq!(peer.expect_data(1, 100).window, 65_535);
    peer.send(ACK, 501, 101, &[]);
    // Its last byte is taken.
    let last = peer.segment(ACK, 500 + 65_535, 101, b"x").bytes();
    peer.inject(&last);
    assert_eq!(peer.stack.counters().drop_tcp_outside_window, 0);
    assert_eq!(peer.stack.counters().out_of_order, 1);
}

#[test]
fn without_a_listener_that_wants_it_nothing_is_different() {
    for (most, server) in [(0, true), (4, false)] {
        let (mut peer, listener) = serving(most, |config| config.fast_open.server = server);
        syn(&mut peer, Some(&FastOpen::REQUEST), false, b"data");
        let answer = peer.expect(SYN | ACK);
        assert_eq!((answer.ack, answer.options.fast_open), (1, None));
        peer.stack.close_listener(listener);
        peer.take();
    }
}

#[test]
fn a_wrong_cookie_gets_the_right_one_and_the_data_waits() {
    let (mut peer, listener) = serving(4, |_| {});
    let cookie = ask(&mut peer);
    let mut other = cookie.cookie().to_vec();
    other[7] ^= 1;
    for wrong in [&other[..], &other[..4], &[1; 16]] {
        peer.flow.peer_port += 1;
        syn(&mut peer, FastOpen::new(wrong).as_ref(), false, &pattern(0, 10));
        let answer = peer.expect(SYN | ACK);
        assert_eq!((answer.ack, answer.options.fast_open), (1, Some(cookie)));
        assert_eq!(peer.accept(listener), None);
    }
    assert_eq!(peer.stack.counters().fast_open_cookies_wrong, 3);
    peer.send(ACK, 1, 1, &pattern(0, 10));
    let id = peer.accept(listener).unwrap();
    assert_eq!(peer.read(id), pattern(0, 10));
    peer.stack.close_listener(listener);
    peer.take();
}

#[test]
fn the_experimental_form_is_answered_in_kind() {
    let (mut peer, listener) = serving(4, |_| {});
    syn(&mut peer, Some(&FastOpen::REQUEST), true, &[]);
    let answer = peer.expect(SYN | ACK);
    assert!(answer.options.fast_open_experiment);
    let cookie = answer.options.fast_open.unwrap();
    peer.flow.peer_port += 1;
    syn(&mut peer, Some(&cookie), true, b"x");
    assert_eq!(peer.expect(SYN | ACK).ack, 2);
    peer.stack.close_listener(listener);
    peer.take();
}

#[test]
fn a_cookie_is_for_one_address() {
    let (mut peer, listener) = serving(4, |_| {});
    let cookie = ask(&mut peer);
    let mut segment = peer.segment(SYN, 0, 0, b"x");
    segment.source.0 = "192.0.2.3".parse().unwrap();
    segment.options.fast_open(&cookie);
    let bytes = segment.bytes();
    peer.inject(&bytes);
    assert_eq!(peer.stack.counters().fast_open_cookies_wrong, 1);
    peer.stack.close_listener(listener);
    peer.take();
}

#[test]
fn without_cookies_where_that_is_allowed() {
    let (mut peer, listener) = serving(4, |config| config.fast_open.server_without_cookie = true);
    syn(&mut peer, None, false, b"hello");
    let answer = peer.expect(SYN | ACK);
    assert_eq!((answer.ack, answer.options.fast_open), (6, None));
    let id = peer.accept(listener).unwrap();
    assert_eq!(peer.read(id), b"hello");
    // Nothing to say is no Fast Open.
    peer.flow.peer_port += 1;
    syn(&mut peer, None, false, &[]);
    peer.expect(SYN | ACK);
    assert_eq!(peer.accept(listener), None);
    peer.stack.close_listener(listener);
    peer.take();
}

#[test]
fn no_more_may_wait_than_the_listener_wants() {
    let (mut peer, listener) = serving(2, |_| {});
    let cookie = ask(&mut peer);
    let early = |peer: &mut Peer, port| {
        peer.flow.peer_port = port;
        syn(peer, Some(&cookie), false, b"x");
        peer.expect(SYN | ACK).ack == 2
    };
    assert!(early(&mut peer, 6000) && early(&mut peer, 6001));
    assert!(!early(&mut peer, 6002));
    assert_eq!(peer.stack.counters().fast_open_overflow, 1);
    // A handshake that ends makes room...
    peer.flow.peer_port = 6001;
    peer.flow.iss = peer.flow.iss.wrapping_sub(0);
    peer.advance_ms(1100);
    let again: Vec<_> = peer.take();
    let seq = again.iter().find(|one| one.destination.1 == 6001).expect("a SYN-ACK again").seq;
    peer.flow.iss = peer.flow.iss.wrapping_add(seq);
    peer.send(ACK, 2, 1u32.wrapping_sub(0), &[]);
    peer.take();
    assert!(early(&mut peer, 6003));
    // ...a reset only after a minute (RFC 7413 §5.1).
    peer.send(RST, 2, 1, &[]);
    assert!(!early(&mut peer, 6004));
    peer.advance(Duration::from_secs(61));
    peer.take();
    assert!(early(&mut peer, 6005));
    peer.stack.close_listener(listener);
    peer.take();
}

#[test]
fn a_reset_before_it_was_accepted_leaves_the_data() {
    let (mut peer, listener) = serving(2, |_| {});
    let cookie = ask(&mut peer);
    syn(&mut peer, Some(&cookie), false, b"last words");
    peer.expect(SYN | ACK);
    peer.send(RST, 11, 1, &[]);
    let id = peer.accept(listener).expect("it is still there");
    let ready = peer.ready(id);
    assert!(ready.has(Ready::READABLE) && ready.has(Ready::CLOSED));
    assert_eq!(peer.read(id), b"last words");
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::Reset));
    peer.stack.close_listener(listener);
}

#[test]
fn closing_the_listener_resets_what_was_not_accepted() {
    let (mut peer, listener) = serving(2, |_| {});
    let cookie = ask(&mut peer);
    syn(&mut peer, Some(&cookie), false, b"data");
    peer.expect(SYN | ACK);
    peer.stack.close_listener(listener);
    let reset = peer.expect(RST | ACK);
    assert_eq!((reset.seq, reset.ack), (1, 5));
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn an_accepted_one_outlives_its_listener() {
    let (mut peer, listener) = serving(2, |config| config.listeners = 1);
    let cookie = ask(&mut peer);
    syn(&mut peer, Some(&cookie), false, b"x");
    peer.expect(SYN | ACK);
    let id = peer.accept(listener).unwrap();
    peer.stack.close_listener(listener);
    let options = ListenOptions { fast_open: 2, ..ListenOptions::new(8) };
    let next = peer.stack.listen_with(SocketAddr::new(STACK_IP.into(), 80), options).unwrap();
    peer.send(ACK, 2, 1, &[]);
    assert_eq!(peer.state(id), State::Established);
    peer.stack.close_listener(next);
}

#[test]
fn a_syn_ack_that_is_lost_comes_again_and_so_does_the_data() {
    let (mut peer, listener) = serving(2, |_| {});
    let cookie = ask(&mut peer);
    syn(&mut peer, Some(&cookie), false, b"x");
    peer.expect(SYN | ACK);
    let id = peer.accept(listener).unwrap();
    peer.write(id, 0, 1000);
    peer.expect_data(1, 1000);
    assert_eq!(peer.wait().as_millis() / 100, 10);
    assert_eq!(peer.expect(SYN | ACK).ack, 2);
    // The client's SYN again, without data or cookie.
    syn(&mut peer, None, false, &[]);
    assert_eq!(peer.expect(SYN | ACK).ack, 2);
    peer.send(ACK, 2, 1, &[]);
    peer.wait();
    peer.expect_data(1, 1000);
    peer.send(ACK, 2, 1001, &[]);
    peer.expect_silence();
    peer.stack.close_listener(listener);
}

#[test]
fn who_never_answers_is_given_up() {
    let (mut peer, listener) = serving(2, |_| {});
    let cookie = ask(&mut peer);
    syn(&mut peer, Some(&cookie), false, b"x");
    let id = peer.accept(listener).unwrap();
    peer.advance(Duration::from_secs(120));
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::TimedOut));
    peer.take();
    peer.stack.close_listener(listener);
}

#[test]
fn both_may_close_before_the_handshake_ends() {
    let (mut peer, listener) = serving(2, |_| {});
    let cookie = ask(&mut peer);
    syn(&mut peer, Some(&cookie), false, b"x");
    peer.expect(SYN | ACK);
    let id = peer.accept(listener).unwrap();
    peer.read(id);
    peer.write(id, 0, 100);
    peer.close(id);
    peer.expect_data(1, 100);
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 2, 102, &[]);
    peer.expect_ack(3);
    assert_eq!(peer.stack.time_wait_connections(), 1);
    peer.stack.close_listener(listener);
}

#[test]
fn under_a_flood_cookies_of_the_other_kind_come_first() {
    let (mut peer, listener) = serving(2, |config| config.syn_cookies = SynCookies::Always);
    syn(&mut peer, Some(&FastOpen::REQUEST), false, b"x");
    let answer = peer.expect(SYN | ACK);
    assert_eq!((answer.ack, answer.options.fast_open), (1, None));
    assert_eq!(peer.stack.connections(), 0);
    peer.stack.close_listener(listener);
}

#[test]
fn keys_of_the_configuration_and_of_the_listener() {
    let cookie_by = |keys: Vec<[u8; 16]>, own: Option<[u8; 16]>| {
        let (mut peer, listener) = serving(2, |config| config.fast_open.keys = keys);
        if let Some(own) = own {
            peer.stack.set_fast_open_keys(listener, own, None).unwrap();
        }
        let cookie = ask(&mut peer);
        peer.stack.close_listener(listener);
        cookie
    };
    let (a, b) = ([0xa1; 16], [0xb2; 16]);
    assert_eq!(cookie_by(vec![a], None), cookie_by(vec![b], Some(a)));
    assert_ne!(cookie_by(vec![a], None), cookie_by(vec![b], None));
    // The older key's cookies are believed and replaced.
    let old = cookie_by(vec![a], None);
    let (mut peer, listener) = serving(2, |config| config.fast_open.keys = vec![b, a]);
    syn(&mut peer, Some(&old), false, b"x");
    let answer = peer.expect(SYN | ACK);
    assert_eq!((answer.ack, answer.options.fast_open), (2, Some(cookie_by(vec![b], None))));
    peer.stack.close_listener(listener);
    peer.take();
}

// The client.

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

#[test]
fn an_error_does_not_end_an_early_connection_that_is_accepted() {
    let (mut peer, listener) = serving(4, |_| {});
    let cookie = ask(&mut peer);
    syn(&mut peer, Some(&cookie), false, b"hello");
    peer.expect(SYN | ACK);
    let id = peer.accept(listener).unwrap();
    peer.write(id, 0, 500);
    peer.expect_data(1, 500);
    let ours = TcpSegment {
        source: (STACK_IP, peer.flow.stack_port),
        destination: (PEER_IP, peer.flow.peer_port),
        sequence: peer.flow.iss.wrapping_add(100),
        ..TcpSegment::default()
    };
    let quote = ours.bytes()[14..14 + 28].to_vec();
    for code in [unreachable::HOST, unreachable::PORT] {
        peer.inject(&craft::unreachable(PEER_IP, code, &quote));
        assert_eq!(peer.state(id), State::SynReceived);
    }
    assert_eq!(peer.stack.counters().icmp_errors_soft, 2);
    peer.send(ACK, 6, 501, &[]);
    assert_eq!(peer.state(id), State::Established);
}

#[test]
fn an_early_connection_is_busy_for_as_long_as_its_data_waits() {
    let (mut peer, listener) = serving(4, |_| {});
    let cookie = ask(&mut peer);
    let busy = |peer: &Peer, id| peer.stack.tcp_info(id).unwrap().busy_time;
    for (port, before_the_syn_ack) in [(5001, false), (5002, true)] {
        (peer.flow.peer_port, peer.flow.iss) = (port, 0);
        let mut segment = peer.segment(SYN, 0, 0, b"hello");
        segment.options.mss(MSS).fast_open(&cookie);
        let bytes = segment.bytes();
        let mut batch = RxBatch::new();
        batch.push(peer.frame(&bytes)).unwrap();
        peer.stack.receive(peer.now, &mut batch);
        let id = peer.accept(listener).unwrap();
        assert_eq!(busy(&peer, id), 0);
        if !before_the_syn_ack {
            peer.collect();
        }
        peer.write(id, 0, 500);
        peer.advance_ms(100);
        for _ in 0..2 {
            let busy = busy(&peer, id);
            assert!((99_000..=101_000).contains(&busy), "{busy}");
            peer.send(ACK, 6, 501, &[]);
            peer.advance_ms(100);
        }
        peer.take();
    }
}
