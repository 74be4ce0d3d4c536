//! What an acknowledgement tells of what is in flight, and the steps that follow (RFC 5681, RFC 6675,
//! RFC 2018, RFC 2883). The order is the same for every acknowledgement: what is delivered; what the
//! round trip was; what is lost ([`super::loss_detection`]); which state that makes
//! ([`super::recovery`]); what window; which timer.

use millrace_wire::seq::Seq;

use super::chronograph::Limit;
use super::congestion::{AckSample, CaState, Congestion};
use super::connection::{Features, Flags};
use super::input::Segment;
use super::rtt::Sample;
use super::scoreboard::{Mark, Sent};
use super::transfer::Transfer;
use crate::stack::Stack;

/// What an acknowledgement told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Bytes acknowledged cumulatively, bytes delivered for the first time, bytes newly marked lost.
    pub(super) acked: u32,
    pub(super) delivered: u32,
    pub(super) lost: u32,
    /// In how many segments the delivered bytes were.
    pub(super) segments: u32,
    /// Round-trip time by the first segment that was acknowledged, or by the first of a SACK block;
    /// 0: none.
    pub(super) rtt_us: u32,
    pub(super) sack_rtt_us: u32,
    /// The same by the last of them.
    pub(super) last_rtt_us: u32,
    pub(super) last_sack_rtt_us: u32,
    /// Something was acknowledged that had been sent more than once.
    pub(super) repeated: bool,
    /// Something was delivered that was sent once, and before the state was entered.
    pub(super) original: bool,
    /// SACK blocks told of something new.
    pub(super) sacked: bool,
    pub(super) dsack: bool,
    /// The segment acknowledges nothing new and carries nothing.
    pub(super) duplicate: bool,
    /// When to look for losses again, microseconds; 0: no need.
    pub(super) wait_us: u32,
}

impl Told {
    /// Time since what arrived last was sent; 0: it is not known, for it was sent more than once.
    fn path_us(&self) -> u32 {
        let cumulative = if self.repeated { 0 } else { self.last_rtt_us };
        match (cumulative, self.last_sack_rtt_us) {
            (0, other) | (other, 0) => other,
            (one, other) => one.min(other),
        }
    }
}

impl Stack {
    /// Whether something may be learnt with nothing in flight: that a copy was needless is told a
    /// round trip after it left, when its original has long been acknowledged (RFC 2883 §4, RFC 8985
    /// §7.4.2).
    pub(crate) fn hears_of_copies(&self, index: usize, segment: &Segment) -> bool {
        self.transfer(index)
            .is_some_and(|transfer| !transfer.probe.is_idle() || !segment.options.sack().is_empty())
    }

    /// An acknowledgement of nothing beyond `snd_nxt`. Returns whether it advanced. `duplicate`: it
    /// carries nothing, and leaves the window as it was.
    #[inline]
    pub(crate) fn acknowledged(
        &mut self,
        index: usize,
        segment: &Segment,
        duplicate: bool,
    ) -> bool {
        self.acknowledged_in_order(index, segment)
            || self.acknowledged_with_care(index, segment, duplicate)
    }

    fn acknowledged_with_care(&mut self, index: usize, segment: &Segment, duplicate: bool) -> bool {
        let connection = &mut self.connections[index];
        // An acknowledgement that was overtaken still has SACK blocks worth reading.
        let ack = segment.ack.max(connection.snd_una);
        let mut told = Told { acked: (ack - connection.snd_una) as u32, ..Told::default() };
        if connection.transfer == super::connection::NO_LINK {
            // Nothing is in flight, or only a SYN or FIN that is not on a scoreboard.
            if connection.advance_una(ack, self.tick) {
                self.acked_around(index);
            }
            return told.acked > 0;
        }
        let prior_in_flight = self.in_flight(index);
        let probed = self.transfer(index).is_some_and(|transfer| !transfer.probe.is_idle());
        self.deliver(index, segment, &mut told);
        told.duplicate = duplicate && told.acked == 0 && (prior_in_flight > 0 || probed);
        self.measure(index, segment, &told);
        let mut ce_bytes = 0;
        if self.connections[index].has_ecn() {
            ce_bytes = self.ecn_feedback(index, segment, &told);
        }
        if self.needs_thought(index, &told) {
            self.detect_losses(index, &mut told);
            self.change_state(index, segment, &told);
        }
        self.set_window(index, &told, prior_in_flight, ce_bytes);
        self.after_acknowledgement(index, &told);
        told.acked > 0
    }

