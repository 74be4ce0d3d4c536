//! The congestion window (RFC 5681 §3.1 and §4.1, RFC 6928, RFC 7661).

use core::time::Duration;

use crate::common::peer::{ACK, Peer};
use millrace_stack::{Algorithm, Config, ConnectionId};

fn window(peer: &Peer, id: ConnectionId) -> u32 {
    peer.stack.info(id).unwrap().congestion_window
}

/// Acknowledges everything, every second segment, each in a call of its own. Returns up to where.
fn acknowledge_all(peer: &mut Peer, from: u32) -> u32 {
    let sent = peer.take();
    let end = sent.iter().map(|segment| segment.seq + segment.payload.len() as u32).max().unwrap();
    let mut at = from;
    while at < end {
        at = (at + 2000).min(end);
        peer.send(ACK, 1, at, &[]);
    }
    end
}

#[test]
fn it_begins_with_ten_segments() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 50_000);
    assert_eq!(peer.take().len(), 10);
    assert_eq!(window(&peer, id), 10_000);
}

#[test]
fn slow_start_doubles_it_each_round_trip() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted();
    peer.write(id, 0, 300_000);
    let mut acked = 1;
    for round in 1..3 {
        peer.advance_ms(50);
        acked = acknowledge_all(&mut peer, acked);
        assert_eq!(window(&peer, id), 10_000 << round);
    }
    assert_eq!(peer.take().len(), 40);
}

#[test]
fn acknowledgements_that_come_in_one_batch_count_all() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 300_000);
    assert_eq!(peer.take().len(), 10);
    let acks: Vec<_> = (1..=5).map(|n| peer.segment(ACK, 1, 1 + n * 2000, &[]).bytes()).collect();
    peer.inject_batch(&acks);
    assert_eq!(window(&peer, id), 20_000);
    assert_eq!(peer.take().len(), 20);
}

#[test]
fn avoidance_adds_one_segment_each_round_trip() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 200_000);
    peer.take();
    for _ in 0..3 {
        peer.send(ACK, 1, 1, &[]);
    }
    peer.take();
    peer.send(ACK, 1, 10_001, &[]);
    // Out of recovery with a threshold of half of what was in flight.
    let threshold = peer.stack.info(id).unwrap().slow_start_threshold;
    assert_eq!(threshold, 5000);
    let mut acked = acknowledge_all(&mut peer, 10_001);
    while window(&peer, id) < 6000 {
        acked = acknowledge_all(&mut peer, acked);
    }
    for _ in 0..3 {
        let before = window(&peer, id);
        let start = acked;
        while acked - start < before {
            acked = acknowledge_all(&mut peer, acked);
        }
        let after = window(&peer, id);
        assert!((before + 900..=before + 2000).contains(&after), "{before} to {after}");
    }
}

#[test]
fn a_timeout_leaves_one_segment_and_half_as_threshold() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 50_000);
    peer.take();
    peer.wait();
    let info = peer.stack.info(id).unwrap();
    assert_eq!((info.congestion_window, info.slow_start_threshold), (1000, 5000));
    peer.take();
    peer.wait();
    let info = peer.stack.info(id).unwrap();
    assert_eq!((info.congestion_window, info.slow_start_threshold), (1000, 5000));
}

/// RFC 5681 §3.1, equation 4: only what the timer has sent again already lowers it no further.
#[test]
fn a_second_timeout_of_other_data_lowers_the_threshold_again() {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.tcp.tail_loss_probe = false;
        config.tcp.frto = false;
        config.tcp.undo = false;
        config.initial_window = 40;
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 40_000);
    assert_eq!(peer.take().len(), 40);
    peer.wait();
    peer.expect_data(1, 1000);
    assert_eq!(peer.stack.info(id).unwrap().slow_start_threshold, 20_000);
    // Slow start for two round trips.
    for (ack, copies) in [(1001, 2), (3001, 4)] {
        peer.advance_ms(50);
        peer.send(ACK, 1, ack, &[]);
        assert_eq!(peer.take().len(), copies);
    }
    assert_eq!(window(&peer, id), 4000);
    // And now nothing comes any more.
    peer.wait();
    peer.expect_data(3001, 1000);
    let threshold = peer.stack.info(id).unwrap().slow_start_threshold;
    assert!(threshold <= 18_500, "more than half of what is outstanding: {threshold}");
    peer.wait();
    peer.expect_data(3001, 1000);
    assert_eq!(peer.stack.info(id).unwrap().slow_start_threshold, threshold);
}

#[test]
fn after_a_pause_it_begins_again() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 100_000);
    let mut acked = 1;
    while peer.stack.info(id).unwrap().send_queue > 0 {
        acked = acknowledge_all(&mut peer, acked);
    }
    assert!(window(&peer, id) > 20_000);
    peer.advance(Duration::from_secs(5));
    peer.write(id, 100_000, 50_000);
    assert_eq!(peer.take().len(), 10);
}

