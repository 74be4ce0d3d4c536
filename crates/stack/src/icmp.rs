//! ICMP for IPv4 (RFC 792, RFC 1122 §3.2.2): echo, unreachables, redirects, and errors about
//! connections.

use core::net::Ipv4Addr;

use millrace_frames::Frame;
use millrace_wire::icmpv4::{self, Kind};
use millrace_wire::{checksum, ipv4, protocol, tcp};

use crate::Stack;
use crate::address::{Word, word_v4};
use crate::chain;
use crate::control::{Hop, L4};
use crate::fragmentation::{Body, IpHeader};
use crate::ip::IpInfo;
use crate::path_mtu::least;

impl Stack {
    pub(crate) fn icmp_packet(&mut self, frame: Frame, ip: &IpInfo) {
        // Of a message in several frames the first has all that is looked at, for one that was
        // reassembled has at least eight bytes there.
        let bytes = &self.arena.bytes(frame)[ip.payload..];
        let Ok(packet) = icmpv4::Packet::parse(&bytes[..bytes.len().min(ip.len)]) else {
            self.counters.drop_icmp_malformed += 1;
            return;
        };
        if self.chain_sum(frame, ip.payload, ip.len) != 0xffff {
            self.counters.drop_icmp_malformed += 1;
            return;
        }
        match packet.kind() {
            // RFC 1122 §3.2.2.6 lets a host be silent to broadcast requests; that keeps it from
            // helping to flood a third party.
            Kind::EchoRequest { .. } if !ip.many => self.echo_reply(frame, ip),
            Kind::Unreachable {
                code: icmpv4::unreachable::FRAGMENTATION_NEEDED,
                next_hop_mtu,
                quote,
            } => {
                let total_len = ipv4::Packet::parse_cut(quote).map_or(0, |ip| ip.total_len());
                if let Some(datagram) = quoted_udp(quote) {
                    self.datagram_fragmentation_needed(datagram, total_len, next_hop_mtu);
                } else if let Some((addresses, quoted)) = quoted_tcp(quote) {
                    self.fragmentation_needed(addresses, quoted, total_len, next_hop_mtu);
                } else {
                    self.counters.drop_icmp_unrelated += 1;
                }
            }
            Kind::Unreachable { code, quote, .. } => {
                let port = code == icmpv4::unreachable::PORT;
                let hard = port || code == icmpv4::unreachable::PROTOCOL;
                match (quoted_udp(quote), quoted_tcp(quote)) {
                    (Some((source, destination, ports)), _) => {
                        self.udp_icmp_error(source, destination, ports, port);
                    }
                    (None, Some(((source, destination), quoted))) => {
                        self.tcp_icmp_error(word_v4(source), word_v4(destination), quoted, hard);
                    }
                    (None, None) => self.counters.drop_icmp_unrelated += 1,
                }
            }
            // Both are passed up (RFC 1122 §3.2.2.4, §3.2.2.5), and may pass (§4.2.3.9).
            Kind::TimeExceeded { quote, .. } | Kind::ParameterProblem { quote, .. } => {
                match (quoted_udp(quote), quoted_tcp(quote)) {
                    (Some((source, destination, ports)), _) => {
                        self.udp_icmp_error(source, destination, ports, false);
                    }
                    (None, Some(((source, destination), quoted))) => {
                        self.tcp_icmp_soft_error(word_v4(source), word_v4(destination), quoted);
                    }
                    (None, None) => self.counters.drop_icmp_unrelated += 1,
                }
            }
            Kind::Redirect { code: 0..=3, gateway, quote } if !ip.many => {
                let quoted = (quoted_udp(quote), quoted_tcp(quote));
                self.redirected_v4(ip.source, gateway, quoted);
            }
            _ => self.counters.drop_icmp_ignored += 1,
        }
    }

    /// A redirect. One for a network, whose bits it does not tell, is taken for one of the host
    /// (RFC 1122 §3.2.2.2).
    fn redirected_v4(
        &mut self,
        router: Word,
        gateway: Ipv4Addr,
        quoted: (Option<QuotedUdp>, Option<QuotedTcp>),
    ) {
        let (destination, sent) = match quoted {
            (Some((source, destination, [a, b, c, d])), _) => {
                let (from, to) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                let ours = self.addresses.find(source).is_some();
                (destination, ours && self.find_socket(from, source, destination, to).is_some())
            }
            (None, Some(((source, destination), quoted))) => {
                let (source, destination) = (word_v4(source), word_v4(destination));
                (destination, self.quotes_connection(source, destination, quoted))
            }
            (None, None) => (0, false),
        };
        if !sent {
            self.counters.drop_icmp_unrelated += 1;
            return;
        }
        let gateway = word_v4(gateway);
        let possible = gateway != router
            && self.addresses.is_on_link(gateway)
            && self.addresses.may_be_a_host(gateway)
            // Groups, and all hosts of the link, have no router.
            && self.addresses.may_be_a_host(destination);
        if !possible || !self.follow_redirect(router, destination, gateway) {
            self.counters.drop_icmp_redirect += 1;
        }
    }

    /// The reply is the request with another type (RFC 792), so its checksum is the request's,
    /// updated.
    fn echo_reply(&mut self, request: Frame, ip: &IpInfo) {
        let len = ip.len;
        if ipv4::HEADER_LEN + len > self.one_packet_to(ip.source) {
            return self.long_echo_reply(request, ip);
        }
        let Some(frame) = self.control_frame() else { return };
        let mut header = self.icmp_header(ip);
        if ipv4::HEADER_LEN + len > least(ip.source).into() {
            // Routers may have to cut it: none is believed that says so of a reply
            // ([`crate::large_datagrams`]), and with Don't Fragment none would ever arrive.
            let source = word_v4(header.source);
            header.dont_fragment = false;
            header.identification = self.identification(source, ip.source, protocol::ICMP) as u16;
        }
        self.control_header(frame, header, len);
        self.arena.meta_mut(frame).len = ipv4::HEADER_LEN as u16;
        chain::append(&mut self.arena, frame, request, ip.payload, len);
        make_reply(&mut self.control_room(frame)[L4..L4 + len]);
        self.counters.echo_replies += 1;
        self.control_packet(frame, L4 + len, Hop::Mac(ip.mac));
    }

