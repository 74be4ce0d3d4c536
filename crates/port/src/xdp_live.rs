//! Sending only, by frames that the kernel makes itself and redirects to the interface
//! ([`millrace_bpf::live`]): no socket buffer is made, and no system call is made for a burst. The
//! fastest way out where nothing has to be received and a core is to spare: a thread of its own
//! runs in the kernel for as long as there is something to send.
//!
//! The interface's driver must take redirected frames. Those that it has no room for are dropped,
//! and only the interface's counters say so. Segmentation and checksums are not offloaded.

use std::io;

use millrace_bpf::features::{Features, features};
use millrace_bpf::live::{LONGEST, LiveFrames};
use millrace_frames::{Arena, ChecksumState, Duration, Instant, RxBatch, TxBatch};

use crate::interface::{self, Control, Interface};
use crate::{Capabilities, Port, Repeat, Statistics, Timestamps, copy};

/// Frames that may wait for the kernel.
pub const SLOTS: u32 = 4096;

const ETHERNET_LEN: u32 = 14;
const VLAN_LEN: u32 = 4;
/// Time between two looks at the interface.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);
/// How long closing waits for what was taken to leave, if nothing moves.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_micros(100);

/// Sends by live frames.
#[derive(Debug)]
pub struct XdpLive {
    capabilities: Capabilities,
    /// `None` once closed.
    live: Option<LiveFrames>,
    control: Control,
    ifindex: u32,
    longest: u32,
    next_check: Instant,
    counters: Counters,
    /// The lengths of the frames that are repeated, and how many are to be sent in all.
    repeated: Vec<u64>,
    repeat_count: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    taken: u64,
    bytes: u64,
    too_long: u64,
    too_short: u64,
    unsupported: u64,
    failed: u64,
    /// What the kernel has not sent when the port was closed.
    left: u64,
}

impl XdpLive {
    /// A sender on an interface that is up, with room for `slots` frames.
    ///
    /// # Errors
    /// `NotFound`, `NetworkDown`, `PermissionDenied`; `Unsupported` where the interface takes no
    /// redirected frames, with what would help.
    pub fn open(name: &str, slots: u32) -> io::Result<XdpLive> {
        let link = Interface::find(name)?;
        link.require_up()?;
        if link.mac.is_none() {
            let text = format!("{} is no Ethernet interface", link.name);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let longest = link.mtu + ETHERNET_LEN + VLAN_LEN;
        if longest as usize > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{name} has an MTU of {}, and live frames have {LONGEST} bytes at most; use \
                     af_packet:{name}, or: ip link set {name} mtu {}",
                    link.mtu,
                    LONGEST as u32 - ETHERNET_LEN - VLAN_LEN
                ),
            ));
        }
        match features(link.index) {
            Ok(found) if !found.contains(Features::TAKES_REDIRECTED) => {
                let why = match link.driver.as_str() {
                    "veth" => "the other end of a veth must have an XDP program, or gro on",
                    _ => "its driver cannot, or not before a program is attached",
                };
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("{name} (driver {}) takes no redirected frames: {why}", link.driver),
                ));
            }
            // A kernel that cannot say it is asked by trying.
            Ok(_) | Err(_) => {}
        }
        let failed = |error: millrace_bpf::Error| {
            let kind = io::Error::from(error.clone()).kind();
            io::Error::new(kind, format!("live frames on {name}: {error}"))
        };
        let live = LiveFrames::new(link.index, slots).map_err(failed)?;
        Ok(XdpLive {
            capabilities: Capabilities {
                kind: "xdp_live",
                name: link.name,
                mac: link.mac,
                mtu: link.mtu,
                queue: 0,
                queues: 1,
                tx_checksum: false,
                tx_gso: 0,
                rx_checksum: ChecksumState::Unknown,
                tx_in_flight: false,
                timestamps: Timestamps::None,
                facts: vec![
                    ("send", "frames made and redirected by the kernel".to_owned()),
                    ("slots", slots.to_string()),
                ],
            },
            live: Some(live),
            control: Control::new()?,
            ifindex: link.index,
            longest,
            next_check: Instant::ZERO,
            counters: Counters::default(),
            repeated: Vec::new(),
            repeat_count: 0,
        })
    }

    /// Looks, at most once in [`CHECK_INTERVAL`], whether the interface is still there and up.
    ///
    /// # Errors
    /// As [`Port::tx`].
    fn look(&mut self, now: Instant) -> io::Result<()> {
        let name = &self.capabilities.name;
        let Some(live) = &self.live else { return Err(closed(name)) };
        if now < self.next_check {
            return Ok(());
        }
        self.next_check = now + CHECK_INTERVAL;
        live.check().map_err(io::Error::from)?;
        match self.control.index(name) {
            Ok(index) if index == self.ifindex => {}
            _ if live.is_connected() => {} // renamed
            _ => return Err(interface::gone(name)),
        }
        match self.control.is_up(name) {
            Ok(false) => Err(interface::down(name)),
            _ => Ok(()),
        }
    }
}

