//! Fragmentation of what we send (RFC 791 §3.2, RFC 8200 §4.5), and identifications (RFC 6864).

use millrace_frames::{Arena, Frame, Transmit};
use millrace_wire::{ether, ipv4, ipv6};

use crate::Stack;
use crate::address::{Word, is_v4, word_v4};
use crate::chain;
use crate::control::{Hop, L2};
use crate::neighbour::NeighbourRef;

/// Counters of identifications. A destination's is found by a keyed hash, so what one peer sees
/// of its own tells nothing of what is sent to others (RFC 7739 §5).
pub(crate) const COUNTERS: usize = 1024;

/// Length and number of IPv6's fragment header.
pub(crate) const FRAGMENT_HEADER: usize = 8;
pub(crate) const FRAGMENT: u8 = 44;

/// Where the bytes behind a transport header come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    Bytes(&'a [u8]),
    /// Of received frames, from so many bytes into the first one's on.
    Chain {
        frame: Frame,
        start: usize,
    },
}

/// The IP header of a datagram that is to be fragmented.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IpHeader {
    V4(ipv4::Header),
    V6(ipv6::Header),
}

impl IpHeader {
    /// Source, destination and what is above.
    pub(crate) fn addresses(&self) -> (Word, Word, u8) {
        match self {
            IpHeader::V4(ip) => (word_v4(ip.source), word_v4(ip.destination), ip.protocol),
            IpHeader::V6(ip) => (ip.source.to_bits(), ip.destination.to_bits(), ip.next_header),
        }
    }

    /// Bytes before a fragment's part, the fragment header of IPv6 included.
    fn len(&self) -> usize {
        match self {
            IpHeader::V4(_) => ipv4::HEADER_LEN,
            IpHeader::V6(_) => ipv6::HEADER_LEN + FRAGMENT_HEADER,
        }
    }

    /// Writes the headers of a fragment of `part` bytes.
    fn emit(&self, room: &mut [u8], id: u32, part: usize, offset: usize, more: bool) {
        match self {
            IpHeader::V4(ip) => {
                let ip = ipv4::Header { identification: id as u16, ..*ip };
                ip.emit_fragment(room, part, offset, more);
            }
            IpHeader::V6(ip) => {
                let upper = ip.next_header;
                let ip = ipv6::Header { next_header: FRAGMENT, ..*ip };
                ip.emit(room, FRAGMENT_HEADER + part);
                let header = &mut room[ipv6::HEADER_LEN..][..FRAGMENT_HEADER];
                header[..2].copy_from_slice(&[upper, 0]);
                // Offsets are multiples of eight, and the field's lower three bits are flags.
                let field = offset as u16 | u16::from(more);
                header[2..4].copy_from_slice(&field.to_be_bytes());
                header[4..].copy_from_slice(&id.to_be_bytes());
            }
        }
    }

    fn ether_type(&self) -> u16 {
        match self {
            IpHeader::V4(_) => ether::EtherType::IPV4,
            IpHeader::V6(_) => ether::EtherType::IPV6,
        }
    }
}

impl Stack {
    /// Bytes of the largest IP packet that is sent in one piece.
    #[inline]
    pub(crate) fn one_packet(&self) -> usize {
        usize::from(self.config.mtu).min(self.arena.frame_size() - Arena::HEADROOM)
    }

    /// The same for IPv6, where routers tell what fits the link (RFC 4861 §6.3.4).
    pub(crate) fn one_packet_v6(&self) -> usize {
        usize::from(self.link_mtu_v6()).min(self.arena.frame_size() - Arena::HEADROOM)
    }

    /// The same on the way to a destination, as far as anybody knows it (RFC 1191, RFC 8201).
    #[inline]
    pub(crate) fn one_packet_to(&self, destination: Word) -> usize {
        let own = if is_v4(destination) { self.one_packet() } else { self.one_packet_v6() };
        own.min(self.path_mtu(destination).into())
    }

    /// The next identification for a datagram: from a counter of the destination's, which begins
    /// where nobody can tell, so numbers come again as late as they can.
    pub(crate) fn identification(&mut self, source: Word, destination: Word, protocol: u8) -> u32 {
        let base = self.keys.prf(&[
            source as u64,
            (source >> 64) as u64,
            destination as u64,
            (destination >> 64) as u64,
            u64::from(protocol),
        ]);
        let counter = &mut self.identifications[(base >> 32) as usize % COUNTERS];
        *counter = counter.wrapping_add(1);
        (base as u32).wrapping_add(*counter)
    }

