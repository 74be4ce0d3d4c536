//! What a network is made of, and what follows from that: who shares a link with whom, everybody's
//! addresses, and the routers' ways.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{HashMap, VecDeque};
use std::io;

use millrace_frames::Duration;
use millrace_port::impair::Impairment;
use millrace_stack::{Config, Ipv6Config};
use millrace_wire::mac::Mac;

/// A host, a switch or a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Its number in the order in which nodes were added.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A wire between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WireId(pub(crate) u32);

impl WireId {
    /// Its number in the order in which wires were added.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A host: one stack on one wire.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// What its stack is like. Hardware address, addresses, gateway, MTU and seed are set by the
    /// simulation.
    pub config: Config,
    /// Frames of its arena.
    pub frames: u32,
    /// Bytes of a frame.
    pub frame_size: u32,
    /// Payload bytes of the largest super-segment that the stack hands out; 0: none. A wire that
    /// does not carry them whole has them cut, as a network card does.
    pub super_segments: u16,
    /// How long the port keeps a packet before it is on the wire and its frames come back.
    pub transmit_time: Duration,
}

impl Default for HostSpec {
    fn default() -> Self {
        HostSpec {
            config: Config {
                connections: 1024,
                time_wait_connections: 512,
                // Addresses come from the topology, so none is there twice, and all can be used
                // from the start.
                ipv6: Ipv6Config { dad_transmits: 0, ..Ipv6Config::default() },
                ..Config::default()
            },
            frames: 4096,
            frame_size: 2048,
            super_segments: 0,
            transmit_time: Duration::ZERO,
        }
    }
}

/// An IP router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterSpec {
    /// Whether it sends ICMP errors. One that does not makes a black hole of a narrow wire behind
    /// it (RFC 2923 §2.1).
    pub icmp: bool,
}

