//! `AF_PACKET`: packets of any interface of any driver, through the kernel's ordinary path.
//!
//! The kernel sees every received packet, too; who shares an interface with it needs an address of
//! its own there. Super-segments and unfinished checksums pass whole in both directions
//! (`PACKET_VNET_HDR`). What this port may not do is configure the interface.
//!
//! # Which way in, which way out
//! The defaults are what was measured, on a veth pair, one core a side, Linux 6.18, on two virtual
//! cores that builds and tests used as well: compare within a row only. Receiving, medians of seven
//! or more rounds of `examples/af_packet_rates.rs`:
//!
//! | receive | V2 ring and socket queue | V3 ring |
//! |---|---|---|
//! | 64-byte request and response, port spins, median | 11 µs | 1000 µs |
//! | the same, port sleeps | 17 µs | 1000 µs |
//! | TCP bulk from the kernel, packets of 62 to 64 KB | 4.9 Gbit/s, none lost | 3.6 Gbit/s, none lost |
//! | the same, our thread's time for 1 KB | 0.38 µs | 0.30 µs |
//!
//! A V3 block that is not full is handed over after a millisecond, and nothing shorter can be
//! asked for. It costs our thread a little less in bulk, but that is no faster, and a request waits
//! a hundred times as long: [`Receive::Auto`] is the V2 ring. A V3 ring wastes less memory on small
//! packets and so loses fewer of them in a flood: it is for capture.
//!
//! Sending, 64 packets a call, medians of six rounds:
//!
//! | processor time a packet | sendmmsg | V2 ring | V3 ring |
//! |---|---|---|---|
//! | 64 bytes | 1.05 µs | 0.91 µs | 0.91 µs |
//! | 1 KiB | 1.15 µs | 1.24 µs | 1.25 µs |
//! | super-segment of 65,000 bytes | 11.3 µs | 25.5 µs | 25.1 µs |
//!
//! A ring takes one copy into it and, where the packet changes hands on the same machine, another
//! out of it; sendmmsg(2) gathers from the arena and copies once. It is the only way out here.
//!
//! A veth pair reorders: the peer's kernel sends a connection's segments from the core that its
//! application runs on and from the core that processes our acknowledgements, and either may be
//! faster. A stack on this port sees that in ordinary bulk transfers.
//!
//! Linux, Documentation/networking/packet_mmap.rst; packet(7).

mod ring;
mod ring_v2;
mod ring_v3;
mod socket;
mod timestamps;
mod transmit;

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use millrace_bpf::Claim;
use millrace_frames::{Arena, ChecksumState, Duration, Instant, RxBatch, TxBatch};
use millrace_wire::mac::Mac;

use self::ring_v2::RingV2;
use self::ring_v3::RingV3;
use self::socket::Socket;
use self::timestamps::Stamping;
use self::transmit::Sender;
use crate::{Capabilities, Port, Statistics, Timestamps, interface, vnet};

pub use self::ring_v3::{Blocks, MOST_BYTES as MOST_V3_BYTES};

/// How packets are received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Receive {
    /// What was measured best for a TCP stack, [`Receive::RingV2`]: see the module's text.
    #[default]
    Auto,
    /// Each packet as soon as it is there: a `TPACKET_V2` ring for short packets, the socket's
    /// queue for long ones.
    RingV2,
    /// A `TPACKET_V3` ring: blocks, up to one millisecond late. For capture.
    RingV3,
}

/// How packets are spread over several queues (`PACKET_FANOUT`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fanout {
    /// By a hash of the flow that is the same for both directions.
    #[default]
    Hash,
    /// By the processor core that the packet came in on.
    Cpu,
    /// By the hardware's receive queue.
    Queue,
}

