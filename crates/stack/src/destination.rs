//! Where packets of ours may go at all, and which way.

use core::net::{IpAddr, SocketAddr};
use std::io;

use crate::address::word;
use crate::first_hop::Path;
use crate::stack::Stack;

/// The same place, with IPv4 that is written as IPv6 written as IPv4 (RFC 4291 §2.5.5.2): what holds
/// for an address holds for it by either name.
pub(crate) fn canonical(place: SocketAddr) -> SocketAddr {
    SocketAddr::new(place.ip().to_canonical(), place.port())
}

/// Why packets to an address must not leave a host (RFC 1122 §3.2.1.3, RFC 4291 §2.5.2 and §2.5.3);
/// `None` if they may.
fn never_leaves(destination: IpAddr) -> Option<&'static str> {
    match destination {
        IpAddr::V4(v4) if v4.is_unspecified() => Some("the unspecified address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("of 0.0.0.0/8, which is no destination"),
        IpAddr::V4(v4) if v4.is_loopback() => Some("a loopback address"),
        IpAddr::V4(v4) if v4.octets()[0] >= 240 && !v4.is_broadcast() => {
            Some("of 240.0.0.0/4, which is reserved")
        }
        IpAddr::V6(v6) if v6.is_unspecified() => Some("the unspecified address"),
        IpAddr::V6(v6) if v6.is_loopback() => Some("the loopback address"),
        _ => None,
    }
}

pub(crate) fn no_source(destination: IpAddr) -> io::Error {
    io::Error::new(
        io::ErrorKind::AddrNotAvailable,
        format!("the stack has no address to send to {destination} from"),
    )
}

impl Stack {
    /// The way to a destination, which must be of a family that this stack speaks, and no address of
    /// its own.
    pub(crate) fn route_to(&self, destination: IpAddr) -> io::Result<Path> {
        if let Some(what) = never_leaves(destination) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{destination} is {what}: packets to it must not leave a host"),
            ));
        }
        if destination.is_ipv6() && !self.addresses.has_v6() {
            return Err(io::Error::new(
                io::ErrorKind::NetworkUnreachable,
                format!("no route to {destination}; the stack has no IPv6 address"),
            ));
        }
        if self.addresses.find_any(word(destination)).is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{destination} is this stack's own address; a stack has no loopback"),
            ));
        }
        self.addresses.route(destination).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NetworkUnreachable,
                format!("no route to {destination}; give the stack a gateway"),
            )
        })
    }
}
