//! Router discovery (RFC 4861 §6.3, RFC 4191, RFC 7559) and addresses made from prefixes (RFC 4862
//! §5.5, RFC 7217, RFC 8981).

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use millrace_stack::{
    AddressInfo, AddressOrigin, AddressState, Config, InterfaceAddress, RouteOrigin, State,
};
use millrace_wire::mac::Mac;
use millrace_wire::ndp::{AdvertisementFlags, Message, group_mac, solicited_node};
use millrace_wire::protocol;

use crate::common::craft::{PEER_MAC, Packet, STACK_MAC};
use crate::common::craft6::{
    ALL_NODES, ALL_ROUTERS, PEER_LINK, PEER_V6, RouterAdvertisement, STACK_V6, V6, advertisement,
    extended, fragments, solicitation,
};
use crate::common::peer::Peer;
use crate::six;

pub(crate) const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
pub(crate) const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 9);
/// On the link, and addresses may be made from it.
pub(crate) const BOTH: u8 = 0xc0;
pub(crate) const SECOND: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 3);

/// A stack that configures itself, without duplicate address detection unless a test wants it.
pub(crate) fn listening(change: impl FnOnce(&mut Config)) -> Peer {
    six(|config| {
        config.addresses.clear();
        config.ipv6.router_discovery = true;
        config.ipv6.link_local = true;
        config.ipv6.temporary_addresses = false;
        change(config);
    })
}

pub(crate) fn advertise(
    peer: &mut Peer,
    change: impl FnOnce(RouterAdvertisement) -> RouterAdvertisement,
) {
    peer.inject(&change(RouterAdvertisement::default()).bytes());
}

/// Lets go of what routers told, so that nothing is left to wait for.
pub(crate) fn end(peer: &mut Peer) {
    peer.advance(Duration::from_secs(40 * 24 * 3600));
    while peer.next_packet().is_some() {}
    for router in [PEER_LINK, SECOND] {
        let source = RouterAdvertisement { source: router, ..RouterAdvertisement::default() };
        peer.inject(&RouterAdvertisement { lifetime: 10, ..source.clone() }.bytes());
    }
    let own: Vec<_> = peer.stack.addresses().map(|one| one.address).collect();
    for address in own {
        peer.stack.remove_address(address).unwrap();
    }
    // Nobody is asked any more for as long as this one lasts.
    let lasting = RouterAdvertisement::default().route(Ipv6Addr::UNSPECIFIED, 0, 0, u32::MAX);
    peer.inject(&lasting.bytes());
    while peer.next_packet().is_some() {}
}

pub(crate) fn made(peer: &Peer, origin: AddressOrigin) -> Vec<AddressInfo> {
    peer.stack.addresses().filter(|one| one.origin == origin).collect()
}

pub(crate) fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => panic!("{address}"),
    }
}

/// Sends a datagram to a destination and says where it went: the hardware address, or whom the
/// stack asks for.
#[track_caller]
pub(crate) fn next_hop(peer: &mut Peer, to: Ipv6Addr) -> Result<Mac, Ipv6Addr> {
    let socket =
        peer.stack.bind_datagram(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)).unwrap();
    peer.stack.send_datagram(socket, b"?", Some(SocketAddr::new(to.into(), 7))).unwrap();
    peer.stack.close_datagram(socket);
    peer.collect();
    peer.advance(Duration::ZERO);
    let packet = peer.expect_v6();
    match packet.protocol {
        protocol::UDP => Ok(packet.to),
        _ => match packet.ndp() {
            Message::NeighbourSolicitation { target, .. } => Err(target),
            other => panic!("{other:?}"),
        },
    }
}

#[track_caller]
fn expect_router_solicitation(peer: &mut Peer) -> (V6, Option<Mac>) {
    let packet = peer.expect_v6();
    let Message::RouterSolicitation { options } = packet.ndp() else { panic!("{packet:?}") };
    assert_eq!((packet.destination, packet.to), (ALL_ROUTERS, group_mac(ALL_ROUTERS)));
    let mac = options.source_link_layer();
    (packet, mac)
}