/// Whose timestamps received packets have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamping {
    /// The network card's where it stamps all that it receives already, else the kernel's.
    #[default]
    Auto,
    /// The network card's, which is set to stamp everything for as long as the port is open, or an
    /// error.
    Hardware,
    /// The kernel's.
    Software,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct AfPacketConfig {
    /// The interface's name.
    pub interface: String,
    /// Which queue of [`AfPacketConfig::queues`] this is.
    pub queue: u32,
    /// How many sockets share the interface's packets. More than one makes a fanout group, in
    /// which a socket's place is the order of joining: open all of them, in order, before there is
    /// traffic.
    pub queues: u32,
    /// How packets are spread over them.
    pub fanout: Fanout,
    /// The number of the fanout group, which is the same for all its sockets and for no others in
    /// the network namespace. `None`: made of the process's and the interface's numbers.
    pub fanout_group: Option<u16>,
    /// Our hardware address. `None`: the interface's own. Another is asked of the interface.
    pub mac: Option<Mac>,
    /// Whether packets to all other addresses are received, too.
    pub promiscuous: bool,
    /// Whether packets that this host sends are received, too, as
    /// [`millrace_frames::RxFlags::OUTGOING`]. Only one queue can.
    pub outgoing: bool,
    /// How packets are received.
    pub receive: Receive,
    /// Bytes of the receive ring, about: at most 1 GiB, and 2 GiB for V3.
    pub ring_bytes: usize,
    /// The blocks of a V3 ring.
    pub blocks: Blocks,
    /// Bytes of the socket's receive buffer (for V3 added to the ring, which has all packets) and
    /// of its send buffer. More than `net.core.rmem_max` and `wmem_max` takes CAP_NET_ADMIN;
    /// what was granted is among the facts.
    pub buffer_bytes: usize,
    /// Whose timestamps received packets have.
    pub timestamping: Timestamping,
    /// Whether packets go to the driver past the queueing discipline (`PACKET_QDISC_BYPASS`). That
    /// ends with the first super-segment that the driver does not cut: only on the ordinary way the
    /// kernel cuts it.
    pub qdisc_bypass: bool,
    /// A classic BPF program that says which packets come in. Empty: all.
    pub filter: Vec<libc::sock_filter>,
    /// Whether Linux is kept from what is for our addresses ([`Port::own_addresses`]), where it can be:
    /// the facts tell.
    pub claim: bool,
}

impl AfPacketConfig {
    /// One queue that has the whole interface.
    pub fn new(interface: &str) -> Self {
        AfPacketConfig {
            interface: interface.to_owned(),
            queue: 0,
            queues: 1,
            fanout: Fanout::default(),
            fanout_group: None,
            mac: None,
            promiscuous: false,
            outgoing: false,
            receive: Receive::default(),
            ring_bytes: 8 << 20,
            blocks: Blocks::default(),
            buffer_bytes: 16 << 20,
            timestamping: Timestamping::default(),
            qdisc_bypass: true,
            filter: Vec::new(),
            claim: false,
        }
    }
}

/// What a block's bytes may be: it takes a super-segment and what describes it.
const LEAST_BLOCK: core::ops::RangeInclusive<usize> = 128 << 10..=4 << 20;

/// How long an idle port goes without looking whether its interface is still there. A look is a
/// system call or three.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// A packet that [`AfPacket::visit`] shows.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What is here of it, without the tag.
    pub bytes: &'a [u8],
    /// A VLAN tag that the kernel has taken out: it belongs behind the first twelve bytes.
    pub tag: Option<[u8; 4]>,
    /// Its length on the wire, the tag included.
    pub length: u32,
    /// When it arrived, nanoseconds since 1970.
    pub time: u64,
    /// What else is known of it; [`millrace_frames::RxFlags::CUT`] is left to the lengths.
    pub flags: millrace_frames::RxFlags,
}

/// A port on a packet socket.
#[derive(Debug)]
pub struct AfPacket {
    capabilities: Capabilities,
    /// `None` once closed.
    live: Option<Live>,
    counters: Counters,
    link: Link,
    next_check: Instant,
}

/// What the kernel frees when the port is closed.
#[derive(Debug)]
struct Live {
    ring: Ring,
    sender: Sender,
    socket: Socket,
    _stamping: Option<Stamping>,
    claim: Option<Claim>,
}

