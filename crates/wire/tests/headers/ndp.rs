use std::net::Ipv6Addr;

use millrace_wire::ndp::{
    AdvertisementFlags, Message, Opt, Preference, Prefix, emit_neighbour_advertisement,
    emit_neighbour_solicitation, emit_router_solicitation, group_mac, solicited_node,
};
use millrace_wire::{Mac, Malformed};
use proptest::prelude::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn octets(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn neighbour_messages_round_trip(target: [u8; 16], bits in 0..8_u8, mac: Option<[u8; 6]>) {
        let (target, mac) = (Ipv6Addr::from(target), mac.map(Mac));
        let mut buf = [0xaa; 48];
        let len = emit_neighbour_solicitation(&mut buf, target, mac, Some([7; 6]));
        match Message::parse(&buf[..len]).unwrap().unwrap() {
            Message::NeighbourSolicitation { target: read, options } => {
                prop_assert_eq!((read, options.source_link_layer()), (target, mac));
                prop_assert!(options.into_iter().any(|option| option == Opt::Nonce(&[7; 6])));
            }
            other => panic!("{other:?}"),
        }
        for cut in 0..24 {
            prop_assert_eq!(Message::parse(&buf[..cut]).err(), Some(Malformed::Truncated));
        }
        for cut in 25..len {
            // Between two options a message may end.
            prop_assert!(cut == 32 || Message::parse(&buf[..cut]).is_err());
        }

        let flags = AdvertisementFlags {
            router: bits & 4 != 0,
            solicited: bits & 2 != 0,
            override_: bits & 1 != 0,
        };
        let len = emit_neighbour_advertisement(&mut buf, target, flags, mac);
        match Message::parse(&buf[..len]).unwrap().unwrap() {
            Message::NeighbourAdvertisement { router, solicited, override_, target: read, options } => {
                prop_assert_eq!(AdvertisementFlags { router, solicited, override_ }, flags);
                prop_assert_eq!((read, options.target_link_layer()), (target, mac));
            }
            other => panic!("{other:?}"),
        }
        let len = emit_router_solicitation(&mut buf, mac);
        match Message::parse(&buf[..len]).unwrap().unwrap() {
            Message::RouterSolicitation { options } => {
                prop_assert_eq!(options.source_link_layer(), mac);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A router advertisement with every option that a host reads.
fn advertisement() -> Vec<u8> {
    let mut bytes = vec![134, 0, 0, 0, 64, 0x48, 0x07, 0x08];
    bytes.extend(30_000_u32.to_be_bytes());
    bytes.extend(1_000_u32.to_be_bytes());
    bytes.extend([1, 1, 2, 0, 0, 0, 0, 9]);
    bytes.extend([5, 1, 0, 0, 0, 0, 0x05, 0xdc]);
    bytes.extend([3, 4, 64, 0xc0]);
    bytes.extend(86_400_u32.to_be_bytes());
    bytes.extend(14_400_u32.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(octets("2001:db8:1::"));
    // One that nobody knows, in between.
    bytes.extend([200, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend([24, 2, 48, 0x18]);
    bytes.extend(600_u32.to_be_bytes());
    bytes.extend(&octets("2001:db8:2::")[..8]);
    bytes
}

#[test]
fn a_router_advertisement_is_read() {
    let bytes = advertisement();
    let Ok(Some(Message::RouterAdvertisement {
        hop_limit,
        managed,
        other,
        preference,
        lifetime,
        reachable_time,
        retransmit_timer,
        options,
    })) = Message::parse(&bytes)
    else {
        panic!("no router advertisement");
    };
    assert_eq!((hop_limit, managed, other, lifetime), (64, false, true, 1800));
    assert_eq!((preference, reachable_time, retransmit_timer), (Preference::High, 30_000, 1000));
    let options: Vec<_> = options.into_iter().collect();
    let prefix = Prefix {
        network: octets("2001:db8:1::").into(),
        len: 64,
        on_link: true,
        autonomous: true,
        valid_lifetime: 86_400,
        preferred_lifetime: 14_400,
    };
    assert_eq!(
        options,
        [
            Opt::SourceLinkLayer(MAC),
            Opt::Mtu(1500),
            Opt::PrefixInformation(prefix),
            Opt::RouteInformation {
                network: octets("2001:db8:2::").into(),
                prefix: 48,
                preference: Preference::Low,
                lifetime: 600,
            },
        ]
    );
}

#[test]
fn an_option_without_length_spoils_the_message() {
    let mut bytes = advertisement();
    bytes[17] = 0;
    assert_eq!(Message::parse(&bytes).err(), Some(Malformed::Option));
    let mut bytes = advertisement();
    let last = bytes.len() - 15;
    bytes[last] = 3;
    assert_eq!(Message::parse(&bytes).err(), Some(Malformed::Option));
    let mut bytes = advertisement();
    bytes[1] = 1;
    assert!(Message::parse(&bytes).is_err());
}

#[test]
fn options_whose_length_is_not_theirs_are_passed_over() {
    let mut bytes = advertisement();
    // A prefix of 129 bits; a route whose prefix is longer than what is there of it.
    bytes[34] = 129;
    let route = bytes.len() - 14;
    bytes[route] = 65;
    let Ok(Some(Message::RouterAdvertisement { options, .. })) = Message::parse(&bytes) else {
        panic!("no router advertisement");
    };
    assert_eq!(options.into_iter().count(), 2);
}

/// RFC 4191 §2.3.
#[test]
fn a_route_of_the_reserved_preference_is_passed_over() {
    let mut bytes = advertisement();
    let preference = bytes.len() - 13;
    bytes[preference] = 0x10;
    let Ok(Some(Message::RouterAdvertisement { options, .. })) = Message::parse(&bytes) else {
        panic!("no router advertisement");
    };
    assert_eq!(options.into_iter().count(), 3);
}

#[test]
fn a_redirect_is_read() {
    let mut bytes = vec![137, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(octets("fe80::2"));
    bytes.extend(octets("2001:db8::9"));
    bytes.extend([2, 1, 2, 0, 0, 0, 0, 9]);
    bytes.extend([4, 2, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 0, 0, 0]);
    let Ok(Some(Message::Redirect { target, destination, options })) = Message::parse(&bytes)
    else {
        panic!("no redirect");
    };
    assert_eq!(target, Ipv6Addr::from(octets("fe80::2")));
    assert_eq!(destination, Ipv6Addr::from(octets("2001:db8::9")));
    assert_eq!(options.target_link_layer(), Some(MAC));
    let quote: Vec<_> = options
        .into_iter()
        .filter_map(|option| match option {
            Opt::RedirectedHeader(quote) => Some(quote.len()),
            _ => None,
        })
        .collect();
    assert_eq!(quote, [8]);
}

#[test]
fn groups_of_solicitations() {
    // The example of RFC 4291 §2.7.1.
    let address: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
    let group = solicited_node(address);
    assert_eq!(group, "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap());
    assert_eq!(group_mac(group), Mac([0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]));
}

/// RFC 8106 §5.1 and §5.2.
#[test]
fn name_servers_and_domains_are_told() {
    let options = |data: &[u8]| {
        let mut message = vec![134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        message.extend(data);
        message
    };
    let one = octets("2001:db8::53");
    let servers = options(&[&[25, 5, 0, 0, 0, 0, 1, 0][..], &one, &one].concat());
    let told = |bytes: &[u8]| match Message::parse(bytes).unwrap().unwrap() {
        Message::RouterAdvertisement { options, .. } => options.into_iter().count(),
        other => panic!("{other:?}"),
    };
    let Message::RouterAdvertisement { options: list, .. } =
        Message::parse(&servers).unwrap().unwrap()
    else {
        panic!("another message")
    };
    let expected = Opt::NameServers { lifetime: 256, servers: &[one, one] };
    assert_eq!(list.into_iter().collect::<Vec<_>>(), [expected]);
    let names = |data: &[u8]| options(&[&[31, 3, 0, 0, 0, 0, 0, 9][..], data].concat());
    let good = names(b"\x03lab\x02eu\0\x03com\0\0\0\0");
    let Message::RouterAdvertisement { options: list, .. } =
        Message::parse(&good).unwrap().unwrap()
    else {
        panic!("another message")
    };
    let Some(Opt::SearchDomains { lifetime: 9, names: read }) = list.into_iter().next() else {
        panic!("no domains")
    };
    let read: Vec<Vec<&[u8]>> = read.map(|name| name.labels().collect()).collect();
    assert_eq!(read, [vec![&b"lab"[..], b"eu"], vec![b"com"]]);
    // Half an address, none, a name that is cut, one with a pointer, something behind the end.
    let half = options(&[&[25, 4, 0, 0, 0, 0, 1, 0][..], &one, &one[..8]].concat());
    for wrong in [
        half,
        options(&[25, 1, 0, 0, 0, 0, 1, 0]),
        names(b"\x03lab\x02eu\0\x0ecom4567"),
        names(b"\x03lab\xc0\x00\0\0\0\0\0\0\0\0\0\0"),
        names(b"\x03lab\x02eu\0\0\0\0\0\0\0\0a"),
    ] {
        assert_eq!(told(&wrong), 0, "{wrong:?}");
    }
}
