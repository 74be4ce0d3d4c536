//! Packetization-layer path MTU discovery (RFC 4821): black holes, and the search upwards.

use millrace_stack::{ConnectionId, MtuProbing};

use crate::common::craft::PEER_IP;
use crate::common::peer::{ACK, Peer, SYN, pattern};

/// A path that takes segments of at most `most` bytes and tells nobody: acknowledges what arrives,
/// for so many rounds. Returns the largest payload that arrived.
fn run(peer: &mut Peer, id: ConnectionId, at: &mut u32, most: usize, rounds: usize) -> usize {
    let (mut largest, mut written) = (0, *at as usize - 1);
    let mut beyond: Vec<(u32, u32)> = Vec::new();
    for _ in 0..rounds {
        peer.advance_ms(1);
        let room = peer.stack.write_room(id).unwrap().min(60_000);
        let taken = peer.stack.write(id, &pattern(written, room)).unwrap();
        written += taken;
        peer.collect();
        let segments = peer.take();
        if segments.is_empty() {
            peer.wait();
            continue;
        }
        for segment in segments.iter().filter(|segment| segment.payload.len() <= most) {
            let end = segment.seq + segment.payload.len() as u32;
            assert_eq!(segment.payload, pattern(segment.seq as usize - 1, segment.payload.len()));
            beyond.push((segment.seq, end));
            largest = largest.max(segment.payload.len());
            beyond.sort_unstable();
            for &(from, to) in &beyond {
                if from <= *at && to > *at {
                    *at = to;
                }
            }
            beyond.retain(|&(_, to)| to > *at);
            // One for each arrival, or duplicates would not be.
            let ack = *at;
            peer.send(ACK, 1, ack, &[]);
        }
    }
    largest
}

#[test]
fn a_black_hole_is_found_and_the_search_ends_where_the_path_does() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.send_buffer = 200_000;
    });
    let id = peer.accepted_with(Some(1460), Some(4));
    let mut at = 1;
    let largest = run(&mut peer, id, &mut at, 1200, 1500);
    let counters = peer.stack.counters();
    assert!(counters.path_mtu_black_holes >= 1, "{counters:?}");
    assert!(counters.path_mtu_probes >= 2 && counters.path_mtu_increases >= 1, "{counters:?}");
    let mss = peer.stack.info(id).unwrap().mss;
    assert!((1024..=1200).contains(&mss), "{mss}");
    assert!(largest > 1024 && at > 100_000, "{largest} bytes, {at} acknowledged");
}

#[test]
fn a_smaller_path_than_the_base_is_found_too() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted_with(Some(1460), Some(4));
    let mut at = 1;
    run(&mut peer, id, &mut at, 600, 400);
    assert!(at > 10_000, "{at}");
    assert!(peer.stack.info(id).unwrap().mss <= 600);
}

#[test]
fn switched_off_it_waits_in_vain() {
    let mut peer = Peer::with(|config| config.mtu_probing = MtuProbing::Off);
    let id = peer.accepted_with(Some(1460), Some(4));
    peer.write(id, 0, 3000);
    for _ in 0..6 {
        peer.take();
        peer.wait();
    }
    assert_eq!(peer.stack.info(id).unwrap().mss, 1460);
}

#[test]
fn it_may_begin_with_the_base_and_search_from_there() {
    let mut peer = Peer::with(|config| {
        config.mtu_probing = MtuProbing::Always;
        config.base_mss = 512;
        config.tcp.pacing = false;
    });
    let id = peer.accepted_with(Some(1460), Some(4));
    assert_eq!(peer.stack.info(id).unwrap().mss, 512);
    let mut at = 1;
    run(&mut peer, id, &mut at, 1460, 200);
    assert_eq!(peer.stack.info(id).unwrap().mss, 1460);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
}

#[test]
fn small_segments_that_time_out_are_no_black_hole() {
    let mut peer = Peer::new();
    let id = peer.accepted_with(Some(1460), None);
    peer.write(id, 0, 300);
    for _ in 0..6 {
        peer.take();
        peer.wait();
    }
    assert_eq!(peer.stack.info(id).unwrap().mss, 1460);
    assert_eq!(peer.stack.counters().path_mtu_black_holes, 0);
}

