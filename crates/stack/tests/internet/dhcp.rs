//! The DHCP client (RFC 2131 §4.4) against a server that is played by hand.

mod lease;
mod options;
mod search;

use core::net::{IpAddr, Ipv4Addr};
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use millrace_stack::{Config, DhcpConfig, DhcpState, InterfaceAddress};
use millrace_wire::arp::Operation;
use millrace_wire::dhcpv4::{Header, MessageType, Packet as Message, Writer, option};
use millrace_wire::mac::Mac;

use crate::common;
use crate::common::craft::{Packet, STACK_MAC, udp_datagram};
use crate::common::peer::Peer;

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

fn own(address: &str) -> InterfaceAddress {
    InterfaceAddress { address: ip(address), prefix: 24 }
}
