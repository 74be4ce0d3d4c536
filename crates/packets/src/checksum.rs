//! Transport checksums that a sender on this machine has left unfinished.

use millrace_wire::ether::EtherType;
use millrace_wire::protocol;
use millrace_wire::{checksum, ipv4, ipv6};

use crate::flags;

/// Where an unfinished checksum is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where its sum starts: the transport header.
    pub(crate) start: u16,
    /// Where in that header its field is.
    pub(crate) offset: u16,
    /// Whether the packet is one of IPv6.
    pub(crate) ipv6: bool,
}

/// Where the transport checksum of a packet with these flags has to be finished before it leaves
/// this machine. `None`: it is finished.
#[inline]
pub(crate) fn unfinished(packet: &[u8], flags: u16) -> Option<Place> {
    if flags & (flags::CHECKSUM_UNFINISHED | flags::CHECKSUM_UNSURE) == 0 {
        return None;
    }
    let (place, pseudo) = locate(packet)?;
    let field = be16(packet, usize::from(place.start) + usize::from(place.offset))?;
    (flags & flags::CHECKSUM_UNFINISHED != 0 || field == pseudo).then_some(place)
}

/// The checksum's place of a whole TCP or UDP packet, and its pseudo-header's sum.
fn locate(packet: &[u8]) -> Option<(Place, u16)> {
    let mut at = 12;
    let mut ether_type = be16(packet, at)?;
    for _ in 0..2 {
        if ether_type != EtherType::VLAN && ether_type != EtherType::QINQ {
            break;
        }
        at += 4;
        ether_type = be16(packet, at)?;
    }
    let start = at + 2;
    let bytes = packet.get(start..)?;
    let offset = |protocol| match protocol {
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        _ => None,
    };
    match ether_type {
        EtherType::IPV4 => {
            let ip = ipv4::Packet::parse_cut(bytes).ok().filter(|ip| !ip.is_fragment())?;
            let len = ip.payload().len();
            let pseudo = checksum::pseudo_v4(ip.source(), ip.destination(), ip.protocol(), len);
            let start = u16::try_from(start + ip.header_len()).ok()?;
            Some((Place { start, offset: offset(ip.protocol())?, ipv6: false }, pseudo))
        }
        EtherType::IPV6 => {
            let ip = ipv6::Packet::parse_cut(bytes).ok()?;
            let upper = ip.upper_layer().ok().filter(|upper| upper.fragment.is_none())?;
            let len = upper.payload.len();
            let pseudo = checksum::pseudo_v6(ip.source(), ip.destination(), upper.protocol, len);
            let start = u16::try_from(start + upper.offset).ok()?;
            Some((Place { start, offset: offset(upper.protocol)?, ipv6: true }, pseudo))
        }
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
