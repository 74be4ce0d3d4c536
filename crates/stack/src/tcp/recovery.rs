//! The states between which a sender moves (RFC 5681, RFC 6582, RFC 6298, RFC 5682): Open, Disorder,
//! CWR, Recovery and Loss, as Linux names them, and what is done on the way from one to another.

use millrace_wire::seq::Seq;

use super::acknowledgement::Told;
use super::congestion::{CaState, Signal};
use super::connection::{Features, Flags};
use super::frto::{Decision, Frto, Seen};
use super::input::Segment;
use super::limited_transmit;
use super::scoreboard::Mark;
use super::tail_loss_probe::Verdict;
use super::timers::Timer;
use super::transfer::Transfer;
use crate::stack::Stack;

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

    pub(super) fn change_state(&mut self, index: usize, segment: &Segment, told: &Told) {
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
        // RFC 6582 §3.2 and §4: copies that were not needed may still come back as duplicates, and
        // begin no recovery before something later is acknowledged.
        let at_the_end = !selective && una == transfer.recovery.high && !transfer.sent.is_empty();
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
                    if at_the_end {
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
                // An echo proves something only if it comes with progress (RFC 3522 §3.2, step 3):
                // without it, it is that of the segment before the gap, which is always older.
                let undo = &transfer.undo;
                let progress = told.acked > 0;
                if may_undo
                    && ((progress && undo.proven(echo)) || (told.dsack && undo.all_duplicates()))
                {
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
                if over && !at_the_end {
                    self.end_recovery(index);
                }
            }
        }
    }

    #[inline]
    pub(super) fn transfer_if_any(&mut self, index: usize) -> Option<&mut Transfer> {
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
            // Proportional rate reduction leaves what was in flight, which is little of a window that
            // was not used.
            let before = transfer.prr.begun_with();
            connection.congestion.window = connection.congestion.threshold.min(before);
        }
        transfer.recovery.state = CaState::Open;
    }

    pub(super) fn enter_recovery(&mut self, index: usize) {
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
        if was != CaState::Cwr || transfer.congestion.heeds_losses_more() {
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
        transfer.undo.recovered(connection.snd_una);
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
        self.silence_ended(index);
    }

    /// The retransmission timer ran out (RFC 6298 §5.4 to §5.6, RFC 8985 §6.3 and RFC 5682): what
    /// is in flight is lost, but for what left so late that it may still arrive.
    pub(crate) fn enter_loss(&mut self, index: usize) {
        let now_us = self.now_us;
        let (rack, detect_spurious) = (self.config.tcp.rack, self.config.tcp.frto);
        let connection = &mut self.connections[index];
        // Nothing would tell that what left late has arrived (RFC 8985 §3.1).
        let by_time = rack && connection.features.has(Features::SACK);
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
        // By the timer: progress since the last timeout means that this one is for other data.
        let first_time = recovery.state != CaState::Loss || connection.retries == 1;
        // Copies that may still be reported as duplicates.
        let copies = sent.retransmitted;
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
            undo.begin(connection.snd_una, connection.congestion, copies);
        } else {
            undo.begin_again(connection.snd_una);
        }
        // What was sent again before says as little of this timeout as its acknowledgements do
        // (RFC 5682 §2.1, step 1).
        let recovering = recovery.state >= CaState::Recovery;
        recovery.duplicates = 0;
        recovery.duplicate_bytes = 0;
        recovery.state = CaState::Loss;
        recovery.high = connection.snd_nxt;
        recovery.force = true;
        recovery.frto = match detect_spurious && !recovering {
            true => Frto::Retransmitted,
            false => Frto::Off,
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
