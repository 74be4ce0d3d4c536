//! Reassembly of fragments (RFC 791 §3.2, RFC 815, RFC 1122 §3.3.2; for IPv6 RFC 8200 §4.5).
//!
//! One engine for both families. The fragments of a datagram stay in the frames they came in,
//! linked in the order of their offsets, so a whole datagram is a chain and nothing is copied.
//! Time, memory and datagrams are bounded, in all and for each source; the oldest makes way.
//!
//! Fragments that overlap have no honest sender (RFC 5722): the datagram is given up, and what
//! else comes of it is dropped until its time is over. An exact duplicate is the network's doing
//! and is dropped alone.

mod ipv4;
mod waiting;

use core::time::Duration;

use millrace_frames::{ChecksumState, Frame};
use millrace_wire::icmpv6;
use millrace_wire::mac::Mac;

use crate::Stack;
use crate::address::{Word, is_v4};
use crate::chain::{self, Chain};
use crate::ip::IpInfo;
use waiting::{Entry, NONE, UNKNOWN};
pub(crate) use waiting::{Key, Reassembly};

/// Bounds of reassembly.
#[derive(Clone, Debug)]
pub struct ReassemblyConfig {
    /// Most datagrams that wait for fragments at a time, 1 to 4096.
    pub datagrams: u16,
    /// Most of them from one source.
    pub datagrams_per_source: u16,
    /// Most frames of one datagram: 65,535 bytes in fragments for an MTU of 576 are 119.
    pub frames_per_datagram: u16,
    /// Most bytes of memory that fragments may take, in whole frames.
    pub memory: u32,
    /// How long an IPv4 datagram waits from its first fragment on (RFC 1122 §3.3.2).
    pub timeout: Duration,
    /// How long an IPv6 datagram waits (RFC 8200 §4.5: 60 s).
    pub timeout_v6: Duration,
}

impl Default for ReassemblyConfig {
    fn default() -> Self {
        ReassemblyConfig {
            datagrams: 128,
            datagrams_per_source: 32,
            frames_per_datagram: 128,
            memory: 4 << 20,
            timeout: Duration::from_secs(30),
            timeout_v6: Duration::from_secs(60),
        }
    }
}

/// A fragment that came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment {
    pub(crate) key: Key,
    /// Where its bytes belong in the datagram.
    pub(crate) offset: usize,
    /// It is not the last one.
    pub(crate) more: bool,
    /// Where the IP header begins in the frame's bytes.
    pub(crate) start: usize,
    /// Where its part of the datagram begins in the frame's bytes.
    pub(crate) payload: usize,
    /// Bytes of that part.
    pub(crate) len: usize,
    /// Bytes of the largest datagram behind this fragment's headers.
    pub(crate) most: usize,
    /// The two ECN bits.
    pub(crate) ecn: u8,
    /// It came to a group or broadcast address.
    pub(crate) many: bool,
    /// How long the datagram may take.
    pub(crate) timeout: Duration,
}

/// A datagram that is whole. The first frame begins with the first fragment's headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole {
    pub(crate) frame: Frame,
    /// Where the IP header begins in the first frame's bytes.
    pub(crate) start: usize,
    /// Where the datagram begins in them.
    pub(crate) payload: usize,
    /// Bytes of the datagram without the headers before it.
    pub(crate) len: usize,
    /// The ECN bits of them all (RFC 3168 §5.3).
    pub(crate) ecn: u8,
    pub(crate) many: bool,
}

impl Whole {
    /// What is known of the packet that it is, by what was known of the fragment that came last.
    pub(crate) fn info(&self, fragment: &IpInfo, mac: Mac) -> IpInfo {
        IpInfo {
            start: self.start,
            payload: self.payload,
            len: self.len,
            many: self.many,
            mac,
            ..*fragment
        }
    }
}

