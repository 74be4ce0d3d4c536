//! TAP: an Ethernet interface of the kernel whose other end is this port.
//!
//! The port makes the interface and sets it up; the kernel's side may get an address on the way.
//! Super-segments and unfinished checksums pass whole in both directions (`IFF_VNET_HDR`). Packets
//! go between the kernel and the frames of the arena without a copy in between: readv(2) writes
//! into a chain that is kept ready for the largest packet, writev(2) gathers. The kernel's interface
//! is one call a packet, so a burst is several, and they are counted.
//!
//! Linux, Documentation/networking/tuntap.rst.

mod device;
use core::ptr::NonNull;
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use millrace_frames::{
    Arena, ChecksumState, Duration, Frame, Instant, Meta, Owners, RxBatch, TxBatch,
};
use millrace_wire::mac::Mac;

use self::device::Device;
use crate::interface::{self, Control, Interface};
use crate::vnet::{self, Header, RX_OFFSET};
use crate::{Capabilities, Port, Statistics, Timestamps};

/// What to open.
#[derive(Clone, Debug)]
pub struct TapConfig {
    /// The interface's name. One that does not exist is made.
    pub name: String,
    /// Which queue of [`TapConfig::queues`] this is.
    pub queue: u32,
    /// How many queues the interface gets, each a port of its own. The kernel sends a flow to the
    /// queue that last sent for it.
    pub queues: u32,
    /// Our hardware address, which is not the interface's own: that is the kernel's. `None`: made
    /// from the kernel's, so that all queues have the same.
    pub mac: Option<Mac>,
    /// Largest IP packet.
    pub mtu: u32,
    /// An address, and the length of its network's prefix, for the kernel's side.
    pub kernel_address: Option<(IpAddr, u8)>,
    /// Whether the interface stays when its last port closes.
    pub persist: bool,
}

impl TapConfig {
    /// One queue, MTU 1500, gone with the port.
    pub fn new(name: &str) -> Self {
        TapConfig {
            name: name.to_owned(),
            queue: 0,
            queues: 1,
            mac: None,
            mtu: 1500,
            kernel_address: None,
            persist: false,
        }
    }
}

/// How long an idle port goes without looking whether its interface is still up.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// A burst ends with the packet that makes it this long: what is copied now should still be in the
/// processor's cache when the stack looks at it.
const BURST_BYTES: usize = 256 << 10;

/// Pieces of one packet (`UIO_MAXIOV`), the virtio-net header being one.
const MAX_PIECES: usize = 1024;

/// One queue of a TAP interface.
pub struct Tap {
    capabilities: Capabilities,
    /// `None` once closed.
    device: Option<Device>,
    control: Control,
    ready: Ready,
    /// What writev(2) reads.
    pieces: Vec<libc::iovec>,
    counters: Counters,
    down: bool,
    next_check: Instant,
}

// SAFETY: the pointers in `ready` name frames that this port owns, and those in `pieces` are made
// and used within one call; neither has to do with a thread.
unsafe impl Send for Tap {}

#[derive(Debug, Default)]
struct Counters {
    rx_packets: u64,
    rx_bytes: u64,
    rx_bursts: u64,
    tx_packets: u64,
    tx_bytes: u64,
    system_calls: u64,
    rx_no_frame: u64,
    rx_too_long: u64,
    tx_too_long: u64,
    tx_refused: u64,
    tx_stalls: u64,
}

