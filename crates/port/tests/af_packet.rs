//! `af_packet` against the kernel at the other end of a veth pair.

mod kernel;
mod netns;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use millrace_frames::{ChecksumState, TxBatch};
use millrace_port::af_packet::{AfPacket, AfPacketConfig, Fanout, Receive};
use millrace_port::{Port, clock};
use millrace_wire::mac::Mac;

use kernel::Side;
use netns::{OUR_ADDRESS, OURS, PEER, PEER_ADDRESS, Wire, reply};

const HANG: Duration = Duration::from_secs(20);

/// Runs a test with each receive ring.
fn each_ring(test: &str, check: impl Fn(&Wire, &mut Side<AfPacket>)) {
    for receive in [Receive::RingV2, Receive::RingV3] {
        let Some(wire) = Wire::or_skip(test) else { return };
        let config = AfPacketConfig { receive, ..AfPacketConfig::new(OURS) };
        let mut side = open(&wire, &config);
        check(&wire, &mut side);
        side.close();
    }
}

fn open(wire: &Wire, config: &AfPacketConfig) -> Side<AfPacket> {
    let port = wire.ours.enter(|| AfPacket::open(config)).unwrap();
    wire.peer.introduce(PEER, port.capabilities().mac.unwrap());
    Side::new(port)
}

#[test]
fn udp_passes_both_ways() {
    each_ring("udp_passes_both_ways", |wire, side| {
        kernel::udp_passes_both_ways(side, &wire.peer);
    });
}

#[test]
fn the_kernel_answers_a_ping() {
    each_ring("the_kernel_answers_a_ping", |wire, side| {
        wire.peer.introduce(PEER, side.port.capabilities().mac.unwrap());
        kernel::the_kernel_answers_a_ping(side, wire.peer.mac(PEER).0);
    });
}

#[test]
fn udp_super_segments_pass_both_ways() {
    each_ring("udp_super_segments_pass_both_ways", |wire, side| {
        kernel::udp_super_segments_pass_both_ways(side, &wire.peer);
    });
}

#[test]
fn tcp_super_segments_pass_both_ways() {
    each_ring("tcp_super_segments_pass_both_ways", |wire, side| {
        kernel::tcp_super_segments_pass_both_ways(side, &wire.peer);
    });
}

#[test]
fn super_segments_that_the_driver_does_not_cut_are_cut_by_the_kernel() {
    let test = "super_segments_that_the_driver_does_not_cut_are_cut_by_the_kernel";
    let Some(wire) = Wire::or_skip(test) else { return };
    wire.ours.run("ethtool", &format!("-K {OURS} tx off tso off gso off"));
    let mut side = open(&wire, &AfPacketConfig::new(OURS));
    kernel::tcp_super_segments_pass_both_ways(&mut side, &wire.peer);
    side.close();
}

