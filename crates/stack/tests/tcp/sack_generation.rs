//! Selective acknowledgements of what came (RFC 2018) and of what came twice (RFC 2883).

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::common::peer::{ACK, FIN, Peer, SYN, pattern};

fn with_sack() -> Peer {
    let mut peer = Peer::new();
    peer.accepted_sack();
    peer
}

/// Segments of 100 bytes, by number; what the acknowledgement that follows at once says.
fn arrives(peer: &mut Peer, at: u32) -> (u32, Vec<(u32, u32)>) {
    span(peer, at * 100, at * 100 + 100)
}

fn span(peer: &mut Peer, start: u32, end: u32) -> (u32, Vec<(u32, u32)>) {
    peer.send(ACK, 1 + start, 1, &pattern(start as usize, (end - start) as usize));
    let Some(segment) = peer.take().pop() else { return (0, Vec::new()) };
    let blocks = peer.blocks(&segment).into_iter().map(|(a, b)| (a - 1, b - 1)).collect();
    (segment.ack - 1, blocks)
}

#[test]
fn without_permission_there_are_none() {
    let mut peer = Peer::new();
    peer.accepted();
    assert_eq!(arrives(&mut peer, 1), (0, vec![]));
    assert_eq!(arrives(&mut peer, 1), (0, vec![]));
}

#[test]
fn switched_off_they_are_not_agreed_on() {
    let mut peer = Peer::with(|config| config.tcp.sack = false);
    peer.listen(80, 4);
    peer.send_syn_sack(SYN);
    assert!(!peer.expect(SYN | ACK).options.sack_permitted);
    peer.send(ACK, 1, 1, &[]);
    assert_eq!(arrives(&mut peer, 1), (0, vec![]));
}

#[test]
fn the_block_of_the_last_segment_comes_first() {
    // RFC 2018 §4, with every second segment lost.
    let mut peer = with_sack();
    assert_eq!(arrives(&mut peer, 1), (0, vec![(100, 200)]));
    assert_eq!(arrives(&mut peer, 3), (0, vec![(300, 400), (100, 200)]));
    assert_eq!(arrives(&mut peer, 5), (0, vec![(500, 600), (300, 400), (100, 200)]));
    let four = vec![(700, 800), (500, 600), (300, 400), (100, 200)];
    assert_eq!(arrives(&mut peer, 7), (0, four));
    let latest = vec![(900, 1000), (700, 800), (500, 600), (300, 400)];
    assert_eq!(arrives(&mut peer, 9), (0, latest));
    // A gap between two closes: their block goes first.
    let joined = vec![(300, 600), (900, 1000), (700, 800), (100, 200)];
    assert_eq!(arrives(&mut peer, 4), (0, joined));
    assert_eq!(arrives(&mut peer, 0), (200, vec![(300, 600), (900, 1000), (700, 800)]));
    assert_eq!(arrives(&mut peer, 2), (600, vec![(900, 1000), (700, 800)]));
    assert_eq!(arrives(&mut peer, 8), (600, vec![(700, 1000)]));
    assert_eq!(arrives(&mut peer, 6), (1000, vec![]));
}

#[test]
fn blocks_that_came_in_one_turn_are_told_of_each() {
    // With every second segment lost, more blocks than fit into one acknowledgement.
    let told = |turns: &[Vec<u32>]| -> Vec<_> {
        let mut peer = Peer::new();
        peer.timestamp = Some(9);
        peer.accepted_sack();
        for turn in turns {
            let segment = |&at: &u32| {
                peer.segment(ACK, 1 + at * 100, 1, &pattern(at as usize * 100, 100)).bytes()
            };
            peer.inject_batch(&turn.iter().map(segment).collect::<Vec<_>>());
        }
        let segments = peer.take();
        segments.iter().map(|segment| (segment.ack, peer.blocks(segment)[0])).collect()
    };
    let all: Vec<u32> = (1..20).step_by(2).collect();
    let alone: Vec<Vec<u32>> = all.iter().map(|&at| vec![at]).collect();
    assert_eq!(told(&[all]), told(&alone));
}

