//! The user timeout (RFC 9293 §3.9.1, RFC 5482).

use core::time::Duration;

use millrace_stack::{ConnectionId, Failure, SocketOption, State};

use crate::common::peer::{ACK, MSS, Peer, SYN};

fn set(peer: &mut Peer, id: ConnectionId, millis: u64) {
    let timeout = (millis > 0).then(|| Duration::from_millis(millis));
    peer.stack.set_option(id, SocketOption::UserTimeout(timeout)).unwrap();
}

/// Time until the connection is given up; `answer`: each probe is answered.
#[track_caller]
fn until_the_end(peer: &mut Peer, id: millrace_stack::ConnectionId, answer: bool) -> Duration {
    let start = peer.now;
    for _ in 0..10_000 {
        if peer.stack.failure(id).unwrap() == Some(Failure::TimedOut) {
            peer.expect_silence();
            return peer.now - start;
        }
        peer.advance_ms(10);
        if !peer.take().is_empty() && answer {
            peer.send(ACK, 1, 1, &[]);
        }
    }
    panic!("the connection lives on");
}

#[test]
fn data_that_nobody_acknowledges_ends_the_connection_in_time() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    set(&mut peer, id, 3000);
    peer.write(id, 0, 1000);
    peer.expect_data(1, 1000);
    let time = until_the_end(&mut peer, id, false);
    assert!(time.abs_diff(Duration::from_secs(3)) < Duration::from_millis(50), "{time:?}");
}

#[test]
fn one_of_no_time_is_none() {
    let mut peer = Peer::with(|config| {
        config.user_timeout = Some(Duration::ZERO);
        config.retries = 3;
    });
    let id = peer.accepted();
    peer.write(id, 0, 1000);
    peer.advance_ms(1000);
    assert!(peer.take().len() > 1);
    assert_eq!(peer.stack.failure(id).unwrap(), None);
}

#[test]
fn a_long_one_outlasts_the_number_of_retransmissions() {
    let mut peer = Peer::with(|config| config.retries = 2);
    let id = peer.accepted();
    set(&mut peer, id, 30_000);
    peer.write(id, 0, 1000);
    let time = until_the_end(&mut peer, id, false);
    assert!(time > Duration::from_secs(29) && time < Duration::from_secs(31), "{time:?}");
}

#[test]
fn progress_starts_it_afresh() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    set(&mut peer, id, 2000);
    peer.write(id, 0, 1000);
    for round in 0..4 {
        peer.take();
        peer.advance_ms(1500);
        peer.send(ACK, 1, 1001 + round * 1000, &[]);
        peer.write(id, 1000 + round as usize * 1000, 1000);
    }
    assert_eq!(peer.stack.failure(id).unwrap(), None);
    let time = until_the_end(&mut peer, id, false);
    assert!(time < Duration::from_millis(2100), "{time:?}");
}

#[test]
fn a_closed_window_does_not_hold_us_longer() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    set(&mut peer, id, 5000);
    peer.window = 0;
    peer.send(ACK, 1, 1, &[]);
    peer.write(id, 0, 1000);
    let time = until_the_end(&mut peer, id, true);
    assert!(time > Duration::from_secs(4) && time < Duration::from_secs(7), "{time:?}");
}

#[test]
fn one_of_days_is_kept() {
    for hours in [24, 100] {
        let mut peer = Peer::new();
        let id = peer.accepted();
        set(&mut peer, id, hours * 3_600_000);
        peer.write(id, 0, 100);
        let start = peer.now;
        while peer.stack.failure(id).unwrap().is_none() {
            peer.take();
            peer.advance(Duration::from_secs(60));
        }
        let time = peer.now - start;
        let wanted = Duration::from_secs(hours * 3600);
        assert!(time >= wanted && time < wanted + Duration::from_secs(120), "{time:?}");
    }
}

/// The connection waits for ten seconds: two in which nothing is heard do not end it.
#[track_caller]
fn two_seconds_of_silence_are_borne(peer: &mut Peer, id: ConnectionId, written: usize) {
    peer.write(id, written, 100);
    peer.take();
    for _ in 0..40 {
        peer.advance_ms(50);
        peer.take();
        assert_eq!(peer.state(id), State::Established, "{:?}", peer.stack.failure(id));
    }
}

#[test]
fn it_does_not_count_from_a_syn_that_was_lost() {
    let mut peer = Peer::new();
    let id = peer.connect();
    set(&mut peer, id, 10_000);
    peer.expect(SYN);
    peer.advance_ms(1_100);
    peer.expect(SYN);
    peer.send_syn(SYN | ACK, Some(MSS), None);
    peer.expect_ack(1);
    for round in 0..6u32 {
        peer.advance_ms(10_000);
        peer.write(id, round as usize * 100, 100);
        peer.expect_data(1 + round * 100, 100);
        peer.advance_ms(10);
        peer.send(ACK, 1, 101 + round * 100, &[]);
        peer.take();
    }
    two_seconds_of_silence_are_borne(&mut peer, id, 600);
}

#[test]
fn it_does_not_count_from_a_timeout_that_was_undone() {
    let mut peer = Peer::new();
    peer.timestamp = Some(1000);
    let id = peer.accepted_sack_over(50);
    set(&mut peer, id, 10_000);
    peer.write(id, 0, 2000);
    let originals = peer.take();
    let echo = originals[0].options.timestamps.unwrap().0;
    while peer.stack.counters().retransmission_timeouts == 0 {
        peer.advance_ms(10);
    }
    peer.take();
    // The originals were only late.
    peer.timestamp = Some(2000);
    for ack in [1001, 2001] {
        peer.echo = echo;
        peer.send(ACK, 1, ack, &[]);
        peer.advance_ms(1);
    }
    peer.take();
    assert_eq!(peer.stack.counters().reductions_undone, 1);
    peer.advance_ms(60_000);
    peer.timestamp = Some(62_000);
    two_seconds_of_silence_are_borne(&mut peer, id, 2000);
}

#[test]
fn it_does_not_count_from_a_window_that_was_taken_back() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    set(&mut peer, id, 10_000);
    peer.write(id, 0, 1000);
    peer.take();
    peer.window = 0;
    peer.send(ACK, 1, 1, &[]);
    while peer.stack.counters().retransmission_timeouts == 0 {
        peer.advance_ms(10);
    }
    peer.take();
    // A probe is answered, and then all is taken.
    peer.send(ACK, 1, 1, &[]);
    peer.send(ACK, 1, 1001, &[]);
    peer.window = 60_000;
    peer.send(ACK, 1, 1001, &[]);
    peer.advance_ms(60_000);
    two_seconds_of_silence_are_borne(&mut peer, id, 1000);
}

#[test]
fn it_does_not_count_from_what_waited_for_more_to_be_written() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    set(&mut peer, id, 10_000);
    peer.stack.set_option(id, SocketOption::Cork(true)).unwrap();
    peer.write(id, 0, 100);
    peer.expect_silence();
    peer.wait();
    peer.expect_data(1, 100);
    peer.send(ACK, 1, 101, &[]);
    peer.stack.set_option(id, SocketOption::Cork(false)).unwrap();
    peer.advance_ms(60_000);
    two_seconds_of_silence_are_borne(&mut peer, id, 100);
}
