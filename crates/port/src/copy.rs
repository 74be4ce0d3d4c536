//! Between the frames of an arena and packets that lie in one piece elsewhere: the copy of the
//! ports that own the bytes of their wire (memory, pcap).

use millrace_frames::{Arena, Frame, Owners, Transmit};
use millrace_wire::checksum;

/// Where a received packet starts in its first frame: the IP header behind the 14 bytes of
/// Ethernet then lies on a multiple of four (the kernel's `NET_IP_ALIGN`).
pub(crate) const RX_OFFSET: usize = 2;

/// Copies a received packet into frames of its own, owned [`Owners::RECEIVED`]. Length, offset,
/// chain and total are set; timestamp, checksum state and segment size are left to the caller.
/// `None` when the arena has too few free frames; it then has as many as before.
#[inline]
pub(crate) fn scatter(arena: &mut Arena, bytes: &[u8]) -> Option<Frame> {
    let room = arena.frame_size() - RX_OFFSET;
    let head = arena.allocate(Owners::RECEIVED)?;
    let first = bytes.len().min(room);
    arena.room_mut(head)[RX_OFFSET..RX_OFFSET + first].copy_from_slice(&bytes[..first]);
    let meta = arena.meta_mut(head);
    meta.offset = RX_OFFSET as u16;
    meta.len = first as u16;
    meta.total = bytes.len() as u32;
    if first < bytes.len() && !scatter_rest(arena, head, &bytes[first..]) {
        arena.release_chain(head, Owners::RECEIVED);
        return None;
    }
    Some(head)
}

fn scatter_rest(arena: &mut Arena, head: Frame, bytes: &[u8]) -> bool {
    let mut last = head;
    for piece in bytes.chunks(arena.frame_size()) {
        let Some(frame) = arena.allocate(Owners::RECEIVED) else {
            return false;
        };
        arena.room_mut(frame)[..piece.len()].copy_from_slice(piece);
        let meta = arena.meta_mut(frame);
        meta.offset = 0;
        meta.len = piece.len() as u16;
        arena.meta_mut(last).next = frame;
        last = frame;
    }
    true
}

/// Copies a packet to transmit to the start of `to`. Returns how many bytes its frames had, at
/// most `to.len()`.
#[inline]
pub(crate) fn gather(arena: &Arena, packet: &Transmit, to: &mut [u8]) -> usize {
    let start = packet.offset as usize;
    let first = &arena.room(packet.head)[start..start + packet.len as usize];
    let filled = first.len().min(to.len());
    to[..filled].copy_from_slice(&first[..filled]);
    if packet.frames > 1 { filled + gather_rest(arena, packet, &mut to[filled..]) } else { filled }
}

fn gather_rest(arena: &Arena, packet: &Transmit, to: &mut [u8]) -> usize {
    let mut filled = 0;
    let mut frame = packet.head;
    for _ in 1..packet.frames {
        frame = arena.meta(frame).next;
        let bytes = arena.bytes(frame);
        let len = bytes.len().min(to.len() - filled);
        to[filled..filled + len].copy_from_slice(&bytes[..len]);
        filled += len;
    }
    filled
}

/// Whether the place that a packet names for its checksum lies within it.
#[inline]
pub(crate) fn checksum_place_is_inside(packet: &Transmit) -> bool {
    packet.checksum_start == 0
        || u32::from(packet.checksum_start) + u32::from(packet.checksum_offset) + 2 <= packet.total
}

/// Finishes a transport checksum as a network card does: sums from `start`, where the field at
/// `start + offset` holds the pseudo-header's sum. A result of zero is written as 0xffff, which
/// UDP asks for (RFC 768) and which means the same to TCP.
///
/// # Panics
/// When the field does not lie within the packet.
pub fn finish_checksum(packet: &mut [u8], start: usize, offset: usize) {
    let sum = match checksum::finish(checksum::sum(&packet[start..])) {
        0 => 0xffff,
        sum => sum,
    };
    packet[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_frames::{ArenaConfig, Hugepages};

    #[test]
    fn a_large_packet_becomes_a_chain_and_comes_back_whole() {
        let config = ArenaConfig { frames: 40, frame_size: 2048, hugepages: Hugepages::Never };
        let mut arena = Arena::new(config).unwrap();
        let bytes: Vec<u8> = (0..65_549u32).map(|at| (at % 251) as u8).collect();
        let head = scatter(&mut arena, &bytes).unwrap();
        assert_eq!(arena.meta(head).total, 65_549);
        let packet = Transmit {
            head,
            total: 65_549,
            offset: arena.meta(head).offset,
            len: arena.meta(head).len,
            frames: 33,
            ..Transmit::default()
        };
        let mut back = vec![0; bytes.len()];
        assert_eq!(gather(&arena, &packet, &mut back), bytes.len());
        assert_eq!(back, bytes);
        arena.release_chain(head, Owners::RECEIVED);
        assert_eq!(arena.free(), 40);
    }

    #[test]
    fn a_chain_that_finds_too_few_frames_leaves_none_behind() {
        let config = ArenaConfig { frames: 3, frame_size: 2048, hugepages: Hugepages::Never };
        let mut arena = Arena::new(config).unwrap();
        assert!(scatter(&mut arena, &[1; 2048 * 3]).is_none());
        assert_eq!(arena.free(), 3);
    }

    #[test]
    fn a_finished_checksum_verifies_and_is_never_zero() {
        for fill in 0..=255u8 {
            let pseudo = u16::from(fill) << 7 | 3;
            let mut packet = vec![fill; 61];
            packet[30..32].copy_from_slice(&pseudo.to_be_bytes());
            finish_checksum(&mut packet, 14, 16);
            assert_ne!(packet[30..32], [0, 0]);
            // The receiver's sum: the segment, and the pseudo-header before it.
            let mut seen = pseudo.to_be_bytes().to_vec();
            seen.extend_from_slice(&packet[14..]);
            assert_eq!(checksum::sum(&seen), 0xffff);
        }
    }
}
