//! Frames in numbers, and the kernel's own protocols as the peer.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::process::{Command, Stdio};

use millrace_bpf::{Mode, Redirector, attached};
use millrace_frames::{
    Arena, ArenaConfig, ChecksumState, Frame, Hugepages, Owners, RxBatch, TxBatch,
};
use millrace_port::af_xdp::{AfXdp, BusyPoll, Config, RedirectConfig, XdpMode, ZeroCopy};
use millrace_port::{Port, Statistics, clock};

use crate::common::{
    DESTINATION, Peer, TCP_HEADERS, TRANSPORT, checksum_is_unfinished, checksum_verifies, frame,
    is_ours, stage, tcp, tcp_payload,
};
use crate::kernel_peer::KernelPeer;
use crate::namespace::{Inside, Namespace, command, ip, veth_pair};
use crate::{PEER, PORT, usable};

const MANY: u32 = 10_000;
const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

pub fn arena(frames: u32, frame_size: u32) -> Arena {
    Arena::new(ArenaConfig { frames, frame_size, hugepages: Hugepages::Never }).unwrap()
}

/// Runs `body` in a fresh namespace with a veth pair, or says why not.
pub fn on_a_wire(test: &str, queues: u32, body: impl FnOnce()) {
    let inside = usable().and_then(|()| Namespace::new());
    match inside.map(|namespace| namespace.enter()) {
        Ok(inside) => {
            quiet_pair(queues);
            body();
            drop::<Inside>(inside);
        }
        // The harness captures what the macros print.
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "SKIP {test}: {why}");
        }
    }
}

/// Without IPv6 the kernel announces nothing on its own.
fn quiet_pair(queues: u32) {
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").ok();
    veth_pair(queues);
}

/// Receives once; hands each frame to `each`, then releases it.
pub fn receive(
    port: &mut dyn Port,
    arena: &mut Arena,
    mut each: impl FnMut(&mut Arena, Frame),
) -> usize {
    let mut batch = RxBatch::new();
    let count = port.rx(clock::now(), arena, &mut batch).unwrap();
    for &frame in batch.iter() {
        each(arena, frame);
        arena.release(frame, Owners::RECEIVED);
    }
    count
}

fn detail(statistics: &Statistics, name: &str) -> u64 {
    statistics.details.iter().find(|(detail, _)| *detail == name).unwrap().1
}

fn fact(port: &AfXdp, name: &str) -> String {
    let facts = &port.capabilities().facts;
    facts.iter().find(|(fact, _)| *fact == name).unwrap().1.clone()
}

#[test]
fn ten_thousand_frames_come_in_order() {
    on_a_wire("ten_thousand_frames_come_in_order", 1, || {
        for xdp in [XdpMode::Native, XdpMode::Generic] {
            let mut arena = arena(1024, 2048);
            let config = Config { xdp, ..Config::default() };
            let mut port = AfXdp::open(PORT, 0, &config, &mut arena).unwrap();
            let mut peer = KernelPeer::new(PEER);
            let mut next = 0;
            for number in 0..MANY {
                peer.send(&frame(DESTINATION, number, 300));
                while number + 1 - next >= 64 {
                    receive(&mut port, &mut arena, |arena, got| {
                        if is_ours(arena.bytes(got)) {
                            assert_eq!(arena.bytes(got), frame(DESTINATION, next, 300));
                            next += 1;
                        }
                    });
                }
            }
            while next < MANY {
                receive(&mut port, &mut arena, |arena, got| {
                    next += u32::from(is_ours(arena.bytes(got)));
                });
            }
            let statistics = port.statistics();
            assert_eq!(statistics.dropped(), 0, "{statistics:?}");
            assert_eq!(statistics.rx_packets, detail(&statistics, "xdp_redirected"));
            port.close(&mut arena);
            assert_eq!(arena.free(), arena.frames());
        }
    });
}

