//! What goes wrong on a link: loss, alone and in bursts, a rate with a queue before it, delay,
//! jitter, reordering, duplication, damage, congestion marks.
//!
//! [`Link`] decides what becomes of each packet of one direction and holds no packet itself, so
//! that the memory wire, which copies, and the forwarder, which does not, share it. [`InFlight`]
//! keeps what is on its way in order of arrival. Time is what the caller says, and chance comes
//! from a seed: the same seed and the same packets at the same times meet the same fate.
//!
//! Each impairment has dice of its own. Two runs with one seed that differ in their reordering lose
//! the same packets.

mod ecn;
mod in_flight;
mod link;
mod random;

use std::fmt;
use std::io;

use millrace_frames::Duration;

pub use in_flight::InFlight;
pub use link::{Counters, Link, Passage, Verdict};
pub(crate) use random::Random;

/// What may go wrong with packets of one direction. The default is a perfect wire.
///
/// A super-segment is one packet here: it is lost, delayed or damaged whole. For impairments of
/// each segment, let none onto the link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairment {
    /// Probability that a packet is lost, each by itself.
    pub loss: f64,
    /// Losses that come in bursts, besides `loss`.
    pub bursts: Option<GilbertElliott>,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Probability that one bit behind the Ethernet header arrives flipped. A checksum that was
    /// left unfinished is finished before, so the receiver can tell.
    pub corrupt: f64,
    /// Time on the wire.
    pub delay: Duration,
    /// Up to so much more time on the wire, evenly distributed.
    pub jitter: Duration,
    /// Whether a packet with less jitter overtakes one with more. Otherwise jitter keeps the order,
    /// and a late packet holds up those behind it.
    pub jitter_reorders: bool,
    /// Probability that a packet takes `reorder_delay` longer, and that others overtake it.
    pub reorder: f64,
    /// How much longer a reordered packet takes.
    pub reorder_delay: Duration,
    /// Bits of Ethernet frames (without preamble, check sequence and gap) that leave in a second;
    /// `None`: as many as come.
    pub rate_bits_per_s: Option<u64>,
    /// Bytes that may wait to leave when there is a rate, what has begun to leave among them; more
    /// are dropped (tail drop). A packet that need not wait is always taken.
    pub queue_bytes: u64,
    /// A packet that finds more bytes than this waiting is marked with Congestion Experienced if
    /// its sender can take it (RFC 3168 §5); `None`: none is marked. Takes a rate.
    pub mark_bytes: Option<u64>,
}

impl Default for Impairment {
    fn default() -> Self {
        Impairment {
            loss: 0.0,
            bursts: None,
            duplicate: 0.0,
            corrupt: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            jitter_reorders: false,
            reorder: 0.0,
            reorder_delay: Duration::ZERO,
            rate_bits_per_s: None,
            queue_bytes: 256 << 10,
            mark_bytes: None,
        }
    }
}

/// A channel with a good and a bad state that it changes between from packet to packet (Gilbert,
/// "Capacity of a burst-noise channel", 1960; Elliott, 1963). It starts in the good one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilbertElliott {
    /// Probability that the state turns from good to bad, at each packet.
    pub to_bad: f64,
    /// Probability that the state turns from bad to good, at each packet.
    pub to_good: f64,
    /// Probability that a packet is lost in the good state.
    pub loss_good: f64,
    /// Probability that a packet is lost in the bad state.
    pub loss_bad: f64,
}

impl GilbertElliott {
    /// All packets are lost in the bad state and none in the good one, `average` of them in all, in
    /// bursts of `length` on average.
    pub fn bursts(average: f64, length: f64) -> Self {
        let to_good = 1.0 / length;
        let to_bad = to_good * average / (1.0 - average);
        GilbertElliott { to_bad, to_good, loss_good: 0.0, loss_bad: 1.0 }
    }

    /// The share of packets that are lost in the long run.
    pub fn average(&self) -> f64 {
        let turns = self.to_bad + self.to_good;
        let bad = if turns > 0.0 { self.to_bad / turns } else { 0.0 };
        self.loss_good * (1.0 - bad) + self.loss_bad * bad
    }
}

impl Impairment {
    /// Whether nothing goes wrong.
    pub fn is_none(&self) -> bool {
        let default = Self::default();
        let without_bounds = Impairment {
            queue_bytes: default.queue_bytes,
            mark_bytes: default.mark_bytes,
            jitter_reorders: default.jitter_reorders,
            ..*self
        };
        without_bounds == default
    }

    /// Says what is wrong with it.
    ///
    /// # Errors
    /// `InvalidInput`, with the field and its bounds.
    pub fn validate(&self) -> io::Result<()> {
        let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let mut probabilities = vec![
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
            ("reorder", self.reorder),
        ];
        if let Some(bursts) = self.bursts {
            probabilities.extend([
                ("bursts.to_bad", bursts.to_bad),
                ("bursts.to_good", bursts.to_good),
                ("bursts.loss_good", bursts.loss_good),
                ("bursts.loss_bad", bursts.loss_bad),
            ]);
        }
        for (name, probability) in probabilities {
            if !(0.0..=1.0).contains(&probability) {
                return invalid(format!("{name} is a probability from 0 to 1, not {probability}"));
            }
        }
        for (name, time) in
            [("delay", self.delay), ("jitter", self.jitter), ("reorder_delay", self.reorder_delay)]
        {
            if time > Duration::from_secs(3600) {
                return invalid(format!("{name} is at most one hour, not {time:?}"));
            }
        }
        if self.rate_bits_per_s == Some(0) {
            return invalid("a rate of 0 bit/s carries nothing; leave the rate out".into());
        }
        if self.mark_bytes.is_some() && self.rate_bits_per_s.is_none() {
            return invalid("mark_bytes takes a rate: without one, nothing waits".into());
        }
        Ok(())
    }
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(rate) = self.rate_bits_per_s {
            parts.push(format!("rate {rate} bit/s behind {} bytes", self.queue_bytes));
        }
        if let Some(bytes) = self.mark_bytes {
            parts.push(format!("marks above {bytes} bytes"));
        }
        if !self.delay.is_zero() {
            parts.push(format!("delay {:?}", self.delay));
        }
        if !self.jitter.is_zero() {
            let order = if self.jitter_reorders { " out of order" } else { "" };
            parts.push(format!("jitter {:?}{order}", self.jitter));
        }
        for (name, probability) in
            [("loss", self.loss), ("duplicate", self.duplicate), ("corrupt", self.corrupt)]
        {
            if probability > 0.0 {
                parts.push(format!("{name} {probability}"));
            }
        }
        if let Some(bursts) = self.bursts {
            parts.push(format!("loss {:.4} in bursts", bursts.average()));
        }
        if self.reorder > 0.0 {
            parts.push(format!("reorder {} by {:?}", self.reorder, self.reorder_delay));
        }
        f.write_str(if parts.is_empty() { "none" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}
