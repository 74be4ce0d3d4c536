//! The retransmission timer (RFC 6298), and giving up (RFC 9293 §3.8.3).

use core::time::Duration;
use millrace_stack::{ConnectionId, Failure, Ready, State};

use crate::common::peer::{ACK, FIN, MSS, Peer, SYN, pattern};

/// Within a tick of the wheel on either side, and the tick that has begun.
#[track_caller]
fn about(time: Duration, millis: u64) {
    let slack = Duration::from_micros(300);
    let wanted = Duration::from_millis(millis);
    assert!(time + slack >= wanted && time <= wanted + slack, "{time:?} is not {wanted:?}");
}

#[test]
fn an_unanswered_segment_comes_again_twice_as_late_each_time() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 100);
    peer.expect_data(1, 100);
    let mut timeout = 200;
    for _ in 0..8 {
        about(peer.wait(), timeout);
        peer.expect_data(1, 100);
        timeout *= 2;
    }
    assert_eq!(peer.stack.counters().retransmission_timeouts, 8);
    assert_eq!(peer.stack.counters().segments_retransmitted, 8);
}

#[test]
fn the_timeout_is_bounded() {
    let mut peer = Peer::with(|config| config.max_rto = Duration::from_secs(2));
    let id = peer.accepted();
    peer.write(id, 0, 100);
    peer.take();
    let times: Vec<Duration> = (0..7)
        .map(|_| {
            let time = peer.wait();
            peer.take();
            time
        })
        .collect();
    about(times[0], 200);
    about(times[6], 2000);
    about(times[5], 2000);
}

#[test]
fn the_timeout_follows_the_round_trip_time() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    // The handshake took no time: SRTT is (nearly) 0. 100 ms from now on.
    for at in 0..20u32 {
        peer.write(id, at as usize * 100, 100);
        peer.expect_data(1 + at * 100, 100);
        peer.advance_ms(100);
        peer.send(ACK, 1, 101 + at * 100, &[]);
    }
    let info = peer.stack.info(id).unwrap();
    assert!(info.round_trip > Duration::from_millis(90), "{info:?}");
    assert!(info.round_trip <= Duration::from_millis(101), "{info:?}");
    assert!(info.retransmission_timeout < Duration::from_millis(320), "{info:?}");
    assert!(info.retransmission_timeout >= Duration::from_millis(200), "{info:?}");
}

#[test]
fn the_first_sample_sets_timeout_to_three_round_trips() {
    let mut peer = Peer::new();
    peer.listen(80, 4);
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
    peer.advance_ms(300);
    peer.send(ACK, 1, 1, &[]);
    let listener = match peer.stack.next_event() {
        Some(millrace_stack::Event::Accept(listener)) => listener,
        other => panic!("{other:?}"),
    };
    let id = peer.accept(listener).unwrap();
    let info = peer.stack.info(id).unwrap();
    assert_eq!(info.round_trip.as_millis(), 300);
    assert_eq!(info.retransmission_timeout.as_millis(), 900);
}

#[test]
fn an_acknowledgement_of_something_sent_twice_is_no_sample() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 100);
    let before = peer.stack.info(id).unwrap().round_trip;
    peer.take();
    about(peer.wait(), 200);
    peer.take();
    peer.advance_ms(100);
    peer.send(ACK, 1, 101, &[]);
    assert_eq!(peer.stack.info(id).unwrap().round_trip, before);
}

#[test]
fn the_back_off_stays_until_there_is_a_sample() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 100);
    peer.take();
    about(peer.wait(), 200);
    peer.take();
    peer.send(ACK, 1, 101, &[]);
    // Nothing was learnt about the path: the next segment has the long timeout (Karn).
    peer.write(id, 100, 100);
    peer.take();
    about(peer.wait(), 400);
    peer.take();
    peer.send(ACK, 1, 201, &[]);
    // A segment that is sent once ends it.
    peer.write(id, 200, 100);
    peer.take();
    peer.advance_ms(10);
    peer.send(ACK, 1, 301, &[]);
    peer.write(id, 300, 100);
    peer.take();
    assert!(peer.wait() < Duration::from_millis(250));
}

#[test]
fn an_acknowledgement_of_new_data_restarts_the_timer() {
    let mut peer = Peer::with(|config| config.tcp.rto_restart = false);
    let id = peer.accepted();
    peer.write(id, 0, 2000);
    peer.take();
    peer.advance_ms(150);
    peer.send(ACK, 1, 1001, &[]);
    peer.expect_silence();
    // The acknowledgement was a sample of 150 ms, so the timeout is longer than the least.
    let timeout = peer.stack.info(id).unwrap().retransmission_timeout;
    let waited = peer.wait();
    assert!(waited + Duration::from_millis(1) > timeout, "{waited:?} < {timeout:?}");
    peer.expect_data(1001, 1000);
}

