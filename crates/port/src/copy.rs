//! Between the frames of an arena and packets that lie in one piece elsewhere: the copy of the
//! ports that own the bytes of their wire (memory, pcap).

use millrace_frames::pipe::Record;
use millrace_frames::{Arena, Frame, Meta, Owners, Transmit};
use millrace_wire::checksum;

/// Where a received packet starts in its first frame: the IP header behind the 14 bytes of
/// Ethernet then lies on a multiple of four (the kernel's `NET_IP_ALIGN`).
pub(crate) const RX_OFFSET: usize = 2;

/// Whether [`scatter`] takes no more than one frame for a packet.
#[inline(always)]
pub(crate) fn fits_a_frame(arena: &Arena, bytes: &[u8]) -> bool {
    RX_OFFSET + bytes.len() <= arena.frame_size()
}

/// Copies a received packet into frames of its own, owned [`Owners::RECEIVED`]. The first frame's
/// entry has what `record` says. `None` when the arena has too few free frames; it then has as many
/// as before.
#[inline(always)]
pub(crate) fn scatter(arena: &mut Arena, record: Record, bytes: &[u8]) -> Option<Frame> {
    let meta = Meta {
        timestamp: record.arrival.as_nanos(),
        total: record.len,
        offset: RX_OFFSET as u16,
        gso_size: record.gso_size,
        checksum: record.checksum,
        ..Meta::default()
    };
    if fits_a_frame(arena, bytes) {
        return arena.allocate_filled(Owners::RECEIVED, meta, bytes);
    }
    let head = scatter_chain(arena, bytes)?;
    let Meta { next, len, .. } = *arena.meta(head);
    *arena.meta_mut(head) = Meta { next, len, ..meta };
    Some(head)
}

#[inline(never)]
fn scatter_chain(arena: &mut Arena, bytes: &[u8]) -> Option<Frame> {
    let (first, rest) = bytes.split_at(arena.frame_size() - RX_OFFSET);
    let meta = Meta { offset: RX_OFFSET as u16, ..Meta::default() };
    let head = arena.allocate_filled(Owners::RECEIVED, meta, first)?;
    if !scatter_rest(arena, head, rest) {
        arena.release_chain(head, Owners::RECEIVED);
        return None;
    }
    Some(head)
}

fn scatter_rest(arena: &mut Arena, head: Frame, bytes: &[u8]) -> bool {
    let mut last = head;
    for piece in bytes.chunks(arena.frame_size()) {
        let meta = Meta::default();
        let Some(frame) = arena.allocate_filled(Owners::RECEIVED, meta, piece) else {
            return false;
        };
        arena.meta_mut(last).next = frame;
        last = frame;
    }
    true
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
    use millrace_frames::{ArenaConfig, ChecksumState, Hugepages, Instant};

    fn record(len: u32) -> Record {
        Record { arrival: Instant::ZERO, len, gso_size: 0, checksum: ChecksumState::Unknown }
    }

    #[test]
    fn a_large_packet_becomes_a_chain_and_comes_back_whole() {
        let config = ArenaConfig { frames: 40, frame_size: 2048, hugepages: Hugepages::Never };
        let mut arena = Arena::new(config).unwrap();
        let bytes: Vec<u8> = (0..65_549u32).map(|at| (at % 251) as u8).collect();
        let head = scatter(&mut arena, record(65_549), &bytes).unwrap();
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
        arena.gather(&packet, &mut back);
        assert_eq!(back, bytes);
        arena.release_chain(head, Owners::RECEIVED);
        assert_eq!(arena.free(), 40);
    }

    #[test]
    fn a_chain_that_finds_too_few_frames_leaves_none_behind() {
        let config = ArenaConfig { frames: 3, frame_size: 2048, hugepages: Hugepages::Never };
        let mut arena = Arena::new(config).unwrap();
        assert!(scatter(&mut arena, record(2048 * 3), &[1; 2048 * 3]).is_none());
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
