//! A raw port from its name.
//!
//! An interface's name alone becomes AF_XDP where Linux has no address on the interface, and
//! AF_PACKET, which takes nothing away from Linux, elsewhere and where AF_XDP cannot be had.

use std::io;

use millrace_bpf::classic::{Instruction, socket};
use millrace_frames::{Arena, ArenaConfig, Hugepages};
use millrace_port::af_packet::{AfPacket, AfPacketConfig, Receive, Timestamping};
use millrace_port::af_xdp::{self, AfXdp, AllQueues, BusyPoll, RedirectConfig, XdpMode, ZeroCopy};
use millrace_port::interface::{self, Interface};
use millrace_port::memory::{self, WireConfig};
use millrace_port::name::{PortName, SEND_ONLY};
use millrace_port::pcap::PcapPort;
use millrace_port::tap::{Tap, TapConfig};
use millrace_port::xdp_live::{self, XdpLive};
use millrace_port::{Port, clock};

use crate::filter::Filter;
use crate::raw_port::{RawPort, SharedArena};

/// How a raw port is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of frames. `None`: 16,384, and fewer where they are larger than 4 KiB.
    pub frames: Option<u32>,
    /// Bytes of a frame. `None`: the least that takes the port's packets.
    pub frame_size: Option<u32>,
    /// Whether huge pages are asked for.
    pub hugepages: Hugepages,
    /// The arena to use, that of another port; the three before are then of no account.
    pub arena: Option<SharedArena>,
    /// Largest IP packet of a TAP interface or a memory wire.
    pub mtu: Option<u32>,
    /// Whether AF_PACKET takes what is addressed to others, too.
    pub promiscuous: bool,
    /// Whether AF_PACKET shows what this host sends, too.
    pub outgoing: bool,
    /// How AF_PACKET receives.
    pub receive: Receive,
    /// Bytes of AF_PACKET's receive ring. `None`: its own measure.
    pub ring_bytes: Option<usize>,
    /// Whose timestamps AF_PACKET gives.
    pub timestamping: Timestamping,
    /// Most bytes kept of a packet; the rest of it is cut off.
    pub snap_length: Option<u32>,
    /// Whether AF_XDP attaches a program of its own. Without one it gets what another program on
    /// the interface redirects to its socket.
    pub attach: bool,
    /// Where XDP runs.
    pub xdp: XdpMode,
    /// Whether the NIC reads and writes frames itself.
    pub zero_copy: ZeroCopy,
    /// Busy polling on AF_XDP, in microseconds a call. `None`: where it can save an interrupt, and
    /// `latency` asks for that.
    pub busy_poll: Option<u32>,
    /// Nothing is to be received: AF_XDP then takes nothing away from Linux.
    pub send_only: bool,
    /// The port is for the lowest latency.
    pub latency: bool,
    /// Which packets are given; all where there is none.
    pub filter: Option<Filter>,
    /// Whether a capture file is given at the pace at which it was captured.
    pub original_pace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            frames: None,
            frame_size: None,
            hugepages: Hugepages::Prefer,
            arena: None,
            mtu: None,
            promiscuous: true,
            outgoing: false,
            receive: Receive::Auto,
            ring_bytes: None,
            timestamping: Timestamping::Auto,
            snap_length: None,
            attach: true,
            xdp: XdpMode::Auto,
            zero_copy: ZeroCopy::Auto,
            busy_poll: None,
            send_only: false,
            latency: false,
            filter: None,
            original_pace: false,
        }
    }
}

/// Entries of AF_XDP's rings: at a million packets a second a reader may be away for two
/// milliseconds.
const RINGS: u32 = 2048;
/// How long one call of AF_XDP may poll the driver, in microseconds, and for how many packets.
const BUSY_POLL: u32 = 20;
const BUDGET: u16 = 64;
/// Bytes of the largest frame.
const LARGEST: usize = 32_768;
const FRAMES: u32 = 16_384;
/// Bytes of all frames, where nobody said how many.
const ARENA_BYTES: u32 = 64 << 20;

impl Options {
    fn finish(&self, port: RawPort) -> RawPort {
        port.cut(self.snap_length)
    }

    /// The arena of a port with this MTU, whose frames have at most `largest` bytes.
    fn arena(&self, mtu: u32, largest: usize) -> io::Result<SharedArena> {
        if let Some(arena) = &self.arena {
            return Ok(arena.clone());
        }
        let least = (mtu as usize + 18).next_power_of_two().clamp(2048, largest) as u32;
        let frame_size = self.frame_size.unwrap_or(least);
        let frames = self.frames.unwrap_or(FRAMES.min(ARENA_BYTES / frame_size.max(1)));
        Arena::new(ArenaConfig { frames, frame_size, hugepages: self.hugepages })
            .map(SharedArena::new)
    }
}

