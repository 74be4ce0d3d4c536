use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use millrace_wire::ether::{self, EtherType};
use millrace_wire::tcp::{self, Flags, OptionWriter};
use millrace_wire::toeplitz::{self, Hasher};
use millrace_wire::vlan::Tag;
use millrace_wire::{Flow, Mac, Seq, arp, ipv4, ipv6, protocol, udp};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; ether::HEADER_LEN];
    ether::emit(&mut frame, MAC, MAC, ether_type);
    frame.extend(payload);
    frame
}

fn over_ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv4::HEADER_LEN];
    let header = ipv4::Header {
        source: A,
        destination: B,
        protocol,
        ttl: 64,
        tos: 0,
        identification: 0,
        dont_fragment: true,
    };
    header.emit(&mut packet, payload.len());
    packet.extend(payload);
    packet
}

fn over_ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv6::HEADER_LEN];
    let header = ipv6::Header {
        source: Ipv6Addr::LOCALHOST,
        destination: Ipv6Addr::UNSPECIFIED,
        next_header,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
    };
    header.emit(&mut packet, payload.len());
    packet.extend(payload);
    packet
}

fn segment(payload: &[u8]) -> Vec<u8> {
    let mut options = OptionWriter::new();
    options.timestamps(1, 2);
    let mut bytes = vec![0; tcp::HEADER_LEN + 12];
    let header = tcp::Header {
        source_port: 40000,
        destination_port: 80,
        sequence: Seq(1),
        acknowledgement: Seq(2),
        flags: Flags::PSH | Flags::ACK,
        window: 3,
        urgent: 0,
    };
    header.emit(&mut bytes, options.padded());
    bytes.extend(payload);
    bytes
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; udp::HEADER_LEN];
    udp::emit(&mut bytes, 1000, 53, payload.len());
    bytes.extend(payload);
    bytes
}

#[test]
fn tcp_over_ipv4_with_padding() {
    let mut frame = ethernet(EtherType::IPV4, &over_ipv4(protocol::TCP, &segment(b"hello")));
    frame.extend([0; 9]);
    let expected = Flow {
        ether_type: EtherType::IPV4,
        ip_version: 4,
        source: Some(IpAddr::V4(A)),
        destination: Some(IpAddr::V4(B)),
        protocol: Some(protocol::TCP),
        source_port: Some(40000),
        destination_port: Some(80),
        tcp_flags: Some(Flags::PSH | Flags::ACK),
        l3_offset: Some(14),
        l4_offset: Some(34),
        payload_offset: 66,
        payload_len: 5,
        ..Flow::default()
    };
    let flow = Flow::parse(&frame);
    assert_eq!(flow, expected);
    assert_eq!(&frame[flow.payload_offset..][..flow.payload_len], b"hello");
}

