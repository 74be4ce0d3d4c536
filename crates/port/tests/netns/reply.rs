//! Just enough of IP and TCP to answer the kernel: packets made from the one that they answer,
//! transport checksums left to the port.

use std::net::Ipv4Addr;

use millrace_frames::{Arena, Owners, Transmit, TxBatch};
use millrace_wire::checksum;

/// Ethernet and IPv4 without options.
pub const TRANSPORT: usize = 34;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const ACK: u8 = 16;

pub fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2))
}

/// Whether this is an IPv4 packet of the protocol, without options, untagged.
pub fn is(protocol: u8, bytes: &[u8]) -> bool {
    bytes.len() >= TRANSPORT + 8 && word(bytes, 12) == 0x0800 && bytes[23] == protocol
}

/// The datagram's payload.
pub fn udp_payload(bytes: &[u8]) -> &[u8] {
    &bytes[TRANSPORT + 8..TRANSPORT + usize::from(word(bytes, TRANSPORT + 4))]
}

/// Where a segment's payload begins, and how long it is.
pub fn tcp_payload(bytes: &[u8]) -> (usize, usize) {
    let begin = TRANSPORT + usize::from(bytes[TRANSPORT + 12] >> 4) * 4;
    (begin, usize::from(word(bytes, 16)) + 14 - begin)
}

/// A packet to where `request` came from, with `transport` behind its headers. The checksum field
/// holds the pseudo-header's sum.
pub fn answer(request: &[u8], transport: &[u8]) -> Vec<u8> {
    let mut bytes = request[..TRANSPORT].to_vec();
    bytes[..6].copy_from_slice(&request[6..12]);
    bytes[6..12].copy_from_slice(&request[..6]);
    bytes[16..18].copy_from_slice(&(20 + transport.len() as u16).to_be_bytes());
    bytes[24..26].fill(0);
    bytes[26..30].copy_from_slice(&request[30..34]);
    bytes[30..34].copy_from_slice(&request[26..30]);
    let sum = checksum::finish(checksum::sum(&bytes[14..34]));
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes.extend_from_slice(transport);
    let address = |at| Ipv4Addr::from_bits(long(&bytes, at));
    let sum = checksum::pseudo_v4(address(26), address(30), bytes[23], transport.len());
    let field = TRANSPORT + usize::from(checksum_field(&bytes));
    bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Where the transport's checksum is.
pub fn checksum_field(bytes: &[u8]) -> u16 {
    if bytes[23] == TCP { 16 } else { 6 }
}

/// A datagram back to the port that `request` came from.
pub fn udp_answer(request: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut transport = [&request[36..38], &request[34..36]].concat();
    transport.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    transport.extend_from_slice(&[0, 0]);
    transport.extend_from_slice(payload);
    answer(request, &transport)
}

/// A segment in answer to `received`. A SYN offers an MSS of 1460 and a window scale of 10.
pub fn tcp_answer(received: &[u8], sequence: u32, next: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let syn = flags & SYN != 0;
    let mut transport = [&received[36..38], &received[34..36]].concat();
    transport.extend_from_slice(&sequence.to_be_bytes());
    transport.extend_from_slice(&next.to_be_bytes());
    transport.extend_from_slice(&[if syn { 7 << 4 } else { 5 << 4 }, flags]);
    transport.extend_from_slice(&[0x40, 0, 0, 0, 0, 0]);
    if syn {
        transport.extend_from_slice(&[2, 4, 0x05, 0xb4, 1, 3, 3, 10]);
    }
    transport.extend_from_slice(payload);
    answer(received, &transport)
}

/// Puts a packet into frames and at the end of `batch`, for the port to finish its checksum and,
/// where `gso_size` is not 0, to cut it up. False: the arena or the batch is full.
pub fn send(arena: &mut Arena, batch: &mut TxBatch, bytes: &[u8], gso_size: u16) -> bool {
    let room = arena.frame_size() - Arena::HEADROOM;
    let count = bytes.len().div_ceil(room);
    if batch.is_full() || arena.free() < count {
        return false;
    }
    let mut last = None;
    for piece in bytes.rchunks(room).collect::<Vec<_>>() {
        let Some(frame) = arena.allocate(Owners::TRANSMIT) else { return false };
        arena.room_mut(frame)[Arena::HEADROOM..Arena::HEADROOM + piece.len()]
            .copy_from_slice(piece);
        let meta = arena.meta_mut(frame);
        meta.len = piece.len() as u16;
        if let Some(after) = last {
            meta.next = after;
        }
        last = Some(frame);
    }
    let Some(head) = last else { return false };
    let packet = Transmit {
        head,
        total: bytes.len() as u32,
        offset: Arena::HEADROOM as u16,
        len: arena.meta(head).len,
        frames: count as u16,
        gso_size,
        checksum_start: TRANSPORT as u16,
        checksum_offset: checksum_field(bytes),
        ipv6: false,
    };
    batch.push(packet).is_ok()
}
