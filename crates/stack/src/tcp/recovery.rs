//! What an acknowledgement does to what is in flight: the scoreboard, the detection of losses, and
//! the states between which a sender moves (RFC 5681, RFC 6675, RFC 6582, RFC 8985).
//!
//! The order is the same for every acknowledgement: what is delivered; what the round trip was;
//! what is lost; which state that makes; what window; which timer.

use millrace_wire::seq::Seq;

use super::chronograph::Limit;
use super::congestion::{AckSample, CaState, Congestion, LostSegment, Signal};
use super::connection::{Features, Flags};
use super::frto::{Decision, Frto, Seen};
use super::input::Segment;
use super::limited_transmit;
use super::rack::{self, Circumstances};
use super::rtt::Sample;
use super::scoreboard::{Mark, Sent};
use super::tail_loss_probe::Verdict;
use super::timers::Timer;
use super::transfer::Transfer;
use crate::stack::Stack;

/// Duplicate acknowledgements that mean a loss where the peer cannot say more (RFC 5681 §3.2).
const DUPLICATES: u32 = 3;

/// Where a sender stands.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    pub(crate) state: CaState,
    /// `snd_nxt` when the state was entered: acknowledged, it ends.
    pub(crate) high: Seq,
    /// Duplicate acknowledgements of a peer without SACK, and the bytes they stand for.
    pub(crate) duplicates: u32,
    pub(crate) duplicate_bytes: u32,
    pub(crate) frto: Frto,
    /// What the retransmission timer is running for.
    pub(crate) timer: Timer,
    /// The first segment is sent again whatever the window: a timeout wants it.
    pub(crate) force: bool,
}

impl Recovery {
    /// What was marked lost has to go again, but tells nothing of congestion: `high` is where it
    /// ends.
    pub(crate) fn lost_without_congestion(&mut self, high: Seq) {
        self.state = CaState::Loss;
        self.high = high;
        self.frto = Frto::Off;
        self.force = true;
    }
}

/// What an acknowledgement told.
#[derive(Debug, Default)]
struct Told {
    /// Bytes acknowledged cumulatively, bytes delivered for the first time, bytes newly marked lost.
    acked: u32,
    delivered: u32,
    lost: u32,
    /// Round-trip time by the first segment that was acknowledged, or by the first of a SACK block;
    /// 0: none.
    rtt_us: u32,
    sack_rtt_us: u32,
    /// The same by the last of them.
    last_rtt_us: u32,
    last_sack_rtt_us: u32,
    /// Something was acknowledged that had been sent more than once.
    repeated: bool,
    /// Something was delivered that was sent once, and before the state was entered.
    original: bool,
    /// SACK blocks told of something new.
    sacked: bool,
    dsack: bool,
    /// The segment acknowledges nothing new and carries nothing.
    duplicate: bool,
    /// When to look for losses again, microseconds; 0: no need.
    wait_us: u32,
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
    /// Bytes believed to be under way.
    #[inline]
    pub(crate) fn in_flight(&self, index: usize) -> u32 {
        let connection = &self.connections[index];
        match self.transfer(index) {
            Some(transfer) => {
                in_flight(transfer, connection.flight(), self.config.tcp.limited_transmit)
            }
            None => connection.flight(),
        }
    }

