//! Bytes and headers: views that read packets, functions that write them, and their checksums.
//!
//! Everything here is a pure function on slices. Nothing allocates (the crate is `no_std` without
//! `alloc`), nothing does I/O, nothing is `unsafe`, and nothing depends on another crate.
//!
//! * **Reading.** `X::parse(bytes)` checks all lengths once and returns a view that borrows the
//!   bytes. A getter of a parsed view cannot panic, whatever the bytes were. What is wrong with
//!   the bytes is said by [`Malformed`]. `parse` does not verify checksums: a port may have done
//!   so already, and local links leave them unfinished on purpose.
//! * **Writing.** `emit` functions fill the start of a buffer. They panic if the buffer is too
//!   short or a length does not fit its field: both are errors of the caller, never of a peer.
//! * **Checksums.** Partial sums are folded 16-bit values; see [`checksum`].
#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_std)]

pub mod arp;
pub mod checksum;
#[cfg(test)]
mod deterministic;
pub mod dhcpv4;
pub mod domain;
pub mod ether;
pub mod flow;
pub mod icmpv4;
pub mod icmpv6;
pub mod igmp;
pub mod ipv4;
pub mod ipv6;
pub mod mac;
mod malformed;
pub mod mld;
pub mod ndp;
pub mod protocol;
pub mod seq;
pub mod tcp;
pub mod toeplitz;
pub mod udp;
pub mod vlan;

pub use flow::Flow;
pub use mac::Mac;
pub use malformed::Malformed;
pub use seq::Seq;
