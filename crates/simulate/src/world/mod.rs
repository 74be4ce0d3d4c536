//! A network alive: hosts, switches, routers and wires in virtual time.
//!
//! One event after the other, and all that happens at one time before a stack runs, so that a burst
//! is a burst. Nothing reads a clock and nothing depends on addresses in memory: the same topology,
//! scenario and seed give the same packets to the byte.

mod hosts;
mod packets;
mod report;
mod scenario;

use core::net::{IpAddr, SocketAddr};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;

use millrace_frames::{Duration, Instant};
use millrace_port::impair::{Impairment, Link, Passage, Verdict};
use millrace_stack::{ConnectionInfo, Counters, Event as StackEvent, ListenerId, Ready, TcpInfo};
use millrace_wire::ether::EtherType;
use millrace_wire::mac::Mac;

use crate::content::Content;
use crate::conversation::{Conversation, Report};
use crate::endpoint::Endpoint;
use crate::event::{Event, Events};
use crate::external::{External, ExternalId, Notice, look};
use crate::host::{Holder, Host, Server, sent};
use crate::link::LinkCounters;
use crate::packet::{Packet, Packets};
use crate::random::Dice;
use crate::router::{Out, Router, RouterCounters};
use crate::switch::{Forward, Switch};
use crate::topology::{Kind, NodeId, Plan, Topology, WireId};
use crate::trace::{Digest, Trace};

/// How a simulation is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where all dice and secrets start.
    pub seed: u64,
    /// What the stacks' clocks say at the start. The simulation's own times count from there.
    pub epoch: Instant,
    /// Hosts have IPv6 addresses too.
    pub ipv6: bool,
    /// Where a pcapng file of all captured wires goes.
    pub trace: Option<PathBuf>,
    /// Whether the digest is kept.
    pub digest: bool,
    /// Whether each stack's invariants are checked after each of its turns.
    pub check: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            seed: 0,
            epoch: Instant::from_millis(1_000_000),
            ipv6: false,
            trace: None,
            digest: true,
            check: false,
        }
    }
}

/// Something that changes on the way.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The wire loses everything until it is up again.
    Down(WireId),
    /// The wire works again.
    Up(WireId),
    /// The wire takes packets of other sizes from now on.
    Mtu(WireId, u16),
    /// Other things go wrong on the wire from now on, in each direction.
    Impair(WireId, Box<[Impairment; 2]>),
    /// The host is silent from now on, without a word to anybody.
    Vanish(NodeId),
    /// The host comes back with a stack that remembers nothing.
    Reboot(NodeId),
}

/// Why [`World::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The time that was asked for has come.
    Time,
    /// Nothing will happen any more by itself.
    Quiet,
    /// There are notices for the scenario ([`World::notice`]).
    Notices,
}

#[derive(Clone, Copy, Debug)]
enum Device {
    Host(u32),
    Switch(u32),
    Router(u32),
}

struct WireState {
    links: [Link; 2],
    counters: [LinkCounters; 2],
    ends: [NodeId; 2],
    ports: [u16; 2],
    up: bool,
    mtu: u16,
    super_segments: bool,
}

struct Series {
    conversation: Conversation,
    left: u64,
    interval: Duration,
}

/// Most turns of one host at one time. More mean that its stack asks for the present for ever.
const TURNS: u32 = 100_000;

/// A network alive.
pub struct World {
    topology: Topology,
    plan: Plan,
    settings: Settings,
    now: Instant,
    /// Turns at the present time.
    turns: u32,
    events: Events,
    packets: Packets,
    devices: Vec<Device>,
    /// Wire and end of each node's ports.
    ports: Vec<Vec<(u32, u8)>>,
    hosts: Vec<Host>,
    switches: Vec<Switch>,
    routers: Vec<Router>,
    wires: Vec<WireState>,
    neighbours: HashMap<IpAddr, Mac>,
    dirty: Vec<u32>,
    content: Content,
    endpoints: Vec<Endpoint>,
    conversations: Vec<(Conversation, Instant)>,
    /// Conversations whose clients have connected, by what the server sees of them.
    expected: HashMap<(u32, u16, SocketAddr), u32>,
    series: Vec<Series>,
    changes: Vec<Change>,
    externals: Vec<External>,
    notices: VecDeque<Notice>,
    trace: Option<Trace>,
    digest: Option<Digest>,
    violations: Vec<String>,
    events_run: u64,
    strays: u64,
    out: Out,
}

