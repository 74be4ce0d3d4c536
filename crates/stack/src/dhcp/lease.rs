//! What a DHCP server gives, as far as it makes sense.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use millrace_frames::Instant;
use millrace_wire::dhcpv4::{Packet, option};
use millrace_wire::domain::Names;

use crate::config::InterfaceAddress;
use crate::route::Route;

/// Most routes that are taken of one lease: as many as a message of 1500 bytes has. The routing table
/// has a bound of its own, and counts what it refuses.
const MOST_ROUTES: usize = 256;
/// Longest domain name, as text (RFC 1035 §2.3.4).
const MOST_NAME: usize = 253;
/// Most name servers that are remembered, and most domains.
const MOST_SERVERS: usize = 8;
/// A lease without an end (RFC 2131 §3.3).
const INFINITE: u32 = u32::MAX;
/// An MTU below this is no IPv4 link's (RFC 791).
const LEAST_MTU: u16 = 576;

/// An address from a DHCP server, and what it told with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address and its network's prefix.
    pub address: InterfaceAddress,
    /// The server.
    pub server: Ipv4Addr,
    /// Routes: those of option 121, else the default one by the first router (RFC 3442).
    pub routes: Vec<Route>,
    /// Name servers, the best first.
    pub name_servers: Vec<IpAddr>,
    /// The domain that the host is in.
    pub domain: Option<String>,
    /// Domains that names are completed with, in that order (RFC 3397).
    pub search_domains: Vec<String>,
    /// Largest IP packet of the link, in bytes.
    pub mtu: Option<u16>,
    /// When the server is asked to prolong it; `None`: never.
    pub renew_at: Option<Instant>,
    /// When any server is asked; `None`: never.
    pub rebind_at: Option<Instant>,
    /// When it ends; `None`: never.
    pub expires: Option<Instant>,
}

/// Whether a host may have the address: no network's own, group's, loopback's or reserved one.
pub(super) fn is_a_hosts(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first < 224 && !address.is_loopback()
}

/// Domains of option 119; none if any of them makes no sense.
fn search_domains(bytes: &[u8]) -> Vec<String> {
    let names = Names::parse_compressed(bytes).into_iter().flatten();
    let plain = names.filter(|name| name.is_plain());
    plain.map(|name| name.to_string()).take(MOST_SERVERS).collect()
}

/// Bits of a mask; `None` if it has holes or covers nothing.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let prefix = bits.leading_ones();
    (prefix > 0 && prefix + bits.trailing_zeros().min(32) >= 32).then_some(prefix as u8)
}

