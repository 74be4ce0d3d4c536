//! What a port knows of checksums, and what the stack then believes.

use millrace_frames::ChecksumState;
use millrace_wire::{checksum, protocol};

use crate::common::craft::{PEER_IP, STACK_IP, udp_datagram};
use crate::common::peer::{ACK, Peer, pattern};

const FIELD: core::ops::Range<usize> = 14 + 20 + 16..14 + 20 + 18;

/// A segment of the connection with its checksum field as a local sender leaves it, or `wrong`.
fn segment(peer: &Peer, seq: u32, wrong: u16) -> Vec<u8> {
    let payload = pattern(seq as usize - 1, 100);
    let mut bytes = peer.segment(ACK, seq, 1, &payload).bytes();
    let pseudo = checksum::pseudo_v4(PEER_IP, STACK_IP, protocol::TCP, 120);
    bytes[FIELD].copy_from_slice(&pseudo.wrapping_add(wrong).to_be_bytes());
    bytes
}

#[test]
fn unknown_ones_are_verified() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    let unfinished = segment(&peer, 1, 0);
    peer.inject_with(&unfinished, ChecksumState::Unknown);
    assert_eq!(peer.read(id), [0; 0]);
    let mut flipped = peer.segment(ACK, 1, 1, &pattern(0, 100)).bytes();
    for at in 34..flipped.len() {
        flipped[at] ^= 0x10;
        peer.inject_with(&flipped, ChecksumState::Unknown);
        flipped[at] ^= 0x10;
    }
    assert_eq!(peer.read(id), [0; 0]);
    let dropped =
        peer.stack.counters().drop_tcp_checksum + peer.stack.counters().drop_tcp_malformed;
    assert_eq!(dropped, 1 + 120);
    peer.inject_with(&flipped, ChecksumState::Unknown);
    assert_eq!(peer.read(id), pattern(0, 100));
}

#[test]
fn a_port_that_verified_or_never_had_one_is_believed() {
    for state in [ChecksumState::Verified, ChecksumState::Unfinished] {
        let mut peer = Peer::new();
        let id = peer.accepted();
        let bytes = segment(&peer, 1, 0x1234);
        peer.inject_with(&bytes, state);
        assert_eq!(peer.read(id), pattern(0, 100), "{state:?}");
    }
}

#[test]
fn on_a_link_that_does_not_say_exactly_the_pseudo_sum_is_believed() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    for wrong in [1, 0xffff, 0x8000] {
        let bytes = segment(&peer, 1, wrong);
        peer.inject_with(&bytes, ChecksumState::MaybeUnfinished);
    }
    assert_eq!(peer.read(id), [0; 0]);
    assert_eq!(peer.stack.counters().drop_tcp_checksum, 3);
    let bytes = segment(&peer, 1, 0);
    peer.inject_with(&bytes, ChecksumState::MaybeUnfinished);
    assert_eq!(peer.read(id), pattern(0, 100));
    let whole = peer.segment(ACK, 101, 1, &pattern(100, 100)).bytes();
    peer.inject_with(&whole, ChecksumState::MaybeUnfinished);
    assert_eq!(peer.read(id), pattern(100, 100));
}

#[test]
fn the_same_holds_for_datagrams() {
    let mut peer = Peer::new();
    let socket = peer.bind_datagram("192.0.2.1:53".parse().unwrap());
    let mut bytes = udp_datagram((PEER_IP, 1), (STACK_IP, 53), b"unfinished");
    let pseudo = checksum::pseudo_v4(PEER_IP, STACK_IP, protocol::UDP, 18);
    bytes[40..42].copy_from_slice(&pseudo.to_be_bytes());
    for (state, taken) in [
        (ChecksumState::Unknown, false),
        (ChecksumState::Verified, true),
        (ChecksumState::Unfinished, true),
        (ChecksumState::MaybeUnfinished, true),
    ] {
        peer.inject_with(&bytes, state);
        let datagram = peer.stack.receive_datagram(socket).unwrap();
        assert_eq!(datagram.is_some(), taken, "{state:?}");
        if let Some(datagram) = datagram {
            peer.stack.arena_mut().release(datagram.frame, millrace_frames::Owners::RECEIVED);
        }
    }
}

#[test]
fn a_wrong_ip_header_checksum_drops() {
    let mut peer = Peer::new();
    peer.accepted();
    let mut bytes = peer.segment(ACK, 1, 1, b"x").bytes();
    bytes[14 + 8] ^= 1; // time to live
    for state in [ChecksumState::Unknown, ChecksumState::MaybeUnfinished, ChecksumState::Unfinished]
    {
        peer.inject_with(&bytes, state);
    }
    assert_eq!(peer.stack.counters().drop_ip_checksum, 3);
}
