//! A host in the middle: what comes in at one port goes out at another, after what a
//! [`Link`] of that direction does to it.
//!
//! Packets are not copied: each waits in the frame that it came in. A packet counts from the
//! moment at which the kernel put it on the port, where the port knows it, so its delay is right
//! although the forwarder looks a little later.
//!
//! One thread does it all. While there is traffic it works in turns [`GRAIN`] apart, and packets
//! leave up to so much late; with none it sleeps until a packet comes or one is due. How late
//! packets left is counted.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

use millrace_frames::{Arena, BURST, Duration, Frame, Instant, Owners, RxBatch, Transmit, TxBatch};
use millrace_wire::ether::{self, EtherType};
use millrace_wire::{ipv4, ipv6, protocol, tcp, udp};

use crate::impair::{Impairment, InFlight, Link, Random, Verdict};
use crate::wait::{self, Bell};
use crate::{ChecksumState, Port, clock, copy};

/// Time between two turns while there is traffic.
pub const GRAIN: Duration = Duration::from_micros(50);
/// A packet that leaves so much after its time is counted as late.
pub const LATE: Duration = Duration::from_millis(1);

/// Bursts that are taken from a port in one turn.
const BURSTS: usize = 4;
/// How long a port may refuse to take packets before they are dropped.
const PATIENCE: Duration = Duration::from_millis(100);
/// Time between two looks at an interface that is down.
const DOWN_INTERVAL: Duration = Duration::from_millis(2);
/// How long a forwarder may take to tell its statistics; one that has failed never does.
const ANSWER: Duration = Duration::from_secs(1);
/// A packet cannot have waited longer than this for us; a clock was set.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// From one port to the other.
#[derive(Debug)]
struct Way {
    link: Link,
    in_flight: InFlight<Transmit>,
    /// Due, and not yet taken by the port.
    due: TxBatch,
    /// When the port stopped taking packets.
    stalled: Option<Instant>,
    /// When the last packet came.
    last: Instant,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    received: u64,
    sent: u64,
    super_segment: u64,
    unfinished: u64,
    no_frame: u64,
    refused: u64,
    late: u64,
    latest: Duration,
}

