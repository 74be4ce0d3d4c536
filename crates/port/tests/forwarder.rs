//! The forwarder between two memory wires: what comes in goes out, late, damaged or not at all, and
//! every packet is in exactly one counter.

use std::time::Duration;

use millrace_frames::{Arena, ArenaConfig, Hugepages, Instant, Owners, RxBatch, Transmit, TxBatch};
use millrace_port::forwarder::Forwarder;
use millrace_port::impair::{GilbertElliott, Impairment};
use millrace_port::memory::{MemoryPort, WireConfig, wire};
use millrace_port::{Port, clock};
use millrace_wire::ether::{self, EtherType};
use millrace_wire::{Mac, checksum, ipv4, protocol, udp};

fn arena(frames: u32) -> Arena {
    Arena::new(ArenaConfig { frames, frame_size: 2048, hugepages: Hugepages::Never }).unwrap()
}

/// A forwarder, and the two ends of what it joins.
fn joined(
    impairments: [Impairment; 2],
    frames: u32,
    gso: u32,
) -> (MemoryPort, Forwarder, MemoryPort) {
    let (left, near) = wire(WireConfig { gso, ..WireConfig::default() });
    let (far, right) = wire(WireConfig { gso, ..WireConfig::default() });
    let ports: [Box<dyn Port>; 2] = [Box::new(near), Box::new(far)];
    let forwarder = Forwarder::new(ports, arena(frames), impairments, 9).unwrap();
    (left, forwarder, right)
}

fn send(port: &mut MemoryPort, arena: &mut Arena, now: Instant, bytes: &[u8], offload: bool) {
    let head = arena.allocate(Owners::TRANSMIT).unwrap();
    arena.room_mut(head)[..bytes.len()].copy_from_slice(bytes);
    let len = bytes.len();
    let mut packet =
        Transmit { head, total: len as u32, len: len as u16, frames: 1, ..Transmit::default() };
    if offload {
        (packet.checksum_start, packet.checksum_offset) = (34, 6);
    }
    let mut batch = TxBatch::new();
    batch.push(packet).unwrap();
    port.tx(now, arena, &mut batch).unwrap();
}

fn receive(port: &mut MemoryPort, arena: &mut Arena, now: Instant) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    loop {
        let mut batch = RxBatch::new();
        if port.rx(now, arena, &mut batch).unwrap() == 0 {
            return packets;
        }
        for &head in batch.iter() {
            packets.push(arena.bytes(head).to_vec());
            arena.release_chain(head, Owners::RECEIVED);
        }
    }
}

