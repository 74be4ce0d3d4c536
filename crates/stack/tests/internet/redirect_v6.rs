//! Redirects of IPv6 (RFC 4861 §8). Those of IPv4 are in [`crate::redirect`].

use core::net::Ipv6Addr;
use core::time::Duration;

use millrace_stack::{Config, InterfaceAddress, RouteOrigin};
use millrace_wire::mac::Mac;

use crate::common::craft::PEER_MAC;
use crate::common::craft6::{PEER_LINK, PEER_V6, STACK_V6, icmp};
use crate::common::peer::Peer;
use crate::slaac::{FAR, SECOND, advertise, end, listening, next_hop, v6};

/// What a router says of a destination, and of the hardware address of whom it is to go to.
pub(crate) fn redirect_message(
    target: Ipv6Addr,
    destination: Ipv6Addr,
    mac: Option<u8>,
) -> Vec<u8> {
    let mut message = vec![137, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend(destination.octets());
    if let Some(mac) = mac {
        message.extend([2, 1, 2, 0, 0, 0, 0, mac]);
    }
    message
}

fn redirect(source: Ipv6Addr, target: Ipv6Addr, destination: Ipv6Addr, mac: Option<u8>) -> Vec<u8> {
    icmp(source, STACK_V6, 255, &redirect_message(target, destination, mac))
}

fn redirectable(change: impl FnOnce(&mut Config)) -> Peer {
    let mut peer = listening(|config| {
        config.addresses = vec![InterfaceAddress { address: STACK_V6.into(), prefix: 64 }];
        change(config);
    });
    advertise(&mut peer, |one| one);
    peer
}

#[test]
fn a_redirect_by_our_router_is_followed() {
    let mut peer = redirectable(|_| {});
    assert_eq!(next_hop(&mut peer, FAR), Ok(PEER_MAC));
    peer.inject(&redirect(PEER_LINK, SECOND, FAR, Some(3)));
    assert_eq!(next_hop(&mut peer, FAR), Ok(Mac([2, 0, 0, 0, 0, 3])));
    assert_eq!(peer.stack.counters().redirects_taken, 1);
    // Others go as before.
    let other = Ipv6Addr::from_bits(FAR.to_bits() + 1);
    assert_eq!(next_hop(&mut peer, other), Ok(PEER_MAC));
    // On the link, by itself.
    peer.inject(&redirect(SECOND, FAR, FAR, Some(9)));
    assert_eq!(next_hop(&mut peer, FAR), Ok(Mac([2, 0, 0, 0, 0, 9])));
    end(&mut peer);
}

#[test]
fn redirects_by_others_are_not() {
    let mut peer = redirectable(|_| {});
    let stranger = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66);
    let mut through_a_router = redirect(PEER_LINK, SECOND, FAR, Some(3));
    through_a_router[21] = 254;
    for (message, malformed) in [
        (redirect(stranger, SECOND, FAR, Some(3)), false),
        (redirect(PEER_LINK, STACK_V6, STACK_V6, None), false),
        (redirect(PEER_V6, SECOND, FAR, Some(3)), true),
        (redirect(PEER_LINK, PEER_V6, FAR, Some(3)), true),
        (redirect(PEER_LINK, SECOND, "ff02::1".parse().unwrap(), Some(3)), true),
        (redirect(PEER_LINK, SECOND, "::1".parse().unwrap(), Some(3)), true),
        (through_a_router, true),
    ] {
        let before = peer.stack.counters().clone();
        peer.inject(&message);
        let now = peer.stack.counters();
        assert_eq!(now.drop_ndp_malformed - before.drop_ndp_malformed, u64::from(malformed));
        assert_eq!(now.drop_ndp_not_ours - before.drop_ndp_not_ours, u64::from(!malformed));
    }
    assert_eq!(next_hop(&mut peer, FAR), Ok(PEER_MAC));
    end(&mut peer);
    let mut off = redirectable(|config| config.redirects = false);
    off.inject(&redirect(PEER_LINK, SECOND, FAR, Some(3)));
    assert_eq!(next_hop(&mut off, FAR), Ok(PEER_MAC));
    end(&mut off);
}

#[test]
fn so_many_redirects_are_remembered() {
    let mut peer = redirectable(|config| config.learned_redirects = 3);
    for number in 0..10 {
        let destination = Ipv6Addr::from_bits(FAR.to_bits() + number);
        peer.inject(&redirect(PEER_LINK, SECOND, destination, Some(3)));
        peer.advance_ms(10);
    }
    let kept = |peer: &Peer| -> Vec<_> {
        let redirects = peer.stack.routes().filter(|one| one.origin == RouteOrigin::Redirect);
        redirects.map(|one| v6(one.route.destination).to_bits() - FAR.to_bits()).collect()
    };
    assert_eq!(kept(&peer), [7, 8, 9]);
    // One that is there already costs no other its place.
    let destination = Ipv6Addr::from_bits(FAR.to_bits() + 9);
    peer.inject(&redirect(SECOND, SECOND, destination, Some(3)));
    assert_eq!(kept(&peer), [7, 8, 9]);
    let mut none = redirectable(|config| config.learned_redirects = 0);
    none.inject(&redirect(PEER_LINK, SECOND, FAR, Some(3)));
    assert_eq!((kept(&none), none.stack.counters().redirects_taken), (vec![], 0));
    end(&mut none);
    // One that leads nowhere is forgotten.
    peer.advance_ms(1000);
    while peer.next_packet().is_some() {}
    let last = Ipv6Addr::from_bits(FAR.to_bits() + 9);
    assert_eq!(next_hop(&mut peer, last), Ok(Mac([2, 0, 0, 0, 0, 3])));
    peer.advance(Duration::from_secs(9));
    while peer.next_packet().is_some() {}
    assert_eq!(next_hop(&mut peer, last), Ok(PEER_MAC));
    end(&mut peer);
}

/// RFC 4861 §7.3.3: whoever does not answer is looked for by the router again.
#[test]
fn a_host_that_is_not_on_the_link_after_all_is_reached_by_the_router() {
    let mut peer = redirectable(|_| {});
    peer.inject(&redirect(PEER_LINK, FAR, FAR, None));
    assert_eq!(next_hop(&mut peer, FAR), Err(FAR));
    peer.advance(Duration::from_secs(5));
    while peer.next_packet().is_some() {}
    assert_eq!(next_hop(&mut peer, FAR), Ok(PEER_MAC));
    end(&mut peer);
}
