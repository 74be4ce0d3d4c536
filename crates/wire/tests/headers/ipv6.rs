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

mod extension {
    use millrace_wire::Malformed;
    use millrace_wire::ipv6::extension::{Action, DESTINATION, FRAGMENT, Header, Opt, ROUTING};

    #[test]
    fn headers_are_taken_off_one_by_one() {
        let mut bytes = vec![ROUTING, 1];
        bytes.extend([1, 12]);
        bytes.extend([0; 12]);
        bytes.extend([FRAGMENT, 0, 4, 2, 0, 0, 0, 0]);
        bytes.extend([6, 99, 0, 1, 0, 0, 0, 7]);
        bytes.extend(*b"rest");
        let (options, rest) = Header::split(DESTINATION, &bytes).unwrap().unwrap();
        assert_eq!((options.number, options.next, options.len()), (DESTINATION, ROUTING, 16));
        let (routing, rest) = Header::split(options.next, rest).unwrap().unwrap();
        assert_eq!((routing.routing_type(), routing.segments_left()), (4, 2));
        let (fragment, rest) = Header::split(routing.next, rest).unwrap().unwrap();
        assert_eq!((fragment.next, fragment.len(), rest), (6, 8, &b"rest"[..]));
        assert_eq!(Header::split(fragment.next, rest), Ok(None));
        assert_eq!(Header::split(DESTINATION, &bytes[..15]), Err(Malformed::Truncated));
    }

    #[test]
    fn options_tell_what_to_do_with_those_who_do_not_know_them() {
        let bytes = [59, 1, 0, 1, 0, 0x1e, 2, 7, 7, 0x5e, 0, 0x9e, 1, 0, 0xde, 0];
        let (header, _) = Header::split(DESTINATION, &bytes).unwrap().unwrap();
        let options: Vec<_> = header.options().map(Result::unwrap).collect();
        let actions: Vec<_> =
            options.iter().map(|option| (option.offset, option.action())).collect();
        assert_eq!(options[1], Opt { kind: Opt::PAD_N, offset: 3, data: &[] });
        assert_eq!(
            actions[2..],
            [
                (5, Action::Skip),
                (9, Action::Discard),
                (11, Action::Report),
                (14, Action::ReportToUnicast)
            ]
        );
    }

    #[test]
    fn an_option_beyond_its_header_is_the_last() {
        for bytes in [[59, 0, 1, 5, 0, 0, 0, 0], [59, 0, 0, 0, 0, 0, 0, 5]] {
            let (header, _) = Header::split(DESTINATION, &bytes).unwrap().unwrap();
            let mut options = header.options().skip_while(|option| option.is_ok());
            assert_eq!(options.next(), Some(Err(Malformed::Option)));
            assert_eq!(options.next(), None);
        }
    }
}
