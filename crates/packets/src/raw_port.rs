//! A port with its arena, for a user who wants packets and not connections.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_frames::{Arena, Frame, Instant, RxBatch, TxBatch};
use millrace_port::wait::{self, Armed};
use millrace_port::{Capabilities, Port, Statistics, Timestamps, clock};

use crate::filter::Filter;

/// An arena that several ports may have, so that what came in on one leaves by another without a
/// copy. Locked once a call.
#[derive(Clone, Debug)]
pub struct SharedArena(Arc<Mutex<Arena>>);

impl SharedArena {
    /// Shares an arena.
    pub fn new(arena: Arena) -> SharedArena {
        SharedArena(Arc::new(Mutex::new(arena)))
    }

    /// Whether this is the same arena.
    pub fn is(&self, other: &SharedArena) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The arena, for the length of one call. What a panic in another thread left is whole: the
    /// arena checks each ownership before it changes anything.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, Arena> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the timestamps of a port's packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampSource {
    /// The network card's clock, where a packet has [`crate::flags::HARDWARE_TIME`].
    Hardware,
    /// The time of day, read by the kernel when the packet passed or by us when it was taken.
    Software,
    /// Those of a capture file.
    File,
}

/// Counts of a [`RawPort`] beside those of the port underneath.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were received and that the filter in this process let not through.
    pub rx_filtered: u64,
    /// Packets that were given as copies, because too few frames were free or because they lay in
    /// several.
    pub rx_copied: u64,
    /// Packets that were sent as copies, because they lay elsewhere than in the port's frames.
    pub tx_copied: u64,
    /// How often sending found no free frame for a copy.
    pub tx_no_frame: u64,
}

/// Receives batches of packets and sends them. One thread at a time uses it.
pub struct RawPort {
    pub(crate) port: Box<dyn Port>,
    pub(crate) arena: SharedArena,
    /// Received and not given out yet.
    pub(crate) pending: RxBatch,
    /// The first frames of the batch that is being made.
    pub(crate) heads: Vec<Frame>,
    pub(crate) outgoing: TxBatch,
    pub(crate) counters: Counters,
    /// What receiving said after packets that were given out first.
    pub(crate) rx_failed: Option<io::Error>,
    /// What sending said after packets that had been taken.
    pub(crate) tx_failed: Option<io::Error>,
    pub(crate) stamp: Stamp,
    pub(crate) shortest: u32,
    pub(crate) snap_length: u32,
    pub(crate) filter: Option<Filter>,
    /// For a packet of several frames that the filter wants to see in one piece.
    pub(crate) whole: Vec<u8>,
    facts: Vec<(&'static str, String)>,
}

/// How a packet's timestamp becomes nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stamp {
    /// It is.
    Given,
    /// It is of the monotonic clock, which was zero then.
    Since(u64),
    /// There is none: the time of taking it.
    Taken,
}

/// Bytes of an Ethernet header: no interface takes less.
const ETHERNET: u32 = 14;

impl RawPort {
    /// Puts a port and its arena together. `facts` come before the port's own.
    pub fn new(
        port: Box<dyn Port>,
        arena: SharedArena,
        facts: Vec<(&'static str, String)>,
    ) -> RawPort {
        let stamp = match port.capabilities().timestamps {
            Timestamps::None => Stamp::Taken,
            Timestamps::Now => {
                Stamp::Since(clock::wall().as_nanos() as u64 - clock::now().as_nanos())
            }
            Timestamps::Kernel | Timestamps::Hardware | Timestamps::File => Stamp::Given,
        };
        let shortest = match port.capabilities().kind {
            "memory" | "pcap" => 0,
            _ => ETHERNET,
        };
        RawPort {
            port,
            arena,
            pending: RxBatch::new(),
            heads: Vec::new(),
            outgoing: TxBatch::new(),
            counters: Counters::default(),
            rx_failed: None,
            tx_failed: None,
            stamp,
            shortest,
            snap_length: u32::MAX,
            filter: None,
            whole: Vec::new(),
            facts,
        }
    }

    /// The same with a filter that runs in this process on what the port gives.
    pub fn filtered(mut self, filter: Option<Filter>) -> RawPort {
        self.filter = filter;
        self
    }

    /// The same, of whose packets only the first bytes are given.
    pub fn cut(mut self, snap_length: Option<u32>) -> RawPort {
        self.snap_length = snap_length.unwrap_or(u32::MAX);
        self
    }

    /// What the port is and can do.
    pub fn capabilities(&self) -> &Capabilities {
        self.port.capabilities()
    }

    /// How it works: what was chosen and why, then the port's own facts.
    pub fn facts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let own = self.capabilities().facts.iter();
        self.facts.iter().chain(own).map(|(name, text)| (*name, text.as_str()))
    }

    /// What the timestamps are.
    pub fn timestamps(&self) -> TimestampSource {
        match self.capabilities().timestamps {
            Timestamps::Hardware => TimestampSource::Hardware,
            Timestamps::File => TimestampSource::File,
            Timestamps::None | Timestamps::Now | Timestamps::Kernel => TimestampSource::Software,
        }
    }

    /// The arena, to open another port on.
    pub fn arena(&self) -> &SharedArena {
        &self.arena
    }

    /// Counts of the port underneath.
    pub fn statistics(&mut self) -> Statistics {
        self.port.statistics()
    }

    /// Counts of our own.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What to sleep on until there is something to receive; `None` when there is already.
    pub fn arm(&mut self, now: Instant) -> Option<Armed> {
        if !self.pending.is_empty() || !self.heads.is_empty() || self.rx_failed.is_some() {
            return None;
        }
        wait::arm(&mut *self.port, now)
    }

    /// What to poll for readability or for room to send.
    pub fn fd(&self) -> Option<RawFd> {
        self.port.fd()
    }

    /// Has the next call to send say this error.
    pub fn put_off(&mut self, error: io::Error) {
        self.tx_failed = Some(error);
    }

    /// Whether nothing will ever come any more.
    pub fn exhausted(&self) -> bool {
        self.pending.is_empty()
            && self.heads.is_empty()
            && self.rx_failed.is_none()
            && self.port.exhausted()
    }

    /// Leaves the wire. Batches that were given out stay as they are.
    ///
    /// # Errors
    /// What ending a written file said; the port is closed all the same.
    pub fn close(&mut self) -> io::Result<()> {
        let finished = self.port.finish();
        let shared = self.arena.clone();
        let mut arena = shared.lock();
        self.heads.extend_from_slice(&self.pending);
        self.pending.clear();
        self.release_heads(&mut arena);
        self.port.close(&mut arena);
        finished
    }
}

impl core::fmt::Debug for RawPort {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RawPort")
            .field("capabilities", self.capabilities())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
