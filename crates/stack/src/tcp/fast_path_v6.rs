//! The common packet of IPv6: Ethernet without a tag, no extension header, TCP. What
//! [`super::fast_path`] is for IPv4.

use millrace_frames::Frame;
use millrace_wire::mac::Mac;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{Flags as Bits, Options};
use millrace_wire::{protocol, tcp};

use super::headers::LEN_V6;
use super::input::Segment;
use super::table::FourTuple;
use crate::control::{L2, L4_V6};
use crate::ip::pseudo;
use crate::stack::Stack;

impl Stack {
    /// As [`Stack::common_packet`] for IPv6.
    #[inline]
    pub(crate) fn common_packet_v6(&mut self, frame: Frame) -> bool {
        let meta = *self.arena.meta(frame);
        let bytes = self.arena.bytes(frame);
        let Some(head) = bytes.first_chunk::<LEN_V6>() else { return false };
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&head[at..at + 16]);
            u128::from_be_bytes(octets)
        };
        let common = head[0..6] == self.config.mac.0
            // Nobody's own address is a group's.
            && head[6] & 1 == 0
            && head[12..14] == [0x86, 0xdd]
            && head[14] >> 4 == 6
            && head[20] == protocol::TCP;
        if !common {
            return false;
        }
        let (source, destination) = (address(22), address(38));
        // Nobody has an address in ::/64: loopback, IPv4 written as IPv6 and the like.
        if source >> 64 == 0 || destination >> 64 == 0 {
            return false;
        }
        let transport = usize::from(half(18));
        let available = if meta.next.is_none() { bytes.len() } else { meta.total as usize };
        let header_len = usize::from(head[66] >> 4) * 4;
        let payload_at = L4_V6 + header_len;
        let end = L4_V6 + transport;
        if end > available || header_len < tcp::HEADER_LEN || payload_at > end {
            return false;
        }
        let Some(options) = bytes.get(LEN_V6..payload_at) else { return false };
        let Some(local) = self.addresses.find(destination) else { return false };
        let pseudo = pseudo(source, destination, protocol::TCP, transport);
        if !self.checksum_holds(frame, bytes, L4_V6, transport, half(70), pseudo) {
            return false;
        }
        let several;
        let (timestamps, options) = match tcp::timestamps_only(options) {
            Some(timestamps) => (Some(timestamps), &Options::NONE),
            None if options.is_empty() => (None, &Options::NONE),
            None => {
                let Ok(parsed) = Options::parse(options) else { return false };
                several = parsed;
                (several.timestamps, &several)
            }
        };
        let mac = Mac([head[6], head[7], head[8], head[9], head[10], head[11]]);
        let segment = Segment {
            tuple: FourTuple { remote: source, remote_port: half(54), local_port: half(56), local },
            seq: Seq(word(58)),
            ack: Seq(word(62)),
            bits: Bits(head[67]),
            window: half(68),
            len: (transport - header_len) as u32,
            // The traffic class lies across the first two bytes.
            ecn: head[15] >> 4 & 0b11 | (head[66] & 1) << 2,
            timestamps,
            options,
        };
        let meta = self.arena.meta_mut(frame);
        meta.offset += payload_at as u16;
        meta.len -= payload_at as u16;
        self.uncommon_segment(frame, &segment, mac);
        true
    }
}

const _: () = assert!(L2 == 14 && LEN_V6 == 74);
