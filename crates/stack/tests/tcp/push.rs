//! Where the PSH flag stands (RFC 9293 section 3.9.1.2, and the ends of trains).

use crate::common::peer::{ACK, PSH, Peer, pattern};

/// Lengths of the trains that leave: each ends with a PSH, or with what was sent last.
fn trains(peer: &mut Peer) -> Vec<usize> {
    let segments = peer.take();
    segments.split_inclusive(|segment| segment.flags.intersects(PSH)).map(<[_]>::len).collect()
}

#[test]
fn half_of_the_largest_window_does_not_go_without_it() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    peer.window = 8000;
    let id = peer.accepted();
    peer.write(id, 0, 20_000);
    assert_eq!(trains(&mut peer), [5, 3]);
}

#[test]
fn a_super_segment_has_it_always() {
    let mut peer = Peer::with(|config| {
        config.tx_gso = 65_535;
        config.tx_checksum = true;
        config.initial_window = 4;
    });
    let id = peer.accepted();
    peer.write(id, 0, 50_000);
    let first = peer.expect_data(1, 4000);
    assert!(first.flags.contains(PSH) && first.gso_size == 1000);
}

#[test]
fn the_last_segment_that_is_there_pushes() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 1500);
    assert_eq!(trains(&mut peer), [2]);
}

#[test]
fn a_window_full_of_segments_pushes_at_its_half_and_its_end() {
    // Without a measured round trip, only half of the window limits a train.
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 20_000);
    assert_eq!(trains(&mut peer), [5, 5]);
    peer.expect_silence();
}

#[test]
fn later_trains_are_a_millisecond_long_at_twice_the_rate() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted();
    peer.write(id, 0, 10_000);
    trains(&mut peer);
    peer.advance_ms(100);
    peer.send(ACK, 1, 10_001, &[]);
    peer.write(id, 10_000, 50_000);
    // The handshake took no time, so the mean is an eighth of 100 ms: 3.2 segments in a
    // millisecond. The twenty of the window end in the middle of a train.
    assert_eq!(peer.stack.info(id).unwrap().round_trip.as_micros(), 12_500);
    assert_eq!(trains(&mut peer), [3, 3, 3, 3, 3, 3, 2]);
}

#[test]
fn a_single_segment_with_more_behind_it_does_not_push() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.window = 10_000;
    peer.write(id, 0, 20_000);
    trains(&mut peer);
    peer.window = 9_000;
    // One segment is acknowledged, the window stays where it was: nothing; then one more fits.
    peer.send(ACK, 1, 1001, &[]);
    peer.expect_silence();
    peer.window = 10_000;
    peer.send(ACK, 1, 1001, &[]);
    let segment = peer.expect_data(10_001, 1000);
    assert!(!segment.flags.intersects(PSH));
}

#[test]
fn segments_that_leave_alone_do_not_push() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.initial_window = 2;
    });
    let id = peer.accepted();
    peer.write(id, 0, 20_000);
    // Half of a window of two is one: no train.
    assert!(peer.take().iter().all(|segment| !segment.flags.intersects(PSH)));
    peer.send(ACK, 1, 2001, &[]);
    assert_eq!(trains(&mut peer), [2, 2]);
}

#[test]
fn a_train_of_whole_segments_pushes_although_more_follows() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted();
    peer.stack.write_more(id, &pattern(0, 3100)).unwrap();
    assert_eq!(trains(&mut peer), [3]);
    // One segment alone is none, and what is left waits.
    peer.stack.write_more(id, &pattern(3100, 1000)).unwrap();
    assert!(!peer.expect_data(3001, 1000).flags.intersects(PSH));
    peer.expect_silence();
}

#[test]
fn what_is_sent_again_together_is_a_train() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted_sack_over(20);
    peer.write(id, 0, 10_000);
    assert_eq!(peer.take().len(), 10);
    peer.advance_ms(20);
    peer.send_sack(1, 1, &[(2001, 5001), (6001, 9001)]);
    // Reordered for no longer than a quarter of a round trip.
    peer.wait();
    let again: Vec<_> =
        peer.take().into_iter().map(|one| (one.seq, one.flags.intersects(PSH))).collect();
    assert_eq!(again, [(1, false), (1001, true), (5001, false)]);
}

#[test]
fn a_train_ends_where_a_write_of_whole_segments_does() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted();
    // Three writes wait for the window to open; the second says that more follows.
    peer.window = 0;
    peer.send(ACK, 1, 1, &[]);
    peer.write(id, 0, 3000);
    peer.stack.write_more(id, &pattern(3000, 1000)).unwrap();
    peer.write(id, 4000, 5000);
    peer.expect_silence();
    peer.window = 65_535;
    peer.send(ACK, 1, 1, &[]);
    let pushes: Vec<_> = peer.take().iter().map(|segment| segment.flags.intersects(PSH)).collect();
    // The write of one segment neither joins what follows nor pushes.
    assert_eq!(pushes, [false, false, true, false, false, false, false, false, true]);
}

#[test]
fn a_write_that_is_added_to_ends_nowhere() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted();
    peer.window = 0;
    peer.send(ACK, 1, 1, &[]);
    peer.write(id, 0, 1500);
    peer.write(id, 1500, 1500);
    peer.window = 65_535;
    peer.send(ACK, 1, 1, &[]);
    assert_eq!(trains(&mut peer), [3]);
}

/// A window of ten segments over a path of 20 ms, and an acknowledgement of the first.
fn window_of_ten(divisor: u8) -> Peer {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tso_win_divisor = divisor;
        config.least_train = 10;
    });
    let id = peer.accepted_sack_over(20);
    peer.write(id, 0, 40_000);
    assert_eq!(peer.take().len(), 10);
    peer.advance_ms(20);
    // Nothing has left for long: what there is room for leaves.
    peer.send(ACK, 1, 1001, &[]);
    assert_eq!(peer.take().len(), 2);
    peer
}

#[test]
fn a_small_part_of_the_window_may_wait_for_more() {
    let mut peer = window_of_ten(3);
    // Room for two and for four is less than a third of twelve and thirteen, for six it is not.
    for ack in [2001, 3001] {
        peer.send(ACK, 1, ack, &[]);
        peer.expect_silence();
    }
    peer.send(ACK, 1, 4001, &[]);
    assert_eq!(trains(&mut peer), [6]);
    let mut peer = window_of_ten(0);
    for ack in [2001, 3001] {
        peer.send(ACK, 1, ack, &[]);
        assert_eq!(peer.take().len(), 2);
    }
}

#[test]
fn no_part_of_the_window_waits_where_no_acknowledgement_is_due() {
    let mut peer = window_of_ten(3);
    peer.advance_ms(5);
    peer.send(ACK, 1, 2001, &[]);
    assert_eq!(peer.take().len(), 2, "nothing has left for a while");
    // All that was sent so long ago is acknowledged; what is under way left just now.
    peer.send(ACK, 1, 10_001, &[]);
    peer.take();
    peer.send(ACK, 1, 11_001, &[]);
    assert!(!peer.take().is_empty());
}
