//! Settings of a stack by name, as Python gives and gets them. The stack has the table
//! ([`millrace_channel::SettingValue`]); here is only what Python's types become.

use millrace_channel::{SettingError, SettingValue};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyString};

use crate::whole;

/// What Python's value is to the stack.
pub(crate) fn from_python(value: &Bound<'_, PyAny>) -> PyResult<SettingValue> {
    if value.is_none() {
        return Ok(SettingValue::Unset);
    }
    if value.is_instance_of::<PyBool>() {
        return Ok(SettingValue::Flag(value.is_truthy()?));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(SettingValue::Text(text.to_string_lossy().into_owned()));
    }
    if !value.is_instance_of::<PyFloat>()
        && let Ok(number) = whole::number(value)
    {
        return Ok(SettingValue::Whole(number));
    }
    // Other kinds of numbers are times too: decimal.Decimal, numpy's.
    Ok(value.extract().map_or(SettingValue::Other, SettingValue::Number))
}

/// And what the stack's is to Python.
pub(crate) fn to_python(py: Python<'_>, value: SettingValue) -> PyResult<Bound<'_, PyAny>> {
    Ok(match value {
        SettingValue::Whole(number) => number.into_pyobject(py)?.into_any(),
        SettingValue::Number(number) => number.into_pyobject(py)?.into_any(),
        SettingValue::Flag(on) => PyBool::new(py, on).to_owned().into_any(),
        SettingValue::Text(text) => text.into_pyobject(py)?.into_any(),
        SettingValue::Unset | SettingValue::Other => py.None().into_bound(py),
    })
}

/// How a value looks in an error.
pub(crate) fn shown(value: &Bound<'_, PyAny>, taken: &SettingValue) -> String {
    match taken {
        SettingValue::Whole(number) => whole::shown(*number),
        _ => value.repr().map_or_else(|_| "that".into(), |text| text.to_string()),
    }
}

/// The error of a setting: a type that is wrong, or a value.
pub(crate) fn error(error: &SettingError, name: &str, shown: &str) -> PyErr {
    let text = error.explain(name, shown);
    match error {
        SettingError::OutOfRange(_) => PyValueError::new_err(text),
        SettingError::WrongType(_) | SettingError::Unknown => PyTypeError::new_err(text),
    }
}
