//! Who drops packets, and why: a program at the tracepoint `skb:kfree_skb` that counts drops by
//! reason and place in a map, and puts some of the frames into a ring.
//!
//! It runs once for each packet that the kernel drops, so counting is all that it does as a rule. No
//! kprobe and no module is needed. Layouts come from the running kernel's BTF: they and the numbers of
//! the reasons differ from one kernel to the next.

mod program;

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use crate::btf::Btf;
use crate::error::{Error, Result};
use crate::map::{Map, MapKind, MapSpec, PerCpuMap, TypedMap};
use crate::ring_buffer::RingBuffer;
use crate::trace::{Runs, TraceProgram, count_runs};

/// Most bytes of a frame that can be kept.
pub const MOST_SNAP: u32 = 2048;

/// What is watched, and how closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropConfig {
    /// Bytes kept of a frame, at most [`MOST_SNAP`].
    pub snap: u32,
    /// Bytes of the ring that frames wait in: a power of two.
    pub ring: u32,
    /// Places and reasons that are counted apart; others are counted together.
    pub places: u32,
    /// Whether every frame may be wanted. Otherwise [`DropMonitor::keep_one_of`] keeps one of 16 at
    /// most, after the first few, and most drops cost less.
    pub every_frame: bool,
}

impl Default for DropConfig {
    fn default() -> Self {
        DropConfig { snap: 256, ring: 1 << 20, places: 4096, every_frame: false }
    }
}

/// Where packets are dropped, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Address in the kernel of the call that dropped.
    pub location: u64,
    /// Number in `enum skb_drop_reason`.
    pub reason: u32,
    /// The interface that it came in by, else the one that it was to leave by; 0 if neither is
    /// known.
    pub ifindex: u32,
    /// Inode of the interface's network namespace; 0 if it is not known.
    pub namespace: u32,
    /// Ether type.
    pub protocol: u16,
}

/// Drops at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Where and why.
    pub place: Place,
    /// The interface's name, if it is known.
    pub interface: String,
    /// How many.
    pub packets: u64,
}

/// A dropped frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped<'a> {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Where and why.
    pub place: Place,
    /// Whether the bytes begin with an Ethernet header; else with that of the network layer.
    pub ethernet: bool,
    /// Where the network header begins in the bytes.
    pub network: u32,
    /// Bytes of the whole frame, as far as the kernel knew it.
    pub original: u32,
    /// The first of them.
    pub bytes: &'a [u8],
}

/// Watches drops for as long as it lives.
#[derive(Debug)]
pub struct DropMonitor {
    program: TraceProgram,
    counts: Map,
    slots: Map,
    settings: TypedMap<u32, u64>,
    totals: PerCpuMap<u32, u64>,
    ring: RingBuffer,
    names: HashMap<Place, String>,
}

impl DropMonitor {
    /// Begins to count.
    ///
    /// # Errors
    /// [`Error::Argument`] for sizes that make no sense and on a kernel without BTF or without drop
    /// reasons (before 5.17); [`Error::System`] with `EPERM` without `CAP_BPF` and `CAP_PERFMON`.
    pub fn open(config: &DropConfig) -> Result<DropMonitor> {
        if !(64..=MOST_SNAP).contains(&config.snap) || !config.snap.is_multiple_of(8) {
            let snap = config.snap;
            return Err(Error::Argument(format!(
                "of a frame a multiple of 8 bytes is kept, 64 to {MOST_SNAP}, not {snap}"
            )));
        }
        let btf = Btf::of_kernel()?;
        if btf.tracepoint(program::TRACEPOINT)?.1 < 3 {
            return Err(Error::Argument(
                "this kernel does not say why it drops; it takes Linux 5.17".into(),
            ));
        }
        let layout = program::Layout::of(&btf)?;
        let counts = Map::create(&MapSpec {
            name: "mr_drop_counts",
            kind: MapKind::PerCpuHash,
            key_size: program::KEY_LEN as u32,
            value_size: program::VALUE_LEN as u32,
            max_entries: config.places,
            flags: 0,
        })?;
        let slots = Map::create(&MapSpec {
            name: "mr_drop_slots",
            kind: MapKind::PerCpuArray,
            key_size: 4,
            value_size: program::SLOT_LEN as u32,
            max_entries: program::SLOTS,
            flags: 0,
        })?;
        let settings = TypedMap::create("mr_drop_set", MapKind::Array, 1)?;
        settings.set(&0, &u64::MAX)?;
        let totals = PerCpuMap::create("mr_drop_totals", MapKind::PerCpuArray, program::TOTALS)?;
        let ring = RingBuffer::new("mr_drop_ring", config.ring)?;
        let maps = program::Maps {
            counts: &counts,
            slots: &slots,
            settings: settings.map(),
            totals: totals.map(),
            ring: &ring,
        };
        let code = program::build(&layout, &maps, config.snap, config.every_frame)?;
        let program =
            TraceProgram::attach(&btf, program::TRACEPOINT, "mr_drops", program::LICENSE, &code)?;
        Ok(DropMonitor { program, counts, slots, settings, totals, ring, names: HashMap::new() })
    }