    /// An acknowledgement of nothing beyond `snd_nxt`. Returns whether it advanced. `duplicate`: it carries nothing, and leaves the window as it was.
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
            connection.advance_una(ack, self.tick);
            return told.acked > 0;
        }
        let prior_in_flight = self.in_flight(index);
        self.deliver(index, segment, &mut told);
        told.duplicate = duplicate && told.acked == 0 && prior_in_flight > 0;
        self.measure(index, segment, &told);
        let mut ce_bytes = 0;
        if self.connections[index].has_ecn() {
            ce_bytes = self.ecn_feedback(index, segment, told.delivered);
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
        if told.acked > 0 {
            connection.advance_una(ack, self.tick);
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
                    told.dsack = true;
                    self.counters.dsacks_received += 1;
                    transfer.totals.dsack_duplicates += 1;
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
            let (now_us, bounds) = (self.now_us, self.rtt_bounds);
            let connection = &mut self.connections[index];
            let (una, nxt) = (connection.snd_una, connection.snd_nxt);
            let path = told.path_us();
            let sample = Sample { rtt, path: if path > 0 { path } else { rtt } };
            connection.rtt.sample(sample, una, nxt, now_us, bounds);
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

    /// What is lost, by time or by count.
    fn detect_losses(&mut self, index: usize, told: &mut Told) {
        let (by_time, now_us) = (self.config.tcp.rack, self.now_us);
        let connection = &self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let Transfer { sent, rack, recovery, congestion, .. } = transfer;
        sent.keeps_losses = congestion.owns_window();
        let mss = u32::from(connection.mss);
        let recovering = matches!(recovery.state, CaState::Recovery | CaState::Loss);
        if connection.features.has(Features::SACK) {
            if sent.is_empty() || (sent.sacked == 0 && !recovering && !rack.reordering_seen) {
                // Everything arrived in order.
                return;
            }
            if by_time {
                let with = Circumstances {
                    now_us,
                    min_rtt_us: connection.rtt.least(),
                    smoothed_us: connection.rtt.smoothed(),
                    mss,
                    recovering,
                };
                (told.lost, told.wait_us) = rack.detect(sent, &with);
            } else {
                told.lost = rack::detect_by_count(sent, mss);
            }
        } else {
            if told.duplicate && recovery.state != CaState::Loss {
                recovery.duplicates += 1;
                let most = connection.flight().saturating_sub(sent.lost.max(mss));
                recovery.duplicate_bytes = (recovery.duplicate_bytes + mss).min(most);
                told.delivered += mss;
            } else if told.acked > 0 {
                let known = recovery.duplicate_bytes;
                told.delivered = told.delivered.saturating_sub(known).max(mss.min(told.acked));
                // One segment of what was acknowledged had been lost, the others were duplicates'.
                recovery.duplicate_bytes = match recovery.state {
                    CaState::Recovery => {
                        recovery.duplicate_bytes.saturating_sub(told.acked.saturating_sub(mss))
                    }
                    _ => 0,
                };
                let most = connection.flight().saturating_sub(sent.lost);
                recovery.duplicate_bytes = recovery.duplicate_bytes.min(most);
                if recovery.state != CaState::Recovery {
                    recovery.duplicates = 0;
                }
            }
            let third = recovery.state < CaState::Recovery && recovery.duplicates >= DUPLICATES;
            let partial = recovery.state == CaState::Recovery
                && told.acked > 0
                && connection.snd_una.lt(recovery.high);
            let head = sent.first().map(|first| (first.mark, first.len(), first.start));
            if (third || partial)
                && let Some((mark, len, start)) = head
                && !mark.has(Mark::LOST)
            {
                if len > mss {
                    sent.split(&self.arena, 0, start + mss);
                }
                told.lost += sent.mark_lost(0);
                // RFC 6582 §3.2: at once, for no other acknowledgement tells of it.
                recovery.force = true;
                let most = connection.flight().saturating_sub(sent.lost);
                recovery.duplicate_bytes = recovery.duplicate_bytes.min(most);
            }
        }
        self.count_losses(index, told.lost);
    }

    /// So many bytes were marked lost.
    fn count_losses(&mut self, index: usize, bytes: u32) {
        let now_us = self.now_us;
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let Transfer { sent, delivery, congestion, .. } = transfer;
        if !sent.keeps_losses {
            delivery.lost = delivery.lost.wrapping_add(bytes);
            return;
        }
        let no_sack = !connection.features.has(Features::SACK);
        for (len, snapshot) in sent.losses.drain(..) {
            let lost = LostSegment { no_sack, ..delivery.lose(len, &snapshot, now_us) };
            connection.congestion.on_segment_lost(congestion, &lost);
        }
    }

    fn change_state(&mut self, index: usize, segment: &Segment, told: &Told) {
        let connection = &self.connections[index];
        let (una, nxt) = (connection.snd_una, connection.snd_nxt);
        let echo = segment.timestamps.map(|(_, echo)| echo);
        let unsent = connection.unsent() > 0 && (una + connection.snd_wnd).gt(nxt);
        let selective = connection.features.has(Features::SACK);
        let may_undo = self.config.tcp.undo;
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };

        let plain = told.acked == 0 && !told.sacked;
        let verdict = transfer.probe.acknowledged(una, told.dsack, plain && told.duplicate);
        let state = transfer.recovery.state;
        let over = una.ge(transfer.recovery.high);
        match state {
            CaState::Open | CaState::Disorder | CaState::Cwr => {
                if verdict == Verdict::Repaired && state != CaState::Cwr {
                    self.enter_reduction(index, Signal::Loss);
                }
                if told.lost > 0 {
                    return self.enter_recovery(index);
                }
                let Some(transfer) = self.transfer_if_any(index) else { return };
                if transfer.recovery.state == CaState::Cwr {
                    if over && verdict != Verdict::Repaired {
                        self.end_reduction(index);
                    }
                } else {
                    // A peer that reports a duplicate shows that a probe or a recovery was needless.
                    if may_undo && told.dsack && transfer.undo.all_duplicates() {
                        self.undo(index, false);
                    }
                    let Some(transfer) = self.transfer_if_any(index) else { return };
                    let disorder =
                        transfer.sent.sacked > 0 || transfer.recovery.duplicate_bytes > 0;
                    transfer.recovery.state =
                        if disorder { CaState::Disorder } else { CaState::Open };
                    if !disorder && told.acked > 0 {
                        transfer.recovery.duplicates = 0;
                    }
                }
            }
            CaState::Recovery => {
                if over {
                    // RFC 6582 §4: a peer without SACK may still send duplicates of this window.
                    if !selective && una == transfer.recovery.high && !transfer.sent.is_empty() {
                        return;
                    }
                    if may_undo && transfer.undo.proven(echo) {
                        self.undo(index, false);
                    } else {
                        self.end_recovery(index);
                    }
                } else if may_undo
                    && (transfer.undo.all_duplicates()
                        || (told.acked > 0
                            && transfer.undo.original_arrived(echo)
                            && transfer.sent.retransmitted == 0))
                {
                    self.undo(index, true);
                }
            }
            CaState::Loss => {
                if may_undo && (told.acked > 0 || told.dsack) && transfer.undo.proven(echo) {
                    return self.undo(index, true);
                }
                let decision = transfer.recovery.frto.decide(&Seen {
                    original: told.original,
                    advanced: told.acked > 0 && !over,
                    duplicate: told.sacked || told.duplicate,
                    new_data: unsent,
                    snd_nxt: nxt,
                    high: transfer.recovery.high,
                });
                match decision {
                    Decision::Spurious => {
                        self.counters.spurious_timeouts += 1;
                        return self.undo(index, true);
                    }
                    Decision::SendNew => {}
                    Decision::Lost => {}
                }
                if over {
                    self.end_recovery(index);
                }
            }
        }
    }

    #[inline]
    fn transfer_if_any(&mut self, index: usize) -> Option<&mut Transfer> {
        self.transfers.get_mut(self.connections[index].transfer)
    }

    /// The window comes down without anything to send again: a mark of congestion, or a loss that
    /// a probe has repaired.
    pub(crate) fn enter_reduction(&mut self, index: usize, signal: Signal) {
        let now_us = self.now_us;
        let in_flight = self.in_flight(index);
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        if transfer.recovery.state >= CaState::Cwr {
            return;
        }
        let mss = u32::from(connection.mss);
        let prior = connection.congestion;
        transfer.undo.end();
        connection.congestion.on_congestion(
            &mut transfer.congestion,
            in_flight,
            mss,
            now_us,
            signal,
        );
        transfer.prr.begin(prior.window.max(in_flight));
        transfer.recovery.state = CaState::Cwr;
        transfer.recovery.high = connection.snd_nxt;
        connection.ecn_reduced();
        self.counters.congestion_reductions += 1;
    }

    fn end_reduction(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        if !transfer.congestion.owns_window() {
            connection.congestion.window =
                connection.congestion.window.min(connection.congestion.threshold);
        }
        transfer.recovery.state = CaState::Open;
    }

    fn enter_recovery(&mut self, index: usize) {
        let small = self.connections[index].flags.has(Flags::SMALL_SEGMENTS);
        if small && self.only_the_probe_was_lost(index) {
            return;
        }
        let now_us = self.now_us;
        let in_flight = self.in_flight(index);
        let proportional = self.config.tcp.prr;
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let mss = u32::from(connection.mss);
        let was = transfer.recovery.state;
        if was != CaState::Cwr {
            let prior = connection.congestion;
            transfer.undo.end();
            transfer.undo.begin(connection.snd_una, prior, transfer.sent.retransmitted);
            connection.congestion.on_congestion(
                &mut transfer.congestion,
                in_flight,
                mss,
                now_us,
                Signal::Loss,
            );
            transfer.prr.begin(prior.window);
        }
        if !proportional && !transfer.congestion.owns_window() {
            connection.congestion.window = connection.congestion.threshold;
        }
        transfer.recovery.state = CaState::Recovery;
        transfer.recovery.high = connection.snd_nxt;
        connection.ecn_reduced();
        transfer.recovery.force = true;
        self.counters.fast_retransmits += 1;
    }

    fn end_recovery(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        if transfer.recovery.state == CaState::Recovery || transfer.congestion.owns_window() {
            connection.congestion.on_recovery_done(&mut transfer.congestion);
        }
        transfer.rack.recovered();
        transfer.undo.end();
        transfer.recovery.frto = Frto::Off;
        transfer.recovery.duplicates = 0;
        transfer.recovery.duplicate_bytes = 0;
        transfer.recovery.state =
            if transfer.sent.sacked > 0 { CaState::Disorder } else { CaState::Open };
    }

    /// The reduction was not necessary. `unmark`: nothing that was believed lost is.
    fn undo(&mut self, index: usize, unmark: bool) {
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        if unmark {
            transfer.sent.unmark_lost();
        }
        if let Some(prior) = transfer.undo.take() {
            connection.congestion.on_undo(&mut transfer.congestion, prior);
        }
        connection.retries = 0;
        transfer.undo.end();
        transfer.recovery.frto = Frto::Off;
        transfer.recovery.duplicates = 0;
        transfer.recovery.duplicate_bytes = 0;
        transfer.recovery.state =
            if transfer.sent.sacked > 0 { CaState::Disorder } else { CaState::Open };
        self.counters.reductions_undone += 1;
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
            connection.flags.clear(Flags::REXMIT_ARMED);
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

    /// The time to wait for reordering is over (RFC 8985 §6.3).
    pub(crate) fn reordering_over(&mut self, index: usize) {
        let mut told = Told::default();
        self.detect_losses(index, &mut told);
        let Some(transfer) = self.transfer_if_any(index) else { return };
        if told.lost > 0 && transfer.recovery.state < CaState::Recovery {
            self.enter_recovery(index);
        }
        if told.lost > 0 {
            let in_flight = self.in_flight(index);
            let proportional = self.config.tcp.prr;
            let connection = &mut self.connections[index];
            let mss = u32::from(connection.mss);
            if let Some(transfer) = self.transfers.get_mut(connection.transfer)
                && transfer.recovery.state == CaState::Recovery
                && !transfer.congestion.owns_window()
                && proportional
            {
                let threshold = connection.congestion.threshold;
                connection.congestion.window =
                    transfer.prr.window(0, in_flight, threshold, mss, false);
            }
            self.push_out(index);
        }
        if told.wait_us > 0 {
            self.arm_reorder(index, told.wait_us);
        } else {
            self.arm_retransmission(index);
        }
    }

    /// The retransmission timer ran out (RFC 6298 §5.4 to §5.6, RFC 8985 §6.3 and RFC 5682): what
    /// is in flight is lost, but for what left so late that it may still arrive.
    pub(crate) fn enter_loss(&mut self, index: usize) {
        let now_us = self.now_us;
        let (by_time, detect_spurious) = (self.config.tcp.rack, self.config.tcp.frto);
        let connection = &mut self.connections[index];
        let mss = u32::from(connection.mss);
        let rtt = connection.rtt.smoothed();
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let Transfer { sent, recovery, undo, probe, prr, congestion, .. } = &mut *transfer;
        sent.keeps_losses = congestion.owns_window();
        if sent.first().is_some_and(|first| first.mark.has(Mark::SACKED)) {
            // The peer has the first segment and does not acknowledge it: it threw it away.
            sent.renege();
            self.counters.sack_reneged += 1;
        }
        // What is under way now: a reduction is by this, not by what is left afterwards.
        let before = (connection.snd_nxt - connection.snd_una) as u32 - sent.sacked;
        let first_time = recovery.state != CaState::Loss || connection.snd_una.gt(recovery.high);
        let mut lost = 0;
        for at in 0..sent.len() {
            let Some(&piece) = sent.get(at) else { break };
            let late = now_us.wrapping_sub(piece.sent_at) > rtt + rtt / 4;
            if piece.mark.has(Mark::SACKED) || (at > 0 && by_time && !late) {
                continue;
            }
            if !piece.mark.has(Mark::LOST) {
                lost += piece.len();
            }
            sent.mark_lost(at);
        }
        if first_time {
            undo.end();
            undo.begin(connection.snd_una, connection.congestion, 0);
        } else {
            undo.begin_again(connection.snd_una);
        }
        let was_recovering = recovery.state == CaState::Recovery;
        recovery.duplicates = 0;
        recovery.duplicate_bytes = 0;
        recovery.state = CaState::Loss;
        recovery.high = connection.snd_nxt;
        recovery.force = true;
        recovery.frto = if detect_spurious && !was_recovering && first_time {
            Frto::Retransmitted
        } else {
            Frto::Off
        };
        probe.cancel();
        prr.begin(before);
        let left = in_flight(transfer, connection.flight(), true);
        connection.ecn_reduced();
        connection.congestion.on_timeout(&mut transfer.congestion, left, mss, now_us, first_time);
        self.count_losses(index, lost);
        self.push_out(index);
    }
}

#[inline]
fn in_flight(transfer: &Transfer, flight: u32, limited_transmit: bool) -> u32 {
    let left = limited_transmit::makes_room(transfer, limited_transmit) + transfer.sent.lost;
    flight.saturating_sub(left) + transfer.sent.retransmitted
}
