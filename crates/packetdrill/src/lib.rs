//! A plug-in for packetdrill: its scripts drive [`millrace_stack::Stack`] as they drive a kernel.
//!
//! `packetdrill --so_filename=libmillrace_packetdrill.so script.pkt` loads this library and asks it
//! for a table ([`interface`]) of system calls, of two functions that carry bare IP packets, and of a
//! clock ([`abi`]). All of them act on one [`world::World`]: a stack, its sockets and a clock of its
//! own. Time is virtual. It goes on only when the script waits, so a script that spans a minute runs
//! in a moment, and always in the same way.
//!
//! The library must be preloaded as well (`LD_PRELOAD`): packetdrill reads `TCP_INFO` and runs a
//! script's commands through the C library, past its table ([`interpose`]).
//!
//! What a script sets by `sysctl` or `ip route` in its network namespace is read when the stack is
//! made ([`sysctl`], [`route`]) and after each command ([`kernel`]).

pub mod abi;
mod address;
mod descriptor;
mod errno;
mod error_queue;
mod fast_open;
mod flags;
mod info;
pub mod interface;
mod interpose;
mod ioctl;
mod kernel;
mod memory;
mod options;
mod pipe;
mod poll;
mod route;
mod send_buffer;
mod shared;
mod socket;
mod sysctl;
mod transfer;
mod wire;
mod world;