impl Tap {
    /// Opens a queue of a TAP interface, which is made if it does not exist, and sets it up.
    ///
    /// # Errors
    /// `NotFound` (no `/dev/net/tun`), `PermissionDenied` (CAP_NET_ADMIN), `ResourceBusy` (the name
    /// is in use), `InvalidInput` (a configuration that makes no sense or does not fit the
    /// interface there is); else what the kernel says, with the step that failed.
    pub fn open(config: &TapConfig) -> io::Result<Tap> {
        let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        let TapConfig { queue, queues, .. } = *config;
        if queues == 0 || queue >= queues || queues > 256 {
            return invalid(format!("queue {queue} of {queues}: queues are counted from 0 to 255"));
        }
        if let Some(mac) = config.mac.filter(|mac| !mac.is_unicast()) {
            return invalid(format!("{mac} is no address of one station"));
        }
        let device = Device::open(&config.name, queues > 1)?;
        let failed = |what: &str, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: cannot {what}: {error}", config.name))
        };
        let offload =
            device.negotiate().map_err(|error| failed("use the virtio-net header", error))?;
        let control = Control::new()?;
        let link = Interface::find(&config.name)?;
        // Settings that are right already may have been made by somebody who may.
        if link.mtu != config.mtu {
            control.set_mtu(&link.name, config.mtu)?;
        }
        if let Some((address, prefix)) = config.kernel_address {
            control.add_address(&link.name, address, prefix)?;
        }
        if !link.up {
            control.set_up(&link.name)?;
        }
        let kernel = link.mac.unwrap_or_default();
        let mac = config.mac.unwrap_or_else(|| beside(kernel));
        if mac == kernel {
            return invalid(format!("{mac} is the address of the kernel's side of {}", link.name));
        }
        // Last, so that an interface whose set-up failed goes with the descriptor.
        if config.persist {
            device.set_persist(true).map_err(|error| failed("make it persistent", error))?;
        }
        let persist = if config.persist { "stays" } else { "goes with the port" };
        let capabilities = Capabilities {
            kind: "tap",
            name: link.name,
            mac: Some(mac),
            mtu: config.mtu,
            queue,
            queues,
            tx_checksum: true,
            tx_gso: vnet::MAX_SUPER_SEGMENT,
            rx_checksum: ChecksumState::Verified,
            tx_in_flight: false,
            timestamps: Timestamps::None,
            facts: vec![
                ("kernel's hardware address", kernel.to_string()),
                ("received unfinished", offload.to_owned()),
                ("interface", persist.to_owned()),
            ],
        };
        Ok(Tap {
            capabilities,
            device: Some(device),
            control,
            ready: Ready::new(),
            pieces: Vec::with_capacity(MAX_PIECES),
            counters: Counters::default(),
            down: false,
            next_check: Instant::ZERO,
        })
    }

    /// Looks, at most once in [`CHECK_INTERVAL`], whether the interface is up. That it is gone,
    /// reading tells.
    fn check(&mut self, now: Instant) -> io::Result<()> {
        if now >= self.next_check {
            self.next_check = now + CHECK_INTERVAL;
            self.counters.system_calls += 2;
            let Some(device) = &self.device else { return Err(closed(&self.capabilities.name)) };
            let name = device.name().map_err(|_| interface::gone(&self.capabilities.name))?;
            // An interface that was moved to another network namespace is out of sight, and none
            // of our business.
            self.down = self.control.is_up(&name).is_ok_and(|up| !up);
        }
        if self.down { Err(interface::down(&self.capabilities.name)) } else { Ok(()) }
    }
}

