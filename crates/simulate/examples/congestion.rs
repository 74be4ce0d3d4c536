//! Goodput of one bulk flow by congestion control, loss, round-trip time and queue, in virtual
//! time, on the links of `millrace bench links`:
//! `cargo run --release -p millrace-simulate --example congestion -- [MBIT [ALGORITHM...]]`.
//!
//! Both sides are our stack, with super-segments. Figures are means over seeds, with the lowest of
//! them: a cell that is decided by a few losses shows it.

use millrace_frames::Duration;
use millrace_simulate::{Conversation, HostSpec, Impairment, Settings, Topology, WireSpec, World};
use millrace_stack::Algorithm;

const SEEDS: u64 = 5;
/// As in `python/millrace/bench/links.py`.
const REORDER: f64 = 0.02;
const LEAST_QUEUE: u64 = 4 * 1514;

/// A link of the table.
#[derive(Clone, Copy)]
struct Link {
    mbit: u64,
    rtt_ms: u64,
    loss: f64,
    queue_bdp: f64,
    reorder: bool,
}

impl Link {
    fn seconds(&self) -> u64 {
        if self.mbit >= 1000 { 3 } else { 10 }
    }
}

/// Megabits a second that arrive in ten seconds (three from 1 Gbit/s on) after the connection is
/// accepted.
fn goodput(algorithm: Algorithm, link: Link, seed: u64) -> f64 {
    let rate = link.mbit * 1_000_000;
    let product = rate as f64 / 8.0 * link.rtt_ms as f64 / 1000.0;
    // A product with its queue, and as much again beyond a gap, at either side.
    let frames = if link.mbit >= 1000 { 1 << 18 } else { 1 << 16 };
    let mut host = HostSpec { frames, super_segments: 65_535, ..HostSpec::default() };
    host.config.congestion = algorithm;
    host.config.send_buffer = 64 << 20;
    host.config.receive_buffer = 64 << 20;
    host.config.out_of_order_frames = 24_576;
    host.config.out_of_order_frames_total = frames / 2;
    let way = Impairment {
        rate_bits_per_s: Some(rate),
        queue_bytes: ((product * link.queue_bdp) as u64).max(LEAST_QUEUE),
        delay: Duration::from_micros(link.rtt_ms * 500),
        loss: link.loss,
        reorder: if link.reorder { REORDER } else { 0.0 },
        reorder_delay: Duration::from_micros(link.rtt_ms * 125),
        ..Impairment::default()
    };
    let mut topology = Topology::new();
    let a = topology.host(Some("a"), host.clone()).expect("a host");
    let b = topology.host(Some("b"), host).expect("a host");
    let spec = WireSpec { directions: [way, way], ..WireSpec::default() };
    topology.wire(a, b, spec).expect("a wire");
    let mut world =
        World::new(topology, Settings { seed, ..Settings::default() }).expect("a world");
    world.converse(Conversation::bulk(a, b, 80, 1 << 40)).expect("a conversation");
    // A handshake that is lost is no goodput's.
    let mut until = Duration::ZERO;
    while world.reports().first().is_none_or(|one| one.sides[1].connected.is_none()) {
        until += Duration::from_millis(1);
        world.run(until).expect("a run");
    }
    world.run(until + Duration::from_secs(link.seconds())).expect("a run");
    let report = &world.reports()[0];
    report.sides[1].received as f64 * 8e-6 / link.seconds() as f64
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mbit = arguments.next().map_or(100, |text| text.parse().expect("a rate in Mbit/s"));
    let mut algorithms: Vec<Algorithm> =
        arguments.map(|name| name.parse().unwrap_or_else(|error| panic!("{error}"))).collect();
    if algorithms.is_empty() {
        algorithms = Algorithm::ALL.to_vec();
    }
    print!("{:>6} {:>7} {:>5} {:>7}", "rtt_ms", "loss_%", "queue", "reorder");
    algorithms.iter().for_each(|algorithm| print!(" {:>15}", algorithm.name()));
    println!("   (Mbit/s of {mbit}: mean, lowest)");
    for rtt_ms in [1, 20, 100] {
        for loss in [0.0, 0.001, 0.01, 0.03, 0.1] {
            for queue_bdp in [0.1, 1.0] {
                for reorder in [false, true] {
                    let link = Link { mbit, rtt_ms, loss, queue_bdp, reorder };
                    print!("{rtt_ms:>6} {:>7.1} {queue_bdp:>5.1} {reorder:>7}", loss * 100.0);
                    for &algorithm in &algorithms {
                        let seen: Vec<f64> =
                            (1..=SEEDS).map(|seed| goodput(algorithm, link, seed)).collect();
                        let mean = seen.iter().sum::<f64>() / seen.len() as f64;
                        let lowest = seen.iter().copied().fold(f64::INFINITY, f64::min);
                        print!(" {mean:>8.2} {lowest:>6.2}");
                    }
                    println!();
                }
            }
        }
    }
}
