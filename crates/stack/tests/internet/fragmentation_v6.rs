//! Fragments of IPv6 (RFC 8200 §4.5, RFC 5722, RFC 6946, RFC 7112).

use core::net::SocketAddr;
use core::time::Duration;

use millrace_frames::Owners;
use millrace_stack::SocketId;
use millrace_wire::icmpv6::{Kind, kind, parameter};
use millrace_wire::{checksum, protocol, udp};

use crate::common::craft6::{self, PEER_V6, STACK_V6, V6, fragment, fragments};
use crate::common::peer::{Peer, pattern};
use crate::met;

const L4: usize = 14 + 40;

fn socket(peer: &mut Peer) -> SocketId {
    peer.bind_datagram(SocketAddr::new(STACK_V6.into(), 53))
}

fn datagram(len: usize) -> Vec<u8> {
    craft6::udp((PEER_V6, 4000), (STACK_V6, 53), &pattern(0, len))
}

fn receive(peer: &mut Peer, socket: SocketId) -> Option<Vec<u8>> {
    let datagram = peer.stack.receive_datagram(socket).unwrap()?;
    assert_eq!(datagram.source, SocketAddr::new(PEER_V6.into(), 4000));
    let arena = peer.stack.arena_mut();
    let (mut bytes, mut frame) = (Vec::new(), datagram.frame);
    while frame.is_some() {
        bytes.extend_from_slice(arena.bytes(frame));
        frame = arena.meta(frame).next;
    }
    arena.release_chain(datagram.frame, Owners::RECEIVED);
    Some(bytes)
}

/// Puts what was sent in fragments together.
fn whole(peer: &mut Peer) -> (usize, Vec<u8>) {
    let (mut count, mut bytes) = (0, Vec::new());
    while let Some(crate::common::craft::Packet::V6(V6 { payload, fragment, .. })) =
        peer.next_packet()
    {
        if let Some((offset, _)) = fragment {
            assert_eq!(offset, bytes.len());
            assert!(payload.len() <= 1500 - 48);
        }
        bytes.extend(payload);
        count += 1;
    }
    (count, bytes)
}

#[test]
fn datagrams_come_whole_in_any_order() {
    let mut peer = met(|_| {});
    let socket = socket(&mut peer);
    for (number, len) in [1453, 8000, 65_527].into_iter().enumerate() {
        let mut packets = fragments(&datagram(len), 1500, number as u32);
        if number == 1 {
            packets.reverse();
        }
        for packet in packets {
            peer.inject(&packet);
        }
        assert!(receive(&mut peer, socket) == Some(pattern(0, len)), "{len}");
    }
    assert_eq!(peer.stack.counters().dropped(), 0);
}

#[test]
fn an_atomic_fragment_waits_for_nothing() {
    let mut peer = met(|_| {});
    let socket = socket(&mut peer);
    let packet = datagram(100);
    // RFC 6946: not even when fragments with the same identification wait.
    peer.inject(&fragments(&datagram(3000), 1500, 7)[0]);
    peer.inject(&fragment(&packet, 7, 0, false, &packet[L4..]));
    assert_eq!(receive(&mut peer, socket), Some(pattern(0, 100)));
    assert_eq!(peer.stack.counters().fragments_in, 1);
}

#[test]
fn overlaps_cost_the_whole_datagram() {
    let mut peer = met(|_| {});
    let socket = socket(&mut peer);
    let packet = datagram(3000);
    let part = |offset: usize, more: bool, len: usize| {
        fragment(&packet, 7, offset, more, &packet[L4 + offset..][..len])
    };
    for packet in [part(0, true, 1448), part(1440, true, 1448), part(1448, false, 1560)] {
        peer.inject(&packet);
    }
    assert_eq!(receive(&mut peer, socket), None);
    assert_eq!(peer.stack.counters().drop_fragment_overlap, 3);
    peer.expect_silence();
}

