//! One share-nothing TCP/IP stack: frames and time in, frames and the next deadline out.
//!
//! A [`Stack`] owns its arena, its connections and its timers. It does no I/O and reads no clock,
//! so many of them run in one test, in virtual time, from one seed. Everything is allocated when
//! it is made; every bound is a field of [`Config`], and every drop a field of [`Counters`].
//!
//! A turn: [`Stack::receive`] what the port has, [`Stack::advance`] the timers, ask
//! [`Stack::next_event`] what the application must know, let it answer, and [`Stack::transmit`].

#![forbid(unsafe_code)]

mod address;
mod arp;
mod backlog;
mod bound;
mod chain;
mod config;
mod control;
mod counters;
mod destination;
mod dhcp;
mod first_hop;
mod fragmentation;
mod group;
mod hash;
mod icmp;
mod igmp;
mod interface;
mod invariants;
mod ip;
mod ip6;
mod large_datagrams;
mod memory;
mod mld;
mod multicast;
mod neighbour;
mod path_mtu;
mod rate;
mod reassembly;
mod redirect;
mod route;
mod stack;
mod table;
mod tables;
mod tcp;
mod teardown;
mod udp;
mod wheel;

pub use address::{AddressInfo, AddressOrigin, AddressState};
pub use config::by_name::{LONGEST_SETTING, SettingError, SettingField, SettingValue};
pub use config::{
    AcceptOverflow, Config, FastOpenConfig, InterfaceAddress, MtuProbing, SynCookies, TcpFeatures,
    TimeWaitReuse, UserTimeoutOption,
};
pub use counters::Counters;
pub use dhcp::{DhcpConfig, DhcpState, Lease, ProbeConfig};
pub use group::{FilterMode, MulticastConfig};
pub use ip6::config::Ipv6Config;
pub use memory::{MemoryInfo, MemoryState};
pub use multicast::GroupInfo;
pub use neighbour::State as NeighbourState;
pub use reassembly::ReassemblyConfig;
pub use route::{Route, RouteInfo, RouteOrigin};
pub use stack::{Event, Stack};
pub use tables::{DatagramInfo, NeighbourInfo};
pub use tcp::api::{ConnectionId, ConnectionInfo, ListenerId};
pub use tcp::congestion::{Algorithm, UnknownAlgorithm};
pub use tcp::connection::{Failure, Ready, State};
pub use tcp::ecn::Ecn;
pub use tcp::info::TcpInfo;
pub use tcp::listen::{ListenOptions, ListenerInfo};
pub use tcp::settings::{MtuDiscovery, OptionName, SocketOption};
pub use udp::{Datagram, SocketId};
