//! Measures the receive rings of `af_packet` on a veth pair, the kernel at the other end: how long
//! a lone request waits for its response, how fast the kernel's TCP pours into a minimal sink, and
//! what a flood of small packets loses. Needs root.
//!
//!     cargo run --release -p millrace-port --example af_packet_rates

#[path = "../tests/netns/mod.rs"]
mod netns;

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace_frames::{Arena, ArenaConfig, Frame, Hugepages, Owners, RxBatch, TxBatch};
use millrace_port::af_packet::{AfPacket, AfPacketConfig, Receive};
use millrace_port::wait::{self, Bell};
use millrace_port::{Port, Statistics, clock};

use netns::{OUR_ADDRESS, OURS, PEER, Wire, reply};

const SECONDS: u64 = 2;
const ROUNDS: usize = 3;

fn main() {
    for round in 1..=ROUNDS {
        for receive in [Receive::RingV2, Receive::RingV3] {
            for spin in [true, false] {
                let (p50, p99) = round_trips(receive, spin);
                let wait = if spin { "spin " } else { "sleep" };
                println!(
                    "{round} {receive:?} {wait} round trip: p50 {p50:6.1} us, p99 {p99:6.1} us"
                );
            }
        }
        for receive in [Receive::RingV2, Receive::RingV3] {
            println!("{round} {receive:?} bulk: {}", bulk(receive));
        }
        for receive in [Receive::RingV2, Receive::RingV3] {
            println!("{round} {receive:?} flood: {}", flood(receive));
        }
    }
}

/// Our side: a port and what it needs.
struct Side {
    port: AfPacket,
    arena: Arena,
    rx: RxBatch,
    tx: TxBatch,
}

impl Side {
    fn open(wire: &Wire, receive: Receive) -> Side {
        let config = AfPacketConfig { receive, ..AfPacketConfig::new(OURS) };
        let port = wire.ours.enter(|| AfPacket::open(&config)).unwrap();
        wire.peer.introduce(PEER, port.capabilities().mac.unwrap());
        let config = ArenaConfig { frames: 16_384, frame_size: 2048, hugepages: Hugepages::Prefer };
        let arena = Arena::new(config).unwrap();
        Side { port, arena, rx: RxBatch::new(), tx: TxBatch::new() }
    }

    /// One turn: receives, lets `each` look at every packet, sends what it queued.
    fn turn(&mut self, mut each: impl FnMut(&mut Arena, Frame, &mut TxBatch)) -> usize {
        let now = clock::now();
        let count = self.port.rx(now, &mut self.arena, &mut self.rx).unwrap();
        for &head in self.rx.iter() {
            each(&mut self.arena, head, &mut self.tx);
            self.arena.release_chain(head, Owners::RECEIVED);
        }
        self.rx.clear();
        if !self.tx.is_empty() {
            self.port.tx(now, &mut self.arena, &mut self.tx).unwrap();
        }
        count
    }

    fn close(mut self) -> Statistics {
        self.port.close(&mut self.arena);
        self.port.statistics()
    }
}

fn pin(core: usize) {
    // SAFETY: the set is a live, initialised cpu_set_t; core numbers are below its size.
    unsafe {
        let mut set: libc::cpu_set_t = core::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// Nanoseconds that this thread has run.
fn cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Microseconds, median and 99th percentile, from a blocking UDP socket of the kernel and back.
fn round_trips(receive: Receive, spin: bool) -> (f64, f64) {
    let wire = Wire::new().expect("root");
    let mut side = Side::open(&wire, receive);
    let socket = wire.peer.udp(7);
    let stop = Arc::new(AtomicBool::new(false));
    let client = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || client(&socket, &stop)
    });
    pin(1);
    let bell = Bell::new().unwrap();
    while !stop.load(Ordering::Relaxed) {
        let count = side.turn(|arena, head, tx| {
            let request = arena.bytes(head);
            if reply::is(reply::UDP, request) {
                let answer = reply::udp_answer(request, reply::udp_payload(request));
                reply::send(arena, tx, &answer, 0);
            }
        });
        if count == 0 && !spin {
            let now = clock::now();
            let deadline = now + Duration::from_millis(100);
            wait::sleep(&mut side.port, &bell, now, Some(deadline)).unwrap();
        }
    }
    let mut times = client.join().unwrap();
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    (at(0.5), at(0.99))
}

fn client(socket: &UdpSocket, stop: &AtomicBool) -> Vec<u64> {
    pin(0);
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut times, start) = (Vec::new(), Instant::now());
    let mut buffer = [0u8; 64];
    while start.elapsed().as_secs() < SECONDS {
        let sent = Instant::now();
        socket.send(&buffer).unwrap();
        if socket.recv(&mut buffer).is_ok() {
            times.push(sent.elapsed().as_nanos() as u64);
        }
    }
    stop.store(true, Ordering::Relaxed);
    times
}

