//! Reassembly of fragments (RFC 791 §3.2, RFC 815, RFC 1122 §3.3.2, RFC 5722, RFC 3168 §5.3).

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use millrace_frames::Owners;
use millrace_stack::{Event, SocketId};
use millrace_wire::icmpv4::{self, Kind};
use millrace_wire::{ether, ipv4};

use crate::common::craft::{
    self, PEER_IP, Packet, STACK_IP, TcpSegment, echo_request, fragment, fragments,
    mend_ip_checksum, udp_datagram,
};
use crate::common::peer::{ACK, Peer, SYN, pattern};

const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

fn socket(peer: &mut Peer) -> SocketId {
    peer.bind_datagram(at(STACK_IP, 53))
}

fn datagram(len: usize) -> Vec<u8> {
    udp_datagram((PEER_IP, 4000), (STACK_IP, 53), &pattern(0, len))
}

fn receive(peer: &mut Peer, socket: SocketId) -> Option<Vec<u8>> {
    let datagram = peer.stack.receive_datagram(socket).unwrap()?;
    assert_eq!((datagram.source, datagram.destination), (at(PEER_IP, 4000), STACK_IP.into()));
    let arena = peer.stack.arena_mut();
    let (mut bytes, mut frame) = (Vec::new(), datagram.frame);
    while frame.is_some() {
        bytes.extend_from_slice(arena.bytes(frame));
        frame = arena.meta(frame).next;
    }
    arena.release_chain(datagram.frame, Owners::RECEIVED);
    Some(bytes)
}

/// Sends packets and expects no datagram of them; says which drops were counted.
#[track_caller]
fn refused(packets: &[Vec<u8>]) -> Vec<(&'static str, u64)> {
    let mut peer = Peer::new();
    let socket = socket(&mut peer);
    let free = peer.stack.arena().free();
    for packet in packets {
        peer.inject(packet);
    }
    assert_eq!(receive(&mut peer, socket), None);
    assert_eq!(peer.stack.counters().datagrams_reassembled, 0);
    let drops = peer.stack.counters().iter().filter(|(name, _)| name.starts_with("drop_"));
    let drops: Vec<_> = drops.filter(|&(_, count)| count > 0).collect();
    let dropped: u64 = drops.iter().map(|(_, count)| count).sum();
    let held = free - peer.stack.arena().free();
    assert_eq!(dropped as usize + held, packets.len(), "each packet is kept or counted: {drops:?}");
    drops
}

#[test]
fn datagrams_of_every_size_come_whole() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer);
    for (number, len) in [1473, 1480, 1481, 2952, 8000, 30_000, 65_507].into_iter().enumerate() {
        for packet in fragments(&datagram(len), 1500, number as u16) {
            peer.inject(&packet);
        }
        assert_eq!(peer.events(), [Event::Datagram(socket)]);
        assert_eq!(receive(&mut peer, socket), Some(pattern(0, len)), "{len}");
    }
    assert_eq!(peer.stack.counters().datagrams_reassembled, 7);
    assert_eq!(peer.stack.counters().dropped(), 0);
}

#[test]
fn the_order_does_not_matter() {
    for order in 0..4 {
        let mut peer = Peer::new();
        let socket = socket(&mut peer);
        let mut packets = fragments(&datagram(5000), 576, 9);
        match order {
            0 => packets.reverse(),
            1 => packets.rotate_left(3),
            2 => {
                let (even, odd): (Vec<_>, Vec<_>) =
                    packets.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
                packets = odd.into_iter().chain(even).map(|(_, packet)| packet).collect();
            }
            _ => packets.sort_by_key(|packet| packet[60]),
        }
        for packet in packets {
            peer.inject(&packet);
        }
        assert_eq!(receive(&mut peer, socket), Some(pattern(0, 5000)));
    }
}

#[test]
fn fragments_of_several_datagrams_are_told_apart() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer);
    let first = fragments(&datagram(3000), 1500, 1);
    let second = fragments(&datagram(2999), 1500, 2);
    // The same identification, from another and with another protocol.
    let stranger = fragments(&udp_datagram((OTHER, 4000), (STACK_IP, 53), &[0; 3000]), 1500, 1);
    let echo = fragments(&echo_request(PEER_IP, STACK_IP, &[0; 3000]), 1500, 1);
    peer.inject(&stranger[1]);
    peer.inject(&echo[1]);
    for (first, second) in first.iter().zip(&second) {
        peer.inject(first);
        peer.inject(second);
    }
    assert_eq!(receive(&mut peer, socket), Some(pattern(0, 3000)));
    assert_eq!(receive(&mut peer, socket), Some(pattern(0, 2999)));
    assert_eq!(receive(&mut peer, socket), None);
}

