//! A wire between two ends in one process: the embedded default, the simulator of the tests, and
//! the wire under the stack's benchmark.
//!
//! Time is what the callers say it is. Nothing here reads a clock, and the same seed with the same
//! calls gives the same result, so a whole internet of stacks runs in virtual time in one thread.
//! The two ends may as well be used by two threads in real time. A direction that is not impaired is
//! a pipe without a lock (`plain.rs`); one that is has a lock, taken once a burst (`impaired.rs`). Each
//! has an eventfd, written only when the other side sleeps.
//!
//! A packet is copied in when it is sent and copied out when it is received, because each end has
//! an arena of its own. Both copies and both calls, unimpaired, without what the frames cost, on an
//! AMD EPYC: 4 ns for a packet of 64 bytes in bursts of 64 and 10 ns alone; 27 and 18 ns for 1024
//! bytes. `examples/memory_wire.rs` measures it.
//!
//! The statistics add up. Of what [`Port::tx`] took, each packet is in the sender's `tx_packets` or
//! in one of its `tx_` drops. Of what the sender's `tx_packets` and `tx_duplicated` count, each
//! packet is on the wire, or in the receiver's `rx_packets`, or in one of its `rx_` drops.

mod delay_line;
mod impaired;
mod plain;
mod registry;

use std::io;
use std::os::fd::RawFd;

use millrace_frames::pipe::{self, Record};
use millrace_frames::{Arena, ChecksumState, Instant, RxBatch, Transmit, TxBatch};
use millrace_wire::mac::Mac;

use crate::impair::{Counters as LinkCounters, Random};
use crate::wait::Bell;
use crate::{Capabilities, Port, Statistics, Timestamps, copy};
use delay_line::DelayLine;

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
            pipe::size(self.queue, plain, whole.map_or(0, super_segments))
        } else {
            self.queue.checked_mul(DelayLine::cell_size(whole.unwrap_or(plain) as usize))
        }
    }
}

fn super_segments(largest: u32) -> usize {
    largest as usize * SUPER_SEGMENTS
}

/// A direction's ends, by what it is like.
#[derive(Debug)]
enum Outgoing {
    Plain(plain::Sender),
    Impaired(impaired::Sender),
}

#[derive(Debug)]
enum Incoming {
    Plain(plain::Receiver),
    Impaired(impaired::Receiver),
}

/// What one end sends and the other receives, for a configuration that is valid.
fn direction(
    config: &WireConfig,
    impairment: Impairment,
    seed: u64,
) -> io::Result<(Outgoing, Incoming)> {
    let bell = Bell::new()?;
    let (plain, whole) = config.largest();
    Ok(if impairment.is_none() {
        let more = whole.map_or(0, super_segments);
        let (sender, receiver) = plain::direction(config.queue, plain, more, bell);
        (Outgoing::Plain(sender), Incoming::Plain(receiver))
    } else {
        let largest = whole.unwrap_or(plain) as usize;
        let line = DelayLine::new(impairment, seed, config.queue, largest);
        let (sender, receiver) = impaired::direction(line, bell);
        (Outgoing::Impaired(sender), Incoming::Impaired(receiver))
    })
}

/// What travels with a packet.
#[inline]
fn record(packet: &Transmit, arrival: Instant) -> Record {
    let checksum = match packet.checksum_start {
        0 => ChecksumState::Unknown,
        _ => ChecksumState::Unfinished,
    };
    Record { arrival, len: packet.total, gso_size: packet.gso_size, checksum }
}

/// One end of a wire in memory. See [`wire`] and [`join`].
#[derive(Debug)]
pub struct MemoryPort {
    capabilities: Capabilities,
    outgoing: Outgoing,
    incoming: Incoming,
    limits: Limits,
    closed: bool,
    counters: Counters,
    place: Option<registry::Place>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    rx_packets: u64,
    tx_packets: u64,
    rx_bytes: u64,
    tx_bytes: u64,
    rx_bursts: u64,
    rx_no_frame: u64,
    tx_too_long: u64,
    tx_unsupported: u64,
    tx_lost: u64,
    tx_queue_full: u64,
    tx_no_carrier: u64,
    system_calls: u64,
}

impl Counters {
    /// Copies a packet that has arrived into frames and appends it to `batch`, which has room.
    #[inline(always)]
    fn arrived(&mut self, record: Record, bytes: &[u8], arena: &mut Arena, batch: &mut RxBatch) {
        let Some(head) = copy::scatter(arena, record, bytes) else {
            self.rx_no_frame += 1;
            return;
        };
        self.rx_packets += 1;
        self.rx_bytes += u64::from(record.len);
        let _ = batch.push(head);
    }

    /// A packet was put on the wire, or would have been if it had not been full: either way the
    /// receiver accounts for it.
    #[inline]
    fn sent(&mut self, packet: &Transmit) {
        self.tx_packets += 1;
        self.tx_bytes += u64::from(packet.total);
    }
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
    fn admit(&self, packet: &Transmit, counters: &mut Counters) -> bool {
        if packet.gso_size | packet.checksum_start != 0 {
            return self.admit_offloads(packet, counters);
        }
        if packet.total > self.largest {
            counters.tx_too_long += 1;
            return false;
        }
        true
    }

