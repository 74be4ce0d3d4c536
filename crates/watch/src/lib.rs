//! What a process shows of itself while it runs: counters and small tables on a page in a file,
//! and a socket that answers requests for what is too large for a page, such as frames.
//!
//! Whoever has something to show (a channel, a port) owns a [`Publisher`]. It writes when it is told
//! to, which costs three system calls on a file in memory, and looks at one flag a turn for requests.
//! Nobody who reads can make it wait. The reading side is Python, `millrace.watch`.
//!
//! The page is a file in a folder that only its user may enter ([`folder`]), written with pwrite(2)
//! and read with pread(2): a mapping of a file that somebody makes shorter would kill whoever touches
//! it. This crate knows frames and capture files. It knows no stack and no protocol.

#![forbid(unsafe_code)]

pub mod folder;
pub mod page;
mod publisher;
mod request;
mod server;
mod source;
pub mod table;
mod tap;
mod values;

pub use publisher::Publisher;
pub use source::{Ask, TableAsk};
pub use table::{Cell, Kind, Table};
pub use tap::{Direction, Tap};
pub use values::Values;
