//! TIME-WAIT: how long, for whom it makes way, and what still happens in it (RFC 9293 §3.6.1,
//! RFC 1122 §4.2.2.13).

use core::time::Duration;
use millrace_stack::{ConnectionId, Ready, State, TimeWaitReuse};

use crate::common::peer::{ACK, FIN, MSS, Peer, RST, SYN, pattern};

/// Closes an accepted connection from here, to TIME-WAIT.
fn to_time_wait(peer: &mut Peer) {
    let id = peer.accepted();
    peer.close(id);
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.expect_ack(2);
}

fn attached_time_wait(peer: &mut Peer) -> ConnectionId {
    let id = peer.accepted();
    peer.shutdown_write(id);
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.expect_ack(2);
    id
}

#[test]
fn it_ends_after_its_time() {
    let mut peer = Peer::with(|config| config.time_wait = Duration::from_secs(10));
    to_time_wait(&mut peer);
    peer.advance_ms(9_990);
    assert_eq!(peer.stack.time_wait_connections(), 1);
    peer.advance_ms(20);
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn it_is_over_however_long_the_stack_stood_still() {
    for hours in [1, 38, 48, 80, 130, 1000] {
        let mut peer = Peer::with(|config| config.time_wait = Duration::from_secs(60));
        to_time_wait(&mut peer);
        peer.now += Duration::from_secs(hours * 3600);
        peer.stack.advance(peer.now);
        assert_eq!(peer.stack.time_wait_connections(), 0, "after {hours} hours");
    }
}

#[test]
fn what_comes_first_after_a_standstill_finds_the_timers_run() {
    for hours in [48, 80, 130] {
        let mut peer = Peer::with(|config| config.time_wait = Duration::from_secs(60));
        to_time_wait(&mut peer);
        peer.now += Duration::from_secs(hours * 3600);
        // The FIN again, which would begin the time anew.
        peer.send(FIN | ACK, 1, 2, &[]);
        assert_eq!(peer.stack.time_wait_connections(), 0, "after {hours} hours");
    }
}

#[test]
fn a_time_of_days_is_kept() {
    let day = Duration::from_secs(24 * 3600);
    let mut peer = Peer::with(|config| config.time_wait = 4 * day);
    to_time_wait(&mut peer);
    peer.advance(4 * day - Duration::from_secs(1));
    assert_eq!(peer.stack.time_wait_connections(), 1);
    peer.advance_ms(1_010);
    assert_eq!(peer.stack.time_wait_connections(), 0);
}

#[test]
fn a_repeated_fin_is_acknowledged_and_the_time_begins_again() {
    let mut peer = Peer::with(|config| config.time_wait = Duration::from_secs(10));
    to_time_wait(&mut peer);
    peer.advance_ms(9_000);
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.expect_ack(2);
    peer.advance_ms(9_000);
    assert_eq!(peer.stack.time_wait_connections(), 1);
    peer.advance_ms(1_100);
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn a_larger_syn_opens_a_new_connection() {
    let mut peer = Peer::new();
    to_time_wait(&mut peer);
    let old = peer.flow.iss;
    peer.flow.isn += 1000;
    let id = peer.accepted();
    assert_eq!(peer.state(id), State::Established);
    assert_eq!(peer.stack.time_wait_connections(), 0);
    assert_eq!(peer.stack.counters().time_wait_reused, 1);
    assert!((peer.flow.iss.wrapping_sub(old) as i32) > 0);
}

#[test]
fn the_new_connections_numbers_are_behind_all_that_the_old_one_used() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    // Far more than the clock of RFC 6528 counts in no time.
    for at in 0..40u32 {
        peer.write(id, at as usize * 10_000, 10_000);
        peer.take();
        peer.send(ACK, 1, 10_001 + at * 10_000, &[]);
    }
    peer.close(id);
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 1, 400_002, &[]);
    peer.expect_ack(2);
    let used = peer.flow.iss.wrapping_add(400_002);
    peer.flow.isn += 1000;
    peer.accepted();
    assert!((peer.flow.iss.wrapping_sub(used) as i32) >= 0, "{} after {used}", peer.flow.iss);
}

