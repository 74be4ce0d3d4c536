//! Capture files sent again.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use millrace_bpf::classic::{Instruction, Program};
use millrace_frames::{Arena, ArenaConfig, Duration, Hugepages, Instant};
use millrace_packets::generator::Pace;
use millrace_packets::replay::{Plan, Replay, Replayed, Timing};
use millrace_packets::{Filter, RawPort, SharedArena};
use millrace_port::memory::{WireConfig, wire};
use millrace_port::pcap::{ByteOrder, FileFormat, PacketInfo, PcapWriter};
use millrace_port::wait::Bell;

fn pair(mtu: u32) -> (RawPort, RawPort) {
    let arena = || {
        let config = ArenaConfig { frames: 512, frame_size: 2048, hugepages: Hugepages::Never };
        SharedArena::new(Arena::new(config).unwrap())
    };
    let (a, b) = wire(WireConfig::by_name(mtu));
    (RawPort::new(Box::new(a), arena(), Vec::new()), RawPort::new(Box::new(b), arena(), Vec::new()))
}

/// A file that goes when the test ends.
struct Trace(PathBuf);

impl Trace {
    /// With packets of these times in microseconds.
    fn new(packets: &[(u64, Vec<u8>)]) -> Trace {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("replay-{}-{number}.pcapng", std::process::id());
        let trace = Trace(std::env::temp_dir().join(name));
        let file = fs::File::create(&trace.0).unwrap();
        let (format, order) = (FileFormat::PcapNg, ByteOrder::Little);
        let mut writer = PcapWriter::new(file, "it", "eth0", format, order).unwrap();
        for (time, bytes) in packets {
            writer.write(0, Instant::from_micros(*time), bytes).unwrap();
        }
        writer.flush().unwrap();
        trace
    }

