//! Closing, in every order (RFC 9293 §3.6), and what RFC 1122 §4.2.2.13 and RFC 2525 §2.17 add.

use core::time::Duration;
use millrace_stack::{Failure, Ready, SocketOption, State};

use crate::common::peer::{ACK, FIN, PSH, Peer, RST, pattern};

#[test]
fn we_close_first() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.shutdown_write(id);
    assert_eq!(peer.expect(FIN | ACK).seq, 1);
    assert_eq!(peer.state(id), State::FinWait1);
    peer.send(ACK, 1, 2, &[]);
    assert_eq!(peer.state(id), State::FinWait2);
    assert_eq!(peer.ready(id), Ready::FLUSHED);
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.expect_ack(2);
    assert_eq!(peer.state(id), State::TimeWait);
    assert_eq!(peer.ready(id), Ready::FINISHED.with(Ready::CLOSED));
    assert_eq!(peer.stack.failure(id).unwrap(), None);
    assert!(peer.stack.finished(id).unwrap());
}

#[test]
fn a_fin_that_acknowledges_ours_goes_straight_to_time_wait() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.shutdown_write(id);
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.expect_ack(2);
    assert_eq!(peer.state(id), State::TimeWait);
}

#[test]
fn the_peer_closes_first() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(FIN | ACK, 1, 1, &[]);
    peer.expect_ack(2);
    assert_eq!(peer.state(id), State::CloseWait);
    assert_eq!(peer.ready(id), Ready::FINISHED);
    peer.shutdown_write(id);
    assert_eq!(peer.expect(FIN | ACK).ack, 2);
    assert_eq!(peer.state(id), State::LastAck);
    peer.send(ACK, 2, 2, &[]);
    assert_eq!(peer.state(id), State::Closed);
    assert!(peer.ready(id).has(Ready::CLOSED));
    assert_eq!(peer.stack.failure(id).unwrap(), None);
    peer.stack.release(id);
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn a_repeated_fin_may_be_what_acknowledges_ours() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(FIN | ACK, 1, 1, &[]);
    peer.expect_ack(2);
    peer.shutdown_write(id);
    peer.expect(FIN | ACK);
    // All that we have sent since its FIN was lost but our FIN, and its answer to that.
    peer.send(FIN | ACK, 1, 2, &[]);
    assert_eq!(peer.state(id), State::Closed);
    assert_eq!(peer.stack.failure(id).unwrap(), None);
    peer.stack.release(id);
    peer.expect_silence();
}

#[test]
fn repeated_data_may_be_what_acknowledges_ours() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(ACK, 1, 1, b"question");
    peer.write(id, 0, 500);
    peer.expect_data(1, 500);
    peer.send(ACK, 1, 501, b"question");
    peer.expect_ack(9);
    assert_eq!(peer.stack.tcp_info(id).unwrap().unacked, 0);
    // Who knows less of where we are than the peer is not heard.
    peer.write(id, 500, 500);
    peer.expect_data(501, 500);
    peer.send(ACK, 1, 1001, b"quest");
    peer.expect_ack(9);
    assert_eq!(peer.stack.tcp_info(id).unwrap().unacked, 1);
    peer.send(ACK, 9, 1001, &[]);
}

#[test]
fn both_close_at_once() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.shutdown_write(id);
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 1, 1, &[]);
    assert_eq!(peer.state(id), State::Closing);
    peer.expect_ack(2);
    peer.send(ACK, 2, 2, &[]);
    assert_eq!(peer.state(id), State::TimeWait);
    peer.expect_silence();
}

#[test]
fn half_closed_from_here_we_still_read() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.shutdown_write(id);
    peer.expect(FIN | ACK);
    peer.send(ACK, 1, 2, &[]);
    for at in 0..10 {
        peer.send(ACK | PSH, 1 + at * 1000, 2, &pattern(at as usize * 1000, 1000));
    }
    assert_eq!(peer.read(id), pattern(0, 10_000));
    assert_eq!(peer.state(id), State::FinWait2);
    assert!(peer.stack.write(id, b"too late").is_err());
    // And there is no hurry while an application has it (RFC 9293 §3.6, half-close).
    peer.advance(Duration::from_secs(86_400));
    assert_eq!(peer.state(id), State::FinWait2);
}

