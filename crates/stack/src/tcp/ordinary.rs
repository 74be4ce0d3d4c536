//! Segments with the headers that nearly all have: over IPv4, in one frame, to a neighbour whose address
//! is known, with a checksum that is ours to make, and with options of which the length is known when
//! compiling. What such headers share is constant, and every other field is in a register when it is
//! written and summed. [`super::emit`] would write the same.

use millrace_frames::{Transmit, TxBatch};
use millrace_wire::checksum::{self, finish};
use millrace_wire::ether::EtherType;
use millrace_wire::mac::Mac;
use millrace_wire::protocol;
use millrace_wire::tcp::{self, Flags as Bits};

use super::connection::{Features, Flags};
use super::emit::Outgoing;
use super::headers::{self, LEN};
use crate::Config;
use crate::address::is_v4;
use crate::stack::Stack;

/// What shows in headers or options, so that one segment is not as the other.
const SHOWN: Flags = Flags::CUSTOM.with(Flags::REPORT_DUPLICATE).with(Flags::COUNTS_MARKS);
const SHOWN_FEATURES: Features = Features::ECN.with(Features::ACCURATE_ECN);

/// Whether what the configuration asks of headers is what nearly all have.
pub(crate) fn are_ordinary(config: &Config) -> bool {
    config.tcp.prediction && !config.tx_checksum && config.user_timeout_option.is_none()
}

/// What a segment says of the peer's data.
struct Acknowledgement {
    number: u32,
    window: u16,
}

impl Stack {
    /// The hardware address that segments of the connection go to, if their headers are of that kind.
    #[inline(always)]
    fn ordinary_destination(&self, index: usize) -> Option<Mac> {
        let connection = &self.connections[index];
        let ordinary = self.ordinary_headers
            && !connection.features.has(SHOWN_FEATURES)
            && !connection.flags.has(SHOWN)
            && connection.out_of_order.is_empty()
            && is_v4(connection.remote);
        if !ordinary {
            return None;
        }
        self.neighbours.reachable(connection.neighbour, self.now)
    }

    /// Writes the headers of a segment with timestamps and no other option, and hands it on. Returns
    /// false, with nothing done, if that is not what it needs.
    #[inline(always)]
    pub(super) fn emit_ordinary(
        &mut self,
        index: usize,
        segment: &Outgoing,
        stamp: u32,
        out: &mut TxBatch,
    ) -> bool {
        const TIMESTAMPS: u32 = 0x0101_080a;
        if segment.frames != 1 || !self.connections[index].features.has(Features::TIMESTAMPS) {
            return false;
        }
        let Some(mac) = self.ordinary_destination(index) else { return false };
        debug_assert!(segment.bits.intersects(Bits::ACK) && !segment.bits.intersects(Bits::SYN));
        let buffer = self.receive_limit(index);
        let connection = &mut self.connections[index];
        let window = connection.announce(buffer, &self.memory);
        connection.acknowledges_once();
        let ack = Acknowledgement { number: connection.rcv_nxt.0, window };
        let options = [TIMESTAMPS, stamp, connection.ts_recent];
        self.write_ordinary(index, segment, mac, ack, options, out);
        true
    }

    /// The same for a SYN or SYN-ACK without payload that has the options that nearly all have: MSS,
    /// SACK permitted, timestamps and window scale.
    #[inline]
    pub(super) fn emit_ordinary_syn(
        &mut self,
        index: usize,
        segment: &Outgoing,
        passive: bool,
        out: &mut TxBatch,
    ) -> bool {
        const SACK_AND_TIMESTAMPS: u32 = 0x0402_080a;
        let connection = &self.connections[index];
        let tcp = &self.config.tcp;
        let (features, flags) = (connection.features, connection.flags);
        let all = if passive {
            features.has(Features::TIMESTAMPS)
                && features.has(Features::SACK)
                && flags.has(Flags::SCALING)
                && !features.has(Features::COOKIE_DUE)
        } else {
            // A record may hold an attempt at Fast Open.
            tcp.timestamps && tcp.sack && tcp.window_scaling && self.transfer(index).is_none()
        };
        if !all || segment.len > 0 {
            return false;
        }
        let Some(mac) = self.ordinary_destination(index) else { return false };
        let window = self.memory.first_window(self.receive_limit(index));
        let mss = self.announced_mss(index).min(self.path_mss(self.connections[index].remote));
        let (stamp, shift) = (self.timestamp(index), self.receive_shift());
        let connection = &mut self.connections[index];
        connection.rcv_adv = connection.rcv_adv.max(connection.rcv_nxt + u32::from(window));
        let (mut number, mut echo) = (0, 0);
        if passive {
            connection.acknowledges_once();
            (number, echo) = (connection.rcv_nxt.0, connection.ts_recent);
        }
        let ack = Acknowledgement { number, window };
        let options = [
            u32::from_be_bytes([2, 4, (mss >> 8) as u8, mss as u8]),
            SACK_AND_TIMESTAMPS,
            stamp,
            echo,
            u32::from_be_bytes([1, 3, 3, shift]),
        ];
        self.write_ordinary(index, segment, mac, ack, options, out);
        true
    }

