//! A token bucket: so many in a second in the mean, about one second's worth at once.
//!
//! All take from the same one. Were it known what is in it, whoever empties it would see whether
//! packets that bear another's address were answered, too: which port is open to that one alone
//! (CVE-2020-25705), or whether it has a connection. So each takes another number of tokens, from none
//! to two, and nobody can count against it.

use millrace_frames::Instant;

use crate::hash::Keys;

/// Sets what a bucket draws apart from other uses of the key.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Purpose {
    Icmp = 0x6963_6d70_7261_7465,
    Resets = 0x7265_7365_7472_6174,
    Paths = 0x7061_7468_7261_7465,
}

#[derive(Clone, Debug)]
pub(crate) struct RateLimit {
    per_second: u64,
    /// Tokens, in billionths.
    tokens: u64,
    filled: Instant,
    purpose: Purpose,
    /// Numbers drawn so far.
    drawn: u64,
}

const ONE: u64 = 1_000_000_000;

impl RateLimit {
    pub(crate) fn new(per_second: u32, purpose: Purpose, now: Instant) -> Self {
        let per_second = u64::from(per_second);
        RateLimit { per_second, tokens: per_second * ONE, filled: now, purpose, drawn: 0 }
    }

    /// Whether one more may go now.
    pub(crate) fn take(&mut self, keys: &Keys, now: Instant) -> bool {
        let elapsed = now.as_nanos().saturating_sub(self.filled.as_nanos()).min(ONE);
        self.filled = now;
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.per_second * ONE);
        if self.tokens < ONE {
            return false;
        }
        self.drawn += 1;
        let price = keys.prf(&[self.purpose as u64, self.drawn]) % (2 * ONE);
        self.tokens = self.tokens.saturating_sub(price);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(limit: &mut RateLimit, millis: u64) -> usize {
        let keys = Keys::new([1, 2, 3, 4]);
        (0..1000).filter(|_| limit.take(&keys, Instant::from_millis(millis))).count()
    }

    #[test]
    fn a_second_refills_what_a_second_allows() {
        let mut limit = RateLimit::new(300, Purpose::Icmp, Instant::ZERO);
        for (millis, about) in [(0, 300), (300, 90), (700, 120), (90_000, 300)] {
            let taken = taken(&mut limit, millis);
            assert!(taken.abs_diff(about) < 40, "{taken} at {millis}");
        }
    }

    #[test]
    fn no_two_seconds_are_the_same() {
        let mut limit = RateLimit::new(300, Purpose::Resets, Instant::ZERO);
        let seconds: Vec<_> = (0..20).map(|second| taken(&mut limit, second * 1000)).collect();
        let (least, most) = (seconds.iter().min(), seconds.iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least > 10), "{seconds:?}");
    }

    #[test]
    fn none_a_second_is_none() {
        assert_eq!(taken(&mut RateLimit::new(0, Purpose::Icmp, Instant::ZERO), 5_000), 0);
    }
}
