//! Random worlds, judged: whatever the network does, every byte arrives once and in order or the
//! connection says that it failed; nothing hangs; no frame and no connection is left behind.
//!
//! One number makes a world: its hosts, switches, routers and wires, what goes wrong on them and
//! when, how the stacks are set, and what the applications do. The same number makes the same world
//! for as long as this file does not change.

use core::fmt;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use millrace_frames::{Duration, Instant};
use millrace_port::impair::{GilbertElliott, Impairment};
use millrace_stack::SettingValue;

use crate::conversation::{Behaviour, Conversation, Exchange, Manner, Pace};
use crate::options::{explain, set_option};
use crate::random::Dice;
use crate::topology::{HostSpec, NodeId, RouterSpec, Topology, WireId, WireSpec};
use crate::world::{Change, Settings, Stop, World};

/// Longest that a world may take in its own time: after all retries of everything, and then some.
/// What still moves then is slow and not broken.
const END: Duration = Duration::from_secs(24 * 3600);
/// Longest that a connection may do so without a byte that arrives.
const STILL: Duration = Duration::from_secs(3 * 3600);
/// Most events of a world.
const EVENTS: u64 = 10_000_000;

/// What was found of a world that kept its promises.
#[derive(Clone, Debug)]
pub struct Passed {
    /// SHA-256 of all its packets.
    pub digest: String,
    /// Events that happened.
    pub events: u64,
    /// How long it took in its own time.
    pub time: Duration,
    /// Connections of it.
    pub connections: usize,
    /// Of these, those whose both sides had everything and ended in order.
    pub complete: usize,
}

/// A random world, ready to run.
pub struct RandomWorld {
    /// The world.
    pub world: World,
    /// What is random about it, for people.
    pub description: String,
    /// Nothing in it excuses a connection that fails: no host vanishes, no wire is down for long,
    /// little is lost, and there is memory for everybody.
    pub kind: bool,
}

struct Maker {
    dice: Dice,
    topology: Topology,
    hosts: Vec<NodeId>,
    wires: Vec<WireId>,
    kind: bool,
    text: Vec<String>,
    mtu: u16,
    ipv6: bool,
    prediction: bool,
}

/// Makes the world of a seed.
///
/// # Errors
/// What the stack or the trace file said.
pub fn random_world(seed: u64, trace: Option<PathBuf>, check: bool) -> io::Result<RandomWorld> {
    world_of(seed, trace, check, true)
}

/// The same world with stacks that take no shorter way where all is as predicted: its packets must
/// be the same.
///
/// # Errors
/// As [`random_world`].
pub fn without_prediction(seed: u64) -> io::Result<RandomWorld> {
    world_of(seed, None, true, false)
}

fn world_of(
    seed: u64,
    trace: Option<PathBuf>,
    check: bool,
    prediction: bool,
) -> io::Result<RandomWorld> {
    let mut dice = Dice::new(seed).part(0x7761_6e74);
    let kind = dice.happens(0.5);
    let mut maker = Maker {
        mtu: dice.pick(&[576, 1006, 1280, 1500, 1500, 1500, 1500, 1800]),
        dice,
        topology: Topology::new(),
        hosts: Vec::new(),
        wires: Vec::new(),
        kind,
        text: Vec::new(),
        ipv6: false,
        prediction,
    };
    maker.network()?;
    // IPv6 takes links of 1280 bytes at the least (RFC 8200 §5).
    let ipv6 = maker.mtu >= 1280 && maker.chance(0.6);
    maker.ipv6 = ipv6;
    let epoch = maker.epoch();
    maker.text.push(format!("the clock starts at {epoch:?}"));
    let settings = Settings { seed, epoch, ipv6, trace, digest: true, check };
    let mut world = World::new(core::mem::take(&mut maker.topology), settings)?;
    maker.talk(&mut world)?;
    maker.trouble(&mut world)?;
    let excuse = if maker.kind { "nothing excuses a failure" } else { "failures are excused" };
    maker.text.push(excuse.into());
    Ok(RandomWorld { world, description: maker.text.join("\n"), kind: maker.kind })
}