#[test]
fn what_a_slow_receiver_loses_is_counted() {
    on_a_wire("what_a_slow_receiver_loses_is_counted", 1, || {
        for (rx_ring, fill_ring, reason) in
            [(1024, 128, "rx_no_frame"), (128, 1024, "rx_ring_full")]
        {
            let mut arena = arena(4096, 2048);
            let config = Config { rx_ring, fill_ring, ..Config::default() };
            let mut port = AfXdp::open(PORT, 0, &config, &mut arena).unwrap();
            let mut peer = KernelPeer::new(PEER);
            for number in 0..MANY {
                peer.send(&frame(DESTINATION, number, 300));
            }
            // The program may still be at work on another core: until its count rests.
            let mut received = 0;
            loop {
                let before = detail(&port.statistics(), "xdp_redirected");
                received += receive(&mut port, &mut arena, |_, _| {}) as u64;
                std::thread::sleep(std::time::Duration::from_millis(1));
                let statistics = port.statistics();
                if detail(&statistics, "xdp_redirected") == before
                    && received + statistics.dropped() == before
                {
                    assert_eq!(statistics.rx_packets, received);
                    assert!(received >= 128);
                    let lost = statistics.drops.iter().find(|(name, _)| *name == reason).unwrap().1;
                    assert_eq!(lost, statistics.dropped(), "only {reason}: {statistics:?}");
                    assert!(lost > 0);
                    break;
                }
            }
            port.close(&mut arena);
            assert_eq!(arena.free(), arena.frames());
        }
    });
}

#[test]
fn ten_thousand_frames_go_out_in_order() {
    on_a_wire("ten_thousand_frames_go_out_in_order", 1, || {
        for xdp in [XdpMode::Native, XdpMode::Generic] {
            let mut arena = arena(4096, 2048);
            let config = Config { xdp, ..Config::default() };
            let mut port = AfXdp::open(PORT, 0, &config, &mut arena).unwrap();
            let mut peer = KernelPeer::new(PEER);
            let mut batch = TxBatch::new();
            let (mut number, mut taken) = (0, 0);
            while taken < MANY {
                while !batch.is_full() && number < MANY && arena.free() > 1024 {
                    let bytes = frame(DESTINATION, number, 200);
                    batch.push(stage(&mut arena, &bytes, usize::MAX)).unwrap();
                    number += 1;
                }
                taken += port.tx(clock::now(), &mut arena, &mut batch).unwrap() as u32;
            }
            let mut next = 0;
            while next < MANY {
                match peer.receive() {
                    Some(got) if is_ours(&got.bytes) => {
                        assert_eq!(got.bytes, frame(DESTINATION, next, 200));
                        next += 1;
                    }
                    Some(_) => {}
                    None => {
                        port.tx(clock::now(), &mut arena, &mut TxBatch::new()).unwrap();
                    }
                }
            }
            let statistics = port.statistics();
            assert_eq!(statistics.tx_packets, u64::from(MANY));
            assert_eq!(statistics.tx_bytes, u64::from(MANY) * 200);
            assert_eq!(statistics.dropped(), 0, "{statistics:?}");
            port.close(&mut arena);
            assert_eq!(arena.free(), arena.frames());
        }
    });
}

#[test]
fn frames_sent_twice_at_once_come_back_once() {
    on_a_wire("frames_sent_twice_at_once_come_back_once", 1, || {
        let mut arena = arena(1024, 2048);
        let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
        let mut peer = KernelPeer::new(PEER);
        let bytes = frame(DESTINATION, 7, 500);
        let packet = stage(&mut arena, &bytes, usize::MAX);
        let mut batch = TxBatch::new();
        for _ in 0..10 {
            batch.push(packet).unwrap();
        }
        while !batch.is_empty() {
            port.tx(clock::now(), &mut arena, &mut batch).unwrap();
        }
        let mut seen = 0;
        while seen < 10 {
            let got = peer.receive();
            seen += u32::from(got.is_some_and(|got| got.bytes == bytes));
            port.tx(clock::now(), &mut arena, &mut TxBatch::new()).unwrap();
        }
        port.close(&mut arena);
        assert_eq!(arena.free(), arena.frames());
    });
}

