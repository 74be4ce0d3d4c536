//! Loss detection by time (RFC 8985 §6).

use core::time::Duration;

use crate::common::peer::{ACK, Peer};
use millrace_stack::ConnectionId;

fn ten() -> (Peer, ConnectionId) {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.tail_loss_probe = false;
    });
    let id = peer.accepted_sack_over(40);
    peer.write(id, 0, 1000);
    peer.take();
    peer.advance_ms(40);
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 30_000);
    assert!(peer.take().len() >= 10);
    peer.advance_ms(40);
    (peer, id)
}

fn contains(peer: &mut Peer, seq: u32) -> bool {
    peer.take().iter().any(|segment| segment.seq == seq)
}

#[test]
fn one_segment_that_overtook_waits_for_a_quarter_of_the_round_trip() {
    let (mut peer, _) = ten();
    peer.send_sack(1, 1001, &[(2001, 3001)]);
    assert!(!contains(&mut peer, 1001), "it may be reordering");
    peer.advance_ms(4);
    assert!(!contains(&mut peer, 1001));
    peer.advance_ms(10);
    assert!(contains(&mut peer, 1001), "no other acknowledgement is needed");
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
}

#[test]
fn reordering_within_the_window_sends_nothing_again() {
    let (mut peer, id) = ten();
    peer.send_sack(1, 1001, &[(2001, 3001)]);
    peer.advance_ms(5);
    peer.send(ACK, 1, 3001, &[]);
    peer.take();
    // From now on the path is known to reorder, and three segments above a hole mean nothing yet.
    peer.send_sack(1, 3001, &[(4001, 8001)]);
    assert!(!contains(&mut peer, 3001));
    peer.advance_ms(4);
    peer.send(ACK, 1, 8001, &[]);
    assert_eq!(peer.stack.counters().segments_retransmitted, 0);
    assert!(peer.stack.info(id).unwrap().slow_start_threshold > 1 << 30);
}

#[test]
fn duplicates_widen_the_window() {
    let (mut peer, _) = ten();
    peer.send_sack(1, 1001, &[(2001, 3001)]);
    peer.advance_ms(20);
    assert!(contains(&mut peer, 1001));
    // The original arrives after all, and the copy is reported as a duplicate.
    peer.send(ACK, 1, 3001, &[]);
    peer.advance_ms(40);
    peer.send_sack(1, 3001, &[(1001, 2001)]);
    assert_eq!(peer.stack.counters().dsacks_received, 1);
    peer.take();
    peer.send_sack(1, 3001, &[(4001, 5001)]);
    peer.advance_ms(12);
    assert!(!contains(&mut peer, 3001), "a quarter of the round trip is no longer enough");
    peer.advance_ms(20);
    assert!(contains(&mut peer, 3001));
}

#[test]
fn a_copy_is_not_lost_in_the_instant_in_which_it_left() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted_sack();
    peer.write(id, 0, 8_000);
    peer.take();
    // A peer without a round trip and without room for the first segment: whatever it says, no
    // time has passed in which a copy could have been lost.
    for _ in 0..100 {
        peer.send_sack(1, 1, &[(2001, 8001)]);
    }
    assert_eq!(peer.take().iter().filter(|segment| segment.seq == 1).count(), 1);
    peer.advance_ms(1);
    assert!(contains(&mut peer, 1), "and afterwards it is");
}

#[test]
fn the_reordering_timer_is_no_later_than_the_timeout() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.tail_loss_probe = false;
    });
    let id = peer.accepted_sack_over(20);
    peer.write(id, 0, 8_000);
    assert_eq!(peer.take().len(), 8);
    // The path is down for ten minutes.
    peer.advance_ms(600_000);
    peer.take();
    peer.wait();
    peer.take();
    peer.advance_ms(20);
    peer.send_sack(1, 1001, &[]);
    let sent: Vec<u32> = peer.take().iter().map(|segment| segment.seq).collect();
    assert_eq!(sent, [1001, 2001], "two copies");
    peer.advance_ms(20);
    // The last original had arrived too: a round trip of ten minutes.
    peer.send_sack(1, 1001, &[(2001, 3001), (7001, 8001)]);
    peer.take();
    let timeout = Duration::from_micros(peer.stack.tcp_info(id).unwrap().rto.into());
    let start = peer.now;
    while !contains(&mut peer, 1001) {
        peer.wait();
        assert!(peer.now - start < Duration::from_secs(3600), "nothing leaves");
    }
    let waited = peer.now - start;
    assert!(waited <= timeout + Duration::from_millis(1), "{waited:?}, timeout {timeout:?}");
}
