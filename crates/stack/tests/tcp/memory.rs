//! Frames are shared out by what connections hold of them, and not by payload.

use core::time::Duration;

use millrace_frames::{Frame, Owners};
use millrace_stack::{Config, ConnectionId, Failure, MemoryState, Ready, SocketOption, State};

use crate::common::config;
use crate::common::craft::Segment;
use crate::common::peer::{ACK, Peer, RST, pattern};

/// A stack with so many frames, 64 of them in reserve.
fn stack(frames: u32, change: impl FnOnce(&mut Config)) -> Peer {
    let mut config =
        Config { frame_reserve: 64, receive_buffer: 1 << 20, send_buffer: 1 << 20, ..config() };
    config.tcp.pacing = false;
    change(&mut config);
    let mut peer = Peer::stranger(config, frames);
    peer.introduce();
    peer
}

/// One more connection of the peer's.
fn another(peer: &mut Peer) -> ConnectionId {
    peer.flow.peer_port += 1;
    peer.accepted_with(Some(1000), Some(5))
}

fn hoard(peer: &mut Peer, left: usize) -> Vec<Frame> {
    let frames = peer.stack.arena().free().saturating_sub(left);
    (0..frames).map(|_| peer.stack.arena_mut().allocate(Owners::RECEIVED).unwrap()).collect()
}

fn give_back(peer: &mut Peer, hoard: Vec<Frame>) {
    for frame in hoard {
        peer.stack.arena_mut().release(frame, Owners::RECEIVED);
    }
}

fn memory(peer: &Peer, id: ConnectionId) -> usize {
    peer.stack.info(id).unwrap().memory
}

/// Bytes of the window that a segment announces.
fn window(peer: &Peer, segment: &Segment) -> usize {
    let config = peer.stack.config();
    let most = config.receive_buffer.max(config.receive_buffer_max);
    let shift = (0..).find(|&shift| most >> shift <= 0xffff).unwrap();
    usize::from(segment.window) << shift
}

/// Sends segments of `size` bytes until the window that the stack announced is full. Returns the
/// bytes.
fn fill(peer: &mut Peer, id: ConnectionId, size: usize) -> usize {
    let first = peer.stack.info(id).unwrap().receive_window as usize;
    let (mut sent, mut edge, mut turns) = (0, first, 0);
    loop {
        let part = size.min(edge - sent);
        if part == 0 {
            return sent;
        }
        peer.send(ACK, 1 + sent as u32, 1, &pattern(sent, part));
        sent += part;
        if let Some(last) = peer.take().last() {
            assert_eq!(last.ack as usize, sent + 1, "what is in the window is taken");
            edge = edge.max(sent + window(peer, last));
        } else if edge - sent < size {
            peer.advance_ms(50);
            let last = peer.take().pop().expect("a delayed acknowledgement");
            edge = edge.max(sent + window(peer, &last));
        }
        turns += 1;
        assert!(turns < 2_000_000, "a window without an end");
    }
}

#[test]
fn what_is_announced_is_taken_whatever_the_size_of_segments() {
    for size in [1, 7, 100, 255, 256, 257, 300, 536, 700, 900, 1000, 1460] {
        let buffer = if size < 100 { 15_000 } else { 150_000 };
        let mut peer = stack(1024, |config| config.receive_buffer = buffer);
        let id = another(&mut peer);
        let bytes = fill(&mut peer, id, size);
        assert!(bytes > buffer as usize / 3 * 2, "segments of {size} bytes: {bytes}");
        let counters = peer.stack.counters();
        assert_eq!((counters.drop_tcp_receive_queue_full, counters.windows_taken_back), (0, 0));
        // Two segments that do not fit into one frame fill more than half of two, and a received
        // frame has its headers, too.
        let most = bytes * 2048 * 2 / (2048 - 64) + 70 * 2048;
        assert!(
            memory(&peer, id) <= most,
            "{} for {bytes} in segments of {size}",
            memory(&peer, id)
        );
        assert_eq!(peer.read(id), pattern(0, bytes));
        assert_eq!(memory(&peer, id), 0);
    }
}

#[test]
fn beyond_a_gap_small_segments_share_frames() {
    let mut peer = stack(1024, |_| {});
    let id = another(&mut peer);
    for at in 1..250u32 {
        peer.send(ACK, 1 + at * 400, 1, &pattern(at as usize * 400, 400));
    }
    peer.take();
    // Four and a half fit into a frame that came with its headers.
    assert!(memory(&peer, id) < (70 + 250 / 4) * 2048, "{}", memory(&peer, id));
    peer.send(ACK, 1, 1, &pattern(0, 400));
    assert_eq!(peer.read(id), pattern(0, 100_000));
}