/// What was last seen of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    Down,
    Gone,
}

impl Link {
    fn of(result: &io::Result<()>) -> Link {
        match result {
            Ok(()) => Link::Up,
            Err(error) if error.kind() == io::ErrorKind::NetworkDown => Link::Down,
            Err(_) => Link::Gone,
        }
    }
}

#[derive(Debug)]
enum Ring {
    V2(RingV2),
    V3(RingV3),
}

/// What is counted by the port itself.
#[derive(Debug, Default)]
struct Counters {
    rx_packets: u64,
    rx_bytes: u64,
    rx_bursts: u64,
    tx_packets: u64,
    tx_bytes: u64,
    system_calls: u64,
    rx_no_frame: u64,
    rx_ring_full: u64,
    rx_too_long: u64,
    tx_too_long: u64,
    tx_refused: u64,
    /// How often the kernel had no room to send.
    tx_stalls: u64,
    /// The kernel's own: packets that passed the filter, dropped ones among them.
    tp_packets: u64,
    tp_drops: u64,
    tp_freeze_q_cnt: u64,
    /// An error was taken off the socket on the way; it wants to be looked into.
    socket_error: bool,
}

impl AfPacket {
    /// Opens a port on an interface that is up.
    ///
    /// # Errors
    /// `NotFound` (no such interface), `NetworkDown`, `PermissionDenied` (CAP_NET_RAW),
    /// `InvalidInput` for a configuration that makes no sense; else what the kernel says, with the
    /// step that failed.
    pub fn open(config: &AfPacketConfig) -> io::Result<AfPacket> {
        let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        let AfPacketConfig { queue, queues, .. } = *config;
        if queues == 0 || queue >= queues || queues > 256 {
            return invalid(format!("queue {queue} of {queues}: queues are counted from 0 to 255"));
        }
        if let Some(mac) = config.mac.filter(|mac| !mac.is_unicast()) {
            return invalid(format!("{mac} is no address of one station"));
        }
        let socket = Socket::new(&config.interface)?;
        let link = socket.find()?;
        if link.mac.is_none() {
            return invalid(format!("{} is no Ethernet interface", link.name));
        }
        link.require_up()?;

        let receive = match config.receive {
            Receive::Auto => Receive::RingV2,
            other => other,
        };
        let Blocks { bytes, retire_ms } = config.blocks;
        if !bytes.is_power_of_two() || !LEAST_BLOCK.contains(&bytes) || retire_ms == 0 {
            return invalid(format!(
                "a ring's block has 128 KiB to 4 MiB, a power of two, and waits a millisecond at \
                 least, not {bytes} bytes and {retire_ms} ms"
            ));
        }
        let most = match receive {
            Receive::RingV3 => MOST_V3_BYTES,
            _ => ring_v2::MOST_BYTES,
        };
        if config.ring_bytes > most {
            return invalid(format!(
                "{}: a receive ring of this kind has at most {most} bytes, not {}",
                config.interface, config.ring_bytes
            ));
        }
        let ring = match receive {
            Receive::RingV3 => Ring::V3(RingV3::new(
                &socket,
                config.ring_bytes.saturating_add(config.buffer_bytes),
                config.blocks,
            )?),
            _ => Ring::V2(RingV2::new(&socket, config.ring_bytes)?),
        };
        let (receive_buffer, send_buffer) = socket.set_buffers(config.buffer_bytes)?;
        if config.outgoing && queues > 1 {
            return invalid("what the host sends is seen by a port with one queue only".to_owned());
        }
        let ignore = i32::from(!config.outgoing);
        socket.set(libc::PACKET_IGNORE_OUTGOING, ignore, "ignore what the host sends")?;
        if config.qdisc_bypass {
            socket.set(libc::PACKET_QDISC_BYPASS, 1i32, "bypass the queueing discipline")?;
        }
        // Before it has joined its group, a socket would receive the packets of all queues.
        socket.set_filter(&config.filter)?;
        socket.bind(link.index, queues > 1)?;
        if config.mac.is_some() && config.mac != link.mac {
            socket.join(link.index, config.mac)?;
        }
        socket.join_groups(link.index)?;
        if config.promiscuous {
            socket.join(link.index, None)?;
        }
        let (hardware, stamping) = timestamps::enable(&socket, &link, config.timestamping)?;
        let mut facts = vec![(
            "receive",
            match ring {
                Ring::V2(_) => "TPACKET_V2 ring, long packets from the socket's queue".to_owned(),
                Ring::V3(_) => "TPACKET_V3 ring".to_owned(),
            },
        )];
        if queues > 1 {
            let group =
                config.fanout_group.unwrap_or(std::process::id() as u16 ^ link.index as u16);
            socket.fan_out(config.fanout, group)?;
            socket.set_filter(&config.filter)?;
            facts.push(("fanout", format!("{:?}, group {group}", config.fanout).to_lowercase()));
        }
        facts.push(("receive buffer", format!("{receive_buffer} bytes")));
        facts.push(("send buffer", format!("{send_buffer} bytes")));
        let bypass = match config.qdisc_bypass {
            true => "bypassed, for as long as the driver cuts all super-segments",
            false => "used",
        };
        facts.push(("queueing discipline", bypass.to_owned()));

        let claim = config.claim.then(|| Claim::attach(link.index));
        if let Some(claim) = &claim {
            let text = match claim {
                Ok(_) => "is kept from what is for our addresses".to_owned(),
                Err(error) => format!("sees what is for our addresses, too: {error}"),
            };
            facts.push(("linux", text));
        }

        let capabilities = Capabilities {
            kind: "af_packet",
            name: link.name,
            mac: config.mac.or(link.mac),
            mtu: link.mtu,
            queue,
            queues,
            tx_checksum: true,
            tx_gso: vnet::MAX_SUPER_SEGMENT,
            rx_checksum: ChecksumState::Verified,
            tx_in_flight: false,
            timestamps: match hardware {
                true => Timestamps::Hardware,
                false => Timestamps::Kernel,
            },
            facts,
        };
        Ok(AfPacket {
            capabilities,
            live: Some(Live {
                ring,
                sender: Sender::new(config.qdisc_bypass),
                socket,
                _stamping: stamping,
                claim: claim.and_then(Result::ok),
            }),
            counters: Counters::default(),
            link: Link::Up,
            next_check: Instant::ZERO,
        })
    }

