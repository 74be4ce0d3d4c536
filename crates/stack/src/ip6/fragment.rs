//! Fragments of IPv6 packets (RFC 8200 §4.5). [`crate::reassembly`] puts them together, and
//! [`crate::fragmentation`] cuts what we send.

use millrace_frames::Frame;
use millrace_wire::{Malformed, icmpv6, ipv6, protocol, tcp, udp};

use crate::fragmentation::FRAGMENT_HEADER;
use crate::ip::IpInfo;
use crate::reassembly::{Fragment, Key, Whole, source_mac};
use crate::stack::Stack;

impl Stack {
    /// A packet whose payload begins with a fragment header. Takes the frames. What becomes whole
    /// goes on in [`Stack::ipv6_payload`].
    pub(crate) fn fragment_v6(&mut self, frame: Frame, info: &IpInfo) {
        let bytes = &self.arena.bytes(frame)[info.start..];
        let at = info.payload - info.start;
        let header = bytes.get(at..).and_then(|rest| rest.first_chunk::<FRAGMENT_HEADER>());
        let (Some(&header), true) = (header, info.len >= FRAGMENT_HEADER) else {
            self.counters.drop_fragment_malformed += 1;
            return self.drop_chain(frame);
        };
        let [_, _, high, low, a, b, c, d] = header;
        let field = u16::from_be_bytes([high, low]);
        let (offset, more) = (usize::from(field & !7), field & 1 != 0);
        let part = at + FRAGMENT_HEADER;
        // The part must begin in the first frame: nothing cuts a packet within its headers.
        if bytes.len() <= part {
            self.counters.drop_fragment_malformed += 1;
            return self.drop_chain(frame);
        }
        let len = info.len - FRAGMENT_HEADER;
        if offset == 0 && !has_whole_chain(bytes) {
            self.counters.drop_fragment_malformed += 1;
            if !info.many {
                self.parameter_problem(frame, info, icmpv6::parameter::INCOMPLETE_CHAIN, 0);
            }
            return self.drop_chain(frame);
        }
        let fragment = Fragment {
            key: Key {
                source: info.source,
                destination: info.destination,
                identification: u32::from_be_bytes([a, b, c, d]),
                protocol: 0,
            },
            offset,
            more,
            start: info.start,
            payload: info.start + part,
            len,
            // The payload length counts the extension headers before the part as well.
            most: 65_535 - (at - ipv6::HEADER_LEN),
            ecn: bytes[1] >> 4 & 3,
            many: info.many,
            timeout: self.config.reassembly.timeout_v6,
        };
        // RFC 8200 §4.5 has the source told of these two, and points to where the mistake is.
        let wrong = match fragment {
            Fragment { more: true, len, .. } if !len.is_multiple_of(8) => Some(4),
            Fragment { offset, len, most, .. } if offset + len > most => Some(at + 2),
            _ => None,
        };
        if let Some(pointer) = wrong
            && !info.many
        {
            self.parameter_problem(frame, info, icmpv6::parameter::FIELD, pointer);
        }
        let Ok(Some(whole)) = self.reassemble(frame, &fragment) else { return };
        self.whole_v6(&whole, info);
    }

    fn whole_v6(&mut self, whole: &Whole, info: &IpInfo) {
        let bytes = self.arena.bytes_mut(whole.frame);
        // The first fragment tells what follows, whatever the others say.
        let first = bytes[whole.payload - FRAGMENT_HEADER];
        let class = &mut bytes[whole.start + 1];
        *class = *class & 0xcf | whole.ecn << 4;
        let info = whole.info(info, source_mac(bytes));
        self.ipv6_payload(whole.frame, &info, first, true);
    }
}

/// Whether a first fragment has all headers up to the upper layer's (RFC 7112), so that filters on
/// the way saw what they let pass. What else may be wrong with them is the whole packet's.
fn has_whole_chain(packet: &[u8]) -> bool {
    let upper = match ipv6::Packet::parse_cut(packet).and_then(|packet| packet.upper_layer()) {
        Ok(upper) => upper,
        Err(malformed) => return malformed != Malformed::Truncated,
    };
    let header = match upper.protocol {
        _ if upper.fragment.is_some_and(|inner| inner.offset > 0) => 0,
        protocol::TCP => tcp::HEADER_LEN,
        protocol::UDP => udp::HEADER_LEN,
        protocol::ICMPV6 => icmpv6::HEADER_LEN,
        _ => 0,
    };
    upper.payload.len() >= header
}
