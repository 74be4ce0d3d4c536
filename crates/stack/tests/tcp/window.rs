//! The windows of both sides (RFC 9293 §3.8.6, RFC 7323 §2).

use core::time::Duration;

use crate::common::peer::{ACK, MSS, PSH, Peer, RST, SYN, pattern};
use millrace_stack::{Failure, Ready, SocketOption, State};

#[test]
fn a_closed_window_is_probed_later_and_later_for_as_long_as_the_peer_answers() {
    let mut peer = Peer::with(|config| config.retries = 5);
    peer.window = 2000;
    let id = peer.accepted();
    peer.write(id, 0, 5000);
    assert_eq!(peer.take().len(), 2);
    peer.window = 0;
    peer.send(ACK, 1, 2001, &[]);
    peer.expect_silence();
    let mut last = Duration::ZERO;
    for probe in 1..20 {
        let time = peer.wait();
        let segment = peer.expect_ack(1);
        assert_eq!(segment.seq, 2000, "a number that the peer has already");
        assert!(time >= last, "probe {probe} after {time:?}, the one before after {last:?}");
        if probe < 9 && probe > 1 {
            assert!(time > last * 3 / 2, "probe {probe} after {time:?}, then {last:?}");
        }
        last = time;
        peer.send(ACK, 1, 2001, &[]);
    }
    assert_eq!(peer.state(id), State::Established);
    assert_eq!(peer.stack.counters().window_probes, 19);
    assert!(last <= Duration::from_secs(121));
    peer.window = 10_000;
    peer.send(ACK, 1, 2001, &[]);
    for at in [2001, 3001, 4001] {
        peer.expect_data(at, 1000);
    }
}

#[test]
fn the_first_probe_comes_after_one_timeout_with_sack_too() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack_over(100);
    peer.write(id, 0, 1000);
    peer.take();
    peer.advance_ms(100);
    // Everything has arrived and nothing more fits, so there is nothing to probe for a loss.
    peer.window = 0;
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 5000);
    let timeout = u64::from(peer.stack.tcp_info(id).unwrap().rto);
    let time = peer.wait();
    peer.expect_ack(1);
    let late = time.checked_sub(Duration::from_micros(timeout));
    assert!(late.is_some_and(|late| late < Duration::from_millis(5)), "{time:?} of {timeout} us");
    assert_eq!(peer.stack.counters().tail_loss_probes, 0);
}

#[test]
fn probes_that_nobody_answers_end_the_connection() {
    let mut peer = Peer::with(|config| config.retries = 4);
    peer.window = 1000;
    let id = peer.accepted();
    peer.write(id, 0, 5000);
    peer.window = 0;
    peer.take();
    peer.send(ACK, 1, 1001, &[]);
    for _ in 0..4 {
        peer.wait();
        peer.expect_ack(1);
    }
    peer.advance_ms(60_000);
    peer.expect_silence();
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::TimedOut));
}

#[test]
fn an_opening_window_is_used_at_once() {
    let mut peer = Peer::new();
    peer.window = 0;
    let id = peer.accepted();
    peer.write(id, 0, 1000);
    peer.expect_silence();
    peer.advance_ms(10);
    peer.window = 1000;
    peer.send(ACK, 1, 1, &[]);
    peer.expect_data(1, 1000);
    // The next loss has an ordinary timeout.
    let time = peer.wait();
    assert!(time < Duration::from_millis(201), "{time:?}");
    peer.expect_data(1, 1000);
}

#[test]
fn old_segments_do_not_set_the_window() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(ACK, 1, 1, b"new");
    peer.window = 5;
    // The same bytes again, from before: an old segment.
    let old = peer.segment(ACK, 0, 1, b"x").bytes();
    peer.inject(&old);
    assert_eq!(peer.stack.info(id).unwrap().send_window, 65_535);
}

