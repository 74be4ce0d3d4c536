//! Spurious timeouts (RFC 5682), and reductions taken back (RFC 4015, RFC 3708).

use crate::common::peer::{ACK, Peer};
use millrace_stack::ConnectionId;

/// Five segments of ten written, in flight when the timer runs out.
fn timed_out(change: impl FnOnce(&mut millrace_stack::Config)) -> (Peer, ConnectionId, u32) {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.tail_loss_probe = false;
        change(config);
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 5000);
    assert_eq!(peer.take().len(), 5);
    let window = peer.stack.info(id).unwrap().congestion_window;
    peer.wait();
    peer.expect_data(1, 1000);
    assert!(peer.stack.info(id).unwrap().congestion_window < window);
    (peer, id, window)
}

#[test]
fn originals_that_arrive_late_give_the_window_back() {
    let (mut peer, id, window) = timed_out(|_| ());
    peer.write(id, 5000, 5000);
    peer.send(ACK, 1, 2001, &[]);
    let info = peer.stack.info(id).unwrap();
    assert!(info.congestion_window >= window, "{info:?}");
    peer.send(ACK, 1, 5001, &[]);
    assert_eq!(peer.stack.counters().spurious_timeouts, 1);
    let again = peer.take().iter().filter(|segment| segment.seq <= 5000).count();
    assert_eq!(again, 0, "nothing else was sent again");
}

#[test]
fn switched_off_the_window_stays_small() {
    let (mut peer, id, window) = timed_out(|config| {
        config.tcp.frto = false;
        config.tcp.undo = false;
    });
    peer.send(ACK, 1, 2001, &[]);
    assert!(peer.stack.info(id).unwrap().congestion_window < window);
    assert_eq!(peer.stack.counters().spurious_timeouts, 0);
}

#[test]
fn a_real_loss_is_recovered_in_slow_start() {
    let (mut peer, id, window) = timed_out(|_| ());
    // Only the retransmission is acknowledged: new data is tried, and its duplicate decides.
    peer.write(id, 5000, 5000);
    peer.send(ACK, 1, 1001, &[]);
    let sent: Vec<u32> = peer.take().iter().map(|segment| segment.seq).collect();
    assert_eq!(sent, [5001, 6001], "new data and nothing old");
    peer.send_sack(1, 1001, &[(5001, 6001)]);
    let sent: Vec<u32> = peer.take().iter().map(|segment| segment.seq).collect();
    assert!(sent.contains(&1001), "{sent:?}");
    assert_eq!(peer.stack.counters().spurious_timeouts, 0);
    assert!(peer.stack.info(id).unwrap().congestion_window < window);
}

/// RFC 5682 §2.1, step 2b: without a window for new data there is nothing to try.
#[test]
fn new_data_that_the_window_does_not_take_keeps_nothing_from_being_sent_again() {
    let (mut peer, id, _) = timed_out(|_| ());
    peer.write(id, 5000, 5000);
    // There is room for less than a segment behind what is in flight.
    peer.window = 4900;
    peer.send(ACK, 1, 1001, &[]);
    let sent: Vec<u32> = peer.take().iter().map(|segment| segment.seq).collect();
    assert_eq!(sent, [1001, 2001]);
}

#[test]
fn new_data_that_nagle_holds_keeps_nothing_from_being_sent_again() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.tail_loss_probe = false;
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 4900);
    assert_eq!(peer.take().len(), 5);
    peer.wait();
    peer.expect_data(1, 1000);
    // A small segment is in flight, and another must wait for it (RFC 9293 §3.7.4).
    peer.write(id, 4900, 100);
    peer.send(ACK, 1, 1001, &[]);
    let sent: Vec<u32> = peer.take().iter().map(|segment| segment.seq).collect();
    assert_eq!(sent, [1001, 2001]);
}

