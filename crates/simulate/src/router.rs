//! An IP router (RFC 1812, RFC 8200): longest prefix, hop limit, fragments, and the ICMP errors
//! that hosts learn from. It knows its neighbours' hardware addresses from the topology, so it asks
//! nobody; it answers who asks for its own.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;

use millrace_wire::arp::{self, Operation};
use millrace_wire::mac::Mac;
use millrace_wire::{checksum, ether, icmpv4, ipv4, ipv6, protocol};

use crate::packet::Packet;
use crate::switch::macs;
use crate::topology::{Interface, Way, segment_v4, segment_v6};

const L2: usize = ether::HEADER_LEN;
/// Most bytes of a packet that an ICMPv6 error quotes, so that it fits the least MTU (RFC 4443
/// §2.4).
const QUOTE_V6: usize = 1280 - ipv6::HEADER_LEN - 8;

#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) icmp: bool,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) ways: Vec<Option<Way>>,
    pub(crate) counters: RouterCounters,
    identification: u16,
}

/// What a router did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterCounters {
    /// Packets forwarded; each fragment is one.
    pub forwarded: u64,
    /// Packets cut into fragments.
    pub fragmented: u64,
    /// ICMP errors sent.
    pub icmp_sent: u64,
    /// Frames that are no packets, or whose IP header is damaged.
    pub drop_malformed: u64,
    /// Packets for nobody that it knows a way to.
    pub drop_no_route: u64,
    /// Packets whose hops were used up.
    pub drop_hops: u64,
    /// Packets that do not fit the next wire and may not be cut.
    pub drop_too_big: u64,
    /// Packets for the router itself, to which it has nothing to say.
    pub drop_for_router: u64,
}

impl RouterCounters {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("forwarded", self.forwarded),
            ("fragmented", self.fragmented),
            ("icmp_sent", self.icmp_sent),
            ("drop_malformed", self.drop_malformed),
            ("drop_no_route", self.drop_no_route),
            ("drop_hops", self.drop_hops),
            ("drop_too_big", self.drop_too_big),
            ("drop_for_router", self.drop_for_router),
        ]
        .into_iter()
    }
}

/// What the router sends: out of which interface, and the packet.
pub(crate) type Out = Vec<(u16, Packet)>;

impl Router {
    pub(crate) fn new(icmp: bool, interfaces: Vec<Interface>, ways: Vec<Option<Way>>) -> Router {
        let counters = RouterCounters::default();
        Router { icmp, interfaces, ways, counters, identification: 0 }
    }

    /// Takes a packet that came in at interface `from`. `mtu` tells that of a wire out of an
    /// interface.
    pub(crate) fn packet(
        &mut self,
        from: u16,
        packet: &Packet,
        neighbours: &HashMap<IpAddr, Mac>,
        mtu: impl Fn(u16) -> usize,
        out: &mut Out,
    ) {
        let interface = self.interfaces[usize::from(from)];
        let Some((destination, _)) = macs(&packet.bytes) else {
            self.counters.drop_malformed += 1;
            return;
        };
        if destination != interface.mac && !destination.is_multicast() {
            return; // Flooded by a switch, for somebody else.
        }
        match packet.ether_type() {
            ether::EtherType::ARP => self.arp(from, &packet.bytes, out),
            ether::EtherType::IPV4 => self.v4(from, packet, neighbours, mtu, out),
            ether::EtherType::IPV6 => self.v6(from, packet, neighbours, mtu, out),
            _ => self.counters.drop_malformed += 1,
        }
    }

    fn arp(&mut self, from: u16, bytes: &[u8], out: &mut Out) {
        let interface = self.interfaces[usize::from(from)];
        let Ok(request) = arp::Packet::parse(&bytes[L2..]) else {
            self.counters.drop_malformed += 1;
            return;
        };
        if request.operation() != Operation::Request || request.target_ip() != interface.v4 {
            return;
        }
        let mut reply = vec![0; L2 + arp::LEN];
        ether::emit(&mut reply, request.sender_mac(), interface.mac, ether::EtherType::ARP);
        arp::emit(
            &mut reply[L2..],
            Operation::Reply,
            interface.mac,
            interface.v4,
            request.sender_mac(),
            request.sender_ip(),
        );
        out.push((from, Packet { bytes: reply, ..Packet::default() }));
    }