#[test]
fn the_search_goes_half_of_the_way_first_and_then_all_of_it() {
    let mut peer = Peer::with(|config| {
        config.mtu_probing = MtuProbing::Always;
        config.base_mss = 512;
        config.initial_window = 12;
        config.tcp.pacing = false;
    });
    peer.stack.set_path_mtu(PEER_IP.into(), Some(640)).unwrap();
    let id = peer.accepted_with(Some(1460), Some(4));
    // What is known of a path is not searched for.
    peer.write(id, 0, 5000);
    assert!(peer.take().iter().all(|segment| segment.payload.len() <= 600));
    peer.send(ACK, 1, 5001, &[]);
    peer.stack.set_path_mtu(PEER_IP.into(), None).unwrap();
    let mut at = 5001;
    // Between the base and all of it; the others stay as they were, and full.
    peer.write(id, 5000, 4000);
    for len in [986, 600, 600, 600, 600, 600, 14] {
        peer.expect_data(at, len);
        at += len as u32;
    }
    peer.send(ACK, 1, at, &[]);
    peer.write(id, at as usize - 1, 6000);
    for len in [1460, 986, 986, 986, 986, 596] {
        peer.expect_data(at, len);
        at += len as u32;
    }
    peer.send(ACK, 1, at, &[]);
    peer.write(id, at as usize - 1, 3000);
    assert_eq!(peer.take()[0].payload.len(), 1460);
    assert_eq!(peer.stack.counters().path_mtu_increases, 2);
}

#[test]
fn on_a_path_that_loses_everything_the_sizes_take_turns() {
    let mut peer = Peer::new();
    let id = peer.accepted_with(Some(1460), None);
    peer.write(id, 0, 20_000);
    let mut sizes = Vec::new();
    for _ in 0..10 {
        peer.take();
        peer.wait();
        sizes.push(peer.stack.info(id).unwrap().mss);
    }
    assert_eq!(sizes, [1460, 1460, 1024, 512, 88, 1460, 1024, 512, 88, 1460]);
}

#[test]
fn a_probe_that_was_lost_with_others_has_neither_arrived_nor_failed() {
    let mut peer = Peer::with(|config| {
        config.mtu_probing = MtuProbing::Always;
        config.base_mss = 512;
        config.initial_window = 24;
        config.tcp.pacing = false;
    });
    let listener = peer.listen(80, 4);
    let mut syn = peer.segment(SYN, 0, 0, &[]);
    syn.options.mss(1460).sack_permitted();
    let bytes = syn.bytes();
    peer.inject(&bytes);
    peer.expect(SYN | ACK);
    peer.advance_ms(10);
    peer.send(ACK, 1, 1, &[]);
    let id = peer.accept(listener).unwrap();
    peer.write(id, 0, 8000);
    let first = peer.take();
    let probe = first.iter().find(|segment| segment.payload.len() > 512).expect("a probe");
    let (start, size) = (probe.seq, probe.payload.len());
    let lost = start + size as u32 + 512;
    let last = first.last().unwrap();
    let end = last.seq + last.payload.len() as u32;
    // It is too large for the path, and the segment behind it met a full queue.
    peer.advance_ms(10);
    peer.send(ACK, 1, start, &[]);
    for to in (lost + 512..end).step_by(512).chain([end]) {
        peer.send_sack(1, start, &[(lost, to)]);
    }
    for _ in 0..5 {
        for again in peer.take().iter().filter(|segment| segment.seq < lost) {
            assert!(again.payload.len() <= 512, "{} bytes again", again.payload.len());
        }
        peer.advance_ms(10);
    }
    peer.send(ACK, 1, end, &[]);
    assert_eq!(peer.stack.info(id).unwrap().mss, 512, "nothing larger has arrived");
    // Congestion may have been the reason, so the same size is tried again (RFC 4821 §7.6.4).
    peer.write(id, 8000, 12_000);
    let next = peer.take();
    assert!(next.iter().any(|segment| segment.payload.len() == size), "{}", next.len());
}

#[test]
fn a_path_that_takes_less_than_routers_are_believed_is_found() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.send_buffer = 20_000;
    });
    let id = peer.accepted_with(Some(1460), Some(4));
    let mut at = 1;
    let largest = run(&mut peer, id, &mut at, 460, 2500);
    assert!((400..=460).contains(&largest) && at > 20_000, "{largest} bytes, {at}");
}
