//! Timestamps of copies on a path that reorders (RFC 7323 §5.3 seen from the sender).

use crate::common::craft::Segment;
use crate::common::peer::{ACK, MSS, Peer};
use millrace_stack::{ConnectionId, TcpFeatures};

/// Payload of a segment with timestamps.
const LEN: u32 = MSS as u32 - 12;

fn at(segment: u32) -> u32 {
    1 + segment * LEN
}

fn value(segment: &Segment) -> u32 {
    segment.options.timestamps.expect("a timestamp").0
}

/// Ten segments and more are under way since 40 ms, on a path of that round trip. Returns their
/// timestamp, too.
fn flight(features: impl FnOnce(&mut TcpFeatures)) -> (Peer, ConnectionId, u32) {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.tail_loss_probe = false;
        features(&mut config.tcp);
    });
    peer.timestamp = Some(1);
    let id = peer.accepted_sack_over(40);
    peer.write(id, 0, LEN as usize);
    peer.take();
    peer.advance_ms(40);
    peer.send(ACK, 1, at(1), &[]);
    peer.write(id, LEN as usize, 30 * LEN as usize);
    let sent = peer.take();
    assert!(sent.len() >= 10);
    peer.advance_ms(40);
    (peer, id, value(&sent[0]))
}

/// The second segment comes after the third, so that reordering is known.
fn reorders(peer: &mut Peer) -> Vec<Segment> {
    peer.send_sack(1, at(1), &[(at(2), at(3))]);
    peer.advance_ms(5);
    peer.send(ACK, 1, at(3), &[]);
    peer.take()
}

/// The copy of a segment, once the time for reordering has passed.
fn copy(peer: &mut Peer, segment: u32) -> Segment {
    peer.advance_ms(15);
    peer.take().into_iter().find(|sent| sent.seq == at(segment)).expect("a copy")
}

#[test]
fn a_copy_is_a_tick_younger_than_the_original() {
    let (mut peer, _, original) = flight(|_| ());
    let new = reorders(&mut peer);
    peer.send_sack(1, at(3), &[(at(4), at(8))]);
    assert_eq!(value(&copy(&mut peer, 3)), original + 1);
    // What is new has the clock's.
    assert_eq!(new.last().map(value), Some(original + 45));
}

#[test]
fn without_reordering_and_without_the_feature_it_is_the_clock() {
    let (mut peer, _, original) = flight(|_| ());
    peer.send_sack(1, at(1), &[(at(2), at(8))]);
    assert_eq!(value(&copy(&mut peer, 1)), original + 40);
    let (mut peer, _, original) = flight(|tcp| tcp.held_timestamps = false);
    reorders(&mut peer);
    peer.send_sack(1, at(3), &[(at(4), at(8))]);
    assert!(value(&copy(&mut peer, 3)) > original + 45);
}

#[test]
fn the_echo_tells_an_original_from_its_copy() {
    for (younger, undone) in [(0, 1), (1, 0)] {
        let (mut peer, _, original) = flight(|_| ());
        reorders(&mut peer);
        peer.send_sack(1, at(3), &[(at(4), at(8))]);
        copy(&mut peer, 3);
        peer.advance_ms(2);
        peer.echo = original + younger;
        peer.send(ACK, 1, at(8), &[]);
        assert_eq!(peer.stack.counters().reductions_undone, undone);
    }
}

#[test]
fn an_echo_of_a_copy_is_no_round_trip() {
    let (mut peer, id, original) = flight(|_| ());
    reorders(&mut peer);
    peer.send_sack(1, at(3), &[(at(4), at(8))]);
    copy(&mut peer, 3);
    let before = peer.stack.info(id).unwrap().round_trip;
    peer.advance_ms(2);
    peer.echo = original + 1;
    peer.send(ACK, 1, at(8), &[]);
    let after = peer.stack.info(id).unwrap().round_trip;
    assert_eq!(after, before);
}

#[test]
fn after_a_timeout_it_is_the_clock() {
    let (mut peer, _, original) = flight(|_| ());
    reorders(&mut peer);
    peer.send_sack(1, at(3), &[(at(4), at(8))]);
    assert_eq!(value(&copy(&mut peer, 3)), original + 1);
    peer.advance_ms(400);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 1);
    let again = peer.take().into_iter().find(|sent| sent.seq == at(3)).expect("a copy");
    assert!(value(&again) > original + 200);
}

#[test]
fn a_copy_is_no_older_than_one_before_it() {
    let (mut peer, _, original) = flight(|_| ());
    // Without reordering the first copy has the clock's.
    peer.send_sack(1, at(1), &[(at(2), at(5))]);
    let first = value(&copy(&mut peer, 1));
    assert!(first > original + 1);
    // The peer now remembers that; reordering is seen afterwards, and there is another gap.
    peer.echo = first;
    peer.send_sack(1, at(5), &[(at(6), at(7))]);
    peer.advance_ms(5);
    peer.send_sack(1, at(5), &[(at(5) + 1, at(7))]);
    peer.take();
    peer.send_sack(1, at(5), &[(at(6), at(9))]);
    let second = copy(&mut peer, 5);
    assert!(value(&second) >= first, "{} {first}", value(&second));
}