#[test]
fn the_rest_is_told_of_by_what_leaves_next() {
    for (timestamp, fit) in [(None, 4), (Some(9), 3)] {
        let mut peer = Peer::new();
        peer.timestamp = timestamp;
        peer.accepted_sack();
        let batch: Vec<_> = [1, 3, 5, 7, 9, 11, 0]
            .iter()
            .map(|&at| peer.segment(ACK, 1 + at * 100, 1, &pattern(at as usize * 100, 100)).bytes())
            .collect();
        peer.inject_batch(&batch);
        // There is one acknowledgement, for it tells of something new. What is not in it must be
        // what came last, or the peer takes it for lost.
        let first = peer.expect_ack(201);
        let old = [(901, 1001), (701, 801), (501, 601), (301, 401)];
        assert_eq!(peer.blocks(&first), old[4 - fit..]);
        let new = [(1300, 1400), (1100, 1200), (900, 1000), (700, 800)];
        assert_eq!(arrives(&mut peer, 13).1, new[..fit]);
    }
}

#[test]
fn beside_timestamps_there_are_three() {
    let mut peer = Peer::new();
    peer.timestamp = Some(9);
    peer.accepted_sack();
    for at in [1, 3, 5] {
        arrives(&mut peer, at);
    }
    assert_eq!(arrives(&mut peer, 7).1, [(700, 800), (500, 600), (300, 400)]);
}

#[test]
fn data_has_as_many_as_fit_beside_it() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack();
    peer.stack.set_no_delay(id, true).unwrap();
    for at in [1, 3, 5, 7] {
        arrives(&mut peer, at);
    }
    for (len, blocks) in [(1000, 0), (989, 0), (988, 1), (980, 2), (10, 4)] {
        let start = peer.stack.info(id).unwrap().send_queue as usize;
        peer.write(id, start, len);
        let segment = peer.expect(ACK);
        assert_eq!((segment.payload.len(), segment.options.sack().len()), (len, blocks));
    }
}

#[test]
fn a_segment_below_the_window_is_reported_once() {
    let mut peer = with_sack();
    arrives(&mut peer, 0);
    arrives(&mut peer, 1);
    assert_eq!(arrives(&mut peer, 0), (200, vec![(0, 100)]));
    // RFC 2883 §4.1.1: and before the other blocks.
    assert_eq!(arrives(&mut peer, 4), (200, vec![(400, 500)]));
    assert_eq!(arrives(&mut peer, 1), (200, vec![(100, 200), (400, 500)]));
    assert_eq!(arrives(&mut peer, 5), (200, vec![(400, 600)]));
    assert_eq!(peer.stack.counters().duplicates_reported, 2);
}

#[test]
fn partly_new_segments_report_the_old_part() {
    let mut peer = with_sack();
    arrives(&mut peer, 0);
    assert_eq!(span(&mut peer, 50, 150), (150, vec![(50, 100)]));
}

#[test]
fn a_duplicate_beyond_the_gap_comes_with_the_block_around_it() {
    let mut peer = with_sack();
    arrives(&mut peer, 2);
    arrives(&mut peer, 3);
    arrives(&mut peer, 6);
    // RFC 2883 §4.1.3.
    assert_eq!(arrives(&mut peer, 3), (0, vec![(300, 400), (200, 400), (600, 700)]));
    assert_eq!(peer.stack.counters().drop_tcp_duplicate, 1);
    // Partly there, over both edges and over a gap.
    assert_eq!(span(&mut peer, 350, 450).1, [(350, 400), (200, 450), (600, 700)]);
    assert_eq!(span(&mut peer, 550, 650).1, [(600, 650), (550, 700), (200, 450)]);
    assert_eq!(span(&mut peer, 100, 900).1[0], (200, 450));
    assert_eq!(arrives(&mut peer, 0), (900, vec![]));
}

#[test]
fn what_fills_a_gap_and_more_reports_the_more() {
    let mut peer = with_sack();
    arrives(&mut peer, 2);
    assert_eq!(span(&mut peer, 0, 250), (300, vec![(200, 250)]));
}

#[test]
fn several_duplicates_in_one_turn_are_reported_each() {
    let mut peer = with_sack();
    for at in 0..4 {
        arrives(&mut peer, at);
    }
    let again: Vec<_> = (0..3)
        .map(|at| peer.segment(ACK, 1 + at * 100, 1, &pattern(at as usize * 100, 100)).bytes())
        .collect();
    peer.inject_batch(&again);
    let segments = peer.take();
    let reported: Vec<_> = segments.iter().flat_map(|segment| peer.blocks(segment)).collect();
    assert_eq!(reported, [(1, 101), (101, 201), (201, 301)]);
}

