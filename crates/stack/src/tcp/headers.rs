//! The headers of a connection's segments: Ethernet, IPv4 and TCP, written in one go.
//!
//! Every field is in a register when it is written, so both checksums are summed from the values
//! and not by reading the bytes back.

use millrace_wire::checksum::{add, finish};
use millrace_wire::ether::EtherType;
use millrace_wire::mac::Mac;
use millrace_wire::protocol;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{self, Flags as Bits};

use crate::control::L4;

/// Bytes of the three headers without TCP options.
pub(crate) const LEN: usize = L4 + tcp::HEADER_LEN;

/// What the three headers say. The IPv4 header has no options, no identification, and forbids
/// fragmentation (RFC 6864 §4.1).
pub(crate) struct Headers {
    pub(crate) destination_mac: Mac,
    pub(crate) source_mac: Mac,
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
    /// Sum of both addresses.
    pub(crate) address_sum: u16,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    pub(crate) bits: Bits,
    pub(crate) window: u16,
    /// Bytes and sum of the TCP options behind the headers.
    pub(crate) options: (u16, u16),
    /// Bytes of TCP header, options and payload.
    pub(crate) transport_len: u16,
    /// Sum of the payload; `None`: the port finishes the checksum.
    pub(crate) payload_sum: Option<u16>,
}

impl Headers {
    #[inline]
    pub(crate) fn write(&self, room: &mut [u8; LEN]) {
        const VERSION_AND_LENGTH: u16 = 0x4500;
        const DONT_FRAGMENT: u16 = 0x4000;
        const TTL_AND_TCP: u16 = 64 << 8 | protocol::TCP as u16;
        room[0..6].copy_from_slice(&self.destination_mac.0);
        room[6..12].copy_from_slice(&self.source_mac.0);
        room[12..14].copy_from_slice(&EtherType::IPV4.to_be_bytes());

        let total_len = self.transport_len + 20;
        let fixed = u32::from(VERSION_AND_LENGTH)
            + u32::from(DONT_FRAGMENT)
            + u32::from(TTL_AND_TCP)
            + u32::from(total_len)
            + u32::from(self.address_sum);
        room[14..16].copy_from_slice(&VERSION_AND_LENGTH.to_be_bytes());
        room[16..18].copy_from_slice(&total_len.to_be_bytes());
        room[18..20].copy_from_slice(&[0; 2]);
        room[20..22].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
        room[22..24].copy_from_slice(&TTL_AND_TCP.to_be_bytes());
        room[24..26].copy_from_slice(&finish(fold(fixed)).to_be_bytes());
        room[26..30].copy_from_slice(&self.source);
        room[30..34].copy_from_slice(&self.destination);

        let offset_and_flags =
            (tcp::HEADER_LEN as u16 + self.options.0) << 10 | u16::from(self.bits.0);
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
                    + u32::from(self.options.1);
                finish(add(fold(pseudo + header), payload))
            }
        };
        room[34..36].copy_from_slice(&self.source_port.to_be_bytes());
        room[36..38].copy_from_slice(&self.destination_port.to_be_bytes());
        room[38..42].copy_from_slice(&self.seq.0.to_be_bytes());
        room[42..46].copy_from_slice(&self.ack.0.to_be_bytes());
        room[46..48].copy_from_slice(&offset_and_flags.to_be_bytes());
        room[48..50].copy_from_slice(&self.window.to_be_bytes());
        room[50..52].copy_from_slice(&field.to_be_bytes());
        room[52..54].copy_from_slice(&[0; 2]);
    }
}

#[inline]
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use millrace_wire::{checksum, ether, ipv4};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parsers_agree(
            source: [u8; 4],
            destination: [u8; 4],
            ports: (u16, u16),
            numbers: (u32, u32),
            bits in 0u8..64,
            window: u16,
            options in prop::collection::vec(any::<u8>(), 0..10).prop_map(|mut o| {
                o.truncate(o.len() / 4 * 4);
                o
            }),
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let addresses = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
            let mut bytes = vec![0u8; LEN];
            Headers {
                destination_mac: Mac([1; 6]),
                source_mac: Mac([2; 6]),
                source,
                destination,
                address_sum: checksum::pseudo_v4(addresses.0, addresses.1, 0, 0),
                source_port: ports.0,
                destination_port: ports.1,
                seq: Seq(numbers.0),
                ack: Seq(numbers.1),
                bits: Bits(bits),
                window,
                options: (options.len() as u16, checksum::sum(&options)),
                transport_len: (20 + options.len() + payload.len()) as u16,
                payload_sum: Some(checksum::sum(&payload)),
            }
            .write(bytes.first_chunk_mut().unwrap());
            bytes.extend_from_slice(&options);
            bytes.extend_from_slice(&payload);
            let frame = ether::Frame::parse(&bytes).unwrap();
            prop_assert_eq!((frame.destination(), frame.source()), (Mac([1; 6]), Mac([2; 6])));
            let packet = ipv4::Packet::parse(frame.payload()).unwrap();
            prop_assert!(packet.verify_checksum());
            prop_assert_eq!((packet.source(), packet.destination()), addresses);
            prop_assert!(packet.dont_fragment() && packet.ttl() == 64);
            let segment = tcp::Segment::parse(packet.payload()).unwrap();
            let pseudo =
                checksum::pseudo_v4(addresses.0, addresses.1, protocol::TCP, packet.payload().len());
            prop_assert!(segment.verify_checksum(pseudo));
            prop_assert_eq!((segment.source_port(), segment.destination_port()), ports);
            prop_assert_eq!((segment.sequence().0, segment.acknowledgement().0), numbers);
            prop_assert_eq!((segment.flags().0, segment.window()), (bits, window));
            prop_assert_eq!(segment.options_bytes(), &options[..]);
            prop_assert_eq!(segment.payload(), &payload[..]);
        }
    }
}
