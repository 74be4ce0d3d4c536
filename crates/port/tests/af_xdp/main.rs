//! The AF_XDP port on veth pairs, against the kernel: the conformance test in both modes, real
//! traffic, every refusal, and what is left when the port ends in any way.
//!
//! Needs root; without it each test prints a SKIP line that says why.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod groups;
mod kernel_peer;
mod lifetime;
mod namespace;
mod refusals;
mod traffic;

use millrace_frames::Arena;
use millrace_port::Port;
use millrace_port::af_xdp::{AfXdp, AllQueues, Config, WithGroups, XdpMode};

use common::{Fixture, Peer};
use kernel_peer::KernelPeer;
use namespace::{Inside, Namespace};

/// The port's end of the wire, and the kernel's.
const PORT: &str = "mrbpf0";
const PEER: &str = "mrbpf1";

/// Why no test can run here, if so.
fn usable() -> Result<(), String> {
    millrace_port::af_xdp::probe().map_err(|error| error.to_string())
}

/// A veth pair in a namespace of its own, which this thread stays in.
struct Veth {
    config: Config,
    _inside: Inside,
}

impl Veth {
    fn new(xdp: XdpMode) -> Result<Self, String> {
        usable()?;
        let inside = Namespace::new()?.enter();
        Ok(Veth { config: Config { xdp, ..Config::default() }, _inside: inside })
    }
}

impl Fixture for Veth {
    fn open(&mut self, arena: &mut Arena) -> (Box<dyn Port>, Box<dyn Peer>) {
        namespace::veth_pair(1);
        let port = AfXdp::open(PORT, 0, &self.config, arena).unwrap();
        (Box::new(port), Box::new(KernelPeer::new(PEER)))
    }
}

/// A veth pair with two queues, all of them in one port.
struct AllOfThem(Veth);

impl Fixture for AllOfThem {
    fn open(&mut self, arena: &mut Arena) -> (Box<dyn Port>, Box<dyn Peer>) {
        namespace::veth_pair(2);
        let port = AllQueues::open(PORT, &self.0.config, arena).unwrap();
        (Box::new(port), Box::new(KernelPeer::new(PEER)))
    }
}

/// A veth pair, with what comes to groups beside the queue.
struct Beside(Veth);

impl Fixture for Beside {
    fn open(&mut self, arena: &mut Arena) -> (Box<dyn Port>, Box<dyn Peer>) {
        namespace::veth_pair(1);
        let port = WithGroups::open(PORT, 0, &self.0.config, None, arena).unwrap();
        (Box::new(port), Box::new(KernelPeer::new(PEER)))
    }
}

mod all_queues {
    use super::*;
    conformance!(Veth::new(XdpMode::Native).map(AllOfThem));
}

mod with_groups {
    use super::*;
    conformance!(Veth::new(XdpMode::Native).map(Beside));
}

mod native {
    use super::*;
    conformance!(Veth::new(XdpMode::Native));
}

mod generic {
    use super::*;
    conformance!(Veth::new(XdpMode::Generic));
}
