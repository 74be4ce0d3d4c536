//! One direction of an impaired link: what becomes of each packet.

use millrace_frames::{Duration, Instant};

use super::{Impairment, Random, ecn};

const ETHERNET_HEADER: u32 = 14;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Lost on the way.
    Lost,
    /// The queue before the link was full.
    QueueDropped,
    /// It arrives.
    Passes(Passage),
}

/// How a packet arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// When.
    pub arrival: Instant,
    /// A second time, too.
    pub duplicate: bool,
    /// The bit of the frame that arrives flipped.
    pub flipped_bit: Option<u32>,
    /// It met a queue in which packets are marked.
    pub mark: bool,
}

/// What a link has done. Every offered packet was lost, dropped before the queue, or forwarded;
/// the other figures are about forwarded ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were put on the link.
    pub offered: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Of these, dropped because the queue was full.
    pub queue_dropped: u64,
    /// Of these, sent on.
    pub forwarded: u64,
    /// Forwarded packets that took longer so that others could overtake them. Packets that jitter
    /// puts out of order are not counted.
    pub reordered: u64,
    /// Forwarded packets that arrive twice.
    pub duplicated: u64,
    /// Forwarded packets with a flipped bit.
    pub corrupted: u64,
    /// Forwarded packets that were marked with Congestion Experienced.
    pub marked: u64,
}

impl Counters {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("offered", self.offered),
            ("lost", self.lost),
            ("queue_dropped", self.queue_dropped),
            ("forwarded", self.forwarded),
            ("reordered", self.reordered),
            ("duplicated", self.duplicated),
            ("corrupted", self.corrupted),
            ("marked", self.marked),
        ]
        .into_iter()
    }
}

/// Dice for one impairment each, so that none changes what another meets.
#[derive(Debug)]
struct Dice {
    loss: Random,
    bursts: Random,
    jitter: Random,
    reorder: Random,
    corrupt: Random,
    duplicate: Random,
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    impairment: Impairment,
    dice: Dice,
    /// The state of [`super::GilbertElliott`].
    bad: bool,
    /// When the link will have sent all that waits, and the fraction of a nanosecond behind it in
    /// units of one over the rate.
    free: Instant,
    fraction: u64,
    /// Arrival of the latest packet that must not be overtaken.
    latest: Instant,
    counters: Counters,
}

impl Link {
    /// A link on which nothing has been sent. `impairment` must be valid.
    pub fn new(impairment: Impairment, seed: u64) -> Link {
        let mut seeds = Random::new(seed);
        Link {
            impairment,
            dice: Dice {
                loss: seeds.split(),
                bursts: seeds.split(),
                jitter: seeds.split(),
                reorder: seeds.split(),
                corrupt: seeds.split(),
                duplicate: seeds.split(),
            },
            bad: false,
            free: Instant::ZERO,
            fraction: 0,
            latest: Instant::ZERO,
            counters: Counters::default(),
        }
    }

    /// What goes wrong here.
    pub fn impairment(&self) -> &Impairment {
        &self.impairment
    }

    /// Another impairment from the next packet on. What waits before the link keeps its place, and
    /// what is on its way arrives as it would have. `impairment` must be valid.
    pub fn set_impairment(&mut self, impairment: Impairment) {
        self.impairment = impairment;
    }

    /// What it has done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Puts a frame of so many bytes on the link. Time must not go backwards.
    pub fn offer(&mut self, now: Instant, bytes: u32) -> Verdict {
        self.counters.offered += 1;
        if self.loses() {
            self.counters.lost += 1;
            return Verdict::Lost;
        }
        let Some((left, mark)) = self.leave(now, bytes) else {
            self.counters.queue_dropped += 1;
            return Verdict::QueueDropped;
        };
        self.counters.forwarded += 1;
        let arrival = self.arrival(left);
        let duplicate = self.dice.duplicate.happens(self.impairment.duplicate);
        self.counters.duplicated += u64::from(duplicate);
        let damaged = bytes > 0 && self.dice.corrupt.happens(self.impairment.corrupt);
        let flipped_bit = damaged.then(|| {
            let first = if bytes > ETHERNET_HEADER { ETHERNET_HEADER } else { 0 };
            let bits = u64::from(bytes - first) * 8;
            first * 8 + self.dice.corrupt.below(bits) as u32
        });
        Verdict::Passes(Passage { arrival, duplicate, flipped_bit, mark })
    }

