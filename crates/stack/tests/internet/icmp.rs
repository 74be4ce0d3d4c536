//! ICMP (RFC 792, RFC 1122 §3.2.2, RFC 5927).

use core::net::{Ipv4Addr, SocketAddr};
use std::collections::HashSet;

use millrace_frames::{RxBatch, TxBatch};
use millrace_stack::{Failure, State};
use millrace_wire::icmpv4::{self, Kind, unreachable};
use millrace_wire::{checksum, ipv4};

use crate::common::craft::{
    self, PEER_IP, PEER_MAC, Packet, STACK_IP, TcpSegment, echo_request, udp_datagram,
};
use crate::common::peer::{Peer, SYN, pattern};

#[track_caller]
fn icmp(peer: &mut Peer) -> Vec<u8> {
    match peer.next_packet() {
        Some(Packet::Icmp { to, source, destination, message }) => {
            assert_eq!((to, source, destination), (PEER_MAC, STACK_IP, PEER_IP));
            message
        }
        other => panic!("expected ICMP, the stack sent {other:?}"),
    }
}

#[test]
fn echoes_of_every_size_come_back_as_they_were() {
    let mut peer = Peer::new();
    for len in (0..70).chain([555, 1000, 1001, 1471, 1472]) {
        let data = pattern(len, len);
        peer.inject(&echo_request(PEER_IP, STACK_IP, &data));
        let message = icmp(&mut peer);
        let packet = icmpv4::Packet::parse(&message).unwrap();
        assert_eq!(packet.kind(), Kind::EchoReply { identifier: 77, sequence: 3, data: &data });
    }
    assert_eq!(peer.stack.counters().echo_replies, 75);
}

/// Identification and flags of the IPv4 packet that leaves next.
fn fragment_fields(peer: &mut Peer) -> (u16, bool) {
    let mut batch = TxBatch::new();
    assert_eq!(peer.stack.transmit(peer.now, &mut batch), 1);
    let packet = batch[0];
    let ip = &peer.stack.arena().room(packet.head)[usize::from(packet.offset) + 14..];
    let ip = ipv4::Packet::parse_cut(ip).unwrap();
    let fields = (ip.identification(), ip.dont_fragment());
    peer.stack.arena_mut().transmitted(&packet);
    fields
}

/// No router is believed who says that an echo reply is too big, so each may cut it.
#[test]
fn large_echo_replies_may_be_cut_on_the_way() {
    let mut peer = Peer::new();
    let mut answered = |len| {
        let frame = peer.frame(&echo_request(PEER_IP, STACK_IP, &pattern(0, len)));
        let mut batch = RxBatch::new();
        batch.push(frame).unwrap();
        peer.stack.receive(peer.now, &mut batch);
        fragment_fields(&mut peer)
    };
    assert_eq!(answered(552 - 28), (0, true));
    let (first, second) = (answered(553 - 28), answered(1472));
    assert!(!first.1 && !second.1, "with Don't Fragment");
    assert_ne!(first.0, second.0);
}

/// One's complement has two zeros, and what is all zeros sums up to the other one.
#[test]
fn an_echo_of_zeros_has_the_right_checksum() {
    let mut peer = Peer::new();
    for len in [0, 1, 56, 3000] {
        let mut request = craft::ip_packet(PEER_IP, STACK_IP, 1, icmpv4::HEADER_LEN + len);
        icmpv4::emit_echo_request(&mut request[34..], 0, 0, &vec![0; len]);
        peer.inject(&request);
        let mut message = Vec::new();
        while let Some(packet) = peer.next_packet() {
            match packet {
                Packet::Icmp { message: whole, .. } => message = whole,
                Packet::Fragment(part) => message.extend(part.payload),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(message.len(), icmpv4::HEADER_LEN + len);
        assert!(icmpv4::Packet::parse(&message).unwrap().verify_checksum());
    }
}

#[test]
fn broadcast_echoes_are_not_answered() {
    let mut peer = Peer::new();
    for destination in [Ipv4Addr::BROADCAST, Ipv4Addr::new(192, 0, 2, 255)] {
        peer.inject(&echo_request(PEER_IP, destination, b"smurf"));
    }
    let mut by_link = echo_request(PEER_IP, STACK_IP, b"smurf");
    by_link[..6].fill(0xff);
    peer.inject(&by_link);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_icmp_ignored, 3);
}

#[test]
fn bad_messages_are_counted() {
    let mut peer = Peer::new();
    let mut flipped = echo_request(PEER_IP, STACK_IP, b"data");
    *flipped.last_mut().unwrap() ^= 1;
    peer.inject(&flipped);
    let short = craft::ip_packet(PEER_IP, STACK_IP, 1, 7);
    peer.inject(&short);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_icmp_malformed, 2);
}

