//! A `TPACKET_V3` receive ring: large blocks that packets of any size fill without gaps, handed
//! over when full or after a time of at least one millisecond.

use core::sync::atomic::{AtomicU32, Ordering};
use std::io;

use millrace_frames::{Arena, RxBatch};

use super::ring::{Described, Mapping, copy_out};
use super::ring_v2::{BURST_BYTES, read_vnet};
use super::socket::Socket;
use super::{Counters, Seen};
use crate::vnet;

/// The blocks of a V3 ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Bytes of a block: a power of two from 128 KiB to 4 MiB.
    pub bytes: usize,
    /// Milliseconds after which a block that is not full is handed over, at least 1. Each block
    /// holds what came in that time, so a ring of few large ones is soon full of little.
    pub retire_ms: u32,
}

impl Default for Blocks {
    /// Many super-segments of 64 KiB, so that little is left over at a block's end, and the
    /// shortest time there is.
    fn default() -> Self {
        Blocks { bytes: 1 << 20, retire_ms: 1 }
    }
}

/// Bytes of the largest V3 ring.
pub const MOST_BYTES: usize = 2 << 30;

/// Where a block says whose it is, how many packets it has, and where the first is
/// (`struct tpacket_block_desc`).
const BLOCK_STATUS: usize = 8;
const BLOCK_PACKETS: usize = 12;
const BLOCK_FIRST: usize = 16;

#[derive(Debug)]
pub(super) struct RingV3 {
    mapping: Mapping,
    block_bytes: usize,
    blocks: usize,
    /// The block that is being emptied, or that comes next.
    block: usize,
    /// Packets left in it, 0: not begun.
    left: u32,
    /// Where the next of them is in the ring.
    packet: usize,
}

impl RingV3 {
    /// Sets the socket's ring up with about `bytes` of memory.
    pub(super) fn new(socket: &Socket, bytes: usize, each: Blocks) -> io::Result<RingV3> {
        let block_bytes = each.bytes;
        let blocks = (bytes / block_bytes).clamp(2, MOST_BYTES / block_bytes);
        let frame = 2048;
        let request = libc::tpacket_req3 {
            tp_block_size: block_bytes as u32,
            tp_block_nr: blocks as u32,
            // The kernel only checks that these two agree.
            tp_frame_size: frame,
            tp_frame_nr: (blocks * block_bytes / frame as usize) as u32,
            tp_retire_blk_tov: each.retire_ms,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        socket.set(
            libc::PACKET_VERSION,
            libc::tpacket_versions::TPACKET_V3 as i32,
            "use TPACKET_V3",
        )?;
        socket.set(libc::PACKET_VNET_HDR, 1i32, "use PACKET_VNET_HDR")?;
        socket.set(libc::PACKET_RX_RING, request, "set a receive ring up")?;
        let mapping = Mapping::new(socket, blocks * block_bytes)?;
        Ok(RingV3 { mapping, block_bytes, blocks, block: 0, left: 0, packet: 0 })
    }

    /// Where the block begins in the ring.
    #[inline]
    fn start(&self) -> usize {
        self.block * self.block_bytes
    }

    #[inline]
    fn status(&self) -> &AtomicU32 {
        // SAFETY: a block's status word is aligned, and the kernel and this program pass it to and
        // fro.
        unsafe { AtomicU32::from_ptr(self.mapping.at(self.start() + BLOCK_STATUS).cast()) }
    }

    #[inline]
    fn word(&self, offset: usize) -> u32 {
        let bytes = self.mapping.bytes(self.start() + offset, 4);
        u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Whether a packet waits.
    #[inline]
    pub(super) fn is_readable(&self) -> bool {
        self.left > 0 || self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Gives the block back to the kernel.
    fn release(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.block = (self.block + 1) % self.blocks;
    }

    /// Begins the next block that has packets. False: there is none.
    fn open_block(&mut self) -> bool {
        while self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0 {
            self.left = self.word(BLOCK_PACKETS);
            self.packet = self.start() + self.word(BLOCK_FIRST) as usize;
            if self.left > 0 {
                return true;
            }
            self.release();
        }
        false
    }

    /// The next packet; `None`: there is none.
    #[inline]
    fn peek(&mut self) -> Option<Placed> {
        if self.left == 0 && !self.open_block() {
            return None;
        }
        let header = self.mapping.bytes(self.packet, size_of::<libc::tpacket3_hdr>());
        // SAFETY: the bytes are those of the header, a structure of integers.
        let header = unsafe { header.as_ptr().cast::<libc::tpacket3_hdr>().read_unaligned() };
        let start = self.packet + usize::from(header.tp_mac);
        let described = Described {
            vnet: read_vnet(&self.mapping, start),
            tag: Described::tag(
                header.tp_status,
                header.hv1.tp_vlan_tci as u16,
                header.hv1.tp_vlan_tpid,
            ),
            time: u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec),
            flags: Described::flags::<libc::tpacket3_hdr>(
                &self.mapping,
                self.packet,
                header.tp_status,
            ),
        };
        let next = header.tp_next_offset as usize;
        let (len, kept) = (header.tp_len as usize, header.tp_snaplen as usize);
        Some(Placed { described, start, len, kept, next })
    }

    /// Goes on behind a packet.
    #[inline]
    fn advance(&mut self, placed: &Placed) {
        self.left -= 1;
        if self.left == 0 {
            self.release();
        } else {
            self.packet += placed.next;
        }
    }

    /// Moves packets into `batch`.
    #[inline]
    pub(super) fn rx(&mut self, arena: &mut Arena, batch: &mut RxBatch, counters: &mut Counters) {
        let mut bytes = 0;
        for _ in 0..batch.room() {
            if bytes >= BURST_BYTES {
                break;
            }
            let Some(placed) = self.peek() else { break };
            let Placed { len, kept, start, .. } = placed;
            if len > kept || len > vnet::MAX_PACKET {
                counters.rx_too_long += 1;
            } else {
                match copy_out(arena, self.mapping.bytes(start, kept), &placed.described) {
                    Some(head) => {
                        bytes += len;
                        counters.rx_packets += 1;
                        counters.rx_bytes += u64::from(arena.meta(head).total);
                        let _ = batch.push(head);
                    }
                    None => counters.rx_no_frame += 1,
                }
            }
            self.advance(&placed);
        }
    }

    /// Shows packets where they lie, at most `limit`; returns how many.
    #[inline]
    pub(super) fn visit(
        &mut self,
        limit: usize,
        counters: &mut Counters,
        mut visitor: impl FnMut(Seen<'_>),
    ) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(placed) = self.peek() else { break };
            let described = &placed.described;
            let bytes = self.mapping.bytes(placed.start, placed.kept);
            let tag = described.tag.map(|(tpid, tci)| {
                let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
                [a, b, c, d]
            });
            let tagged = if tag.is_some() { 4 } else { 0 };
            counters.rx_packets += 1;
            counters.rx_bytes += placed.len as u64 + tagged;
            let length = (placed.len as u64 + tagged) as u32;
            visitor(Seen { bytes, tag, length, time: described.time, flags: described.flags });
            self.advance(&placed);
            count += 1;
        }
        count
    }
}

/// A packet in the ring.
struct Placed {
    described: Described,
    /// Where its bytes begin.
    start: usize,
    /// Its bytes on the wire, and those that are here; both without a tag that was taken out.
    len: usize,
    kept: usize,
    /// How far it is to the packet after it in this block.
    next: usize,
}