#[test]
fn an_older_syn_is_challenged() {
    let mut peer = Peer::new();
    to_time_wait(&mut peer);
    peer.send(SYN, 0, 0, &[]);
    peer.expect_ack(2);
    assert_eq!(peer.stack.time_wait_connections(), 1);
}

#[test]
fn without_a_listener_a_syn_opens_nothing() {
    let mut peer = Peer::new();
    let id = peer.connected();
    peer.close(id);
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.expect_ack(2);
    peer.send(SYN, 5000, 0, &[]);
    peer.expect_ack(2);
    assert_eq!(peer.stack.time_wait_connections(), 1);
}

#[test]
fn late_data_is_dropped() {
    let mut peer = Peer::new();
    to_time_wait(&mut peer);
    peer.send(ACK, 2, 2, b"late");
    assert_eq!(peer.stack.counters().drop_tcp_after_fin, 1);
    peer.take();
    assert_eq!(peer.stack.time_wait_connections(), 1);
}

#[test]
fn the_bound_recycles_the_oldest() {
    let mut peer = Peer::with(|config| config.time_wait_connections = 3);
    for port in 0..5 {
        peer.flow.peer_port = 6000 + port;
        to_time_wait(&mut peer);
        peer.advance_ms(10);
    }
    assert_eq!(peer.stack.time_wait_connections(), 3);
    assert_eq!(peer.stack.connections(), 3);
    assert_eq!(peer.stack.counters().time_wait_recycled, 2);
}

#[test]
fn a_full_table_takes_the_oldest() {
    let mut peer = Peer::with(|config| config.connections = 3);
    for port in 0..3 {
        peer.flow.peer_port = 6000 + port;
        to_time_wait(&mut peer);
    }
    peer.flow.peer_port = 7000;
    let id = peer.accepted();
    assert_eq!(peer.state(id), State::Established);
    assert_eq!(peer.stack.time_wait_connections(), 2);
    assert_eq!(peer.stack.counters().time_wait_recycled, 1);
}

#[test]
fn an_entry_that_an_application_holds_is_not_taken_from_it() {
    let mut peer = Peer::with(|config| config.connections = 2);
    peer.flow.peer_port = 6000;
    let held = attached_time_wait(&mut peer);
    assert!(peer.ready(held).has(Ready::CLOSED));
    peer.flow.peer_port = 6001;
    to_time_wait(&mut peer);
    peer.flow.peer_port = 6002;
    peer.accepted();
    assert_eq!(peer.state(held), State::TimeWait);
    // All that is left is held: the table is full.
    peer.flow.peer_port = 6003;
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_no_connection_entry, 1);
}

#[test]
fn when_it_ends_a_held_handle_stays_valid_until_released() {
    let mut peer = Peer::new();
    let id = attached_time_wait(&mut peer);
    peer.advance(Duration::from_secs(100));
    assert_eq!(peer.state(id), State::Closed);
    assert_eq!(peer.stack.failure(id).unwrap(), None);
    peer.stack.release(id);
    assert_eq!(peer.stack.connections(), 0);
}

/// As [`to_time_wait`], of a connection with timestamps.
fn to_time_wait_at(peer: &mut Peer, value: u32) {
    peer.timestamp = Some(value);
    let id = peer.accepted_sack();
    peer.close(id);
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.expect_ack(2);
}

#[test]
fn a_reset_does_not_end_it() {
    // RFC 1337: neither an old one nor one that somebody made up.
    let mut peer = Peer::new();
    to_time_wait(&mut peer);
    for seq in [2, 3, 1000] {
        peer.send(RST, seq, 0, &[]);
        peer.expect_silence();
    }
    assert_eq!(peer.stack.time_wait_connections(), 1);
    assert_eq!(peer.stack.counters().drop_tcp_time_wait_reset, 3);
    // Old data is answered, and what is right is not.
    peer.send(ACK, 1, 1, b"x");
    peer.expect_ack(2);
    peer.send(ACK, 2, 2, &[]);
    peer.expect_silence();
    assert_eq!(peer.stack.time_wait_connections(), 1);
}

