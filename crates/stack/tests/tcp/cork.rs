//! `TCP_CORK`, and writes that say that more follows.

use core::time::Duration;

use millrace_stack::SocketOption;

use crate::common::peer::{ACK, FIN, PSH, Peer, pattern};

#[test]
fn partial_segments_wait_until_the_cork_is_drawn() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::NoDelay(true)).unwrap();
    peer.stack.set_option(id, SocketOption::Cork(true)).unwrap();
    peer.write(id, 0, 300);
    peer.expect_silence();
    peer.write(id, 300, 900);
    peer.expect_data(1, 1000);
    peer.expect_silence();
    peer.stack.set_option(id, SocketOption::Cork(false)).unwrap();
    peer.expect_data(1001, 200);
}

#[test]
fn they_wait_no_longer_than_the_ceiling() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::Cork(true)).unwrap();
    peer.write(id, 0, 300);
    let time = peer.wait();
    assert!(time > Duration::from_millis(190) && time < Duration::from_millis(1100), "{time:?}");
    peer.expect_data(1, 300);
    let info = peer.stack.tcp_info(id).unwrap();
    assert_eq!((info.backoff, info.retransmits, info.total_retrans), (0, 0, 0));
    peer.send(ACK, 1, 301, &[]);
    // The next one waits afresh.
    peer.write(id, 300, 100);
    peer.expect_silence();
    peer.wait();
    peer.expect_data(301, 100);
}

#[test]
fn what_is_acknowledged_meanwhile_does_not_draw_it() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::Cork(true)).unwrap();
    peer.write(id, 0, 1300);
    peer.expect_data(1, 1000);
    peer.send(ACK, 1, 1001, &[]);
    peer.expect_silence();
    peer.wait();
    peer.expect_data(1001, 300);
}

#[test]
fn a_fin_takes_what_waits_along() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::Cork(true)).unwrap();
    peer.write(id, 0, 300);
    peer.expect_silence();
    peer.shutdown_write(id);
    let last = peer.expect(FIN | ACK);
    assert_eq!(last.payload, pattern(0, 300));
}

#[test]
fn more_holds_back_until_a_write_without_it() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    assert_eq!(peer.stack.write_more(id, &pattern(0, 300)).unwrap(), 300);
    peer.expect_silence();
    assert_eq!(peer.stack.write_more(id, &pattern(300, 800)).unwrap(), 800);
    assert!(!peer.expect_data(1, 1000).flags.contains(PSH), "more follows");
    peer.expect_silence();
    peer.write(id, 1100, 100);
    assert!(peer.expect_data(1001, 200).flags.contains(PSH));
}

#[test]
fn what_waits_for_more_leaves_with_the_next_acknowledgement() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::NoDelay(true)).unwrap();
    peer.stack.write_more(id, &pattern(0, 2300)).unwrap();
    peer.expect_data(1, 1000);
    peer.expect_data(1001, 1000);
    peer.expect_silence();
    // A duplicate tells of nothing new.
    peer.send(ACK, 1, 1, &[]);
    peer.expect_silence();
    peer.send(ACK, 1, 1001, &[]);
    let rest = peer.expect_data(2001, 300);
    assert!(!rest.flags.contains(PSH), "more was to follow");
    // What is written after it waits again.
    peer.stack.write_more(id, &pattern(2300, 5)).unwrap();
    peer.expect_silence();
    peer.send(ACK, 1, 2301, &[]);
    peer.expect_data(2301, 5);
}

#[test]
fn nagles_algorithm_applies_to_what_has_waited_for_more() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 1000);
    peer.write(id, 1000, 200);
    assert_eq!(peer.take().len(), 2);
    peer.stack.write_more(id, &pattern(1200, 50)).unwrap();
    peer.send(ACK, 1, 1001, &[]);
    peer.expect_silence();
    peer.send(ACK, 1, 1201, &[]);
    peer.expect_data(1201, 50);
}

#[test]
fn the_ceiling_pushes_what_waits_for_more() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.write_more(id, &pattern(0, 300)).unwrap();
    peer.expect_silence();
    let time = peer.wait();
    assert!(time > Duration::from_millis(190) && time < Duration::from_millis(1100), "{time:?}");
    assert!(peer.expect_data(1, 300).flags.contains(PSH), "nothing has followed");
}

#[test]
fn a_super_segment_leaves_the_corked_end_behind() {
    let mut peer = Peer::with(|config| {
        config.tx_gso = 65_535;
        config.tx_checksum = true;
    });
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::Cork(true)).unwrap();
    peer.write(id, 0, 5400);
    let mut at = 1;
    for segment in peer.take() {
        assert_eq!(segment.payload.len() % 1000, 0);
        at += segment.payload.len() as u32;
    }
    assert_eq!(at, 5001);
    peer.stack.set_option(id, SocketOption::Cork(false)).unwrap();
    peer.expect_data(5001, 400);
}
