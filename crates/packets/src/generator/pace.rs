//! How many packets are due.

use millrace_frames::{Duration, Instant};

/// A pace: so many packets, or so many bits of frames, a second, in bursts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As many as go.
    Fastest,
    /// Packets a second.
    Packets(f64),
    /// Bits a second of Ethernet frames, without preamble, check sequence and gap.
    Bits(f64),
}

/// What was due at most is caught up with; what was due longer ago is given up.
const MOST_BEHIND: Duration = Duration::from_millis(50);

/// Tells what is due from what was sent.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pace: Pace,
    /// Packets that leave together.
    burst: u64,
    begun: Instant,
    /// Packets, or bits, that were sent or given up since it began.
    done: f64,
    /// Packets, or packets' worth of bits, that were given up.
    pub(crate) behind: f64,
}

impl Clock {
    pub(crate) fn new(pace: Pace, burst: u64, now: Instant) -> Clock {
        Clock { pace, burst: burst.max(1), begun: now, done: 0.0, behind: 0.0 }
    }

    /// How many packets of about `bytes` bytes are due now.
    #[inline]
    pub(crate) fn due(&mut self, now: Instant, bytes: u32) -> u64 {
        let (rate, each) = match self.pace {
            Pace::Fastest => return u64::MAX,
            Pace::Packets(rate) => (rate, 1.0),
            Pace::Bits(rate) => (rate, f64::from(bytes.max(1)) * 8.0),
        };
        let mut owed = (now - self.begun).as_secs_f64() * rate - self.done + each;
        let most = (rate * MOST_BEHIND.as_secs_f64()).max(each * self.burst as f64 * 2.0);
        if owed > most {
            self.behind += (owed - most) / each;
            self.done += owed - most;
            owed = most;
        }
        let due = (owed / each) as u64;
        due - due % self.burst
    }

    /// Notes that packets were sent.
    #[inline]
    pub(crate) fn sent(&mut self, packets: u64, bytes: u64) {
        self.done += match self.pace {
            Pace::Fastest => 0.0,
            Pace::Packets(_) => packets as f64,
            Pace::Bits(_) => bytes as f64 * 8.0,
        };
    }

    /// When the next burst is due.
    pub(crate) fn next(&self, bytes: u32) -> Option<Instant> {
        let (rate, each) = match self.pace {
            Pace::Fastest => return None,
            Pace::Packets(rate) => (rate, 1.0),
            Pace::Bits(rate) => (rate, f64::from(bytes.max(1)) * 8.0),
        };
        let wanted = self.done + each * (self.burst as f64 - 1.0);
        let seconds = (wanted / rate).clamp(0.0, 1e9);
        Some(self.begun + Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pace: Pace, burst: u64, bytes: u32, step: u64, steps: u64) -> (u64, Clock) {
        let mut clock = Clock::new(pace, burst, Instant::ZERO);
        let mut sent = 0;
        for at in 0..steps {
            let due = clock.due(Instant::from_micros(at * step), bytes);
            assert!(due.is_multiple_of(burst));
            clock.sent(due, due * u64::from(bytes));
            sent += due;
        }
        (sent, clock)
    }

    #[test]
    fn as_many_are_due_as_the_pace_says() {
        // A second in steps of 10 µs.
        let (sent, clock) = run(Pace::Packets(12_345.0), 1, 64, 10, 100_001);
        assert!(sent.abs_diff(12_345) <= 1, "{sent}");
        assert_eq!(clock.behind, 0.0);
        let (sent, _) = run(Pace::Bits(1e8), 1, 1000, 10, 100_001);
        assert!(sent.abs_diff(12_500) <= 1, "{sent}");
    }

    #[test]
    fn bursts_leave_together() {
        let (sent, _) = run(Pace::Packets(10_000.0), 32, 64, 10, 100_001);
        assert!(sent.abs_diff(10_000) <= 32, "{sent}");
        let clock = Clock::new(Pace::Packets(1000.0), 10, Instant::ZERO);
        assert_eq!(clock.next(64), Some(Instant::from_millis(9)));
    }

    #[test]
    fn what_was_due_long_ago_is_given_up_and_counted() {
        let mut clock = Clock::new(Pace::Packets(1e6), 1, Instant::ZERO);
        let due = clock.due(Instant::from_millis(1000), 64);
        assert!((49_990..=50_010).contains(&due), "{due}");
        assert!((clock.behind - 950_000.0).abs() < 10.0, "{}", clock.behind);
    }

    #[test]
    fn a_pace_of_almost_nothing_is_one_packet_now_and_then() {
        let mut clock = Clock::new(Pace::Packets(0.001), 1, Instant::ZERO);
        assert_eq!(clock.due(Instant::ZERO, 64), 1);
        clock.sent(1, 64);
        assert_eq!(clock.due(Instant::from_millis(999_000), 64), 0);
        assert_eq!(clock.next(64), Some(Instant::from_millis(1_000_000)));
        assert_eq!(Clock::new(Pace::Fastest, 1, Instant::ZERO).due(Instant::ZERO, 1), u64::MAX);
    }
}
