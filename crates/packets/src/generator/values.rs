//! What a varying field is from packet to packet.
//!
//! Chance comes from SplitMix64 with a seed: the same seed gives the same packets.

/// The values of a field, one after the other.
#[derive(Clone, Debug)]
pub enum Values {
    /// `first`, `first + step` and so on, `count` of them, and again.
    Sequence {
        /// The first.
        first: u128,
        /// How many.
        count: u64,
        /// From one to the next.
        step: u128,
        /// The value that comes next.
        next: u64,
    },
    /// Any of `span` values from `first` on, each as likely.
    Random {
        /// The least.
        first: u128,
        /// How many.
        span: u64,
        /// The dice.
        dice: Dice,
    },
    /// These, in turn.
    List {
        /// The values.
        values: Box<[u128]>,
        /// The value that comes next.
        next: usize,
    },
    /// These, by chance, some more likely than others.
    Weighted {
        /// The values: in order from `first` on, or a list.
        values: Listed,
        /// Which is drawn.
        alias: Alias,
        /// The dice.
        dice: Dice,
    },
}

/// The values that are drawn from.
#[derive(Clone, Debug)]
pub enum Listed {
    /// Those from this one on.
    From(u128),
    /// These.
    These(Box<[u128]>),
}

/// Most values of a weighted choice: its table has eight bytes for each.
pub const MOST_WEIGHTED: usize = 1 << 20;

impl Values {
    /// `count` values from `first` on, `step` apart, in turn.
    pub fn sequence(first: u128, count: u64, step: u128) -> Values {
        Values::Sequence { first, count: count.max(1), step, next: 0 }
    }

    /// Any of `span` values from `first` on.
    pub fn random(first: u128, span: u64, seed: u64) -> Values {
        Values::Random { first, span: span.max(1), dice: Dice::new(seed) }
    }

    /// These, in turn; `None` for none.
    pub fn list(values: Vec<u128>) -> Option<Values> {
        (!values.is_empty()).then(|| Values::List { values: values.into(), next: 0 })
    }

    /// These, each as often as its weight says; `None` for weights that make no sense, or too many.
    pub fn weighted(values: Vec<u128>, weights: &[f64], seed: u64) -> Option<Values> {
        if values.len() != weights.len() {
            return None;
        }
        let alias = Alias::new(weights)?;
        let values = Listed::These(values.into());
        Some(Values::Weighted { values, alias, dice: Dice::new(seed) })
    }