    fn v4(
        &mut self,
        from: u16,
        packet: &Packet,
        neighbours: &HashMap<IpAddr, Mac>,
        mtu: impl Fn(u16) -> usize,
        out: &mut Out,
    ) {
        let header = match ipv4::Packet::parse(&packet.bytes[L2..]) {
            Ok(header) if header.verify_checksum() => header,
            _ => {
                self.counters.drop_malformed += 1;
                return;
            }
        };
        let destination = header.destination();
        if self.is_own(destination.into()) || destination.is_broadcast() {
            self.counters.drop_for_router += 1;
            return;
        }
        if header.ttl() <= 1 {
            self.counters.drop_hops += 1;
            return self.error_v4(from, packet, out, |room, quote| {
                icmpv4::emit_time_exceeded(room, 0, quote)
            });
        }
        let hop = self.hop(segment_v4(destination), destination.into(), neighbours);
        let Some((to, mac)) = hop else {
            self.counters.drop_no_route += 1;
            return self.error_v4(from, packet, out, |room, quote| {
                icmpv4::emit_unreachable(room, icmpv4::unreachable::HOST, 0, quote)
            });
        };
        let most = mtu(to);
        let mut forward = Packet { bytes: packet.bytes.clone(), ..Packet::default() };
        forward.like(packet);
        // What trails the IP packet is padding.
        forward.bytes.truncate(L2 + header.total_len());
        let fits = forward.segment_len() <= most;
        if !fits && header.dont_fragment() {
            self.counters.drop_too_big += 1;
            return self.error_v4(from, packet, out, |room, quote| {
                let code = icmpv4::unreachable::FRAGMENTATION_NEEDED;
                icmpv4::emit_unreachable(room, code, most as u16, quote)
            });
        }
        self.address(&mut forward, to, mac);
        forward.bytes[L2 + 8] -= 1;
        forward.mend_ip_checksum();
        if fits {
            self.counters.forwarded += 1;
            out.push((to, forward));
        } else {
            self.fragment(to, forward, most, out);
        }
    }

    /// RFC 791 §3.2.
    fn fragment(&mut self, to: u16, mut packet: Packet, mtu: usize, out: &mut Out) {
        self.counters.fragmented += 1;
        packet.finish_checksum();
        let damaged = packet.damaged;
        packet.cut(|bytes| {
            let header_len = usize::from(bytes[L2] & 15) * 4;
            let (headers, payload) = bytes.split_at(L2 + header_len);
            let step = (mtu - header_len) / 8 * 8;
            let field = u16::from_be_bytes([headers[L2 + 6], headers[L2 + 7]]);
            const MORE: u16 = 0x2000;
            let last = payload.len().div_ceil(step).max(1) - 1;
            for number in 0..=last {
                let start = number * step;
                let end = (start + step).min(payload.len());
                let mut fragment = Packet { damaged, ..Packet::default() };
                fragment.bytes.extend_from_slice(headers);
                fragment.bytes.extend_from_slice(&payload[start..end]);
                let total = (header_len + end - start) as u16;
                fragment.bytes[L2 + 2..L2 + 4].copy_from_slice(&total.to_be_bytes());
                let more = if number < last { MORE } else { 0 };
                let field = (field + (start / 8) as u16) | more;
                fragment.bytes[L2 + 6..L2 + 8].copy_from_slice(&field.to_be_bytes());
                fragment.mend_ip_checksum();
                self.counters.forwarded += 1;
                out.push((to, fragment));
            }
        });
    }