    /// Marks and damages the bytes of a frame as its passage says.
    pub fn alter(&mut self, passage: &Passage, frame: &mut [u8]) {
        if passage.mark && ecn::mark(frame) {
            self.counters.marked += 1;
        }
        if let Some(bit) = passage.flipped_bit {
            frame[bit as usize / 8] ^= 1 << (bit % 8);
            self.counters.corrupted += 1;
        }
    }

    fn loses(&mut self) -> bool {
        let mut lost = self.dice.loss.happens(self.impairment.loss);
        if let Some(bursts) = self.impairment.bursts {
            let turn = if self.bad { bursts.to_good } else { bursts.to_bad };
            self.bad ^= self.dice.bursts.happens(turn);
            let loss = if self.bad { bursts.loss_bad } else { bursts.loss_good };
            lost |= self.dice.bursts.happens(loss);
        }
        lost
    }

    /// When the packet's last bit has left and whether it is marked, or `None` when too many bytes
    /// wait before it.
    fn leave(&mut self, now: Instant, bytes: u32) -> Option<(Instant, bool)> {
        let Some(rate) = self.impairment.rate_bits_per_s else {
            return Some((now, false));
        };
        let mut mark = false;
        if self.free > now {
            let wait = (self.free - now).as_nanos();
            let waiting = (wait * u128::from(rate) / 8_000_000_000) as u64;
            if waiting + u64::from(bytes) > self.impairment.queue_bytes {
                return None;
            }
            mark = self.impairment.mark_bytes.is_some_and(|most| waiting > most);
        } else {
            self.free = now;
            self.fraction = 0;
        }
        let time = u64::from(bytes) * 8 * 1_000_000_000 + self.fraction;
        self.free += Duration::from_nanos(time / rate);
        self.fraction = time % rate;
        Some((self.free, mark))
    }

