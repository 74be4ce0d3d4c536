//! From the first question to an address in use, and answers that are none.

use core::net::{IpAddr, Ipv4Addr};

use millrace_stack::{DhcpState, InterfaceAddress, Route};
use millrace_wire::arp::Operation;
use millrace_wire::dhcpv4::{self, Header, MessageType, Packet as Message, Writer, option};
use millrace_wire::mac::Mac;

use super::{ANY, Client, GIVEN, LEASE, Options, SECOND, SERVER, ip};
use crate::common::craft::{self, PEER_MAC, Packet, STACK_MAC, udp_datagram};

#[test]
fn an_address_is_asked_for_looked_for_and_used() {
    let mut client = Client::with(|dhcp| dhcp.host_name = Some("mill".into()));
    let discover = client.expect(MessageType::Discover);
    assert_eq!((discover.source, discover.destination), (ANY, Ipv4Addr::BROADCAST));
    assert_eq!(discover.to, Mac::BROADCAST);
    let message = discover.message();
    assert!(message.wants_broadcast());
    assert_eq!(message.option(option::HOST_NAME), Some(&b"mill"[..]));
    assert_eq!(message.option(option::CLIENT_IDENTIFIER), Some(&[1, 2, 0, 0, 0, 0, 1][..]));
    assert_eq!(message.address_option(option::REQUESTED_ADDRESS), None);
    client.reply(MessageType::Offer, LEASE);
    let request = client.expect(MessageType::Request);
    let message = request.message();
    assert_eq!(message.address_option(option::REQUESTED_ADDRESS), Some(GIVEN));
    assert_eq!(message.address_option(option::SERVER_IDENTIFIER), Some(SERVER));
    assert_eq!(message.client_address(), ANY);
    client.reply(MessageType::Ack, LEASE);
    assert_eq!(client.state(), DhcpState::Checking);
    assert!(client.stack.dhcp_lease().is_none());
    assert!(client.wait() <= SECOND);
    assert_eq!(client.arp(), (ANY, GIVEN));
    for _ in 0..2 {
        let time = client.wait();
        assert!((SECOND..=2 * SECOND).contains(&time), "{time:?}");
        assert_eq!(client.arp(), (ANY, GIVEN));
    }
    assert_eq!(client.wait(), 2 * SECOND);
    assert_eq!(client.arp(), (GIVEN, GIVEN));
    assert_eq!(client.state(), DhcpState::Bound);
    // Once more, for one may be lost (RFC 5227 §2.3), and no more.
    client.announced();
    client.expect_silence();
    let own: Vec<_> = client.stack.addresses().map(|own| (own.address, own.prefix)).collect();
    assert_eq!(own, [(IpAddr::from(GIVEN), 24)]);
    let default = Route::default_by(ip("192.0.2.254"));
    assert!(client.stack.routes().any(|info| info.route == default));
    assert_eq!(client.stack.counters().dhcp_leases, 1);
}

#[test]
fn a_unicast_answer_is_heard_before_there_is_an_address() {
    let mut client = Client::quick();
    client.expect(MessageType::Discover);
    for kind in [MessageType::Offer, MessageType::Ack] {
        let mut bytes = vec![0; 400];
        let header = Header {
            reply: true,
            transaction: client.transaction,
            seconds: 0,
            broadcast: false,
            client_address: ANY,
            your_address: GIVEN,
            hardware_address: STACK_MAC,
        };
        let mut writer = Writer::new(&mut bytes, header, kind);
        writer.option(option::SERVER_IDENTIFIER, &SERVER.octets());
        LEASE.iter().for_each(|(code, data)| writer.option(*code, data));
        let len = writer.finish();
        // To another port it is not for us.
        client.inject(&udp_datagram((SERVER, 67), (GIVEN, 69), &bytes[..len]));
        assert!(client.state() != DhcpState::Bound);
        client.inject(&udp_datagram((SERVER, 67), (GIVEN, 68), &bytes[..len]));
        if kind == MessageType::Offer {
            client.expect(MessageType::Request);
        }
    }
    assert_eq!(client.state(), DhcpState::Bound);
    assert_eq!(client.stack.counters().drop_ip_not_ours, 2);
    client.arp();
}