    fn v6(
        &mut self,
        from: u16,
        packet: &Packet,
        neighbours: &HashMap<IpAddr, Mac>,
        mtu: impl Fn(u16) -> usize,
        out: &mut Out,
    ) {
        let Ok(header) = ipv6::Packet::parse(&packet.bytes[L2..]) else {
            self.counters.drop_malformed += 1;
            return;
        };
        let destination = header.destination();
        if destination.is_multicast() || self.is_own(destination.into()) {
            return self.for_router_v6(from, packet, out);
        }
        if header.hop_limit() <= 1 {
            self.counters.drop_hops += 1;
            return self.error_v6(from, packet, 3, 0, 0, out);
        }
        let hop = self.hop(segment_v6(destination), destination.into(), neighbours);
        let Some((to, mac)) = hop else {
            self.counters.drop_no_route += 1;
            return self.error_v6(from, packet, 1, 3, 0, out);
        };
        let most = mtu(to);
        if packet.segment_len().min(ipv6::HEADER_LEN + header.payload_len()) > most {
            self.counters.drop_too_big += 1;
            return self.error_v6(from, packet, 2, 0, most as u32, out);
        }
        let mut forward = Packet { bytes: packet.bytes.clone(), ..Packet::default() };
        forward.like(packet);
        forward.bytes.truncate(L2 + ipv6::HEADER_LEN + header.payload_len());
        self.address(&mut forward, to, mac);
        forward.bytes[L2 + 7] -= 1;
        self.counters.forwarded += 1;
        out.push((to, forward));
    }

