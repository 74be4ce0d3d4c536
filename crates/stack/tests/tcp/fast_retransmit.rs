//! Fast retransmit and fast recovery of a peer without SACK (RFC 5681 §3.2, RFC 6582), with limited
//! transmit (RFC 3042) and proportional rate reduction (RFC 9937).

use crate::common::peer::{ACK, Peer, pattern};
use millrace_stack::ConnectionId;

/// Ten segments in flight.
fn ten() -> (Peer, ConnectionId) {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 30_000);
    assert_eq!(peer.take().len(), 10);
    (peer, id)
}

#[test]
fn the_third_duplicate_sends_the_missing_segment() {
    let (mut peer, id) = ten();
    // Each of the first two tells that a segment has left the network, and lets another go.
    peer.send(ACK, 1, 1, &[]);
    peer.expect_data(10_001, 1000);
    peer.send(ACK, 1, 1, &[]);
    peer.expect_data(11_001, 1000);
    peer.send(ACK, 1, 1, &[]);
    peer.expect_data(1, 1000);
    let info = peer.stack.info(id).unwrap();
    assert!(info.slow_start_threshold < 10_000, "{info:?}");
    assert_eq!(peer.stack.counters().fast_retransmits, 1);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
}

#[test]
fn without_limited_transmit_the_first_duplicates_send_nothing() {
    let mut peer = Peer::with(|config| config.tcp.limited_transmit = false);
    let id = peer.accepted();
    peer.write(id, 0, 30_000);
    assert_eq!(peer.take().len(), 10);
    peer.send(ACK, 1, 1, &[]);
    peer.send(ACK, 1, 1, &[]);
    peer.expect_silence();
    peer.send(ACK, 1, 1, &[]);
    peer.expect_data(1, 1000);
}

#[test]
fn the_window_comes_down_in_proportion_to_what_is_delivered() {
    let (mut peer, id) = ten();
    for _ in 0..3 {
        peer.send(ACK, 1, 1, &[]);
    }
    let mut sent = peer.take().len();
    // Of the twelve in flight one is lost and three have arrived; the other eight arrive now.
    for _ in 0..8 {
        peer.send(ACK, 1, 1, &[]);
        sent += peer.take().len();
    }
    let threshold = peer.stack.info(id).unwrap().slow_start_threshold;
    assert!(sent < 8, "{sent} sent for eleven delivered");
    peer.send(ACK, 1, 12_001, &[]);
    let info = peer.stack.info(id).unwrap();
    assert!(info.congestion_window <= threshold, "{info:?}");
}

#[test]
fn a_partial_acknowledgement_sends_the_next_hole_at_once() {
    let (mut peer, _) = ten();
    for _ in 0..3 {
        peer.send(ACK, 1, 1, &[]);
    }
    let lost = |peer: &mut Peer| {
        let sent = peer.take().into_iter().map(|segment| segment.seq);
        sent.filter(|&seq| seq <= 10_000).collect::<Vec<_>>()
    };
    assert_eq!(lost(&mut peer), [1]);
    peer.send(ACK, 1, 3001, &[]);
    assert_eq!(lost(&mut peer), [3001]);
    peer.send(ACK, 1, 7001, &[]);
    assert_eq!(lost(&mut peer), [7001], "and nothing else but new data");
    assert_eq!(peer.stack.counters().fast_retransmits, 1);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
}

#[test]
fn duplicates_within_one_recovery_start_no_second_one() {
    let (mut peer, id) = ten();
    for _ in 0..3 {
        peer.send(ACK, 1, 1, &[]);
    }
    peer.take();
    peer.send(ACK, 1, 3001, &[]);
    peer.take();
    let threshold = peer.stack.info(id).unwrap().slow_start_threshold;
    for _ in 0..4 {
        peer.send(ACK, 1, 3001, &[]);
    }
    assert!(peer.take().iter().all(|segment| segment.seq > 10_000));
    assert_eq!(peer.stack.info(id).unwrap().slow_start_threshold, threshold);
    assert_eq!(peer.stack.counters().fast_retransmits, 1);
}

