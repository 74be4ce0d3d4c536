use std::net::Ipv6Addr;

use millrace_wire::icmpv6::{
    HEADER_LEN, Kind, MAX_QUOTE, Packet, emit_echo_request, emit_error, fill_checksum, kind,
    parameter,
};
use millrace_wire::{checksum, ipv6, protocol};
use proptest::prelude::*;

use crate::{assert_cuts_rejected, payload};

fn pseudo(len: usize) -> u16 {
    let source = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    checksum::pseudo_v6(source, Ipv6Addr::LOCALHOST, protocol::ICMPV6, len)
}

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn echo_round_trip(identifier: u16, sequence: u16, data in payload(100), room in 0..20_usize) {
        let mut bytes = vec![0xaa; HEADER_LEN + data.len() + room];
        let len = emit_echo_request(&mut bytes, identifier, sequence, &data);
        prop_assert_eq!(len, HEADER_LEN + data.len());
        fill_checksum(&mut bytes[..len], pseudo(len));
        let packet = Packet::parse(&bytes[..len]).unwrap();
        prop_assert!(packet.verify_checksum(pseudo(len)) && !packet.is_error());
        prop_assert!(!packet.verify_checksum(checksum::add(pseudo(len), 1)));
        prop_assert_eq!(packet.kind(), Kind::EchoRequest { identifier, sequence, data: &data });
        assert_cuts_rejected(&bytes[..HEADER_LEN], |cut| Packet::parse(cut).map(|_| ()));
        prop_assert!(bytes[len..].iter().all(|&byte| byte == 0xaa));
    }

    #[test]
    fn errors_round_trip(code in 0..4_u8, word: u32, packet in payload(1500), room in 0..1500_usize) {
        let mut bytes = vec![0xaa; HEADER_LEN + room];
        let quote = &packet[..packet.len().min(room).min(MAX_QUOTE)];
        for number in [kind::PACKET_TOO_BIG, kind::PARAMETER_PROBLEM] {
            let len = emit_error(&mut bytes, number, code, word, &packet);
            prop_assert_eq!(len, HEADER_LEN + quote.len());
            fill_checksum(&mut bytes[..len], pseudo(len));
            let message = Packet::parse(&bytes[..len]).unwrap();
            prop_assert!(message.verify_checksum(pseudo(len)) && message.is_error());
            let expected = match number {
                kind::PACKET_TOO_BIG => Kind::PacketTooBig { mtu: word, quote },
                _ => Kind::ParameterProblem { code, pointer: word, quote },
            };
            prop_assert_eq!(message.kind(), expected);
            prop_assert!(bytes[len..].iter().all(|&byte| byte == 0xaa));
        }
    }
}

#[test]
fn an_error_fits_the_smallest_mtu() {
    let mut bytes = vec![0; 2000];
    let len = emit_error(&mut bytes, kind::UNREACHABLE, parameter::FIELD, 0, &[7; 3000]);
    assert_eq!(ipv6::HEADER_LEN + len, ipv6::MIN_MTU);
}

#[test]
fn extensions_are_not_part_of_the_quote() {
    // RFC 4884: two units of eight bytes are quoted, the rest is an extension.
    let mut message = vec![kind::UNREACHABLE, 4, 0, 0, 2, 0, 0, 0];
    message.extend([1; 16]);
    message.extend([2; 12]);
    let kind = Packet::parse(&message).unwrap().kind();
    assert_eq!(kind, Kind::Unreachable { code: 4, quote: &[1; 16] });
    // A length that goes beyond the message is a claim like any other.
    message[4] = 200;
    let Kind::Unreachable { quote, .. } = Packet::parse(&message).unwrap().kind() else { panic!() };
    assert_eq!(quote.len(), 28);
}
