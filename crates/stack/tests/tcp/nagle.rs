//! Nagle's algorithm (RFC 9293 §3.7.4) and how small writes are gathered.

use crate::common::peer::{ACK, Peer, pattern};

#[test]
fn a_small_segment_waits_while_another_is_unacknowledged() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 10);
    peer.expect_data(1, 10);
    for at in 1..6 {
        peer.write(id, at * 10, 10);
    }
    peer.expect_silence();
    peer.send(ACK, 1, 11, &[]);
    peer.expect_data(11, 50);
    peer.expect_silence();
}

#[test]
fn full_segments_do_not_wait() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 10);
    peer.expect_data(1, 10);
    peer.write(id, 10, 2500);
    peer.expect_data(11, 1000);
    peer.expect_data(1011, 1000);
    peer.expect_silence();
    // Only the small segment held it back (Minshall), not the full ones behind it.
    peer.send(ACK, 1, 11, &[]);
    peer.expect_data(2011, 500);
}

#[test]
fn the_tail_of_a_large_write_does_not_wait() {
    // RFC 9293 appendix A.3: only small segments keep a small one back.
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 2500);
    peer.expect_data(1, 1000);
    peer.expect_data(1001, 1000);
    peer.expect_data(2001, 500);
    peer.write(id, 2500, 10);
    peer.expect_silence();
    peer.send(ACK, 1, 2001, &[]);
    peer.expect_silence();
    peer.send(ACK, 1, 2501, &[]);
    peer.expect_data(2501, 10);
}

#[test]
fn without_delay_every_write_goes() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_no_delay(id, true).unwrap();
    for at in 0..5 {
        peer.write(id, at * 10, 10);
        peer.expect_data(1 + at as u32 * 10, 10);
    }
}

#[test]
fn switching_it_off_sends_what_waits() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 10);
    peer.expect_data(1, 10);
    peer.write(id, 10, 10);
    peer.expect_silence();
    peer.stack.set_no_delay(id, true).unwrap();
    peer.collect();
    peer.expect_data(11, 10);
}

#[test]
fn writes_of_one_turn_leave_as_one_segment() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    for at in 0..20 {
        peer.stack.write(id, &pattern(at * 10, 10)).unwrap();
    }
    peer.expect_data(1, 200);
    peer.expect_silence();
}

#[test]
fn a_shutdown_sends_what_waits() {
    use crate::common::peer::FIN;
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 10);
    peer.expect_data(1, 10);
    peer.write(id, 10, 10);
    peer.shutdown_write(id);
    let last = peer.expect(FIN | ACK);
    assert_eq!((last.seq, last.payload.len()), (11, 10));
}

#[test]
fn the_end_of_a_large_write_does_not_wait_for_its_beginning() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 2500);
    peer.expect_data(1, 1000);
    peer.expect_data(1001, 1000);
    peer.expect_data(2001, 500);
    peer.write(id, 2500, 10);
    peer.expect_silence();
    peer.send(ACK, 1, 2501, &[]);
    peer.expect_data(2501, 10);
}

#[test]
fn a_super_segment_leaves_the_small_end_behind() {
    let mut peer = Peer::with(|config| {
        config.tx_gso = 65_535;
        config.tx_checksum = true;
    });
    let id = peer.accepted();
    peer.write(id, 0, 10);
    peer.expect_data(1, 10);
    peer.write(id, 10, 3300);
    assert_eq!(peer.expect_data(11, 3000).gso_size, 1000);
    peer.expect_silence();
    peer.send(ACK, 1, 3011, &[]);
    peer.expect_data(3011, 300);
}