#[test]
fn small_windows_are_not_filled_with_small_segments() {
    let mut peer = Peer::new();
    peer.window = 10_000;
    let id = peer.accepted();
    peer.write(id, 0, 20_000);
    assert_eq!(peer.take().len(), 10);
    // 300 bytes of room: less than a segment and less than half of the largest window.
    peer.window = 300;
    peer.send(ACK, 1, 10_001, &[]);
    peer.expect_silence();
    // The persist timer overrides.
    let time = peer.wait();
    assert!(time >= Duration::from_millis(199), "{time:?}");
    peer.expect_data(10_001, 300);
}

#[test]
fn a_peer_whose_whole_window_is_small_is_served() {
    let mut peer = Peer::new();
    peer.window = 300;
    let id = peer.accepted();
    peer.write(id, 0, 1000);
    for (seq, len) in [(1, 300), (301, 300), (601, 300), (901, 100)] {
        peer.expect_data(seq, len);
        peer.send(ACK, 1, seq + len as u32, &[]);
    }
    let _ = id;
}

#[test]
fn acknowledgements_stay_in_a_window_that_was_taken_back() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 5000);
    assert_eq!(peer.take().len(), 5);
    // What it has already is acknowledged at once. Beyond its window the peer has to refuse
    // whatever comes, and would never learn what we got.
    for (window, seq) in [(500, 1501), (0, 1001)] {
        peer.window = window;
        peer.send(ACK, 1, 1001, &[]);
        peer.send(ACK, 0, 1001, b"a");
        assert_eq!(peer.expect_ack(1).seq, seq);
    }
}

#[test]
fn a_window_that_is_taken_back_stops_us_but_does_not_end_us() {
    let mut peer = Peer::with(|config| config.retries = 4);
    let id = peer.accepted();
    peer.write(id, 0, 5000);
    assert_eq!(peer.take().len(), 5);
    // RFC 9293 §3.8.6: robust against it, and no timeout for what is beyond the edge.
    peer.window = 0;
    peer.send(ACK, 1, 1001, &[]);
    for _ in 0..12 {
        peer.wait();
        for probe in peer.take() {
            assert!(probe.payload.is_empty(), "{probe:?}");
        }
        peer.send(ACK, 1, 1001, &[]);
    }
    assert_eq!(peer.state(id), State::Established);
    peer.window = 65_535;
    peer.send(ACK, 1, 1001, &[]);
    peer.expect_data(1001, 1000);
}

#[test]
fn a_window_that_is_taken_back_in_part_is_used_as_it_is() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 5000);
    peer.take();
    peer.window = 600;
    peer.send(ACK, 1, 1001, &[]);
    peer.wait();
    peer.expect_data(1001, 600);
    peer.send(ACK, 1, 1601, &[]);
    peer.wait();
    let next = peer.expect(ACK);
    assert_eq!((next.seq, next.payload.len()), (1601, 400));
    let _ = id;
}

#[test]
fn a_window_that_is_taken_back_and_opens_a_little_leaves_nothing_waiting_for_ever() {
    let mut peer = Peer::new();
    peer.window = 4000;
    let id = peer.accepted();
    peer.write(id, 0, 8000);
    assert_eq!(peer.take().len(), 4);
    // The window behind it is gone.
    peer.window = 0;
    peer.send(ACK, 1, 1001, &[]);
    peer.wait();
    peer.take();
    // A part has arrived after all, and one byte of the window comes back: too little for a
    // segment, while 2500 bytes still wait.
    peer.window = 1;
    peer.send(ACK, 1, 1501, &[]);
    peer.take();
    peer.stack.check_invariants();
    peer.wait();
    let sent: usize = peer.take().iter().map(|segment| segment.payload.len()).sum();
    assert!(sent >= 1, "the byte that the window takes");
}

