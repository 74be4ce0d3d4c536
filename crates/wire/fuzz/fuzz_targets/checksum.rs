//! Checksums of any bytes against a naive sum, whole, copied and in two pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_wire::checksum;

fn naive(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let expected = naive(bytes);
    assert_eq!(checksum::sum(bytes), expected);

    let mut copy = vec![0; bytes.len()];
    assert_eq!(checksum::copy_and_sum(&mut copy, bytes), expected);
    assert_eq!(copy, bytes);

    let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
    let sums = (checksum::sum(first), checksum::sum(second));
    assert_eq!(checksum::concat(sums.0, first.len(), sums.1), expected);
});