impl Maker {
    fn chance(&mut self, probability: f64) -> bool {
        self.dice.happens(probability)
    }

    /// Times at which one of the clocks of TCP wraps are as good as any.
    fn epoch(&mut self) -> Instant {
        let near = |dice: &mut Dice, nanos: u64| nanos.saturating_sub(dice.below(20_000_000_000));
        let nanos = match self.dice.below(6) {
            0 => 0,
            1 => near(&mut self.dice, (1 << 32) * 1_000),
            2 => near(&mut self.dice, (1 << 31) * 1_000_000),
            3 => near(&mut self.dice, (1 << 32) * 1_000_000),
            _ => self.dice.below(1 << 60),
        };
        Instant::from_nanos(nanos)
    }

    fn impairment(&mut self) -> Impairment {
        let kind = self.kind;
        let dice = &mut self.dice;
        let loss: &[f64] =
            if kind { &[0.0, 0.0, 0.001, 0.01, 0.03] } else { &[0.0, 0.0, 0.01, 0.05, 0.2, 0.5] };
        let mut impairment = Impairment {
            loss: dice.pick(loss),
            duplicate: dice.pick(&[0.0, 0.0, 0.0, 0.01, 0.2]),
            corrupt: dice.pick(&[0.0, 0.0, 0.0, 0.02]),
            delay: Duration::from_micros(dice.pick(&[0, 5, 50, 1_000, 5_000, 20_000, 80_000])),
            jitter: Duration::from_micros(dice.pick(&[0, 0, 0, 100, 10_000])),
            jitter_reorders: dice.happens(0.5),
            reorder: dice.pick(&[0.0, 0.0, 0.0, 0.02, 0.3]),
            reorder_delay: Duration::from_micros(dice.pick(&[20, 100, 3_000, 50_000])),
            rate_bits_per_s: dice.pick(&[
                None,
                None,
                Some(1_000_000),
                Some(10_000_000),
                Some(50_000_000),
                Some(1_000_000_000),
            ]),
            queue_bytes: dice.pick(&[6_000, 20_000, 100_000, 256 << 10]),
            ..Impairment::default()
        };
        if !kind && dice.happens(0.15) {
            let length = dice.pick(&[2.0, 10.0, 40.0]);
            impairment.bursts = Some(GilbertElliott::bursts(dice.pick(&[0.01, 0.1]), length));
        }
        if impairment.rate_bits_per_s.is_some() && dice.happens(0.4) {
            impairment.mark_bytes = Some(dice.pick(&[3_000, 10_000, 50_000]));
        }
        impairment
    }

    fn wire(&mut self, a: NodeId, b: NodeId, perfect: bool) -> io::Result<()> {
        let directions = if perfect {
            [Impairment::default(); 2]
        } else {
            [self.impairment(), self.impairment()]
        };
        let spec = WireSpec {
            directions,
            mtu: self.mtu,
            super_segments: self.chance(0.15),
            capture: true,
        };
        let wire = self.topology.wire(a, b, spec.clone())?;
        self.text.push(format!(
            "wire {}: MTU {}{}; there {}; back {}",
            self.topology.wire_name(wire),
            spec.mtu,
            if spec.super_segments { ", super-segments pass" } else { "" },
            spec.directions[0],
            spec.directions[1],
        ));
        self.wires.push(wire);
        Ok(())
    }

