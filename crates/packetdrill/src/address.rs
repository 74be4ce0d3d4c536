//! Socket addresses between C's form and Rust's.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::errno::{Errno, Result};

/// What a `sockaddr` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `AF_INET` or `AF_INET6`; IPv4-mapped IPv6 addresses (RFC 4291 §2.5.5.2) are IPv4's.
    Internet(SocketAddr),
    /// `AF_UNSPEC`.
    Unspecified,
}

/// Reads a `sockaddr`.
///
/// # Errors
/// `EINVAL` when it is cut short, `EAFNOSUPPORT` for other families.
pub(crate) fn parse(bytes: &[u8]) -> Result<Address> {
    let family = match bytes {
        [a, b, ..] => i32::from(u16::from_ne_bytes([*a, *b])),
        _ => return Err(Errno(libc::EINVAL)),
    };
    match family {
        libc::AF_UNSPEC => Ok(Address::Unspecified),
        libc::AF_INET => {
            let fields: &[u8; 8] = bytes.first_chunk().ok_or(Errno(libc::EINVAL))?;
            let [_, _, p, q, a, b, c, d] = *fields;
            let address = Ipv4Addr::new(a, b, c, d);
            Ok(Address::Internet(SocketAddr::new(address.into(), u16::from_be_bytes([p, q]))))
        }
        libc::AF_INET6 => {
            let fields: &[u8; 24] = bytes.first_chunk().ok_or(Errno(libc::EINVAL))?;
            let mut octets = [0; 16];
            octets.copy_from_slice(&fields[8..24]);
            let address = Ipv6Addr::from(octets);
            let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
            let port = u16::from_be_bytes([fields[2], fields[3]]);
            Ok(Address::Internet(SocketAddr::new(address, port)))
        }
        _ => Err(Errno(libc::EAFNOSUPPORT)),
    }
}

/// The `sockaddr` of an address, as a socket of the family shows it.
pub(crate) fn write(address: SocketAddr, v6: bool) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(v4) if !v6 => {
            let mut bytes = vec![0; size_of::<libc::sockaddr_in>()];
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[2..4].copy_from_slice(&port);
            bytes[4..8].copy_from_slice(&v4.octets());
            bytes
        }
        ip => {
            let v6 = match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            let mut bytes = vec![0; size_of::<libc::sockaddr_in6>()];
            bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes[2..4].copy_from_slice(&port);
            bytes[8..24].copy_from_slice(&v6.octets());
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        for (text, v6) in [("192.0.2.1:80", false), ("[2001:db8::1]:443", true)] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(parse(&write(address, v6)), Ok(Address::Internet(address)));
        }
    }

    #[test]
    fn a_mapped_address_is_ipv4s() {
        let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let bytes = write(address, true);
        assert_eq!(bytes.len(), size_of::<libc::sockaddr_in6>());
        assert_eq!(parse(&bytes), Ok(Address::Internet(address)));
    }

    #[test]
    fn short_and_foreign_ones_are_refused() {
        assert_eq!(parse(&[]), Err(Errno(libc::EINVAL)));
        let bytes = write("192.0.2.1:80".parse().unwrap(), false);
        assert_eq!(parse(&bytes[..7]), Err(Errno(libc::EINVAL)));
        assert_eq!(parse(&[1, 0, 0, 0]), Err(Errno(libc::EAFNOSUPPORT)));
        assert_eq!(parse(&[0, 0]), Ok(Address::Unspecified));
    }
}
