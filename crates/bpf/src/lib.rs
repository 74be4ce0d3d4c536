//! eBPF for Millrace, straight on bpf(2): instructions, maps, loading, XDP links, and the
//! redirector that steers chosen frames to AF_XDP sockets.
//!
//! Everything lives by file descriptor. Nothing is attached by netlink, and nothing is pinned unless
//! that is asked for, so when the process ends, however it ends, the kernel takes programs, maps
//! and links away.
//! This crate may not read or write frames, and it knows nothing of sockets but their descriptor.
//!
//! ```no_run
//! use millrace_bpf::{Mode, RedirectConfig, Redirector};
//!
//! let redirector = Redirector::load(&RedirectConfig::everything(), 1)?;
//! let link = redirector.attach(3, Mode::Native)?; // detached when `link` is dropped
//! # Ok::<(), millrace_bpf::Error>(())
//! ```

pub mod asm;
pub mod btf;
pub mod classic;
pub mod drop_monitor;
mod error;
pub mod features;
pub mod insn;
pub mod link;
pub mod live;
pub mod map;
pub mod napi_monitor;
pub mod netlink;
mod pin;
pub mod probe;
pub mod program;
pub mod redirector;
pub mod ring_buffer;
mod sys;
pub mod trace;

pub use asm::{AssembleError, Assembler, Label, Program};
pub use drop_monitor::{DropConfig, DropMonitor};
pub use error::{Error, Result};
pub use insn::Insn;
pub use link::{Link, LinkInfo, Mode};
pub use map::{Map, MapKind, MapSpec, PerCpuMap, Plain, TypedMap, Update};
pub use netlink::{Attached, attached};
pub use probe::{Refusal, may_bpf};
pub use program::{Ingress, LoadOptions, ProgramInfo, RunStatistics, TestRun, XdpProgram};
pub use redirector::{Claim, Counters, Filter, Ports, Protocol, RedirectConfig, Redirector};