    fn host(&mut self) -> io::Result<NodeId> {
        let mut spec = HostSpec::default();
        let kind = self.kind;
        let dice = &mut self.dice;
        let mut options = vec![
            ("connections", SettingValue::Whole(dice.pick(&[64, 64, 64, 256]))),
            ("frame_size", SettingValue::Whole(dice.pick(&[2048, 2048, 4096]))),
        ];
        let frames: &[i128] = if kind { &[4096] } else { &[120, 400, 4096, 4096] };
        let frames = dice.pick(frames);
        options.push(("frames", SettingValue::Whole(frames)));
        options.push(("frame_reserve", SettingValue::Whole(dice.pick(&[40, 100]))));
        for name in ["send_buffer", "receive_buffer"] {
            let bytes = dice.pick(&[2_048, 3_000, 5_000, 20_000, 65_535, 200_000, 1 << 20]);
            options.push((name, SettingValue::Whole(bytes)));
        }
        if kind {
            // An outage of two seconds is no reason to call a neighbour dead.
            options.push(("neighbour_retries", SettingValue::Whole(10)));
        }
        if dice.happens(0.25) {
            options
                .push(("super_segments", SettingValue::Whole(dice.pick(&[3_000, 16_000, 65_535]))));
        }
        if dice.happens(0.25) {
            let time = dice.pick(&[1e-6, 1e-5, 2e-4]);
            options.push(("transmit_time", SettingValue::Number(time)));
        }
        if !kind && dice.happens(0.2) {
            let frames = dice.pick(&[1, 4, 30]);
            options.push(("out_of_order_frames", SettingValue::Whole(frames)));
        }
        if dice.happens(0.2) {
            options.push(("initial_window", SettingValue::Whole(dice.pick(&[1, 2, 4]))));
        }
        if dice.happens(0.2) {
            options.push(("delayed_ack", SettingValue::Number(dice.pick(&[0.001, 0.2, 0.45]))));
        }
        if dice.happens(0.2) {
            options.push(("neighbour_reachable", SettingValue::Number(dice.pick(&[1.0, 20.0]))));
        }
        if dice.happens(0.5) {
            let name = dice.pick(&["reno", "cubic", "bbr", "dctcp"]);
            options.push(("congestion", SettingValue::Text(name.into())));
        }
        for name in FEATURES {
            if dice.happens(0.15) {
                options.push((name, SettingValue::Flag(false)));
            }
        }
        if !self.prediction {
            options.push(("prediction", SettingValue::Flag(false)));
        }
        for (name, value) in &options {
            set_option(&mut spec, name, value)
                .map_err(|error| explain(&error, name, &value.to_string()))?;
        }
        let host = self.topology.host(None, spec)?;
        let options: Vec<String> =
            options.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.text.push(format!("{}: {}", self.topology.name(host), options.join(" ")));
        self.hosts.push(host);
        Ok(host)
    }

    /// A tree of switches and routers, now and then with a ring of routers in it, and hosts around.
    fn network(&mut self) -> io::Result<()> {
        let middles = self.dice.pick(&[0, 0, 1, 1, 2, 3, 4]);
        let hosts = if middles == 0 { 2 } else { 2 + self.dice.below(4) };
        let mut inner = Vec::new();
        for _ in 0..middles {
            let router = self.chance(0.5);
            let icmp = self.chance(0.8);
            let node = if router {
                self.topology.router(None, RouterSpec { icmp })?
            } else {
                self.topology.switch(None)?
            };
            if !inner.is_empty() {
                let (other, _) = inner[self.dice.below(inner.len() as u64) as usize];
                let perfect = self.chance(0.5);
                self.wire(node, other, perfect)?;
            }
            inner.push((node, router));
        }
        for _ in 0..hosts {
            self.host()?;
        }
        if inner.is_empty() {
            return self.wire(self.hosts[0], self.hosts[1], false);
        }
        for host in self.hosts.clone() {
            let (middle, _) = inner[self.dice.below(inner.len() as u64) as usize];
            let perfect = self.chance(0.4);
            self.wire(host, middle, perfect)?;
        }
        let routers: Vec<NodeId> =
            inner.iter().filter(|(_, router)| *router).map(|(node, _)| *node).collect();
        if routers.len() >= 2 && self.chance(0.3) {
            self.wire(routers[0], routers[routers.len() - 1], false)?;
        }
        Ok(())
    }

