//! The channel's addresses and routes while it runs.

use core::net::IpAddr;
use core::time::Duration;
use std::io;

use millrace_port::clock;
use millrace_stack::{AddressInfo, AddressOrigin, AddressState, Route, RouteInfo};

use crate::completion::Completions;
use crate::open::refuse_taken;
use crate::{Address, Channel, Wake};

impl Channel {
    /// The channel's own addresses, those of the link and those made from routers' prefixes among
    /// them.
    pub fn addresses(&self) -> impl Iterator<Item = AddressInfo> + '_ {
        self.stack.addresses()
    }

    /// Adds an address of the channel's own.
    ///
    /// # Errors
    /// As [`millrace_stack::Stack::add_address`]; `AddrInUse` when Linux has it; when the port has no room
    /// for another; `NotConnected` when the channel is closed.
    pub fn add_address(&mut self, address: Address) -> io::Result<()> {
        self.check_open()?;
        if let Some(linux) = &self.linux {
            refuse_taken(linux, &address, &self.port.capabilities().name)?;
        }
        self.stack.add_address(address.into())?;
        self.tell_port().inspect_err(|_| {
            // It was not there before, so nothing of anybody's ends with it.
            let _ = self.stack.remove_address(address.ip);
        })
    }

    /// Says which addresses are ours to a port that takes only what is for them, if they have changed.
    pub(crate) fn tell_port(&mut self) -> io::Result<()> {
        if !self.stack.addresses_changed() {
            return Ok(());
        }
        let ours = self.stack.addresses().filter(|one| one.state != AddressState::Duplicate);
        let ours: Vec<IpAddr> = ours.map(|one| one.address).collect();
        self.port.own_addresses(&ours)
    }

    /// Tells the neighbours which hardware address has the channel's addresses, so that they mend what
    /// they remember of them (RFC 5227 §2.3, RFC 4861 §7.2.6): for an address that another host had.
    ///
    /// # Errors
    /// `NotConnected` when the channel is closed.
    pub fn announce(&mut self) -> io::Result<()> {
        self.check_open()?;
        self.stack.announce();
        Ok(())
    }

    /// Removes an address of the channel's own; connections that use it are reset.
    ///
    /// # Errors
    /// As [`millrace_stack::Stack::remove_address`]; `NotConnected` when the channel is closed.
    pub fn remove_address(&mut self, address: IpAddr) -> io::Result<()> {
        self.check_open()?;
        self.stack.remove_address(address)?;
        self.tell_port()
    }

    /// The routes.
    pub fn routes(&self) -> impl Iterator<Item = RouteInfo> + '_ {
        self.stack.routes()
    }

    /// Adds a route.
    ///
    /// # Errors
    /// As [`millrace_stack::Stack::add_route`]; `NotConnected` when the channel is closed.
    pub fn add_route(&mut self, route: Route) -> io::Result<()> {
        self.check_open()?;
        self.stack.add_route(route)
    }

    /// Removes a route that was added, or a gateway.
    ///
    /// # Errors
    /// As [`millrace_stack::Stack::remove_route`]; `NotConnected` when the channel is closed.
    pub fn remove_route(&mut self, route: Route) -> io::Result<()> {
        self.check_open()?;
        self.stack.remove_route(route)
    }

    /// Name servers that the DHCP server of the lease and IPv6 routers (RFC 8106) told, while that
    /// holds, in the order in which they are to be asked.
    pub fn name_servers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let leased = self.lease().into_iter().flat_map(|lease| lease.name_servers.iter().copied());
        leased.chain(self.stack.advertised_name_servers().map(IpAddr::V6))
    }

    /// Domains that names are completed with, as the same told them, each once. Of a lease without a
    /// list of them it is its domain.
    pub fn search_domains(&self) -> impl Iterator<Item = &str> {
        let lease = self.lease();
        let listed = lease.map_or(&[][..], |lease| &lease.search_domains);
        let own = lease.filter(|_| listed.is_empty()).and_then(|lease| lease.domain.as_deref());
        let leased = move || listed.iter().map(String::as_str).chain(own);
        let advertised = self.stack.advertised_search_domains();
        leased().chain(advertised.filter(move |&one| !leased().any(|other| other == one)))
    }

    /// Whether an address made from a router's prefix is in use, and no such address is still
    /// being looked for on the link.
    pub fn is_configured(&self) -> bool {
        let made = |one: &AddressInfo| {
            matches!(one.origin, AddressOrigin::Stable | AddressOrigin::Temporary)
        };
        let ready = self.addresses().any(|one| made(&one) && one.state == AddressState::Preferred);
        ready && !self.addresses().any(|one| made(&one) && one.state == AddressState::Tentative)
    }

    /// Turns until [`Channel::is_configured`], for at most `timeout`. Returns whether it is. To be
    /// called before anything is opened: completions are not told.
    ///
    /// # Errors
    /// `InvalidInput` without [`crate::Config::slaac`]; when the port is of no more use.
    pub fn wait_for_router(&mut self, timeout: Duration) -> io::Result<bool> {
        self.check_open()?;
        if !self.stack.config().ipv6.router_discovery {
            let text = "the channel was not told to listen to IPv6 routers";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut batch = Completions::new();
        self.now = clock::now();
        let end = self.now + timeout;
        while !self.is_configured() {
            self.begin(&mut batch);
            match self.run(&mut batch, Some(end), Channel::is_configured)? {
                Wake::Work | Wake::Bell => {}
                Wake::Timeout | Wake::Signal | Wake::Exhausted => break,
            }
        }
        self.begin(&mut batch);
        Ok(self.is_configured())
    }
}
