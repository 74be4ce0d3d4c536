//! Where a capture's packets come from: the ring of a packet socket, or any other port.

use std::io;

use millrace_bpf::classic::{Instruction, socket};
use millrace_frames::{Duration, Instant, RxFlags};
use millrace_port::af_packet::{AfPacket, AfPacketConfig, Blocks, Receive, Timestamping};
use millrace_port::name::PortName;
use millrace_port::pcap::Description;
use millrace_port::wait::{self, Armed};
use millrace_port::{Port, Statistics, Timestamps, clock};

use crate::filter::Filter;
use crate::headers::{self, Header};
use crate::open::{self, Options};
use crate::raw_port::{RawPort, TimestampSource};

/// Bytes of the ring where nobody said how many: a fifth of a second of the smallest packets at a
/// million a second.
pub const RING_BYTES: usize = 64 << 20;
/// The ring's blocks. They are small, and wait long, so that the ring is full of packets when it is
/// full, at any rate; who captures does not mind if a packet is seen a little later.
const BLOCKS: Blocks = Blocks { bytes: 256 << 10, retire_ms: 10 };
/// Classic BPF's instruction that returns a constant.
const RETURN_CONSTANT: u16 = 0x06;

/// What is captured, and how.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Which packets; all where there is none.
    pub filter: Option<Filter>,
    /// The expression that it was made from, for the file.
    pub expression: Option<String>,
    /// Most bytes kept of a packet; 0: all.
    pub snap_length: u32,
    /// Bytes of the kernel's ring.
    pub ring_bytes: usize,
    /// Whether what is addressed to others is captured, too.
    pub promiscuous: bool,
    /// Whether what comes in is captured.
    pub incoming: bool,
    /// Whether what this host sends is captured.
    pub outgoing: bool,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions {
            filter: None,
            expression: None,
            snap_length: 0,
            ring_bytes: RING_BYTES,
            promiscuous: true,
            incoming: true,
            outgoing: true,
        }
    }
}

/// A packet as it passes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// What is here of it, without `tag`.
    pub(super) bytes: &'a [u8],
    /// A VLAN tag that belongs behind the first twelve bytes.
    pub(super) tag: Option<[u8; 4]>,
    /// Its length on the wire.
    pub(super) length: u32,
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) outgoing: bool,
}

/// Where a tag belongs.
const TAG_AT: usize = 12;

impl<'a> Packet<'a> {
    /// How many of its bytes are here.
    #[inline]
    pub(super) fn kept(&self) -> u32 {
        self.bytes.len() as u32 + if self.tag.is_some() { 4 } else { 0 }
    }

    #[inline]
    pub(super) fn is_cut(&self) -> bool {
        self.kept() < self.length
    }

    /// At most its first `snap` bytes.
    #[inline]
    pub(super) fn cut(mut self, snap: u32) -> Packet<'a> {
        if self.kept() > snap {
            let most = snap as usize;
            self.bytes = match self.tag {
                // Cut before, or within, the tag: there is none then.
                Some(_) if most < TAG_AT + 4 => {
                    self.tag = None;
                    &self.bytes[..most.min(TAG_AT)]
                }
                Some(_) => &self.bytes[..most - 4],
                None => &self.bytes[..most],
            };
        }
        self
    }

    /// Its bytes in order.
    #[inline]
    pub(super) fn parts(&'a self) -> [&'a [u8]; 3] {
        match &self.tag {
            Some(tag) => {
                let (before, behind) = self.bytes.split_at(TAG_AT.min(self.bytes.len()));
                [before, tag, behind]
            }
            None => [self.bytes, &[], &[]],
        }
    }

    /// What its headers say.
    #[inline]
    pub(super) fn header(&self, scratch: &mut Vec<u8>) -> Header {
        let time = i64::try_from(self.time).unwrap_or(i64::MAX);
        if self.tag.is_none() {
            return headers::parse(self.bytes, self.length, time);
        }
        scratch.clear();
        self.parts().iter().for_each(|part| scratch.extend_from_slice(part));
        headers::parse(scratch, self.length, time)
    }
}