#[test]
fn half_closed_from_there_we_still_write() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(FIN | ACK, 1, 1, &[]);
    peer.expect_ack(2);
    peer.write(id, 0, 3000);
    for at in 0..3 {
        peer.expect_data(1 + at * 1000, 1000);
    }
    peer.send(ACK, 2, 3001, &[]);
    assert_eq!(peer.state(id), State::CloseWait);
}

#[test]
fn a_fin_goes_with_the_last_data() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.write(id, &pattern(0, 1500)).unwrap();
    peer.shutdown_write(id);
    peer.expect_data(1, 1000);
    let last = peer.expect(FIN | ACK);
    assert_eq!((last.seq, last.payload.len()), (1001, 500));
    peer.send(ACK, 1, 1502, &[]);
    assert_eq!(peer.state(id), State::FinWait2);
}

#[test]
fn data_and_fin_in_one_segment() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(FIN | ACK | PSH, 1, 1, &pattern(0, 100));
    peer.expect_ack(102);
    let ready = peer.ready(id);
    assert!(ready.has(Ready::READABLE) && ready.has(Ready::FINISHED));
    assert_eq!(peer.read(id), pattern(0, 100));
}

#[test]
fn a_fin_beyond_a_gap_waits_for_the_gap() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(FIN | ACK, 101, 1, &[]);
    peer.expect_ack(1);
    assert_eq!(peer.state(id), State::Established);
    assert!(!peer.stack.finished(id).unwrap());
    peer.send(ACK, 1, 1, &pattern(0, 100));
    peer.expect_ack(102);
    assert_eq!(peer.state(id), State::CloseWait);
    assert!(peer.ready(id).has(Ready::FINISHED));
    assert_eq!(peer.read(id), pattern(0, 100));
}

#[test]
fn a_fin_with_data_beyond_a_gap_waits_for_the_gap() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(FIN | ACK, 101, 1, &pattern(100, 50));
    peer.expect_ack(1);
    peer.send(ACK, 1, 1, &pattern(0, 100));
    peer.expect_ack(152);
    assert_eq!(peer.read(id), pattern(0, 150));
    assert_eq!(peer.state(id), State::CloseWait);
}

#[test]
fn data_behind_the_fin_is_refused() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(FIN | ACK, 11, 1, &[]);
    peer.expect_ack(1);
    peer.send(ACK, 1, 1, &pattern(0, 30));
    assert_eq!(peer.read(id), [0; 0]);
    assert_eq!(peer.stack.counters().drop_tcp_after_fin, 1);
    peer.send(ACK, 1, 1, &pattern(0, 10));
    assert_eq!(peer.read(id), pattern(0, 10));
    assert_eq!(peer.state(id), State::CloseWait);
}

#[test]
fn a_peer_that_contradicts_itself_about_its_fin_still_comes_to_an_end() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(ACK, 31, 1, &pattern(30, 170));
    peer.send(FIN | ACK, 51, 1, &[]);
    peer.take();
    peer.send(ACK, 1, 1, &pattern(0, 30));
    peer.take();
    assert_eq!(peer.state(id), State::CloseWait);
    assert_eq!(peer.read(id)[..50], pattern(0, 50));
    peer.close(id);
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.shutdown_write(id);
    peer.expect(FIN | ACK);
    peer.wait();
    let again = peer.expect(FIN | ACK);
    assert_eq!((again.seq, again.payload.len()), (1, 0));
    peer.send(ACK, 1, 2, &[]);
    assert_eq!(peer.state(id), State::FinWait2);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().segments_retransmitted, 1);
}

#[test]
fn data_and_fin_lost_together_are_sent_again_together() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.write(id, &pattern(0, 200)).unwrap();
    peer.shutdown_write(id);
    peer.expect(FIN | ACK);
    peer.wait();
    let again = peer.expect(FIN | ACK);
    assert_eq!((again.seq, again.payload), (1, pattern(0, 200)));
    // Only the data arrived, it seems.
    peer.send(ACK, 1, 201, &[]);
    peer.wait();
    let fin = peer.expect(FIN | ACK);
    assert_eq!((fin.seq, fin.payload.len()), (201, 0));
}

