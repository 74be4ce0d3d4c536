//! Which Ethernet frames and IPv4 packets are taken (RFC 1122 §3.2.1).

use core::net::Ipv4Addr;

use crate::common::craft::{self, PEER_IP, STACK_IP, TcpSegment, mend_ip_checksum};
use crate::common::peer::{Peer, SYN};

fn syn(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    TcpSegment {
        source: (source, 5000),
        destination: (destination, 80),
        flags: SYN,
        ..TcpSegment::default()
    }
    .bytes()
}

/// Sends a packet that must be dropped without a word, and says by which counter.
#[track_caller]
fn dropped(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut peer = Peer::new();
    peer.listen(80, 4);
    let before: Vec<_> = peer.stack.counters().iter().collect();
    let mut bytes = syn(PEER_IP, STACK_IP);
    change(&mut bytes);
    peer.inject(&bytes);
    peer.expect_silence();
    let raised: Vec<&str> = peer
        .stack
        .counters()
        .iter()
        .zip(before)
        .filter(|((name, now), (_, then))| name.starts_with("drop_") && now > then)
        .map(|((name, _), _)| name)
        .collect();
    assert_eq!(raised.len(), 1, "one drop is counted once: {raised:?}");
    raised[0].to_owned()
}

#[test]
fn link_layer_drops_have_names() {
    assert_eq!(dropped(|bytes| bytes.truncate(13)), "drop_ethernet_malformed");
    assert_eq!(dropped(|bytes| bytes[5] = 9), "drop_ethernet_not_ours");
    assert_eq!(dropped(|bytes| bytes[6] |= 1), "drop_ethernet_malformed");
    assert_eq!(dropped(|bytes| bytes[12] = 0x88), "drop_ether_type");
    assert_eq!(dropped(|bytes| bytes[12..14].copy_from_slice(&[0x86, 0xdd])), "drop_ipv6");
    let tagged = dropped(|bytes| {
        bytes.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    });
    assert_eq!(tagged, "drop_vlan");
    // Behind a priority, too.
    let tagged = dropped(|bytes| {
        bytes.splice(12..12, [0x81, 0x00, 0xe0, 0x00, 0x81, 0x00, 0x00, 0x05]);
    });
    assert_eq!(tagged, "drop_vlan");
}

#[test]
fn a_priority_tag_is_no_vlan() {
    let mut peer = Peer::new();
    peer.listen(80, 4);
    let mut bytes = syn(PEER_IP, STACK_IP);
    bytes.splice(12..12, [0x81, 0x00, 0xe0, 0x00]);
    peer.inject(&bytes);
    peer.expect(SYN | crate::common::peer::ACK);
}

#[test]
fn ip_drops_have_names() {
    assert_eq!(dropped(|bytes| bytes[14] = 0x65), "drop_ip_malformed");
    assert_eq!(dropped(|bytes| bytes[14] = 0x44), "drop_ip_malformed");
    assert_eq!(dropped(|bytes| bytes[16] = 0x10), "drop_ip_malformed");
    assert_eq!(dropped(|bytes| bytes.truncate(30)), "drop_ip_malformed");
    assert_eq!(dropped(|bytes| bytes[24] ^= 1), "drop_ip_checksum");
    let fragment = dropped(|bytes| {
        bytes[20] = 0x20; // more fragments
        mend_ip_checksum(bytes);
    });
    assert_eq!(fragment, "drop_fragment_malformed");
    let elsewhere = dropped(|bytes| *bytes = syn(PEER_IP, Ipv4Addr::new(192, 0, 2, 77)));
    assert_eq!(elsewhere, "drop_ip_not_ours");
}

/// Puts options, of four bytes or a multiple, into a packet's header.
fn put_options(bytes: &mut Vec<u8>, options: &[u8]) {
    bytes.splice(34..34, options.iter().copied());
    bytes[14] += (options.len() / 4) as u8;
    bytes[17] += options.len() as u8;
    mend_ip_checksum(bytes);
}

#[test]
fn a_way_that_the_sender_chose_is_refused() {
    for kind in [131, 137] {
        for options in [
            [kind, 7, 4, 192, 0, 2, 9, 0].as_slice(),
            &[1, kind, 7, 4, 192, 0, 2, 9],
            // The way has been gone.
            &[148, 4, 0, 0, kind, 3, 4, 0],
        ] {
            let name = dropped(|bytes| put_options(bytes, options));
            assert_eq!(name, "drop_ip_source_route", "{options:?}");
        }
    }
}

#[test]
fn options_without_a_length_that_fits_are_malformed() {
    for options in [[7, 0, 0, 0], [7, 1, 0, 0], [7, 5, 4, 0], [1, 1, 1, 148]] {
        let name = dropped(|bytes| put_options(bytes, &options));
        assert_eq!(name, "drop_ip_malformed", "{options:?}");
    }
}

#[test]
fn options_that_concern_routers_are_passed_over() {
    // Router alert; record route; no operation, and the end with what is behind it.
    for options in [&[148, 4, 0, 0], &[7, 7, 4, 0, 0, 0, 0, 0][..], &[1, 1, 1, 0], &[0, 131, 0, 0]]
    {
        let mut peer = Peer::new();
        peer.listen(80, 4);
        let mut bytes = syn(PEER_IP, STACK_IP);
        put_options(&mut bytes, options);
        peer.inject(&bytes);
        peer.expect(SYN | crate::common::peer::ACK);
    }
}

#[test]
fn sources_that_no_host_may_use_are_dropped() {
    for source in [
        STACK_IP,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(192, 0, 2, 255),
        Ipv4Addr::new(224, 0, 0, 5),
    ] {
        let name = dropped(|bytes| *bytes = syn(source, STACK_IP));
        assert_eq!(name, "drop_ip_source", "{source}");
    }
}

#[test]
fn tcp_to_a_broadcast_address_is_dropped() {
    for destination in [Ipv4Addr::BROADCAST, Ipv4Addr::new(192, 0, 2, 255)] {
        let name = dropped(|bytes| *bytes = syn(PEER_IP, destination));
        assert_eq!(name, "drop_tcp_not_unicast", "{destination}");
    }
    assert_eq!(dropped(|bytes| bytes[..6].fill(0xff)), "drop_tcp_not_unicast");
}

#[test]
fn tcp_headers_that_are_cut_are_malformed() {
    let cut = dropped(|bytes| {
        bytes.truncate(14 + 20 + 19);
        bytes[16..18].copy_from_slice(&39u16.to_be_bytes());
        mend_ip_checksum(bytes);
    });
    assert_eq!(cut, "drop_tcp_malformed");
    assert_eq!(dropped(|bytes| bytes[14 + 20 + 12] = 0x40), "drop_tcp_malformed");
    assert_eq!(dropped(|bytes| bytes[14 + 20 + 12] = 0xf0), "drop_tcp_malformed");
    let _ = craft::PEER_MAC;
}
