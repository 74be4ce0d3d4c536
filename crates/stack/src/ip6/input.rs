//! From an IPv6 packet to the protocol that takes it (RFC 8200).

use millrace_frames::Frame;
use millrace_wire::ipv6::extension::{FRAGMENT, NO_NEXT_HEADER};
use millrace_wire::mac::Mac;
use millrace_wire::{icmpv6, ipv6, protocol};

use super::extension::{Fault, walk};
use crate::ip::IpInfo;
use crate::multicast::leaves_the_host;
use crate::stack::Stack;

impl Stack {
    /// An IPv6 packet whose header is at `start` of the frame's bytes. Takes the frames.
    pub(crate) fn ipv6_packet(&mut self, frame: Frame, mac: Mac, start: usize, many: bool) {
        if !self.addresses.has_v6() && !self.config.ipv6.router_discovery {
            self.counters.drop_ipv6 += 1;
            return self.drop_chain(frame);
        }
        let meta = self.arena.meta(frame);
        let chain_len = if meta.next.is_none() { meta.len as usize } else { meta.total as usize };
        let packet = match ipv6::Packet::parse_cut(&self.arena.bytes(frame)[start..]) {
            Ok(packet) if ipv6::HEADER_LEN + packet.payload_len() <= chain_len - start => packet,
            _ => {
                self.counters.drop_ip_malformed += 1;
                return self.drop_chain(frame);
            }
        };
        let (source, destination) = (packet.source(), packet.destination());
        let (first, len) = (packet.next_header(), packet.payload_len());
        // Nobody has an address in ::/64: loopback, IPv4 written as IPv6 and the like. A packet
        // from nobody at all is one of neighbour discovery's.
        let nobody = source.is_unspecified();
        if source.is_multicast() || (source.to_bits() >> 64 == 0 && !nobody) {
            self.counters.drop_ip_source += 1;
            return self.drop_chain(frame);
        }
        let local = match destination.to_bits() {
            nowhere if nowhere >> 64 == 0 => None,
            destination => self.addresses.find(destination),
        };
        let group = destination.is_multicast()
            && leaves_the_host(destination.to_bits())
            && self.in_group_v6(destination);
        if local.is_none() && !group {
            match destination.is_multicast() {
                true => self.counters.drop_multicast_not_joined += 1,
                false => self.counters.drop_ip_not_ours += 1,
            }
            return self.drop_chain(frame);
        }
        let info = IpInfo {
            source: source.to_bits(),
            destination: destination.to_bits(),
            local: local.unwrap_or(0),
            mac,
            start,
            payload: start + ipv6::HEADER_LEN,
            len,
            many: many || group,
        };
        self.ipv6_payload(frame, &info, first, false);
    }

    /// The payload of a packet, `first` being the number of its first header; `fragments`: it came
    /// in fragments. Takes the frames.
    pub(crate) fn ipv6_payload(&mut self, frame: Frame, info: &IpInfo, first: u8, fragments: bool) {
        let bytes = &self.arena.bytes(frame)[info.payload..];
        let bytes = &bytes[..bytes.len().min(info.len)];
        let upper = match walk(first, bytes, info.payload - info.start, &self.config.ipv6) {
            Ok(upper) => upper,
            Err(Fault::Drop) => {
                self.counters.drop_ip_extension += 1;
                return self.drop_chain(frame);
            }
            Err(Fault::Problem { code, pointer, to_group }) => {
                self.counters.drop_ip_extension += 1;
                if !info.many || to_group {
                    self.parameter_problem(frame, info, code, pointer);
                }
                return self.drop_chain(frame);
            }
        };
        let info = IpInfo { payload: info.payload + upper.at, len: info.len - upper.at, ..*info };
        // TCP asks only for a source that has no connection yet, ICMPv6 by the message.
        if !matches!(upper.protocol, protocol::TCP | protocol::ICMPV6)
            && !self.addresses.may_be_a_host(info.source)
        {
            self.counters.drop_ip_source += 1;
            return self.drop_chain(frame);
        }
        match upper.protocol {
            protocol::TCP => return self.tcp_packet(frame, &info),
            protocol::UDP => return self.udp_packet(frame, &info),
            FRAGMENT => return self.fragment_v6(frame, &info),
            protocol::ICMPV6 => {
                self.icmpv6_packet(frame, &info, fragments || upper.fragment);
            }
            NO_NEXT_HEADER => self.counters.drop_ip_protocol += 1,
            _ => {
                self.counters.drop_ip_protocol += 1;
                if !info.many {
                    let code = icmpv6::parameter::NEXT_HEADER;
                    self.parameter_problem(frame, &info, code, upper.named_at);
                }
            }
        }
        self.drop_chain(frame);
    }
}
