//! The segment of a request or of an answer: all that was written and not sent fits into one segment
//! and lies in one frame, the windows have room for it, and nothing else is going on. It is what
//! header prediction is for receiving: [`super::output`] would send the same segment after asking
//! many questions, to all of which the answer is no.

use millrace_frames::{Frame, Owners, Transmit, TxBatch};
use millrace_wire::checksum::finish;
use millrace_wire::ether::EtherType;
use millrace_wire::protocol;
use millrace_wire::tcp::{self, Flags as Bits, OptionWriter};

use super::chronograph::Limit;
use super::connection::{Features, Flags, NO_LINK};
use super::emit::Outgoing;
use super::headers;
use super::scoreboard::{Mark, Sent};
use crate::address::is_v4;
use crate::stack::Stack;

/// Something is going on that needs the general way.
const UNUSUAL: Flags = Flags::FIN_QUEUED
    .with(Flags::PERSIST)
    .with(Flags::PROBE)
    .with(Flags::FORCE)
    .with(Flags::WANT_WRITE)
    .with(Flags::CUSTOM)
    .with(Flags::CORK)
    .with(Flags::MORE)
    .with(Flags::SMALL_SEGMENTS)
    .with(Flags::REPORT_DUPLICATE);

/// What was agreed on and makes segments differ from each other.
const UNUSUAL_FEATURES: Features = Features::ECN.with(Features::ACCURATE_ECN);

impl Stack {
    /// Sends the segment if it is of that kind. Returns false, with nothing done, if not.
    #[inline]
    pub(crate) fn send_one_segment(&mut self, index: usize, out: &mut TxBatch) -> bool {
        let connection = &self.connections[index];
        let (seq, flight, len) = (connection.snd_nxt, connection.flight(), connection.unsent());
        let (end, in_flight) = (connection.snd_end, flight + len);
        let (mss, window) = (u32::from(connection.mss), connection.congestion.window);
        let ordinary = self.config.tcp.prediction
            && len > 0
            && len <= mss
            && in_flight <= window
            && in_flight <= connection.snd_wnd
            && !connection.flags.has(UNUSUAL)
            && !connection.features.has(UNUSUAL_FEATURES)
            && connection.out_of_order.is_empty()
            // It carries the one that may be owed.
            && connection.acks_owed <= 1
            && !out.is_full();
        if !ordinary {
            return false;
        }
        let cursor = connection.cursor;
        let meta = self.arena.meta(cursor);
        let sum = meta.sum;
        let whole = meta.mark == seq.0
            && u32::from(meta.len) == len
            && !self.arena.owners(cursor).intersects(Owners::TRANSMIT);
        if !whole {
            return false;
        }
        // What is alone on the path is not paced.
        let paced = flight > 0 && self.config.tcp.pacing && !self.is_too_short_to_pace(index);
        let no_delay = connection.flags.has(Flags::NO_DELAY);
        let since_last = self.now_us.wrapping_sub(connection.last_sent);
        let idle_too_long = flight == 0 && since_last > connection.rtt.timeout;
        let una = connection.snd_una;
        if connection.transfer == NO_LINK {
            self.transfer_mut(index);
        }
        let Some(transfer) = self.transfers.get_mut(self.connections[index].transfer) else {
            return false;
        };
        let unhindered = transfer.goes_well()
            && transfer.limit == Limit::None
            && !paced
            && transfer.pacing.most == 0
            && (flight == 0 || !transfer.pacing.in_force())
            && !transfer.pacing.holds_back(self.now_us)
            && !idle_too_long
            && (flight > 0 || transfer.congestion.ignores_pauses())
            // Nagle's algorithm, with Minshall's modification.
            && (no_delay || flight == 0 || transfer.small_until.is_none_or(|end| una.ge(end)));
        if !unhindered {
            return false;
        }
        if flight == 0 {
            transfer.rack.begin_flight();
        }
        transfer.pushed = end;
        let snapshot = transfer.delivery.sent(self.now_us, flight == 0, in_flight);
        transfer.sent.push(Sent {
            start: seq,
            end,
            frame: cursor,
            sent_at: self.now_us,
            mark: Mark::PUSHED,
            snapshot,
        });
        transfer.usage.used(in_flight, window - in_flight < mss, una, end);
        if in_flight < window {
            transfer.delivery.app_limited(in_flight);
        }
        if !no_delay && len < mss {
            transfer.small_until = Some(end);
        }

        self.arena.own(cursor, Owners::TRANSMIT);
        if !self.emit_ordinary(index, cursor, len, sum, out) {
            let mut writer = OptionWriter::new();
            let options = self.segment_options(index, len, self.timestamp(index), &mut writer);
            let bits = Bits::ACK | Bits::PSH;
            let segment = Outgoing { head: cursor, frames: 1, len, sum, seq, bits, options };
            self.emit(index, &segment, out);
        }
        self.connections[index].cursor = Frame::NONE;
        self.advance_unpaced(index, end);
        true
    }

