//! Networks of Millrace's stacks in virtual time: any topology of hosts, switches and routers over
//! bad wires, from a seed, the same to the byte each time.
//!
//! A [`Topology`] says what there is, a [`World`] is it alive: it plans [`Conversation`]s and
//! [`Change`]s, runs until a time and reports. What a scenario drives itself (`connect`, `listen`,
//! `call_at`) is told in [`Notice`]s. [`integrity`] makes random worlds and judges them.
//!
//! Nothing here reads a clock or calls the system, but for the trace file that was asked for.

#![forbid(unsafe_code)]

mod content;
mod conversation;
mod endpoint;
mod event;
mod external;
mod host;
pub mod integrity;
mod link;
mod options;
mod packet;
mod random;
mod router;
mod switch;
mod topology;
mod trace;
mod world;

pub use conversation::{Behaviour, Conversation, Exchange, Manner, Pace, Report, SideReport};
pub use external::{ExternalId, Notice};
pub use link::LinkCounters;
pub use millrace_port::impair::{GilbertElliott, Impairment};
pub use millrace_stack::{SettingError, SettingValue};
pub use options::{explain, set_option};
pub use random::Dice;
pub use router::RouterCounters;
pub use topology::{HostSpec, NodeId, RouterSpec, Topology, WireId, WireSpec};
pub use world::{Change, Settings, Stop, World};