    /// A reply that leaves in fragments, as the request came in them.
    fn long_echo_reply(&mut self, request: Frame, ip: &IpInfo) {
        let bytes = &self.arena.bytes(request)[ip.payload..];
        let Some(mut header) = bytes.first_chunk::<{ icmpv4::HEADER_LEN }>().copied() else {
            return;
        };
        make_reply(&mut header);
        let rest = Body::Chain { frame: request, start: ip.payload + icmpv4::HEADER_LEN };
        let len = ip.len - icmpv4::HEADER_LEN;
        if self.send_fragments(
            IpHeader::V4(self.icmp_header(ip)),
            (Hop::Mac(ip.mac), self.one_packet_to(ip.source)),
            &header,
            rest,
            len,
        ) {
            self.counters.echo_replies += 1;
        }
    }

    /// Says that a packet could not be delivered here, unless RFC 1122 §3.2.2 forbids it.
    pub(crate) fn icmp_unreachable(&mut self, offending: Frame, ip: &IpInfo, code: u8) {
        self.icmp_error(offending, ip, |room, quote| {
            icmpv4::emit_unreachable(room, code, 0, quote)
        });
    }

    /// Says that a packet's first fragment came and others did not (RFC 792).
    pub(crate) fn icmp_reassembly_timeout(&mut self, offending: Frame, ip: &IpInfo) {
        const REASSEMBLY: u8 = 1;
        self.icmp_error(offending, ip, |room, quote| {
            icmpv4::emit_time_exceeded(room, REASSEMBLY, quote)
        });
    }

    fn icmp_error(
        &mut self,
        offending: Frame,
        ip: &IpInfo,
        emit: impl FnOnce(&mut [u8], &[u8]) -> usize,
    ) {
        if ip.many || is_error(&self.arena.bytes(offending)[ip.start..]) {
            return;
        }
        if !self.icmp_rate.take(&self.keys, self.now) {
            self.counters.drop_icmp_rate += 1;
            return;
        }
        let quote_len = (ip.payload - ip.start + ip.len).min(icmpv4::MAX_QUOTE);
        let mut quote = [0u8; icmpv4::MAX_QUOTE];
        let bytes = &self.arena.bytes(offending)[ip.start..];
        let quote_len = quote_len.min(bytes.len());
        quote[..quote_len].copy_from_slice(&bytes[..quote_len]);
        let Some(frame) = self.control_frame() else { return };
        let room = &mut self.control_room(frame)[L4..];
        let len = emit(room, &quote[..quote_len]);
        self.control_header(frame, self.icmp_header(ip), len);
        self.counters.icmp_errors_sent += 1;
        self.control_packet(frame, L4 + len, Hop::Mac(ip.mac));
    }

    fn icmp_header(&self, ip: &IpInfo) -> ipv4::Header {
        ipv4::Header {
            source: self.addresses.v4(ip.local),
            destination: Ipv4Addr::from_bits(ip.source as u32),
            protocol: protocol::ICMP,
            ttl: 64,
            tos: 0,
            identification: 0,
            dont_fragment: true,
        }
    }
}

/// Makes a request the reply to it.
fn make_reply(message: &mut [u8]) {
    let old = u16::from_be_bytes([message[0], message[1]]);
    let field = u16::from_be_bytes([message[2], message[3]]);
    message[0] = 0;
    let field = match checksum::update(field, old, old & 0xff) {
        // Of a message without a bit an update finds the wrong zero (RFC 1624 §3). This one is right
        // for it, and for any other of the same sum.
        0 => 0xffff,
        field => field,
    };
    message[2..4].copy_from_slice(&field.to_be_bytes());
}

/// Whether a packet is an ICMP error; one that cannot be told counts as one.
fn is_error(packet: &[u8]) -> bool {
    let Ok(packet) = ipv4::Packet::parse_cut(packet) else { return true };
    packet.protocol() == protocol::ICMP
        && icmpv4::Packet::parse(packet.payload()).map_or(true, |message| message.is_error())
}

type QuotedUdp = (Word, Word, [u8; 4]);
type QuotedTcp = ((Ipv4Addr, Ipv4Addr), tcp::Quoted);

/// Source and destination of a quoted IPv4 header, and the ports of its UDP header.
fn quoted_udp(quote: &[u8]) -> Option<QuotedUdp> {
    let packet = ipv4::Packet::parse_cut(quote).ok()?;
    if packet.protocol() != protocol::UDP || packet.fragment_offset() != 0 {
        return None;
    }
    let ports = *packet.payload().first_chunk()?;
    Some((word_v4(packet.source()), word_v4(packet.destination()), ports))
}

/// Source and destination of a quoted IPv4 header, and what is left of its TCP header.
fn quoted_tcp(quote: &[u8]) -> Option<QuotedTcp> {
    let packet = ipv4::Packet::parse_cut(quote).ok()?;
    if packet.protocol() != protocol::TCP || packet.fragment_offset() != 0 {
        return None;
    }
    let quoted = tcp::Quoted::parse(packet.payload()).ok()?;
    Some(((packet.source(), packet.destination()), quoted))
}
