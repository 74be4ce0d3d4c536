//! Fragments of IPv4 packets (RFC 791 §3.2), and the header of the packet that they were.

use millrace_frames::Frame;
use millrace_wire::{checksum, ipv4, protocol, tcp};

use super::{Fragment, Key, source_mac};
use crate::Stack;
use crate::ip::IpInfo;

impl Stack {
    /// A fragment of an IPv4 packet: takes the frames.
    pub(crate) fn ipv4_fragment(&mut self, frame: Frame, info: &IpInfo) {
        let bytes = &self.arena.bytes(frame)[info.start..];
        let Ok(packet) = ipv4::Packet::parse_cut(bytes) else { return self.drop_chain(frame) };
        let (protocol, offset) = (packet.protocol(), packet.fragment_offset());
        // RFC 1858, RFC 3128: a first fragment without the ports and flags that filters look at.
        let tiny =
            protocol == protocol::TCP && (offset == 0 && info.len < tcp::HEADER_LEN || offset == 8);
        // The part must begin in the first frame: nothing cuts a packet within its headers.
        if tiny || info.payload >= self.arena.bytes(frame).len() {
            self.counters.drop_fragment_malformed += 1;
            return self.drop_chain(frame);
        }
        let fragment = Fragment {
            key: Key {
                source: info.source,
                destination: info.destination,
                identification: packet.identification().into(),
                protocol,
            },
            offset,
            more: packet.more_fragments(),
            start: info.start,
            payload: info.payload,
            len: info.len,
            most: 65_535 - packet.header_len(),
            ecn: packet.ecn(),
            many: info.many,
            timeout: self.config.reassembly.timeout,
        };
        let Ok(Some(whole)) = self.reassemble(frame, &fragment) else { return };
        let bytes = self.arena.bytes_mut(whole.frame);
        let header = &mut bytes[whole.start..whole.payload];
        let total = (header.len() + whole.len) as u16;
        header[1] = header[1] & !3 | whole.ecn;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[6..8].fill(0);
        header[10..12].fill(0);
        let sum = checksum::finish(checksum::sum(header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let info = whole.info(info, source_mac(bytes));
        self.ipv4_deliver(whole.frame, &info, protocol);
    }
}
