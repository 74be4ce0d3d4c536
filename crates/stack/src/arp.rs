//! ARP (RFC 826): answers for our addresses, questions for others', and what is believed.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use millrace_frames::Frame;
use millrace_wire::mac::Mac;
use millrace_wire::{arp, ether};

use crate::Stack;
use crate::address::{Word, address, word_v4};
use crate::control::{Hop, L2};
use crate::neighbour::Learned;

/// Least time between two announcements that defend an address (RFC 5227 §1.1).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

impl Stack {
    /// An ARP packet whose Ethernet payload begins at `start` of the frame.
    pub(crate) fn arp_packet(&mut self, frame: Frame, start: usize) {
        let Ok(packet) = arp::Packet::parse(&self.arena.bytes(frame)[start..]) else {
            self.counters.drop_arp_malformed += 1;
            return;
        };
        let (operation, sender_mac, sender, target) =
            (packet.operation(), packet.sender_mac(), packet.sender_ip(), packet.target_ip());
        if !sender_mac.is_unicast() || sender.is_broadcast() || sender.is_multicast() {
            self.counters.drop_arp_malformed += 1;
            return;
        }
        self.dhcp_hears_arp(sender_mac, sender, target);
        if let Some(local) = self.addresses.find(word_v4(sender)) {
            if sender_mac != self.config.mac {
                self.counters.address_conflicts += 1;
                self.arp_defend(local, sender);
            }
            self.counters.drop_arp_not_ours += 1;
            return;
        }
        let to_us = self.addresses.find(word_v4(target)).is_some();
        // A probe (RFC 5227) has no sender address yet: there is nothing to learn from it.
        let mut outcome = Learned::Nothing;
        if !sender.is_unspecified() {
            let keys = &self.keys;
            outcome = self.neighbours.learn(keys, word_v4(sender), sender_mac, self.now, to_us);
            self.drop_evicted_packets();
        }
        let learned = outcome != Learned::Nothing;
        if learned {
            self.send_neighbour_packets(sender_mac);
        }
        if let Learned::Overflowed(neighbour) = outcome {
            self.tcp_neighbour_answered(neighbour);
        }
        match operation {
            arp::Operation::Request if to_us => {
                self.arp_send(arp::Operation::Reply, target, sender_mac, sender, sender_mac);
                self.counters.arp_replies_sent += 1;
            }
            _ if learned => {}
            _ => self.counters.drop_arp_not_ours += 1,
        }
    }

    /// Another host claims an address of ours. It is told once; after that, an address from a lease is
    /// given up if the claims go on (RFC 5227 §2.4 b), and any other is kept, for whoever configured
    /// it meant it, but with no more than one announcement an interval: two hosts that both defend
    /// would have no end (§2.4 c).
    fn arp_defend(&mut self, local: u8, own: Ipv4Addr) {
        let now = self.now;
        let Some(slot) = self.addresses.slot_mut(local) else { return };
        if slot.defended.is_some_and(|at| now < at + DEFEND_INTERVAL) {
            self.dhcp_gives_up(own);
            return;
        }
        slot.defended = Some(now);
        self.announce_v4(own);
    }

    /// An ARP announcement (RFC 5227 §2.3).
    pub(crate) fn announce_v4(&mut self, own: Ipv4Addr) {
        self.arp_send(arp::Operation::Request, own, Mac([0; 6]), own, Mac::BROADCAST);
        self.counters.arp_requests_sent += 1;
    }

    /// Asks for a neighbour's address: of itself where it is known, else of all.
    pub(crate) fn arp_request(&mut self, wanted: Word, known: Option<Mac>) {
        let IpAddr::V4(target) = address(wanted) else { return };
        let source = match self.addresses.route(IpAddr::V4(target)) {
            Some(route) => self.addresses.v4(route.local),
            None => return,
        };
        self.arp_send(
            arp::Operation::Request,
            source,
            Mac([0; 6]),
            target,
            known.unwrap_or(Mac::BROADCAST),
        );
        self.counters.arp_requests_sent += 1;
    }

    /// Tells the link who we are, so that what others remember of the address is mended (RFC 5227
    /// §2.3, RFC 4861 §7.2.6). To be called when the port is up.
    pub fn announce(&mut self) {
        for local in 0..=u8::MAX {
            let Some(own) = self.addresses.slot(local).map(|slot| slot.address) else { continue };
            if let IpAddr::V4(own) = address(own) {
                self.announce_v4(own);
            }
        }
        self.announce_v6();
    }

    pub(crate) fn arp_send(
        &mut self,
        operation: arp::Operation,
        source: Ipv4Addr,
        target_mac: Mac,
        target: Ipv4Addr,
        to: Mac,
    ) {
        let Some(frame) = self.control_frame() else { return };
        let mac = self.config.mac;
        let room = self.control_room(frame);
        ether::emit(room, to, mac, ether::EtherType::ARP);
        arp::emit(&mut room[L2..], operation, mac, source, target_mac, target);
        self.control_packet(frame, L2 + arp::LEN, Hop::Mac(to));
    }
}