/// Why a fragment was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is empty, or not the last and no multiple of 8 bytes.
    Length,
    /// It would end behind the largest datagram.
    TooBig,
    /// It overlaps, contradicts where the datagram ends, or the datagram was given up for that.
    Overlap,
    /// The same came before.
    Duplicate,
    /// The datagram has the most frames that one may have.
    Frames,
}

/// What a datagram's ECN bits are, by the set of its fragments' (RFC 3168 §5.3). `None`: some are
/// ECN-capable and some are not, which no sender does.
fn ecn_of(set: u8) -> Option<u8> {
    const NOT_CAPABLE: u8 = 1;
    const CONGESTED: u8 = 1 << 3;
    match set {
        NOT_CAPABLE => Some(0),
        set if set & NOT_CAPABLE != 0 => None,
        set if set & CONGESTED != 0 => Some(3),
        2 => Some(1),
        // ECT(0), or both: the sender's own mistake, and either is right.
        _ => Some(2),
    }
}

impl Stack {
    /// Takes a fragment: keeps or releases its frames. Gives the datagram when this was the last
    /// one that was missing. A drop is counted here.
    pub(crate) fn reassemble(
        &mut self,
        frame: Frame,
        fragment: &Fragment,
    ) -> Result<Option<Whole>, Refused> {
        match self.try_reassemble(frame, fragment) {
            Ok(whole) => Ok(whole),
            Err(refused) => {
                let counter = match refused {
                    Refused::Length | Refused::TooBig => &mut self.counters.drop_fragment_malformed,
                    Refused::Overlap => &mut self.counters.drop_fragment_overlap,
                    Refused::Duplicate => &mut self.counters.drop_fragment_duplicate,
                    Refused::Frames => &mut self.counters.drop_fragment_bound,
                };
                *counter += 1;
                self.drop_chain(frame);
                Err(refused)
            }
        }
    }

    fn try_reassemble(
        &mut self,
        frame: Frame,
        fragment: &Fragment,
    ) -> Result<Option<Whole>, Refused> {
        let (offset, len, more) = (fragment.offset, fragment.len, fragment.more);
        if len == 0 || (more && !len.is_multiple_of(8)) {
            return Err(Refused::Length);
        }
        let end = offset + len;
        if end > fragment.most {
            return Err(Refused::TooBig);
        }
        let hash = Reassembly::hash(&self.keys, &fragment.key);
        let index = match self.reassembly.find(hash, &fragment.key) {
            Some(index) => index,
            None => {
                self.make_datagram_room(fragment.key.source);
                self.reassembly.insert(hash, fragment, self.now)
            }
        };
        let entry = &self.reassembly.entries[usize::from(index)];
        if let Some(refused) = entry.refused {
            return Err(refused);
        }
        let (end, last) = (end as u32, self.last_byte(index));
        let contradicts = if more {
            end > entry.total
        } else {
            end < last || (entry.total != UNKNOWN && end != entry.total)
        };
        if contradicts {
            return Err(self.refuse(index, Refused::Overlap));
        }
        if self.reassembly.frames + 1 > self.reassembly.frame_limit
            || self.arena.free() <= self.config.frame_reserve as usize
        {
            self.evict_oldest_but(index);
        }
        let Chain { tail, frames } = chain::cut(&mut self.arena, frame, fragment.payload, len);
        let mut at = frame;
        let mut mark = offset as u32;
        while at.is_some() {
            let meta = self.arena.meta_mut(at);
            meta.mark = mark;
            mark += u32::from(meta.len);
            at = meta.next;
        }
        let entry = &self.reassembly.entries[usize::from(index)];
        let room = u32::from(entry.frames) + u32::from(frames)
            <= u32::from(self.reassembly.frames_per_datagram);
        let room = room
            && self.reassembly.frames + u32::from(frames) <= self.reassembly.frame_limit
            && self.arena.free() > self.config.frame_reserve as usize;
        match self.place(index, frame, end) {
            Err(Refused::Duplicate) => return Err(Refused::Duplicate),
            Err(refused) => return Err(self.refuse(index, refused)),
            Ok(_) if !room => return Err(self.refuse(index, Refused::Frames)),
            Ok(before) => self.link(index, before, frame, tail),
        }
        let entry = &mut self.reassembly.entries[usize::from(index)];
        entry.frames += frames;
        self.reassembly.frames += u32::from(frames);
        entry.packets += 1;
        entry.received += len as u32;
        entry.ecn |= 1 << (fragment.ecn & 3);
        entry.many |= fragment.many;
        if !more {
            entry.total = end;
        }
        if offset == 0 {
            entry.header = fragment.payload as u16;
            entry.start = fragment.start as u16;
            entry.most = fragment.most as u32;
        }
        self.counters.fragments_in += 1;
        if entry.received < entry.total {
            return Ok(None);
        }
        Ok(self.finish_datagram(index))
    }