#[test]
fn questions_are_asked_again_later_and_later() {
    let mut client = Client::quick();
    client.expect(MessageType::Discover);
    let first = client.transaction;
    for base in [4, 8, 16, 32, 64, 64, 64] {
        let time = client.wait();
        let base = base * SECOND;
        assert!((base - SECOND..base + SECOND).contains(&time), "{time:?} is not about {base:?}");
        client.expect(MessageType::Discover);
        assert_eq!(client.transaction, first);
    }
    client.reply(MessageType::Offer, LEASE);
    // Nobody answers the request: after four, the search begins anew.
    for _ in 0..4 {
        client.expect(MessageType::Request);
        client.wait();
    }
    client.expect(MessageType::Discover);
    assert_ne!(client.transaction, first);
}

#[test]
fn a_refusal_begins_anew_and_waits_longer_each_time() {
    let mut client = Client::quick();
    let mut waits = Vec::new();
    for _ in 0..5 {
        waits.push(client.wait().as_secs());
        client.expect(MessageType::Discover);
        client.reply(MessageType::Offer, LEASE);
        client.expect(MessageType::Request);
        client.reply(MessageType::Nak, &[]);
    }
    assert_eq!(waits, [0, 0, 2, 4, 8]);
    assert_eq!(client.stack.counters().dhcp_naks, 5);
    // A refusal of a renewal takes the address away.
    let mut client = Client::bound(LEASE);
    client.advance(3200 * SECOND);
    while client.state() == DhcpState::Rebinding {
        match client.next_packet() {
            Some(Packet::Udp { payload, .. }) => {
                client.transaction = Message::parse(&payload).unwrap().transaction();
                client.reply(MessageType::Nak, &[]);
            }
            Some(_) => {}
            None => panic!("nothing was asked"),
        }
    }
    assert_eq!(client.stack.addresses().count(), 0);
}

#[test]
fn an_address_that_somebody_has_is_declined() {
    let claims = [
        craft::arp_packet(Operation::Reply, (PEER_MAC, GIVEN), (STACK_MAC, ANY)),
        craft::arp_packet(Operation::Request, (PEER_MAC, GIVEN), (Mac([0; 6]), SERVER)),
        // Another host that looks for the same address just now.
        craft::arp_packet(Operation::Request, (PEER_MAC, ANY), (Mac([0; 6]), GIVEN)),
    ];
    for claim in claims {
        let mut client = Client::with(|_| {});
        client.acquire(LEASE);
        client.wait();
        client.arp();
        // Our own probe that comes back is no claim.
        let own = (STACK_MAC, ANY);
        client.inject(&craft::arp_packet(Operation::Request, own, (Mac([0; 6]), GIVEN)));
        assert_eq!(client.state(), DhcpState::Checking);
        client.inject(&claim);
        let decline = client.expect(MessageType::Decline);
        assert_eq!((decline.source, decline.destination), (ANY, Ipv4Addr::BROADCAST));
        let message = decline.message();
        assert_eq!(message.address_option(option::REQUESTED_ADDRESS), Some(GIVEN));
        assert_eq!(message.address_option(option::SERVER_IDENTIFIER), Some(SERVER));
        assert_eq!(client.wait(), 10 * SECOND);
        client.expect(MessageType::Discover);
        assert_eq!(client.stack.addresses().count(), 0);
        assert_eq!(client.stack.counters().address_conflicts, 1);
    }
}

