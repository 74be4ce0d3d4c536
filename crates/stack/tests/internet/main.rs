//! The layers below TCP, and UDP, against their RFCs.

#[path = "../common/mod.rs"]
mod common;

mod arp;
mod checksum;
mod configuration;
mod dhcp;
mod dns;
mod first_hop;
mod fragmentation;
mod fragmentation_v6;
mod icmp;
mod icmpv6;
mod igmp;
mod ip;
mod ipv6;
mod learned;
mod mld;
mod multicast;
mod ndp;
mod neighbour;
mod reassembly;
mod redirect;
mod redirect_v6;
mod routes;
mod slaac;
mod udp;

/// A stack at 2001:db8::1 that may use its address at once, and knows the peer's hardware address.
fn six(change: impl FnOnce(&mut millrace_stack::Config)) -> common::peer::Peer {
    let mut config = common::config();
    config.addresses = vec![millrace_stack::InterfaceAddress {
        address: common::craft6::STACK_V6.into(),
        prefix: 64,
    }];
    config.ipv6.dad_transmits = 0;
    config.ipv6.link_local = false;
    // Tests let hours go by; neighbour discovery has tests of its own.
    config.ipv6.reachable_time = core::time::Duration::from_secs(1_000_000);
    change(&mut config);
    let mut peer = common::peer::Peer::stranger(config, 2048);
    peer.advance(core::time::Duration::ZERO);
    peer
}

/// As [`six`], introduced to the peer by its question for our address.
fn met(change: impl FnOnce(&mut millrace_stack::Config)) -> common::peer::Peer {
    use common::craft6::{PEER_V6, STACK_V6, solicitation};
    let mut peer = six(change);
    peer.inject(&solicitation(PEER_V6, STACK_V6, None));
    peer.expect_v6();
    peer
}
