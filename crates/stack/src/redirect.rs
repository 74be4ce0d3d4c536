//! Redirects of both families: a router tells of a better first hop to one destination (RFC 1122
//! §3.2.2.2, RFC 4861 §8.3). They are kept among the routes, so many of each family.

use core::time::Duration;

use crate::address::{Word, is_v4};
use crate::route::{Entry, RouteOrigin};
use crate::stack::Stack;

/// How long a redirect is followed.
const LIFETIME: Duration = Duration::from_secs(600);

impl Stack {
    /// Follows a redirect to `target`, which is a router on the link or the destination itself.
    /// Returns false if it is not believed: they are switched off, it is not by the router that
    /// packets to the destination go to, the destination has a route of its own, it leads to
    /// ourselves, or there is no room for it.
    pub(crate) fn follow_redirect(
        &mut self,
        router: Word,
        destination: Word,
        target: Word,
    ) -> bool {
        let Some(corrected) = self.addresses.corrected_by(router, destination) else {
            return false;
        };
        let ours = [target, destination].iter().any(|&one| self.addresses.find_any(one).is_some());
        // What was given for this one host is meant, and is found before what is learned.
        let meant = self.addresses.routes.iter().any(|route| {
            (route.network, route.bits) == (destination, 128)
                && route.origin != RouteOrigin::Redirect
        });
        let most = usize::from(self.config.learned_redirects);
        if !self.config.redirects || most == 0 || meant || ours {
            return false;
        }
        let routes = &mut self.addresses.routes;
        // One for the same destination makes way before another does. From another network of ours
        // packets may go by another router, of whom it says nothing (RFC 8028 §3.4).
        routes.remove(|route| {
            route.origin == RouteOrigin::Redirect
                && (route.network, route.told_by) == (destination, corrected)
        });
        let redirects = || {
            routes.iter().filter(|route| {
                route.origin == RouteOrigin::Redirect && is_v4(route.network) == is_v4(destination)
            })
        };
        if redirects().count() >= most
            && let Some(oldest) = redirects().min_by_key(|route| route.expires).copied()
        {
            routes.remove(|route| route.same(&oldest));
        }
        let expires = self.now + LIFETIME;
        let added = routes.add(Entry {
            network: destination,
            bits: 128,
            // To itself, an IPv6 host is on the link. An IPv4 host is a router to itself, for it is
            // on the link by the network of an address of ours.
            gateway: if target == destination && !is_v4(target) { 0 } else { target },
            origin: RouteOrigin::Redirect,
            told_by: corrected,
            preference: 0,
            expires,
            unreachable: false,
        });
        if added {
            self.counters.redirects_taken += 1;
            self.lifetimes_due(expires);
        }
        // An older one may have made way even so.
        self.routes_changed();
        added
    }
}
