//! The largest value of late, in constant space (Kathleen Nichols' algorithm): the best three
//! samples, each later than the one before it.

/// A filter over a window of virtual time, such as round trips.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WindowedMax {
    /// Value and time.
    best: [(u32, u32); 3],
}

impl WindowedMax {
    /// Nothing was seen yet.
    pub(super) const NONE: WindowedMax = WindowedMax { best: [(0, 0); 3] };

    /// The largest value.
    #[inline]
    pub(super) fn get(&self) -> u32 {
        self.best[0].0
    }

    /// Takes a value. The window has `length` units of time.
    pub(super) fn update(&mut self, value: u32, time: u32, length: u32) {
        let sample = (value, time);
        let age = |of: (u32, u32)| time.wrapping_sub(of.1);
        if value >= self.best[0].0 || age(self.best[2]) > length {
            self.best = [sample; 3];
            return;
        }
        if value >= self.best[1].0 {
            (self.best[1], self.best[2]) = (sample, sample);
        } else if value >= self.best[2].0 {
            self.best[2] = sample;
        }
        let oldest = age(self.best[0]);
        if oldest > length {
            // The best has left the window; perhaps the second too.
            self.best = [self.best[1], self.best[2], sample];
            if age(self.best[0]) > length {
                self.best = [self.best[1], self.best[2], sample];
            }
        } else if self.best[1].1 == self.best[0].1 && oldest > length / 4 {
            (self.best[1], self.best[2]) = (sample, sample);
        } else if self.best[2].1 == self.best[1].1 && oldest > length / 2 {
            self.best[2] = sample;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WindowedMax;

    #[test]
    fn a_maximum_is_forgotten_when_it_is_too_old() {
        let mut filter = WindowedMax::default();
        filter.update(100, 0, 10);
        for time in 1..=10 {
            filter.update(50 + time, time, 10);
            assert_eq!(filter.get(), 100);
        }
        filter.update(40, 11, 10);
        assert!((51..=60).contains(&filter.get()), "{}", filter.get());
    }

    /// Against keeping everything: never less than the window's newest quarter shows, never more
    /// than the window with some slack holds.
    #[test]
    fn it_is_near_the_true_maximum() {
        let mut filter = WindowedMax::default();
        let mut seen = Vec::new();
        let mut random = 12345u32;
        for time in 0..10_000u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = random >> 16;
            seen.push(value);
            filter.update(value, time, 40);
            let from = seen.len().saturating_sub(41);
            let most = *seen[from..].iter().max().unwrap();
            assert!(filter.get() <= most);
            let late = *seen[seen.len().saturating_sub(10)..].iter().max().unwrap();
            assert!(filter.get() >= late.min(most));
        }
    }
}