#[track_caller]
fn problem(peer: &mut Peer) -> (u8, u32) {
    match peer.expect_v6().icmp() {
        Kind::ParameterProblem { code, pointer, .. } => (code, pointer),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mistakes_are_told_to_who_made_them() {
    let mut peer = met(|_| {});
    let packet = datagram(3000);
    let part =
        |offset: usize, more: bool, len: usize| fragment(&packet, 7, offset, more, &vec![0; len]);
    // No multiple of eight: the payload length. Too long: the fragment's offset.
    peer.inject(&part(8, true, 1447));
    assert_eq!(problem(&mut peer), (parameter::FIELD, 4));
    peer.inject(&part(65_528, false, 100));
    assert_eq!(problem(&mut peer), (parameter::FIELD, 42));
    // RFC 7112: the first fragment has all headers.
    peer.inject(&fragment(&packet, 7, 0, true, &[]));
    peer.expect_silence();
    let segment = craft6::packet(PEER_V6, STACK_V6, 64, protocol::TCP, &[0; 40]);
    peer.inject(&fragment(&segment, 7, 0, true, &[0; 16]));
    assert_eq!(problem(&mut peer), (parameter::INCOMPLETE_CHAIN, 0));
    assert_eq!(peer.stack.counters().drop_fragment_malformed, 4);
    // What nobody knows of the whole is named by the fragment header.
    let unknown = craft6::packet(PEER_V6, STACK_V6, 64, 99, &[0; 2000]);
    for part in fragments(&unknown, 1500, 8) {
        peer.inject(&part);
    }
    assert_eq!(problem(&mut peer), (parameter::NEXT_HEADER, 40));
}

/// RFC 8200 §4.5: what is behind the fragment header belongs to the whole.
#[test]
fn options_of_a_first_fragment_are_looked_at_when_it_is_whole() {
    let mut peer = met(|_| {});
    // One that is not known is to be dropped without a word, or with one.
    for (kind, said) in [(0x42, None), (0xc2, Some((parameter::OPTION, 40 + 8 + 2)))] {
        let payload = [&[59, 0, kind, 4, 0, 0, 0, 0][..], &[7; 2000]].concat();
        let packet = craft6::packet(PEER_V6, STACK_V6, 64, 60, &payload);
        let parts = fragments(&packet, 1500, kind.into());
        peer.inject(&parts[0]);
        peer.expect_silence();
        peer.inject(&parts[1]);
        match said {
            None => peer.expect_silence(),
            Some(said) => assert_eq!(problem(&mut peer), said),
        }
    }
    assert_eq!(peer.stack.counters().datagrams_reassembled, 2);
}

#[test]
fn time_is_bounded_and_the_source_is_told() {
    let mut peer = met(|_| {});
    let packets = fragments(&datagram(3000), 1500, 7);
    let start = peer.now;
    peer.inject(&packets[0]);
    assert_eq!(peer.wait(), Duration::from_secs(60));
    assert_eq!(peer.now - start, Duration::from_secs(60));
    match peer.expect_v6().icmp() {
        Kind::TimeExceeded { code: 1, quote } => assert!(packets[0][14..].starts_with(quote)),
        other => panic!("{other:?}"),
    }
    peer.inject(&packets[1]);
    peer.advance_ms(60_000);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_fragment_timeout, 2);
}

#[test]
fn long_echoes_are_answered_in_fragments() {
    let mut peer = met(|_| {});
    for (number, len) in [100, 1453, 65_527].into_iter().enumerate() {
        let data = pattern(3, len);
        let request = craft6::echo(PEER_V6, STACK_V6, &data);
        for packet in fragments(&request, 1500, number as u32) {
            peer.inject(&packet);
        }
        let (_, message) = whole(&mut peer);
        assert_eq!(message[0], kind::ECHO_REPLY);
        assert!(message[8..] == data, "{len}");
        let pseudo = checksum::pseudo_v6(STACK_V6, PEER_V6, protocol::ICMPV6, message.len());
        assert_eq!(checksum::finish(checksum::add(pseudo, checksum::sum(&message))), 0);
    }
}

#[test]
fn long_datagrams_leave_in_fragments() {
    let mut peer = met(|_| {});
    let socket = socket(&mut peer);
    let to = Some(SocketAddr::new(PEER_V6.into(), 4000));
    for len in [1453, 20_000, 65_527] {
        let data = pattern(0, len);
        peer.stack.send_datagram(socket, &data, to).unwrap();
        let (count, bytes) = whole(&mut peer);
        assert_eq!(count, (len + 8).div_ceil(1448));
        let sent = udp::Datagram::parse(&bytes).unwrap();
        let pseudo = checksum::pseudo_v6(STACK_V6, PEER_V6, protocol::UDP, bytes.len());
        assert!(sent.verify_checksum(pseudo) && sent.payload() == data);
    }
    peer.stack.set_dont_fragment(socket, true).unwrap();
    let error = peer.stack.send_datagram(socket, &[0; 1453], to).unwrap_err();
    assert!(error.to_string().contains("1452"), "{error}");
    peer.stack.set_dont_fragment(socket, false).unwrap();
    let error = peer.stack.send_datagram(socket, &[0; 65_528], to).unwrap_err();
    assert!(error.to_string().contains("65527"), "{error}");
}

/// What has been sent: bytes of each packet, with its IPv6 header.
fn sizes(peer: &mut Peer) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let Some(packet) = peer.next_packet() {
        if let crate::common::craft::Packet::V6(V6 { payload, fragment, .. }) = packet {
            sizes.push(40 + fragment.map_or(0, |_| 8) + payload.len());
        }
    }
    sizes
}

