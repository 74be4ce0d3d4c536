//! ICMPv6 (RFC 4443): echo, and errors about what cannot be taken.

use core::net::{Ipv6Addr, SocketAddr};

use millrace_stack::{Failure, InterfaceAddress, State};
use millrace_wire::icmpv6::{Kind, kind, parameter, unreachable};
use millrace_wire::{ipv6, protocol};

use crate::common::craft::{PEER_IP, PEER_MAC, Packet, STACK_IP};
use crate::common::craft6::{
    ALL_NODES, PEER_V6, STACK_V6, V6, echo, error, icmp, packet, segment, udp,
};
use crate::common::peer::{Peer, SYN};
use crate::met;

#[test]
fn an_echo_request_is_answered() {
    let mut peer = met(|_| {});
    for (to, data) in [(STACK_V6, &b"ping"[..]), (ALL_NODES, b"anybody"), (STACK_V6, &[7; 1400])] {
        peer.inject(&echo(PEER_V6, to, data));
        let reply = peer.expect_v6();
        assert_eq!((reply.to, reply.source, reply.destination), (PEER_MAC, STACK_V6, PEER_V6));
        assert_eq!(reply.icmp(), Kind::EchoReply { identifier: 77, sequence: 3, data });
    }
    assert_eq!(peer.stack.counters().echo_replies, 3);
}

#[test]
fn replies_to_groups_are_limited() {
    let mut peer = met(|config| config.icmp_per_second = 50);
    for _ in 0..100 {
        peer.inject(&echo(PEER_V6, ALL_NODES, b""));
    }
    let replies = peer.stack.counters().echo_replies;
    assert!((35..65).contains(&replies), "{replies}");
    assert_eq!(peer.stack.counters().drop_icmp_rate, 100 - replies);
    while peer.next_packet().is_some() {}
}

/// The error that the packet is answered with.
#[track_caller]
fn answer(peer: &mut Peer, packet: &[u8]) -> V6 {
    peer.inject(packet);
    let answer = peer.expect_v6();
    assert_eq!((answer.to, answer.source, answer.destination), (PEER_MAC, STACK_V6, PEER_V6));
    answer
}

#[test]
fn what_cannot_be_delivered_is_said() {
    let mut peer = met(|_| {});
    let lost = udp((PEER_V6, 999), (STACK_V6, 53), &[7; 1400]);
    let said = answer(&mut peer, &lost);
    let Kind::Unreachable { code, quote } = said.icmp() else { panic!("{said:?}") };
    assert_eq!(code, unreachable::PORT);
    // As much as fits the smallest MTU (RFC 4443 §2.4 c).
    assert_eq!(quote, &lost[14..14 + 1232]);
    assert_eq!(said.payload.len() + ipv6::HEADER_LEN, ipv6::MIN_MTU);

    // A header nobody knows, first and behind another.
    let problem = |peer: &mut Peer, bytes: &[u8]| {
        let said = answer(peer, bytes);
        let Kind::ParameterProblem { code, pointer, quote } = said.icmp() else {
            panic!("{said:?}")
        };
        assert_eq!(quote, &bytes[14..]);
        (code, pointer)
    };
    let unknown = packet(PEER_V6, STACK_V6, 64, 99, b"what is it?");
    assert_eq!(problem(&mut peer, &unknown), (parameter::NEXT_HEADER, 6));
    let behind = packet(PEER_V6, STACK_V6, 64, 60, &[99, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(problem(&mut peer, &behind), (parameter::NEXT_HEADER, 40));
    let routed = packet(PEER_V6, STACK_V6, 64, 43, &[6, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(problem(&mut peer, &routed), (parameter::FIELD, 42));
    let option = packet(PEER_V6, STACK_V6, 64, 60, &[59, 0, 0xc2, 4, 0, 0, 0, 0]);
    assert_eq!(problem(&mut peer, &option), (parameter::OPTION, 42));
}

#[test]
fn errors_are_never_answered_nor_groups_nor_nobody() {
    let mut peer = met(|_| {});
    // An error behind an option that must be reported.
    let mut error = error(PEER_V6, kind::UNREACHABLE, 0, 0, &[0; 48]);
    error.splice(54..54, [protocol::ICMPV6, 0, 0xc2, 4, 0, 0, 0, 0]);
    error[19] += 8;
    error[20] = 60;
    peer.inject(&error);
    // The same of a redirect.
    let mut redirect = icmp(PEER_V6, STACK_V6, 255, &[&[137, 0, 0, 0][..], &[0; 36]].concat());
    redirect.splice(54..54, [protocol::ICMPV6, 0, 0xc2, 4, 0, 0, 0, 0]);
    redirect[19] += 8;
    redirect[20] = 60;
    peer.inject(&redirect);
    for source in [Ipv6Addr::UNSPECIFIED, STACK_V6] {
        peer.inject(&packet(source, STACK_V6, 64, 99, b""));
    }
    for bytes in [
        packet(PEER_V6, ALL_NODES, 64, 99, b""),
        packet(PEER_V6, ALL_NODES, 64, 60, &[59, 0, 0xc2, 4, 0, 0, 0, 0]),
        packet(PEER_V6, STACK_V6, 64, 60, &[59, 0, 0x42, 4, 0, 0, 0, 0]),
        udp((PEER_V6, 999), (ALL_NODES, 53), b"?"),
    ] {
        peer.inject(&bytes);
        peer.expect_silence();
    }
    assert_eq!(peer.stack.counters().icmp_errors_sent, 0);
    // But an option may ask for an answer to a group (RFC 4443 §2.4 e.3).
    let option = packet(PEER_V6, ALL_NODES, 64, 60, &[59, 0, 0x82, 4, 0, 0, 0, 0]);
    let said = answer(&mut peer, &option);
    assert!(matches!(said.icmp(), Kind::ParameterProblem { code: parameter::OPTION, .. }));
}

#[test]
fn so_many_errors_a_second_and_no_more() {
    let mut peer = met(|config| config.icmp_per_second = 50);
    for _ in 0..100 {
        peer.inject(&packet(PEER_V6, STACK_V6, 64, 99, b""));
    }
    let sent = peer.stack.counters().icmp_errors_sent;
    assert!((35..65).contains(&sent), "{sent}");
    assert_eq!(peer.stack.counters().drop_icmp_rate, 100 - sent);
    while peer.next_packet().is_some() {}
}

#[test]
fn a_checksum_that_is_wrong_is_no_message() {
    let mut peer = met(|_| {});
    let mut wrong = echo(PEER_V6, STACK_V6, b"ping");
    wrong[62] ^= 1;
    peer.inject(&wrong);
    // IPv4's checksum, without the pseudo-header.
    let mut bare =
        packet(PEER_V6, STACK_V6, 64, protocol::ICMPV6, &[128, 0, 0x7f, 0xff, 0, 0, 0, 0]);
    bare[56] = 0x7f;
    peer.inject(&bare);
    peer.inject(&packet(PEER_V6, STACK_V6, 64, protocol::ICMPV6, &[128, 0, 0]));
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_icmp_malformed, 3);
}

#[test]
fn an_error_about_mapped_addresses_is_none_about_ipv4() {
    let mut peer = met(|config| {
        config.addresses.push(InterfaceAddress { address: STACK_IP.into(), prefix: 24 });
    });
    peer.introduce();
    let remote = SocketAddr::new(PEER_IP.into(), 4000);
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 53));
    peer.stack.connect_datagram(socket, remote).unwrap();
    let (own, far) = (STACK_IP.to_ipv6_mapped(), PEER_IP.to_ipv6_mapped());
    let datagram = &udp((own, 53), (far, 4000), b"who is there?")[14..];
    peer.inject(&error(PEER_V6, kind::UNREACHABLE, unreachable::PORT, 0, datagram));
    // The SYN of an attempt, as a segment of IPv6.
    let id = peer.stack.connect(remote, None).unwrap();
    let Some(Packet::Tcp(syn)) = peer.next_packet() else { panic!("no SYN") };
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&syn.source.1.to_be_bytes());
    bytes[2..4].copy_from_slice(&4000u16.to_be_bytes());
    bytes[4..8].copy_from_slice(&syn.seq.to_be_bytes());
    bytes[12] = 5 << 4;
    let segment = &packet(own, far, 64, protocol::TCP, &bytes)[14..];
    peer.inject(&error(PEER_V6, kind::UNREACHABLE, unreachable::PORT, 0, segment));
    peer.inject(&error(PEER_V6, kind::PACKET_TOO_BIG, 0, 1280, segment));
    let counters = peer.stack.counters();
    assert_eq!((counters.icmp_errors_taken, counters.drop_icmp_unrelated), (0, 3));
    assert_eq!(peer.state(id), State::SynSent);
    peer.stack.abort(id);
    peer.stack.release(id);
}