    /// Where the last fragment that has come ends.
    fn last_byte(&self, index: u16) -> u32 {
        match self.reassembly.entries[usize::from(index)].tail.get() {
            Some(tail) => {
                let meta = self.arena.meta(tail);
                meta.mark + u32::from(meta.len)
            }
            None => 0,
        }
    }

    /// The frame that a fragment comes after; [`Frame::NONE`]: it is the first.
    fn place(&self, index: u16, frame: Frame, end: u32) -> Result<Frame, Refused> {
        let entry = &self.reassembly.entries[usize::from(index)];
        let offset = self.arena.meta(frame).mark;
        if offset >= self.last_byte(index) {
            return Ok(entry.tail);
        }
        let (mut before, mut at) = (Frame::NONE, entry.head);
        while at.is_some() && self.arena.meta(at).mark < offset {
            (before, at) = (at, self.arena.meta(at).next);
        }
        if at.is_some() && self.same_bytes(at, frame) {
            return Err(Refused::Duplicate);
        }
        let free_before = before.get().is_none_or(|before| {
            let meta = self.arena.meta(before);
            meta.mark + u32::from(meta.len) <= offset
        });
        if !free_before || at.get().is_some_and(|at| self.arena.meta(at).mark < end) {
            return Err(Refused::Overlap);
        }
        Ok(before)
    }

    /// Whether the frames from `at` on begin with just what is in `new`.
    fn same_bytes(&self, mut at: Frame, mut new: Frame) -> bool {
        while new.is_some() {
            if at.is_none()
                || self.arena.meta(at).mark != self.arena.meta(new).mark
                || self.arena.bytes(at) != self.arena.bytes(new)
            {
                return false;
            }
            (at, new) = (self.arena.meta(at).next, self.arena.meta(new).next);
        }
        true
    }

    fn link(&mut self, index: u16, before: Frame, frame: Frame, tail: Frame) {
        let entry = &mut self.reassembly.entries[usize::from(index)];
        let after = match before.get() {
            None => core::mem::replace(&mut entry.head, frame),
            Some(before) => core::mem::replace(&mut self.arena.meta_mut(before).next, frame),
        };
        self.arena.meta_mut(tail).next = after;
        if after.is_none() {
            entry.tail = tail;
        }
    }

    /// Hands out a datagram that is whole.
    fn finish_datagram(&mut self, index: u16) -> Option<Whole> {
        let entry = self.reassembly.entries[usize::from(index)].clone();
        let len = entry.total as usize;
        let ecn = ecn_of(entry.ecn);
        // The first fragment may have more headers before its part than the others.
        let fits = entry.total <= entry.most;
        let (Some(ecn), true) = (ecn, fits) else {
            let packets = u64::from(entry.packets);
            match ecn {
                None => self.counters.drop_fragment_ecn += packets,
                Some(_) => self.counters.drop_fragment_malformed += packets,
            }
            self.give_up(index);
            return None;
        };
        self.reassembly.remove(index);
        self.counters.datagrams_reassembled += 1;
        let meta = self.arena.meta_mut(entry.head);
        meta.offset -= entry.header;
        meta.len += entry.header;
        meta.total = u32::from(entry.header) + entry.total;
        // Whatever hardware knew of a fragment, it knew nothing of the datagram's checksum.
        meta.checksum = ChecksumState::Unknown;
        Some(Whole {
            frame: entry.head,
            start: entry.start.into(),
            payload: entry.header.into(),
            len,
            ecn,
            many: entry.many,
        })
    }

