//! Pacing: segments leave at a rate and not in bursts of a window, so that queues on the path stay
//! short. The rate is the algorithm's own, or the window over the round-trip time.

use core::num::NonZeroU64;

use super::connection::Flags;
use crate::stack::Stack;
use crate::wheel::TICK_SHIFT;

/// Nanoseconds of a timer tick: what leaves up to a tick early need not wait, and what was not used
/// for a few ticks may be made up for.
const TICK_NS: u64 = 1 << TICK_SHIFT;
const CREDIT_NS: u64 = 4 * TICK_NS;
/// However low the rate is, a segment puts the next one off by no more: 18 minutes.
const MOST_NS: u64 = 1 << 40;

/// Below this round-trip time a window is a few ticks long, and pacing it would only delay.
const LEAST_RTT_US: u32 = 1_000;

/// When the next segment may leave.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    /// Nanoseconds of the clock, all 64 bits of them: a connection may pause for longer than fewer
    /// bits of it last, and a moment of long ago must not become one to wait for. Microseconds would
    /// not do: at a gigabit a second a segment takes 11.7 of them, and one of 11 would be six percent
    /// too fast. Meaningless until something was paced.
    next_at: u64,
    running: bool,
    /// When the timer fires, in ticks; valid while the connection's flag is set.
    pub(crate) at_tick: u32,
    /// The rate of the last paced segment, bytes a second; 0: not paced.
    pub(crate) rate: u64,
    /// The setting `SO_MAX_PACING_RATE`, kept here as well because each segment asks for it; 0: none.
    pub(crate) most: u64,
}

impl Pacing {
    /// Something is paced, or is to be.
    #[inline]
    pub(crate) fn in_force(&self) -> bool {
        self.running || self.most > 0
    }

    /// The application sets a limit, or takes it back. What leaves next waits for no rate of before.
    pub(crate) fn limit(&mut self, most: Option<NonZeroU64>) {
        self.most = most.map_or(0, NonZeroU64::get);
        self.running = false;
    }

    /// How far ahead of its rate the connection is, nanoseconds; 0: not at all, or not paced.
    #[inline]
    fn ahead(&self, now_ns: u64) -> u64 {
        match self.running {
            true => self.next_at.saturating_sub(now_ns),
            false => 0,
        }
    }

    /// The next segment leaves after what so many bytes take at a rate.
    #[inline]
    fn put_off(&mut self, bytes: u32, rate: u64) {
        self.next_at += time_of(bytes, rate);
    }

    /// A segment would have to wait.
    #[inline]
    pub(crate) fn holds_back(&self, now_ns: u64) -> bool {
        self.ahead(now_ns) >= TICK_NS
    }
}

/// Nanoseconds that so many bytes take at a rate.
#[inline]
fn time_of(bytes: u32, rate: u64) -> u64 {
    (u64::from(bytes) * 1_000_000_000 / rate).min(MOST_NS)
}

impl Stack {
    /// A window is so short here that pacing it would only delay.
    #[inline]
    pub(crate) fn is_too_short_to_pace(&self, index: usize) -> bool {
        self.connections[index].rtt.smoothed() < LEAST_RTT_US
    }

    /// Bytes a second at which to send; `None`: as the window allows.
    #[inline]
    pub(crate) fn pacing_rate(&self, index: usize, in_flight: u32) -> Option<u64> {
        let connection = &self.connections[index];
        let transfer = self.transfer(index)?;
        let most = transfer.pacing.most;
        let own = transfer.congestion.pacing_rate();
        let smoothed = connection.rtt.smoothed();
        let rate = match own {
            Some(rate) => Some(rate),
            None if self.config.tcp.pacing && smoothed >= LEAST_RTT_US => {
                connection.congestion.pacing_rate(in_flight, smoothed)
            }
            None => None,
        };
        match (rate, most) {
            (rate, 0) => rate,
            (rate, most) => Some(rate.map_or(most, |rate| rate.min(most))),
        }
    }

