//! Redirects of IPv4 (RFC 792, RFC 1122 §3.2.2.2). Those of IPv6 are in
//! [`crate::redirect_v6`].

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use millrace_stack::{Config, InterfaceAddress, Route, RouteOrigin, SocketId};
use millrace_wire::arp::Operation;
use millrace_wire::mac::Mac;

use crate::common::craft::{
    PEER_IP, PEER_MAC, Packet, STACK_IP, STACK_MAC, TcpSegment, arp_packet, redirect, udp_datagram,
};
use crate::common::peer::{ACK, Peer, SYN};

/// Beyond the router, which is the peer.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
/// Another router.
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const SECOND_MAC: Mac = Mac([2, 0, 0, 0, 0, 3]);
const HOST: u8 = 1;

fn redirectable(change: impl FnOnce(&mut Config)) -> (Peer, SocketId) {
    let mut peer = Peer::with(|config| {
        config.gateway = Some(PEER_IP.into());
        change(config);
    });
    let question = (Mac([0; 6]), STACK_IP);
    peer.inject(&arp_packet(Operation::Request, (SECOND_MAC, SECOND), question));
    assert!(matches!(peer.next_packet(), Some(Packet::Arp { .. })));
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    (peer, socket)
}

/// Where a datagram goes; `None`: its next hop is asked for.
#[track_caller]
fn next_hop(peer: &mut Peer, socket: SocketId, to: Ipv4Addr) -> Option<Mac> {
    peer.stack.send_datagram(socket, b"?", Some(SocketAddr::new(to.into(), 7))).unwrap();
    peer.collect();
    peer.advance(Duration::ZERO);
    match peer.next_packet() {
        Some(Packet::Udp { to, .. }) => Some(to),
        Some(Packet::Arp { .. }) => None,
        other => panic!("{other:?}"),
    }
}

/// The beginning of a datagram of ours to a host.
fn sent_to(host: Ipv4Addr) -> Vec<u8> {
    udp_datagram((STACK_IP, 9), (host, 7), b"?")[14..14 + 28].to_vec()
}

fn kept(peer: &Peer) -> Vec<IpAddr> {
    let redirects = peer.stack.routes().filter(|one| one.origin == RouteOrigin::Redirect);
    redirects.map(|one| one.route.destination).collect()
}

#[test]
fn a_redirect_by_our_router_is_followed_for_its_time() {
    for code in 0..4 {
        let (mut peer, socket) = redirectable(|_| {});
        assert_eq!(next_hop(&mut peer, socket, FAR), Some(PEER_MAC));
        peer.inject(&redirect(PEER_IP, code, SECOND, &sent_to(FAR)));
        assert_eq!(next_hop(&mut peer, socket, FAR), Some(SECOND_MAC), "code {code}");
        assert_eq!(peer.stack.counters().redirects_taken, 1);
        let learned = peer.stack.routes().find(|one| one.origin == RouteOrigin::Redirect).unwrap();
        let route = Route { destination: FAR.into(), prefix: 32, gateway: Some(SECOND.into()) };
        assert_eq!(learned.route, route);
        // The rest of the network goes as before: how large it is nobody has told.
        let other = Ipv4Addr::new(198, 51, 100, 10);
        assert_eq!(next_hop(&mut peer, socket, other), Some(PEER_MAC));
        // The second router knows a third one.
        peer.inject(&redirect(SECOND, code, PEER_IP, &sent_to(FAR)));
        assert_eq!(next_hop(&mut peer, socket, FAR), Some(PEER_MAC));
        peer.inject(&redirect(PEER_IP, code, SECOND, &sent_to(FAR)));
        peer.advance(Duration::from_secs(599));
        assert_eq!(next_hop(&mut peer, socket, FAR), Some(SECOND_MAC));
        peer.advance(Duration::from_secs(2));
        assert_eq!(next_hop(&mut peer, socket, FAR), Some(PEER_MAC));
        peer.finish();
    }
}