#[test]
fn reports_of_all_copies_as_duplicates_take_a_recovery_back() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.limited_transmit = false;
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 10_000);
    assert_eq!(peer.take().len(), 10);
    peer.advance_ms(50);
    let window = peer.stack.info(id).unwrap().congestion_window;
    peer.send_sack(1, 1, &[(1001, 4001)]);
    peer.expect_data(1, 1000);
    assert!(peer.stack.info(id).unwrap().slow_start_threshold < window);
    // The original was only late; then the copy comes.
    peer.send(ACK, 1, 4001, &[]);
    peer.send_sack(1, 4001, &[(1, 1001)]);
    let info = peer.stack.info(id).unwrap();
    assert!(info.congestion_window >= window, "{info:?}");
    assert_eq!(peer.stack.counters().reductions_undone, 1);
}

/// RFC 3708 §3: what is reported must have been sent again. A path that makes duplicates by itself says
/// nothing of copies, and would take every reduction back.
#[test]
fn reports_of_duplicates_that_the_path_makes_take_nothing_back() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.limited_transmit = false;
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 10_000);
    assert_eq!(peer.take().len(), 10);
    peer.advance_ms(50);
    peer.send_sack(1, 1001, &[(1, 1001)]);
    peer.send_sack(1, 2001, &[(1001, 2001)]);
    let window = peer.stack.info(id).unwrap().congestion_window;
    peer.send_sack(1, 2001, &[(3001, 6001)]);
    assert_eq!(peer.stack.tcp_info(id).unwrap().total_retrans, 1);
    peer.send_sack(1, 2001, &[(4001, 5001), (3001, 6001)]);
    assert_eq!(peer.stack.counters().reductions_undone, 0);
    assert!(peer.stack.info(id).unwrap().slow_start_threshold <= window / 2);
    let info = peer.stack.tcp_info(id).unwrap();
    assert_eq!((info.ca_state, info.dsack_dups), (3, 3));
}

#[test]
fn an_echo_older_than_the_copy_takes_a_recovery_back() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    peer.timestamp = Some(1000);
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 9 * 988);
    peer.take();
    peer.advance_ms(50);
    peer.timestamp = Some(1050);
    let window = peer.stack.info(id).unwrap().congestion_window;
    let first = peer.echo;
    peer.send_sack(1, 1, &[(1 + 2 * 988, 1 + 6 * 988)]);
    peer.take();
    assert!(peer.stack.info(id).unwrap().slow_start_threshold < window);
    // The original of what was sent again arrives; the peer echoes its timestamp.
    peer.advance_ms(5);
    peer.echo = first;
    peer.send(ACK, 1, 1 + 9 * 988, &[]);
    let info = peer.stack.info(id).unwrap();
    assert!(info.congestion_window >= window, "{info:?}");
    assert_eq!(peer.stack.counters().reductions_undone, 1);
}

/// The first segment is acknowledged, then so many more are in flight to a peer without SACK, of
/// which all but some arrive, and then the timer runs out for the second.
fn timed_out_without_sack(segments: usize) -> (Peer, ConnectionId, u32) {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.tail_loss_probe = false;
    });
    let id = peer.accepted();
    peer.write(id, 0, 1000);
    peer.take();
    peer.advance_ms(50);
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, segments * 1000);
    assert_eq!(peer.take().len(), segments);
    let window = peer.stack.info(id).unwrap().congestion_window;
    // Two of them arrive beyond a gap.
    peer.advance_ms(50);
    peer.send(ACK, 1, 1001, &[]);
    peer.send(ACK, 1, 1001, &[]);
    peer.expect_silence();
    peer.wait();
    peer.expect_data(1001, 1000);
    peer.advance_ms(50);
    (peer, id, window)
}

/// RFC 5682 §2.1, step 2a.
#[test]
fn without_sack_an_acknowledgement_of_everything_proves_nothing() {
    let (mut peer, id, window) = timed_out_without_sack(3);
    peer.send(ACK, 1, 4001, &[]);
    assert_eq!(peer.stack.counters().spurious_timeouts, 0);
    let info = peer.stack.info(id).unwrap();
    assert!(info.congestion_window < window, "{info:?}");
}

/// It covers the copy, and what arrived before the timeout up to the next hole.
#[test]
fn without_sack_an_acknowledgement_of_a_copy_and_more_goes_on_with_recovery() {
    let (mut peer, _, _) = timed_out_without_sack(4);
    peer.send(ACK, 1, 3001, &[]);
    assert_eq!(peer.stack.counters().spurious_timeouts, 0);
    let again = peer.take().iter().filter(|segment| segment.seq == 3001).count();
    assert_eq!(again, 1, "the second hole is filled without another timeout");
}

