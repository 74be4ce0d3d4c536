//! Packets as bytes: written for the stack to receive, and read back from what it sends.

use core::net::Ipv4Addr;

use millrace_wire::arp::Operation;
use millrace_wire::mac::Mac;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{self, Flags, OptionWriter, Options};
use millrace_wire::{arp, checksum, ether, icmpv4, igmp, ipv4, protocol, udp};

pub const STACK_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub const STACK_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const PEER_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

const L2: usize = ether::HEADER_LEN;
const L4: usize = L2 + ipv4::HEADER_LEN;

/// A TCP segment to be written. Everything that a test does not care about has a default.
#[derive(Clone, Debug)]
pub struct TcpSegment<'a> {
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: Flags,
    pub window: u16,
    pub urgent: u16,
    pub options: OptionWriter,
    pub payload: &'a [u8],
    /// The IP header's ECN codepoint, and Accurate ECN's bit.
    pub ecn: u8,
    pub ae: bool,
}

impl Default for TcpSegment<'_> {
    fn default() -> Self {
        TcpSegment {
            source: (PEER_IP, 5000),
            destination: (STACK_IP, 80),
            sequence: 0,
            acknowledgement: 0,
            flags: Flags::ACK,
            window: 65_535,
            urgent: 0,
            options: OptionWriter::new(),
            payload: &[],
            ecn: 0,
            ae: false,
        }
    }
}

impl TcpSegment<'_> {
    pub fn bytes(&self) -> Vec<u8> {
        let options = self.options.padded();
        let len = tcp::HEADER_LEN + options.len() + self.payload.len();
        let mut packet = ip_packet(self.source.0, self.destination.0, protocol::TCP, len);
        let header_len = tcp::Header {
            source_port: self.source.1,
            destination_port: self.destination.1,
            sequence: Seq(self.sequence),
            acknowledgement: Seq(self.acknowledgement),
            flags: self.flags,
            window: self.window,
            urgent: self.urgent,
        }
        .emit(&mut packet[L4..], options);
        packet[L4 + header_len..].copy_from_slice(self.payload);
        packet[L4 + 12] |= u8::from(self.ae);
        packet[L2 + 1] |= self.ecn;
        mend_ip_checksum(&mut packet);
        let pseudo = checksum::pseudo_v4(self.source.0, self.destination.0, protocol::TCP, len);
        let header = &mut packet[L4..L4 + header_len];
        tcp::fill_checksum(header, pseudo, checksum::sum(self.payload));
        packet
    }
}

/// Ethernet and IPv4 headers from the peer to the stack, and `len` zero bytes behind them.
pub fn ip_packet(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![0; L4 + len];
    ether::emit(&mut packet, STACK_MAC, PEER_MAC, ether::EtherType::IPV4);
    ipv4::Header {
        source,
        destination,
        protocol,
        ttl: 64,
        tos: 0,
        identification: 7,
        dont_fragment: true,
    }
    .emit(&mut packet[L2..], len);
    packet
}

/// Cuts a packet into fragments of at most `mtu` bytes, in the order of their offsets. All have
/// this identification.
pub fn fragments(packet: &[u8], mtu: usize, identification: u16) -> Vec<Vec<u8>> {
    let ip = ipv4::Packet::parse(&packet[L2..]).expect("a packet to be cut");
    let part = (mtu - ip.header_len()) & !7;
    let last = (ip.payload().len() - 1) / part;
    let cut = |(number, bytes): (usize, &[u8])| {
        fragment(packet, identification, number * part, number < last, bytes)
    };
    ip.payload().chunks(part).enumerate().map(cut).collect()
}

