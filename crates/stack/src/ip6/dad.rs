//! Duplicate address detection (RFC 4862 §5.4, RFC 7527; optimistic by RFC 4429).

use core::net::Ipv6Addr;
use core::time::Duration;

use millrace_frames::Instant;
use millrace_wire::ndp::{self, group_mac, solicited_node};

use crate::address::{AddressOrigin, AddressState, is_link_local, is_v4};
use crate::control::{Hop, L4_V6};
use crate::stack::Stack;
use crate::tcp::connection::{Failure, Flags, State};

/// What is under way for an address of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detection {
    /// When to ask again, or to be content. `FAR_FUTURE`: nothing is under way.
    pub(crate) next: Instant,
    pub(crate) sent: u8,
    /// Which address made for the same prefix this is (RFC 7217 §6).
    pub(crate) attempt: u8,
    /// In our solicitations, so that those which come back are known (RFC 7527 §4.1).
    pub(crate) nonce: [u8; 6],
}

impl Detection {
    pub(crate) const NONE: Detection =
        Detection { next: Instant::FAR_FUTURE, sent: 0, attempt: 0, nonce: [0; 6] };
}

/// Addresses made for one prefix before it is given up (RFC 7217 §6, IDGEN_RETRIES).
const MOST_ATTEMPTS: u8 = 3;

impl Stack {
    /// Begins to look whether anybody has a new address of ours; it becomes usable when nobody
    /// answers, or at once where this is off.
    pub(crate) fn detect_duplicate(&mut self, local: u8, delay: Duration) {
        let nonce = self.random().to_be_bytes();
        let (on, optimistic) = (self.config.ipv6.dad_transmits > 0, self.config.ipv6.optimistic);
        let next = self.now + delay;
        self.solicited_group(local, true);
        let Some(slot) = self.addresses.slot_mut(local) else { return };
        if !on {
            return self.address_is_ours(local);
        }
        let [nonce @ .., _, _] = nonce;
        slot.detection = Detection { next, sent: 0, nonce, ..slot.detection };
        let state = if optimistic { AddressState::Optimistic } else { AddressState::Tentative };
        self.addresses.set_state(local, state);
        self.lifetimes_due(next);
    }

    pub(crate) fn detection_timers(&mut self) {
        for local in 0..=u8::MAX {
            let Some(slot) = self.addresses.slot_mut(local) else { continue };
            if slot.detection.next > self.now {
                continue;
            }
            if slot.detection.sent >= self.config.ipv6.dad_transmits {
                self.address_is_ours(local);
                continue;
            }
            slot.detection.next = self.now + self.ip6.retransmit_timer;
            let (address, nonce) = (slot.address, slot.detection.nonce);
            // A question that could not be asked does not count: silence would mean nothing.
            let Some(frame) = self.control_frame() else { continue };
            if let Some(slot) = self.addresses.slot_mut(local) {
                slot.detection.sent += 1;
            }
            let target = Ipv6Addr::from_bits(address);
            let group = solicited_node(target);
            let room = &mut self.control_room(frame)[L4_V6..];
            let len = ndp::emit_neighbour_solicitation(room, target, None, Some(nonce));
            self.counters.neighbour_solicitations_sent += 1;
            self.send_ndp(frame, 0, group.to_bits(), len, Hop::Mac(group_mac(group)));
        }
    }

    /// Nobody else has the address.
    fn address_is_ours(&mut self, local: u8) {
        let now = self.now;
        let Some(slot) = self.addresses.slot_mut(local) else { return };
        slot.detection.next = Instant::FAR_FUTURE;
        let state = match slot.preferred_until > now {
            true => AddressState::Preferred,
            false => AddressState::Deprecated,
        };
        let link_local = is_link_local(slot.address);
        self.addresses.set_state(local, state);
        if link_local {
            // Reports that came from nobody are not for routers to believe (RFC 3590 §4, RFC 3810
            // §5.2.13).
            self.mld.tell_again(now);
            self.advance_multicast();
        }
        // Connections that were opened from it begin now.
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection.local == local
                && connection.state == State::SynSent
                && connection.flags.has(Flags::SEND_SYN)
            {
                self.push_out(index);
            }
        }
    }

    /// Another host has the address, or is about to (RFC 4862 §5.4.5).
    pub(crate) fn address_is_taken(&mut self, local: u8) {
        self.counters.duplicate_addresses += 1;
        let Some(slot) = self.addresses.slot_mut(local) else { return };
        slot.detection.next = Instant::FAR_FUTURE;
        let slot = *slot;
        for index in 0..self.connections.len() {
            let connection = &self.connections[index];
            if connection.local == local && connection.state != State::Closed {
                // A reset would go out from another's address.
                self.connections[index].failure = Some(Failure::Aborted);
                self.end_connection(index);
            }
        }
        self.solicited_group(local, false);
        let attempt = slot.detection.attempt + 1;
        if slot.origin == AddressOrigin::Configured || attempt == MOST_ATTEMPTS {
            // It is told, and for as long as its prefix is advertised no other is made instead: of
            // temporary ones neither (RFC 8981 §3.4).
            if let Some(slot) = self.addresses.slot_mut(local) {
                (slot.renew_at, slot.most_valid) = (Instant::FAR_FUTURE, Instant::FAR_FUTURE);
            }
            return self.addresses.set_state(local, AddressState::Duplicate);
        }
        self.addresses.remove(local);
        self.routes_changed();
        self.make_address(&slot, attempt);
    }

    /// What IPv6 does first: its configured addresses are looked for, a link-local one is made, and
    /// routers are asked to speak up.
    pub(crate) fn start_ipv6(&mut self) {
        for local in 0..=u8::MAX {
            let configured = self.addresses.slot(local).is_some_and(|slot| !is_v4(slot.address));
            if configured {
                self.detect_duplicate(local, Duration::ZERO);
            }
        }
        if self.addresses.has_v6() || self.config.ipv6.router_discovery {
            self.make_link_local();
        }
        if self.config.ipv6.router_discovery {
            self.solicit_routers();
        }
    }
}