impl World {
    /// Brings a topology to life.
    ///
    /// # Errors
    /// What is wrong with the topology, a host's configuration or the trace file.
    pub fn new(topology: Topology, settings: Settings) -> io::Result<World> {
        let plan = Plan::new(&topology)?;
        let dice = Dice::new(settings.seed);
        let mut world = World {
            now: settings.epoch,
            turns: 0,
            events: Events::default(),
            packets: Packets::default(),
            devices: Vec::new(),
            ports: vec![Vec::new(); topology.nodes.len()],
            hosts: Vec::new(),
            switches: Vec::new(),
            routers: Vec::new(),
            wires: Vec::new(),
            neighbours: HashMap::new(),
            dirty: Vec::new(),
            content: Content::new(),
            endpoints: Vec::new(),
            conversations: Vec::new(),
            expected: HashMap::new(),
            series: Vec::new(),
            changes: Vec::new(),
            externals: Vec::new(),
            notices: VecDeque::new(),
            trace: None,
            digest: settings.digest.then(Digest::new),
            violations: Vec::new(),
            events_run: 0,
            strays: 0,
            out: Vec::new(),
            topology,
            plan,
            settings,
        };
        for (number, wire) in world.topology.wires.iter().enumerate() {
            let ports = [0, 1].map(|end| {
                let ports = &mut world.ports[wire.ends[end].index()];
                ports.push((number as u32, end as u8));
                (ports.len() - 1) as u16
            });
            let link = |end: usize| {
                let seed = dice.part(1 << 32 | (number * 2 + end) as u64).roll();
                Link::new(wire.spec.directions[end], seed)
            };
            world.wires.push(WireState {
                links: [link(0), link(1)],
                counters: [LinkCounters::default(); 2],
                ends: wire.ends,
                ports,
                up: true,
                mtu: wire.spec.mtu,
                super_segments: wire.spec.super_segments,
            });
        }
        for interface in &world.plan.interfaces {
            for address in [false, true].map(|ipv6| interface.address(ipv6)) {
                world.neighbours.insert(address, interface.mac);
            }
            world.neighbours.insert(interface.link_local().into(), interface.mac);
        }
        for number in 0..world.topology.nodes.len() {
            world.add_device(NodeId(number as u32))?;
        }
        if let Some(path) = world.settings.trace.clone() {
            let ends: Vec<_> = (0..world.wires.len()).map(|wire| world.end_names(wire)).collect();
            world.trace = Some(Trace::create(&path, &ends)?);
        }
        Ok(world)
    }

    fn add_device(&mut self, node: NodeId) -> io::Result<()> {
        let Settings { seed, ipv6, .. } = self.settings;
        let device = match &self.topology.nodes[node.index()].kind {
            Kind::Host(spec) => {
                let spec = (**spec).clone();
                let host = Host::new(node, spec, &self.plan, seed, ipv6, self.now)
                    .map_err(|error| self.about(node, &error))?;
                self.dirty.push(self.hosts.len() as u32);
                self.hosts.push(host);
                Device::Host(self.hosts.len() as u32 - 1)
            }
            Kind::Switch => {
                self.switches.push(Switch::default());
                Device::Switch(self.switches.len() as u32 - 1)
            }
            Kind::Router(spec) => {
                let interfaces = self.plan.of_node[node.index()].iter();
                let interfaces = interfaces.map(|&index| self.plan.interfaces[index]).collect();
                let ways = self.plan.ways[node.index()].clone();
                self.routers.push(Router::new(spec.icmp, interfaces, ways));
                Device::Router(self.routers.len() as u32 - 1)
            }
        };
        self.devices.push(device);
        Ok(())
    }

