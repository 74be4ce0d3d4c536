//! ICMPv6 (RFC 4443): echo, errors, and errors about connections. Neighbour discovery is in
//! [`super::ndp`].

use core::net::Ipv6Addr;

use millrace_frames::Frame;
use millrace_wire::icmpv6::{self, Kind, MAX_QUOTE, Packet, kind, parameter, unreachable};
use millrace_wire::tcp::Quoted;
use millrace_wire::{checksum, ipv6, protocol};

use crate::address::{Word, is_v4};
use crate::chain;
use crate::control::{Hop, IpFields, L4_V6};
use crate::fragmentation::{Body, IpHeader};
use crate::ip::{IpInfo, pseudo};
use crate::path_mtu::least;
use crate::stack::Stack;

impl Stack {
    /// A message; `fragments`: its packet had a fragment header.
    pub(crate) fn icmpv6_packet(&mut self, frame: Frame, ip: &IpInfo, fragments: bool) {
        // Of a message in several frames the first has all that is looked at.
        let bytes = &self.arena.bytes(frame)[ip.payload..];
        let Ok(packet) = Packet::parse(&bytes[..bytes.len().min(ip.len)]) else {
            self.counters.drop_icmp_malformed += 1;
            return;
        };
        // Always by summing: a reply is made from the request's checksum.
        let pseudo = ip.pseudo(protocol::ICMPV6, ip.len);
        if checksum::add(pseudo, self.chain_sum(frame, ip.payload, ip.len)) != 0xffff {
            self.counters.drop_icmp_malformed += 1;
            return;
        }
        if matches!(
            packet.message_type(),
            kind::LISTENER_QUERY..=kind::LISTENER_DONE | kind::LISTENER_REPORT_V2
        ) {
            return self.mld_packet(frame, ip);
        }
        if matches!(packet.message_type(), kind::ROUTER_SOLICITATION..=kind::REDIRECT) {
            // RFC 6980 §5: who guards the link's switches cannot see into fragments, so nobody
            // honest sends these messages in them.
            if fragments {
                self.counters.drop_ndp_fragment += 1;
                return;
            }
            return self.ndp_packet(frame, ip);
        }
        if !self.addresses.may_be_a_host(ip.source) {
            self.counters.drop_ip_source += 1;
            return;
        }
        let (quoted, hard) = match packet.kind() {
            Kind::EchoRequest { .. } => return self.echo_reply_v6(frame, ip, fragments),
            Kind::PacketTooBig { mtu, quote } => {
                return match (quoted_tcp(quote), quoted_udp(quote)) {
                    (Some(segment), _) => self.packet_too_big(segment, mtu),
                    (None, Some(datagram)) => self.datagram_too_big(datagram, mtu),
                    (None, None) => self.counters.drop_icmp_unrelated += 1,
                };
            }
            Kind::Unreachable { code, quote } => {
                if let Some((source, destination, ports)) = quoted_udp(quote) {
                    let port = code == unreachable::PORT;
                    return self.udp_icmp_error(source, destination, ports, port);
                }
                (quoted_tcp(quote), code == unreachable::PORT)
            }
            Kind::ParameterProblem { code: parameter::NEXT_HEADER, quote, .. } => {
                (quoted_tcp(quote), true)
            }
            Kind::TimeExceeded { quote, .. } => {
                return match quoted_tcp(quote) {
                    Some((source, destination, quoted)) => {
                        self.tcp_icmp_soft_error(source, destination, quoted);
                    }
                    None => self.counters.drop_icmp_unrelated += 1,
                };
            }
            _ => {
                self.counters.drop_icmp_ignored += 1;
                return;
            }
        };
        match quoted {
            Some((source, destination, quoted)) => {
                self.tcp_icmp_error(source, destination, quoted, hard);
            }
            None => self.counters.drop_icmp_unrelated += 1,
        }
    }

    /// A router tells the largest packet that gets through (RFC 8201), quoting a segment.
    fn packet_too_big(&mut self, (source, destination, quoted): (Word, Word, Quoted), mtu: u32) {
        let connection = self.quoted_connection(source, destination, quoted);
        if connection.is_none() {
            self.counters.drop_icmp_unrelated += 1;
            return;
        }
        self.counters.icmp_errors_taken += 1;
        self.path_mtu_reported(destination, mtu, connection);
    }

