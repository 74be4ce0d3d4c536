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
