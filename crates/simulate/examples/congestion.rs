//! Goodput of one bulk flow by congestion control, loss, round-trip time and queue, in virtual
//! time: `cargo run --release -p millrace-simulate --example congestion -- [MBIT [ALGORITHM...]]`.

use millrace_frames::Duration;
use millrace_simulate::{Conversation, HostSpec, Impairment, Settings, Topology, WireSpec, World};
use millrace_stack::Algorithm;

/// Bits a second that arrive in the first ten seconds (three from 1 Gbit/s on).
fn goodput(
    algorithm: Algorithm,
    mbit: u64,
    rtt_ms: u64,
    loss: f64,
    bdp: f64,
    reorder: bool,
) -> f64 {
    let rate = mbit * 1_000_000;
    let product = rate as f64 / 8.0 * rtt_ms as f64 / 1000.0;
    let mut host = HostSpec { frames: 65_536, super_segments: 65_535, ..HostSpec::default() };
    host.config.congestion = algorithm;
    host.config.send_buffer = 64 << 20;
    host.config.receive_buffer = 64 << 20;
    let one_way =
        Impairment { delay: Duration::from_micros(rtt_ms * 500), ..Impairment::default() };
    let forth = Impairment {
        rate_bits_per_s: Some(rate),
        queue_bytes: ((product * bdp) as u64).max(3000),
        loss,
        reorder: if reorder { 0.01 } else { 0.0 },
        reorder_delay: Duration::from_micros(rtt_ms * 250),
        ..one_way
    };
    let mut topology = Topology::new();
    let a = topology.host(Some("a"), host.clone()).expect("a host");
    let b = topology.host(Some("b"), host).expect("a host");
    let spec = WireSpec { directions: [forth, one_way], ..WireSpec::default() };
    topology.wire(a, b, spec).expect("a wire");
    let mut world =
        World::new(topology, Settings { seed: 7, ..Settings::default() }).expect("a world");
    world.converse(Conversation::bulk(a, b, 80, 1 << 40)).expect("a conversation");
    let seconds = if mbit >= 1000 { 3 } else { 10 };
    world.run(Duration::from_secs(seconds)).expect("a run");
    let report = &world.reports()[0];
    report.sides[1].received as f64 * 8.0 / seconds as f64
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
    algorithms.iter().for_each(|algorithm| print!(" {:>9}", algorithm.name()));
    println!("   (Mbit/s of {mbit})");
    for rtt_ms in [1, 20, 100] {
        for loss in [0.0, 0.001, 0.01, 0.03, 0.1] {
            for bdp in [0.1, 1.0] {
                for reorder in [false, true] {
                    print!("{rtt_ms:>6} {:>7.1} {bdp:>5.1} {reorder:>7}", loss * 100.0);
                    for &algorithm in &algorithms {
                        let bits = goodput(algorithm, mbit, rtt_ms, loss, bdp, reorder);
                        print!(" {:>9.2}", bits / 1e6);
                    }
                    println!();
                }
            }
        }
    }
}
