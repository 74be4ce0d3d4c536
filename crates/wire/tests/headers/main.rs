//! Properties of every header: what was built reads back, what was cut is rejected, and what is
//! hostile is harmless.

mod arp;
#[path = "../../src/deterministic.rs"]
mod deterministic;
mod dhcpv4;
mod domain;
mod ether;
mod flow;
mod hostile;
mod icmpv4;
mod icmpv6;
mod igmp;
mod ipv4;
mod ipv6;
mod mld;
mod ndp;
mod tcp;
mod toeplitz;
mod touch;
mod udp;

use millrace_wire::Malformed;
use proptest::prelude::*;

/// Asserts that a parser rejects all proper beginnings of what it accepts.
fn assert_cuts_rejected(bytes: &[u8], parse: impl Fn(&[u8]) -> Result<(), Malformed>) {
    assert_eq!(parse(bytes), Ok(()));
    for len in 0..bytes.len() {
        assert_eq!(parse(&bytes[..len]).err(), Some(Malformed::Truncated), "cut to {len} bytes");
    }
}

fn mac() -> impl Strategy<Value = millrace_wire::Mac> {
    any::<[u8; 6]>().prop_map(millrace_wire::Mac)
}

fn payload(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}
