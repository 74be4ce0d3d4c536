//! Addresses and routes that come and go while the stack runs (RFC 1122 §3.3.1).

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::io::ErrorKind;

use millrace_stack::{
    AddressState, Failure, InterfaceAddress, Ready, Route, RouteInfo, RouteOrigin, State,
};
use millrace_wire::arp::Operation;
use millrace_wire::mac::Mac;

use crate::common::craft::{
    PEER_IP, PEER_MAC, Packet, STACK_IP, STACK_MAC, TcpSegment, arp_packet, echo_request,
};
use crate::common::peer::{ACK, Peer, RST, SYN};

const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);

fn own(address: Ipv4Addr, prefix: u8) -> InterfaceAddress {
    InterfaceAddress { address: address.into(), prefix }
}

fn route(destination: [u8; 4], prefix: u8, gateway: Ipv4Addr) -> Route {
    Route { destination: destination.into(), prefix, gateway: Some(gateway.into()) }
}

fn answers(peer: &mut Peer, to: Ipv4Addr) -> bool {
    peer.inject(&echo_request(PEER_IP, to, b"ping"));
    match peer.next_packet() {
        Some(Packet::Icmp { source, .. }) => source == to,
        None => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_that_was_added_is_answered_for_until_it_is_removed() {
    let mut peer = Peer::new();
    assert!(!answers(&mut peer, SECOND));
    peer.stack.add_address(own(SECOND, 24)).unwrap();
    assert!(answers(&mut peer, SECOND) && answers(&mut peer, STACK_IP));
    let listed: Vec<_> =
        peer.stack.addresses().map(|one| (one.address, one.prefix, one.state)).collect();
    assert_eq!(
        listed,
        [
            (STACK_IP.into(), 24, AddressState::Preferred),
            (SECOND.into(), 24, AddressState::Preferred)
        ]
    );
    peer.stack.remove_address(SECOND.into()).unwrap();
    assert!(!answers(&mut peer, SECOND) && answers(&mut peer, STACK_IP));
    assert_eq!(peer.stack.counters().drop_ip_not_ours, 2);
}

#[test]
fn what_is_no_address_or_is_there_already_is_refused() {
    let mut peer = Peer::new();
    let kind = |own: InterfaceAddress, peer: &mut Peer| peer.stack.add_address(own).unwrap_err();
    assert_eq!(kind(own(STACK_IP, 24), &mut peer).kind(), ErrorKind::AlreadyExists);
    assert_eq!(kind(own(SECOND, 33), &mut peer).kind(), ErrorKind::InvalidInput);
    assert_eq!(kind(own(Ipv4Addr::UNSPECIFIED, 8), &mut peer).kind(), ErrorKind::InvalidInput);
    let mapped = InterfaceAddress { address: SECOND.to_ipv6_mapped().into(), prefix: 128 };
    assert_eq!(kind(mapped, &mut peer).kind(), ErrorKind::InvalidInput);
    let error = peer.stack.remove_address(SECOND.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    // As many as a connection's entry can name, and no more.
    for number in 1..255u8 {
        peer.stack.add_address(own(Ipv4Addr::new(10, 0, 0, number), 32)).unwrap();
    }
    assert_eq!(kind(own(SECOND, 24), &mut peer).kind(), ErrorKind::QuotaExceeded);
}

#[test]
fn removing_an_address_resets_its_connections_and_no_others() {
    let mut peer = Peer::new();
    peer.stack.add_address(own(SECOND, 24)).unwrap();
    let kept = peer.accepted();
    // Another connection, to the second address.
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 81);
    let listener = peer.stack.listen(any, 4).unwrap();
    let mut segment = TcpSegment {
        source: (PEER_IP, 6000),
        destination: (SECOND, 81),
        flags: SYN,
        ..TcpSegment::default()
    };
    peer.inject(&segment.bytes());
    let syn = peer.take().remove(0);
    (segment.flags, segment.sequence, segment.acknowledgement) = (ACK, 1, syn.seq.wrapping_add(1));
    peer.inject(&segment.bytes());
    let ended = peer.stack.accept(listener).unwrap().expect("a connection");

    peer.stack.remove_address(SECOND.into()).unwrap();
    let reset = peer.take();
    assert_eq!(reset.len(), 1);
    assert_eq!((reset[0].source, reset[0].flags), ((SECOND, 81), RST | ACK));
    assert_eq!(peer.stack.failure(ended).unwrap(), Some(Failure::Aborted));
    assert_eq!(peer.stack.info(ended).unwrap().local, SocketAddr::new(SECOND.into(), 81));
    assert!(peer.ready(ended).has(Ready::CLOSED));
    assert_eq!(peer.state(kept), State::Established);

    // The slot is not another's while the application has the connection.
    let third = Ipv4Addr::new(192, 0, 2, 78);
    peer.stack.add_address(own(third, 24)).unwrap();
    assert_eq!(peer.stack.info(ended).unwrap().local.ip(), IpAddr::from(SECOND));
    peer.stack.release(ended);
    peer.stack.check_invariants();
    peer.stack.close_listener(listener);
}

#[test]
fn the_longest_prefix_leads_and_a_removed_route_leads_nowhere() {
    let mut peer = Peer::new();
    peer.inject(&arp_packet(Operation::Request, (ROUTER_MAC, ROUTER), (Mac([0; 6]), STACK_IP)));
    peer.next_packet();
    let far = SocketAddr::new(Ipv4Addr::new(198, 51, 100, 9).into(), 7);
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    let next_hop = |peer: &mut Peer| {
        peer.stack.send_datagram(socket, b"?", Some(far)).map_err(|error| error.kind())?;
        match peer.next_packet() {
            Some(Packet::Udp { to, .. }) => Ok(to),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next_hop(&mut peer), Err(ErrorKind::NetworkUnreachable));
    let wide = route([198, 0, 0, 0], 8, ROUTER);
    let narrow = route([198, 51, 100, 0], 24, PEER_IP);
    peer.stack.add_route(wide).unwrap();
    assert_eq!(next_hop(&mut peer), Ok(ROUTER_MAC));
    peer.stack.add_route(narrow).unwrap();
    assert_eq!(next_hop(&mut peer), Ok(PEER_MAC));
    let on_link = Route { destination: [192, 0, 2, 0].into(), prefix: 24, gateway: None };
    let listed: Vec<_> = peer.stack.routes().collect();
    let info = |route, origin| RouteInfo { route, origin, expires: None };
    assert_eq!(
        listed,
        [
            info(on_link, RouteOrigin::Address),
            info(narrow, RouteOrigin::Configured),
            info(wide, RouteOrigin::Configured)
        ]
    );
    peer.stack.remove_route(narrow).unwrap();
    assert_eq!(next_hop(&mut peer), Ok(ROUTER_MAC));
    assert_eq!(peer.stack.remove_route(narrow).unwrap_err().kind(), ErrorKind::NotFound);
    peer.stack.remove_route(wide).unwrap();
    assert_eq!(next_hop(&mut peer), Err(ErrorKind::NetworkUnreachable));
}

#[test]
fn a_network_without_a_gateway_is_on_the_link() {
    let mut peer = Peer::with(|config| config.addresses[0].prefix = 32);
    let network = Ipv4Addr::new(198, 51, 100, 0);
    let on_link = Route { destination: network.into(), prefix: 24, gateway: None };
    let socket = peer.bind_datagram(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 9));
    let host = Ipv4Addr::new(198, 51, 100, 9);
    let asked = |peer: &mut Peer, to: [u8; 4]| {
        let to = SocketAddr::new(Ipv4Addr::from(to).into(), 7);
        peer.stack.send_datagram(socket, b"?", Some(to)).map_err(|error| error.kind())?;
        peer.collect();
        peer.advance_ms(0);
        match peer.next_packet() {
            Some(Packet::Arp { sender, target, .. }) => Ok((sender.1, target.1)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asked(&mut peer, host.octets()), Err(ErrorKind::NetworkUnreachable));
    peer.stack.add_route(on_link).unwrap();
    assert_eq!(asked(&mut peer, host.octets()), Ok((STACK_IP, host)));
    // A router may be there.
    let router = Ipv4Addr::new(198, 51, 100, 1);
    peer.stack.add_route(Route::default_by(router.into())).unwrap();
    assert_eq!(asked(&mut peer, [203, 0, 113, 1]), Ok((STACK_IP, router)));
    peer.advance_ms(10_000);
    while peer.next_packet().is_some() {}
}

#[test]
fn no_packet_leaves_for_what_is_no_other_host() {
    let mut peer = Peer::with(|config| config.gateway = Some(PEER_IP.into()));
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    for to in [[127, 0, 0, 1], [127, 9, 9, 9], [0, 0, 0, 0], [0, 0, 0, 5], [240, 0, 0, 1]] {
        let to = Ipv4Addr::from(to);
        for to in [IpAddr::V4(to), IpAddr::V6(to.to_ipv6_mapped())] {
            let to = SocketAddr::new(to, 80);
            for refused in [
                peer.stack.send_datagram(socket, b"?", Some(to)).unwrap_err(),
                peer.stack.connect_datagram(socket, to).unwrap_err(),
                peer.stack.connect(to, None).unwrap_err(),
            ] {
                assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
            }
        }
    }
    peer.expect_silence();
    // The limited broadcast is for this link.
    let all = SocketAddr::new(Ipv4Addr::BROADCAST.into(), 7);
    peer.stack.connect_datagram(socket, all).unwrap();
    peer.stack.send_datagram(socket, b"?", None).unwrap();
    assert!(matches!(peer.next_packet(), Some(Packet::Udp { to: Mac::BROADCAST, .. })));
}

#[test]
fn link_local_hosts_are_on_the_link_unless_a_route_names_them() {
    let mut peer = Peer::with(|config| config.gateway = Some(PEER_IP.into()));
    let (host, other) = (Ipv4Addr::new(169, 254, 1, 1), Ipv4Addr::new(169, 254, 169, 254));
    peer.stack.add_route(route([169, 254, 0, 0], 16, PEER_IP)).unwrap();
    peer.stack.add_route(route(other.octets(), 32, PEER_IP)).unwrap();
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    let mut send = |to: Ipv4Addr| {
        let to = SocketAddr::new(to.into(), 7);
        peer.stack.send_datagram(socket, b"?", Some(to)).unwrap();
        peer.collect();
        peer.advance_ms(0);
        peer.next_packet()
    };
    match send(host) {
        Some(Packet::Arp { target, .. }) => assert_eq!(target.1, host),
        other => panic!("{other:?}"),
    }
    match send(other) {
        Some(Packet::Udp { to, destination, .. }) => {
            assert_eq!((to, destination.0), (PEER_MAC, other));
        }
        packet => panic!("{packet:?}"),
    }
    peer.advance_ms(10_000);
    while peer.next_packet().is_some() {}
}

#[test]
fn what_is_no_route_is_refused() {
    let mut peer = Peer::with(|config| config.routes = 1);
    for wrong in [
        route([198, 51, 100, 0], 33, ROUTER),
        route([198, 51, 100, 0], 24, Ipv4Addr::new(10, 0, 0, 1)),
        route([198, 51, 100, 0], 24, STACK_IP),
        route([224, 0, 0, 0], 4, ROUTER),
        Route { gateway: Some("fe80::1".parse().unwrap()), ..route([10, 0, 0, 0], 8, ROUTER) },
        Route { destination: "::ffff:10.0.0.0".parse().unwrap(), prefix: 104, gateway: None },
    ] {
        let error = peer.stack.add_route(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    peer.stack.add_route(route([198, 51, 100, 0], 24, ROUTER)).unwrap();
    let error = peer.stack.add_route(route([198, 51, 101, 0], 24, ROUTER)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
}

#[test]
fn open_connections_follow_a_new_route() {
    let mut peer = Peer::with(|config| config.gateway = Some(PEER_IP.into()));
    peer.inject(&arp_packet(Operation::Request, (ROUTER_MAC, ROUTER), (Mac([0; 6]), STACK_IP)));
    assert!(matches!(peer.next_packet(), Some(Packet::Arp { sender: (STACK_MAC, _), .. })));
    let far = Ipv4Addr::new(198, 51, 100, 9);
    let id = peer.stack.connect(SocketAddr::new(far.into(), 80), None).unwrap();
    let first = peer.take();
    assert_eq!((first[0].flags, first[0].to), (SYN, PEER_MAC));
    peer.stack.add_route(route([198, 51, 100, 0], 24, ROUTER)).unwrap();
    peer.advance_ms(1100);
    let again = peer.take();
    assert_eq!((again[0].flags, again[0].to), (SYN, ROUTER_MAC));
    // Without any way the packet is lost by name, and the connection goes on trying.
    peer.stack.abort(id);
    peer.stack.release(id);
}
