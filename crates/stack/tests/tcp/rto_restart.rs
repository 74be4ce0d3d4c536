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

/// How long a connection with many segments in one record waits, after the first ones were
/// acknowledged.
fn seven_segments_time_out_after(restart: bool) -> Duration {
    let mut peer = Peer::with(|config| {
        config.tx_gso = 65_535;
        config.tx_checksum = true;
        config.tcp.tail_loss_probe = false;
        config.tcp.pacing = false;
        config.tcp.rto_restart = restart;
    });
    let id = peer.accepted_sack_over(300);
    peer.write(id, 0, 9000);
    assert_eq!(peer.take()[0].payload.len(), 9000);
    peer.advance_ms(300);
    peer.send(ACK, 1, 2001, &[]);
    peer.wait()
}

#[test]
fn the_timer_starts_afresh_for_a_super_segment() {
    assert_eq!(seven_segments_time_out_after(true), seven_segments_time_out_after(false));
}

/// RFC 7765 §4: what is ready to be sent counts as what is in flight does.
#[test]
fn what_is_not_sent_yet_counts() {
    for (written, few) in [(3000, true), (5000, false)] {
        let [with, without] = [true, false].map(|restart| {
            let mut peer = Peer::with(|config| {
                config.tcp.rto_restart = restart;
                config.tcp.tail_loss_probe = false;
                config.tcp.pacing = false;
                config.initial_window = 2;
            });
            let id = peer.accepted();
            peer.window = 2000;
            peer.write(id, 0, 1000 + written);
            assert_eq!(peer.take().len(), 2);
            peer.advance_ms(150);
            peer.window = 1000;
            peer.send(ACK, 1, 1001, &[]);
            assert_eq!(peer.take().len(), 0);
            peer.wait()
        });
        assert_eq!(with + Duration::from_millis(10) < without, few, "{written}");
    }
}
