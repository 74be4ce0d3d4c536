use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use millrace_wire::toeplitz::{self, DEFAULT, Hasher, KEY_LEN, MAX_INPUT, MICROSOFT, SYMMETRIC};
use proptest::prelude::*;

static MICROSOFT_HASHER: Hasher = Hasher::new(&MICROSOFT);

/// Microsoft, "Verifying the RSS Hash Calculation": source and destination with their ports, then
/// the hash with ports and the hash of addresses alone.
const VECTORS: [(&str, u16, &str, u16, u32, u32); 8] = [
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x51cc_c178, 0x323e_8fc2),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xc626_b0ea, 0xd718_262a),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0x5c2b_394a, 0xd2d0_a5de),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0xafc7_327f, 0x8298_9176),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x10e8_28a2, 0x5d18_09c5),
    ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x4020_7d3d, 0x2cc1_8cd5),
    ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0xdde5_1bbf, 0x0f0c_461c),
    (
        "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
        44251,
        "fe80::200:f8ff:fe21:67cf",
        38024,
        0x02d1_feef,
        0x4b61_e985,
    ),
];

#[test]
fn published_vectors() {
    for (source, from, destination, to, with_ports, addresses) in VECTORS {
        match (source.parse().unwrap(), destination.parse().unwrap()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                assert_eq!(toeplitz::hash_v4(&MICROSOFT, a, b, from, to), with_ports);
                assert_eq!(toeplitz::hash_v4_addresses(&MICROSOFT, a, b), addresses);
                assert_eq!(MICROSOFT_HASHER.hash_v4(a, b, from, to), with_ports);
                assert_eq!(MICROSOFT_HASHER.hash_v4_addresses(a, b), addresses);
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                assert_eq!(toeplitz::hash_v6(&MICROSOFT, a, b, from, to), with_ports);
                assert_eq!(toeplitz::hash_v6_addresses(&MICROSOFT, a, b), addresses);
                assert_eq!(MICROSOFT_HASHER.hash_v6(a, b, from, to), with_ports);
                assert_eq!(MICROSOFT_HASHER.hash_v6_addresses(a, b), addresses);
            }
            _ => unreachable!("a vector of two families"),
        }
    }
}

#[test]
fn input_beyond_the_key_is_ignored() {
    let hasher = Hasher::new(&DEFAULT);
    let input = [0xff; MAX_INPUT + 10];
    let expected = toeplitz::hash(&DEFAULT, &input[..MAX_INPUT]);
    assert_eq!(toeplitz::hash(&DEFAULT, &input), expected);
    assert_eq!(hasher.hash(&input), expected);
}

fn key() -> impl Strategy<Value = toeplitz::Key> {
    prop::collection::vec(any::<u8>(), KEY_LEN).prop_map(|key| key.try_into().unwrap())
}

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn tables_agree_with_the_bitwise_hash(
        key in key(),
        input in prop::collection::vec(any::<u8>(), 0..MAX_INPUT + 5),
    ) {
        prop_assert_eq!(Hasher::new(&key).hash(&input), toeplitz::hash(&key, &input));
    }

    #[test]
    fn both_directions_have_the_same_hash_with_the_symmetric_key(
        v4: (Ipv4Addr, Ipv4Addr),
        v6: (Ipv6Addr, Ipv6Addr),
        from: u16,
        to: u16,
    ) {
        let ((a, b), (c, d)) = (v4, v6);
        prop_assert_eq!(
            toeplitz::hash_v4(&SYMMETRIC, a, b, from, to),
            toeplitz::hash_v4(&SYMMETRIC, b, a, to, from)
        );
        prop_assert_eq!(
            toeplitz::hash_v4_addresses(&SYMMETRIC, a, b),
            toeplitz::hash_v4_addresses(&SYMMETRIC, b, a)
        );
        prop_assert_eq!(
            toeplitz::hash_v6(&SYMMETRIC, c, d, from, to),
            toeplitz::hash_v6(&SYMMETRIC, d, c, to, from)
        );
        prop_assert_eq!(
            toeplitz::hash_v6_addresses(&SYMMETRIC, c, d),
            toeplitz::hash_v6_addresses(&SYMMETRIC, d, c)
        );
    }
}
