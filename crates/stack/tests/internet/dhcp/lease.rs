//! A lease: prolonged, lost, claimed by another host, given back.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use millrace_stack::{DhcpState, Route};
use millrace_wire::arp::Operation;
use millrace_wire::dhcpv4::{MessageType, Packet as Message, option};
use millrace_wire::mac::Mac;

use super::{ANY, Client, GIVEN, LEASE, Options, SECOND, SERVER, ip, own};
use crate::common::craft::{self, PEER_MAC, Packet, STACK_MAC};

#[test]
fn a_lease_is_prolonged_by_its_server() {
    let mut client = Client::bound(LEASE);
    let start = client.now;
    client.announced();
    client.wait();
    assert_eq!(client.now - start, 1800 * SECOND);
    assert_eq!(client.state(), DhcpState::Renewing);
    // The server is asked directly, so its hardware address is, first.
    assert_eq!(client.arp(), (GIVEN, SERVER));
    let answer = ((PEER_MAC, SERVER), (STACK_MAC, GIVEN));
    client.inject(&craft::arp_packet(Operation::Reply, answer.0, answer.1));
    let request = client.expect(MessageType::Request);
    assert_eq!((request.source, request.destination, request.to), (GIVEN, SERVER, PEER_MAC));
    let message = request.message();
    assert_eq!(message.client_address(), GIVEN);
    assert_eq!(message.option(option::REQUESTED_ADDRESS), None);
    assert_eq!(message.option(option::SERVER_IDENTIFIER), None);
    client.reply(MessageType::Ack, LEASE);
    assert_eq!(client.state(), DhcpState::Bound);
    let lease = client.stack.dhcp_lease().unwrap();
    assert_eq!(lease.expires, Some(start + 5400 * SECOND));
    assert_eq!(client.stack.addresses().count(), 1);
    client.expect_silence();
}

#[test]
fn a_lease_of_a_second_is_not_renewed_all_the_time() {
    let short: Options<'_> =
        &[(option::SUBNET_MASK, &[255, 255, 255, 0]), (option::LEASE_TIME, &[0, 0, 0, 1])];
    let mut client = Client::bound(short);
    let answer = ((PEER_MAC, SERVER), (STACK_MAC, GIVEN));
    client.inject(&craft::arp_packet(Operation::Reply, answer.0, answer.1));
    let start = client.now;
    let mut asked = 0;
    while client.now - start < 10 * SECOND {
        client.wait();
        while let Some(packet) = client.next_packet() {
            match packet {
                Packet::Udp { payload, .. } => {
                    asked += 1;
                    client.transaction = Message::parse(&payload).unwrap().transaction();
                    client.reply(MessageType::Ack, short);
                }
                Packet::Arp { target, .. } if target.1 == SERVER => {
                    client.inject(&craft::arp_packet(Operation::Reply, answer.0, answer.1));
                }
                _ => {}
            }
        }
    }
    assert_eq!(client.stack.counters().dhcp_leases_lost, 0);
    assert!((10..=20).contains(&asked), "{asked} times in ten seconds");
}

#[test]
fn a_lease_without_end_is_never_renewed() {
    let mut client = Client::bound(&[
        (option::SUBNET_MASK, &[255, 255, 255, 0]),
        (option::LEASE_TIME, &[0xff; 4]),
    ]);
    assert_eq!(client.stack.dhcp_lease().unwrap().expires, None);
    client.announced();
    assert_eq!(client.stack.next_deadline(), None);
    client.advance(Duration::from_secs(1 << 32));
    client.expect_silence();
}

#[test]
fn without_its_server_any_is_asked_and_then_the_address_is_lost() {
    let mut client = Client::bound(LEASE);
    let start = client.now;
    let mut asked = Vec::new();
    while client.state() != DhcpState::Selecting {
        client.wait();
        while let Some(packet) = client.next_packet() {
            if let Packet::Udp { destination, .. } = packet {
                asked.push((client.now - start, destination.0));
            }
        }
    }
    // The server's hardware address is not known, so what was for it alone was not sent.
    let times: Vec<u64> = asked.iter().map(|(time, _)| time.as_secs()).collect();
    assert_eq!(times, [3150, 3375, 3487, 3600]);
    assert!(asked.iter().all(|(_, to)| *to == Ipv4Addr::BROADCAST));
    assert_eq!(client.stack.addresses().count(), 0);
    assert_eq!(client.stack.routes().count(), 0);
    assert_eq!(client.stack.counters().dhcp_leases_lost, 1);
}

/// RFC 5227 §2.4 b.
#[test]
fn a_leased_address_that_is_claimed_again_is_given_up_and_declined() {
    let claim = craft::arp_packet(Operation::Request, (PEER_MAC, GIVEN), (Mac([0; 6]), SERVER));
    let mut client = Client::bound(LEASE);
    client.announced();
    client.inject(&claim);
    assert_eq!(client.arp(), (GIVEN, GIVEN), "it is defended");
    client.advance(10 * SECOND);
    client.inject(&claim);
    assert_eq!(client.arp(), (GIVEN, GIVEN), "and again, after a while");
    assert_eq!(client.state(), DhcpState::Bound);
    client.advance(9 * SECOND);
    client.inject(&claim);
    let decline = client.expect(MessageType::Decline);
    assert_eq!((decline.source, decline.destination), (ANY, Ipv4Addr::BROADCAST));
    let message = decline.message();
    assert_eq!(message.client_address(), ANY);
    assert_eq!(message.address_option(option::REQUESTED_ADDRESS), Some(GIVEN));
    assert_eq!(message.address_option(option::SERVER_IDENTIFIER), Some(SERVER));
    assert_eq!((client.stack.addresses().count(), client.stack.routes().count()), (0, 0));
    assert_eq!(client.stack.counters().dhcp_leases_lost, 1);
    assert_eq!(client.wait(), 10 * SECOND);
    client.expect(MessageType::Discover);
    client.expect_silence();
}

#[test]
fn connections_end_with_the_address() {
    let mut client = Client::bound(LEASE);
    let remote = SocketAddr::new(SERVER.into(), 80);
    let id = client.stack.connect(remote, None).unwrap();
    client.stack.dhcp_release();
    assert!(client.stack.failure(id).unwrap().is_some());
    client.stack.release(id);
}

#[test]
fn the_address_is_given_back() {
    let mut client = Client::bound(LEASE);
    client.stack.dhcp_release();
    let release = client.expect(MessageType::Release);
    assert_eq!((release.source, release.destination, release.to), (GIVEN, SERVER, PEER_MAC));
    assert_eq!(release.message().client_address(), GIVEN);
    assert_eq!(release.message().address_option(option::SERVER_IDENTIFIER), Some(SERVER));
    assert_eq!(client.state(), DhcpState::Released);
    assert_eq!(client.stack.next_deadline(), None);
    client.stack.dhcp_release();
    client.expect_silence();
}

#[test]
fn what_was_configured_outlives_a_lease_of_the_same() {
    let gateway = ip("192.0.2.254");
    let mut client = Client::beside(own("192.0.2.77"), |config| config.gateway = Some(gateway));
    client.acquire(LEASE);
    assert_eq!(client.arp(), (GIVEN, GIVEN));
    client.announced();
    client.advance(7200 * SECOND);
    assert_eq!(client.stack.counters().dhcp_leases_lost, 1);
    assert!(client.stack.addresses().any(|own| own.address == IpAddr::from(GIVEN)));
    assert!(client.stack.routes().any(|info| info.route == Route::default_by(gateway)));
    while client.next_packet().is_some() {}
}
