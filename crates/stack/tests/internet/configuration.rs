//! Configurations that make no sense are refused, and the message names the field.

use core::time::Duration;

use millrace_frames::Instant;
use millrace_stack::{Config, InterfaceAddress, Stack};
use millrace_wire::mac::Mac;

use crate::common::{arena, config};

#[track_caller]
fn refused(field: &str, change: impl FnOnce(&mut Config)) {
    let mut config = config();
    change(&mut config);
    let Err(error) = Stack::new(config, arena(512), Instant::ZERO) else {
        panic!("{field} was not refused")
    };
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains(field), "{field}: {error}");
}

#[test]
fn every_bound_is_named() {
    refused("mtu", |config| config.mtu = 575);
    refused("mtu", |config| config.mtu = 9000);
    refused("connections", |config| config.connections = 0);
    refused("connections", |config| config.connections = 1 << 31);
    refused("neighbours", |config| config.neighbours = 0);
    refused("neighbours", |config| config.neighbours = u16::MAX);
    refused("listeners", |config| config.listeners = u16::MAX);
    refused("datagram_sockets", |config| config.datagram_sockets = u16::MAX);
    refused("receive_buffer", |config| config.receive_buffer = 2047);
    refused("receive_buffer", |config| config.receive_buffer = (1 << 30) + 1);
    refused("send_buffer", |config| config.send_buffer = 0);
    refused("send_buffer", |config| config.send_buffer = u32::MAX);
    refused("out_of_order_frames", |config| config.out_of_order_frames = 24_577);
    refused("control_queue", |config| config.control_queue = 0);
    refused("frame_reserve", |config| config.frame_reserve = 512);
    refused("max_rto", |config| config.max_rto = Duration::from_millis(100));
    refused("max_rto", |config| config.initial_rto = Duration::from_secs(1000));
    refused("initial_rto", |config| config.initial_rto = Duration::ZERO);
    refused("keepalive_idle", |config| config.keepalive_idle = Duration::ZERO);
    refused("keepalive_interval", |config| config.keepalive_interval = Duration::ZERO);
    refused("keepalive_count", |config| config.keepalive_count = 0);
    refused("ephemeral ports", |config| config.ephemeral_ports = 0..=10);
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    refused("ephemeral ports", |config| config.ephemeral_ports = 10..=9);
    refused("03:00:00:00:00:01", |config| config.mac = Mac([3, 0, 0, 0, 0, 1]));
    refused("00:00:00:00:00:00", |config| config.mac = Mac([0; 6]));
}

#[test]
fn addresses_that_no_host_can_have_are_named() {
    for (text, prefix) in [("0.0.0.0", 24), ("224.0.0.1", 24), ("192.0.2.1", 33)] {
        let own = InterfaceAddress { address: text.parse().unwrap(), prefix };
        refused(&format!("{text}/{prefix}"), |config| config.addresses = vec![own]);
    }
    let own = config().addresses[0];
    refused("256 addresses", |config| config.addresses = vec![own; 256]);
}

#[test]
fn the_limits_themselves_are_taken() {
    let taken = |change: fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        Stack::new(config, arena(512), Instant::ZERO).expect("a stack");
    };
    taken(|config| config.mtu = 576);
    taken(|config| config.mtu = 1960);
    taken(|config| config.receive_buffer = 2048);
    taken(|config| config.receive_buffer = 1 << 30);
    taken(|config| config.send_buffer = 1 << 30);
    taken(|config| config.neighbours = u16::MAX - 1);
    taken(|config| config.ephemeral_ports = 1..=65_535);
    taken(|config| config.addresses = Vec::new());
    taken(|config| config.time_wait_connections = 0);
    taken(|config| config.frame_reserve = 511);
}