#[test]
fn routers_are_asked_less_and_less_often_until_one_answers() {
    let mut peer = listening(|_| {});
    let link_local = v6(made(&peer, AddressOrigin::LinkLocal)[0].address);
    assert!(peer.wait() <= Duration::from_secs(1));
    let (first, mac) = expect_router_solicitation(&mut peer);
    assert_eq!((first.source, mac), (link_local, Some(STACK_MAC)));
    let mut last = Duration::ZERO;
    for number in 0..14 {
        let time = peer.wait();
        expect_router_solicitation(&mut peer);
        match number {
            0 => assert_eq!(time, Duration::from_secs(4)),
            // Twice the last, more or less a tenth of it (RFC 7559 §2).
            1..=8 => assert!(time >= last * 19 / 10 && time <= last * 21 / 10, "{time:?}"),
            _ => assert!(time <= Duration::from_secs(3960), "{time:?}"),
        }
        last = time;
    }
    advertise(&mut peer, |advertisement| advertisement);
    peer.advance(Duration::from_secs(1799));
    peer.expect_silence();
    // The only router's time is over: another is wanted.
    peer.advance(Duration::from_secs(3));
    expect_router_solicitation(&mut peer);
    end(&mut peer);
}

#[test]
fn without_a_link_local_address_nobody_asks() {
    let mut peer = listening(|config| config.ipv6.dad_transmits = 2);
    // Its own detection goes on while routers are asked.
    let asked = loop {
        assert!(peer.wait() <= Duration::from_secs(1));
        let packet = peer.expect_v6();
        if let Message::RouterSolicitation { options } = packet.ndp() {
            break (packet.source, options.source_link_layer());
        }
    };
    assert_eq!(asked, (Ipv6Addr::UNSPECIFIED, None));
    end(&mut peer);
}

#[test]
fn an_optimist_asks_without_its_hardware_address() {
    let mut peer = listening(|config| {
        config.ipv6.dad_transmits = 3;
        config.ipv6.optimistic = true;
    });
    let link_local = v6(made(&peer, AddressOrigin::LinkLocal)[0].address);
    let asked = loop {
        assert!(peer.wait() <= Duration::from_secs(1));
        let packet = peer.expect_v6();
        if let Message::RouterSolicitation { options } = packet.ndp() {
            break (packet.source, options.source_link_layer());
        }
    };
    assert_eq!(asked, (link_local, None));
    // Once it is sure of its address, with it.
    peer.advance(Duration::from_secs(3));
    while peer.next_packet().is_some() {}
    peer.wait();
    assert_eq!(expect_router_solicitation(&mut peer).1, Some(STACK_MAC));
    end(&mut peer);
}

#[test]
fn a_router_leads_everywhere_for_its_lifetime() {
    let mut peer = listening(|_| {});
    advertise(&mut peer, |one| {
        RouterAdvertisement { lifetime: 100, ..one }.prefix(PREFIX, BOTH, 7200, 3600)
    });
    assert_eq!(next_hop(&mut peer, FAR), Ok(PEER_MAC));
    // Who is on the link is asked for there.
    let neighbour = Ipv6Addr::from_bits(PREFIX.to_bits() | 0x77);
    assert_eq!(next_hop(&mut peer, neighbour), Err(neighbour));
    let origins: Vec<_> = peer.stack.routes().map(|one| (one.route.prefix, one.origin)).collect();
    assert_eq!(
        origins,
        [(64, RouteOrigin::Address), (64, RouteOrigin::Router), (0, RouteOrigin::Router)]
    );
    peer.advance(Duration::from_secs(101));
    while peer.next_packet().is_some() {}
    let remote = Some(SocketAddr::new(FAR.into(), 7));
    let socket =
        peer.stack.bind_datagram(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 9)).unwrap();
    let error = peer.stack.send_datagram(socket, b"?", remote).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
    peer.stack.close_datagram(socket);
    end(&mut peer);
}

#[test]
fn advertisements_that_are_not_a_routers_are_malformed() {
    let mut peer = listening(|_| {});
    let good = RouterAdvertisement::default().prefix(PREFIX, BOTH, 7200, 3600);
    let mut not_from_the_link = good.bytes();
    not_from_the_link[21] = 254;
    let global = RouterAdvertisement { source: PEER_V6, ..good.clone() };
    for message in [not_from_the_link, global.bytes()] {
        peer.inject(&message);
    }
    assert_eq!(peer.stack.counters().drop_ndp_malformed, 2);
    assert!(made(&peer, AddressOrigin::Stable).is_empty());
    // And a stack that does not configure itself does not listen.
    let mut deaf = six(|config| config.ipv6.link_local = true);
    deaf.inject(&good.bytes());
    assert_eq!(deaf.stack.counters().drop_ndp_not_ours, 1);
    assert!(made(&deaf, AddressOrigin::Stable).is_empty());
    end(&mut peer);
}

