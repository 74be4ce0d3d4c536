//! Ends of records (`MSG_EOR`): what is written later leaves in segments of its own.

use crate::common::peer::{ACK, PSH, Peer, pattern};

#[test]
fn a_record_does_not_share_its_last_segment_with_what_follows() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.write_record(id, &pattern(0, 400)).unwrap();
    peer.stack.write_record(id, &pattern(400, 1300)).unwrap();
    peer.stack.write(id, &pattern(1700, 1000)).unwrap();
    let segments = peer.take();
    let lengths: Vec<usize> = segments.iter().map(|segment| segment.payload.len()).collect();
    assert_eq!(lengths, [400, 1000, 300, 1000]);
    let pushed: Vec<bool> = segments.iter().map(|segment| segment.flags.intersects(PSH)).collect();
    assert!(pushed[0] && pushed[2] && pushed[3], "{pushed:?}");
}

#[test]
fn a_record_begins_in_the_segment_of_what_was_no_record() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.write(id, &pattern(0, 100)).unwrap();
    peer.stack.write_record(id, &pattern(100, 100)).unwrap();
    peer.expect_data(1, 200);
}

#[test]
fn a_record_is_sent_again_as_it_was() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.write_record(id, &pattern(0, 400)).unwrap();
    peer.stack.write_record(id, &pattern(400, 400)).unwrap();
    peer.expect_data(1, 400);
    peer.expect_data(401, 400);
    peer.send(ACK, 1, 401, &[]);
    peer.wait();
    let again = peer.take().pop().expect("a retransmission");
    assert_eq!((again.seq, again.payload.len()), (401, 400));
    assert!(again.flags.intersects(PSH));
}

#[test]
fn an_empty_record_ends_what_is_there() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.write(id, &pattern(0, 10)).unwrap();
    peer.stack.write_record(id, &[]).unwrap();
    peer.stack.write(id, &pattern(10, 1000)).unwrap();
    peer.expect_data(1, 10);
    peer.expect_data(11, 1000);
}