#[test]
fn a_writer_gets_a_share_and_leaves_the_rest() {
    let mut peer = stack(1024, |_| {});
    let id = another(&mut peer);
    let first = peer.stack.write(id, &pattern(0, 1 << 20)).unwrap();
    assert!((150_000..350_000).contains(&first), "{first}");
    assert_eq!(memory(&peer, id), first / 1000 * 2048);
    peer.take();
    let other = another(&mut peer);
    let second = peer.stack.write(other, &pattern(0, 1 << 20)).unwrap();
    assert!(second > first / 4 && second < first, "{second} after {first}");
    assert_eq!(peer.stack.counters().writes_starved, 2);
    assert_eq!(peer.stack.memory().state, MemoryState::Plenty);
    peer.take();
    for id in [id, other] {
        peer.stack.abort(id);
    }
    peer.take();
}

#[test]
fn tiny_writes_are_counted_by_their_frames() {
    let mut peer = stack(1024, |_| {});
    let id = another(&mut peer);
    peer.stack.set_no_delay(id, true).unwrap();
    let mut written = 0;
    for _ in 0..1000 {
        written += peer.stack.write(id, b"x").unwrap();
        peer.collect();
    }
    peer.take();
    // Ten segments are under way, so many writes share a frame; each that left has one.
    assert!(memory(&peer, id) <= 1024 * 2048 / 3, "{written} bytes hold {}", memory(&peer, id));
    assert!(peer.stack.memory().state == MemoryState::Plenty);
}

/// A thousand peers that ask for much and read nothing, and one that asks for little.
#[test]
fn a_thousand_slow_readers_leave_room_for_an_answer() {
    let mut peer = stack(16_384, |config| config.connections = 1100);
    for _ in 0..1000 {
        let id = another(&mut peer);
        peer.stack.write(id, &pattern(0, 100_000)).unwrap();
        peer.take();
        peer.window = 0;
        peer.send(ACK, 1, 1, &[]);
        peer.window = 65_535;
    }
    assert!(peer.stack.memory().in_use <= peer.stack.memory().high);
    let good = another(&mut peer);
    for round in 0..100usize {
        assert_eq!(peer.stack.write(good, &pattern(round * 3000, 3000)).unwrap(), 3000);
        peer.collect();
        assert_eq!(peer.take().len(), 3);
        peer.send(ACK, 1, 1 + (round as u32 + 1) * 3000, &[]);
    }
    assert_eq!(peer.stack.arena().exhausted(), 0);
}

#[test]
fn under_pressure_windows_are_a_few_segments_and_buffers_do_not_grow() {
    let mut peer = stack(1024, |config| config.receive_buffer_max = 4 << 20);
    let id = another(&mut peer);
    assert!((150_000..300_000).contains(&fill(&mut peer, id, 1000)), "a share");
    peer.read(id);
    peer.take();
    // An application that keeps what it has read.
    let frames = hoard(&mut peer, 200);
    let other = another(&mut peer);
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    peer.advance_ms(50);
    let last = peer.take().pop().unwrap();
    let window = window(&peer, &last);
    assert!((2000..=4 * 1000).contains(&window), "{window}");
    let counters = peer.stack.counters();
    assert_eq!((counters.memory_pressures, counters.memory_highs), (1, 0));
    assert_eq!(peer.stack.memory().state, MemoryState::Pressure);
    give_back(&mut peer, frames);
    peer.advance(Duration::from_secs(2));
    peer.read(other);
    peer.send(ACK, 1001, 1, &pattern(1000, 1000));
    peer.advance_ms(50);
    let last = peer.take().pop().unwrap();
    assert!(self::window(&peer, &last) > 100_000);
    assert_eq!(peer.stack.memory().state, MemoryState::Plenty);
    assert!(
        (2_000_000_000..2_200_000_000).contains(&peer.stack.counters().memory_pressure_nanoseconds)
    );
}

#[test]
fn a_peer_that_meets_no_frame_waits_and_does_not_give_up() {
    let mut peer = stack(512, |_| {});
    let id = another(&mut peer);
    let frames = hoard(&mut peer, 32);
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    let answer = peer.expect_ack(1);
    assert_eq!(answer.window, 0, "the window is taken back");
    assert_eq!(peer.stack.counters().drop_tcp_receive_queue_full, 1);
    assert_eq!(peer.stack.counters().windows_taken_back, 1);
    assert_eq!(peer.stack.counters().memory_highs, 1);
    // A probe is answered, and with memory it is answered with a window.
    peer.send(ACK, 0, 1, &[]);
    assert_eq!(peer.expect_ack(1).window, 0);
    give_back(&mut peer, frames);
    peer.send(ACK, 0, 1, &[]);
    peer.advance(Duration::from_secs(1));
    peer.send(ACK, 0, 1, &[]);
    assert!(peer.take().last().unwrap().window > 1000);
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    assert_eq!(peer.read(id), pattern(0, 1000));
}