    /// `count` values from `first` on, the k-th of which is as likely as 1 / k^exponent (Zipf's
    /// law). `None` for an exponent that is no number from 0 on, or too many values.
    pub fn zipf(first: u128, count: usize, exponent: f64, seed: u64) -> Option<Values> {
        if !(0.0..=100.0).contains(&exponent) || count > MOST_WEIGHTED {
            return None;
        }
        let weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-exponent)).collect();
        let alias = Alias::new(&weights)?;
        Some(Values::Weighted { values: Listed::From(first), alias, dice: Dice::new(seed) })
    }

    /// The next value.
    #[inline]
    pub fn draw(&mut self) -> u128 {
        match self {
            Values::Sequence { first, count, step, next } => {
                let value = first.wrapping_add(step.wrapping_mul((*next).into()));
                *next = if *next + 1 == *count { 0 } else { *next + 1 };
                value
            }
            Values::Random { first, span, dice } => first.wrapping_add(dice.below(*span).into()),
            Values::List { values, next } => {
                let value = values[*next];
                *next = if *next + 1 == values.len() { 0 } else { *next + 1 };
                value
            }
            Values::Weighted { values, alias, dice } => {
                let index = alias.draw(dice);
                match values {
                    Listed::From(first) => first.wrapping_add(index as u128),
                    Listed::These(values) => values[index],
                }
            }
        }
    }

    /// After how many values they begin again; `None`: never.
    pub fn period(&self) -> Option<u64> {
        match self {
            Values::Sequence { count, .. } => Some(*count),
            Values::List { values, .. } => Some(values.len() as u64),
            Values::Random { span: 1, .. } => Some(1),
            Values::Random { .. } | Values::Weighted { .. } => None,
        }
    }

    /// The least and the greatest of them.
    pub fn bounds(&self) -> (u128, u128) {
        match self {
            Values::Sequence { first, count, step, .. } => {
                let last = first.wrapping_add(step.wrapping_mul(u128::from(count - 1)));
                // One that goes round takes on anything.
                let falls = *step > u128::MAX / 2;
                match (falls, last.cmp(first)) {
                    (false, core::cmp::Ordering::Less) | (true, core::cmp::Ordering::Greater) => {
                        (0, u128::MAX)
                    }
                    (false, _) => (*first, last),
                    (true, _) => (last, *first),
                }
            }
            Values::Random { first, span, .. } => {
                (*first, first.saturating_add(u128::from(span - 1)))
            }
            Values::List { values, .. }
            | Values::Weighted { values: Listed::These(values), .. } => {
                let least = values.iter().min().copied().unwrap_or(0);
                (least, values.iter().max().copied().unwrap_or(0))
            }
            Values::Weighted { values: Listed::From(first), alias, .. } => {
                (*first, first.saturating_add(alias.len() as u128 - 1))
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014). Not for
/// secrets.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice whose throws follow from the seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    #[inline]
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[inline]
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Draws indices with given weights in constant time (Walker, "An efficient method for generating
/// discrete random variables with general distributions", 1977; the table as Vose builds it, 1991).
#[derive(Clone, Debug)]
pub struct Alias {
    /// For each place: below which part of 2^32 the place itself is drawn, and what else.
    table: Box<[(u32, u32)]>,
}

impl Alias {
    /// `None` without weights, with one that is negative or no number, or if all are zero.
    fn new(weights: &[f64]) -> Option<Alias> {
        let sum: f64 = weights.iter().sum();
        let sound = |weight: &f64| weight.is_finite() && *weight >= 0.0;
        if weights.is_empty()
            || weights.len() > MOST_WEIGHTED
            || !weights.iter().all(sound)
            || !sum.is_finite()
            || sum <= 0.0
        {
            return None;
        }
        let len = weights.len();
        let mut parts: Vec<f64> = weights.iter().map(|w| w * len as f64 / sum).collect();
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for (index, &part) in parts.iter().enumerate() {
            if part < 1.0 { small.push(index) } else { large.push(index) }
        }
        let mut table = vec![(u32::MAX, 0); len];
        for (index, entry) in table.iter_mut().enumerate() {
            entry.1 = index as u32;
        }
        while let (Some(&poor), Some(&rich)) = (small.last(), large.last()) {
            small.pop();
            table[poor] = ((parts[poor] * 4_294_967_296.0) as u32, rich as u32);
            parts[rich] -= 1.0 - parts[poor];
            if parts[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Some(Alias { table: table.into() })
    }

    fn len(&self) -> usize {
        self.table.len()
    }

    #[inline]
    fn draw(&self, dice: &mut Dice) -> usize {
        let thrown = dice.next();
        let place = (((thrown >> 32) * self.table.len() as u64) >> 32) as usize;
        let (below, other) = self.table[place];
        if (thrown as u32) < below { place } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(mut values: Values, count: usize) -> Vec<u128> {
        (0..count).map(|_| values.draw()).collect()
    }

    #[test]
    fn sequences_go_round() {
        assert_eq!(drawn(Values::sequence(5, 3, 2), 7), [5, 7, 9, 5, 7, 9, 5]);
        assert_eq!(drawn(Values::sequence(9, 3, 1u128.wrapping_neg()), 4), [9, 8, 7, 9]);
        assert_eq!(drawn(Values::list(vec![3, 1]).unwrap(), 3), [3, 1, 3]);
        assert!(Values::list(Vec::new()).is_none());
        assert_eq!(Values::sequence(5, 3, 2).period(), Some(3));
        assert_eq!(Values::random(5, 3, 1).period(), None);
    }

    #[test]
    fn chance_is_the_same_with_the_same_seed_and_stays_within_bounds() {
        let values = Values::random(100, 20, 7);
        let first = drawn(values.clone(), 1000);
        assert_eq!(first, drawn(values.clone(), 1000));
        assert_ne!(first, drawn(Values::random(100, 20, 8), 1000));
        assert_eq!(values.bounds(), (100, 119));
        assert_eq!(first.iter().min(), Some(&100));
        assert_eq!(first.iter().max(), Some(&119));
    }

    #[test]
    fn weights_are_kept() {
        let weights = [1.0, 0.0, 7.0, 2.0];
        let values = Values::weighted(vec![10, 11, 12, 13], &weights, 3).unwrap();
        assert_eq!(values.bounds(), (10, 13));
        let drawn = drawn(values, 100_000);
        for (value, weight) in (10u128..).zip(weights) {
            let share = drawn.iter().filter(|&&v| v == value).count() as f64 / 100_000.0;
            assert!((share - weight / 10.0).abs() < 0.01, "{value}: {share}");
        }
    }

    #[test]
    fn zipf_follows_its_law() {
        let values = Values::zipf(1000, 10_000, 1.0, 3).unwrap();
        assert_eq!(values.bounds(), (1000, 10_999));
        let drawn = drawn(values, 200_000);
        let harmonic: f64 = (1..=10_000).map(|k| 1.0 / f64::from(k)).sum();
        for rank in [1u32, 2, 10] {
            let wanted = 1.0 / f64::from(rank) / harmonic;
            let value = 999 + u128::from(rank);
            let share = drawn.iter().filter(|&&v| v == value).count() as f64 / 200_000.0;
            assert!((share / wanted - 1.0).abs() < 0.1, "{rank}: {share} {wanted}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Values::weighted(vec![1], &[1.0, 2.0], 0).is_none());
        assert!(Values::weighted(vec![1, 2], &[0.0, 0.0], 0).is_none());
        assert!(Values::weighted(vec![1, 2], &[1.0, -1.0], 0).is_none());
        assert!(Values::weighted(vec![1, 2], &[1.0, f64::NAN], 0).is_none());
        assert!(Values::zipf(0, 10, -1.0, 0).is_none());
        assert!(Values::zipf(0, 10, f64::NAN, 0).is_none());
        assert!(Values::zipf(0, MOST_WEIGHTED + 1, 1.0, 0).is_none());
        assert!(Values::zipf(0, 0, 1.0, 0).is_none());
    }
}
