//! What a channel is given when it is opened.

use core::hash::{Hash, Hasher};
use core::net::IpAddr;
use std::hash::DefaultHasher;
use std::io;

use millrace_frames::{Arena, ArenaConfig, Hugepages};
use millrace_port::{Capabilities, Wait};
use millrace_stack::{DhcpConfig, Ipv6Config};
use millrace_wire::mac::Mac;

use crate::Address;

/// How a channel is opened. [`Config::new`] gives what suits most.
#[derive(Clone, Debug)]
pub struct Config {
    /// The channel's own addresses, at least one unless there is `dhcp` or `slaac`.
    pub addresses: Vec<Address>,
    /// Get an IPv4 address from a DHCP server; [`crate::Channel::lease`] tells what it gave. It is
    /// given back when the channel is closed.
    pub dhcp: Option<DhcpConfig>,
    /// Listen to IPv6 routers, and make addresses from the prefixes that they advertise.
    pub slaac: bool,
    /// Where packets for other networks go, of both families.
    pub gateways: Vec<IpAddr>,
    /// The channel's hardware address. `None`: the port's.
    pub mac: Option<Mac>,
    /// Largest IP packet to send. `None`: the port's. A TAP interface or a memory wire that is made
    /// for the channel gets it.
    pub mtu: Option<u16>,
    /// What to do while there is nothing to do.
    pub wait: Wait,
    /// Number of frames.
    pub frames: u32,
    /// Bytes of a frame. `None`: the least that takes the port's packets.
    pub frame_size: Option<u32>,
    /// Whether huge pages are asked for.
    pub hugepages: Hugepages,
    /// A connection that has so many bytes waiting after [`crate::Channel::write_owned`] takes no
    /// more.
    pub write_queue: usize,
    /// Most bytes of one connection that a turn tells, to within a frame; the rest is told in the
    /// turns after it. So a connection whose buffer is full does not keep the others waiting, and
    /// [`crate::Channel::pause`] stops it before all of that was told.
    pub read_budget: u32,
    /// Send small segments at once (no Nagle). The writes of a turn leave together anyway, so
    /// waiting would only add delay.
    pub no_delay: bool,
    /// Secret of hashes, sequence numbers and ports. `None`: from the system's randomness.
    pub seed: Option<[u64; 4]>,
    /// Show counters, tables and frames to `millrace top` and its like, from other processes of the
    /// same user (crate `watch`). By default yes, unless `MILLRACE_WATCH` is 0.
    pub watch: bool,
    /// The stack's bounds. Its `mac`, `mtu`, `addresses`, `dhcp`, `gateway`, `seed`, `tx_checksum`,
    /// `tx_gso`, `no_delay` and `ipv6.router_discovery` are taken from above and from the port.
    pub stack: millrace_stack::Config,
}

impl Config {
    /// One address, 16,384 frames, asleep when idle.
    pub fn new(address: Address) -> Config {
        Config::with(vec![address], None)
    }

    /// An address from a DHCP server, else as [`Config::new`].
    pub fn by_dhcp(dhcp: DhcpConfig) -> Config {
        Config::with(Vec::new(), Some(dhcp))
    }

    fn with(addresses: Vec<Address>, dhcp: Option<DhcpConfig>) -> Config {
        Config {
            addresses,
            dhcp,
            slaac: false,
            gateways: Vec::new(),
            mac: None,
            mtu: None,
            wait: Wait::Sleep,
            frames: 16_384,
            frame_size: None,
            hugepages: Hugepages::Prefer,
            write_queue: 1 << 20,
            read_budget: 1 << 18,
            no_delay: true,
            seed: None,
            watch: crate::watched::by_default(),
            stack: millrace_stack::Config::default(),
        }
    }

    /// An arena for a port with this MTU.
    ///
    /// # Errors
    /// `InvalidInput` for sizes that make no sense, what mmap(2) says.
    pub fn arena(&self, mtu: u32) -> io::Result<Arena> {
        let least = (mtu as usize + 14 + Arena::HEADROOM).next_power_of_two().clamp(2048, 32_768);
        Arena::new(ArenaConfig {
            frames: self.frames,
            frame_size: self.frame_size.unwrap_or(least as u32),
            hugepages: self.hugepages,
        })
    }

    /// Says what makes no sense whatever the port.
    pub(crate) fn check(&self) -> io::Result<()> {
        let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if self.addresses.is_empty() && self.dhcp.is_none() && !self.slaac {
            return wrong(
                "a channel needs an address of its own, such as 192.0.2.2/24 or 2001:db8::2/64, \
                 or DHCP or SLAAC"
                    .into(),
            );
        }
        if self.read_budget == 0 {
            return wrong("with a read budget of 0 bytes nothing would ever be read".into());
        }
        for &gateway in &self.gateways {
            let link_local = matches!(gateway, IpAddr::V6(ip) if ip.is_unicast_link_local());
            let on_link = link_local || self.addresses.iter().any(|own| own.contains(gateway));
            if !on_link || self.addresses.iter().any(|own| own.ip == gateway) {
                let own: Vec<_> = self.addresses.iter().map(Address::to_string).collect();
                return wrong(format!(
                    "the gateway {gateway} is not in a network of the channel's: {}",
                    own.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// The stack's configuration on a port.
    pub(crate) fn for_stack(&self, port: &Capabilities) -> io::Result<millrace_stack::Config> {
        self.check()?;
        let seed = match self.seed {
            Some(seed) => seed,
            None => random_seed()?,
        };
        Ok(millrace_stack::Config {
            mac: self.mac.or(port.mac).unwrap_or_else(|| local_mac(&seed)),
            mtu: port.mtu.min(self.mtu.unwrap_or(u16::MAX).into()) as u16,
            addresses: self.addresses.iter().map(|&address| address.into()).collect(),
            gateway: None,
            seed,
            dhcp: self.dhcp.clone(),
            tx_checksum: port.tx_checksum,
            tx_gso: port.tx_gso,
            no_delay: self.no_delay,
            ipv6: Ipv6Config { router_discovery: self.slaac, ..self.stack.ipv6.clone() },
            ..self.stack.clone()
        })
    }
}

fn random_seed() -> io::Result<[u64; 4]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| io::Error::other(format!("no randomness from the system: {error}")))?;
    let word = |index: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[index * 8..][..8]);
        u64::from_le_bytes(word)
    };
    Ok([word(0), word(1), word(2), word(3)])
}

/// An address for a port without one: locally administered, of one host (RFC 7042 §2.1).
fn local_mac(seed: &[u64; 4]) -> Mac {
    // A hash, because the seed is a secret and the address is not.
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    let bytes = hasher.finish().to_le_bytes();
    Mac([2, bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]])
}