#[test]
fn link_padding_behind_a_fragment_is_no_part_of_it() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer);
    for mut packet in fragments(&datagram(20), 36, 9) {
        packet.resize(60, 0xee);
        peer.inject(&packet);
    }
    assert_eq!(receive(&mut peer, socket), Some(pattern(0, 20)));
}

#[test]
fn a_first_fragment_with_options_comes_last() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer);
    let mut packets = fragments(&datagram(3000), 1500, 9);
    let plain = packets.remove(0);
    let mut first = plain[..34].to_vec();
    first.extend_from_slice(&[1, 1, 1, 0]);
    first.extend_from_slice(&plain[34..]);
    first[14] = 0x46;
    let total = (first.len() - 14) as u16;
    first[16..18].copy_from_slice(&total.to_be_bytes());
    first[24..26].fill(0);
    let sum = millrace_wire::checksum::finish(millrace_wire::checksum::sum(&first[14..38]));
    first[24..26].copy_from_slice(&sum.to_be_bytes());
    packets.push(first);
    for packet in packets {
        peer.inject(&packet);
    }
    assert_eq!(receive(&mut peer, socket), Some(pattern(0, 3000)));
}

#[test]
fn a_wrong_checksum_of_the_whole_is_found() {
    let mut packets = fragments(&datagram(3000), 1500, 9);
    packets[1][200] ^= 1;
    let mut peer = Peer::new();
    let socket = socket(&mut peer);
    for packet in packets {
        peer.inject(&packet);
    }
    assert_eq!(receive(&mut peer, socket), None);
    assert_eq!(peer.stack.counters().drop_udp_checksum, 1);
}

#[test]
fn long_echoes_are_answered_in_fragments() {
    let mut peer = Peer::new();
    for (number, len) in [100, 1473, 8000, 65_507].into_iter().enumerate() {
        let request = echo_request(PEER_IP, STACK_IP, &pattern(5, len));
        for packet in fragments(&request, if len == 100 { 68 } else { 1500 }, number as u16) {
            peer.inject(&packet);
        }
        let mut message = Vec::new();
        while let Some(packet) = peer.next_packet() {
            match packet {
                Packet::Icmp { message: whole, .. } => message = whole,
                Packet::Fragment(fragment) => {
                    assert_eq!(fragment.offset, message.len());
                    message.extend_from_slice(&fragment.payload);
                }
                other => panic!("{other:?}"),
            }
        }
        let reply = icmpv4::Packet::parse(&message).unwrap();
        assert!(reply.verify_checksum());
        let data = &pattern(5, len)[..];
        assert_eq!(reply.kind(), Kind::EchoReply { identifier: 77, sequence: 3, data });
    }
    assert_eq!(peer.stack.counters().echo_replies, 4);
}

#[test]
fn tcp_takes_what_was_reassembled() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    let data = pattern(0, 1000);
    let segment = peer.segment(ACK, 1, 1, &data).bytes();
    for packet in fragments(&segment, 576, 3) {
        peer.inject(&packet);
    }
    assert_eq!(peer.read(id), data);
}

#[test]
fn an_exact_duplicate_does_no_harm() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer);
    let packets = fragments(&datagram(4000), 1500, 9);
    for packet in [&packets[2], &packets[0], &packets[0], &packets[2], &packets[1]] {
        peer.inject(packet);
    }
    assert_eq!(receive(&mut peer, socket), Some(pattern(0, 4000)));
    assert_eq!(peer.stack.counters().drop_fragment_duplicate, 2);
}

