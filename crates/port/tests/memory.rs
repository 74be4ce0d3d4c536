//! The memory wire beyond conformance: impairments, virtual time, names, threads.

use std::io;
use std::time::Duration;

use millrace_frames::{
    Arena, ArenaConfig, ChecksumState, Hugepages, Instant, Owners, RxBatch, Transmit, TxBatch,
};
use millrace_port::memory::{self, Impairment, MemoryPort, WireConfig, join, try_wire, wire};
use millrace_port::wait::{self, Bell, Wake};
use millrace_port::{Port, clock};

fn arena(frames: u32) -> Arena {
    Arena::new(ArenaConfig { frames, frame_size: 2048, hugepages: Hugepages::Never }).unwrap()
}

/// An impaired way there, and a perfect one back.
fn impaired(impairment: Impairment) -> WireConfig {
    WireConfig { impairment: [impairment, Impairment::default()], ..WireConfig::default() }
}

/// A packet whose first four bytes are `number`.
fn packet(arena: &mut Arena, number: u32, len: usize) -> Transmit {
    let head = arena.allocate(Owners::TRANSMIT).unwrap();
    arena.room_mut(head)[..len].fill(0x55);
    arena.room_mut(head)[..4].copy_from_slice(&number.to_be_bytes());
    Transmit { head, total: len as u32, len: len as u16, frames: 1, ..Transmit::default() }
}

fn send(port: &mut MemoryPort, arena: &mut Arena, now: Instant, packet: Transmit) {
    let mut batch = TxBatch::new();
    batch.push(packet).unwrap();
    assert_eq!(port.tx(now, arena, &mut batch).unwrap(), 1);
}

/// Numbers of the packets that have arrived.
fn receive(port: &mut MemoryPort, arena: &mut Arena, now: Instant) -> Vec<u32> {
    let mut numbers = Vec::new();
    loop {
        let mut batch = RxBatch::new();
        if port.rx(now, arena, &mut batch).unwrap() == 0 {
            return numbers;
        }
        for &head in batch.iter() {
            numbers.push(u32::from_be_bytes(arena.bytes(head)[..4].try_into().unwrap()));
            assert_eq!(Instant::from_nanos(arena.meta(head).timestamp).max(now), now);
            arena.release_chain(head, Owners::RECEIVED);
        }
    }
}

fn counter(port: &mut MemoryPort, name: &str) -> u64 {
    let statistics = port.statistics();
    let mut all = statistics.drops.iter().chain(&statistics.details);
    all.find(|(reason, _)| *reason == name).expect("a counter of this name").1
}

