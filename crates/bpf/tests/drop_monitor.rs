//! Drops that are caused on purpose are counted at their place, and their frames are kept.

mod support;

use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;

use millrace_bpf::drop_monitor::{DropConfig, DropMonitor, reasons};

fn every() -> DropConfig {
    DropConfig { every_frame: true, ..DropConfig::default() }
}

#[test]
fn a_datagram_that_nobody_takes_is_counted_and_kept() {
    support::in_namespace("a_datagram_that_nobody_takes_is_counted_and_kept", || {
        support::loopback_up();
        let wanted = reasons().unwrap();
        let no_socket = wanted.iter().find(|(_, name)| name == "NO_SOCKET").unwrap().0 as u32;
        let mut monitor = DropMonitor::open(&every()).unwrap();
        monitor.keep_one_of(1).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            // The answer to the one before is an error of this one.
            let _ = socket.send_to(b"hello nobody", "127.0.0.1:9");
        }
        // The monitor sees the whole machine, and other tests drop at the same time.
        let namespace = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino() as u32;
        let ours = |count: &&millrace_bpf::drop_monitor::Count| {
            let place = count.place;
            (place.reason, place.namespace) == (no_socket, namespace)
                && count.interface == "lo"
                && count.packets >= 50
        };
        let counts = monitor.counts().unwrap();
        let found = counts.iter().find(ours).unwrap_or_else(|| panic!("{counts:?}"));
        assert_eq!(found.place.protocol, 0x0800);
        let place = found.place;
        let mut kept = 0;
        monitor.frames(10_000, |dropped| {
            if dropped.place == place {
                kept += 1;
                assert!(dropped.ethernet);
                assert_eq!((dropped.network, dropped.original), (14, 14 + 20 + 8 + 12));
                assert!(dropped.bytes.ends_with(b"hello nobody"));
            }
        });
        assert!(kept >= 50, "{kept}");
        assert_eq!(monitor.uncounted().unwrap(), 0);
    });
}

#[test]
fn sampling_keeps_the_first_and_then_few() {
    support::in_namespace("sampling_keeps_the_first_and_then_few", || {
        support::loopback_up();
        let mut monitor = DropMonitor::open(&DropConfig::default()).unwrap();
        let send = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..1000 {
                let _ = socket.send_to(b"x", "127.0.0.1:9");
            }
        };
        let kept = |monitor: &mut DropMonitor| {
            let mut kept = 0;
            monitor.frames(100_000, |dropped| {
                kept += usize::from(dropped.bytes.get(36..38) == Some(&[0, 9]));
            });
            kept
        };
        send();
        assert_eq!(kept(&mut monitor), 0);
        monitor.keep_one_of(100).unwrap();
        send();
        let few = kept(&mut monitor);
        assert!((1..100).contains(&few), "{few}");
        let _counting = monitor.count_runs().unwrap();
        send();
        assert!(monitor.runs().unwrap().count >= 500);
    });
}

#[test]
fn a_small_ring_loses_and_counts() {
    support::in_namespace("a_small_ring_loses_and_counts", || {
        support::loopback_up();
        let config = DropConfig { ring: 4096, ..every() };
        let mut monitor = DropMonitor::open(&config).unwrap();
        monitor.keep_one_of(1).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            let _ = socket.send_to(&[7; 1000], "127.0.0.1:9");
        }
        assert!(monitor.frames_lost().unwrap() > 0);
        assert!(monitor.frames(1000, |_| {}) > 0);
    });
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    for config in [
        DropConfig { snap: 63, ..DropConfig::default() },
        DropConfig { snap: 4096, ..DropConfig::default() },
    ] {
        assert!(DropMonitor::open(&config).unwrap_err().to_string().contains("a frame"));
    }
}