/// Opens a port by its name (`af_xdp:eth1#0`, `tap:mill0`, `pcap:trace.pcapng`, `memory:left`, or
/// `eth1` alone).
///
/// # Errors
/// `InvalidInput` for a name or options that make no sense, `NotFound` for an interface that is not
/// there; else what the port says.
pub fn open(name: &PortName, options: &Options) -> io::Result<RawPort> {
    match name.kind {
        Some(kind) => open_kind(kind, name, options, Vec::new()),
        None => open_best(name, options),
    }
}

type Facts = Vec<(&'static str, String)>;

fn open_best(name: &PortName, options: &Options) -> io::Result<RawPort> {
    let interface = Interface::find(&name.name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), format!("{error}; tap:{} would make it", name.name))
        }
        _ => error,
    })?;
    if interface.driver == "tun" {
        let chosen = "tap, which the interface is".to_owned();
        return open_kind("tap", name, options, vec![("chosen", chosen)]);
    }
    if options.send_only {
        return open_sender(name, options);
    }
    let packet = |why: String| {
        let chosen = format!("af_packet, because {why}");
        open_kind("af_packet", name, options, vec![("chosen", chosen)])
    };
    if let Some(address) = interface::addresses(&interface.name)?.first() {
        return packet(format!(
            "Linux has {address} on {0} and would not see what AF_XDP takes; af_xdp:{0} takes it \
             all the same",
            interface.name
        ));
    }
    let chosen = vec![("chosen", "af_xdp, the fastest for this interface".to_owned())];
    match open_kind("af_xdp", name, options, chosen) {
        // These would be the same on the other kind.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NetworkDown | io::ErrorKind::NotFound) =>
        {
            Err(error)
        }
        Err(refused) => packet(refused.to_string()).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("neither AF_XDP ({refused}) nor AF_PACKET ({error})"),
            )
        }),
        opened => opened,
    }
}

/// The fastest way out of an interface. AF_XDP is asked for no zero-copy: a queue whose frames are
/// ours would have none for what Linux receives.
fn open_sender(name: &PortName, options: &Options) -> io::Result<RawPort> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let live = match (cores, name.queue) {
        (2.., None) => {
            let chosen = "xdp_live, the fastest; it uses a core of its own while it sends";
            open_kind(SEND_ONLY, name, options, vec![("chosen", chosen.to_owned())])
        }
        (_, Some(_)) => Err(io::Error::other("they have no queues to choose from")),
        (..2, _) => Err(io::Error::other("they need a second core")),
    };
    let no_live = match live {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NetworkDown | io::ErrorKind::NotFound) =>
        {
            return Err(error);
        }
        Err(refused) => refused,
        opened => return opened,
    };
    let copies = Options { zero_copy: ZeroCopy::Never, ..options.clone() };
    let chosen = format!("af_xdp; live frames are faster, but: {no_live}");
    let no_xdp = match open_kind("af_xdp", name, &copies, vec![("chosen", chosen)]) {
        Err(refused) => refused,
        opened => return opened,
    };
    let chosen = format!("af_packet, because: {no_xdp}; and no live frames: {no_live}");
    open_kind("af_packet", name, options, vec![("chosen", chosen)])
}

fn open_kind(kind: &str, name: &PortName, options: &Options, facts: Facts) -> io::Result<RawPort> {
    let port: Box<dyn Port> = match kind {
        "af_xdp" => return open_xdp(name, options, facts),
        "af_packet" => return open_packet(name, options, facts),
        "tap" => {
            // An interface that is there keeps its MTU unless another is asked for.
            let there = Interface::find(&name.name).map_or(1500, |interface| interface.mtu);
            Box::new(Tap::open(&TapConfig {
                queue: name.queue.unwrap_or(0),
                queues: name.queues,
                mtu: options.mtu.unwrap_or(there),
                ..TapConfig::new(&name.name)
            })?)
        }
        SEND_ONLY => Box::new(XdpLive::open(&name.name, xdp_live::SLOTS)?),
        "memory" => {
            let wire = WireConfig::by_name(options.mtu.unwrap_or(1500));
            Box::new(memory::join(&name.name, wire)?)
        }
        _ => {
            let (read, write) = name.files();
            let epoch = clock::wall().saturating_sub(clock::now() - millrace_frames::Instant::ZERO);
            let port = PcapPort::open(read, write)?.with_epoch(epoch);
            Box::new(if options.original_pace { port.at_original_pace() } else { port })
        }
    };
    // A file's packets are as a network's usually are; larger ones are chains.
    let mtu = if kind == "pcap" { 1500 } else { port.capabilities().mtu };
    let arena = options.arena(mtu, LARGEST)?;
    let mut facts = facts;
    if options.filter.is_some() {
        facts.push(("filter", "in this process".to_owned()));
    }
    Ok(options.finish(RawPort::new(port, arena, facts).filtered(options.filter.clone())))
}