#[test]
fn after_a_pause_of_any_length_it_begins_again() {
    let mut left = Vec::new();
    // The last are a whole turn of a clock of 2^32 microseconds, and more.
    for pause_us in [60_000_000, (1 << 32) - 100_000, (1 << 32) + 100_000, (5 << 32) + 100_000] {
        let mut peer = Peer::with(|config| {
            config.tcp.pacing = false;
            config.initial_window = 4;
        });
        let id = peer.accepted_sack_over(20);
        peer.write(id, 0, 40_000);
        let mut end = 1;
        while end < 40_001 {
            for segment in peer.take() {
                end = segment.seq + segment.payload.len() as u32;
            }
            peer.advance_ms(20);
            peer.send(ACK, 1, end, &[]);
        }
        assert!(window(&peer, id) > 10_000);
        peer.advance(Duration::from_micros(pause_us));
        peer.write(id, 40_000, 30_000);
        left.push(peer.take().len());
    }
    assert_eq!(left, [4; 4]);
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    for at in 0..50u32 {
        peer.write(id, at as usize * 500, 500);
        peer.take();
        peer.send(ACK, 1, 501 + at * 500, &[]);
    }
    assert_eq!(window(&peer, id), 10_000);
}

#[test]
fn acknowledgement_division_gains_nothing() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 100_000);
    peer.take();
    for part in 1..=100 {
        peer.send(ACK, 1, 1 + part * 10, &[]);
    }
    assert_eq!(window(&peer, id), 11_000);
}

#[test]
fn a_stack_begins_with_cubic_and_a_connection_may_choose() {
    let mut peer = Peer::with(|config| config.congestion = Config::default().congestion);
    let id = peer.accepted();
    assert_eq!(peer.stack.congestion(id).unwrap(), Algorithm::Cubic);
    peer.write(id, 0, 50_000);
    peer.take();
    for algorithm in Algorithm::ALL {
        let before = window(&peer, id);
        peer.stack.set_congestion(id, algorithm).unwrap();
        assert_eq!(peer.stack.congestion(id).unwrap(), algorithm);
        assert_eq!(window(&peer, id), before, "{algorithm}");
    }
}

/// BBR has no threshold: none is what stood before its recovery.
#[test]
fn a_recovery_that_bbr_began_brings_no_slow_start_back_to_another() {
    let mut peer = Peer::with(|config| {
        config.congestion = Algorithm::Bbr;
        config.tcp.limited_transmit = false;
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 10_000);
    peer.advance_ms(50);
    assert_eq!(peer.take().len(), 10);
    peer.send_sack(1, 1, &[(1001, 4001)]);
    assert_eq!(peer.stack.tcp_info(id).unwrap().ca_state, 3);
    peer.stack.set_congestion(id, Algorithm::Cubic).unwrap();
    peer.send(ACK, 1, 4001, &[]);
    peer.send_sack(1, 4001, &[(1, 1001)]);
    let info = peer.stack.info(id).unwrap();
    assert!(info.slow_start_threshold <= 20_000, "{info:?}");
}

#[test]
fn cubic_keeps_seven_tenths_after_a_timeout() {
    let mut peer = Peer::with(|config| config.congestion = Algorithm::Cubic);
    let id = peer.accepted();
    peer.write(id, 0, 50_000);
    peer.take();
    peer.wait();
    assert_eq!(peer.stack.info(id).unwrap().slow_start_threshold, 7000);
}

/// Three windows of data on CUBIC's curve after a loss, what `meanwhile` does, and four more: the
/// window then.
fn cubic_window_after(
    change: impl FnOnce(&mut Config),
    meanwhile: impl FnOnce(&mut Peer, ConnectionId, &mut u32),
) -> u32 {
    let mut peer = Peer::with(|config| {
        config.tcp.pacing = false;
        config.congestion = Algorithm::Cubic;
        config.initial_window = 20;
        change(config);
    });
    let id = peer.accepted_sack_over(50);
    peer.write(id, 0, 20_000);
    assert_eq!(peer.take().len(), 20);
    peer.advance_ms(50);
    peer.send_sack(1, 1, &[(1001, 20_001)]);
    peer.take();
    peer.advance_ms(50);
    peer.send(ACK, 1, 20_001, &[]);
    let mut end = 20_001;
    let rounds = |peer: &mut Peer, end: &mut u32, count: u32| {
        for _ in 0..count {
            peer.write(id, *end as usize - 1, 30_000);
            let goal = *end + 30_000;
            while *end < goal {
                peer.advance_ms(50);
                if let Some(last) = peer.take().last() {
                    *end = last.seq + last.payload.len() as u32;
                }
                peer.send(ACK, 1, *end, &[]);
            }
        }
    };
    rounds(&mut peer, &mut end, 3);
    meanwhile(&mut peer, id, &mut end);
    rounds(&mut peer, &mut end, 4);
    window(&peer, id)
}

#[test]
fn the_curve_of_cubic_stands_still_in_a_pause() {
    let change = |config: &mut Config| config.tcp.slow_start_after_idle = false;
    let without = cubic_window_after(change, |_, _, _| ());
    let with = cubic_window_after(change, |peer, _, _| peer.advance(Duration::from_secs(600)));
    assert!(with <= without + 3000, "{with} after a pause, {without} without");
}

/// RFC 9438 §4.2 and §5.8. There is always a segment in flight.
#[test]
fn the_curve_of_cubic_stands_still_while_the_application_limits() {
    let without = cubic_window_after(|_| (), |_, _, _| ());
    let with = cubic_window_after(
        |_| (),
        |peer, id, end| {
            for at in 0..12_000 {
                peer.write(id, *end as usize - 1, 1000);
                peer.take();
                peer.advance_ms(25);
                if at > 0 {
                    peer.send(ACK, 1, *end, &[]);
                }
                *end += 1000;
                peer.advance_ms(25);
            }
            peer.send(ACK, 1, *end, &[]);
        },
    );
    assert!(with <= without + 4000, "{with} after a slow time, {without} without");
}
