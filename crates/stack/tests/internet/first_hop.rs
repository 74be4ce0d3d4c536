//! The first hop of packets where several routers tell several prefixes: by where they come from
//! (RFC 8028), and where they come from by the first hop (RFC 6724 §5, rule 5.5).

use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;

use millrace_stack::InterfaceAddress;
use millrace_wire::mac::Mac;
use millrace_wire::tcp::Flags;

use crate::common::craft::PEER_MAC;
use crate::common::craft6::{PEER_LINK, RouterAdvertisement, V6, icmp, segment_between};
use crate::common::peer::{ACK, Peer, SYN};
use crate::redirect_v6::redirect_message;
use crate::slaac::{BOTH, FAR, PREFIX, SECOND, advertise, end, listening};

/// It has more in common with [`FAR`] than [`PREFIX`] has.
const SECOND_PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xfffe, 0, 0, 0, 0, 0);
const SECOND_MAC: Mac = Mac([2, 0, 0, 0, 0, 3]);
const LOW: u8 = 3;
const HIGH: u8 = 1;
const DAY: u32 = 86_400;

fn host(prefix: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix.to_bits() | 5)
}

/// What the second router says, without prefixes.
fn by_second(preference: u8) -> RouterAdvertisement {
    RouterAdvertisement {
        source: SECOND,
        preference,
        options: [&[1, 1][..], &SECOND_MAC.0].concat(),
        ..RouterAdvertisement::default()
    }
}

/// A stack with an address of each prefix, which a router of its own tells; the second is the less
/// preferred one.
fn multihomed() -> Peer {
    let mut peer = listening(|config| {
        config.ipv6.slaac = false;
        config.addresses = [PREFIX, SECOND_PREFIX]
            .map(|prefix| InterfaceAddress { address: host(prefix).into(), prefix: 64 })
            .to_vec();
    });
    advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, DAY, DAY));
    peer.inject(&by_second(LOW).prefix(SECOND_PREFIX, BOTH, DAY, DAY).bytes());
    while peer.next_packet().is_some() {}
    peer
}

/// A datagram to a destination from an address of ours, or from what is chosen.
#[track_caller]
fn sent(peer: &mut Peer, from: Ipv6Addr, to: Ipv6Addr) -> V6 {
    let socket = peer.stack.bind_datagram(SocketAddr::new(from.into(), 0)).unwrap();
    peer.stack.send_datagram(socket, b"?", Some(SocketAddr::new(to.into(), 7))).unwrap();
    peer.stack.close_datagram(socket);
    peer.expect_v6()
}

/// Where datagrams to [`FAR`] go from each of the two addresses.
#[track_caller]
fn first_hops(peer: &mut Peer) -> [Mac; 2] {
    [PREFIX, SECOND_PREFIX].map(|prefix| sent(peer, host(prefix), FAR).to)
}

#[test]
fn the_source_is_of_a_prefix_that_the_router_in_use_advertised() {
    for (temporary, slaac) in [(false, true), (true, true), (false, false)] {
        let mut peer = match slaac {
            true => listening(|config| config.ipv6.temporary_addresses = temporary),
            false => multihomed(),
        };
        advertise(&mut peer, |one| one.prefix(PREFIX, BOTH, DAY, DAY));
        peer.inject(&by_second(LOW).prefix(SECOND_PREFIX, BOTH, DAY, DAY).bytes());
        while peer.next_packet().is_some() {}
        let chosen = |peer: &mut Peer| {
            let packet = sent(peer, Ipv6Addr::UNSPECIFIED, FAR);
            (packet.to, Ipv6Addr::from_bits(packet.source.to_bits() >> 64 << 64))
        };
        assert_eq!(chosen(&mut peer), (PEER_MAC, PREFIX));
        // The second tells the first's prefix, too, which is then none the less the first's.
        peer.inject(&by_second(LOW).prefix(PREFIX, BOTH, DAY, DAY).bytes());
        assert_eq!(chosen(&mut peer), (PEER_MAC, PREFIX));
        peer.inject(&by_second(LOW).prefix(PREFIX, BOTH, 0, 0).bytes());
        // The other is preferred now.
        peer.inject(&by_second(HIGH).bytes());
        assert_eq!(chosen(&mut peer), (SECOND_MAC, SECOND_PREFIX));
        end(&mut peer);
    }
}