/// What the two directions have done: names and values.
///
/// Beside those of [`crate::impair::Counters`]: `received`, `sent`, `in_flight`; dropped before the
/// link: `super_segment` (larger than a frame), `unfinished` (a checksum that cannot be finished);
/// dropped behind it: `no_frame` (a copy for which none was free), `refused` (by a port that is down
/// or stuck); `late` (sent more than [`LATE`] after its time), `latest_us` (the greatest such time).
/// Then the drops of the two ports.
pub type Statistics = [Vec<(&'static str, u64)>; 2];

/// Two ports and the way between them.
pub struct Forwarder {
    ports: [Box<dyn Port>; 2],
    arena: Arena,
    /// From the first to the second port, and back.
    ways: [Way; 2],
    rx: RxBatch,
    down: bool,
    bell: Bell,
    commands: Receiver<Command>,
    remote: Sender<Command>,
}

enum Command {
    Stop,
    Tell(Sender<Statistics>),
    Impair(Box<[Impairment; 2]>),
}

/// Speaks to a forwarder that runs in another thread.
#[derive(Clone, Debug)]
pub struct Remote {
    commands: Sender<Command>,
    bell: Bell,
}

impl Remote {
    /// Ends [`Forwarder::run`]. What is on its way is dropped.
    pub fn stop(&self) {
        self.command(Command::Stop);
    }

    /// What it has done so far; `None` if it does not run any more.
    pub fn statistics(&self) -> Option<Statistics> {
        let (answer, told) = mpsc::channel();
        self.command(Command::Tell(answer));
        told.recv_timeout(ANSWER).ok()
    }

    /// Other impairments from now on.
    ///
    /// # Errors
    /// `InvalidInput` where [`Impairment::validate`] says so.
    pub fn impair(&self, impairments: [Impairment; 2]) -> io::Result<()> {
        for impairment in &impairments {
            impairment.validate()?;
        }
        self.command(Command::Impair(Box::new(impairments)));
        Ok(())
    }

    fn command(&self, command: Command) {
        // Nobody listens once it has stopped, and then nothing is left to do.
        if self.commands.send(command).is_ok() {
            self.bell.ring();
        }
    }
}

impl Forwarder {
    /// A forwarder over two ports that were opened with `arena`, whose frames must take the ports'
    /// packets whole. The first impairment is for what comes in at the first port.
    ///
    /// # Errors
    /// `InvalidInput` where [`Impairment::validate`] says so or for frames that are too small; what
    /// eventfd(2) says.
    pub fn new(
        ports: [Box<dyn Port>; 2],
        arena: Arena,
        impairments: [Impairment; 2],
        seed: u64,
    ) -> io::Result<Forwarder> {
        for impairment in &impairments {
            impairment.validate()?;
        }
        let largest = ports.iter().map(|port| port.capabilities().mtu).max().unwrap_or(0);
        if Self::frame_size(largest) as usize > arena.frame_size() {
            let (size, needed) = (arena.frame_size(), Self::frame_size(largest));
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "frames of {size} bytes do not take packets of {largest}; make it {needed}"
                ),
            ));
        }
        let mut seeds = Random::new(seed);
        let ways = impairments.map(|impairment| Way {
            link: Link::new(impairment, seeds.next()),
            in_flight: InFlight::with_capacity(arena.frames()),
            due: TxBatch::new(),
            stalled: None,
            last: Instant::ZERO,
            counters: Counters::default(),
        });
        let (remote, commands) = mpsc::channel();
        let bell = Bell::new()?;
        let rx = RxBatch::new();
        Ok(Forwarder { ports, arena, ways, rx, down: false, bell, commands, remote })
    }

    /// Bytes of a frame that takes the packets of this MTU, and a copy of them.
    pub fn frame_size(mtu: u32) -> u32 {
        (mtu + 14 + 8 + Arena::HEADROOM as u32).next_power_of_two().max(2048)
    }

    /// To speak to it while it runs.
    pub fn remote(&self) -> Remote {
        Remote { commands: self.remote.clone(), bell: self.bell.clone() }
    }

    /// Forwards until [`Remote::stop`].
    ///
    /// # Errors
    /// When a port is of no more use.
    pub fn run(&mut self) -> io::Result<()> {
        wait::wake_punctually();
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Stop) => return Ok(()),
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            // After the commands: what comes behind one is treated as it says.
            let now = clock::now();
            let moved = self.turn(now, Some(clock::wall()))?;
            if self.down {
                std::thread::sleep(DOWN_INTERVAL);
            } else if moved > 0 || self.ways.iter().any(|way| way.stalled.is_some()) {
                std::thread::sleep(GRAIN);
            } else {
                let deadline = self.next_deadline();
                let [first, second] = &mut self.ports;
                wait::sleep_any(
                    &mut [first.as_mut(), second.as_mut()],
                    &self.bell,
                    clock::now(),
                    deadline,
                )?;
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Stop => {}
            Command::Tell(answer) => {
                // Who asked may be gone.
                let _ = answer.send(self.statistics());
            }
            Command::Impair(impairments) => {
                for (way, impairment) in self.ways.iter_mut().zip(*impairments) {
                    way.link.set_impairment(impairment);
                }
            }
        }
        self.bell.silence();
    }

    /// When the next packet leaves.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.ways.iter().filter_map(|way| way.in_flight.earliest()).min()
    }

    /// Takes what has come and sends what is due. `wall` is the time of day, by which some ports
    /// stamp their packets. Returns how many packets came or went.
    ///
    /// # Errors
    /// When a port is of no more use. One that is down is none: what is due there is dropped.
    pub fn turn(&mut self, now: Instant, wall: Option<Duration>) -> io::Result<usize> {
        let mut moved = 0;
        self.down = false;
        for index in 0..2 {
            moved += self.receive(index, now, wall)?;
        }
        for index in 0..2 {
            moved += self.send(index, now)?;
        }
        Ok(moved)
    }

    fn receive(&mut self, index: usize, now: Instant, wall: Option<Duration>) -> io::Result<usize> {
        let mut count = 0;
        for _ in 0..BURSTS {
            let received = match self.ports[index].rx(now, &mut self.arena, &mut self.rx) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::NetworkDown => {
                    self.down = true;
                    0
                }
                Err(error) => return Err(error),
            };
            if received == 0 {
                break;
            }
            let by_wall = self.ports[index].capabilities().kind == "af_packet";
            for position in 0..self.rx.len() {
                let head = self.rx[position];
                let stamp = self.arena.meta(head).timestamp;
                let clock = if by_wall { wall } else { Some(Duration::from_nanos(now.as_nanos())) };
                let waited = clock
                    .filter(|_| stamp != 0)
                    .and_then(|clock| clock.checked_sub(Duration::from_nanos(stamp)))
                    .filter(|waited| *waited < LONGEST_WAIT)
                    .unwrap_or_default();
                let came =
                    Instant::from_nanos(now.as_nanos().saturating_sub(waited.as_nanos() as u64));
                self.ways[index].take(&mut self.arena, came, head);
            }
            self.rx.clear();
            count += received;
            if received < BURST {
                break;
            }
        }
        Ok(count)
    }

    fn send(&mut self, index: usize, now: Instant) -> io::Result<usize> {
        let way = &mut self.ways[index];
        let port = self.ports[1 - index].as_mut();
        let mut count = 0;
        loop {
            while !way.due.is_full() {
                let Some((arrival, packet)) = way.in_flight.pop(now) else { break };
                let late = now - arrival;
                way.counters.late += u64::from(late > LATE);
                way.counters.latest = way.counters.latest.max(late);
                // There is room: the loop looks.
                let _ = way.due.push(packet);
            }
            // Called without packets too: a port may have frames to give back.
            let sent = match port.tx(now, &mut self.arena, &mut way.due) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::NetworkDown => {
                    self.down = true;
                    way.give_up(&mut self.arena);
                    0
                }
                Err(error) => return Err(error),
            };
            count += sent;
            way.counters.sent += sent as u64;
            if !way.due.is_empty() {
                let since = *way.stalled.get_or_insert(now);
                if now - since > PATIENCE {
                    way.give_up(&mut self.arena);
                }
                return Ok(count);
            }
            way.stalled = None;
            if way.in_flight.earliest().is_none_or(|earliest| earliest > now) {
                return Ok(count);
            }
        }
    }

    /// What it has done so far.
    pub fn statistics(&mut self) -> Statistics {
        let [mut first, mut second] = [0, 1].map(|index| self.ways[index].statistics());
        let [from, to] = &mut self.ports;
        let (from, to) = (from.statistics(), to.statistics());
        for (statistics, from, to) in [(&mut first, &from, &to), (&mut second, &to, &from)] {
            let incoming = from.drops.iter().filter(|(name, _)| name.starts_with("rx_"));
            let outgoing = to.drops.iter().filter(|(name, _)| name.starts_with("tx_"));
            statistics.extend(incoming.chain(outgoing));
        }
        [first, second]
    }

    /// Gives every frame back, and the ports with it.
    pub fn close(mut self) -> (Arena, [Box<dyn Port>; 2]) {
        for way in &mut self.ways {
            way.give_up(&mut self.arena);
            while let Some((_, packet)) = way.in_flight.pop(Instant::FAR_FUTURE) {
                self.arena.transmitted(&packet);
            }
        }
        for port in &mut self.ports {
            port.close(&mut self.arena);
        }
        (self.arena, self.ports)
    }
}

