//! How a segment is written and handed on: its headers before the payload, what they say of the
//! window and of ECN, and where it goes next (RFC 9293 §3.1, RFC 791, RFC 8200).

use millrace_frames::{Arena, Frame, Transmit, TxBatch};
use millrace_wire::mac::Mac;
use millrace_wire::protocol;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{self, Flags as Bits, OptionWriter};

use super::connection::{Connection, Flags, State};
use super::ecn::feedback::Marking;
use super::headers::{self, DONT_FRAGMENT, Headers};
use super::options::SegmentOptions;
use super::settings::MtuDiscovery;
use crate::address::{Word, address, is_v4};
use crate::control::{IpFields, L4, L4_V6};
use crate::neighbour::{NeighbourRef, Resolution};
use crate::stack::{LastHop, Stack};

/// A segment to be written.
pub(crate) struct Outgoing {
    pub(crate) head: Frame,
    pub(crate) frames: u16,
    /// Payload bytes, over all frames.
    pub(crate) len: u32,
    /// Their sum.
    pub(crate) sum: u16,
    pub(crate) seq: Seq,
    pub(crate) bits: Bits,
}

impl Stack {
    /// Time to live of packets to there, where nobody set it.
    #[inline]
    pub(crate) fn hop_limit(&self, remote: Word) -> u8 {
        if is_v4(remote) { 64 } else { self.ip6.hop_limit }
    }

    /// What the IP header says of a connection with settings of its own: class, hop limit, and
    /// whether it may be cut.
    fn own_ip_fields(&mut self, index: usize) -> (u8, u8, u32) {
        let IpFields { class, hop_limit } = self.settings(index).ip_fields();
        let cut = self.may_be_cut(index);
        let Connection { local, remote, .. } = self.connections[index];
        let hop_limit = if hop_limit == 0 { self.hop_limit(remote) } else { hop_limit };
        let source = self.addresses.word(local);
        let fragments = match cut {
            true => self.identification(source, remote, protocol::TCP) << 16,
            false => DONT_FRAGMENT,
        };
        (class, hop_limit, fragments)
    }

    /// Whether routers may cut the connection's packets.
    #[inline]
    pub(super) fn may_be_cut(&self, index: usize) -> bool {
        self.connections[index].flags.has(Flags::CUSTOM)
            && self.settings(index).mtu_discovery == MtuDiscovery::Never
            && is_v4(self.connections[index].remote)
    }

    /// Writes the headers before the payload, with the options that the connection's state asks for,
    /// and hands the packet on. `timestamp`: the value to carry, where timestamps are spoken.
    pub(crate) fn emit_plain(
        &mut self,
        index: usize,
        segment: &Outgoing,
        timestamp: u32,
        out: &mut TxBatch,
    ) {
        if self.emit_ordinary(index, segment, timestamp, out) {
            return;
        }
        let mut writer = OptionWriter::new();
        let options = self.segment_options(index, segment.len, timestamp, &mut writer);
        self.emit(index, segment, options, out);
    }