#[test]
fn duplicates_after_a_timeout_start_no_recovery() {
    let (mut peer, _) = ten();
    peer.wait();
    peer.expect_data(1, 1000);
    for _ in 0..5 {
        peer.send(ACK, 1, 1, &[]);
    }
    // They are for what was sent before the timeout (RFC 6582 §3.2, step 2).
    peer.expect_silence();
    assert_eq!(peer.stack.counters().fast_retransmits, 0);
}

/// RFC 6582 §3.2: nothing later than what was sent before the timeout is acknowledged yet.
#[test]
fn duplicates_of_copies_after_a_timeout_start_no_recovery() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.frto = false;
        config.tcp.undo = false;
    });
    let id = peer.accepted();
    peer.write(id, 0, 1000);
    peer.take();
    peer.advance_ms(50);
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 8000);
    assert_eq!(peer.take().len(), 8);
    peer.wait();
    peer.expect_data(1001, 1000);
    peer.write(id, 9000, 20_000);
    peer.take();
    // The originals were late, and copies leave for all of them.
    for ack in [2001, 3001, 4001, 5001] {
        peer.send(ACK, 1, ack, &[]);
    }
    let copies = peer.take().iter().filter(|segment| segment.seq < 9001).count();
    assert!(copies >= 4, "{copies}");
    peer.send(ACK, 1, 9001, &[]);
    assert!(!peer.take().is_empty(), "new data");
    for _ in 0..copies {
        peer.send(ACK, 1, 9001, &[]);
    }
    assert_eq!(peer.stack.counters().fast_retransmits, 0);
    // With one of the new segments acknowledged, three duplicates tell of a loss.
    peer.send(ACK, 1, 10_001, &[]);
    for _ in 0..3 {
        peer.send(ACK, 1, 10_001, &[]);
    }
    assert_eq!(peer.stack.counters().fast_retransmits, 1);
}

#[test]
fn the_very_first_segment_of_a_connection_is_recovered_too() {
    let mut peer = Peer::new();
    let id = peer.connected();
    peer.write(id, 0, 4000);
    assert_eq!(peer.take().len(), 4);
    for _ in 0..3 {
        peer.send(ACK, 1, 1, &[]);
    }
    peer.expect_data(1, 1000);
}

#[test]
fn a_second_loss_after_a_recovery_is_found_as_well() {
    let (mut peer, id) = ten();
    for _ in 0..3 {
        peer.send(ACK, 1, 1, &[]);
    }
    peer.take();
    // All that was sent when the first was found, and then one more.
    peer.send(ACK, 1, 12_001, &[]);
    assert!(peer.take().len() >= 4);
    for _ in 0..3 {
        peer.send(ACK, 1, 12_001, &[]);
    }
    assert!(peer.take().iter().any(|segment| segment.seq == 12_001));
    assert_eq!(peer.stack.counters().fast_retransmits, 2);
    let _ = id;
}

#[test]
fn what_is_no_duplicate_does_not_count() {
    let (mut peer, _) = ten();
    // With data, with another window, and with nothing in between that is one.
    for at in 0..4 {
        peer.send(ACK, 1 + at * 10, 1, &pattern(at as usize * 10, 10));
    }
    for window in [60_000, 50_000, 40_000, 30_000] {
        peer.window = window;
        peer.send(ACK, 41, 1, &[]);
    }
    peer.take();
    assert_eq!(peer.stack.counters().fast_retransmits, 0);
}

#[test]
fn duplicates_without_anything_in_flight_do_not_count() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    for _ in 0..5 {
        peer.send(ACK, 1, 1, &[]);
    }
    peer.write(id, 0, 5000);
    peer.take();
    peer.send(ACK, 1, 1, &[]);
    assert_eq!(peer.stack.counters().fast_retransmits, 0);
}

#[test]
fn a_retransmission_stays_within_the_window() {
    let mut peer = Peer::new();
    peer.window = 500;
    let id = peer.accepted();
    peer.write(id, 0, 3000);
    // The window takes half of what the frame holds.
    peer.expect_data(1, 500);
    for _ in 0..3 {
        peer.send(ACK, 1, 1, &[]);
    }
    peer.expect_data(1, 500);
}
