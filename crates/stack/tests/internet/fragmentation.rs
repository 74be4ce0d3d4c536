//! Fragmentation of what the stack sends (RFC 791 §3.2) and its identifications (RFC 6864).

use core::net::{Ipv4Addr, SocketAddr};
use std::collections::HashSet;
use std::io::ErrorKind;

use millrace_wire::arp::Operation;
use millrace_wire::udp;

use crate::common::craft::{self, Fragment, PEER_IP, PEER_MAC, Packet, STACK_IP, STACK_MAC};
use crate::common::peer::{Peer, pattern};
use crate::common::{self, net::Net};

fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

fn fragments(peer: &mut Peer) -> Vec<Fragment> {
    let mut fragments = Vec::new();
    while let Some(packet) = peer.next_packet() {
        match packet {
            Packet::Fragment(fragment) => fragments.push(fragment),
            other => panic!("{other:?}"),
        }
    }
    fragments
}

#[test]
fn long_datagrams_leave_in_fragments() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    for len in [1473, 1480, 2952, 2953, 20_000, 65_507] {
        let data = pattern(0, len);
        peer.stack.send_datagram(socket, &data, Some(at(PEER_IP, 4000))).unwrap();
        let sent = fragments(&mut peer);
        assert_eq!(sent.len(), (len + 8).div_ceil(1480));
        let mut bytes = Vec::new();
        for (number, fragment) in sent.iter().enumerate() {
            assert_eq!(fragment.offset, bytes.len());
            assert_eq!(fragment.more, number + 1 < sent.len());
            assert_eq!(fragment.identification, sent[0].identification);
            assert_eq!((fragment.to, fragment.destination), (PEER_MAC, PEER_IP));
            bytes.extend_from_slice(&fragment.payload);
        }
        let datagram = udp::Datagram::parse(&bytes).unwrap();
        let pseudo = millrace_wire::checksum::pseudo_v4(STACK_IP, PEER_IP, 17, bytes.len());
        assert!(datagram.verify_checksum(pseudo));
        assert_eq!((datagram.source_port(), datagram.destination_port()), (53, 4000));
        assert_eq!(datagram.payload(), data);
    }
    assert_eq!(peer.stack.counters().datagrams_fragmented, 6);
}

#[test]
fn nothing_is_longer_than_a_datagram() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    let error = peer.stack.send_datagram(socket, &[0; 65_508], Some(at(PEER_IP, 1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("65507"), "{error}");
}

#[test]
fn a_socket_may_forbid_fragments() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    peer.stack.set_dont_fragment(socket, true).unwrap();
    peer.stack.send_datagram(socket, &[0; 1472], Some(at(PEER_IP, 1))).unwrap();
    assert!(matches!(peer.next_packet(), Some(Packet::Udp { .. })));
    let error = peer.stack.send_datagram(socket, &[0; 1473], Some(at(PEER_IP, 1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("1473") && error.to_string().contains("1472"), "{error}");
    peer.stack.set_dont_fragment(socket, false).unwrap();
    peer.stack.send_datagram(socket, &[0; 1473], Some(at(PEER_IP, 1))).unwrap();
    assert_eq!(fragments(&mut peer).len(), 2);
}

#[test]
fn all_fragments_go_or_none() {
    let mut peer = Peer::with(|config| config.control_queue = 4);
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    let send = |peer: &mut Peer, len| {
        peer.stack.send_datagram(socket, &vec![0; len], Some(at(PEER_IP, 1)))
    };
    assert_eq!(send(&mut peer, 6000).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.expect_silence();
    send(&mut peer, 5000).unwrap();
    assert_eq!(fragments(&mut peer).len(), 4);
}

#[test]
fn all_fragments_wait_for_a_neighbour() {
    let mut peer = Peer::stranger(common::config(), 2048);
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    peer.stack.send_datagram(socket, &pattern(0, 20_000), Some(at(PEER_IP, 4000))).unwrap();
    assert!(matches!(peer.next_packet(), None | Some(Packet::Arp { .. })));
    peer.advance_ms(0);
    let answer = ((PEER_MAC, PEER_IP), (STACK_MAC, STACK_IP));
    peer.inject(&craft::arp_packet(Operation::Reply, answer.0, answer.1));
    let mut sent = Vec::new();
    while let Some(packet) = peer.next_packet() {
        if let Packet::Fragment(fragment) = packet {
            sent.push(fragment);
        }
    }
    assert_eq!(sent.len(), 14);
    assert!(sent.iter().all(|fragment| fragment.to == PEER_MAC));
    assert!(sent.windows(2).all(|pair| pair[0].offset < pair[1].offset));
}

#[test]
fn identifications_tell_nothing_of_other_destinations() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 53));
    let mut next = |host: u8| {
        let to = Ipv4Addr::new(192, 0, 2, host);
        // Everybody's hardware address is the peer's, so nothing waits.
        let target = (STACK_MAC, STACK_IP);
        peer.inject(&craft::arp_packet(Operation::Reply, (PEER_MAC, to), target));
        peer.inject(&craft::arp_packet(Operation::Request, (PEER_MAC, to), target));
        while peer.next_packet().is_some() {}
        peer.stack.send_datagram(socket, &[0; 2000], Some(at(to, 1))).unwrap();
        fragments(&mut peer)[0].identification
    };
    let first = next(10);
    let others: HashSet<u16> = (11..60).map(&mut next).collect();
    assert!(others.len() > 45, "no common counter: {others:?}");
    let second = next(10);
    assert!((1..=2).contains(&second.wrapping_sub(first)), "{first} {second}");
}

