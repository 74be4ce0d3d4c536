//! How fast the table of headers is made and filters of several kinds run, on 64-byte frames in memory,
//! one core:
//!
//! ```sh
//! cargo run --release -p millrace-packets --example rates
//! ```
//!
//! With a workload's name it runs that one for so many rounds of 1024 frames, for callgrind:
//! `rates headers 100`, `rates "udp port 53" 100`.

use std::hint::black_box;
use std::time::Instant;

use millrace_bpf::classic::{Instruction, Program};
use millrace_packets::{Batch, Filter};

/// What libpcap 1.10 makes of an expression: code, jt, jf, k.
type Plain = &'static [(u16, u8, u8, u32)];

const FILTERS: [(&str, Plain); 4] = [
    ("ip", &[(40, 0, 0, 12), (21, 0, 1, 2048), (6, 0, 0, 262144), (6, 0, 0, 0)]),
    (
        "udp port 53",
        &[
            (40, 0, 0, 12),
            (21, 0, 6, 34525),
            (48, 0, 0, 20),
            (21, 0, 15, 17),
            (40, 0, 0, 54),
            (21, 12, 0, 53),
            (40, 0, 0, 56),
            (21, 10, 11, 53),
            (21, 0, 10, 2048),
            (48, 0, 0, 23),
            (21, 0, 8, 17),
            (40, 0, 0, 20),
            (69, 6, 0, 8191),
            (177, 0, 0, 14),
            (72, 0, 0, 14),
            (21, 2, 0, 53),
            (72, 0, 0, 16),
            (21, 0, 1, 53),
            (6, 0, 0, 262144),
            (6, 0, 0, 0),
        ],
    ),
    (
        "tcp port 80 and host 10.0.0.1 and not net 192.168.0.0/16",
        &[
            (40, 0, 0, 12),
            (21, 21, 0, 34525),
            (21, 0, 20, 2048),
            (48, 0, 0, 23),
            (21, 0, 18, 6),
            (40, 0, 0, 20),
            (69, 16, 0, 8191),
            (177, 0, 0, 14),
            (72, 0, 0, 14),
            (21, 2, 0, 80),
            (72, 0, 0, 16),
            (21, 0, 11, 80),
            (32, 0, 0, 26),
            (21, 2, 0, 167772161),
            (32, 0, 0, 30),
            (21, 0, 7, 167772161),
            (32, 0, 0, 26),
            (84, 0, 0, 4294901760),
            (21, 4, 0, 3232235520),
            (32, 0, 0, 30),
            (84, 0, 0, 4294901760),
            (21, 1, 0, 3232235520),
            (6, 0, 0, 262144),
            (6, 0, 0, 0),
        ],
    ),
    (
        "portrange 20-30 or port 80",
        &[
            (40, 0, 0, 12),
            (21, 0, 13, 34525),
            (48, 0, 0, 20),
            (21, 2, 0, 132),
            (21, 1, 0, 6),
            (21, 0, 27, 17),
            (40, 0, 0, 54),
            (53, 0, 1, 20),
            (37, 0, 23, 30),
            (40, 0, 0, 56),
            (53, 0, 1, 20),
            (37, 0, 20, 30),
            (21, 19, 0, 80),
            (40, 0, 0, 54),
            (21, 17, 18, 80),
            (21, 0, 17, 2048),
            (48, 0, 0, 23),
            (21, 2, 0, 132),
            (21, 1, 0, 6),
            (21, 0, 13, 17),
            (40, 0, 0, 20),
            (69, 11, 0, 8191),
            (177, 0, 0, 14),
            (72, 0, 0, 14),
            (53, 0, 1, 20),
            (37, 0, 6, 30),
            (72, 0, 0, 16),
            (53, 0, 1, 20),
            (37, 0, 3, 30),
            (21, 2, 0, 80),
            (72, 0, 0, 14),
            (21, 0, 1, 80),
            (6, 0, 0, 262144),
            (6, 0, 0, 0),
        ],
    ),
];

const FRAMES: usize = 1024;

fn frame(protocol: u8, ports: (u16, u16)) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([
        8, 0, 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    frame.extend(ports.0.to_be_bytes());
    frame.extend(ports.1.to_be_bytes());
    frame.resize(64, 0);
    frame
}

/// TCP and UDP of many ports, without an order.
fn mixed() -> Batch {
    let mut state = 7u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let frames: Vec<_> = (0..FRAMES)
        .map(|_| {
            let protocol = if random() % 2 == 0 { 6 } else { 17 };
            let port = [80, 53, 443, 22][random() as usize % 4];
            frame(protocol, (1024 + random() as u16 % 50_000, port))
        })
        .collect();
    Batch::copied(frames.iter().map(Vec::as_slice), 0)
}

/// What is measured, by its name.
fn work(name: &str) -> Box<dyn Fn(&Batch)> {
    if name == "headers" {
        return Box::new(|batch| _ = black_box(batch.headers()));
    }
    let Some((_, instructions)) = FILTERS.iter().find(|(expression, _)| *expression == name) else {
        panic!("no workload {name:?}");
    };
    let instructions: Vec<_> =
        instructions.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
    let filter = match Program::new(&instructions) {
        Ok(program) => Filter::new(program),
        Err(error) => panic!("{name}: {error}"),
    };
    Box::new(move |batch| _ = black_box(filter.accepted(batch)))
}

fn rate(work: &dyn Fn(&Batch), batch: &Batch, rounds: usize) -> f64 {
    let begun = Instant::now();
    for _ in 0..rounds {
        work(black_box(batch));
    }
    (rounds * FRAMES) as f64 / begun.elapsed().as_secs_f64() / 1e6
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let (Some(name), Some(rounds)) = (arguments.next(), arguments.next()) {
        let rounds = rounds.parse().unwrap_or(1);
        println!("{:.1}", rate(&*work(&name), &mixed(), rounds));
        return;
    }
    let same = Batch::copied([&frame(6, (1234, 80))[..]; FRAMES].into_iter(), 0);
    println!("million frames a second: all alike, mixed");
    for name in ["headers"].into_iter().chain(FILTERS.map(|(expression, _)| expression)) {
        let work = work(name);
        rate(&*work, &same, 100);
        let (same, mixed) = (rate(&*work, &same, 2000), rate(&*work, &mixed(), 2000));
        println!("{same:7.1} {mixed:7.1}  {name}");
    }
}