#[test]
fn the_timer_stops_when_all_is_acknowledged() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 2000);
    peer.take();
    peer.send(ACK, 1, 2001, &[]);
    peer.advance(Duration::from_secs(3600));
    peer.expect_silence();
    assert_eq!(peer.stack.next_deadline(), None);
}

#[test]
fn after_a_timeout_everything_is_sent_again_from_the_beginning() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 5000);
    assert_eq!(peer.take().len(), 5);
    peer.wait();
    // One segment: the window begins anew.
    peer.expect_data(1, 1000);
    peer.expect_silence();
    peer.send(ACK, 1, 1001, &[]);
    peer.expect_data(1001, 1000);
    peer.expect_data(2001, 1000);
    peer.expect_silence();
    // The peer had the rest all the while.
    peer.send(ACK, 1, 5001, &[]);
    peer.expect_silence();
    assert_eq!(peer.stack.info(id).unwrap().in_flight, 0);
    peer.write(id, 5000, 100);
    peer.expect_data(5001, 100);
}

/// RFC 8985 §3.1: time tells what is lost only with SACK. Without it nothing would ever say that what
/// left just before the timeout has arrived, and it would take up the window.
#[test]
fn after_a_timeout_without_sack_what_left_late_is_to_be_sent_again_too() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted();
    // 50 ms from now on.
    for at in 0..20u32 {
        peer.write(id, at as usize * 100, 100);
        peer.expect_data(1 + at * 100, 100);
        peer.advance_ms(50);
        peer.send(ACK, 1, 101 + at * 100, &[]);
    }
    peer.write(id, 2000, 2000);
    assert_eq!(peer.take().len(), 2);
    peer.advance_ms(200);
    peer.write(id, 4000, 4000);
    assert_eq!(peer.take().len(), 4);
    peer.wait();
    peer.expect_data(2001, 1000);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 1);
    let info = peer.stack.info(id).unwrap();
    assert_eq!(info.congestion_window, 1000, "RFC 5681 §3.1: one segment");
}

#[test]
fn part_of_a_segment_may_be_acknowledged() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 2000);
    peer.take();
    peer.send(ACK, 1, 301, &[]);
    peer.wait();
    let again = peer.expect(ACK);
    assert_eq!(again.seq, 301);
    assert_eq!(again.payload, pattern(300, again.payload.len()));
    peer.send(ACK, 1, 2001, &[]);
    assert_eq!(peer.stack.info(id).unwrap().send_queue, 0);
}

#[test]
fn a_pure_acknowledgement_after_a_timeout_has_the_highest_number() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 3000);
    peer.take();
    peer.wait();
    peer.expect_data(1, 1000);
    // The peer has all three, and sends something itself: it looks only at acknowledgements
    // within its window.
    peer.send(ACK, 1, 1, &pattern(0, 2000));
    assert_eq!(peer.expect_ack(2001).seq, 3001);
    let _ = id;
}

#[test]
fn a_connection_that_is_not_answered_times_out() {
    let mut peer = Peer::with(|config| config.retries = 4);
    let id = peer.accepted();
    peer.write(id, 0, 100);
    peer.take();
    for _ in 0..4 {
        peer.wait();
        peer.expect_data(1, 100);
    }
    // Nobody is there to be told: no reset.
    peer.advance(Duration::from_secs(60));
    peer.expect_silence();
    assert_eq!(peer.ready(id), Ready::CLOSED);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::TimedOut));
    assert_eq!(peer.stack.counters().connections_timed_out, 1);
    assert!(peer.stack.write(id, b"x").is_err());
}

#[test]
fn progress_forgives_earlier_timeouts() {
    let mut peer = Peer::with(|config| config.retries = 3);
    let id = peer.accepted();
    peer.write(id, 0, 10_000);
    for round in 0..6u32 {
        for _ in 0..3 {
            peer.take();
            peer.wait();
        }
        peer.take();
        peer.send(ACK, 1, 1001 + round * 1000, &[]);
    }
    assert_eq!(peer.state(id), State::Established);
}

#[test]
fn a_syn_is_sent_again_until_it_times_out() {
    let mut peer = Peer::with(|config| config.syn_retries = 3);
    let id = peer.connect();
    peer.expect(SYN);
    for timeout in [1000, 2000, 4000] {
        about(peer.wait(), timeout);
        let syn = peer.expect(SYN);
        assert_eq!((syn.seq, syn.mss), (0, Some(1460)));
    }
    peer.advance_ms(7_900);
    assert_eq!(peer.state(id), State::SynSent);
    peer.advance_ms(200);
    peer.expect_silence();
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::TimedOut));
    assert_eq!(peer.ready(id), Ready::CLOSED);
}

