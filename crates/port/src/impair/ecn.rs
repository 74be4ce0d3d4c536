//! Congestion Experienced, set as a router does (RFC 3168 §5).

use millrace_wire::ether::{self, EtherType};
use millrace_wire::{checksum, ipv4, ipv6};

/// The two bits of the ECN field, both set: Congestion Experienced.
const CE: u8 = 0b11;

/// Marks the IP packet of an Ethernet frame if its transport can take it: ECT(0), ECT(1), or marked
/// already. Returns whether it is marked now.
pub(super) fn mark(frame: &mut [u8]) -> bool {
    let Ok(parsed) = ether::Frame::parse(frame) else { return false };
    let (ether_type, start) = (parsed.ether_type(), parsed.header_len());
    let packet = &mut frame[start..];
    match ether_type {
        EtherType::IPV4 if packet.len() >= ipv4::HEADER_LEN => {
            if packet[1] & CE == 0 {
                return false;
            }
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] |= CE;
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            let at = ipv4::CHECKSUM_OFFSET;
            let sum = u16::from_be_bytes([packet[at], packet[at + 1]]);
            let sum = checksum::update(sum, old, new);
            packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            true
        }
        EtherType::IPV6 if packet.len() >= ipv6::HEADER_LEN => {
            // The traffic class lies across the first two bytes, its ECN bits in the second.
            if packet[1] >> 4 & CE == 0 {
                return false;
            }
            packet[1] |= CE << 4;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use millrace_wire::{Mac, protocol};

    use super::*;

    fn v4(tos: u8) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 8];
        ether::emit(&mut frame, Mac([2; 6]), Mac([4; 6]), EtherType::IPV4);
        let header = ipv4::Header {
            source: Ipv4Addr::new(192, 0, 2, 1),
            destination: Ipv4Addr::new(192, 0, 2, 2),
            protocol: protocol::UDP,
            ttl: 64,
            tos,
            identification: 7,
            dont_fragment: true,
        };
        header.emit(&mut frame[14..], 8);
        frame
    }

    #[test]
    fn a_capable_ipv4_packet_is_marked_and_its_checksum_stays_right() {
        for ecn in 1..=3 {
            let mut frame = v4(0xa8 | ecn);
            assert!(mark(&mut frame));
            let packet = ipv4::Packet::parse(&frame[14..]).unwrap();
            assert_eq!((packet.ecn(), packet.tos()), (3, 0xab));
            assert!(packet.verify_checksum());
        }
    }

    #[test]
    fn a_packet_that_cannot_take_it_is_left_alone() {
        let mut frame = v4(0xa8);
        let before = frame.clone();
        assert!(!mark(&mut frame));
        assert_eq!(frame, before);
        for cut in 0..34 {
            assert!(!mark(&mut v4(1)[..cut]), "{cut}");
        }
        assert!(!mark(&mut [0xff; 60]));
    }

    #[test]
    fn ipv6_has_it_in_the_traffic_class() {
        let mut frame = vec![0; 14 + 40];
        ether::emit(&mut frame, Mac([2; 6]), Mac([4; 6]), EtherType::IPV6);
        let header = ipv6::Header {
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::LOCALHOST,
            next_header: protocol::UDP,
            hop_limit: 64,
            traffic_class: 0xa9,
            flow_label: 0x12345,
        };
        header.emit(&mut frame[14..], 0);
        assert!(mark(&mut frame));
        let packet = ipv6::Packet::parse(&frame[14..]).unwrap();
        assert_eq!((packet.traffic_class(), packet.flow_label()), (0xab, 0x12345));
    }
}
