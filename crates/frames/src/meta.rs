//! What is known of a frame besides its bytes.

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

/// A frame's number in its arena.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame(u32);

impl Frame {
    /// No frame: the end of a chain or of a list.
    pub const NONE: Frame = Frame(u32::MAX);

    /// The frame with this number.
    #[inline]
    pub const fn new(index: u32) -> Frame {
        Frame(index)
    }

    /// The number.
    #[inline]
    pub const fn index(self) -> u32 {
        self.0
    }

    /// Whether this is [`Frame::NONE`].
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == u32::MAX
    }

    /// Whether this names a frame.
    #[inline]
    pub const fn is_some(self) -> bool {
        self.0 != u32::MAX
    }

    /// `None` for [`Frame::NONE`].
    #[inline]
    pub const fn get(self) -> Option<Frame> {
        if self.is_none() { None } else { Some(self) }
    }
}

impl Default for Frame {
    fn default() -> Self {
        Frame::NONE
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() { write!(f, "Frame(none)") } else { write!(f, "Frame({})", self.0) }
    }
}

/// Who still needs a frame. It is free when nobody does.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Owners(u8);

impl Owners {
    /// Nobody: the frame is on the free list.
    pub const NONE: Owners = Owners(0);
    /// With the port to be filled: the kernel may write it at any moment, so nobody may look.
    pub const FILL: Owners = Owners(1);
    /// In flight: the port reads it until the transmission is complete.
    pub const TRANSMIT: Owners = Owners(2);
    /// In a receive queue: waits for the stack or for the application.
    pub const RECEIVED: Owners = Owners(4);
    /// Sent or to be sent, and not yet acknowledged by the peer.
    pub const UNACKED: Owners = Owners(8);
    /// Set aside for a reader outside the turn (see [`crate::Held`]): nobody may write it.
    pub const HELD: Owners = Owners(16);

    /// Whether every owner in `other` is in `self`.
    #[inline]
    pub const fn contains(self, other: Owners) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any owner in `other` is in `self`.
    #[inline]
    pub const fn intersects(self, other: Owners) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether nobody owns the frame.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) const fn without(self, other: Owners) -> Owners {
        Owners(self.0 & !other.0)
    }
}

impl BitOr for Owners {
    type Output = Owners;
    #[inline]
    fn bitor(self, rhs: Owners) -> Owners {
        Owners(self.0 | rhs.0)
    }
}

impl BitOrAssign for Owners {
    #[inline]
    fn bitor_assign(&mut self, rhs: Owners) {
        self.0 |= rhs.0;
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Owners::FILL, "fill"),
            (Owners::TRANSMIT, "transmit"),
            (Owners::RECEIVED, "received"),
            (Owners::UNACKED, "unacked"),
            (Owners::HELD, "held"),
        ];
        let mut set = f.debug_set();
        for (owner, name) in names {
            if self.contains(owner) {
                set.entry(&format_args!("{name}"));
            }
        }
        set.finish()
    }
}

/// What the port knows of a received packet's transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum ChecksumState {
    /// Nothing: the stack must verify it.
    #[default]
    Unknown,
    /// Hardware or the kernel found it right.
    Verified,
    /// The sender is on this machine and left it unfinished (`CHECKSUM_PARTIAL`,
    /// `VIRTIO_NET_HDR_F_NEEDS_CSUM`): there was no wire to damage the packet, so none is due.
    Unfinished,
    /// The port is a local virtual link that does not say: a field that holds exactly the
    /// pseudo-header's sum is an unfinished one, and anything else must verify.
    MaybeUnfinished,
}

/// What a port says of a received packet besides its bytes, kept in the chain's first frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RxFlags(u8);

impl RxFlags {
    /// Nothing.
    pub const NONE: RxFlags = RxFlags(0);
    /// Only the first bytes of the packet are here; [`Meta::mark`] is its length on the wire.
    pub const CUT: RxFlags = RxFlags(1);
    /// This host sent it; it was seen on its way out.
    pub const OUTGOING: RxFlags = RxFlags(2);
    /// The timestamp is the network card's.
    pub const HARDWARE_TIME: RxFlags = RxFlags(4);

    /// Whether every flag in `other` is in `self`.
    #[inline]
    pub const fn contains(self, other: RxFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// `other` as well, if `set`.
    #[inline]
    pub const fn with(self, other: RxFlags, set: bool) -> RxFlags {
        RxFlags(if set { self.0 | other.0 } else { self.0 })
    }
}

/// A frame's entry. Two of them share a cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Meta {
    /// When it arrived, nanoseconds of the port's clock; 0 where the port does not know.
    pub timestamp: u64,
    /// The frame after this one in a chain or in a queue.
    pub next: Frame,
    /// Free for the owner: TCP keeps the sequence number of the first byte here. A port says the
    /// length on the wire of a packet that is [`RxFlags::CUT`].
    pub mark: u32,
    /// Bytes of the whole chain, kept in its first frame.
    pub total: u32,
    /// Where the bytes start, from the frame's first byte. What lies before is head room.
    pub offset: u16,
    /// Bytes in this frame.
    pub len: u16,
    /// Cached one's-complement sum of the bytes (big-endian words, folded, not inverted). A packet
    /// that was received and that nobody sums has its [`RxFlags`] and its queue here.
    pub sum: u16,
    /// Payload bytes of each segment when the packet is a super-segment, else 0.
    pub gso_size: u16,
    /// Checksum knowledge of a received packet, kept in the chain's first frame.
    pub checksum: ChecksumState,
    /// A record that is to be sent ends here: what follows leaves in a segment of its own.
    pub record_end: bool,
    /// A write that is to be sent ends here, too, and nothing was added to it...
    pub write_end: bool,
    /// ...and nobody said that more follows.
    pub pushed: bool,
}

impl Meta {
    /// What else the port said of a received packet.
    #[inline]
    pub const fn rx_flags(&self) -> RxFlags {
        RxFlags(self.sum as u8)
    }

    /// Says something else of a received packet.
    #[inline]
    pub const fn set_rx_flags(&mut self, flags: RxFlags) {
        self.sum = self.sum & 0xff00 | flags.0 as u16;
    }

    /// The receive queue that the port said a packet came from; 255 is any from there on.
    #[inline]
    pub const fn rx_queue(&self) -> u8 {
        (self.sum >> 8) as u8
    }

    /// Says which receive queue a packet came from.
    #[inline]
    pub const fn set_rx_queue(&mut self, queue: u32) {
        let queue = if queue > 255 { 255 } else { queue as u16 };
        self.sum = self.sum & 0x00ff | queue << 8;
    }
}

const _: () = assert!(core::mem::size_of::<Meta>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_queue_of_a_received_packet_do_not_touch() {
        let mut meta = Meta::default();
        meta.set_rx_queue(7);
        meta.set_rx_flags(RxFlags::CUT.with(RxFlags::OUTGOING, true));
        assert!(meta.rx_flags().contains(RxFlags::OUTGOING));
        assert!(!meta.rx_flags().contains(RxFlags::HARDWARE_TIME));
        assert_eq!(meta.rx_queue(), 7);
        meta.set_rx_queue(1000);
        assert_eq!((meta.rx_queue(), meta.rx_flags().contains(RxFlags::CUT)), (255, true));
    }
}
