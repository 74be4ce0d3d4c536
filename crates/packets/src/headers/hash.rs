//! The hash that groups packets by their flow.
//!
//! Two folded multiplications of what both ends of the flow say, in an order that does not depend
//! on who sent. It is the same in every run, so that tables can be compared and stored; who
//! chooses his addresses can therefore make flows that collide, which makes two flows one in a
//! table and does nothing else. The stack's own table has a secret key.

use super::Header;

const SEEDS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03, 0xa0761d6478bd642f];

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The hash of a row whose addresses, ports and protocol are set. Never 0.
#[inline]
pub(super) fn flow(header: &Header) -> u64 {
    let (from, to) = match header.fragment {
        false => (header.source_port, header.destination_port),
        true => (0, 0),
    };
    let (a, b) = if header.ip_version == 4 {
        let end = |address: u32, port: u16| u64::from(port) << 32 | u64::from(address);
        (end(header.source_ipv4, from), end(header.destination_ipv4, to))
    } else {
        let end = |high, low, port: u16| fold(high ^ SEEDS[0], low ^ SEEDS[1]) ^ u64::from(port);
        (
            end(header.source_ipv6_high, header.source_ipv6_low, from),
            end(header.destination_ipv6_high, header.destination_ipv6_low, to),
        )
    };
    let kind = u64::from(header.protocol) << 8 | u64::from(header.ip_version);
    fold(fold(a.min(b) ^ SEEDS[0], a.max(b) ^ SEEDS[1]) ^ kind, SEEDS[2]).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: (u32, u16), destination: (u32, u16)) -> Header {
        Header {
            ip_version: 4,
            protocol: 6,
            source_ipv4: source.0,
            source_port: source.1,
            destination_ipv4: destination.0,
            destination_port: destination.1,
            ..Header::default()
        }
    }

    #[test]
    fn both_directions_are_one_flow() {
        let (a, b) = ((0xc000_0201, 4321), (0xc000_0202, 80));
        assert_eq!(flow(&ends(a, b)), flow(&ends(b, a)));
        let six = |from: u64, to: u64, ports: (u16, u16)| Header {
            ip_version: 6,
            protocol: 17,
            source_ipv6_high: from,
            source_ipv6_low: from + 1,
            destination_ipv6_high: to,
            destination_ipv6_low: to + 1,
            source_port: ports.0,
            destination_port: ports.1,
            ..Header::default()
        };
        assert_eq!(flow(&six(7, 9, (1, 2))), flow(&six(9, 7, (2, 1))));
        assert_ne!(flow(&six(7, 9, (1, 2))), flow(&six(7, 9, (2, 1))));
    }

    #[test]
    fn a_fragments_flow_has_no_ports() {
        let whole = ends((1, 10), (2, 20));
        let first = Header { fragment: true, ..whole };
        let later = Header { source_port: 0, destination_port: 0, ..first };
        assert_eq!(flow(&first), flow(&later));
        assert_ne!(flow(&first), flow(&whole));
    }

    /// A hundred thousand neighbouring flows, no two alike.
    #[test]
    fn neighbours_do_not_collide() {
        let mut seen = std::collections::HashSet::new();
        for host in 0..100u32 {
            for port in 0..1000u16 {
                assert!(seen.insert(flow(&ends((0x0a00_0000 + host, 1024 + port), (7, 80)))));
            }
        }
    }
}
