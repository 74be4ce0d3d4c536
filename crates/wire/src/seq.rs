//! TCP sequence numbers and their arithmetic modulo 2^32 (RFC 9293 §3.4).

use core::fmt;
use core::ops::{Add, AddAssign, Sub, SubAssign};

/// A sequence number.
///
/// Comparisons ask which of two numbers comes first on the circle, so they mean something only
/// for numbers less than 2^31 apart. That is why `PartialOrd` is not implemented: the order is
/// not transitive, and a sorted collection of these would be wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// True if this number comes before the other.
    #[inline]
    pub const fn lt(self, other: Self) -> bool {
        self.distance(other) < 0
    }

    /// True if this number comes before the other or is the same.
    #[inline]
    pub const fn le(self, other: Self) -> bool {
        self.distance(other) <= 0
    }

    /// True if this number comes after the other.
    #[inline]
    pub const fn gt(self, other: Self) -> bool {
        self.distance(other) > 0
    }

    /// True if this number comes after the other or is the same.
    #[inline]
    pub const fn ge(self, other: Self) -> bool {
        self.distance(other) >= 0
    }

    /// True if `low <= self < high`. Holds for windows of any size below 2^32: the question is
    /// whether the offset into the window is below the window's size.
    #[inline]
    pub const fn between(self, low: Self, high: Self) -> bool {
        self.0.wrapping_sub(low.0) < high.0.wrapping_sub(low.0)
    }

    /// The later of two numbers.
    #[inline]
    pub const fn max(self, other: Self) -> Self {
        if self.lt(other) { other } else { self }
    }

    /// The earlier of two numbers.
    #[inline]
    pub const fn min(self, other: Self) -> Self {
        if self.gt(other) { other } else { self }
    }

    #[inline]
    const fn distance(self, from: Self) -> i32 {
        self.0.wrapping_sub(from.0) as i32
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    #[inline]
    fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl AddAssign<u32> for Seq {
    #[inline]
    fn add_assign(&mut self, bytes: u32) {
        *self = *self + bytes;
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    #[inline]
    fn sub(self, bytes: u32) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }
}

impl SubAssign<u32> for Seq {
    #[inline]
    fn sub_assign(&mut self, bytes: u32) {
        *self = *self - bytes;
    }
}

impl Sub for Seq {
    type Output = i32;

    /// How far this number is after the other; negative if it comes before.
    #[inline]
    fn sub(self, from: Self) -> i32 {
        self.distance(from)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_across_the_wrap() {
        let before = Seq(u32::MAX);
        let after = before + 2;
        assert_eq!(after, Seq(1));
        assert!(before.lt(after) && before.le(after) && after.gt(before) && after.ge(before));
        assert_eq!((after - before, before - after), (2, -2));
        assert_eq!((before.max(after), before.min(after)), (after, before));
        assert!(Seq(0).between(before, after) && before.between(before, after));
        assert!(!after.between(before, after));
    }

    #[test]
    fn empty_range_contains_nothing() {
        assert!(!Seq(7).between(Seq(7), Seq(7)));
        assert!(!Seq(8).between(Seq(7), Seq(7)));
    }

    proptest! {

        #![proptest_config(crate::deterministic::config())]

        #[test]
        fn agrees_with_integers_that_do_not_wrap(base: u32, a in 0..1u32 << 30, b in 0..1u32 << 30) {
            let (x, y) = (Seq(base) + a, Seq(base) + b);
            prop_assert_eq!(x.lt(y), a < b);
            prop_assert_eq!(x.le(y), a <= b);
            prop_assert_eq!(x.gt(y), a > b);
            prop_assert_eq!(x.ge(y), a >= b);
            prop_assert_eq!(x - y, a as i32 - b as i32);
            prop_assert_eq!(x.max(y), Seq(base) + a.max(b));
            prop_assert_eq!(x.min(y), Seq(base) + a.min(b));
            prop_assert_eq!(x - a, Seq(base));
        }

        #[test]
        fn between_agrees_with_integers(base: u32, at: u32, size: u32) {
            prop_assert_eq!((Seq(base) + at).between(Seq(base), Seq(base) + size), at < size);
        }
    }
}
