//! A peer that is itself a port.

use millrace_frames::{Arena, ArenaConfig, ChecksumState, Hugepages, Owners, RxBatch, TxBatch};
use millrace_port::{Port, clock};

use super::{Peer, Received, chain_bytes, stage};

/// The far end of a wire that has a port at both ends.
pub struct PortPeer {
    port: Box<dyn Port>,
    arena: Arena,
}

impl PortPeer {
    /// Takes the far end over.
    pub fn new(port: Box<dyn Port>) -> Self {
        let config = ArenaConfig { frames: 1024, frame_size: 2048, hugepages: Hugepages::Never };
        PortPeer { port, arena: Arena::new(config).unwrap() }
    }

    fn transmit(&mut self, frame: &[u8], gso_size: u16, start: u16, offset: u16) {
        let mut packet = stage(&mut self.arena, frame, usize::MAX);
        packet.gso_size = gso_size;
        packet.checksum_start = start;
        packet.checksum_offset = offset;
        let mut batch = TxBatch::new();
        batch.push(packet).unwrap();
        while !batch.is_empty() {
            self.port.tx(clock::now(), &mut self.arena, &mut batch).unwrap();
        }
    }
}

impl Peer for PortPeer {
    fn send(&mut self, frame: &[u8]) {
        self.transmit(frame, 0, 0, 0);
    }

    fn receive(&mut self) -> Option<Received> {
        // One at a time: all of a batch but one packet is filler.
        let mut batch = RxBatch::new();
        while batch.room() > 1 {
            batch.push(millrace_frames::Frame::NONE).unwrap();
        }
        let fillers = batch.len();
        self.port.rx(clock::now(), &mut self.arena, &mut batch).unwrap();
        let &head = batch.get(fillers)?;
        let bytes = chain_bytes(&self.arena, head);
        let unfinished = Some(self.arena.meta(head).checksum == ChecksumState::Unfinished);
        self.arena.release_chain(head, Owners::RECEIVED);
        Some(Received { bytes, unfinished })
    }

    fn send_offloaded(
        &mut self,
        frame: &[u8],
        gso_size: u16,
        checksum_start: u16,
        checksum_offset: u16,
    ) -> bool {
        let capabilities = self.port.capabilities();
        if !capabilities.tx_checksum || (gso_size > 0 && capabilities.tx_gso == 0) {
            return false;
        }
        self.transmit(frame, gso_size, checksum_start, checksum_offset);
        true
    }

    fn close(&mut self) {
        self.port.close(&mut self.arena);
        assert_eq!(self.arena.free(), self.arena.frames(), "the peer's frames");
    }
}
