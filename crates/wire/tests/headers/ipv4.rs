use std::net::Ipv4Addr;

use millrace_wire::ipv4::{CHECKSUM_OFFSET, HEADER_LEN, Header, Ipv4Option, Packet};
use millrace_wire::{Malformed, checksum, protocol};
use proptest::prelude::*;

use crate::{assert_cuts_rejected, payload};

pub fn header() -> impl Strategy<Value = Header> {
    any::<(Ipv4Addr, Ipv4Addr, u8, u8, u8, u16, bool)>().prop_map(
        |(source, destination, protocol, ttl, tos, identification, dont_fragment)| Header {
            source,
            destination,
            protocol,
            ttl,
            tos,
            identification,
            dont_fragment,
        },
    )
}

fn build(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xaa; HEADER_LEN];
    header.emit(&mut bytes, payload.len());
    bytes.extend(payload);
    bytes
}

/// Puts options behind a header that has none, and mends its lengths and its checksum.
fn with_options(header: &Header, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = build(header, &[options, payload].concat());
    bytes[0] = 0x45 + (options.len() / 4) as u8;
    bytes[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].fill(0);
    let sum = checksum::finish(checksum::sum(&bytes[..HEADER_LEN + options.len()]));
    bytes[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

const HEADER: Header = Header {
    source: Ipv4Addr::new(192, 0, 2, 1),
    destination: Ipv4Addr::new(192, 0, 2, 2),
    protocol: protocol::UDP,
    ttl: 64,
    tos: 0,
    identification: 1,
    dont_fragment: false,
};

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn round_trip(header in header(), payload in payload(100), padding in 0..50_usize) {
        let mut bytes = build(&header, &payload);
        assert_cuts_rejected(&bytes, |cut| Packet::parse(cut).map(|_| ()));
        let total_len = bytes.len();
        bytes.resize(total_len + padding, 0x55);

        let packet = Packet::parse(&bytes).unwrap();
        prop_assert_eq!(packet.source(), header.source);
        prop_assert_eq!(packet.destination(), header.destination);
        prop_assert_eq!(packet.protocol(), header.protocol);
        prop_assert_eq!(packet.ttl(), header.ttl);
        prop_assert_eq!(packet.tos(), header.tos);
        prop_assert_eq!(packet.identification(), header.identification);
        prop_assert_eq!(packet.dont_fragment(), header.dont_fragment);
        prop_assert!(!packet.more_fragments() && !packet.is_fragment());
        prop_assert_eq!(packet.fragment_offset(), 0);
        prop_assert_eq!((packet.header_len(), packet.total_len()), (HEADER_LEN, total_len));
        prop_assert_eq!(packet.payload(), payload);
        prop_assert!(packet.options().is_empty() && packet.options_iter().next().is_none());
        prop_assert!(packet.verify_checksum());
    }

    #[test]
    fn any_flipped_bit_of_the_header_is_found(header in header(), bit in 0..HEADER_LEN * 8) {
        let mut bytes = build(&header, &[]);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!Packet::parse(&bytes).is_ok_and(|packet| packet.verify_checksum()));
    }

    #[test]
    fn options_and_payload_are_told_apart(
        header in header(),
        options in prop::collection::vec(any::<[u8; 4]>(), 0..=10),
        payload in payload(50),
    ) {
        let options = options.concat();
        let bytes = with_options(&header, &options, &payload);
        let packet = Packet::parse(&bytes).unwrap();
        prop_assert_eq!(packet.options(), &options[..]);
        prop_assert_eq!(packet.payload(), payload);
        prop_assert!(packet.verify_checksum());
    }

    #[test]
    fn fragment_fields(offset in 0..0x2000_usize, more: bool) {
        let mut bytes = build(&HEADER, &[1, 2, 3, 4]);
        bytes[6..8].copy_from_slice(&(u16::from(more) << 13 | offset as u16).to_be_bytes());
        let packet = Packet::parse(&bytes).unwrap();
        prop_assert_eq!((packet.fragment_offset(), packet.more_fragments()), (offset * 8, more));
        prop_assert_eq!(packet.is_fragment(), more || offset > 0);
    }
}

/// The example that many texts on the header checksum use: 192.168.0.1 to 192.168.0.199.
#[test]
fn header_as_on_the_wire() {
    let mut bytes = [0; HEADER_LEN];
    let header = Header {
        source: Ipv4Addr::new(192, 168, 0, 1),
        destination: Ipv4Addr::new(192, 168, 0, 199),
        protocol: protocol::UDP,
        ttl: 64,
        tos: 0,
        identification: 0,
        dont_fragment: true,
    };
    header.emit(&mut bytes, 0x73 - HEADER_LEN);
    let expected = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn impossible_lengths_and_versions() {
    let parse_with = |at: usize, value: u8| {
        let mut bytes = build(&HEADER, &[0; 100]);
        bytes[at] = value;
        Packet::parse(&bytes).err()
    };
    assert_eq!(parse_with(0, 0x65), Some(Malformed::Version));
    assert_eq!(parse_with(0, 0x05), Some(Malformed::Version));
    assert_eq!(parse_with(0, 0x44), Some(Malformed::HeaderLength));
    assert_eq!(parse_with(3, 19), Some(Malformed::TotalLength));
    assert_eq!(parse_with(3, 121), Some(Malformed::Truncated));
    assert_eq!(parse_with(0, 0x4f), None, "60 bytes of header are there");
}

#[test]
fn a_cut_packet_can_be_read_as_cut_only() {
    let bytes = build(&HEADER, &[7; 100]);
    let cut = &bytes[..HEADER_LEN + 8];
    assert_eq!(Packet::parse(cut).err(), Some(Malformed::Truncated));
    let packet = Packet::parse_cut(cut).unwrap();
    assert_eq!((packet.payload(), packet.total_len()), (&[7; 8][..], HEADER_LEN + 100));
    assert_eq!(Packet::parse_cut(&bytes[..HEADER_LEN - 1]).err(), Some(Malformed::Truncated));
}

#[test]
fn options_one_by_one() {
    let list = |options: &[u8]| {
        let bytes = with_options(&HEADER, options, &[]);
        let packet = Packet::parse(&bytes).unwrap();
        packet
            .options_iter()
            .map(|option| option.map(|Ipv4Option { kind, data }| (kind, data.to_vec())))
            .collect::<Vec<_>>()
    };
    // No-operation, router alert, end, and what nobody reads.
    assert_eq!(list(&[1, 148, 4, 0, 0, 0, 7, 0]), [Ok((148, vec![0, 0]))]);
    assert_eq!(list(&[136, 4, 1, 2, 7, 2, 1, 1]), [Ok((136, vec![1, 2])), Ok((7, vec![]))]);
    assert_eq!(list(&[7, 0, 1, 1]), [Err(Malformed::Option)], "a length of 0");
    assert_eq!(list(&[7, 1, 1, 1]), [Err(Malformed::Option)], "a length of 1");
    assert_eq!(list(&[7, 5, 1, 1]), [Err(Malformed::Option)], "a length beyond the header");
    assert_eq!(list(&[1, 1, 1, 7]), [Err(Malformed::Option)], "no length");
}

#[test]
#[should_panic(expected = "at most 65535 bytes")]
fn emit_of_too_long_a_packet() {
    HEADER.emit(&mut [0; HEADER_LEN], 65536 - HEADER_LEN);
}
