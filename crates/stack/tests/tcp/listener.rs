//! Listeners: their queues and bounds (RFC 9293 §3.9.1, §3.10.7.2).

use core::net::{Ipv4Addr, SocketAddr};
use millrace_stack::{Event, Failure, InterfaceAddress, Ready, State, SynCookies};

use crate::common::craft::{STACK_IP, TcpSegment};
use crate::common::peer::{ACK, MSS, Peer, RST, SYN};

fn handshake(peer: &mut Peer, port: u16) {
    peer.flow.peer_port = port;
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
    peer.send(ACK, 1, 1, &[]);
}

#[test]
fn half_open_connections_are_bounded() {
    let mut peer = Peer::with(|config| {
        config.syn_queue = 3;
        config.syn_cookies = SynCookies::Off;
    });
    peer.listen(80, 8);
    for port in 6000..6005 {
        peer.flow.peer_port = port;
        peer.send_syn(SYN, None, None);
    }
    assert_eq!(peer.take().len(), 3);
    assert_eq!(peer.stack.counters().drop_listen_syn_queue_full, 2);
    // One that completes makes room.
    peer.flow.peer_port = 6002;
    peer.send_syn(SYN, None, None);
    peer.expect(SYN | ACK);
    peer.send(ACK, 1, 1, &[]);
    peer.flow.peer_port = 6004;
    peer.send_syn(SYN, None, None);
    peer.expect(SYN | ACK);
}

#[test]
fn the_accept_queue_is_bounded_and_in_order() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 2);
    handshake(&mut peer, 6000);
    handshake(&mut peer, 6001);
    peer.flow.peer_port = 6002;
    peer.send_syn(SYN, None, None);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_listen_accept_queue_full, 1);
    for port in [6000, 6001] {
        let id = peer.accept(listener).unwrap();
        assert_eq!(peer.stack.info(id).unwrap().remote.port(), port);
    }
    assert_eq!(peer.accept(listener), None);
    handshake(&mut peer, 6002);
    assert!(peer.accept(listener).is_some());
}

#[test]
fn a_connection_that_finds_the_accept_queue_full_waits_half_open() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 1);
    peer.flow.peer_port = 6000;
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
    let waiting = peer.flow;
    // Another fills the queue in between. The backlog counts half-open ones apart, so it must
    // first make room.
    peer.send(ACK, 1, 1, &[]);
    peer.flow.peer_port = 6001;
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect_silence();
    let first = peer.accept(listener).unwrap();
    assert_eq!(peer.stack.info(first).unwrap().remote.port(), waiting.peer_port);
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
}

#[test]
fn accepting_is_told_until_the_queue_is_empty() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 8);
    for port in 6000..6003 {
        handshake(&mut peer, port);
    }
    // Told once, and not again and again to somebody who has no room.
    assert_eq!(peer.events(), [Event::Accept(listener)]);
    peer.accept(listener).unwrap();
    assert_eq!(peer.events(), [Event::Accept(listener)]);
    peer.accept(listener).unwrap();
    peer.accept(listener).unwrap();
    assert_eq!(peer.events(), []);
    handshake(&mut peer, 6003);
    assert_eq!(peer.events(), [Event::Accept(listener)]);
}

#[test]
fn a_connection_reset_before_it_was_accepted_leaves_the_queue() {
    for victim in [6000, 6001, 6002] {
        let mut peer = Peer::new();
        let listener = peer.listen(80, 8);
        for port in 6000..6003 {
            handshake(&mut peer, port);
        }
        peer.flow.peer_port = victim;
        peer.send(RST, 1, 0, &[]);
        let left: Vec<u16> = (6000..6003).filter(|&port| port != victim).collect();
        for port in left {
            let id = peer.accept(listener).unwrap();
            assert_eq!(peer.stack.info(id).unwrap().remote.port(), port);
        }
        assert_eq!(peer.accept(listener), None);
        handshake(&mut peer, 6005);
        assert!(peer.accept(listener).is_some());
    }
}