#[test]
fn data_for_a_closed_application_resets() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.close(id);
    peer.expect(FIN | ACK);
    peer.send(ACK, 1, 2, &[]);
    peer.send(ACK | PSH, 1, 2, b"hello?");
    let reset = peer.expect(RST | ACK);
    assert_eq!(reset.seq, 2);
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn the_reset_for_it_is_believed_although_our_fin_was_lost() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.close(id);
    peer.expect(FIN | ACK);
    peer.wait();
    assert_eq!(peer.expect(FIN | ACK).seq, 1);
    // The peer has not seen it, so it expects the number that the FIN had.
    peer.send(ACK | PSH, 1, 1, b"hello");
    assert_eq!(peer.expect(RST).seq, 1);
    // And nothing is left.
    peer.send(ACK, 6, 1, &[]);
    assert_eq!(peer.expect(RST).seq, 1);
}

#[test]
fn old_data_with_a_new_fin_is_no_reason_to_reset() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(ACK | PSH, 1, 1, &pattern(0, 100));
    assert_eq!(peer.read(id).len(), 100);
    peer.close(id);
    assert_eq!(peer.expect(FIN | ACK).ack, 101);
    // Our acknowledgement was lost; the peer sends its data again, now with its own FIN.
    peer.send(FIN | ACK | PSH, 1, 1, &pattern(0, 100));
    peer.expect_ack(102);
    peer.send(ACK, 102, 2, &[]);
    assert_eq!(peer.stack.time_wait_connections(), 1);
}

#[test]
fn closing_with_unread_data_resets() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(ACK | PSH, 1, 1, b"unread");
    peer.take();
    peer.close(id);
    let reset = peer.expect(RST | ACK);
    assert_eq!((reset.seq, reset.ack), (1, 7));
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn a_closed_handle_is_dead_and_tells_nothing_more() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 100);
    peer.take();
    peer.send(ACK, 1, 101, &pattern(0, 10));
    assert_eq!(peer.read(id).len(), 10);
    peer.close(id);
    peer.take();
    assert!(peer.stack.read(id).is_err());
    assert!(peer.stack.write(id, b"x").is_err());
    assert!(peer.stack.info(id).is_err());
    peer.send(FIN | ACK, 11, 102, &[]);
    peer.expect_ack(12);
    assert_eq!(peer.events(), []);
    assert_eq!(peer.stack.time_wait_connections(), 1);
}

#[test]
fn an_abandoned_fin_wait_2_ends_by_its_timer() {
    let mut peer = Peer::with(|config| config.fin_wait_2 = Duration::from_secs(10));
    let id = peer.accepted();
    peer.close(id);
    peer.expect(FIN | ACK);
    peer.send(ACK, 1, 2, &[]);
    peer.advance_ms(9_000);
    assert_eq!(peer.stack.connections(), 1);
    peer.advance_ms(2_000);
    assert_eq!(peer.stack.connections(), 0);
    peer.expect_silence();
}

#[test]
fn no_time_in_fin_wait_2_is_the_usual_one() {
    // What setsockopt(2) gives for 0, and for -1.
    for (time, left) in [(Some(Duration::ZERO), 1), (None, 0)] {
        let mut peer = Peer::with(|config| config.fin_wait_2 = Duration::from_secs(10));
        let id = peer.accepted();
        peer.stack.set_option(id, SocketOption::Linger2(time)).unwrap();
        peer.close(id);
        peer.expect(FIN | ACK);
        peer.send(ACK, 1, 2, &[]);
        peer.advance_ms(9_000);
        assert_eq!(peer.stack.connections(), left, "{time:?}");
        peer.advance_ms(2_000);
        assert_eq!(peer.stack.connections(), 0);
    }
}

