//! The loops over wires in memory: what they count, and when they end.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use millrace_bpf::classic::{Instruction, Program};
use millrace_frames::{Arena, ArenaConfig, Hugepages};
use millrace_packets::loops::{Done, Run};
use millrace_packets::{Filter, RawPort, SharedArena};
use millrace_port::memory::{MemoryPort, WireConfig, wire};
use millrace_port::wait::Bell;
use millrace_port::{Port, Wait};

fn arena() -> SharedArena {
    let config = ArenaConfig { frames: 1024, frame_size: 2048, hugepages: Hugepages::Never };
    SharedArena::new(Arena::new(config).unwrap())
}

fn raw(port: MemoryPort, arena: SharedArena) -> RawPort {
    RawPort::new(Box::new(port) as Box<dyn Port>, arena, Vec::new())
}

/// Both ends of a wire.
fn pair() -> (RawPort, RawPort) {
    let (a, b) = wire(WireConfig::by_name(1500));
    (raw(a, arena()), raw(b, arena()))
}

struct Control {
    bell: Bell,
    stop: AtomicBool,
}

impl Control {
    fn new() -> Control {
        Control { bell: Bell::new().unwrap(), stop: AtomicBool::new(false) }
    }

    fn packets(&self, packets: u64, batch: usize) -> Run<'_> {
        let Control { bell, stop } = self;
        let (packets, linger) = (Some(packets), Duration::ZERO);
        Run { batch, packets, time: None, wait: Wait::Spin, linger, bell, stop }
    }

    fn time(&self, milliseconds: u64, wait: Wait) -> Run<'_> {
        let time = Some(Duration::from_millis(milliseconds));
        Run { time, packets: None, wait, ..self.packets(0, 64) }
    }
}

fn free(port: &RawPort) -> usize {
    let mut arena = port.arena().lock();
    arena.collect_held();
    arena.free()
}

fn frames(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number as u8; 60 + number % 4]).collect()
}

#[test]
fn what_is_pushed_is_dropped_at_the_other_end() {
    let control = Control::new();
    for batch in [1, 8, 32, 64] {
        let (mut left, mut right) = pair();
        let kept = left.keep(frames(10).iter().map(Vec::as_slice)).unwrap();
        let sent = left.txpush(&kept, control.packets(1000, batch)).unwrap();
        assert_eq!(sent.packets, 1000);
        let bytes: u64 = (0..1000u64).map(|number| 60 + number % 10 % 4).sum();
        assert_eq!(sent.bytes, bytes);
        assert!(sent.bursts >= 1000_u64.div_ceil(batch as u64));
        let dropped = right.rxdrop(control.packets(1000, batch)).unwrap();
        assert_eq!((dropped.packets, dropped.bytes), (1000, bytes));
        assert!(dropped.bursts >= 1000_u64.div_ceil(batch as u64));
        drop(kept);
        assert_eq!((free(&left), free(&right)), (1024, 1024));
    }
}

#[test]
fn forwarding_keeps_order_bytes_and_frames() {
    let control = Control::new();
    let shared = arena();
    let (a, b) = wire(WireConfig::by_name(9000));
    let (c, d) = wire(WireConfig::by_name(9000));
    let (mut left, mut right) = (raw(a, arena()), raw(d, arena()));
    let (mut first, mut second) = (raw(b, shared.clone()), raw(c, shared));
    let mut sent = frames(50);
    sent.push((0..8000u32).map(|at| at as u8).collect());
    left.send_bytes(sent.iter().map(Vec::as_slice)).unwrap();
    right.send_bytes([&[9u8; 70][..]].into_iter()).unwrap();
    let done = first.l2fwd(&mut second, true, false, control.packets(52, 16)).unwrap();
    assert_eq!(done.packets, 52);
    let got = right.receive(64).unwrap().unwrap();
    assert_eq!(got.packets().map(<[u8]>::to_vec).collect::<Vec<_>>(), sent);
    assert_eq!(left.receive(64).unwrap().unwrap().packet(0), [9; 70]);
    assert_eq!(free(&first), 1024);

    left.send_bytes(sent[..1].iter().map(Vec::as_slice)).unwrap();
    first.l2fwd(&mut second, false, true, control.packets(1, 16)).unwrap();
    let swapped = right.receive(1).unwrap().unwrap();
    assert_eq!(swapped.packet(0).len(), 60);
}

#[test]
fn hardware_addresses_are_exchanged_if_asked_for() {
    let control = Control::new();
    let shared = arena();
    let (a, b) = wire(WireConfig::by_name(1500));
    let (c, d) = wire(WireConfig::by_name(1500));
    let (mut left, mut right) = (raw(a, arena()), raw(d, arena()));
    let (mut first, mut second) = (raw(b, shared.clone()), raw(c, shared));
    let mut frame = [7; 60];
    frame[..12].copy_from_slice(b"to....from..");
    left.send_bytes([&frame[..], &frame[..5]].into_iter()).unwrap();
    first.l2fwd(&mut second, false, true, control.packets(2, 16)).unwrap();
    let got = right.receive(2).unwrap().unwrap();
    assert_eq!(&got.packet(0)[..13], b"from..to....\x07");
    assert_eq!(got.packet(1), b"to...");
}

