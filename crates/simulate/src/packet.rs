//! A packet under way: its bytes in one piece, and what a port would know of it besides.

use millrace_frames::{Arena, ChecksumState, Frame, Owners, Transmit};
use millrace_wire::{checksum, ether, ipv6, protocol, tcp};

const L2: usize = ether::HEADER_LEN;
/// Where a received packet starts in its first frame: the IP header then lies on a multiple of
/// four.
const RX_OFFSET: usize = 2;

#[derive(Debug, Default)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    /// Payload bytes of each segment, when this is a super-segment.
    pub(crate) gso_size: u16,
    /// Where the transport checksum is still to be finished from, and where its field is; 0: it is
    /// finished.
    pub(crate) checksum_start: u16,
    pub(crate) checksum_offset: u16,
    /// A bit of it was flipped. A second one could make the sums right again, which TCP cannot
    /// notice and nobody shall blame it for.
    pub(crate) damaged: bool,
}

/// Packets under way, and spare room for more.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    packets: Vec<Packet>,
    free: Vec<u32>,
}

impl Packets {
    /// Room for a packet, empty.
    pub(crate) fn take(&mut self) -> u32 {
        if let Some(number) = self.free.pop() {
            let packet = &mut self.packets[number as usize];
            packet.bytes.clear();
            (packet.gso_size, packet.checksum_start, packet.checksum_offset) = (0, 0, 0);
            packet.damaged = false;
            return number;
        }
        self.packets.push(Packet::default());
        (self.packets.len() - 1) as u32
    }

    pub(crate) fn get(&mut self, number: u32) -> &mut Packet {
        &mut self.packets[number as usize]
    }

    pub(crate) fn give_back(&mut self, number: u32) {
        self.free.push(number);
    }

    pub(crate) fn copy(&mut self, number: u32) -> u32 {
        let copy = self.take();
        let (one, other) = pair(&mut self.packets, number as usize, copy as usize);
        other.bytes.extend_from_slice(&one.bytes);
        other.like(one);
        copy
    }

    /// Packets that are under way.
    pub(crate) fn in_use(&self) -> usize {
        self.packets.len() - self.free.len()
    }
}

fn pair(packets: &mut [Packet], one: usize, other: usize) -> (&mut Packet, &mut Packet) {
    let (low, high) = packets.split_at_mut(one.max(other));
    if one < other { (&mut low[one], &mut high[0]) } else { (&mut high[0], &mut low[other]) }
}

impl Packet {
    /// Takes over what is known of another packet besides its bytes.
    pub(crate) fn like(&mut self, other: &Packet) {
        self.gso_size = other.gso_size;
        self.checksum_start = other.checksum_start;
        self.checksum_offset = other.checksum_offset;
        self.damaged = other.damaged;
    }

    /// Copies a packet to transmit out of its frames.
    pub(crate) fn gather(&mut self, arena: &Arena, packet: &Transmit) {
        let start = usize::from(packet.offset);
        let first = &arena.room(packet.head)[start..start + usize::from(packet.len)];
        self.bytes.extend_from_slice(first);
        let mut frame = packet.head;
        for _ in 1..packet.frames {
            frame = arena.meta(frame).next;
            self.bytes.extend_from_slice(arena.bytes(frame));
        }
        assert_eq!(
            self.bytes.len(),
            packet.total as usize,
            "the frames of a packet hold its total"
        );
        self.gso_size = packet.gso_size;
        self.checksum_start = packet.checksum_start;
        self.checksum_offset = packet.checksum_offset;
    }

    /// Copies the packet into frames of an arena. `None` when it has too few.
    pub(crate) fn scatter(&self, arena: &mut Arena) -> Option<Frame> {
        let head = arena.allocate(Owners::RECEIVED)?;
        let first = self.bytes.len().min(arena.frame_size() - RX_OFFSET);
        let (now, later) = self.bytes.split_at(first);
        arena.room_mut(head)[RX_OFFSET..RX_OFFSET + first].copy_from_slice(now);
        let meta = arena.meta_mut(head);
        meta.offset = RX_OFFSET as u16;
        meta.len = first as u16;
        meta.total = self.bytes.len() as u32;
        meta.gso_size = self.gso_size;
        meta.checksum = if self.checksum_start == 0 {
            ChecksumState::Unknown
        } else {
            ChecksumState::Unfinished
        };
        let mut last = head;
        for piece in later.chunks(arena.frame_size()) {
            let Some(frame) = arena.allocate(Owners::RECEIVED) else {
                arena.release_chain(head, Owners::RECEIVED);
                return None;
            };
            arena.room_mut(frame)[..piece.len()].copy_from_slice(piece);
            let meta = arena.meta_mut(frame);
            (meta.offset, meta.len) = (0, piece.len() as u16);
            arena.meta_mut(last).next = frame;
            last = frame;
        }
        Some(head)
    }

