//! The virtio-net header, in which Linux says and is told what is unfinished about a packet: the
//! transport checksum, and the cutting of a super-segment. `AF_PACKET` (`PACKET_VNET_HDR`) and TAP
//! (`IFF_VNET_HDR`) put it before each packet. Also the lists of pieces (`iovec`) by which a packet
//! goes from and to the frames of an arena without a copy in between.
//!
//! Layout and meaning: Virtual I/O Device (VIRTIO) 1.2, section 5.1.6; linux/virtio_net.h. Fields
//! are in the machine's byte order, as for the legacy interface.

use millrace_frames::{Arena, ChecksumState, Frame, Meta, Owners, Transmit};

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

/// Where the checksum is in a UDP header; Linux cuts UDP too, and this tells it from TCP.
const UDP_CHECKSUM_OFFSET: u16 = 6;
const UDP_HEADER: u16 = 8;
/// Where TCP says how long its header is.
const TCP_DATA_OFFSET: usize = 12;
const TCP_HEADER: u16 = 20;
const ETHERNET_HEADER: usize = 14;

/// Payload bytes of the largest super-segment: an IP packet of 65535 bytes (the length field of
/// IPv4) with 20 bytes of IPv4 and 60 of TCP.
pub(crate) const MAX_SUPER_SEGMENT: u32 = 65_535 - 20 - 60;
/// Bytes of the largest packet, with an Ethernet header and two VLAN tags.
pub(crate) const MAX_PACKET: usize = 65_535 + ETHERNET_HEADER + 8;

/// Where a received packet starts in its first frame: two bytes in, so that what follows the 14
/// bytes of Ethernet is aligned for the processor.
pub(crate) const RX_OFFSET: usize = 2;

/// `struct virtio_net_hdr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

impl Header {
    /// Its size.
    pub(crate) const LEN: usize = size_of::<Header>();

    /// What to tell the kernel of a packet whose first bytes are `start`.
    #[inline]
    pub(crate) fn transmit(packet: &Transmit, start: &[u8]) -> Header {
        if packet.checksum_start == 0 {
            return Header::default();
        }
        let mut header = Header {
            flags: NEEDS_CSUM,
            csum_start: packet.checksum_start,
            csum_offset: packet.checksum_offset,
            ..Header::default()
        };
        if packet.gso_size != 0 {
            let transport;
            (header.gso_type, transport) = if packet.checksum_offset == UDP_CHECKSUM_OFFSET {
                (GSO_UDP_L4, UDP_HEADER)
            } else {
                let data_offset = start.get(usize::from(packet.checksum_start) + TCP_DATA_OFFSET);
                let length = data_offset.map_or(TCP_HEADER, |&byte| u16::from(byte >> 4) * 4);
                (if packet.ipv6 { GSO_TCPV6 } else { GSO_TCPV4 }, length)
            };
            header.gso_size = packet.gso_size;
            header.hdr_len = packet.checksum_start.saturating_add(transport);
        }
        header
    }

    /// What the kernel tells of a received packet's checksum.
    #[inline]
    pub(crate) fn checksum(&self) -> ChecksumState {
        if self.flags & NEEDS_CSUM != 0 {
            ChecksumState::Unfinished
        } else if self.flags & DATA_VALID != 0 {
            ChecksumState::Verified
        } else {
            ChecksumState::Unknown
        }
    }

    /// Payload bytes of each segment of a received super-segment, else 0.
    #[inline]
    pub(crate) fn segment(&self) -> u16 {
        if self.gso_type == GSO_NONE { 0 } else { self.gso_size }
    }
}

/// Whether a packet is longer than a link with this MTU takes. A super-segment is cut up first,
/// so only the limit of IP itself counts for it; a VLAN tag does not count as content.
#[inline]
pub(crate) fn too_long(packet: &Transmit, start: &[u8], mtu: u32) -> bool {
    let total = packet.total as usize;
    if packet.gso_size != 0 {
        return total > MAX_PACKET;
    }
    let tag = match start.get(12..14) {
        Some([0x81, 0x00] | [0x88, 0xa8]) => 4,
        _ => 0,
    };
    total > mtu as usize + ETHERNET_HEADER + tag
}

