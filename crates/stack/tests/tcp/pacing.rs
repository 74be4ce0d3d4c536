//! Segments are spread over the round trip.

use core::num::NonZeroU64;
use core::time::Duration;

use millrace_stack::{ConnectionId, OptionName, SocketOption};

use crate::common::peer::{ACK, Peer};

/// Sends what the timers let go until nothing more comes; tells when each segment left.
fn departures(peer: &mut Peer, most: Duration) -> Vec<(Duration, u32)> {
    let start = peer.now;
    let mut seen: Vec<(Duration, u32)> = Vec::new();
    loop {
        let elapsed = peer.now - start;
        seen.extend(peer.take().iter().map(|segment| (elapsed, segment.seq)));
        if peer.stack.next_deadline().is_none_or(|at| at > start + most) {
            let left = most.saturating_sub(peer.now - start);
            peer.advance(left);
            return seen;
        }
        peer.wait();
    }
}

#[test]
fn an_initial_window_leaves_at_once() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack_over(100);
    peer.write(id, 0, 10_000);
    assert_eq!(peer.take().len(), 10);
}

#[test]
fn what_is_more_leaves_over_half_of_the_round_trip_while_the_window_doubles() {
    let mut peer = Peer::with(|config| config.initial_window = 4);
    let id = peer.accepted_sack_over(100);
    peer.write(id, 0, 40_000);
    let mut end = 4_001;
    assert_eq!(peer.take().len(), 4);
    // One acknowledgement for all of a round trip, as of a path that joins them.
    peer.advance_ms(90);
    for window in [8, 16] {
        peer.advance_ms(10);
        peer.send(ACK, 1, end, &[]);
        let seen = departures(&mut peer, Duration::from_millis(90));
        assert_eq!(seen.len(), window, "{seen:?}");
        end += window as u32 * 1000;
        let at_once = seen.iter().filter(|(at, _)| *at == Duration::ZERO).count();
        assert!(at_once <= 5, "no more than an initial window, and one: {seen:?}");
        let gap = Duration::from_millis(50) / window as u32;
        let rest = &seen[at_once - 1..];
        let gaps = rest.windows(2).map(|pair| pair[1].0 - pair[0].0);
        assert!(gaps.clone().all(|seen| seen.abs_diff(gap) < gap / 4), "{gap:?}: {seen:?}");
    }
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

#[test]
fn an_application_limits_the_rate_and_takes_the_limit_back() {
    let mut peer = Peer::with(|config| config.initial_window = 4);
    let id = peer.accepted_sack_over(10);
    let limit = SocketOption::MaxPacingRate(NonZeroU64::new(100_000));
    peer.stack.set_option(id, limit).unwrap();
    assert_eq!(peer.stack.option(id, OptionName::MaxPacingRate).unwrap(), limit);
    assert_eq!(peer.stack.tcp_info(id).unwrap().max_pacing_rate, 100_000);
    peer.write(id, 0, 60_000);
    // A round trip of nothing, so that only the rate holds it back: ten milliseconds a segment.
    let mut left = Vec::new();
    for at in 0..400 {
        let sent = peer.take();
        if let Some(last) = sent.last() {
            left.extend(sent.iter().map(|_| at));
            peer.send(ACK, 1, last.seq + 1000, &[]);
        }
        peer.advance_ms(1);
    }
    assert!((40..=44).contains(&left.len()), "{left:?}");
    let later = &left[10..];
    assert!(later.windows(2).all(|pair| (9..=11).contains(&(pair[1] - pair[0]))), "{left:?}");
    peer.stack.set_option(id, SocketOption::MaxPacingRate(None)).unwrap();
    let mut rest = 0;
    for _ in 0..20 {
        let sent = peer.take();
        rest += sent.len();
        if let Some(last) = sent.last() {
            peer.send(ACK, 1, last.seq + 1000, &[]);
        }
        peer.advance_ms(1);
    }
    assert_eq!(left.len() + rest, 60, "what was left goes as the window allows");
}

/// A burst has left, more of it than is let go at once.
fn after_a_burst() -> (Peer, ConnectionId, u32) {
    let mut peer = Peer::new();
    let id = peer.accepted_sack_over(20);
    peer.write(id, 0, 8_000);
    peer.take();
    peer.advance_ms(20);
    peer.send(ACK, 1, 8_001, &[]);
    (peer, id, 8_001)
}

/// How long it takes until something leaves.
fn delay(peer: &mut Peer) -> Duration {
    match peer.take().len() {
        0 => peer.wait(),
        _ => Duration::ZERO,
    }
}

#[test]
fn single_segments_leave_at_once_however_long_ago_the_burst_before_them_was() {
    let (mut peer, id, mut end) = after_a_burst();
    for second in 0..4500 {
        peer.write(id, end as usize - 1, 100);
        end += 100;
        assert_eq!(peer.take().len(), 1, "nothing left at second {second}");
        peer.advance_ms(20);
        peer.send(ACK, 1, end, &[]);
        peer.advance_ms(980);
    }
}

#[test]
fn a_pause_of_any_length_does_not_stop_what_follows() {
    for minutes in [20, 36, 40, 70, 72, 110] {
        let (mut peer, id, end) = after_a_burst();
        peer.advance(Duration::from_secs(minutes * 60));
        peer.write(id, end as usize - 1, 3_000);
        let waited = delay(&mut peer);
        assert!(waited < Duration::from_secs(1), "{waited:?} after {minutes} minutes");
    }
}

#[test]
fn a_window_that_was_closed_for_forty_minutes_is_used_at_once() {
    let (mut peer, id, _) = after_a_burst();
    peer.write(id, 8_000, 4_000);
    peer.take();
    peer.advance_ms(20);
    peer.window = 0;
    peer.send(ACK, 1, 12_001, &[]);
    peer.write(id, 12_000, 4_000);
    for _ in 0..40 * 60 {
        peer.advance_ms(1000);
        if !peer.take().is_empty() {
            peer.send(ACK, 1, 12_001, &[]);
        }
    }
    peer.window = 65_535;
    peer.send(ACK, 1, 12_001, &[]);
    let waited = delay(&mut peer);
    assert!(waited < Duration::from_secs(1), "waited {waited:?}");
}
