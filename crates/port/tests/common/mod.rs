//! What every port must do, whatever is underneath: one set of checks, used by the files beside
//! this folder.
//!
//! A file brings a [`Fixture`] and asks for the tests with one line:
//!
//! ```ignore
//! #[macro_use]
//! mod common;
//! conformance!(MyFixture::new());        // a Result<impl Fixture, String>
//! ```
//!
//! `Err(reason)` skips: the test prints `SKIP <test>: <reason>`. A check of what a port says it
//! cannot do (see its `Capabilities`) has nothing to look at, whatever the machine; that is no
//! skip, and is printed as such.
// Each file uses what it needs of it.
#![allow(dead_code, unused_imports, unused_macros)]

mod checks;
mod packet;
mod peer;

pub use checks::*;
pub use packet::*;
pub use peer::*;

use millrace_frames::{Arena, ArenaConfig, Hugepages};
use millrace_port::Port;

/// Opens ports of one kind, each on a wire of its own.
pub trait Fixture {
    /// A port that was just opened, whose wire is up, and who is at the other end of it. The MTU
    /// is at least 1500. Nothing that an earlier port of this fixture sent may still come.
    fn open(&mut self, arena: &mut Arena) -> (Box<dyn Port>, Box<dyn Peer>);

    /// The arena that the port gets.
    fn arena(&self) -> ArenaConfig {
        ArenaConfig { frames: 1024, frame_size: 2048, hugepages: Hugepages::Never }
    }
}

/// Who is at the other end of the wire: a second port, a raw socket, a file.
///
/// Other traffic may be on the wire (the kernel announces things on its interfaces). The checks
/// look at frames from [`SOURCE`] only, so a peer may deliver the rest too.
pub trait Peer: Send {
    /// Puts a frame on the wire towards the port.
    fn send(&mut self, frame: &[u8]);

    /// The next frame that the port has sent, if it is there. Does not block.
    fn receive(&mut self) -> Option<Received>;

    /// Puts a frame on the wire whose transport checksum is unfinished (summed from
    /// `checksum_start`, written at `checksum_start + checksum_offset`) and which, when `gso_size`
    /// is not 0, is a super-segment. False when this peer cannot; nothing was sent then.
    fn send_offloaded(
        &mut self,
        frame: &[u8],
        gso_size: u16,
        checksum_start: u16,
        checksum_offset: u16,
    ) -> bool {
        let _ = (frame, gso_size, checksum_start, checksum_offset);
        false
    }

    /// Leaves the wire, and asserts that nothing of its own leaked.
    fn close(&mut self) {}
}

/// A frame as the peer got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// From the first byte of the Ethernet header.
    pub bytes: Vec<u8>,
    /// Whether the peer was told that the transport checksum is unfinished. `None`: its way of
    /// receiving does not say.
    pub unfinished: Option<bool>,
}

/// Runs one check, or says why not: `fixture` fails where the machine lacks something, `check`
/// where the port is not of the kind.
pub fn run<F: Fixture>(
    test: &str,
    fixture: Result<F, String>,
    check: fn(&mut dyn Fixture) -> Result<(), String>,
) {
    match fixture {
        Err(reason) => println!("SKIP {test}: {reason}"),
        Ok(mut fixture) => {
            if let Err(reason) = check(&mut fixture) {
                println!("does not apply, {test}: {reason}");
            }
        }
    }
}

/// One `#[test]` for each check, on fixtures that the expression makes.
macro_rules! conformance {
    ($fixture:expr) => {
        conformance!(@tests $fixture,
            frames_of_every_length_arrive_unchanged,
            bursts_of_every_size_arrive_in_order,
            a_full_batch_takes_nothing,
            an_exhausted_arena_drops_counts_and_recovers,
            a_packet_that_is_too_long_is_dropped_and_counted,
            a_chain_arrives_as_one_packet,
            a_super_segment_arrives_with_all_its_bytes,
            a_super_segment_is_received_whole_or_cut,
            an_unfinished_checksum_is_finished_or_announced,
            an_unfinished_checksum_is_received_as_such,
            an_empty_batch_may_be_sent,
            an_idle_wire_brings_nothing,
            statistics_add_up,
            every_frame_comes_back,
            a_port_closed_with_frames_under_way_keeps_none,
            an_arrival_wakes_a_sleeper,
        );
    };
    (@tests $fixture:expr, $($check:ident,)*) => {
        $(
            #[test]
            fn $check() {
                $crate::common::run(stringify!($check), $fixture, $crate::common::$check);
            }
        )*
    };
}