    /// Cumulative acknowledgement and SACK blocks go to the scoreboard.
    fn deliver(&mut self, index: usize, segment: &Segment, told: &mut Told) {
        let now_us = self.now_us;
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let Transfer { sent, rack, delivery, recovery, undo, .. } = transfer;
        let (una, nxt) = (connection.snd_una, connection.snd_nxt);
        let ack = segment.ack.max(una);
        let least = connection.rtt.least();
        let high = recovery.high;
        let timestamps = connection.features.has(Features::TIMESTAMPS);
        let echo = segment.timestamps.filter(|_| timestamps).map(|(_, echo)| echo);
        let older = undo.original_arrived(echo);
        let mss = u32::from(connection.mss);
        // In fast recovery an original that arrives after its copy left was overtaken, no less than
        // one that was not given up: with no window for reordering, none would ever be seen.
        let reordering = recovery.state == CaState::Recovery;
        // The lowest piece that was overtaken, if any.
        let highest = if sent.sacked > 0 { sent.highest_sacked } else { una };
        let mut late = None;

        while let Some(piece) = sent.acknowledge(&self.arena, ack) {
            let ever = piece.mark.has(Mark::EVER);
            told.repeated |= ever;
            if piece.mark.has(Mark::SACKED) {
                continue;
            }
            told.delivered += piece.len();
            told.segments += piece.len().div_ceil(mss);
            let earlier = piece.earlier_copy_arrived(now_us, least, older);
            delivery.delivered(&piece, now_us, earlier);
            rack.arrived(&piece, now_us, earlier);
            let overtaken = !ever || (earlier && reordering);
            if overtaken && late.is_none() && piece.start.lt(highest) {
                late = Some(piece.start);
            }
            if !ever {
                told.original |= piece.end.le(high);
                told.last_rtt_us = now_us.wrapping_sub(piece.sent_at).max(1);
                if told.rtt_us == 0 {
                    told.rtt_us = told.last_rtt_us;
                }
            }
        }
        if told.repeated && !connection.features.has(Features::SACK) {
            // A peer that cannot tell of what lies beyond a gap has held it since before the timeout:
            // the copy alone lets the acknowledgement jump over all of it (RFC 5682 §2.1, step 2).
            told.original = false;
        }
        if told.acked > 0 {
            if connection.advance_una(ack, self.tick) {
                transfer.totals.acked_wraps = transfer.totals.acked_wraps.saturating_add(1);
            }
            connection.acknowledge_data(&mut self.arena, ack);
        }
        if let Some(low) = late {
            rack.reordered(low, highest, mss);
            transfer.totals.reorderings += 1;
        }

        let blocks = segment.options.sack();
        if blocks.is_empty() || !connection.features.has(Features::SACK) {
            return;
        }
        // What is new, in the order of numbers: a block is not overtaken by another of the same
        // acknowledgement.
        let mut parts = [(ack, ack); 8];
        let mut count = 0;
        for (number, &(start, end)) in blocks.iter().enumerate() {
            if start.ge(end) || end.gt(nxt) {
                self.counters.sack_blocks_refused += 1;
                continue;
            }
            // RFC 2883 §4: the first block reports a duplicate if it lies below the
            // acknowledgement, or inside of the second block.
            if number == 0 && self.config.tcp.dsack {
                let inside = blocks
                    .get(1)
                    .is_some_and(|&(from, to)| start.ge(from) && end.le(to) && ack.lt(start));
                if (end.le(ack) && start.ge(una - connection.max_window)) || inside {
                    self.counters.dsacks_received += 1;
                    let totals = &mut transfer.totals;
                    let segments = ((end - start) as u32).div_ceil(mss);
                    totals.dsack_duplicates = totals.dsack_duplicates.saturating_add(segments);
                    if totals.dsack_duplicates > totals.retransmitted {
                        // More than ever left again: the network makes duplicates, or the peer does,
                        // and they say nothing of copies (RFC 3708 §3).
                        continue;
                    }
                    told.dsack = true;
                    undo.duplicate_reported((start, end));
                    rack.duplicate_reported(ack, nxt);
                    continue;
                }
            }
            if end.le(ack) {
                continue;
            }
            let new = sent.unknown_parts((start.max(ack), end));
            for part in new.into_iter().filter(|part| part.0.lt(part.1)) {
                let at = parts[..count].partition_point(|other| other.0.lt(part.0));
                parts.copy_within(at..count, at + 1);
                parts[at] = part;
                count += 1;
            }
        }
        let mut late: Option<Seq> = None;
        let mut highest = if sent.sacked > 0 { sent.highest_sacked } else { ack };
        for &part in &parts[..count] {
            let mut newly = |piece: &Sent| {
                told.sacked = true;
                told.delivered += piece.len();
                told.segments += piece.len().div_ceil(mss);
                let earlier = piece.earlier_copy_arrived(now_us, least, older);
                delivery.delivered(piece, now_us, earlier);
                rack.arrived(piece, now_us, earlier);
                let ever = piece.mark.has(Mark::EVER);
                if (!ever || (earlier && reordering)) && piece.start.lt(highest) {
                    late = Some(late.map_or(piece.start, |low| low.min(piece.start)));
                }
                if !ever {
                    told.original |= piece.end.le(high);
                    told.last_sack_rtt_us = now_us.wrapping_sub(piece.sent_at).max(1);
                    if told.sack_rtt_us == 0 {
                        told.sack_rtt_us = told.last_sack_rtt_us;
                    }
                }
                highest = highest.max(piece.end);
            };
            sent.sack(&self.arena, part, mss, &mut newly);
        }
        if let Some(low) = late {
            rack.reordered(low, highest, mss);
            transfer.totals.reorderings += 1;
        }
        sent.know(blocks);
    }

