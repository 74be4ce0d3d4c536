//! Resets (RFC 9293 §3.5.2): for segments that nothing here takes, and for connections that end.

use millrace_wire::mac::Mac;
use millrace_wire::protocol;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{self, Flags as Bits, OptionWriter};

use super::connection::{Features, State};
use super::input::Segment;
use super::table::FourTuple;
use crate::address::address;
use crate::control::{Hop, IpFields};
use crate::ip::pseudo;
use crate::stack::Stack;

/// A segment that is no connection's.
pub(crate) struct Control<'a> {
    pub(crate) tuple: FourTuple,
    pub(crate) seq: Seq,
    pub(crate) ack: Seq,
    pub(crate) bits: Bits,
    /// (AE, CWR, ECE), as RFC 9768's tables have them.
    pub(crate) ace: u8,
    pub(crate) window: u16,
    pub(crate) options: &'a [u8],
    pub(crate) fields: IpFields,
}

impl Stack {
    /// Answers a segment that nothing here takes with a reset (RFC 9293 §3.10.7.1). It goes to
    /// the hardware address that the segment came from, if that is known.
    pub(crate) fn send_reset(&mut self, segment: &Segment, mac: Option<Mac>) {
        if !self.reset_rate.take(&self.keys, self.now) {
            self.counters.drop_reset_rate += 1;
            return;
        }
        let (seq, ack, bits) = if segment.has(Bits::ACK) {
            (segment.ack, Seq(0), Bits::RST)
        } else {
            (Seq(0), segment.seq + segment.sequence_len(), Bits::RST | Bits::ACK)
        };
        let (tuple, fields) = (segment.tuple, IpFields::default());
        let hop = mac.map_or(Hop::Address(tuple.remote), Hop::Mac);
        let reset = Control { tuple, seq, ack, bits, ace: 0, window: 0, options: &[], fields };
        if self.control_segment(&reset, hop) {
            self.counters.resets_sent += 1;
        }
    }

    /// A reset of a connection of our own.
    pub(crate) fn reset_connection(&mut self, index: usize) {
        let mut options = OptionWriter::new();
        // RFC 7323 §3.2: so a peer that checks can believe it.
        if self.connections[index].features.has(Features::TIMESTAMPS) {
            options.timestamps(self.timestamp(index), self.connections[index].ts_recent);
        }
        let connection = self.connections[index];
        let tuple = FourTuple {
            remote: connection.remote,
            remote_port: connection.remote_port,
            local_port: connection.local_port,
            local: connection.local,
        };
        // What the peer expects next if nothing was lost; else it asks again with a challenge
        // acknowledgement (RFC 5961 §3.2). Beyond its window it would not look at it.
        let seq = connection.snd_nxt.min(connection.snd_una + connection.snd_wnd);
        let seq = if connection.state == State::SynReceived { connection.snd_nxt } else { seq };
        let reset = Control {
            tuple,
            seq,
            ack: connection.rcv_nxt,
            bits: Bits::RST | Bits::ACK,
            ace: 0,
            window: 0,
            options: options.padded(),
            fields: self.settings(index).ip_fields(),
        };
        if self.control_segment(&reset, Hop::Address(tuple.remote)) {
            self.counters.resets_sent += 1;
        }
    }

    /// Sends a segment without payload that is no connection's, by a route if to an address. Returns
    /// whether it could.
    pub(crate) fn control_segment(&mut self, segment: &Control<'_>, hop: Hop) -> bool {
        let Control { tuple, seq, ack, bits, ace, window, options, fields } = *segment;
        let hop = match hop {
            Hop::Address(remote) => match self.addresses.route_from(address(remote), tuple.local) {
                Some(route) => Hop::Address(route.next_hop),
                None => return false,
            },
            hop => hop,
        };
        let Some(frame) = self.control_frame() else { return false };
        let header_len = tcp::HEADER_LEN + options.len();
        let ends = (tuple.local, tuple.remote);
        let at = self.control_ip_header(frame, ends, protocol::TCP, header_len, fields);
        let source = self.addresses.word(tuple.local);
        let header = &mut self.control_room(frame)[at..at + header_len];
        tcp::Header {
            source_port: tuple.local_port,
            destination_port: tuple.remote_port,
            sequence: seq,
            acknowledgement: ack,
            flags: Bits(bits.0 | (ace & 0b11) << 6),
            window,
            urgent: 0,
        }
        .emit(header, options);
        header[12] |= ace >> 2;
        let pseudo = pseudo(source, tuple.remote, protocol::TCP, header_len);
        tcp::fill_checksum(header, pseudo, 0);
        self.control_packet(frame, at + header_len, hop);
        true
    }
}