#[test]
fn packets_go_by_a_router_that_advertised_where_they_come_from() {
    let mut peer = multihomed();
    for preference in [LOW, HIGH] {
        peer.inject(&by_second(preference).bytes());
        assert_eq!(first_hops(&mut peer), [PEER_MAC, SECOND_MAC]);
    }
    // Both tell the first's prefix: the preferred one of them.
    peer.inject(&by_second(HIGH).prefix(PREFIX, BOTH, DAY, DAY).bytes());
    assert_eq!(first_hops(&mut peer), [SECOND_MAC; 2]);
    peer.inject(&by_second(HIGH).prefix(PREFIX, BOTH, 0, 0).bytes());
    assert_eq!(first_hops(&mut peer), [PEER_MAC, SECOND_MAC]);
    // A way to fewer hosts is meant for all that goes there.
    advertise(&mut peer, |one| one.route(FAR, 48, 0, 600));
    assert_eq!(first_hops(&mut peer), [PEER_MAC; 2]);
    advertise(&mut peer, |one| one.route(FAR, 48, 0, 0));
    // The first leaves: better another router than none.
    advertise(&mut peer, |one| RouterAdvertisement { lifetime: 0, ..one });
    assert_eq!(first_hops(&mut peer), [SECOND_MAC; 2]);
    end(&mut peer);
}

#[test]
fn a_dead_router_is_not_waited_for() {
    let mut peer = multihomed();
    assert_eq!(first_hops(&mut peer), [PEER_MAC, SECOND_MAC]);
    // Five seconds, three questions.
    peer.advance(Duration::from_secs(9));
    while peer.next_packet().is_some() {}
    advertise(&mut peer, |one| one);
    assert_eq!(first_hops(&mut peer), [PEER_MAC; 2]);
    end(&mut peer);
}

#[track_caller]
fn expect_segment(peer: &mut Peer, flags: Flags) -> V6 {
    let packet = peer.expect_v6();
    assert_eq!(packet.tcp().flags(), flags, "{packet:?}");
    packet
}

#[test]
fn connections_stay_with_the_router_of_their_address() {
    let mut peer = multihomed();
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 80);
    let listener = peer.stack.listen(any, 8).unwrap();
    let mut ports = 5000..;
    // One after the other to the same host, so that what was found for one is not taken for another.
    for (prefix, router) in [
        (PREFIX, PEER_MAC),
        (SECOND_PREFIX, SECOND_MAC),
        (SECOND_PREFIX, SECOND_MAC),
        (PREFIX, PEER_MAC),
    ] {
        let remote = SocketAddr::new(FAR.into(), 7);
        let own = SocketAddr::new(host(prefix).into(), 0);
        let id = peer.stack.connect(remote, Some(own)).unwrap();
        let syn = expect_segment(&mut peer, SYN);
        assert_eq!((syn.source, syn.to), (host(prefix), router));
        peer.stack.abort(id);
        peer.stack.release(id);
        peer.collect();

        let ends = (FAR, host(prefix));
        let port = ports.next().unwrap();
        peer.inject(&segment_between(ends, (port, 80), SYN, (100, 0), b""));
        let answer = expect_segment(&mut peer, SYN | ACK);
        assert_eq!((answer.source, answer.to), (host(prefix), router));
        let next = answer.tcp().sequence().0.wrapping_add(1);
        peer.inject(&segment_between(ends, (port, 80), ACK, (101, next), b""));
        let id = peer.accept(listener).unwrap();
        peer.stack.write(id, b"data").unwrap();
        assert_eq!(peer.expect_v6().to, router);
        peer.stack.abort(id);
        let reset = peer.expect_v6();
        assert!(reset.tcp().flags().contains(Flags::RST));
        assert_eq!(reset.to, router);
        peer.stack.release(id);
    }
    peer.stack.close_listener(listener);
    end(&mut peer);
}

/// RFC 8028 §3.4: what one router says of a destination is of what goes by it.
#[test]
fn a_redirect_corrects_the_way_of_its_router_only() {
    let third = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 4);
    let third_mac = Mac([2, 0, 0, 0, 0, 4]);
    let redirect =
        |source, target, mac| icmp(source, host(PREFIX), 255, &redirect_message(target, FAR, mac));
    let mut peer = multihomed();
    // By each router, the one that is not preferred as well.
    peer.inject(&redirect(SECOND, third, Some(4)));
    assert_eq!(first_hops(&mut peer), [PEER_MAC, third_mac]);
    peer.inject(&redirect(PEER_LINK, SECOND, Some(3)));
    assert_eq!(first_hops(&mut peer), [SECOND_MAC, third_mac]);
    // One that was redirected to may redirect again.
    peer.inject(&redirect(third, PEER_LINK, None));
    assert_eq!(first_hops(&mut peer), [SECOND_MAC, PEER_MAC]);
    assert_eq!(peer.stack.counters().redirects_taken, 3);
    // The second router leaves, and what it said with it.
    peer.inject(&RouterAdvertisement { lifetime: 0, ..by_second(LOW) }.bytes());
    assert_eq!(first_hops(&mut peer), [SECOND_MAC; 2]);
    end(&mut peer);
    // On the link a host is for all.
    let mut peer = multihomed();
    peer.inject(&redirect(SECOND, FAR, Some(9)));
    assert_eq!(first_hops(&mut peer), [Mac([2, 0, 0, 0, 0, 9]); 2]);
    end(&mut peer);
}