    fn behaviour(&mut self) -> Behaviour {
        let kind = self.kind;
        let dice = &mut self.dice;
        let bytes = match dice.below(8) {
            0 | 1 => 0,
            2 | 3 => dice.below(2_000),
            4..=6 => dice.below(150_000),
            _ => dice.below(1_500_000),
        };
        let manner = match dice.below(if kind { 20 } else { 10 }) {
            0 => Manner::Hasty,
            1 => Manner::Rude(dice.below(100_000)),
            2 if !kind => Manner::Fickle,
            3 if !kind => Manner::Deaf,
            4..=6 => Manner::Patient,
            _ => Manner::Polite,
        };
        let pace = if dice.happens(0.5) {
            Pace::Eager
        } else {
            Pace::Lazy {
                pause: Duration::from_micros(dice.pick(&[100, 5_000, 40_000, 400_000])),
                frames: dice.pick(&[1, 5, 20, 200]),
                bytes: dice.pick(&[1, 500, 5_000, 100_000]),
            }
        };
        // Nobody waits for a byte at a time of a megabyte.
        let bytes = match pace {
            Pace::Lazy { bytes: size, .. } => bytes.min(u64::from(size) * 400),
            Pace::Eager => bytes,
        };
        let linger = (manner == Manner::Hasty && dice.happens(0.3))
            .then(|| Duration::from_millis(dice.pick(&[0, 1, 500, 20_000])));
        Behaviour { bytes, writes_for: None, manner, pace, no_delay: dice.happens(0.5), linger }
    }

    fn talk(&mut self, world: &mut World) -> io::Result<()> {
        for number in 0..1 + self.dice.below(5) {
            let client = self.dice.below(self.hosts.len() as u64) as usize;
            let other = self.dice.below(self.hosts.len() as u64 - 1) as usize;
            let server = if other >= client { other + 1 } else { other };
            let (client, server) = (self.hosts[client], self.hosts[server]);
            let start = Duration::from_micros(self.dice.pick(&[0, 0, 500, 300_000, 5_000_000]));
            let port = 1_000 + number as u16;
            let mut conversation = Conversation {
                start,
                sides: [self.behaviour(), self.behaviour()],
                ..Conversation::bulk(client, server, port, 0)
            };
            let (mut count, mut interval) = (1, Duration::ZERO);
            match self.dice.below(6) {
                0 => {
                    let exchange = Exchange {
                        request: 1 + self.dice.below(2_000) as u32,
                        response: 1 + self.dice.below(20_000) as u32,
                        think: Duration::from_micros(self.dice.pick(&[0, 1_000, 300_000])),
                    };
                    let requests = 1 + self.dice.below(20);
                    let no_delay = self.chance(0.5);
                    conversation = Conversation::requests(client, server, port, requests, exchange);
                    conversation.start = start;
                    conversation.sides[0].no_delay = no_delay;
                }
                1 => {
                    count = 1 + self.dice.below(12);
                    interval = Duration::from_micros(self.dice.pick(&[0, 100, 50_000]));
                    for side in &mut conversation.sides {
                        side.bytes = side.bytes.min(20_000);
                    }
                }
                _ => {}
            }
            conversation.ipv6 = self.ipv6 && self.chance(0.5);
            let family = if conversation.ipv6 { " by IPv6" } else { "" };
            self.text.push(format!(
                "{count} from {} to {} port {port}{family} at {start:?}: {:?} {:?}",
                world.topology().name(client),
                world.topology().name(server),
                conversation.sides,
                conversation.exchange,
            ));
            world.series(conversation, count, interval)?;
        }
        Ok(())
    }

    /// What happens on the way: outages, other wires, hosts that vanish and come back.
    fn trouble(&mut self, world: &mut World) -> io::Result<()> {
        let mut changes = Vec::new();
        let mut at = Duration::from_micros(self.dice.below(3_000_000));
        if self.chance(0.2) {
            let wire = self.dice.pick(&self.wires);
            let long: &[u64] = if self.kind { &[1, 100, 2_000] } else { &[100, 20_000, 900_000] };
            let end = at + Duration::from_millis(self.dice.pick(long));
            changes.extend([(at, Change::Down(wire)), (end, Change::Up(wire))]);
            at = end;
        }
        if self.chance(0.15) {
            let wire = self.dice.pick(&self.wires);
            let directions = [self.impairment(), self.impairment()];
            changes.push((at, Change::Impair(wire, Box::new(directions))));
        }
        if !self.kind && self.chance(0.2) {
            let host = self.dice.pick(&self.hosts);
            changes.push((at, Change::Vanish(host)));
            if self.chance(0.6) {
                let back = at + Duration::from_millis(self.dice.pick(&[1, 500, 30_000]));
                changes.push((back, Change::Reboot(host)));
            }
        }
        if !self.kind && self.chance(0.1) {
            let wire = self.dice.pick(&self.wires);
            let least = if self.ipv6 { 1280 } else { 576 };
            let mtu = self.dice.pick(&[576, 700, 1280]).max(least);
            changes.push((at, Change::Mtu(wire, mtu)));
        }
        for (at, change) in changes {
            self.text.push(format!("at {at:?}: {change:?}"));
            world.change(at, change)?;
        }
        Ok(())
    }
}