    fn about(&self, node: NodeId, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("host {}: {error}", self.topology.name(node)))
    }

    fn end_names(&self, wire: usize) -> Option<[String; 2]> {
        let state = &self.wires[wire];
        self.topology.wires[wire].spec.capture.then(|| {
            [0, 1]
                .map(|end| format!("{}.{}", self.topology.name(state.ends[end]), state.ports[end]))
        })
    }

    /// The topology.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What the stacks' clocks said at the start.
    pub fn epoch(&self) -> Instant {
        self.settings.epoch
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.now - self.settings.epoch
    }

    /// An address of a host, of IPv6 or of IPv4.
    ///
    /// # Errors
    /// `InvalidInput` for a node that is no host, and for IPv6 in a simulation without it.
    pub fn address(&self, node: NodeId, ipv6: bool) -> io::Result<IpAddr> {
        self.check_ipv6(ipv6)?;
        self.host_of(node).map(|host| self.hosts[host].interface.address(ipv6))
    }

    fn check_ipv6(&self, wanted: bool) -> io::Result<()> {
        match wanted && !self.settings.ipv6 {
            true => Err(invalid("this simulation has no IPv6; ask for it when it is made".into())),
            false => Ok(()),
        }
    }

    fn host_of(&self, node: NodeId) -> io::Result<usize> {
        match self.devices.get(node.index()) {
            Some(Device::Host(host)) => Ok(*host as usize),
            _ => Err(invalid(format!("{} is no host", self.topology.name(node)))),
        }
    }

    fn touch(&mut self, host: usize) {
        if !core::mem::replace(&mut self.hosts[host].dirty, true) {
            self.dirty.push(host as u32);
        }
    }

    /// Goes on until a time counted from the start, until nothing will happen any more, or until
    /// the scenario must know something.
    ///
    /// # Errors
    /// What writing the trace said.
    pub fn run(&mut self, until: Duration) -> io::Result<Stop> {
        loop {
            if let Some(stop) = self.run_a_while(until, u64::MAX)? {
                return Ok(stop);
            }
        }
    }

    /// The same, but comes back after about so many events, with `None`, for who has to look at
    /// something else in between.
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn run_a_while(&mut self, until: Duration, events: u64) -> io::Result<Option<Stop>> {
        let until = self.settings.epoch + until;
        let last = self.events_run.saturating_add(events);
        let stop = loop {
            self.settle();
            if !self.notices.is_empty() {
                break Some(Stop::Notices);
            }
            match self.events.next_time() {
                None => break Some(Stop::Quiet),
                Some(next) if next > until => {
                    self.now = self.now.max(until);
                    break Some(Stop::Time);
                }
                Some(_) if self.events_run >= last => break None,
                Some(next) => {
                    if next > self.now {
                        self.now = next;
                        self.turns = 0;
                    }
                    while let Some(event) = self.events.pop_until(self.now) {
                        self.events_run += 1;
                        self.happen(event);
                    }
                }
            }
        };
        if let Some(trace) = &mut self.trace {
            trace.flush()?;
        }
        Ok(stop)
    }

    /// Every host that has something to do does it.
    fn settle(&mut self) {
        let mut at = 0;
        while at < self.dirty.len() {
            let host = self.dirty[at] as usize;
            at += 1;
            self.hosts[host].dirty = false;
            self.turn(host);
        }
        self.dirty.clear();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { wire, end, packet } => self.arrive(wire, end, packet),
            Event::Timer { host } => {
                let state = &mut self.hosts[host as usize];
                if state.timer <= self.now {
                    state.timer = Instant::FAR_FUTURE;
                    self.touch(host as usize);
                }
            }
            Event::Sent { host } => self.sent(host as usize),
            Event::Look { endpoint } => {
                let state = &mut self.endpoints[endpoint as usize];
                if state.scheduled.is_some_and(|at| at <= self.now) {
                    state.scheduled = None;
                    let host = state.host as usize;
                    self.act(endpoint);
                    self.touch(host);
                }
            }
            Event::Start { series } => self.start(series as usize),
            Event::Change { number } => self.apply(number as usize),
            Event::Call { number } => self.notices.push_back(Notice::Call(number)),
        }
    }

    fn start(&mut self, series: usize) {
        let Series { conversation, left, interval } = &mut self.series[series];
        let conversation = *conversation;
        *left -= 1;
        if *left > 0 {
            let next = self.now + *interval;
            self.events.push(next, Event::Start { series: series as u32 });
        }
        let number = self.conversations.len() as u32;
        self.conversations.push((conversation, self.now));
        let nodes = [conversation.client, conversation.server];
        for (side, node) in nodes.into_iter().enumerate() {
            let host = self.host_of(node).expect("checked when it was planned") as u32;
            let dice =
                Dice::new(self.settings.seed).part(2 << 32 | u64::from(number * 2 + side as u32));
            self.endpoints.push(Endpoint::new(
                host,
                number,
                side as u8,
                conversation.sides[side],
                conversation.exchange,
                dice,
            ));
        }
        let client = number * 2;
        let host = self.endpoints[client as usize].host as usize;
        if self.hosts[host].gone {
            self.forget(client, true);
            return self.forget(client + 1, false);
        }
        let server = self.endpoints[client as usize + 1].host;
        let address = self.hosts[server as usize].interface.address(conversation.ipv6);
        let remote = SocketAddr::new(address, conversation.port);
        let stack = &mut self.hosts[host].stack;
        match stack.connect(remote, None) {
            Ok(id) => {
                let local = stack.info(id).expect("just made").local;
                self.endpoints[client as usize].set_up(stack, id);
                self.hosts[host].set_holder(id, Holder::Endpoint(client));
                self.expected.insert((server, conversation.port, local), number);
                self.act(client);
                self.touch(host);
            }
            Err(error) => {
                // No room for one more: it says so, which is all that is asked of it.
                self.endpoints[client as usize].report.failure =
                    Some(millrace_stack::Failure::Aborted);
                if error.kind() != io::ErrorKind::QuotaExceeded
                    && error.kind() != io::ErrorKind::AddrNotAvailable
                {
                    self.violate(format!("conversation {number}: connect: {error}"));
                }
                self.forget(client, false);
                self.forget(client + 1, false);
            }
        }
    }

    /// An endpoint is over without a connection.
    fn forget(&mut self, endpoint: u32, vanished: bool) {
        let endpoint = &mut self.endpoints[endpoint as usize];
        endpoint.id = None;
        endpoint.report.vanished |= vanished;
        endpoint.report.ended.get_or_insert(self.now);
    }

    fn apply(&mut self, number: usize) {
        match self.changes[number].clone() {
            Change::Down(wire) => self.wires[wire.index()].up = false,
            Change::Up(wire) => self.wires[wire.index()].up = true,
            Change::Mtu(wire, mtu) => self.wires[wire.index()].mtu = mtu,
            Change::Impair(wire, directions) => {
                for (link, direction) in self.wires[wire.index()].links.iter_mut().zip(*directions)
                {
                    link.set_impairment(direction);
                }
            }
            Change::Vanish(node) => {
                let host = self.host_of(node).expect("checked when it was planned");
                self.hosts[host].gone = true;
                for endpoint in 0..self.endpoints.len() {
                    let state = &self.endpoints[endpoint];
                    if state.host as usize == host && !state.over() && state.id.is_some() {
                        self.forget(endpoint as u32, true);
                    }
                }
                for external in self.externals.iter_mut().filter(|one| one.host as usize == host) {
                    external.id = None;
                }
            }
            Change::Reboot(node) => {
                let host = self.host_of(node).expect("checked when it was planned");
                if !self.hosts[host].gone {
                    self.violate(format!("{} is up already", self.topology.name(node)));
                    return;
                }
                let Settings { seed, ipv6, .. } = self.settings;
                if let Err(error) = self.hosts[host].reboot(&self.plan, seed, ipv6, self.now) {
                    let error = self.about(node, &error);
                    self.violate(error.to_string());
                }
                self.touch(host);
            }
        }
    }

    fn violate(&mut self, what: String) {
        if self.violations.len() < 100 {
            self.violations.push(format!("{:.6} s: {what}", self.now().as_secs_f64()));
        }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
