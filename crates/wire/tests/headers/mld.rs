use std::net::Ipv6Addr;
use std::time::Duration;

use millrace_wire::Malformed;
use millrace_wire::mld::{
    DONE, Kind, QUERY, QUERY_LEN, RECORD_LEN, REPORT_LEN, REPORT_V1, RecordKind, V1_LEN,
    decode_time, emit_record, emit_report, emit_v1, parse,
};
use proptest::prelude::*;

use crate::{payload, touch};

const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x1234);

fn query(code: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; V1_LEN];
    emit_v1(&mut bytes, QUERY, GROUP);
    bytes[4..6].copy_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

#[test]
fn the_length_tells_the_version() {
    let parsed = |bytes: &[u8]| match parse(bytes) {
        Ok(Some(Kind::Query(query))) => (query.version, query.max_response, query.group),
        other => panic!("{other:?}"),
    };
    let (second, group) = (Duration::from_secs(1), GROUP);
    assert_eq!(parsed(&query(1000, &[])), (1, second, group));
    assert_eq!(parsed(&query(1000, &[2, 125, 0, 0])), (2, second, group));
    assert_eq!(parsed(&query(0x8000, &[])).1, Duration::from_millis(32_768));
    assert_eq!(parsed(&query(0xffff, &[0; 4])).1, Duration::from_millis(8_387_584));
    for len in 1..4 {
        assert_eq!(parse(&query(0, &[0; 3][..len])).err(), Some(Malformed::TotalLength));
    }
    for len in 0..V1_LEN {
        assert_eq!(parse(&query(0, &[])[..len]).err(), Some(Malformed::Truncated));
    }
}

#[test]
fn time_codes_grow_from_mantissa_to_exponent() {
    assert_eq!((decode_time(0x7fff), decode_time(0x8000)), (32_767, 32_768));
    assert!((0..u16::MAX).all(|code| decode_time(code) < decode_time(code + 1)));
}

#[test]
fn sources_must_be_there() {
    let mut rest = vec![0x0a, 0x80, 0, 1];
    rest.extend_from_slice(&Ipv6Addr::LOCALHOST.octets());
    let mut bytes = query(1000, &rest);
    let Ok(Some(Kind::Query(query))) = parse(&bytes) else { panic!() };
    assert_eq!((query.robustness, query.interval), (2, 128));
    assert_eq!(query.sources().collect::<Vec<_>>(), [Ipv6Addr::LOCALHOST]);
    bytes[27] = 2;
    assert_eq!(parse(&bytes).err(), Some(Malformed::Truncated));
}

#[test]
fn reports_are_told_apart() {
    let mut bytes = [0; V1_LEN];
    emit_v1(&mut bytes, REPORT_V1, GROUP);
    assert!(matches!(parse(&bytes), Ok(Some(Kind::ReportV1(GROUP)))));
    emit_v1(&mut bytes, DONE, GROUP);
    assert!(matches!(parse(&bytes), Ok(Some(Kind::Done(GROUP)))));
    let mut report = vec![0; REPORT_LEN + RECORD_LEN + 16];
    emit_report(&mut report, 1);
    let source = [Ipv6Addr::LOCALHOST];
    let record = &mut report[REPORT_LEN..];
    assert_eq!(emit_record(record, RecordKind::ToInclude, GROUP, source.into_iter()), 36);
    assert!(matches!(parse(&report), Ok(Some(Kind::ReportV2))));
    assert_eq!(report[REPORT_LEN..][..4], [3, 0, 0, 1]);
    assert_eq!(report[REPORT_LEN + 4..][..16], GROUP.octets());
    assert!(matches!(parse(&[128, 0, 0, 0]), Ok(None)));
}

proptest! {
    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn anything_is_harmless(mut bytes in payload(100), kind in 0..4_usize) {
        touch::mld(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = [130, 131, 132, 143][kind];
        }
        touch::mld(&bytes);
        if bytes.len() >= QUERY_LEN {
            bytes[26] = 0;
            bytes[27] %= 5;
        }
        touch::mld(&bytes);
    }
}