/// Parts of TCP that a random host may lack.
const FEATURES: [&str; 13] = [
    "window_scaling",
    "timestamps",
    "sack",
    "dsack",
    "rack",
    "tail_loss_probe",
    "prr",
    "frto",
    "limited_transmit",
    "undo",
    "rto_restart",
    "held_timestamps",
    "pacing",
];

/// What a world did that it must not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub Vec<String>);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Broken {}

/// What is random about the world of a seed, for people.
///
/// # Errors
/// As [`random_world`].
pub fn describe(seed: u64) -> io::Result<String> {
    random_world(seed, None, false).map(|random| random.description)
}

/// Makes the world of a seed, runs it to its end and judges it.
///
/// # Errors
/// What it did that it must not do; a panic of a stack is among it.
pub fn run(seed: u64, trace: Option<PathBuf>, check: bool) -> Result<Passed, Broken> {
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let random = random_world(seed, trace, check)
            .map_err(|error| Broken(vec![format!("it cannot be made: {error}")]))?;
        judge(random)
    }));
    judged.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("without a word");
        Err(Broken(vec![format!("panic: {text}")]))
    })
}

/// Runs a world to its end and judges it.
///
/// # Errors
/// What it did that it must not do.
pub fn judge(random: RandomWorld) -> Result<Passed, Broken> {
    let RandomWorld { mut world, kind, .. } = random;
    let mut wrong = Vec::new();
    let quiet = to_the_end(&mut world, &mut wrong);
    // Whoever is left waits for what will never come. That must be somebody with nothing to say
    // whose peer is gone without a word.
    for at in world.unfinished() {
        if quiet || world.endpoint(at ^ 1).over() {
            excuse(&world, at, kind && quiet, &mut wrong);
        }
    }
    for at in world.unfinished() {
        world.give_up(at);
    }
    world.close_listeners();
    if !to_the_end(&mut world, &mut wrong) {
        wrong.push("it goes on although everybody was told to stop".into());
    }
    for (host, connections, frames) in world.leftovers() {
        wrong.push(format!("{host}: {connections} connections and {frames} frames are left"));
    }
    if world.in_flight() > 0 && wrong.is_empty() {
        wrong.push(format!("{} packets are on the wires for ever", world.in_flight()));
    }
    wrong.extend(world.violations().iter().cloned());
    let reports = world.reports();
    let mut complete = 0;
    for (number, report) in reports.iter().enumerate() {
        complete += usize::from(report.complete());
        for side in 0..2 {
            let (own, other) = (&report.sides[side], &report.sides[1 - side]);
            let name = ["client", "server"][side];
            let behaviour = &report.conversation.sides;
            let mut say = |what: &str| {
                let text = format!("conversation {number}, {name}: {what}: {own:?} {other:?}");
                wrong.push(text);
            };
            if own.received > other.written {
                say("received more than was written");
            }
            let deaf = behaviour[side].manner == Manner::Deaf;
            if own.finished && !deaf && own.received != other.written {
                say("the end came before all was received");
            }
            let both_polite = behaviour.iter().all(|one| one.manner.is_polite());
            if kind && quiet && both_polite && (own.failure.is_some() || !own.finished) {
                say("failed without an excuse");
            }
        }
    }
    if !wrong.is_empty() {
        for (host, counters, no_frame) in world.stacks() {
            let counted: Vec<String> = counters
                .iter()
                .chain([("rx_no_frame", no_frame)])
                .filter(|&(_, count)| count > 0)
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            wrong.push(format!("{host} counted {}", counted.join(", ")));
        }
    }
    if wrong.is_empty() {
        Ok(Passed {
            digest: world.digest().unwrap_or_default(),
            events: world.events(),
            time: world.now(),
            connections: reports.len(),
            complete,
        })
    } else {
        wrong.dedup();
        Err(Broken(wrong))
    }
}