fn get(statistics: &[(&'static str, u64)], name: &str) -> u64 {
    statistics.iter().find(|(other, _)| *other == name).unwrap_or_else(|| panic!("{name}")).1
}

/// What must hold of every direction at every time.
fn assert_conserved(statistics: &[(&'static str, u64)]) {
    let get = |name| get(statistics, name);
    assert_eq!(get("received"), get("super_segment") + get("unfinished") + get("offered"));
    assert_eq!(get("offered"), get("lost") + get("queue_dropped") + get("forwarded"));
    assert_eq!(
        get("forwarded") + get("duplicated"),
        get("sent") + get("in_flight") + get("no_frame") + get("refused"),
        "{statistics:?}"
    );
}

#[test]
fn packets_pass_both_ways_after_their_delay() {
    let slow = Impairment { delay: Duration::from_millis(3), ..Impairment::default() };
    let (mut left, mut forwarder, mut right) = joined([slow, Impairment::default()], 16, 0);
    let mut ours = arena(16);
    let millis = Instant::from_millis;
    send(&mut left, &mut ours, millis(10), b"there", false);
    send(&mut right, &mut ours, millis(10), b"back", false);
    // The forwarder looks two milliseconds late; what it delays left at its time all the same.
    assert_eq!(forwarder.turn(millis(12), None).unwrap(), 3);
    assert_eq!(receive(&mut left, &mut ours, millis(12)), [b"back"]);
    assert!(receive(&mut right, &mut ours, millis(12)).is_empty());
    assert_eq!(forwarder.next_deadline(), Some(millis(13)));
    assert_eq!(forwarder.turn(Instant::from_micros(12_999), None).unwrap(), 0);
    assert_eq!(forwarder.turn(millis(13), None).unwrap(), 1);
    assert_eq!(receive(&mut right, &mut ours, millis(13)), [b"there"]);
    let statistics = forwarder.statistics();
    statistics.iter().for_each(|way| assert_conserved(way));
    assert_eq!((get(&statistics[0], "late"), get(&statistics[1], "late")), (0, 1));
}

#[test]
fn every_packet_is_in_one_counter_and_no_frame_is_lost() {
    let everything = Impairment {
        loss: 0.1,
        bursts: Some(GilbertElliott::bursts(0.05, 3.0)),
        duplicate: 0.2,
        corrupt: 0.1,
        delay: Duration::from_micros(300),
        jitter: Duration::from_micros(100),
        jitter_reorders: true,
        reorder: 0.1,
        reorder_delay: Duration::from_micros(200),
        rate_bits_per_s: Some(30_000_000),
        queue_bytes: 1200,
        mark_bytes: Some(500),
    };
    let (mut left, mut forwarder, mut right) = joined([everything; 2], 48, 0);
    let mut ours = arena(64);
    let mut arrived = [0, 0];
    for number in 0..20_000u64 {
        let now = Instant::from_micros(number * 11);
        send(&mut left, &mut ours, now, &[1; 90], false);
        send(&mut right, &mut ours, now, &[2; 70], false);
        // At times it is too slow, and then it has too few frames.
        if number % 100 > 20 {
            forwarder.turn(now, None).unwrap();
            arrived[0] += receive(&mut right, &mut ours, now).len() as u64;
            arrived[1] += receive(&mut left, &mut ours, now).len() as u64;
        }
        if number % 500 == 0 {
            forwarder.statistics().iter().for_each(|way| assert_conserved(way));
        }
    }
    let statistics = forwarder.statistics();
    for (way, arrived) in statistics.iter().zip(arrived) {
        assert_conserved(way);
        assert_eq!(get(way, "sent"), arrived);
        for name in [
            "lost",
            "queue_dropped",
            "reordered",
            "duplicated",
            "corrupted",
            "no_frame",
            "rx_no_frame",
            "in_flight",
        ] {
            assert_ne!(get(way, name), 0, "{name} in {way:?}");
        }
        assert_eq!(get(way, "received") + get(way, "rx_no_frame"), 20_000);
    }
    let (arena, _) = forwarder.close();
    assert_eq!(arena.free(), 48);
    assert_eq!(ours.free(), 64);
}

#[test]
fn what_the_sender_left_to_its_device_is_finished_or_refused() {
    let (mut left, mut forwarder, mut right) = joined([Impairment::default(); 2], 8, 65_000);
    let mut ours = arena(64);
    let mut frame = vec![0; 14 + 20 + 8 + 30];
    ether::emit(&mut frame, Mac([2; 6]), Mac([4; 6]), EtherType::IPV4);
    let [source, destination] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
    let header = ipv4::Header {
        source,
        destination,
        protocol: protocol::UDP,
        ttl: 64,
        tos: 0,
        identification: 0,
        dont_fragment: true,
    };
    header.emit(&mut frame[14..], 38);
    frame[42..].fill(0x77);
    udp::emit(&mut frame[34..42], 1, 2, 30);
    let pseudo = checksum::pseudo_v4(source, destination, protocol::UDP, 38);
    frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
    send(&mut left, &mut ours, Instant::ZERO, &frame, true);
    // Not IP, so nobody knows where the checksum is.
    send(&mut left, &mut ours, Instant::ZERO, &[9; 80], true);
    // Larger than a frame.
    let head = ours.allocate(Owners::TRANSMIT).unwrap();
    let packet =
        Transmit { head, total: 300, len: 300, frames: 1, gso_size: 100, ..Transmit::default() };
    let mut batch = TxBatch::new();
    batch.push(packet).unwrap();
    left.tx(Instant::ZERO, &mut ours, &mut batch).unwrap();

    forwarder.turn(Instant::ZERO, None).unwrap();
    let packets = receive(&mut right, &mut ours, Instant::ZERO);
    assert_eq!(packets.len(), 1);
    let datagram = udp::Datagram::parse(&packets[0][34..]).unwrap();
    assert!(datagram.has_checksum() && datagram.verify_checksum(pseudo));
    let [way, _] = forwarder.statistics();
    assert_eq!((get(&way, "unfinished"), get(&way, "super_segment")), (1, 1));
    assert_conserved(&way);
}

#[test]
fn it_runs_in_a_thread_of_its_own_and_is_told_to_change() {
    let (mut left, mut forwarder, mut right) = joined([Impairment::default(); 2], 64, 0);
    let remote = forwarder.remote();
    let thread = std::thread::spawn(move || forwarder.run());
    let mut ours = arena(8);
    let mut pass = |wanted: usize, patience: Duration| {
        let begun = clock::now();
        send(&mut left, &mut ours, begun, b"packet", false);
        let mut count = 0;
        while count < wanted.max(1) && clock::now() - begun < patience {
            count += receive(&mut right, &mut ours, clock::now()).len();
        }
        assert_eq!(count, wanted);
        clock::now() - begun
    };
    let seconds = Duration::from_secs;
    pass(1, seconds(5));
    let delay = Duration::from_millis(20);
    remote.impair([Impairment { delay, ..Impairment::default() }; 2]).unwrap();
    assert!(pass(1, seconds(5)) >= delay);
    remote.impair([Impairment { loss: 1.0, ..Impairment::default() }; 2]).unwrap();
    pass(0, Duration::from_millis(100));
    assert!(remote.impair([Impairment { loss: 1.5, ..Impairment::default() }; 2]).is_err());
    let statistics = remote.statistics().unwrap();
    assert_eq!((get(&statistics[0], "sent"), get(&statistics[0], "lost")), (2, 1));
    remote.stop();
    thread.join().unwrap().unwrap();
    assert!(remote.statistics().is_none());
}

#[test]
fn frames_that_are_too_small_are_refused() {
    let (_, near) = wire(WireConfig { mtu: 9000, ..WireConfig::default() });
    let (_, far) = wire(WireConfig::default());
    let ports: [Box<dyn Port>; 2] = [Box::new(near), Box::new(far)];
    let error = Forwarder::new(ports, arena(8), [Impairment::default(); 2], 0).err().unwrap();
    assert!(error.to_string().contains("make it 16384"), "{error}");
}
