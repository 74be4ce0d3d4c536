//! From a received frame to the protocol that takes it: Ethernet and IPv4 input.

use core::net::Ipv6Addr;

use millrace_frames::{ChecksumState, Frame};
use millrace_wire::mac::Mac;
use millrace_wire::{checksum, dhcpv4, ether, ipv4, protocol};

use crate::Stack;
use crate::address::{ANY_V4, Word, word_v4};

/// Source and destination port of what a DHCP server sends to a client.
const DHCP_PORTS: [u8; 4] = [0, dhcpv4::SERVER_PORT as u8, 0, dhcpv4::CLIENT_PORT as u8];

/// What the layers above need to know of an IP packet of either family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpInfo {
    pub(crate) source: Word,
    pub(crate) destination: Word,
    /// Number of our address that it came to.
    pub(crate) local: u8,
    /// Who sent the frame.
    pub(crate) mac: Mac,
    /// Where the IP header begins in the frame's bytes.
    pub(crate) start: usize,
    /// Where the IP payload begins.
    pub(crate) payload: usize,
    /// Bytes of the IP payload, over the whole chain.
    pub(crate) len: usize,
    /// It came to a broadcast or multicast address.
    pub(crate) many: bool,
}

impl IpInfo {
    /// Sum of the pseudo-header.
    #[inline]
    pub(crate) fn pseudo(&self, protocol: u8, len: usize) -> u16 {
        pseudo(self.source, self.destination, protocol, len)
    }
}

/// Sum of either family's pseudo-header: the 0xffff of an IPv4 address's word is one's
/// complement's other zero, and no such sum is zero.
#[inline]
pub(crate) fn pseudo(source: Word, destination: Word, protocol: u8, len: usize) -> u16 {
    let (source, destination) = (Ipv6Addr::from_bits(source), Ipv6Addr::from_bits(destination));
    checksum::pseudo_v6(source, destination, protocol, len)
}

impl Stack {
    /// Takes one received packet. Every way out either queues its frames or releases them.
    #[inline]
    pub(crate) fn packet(&mut self, frame: Frame) {
        if !self.common_packet(frame) && !self.common_packet_v6(frame) {
            self.general_packet(frame);
        }
    }

    fn general_packet(&mut self, frame: Frame) {
        let bytes = self.arena.bytes(frame);
        let Ok(ethernet) = ether::Frame::parse(bytes) else {
            self.counters.drop_ethernet_malformed += 1;
            return self.drop_chain(frame);
        };
        let destination = ethernet.destination();
        let source = ethernet.source();
        let many = destination.is_multicast();
        if source.is_multicast() {
            // No station has a group address; an answer would go to all of them.
            self.counters.drop_ethernet_malformed += 1;
            return self.drop_chain(frame);
        }
        if destination != self.config.mac && !many {
            self.counters.drop_ethernet_not_ours += 1;
            return self.drop_chain(frame);
        }
        let mut tags = ethernet.vlan().into_iter().chain(ethernet.inner_vlan());
        if tags.any(|tag| tag.vid != 0) {
            self.counters.drop_vlan += 1;
            return self.drop_chain(frame);
        }
        let start = ethernet.header_len();
        match ethernet.ether_type() {
            ether::EtherType::IPV4 => self.ipv4_packet(frame, source, start, many),
            ether::EtherType::ARP => {
                self.arp_packet(frame, start);
                self.drop_chain(frame);
            }
            ether::EtherType::IPV6 => self.ipv6_packet(frame, source, start, many),
            _ => {
                self.counters.drop_ether_type += 1;
                self.drop_chain(frame);
            }
        }
    }

