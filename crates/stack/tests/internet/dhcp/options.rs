//! What a server tells besides the address: routes, MTU, times, names.

use core::net::{IpAddr, SocketAddr};

use millrace_stack::{InterfaceAddress, Route};
use millrace_wire::arp::Operation;
use millrace_wire::dhcpv4::{MessageType, option};
use millrace_wire::mac::Mac;

use super::{Client, GIVEN, LEASE, Options, SECOND, SERVER, ip, own};
use crate::common::craft::{self, PEER_IP, PEER_MAC, STACK_MAC};
use crate::common::peer::{ACK, SYN};

#[test]
fn everything_that_the_server_tells_is_there() {
    let options: Options<'_> = &[
        (option::SUBNET_MASK, &[255, 255, 255, 0]),
        (option::LEASE_TIME, &[0, 0, 14, 16]),
        (option::ROUTER, &[192, 0, 2, 254]),
        (option::DOMAIN_NAME_SERVER, &[192, 0, 2, 53, 198, 51, 100, 53, 255, 255, 255, 255]),
        (option::DOMAIN_NAME, b"example.org\0"),
        (option::DOMAIN_SEARCH, b"\x03lab\x07example\x03org\0\xc0\x04"),
        (option::INTERFACE_MTU, &[5, 0]),
        (
            option::CLASSLESS_ROUTES,
            &[8, 10, 192, 0, 2, 253, 0, 192, 0, 2, 252, 16, 172, 16, 0, 0, 0, 0, 8, 11, 9, 9, 9, 9],
        ),
    ];
    let mut client = Client::bound(options);
    let lease = client.stack.dhcp_lease().unwrap();
    assert_eq!(lease.server, SERVER);
    assert_eq!(lease.name_servers, [ip("192.0.2.53"), ip("198.51.100.53")]);
    assert_eq!(lease.domain.as_deref(), Some("example.org"));
    assert_eq!(lease.search_domains, ["lab.example.org", "example.org"]);
    assert_eq!(lease.mtu, Some(1280));
    let start = client.now;
    assert_eq!(lease.renew_at, Some(start + 1800 * SECOND));
    assert_eq!(lease.rebind_at, Some(start + 3150 * SECOND));
    assert_eq!(lease.expires, Some(start + 3600 * SECOND));
    assert_eq!(client.stack.config().mtu, 1280);
    // Option 121 replaces the router of option 3; a router that is nowhere is left out, and counted.
    assert_eq!(client.stack.counters().dhcp_routes_refused, 1);
    let routes: Vec<_> = client.stack.routes().map(|info| info.route).collect();
    let route = |to: &str, prefix, gateway: Option<&str>| Route {
        destination: ip(to),
        prefix,
        gateway: gateway.map(ip),
    };
    assert!(routes.contains(&route("10.0.0.0", 8, Some("192.0.2.253"))), "{routes:?}");
    assert!(routes.contains(&route("0.0.0.0", 0, Some("192.0.2.252"))), "{routes:?}");
    assert!(routes.contains(&route("172.16.0.0", 16, None)), "{routes:?}");
    assert_eq!(routes.len(), 4);
    client.stack.dhcp_release();
    assert_eq!(client.stack.config().mtu, 1500);
    assert_eq!(client.stack.routes().count(), 0);
}

#[test]
fn times_that_make_no_sense_are_replaced() {
    let client = Client::bound(&[
        (option::SUBNET_MASK, &[255, 255, 255, 0]),
        (option::LEASE_TIME, &[0, 0, 14, 16]),
        (option::RENEWAL_TIME, &[0, 1, 0, 0]),
        (option::REBINDING_TIME, &[0xff; 4]),
        (option::INTERFACE_MTU, &[0, 68]),
        (option::DOMAIN_NAME, b"two words"),
        (option::DOMAIN_SEARCH, b"\x03lab\0\xc0\x05"),
    ]);
    let lease = client.stack.dhcp_lease().unwrap();
    assert_eq!(lease.renew_at, Some(client.now + 1800 * SECOND));
    assert_eq!(lease.rebind_at, Some(client.now + 3150 * SECOND));
    assert_eq!((lease.mtu, lease.domain.as_ref()), (None, None));
    assert_eq!(lease.search_domains, [""; 0]);
    assert_eq!(client.stack.config().mtu, 1500);
}