/// The kernel's TCP sends as fast as it can; a sink that remembers what came early acknowledges.
/// On a veth pair that is often: the kernel sends from the core that the application runs on and
/// from the core on which our acknowledgement was processed, and either may be faster.
fn bulk(receive: Receive) -> String {
    let wire = Wire::new().expect("root");
    let mut side = Side::open(&wire, receive);
    let peer = Arc::new(wire);
    let stop = Arc::new(AtomicBool::new(false));
    let sender = std::thread::spawn({
        let (peer, stop) = (Arc::clone(&peer), Arc::clone(&stop));
        move || {
            pin(0);
            let mut stream = peer.peer.enter(|| TcpStream::connect((OUR_ADDRESS, 9))).unwrap();
            let (data, start) = (vec![0u8; 1 << 20], Instant::now());
            while start.elapsed().as_secs() < SECONDS {
                stream.write_all(&data).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        }
    });
    pin(1);
    let (mut next, mut bytes, mut early, mut packets) = (0u32, 0u64, 0u64, 0u64);
    let mut waiting: Vec<(u32, u32)> = Vec::new();
    let bell = Bell::new().unwrap();
    let (start, busy) = (Instant::now(), cpu_time());
    while !stop.load(Ordering::Relaxed) {
        let mut last = None;
        let count = side.turn(|arena, head, tx| {
            let packet = arena.bytes(head);
            if !reply::is(reply::TCP, packet) {
                return;
            }
            let header = packet[..packet.len().min(128)].to_vec();
            let (_, payload) = reply::tcp_payload(&header);
            let sequence = reply::long(&header, 38);
            if header[47] & reply::SYN != 0 {
                next = sequence.wrapping_add(1);
                let answer = reply::tcp_answer(&header, 0, next, reply::SYN | reply::ACK, &[]);
                reply::send(arena, tx, &answer, 0);
            } else if payload > 0 {
                packets += 1;
                waiting.push((sequence, sequence.wrapping_add(payload as u32)));
                early += u64::from(sequence != next);
                let before = next;
                while let Some(i) = waiting.iter().position(|&(from, _)| !after(from, next)) {
                    let (_, to) = waiting.swap_remove(i);
                    next = if after(to, next) { to } else { next };
                }
                bytes += u64::from(next.wrapping_sub(before));
                last = Some(header);
            }
        });
        if let Some(header) = last {
            let ack = reply::tcp_answer(&header, 1, next, reply::ACK, &[]);
            reply::send(&mut side.arena, &mut side.tx, &ack, 0);
            side.port.tx(clock::now(), &mut side.arena, &mut side.tx).unwrap();
        }
        if count == 0 {
            let now = clock::now();
            let deadline = now + Duration::from_millis(100);
            wait::sleep(&mut side.port, &bell, now, Some(deadline)).unwrap();
        }
    }
    let rate = bytes as f64 * 8.0 / start.elapsed().as_nanos() as f64;
    let busy = (cpu_time() - busy) as f64 / (bytes as f64 / 1e3);
    let drops = side.close().dropped();
    drop(sender);
    format!(
        "{rate:.1} Gbit/s, {busy:.0} ns of our thread a KB, {:.0} bytes a packet, {drops} dropped, {early} out of order",
        bytes as f64 / packets.max(1) as f64
    )
}

/// Whether `a` comes after `b` in sequence space.
fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// Bursts of 64-byte packets, as many as a sender on the other core makes.
fn flood(receive: Receive) -> String {
    let wire = Wire::new().expect("root");
    let mut side = Side::open(&wire, receive);
    let mut peer = wire.peer.enter(|| AfPacket::open(&AfPacketConfig::new(PEER))).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let sender = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            pin(0);
            let mut arena =
                Arena::new(ArenaConfig { frames: 128, ..ArenaConfig::default() }).unwrap();
            let mut frame = [0u8; 64];
            frame[..14].copy_from_slice(&[2, 0, 0, 0, 9, 9, 2, 0, 0, 0, 9, 8, 0x88, 0xb5]);
            let start = Instant::now();
            while start.elapsed().as_secs() < SECONDS {
                let mut batch = TxBatch::new();
                while reply::send(&mut arena, &mut batch, &frame, 0) {
                    let last = batch.len() - 1;
                    batch[last].checksum_start = 0;
                }
                while !batch.is_empty() {
                    peer.tx(clock::now(), &mut arena, &mut batch).unwrap();
                }
            }
            stop.store(true, Ordering::Relaxed);
            peer.statistics().tx_packets
        }
    });
    pin(1);
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        side.turn(|_, _, _| {});
    }
    let seconds = start.elapsed().as_secs_f64();
    let sent = sender.join().unwrap();
    let statistics = side.close();
    format!(
        "{:.2} M/s sent, {:.2} M/s received, {} dropped by the ring",
        sent as f64 / seconds / 1e6,
        statistics.rx_packets as f64 / seconds / 1e6,
        statistics.dropped()
    )
}
