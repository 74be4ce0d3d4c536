//! The frames that the checks send.

use std::net::Ipv4Addr;

use millrace_frames::{Arena, Frame, Owners, Transmit};
use millrace_wire::checksum;

/// Source of every frame that a check sends, in both directions.
pub const SOURCE: [u8; 6] = [2, 0x6d, 0x69, 0x6c, 0x6c, 1];
/// Destination of every frame that the port sends.
pub const DESTINATION: [u8; 6] = [2, 0x6d, 0x69, 0x6c, 0x6c, 2];
/// IEEE 802 local experimental EtherType 1: nobody answers it.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Headers of [`tcp`]: Ethernet, IPv4 and TCP without options.
pub const TCP_HEADERS: usize = 14 + 20 + 20;
/// Where the transport starts in [`tcp`] and [`udp`].
pub const TRANSPORT: usize = 14 + 20;

/// A frame of `len` bytes that no other (`number`, `len`) has, from the peer to the port or back.
pub fn frame(destination: [u8; 6], number: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&destination);
    bytes.extend_from_slice(&SOURCE);
    bytes.extend_from_slice(&EXPERIMENTAL);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend(payload(number, len - bytes.len()));
    bytes
}

/// `len` bytes without a short period.
pub fn payload(number: u32, len: usize) -> impl Iterator<Item = u8> {
    let mut state = number.wrapping_mul(2).wrapping_add(1);
    (0..len).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
}

/// Whether a check sent it.
pub fn is_ours(bytes: &[u8]) -> bool {
    bytes.get(6..12) == Some(&SOURCE)
}

const FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A TCP segment whose checksum field holds the pseudo-header's sum.
pub fn tcp(destination: [u8; 6], payload_len: usize) -> Vec<u8> {
    let mut transport = vec![0; 20];
    transport[..4].copy_from_slice(&[0x80, 1, 0x80, 2]);
    transport[4..8].copy_from_slice(&1000u32.to_be_bytes());
    transport[12..16].copy_from_slice(&[5 << 4, 0x10, 0xff, 0xff]);
    transport.extend(payload(7, payload_len));
    ipv4(destination, 6, transport, 16)
}

/// A UDP datagram whose checksum field holds the pseudo-header's sum.
pub fn udp(destination: [u8; 6], payload_len: usize) -> Vec<u8> {
    let mut transport = vec![0x80, 1, 0x80, 2];
    transport.extend_from_slice(&((8 + payload_len) as u16).to_be_bytes());
    transport.extend_from_slice(&[0; 2]);
    transport.extend(payload(8, payload_len));
    ipv4(destination, 17, transport, 6)
}

fn ipv4(destination: [u8; 6], protocol: u8, mut transport: Vec<u8>, field: usize) -> Vec<u8> {
    let pseudo = checksum::pseudo_v4(FROM, TO, protocol, transport.len());
    transport[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&((20 + transport.len()) as u16).to_be_bytes());
    header.extend_from_slice(&[0, 1, 0x40, 0, 64, protocol, 0, 0]);
    header.extend_from_slice(&FROM.octets());
    header.extend_from_slice(&TO.octets());
    let sum = checksum::finish(checksum::sum(&header));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&destination[..], &SOURCE, &[8, 0], &header, &transport].concat()
}

/// The IP packet in a frame of [`tcp`] or [`udp`] without what pads it.
fn ip(bytes: &[u8]) -> &[u8] {
    let total = u16::from_be_bytes([bytes[16], bytes[17]]) as usize;
    &bytes[14..14 + total]
}

/// Bytes behind the headers of a frame of [`tcp`], without padding.
pub fn tcp_payload(bytes: &[u8]) -> &[u8] {
    &ip(bytes)[40..]
}

/// Whether the transport checksum verifies.
pub fn checksum_verifies(bytes: &[u8]) -> bool {
    let transport = &ip(bytes)[20..];
    let pseudo = checksum::pseudo_v4(FROM, TO, bytes[23], transport.len());
    checksum::sum(&[&pseudo.to_be_bytes()[..], transport].concat()) == 0xffff
}

/// Whether the transport checksum's field holds the pseudo-header's sum.
pub fn checksum_is_unfinished(bytes: &[u8]) -> bool {
    let transport = &ip(bytes)[20..];
    let field = if bytes[23] == 17 { 6 } else { 16 };
    let pseudo = checksum::pseudo_v4(FROM, TO, bytes[23], transport.len());
    transport[field..field + 2] == pseudo.to_be_bytes()
}

/// A packet to transmit with these bytes, each frame at most `piece` of them.
pub fn stage(arena: &mut Arena, bytes: &[u8], piece: usize) -> Transmit {
    let mut packet = Transmit { total: bytes.len() as u32, ..Transmit::default() };
    let mut last = Frame::NONE;
    let piece = piece.min(arena.frame_size() - Arena::HEADROOM);
    for part in bytes.chunks(piece) {
        let frame = arena.allocate(Owners::TRANSMIT).expect("a free frame");
        let offset = arena.meta(frame).offset as usize;
        arena.room_mut(frame)[offset..offset + part.len()].copy_from_slice(part);
        arena.meta_mut(frame).len = part.len() as u16;
        if last.is_none() {
            packet.head = frame;
            packet.offset = offset as u16;
            packet.len = part.len() as u16;
        } else {
            arena.meta_mut(last).next = frame;
        }
        packet.frames += 1;
        last = frame;
    }
    packet
}

/// The bytes of a received chain, with its meta data checked.
pub fn chain_bytes(arena: &Arena, head: Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut frame = head;
    while frame.is_some() {
        assert!(arena.owners(frame).contains(Owners::RECEIVED), "{frame:?}");
        bytes.extend_from_slice(arena.bytes(frame));
        frame = arena.meta(frame).next;
    }
    assert_eq!(bytes.len(), arena.meta(head).total as usize, "total is the chain's length");
    bytes
}