impl Port for Tap {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, now: Instant, arena: &mut Arena, batch: &mut RxBatch) -> io::Result<usize> {
        let Some(device) = &self.device else { return Err(closed(&self.capabilities.name)) };
        let counters = &mut self.counters;
        let (mut count, mut bytes) = (0, 0);
        // Dropped packets count, too, so that a flood that finds no frames ends the burst.
        for _ in 0..batch.room() {
            if bytes >= BURST_BYTES {
                break;
            }
            self.ready.fill(arena);
            counters.system_calls += 1;
            let len = match device.read(self.ready.pieces()) {
                Ok(len) => len.saturating_sub(Header::LEN),
                Err(error) => match error.raw_os_error().unwrap_or(0) {
                    libc::EAGAIN => break,
                    libc::EINTR => continue,
                    _ if count > 0 => break,
                    libc::EBADFD | libc::ENODEV | libc::ENXIO => {
                        return Err(interface::gone(&self.capabilities.name));
                    }
                    _ => return Err(failed(&self.capabilities.name, "receive", &error)),
                },
            };
            match self.ready.take(arena, len) {
                Ok(head) => {
                    bytes += len;
                    count += 1;
                    counters.rx_packets += 1;
                    counters.rx_bytes += len as u64;
                    let _ = batch.push(head);
                }
                Err(Cut::NoFrame) => counters.rx_no_frame += 1,
                Err(Cut::TooLong) => counters.rx_too_long += 1,
            }
        }
        if count == 0 {
            return self.check(now).map(|()| 0);
        }
        counters.rx_bursts += 1;
        Ok(count)
    }

    fn tx(&mut self, _now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize> {
        let Some(device) = &self.device else { return Err(closed(&self.capabilities.name)) };
        let counters = &mut self.counters;
        let mut taken = 0;
        let mut result = Ok(());
        for packet in batch.iter() {
            let start = vnet::first_bytes(arena, packet);
            let many = usize::from(packet.frames) + 1 > MAX_PIECES;
            if many || vnet::too_long(packet, start, self.capabilities.mtu) {
                counters.tx_too_long += 1;
            } else {
                let mut header = Header::transmit(packet, start);
                let iov_base = (&raw mut header).cast();
                self.pieces.clear();
                self.pieces.push(libc::iovec { iov_base, iov_len: Header::LEN });
                vnet::gather(arena, packet, &mut self.pieces);
                counters.system_calls += 1;
                match device.write(&self.pieces) {
                    Ok(()) => {
                        counters.tx_packets += 1;
                        counters.tx_bytes += u64::from(packet.total);
                    }
                    Err(error) => match error.raw_os_error().unwrap_or(0) {
                        libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM => {
                            counters.tx_stalls += 1;
                            break;
                        }
                        // What the driver says of an interface that is down.
                        libc::EIO | libc::ENETDOWN => {
                            result = Err(interface::down(&self.capabilities.name));
                            break;
                        }
                        libc::EBADFD | libc::ENODEV | libc::ENXIO => {
                            result = Err(interface::gone(&self.capabilities.name));
                            break;
                        }
                        _ => counters.tx_refused += 1,
                    },
                }
            }
            arena.transmitted(packet);
            taken += 1;
        }
        batch.consume(taken);
        // Those taken are reported first; the next call finds the same error.
        if taken > 0 { Ok(taken) } else { result.map(|()| 0) }
    }

    fn fd(&self) -> Option<RawFd> {
        self.device.as_ref().map(Device::fd)
    }

    fn close(&mut self, arena: &mut Arena) {
        self.device = None;
        self.ready.release(arena);
    }

    fn statistics(&mut self) -> Statistics {
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
                ("rx_too_long", c.rx_too_long),
                ("tx_too_long", c.tx_too_long),
                ("tx_refused", c.tx_refused),
            ],
            details: vec![("tx_stalls", c.tx_stalls)],
        }
    }
}

impl core::fmt::Debug for Tap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tap")
            .field("capabilities", &self.capabilities)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// An address for our side that differs from the kernel's, the same for every queue.
fn beside(kernel: Mac) -> Mac {
    let mut mac = kernel.0;
    // Locally administered, of one station (IEEE 802, section 8.4).
    mac[0] = (mac[0] | 2) & !1;
    mac[5] ^= 1;
    Mac(mac)
}

fn failed(name: &str, what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: cannot {what}: {error}"))
}

/// The error for a port that was closed.
fn closed(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("the port on {name} is closed"))
}

/// Why a received packet is not whole.
enum Cut {
    /// The arena had too few frames to keep ready.
    NoFrame,
    /// It is longer than any packet should be.
    TooLong,
}

