//! ARP (RFC 826, RFC 5227) and the neighbour cache (RFC 1122 §2.3.2).

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use millrace_stack::{Config, Failure, Ready, State};
use millrace_wire::arp::Operation;
use millrace_wire::mac::Mac;

use crate::common::config;
use crate::common::craft::{PEER_IP, PEER_MAC, Packet, STACK_IP, STACK_MAC, arp_packet};
use crate::common::peer::{ACK, MSS, Peer, SYN};

const NOBODY: Mac = Mac([0; 6]);
const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn stranger(change: impl FnOnce(&mut Config)) -> Peer {
    let mut config = config();
    config.neighbour_reachable = Duration::from_secs(60);
    change(&mut config);
    Peer::stranger(config, 512)
}

fn reply() -> Vec<u8> {
    arp_packet(Operation::Reply, (PEER_MAC, PEER_IP), (STACK_MAC, STACK_IP))
}

#[track_caller]
fn expect_request(peer: &mut Peer, to: Mac, wanted: Ipv4Addr) {
    let packet = peer.next_packet();
    let expected = Packet::Arp {
        to,
        operation: Operation::Request,
        sender: (STACK_MAC, STACK_IP),
        target: (NOBODY, wanted),
    };
    assert_eq!(packet, Some(expected));
}

/// Runs what is due without letting time pass.
fn act(peer: &mut Peer) {
    peer.advance(Duration::ZERO);
}

#[test]
fn a_request_for_us_is_answered_to_whom_it_came_from() {
    let mut peer = stranger(|_| {});
    peer.inject(&arp_packet(Operation::Request, (PEER_MAC, PEER_IP), (NOBODY, STACK_IP)));
    let expected = Packet::Arp {
        to: PEER_MAC,
        operation: Operation::Reply,
        sender: (STACK_MAC, STACK_IP),
        target: (PEER_MAC, PEER_IP),
    };
    assert_eq!(peer.next_packet(), Some(expected));
    // And whoever asks for us will hear from us: no question is needed.
    peer.connect();
    peer.expect(SYN);
    assert_eq!(peer.stack.counters().arp_requests_sent, 0);
}

#[test]
fn requests_for_others_are_no_business_of_ours() {
    let mut peer = stranger(|_| {});
    let other = Ipv4Addr::new(192, 0, 2, 77);
    peer.inject(&arp_packet(Operation::Request, (PEER_MAC, PEER_IP), (NOBODY, other)));
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_arp_not_ours, 1);
    // Nothing was learnt from it either.
    peer.connect();
    act(&mut peer);
    expect_request(&mut peer, Mac::BROADCAST, PEER_IP);
    peer.advance_ms(10_000);
    while peer.next_packet().is_some() {}
}

#[test]
fn a_probe_is_answered_and_teaches_nothing() {
    let mut peer = stranger(|_| {});
    let nobody = Ipv4Addr::UNSPECIFIED;
    peer.inject(&arp_packet(Operation::Request, (PEER_MAC, nobody), (NOBODY, STACK_IP)));
    let expected = Packet::Arp {
        to: PEER_MAC,
        operation: Operation::Reply,
        sender: (STACK_MAC, STACK_IP),
        target: (PEER_MAC, nobody),
    };
    assert_eq!(peer.next_packet(), Some(expected));
}

#[test]
fn a_claim_to_our_address_is_answered_once_an_interval() {
    let mut peer = stranger(|_| {});
    // Our own frame come back is none.
    peer.inject(&arp_packet(Operation::Request, (STACK_MAC, STACK_IP), (NOBODY, STACK_IP)));
    peer.expect_silence();
    for operation in [Operation::Request, Operation::Reply] {
        peer.inject(&arp_packet(operation, (OTHER_MAC, STACK_IP), (NOBODY, STACK_IP)));
    }
    assert_eq!(peer.stack.counters().address_conflicts, 2);
    expect_request(&mut peer, Mac::BROADCAST, STACK_IP);
    peer.expect_silence();
    // An address that was configured is kept, however often another host claims it.
    let claim = arp_packet(Operation::Request, (OTHER_MAC, STACK_IP), (NOBODY, STACK_IP));
    peer.advance_ms(9_999);
    peer.inject(&claim);
    peer.expect_silence();
    peer.advance_ms(1);
    peer.inject(&claim);
    expect_request(&mut peer, Mac::BROADCAST, STACK_IP);
    peer.expect_silence();
    assert_eq!(peer.stack.addresses().count(), 1);
}

#[test]
fn announcing_asks_for_our_own_address() {
    let mut peer = stranger(|_| {});
    peer.stack.announce();
    expect_request(&mut peer, Mac::BROADCAST, STACK_IP);
    peer.expect_silence();
}

