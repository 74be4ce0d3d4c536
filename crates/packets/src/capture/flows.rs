//! The flows that a capture sees, as many as there is room for: which of them are large.
//!
//! A flow's hash names a bucket of eight. A new flow takes the place of the smallest of a full
//! bucket, so a large flow stays, whoever sends how many small ones; what is given up is counted.

use crate::headers::Header;

/// Flows of one bucket.
const WAYS: usize = 8;

/// One flow, both directions of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// Its first packet's headers since it is followed.
    pub first: Header,
    /// Packets.
    pub packets: u64,
    /// Bytes on the wire.
    pub bytes: u64,
}

/// A table of flows of a fixed size.
#[derive(Debug)]
pub struct Flows {
    buckets: Box<[[Flow; WAYS]]>,
    given_up: u64,
}

impl Flows {
    /// Room for `count` flows, at least.
    pub fn new(count: usize) -> Flows {
        let buckets = count.clamp(WAYS, 1 << 20).div_ceil(WAYS).next_power_of_two();
        Flows { buckets: vec![[Flow::default(); WAYS]; buckets].into_boxed_slice(), given_up: 0 }
    }

    /// Counts a packet. What is no IP has its EtherType for a flow.
    #[inline]
    pub fn add(&mut self, header: &Header) {
        let key = key(header);
        let place = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let bucket = &mut self.buckets[place as usize & (self.buckets.len() - 1)];
        let mut smallest = 0;
        for way in 0..WAYS {
            let flow = &mut bucket[way];
            if flow.packets == 0 {
                smallest = way;
                break;
            }
            if self::key(&flow.first) == key {
                flow.packets += 1;
                flow.bytes += u64::from(header.length);
                return;
            }
            if flow.bytes < bucket[smallest].bytes {
                smallest = way;
            }
        }
        self.given_up += u64::from(bucket[smallest].packets > 0);
        bucket[smallest] = Flow { first: *header, packets: 1, bytes: header.length.into() };
    }

    /// Those with the most bytes, the greatest first.
    pub fn top(&self, count: usize) -> Vec<Flow> {
        let all = self.buckets.as_flattened().iter();
        let mut found: Vec<Flow> = all.filter(|flow| flow.packets > 0).copied().collect();
        let count = count.min(found.len());
        if count > 0 && count < found.len() {
            found.select_nth_unstable_by(count - 1, |a, b| b.bytes.cmp(&a.bytes));
        }
        found.truncate(count);
        found.sort_unstable_by_key(|flow| core::cmp::Reverse(flow.bytes));
        found
    }

    /// How many flows lost their place.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }
}

#[inline]
fn key(header: &Header) -> u64 {
    match header.flow_hash {
        0 => u64::from(header.ether_type),
        hash => hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flow_hash: u64, length: u32) -> Header {
        Header { flow_hash, length, ..Header::default() }
    }

    #[test]
    fn packets_of_a_flow_are_added_up_and_the_largest_come_first() {
        let mut flows = Flows::new(64);
        for number in 1..=20u64 {
            for _ in 0..number {
                flows.add(&header(number, 100));
            }
        }
        let top = flows.top(3);
        let seen: Vec<_> = top.iter().map(|flow| (flow.packets, flow.bytes)).collect();
        assert_eq!(seen, [(20, 2000), (19, 1900), (18, 1800)]);
        assert_eq!(flows.top(100).len(), 20);
        assert!(flows.top(0).is_empty());
    }

    #[test]
    fn what_is_no_ip_is_told_apart_by_its_type() {
        let mut flows = Flows::new(8);
        for ether_type in [0x806, 0x806, 0x88cc] {
            flows.add(&Header { ether_type, length: 60, ..Header::default() });
        }
        assert_eq!(flows.top(9).iter().map(|flow| flow.packets).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_large_flow_stays_however_many_small_ones_come() {
        let mut flows = Flows::new(8);
        for _ in 0..10 {
            flows.add(&header(7, 1000));
        }
        for number in 100..10_000 {
            flows.add(&header(number, 60));
        }
        assert_eq!(flows.top(1)[0].bytes, 10_000);
        assert_eq!(flows.given_up(), 9_900 - 7);
    }
}
