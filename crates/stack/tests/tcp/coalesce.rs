//! Small segments that were lost leave again as few.

use crate::common::peer::{ACK, FIN, Peer, pattern};
use millrace_stack::ConnectionId;

/// A hundred segments of ten bytes each in flight.
fn hundred(peer: &mut Peer) -> ConnectionId {
    let id = peer.accepted_sack_over(10);
    peer.stack.set_no_delay(id, true).unwrap();
    for at in 0..100 {
        peer.write(id, at * 10, 10);
    }
    assert_eq!(peer.take().len(), 100);
    id
}

fn without_probes() -> Peer {
    Peer::with(|config| {
        config.tcp.tail_loss_probe = false;
        config.tcp.pacing = false;
    })
}

#[test]
fn a_timeout_sends_as_many_as_a_segment_takes_in_one() {
    let mut peer = without_probes();
    hundred(&mut peer);
    let free = peer.stack.arena().free();
    peer.wait();
    let again = peer.expect(ACK);
    assert_eq!((again.seq, again.payload), (1, pattern(0, 1000)));
    peer.expect_silence();
    assert_eq!(peer.stack.counters().segments_retransmitted, 1);
    assert_eq!(peer.stack.counters().retransmissions_coalesced, 99);
    assert_eq!(peer.stack.arena().free(), free + 99, "one frame holds it");
    peer.send(ACK, 1, 1001, &[]);
    peer.expect_silence();
}

#[test]
fn what_arrived_is_no_part_of_it() {
    let mut peer = without_probes();
    hundred(&mut peer);
    peer.advance_ms(10);
    // Numbers 301 to 400 arrived: what is before is lost, what is behind may be under way.
    peer.send_sack(1, 1, &[(301, 401)]);
    peer.advance_ms(10);
    let again = peer.take();
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!((again[0].seq, &again[0].payload), (1, &pattern(0, 300)));
    peer.send(ACK, 1, 401, &[]);
    peer.wait();
    let rest = peer.take();
    assert_eq!(rest[0].seq, 401);
    assert_eq!(rest[0].payload, pattern(400, 600));
}

#[test]
fn a_fin_goes_with_the_last_of_it() {
    let mut peer = without_probes();
    let id = hundred(&mut peer);
    peer.shutdown_write(id);
    assert_eq!(peer.take().len(), 1);
    peer.wait();
    let again = peer.expect(FIN | ACK);
    assert_eq!((again.seq, again.payload), (1, pattern(0, 1000)));
    peer.send(ACK, 1, 1002, &[]);
    assert_eq!(peer.stack.info(id).unwrap().send_queue, 0);
}

#[test]
fn records_stay_apart() {
    let mut peer = without_probes();
    let id = peer.accepted();
    peer.stack.set_no_delay(id, true).unwrap();
    for at in 0..3 {
        peer.stack.write_record(id, &pattern(at * 10, 10)).unwrap();
        peer.collect();
    }
    peer.take();
    peer.wait();
    peer.expect_data(1, 10);
}

#[test]
fn what_the_port_still_has_is_left_alone() {
    let mut peer = without_probes();
    peer.hold = true;
    hundred(&mut peer);
    peer.wait();
    assert_eq!(peer.take().len(), 100, "copies of each");
    assert_eq!(peer.stack.counters().retransmissions_coalesced, 0);
    peer.hold = false;
    peer.complete();
    peer.wait();
    assert_eq!(peer.expect(ACK).payload, pattern(0, 1000));
}

#[test]
fn no_more_than_the_peer_takes() {
    let mut peer = without_probes();
    hundred(&mut peer);
    peer.window = 250;
    peer.send(ACK, 1, 1, &[]);
    peer.wait();
    peer.expect_data(1, 250);
}