    /// Writes the headers before the payload and hands the packet on.
    pub(crate) fn emit(
        &mut self,
        index: usize,
        segment: &Outgoing,
        options: SegmentOptions<'_>,
        out: &mut TxBatch,
    ) {
        let buffer = self.receive_limit(index);
        let connection = &mut self.connections[index];
        let next_hop = match self.neighbours.resolve(connection.neighbour, self.now) {
            Resolution::Known(mac) => Some(mac),
            Resolution::Wait => None,
            Resolution::Gone => self.find_next_hop(index),
        };
        let connection = &mut self.connections[index];
        // Never scaled on a SYN (RFC 7323 §2.2).
        let window = if segment.bits.intersects(Bits::SYN) {
            let window = self.memory.first_window(buffer);
            // From what is acknowledged on, data of the peer's SYN included.
            connection.rcv_adv = connection.rcv_adv.max(connection.rcv_nxt + u32::from(window));
            window
        } else {
            connection.announce(buffer, &self.memory)
        };
        let mut ack = Seq(0);
        if segment.bits.intersects(Bits::ACK) {
            // Beyond a gap each arrival is owed an acknowledgement without data, for only those
            // count as duplicates (RFC 5681 §2).
            let owed = core::mem::take(&mut connection.acks_owed);
            connection.acknowledges();
            if owed > 1 || (segment.len > 0 && !connection.out_of_order.is_empty()) {
                connection.acks_owed = owed;
            }
            ack = connection.rcv_nxt;
        }
        let mut marking = Marking::default();
        if connection.has_ecn() {
            let new = segment.len > 0 && segment.seq == connection.snd_nxt;
            marking = self.ecn_marking(index, segment.bits, new, options.written());
        }
        let connection = &self.connections[index];
        let transport_len = (tcp::HEADER_LEN + options.len()) as u32 + segment.len;
        let (class, hop_limit, fragments) = match connection.flags.has(Flags::CUSTOM) {
            true => self.own_ip_fields(index),
            false => (0, self.hop_limit(connection.remote), DONT_FRAGMENT),
        };
        let connection = &mut self.connections[index];
        let headers = Headers {
            destination_mac: next_hop.unwrap_or(Mac([0; 6])),
            source_mac: self.config.mac,
            source: self.addresses.word(connection.local),
            destination: connection.remote,
            address_sum: connection.address_sum,
            source_port: connection.local_port,
            destination_port: connection.remote_port,
            seq: segment.seq,
            ack,
            bits: segment.bits | marking.bits,
            ecn: marking.ecn,
            class,
            hop_limit,
            fragments,
            window,
            options: (options.len() as u16, options.sum()),
            transport_len: transport_len as u16,
            payload_sum: (!self.config.tx_checksum).then_some(segment.sum),
        };
        let (mss, neighbour) = (connection.mss, connection.neighbour);
        let meta = self.arena.meta(segment.head);
        let (payload_at, head_len) = (usize::from(meta.offset), usize::from(meta.len));
        let ipv6 = !is_v4(headers.destination);
        let transport_at = if ipv6 { L4_V6 } else { L4 };
        let header_len = transport_at + tcp::HEADER_LEN + options.len();
        let start = payload_at - header_len;
        let room = &mut self.arena.room_mut(segment.head)[start..payload_at];
        if !ipv6 {
            if let Some((fixed, behind)) = room.split_first_chunk_mut::<{ headers::LEN }>() {
                headers.write_v4(fixed);
                options.write(behind);
            }
        } else if let Some((fixed, behind)) = room.split_first_chunk_mut::<{ headers::LEN_V6 }>() {
            let label = headers.flow_label(&self.keys);
            headers.write_v6(fixed, label);
            options.write(behind);
        }
        let checksum_start = if self.config.tx_checksum { transport_at as u16 } else { 0 };
        let packet = || Transmit {
            head: segment.head,
            total: (header_len + segment.len as usize) as u32,
            offset: start as u16,
            len: (header_len + head_len) as u16,
            frames: segment.frames,
            gso_size: if segment.len > u32::from(mss) { mss } else { 0 },
            checksum_start,
            checksum_offset: tcp::CHECKSUM_OFFSET as u16,
            ipv6,
        };
        self.counters.segments_out += 1;
        self.connections[index].traffic.left(segment.len, mss.into());
        if next_hop.is_none() {
            self.dispatch(packet(), neighbour, out);
        } else if !out.push_with(packet) {
            // Callers look for room before; losing one packet is what a wire may do.
            self.arena.transmitted(&packet());
        }
    }

    /// The neighbour of the last packet whose next hop was found, if it went to the same place, from
    /// the same address.
    #[inline]
    pub(crate) fn last_neighbour(&self, remote: Word, local: u8) -> NeighbourRef {
        match self.last_hop.destination == remote && self.last_hop.local == local {
            true => self.last_hop.neighbour,
            false => NeighbourRef::NONE,
        }
    }

    /// The hardware address that a connection's packets go to, if it is known; if not, the
    /// neighbour is looked up, and asked for.
    #[inline(never)]
    fn find_next_hop(&mut self, index: usize) -> Option<Mac> {
        let Connection { remote: word, local, .. } = self.connections[index];
        let neighbour = self.last_neighbour(word, local);
        if let Resolution::Known(mac) = self.neighbours.resolve(neighbour, self.now) {
            self.connections[index].neighbour = neighbour;
            return Some(mac);
        }
        let connecting = self.connections[index].state == State::SynSent;
        let route = self.addresses.route_from(address(word), local);
        let found = route.and_then(|route| {
            self.neighbours.look_up(&self.keys, route.next_hop, self.now, connecting)
        });
        self.drop_evicted_packets();
        match (route, found) {
            (None, _) => self.counters.drop_no_route += 1,
            (_, None) => self.counters.drop_neighbour_cache_full += 1,
            _ => {}
        }
        let neighbour = found.unwrap_or(NeighbourRef::NONE);
        self.connections[index].neighbour = neighbour;
        match (route, self.neighbours.resolve(neighbour, self.now)) {
            (Some(path), Resolution::Known(mac)) => {
                self.last_hop = LastHop { destination: word, local, path, neighbour };
                Some(mac)
            }
            _ => None,
        }
    }
}

const _: () = assert!(Arena::HEADROOM >= L4_V6 + tcp::MAX_HEADER_LEN);
