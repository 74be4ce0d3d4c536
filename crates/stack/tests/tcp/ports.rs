//! Ports that `connect` chooses (RFC 6056).

use core::net::SocketAddr;
use std::collections::HashSet;
use std::io::ErrorKind;

use crate::common::craft::{PEER_IP, STACK_IP};
use crate::common::peer::{ACK, FIN, MSS, Peer, SYN};
use millrace_stack::{State, TimeWaitReuse};

fn to(port: u16) -> SocketAddr {
    SocketAddr::new(PEER_IP.into(), port)
}

#[test]
fn they_are_within_the_range_and_all_different() {
    let mut peer = Peer::with(|config| config.ephemeral_ports = 40_000..=40_031);
    let mut seen = HashSet::new();
    for _ in 0..32 {
        peer.connect();
        assert!((40_000..=40_031).contains(&peer.flow.stack_port));
        assert!(seen.insert(peer.flow.stack_port));
        peer.take();
    }
    let error = peer.stack.connect(to(5000), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    assert!(error.to_string().contains("40000") && error.to_string().contains("40031"), "{error}");
    // Another destination has them all again.
    peer.flow.peer_port = 5001;
    peer.connect();
    peer.take();
}

#[test]
fn the_first_one_cannot_be_foreseen_without_the_secret() {
    let port = |seed: u64, destination: u16| {
        let mut peer = Peer::with(|config| config.seed = [seed, 2, 3, 4]);
        peer.flow.peer_port = destination;
        peer.connect();
        peer.take();
        peer.flow.stack_port
    };
    assert_ne!(port(1, 5000), port(2, 5000));
    assert_ne!(port(1, 5000), port(1, 5001));
    assert_eq!(port(1, 5000), port(1, 5000));
}

#[test]
fn a_port_in_time_wait_is_used_only_when_no_other_is_left() {
    let mut peer = Peer::with(|config| {
        config.ephemeral_ports = 40_000..=40_001;
        config.time_wait_reuse = TimeWaitReuse::Always;
    });
    let id = peer.connected();
    peer.close(id);
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.expect_ack(2);
    let (waiting, old) = (peer.flow.stack_port, peer.flow.iss);
    peer.connect();
    peer.take();
    assert_ne!(peer.flow.stack_port, waiting);
    let again = peer.connect();
    peer.expect(SYN);
    assert_eq!(peer.flow.stack_port, waiting);
    assert_eq!(peer.stack.counters().time_wait_reused, 1);
    assert!((peer.flow.iss.wrapping_sub(old) as i32) > 2, "numbers go on");
    peer.send_syn(SYN | ACK, Some(MSS), None);
    peer.expect_ack(1);
    assert_eq!(peer.state(again), State::Established);
    let _ = ACK;
}

#[test]
fn a_named_port_that_is_in_use_is_refused() {
    let mut peer = Peer::new();
    let local = SocketAddr::new(STACK_IP.into(), 4000);
    let first = peer.stack.connect(to(5000), Some(local)).unwrap();
    let error = peer.stack.connect(to(5000), Some(local)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("4000"), "{error}");
    assert!(error.to_string().contains("there is a connection"), "{error}");
    let second = peer.stack.connect(to(5001), Some(local)).unwrap();
    for id in [first, second] {
        peer.stack.close(id);
    }
    peer.listen(4000, 1);
    let error = peer.stack.connect(to(5000), Some(local)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("by a listener"), "{error}");
}

#[test]
fn a_named_port_in_time_wait_is_refused_for_that_reason() {
    let mut peer = Peer::new();
    let id = peer.connected();
    peer.close(id);
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.expect_ack(2);
    let local = SocketAddr::new(STACK_IP.into(), peer.flow.stack_port);
    let error = peer.stack.connect(to(peer.flow.peer_port), Some(local)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("TIME-WAIT"), "{error}");
}

#[test]
fn destinations_that_no_connection_can_have_are_refused() {
    let mut peer = Peer::new();
    let mut refused = |text: &str| peer.stack.connect(text.parse().unwrap(), None).unwrap_err();
    assert_eq!(refused("192.0.2.2:0").kind(), ErrorKind::InvalidInput);
    assert_eq!(refused("192.0.2.1:80").kind(), ErrorKind::AddrNotAvailable);
    assert_eq!(refused("192.0.2.255:80").kind(), ErrorKind::InvalidInput);
    assert!(matches!(
        refused("255.255.255.255:80").kind(),
        ErrorKind::InvalidInput | ErrorKind::NetworkUnreachable
    ));
    assert!(matches!(
        refused("224.0.0.1:80").kind(),
        ErrorKind::InvalidInput | ErrorKind::NetworkUnreachable
    ));
    assert_eq!(refused("198.51.100.1:80").kind(), ErrorKind::NetworkUnreachable);
    assert_eq!(refused("[2001:db8::1]:80").kind(), ErrorKind::NetworkUnreachable);
}

#[test]
fn a_full_table_is_an_error() {
    let mut peer = Peer::with(|config| config.connections = 2);
    peer.connect();
    peer.connect();
    peer.take();
    let error = peer.stack.connect(to(5000), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
    assert!(error.to_string().contains('2'), "{error}");
}
