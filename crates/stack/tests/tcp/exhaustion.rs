//! Too few frames: writes stop at the reserve, the rest goes on, and all recovers.

use millrace_frames::{Frame, Owners};
use millrace_stack::{Ready, State};

use crate::common::config;
use crate::common::peer::{ACK, FIN, Peer, pattern};

/// Few frames, and 20 of them in reserve.
fn tight(frames: u32) -> Peer {
    let mut config = config();
    config.frame_reserve = 20;
    config.out_of_order_frames_total = 128;
    let mut peer = Peer::stranger(config, frames);
    peer.introduce();
    peer
}

/// Takes frames until only so many are free.
fn hoard(peer: &mut Peer, left: usize) -> Vec<Frame> {
    let mut hoard = Vec::new();
    while peer.stack.arena().free() > left {
        hoard.push(peer.stack.arena_mut().allocate(Owners::RECEIVED).unwrap());
    }
    hoard
}

fn give_back(peer: &mut Peer, hoard: Vec<Frame>) {
    for frame in hoard {
        peer.stack.arena_mut().release(frame, Owners::RECEIVED);
    }
}

#[test]
fn writes_stop_at_the_reserve_and_acknowledgements_go_on() {
    let mut peer = tight(64);
    let id = peer.accepted();
    let frames = hoard(&mut peer, 22);
    let written = peer.stack.write(id, &pattern(0, 100_000)).unwrap();
    assert_eq!(written, 2 * 1000);
    assert_eq!(peer.stack.arena().free(), 20);
    peer.take();
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    peer.send(ACK, 1001, 1, &pattern(1000, 1000));
    let acks = peer.take();
    assert!(acks.iter().any(|segment| segment.ack == 2001), "{acks:?}");
    assert_eq!(peer.read(id), pattern(0, 2000));
    assert!(peer.stack.arena().exhausted() > 0);
    give_back(&mut peer, frames);
}

#[test]
fn room_is_told_when_acknowledgements_free_frames() {
    let mut peer = tight(64);
    let id = peer.accepted();
    peer.stack.write(id, &pattern(0, 100_000)).unwrap();
    peer.take();
    assert!(peer.ready(id).is_empty());
    peer.send(ACK, 1, 5001, &[]);
    assert_eq!(peer.ready(id), Ready::WRITABLE);
    assert!(peer.stack.write(id, &pattern(10_000, 50_000)).unwrap() > 0);
    peer.take();
}

#[test]
fn room_is_told_to_one_who_has_nothing_in_flight() {
    let mut peer = tight(64);
    let id = peer.accepted();
    let frames = hoard(&mut peer, 20);
    assert_eq!(peer.stack.write(id, b"hello").unwrap(), 0);
    assert!(peer.ready(id).is_empty());
    give_back(&mut peer, frames);
    // No acknowledgement will ever come, for nothing was sent.
    assert_eq!(peer.ready(id), Ready::WRITABLE);
    assert_eq!(peer.stack.write(id, b"hello").unwrap(), 5);
    peer.take();
    assert!(peer.ready(id).is_empty());
}

#[test]
fn a_closed_connection_that_was_starved_is_told_nothing() {
    let mut peer = tight(64);
    let id = peer.accepted();
    let frames = hoard(&mut peer, 20);
    assert_eq!(peer.stack.write(id, b"hello").unwrap(), 0);
    peer.close(id);
    peer.take();
    give_back(&mut peer, frames);
    assert_eq!(peer.events(), []);
    // Its entry is used again: the new one does not inherit the wait.
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.take();
    peer.flow.peer_port += 1;
    let other = peer.accepted();
    assert!(peer.ready(other).is_empty());
}

#[test]
fn with_no_frame_at_all_the_connection_waits_and_goes_on_later() {
    let mut peer = tight(64);
    let id = peer.accepted();
    peer.write(id, 0, 3000);
    assert_eq!(peer.take().len(), 3);
    let frames = hoard(&mut peer, 0);
    // Neither acknowledgements nor new segments can be made.
    peer.advance_ms(10);
    peer.stack.shutdown_write(id).unwrap();
    peer.collect();
    peer.expect_silence();
    assert!(peer.stack.counters().drop_no_frame > 0);
    assert!(peer.stack.wants_transmit());
    give_back(&mut peer, frames);
    peer.collect();
    peer.expect(FIN | ACK);
    peer.send(ACK, 1, 3002, &[]);
    assert_eq!(peer.state(id), State::FinWait2);
}

#[test]
fn a_retransmission_needs_no_frame_once_the_port_is_done() {
    let mut peer = tight(64);
    let id = peer.accepted();
    peer.write(id, 0, 1000);
    peer.expect_data(1, 1000);
    let frames = hoard(&mut peer, 0);
    peer.wait();
    peer.expect_data(1, 1000);
    give_back(&mut peer, frames);
}

#[test]
fn received_payload_leaves_frames_for_the_rest() {
    let mut peer = tight(128);
    let id = peer.accepted();
    let frames = hoard(&mut peer, 22);
    // Beyond a gap: nothing of it can be read.
    for at in 1..4u32 {
        peer.send(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000));
    }
    // The one that was dropped had a frame, too, while it was looked at.
    assert_eq!(peer.stack.arena().free(), 21);
    assert_eq!(peer.stack.counters().drop_tcp_out_of_order_full, 2);
    // In order it may go further, to half of the reserve.
    for _ in 0..6 {
        peer.take();
        peer.flow.peer_port += 1;
        peer.accepted();
        for at in 0..3u32 {
            peer.send(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000));
        }
    }
    assert_eq!(peer.stack.arena().free(), 11);
    assert!(peer.stack.counters().drop_tcp_receive_queue_full > 0);
    peer.take();
    give_back(&mut peer, frames);
    let _ = id;
}