/// What packets are taken from.
#[derive(Debug)]
pub struct Source {
    kind: Kind,
    options: SourceOptions,
    facts: Vec<(&'static str, String)>,
}

#[derive(Debug)]
enum Kind {
    /// A packet socket, whose ring is read in place.
    Ring(Box<AfPacket>),
    /// Any other port.
    Port(Box<RawPort>),
}

impl Source {
    /// Opens what a name names. An interface's name alone is a packet socket, which takes nothing
    /// away from Linux.
    ///
    /// # Errors
    /// As [`crate::open()`].
    pub fn open(name: &PortName, options: SourceOptions) -> io::Result<Source> {
        let SourceOptions { incoming, outgoing, .. } = options;
        if !incoming && !outgoing {
            let text = "neither what comes in nor what goes out is to be captured";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if !matches!(name.kind, None | Some("af_packet")) {
            if !incoming {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("only af_packet sees what goes out, and {name} is another port"),
                ));
            }
            let wanted = Options { filter: options.filter.clone(), ..Options::default() };
            let port = open::open(name, &wanted)?;
            let facts = port.facts().map(|(name, text)| (name, text.to_owned())).collect();
            return Ok(Source { kind: Kind::Port(Box::new(port)), options, facts });
        }
        if name.queue.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name}: a capture takes the packets of all queues; leave the queue out"),
            ));
        }
        let config = AfPacketConfig {
            promiscuous: options.promiscuous,
            outgoing: options.outgoing,
            receive: Receive::RingV3,
            ring_bytes: options.ring_bytes,
            // The ring has all packets; the socket's queue has none.
            buffer_bytes: 0,
            blocks: BLOCKS,
            timestamping: Timestamping::Auto,
            filter: program(name, &options)?,
            ..AfPacketConfig::new(&name.name)
        };
        let port = AfPacket::open(&config)?;
        let mut facts = vec![("ring", format!("{} MiB", options.ring_bytes >> 20))];
        if options.filter.is_some() {
            facts.push(("filter", "in the kernel, as the socket's program".to_owned()));
        }
        facts.extend(port.capabilities().facts.iter().cloned());
        Ok(Source { kind: Kind::Ring(Box::new(port)), options, facts })
    }

    /// A port that is open already.
    pub fn of(port: RawPort, options: SourceOptions) -> Source {
        Source { kind: Kind::Port(Box::new(port)), options, facts: Vec::new() }
    }

    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        self.facts.clone()
    }

    /// What a file says of it.
    pub(super) fn description(&self) -> Description {
        let capabilities = match &self.kind {
            Kind::Ring(port) => port.capabilities(),
            Kind::Port(port) => port.capabilities(),
        };
        Description {
            name: capabilities.name.clone(),
            text: Some(format!("{} port of Millrace", capabilities.kind)),
            snap_len: self.options.snap_length,
            filter: self.options.expression.clone(),
            system: system(),
        }
    }

    /// Most bytes that are kept of a packet.
    #[inline]
    pub(super) fn snap_length(&self) -> u32 {
        match self.options.snap_length {
            0 => u32::MAX,
            length => length,
        }
    }

    /// Shows at most `limit` packets that have arrived; returns how many came, those that are not
    /// shown among them.
    #[inline]
    pub(super) fn visit(
        &mut self,
        now: Instant,
        limit: usize,
        visitor: &mut impl FnMut(Packet<'_>),
    ) -> io::Result<usize> {
        let incoming = self.options.incoming;
        match &mut self.kind {
            Kind::Ring(port) => port.visit(now, limit, |seen| {
                let outgoing = seen.flags.contains(RxFlags::OUTGOING);
                if incoming || outgoing {
                    let millrace_port::af_packet::Seen { bytes, tag, length, time, .. } = seen;
                    visitor(Packet { bytes, tag, length, time, outgoing });
                }
            }),
            Kind::Port(port) => port.visit(limit, |bytes, length, time, flags| {
                let outgoing = flags.contains(RxFlags::OUTGOING);
                visitor(Packet { bytes, tag: None, length, time, outgoing });
            }),
        }
    }

    /// The time by the clock that stamps packets, nanoseconds since 1970, as far as it is known;
    /// later than all where it is not. `None`: they come from a file.
    pub(super) fn clock(&self) -> Option<u64> {
        let source = match &self.kind {
            Kind::Ring(port) if port.capabilities().timestamps == Timestamps::Hardware => {
                TimestampSource::Hardware
            }
            Kind::Ring(_) => TimestampSource::Software,
            Kind::Port(port) => port.timestamps(),
        };
        match source {
            TimestampSource::Software => Some(clock::wall().as_nanos() as u64),
            TimestampSource::Hardware => Some(u64::MAX),
            TimestampSource::File => None,
        }
    }

    /// How much later than it came a packet may be handed over.
    pub(super) fn delay(&self) -> Duration {
        match &self.kind {
            Kind::Ring(_) => Duration::from_millis(3 * u64::from(BLOCKS.retire_ms)),
            Kind::Port(_) => Duration::ZERO,
        }
    }

    pub(super) fn exhausted(&self) -> bool {
        match &self.kind {
            Kind::Ring(_) => false,
            Kind::Port(port) => port.exhausted(),
        }
    }

    pub(super) fn arm(&mut self, now: Instant) -> Option<Armed> {
        match &mut self.kind {
            Kind::Ring(port) => wait::arm(&mut **port, now),
            Kind::Port(port) => port.arm(now),
        }
    }

    pub(super) fn statistics(&mut self) -> Statistics {
        match &mut self.kind {
            Kind::Ring(port) => port.statistics(),
            Kind::Port(port) => port.statistics(),
        }
    }

    pub(super) fn filtered(&self) -> u64 {
        match &self.kind {
            Kind::Ring(_) => 0,
            Kind::Port(port) => port.counters().rx_filtered,
        }
    }

    pub(super) fn close(&mut self) {
        if let Kind::Port(port) = &mut self.kind {
            // It was read from, and nothing was written that could fail.
            let _ = port.close();
        }
    }
}

/// The program of the packet socket: which packets, and how much of each.
fn program(name: &PortName, options: &SourceOptions) -> io::Result<Vec<libc::sock_filter>> {
    let snap = options.snap_length;
    let mut instructions = match &options.filter {
        Some(filter) => socket::program(filter.program()).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {error}", name.name))
        })?,
        None if snap == 0 => Vec::new(),
        None => vec![Instruction { code: RETURN_CONSTANT, jt: 0, jf: 0, k: snap }],
    };
    if snap > 0 {
        for instruction in &mut instructions {
            if instruction.code == RETURN_CONSTANT && instruction.k > 0 {
                instruction.k = instruction.k.min(snap);
            }
        }
    }
    let plain = |i: Instruction| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k };
    Ok(instructions.into_iter().map(plain).collect())
}

/// The operating system, as a file names it.
fn system() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(format!("Linux {}", release.trim()))
}
