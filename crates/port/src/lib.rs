//! Where frames come in and go out.
//!
//! A [`Port`] moves bursts of frames between a wire and an [`Arena`]: `rx` takes what has arrived,
//! `tx` sends, both with at most one system call a burst. It knows nothing of protocols. Which one
//! is underneath costs one dynamic call a burst, so ports are used as `dyn Port`.
//!
//! Every port passes the conformance test in `tests/conformance.rs`.

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use millrace_frames::{Arena, ChecksumState, Instant, RxBatch, TxBatch};
use millrace_wire::mac::Mac;

pub mod af_packet;
pub mod af_xdp;
pub mod clock;
mod copy;
pub mod forwarder;
pub mod impair;
pub mod interface;
mod linux_addresses;
pub mod memory;
pub mod name;
mod netlink;
mod owner;
pub mod pcap;
pub mod tap;
mod vnet;
pub mod wait;
pub mod xdp_live;

pub use copy::finish_checksum;
pub use linux_addresses::LinuxAddresses;
pub use owner::Owner;
pub use wait::{Wait, Wake};

/// One receive and one transmit queue.
pub trait Port: Send {
    /// What this port is and can do. Does not change while it is open.
    fn capabilities(&self) -> &Capabilities;

    /// Takes frames that have arrived by `now` and appends them to `batch`, as many as there is
    /// room for. Each is owned [`millrace_frames::Owners::RECEIVED`]; a packet larger than a frame
    /// is a chain. Returns how many were appended; 0 means that nothing was there. Never blocks.
    ///
    /// Frames that could not be taken for want of free frames are dropped and counted.
    ///
    /// # Errors
    /// When the port is of no more use (interface gone, socket dead). An interface that is down
    /// is `ENETDOWN`; the port may come back.
    fn rx(&mut self, now: Instant, arena: &mut Arena, batch: &mut RxBatch) -> io::Result<usize>;

    /// Sends packets from the front of `batch` and removes them from it; each frame's
    /// [`millrace_frames::Owners::TRANSMIT`] ends when the port is done with it, at once or in a
    /// later call. Returns how many were taken; those that remain found no room now. A packet that
    /// can never be sent (too long, refused by the kernel) is taken, dropped and counted.
    /// Also gives back frames whose transmission has completed since, so it is called with an
    /// empty batch too. Never blocks.
    ///
    /// # Errors
    /// As [`Port::rx`].
    fn tx(&mut self, now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize>;

    /// What to poll for readability before sleeping. `None`: the port has no such thing (a file,
    /// a simulated wire), and only [`Port::next_arrival`] tells.
    fn fd(&self) -> Option<RawFd> {
        None
    }

    /// What to poll as well, for a port that has two sockets. (One descriptor of epoll(7) for both has
    /// every wake-up go through it, which costs more than a second one to poll.)
    fn second_fd(&self) -> Option<RawFd> {
        None
    }

    /// To be called before polling [`Port::fd`]: makes sure that an arrival from now on wakes the
    /// sleeper. Returns false when something has arrived already, so do not sleep.
    fn arm(&mut self, now: Instant) -> bool {
        let _ = now;
        true
    }

    /// When the next frame will have arrived, where the port knows (a simulated wire, a replayed
    /// file). A sleeper wakes at that time at the latest.
    fn next_arrival(&self) -> Option<Instant> {
        None
    }

    /// Whether everything that will ever come has come (end of a file).
    fn exhausted(&self) -> bool {
        false
    }

    /// Says which addresses are the user's, for a port that takes only what is for them; others take no
    /// notice. To be called whenever they change.
    ///
    /// # Errors
    /// When the port has no room for so many.
    fn own_addresses(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        let _ = addresses;
        Ok(())
    }

    /// Takes every frame back into the arena that the port still has, and leaves the wire. The
    /// port is of no use afterwards. Dropping a port without this leaves its frames to the arena's
    /// own end, which is sound: the mapping lives for as long as the kernel may write it.
    fn close(&mut self, arena: &mut Arena);

    /// Ends what was sent where something has to be ended (a capture file, with its counters).
    /// Nothing can be sent afterwards. [`Port::close`] does the same, but cannot say what went
    /// wrong.
    ///
    /// # Errors
    /// What writing said.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The port as one that sends packets over and over by itself, where it can.
    fn repeater(&mut self) -> Option<&mut dyn Repeat> {
        None
    }

    /// What it has counted since it was opened.
    fn statistics(&mut self) -> Statistics;
}

/// Sends the same packets over and over without being called for each.
pub trait Repeat {
    /// Most packets that can be repeated.
    fn most(&self) -> usize;

