//! Rings shared with the kernel, below its network stack (AF_XDP): works on every driver, needs no
//! system call to receive and one a burst to transmit, and leaves to Linux what is not ours.
//!
//! The arena is the UMEM. A port has one socket, bound to one receive queue. The steering program
//! of [`millrace_bpf::redirector`] hands it the frames of that queue; it is attached last and
//! detached first, and nothing of it outlives the process.
//!
//! Frame buffers larger than a page do not exist here, and packets of several buffers
//! (`XDP_USE_SG`) are not used: a packet fits a frame, or the interface's MTU is refused.

mod all_queues;
mod config;
mod groups;
mod open;
mod ring;
mod socket;
mod steering;
mod sys;
mod transmit;
mod umem;

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use millrace_bpf::Counters;
use millrace_frames::{Arena, ChecksumState, Instant, Meta, RxBatch, TxBatch};

pub use all_queues::AllQueues;
pub use config::{BusyPoll, Config, XdpMode, ZeroCopy};
pub use groups::WithGroups;
pub use millrace_bpf::{Filter, Ports, Protocol, RedirectConfig};
pub use open::probe;
pub use steering::Steering;

use crate::interface::{self, Control};
use crate::{Capabilities, Owner, Port, Statistics};
use socket::Socket;
use sys::KernelStatistics;
use umem::Umem;

const ETHERNET_LEN: u32 = 14;
const VLAN_LEN: u32 = 4;
/// Frames that the kernel is given at a time. With each single one the line of memory that both sides
/// watch would go to and fro between two cores.
const REFILL: u32 = 64;
/// Fruitless looks at the receive ring between two questions whether the interface still exists.
const LOOKS_PER_CHECK: u32 = 1 << 18;

/// One queue of an interface through AF_XDP.
pub struct AfXdp {
    capabilities: Capabilities,
    umem: Umem,
    /// `None` once closed.
    open: Option<Open>,
    statistics: Counts,
    checksum: ChecksumState,
    /// What the entries of all received frames have in common: the queue.
    received: Meta,
    /// Bytes of the longest packet that may be sent, Ethernet header included.
    max_packet: u32,
    /// Frames that lie ready to be filled.
    fill_target: u32,
    /// The kernel has not looked at all of the transmit ring yet.
    kick_pending: bool,
    busy_poll: bool,
    /// Slept since the receive ring was last looked at.
    slept: bool,
    fruitless: u32,
    gone: bool,
    /// The interface's number, by which one of the same name that came later is told apart.
    ifindex: u32,
    /// What the kernel had counted when the port was closed.
    last: (KernelStatistics, Counters),
    // The kernel may write the memory for as long as the socket lives.
    _memory: Arc<dyn Send + Sync>,
}

/// What lives until the port is closed.
struct Open {
    socket: Socket,
    steering: Arc<Steering>,
    queue: u32,
    /// Asks about the interface in its own network namespace, whatever the thread's is.
    control: Control,
    owner: Owner,
}

