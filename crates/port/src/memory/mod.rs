//! A wire between two ends in one process: the embedded default, the simulator of the tests, and
//! the wire under the stack's benchmark.
//!
//! Time is what the callers say it is. Nothing here reads a clock, and the same seed with the same
//! calls gives the same result, so a whole internet of stacks runs in virtual time in one thread.
//! The two ends may as well be used by two threads in real time: each direction has one lock,
//! taken once a burst, and an eventfd, written only when the other side sleeps.
//!
//! A packet is copied in when it is sent and copied out when it is received, because each end has
//! an arena of its own. Both copies and both calls, unimpaired, without what the frames cost, on a
//! 2.5 GHz Xeon: 27 ns for a packet of 64 bytes in bursts of 64 and 51 ns alone; 71 and 72 ns for
//! 1024 bytes. `examples/memory_wire.rs` measures it.
//!
//! The statistics add up. Of what [`Port::tx`] took, each packet is in the sender's `tx_packets` or
//! in one of its `tx_` drops. Of what the sender's `tx_packets` and `tx_duplicated` count, each
//! packet is on the wire, or in the receiver's `rx_packets`, or in one of its `rx_` drops.

mod delay_line;
mod queue;
mod registry;

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_frames::{Arena, ChecksumState, Instant, RxBatch, Transmit, TxBatch};
use millrace_wire::mac::Mac;

use crate::impair::{Counters as LinkCounters, Random};
use crate::wait::Bell;
use crate::{Capabilities, Port, Statistics, Timestamps, copy};
use delay_line::{DelayLine, Fate};
use queue::{Queue, Record};

pub use crate::impair::{GilbertElliott, Impairment};
pub use registry::join;

/// Ethernet header and one VLAN tag, which is what Linux lets a frame have beyond the MTU.
const LINK_HEADER: u32 = 14 + 4;
/// Room for the headers of a super-segment beside its payload.
const SUPER_HEADERS: u32 = Arena::HEADROOM as u32;
/// Largest super-segment: what an IP total length can say, and the link's header.
const SUPER_LARGEST: u32 = LINK_HEADER + u16::MAX as u32;
/// Super-segments of the largest size that an unimpaired direction holds besides its packets.
const SUPER_SEGMENTS: usize = 64;
/// Most memory for the packets of one direction.
const DIRECTION_LARGEST: usize = 1 << 30;

/// What a wire is like. Both ends have the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WireConfig {
    /// Hardware addresses of the first and the second end.
    pub macs: [Mac; 2],
    /// Largest IP packet in bytes, 68 to 65535.
    pub mtu: u32,
    /// Payload bytes of the largest super-segment that passes whole, at most 65535; 0: none pass.
    /// With it transport checksums may be left unfinished too, since no wire can damage a packet
    /// (one that [`Impairment::corrupt`] damages has its checksum finished before).
    pub gso: u32,
    /// Most packets on the wire in each direction; one more is dropped (tail drop) and counted by
    /// the receiver as `rx_ring_full`. There are bytes for so many packets of the MTU's size, and
    /// on an unimpaired wire with `gso` for 64 super-segments more.
    pub queue: usize,
    /// What goes wrong with what the first end sends, and with what the second end sends.
    pub impairment: [Impairment; 2],
    /// Where the impairments' dice start.
    pub seed: u64,
}

impl Default for WireConfig {
    fn default() -> Self {
        WireConfig {
            macs: [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])],
            mtu: 1500,
            gso: 0,
            queue: 1024,
            impairment: [Impairment::default(); 2],
            seed: 0,
        }
    }
}

impl WireConfig {
    /// What a wire that is opened by its name alone is like, for a channel and for a raw port, so
    /// that one of each can meet: super-segments pass whole.
    pub fn by_name(mtu: u32) -> Self {
        WireConfig { mtu, gso: 65_160, queue: 4096, ..WireConfig::default() }
    }

    /// Says what is wrong with it.
    ///
    /// # Errors
    /// `InvalidInput`, with the field and its bounds.
    pub fn validate(&self) -> io::Result<()> {
        let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if !(68..=65_535).contains(&self.mtu) {
            return invalid(format!("the MTU is 68 to 65535 bytes, not {}", self.mtu));
        }
        if self.gso > 65_535 {
            return invalid(format!("a super-segment is at most 65535 bytes, not {}", self.gso));
        }
        if self.queue == 0 {
            return invalid("the queue holds at least one packet".into());
        }
        for impairment in &self.impairment {
            impairment.validate()?;
            let bytes = self.direction_bytes(impairment);
            if bytes.is_none_or(|bytes| bytes > DIRECTION_LARGEST) {
                return invalid(format!(
                    "a queue of {} packets needs more than {} MiB; make it shorter",
                    self.queue,
                    DIRECTION_LARGEST >> 20
                ));
            }
        }
        Ok(())
    }