#[test]
fn datagrams_fit_the_path_that_a_router_told() {
    let mut peer = met(|_| {});
    let socket = socket(&mut peer);
    let to = Some(SocketAddr::new(PEER_V6.into(), 4000));
    let data = pattern(0, 1440);
    let quote = craft6::udp((STACK_V6, 53), (PEER_V6, 4000), &data)[14..][..1200].to_vec();
    let report = craft6::error(PEER_V6, kind::PACKET_TOO_BIG, 0, 1280, &quote);
    // Nothing left yet that it could be about.
    peer.inject(&report);
    assert_eq!(peer.stack.counters().drop_icmp_unrelated, 1);
    peer.stack.send_datagram(socket, &data, to).unwrap();
    assert_eq!(sizes(&mut peer), [1488]);
    peer.inject(&report);
    assert_eq!(peer.stack.counters().path_mtu_reductions, 1);
    peer.stack.send_datagram(socket, &data, to).unwrap();
    assert_eq!(sizes(&mut peer), [1280, 40 + 8 + 1448 - 1232]);
    peer.inject(&craft6::echo(PEER_V6, STACK_V6, &data));
    assert_eq!(sizes(&mut peer).len(), 2);
    peer.stack.set_dont_fragment(socket, true).unwrap();
    let error = peer.stack.send_datagram(socket, &data, to).unwrap_err();
    assert!(error.to_string().contains("1232"), "{error}");
    // Paths change, and what was told is forgotten.
    peer.advance(Duration::from_secs(601));
    while peer.next_packet().is_some() {}
    peer.inject(&craft6::solicitation(PEER_V6, STACK_V6, None));
    while peer.next_packet().is_some() {}
    peer.stack.send_datagram(socket, &data, to).unwrap();
    assert_eq!(sizes(&mut peer), [1488]);
}

/// Two streams of large datagrams, many in a round trip: a report about either is believed.
#[test]
fn a_report_about_one_of_two_streams_is_believed() {
    let mut peer = met(|_| {});
    let socket = socket(&mut peer);
    let (to, data) = (|port| Some(SocketAddr::new(PEER_V6.into(), port)), pattern(0, 1440));
    for port in [4000].into_iter().chain([4001, 4002].repeat(50)) {
        peer.stack.send_datagram(socket, &data, to(port)).unwrap();
        assert_eq!(sizes(&mut peer), [1488]);
    }
    let quote = craft6::udp((STACK_V6, 53), (PEER_V6, 4000), &data)[14..][..1200].to_vec();
    peer.inject(&craft6::error(PEER_V6, kind::PACKET_TOO_BIG, 0, 1280, &quote));
    assert_eq!(peer.stack.counters().path_mtu_reductions, 1);
}

