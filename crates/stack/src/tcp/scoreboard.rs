//! The scoreboard: what was sent and is not acknowledged, and what is known of each piece (RFC
//! 2018 §5, RFC 6675 §3 and §4).
//!
//! A record stands for one transmission: a segment, or a super-segment that the port cut up.
//! Selective acknowledgements and losses split records at multiples of the segment size only, so
//! that a peer cannot make more records of a window than it has segments.

use std::collections::VecDeque;

use millrace_frames::{Arena, Frame};
use millrace_wire::seq::Seq;

use super::delivery_rate::Snapshot;

/// What is known of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark(u8);

impl Mark {
    /// Selectively acknowledged.
    pub(crate) const SACKED: Mark = Mark(1);
    /// Believed to be lost.
    pub(crate) const LOST: Mark = Mark(2);
    /// Sent again, and that copy is believed to be under way.
    pub(crate) const RETRANSMITTED: Mark = Mark(4);
    /// Was sent more than once.
    pub(crate) const EVER: Mark = Mark(8);
    /// Carried the PSH flag when it was sent first.
    pub(crate) const PUSHED: Mark = Mark(16);
    /// Those that the scoreboard keeps account of.
    const COUNTED: Mark = Mark(1 | 2 | 4);

    #[inline]
    pub(crate) const fn has(self, other: Mark) -> bool {
        self.0 & other.0 != 0
    }

    #[inline]
    pub(crate) const fn with(self, other: Mark) -> Mark {
        Mark(self.0 | other.0)
    }

    #[inline]
    fn set(&mut self, other: Mark) {
        self.0 |= other.0;
    }

    #[inline]
    fn clear(&mut self, other: Mark) {
        self.0 &= !other.0;
    }
}

/// One transmission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// First sequence number, and the one after the last; a FIN counts.
    pub(crate) start: Seq,
    pub(crate) end: Seq,
    /// The frame in which its payload begins; none for a FIN alone.
    pub(crate) frame: Frame,
    /// When it left last, microseconds.
    pub(crate) sent_at: u32,
    pub(crate) mark: Mark,
    pub(crate) snapshot: Snapshot,
}

impl Sent {
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        (self.end - self.start) as u32
    }

    /// Lost, and not sent again.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.mark.has(Mark::LOST) && !self.mark.has(Mark::RETRANSMITTED)
    }

    /// It was sent again, and what has arrived now is an earlier copy: the last one left less than
    /// the shortest round trip ago, or later than the timestamp that the peer echoes
    /// (`echo_older`). When the last copy left then says nothing (RFC 8985 §6.2, step 2).
    #[inline]
    pub(crate) fn earlier_copy_arrived(
        &self,
        now_us: u32,
        min_rtt_us: u32,
        echo_older: bool,
    ) -> bool {
        self.mark.has(Mark::EVER) && (now_us.wrapping_sub(self.sent_at) < min_rtt_us || echo_older)
    }
}

/// Everything in flight, in the order of sequence numbers. First what every transmission needs, then
/// what is for losses.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Scoreboard {
    records: VecDeque<Sent>,
    /// No record before it is lost and waits to be sent again.
    next_lost: Seq,
    /// Every record before it is settled for the detection of loss: acknowledged selectively,
    /// lost, or sent again.
    pub(crate) undecided: Seq,
    /// End of the highest block selectively acknowledged; meaningless while nothing is.
    pub(crate) highest_sacked: Seq,
    /// Some record has got a mark since the scoreboard was empty, or a block was told of.
    marked: bool,
    /// Congestion control looks at each loss: they are kept until it has.
    pub(crate) keeps_losses: bool,
    /// Bytes of records with the mark.
    pub(crate) sacked: u32,
    pub(crate) lost: u32,
    pub(crate) retransmitted: u32,
    /// The blocks of the last acknowledgement: what they cover needs no second look. None while
    /// nothing is marked.
    known: [(Seq, Seq); 4],
    /// What was sent again, in the order of time; may name records that are gone.
    pub(crate) retransmissions: VecDeque<(Seq, u32)>,
    pub(crate) losses: Vec<(u32, Snapshot)>,
}

/// Memory that an empty scoreboard keeps for its next use, in records.
const KEPT: usize = 64;

