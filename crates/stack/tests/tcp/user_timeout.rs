//! The user timeout (RFC 9293 §3.9.1, RFC 5482).

use core::time::Duration;

use millrace_stack::{Failure, SocketOption};

use crate::common::peer::{ACK, Peer};

fn set(peer: &mut Peer, id: millrace_stack::ConnectionId, millis: u64) {
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
