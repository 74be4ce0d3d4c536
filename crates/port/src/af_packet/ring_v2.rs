//! A `TPACKET_V2` receive ring: a slot for each packet, handed over as soon as it is written.
//!
//! Slots have 2 KiB, so that small packets, of which there are many, take little memory. A packet
//! that is longer (a super-segment) has its description in a slot, in its order, but its bytes in
//! the socket's receive queue (`PACKET_COPY_THRESH`); they are read from there straight into
//! frames, all those of a burst with one recvmmsg(2). So neither kind is copied more often than it
//! must be: short ones need no system call, and long ones do not go through the ring.

use core::sync::atomic::{AtomicU32, Ordering};
use std::io;

use millrace_frames::{Arena, BURST, Frame, Owners, RxBatch};

use super::Counters;
use super::ring::{Described, Mapping, copy_out};
use super::socket::Socket;
use crate::vnet::{self, Header};

const SLOT: usize = 2048;
/// The unit in which the kernel allocates.
const BLOCK: usize = 64 << 10;
/// Bytes of the largest ring.
pub(super) const MOST_BYTES: usize = 1 << 30;

/// A burst ends with the packet that makes it this long: what is copied now should still be in the
/// processor's cache when the stack looks at it.
pub(super) const BURST_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct RingV2 {
    mapping: Mapping,
    slots: usize,
    /// The slot that the kernel hands over next.
    next: usize,
    queued: Queued,
}

impl RingV2 {
    /// Sets the socket's ring up with about `bytes` of memory.
    pub(super) fn new(socket: &Socket, bytes: usize) -> io::Result<RingV2> {
        let blocks = (bytes / BLOCK).clamp(1, MOST_BYTES / BLOCK);
        let slots = blocks * (BLOCK / SLOT);
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: SLOT as u32,
            tp_frame_nr: slots as u32,
        };
        socket.set(
            libc::PACKET_VERSION,
            libc::tpacket_versions::TPACKET_V2 as i32,
            "use TPACKET_V2",
        )?;
        socket.set(libc::PACKET_VNET_HDR, 1i32, "use PACKET_VNET_HDR")?;
        socket.set(libc::PACKET_COPY_THRESH, 1i32, "use PACKET_COPY_THRESH")?;
        socket.set(libc::PACKET_RX_RING, request, "set a receive ring up")?;
        let mapping = Mapping::new(socket, blocks * BLOCK)?;
        Ok(RingV2 { mapping, slots, next: 0, queued: Queued::new() })
    }

    #[inline]
    fn status(&self) -> &AtomicU32 {
        // SAFETY: every slot starts with the status word, aligned to 16 bytes, which the kernel
        // and this program pass to and fro.
        unsafe { AtomicU32::from_ptr(self.mapping.at(self.next * SLOT).cast()) }
    }

    /// Whether a packet waits.
    #[inline]
    pub(super) fn is_readable(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Gives the slot back to the kernel.
    #[inline]
    fn release(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next += 1;
        if self.next == self.slots {
            self.next = 0;
        }
    }

    /// Moves packets into `batch`.
    #[inline]
    pub(super) fn rx(
        &mut self,
        socket: &Socket,
        arena: &mut Arena,
        batch: &mut RxBatch,
        counters: &mut Counters,
    ) {
        // Places are kept for packets whose bytes are still to come.
        let mut heads = RxBatch::new();
        let mut bytes = 0;
        for _ in 0..batch.room() {
            let status = self.status().load(Ordering::Acquire);
            if status & libc::TP_STATUS_USER == 0 || bytes >= BURST_BYTES {
                break;
            }
            let start = self.next * SLOT;
            // SAFETY: the slot is ours until its status is given back, and starts with this header.
            let header = unsafe { self.mapping.at(start).cast::<libc::tpacket2_hdr>().read() };
            let (mac, len) = (usize::from(header.tp_mac), header.tp_len as usize);
            let kept = (header.tp_snaplen as usize).min(SLOT.saturating_sub(mac));
            let described = Described {
                vnet: read_vnet(&self.mapping, start + mac),
                tag: Described::tag(status, header.tp_vlan_tci, header.tp_vlan_tpid),
                time: u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec),
                flags: Described::flags::<libc::tpacket2_hdr>(&self.mapping, start, status),
            };
            bytes += len;
            if status & libc::TP_STATUS_COPY != 0 {
                let head = if len > vnet::MAX_PACKET {
                    counters.rx_too_long += 1;
                    None
                } else {
                    let head = vnet::allocate_chain(arena, described.offset(), len);
                    counters.rx_no_frame += u64::from(head.is_none());
                    head
                };
                let place = heads.len();
                let _ = heads.push(head.unwrap_or_default());
                self.queued.expect(arena, place, head, described);
            } else if len > kept {
                // Too long for the slot, and the socket's queue had no room.
                counters.rx_ring_full += 1;
            } else {
                match copy_out(arena, self.mapping.bytes(start + mac, kept), &described) {
                    Some(head) => _ = heads.push(head),
                    None => counters.rx_no_frame += 1,
                }
            }
            self.release();
        }
        if !self.queued.is_empty() {
            self.queued.receive(socket, arena, &mut heads, counters);
        }
        for head in heads.iter().copied().filter(|head| head.is_some()) {
            counters.rx_packets += 1;
            counters.rx_bytes += u64::from(arena.meta(head).total);
            let _ = batch.push(head);
        }
    }
}

