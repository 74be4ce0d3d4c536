//! Channels after MegaPipe: handles, operations and batched completions over our own stack.
//!
//! A [`Channel`] belongs to one thread. It owns a [`millrace_stack::Stack`] and the
//! [`millrace_port::Port`] under it, and hands the application one batch of completions a turn:
//!
//! ```no_run
//! use millrace_channel::{Channel, Completions, Config, Kind};
//!
//! # fn main() -> std::io::Result<()> {
//! let config = Config::new("192.0.2.2/24".parse()?);
//! let mut channel = Channel::open("af_xdp:eth1", config)?;
//! channel.listen("0.0.0.0:80".parse().unwrap(), 128)?;
//! let mut batch = Completions::new();
//! loop {
//!     channel.turn(&mut batch, None)?;
//!     for done in &batch {
//!         if done.kind == Kind::Read {
//!             let _request = channel.payload(done).next();
//!             channel.write(done.handle, b"HTTP/1.1 204 No Content\r\n\r\n")?;
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! A turn sends what the application wrote since the last one, takes what has arrived, runs the
//! timers, and collects what the application must know. It allocates nothing once its lists have
//! grown to their usual length, and makes no system call but the port's and one to sleep.

#![forbid(unsafe_code)]

mod address;
mod bell;
mod channel;
mod close;
mod completion;
mod config;
mod handle;
mod interface;
mod lease;
mod open;
mod operations;
mod wait;
mod watched;
mod write;

pub use address::Address;
pub use bell::Bell;
pub use channel::{Channel, Counters};
pub use completion::{Completion, Completions, Kind};
pub use config::Config;
pub use handle::Handle;
pub use millrace_frames::Held;
pub use millrace_port::Wait;
pub use millrace_port::clock::now;
pub use millrace_port::name::{KINDS, PortName};
pub use millrace_stack::{
    AcceptOverflow, AddressInfo, AddressState, Algorithm, ConnectionInfo, DhcpConfig, DhcpState,
    Ecn, FastOpenConfig, LONGEST_SETTING, Lease, ListenOptions, OptionName, ProbeConfig, Route,
    RouteInfo, SettingError, SettingField, SettingValue, SocketOption, State, SynCookies, TcpInfo,
    UserTimeoutOption,
};
pub use operations::errno;
pub use wait::Wake;
pub use write::Owned;