    /// Sends a transport header and `len` bytes behind it in fragments of `packet` bytes at most, as
    /// many as it takes: all, or none where there is no room for all. Returns whether it did.
    pub(crate) fn send_fragments(
        &mut self,
        ip: IpHeader,
        (hop, packet): (Hop, usize),
        header: &[u8],
        body: Body<'_>,
        len: usize,
    ) -> bool {
        let (source, destination, protocol) = ip.addresses();
        let most = (packet - ip.len()) & !7;
        let total = header.len() + len;
        let fragments = total.div_ceil(most);
        if self.control.len() + fragments > usize::from(self.config.control_queue) {
            self.counters.drop_control_queue_full += 1;
            return false;
        }
        if self.arena.free() < fragments {
            self.counters.drop_no_frame += 1;
            return false;
        }
        let id = self.identification(source, destination, protocol);
        let l4 = L2 + ip.len();
        let mac = self.config.mac;
        for offset in (0..total).step_by(most) {
            // Counted above.
            let Some(frame) = self.control_frame() else { return false };
            let part = most.min(total - offset);
            let room = self.control_room(frame);
            ether::emit(room, Default::default(), mac, ip.ether_type());
            ip.emit(&mut room[L2..], id, part, offset, offset + part < total);
            let (at, prefix) = match offset {
                0 => {
                    room[l4..l4 + header.len()].copy_from_slice(header);
                    (0, header.len())
                }
                _ => (offset - header.len(), 0),
            };
            match body {
                Body::Bytes(bytes) => {
                    room[l4 + prefix..l4 + part].copy_from_slice(&bytes[at..at + part - prefix])
                }
                Body::Chain { frame: source, start } => {
                    let begins = (Arena::HEADROOM - L2 + l4 + prefix) as u16;
                    (self.arena.meta_mut(frame).offset, self.arena.meta_mut(frame).len) =
                        (begins, 0);
                    chain::append(&mut self.arena, frame, source, start + at, part - prefix);
                }
            }
            self.control_packet(frame, l4 + part, hop);
        }
        self.counters.fragments_out += fragments as u64;
        self.counters.datagrams_fragmented += 1;
        true
    }

    /// Whether a packet is the fragment after the last packet that waits for a neighbour. It then
    /// waits whatever the limit is, for a datagram is of no use without any one of them.
    pub(crate) fn continues_waiting(&self, neighbour: NeighbourRef, packet: &Transmit) -> bool {
        let last = self.neighbours.waiting(neighbour).last();
        last.is_some_and(|last| self.continues(last, packet))
    }

    /// Whether a packet is the fragment after another.
    pub(crate) fn continues(&self, before: &Transmit, packet: &Transmit) -> bool {
        let fragment = |packet: &Transmit| {
            let bytes = self.arena.room(packet.head).get(usize::from(packet.offset) + L2..)?;
            if let Ok(ip) = ipv6::Packet::parse_cut(bytes) {
                let header = ip.payload().first_chunk::<FRAGMENT_HEADER>()?;
                let [_, _, high, low, a, b, c, d] = *header;
                let key = (
                    ip.source().to_bits(),
                    ip.destination().to_bits(),
                    u32::from_be_bytes([a, b, c, d]),
                );
                let offset = usize::from(u16::from_be_bytes([high, low]) & !7);
                let is_fragment = ip.next_header() == FRAGMENT;
                return is_fragment.then(|| (key, offset, ip.payload_len() - FRAGMENT_HEADER));
            }
            let ip = ipv4::Packet::parse_cut(bytes).ok()?;
            let id = u32::from(ip.identification());
            let key = (word_v4(ip.source()), word_v4(ip.destination()), id);
            ip.is_fragment().then(|| (key, ip.fragment_offset(), ip.total_len() - ip.header_len()))
        };
        let Some((key, offset, _)) = fragment(packet).filter(|&(_, offset, _)| offset > 0) else {
            return false;
        };
        fragment(before).is_some_and(|(other, at, len)| key == other && at + len == offset)
    }
}