/// RFC 5682 §2.1, step 3a: the duplicates say that the new data has arrived, and so does no longer
/// keep the next hole from being filled.
#[test]
fn without_sack_duplicates_of_new_data_let_the_next_hole_be_filled() {
    let (mut peer, id, _) = timed_out_without_sack(5);
    peer.write(id, 6000, 5000);
    // The copy alone is acknowledged: the segment after it was lost too.
    peer.send(ACK, 1, 2001, &[]);
    let sent: Vec<u32> = peer.take().iter().map(|segment| segment.seq).collect();
    assert_eq!(sent, [6001, 7001], "new data and nothing old");
    peer.advance_ms(50);
    peer.send(ACK, 1, 2001, &[]);
    peer.expect_data(2001, 1000);
    peer.send(ACK, 1, 2001, &[]);
    peer.expect_data(3001, 1000);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 1);
    assert_eq!(peer.stack.counters().spurious_timeouts, 0);
}

/// RFC 3522 §3.2, step 3: the acknowledgement that proves it advances.
#[test]
fn a_report_of_an_old_duplicate_does_not_take_a_timeout_back() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.tail_loss_probe = false;
    });
    peer.timestamp = Some(1000);
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 988);
    peer.take();
    peer.advance_ms(50);
    peer.send(ACK, 1, 989, &[]);
    peer.advance_ms(10);
    let old = peer.echo;
    peer.write(id, 988, 5 * 988);
    assert_eq!(peer.take().len(), 5);
    peer.wait();
    assert_eq!(peer.take().len(), 1);
    let window = peer.stack.info(id).unwrap().congestion_window;
    // The network made two of the first segment. The peer echoes what it did before.
    peer.echo = old;
    peer.send_sack(1, 989, &[(1, 989)]);
    let info = peer.stack.info(id).unwrap();
    assert!(info.congestion_window <= window + 988, "{info:?}");
    assert_eq!(peer.stack.counters().reductions_undone, 0);
}

/// A peer without timestamps tells that a segment was only late when its copy comes, and that is
/// after the recovery.
#[test]
fn a_report_after_the_recovery_takes_it_back() {
    for under_way in [2000, 0] {
        let mut peer = Peer::with(|config| config.tcp.pacing = false);
        let id = peer.accepted_sack_over(50);
        peer.write(id, 0, 10_000);
        assert_eq!(peer.take().len(), 10);
        peer.advance_ms(50);
        let window = peer.stack.info(id).unwrap().congestion_window;
        peer.send_sack(1, 1, &[(1001, 10_001)]);
        peer.expect_data(1, 1000);
        peer.advance_ms(1);
        peer.send(ACK, 1, 10_001, &[]);
        assert!(peer.stack.info(id).unwrap().congestion_window < window);
        peer.write(id, 10_000, under_way);
        peer.take();
        peer.advance_ms(49);
        peer.send_sack(1, 10_001, &[(1, 1001)]);
        let info = peer.stack.info(id).unwrap();
        assert!(info.congestion_window >= window, "{under_way} bytes under way: {info:?}");
        assert_eq!(peer.stack.counters().reductions_undone, 1);
    }
}

#[test]
fn a_report_of_what_was_sent_after_the_recovery_takes_nothing_back() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 10_000);
    peer.take();
    peer.advance_ms(50);
    let window = peer.stack.info(id).unwrap().congestion_window;
    peer.send_sack(1, 1, &[(1001, 10_001)]);
    peer.expect_data(1, 1000);
    peer.advance_ms(50);
    peer.send(ACK, 1, 10_001, &[]);
    // The network makes two of a later segment.
    peer.write(id, 10_000, 4000);
    peer.take();
    peer.advance_ms(50);
    peer.send(ACK, 1, 12_001, &[]);
    peer.send_sack(1, 12_001, &[(10_001, 11_001)]);
    let info = peer.stack.info(id).unwrap();
    assert!(info.congestion_window < window, "{info:?}");
    assert_eq!(peer.stack.counters().reductions_undone, 0);
}