#[test]
fn an_interface_that_goes_down_is_an_error_until_it_is_up_again() {
    each_ring("an_interface_that_goes_down_is_an_error_until_it_is_up_again", |wire, side| {
        wire.ours.ip(&format!("link set {OURS} down"));
        let start = Instant::now();
        let error = loop {
            match side.rx() {
                Ok(_) => assert!(start.elapsed() < HANG, "the port has not noticed"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::NetworkDown);
        assert!(error.to_string().contains(&format!("ip link set {OURS} up")), "{error}");
        let mut batch = TxBatch::new();
        let mut frame = [0x02; 60];
        frame[12] = 0x88;
        assert!(reply::send(&mut side.arena, &mut batch, &frame, 0));
        batch[0].checksum_start = 0;
        let error = side.port.tx(clock::now(), &mut side.arena, &mut batch).unwrap_err();
        assert_eq!((error.kind(), batch.len()), (ErrorKind::NetworkDown, 1));

        wire.ours.ip(&format!("link set {OURS} up"));
        while side.rx().is_err() {
            assert!(start.elapsed() < HANG, "the port does not come back");
        }
        let taken = side.port.tx(clock::now(), &mut side.arena, &mut batch).unwrap();
        assert_eq!((taken, batch.len()), (1, 0));
        kernel::udp_passes_both_ways(side, &wire.peer);
    });
}

#[test]
fn an_interface_that_is_deleted_is_an_error() {
    each_ring("an_interface_that_is_deleted_is_an_error", |wire, side| {
        wire.ours.ip(&format!("link del {OURS}"));
        let start = Instant::now();
        let error = loop {
            match side.rx() {
                Ok(_) => assert!(start.elapsed() < HANG, "the port has not noticed"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
        assert!(error.to_string().contains("gone"), "{error}");
        let mut batch = TxBatch::new();
        assert!(reply::send(&mut side.arena, &mut batch, &[2; 60], 0));
        batch[0].checksum_start = 0;
        let error = side.port.tx(clock::now(), &mut side.arena, &mut batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
        side.arena.transmitted(&batch[0]);
    });
}

#[test]
fn what_cannot_be_opened_is_told() {
    let Some(wire) = Wire::or_skip("what_cannot_be_opened_is_told") else { return };
    let error = |config: AfPacketConfig| {
        let error = wire.ours.enter(|| AfPacket::open(&config)).unwrap_err();
        (error.kind(), error.to_string())
    };
    let plain = AfPacketConfig::new(OURS);
    let (kind, text) = error(AfPacketConfig::new("absent0"));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("absent0") && text.contains(OURS), "{text}");
    let (kind, _) = error(AfPacketConfig { queue: 2, queues: 2, ..plain.clone() });
    assert_eq!(kind, ErrorKind::InvalidInput);
    let (kind, _) = error(AfPacketConfig { mac: Some(Mac::BROADCAST), ..plain.clone() });
    assert_eq!(kind, ErrorKind::InvalidInput);
    let bad = vec![libc::sock_filter { code: 0xffff, jt: 0, jf: 0, k: 0 }];
    let (kind, text) = error(AfPacketConfig { filter: bad, ..plain.clone() });
    assert_eq!(kind, ErrorKind::InvalidInput);
    assert!(text.contains("filter"), "{text}");
    for (receive, most) in [(Receive::RingV2, 1 << 30), (Receive::RingV3, 2 << 30)] {
        let ring_bytes = most + 1;
        let (kind, text) = error(AfPacketConfig { receive, ring_bytes, ..plain.clone() });
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert!(text.contains(&format!("at most {most} bytes, not {ring_bytes}")), "{text}");
    }
    let refused = || kernel::without_capabilities(|| AfPacket::open(&plain)).unwrap_err();
    let refused = wire.ours.enter(refused);
    let text = refused.to_string();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{text}");
    assert!(text.contains("CAP_NET_RAW"), "{text}");
    wire.ours.ip(&format!("link set {OURS} down"));
    let (kind, text) = error(plain);
    assert_eq!(kind, ErrorKind::NetworkDown);
    assert!(text.contains("ip link set"), "{text}");
}

#[test]
fn a_filter_keeps_packets_out() {
    each_ring("a_filter_keeps_packets_out", |wire, side| {
        let (udp, marker) = (wire.peer.udp(4100), wire.peer.udp(4101));
        // ldh [36] (the destination port, IPv4 without options); only 4101 is accepted.
        let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        side.port
            .set_filter(&[
                instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 36),
                instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 4101),
                instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
                instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
            ])
            .unwrap();
        side.rx().unwrap();
        udp.send(b"unwanted").unwrap();
        marker.send(b"wanted").unwrap();
        assert_eq!(reply::udp_payload(&side.expect_udp().bytes), b"wanted");
        side.port.set_filter(&[]).unwrap();
        udp.send(b"welcome").unwrap();
        assert_eq!(reply::udp_payload(&side.expect_udp().bytes), b"welcome");
    });
}

#[test]
fn a_vlan_tag_is_put_back() {
    each_ring("a_vlan_tag_is_put_back", |wire, side| {
        let peer = AfPacketConfig::new(PEER);
        let mut sender = Side::new(wire.peer.enter(|| AfPacket::open(&peer)).unwrap());
        for (number, len) in [10, 1472, 2000, 20_000].into_iter().enumerate() {
            // The receiving kernel takes the tag out of the packet. Longer than the MTU: a
            // super-segment, whose bytes do not go through the slots of a V2 ring.
            let data = vec![len as u8; len];
            let mut bytes = reply::udp_answer(&strangers_request(), &data);
            bytes.splice(12..12, [0x81, 0, 0x60, 5 + number as u8]);
            let gso_size = if len > 1472 { 1000 } else { 0 };
            let mut batch = TxBatch::new();
            assert!(reply::send(&mut sender.arena, &mut batch, &bytes, gso_size));
            batch[0].checksum_start += 4;
            batch[0].checksum_offset = 6;
            sender.transmit(&mut batch);
            let packet = side.expect(|packet| packet.bytes[..6] == bytes[..6]);
            assert_eq!(packet.bytes, bytes);
            assert_eq!((packet.checksum, packet.gso_size), (ChecksumState::Unfinished, gso_size));
        }
        sender.close();
    });
}

/// A datagram between stations that neither kernel is, to be answered.
fn strangers_request() -> Vec<u8> {
    let mut request = vec![2u8; reply::TRANSPORT + 8];
    request[12..14].copy_from_slice(&[8, 0]);
    request[14] = 0x45;
    request[23] = reply::UDP;
    request[26..30].copy_from_slice(&OUR_ADDRESS.octets());
    request[30..34].copy_from_slice(&PEER_ADDRESS.octets());
    request
}

#[test]
fn our_own_packets_do_not_come_back() {
    each_ring("our_own_packets_do_not_come_back", |wire, side| {
        let socket = wire.peer.udp(4300);
        for _ in 0..50 {
            let mut frame = [3; 60];
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            side.send_finished(&frame);
        }
        socket.send(b"end").unwrap();
        let packet = side.expect(|packet| {
            assert_ne!(packet.bytes[12..14], [0x88, 0xb5], "our own packet");
            reply::is(reply::UDP, &packet.bytes)
        });
        assert_eq!(reply::udp_payload(&packet.bytes), b"end");
    });
}

#[test]
fn another_address_and_promiscuity_are_asked_of_the_interface() {
    let test = "another_address_and_promiscuity_are_asked_of_the_interface";
    let Some(wire) = Wire::or_skip(test) else { return };
    // A veth has no filter for addresses: that there are any makes it promiscuous once.
    // A program that another test is just starting may still have a closed socket for a moment.
    let promiscuity = |count| {
        let (wanted, start) = (format!("promiscuity {count} "), Instant::now());
        loop {
            let details = wire.ours.run("ip", &format!("-d link show {OURS}"));
            if details.contains(&wanted) {
                break;
            }
            assert!(start.elapsed() < HANG, "not {wanted}: {details}");
        }
    };
    let mac = Mac([2, 0, 0, 0, 0x77, 1]);
    let config = AfPacketConfig { mac: Some(mac), ..AfPacketConfig::new(OURS) };
    let mut side = open(&wire, &config);
    assert_eq!(side.port.capabilities().mac, Some(mac));
    promiscuity(1);
    kernel::udp_passes_both_ways(&mut side, &wire.peer);
    let second = open(&wire, &AfPacketConfig { promiscuous: true, ..config });
    promiscuity(2);
    side.close();
    second.close();
    promiscuity(0);
}

#[test]
fn a_fanout_group_gives_each_packet_to_one_queue() {
    let Some(wire) = Wire::or_skip("a_fanout_group_gives_each_packet_to_one_queue") else {
        return;
    };
    let config = |queue| AfPacketConfig {
        queue,
        queues: 2,
        fanout_group: Some(77),
        ..AfPacketConfig::new(OURS)
    };
    let mut sides = [open(&wire, &config(0)), open(&wire, &config(1))];
    let other = AfPacketConfig { fanout: Fanout::Cpu, ..config(1) };
    let error = wire.ours.enter(|| AfPacket::open(&other)).unwrap_err();
    assert!(error.to_string().contains("group 77"), "{error}");

    const FLOWS: u16 = 64;
    for flow in 0..FLOWS {
        wire.peer.udp(5000 + flow).send(&[1, 2, 3]).unwrap();
    }
    let (mut seen, start) = ([0u32; FLOWS as usize], Instant::now());
    let mut counts = [0; 2];
    while counts[0] + counts[1] < usize::from(FLOWS) {
        for (side, count) in sides.iter_mut().zip(&mut counts) {
            for packet in side.rx().unwrap() {
                if reply::is(reply::UDP, &packet.bytes) {
                    seen[usize::from(reply::word(&packet.bytes, 36) - 5000)] += 1;
                    *count += 1;
                }
            }
        }
        assert!(start.elapsed() < HANG, "{seen:?}");
    }
    assert_eq!(seen, [1; FLOWS as usize]);
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    sides.into_iter().for_each(Side::close);
}

#[test]
fn packets_received_and_dropped_are_all_that_were_sent() {
    let test = "packets_received_and_dropped_are_all_that_were_sent";
    for receive in [Receive::RingV2, Receive::RingV3] {
        let Some(wire) = Wire::or_skip(test) else { return };
        // The smallest rings, so that a burst fills them.
        let config = AfPacketConfig {
            receive,
            ring_bytes: 64 << 10,
            buffer_bytes: 64 << 10,
            filter: only_experimental(),
            ..AfPacketConfig::new(OURS)
        };
        let mut side = open(&wire, &config);
        let peer = AfPacketConfig::new(PEER);
        let mut sender = Side::new(wire.peer.enter(|| AfPacket::open(&peer)).unwrap());
        const SENT: usize = 10_000;
        let mut received = 0;
        for round in 0..SENT {
            let mut frame = vec![4; if round % 3 == 0 { 1514 } else { 60 }];
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            sender.send_finished(&frame);
            if round % 500 == 0 {
                received += side.rx().unwrap().len();
            }
        }
        let start = Instant::now();
        while received + (side.dropped("rx_ring_full") as usize) < SENT {
            received += side.rx().unwrap().len();
            assert!(start.elapsed() < HANG, "{received} and {:?}", side.port.statistics());
        }
        let statistics = side.port.statistics();
        assert_eq!(statistics.rx_packets as usize, received);
        assert!(side.dropped("rx_ring_full") > 0, "the ring was never full: {statistics:?}");
        assert_eq!(statistics.rx_packets + statistics.dropped(), SENT as u64);
        sender.close();
        side.close();
    }
}

/// Accepts EtherType 0x88b5 only.
fn only_experimental() -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    vec![
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 12),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 0x88b5),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

#[test]
fn long_packets_that_find_no_room_are_counted() {
    let Some(wire) = Wire::or_skip("long_packets_that_find_no_room_are_counted") else { return };
    let config = AfPacketConfig {
        ring_bytes: 64 << 10,
        buffer_bytes: 128 << 10,
        filter: only_udp(),
        ..AfPacketConfig::new(OURS)
    };
    let mut side = open(&wire, &config);
    let peer = AfPacketConfig::new(PEER);
    let mut sender = Side::new(wire.peer.enter(|| AfPacket::open(&peer)).unwrap());
    let packet = reply::udp_answer(&strangers_request(), &vec![9; 40_000]);
    const SENT: usize = 20;
    for _ in 0..SENT {
        sender.send(&packet, 1000);
    }
    let (mut received, start) = (0, Instant::now());
    while received + (side.dropped("rx_ring_full") as usize) < SENT {
        for got in side.rx().unwrap() {
            assert_eq!(got.bytes.len(), packet.len());
            assert_eq!(got.bytes[42..], packet[42..]);
            received += 1;
        }
        assert!(start.elapsed() < HANG, "{received} and {:?}", side.port.statistics());
    }
    assert!(received > 0 && received < SENT, "{received}");
    sender.close();
    side.close();
}

/// Accepts IPv4 with UDP only.
fn only_udp() -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    vec![
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 23),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from(reply::UDP)),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}

