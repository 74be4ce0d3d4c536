use std::net::{Ipv4Addr, Ipv6Addr};

use millrace_wire::udp::{CHECKSUM_OFFSET, Datagram, HEADER_LEN, emit, fill_checksum};
use millrace_wire::{Malformed, checksum, protocol};
use proptest::prelude::*;

use crate::{assert_cuts_rejected, payload};

fn build(source_port: u16, destination_port: u16, payload: &[u8], pseudo: u16) -> Vec<u8> {
    let mut bytes = vec![0xaa; HEADER_LEN];
    emit(&mut bytes, source_port, destination_port, payload.len());
    fill_checksum(&mut bytes, pseudo, checksum::sum(payload));
    bytes.extend(payload);
    bytes
}

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn round_trip(
        ports: (u16, u16),
        payload in payload(100),
        addresses: (Ipv4Addr, Ipv4Addr),
        padding in 0..50_usize,
    ) {
        let len = HEADER_LEN + payload.len();
        let pseudo = checksum::pseudo_v4(addresses.0, addresses.1, protocol::UDP, len);
        let mut bytes = build(ports.0, ports.1, &payload, pseudo);
        assert_cuts_rejected(&bytes, |cut| Datagram::parse(cut).map(|_| ()));
        bytes.resize(len + padding, 0x55);

        let datagram = Datagram::parse(&bytes).unwrap();
        prop_assert_eq!((datagram.source_port(), datagram.destination_port()), ports);
        prop_assert_eq!(datagram.payload(), payload);
        prop_assert_eq!(datagram.total_len(), len);
        prop_assert!(datagram.has_checksum() && datagram.verify_checksum(pseudo));
    }

    #[test]
    fn any_flipped_bit_is_found(
        payload in payload(100),
        addresses: (Ipv6Addr, Ipv6Addr),
        bit: prop::sample::Index,
    ) {
        let len = HEADER_LEN + payload.len();
        let pseudo = checksum::pseudo_v6(addresses.0, addresses.1, protocol::UDP, len);
        let mut bytes = build(1, 2, &payload, pseudo);
        let bit = bit.index(len * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let passes = |datagram: Datagram| {
            // One flip may turn a power of two into zero, which is no checksum, and one in the
            // length leaves another datagram, for which IP would have said another length.
            datagram.has_checksum()
                && datagram.total_len() == len
                && datagram.verify_checksum(pseudo)
        };
        prop_assert!(!Datagram::parse(&bytes).is_ok_and(passes));
    }
}

#[test]
fn a_checksum_of_zero_is_sent_as_all_ones() {
    let mut header = [0; HEADER_LEN];
    emit(&mut header, 1, 2, 0);
    let sum = checksum::sum(&header);
    // A pseudo-header that makes the sum all ones, so that the checksum is zero.
    let pseudo = !sum;
    fill_checksum(&mut header, pseudo, 0);
    assert_eq!(header[CHECKSUM_OFFSET..], [0xff, 0xff]);
    assert!(Datagram::parse(&header).unwrap().verify_checksum(pseudo));
}

#[test]
fn no_checksum_is_right_and_a_partial_one_is_not() {
    let mut header = [0; HEADER_LEN];
    emit(&mut header, 1, 2, 0);
    let datagram = Datagram::parse(&header).unwrap();
    assert!(!datagram.has_checksum() && datagram.verify_checksum(0x1234));

    header[CHECKSUM_OFFSET..].copy_from_slice(&[0x12, 0x34]);
    let datagram = Datagram::parse(&header).unwrap();
    assert!(datagram.has_partial_checksum(0x1234) && !datagram.verify_checksum(0x1234));
}

#[test]
fn length_below_the_header() {
    for len in 0..8 {
        let bytes = [0, 1, 0, 2, 0, len, 0, 0, 9, 9];
        assert_eq!(Datagram::parse(&bytes).err(), Some(Malformed::TotalLength));
    }
}
