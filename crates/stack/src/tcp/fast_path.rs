//! The common packet: Ethernet without a tag, IPv4 without options and whole, TCP.
//!
//! Its fields are at fixed places, so one check of the length is enough to read them all. What is
//! not so common goes the general way through [`crate::ip`]; both end in
//! [`Stack::tcp_segment`].

use millrace_frames::{ChecksumState, Frame};
use millrace_wire::mac::Mac;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{Flags as Bits, Options};
use millrace_wire::{checksum, protocol, tcp};

use super::headers::LEN;
use super::input::Segment;
use super::table::FourTuple;
use crate::control::L4;
use crate::stack::Stack;

/// Bytes of the Ethernet header.
const L2: usize = 14;

impl Stack {
    /// Takes the packet if it is of the common kind and nothing is wrong with it. Returns false,
    /// with nothing done, if it is to go the general way, which also finds the reason for a drop.
    #[inline]
    pub(crate) fn common_packet(&mut self, frame: Frame) -> bool {
        let meta = *self.arena.meta(frame);
        let bytes = self.arena.bytes(frame);
        let Some(head) = bytes.first_chunk::<LEN>() else { return false };
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        // In one number the destination, which is to be ours, and the bit that makes the source a
        // group's, which nobody's own address is.
        let Some(&ends) = head.first_chunk() else { return false };
        let ends = u64::from_le_bytes(ends) & 0x0001_ffff_ffff_ffff;
        let mut ours = [0; 8];
        ours[..6].copy_from_slice(&self.config.mac.0);
        let common = ends == u64::from_le_bytes(ours)
            && head[12..15] == [0x08, 0x00, 0x45]
            // No fragment: neither "more" nor an offset.
            && half(20) & 0x3fff == 0
            && head[23] == protocol::TCP;
        if !common {
            return false;
        }
        let total = usize::from(half(16));
        let available = if meta.next.is_none() { bytes.len() } else { meta.total as usize };
        let header_len = usize::from(head[46] >> 4) * 4;
        let payload_at = L4 + header_len;
        if L2 + total > available || header_len < tcp::HEADER_LEN || payload_at > L2 + total {
            return false;
        }
        let Some(options) = bytes.get(LEN..payload_at) else { return false };

        let (source, destination) = (word(26), word(30));
        if meta.checksum != ChecksumState::Verified && checksum::sum(&head[L2..L4]) != 0xffff {
            return false;
        }
        let Some(local) = self.addresses.find(0xffff_0000_0000 | u128::from(destination)) else {
            return false;
        };
        let transport = total - (L4 - L2);
        let addresses = checksum::sum(&head[26..34]);
        let pseudo = checksum::add(addresses, u16::from(protocol::TCP));
        let pseudo = checksum::add(pseudo, transport as u16);
        if !self.checksum_holds(frame, bytes, L4, transport, half(50), pseudo) {
            return false;
        }
        let bits = Bits(head[47]);
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
            tuple: FourTuple {
                remote: 0xffff_0000_0000 | u128::from(source),
                remote_port: half(34),
                local_port: half(36),
                local,
            },
            seq: Seq(word(38)),
            ack: Seq(word(42)),
            bits,
            window: half(48),
            len: (transport - header_len) as u32,
            ecn: head[15] & 0b11 | (head[46] & 1) << 2,
            timestamps,
            options,
        };
        let meta = self.arena.meta_mut(frame);
        meta.offset += payload_at as u16;
        meta.len -= payload_at as u16;
        self.tcp_segment(frame, &segment, mac);
        true
    }
}