#[test]
fn the_first_packets_wait_for_the_answer_in_order() {
    let mut peer = stranger(|_| {});
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    let remote = SocketAddr::new(PEER_IP.into(), 7);
    for text in ["one", "two", "three"] {
        peer.stack.send_datagram(socket, text.as_bytes(), Some(remote)).unwrap();
    }
    peer.collect();
    act(&mut peer);
    expect_request(&mut peer, Mac::BROADCAST, PEER_IP);
    peer.expect_silence();
    peer.inject(&reply());
    for text in ["one", "two", "three"] {
        match peer.next_packet() {
            Some(Packet::Udp { to, payload, .. }) => {
                assert_eq!((to, payload), (PEER_MAC, text.into()));
            }
            other => panic!("{other:?}"),
        }
    }
    peer.expect_silence();
}

/// RFC 1122 §2.3.2.2: the latest packet is to be kept.
#[test]
fn the_oldest_packets_make_way_when_too_many_wait() {
    let mut peer = stranger(|config| config.neighbour_queue = 2);
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    let remote = SocketAddr::new(PEER_IP.into(), 7);
    for number in 0..5 {
        peer.stack.send_datagram(socket, &[number], Some(remote)).unwrap();
        peer.collect();
    }
    assert_eq!(peer.stack.counters().drop_neighbour_queue_full, 3);
    act(&mut peer);
    expect_request(&mut peer, Mac::BROADCAST, PEER_IP);
    peer.inject(&reply());
    for number in 3..5 {
        let packet = peer.next_packet();
        assert!(matches!(&packet, Some(Packet::Udp { payload, .. }) if payload[..] == [number]));
    }
    peer.expect_silence();
    peer.finish();
}

/// What is left of a datagram without one of its fragments is of no use.
#[test]
fn a_datagram_makes_way_with_all_its_fragments() {
    let mut peer = stranger(|config| config.neighbour_queue = 2);
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    let remote = SocketAddr::new(PEER_IP.into(), 7);
    for len in [5000, 1, 2] {
        peer.stack.send_datagram(socket, &vec![7; len], Some(remote)).unwrap();
        peer.collect();
    }
    assert_eq!(peer.stack.counters().drop_neighbour_queue_full, 4);
    // One that is longer than the queue is waits whole, and alone.
    peer.stack.send_datagram(socket, &[7; 5000], Some(remote)).unwrap();
    peer.collect();
    assert_eq!(peer.stack.counters().drop_neighbour_queue_full, 5);
    act(&mut peer);
    expect_request(&mut peer, Mac::BROADCAST, PEER_IP);
    peer.inject(&reply());
    assert!(matches!(peer.next_packet(), Some(Packet::Udp { payload, .. }) if payload.len() == 2));
    for _ in 0..4 {
        assert!(matches!(peer.next_packet(), Some(Packet::Fragment(_))));
    }
    peer.expect_silence();
    peer.finish();
}

/// With no room at all, nothing waits.
#[test]
fn without_a_queue_nothing_waits() {
    let mut peer = stranger(|config| config.neighbour_queue = 0);
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    peer.stack.send_datagram(socket, b"x", Some(SocketAddr::new(PEER_IP.into(), 7))).unwrap();
    peer.collect();
    assert_eq!(peer.stack.counters().drop_neighbour_queue_full, 1);
    act(&mut peer);
    expect_request(&mut peer, Mac::BROADCAST, PEER_IP);
    peer.inject(&reply());
    peer.expect_silence();
    peer.finish();
}

#[test]
fn it_asks_once_a_second_and_then_gives_up() {
    let mut peer = stranger(|_| {});
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    peer.stack.send_datagram(socket, b"x", Some(SocketAddr::new(PEER_IP.into(), 7))).unwrap();
    peer.collect();
    act(&mut peer);
    expect_request(&mut peer, Mac::BROADCAST, PEER_IP);
    for _ in 0..2 {
        peer.advance_ms(999);
        peer.expect_silence();
        peer.advance_ms(1);
        expect_request(&mut peer, Mac::BROADCAST, PEER_IP);
    }
    peer.advance_ms(1000);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_neighbour_unreachable, 1);
    assert_eq!(peer.stack.next_deadline(), None);
}

#[test]
fn a_neighbour_that_does_not_answer_fails_the_connect() {
    let mut peer = stranger(|_| {});
    let id = peer.connect();
    peer.advance_ms(2_900);
    assert_eq!(peer.state(id), State::SynSent);
    peer.advance_ms(200);
    assert_eq!(peer.ready(id), Ready::CLOSED);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::HostUnreachable));
    while peer.next_packet().is_some() {}
}

#[test]
fn a_connect_goes_on_with_the_answer() {
    let mut peer = stranger(|_| {});
    let id = peer.connect();
    act(&mut peer);
    expect_request(&mut peer, Mac::BROADCAST, PEER_IP);
    peer.inject(&reply());
    let syn = peer.expect(SYN);
    assert_eq!(syn.to, PEER_MAC);
    peer.send_syn(SYN | ACK, Some(MSS), None);
    peer.expect_ack(1);
    assert_eq!(peer.state(id), State::Established);
}

