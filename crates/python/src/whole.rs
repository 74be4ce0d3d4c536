//! Whole numbers that Python gives. Its own have no bounds: each is taken as it is, and refused
//! where its name and its range are known.

use std::ops::RangeInclusive;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBool;

/// For `from_py_with`: what is larger than all ranges becomes the largest or the least number.
pub(crate) fn number(value: &Bound<'_, PyAny>) -> PyResult<i128> {
    if value.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err(format!("a whole number is wanted, not {value}")));
    }
    let overflow = |error: &PyErr| error.is_instance_of::<PyOverflowError>(value.py());
    match value.extract::<i64>() {
        // Only now: the larger type takes Python several operations, and the address of a datagram
        // has a number too.
        Err(error) if overflow(&error) => match value.extract() {
            Err(error) if overflow(&error) => Ok(if value.lt(0)? { i128::MIN } else { i128::MAX }),
            taken => taken,
        },
        taken => taken.map(i128::from),
    }
}

/// The same for an argument that may be None.
pub(crate) fn number_or_none(value: &Bound<'_, PyAny>) -> PyResult<Option<i128>> {
    if value.is_none() { Ok(None) } else { number(value).map(Some) }
}

/// How what [`number`] made looks in an error.
pub(crate) fn shown(number: i128) -> String {
    match number {
        i128::MAX | i128::MIN => "a number of more than 127 bits".to_owned(),
        number => number.to_string(),
    }
}

/// What an argument's range is taken from.
pub(crate) trait Bounded: TryFrom<i128> {
    const LEAST: i128;
    const MOST: i128;
}

macro_rules! bounded {
    ($($type:ty)*) => {
        $(impl Bounded for $type {
            const LEAST: i128 = <$type>::MIN as i128;
            const MOST: i128 = <$type>::MAX as i128;
        })*
    };
}

bounded!(u8 u16 u32 u64 usize i32 i64);

/// An argument within the range of its type, or a `ValueError` that names both.
pub(crate) fn whole<T: Bounded>(name: &str, number: i128) -> PyResult<T> {
    within(name, number, T::LEAST..=T::MOST)
}

/// The same for one that may be None.
pub(crate) fn whole_or_none<T: Bounded>(name: &str, number: Option<i128>) -> PyResult<Option<T>> {
    number.map(|number| whole(name, number)).transpose()
}

/// An argument within a range that is narrower than its type's.
pub(crate) fn within<T: Bounded>(
    name: &str,
    number: i128,
    range: RangeInclusive<i128>,
) -> PyResult<T> {
    let found = T::try_from(number).ok().filter(|_| range.contains(&number));
    found.ok_or_else(|| {
        let shown = shown(number);
        let (least, most) = range.into_inner();
        PyValueError::new_err(format!(
            "{name} is a whole number from {least} to {most}, not {shown}"
        ))
    })
}
