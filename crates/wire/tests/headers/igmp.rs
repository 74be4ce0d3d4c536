use std::net::Ipv4Addr;
use std::time::Duration;

use millrace_wire::Malformed;
use millrace_wire::igmp::{
    HEADER_LEN, Kind, Old, Packet, QUERY_LEN, RECORD_LEN, RecordKind, decode_time, emit_old,
    emit_record, emit_report, fill_checksum,
};
use proptest::prelude::*;

use crate::{payload, touch};

fn query(code: u8, group: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x11, code, 0, 0];
    bytes.extend_from_slice(&group);
    bytes.extend_from_slice(rest);
    fill_checksum(&mut bytes);
    bytes
}

#[test]
fn the_length_tells_the_version() {
    let parsed = |bytes: &[u8]| match Packet::parse(bytes).unwrap().kind() {
        Kind::Query(query) => (query.version, query.max_response),
        other => panic!("{other:?}"),
    };
    let seconds = Duration::from_secs;
    assert_eq!(parsed(&query(0, [0; 4], &[])), (1, seconds(10)));
    assert_eq!(parsed(&query(100, [0; 4], &[])), (2, seconds(10)));
    // Version 2 has no exponent.
    assert_eq!(parsed(&query(200, [0; 4], &[])), (2, seconds(20)));
    assert_eq!(parsed(&query(100, [0; 4], &[2, 125, 0, 0])), (3, seconds(10)));
    assert_eq!(parsed(&query(0x80, [0; 4], &[2, 125, 0, 0])).1, Duration::from_millis(12_800));
    for len in 1..4 {
        let odd = query(0, [0; 4], &[0; 3][..len]);
        assert_eq!(Packet::parse(&odd).err(), Some(Malformed::TotalLength));
    }
}

#[test]
fn time_codes_grow_from_mantissa_to_exponent() {
    assert_eq!((decode_time(0), decode_time(127)), (0, 127));
    assert_eq!((decode_time(0x80), decode_time(0xff)), (128, 31_744));
    assert!((0..255).all(|code| decode_time(code) < decode_time(code + 1)));
}

#[test]
fn sources_must_be_there() {
    let mut bytes = query(10, [232, 0, 0, 1], &[10, 125, 0, 2, 192, 0, 2, 1, 192, 0, 2, 2]);
    let packet = Packet::parse(&bytes).unwrap();
    assert!(packet.verify_checksum());
    let Kind::Query(query) = packet.kind() else { panic!() };
    assert_eq!((query.robustness, query.interval), (2, 125));
    assert_eq!(query.group, Ipv4Addr::new(232, 0, 0, 1));
    let sources: Vec<_> = query.sources().collect();
    assert_eq!(sources, [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)]);
    bytes[11] = 3;
    assert_eq!(Packet::parse(&bytes).err(), Some(Malformed::Truncated));
}

#[test]
fn reports_of_every_version_are_told_apart() {
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let mut bytes = [0; HEADER_LEN];
    emit_old(&mut bytes, Old::ReportV1, group);
    assert!(matches!(Packet::parse(&bytes).unwrap().kind(), Kind::ReportV1(at) if at == group));
    emit_old(&mut bytes, Old::ReportV2, group);
    assert!(matches!(Packet::parse(&bytes).unwrap().kind(), Kind::ReportV2(at) if at == group));
    emit_old(&mut bytes, Old::Leave, group);
    assert!(matches!(Packet::parse(&bytes).unwrap().kind(), Kind::Leave(at) if at == group));
    let mut report = vec![0; HEADER_LEN + RECORD_LEN + 8];
    emit_report(&mut report, 1);
    let sources = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
    let record = &mut report[HEADER_LEN..];
    assert_eq!(emit_record(record, RecordKind::Allow, group, sources.into_iter()), 16);
    fill_checksum(&mut report);
    let packet = Packet::parse(&report).unwrap();
    assert!(packet.verify_checksum() && matches!(packet.kind(), Kind::ReportV3));
    assert_eq!(report[HEADER_LEN..][..8], [5, 0, 0, 2, 239, 1, 2, 3]);
    assert_eq!(report[HEADER_LEN + 12..], [192, 0, 2, 2]);
}

proptest! {
    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn anything_is_harmless(mut bytes in payload(64), kind in 0..4_usize) {
        touch::igmp(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = [0x11, 0x12, 0x16, 0x22][kind];
        }
        touch::igmp(&bytes);
        if bytes.len() >= QUERY_LEN {
            bytes[10] = 0;
            bytes[11] %= 12;
        }
        touch::igmp(&bytes);
    }
}
