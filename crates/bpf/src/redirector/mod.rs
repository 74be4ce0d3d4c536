//! The redirector: an XDP program that sends chosen frames to the AF_XDP socket of their receive
//! queue and passes all else to Linux. Addresses and ports can change while it runs.
//!
//! It owns its maps and its program, not the sockets. What it has chosen for a queue without a
//! socket goes to Linux too, so an interface never loses its traffic to a missing socket.

mod config;
mod program;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd};

pub use config::{Filter, Ports, Protocol, RedirectConfig};
use program::{COUNT_NO_SOCKET, COUNT_PASSED, COUNT_REDIRECTED, COUNTERS};

use crate::error::{Error, Result};
use crate::link::{Link, Mode};
use crate::map::{MapKind, PerCpuMap, TypedMap};
use crate::program::{LoadOptions, TestRun, XdpProgram};

/// The maps that the program and this process share.
#[derive(Debug)]
struct Maps {
    sockets: TypedMap<u32, u32>,
    counters: PerCpuMap<u32, u64>,
    ipv4: TypedMap<[u8; 4], u8>,
    ipv6: TypedMap<[u8; 16], u8>,
    /// One bit for each port: first the TCP ports, then the UDP ports.
    ports: TypedMap<u32, u64>,
}

impl Maps {
    fn create(queues: u32, max_addresses: u32) -> Result<Self> {
        Ok(Self {
            sockets: TypedMap::create("mr_sockets", MapKind::XskMap, queues)?,
            counters: PerCpuMap::create("mr_counters", MapKind::PerCpuArray, COUNTERS)?,
            ipv4: TypedMap::create("mr_ipv4", MapKind::Hash, max_addresses)?,
            // An address brings its solicited-node group along.
            ipv6: TypedMap::create("mr_ipv6", MapKind::Hash, max_addresses.saturating_mul(2))?,
            ports: TypedMap::create("mr_ports", MapKind::Array, program::PORT_WORDS)?,
        })
    }
}

/// Frames that the program has seen, since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent to a socket. The socket may have dropped them still; its own statistics tell.
    pub redirected: u64,
    /// Frames that were not chosen, and went to Linux.
    pub passed: u64,
    /// Frames that were chosen, but whose queue has no socket, so they went to Linux.
    pub no_socket: u64,
}

/// A loaded steering program with its maps.
#[derive(Debug)]
pub struct Redirector {
    program: XdpProgram,
    maps: Maps,
    queues: u32,
    filter: Option<Filter>,
    /// The IPv6 addresses that were added.
    ipv6: HashSet<Ipv6Addr>,
    /// The keys of the IPv6 map: added addresses and their solicited-node groups, each with the
    /// number of reasons why it is there.
    ipv6_keys: HashMap<Ipv6Addr, u32>,
}

impl Redirector {
    /// Builds the program for `config` and loads it, with room for sockets of `queues` queues.
    ///
    /// # Errors
    /// [`Error::Argument`] for zero queues or more addresses than `max_addresses`, else as
    /// [`XdpProgram::load`].
    pub fn load(config: &RedirectConfig, queues: u32) -> Result<Self> {
        if queues == 0 {
            return Err(Error::Argument("a redirector needs at least one queue".into()));
        }
        let filter = config.filter.clone();
        let max_addresses = filter.as_ref().map_or(1, |filter| filter.max_addresses.max(1));
        let maps = Maps::create(queues, max_addresses)?;
        let code = program::build(config, &maps)?;
        let options = LoadOptions { frags: config.frags, ..LoadOptions::named("mr_redirector") };
        let program = XdpProgram::load(&code, &options)?;
        let mut redirector = Self {
            program,
            maps,
            queues,
            filter: filter.clone(),
            ipv6: HashSet::new(),
            ipv6_keys: HashMap::new(),
        };
        if let Some(filter) = filter {
            for address in filter.addresses {
                redirector.add_address(address)?;
            }
            for (protocol, ports) in [(Protocol::Tcp, filter.tcp), (Protocol::Udp, filter.udp)] {
                if let Ports::Only(ranges) = ports {
                    for range in ranges {
                        redirector.add_ports(protocol, range)?;
                    }
                }
            }
        }
        Ok(redirector)
    }

    /// How many queues it was made for.
    pub fn queues(&self) -> u32 {
        self.queues
    }

    /// Sends the frames of a receive queue to this AF_XDP socket, which must be bound to that
    /// queue of the interface. The kernel forgets the socket when it is closed.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such queue; `EOPNOTSUPP` if it is no AF_XDP socket.
    pub fn register(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        self.check_queue(queue)?;
        self.maps.sockets.set(&queue, &(socket.as_raw_fd() as u32))
    }

    /// Lets the frames of a queue go to Linux again.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such queue.
    pub fn unregister(&self, queue: u32) -> Result<()> {
        self.check_queue(queue)?;
        self.maps.sockets.remove(&queue)?;
        Ok(())
    }

    fn check_queue(&self, queue: u32) -> Result<()> {
        if queue < self.queues {
            return Ok(());
        }
        let queues = self.queues;
        Err(Error::Argument(format!("there is no queue {queue}, the redirector has {queues}")))
    }

    /// Attaches the program. Bind the sockets, fill their rings and register them first.
    ///
    /// # Errors
    /// As [`XdpProgram::attach`].
    pub fn attach(&self, ifindex: u32, mode: Mode) -> Result<Link> {
        self.program.attach(ifindex, mode)
    }

