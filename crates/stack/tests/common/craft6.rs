//! IPv6 packets as bytes: written for the stack to receive, and read back from what it sends.

use core::net::Ipv6Addr;

use millrace_wire::mac::Mac;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{self, Flags, OptionWriter};
use millrace_wire::{checksum, ether, icmpv6, ipv6, mld, ndp, protocol, udp};

use super::craft::{PEER_MAC, STACK_MAC};

pub const STACK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// The peer's link-local address, which is a router's where a test needs one.
pub const PEER_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

const L4: usize = ether::HEADER_LEN + ipv6::HEADER_LEN;

/// An IPv6 packet that a stack sent. The checksum of what it carries was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V6 {
    pub to: Mac,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    pub protocol: u8,
    /// From the upper-layer header on.
    pub payload: Vec<u8>,
    /// Of a fragment: where the payload belongs, and whether more follows.
    pub fragment: Option<(usize, bool)>,
}

pub fn parse(to: Mac, bytes: &[u8], unfinished: bool) -> V6 {
    let ip = ipv6::Packet::parse(bytes).expect("an IPv6 packet");
    assert_eq!(ipv6::HEADER_LEN + ip.payload_len(), bytes.len(), "IPv6 payload length");
    let upper = ip.upper_layer().expect("a header chain");
    let (source, destination) = (ip.source(), ip.destination());
    let pseudo = checksum::pseudo_v6(source, destination, upper.protocol, upper.payload.len());
    let whole = upper.fragment.is_none();
    let known = matches!(upper.protocol, protocol::TCP | protocol::UDP | protocol::ICMPV6);
    if whole && known && !unfinished {
        let sum = checksum::add(pseudo, checksum::sum(upper.payload));
        assert_eq!(checksum::finish(sum), 0, "checksum of protocol {}", upper.protocol);
    }
    V6 {
        to,
        source,
        destination,
        hop_limit: ip.hop_limit(),
        protocol: upper.protocol,
        payload: upper.payload.to_vec(),
        fragment: upper.fragment.map(|fragment| (fragment.offset, fragment.more)),
    }
}

impl V6 {
    /// Whether it is a message of multicast listener discovery.
    pub fn is_mld(&self) -> bool {
        let kinds = [mld::QUERY, mld::REPORT_V1, mld::DONE, mld::REPORT_V2];
        self.protocol == protocol::ICMPV6 && kinds.contains(&self.payload[0])
    }

    #[track_caller]
    pub fn tcp(&self) -> tcp::Segment<'_> {
        assert_eq!(self.protocol, protocol::TCP);
        tcp::Segment::parse(&self.payload).expect("a TCP segment")
    }

    #[track_caller]
    pub fn ndp(&self) -> ndp::Message<'_> {
        assert_eq!((self.protocol, self.hop_limit), (protocol::ICMPV6, 255));
        ndp::Message::parse(&self.payload).expect("no malformed message").expect("of NDP")
    }

    #[track_caller]
    pub fn icmp(&self) -> icmpv6::Kind<'_> {
        assert_eq!(self.protocol, protocol::ICMPV6);
        icmpv6::Packet::parse(&self.payload).expect("an ICMPv6 message").kind()
    }
}

/// Ethernet and IPv6 headers from the peer to the stack, and the payload behind them.
pub fn packet(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    next_header: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0; L4];
    let to = match destination.is_multicast() {
        true => ndp::group_mac(destination),
        false => STACK_MAC,
    };
    ether::emit(&mut packet, to, PEER_MAC, ether::EtherType::IPV6);
    ipv6::Header { source, destination, next_header, hop_limit, traffic_class: 0, flow_label: 0 }
        .emit(&mut packet[ether::HEADER_LEN..], payload.len());
    packet.extend_from_slice(payload);
    packet
}

/// An ICMPv6 message, with its checksum.
pub fn icmp(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let pseudo = checksum::pseudo_v6(source, destination, protocol::ICMPV6, message.len());
    icmpv6::fill_checksum(&mut message, pseudo);
    packet(source, destination, hop_limit, protocol::ICMPV6, &message)
}

pub fn echo(source: Ipv6Addr, destination: Ipv6Addr, data: &[u8]) -> Vec<u8> {
    let mut message = vec![0; icmpv6::HEADER_LEN + data.len()];
    icmpv6::emit_echo_request(&mut message, 77, 3, data);
    icmp(source, destination, 64, &message)
}