    /// Keeps one frame of about so many at each place, and the first few of each; 0 keeps none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn keep_one_of(&self, drops: u64) -> Result<()> {
        let mask = match drops {
            0 => u64::MAX,
            drops => drops.checked_next_power_of_two().unwrap_or(1 << 62) - 1,
        };
        self.settings.set(&0, &mask)
    }

    /// What was dropped since this was opened, in no order.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counts(&mut self) -> Result<Vec<Count>> {
        let mut found: HashMap<Place, u64> = HashMap::new();
        let mut count = |names: &mut HashMap<Place, String>, place, packets, name: String| {
            let sum = found.entry(place).or_default();
            *sum = u64::wrapping_add(*sum, packets);
            // Only the CPU that was the first has the name.
            if !name.is_empty() {
                names.entry(place).or_insert(name);
            }
        };
        let mut value = vec![0; self.slots.value_len()];
        for index in 0..program::SLOTS {
            if self.slots.lookup(&index.to_ne_bytes(), &mut value)? {
                for (place, packets, name) in
                    value.chunks_exact(program::SLOT_LEN).filter_map(program::slot)
                {
                    count(&mut self.names, place, packets, name);
                }
            }
        }
        let mut value = vec![0; self.counts.value_len()];
        for key in self.counts.keys() {
            let key = key?;
            if self.counts.lookup(&key, &mut value)? {
                for cpu in value.chunks_exact(program::VALUE_LEN) {
                    let (packets, name) = program::value(cpu);
                    count(&mut self.names, program::place(&key), packets, name);
                }
            }
        }
        let named = |(place, packets)| {
            let interface = self.names.get(&place).cloned().unwrap_or_default();
            Count { place, interface, packets }
        };
        Ok(found.into_iter().map(named).collect())
    }

    /// Hands over at most `most` of the frames that were kept. Returns how many there were.
    pub fn frames(&mut self, most: usize, mut take: impl FnMut(Dropped<'_>)) -> usize {
        self.ring.read(most, |record| {
            if let Some(dropped) = program::record(record) {
                take(dropped);
            }
        })
    }

    /// Frames that were to be kept and found no room in the ring.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn frames_lost(&self) -> Result<u64> {
        self.total(program::FRAMES_LOST)
    }

    /// Drops at places that found no room in the map: they are in no count.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn uncounted(&self) -> Result<u64> {
        self.total(program::UNCOUNTED)
    }

    fn total(&self, index: u32) -> Result<u64> {
        let values = self.totals.get(&index)?.unwrap_or_default();
        Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
    }

    /// How often it ran and for how long, while runs were counted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn runs(&self) -> Result<Runs> {
        self.program.runs()
    }

    /// Has the kernel count runs and their time until the descriptor is closed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count_runs(&self) -> Result<OwnedFd> {
        count_runs()
    }
}

/// Names of the drop reasons by their numbers, as the running kernel has them, without what they all
/// begin with.
///
/// # Errors
/// [`Error::Argument`] where the kernel does not tell.
pub fn reasons() -> Result<Vec<(u64, String)>> {
    let btf = Btf::of_kernel()?;
    let all = btf.enumeration("skb_drop_reason");
    if all.is_empty() {
        return Err(Error::Argument(
            "this kernel has no drop reasons; they came with Linux 5.17".into(),
        ));
    }
    let name = |name: String| match name.strip_prefix("SKB_DROP_REASON_") {
        Some(short) => short.to_owned(),
        None => name.strip_prefix("SKB_").map_or(name.clone(), str::to_owned),
    };
    Ok(all.into_iter().map(|(long, number)| (number, name(long))).collect())
}
