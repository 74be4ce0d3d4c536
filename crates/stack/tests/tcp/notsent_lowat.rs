//! `TCP_NOTSENT_LOWAT`: how much may wait unsent.

use millrace_stack::{Ready, SocketOption};

use crate::common::peer::{ACK, Peer, SYN, pattern};

#[test]
fn writes_take_what_may_wait_unsent() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::NotSentLowat(4000)).unwrap();
    assert_eq!(peer.stack.write_room(id).unwrap(), 4000);
    assert_eq!(peer.stack.write(id, &pattern(0, 10_000)).unwrap(), 4000);
    assert_eq!(peer.stack.write_room(id).unwrap(), 0);
    peer.take();
    // All of it is on the way, and the window takes more.
    assert_eq!(peer.ready(id), Ready::WRITABLE);
    assert_eq!(peer.stack.write_room(id).unwrap(), 4000);
}

#[test]
fn room_is_told_when_half_of_it_has_left() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::NotSentLowat(4000)).unwrap();
    for at in [0, 4000, 8000] {
        peer.stack.write(id, &pattern(at, 4000)).unwrap();
        peer.take();
    }
    // The window took ten segments, two wait.
    assert_eq!(peer.stack.tcp_info(id).unwrap().notsent_bytes, 2000);
    peer.ready(id);
    assert_eq!(peer.stack.write(id, &pattern(12_000, 4000)).unwrap(), 2000);
    peer.take();
    assert!(peer.ready(id).is_empty());
    peer.send(ACK, 1, 1001, &[]);
    peer.take();
    assert_eq!(peer.ready(id), Ready::WRITABLE);
}

#[test]
fn a_bound_of_less_than_a_segment_makes_no_small_segments() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::NotSentLowat(1)).unwrap();
    peer.stack.set_no_delay(id, true).unwrap();
    assert_eq!(peer.stack.write(id, &pattern(0, 10_000)).unwrap(), 1000);
    assert_eq!(peer.stack.write_room(id).unwrap(), 0);
    peer.expect_data(1, 1000);
    assert_eq!(peer.ready(id), Ready::WRITABLE);
}

#[test]
fn the_configuration_sets_it_for_all() {
    let mut peer = Peer::with(|config| config.notsent_lowat = 3000);
    let id = peer.accepted();
    assert_eq!(peer.stack.write(id, &pattern(0, 10_000)).unwrap(), 3000);
    // As setsockopt(2) has it.
    let mut peer = Peer::with(|config| config.notsent_lowat = 0);
    let id = peer.accepted();
    assert_eq!(peer.stack.write(id, &pattern(0, 10_000)).unwrap(), 10_000);
    peer.take();
}

#[test]
fn who_wrote_before_the_syn_had_left_is_told_of_room_after_the_handshake() {
    let mut peer = Peer::with(|config| config.notsent_lowat = 1);
    let id = peer.connect_and(|stack, id| {
        // The SYN is all that may wait.
        assert_eq!(stack.write(id, &pattern(0, 10_000)).unwrap(), 0);
    });
    peer.expect(SYN);
    peer.send_syn(SYN | ACK, Some(1000), None);
    peer.expect_ack(1);
    assert!(peer.ready(id).has(Ready::WRITABLE));
    assert_eq!(peer.stack.write(id, &pattern(0, 10_000)).unwrap(), 1000);
    peer.expect_data(1, 1000);
}
