//! What a whole frame says at one glance: for steering, filters and captures.

use core::net::IpAddr;

use crate::ether::EtherType;
use crate::tcp::{Flags, Segment};
use crate::vlan::Tag;
use crate::{arp, ether, ipv4, ipv6, protocol, toeplitz};

/// The addresses, ports and offsets of a frame, as far as it could be read.
///
/// Reading never fails: a frame that is cut, malformed or of a protocol that is not known leaves
/// the rest at `None` or 0. Lengths count what is there, not what headers promise, so a capture's
/// cut frames are read too. Whoever must reject malformed packets uses the parsers instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// EtherType after the VLAN tags; 0 if there is no whole Ethernet header.
    pub ether_type: u16,
    /// The outer VLAN tag.
    pub vlan: Option<Tag>,
    /// The inner VLAN tag.
    pub inner_vlan: Option<Tag>,
    /// 4 or 6, and 0 without a readable IP header.
    pub ip_version: u8,
    /// The sender's address: of IP, or of the sender in an ARP packet.
    pub source: Option<IpAddr>,
    /// The receiver's address: of IP, or of the target in an ARP packet.
    pub destination: Option<IpAddr>,
    /// The protocol above IP, past IPv6's extension headers.
    pub protocol: Option<u8>,
    /// The sender's port, of TCP and UDP.
    pub source_port: Option<u16>,
    /// The receiver's port, of TCP and UDP.
    pub destination_port: Option<u16>,
    /// The control bits, of TCP.
    pub tcp_flags: Option<Flags>,
    /// True for each fragment of an IP packet, the first one included.
    pub is_fragment: bool,
    /// Offset of what follows the Ethernet header and its tags.
    pub l3_offset: Option<usize>,
    /// Offset of the header above IP; none in fragments other than the first.
    pub l4_offset: Option<usize>,
    /// Offset of the innermost payload: of TCP, UDP or ICMP if their header could be read, else of
    /// the last header that could.
    pub payload_offset: usize,
    /// Length of that payload, without link padding.
    pub payload_len: usize,
}

impl Flow {
    /// Reads a whole Ethernet frame.
    #[inline]
    pub fn parse(frame: &[u8]) -> Self {
        let mut flow = Self { payload_len: frame.len(), ..Self::default() };
        let Ok(ethernet) = ether::Frame::parse(frame) else {
            return flow;
        };
        flow.ether_type = ethernet.ether_type();
        flow.vlan = ethernet.vlan();
        flow.inner_vlan = ethernet.inner_vlan();
        flow.l3_offset = Some(ethernet.header_len());
        flow.payload_offset = ethernet.header_len();
        flow.payload_len = ethernet.payload().len();
        match flow.ether_type {
            EtherType::IPV4 => flow.read_ipv4(ethernet.payload()),
            EtherType::IPV6 => flow.read_ipv6(ethernet.payload()),
            EtherType::ARP => flow.read_arp(ethernet.payload()),
            _ => {}
        }
        flow
    }

    /// The RSS hash of addresses and ports, or of addresses alone where there are no ports, as in
    /// fragments; `None` if this is not IP.
    #[inline]
    pub fn rss_hash(&self, hasher: &toeplitz::Hasher) -> Option<u32> {
        if self.ip_version == 0 {
            return None;
        }
        let ports = match (self.source_port, self.destination_port) {
            (Some(source), Some(destination)) if !self.is_fragment => Some((source, destination)),
            _ => None,
        };
        match (self.source?, self.destination?, ports) {
            (IpAddr::V4(a), IpAddr::V4(b), Some((from, to))) => {
                Some(hasher.hash_v4(a, b, from, to))
            }
            (IpAddr::V4(a), IpAddr::V4(b), None) => Some(hasher.hash_v4_addresses(a, b)),
            (IpAddr::V6(a), IpAddr::V6(b), Some((from, to))) => {
                Some(hasher.hash_v6(a, b, from, to))
            }
            (IpAddr::V6(a), IpAddr::V6(b), None) => Some(hasher.hash_v6_addresses(a, b)),
            _ => None,
        }
    }

    #[inline]
    fn read_arp(&mut self, bytes: &[u8]) {
        if let Ok(packet) = arp::Packet::parse(bytes) {
            self.source = Some(packet.sender_ip().into());
            self.destination = Some(packet.target_ip().into());
            self.payload_offset += arp::LEN;
            self.payload_len = 0;
        }
    }

    #[inline]
    fn read_ipv4(&mut self, bytes: &[u8]) {
        let Ok(packet) = ipv4::Packet::parse_cut(bytes) else {
            return;
        };
        self.ip_version = 4;
        self.source = Some(packet.source().into());
        self.destination = Some(packet.destination().into());
        self.protocol = Some(packet.protocol());
        self.is_fragment = packet.is_fragment();
        self.payload_offset += packet.header_len();
        self.payload_len = packet.payload().len();
        if packet.fragment_offset() == 0 {
            self.read_upper(packet.protocol(), packet.payload());
        }
    }

    #[inline]
    fn read_ipv6(&mut self, bytes: &[u8]) {
        let Ok(packet) = ipv6::Packet::parse_cut(bytes) else {
            return;
        };
        self.ip_version = 6;
        self.source = Some(packet.source().into());
        self.destination = Some(packet.destination().into());
        let Ok(upper) = packet.upper_layer() else {
            self.payload_offset += ipv6::HEADER_LEN;
            self.payload_len = packet.payload().len();
            return;
        };
        self.protocol = Some(upper.protocol);
        self.is_fragment = upper.fragment.is_some();
        self.payload_offset += upper.offset;
        self.payload_len = upper.payload.len();
        if upper.fragment.is_none_or(|fragment| fragment.offset == 0) {
            self.read_upper(upper.protocol, upper.payload);
        }
    }

    #[inline]
    fn read_upper(&mut self, protocol: u8, bytes: &[u8]) {
        self.l4_offset = Some(self.payload_offset);
        let header_len = match protocol {
            protocol::TCP => {
                self.read_ports(bytes);
                let Ok(segment) = Segment::parse(bytes) else {
                    return;
                };
                self.tcp_flags = Some(segment.flags());
                segment.header_len()
            }
            protocol::UDP => {
                self.read_ports(bytes);
                crate::udp::HEADER_LEN
            }
            protocol::ICMP | protocol::ICMPV6 => crate::icmpv4::HEADER_LEN,
            _ => return,
        };
        if let Some(payload_len) = self.payload_len.checked_sub(header_len) {
            self.payload_offset += header_len;
            self.payload_len = payload_len;
        }
    }

    /// The ports are the first four bytes of TCP and of UDP, there even if the rest is cut off.
    #[inline]
    fn read_ports(&mut self, bytes: &[u8]) {
        if let Some(&[a, b, c, d]) = bytes.first_chunk() {
            self.source_port = Some(u16::from_be_bytes([a, b]));
            self.destination_port = Some(u16::from_be_bytes([c, d]));
        }
    }
}
