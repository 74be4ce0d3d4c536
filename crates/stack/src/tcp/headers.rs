//! The headers of a connection's segments: Ethernet, IPv4 or IPv6, and TCP, written in one go.
//!
//! Every field is in a register when it is written, so both checksums are summed from the values
//! and not by reading the bytes back.

use millrace_wire::checksum::{add, finish};
use millrace_wire::ether::EtherType;
use millrace_wire::mac::Mac;
use millrace_wire::protocol;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{self, Flags as Bits};

use crate::address::Word;
use crate::control::{L4, L4_V6};
use crate::hash::Keys;

/// Bytes of the three headers with IPv4, without TCP options.
pub(crate) const LEN: usize = L4 + tcp::HEADER_LEN;
/// The same with IPv6.
pub(crate) const LEN_V6: usize = L4_V6 + tcp::HEADER_LEN;

/// A packet that must not be fragmented needs no identification (RFC 6864 §4.1).
pub(crate) const DONT_FRAGMENT: u32 = 0x4000;

/// What the three headers say. The IPv4 header has no options; the IPv6 header has no extensions.
pub(crate) struct Headers {
    pub(crate) destination_mac: Mac,
    pub(crate) source_mac: Mac,
    pub(crate) source: Word,
    pub(crate) destination: Word,
    /// Sum of both addresses.
    pub(crate) address_sum: u16,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    pub(crate) bits: Bits,
    /// The ECN codepoint in the lower two bits, and AE in the third.
    pub(crate) ecn: u8,
    /// Type of service or traffic class, without its two ECN bits.
    pub(crate) class: u8,
    /// Time to live or hop limit.
    pub(crate) hop_limit: u8,
    /// Identification, flags and fragment offset of IPv4: [`DONT_FRAGMENT`], or the identification
    /// of a packet that may be fragmented.
    pub(crate) fragments: u32,
    pub(crate) window: u16,
    /// Bytes and sum of the TCP options behind the headers; the sum need not be folded.
    pub(crate) options: (u16, u32),
    /// Bytes of TCP header, options and payload.
    pub(crate) transport_len: u16,
    /// Sum of the payload; `None`: the port finishes the checksum.
    pub(crate) payload_sum: Option<u16>,
}

impl Headers {
    #[inline]
    pub(crate) fn write_v4(&self, room: &mut [u8; LEN]) {
        const VERSION_AND_LENGTH: u16 = 0x4500;
        room[0..6].copy_from_slice(&self.destination_mac.0);
        room[6..12].copy_from_slice(&self.source_mac.0);
        room[12..14].copy_from_slice(&EtherType::IPV4.to_be_bytes());

        let total_len = self.transport_len + 20;
        let first = VERSION_AND_LENGTH | u16::from(self.class | self.ecn & 0b11);
        let ttl_and_tcp = u16::from(self.hop_limit) << 8 | u16::from(protocol::TCP);
        let fixed = u32::from(first)
            + (self.fragments >> 16)
            + (self.fragments & 0xffff)
            + u32::from(ttl_and_tcp)
            + u32::from(total_len)
            + u32::from(self.address_sum);
        room[14..16].copy_from_slice(&first.to_be_bytes());
        room[16..18].copy_from_slice(&total_len.to_be_bytes());
        room[18..22].copy_from_slice(&self.fragments.to_be_bytes());
        room[22..24].copy_from_slice(&ttl_and_tcp.to_be_bytes());
        room[24..26].copy_from_slice(&finish(fold(fixed)).to_be_bytes());
        room[26..30].copy_from_slice(&(self.source as u32).to_be_bytes());
        room[30..34].copy_from_slice(&(self.destination as u32).to_be_bytes());
        if let Some(transport) = room.last_chunk_mut() {
            self.write_transport(transport);
        }
    }

    #[inline]
    pub(crate) fn write_v6(&self, room: &mut [u8; LEN_V6], flow_label: u32) {
        const VERSION: u32 = 6 << 28;
        let traffic_class = u32::from(self.class | self.ecn & 0b11);
        room[0..6].copy_from_slice(&self.destination_mac.0);
        room[6..12].copy_from_slice(&self.source_mac.0);
        room[12..14].copy_from_slice(&EtherType::IPV6.to_be_bytes());
        room[14..18].copy_from_slice(
            &(VERSION | traffic_class << 20 | (flow_label & 0xf_ffff)).to_be_bytes(),
        );
        room[18..20].copy_from_slice(&self.transport_len.to_be_bytes());
        room[20..22].copy_from_slice(&[protocol::TCP, self.hop_limit]);
        room[22..38].copy_from_slice(&self.source.to_be_bytes());
        room[38..54].copy_from_slice(&self.destination.to_be_bytes());
        if let Some(transport) = room.last_chunk_mut() {
            self.write_transport(transport);
        }
    }

    /// Tells routers one flow from another, and nobody anything else (RFC 6437 §3).
    #[inline]
    pub(crate) fn flow_label(&self, keys: &Keys) -> u32 {
        keys.flow_label(
            u64::from(self.address_sum) << 32
                | u64::from(self.source_port) << 16
                | u64::from(self.destination_port),
        )
    }

