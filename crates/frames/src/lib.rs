//! Frame memory: where packets live between a port and a stack.
//!
//! One [`Arena`] for each stack holds frames of one size, named by a 32-bit [`Frame`] index and
//! never by a pointer. Each frame has an [`Meta`] entry beside it (where its bytes start, how many
//! there are, what follows it in a chain) and a set of [`Owners`]; it returns to the free list when
//! the last owner lets go. [`RxBatch`] and [`TxBatch`] carry at most [`BURST`] frames between the
//! storeys; between two threads [`ring`] carries small messages, and [`pipe`] copies of packets.
//!
//! This crate knows nothing of headers, protocols, sockets or clocks, and it may not allocate
//! after the arena is made.

mod arena;
mod batch;
mod held;
mod mapping;
mod meta;
pub mod pipe;
pub mod ring;
mod sync;
mod time;

pub use arena::{Arena, ArenaConfig};
pub use batch::{BURST, Batch, RxBatch, Transmit, TxBatch};
pub use held::{Held, HeldFrames};
pub use mapping::{Hugepages, Mapping};
pub use meta::{ChecksumState, Frame, Meta, Owners, RxFlags};
pub use time::{Duration, Instant};