/// A kernel on the same machine leaves checksums unfinished; behind the forwarder they are right.
#[test]
fn an_unfinished_checksum_is_finished_on_the_way() {
    let control = Control::new();
    let shared = arena();
    let gso = WireConfig::by_name(1500);
    let none = WireConfig { gso: 0, ..gso };
    let (a, b) = wire(gso);
    let (c, d) = wire(none);
    let (first_arena, mut left) = (arena(), a);
    let mut right = raw(d, arena());
    let (mut first, mut second) = (raw(b, shared.clone()), raw(c, shared));
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let pseudo =
        millrace_wire::checksum::pseudo_v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 17, 10);
    frame.extend([0, 5, 0, 6, 0, 10]);
    frame.extend(pseudo.to_be_bytes());
    frame.extend([1, 2]);
    {
        use millrace_frames::{Instant, Owners, Transmit, TxBatch};
        let mut arena = first_arena.lock();
        let head = arena.allocate(Owners::TRANSMIT).unwrap();
        arena.room_mut(head)[..44].copy_from_slice(&frame);
        let mut batch = TxBatch::new();
        let packet = Transmit {
            head,
            total: 44,
            len: 44,
            frames: 1,
            checksum_start: 34,
            checksum_offset: 6,
            ..Transmit::default()
        };
        batch.push(packet).unwrap();
        left.tx(Instant::ZERO, &mut arena, &mut batch).unwrap();
    }
    first.l2fwd(&mut second, false, false, control.packets(1, 1)).unwrap();
    let got = right.receive(1).unwrap().unwrap();
    let datagram = &got.packet(0)[34..];
    let mut seen = pseudo.to_be_bytes().to_vec();
    seen.extend_from_slice(datagram);
    assert_eq!(millrace_wire::checksum::sum(&seen), 0xffff);
}

#[test]
fn a_filter_decides_what_is_forwarded() {
    let control = Control::new();
    let shared = arena();
    let (a, b) = wire(WireConfig::by_name(1500));
    let (c, d) = wire(WireConfig::by_name(1500));
    let (mut left, mut right) = (raw(a, arena()), raw(d, arena()));
    // ether[0] & 1 = 1
    let program = [(0x30, 0, 0, 0), (0x45, 0, 1, 1), (6, 0, 0, 1), (6, 0, 0, 0)];
    let program: Vec<_> =
        program.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
    let filter = Filter::new(Program::new(&program).unwrap());
    let mut first = raw(b, shared.clone()).filtered(Some(filter));
    let mut second = raw(c, shared);
    left.send_bytes(frames(20).iter().map(Vec::as_slice)).unwrap();
    let done = first.l2fwd(&mut second, false, false, control.packets(10, 64)).unwrap();
    assert_eq!((done.packets, done.filtered), (10, 10));
    assert_eq!(right.receive(64).unwrap().unwrap().len(), 10);
}

#[test]
fn a_loop_ends_at_its_time_when_it_is_stopped_and_with_the_wire() {
    let control = Control::new();
    let (left, mut right) = pair();
    for wait in [Wait::Spin, Wait::Sleep, Wait::SpinThenSleep(Duration::from_micros(10))] {
        let done = right.rxdrop(control.time(3, wait)).unwrap();
        assert_eq!((done.packets, done.bursts), (0, 0));
        assert!(done.idle > 0 && done.elapsed >= Duration::from_millis(3));
    }
    let stopped = Control::new();
    stopped.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let done = right.rxdrop(stopped.time(60_000, Wait::Spin)).unwrap();
    assert_eq!(Done { elapsed: Duration::ZERO, ..done }, Done::default());
    drop(left);
    assert!(right.rxdrop(control.time(60_000, Wait::Sleep)).unwrap().ended);
}

#[test]
fn a_loop_lets_more_packets_come() {
    let control = Control::new();
    for wait in [Wait::Spin, Wait::Sleep] {
        let (mut left, mut right) = pair();
        left.send_bytes(frames(10).iter().map(Vec::as_slice)).unwrap();
        let linger = Duration::from_millis(2);
        let run = Run { linger, wait, ..control.packets(10, 64) };
        let done = right.rxdrop(run).unwrap();
        assert_eq!((done.packets, done.bursts), (10, 1));
        assert!(done.elapsed >= linger);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let control = Control::new();
    let (mut left, mut right) = pair();
    let kept = left.keep(frames(2).iter().map(Vec::as_slice)).unwrap();
    let error = right.txpush(&kept, control.packets(1, 1)).unwrap_err();
    assert!(error.to_string().contains("do not lie in the frames"), "{error}");
    let none = left.keep(std::iter::empty()).unwrap();
    assert!(left.txpush(&none, control.packets(1, 1)).is_err());
    let error = left.l2fwd(&mut right, false, false, control.packets(1, 1)).unwrap_err();
    assert!(error.to_string().contains("arena=the first"), "{error}");
}