#[test]
fn what_the_kernel_has_no_room_for_stays_in_the_batch() {
    let test = "what_the_kernel_has_no_room_for_stays_in_the_batch";
    let Some(wire) = Wire::or_skip(test) else { return };
    // A queueing discipline that keeps packets, and a send buffer that they fill.
    let slow = format!("qdisc add dev {OURS} root tbf rate 8kbit burst 2000 limit 1000000");
    let arguments: Vec<&str> = slow.split(' ').collect();
    let status = wire.ours.enter(|| std::process::Command::new("tc").args(arguments).status());
    if !status.is_ok_and(|status| status.success()) {
        println!("SKIP {test}: no tc(8), or a kernel without tbf");
        return;
    }
    let config =
        AfPacketConfig { qdisc_bypass: false, buffer_bytes: 16 << 10, ..AfPacketConfig::new(OURS) };
    let mut side = open(&wire, &config);
    let mut batch = TxBatch::new();
    let mut frame = [6; 1000];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    while reply::send(&mut side.arena, &mut batch, &frame, 0) {
        let last = batch.len() - 1;
        batch[last].checksum_start = 0;
    }
    let count = batch.len();
    let taken = side.port.tx(clock::now(), &mut side.arena, &mut batch).unwrap();
    assert!(taken > 0 && taken < count, "{taken}");
    assert_eq!(batch.len(), count - taken);
    assert_eq!(side.port.statistics().tx_packets as usize, taken);
    assert_eq!(side.port.statistics().dropped(), 0);
    for packet in batch.iter() {
        side.arena.transmitted(packet);
    }
    side.close();
}
