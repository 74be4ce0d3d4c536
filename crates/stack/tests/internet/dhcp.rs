//! The DHCP client (RFC 2131 §4.4) against a server that is played by hand.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use millrace_stack::{Config, DhcpConfig, DhcpState, InterfaceAddress, Route};
use millrace_wire::arp::Operation;
use millrace_wire::dhcpv4::{self, Header, MessageType, Packet as Message, Writer, option};
use millrace_wire::mac::Mac;

use crate::common;
use crate::common::craft::{self, PEER_IP, PEER_MAC, Packet, STACK_MAC, udp_datagram};
use crate::common::peer::{ACK, Peer, SYN};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GIVEN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const SECOND: Duration = Duration::from_secs(1);

struct Client {
    peer: Peer,
    transaction: u32,
}

impl Deref for Client {
    type Target = Peer;
    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.peer.stack.dhcp_release();
        while self.peer.next_packet().is_some() {}
    }
}

/// A message of the client: its type, where it came from and went to, and its bytes.
struct Sent {
    kind: MessageType,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    to: Mac,
    bytes: Vec<u8>,
}

impl Sent {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }
}

type Options<'a> = &'a [(u8, &'a [u8])];

const LEASE: Options<'static> = &[
    (option::SUBNET_MASK, &[255, 255, 255, 0]),
    (option::LEASE_TIME, &[0, 0, 14, 16]),
    (option::ROUTER, &[192, 0, 2, 254]),
];

impl Client {
    fn with(change: impl FnOnce(&mut DhcpConfig)) -> Client {
        let mut dhcp = DhcpConfig::default();
        change(&mut dhcp);
        Client::configured(|config| config.dhcp = Some(dhcp))
    }

    fn configured(change: impl FnOnce(&mut Config)) -> Client {
        let mut config = common::config();
        (config.addresses, config.dhcp) = (Vec::new(), Some(DhcpConfig::default()));
        change(&mut config);
        let mut peer = Peer::stranger(config, 512);
        peer.advance_ms(0);
        Client { peer, transaction: 0 }
    }

    /// One that uses addresses without a look.
    fn quick() -> Client {
        Client::with(|dhcp| dhcp.probe.count = 0)
    }

    fn state(&self) -> DhcpState {
        self.stack.dhcp_state().unwrap()
    }

    #[track_caller]
    fn sent(&mut self) -> Sent {
        let Some(Packet::Udp { to, source, destination, payload }) = self.next_packet() else {
            panic!("no message")
        };
        assert_eq!((source.1, destination.1), (68, 67));
        let message = Message::parse(&payload).unwrap();
        assert!(message.is_request());
        assert_eq!(message.hardware_address(), STACK_MAC);
        let kind = message.message_type().unwrap();
        self.transaction = message.transaction();
        Sent { kind, source: source.0, destination: destination.0, to, bytes: payload }
    }

    #[track_caller]
    fn expect(&mut self, kind: MessageType) -> Sent {
        let sent = self.sent();
        assert_eq!(sent.kind, kind);
        sent
    }

    fn reply_with(
        &mut self,
        kind: MessageType,
        options: Options<'_>,
        change: impl FnOnce(&mut Header),
    ) {
        let bytes = self.message(kind, options, change);
        self.inject(&udp_datagram((SERVER, 67), (Ipv4Addr::BROADCAST, 68), &bytes));
    }

    fn message(
        &self,
        kind: MessageType,
        options: Options<'_>,
        change: impl FnOnce(&mut Header),
    ) -> Vec<u8> {
        let mut header = Header {
            reply: true,
            transaction: self.transaction,
            seconds: 0,
            broadcast: false,
            client_address: ANY,
            your_address: GIVEN,
            hardware_address: STACK_MAC,
        };
        change(&mut header);
        let mut bytes = vec![0; 1000];
        let mut writer = Writer::new(&mut bytes, header, kind);
        if !options.iter().any(|(code, _)| *code == option::SERVER_IDENTIFIER) {
            writer.option(option::SERVER_IDENTIFIER, &SERVER.octets());
        }
        for (code, data) in options {
            writer.option(*code, data);
        }
        let len = writer.finish();
        bytes.truncate(len);
        bytes
    }

    fn reply(&mut self, kind: MessageType, options: Options<'_>) {
        self.reply_with(kind, options, |_| {});
    }

    /// From the first message to the acknowledgement.
    fn acquire(&mut self, options: Options<'_>) {
        self.expect(MessageType::Discover);
        self.reply(MessageType::Offer, options);
        self.expect(MessageType::Request);
        self.reply(MessageType::Ack, options);
    }

    /// The next ARP packet: who asks, for what.
    #[track_caller]
    fn arp(&mut self) -> (Ipv4Addr, Ipv4Addr) {
        match self.next_packet() {
            Some(Packet::Arp { to, operation, sender, target }) => {
                assert_eq!((to, operation), (Mac::BROADCAST, Operation::Request));
                (sender.1, target.1)
            }
            other => panic!("{other:?}"),
        }
    }

    fn bound(options: Options<'_>) -> Client {
        let mut client = Client::quick();
        client.acquire(options);
        assert_eq!(client.arp(), (GIVEN, GIVEN));
        assert_eq!(client.state(), DhcpState::Bound);
        client
    }

    /// The second announcement, at its time.
    #[track_caller]
    fn announced(&mut self) {
        assert_eq!(self.wait(), 2 * SECOND);
        assert_eq!(self.arp(), (GIVEN, GIVEN));
    }

    /// One with another address of its own, of `own`, that uses addresses without a look.
    fn beside(own: InterfaceAddress, change: impl FnOnce(&mut Config)) -> Client {
        let mut dhcp = DhcpConfig::default();
        dhcp.probe.count = 0;
        let mut config = common::config();
        (config.addresses, config.dhcp) = (vec![own], Some(dhcp));
        config.ipv6.dad_transmits = 0;
        config.ipv6.link_local = false;
        change(&mut config);
        let mut peer = Peer::stranger(config, 512);
        peer.advance_ms(0);
        Client { peer, transaction: 0 }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

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
fn everything_that_the_server_tells_is_there() {
    let options: Options<'_> = &[
        (option::SUBNET_MASK, &[255, 255, 255, 0]),
        (option::LEASE_TIME, &[0, 0, 14, 16]),
        (option::ROUTER, &[192, 0, 2, 254]),
        (option::DOMAIN_NAME_SERVER, &[192, 0, 2, 53, 198, 51, 100, 53, 255, 255, 255, 255]),
        (option::DOMAIN_NAME, b"example.org\0"),
        (option::INTERFACE_MTU, &[5, 0]),
        (
            option::CLASSLESS_ROUTES,
            &[8, 10, 192, 0, 2, 253, 0, 192, 0, 2, 252, 16, 172, 16, 0, 0, 0, 0, 8, 11, 9, 9, 9, 9],
        ),
    ];
    let mut client = Client::bound(options);
    let lease = client.stack.dhcp_lease().unwrap();
    assert_eq!(lease.server, SERVER);
    assert_eq!(lease.name_servers, [ip("192.0.2.53"), ip("198.51.100.53")]);
    assert_eq!(lease.domain.as_deref(), Some("example.org"));
    assert_eq!(lease.mtu, Some(1280));
    let start = client.now;
    assert_eq!(lease.renew_at, Some(start + 1800 * SECOND));
    assert_eq!(lease.rebind_at, Some(start + 3150 * SECOND));
    assert_eq!(lease.expires, Some(start + 3600 * SECOND));
    assert_eq!(client.stack.config().mtu, 1280);
    // Option 121 replaces the router of option 3; a router that is nowhere is left out, and counted.
    assert_eq!(client.stack.counters().dhcp_routes_refused, 1);
    let routes: Vec<_> = client.stack.routes().map(|info| info.route).collect();
    let route = |to: &str, prefix, gateway: Option<&str>| Route {
        destination: ip(to),
        prefix,
        gateway: gateway.map(ip),
    };
    assert!(routes.contains(&route("10.0.0.0", 8, Some("192.0.2.253"))), "{routes:?}");
    assert!(routes.contains(&route("0.0.0.0", 0, Some("192.0.2.252"))), "{routes:?}");
    assert!(routes.contains(&route("172.16.0.0", 16, None)), "{routes:?}");
    assert_eq!(routes.len(), 4);
    client.stack.dhcp_release();
    assert_eq!(client.stack.config().mtu, 1500);
    assert_eq!(client.stack.routes().count(), 0);
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
fn open_connections_follow_an_mtu_that_comes_with_a_prolongation() {
    let mut client = Client::bound(LEASE);
    client.announced();
    client.inject(&craft::arp_packet(
        Operation::Request,
        (PEER_MAC, PEER_IP),
        (Mac([0; 6]), GIVEN),
    ));
    client.next_packet();
    let listener = client.stack.listen(SocketAddr::new(GIVEN.into(), 80), 4).unwrap();
    let send = |client: &mut Client, flags, seq, ack| {
        let mut segment = client.segment(flags, seq, ack, &[]);
        segment.destination = (GIVEN, 80);
        if flags == SYN {
            segment.options.mss(1460);
        }
        let bytes = segment.bytes();
        client.inject(&bytes);
    };
    send(&mut client, SYN, 0, 0);
    client.peer.expect(SYN | ACK);
    send(&mut client, ACK, 1, 1);
    let id = client.stack.accept(listener).unwrap().expect("a connection");
    client.wait();
    client.arp();
    let answer = ((PEER_MAC, SERVER), (STACK_MAC, GIVEN));
    client.inject(&craft::arp_packet(Operation::Reply, answer.0, answer.1));
    client.expect(MessageType::Request);
    client.reply(MessageType::Ack, &[LEASE, &[(option::INTERFACE_MTU, &[2, 64])]].concat());
    client.arp();
    client.stack.write(id, &[7; 4000]).unwrap();
    let sent: Vec<usize> = client.take().iter().map(|one| 40 + one.payload.len()).collect();
    assert_eq!(sent.iter().max(), Some(&576), "{sent:?}");
    client.stack.abort(id);
    client.stack.release(id);
    client.stack.close_listener(listener);
}

#[test]
fn a_small_mtu_is_none_of_ipv6() {
    use common::craft6::{PEER_V6, STACK_V6, solicitation};
    let mut client = Client::configured(|config| {
        let own = InterfaceAddress { address: STACK_V6.into(), prefix: 64 };
        config.addresses = vec![own];
        (config.ipv6.dad_transmits, config.ipv6.link_local) = (0, false);
        config.dhcp.as_mut().unwrap().probe.count = 0;
    });
    client.acquire(&[LEASE, &[(option::INTERFACE_MTU, &[2, 64])]].concat());
    client.arp();
    client.inject(&solicitation(PEER_V6, STACK_V6, None));
    client.expect_v6();
    // RFC 8200 §5: every link of IPv6 takes 1280 bytes, and no more is known of this one.
    let socket = client.stack.bind_datagram(SocketAddr::new(STACK_V6.into(), 9)).unwrap();
    let to = SocketAddr::new(PEER_V6.into(), 7);
    client.stack.send_datagram(socket, &[7; 1280 - 48], Some(to)).unwrap();
    assert_eq!(client.expect_v6().fragment, None);
    client.stack.send_datagram(socket, &[7; 1280 - 47], Some(to)).unwrap();
    assert!(client.expect_v6().fragment.is_some() && client.expect_v6().fragment.is_some());
    let id = client.stack.connect(to, None).unwrap();
    assert_eq!(client.expect_v6().tcp().options().unwrap().mss, Some(1280 - 60));
    // And addresses may be added.
    let second = InterfaceAddress { address: ip("2001:db8::99"), prefix: 64 };
    client.stack.add_address(second).unwrap();
    client.stack.abort(id);
    client.stack.release(id);
    client.stack.close_datagram(socket);
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
fn times_that_make_no_sense_are_replaced() {
    let client = Client::bound(&[
        (option::SUBNET_MASK, &[255, 255, 255, 0]),
        (option::LEASE_TIME, &[0, 0, 14, 16]),
        (option::RENEWAL_TIME, &[0, 1, 0, 0]),
        (option::REBINDING_TIME, &[0xff; 4]),
        (option::INTERFACE_MTU, &[0, 68]),
        (option::DOMAIN_NAME, b"two words"),
    ]);
    let lease = client.stack.dhcp_lease().unwrap();
    assert_eq!(lease.renew_at, Some(client.now + 1800 * SECOND));
    assert_eq!(lease.rebind_at, Some(client.now + 3150 * SECOND));
    assert_eq!((lease.mtu, lease.domain.as_ref()), (None, None));
    assert_eq!(client.stack.config().mtu, 1500);
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

/// Where each host has a network of its own, as in many clouds.
#[test]
fn a_router_beyond_the_own_network_is_reached_by_a_route_without_one() {
    const ALONE: (u8, &[u8]) = (option::SUBNET_MASK, &[255, 255, 255, 255]);
    const TIME: (u8, &[u8]) = (option::LEASE_TIME, &[0, 0, 14, 16]);
    let router = ip("10.128.0.1");
    let on_link = Route { destination: router, prefix: 32, gateway: None };
    let by = Route::default_by(router);
    let cases: [Options<'_>; 4] = [
        // RFC 3442: a router of 0.0.0.0 says that there is none.
        &[
            ALONE,
            TIME,
            (option::CLASSLESS_ROUTES, &[32, 10, 128, 0, 1, 0, 0, 0, 0, 0, 10, 128, 0, 1]),
        ],
        // In whatever order.
        &[
            ALONE,
            TIME,
            (option::CLASSLESS_ROUTES, &[0, 10, 128, 0, 1, 32, 10, 128, 0, 1, 0, 0, 0, 0]),
        ],
        // With a network of others, too.
        &[
            (option::SUBNET_MASK, &[255, 255, 255, 0]),
            TIME,
            (option::CLASSLESS_ROUTES, &[0, 10, 128, 0, 1, 32, 10, 128, 0, 1, 0, 0, 0, 0]),
        ],
        // Nothing said, and no other way there can be.
        &[ALONE, TIME, (option::ROUTER, &[10, 128, 0, 1])],
    ];
    for options in cases {
        let mut client = Client::bound(options);
        let routes: Vec<_> = client.stack.routes().map(|info| info.route).collect();
        assert!(routes.contains(&on_link) && routes.contains(&by), "{routes:?}");
        assert_eq!(client.stack.counters().dhcp_routes_refused, 0);
        let socket = client.bind_datagram(SocketAddr::new(GIVEN.into(), 9));
        let far = SocketAddr::new(ip("203.0.113.9"), 7);
        client.stack.send_datagram(socket, b"?", Some(far)).unwrap();
        client.collect();
        client.advance_ms(0);
        assert_eq!(IpAddr::from(client.arp().1), router);
        client.advance(10 * SECOND);
    }
}

#[test]
fn routes_that_do_not_fit_are_counted() {
    let mut client = Client::beside(own("10.0.0.1"), |config| config.routes = 1);
    client.acquire(&[
        (option::SUBNET_MASK, &[255, 255, 255, 0]),
        (option::LEASE_TIME, &[0, 0, 14, 16]),
        (option::CLASSLESS_ROUTES, &[8, 11, 192, 0, 2, 253, 8, 12, 192, 0, 2, 253]),
    ]);
    assert_eq!(client.arp(), (GIVEN, GIVEN));
    assert_eq!(client.stack.counters().dhcp_routes_refused, 1);
}

fn own(address: &str) -> InterfaceAddress {
    InterfaceAddress { address: ip(address), prefix: 24 }
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
