//! How much of a full path this flow has.
//!
//! A full path gives each flow its part of what all send. Who sends half as much again for a moment
//! gets nearly all of that where it has little of the path, and nothing where it has all. With R for
//! sent over delivered, R₀ for the same before, and y for the rate delivered over that before, the
//! share before was (R - R₀) / (y R - R₀), if the others sent the same all the time. Of a path that
//! is not full, y is what was sent, and the share none: there is room.

use crate::tcp::congestion::AckSample;

/// One part in so many of what was before is the last round trip's.
const FADING: u32 = 4;
/// A trial is judged from a round trip after its begin on, when what it sent is acknowledged, for one
/// more at least, and for so many microseconds: others send in bursts.
const LEAST_US: u32 = 8_000;
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

/// A trial.
#[derive(Clone, Copy, Debug, Default)]
struct Trial {
    /// The totals when what it sent began to be acknowledged.
    begun: Option<Sum>,
}

/// Bytes delivered and lost, and microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    delivered: u32,
    lost: u32,
    us: u32,
}

/// What a trial told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// This flow's share of the path before it.
    pub(super) percent: u32,
    /// What was delivered in it, bytes a second.
    pub(super) rate: u64,
}

impl Share {
    pub(super) fn begin(&mut self, sample: &AckSample) {
        self.begun = Sum::totals(sample);
    }

    /// From now on half as much more is sent. A round trip must begin with it.
    pub(super) fn begin_trial(&mut self) {
        self.trial = Some(Trial::default());
    }

    pub(super) fn end_trial(&mut self) {
        self.trial = None;
    }

    /// Whether a trial is under way.
    #[inline]
    pub(super) fn on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// A round trip is over. What a trial told, if it ends with it and told something.
    pub(super) fn round(&mut self, sample: &AckSample) -> Option<Told> {
        let now = Sum::totals(sample);
        let last = now.since(&core::mem::replace(&mut self.begun, now));
        let Some(trial) = &mut self.trial else {
            self.before.fade();
            self.before.add(&last);
            return None;
        };
        let during = now.since(trial.begun.get_or_insert(now));
        if during.us < LEAST_US {
            return None;
        }
        self.trial = None;
        let before = core::mem::replace(&mut self.before, during);
        let rate = u64::from(during.delivered) * 1_000_000 / u64::from(during.us);
        Some(Told { percent: before.share(&during)?, rate })
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

    /// The share of the path in this time, percent, if that is what a trial after it yielded.
    fn share(&self, during: &Sum) -> Option<u32> {
        // In 1024ths: sent over delivered, before and during; and the rate sent during over the rate
        // delivered before.
        let before = (self.sent() * 1024).checked_div(self.delivered.into())?;
        let now = (during.sent() * 1024).checked_div(during.delivered.into())?;
        let took = u128::from(during.us) * u128::from(self.delivered);
        let sends = u128::from(during.sent()) * 1024 * u128::from(self.us) / took;
        let more = sends.saturating_sub(before.into()).min(u64::MAX.into()) as u64;
        (more >= LEAST_MORE).then(|| (now.saturating_sub(before) * 100 / more).min(100) as u32)
    }
}
