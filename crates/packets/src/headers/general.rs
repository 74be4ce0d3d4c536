//! A row from any frame, by the parsers of `wire`.

use core::net::IpAddr;

use millrace_wire::flow::Flow;
use millrace_wire::{ipv4, ipv6, protocol, tcp};

use super::parse::macs;
use super::{Header, hash};

/// Reads what there is into a row whose timestamp and length are set.
#[cold]
#[inline(never)]
pub(super) fn parse(frame: &[u8], header: &mut Header) {
    if let Some(ethernet) = frame.first_chunk() {
        (header.destination_mac, header.source_mac) = macs(ethernet);
    }
    let flow = Flow::parse(frame);
    header.ether_type = flow.ether_type;
    header.vlan = flow.vlan.map_or(0, |tag| tag.vid);
    header.inner_vlan = flow.inner_vlan.map_or(0, |tag| tag.vid);
    header.vlan_tags = u8::from(flow.vlan.is_some()) + u8::from(flow.inner_vlan.is_some());
    header.l3_offset = flow.l3_offset.unwrap_or(0) as u16;
    header.ip_version = flow.ip_version;
    header.protocol = flow.protocol.unwrap_or(0);
    header.fragment = flow.is_fragment;
    header.source_port = flow.source_port.unwrap_or(0);
    header.destination_port = flow.destination_port.unwrap_or(0);
    header.l4_offset = flow.l4_offset.unwrap_or(0) as u32;
    header.payload_offset = flow.payload_offset as u32;
    header.payload_length = flow.payload_len as u32;
    match flow.source {
        Some(IpAddr::V4(address)) => header.source_ipv4 = address.to_bits(),
        Some(IpAddr::V6(address)) => {
            let bits = address.to_bits();
            (header.source_ipv6_high, header.source_ipv6_low) = ((bits >> 64) as u64, bits as u64);
        }
        None => {}
    }
    match flow.destination {
        Some(IpAddr::V4(address)) => header.destination_ipv4 = address.to_bits(),
        Some(IpAddr::V6(address)) => {
            let bits = address.to_bits();
            (header.destination_ipv6_high, header.destination_ipv6_low) =
                ((bits >> 64) as u64, bits as u64);
        }
        None => {}
    }
    let from = |at: Option<usize>| at.and_then(|at| frame.get(at..)).unwrap_or_default();
    let l3 = from(flow.l3_offset);
    match flow.ip_version {
        4 => {
            if let Ok(packet) = ipv4::Packet::parse_cut(l3) {
                (header.traffic_class, header.ttl) = (packet.tos(), packet.ttl());
            }
        }
        6 => {
            if let Ok(packet) = ipv6::Packet::parse_cut(l3) {
                (header.traffic_class, header.ttl) = (packet.traffic_class(), packet.hop_limit());
            }
        }
        _ => return,
    }
    // To the end of the IP packet: what comes behind is padding.
    let l4 = from(flow.l4_offset);
    let end = (flow.payload_offset + flow.payload_len).saturating_sub(header.l4_offset as usize);
    let l4 = &l4[..l4.len().min(end)];
    match header.protocol {
        protocol::TCP => {
            if let Ok(segment) = tcp::Segment::parse(l4) {
                header.tcp_seq = segment.sequence().0;
                header.tcp_ack = segment.acknowledgement().0;
                header.tcp_flags = u16::from(segment.flags().0) | u16::from(segment.ae()) << 8;
                header.tcp_window = segment.window();
            }
        }
        protocol::ICMP | protocol::ICMPV6 => {
            if let Some(&[kind, code, ..]) = l4.first_chunk::<8>() {
                (header.icmp_type, header.icmp_code) = (kind, code);
            }
        }
        _ => {}
    }
    header.flow_hash = hash::flow(header);
}
