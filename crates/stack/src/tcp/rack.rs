//! RACK: loss detection by time (RFC 8985 §6).
//!
//! A transmission is lost when one that left later has arrived, and the path has had time to
//! reorder the two. No count of duplicates, so it finds lost retransmissions and losses at the end
//! of a flight as well.

use millrace_wire::seq::Seq;

use super::scoreboard::{Mark, Scoreboard, Sent};

/// Round trips that a larger reordering window lasts (RFC 8985 §6.2, step 4).
const PERSISTENCE: u8 = 16;

/// Segments that arrive above a hole before it is taken for a loss, on a path that is not known to
/// reorder; and as many as it takes at most on one that does.
const DUPLICATES: u16 = 3;
const MOST_REORDERING: u32 = 300;

/// State of RFC 8985 §5.3.
#[derive(Debug)]
pub(crate) struct Rack {
    /// The transmission that left last among those that have arrived.
    sent_at: u32,
    end: Seq,
    /// Round trip of the one that arrived last.
    rtt: u32,
    valid: bool,
    pub(crate) reordering_seen: bool,
    /// By how many segments the path has reordered at most; three before it has.
    pub(crate) reordering: u16,
    /// Reordering window in quarters of the least round-trip time, and how many recoveries it
    /// stays so wide.
    quarters: u8,
    persist: u8,
    /// Where the round trip ends in which a duplicate was reported last.
    dsack_round: Option<Seq>,
}

impl Default for Rack {
    fn default() -> Self {
        Rack {
            sent_at: 0,
            end: Seq(0),
            rtt: 0,
            valid: false,
            reordering_seen: false,
            reordering: DUPLICATES,
            quarters: 1,
            persist: 0,
            dsack_round: None,
        }
    }
}

/// What the detection needs to know of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    pub(crate) now_us: u32,
    pub(crate) min_rtt_us: u32,
    pub(crate) smoothed_us: u32,
    pub(crate) mss: u32,
    /// In fast recovery, or after a timeout.
    pub(crate) recovering: bool,
}

fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Whether a transmission left after another one; of two at once the later in sequence.
fn sent_after((a, a_end): (u32, Seq), (b, b_end): (u32, Seq)) -> bool {
    before(b, a) || (a == b && a_end.gt(b_end))
}

impl Rack {
    /// Nothing was learned that is worth keeping.
    pub(crate) fn is_plain(&self) -> bool {
        !self.reordering_seen && self.quarters == 1 && self.reordering == DUPLICATES
    }

    /// A transmission has arrived (RFC 8985 §6.2, steps 2 and 3). `earlier`: not this one, but a
    /// copy of it that left before.
    pub(crate) fn arrived(&mut self, sent: &Sent, now_us: u32, earlier: bool) {
        if earlier {
            return;
        }
        let rtt = now_us.wrapping_sub(sent.sent_at);
        if !self.valid || sent_after((sent.sent_at, sent.end), (self.sent_at, self.end)) {
            self.sent_at = sent.sent_at;
            self.end = sent.end;
            self.valid = true;
        }
        self.rtt = rtt;
    }

    /// Something leaves and nothing is in flight: what arrived last before says nothing more, and
    /// the clock may have gone round since then.
    #[inline]
    pub(crate) fn begin_flight(&mut self) {
        self.valid = false;
    }

    /// A transmission has arrived after all that left before it, and before all others.
    #[inline]
    pub(crate) fn arrived_in_order(&mut self, sent_at: u32, end: Seq, now_us: u32) {
        self.sent_at = sent_at;
        self.end = end;
        self.valid = true;
        self.rtt = now_us.wrapping_sub(sent_at);
    }

    /// What was sent once only, from `low` on, has arrived after something up to `highest` had: it
    /// was not lost but overtaken (step 3).
    pub(crate) fn reordered(&mut self, low: Seq, highest: Seq, mss: u32) {
        let segments = ((highest - low).max(0) as u32).div_ceil(mss).min(MOST_REORDERING);
        self.reordering = self.reordering.max(segments as u16);
        self.reordering_seen = true;
    }

    /// A duplicate was reported: the window was too narrow (step 4).
    pub(crate) fn duplicate_reported(&mut self, snd_una: Seq, snd_nxt: Seq) {
        let in_it = self.dsack_round.is_some_and(|round| (round - 1).between(snd_una, snd_nxt));
        if !in_it {
            self.dsack_round = Some(snd_nxt);
            self.quarters = self.quarters.saturating_add(1);
            self.persist = PERSISTENCE;
        }
    }

