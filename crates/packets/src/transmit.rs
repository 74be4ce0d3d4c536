//! The way out: batches and plain bytes become packets of the port.
//!
//! A packet that lies in a frame of the port's own arena leaves from there. All others are copied
//! into free frames, once. The port sends at most a burst a call; what it has no room for is taken
//! back, and the caller is told how many went.

use core::fmt;
use std::io;

use millrace_frames::{Arena, Frame, Owners, Transmit};
use millrace_port::clock;

use crate::batch::Batch;
use crate::checksum;
use crate::flags;
use crate::raw_port::RawPort;

/// A packet that the port can never send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which of those that were to be sent.
    pub index: usize,
    /// Its bytes.
    pub length: usize,
    /// The fewest that the port takes.
    pub shortest: usize,
    /// The most.
    pub longest: usize,
    /// The port's name.
    pub port: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { index, length, shortest, longest, port } = self;
        write!(f, "packet {index} has {length} bytes, and {port} takes {shortest} to {longest}")?;
        f.write_str(match length > longest {
            true => " (its MTU and the Ethernet header); nothing was sent",
            false => " (the Ethernet header at least); nothing was sent",
        })
    }
}

/// Where a packet is that is to be sent, and what has to be finished about it.
struct Source<'a> {
    bytes: &'a [u8],
    /// The frame, of whatever arena, and where in it the bytes are.
    frame: Option<(Frame, u16)>,
    flags: u16,
    gso_size: u16,
}

