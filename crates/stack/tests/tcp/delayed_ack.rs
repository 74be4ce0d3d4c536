//! When acknowledgements go (RFC 9293 §3.8.6.3, RFC 1122 §4.2.3.2, RFC 5681 §4.2).

use core::time::Duration;

use crate::common::peer::{ACK, FIN, Peer, pattern};

#[test]
fn a_single_segment_waits_for_40_milliseconds() {
    let mut peer = Peer::new();
    peer.accepted();
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    peer.expect_silence();
    let time = peer.wait();
    assert!(time > Duration::from_millis(39) && time < Duration::from_millis(41), "{time:?}");
    peer.expect_ack(1001);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().delayed_acks, 1);
}

#[test]
fn the_configuration_says_how_long() {
    let mut peer = Peer::with(|config| config.delayed_ack = Duration::from_millis(200));
    peer.accepted();
    peer.send(ACK, 1, 1, b"x");
    let time = peer.wait();
    assert!(time > Duration::from_millis(199) && time < Duration::from_millis(201), "{time:?}");
}

#[test]
fn every_second_segment_is_acknowledged_at_once() {
    let mut peer = Peer::new();
    peer.accepted();
    for pair in 0..5u32 {
        let at = pair * 2000;
        peer.send(ACK, 1 + at, 1, &pattern(at as usize, 1000));
        peer.expect_silence();
        peer.send(ACK, 1001 + at, 1, &pattern(at as usize + 1000, 1000));
        peer.expect_ack(2001 + at);
    }
    peer.advance_ms(1000);
    peer.expect_silence();
}

#[test]
fn two_segments_in_one_batch_get_one_acknowledgement() {
    let mut peer = Peer::new();
    peer.accepted();
    let segments: Vec<_> = (0..8u32)
        .map(|at| peer.segment(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000)).bytes())
        .collect();
    peer.inject_batch(&segments);
    peer.expect_ack(8001);
    peer.expect_silence();
}

#[test]
fn an_acknowledgement_rides_on_data() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(ACK, 1, 1, &pattern(0, 100));
    peer.expect_silence();
    peer.write(id, 0, 50);
    assert_eq!(peer.expect_data(1, 50).ack, 101);
    peer.advance_ms(100);
    peer.expect_silence();
}

#[test]
fn a_gap_is_acknowledged_at_once_for_each_segment_beyond_it() {
    let mut peer = Peer::new();
    peer.accepted();
    for at in 1..5u32 {
        peer.send(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000));
        peer.expect_ack(1);
        peer.expect_silence();
    }
}

#[test]
fn each_segment_beyond_a_gap_gets_its_own_even_in_one_batch() {
    let mut peer = Peer::new();
    peer.accepted();
    let segments: Vec<_> = (1..6u32)
        .map(|at| peer.segment(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000)).bytes())
        .collect();
    peer.inject_batch(&segments);
    for _ in 1..6 {
        peer.expect_ack(1);
    }
    peer.expect_silence();
}

#[test]
fn a_gap_that_fills_in_the_same_batch_is_acknowledged_once() {
    let mut peer = Peer::new();
    peer.accepted();
    let order = [1, 2, 3, 4, 5, 0u32];
    let segments: Vec<_> = order
        .iter()
        .map(|&at| peer.segment(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000)).bytes())
        .collect();
    peer.inject_batch(&segments);
    // More would look like duplicates of the new number, and start a recovery for nothing.
    peer.expect_ack(6001);
    peer.expect_silence();
}

#[test]
fn filling_a_part_of_a_gap_is_acknowledged_at_once() {
    let mut peer = Peer::new();
    peer.accepted();
    peer.send(ACK, 2001, 1, &pattern(2000, 1000));
    peer.expect_ack(1);
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    peer.expect_ack(1001);
    peer.send(ACK, 1001, 1, &pattern(1000, 1000));
    peer.expect_ack(3001);
}

#[test]
fn duplicates_are_acknowledged_at_once() {
    let mut peer = Peer::new();
    peer.accepted();
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    peer.expect_ack(1001);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().duplicates, 1);
}

#[test]
fn a_fin_is_acknowledged_at_once() {
    let mut peer = Peer::new();
    peer.accepted();
    peer.send(FIN | ACK, 1, 1, &[]);
    peer.expect_ack(2);
}

#[test]
fn duplicates_go_by_themselves_though_data_goes_too() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    for at in 1..4u32 {
        let bytes = peer.segment(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000)).bytes();
        peer.stack.write(id, &pattern(at as usize * 1000 - 1000, 1000)).unwrap();
        peer.inject(&bytes);
        // A segment with data is no duplicate for the peer (RFC 5681 §2).
        peer.expect_data(at * 1000 - 999, 1000);
        peer.expect_ack(1);
        peer.expect_silence();
    }
}