/// The virtio-net header before a packet that starts at `packet` in the ring.
#[inline]
pub(super) fn read_vnet(mapping: &Mapping, packet: usize) -> Header {
    let bytes = mapping.bytes(packet - Header::LEN, Header::LEN);
    // SAFETY: ten bytes of a structure of integers, read without regard to alignment.
    unsafe { bytes.as_ptr().cast::<Header>().read_unaligned() }
}

/// The packets of a burst whose bytes wait in the socket's queue.
struct Queued {
    /// Where the kernel writes each packet's header again; the slot had it already.
    headers: Box<[Header; BURST]>,
    expected: Vec<Expected>,
    pieces: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in `pieces` and `messages` are made and used within one call of `rx`.
unsafe impl Send for Queued {}

#[derive(Clone, Copy)]
struct Expected {
    /// Its place in the burst.
    place: usize,
    /// `None`: it is to be dropped.
    head: Option<Frame>,
    described: Described,
    /// Its first entry in `pieces`.
    piece: usize,
}

impl Queued {
    fn new() -> Queued {
        // A burst ends at BURST_BYTES, so it has at most that and one packet more. Frames have at
        // least 2048 bytes, and a packet has one piece for its header and may begin and end in the
        // middle of a frame.
        let pieces = (BURST_BYTES + vnet::MAX_PACKET) / 2048 + 3 * BURST;
        Queued {
            headers: Box::new([Header::default(); BURST]),
            expected: Vec::with_capacity(BURST),
            pieces: Vec::with_capacity(pieces),
            messages: Vec::with_capacity(BURST),
        }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    /// Prepares for the queue's next packet.
    fn expect(
        &mut self,
        arena: &mut Arena,
        place: usize,
        head: Option<Frame>,
        described: Described,
    ) {
        let piece = self.pieces.len();
        let header = core::ptr::from_mut(&mut self.headers[self.expected.len()]);
        self.pieces.push(libc::iovec { iov_base: header.cast(), iov_len: Header::LEN });
        if let Some(head) = head {
            vnet::scatter(arena, head, &mut self.pieces);
        }
        self.expected.push(Expected { place, head, described, piece });
    }

    /// Reads all that is expected. What does not come whole leaves `Frame::NONE` in its place.
    fn receive(
        &mut self,
        socket: &Socket,
        arena: &mut Arena,
        heads: &mut RxBatch,
        counters: &mut Counters,
    ) {
        for (i, expected) in self.expected.iter().enumerate() {
            let end = self.expected.get(i + 1).map_or(self.pieces.len(), |next| next.piece);
            // SAFETY: msghdr is plain data; all zero is valid.
            let mut message: libc::mmsghdr = unsafe { core::mem::zeroed() };
            message.msg_hdr.msg_iov = &raw mut self.pieces[expected.piece];
            message.msg_hdr.msg_iovlen = (end - expected.piece) as _;
            self.messages.push(message);
        }
        let (mut done, mut failures) = (0, 0);
        while done < self.messages.len() {
            counters.system_calls += 1;
            let rest = &mut self.messages[done..];
            // SAFETY: the messages point into `pieces`, and these into `headers` and into frames
            // that this port owns; nothing of them moves or is freed before the call returns.
            let count = unsafe {
                libc::recvmmsg(
                    socket.fd(),
                    rest.as_mut_ptr(),
                    rest.len() as _,
                    libc::MSG_DONTWAIT as _,
                    core::ptr::null_mut(),
                )
            };
            if count > 0 {
                done += count as usize;
                continue;
            }
            // An error that waits on the socket (the interface went down) comes first, once; the
            // packets are still there.
            failures += 1;
            if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock || failures > 2 {
                break;
            }
            counters.socket_error = true;
        }
        for (i, expected) in self.expected.iter().enumerate() {
            let Some(head) = expected.head else { continue };
            let whole = Header::LEN + arena.meta(head).total as usize;
            if i < done && self.messages[i].msg_len as usize == whole {
                expected.described.complete(arena, head);
            } else {
                arena.release_chain(head, Owners::RECEIVED);
                heads[expected.place] = Frame::NONE;
                counters.rx_ring_full += 1;
            }
        }
        self.expected.clear();
        self.pieces.clear();
        self.messages.clear();
    }
}

impl core::fmt::Debug for Queued {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Queued").field("expected", &self.expected.len()).finish_non_exhaustive()
    }
}