impl RawPort {
    /// Says which packet can never be sent, if one cannot: one that is shorter than an Ethernet
    /// header, or longer than the link takes.
    pub fn refuse<'a>(&self, packets: impl Iterator<Item = &'a [u8]>) -> Option<Refusal> {
        let tagged =
            |packet: &[u8]| matches!(packet.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
        self.refuse_lengths(packets.map(|packet| (packet.len(), tagged(packet))))
    }

    fn refuse_lengths(&self, lengths: impl Iterator<Item = (usize, bool)>) -> Option<Refusal> {
        let capabilities = self.capabilities();
        let (shortest, mtu) = (self.shortest as usize, capabilities.mtu as usize);
        for (index, (length, tagged)) in lengths.enumerate() {
            let longest = mtu + 14 + if tagged { 4 } else { 0 };
            if length < shortest || length > longest {
                let port = capabilities.name.clone();
                return Some(Refusal { index, length, shortest, longest, port });
            }
        }
        None
    }

    /// As [`RawPort::refuse`], for a batch. A super-segment passes where the port cuts it.
    pub fn refuse_batch(&self, batch: &Batch) -> Option<Refusal> {
        let cuts = self.capabilities().tx_gso > 0;
        let columns = batch.columns();
        self.refuse_lengths(batch.packets().enumerate().map(|(index, packet)| {
            // The kernel cuts only what it still has to sum.
            let wanted = flags::SUPER_SEGMENT | flags::CHECKSUM_UNFINISHED;
            let cut = cuts && columns.flags[index] & wanted == wanted;
            let tagged = matches!(packet.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
            (if cut { self.shortest as usize } else { packet.len() }, tagged)
        }))
    }

    /// Sends the packets of a batch, from the first on; returns how many were taken. Fewer than
    /// all: there is no room now for the next. Never blocks. An unfinished checksum is finished, by
    /// the port or before.
    ///
    /// # Errors
    /// As [`millrace_port::Port::tx`]; after packets that were taken, the next call says it.
    pub fn send(&mut self, batch: &Batch) -> io::Result<usize> {
        let base = batch.memory().0;
        let columns = batch.columns();
        let sources = (0..batch.len()).map(|index| Source {
            bytes: batch.packet(index),
            frame: batch.frame(index),
            flags: columns.flags[index],
            gso_size: columns.row(index).gso_size,
        });
        self.send_all(base, sources)
    }

    /// Sends packets that lie anywhere. Otherwise as [`RawPort::send`].
    ///
    /// # Errors
    /// As [`RawPort::send`].
    pub fn send_bytes<'a>(&mut self, packets: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
        let source = |bytes| Source { bytes, frame: None, flags: 0, gso_size: 0 };
        self.send_all(core::ptr::null(), packets.map(source))
    }

    fn send_all<'a>(
        &mut self,
        base: *const u8,
        mut sources: impl Iterator<Item = Source<'a>>,
    ) -> io::Result<usize> {
        if let Some(error) = self.tx_failed.take() {
            return Err(error);
        }
        let shared = self.arena.clone();
        let mut arena = shared.lock();
        arena.collect_held();
        let ours = core::ptr::eq(base, arena.mapping().base().as_ptr());
        let mut taken = 0;
        let mut next = sources.next();
        while next.is_some() {
            while let Some(source) = &next {
                let frame = source.frame.filter(|_| ours);
                if self.outgoing.is_full() || !self.prepare(&mut arena, source, frame) {
                    break;
                }
                next = sources.next();
            }
            let prepared = self.outgoing.len();
            if prepared == 0 {
                break;
            }
            let result = self.port.tx(clock::now(), &mut arena, &mut self.outgoing);
            let left = self.outgoing.len();
            for packet in self.outgoing.iter() {
                arena.transmitted(packet);
            }
            self.outgoing.clear();
            taken += prepared - left;
            match result {
                Ok(_) if left == 0 => {}
                Ok(_) => break,
                Err(error) if taken == 0 => return Err(error),
                Err(error) => {
                    self.tx_failed = Some(error);
                    break;
                }
            }
        }
        Ok(taken)
    }

    /// Makes one packet ready in `outgoing`, which has room. False: there is no frame for it now,
    /// or what is in `outgoing` has to go first.
    #[inline]
    fn prepare(
        &mut self,
        arena: &mut Arena,
        source: &Source<'_>,
        frame: Option<(Frame, u16)>,
    ) -> bool {
        let under_way = |arena: &Arena, (head, _): (Frame, u16)| {
            arena.owners(head).intersects(Owners::TRANSMIT)
        };
        let frame = match frame {
            Some(frame) if under_way(arena, frame) => {
                if !self.outgoing.is_empty() {
                    return false;
                }
                self.reap(arena);
                Some(frame).filter(|&frame| !under_way(arena, frame))
            }
            frame => frame,
        };
        let mut packet = match frame {
            Some((head, offset)) => {
                arena.own(head, Owners::TRANSMIT);
                let len = source.bytes.len();
                let (len, total) = (len as u16, len as u32);
                Transmit { head, offset, len, total, frames: 1, ..Transmit::default() }
            }
            None => match self.copy_in(arena, source.bytes) {
                Some(packet) => packet,
                None => return false,
            },
        };
        if source.flags != 0
            && let Some(place) = checksum::unfinished(source.bytes, source.flags)
        {
            packet.checksum_start = place.start;
            packet.checksum_offset = place.offset;
            packet.ipv6 = place.ipv6;
            packet.gso_size = source.gso_size;
        }
        // There is room: the caller has looked.
        let _ = self.outgoing.push(packet);
        true
    }

    /// Takes frames back whose transmission has completed.
    fn reap(&mut self, arena: &mut Arena) {
        debug_assert!(self.outgoing.is_empty());
        if let Err(error) = self.port.tx(clock::now(), arena, &mut self.outgoing) {
            self.tx_failed = Some(error);
        }
    }

    /// Copies a packet into frames of its own. `None`: too few are free; an eighth of them is kept
    /// for what is received.
    fn copy_in(&mut self, arena: &mut Arena, bytes: &[u8]) -> Option<Transmit> {
        let size = arena.frame_size();
        let reserve = arena.frames() / 8;
        let frames = bytes.len().div_ceil(size).max(1);
        if arena.free() < reserve + frames && self.outgoing.is_empty() {
            self.reap(arena);
        }
        if arena.free() < reserve + frames {
            self.counters.tx_no_frame += u64::from(self.outgoing.is_empty());
            return None;
        }
        self.counters.tx_copied += 1;
        chain(arena, bytes)
    }

    /// Copies packets into frames of the port's own, to be sent from there, as often as one likes,
    /// without a copy. They count as held until the batch is gone. `None`: fewer frames are free
    /// than it takes, an eighth of them kept for what is received, or a packet is longer than one.
    pub fn keep<'a>(&mut self, packets: impl Iterator<Item = &'a [u8]>) -> Option<Batch> {
        let shared = self.arena.clone();
        let mut arena = shared.lock();
        arena.collect_held();
        for packet in packets {
            let short = arena.free() <= arena.frames() / 8;
            let frame = match short || packet.len() > arena.frame_size() {
                true => None,
                false => arena.allocate(Owners::RECEIVED),
            };
            let Some(frame) = frame else {
                self.release_heads(&mut arena);
                return None;
            };
            let offset = Arena::HEADROOM.min(arena.frame_size() - packet.len());
            fill(&mut arena, frame, offset, packet);
            arena.meta_mut(frame).total = packet.len() as u32;
            self.heads.push(frame);
        }
        let batch = self.hold_heads(&mut arena);
        self.release_heads(&mut arena);
        batch
    }
}

/// Copies a packet into as many frames as it takes. `None`: fewer are free.
pub(crate) fn chain(arena: &mut Arena, bytes: &[u8]) -> Option<Transmit> {
    let size = arena.frame_size();
    let frames = bytes.len().div_ceil(size).max(1);
    if arena.free() < frames {
        return None;
    }
    let offset = Arena::HEADROOM.min(size.saturating_sub(bytes.len()));
    let first = bytes.len().min(size - offset);
    let head = arena.allocate(Owners::TRANSMIT)?;
    fill(arena, head, offset, &bytes[..first]);
    let mut last = head;
    for piece in bytes[first..].chunks(size) {
        let frame = arena.allocate(Owners::TRANSMIT)?;
        fill(arena, frame, 0, piece);
        arena.meta_mut(last).next = frame;
        last = frame;
    }
    Some(Transmit {
        head,
        total: bytes.len() as u32,
        offset: offset as u16,
        len: first as u16,
        frames: frames as u16,
        ..Transmit::default()
    })
}

/// Puts bytes into a fresh frame.
#[inline]
fn fill(arena: &mut Arena, frame: Frame, offset: usize, bytes: &[u8]) {
    arena.room_mut(frame)[offset..offset + bytes.len()].copy_from_slice(bytes);
    let meta = arena.meta_mut(frame);
    meta.offset = offset as u16;
    meta.len = bytes.len() as u16;
}