impl Way {
    /// Puts a packet that came at `came` on the link.
    fn take(&mut self, arena: &mut Arena, came: Instant, head: Frame) {
        self.counters.received += 1;
        let meta = *arena.meta(head);
        if meta.next.is_some() || meta.gso_size != 0 {
            self.counters.super_segment += 1;
            arena.release_chain(head, Owners::RECEIVED);
            return;
        }
        if meta.checksum == ChecksumState::Unfinished && !finish_checksum(arena.bytes_mut(head)) {
            self.counters.unfinished += 1;
            arena.release(head, Owners::RECEIVED);
            return;
        }
        self.last = self.last.max(came);
        let passage = match self.link.offer(self.last, meta.total) {
            Verdict::Passes(passage) => passage,
            Verdict::Lost | Verdict::QueueDropped => {
                arena.release(head, Owners::RECEIVED);
                return;
            }
        };
        self.link.alter(&passage, arena.bytes_mut(head));
        arena.pass(head, Owners::RECEIVED, Owners::TRANSMIT);
        self.in_flight.push(passage.arrival, packet(arena, head));
        if passage.duplicate {
            let Some(copy) = arena.allocate(Owners::TRANSMIT) else {
                self.counters.no_frame += 1;
                return;
            };
            arena.append_from(copy, head, meta.offset.into(), meta.len.into());
            self.in_flight.push(passage.arrival, packet(arena, copy));
        }
    }

