//! What routers make a stack remember is bounded, and no router takes the room of the others
//! (RFC 4861 §6.3.4).

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use millrace_stack::{AddressOrigin, InterfaceAddress, RouteOrigin, State};

use crate::common::craft::{PEER_IP, PEER_MAC, Packet, STACK_IP};
use crate::common::craft6::RouterAdvertisement;
use crate::common::peer::Peer;
use crate::slaac::{
    BOTH, FAR, PREFIX, SECOND, advertise, default_routes, end, listening, made, v6,
};

#[test]
fn what_routers_make_us_remember_is_bounded() {
    let mut peer = listening(|config| config.ipv6.temporary_addresses = true);
    for number in 0..60u16 {
        let mut advertisement = RouterAdvertisement {
            source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number),
            ..RouterAdvertisement::default()
        };
        for part in 0..6 {
            let prefix = Ipv6Addr::new(0x2001, 0xdb8, number, part, 0, 0, 0, 0);
            advertisement =
                advertisement.prefix(prefix, BOTH, 7200, 3600).route(prefix, 56, 0, 600);
        }
        peer.inject(&advertisement.bytes());
    }
    let learned = peer.stack.routes().filter(|one| one.origin == RouteOrigin::Router).count();
    assert_eq!(learned, 16);
    assert_eq!(made(&peer, AddressOrigin::Stable).len(), 8);
    assert!(peer.stack.addresses().count() <= 1 + 8 + 8);
    assert!(peer.stack.counters().learned_routes_refused > 0);
    assert!(peer.stack.counters().learned_prefixes_refused > 0);
    end(&mut peer);
}

const STRANGER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66);

/// An advertisement of one that is no default router.
fn by_a_stranger() -> RouterAdvertisement {
    RouterAdvertisement { source: STRANGER, lifetime: 0, ..RouterAdvertisement::default() }
}

fn local_network(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, number, 0, 0, 0, 0, 0, 0)
}

fn learned(peer: &Peer) -> usize {
    peer.stack.routes().filter(|one| one.origin == RouteOrigin::Router).count()
}

#[test]
fn a_router_that_tells_many_routes_is_the_default_one_before_all() {
    let mut peer = listening(|_| {});
    let many = (0..17).fold(RouterAdvertisement::default(), |one, number| {
        one.route(local_network(number), 48, 0, 1800)
    });
    peer.inject(&many.bytes());
    assert_eq!((default_routes(&peer), learned(&peer)), (1, 16));
    assert_eq!(peer.stack.counters().learned_routes_refused, 2);
    end(&mut peer);
}

#[test]
fn no_router_takes_the_room_of_all_others() {
    // RFC 4861 §6.3.4: two default routers are remembered at least.
    type Add = fn(RouterAdvertisement, u16) -> RouterAdvertisement;
    let route: Add = |one, number| one.route(local_network(number), 48, 0, u32::MAX);
    let on_link: Add = |one, number| one.prefix(local_network(number), 0x80, u32::MAX, u32::MAX);
    for add in [route, on_link] {
        let flood = (0..16).fold(by_a_stranger(), add).bytes();
        let mut peer = listening(|_| {});
        peer.inject(&flood);
        peer.advance(Duration::from_secs(100 * 86_400));
        while peer.next_packet().is_some() {}
        let told = |peer: &Peer| {
            let on_link = peer.stack.routes().any(|one| one.route.destination == PREFIX);
            (default_routes(peer), on_link, learned(peer))
        };
        advertise(&mut peer, |one| one.prefix(PREFIX, 0x80, 7200, 7200));
        assert_eq!(told(&peer), (1, true, 16));
        // The stranger does not get it back, and a third router finds room as well.
        peer.inject(&flood);
        assert_eq!(told(&peer), (1, true, 16));
        let third = RouterAdvertisement { source: SECOND, ..RouterAdvertisement::default() };
        peer.inject(&third.bytes());
        assert_eq!(told(&peer), (2, true, 16));
        end(&mut peer);
    }
}

#[test]
fn no_router_takes_the_prefixes_of_all_others() {
    let mut peer = listening(|_| {});
    let flood = (0..8).fold(by_a_stranger(), |one, number| {
        one.prefix(local_network(number), 0x40, u32::MAX, u32::MAX)
    });
    peer.inject(&flood.bytes());
    assert_eq!(made(&peer, AddressOrigin::Stable).len(), 8);
    let of_ours = |peer: &Peer| {
        let made = made(peer, AddressOrigin::Stable);
        made.iter().filter(|one| v6(one.address).segments()[..4] == PREFIX.segments()[..4]).count()
    };
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 7200, 3600));
    assert_eq!((of_ours(&peer), made(&peer, AddressOrigin::Stable).len()), (1, 8));
    peer.inject(&flood.bytes());
    assert_eq!((of_ours(&peer), made(&peer, AddressOrigin::Stable).len()), (1, 8));
    end(&mut peer);
}

#[test]
fn no_address_that_a_connection_uses_makes_way() {
    let mut peer = listening(|config| config.ipv6.learned_prefixes = 2);
    let second = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0);
    advertise(&mut peer, |one| {
        one.prefix(PREFIX, BOTH, 7200, 3600).prefix(second, BOTH, 7200, 3600)
    });
    let addresses = |peer: &Peer| -> Vec<IpAddr> {
        made(peer, AddressOrigin::Stable).iter().map(|one| one.address).collect()
    };
    let before = addresses(&peer);
    let far = SocketAddr::new(FAR.into(), 80);
    let mut connect = |own| peer.stack.connect(far, Some(SocketAddr::new(own, 0))).unwrap();
    let ids = [connect(before[0]), connect(before[1])];
    let stranger = by_a_stranger().prefix(local_network(1), 0x40, u32::MAX, u32::MAX).bytes();
    peer.inject(&stranger);
    assert_eq!(addresses(&peer), before);
    for id in ids {
        assert_eq!(peer.state(id), State::SynSent);
        peer.stack.abort(id);
        peer.stack.release(id);
    }
    peer.inject(&stranger);
    let after = addresses(&peer);
    assert_eq!((after.len(), after.contains(&before[0])), (2, true));
    assert!(!after.contains(&before[1]));
    end(&mut peer);
}

/// IPv4 written as IPv6 (RFC 4291 §2.5.5.2) is on no link.
#[test]
fn a_router_of_ipv6_leads_nowhere_by_ipv4() {
    let mut peer = listening(|config| {
        config.addresses = vec![InterfaceAddress { address: STACK_IP.into(), prefix: 24 }];
        config.gateway = Some(PEER_IP.into());
    });
    peer.introduce();
    advertise(&mut peer, |one| {
        one.route("::ffff:0.0.0.0".parse().unwrap(), 96, 1, 600).route(
            "::ffff:198.51.100.0".parse().unwrap(),
            120,
            0,
            600,
        )
    });
    assert_eq!((default_routes(&peer), learned(&peer)), (1, 1));
    let socket = peer.bind_datagram("0.0.0.0:9".parse().unwrap());
    let far = "198.51.100.9:7".parse().unwrap();
    peer.stack.send_datagram(socket, b"?", Some(far)).unwrap();
    assert!(matches!(peer.next_packet(), Some(Packet::Udp { to: PEER_MAC, .. })));
    end(&mut peer);
}
