//! Router discovery (RFC 4861 §6.3, RFC 7559, RFC 4191) and redirects (RFC 4861 §8.3).

use core::net::Ipv6Addr;
use core::time::Duration;

use millrace_frames::Instant;
use millrace_wire::ipv6::MIN_MTU;
use millrace_wire::mac::Mac;
use millrace_wire::ndp::{self, Message, Opt, Preference, Prefix, group_mac};

use super::group::ALL_ROUTERS;
use crate::address::{AddressState, Word, address, is_link_local, is_v4, network};
use crate::control::{Hop, L4_V6};
use crate::ip::IpInfo;
use crate::route::{Entry, RouteOrigin};
use crate::stack::Stack;

/// When routers are asked to speak up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Solicitation {
    /// `FAR_FUTURE`: they need not be asked.
    pub(crate) next: Instant,
    interval: Duration,
}

impl Default for Solicitation {
    fn default() -> Self {
        Solicitation { next: Instant::FAR_FUTURE, interval: Duration::ZERO }
    }
}

/// RFC 4861 §10: the first question waits up to so long, so that hosts that start together do not
/// ask together.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// RFC 7559 §2.
const FIRST_INTERVAL: Duration = Duration::from_secs(4);
const MOST_INTERVAL: Duration = Duration::from_secs(3600);
/// A smaller hop limit would cut us off from the network: no router means that (compare
/// CVE-2015-2922).
const LEAST_HOP_LIMIT: u8 = 32;
/// What a router may set the timers to.
const RETRANSMIT_BOUNDS: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(60));
const REACHABLE_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// When a lifetime in seconds ends; all ones do not.
pub(crate) fn end(now: Instant, seconds: u32) -> Instant {
    match seconds {
        u32::MAX => Instant::FAR_FUTURE,
        seconds => now + Duration::from_secs(seconds.into()),
    }
}

impl Stack {
    /// Begins to ask for routers.
    pub(crate) fn solicit_routers(&mut self) {
        let next = self.now + self.random_time(FIRST_DELAY);
        self.ip6.solicitation = Solicitation { next, interval: FIRST_INTERVAL };
        self.lifetimes_due(next);
    }

    pub(crate) fn router_timers(&mut self) {
        let now = self.now;
        if self.addresses.routes.next_expiry() <= now {
            self.addresses.routes.remove(|route| route.expires <= now);
            self.routes_changed();
            self.ask_if_no_router_is_left();
        }
        if self.ip6.solicitation.next <= now {
            self.router_solicitation();
            // Twice the last interval, more or less a tenth (RFC 7559 §2 after RFC 8415 §15).
            let interval = self.ip6.solicitation.interval;
            let next = now + interval;
            let doubled = interval * 2 - interval / 10 + self.random_time(interval / 5);
            let interval = match doubled > MOST_INTERVAL {
                true => MOST_INTERVAL - MOST_INTERVAL / 10 + self.random_time(MOST_INTERVAL / 5),
                false => doubled,
            };
            self.ip6.solicitation = Solicitation { next, interval };
        }
    }

    /// Whether a router has told a way to everywhere.
    fn knows_router(&self) -> bool {
        let mut routes = self.addresses.routes.iter();
        routes.any(|route| route.origin == RouteOrigin::Router && route.bits == 0)
    }

    fn ask_if_no_router_is_left(&mut self) {
        if self.config.ipv6.router_discovery
            && !self.knows_router()
            && self.ip6.solicitation.next == Instant::FAR_FUTURE
        {
            self.solicit_routers();
        }
    }

    fn router_solicitation(&mut self) {
        // From nobody while no link-local address is ours yet: the answer goes to all then.
        let (source, state) = self
            .addresses
            .slots()
            .map(|(_, slot)| (slot.address, slot.state))
            .find(|&(own, _)| is_link_local(own) && self.addresses.find(own).is_some())
            .unwrap_or((0, None));
        let Some(frame) = self.control_frame() else { return };
        // A router must not note our hardware address for one that may turn out to be another
        // host's (RFC 4429 §3.2).
        let sure = source != 0 && state != Some(AddressState::Optimistic);
        let mac = sure.then_some(self.config.mac);
        let len = ndp::emit_router_solicitation(&mut self.control_room(frame)[L4_V6..], mac);
        self.counters.router_solicitations_sent += 1;
        let hop = Hop::Mac(group_mac(ALL_ROUTERS));
        self.send_ndp(frame, source, ALL_ROUTERS.to_bits(), len, hop);
    }