#[test]
fn by_timestamps_a_smaller_syn_opens_a_new_connection_too() {
    // The peer's next number, its next timestamp or none, and whether that is a new connection
    // (RFC 6191 §2).
    let cases = [
        (1000, Some(101), true),
        (-1000, Some(101), true),
        (1000, Some(100), true),
        (-1000, Some(100), false),
        (1000, Some(99), false),
        (1000, None, true),
        (-1000, None, false),
    ];
    for (step, timestamp, opens) in cases {
        let mut peer = Peer::new();
        to_time_wait_at(&mut peer, 100);
        peer.flow.isn = peer.flow.isn.wrapping_add_signed(step);
        peer.timestamp = timestamp;
        peer.send_syn_sack(SYN);
        let reused = peer.stack.counters().time_wait_reused == 1;
        assert_eq!(reused, opens, "{step} {timestamp:?}");
        peer.expect(if opens { SYN | ACK } else { ACK });
    }
}

#[test]
fn who_had_no_timestamps_is_followed_by_who_has() {
    let mut peer = Peer::new();
    to_time_wait(&mut peer);
    peer.flow.isn -= 1000;
    peer.timestamp = Some(1);
    peer.send_syn_sack(SYN);
    peer.expect(SYN | ACK);
    assert_eq!(peer.stack.counters().time_wait_reused, 1);
}

#[test]
fn a_full_accept_queue_leaves_it_as_it_is() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 1);
    peer.accepted();
    peer.flow.peer_port += 1;
    to_time_wait(&mut peer);
    let waiting = peer.flow;
    peer.flow.peer_port += 1;
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
    peer.send(ACK, 1, 1, &[]);
    peer.flow = waiting;
    peer.flow.isn += 1000;
    peer.send_syn(SYN, Some(MSS), None);
    assert_eq!(peer.stack.time_wait_connections(), 1);
    peer.take();
    peer.accept(listener).unwrap();
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
}

#[test]
fn connect_takes_it_over_as_configured() {
    let cases = [
        (TimeWaitReuse::Never, true, 5_000, false),
        (TimeWaitReuse::WithTimestamps, false, 5_000, false),
        (TimeWaitReuse::WithTimestamps, true, 500, false),
        (TimeWaitReuse::WithTimestamps, true, 2_000, true),
        (TimeWaitReuse::Always, false, 0, true),
    ];
    for (reuse, timestamps, wait, taken) in cases {
        let mut peer = Peer::with(|config| {
            config.ephemeral_ports = 40_000..=40_000;
            config.time_wait_reuse = reuse;
        });
        peer.timestamp = timestamps.then_some(70);
        let id = peer.connect();
        let old = peer.expect(SYN).options.timestamps.unwrap().0;
        peer.send_syn_sack(SYN | ACK);
        peer.expect_ack(1);
        peer.close(id);
        peer.expect(FIN | ACK);
        peer.send(FIN | ACK, 1, 2, &[]);
        peer.expect_ack(2);
        peer.advance_ms(wait);
        let remote = core::net::SocketAddr::new([192, 0, 2, 2].into(), peer.flow.peer_port);
        let again = peer.stack.connect(remote, None);
        assert_eq!(again.is_ok(), taken, "{reuse:?} {timestamps} {wait}");
        let Ok(again) = again else { continue };
        peer.collect();
        let new = peer.expect(SYN).options.timestamps.unwrap().0;
        assert!(wait == 0 || new.wrapping_sub(old) as i32 >= 2_000, "the clock goes on");
        peer.stack.abort(again);
        peer.stack.release(again);
    }
}

#[test]
fn one_that_was_closed_holds_no_frames() {
    let mut peer = Peer::new();
    let before = peer.stack.arena().free();
    let id = peer.accepted();
    peer.shutdown_write(id);
    peer.expect(FIN | ACK);
    for at in 0..20u32 {
        peer.send(ACK, 1 + at * 1000, 2, &pattern(at as usize * 1000, 1000));
    }
    peer.send(FIN | ACK, 20_001, 2, &[]);
    assert_eq!(peer.state(id), State::TimeWait);
    peer.take();
    assert_eq!(before - peer.stack.arena().free(), 20);
    peer.close(id);
    assert_eq!(peer.stack.time_wait_connections(), 1);
    assert_eq!(peer.stack.arena().free(), before, "nobody can read what has come");
}