#[test]
fn a_connection_takes_the_new_way() {
    let (mut peer, _) = redirectable(|_| {});
    let id = peer.stack.connect(SocketAddr::new(FAR.into(), 80), None).unwrap();
    let Some(Packet::Tcp(syn)) = peer.next_packet() else { panic!("no SYN") };
    assert_eq!(syn.to, PEER_MAC);
    let quote = |sequence| {
        let segment = TcpSegment {
            source: syn.source,
            destination: syn.destination,
            sequence,
            ..TcpSegment::default()
        };
        segment.bytes()[14..14 + 28].to_vec()
    };
    // Of a number that is not in flight, and of the one that is.
    peer.inject(&redirect(PEER_IP, HOST, SECOND, &quote(syn.seq.wrapping_sub(1))));
    peer.inject(&redirect(PEER_IP, HOST, SECOND, &quote(syn.seq.wrapping_add(2))));
    assert_eq!(peer.stack.counters().drop_icmp_unrelated, 2);
    peer.advance_ms(1100);
    assert!(matches!(peer.next_packet(), Some(Packet::Tcp(again)) if again.to == PEER_MAC));
    peer.inject(&redirect(PEER_IP, HOST, SECOND, &quote(syn.seq)));
    peer.advance_ms(2200);
    assert!(matches!(peer.next_packet(), Some(Packet::Tcp(again)) if again.to == SECOND_MAC));
    // The same of who only receives: nothing is in flight then.
    let answer = TcpSegment {
        source: (FAR, 80),
        destination: syn.source,
        sequence: 7000,
        acknowledgement: syn.seq.wrapping_add(1),
        flags: SYN | ACK,
        ..TcpSegment::default()
    };
    peer.inject(&answer.bytes());
    assert!(matches!(peer.next_packet(), Some(Packet::Tcp(ack)) if ack.to == SECOND_MAC));
    peer.inject(&redirect(SECOND, HOST, PEER_IP, &quote(syn.seq.wrapping_add(1))));
    assert_eq!(peer.stack.counters().redirects_taken, 2);
    peer.stack.abort(id);
    assert!(matches!(peer.next_packet(), Some(Packet::Tcp(reset)) if reset.to == PEER_MAC));
    peer.stack.release(id);
    peer.finish();
}

#[test]
fn redirects_that_cannot_be_right_are_not_followed() {
    let (mut peer, socket) = redirectable(|_| {});
    let elsewhere = Ipv4Addr::new(203, 0, 113, 1);
    let group = Ipv4Addr::new(224, 0, 0, 9);
    let unbound = udp_datagram((STACK_IP, 8), (FAR, 7), b"?")[14..14 + 28].to_vec();
    let anothers = udp_datagram((PEER_IP, 9), (FAR, 7), b"?")[14..14 + 28].to_vec();
    let mut by_broadcast = redirect(PEER_IP, HOST, SECOND, &sent_to(FAR));
    by_broadcast[..6].fill(0xff);
    for (message, reason) in [
        // By another than the router that packets to there go to.
        (redirect(SECOND, HOST, SECOND, &sent_to(FAR)), "drop_icmp_redirect"),
        // To where it is already, to another network, to ourselves, to all, to a group, to nobody.
        (redirect(PEER_IP, HOST, PEER_IP, &sent_to(FAR)), "drop_icmp_redirect"),
        (redirect(PEER_IP, HOST, elsewhere, &sent_to(FAR)), "drop_icmp_redirect"),
        (redirect(PEER_IP, HOST, STACK_IP, &sent_to(FAR)), "drop_icmp_redirect"),
        (redirect(PEER_IP, HOST, Ipv4Addr::BROADCAST, &sent_to(FAR)), "drop_icmp_redirect"),
        (
            redirect(PEER_IP, HOST, Ipv4Addr::new(192, 0, 2, 255), &sent_to(FAR)),
            "drop_icmp_redirect",
        ),
        (redirect(PEER_IP, HOST, group, &sent_to(FAR)), "drop_icmp_redirect"),
        (redirect(PEER_IP, HOST, Ipv4Addr::UNSPECIFIED, &sent_to(FAR)), "drop_icmp_redirect"),
        // Of what has no router.
        (redirect(PEER_IP, HOST, SECOND, &sent_to(group)), "drop_icmp_redirect"),
        (redirect(PEER_IP, HOST, SECOND, &sent_to(Ipv4Addr::BROADCAST)), "drop_icmp_redirect"),
        (
            redirect(PEER_IP, HOST, SECOND, &sent_to(Ipv4Addr::new(192, 0, 2, 9))),
            "drop_icmp_redirect",
        ),
        // Of what we did not send.
        (redirect(PEER_IP, HOST, SECOND, &unbound), "drop_icmp_unrelated"),
        (redirect(PEER_IP, HOST, SECOND, &anothers), "drop_icmp_unrelated"),
        (redirect(PEER_IP, HOST, SECOND, &sent_to(FAR)[..20]), "drop_icmp_unrelated"),
        (redirect(PEER_IP, HOST, SECOND, &[]), "drop_icmp_unrelated"),
        (redirect(PEER_IP, 4, SECOND, &sent_to(FAR)), "drop_icmp_ignored"),
        (by_broadcast, "drop_icmp_ignored"),
    ] {
        let count = |peer: &Peer| {
            peer.stack.counters().iter().find(|&(name, _)| name == reason).map(|(_, count)| count)
        };
        let (before, dropped) = (count(&peer).unwrap(), peer.stack.counters().dropped());
        peer.inject(&message);
        assert_eq!(count(&peer), Some(before + 1), "{reason} {:?}", &message[34..]);
        assert_eq!(peer.stack.counters().dropped(), dropped + 1);
    }
    assert_eq!((kept(&peer), peer.stack.counters().redirects_taken), (vec![], 0));
    assert_eq!(next_hop(&mut peer, socket, FAR), Some(PEER_MAC));
    peer.finish();
    let (mut off, socket) = redirectable(|config| config.redirects = false);
    off.inject(&redirect(PEER_IP, HOST, SECOND, &sent_to(FAR)));
    assert_eq!(next_hop(&mut off, socket, FAR), Some(PEER_MAC));
    assert_eq!(off.stack.counters().drop_icmp_redirect, 1);
    off.finish();
}