    fn plan(&self, timing: Timing) -> Plan {
        let path = self.0.clone();
        Plan { path, timing, times: 1, packets: None, time: None, filter: None, batch: 64 }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const FASTEST: Timing = Timing::Paced(Pace::Fastest);

fn original(speed: f64) -> Timing {
    Timing::Original { speed, longest_gap: Duration::from_millis(500) }
}

fn frames(count: usize) -> Vec<(u64, Vec<u8>)> {
    (0..count).map(|n| (n as u64, vec![n as u8; 60 + n % 100])).collect()
}

/// Sends all of a plan; what arrived, what was done, and what was wrong.
fn replayed(
    plan: Plan,
    left: &mut RawPort,
    right: &mut RawPort,
) -> (Vec<Vec<u8>>, Replayed, Option<std::io::Error>) {
    let (bell, stop) = (Bell::new().unwrap(), AtomicBool::new(false));
    let mut replay = Replay::new(plan).unwrap();
    let mut arrived = Vec::new();
    let wrong = loop {
        let step = replay.step(left, Duration::from_micros(200), &bell, &stop);
        while let Some(batch) = right.receive(64).unwrap() {
            arrived.extend(batch.packets().map(<[u8]>::to_vec));
        }
        match step {
            Ok(true) => break None,
            Ok(false) => {}
            Err(error) => break Some(error),
        }
    };
    replay.finish(left);
    let arena = left.arena().lock();
    assert_eq!(arena.free(), arena.frames());
    (arrived, replay.done(), wrong)
}

fn bytes(packets: &[(u64, Vec<u8>)]) -> Vec<Vec<u8>> {
    packets.iter().map(|(_, bytes)| bytes.clone()).collect()
}

#[test]
fn a_file_is_sent_as_often_as_wanted() {
    let packets = frames(300);
    let trace = Trace::new(&packets);
    let (mut left, mut right) = pair(1500);
    for timing in [FASTEST, Timing::Paced(Pace::Packets(1e6)), original(100.0)] {
        let plan = Plan { times: 3, ..trace.plan(timing) };
        let (arrived, done, wrong) = replayed(plan, &mut left, &mut right);
        assert!(wrong.is_none(), "{wrong:?}");
        assert_eq!((arrived.len(), done.packets, done.read, done.times), (900, 900, 900, 3));
        assert!(arrived.chunks(300).all(|round| round == bytes(&packets)));
        assert_eq!(done.bytes, arrived.iter().map(|frame| frame.len() as u64).sum::<u64>());
    }
    let plan = Plan { times: 9, packets: Some(450), ..trace.plan(FASTEST) };
    assert_eq!(replayed(plan, &mut left, &mut right).0.len(), 450);
}

#[test]
fn the_original_pace_is_kept_and_lies_about_time_are_cut() {
    // 3 ms, then back in time, then a century, then 2 ms.
    let century = 100 * 365 * 86_400 * 1_000_000u64;
    let times = [10_000, 13_000, 5_000, century, century + 2_000];
    let packets: Vec<_> = times.iter().map(|&time| (time, vec![1; 60])).collect();
    let trace = Trace::new(&packets);
    let (mut left, mut right) = pair(1500);
    let timing = Timing::Original { speed: 1.0, longest_gap: Duration::from_millis(5) };
    let (arrived, done, wrong) = replayed(trace.plan(timing), &mut left, &mut right);
    assert!(wrong.is_none());
    assert_eq!((arrived.len(), done.gaps_cut), (5, 1));
    assert!(done.elapsed >= Duration::from_millis(10), "{:?}", done.elapsed);
    let timing = Timing::Original { speed: 10.0, longest_gap: Duration::from_millis(5) };
    let (.., done) = {
        let r = replayed(trace.plan(timing), &mut left, &mut right);
        (r.0, r.1)
    };
    assert!(done.elapsed >= Duration::from_micros(5500), "{:?}", done.elapsed);
}

#[test]
fn what_the_port_never_takes_is_counted() {
    let packets: Vec<_> =
        [0, 13, 14, 1514, 1515, 65_535].iter().map(|&len| (0, vec![3; len])).collect();
    let trace = Trace::new(&packets);
    let (mut left, mut right) = pair(1500);
    let (arrived, done, _) = replayed(trace.plan(FASTEST), &mut left, &mut right);
    let lens: Vec<_> = arrived.iter().map(Vec::len).collect();
    assert_eq!(lens, [0, 13, 14, 1514]);
    assert_eq!((done.too_long, done.too_short, done.read), (2, 0, 6));
    let (mut left, mut right) = pair(65_535);
    assert_eq!(replayed(trace.plan(FASTEST), &mut left, &mut right).0.len(), 6);
}

#[test]
fn all_before_a_damage_is_sent_and_then_it_is_told() {
    let packets = frames(150);
    let trace = Trace::new(&packets);
    let whole = fs::read(&trace.0).unwrap();
    fs::write(&trace.0, &whole[..whole.len() - 7]).unwrap();
    let (mut left, mut right) = pair(1500);
    let plan = Plan { times: 4, ..trace.plan(FASTEST) };
    let (arrived, done, wrong) = replayed(plan, &mut left, &mut right);
    assert_eq!(arrived, bytes(&packets[..149]));
    assert_eq!(done.times, 1);
    let text = wrong.unwrap().to_string();
    assert!(text.contains("byte ") && text.contains("but the file ends after"), "{text}");

    fs::write(&trace.0, b"no capture file at all").unwrap();
    let error = Replay::new(trace.plan(FASTEST)).unwrap_err();
    assert!(error.to_string().contains("expected the magic number"), "{error}");
    fs::remove_file(&trace.0).unwrap();
    let error = Replay::new(trace.plan(FASTEST)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn cut_packets_are_sent_and_counted_and_a_filter_chooses() {
    let trace = Trace::new(&[]);
    let mut bytes = Vec::new();
    let (format, order) = (FileFormat::PcapNg, ByteOrder::Little);
    let mut writer = PcapWriter::new(&mut bytes, "it", "eth0", format, order).unwrap();
    for number in 0..10u8 {
        let info = PacketInfo { original_len: 200, ..PacketInfo::default() };
        writer.append(&info, [&[number; 60]]).unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    fs::write(&trace.0, &bytes).unwrap();
    // ether[0] & 1 = 1
    let program = [(0x30, 0, 0, 0), (0x45, 0, 1, 1), (6, 0, 0, 1), (6, 0, 0, 0)];
    let program: Vec<_> =
        program.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
    let filter = Some(Filter::new(Program::new(&program).unwrap()));
    let (mut left, mut right) = pair(1500);
    let plan = Plan { filter, ..trace.plan(FASTEST) };
    let (arrived, done, _) = replayed(plan, &mut left, &mut right);
    assert_eq!((arrived.len(), done.cut, done.filtered), (5, 5, 5));
}

#[test]
fn an_empty_file_ends_and_a_speed_must_be_one() {
    let trace = Trace::new(&[]);
    let (mut left, mut right) = pair(1500);
    let plan = Plan { times: u64::MAX, ..trace.plan(original(1.0)) };
    let (arrived, done, wrong) = replayed(plan, &mut left, &mut right);
    assert!(arrived.is_empty() && done.read == 0 && wrong.is_none());
    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Replay::new(trace.plan(original(speed))).is_err());
    }
}