#[test]
fn what_a_router_tells_of_the_link_is_taken_within_reason() {
    let mut peer = listening(|_| {});
    advertise(&mut peer, |one| {
        RouterAdvertisement { hop_limit: 33, retransmit_ms: 250, ..one }
            .prefix(PREFIX, BOTH, 7200, 3600)
            .mtu(1400)
    });
    let socket = peer.bind_datagram(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 9));
    let remote = Some(SocketAddr::new(FAR.into(), 7));
    peer.stack.send_datagram(socket, &[0; 1400 - 48], remote).unwrap();
    assert_eq!(peer.expect_v6().hop_limit, 33);
    peer.stack.set_dont_fragment(socket, true).unwrap();
    assert!(peer.stack.send_datagram(socket, &[0; 1400 - 47], remote).is_err());
    // A smaller MTU than any link has, a larger one than this has, a hop limit of one, and timers
    // that would make a flood or a standstill.
    for mtu in [1279, 9000, u32::MAX] {
        advertise(&mut peer, |one| RouterAdvertisement { hop_limit: 1, ..one }.mtu(mtu));
    }
    peer.stack.send_datagram(socket, &[0; 1400 - 48], remote).unwrap();
    assert_eq!(peer.expect_v6().hop_limit, 33);
    let neighbour = Ipv6Addr::from_bits(PREFIX.to_bits() | 0x77);
    assert_eq!(next_hop(&mut peer, neighbour), Err(neighbour));
    assert_eq!(peer.wait(), Duration::from_millis(250));
    end(&mut peer);
}

#[test]
fn several_routers_by_preference_and_the_dead_last() {
    let mut peer = listening(|_| {});
    let router = |source, preference, mac: u8| {
        let options = vec![1, 1, 2, 0, 0, 0, 0, mac];
        let one = RouterAdvertisement { source, preference, options, ..Default::default() };
        // Both, or packets from there would go by the one that does (RFC 8028).
        one.prefix(PREFIX, BOTH, 7200, 3600)
    };
    peer.inject(&router(PEER_LINK, 0, 2).bytes());
    assert_eq!(next_hop(&mut peer, FAR), Ok(PEER_MAC));
    // Low, then high (RFC 4191 §2.1).
    peer.inject(&router(SECOND, 3, 3).bytes());
    assert_eq!(next_hop(&mut peer, FAR), Ok(PEER_MAC));
    peer.inject(&router(SECOND, 1, 3).bytes());
    assert_eq!(next_hop(&mut peer, FAR), Ok(Mac([2, 0, 0, 0, 0, 3])));
    // It does not answer any more: five seconds, three questions, and the other is taken.
    peer.advance(Duration::from_secs(9));
    while peer.next_packet().is_some() {}
    // Nor did the other, until it spoke up again.
    peer.inject(&router(PEER_LINK, 0, 2).bytes());
    assert_eq!(next_hop(&mut peer, FAR), Ok(PEER_MAC));
    // A more specific route leads by its own (RFC 4191 §2.3).
    peer.inject(&router(SECOND, 0, 3).route(FAR, 48, 0, 600).bytes());
    assert_eq!(next_hop(&mut peer, FAR), Ok(Mac([2, 0, 0, 0, 0, 3])));
    // One that says it is no router is none.
    let flags = AdvertisementFlags { override_: true, ..AdvertisementFlags::default() };
    let stack = v6(made(&peer, AddressOrigin::LinkLocal)[0].address);
    peer.inject(&advertisement((SECOND, stack), SECOND, flags, None));
    assert_eq!(next_hop(&mut peer, FAR), Ok(PEER_MAC));
    end(&mut peer);
}

pub(crate) fn default_routes(peer: &Peer) -> usize {
    let routes = peer.stack.routes();
    routes.filter(|one| one.origin == RouteOrigin::Router && one.route.prefix == 0).count()
}