    /// The reply is the request with another type (RFC 4443 §4.2), from our own address if the
    /// request went to a group; its checksum is the request's, updated. `fragments`: the request
    /// came in them.
    fn echo_reply_v6(&mut self, request: Frame, ip: &IpInfo, fragments: bool) {
        let len = ip.len;
        // A reply to each member's address is what a flood with a forged source wants.
        if ip.many && !self.icmp_rate.take(&self.keys, self.now) {
            self.counters.drop_icmp_rate += 1;
            return;
        }
        let local = match ip.many {
            true => self
                .addresses
                .source(ip.source)
                .filter(|&local| self.addresses.find(self.addresses.word(local)).is_some()),
            false => Some(ip.local),
        };
        let Some(local) = local else {
            self.counters.drop_icmp_ignored += 1;
            return;
        };
        // The way back may be as narrow, and no router is believed who says so of a reply
        // ([`crate::large_datagrams`]).
        let most = if fragments { least(ip.source).into() } else { usize::MAX };
        let most = self.one_packet_to(ip.source).min(most);
        if ipv6::HEADER_LEN + len > most {
            return self.long_echo_reply_v6(request, ip, local, most);
        }
        let Some(frame) = self.control_frame() else { return };
        let ends = (local, ip.source);
        self.control_ip_header(frame, ends, protocol::ICMPV6, len, IpFields::default());
        self.arena.meta_mut(frame).len = ipv6::HEADER_LEN as u16;
        chain::append(&mut self.arena, frame, request, ip.payload, len);
        let source = self.addresses.word(local);
        let message = &mut self.control_room(frame)[L4_V6..L4_V6 + len];
        make_reply(message, ip.destination, source);
        self.counters.echo_replies += 1;
        self.control_packet(frame, L4_V6 + len, Hop::Mac(ip.mac));
    }

    /// A reply that leaves in fragments of `most` bytes, as the request came in them.
    fn long_echo_reply_v6(&mut self, request: Frame, ip: &IpInfo, local: u8, most: usize) {
        let bytes = &self.arena.bytes(request)[ip.payload..];
        let Some(mut header) = bytes.first_chunk::<{ icmpv6::HEADER_LEN }>().copied() else {
            return;
        };
        let source = self.addresses.word(local);
        make_reply(&mut header, ip.destination, source);
        let rest = Body::Chain { frame: request, start: ip.payload + icmpv6::HEADER_LEN };
        let len = ip.len - icmpv6::HEADER_LEN;
        let to = IpHeader::V6(ipv6::Header {
            source: Ipv6Addr::from_bits(source),
            destination: Ipv6Addr::from_bits(ip.source),
            next_header: protocol::ICMPV6,
            hop_limit: self.ip6.hop_limit,
            traffic_class: 0,
            flow_label: 0,
        });
        if self.send_fragments(to, (Hop::Mac(ip.mac), most), &header, rest, len) {
            self.counters.echo_replies += 1;
        }
    }

    /// A parameter problem at an offset from the IPv6 header on, whatever the packet went to.
    pub(crate) fn parameter_problem(
        &mut self,
        offending: Frame,
        ip: &IpInfo,
        code: u8,
        pointer: usize,
    ) {
        let ip = IpInfo { many: false, ..*ip };
        self.icmpv6_error(offending, &ip, kind::PARAMETER_PROBLEM, code, pointer as u32);
    }

