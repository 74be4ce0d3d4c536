//! The shorter ways of what is as predicted do what the general way does.

use core::time::Duration;

use crate::common::peer::{ACK, Peer};
use millrace_wire::seq::Seq;

/// A connection with five segments in flight.
fn five() -> (Peer, millrace_stack::ConnectionId) {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted_sack();
    peer.write(id, 0, 5000);
    assert_eq!(peer.take().len(), 5);
    (peer, id)
}

#[test]
fn selective_acknowledgements_count_on_segments_with_data_too() {
    let (mut peer, _) = five();
    let iss = Seq(peer.flow.iss);
    for (at, end) in [3001, 4001, 5001].into_iter().enumerate() {
        let mut segment = peer.segment(ACK, 1 + at as u32, 1, b"x");
        segment.options.sack(&[(iss + 1001, iss + end)]);
        let bytes = segment.bytes();
        peer.inject(&bytes);
    }
    let again = peer.take();
    assert_eq!(again.iter().map(|s| (s.seq, s.payload.len())).max(), Some((1, 1000)), "{again:?}");
}

#[test]
fn what_was_sent_before_the_last_window_does_not_set_it() {
    let (mut peer, id) = five();
    peer.window = 9000;
    // Beyond a gap, and with news of the window.
    peer.send(ACK, 101, 1, &[2; 100]);
    assert_eq!(peer.stack.info(id).unwrap().send_window, 9000);
    peer.window = 5000;
    peer.send(ACK, 1, 1, &[1; 100]);
    assert_eq!(peer.stack.info(id).unwrap().send_window, 9000);
    assert_eq!(peer.read(id).len(), 200);
    peer.take();
}

#[test]
fn what_arrived_an_hour_ago_says_nothing_of_what_is_in_flight() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.tail_loss_probe = false;
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 1000);
    peer.advance_ms(50);
    peer.send(ACK, 1, 1001, &[]);
    peer.take();
    // The clock of microseconds has gone more than half around.
    peer.advance(Duration::from_secs(3600));
    peer.write(id, 1000, 3000);
    assert_eq!(peer.take().len(), 3);
    peer.advance_ms(50);
    peer.send_sack(1, 1001, &[(2001, 3001)]);
    peer.advance_ms(30);
    peer.expect_data(1001, 1000);
    // The third left after the one that has arrived.
    assert_eq!(peer.stack.tcp_info(id).unwrap().lost, 1);
}
