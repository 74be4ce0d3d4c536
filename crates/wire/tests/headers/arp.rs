use std::net::Ipv4Addr;

use millrace_wire::Malformed;
use millrace_wire::arp::{LEN, Operation, Packet, emit};
use proptest::prelude::*;

use crate::{assert_cuts_rejected, mac};

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn round_trip(
        operation: u16,
        sender_mac in mac(),
        sender_ip: Ipv4Addr,
        target_mac in mac(),
        target_ip: Ipv4Addr,
        padding in 0..20_usize,
    ) {
        let mut bytes = vec![0xaa; LEN];
        emit(&mut bytes, operation.into(), sender_mac, sender_ip, target_mac, target_ip);
        assert_cuts_rejected(&bytes, |cut| Packet::parse(cut).map(|_| ()));
        bytes.resize(LEN + padding, 0);

        let packet = Packet::parse(&bytes).unwrap();
        prop_assert_eq!(u16::from(packet.operation()), operation);
        prop_assert_eq!(packet.sender_mac(), sender_mac);
        prop_assert_eq!(packet.sender_ip(), sender_ip);
        prop_assert_eq!(packet.target_mac(), target_mac);
        prop_assert_eq!(packet.target_ip(), target_ip);
    }

    #[test]
    fn any_flipped_bit_of_the_fixed_fields_is_rejected(bit in 0..48_usize) {
        let (mac, ip) = ([2; 6].into(), Ipv4Addr::LOCALHOST);
        let mut bytes = [0; LEN];
        emit(&mut bytes, Operation::Request, mac, ip, mac, ip);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Packet::parse(&bytes).err(), Some(Malformed::Hardware));
    }
}

#[test]
fn request_as_on_the_wire() {
    let mut bytes = [0; LEN];
    emit(
        &mut bytes,
        Operation::Request,
        [2, 0, 0, 0, 0, 1].into(),
        Ipv4Addr::new(192, 0, 2, 1),
        [0; 6].into(),
        Ipv4Addr::new(192, 0, 2, 2),
    );
    let expected =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2];
    assert_eq!(bytes, expected);
    assert_eq!(Packet::parse(&bytes).unwrap().operation(), Operation::Request);
}