#[test]
fn what_the_driver_drops_is_counted_and_comes_back() {
    on_a_wire("what_the_driver_drops_is_counted_and_comes_back", 1, || {
        let mut arena = arena(1024, 2048);
        let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
        let send = |port: &mut AfXdp, arena: &mut Arena| {
            let mut batch = TxBatch::new();
            for number in 0..20 {
                let bytes = frame(DESTINATION, number, 100 + number as usize);
                batch.push(stage(arena, &bytes, usize::MAX)).unwrap();
            }
            while !batch.is_empty() {
                port.tx(clock::now(), arena, &mut batch).unwrap();
            }
        };
        // Without a carrier the kernel drops each packet and says so.
        ip(&format!("link set {PEER} down"));
        send(&mut port, &mut arena);
        let statistics = port.statistics();
        assert_eq!((statistics.tx_packets, statistics.tx_bytes), (0, 0));
        assert!(statistics.drops.contains(&("tx_refused", 20)), "{statistics:?}");

        ip(&format!("link set {PEER} up"));
        send(&mut port, &mut arena);
        port.close(&mut arena);
        assert_eq!(arena.free(), arena.frames());
        let statistics = port.statistics();
        assert_eq!((statistics.tx_packets, statistics.tx_bytes), (20, 2190));
        assert_eq!(statistics.dropped(), 20, "the counts outlive the port: {statistics:?}");
    });
}

#[test]
fn packets_that_contradict_themselves_are_refused() {
    on_a_wire("packets_that_contradict_themselves_are_refused", 1, || {
        let mut arena = arena(1024, 2048);
        let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
        let mut batch = TxBatch::new();
        let bytes = frame(DESTINATION, 7, 500);
        for change in 0..7 {
            let piece = if change < 5 { usize::MAX } else { 300 };
            let mut packet = stage(&mut arena, &bytes, piece);
            match change {
                0 => packet.total = 501,
                1 => (packet.total, packet.len) = (13, 13),
                2 => packet.offset = 2000,
                3 => packet.checksum_start = 499,
                4 => packet.frames = 0,
                5 => packet.total = 400,
                _ => packet.total = 600,
            }
            batch.push(packet).unwrap();
        }
        assert_eq!(port.tx(clock::now(), &mut arena, &mut batch).unwrap(), 7);
        let statistics = port.statistics();
        assert_eq!((statistics.tx_packets, statistics.dropped()), (0, 7), "{statistics:?}");
        port.close(&mut arena);
        assert_eq!(arena.free(), arena.frames());
    });
}

/// Answers ARP requests and ICMP echo requests in place, as a host would.
fn answer(bytes: &mut [u8], mac: [u8; 6]) -> bool {
    let from: [u8; 6] = bytes[6..12].try_into().unwrap();
    let is_arp = bytes[12..14] == [8, 6] && bytes[20..22] == [0, 1];
    let is_echo = bytes[12..14] == [8, 0] && bytes[23] == 1 && bytes[34] == 8;
    if is_arp {
        let (asker, asked): ([u8; 10], [u8; 4]) =
            (bytes[22..32].try_into().unwrap(), bytes[38..42].try_into().unwrap());
        bytes[20..22].copy_from_slice(&[0, 2]);
        bytes[22..28].copy_from_slice(&mac);
        bytes[28..32].copy_from_slice(&asked);
        bytes[32..42].copy_from_slice(&asker);
    } else if is_echo {
        let (source, destination): ([u8; 4], [u8; 4]) =
            (bytes[26..30].try_into().unwrap(), bytes[30..34].try_into().unwrap());
        bytes[26..30].copy_from_slice(&destination);
        bytes[30..34].copy_from_slice(&source);
        bytes[34] = 0;
        let sum = u32::from(u16::from_be_bytes([bytes[36], bytes[37]])) + 0x0800;
        let sum = (sum & 0xffff) + (sum >> 16);
        bytes[36..38].copy_from_slice(&(sum as u16).to_be_bytes());
    }
    bytes[0..6].copy_from_slice(&from);
    bytes[6..12].copy_from_slice(&mac);
    is_arp || is_echo
}

/// Receives, answers, transmits: one turn.
fn serve(port: &mut AfXdp, arena: &mut Arena, out: &mut TxBatch) {
    let mac = port.capabilities().mac.unwrap().0;
    let mut batch = RxBatch::new();
    port.rx(clock::now(), arena, &mut batch).unwrap();
    for &frame in batch.iter() {
        if out.is_full() || !answer(arena.bytes_mut(frame), mac) {
            arena.release(frame, Owners::RECEIVED);
            continue;
        }
        arena.pass(frame, Owners::RECEIVED, Owners::TRANSMIT);
        let meta = arena.meta(frame);
        let (offset, len, total) = (meta.offset, meta.len, meta.total);
        let packet = millrace_frames::Transmit {
            head: frame,
            total,
            offset,
            len,
            frames: 1,
            ..millrace_frames::Transmit::default()
        };
        out.push(packet).unwrap();
    }
    port.tx(clock::now(), arena, out).unwrap();
}