    pub(crate) fn ether_type(&self) -> u16 {
        match self.bytes.get(12..14) {
            Some(&[high, low]) => u16::from_be_bytes([high, low]),
            _ => 0,
        }
    }

    /// Finishes a transport checksum that was left to the port.
    pub(crate) fn finish_checksum(&mut self) {
        let start = usize::from(core::mem::take(&mut self.checksum_start));
        if start == 0 {
            return;
        }
        let sum = match checksum::finish(checksum::sum(&self.bytes[start..])) {
            0 => 0xffff,
            sum => sum,
        };
        let field = start + usize::from(self.checksum_offset);
        self.bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }

    pub(crate) fn mend_ip_checksum(&mut self) {
        let len = usize::from(self.bytes[L2] & 15) * 4;
        self.bytes[L2 + 10..L2 + 12].fill(0);
        let sum = checksum::finish(checksum::sum(&self.bytes[L2..L2 + len]));
        self.bytes[L2 + 10..L2 + 12].copy_from_slice(&sum.to_be_bytes());
    }

    /// Where the TCP header is and how long it is, when this is a whole TCP packet without
    /// anything between the IP and the TCP header but IPv4 options.
    fn tcp_header(&self) -> Option<(usize, usize)> {
        let at = match self.ether_type() {
            ether::EtherType::IPV4 if *self.bytes.get(L2 + 9)? == protocol::TCP => {
                L2 + usize::from(self.bytes[L2] & 15) * 4
            }
            ether::EtherType::IPV6 if *self.bytes.get(L2 + 6)? == protocol::TCP => {
                L2 + ipv6::HEADER_LEN
            }
            _ => return None,
        };
        let len = usize::from(self.bytes.get(at + 12)? >> 4) * 4;
        (len >= tcp::HEADER_LEN && at + len <= self.bytes.len()).then_some((at, len))
    }

    /// IP packet length of the largest segment that this is cut into.
    pub(crate) fn segment_len(&self) -> usize {
        match self.tcp_header() {
            Some((at, len)) if self.gso_size != 0 => {
                (at + len + usize::from(self.gso_size)).min(self.bytes.len()) - L2
            }
            _ => self.bytes.len().saturating_sub(L2),
        }
    }

    /// Cuts a super-segment as a network card does (TSO): headers repeated, lengths, sequence
    /// numbers, identification and checksums of each its own, PSH and FIN on the last, CWR on the
    /// first.
    pub(crate) fn cut(&self, mut each: impl FnMut(&[u8])) {
        let Some((at, len)) = self.tcp_header().filter(|_| self.gso_size != 0) else {
            return each(&self.bytes);
        };
        let (headers, payload) = self.bytes.split_at(at + len);
        let pieces = payload.chunks(usize::from(self.gso_size));
        let count = pieces.len();
        let first_sequence = u32::from_be_bytes(headers[at + 4..at + 8].try_into().expect("four"));
        let v4 = self.ether_type() == ether::EtherType::IPV4;
        let mut segment = Packet::default();
        for (number, piece) in pieces.enumerate() {
            let offset = number * usize::from(self.gso_size);
            segment.bytes.clear();
            segment.bytes.extend_from_slice(headers);
            segment.bytes.extend_from_slice(piece);
            let bytes = &mut segment.bytes;
            let sequence = first_sequence.wrapping_add(offset as u32);
            bytes[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
            const FIN_PSH: u8 = 0x09;
            const CWR: u8 = 0x80;
            if number + 1 < count {
                bytes[at + 13] &= !FIN_PSH;
            }
            if number > 0 {
                bytes[at + 13] &= !CWR;
            }
            let transport = len + piece.len();
            let pseudo = if v4 {
                let total = (at - L2 + transport) as u16;
                bytes[L2 + 2..L2 + 4].copy_from_slice(&total.to_be_bytes());
                let identification = u16::from_be_bytes([bytes[L2 + 4], bytes[L2 + 5]]);
                let identification = identification.wrapping_add(number as u16);
                bytes[L2 + 4..L2 + 6].copy_from_slice(&identification.to_be_bytes());
                segment.mend_ip_checksum();
                checksum::sum(&segment.bytes[L2 + 12..L2 + 20])
            } else {
                bytes[L2 + 4..L2 + 6].copy_from_slice(&(transport as u16).to_be_bytes());
                checksum::sum(&segment.bytes[L2 + 8..L2 + 40])
            };
            let pseudo = checksum::add(pseudo, u16::from(protocol::TCP));
            let pseudo = checksum::add(pseudo, transport as u16);
            let bytes = &mut segment.bytes;
            bytes[at + 16..at + 18].copy_from_slice(&pseudo.to_be_bytes());
            segment.checksum_start = at as u16;
            segment.checksum_offset = tcp::CHECKSUM_OFFSET as u16;
            segment.finish_checksum();
            each(&segment.bytes);
        }
    }
}