#[test]
fn udp_over_ipv6_in_two_vlans_behind_an_extension() {
    let extension = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
    let packet = over_ipv6(60, &[&extension[..], &datagram(b"query")].concat());
    let mut tags = [0; 8];
    let outer = Tag { pcp: 1, dei: false, vid: 100 };
    let inner = Tag { pcp: 2, dei: true, vid: 200 };
    outer.emit(&mut tags, EtherType::VLAN);
    inner.emit(&mut tags[4..], EtherType::IPV6);
    let frame = ethernet(EtherType::QINQ, &[&tags[..], &packet].concat());
    let flow = Flow::parse(&frame);
    assert_eq!((flow.vlan, flow.inner_vlan), (Some(outer), Some(inner)));
    assert_eq!((flow.ether_type, flow.ip_version), (EtherType::IPV6, 6));
    assert_eq!(flow.source, Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    assert_eq!(flow.destination, Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
    assert_eq!(flow.protocol, Some(protocol::UDP));
    assert_eq!((flow.source_port, flow.destination_port), (Some(1000), Some(53)));
    assert_eq!((flow.l3_offset, flow.l4_offset), (Some(22), Some(70)));
    assert_eq!(&frame[flow.payload_offset..][..flow.payload_len], b"query");
}

#[test]
fn fragments() {
    let mut packet = over_ipv4(protocol::UDP, &datagram(b"first"));
    packet[6] = 0x20;
    let first = Flow::parse(&ethernet(EtherType::IPV4, &packet));
    assert!(first.is_fragment);
    assert_eq!(first.source_port, Some(1000));

    packet[7] = 1;
    let second = Flow::parse(&ethernet(EtherType::IPV4, &packet));
    assert!(second.is_fragment);
    assert_eq!((second.l4_offset, second.source_port), (None, None));
    assert_eq!((second.payload_offset, second.payload_len), (34, 13));

    // All fragments of a packet go to one queue.
    let hasher = Hasher::new(&toeplitz::MICROSOFT);
    assert_eq!(first.rss_hash(&hasher), second.rss_hash(&hasher));
    assert_eq!(
        first.rss_hash(&hasher),
        Some(toeplitz::hash_v4_addresses(&toeplitz::MICROSOFT, A, B))
    );
}

#[test]
fn rss_hash_is_that_of_the_addresses_and_ports() {
    let hasher = Hasher::new(&toeplitz::DEFAULT);
    let frame = ethernet(EtherType::IPV4, &over_ipv4(protocol::TCP, &segment(b"")));
    let expected = toeplitz::hash_v4(&toeplitz::DEFAULT, A, B, 40000, 80);
    assert_eq!(Flow::parse(&frame).rss_hash(&hasher), Some(expected));

    let frame = ethernet(EtherType::IPV6, &over_ipv6(protocol::UDP, &datagram(b"")));
    let (a, b) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
    let expected = toeplitz::hash_v6(&toeplitz::DEFAULT, a, b, 1000, 53);
    assert_eq!(Flow::parse(&frame).rss_hash(&hasher), Some(expected));

    let frame =
        ethernet(EtherType::IPV6, &over_ipv6(protocol::ICMPV6, &[128, 0, 0, 0, 0, 0, 0, 0]));
    let expected = toeplitz::hash_v6_addresses(&toeplitz::DEFAULT, a, b);
    assert_eq!(Flow::parse(&frame).rss_hash(&hasher), Some(expected));
}

#[test]
fn arp_has_addresses_but_no_hash() {
    let mut packet = [0; arp::LEN];
    arp::emit(&mut packet, arp::Operation::Request, MAC, A, Mac::default(), B);
    let flow = Flow::parse(&ethernet(EtherType::ARP, &packet));
    assert_eq!((flow.source, flow.destination), (Some(A.into()), Some(B.into())));
    assert_eq!((flow.ip_version, flow.protocol, flow.payload_len), (0, None, 0));
    assert_eq!(flow.rss_hash(&Hasher::new(&toeplitz::DEFAULT)), None);
}

/// A capture that kept the beginning of each frame only.
#[test]
fn what_was_cut_is_read_as_far_as_it_goes() {
    let frame = ethernet(EtherType::IPV4, &over_ipv4(protocol::TCP, &segment(b"hello")));
    let nothing = Flow::parse(&frame[..13]);
    assert_eq!(nothing, Flow { payload_len: 13, ..Flow::default() });
    let link = Flow::parse(&frame[..33]);
    assert_eq!((link.ether_type, link.source, link.payload_len), (EtherType::IPV4, None, 19));
    let network = Flow::parse(&frame[..37]);
    assert_eq!((network.protocol, network.source_port), (Some(protocol::TCP), None));
    let ports = Flow::parse(&frame[..38]);
    assert_eq!((ports.source_port, ports.tcp_flags), (Some(40000), None));
    assert_eq!((ports.payload_offset, ports.payload_len), (34, 4));
    let payload = Flow::parse(&frame[..68]);
    assert_eq!((payload.payload_offset, payload.payload_len), (66, 2));
}