#[test]
fn half_closed_first_and_closed_later_it_has_the_same_timer() {
    let mut peer = Peer::with(|config| config.fin_wait_2 = Duration::from_secs(10));
    let id = peer.accepted();
    peer.shutdown_write(id);
    peer.expect(FIN | ACK);
    peer.send(ACK, 1, 2, &[]);
    peer.advance_ms(60_000);
    peer.close(id);
    peer.advance_ms(9_000);
    assert_eq!(peer.stack.connections(), 1);
    peer.advance_ms(2_000);
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn lingering_gives_up_when_its_time_is_over() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_linger(id, Some(Duration::from_secs(3))).unwrap();
    peer.write(id, 0, 500);
    peer.close(id);
    peer.take();
    peer.advance_ms(2_900);
    assert!(peer.take().iter().all(|segment| !segment.flags.contains(RST)));
    peer.advance_ms(200);
    assert!(peer.take().last().unwrap().flags.contains(RST));
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn lingering_ends_with_the_delivery() {
    let mut peer = Peer::with(|config| config.fin_wait_2 = Duration::from_secs(30));
    let id = peer.accepted();
    peer.stack.set_linger(id, Some(Duration::from_secs(3))).unwrap();
    peer.write(id, 0, 500);
    peer.close(id);
    peer.take();
    peer.send(ACK, 1, 502, &[]);
    peer.advance_ms(20_000);
    peer.expect_silence();
    assert_eq!(peer.stack.connections(), 1);
    peer.send(FIN | ACK, 1, 502, &[]);
    peer.expect_ack(2);
    assert_eq!(peer.stack.time_wait_connections(), 1);
}

#[test]
fn lingering_for_no_time_aborts() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_linger(id, Some(Duration::ZERO)).unwrap();
    peer.write(id, 0, 500);
    peer.take();
    peer.close(id);
    assert_eq!(peer.expect(RST | ACK).seq, 501);
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn an_abort_resets_and_says_so() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.abort(id);
    peer.expect(RST | ACK);
    assert_eq!(peer.ready(id), Ready::CLOSED);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::Aborted));
    // Once more does nothing.
    peer.stack.abort(id);
    peer.expect_silence();
    assert_eq!(peer.events(), []);
    peer.stack.release(id);
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn aborting_what_the_peer_reset_does_not_change_the_reason() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(RST, 1, 0, &[]);
    peer.stack.abort(id);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::Reset));
}

#[test]
fn closing_before_the_answer_forgets_the_attempt() {
    use crate::common::peer::SYN;
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    peer.close(id);
    assert_eq!(peer.stack.connections(), 0);
    peer.send(SYN | ACK, 0, 1, &[]);
    assert_eq!(peer.expect(RST).seq, 1);
}

#[test]
fn closing_before_the_answer_still_delivers_what_was_written() {
    use crate::common::peer::SYN;
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    peer.write(id, 0, 100);
    peer.close(id);
    peer.send(SYN | ACK, 0, 1, &[]);
    let last = peer.expect(FIN | ACK);
    assert_eq!((last.seq, last.payload), (1, pattern(0, 100)));
    peer.send(FIN | ACK, 1, 102, &[]);
    peer.expect_ack(2);
    peer.expect_silence();
}

#[test]
fn what_was_written_before_an_answer_that_never_comes_keeps_nothing() {
    // The SYN is sent again until half a minute is over.
    for (linger, least, most) in [(None, 20, 200), (Some(0), 0, 0), (Some(2), 2, 3)] {
        let mut peer = Peer::with(|config| config.syn_retries = 4);
        let id = peer.connect();
        peer.write(id, 0, 100);
        peer.stack.set_linger(id, linger.map(Duration::from_secs)).unwrap();
        peer.close(id);
        let mut seconds = 0;
        while peer.stack.connections() > 0 {
            peer.advance_ms(1000);
            seconds += 1;
        }
        assert!((least..=most).contains(&seconds), "{linger:?}: {seconds} s");
        peer.take();
        peer.finish();
    }
}

#[test]
fn a_fin_is_sent_even_into_a_closed_window() {
    let mut peer = Peer::new();
    peer.window = 0;
    let id = peer.accepted();
    peer.shutdown_write(id);
    peer.expect(FIN | ACK);
}

#[test]
fn shut_for_reading_what_comes_is_acknowledged_and_thrown_away() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    peer.stack.shutdown_read(id).unwrap();
    peer.collect();
    for at in 1..100u32 {
        peer.send(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000));
    }
    // Out of order as well.
    peer.send(ACK, 101_001, 1, &pattern(101_000, 1000));
    peer.send(ACK, 100_001, 1, &pattern(100_000, 1000));
    let last = peer.take().pop().unwrap();
    assert_eq!((last.ack, last.window), (102_001, 65_535));
    assert_eq!(peer.read(id), [0; 0]);
    assert_eq!(peer.stack.info(id).unwrap().receive_queue, 0);
    // It is no abort to close now.
    peer.close(id);
    peer.expect(FIN | ACK);
}
