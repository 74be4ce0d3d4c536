//! Numbers and layouts of AF_XDP (`include/uapi/linux/if_xdp.h`). They are written out because the
//! headers of a machine are often older than its kernel.

pub(super) const SOL_XDP: i32 = 283;

pub(super) const XDP_MMAP_OFFSETS: i32 = 1;
pub(super) const XDP_RX_RING: i32 = 2;
pub(super) const XDP_TX_RING: i32 = 3;
pub(super) const XDP_UMEM_REG: i32 = 4;
pub(super) const XDP_UMEM_FILL_RING: i32 = 5;
pub(super) const XDP_UMEM_COMPLETION_RING: i32 = 6;
pub(super) const XDP_STATISTICS: i32 = 7;
pub(super) const XDP_OPTIONS: i32 = 8;
/// On newer kernels: packets that one system call sends in copy mode.
pub(super) const XDP_MAX_TX_SKB_BUDGET: i32 = 9;

/// In the answer to `XDP_OPTIONS`: the socket is bound zero-copy.
pub(super) const XDP_OPTIONS_ZEROCOPY: u32 = 1;

pub(super) const XDP_COPY: u16 = 1 << 1;
pub(super) const XDP_ZEROCOPY: u16 = 1 << 2;
pub(super) const XDP_USE_NEED_WAKEUP: u16 = 1 << 3;

pub(super) const XDP_RING_NEED_WAKEUP: u32 = 1;

pub(super) const XDP_PGOFF_RX_RING: i64 = 0;
pub(super) const XDP_PGOFF_TX_RING: i64 = 0x8000_0000;
pub(super) const XDP_UMEM_PGOFF_FILL_RING: i64 = 0x1_0000_0000;
pub(super) const XDP_UMEM_PGOFF_COMPLETION_RING: i64 = 0x1_8000_0000;

/// Bytes that the kernel leaves before a received packet (`XDP_PACKET_HEADROOM`).
pub(super) const XDP_PACKET_HEADROOM: usize = 256;
/// Packets that one system call sends in copy mode where the kernel has no option for it.
pub(super) const TX_BATCH_SIZE: u32 = 32;

pub(super) const SO_BUSY_POLL: i32 = 46;
pub(super) const SO_PREFER_BUSY_POLL: i32 = 69;
pub(super) const SO_BUSY_POLL_BUDGET: i32 = 70;

/// `struct sockaddr_xdp`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Address {
    pub family: u16,
    pub flags: u16,
    pub ifindex: u32,
    pub queue: u32,
    pub shared_umem_fd: u32,
}

/// `struct xdp_umem_reg`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct UmemRegistration {
    pub address: u64,
    pub len: u64,
    pub chunk_size: u32,
    pub headroom: u32,
    pub flags: u32,
    pub tx_metadata_len: u32,
}

/// `struct xdp_ring_offset`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct RingOffsets {
    pub producer: u64,
    pub consumer: u64,
    pub slots: u64,
    pub flags: u64,
}

/// `struct xdp_mmap_offsets`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Offsets {
    pub rx: RingOffsets,
    pub tx: RingOffsets,
    pub fill: RingOffsets,
    pub completion: RingOffsets,
}

/// `struct xdp_desc`: one entry of a receive or a transmit ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub options: u32,
}

/// `struct xdp_statistics`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KernelStatistics {
    pub rx_dropped: u64,
    pub rx_invalid_descs: u64,
    pub tx_invalid_descs: u64,
    pub rx_ring_full: u64,
    pub rx_fill_ring_empty_descs: u64,
    pub tx_ring_empty_descs: u64,
}

/// What a socket option of AF_XDP carries: integers in C's layout.
///
/// # Safety
/// The type is `repr(C)` or an integer, has no padding, and any bytes are a value of it.
pub(super) unsafe trait Layout: Copy + Default {}

macro_rules! layouts {
    ($($name:ty: $size:expr),* $(,)?) => {$(
        // SAFETY: integers only; the assertion shows there is no padding.
        unsafe impl Layout for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

layouts! {
    i32: 4,
    u32: 4,
    u64: 8,
    Address: 16,
    UmemRegistration: 32,
    Offsets: 128,
    Descriptor: 16,
    KernelStatistics: 48,
}
