//! Who gets what is sent to a group (RFC 1112, RFC 3376 §2, RFC 3678).

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use millrace_frames::Owners;
use millrace_stack::{FilterMode, SocketId};
use millrace_wire::mac::Mac;

use crate::common::craft::{PEER_IP, Packet, STACK_IP, fragments, udp_datagram};
use crate::common::peer::{Peer, pattern};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 129, 2, 3);
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

fn datagram(source: Ipv4Addr, group: Ipv4Addr, data: &[u8]) -> Vec<u8> {
    let mut packet = udp_datagram((source, 4000), (group, 53), data);
    let [.., b, c, d] = group.octets();
    packet[..6].copy_from_slice(&[1, 0, 0x5e, b & 0x7f, c, d]);
    packet
}

/// The payloads that wait at a socket.
fn received(peer: &mut Peer, socket: SocketId) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(datagram) = peer.stack.receive_datagram(socket).unwrap() {
        let arena = peer.stack.arena_mut();
        let (mut bytes, mut frame) = (Vec::new(), datagram.frame);
        while frame.is_some() {
            bytes.extend_from_slice(arena.bytes(frame));
            frame = arena.meta(frame).next;
        }
        arena.release_chain(datagram.frame, Owners::RECEIVED);
        all.push(bytes);
    }
    all
}

/// Takes note of nothing that the stack sends, such as reports.
fn quiet(peer: &mut Peer) {
    while peer.next_packet().is_some() {}
}

#[test]
fn only_members_get_a_groups_datagrams() {
    let mut peer = Peer::new();
    let member = peer.bind_datagram(at(ANY, 53));
    let own = peer.bind_datagram(at(STACK_IP, 53));
    peer.inject(&datagram(PEER_IP, GROUP, b"too soon"));
    assert_eq!(peer.stack.counters().drop_multicast_not_joined, 1);
    peer.stack.join_group(member, GROUP.into(), None).unwrap();
    peer.stack.join_group(own, GROUP.into(), None).unwrap();
    peer.inject(&datagram(PEER_IP, GROUP, b"for members"));
    assert_eq!(received(&mut peer, member), [b"for members"]);
    // A socket that is bound to an address takes what comes to that address.
    assert_eq!(received(&mut peer, own), [[0u8; 0]; 0]);
    peer.stack.leave_group(member, GROUP.into(), None).unwrap();
    peer.inject(&datagram(PEER_IP, GROUP, b"too late"));
    assert_eq!(received(&mut peer, member), [[0u8; 0]; 0]);
    assert_eq!(peer.stack.counters().drop_udp_no_socket, 1);
    quiet(&mut peer);
}

#[test]
fn all_hosts_is_a_group_that_is_never_reported() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(ANY, 53));
    peer.inject(&datagram(PEER_IP, ALL_HOSTS, b"nobody joined"));
    assert_eq!(peer.stack.counters().drop_udp_no_socket, 1);
    peer.stack.join_group(socket, ALL_HOSTS.into(), None).unwrap();
    peer.expect_silence();
    peer.inject(&datagram(PEER_IP, ALL_HOSTS, b"joined"));
    assert_eq!(received(&mut peer, socket), [b"joined"]);
    peer.stack.close_datagram(socket);
    peer.advance_ms(60_000);
    peer.expect_silence();
}

#[test]
fn every_member_gets_a_copy() {
    let mut peer = Peer::new();
    let free = peer.stack.arena().free();
    let sockets = [ANY, GROUP].map(|local| peer.bind_datagram(at(local, 53)));
    for socket in sockets {
        peer.stack.join_group(socket, GROUP.into(), None).unwrap();
    }
    quiet(&mut peer);
    let long = pattern(0, 9000);
    for (number, data) in [&b"short"[..], &long].into_iter().enumerate() {
        for packet in fragments(&datagram(PEER_IP, GROUP, data), 1500, number as u16) {
            peer.inject(&packet);
        }
        for socket in sockets {
            assert!(received(&mut peer, socket) == [data]);
        }
    }
    assert_eq!(peer.stack.arena().free(), free);
    // A socket that is bound to the group gets nothing else.
    peer.inject(&udp_datagram((PEER_IP, 4000), (STACK_IP, 53), b"unicast"));
    assert_eq!(received(&mut peer, sockets[1]), [[0u8; 0]; 0]);
    assert_eq!(received(&mut peer, sockets[0]), [b"unicast"]);
}

