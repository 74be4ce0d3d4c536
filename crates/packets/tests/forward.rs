//! The host in the middle over wires in memory: what passes, and that every packet is in exactly
//! one counter.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use millrace_bpf::classic::{Instruction, Program};
use millrace_frames::{Arena, ArenaConfig, Hugepages};
use millrace_packets::forward::{Config, Counters, Forwarder};
use millrace_packets::loops::{Done, Run};
use millrace_packets::{Filter, RawPort, SharedArena};
use millrace_port::impair::{GilbertElliott, Impairment};
use millrace_port::memory::{MemoryPort, WireConfig, wire};
use millrace_port::wait::Bell;
use millrace_port::{Port, Wait};

const FRAMES: u32 = 512;

fn arena(frames: u32) -> SharedArena {
    let config = ArenaConfig { frames, frame_size: 2048, hugepages: Hugepages::Never };
    SharedArena::new(Arena::new(config).unwrap())
}

fn raw(port: MemoryPort, arena: SharedArena) -> RawPort {
    RawPort::new(Box::new(port) as Box<dyn Port>, arena, Vec::new())
}

/// Two hosts, and the ports of the one between them.
struct Site {
    left: RawPort,
    first: RawPort,
    second: RawPort,
    right: RawPort,
    bell: Bell,
    stop: AtomicBool,
}

impl Site {
    fn new(mtu: u32, frames: u32) -> Site {
        let shared = arena(frames);
        let (a, b) = wire(WireConfig::by_name(mtu));
        let (c, d) = wire(WireConfig::by_name(mtu));
        Site {
            left: raw(a, arena(1024)),
            first: raw(b, shared.clone()),
            second: raw(c, shared),
            right: raw(d, arena(1024)),
            bell: Bell::new().unwrap(),
            stop: AtomicBool::new(false),
        }
    }

    fn run(&mut self, forwarder: &mut Forwarder, packets: Option<u64>, time: Duration) -> Done {
        let Site { first, second, bell, stop, .. } = self;
        let run = Run {
            batch: 16,
            packets,
            time: Some(time),
            wait: Wait::Sleep,
            linger: Duration::ZERO,
            bell,
            stop,
        };
        forwarder.run(first, second, run).unwrap()
    }

    fn free(&self) -> usize {
        let mut arena = self.first.arena().lock();
        arena.collect_held();
        arena.free()
    }
}

/// So long that only what hangs is ended by it.
const LONG: Duration = Duration::from_secs(60);

fn received(port: &mut RawPort) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some(batch) = port.receive(64).unwrap() {
        packets.extend(batch.packets().map(<[u8]>::to_vec));
    }
    packets
}

fn frames(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number as u8; 60 + number % 4]).collect()
}

