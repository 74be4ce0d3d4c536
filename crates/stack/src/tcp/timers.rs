//! What time does to a connection: retransmission, persist, delayed acknowledgement, expiry.
//!
//! Each connection has one timer on the wheel and up to three deadlines of its own. A deadline
//! that moves later, as nearly all do, leaves the timer where it is: when it runs out too early
//! it is set again. So an acknowledged segment costs a store and no work on the wheel.

use core::time::Duration;

use super::connection::{Failure, Features, Flags, State};
use crate::neighbour::NeighbourRef;
use crate::stack::Stack;
use crate::wheel;

/// Milliseconds that last at least this long, as far as the 32 bits of the clock can tell: 24 days.
#[inline]
pub(crate) fn millis(duration: Duration) -> u32 {
    let rest = u64::from(duration.subsec_nanos().div_ceil(1_000_000));
    duration.as_secs().saturating_mul(1000).saturating_add(rest).min(1 << 31) as u32
}

/// Ticks that last at least this long.
#[inline]
fn all_ticks(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000_000);
    wheel::tick_at_or_after(whole.saturating_add(duration.subsec_nanos().into()))
}

/// The same for what is short: at most 19 hours of them.
#[inline]
pub(crate) fn ticks(duration: Duration) -> u32 {
    all_ticks(duration).min(1 << 30) as u32
}

/// Ticks in the unit of the expiry deadline, as a shift: a millisecond, so that lingering, or a silent
/// peer's idle time, may last for days.
pub(crate) const EXPIRY_SHIFT: u32 = 4;
/// At most 26 days.
const MOST_EXPIRY_TICKS: u64 = 1 << (31 + EXPIRY_SHIFT);

#[inline]
fn ticks_of_us(micros: u32) -> u32 {
    ((u64::from(micros) * 1000) >> wheel::TICK_SHIFT) as u32 + 1
}

/// What the retransmission timer is running for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Retransmission (RFC 6298), or the persist timer.
    #[default]
    Timeout,
    /// A tail loss probe (RFC 8985 §7).
    Probe,
    /// The end of the reordering window (RFC 8985 §6.3).
    Reordering,
}

impl Stack {
    /// Makes sure that the connection's timer runs out no later than so many ticks from now.
    #[inline]
    pub(crate) fn wake_within(&mut self, index: usize, ticks: u32) {
        self.wake_by(index, self.tick + u64::from(ticks));
    }

    /// Makes sure that the connection's timer runs out no later than at this tick.
    #[inline]
    fn wake_by(&mut self, index: usize, at: u64) {
        match self.wheel.expires(index as u32) {
            Some(expires) if expires <= at => {}
            _ => {
                self.wheel.start(index as u32, at);
                self.next_tick = self.next_tick.min(at);
            }
        }
    }

    #[inline(always)]
    fn arm(&mut self, index: usize, after_us: u32, timer: Timer) {
        let timeout = ticks_of_us(after_us);
        let connection = &mut self.connections[index];
        // One tick more: the current one has partly passed.
        connection.rexmit_at = (self.tick as u32).wrapping_add(timeout + 1);
        connection.flags.set(Flags::REXMIT_ARMED);
        if let Some(transfer) = self.transfers.get_mut(connection.transfer) {
            transfer.recovery.timer = timer;
        }
        self.wake_within(index, timeout + 1);
    }

    /// Starts the retransmission timer afresh (RFC 6298 §5), or the probe timer where that comes
    /// first (RFC 8985 §7.2).
    #[inline]
    pub(crate) fn arm_retransmission(&mut self, index: usize) {
        let Some(probe) = self.probe_timeout(index) else { return self.arm_timeout(index) };
        let timeout = self.connections[index].rtt.backed_off(self.rtt_bounds);
        self.arm(index, probe.min(timeout), Timer::Probe);
    }

    /// Starts the retransmission timer, whatever else might come first.
    pub(crate) fn arm_timeout(&mut self, index: usize) {
        let timeout = self.connections[index].rtt.backed_off(self.rtt_bounds);
        let waited = self.already_waited(index);
        // Never at once: what has waited so long was sent again just now, or is about to be.
        let left = timeout.saturating_sub(waited).max(self.rtt_bounds.min.min(timeout));
        let left = self.clamp_to_user_timeout(index, left);
        self.arm(index, left, Timer::Timeout);
    }