#[test]
fn only_who_says_that_nobody_listens_refuses_an_attempt() {
    let prohibited = (unreachable::PROHIBITED, Failure::HostUnreachable);
    for (code, failure) in [prohibited, (unreachable::PORT, Failure::Refused)] {
        let mut peer = met(|_| {});
        let id = peer.stack.connect(SocketAddr::new(PEER_V6.into(), 5000), None).unwrap();
        let syn = peer.expect_v6();
        let quote = &packet(STACK_V6, PEER_V6, 64, protocol::TCP, &syn.payload)[14..];
        peer.inject(&error(PEER_V6, kind::UNREACHABLE, code, 0, quote));
        assert_eq!(peer.stack.failure(id).unwrap(), Some(failure));
        peer.stack.release(id);
    }
}

#[test]
fn a_packet_too_big_below_the_least_is_not_believed() {
    // RFC 8201 §4: there is no such link.
    let mut peer = met(|_| {});
    let id = peer.stack.connect(SocketAddr::new(PEER_V6.into(), 5000), None).unwrap();
    let syn = peer.expect_v6();
    let quote = &packet(STACK_V6, PEER_V6, 64, protocol::TCP, &syn.payload)[14..];
    for mtu in [0, 100, 1279] {
        peer.inject(&error(PEER_V6, kind::PACKET_TOO_BIG, 0, mtu, quote));
    }
    let counters = peer.stack.counters();
    assert_eq!((counters.path_mtu_reductions, counters.path_mtu_ignored), (0, 3));
    peer.inject(&error(PEER_V6, kind::PACKET_TOO_BIG, 0, 1280, quote));
    assert_eq!(peer.stack.counters().path_mtu_reductions, 1);
    peer.stack.abort(id);
    peer.stack.release(id);
}

#[test]
fn a_packet_too_big_about_nothing_in_flight_is_not_believed() {
    let mut peer = met(|_| {});
    let quote = &segment((80, 5000), SYN, 1, 0, &[])[14..];
    peer.inject(&error(PEER_V6, kind::PACKET_TOO_BIG, 0, 1280, quote));
    assert_eq!(peer.stack.counters().drop_icmp_unrelated, 1);
    peer.expect_silence();
}
