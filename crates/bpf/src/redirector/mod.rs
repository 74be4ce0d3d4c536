//! The redirector: an XDP program that sends chosen frames to the AF_XDP socket of their receive
//! queue and passes all else to Linux. Addresses and ports can change while it runs.
//!
//! It owns its maps and its program, not the sockets. What it has chosen for a queue without a
//! socket goes to Linux too, so an interface never loses its traffic to a missing socket.

mod addresses;
mod claim;
mod config;
mod program;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd};

use addresses::AddressMaps;
pub use claim::Claim;
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
    addresses: AddressMaps,
    /// One bit for each port: first the TCP ports, then the UDP ports.
    ports: TypedMap<u32, u64>,
}

impl Maps {
    fn create(queues: u32, filter: Option<&Filter>) -> Result<Self> {
        Ok(Self {
            sockets: TypedMap::create("mr_sockets", MapKind::XskMap, queues)?,
            counters: PerCpuMap::create("mr_counters", MapKind::PerCpuArray, COUNTERS)?,
            addresses: AddressMaps::create(filter)?,
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
        let maps = Maps::create(queues, filter.as_ref())?;
        let code = program::build(config, &maps)?;
        let options = LoadOptions { frags: config.frags, ..LoadOptions::named("mr_redirector") };
        let program = XdpProgram::load(&code, &options)?;
        let mut redirector = Self { program, maps, queues, filter: filter.clone() };
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

    /// Takes the frames of this address from now on. An IPv6 address brings its solicited-node group
    /// along where [`Filter::solicited_nodes`] says so.
    ///
    /// # Errors
    /// `E2BIG` if there are `max_addresses` of the family already; [`Error::Argument`] in the mode that
    /// takes everything anyway.
    pub fn add_address(&mut self, address: IpAddr) -> Result<()> {
        self.filter()?;
        self.maps.addresses.add(address)
    }

    /// Leaves the frames of this address to Linux from now on; `false` if it was not taken.
    ///
    /// # Errors
    /// [`Error::Argument`] in the mode that takes everything.
    pub fn remove_address(&mut self, address: IpAddr) -> Result<bool> {
        self.filter()?;
        self.maps.addresses.remove(address)
    }

    /// Takes the frames of these addresses and of no others.
    ///
    /// # Errors
    /// As [`Redirector::add_address`].
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<()> {
        self.filter()?;
        self.maps.addresses.set(addresses)
    }

    /// Whether it takes chosen frames only.
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some()
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