/// Appends the pieces of a packet to `pieces`, for the kernel to read.
#[inline]
pub(crate) fn gather(arena: &Arena, packet: &Transmit, pieces: &mut Vec<libc::iovec>) {
    let start = first_bytes(arena, packet);
    pieces.push(libc::iovec { iov_base: start.as_ptr().cast_mut().cast(), iov_len: start.len() });
    let mut frame = packet.head;
    for _ in 1..packet.frames {
        frame = arena.meta(frame).next;
        let bytes = arena.bytes(frame);
        let iov_base = bytes.as_ptr().cast_mut().cast();
        pieces.push(libc::iovec { iov_base, iov_len: bytes.len() });
    }
}

/// The bytes of a packet that lie in its first frame.
#[inline]
pub(crate) fn first_bytes<'a>(arena: &'a Arena, packet: &Transmit) -> &'a [u8] {
    let (start, len) = (usize::from(packet.offset), usize::from(packet.len));
    &arena.room(packet.head)[start..start + len]
}

/// How many frames a received packet of `len` bytes takes, where it starts at `offset`.
#[inline]
pub(crate) fn frames_for(arena: &Arena, offset: usize, len: usize) -> usize {
    (offset + len).div_ceil(arena.frame_size()).max(1)
}

/// Allocates a chain for a received packet of `len` bytes whose first frame starts at `offset`,
/// with all meta data but checksum, segment size and time set. `None`: too few frames are free.
#[inline]
pub(crate) fn allocate_chain(arena: &mut Arena, offset: usize, len: usize) -> Option<Frame> {
    let count = frames_for(arena, offset, len);
    if count > arena.free() {
        // Asked for in vain: the arena counts it.
        arena.allocate_keeping(Owners::RECEIVED, usize::MAX);
        return None;
    }
    let size = arena.frame_size();
    let head = arena.allocate(Owners::RECEIVED)?;
    let mut left = len;
    let (mut frame, mut start) = (head, offset);
    loop {
        let here = left.min(size - start);
        left -= here;
        let next = if left == 0 { Frame::NONE } else { arena.allocate(Owners::RECEIVED)? };
        *arena.meta_mut(frame) =
            Meta { next, offset: start as u16, len: here as u16, ..Meta::default() };
        if next.is_none() {
            break;
        }
        (frame, start) = (next, 0);
    }
    arena.meta_mut(head).total = len as u32;
    Some(head)
}

