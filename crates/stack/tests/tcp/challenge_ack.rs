//! How many answers segments get that cannot be right (RFC 5961 §7, CVE-2016-5696), and that no
//! two ends answer each other for ever.

use core::time::Duration;

use crate::common::peer::{ACK, FIN, Peer, RST, SYN, pattern};
use millrace_stack::{Failure, State};

/// Many connections, from peer port 6000 on.
fn many(peer: &mut Peer, count: u16) {
    let id = peer.listen(80, 64);
    for port in 0..count {
        peer.flow.peer_port = 6000 + port;
        peer.send_syn(SYN, None, None);
        peer.expect(SYN | ACK);
        peer.send(ACK, 1, 1, &[]);
        peer.accept(id).unwrap();
    }
}

/// Challenges in this second, with every connection asked once, and again and again.
fn challenges(peer: &mut Peer, count: u16) -> u64 {
    let before = peer.stack.counters().challenge_acks;
    for port in 0..count {
        peer.flow.peer_port = 6000 + port;
        peer.inject(&peer.segment(RST, 100, 0, &[]).bytes());
    }
    peer.take();
    peer.stack.counters().challenge_acks - before
}

#[test]
fn a_connection_challenges_twice_a_second() {
    let mut peer = Peer::new();
    peer.accepted();
    for round in 1..5 {
        for at in 0..20 {
            peer.send(RST, 100 + at, 0, &[]);
        }
        peer.expect_ack(1);
        peer.expect_silence();
        assert_eq!(peer.stack.counters().challenge_acks, round);
        assert_eq!(peer.stack.counters().acks_suppressed, 19 * round);
        peer.advance_ms(500);
    }
    assert_eq!(peer.stack.counters().drop_tcp_challenged, 80);
}

#[test]
fn the_next_connection_of_an_entry_is_not_its_predecessor() {
    let mut peer = Peer::with(|config| config.connections = 1);
    let first = peer.accepted();
    peer.send(RST, 100, 0, &[]);
    peer.expect_ack(1);
    peer.send(RST, 1, 0, &[]);
    peer.stack.release(first);
    peer.accepted();
    peer.send(RST, 100, 0, &[]);
    peer.expect_ack(1);
}

#[test]
fn the_stack_has_a_bound_that_nobody_can_count_against() {
    let mut peer = Peer::with(|config| {
        config.challenge_acks_per_second = 20;
        config.invalid_ack_interval = Duration::ZERO;
    });
    many(&mut peer, 40);
    let seconds: Vec<u64> = (0..40)
        .map(|_| {
            peer.advance_ms(1000);
            challenges(&mut peer, 40)
        })
        .collect();
    assert!(seconds.iter().all(|count| (10..30).contains(count)), "{seconds:?}");
    let mean = seconds.iter().sum::<u64>() / 40;
    assert!((17..=23).contains(&mean), "{mean}");
    let mut different = seconds.clone();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() > 8, "{seconds:?}");
    assert!(peer.stack.counters().drop_challenge_rate > 0);
}

#[test]
fn none_and_no_bound_are_bounds_too() {
    for (limit, expected) in [(0, 0), (u32::MAX, 40)] {
        let mut peer = Peer::with(|config| config.challenge_acks_per_second = limit);
        many(&mut peer, 40);
        assert_eq!(challenges(&mut peer, 40), expected);
    }
}

#[test]
fn what_is_outside_the_window_is_answered_now_and_then() {
    let mut peer = Peer::new();
    peer.accepted();
    for at in 0..10 {
        peer.send(ACK, 70_000 + at, 1, &[]);
        peer.send(ACK, 0, 1, &[]);
    }
    peer.expect_ack(1);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().acks_suppressed, 19);
    assert_eq!(peer.stack.counters().drop_tcp_outside_window, 20);
    // What has data is no part of a loop.
    for _ in 0..3 {
        peer.send(ACK, 70_000, 1, b"x");
        peer.expect_ack(1);
    }
}

#[test]
fn two_ends_that_disagree_do_not_answer_each_other_for_ever() {
    let mut peer = Peer::new();
    peer.accepted();
    let mut answers = 0;
    // The other end answers each of our acknowledgements with one that is as wrong as the last.
    peer.send(ACK, 900_000, 1, &[]);
    for _ in 0..100 {
        peer.advance_ms(10);
        for _ in peer.take() {
            answers += 1;
            peer.send(ACK, 900_000, 1, &[]);
        }
    }
    assert_eq!(answers, 1);
}

#[test]
fn old_timestamps_are_answered_now_and_then() {
    let mut peer = Peer::new();
    peer.timestamp = Some(1000);
    peer.accepted_sack();
    peer.timestamp = Some(500);
    for _ in 0..10 {
        peer.send(ACK, 1, 1, &[]);
        peer.send(FIN | ACK, 1, 1, &[]);
    }
    assert_eq!(peer.take().len(), 1);
    assert_eq!(peer.stack.counters().drop_tcp_paws, 20);
}

#[test]
fn a_reset_from_the_end_of_what_waits_is_believed() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack();
    peer.send(ACK, 1001, 1, &pattern(1000, 1000));
    peer.take();
    peer.send(RST, 1001, 1, &[]);
    assert_eq!(peer.state(id), State::Established);
    peer.send(RST, 2001, 1, &[]);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::Reset));
    peer.take();
}

#[test]
fn fins_below_the_window_are_answered_so_many_a_second() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    peer.advance_ms(600);
    peer.take();
    for seq in 0..100 {
        peer.send(ACK | FIN, seq, 1, &[]);
    }
    assert_eq!(peer.take().len(), 1, "one answer for all of them");
    assert_eq!(peer.state(id), State::Established);
}

#[test]
fn old_timestamps_do_not_make_syns_and_fins_be_answered_more_often() {
    for closed in [false, true] {
        for bits in [SYN, FIN | ACK] {
            let mut peer = Peer::new();
            peer.timestamp = Some(100_000);
            let id = peer.accepted_sack();
            if closed {
                peer.close(id);
                peer.expect(FIN | ACK);
                peer.send(FIN | ACK, 1, 2, &[]);
                peer.expect_ack(2);
            }
            peer.timestamp = Some(50_000);
            let mut answers = 0;
            for _ in 0..100 {
                // Below the window.
                peer.send(bits, 0, 1, &[]);
                answers += peer.take().len();
            }
            assert!(answers <= 1, "{answers} answers to {bits:?}, closed: {closed}");
        }
    }
}

#[test]
fn what_is_older_than_our_syn_acknowledges_nothing() {
    let mut peer = Peer::with(|config| config.invalid_ack_interval = Duration::ZERO);
    let id = peer.accepted();
    peer.write(id, 0, 500);
    peer.expect_data(1, 500);
    peer.send(ACK, 1, 501, &[]);
    // Within the window that the peer has, and before all that was ever sent.
    for ack in [u32::MAX, 0u32.wrapping_sub(100), 0u32.wrapping_sub(30_000)] {
        peer.send(ACK, 1, ack, b"injected");
        peer.expect_ack(1);
    }
    assert_eq!(peer.stack.counters().drop_tcp_bad_ack, 3);
    assert_eq!(peer.read(id), b"");
    // Linux takes this one, too.
    peer.send(ACK, 1, 0, b"overtaken");
    assert_eq!(peer.read(id), b"overtaken");
}