    /// Shows at most `limit` packets that have arrived where they lie, without a copy; returns how
    /// many. What a filter cut off is missing from them. 0: nothing was there.
    ///
    /// # Errors
    /// As [`Port::rx`]; `Unsupported` for a port without a V3 ring.
    #[inline]
    pub fn visit(
        &mut self,
        now: Instant,
        limit: usize,
        visitor: impl FnMut(Seen<'_>),
    ) -> io::Result<usize> {
        let Some(live) = &mut self.live else {
            return Err(closed(&self.capabilities.name));
        };
        let Ring::V3(ring) = &mut live.ring else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "packets are shown in place by a V3 ring only",
            ));
        };
        let count = ring.visit(limit, &mut self.counters, visitor);
        if count == 0 {
            return self.check(now).map(|()| 0);
        }
        self.counters.rx_bursts += 1;
        Ok(count)
    }

    /// Changes which packets come in: those that the classic BPF program accepts (`socket(7)`,
    /// `SO_ATTACH_FILTER`). It sees the packet from its Ethernet header on. Empty: all. Packets
    /// already in the ring stay.
    ///
    /// # Errors
    /// When the kernel finds the program invalid.
    pub fn set_filter(&mut self, program: &[libc::sock_filter]) -> io::Result<()> {
        match &self.live {
            Some(live) => live.socket.set_filter(program),
            None => Err(closed(&self.capabilities.name)),
        }
    }

    /// Looks, at most once in [`CHECK_INTERVAL`], whether the interface is still there and up.
    fn check(&mut self, now: Instant) -> io::Result<()> {
        let name = &self.capabilities.name;
        let Some(live) = &self.live else { return Err(closed(name)) };
        if now < self.next_check {
            return match self.link {
                Link::Up => Ok(()),
                Link::Down => Err(interface::down(name)),
                Link::Gone => Err(interface::gone(name)),
            };
        }
        self.next_check = now + CHECK_INTERVAL;
        self.counters.system_calls += 1;
        // The kernel leaves an error on the socket when its interface goes down or away.
        let told = live.socket.take_error().is_some() || self.counters.socket_error;
        if !told && self.link == Link::Up {
            return Ok(());
        }
        self.counters.socket_error = false;
        self.counters.system_calls += 3;
        let result = live.socket.check_link();
        self.link = Link::of(&result);
        result
    }

    fn collect_kernel_statistics(&mut self) {
        let Some(live) = &self.live else { return };
        let [packets, drops, freezes] = live.socket.kernel_statistics();
        self.counters.tp_packets += u64::from(packets);
        self.counters.tp_drops += u64::from(drops);
        self.counters.tp_freeze_q_cnt += u64::from(freezes);
    }
}

