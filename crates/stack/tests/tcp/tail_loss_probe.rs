//! Tail loss probes (RFC 8985 §7).

use core::time::Duration;

use crate::common::peer::{ACK, Peer};
use millrace_stack::ConnectionId;

/// A connection whose round trip takes 50 ms, with three segments just sent.
fn three() -> (Peer, ConnectionId) {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 1000);
    peer.take();
    peer.advance_ms(50);
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 3000);
    assert_eq!(peer.take().len(), 3);
    (peer, id)
}

#[test]
fn silence_for_two_round_trips_sends_the_last_segment_again() {
    let (mut peer, _) = three();
    let waited = peer.wait();
    assert!(waited < Duration::from_millis(150), "{waited:?}");
    peer.expect_data(3001, 1000);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().tail_loss_probes, 1);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
}

#[test]
fn its_answer_finds_the_loss_of_the_whole_tail() {
    let (mut peer, _) = three();
    peer.wait();
    peer.take();
    peer.advance_ms(50);
    peer.send_sack(1, 1001, &[(3001, 4001)]);
    peer.advance_ms(20);
    peer.expect_data(1001, 1000);
    peer.send_sack(1, 2001, &[(3001, 4001)]);
    peer.expect_data(2001, 1000);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
}

#[test]
fn a_loss_that_it_repaired_reduces_the_window() {
    let (mut peer, id) = three();
    let before = peer.stack.info(id).unwrap().congestion_window;
    peer.wait();
    peer.take();
    // Only the last one was lost, so nothing else tells that anything was.
    peer.advance_ms(50);
    peer.send(ACK, 1, 4001, &[]);
    peer.write(id, 4000, 1000);
    peer.take();
    peer.advance_ms(50);
    peer.send(ACK, 1, 5001, &[]);
    let info = peer.stack.info(id).unwrap();
    assert!(info.slow_start_threshold < before, "{info:?}");
    assert_eq!(peer.stack.counters().congestion_reductions, 1);
}

/// The port had no room for it until everything was acknowledged.
#[test]
fn a_probe_that_never_left_has_repaired_nothing() {
    let (mut peer, id) = three();
    while peer.stack.counters().tail_loss_probes == 0 {
        peer.now = peer.stack.next_deadline().unwrap();
        peer.stack.advance(peer.now);
    }
    peer.send(ACK, 1, 4001, &[]);
    peer.expect_silence();
    nothing_was_lost(&mut peer, id);
}

#[test]
fn a_probe_that_was_not_needed_reduces_nothing() {
    let (mut peer, id) = three();
    peer.wait();
    peer.take();
    peer.send(ACK, 1, 4001, &[]);
    peer.send_sack(1, 4001, &[(3001, 4001)]);
    assert_eq!(peer.stack.counters().dsacks_received, 1);
    nothing_was_lost(&mut peer, id);
}

#[test]
fn a_peer_that_reports_no_duplicates_says_it_by_a_second_acknowledgement() {
    let (mut peer, id) = three();
    peer.wait();
    peer.take();
    peer.send(ACK, 1, 4001, &[]);
    peer.send(ACK, 1, 4001, &[]);
    nothing_was_lost(&mut peer, id);
}

/// What is sent and acknowledged next reduces no window, and has a probe of its own.
fn nothing_was_lost(peer: &mut Peer, id: ConnectionId) {
    peer.write(id, 4000, 1000);
    peer.expect_data(4001, 1000);
    peer.wait();
    peer.expect_data(4001, 1000);
    assert_eq!(peer.stack.counters().tail_loss_probes, 2);
    peer.send_sack(1, 5001, &[(4001, 5001)]);
    assert_eq!(peer.stack.counters().congestion_reductions, 0);
    assert!(peer.stack.info(id).unwrap().slow_start_threshold > 1 << 30);
}

#[test]
fn new_data_goes_rather_than_old() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    peer.window = 3000;
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 1000);
    peer.take();
    peer.advance_ms(50);
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 20_000);
    assert_eq!(peer.take().len(), 3);
    peer.wait();
    // The window is full, so it must be an old one.
    peer.expect_data(3001, 1000);
}

#[test]
fn what_the_peer_has_no_room_for_is_no_probe() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    peer.window = 3300;
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 1000);
    peer.take();
    peer.advance_ms(50);
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 20_000);
    assert_eq!(peer.take().len(), 3);
    peer.wait();
    // 300 bytes are left of the window: a segment of 1000 would be refused.
    peer.expect_data(3001, 1000);
}

#[test]
fn after_the_probe_comes_the_timeout() {
    let (mut peer, _) = three();
    peer.wait();
    peer.take();
    let waited = peer.wait();
    assert!(waited >= Duration::from_millis(200), "{waited:?}");
    peer.expect_data(1001, 1000);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 1);
    assert_eq!(peer.stack.counters().tail_loss_probes, 1);
}

#[test]
fn switched_off_only_the_timeout_is_left() {
    let mut peer = Peer::with(|config| {
        config.tcp.tail_loss_probe = false;
        config.tcp.pacing = false;
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 2000);
    peer.take();
    assert!(peer.wait() >= Duration::from_millis(200));
    peer.expect_data(1, 1000);
    assert_eq!(peer.stack.counters().tail_loss_probes, 0);
}

#[test]
fn a_duplicate_that_tells_nothing_does_not_put_it_off() {
    let (mut peer, _) = three();
    peer.advance_ms(50);
    peer.send_sack(1, 1001, &[(4000, 4001)]);
    let waited = peer.wait();
    assert!(waited < Duration::from_millis(80), "{waited:?}");
    peer.expect_data(3001, 1000);
}

/// RFC 8985 §7.3: it is under way until what it carried is acknowledged.
#[test]
fn a_probe_of_new_data_is_followed_by_no_other() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.initial_window = 3;
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 4000);
    assert_eq!(peer.take().len(), 3);
    peer.wait();
    peer.expect_data(3001, 1000);
    assert_eq!(peer.stack.counters().tail_loss_probes, 1);
    peer.send(ACK, 1, 3001, &[]);
    peer.wait();
    peer.expect_data(3001, 1000);
    assert_eq!(peer.stack.counters().tail_loss_probes, 1);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 1);
}
