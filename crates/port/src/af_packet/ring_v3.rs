//! A `TPACKET_V3` receive ring: large blocks that packets of any size fill without gaps, handed
//! over when full or after a time of at least one millisecond.

use core::sync::atomic::{AtomicU32, Ordering};
use std::io;

use millrace_frames::{Arena, RxBatch};

use super::Counters;
use super::ring::{Described, Mapping, copy_out};
use super::ring_v2::{BURST_BYTES, read_vnet};
use super::socket::Socket;
use crate::vnet;

/// Many super-segments of 64 KiB, so that little is left over at a block's end.
const BLOCK: usize = 1 << 20;
/// Milliseconds after which a block that is not full is handed over: the shortest there is.
const RETIRE_MS: u32 = 1;

/// Where a block says whose it is, how many packets it has, and where the first is
/// (`struct tpacket_block_desc`).
const BLOCK_STATUS: usize = 8;
const BLOCK_PACKETS: usize = 12;
const BLOCK_FIRST: usize = 16;

#[derive(Debug)]
pub(super) struct RingV3 {
    mapping: Mapping,
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
    pub(super) fn new(socket: &Socket, bytes: usize) -> io::Result<RingV3> {
        let blocks = (bytes / BLOCK).clamp(2, 1 << 10);
        let frame = 2048;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK as u32,
            tp_block_nr: blocks as u32,
            // The kernel only checks that these two agree.
            tp_frame_size: frame,
            tp_frame_nr: (blocks * BLOCK) as u32 / frame,
            tp_retire_blk_tov: RETIRE_MS,
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
        let mapping = Mapping::new(socket, blocks * BLOCK)?;
        Ok(RingV3 { mapping, blocks, block: 0, left: 0, packet: 0 })
    }

    #[inline]
    fn status(&self) -> &AtomicU32 {
        // SAFETY: a block's status word is aligned, and the kernel and this program pass it to and
        // fro.
        unsafe { AtomicU32::from_ptr(self.mapping.at(self.block * BLOCK + BLOCK_STATUS).cast()) }
    }

    #[inline]
    fn word(&self, offset: usize) -> u32 {
        let bytes = self.mapping.bytes(self.block * BLOCK + offset, 4);
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
            self.packet = self.block * BLOCK + self.word(BLOCK_FIRST) as usize;
            if self.left > 0 {
                return true;
            }
            self.release();
        }
        false
    }

    /// Moves packets into `batch`.
    #[inline]
    pub(super) fn rx(&mut self, arena: &mut Arena, batch: &mut RxBatch, counters: &mut Counters) {
        let mut bytes = 0;
        for _ in 0..batch.room() {
            if bytes >= BURST_BYTES || (self.left == 0 && !self.open_block()) {
                break;
            }
            let header = self.mapping.bytes(self.packet, size_of::<libc::tpacket3_hdr>());
            // SAFETY: the bytes are those of the header, a structure of integers.
            let header = unsafe { header.as_ptr().cast::<libc::tpacket3_hdr>().read_unaligned() };
            let start = self.packet + usize::from(header.tp_mac);
            let (len, kept) = (header.tp_len as usize, header.tp_snaplen as usize);
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
            if len > kept || len > vnet::MAX_PACKET {
                counters.rx_too_long += 1;
            } else {
                match copy_out(arena, self.mapping.bytes(start, kept), &described) {
                    Some(head) => {
                        bytes += len;
                        counters.rx_packets += 1;
                        counters.rx_bytes += u64::from(arena.meta(head).total);
                        let _ = batch.push(head);
                    }
                    None => counters.rx_no_frame += 1,
                }
            }
            self.left -= 1;
            if self.left == 0 {
                self.release();
            } else {
                self.packet += header.tp_next_offset as usize;
            }
        }
    }
}