/// Frames for the next packet, however large: those that it does not fill are there for the one
/// after it. They are owned [`Owners::FILL`].
struct Ready {
    /// The virtio-net header of the packet read last.
    header: Header,
    frames: Vec<Frame>,
    /// One for the header, then one for each frame.
    pieces: Vec<libc::iovec>,
    /// How many frames the largest packet takes; known when the arena is.
    wanted: usize,
    /// Keeps the frames' memory mapped: the pieces point there from one call to the next.
    memory: Option<(NonNull<u8>, Arc<dyn Send + Sync>)>,
}

impl Ready {
    fn new() -> Ready {
        // The smallest frames there are make the longest chain.
        let most = vnet::MAX_PACKET.div_ceil(2048) + 1;
        let mut pieces = Vec::with_capacity(most + 1);
        pieces.push(libc::iovec { iov_base: core::ptr::null_mut(), iov_len: Header::LEN });
        let frames = Vec::with_capacity(most);
        Ready { header: Header::default(), frames, pieces, wanted: 0, memory: None }
    }

    /// What the kernel may write.
    #[inline]
    fn pieces(&mut self) -> &mut [libc::iovec] {
        self.pieces[0].iov_base = (&raw mut self.header).cast();
        &mut self.pieces
    }

    /// Brings the number of frames up to what the largest packet takes, if the arena has them.
    #[inline]
    fn fill(&mut self, arena: &mut Arena) {
        let size = arena.frame_size();
        let base = arena.mapping().base();
        let (known, _) = self.memory.get_or_insert_with(|| (base, arena.keep_alive()));
        assert_eq!(*known, base, "a TAP port keeps to the arena that it was first used with");
        // More room than the largest packet, so that one that fills it all was cut.
        self.wanted = vnet::frames_for(arena, RX_OFFSET, vnet::MAX_PACKET + 1);
        while self.frames.len() < self.wanted {
            let Some(frame) = arena.allocate(Owners::RECEIVED) else { break };
            let first = if self.frames.is_empty() { RX_OFFSET } else { 0 };
            let room = &mut arena.room_mut(frame)[first..];
            let iov_base = room.as_mut_ptr().cast();
            self.pieces.push(libc::iovec { iov_base, iov_len: size - first });
            self.frames.push(frame);
            // From here on the kernel may write it, and nobody else may look.
            arena.pass(frame, Owners::RECEIVED, Owners::FILL);
        }
    }

    /// Makes a chain of the frames that the packet just read, `len` bytes of it, lies in.
    #[inline]
    fn take(&mut self, arena: &mut Arena, len: usize) -> Result<Frame, Cut> {
        let size = arena.frame_size();
        let room = (self.frames.len() * size).saturating_sub(RX_OFFSET);
        if len >= room {
            let all = self.frames.len() == self.wanted;
            return Err(if all { Cut::TooLong } else { Cut::NoFrame });
        }
        let count = vnet::frames_for(arena, RX_OFFSET, len);
        let (mut start, mut left) = (RX_OFFSET, len);
        for (i, &frame) in self.frames[..count].iter().enumerate() {
            let here = left.min(size - start);
            let next = if i + 1 < count { self.frames[i + 1] } else { Frame::NONE };
            *arena.meta_mut(frame) =
                Meta { next, offset: start as u16, len: here as u16, ..Meta::default() };
            arena.pass(frame, Owners::FILL, Owners::RECEIVED);
            (start, left) = (0, left - here);
        }
        let head = self.frames[0];
        let meta = arena.meta_mut(head);
        meta.total = len as u32;
        meta.checksum = self.header.checksum();
        meta.gso_size = self.header.segment();
        self.frames.drain(..count);
        self.pieces.drain(1..=count);
        if let Some(first) = self.pieces.get_mut(1) {
            // What was in the middle is now the beginning.
            first.iov_base = first.iov_base.wrapping_byte_add(RX_OFFSET);
            first.iov_len -= RX_OFFSET;
        }
        Ok(head)
    }

    /// Gives all frames back.
    fn release(&mut self, arena: &mut Arena) {
        for frame in self.frames.drain(..) {
            arena.release(frame, Owners::FILL);
        }
        self.pieces.truncate(1);
        self.memory = None;
    }
}