    /// Most bytes that may leave at once, a multiple of the segment size: what the algorithm
    /// says, or a millisecond's worth, as Linux has it. Bounds super-segments.
    #[inline]
    pub(crate) fn burst(&self, index: usize) -> u32 {
        let mss = u32::from(self.connections[index].mss);
        let Some(transfer) = self.transfer(index) else { return u32::MAX };
        let bytes = match transfer.congestion.send_quantum() {
            Some(quantum) => quantum,
            None if transfer.pacing.rate == 0 => return u32::MAX,
            None => (transfer.pacing.rate / 1000).min(1 << 30) as u32,
        };
        (bytes / mss * mss).max(2 * mss)
    }

    /// Whether a segment may leave now. If not, the timer is set.
    #[inline(always)]
    pub(crate) fn may_leave(&mut self, index: usize) -> bool {
        let Some(transfer) = self.transfer(index) else { return true };
        let ahead = transfer.pacing.ahead(self.now.as_nanos());
        if ahead < TICK_NS {
            return true;
        }
        self.wait_for_pace(index, ahead);
        false
    }

    /// Sets the timer for a segment that is so many nanoseconds ahead.
    fn wait_for_pace(&mut self, index: usize, ahead: u64) {
        let ticks = (ahead.min(MOST_NS) >> TICK_SHIFT) as u32;
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        transfer.pacing.at_tick = (self.tick as u32).wrapping_add(ticks.max(1));
        connection.flags.set(Flags::PACING_ARMED);
        self.wake_within(index, ticks.max(1));
    }

    /// So many bytes have left.
    #[inline(always)]
    pub(crate) fn pace(&mut self, index: usize, bytes: u32) {
        // What is alone on the path fills no queue.
        let connection = &self.connections[index];
        let alone = connection.unsent() == 0 && connection.flight() <= u32::from(connection.mss);
        let short = alone || self.is_too_short_to_pace(index);
        let Some(transfer) = self.transfer(index) else { return };
        let pacing = &transfer.pacing;
        let goes_on = pacing.most > 0 || (pacing.running && !alone);
        if !short || goes_on || transfer.congestion.owns_window() {
            self.pace_next(index, bytes);
        }
    }

    fn pace_next(&mut self, index: usize, bytes: u32) {
        let mss = u32::from(self.connections[index].mss);
        let initial = u32::from(self.config.initial_window) * mss;
        let in_flight = self.in_flight(index);
        let rate = self.pacing_rate(index, in_flight);
        let now_ns = self.now.as_nanos();
        let Some(transfer) = self.transfers.get_mut(self.connections[index].transfer) else {
            return;
        };
        let pacing = &mut transfer.pacing;
        let Some(rate) = rate.filter(|&rate| rate > 0) else {
            pacing.running = false;
            pacing.rate = 0;
            return;
        };
        pacing.rate = rate;
        let behind = now_ns.saturating_sub(pacing.next_at);
        let from = if pacing.running && behind <= CREDIT_NS {
            pacing.next_at
        } else {
            // What was not sent may be made up for by as much as any path takes at once, an
            // initial window: a small flow that repairs a loss would otherwise wait for its own
            // pace.
            let credit = match transfer.congestion.owns_window() {
                true => CREDIT_NS,
                false => CREDIT_NS.max(time_of(initial, rate)),
            };
            let far = !pacing.running || behind > credit;
            if far { now_ns.saturating_sub(credit) } else { pacing.next_at }
        };
        pacing.next_at = from;
        pacing.put_off(bytes, rate);
        pacing.running = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_hours_ago_is_nothing_to_wait_for() {
        let mut pacing = Pacing { running: true, ..Pacing::default() };
        pacing.put_off(1000, 1);
        assert_eq!(pacing.ahead(0), 1_000_000_000_000);
        for minutes in [17, 36, 40, 71, 72, 108, 200_000] {
            assert_eq!(pacing.ahead(minutes * 60_000_000_000), 0, "{minutes} minutes later");
        }
    }

    #[test]
    fn a_rate_is_kept_to_the_nanosecond() {
        for (bytes, rate) in [(1448, 125_000_000), (1448, 1_250_000_000), (1000, 333_333_333)] {
            let mut pacing = Pacing::default();
            for _ in 0..10_000 {
                pacing.put_off(bytes, rate);
            }
            let exact = 10_000 * u64::from(bytes) * 1_000_000_000 / rate;
            let off = exact.abs_diff(pacing.next_at);
            assert!(off <= exact / 1000, "{off} of {exact} ns at {rate} bytes a second");
        }
    }
}
