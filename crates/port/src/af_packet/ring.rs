//! What the receive rings have in common: the mapping, and how a packet leaves it.

use core::ptr::NonNull;
use std::io;

use millrace_frames::{Arena, Frame, Meta, Owners, RxFlags};

use super::socket::Socket;
use crate::vnet::{self, RX_OFFSET};

/// Ring memory, shared with the kernel.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: plain shared memory without thread affinity, used by the one owner of the port.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the socket's ring, which has been set up with `len` bytes.
    pub(super) fn new(socket: &Socket, len: usize) -> io::Result<Mapping> {
        // SAFETY: a mapping at an address of the kernel's choice touches nothing existing.
        let address = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.fd(),
                0,
            )
        };
        let base = NonNull::new(address.cast()).filter(|_| address != libc::MAP_FAILED);
        base.map(|base| Mapping { base, len }).ok_or_else(|| {
            let error = io::Error::last_os_error();
            let text = format!("{}: cannot map a ring of {len} bytes: {error}", socket.interface());
            io::Error::new(error.kind(), text)
        })
    }

    /// The address of byte `offset`.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.len);
        // SAFETY: within the mapping, as asserted.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Bytes `start..start + len`, which the kernel must have handed over.
    #[inline]
    pub(super) fn bytes(&self, start: usize, len: usize) -> &[u8] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: within the mapping, as asserted. The kernel does not write what it has handed
        // over before its status is given back, which takes `&mut` of the ring around this.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr().add(start), len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once; no slice of it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Where in a `sockaddr_ll` the packet's type is.
const PACKET_TYPE: usize = core::mem::offset_of!(libc::sockaddr_ll, sll_pkttype);

/// What a ring says of a packet besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Described {
    /// The virtio-net header.
    pub vnet: vnet::Header,
    /// Identifier and control information of a VLAN tag that the kernel took out.
    pub tag: Option<(u16, u16)>,
    /// When it arrived, nanoseconds of `CLOCK_REALTIME`.
    pub time: u64,
    /// What else is known of it.
    pub flags: RxFlags,
}

impl Described {
    /// The tag as the `status` and the two fields of a ring header give it.
    #[inline]
    pub(super) fn tag(status: u32, tci: u16, tpid: u16) -> Option<(u16, u16)> {
        if status & libc::TP_STATUS_VLAN_VALID == 0 {
            return None;
        }
        let named = status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
        Some((if named { tpid } else { libc::ETH_P_8021Q as u16 }, tci))
    }

    /// The flags of a packet whose ring header of `H` is at `start`.
    #[inline]
    pub(super) fn flags<H>(mapping: &Mapping, start: usize, status: u32) -> RxFlags {
        // A sockaddr_ll comes behind the header, at a multiple of 16 bytes.
        let kind = size_of::<H>().next_multiple_of(16) + PACKET_TYPE;
        let kind = mapping.bytes(start + kind, 1)[0];
        RxFlags::NONE
            .with(RxFlags::OUTGOING, kind == libc::PACKET_OUTGOING)
            .with(RxFlags::HARDWARE_TIME, status & libc::TP_STATUS_TS_RAW_HARDWARE != 0)
    }

    /// Where the packet's bytes begin in its first frame, so that a tag still fits before them.
    #[inline]
    pub(super) fn offset(&self) -> usize {
        if self.tag.is_some() { RX_OFFSET + 4 } else { RX_OFFSET }
    }

    /// Completes the meta data of a chain that has the packet's bytes.
    #[inline]
    pub(super) fn complete(&self, arena: &mut Arena, head: Frame) {
        if let Some((tpid, tci)) = self.tag {
            vnet::insert_tag(arena, head, tpid, tci);
        }
        let meta = arena.meta_mut(head);
        meta.timestamp = self.time;
        meta.set_rx_flags(self.flags);
        meta.checksum = self.vnet.checksum();
        meta.gso_size = self.vnet.segment();
    }
}

/// Copies a packet out of a ring into frames and completes it. `None`: too few are free.
#[inline]
pub(super) fn copy_out(arena: &mut Arena, packet: &[u8], described: &Described) -> Option<Frame> {
    let offset = described.offset();
    let head = if offset + packet.len() <= arena.frame_size() {
        let frame = arena.allocate(Owners::RECEIVED)?;
        arena.room_mut(frame)[offset..offset + packet.len()].copy_from_slice(packet);
        *arena.meta_mut(frame) = Meta {
            offset: offset as u16,
            len: packet.len() as u16,
            total: packet.len() as u32,
            ..Meta::default()
        };
        frame
    } else {
        let head = vnet::allocate_chain(arena, offset, packet.len())?;
        let (mut frame, mut rest) = (head, packet);
        while frame.is_some() {
            let bytes = arena.bytes_mut(frame);
            let (here, after) = rest.split_at(bytes.len());
            bytes.copy_from_slice(here);
            rest = after;
            frame = arena.meta(frame).next;
        }
        head
    };
    described.complete(arena, head);
    Some(head)
}
