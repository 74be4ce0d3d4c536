//! What comes beside the queue: which frames, each once, and to Linux as before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use millrace_frames::Arena;
use millrace_port::af_xdp::{Config, RedirectConfig, WithGroups};
use millrace_port::{Port, Wake, clock};

use crate::common::{Peer, chain_bytes};
use crate::kernel_peer::KernelPeer;
use crate::traffic::{arena, on_a_wire, receive};
use crate::{PEER, PORT};

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const ANOTHERS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 1, 2, 3];
const BROADCAST: [u8; 6] = [0xff; 6];

fn ether(to: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &[2, 0, 0, 0, 0, 9], &kind.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(64), 0);
    frame
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()
}

/// A UDP datagram, without checksums, which nobody here looks at.
fn udp(to: [u8; 6], destination: Ipv4Addr, port: u16, fragment: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1];
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet.extend(destination.octets());
    packet.extend([0, 9]);
    packet.extend(port.to_be_bytes());
    packet.resize(40, 0);
    ether(to, 0x0800, &packet)
}

fn udp_v6(to: [u8; 6], destination: Ipv6Addr) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 20, 17, 64];
    packet.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).octets());
    packet.extend(destination.octets());
    packet.resize(60, 0);
    ether(to, 0x86dd, &packet)
}

fn arp(to: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 9, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0];
    packet.extend(target.octets());
    ether(to, 0x0806, &packet)
}

/// What comes until nothing has come for a while.
fn received(port: &mut dyn Port, arena: &mut Arena) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut quiet = 0;
    while quiet < 50 {
        let count = receive(port, arena, |arena, frame| frames.push(chain_bytes(arena, frame)));
        quiet = if count == 0 { quiet + 1 } else { 0 };
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    frames
}

#[test]
fn each_frame_that_may_be_for_us_comes_once() {
    on_a_wire("each_frame_that_may_be_for_us_comes_once", 1, || {
        let mut arena = arena(1024, 2048);
        let redirect = RedirectConfig::addresses([IpAddr::V4(OURS)]);
        let config = Config { redirect, ..Config::default() };
        let mut port = WithGroups::open(PORT, 0, &config, None, &mut arena).unwrap();
        let mac = port.capabilities().mac.unwrap().0;
        let mut peer = KernelPeer::new(PEER);
        let six = |low| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, low);
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let frames = [
            (true, "to us", udp(mac, OURS, 7, 0)),
            (true, "to a group", udp(GROUP_MAC, GROUP, 7, 0)),
            (true, "of a datagram to a group, the rest", udp(GROUP_MAC, GROUP, 7, 0x0010)),
            (true, "to all", udp(BROADCAST, Ipv4Addr::BROADCAST, 7, 0)),
            (true, "to a group, IPv6", udp_v6([0x33, 0x33, 0, 0, 0, 1], all_nodes)),
            (true, "of a DHCP server to whom it gives an address", udp(mac, ANOTHERS, 68, 0)),
            (true, "ARP for us", arp(BROADCAST, OURS)),
            (true, "ARP for nobody", arp(mac, Ipv4Addr::UNSPECIFIED)),
            (false, "to Linux", udp(mac, ANOTHERS, 7, 0)),
            (false, "to Linux, IPv6", udp_v6(mac, six(3))),
            (false, "to Linux, what may look like a port", udp(mac, ANOTHERS, 68, 0x0010)),
            (false, "of another network", tagged(&udp(GROUP_MAC, GROUP, 7, 0))),
            (false, "of another protocol", ether(BROADCAST, 0x88cc, &[0; 50])),
        ];
        for (ours, what, frame) in &frames {
            peer.send(frame);
            let came = received(&mut port, &mut arena);
            let expected = if *ours { vec![frame.clone()] } else { vec![] };
            assert_eq!(came, expected, "{what}");
        }
        let statistics = port.statistics();
        assert_eq!(statistics.rx_packets, 8);
        let beside = statistics.details.iter().find(|(name, _)| *name == "group_packets");
        assert_eq!(beside, Some(&("group_packets", 6)));
        // Addresses come and go while it runs.
        let second = IpAddr::from(six(3));
        port.own_addresses(&[ANOTHERS.into(), second]).unwrap();
        for (ours, frame) in [
            (false, udp(mac, OURS, 7, 0)),
            (true, udp(mac, ANOTHERS, 7, 0)),
            (true, udp_v6(mac, six(3))),
        ] {
            peer.send(&frame);
            assert_eq!(received(&mut port, &mut arena).len(), usize::from(ours));
        }
        port.close(&mut arena);
        assert!(port.own_addresses(&[]).is_err());
        assert_eq!(arena.free(), arena.frames());
    });
}

#[test]
fn neither_keeps_the_other_waiting() {
    on_a_wire("neither_keeps_the_other_waiting", 1, || {
        let mut arena = arena(2048, 2048);
        let redirect = RedirectConfig::addresses([IpAddr::V4(OURS)]);
        let config = Config { redirect, ..Config::default() };
        let mut port = WithGroups::open(PORT, 0, &config, None, &mut arena).unwrap();
        let mac = port.capabilities().mac.unwrap().0;
        let mut peer = KernelPeer::new(PEER);
        for _ in 0..300 {
            peer.send(&udp(mac, OURS, 7, 0));
        }
        peer.send(&udp(GROUP_MAC, GROUP, 7, 0));
        std::thread::sleep(std::time::Duration::from_millis(20));
        // The first batch is full of the queue's; in the second the group's come first.
        let mut first = Vec::new();
        for _ in 0..2 {
            let mut kinds = Vec::new();
            receive(&mut port, &mut arena, |arena, frame| {
                kinds.push(chain_bytes(arena, frame)[0] & 1);
            });
            first.push(kinds[0]);
        }
        assert_eq!(first, [0, 1]);
        assert_eq!(received(&mut port, &mut arena).len(), 301 - 2 * millrace_frames::BURST);
        // Either wakes a sleeper.
        let bell = millrace_port::wait::Bell::new().unwrap();
        for frame in [udp(mac, OURS, 7, 0), udp(GROUP_MAC, GROUP, 7, 0)] {
            let now = clock::now();
            let deadline = Some(now + core::time::Duration::from_secs(20));
            std::thread::scope(|scope| {
                let peer = &mut peer;
                scope.spawn(move || {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    peer.send(&frame);
                });
                let woken = millrace_port::wait::sleep(&mut port, &bell, now, deadline).unwrap();
                assert_eq!(woken, Wake::Arrival);
            });
            assert_eq!(received(&mut port, &mut arena).len(), 1);
        }
        port.close(&mut arena);
        assert_eq!(arena.free(), arena.frames());
    });
}