    /// [`Stack::emit`] for a segment over IPv4 with timestamps, to a neighbour whose address is
    /// known, the checksum of which is ours to make: most of its headers is the same for all such
    /// segments. Returns false, with nothing done, for any other.
    #[inline(always)]
    fn emit_ordinary(
        &mut self,
        index: usize,
        head: Frame,
        len: u32,
        payload_sum: u16,
        out: &mut TxBatch,
    ) -> bool {
        const LEN: usize = headers::LEN + 12;
        const FIRST: u16 = 0x4500;
        const DONT_FRAGMENT: u16 = 0x4000;
        const TTL_AND_TCP: u16 = 64 << 8 | protocol::TCP as u16;
        const OFFSET_AND_BITS: u16 = 8 << 12 | (Bits::ACK.0 | Bits::PSH.0) as u16;
        const TIMESTAMPS: u32 = 0x0101_080a;
        let connection = &self.connections[index];
        let Some(mac) = self.neighbours.reachable(connection.neighbour, self.now) else {
            return false;
        };
        if !connection.features.has(Features::TIMESTAMPS)
            || !is_v4(connection.remote)
            || self.config.tx_checksum
            || self.config.user_timeout_option.is_some()
        {
            return false;
        }
        let stamp = self.timestamp(index);
        let buffer = self.receive_limit(index);
        let source = self.addresses.word(connection.local) as u32;
        let connection = &mut self.connections[index];
        let window = connection.announce(buffer, self.memory.share);
        connection.acknowledges();
        let (seq, ack, echo) = (connection.snd_nxt.0, connection.rcv_nxt.0, connection.ts_recent);
        let ports = u32::from(connection.local_port) << 16 | u32::from(connection.remote_port);
        let addresses = u32::from(connection.address_sum);
        let transport_len = tcp::HEADER_LEN as u32 + 12 + len;
        let total_len = transport_len + 20;
        let halves = |word: u32| (word >> 16) + (word & 0xffff);
        let ip_sum = u32::from(FIRST)
            + u32::from(DONT_FRAGMENT)
            + u32::from(TTL_AND_TCP)
            + total_len
            + addresses;
        let tcp_sum = addresses
            + u32::from(protocol::TCP)
            + transport_len
            + halves(ports)
            + halves(seq)
            + halves(ack)
            + u32::from(OFFSET_AND_BITS)
            + u32::from(window)
            + halves(TIMESTAMPS)
            + halves(stamp)
            + halves(echo)
            + u32::from(payload_sum);

        let payload_at = usize::from(self.arena.meta(head).offset);
        let start = payload_at - LEN;
        let room = &mut self.arena.room_mut(head)[start..payload_at];
        if let Some(room) = room.first_chunk_mut::<LEN>() {
            room[0..6].copy_from_slice(&mac.0);
            room[6..12].copy_from_slice(&self.config.mac.0);
            room[12..14].copy_from_slice(&EtherType::IPV4.to_be_bytes());
            room[14..16].copy_from_slice(&FIRST.to_be_bytes());
            room[16..18].copy_from_slice(&(total_len as u16).to_be_bytes());
            room[18..20].copy_from_slice(&[0; 2]);
            room[20..22].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
            room[22..24].copy_from_slice(&TTL_AND_TCP.to_be_bytes());
            room[24..26].copy_from_slice(&finish(headers::fold(ip_sum)).to_be_bytes());
            room[26..30].copy_from_slice(&source.to_be_bytes());
            room[30..34].copy_from_slice(&(connection.remote as u32).to_be_bytes());
            room[34..38].copy_from_slice(&ports.to_be_bytes());
            room[38..42].copy_from_slice(&seq.to_be_bytes());
            room[42..46].copy_from_slice(&ack.to_be_bytes());
            room[46..48].copy_from_slice(&OFFSET_AND_BITS.to_be_bytes());
            room[48..50].copy_from_slice(&window.to_be_bytes());
            room[50..52].copy_from_slice(&finish(headers::fold(tcp_sum)).to_be_bytes());
            room[52..54].copy_from_slice(&[0; 2]);
            room[54..58].copy_from_slice(&TIMESTAMPS.to_be_bytes());
            room[58..62].copy_from_slice(&stamp.to_be_bytes());
            room[62..66].copy_from_slice(&echo.to_be_bytes());
        }
        connection.traffic.one_left();
        self.counters.segments_out += 1;
        let total = LEN as u32 + len;
        let packet = Transmit {
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
        if out.push(packet).is_err() {
            // There was room; losing one packet is what a wire may do.
            self.arena.transmitted(&packet);
        }
        true
    }
}