    fn ipv4_packet(&mut self, frame: Frame, mac: Mac, start: usize, many: bool) {
        let meta = self.arena.meta(frame);
        let chain_len = if meta.next.is_none() { meta.len as usize } else { meta.total as usize };
        let (checksum, bytes) = (meta.checksum, &self.arena.bytes(frame)[start..]);
        let packet = match ipv4::Packet::parse_cut(bytes) {
            Ok(packet) if packet.total_len() <= chain_len - start => packet,
            _ => {
                self.counters.drop_ip_malformed += 1;
                return self.drop_chain(frame);
            }
        };
        // A packet that never left this machine may have been cut up or put together without a
        // new header checksum; those ports say so.
        if checksum != ChecksumState::Verified && !packet.verify_checksum() {
            self.counters.drop_ip_checksum += 1;
            return self.drop_chain(frame);
        }
        let (source, destination) = (packet.source(), packet.destination());
        let local = self.addresses.find(word_v4(destination));
        let broadcast = local.is_none()
            && if destination.is_multicast() {
                self.listens_to(word_v4(destination))
            } else {
                self.addresses.is_broadcast(destination)
            };
        let info = IpInfo {
            source: word_v4(source),
            destination: word_v4(destination),
            local: local.unwrap_or(0),
            mac,
            start,
            payload: start + packet.header_len(),
            len: packet.total_len() - packet.header_len(),
            many: many || broadcast,
        };
        let options = check_options(&packet);
        let (fragment, protocol) = (packet.is_fragment(), packet.protocol());
        // A server may send its answer to the address that it gives.
        let to_client = self.dhcp_waits()
            && protocol == protocol::UDP
            && !fragment
            && packet.payload().get(..4) == Some(&DHCP_PORTS[..]);
        if local.is_none() && !broadcast && !to_client {
            match destination.is_multicast() {
                true => self.counters.drop_multicast_not_joined += 1,
                false => self.counters.drop_ip_not_ours += 1,
            }
        } else if options != OptionsAre::Harmless {
            match options {
                OptionsAre::SourceRoute => self.counters.drop_ip_source_route += 1,
                _ => self.counters.drop_ip_malformed += 1,
            }
        } else if (fragment || protocol != protocol::TCP)
            && !self.addresses.may_be_a_host(info.source)
            // Routers, switches and hosts without an address speak IGMP (RFC 3376 §4.2.13).
            && !(protocol == protocol::IGMP && info.source == ANY_V4)
        {
            // TCP asks only for a source that has no connection yet.
            self.counters.drop_ip_source += 1;
        } else if fragment {
            return self.ipv4_fragment(frame, &info);
        } else {
            return self.ipv4_deliver(frame, &info, protocol);
        }
        self.drop_chain(frame);
    }

    /// Hands a whole packet to the protocol that it carries.
    pub(crate) fn ipv4_deliver(&mut self, frame: Frame, info: &IpInfo, protocol: u8) {
        match protocol {
            protocol::TCP => return self.tcp_packet(frame, info),
            protocol::UDP => return self.udp_packet(frame, info),
            protocol::ICMP => self.icmp_packet(frame, info),
            protocol::IGMP => self.igmp_packet(frame, info),
            _ => {
                self.counters.drop_ip_protocol += 1;
                self.icmp_unreachable(frame, info, millrace_wire::icmpv4::unreachable::PROTOCOL);
            }
        }
        self.drop_chain(frame);
    }

    /// Whether the transport checksum of `len` bytes from `start` on is right, by what the port knows
    /// of it or by summing. `bytes` are the first frame's; `field` is the checksum as it stands;
    /// `pseudo` the pseudo-header's sum with the length.
    #[inline(always)]
    pub(crate) fn checksum_holds(
        &self,
        frame: Frame,
        bytes: &[u8],
        start: usize,
        len: usize,
        field: u16,
        pseudo: u16,
    ) -> bool {
        match self.arena.meta(frame).checksum {
            ChecksumState::Verified | ChecksumState::Unfinished => true,
            ChecksumState::MaybeUnfinished if field == pseudo => true,
            ChecksumState::MaybeUnfinished | ChecksumState::Unknown => {
                // Nearly all packets lie in one frame.
                let sum = match bytes.get(start..start + len) {
                    Some(whole) => checksum::sum(whole),
                    None => self.chain_sum(frame, start, len),
                };
                checksum::add(pseudo, sum) == 0xffff
            }
        }
    }

    /// Sum of `len` bytes from `start` of the first frame on, over a chain.
    pub(crate) fn chain_sum(&self, frame: Frame, start: usize, len: usize) -> u16 {
        let first = &self.arena.bytes(frame)[start..];
        let mut summed = first.len().min(len);
        let mut sum = checksum::sum(&first[..summed]);
        let mut next = self.arena.meta(frame).next;
        while summed < len && next.is_some() {
            let bytes = self.arena.bytes(next);
            let part = bytes.len().min(len - summed);
            sum = checksum::concat(sum, summed, checksum::sum(&bytes[..part]));
            summed += part;
            next = self.arena.meta(next).next;
        }
        sum
    }
}

/// What an IPv4 header's options mean for its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OptionsAre {
    /// There are none, or none that a host has to heed.
    Harmless,
    /// The sender chose the way, and may not be who it says: nobody else could have answered it
    /// (RFC 7126 §4.3.5 and §4.4.5 drop it by default, as Linux does).
    SourceRoute,
    /// One says a length that it cannot have.
    Malformed,
}

#[inline]
fn check_options(packet: &ipv4::Packet<'_>) -> OptionsAre {
    match packet.options() {
        [] => OptionsAre::Harmless,
        _ => check_all_options(packet),
    }
}

#[cold]
fn check_all_options(packet: &ipv4::Packet<'_>) -> OptionsAre {
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    for option in packet.options_iter() {
        match option {
            Ok(option) if matches!(option.kind, LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE) => {
                return OptionsAre::SourceRoute;
            }
            Ok(_) => {}
            Err(_) => return OptionsAre::Malformed,
        }
    }
    OptionsAre::Harmless
}