#[test]
fn our_window_closes_as_data_waits_and_opens_when_it_is_read() {
    let mut peer = Peer::with(|config| config.receive_buffer = 8192);
    let id = peer.accepted();
    let mut edge = 0;
    for at in 0..8u32 {
        peer.send(ACK | PSH, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000));
        for segment in peer.take() {
            let right = segment.ack + u32::from(segment.window);
            assert!(right >= edge, "the right edge moved to the left");
            edge = right;
        }
    }
    assert_eq!(edge, 8193);
    peer.advance_ms(100);
    peer.take();
    // Only a part of the next one fits.
    peer.send(ACK | PSH, 8001, 1, &pattern(8000, 1000));
    peer.advance_ms(100);
    let full = peer.expect_ack(8193);
    assert_eq!(full.window, 0);
    assert_eq!(peer.read(id), pattern(0, 8192));
    let update = peer.expect_ack(8193);
    assert_eq!(update.window, 8192);
    peer.expect_silence();
}

#[test]
fn probes_of_our_closed_window_are_answered_and_their_acknowledgements_count() {
    let mut peer = Peer::with(|config| config.receive_buffer = 2048);
    let id = peer.accepted();
    peer.send(ACK, 1, 1, &pattern(0, 2048));
    assert_eq!(peer.take().last().unwrap().window, 0);
    peer.write(id, 0, 100);
    peer.expect_data(1, 100);
    // One byte beyond the window, as most stacks do it.
    peer.send(ACK, 2049, 101, b"p");
    assert_eq!(peer.expect_ack(2049).window, 0);
    assert_eq!(peer.stack.info(id).unwrap().in_flight, 0);
    // One number before it, as Linux and this stack do it.
    peer.send(ACK, 2048, 101, &[]);
    assert_eq!(peer.expect_ack(2049).window, 0);
    assert_eq!(peer.read(id).len(), 2048);
}

#[test]
fn small_reads_do_not_advertise_silly_windows() {
    let mut peer = Peer::with(|config| config.receive_buffer = 16_384);
    let id = peer.accepted();
    for at in 0..16u32 {
        peer.send(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000));
    }
    peer.send(ACK, 16_001, 1, &pattern(16_000, 384));
    peer.advance_ms(100);
    assert_eq!(peer.take().last().unwrap().window, 0);
    let mut read = 0;
    while let Some(frame) = peer.stack.read(id).unwrap() {
        read += peer.stack.arena().bytes(frame).len();
        peer.stack.arena_mut().release(frame, millrace_frames::Owners::RECEIVED);
        for update in peer.take() {
            assert!(update.window >= 2000 || update.window == 0, "{update:?} after {read}");
        }
    }
    assert_eq!(read, 16_384);
}

#[test]
fn scaled_windows_never_promise_less_than_before() {
    for size in [65_536, 100_000, 1 << 20, (1 << 20) + 12_345] {
        let mut peer = Peer::with(|config| config.receive_buffer = size);
        let id = peer.accepted_with(Some(MSS), Some(0));
        let shift = peer.stack.config().receive_buffer;
        let shift = (0..).find(|&shift| shift_fits(size, shift)).unwrap_or(shift);
        let (mut seq, mut edge) = (1u32, 0u32);
        for round in 0..300usize {
            let len = 1 + (round * 379) % 1000;
            peer.send(ACK, seq, 1, &pattern(seq as usize - 1, len));
            seq += len as u32;
            if round % 7 == 0 {
                peer.read(id);
            }
            for segment in peer.take() {
                let right = segment.ack + (u32::from(segment.window) << shift);
                assert!(right >= edge, "buffer {size}: {right} after {edge}");
                assert!(right <= segment.ack + size + (1 << shift));
                edge = right;
            }
        }
    }
}

fn shift_fits(size: u32, shift: u32) -> bool {
    size >> shift <= 0xffff
}

#[test]
fn a_peer_that_makes_us_acknowledge_every_byte_does_not_open_the_window_further() {
    // A buffer of 150,000 bytes is announced in units of 4, and rounded up each time.
    let mut peer = Peer::with(|config| config.receive_buffer = 150_000);
    let id = peer.accepted_with(Some(MSS), Some(0));
    let mut seq = 1u32;
    let mut sent = 0;
    while sent < 200_000 {
        // Two halves in the wrong order: both are acknowledged at once.
        let at = seq as usize - 1;
        peer.send(ACK, seq + 5, 1, &pattern(at + 5, 4));
        peer.send(ACK, seq, 1, &pattern(at, 5));
        sent += 9;
        seq = peer.take().last().map_or(seq, |segment| segment.ack);
    }
    let held = peer.stack.info(id).unwrap().receive_queue;
    assert!((150_000..=160_000).contains(&held), "{held} bytes are kept");
}