    /// Looks for losses again when the reordering window is over. The timer takes the place of the
    /// retransmission timer and is no later than that (as in Linux): the window of a path that was
    /// down begins at a transmission of long ago, and would end when nothing has been sent again for
    /// as long.
    pub(crate) fn arm_reorder(&mut self, index: usize, after_us: u32) {
        if after_us > self.connections[index].rtt.backed_off(self.rtt_bounds) {
            return self.arm_timeout(index);
        }
        self.arm(index, after_us, Timer::Reordering);
    }

    /// New data has left: a probe that was planned waits for its acknowledgement too. `burst`: so had
    /// more than a segment at this very moment, and if all goes well the timer is where it belongs.
    #[inline]
    pub(crate) fn push_back_probe(&mut self, index: usize, burst: bool) {
        let to_move = self.transfer(index).is_some_and(|transfer| {
            transfer.recovery.timer == Timer::Probe && !(burst && transfer.goes_well())
        });
        if to_move {
            self.arm_retransmission(index);
        }
    }

    pub(crate) fn arm_delayed_ack(&mut self, index: usize) {
        let delay = self.delayed_ack_ticks(index);
        let connection = &mut self.connections[index];
        connection.delack_at = (self.tick as u32).wrapping_add(delay);
        connection.flags.set(Flags::DELACK_ARMED);
        self.wake_within(index, delay);
    }

    pub(crate) fn arm_expiry(&mut self, index: usize, after: Duration) {
        let at = self.tick + all_ticks(after).min(MOST_EXPIRY_TICKS) + 1;
        let at = at.div_ceil(1 << EXPIRY_SHIFT);
        let connection = &mut self.connections[index];
        connection.flags.clear(Flags::KEEPALIVE);
        connection.expire_at = at as u32;
        connection.flags.set(Flags::EXPIRE_ARMED);
        self.wake_by(index, at << EXPIRY_SHIFT);
    }

    /// Deadlines that have passed become ones of this moment, so that none of them is taken for one
    /// to come, however long ago it was. `expires`: when the timer was to run out, which no deadline
    /// is before.
    fn settle_deadlines(&mut self, index: usize, expires: u64) {
        let now = self.tick;
        let settle = |at: &mut u32, expires: u64, now: u64| {
            if expires + u64::from(at.wrapping_sub(expires as u32)) <= now {
                *at = now as u32;
            }
        };
        let connection = &mut self.connections[index];
        settle(&mut connection.delack_at, expires, now);
        settle(&mut connection.rexmit_at, expires, now);
        settle(&mut connection.expire_at, expires >> EXPIRY_SHIFT, now >> EXPIRY_SHIFT);
        if let Some(transfer) = self.transfers.get_mut(connection.transfer) {
            settle(&mut transfer.pacing.at_tick, expires, now);
        }
    }

    /// The connection's timer, which was to run out at the tick `expires`, did: does what is due, and
    /// sets it again for what is not.
    pub(crate) fn tcp_timer(&mut self, index: usize, expires: u64) {
        self.settle_deadlines(index, expires);
        let generation = self.connections[index].generation;
        let now = self.tick as u32;
        let due = |at: u32| at == now;
        let connection = &mut self.connections[index];
        if connection.flags.has(Flags::DELACK_ARMED) && due(connection.delack_at) {
            connection.flags.clear(Flags::DELACK_ARMED);
            self.counters.delayed_acks += 1;
            self.delay_in_vain(index);
            self.acknowledge_now(index);
        }
        let connection = &mut self.connections[index];
        if connection.flags.has(Flags::REXMIT_ARMED) && due(connection.rexmit_at) {
            connection.flags.clear(Flags::REXMIT_ARMED);
            let timer = match self.transfers.get_mut(connection.transfer) {
                Some(transfer) => core::mem::take(&mut transfer.recovery.timer),
                None => Timer::Timeout,
            };
            match timer {
                Timer::Timeout => self.retransmission_timeout(index),
                Timer::Probe => {
                    self.send_probe(index);
                    self.arm_timeout(index);
                }
                Timer::Reordering => self.reordering_over(index),
            }
        }
        if self.connections[index].generation != generation {
            return;
        }
        let connection = &mut self.connections[index];
        if connection.flags.has(Flags::EXPIRE_ARMED)
            && connection.expire_at == (self.tick >> EXPIRY_SHIFT) as u32
        {
            connection.flags.clear(Flags::EXPIRE_ARMED);
            self.expired(index);
        }
        if self.connections[index].generation != generation {
            return;
        }
        let connection = &mut self.connections[index];
        let paced_at = self.transfers.get(connection.transfer).map_or(now, |at| at.pacing.at_tick);
        if connection.flags.has(Flags::PACING_ARMED) && due(paced_at) {
            connection.flags.clear(Flags::PACING_ARMED);
            self.push_out(index);
        }
        let connection = &self.connections[index];
        let next = [
            (Flags::PACING_ARMED, paced_at),
            (Flags::DELACK_ARMED, connection.delack_at),
            (Flags::REXMIT_ARMED, connection.rexmit_at),
        ]
        .into_iter()
        .filter(|&(flag, _)| connection.flags.has(flag))
        .map(|(_, at)| at.wrapping_sub(now))
        .min();
        let expiry = connection.flags.has(Flags::EXPIRE_ARMED).then(|| {
            let now = self.tick >> EXPIRY_SHIFT;
            (now + u64::from(connection.expire_at.wrapping_sub(now as u32))) << EXPIRY_SHIFT
        });
        if let Some(next) = next {
            self.wake_within(index, next);
        }
        if let Some(at) = expiry {
            self.wake_by(index, at);
        }
    }