#[test]
fn two_stacks_exchange_the_largest_datagrams() {
    let wire = millrace_port::memory::WireConfig::default();
    let mut net = Net::new(wire, 4096, |_, config| config.control_queue = 512);
    let sockets = [0, 1].map(|host| {
        let address = net.address(host, 53);
        net.hosts[host].stack.bind_datagram(address).unwrap()
    });
    for len in [3000, 65_507] {
        for (from, to) in [(0, 1), (1, 0)] {
            let remote = net.address(to, 53);
            let data = pattern(len, len);
            net.hosts[from].stack.send_datagram(sockets[from], &data, Some(remote)).unwrap();
            net.idle(core::time::Duration::from_secs(1));
            let stack = &mut net.hosts[to].stack;
            let datagram = stack.receive_datagram(sockets[to]).unwrap().expect("it arrives");
            let (mut bytes, mut frame) = (Vec::new(), datagram.frame);
            while frame.is_some() {
                bytes.extend_from_slice(stack.arena().bytes(frame));
                frame = stack.arena().meta(frame).next;
            }
            stack.arena_mut().release_chain(datagram.frame, millrace_frames::Owners::RECEIVED);
            assert!(bytes == data, "{len} from {from}");
        }
    }
    for (host, socket) in sockets.into_iter().enumerate() {
        net.hosts[host].stack.close_datagram(socket);
    }
    net.assert_clean();
}

/// A datagram of `len` bytes that the stack is said to have sent, as a router quotes it.
fn quote(from: u16, to: u16, len: usize) -> Vec<u8> {
    craft::udp_datagram((STACK_IP, from), (PEER_IP, to), &pattern(0, len))[14..42].to_vec()
}

#[test]
fn a_socket_that_may_not_fragment_is_told_what_the_path_takes() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 9));
    peer.stack.connect_datagram(socket, at(PEER_IP, 4000)).unwrap();
    peer.stack.set_dont_fragment(socket, true).unwrap();
    peer.stack.send_datagram(socket, &[7; 1400], None).unwrap();
    assert!(matches!(peer.next_packet(), Some(Packet::Udp { .. })));
    peer.inject(&craft::fragmentation_needed(PEER_IP, 1000, &quote(9, 4000, 1400)));
    assert_eq!(peer.stack.counters().path_mtu_reductions, 1);
    let error = peer.stack.send_datagram(socket, &[7; 1400], None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("972"), "{error}");
    peer.stack.send_datagram(socket, &[7; 972], None).unwrap();
    assert!(matches!(peer.next_packet(), Some(Packet::Udp { .. })));
    // Who may fragment does, and so does who answers an echo.
    peer.stack.set_dont_fragment(socket, false).unwrap();
    peer.stack.send_datagram(socket, &[7; 1400], None).unwrap();
    assert_eq!(fragments(&mut peer).len(), 2);
    peer.inject(&craft::echo_request(PEER_IP, STACK_IP, &pattern(0, 1400)));
    assert_eq!(fragments(&mut peer).len(), 2);
}

#[test]
fn an_old_router_that_tells_no_size_about_a_datagram_is_understood() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(Ipv4Addr::UNSPECIFIED, 9));
    peer.stack.set_dont_fragment(socket, true).unwrap();
    peer.stack.send_datagram(socket, &[7; 1472], Some(at(PEER_IP, 4000))).unwrap();
    assert!(peer.next_packet().is_some());
    peer.inject(&craft::fragmentation_needed(PEER_IP, 0, &quote(9, 4000, 1472)));
    let error = peer.stack.send_datagram(socket, &[7; 1472], Some(at(PEER_IP, 1))).unwrap_err();
    assert!(error.to_string().contains("1464"), "the plateau below 1500: {error}");
}

#[test]
fn a_report_about_a_datagram_that_did_not_leave_is_not_believed() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(STACK_IP, 9));
    let report = |peer: &mut Peer, mtu, from, to| {
        peer.inject(&craft::fragmentation_needed(PEER_IP, mtu, &quote(from, to, 1400)));
    };
    peer.stack.connect_datagram(socket, at(PEER_IP, 4000)).unwrap();
    // One that may be fragmented on the way is refused by no router.
    peer.stack.send_datagram(socket, &[7; 1400], None).unwrap();
    peer.next_packet();
    report(&mut peer, 1000, 9, 4000);
    // None is that large.
    peer.stack.set_dont_fragment(socket, true).unwrap();
    peer.stack.send_datagram(socket, &[7; 900], None).unwrap();
    peer.next_packet();
    report(&mut peer, 1000, 9, 4000);
    report(&mut peer, 800, 10, 4000);
    report(&mut peer, 800, 9, 4001);
    assert_eq!(peer.stack.counters().drop_icmp_unrelated, 4);
    assert_eq!(peer.stack.counters().path_mtu_reductions, 0);
    report(&mut peer, 800, 9, 4000);
    assert_eq!(peer.stack.counters().path_mtu_reductions, 1);
    // Never so little that what is left is dust.
    report(&mut peer, 68, 9, 4000);
    let error = peer.stack.send_datagram(socket, &[7; 900], None).unwrap_err();
    assert!(error.to_string().contains("524"), "{error}");
}