#[test]
fn one_whose_peer_takes_nothing_makes_way_when_the_memory_is_used_up() {
    let mut peer = stack(512, |_| {});
    let stalled = another(&mut peer);
    peer.write(stalled, 0, 3000);
    peer.take();
    peer.window = 0;
    peer.send(ACK, 1, 1001, &[]);
    let flow = peer.flow;
    let frames = hoard(&mut peer, 40);
    // It answers each probe, and opens its window never.
    let mut probes = 0;
    while peer.state(stalled) != State::Closed {
        peer.wait();
        for segment in peer.take() {
            if segment.flags.contains(RST) {
                continue;
            }
            probes += 1;
            peer.send(ACK, 1, 1001, &[]);
        }
        assert!(probes < 30);
    }
    assert!((4..10).contains(&probes), "{probes} probes");
    assert_eq!(peer.stack.failure(stalled).unwrap(), Some(Failure::TimedOut));
    assert!(peer.ready(stalled).has(Ready::CLOSED));
    assert_eq!(peer.stack.counters().memory_reclaimed, 1);
    give_back(&mut peer, frames);
    peer.flow = flow;
    peer.window = 65_535;
}

#[test]
fn with_memory_left_it_may_stay_closed_for_as_long_as_it_answers() {
    let mut peer = stack(512, |_| {});
    let id = another(&mut peer);
    peer.write(id, 0, 3000);
    peer.take();
    peer.window = 0;
    peer.send(ACK, 1, 1001, &[]);
    for _ in 0..20 {
        peer.wait();
        peer.take();
        peer.send(ACK, 1, 1001, &[]);
    }
    assert_eq!(peer.state(id), State::Established);
    assert_eq!(peer.stack.counters().memory_reclaimed, 0);
}

#[test]
fn a_buffer_that_was_asked_for_is_bounded_by_the_share_too() {
    let mut peer = stack(512, |_| {});
    let id = another(&mut peer);
    peer.stack.set_option(id, SocketOption::ReceiveBuffer(1 << 20)).unwrap();
    let bytes = fill(&mut peer, id, 1000);
    assert!((40_000..150_000).contains(&bytes), "{bytes}");
    assert_eq!(peer.stack.counters().drop_tcp_receive_queue_full, 0);
    assert_eq!(peer.read(id).len(), bytes);
}

/// Peers that let answers lie, applications that let requests lie, and segments with holes between.
#[test]
fn hoarders_of_every_kind_leave_room_for_requests_and_answers() {
    let mut peer = stack(16_384, |config| config.connections = 1100);
    for number in 0..1000u32 {
        let id = another(&mut peer);
        match number % 3 {
            0 => {
                peer.stack.write(id, &pattern(0, 100_000)).unwrap();
            }
            1 => {
                for at in 0..20 {
                    peer.send(ACK, 1 + at * 1000, 1, &pattern(at as usize * 1000, 1000));
                }
            }
            _ => {
                let packets: Vec<Vec<u8>> =
                    (1..60).map(|at| peer.segment(ACK, 1 + 2 * at, 1, b"x").bytes()).collect();
                peer.inject_batch(&packets);
            }
        }
        peer.take();
    }
    let memory = peer.stack.memory();
    assert!(memory.in_use <= memory.high && memory.state != MemoryState::High, "{memory:?}");
    let good = another(&mut peer);
    let refused = peer.stack.counters().drop_tcp_receive_queue_full;
    for round in 0..100u32 {
        let at = round * 3000;
        for part in 0..3 {
            let start = at + part * 1000;
            peer.send(ACK, 1 + start, 1 + at, &pattern(start as usize, 1000));
        }
        assert_eq!(peer.read(good).len(), 3000, "request {round}");
        assert_eq!(peer.stack.write(good, &pattern(at as usize, 3000)).unwrap(), 3000);
        peer.collect();
        let sent: usize = peer.take().iter().map(|segment| segment.payload.len()).sum();
        assert_eq!(sent, 3000, "answer {round}");
        peer.send(ACK, 1 + at + 3000, 1 + at + 3000, &[]);
    }
    assert_eq!(peer.stack.counters().drop_tcp_receive_queue_full, refused);
}

#[test]
fn under_pressure_a_window_does_not_stay_closed_for_large_segments() {
    for mss in [1460, 8960] {
        let mut peer = Peer::with(|config| {
            config.mtu = 9000;
            config.tx_gso = 65_535;
            config.tx_checksum = true;
            config.memory_pressure = 1;
        });
        let id = peer.accepted_with(Some(mss), None);
        let mut at = 1;
        for _ in 0..20 {
            peer.send(ACK, at, 1, &pattern(at as usize - 1, 200));
            peer.read(id);
            peer.advance_ms(300);
            let last = peer.take().pop().unwrap();
            at = last.ack;
            assert!(last.window > 0, "{at} for segments of {mss}");
        }
        assert_eq!(at, 1 + 20 * 200);
    }
}

#[test]
fn what_is_announced_is_taken_when_a_segment_needs_several_frames() {
    let mut peer = stack(2048, |config| {
        config.mtu = 9000;
        config.tx_gso = 65_535;
        config.tx_checksum = true;
        config.receive_buffer = 1 << 24;
    });
    peer.flow.peer_port += 1;
    let id = peer.accepted_with(Some(8960), Some(10));
    let bytes = fill(&mut peer, id, 8960);
    let counters = peer.stack.counters();
    assert_eq!((counters.drop_tcp_receive_queue_full, counters.windows_taken_back), (0, 0));
    assert!(bytes > 300_000, "{bytes}");
    assert_eq!(peer.read(id), pattern(0, bytes));
}