    /// A router advertisement. Returns false if it is malformed (RFC 4861 §6.1.2).
    pub(crate) fn router_advertisement(&mut self, ip: &IpInfo, message: &Message<'_>) -> bool {
        let &Message::RouterAdvertisement {
            hop_limit,
            preference,
            lifetime,
            reachable_time,
            retransmit_timer,
            options,
            ..
        } = message
        else {
            return false;
        };
        if !self.is_from_router(ip) {
            return false;
        }
        if !self.config.ipv6.router_discovery {
            self.counters.drop_ndp_not_ours += 1;
            return true;
        }
        self.counters.router_advertisements += 1;
        if hop_limit >= LEAST_HOP_LIMIT {
            self.ip6.hop_limit = hop_limit;
        }
        let within = |millis: u32, bounds: (Duration, Duration)| {
            let time = Duration::from_millis(millis.into());
            (millis != 0).then(|| time.clamp(bounds.0, bounds.1))
        };
        if let Some(time) = within(retransmit_timer, RETRANSMIT_BOUNDS) {
            self.ip6.retransmit_timer = time;
            self.neighbours.set_retransmit_v6(time);
        }
        if let Some(base) = within(reachable_time, REACHABLE_BOUNDS) {
            // RFC 4861 §6.3.2: from half of it to one and a half.
            let time = base / 2 + self.random_time(base);
            self.neighbours.set_reachable_v6(time);
        }
        // The default route first: what else is told must not leave it without room. It may be said
        // once more, and better (RFC 4191 §3.1).
        let mut default = (preference, u32::from(lifetime));
        for option in options {
            if let Opt::RouteInformation { prefix: 0, preference, lifetime, .. } = option {
                default = (preference, lifetime);
            }
        }
        self.learn_route(Ipv6Addr::UNSPECIFIED, 0, ip.source, default.0, default.1);
        for option in options {
            match option {
                Opt::SourceLinkLayer(mac) if mac.is_unicast() => {
                    self.learn_neighbour(ip.source, mac);
                }
                Opt::Mtu(mtu) => self.link_mtu(mtu),
                Opt::PrefixInformation(prefix) => self.advertised_prefix(&prefix, ip.source),
                Opt::RouteInformation { network, prefix, preference, lifetime } if prefix > 0 => {
                    self.learn_route(network, prefix, ip.source, preference, lifetime);
                }
                Opt::NameServers { lifetime, servers } => {
                    self.learn_name_servers(ip.source, servers, lifetime);
                }
                Opt::SearchDomains { lifetime, names } => {
                    self.learn_search_domains(ip.source, names, lifetime);
                }
                _ => {}
            }
        }
        if self.knows_router() {
            self.ip6.solicitation.next = Instant::FAR_FUTURE;
        } else {
            self.ask_if_no_router_is_left();
        }
        self.schedule_ipv6();
        true
    }

    fn link_mtu(&mut self, mtu: u32) {
        // More than the link takes cannot be meant for us.
        if mtu as usize >= MIN_MTU && mtu <= u32::from(self.ip6.most_mtu) {
            self.change_link_mtu(|stack| stack.ip6.mtu = mtu as u16);
        }
    }

    /// A route by a router, for so many seconds; 0: it ends.
    fn learn_route(
        &mut self,
        destination: Ipv6Addr,
        bits: u8,
        gateway: Word,
        preference: Preference,
        lifetime: u32,
    ) {
        let destination = network(destination.to_bits(), bits);
        // IPv4 written as IPv6 would be a way of IPv4's inside.
        let nowhere =
            is_v4(destination) || is_link_local(destination) || address(destination).is_multicast();
        if bits > 0 && nowhere {
            return;
        }
        let preference = match preference {
            Preference::Low => -1,
            Preference::Medium => 0,
            Preference::High => 1,
        };
        self.learn(Entry {
            network: destination,
            bits,
            gateway,
            origin: RouteOrigin::Router,
            told_by: gateway,
            preference,
            expires: end(self.now, lifetime),
            unreachable: false,
        });
    }

    /// A prefix of a router's whose hosts are on the link, for so many seconds.
    pub(crate) fn learn_on_link(&mut self, prefix: &Prefix, router: Word) {
        self.learn(Entry {
            network: network(prefix.network.to_bits(), prefix.len),
            bits: prefix.len,
            gateway: 0,
            origin: RouteOrigin::Router,
            told_by: router,
            preference: 0,
            expires: end(self.now, prefix.valid_lifetime),
            unreachable: false,
        });
    }

    fn learn(&mut self, entry: Entry) {
        let same = |other: &Entry| {
            (other.network, other.bits, other.gateway, other.origin)
                == (entry.network, entry.bits, entry.gateway, entry.origin)
        };
        if entry.expires <= self.now {
            if self.addresses.routes.remove(same) {
                self.routes_changed();
            }
            return;
        }
        let learned =
            self.addresses.routes.iter().filter(|route| route.origin == RouteOrigin::Router);
        let (count, known) = learned.fold((0, None), |(count, known), route| {
            (count + 1, known.or(same(route).then_some(route.preference)))
        });
        let full = count >= usize::from(self.config.ipv6.learned_routes)
            || self.addresses.routes.is_full();
        if known.is_none() && full {
            self.counters.learned_routes_refused += 1;
            if !self.addresses.routes.make_room(entry.told_by) {
                return;
            }
        }
        self.addresses.routes.add(entry);
        self.lifetimes_due(entry.expires);
        if known != Some(entry.preference) {
            self.routes_changed();
        }
    }

    /// A neighbour that was a router says that it is none (RFC 4861 §7.3.3).
    pub(crate) fn no_router_any_more(&mut self, neighbour: Word) {
        let gone = self.addresses.routes.remove(|route| {
            route.gateway == neighbour
                && matches!(route.origin, RouteOrigin::Router | RouteOrigin::Redirect)
        });
        if gone {
            self.routes_changed();
            self.ask_if_no_router_is_left();
        }
    }

    /// A redirect. Returns false if it is malformed (RFC 4861 §8.1).
    pub(crate) fn redirected(
        &mut self,
        ip: &IpInfo,
        target: Ipv6Addr,
        destination: Ipv6Addr,
        mac: Option<Mac>,
    ) -> bool {
        let (target_word, destination_word) = (target.to_bits(), destination.to_bits());
        let to_itself = target == destination;
        if !self.is_from_router(ip)
            || destination.is_multicast()
            || destination_word >> 64 == 0
            || !(to_itself || is_link_local(target_word))
            || mac.is_some_and(|mac| !mac.is_unicast())
        {
            return false;
        }
        if !self.follow_redirect(ip.source, destination_word, target_word) {
            self.counters.drop_ndp_not_ours += 1;
        } else if let Some(mac) = mac {
            self.learn_neighbour(target_word, mac);
        }
        true
    }
}