    /// Answers neighbour solicitations for its own addresses (RFC 4861 §7.2.4).
    fn for_router_v6(&mut self, from: u16, packet: &Packet, out: &mut Out) {
        const SOLICITATION: u8 = 135;
        const ADVERTISEMENT: u8 = 136;
        let interface = self.interfaces[usize::from(from)];
        let bytes = &packet.bytes;
        let body = L2 + ipv6::HEADER_LEN;
        let target =
            bytes.get(body + 8..body + 24).and_then(|target| <[u8; 16]>::try_from(target).ok());
        let solicited = bytes[L2 + 6] == protocol::ICMPV6
            && bytes.get(body) == Some(&SOLICITATION)
            && target.is_some_and(|target| self.is_link_address(interface, Ipv6Addr::from(target)));
        let Some(target) = target.filter(|_| solicited) else {
            self.counters.drop_for_router += 1;
            return;
        };
        let asker: [u8; 16] = bytes[L2 + 8..L2 + 24].try_into().expect("an address");
        let asker = Ipv6Addr::from(asker);
        let (_, mac) = macs(bytes).expect("checked before");
        // To a probe for duplicates the answer goes to all nodes.
        let (to, mac) = if asker.is_unspecified() {
            (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), Mac([0x33, 0x33, 0, 0, 0, 1]))
        } else {
            (asker, mac)
        };
        let mut message = vec![ADVERTISEMENT, 0, 0, 0];
        let flags: u8 = if asker.is_unspecified() { 0xa0 } else { 0xe0 };
        message.extend_from_slice(&[flags, 0, 0, 0]);
        message.extend_from_slice(&target);
        message.extend_from_slice(&[2, 1]);
        message.extend_from_slice(&interface.mac.0);
        let own = Ipv6Addr::from(target);
        let advertisement = icmpv6(interface.mac, own, mac, to, 255, &mut message);
        out.push((from, advertisement));
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.interfaces.iter().any(|one| match address {
            IpAddr::V4(address) => one.v4 == address,
            IpAddr::V6(address) => self.is_link_address(*one, address),
        })
    }

    /// Its global address, or its link-local one, fe80::1 with the interface's number.
    fn is_link_address(&self, interface: Interface, address: Ipv6Addr) -> bool {
        interface.v6 == address || interface.link_local() == address
    }

    fn hop(
        &self,
        segment: Option<u32>,
        destination: IpAddr,
        neighbours: &HashMap<IpAddr, Mac>,
    ) -> Option<(u16, Mac)> {
        let way = (*self.ways.get(segment? as usize)?)?;
        let mac = match way.via {
            Some(mac) => mac,
            None => *neighbours.get(&destination)?,
        };
        Some((way.out, mac))
    }

    fn address(&self, packet: &mut Packet, to: u16, mac: Mac) {
        packet.bytes[..6].copy_from_slice(&mac.0);
        packet.bytes[6..12].copy_from_slice(&self.interfaces[usize::from(to)].mac.0);
    }

    /// An ICMP error to the sender of a packet, through the interface that it came in by.
    fn error_v4(
        &mut self,
        from: u16,
        packet: &Packet,
        out: &mut Out,
        emit: impl FnOnce(&mut [u8], &[u8]) -> usize,
    ) {
        let Ok(about) = ipv4::Packet::parse(&packet.bytes[L2..]) else { return };
        // RFC 1812 §4.3.2.7: not about errors, later fragments, or what many received.
        let is_error = about.protocol() == protocol::ICMP
            && about.payload().first().is_none_or(|&kind| !matches!(kind, 0 | 8));
        let Some((_, mac)) = macs(&packet.bytes) else { return };
        if !self.icmp || is_error || about.fragment_offset() != 0 || !mac.is_unicast() {
            return;
        }
        let interface = self.interfaces[usize::from(from)];
        let quote = &packet.bytes[L2..L2 + about.total_len().min(icmpv4::MAX_QUOTE)];
        let mut bytes = vec![0; L2 + ipv4::HEADER_LEN + icmpv4::HEADER_LEN + quote.len()];
        let len = emit(&mut bytes[L2 + ipv4::HEADER_LEN..], quote);
        bytes.truncate(L2 + ipv4::HEADER_LEN + len);
        ether::emit(&mut bytes, mac, interface.mac, ether::EtherType::IPV4);
        self.identification = self.identification.wrapping_add(1);
        let header = ipv4::Header {
            source: interface.v4,
            destination: about.source(),
            protocol: protocol::ICMP,
            ttl: 64,
            tos: 0,
            identification: self.identification,
            dont_fragment: false,
        };
        header.emit(&mut bytes[L2..], len);
        self.counters.icmp_sent += 1;
        out.push((from, Packet { bytes, ..Packet::default() }));
    }

    /// RFC 4443 §3.
    fn error_v6(
        &mut self,
        from: u16,
        packet: &Packet,
        kind: u8,
        code: u8,
        word: u32,
        out: &mut Out,
    ) {
        let Ok(about) = ipv6::Packet::parse(&packet.bytes[L2..]) else { return };
        let is_error = about.next_header() == protocol::ICMPV6
            && about.payload().first().is_none_or(|&kind| kind < 128);
        let Some((_, mac)) = macs(&packet.bytes) else { return };
        let source = about.source();
        if !self.icmp || is_error || source.is_multicast() || source.is_unspecified() {
            return;
        }
        let interface = self.interfaces[usize::from(from)];
        let len = (ipv6::HEADER_LEN + about.payload_len()).min(QUOTE_V6);
        let mut message = vec![kind, code, 0, 0];
        message.extend_from_slice(&word.to_be_bytes());
        message.extend_from_slice(&packet.bytes[L2..L2 + len]);
        let error = icmpv6(interface.mac, interface.v6, mac, source, 64, &mut message);
        self.counters.icmp_sent += 1;
        out.push((from, error));
    }
}

/// An ICMPv6 message as a packet, its checksum filled in.
fn icmpv6(
    source_mac: Mac,
    source: Ipv6Addr,
    mac: Mac,
    destination: Ipv6Addr,
    hop_limit: u8,
    message: &mut [u8],
) -> Packet {
    let pseudo = checksum::pseudo_v6(source, destination, protocol::ICMPV6, message.len());
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(message)));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut bytes = vec![0; L2 + ipv6::HEADER_LEN];
    ether::emit(&mut bytes, mac, source_mac, ether::EtherType::IPV6);
    ipv6::Header {
        source,
        destination,
        next_header: protocol::ICMPV6,
        hop_limit,
        traffic_class: 0,
        flow_label: 0,
    }
    .emit(&mut bytes[L2..], message.len());
    bytes.extend_from_slice(message);
    Packet { bytes, ..Packet::default() }
}

impl Interface {
    /// fe80:: and the interface's identifier from its hardware address (RFC 4291, appendix A).
    pub(crate) fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac.0.map(u16::from);
        Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
    }
}