/// Pings an address that only the port answers for, from a namespace of the kernel's own.
fn ping(config: &Config, facts: &[(&str, &str)]) {
    let far = Namespace::new().unwrap();
    ip(&format!("link set {PEER} netns {}", far.path()));
    far.run(|| {
        ip(&format!("addr add 192.0.2.1/24 dev {PEER}"));
        ip(&format!("link set {PEER} up"));
    });
    let mut arena = arena(1024, 2048);
    let mut port = AfXdp::open(PORT, 0, config, &mut arena).unwrap();
    for (name, value) in facts {
        assert!(fact(&port, name).starts_with(value), "{name}: {}", fact(&port, name));
    }
    let mut ping = far.run(|| {
        let arguments = ["-c", "20", "-i", "0.01", "-s", "1000", "-w", "20", "192.0.2.2"];
        Command::new("ping").args(arguments).stdout(Stdio::piped()).spawn().expect("ping")
    });
    let mut out = TxBatch::new();
    let status = loop {
        serve(&mut port, &mut arena, &mut out);
        if let Some(status) = ping.try_wait().unwrap() {
            break status;
        }
    };
    assert!(status.success(), "ping: {status}");
    let statistics = port.statistics();
    assert!(statistics.rx_packets >= 21 && statistics.tx_packets >= 21, "{statistics:?}");
    port.close(&mut arena);
    assert_eq!(arena.free(), arena.frames());
}

#[test]
fn the_kernel_pings_us_in_native_mode() {
    on_a_wire("the_kernel_pings_us_in_native_mode", 1, || {
        let config =
            Config { redirect: RedirectConfig::addresses([IpAddr::V4(OURS)]), ..Config::default() };
        ping(&config, &[("mode", "native"), ("zero-copy", "no, the driver (veth)")]);
    });
}

#[test]
fn the_kernel_pings_us_in_generic_mode() {
    on_a_wire("the_kernel_pings_us_in_generic_mode", 1, || {
        let config = Config { xdp: XdpMode::Generic, ..Config::default() };
        ping(&config, &[("mode", "generic"), ("zero-copy", "no, generic")]);
    });
}

#[test]
fn the_kernel_pings_us_while_we_poll_busily() {
    on_a_wire("the_kernel_pings_us_while_we_poll_busily", 1, || {
        let busy_poll = Some(BusyPoll { microseconds: 20, budget: 64 });
        let config = Config { busy_poll, zero_copy: ZeroCopy::Never, ..Config::default() };
        ping(&config, &[("busy-poll", "up to 20 us"), ("zero-copy", "no, as asked")]);
    });
}

#[test]
fn what_is_not_ours_goes_to_linux() {
    on_a_wire("what_is_not_ours_goes_to_linux", 1, || {
        ip(&format!("addr add 192.0.2.3/24 dev {PORT}"));
        let far = Namespace::new().unwrap();
        ip(&format!("link set {PEER} netns {}", far.path()));
        far.run(|| {
            ip(&format!("addr add 192.0.2.1/24 dev {PEER}"));
            ip(&format!("link set {PEER} up"));
        });
        let mut arena = arena(1024, 2048);
        let config =
            Config { redirect: RedirectConfig::addresses([IpAddr::V4(OURS)]), ..Config::default() };
        let mut port = AfXdp::open(PORT, 0, &config, &mut arena).unwrap();
        let pinged = far.run(|| command("ping", "-c 3 -i 0.01 -w 20 192.0.2.3"));
        assert!(pinged.status.success(), "Linux answers for its own address");
        assert_eq!(receive(&mut port, &mut arena, |_, _| {}), 0);
        let counters = port.steering().unwrap().counters().unwrap();
        assert!(counters.redirected == 0 && counters.passed >= 4, "{counters:?}");

        // Taken over while it runs: now the port has it, and Linux is silent.
        port.steering().unwrap().add_address("192.0.2.3".parse().unwrap()).unwrap();
        let pinged = far.run(|| command("ping", "-c 1 -w 1 192.0.2.3"));
        assert!(!pinged.status.success(), "nobody answers");
        assert!(receive(&mut port, &mut arena, |_, _| {}) > 0);
        port.close(&mut arena);
        let pinged = far.run(|| command("ping", "-c 3 -i 0.01 -w 20 192.0.2.3"));
        assert!(pinged.status.success(), "Linux has its address back");
    });
}