/// Appends the pieces of a chain to `pieces`, for the kernel to write.
#[inline]
pub(crate) fn scatter(arena: &mut Arena, head: Frame, pieces: &mut Vec<libc::iovec>) {
    let mut frame = head;
    while frame.is_some() {
        let bytes = arena.bytes_mut(frame);
        pieces.push(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        frame = arena.meta(frame).next;
    }
}

/// Puts a VLAN tag that the kernel took out back behind the addresses of the packet, which
/// starts at least 4 bytes into its frame.
#[inline]
pub(crate) fn insert_tag(arena: &mut Arena, head: Frame, tpid: u16, tci: u16) {
    let start = usize::from(arena.meta(head).offset);
    let room = arena.room_mut(head);
    room.copy_within(start..start + 12, start - 4);
    room[start + 8..start + 10].copy_from_slice(&tpid.to_be_bytes());
    room[start + 10..start + 12].copy_from_slice(&tci.to_be_bytes());
    let meta = arena.meta_mut(head);
    meta.offset -= 4;
    meta.len += 4;
    meta.total += 4;
}

#[cfg(test)]
mod tests {
    use millrace_frames::{ArenaConfig, Hugepages};

    use super::*;

    fn arena(frames: u32) -> Arena {
        Arena::new(ArenaConfig { frames, frame_size: 2048, hugepages: Hugepages::Never }).unwrap()
    }

    #[test]
    fn the_header_is_that_of_the_kernel() {
        assert_eq!(Header::LEN, 10);
        assert_eq!(align_of::<Header>(), 2);
    }

    #[test]
    fn a_finished_packet_has_an_empty_header() {
        assert_eq!(Header::transmit(&Transmit::default(), &[]), Header::default());
    }

    #[test]
    fn a_super_segment_is_announced_with_the_length_of_its_headers() {
        let mut start = [0u8; 66];
        start[34 + TCP_DATA_OFFSET] = 8 << 4;
        let packet = Transmit {
            gso_size: 1448,
            checksum_start: 34,
            checksum_offset: 16,
            ..Transmit::default()
        };
        let expected = Header {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 66,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
        };
        assert_eq!(Header::transmit(&packet, &start), expected);
        let six = Transmit { ipv6: true, ..packet };
        assert_eq!(Header::transmit(&six, &start).gso_type, GSO_TCPV6);
        let udp = Header::transmit(&Transmit { checksum_offset: 6, ..packet }, &start);
        assert_eq!((udp.gso_type, udp.hdr_len), (GSO_UDP_L4, 42));
        let cut_off = Header::transmit(&packet, &start[..40]);
        assert_eq!(cut_off.hdr_len, 54);
    }

    #[test]
    fn what_is_known_of_a_checksum() {
        let state = |flags| Header { flags, ..Header::default() }.checksum();
        assert_eq!(state(0), ChecksumState::Unknown);
        assert_eq!(state(DATA_VALID), ChecksumState::Verified);
        assert_eq!(state(NEEDS_CSUM), ChecksumState::Unfinished);
    }

    #[test]
    fn the_mtu_counts_neither_the_ethernet_header_nor_a_tag() {
        let packet = |total| Transmit { total, ..Transmit::default() };
        let (plain, mut tagged) = ([0u8; 14], [0u8; 14]);
        tagged[12..14].copy_from_slice(&[0x81, 0]);
        assert!(!too_long(&packet(1514), &plain, 1500));
        assert!(too_long(&packet(1515), &plain, 1500));
        assert!(!too_long(&packet(1518), &tagged, 1500));
        assert!(too_long(&packet(1519), &tagged, 1500));
        let gso = Transmit { gso_size: 1448, ..packet(65_549) };
        assert!(!too_long(&gso, &plain, 1500));
        assert!(too_long(&Transmit { total: 70_000, ..gso }, &plain, 1500));
    }

    #[test]
    fn a_chain_holds_exactly_the_packet() {
        let mut arena = arena(40);
        for len in [0, 60, 2046, 2047, 4094, 4095, MAX_PACKET] {
            let head = allocate_chain(&mut arena, RX_OFFSET, len).unwrap();
            let mut pieces = Vec::new();
            scatter(&mut arena, head, &mut pieces);
            assert_eq!(pieces.iter().map(|piece| piece.iov_len).sum::<usize>(), len);
            assert_eq!(pieces.len(), frames_for(&arena, RX_OFFSET, len));
            assert_eq!(arena.meta(head).total as usize, len);
            arena.release_chain(head, Owners::RECEIVED);
            assert_eq!(arena.free(), 40);
        }
    }

    #[test]
    fn too_few_frames_take_nothing_and_are_counted() {
        let mut arena = arena(2);
        assert_eq!(allocate_chain(&mut arena, RX_OFFSET, 5000), None);
        assert_eq!((arena.free(), arena.exhausted()), (2, 1));
    }

    #[test]
    fn a_tag_goes_behind_the_addresses() {
        let mut arena = arena(1);
        let head = allocate_chain(&mut arena, RX_OFFSET + 4, 60).unwrap();
        for (i, byte) in arena.bytes_mut(head).iter_mut().enumerate() {
            *byte = i as u8;
        }
        insert_tag(&mut arena, head, 0x8100, 0x2005);
        let bytes = arena.bytes(head);
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(bytes[12..18], [0x81, 0x00, 0x20, 0x05, 12, 13]);
    }
}