    /// Bytes of the largest packet, and of the largest super-segment where they pass.
    fn largest(&self) -> (u32, Option<u32>) {
        let plain = self.mtu + LINK_HEADER;
        let whole = (self.gso + SUPER_HEADERS).min(SUPER_LARGEST).max(plain);
        (plain, (self.gso > 0).then_some(whole))
    }

    fn direction_bytes(&self, impairment: &Impairment) -> Option<usize> {
        let (plain, whole) = self.largest();
        if impairment.is_none() {
            let whole = whole.map_or(0, |whole| whole as usize * SUPER_SEGMENTS);
            // One more for the gap at the ring's end.
            (self.queue.checked_add(1)?).checked_mul(plain as usize)?.checked_add(whole)
        } else {
            self.queue.checked_mul(DelayLine::cell_size(whole.unwrap_or(plain) as usize))
        }
    }
}

/// What one end sends and the other receives.
#[derive(Debug)]
struct Direction {
    state: Mutex<State>,
    /// When the next packet arrives, [`NOTHING`] when there is none: what an idle receiver looks
    /// at instead of taking the lock. Written under the lock.
    earliest: AtomicU64,
    /// Written after the sender's last packet.
    sender_gone: AtomicBool,
    /// Rung, under the lock, when a packet is sent to a receiver that sleeps.
    bell: Bell,
}

const NOTHING: u64 = u64::MAX;

#[derive(Debug)]
struct State {
    line: Line,
    /// The receiver is about to sleep or does.
    sleeping: bool,
    /// The bell was rung and not yet silenced.
    rung: bool,
    receiver_gone: bool,
    /// Packets that found no room on the wire.
    full: u64,
}

#[derive(Debug)]
enum Line {
    Plain(Queue),
    Impaired(Box<DelayLine>),
}

impl Line {
    fn earliest(&self) -> Option<Instant> {
        match self {
            Line::Plain(queue) => queue.earliest(),
            Line::Impaired(line) => line.earliest(),
        }
    }

    #[inline]
    fn push(
        &mut self,
        now: Instant,
        arena: &Arena,
        packet: &Transmit,
        checksum: ChecksumState,
    ) -> Fate {
        match self {
            Line::Plain(queue) => match queue.push(now, arena, packet, checksum) {
                true => Fate::Sent,
                false => Fate::WireFull,
            },
            Line::Impaired(line) => line.push(now, arena, packet, checksum),
        }
    }

    /// What is on a plain line has arrived, whatever the time is.
    #[inline]
    fn pop(&mut self, now: Instant) -> Option<(Record, &[u8])> {
        match self {
            Line::Plain(queue) => queue.pop(),
            Line::Impaired(line) => line.pop(now),
        }
    }

    fn link_counters(&self) -> LinkCounters {
        match self {
            Line::Plain(_) => LinkCounters::default(),
            Line::Impaired(line) => line.counters(),
        }
    }

    fn duplicates_dropped(&self) -> u64 {
        match self {
            Line::Plain(_) => 0,
            Line::Impaired(line) => line.duplicates_dropped(),
        }
    }
}

impl Direction {
    fn new(config: &WireConfig, impairment: Impairment, seed: u64) -> io::Result<Self> {
        let line = if impairment.is_none() {
            // validate() has found it to be a number within bounds.
            Line::Plain(Queue::new(config.queue, config.direction_bytes(&impairment).unwrap_or(0)))
        } else {
            let (plain, whole) = config.largest();
            let largest = whole.unwrap_or(plain) as usize;
            Line::Impaired(Box::new(DelayLine::new(impairment, seed, config.queue, largest)))
        };
        Ok(Direction {
            state: Mutex::new(State {
                line,
                sleeping: false,
                rung: false,
                receiver_gone: false,
                full: 0,
            }),
            earliest: AtomicU64::new(NOTHING),
            sender_gone: AtomicBool::new(false),
            bell: Bell::new()?,
        })
    }

    /// The lock guards plain data that is whole between any two statements, so a panic of the
    /// other thread (on a bad frame of its own) spoils nothing.
    #[inline]
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn publish(&self, state: &State) {
        let earliest = state.line.earliest().map_or(NOTHING, Instant::as_nanos);
        self.earliest.store(earliest, Ordering::Relaxed);
    }

    fn wake(&self, state: &mut State) -> bool {
        let wake = core::mem::take(&mut state.sleeping);
        if wake {
            state.rung = true;
            self.bell.ring();
        }
        wake
    }
}