#[test]
fn open_connections_follow_an_mtu_that_comes_with_a_prolongation() {
    let mut client = Client::bound(LEASE);
    client.announced();
    client.inject(&craft::arp_packet(
        Operation::Request,
        (PEER_MAC, PEER_IP),
        (Mac([0; 6]), GIVEN),
    ));
    client.next_packet();
    let listener = client.stack.listen(SocketAddr::new(GIVEN.into(), 80), 4).unwrap();
    let send = |client: &mut Client, flags, seq, ack| {
        let mut segment = client.segment(flags, seq, ack, &[]);
        segment.destination = (GIVEN, 80);
        if flags == SYN {
            segment.options.mss(1460);
        }
        let bytes = segment.bytes();
        client.inject(&bytes);
    };
    send(&mut client, SYN, 0, 0);
    client.peer.expect(SYN | ACK);
    send(&mut client, ACK, 1, 1);
    let id = client.stack.accept(listener).unwrap().expect("a connection");
    client.wait();
    client.arp();
    let answer = ((PEER_MAC, SERVER), (STACK_MAC, GIVEN));
    client.inject(&craft::arp_packet(Operation::Reply, answer.0, answer.1));
    client.expect(MessageType::Request);
    client.reply(MessageType::Ack, &[LEASE, &[(option::INTERFACE_MTU, &[2, 64])]].concat());
    client.arp();
    client.stack.write(id, &[7; 4000]).unwrap();
    let sent: Vec<usize> = client.take().iter().map(|one| 40 + one.payload.len()).collect();
    assert_eq!(sent.iter().max(), Some(&576), "{sent:?}");
    client.stack.abort(id);
    client.stack.release(id);
    client.stack.close_listener(listener);
}

#[test]
fn a_small_mtu_is_none_of_ipv6() {
    use crate::common::craft6::{PEER_V6, STACK_V6, solicitation};
    let mut client = Client::configured(|config| {
        let own = InterfaceAddress { address: STACK_V6.into(), prefix: 64 };
        config.addresses = vec![own];
        (config.ipv6.dad_transmits, config.ipv6.link_local) = (0, false);
        config.dhcp.as_mut().unwrap().probe.count = 0;
    });
    client.acquire(&[LEASE, &[(option::INTERFACE_MTU, &[2, 64])]].concat());
    client.arp();
    client.inject(&solicitation(PEER_V6, STACK_V6, None));
    client.expect_v6();
    // RFC 8200 §5: every link of IPv6 takes 1280 bytes, and no more is known of this one.
    let socket = client.stack.bind_datagram(SocketAddr::new(STACK_V6.into(), 9)).unwrap();
    let to = SocketAddr::new(PEER_V6.into(), 7);
    client.stack.send_datagram(socket, &[7; 1280 - 48], Some(to)).unwrap();
    assert_eq!(client.expect_v6().fragment, None);
    client.stack.send_datagram(socket, &[7; 1280 - 47], Some(to)).unwrap();
    assert!(client.expect_v6().fragment.is_some() && client.expect_v6().fragment.is_some());
    let id = client.stack.connect(to, None).unwrap();
    assert_eq!(client.expect_v6().tcp().options().unwrap().mss, Some(1280 - 60));
    // And addresses may be added.
    let second = InterfaceAddress { address: ip("2001:db8::99"), prefix: 64 };
    client.stack.add_address(second).unwrap();
    client.stack.abort(id);
    client.stack.release(id);
    client.stack.close_datagram(socket);
}

