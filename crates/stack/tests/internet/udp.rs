//! UDP (RFC 768, RFC 1122 §4.1).

use core::net::{Ipv4Addr, SocketAddr};
use std::io::ErrorKind;

use millrace_frames::Owners;
use millrace_stack::{Event, SocketId};
use millrace_wire::mac::Mac;

use crate::common::craft::{PEER_IP, PEER_MAC, Packet, STACK_IP, udp_datagram, unreachable};
use crate::common::peer::{Peer, pattern};

fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// Takes the oldest datagram: who sent it, to where, and what.
fn receive(peer: &mut Peer, socket: SocketId) -> Option<(SocketAddr, core::net::IpAddr, Vec<u8>)> {
    let datagram = peer.stack.receive_datagram(socket).unwrap()?;
    let bytes = peer.stack.arena().bytes(datagram.frame).to_vec();
    peer.stack.arena_mut().release(datagram.frame, Owners::RECEIVED);
    Some((datagram.source, datagram.destination, bytes))
}

#[test]
fn datagrams_come_with_their_addresses_and_in_order() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    for len in [0, 1, 2, 999, 1472] {
        peer.inject(&udp_datagram((PEER_IP, 4000 + len as u16), (STACK_IP, 53), &pattern(0, len)));
    }
    assert_eq!(peer.events(), [Event::Datagram(socket)]);
    for len in [0, 1, 2, 999, 1472] {
        let expected = (at(PEER_IP, 4000 + len as u16), STACK_IP.into(), pattern(0, len));
        assert_eq!(receive(&mut peer, socket), Some(expected));
    }
    assert_eq!(receive(&mut peer, socket), None);
    assert_eq!(peer.events(), []);
    assert_eq!(peer.stack.counters().datagrams_in, 5);
}

#[test]
fn ip_options_do_not_confuse_it() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    let plain = udp_datagram((PEER_IP, 4000), (STACK_IP, 53), b"with options");
    let mut packet = plain[..34].to_vec();
    packet.extend_from_slice(&[1, 1, 1, 0]);
    packet.extend_from_slice(&plain[34..]);
    packet[14] = 0x46;
    let total = (packet.len() - 14) as u16;
    packet[16..18].copy_from_slice(&total.to_be_bytes());
    packet[24..26].fill(0);
    let sum = millrace_wire::checksum::finish(millrace_wire::checksum::sum(&packet[14..38]));
    packet[24..26].copy_from_slice(&sum.to_be_bytes());
    peer.inject(&packet);
    let expected = (at(PEER_IP, 4000), STACK_IP.into(), b"with options".to_vec());
    assert_eq!(receive(&mut peer, socket), Some(expected));
}

#[test]
fn link_padding_is_cut() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    let mut packet = udp_datagram((PEER_IP, 4000), (STACK_IP, 53), b"x");
    packet.resize(60, 0xee);
    peer.inject(&packet);
    assert_eq!(receive(&mut peer, socket).unwrap().2, b"x");
}

#[test]
fn datagrams_go_out_with_a_checksum() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    for len in [0, 1, 500, 1471, 1472] {
        peer.stack.send_datagram(socket, &pattern(0, len), Some(at(PEER_IP, 4000))).unwrap();
        let expected = Packet::Udp {
            to: PEER_MAC,
            source: (STACK_IP, 53),
            destination: (PEER_IP, 4000),
            payload: pattern(0, len),
        };
        assert_eq!(peer.next_packet(), Some(expected));
    }
}

#[test]
fn a_checksum_of_zero_means_none_and_a_wrong_one_drops() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    let mut none = udp_datagram((PEER_IP, 4000), (STACK_IP, 53), b"unsummed");
    none[40..42].fill(0);
    peer.inject(&none);
    assert_eq!(receive(&mut peer, socket).unwrap().2, b"unsummed");
    let mut wrong = udp_datagram((PEER_IP, 4000), (STACK_IP, 53), b"flipped");
    wrong[44] ^= 4;
    peer.inject(&wrong);
    assert_eq!(receive(&mut peer, socket), None);
    assert_eq!(peer.stack.counters().drop_udp_checksum, 1);
    peer.expect_silence();
}

