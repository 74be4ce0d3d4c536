//! What a packet costs on the memory wire:
//!
//! ```sh
//! cargo run --release -p millrace-port --example memory_wire
//! ```
//!
//! One thread sends bursts from one end and receives them at the other, with new frames for each
//! packet. The second figure is the same without the wire, that is, what taking and returning the
//! frames costs; the difference is the wire's: both calls and both copies.

use std::hint::black_box;

use millrace_frames::{
    Arena, ArenaConfig, BURST, Duration, Instant, Owners, RxBatch, Transmit, TxBatch,
};
use millrace_port::memory::{self, Impairment, MemoryPort, WireConfig};
use millrace_port::{Port, clock};

/// The best of so many rounds counts. They are short, so that some are not disturbed by others.
const ROUNDS: usize = 1000;
const PACKETS_A_ROUND: usize = 8_192;

struct Bench {
    ends: Option<(MemoryPort, MemoryPort)>,
    sender: Arena,
    receiver: Arena,
    tx: TxBatch,
    rx: RxBatch,
    now: Instant,
}

impl Bench {
    fn new(config: Option<WireConfig>) -> Self {
        Bench {
            ends: config.map(memory::wire),
            sender: Arena::new(ArenaConfig::default()).expect("memory for an arena"),
            receiver: Arena::new(ArenaConfig::default()).expect("memory for an arena"),
            tx: TxBatch::new(),
            rx: RxBatch::new(),
            now: Instant::ZERO,
        }
    }

    /// Nanoseconds a packet.
    fn measure(&mut self, len: usize, burst: usize) -> f64 {
        let turns = PACKETS_A_ROUND / burst / (1 + len / 1500);
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let start = clock::now();
            for _ in 0..turns {
                self.turn(len, burst);
            }
            best = best.min((clock::now() - start).as_nanos() as f64 / (turns * burst) as f64);
        }
        best
    }

    fn turn(&mut self, len: usize, burst: usize) {
        let Bench { ends, sender, receiver, tx, rx, now } = self;
        for _ in 0..burst {
            let _ = tx.push(packet(sender, Owners::TRANSMIT, len));
        }
        if let Some((left, right)) = ends {
            left.tx(*now, sender, tx).expect("an open wire");
            // By then the wire's rate has let them all through.
            *now += Duration::from_millis(1);
            right.rx(*now, receiver, rx).expect("an open wire");
        } else {
            for sent in tx.iter() {
                sender.transmitted(sent);
                let _ = rx.push(packet(receiver, Owners::RECEIVED, len).head);
            }
            tx.clear();
        }
        assert_eq!(rx.len(), burst);
        for &head in rx.iter() {
            black_box(receiver.bytes(head)[0]);
            receiver.release_chain(head, Owners::RECEIVED);
        }
        rx.clear();
    }
}

/// A packet of frames whose bytes are what they were.
fn packet(arena: &mut Arena, owner: Owners, len: usize) -> Transmit {
    let room = arena.frame_size() - Arena::HEADROOM;
    let head = arena.allocate(owner).expect("a free frame");
    let first = len.min(room);
    arena.meta_mut(head).len = first as u16;
    let (mut left, mut last, mut frames) = (len - first, head, 1);
    while left > 0 {
        let frame = arena.allocate(owner).expect("a free frame");
        arena.meta_mut(frame).len = left.min(room) as u16;
        left -= left.min(room);
        arena.meta_mut(last).next = frame;
        (last, frames) = (frame, frames + 1);
    }
    Transmit {
        head,
        total: len as u32,
        offset: Arena::HEADROOM as u16,
        len: first as u16,
        frames,
        gso_size: if len > 1514 { 1448 } else { 0 },
        ..Transmit::default()
    }
}

fn main() {
    let plain = WireConfig { gso: 65_535, ..WireConfig::default() };
    let rate = Impairment {
        rate_bits_per_s: Some(100_000_000_000),
        queue_bytes: 1 << 30,
        ..Impairment::default()
    };
    let impaired = WireConfig { impairment: [rate; 2], ..plain };
    println!(
        "{:10} {:>6} {:>6} {:>12} {:>14}",
        "wire", "bytes", "burst", "ns a packet", "without wire"
    );
    for (name, config) in [("plain", plain), ("impaired", impaired)] {
        for (len, burst) in
            [(64, 1), (64, BURST), (1024, 1), (1024, BURST), (1514, BURST), (64_054, 1)]
        {
            let with = Bench::new(Some(config)).measure(len, burst);
            let without = Bench::new(None).measure(len, burst);
            println!("{name:10} {len:6} {burst:6} {with:12.1} {without:14.1}");
        }
    }
}
