//! Name servers and search domains that routers advertise (RFC 8106).

use core::net::Ipv6Addr;
use core::time::Duration;

use crate::common::craft6::RouterAdvertisement;
use crate::common::peer::Peer;
use crate::six;
use crate::slaac::{SECOND, advertise, end, listening};

fn server(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x53, number)
}

fn servers(peer: &Peer) -> Vec<Ipv6Addr> {
    peer.stack.advertised_name_servers().collect()
}

fn domains(peer: &Peer) -> Vec<&str> {
    peer.stack.advertised_search_domains().collect()
}

fn advertise_by_second(
    peer: &mut Peer,
    change: impl FnOnce(RouterAdvertisement) -> RouterAdvertisement,
) {
    let second = RouterAdvertisement { source: SECOND, ..RouterAdvertisement::default() };
    peer.inject(&change(second).bytes());
}

#[test]
fn what_routers_tell_of_names_holds_for_its_time() {
    let mut peer = listening(|_| {});
    advertise(&mut peer, |one| {
        one.name_servers(&[server(1), server(2)], 100)
            .search_domains(b"\x03lab\x07example\0\x03org\0", 200)
            .name_servers(&[server(3)], u32::MAX)
    });
    assert_eq!(servers(&peer), [server(1), server(2), server(3)]);
    assert_eq!(domains(&peer), ["lab.example", "org"]);
    // The same by another router is the same, and lasts as long as either says.
    advertise_by_second(&mut peer, |one| one.name_servers(&[server(2)], 150));
    assert_eq!(servers(&peer), [server(1), server(2), server(3)]);
    peer.advance(Duration::from_secs(101));
    assert_eq!(servers(&peer), [server(3), server(2)]);
    assert_eq!(domains(&peer), ["lab.example", "org"]);
    peer.advance(Duration::from_secs(100));
    assert_eq!((servers(&peer), domains(&peer)), (vec![server(3)], vec![]));
    // A lifetime of 0 ends it, of who told it.
    advertise_by_second(&mut peer, |one| one.name_servers(&[server(3)], 0));
    assert_eq!(servers(&peer), [server(3)]);
    advertise(&mut peer, |one| one.name_servers(&[server(3)], 0));
    assert!(servers(&peer).is_empty());
    end(&mut peer);
}

#[test]
fn what_makes_no_sense_of_names_is_passed_over() {
    let mut peer = listening(|_| {});
    let link_local: Ipv6Addr = "fe80::53".parse().unwrap();
    let nowhere = ["::", "::1", "ff02::1", "::ffff:192.0.2.53"].map(|text| text.parse().unwrap());
    advertise(&mut peer, |one| {
        one.name_servers(&nowhere, 100)
            .name_servers(&[link_local], 100)
            .search_domains(b"\x03a.b\0\x03c d\0\x02ok\0", 100)
            .search_domains(b"\x02eu\xc0\0", 100)
    });
    assert_eq!((servers(&peer), domains(&peer)), (vec![link_local], vec!["ok"]));
    end(&mut peer);
    // Who does not listen to routers learns nothing.
    let mut deaf = six(|config| config.ipv6.link_local = true);
    deaf.inject(&RouterAdvertisement::default().name_servers(&[server(1)], 100).bytes());
    assert!(servers(&deaf).is_empty());
    while deaf.next_packet().is_some() {}
}

#[test]
fn so_many_names_are_remembered_and_no_router_has_them_all() {
    let mut peer = listening(|config| config.ipv6.learned_name_servers = 3);
    let many: Vec<_> = (0..10).map(server).collect();
    let names: Vec<u8> = (b'a'..=b'j').flat_map(|letter| [1, letter, 0]).collect();
    let flood = |one: RouterAdvertisement| {
        one.name_servers(&many, u32::MAX).search_domains(&names, u32::MAX)
    };
    advertise_by_second(&mut peer, flood);
    assert_eq!(servers(&peer), many[..3]);
    assert_eq!(domains(&peer), ["a", "b", "c"]);
    assert_eq!(peer.stack.counters().learned_name_servers_refused, 14);
    advertise(&mut peer, |one| {
        one.name_servers(&[server(77)], 100).search_domains(b"\x01z\0", 100)
    });
    assert!(servers(&peer).contains(&server(77)) && servers(&peer).len() == 3);
    assert!(domains(&peer).contains(&"z") && domains(&peer).len() == 3);
    // Whoever told most does not get it back.
    advertise_by_second(&mut peer, flood);
    assert!(servers(&peer).contains(&server(77)) && domains(&peer).contains(&"z"));
    end(&mut peer);
}
