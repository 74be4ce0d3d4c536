//! What is known of a received packet besides its bytes, as bits of the column `flags`.

use millrace_frames::{ChecksumState, Meta, RxFlags};

/// Fewer bytes are here than were on the wire.
pub const CUT: u16 = 1;
/// This host sent it.
pub const OUTGOING: u16 = 2;
/// The timestamp is the network card's.
pub const HARDWARE_TIME: u16 = 4;
/// Hardware or the kernel found the transport checksum right.
pub const CHECKSUM_VERIFIED: u16 = 8;
/// The sender is on this machine and left the transport checksum unfinished: its field holds the
/// pseudo-header's sum.
pub const CHECKSUM_UNFINISHED: u16 = 16;
/// A super-segment: several segments of TCP or UDP in one, which the wire will have or had apart.
pub const SUPER_SEGMENT: u16 = 32;
/// The port is on a local virtual link and cannot say: a transport checksum field that holds exactly
/// the pseudo-header's sum is an unfinished one.
pub const CHECKSUM_UNSURE: u16 = 64;

/// All of them by name, for Python.
pub const ALL: [(&str, u16); 7] = [
    ("CUT", CUT),
    ("OUTGOING", OUTGOING),
    ("HARDWARE_TIME", HARDWARE_TIME),
    ("CHECKSUM_VERIFIED", CHECKSUM_VERIFIED),
    ("CHECKSUM_UNFINISHED", CHECKSUM_UNFINISHED),
    ("SUPER_SEGMENT", SUPER_SEGMENT),
    ("CHECKSUM_UNSURE", CHECKSUM_UNSURE),
];

/// The flags of a packet whose first frame has this entry.
#[inline]
pub(crate) fn of(meta: &Meta) -> u16 {
    let checksum = match meta.checksum {
        ChecksumState::Verified => CHECKSUM_VERIFIED,
        ChecksumState::Unfinished => CHECKSUM_UNFINISHED,
        ChecksumState::MaybeUnfinished => CHECKSUM_UNSURE,
        ChecksumState::Unknown => 0,
    };
    let when = |set: bool, flag| if set { flag } else { 0 };
    checksum
        | when(meta.rx_flags().contains(RxFlags::CUT), CUT)
        | when(meta.rx_flags().contains(RxFlags::OUTGOING), OUTGOING)
        | when(meta.rx_flags().contains(RxFlags::HARDWARE_TIME), HARDWARE_TIME)
        | when(meta.gso_size != 0, SUPER_SEGMENT)
}
