//! Raw packets below Python: what runs once per packet between a port and a program that works on
//! whole batches.
//!
//! A [`RawPort`] is a port with its arena. It gives a [`Batch`] a call, whose columns say where each
//! packet lies, how long it is and when it came, and takes batches and plain bytes to send. From a
//! batch comes the table of headers ([`headers`]). The loops of a bench are in [`loops`], the host in
//! the middle is [`forward`].
//!
//! This crate knows no protocol above what a header says, keeps no connection, and has no `unsafe`:
//! memory that outlives a call is held through [`millrace_frames::HeldFrames`].

#![forbid(unsafe_code)]

pub mod batch;
pub mod capture;
mod checksum;
pub mod filter;
pub mod flags;
pub mod forward;
pub mod generator;
pub mod headers;
pub mod loops;
pub mod meter;
mod open;
mod raw_port;
mod receive;
pub mod replay;
mod transmit;

pub use batch::Batch;
pub use filter::Filter;
pub use headers::Header;
pub use open::{Options, open};
pub use raw_port::{Counters, RawPort, SharedArena, TimestampSource};
pub use transmit::Refusal;