impl Drop for Open {
    fn drop(&mut self) {
        // Detach first, close after: a program must not redirect to a socket that is going.
        if self.owner.is_here() {
            self.steering.leave(self.queue);
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    rx_packets: u64,
    rx_bytes: u64,
    rx_bursts: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_too_long: u64,
    tx_refused: u64,
    tx_copied: u64,
    system_calls: u64,
}

impl AfXdp {
    /// What decides which frames come to this port; shared with the interface's other ports.
    /// `None` once closed.
    pub fn steering(&self) -> Option<&Arc<Steering>> {
        self.open.as_ref().map(|open| &open.steering)
    }

    /// Gives free frames to the kernel until as many lie ready as should.
    #[inline]
    fn refill(&mut self, arena: &mut Arena) {
        let Some(Open { socket, .. }) = &mut self.open else { return };
        let wanted = self.fill_target.saturating_sub(self.umem.filled());
        if wanted < REFILL.min(self.fill_target / 4).max(1) {
            return;
        }
        let wanted = wanted.min(arena.free() as u32);
        for _ in 0..wanted.min(socket.fill.free(wanted)) {
            let Some(address) = self.umem.fill(arena) else { break };
            socket.fill.push(address);
        }
        socket.fill.publish();
    }

    /// What an error of the socket means for the port's user.
    fn failure(&mut self, error: io::Error) -> io::Error {
        let name = &self.capabilities.name;
        let index = self.open.as_ref().and_then(|open| open.control.index(name).ok());
        let exists = index == Some(self.ifindex);
        match error.raw_os_error() {
            Some(libc::ENETDOWN) if exists && !self.gone => interface::down(name),
            Some(libc::ENETDOWN | libc::ENXIO | libc::EBADF | libc::ENODEV) => {
                self.gone = true;
                interface::gone(name)
            }
            _ => io::Error::new(error.kind(), format!("AF_XDP on {name}: {error}")),
        }
    }

    /// Asks whether the interface is there and up.
    fn check_alive(&mut self) -> io::Result<()> {
        self.slept = false;
        self.fruitless = 0;
        if self.gone {
            return Err(interface::gone(&self.capabilities.name));
        }
        let Some(Open { socket, .. }) = &self.open else { return Ok(()) };
        self.statistics.system_calls += 2;
        if socket.take_error().is_some() {
            // The kernel reports one thing only here: the interface was unregistered.
            self.gone = true;
            return Err(interface::gone(&self.capabilities.name));
        }
        // Nothing tells a socket that only receives that its interface is down.
        if let Some(Open { control, .. }) = &self.open
            && matches!(control.is_up(&self.capabilities.name), Ok(false))
        {
            return Err(interface::down(&self.capabilities.name));
        }
        Ok(())
    }

    /// Nothing was there to receive: wakes the driver if it asks for it.
    #[cold]
    fn rx_fruitless(&mut self) -> io::Result<()> {
        self.fruitless += 1;
        if self.slept || self.fruitless >= LOOKS_PER_CHECK || self.gone {
            self.check_alive()?;
        }
        let Some(Open { socket, .. }) = &self.open else { return Ok(()) };
        if self.busy_poll || (socket.zero_copy() && socket.fill.needs_wakeup()) {
            self.statistics.system_calls += 1;
            if let Err(error) = socket.kick_rx() {
                return Err(self.failure(error));
            }
        }
        Ok(())
    }

    /// What the kernel has counted: of the socket, and of the interface's program. Neither can
    /// fail on a socket and maps that are open.
    fn kernel_counts(&self) -> (KernelStatistics, Counters) {
        match &self.open {
            Some(Open { socket, steering, .. }) => {
                let counters = steering.counters().unwrap_or(self.last.1);
                (socket.statistics().unwrap_or(self.last.0), counters)
            }
            None => self.last,
        }
    }

    fn closed(&self) -> io::Error {
        let text = format!("the port on {} is closed", self.capabilities.name);
        io::Error::new(io::ErrorKind::NotConnected, text)
    }
}

impl Port for AfXdp {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, _now: Instant, arena: &mut Arena, batch: &mut RxBatch) -> io::Result<usize> {
        let Some(Open { socket, .. }) = &mut self.open else { return Err(self.closed()) };
        let count = (socket.rx.waiting() as usize).min(batch.room());
        if count == 0 {
            if batch.room() > 0 {
                self.rx_fruitless()?;
            }
            self.refill(arena);
            return Ok(0);
        }
        let mut bytes = 0;
        for _ in 0..count {
            let Some(descriptor) = socket.rx.pop() else { break };
            let (frame, offset) = self.umem.receive(arena, descriptor.address)?;
            *arena.meta_mut(frame) = Meta {
                offset,
                len: descriptor.len as u16,
                total: descriptor.len,
                checksum: self.checksum,
                ..self.received
            };
            bytes += u64::from(descriptor.len);
            // There is room: `count` was bounded by it.
            let _ = batch.push(frame);
        }
        socket.rx.release();
        self.slept = false;
        self.fruitless = 0;
        self.statistics.rx_packets += count as u64;
        self.statistics.rx_bytes += bytes;
        self.statistics.rx_bursts += 1;
        self.refill(arena);
        Ok(count)
    }

    fn tx(&mut self, _now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize> {
        self.reap(arena)?;
        let Some(Open { socket, .. }) = &mut self.open else { return Err(self.closed()) };
        let free = socket.tx.free(batch.len() as u32) as usize;
        let mut taken = 0;
        for packet in batch.iter().take(free) {
            if !self.transmit(arena, packet) {
                break;
            }
            taken += 1;
        }
        batch.consume(taken);
        let Some(Open { socket, .. }) = &mut self.open else { return Err(self.closed()) };
        let completing = socket.zero_copy() && self.umem.in_flight() > 0;
        if socket.tx.publish() > 0 || self.kick_pending || completing {
            self.kick(arena)?;
        }
        Ok(taken)
    }

    fn fd(&self) -> Option<RawFd> {
        self.open.as_ref().map(|open| open.socket.raw_fd())
    }

    fn arm(&mut self, _now: Instant) -> bool {
        self.slept = true;
        let Some(Open { socket, .. }) = &self.open else { return false };
        // A sleeper would not send what the kernel could not take at once.
        socket.rx.is_empty() && !self.kick_pending && !self.gone
    }

    fn own_addresses(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        match &self.open {
            Some(open) => open.steering.take_only(addresses),
            None => Err(self.closed()),
        }
    }

    fn close(&mut self, arena: &mut Arena) {
        self.drain(arena);
        self.last = self.kernel_counts();
        let Some(open) = self.open.take() else { return };
        let zero_copy = open.socket.zero_copy();
        drop(open);
        // In copy mode the kernel touches no frame once close(2) has returned. A zero-copy driver
        // lets go later, in its own time, so its frames stay marked until the arena's end.
        if !zero_copy {
            self.umem.reclaim(arena);
        }
    }

    fn statistics(&mut self) -> Statistics {
        let counts = self.statistics;
        let (kernel, steering) = self.kernel_counts();
        // In copy mode a packet that finds no frame counts in both of these; what else is dropped
        // was longer than a frame.
        let no_frame = kernel.rx_dropped.min(kernel.rx_fill_ring_empty_descs);
        let details = vec![
            ("rx_dropped", kernel.rx_dropped),
            ("rx_invalid_descs", kernel.rx_invalid_descs),
            ("tx_invalid_descs", kernel.tx_invalid_descs),
            ("rx_ring_full", kernel.rx_ring_full),
            ("rx_fill_ring_empty_descs", kernel.rx_fill_ring_empty_descs),
            ("tx_ring_empty_descs", kernel.tx_ring_empty_descs),
            ("tx_copied", counts.tx_copied),
            ("xdp_redirected", steering.redirected),
            ("xdp_passed", steering.passed),
            ("xdp_no_socket", steering.no_socket),
        ];
        Statistics {
            rx_packets: counts.rx_packets,
            rx_bytes: counts.rx_bytes,
            tx_packets: counts.tx_packets,
            tx_bytes: counts.tx_bytes,
            rx_bursts: counts.rx_bursts,
            system_calls: counts.system_calls,
            drops: vec![
                ("rx_no_frame", no_frame),
                ("rx_ring_full", kernel.rx_ring_full),
                ("rx_too_long", kernel.rx_dropped - no_frame),
                ("tx_too_long", counts.tx_too_long),
                ("tx_refused", counts.tx_refused + kernel.tx_invalid_descs),
            ],
            details,
        }
    }
}
