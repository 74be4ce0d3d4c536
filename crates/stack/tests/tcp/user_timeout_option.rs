//! The user timeout option (RFC 5482).

use core::time::Duration;

use millrace_stack::{Config, ConnectionId, Failure, SocketOption, UserTimeoutOption};
use millrace_wire::tcp::UserTimeout;

use crate::common::craft::{Segment, TcpSegment};
use crate::common::peer::{ACK, FIN, MSS, Peer, SYN};

const BOUNDS: UserTimeoutOption =
    UserTimeoutOption { least: Duration::from_secs(2), most: Duration::from_secs(20) };

fn stack(change: impl FnOnce(&mut Config)) -> Peer {
    Peer::with(|config| {
        config.user_timeout_option = Some(BOUNDS);
        change(config);
    })
}

/// A segment of the peer's with the option.
fn send(peer: &mut Peer, flags: millrace_wire::tcp::Flags, seq: u32, data: &[u8], raw: u16) {
    let ack = u32::from(flags.contains(ACK));
    let mut segment = TcpSegment { ..peer.segment(flags, seq, ack, data) };
    if flags.contains(SYN) {
        segment.options.mss(MSS);
    }
    assert!(segment.options.user_timeout(UserTimeout(raw)));
    peer.inject(&segment.bytes());
}

fn told(segment: &Segment) -> Option<u64> {
    segment.options.user_timeout.map(|timeout| timeout.duration().as_secs())
}

/// How long the stack waits for what it sends now to be acknowledged.
fn patience(peer: &mut Peer, id: ConnectionId) -> u64 {
    peer.stack.write(id, &[7; 100]).unwrap();
    peer.collect();
    let start = peer.now;
    while peer.stack.failure(id).unwrap().is_none() {
        peer.advance_ms(100);
        peer.take();
        assert!(peer.now - start < Duration::from_secs(4000), "it waits for ever");
    }
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::TimedOut));
    (peer.now - start).as_secs()
}

/// A connection whose SYN and first acknowledgement told the peer's timeout.
fn accepted(peer: &mut Peer, raw: u16) -> ConnectionId {
    let listener = peer.listen(80, 4);
    send(peer, SYN, 0, &[], raw);
    peer.expect(SYN | ACK);
    assert_eq!(peer.stack.counters().user_timeouts_received, 0, "half-open, it has no record");
    send(peer, ACK, 1, &[], raw);
    peer.accept(listener).unwrap()
}

#[test]
fn one_without_a_wish_waits_as_long_as_the_peer() {
    let mut peer = stack(|_| {});
    let id = accepted(&mut peer, 8);
    assert_eq!(peer.stack.counters().user_timeouts_received, 1);
    assert_eq!(patience(&mut peer, id), 8);
}

#[test]
fn what_the_peer_wants_is_bounded() {
    for (raw, seconds) in [(1, 2), (0x8000 | 5, 20), (0x7fff, 20)] {
        let mut peer = stack(|_| {});
        let id = accepted(&mut peer, raw);
        assert_eq!(patience(&mut peer, id), seconds, "{raw:#x}");
    }
}

#[test]
fn the_longer_wish_counts() {
    for (own, raw, seconds) in [(5, 8, 8), (12, 8, 12)] {
        let mut peer = stack(|config| config.user_timeout = Some(Duration::from_secs(own)));
        let id = accepted(&mut peer, raw);
        assert_eq!(patience(&mut peer, id), seconds);
    }
}

#[test]
fn what_the_application_sets_is_kept() {
    let mut peer = stack(|_| {});
    let id = accepted(&mut peer, 15);
    let own = SocketOption::UserTimeout(Some(Duration::from_secs(3)));
    peer.stack.set_option(id, own).unwrap();
    assert_eq!(patience(&mut peer, id), 3);
}

#[test]
fn zero_is_ignored_and_a_later_word_counts() {
    let mut peer = stack(|_| {});
    let id = accepted(&mut peer, 0);
    assert_eq!(peer.stack.counters().user_timeouts_received, 0);
    // In a segment that header prediction would take, too.
    send(&mut peer, ACK, 1, b"x", 9);
    send(&mut peer, ACK, 2, b"x", 0);
    peer.read(id);
    peer.take();
    assert_eq!(patience(&mut peer, id), 9);
}

#[test]
fn what_is_outside_of_the_window_says_nothing() {
    let mut peer = stack(|_| {});
    let id = accepted(&mut peer, 8);
    send(&mut peer, ACK, 900_000, b"x", 3);
    peer.take();
    assert_eq!(patience(&mut peer, id), 8);
}

#[test]
fn ours_goes_with_the_syn_ack_and_the_first_segment_after_it() {
    let mut peer = stack(|config| config.user_timeout = Some(Duration::from_secs(10)));
    let listener = peer.listen(80, 4);
    peer.send_syn(SYN, Some(MSS), None);
    assert_eq!(told(&peer.expect(SYN | ACK)), Some(10));
    peer.send(ACK, 1, 1, &[]);
    let id = peer.accept(listener).unwrap();
    peer.write(id, 0, 100);
    assert_eq!(told(&peer.expect_data(1, 100)), Some(10));
    peer.write(id, 100, 100);
    peer.send(ACK, 1, 101, &[]);
    assert_eq!(told(&peer.expect_data(101, 100)), None);
    // A full segment has no room; the next one that has carries the new word.
    peer.send(ACK, 1, 201, &[]);
    let own = SocketOption::UserTimeout(Some(Duration::from_secs(36_000)));
    peer.stack.set_option(id, own).unwrap();
    peer.write(id, 200, 1000);
    assert_eq!(told(&peer.expect_data(201, 1000)), None);
    peer.send(ACK, 1, 1201, b"x");
    peer.advance_ms(50);
    assert_eq!(told(&peer.expect_ack(2)), Some(36_000));
    peer.read(id);
}

#[test]
fn ours_goes_with_the_syn() {
    let mut peer = stack(|config| config.user_timeout = Some(Duration::from_secs(10)));
    let id = peer.connect();
    assert_eq!(told(&peer.expect(SYN)), Some(10));
    send(&mut peer, SYN | ACK, 0, &[], 7);
    assert_eq!(told(&peer.expect_ack(1)), Some(10));
    assert_eq!(patience(&mut peer, id), 10);
}

#[test]
fn nothing_is_told_or_taken_unless_asked_for() {
    let mut peer = Peer::with(|config| config.user_timeout = Some(Duration::from_secs(10)));
    let listener = peer.listen(80, 4);
    send(&mut peer, SYN, 0, &[], 300);
    assert_eq!(told(&peer.expect(SYN | ACK)), None);
    send(&mut peer, ACK, 1, &[], 300);
    let id = peer.accept(listener).unwrap();
    assert_eq!(peer.stack.counters().user_timeouts_received, 0);
    assert_eq!(patience(&mut peer, id), 10);
}

#[test]
fn a_connection_that_ends_with_its_fin_takes_no_record_for_the_option() {
    let mut peer = stack(|_| {});
    let id = accepted(&mut peer, 5);
    peer.stack.set_option(id, SocketOption::Linger2(None)).unwrap();
    peer.close(id);
    peer.expect(FIN | ACK);
    let mut last = peer.segment(ACK, 1, 2, &[]);
    assert!(last.options.user_timeout(UserTimeout(5)));
    peer.inject(&last.bytes());
    assert_eq!(peer.stack.connections(), 0);
    // The next connection of its entry begins with none.
    peer.flow.peer_port += 1;
    peer.accepted();
}