fn millis(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

#[test]
fn delay_is_kept_to_the_nanosecond_and_announced() {
    let delay = Duration::from_nanos(1_000_001);
    let (mut left, mut right) = wire(impaired(Impairment { delay, ..Impairment::default() }));
    let mut arena = arena(8);
    let first = packet(&mut arena, 1, 64);
    send(&mut left, &mut arena, millis(5), first);
    let due = millis(5) + delay;
    assert_eq!(right.next_arrival(), Some(due));
    assert!(receive(&mut right, &mut arena, Instant::from_nanos(due.as_nanos() - 1)).is_empty());
    assert_eq!(receive(&mut right, &mut arena, due), [1]);
    assert_eq!(right.next_arrival(), None);
}

#[test]
fn an_unimpaired_wire_announces_what_waits() {
    let (mut left, mut right) = wire(WireConfig::default());
    let mut arena = arena(8);
    assert_eq!(right.next_arrival(), None);
    let first = packet(&mut arena, 1, 64);
    send(&mut left, &mut arena, millis(5), first);
    assert_eq!(right.next_arrival(), Some(millis(5)));
    assert_eq!(receive(&mut right, &mut arena, millis(5)), [1]);
    assert_eq!(right.next_arrival(), None);
}

#[test]
fn a_rate_spaces_packets_and_its_queue_drops_the_tail() {
    let rate =
        Impairment { rate_bits_per_s: Some(8_000_000), queue_bytes: 2500, ..Impairment::default() };
    let (mut left, mut right) = wire(impaired(rate));
    let mut arena = arena(16);
    // 1000 bytes take 1 ms. The first is being sent, two and a half may wait.
    for number in 0..5 {
        let packet = packet(&mut arena, number, 1000);
        send(&mut left, &mut arena, millis(10), packet);
    }
    assert_eq!(counter(&mut left, "tx_queue_full"), 3);
    assert_eq!(left.statistics().tx_packets, 2);
    assert_eq!(right.next_arrival(), Some(millis(11)));
    assert_eq!(receive(&mut right, &mut arena, millis(11)), [0]);
    assert_eq!(right.next_arrival(), Some(millis(12)));
    // At 11.5 ms half a packet is left to send, so there is room for two.
    let later = Instant::from_micros(11_500);
    for number in 5..8 {
        let packet = packet(&mut arena, number, 1000);
        send(&mut left, &mut arena, later, packet);
    }
    assert_eq!(receive(&mut right, &mut arena, millis(12)), [1]);
    assert_eq!(receive(&mut right, &mut arena, millis(14)), [5, 6]);
    assert_eq!(counter(&mut left, "tx_queue_full"), 4);
    assert_eq!(arena.free(), 16);
}

#[test]
fn a_fast_rate_is_exact_over_many_packets() {
    // 64 bytes at 3 Gbit/s take 170 2/3 ns.
    let rate = Impairment { rate_bits_per_s: Some(3_000_000_000), ..Impairment::default() };
    let (mut left, mut right) = wire(impaired(rate));
    let mut arena = arena(64);
    for number in 0..600 {
        let packet = packet(&mut arena, number, 64);
        send(&mut left, &mut arena, Instant::ZERO, packet);
    }
    let last = Instant::from_nanos(600 * 512 / 3);
    let before = receive(&mut right, &mut arena, Instant::from_nanos(last.as_nanos() - 1));
    assert_eq!(before.len(), 599);
    assert_eq!(receive(&mut right, &mut arena, last), [599]);
}

#[test]
fn the_same_seed_gives_the_same_fate() {
    let everything = Impairment {
        loss: 0.1,
        duplicate: 0.05,
        corrupt: 0.05,
        delay: Duration::from_micros(500),
        jitter: Duration::from_micros(100),
        reorder: 0.1,
        reorder_delay: Duration::from_micros(300),
        rate_bits_per_s: Some(100_000_000),
        queue_bytes: 20_000,
        ..Impairment::default()
    };
    let history = |seed: u64| {
        let config = WireConfig { seed, ..impaired(everything) };
        let (mut left, mut right) = wire(config);
        let mut arena = arena(64);
        let mut history = Vec::new();
        for number in 0..2000 {
            let now = Instant::from_micros(number as u64 * 7);
            let packet = packet(&mut arena, number, 100);
            send(&mut left, &mut arena, now, packet);
            let mut batch = RxBatch::new();
            right.rx(now, &mut arena, &mut batch).unwrap();
            for &head in batch.iter() {
                history.push((now, arena.meta(head).timestamp, arena.bytes(head).to_vec()));
                arena.release_chain(head, Owners::RECEIVED);
            }
        }
        assert_eq!(arena.free(), 64);
        (history, left.statistics(), right.statistics())
    };
    assert_eq!(history(1), history(1));
    assert_ne!(history(1).0, history(2).0);
}

#[test]
fn every_packet_is_accounted_for() {
    let everything = Impairment {
        loss: 0.2,
        duplicate: 0.2,
        delay: Duration::from_micros(100),
        rate_bits_per_s: Some(40_000_000),
        queue_bytes: 5_000,
        ..Impairment::default()
    };
    let (mut left, mut right) = wire(WireConfig { queue: 16, ..impaired(everything) });
    let mut arena = arena(4);
    for number in 0..5000u32 {
        let now = Instant::from_micros(number as u64 * 11);
        let len = if number % 100 == 0 { 1600 } else { 80 };
        let packet = packet(&mut arena, number, len);
        send(&mut left, &mut arena, now, packet);
        if number % 37 == 0 {
            receive(&mut right, &mut arena, now);
        }
    }
    receive(&mut right, &mut arena, millis(1000));
    let (sent, received) = (left.statistics(), right.statistics());
    assert_eq!(sent.tx_packets + sent.dropped(), 5000);
    let duplicated = counter(&mut left, "tx_duplicated");
    assert_eq!(sent.tx_packets + duplicated, received.rx_packets + received.dropped());
    for reason in ["tx_lost", "tx_queue_full", "tx_too_long"] {
        assert_ne!(counter(&mut left, reason), 0, "{reason}");
    }
    for reason in ["rx_ring_full", "rx_no_frame"] {
        assert_ne!(counter(&mut right, reason), 0, "{reason}");
    }
}

#[test]
fn loss_and_duplication_come_as_often_as_asked() {
    for (impairment, expected) in [
        (Impairment { loss: 0.25, ..Impairment::default() }, 7500),
        (Impairment { duplicate: 0.25, ..Impairment::default() }, 12_500),
        (Impairment { loss: 1.0, ..Impairment::default() }, 0),
        (Impairment { duplicate: 1.0, ..Impairment::default() }, 20_000),
    ] {
        let (mut left, mut right) = wire(impaired(impairment));
        let mut arena = arena(4);
        let mut arrived = 0;
        for number in 0..10_000 {
            let packet = packet(&mut arena, number, 64);
            send(&mut left, &mut arena, Instant::ZERO, packet);
            arrived += receive(&mut right, &mut arena, Instant::ZERO).len();
        }
        assert!(arrived.abs_diff(expected) <= 150, "{impairment}: {arrived}");
    }
}

#[test]
fn jitter_keeps_the_order_and_reordering_does_not() {
    let run = |impairment: Impairment| {
        let (mut left, mut right) = wire(impaired(impairment));
        let mut arena = arena(64);
        let mut numbers = Vec::new();
        for number in 0..500 {
            let now = Instant::from_micros(number as u64 * 10);
            let packet = packet(&mut arena, number, 64);
            send(&mut left, &mut arena, now, packet);
            numbers.extend(receive(&mut right, &mut arena, now));
        }
        numbers.extend(receive(&mut right, &mut arena, millis(1000)));
        assert_eq!(numbers.len(), 500);
        (numbers, counter(&mut left, "tx_reordered"))
    };
    let jitter = Duration::from_micros(200);
    let (numbers, reordered) = run(Impairment { jitter, ..Impairment::default() });
    assert!(numbers.is_sorted() && reordered == 0);
    let reorder = Impairment { reorder: 0.1, reorder_delay: jitter, ..Impairment::default() };
    let (numbers, reordered) = run(reorder);
    let overtaken = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(overtaken > 0 && reordered > 0, "{overtaken} {reordered}");
}

/// One bit, behind the Ethernet header, and never where the receiver could not tell.
#[test]
fn corruption_flips_one_bit_under_a_finished_checksum() {
    let config = WireConfig {
        gso: 65_535,
        ..impaired(Impairment { corrupt: 1.0, ..Impairment::default() })
    };
    let (mut left, mut right) = wire(config);
    let mut arena = arena(4);
    for number in 0..500 {
        let mut packet = packet(&mut arena, number, 80);
        let mut original = arena.room(packet.head)[..80].to_vec();
        if number % 2 == 1 {
            packet.checksum_start = 34;
            packet.checksum_offset = 6;
            let sum = millrace_wire::checksum::sum(&original[34..]);
            original[40..42].copy_from_slice(&(!sum).to_be_bytes());
        }
        send(&mut left, &mut arena, Instant::ZERO, packet);
        let mut batch = RxBatch::new();
        assert_eq!(right.rx(Instant::ZERO, &mut arena, &mut batch).unwrap(), 1);
        let bytes = arena.bytes(batch[0]);
        let flipped: u32 = original.iter().zip(bytes).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((flipped, bytes.len()), (1, 80));
        assert_eq!(bytes[..14], original[..14]);
        assert_eq!(arena.meta(batch[0]).checksum, ChecksumState::Unknown);
        arena.release_chain(batch[0], Owners::RECEIVED);
    }
    assert_eq!(counter(&mut left, "tx_corrupted"), 500);
}

#[test]
fn a_full_wire_drops_the_tail() {
    let (mut left, mut right) = wire(WireConfig { queue: 3, ..WireConfig::default() });
    let mut arena = arena(8);
    for number in 0..5 {
        let packet = packet(&mut arena, number, 1518);
        send(&mut left, &mut arena, Instant::ZERO, packet);
    }
    assert_eq!(arena.free(), 8);
    assert_eq!(receive(&mut right, &mut arena, Instant::ZERO), [0, 1, 2]);
    assert_eq!(counter(&mut right, "rx_ring_full"), 2);
}

#[test]
fn offloads_are_refused_where_the_wire_has_none() {
    let (mut left, mut right) = wire(WireConfig::default());
    let mut arena = arena(8);
    let unfinished = packet(&mut arena, 1, 80);
    send(&mut left, &mut arena, Instant::ZERO, Transmit { checksum_start: 34, ..unfinished });
    let large = packet(&mut arena, 2, 80);
    send(&mut left, &mut arena, Instant::ZERO, Transmit { gso_size: 10, ..large });
    assert_eq!(counter(&mut left, "tx_unsupported"), 2);
    assert!(receive(&mut right, &mut arena, Instant::ZERO).is_empty());
    assert_eq!(arena.free(), 8);
    // A place for the checksum that is not in the packet is refused where offloads exist.
    let (mut left, _right) = wire(WireConfig { gso: 1000, ..WireConfig::default() });
    let lying = packet(&mut arena, 3, 80);
    let lying = Transmit { checksum_start: 79, checksum_offset: u16::MAX, ..lying };
    send(&mut left, &mut arena, Instant::ZERO, lying);
    assert_eq!(counter(&mut left, "tx_unsupported"), 1);
}

#[test]
fn a_wire_that_was_left_says_so() {
    let (mut left, mut right) = wire(WireConfig::default());
    let mut arena = arena(8);
    let last = packet(&mut arena, 1, 64);
    send(&mut left, &mut arena, Instant::ZERO, last);
    assert!(!right.exhausted());
    left.close(&mut arena);
    let error = left.rx(Instant::ZERO, &mut arena, &mut RxBatch::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    assert!(!right.exhausted(), "one packet is still there");
    assert_eq!(receive(&mut right, &mut arena, Instant::ZERO), [1]);
    assert!(right.exhausted());
    let unheard = packet(&mut arena, 2, 64);
    send(&mut right, &mut arena, Instant::ZERO, unheard);
    assert_eq!(counter(&mut right, "tx_no_carrier"), 1);
    assert_eq!(arena.free(), 8);
}

#[test]
fn names_join_two_and_are_free_again_when_both_have_left() {
    let name = "names_join_two";
    let config = WireConfig::default();
    let mut left = join(name, config).unwrap();
    let mut arena = arena(8);
    // What is sent before the other has come waits.
    let early = packet(&mut arena, 7, 64);
    send(&mut left, &mut arena, Instant::ZERO, early);
    let other = WireConfig { mtu: 9000, ..config };
    assert_eq!(join(name, other).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let mut right = join(name, config).unwrap();
    assert_eq!(left.capabilities().name, name);
    assert_ne!(left.capabilities().mac, right.capabilities().mac);
    assert_eq!(receive(&mut right, &mut arena, Instant::ZERO), [7]);
    assert_eq!(join(name, config).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    left.close(&mut arena);
    assert_eq!(join(name, config).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(right);
    // Closed and dropped is left once.
    drop(left);
    let again = join(name, other).unwrap();
    drop(again);
    join(name, config).unwrap();
}

#[test]
fn bad_settings_are_refused_by_name() {
    let good = WireConfig::default();
    let nan = Impairment { loss: f64::NAN, ..Impairment::default() };
    let certain = Impairment { reorder: 1.01, ..Impairment::default() };
    let still = Impairment { rate_bits_per_s: Some(0), ..Impairment::default() };
    let far = Impairment { delay: Duration::MAX, ..Impairment::default() };
    for (config, word) in [
        (WireConfig { mtu: 10, ..good }, "MTU"),
        (WireConfig { gso: 65_536, ..good }, "super-segment"),
        (WireConfig { queue: 0, ..good }, "queue"),
        (WireConfig { queue: usize::MAX, ..good }, "queue"),
        (impaired(nan), "loss"),
        (impaired(certain), "reorder"),
        (impaired(still), "rate"),
        (impaired(far), "delay"),
    ] {
        let error = try_wire(config).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(join("", good).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

/// A packet that comes between asking when to wake up and going to sleep is not slept through,
/// though it is not due yet.
#[test]
fn nobody_sleeps_through_a_packet_that_is_under_way() {
    let delay = Duration::from_millis(2);
    let (mut left, mut right) = wire(impaired(Impairment { delay, ..Impairment::default() }));
    let mut arena = arena(8);
    assert_eq!(right.next_arrival(), None);
    let first = packet(&mut arena, 1, 64);
    send(&mut left, &mut arena, millis(1), first);
    assert!(!right.arm(millis(1)));
    assert_eq!(right.next_arrival(), Some(millis(3)));
    assert!(right.arm(millis(1)));
    assert!(!right.arm(millis(3)));
    assert_eq!(receive(&mut right, &mut arena, millis(3)), [1]);
}

/// No system call but those that wake a sleeper.
#[test]
fn a_receiver_that_is_awake_is_not_woken() {
    let (mut left, mut right) = wire(WireConfig::default());
    let mut arena = arena(8);
    for number in 0..100 {
        let packet = packet(&mut arena, number, 64);
        send(&mut left, &mut arena, Instant::ZERO, packet);
        assert_eq!(receive(&mut right, &mut arena, Instant::ZERO), [number]);
    }
    assert_eq!(left.statistics().system_calls, 0);
    assert!(right.arm(Instant::ZERO));
    for number in 0..2 {
        let packet = packet(&mut arena, number, 64);
        send(&mut left, &mut arena, Instant::ZERO, packet);
    }
    assert_eq!(left.statistics().system_calls, 1);
    // Awake again, for whatever reason, it says so by receiving.
    assert_eq!(receive(&mut right, &mut arena, Instant::ZERO), [0, 1]);
    assert!(right.arm(Instant::ZERO));
    assert!(receive(&mut right, &mut arena, Instant::ZERO).is_empty());
    let unheard = packet(&mut arena, 2, 64);
    send(&mut left, &mut arena, Instant::ZERO, unheard);
    assert_eq!(left.statistics().system_calls, 1);
}

/// Two threads, each asleep whenever it has nothing to do: every packet goes there and back.
#[test]
fn two_threads_play_ping_pong_asleep() {
    const ROUNDS: u32 = 2000;
    for impairment in [
        Impairment::default(),
        Impairment { delay: Duration::from_micros(20), ..Impairment::default() },
    ] {
        let config = WireConfig { impairment: [impairment; 2], ..WireConfig::default() };
        let (left, right) = memory::wire(config);
        let play = |mut port: MemoryPort, serves: bool| {
            let mut arena = arena(8);
            let bell = Bell::new().unwrap();
            let mut next = 0;
            if serves {
                let packet = packet(&mut arena, next, 64);
                send(&mut port, &mut arena, clock::now(), packet);
            }
            while next < ROUNDS {
                let got = receive_awake(&mut port, &mut arena);
                if got.is_empty() {
                    let wake = wait::sleep(&mut port, &bell, clock::now(), None).unwrap();
                    assert!(matches!(wake, Wake::Arrival | Wake::Deadline), "{wake:?}");
                    continue;
                }
                assert_eq!(got, [next]);
                next += 1;
                if serves && next == ROUNDS {
                    break;
                }
                let number = if serves { next } else { next - 1 };
                let packet = packet(&mut arena, number, 64);
                send(&mut port, &mut arena, clock::now(), packet);
            }
            port.close(&mut arena);
            assert_eq!(arena.free(), 8);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| play(right, false));
            play(left, true);
        });
    }
}

fn receive_awake(port: &mut MemoryPort, arena: &mut Arena) -> Vec<u32> {
    let mut batch = RxBatch::new();
    port.rx(clock::now(), arena, &mut batch).unwrap();
    let take = |&head| {
        let number = u32::from_be_bytes(arena.bytes(head)[..4].try_into().unwrap());
        arena.release_chain(head, Owners::RECEIVED);
        number
    };
    batch.iter().map(take).collect()
}

/// Two threads at full speed: order and contents hold, and what is missing was counted.
#[test]
fn two_threads_at_full_speed_lose_nothing_uncounted() {
    const PACKETS: u32 = 200_000;
    let (mut left, mut right) = wire(WireConfig { queue: 64, ..WireConfig::default() });
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut arena = arena(128);
            let mut batch = TxBatch::new();
            for number in 0..PACKETS {
                batch.push(packet(&mut arena, number, 64 + number as usize % 1000)).unwrap();
                if batch.is_full() || number == PACKETS - 1 {
                    left.tx(clock::now(), &mut arena, &mut batch).unwrap();
                }
            }
            assert_eq!(left.statistics().tx_packets, u64::from(PACKETS));
            left.close(&mut arena);
        });
        let mut arena = arena(128);
        let (mut last, mut count) = (None, 0u64);
        while !right.exhausted() {
            let mut batch = RxBatch::new();
            right.rx(clock::now(), &mut arena, &mut batch).unwrap();
            for &head in batch.iter() {
                let bytes = arena.bytes(head);
                let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
                assert!(Some(number) > last);
                assert_eq!(bytes.len(), 64 + number as usize % 1000);
                assert!(bytes[4..].iter().all(|&byte| byte == 0x55));
                last = Some(number);
                count += 1;
                arena.release_chain(head, Owners::RECEIVED);
            }
        }
        assert_eq!(count + counter(&mut right, "rx_ring_full"), u64::from(PACKETS));
    });
}