impl Scoreboard {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.retransmissions.clear();
        self.losses.clear();
        self.shrink();
        (self.sacked, self.lost, self.retransmitted) = (0, 0, 0);
        self.known = Default::default();
        self.marked = false;
    }

    fn shrink(&mut self) {
        self.losses.shrink_to(KEPT);
        self.records.shrink_to(KEPT);
        self.retransmissions.shrink_to(KEPT);
    }

    /// Nothing is in flight: memory that only a long flight needs is given back, for the connection
    /// may stay idle.
    #[inline]
    pub(crate) fn settle(&mut self) {
        // Of copies there are never many more than of records.
        if self.records.capacity() > KEPT {
            self.settle_long();
        }
    }

    #[cold]
    fn settle_long(&mut self) {
        self.retransmissions.clear();
        self.shrink();
    }

    /// Entries that there is memory for.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.records.capacity() + self.retransmissions.capacity()
    }

    /// Whether any record has, or had, a mark.
    #[inline]
    pub(crate) fn was_marked(&self) -> bool {
        self.marked
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&Sent> {
        self.records.get(at)
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<&Sent> {
        self.records.front()
    }

    #[inline]
    pub(crate) fn last(&self) -> Option<&Sent> {
        self.records.back()
    }

    /// Adds a first transmission, behind all others. In line, for a record that is written to the
    /// stack first and copied from there in larger pieces waits for itself.
    #[inline(always)]
    pub(crate) fn push(&mut self, sent: Sent) {
        if self.records.is_empty() {
            self.begin(sent.start);
        }
        self.records.push_back(sent);
    }

    #[inline]
    fn begin(&mut self, start: Seq) {
        // The next record takes the place of the last, which is in the cache.
        self.records.clear();
        self.next_lost = start;
        self.undecided = start;
        self.highest_sacked = start;
        if self.marked {
            self.known = Default::default();
            self.marked = false;
        }
    }

    /// Number of the record that holds `seq`, or of the first after it.
    #[inline]
    pub(crate) fn find(&self, seq: Seq) -> usize {
        match self.records.front() {
            Some(first) if first.end.gt(seq) => 0,
            _ => self.records.partition_point(|sent| sent.end.le(seq)),
        }
    }

    /// Takes marks off a record's account.
    #[inline]
    fn forget(&mut self, mark: Mark, len: u32) {
        if mark.has(Mark::SACKED) {
            self.sacked -= len;
        }
        if mark.has(Mark::LOST) {
            self.lost -= len;
        }
        if mark.has(Mark::RETRANSMITTED) {
            self.retransmitted -= len;
        }
    }

    /// Takes off what a cumulative acknowledgement covers, piece by piece: the next whole record
    /// that ends at `ack` or before, or the part of one.
    #[inline]
    pub(crate) fn acknowledge(&mut self, arena: &Arena, ack: Seq) -> Option<Sent> {
        let first = *self.records.front()?;
        if first.end.le(ack) {
            self.records.pop_front();
            if first.mark.has(Mark::COUNTED) {
                self.forget(first.mark, first.len());
            }
            return Some(first);
        }
        if first.start.ge(ack) {
            return None;
        }
        let part = Sent { end: ack, ..first };
        self.forget(first.mark, part.len());
        if first.mark.has(Mark::RETRANSMITTED) {
            self.rename_retransmission((first.start, first.sent_at), ack);
        }
        let first = &mut self.records[0];
        first.start = ack;
        first.frame = frame_of(arena, first.frame, ack);
        Some(part)
    }

    /// Takes off the records that lie before the one in which `ack` lies, or at the end of which it
    /// does. For scoreboards on which nothing was ever marked.
    #[inline(always)]
    pub(crate) fn acknowledge_before(&mut self, ack: Seq) {
        debug_assert!(!self.marked);
        while self.records.front().is_some_and(|first| first.end.lt(ack)) {
            self.records.pop_front();
        }
    }

    /// Takes the first record off, or as much of it as `ack` covers.
    #[inline(always)]
    pub(crate) fn acknowledge_first(&mut self, arena: &Arena, ack: Seq) {
        match self.records.front_mut() {
            Some(first) if first.end.gt(ack) => {
                first.start = ack;
                first.frame = frame_of(arena, first.frame, ack);
            }
            _ => {
                self.records.pop_front();
            }
        }
    }

    /// Cuts the record in two at `seq`, which lies inside.
    pub(crate) fn split(&mut self, arena: &Arena, at: usize, seq: Seq) {
        let mut second = self.records[at];
        debug_assert!(second.start.lt(seq) && second.end.gt(seq));
        self.records[at].end = seq;
        self.records[at].mark.clear(Mark::PUSHED);
        second.start = seq;
        second.frame = frame_of(arena, second.frame, seq);
        if second.mark.has(Mark::RETRANSMITTED) {
            // Both halves must be found by time; a place in the middle is a search, and rare.
            let place = self.retransmissions.partition_point(|&(_, sent_at)| {
                (sent_at.wrapping_sub(second.sent_at) as i32) <= 0
            });
            self.retransmissions.insert(place, (seq, second.sent_at));
        }
        self.records.insert(at + 1, second);
    }

    /// Makes one record of a record and the `more` that follow, all of them lost and not sent
    /// again.
    pub(crate) fn join(&mut self, at: usize, more: usize) {
        if more == 0 {
            return;
        }
        let pushed = self.records.range(at..=at + more).any(|sent| sent.mark.has(Mark::PUSHED));
        let end = self.records[at + more].end;
        self.records.drain(at + 1..=at + more);
        let joined = &mut self.records[at];
        joined.end = end;
        if pushed {
            joined.mark.set(Mark::PUSHED);
        }
    }

    /// A record that was sent again begins elsewhere now: a peer has the first part of it. The list
    /// by time names records by where they begin, and must go on to find this one.
    fn rename_retransmission(&mut self, (start, sent_at): (Seq, u32), to: Seq) {
        let from = self
            .retransmissions
            .partition_point(|&(_, other)| (other.wrapping_sub(sent_at) as i32) < 0);
        let of_that_time =
            self.retransmissions.iter_mut().skip(from).take_while(|entry| entry.1 == sent_at);
        for entry in of_that_time {
            if entry.0 == start {
                entry.0 = to;
            }
        }
    }

    /// Takes in a SACK block within `snd_una..snd_nxt`. What it newly covers goes to `newly`.
    pub(crate) fn sack(
        &mut self,
        arena: &Arena,
        (start, end): (Seq, Seq),
        mss: u32,
        newly: &mut impl FnMut(&Sent),
    ) {
        self.marked = true;
        let mut at = self.find(start);
        while let Some(&sent) = self.records.get(at) {
            if sent.start.ge(end) {
                break;
            }
            if sent.mark.has(Mark::SACKED) {
                at += 1;
                continue;
            }
            // A peer says less than all of the record arrived: whole segments of it count.
            if sent.start.lt(start) {
                let cut = round_up((start - sent.start) as u32, mss);
                if cut >= sent.len() {
                    at += 1;
                    continue;
                }
                self.split(arena, at, sent.start + cut);
                at += 1;
                continue;
            }
            if sent.end.gt(end) {
                let cut = (end - sent.start) as u32 / mss * mss;
                if cut == 0 {
                    break;
                }
                self.split(arena, at, sent.start + cut);
            }
            let sent = self.records[at];
            newly(&sent);
            self.forget(sent.mark, sent.len());
            let record = &mut self.records[at];
            record.mark.clear(Mark::LOST.with(Mark::RETRANSMITTED));
            record.mark.set(Mark::SACKED);
            self.sacked += sent.len();
            self.highest_sacked = self.highest_sacked.max(sent.end);
            at += 1;
        }
    }

    /// The parts of a SACK block that the last acknowledgement's blocks did not cover. A block that
    /// only grew costs what it grew by.
    pub(crate) fn unknown_parts(&self, (start, end): (Seq, Seq)) -> [(Seq, Seq); 2] {
        for &(from, to) in &self.known {
            if from.lt(to) && from.lt(end) && to.gt(start) {
                let mut parts = [(start, start), (end, end)];
                if from.gt(start) {
                    parts[0].1 = self.end_of_cut(from).min(end);
                }
                if to.lt(end) {
                    parts[1].0 = self.start_of_cut(to).max(start);
                }
                return parts;
            }
        }
        [(start, end), (end, end)]
    }

    /// Where the record begins of which `seq` was the end of what is known; `seq`, if that was whole.
    /// Something on the path may cut segments, and of what a block covers only in part nothing was
    /// marked.
    fn start_of_cut(&self, seq: Seq) -> Seq {
        self.records.get(self.find(seq)).map_or(seq, |sent| sent.start.min(seq))
    }

    /// Where the record ends in which what is known begins at `seq`; `seq`, if it begins with it.
    fn end_of_cut(&self, seq: Seq) -> Seq {
        match self.records.get(self.find(seq)) {
            Some(sent) if sent.start.lt(seq) => sent.end,
            _ => seq,
        }
    }

    /// The blocks of an acknowledgement, for the next one's [`Scoreboard::unknown_parts`].
    pub(crate) fn know(&mut self, blocks: &[(Seq, Seq)]) {
        if blocks.is_empty() && !self.marked {
            return;
        }
        self.marked = true;
        for (to, from) in self
            .known
            .iter_mut()
            .zip(blocks.iter().copied().chain(core::iter::repeat((Seq(0), Seq(0)))))
        {
            *to = from;
        }
    }

    /// Believes a record to be lost; one that was sent again, that the copy is lost too. Returns
    /// the bytes.
    pub(crate) fn mark_lost(&mut self, at: usize) -> u32 {
        self.marked = true;
        let sent = &mut self.records[at];
        let len = sent.len();
        if self.keeps_losses && (!sent.mark.has(Mark::LOST) || sent.mark.has(Mark::RETRANSMITTED)) {
            self.losses.push((len, sent.snapshot));
        }
        if sent.mark.has(Mark::RETRANSMITTED) {
            sent.mark.clear(Mark::RETRANSMITTED);
            self.retransmitted -= len;
        }
        if !sent.mark.has(Mark::LOST) {
            sent.mark.set(Mark::LOST);
            self.lost += len;
        }
        if sent.start.lt(self.next_lost) {
            self.next_lost = sent.start;
        }
        len
    }

    /// Takes back every belief in a loss: nothing was lost.
    pub(crate) fn unmark_lost(&mut self) {
        for sent in &mut self.records {
            sent.mark.clear(Mark::LOST);
        }
        self.lost = 0;
        self.undecided = self.records.front().map_or(self.undecided, |first| first.start);
    }

    /// The peer threw away what it had acknowledged selectively (RFC 2018 §8).
    pub(crate) fn renege(&mut self) {
        for sent in &mut self.records {
            sent.mark.clear(Mark::SACKED);
        }
        self.sacked = 0;
        self.known = Default::default();
        self.undecided = self.records.front().map_or(self.undecided, |first| first.start);
    }

    /// The first record that is lost and was not sent again.
    #[inline]
    pub(crate) fn next_lost(&mut self) -> Option<usize> {
        if self.lost == 0 {
            return None;
        }
        let from = self.find(self.next_lost);
        let found = (from..self.records.len()).find(|&at| self.records[at].is_due());
        self.next_lost = match found {
            Some(at) => self.records[at].start,
            None => self.records.back().map_or(self.next_lost, |last| last.end),
        };
        found
    }

    /// A record left again, now.
    pub(crate) fn retransmitted(&mut self, at: usize, now_us: u32, snapshot: Snapshot) {
        self.marked = true;
        let sent = &mut self.records[at];
        if !sent.mark.has(Mark::RETRANSMITTED) {
            self.retransmitted += sent.len();
        }
        sent.mark.set(Mark::RETRANSMITTED.with(Mark::EVER));
        sent.sent_at = now_us;
        sent.snapshot = snapshot;
        let (start, end) = (sent.start, sent.end);
        self.retransmissions.push_back((start, now_us));
        if self.retransmissions.len() > 4 * self.records.len() + KEPT {
            self.forget_old_copies();
        }
        if start == self.next_lost {
            self.next_lost = end;
        }
    }

    /// Where losses are not found by time, nobody takes copies off their list.
    #[cold]
    fn forget_old_copies(&mut self) {
        let mut copies = core::mem::take(&mut self.retransmissions);
        copies.retain(|&(start, sent_at)| {
            self.records.get(self.find(start)).is_some_and(|sent| {
                sent.start == start && sent.sent_at == sent_at && sent.mark.has(Mark::RETRANSMITTED)
            })
        });
        self.retransmissions = copies;
    }

    /// Whether the account is right; for tests.
    pub(crate) fn check(&self, snd_una: Seq, snd_nxt: Seq) {
        let (mut sacked, mut lost, mut retransmitted) = (0, 0, 0);
        let mut at = None;
        for sent in &self.records {
            assert!(at.is_none_or(|at| at == sent.start), "a hole in the scoreboard");
            assert!(sent.start.lt(sent.end), "an empty record");
            assert!(
                !(sent.mark.has(Mark::SACKED)
                    && sent.mark.has(Mark::LOST.with(Mark::RETRANSMITTED))),
                "arrived and lost"
            );
            let count = |mark| if sent.mark.has(mark) { sent.len() } else { 0 };
            sacked += count(Mark::SACKED);
            lost += count(Mark::LOST);
            retransmitted += count(Mark::RETRANSMITTED);
            at = Some(sent.end);
        }
        assert_eq!(
            (sacked, lost, retransmitted),
            (self.sacked, self.lost, self.retransmitted),
            "the scoreboard's account"
        );
        assert!(self.losses.is_empty(), "losses that congestion control has not heard of");
        if let (Some(first), Some(last)) = (self.records.front(), self.records.back()) {
            assert_eq!((first.start, last.end), (snd_una, snd_nxt), "the scoreboard's ends");
        }
    }
}

fn round_up(bytes: u32, mss: u32) -> u32 {
    bytes.div_ceil(mss) * mss
}

/// The frame of a send queue that holds `seq`, from one before it on; none behind the data.
pub(crate) fn frame_of(arena: &Arena, mut frame: Frame, seq: Seq) -> Frame {
    while frame.is_some() {
        let meta = arena.meta(frame);
        if (Seq(meta.mark) + u32::from(meta.len)).gt(seq) {
            break;
        }
        frame = meta.next;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_frames::{ArenaConfig, Hugepages};

    fn sent(start: u32, end: u32) -> Sent {
        Sent {
            start: Seq(start),
            end: Seq(end),
            frame: Frame::NONE,
            sent_at: 0,
            mark: Mark::default(),
            snapshot: Snapshot::default(),
        }
    }

    #[test]
    fn copies_that_nobody_looks_for_are_forgotten() {
        let mut board = Scoreboard::default();
        for at in 0..10 {
            board.push(sent(at * 100, at * 100 + 100));
        }
        for time in 1..100_000 {
            let at = time as usize % 10;
            board.mark_lost(at);
            board.retransmitted(at, time, Snapshot::default());
        }
        assert!(board.retransmissions.len() <= 4 * 10 + KEPT + 1);
        board.check(Seq(0), Seq(1000));
    }

    #[test]
    fn a_long_flight_leaves_no_memory_behind() {
        let config = ArenaConfig { frames: 1, frame_size: 2048, hugepages: Hugepages::Never };
        let arena = Arena::new(config).unwrap();
        let mut board = Scoreboard::default();
        for at in 0..10_000 {
            board.push(sent(at * 100, at * 100 + 100));
            board.mark_lost(at as usize);
            board.retransmitted(at as usize, at, Snapshot::default());
        }
        assert!(board.capacity() >= 20_000);
        while board.acknowledge(&arena, Seq(1_000_000)).is_some() {}
        board.settle();
        assert!(board.capacity() <= 4 * KEPT, "{}", board.capacity());
    }

    #[test]
    fn joined_records_keep_the_account() {
        let mut board = Scoreboard::default();
        for at in 0..5 {
            board.push(sent(at * 10, at * 10 + 10));
            board.mark_lost(at as usize);
        }
        board.join(1, 2);
        assert_eq!(board.len(), 3);
        assert_eq!((board.get(1).unwrap().start, board.get(1).unwrap().end), (Seq(10), Seq(40)));
        board.check(Seq(0), Seq(50));
    }
}