/// One fragment with the header of `packet`.
pub fn fragment(
    packet: &[u8],
    identification: u16,
    offset: usize,
    more: bool,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = packet[..L4].to_vec();
    bytes[L2 + 2..L2 + 4].copy_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
    bytes[L2 + 4..L2 + 6].copy_from_slice(&identification.to_be_bytes());
    let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
    bytes[L2 + 6..L2 + 8].copy_from_slice(&field.to_be_bytes());
    mend_ip_checksum(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// An IGMP message to `destination` with the router alert option and a time to live of 1.
pub fn igmp_message(source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let mut packet = ip_packet(source, destination, protocol::IGMP, 4 + message.len());
    let [.., b, c, d] = destination.octets();
    packet[..6].copy_from_slice(&[1, 0, 0x5e, b & 0x7f, c, d]);
    packet[L2] = 0x46;
    packet[L2 + 8] = 1;
    packet[L4..L4 + 4].copy_from_slice(&[148, 4, 0, 0]);
    packet[L4 + 4..].copy_from_slice(message);
    igmp::fill_checksum(&mut packet[L4 + 4..]);
    packet[L2 + 10..L2 + 12].fill(0);
    let sum = checksum::finish(checksum::sum(&packet[L2..L4 + 4]));
    packet[L2 + 10..L2 + 12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Writes the IPv4 header's checksum again after a test has changed the header.
pub fn mend_ip_checksum(packet: &mut [u8]) {
    packet[L2 + 10..L2 + 12].fill(0);
    // Never more than there is: tests write lengths that are wrong.
    let end = (L2 + usize::from(packet[L2] & 0x0f) * 4).clamp(L4, packet.len());
    let sum = checksum::finish(checksum::sum(&packet[L2..end]));
    packet[L2 + 10..L2 + 12].copy_from_slice(&sum.to_be_bytes());
}

pub fn udp_datagram(
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let len = udp::HEADER_LEN + payload.len();
    let mut packet = ip_packet(source.0, destination.0, protocol::UDP, len);
    udp::emit(&mut packet[L4..], source.1, destination.1, payload.len());
    packet[L4 + udp::HEADER_LEN..].copy_from_slice(payload);
    let pseudo = checksum::pseudo_v4(source.0, destination.0, protocol::UDP, len);
    udp::fill_checksum(&mut packet[L4..], pseudo, checksum::sum(payload));
    packet
}

pub fn echo_request(source: Ipv4Addr, destination: Ipv4Addr, data: &[u8]) -> Vec<u8> {
    let len = icmpv4::HEADER_LEN + data.len();
    let mut packet = ip_packet(source, destination, protocol::ICMP, len);
    icmpv4::emit_echo_request(&mut packet[L4..], 77, 3, data);
    packet
}

/// An ICMP error from `source` about `quote`, an IP packet from its header on.
pub fn unreachable(source: Ipv4Addr, code: u8, quote: &[u8]) -> Vec<u8> {
    let len = icmpv4::HEADER_LEN + quote.len();
    let mut packet = ip_packet(source, STACK_IP, protocol::ICMP, len);
    icmpv4::emit_unreachable(&mut packet[L4..], code, 0, quote);
    packet
}

/// A router tells of a better one to the destination of `quote`; `code` 0 for a network, 1 for a host.
pub fn redirect(source: Ipv4Addr, code: u8, gateway: Ipv4Addr, quote: &[u8]) -> Vec<u8> {
    const REDIRECT: u8 = 5;
    let mut packet = unreachable(source, code, quote);
    packet[L4] = REDIRECT;
    packet[L4 + 2..L4 + 4].fill(0);
    packet[L4 + 4..L4 + 8].copy_from_slice(&gateway.octets());
    let sum = checksum::finish(checksum::sum(&packet[L4..]));
    packet[L4 + 2..L4 + 4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A router tells that a packet needs fragmenting to fit `mtu` bytes.
pub fn fragmentation_needed(source: Ipv4Addr, mtu: u16, quote: &[u8]) -> Vec<u8> {
    let len = icmpv4::HEADER_LEN + quote.len();
    let mut packet = ip_packet(source, STACK_IP, protocol::ICMP, len);
    icmpv4::emit_unreachable(
        &mut packet[L4..],
        icmpv4::unreachable::FRAGMENTATION_NEEDED,
        mtu,
        quote,
    );
    packet
}

pub fn arp_packet(
    operation: Operation,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
) -> Vec<u8> {
    let mut packet = vec![0; 60];
    let to = if operation == Operation::Request { Mac::BROADCAST } else { STACK_MAC };
    ether::emit(&mut packet, to, sender.0, ether::EtherType::ARP);
    arp::emit(&mut packet[L2..], operation, sender.0, sender.1, target.0, target.1);
    packet
}

/// What a stack sent, taken apart. Checksums are verified on the way, so a wrong one fails the
/// test that sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Tcp(Segment),
    Udp {
        to: Mac,
        source: (Ipv4Addr, u16),
        destination: (Ipv4Addr, u16),
        payload: Vec<u8>,
    },
    Icmp {
        to: Mac,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        message: Vec<u8>,
    },
    Igmp {
        to: Mac,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        message: Vec<u8>,
    },
    /// A part of an IPv4 packet.
    Fragment(Fragment),
    /// An IPv6 packet; [`super::craft6`] reads on.
    V6(super::craft6::V6),
    Arp {
        to: Mac,
        operation: Operation,
        sender: (Mac, Ipv4Addr),
        target: (Mac, Ipv4Addr),
    },
}

/// A fragment that a stack sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub to: Mac,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub identification: u16,
    pub offset: usize,
    pub more: bool,
    pub payload: Vec<u8>,
}

/// A TCP segment that a stack sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub to: Mac,
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub flags: Flags,
    /// Absolute as parsed; [`super::peer::Peer`] makes them relative to the first ones.
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    /// All options, and their bytes with the padding.
    pub options: Options,
    pub options_bytes: Vec<u8>,
    pub payload: Vec<u8>,
    /// The IP header's type of service without ECN, and its time to live.
    pub fields: (u8, u8),
    /// The IP header's ECN codepoint, and Accurate ECN's bit.
    pub ecn: u8,
    pub ae: bool,
    /// Segment size of a super-segment, else 0.
    pub gso_size: u16,
}

/// Reads a packet. With `unfinished`, transport checksums must hold the pseudo-header's sum, as
/// for a port that finishes them; else they must be right.
pub fn parse(bytes: &[u8], unfinished: bool) -> Packet {
    let frame = ether::Frame::parse(bytes).expect("an Ethernet frame");
    assert_eq!(frame.source(), STACK_MAC);
    let to = frame.destination();
    match frame.ether_type() {
        ether::EtherType::ARP => {
            let arp = arp::Packet::parse(frame.payload()).expect("an ARP packet");
            Packet::Arp {
                to,
                operation: arp.operation(),
                sender: (arp.sender_mac(), arp.sender_ip()),
                target: (arp.target_mac(), arp.target_ip()),
            }
        }
        ether::EtherType::IPV4 => parse_ip(to, frame.payload(), unfinished),
        ether::EtherType::IPV6 => Packet::V6(super::craft6::parse(to, frame.payload(), unfinished)),
        other => panic!("the stack sent ether type {other:#06x}"),
    }
}

fn parse_ip(to: Mac, bytes: &[u8], unfinished: bool) -> Packet {
    let ip = ipv4::Packet::parse(bytes).expect("an IPv4 packet");
    assert!(ip.verify_checksum(), "IPv4 header checksum");
    assert_eq!(ip.total_len(), bytes.len(), "IPv4 total length");
    let (source, destination, payload) = (ip.source(), ip.destination(), ip.payload());
    let pseudo = checksum::pseudo_v4(source, destination, ip.protocol(), payload.len());
    if ip.is_fragment() {
        assert!(!ip.dont_fragment(), "a fragment that must not be fragmented");
        return Packet::Fragment(Fragment {
            to,
            source,
            destination,
            protocol: ip.protocol(),
            identification: ip.identification(),
            offset: ip.fragment_offset(),
            more: ip.more_fragments(),
            payload: payload.to_vec(),
        });
    }
    match ip.protocol() {
        protocol::TCP => {
            let segment = tcp::Segment::parse(payload).expect("a TCP segment");
            if unfinished && segment.checksum() == pseudo {
                // The port finishes it.
            } else {
                assert!(segment.verify_checksum(pseudo), "TCP checksum");
            }
            let options = segment.options().expect("TCP options");
            Packet::Tcp(Segment {
                to,
                source: (source, segment.source_port()),
                destination: (destination, segment.destination_port()),
                flags: segment.flags(),
                seq: segment.sequence().0,
                ack: segment.acknowledgement().0,
                window: segment.window(),
                mss: options.mss,
                window_scale: options.window_scale,
                options_bytes: segment.options_bytes().to_vec(),
                options,
                payload: segment.payload().to_vec(),
                fields: (ip.tos() & !3, ip.ttl()),
                ecn: ip.ecn(),
                ae: segment.ae(),
                gso_size: 0,
            })
        }
        protocol::UDP => {
            let datagram = udp::Datagram::parse(payload).expect("a UDP datagram");
            assert!(datagram.verify_checksum(pseudo), "UDP checksum");
            Packet::Udp {
                to,
                source: (source, datagram.source_port()),
                destination: (destination, datagram.destination_port()),
                payload: datagram.payload().to_vec(),
            }
        }
        protocol::IGMP => {
            assert_eq!((ip.ttl(), ip.tos(), ip.options()), (1, 0xc0, &[148, 4, 0, 0][..]));
            let message = igmp::Packet::parse(payload).expect("an IGMP message");
            assert!(message.verify_checksum(), "IGMP checksum");
            Packet::Igmp { to, source, destination, message: payload.to_vec() }
        }
        protocol::ICMP => {
            let message = icmpv4::Packet::parse(payload).expect("an ICMP message");
            assert!(message.verify_checksum(), "ICMP checksum");
            Packet::Icmp { to, source, destination, message: payload.to_vec() }
        }
        other => panic!("the stack sent IP protocol {other}"),
    }
}