    /// A recovery has ended.
    pub(crate) fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.quarters = 1;
        }
    }

    fn reordering_window(&self, board: &Scoreboard, with: &Circumstances) -> u32 {
        let threshold = u32::from(self.reordering) * with.mss;
        if !self.reordering_seen && (with.recovering || board.sacked >= threshold) {
            return 0;
        }
        // Before the first sample the least round trip is without bound.
        let window = (with.min_rtt_us / 4).saturating_mul(self.quarters.into());
        window.min(with.smoothed_us)
    }

    /// Marks what is lost (step 5). Returns the bytes, and when to look again, in microseconds
    /// from now: something sent earlier has not arrived, but may still.
    pub(crate) fn detect(&mut self, board: &mut Scoreboard, with: &Circumstances) -> (u32, u32) {
        if !self.valid {
            return (0, 0);
        }
        let allowed = self.rtt.saturating_add(self.reordering_window(board, with));
        let newest = (self.sent_at, self.end);
        let (mut lost, mut wait) = (0, 0);
        let late = |sent_at: u32, allowed: u32| -> Result<(), u32> {
            let elapsed = with.now_us.wrapping_sub(sent_at);
            if elapsed >= allowed { Ok(()) } else { Err(allowed - elapsed) }
        };

        // First transmissions left in the order of their numbers.
        let mut at = board.find(board.undecided);
        let mut all_settled = true;
        while let Some(&sent) = board.get(at) {
            let settled = sent.mark.has(Mark::SACKED.with(Mark::LOST).with(Mark::RETRANSMITTED));
            if !settled {
                if !sent.mark.has(Mark::EVER) && !sent_after(newest, (sent.sent_at, sent.end)) {
                    break;
                }
                let due = if sent_after(newest, (sent.sent_at, sent.end)) {
                    late(sent.sent_at, allowed)
                } else {
                    Err(0)
                };
                match due {
                    Ok(()) => lost += board.mark_lost(at),
                    Err(left) => {
                        wait = wait.max(left);
                        all_settled = false;
                    }
                }
            }
            at += 1;
            if all_settled {
                board.undecided = sent.end;
            }
        }

        // Copies left in the order of time.
        while let Some(&(start, sent_at)) = board.retransmissions.front() {
            let at = board.find(start);
            let current = board.get(at).filter(|sent| {
                sent.start.le(start)
                    && sent.sent_at == sent_at
                    && sent.mark.has(Mark::RETRANSMITTED)
            });
            if let Some(sent) = current {
                if !sent_after(newest, (sent_at, sent.end)) {
                    break;
                }
                // Never in the instant in which it left: a peer so near that its answers take no
                // time, and that has no room, would make copies of one segment without an end.
                match late(sent_at, allowed.max(1)) {
                    Ok(()) => lost += board.mark_lost(at),
                    Err(left) => {
                        wait = wait.max(left);
                        break;
                    }
                }
            }
            board.retransmissions.pop_front();
        }
        (lost, wait)
    }
}

/// Without RACK: a segment is lost when more than two segments' worth above it has arrived (RFC
/// 6675 §4, `IsLost`), or with duplicates counted, once. Marks what is, and returns the bytes.
pub(crate) fn detect_by_count(board: &mut Scoreboard, mss: u32) -> u32 {
    let mut above = 0;
    let mut first_not_lost = board.len();
    while first_not_lost > 0 && above <= 2 * mss {
        first_not_lost -= 1;
        let sent = board.get(first_not_lost);
        above += sent.filter(|sent| sent.mark.has(Mark::SACKED)).map_or(0, Sent::len);
    }
    if above <= 2 * mss {
        return 0;
    }
    let mut lost = 0;
    for at in board.find(board.undecided)..first_not_lost {
        let Some(&sent) = board.get(at) else { break };
        let settled = Mark::SACKED.with(Mark::LOST).with(Mark::RETRANSMITTED).with(Mark::EVER);
        if !sent.mark.has(settled) {
            lost += board.mark_lost(at);
        }
        board.undecided = sent.end;
    }
    lost
}

#[cfg(test)]
mod tests {
    use millrace_frames::{Arena, ArenaConfig, Frame, Hugepages};

    use super::super::delivery_rate::Snapshot;
    use super::*;

    const MSS: u32 = 1000;

    fn segments(board: &mut Scoreboard, from: u32, to: u32, sent_at: u32) {
        board.push(Sent {
            start: Seq(from * MSS),
            end: Seq(to * MSS),
            frame: Frame::NONE,
            sent_at,
            mark: Mark::default(),
            snapshot: Snapshot::default(),
        });
    }

    /// Three segments leave again as one super-segment. The peer gets the first, so the copy's
    /// record begins later now; that the others are missing must be found all the same, by time.
    #[test]
    fn the_rest_of_a_copy_that_arrived_in_part_is_lost_too() {
        let config = ArenaConfig { frames: 8, frame_size: 2048, hugepages: Hugepages::Never };
        let arena = Arena::new(config).expect("memory for a small arena");
        let mut board = Scoreboard::default();
        segments(&mut board, 0, 1, 0);
        segments(&mut board, 1, 4, 0);
        board.mark_lost(1);
        board.retransmitted(1, 10_000, Snapshot::default());
        segments(&mut board, 4, 5, 11_000);
        segments(&mut board, 5, 6, 11_000);
        while board.acknowledge(&arena, Seq(2 * MSS)).is_some() {}
        let mut rack = Rack::default();
        let with = Circumstances {
            now_us: 31_000,
            min_rtt_us: 20_000,
            smoothed_us: 20_000,
            mss: MSS,
            recovering: true,
        };
        board.sack(&arena, (Seq(5 * MSS), Seq(6 * MSS)), MSS, &mut |sent| {
            rack.arrived(sent, with.now_us, false);
        });
        let (lost, _) = rack.detect(&mut board, &with);
        assert_eq!(lost, 3 * MSS, "the rest of the copy, and what left before the last");
        assert_eq!(board.next_lost(), Some(0));
    }

    #[test]
    fn a_duplicate_widens_the_window_again_gigabytes_later() {
        let mut rack = Rack::default();
        rack.duplicate_reported(Seq(1000), Seq(5000));
        rack.duplicate_reported(Seq(4000), Seq(9000));
        assert_eq!(rack.quarters, 2, "one round trip");
        rack.duplicate_reported(Seq(2_200_000_000), Seq(2_200_010_000));
        assert_eq!(rack.quarters, 3);
    }
}
