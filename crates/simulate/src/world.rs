//! A network alive: hosts, switches, routers and wires in virtual time.
//!
//! One event after the other, and all that happens at one time before a stack runs, so that a burst
//! is a burst. Nothing reads a clock and nothing depends on addresses in memory: the same topology,
//! scenario and seed give the same packets to the byte.

use core::net::{IpAddr, SocketAddr};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;

use millrace_frames::{Duration, Instant};
use millrace_port::impair::{Impairment, Link, Passage, Verdict};
use millrace_stack::{ConnectionInfo, Counters, Event as StackEvent, ListenerId, Ready};
use millrace_wire::ether::EtherType;
use millrace_wire::mac::Mac;

use crate::content::Content;
use crate::conversation::{Conversation, Report};
use crate::endpoint::Endpoint;
use crate::event::{Event, Events};
use crate::external::{External, ExternalId, Notice};
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
    /// `InvalidInput` for a node that is no host.
    pub fn address(&self, node: NodeId, ipv6: bool) -> io::Result<IpAddr> {
        self.host_of(node).map(|host| self.hosts[host].interface.address(ipv6))
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

    // Scenarios.

    /// Plans a conversation.
    ///
    /// # Errors
    /// `InvalidInput` for nodes that are no two hosts, and when the port is the scenario's own.
    pub fn converse(&mut self, conversation: Conversation) -> io::Result<()> {
        self.series(conversation, 1, Duration::ZERO)
    }

    /// Plans `count` conversations of a kind, one every `interval`.
    ///
    /// # Errors
    /// As [`World::converse`].
    pub fn series(
        &mut self,
        conversation: Conversation,
        count: u64,
        interval: Duration,
    ) -> io::Result<()> {
        let (client, server) =
            (self.host_of(conversation.client)?, self.host_of(conversation.server)?);
        if client == server {
            return Err(invalid(format!(
                "{} would talk to itself; a stack has no loopback",
                self.topology.name(conversation.client)
            )));
        }
        if conversation.exchange.is_some_and(|one| one.request == 0 || one.response == 0) {
            return Err(invalid("a request and a response have at least one byte".into()));
        }
        let ipv6 = self.settings.ipv6;
        if conversation.ipv6 && !ipv6 {
            return Err(invalid("this simulation has no IPv6; ask for it when it is made".into()));
        }
        match self.hosts[server].listens(conversation.port) {
            Some(Server::Conversations) => {}
            Some(Server::External(_)) => {
                return Err(invalid(format!(
                    "port {} of {} is the scenario's own",
                    conversation.port,
                    self.topology.name(conversation.server)
                )));
            }
            None => self.hosts[server].listen(conversation.port, Server::Conversations, ipv6)?,
        }
        let start = self.settings.epoch + conversation.start;
        self.series.push(Series { conversation, left: count, interval });
        if count > 0 {
            let series = self.series.len() as u32 - 1;
            self.events.push(start.max(self.now), Event::Start { series });
        }
        Ok(())
    }

    /// Plans a change, `at` counted from the start.
    ///
    /// # Errors
    /// `InvalidInput` for a change that makes no sense.
    pub fn change(&mut self, at: Duration, change: Change) -> io::Result<()> {
        match &change {
            Change::Vanish(node) | Change::Reboot(node) => {
                self.host_of(*node)?;
            }
            Change::Impair(_, directions) => {
                for direction in directions.iter() {
                    direction.validate()?;
                }
            }
            Change::Mtu(_, mtu) if *mtu < 576 => {
                return Err(invalid(format!("a wire's MTU is 576 to 65535 bytes, not {mtu}")));
            }
            _ => {}
        }
        self.changes.push(change);
        let number = self.changes.len() as u32 - 1;
        self.events.push((self.settings.epoch + at).max(self.now), Event::Change { number });
        Ok(())
    }

    /// Has [`Notice::Call`] told with `number` at a time counted from the start.
    pub fn call_at(&mut self, at: Duration, number: u64) {
        self.events.push((self.settings.epoch + at).max(self.now), Event::Call { number });
    }

    /// Listens at a host; what comes is told with `handler`'s number.
    ///
    /// # Errors
    /// As the stack's `listen`.
    pub fn listen(&mut self, node: NodeId, port: u16, handler: u32) -> io::Result<()> {
        let host = self.host_of(node)?;
        if self.hosts[host].listens(port).is_some() {
            let name = self.topology.name(node);
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("port {port} of {name} is taken"),
            ));
        }
        let ipv6 = self.settings.ipv6;
        self.hosts[host].listen(port, Server::External(handler), ipv6)
    }

    /// Connects from a host.
    ///
    /// # Errors
    /// As the stack's `connect`.
    pub fn connect(&mut self, node: NodeId, remote: SocketAddr) -> io::Result<ExternalId> {
        let host = self.host_of(node)?;
        let id = self.hosts[host].stack.connect(remote, None)?;
        let external = External::new(host as u32, id, false);
        Ok(self.add_external(host, external))
    }

    fn add_external(&mut self, host: usize, external: External) -> ExternalId {
        let number = self.externals.len() as u32;
        let id = external.id.expect("just made");
        self.hosts[host].set_holder(id, Holder::External(number));
        self.externals.push(external);
        self.touch(host);
        ExternalId(number)
    }

    fn with<T>(
        &mut self,
        connection: ExternalId,
        act: impl FnOnce(&mut External, &mut Host) -> T,
    ) -> io::Result<T> {
        let Some(external) = self.externals.get_mut(connection.0 as usize) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if external.id.is_none() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the connection is closed"));
        }
        let host = external.host as usize;
        let done = act(external, &mut self.hosts[host]);
        self.externals[connection.0 as usize].work(
            connection,
            &mut self.hosts[host].stack,
            &mut self.notices,
        );
        self.touch(host);
        Ok(done)
    }

    /// Writes to a connection of the scenario's. All is taken; what the stack has no room for waits.
    ///
    /// # Errors
    /// `NotConnected` when it is closed, `BrokenPipe` after a shutdown.
    pub fn write(&mut self, connection: ExternalId, data: &[u8]) -> io::Result<()> {
        let ends = self.externals.get(connection.0 as usize).is_some_and(External::ends_writing);
        if ends {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "writing was shut down"));
        }
        self.with(connection, |external, _| external.write(data))
    }

    /// No more is written after what was.
    ///
    /// # Errors
    /// `NotConnected` when it is closed.
    pub fn shutdown(&mut self, connection: ExternalId) -> io::Result<()> {
        self.with(connection, |external, _| external.shut())
    }

    /// Closes when all that was written is with the stack. Nothing more is told of the connection.
    /// One that is over stays so.
    pub fn close(&mut self, connection: ExternalId) {
        let _ = self.with(connection, |external, _| external.close());
    }

    /// Resets the connection. One that is over stays so.
    pub fn abort(&mut self, connection: ExternalId) {
        let _ = self.with(connection, |external, host| external.abort(&mut host.stack));
    }

    /// Leaves what comes in with the stack, so that its window closes, until it is read again.
    ///
    /// # Errors
    /// `NotConnected` when it is closed.
    pub fn pause(&mut self, connection: ExternalId, paused: bool) -> io::Result<()> {
        self.with(connection, |external, _| external.pause(paused))
    }

    /// A look at a connection of the scenario's; when it is over, the last one.
    pub fn info(&self, connection: ExternalId) -> Option<ConnectionInfo> {
        let external = self.externals.get(connection.0 as usize)?;
        match external.id {
            Some(id) => self.hosts[external.host as usize].stack.info(id).ok(),
            None => external.last_info,
        }
    }

    /// Bytes that were written and wait for room in the stack.
    pub fn waiting(&self, connection: ExternalId) -> usize {
        self.externals.get(connection.0 as usize).map_or(0, External::waiting)
    }

    /// The next thing that the scenario must know.
    pub fn notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    // Time.

    /// Goes on until a time counted from the start, until nothing will happen any more, or until
    /// the scenario must know something.
    ///
    /// # Errors
    /// What writing the trace said.
    pub fn run(&mut self, until: Duration) -> io::Result<Stop> {
        let until = self.settings.epoch + until;
        let stop = loop {
            self.settle();
            if !self.notices.is_empty() {
                break Stop::Notices;
            }
            match self.events.next_time() {
                None => break Stop::Quiet,
                Some(next) if next > until => {
                    self.now = self.now.max(until);
                    break Stop::Time;
                }
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

    // Packets.

    /// Puts a packet on a wire at its end `end`.
    fn send(&mut self, wire: u32, end: u8, number: u32) {
        let state = &self.wires[wire as usize];
        let packet = self.packets.get(number);
        if packet.segment_len() > usize::from(state.mtu) {
            self.wires[wire as usize].counters[usize::from(end)].too_long += 1;
            self.packets.give_back(number);
            return;
        }
        if state.super_segments {
            return self.put(wire, end, number);
        }
        packet.finish_checksum();
        if packet.gso_size == 0 {
            return self.put(wire, end, number);
        }
        let whole = core::mem::take(self.packets.get(number));
        self.packets.give_back(number);
        whole.cut(|segment| {
            let number = self.packets.take();
            let packet = self.packets.get(number);
            packet.bytes.extend_from_slice(segment);
            packet.damaged = whole.damaged;
            self.put(wire, end, number);
        });
    }

    fn put(&mut self, wire: u32, end: u8, number: u32) {
        let time = self.now - self.settings.epoch;
        let state = &mut self.wires[wire as usize];
        let link = &mut state.links[usize::from(end)];
        let packet = self.packets.get(number);
        state.counters[usize::from(end)].bytes += packet.bytes.len() as u64;
        if let Some(trace) = &mut self.trace {
            trace.packet(wire, end, time, &packet.bytes);
        }
        let verdict = if state.up {
            Some(link.offer(self.now, packet.bytes.len() as u32))
        } else {
            state.counters[usize::from(end)].down += 1;
            None
        };
        if let Some(digest) = &mut self.digest {
            let fate = match verdict {
                None => 0,
                Some(Verdict::Lost) => 1,
                Some(Verdict::QueueDropped) => 2,
                Some(Verdict::Passes(_)) => 3,
            };
            digest.packet(time, wire, end, fate, &packet.bytes);
        }
        let Some(Verdict::Passes(mut passage)) = verdict else {
            return self.packets.give_back(number);
        };
        // ARP has no checksum of its own; it relies on Ethernet's, which the links here lack.
        let spared = packet.damaged || packet.ether_type() == EtherType::ARP;
        passage.flipped_bit = passage.flipped_bit.filter(|_| !spared);
        if packet.gso_size > 0 && passage.flipped_bit.is_some() {
            return self.damage(wire, end, number, passage);
        }
        if passage.flipped_bit.is_some() {
            packet.finish_checksum();
            packet.damaged = true;
        }
        link.alter(&passage, &mut packet.bytes);
        self.deliver(wire, end, number, &passage);
    }

    fn deliver(&mut self, wire: u32, end: u8, number: u32, passage: &Passage) {
        let copy = passage.duplicate.then(|| self.packets.copy(number));
        for packet in [Some(number), copy].into_iter().flatten() {
            self.events.push(passage.arrival, Event::Arrive { wire, end: 1 - end, packet });
        }
    }

    /// A super-segment with a flipped bit goes on in pieces: whoever cut it later would sum the
    /// damage into a checksum that is right.
    fn damage(&mut self, wire: u32, end: u8, number: u32, mut passage: Passage) {
        let whole = core::mem::take(self.packets.get(number));
        self.packets.give_back(number);
        whole.cut(|segment| {
            let number = self.packets.take();
            let packet = self.packets.get(number);
            packet.damaged = true;
            let bytes = &mut packet.bytes;
            bytes.extend_from_slice(segment);
            let link = &mut self.wires[wire as usize].links[usize::from(end)];
            let first = 14 * 8;
            if let Some(bit) = &mut passage.flipped_bit {
                *bit = first + *bit % (bytes.len() as u32 * 8 - first);
            }
            link.alter(&passage, bytes);
            passage.flipped_bit = None;
            self.deliver(wire, end, number, &passage);
        });
    }

    fn arrive(&mut self, wire: u32, end: u8, number: u32) {
        let state = &self.wires[wire as usize];
        let (node, port) = (state.ends[usize::from(end)], state.ports[usize::from(end)]);
        if let Some(trace) = &mut self.trace {
            let time = self.now - self.settings.epoch;
            trace.packet(wire, end, time, &self.packets.get(number).bytes);
        }
        match self.devices[node.index()] {
            Device::Host(host) => self.host_takes(host as usize, number),
            Device::Switch(switch) => {
                let bytes = &self.packets.get(number).bytes;
                match self.switches[switch as usize].forward(port, bytes) {
                    Forward::Nowhere => self.packets.give_back(number),
                    Forward::To(to) => {
                        let (wire, end) = self.ports[node.index()][usize::from(to)];
                        self.send(wire, end, number);
                    }
                    Forward::Flood => {
                        for to in 0..self.ports[node.index()].len() {
                            if to != usize::from(port) {
                                let copy = self.packets.copy(number);
                                let (wire, end) = self.ports[node.index()][to];
                                self.send(wire, end, copy);
                            }
                        }
                        self.packets.give_back(number);
                    }
                }
            }
            Device::Router(router) => {
                let packet: Packet = core::mem::take(self.packets.get(number));
                self.packets.give_back(number);
                let mut out = core::mem::take(&mut self.out);
                let (ports, wires) = (&self.ports[node.index()], &self.wires);
                let mtu = |port: u16| usize::from(wires[ports[usize::from(port)].0 as usize].mtu);
                let router = &mut self.routers[router as usize];
                router.packet(port, &packet, &self.neighbours, mtu, &mut out);
                for (to, packet) in out.drain(..) {
                    let (wire, end) = self.ports[node.index()][usize::from(to)];
                    let number = self.packets.take();
                    *self.packets.get(number) = packet;
                    self.send(wire, end, number);
                }
                self.out = out;
            }
        }
    }

    fn host_takes(&mut self, host: usize, number: u32) {
        if self.hosts[host].gone {
            return self.packets.give_back(number);
        }
        if self.hosts[host].rx.is_full() {
            self.turn(host);
        }
        let state = &mut self.hosts[host];
        match self.packets.get(number).scatter(state.stack.arena_mut()) {
            Some(frame) => {
                let full = state.rx.push(frame);
                debug_assert!(full.is_ok(), "the batch was emptied before");
            }
            None => state.rx_no_frame += 1,
        }
        self.packets.give_back(number);
        self.touch(host);
    }

    /// The port of a host is done with its oldest packet, or takes it only now.
    fn sent(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        let Some(packet) = state.sending.pop_front() else { return };
        if state.gone {
            return;
        }
        let number = self.packets.take();
        self.packets.get(number).gather(state.stack.arena(), &packet);
        state.stack.arena_mut().transmitted(&packet);
        let (wire, end) = self.ports[state.node.index()][0];
        self.send(wire, end, number);
        self.touch(host);
    }

    // Hosts.

    /// A host takes what came, runs its timers, tells its applications, and sends.
    fn turn(&mut self, host: usize) {
        if self.hosts[host].gone {
            return;
        }
        let now = self.now;
        self.turns += 1;
        if self.turns > TURNS {
            if self.turns == TURNS + 1 {
                let node = self.hosts[host].node;
                let name = self.topology.name(node).to_owned();
                self.violate(format!("{name} has something to do at once, again and again"));
            }
            return;
        }
        let state = &mut self.hosts[host];
        state.stack.receive(now, &mut state.rx);
        state.stack.advance(now);
        loop {
            let mut moved = false;
            while let Some(event) = self.hosts[host].stack.next_event() {
                moved = true;
                self.hear(host, event);
            }
            moved |= self.transmit(host);
            if !moved {
                break;
            }
        }
        let state = &mut self.hosts[host];
        state.turns += 1;
        // Long queues make the check slow, so a long run is only looked at now and then.
        if self.settings.check && (state.turns < 500 || state.turns.is_multiple_of(16)) {
            state.stack.check_invariants();
        }
        if let Some(deadline) = state.stack.next_deadline()
            && deadline < state.timer
        {
            state.timer = deadline.max(now);
            self.events.push(state.timer, Event::Timer { host: host as u32 });
        }
    }

    fn transmit(&mut self, host: usize) -> bool {
        let mut moved = false;
        let (wire, end) = self.ports[self.hosts[host].node.index()][0];
        loop {
            let state = &mut self.hosts[host];
            if state.stack.transmit(self.now, &mut state.tx) == 0 {
                return moved;
            }
            moved = true;
            for at in 0..self.hosts[host].tx.len() {
                let state = &mut self.hosts[host];
                let packet = state.tx[at];
                if !state.spec.transmit_time.is_zero() {
                    state.sent_at = sent(self.now, state.sent_at, state.spec.transmit_time);
                    state.sending.push_back(packet);
                    self.events.push(state.sent_at, Event::Sent { host: host as u32 });
                    continue;
                }
                let number = self.packets.take();
                self.packets.get(number).gather(state.stack.arena(), &packet);
                state.stack.arena_mut().transmitted(&packet);
                self.send(wire, end, number);
            }
            self.hosts[host].tx.clear();
        }
    }

    fn hear(&mut self, host: usize, event: StackEvent) {
        match event {
            StackEvent::Accept(listener) => self.accept(host, listener),
            StackEvent::Connection(id, ready) => match self.hosts[host].holder(id) {
                Holder::Endpoint(endpoint) if self.endpoints[endpoint as usize].id == Some(id) => {
                    let stack = &mut self.hosts[host].stack;
                    let state = &mut self.endpoints[endpoint as usize];
                    state.hear(stack, &self.content, self.now, ready);
                    self.act(endpoint);
                }
                Holder::External(external) if self.externals[external as usize].id == Some(id) => {
                    let stack = &mut self.hosts[host].stack;
                    self.externals[external as usize].hear(
                        ExternalId(external),
                        stack,
                        ready,
                        &mut self.notices,
                    );
                }
                _ => self.violate(format!("{ready:?} was told of a connection that was let go of")),
            },
            StackEvent::Datagram(_) => self.violate("a datagram without a socket".into()),
        }
    }

    fn accept(&mut self, host: usize, listener: ListenerId) {
        let Some(&(_, port, server)) = self.hosts[host].listeners.get(&listener.index()) else {
            return self.violate("an event of a listener that there is not".into());
        };
        let stack = &mut self.hosts[host].stack;
        let Ok(Some(id)) = stack.accept(listener) else { return };
        let info = stack.info(id).expect("just accepted");
        if info.local.port() != port {
            self.violate(format!("accepted at port {} for port {port}", info.local.port()));
        }
        match server {
            Server::External(handler) => {
                let external = External::new(host as u32, id, true);
                let connection = self.add_external(host, external);
                self.notices.push_back(Notice::Accepted { handler, connection });
            }
            Server::Conversations => {
                let key = (host as u32, port, info.remote);
                let endpoint = self.expected.get(&key).map(|number| number * 2 + 1);
                let fresh = endpoint.filter(|&at| {
                    let state = &self.endpoints[at as usize];
                    state.id.is_none() && !state.over()
                });
                let Some(endpoint) = fresh else {
                    // A SYN that came twice, long after the first was over.
                    self.strays += 1;
                    let stack = &mut self.hosts[host].stack;
                    stack.abort(id);
                    stack.release(id);
                    return;
                };
                let state = &mut self.endpoints[endpoint as usize];
                let stack = &mut self.hosts[host].stack;
                state.set_up(stack, id);
                state.hear(stack, &self.content, self.now, Ready::CONNECTED);
                self.hosts[host].set_holder(id, Holder::Endpoint(endpoint));
                self.act(endpoint);
            }
        }
    }

    fn act(&mut self, endpoint: u32) {
        let state = &mut self.endpoints[endpoint as usize];
        let stack = &mut self.hosts[state.host as usize].stack;
        let next = state.act(stack, &self.content, self.now);
        if let Some(next) = next
            && state.scheduled.is_none_or(|at| next < at)
        {
            state.scheduled = Some(next);
            self.events.push(next, Event::Look { endpoint });
        }
        if let Some(wrong) = state.wrong.take() {
            let (conversation, side) = (state.conversation, state.side);
            self.violate(format!(
                "conversation {conversation}, {}: {wrong}",
                ["client", "server"][usize::from(side)]
            ));
        }
    }

    // What is left of it.

    /// What became of each conversation that has started.
    pub fn reports(&self) -> Vec<Report> {
        let reports = self.conversations.iter().enumerate().map(|(number, &(conversation, at))| {
            let [client, server] = [0, 1].map(|side| &self.endpoints[number * 2 + side]);
            let look = |endpoint: &Endpoint| {
                let mut report = endpoint.report.clone();
                if let Some(id) = endpoint.id {
                    report.info = self.hosts[endpoint.host as usize].stack.info(id).ok();
                }
                report
            };
            Report {
                conversation,
                started: at,
                sides: [look(client), look(server)],
                latencies: client.latencies.clone(),
            }
        });
        reports.collect()
    }

    /// Sides of conversations that are not over: conversation, side, what is known of it.
    pub(crate) fn unfinished(&self) -> Vec<u32> {
        (0..self.endpoints.len() as u32).filter(|&at| !self.endpoints[at as usize].over()).collect()
    }

    pub(crate) fn endpoint(&self, at: u32) -> &Endpoint {
        &self.endpoints[at as usize]
    }

    pub(crate) fn endpoint_info(&self, at: u32) -> Option<ConnectionInfo> {
        let endpoint = self.endpoint(at);
        self.hosts[endpoint.host as usize].stack.info(endpoint.id?).ok()
    }

    /// Gives up a side that waits for what will never come.
    pub(crate) fn give_up(&mut self, at: u32) {
        let endpoint = &mut self.endpoints[at as usize];
        let host = endpoint.host as usize;
        if endpoint.id.is_some() {
            endpoint.abort(&mut self.hosts[host].stack, self.now);
        }
        endpoint.report.ended.get_or_insert(self.now);
        self.touch(host);
    }

    /// Closes all listeners, so that nothing holds a frame or a connection any more.
    pub(crate) fn close_listeners(&mut self) {
        for host in 0..self.hosts.len() {
            for (_, (id, _, _)) in std::mem::take(&mut self.hosts[host].listeners) {
                self.hosts[host].stack.close_listener(id);
            }
            self.touch(host);
        }
    }

    /// Connections and frames that are still in use, by host that is there.
    pub(crate) fn leftovers(&mut self) -> Vec<(String, usize, usize)> {
        let mut left = Vec::new();
        for host in self.hosts.iter_mut().filter(|host| !host.gone) {
            host.stack.arena_mut().collect_held();
            let (connections, frames) = (host.stack.connections(), host.frames_in_use());
            if connections > 0 || frames > 0 {
                left.push((self.topology.name(host.node).to_owned(), connections, frames));
            }
        }
        left
    }

    /// What should never happen and did: a byte out of place, an event out of turn.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// SHA-256 of every packet on every wire, with its time: the same for two runs exactly when
    /// they did the same.
    pub fn digest(&self) -> Option<String> {
        self.digest.as_ref().map(Digest::hex)
    }

    /// Events that have happened: how much work it was.
    pub fn events(&self) -> u64 {
        self.events_run
    }

    /// Packets on the wires now.
    pub fn in_flight(&self) -> usize {
        self.packets.in_use()
    }

    /// Each host's name, what its stack counted, and the packets that found no frame.
    pub fn stacks(&self) -> impl Iterator<Item = (&str, &Counters, u64)> {
        self.hosts
            .iter()
            .map(|host| (self.topology.name(host.node), host.stack.counters(), host.rx_no_frame))
    }

    /// Each router's name and counters.
    pub fn routers(&self) -> impl Iterator<Item = (&str, RouterCounters)> {
        self.devices.iter().enumerate().filter_map(|(node, device)| match device {
            Device::Router(router) => Some((
                self.topology.name(NodeId(node as u32)),
                self.routers[*router as usize].counters,
            )),
            _ => None,
        })
    }

    /// Each wire's name and what its two directions counted.
    pub fn wires(&self) -> impl Iterator<Item = (String, [LinkCounters; 2])> {
        self.wires.iter().enumerate().map(|(number, wire)| {
            let name = self.topology.wire_name(WireId(number as u32));
            let counters = [0, 1].map(|end| LinkCounters {
                link: *wire.links[end].counters(),
                ..wire.counters[end]
            });
            (name, counters)
        })
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