    #[inline(never)]
    fn admit_offloads(&self, packet: &Transmit, counters: &mut Counters) -> bool {
        if self.largest_super == 0 || !copy::checksum_place_is_inside(packet) {
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
    let forth = direction(&config, config.impairment[0], seeds.next())?;
    let back = direction(&config, config.impairment[1], seeds.next())?;
    let end = |index: usize, outgoing: Outgoing, incoming: Incoming| {
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
            outgoing,
            incoming,
            limits: Limits { largest, largest_super: largest_super.unwrap_or(0) },
            closed: false,
            counters: Counters::default(),
            place: None,
        }
    };
    Ok((end(0, forth.0, back.1), end(1, back.0, forth.1)))
}

impl MemoryPort {
    fn take_place(&mut self, name: &str, place: registry::Place) {
        name.clone_into(&mut self.capabilities.name);
        self.place = Some(place);
    }

    fn check_open(&self) -> io::Result<()> {
        if self.closed { Err(self.closed_error()) } else { Ok(()) }
    }

    #[cold]
    fn closed_error(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::NotConnected,
            format!("this end of the memory wire {} is closed", self.capabilities.name),
        )
    }

    /// [`Port::rx`] of anything but a lone packet on a plain wire.
    #[inline(never)]
    fn receive(
        &mut self,
        now: Instant,
        arena: &mut Arena,
        batch: &mut RxBatch,
    ) -> io::Result<usize> {
        self.check_open()?;
        let before = batch.len();
        match &mut self.incoming {
            Incoming::Plain(receiver) => receiver.receive(arena, batch, &mut self.counters),
            Incoming::Impaired(receiver) => {
                receiver.receive(now, arena, batch, &mut self.counters);
            }
        }
        let count = batch.len() - before;
        self.counters.rx_bursts += u64::from(count > 0);
        Ok(count)
    }

    /// [`Port::tx`] of anything but a lone packet on a plain wire.
    #[inline(never)]
    fn transmit(
        &mut self,
        now: Instant,
        arena: &mut Arena,
        batch: &mut TxBatch,
    ) -> io::Result<usize> {
        self.check_open()?;
        if batch.is_empty() {
            return Ok(0);
        }
        let MemoryPort { outgoing, limits, counters, .. } = self;
        match outgoing {
            Outgoing::Plain(sender) => sender.transmit(now, arena, batch, limits, counters),
            Outgoing::Impaired(sender) => sender.transmit(now, arena, batch, limits, counters),
        }
        let taken = batch.len();
        batch.clear();
        Ok(taken)
    }

    fn leave(&mut self) {
        if core::mem::replace(&mut self.closed, true) {
            return;
        }
        match &mut self.incoming {
            Incoming::Plain(receiver) => receiver.leave(),
            Incoming::Impaired(receiver) => receiver.leave(),
        }
        match &mut self.outgoing {
            Outgoing::Plain(sender) => sender.leave(),
            Outgoing::Impaired(sender) => sender.leave(),
        }
        self.place = None;
    }
}

impl Port for MemoryPort {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    #[inline]
    fn rx(&mut self, now: Instant, arena: &mut Arena, batch: &mut RxBatch) -> io::Result<usize> {
        if let (Incoming::Plain(receiver), false) = (&mut self.incoming, self.closed)
            && receiver.receive_one(arena, batch, &mut self.counters)
        {
            self.counters.rx_bursts += 1;
            return Ok(1);
        }
        self.receive(now, arena, batch)
    }

    #[inline]
    fn tx(&mut self, now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize> {
        if let (Outgoing::Plain(sender), [packet], false) =
            (&mut self.outgoing, &batch[..], self.closed)
            && sender.transmit_one(packet, now, arena, &self.limits, &mut self.counters)
        {
            batch.clear();
            return Ok(1);
        }
        self.transmit(now, arena, batch)
    }

    fn fd(&self) -> Option<RawFd> {
        Some(match &self.incoming {
            Incoming::Plain(receiver) => receiver.bell().fd(),
            Incoming::Impaired(receiver) => receiver.bell().fd(),
        })
    }

    fn arm(&mut self, now: Instant) -> bool {
        let counters = &mut self.counters;
        match &mut self.incoming {
            Incoming::Plain(receiver) => receiver.arm(counters),
            Incoming::Impaired(receiver) => receiver.arm(now, counters),
        }
    }

    fn next_arrival(&self) -> Option<Instant> {
        match &self.incoming {
            Incoming::Plain(receiver) => receiver.earliest(),
            Incoming::Impaired(receiver) => receiver.next_arrival(),
        }
    }

    fn exhausted(&self) -> bool {
        match &self.incoming {
            Incoming::Plain(receiver) => receiver.exhausted(),
            Incoming::Impaired(receiver) => receiver.exhausted(),
        }
    }

    fn close(&mut self, _arena: &mut Arena) {
        self.leave();
    }

    fn statistics(&mut self) -> Statistics {
        let counters = self.counters;
        let link = match &self.outgoing {
            Outgoing::Plain(_) => LinkCounters::default(),
            Outgoing::Impaired(sender) => sender.counters(),
        };
        let full = match &self.incoming {
            Incoming::Plain(receiver) => receiver.full(),
            Incoming::Impaired(receiver) => receiver.full(),
        };
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
