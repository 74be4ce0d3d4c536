//! A row from a frame: TCP, UDP and ICMP over IPv4 or IPv6, with at most one VLAN tag and no IP
//! options, at fixed offsets; all else, and any doubt, the general way.

use millrace_wire::ether::EtherType;
use millrace_wire::protocol;

use super::{Header, general, hash};

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const ICMP_LEN: usize = 8;
/// The bits of IPv4's fragment field that a whole packet has not.
const FRAGMENT: u16 = 0x3fff;

/// Reads the headers of a frame that was `length` bytes long on the wire. Never fails: what cannot
/// be read stays 0.
#[inline]
pub fn parse(frame: &[u8], length: u32, timestamp: i64) -> Header {
    let mut header = Header::default();
    parse_into(&mut header, frame, length, timestamp);
    header
}

/// As [`parse`], into a row of zeros.
#[inline]
pub(crate) fn parse_into(header: &mut Header, frame: &[u8], length: u32, timestamp: i64) {
    (header.timestamp, header.length) = (timestamp, length);
    if !quick(frame, header) {
        *header = Header { timestamp, length, ..Header::default() };
        general::parse(frame, header);
    }
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

/// Both hardware addresses, in the lower 48 bits: (destination, source).
#[inline]
pub(super) fn macs(ethernet: &[u8; 14]) -> (u64, u64) {
    (be64(ethernet, 0) >> 16, be64(ethernet, 4) & 0xffff_ffff_ffff)
}

/// False, with the row half written, for a frame that is not of the common kind.
#[inline]
fn quick(frame: &[u8], header: &mut Header) -> bool {
    let Some((ethernet, mut rest)) = frame.split_first_chunk::<14>() else { return false };
    (header.destination_mac, header.source_mac) = macs(ethernet);
    header.ether_type = be16(ethernet, 12);
    let mut at = 14;
    if header.ether_type == EtherType::VLAN {
        let Some((tag, after)) = rest.split_first_chunk::<4>() else { return false };
        header.vlan = be16(tag, 0) & 0x0fff;
        header.vlan_tags = 1;
        header.ether_type = be16(tag, 2);
        (rest, at) = (after, 18);
    }
    header.l3_offset = at as u16;
    let (payload, l3_len) = match header.ether_type {
        EtherType::IPV4 => {
            let Some((ip, rest)) = rest.split_first_chunk::<IPV4_LEN>() else { return false };
            let total = usize::from(be16(ip, 2));
            if ip[0] != 0x45 || total < IPV4_LEN || be16(ip, 6) & FRAGMENT != 0 {
                return false;
            }
            header.ip_version = 4;
            header.traffic_class = ip[1];
            header.ttl = ip[8];
            header.protocol = ip[9];
            header.source_ipv4 = be32(ip, 12);
            header.destination_ipv4 = be32(ip, 16);
            (&rest[..rest.len().min(total - IPV4_LEN)], IPV4_LEN)
        }
        EtherType::IPV6 => {
            let Some((ip, rest)) = rest.split_first_chunk::<IPV6_LEN>() else { return false };
            if ip[0] >> 4 != 6 {
                return false;
            }
            header.ip_version = 6;
            header.traffic_class = ip[0] << 4 | ip[1] >> 4;
            header.protocol = ip[6];
            header.ttl = ip[7];
            header.source_ipv6_high = be64(ip, 8);
            header.source_ipv6_low = be64(ip, 16);
            header.destination_ipv6_high = be64(ip, 24);
            header.destination_ipv6_low = be64(ip, 32);
            (&rest[..rest.len().min(be16(ip, 4).into())], IPV6_LEN)
        }
        _ => return false,
    };
    at += l3_len;
    let l4_len = match header.protocol {
        protocol::TCP => {
            let Some(tcp) = payload.first_chunk::<TCP_LEN>() else { return false };
            let len = usize::from(tcp[12] >> 4) * 4;
            if len < TCP_LEN || len > payload.len() {
                return false;
            }
            header.source_port = be16(tcp, 0);
            header.destination_port = be16(tcp, 2);
            header.tcp_seq = be32(tcp, 4);
            header.tcp_ack = be32(tcp, 8);
            header.tcp_flags = be16(tcp, 12) & 0x01ff;
            header.tcp_window = be16(tcp, 14);
            len
        }
        protocol::UDP => {
            let Some(udp) = payload.first_chunk::<UDP_LEN>() else { return false };
            header.source_port = be16(udp, 0);
            header.destination_port = be16(udp, 2);
            UDP_LEN
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let Some(icmp) = payload.first_chunk::<ICMP_LEN>() else { return false };
            [header.icmp_type, header.icmp_code] = [icmp[0], icmp[1]];
            ICMP_LEN
        }
        _ => return false,
    };
    header.l4_offset = at as u32;
    header.payload_offset = (at + l4_len) as u32;
    header.payload_length = (payload.len() - l4_len) as u32;
    header.flow_hash = hash::flow(header);
    true
}
