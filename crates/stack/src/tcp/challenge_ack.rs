//! Answers to segments that cannot be right: challenge acknowledgements (RFC 5961) and those to
//! segments outside the window (RFC 9293 §3.10.7.4), and how many of them there may be.
//!
//! A connection answers once in a while, so that two ends that find each other's segments wrong
//! do not answer each other for ever. Challenges have a bound for the whole stack, too. A bound
//! that is known and shared tells anybody who can use it up whether a third party's connection
//! exists (CVE-2016-5696), so it is another one in each second, and nobody can count against it.

use super::input::Segment;
use crate::stack::Stack;

/// Sets the hash that a second's bound comes from apart from other uses of the key.
const DOMAIN: u64 = 0x6368_616c_6c65_6e67;

/// What is remembered of answers.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// When each connection answered last: milliseconds, and of which user of the entry.
    last: Box<[(u32, u32)]>,
    /// The second that `left` is for.
    second: u32,
    /// Challenges that may still be sent in it.
    left: u32,
}

impl Answers {
    pub(crate) fn new(connections: u32) -> Self {
        // Generations begin with 0, so nobody's is this.
        let last = vec![(0, u32::MAX); connections as usize].into_boxed_slice();
        Answers { last, second: u32::MAX, left: 0 }
    }
}

impl Stack {
    /// A segment outside the window, which has a place in no stream: the peer is told where we
    /// are, and what of it was there. Segments with data are no part of a loop of answers and always
    /// get one; a FIN alone repeats one that nobody waits for an answer to, or is answered soon enough.
    pub(crate) fn answer_outside_window(&mut self, index: usize, segment: &Segment) {
        if segment.len > 0 || self.may_answer(index) {
            let end = segment.seq + segment.sequence_len();
            let known = end.min(self.connections[index].rcv_nxt);
            if known.gt(segment.seq) {
                self.report_duplicate(index, segment.seq, known);
            }
            self.acknowledge_now(index);
        }
    }

    /// Answers with an acknowledgement that makes a real peer reset in earnest (RFC 5961 §3.2,
    /// §4.2, §5.2).
    pub(crate) fn challenge(&mut self, index: usize) {
        if !self.may_answer(index) {
            return;
        }
        if !self.may_challenge() {
            self.counters.drop_challenge_rate += 1;
            return;
        }
        self.counters.challenge_acks += 1;
        self.acknowledge_now(index);
    }

    /// Whether this connection's last answer is long enough ago.
    pub(crate) fn may_answer(&mut self, index: usize) -> bool {
        let generation = self.connections[index].generation;
        let interval = self.config.invalid_ack_interval.as_millis();
        let (at, of) = self.answers.last[index];
        if of == generation && u128::from(self.now_ms.wrapping_sub(at)) < interval {
            self.counters.acks_suppressed += 1;
            return false;
        }
        self.answers.last[index] = (self.now_ms, generation);
        true
    }

    /// Whether the stack may send another challenge in this second.
    fn may_challenge(&mut self) -> bool {
        let limit = self.config.challenge_acks_per_second;
        if limit == u32::MAX {
            return true;
        }
        if self.answers.second != self.now_s {
            self.answers.second = self.now_s;
            let random = self.keys.prf(&[DOMAIN, self.now_s.into()]) % u64::from(limit.max(1));
            // Half of the limit to one and a half, and the limit in the mean.
            self.answers.left = if limit == 0 { 0 } else { limit.div_ceil(2) + random as u32 };
        }
        self.answers.left = match self.answers.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}
