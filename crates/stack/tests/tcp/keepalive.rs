//! Keepalive (RFC 1122 §4.2.3.6).

use core::time::Duration;

use millrace_stack::{ConnectionId, Failure, Ready, SocketOption, State};

use crate::common::peer::{ACK, Peer, RST, pattern};

fn kept_alive(peer: &mut Peer) -> ConnectionId {
    let id = peer.accepted();
    for option in [
        SocketOption::KeepIdle(Duration::from_secs(10)),
        SocketOption::KeepInterval(Duration::from_secs(3)),
        SocketOption::KeepCount(2),
        SocketOption::KeepAlive(true),
    ] {
        peer.stack.set_option(id, option).unwrap();
    }
    id
}

#[track_caller]
fn about(time: Duration, seconds: u64) {
    let wanted = Duration::from_secs(seconds);
    assert!(time.abs_diff(wanted) < Duration::from_millis(5), "{time:?} and not {wanted:?}");
}

#[test]
fn an_idle_connection_is_probed_from_before_its_window() {
    let mut peer = Peer::new();
    let id = kept_alive(&mut peer);
    about(peer.wait(), 10);
    let probe = peer.expect_ack(1);
    assert_eq!(probe.seq, 0, "one before the first unacknowledged number");
    assert_eq!(peer.stack.tcp_info(id).unwrap().probes, 1);
    assert_eq!(peer.stack.counters().keepalive_probes, 1);
    assert_eq!(peer.stack.counters().window_probes, 0);
}

#[test]
fn an_answer_ends_the_probes() {
    let mut peer = Peer::new();
    let id = kept_alive(&mut peer);
    for _ in 0..5 {
        about(peer.wait(), 10);
        peer.expect_ack(1);
        peer.send(ACK, 1, 1, &[]);
        peer.expect_silence();
        assert_eq!(peer.stack.tcp_info(id).unwrap().probes, 0);
    }
    assert_eq!(peer.state(id), State::Established);
}

#[test]
fn without_an_answer_the_connection_ends_with_a_reset() {
    let mut peer = Peer::new();
    let id = kept_alive(&mut peer);
    about(peer.wait(), 10);
    peer.expect_ack(1);
    about(peer.wait(), 3);
    peer.expect_ack(1);
    about(peer.wait(), 3);
    peer.expect(RST | ACK);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::TimedOut));
    assert!(peer.ready(id).has(Ready::CLOSED));
    assert_eq!(peer.stack.counters().connections_timed_out, 1);
}

#[test]
fn data_counts_as_a_sign_of_life() {
    let mut peer = Peer::new();
    let id = kept_alive(&mut peer);
    peer.advance_ms(6000);
    peer.send(ACK, 1, 1, b"x");
    peer.advance_ms(6000);
    peer.expect_ack(2);
    peer.expect_silence();
    about(peer.wait(), 4);
    peer.expect_ack(2);
    peer.read(id);
}

#[test]
fn while_something_is_under_way_retransmission_sees_to_it() {
    let mut peer = Peer::with(|config| config.min_rto = Duration::from_secs(60));
    let id = kept_alive(&mut peer);
    peer.write(id, 0, 100);
    peer.expect_data(1, 100);
    peer.advance_ms(30_000);
    peer.expect_silence();
    peer.send(ACK, 1, 101, &[]);
    let time = peer.wait();
    assert!(time <= Duration::from_secs(11), "{time:?}");
    assert_eq!(peer.expect_ack(1).seq, 100);
}

#[test]
fn the_user_timeout_takes_the_place_of_the_count() {
    let mut peer = Peer::new();
    let id = kept_alive(&mut peer);
    let timeout = Some(Duration::from_secs(14));
    peer.stack.set_option(id, SocketOption::UserTimeout(timeout)).unwrap();
    about(peer.wait(), 10);
    peer.expect_ack(1);
    about(peer.wait(), 3);
    peer.expect_ack(1);
    about(peer.wait(), 1);
    peer.expect(RST | ACK);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::TimedOut));
}

#[test]
fn switched_off_it_is_silent() {
    let mut peer = Peer::new();
    let id = kept_alive(&mut peer);
    peer.stack.set_option(id, SocketOption::KeepAlive(false)).unwrap();
    assert_eq!(peer.stack.next_deadline().map(|_| ()), peer.stack.next_deadline().map(|_| ()));
    peer.advance(Duration::from_secs(8000));
    peer.expect_silence();
}

#[test]
fn the_configuration_switches_it_on_for_all() {
    let mut peer = Peer::with(|config| {
        config.keepalive = true;
        config.keepalive_idle = Duration::from_secs(20);
    });
    let id = peer.accepted();
    about(peer.wait(), 20);
    peer.expect_ack(1);
    peer.send(ACK, 1, 1, &pattern(0, 10));
    peer.read(id);
    peer.stack.set_option(id, SocketOption::KeepAlive(false)).unwrap();
    peer.advance_ms(100);
    peer.take();
    peer.advance(Duration::from_secs(8000));
    peer.expect_silence();
}

#[test]
fn an_idle_time_of_days_is_kept() {
    for hours in [24, 100] {
        let mut peer = Peer::with(|config| {
            config.keepalive = true;
            config.keepalive_idle = Duration::from_secs(hours * 3600);
        });
        peer.accepted();
        about(peer.wait(), hours * 3600);
        peer.expect_ack(1);
    }
}

#[test]
fn a_connection_that_was_silent_for_days_is_probed_at_once() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.advance(Duration::from_secs(79 * 3600));
    peer.stack.set_option(id, SocketOption::KeepIdle(Duration::from_secs(7200))).unwrap();
    peer.stack.set_option(id, SocketOption::KeepAlive(true)).unwrap();
    about(peer.wait(), 0);
    peer.expect_ack(1);
}

#[test]
fn segments_of_somebody_off_the_path_do_not_make_a_dead_peer_seem_alive() {
    let mut peer = Peer::new();
    let id = kept_alive(&mut peer);
    for _ in 0..5 {
        peer.advance_ms(5_000);
        // The four numbers are known, and no other.
        peer.send(RST, 0x4000_0000, 0, &[]);
        peer.send(ACK, 0x4000_0000, 0, &[7]);
        peer.take();
    }
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::TimedOut));
}