#[test]
fn duplicates_are_not_reported_where_that_is_switched_off() {
    let mut peer = Peer::with(|config| config.tcp.dsack = false);
    peer.accepted_sack();
    arrives(&mut peer, 0);
    assert_eq!(arrives(&mut peer, 0), (100, vec![]));
}

#[test]
fn a_fin_beyond_the_gap_is_told_of() {
    let mut peer = with_sack();
    peer.send(FIN | ACK, 101, 1, &pattern(100, 100));
    let segment = peer.expect_ack(1);
    assert_eq!(peer.blocks(&segment), [(101, 202)]);
    peer.send(ACK, 1, 1, &pattern(0, 100));
    peer.expect_ack(202);
}

#[test]
fn a_lone_fin_beyond_the_gap_is_told_of() {
    let mut peer = with_sack();
    peer.send(FIN | ACK, 301, 1, &[]);
    let segment = peer.expect_ack(1);
    assert_eq!(peer.blocks(&segment), [(301, 302)]);
    peer.send(FIN | ACK, 301, 1, &[]);
    let segment = peer.expect_ack(1);
    assert_eq!(peer.blocks(&segment), [(301, 302), (301, 302)]);
    // In every answer, as blocks are; and what reaches it has it.
    peer.send(ACK, 1, 2, &[]);
    let segment = peer.expect_ack(1);
    assert_eq!(peer.blocks(&segment), [(301, 302)]);
    assert_eq!(arrives(&mut peer, 1), (0, vec![(100, 200), (300, 301)]));
    assert_eq!(arrives(&mut peer, 2), (0, vec![(100, 301)]));
    peer.send(FIN | ACK, 301, 1, &[]);
    let segment = peer.expect_ack(1);
    assert_eq!(peer.blocks(&segment), [(301, 302), (101, 302)]);
    assert_eq!(arrives(&mut peer, 0), (301, vec![]));
    assert_eq!(arrives(&mut peer, 2), (301, vec![(200, 300)]));
}

#[test]
fn of_an_old_timestamp_what_was_there_is_told_of() {
    let mut peer = Peer::new();
    peer.timestamp = Some(100_000);
    peer.accepted_sack();
    arrives(&mut peer, 0);
    peer.timestamp = Some(50_000);
    assert_eq!(span(&mut peer, 0, 100), (100, vec![(0, 100)]));
    assert_eq!(span(&mut peer, 50, 150), (100, vec![(50, 100)]));
    assert_eq!(span(&mut peer, 100, 200), (100, vec![]));
    assert_eq!(peer.stack.counters().drop_tcp_paws, 3);
}

#[test]
fn a_fin_that_comes_twice_is_told_of() {
    let mut peer = with_sack();
    for blocks in [vec![], vec![(1, 2)]] {
        peer.send(FIN | ACK, 1, 1, &[]);
        let segment = peer.expect_ack(2);
        assert_eq!(peer.blocks(&segment), blocks);
    }
}

#[test]
fn a_lone_fin_is_forgotten_with_the_gap() {
    let mut peer = with_sack();
    peer.send(FIN | ACK, 101, 1, &[]);
    let segment = peer.expect_ack(1);
    assert_eq!(peer.blocks(&segment), [(101, 102)]);
    assert_eq!(arrives(&mut peer, 0), (101, vec![]));
    assert_eq!(arrives(&mut peer, 0), (101, vec![(0, 100)]));
}

#[test]
fn a_hoarder_leaves_room_for_others() {
    let mut peer = Peer::with(|config| {
        config.out_of_order_frames = 500;
        config.out_of_order_frames_total = 600;
        config.receive_buffer = 4 << 20;
    });
    let frames = |peer: &mut Peer, count: u32| {
        let before = peer.stack.counters().out_of_order;
        for at in 0..count {
            peer.send(ACK, 101 + at * 2, 1, b"x");
            peer.take();
        }
        peer.stack.counters().out_of_order - before
    };
    let mut kept = Vec::new();
    for _ in 0..6 {
        peer.flow.peer_port += 1;
        peer.accepted_sack();
        kept.push(frames(&mut peer, 600));
    }
    // Each gets at most what all others leave; the last is not left with nothing.
    assert_eq!(kept, [300, 150, 75, 38, 19, 9]);
    assert!(peer.stack.counters().drop_tcp_out_of_order_full > 0);
}