    /// Takes the frames of this address from now on. An IPv6 address brings its solicited-node
    /// group along, or neighbours could not find it (RFC 4291 section 2.7.1).
    ///
    /// # Errors
    /// `E2BIG` if there are `max_addresses` of the family already; [`Error::Argument`] in the mode that takes
    /// everything anyway.
    pub fn add_address(&mut self, address: IpAddr) -> Result<()> {
        let max_addresses = self.filter()?.max_addresses;
        let address = match address {
            IpAddr::V4(address) => return self.maps.ipv4.set(&address.octets(), &1),
            IpAddr::V6(address) => address,
        };
        if self.ipv6.contains(&address) {
            return Ok(());
        }
        if self.ipv6.len() >= max_addresses as usize {
            return Err(Error::system(format!("adding {address} to the redirector"), libc::E2BIG));
        }
        self.ipv6.insert(address);
        for key in [Some(address), solicited_node(address)].into_iter().flatten() {
            self.maps.ipv6.set(&key.octets(), &1)?;
            *self.ipv6_keys.entry(key).or_default() += 1;
        }
        Ok(())
    }

    /// Leaves the frames of this address to Linux from now on; `false` if it was not taken.
    ///
    /// # Errors
    /// [`Error::Argument`] in the mode that takes everything.
    pub fn remove_address(&mut self, address: IpAddr) -> Result<bool> {
        self.filter()?;
        let address = match address {
            IpAddr::V4(address) => return self.maps.ipv4.remove(&address.octets()),
            IpAddr::V6(address) => address,
        };
        if !self.ipv6.remove(&address) {
            return Ok(false);
        }
        for key in [Some(address), solicited_node(address)].into_iter().flatten() {
            match self.ipv6_keys.get_mut(&key) {
                Some(reasons) if *reasons > 1 => *reasons -= 1,
                _ => {
                    self.ipv6_keys.remove(&key);
                    self.maps.ipv6.remove(&key.octets())?;
                }
            }
        }
        Ok(true)
    }

    /// Takes these destination ports from now on.
    ///
    /// # Errors
    /// [`Error::Argument`] if the protocol was not configured with [`Ports::Only`].
    pub fn add_ports(&self, protocol: Protocol, ports: RangeInclusive<u16>) -> Result<()> {
        self.change_ports(protocol, ports, |word, bits| word | bits)
    }

    /// Leaves these destination ports to Linux from now on.
    ///
    /// # Errors
    /// As [`Redirector::add_ports`].
    pub fn remove_ports(&self, protocol: Protocol, ports: RangeInclusive<u16>) -> Result<()> {
        self.change_ports(protocol, ports, |word, bits| word & !bits)
    }

    fn change_ports(
        &self,
        protocol: Protocol,
        ports: RangeInclusive<u16>,
        change: impl Fn(u64, u64) -> u64,
    ) -> Result<()> {
        let filter = self.filter()?;
        let (configured, base) = match protocol {
            Protocol::Tcp => (&filter.tcp, 0),
            Protocol::Udp => (&filter.udp, program::PORT_WORDS / 2),
        };
        if !matches!(configured, Ports::Only(_)) {
            return Err(Error::Argument(format!(
                "the redirector takes {configured} {protocol} ports; configure a list to change it"
            )));
        }
        let (first, last) = (u32::from(*ports.start()), u32::from(*ports.end()));
        if first > last {
            return Ok(());
        }
        for word in first / 64..=last / 64 {
            let low = first.max(word * 64) % 64;
            let high = last.min(word * 64 + 63) % 64;
            let bits = (u64::MAX >> (63 - high)) & (u64::MAX << low);
            let key = base + word;
            let old = self.maps.ports.get(&key)?.unwrap_or(0);
            self.maps.ports.set(&key, &change(old, bits))?;
        }
        Ok(())
    }

    fn filter(&self) -> Result<&Filter> {
        self.filter.as_ref().ok_or_else(|| {
            Error::Argument("the redirector takes every frame; it has no filter to change".into())
        })
    }

    /// The counters of all CPUs together.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&self) -> Result<Counters> {
        let read = |index| -> Result<u64> {
            let values = self.maps.counters.get(&index)?.unwrap_or_default();
            Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
        };
        Ok(Counters {
            redirected: read(COUNT_REDIRECTED)?,
            passed: read(COUNT_PASSED)?,
            no_socket: read(COUNT_NO_SOCKET)?,
        })
    }

    /// Runs the program on a frame as if it had come in on queue 0 of the loopback interface.
    ///
    /// # Errors
    /// As [`XdpProgram::test_run`].
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<TestRun> {
        self.program.test_run(frame, repeat)
    }

    /// The program.
    pub fn program(&self) -> &XdpProgram {
        &self.program
    }
}

/// The solicited-node group of a unicast address.
fn solicited_node(address: Ipv6Addr) -> Option<Ipv6Addr> {
    if address.is_multicast() || address.is_unspecified() {
        return None;
    }
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Some(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solicited_node_group_follows_rfc_4291() {
        let address: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
        assert_eq!(solicited_node(address), Some("ff02::1:ff0e:8c6c".parse().unwrap()));
        assert_eq!(solicited_node("ff02::1".parse().unwrap()), None);
    }
}