#[test]
fn datagrams_of_the_kernel_have_unfinished_checksums() {
    on_a_wire("datagrams_of_the_kernel_have_unfinished_checksums", 1, || {
        let far = Namespace::new().unwrap();
        ip(&format!("link set {PEER} netns {}", far.path()));
        let mut arena = arena(1024, 2048);
        let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
        let mac = port.capabilities().mac.unwrap();
        let socket = far.run(|| {
            ip(&format!("addr add 192.0.2.1/24 dev {PEER}"));
            ip(&format!("link set {PEER} up"));
            ip(&format!("neigh add 192.0.2.2 lladdr {mac} dev {PEER}"));
            UdpSocket::bind("192.0.2.1:4000").unwrap()
        });
        for number in 0..100u8 {
            socket.send_to(&[number; 700], (OURS, 5000)).unwrap();
        }
        let mut next = 0;
        while next < 100 {
            receive(&mut port, &mut arena, |arena, got| {
                let bytes = arena.bytes(got);
                if bytes[12..14] != [8, 0] || bytes[23] != 17 {
                    return;
                }
                assert_eq!(bytes[42..], [next as u8; 700]);
                assert_eq!(arena.meta(got).checksum, ChecksumState::MaybeUnfinished);
                assert!(checksum_is_unfinished(bytes) || checksum_verifies(bytes));
                next += 1;
            });
        }
        port.close(&mut arena);
        assert_eq!(arena.free(), arena.frames());
    });
}

#[test]
fn super_segments_of_the_kernel_come_in_pieces() {
    on_a_wire("super_segments_of_the_kernel_come_in_pieces", 1, || {
        let mut arena = arena(1024, 2048);
        let config = Config { xdp: XdpMode::Native, ..Config::default() };
        let mut port = AfXdp::open(PORT, 0, &config, &mut arena).unwrap();
        let peer = KernelPeer::new(PEER);
        for len in [1461, 14_600, 64_000] {
            let bytes = tcp(port.capabilities().mac.unwrap().0, len);
            peer.send_with_header(&bytes, 1460, TRANSPORT as u16, 16);
            let mut payload = Vec::new();
            while payload.len() < len {
                receive(&mut port, &mut arena, |arena, got| {
                    let bytes = arena.bytes(got);
                    if is_ours(bytes) {
                        assert!(bytes.len() <= 1514);
                        assert!(checksum_verifies(bytes) || checksum_is_unfinished(bytes));
                        payload.extend_from_slice(tcp_payload(bytes));
                    }
                });
            }
            assert!(payload == bytes[TCP_HEADERS..], "all bytes, in order");
        }
        port.close(&mut arena);
    });
}

#[test]
fn super_segments_in_generic_mode_are_counted_as_too_long() {
    on_a_wire("super_segments_in_generic_mode_are_counted_as_too_long", 1, || {
        let mut arena = arena(1024, 2048);
        let config = Config { xdp: XdpMode::Generic, ..Config::default() };
        let mut port = AfXdp::open(PORT, 0, &config, &mut arena).unwrap();
        let peer = KernelPeer::new(PEER);
        let bytes = tcp(port.capabilities().mac.unwrap().0, 14_600);
        peer.send_with_header(&bytes, 1460, TRANSPORT as u16, 16);
        while port.statistics().dropped() == 0 {
            receive(&mut port, &mut arena, |_, _| {});
        }
        let statistics = port.statistics();
        assert!(statistics.drops.contains(&("rx_too_long", 1)), "{statistics:?}");
        port.close(&mut arena);
    });
}

