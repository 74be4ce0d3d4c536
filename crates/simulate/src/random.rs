//! Dice: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
//! One seed gives one sequence on every machine. Each wire, each conversation has dice of its own,
//! so that what one does leaves the others' luck alone.

/// A sequence of random numbers from a seed. Not for secrets.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that start at `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Dice for part `number` of what these are for. Draws nothing.
    pub fn part(&self, number: u64) -> Dice {
        let mut dice = Dice(self.0 ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Dice(dice.roll())
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }

    /// True with this probability. Draws nothing when the answer is certain to be no.
    pub fn happens(&mut self, probability: f64) -> bool {
        // The 53 upper bits are a double in 0..1 without rounding.
        probability > 0.0
            && ((self.roll() >> 11) as f64) * (1.0 / (1u64 << 53) as f64) < probability
    }

    /// One of the choices, each as likely as the others.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
