//! What a stack is told about IPv6.

use core::time::Duration;

/// Settings of IPv6. A stack speaks IPv6 if it has an IPv6 address or configures itself.
#[derive(Clone, Debug)]
pub struct Ipv6Config {
    /// Listen to router advertisements: default routers, prefixes, MTU, timers (RFC 4861 §6.3).
    pub router_discovery: bool,
    /// Make addresses from the prefixes that routers advertise (RFC 4862 §5.5).
    pub slaac: bool,
    /// Beside each stable address made so, temporary ones (RFC 8981), which connections from here
    /// then prefer.
    pub temporary_addresses: bool,
    /// Make a link-local address (RFC 4862 §5.3). Neighbour discovery is at a loss without one
    /// where the network has routers.
    pub link_local: bool,
    /// Solicitations by which duplicate address detection asks whether an address is taken
    /// (RFC 4862 §5.4); 0: it is off.
    pub dad_transmits: u8,
    /// Use addresses while duplicate address detection is under way (RFC 4429).
    pub optimistic: bool,
    /// Hop limit of packets until a router tells another.
    pub hop_limit: u8,
    /// Time between solicitations until a router tells another (RFC 4861 §10, RetransTimer).
    pub retransmit_timer: Duration,
    /// How long a neighbour is believed reachable until a router tells another (RFC 4861 §10,
    /// BaseReachableTime).
    pub reachable_time: Duration,
    /// How long a temporary address is preferred at most (RFC 8981 §3.8).
    pub temporary_preferred: Duration,
    /// How long a temporary address is valid at most.
    pub temporary_valid: Duration,
    /// Secret that stable addresses are made with, so that they are the same after a restart
    /// (RFC 7217 §5). `None`: from the stack's seed.
    pub stable_secret: Option<[u64; 2]>,

    /// Most routes learned from routers: default routes, prefixes on the link, routes of RFC 4191.
    pub learned_routes: u8,
    /// Most prefixes that addresses are made from.
    pub learned_prefixes: u8,
    /// Most name servers that are learned from routers, and most search domains.
    pub learned_name_servers: u8,
    /// Most extension headers of a packet (RFC 8504 §5.3).
    pub extension_headers: u8,
    /// Most bytes of extension headers of a packet.
    pub extension_bytes: u16,
    /// Most options, padding apart, in the extension headers of a packet.
    pub extension_options: u8,
}

impl Default for Ipv6Config {
    fn default() -> Self {
        Ipv6Config {
            router_discovery: false,
            slaac: true,
            temporary_addresses: true,
            link_local: true,
            dad_transmits: 1,
            optimistic: false,
            hop_limit: 64,
            retransmit_timer: Duration::from_secs(1),
            reachable_time: Duration::from_secs(30),
            temporary_preferred: Duration::from_secs(24 * 3600),
            temporary_valid: Duration::from_secs(2 * 24 * 3600),
            stable_secret: None,
            learned_routes: 16,
            learned_prefixes: 8,
            learned_name_servers: 8,
            extension_headers: 8,
            extension_bytes: 512,
            extension_options: 8,
        }
    }
}