#[test]
fn single_bytes_with_gaps_between_are_kept_within_the_bound() {
    let mut peer = Peer::with(|config| {
        config.receive_buffer = 1 << 20;
        config.out_of_order_frames_total = 512;
    });
    let id = peer.accepted_sack();
    for at in (0..3000u32).rev() {
        peer.send(ACK, 2 + at * 2, 1, &pattern(1 + at as usize * 2, 1));
        peer.take();
    }
    // As much as is left to others.
    assert_eq!(peer.stack.counters().out_of_order, 512 / 2);
    assert_eq!(peer.stack.counters().drop_tcp_out_of_order_full, 3000 - 256);
    for start in (0..6000).step_by(1000) {
        peer.send(ACK, 1 + start, 1, &pattern(start as usize, 1000));
    }
    peer.take();
    assert_eq!(peer.read(id), pattern(0, 6000));
}

#[test]
fn all_of_the_window_is_kept_behind_a_gap() {
    let mut peer = Peer::with(|config| config.receive_buffer = 8 << 20);
    let id = peer.accepted_with(Some(1460), Some(7));
    let mut seq = 1;
    let mut send = |peer: &mut Peer, gap: u32| {
        seq += gap;
        peer.send(ACK, seq, 1, &pattern(seq as usize - 1, 1460));
        seq += 1460;
        peer.take();
    };
    // How large the peer's segments are is seen.
    for _ in 0..20 {
        send(&mut peer, 0);
        peer.read(id);
    }
    // Frames are what limits it, not the buffer.
    let window = peer.stack.info(id).unwrap().receive_window;
    assert!((100 * 1460..1 << 20).contains(&window), "{window}");
    send(&mut peer, 1460);
    for _ in 2..window / 1460 {
        send(&mut peer, 0);
    }
    assert_eq!(peer.stack.counters().out_of_order, u64::from(window / 1460 - 1));
    assert_eq!(peer.stack.counters().drop_tcp_out_of_order_full, 0);
}

#[test]
fn what_finds_no_room_is_answered_once_a_turn() {
    let mut peer = Peer::with(|config| config.out_of_order_frames = 1);
    peer.accepted_sack();
    let packets: Vec<_> = (1..20)
        .map(|at| peer.segment(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 500)).bytes())
        .collect();
    peer.inject_batch(&packets);
    assert_eq!(peer.stack.counters().drop_tcp_out_of_order_full, 18);
    assert_eq!(peer.take().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x7361_636b),
        ..ProptestConfig::default()
    })]

    /// Whatever comes, the blocks say what a set of bytes says.
    #[test]
    fn blocks_are_what_came(
        pieces in prop::collection::vec((0u32..60, 1u32..12), 1..60),
        timestamps: bool,
    ) {
        let mut peer = Peer::new();
        peer.timestamp = timestamps.then_some(5);
        let id = peer.accepted_sack();
        let mut came = vec![false; 6001];
        let mut got = Vec::new();
        for (start, len) in pieces {
            let (start, end) = (start * 80, (start + len) * 80);
            peer.send(ACK, 1 + start, 1, &pattern(start as usize, (end - start) as usize));
            let fresh = came[start as usize..end as usize].iter().all(|came| !came);
            came[start as usize..end as usize].fill(true);
            let first = came.iter().position(|came| !came).unwrap() as u32;
            got.extend(peer.read(id));
            let segments = peer.take();
            let Some(segment) = segments.last() else { continue };
            prop_assert_eq!(segment.ack - 1, first);
            let blocks = peer.blocks(segment);
            for (at, &(a, b)) in blocks.iter().enumerate() {
                let (a, b) = (a - 1, b - 1);
                prop_assert!(a < b && came[a as usize..b as usize].iter().all(|&came| came));
                if at == 0 && !fresh {
                    continue;
                }
                // A block is as large as it can be, and beyond the gap.
                prop_assert!(a > first, "{a}..{b} and {first}");
                prop_assert!(!came[a as usize - 1] && !came[b as usize]);
            }
            if fresh && start > first {
                prop_assert!(blocks[0].0 <= start + 1 && end < blocks[0].1);
            }
        }
        let len = got.len();
        prop_assert_eq!(got, pattern(0, len));
    }
}
