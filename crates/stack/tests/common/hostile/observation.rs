//! What the stack sends: it must be whole, and is taken note of as somebody on the path would.

use millrace_frames::{Transmit, TxBatch};
use millrace_wire::dhcpv4;
use millrace_wire::tcp::{self, Flags};

use crate::craft;

use super::Target;

impl Target {
    pub(super) fn collect(&mut self) {
        let mut batch = TxBatch::new();
        let mut rounds = 0;
        while self.stack.transmit(self.now, &mut batch) > 0 {
            rounds += 1;
            assert!(rounds < 1000, "the stack sends without end");
            for packet in batch.iter() {
                self.observe(packet);
                self.in_flight.push(*packet);
            }
            batch.clear();
        }
        // A port that is done at once, but for a few of the last packets.
        while self.in_flight.len() > 8 {
            let packet = self.in_flight.remove(0);
            self.stack.arena_mut().transmitted(&packet);
        }
    }

    pub(super) fn observe(&mut self, packet: &Transmit) {
        let start = usize::from(packet.offset);
        let mut bytes =
            self.stack.arena().room(packet.head)[start..start + usize::from(packet.len)].to_vec();
        let mut frame = packet.head;
        for _ in 1..packet.frames {
            frame = self.stack.arena().meta(frame).next;
            bytes.extend_from_slice(self.stack.arena().bytes(frame));
        }
        assert_eq!(bytes.len(), packet.total as usize);
        // Parsing verifies lengths and checksums.
        if let craft::Packet::Udp { source: (_, 68), payload, .. } =
            craft::parse(&bytes, packet.checksum_start != 0)
            && let Ok(message) = dhcpv4::Packet::parse(&payload)
        {
            self.transaction = message.transaction();
        }
        match craft::parse(&bytes, packet.checksum_start != 0) {
            craft::Packet::Tcp(_) => self.note(false, &bytes[34..]),
            craft::Packet::V6(sent) if sent.protocol == 6 && sent.fragment.is_none() => {
                self.note(true, &sent.payload);
            }
            _ => {}
        }
    }

    pub(super) fn note(&mut self, six: bool, bytes: &[u8]) {
        let segment = tcp::Segment::parse(bytes).expect("it was parsed before");
        let ports = (segment.source_port(), segment.destination_port());
        let flow = self
            .flows
            .iter_mut()
            .find(|flow| (flow.stack_port, flow.peer_port) == ports && flow.six == six);
        let flags = segment.flags();
        if let Some(flow) = flow
            && !flags.contains(Flags::RST)
        {
            let taken =
                u32::from(flags.contains(Flags::SYN)) + u32::from(flags.contains(Flags::FIN));
            let payload = bytes.len() - segment.header_len();
            flow.snd_una = segment.sequence().0;
            flow.snd_max = flow.snd_una.wrapping_add(payload as u32 + taken);
            if let Some((stamp, _)) = segment.options().expect("ours").timestamps {
                flow.stamp = stamp;
            }
            if flags.contains(Flags::ACK) {
                flow.rcv_nxt = segment.acknowledgement().0;
                flow.window = u32::from(segment.window());
            }
        }
    }
}