/// When each endpoint's connection last had something acknowledged, and how much that was in all.
#[derive(Default)]
struct Progress(HashMap<u32, (u64, Instant)>);

impl Progress {
    /// A look at everybody who is not done.
    fn look(&mut self, world: &World) {
        let now = world.epoch() + world.now();
        for at in world.unfinished() {
            let Some(info) = world.endpoint_info(at) else { continue };
            let acknowledged =
                world.endpoint(at).report.written.saturating_sub(info.send_queue.into());
            let entry = self.0.entry(at).or_insert((0, now));
            if entry.0 != acknowledged {
                *entry = (acknowledged, now);
            }
        }
    }

    fn moved(&self, at: u32) -> Instant {
        self.0.get(&at).map_or(Instant::ZERO, |entry| entry.1)
    }
}

/// Runs until nothing happens any more, which is true, or for too long.
fn to_the_end(world: &mut World, wrong: &mut Vec<String>) -> bool {
    // In steps, so that one without an end is noticed.
    let mut until = world.now();
    let end = until + END;
    let before = world.events();
    let mut progress = Progress::default();
    loop {
        progress.look(world);
        until += Duration::from_secs(60);
        match world.run(until) {
            Ok(Stop::Quiet) => return true,
            Ok(Stop::Time) => {}
            Ok(Stop::Notices) => while world.notice().is_some() {},
            Err(error) => {
                wrong.push(format!("trace: {error}"));
                return true;
            }
        }
        if world.now() < end && world.events() - before < EVENTS {
            continue;
        }
        for at in world.unfinished() {
            let (endpoint, peer) = (world.endpoint(at), world.endpoint(at ^ 1));
            let moved = [endpoint.moved, peer.moved, progress.moved(at), progress.moved(at ^ 1)];
            let last = moved.into_iter().max().unwrap_or_default();
            let still = last + STILL < world.epoch() + world.now();
            if endpoint.id.is_some() && still && !peer.over() {
                let info = world.endpoint_info(at);
                wrong.push(format!("no end after {:?}: {info:?} {endpoint:?}", world.now()));
            }
        }
        return false;
    }
}

fn excuse(world: &World, at: u32, kind: bool, wrong: &mut Vec<String>) {
    let endpoint = world.endpoint(at);
    let peer = world.endpoint(at ^ 1);
    let name = format!(
        "conversation {}, {}",
        endpoint.conversation,
        ["client", "server"][usize::from(endpoint.side)]
    );
    let Some(info) = world.endpoint_info(at) else {
        // A server that nobody reached. Its client must know that it failed, or never waited.
        let client = &peer.report;
        let told = client.failure.is_some() || client.vanished || client.let_go;
        if !told && peer.over() {
            wrong.push(format!("{name}: never accepted, and the client was not told: {client:?}"));
        }
        return;
    };
    if !peer.over() {
        wrong.push(format!("{name} hangs, and its peer with it: {info:?} {endpoint:?} {peer:?}"));
    } else if info.send_queue > 0 {
        wrong.push(format!("{name}: unanswered data for ever: {info:?} {endpoint:?} {peer:?}"));
    } else if kind && peer.behaviour.manner.is_polite() {
        // Where nothing is lost for long, even an end that the peer did not wait for arrives.
        wrong.push(format!(
            "{name} hangs though its peer was polite: {info:?} {endpoint:?} {peer:?}"
        ));
    } else if !peer.report.vanished && !peer.report.let_go && peer.report.failure.is_none() {
        wrong.push(format!(
            "{name} hangs though its peer ended in order: {info:?} {endpoint:?} {peer:?}"
        ));
    }
}