    /// Writes the headers, with `WORDS` times four bytes of options, and hands the packet on.
    #[inline(always)]
    fn write_ordinary<const WORDS: usize>(
        &mut self,
        index: usize,
        segment: &Outgoing,
        mac: Mac,
        ack: Acknowledgement,
        options: [u32; WORDS],
        out: &mut TxBatch,
    ) {
        const FIRST: u16 = 0x4500;
        const DONT_FRAGMENT: u16 = headers::DONT_FRAGMENT as u16;
        const TTL_AND_TCP: u16 = 64 << 8 | protocol::TCP as u16;
        let header_len = LEN + 4 * WORDS;
        let &Outgoing { head, len, sum: payload_sum, seq, bits, .. } = segment;
        let Acknowledgement { number: ack, window } = ack;
        let connection = &mut self.connections[index];
        let source = self.addresses.word(connection.local) as u32;
        let offset_and_bits = ((5 + WORDS) << 12) as u16 | u16::from(bits.0);
        let ports = u32::from(connection.local_port) << 16 | u32::from(connection.remote_port);
        let addresses = u32::from(connection.address_sum);
        let transport_len = (tcp::HEADER_LEN + 4 * WORDS) as u32 + len;
        let total_len = transport_len + 20;
        let ip_sum = u32::from(FIRST)
            + u32::from(DONT_FRAGMENT)
            + u32::from(TTL_AND_TCP)
            + total_len
            + addresses;
        // Whole words of 32 bits: folded, they are the sums of their halves.
        let mut tcp_sum = u64::from(addresses + u32::from(protocol::TCP) + transport_len)
            + u64::from(ports)
            + u64::from(seq.0)
            + u64::from(ack)
            + u64::from(u32::from(offset_and_bits) + u32::from(window) + u32::from(payload_sum));
        for &word in &options {
            tcp_sum += u64::from(word);
        }

        let start = usize::from(self.arena.meta(head).offset) - header_len;
        let room = &mut self.arena.room_mut(head)[start..][..header_len];
        if let Some((fixed, behind)) = room.split_first_chunk_mut::<LEN>() {
            fixed[0..6].copy_from_slice(&mac.0);
            fixed[6..12].copy_from_slice(&self.config.mac.0);
            fixed[12..14].copy_from_slice(&EtherType::IPV4.to_be_bytes());
            fixed[14..16].copy_from_slice(&FIRST.to_be_bytes());
            fixed[16..18].copy_from_slice(&(total_len as u16).to_be_bytes());
            fixed[18..20].copy_from_slice(&[0; 2]);
            fixed[20..22].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
            fixed[22..24].copy_from_slice(&TTL_AND_TCP.to_be_bytes());
            fixed[24..26].copy_from_slice(&finish(headers::fold(ip_sum)).to_be_bytes());
            fixed[26..30].copy_from_slice(&source.to_be_bytes());
            fixed[30..34].copy_from_slice(&(connection.remote as u32).to_be_bytes());
            fixed[34..38].copy_from_slice(&ports.to_be_bytes());
            fixed[38..42].copy_from_slice(&seq.0.to_be_bytes());
            fixed[42..46].copy_from_slice(&ack.to_be_bytes());
            fixed[46..48].copy_from_slice(&offset_and_bits.to_be_bytes());
            fixed[48..50].copy_from_slice(&window.to_be_bytes());
            fixed[50..52].copy_from_slice(&finish(checksum::fold(tcp_sum)).to_be_bytes());
            fixed[52..54].copy_from_slice(&[0; 2]);
            for (to, word) in behind.as_chunks_mut::<4>().0.iter_mut().zip(&options) {
                *to = word.to_be_bytes();
            }
        }
        let mss = u32::from(connection.mss);
        connection.traffic.left(len, mss);
        self.counters.segments_out += 1;
        let total = header_len as u32 + len;
        let packet = || Transmit {
            head,
            total,
            offset: start as u16,
            len: total as u16,
            frames: 1,
            gso_size: 0,
            checksum_start: 0,
            checksum_offset: tcp::CHECKSUM_OFFSET as u16,
            ipv6: false,
        };
        if !out.push_with(packet) {
            // There was room; losing one packet is what a wire may do.
            self.arena.transmitted(&packet());
        }
    }
}
