//! What the redirector shall take. Plain data; nothing here touches the kernel.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::classic;

/// What a [`crate::Redirector`] takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectConfig {
    /// Which frames; without a filter all of them, for an interface that Linux does not use.
    pub filter: Option<Filter>,
    /// A packet filter that a frame must pass first; what it rejects goes to Linux.
    pub expression: Option<classic::Program>,
    /// Load with `BPF_F_XDP_HAS_FRAGS`, for interfaces with frames that span several buffers. The
    /// sockets must be bound with `XDP_USE_SG` then, or the kernel drops such frames.
    pub frags: bool,
}

impl RedirectConfig {
    /// Takes every frame.
    pub fn everything() -> Self {
        Self { filter: None, expression: None, frags: false }
    }

    /// Takes the frames that a packet filter accepts.
    pub fn expression(program: classic::Program) -> Self {
        Self { expression: Some(program), ..Self::everything() }
    }

    /// Takes ARP, ICMP, TCP and UDP of these addresses.
    pub fn addresses(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { filter: Some(Filter::new(addresses)), ..Self::everything() }
    }
}

/// Which frames are taken: those to one of the addresses, of one of the protocols.
///
/// One VLAN tag is looked through, whatever its number. A fragment shows no ports or only once,
/// so fragments of a protocol are taken by address alone; so are IPv6 packets whose first next
/// header is an extension header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Destination addresses to start with; for ARP the target protocol address.
    pub addresses: Vec<IpAddr>,
    /// The most addresses of each family that may be taken at a time.
    pub max_addresses: u32,
    /// Take what goes to the solicited-node group of an IPv6 address, too: neighbours ask there (RFC 4291
    /// §2.7.1). Others' addresses may have the same group, and Linux then does not hear of its own; who
    /// hears groups in another way does without.
    pub solicited_nodes: bool,
    /// Take ARP packets that ask for, or answer to, an address.
    pub arp: bool,
    /// Take ICMP, and for IPv6 addresses ICMPv6 with neighbour discovery.
    pub icmp: bool,
    /// TCP destination ports.
    pub tcp: Ports,
    /// UDP destination ports.
    pub udp: Ports,
}

impl Filter {
    /// All that is for these addresses, with room for 1,024 of each family.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
            max_addresses: 1024,
            solicited_nodes: true,
            arp: true,
            icmp: true,
            tcp: Ports::All,
            udp: Ports::All,
        }
    }
}

/// Destination ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// None: the protocol is left to Linux.
    None,
    /// All of them.
    All,
    /// These to start with; [`crate::Redirector::add_ports`] and `remove_ports` change them.
    Only(Vec<RangeInclusive<u16>>),
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no",
            Self::All => "all",
            Self::Only(_) => "some",
        })
    }
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}