    /// Begins to send `frames` in turn, `count` packets in all. They are copied.
    ///
    /// # Errors
    /// As [`Port::tx`]; `InvalidInput` for too many frames, or one that is too short or too long;
    /// `ResourceBusy` while others are being sent.
    fn repeat(&mut self, frames: &[&[u8]], count: u64) -> io::Result<()>;

    /// Packets that are still to be sent.
    fn waiting(&self) -> u64;

    /// Gives up what is still to be sent; returns how many packets.
    fn withdraw(&mut self) -> u64;

    /// Looks, now and then, whether the port can still send.
    ///
    /// # Errors
    /// As [`Port::tx`].
    fn check(&mut self, now: Instant) -> io::Result<()>;
}

/// What a port is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `memory`, `pcap`, `tap`, `af_packet`, `af_xdp` or `xdp_live`.
    pub kind: &'static str,
    /// The interface or file.
    pub name: String,
    /// The hardware address of the wire's end, where it has one.
    pub mac: Option<Mac>,
    /// Largest IP packet (bytes without the Ethernet header).
    pub mtu: u32,
    /// Which queue this is, and of how many.
    pub queue: u32,
    /// Number of queues of the interface.
    pub queues: u32,
    /// Whether it finishes transport checksums (`Transmit::checksum_start`).
    pub tx_checksum: bool,
    /// Payload bytes of the largest super-segment that it cuts up (`Transmit::gso_size`), 0: none.
    pub tx_gso: u32,
    /// What a received frame's checksum state can be at best.
    pub rx_checksum: ChecksumState,
    /// Whether the frames of a transmitted packet may be in flight after `tx` returned.
    pub tx_in_flight: bool,
    /// What the timestamps of received frames are.
    pub timestamps: Timestamps,
    /// Facts about how it works that a user asked for or should know (`mode: native`,
    /// `zero-copy: no, the driver has none`), in the order to show them.
    pub facts: Vec<(&'static str, String)>,
}

/// Where the timestamp of a received frame ([`millrace_frames::Meta::timestamp`]) comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamps {
    /// There are none: each is 0.
    #[default]
    None,
    /// The time that the sender handed in as `now`: of the same clock as everybody's `now`.
    Now,
    /// The kernel's `CLOCK_REALTIME`, read when the packet passed.
    Kernel,
    /// The network card's clock, for frames that are
    /// [`millrace_frames::RxFlags::HARDWARE_TIME`]; the kernel's for others.
    Hardware,
    /// Those of a capture file.
    File,
}

/// Counters of a port since it was opened. Packets are counted as they pass [`Port::rx`] and
/// [`Port::tx`]: a super-segment is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received, Ethernet header included.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent, Ethernet header included.
    pub tx_bytes: u64,
    /// Calls that brought at least one packet.
    pub rx_bursts: u64,
    /// System calls made to receive, to transmit and to wake the kernel.
    pub system_calls: u64,
    /// What was lost, by reason. Names are `snake_case`, begin with `rx_` or `tx_`, and are the
    /// same for the same reason on every port: `rx_no_frame` (arena exhausted), `rx_ring_full`
    /// (we were too slow), `rx_too_long`, `tx_too_long`, `tx_refused` (by the kernel),
    /// `tx_unsupported` (asks for an offload that the port has not), `tx_no_carrier` (nobody is at
    /// the other end).
    pub drops: Vec<(&'static str, u64)>,
    /// Anything else that the port counts (kernel statistics under the kernel's names).
    pub details: Vec<(&'static str, u64)>,
}

impl Statistics {
    /// Adds another port's; counters of the same name become one.
    pub(crate) fn add(&mut self, other: Statistics) {
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.rx_bursts += other.rx_bursts;
        self.system_calls += other.system_calls;
        for (sum, more) in [(&mut self.drops, other.drops), (&mut self.details, other.details)] {
            for (name, count) in more {
                match sum.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, total)) => *total += count,
                    None => sum.push((name, count)),
                }
            }
        }
    }

    /// Sum of all drops.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(|&(_, count)| count).sum()
    }
}
