//! What the stack's tests share, all of it deterministic and in virtual time: [`peer`] plays the
//! other side of one stack segment by segment, [`net`] joins two stacks by a memory wire, and
//! [`craft`] writes and reads the packets.

#![allow(dead_code, reason = "no test binary uses all of it")]

pub mod craft;
pub mod craft6;
pub mod net;
pub mod peer;

use core::time::Duration;
use millrace_frames::{Arena, ArenaConfig, Hugepages};
use millrace_stack::{Algorithm, Config, InterfaceAddress, TcpFeatures};

/// An arena of small pages: tests make many.
pub fn arena(frames: u32) -> Arena {
    Arena::new(ArenaConfig { frames, frame_size: 2048, hugepages: Hugepages::Never })
        .expect("memory for a small arena")
}

/// A stack at 192.0.2.1/24 with bounds that suit a test: few connections, and a receive buffer
/// that can be announced without window scaling.
pub fn config() -> Config {
    Config {
        mac: craft::STACK_MAC,
        addresses: vec![InterfaceAddress { address: craft::STACK_IP.into(), prefix: 24 }],
        seed: [1, 2, 3, 4],
        connections: 64,
        time_wait_connections: 32,
        frame_reserve: 16,
        receive_buffer: 65_535,
        // No tuning but in the tests of it.
        send_buffer_max: 0,
        receive_buffer_max: 0,
        // Tests of TCP let hours go by; ARP has tests of its own.
        neighbour_reachable: Duration::from_secs(1_000_000),
        // Halves are easier to follow than seven tenths; each algorithm has tests of its own.
        congestion: Algorithm::NewReno,
        // One rule for all acknowledgements is easier to follow; heuristics have tests of their own.
        tcp: TcpFeatures { quick_ack: false, ..TcpFeatures::default() },
        ..Config::default()
    }
}