impl Repeat for XdpLive {
    fn most(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.slots() as usize)
    }

    fn repeat(&mut self, frames: &[&[u8]], count: u64) -> io::Result<()> {
        let Some(live) = &mut self.live else { return Err(closed(&self.capabilities.name)) };
        let fits = |frame: &&[u8]| (ETHERNET_LEN..=self.longest).contains(&(frame.len() as u32));
        if frames.is_empty() || frames.len() > live.slots() as usize || !frames.iter().all(fits) {
            let (slots, longest) = (live.slots(), self.longest);
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "1 to {slots} frames of {ETHERNET_LEN} to {longest} bytes are sent over and over"
                ),
            ));
        }
        if live.waiting() > 0 {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "other frames are being sent"));
        }
        live.set_period(frames.len() as u32);
        live.room();
        for (ahead, frame) in (0..).zip(frames) {
            live.write(ahead, frame.len(), |to| to.copy_from_slice(frame));
        }
        self.counters.taken += count;
        self.repeated = frames.iter().map(|frame| frame.len() as u64).collect();
        self.counters.bytes += bytes_of(&self.repeated, count);
        self.repeat_count = count;
        live.publish(count).map_err(io::Error::from)
    }

    fn waiting(&self) -> u64 {
        self.live.as_ref().map_or(0, LiveFrames::waiting)
    }

    fn withdraw(&mut self) -> u64 {
        let Some(live) = &mut self.live else { return 0 };
        live.withdraw();
        std::thread::sleep(PAUSE);
        let left = self.counters.taken.saturating_sub(live.sent());
        self.counters.taken -= left;
        let (all, sent) = (self.repeat_count, self.repeat_count.saturating_sub(left));
        self.counters.bytes -= bytes_of(&self.repeated, all) - bytes_of(&self.repeated, sent);
        self.repeat_count = sent;
        left
    }

    fn check(&mut self, now: Instant) -> io::Result<()> {
        self.look(now)
    }
}

impl Port for XdpLive {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, now: Instant, _arena: &mut Arena, _batch: &mut RxBatch) -> io::Result<usize> {
        self.look(now)?;
        let text = format!("xdp_live:{} only sends", self.capabilities.name);
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    fn tx(&mut self, now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize> {
        self.look(now)?;
        let Some(live) = &mut self.live else { return Err(closed(&self.capabilities.name)) };
        let (mut taken, mut written) = (0, 0);
        if !batch.is_empty() {
            if live.waiting() == 0 {
                // After packets that were repeated, all slots are used again.
                live.set_period(live.slots());
            }
            let room = live.room();
            for packet in batch.iter() {
                if packet.gso_size != 0 || packet.total > self.longest {
                    let counters = &mut self.counters;
                    match packet.gso_size {
                        0 => counters.too_long += 1,
                        _ => counters.unsupported += 1,
                    }
                } else if packet.total < ETHERNET_LEN || !copy::checksum_place_is_inside(packet) {
                    self.counters.too_short += 1;
                } else if written == room {
                    break;
                } else {
                    live.write(written, packet.total as usize, |to| {
                        arena.gather(packet, to);
                        if packet.checksum_start != 0 {
                            let (start, at) = (packet.checksum_start, packet.checksum_offset);
                            copy::finish_checksum(to, start.into(), at.into());
                        }
                    });
                    written += 1;
                    self.counters.bytes += u64::from(packet.total);
                }
                arena.transmitted(packet);
                taken += 1;
            }
            batch.consume(taken);
        }
        if written > 0 {
            self.counters.taken += u64::from(written);
            live.publish(written.into()).map_err(io::Error::from)?;
        }
        Ok(taken)
    }

    fn repeater(&mut self) -> Option<&mut dyn Repeat> {
        Some(self)
    }

    fn close(&mut self, _arena: &mut Arena) {
        let Some(live) = &self.live else { return };
        let mut last = live.sent();
        let mut since = crate::clock::now();
        while live.waiting() > 0 {
            std::thread::sleep(PAUSE);
            let now = crate::clock::now();
            if live.sent() != last {
                (last, since) = (live.sent(), now);
            } else if now - since > PATIENCE || live.check().is_err() {
                break;
            }
        }
        self.counters.failed = live.failed();
        self.counters.left = self.counters.taken.saturating_sub(live.sent());
        self.live = None;
    }

    fn statistics(&mut self) -> Statistics {
        let counters = &self.counters;
        let (failed, left) = match &self.live {
            Some(live) => (live.failed(), live.waiting()),
            None => (counters.failed, counters.left),
        };
        Statistics {
            tx_packets: counters.taken.saturating_sub(failed + left),
            tx_bytes: counters.bytes,
            drops: vec![
                ("tx_too_long", counters.too_long),
                ("tx_refused", failed + counters.too_short),
                ("tx_unsupported", counters.unsupported),
            ],
            details: vec![("tx_waiting", left)],
            ..Statistics::default()
        }
    }
}

/// Bytes of `count` frames that have these lengths in turn.
fn bytes_of(lens: &[u64], count: u64) -> u64 {
    if lens.is_empty() {
        return 0;
    }
    let (whole, rest) = (count / lens.len() as u64, (count % lens.len() as u64) as usize);
    lens.iter().sum::<u64>() * whole + lens[..rest].iter().sum::<u64>()
}

fn closed(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("the port on {name} is closed"))
}
