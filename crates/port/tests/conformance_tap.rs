//! The conformance test on `tap`; the other end is a packet socket on the kernel's side.

#[macro_use]
mod common;
mod netns;

use millrace_frames::Arena;
use millrace_port::Port;
use millrace_port::af_packet::{AfPacket, AfPacketConfig};
use millrace_port::tap::{Tap, TapConfig};

use common::{Fixture, Peer, PortPeer};
use netns::{Namespace, OURS};

struct TapInterface {
    host: Namespace,
    queues: u32,
}

impl TapInterface {
    fn new(queues: u32) -> Result<TapInterface, String> {
        Ok(TapInterface { host: netns::tap_host()?, queues })
    }
}

impl Fixture for TapInterface {
    fn open(&mut self, _arena: &mut Arena) -> (Box<dyn Port>, Box<dyn Peer>) {
        self.host.enter(|| {
            // Persistent: the kernel's side must outlive the port for a check to look at it.
            let config = TapConfig { queues: self.queues, persist: true, ..TapConfig::new(OURS) };
            let port = Tap::open(&config).unwrap();
            let peer = AfPacket::open(&AfPacketConfig::new(OURS)).unwrap();
            (Box::new(port) as _, Box::new(PortPeer::new(Box::new(peer))) as _)
        })
    }
}

mod one_queue {
    use super::*;
    conformance!(TapInterface::new(1));
}

mod first_of_two_queues {
    use super::*;
    conformance!(TapInterface::new(2));
}