#[test]
fn whoever_opens_a_connection_is_known_without_a_question() {
    let mut peer = stranger(|_| {});
    peer.listen(80, 1);
    peer.send_syn(SYN, Some(MSS), None);
    assert_eq!(peer.expect(SYN | ACK).to, PEER_MAC);
    assert_eq!(peer.stack.counters().arp_requests_sent, 0);
}

#[test]
fn an_old_entry_is_used_while_it_is_asked_for_again() {
    let mut peer = stranger(|_| {});
    peer.introduce();
    let id = peer.accepted();
    peer.advance_ms(61_000);
    peer.expect_silence();
    peer.write(id, 0, 10);
    assert_eq!(peer.expect_data(1, 10).to, PEER_MAC);
    act(&mut peer);
    // Of itself alone (RFC 1122 §2.3.2.1, unicast poll).
    expect_request(&mut peer, PEER_MAC, PEER_IP);
    peer.inject(&reply());
    peer.send(ACK, 1, 11, &[]);
    peer.advance_ms(50_000);
    peer.expect_silence();
}

#[test]
fn an_entry_nobody_uses_is_not_asked_for() {
    let mut peer = stranger(|_| {});
    peer.introduce();
    peer.advance_ms(1_000_000);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().arp_requests_sent, 0);
}

#[test]
fn a_neighbour_with_a_new_card_is_found_again() {
    let mut peer = stranger(|_| {});
    peer.introduce();
    let id = peer.accepted();
    // It tells everybody.
    peer.inject(&arp_packet(Operation::Request, (OTHER_MAC, PEER_IP), (NOBODY, PEER_IP)));
    peer.write(id, 0, 10);
    assert_eq!(peer.expect_data(1, 10).to, OTHER_MAC);
}

#[test]
fn a_dead_neighbour_of_a_live_connection_is_asked_for_until_the_connection_ends() {
    let mut peer = stranger(|config| config.retries = 6);
    peer.introduce();
    let id = peer.accepted();
    peer.advance_ms(61_000);
    peer.write(id, 0, 10);
    peer.advance_ms(100_000);
    let mut asked_all = 0;
    while let Some(packet) = peer.next_packet() {
        asked_all += usize::from(matches!(packet, Packet::Arp { to: Mac::BROADCAST, .. }));
    }
    assert!(asked_all > 0);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::TimedOut));
}

#[test]
fn malformed_packets_are_counted() {
    let mut peer = stranger(|_| {});
    let good = arp_packet(Operation::Request, (PEER_MAC, PEER_IP), (NOBODY, STACK_IP));
    peer.inject(&good[..30]);
    let mut hardware = good.clone();
    hardware[15] = 6;
    peer.inject(&hardware);
    let group = Mac([3, 0, 0, 0, 0, 1]);
    let mut sender = arp_packet(Operation::Request, (group, PEER_IP), (NOBODY, STACK_IP));
    sender[6..12].copy_from_slice(&PEER_MAC.0);
    peer.inject(&sender);
    let broadcast = Ipv4Addr::BROADCAST;
    peer.inject(&arp_packet(Operation::Request, (PEER_MAC, broadcast), (NOBODY, STACK_IP)));
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_arp_malformed, 4);
}

#[test]
fn a_full_cache_of_questions_drops_and_counts_once() {
    let mut peer = stranger(|config| config.neighbours = 2);
    for host in 10..13 {
        let remote = SocketAddr::new(Ipv4Addr::new(192, 0, 2, host).into(), 80);
        let id = peer.stack.connect(remote, None).unwrap();
        peer.collect();
        if host == 12 {
            assert_eq!(peer.stack.counters().drop_neighbour_cache_full, 1);
            assert_eq!(peer.stack.counters().dropped(), 1);
        }
        peer.stack.close(id);
    }
    peer.advance_ms(10_000);
    while peer.next_packet().is_some() {}
}

#[test]
fn other_networks_are_reached_by_the_gateway() {
    let gateway = Ipv4Addr::new(192, 0, 2, 254);
    let mut peer = stranger(|config| config.gateway = Some(gateway.into()));
    let remote = SocketAddr::new(Ipv4Addr::new(198, 51, 100, 1).into(), 80);
    let id = peer.stack.connect(remote, None).unwrap();
    peer.collect();
    act(&mut peer);
    expect_request(&mut peer, Mac::BROADCAST, gateway);
    peer.inject(&arp_packet(Operation::Reply, (OTHER_MAC, gateway), (STACK_MAC, STACK_IP)));
    match peer.next_packet() {
        Some(Packet::Tcp(segment)) => {
            assert_eq!(
                (segment.to, segment.destination.0),
                (OTHER_MAC, Ipv4Addr::new(198, 51, 100, 1))
            );
        }
        other => panic!("{other:?}"),
    }
    peer.stack.close(id);
}
