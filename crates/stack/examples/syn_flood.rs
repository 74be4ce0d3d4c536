//! What a SYN costs when its sender is invented: nanoseconds for each, with cookies, with entries,
//! and without a listener (a reset, as many as the bound allows). The rest of the time, making room
//! for the packet and taking the answer away, is in the row of a packet that is dropped at once.
//!
//! `cargo run --release -p millrace-stack --example syn_flood`

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant as Clock;

use millrace_frames::{
    Arena, ArenaConfig, BURST, Duration, Hugepages, Instant, Owners, RxBatch, TxBatch,
};
use millrace_stack::{Config, InterfaceAddress, Stack, SynCookies};
use millrace_wire::mac::Mac;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{self, Flags, OptionWriter};
use millrace_wire::{checksum, ether, ipv4, protocol};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PACKETS: u32 = 4096;
const ROUNDS: u32 = 50;

/// A SYN as Linux makes it, from a source of its own.
fn syn(number: u32, to: Mac, port: u16) -> Vec<u8> {
    let source = Ipv4Addr::from_bits(0x0a01_0000 | number);
    let mut options = OptionWriter::new();
    options.mss(1460).sack_permitted().timestamps(number, 0).window_scale(7);
    let options = options.padded();
    let len = tcp::HEADER_LEN + options.len();
    let mut bytes = vec![0; ether::HEADER_LEN + ipv4::HEADER_LEN + len];
    ether::emit(&mut bytes, to, Mac([2, 0, 0, 0, 0, 9]), ether::EtherType::IPV4);
    ipv4::Header {
        source,
        destination: OWN,
        protocol: protocol::TCP,
        ttl: 64,
        tos: 0,
        identification: 0,
        dont_fragment: true,
    }
    .emit(&mut bytes[ether::HEADER_LEN..], len);
    let header = &mut bytes[ether::HEADER_LEN + ipv4::HEADER_LEN..];
    tcp::Header {
        source_port: 1024 + number as u16,
        destination_port: port,
        sequence: Seq(number.wrapping_mul(2_654_435_761)),
        acknowledgement: Seq(0),
        flags: Flags::SYN,
        window: 64_240,
        urgent: 0,
    }
    .emit(header, options);
    tcp::fill_checksum(header, checksum::pseudo_v4(source, OWN, protocol::TCP, len), 0);
    bytes
}

fn measure(name: &str, to: Mac, port: u16, cookies: SynCookies) {
    let config = Config {
        addresses: vec![InterfaceAddress { address: OWN.into(), prefix: 8 }],
        syn_cookies: cookies,
        connections: 4 * PACKETS,
        neighbours: 8192,
        syn_ack_retries: 1,
        syn_queue: if cookies == SynCookies::Off { u32::MAX } else { 16 },
        ..Config::default()
    };
    let arena =
        Arena::new(ArenaConfig { frames: 8192, frame_size: 2048, hugepages: Hugepages::Never })
            .expect("memory for the arena");
    let mut now = Instant::from_millis(1_000_000);
    let mut stack = Stack::new(config, arena, now).expect("a stack");
    stack.listen(SocketAddr::new(OWN.into(), 80), 128).expect("a listener");
    let packets: Vec<Vec<u8>> = (0..PACKETS).map(|number| syn(number, to, port)).collect();
    let (mut rx, mut tx) = (RxBatch::new(), TxBatch::new());
    let (mut best, mut answers) = (f64::MAX, 0);
    for _ in 0..ROUNDS {
        let start = Clock::now();
        for burst in packets.chunks(BURST) {
            for packet in burst {
                let arena = stack.arena_mut();
                let frame = arena.allocate(Owners::RECEIVED).expect("a free frame");
                arena.room_mut(frame)[2..2 + packet.len()].copy_from_slice(packet);
                let meta = arena.meta_mut(frame);
                (meta.offset, meta.len, meta.total) = (2, packet.len() as u16, packet.len() as u32);
                rx.push(frame).expect("room in the burst");
            }
            stack.receive(now, &mut rx);
            while stack.transmit(now, &mut tx) > 0 {
                answers += tx.len();
                for packet in tx.iter() {
                    stack.arena_mut().transmitted(packet);
                }
                tx.clear();
            }
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(PACKETS));
        // Half-open connections time out before the next round, and the bound on resets begins anew.
        now += Duration::from_secs(1);
        while let Some(deadline) = stack.next_deadline() {
            now = now.max(deadline);
            stack.advance(now);
            while stack.transmit(now, &mut tx) > 0 {
                for packet in tx.iter() {
                    stack.arena_mut().transmitted(packet);
                }
                tx.clear();
            }
        }
    }
    let answered = answers as f64 / f64::from(PACKETS * ROUNDS);
    println!("{name:<28} {best:>7.1} ns, {answered:.2} answers");
}

fn main() {
    let own = Config::default().mac;
    measure("dropped at once", Mac([2, 0, 0, 0, 0, 77]), 80, SynCookies::WhenFull);
    measure("no listener", own, 81, SynCookies::WhenFull);
    measure("a cookie", own, 80, SynCookies::WhenFull);
    measure("an entry", own, 80, SynCookies::Off);
}