#[test]
fn overlaps_cost_the_whole_datagram() {
    let whole = datagram(3000);
    let part = |offset: usize, more: bool, len: usize| {
        fragment(&whole, 9, offset, more, &whole[34 + offset..][..len])
    };
    // The other fragments of a datagram that was given up are dropped, too.
    let behind = refused(&[part(0, true, 1480), part(1472, true, 1480), part(2952, false, 56)]);
    assert_eq!(behind, [("drop_fragment_overlap", 3)]);
    let before = refused(&[part(1480, true, 1480), part(0, true, 1488), part(0, true, 1480)]);
    assert_eq!(before, [("drop_fragment_overlap", 3)]);
    let teardrop = refused(&[part(0, true, 1480), part(24, false, 8)]);
    assert_eq!(teardrop, [("drop_fragment_overlap", 2)]);
    // The same place, with other bytes.
    let mut forged = part(0, true, 1480);
    forged[100] ^= 1;
    let forged = refused(&[part(0, true, 1480), forged, part(1480, false, 1528)]);
    assert_eq!(forged, [("drop_fragment_overlap", 3)]);
}

#[test]
fn a_datagram_has_one_end() {
    let whole = datagram(3000);
    let part = |offset: usize, more: bool, len: usize| {
        fragment(&whole, 9, offset, more, &whole[34 + offset..][..len])
    };
    let two = refused(&[part(1480, false, 8), part(2000, false, 8)]);
    assert_eq!(two, [("drop_fragment_overlap", 2)]);
    let behind = refused(&[part(1480, false, 8), part(2000, true, 8)]);
    assert_eq!(behind, [("drop_fragment_overlap", 2)]);
    let within = refused(&[part(2000, true, 8), part(1480, false, 8)]);
    assert_eq!(within, [("drop_fragment_overlap", 2)]);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let whole = datagram(3000);
    let part =
        |offset: usize, more: bool, len: usize| fragment(&whole, 9, offset, more, &vec![0; len]);
    assert_eq!(refused(&[part(0, true, 1479)]), [("drop_fragment_malformed", 1)]);
    assert_eq!(refused(&[part(8, true, 0)]), [("drop_fragment_malformed", 1)]);
    // The ping of death: beyond 65,535 bytes.
    assert_eq!(refused(&[part(65_528, false, 8)]), [("drop_fragment_malformed", 1)]);
    assert_eq!(refused(&[part(65_512, false, 4)]), [("drop_fragment_malformed", 1)]);
    assert_eq!(refused(&[part(65_512, false, 3)]), []);
}

#[test]
fn a_first_fragment_names_its_ports_and_flags() {
    let syn = TcpSegment { flags: SYN, ..TcpSegment::default() }.bytes();
    for tiny in
        [fragment(&syn, 9, 0, true, &syn[34..50]), fragment(&syn, 9, 8, false, &syn[42..54])]
    {
        assert_eq!(refused(&[tiny]), [("drop_fragment_malformed", 1)]);
    }
}