#[test]
fn answers_of_other_exchanges_are_ignored() {
    let mut client = Client::quick();
    client.expect(MessageType::Discover);
    client.reply_with(MessageType::Offer, LEASE, |header| header.transaction ^= 1);
    client.reply_with(MessageType::Offer, LEASE, |header| header.hardware_address = PEER_MAC);
    client.reply(MessageType::Ack, LEASE);
    client.reply(MessageType::Nak, LEASE);
    client.expect_silence();
    assert_eq!(client.stack.counters().drop_dhcp_ignored, 4);
    client.reply(MessageType::Offer, LEASE);
    client.expect(MessageType::Request);
    // Another server than the one that was chosen.
    let other = [&[(option::SERVER_IDENTIFIER, &[192, 0, 2, 9][..])], LEASE].concat();
    client.reply(MessageType::Ack, &other);
    client.reply(MessageType::Nak, &other);
    assert_eq!(client.state(), DhcpState::Requesting);
    assert_eq!(client.stack.counters().drop_dhcp_ignored, 6);
    client.reply_with(MessageType::Ack, LEASE, |header| header.reply = false);
    assert_eq!(client.stack.counters().drop_dhcp_malformed, 1);
}

#[test]
fn an_answer_by_ipv6_is_none() {
    use crate::common::craft6;
    let mut client =
        Client::beside(InterfaceAddress { address: craft6::STACK_V6.into(), prefix: 64 }, |_| {});
    client.expect(MessageType::Discover);
    let offer = client.message(MessageType::Offer, LEASE, |_| {});
    let far = "2001:db8:ffff::9".parse().unwrap();
    client.inject(&craft6::udp((far, 67), (craft6::STACK_V6, 68), &offer));
    assert_eq!(client.state(), DhcpState::Selecting);
    client.reply(MessageType::Offer, LEASE);
    assert_eq!(client.state(), DhcpState::Requesting);
    while client.next_packet().is_some() {}
}

#[test]
fn broken_messages_are_counted() {
    let mut client = Client::quick();
    client.expect(MessageType::Discover);
    for len in [0, 1, 239, 240, 250] {
        let packet = udp_datagram((SERVER, 67), (Ipv4Addr::BROADCAST, 68), &vec![2; len]);
        client.inject(&packet);
    }
    assert_eq!(client.stack.counters().drop_dhcp_malformed, 5);
    assert_eq!(client.state(), DhcpState::Selecting);
}

#[test]
fn what_no_host_can_use_is_refused() {
    for given in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 5], [255; 4], [240, 0, 0, 1]] {
        let mut client = Client::quick();
        client.expect(MessageType::Discover);
        client.reply_with(MessageType::Offer, LEASE, |header| header.your_address = given.into());
        client.expect_silence();
        assert_eq!(client.stack.counters().drop_dhcp_malformed, 1, "{given:?}");
    }
    let mask = |mask: [u8; 4]| (option::SUBNET_MASK, mask);
    let time = |seconds: u32| (option::LEASE_TIME, seconds.to_be_bytes());
    for (given, (mask, mask_bytes), (time, time_bytes)) in [
        // A network's own number and its broadcast address.
        ([192, 0, 2, 0], mask([255, 255, 255, 0]), time(60)),
        ([192, 0, 2, 255], mask([255, 255, 255, 0]), time(60)),
        // A mask with holes, and none.
        ([192, 0, 2, 7], mask([255, 0, 255, 0]), time(60)),
        ([192, 0, 2, 7], mask([0; 4]), time(60)),
        // No time.
        ([192, 0, 2, 7], mask([255, 255, 255, 0]), time(0)),
    ] {
        let mut client = Client::quick();
        client.expect(MessageType::Discover);
        client.reply(MessageType::Offer, LEASE);
        client.expect(MessageType::Request);
        let options: Options<'_> = &[(mask, &mask_bytes), (time, &time_bytes)];
        client.reply_with(MessageType::Ack, options, |header| header.your_address = given.into());
        assert_eq!(client.state(), DhcpState::Requesting, "{given:?}");
        assert_eq!(client.stack.counters().drop_dhcp_malformed, 1, "{given:?}");
        client.expect_silence();
    }
}

#[test]
fn the_same_seed_draws_the_same_numbers() {
    let numbers = || {
        let mut client = Client::quick();
        client.expect(MessageType::Discover);
        (client.transaction, client.wait(), client.expect(MessageType::Discover).bytes)
    };
    assert_eq!(numbers(), numbers());
    assert!(dhcpv4::MIN_LEN <= numbers().2.len());
}
