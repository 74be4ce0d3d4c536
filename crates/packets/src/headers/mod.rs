//! The header table: what the headers of each frame of a batch say, one row a frame.
//!
//! The row's layout is that of a NumPy structured array, so that Python gets the table without a
//! copy; [`FIELDS`] describes it. All fields are numbers, because tables of columns take nothing
//! else.

mod general;
mod hash;
mod parse;
#[cfg(test)]
mod tests;

pub use parse::parse;
pub(crate) use parse::parse_into;

/// A field of [`Header`] as NumPy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type in the array interface, without the byte order: `u4` is an unsigned number of four
    /// bytes, `i8` a signed one of eight, `b1` true or false.
    pub kind: &'static str,
    /// Where in the row it is, in bytes.
    pub offset: usize,
}

trait Kind {
    const KIND: &'static str;
}

macro_rules! kinds {
    ($($type:ty: $kind:literal),*) => {
        $(impl Kind for $type { const KIND: &'static str = $kind; })*
    };
}

kinds!(u8: "u1", u16: "u2", u32: "u4", u64: "u8", i64: "i8", bool: "b1");

/// The structure, and the description of its fields, from one list.
macro_rules! table {
    ($(#[$about:meta])* $row:ident { $($(#[$doc:meta])* $name:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $row { $($(#[$doc])* pub $name: $type,)* }

        /// The fields of a row, in order.
        pub const FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            kind: <$type as Kind>::KIND,
            offset: core::mem::offset_of!($row, $name),
        },)*];
    };
}

table! {
    /// What the headers of one frame say. What a frame has not, is cut off or cannot be read is 0;
    /// numbers are in the machine's byte order.
    Header {
        /// When it arrived, nanoseconds since 1970; that of the batch.
        timestamp: i64,
        /// The sender's hardware address, in the lower 48 bits.
        source_mac: u64,
        /// The receiver's hardware address, in the lower 48 bits.
        destination_mac: u64,
        /// The upper half of the sender's IPv6 address.
        source_ipv6_high: u64,
        /// The lower half.
        source_ipv6_low: u64,
        /// The upper half of the receiver's IPv6 address.
        destination_ipv6_high: u64,
        /// The lower half.
        destination_ipv6_low: u64,
        /// A hash of addresses, protocol and ports, the same for both directions; without the
        /// ports for every fragment. 0 for what is not IP.
        flow_hash: u64,
        /// Bytes of the frame on the wire.
        length: u32,
        /// The sender's IPv4 address; in an ARP packet that of the sender.
        source_ipv4: u32,
        /// The receiver's IPv4 address; in an ARP packet that of the target.
        destination_ipv4: u32,
        /// TCP's sequence number.
        tcp_seq: u32,
        /// TCP's acknowledgement number.
        tcp_ack: u32,
        /// Where the header above IP begins; 0 in fragments but the first.
        l4_offset: u32,
        /// Where the innermost payload begins: that of TCP, UDP or ICMP if their header could be
        /// read, else of the last header that could.
        payload_offset: u32,
        /// Bytes of that payload that are there, without Ethernet's padding.
        payload_length: u32,
        /// EtherType after at most two VLAN tags; a length for IEEE 802.3.
        ether_type: u16,
        /// The number of the outer VLAN.
        vlan: u16,
        /// The number of the inner VLAN.
        inner_vlan: u16,
        /// The sender's port, of TCP and UDP.
        source_port: u16,
        /// The receiver's port, of TCP and UDP.
        destination_port: u16,
        /// TCP's control bits: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128, AE 256.
        tcp_flags: u16,
        /// TCP's window, unscaled.
        tcp_window: u16,
        /// Where what follows Ethernet and its tags begins.
        l3_offset: u16,
        /// How many VLAN tags were read: 0, 1 or 2.
        vlan_tags: u8,
        /// 4 or 6.
        ip_version: u8,
        /// The protocol above IP, past IPv6's extension headers.
        protocol: u8,
        /// IPv4's time to live, IPv6's hop limit.
        ttl: u8,
        /// DSCP and ECN: IPv4's type of service, IPv6's traffic class.
        traffic_class: u8,
        /// The type of ICMP and ICMPv6.
        icmp_type: u8,
        /// The code of ICMP and ICMPv6.
        icmp_code: u8,
        /// Whether this is a fragment of an IP packet, the first one included.
        fragment: bool,
    }
}

/// Bytes of a row.
pub const ROW: usize = size_of::<Header>();

const _: () = assert!(ROW == 120);
