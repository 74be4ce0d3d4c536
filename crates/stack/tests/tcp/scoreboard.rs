//! What a sender does with selective acknowledgements (RFC 2018 §5, RFC 6675).

use crate::common::peer::{ACK, Peer};
use millrace_stack::ConnectionId;

/// Ten segments in flight to a peer with SACK, not paced.
fn ten(change: impl FnOnce(&mut millrace_stack::Config)) -> (Peer, ConnectionId) {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        change(config);
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 30_000);
    assert_eq!(peer.take().len(), 10);
    peer.advance_ms(50);
    (peer, id)
}

fn sequences(peer: &mut Peer) -> Vec<u32> {
    peer.take().into_iter().map(|segment| segment.seq).collect()
}

#[test]
fn only_the_holes_are_sent_again() {
    let (mut peer, _) = ten(|_| ());
    // The first, fourth and sixth are lost.
    peer.send_sack(1, 1, &[(1001, 3001)]);
    peer.send_sack(1, 1, &[(4001, 5001), (1001, 3001)]);
    peer.send_sack(1, 1, &[(6001, 10_001), (4001, 5001), (1001, 3001)]);
    let old: Vec<u32> = sequences(&mut peer).into_iter().filter(|&seq| seq < 10_000).collect();
    assert_eq!(old, [1, 3001, 5001]);
    assert_eq!(peer.stack.counters().fast_retransmits, 1);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
    peer.send(ACK, 1, 10_001, &[]);
    assert!(sequences(&mut peer).iter().all(|&seq| seq > 10_000), "nothing is sent a third time");
}

#[test]
fn without_rack_three_segments_above_a_hole_make_it_lost() {
    let (mut peer, _) = ten(|config| {
        config.tcp.rack = false;
        config.tcp.limited_transmit = false;
    });
    peer.send_sack(1, 1, &[(1001, 2001)]);
    peer.send_sack(1, 1, &[(1001, 3001)]);
    peer.expect_silence();
    peer.send_sack(1, 1, &[(1001, 4001)]);
    peer.expect_data(1, 1000);
}

#[test]
fn a_lost_retransmission_is_found_by_what_arrives_after_it() {
    let (mut peer, _) = ten(|_| ());
    peer.send_sack(1, 1, &[(1001, 8001)]);
    assert!(sequences(&mut peer).contains(&1));
    peer.send_sack(1, 1, &[(1001, 10_001)]);
    let end = sequences(&mut peer).last().map(|seq| seq + 1000).expect("new data behind the copy");
    peer.advance_ms(50);
    // What was sent after the retransmission has arrived, and it has not.
    peer.send_sack(1, 1, &[(1001, end)]);
    peer.advance_ms(50);
    assert!(sequences(&mut peer).contains(&1), "the copy was lost as well");
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
}

#[test]
fn a_timeout_sends_only_what_did_not_arrive() {
    let (mut peer, _) = ten(|config| {
        config.tcp.rack = false;
        config.tcp.tail_loss_probe = false;
        config.tcp.limited_transmit = false;
        config.tcp.frto = false;
    });
    peer.send_sack(1, 1, &[(1001, 2001), (3001, 4001)]);
    peer.expect_silence();
    peer.wait();
    let mut again = sequences(&mut peer);
    for at in [2001, 4001] {
        peer.advance_ms(5);
        peer.send_sack(1, at, &[(3001, 4001)]);
        again.extend(sequences(&mut peer));
    }
    again.retain(|&seq| seq <= 4001);
    assert_eq!(again, [1, 2001, 4001]);
}

#[test]
fn lying_blocks_are_refused_and_counted() {
    let (mut peer, id) = ten(|_| ());
    // Of what was never sent; upside down; of everything, but nothing is acknowledged.
    peer.send_sack(1, 1, &[(20_001, 30_001)]);
    peer.send_sack(1, 1, &[(5001, 3001)]);
    assert_eq!(peer.stack.counters().sack_blocks_refused, 2);
    peer.send_sack(1, 1, &[(1, 10_001)]);
    peer.stack.check_invariants();
    // It has it all and acknowledges nothing: it threw everything away.
    peer.take();
    peer.wait();
    assert_eq!(peer.stack.counters().sack_reneged, 1);
    assert!(sequences(&mut peer).contains(&1));
    assert!(peer.stack.info(id).is_ok());
}

#[test]
fn blocks_that_cut_segments_make_no_more_records_than_segments() {
    let (mut peer, _) = ten(|_| ());
    for at in (0..9000).step_by(10) {
        peer.send_sack(1, 1, &[(1003 + at, 1007 + at)]);
        peer.stack.check_invariants();
    }
    assert_eq!(peer.stack.counters().fast_retransmits, 0, "no whole segment has arrived");
}

#[test]
fn an_acknowledgement_that_was_overtaken_still_tells_of_its_blocks() {
    let (mut peer, _) = ten(|_| ());
    peer.send(ACK, 1, 3001, &[]);
    sequences(&mut peer);
    peer.send_sack(1, 2001, &[(4001, 10_001)]);
    let sent = sequences(&mut peer);
    assert!(sent.contains(&3001), "{sent:?}");
}

/// RFC 2018 §5: a segment is marked when the block covers it, in however many steps.
#[test]
fn blocks_that_grow_by_halves_of_segments_count() {
    let (mut peer, id) = ten(|_| ());
    peer.advance_ms(50);
    for end in (1501..=6001).step_by(500) {
        peer.send_sack(1, 1, &[(1001, end)]);
        peer.stack.check_invariants();
    }
    peer.advance_ms(20);
    assert_eq!(peer.stack.tcp_info(id).unwrap().sacked, 5);
    assert!(sequences(&mut peer).contains(&1));
}

#[test]
fn blocks_that_grow_downwards_by_halves_of_segments_count() {
    let (mut peer, id) = ten(|_| ());
    peer.advance_ms(50);
    for start in (1001..=5501).rev().step_by(500) {
        peer.send_sack(1, 1, &[(start, 6001)]);
        peer.stack.check_invariants();
    }
    assert_eq!(peer.stack.tcp_info(id).unwrap().sacked, 5);
}