impl Port for AfPacket {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, now: Instant, arena: &mut Arena, batch: &mut RxBatch) -> io::Result<usize> {
        let Some(Live { ring, socket, .. }) = &mut self.live else {
            return Err(closed(&self.capabilities.name));
        };
        let before = batch.len();
        match ring {
            Ring::V2(ring) => ring.rx(socket, arena, batch, &mut self.counters),
            Ring::V3(ring) => ring.rx(arena, batch, &mut self.counters),
        }
        let count = batch.len() - before;
        if count == 0 {
            return self.check(now).map(|()| 0);
        }
        self.counters.rx_bursts += 1;
        Ok(count)
    }

    fn tx(&mut self, now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize> {
        let Some(Live { sender, socket, .. }) = &mut self.live else {
            return Err(closed(&self.capabilities.name));
        };
        let result = sender.send(socket, arena, batch, &mut self.counters);
        if let Err(error) = result {
            let result = Err(error);
            self.link = Link::of(&result);
            self.next_check = now + CHECK_INTERVAL;
            return result.map(|()| 0);
        }
        result
    }

    fn fd(&self) -> Option<RawFd> {
        self.live.as_ref().map(|live| live.socket.fd())
    }

    fn arm(&mut self, _now: Instant) -> bool {
        match &self.live {
            Some(Live { ring: Ring::V2(ring), .. }) => !ring.is_readable(),
            Some(Live { ring: Ring::V3(ring), .. }) => !ring.is_readable(),
            None => true,
        }
    }

    fn own_addresses(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        match &mut self.live {
            Some(Live { claim: Some(claim), .. }) => Ok(claim.set_addresses(addresses)?),
            Some(_) => Ok(()),
            None => Err(closed(&self.capabilities.name)),
        }
    }

    fn close(&mut self, _arena: &mut Arena) {
        self.collect_kernel_statistics();
        self.live = None;
    }

    fn statistics(&mut self) -> Statistics {
        self.collect_kernel_statistics();
        let c = &self.counters;
        Statistics {
            rx_packets: c.rx_packets,
            rx_bytes: c.rx_bytes,
            tx_packets: c.tx_packets,
            tx_bytes: c.tx_bytes,
            rx_bursts: c.rx_bursts,
            system_calls: c.system_calls,
            drops: vec![
                ("rx_no_frame", c.rx_no_frame),
                ("rx_ring_full", c.rx_ring_full + c.tp_drops),
                ("rx_too_long", c.rx_too_long),
                ("tx_too_long", c.tx_too_long),
                ("tx_refused", c.tx_refused),
            ],
            details: vec![
                ("tp_packets", c.tp_packets),
                ("tp_drops", c.tp_drops),
                ("tp_freeze_q_cnt", c.tp_freeze_q_cnt),
                ("tx_stalls", c.tx_stalls),
            ],
        }
    }
}

/// The error for a port that was closed.
fn closed(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("the port on {name} is closed"))
}