    /// Drops what the port does not take.
    fn give_up(&mut self, arena: &mut Arena) {
        for packet in self.due.iter() {
            arena.transmitted(packet);
        }
        self.counters.refused += self.due.len() as u64;
        self.due.clear();
        self.stalled = None;
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let counters = &self.counters;
        let mut all: Vec<_> = self.link.counters().iter().collect();
        all.extend([
            ("received", counters.received),
            ("sent", counters.sent),
            ("in_flight", (self.in_flight.len() + self.due.len()) as u64),
            ("super_segment", counters.super_segment),
            ("unfinished", counters.unfinished),
            ("no_frame", counters.no_frame),
            ("refused", counters.refused),
            ("late", counters.late),
            ("latest_us", counters.latest.as_micros() as u64),
        ]);
        all
    }
}

/// A frame as a packet to send.
fn packet(arena: &Arena, head: Frame) -> Transmit {
    let meta = arena.meta(head);
    Transmit {
        head,
        total: meta.len.into(),
        offset: meta.offset,
        len: meta.len,
        frames: 1,
        ..Transmit::default()
    }
}

/// Finishes the transport checksum of a frame whose sender left that to the device. False for what
/// is neither TCP nor UDP.
fn finish_checksum(frame: &mut [u8]) -> bool {
    let Some((start, field)) = checksum_place(frame) else { return false };
    if start + field + 2 > frame.len() {
        return false;
    }
    copy::finish_checksum(frame, start, field);
    true
}

/// Where the transport header of a frame starts, and where in it the checksum is.
fn checksum_place(frame: &[u8]) -> Option<(usize, usize)> {
    let link = ether::Frame::parse(frame).ok()?;
    let (start, protocol) = match link.ether_type() {
        EtherType::IPV4 => {
            let packet = ipv4::Packet::parse(link.payload()).ok()?;
            (packet.header_len(), packet.protocol())
        }
        EtherType::IPV6 => {
            let packet = ipv6::Packet::parse(link.payload()).ok()?;
            (ipv6::HEADER_LEN, packet.next_header())
        }
        _ => return None,
    };
    let field = match protocol {
        protocol::TCP => tcp::CHECKSUM_OFFSET,
        protocol::UDP => udp::CHECKSUM_OFFSET,
        _ => return None,
    };
    Some((link.header_len() + start, field))
}