    /// Says what is wrong with a packet, unless RFC 4443 §2.4 e forbids it: never about an error
    /// or a redirect, to nobody or to a group, and so many a second.
    pub(crate) fn icmpv6_error(
        &mut self,
        offending: Frame,
        ip: &IpInfo,
        number: u8,
        code: u8,
        word: u32,
    ) {
        let bytes = &self.arena.bytes(offending)[ip.start..];
        if ip.many || !self.addresses.may_be_a_host(ip.source) || is_error(bytes) {
            return;
        }
        // To a group that has an error to hear of, it comes from our own address.
        let local = match self.addresses.find(ip.destination) {
            Some(local) => Some(local),
            None => self
                .addresses
                .source(ip.source)
                .filter(|&local| self.addresses.find(self.addresses.word(local)).is_some()),
        };
        let Some(local) = local else { return };
        if !self.icmp_rate.take(&self.keys, self.now) {
            self.counters.drop_icmp_rate += 1;
            return;
        }
        let mut quote = [0u8; MAX_QUOTE];
        let bytes = &self.arena.bytes(offending)[ip.start..];
        let quote_len = (ip.payload - ip.start + ip.len).min(MAX_QUOTE).min(bytes.len());
        quote[..quote_len].copy_from_slice(&bytes[..quote_len]);
        let Some(frame) = self.control_frame() else { return };
        let room = &mut self.control_room(frame)[L4_V6..];
        let len = icmpv6::emit_error(room, number, code, word, &quote[..quote_len]);
        self.counters.icmp_errors_sent += 1;
        self.send_icmpv6(frame, local, ip.source, len, Hop::Mac(ip.mac));
    }

    /// Finishes and queues a message of `len` bytes that was written behind the IPv6 header.
    pub(crate) fn send_icmpv6(&mut self, frame: Frame, local: u8, to: Word, len: usize, hop: Hop) {
        self.control_ip_header(frame, (local, to), protocol::ICMPV6, len, IpFields::default());
        let pseudo = pseudo(self.addresses.word(local), to, protocol::ICMPV6, len);
        icmpv6::fill_checksum(&mut self.control_room(frame)[L4_V6..L4_V6 + len], pseudo);
        self.control_packet(frame, L4_V6 + len, hop);
    }
}

/// Makes a request the reply to it; `asked` is where the request went, `source` where the reply
/// comes from.
fn make_reply(message: &mut [u8], asked: Word, source: Word) {
    let field = u16::from_be_bytes([message[2], message[3]]);
    let request = u16::from(kind::ECHO_REQUEST) << 8;
    let field = checksum::update(field, request, u16::from(kind::ECHO_REPLY) << 8);
    // Source and destination change places, which a sum does not see, unless the request went to a
    // group.
    let (old, new) = (pseudo(0, asked, 0, 0), pseudo(0, source, 0, 0));
    message[0] = kind::ECHO_REPLY;
    message[2..4].copy_from_slice(&checksum::update(field, old, new).to_be_bytes());
}

/// Whether a packet is an ICMPv6 error or a redirect; one that cannot be told counts as one.
fn is_error(packet: &[u8]) -> bool {
    let Ok(packet) = ipv6::Packet::parse_cut(packet) else { return true };
    match packet.upper_layer() {
        Ok(upper) if upper.protocol == protocol::ICMPV6 => {
            upper.fragment.is_some_and(|fragment| fragment.offset > 0)
                || upper
                    .payload
                    .first()
                    .is_none_or(|&number| icmpv6::is_error(number) || number == kind::REDIRECT)
        }
        Ok(_) => false,
        // More extension headers than anybody walks.
        Err(_) => true,
    }
}

/// Source and destination of a quoted IPv6 header, and the ports of its UDP header.
fn quoted_udp(quote: &[u8]) -> Option<(Word, Word, [u8; 4])> {
    let (source, destination, upper) = quoted(quote, protocol::UDP)?;
    Some((source, destination, *upper.first_chunk()?))
}

/// Source and destination of a quoted IPv6 header, and what is left of its TCP header.
fn quoted_tcp(quote: &[u8]) -> Option<(Word, Word, Quoted)> {
    let (source, destination, upper) = quoted(quote, protocol::TCP)?;
    Some((source, destination, Quoted::parse(upper).ok()?))
}

/// Source and destination of a quoted IPv6 header, and what is left of the header behind it.
fn quoted(quote: &[u8], protocol: u8) -> Option<(Word, Word, &[u8])> {
    let packet = ipv6::Packet::parse_cut(quote).ok()?;
    let upper = packet.upper_layer().ok()?;
    if upper.protocol != protocol || upper.fragment.is_some_and(|one| one.offset > 0) {
        return None;
    }
    let (source, destination) = (packet.source().to_bits(), packet.destination().to_bits());
    // Addresses of IPv4 written as IPv6 are on no packet, but look like our IPv4 sockets' inside.
    let ours = !is_v4(source) && !is_v4(destination);
    ours.then_some((source, destination, upper.payload))
}