/// As a server sends them to many clients in a round trip: a report about any is believed.
#[test]
fn a_report_about_one_of_a_thousand_streams_is_believed() {
    let mut peer = met(|_| {});
    let socket = socket(&mut peer);
    let (to, data) = (|port| Some(SocketAddr::new(PEER_V6.into(), port)), pattern(0, 1440));
    for port in 4000..5000 {
        peer.stack.send_datagram(socket, &data, to(port)).unwrap();
        assert_eq!(sizes(&mut peer), [1488]);
    }
    for port in 4000..5000 {
        let quote = craft6::udp((STACK_V6, 53), (PEER_V6, port), &data)[14..][..1200].to_vec();
        peer.inject(&craft6::error(PEER_V6, kind::PACKET_TOO_BIG, 0, 1280, &quote));
    }
    let counters = peer.stack.counters();
    assert_eq!((counters.icmp_errors_taken, counters.drop_icmp_unrelated), (1000, 0));
    // One about any other is not.
    let quote = craft6::udp((STACK_V6, 53), (PEER_V6, 5000), &data)[14..][..1200].to_vec();
    peer.inject(&craft6::error(PEER_V6, kind::PACKET_TOO_BIG, 0, 1280, &quote));
    assert_eq!(peer.stack.counters().drop_icmp_unrelated, 1);
}

#[test]
fn fragments_of_datagrams_fit_the_path_that_a_router_told() {
    let mut peer = met(|_| {});
    let socket = socket(&mut peer);
    let to = Some(SocketAddr::new(PEER_V6.into(), 4000));
    peer.stack.send_datagram(socket, &pattern(0, 3000), to).unwrap();
    assert_eq!(sizes(&mut peer).len(), 3);
    let whole = craft6::udp((STACK_V6, 53), (PEER_V6, 4000), &pattern(0, 3000));
    let first = &fragments(&whole, 1500, 7)[0][14..][..1200];
    peer.inject(&craft6::error(PEER_V6, kind::PACKET_TOO_BIG, 0, 1400, first));
    peer.stack.send_datagram(socket, &pattern(0, 3000), to).unwrap();
    assert!(sizes(&mut peer).into_iter().all(|size| size <= 1400));
}

/// No router is believed who says that a reply is too big, so where the request did not get through
/// in one piece the reply does not try to.
#[test]
fn a_reply_to_a_request_in_fragments_fits_every_path() {
    let mut peer = met(|_| {});
    let echo = craft6::echo(PEER_V6, STACK_V6, &pattern(0, 1440));
    peer.inject(&echo);
    assert_eq!(sizes(&mut peer), [1488]);
    for packet in fragments(&echo, 1400, 7) {
        peer.inject(&packet);
    }
    assert_eq!(sizes(&mut peer), [1280, 40 + 8 + 1448 - 1232]);
}

#[test]
fn datagrams_fit_the_path_that_tcp_has_learned() {
    let mut peer = met(|_| {});
    let id = peer.stack.connect(SocketAddr::new(PEER_V6.into(), 5000), None).unwrap();
    let syn = peer.expect_v6();
    let quote = &craft6::packet(STACK_V6, PEER_V6, 64, protocol::TCP, &syn.payload)[14..];
    peer.inject(&craft6::error(PEER_V6, kind::PACKET_TOO_BIG, 0, 1280, quote));
    while peer.next_packet().is_some() {}
    let socket = socket(&mut peer);
    let to = Some(SocketAddr::new(PEER_V6.into(), 4000));
    peer.stack.send_datagram(socket, &[7; 1440], to).unwrap();
    assert_eq!(sizes(&mut peer).iter().max(), Some(&1280));
    peer.stack.abort(id);
    peer.stack.release(id);
}