#[test]
fn time_is_bounded_and_the_source_is_told() {
    let mut peer = Peer::new();
    let packets = fragments(&datagram(4000), 1500, 9);
    peer.inject(&packets[0]);
    peer.advance_ms(29_999);
    peer.inject(&packets[2]);
    peer.expect_silence();
    assert_eq!(peer.wait(), Duration::from_millis(1));
    let Some(Packet::Icmp { destination, message, .. }) = peer.next_packet() else { panic!() };
    assert_eq!(destination, PEER_IP);
    match icmpv4::Packet::parse(&message).unwrap().kind() {
        Kind::TimeExceeded { code: 1, quote } => {
            assert_eq!(quote, &packets[0][14..14 + icmpv4::MAX_QUOTE]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(peer.stack.counters().drop_fragment_timeout, 2);
    // Nothing of it is left: the rest begins anew.
    peer.inject(&packets[1]);
    assert_eq!(peer.stack.counters().datagrams_reassembled, 0);
}

#[test]
fn without_the_first_fragment_nobody_is_told() {
    let mut peer = Peer::new();
    peer.inject(&fragments(&datagram(4000), 1500, 9)[1]);
    peer.advance_ms(60_000);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_fragment_timeout, 1);
}

/// RFC 1122 §3.2.2: never about an error.
#[test]
fn nobody_is_told_that_an_error_came_in_part() {
    let mut peer = Peer::new();
    let error = craft::unreachable(PEER_IP, icmpv4::unreachable::HOST, &pattern(0, 500));
    peer.inject(&fragments(&error, 300, 9)[0]);
    peer.advance_ms(60_000);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_fragment_timeout, 1);
    // Of a question one is.
    peer.inject(&fragments(&echo_request(PEER_IP, STACK_IP, &pattern(0, 500)), 300, 9)[0]);
    peer.advance_ms(60_000);
    assert!(matches!(peer.next_packet(), Some(Packet::Icmp { .. })));
}

#[test]
fn the_oldest_makes_way() {
    let mut peer = Peer::with(|config| {
        config.reassembly.datagrams = 4;
        config.reassembly.datagrams_per_source = 2;
    });
    let socket = socket(&mut peer);
    let packets: Vec<_> = (0..3).map(|id| fragments(&datagram(2000), 1500, id)).collect();
    for packets in &packets {
        peer.inject(&packets[0]);
    }
    assert_eq!(peer.stack.counters().drop_fragment_bound, 1);
    for host in 10..12 {
        let source = (Ipv4Addr::new(192, 0, 2, host), 1);
        peer.inject(&fragments(&udp_datagram(source, (STACK_IP, 53), &[0; 2000]), 1500, 1)[0]);
    }
    assert_eq!(peer.stack.counters().drop_fragment_bound, 1);
    let source = (Ipv4Addr::new(192, 0, 2, 13), 1);
    peer.inject(&fragments(&udp_datagram(source, (STACK_IP, 53), &[0; 2000]), 1500, 1)[0]);
    assert_eq!(peer.stack.counters().drop_fragment_bound, 2);
    peer.inject(&packets[2][1]);
    assert_eq!(receive(&mut peer, socket), Some(pattern(0, 2000)));
    peer.inject(&packets[1][1]);
    assert_eq!(receive(&mut peer, socket), None);
}

#[test]
fn memory_is_bounded() {
    let mut peer = Peer::with(|config| config.reassembly.memory = 16 * 2048);
    let free = peer.stack.arena().free();
    for number in 0..100 {
        let source = (Ipv4Addr::new(192, 0, 2, 10 + number as u8 % 8), 1);
        let packets = fragments(&udp_datagram(source, (STACK_IP, 53), &[0; 20_000]), 1500, number);
        for packet in &packets[..4] {
            peer.inject(packet);
            assert!(free - peer.stack.arena().free() <= 16);
        }
    }
    let counters = peer.stack.counters();
    assert_eq!(counters.drop_fragment_bound + 16, 400, "{counters:?}");
}

#[test]
fn a_datagram_has_so_many_frames() {
    let mut peer = Peer::with(|config| config.reassembly.frames_per_datagram = 8);
    let packets = fragments(&datagram(8000), 576, 9);
    for packet in &packets {
        peer.inject(packet);
    }
    assert_eq!(peer.stack.counters().drop_fragment_bound, packets.len() as u64);
}

#[test]
fn congestion_marks_survive() {
    for (tos, wanted) in [([0, 0], 0), ([2, 2], 2), ([1, 1], 1), ([2, 3], 3), ([3, 1], 3)] {
        let mut peer = Peer::new();
        let socket = socket(&mut peer);
        let mut packets = fragments(&datagram(2000), 1500, 9);
        for (packet, tos) in packets.iter_mut().zip(tos) {
            packet[15] = tos;
            mend_ip_checksum(packet);
            peer.inject(packet);
        }
        let datagram = peer.stack.receive_datagram(socket).unwrap().expect("a datagram");
        let arena = peer.stack.arena_mut();
        let room = arena.room(datagram.frame);
        let frame = ether::Frame::parse(&room[2..]).unwrap();
        let ip = ipv4::Packet::parse_cut(frame.payload()).unwrap();
        assert_eq!(ip.ecn(), wanted, "{tos:?}");
        assert!(ip.verify_checksum() && !ip.is_fragment());
        assert_eq!(ip.total_len(), 2028);
        arena.release_chain(datagram.frame, Owners::RECEIVED);
    }
}

#[test]
fn fragments_that_disagree_about_congestion_are_forged() {
    let mut packets = fragments(&datagram(2000), 1500, 9);
    packets[1][15] = 3;
    mend_ip_checksum(&mut packets[1]);
    assert_eq!(refused(&packets), [("drop_fragment_ecn", 2)]);
}

#[test]
fn sources_that_no_host_may_use_send_no_fragments() {
    let mut packet = fragments(&craft::ip_packet(OTHER, STACK_IP, 6, 40), 44, 9).remove(0);
    packet[26..30].copy_from_slice(&[255; 4]);
    mend_ip_checksum(&mut packet);
    assert_eq!(refused(&[packet]), [("drop_ip_source", 1)]);
}
