use std::net::Ipv4Addr;

use millrace_wire::dhcpv4::{
    ClasslessRoute, HEADER_LEN, Header, MIN_LEN, MessageType, Packet, Writer, option,
};
use millrace_wire::{Mac, Malformed};
use proptest::prelude::*;

use crate::{assert_cuts_rejected, payload, touch};

const HEADER: Header = Header {
    reply: true,
    transaction: 0x1234_5678,
    seconds: 7,
    broadcast: true,
    client_address: Ipv4Addr::new(192, 0, 2, 9),
    your_address: Ipv4Addr::new(192, 0, 2, 10),
    hardware_address: Mac([2, 0, 0, 0, 0, 1]),
};

fn message(options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0xaa; 600];
    let mut writer = Writer::new(&mut bytes, HEADER, MessageType::Offer);
    for (code, data) in options {
        writer.option(*code, data);
    }
    let len = writer.finish();
    bytes.truncate(len);
    bytes
}

#[test]
fn what_was_written_reads_back() {
    let bytes = message(&[
        (option::LEASE_TIME, &[0, 0, 14, 16]),
        (option::ROUTER, &[192, 0, 2, 1, 192, 0, 2, 2]),
        (option::INTERFACE_MTU, &[5, 220]),
    ]);
    assert_eq!(bytes.len(), MIN_LEN);
    let packet = Packet::parse(&bytes).unwrap();
    assert!(packet.is_reply() && !packet.is_request() && packet.wants_broadcast());
    assert_eq!((packet.transaction(), packet.seconds()), (0x1234_5678, 7));
    assert_eq!(packet.client_address(), HEADER.client_address);
    assert_eq!(packet.your_address(), HEADER.your_address);
    assert_eq!(packet.hardware_address(), HEADER.hardware_address);
    assert_eq!(packet.message_type(), Some(MessageType::Offer));
    assert_eq!(packet.long_option(option::LEASE_TIME), Some(3600));
    assert_eq!(packet.short_option(option::INTERFACE_MTU), Some(1500));
    assert_eq!(packet.address_option(option::ROUTER), Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(packet.addresses(option::ROUTER).count(), 2);
    assert_eq!(packet.option(option::DOMAIN_NAME_SERVER), None);
    assert_cuts_rejected(&bytes[..HEADER_LEN], |cut| Packet::parse(cut).map(|_| ()));
}

#[test]
fn options_go_on_in_the_fields_for_names() {
    let mut bytes = message(&[(option::OVERLOAD, &[3])]);
    bytes[108..114].copy_from_slice(&[option::SUBNET_MASK, 4, 255, 255, 255, 0]);
    bytes[44..50].copy_from_slice(&[option::ROUTER, 4, 192, 0, 2, 1]);
    let packet = Packet::parse(&bytes).unwrap();
    let mask = packet.address_option(option::SUBNET_MASK);
    assert_eq!(mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
    assert_eq!(packet.address_option(option::ROUTER), Some(Ipv4Addr::new(192, 0, 2, 1)));
    // Without the option these fields are names.
    let mut names = message(&[]);
    names[108..].iter_mut().take(128).for_each(|byte| *byte = 7);
    assert!(Packet::parse(&names).is_ok());
    bytes[109] = 200;
    assert_eq!(Packet::parse(&bytes).err(), Some(Malformed::Option));
}

/// RFC 3396 §5: the parts of an option, in the field for options, then file, then sname.
#[test]
fn an_option_in_parts_is_joined_wherever_they_end() {
    let servers = [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]];
    let whole = servers.concat();
    for first in 0..=whole.len() {
        for second in first..=whole.len() {
            let mut bytes = message(&[
                (option::DOMAIN_NAME_SERVER, &whole[..first]),
                (option::OVERLOAD, &[3]),
                (option::ROUTER, &[192, 0, 2, 9]),
            ]);
            for (field, part) in [(108, &whole[first..second]), (44, &whole[second..])] {
                bytes[field..field + 2].copy_from_slice(&[6, part.len() as u8]);
                bytes[field + 2..field + 2 + part.len()].copy_from_slice(part);
            }
            let packet = Packet::parse(&bytes).unwrap();
            let joined: Vec<_> = packet.addresses(option::DOMAIN_NAME_SERVER).collect();
            assert_eq!(joined, servers.map(Ipv4Addr::from), "{first} {second}");
            assert_eq!(packet.addresses(option::ROUTER).count(), 1);
        }
    }
    // What is a number or a kind is no list: the first one counts.
    let twice =
        message(&[(option::LEASE_TIME, &[0, 0, 14, 16]), (option::LEASE_TIME, &[0, 0, 0, 1])]);
    assert_eq!(Packet::parse(&twice).unwrap().long_option(option::LEASE_TIME), Some(3600));
}

#[test]
fn routes_may_be_longer_than_an_option() {
    let data: Vec<u8> = (0..40).flat_map(|net| [24, 10, 0, net, 192, 0, 2, 1]).collect();
    let (first, second) = data.split_at(253);
    let bytes = message(&[(option::CLASSLESS_ROUTES, first), (option::CLASSLESS_ROUTES, second)]);
    let packet = Packet::parse(&bytes).unwrap();
    let routes: Vec<_> = packet.classless_routes().unwrap().collect();
    assert_eq!(routes.len(), 40);
    assert!((0..40).all(|net| routes[usize::from(net)].destination.octets() == [10, 0, net, 0]));
}

#[test]
fn what_is_no_dhcp_is_refused() {
    let good = message(&[]);
    let wrong = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        Packet::parse(&bytes).err()
    };
    assert_eq!(wrong(1, 6), Some(Malformed::Hardware));
    assert_eq!(wrong(2, 16), Some(Malformed::Hardware));
    assert_eq!(wrong(239, 0), Some(Malformed::Version));
    assert_eq!(wrong(241, 200), Some(Malformed::Option));
}

#[test]
fn routes_have_prefixes_of_any_length() {
    let data = [
        &[0, 192, 0, 2, 1][..],
        &[8, 10, 192, 0, 2, 2],
        &[25, 198, 51, 100, 255, 0, 0, 0, 0],
        &[33, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    ]
    .concat();
    let bytes = message(&[(option::CLASSLESS_ROUTES, &data)]);
    let packet = Packet::parse(&bytes).unwrap();
    let route = |destination: [u8; 4], prefix, router: [u8; 4]| ClasslessRoute {
        destination: destination.into(),
        prefix,
        router: router.into(),
    };
    assert_eq!(
        packet.classless_routes().unwrap().collect::<Vec<_>>(),
        [
            route([0; 4], 0, [192, 0, 2, 1]),
            route([10, 0, 0, 0], 8, [192, 0, 2, 2]),
            route([198, 51, 100, 128], 25, [0; 4]),
        ]
    );
    assert!(Packet::parse(&message(&[])).unwrap().classless_routes().is_none());
}

proptest! {
    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn anything_is_harmless(options in payload(200), names in payload(192), overload in 0..5_u8) {
        let mut bytes = message(&[(option::OVERLOAD, &[overload])]);
        bytes[44..44 + names.len()].copy_from_slice(&names);
        bytes.truncate(HEADER_LEN + 6);
        bytes.extend_from_slice(&options);
        touch::dhcpv4(&bytes);
        touch::dhcpv4(&options);
    }
}
