//! What the reader and the writer both know of the two formats.
//!
//! pcap: draft-ietf-opsawg-pcap. pcapng: draft-ietf-opsawg-pcapng. Link types: the registry of
//! draft-ietf-opsawg-pcaplinktype.

/// Most bytes of one packet, as in libpcap (`MAXIMUM_SNAPLEN`). What claims more is damaged.
pub(super) const LARGEST_PACKET: u32 = 262_144;

/// `LINKTYPE_ETHERNET`.
pub(super) const ETHERNET: u16 = 1;

pub(super) const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
pub(super) const MAGIC_NANOS: u32 = 0xa1b2_3c4d;

/// Section header block; the same in both byte orders.
pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
pub(super) const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
pub(super) const INTERFACE_DESCRIPTION: u32 = 1;
/// The packet block that the enhanced one replaced.
pub(super) const OLD_PACKET: u32 = 2;
pub(super) const SIMPLE_PACKET: u32 = 3;
pub(super) const INTERFACE_STATISTICS: u32 = 5;
pub(super) const ENHANCED_PACKET: u32 = 6;

pub(super) const OPTION_END: u16 = 0;
pub(super) const SHB_USERAPPL: u16 = 4;
pub(super) const IF_NAME: u16 = 2;
pub(super) const IF_DESCRIPTION: u16 = 3;
pub(super) const IF_TSRESOL: u16 = 9;
pub(super) const IF_FILTER: u16 = 11;
pub(super) const IF_OS: u16 = 12;
pub(super) const IF_TSOFFSET: u16 = 14;
pub(super) const EPB_FLAGS: u16 = 2;
pub(super) const ISB_STARTTIME: u16 = 2;
pub(super) const ISB_ENDTIME: u16 = 3;
pub(super) const ISB_IFRECV: u16 = 4;
pub(super) const ISB_IFDROP: u16 = 5;
pub(super) const ISB_FILTERACCEPT: u16 = 6;
pub(super) const ISB_OSDROP: u16 = 7;
pub(super) const ISB_USRDELIV: u16 = 8;

/// The order of a file's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant byte first.
    #[default]
    Little,
    /// Most significant byte first.
    Big,
}

impl ByteOrder {
    pub(super) fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            ByteOrder::Little => u16::from_le_bytes(bytes),
            ByteOrder::Big => u16::from_be_bytes(bytes),
        }
    }

    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        }
    }

    pub(super) fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            ByteOrder::Little => u64::from_le_bytes(bytes),
            ByteOrder::Big => u64::from_be_bytes(bytes),
        }
    }

    pub(super) fn put_u16(self, to: &mut Vec<u8>, value: u16) {
        to.extend_from_slice(&match self {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        });
    }

    pub(super) fn put_u32(self, to: &mut Vec<u8>, value: u32) {
        to.extend_from_slice(&match self {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        });
    }

    pub(super) fn put_u64(self, to: &mut Vec<u8>, value: u64) {
        to.extend_from_slice(&match self {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        });
    }
}

/// A link type by the name of its registry, where it is one that is met in practice.
pub(super) fn link_type_name(link_type: u16) -> &'static str {
    match link_type {
        0 => "NULL (BSD loopback)",
        1 => "ETHERNET",
        6 => "IEEE802_5 (token ring)",
        9 => "PPP",
        50 => "PPP_HDLC",
        51 => "PPP_ETHER",
        101 => "RAW (IP without a link header)",
        104 => "C_HDLC",
        105 => "IEEE802_11",
        108 => "LOOP (OpenBSD loopback)",
        113 => "LINUX_SLL (Linux cooked capture, as of the interface any)",
        127 => "IEEE802_11_RADIOTAP",
        147..=162 => "USER (private use)",
        187 => "BLUETOOTH_HCI_H4",
        189 => "USB_LINUX",
        192 => "PPI",
        201 => "BLUETOOTH_HCI_H4_WITH_PHDR",
        220 => "USB_LINUX_MMAPPED",
        228 => "IPV4 (without a link header)",
        229 => "IPV6 (without a link header)",
        239 => "NFLOG",
        253 => "NETLINK",
        276 => "LINUX_SLL2 (Linux cooked capture, as of the interface any)",
        _ => "one that has no name here",
    }
}
