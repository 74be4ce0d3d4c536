//! Address Resolution Protocol for IPv4 on Ethernet (RFC 826).

use core::net::Ipv4Addr;

use crate::ether::EtherType;
use crate::{Mac, Malformed};

/// Length of an ARP packet for IPv4 on Ethernet.
pub const LEN: usize = 28;

const HARDWARE_ETHERNET: u16 = 1;

/// What an ARP packet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who has the target's IP address?
    Request,
    /// The sender has this IP address at this Ethernet address.
    Reply,
    /// An operation that RFC 826 does not define, by its number.
    Other(u16),
}

impl From<u16> for Operation {
    #[inline]
    fn from(number: u16) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Reply,
            other => Self::Other(other),
        }
    }
}

impl From<Operation> for u16 {
    #[inline]
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Request => 1,
            Operation::Reply => 2,
            Operation::Other(number) => number,
        }
    }
}

/// A view of an ARP packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    bytes: &'a [u8; LEN],
}

impl<'a> Packet<'a> {
    /// Checks that this is ARP for IPv4 on Ethernet. What follows the packet is padding and is
    /// ignored.
    ///
    /// # Errors
    /// [`Malformed::Truncated`], or [`Malformed::Hardware`] for other hardware, another protocol
    /// or lengths that are not theirs.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let bytes: &[u8; LEN] = bytes.first_chunk().ok_or(Malformed::Truncated)?;
        if bytes[..6] != PREFIX {
            return Err(Malformed::Hardware);
        }
        Ok(Self { bytes })
    }

    /// What the packet wants.
    #[inline]
    pub fn operation(&self) -> Operation {
        u16::from_be_bytes([self.bytes[6], self.bytes[7]]).into()
    }

    /// The sender's Ethernet address.
    #[inline]
    pub fn sender_mac(&self) -> Mac {
        self.mac::<8>()
    }

    /// The sender's IP address; 0.0.0.0 in a probe (RFC 5227).
    #[inline]
    pub fn sender_ip(&self) -> Ipv4Addr {
        self.ip::<14>()
    }

    /// The target's Ethernet address; without meaning in a request.
    #[inline]
    pub fn target_mac(&self) -> Mac {
        self.mac::<18>()
    }

    /// The target's IP address.
    #[inline]
    pub fn target_ip(&self) -> Ipv4Addr {
        self.ip::<24>()
    }

    #[inline]
    fn mac<const AT: usize>(&self) -> Mac {
        let b = self.bytes;
        Mac([b[AT], b[AT + 1], b[AT + 2], b[AT + 3], b[AT + 4], b[AT + 5]])
    }

    #[inline]
    fn ip<const AT: usize>(&self) -> Ipv4Addr {
        let b = self.bytes;
        Ipv4Addr::new(b[AT], b[AT + 1], b[AT + 2], b[AT + 3])
    }
}

/// Hardware type, protocol type and the lengths of their addresses.
const PREFIX: [u8; 6] = {
    let [h0, h1] = HARDWARE_ETHERNET.to_be_bytes();
    let [p0, p1] = EtherType::IPV4.to_be_bytes();
    [h0, h1, p0, p1, 6, 4]
};

/// Writes an ARP packet at the start of `buf`.
///
/// # Panics
/// If `buf` is shorter than [`LEN`].
#[inline]
pub fn emit(
    buf: &mut [u8],
    operation: Operation,
    sender_mac: Mac,
    sender_ip: Ipv4Addr,
    target_mac: Mac,
    target_ip: Ipv4Addr,
) {
    let packet: &mut [u8; LEN] = buf.first_chunk_mut().expect("room for an ARP packet");
    packet[..6].copy_from_slice(&PREFIX);
    packet[6..8].copy_from_slice(&u16::from(operation).to_be_bytes());
    packet[8..14].copy_from_slice(&sender_mac.0);
    packet[14..18].copy_from_slice(&sender_ip.octets());
    packet[18..24].copy_from_slice(&target_mac.0);
    packet[24..].copy_from_slice(&target_ip.octets());
}
