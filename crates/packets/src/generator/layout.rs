//! Where in a frame the lengths and checksums are that have to be put right.

use millrace_wire::ether::EtherType;
use millrace_wire::{checksum, ipv4, ipv6, protocol};

/// What a frame's headers need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Where the IP header begins, and of which version.
    pub(super) ip: Option<(usize, Version)>,
    /// Where the header above IP begins, and its protocol; not of fragments.
    pub(super) transport: Option<(usize, u8)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// With a header of so many bytes.
    V4(usize),
    V6,
}

impl Layout {
    /// That of a frame; headers that cannot be read are left alone.
    pub(super) fn of(frame: &[u8]) -> Layout {
        let mut layout = Layout::default();
        let Some((at, ether_type)) = past_tags(frame) else { return layout };
        // Its lengths may not be written yet.
        let mut bytes = frame[at..].to_vec();
        let len = bytes.len().min(65_535);
        match ether_type {
            EtherType::IPV4 => put(&mut bytes, 2, len as u16),
            _ => put(&mut bytes, 4, len.saturating_sub(ipv6::HEADER_LEN) as u16),
        }
        let bytes = bytes.as_slice();
        match ether_type {
            EtherType::IPV4 => {
                let Ok(ip) = ipv4::Packet::parse_cut(bytes) else { return layout };
                layout.ip = Some((at, Version::V4(ip.header_len())));
                if !ip.is_fragment() {
                    layout.transport = Some((at + ip.header_len(), ip.protocol()));
                }
            }
            EtherType::IPV6 => {
                let Ok(ip) = ipv6::Packet::parse_cut(bytes) else { return layout };
                layout.ip = Some((at, Version::V6));
                if let Ok(upper) = ip.upper_layer()
                    && upper.fragment.is_none()
                {
                    layout.transport = Some((at + upper.offset, upper.protocol));
                }
            }
            _ => {}
        }
        layout
    }

    /// Writes the lengths of a frame all of whose bytes belong to the packet.
    #[inline]
    pub(super) fn write_lengths(&self, frame: &mut [u8]) {
        let Some((ip, version)) = self.ip else { return };
        let (at, len) = match version {
            Version::V4(_) => (ip + 2, frame.len() - ip),
            Version::V6 => (ip + 4, frame.len().saturating_sub(ip + ipv6::HEADER_LEN)),
        };
        put(frame, at, len as u16);
        if let Some((at, protocol::UDP)) = self.transport {
            let len = frame.len().saturating_sub(at);
            put(frame, at + 4, len as u16);
        }
    }

    /// Writes the checksums, of IPv4 and of what is above; those of a packet that is cut are left.
    #[inline]
    pub(super) fn write_checksums(&self, frame: &mut [u8]) {
        let Some((ip, version)) = self.ip else { return };
        let end = match version {
            Version::V4(header) => {
                let header = ip..ip + header;
                put(frame, ip + 10, 0);
                let sum = checksum::finish(checksum::sum(&frame[header]));
                put(frame, ip + 10, sum);
                ip + usize::from(get(frame, ip + 2))
            }
            Version::V6 => ip + ipv6::HEADER_LEN + usize::from(get(frame, ip + 4)),
        };
        let Some((at, protocol)) = self.transport else { return };
        if end > frame.len() || end < at {
            return;
        }
        let len = end - at;
        let field = match (protocol, version) {
            (protocol::TCP, _) => 16,
            (protocol::UDP, _) => 6,
            (protocol::ICMP, Version::V4(_)) | (protocol::ICMPV6, Version::V6) => 2,
            _ => return,
        };
        if field + 2 > len {
            return;
        }
        put(frame, at + field, 0);
        let pseudo = match (protocol, version) {
            (protocol::ICMP, _) => 0,
            (_, Version::V4(_)) => {
                let addresses = checksum::sum(&frame[ip + 12..ip + 20]);
                checksum::add(addresses, checksum::add(protocol.into(), len as u16))
            }
            (_, Version::V6) => {
                let addresses = checksum::sum(&frame[ip + 8..ip + 40]);
                checksum::add(addresses, checksum::add(protocol.into(), len as u16))
            }
        };
        let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&frame[at..end])));
        // Zero says of a datagram that it has none (RFC 768).
        put(frame, at + field, if sum == 0 && protocol == protocol::UDP { 0xffff } else { sum });
    }

    /// The least bytes that the headers take.
    pub(super) fn headers(&self) -> usize {
        match (self.transport, self.ip) {
            (Some((at, protocol::TCP)), _) => at + 20,
            (Some((at, _)), _) => at + 8,
            (None, Some((at, Version::V4(header)))) => at + header,
            (None, Some((at, Version::V6))) => at + ipv6::HEADER_LEN,
            (None, None) => 14,
        }
    }
}

/// Where what follows Ethernet and at most two tags begins, and what it is.
pub(super) fn past_tags(frame: &[u8]) -> Option<(usize, u16)> {
    let mut at = 12;
    loop {
        let ether_type = u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]);
        at += 2;
        if (ether_type != EtherType::VLAN && ether_type != EtherType::QINQ) || at > 20 {
            return Some((at, ether_type));
        }
        at += 2;
    }
}

#[inline]
fn put(frame: &mut [u8], at: usize, value: u16) {
    if let Some(to) = frame.get_mut(at..at + 2) {
        to.copy_from_slice(&value.to_be_bytes());
    }
}

#[inline]
fn get(frame: &[u8], at: usize) -> u16 {
    frame.get(at..at + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}