#[test]
fn data_beyond_our_window_is_cut() {
    let mut peer = Peer::with(|config| config.receive_buffer = 2048);
    let id = peer.accepted();
    peer.send(ACK | crate::common::peer::FIN, 1, 1, &pattern(0, 3000));
    assert_eq!(peer.expect_ack(2049).window, 0);
    assert_eq!(peer.state(id), State::Established, "the FIN was beyond the edge");
    assert_eq!(peer.read(id), pattern(0, 2048));
}

#[test]
fn data_wholly_beyond_our_window_is_refused_with_an_acknowledgement() {
    let mut peer = Peer::with(|config| config.receive_buffer = 2048);
    let id = peer.accepted();
    peer.send(ACK, 2049, 1, &pattern(2048, 10));
    peer.expect_ack(1);
    assert_eq!(peer.stack.counters().drop_tcp_outside_window, 1);
    assert_eq!(peer.read(id), [0; 0]);
}

#[test]
fn a_full_send_buffer_says_when_there_is_room() {
    let mut peer = Peer::with(|config| config.send_buffer = 4000);
    let id = peer.accepted();
    assert_eq!(peer.stack.write(id, &pattern(0, 10_000)).unwrap(), 4000);
    assert_eq!(peer.stack.write(id, b"x").unwrap(), 0);
    assert_eq!(peer.stack.write_room(id).unwrap(), 0);
    peer.take();
    assert!(peer.ready(id).is_empty());
    peer.send(ACK, 1, 2001, &[]);
    assert_eq!(peer.ready(id), Ready::WRITABLE);
    assert_eq!(peer.stack.write_room(id).unwrap(), 2000);
    peer.send(ACK, 1, 4001, &[]);
    assert!(peer.ready(id).is_empty(), "told once");
}

#[test]
fn rearming_tells_again_what_is_true() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(ACK | PSH, 1, 1, b"hello");
    assert_eq!(peer.ready(id), Ready::READABLE);
    assert!(peer.ready(id).is_empty());
    peer.stack.rearm(id).unwrap();
    assert_eq!(peer.ready(id), Ready::READABLE.with(Ready::WRITABLE));
    peer.read(id);
    peer.send(ACK | RST, 6, 1, &[]);
    peer.ready(id);
    peer.stack.rearm(id).unwrap();
    assert_eq!(peer.ready(id), Ready::CLOSED);
    let _ = SYN;
}

#[test]
fn probes_of_a_window_that_was_taken_back_come_later_and_later() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    let hour = Some(Duration::from_secs(3600));
    peer.stack.set_option(id, SocketOption::UserTimeout(hour)).unwrap();
    peer.write(id, 0, 2000);
    peer.take();
    peer.window = 0;
    peer.send(ACK, 1, 1, &[]);
    // Nobody answers any more.
    let waits: Vec<u64> = (0..12)
        .map(|_| {
            let time = peer.wait();
            peer.take();
            time.as_millis() as u64
        })
        .collect();
    assert!(waits[1..].is_sorted() && waits[11] >= 100_000, "{waits:?}");
}

#[test]
fn a_closed_window_is_no_shelter_from_a_reset_with_data() {
    let mut peer = Peer::with(|config| config.receive_buffer = 4000);
    let id = peer.accepted();
    for at in 0..4u32 {
        peer.send(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000));
    }
    peer.advance_ms(500);
    let last = peer.take().pop().unwrap();
    assert_eq!((last.ack, last.window), (4001, 0));
    peer.send(RST | ACK, 4000, 1, b"why");
    assert_eq!(peer.state(id), State::Established);
    peer.take();
    peer.send(RST | ACK, 4001, 1, b"why");
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::Reset));
    peer.expect_silence();
}