    #[inline]
    fn write_transport(&self, room: &mut [u8; tcp::HEADER_LEN]) {
        let offset_and_flags = (tcp::HEADER_LEN as u16 + self.options.0) << 10
            | u16::from(self.ecn & 0b100) << 6
            | u16::from(self.bits.0);
        let pseudo =
            u32::from(self.address_sum) + u32::from(protocol::TCP) + u32::from(self.transport_len);
        let field = match self.payload_sum {
            None => fold(pseudo),
            Some(payload) => {
                let header = u32::from(self.source_port)
                    + u32::from(self.destination_port)
                    + (self.seq.0 >> 16)
                    + (self.seq.0 & 0xffff)
                    + (self.ack.0 >> 16)
                    + (self.ack.0 & 0xffff)
                    + u32::from(offset_and_flags)
                    + u32::from(self.window)
                    + self.options.1;
                finish(add(fold(pseudo + header), payload))
            }
        };
        room[0..2].copy_from_slice(&self.source_port.to_be_bytes());
        room[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        room[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        room[8..12].copy_from_slice(&self.ack.0.to_be_bytes());
        room[12..14].copy_from_slice(&offset_and_flags.to_be_bytes());
        room[14..16].copy_from_slice(&self.window.to_be_bytes());
        room[16..18].copy_from_slice(&field.to_be_bytes());
        room[18..20].copy_from_slice(&[0; 2]);
    }
}

#[inline]
pub(crate) fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{address, word_v4};
    use crate::ip::pseudo;
    use core::net::{IpAddr, Ipv4Addr};
    use millrace_wire::{checksum, ether, ipv4, ipv6};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parsers_agree(
            addresses: (Option<u128>, u128),
            ports: (u16, u16),
            numbers: (u32, u32),
            bits: u8,
            ecn in 0u8..8,
            class in (0u8..64).prop_map(|class| class << 2),
            hop_limit: u8,
            identification: Option<u16>,
            window: u16,
            flow_label in 0u32..1 << 20,
            options in prop::collection::vec(any::<u8>(), 0..10).prop_map(|mut o| {
                o.truncate(o.len() / 4 * 4);
                o
            }),
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let (source, destination) = match addresses {
                (Some(source), destination) => (source | 1 << 127, destination | 1 << 127),
                (None, bits) => (
                    word_v4(Ipv4Addr::from_bits(bits as u32)),
                    word_v4(Ipv4Addr::from_bits((bits >> 32) as u32)),
                ),
            };
            let headers = Headers {
                destination_mac: Mac([1; 6]),
                source_mac: Mac([2; 6]),
                source,
                destination,
                address_sum: pseudo(source, destination, 0, 0),
                source_port: ports.0,
                destination_port: ports.1,
                seq: Seq(numbers.0),
                ack: Seq(numbers.1),
                bits: Bits(bits),
                ecn,
                class,
                hop_limit,
                fragments: identification.map_or(DONT_FRAGMENT, |id| u32::from(id) << 16),
                window,
                options: (options.len() as u16, checksum::sum(&options).into()),
                transport_len: (20 + options.len() + payload.len()) as u16,
                payload_sum: Some(checksum::sum(&payload)),
            };
            let v6 = addresses.0.is_some();
            let mut bytes = vec![0u8; if v6 { LEN_V6 } else { LEN }];
            match bytes.first_chunk_mut() {
                Some(room) if v6 => headers.write_v6(room, flow_label),
                _ => headers.write_v4(bytes.first_chunk_mut().unwrap()),
            }
            bytes.extend_from_slice(&options);
            bytes.extend_from_slice(&payload);
            let frame = ether::Frame::parse(&bytes).unwrap();
            prop_assert_eq!((frame.destination(), frame.source()), (Mac([1; 6]), Mac([2; 6])));
            let transport = if v6 {
                let packet = ipv6::Packet::parse(frame.payload()).unwrap();
                prop_assert_eq!(IpAddr::V6(packet.source()), address(source));
                prop_assert_eq!(IpAddr::V6(packet.destination()), address(destination));
                prop_assert_eq!((packet.hop_limit(), packet.flow_label()), (hop_limit, flow_label));
                prop_assert_eq!(packet.traffic_class(), class | ecn & 3);
                prop_assert_eq!(packet.next_header(), protocol::TCP);
                packet.payload()
            } else {
                let packet = ipv4::Packet::parse(frame.payload()).unwrap();
                prop_assert!(packet.verify_checksum());
                prop_assert_eq!(IpAddr::V4(packet.source()), address(source));
                prop_assert_eq!(IpAddr::V4(packet.destination()), address(destination));
                prop_assert_eq!(packet.dont_fragment(), identification.is_none());
                prop_assert_eq!(packet.identification(), identification.unwrap_or(0));
                prop_assert_eq!(packet.ttl(), hop_limit);
                prop_assert_eq!(packet.tos(), class | ecn & 3);
                packet.payload()
            };
            let segment = tcp::Segment::parse(transport).unwrap();
            let pseudo = pseudo(source, destination, protocol::TCP, transport.len());
            prop_assert!(segment.verify_checksum(pseudo));
            prop_assert_eq!((segment.source_port(), segment.destination_port()), ports);
            prop_assert_eq!((segment.sequence().0, segment.acknowledgement().0), numbers);
            prop_assert_eq!((segment.flags().0, segment.window()), (bits, window));
            prop_assert_eq!(segment.ae(), ecn & 4 != 0);
            prop_assert_eq!(segment.options_bytes(), &options[..]);
            prop_assert_eq!(segment.payload(), &payload[..]);
        }
    }
}