    /// Frees an entry and its frames.
    fn give_up(&mut self, index: u16) {
        let head = self.reassembly.entries[usize::from(index)].head;
        self.reassembly.remove(index);
        self.drop_chain(head);
    }

    /// Gives a datagram up, and remembers it so that its other fragments are dropped as well.
    fn refuse(&mut self, index: u16, why: Refused) -> Refused {
        let entry = &mut self.reassembly.entries[usize::from(index)];
        let head = core::mem::take(&mut entry.head);
        let (frames, packets) = (entry.frames, u64::from(entry.packets));
        (entry.tail, entry.frames, entry.packets, entry.received) = (Frame::NONE, 0, 0, 0);
        entry.refused = Some(why);
        self.reassembly.frames -= u32::from(frames);
        match why {
            Refused::Frames => self.counters.drop_fragment_bound += packets,
            _ => self.counters.drop_fragment_overlap += packets,
        }
        self.drop_chain(head);
        why
    }

    /// Makes way for one more datagram of a source.
    fn make_datagram_room(&mut self, source: Word) {
        let (count, oldest) = self.reassembly.oldest_of(source);
        if count >= self.reassembly.per_source {
            self.evict(oldest);
        } else if self.reassembly.free == NONE {
            self.evict(self.reassembly.oldest);
        }
    }

    fn evict_oldest_but(&mut self, keep: u16) {
        let mut at = self.reassembly.oldest;
        while at != NONE {
            let entry = &self.reassembly.entries[usize::from(at)];
            if at != keep && entry.frames > 0 {
                return self.evict(at);
            }
            at = entry.younger;
        }
    }

    fn evict(&mut self, index: u16) {
        let packets = self.reassembly.entries[usize::from(index)].packets;
        self.counters.drop_fragment_bound += u64::from(packets);
        self.give_up(index);
    }

    /// Gives up what has waited too long.
    pub(crate) fn advance_reassembly(&mut self) {
        while let Some(index) = self.reassembly.due(self.now) {
            let entry = &self.reassembly.entries[usize::from(index)];
            self.counters.drop_fragment_timeout += u64::from(entry.packets);
            // RFC 1122 §3.3.2: the source is told, if the first fragment, which names the ports,
            // has come.
            if entry.head.get().is_some_and(|head| self.arena.meta(head).mark == 0) {
                self.tell_timeout(index);
            }
            self.give_up(index);
        }
    }

    fn tell_timeout(&mut self, index: u16) {
        let Entry { key, head, header, start, many, .. } =
            self.reassembly.entries[usize::from(index)];
        let Some(local) = self.addresses.find(key.destination) else { return };
        let meta = self.arena.meta_mut(head);
        meta.offset -= header;
        meta.len += header;
        let bytes = self.arena.bytes(head);
        let mac = source_mac(bytes);
        let packet_len = bytes.len() - usize::from(header);
        {
            let info = IpInfo {
                source: key.source,
                destination: key.destination,
                local,
                mac,
                start: start.into(),
                payload: header.into(),
                len: packet_len,
                many,
            };
            if is_v4(key.source) {
                self.icmp_reassembly_timeout(head, &info);
            } else {
                const REASSEMBLY: u8 = 1;
                self.icmpv6_error(head, &info, icmpv6::kind::TIME_EXCEEDED, REASSEMBLY, 0);
            }
        }
        let meta = self.arena.meta_mut(head);
        meta.offset += header;
        meta.len -= header;
    }
}

/// Who sent an Ethernet frame.
pub(crate) fn source_mac(bytes: &[u8]) -> Mac {
    Mac([bytes[6], bytes[7], bytes[8], bytes[9], bytes[10], bytes[11]])
}
