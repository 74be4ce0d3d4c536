//! MLDv2 as a host speaks it (RFC 3810), and version 1 where a router does.

use core::net::Ipv6Addr;

use millrace_frames::Frame;
use millrace_wire::mac::Mac;
use millrace_wire::mld::{self, Kind, RECORD_LEN, REPORT_LEN, V1_LEN};
use millrace_wire::{checksum, ether, ipv6, protocol};

use crate::Stack;
use crate::address::{AddressState, Word, is_link_local};
use crate::control::{Hop, L2};
use crate::group::{Query, Record, Tell};
use crate::ip::{IpInfo, pseudo};
use crate::multicast::{ALL_NODES_V6, group_mac, is_reported};

/// Where reports of version 2 go (RFC 3810 §5.2.14).
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const HOP_BY_HOP: u8 = 0;
/// The option that makes routers look (RFC 2711): an MLD message is inside.
const ROUTER_ALERT: [u8; 4] = [5, 2, 0, 0];
/// A hop-by-hop header with it, and padding.
const ALERT: [u8; 8] = [protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0];
const HEADERS: usize = ipv6::HEADER_LEN + ALERT.len();

impl Stack {
    /// A listener discovery message whose checksum is right.
    pub(crate) fn mld_packet(&mut self, frame: Frame, ip: &IpInfo) {
        let bytes = &self.arena.bytes(frame)[ip.start..];
        let (headers, rest) = bytes.split_at(ip.payload - ip.start);
        let Some(Ok(Some(message))) = rest.get(..ip.len).map(mld::parse) else {
            self.counters.drop_mld_malformed += 1;
            return;
        };
        // RFC 3810 §5.1.14, §6.2: what comes from off the link is forged.
        let honest = headers[7] == 1 && is_link_local(ip.source) && has_router_alert(headers);
        let heard = match message {
            _ if !honest => false,
            Kind::Query(query) => {
                let group = query.group.to_bits();
                let destination = if group == 0 { ALL_NODES_V6 } else { group };
                let meant = ip.destination == destination || !ip.many;
                let query = Query {
                    older: 2 - query.version,
                    // RFC 3810 §8.2.1: any of version 1, unlike IGMP's.
                    decides: true,
                    max_response: query.max_response,
                    group,
                    sources: query.sources().map(Ipv6Addr::to_bits).collect(),
                    robustness: query.robustness,
                    interval: query.interval,
                };
                meant && (group == 0 || group >> 120 == 0xff) && {
                    self.counters.multicast_queries += 1;
                    self.mld.query(&self.keys, &query, self.now, is_reported);
                    true
                }
            }
            Kind::ReportV1(group) => self.mld.heard_report(group.to_bits(), self.now),
            Kind::Done(_) | Kind::ReportV2 => false,
        };
        if !heard {
            self.counters.drop_mld_ignored += 1;
        }
    }

    /// Sends what routers are to be told.
    pub(crate) fn mld_tell(&mut self, tell: Tell) {
        if !self.addresses.has_v6() {
            // Nobody asks for IPv6 groups of a host that speaks no IPv6.
            return;
        }
        match tell {
            Tell::Records(records) => self.mld_report(&records),
            Tell::Listens(group) => self.mld_v1(mld::REPORT_V1, group, Ipv6Addr::from_bits(group)),
            Tell::Leaves(group) => self.mld_v1(mld::DONE, group, ALL_ROUTERS),
        }
    }

    fn mld_v1(&mut self, kind: u8, group: Word, to: Ipv6Addr) {
        let Some(frame) = self.control_frame() else { return };
        let room = &mut self.control_room(frame)[L2 + HEADERS..];
        mld::emit_v1(room, kind, Ipv6Addr::from_bits(group));
        self.mld_send(frame, V1_LEN, to);
    }

    /// Sends records in as many reports as it takes.
    fn mld_report(&mut self, records: &[Record]) {
        let most = self.one_packet_v6() - HEADERS;
        let room = most - REPORT_LEN - RECORD_LEN;
        let mut records = records.iter().flat_map(|record| record.pieces(room, 16));
        let mut next = records.next();
        while next.is_some() {
            let Some(frame) = self.control_frame() else { return };
            let room = &mut self.control_room(frame)[L2 + HEADERS..];
            let (mut len, mut count) = (REPORT_LEN, 0);
            while let Some((kind, group, sources)) = next {
                if len + RECORD_LEN + 16 * sources.len() > most {
                    break;
                }
                let group = Ipv6Addr::from_bits(group);
                let sources = sources.iter().map(|&source| Ipv6Addr::from_bits(source));
                len += mld::emit_record(&mut room[len..], kind, group, sources);
                count += 1;
                next = records.next();
            }
            mld::emit_report(room, count);
            self.mld_send(frame, len, MLD_ROUTERS);
        }
    }

    /// Sends the message that was written behind the headers.
    fn mld_send(&mut self, frame: Frame, len: usize, to: Ipv6Addr) {
        // RFC 3810 §5.2.13: until there is a link-local address, from nobody.
        let usable = [Some(AddressState::Preferred), Some(AddressState::Deprecated)];
        let source = self
            .addresses
            .slots()
            .find(|(_, slot)| is_link_local(slot.address) && usable.contains(&slot.state))
            .map_or(Ipv6Addr::UNSPECIFIED, |(_, slot)| Ipv6Addr::from_bits(slot.address));
        let mac = self.config.mac;
        let room = self.control_room(frame);
        ether::emit(room, Mac([0; 6]), mac, ether::EtherType::IPV6);
        let header = ipv6::Header {
            source,
            destination: to,
            next_header: HOP_BY_HOP,
            hop_limit: 1,
            traffic_class: 0,
            flow_label: 0,
        };
        header.emit(&mut room[L2..], ALERT.len() + len);
        room[L2 + ipv6::HEADER_LEN..L2 + HEADERS].copy_from_slice(&ALERT);
        let message = &mut room[L2 + HEADERS..][..len];
        message[2..4].fill(0);
        let pseudo = pseudo(source.to_bits(), to.to_bits(), protocol::ICMPV6, len);
        let sum = checksum::finish(checksum::add(pseudo, checksum::sum(message)));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.counters.multicast_reports += 1;
        self.control_packet(frame, L2 + HEADERS + len, Hop::Mac(group_mac(to.to_bits())));
    }
}

/// Whether the headers before a message begin with hop-by-hop options that alert routers.
fn has_router_alert(headers: &[u8]) -> bool {
    let Some(options) = headers.get(ipv6::HEADER_LEN..) else { return false };
    let &[_, len, ..] = options else { return false };
    let Some(mut rest) = options.get(2..(usize::from(len) + 1) * 8) else { return false };
    if headers[6] != HOP_BY_HOP {
        return false;
    }
    while let Some(&kind) = rest.first() {
        if rest.starts_with(&ROUTER_ALERT) {
            return true;
        }
        let len = if kind == 0 { 1 } else { rest.get(1).map_or(1, |&len| usize::from(len) + 2) };
        rest = rest.get(len..).unwrap_or_default();
    }
    false
}
