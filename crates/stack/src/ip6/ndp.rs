//! Neighbour discovery (RFC 4861 §7): what neighbours ask and tell, and what is asked of them.

use core::net::Ipv6Addr;

use millrace_frames::Frame;
use millrace_wire::mac::Mac;
use millrace_wire::ndp::{self, AdvertisementFlags, Message, Opt, group_mac, solicited_node};
use millrace_wire::{icmpv6, ipv6, protocol};

use super::group::ALL_NODES;
use crate::address::{AddressState, Word, is_link_local, is_v4};
use crate::control::{Hop, L4_V6};
use crate::ip::{IpInfo, pseudo};
use crate::neighbour::{Advertised, Learned};
use crate::stack::Stack;

/// A longer message has no honest sender on a link whose packets are not longer either.
const MOST: usize = 2048;

impl Stack {
    /// A message of neighbour discovery with a right checksum.
    pub(crate) fn ndp_packet(&mut self, frame: Frame, ip: &IpInfo) {
        const HOP_LIMIT_AT: usize = 7;
        let bytes = self.arena.bytes(frame);
        let from_the_link = bytes[ip.start + HOP_LIMIT_AT] == ndp::HOP_LIMIT;
        let mut copy = [0u8; MOST];
        let whole = bytes.get(ip.payload..ip.payload + ip.len).filter(|all| all.len() <= MOST);
        let message = whole.filter(|_| from_the_link).and_then(|bytes| {
            let copy = &mut copy[..bytes.len()];
            copy.copy_from_slice(bytes);
            Message::parse(copy).ok().flatten()
        });
        let taken = match message {
            None => false,
            // A host answers no router's question.
            Some(Message::RouterSolicitation { .. }) => {
                self.counters.drop_ndp_not_ours += 1;
                true
            }
            Some(Message::NeighbourSolicitation { target, options }) => {
                let nonce = options.into_iter().find_map(|option| match option {
                    Opt::Nonce(nonce) => nonce.first_chunk().copied(),
                    _ => None,
                });
                self.solicited(ip, target, options.source_link_layer(), nonce)
            }
            Some(Message::NeighbourAdvertisement {
                router,
                solicited,
                override_,
                target,
                options,
            }) => {
                let flags = AdvertisementFlags { router, solicited, override_ };
                self.advertised(ip, target, flags, options.target_link_layer())
            }
            Some(message @ Message::RouterAdvertisement { .. }) => {
                self.router_advertisement(ip, &message)
            }
            Some(Message::Redirect { target, destination, options }) => {
                self.redirected(ip, target, destination, options.target_link_layer())
            }
        };
        if !taken {
            self.counters.drop_ndp_malformed += 1;
        }
    }

    /// A neighbour solicitation. Returns false if it is malformed (RFC 4861 §7.1.1).
    fn solicited(
        &mut self,
        ip: &IpInfo,
        target: Ipv6Addr,
        mac: Option<Mac>,
        nonce: Option<[u8; 6]>,
    ) -> bool {
        let nobody = ip.source == 0;
        if is_no_target(target)
            || mac.is_some_and(|mac| !mac.is_unicast())
            || nobody && (mac.is_some() || ip.destination != solicited_node(target).to_bits())
        {
            return false;
        }
        let found = self.addresses.find_any(target.to_bits());
        let found = found.and_then(|local| Some((local, *self.addresses.slot(local)?)));
        let Some((local, slot)) = found else {
            self.counters.drop_ndp_not_ours += 1;
            return true;
        };
        let detecting =
            matches!(slot.state, Some(AddressState::Tentative | AddressState::Optimistic));
        if nobody && detecting && nonce != Some(slot.detection.nonce) {
            // Another one is just about to take the same address (RFC 4862 §5.4.3).
            self.address_is_taken(local);
            return true;
        }
        let ours = self.addresses.find(slot.address).is_some() && !(nobody && detecting);
        if !ours || (!nobody && !self.addresses.may_be_a_host(ip.source)) {
            self.counters.drop_ndp_not_ours += 1;
            return true;
        }
        if let (false, Some(mac)) = (nobody, mac) {
            self.learn_neighbour(ip.source, mac);
        }
        let (to, hop) = match nobody {
            true => (ALL_NODES.to_bits(), Hop::Mac(group_mac(ALL_NODES))),
            false => (ip.source, Hop::Mac(ip.mac)),
        };
        self.advertise(local, to, hop, !nobody);
        true
    }

    /// Tells our hardware address.
    fn advertise(&mut self, local: u8, to: Word, hop: Hop, solicited: bool) {
        let address = self.addresses.word(local);
        let optimistic = self.addresses.slot(local).map(|slot| slot.state)
            == Some(Some(AddressState::Optimistic));
        let flags = AdvertisementFlags {
            router: false,
            solicited,
            // What may yet turn out to be another's must not be overridden (RFC 4429 §3.2).
            override_: !optimistic,
        };
        let Some(frame) = self.control_frame() else { return };
        let mac = self.config.mac;
        let room = &mut self.control_room(frame)[L4_V6..];
        let target = Ipv6Addr::from_bits(address);
        let len = ndp::emit_neighbour_advertisement(room, target, flags, Some(mac));
        self.counters.neighbour_advertisements_sent += 1;
        self.send_ndp(frame, address, to, len, hop);
    }

