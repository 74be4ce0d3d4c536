//! RTO restart (RFC 7765).

use core::time::Duration;

use crate::common::peer::{ACK, Peer};

fn second_segment_times_out_after(restart: bool) -> Duration {
    let mut peer = Peer::with(|config| {
        config.tcp.rto_restart = restart;
        config.tcp.tail_loss_probe = false;
    });
    let id = peer.accepted();
    peer.write(id, 0, 2000);
    peer.take();
    peer.advance_ms(150);
    peer.send(ACK, 1, 1001, &[]);
    peer.wait()
}

#[test]
fn the_timer_counts_from_when_the_segment_left() {
    let (with, without) =
        (second_segment_times_out_after(true), second_segment_times_out_after(false));
    assert!(with + Duration::from_millis(10) < without, "{with:?} {without:?}");
}