    /// The round-trip time that the acknowledgement shows (RFC 6298 §3, RFC 7323 §4.1).
    fn measure(&mut self, index: usize, segment: &Segment, told: &Told) {
        let mut rtt = if told.repeated { 0 } else { told.rtt_us };
        if rtt == 0 {
            rtt = told.sack_rtt_us;
        }
        if rtt == 0
            && told.acked > 0
            && self.connections[index].features.has(Features::TIMESTAMPS)
            && let Some((_, echo)) = segment.timestamps
            && echo != 0
            && self.transfer(index).is_none_or(|transfer| transfer.copies.dates(echo))
            && let Some(age) = self.echo_age(index, echo)
        {
            rtt = age.saturating_mul(1000).max(1000);
        }
        if rtt > 0 {
            let (whole_us, bounds) = (self.whole_us, self.rtt_bounds);
            let connection = &mut self.connections[index];
            let (una, nxt) = (connection.snd_una, connection.snd_nxt);
            let path = told.path_us();
            let sample = Sample { rtt, path: if path > 0 { path } else { rtt } };
            connection.rtt.sample(sample, una, nxt, whole_us, bounds);
        }
    }

    /// Whether anything but progress in order has happened lately.
    #[inline]
    fn needs_thought(&self, index: usize, told: &Told) -> bool {
        self.transfer(index).is_some_and(|transfer| {
            transfer.recovery.state != CaState::Open
                || told.duplicate
                || told.dsack
                || transfer.sent.sacked > 0
                || transfer.recovery.duplicates > 0
                || !transfer.probe.is_idle()
                || transfer.rack.reordering_seen
        })
    }

    fn set_window(&mut self, index: usize, told: &Told, prior_in_flight: u32, ce_bytes: u32) {
        let now_us = self.now_us;
        let in_flight = self.in_flight(index);
        let proportional = self.config.tcp.prr;
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let mss = u32::from(connection.mss);
        let least = connection.rtt.least();
        let rate = transfer.delivery.sample(least);
        let state = transfer.recovery.state;
        let reducing = matches!(state, CaState::Recovery | CaState::Cwr);
        if reducing && proportional && told.delivered > 0 && !transfer.congestion.owns_window() {
            let Congestion { threshold, .. } = connection.congestion;
            let safe = told.acked > 0 && told.lost == 0;
            connection.congestion.window =
                transfer.prr.window(told.delivered, in_flight, threshold, mss, safe);
        }
        let sample = AckSample {
            now_us,
            acked: told.acked,
            delivered: told.delivered,
            lost: told.lost,
            in_flight,
            prior_in_flight,
            rtt_us: told.path_us(),
            min_rtt_us: least,
            smoothed_us: connection.rtt.smoothed(),
            mss,
            no_sack: !connection.features.has(Features::SACK),
            window_limited: transfer.usage.limits(&connection.congestion),
            peer_limited: transfer.limit == Limit::Window,
            reorders: transfer.rack.reordering_seen,
            state,
            ack: connection.snd_una,
            snd_nxt: connection.snd_nxt,
            rate,
            ce_bytes,
        };
        connection.congestion.on_ack(&mut transfer.congestion, &sample);
        if transfer.congestion.holds_back() {
            transfer.delivery.app_limited(in_flight);
        }
    }

    /// Timers, and what there is to send now.
    fn after_acknowledgement(&mut self, index: usize, told: &Told) {
        let connection = &mut self.connections[index];
        if connection.snd_una == connection.snd_nxt {
            // With nothing in flight before either, what runs is the persist timer.
            if told.acked > 0 {
                connection.flags.clear(Flags::REXMIT_ARMED);
            }
            if connection.unsent() == 0 {
                if let Some(transfer) = self.transfers.get_mut(connection.transfer) {
                    transfer.sent.settle();
                }
                self.settle_transfer(index);
                return;
            }
        } else if told.wait_us > 0 {
            self.arm_reorder(index, told.wait_us);
        } else if told.acked > 0 || told.sacked || told.lost > 0 {
            self.arm_retransmission(index);
        }
        let connection = &self.connections[index];
        let more = self
            .transfer(index)
            .is_some_and(|transfer| transfer.sent.lost > 0 || transfer.recovery.force);
        if more || connection.unsent() > 0 || connection.fin_unsent() {
            self.push_out(index);
        }
    }
}
