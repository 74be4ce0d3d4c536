//! An address with the length of its network's prefix, as people write it.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::str::FromStr;
use std::io;

use millrace_stack::InterfaceAddress;

/// An address of a channel's own, `192.0.2.2/24` or `2001:db8::2/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits of the network's prefix.
    pub prefix: u8,
}

impl Address {
    /// Whether another address is in the same network.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.ip, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = mask(self.prefix);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = mask_v6(self.prefix);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }

    /// An address that a host may have: not a network's own number, nor its broadcast address.
    fn check(self, text: &str) -> io::Result<Address> {
        let wrong = |why: &str| {
            let text = format!("{text} is no address for a channel: {why}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        let ip = match self.ip {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(ip) => {
                let host = ip.to_bits() & !mask_v6(self.prefix);
                return match self.prefix {
                    129.. => wrong("a prefix has at most 128 bits"),
                    _ if ip.is_multicast() || ip.to_bits() >> 64 == 0 => {
                        wrong("it names no single host on a wire")
                    }
                    // RFC 4291 §2.6.1.
                    ..127 if host == 0 => wrong("it is any router of its network"),
                    _ => Ok(self),
                };
            }
        };
        if self.prefix > 32 {
            return wrong("a prefix has at most 32 bits");
        }
        if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() {
            return wrong("it names no single host on a wire");
        }
        let host = ip.to_bits() & !mask(self.prefix);
        if self.prefix < 31 && (host == 0 || host == !mask(self.prefix)) {
            return wrong("it is the number or the broadcast address of its network");
        }
        Ok(self)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

impl FromStr for Address {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Address> {
        let wrong = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{text:?} is no address with a prefix; write it as 192.0.2.2/24 or \
                     2001:db8::2/64"
                ),
            )
        };
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        Address { ip, prefix }.check(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl From<Address> for InterfaceAddress {
    fn from(address: Address) -> InterfaceAddress {
        InterfaceAddress { address: address.ip, prefix: address.prefix }
    }
}

impl From<(Ipv4Addr, u8)> for Address {
    fn from((ip, prefix): (Ipv4Addr, u8)) -> Address {
        Address { ip: ip.into(), prefix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_shown_again() {
        for text in [
            "192.0.2.2/24",
            "10.0.0.0/31",
            "10.0.0.1/32",
            "10.1.2.3/8",
            "2001:db8::1/64",
            "2001:db8::/127",
            "fe80::1/64",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_no_host_may_have_is_refused_and_named() {
        for text in [
            "192.0.2.2",
            "192.0.2.2/33",
            "192.0.2/24",
            "192.0.2.0/24",
            "192.0.2.255/24",
            "0.0.0.0/0",
            "127.0.0.1/8",
            "224.0.0.1/4",
            "2001:db8::/64",
            "2001:db8::1/129",
            "::1/128",
            "::/0",
            "::ffff:192.0.2.2/120",
            "ff02::1/64",
            "/24",
            "",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn a_network_contains_its_hosts_only() {
        let address: Address = "192.0.2.2/24".parse().unwrap();
        assert!(address.contains("192.0.2.254".parse().unwrap()));
        assert!(!address.contains("192.0.3.2".parse().unwrap()));
        let all: Address = "10.0.0.1/0".parse().unwrap();
        assert!(all.contains("203.0.113.9".parse().unwrap()));
    }
}
