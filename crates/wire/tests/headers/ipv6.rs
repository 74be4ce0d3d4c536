use std::net::Ipv6Addr;

use millrace_wire::ipv6::{Fragment, HEADER_LEN, Header, MAX_EXTENSIONS, Packet};
use millrace_wire::{Malformed, protocol};
use proptest::prelude::*;

use crate::{assert_cuts_rejected, payload};

fn header() -> impl Strategy<Value = Header> {
    (any::<(Ipv6Addr, Ipv6Addr, u8, u8, u8)>(), 0..1_u32 << 20).prop_map(
        |((source, destination, next_header, hop_limit, traffic_class), flow_label)| Header {
            source,
            destination,
            next_header,
            hop_limit,
            traffic_class,
            flow_label,
        },
    )
}

fn build(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        source: Ipv6Addr::LOCALHOST,
        destination: Ipv6Addr::LOCALHOST,
        next_header,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
    };
    let mut bytes = vec![0; HEADER_LEN];
    header.emit(&mut bytes, payload.len());
    bytes.extend(payload);
    bytes
}

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn round_trip(header in header(), payload in payload(100), padding in 0..50_usize) {
        let mut bytes = vec![0xaa; HEADER_LEN];
        header.emit(&mut bytes, payload.len());
        bytes.extend(&payload);
        assert_cuts_rejected(&bytes, |cut| Packet::parse(cut).map(|_| ()));
        bytes.resize(bytes.len() + padding, 0x55);

        let packet = Packet::parse(&bytes).unwrap();
        prop_assert_eq!(packet.source(), header.source);
        prop_assert_eq!(packet.destination(), header.destination);
        prop_assert_eq!(packet.next_header(), header.next_header);
        prop_assert_eq!(packet.hop_limit(), header.hop_limit);
        prop_assert_eq!(packet.traffic_class(), header.traffic_class);
        prop_assert_eq!(packet.flow_label(), header.flow_label);
        prop_assert_eq!(packet.payload_len(), payload.len());
        prop_assert_eq!(packet.payload(), payload);
    }

    #[test]
    fn a_flow_label_does_not_spill(flow_label: u32) {
        let mut bytes = [0; HEADER_LEN];
        let mut header = Header {
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::LOCALHOST,
            next_header: 6,
            hop_limit: 1,
            traffic_class: 0xa5,
            flow_label,
        };
        header.emit(&mut bytes, 0);
        header.flow_label &= 0xf_ffff;
        let packet = Packet::parse(&bytes).unwrap();
        prop_assert_eq!(packet.traffic_class(), 0xa5);
        prop_assert_eq!(packet.flow_label(), header.flow_label);
    }
}

#[test]
fn other_versions() {
    let mut bytes = build(protocol::TCP, &[]);
    for version in (0..16).filter(|&version| version != 6) {
        bytes[0] = version << 4;
        assert_eq!(Packet::parse(&bytes).err(), Some(Malformed::Version));
    }
}

#[test]
fn upper_layer_without_extensions() {
    let bytes = build(protocol::TCP, &[1, 2, 3]);
    let upper = Packet::parse(&bytes).unwrap().upper_layer().unwrap();
    assert_eq!((upper.protocol, upper.offset, upper.fragment), (protocol::TCP, 40, None));
    assert_eq!(upper.payload, [1, 2, 3]);
}

#[test]
fn upper_layer_behind_options_authentication_and_fragment() {
    let mut payload = vec![0; 8 + 16 + 12 + 8];
    payload[0] = 60; // hop-by-hop options, then destination options
    payload[8] = 51; // of 16 bytes, then authentication
    payload[9] = 1;
    payload[24] = 44; // of 12 bytes, then fragment
    payload[25] = 1;
    payload[36] = protocol::UDP;
    payload[39] = 1; // the first of several
    payload.extend([9; 8]);
    let bytes = build(0, &payload);
    let upper = Packet::parse(&bytes).unwrap().upper_layer().unwrap();
    assert_eq!((upper.protocol, upper.offset), (protocol::UDP, 84));
    assert_eq!(upper.fragment, Some(Fragment { offset: 0, more: true }));
    assert_eq!(upper.payload, [9; 8]);
}

#[test]
fn later_fragments_have_no_upper_header() {
    // What follows is data, though it would read as another extension header.
    let bytes = build(44, &[0, 0, 0x05, 0xa8, 0, 0, 0, 1, 43, 200, 0, 0, 0, 0, 0, 0]);
    let upper = Packet::parse(&bytes).unwrap().upper_layer().unwrap();
    assert_eq!(upper.fragment, Some(Fragment { offset: 1448, more: false }));
    assert_eq!((upper.protocol, upper.payload.len()), (0, 8));
}

#[test]
fn extensions_that_lie_or_never_end() {
    let upper = |payload: &[u8]| {
        let bytes = build(0, payload);
        Packet::parse(&bytes).unwrap().upper_layer().err()
    };
    assert_eq!(upper(&[59, 0, 0, 0, 0, 0, 0]), Some(Malformed::Truncated));
    assert_eq!(upper(&[59, 1, 0, 0, 0, 0, 0, 0]), Some(Malformed::Truncated));
    assert_eq!(upper(&[0; 8 * (MAX_EXTENSIONS + 1)]), Some(Malformed::Extension));
    let mut enough = [0; 8 * MAX_EXTENSIONS];
    enough[8 * (MAX_EXTENSIONS - 1)] = 59;
    assert_eq!(upper(&enough), None);
}