/// An error from `source` about `quote`, an IPv6 packet from its header on.
pub fn error(source: Ipv6Addr, kind: u8, code: u8, word: u32, quote: &[u8]) -> Vec<u8> {
    let mut message = vec![0; icmpv6::HEADER_LEN + quote.len()];
    icmpv6::emit_error(&mut message, kind, code, word, quote);
    icmp(source, STACK_V6, 64, &message)
}

pub fn udp(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16), data: &[u8]) -> Vec<u8> {
    let len = udp::HEADER_LEN + data.len();
    let mut datagram = vec![0; len];
    udp::emit(&mut datagram, source.1, destination.1, data.len());
    datagram[udp::HEADER_LEN..].copy_from_slice(data);
    let pseudo = checksum::pseudo_v6(source.0, destination.0, protocol::UDP, len);
    udp::fill_checksum(&mut datagram, pseudo, checksum::sum(data));
    packet(source.0, destination.0, 64, protocol::UDP, &datagram)
}

/// A segment from the peer's address to the stack's.
pub fn segment(ports: (u16, u16), flags: Flags, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    segment_between((PEER_V6, STACK_V6), ports, flags, (seq, ack), data)
}

/// A segment from one address to another.
pub fn segment_between(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    ports: (u16, u16),
    flags: Flags,
    (seq, ack): (u32, u32),
    data: &[u8],
) -> Vec<u8> {
    let mut options = OptionWriter::new();
    if flags.contains(Flags::SYN) {
        options.mss(1000);
    }
    let mut bytes = vec![0; tcp::HEADER_LEN + options.padded().len()];
    tcp::Header {
        source_port: ports.0,
        destination_port: ports.1,
        sequence: Seq(seq),
        acknowledgement: Seq(ack),
        flags,
        window: 60_000,
        urgent: 0,
    }
    .emit(&mut bytes, options.padded());
    let pseudo = checksum::pseudo_v6(source, destination, protocol::TCP, bytes.len() + data.len());
    tcp::fill_checksum(&mut bytes, pseudo, checksum::sum(data));
    bytes.extend_from_slice(data);
    packet(source, destination, 64, protocol::TCP, &bytes)
}

/// The segment of an IPv4 packet of the peer's, over IPv6.
pub fn from_v4(bytes: &[u8]) -> Vec<u8> {
    let (class, mut segment) = (bytes[ether::HEADER_LEN + 1], bytes[L4 - 20..].to_vec());
    let header_len = usize::from(segment[12] >> 4) * 4;
    let pseudo = checksum::pseudo_v6(PEER_V6, STACK_V6, protocol::TCP, segment.len());
    let (header, data) = segment.split_at_mut(header_len);
    tcp::fill_checksum(header, pseudo, checksum::sum(data));
    let mut packet = packet(PEER_V6, STACK_V6, 64, protocol::TCP, &segment);
    packet[ether::HEADER_LEN] |= class >> 4;
    packet[ether::HEADER_LEN + 1] |= class << 4;
    packet
}

/// The packet with an extension header of eight bytes before what it carries: of options that mean
/// nothing, of a route that is at its end, or of a fragment that is the whole.
pub fn extended(packet: &[u8], next_header: u8, second: u8) -> Vec<u8> {
    let mut bytes = packet[..L4].to_vec();
    let next = core::mem::replace(&mut bytes[L4 - 34], next_header);
    let len = (packet.len() - L4 + 8) as u16;
    bytes[L4 - 36..L4 - 34].copy_from_slice(&len.to_be_bytes());
    bytes.extend([next, 0, if next_header == 44 { 0 } else { 1 }, second, 0, 0, 0, 0]);
    bytes.extend_from_slice(&packet[L4..]);
    bytes
}

/// Whether an Ethernet frame holds IPv6.
pub fn is_six(bytes: &[u8]) -> bool {
    bytes.get(12..14) == Some(&[0x86, 0xdd])
}

/// An MLD message as a router sends it: one hop, with the option that makes others look.
pub fn mld(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let pseudo = checksum::pseudo_v6(source, destination, protocol::ICMPV6, message.len());
    icmpv6::fill_checksum(&mut message, pseudo);
    let payload = [&[protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0][..], &message].concat();
    packet(source, destination, 1, 0, &payload)
}

/// Cuts a packet without extension headers into fragments of at most `mtu` bytes.
pub fn fragments(packet: &[u8], mtu: usize, identification: u32) -> Vec<Vec<u8>> {
    let payload = &packet[L4..];
    let part = (mtu - ipv6::HEADER_LEN - 8) & !7;
    let last = (payload.len() - 1) / part;
    let cut = |(number, bytes): (usize, &[u8])| {
        fragment(packet, identification, number * part, number < last, bytes)
    };
    payload.chunks(part).enumerate().map(cut).collect()
}