#[test]
fn an_advertisement_that_is_not_taken_leaves_the_router_a_router() {
    // Another hardware address, without insisting (RFC 4861 §7.2.5).
    let mut peer = listening(|_| {});
    advertise(&mut peer, |one| one);
    let flags = AdvertisementFlags::default();
    let other = Mac([2, 0, 0, 0, 0, 9]);
    peer.inject(&advertisement((PEER_LINK, ALL_NODES), PEER_LINK, flags, Some(other)));
    assert_eq!(default_routes(&peer), 1);
    assert_eq!(peer.stack.counters().drop_ndp_not_ours, 1);
    // The same hardware address is one that the router is known by.
    peer.inject(&advertisement((PEER_LINK, ALL_NODES), PEER_LINK, flags, Some(PEER_MAC)));
    assert_eq!(default_routes(&peer), 0);
    end(&mut peer);
    // A neighbour that is not in the cache.
    let mut peer = listening(|_| {});
    advertise(&mut peer, |one| RouterAdvertisement { options: vec![], ..one });
    peer.inject(&advertisement((PEER_V6, ALL_NODES), PEER_LINK, flags, None));
    assert_eq!(default_routes(&peer), 1);
    assert_eq!(peer.stack.counters().drop_ndp_not_ours, 1);
    end(&mut peer);
}

#[test]
fn an_advertisement_in_fragments_is_ignored() {
    let mut peer = listening(|_| {});
    let router = RouterAdvertisement::default().bytes();
    peer.inject(&extended(&router, 44, 0));
    for part in fragments(&router, 40 + 8 + 16, 7) {
        peer.inject(&part);
    }
    assert_eq!(default_routes(&peer), 0);
    assert_eq!(peer.stack.counters().drop_ndp_fragment, 2);
    end(&mut peer);
}

// Addresses.

#[test]
fn a_stable_address_is_the_same_for_the_same_network_and_secret() {
    let address = |seed: u64, secret, prefix: Ipv6Addr| {
        let mut peer = listening(|config| {
            config.seed = [seed, 2, 3, 4];
            config.ipv6.stable_secret = secret;
        });
        advertise(&mut peer, |one| one.prefix(prefix, BOTH, 7200, 3600));
        let made = made(&peer, AddressOrigin::Stable);
        assert_eq!((made.len(), made[0].prefix, made[0].state), (1, 64, AddressState::Preferred));
        let address = v6(made[0].address);
        assert_eq!(address.to_bits() >> 64, prefix.to_bits() >> 64);
        end(&mut peer);
        address.to_bits() as u64
    };
    let other = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0);
    let secret = Some([7, 8]);
    assert_eq!(address(1, secret, PREFIX), address(99, secret, PREFIX));
    assert_ne!(address(1, secret, PREFIX), address(1, secret, other));
    assert_ne!(address(1, secret, PREFIX), address(1, Some([7, 9]), PREFIX));
    assert_eq!(address(1, None, PREFIX), address(1, None, PREFIX));
    assert_ne!(address(1, None, PREFIX), address(2, None, PREFIX));
}

#[test]
fn prefixes_that_no_address_can_be_made_from_make_none() {
    let mut peer = listening(|_| {});
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    advertise(&mut peer, |one| {
        one.prefix(PREFIX, 0x80, 7200, 3600)
            .prefix(PREFIX, BOTH, 3600, 7200)
            .prefix(PREFIX, BOTH, 0, 0)
            .prefix(link_local, BOTH, 7200, 3600)
            .prefix("ff02::".parse().unwrap(), BOTH, 7200, 3600)
    });
    let mut odd = RouterAdvertisement::default().prefix(PREFIX, BOTH, 7200, 3600);
    // Of 65 bits.
    odd.options[8 + 2] = 65;
    peer.inject(&odd.bytes());
    assert!(made(&peer, AddressOrigin::Stable).is_empty());
    let mut off = listening(|config| config.ipv6.slaac = false);
    advertise(&mut off, |one| one.prefix(PREFIX, BOTH, 7200, 3600));
    assert!(made(&off, AddressOrigin::Stable).is_empty());
    assert_eq!(off.stack.routes().filter(|one| one.origin == RouteOrigin::Router).count(), 2);
    end(&mut peer);
    end(&mut off);
}