#[test]
fn a_reset_does_not_take_data_that_was_acknowledged() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 8);
    handshake(&mut peer, 6000);
    peer.send(ACK, 1, 1, b"acknowledged");
    peer.send(RST, 13, 0, &[]);
    peer.take();
    let id = peer.accept(listener).expect("a connection with data");
    assert!(peer.ready(id).has(Ready::CLOSED));
    assert_eq!(peer.read(id), b"acknowledged");
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::Reset));
}

#[test]
fn closing_resets_what_was_not_accepted_and_keeps_what_was() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 8);
    handshake(&mut peer, 6000);
    let kept = peer.accept(listener).unwrap();
    handshake(&mut peer, 6001);
    peer.flow.peer_port = 6002;
    peer.send_syn(SYN, None, None);
    peer.expect(SYN | ACK);
    peer.stack.close_listener(listener);
    let resets = peer.take();
    assert_eq!(resets.len(), 2);
    assert!(resets.iter().all(|segment| segment.flags.contains(RST)));
    assert_eq!(peer.stack.connections(), 1);
    assert_eq!(peer.state(kept), State::Established);
    assert_eq!(peer.events(), []);
    assert!(peer.stack.accept(listener).is_err());
    peer.flow.peer_port = 6003;
    peer.send(SYN, 0, 0, &[]);
    peer.expect(RST | ACK);
}

#[test]
fn a_place_that_was_closed_is_used_again_under_another_id() {
    let mut peer = Peer::with(|config| config.listeners = 1);
    let first = peer.listen(80, 1);
    let error = peer.stack.listen(SocketAddr::new(STACK_IP.into(), 81), 1).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded);
    peer.stack.close_listener(first);
    let second = peer.listen(81, 1);
    assert_ne!(first, second);
    assert!(peer.stack.accept(first).is_err());
    assert_eq!(peer.stack.listener_address(second).unwrap().port(), 81);
}

#[test]
fn addresses_that_cannot_be_listened_on_are_named() {
    use std::io::ErrorKind;
    let mut peer = Peer::new();
    peer.listen(80, 1);
    let mut refused = |ip: Ipv4Addr, port, backlog| {
        peer.stack.listen(SocketAddr::new(ip.into(), port), backlog).unwrap_err()
    };
    let taken = refused(STACK_IP, 80, 1);
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    assert!(taken.to_string().contains("192.0.2.1:80"), "{taken}");
    let foreign = refused(Ipv4Addr::new(192, 0, 2, 9), 81, 1);
    assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
    assert!(foreign.to_string().contains("192.0.2.9") && foreign.to_string().contains("192.0.2.1"));
    assert_eq!(refused(STACK_IP, 0, 1).kind(), ErrorKind::InvalidInput);
    assert_eq!(refused(STACK_IP, 81, 0).kind(), ErrorKind::InvalidInput);
}

#[test]
fn the_listener_of_the_address_comes_before_the_one_of_any() {
    let other = Ipv4Addr::new(192, 0, 2, 7);
    let mut peer = Peer::with(|config| {
        config.addresses.push(InterfaceAddress { address: other.into(), prefix: 24 });
    });
    let any = peer.stack.listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 80), 4).unwrap();
    let own = peer.listen(80, 4);
    peer.send_syn(SYN, None, None);
    peer.expect(SYN | ACK);
    peer.send(ACK, 1, 1, &[]);
    assert_eq!(peer.events(), [Event::Accept(own)]);
    peer.accept(own).unwrap();
    // The other address goes to the one of any.
    let segment = TcpSegment { destination: (other, 80), ..peer.segment(SYN, 0, 0, &[]) };
    peer.inject(&segment.bytes());
    let answer = peer.expect(SYN | ACK);
    assert_eq!(answer.source.0, other);
    let mut ack = peer.segment(ACK, 1, 1, &[]);
    ack.destination.0 = other;
    let ack = ack.bytes();
    peer.inject(&ack);
    assert_eq!(peer.events(), [Event::Accept(any)]);
    peer.stack.close_listener(any);
    peer.take();
}