impl Default for RouterSpec {
    fn default() -> Self {
        RouterSpec { icmp: true }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Host(Box<HostSpec>),
    Switch,
    Router(RouterSpec),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// A wire.
#[derive(Clone, Debug)]
pub struct WireSpec {
    /// What goes wrong with what the first node sends, and with what the second node sends.
    pub directions: [Impairment; 2],
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Super-segments pass whole and with unfinished checksums, as between virtual machines.
    pub super_segments: bool,
    /// Whether a trace shows it.
    pub capture: bool,
}

impl Default for WireSpec {
    fn default() -> Self {
        WireSpec {
            directions: [Impairment::default(); 2],
            mtu: 1500,
            super_segments: false,
            capture: true,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) ends: [NodeId; 2],
    pub(crate) spec: WireSpec,
}

/// Nodes and wires, not yet alive.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    pub(crate) nodes: Vec<Node>,
    pub(crate) wires: Vec<Wire>,
    names: HashMap<String, NodeId>,
}

impl Topology {
    /// Nothing yet.
    pub fn new() -> Topology {
        Topology::default()
    }

    fn add(&mut self, name: Option<&str>, prefix: &str, kind: Kind) -> io::Result<NodeId> {
        let id = NodeId(self.nodes.len() as u32);
        let name = name.map_or_else(|| format!("{prefix}{}", id.0), str::to_owned);
        if name.is_empty() || name.len() > 64 || name.chars().any(|c| c.is_control()) {
            return Err(invalid(format!("{name:?} is no name: 1 to 64 bytes that can be printed")));
        }
        if self.names.insert(name.clone(), id).is_some() {
            return Err(invalid(format!("there are two nodes called {name}")));
        }
        self.nodes.push(Node { name, kind });
        Ok(id)
    }

    /// Adds a host.
    ///
    /// # Errors
    /// `InvalidInput` when the name is taken or is none.
    pub fn host(&mut self, name: Option<&str>, spec: HostSpec) -> io::Result<NodeId> {
        self.add(name, "host", Kind::Host(Box::new(spec)))
    }

    /// Adds a learning switch.
    ///
    /// # Errors
    /// `InvalidInput` when the name is taken or is none.
    pub fn switch(&mut self, name: Option<&str>) -> io::Result<NodeId> {
        self.add(name, "switch", Kind::Switch)
    }

    /// Adds a router.
    ///
    /// # Errors
    /// `InvalidInput` when the name is taken or is none.
    pub fn router(&mut self, name: Option<&str>, spec: RouterSpec) -> io::Result<NodeId> {
        self.add(name, "router", Kind::Router(spec))
    }

    /// Joins two nodes.
    ///
    /// # Errors
    /// `InvalidInput` for a wire that makes no sense, or a second wire of one host.
    pub fn wire(&mut self, a: NodeId, b: NodeId, spec: WireSpec) -> io::Result<WireId> {
        for direction in &spec.directions {
            direction.validate()?;
        }
        if spec.mtu < 576 {
            return Err(invalid(format!("a wire's MTU is 576 to 65535 bytes, not {}", spec.mtu)));
        }
        if a == b {
            return Err(invalid(format!("a wire from {} to itself", self.name(a))));
        }
        for end in [a, b] {
            let taken = self.wires.iter().any(|wire| wire.ends.contains(&end));
            if taken && matches!(self.nodes[end.index()].kind, Kind::Host(_)) {
                return Err(invalid(format!(
                    "host {} has its wire already; put a switch or a router between",
                    self.name(end)
                )));
            }
        }
        self.wires.push(Wire { ends: [a, b], spec });
        Ok(WireId((self.wires.len() - 1) as u32))
    }

    /// A node's name.
    pub fn name(&self, node: NodeId) -> &str {
        &self.nodes[node.index()].name
    }

    /// The node with this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    /// The first wire between two nodes.
    pub fn wire_id(&self, a: NodeId, b: NodeId) -> Option<WireId> {
        let joins = |wire: &Wire| wire.ends == [a, b] || wire.ends == [b, a];
        self.wires.iter().position(joins).map(|number| WireId(number as u32))
    }

    /// A wire's name: its nodes'.
    pub fn wire_name(&self, wire: WireId) -> String {
        let [a, b] = self.wires[wire.index()].ends;
        format!("{}-{}", self.name(a), self.name(b))
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// One end of a wire at a host or a router: what IP calls an interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interface {
    pub(crate) node: NodeId,
    pub(crate) segment: u32,
    pub(crate) mac: Mac,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Interface {
    pub(crate) fn address(&self, ipv6: bool) -> IpAddr {
        if ipv6 { self.v6.into() } else { self.v4.into() }
    }
}

/// Bits of a segment's IPv4 network: 4096 segments of 4094 interfaces.
pub(crate) const PREFIX_V4: u8 = 20;
pub(crate) const PREFIX_V6: u8 = 64;
const SEGMENTS: u32 = 1 << (PREFIX_V4 - 8);
const MEMBERS: u32 = (1 << (32 - PREFIX_V4)) - 2;

/// The segment that an IPv4 address belongs to.
pub(crate) fn segment_v4(address: Ipv4Addr) -> Option<u32> {
    let bits = address.to_bits();
    (bits >> 24 == 10).then_some((bits & 0x00ff_ffff) >> (32 - PREFIX_V4))
}

/// The segment that an IPv6 address belongs to.
pub(crate) fn segment_v6(address: Ipv6Addr) -> Option<u32> {
    let words = address.segments();
    (words[..3] == [0xfd00, 0, 0]).then_some(u32::from(words[3]))
}

/// A router's way to a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// Number among the router's interfaces.
    pub(crate) out: u16,
    /// The next router's hardware address; `None`: the segment is the interface's own.
    pub(crate) via: Option<Mac>,
}

/// What follows from a topology.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) interfaces: Vec<Interface>,
    /// Interfaces of each node, by number of its wire end.
    pub(crate) of_node: Vec<Vec<usize>>,
    /// A router on each segment.
    pub(crate) gateways: Vec<Option<usize>>,
    /// Ways of each node to each segment, for routers.
    pub(crate) ways: Vec<Vec<Option<Way>>>,
    /// Smallest MTU of each segment's wires.
    pub(crate) mtu: Vec<u16>,
}

impl Plan {
    pub(crate) fn new(topology: &Topology) -> io::Result<Plan> {
        let segment_of = segments(topology)?;
        let count = segment_of.iter().max().map_or(0, |most| most + 1);
        if count > SEGMENTS {
            return Err(invalid(format!("{count} networks are more than {SEGMENTS}")));
        }
        let mut members = vec![0u32; count as usize];
        let mut interfaces = Vec::new();
        let mut of_node = vec![Vec::new(); topology.nodes.len()];
        let mut mtu = vec![u16::MAX; count as usize];
        for (number, wire) in topology.wires.iter().enumerate() {
            let segment = segment_of[number];
            let least = &mut mtu[segment as usize];
            *least = (*least).min(wire.spec.mtu);
            for &node in &wire.ends {
                if matches!(topology.nodes[node.index()].kind, Kind::Switch) {
                    continue;
                }
                let member = &mut members[segment as usize];
                *member += 1;
                if *member > MEMBERS {
                    return Err(invalid(format!("a network has at most {MEMBERS} interfaces")));
                }
                let index = interfaces.len();
                let [_, b, c, d] = (index as u32 + 1).to_be_bytes();
                of_node[node.index()].push(index);
                interfaces.push(Interface {
                    node,
                    segment,
                    mac: Mac([2, 0, 0, b, c, d]),
                    v4: Ipv4Addr::from_bits(10 << 24 | segment << (32 - PREFIX_V4) | *member),
                    v6: Ipv6Addr::new(0xfd00, 0, 0, segment as u16, 0, 0, 0, *member as u16),
                });
            }
        }
        for (node, spec) in topology.nodes.iter().enumerate() {
            if matches!(spec.kind, Kind::Host(_)) && of_node[node].is_empty() {
                return Err(invalid(format!("host {} has no wire", spec.name)));
            }
        }
        let is_router = |node: NodeId| matches!(topology.nodes[node.index()].kind, Kind::Router(_));
        let gateways = (0..count)
            .map(|segment| {
                let on_it = |one: &Interface| one.segment == segment && is_router(one.node);
                interfaces.iter().position(on_it)
            })
            .collect();
        let ways = (0..topology.nodes.len() as u32)
            .map(|node| {
                if is_router(NodeId(node)) {
                    ways(NodeId(node), &interfaces, &of_node, count, is_router)
                } else {
                    Vec::new()
                }
            })
            .collect();
        Ok(Plan { interfaces, of_node, gateways, ways, mtu })
    }
}

/// The segment of each wire: wires that meet at a switch share theirs.
fn segments(topology: &Topology) -> io::Result<Vec<u32>> {
    // Union-find over nodes, joined by the wires between switches.
    let mut parent: Vec<usize> = (0..topology.nodes.len()).collect();
    fn root(parent: &mut [usize], mut node: usize) -> usize {
        while parent[node] != node {
            parent[node] = parent[parent[node]];
            node = parent[node];
        }
        node
    }
    let switch = |node: NodeId| matches!(topology.nodes[node.index()].kind, Kind::Switch);
    for wire in &topology.wires {
        let [a, b] = wire.ends;
        if switch(a) && switch(b) {
            let (root_a, root_b) = (root(&mut parent, a.index()), root(&mut parent, b.index()));
            if root_a == root_b {
                return Err(invalid(format!(
                    "the switches {} and {} are joined in a ring, where a broadcast would circle \
                     for ever",
                    topology.name(a),
                    topology.name(b)
                )));
            }
            parent[root_a] = root_b;
        }
    }
    let mut numbers = HashMap::new();
    let mut next = 0;
    let mut number = || {
        next += 1;
        next - 1
    };
    let segments =
        topology.wires.iter().map(|wire| match wire.ends.into_iter().find(|&end| switch(end)) {
            Some(end) => *numbers.entry(root(&mut parent, end.index())).or_insert_with(&mut number),
            None => number(),
        });
    Ok(segments.collect())
}

/// The shortest ways from a router to each segment.
fn ways(
    from: NodeId,
    interfaces: &[Interface],
    of_node: &[Vec<usize>],
    segments: u32,
    is_router: impl Fn(NodeId) -> bool,
) -> Vec<Option<Way>> {
    let mut ways: Vec<Option<Way>> = vec![None; segments as usize];
    let mut queue = VecDeque::new();
    for (out, &index) in of_node[from.index()].iter().enumerate() {
        let segment = interfaces[index].segment;
        if ways[segment as usize].is_none() {
            ways[segment as usize] = Some(Way { out: out as u16, via: None });
            queue.push_back(segment);
        }
    }
    while let Some(segment) = queue.pop_front() {
        let way = ways[segment as usize].expect("queued with its way");
        for next in interfaces.iter().filter(|one| one.segment == segment && one.node != from) {
            if !is_router(next.node) {
                continue;
            }
            for &beyond in &of_node[next.node.index()] {
                let beyond = interfaces[beyond].segment;
                if ways[beyond as usize].is_none() {
                    let via = Some(way.via.unwrap_or(next.mac));
                    ways[beyond as usize] = Some(Way { out: way.out, via });
                    queue.push_back(beyond);
                }
            }
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wires_that_meet_at_switches_are_one_network() {
        let mut topology = Topology::new();
        let hosts: Vec<NodeId> =
            (0..3).map(|_| topology.host(None, HostSpec::default()).unwrap()).collect();
        let switches: Vec<NodeId> = (0..2).map(|_| topology.switch(None).unwrap()).collect();
        let router = topology.router(None, RouterSpec::default()).unwrap();
        for (a, b) in [
            (hosts[0], switches[0]),
            (switches[0], switches[1]),
            (hosts[1], switches[1]),
            (switches[1], router),
            (router, hosts[2]),
        ] {
            topology.wire(a, b, WireSpec::default()).unwrap();
        }
        let plan = Plan::new(&topology).unwrap();
        let at = |node: NodeId| plan.interfaces[plan.of_node[node.index()][0]];
        assert_eq!(at(hosts[0]).segment, at(hosts[1]).segment);
        assert_ne!(at(hosts[0]).segment, at(hosts[2]).segment);
        assert_eq!(segment_v4(at(hosts[2]).v4), Some(at(hosts[2]).segment));
        assert_eq!(segment_v6(at(hosts[2]).v6), Some(at(hosts[2]).segment));
        let ways = &plan.ways[router.index()];
        assert!(ways.iter().all(|way| way.is_some_and(|way| way.via.is_none())));
        topology.wire(switches[0], switches[1], WireSpec::default()).unwrap();
        assert!(Plan::new(&topology).unwrap_err().to_string().contains("ring"));
    }

    #[test]
    fn a_router_finds_the_way_through_others() {
        let mut topology = Topology::new();
        let routers: Vec<NodeId> =
            (0..4).map(|_| topology.router(None, RouterSpec::default()).unwrap()).collect();
        for pair in routers.windows(2) {
            topology.wire(pair[0], pair[1], WireSpec::default()).unwrap();
        }
        let plan = Plan::new(&topology).unwrap();
        let last = plan.interfaces[plan.of_node[routers[3].index()][0]];
        let way = plan.ways[routers[0].index()][last.segment as usize].unwrap();
        let second = plan.interfaces[plan.of_node[routers[1].index()][0]];
        assert_eq!(way.via, Some(second.mac));
    }
}