/// One fragment with the header of `packet`.
pub fn fragment(
    packet: &[u8],
    identification: u32,
    offset: usize,
    more: bool,
    part: &[u8],
) -> Vec<u8> {
    let mut bytes = packet[..L4].to_vec();
    let next = core::mem::replace(&mut bytes[L4 - 34], 44);
    bytes[L4 - 36..L4 - 34].copy_from_slice(&(part.len() as u16 + 8).to_be_bytes());
    bytes.extend([next, 0]);
    bytes.extend((offset as u16 | u16::from(more)).to_be_bytes());
    bytes.extend(identification.to_be_bytes());
    bytes.extend_from_slice(part);
    bytes
}

/// A neighbour solicitation as the peer sends it.
pub fn solicitation(source: Ipv6Addr, target: Ipv6Addr, nonce: Option<[u8; 6]>) -> Vec<u8> {
    let mut message = [0; 48];
    let mac = (!source.is_unspecified()).then_some(PEER_MAC);
    let len = ndp::emit_neighbour_solicitation(&mut message, target, mac, nonce);
    icmp(source, ndp::solicited_node(target), 255, &message[..len])
}

/// A neighbour advertisement of the peer.
pub fn advertisement(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    target: Ipv6Addr,
    flags: ndp::AdvertisementFlags,
    mac: Option<Mac>,
) -> Vec<u8> {
    let mut message = [0; 48];
    let len = ndp::emit_neighbour_advertisement(&mut message, target, flags, mac);
    icmp(source, destination, 255, &message[..len])
}

/// What a router advertisement says, without options.
#[derive(Clone, Debug)]
pub struct RouterAdvertisement {
    pub source: Ipv6Addr,
    pub hop_limit: u8,
    pub preference: u8,
    pub lifetime: u16,
    pub reachable_ms: u32,
    pub retransmit_ms: u32,
    pub options: Vec<u8>,
}

impl Default for RouterAdvertisement {
    fn default() -> Self {
        RouterAdvertisement {
            source: PEER_LINK,
            hop_limit: 0,
            preference: 0,
            lifetime: 1800,
            reachable_ms: 0,
            retransmit_ms: 0,
            options: [&[1, 1][..], &PEER_MAC.0].concat(),
        }
    }
}

impl RouterAdvertisement {
    pub fn prefix(mut self, prefix: Ipv6Addr, flags: u8, valid: u32, preferred: u32) -> Self {
        self.options.extend([3, 4, 64, flags]);
        self.options.extend(valid.to_be_bytes());
        self.options.extend(preferred.to_be_bytes());
        self.options.extend([0; 4]);
        self.options.extend(prefix.octets());
        self
    }

    pub fn mtu(mut self, mtu: u32) -> Self {
        self.options.extend([5, 1, 0, 0]);
        self.options.extend(mtu.to_be_bytes());
        self
    }

    pub fn name_servers(mut self, servers: &[Ipv6Addr], lifetime: u32) -> Self {
        self.options.extend([25, 1 + 2 * servers.len() as u8, 0, 0]);
        self.options.extend(lifetime.to_be_bytes());
        self.options.extend(servers.iter().flat_map(|server| server.octets()));
        self
    }

    /// `names` are names as they are on the wire; zeros fill the option.
    pub fn search_domains(mut self, names: &[u8], lifetime: u32) -> Self {
        let units = 1 + names.len().div_ceil(8);
        self.options.extend([31, units as u8, 0, 0]);
        self.options.extend(lifetime.to_be_bytes());
        self.options.extend(names);
        self.options.resize(self.options.len() + (units - 1) * 8 - names.len(), 0);
        self
    }

    pub fn route(mut self, network: Ipv6Addr, bits: u8, preference: u8, lifetime: u32) -> Self {
        self.options.extend([24, 3, bits, preference << 3]);
        self.options.extend(lifetime.to_be_bytes());
        self.options.extend(network.octets());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut message = vec![134, 0, 0, 0, self.hop_limit, self.preference << 3];
        message.extend(self.lifetime.to_be_bytes());
        message.extend(self.reachable_ms.to_be_bytes());
        message.extend(self.retransmit_ms.to_be_bytes());
        message.extend_from_slice(&self.options);
        icmp(self.source, ALL_NODES, 255, &message)
    }
}
