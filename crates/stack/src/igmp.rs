//! IGMPv3 as a host speaks it (RFC 3376), and older versions where a router does.

use core::net::Ipv4Addr;

use millrace_frames::Frame;
use millrace_wire::igmp::{self, HEADER_LEN, Kind, Old, RECORD_LEN};
use millrace_wire::mac::Mac;
use millrace_wire::{checksum, ether, ipv4, protocol};

use crate::Stack;
use crate::address::{Word, is_v4, word_v4};
use crate::control::{Hop, L2};
use crate::group::{Query, Record, Tell};
use crate::ip::IpInfo;
use crate::multicast::{ALL_HOSTS_V4, group_mac, is_reported};

/// Where reports of version 3 go (RFC 3376 §4.2.14).
const IGMP_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// Option that makes routers look (RFC 2113).
const ROUTER_ALERT: [u8; 4] = [148, 4, 0, 0];
/// Internetwork control (RFC 3376 §4).
const TOS: u8 = 0xc0;
const HEADERS: usize = ipv4::HEADER_LEN + ROUTER_ALERT.len();

impl Stack {
    /// An IGMP message.
    pub(crate) fn igmp_packet(&mut self, frame: Frame, ip: &IpInfo) {
        let bytes = &self.arena.bytes(frame)[ip.start..];
        let (header, rest) = bytes.split_at(ip.payload - ip.start);
        let message = rest.get(..ip.len).map(igmp::Packet::parse);
        let Some(Ok(message)) =
            message.filter(|message| message.as_ref().is_ok_and(igmp::Packet::verify_checksum))
        else {
            self.counters.drop_igmp_malformed += 1;
            return;
        };
        let heard = match message.kind() {
            Kind::Query(query) => {
                let group = word_v4(query.group);
                // RFC 3376 §9.1: what comes from off the link, or is for another group than it
                // asks for, is forged.
                let general = query.group.is_unspecified();
                let destination = if general { ALL_HOSTS_V4 } else { group };
                let alert = query.version == 1 || header[ipv4::HEADER_LEN..] == ROUTER_ALERT;
                // Only version 3 has queries to one host (RFC 3376 §4.1.12). Who is off the link can
                // choose a time to live that is 1 here, but no router forwards it to a group.
                let meant = ip.destination == destination || (!ip.many && query.version == 3);
                let honest =
                    header[8] == 1 && alert && meant && (general || query.group.is_multicast());
                let query = Query {
                    older: 3 - query.version,
                    // RFC 3376 §7.2.1: of version 2 only a general one; version 1 has no other.
                    decides: general || query.version == 1,
                    max_response: query.max_response,
                    group: if general { 0 } else { group },
                    sources: query.sources().map(word_v4).collect(),
                    robustness: query.robustness,
                    interval: query.interval,
                };
                honest && {
                    self.counters.multicast_queries += 1;
                    self.igmp.query(&self.keys, &query, self.now, is_reported);
                    true
                }
            }
            Kind::ReportV1(group) | Kind::ReportV2(group) => {
                let honest = header[8] == 1 && ip.destination == word_v4(group);
                honest && self.igmp.heard_report(word_v4(group), self.now)
            }
            _ => false,
        };
        if !heard {
            self.counters.drop_igmp_ignored += 1;
        }
    }

    /// Sends what routers are to be told.
    pub(crate) fn igmp_tell(&mut self, tell: Tell) {
        match tell {
            Tell::Records(records) => self.igmp_report(&records),
            Tell::Listens(group) => {
                let kind = match self.igmp.versions_back(self.now) {
                    2 => Old::ReportV1,
                    _ => Old::ReportV2,
                };
                self.igmp_old(kind, v4(group), v4(group));
            }
            Tell::Leaves(group) => self.igmp_old(Old::Leave, v4(group), ALL_ROUTERS),
        }
    }

    fn igmp_old(&mut self, kind: Old, group: Ipv4Addr, to: Ipv4Addr) {
        let Some(frame) = self.control_frame() else { return };
        igmp::emit_old(&mut self.control_room(frame)[L2 + HEADERS..], kind, group);
        self.igmp_send(frame, HEADER_LEN, to);
    }

    /// Sends records in as many reports as it takes.
    fn igmp_report(&mut self, records: &[Record]) {
        let most = self.one_packet() - HEADERS;
        let mut records =
            records.iter().flat_map(|record| record.pieces(most - HEADER_LEN - RECORD_LEN, 4));
        let mut next = records.next();
        while next.is_some() {
            let Some(frame) = self.control_frame() else { return };
            let room = &mut self.control_room(frame)[L2 + HEADERS..];
            let (mut len, mut count) = (HEADER_LEN, 0);
            while let Some((kind, group, sources)) = next {
                if len + RECORD_LEN + 4 * sources.len() > most {
                    break;
                }
                let sources = sources.iter().map(|&source| v4(source));
                len += igmp::emit_record(&mut room[len..], kind, v4(group), sources);
                count += 1;
                next = records.next();
            }
            igmp::emit_report(room, count);
            igmp::fill_checksum(&mut room[..len]);
            self.igmp_send(frame, len, IGMP_ROUTERS);
        }
    }

    /// Sends the message that was written behind the headers.
    fn igmp_send(&mut self, frame: Frame, len: usize, to: Ipv4Addr) {
        let own = self.addresses.iter().find(|(_, own)| own.is_ipv4());
        let source = own.map_or(Ipv4Addr::UNSPECIFIED, |(local, _)| self.addresses.v4(local));
        let identification = self.identification(word_v4(source), word_v4(to), protocol::IGMP);
        let mac = self.config.mac;
        let room = self.control_room(frame);
        ether::emit(room, Mac([0; 6]), mac, ether::EtherType::IPV4);
        let header = ipv4::Header {
            source,
            destination: to,
            protocol: protocol::IGMP,
            ttl: 1,
            tos: TOS,
            identification: identification as u16,
            dont_fragment: false,
        };
        header.emit(&mut room[L2..], ROUTER_ALERT.len() + len);
        let bytes = &mut room[L2..L2 + HEADERS];
        bytes[0] = 4 << 4 | (HEADERS / 4) as u8;
        bytes[ipv4::HEADER_LEN..].copy_from_slice(&ROUTER_ALERT);
        bytes[ipv4::CHECKSUM_OFFSET..ipv4::CHECKSUM_OFFSET + 2].fill(0);
        let sum = checksum::finish(checksum::sum(bytes));
        bytes[ipv4::CHECKSUM_OFFSET..ipv4::CHECKSUM_OFFSET + 2].copy_from_slice(&sum.to_be_bytes());
        self.counters.multicast_reports += 1;
        self.control_packet(frame, L2 + HEADERS + len, Hop::Mac(group_mac(word_v4(to))));
    }
}

fn v4(word: Word) -> Ipv4Addr {
    debug_assert!(is_v4(word));
    Ipv4Addr::from_bits(word as u32)
}
