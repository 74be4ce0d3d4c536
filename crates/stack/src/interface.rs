//! The stack's addresses and routes, as an application sees and changes them.

use core::net::IpAddr;
use core::time::Duration;
use std::io;

use millrace_frames::Instant;
use millrace_wire::ipv6::MIN_MTU;

use crate::address::{AddressInfo, AddressState, Slot, address, is_v4, network, word, word_bits};
use crate::config::InterfaceAddress;
use crate::neighbour::NeighbourRef;
use crate::route::{Route, RouteInfo, RouteOrigin, Routes};
use crate::stack::{LastHop, Stack};
use crate::tcp::connection::{Failure, State};

impl Stack {
    /// Adds an address of our own. An IPv6 address is tentative until duplicate address detection
    /// is done, where that is on.
    ///
    /// # Errors
    /// `InvalidInput` for what is no address of one host, `AlreadyExists`, `QuotaExceeded` when
    /// there are 255 (those that ended connections still name are counted until these are closed).
    pub fn add_address(&mut self, own: InterfaceAddress) -> io::Result<()> {
        check_address(&own)?;
        if own.address.is_ipv6() && usize::from(self.link_mtu_v6()) < MIN_MTU {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the stack's mtu {} is below IPv6's least, 1280", self.link_mtu_v6()),
            ));
        }
        if self.addresses.find_any(word(own.address)).is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is an address of this stack already", own.address),
            ));
        }
        let Some(local) = self.addresses.add(Slot::new(own, AddressState::Preferred)) else {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "a stack has at most 255 addresses",
            ));
        };
        if own.address.is_ipv6() {
            self.detect_duplicate(local, Duration::ZERO);
            self.make_link_local();
        }
        self.routes_changed();
        Ok(())
    }

    /// Removes an address of our own. Connections that use it are reset; their applications are
    /// told. Listeners and sockets that are bound to it take nothing until it is added again.
    ///
    /// # Errors
    /// `AddrNotAvailable` if it is not ours.
    pub fn remove_address(&mut self, own: IpAddr) -> io::Result<()> {
        self.own_address(own)?;
        if let Some(local) = self.addresses.find_any(word(own)) {
            self.drop_address(local);
        }
        Ok(())
    }

    /// Ends what uses the address, and the address.
    pub(crate) fn drop_address(&mut self, local: u8) {
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection.local == local && connection.state != State::Closed {
                self.abort_connection(index, Failure::Aborted);
            }
        }
        self.solicited_group(local, false);
        let v4 = is_v4(self.addresses.word(local));
        self.addresses.remove(local);
        if v4 {
            // What a router of a network that we were in says leads nowhere in the next.
            self.addresses
                .routes
                .remove(|route| route.origin == RouteOrigin::Redirect && is_v4(route.network));
        }
        self.routes_changed();
    }

    /// Our addresses.
    pub fn addresses(&self) -> impl Iterator<Item = AddressInfo> + '_ {
        let end = |at: Instant| (at != Instant::FAR_FUTURE).then_some(at);
        self.addresses.slots().filter_map(move |(_, slot)| {
            Some(AddressInfo {
                address: address(slot.address),
                prefix: slot.prefix(),
                state: slot.state?,
                origin: slot.origin,
                preferred_until: end(slot.preferred_until),
                valid_until: end(slot.valid_until),
            })
        })
    }

    /// Whether addresses of ours may have come, gone or changed their state since this was last asked,
    /// or since the stack began.
    #[inline]
    pub fn addresses_changed(&mut self) -> bool {
        core::mem::take(&mut self.addresses.changed)
    }

    /// Adds a route. Open connections take it from their next packet on.
    ///
    /// # Errors
    /// `InvalidInput` for a prefix or a gateway that makes no sense, `QuotaExceeded` when the
    /// table is full.
    pub fn add_route(&mut self, route: Route) -> io::Result<()> {
        check_route(&route)?;
        if let Some(gateway) = route.gateway
            && (!self.addresses.is_on_link(word(gateway))
                || self.addresses.find_any(word(gateway)).is_some())
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the gateway {gateway} is no other host of a network of this stack's"),
            ));
        }
        if !self.addresses.routes.add_configured(route) {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!("the routing table has its most entries, {}", self.config.routes),
            ));
        }
        self.routes_changed();
        Ok(())
    }

    /// Whether the route was configured or added.
    pub(crate) fn has_route(&self, route: Route) -> bool {
        let wanted = Routes::entry(route);
        self.addresses.routes.iter().any(|entry| entry.same(&wanted))
    }

    /// Removes a route that was configured or added.
    ///
    /// # Errors
    /// `NotFound` if there is no such route.
    pub fn remove_route(&mut self, route: Route) -> io::Result<()> {
        let wanted = Routes::entry(route);
        let removed = self.addresses.routes.remove(|entry| {
            entry.origin == RouteOrigin::Configured
                && (entry.network, entry.bits, entry.gateway)
                    == (wanted.network, wanted.bits, wanted.gateway)
        });
        if !removed {
            let Route { destination, prefix, gateway } = route;
            let how = gateway.map_or("on the link".to_owned(), |gateway| format!("by {gateway}"));
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no route to {destination}/{prefix} {how} was given to this stack"),
            ));
        }
        self.routes_changed();
        Ok(())
    }

    /// The routes, those of our addresses' networks first.
    pub fn routes(&self) -> impl Iterator<Item = RouteInfo> + '_ {
        let own = self.addresses.slots().filter(|(_, slot)| slot.on_link).map(|(_, slot)| {
            let destination = address(network(slot.address, slot.bits));
            let route = Route { destination, prefix: slot.prefix(), gateway: None };
            RouteInfo { route, origin: RouteOrigin::Address, expires: None }
        });
        own.chain(self.addresses.routes.iter().map(|entry| entry.info()))
    }

    /// Who packets go to next is asked again, for every connection.
    pub(crate) fn routes_changed(&mut self) {
        self.last_hop = LastHop::NONE;
        for connection in &mut self.connections {
            connection.neighbour = NeighbourRef::NONE;
        }
    }
}

/// Says what is no address of one host.
pub(crate) fn check_address(own: &InterfaceAddress) -> io::Result<()> {
    let most = if own.address.is_ipv4() { 32 } else { 128 };
    let mapped = matches!(own.address, IpAddr::V6(v6) if v6.to_ipv4().is_some());
    if own.address.is_unspecified() || own.address.is_multicast() || own.prefix > most || mapped {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{}/{} is no address of one host", own.address, own.prefix),
        ));
    }
    Ok(())
}

/// Says what is no route.
pub(crate) fn check_route(route: &Route) -> io::Result<()> {
    let wrong = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let Route { destination, prefix, gateway } = *route;
    let most = if destination.is_ipv4() { 32 } else { 128 };
    if prefix > most {
        return wrong(format!("{destination}/{prefix} is no network: {most} bits are the most"));
    }
    if destination.is_multicast() {
        return wrong(format!("{destination} is a group of hosts; groups need no route"));
    }
    if let IpAddr::V6(v6) = destination
        && word_bits(destination, prefix) >= 96
        && is_v4(v6.to_bits())
    {
        return wrong(format!("{destination}/{prefix} is IPv4 written as IPv6; write it as IPv4"));
    }
    if let Some(gateway) = gateway
        && (gateway.is_ipv4() != destination.is_ipv4()
            || gateway.is_unspecified()
            || gateway.is_multicast())
    {
        return wrong(format!("{gateway} cannot be the gateway to {destination}/{prefix}"));
    }
    Ok(())
}