fn send(port: &mut RawPort, frames: &[Vec<u8>]) {
    let taken = port.send_bytes(frames.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(taken, frames.len());
}

fn both(forth: Impairment) -> Config {
    Config { forth, back: Some(Impairment::default()), ..Config::default() }
}

fn assert_conserved(c: &Counters) {
    let dropped = c.link.lost + c.link.queue_dropped + c.damaged_whole + c.lost_copies;
    let gone = c.filtered + dropped + c.no_frame + c.refused + c.in_flight + c.sent;
    assert_eq!(c.received + c.link.duplicated, gone, "{c:?}");
}

#[test]
fn packets_pass_both_ways_in_order_and_so_many_as_wanted() {
    let mut site = Site::new(9000, FRAMES);
    let mut forwarder = Forwarder::new(both(Impairment::default()), FRAMES as usize).unwrap();
    let mut sent = frames(50);
    sent.push((0..8000u32).map(|at| at as u8).collect());
    send(&mut site.left, &sent);
    send(&mut site.right, &[vec![9; 70]]);
    assert_eq!(site.run(&mut forwarder, Some(52), LONG).packets, 52);
    assert_eq!(received(&mut site.right), sent);
    assert_eq!(received(&mut site.left), [[9; 70]]);
    assert_eq!(site.free(), FRAMES as usize);
    send(&mut site.left, &sent[..20]);
    assert_eq!(site.run(&mut forwarder, Some(7), LONG).packets, 7);
    assert_eq!(received(&mut site.right).len(), 7);
    let [Some(forth), Some(back)] = forwarder.counters() else { panic!("two ways") };
    assert_conserved(&forth);
    assert_eq!((forth.sent, back.sent, back.sent_bytes), (58, 1, 70));
}

#[test]
fn one_way_takes_nothing_from_the_other_port() {
    let mut site = Site::new(1500, FRAMES);
    let mut forwarder = Forwarder::new(Config::default(), FRAMES as usize).unwrap();
    send(&mut site.left, &frames(3));
    send(&mut site.right, &frames(5));
    assert_eq!(site.run(&mut forwarder, Some(3), LONG).packets, 3);
    assert_eq!(received(&mut site.second).len(), 5);
    assert!(received(&mut site.left).is_empty());
    assert_eq!(forwarder.counters()[1], None);
}

#[test]
fn both_filters_decide() {
    // ether[0] & 1 = 1; ether[0] < 8
    let odd = [(0x30, 0, 0, 0), (0x45, 0, 1, 1), (6, 0, 0, 1), (6, 0, 0, 0)];
    let small = [(0x30, 0, 0, 0), (0x35, 1, 0, 8), (6, 0, 0, 1), (6, 0, 0, 0)];
    let [odd, small] = [odd, small].map(|program| {
        let program = program.map(|(code, jt, jf, k)| Instruction { code, jt, jf, k });
        Filter::new(Program::new(&program).unwrap())
    });
    let mut site = Site::new(1500, FRAMES);
    site.first = site.first.filtered(Some(odd));
    let config = Config { filter: Some(small), ..Config::default() };
    let mut forwarder = Forwarder::new(config, FRAMES as usize).unwrap();
    send(&mut site.left, &frames(20));
    // No more is taken than is needed.
    let done = site.run(&mut forwarder, Some(4), LONG);
    assert_eq!((done.packets, done.filtered), (4, 4));
    let mut filtered = 4;
    while filtered < 16 {
        filtered += site.run(&mut forwarder, None, Duration::from_millis(1)).filtered;
    }
    let got: Vec<u8> = received(&mut site.right).iter().map(|packet| packet[0]).collect();
    assert_eq!(got, [1, 3, 5, 7]);
    assert_eq!(site.free(), FRAMES as usize);
}

#[test]
fn a_delay_is_kept_and_what_is_on_its_way_waits_for_the_next_call() {
    let delay = Duration::from_millis(30);
    let slow = Impairment { delay, ..Impairment::default() };
    let mut site = Site::new(1500, FRAMES);
    let mut forwarder = Forwarder::new(both(slow), FRAMES as usize).unwrap();
    let begun = millrace_port::clock::now();
    send(&mut site.left, &frames(10));
    send(&mut site.right, &frames(10));
    assert_eq!(site.run(&mut forwarder, Some(20), LONG).packets, 20);
    assert!(millrace_port::clock::now() - begun >= delay);
    assert_eq!(received(&mut site.right), frames(10));

    let forever = Impairment { delay: Duration::from_secs(3000), ..Impairment::default() };
    let mut forwarder = Forwarder::new(both(forever), FRAMES as usize).unwrap();
    send(&mut site.left, &frames(10));
    send(&mut site.right, &frames(1));
    assert_eq!(site.run(&mut forwarder, Some(1), LONG).packets, 1);
    site.run(&mut forwarder, None, Duration::from_millis(1));
    assert_eq!(site.free(), FRAMES as usize - 10);
    forwarder.end(&mut site.first.arena().lock());
    let [Some(forth), _] = forwarder.counters() else { panic!("two ways") };
    assert_eq!((forth.in_flight, forth.sent), (10, 0));
    assert_conserved(&forth);
    assert_eq!(site.free(), FRAMES as usize);
}

#[test]
fn every_packet_is_in_one_counter_and_no_frame_is_lost() {
    let everything = Impairment {
        loss: 0.1,
        bursts: Some(GilbertElliott::bursts(0.05, 3.0)),
        duplicate: 0.3,
        corrupt: 0.1,
        delay: Duration::from_micros(300),
        jitter: Duration::from_micros(100),
        jitter_reorders: true,
        reorder: 0.1,
        reorder_delay: Duration::from_micros(200),
        rate_bits_per_s: Some(2_000_000_000),
        queue_bytes: 3000,
        mark_bytes: Some(500),
    };
    // So few that copies find none at times; packets of several frames are among them.
    let frames_there = 40;
    let mut site = Site::new(9000, frames_there);
    let config = Config { back: Some(everything), ..both(everything) };
    let mut forwarder = Forwarder::new(config, frames_there as usize).unwrap();
    let mut sent = frames(14);
    sent.extend([vec![1; 5000], vec![2; 2500]]);
    let mut arrived = [0, 0];
    // Whether a copy finds no frame is a matter of time, so it goes on until some did not.
    let rare = |forwarder: &Forwarder| {
        let all = forwarder.counters();
        let sum = |of: fn(&Counters) -> u64| all.iter().flatten().map(of).sum::<u64>();
        (sum(|counters| counters.damaged_whole), sum(|counters| counters.link.queue_dropped))
    };
    for round in 0..40_000 {
        let (damaged_whole, queue_dropped) = rare(&forwarder);
        if round >= 400 && damaged_whole > 0 && queue_dropped > 0 {
            break;
        }
        send(&mut site.left, &sent);
        send(&mut site.right, &sent);
        site.run(&mut forwarder, None, Duration::from_micros(400));
        arrived[0] += received(&mut site.right).len() as u64;
        arrived[1] += received(&mut site.left).len() as u64;
    }
    forwarder.end(&mut site.first.arena().lock());
    let (damaged_whole, queue_dropped) = rare(&forwarder);
    assert!(damaged_whole > 0 && queue_dropped > 0, "{damaged_whole} {queue_dropped}");
    for (counters, arrived) in forwarder.counters().iter().flatten().zip(arrived) {
        assert_conserved(counters);
        assert_eq!(counters.sent, arrived);
        assert!(counters.link.lost > 0 && counters.link.duplicated > 0, "{counters:?}");
        assert!(counters.link.corrupted > 0 && counters.link.reordered > 0, "{counters:?}");
    }
    assert_eq!(site.free(), frames_there as usize);
}

#[test]
fn it_ends_with_its_wires() {
    let mut site = Site::new(1500, FRAMES);
    let mut forwarder = Forwarder::new(both(Impairment::default()), FRAMES as usize).unwrap();
    send(&mut site.left, &frames(5));
    site.left.close().unwrap();
    // The other wire may still bring something.
    assert!(!site.run(&mut forwarder, Some(5), LONG).ended);
    site.right.close().unwrap();
    assert!(site.run(&mut forwarder, None, LONG).ended);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let wrong = Impairment { loss: 2.0, ..Impairment::default() };
    let error = Forwarder::new(both(wrong), 1).unwrap_err();
    assert!(error.to_string().contains("loss is a probability"), "{error}");
    let mut site = Site::new(1500, FRAMES);
    let mut forwarder = Forwarder::new(Config::default(), 1).unwrap();
    let run = Run {
        batch: 1,
        packets: Some(1),
        time: None,
        wait: Wait::Spin,
        linger: Duration::ZERO,
        bell: &site.bell,
        stop: &site.stop,
    };
    let error = forwarder.run(&mut site.left, &mut site.right, run).unwrap_err();
    assert!(error.to_string().contains("arena=the first"), "{error}");
}