#[test]
fn a_syn_ack_is_sent_again_and_then_forgotten() {
    let mut peer = Peer::with(|config| config.syn_ack_retries = 2);
    peer.listen(80, 4);
    peer.send_syn(SYN, None, None);
    peer.expect(SYN | ACK);
    for timeout in [1000, 2000] {
        about(peer.wait(), timeout);
        peer.expect(SYN | ACK);
    }
    peer.advance_ms(4_100);
    peer.expect_silence();
    assert_eq!(peer.stack.connections(), 0);
    assert_eq!(peer.events(), []);
}

/// A connection whose SYN had to be sent so many times, to a peer that answers the last one after
/// 40 ms, with or without timestamps.
fn connected_at_last(syns: u32, timestamps: bool) -> (Peer, ConnectionId) {
    let mut peer = Peer::new();
    peer.timestamp = timestamps.then_some(7);
    let id = peer.connect();
    peer.expect(SYN);
    for _ in 1..syns {
        peer.wait();
        peer.expect(SYN);
    }
    peer.advance_ms(40);
    if timestamps {
        peer.send_syn_sack(SYN | ACK);
    } else {
        peer.send_syn(SYN | ACK, Some(MSS), None);
    }
    peer.expect_ack(1);
    (peer, id)
}

#[test]
fn after_a_lost_syn_data_begins_carefully() {
    let (mut peer, id) = connected_at_last(2, false);
    // RFC 6298 §5.7: three seconds, for nobody knows which SYN was answered.
    assert_eq!(peer.stack.info(id).unwrap().congestion_window, 10_000);
    peer.write(id, 0, 1000);
    peer.expect_data(1, 1000);
    about(peer.wait(), 3000);
}

#[test]
fn a_timestamp_tells_which_syn_was_answered() {
    let (mut peer, id) = connected_at_last(2, true);
    let info = peer.stack.info(id).unwrap();
    assert!(info.round_trip.as_millis().abs_diff(40) <= 1, "{info:?}");
    peer.write(id, 0, 900);
    peer.expect(ACK);
    // A round trip, and what a delayed acknowledgement may take.
    about(peer.wait(), 240);
}

/// A peer whose SYN-ACK was lost has the first SYN's timestamp still, and answers the second with
/// it. That took a second and a round trip, which is no round trip.
#[test]
fn a_timestamp_of_an_earlier_syn_says_nothing() {
    let mut peer = Peer::new();
    peer.timestamp = Some(7);
    let id = peer.connect();
    peer.expect(SYN);
    let first = peer.echo;
    peer.wait();
    peer.expect(SYN);
    peer.advance_ms(40);
    peer.echo = first;
    peer.send_syn_sack(SYN | ACK);
    peer.expect_ack(1);
    assert_eq!(peer.stack.info(id).unwrap().round_trip, Duration::ZERO);
    peer.write(id, 0, 900);
    peer.expect(ACK);
    about(peer.wait(), 3000);
}

#[test]
fn after_two_lost_syns_data_begins_with_one_segment() {
    let (mut peer, id) = connected_at_last(3, false);
    // RFC 5681 §3.1.
    assert_eq!(peer.stack.info(id).unwrap().congestion_window, 1000);
    peer.write(id, 0, 5000);
    peer.expect_data(1, 1000);
    peer.expect_silence();
    about(peer.wait(), 3000);
}

#[test]
fn a_vanished_peer_is_noticed_while_closing() {
    let mut peer = Peer::with(|config| config.retries = 3);
    let id = peer.accepted();
    peer.close(id);
    peer.expect(FIN | ACK);
    peer.advance(Duration::from_secs(60));
    peer.take();
    assert_eq!(peer.stack.connections(), 0);
    assert_eq!(peer.stack.counters().connections_timed_out, 1);
}

#[test]
fn what_is_still_in_flight_is_copied_when_it_is_sent_again() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.hold = true;
    peer.write(id, 0, 1000);
    peer.expect_data(1, 1000);
    let free = peer.stack.arena().free();
    peer.wait();
    peer.expect_data(1, 1000);
    assert_eq!(peer.stack.arena().free(), free - 1, "a copy went out");
    // Acknowledged while both are with the port: the frames come back when the port is done.
    peer.send(ACK, 1, 1001, &[]);
    peer.complete();
    assert_eq!(peer.stack.arena().free(), free + 1);
}