#[test]
fn each_queue_has_its_port_and_all_frames_come() {
    on_a_wire("each_queue_has_its_port_and_all_frames_come", 2, || {
        let (mut first, mut second) = (arena(1024, 2048), arena(1024, 4096));
        let config = Config { xdp: XdpMode::Native, ..Config::default() };
        let mut ports =
            AfXdp::open_queues(PORT, 0, &config, &mut [&mut first, &mut second]).unwrap();
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[1].capabilities().queue, 1);
        assert!(fact(&ports[0], "queues").starts_with('2'));
        let mut peer = KernelPeer::new(PEER);
        let mut seen = [0u32; 2];
        for number in 0..MANY {
            // The peer's kernel spreads flows over its queues; these are many flows.
            peer.send(&flow(number as u16));
            if number % 32 == 31 {
                while seen.iter().sum::<u32>() <= number {
                    for (index, arena) in [&mut first, &mut second].into_iter().enumerate() {
                        seen[index] += receive(&mut ports[index], arena, |_, _| {}) as u32;
                    }
                }
            }
        }
        while seen.iter().sum::<u32>() < MANY {
            seen[0] += receive(&mut ports[0], &mut first, |_, _| {}) as u32;
            seen[1] += receive(&mut ports[1], &mut second, |_, _| {}) as u32;
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");

        // One port goes, the other keeps the program and its frames.
        ports[0].close(&mut first);
        assert_eq!(first.free(), first.frames());
        let before = ports[1].statistics().rx_packets;
        for number in 0..256 {
            peer.send(&flow(number));
        }
        while ports[1].statistics().rx_packets == before {
            receive(&mut ports[1], &mut second, |_, _| {});
        }
        ports[1].close(&mut second);
        assert_eq!(second.free(), second.frames());
    });
}

/// A UDP datagram of one of many flows.
fn flow(port: u16) -> Vec<u8> {
    let mut bytes = DESTINATION.to_vec();
    bytes.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    bytes.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 80, 0, 26, 0, 0]);
    bytes.extend([0; 18]);
    bytes
}

#[test]
fn huge_pages_and_large_frames_serve_as_well() {
    on_a_wire("huge_pages_and_large_frames_serve_as_well", 1, || {
        // 3498 is the most that native XDP on veth takes with pages of 4096 bytes.
        for end in [PORT, PEER] {
            ip(&format!("link set {end} mtu 3400"));
        }
        let config = ArenaConfig { frames: 1024, frame_size: 4096, hugepages: Hugepages::Prefer };
        let mut arena = Arena::new(config).unwrap();
        let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
        let huge = if arena.mapping().hugepages() { "yes" } else { "no" };
        assert_eq!(fact(&port, "huge-pages"), huge);
        let mut peer = KernelPeer::new(PEER);
        let bytes = frame(DESTINATION, 1, 3414);
        peer.send(&bytes);
        let mut seen = false;
        while !seen {
            receive(&mut port, &mut arena, |arena, got| seen |= arena.bytes(got) == bytes);
        }
        let mut batch = TxBatch::new();
        batch.push(stage(&mut arena, &bytes, usize::MAX)).unwrap();
        while !batch.is_empty() {
            port.tx(clock::now(), &mut arena, &mut batch).unwrap();
        }
        while peer.receive().is_none_or(|got| got.bytes != bytes) {
            port.tx(clock::now(), &mut arena, &mut TxBatch::new()).unwrap();
        }
        port.close(&mut arena);
        assert_eq!(arena.free(), arena.frames());
    });
}

#[test]
fn without_a_program_of_its_own_it_gets_what_another_redirects() {
    on_a_wire("without_a_program_of_its_own_it_gets_what_another_redirects", 1, || {
        let mut arena = arena(256, 2048);
        let config = Config { attach: false, ..Config::default() };
        let mut port = AfXdp::open(PORT, 0, &config, &mut arena).unwrap();
        assert_eq!(fact(&port, "steering"), "what another program on the interface redirects here");
        assert_eq!(attached(interface_index(PORT)).unwrap(), []);
        let other = Redirector::load(&RedirectConfig::everything(), 1).unwrap();
        // SAFETY: the port keeps its socket open for longer than this borrow.
        let socket = unsafe { BorrowedFd::borrow_raw(port.fd().unwrap()) };
        other.register(0, socket).unwrap();
        let link = other.attach(interface_index(PORT), Mode::Native).unwrap();
        let mut peer = KernelPeer::new(PEER);
        for number in 0..20 {
            peer.send(&frame(DESTINATION, number, 300));
        }
        let mut next = 0;
        while next < 20 {
            receive(&mut port, &mut arena, |arena, got| {
                next += u32::from(is_ours(arena.bytes(got)));
            });
        }
        // The other program goes before the socket that it redirects to.
        drop(link);
        port.close(&mut arena);
        assert_eq!(arena.free(), arena.frames());
    });
}

fn interface_index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the name ends with a zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}