fn open_packet(name: &PortName, options: &Options, mut facts: Facts) -> io::Result<RawPort> {
    let filter = match &options.filter {
        Some(filter) => {
            facts.push(("filter", "in the kernel, as the socket's program".to_owned()));
            let program = socket::program(filter.program()).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {error}", name.name))
            })?;
            let instruction =
                |i: Instruction| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k };
            program.into_iter().map(instruction).collect()
        }
        None => Vec::new(),
    };
    if options.latency || options.busy_poll.is_some_and(|time| time > 0) {
        facts.push(("busy-poll", "no, packet sockets have none".to_owned()));
    }
    let usual = AfPacketConfig::new(&name.name);
    let port = AfPacket::open(&AfPacketConfig {
        queue: name.queue.unwrap_or(0),
        queues: name.queues,
        promiscuous: options.promiscuous,
        outgoing: options.outgoing,
        receive: options.receive,
        ring_bytes: options.ring_bytes.unwrap_or(usual.ring_bytes),
        timestamping: options.timestamping,
        filter,
        ..usual
    })?;
    let arena = options.arena(port.capabilities().mtu, LARGEST)?;
    Ok(options.finish(RawPort::new(Box::new(port), arena, facts)))
}

fn open_xdp(name: &PortName, options: &Options, mut facts: Facts) -> io::Result<RawPort> {
    let interface = Interface::find(&name.name)?;
    let invalid = |text: &str| {
        let text = format!("{}: {text}", interface.name);
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    };
    if !options.attach && options.filter.is_some() {
        return invalid("a filter is a program of the port's own, which attach=False leaves away");
    }
    if !options.attach && name.queue.is_none() && interface.rx_queues > 1 {
        return invalid("without a program of its own a port has one queue: name it, as in #0");
    }
    // The kernel wants its head room in the frame, too. A frame is at most a page there; the port
    // says so of an MTU that is larger.
    let shared = options.arena(interface.mtu.saturating_add(256), 4096)?;
    let redirect = match &options.filter {
        Some(filter) => {
            facts.push((
                "filter",
                "in the kernel, as an XDP program; Linux has the rest".to_owned(),
            ));
            RedirectConfig::expression(filter.program().clone())
        }
        None => RedirectConfig::everything(),
    };
    let busy_poll = match options.busy_poll {
        Some(0) => None,
        Some(microseconds) => Some(BusyPoll { microseconds, budget: BUDGET }),
        // A local virtual link has no interrupt that could be saved.
        None if options.latency && !interface.is_local_virtual() => {
            Some(BusyPoll { microseconds: BUSY_POLL, budget: BUDGET })
        }
        None => None,
    };
    let config = af_xdp::Config {
        redirect,
        xdp: options.xdp,
        zero_copy: options.zero_copy,
        busy_poll,
        attach: options.attach,
        rx_ring: RINGS,
        tx_ring: RINGS,
        fill_ring: RINGS,
        completion_ring: RINGS,
        send_only: options.send_only,
    };
    let open = |config: &af_xdp::Config| -> io::Result<Box<dyn Port>> {
        let mut arena = shared.lock();
        Ok(match name.queue {
            None if interface.rx_queues > 1 => {
                Box::new(AllQueues::open(&name.name, config, &mut arena)?)
            }
            queue => Box::new(AfXdp::open(&name.name, queue.unwrap_or(0), config, &mut arena)?),
        })
    };
    let port = match open(&config) {
        Err(refused) if busy_poll.is_some() && options.busy_poll.is_none() => {
            // Nobody asked for it by name, so it may be missing if that is told.
            let port = open(&af_xdp::Config { busy_poll: None, ..config })?;
            facts.push(("busy-poll", format!("no, because: {refused}")));
            port
        }
        opened => opened?,
    };
    Ok(options.finish(RawPort::new(port, shared, facts)))
}