#[test]
fn malformed_lengths_are_dropped() {
    let mut peer = Peer::new();
    peer.bind_datagram(at(STACK_IP, 53));
    for length in [0u16, 7, 100] {
        let mut packet = udp_datagram((PEER_IP, 4000), (STACK_IP, 53), b"length");
        packet[38..40].copy_from_slice(&length.to_be_bytes());
        peer.inject(&packet);
    }
    assert_eq!(peer.stack.counters().drop_udp_malformed, 3);
}

#[test]
fn a_full_queue_drops_what_is_new_and_counts() {
    let mut peer = Peer::with(|config| config.datagram_queue = 3);
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    for number in 0..5u8 {
        peer.inject(&udp_datagram((PEER_IP, 4000), (STACK_IP, 53), &[number]));
    }
    assert_eq!(peer.stack.counters().drop_udp_queue_full, 2);
    assert_eq!(peer.stack.datagrams_dropped(socket).unwrap(), 2);
    for number in 0..3u8 {
        assert_eq!(receive(&mut peer, socket).unwrap().2, [number]);
    }
    peer.inject(&udp_datagram((PEER_IP, 4000), (STACK_IP, 53), b"room again"));
    assert!(receive(&mut peer, socket).is_some());
}

#[test]
fn a_connected_socket_hears_only_its_peer() {
    let mut peer = Peer::new();
    let any = peer.bind_datagram(at(Ipv4Addr::UNSPECIFIED, 53));
    let connected = peer.bind_datagram(at(STACK_IP, 53));
    peer.stack.connect_datagram(connected, at(PEER_IP, 4000)).unwrap();
    peer.inject(&udp_datagram((PEER_IP, 4000), (STACK_IP, 53), b"for the connected one"));
    peer.inject(&udp_datagram((PEER_IP, 4001), (STACK_IP, 53), b"for any"));
    assert_eq!(receive(&mut peer, connected).unwrap().2, b"for the connected one");
    assert_eq!(receive(&mut peer, connected), None);
    assert_eq!(receive(&mut peer, any).unwrap().2, b"for any");
    // It also knows where to send.
    peer.stack.send_datagram(connected, b"back", None).unwrap();
    assert!(matches!(
        peer.next_packet(),
        Some(Packet::Udp { destination: (PEER_IP, 4000), source: (STACK_IP, 53), .. })
    ));
    let error = peer.stack.send_datagram(any, b"where", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
}

#[test]
fn broadcasts_go_to_all_and_are_heard() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(Ipv4Addr::UNSPECIFIED, 67));
    for ip in [Ipv4Addr::BROADCAST, Ipv4Addr::new(192, 0, 2, 255)] {
        peer.stack.send_datagram(socket, b"anybody?", Some(at(ip, 68))).unwrap();
        match peer.next_packet() {
            Some(Packet::Udp { to, source, destination, .. }) => {
                assert_eq!((to, source, destination), (Mac::BROADCAST, (STACK_IP, 67), (ip, 68)));
            }
            other => panic!("{other:?}"),
        }
        let mut packet = udp_datagram((PEER_IP, 68), (ip, 67), b"me");
        packet[..6].fill(0xff);
        peer.inject(&packet);
        let (source, destination, bytes) = receive(&mut peer, socket).unwrap();
        assert_eq!((source, destination), (at(PEER_IP, 68), ip.into()));
        assert_eq!(bytes, b"me");
    }
}

#[test]
fn what_cannot_be_bound_is_named() {
    let mut peer = Peer::with(|config| config.datagram_sockets = 2);
    peer.bind_datagram(at(STACK_IP, 53));
    let taken = peer.stack.bind_datagram(at(STACK_IP, 53)).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let foreign = peer.stack.bind_datagram(at(PEER_IP, 54)).unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::AddrNotAvailable);
    peer.bind_datagram(at(STACK_IP, 54));
    let full = peer.stack.bind_datagram(at(STACK_IP, 55)).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::QuotaExceeded);
}

