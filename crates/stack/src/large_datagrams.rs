//! Datagrams that a router may have found too big, and what is believed of one that says so
//! (RFC 1191 §3, RFC 8201 §4).
//!
//! A datagram has no sequence number that only the path knows, so a report about one is believed by
//! the addresses and ports of a datagram that did leave lately, was larger than what the router
//! says it takes, and could not be fragmented by it. Nobody who answers small questions in small
//! datagrams can be told anything. Echo replies are not among them: whoever forges the sender of a
//! request would know all of the reply, and could make anybody's path small.

use core::time::Duration;

use millrace_frames::Instant;

use crate::address::Word;
use crate::fragmentation::IpHeader;
use crate::path_mtu::{least, plateau};
use crate::stack::Stack;

/// A report comes a round trip after the datagram: to so many others, about, large ones may leave
/// meanwhile. Flows whose hashes end alike share a set, in which the one that was quiet for longest
/// makes way.
const SETS: usize = 512;
const WAYS: usize = 8;

/// How long a datagram may be on its way, and so be reported (RFC 9293 §3.4.1: an MSL).
const BELIEVED: Duration = Duration::from_secs(120);

/// Source, destination and both ports, as an ICMP error quotes them.
pub(crate) type Quoted = (Word, Word, [u8; 4]);

#[derive(Clone, Copy, Debug)]
struct Large {
    /// The keyed hash of source, destination and ports: nobody else knows one that is alike.
    flow: u64,
    /// Bytes of the packet, or of its first fragment.
    size: u16,
    at: Instant,
}

/// The last large datagrams that left, one to a flow.
#[derive(Debug)]
pub(crate) struct LargeDatagrams {
    last: Box<[[Large; WAYS]]>,
}

impl LargeDatagrams {
    pub(crate) fn new() -> Self {
        let none = Large { flow: 0, size: 0, at: Instant::ZERO };
        LargeDatagrams { last: vec![[none; WAYS]; SETS].into_boxed_slice() }
    }

    fn push(&mut self, flow: u64, size: u16, at: Instant) {
        let set = &mut self.last[flow as usize % SETS];
        // Who sends many sends them to a few places, by turns: none of these may push out the others.
        if let Some(before) = set.iter_mut().find(|one| one.flow == flow) {
            before.size = before.size.max(size);
            before.at = at;
        } else if let Some(oldest) = set.iter_mut().min_by_key(|one| one.at) {
            *oldest = Large { flow, size, at };
        }
    }

    /// Whether such a datagram left that is larger than `mtu`.
    fn exceeded(&self, flow: u64, mtu: u32, now: Instant) -> bool {
        self.last[flow as usize % SETS]
            .iter()
            .any(|one| one.flow == flow && u32::from(one.size) > mtu && now < one.at + BELIEVED)
    }
}

impl Stack {
    /// Remembers a datagram of `whole` bytes with its IP header, if a router may ever say that it
    /// is too big.
    #[inline]
    pub(crate) fn sent_large(&mut self, ip: &IpHeader, ports: (u16, u16), whole: usize) {
        // What may be fragmented on the way is not refused there.
        if matches!(ip, IpHeader::V4(ip) if !ip.dont_fragment) {
            return;
        }
        let (source, destination, _) = ip.addresses();
        let size = whole.min(self.one_packet_to(destination)) as u16;
        if size > least(destination) {
            let ([a, b], [c, d]) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
            let flow = self.datagram_hash(&(source, destination, [a, b, c, d]));
            self.large_datagrams.push(flow, size, self.now);
        }
    }

    fn datagram_hash(&self, &(source, destination, ports): &Quoted) -> u64 {
        self.keys.prf(&[
            source as u64,
            (source >> 64) as u64,
            destination as u64,
            (destination >> 64) as u64,
            u32::from_be_bytes(ports).into(),
        ])
    }

    /// A router could not forward a datagram without fragmenting it, and tells what the next hop
    /// takes, or 0 if it is older than RFC 1191.
    pub(crate) fn datagram_fragmentation_needed(
        &mut self,
        datagram: Quoted,
        total_len: usize,
        next_hop_mtu: u16,
    ) {
        let mtu = match next_hop_mtu {
            0 => plateau(total_len),
            mtu => mtu,
        };
        self.datagram_too_big(datagram, mtu.into());
    }

    /// A router tells the largest packet that gets through, quoting a datagram.
    pub(crate) fn datagram_too_big(&mut self, datagram: Quoted, mtu: u32) {
        let flow = self.datagram_hash(&datagram);
        if !self.large_datagrams.exceeded(flow, mtu, self.now) {
            self.counters.drop_icmp_unrelated += 1;
            return;
        }
        self.counters.icmp_errors_taken += 1;
        self.path_mtu_reported(datagram.1, mtu, None);
    }
}