    fn arrival(&mut self, left: Instant) -> Instant {
        let most = self.impairment.jitter.as_nanos() as u64;
        let jitter = if most == 0 { 0 } else { self.dice.jitter.below(most + 1) };
        let arrival = left + self.impairment.delay + Duration::from_nanos(jitter);
        if self.dice.reorder.happens(self.impairment.reorder) {
            self.counters.reordered += 1;
            return arrival + self.impairment.reorder_delay;
        }
        if self.impairment.jitter_reorders {
            return arrival;
        }
        self.latest = self.latest.max(arrival);
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::super::GilbertElliott;
    use super::*;

    const PACKETS: u64 = 200_000;

    /// The verdicts on packets of 1000 bytes, one every microsecond.
    fn verdicts(impairment: Impairment, seed: u64) -> (Vec<Verdict>, Counters) {
        impairment.validate().unwrap();
        let mut link = Link::new(impairment, seed);
        let mut frame = [0u8; 1000];
        let verdicts = (0..PACKETS)
            .map(|number| {
                let verdict = link.offer(Instant::from_micros(number), 1000);
                if let Verdict::Passes(passage) = &verdict {
                    link.alter(passage, &mut frame);
                }
                verdict
            })
            .collect();
        let counters = *link.counters();
        let Counters { offered, lost, queue_dropped, forwarded, .. } = counters;
        assert_eq!((offered, lost + queue_dropped + forwarded), (PACKETS, PACKETS));
        (verdicts, counters)
    }

    /// Whether a count is within five standard deviations of what its probability lets expect.
    fn plausible(count: u64, of: u64, probability: f64) -> bool {
        let (count, of) = (count as f64, of as f64);
        let deviation = (of * probability * (1.0 - probability)).sqrt();
        (count - of * probability).abs() <= 5.0 * deviation
    }

    #[test]
    fn each_probability_is_kept_by_every_seed() {
        let everything = Impairment {
            loss: 0.03,
            duplicate: 0.002,
            corrupt: 0.01,
            reorder: 0.05,
            reorder_delay: Duration::from_micros(30),
            ..Impairment::default()
        };
        for seed in 0..10 {
            let (_, counters) = verdicts(everything, seed);
            assert!(plausible(counters.lost, PACKETS, 0.03), "{seed}: {counters:?}");
            for (count, probability) in [
                (counters.duplicated, 0.002),
                (counters.corrupted, 0.01),
                (counters.reordered, 0.05),
            ] {
                assert!(plausible(count, counters.forwarded, probability), "{seed}: {counters:?}");
            }
        }
    }

    #[test]
    fn bursts_have_the_average_and_the_length_that_were_asked_for() {
        for (average, length) in [(0.01, 5.0), (0.1, 2.0), (0.3, 20.0)] {
            let bursts = Some(GilbertElliott::bursts(average, length));
            let (mut lost, mut begun) = (0, 0);
            for seed in 0..8 {
                let (verdicts, counters) =
                    verdicts(Impairment { bursts, ..Impairment::default() }, seed);
                lost += counters.lost;
                let begins =
                    |pair: &&[Verdict]| pair[0] != Verdict::Lost && pair[1] == Verdict::Lost;
                begun += verdicts.windows(2).filter(begins).count();
            }
            let share = lost as f64 / (8 * PACKETS) as f64;
            assert!((share / average - 1.0).abs() < 0.08, "{average} {length}: {share}");
            let seen = lost as f64 / begun as f64;
            assert!((seen / length - 1.0).abs() < 0.06, "{average} {length}: {seen}");
        }
    }

    #[test]
    fn an_elliott_channel_loses_in_both_states() {
        let bursts = GilbertElliott { to_bad: 0.01, to_good: 0.1, loss_good: 0.001, loss_bad: 0.5 };
        let (_, counters) =
            verdicts(Impairment { bursts: Some(bursts), ..Impairment::default() }, 3);
        let share = counters.lost as f64 / PACKETS as f64;
        assert!((share / bursts.average() - 1.0).abs() < 0.1, "{share} {}", bursts.average());
    }

    #[test]
    fn an_impairment_leaves_the_fate_of_another_alone() {
        let lost = |impairment: Impairment| -> Vec<bool> {
            let (verdicts, _) = verdicts(impairment, 11);
            verdicts.iter().map(|verdict| *verdict == Verdict::Lost).collect()
        };
        let loss = Impairment { loss: 0.01, ..Impairment::default() };
        let more = Impairment {
            reorder: 0.1,
            reorder_delay: Duration::from_micros(9),
            jitter: Duration::from_micros(5),
            duplicate: 0.1,
            corrupt: 0.1,
            ..loss
        };
        assert_eq!(lost(loss), lost(more));
    }

    #[test]
    fn jitter_overtakes_where_it_may() {
        let arrivals = |jitter_reorders| -> Vec<Instant> {
            let jitter = Duration::from_micros(50);
            let (verdicts, _) =
                verdicts(Impairment { jitter, jitter_reorders, ..Impairment::default() }, 5);
            let arrival = |verdict: &Verdict| match verdict {
                Verdict::Passes(passage) => passage.arrival,
                _ => unreachable!(),
            };
            verdicts.iter().map(arrival).collect()
        };
        assert!(arrivals(false).is_sorted());
        let free = arrivals(true);
        assert!(!free.is_sorted());
        let late: Vec<u64> =
            free.iter().zip(0..).map(|(at, sent)| at.as_nanos() - sent * 1000).collect();
        assert!(late.iter().all(|&late| late <= 50_000));
        let mean = late.iter().sum::<u64>() / PACKETS;
        assert!((24_000..26_000).contains(&mean), "{mean}");
    }

    #[test]
    fn a_queue_is_drained_at_the_rate_and_marks_before_it_drops() {
        // Packets come twice as fast as they can leave.
        let slow = Impairment {
            rate_bits_per_s: Some(4_000_000_000),
            queue_bytes: 100_000,
            mark_bytes: Some(50_000),
            ..Impairment::default()
        };
        let (verdicts, counters) = verdicts(slow, 1);
        assert!(counters.forwarded.abs_diff(PACKETS / 2) < 200, "{counters:?}");
        let passages: Vec<Passage> = verdicts
            .iter()
            .filter_map(|verdict| match verdict {
                Verdict::Passes(passage) => Some(*passage),
                _ => None,
            })
            .collect();
        let first_mark = passages.iter().position(|passage| passage.mark).unwrap();
        // Half of what came is still there: 51 packets wait after 102.
        assert!((100..106).contains(&first_mark), "{first_mark}");
        assert!(passages[first_mark..].iter().all(|passage| passage.mark));
        assert!(
            passages
                .windows(2)
                .all(|pair| { (pair[1].arrival - pair[0].arrival).as_nanos() == 2000 })
        );
        // The frames are no IP packets, so none was marked.
        assert_eq!(counters.marked, 0);
    }
}