#[test]
fn sources_are_filtered_socket_by_socket() {
    let mut peer = Peer::new();
    let (wanted, other) = (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2));
    let specific = peer.bind_datagram(at(ANY, 53));
    let blocking = peer.bind_datagram(at(GROUP, 53));
    peer.stack.join_group(specific, GROUP.into(), Some(wanted.into())).unwrap();
    peer.stack.join_group(blocking, GROUP.into(), None).unwrap();
    peer.stack.block_source(blocking, GROUP.into(), wanted.into()).unwrap();
    peer.inject(&datagram(wanted, GROUP, b"wanted"));
    peer.inject(&datagram(other, GROUP, b"other"));
    assert_eq!(received(&mut peer, specific), [b"wanted"]);
    assert_eq!(received(&mut peer, blocking), [b"other"]);
    let filter = peer.stack.source_filter(blocking, GROUP.into()).unwrap();
    assert_eq!(filter, Some((FilterMode::Exclude, vec![IpAddr::from(wanted)])));
    peer.stack.unblock_source(blocking, GROUP.into(), wanted.into()).unwrap();
    peer.inject(&datagram(wanted, GROUP, b"again"));
    assert_eq!(received(&mut peer, blocking), [b"again"]);
    quiet(&mut peer);
}

#[test]
fn what_is_sent_goes_to_the_groups_hardware_address() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(at(ANY, 53));
    peer.stack.send_datagram(socket, b"all", Some(at(GROUP, 5000))).unwrap();
    match peer.next_packet() {
        Some(Packet::Udp { to, source, destination, payload }) => {
            assert_eq!(to, Mac([1, 0, 0x5e, 1, 2, 3]));
            assert_eq!((source, destination), ((STACK_IP, 53), (GROUP, 5000)));
            assert_eq!(payload, b"all");
        }
        other => panic!("{other:?}"),
    }
    peer.stack.connect_datagram(socket, at(GROUP, 5000)).unwrap();
    peer.stack.send_datagram(socket, &[7; 3000], None).unwrap();
    for _ in 0..3 {
        let Some(Packet::Fragment(fragment)) = peer.next_packet() else { panic!() };
        assert_eq!(fragment.to, Mac([1, 0, 0x5e, 1, 2, 3]));
    }
    peer.stack.set_multicast_ttl(socket, 0).unwrap();
    peer.stack.send_datagram(socket, b"here only", None).unwrap();
    peer.expect_silence();
}

#[test]
fn members_here_hear_what_is_sent_from_here() {
    let mut peer = Peer::new();
    let sender = peer.bind_datagram(at(ANY, 4000));
    let member = peer.bind_datagram(at(ANY, 53));
    peer.stack.join_group(member, GROUP.into(), None).unwrap();
    for len in [0, 5, 1472, 9000, 65_507] {
        peer.stack.send_datagram(sender, &pattern(0, len), Some(at(GROUP, 53))).unwrap();
        assert!(received(&mut peer, member) == [pattern(0, len)], "{len}");
        quiet(&mut peer);
    }
    peer.stack.set_multicast_loop(sender, false).unwrap();
    peer.stack.send_datagram(sender, b"not here", Some(at(GROUP, 53))).unwrap();
    assert_eq!(received(&mut peer, member), [[0u8; 0]; 0]);
    quiet(&mut peer);
}

#[test]
fn broadcasts_reach_every_socket_of_the_port() {
    let mut peer = Peer::new();
    let sockets = [ANY, STACK_IP].map(|local| peer.bind_datagram(at(local, 53)));
    peer.inject(&udp_datagram((PEER_IP, 4000), (Ipv4Addr::BROADCAST, 53), b"all"));
    for socket in sockets {
        assert_eq!(received(&mut peer, socket), [b"all"]);
    }
}