/// Where each host has a network of its own, as in many clouds.
#[test]
fn a_router_beyond_the_own_network_is_reached_by_a_route_without_one() {
    const ALONE: (u8, &[u8]) = (option::SUBNET_MASK, &[255, 255, 255, 255]);
    const TIME: (u8, &[u8]) = (option::LEASE_TIME, &[0, 0, 14, 16]);
    let router = ip("10.128.0.1");
    let on_link = Route { destination: router, prefix: 32, gateway: None };
    let by = Route::default_by(router);
    let cases: [Options<'_>; 4] = [
        // RFC 3442: a router of 0.0.0.0 says that there is none.
        &[
            ALONE,
            TIME,
            (option::CLASSLESS_ROUTES, &[32, 10, 128, 0, 1, 0, 0, 0, 0, 0, 10, 128, 0, 1]),
        ],
        // In whatever order.
        &[
            ALONE,
            TIME,
            (option::CLASSLESS_ROUTES, &[0, 10, 128, 0, 1, 32, 10, 128, 0, 1, 0, 0, 0, 0]),
        ],
        // With a network of others, too.
        &[
            (option::SUBNET_MASK, &[255, 255, 255, 0]),
            TIME,
            (option::CLASSLESS_ROUTES, &[0, 10, 128, 0, 1, 32, 10, 128, 0, 1, 0, 0, 0, 0]),
        ],
        // Nothing said, and no other way there can be.
        &[ALONE, TIME, (option::ROUTER, &[10, 128, 0, 1])],
    ];
    for options in cases {
        let mut client = Client::bound(options);
        let routes: Vec<_> = client.stack.routes().map(|info| info.route).collect();
        assert!(routes.contains(&on_link) && routes.contains(&by), "{routes:?}");
        assert_eq!(client.stack.counters().dhcp_routes_refused, 0);
        let socket = client.bind_datagram(SocketAddr::new(GIVEN.into(), 9));
        let far = SocketAddr::new(ip("203.0.113.9"), 7);
        client.stack.send_datagram(socket, b"?", Some(far)).unwrap();
        client.collect();
        client.advance_ms(0);
        assert_eq!(IpAddr::from(client.arp().1), router);
        client.advance(10 * SECOND);
    }
}

#[test]
fn routes_that_do_not_fit_are_counted() {
    let mut client = Client::beside(own("10.0.0.1"), |config| config.routes = 1);
    client.acquire(&[
        (option::SUBNET_MASK, &[255, 255, 255, 0]),
        (option::LEASE_TIME, &[0, 0, 14, 16]),
        (option::CLASSLESS_ROUTES, &[8, 11, 192, 0, 2, 253, 8, 12, 192, 0, 2, 253]),
    ]);
    assert_eq!(client.arp(), (GIVEN, GIVEN));
    assert_eq!(client.stack.counters().dhcp_routes_refused, 1);
}

/// RFC 3396: an option has at most 255 bytes, so what is longer comes in several.
#[test]
fn what_comes_in_parts_is_whole() {
    let routes: Vec<u8> = (0..40).flat_map(|net| [24, 10, 0, net, 192, 0, 2, 254]).collect();
    let (first, second) = routes.split_at(251);
    let mut options = LEASE.to_vec();
    options.extend([
        (option::CLASSLESS_ROUTES, first),
        (option::DOMAIN_NAME_SERVER, &[192, 0, 2, 53, 192, 0]),
        (option::DOMAIN_NAME, b"exam"),
        (option::DOMAIN_SEARCH, b"\x07exam"),
        (option::CLASSLESS_ROUTES, second),
        (option::DOMAIN_NAME_SERVER, &[2, 54]),
        (option::DOMAIN_NAME, b"ple.org"),
        (option::DOMAIN_SEARCH, b"ple\x03org\0\x02in\xc0"),
        (option::DOMAIN_SEARCH, b"\x08"),
    ]);
    let mut client = Client::bound(&options);
    let lease = client.stack.dhcp_lease().unwrap();
    assert_eq!(lease.name_servers, [ip("192.0.2.53"), ip("192.0.2.54")]);
    assert_eq!(lease.domain.as_deref(), Some("example.org"));
    assert_eq!(lease.search_domains, ["example.org", "in.org"]);
    assert_eq!(lease.routes.len(), 40);
    assert!(lease.routes.iter().all(|route| route.gateway == Some(ip("192.0.2.254"))));
    // And the network of our own.
    assert_eq!(
        (client.stack.routes().count(), client.stack.counters().dhcp_routes_refused),
        (41, 0)
    );
    client.stack.dhcp_release();
    // What is more than the routing table has room for is counted.
    let mut client = Client::beside(own("10.0.0.1"), |config| config.routes = 30);
    client.acquire(&options);
    assert_eq!(client.stack.counters().dhcp_routes_refused, 10);
    assert_eq!(client.arp(), (GIVEN, GIVEN));
}

/// A name that is joined may be longer than any (RFC 1035 §2.3.4).
#[test]
fn a_name_that_is_too_long_is_none() {
    let label = [b'a'; 250];
    let mut options = LEASE.to_vec();
    options.extend([(option::DOMAIN_NAME, &label[..]), (option::DOMAIN_NAME, b".org")]);
    let mut client = Client::bound(&options);
    assert_eq!(client.stack.dhcp_lease().unwrap().domain, None);
    client.stack.dhcp_release();
}