/// One end of a wire in memory. See [`wire`] and [`join`].
#[derive(Debug)]
pub struct MemoryPort {
    capabilities: Capabilities,
    outgoing: Arc<Direction>,
    incoming: Arc<Direction>,
    limits: Limits,
    incoming_is_plain: bool,
    closed: bool,
    /// Whether the sender was told that we sleep.
    armed: bool,
    /// The arrival that the user was last told to wake up for.
    promised: Cell<u64>,
    counters: Counters,
    place: Option<registry::Place>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    rx_packets: u64,
    rx_bytes: u64,
    rx_bursts: u64,
    rx_no_frame: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_too_long: u64,
    tx_unsupported: u64,
    tx_lost: u64,
    tx_queue_full: u64,
    tx_no_carrier: u64,
    system_calls: u64,
}

/// What an end can send.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Bytes of the largest packet.
    largest: u32,
    /// Bytes of the largest super-segment; 0: none passes, and no checksum may be unfinished.
    largest_super: u32,
}

impl Limits {
    /// Counts and refuses what can never be sent.
    #[inline]
    fn admit(self, packet: &Transmit, counters: &mut Counters) -> bool {
        let offloads = packet.gso_size != 0 || packet.checksum_start != 0;
        if offloads && (self.largest_super == 0 || !copy::checksum_place_is_inside(packet)) {
            counters.tx_unsupported += 1;
            return false;
        }
        let largest = if packet.gso_size == 0 { self.largest } else { self.largest_super };
        if packet.total > largest {
            counters.tx_too_long += 1;
            return false;
        }
        true
    }
}

/// Both ends of a new wire.
///
/// # Panics
/// When [`try_wire`] would return an error.
pub fn wire(config: WireConfig) -> (MemoryPort, MemoryPort) {
    match try_wire(config) {
        Ok(ends) => ends,
        Err(error) => panic!("no memory wire: {error}"),
    }
}

/// Both ends of a new wire.
///
/// # Errors
/// `InvalidInput` where [`WireConfig::validate`] says so, else what eventfd(2) says.
pub fn try_wire(config: WireConfig) -> io::Result<(MemoryPort, MemoryPort)> {
    config.validate()?;
    let mut seeds = Random::new(config.seed);
    let forth = Arc::new(Direction::new(&config, config.impairment[0], seeds.next())?);
    let back = Arc::new(Direction::new(&config, config.impairment[1], seeds.next())?);
    let end = |index: usize, outgoing: &Arc<Direction>, incoming: &Arc<Direction>| {
        let (largest, largest_super) = config.largest();
        let unfinished = config.gso > 0;
        MemoryPort {
            capabilities: Capabilities {
                kind: "memory",
                name: ["first", "second"][index].to_owned(),
                mac: Some(config.macs[index]),
                mtu: config.mtu,
                queue: 0,
                queues: 1,
                tx_checksum: unfinished,
                tx_gso: config.gso,
                rx_checksum: match unfinished {
                    true => ChecksumState::Unfinished,
                    false => ChecksumState::Unknown,
                },
                tx_in_flight: false,
                timestamps: Timestamps::Now,
                facts: vec![("impairment", config.impairment[index].to_string())],
            },
            outgoing: Arc::clone(outgoing),
            incoming: Arc::clone(incoming),
            limits: Limits { largest, largest_super: largest_super.unwrap_or(0) },
            incoming_is_plain: config.impairment[1 - index].is_none(),
            closed: false,
            armed: false,
            promised: Cell::new(NOTHING),
            counters: Counters::default(),
            place: None,
        }
    };
    Ok((end(0, &forth, &back), end(1, &back, &forth)))
}

impl MemoryPort {
    fn take_place(&mut self, name: &str, place: registry::Place) {
        name.clone_into(&mut self.capabilities.name);
        self.place = Some(place);
    }

    fn check_open(&self) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                format!("this end of the memory wire {} is closed", self.capabilities.name),
            ));
        }
        Ok(())
    }

    fn leave(&mut self) {
        if core::mem::replace(&mut self.closed, true) {
            return;
        }
        self.incoming.lock().receiver_gone = true;
        self.outgoing.sender_gone.store(true, Ordering::Release);
        let mut state = self.outgoing.lock();
        self.outgoing.wake(&mut state);
        drop(state);
        self.place = None;
    }
}