/// The prefix that the classes of old gave, for servers that tell no mask.
fn classful(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// The routes of a host that has a network of its own, and those to their routers: no other host is
/// on the link unless a route says so.
fn with_routers(routes: Vec<Route>) -> Vec<Route> {
    let mut all = routes;
    for at in 0..all.len() {
        let Some(router) = all[at].gateway else { continue };
        let leads = |route: &Route| route.gateway.is_none() && covers(route, router);
        if !all.iter().any(leads) {
            all.push(Route { destination: router, prefix: 32, gateway: None });
        }
    }
    all
}

fn covers(route: &Route, address: IpAddr) -> bool {
    let (IpAddr::V4(network), IpAddr::V4(address)) = (route.destination, address) else {
        return false;
    };
    (network.to_bits() ^ address.to_bits()).leading_zeros() >= route.prefix.into()
}

impl Lease {
    /// Reads an acknowledgement that came at `now`. `None` if it gives no usable address for a
    /// time.
    pub(super) fn read(packet: &Packet<'_>, now: Instant) -> Option<Lease> {
        let address = packet.your_address();
        let bits = match packet.address_option(option::SUBNET_MASK) {
            Some(mask) => prefix(mask)?,
            None => classful(address),
        };
        let host = address.to_bits() & u32::MAX.checked_shr(bits.into()).unwrap_or(0);
        let all = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
        if !is_a_hosts(address) || (bits < 31 && (host == 0 || host == all)) {
            return None;
        }
        let seconds = packet.long_option(option::LEASE_TIME).filter(|&seconds| seconds > 0)?;
        let server = packet.address_option(option::SERVER_IDENTIFIER)?;
        let at = |millis: u64| Some(now + Duration::from_millis(millis));
        let (renew_at, rebind_at, expires) = if seconds == INFINITE {
            (None, None, None)
        } else {
            // In milliseconds, so that of the shortest lease, too, half is over before the server is
            // asked again: one that answers at once is asked twice a second at most.
            let given = |code| packet.long_option(code).map(|time| u64::from(time) * 1000);
            let lease = u64::from(seconds) * 1000;
            let rebinding = given(option::REBINDING_TIME).filter(|&time| time > 0 && time < lease);
            let rebinding = rebinding.unwrap_or(lease * 7 / 8);
            let renewal = given(option::RENEWAL_TIME).filter(|&time| time > 0 && time < rebinding);
            (at(renewal.unwrap_or((lease / 2).min(rebinding))), at(rebinding), at(lease))
        };
        let on_link = |router: Ipv4Addr| {
            bits == 32 || (router.to_bits() ^ address.to_bits()).leading_zeros() >= bits.into()
        };
        let anothers = |router: Ipv4Addr| is_a_hosts(router) && router != address;
        let usable = |router: Ipv4Addr| anothers(router) && on_link(router);
        let text = |code| {
            let text = String::from_utf8(packet.joined(code).collect()).ok()?;
            let text = text.trim_end_matches('\0');
            let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
            (plain && (1..=MOST_NAME).contains(&text.len())).then(|| text.to_owned())
        };
        let mut routes: Vec<Route> = match packet.classless_routes() {
            // RFC 3442: with them the routers of option 3 are to be ignored.
            Some(routes) => routes
                // Another of them may lead to the router; whether one does is seen when they are taken.
                .filter(|route| route.router.is_unspecified() || anothers(route.router))
                .filter(|route| !route.destination.is_multicast())
                .map(|route| Route {
                    destination: route.destination.into(),
                    prefix: route.prefix,
                    gateway: (!route.router.is_unspecified()).then(|| route.router.into()),
                })
                .take(MOST_ROUTES)
                .collect(),
            None => packet
                .addresses(option::ROUTER)
                .find(|&router| usable(router))
                .map(|router| Route::default_by(router.into()))
                .into_iter()
                .collect(),
        };
        if bits == 32 {
            routes = with_routers(routes);
        }
        // A router is found by the route that leads to it, which so comes first.
        routes.sort_by_key(|route| route.gateway.is_some());
        Some(Lease {
            address: InterfaceAddress { address: address.into(), prefix: bits },
            server,
            routes,
            name_servers: packet
                .addresses(option::DOMAIN_NAME_SERVER)
                .filter(|&server| is_a_hosts(server))
                .map(IpAddr::V4)
                .take(MOST_SERVERS)
                .collect(),
            domain: text(option::DOMAIN_NAME),
            search_domains: search_domains(
                &packet.joined(option::DOMAIN_SEARCH).collect::<Vec<_>>(),
            ),
            mtu: packet.short_option(option::INTERFACE_MTU).filter(|&mtu| mtu >= LEAST_MTU),
            renew_at,
            rebind_at,
            expires,
        })
    }

    pub(super) fn v4(&self) -> Ipv4Addr {
        match self.address.address {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_no_holes() {
        let bits = |a: u8, b: u8, c: u8, d: u8| prefix(Ipv4Addr::new(a, b, c, d));
        assert_eq!(bits(255, 255, 255, 0), Some(24));
        assert_eq!(bits(255, 255, 255, 255), Some(32));
        assert_eq!(bits(128, 0, 0, 0), Some(1));
        assert_eq!(bits(0, 0, 0, 0), None);
        assert_eq!(bits(255, 0, 255, 0), None);
        assert_eq!(bits(0, 255, 255, 255), None);
    }
}