#[test]
fn a_datagram_to_nobody_is_answered_with_its_beginning() {
    let mut peer = Peer::new();
    let datagram = udp_datagram((PEER_IP, 999), (STACK_IP, 7), &pattern(0, 1400));
    peer.inject(&datagram);
    let message = icmp(&mut peer);
    match icmpv4::Packet::parse(&message).unwrap().kind() {
        Kind::Unreachable { code: unreachable::PORT, quote, .. } => {
            assert_eq!(quote, &datagram[14..14 + icmpv4::MAX_QUOTE]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(peer.stack.counters().drop_udp_no_socket, 1);
    assert_eq!(peer.stack.counters().icmp_errors_sent, 1);
}

#[test]
fn an_unknown_protocol_is_answered() {
    let mut peer = Peer::new();
    peer.inject(&craft::ip_packet(PEER_IP, STACK_IP, 132, 30));
    let message = icmp(&mut peer);
    assert!(matches!(
        icmpv4::Packet::parse(&message).unwrap().kind(),
        Kind::Unreachable { code: unreachable::PROTOCOL, .. }
    ));
    assert_eq!(peer.stack.counters().drop_ip_protocol, 1);
}

#[test]
fn nothing_is_said_about_broadcasts() {
    let mut peer = Peer::new();
    peer.inject(&udp_datagram((PEER_IP, 999), (Ipv4Addr::BROADCAST, 7), b"all"));
    peer.expect_silence();
}

#[test]
fn errors_are_limited_a_second() {
    let mut peer = Peer::with(|config| config.icmp_per_second = 50);
    let errors = |peer: &mut Peer| {
        let before = peer.stack.counters().icmp_errors_sent;
        for _ in 0..100 {
            peer.inject(&udp_datagram((PEER_IP, 999), (STACK_IP, 7), b"x"));
        }
        while peer.next_packet().is_some() {}
        peer.stack.counters().icmp_errors_sent - before
    };
    let first = errors(&mut peer);
    assert!((35..65).contains(&first), "{first}");
    assert_eq!(peer.stack.counters().drop_icmp_rate, 100 - first);
    peer.advance_ms(500);
    let second = errors(&mut peer);
    assert!((15..35).contains(&second), "{second}");
}

/// Whoever uses up what may be said in a second must not see from what is left whether others heard
/// of a closed port (CVE-2020-25705).
#[test]
fn how_many_errors_a_second_takes_is_not_to_be_foreseen() {
    let mut peer = Peer::with(|config| config.icmp_per_second = 50);
    let mut seen = HashSet::new();
    let mut before = 0;
    for _ in 0..20 {
        for _ in 0..200 {
            peer.inject(&udp_datagram((PEER_IP, 999), (STACK_IP, 7), b"x"));
        }
        while peer.next_packet().is_some() {}
        let sent = peer.stack.counters().icmp_errors_sent;
        seen.insert(sent - before);
        before = sent;
        peer.advance_ms(1000);
    }
    assert!(seen.len() > 5, "{seen:?}");
    assert!((900..1100).contains(&before), "fifty a second in the mean: {before}");
}

/// The beginning of a segment that the stack is said to have sent.
fn quote(peer: &Peer, seq: u32) -> Vec<u8> {
    let segment = TcpSegment {
        source: (STACK_IP, peer.flow.stack_port),
        destination: (PEER_IP, peer.flow.peer_port),
        sequence: peer.flow.iss.wrapping_add(seq),
        ..TcpSegment::default()
    };
    segment.bytes()[14..14 + 28].to_vec()
}

#[test]
fn a_port_that_is_unreachable_refuses_a_connect() {
    for (code, failure) in [
        (unreachable::PORT, Failure::Refused),
        (unreachable::PROTOCOL, Failure::Refused),
        (unreachable::HOST, Failure::HostUnreachable),
        (unreachable::NETWORK, Failure::HostUnreachable),
    ] {
        let mut peer = Peer::new();
        let id = peer.connect();
        peer.expect(SYN);
        let quote = quote(&peer, 0);
        peer.inject(&craft::unreachable(PEER_IP, code, &quote));
        assert_eq!(peer.stack.failure(id).unwrap(), Some(failure), "code {code}");
        assert_eq!(peer.stack.counters().icmp_errors_taken, 1);
    }
}

#[test]
fn an_error_about_another_sequence_number_is_not_believed() {
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    for seq in [1, 2, u32::MAX, 1 << 31] {
        let quote = quote(&peer, seq);
        peer.inject(&craft::unreachable(PEER_IP, unreachable::PORT, &quote));
    }
    assert_eq!(peer.state(id), State::SynSent);
    assert_eq!(peer.stack.counters().drop_icmp_unrelated, 4);
}

#[test]
fn an_error_does_not_end_an_established_connection() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 100);
    peer.take();
    for code in 0..16 {
        let quote = quote(&peer, 1);
        peer.inject(&craft::unreachable(PEER_IP, code, &quote));
    }
    assert_eq!(peer.state(id), State::Established);
}

#[test]
fn a_too_big_syn_does_not_fail_a_connect() {
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    let quote = quote(&peer, 0);
    peer.inject(&craft::unreachable(PEER_IP, unreachable::FRAGMENTATION_NEEDED, &quote));
    assert_eq!(peer.state(id), State::SynSent);
}

#[test]
fn errors_about_what_is_not_ours_are_dropped() {
    let mut peer = Peer::new();
    peer.connect();
    peer.expect(SYN);
    let mut foreign = quote(&peer, 0);
    foreign[15] = 99; // another source
    peer.inject(&craft::unreachable(PEER_IP, unreachable::PORT, &foreign));
    let short = quote(&peer, 0);
    peer.inject(&craft::unreachable(PEER_IP, unreachable::PORT, &short[..24]));
    peer.inject(&craft::unreachable(PEER_IP, unreachable::PORT, &[]));
    let datagram = udp_datagram((STACK_IP, 1), (PEER_IP, 2), b"x");
    peer.inject(&craft::unreachable(PEER_IP, unreachable::PORT, &datagram[14..]));
    assert_eq!(peer.stack.counters().drop_icmp_unrelated, 4);
    peer.expect_silence();
    let _ = SocketAddr::new(PEER_IP.into(), 1);
}

#[test]
fn what_a_router_says_of_a_segment_in_flight_is_passed_up() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 100);
    peer.take();
    let report = |quote: &[u8], parameter: bool| {
        let len = icmpv4::HEADER_LEN + quote.len();
        let mut packet = craft::ip_packet(PEER_IP, STACK_IP, 1, len);
        icmpv4::emit_time_exceeded(&mut packet[34..], 0, quote);
        if parameter {
            const PARAMETER_PROBLEM: u8 = 12;
            packet[34] = PARAMETER_PROBLEM;
            packet[36..38].fill(0);
            let sum = checksum::finish(checksum::sum(&packet[34..]));
            packet[36..38].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    };
    peer.inject(&report(&quote(&peer, 1), false));
    peer.inject(&report(&quote(&peer, 1), true));
    let counters = peer.stack.counters();
    assert_eq!((counters.icmp_errors_soft, counters.drop_icmp_ignored), (2, 0));
    assert_eq!(peer.state(id), State::Established);
    // Of one that is not, nothing is.
    peer.inject(&report(&quote(&peer, 5000), false));
    let datagram = udp_datagram((STACK_IP, 1), (PEER_IP, 2), b"x");
    peer.inject(&report(&datagram[14..], false));
    let counters = peer.stack.counters();
    assert_eq!((counters.drop_icmp_unrelated, counters.drop_icmp_ignored), (1, 1));
    // Nor does an attempt end, for a loop may be mended.
    peer.flow.peer_port += 1;
    let attempt = peer.connect();
    peer.expect(SYN);
    peer.inject(&report(&quote(&peer, 0), false));
    assert_eq!(peer.stack.counters().icmp_errors_soft, 3);
    assert_eq!(peer.state(attempt), State::SynSent);
}
