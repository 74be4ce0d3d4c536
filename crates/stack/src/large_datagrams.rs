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

/// A report comes a round trip after the datagram: to so many others large ones may leave meanwhile.
const MOST: usize = 64;

/// How long a datagram may be on its way, and so be reported (RFC 9293 §3.4.1: an MSL).
const BELIEVED: Duration = Duration::from_secs(120);

/// Source, destination and both ports, as an ICMP error quotes them.
pub(crate) type Quoted = (Word, Word, [u8; 4]);

#[derive(Clone, Copy, Debug)]
struct Large {
    flow: Quoted,
    /// Bytes of the packet, or of its first fragment.
    size: u16,
    at: Instant,
}

/// The last large datagrams that left, one to a flow.
#[derive(Debug)]
pub(crate) struct LargeDatagrams {
    last: Box<[Large; MOST]>,
    next: usize,
}

impl LargeDatagrams {
    pub(crate) fn new() -> Self {
        let none = Large { flow: (0, 0, [0; 4]), size: 0, at: Instant::ZERO };
        LargeDatagrams { last: Box::new([none; MOST]), next: 0 }
    }

    fn push(&mut self, flow: Quoted, size: u16, at: Instant) {
        // Who sends many sends them to a few places, by turns: none of these may push out the others.
        if let Some(before) = self.last.iter_mut().find(|one| one.flow == flow) {
            before.size = before.size.max(size);
            before.at = at;
            return;
        }
        self.last[self.next] = Large { flow, size, at };
        self.next = (self.next + 1) % MOST;
    }

    /// Whether such a datagram left that is larger than `mtu`.
    fn exceeded(&self, flow: Quoted, mtu: u32, now: Instant) -> bool {
        self.last
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
            self.large_datagrams.push((source, destination, [a, b, c, d]), size, self.now);
        }
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
        if !self.large_datagrams.exceeded(datagram, mtu, self.now) {
            self.counters.drop_icmp_unrelated += 1;
            return;
        }
        self.counters.icmp_errors_taken += 1;
        self.path_mtu_reported(datagram.1, mtu, None);
    }
}