#[test]
fn port_zero_is_chosen_from_the_range_until_it_is_used_up() {
    let mut peer = Peer::with(|config| config.ephemeral_ports = 50_000..=50_002);
    let mut ports: Vec<u16> = (0..3)
        .map(|_| {
            let socket = peer.bind_datagram(at(STACK_IP, 0));
            peer.stack.datagram_address(socket).unwrap().port()
        })
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [50_000, 50_001, 50_002]);
    let error = peer.stack.bind_datagram(at(STACK_IP, 0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    assert!(error.to_string().contains("50000"), "{error}");
}

#[test]
fn a_closed_socket_gives_its_frames_and_its_port_back() {
    let mut peer = Peer::new();
    let free = peer.stack.arena().free();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    let other = peer.bind_datagram(at(Ipv4Addr::UNSPECIFIED, 53));
    for _ in 0..5 {
        peer.inject(&udp_datagram((PEER_IP, 4000), (STACK_IP, 53), b"unread"));
    }
    peer.stack.close_datagram(socket);
    assert_eq!(peer.stack.arena().free(), free);
    assert_eq!(peer.events(), []);
    assert!(peer.stack.receive_datagram(socket).is_err());
    peer.inject(&udp_datagram((PEER_IP, 4000), (STACK_IP, 53), b"for the other"));
    assert_eq!(receive(&mut peer, other).unwrap().2, b"for the other");
    let again = peer.bind_datagram(at(STACK_IP, 53));
    assert_ne!(again, socket);
}

#[test]
fn destinations_without_a_way_are_errors() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    let mut refused = |text: &str| {
        peer.stack.send_datagram(socket, b"x", Some(text.parse().unwrap())).unwrap_err().kind()
    };
    assert_eq!(refused("198.51.100.1:1"), ErrorKind::NetworkUnreachable);
    assert_eq!(refused("192.0.2.1:1"), ErrorKind::AddrNotAvailable);
    assert_eq!(refused("[2001:db8::1]:1"), ErrorKind::InvalidInput);
}

#[test]
fn too_many_that_wait_to_be_sent_block() {
    let mut peer = Peer::with(|config| config.control_queue = 4);
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    let results: Vec<_> =
        (0..6).map(|_| peer.stack.send_datagram(socket, b"x", Some(at(PEER_IP, 4000)))).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    assert_eq!(results[5].as_ref().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(peer.stack.counters().drop_control_queue_full, 2);
    peer.collect();
    while peer.next_packet().is_some() {}
}

#[test]
fn a_connected_socket_is_told_that_nobody_has_the_port() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    peer.stack.connect_datagram(socket, at(PEER_IP, 4000)).unwrap();
    let refused = |source: (Ipv4Addr, u16), to: (Ipv4Addr, u16), code: u8| {
        let datagram = udp_datagram(source, to, b"who is there?");
        unreachable(PEER_IP, code, &datagram[14..42])
    };
    // About another port, another host, and for a reason that may pass.
    peer.inject(&refused((STACK_IP, 53), (PEER_IP, 4001), 3));
    peer.inject(&refused((STACK_IP, 54), (PEER_IP, 4000), 3));
    peer.inject(&refused((PEER_IP, 53), (PEER_IP, 4000), 3));
    peer.inject(&refused((STACK_IP, 53), (PEER_IP, 4000), 1));
    peer.stack.send_datagram(socket, b"once", None).unwrap();
    assert_eq!(peer.stack.counters().drop_icmp_unrelated, 3);
    peer.inject(&refused((STACK_IP, 53), (PEER_IP, 4000), 3));
    let error = peer.stack.send_datagram(socket, b"twice", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // It is told once.
    peer.stack.send_datagram(socket, b"again", None).unwrap();
    assert_eq!(peer.stack.counters().icmp_errors_taken, 1);
    while peer.next_packet().is_some() {}
}
