//! How much of a full path this flow has.
//!
//! A full path gives each flow its part of what all send. Who sends half as much again for a moment
//! gets nearly all of that where it has little of the path, and nothing where it has all. With R for
//! sent over delivered, R₀ for the same before, and y for the rate delivered over that before, the
//! share before was (R - R₀) / (y R - R₀), if the others sent the same all the time. Of a path that
//! is not full, y is what was sent, and the share none: there is room. Of what was lost before, some
//! may have been of a moment: R₀ as it was tells the least, and 1 the most that the share may be.

use crate::tcp::congestion::AckSample;

/// One part in so many of what was before is the last round trip's.
const FADING: u32 = 4;
/// Before a trial, round trips of what was. Who meets a rival does so when the queue has overflowed,
/// of which the rival recovers first.
const REST_ROUNDS: u8 = 2;
/// Others send in bursts, and it is chance whose packet finds no room: so many microseconds and
/// segments are measured at least.
const LEAST_US: u32 = 8_000;
const LEAST_SEGMENTS: u32 = 64;
/// With less sent on top, 1024ths of what was delivered before, a trial tells nothing.
const LEAST_MORE: u64 = 51;

/// What is known of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// In the last round trips, the older ones fading.
    before: Sum,
    /// The totals when the round trip began.
    begun: Sum,
    trial: Option<Trial>,
}

/// A trial: what it sends in one round trip is acknowledged in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// Not yet, for so many round trips.
    Rests(u8),
    /// Half as much more is sent.
    Sends,
    /// It is acknowledged. The totals when that began; in short round trips more is sent meanwhile.
    Measures { begun: Sum, sends: bool },
    /// It is over, but what it sent last is still being acknowledged.
    Settles,
}

/// Bytes delivered and lost, and microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    delivered: u32,
    lost: u32,
    us: u32,
}

/// What a trial told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// This flow's share of the path before it, percent: the least that it may have been.
    pub(super) least: u32,
    /// And the most.
    pub(super) most: u32,
    /// What was delivered in it, bytes a second.
    pub(super) rate: u64,
}

impl Share {
    pub(super) fn begin(&mut self, sample: &AckSample) {
        self.begun = Sum::totals(sample);
    }

    /// Soon half as much more is sent.
    pub(super) fn begin_trial(&mut self) {
        self.trial = Some(Trial::Rests(REST_ROUNDS));
    }

    pub(super) fn end_trial(&mut self) {
        self.trial = None;
    }

    /// Whether a trial is soon to begin.
    pub(super) fn rests(&self) -> bool {
        matches!(self.trial, Some(Trial::Rests(_)))
    }

    /// Whether half as much more is sent.
    #[inline]
    pub(super) fn sends(&self) -> bool {
        matches!(self.trial, Some(Trial::Sends | Trial::Measures { sends: true, .. }))
    }

    /// Whether a trial is under way.
    #[inline]
    pub(super) fn on_trial(&self) -> bool {
        matches!(self.trial, Some(Trial::Sends | Trial::Measures { .. }))
    }

    /// Whether what is acknowledged may be a trial's.
    #[inline]
    pub(super) fn trial_is_acknowledged(&self) -> bool {
        matches!(self.trial, Some(Trial::Measures { .. } | Trial::Settles))
    }

    /// Nothing was sent for long: what is measured began at least so long ago.
    pub(super) fn paused(&mut self, long_ago_us: u32) {
        self.begun.us = long_ago_us;
        if let Some(Trial::Measures { begun, .. }) = &mut self.trial {
            begun.us = long_ago_us;
        }
    }

    /// A round trip is over. What a trial told, if it ends with it and told something.
    pub(super) fn round(&mut self, sample: &AckSample) -> Option<Told> {
        let now = Sum::totals(sample);
        let last = now.since(&core::mem::replace(&mut self.begun, now));
        match self.trial {
            Some(Trial::Measures { begun, sends }) => {
                let during = now.since(&begun);
                if sends && !during.is_enough(sample.mss) {
                    return None;
                }
                self.trial = sends.then_some(Trial::Settles);
                let before = core::mem::replace(&mut self.before, during);
                let rate = u64::from(during.delivered) * 1_000_000 / u64::from(during.us.max(1));
                let (least, most) = before.shares(&during)?;
                return Some(Told { least, most, rate });
            }
            Some(Trial::Sends) => {
                self.trial =
                    Some(Trial::Measures { begun: now, sends: !last.is_enough(sample.mss) });
                return None;
            }
            Some(Trial::Rests(rounds)) => {
                self.trial = Some(match rounds {
                    0 | 1 => Trial::Sends,
                    _ => Trial::Rests(rounds - 1),
                });
            }
            Some(Trial::Settles) => self.trial = None,
            None => {}
        }
        self.before.fade();
        self.before.add(&last);
        None
    }
}

impl Sum {
    fn totals(sample: &AckSample) -> Sum {
        let rate = &sample.rate;
        Sum { delivered: rate.delivered_total, lost: rate.lost_total, us: sample.now_us }
    }

    fn since(&self, begun: &Sum) -> Sum {
        Sum {
            delivered: self.delivered.wrapping_sub(begun.delivered),
            lost: self.lost.wrapping_sub(begun.lost),
            us: self.us.wrapping_sub(begun.us),
        }
    }

    /// Whether a trial of so much tells.
    fn is_enough(&self, mss: u32) -> bool {
        self.us >= LEAST_US && self.delivered >= LEAST_SEGMENTS * mss
    }

    fn fade(&mut self) {
        for part in [&mut self.delivered, &mut self.lost, &mut self.us] {
            *part -= *part / FADING;
        }
    }

    fn add(&mut self, other: &Sum) {
        self.delivered = self.delivered.saturating_add(other.delivered);
        self.lost = self.lost.saturating_add(other.lost);
        self.us = self.us.saturating_add(other.us);
    }

    fn sent(&self) -> u64 {
        u64::from(self.delivered) + u64::from(self.lost)
    }

    /// The least and the most that the share of the path was in this time, percent, if that is what a
    /// trial after it yielded.
    fn shares(&self, during: &Sum) -> Option<(u32, u32)> {
        // In 1024ths: sent over delivered, before and during; and the rate sent during over the rate
        // delivered before.
        let before = (self.sent() * 1024).checked_div(self.delivered.into())?;
        let now = (during.sent() * 1024).checked_div(during.delivered.into())?;
        let took = u128::from(during.us) * u128::from(self.delivered);
        let sends = (u128::from(during.sent()) * 1024 * u128::from(self.us)).checked_div(took)?;
        let sends = sends.min(u64::MAX.into()) as u64;
        let share = |before| {
            let more = sends.saturating_sub(before);
            (more >= LEAST_MORE).then(|| (now.saturating_sub(before) * 100 / more).min(100) as u32)
        };
        Some((share(before)?, share(1024)?))
    }
}
