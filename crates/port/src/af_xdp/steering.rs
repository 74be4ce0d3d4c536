//! The XDP program of an interface, shared by the ports of its queues. It is attached when all of
//! them are ready and detached before the first socket that it needs is closed.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use millrace_bpf::{Counters, Link, Mode, Protocol, RedirectConfig, Redirector};

/// What decides which frames of an interface come to its ports. Changes take effect at once.
#[derive(Debug)]
pub struct Steering {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    redirector: Redirector,
    link: Option<Link>,
    ports: u32,
}

impl Steering {
    pub(super) fn load(config: &RedirectConfig, queues: u32) -> io::Result<Self> {
        let redirector = Redirector::load(config, queues)?;
        Ok(Steering { state: Mutex::new(State { redirector, link: None, ports: 0 }) })
    }

    pub(super) fn join(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut state = self.state();
        state.redirector.register(queue, socket)?;
        state.ports += 1;
        Ok(())
    }

    pub(super) fn attach(&self, ifindex: u32, mode: Mode) -> Result<(), millrace_bpf::Error> {
        let mut state = self.state();
        state.link = Some(state.redirector.attach(ifindex, mode)?);
        Ok(())
    }

    /// To be called before the queue's socket is closed.
    pub(super) fn leave(&self, queue: u32) {
        let mut state = self.state();
        state.ports = state.ports.saturating_sub(1);
        if state.ports == 0 {
            // Closing the link's last descriptor detaches, so a failure here changes nothing.
            let _ = state.link.take().map(Link::detach);
        }
        // A closed socket leaves the map by itself, so a failure here changes nothing either.
        let _ = state.redirector.unregister(queue);
    }

    /// Takes the frames of one more address; see [`Redirector::add_address`].
    ///
    /// # Errors
    /// When the port takes everything anyway, or has as many addresses as it was made for.
    pub fn add_address(&self, address: IpAddr) -> io::Result<()> {
        Ok(self.state().redirector.add_address(address)?)
    }

    /// Leaves the frames of an address to Linux; `false` if they were not taken.
    ///
    /// # Errors
    /// When the port takes everything.
    pub fn remove_address(&self, address: IpAddr) -> io::Result<bool> {
        Ok(self.state().redirector.remove_address(address)?)
    }

    /// Takes the frames of these addresses and of no others; nothing changes where all are taken.
    ///
    /// # Errors
    /// When there are more than it was made for.
    pub fn take_only(&self, addresses: &[IpAddr]) -> io::Result<()> {
        let redirector = &mut self.state().redirector;
        match redirector.is_filtered() {
            true => Ok(redirector.set_addresses(addresses)?),
            false => Ok(()),
        }
    }

    /// Takes more destination ports; see [`Redirector::add_ports`].
    ///
    /// # Errors
    /// When the protocol was not configured with a list of ports.
    pub fn add_ports(&self, protocol: Protocol, ports: RangeInclusive<u16>) -> io::Result<()> {
        Ok(self.state().redirector.add_ports(protocol, ports)?)
    }

    /// Leaves destination ports to Linux.
    ///
    /// # Errors
    /// When the protocol was not configured with a list of ports.
    pub fn remove_ports(&self, protocol: Protocol, ports: RangeInclusive<u16>) -> io::Result<()> {
        Ok(self.state().redirector.remove_ports(protocol, ports)?)
    }

    /// What the program has decided so far, on all queues.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&self) -> io::Result<Counters> {
        Ok(self.state().redirector.counters()?)
    }

    /// A panic elsewhere leaves the state whole: each change is one call.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