    /// Tells the link who we are, for each IPv6 address in use (RFC 4861 §7.2.6).
    pub(crate) fn announce_v6(&mut self) {
        for local in 0..=u8::MAX {
            let Some(slot) = self.addresses.slot(local) else { continue };
            if !is_v4(slot.address) && self.addresses.find(slot.address).is_some() {
                self.advertise(local, ALL_NODES.to_bits(), Hop::Mac(group_mac(ALL_NODES)), false);
            }
        }
    }

    /// A neighbour advertisement. Returns false if it is malformed (RFC 4861 §7.1.2).
    fn advertised(
        &mut self,
        ip: &IpInfo,
        target: Ipv6Addr,
        flags: AdvertisementFlags,
        mac: Option<Mac>,
    ) -> bool {
        if is_no_target(target)
            || (ip.many && flags.solicited)
            || mac.is_some_and(|mac| !mac.is_unicast())
            || ip.source == 0
        {
            return false;
        }
        let target = target.to_bits();
        if let Some(local) = self.addresses.find_any(target) {
            if mac == Some(self.config.mac) {
                // Our own, come back.
                self.counters.drop_ndp_not_ours += 1;
                return true;
            }
            match self.addresses.slot(local).and_then(|slot| slot.state) {
                Some(AddressState::Tentative | AddressState::Optimistic) => {
                    self.address_is_taken(local);
                }
                _ => {
                    self.counters.address_conflicts += 1;
                    self.counters.drop_ndp_not_ours += 1;
                }
            }
            return true;
        }
        let advertised = Advertised { mac, solicited: flags.solicited, override_: flags.override_ };
        let (outcome, mac) = self.neighbours.advertised(&self.keys, target, advertised, self.now);
        let Some(mac) = mac else {
            // RFC 4861 §7.2.5: what the cache does not take says nothing of a router either.
            self.counters.drop_ndp_not_ours += 1;
            return true;
        };
        self.neighbour_learned(target, mac, outcome);
        if !flags.router {
            self.no_router_any_more(target);
        }
        true
    }

    /// A neighbour showed its hardware address without being asked (RFC 4861 §7.2.3).
    pub(crate) fn learn_neighbour(&mut self, address: Word, mac: Mac) {
        let outcome = self.neighbours.learn_stale(&self.keys, address, mac, self.now);
        self.drop_evicted_packets();
        self.neighbour_learned(address, mac, outcome);
    }

    fn neighbour_learned(&mut self, address: Word, mac: Mac, outcome: Learned) {
        self.addresses.routes.gateway_answers(address);
        self.send_neighbour_packets(mac);
        if let Learned::Overflowed(neighbour) = outcome {
            self.tcp_neighbour_answered(neighbour);
        }
    }

    /// Asks for a neighbour's address: of itself where it is known, else of all who may have it.
    pub(crate) fn neighbour_solicitation(&mut self, wanted: Word, known: Option<Mac>) {
        // From an address that others may remember with ours; there may be none yet, and then the
        // next attempt has one.
        let source = self.addresses.source(wanted).filter(|&local| {
            matches!(
                self.addresses.slot(local).and_then(|slot| slot.state),
                Some(AddressState::Preferred | AddressState::Deprecated)
            )
        });
        let Some(local) = source else { return };
        let source = self.addresses.word(local);
        let target = Ipv6Addr::from_bits(wanted);
        let group = solicited_node(target);
        let (to, hop) = match known {
            Some(mac) => (wanted, Hop::Mac(mac)),
            None => (group.to_bits(), Hop::Mac(group_mac(group))),
        };
        let Some(frame) = self.control_frame() else { return };
        let mac = self.config.mac;
        let room = &mut self.control_room(frame)[L4_V6..];
        let len = ndp::emit_neighbour_solicitation(room, target, Some(mac), None);
        self.counters.neighbour_solicitations_sent += 1;
        self.send_ndp(frame, source, to, len, hop);
    }

    /// Finishes and queues a message of neighbour discovery that was written behind the header.
    pub(crate) fn send_ndp(&mut self, frame: Frame, source: Word, to: Word, len: usize, hop: Hop) {
        let header = ipv6::Header {
            source: Ipv6Addr::from_bits(source),
            destination: Ipv6Addr::from_bits(to),
            next_header: protocol::ICMPV6,
            hop_limit: ndp::HOP_LIMIT,
            traffic_class: 0,
            flow_label: 0,
        };
        self.control_header_v6(frame, header, len);
        let pseudo = pseudo(source, to, protocol::ICMPV6, len);
        icmpv6::fill_checksum(&mut self.control_room(frame)[L4_V6..L4_V6 + len], pseudo);
        self.control_packet(frame, L4_V6 + len, hop);
    }

    /// Whether a message may come from a router: from its link-local address (RFC 4861 §6.1.2).
    pub(crate) fn is_from_router(&self, ip: &IpInfo) -> bool {
        is_link_local(ip.source) && self.addresses.find_any(ip.source).is_none()
    }
}

/// Whether nobody on a link can have the address: a group's, or one of IPv4 written as IPv6, which
/// looks like a neighbour of IPv4 inside.
fn is_no_target(target: Ipv6Addr) -> bool {
    target.is_multicast() || is_v4(target.to_bits())
}
