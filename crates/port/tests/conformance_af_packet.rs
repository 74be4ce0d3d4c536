//! The conformance test on `af_packet`, with each kind of receive ring, over a veth pair.

#[macro_use]
mod common;
mod netns;

use millrace_frames::Arena;
use millrace_port::Port;
use millrace_port::af_packet::{AfPacket, AfPacketConfig, Receive};

use common::{Fixture, Peer, PortPeer};
use netns::{OURS, PEER, Wire};

struct Veth {
    wire: Wire,
    receive: Receive,
}

impl Veth {
    fn new(receive: Receive) -> Result<Veth, String> {
        Wire::new().map(|wire| Veth { wire, receive }).map_err(|error| error.to_string())
    }
}

impl Fixture for Veth {
    fn open(&mut self, _arena: &mut Arena) -> (Box<dyn Port>, Box<dyn Peer>) {
        let ours = AfPacketConfig { receive: self.receive, ..AfPacketConfig::new(OURS) };
        let port = self.wire.ours.enter(|| AfPacket::open(&ours)).unwrap();
        let peer = self.wire.peer.enter(|| AfPacket::open(&AfPacketConfig::new(PEER))).unwrap();
        (Box::new(port), Box::new(PortPeer::new(Box::new(peer))))
    }
}

mod ring_v2 {
    use super::*;
    conformance!(Veth::new(Receive::RingV2));
}

mod ring_v3 {
    use super::*;
    conformance!(Veth::new(Receive::RingV3));
}