impl Port for MemoryPort {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, now: Instant, arena: &mut Arena, batch: &mut RxBatch) -> io::Result<usize> {
        self.check_open()?;
        let earliest = self.incoming.earliest.load(Ordering::Relaxed);
        let due = earliest <= now.as_nanos() || (self.incoming_is_plain && earliest != NOTHING);
        if !self.armed && (!due || batch.is_full()) {
            return Ok(0);
        }
        let mut state = self.incoming.lock();
        if core::mem::take(&mut self.armed) {
            state.sleeping = false;
        }
        let before = batch.len();
        for _ in 0..batch.room() {
            let Some((record, bytes)) = state.line.pop(now) else {
                break;
            };
            let Some(head) = copy::scatter(arena, bytes) else {
                self.counters.rx_no_frame += 1;
                continue;
            };
            let meta = arena.meta_mut(head);
            meta.timestamp = record.arrival.as_nanos();
            meta.gso_size = record.gso_size;
            meta.checksum = record.checksum;
            self.counters.rx_bytes += u64::from(record.len);
            // There is room: the loop counts it.
            let _ = batch.push(head);
        }
        self.incoming.publish(&state);
        drop(state);
        let count = batch.len() - before;
        self.counters.rx_packets += count as u64;
        self.counters.rx_bursts += u64::from(count > 0);
        Ok(count)
    }

    fn tx(&mut self, now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize> {
        self.check_open()?;
        if batch.is_empty() {
            return Ok(0);
        }
        let MemoryPort { outgoing, counters, limits, .. } = self;
        let mut state = outgoing.lock();
        for packet in batch.iter() {
            if state.receiver_gone {
                counters.tx_no_carrier += 1;
            } else if limits.admit(packet, counters) {
                let checksum = match packet.checksum_start {
                    0 => ChecksumState::Unknown,
                    _ => ChecksumState::Unfinished,
                };
                match state.line.push(now, arena, packet, checksum) {
                    Fate::Lost => counters.tx_lost += 1,
                    Fate::QueueFull => counters.tx_queue_full += 1,
                    fate @ (Fate::Sent | Fate::WireFull) => {
                        state.full += u64::from(fate == Fate::WireFull);
                        counters.tx_packets += 1;
                        counters.tx_bytes += u64::from(packet.total);
                    }
                }
            }
            arena.transmitted(packet);
        }
        outgoing.publish(&state);
        counters.system_calls += u64::from(outgoing.wake(&mut state));
        drop(state);
        let taken = batch.len();
        batch.clear();
        Ok(taken)
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.incoming.bell.fd())
    }

    fn arm(&mut self, now: Instant) -> bool {
        let mut state = self.incoming.lock();
        let earliest = state.line.earliest().map_or(NOTHING, Instant::as_nanos);
        let due = earliest <= now.as_nanos() || (self.incoming_is_plain && earliest != NOTHING);
        // A packet that was sent after the user asked for `next_arrival` would be slept through.
        let news = self.promised.replace(earliest) != earliest && earliest != NOTHING;
        if due || news {
            return false;
        }
        if core::mem::take(&mut state.rung) {
            self.incoming.bell.silence();
            self.counters.system_calls += 1;
        }
        state.sleeping = true;
        self.armed = true;
        true
    }

    fn next_arrival(&self) -> Option<Instant> {
        let earliest = self.incoming.earliest.load(Ordering::Relaxed);
        self.promised.set(earliest);
        (earliest != NOTHING).then(|| Instant::from_nanos(earliest))
    }

    fn exhausted(&self) -> bool {
        self.incoming.sender_gone.load(Ordering::Acquire)
            && self.incoming.earliest.load(Ordering::Relaxed) == NOTHING
    }

    fn close(&mut self, _arena: &mut Arena) {
        self.leave();
    }

    fn statistics(&mut self) -> Statistics {
        let counters = self.counters;
        let link = self.outgoing.lock().line.link_counters();
        let incoming = self.incoming.lock();
        let full = incoming.full + incoming.line.duplicates_dropped();
        drop(incoming);
        Statistics {
            rx_packets: counters.rx_packets,
            rx_bytes: counters.rx_bytes,
            tx_packets: counters.tx_packets,
            tx_bytes: counters.tx_bytes,
            rx_bursts: counters.rx_bursts,
            system_calls: counters.system_calls,
            drops: vec![
                ("rx_no_frame", counters.rx_no_frame),
                ("rx_ring_full", full),
                ("tx_too_long", counters.tx_too_long),
                ("tx_unsupported", counters.tx_unsupported),
                ("tx_lost", counters.tx_lost),
                ("tx_queue_full", counters.tx_queue_full),
                ("tx_no_carrier", counters.tx_no_carrier),
            ],
            details: vec![
                ("tx_duplicated", link.duplicated),
                ("tx_corrupted", link.corrupted),
                ("tx_reordered", link.reordered),
                ("tx_marked", link.marked),
            ],
        }
    }
}

impl Drop for MemoryPort {
    fn drop(&mut self) {
        self.leave();
    }
}
