use std::net::Ipv4Addr;

use millrace_wire::icmpv4::{
    HEADER_LEN, Kind, MAX_QUOTE, Packet, emit_echo_reply, emit_echo_request, emit_time_exceeded,
    emit_unreachable, unreachable,
};
use millrace_wire::{checksum, ipv4, protocol, tcp};
use proptest::prelude::*;

use crate::{assert_cuts_rejected, payload};

/// A message with a right checksum.
fn message(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = checksum::finish(checksum::sum(&bytes));
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn echo_round_trip(identifier: u16, sequence: u16, data in payload(100), room in 0..20_usize) {
        let mut bytes = vec![0xaa; HEADER_LEN + data.len() + room];
        let len = emit_echo_request(&mut bytes, identifier, sequence, &data);
        prop_assert_eq!(len, HEADER_LEN + data.len());
        let packet = Packet::parse(&bytes[..len]).unwrap();
        prop_assert!(packet.verify_checksum() && !packet.is_error());
        prop_assert_eq!(packet.kind(), Kind::EchoRequest { identifier, sequence, data: &data });

        let len = emit_echo_reply(&mut bytes, identifier, sequence, &data);
        let packet = Packet::parse(&bytes[..len]).unwrap();
        prop_assert!(packet.verify_checksum() && !packet.is_error());
        prop_assert_eq!(packet.kind(), Kind::EchoReply { identifier, sequence, data: &data });
        assert_cuts_rejected(&bytes[..HEADER_LEN], |cut| Packet::parse(cut).map(|_| ()));
        prop_assert!(bytes[len..].iter().all(|&byte| byte == 0xaa));
    }

    #[test]
    fn unreachable_round_trip(code: u8, mtu: u16, packet in payload(700), room in 0..700_usize) {
        let mut bytes = vec![0xaa; HEADER_LEN + room];
        let len = emit_unreachable(&mut bytes, code, mtu, &packet);
        let quote = &packet[..packet.len().min(room).min(MAX_QUOTE)];
        prop_assert_eq!(len, HEADER_LEN + quote.len());
        let message = Packet::parse(&bytes[..len]).unwrap();
        prop_assert!(message.verify_checksum() && message.is_error());
        prop_assert_eq!(message.kind(), Kind::Unreachable { code, next_hop_mtu: mtu, quote });
        prop_assert!(bytes[len..].iter().all(|&byte| byte == 0xaa));
    }

    #[test]
    fn any_flipped_bit_is_found(data in payload(100), bit: prop::sample::Index) {
        let mut bytes = vec![0; HEADER_LEN + data.len()];
        emit_echo_request(&mut bytes, 1, 2, &data);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!Packet::parse(&bytes).unwrap().verify_checksum());
    }
}

#[test]
fn the_other_kinds() {
    let quote = &[7; 28][..];
    let bytes = message([&[5, 1, 0, 0, 192, 0, 2, 9], quote].concat());
    let packet = Packet::parse(&bytes).unwrap();
    let gateway = Ipv4Addr::new(192, 0, 2, 9);
    assert_eq!(packet.kind(), Kind::Redirect { code: 1, gateway, quote });
    assert!(packet.verify_checksum());

    let mut bytes = [0; HEADER_LEN + 28];
    assert_eq!(emit_time_exceeded(&mut bytes, 1, quote), bytes.len());
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.kind(), Kind::TimeExceeded { code: 1, quote });
    assert!(packet.verify_checksum());

    let bytes = message([&[12, 0, 0, 0, 20, 0, 0, 0], quote].concat());
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.kind(), Kind::ParameterProblem { code: 0, pointer: 20, quote });

    let bytes = message(vec![13, 0, 0, 0, 0, 0, 0, 0]);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.kind(), Kind::Other { kind: 13, code: 0 });
    assert!(!packet.is_error());
    assert!(Packet::parse(&message(vec![99; 8])).unwrap().is_error(), "unknown counts as error");
}

/// RFC 4884: what follows the quoted packet is an extension, and not part of it.
#[test]
fn extensions_are_not_quoted() {
    let quote = [7; 128];
    let extension = [0x20, 0, 0, 0, 0, 8, 1, 1, 1, 2, 3, 4];
    let bytes = [&[11, 0, 0, 0, 0, 32, 0, 0], &quote[..], &extension].concat();
    let Kind::TimeExceeded { quote: read, .. } = Packet::parse(&bytes).unwrap().kind() else {
        panic!("not time exceeded");
    };
    assert_eq!(read, quote);

    // A length beyond the message is not believed.
    let bytes = [&[3, 3, 0, 0, 0, 255, 0, 0], &quote[..28]].concat();
    let Kind::Unreachable { quote: read, .. } = Packet::parse(&bytes).unwrap().kind() else {
        panic!("not unreachable");
    };
    assert_eq!(read, &quote[..28]);
}

/// What a stack does with "fragmentation needed": find the connection and its sequence number.
#[test]
fn a_quoted_segment_is_found() {
    let mut packet = [0; 60];
    let header = ipv4::Header {
        source: Ipv4Addr::new(192, 0, 2, 1),
        destination: Ipv4Addr::new(192, 0, 2, 2),
        protocol: protocol::TCP,
        ttl: 1,
        tos: 0,
        identification: 0,
        dont_fragment: true,
    };
    header.emit(&mut packet, 1400);
    packet[20..28].copy_from_slice(&[0x9c, 0x40, 0, 80, 1, 2, 3, 4]);

    let mut bytes = [0; HEADER_LEN + 28];
    emit_unreachable(&mut bytes, unreachable::FRAGMENTATION_NEEDED, 1300, &packet);
    let Kind::Unreachable { code, next_hop_mtu, quote } = Packet::parse(&bytes).unwrap().kind()
    else {
        panic!("not unreachable");
    };
    assert_eq!((code, next_hop_mtu), (unreachable::FRAGMENTATION_NEEDED, 1300));
    let quoted = ipv4::Packet::parse_cut(quote).unwrap();
    assert_eq!((quoted.total_len(), quoted.destination()), (1420, header.destination));
    let quoted = tcp::Quoted::parse(quoted.payload()).unwrap();
    assert_eq!((quoted.source_port, quoted.destination_port), (40000, 80));
    assert_eq!(quoted.sequence.0, 0x0102_0304);
}