#[test]
fn lifetimes_deprecate_and_remove() {
    let mut peer = listening(|_| {});
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 200, 100));
    let state = |peer: &Peer| made(peer, AddressOrigin::Stable).first().map(|one| one.state);
    assert_eq!(state(&peer), Some(AddressState::Preferred));
    peer.advance(Duration::from_secs(100));
    assert_eq!(state(&peer), Some(AddressState::Deprecated));
    // Preferred again, by the next advertisement.
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 200, 100));
    assert_eq!(state(&peer), Some(AddressState::Preferred));
    peer.advance(Duration::from_secs(199));
    assert_eq!(state(&peer), Some(AddressState::Deprecated));
    peer.advance(Duration::from_secs(1));
    assert_eq!(state(&peer), None);
    end(&mut peer);
}

#[test]
fn one_forged_advertisement_takes_no_address_away() {
    let mut peer = listening(|_| {});
    let valid = |peer: &Peer| {
        let at = made(peer, AddressOrigin::Stable)[0].valid_until.unwrap();
        at.saturating_since(peer.now).as_secs()
    };
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 100_000, 50_000));
    // RFC 4862 §5.5.3 e: two hours are left whatever it says.
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 1, 1));
    assert_eq!(valid(&peer), 7200);
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 0, 0));
    assert_eq!(valid(&peer), 7200);
    peer.advance(Duration::from_secs(7000));
    while peer.next_packet().is_some() {}
    assert_eq!(valid(&peer), 200);
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 100, 50));
    assert_eq!(valid(&peer), 200);
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 300, 50));
    assert_eq!(valid(&peer), 300);
    end(&mut peer);
}

#[test]
fn nor_a_temporary_address_and_its_connections() {
    let mut peer = listening(|config| config.ipv6.temporary_addresses = true);
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 100_000, 50_000));
    let id = peer.stack.connect(SocketAddr::new(FAR.into(), 80), None).unwrap();
    peer.expect_v6();
    // RFC 8981 §3.4 (1): by the same rule as stable ones.
    for lifetime in [1, 0] {
        advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, lifetime, lifetime));
        let temporary = made(&peer, AddressOrigin::Temporary);
        assert_eq!(temporary.len(), 1);
        let left = temporary[0].valid_until.unwrap().saturating_since(peer.now);
        assert_eq!(left, Duration::from_secs(7200));
        assert_eq!(peer.state(id), State::SynSent);
    }
    peer.stack.abort(id);
    peer.stack.release(id);
    end(&mut peer);
}

#[test]
fn a_duplicate_makes_another_address_three_times() {
    let mut peer = listening(|config| {
        config.ipv6.dad_transmits = 1;
        config.ipv6.link_local = false;
    });
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 7200, 3600));
    let mut tried = Vec::new();
    let of_prefix = |peer: &Peer| made(peer, AddressOrigin::Stable)[0];
    while of_prefix(&peer).state == AddressState::Tentative {
        let one = of_prefix(&peer);
        let address = v6(one.address);
        assert!(!tried.contains(&address));
        tried.push(address);
        // Within a second it is asked for, and another host wants the same.
        peer.advance(Duration::from_secs(1));
        peer.inject(&solicitation(Ipv6Addr::UNSPECIFIED, address, None));
    }
    assert_eq!(tried.len(), 3);
    assert_eq!(peer.stack.counters().duplicate_addresses, 3);
    // What is told again begins nothing again (RFC 7217 §6), until it was not told for a while.
    for _ in 0..3 {
        peer.advance(Duration::from_secs(600));
        advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 7200, 3600));
        assert_eq!(of_prefix(&peer).state, AddressState::Duplicate);
        assert_eq!(v6(of_prefix(&peer).address), tried[2]);
    }
    let remote = SocketAddr::new(FAR.into(), 80);
    assert!(peer.stack.connect(remote, None).is_err(), "nothing is sent from it");
    peer.advance(Duration::from_secs(7201));
    assert!(made(&peer, AddressOrigin::Stable).is_empty());
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, 7200, 3600));
    assert_eq!(of_prefix(&peer).state, AddressState::Tentative);
    end(&mut peer);
}

