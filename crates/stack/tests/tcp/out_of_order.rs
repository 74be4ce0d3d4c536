//! Segments in any order, twice, and overlapping (RFC 9293 §3.10.7.4, seventh).

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::common::peer::{ACK, FIN, Peer, pattern};
use millrace_stack::State;

fn send(peer: &mut Peer, start: usize, end: usize) {
    peer.send(ACK, 1 + start as u32, 1, &pattern(start, end - start));
}

#[test]
fn a_gap_is_filled() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    send(&mut peer, 1000, 2000);
    assert_eq!(peer.read(id), [0; 0]);
    send(&mut peer, 0, 1000);
    assert_eq!(peer.read(id), pattern(0, 2000));
    assert_eq!(peer.stack.counters().out_of_order, 1);
}

#[test]
fn every_kind_of_overlap_delivers_each_byte_once() {
    // What is there first, and what comes on top of it.
    let kinds = [
        ((100, 200), (100, 200)), // the same
        ((100, 200), (120, 180)), // within
        ((120, 180), (100, 200)), // around
        ((100, 200), (50, 150)),  // over the left edge
        ((100, 200), (150, 250)), // over the right edge
        ((100, 200), (100, 150)), // the left part
        ((100, 200), (150, 200)), // the right part
        ((100, 150), (100, 200)), // longer to the right
        ((150, 200), (100, 200)), // longer to the left
        ((100, 200), (200, 300)), // adjacent
        ((200, 300), (100, 200)), // adjacent, before
    ];
    for ((a, b), (c, d)) in kinds {
        let mut peer = Peer::new();
        let id = peer.accepted();
        send(&mut peer, a, b);
        send(&mut peer, c, d);
        send(&mut peer, 400, 500);
        peer.take();
        send(&mut peer, 0, 100);
        send(&mut peer, 0, 150);
        send(&mut peer, 0, 400);
        assert_eq!(peer.read(id), pattern(0, 500), "{:?}", ((a, b), (c, d)));
    }
}

#[test]
fn a_longer_segment_at_the_same_place_as_the_last_one_is_kept_whole() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    send(&mut peer, 100, 150);
    send(&mut peer, 100, 300);
    send(&mut peer, 400, 500);
    send(&mut peer, 300, 400);
    peer.take();
    send(&mut peer, 0, 100);
    peer.expect_ack(501);
    assert_eq!(peer.read(id), pattern(0, 500));
}

#[test]
fn partly_old_segments_are_cut_in_front() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    send(&mut peer, 0, 100);
    send(&mut peer, 50, 150);
    assert_eq!(peer.read(id), pattern(0, 150));
}

#[test]
fn the_queue_is_bounded_and_its_overflow_counted() {
    let mut peer = Peer::with(|config| config.out_of_order_frames = 4);
    let id = peer.accepted();
    for at in 1..10 {
        send(&mut peer, at * 400, at * 400 + 400);
    }
    assert_eq!(peer.stack.counters().out_of_order, 4);
    assert_eq!(peer.stack.counters().drop_tcp_out_of_order_full, 5);
    peer.take();
    send(&mut peer, 0, 400);
    peer.expect_ack(2001);
    assert_eq!(peer.read(id), pattern(0, 2000));
}

#[test]
fn out_of_order_data_of_a_dead_connection_is_given_back() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    let free = peer.stack.arena().free();
    for at in 1..10 {
        send(&mut peer, at * 100, at * 100 + 100);
    }
    assert!(peer.stack.arena().free() < free);
    peer.stack.abort(id);
    peer.collect();
    assert_eq!(peer.stack.arena().free(), free);
}

#[test]
fn many_tiny_segments_do_not_hold_many_frames() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    let free = peer.stack.arena().free();
    for at in 0..1000 {
        send(&mut peer, at * 10, at * 10 + 10);
    }
    assert!(free - peer.stack.arena().free() < 10, "{} frames", free - peer.stack.arena().free());
    assert_eq!(peer.read(id), pattern(0, 10_000));
}

#[test]
fn sequence_numbers_wrap() {
    let mut peer = Peer::new();
    peer.flow.isn = u32::MAX - 1500;
    let id = peer.accepted();
    for at in [3, 1, 0, 2, 4] {
        send(&mut peer, at * 1000, at * 1000 + 1000);
    }
    assert_eq!(peer.read(id), pattern(0, 5000));
    peer.send(FIN | ACK, 5001, 1, &[]);
    assert_eq!(peer.state(id), State::CloseWait);
}

/// Cuts of a stream with overlaps, repetitions and any order, in batches of any size.
fn schedule(len: usize) -> impl Strategy<Value = Vec<Vec<(usize, usize)>>> {
    let piece =
        (0..len, 1usize..1400).prop_map(move |(start, size)| (start, len.min(start + size)));
    prop::collection::vec(prop::collection::vec(piece, 1..12), 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6d69_6c6c),
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_segmentation_delivers_exactly_the_bytes(
        batches in schedule(12_000),
        isn: u32,
        slow_reader: bool,
        buffer in prop::sample::select(vec![2048u32, 8000, 65_535, 200_000]),
    ) {
        let len = 12_000;
        let mut peer = Peer::with(|config| {
            config.receive_buffer = buffer;
            config.out_of_order_frames = 40;
        });
        peer.flow.isn = isn;
        let id = peer.accepted_with(Some(1400), Some(0));
        let mut got = Vec::new();
        for batch in &batches {
            let packets: Vec<_> = batch
                .iter()
                .map(|&(start, end)| {
                    let flags = if end == len { FIN | ACK } else { ACK };
                    peer.segment(flags, 1 + start as u32, 1, &pattern(start, end - start)).bytes()
                })
                .collect();
            peer.inject_batch(&packets);
            if !slow_reader {
                got.extend(peer.read(id));
            }
            for segment in peer.take() {
                prop_assert!(segment.ack >= 1 && segment.ack as usize <= len + 2);
            }
        }
        got.extend(peer.read(id));
        prop_assert_eq!(&got, &pattern(0, got.len()));
        // Whatever was missing, in order, until the end has come.
        let mut turns = 0;
        while !peer.stack.finished(id).unwrap() {
            let start = got.len();
            let end = len.min(start + 1400);
            let flags = if end == len { FIN | ACK } else { ACK };
            peer.send(flags, 1 + start as u32, 1, &pattern(start, end - start));
            got.extend(peer.read(id));
            turns += 1;
            prop_assert!(turns < 100, "stuck at {}", got.len());
        }
        prop_assert_eq!(got, pattern(0, len));
    }
}

#[test]
fn what_finds_no_room_is_answered_once_in_a_while() {
    let mut peer = Peer::with(|config| config.out_of_order_frames = 2);
    let id = peer.accepted();
    for at in 1..30 {
        send(&mut peer, at * 400, at * 400 + 300);
    }
    // Each that was kept, and one of those that were not.
    assert_eq!(peer.take().len(), 3);
    peer.advance_ms(500);
    for at in 30..60 {
        send(&mut peer, at * 400, at * 400 + 300);
    }
    assert_eq!(peer.take().len(), 1);
    let counters = peer.stack.counters();
    assert_eq!((counters.drop_tcp_out_of_order_full, counters.acks_suppressed), (57, 55));
    let _ = id;
}
