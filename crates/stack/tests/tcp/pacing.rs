//! Segments are spread over the round trip.

use core::time::Duration;

use crate::common::peer::{ACK, Peer};

/// Sends what the timers let go until nothing more comes; tells when each segment left.
fn departures(peer: &mut Peer, most: Duration) -> Vec<(Duration, u32)> {
    let start = peer.now;
    let mut seen: Vec<(Duration, u32)> = Vec::new();
    loop {
        let elapsed = peer.now - start;
        let sent = peer.take();
        if elapsed > most {
            return seen;
        }
        seen.extend(sent.iter().map(|segment| (elapsed, segment.seq)));
        if peer.stack.next_deadline().is_none() {
            return seen;
        }
        peer.wait();
    }
}

#[test]
fn a_window_leaves_over_half_of_the_round_trip_while_it_doubles() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack_over(100);
    peer.write(id, 0, 10_000);
    let seen = departures(&mut peer, Duration::from_millis(90));
    assert_eq!(seen.len(), 10, "{seen:?}");
    let last = seen[9].0;
    assert!(last > Duration::from_millis(40) && last < Duration::from_millis(60), "{seen:?}");
    let largest = seen.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap();
    assert!(largest < Duration::from_millis(7), "evenly: {seen:?}");
}

#[test]
fn switched_off_a_window_leaves_at_once() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted_sack();
    peer.write(id, 0, 1000);
    peer.take();
    peer.advance_ms(100);
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 10_000);
    assert_eq!(peer.take().len(), 10);
}

#[test]
fn a_short_path_is_not_paced() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack();
    peer.write(id, 0, 1000);
    peer.take();
    peer.advance(Duration::from_micros(50));
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 10_000);
    assert_eq!(peer.take().len(), 10);
}
