//! A token bucket: so many in a second, at most one second's worth at once.

use millrace_frames::Instant;

#[derive(Clone, Debug)]
pub(crate) struct RateLimit {
    per_second: u64,
    /// Tokens, in billionths.
    tokens: u64,
    filled: Instant,
}

const ONE: u64 = 1_000_000_000;

impl RateLimit {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = u64::from(per_second);
        RateLimit { per_second, tokens: per_second * ONE, filled: now }
    }

    /// Whether one more may go now.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.as_nanos().saturating_sub(self.filled.as_nanos()).min(ONE);
        self.filled = now;
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.per_second * ONE);
        if self.tokens < ONE {
            return false;
        }
        self.tokens -= ONE;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_refills_what_a_second_allows() {
        let mut limit = RateLimit::new(3, Instant::ZERO);
        let take = |limit: &mut RateLimit, millis| limit.take(Instant::from_millis(millis));
        assert_eq!((0..5).filter(|_| take(&mut limit, 0)).count(), 3);
        assert!(!take(&mut limit, 300));
        assert!(take(&mut limit, 700));
        assert_eq!((0..9).filter(|_| take(&mut limit, 90_000)).count(), 3);
    }

    #[test]
    fn none_a_second_is_none() {
        assert!(!RateLimit::new(0, Instant::ZERO).take(Instant::from_millis(5_000)));
    }
}