#[test]
fn so_many_redirects_are_remembered() {
    let (mut peer, _) = redirectable(|config| config.learned_redirects = 3);
    let far = |last| Ipv4Addr::new(198, 51, 100, last);
    for last in 0..10 {
        peer.inject(&redirect(PEER_IP, HOST, SECOND, &sent_to(far(last))));
        peer.advance_ms(10);
    }
    assert_eq!(kept(&peer), [7, 8, 9].map(|last| IpAddr::from(far(last))));
    assert_eq!(peer.stack.counters().redirects_taken, 10);
    let (mut none, _) = redirectable(|config| config.learned_redirects = 0);
    none.inject(&redirect(PEER_IP, HOST, SECOND, &sent_to(FAR)));
    assert_eq!((kept(&none), none.stack.counters().redirects_taken), (vec![], 0));
    // No room among the routes.
    let (mut full, socket) = redirectable(|config| config.routes = 1);
    full.inject(&redirect(PEER_IP, HOST, SECOND, &sent_to(FAR)));
    assert_eq!(next_hop(&mut full, socket, FAR), Some(PEER_MAC));
    let counters = full.stack.counters();
    assert_eq!((counters.redirects_taken, counters.drop_icmp_redirect), (0, 1));
    for peer in [&mut peer, &mut none, &mut full] {
        peer.finish();
    }
}

#[test]
fn a_route_that_was_given_for_a_host_is_meant() {
    let (mut peer, socket) = redirectable(|_| {});
    let route = Route { destination: FAR.into(), prefix: 32, gateway: Some(PEER_IP.into()) };
    peer.stack.add_route(route).unwrap();
    peer.inject(&redirect(PEER_IP, HOST, SECOND, &sent_to(FAR)));
    assert_eq!((kept(&peer), peer.stack.counters().redirects_taken), (vec![], 0));
    assert_eq!(peer.stack.counters().drop_icmp_redirect, 1);
    assert_eq!(next_hop(&mut peer, socket, FAR), Some(PEER_MAC));
    peer.finish();
}

/// RFC 1122 §3.3.1.4: a way that is dead is not used for as long as a redirect lasts.
#[test]
fn a_router_that_does_not_answer_loses_its_redirects() {
    let (mut peer, socket) = redirectable(|_| {});
    let silent = Ipv4Addr::new(192, 0, 2, 77);
    peer.inject(&redirect(PEER_IP, HOST, silent, &sent_to(FAR)));
    assert_eq!(next_hop(&mut peer, socket, FAR), None);
    peer.advance(Duration::from_secs(5));
    while peer.next_packet().is_some() {}
    assert_eq!(next_hop(&mut peer, socket, FAR), Some(PEER_MAC));
    peer.finish();
}

/// A new lease may be of another network, whose router knows the way.
#[test]
fn what_a_router_said_ends_with_the_address_in_its_network() {
    let (mut peer, _) = redirectable(|_| {});
    peer.inject(&redirect(PEER_IP, HOST, SECOND, &sent_to(FAR)));
    assert_eq!(kept(&peer), [IpAddr::from(FAR)]);
    peer.stack.remove_address(STACK_IP.into()).unwrap();
    let moved = Ipv4Addr::new(10, 0, 0, 1);
    peer.stack.add_address(InterfaceAddress { address: moved.into(), prefix: 24 }).unwrap();
    let router = Ipv4Addr::new(10, 0, 0, 2);
    peer.stack.remove_route(Route::default_by(PEER_IP.into())).unwrap();
    peer.stack.add_route(Route::default_by(router.into())).unwrap();
    peer.inject(&arp_packet(Operation::Request, (PEER_MAC, router), (STACK_MAC, moved)));
    assert!(matches!(peer.next_packet(), Some(Packet::Arp { .. })));
    let socket = peer.bind_datagram(SocketAddr::new(moved.into(), 9));
    assert_eq!(next_hop(&mut peer, socket, FAR), Some(PEER_MAC));
    peer.finish();
}
