//! Numbers of the protocols above IP, as in IPv4's `protocol` and IPv6's `next header` field.

/// Internet Control Message Protocol for IPv4 (RFC 792).
pub const ICMP: u8 = 1;
/// Internet Group Management Protocol (RFC 3376).
pub const IGMP: u8 = 2;
/// Transmission Control Protocol (RFC 9293).
pub const TCP: u8 = 6;
/// User Datagram Protocol (RFC 768).
pub const UDP: u8 = 17;
/// Internet Control Message Protocol for IPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