    fn expired(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.flags.has(Flags::KEEPALIVE) {
            connection.flags.clear(Flags::KEEPALIVE);
            return self.keepalive_expired(index);
        }
        match connection.state {
            State::TimeWait => self.forget_time_wait(index),
            State::FinWait2 if !connection.flags.has(Flags::LINGERING) => {
                self.end_connection(index);
            }
            _ => self.abort_connection(index, Failure::TimedOut),
        }
    }

    fn retransmission_timeout(&mut self, index: usize) {
        let most = match self.connections[index].state {
            State::SynSent => self.settings(index).syn_retries,
            State::SynReceived => self.syn_ack_limit(index),
            _ => self.config.retries,
        };
        let over = self.user_timeout_over(index).or(self.orphan_gives_up(index).then_some(true));
        if self.makes_way(index) {
            return self.abort_connection(index, Failure::TimedOut);
        }
        let connection = &mut self.connections[index];
        if over.unwrap_or(connection.retries >= most) {
            return self.gave_up(index);
        }
        if connection.flags.has(Flags::PERSIST) && connection.snd_wnd > 0 {
            // Something may be sent, and then its own timer runs. What was to follow has not.
            connection.flags.set(Flags::FORCE);
            connection.flags.clear(Flags::MORE);
            self.arm_retransmission(index);
            return self.push_out(index);
        }
        connection.retries = connection.retries.saturating_add(1);
        connection.rtt.back_off();
        if connection.flags.has(Flags::PERSIST) {
            connection.flags.set(Flags::PROBE);
            self.arm_retransmission(index);
            self.push_out(index);
            return;
        }
        self.counters.retransmission_timeouts += 1;
        let connection = &mut self.connections[index];
        match connection.state {
            State::SynSent => connection.flags.set(Flags::SEND_SYN),
            State::SynReceived => self.syn_ack_timeout(index),
            _ => {
                if connection.snd_wnd == 0 {
                    // The peer took its window back: what is in flight may be refused for that.
                    connection.flags.set(Flags::PERSIST.with(Flags::PROBE));
                }
                self.suspect_black_hole(index);
                self.enter_loss(index);
            }
        }
        self.arm_timeout(index);
        self.push_out(index);
    }

    /// R2 (RFC 9293 §3.8.3): no answer for too long.
    fn gave_up(&mut self, index: usize) {
        self.counters.connections_timed_out += 1;
        let connection = &mut self.connections[index];
        match connection.state {
            State::SynReceived
                if !connection.flags.has(Flags::ACTIVE)
                    && !connection.features.has(Features::EARLY) =>
            {
                self.free_connection(index);
            }
            // Nobody answers, so nobody is there to be told; who comes back meets no connection.
            _ => {
                connection.failure = Some(Failure::TimedOut);
                self.end_connection(index);
            }
        }
    }

    /// A neighbour has answered for which more packets waited than may: connection attempts
    /// among them would otherwise stand still until their first timeout.
    pub(crate) fn tcp_neighbour_answered(&mut self, neighbour: NeighbourRef) {
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            if connection.state == State::SynSent && connection.neighbour == neighbour {
                connection.flags.set(Flags::SEND_SYN);
                self.push_out(index);
            }
        }
    }

    /// The next hop of some connection attempts does not answer.
    pub(crate) fn tcp_neighbour_lost(&mut self, neighbour: NeighbourRef) {
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            if connection.state == State::SynSent && connection.neighbour == neighbour {
                connection.failure = Some(Failure::HostUnreachable);
                self.end_connection(index);
            }
        }
    }
}
