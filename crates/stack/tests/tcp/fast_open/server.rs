//! Who listens: cookies that are given and asked for, and connections that are told of before their
//! handshake has ended.

use core::net::SocketAddr;

use millrace_frames::{Duration, RxBatch};
use millrace_stack::{Config, Failure, ListenOptions, ListenerId, Ready, State, SynCookies};
use millrace_wire::icmpv4::unreachable;
use millrace_wire::tcp::FastOpen;

use crate::common::craft::{self, PEER_IP, STACK_IP, TcpSegment};
use crate::common::peer::{ACK, FIN, MSS, Peer, RST, SYN, pattern};

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