/// RFC 8981 §3.4: after three duplicates none is tried any more.
#[test]
fn duplicates_end_temporary_addresses() {
    let mut peer = listening(|config| {
        config.ipv6.dad_transmits = 1;
        config.ipv6.link_local = false;
        config.ipv6.temporary_addresses = true;
        config.ipv6.temporary_preferred = Duration::from_secs(3600);
        config.ipv6.temporary_valid = Duration::from_secs(2 * 3600);
    });
    let tell = |peer: &mut Peer| advertise(peer, |one| one.prefix(PREFIX, BOTH, 86_400, 86_400));
    tell(&mut peer);
    let mut tried = 0;
    let temporary = |peer: &Peer| made(peer, AddressOrigin::Temporary)[0];
    while temporary(&peer).state == AddressState::Tentative {
        tried += 1;
        let address = v6(temporary(&peer).address);
        peer.advance(Duration::from_secs(1));
        peer.inject(&solicitation(Ipv6Addr::UNSPECIFIED, address, None));
    }
    assert_eq!(tried, 3);
    for _ in 0..20 {
        peer.advance(Duration::from_secs(1200));
        tell(&mut peer);
        let left: Vec<_> = made(&peer, AddressOrigin::Temporary);
        assert_eq!(left.iter().map(|one| one.state).collect::<Vec<_>>(), [AddressState::Duplicate]);
    }
    assert_eq!(peer.stack.counters().duplicate_addresses, 3);
    assert_eq!(made(&peer, AddressOrigin::Stable)[0].state, AddressState::Preferred);
    end(&mut peer);
}

#[test]
fn temporary_addresses_come_and_go() {
    let day = Duration::from_secs(24 * 3600);
    let mut peer = listening(|config| config.ipv6.temporary_addresses = true);
    let advertise = |peer: &mut Peer| {
        let one = RouterAdvertisement { lifetime: 65_535, ..RouterAdvertisement::default() };
        peer.inject(&one.prefix(PREFIX, BOTH, 30 * 86_400, 7 * 86_400).bytes());
        while peer.next_packet().is_some() {}
    };
    advertise(&mut peer);
    let first = made(&peer, AddressOrigin::Temporary);
    let stable = made(&peer, AddressOrigin::Stable)[0].address;
    assert_eq!(first.len(), 1);
    assert_ne!(first[0].address, stable);
    // At most a day less two fifths, and two days (RFC 8981 §3.4).
    let preferred = first[0].preferred_until.unwrap().saturating_since(peer.now);
    assert!(preferred <= day && preferred >= day * 3 / 5, "{preferred:?}");
    assert_eq!(first[0].valid_until.unwrap().saturating_since(peer.now), day * 2);
    // What goes out comes from it.
    let id = peer.stack.connect(SocketAddr::new(FAR.into(), 80), None).unwrap();
    assert_eq!(peer.stack.info(id).unwrap().local.ip(), first[0].address);
    peer.stack.release(id);
    // Another is made before it is deprecated, whatever the router says meanwhile.
    let (begin, mut most) = (peer.now, 0);
    let mut seen = vec![first[0].address];
    while peer.now < begin + day * 3 {
        advertise(&mut peer);
        let now = made(&peer, AddressOrigin::Temporary);
        most = most.max(now.len());
        assert!(now.iter().any(|one| one.state == AddressState::Preferred));
        for one in now {
            if !seen.contains(&one.address) {
                seen.push(one.address);
            }
        }
        peer.advance(Duration::from_secs(600));
        while peer.next_packet().is_some() {}
    }
    assert!((4..=6).contains(&seen.len()), "{}", seen.len());
    assert!(most <= 4, "{most}");
    let left = made(&peer, AddressOrigin::Temporary);
    assert!(left.iter().all(|one| one.address != first[0].address), "it lives too long");
    end(&mut peer);
}

#[test]
fn groups_of_solicitations_are_joined_and_left() {
    let mut peer = six(|_| {});
    let joined = |peer: &Peer| -> Vec<IpAddr> {
        peer.stack.multicast_groups().into_iter().map(|one| one.group).collect()
    };
    assert_eq!(joined(&peer), [IpAddr::from(solicited_node(STACK_V6))]);
    // Another with the same last bits is in the same group.
    let twin = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 1);
    peer.stack.add_address(InterfaceAddress { address: twin.into(), prefix: 64 }).unwrap();
    assert_eq!(joined(&peer).len(), 1);
    peer.stack.remove_address(STACK_V6.into()).unwrap();
    assert_eq!(joined(&peer).len(), 1);
    peer.stack.remove_address(twin.into()).unwrap();
    assert_eq!(joined(&peer).len(), 0);
    while let Some(packet) = peer.next_packet() {
        assert!(matches!(packet, Packet::V6(_)));
    }
}
