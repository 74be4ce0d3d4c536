//! What Python gives to a channel, checked and named in errors.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use millrace_channel::{
    Algorithm, Config, OptionName, SettingError, SettingField, SettingValue, SocketOption, Wait,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};

use crate::errors::to_python;
use crate::setting;
use crate::whole::{self, Bounded, whole};

/// A time in seconds; a longer one than a century is a century.
pub(crate) fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::take(&SettingValue::Number(seconds))
        .map_err(|error| setting::error(&error, name, &seconds.to_string()))
}

/// A (host, port). The host is an address: names are not looked up here.
pub(crate) fn socket_address(pair: &Bound<'_, PyTuple>) -> PyResult<SocketAddr> {
    let wrong = || {
        PyTypeError::new_err(format!(
            "an address is (host, port) as in ('192.0.2.1', 80), not {pair}"
        ))
    };
    let (host, port): (String, Bound<'_, PyAny>) = pair.extract().map_err(|_| wrong())?;
    let port = whole::number(&port).map_err(|_| wrong())?;
    Ok(SocketAddr::new(ip(&host)?, self::port(port)?))
}

/// An address; an empty text is any of ours.
pub(crate) fn ip(host: &str) -> PyResult<IpAddr> {
    if host.is_empty() {
        return Ok(Ipv6Addr::UNSPECIFIED.into());
    }
    host.parse().map_err(|_| {
        PyValueError::new_err(format!(
            "{host:?} is no IP address; look names up first, with socket.gethostbyname()"
        ))
    })
}

pub(crate) fn port(port: i128) -> PyResult<u16> {
    whole("port", port)
}

/// `"spin"`, `"sleep"`, or the microseconds to spin before sleeping.
pub(crate) fn wait(value: &Bound<'_, PyAny>) -> PyResult<Wait> {
    let wrong = || {
        PyValueError::new_err(format!(
            "wait is 'sleep', 'spin', or a number of microseconds to spin before sleeping, not {}",
            value.repr().map_or_else(|_| "that".to_owned(), |text| text.to_string())
        ))
    };
    if let Ok(text) = value.cast::<PyString>() {
        return match &*text.to_string_lossy() {
            "spin" => Ok(Wait::Spin),
            "sleep" => Ok(Wait::Sleep),
            _ => Err(wrong()),
        };
    }
    let micros: f64 = value.extract().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(micros / 1e6).map_err(|_| wrong())?;
    Ok(if time.is_zero() { Wait::Sleep } else { Wait::SpinThenSleep(time) })
}

/// How a channel waits, as [`wait`] takes it.
pub(crate) fn wait_to_python(py: Python<'_>, wait: Wait) -> PyResult<Py<PyAny>> {
    Ok(match wait {
        Wait::Spin => "spin".into_pyobject(py)?.into_any().unbind(),
        Wait::Sleep => "sleep".into_pyobject(py)?.into_any().unbind(),
        Wait::SpinThenSleep(time) => {
            (time.as_secs_f64() * 1e6).into_pyobject(py)?.into_any().unbind()
        }
    })
}

/// Sets what the keywords of a channel say of its stack.
pub(crate) fn settings(config: &mut Config, settings: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let Some(settings) = settings else { return Ok(()) };
    for (name, value) in settings {
        let name: String = name.extract()?;
        match name.as_str() {
            "ephemeral_ports" => {
                let (first, last): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
                    value.extract().map_err(|_| {
                        PyTypeError::new_err("ephemeral_ports is (first, last), both 1 to 65535")
                    })?;
                let (first, last) = (number(&name, &first)?, number(&name, &last)?);
                config.stack.ephemeral_ports = first..=last;
            }
            "fast_open_keys" => config.stack.fast_open.keys = fast_open_keys(&value)?,
            _ => {
                let taken = setting::from_python(&value)?;
                config.stack.set(&name, &taken).map_err(|error| match error {
                    SettingError::Unknown => PyTypeError::new_err(format!(
                        "Channel() got an unexpected keyword argument '{name}'"
                    )),
                    error => setting::error(&error, &name, &setting::shown(&value, &taken)),
                })?;
            }
        }
    }
    Ok(())
}

fn fast_open_keys(value: &Bound<'_, PyAny>) -> PyResult<Vec<[u8; 16]>> {
    let wanted = "fast_open_keys is a sequence of at most two keys of 16 bytes";
    let keys: Vec<Vec<u8>> = value.extract().map_err(|_| PyTypeError::new_err(wanted))?;
    let keys: Result<Vec<_>, _> = keys.into_iter().map(<[u8; 16]>::try_from).collect();
    // Not the key: an error may be written down anywhere.
    keys.map_err(|key| PyValueError::new_err(format!("{wanted}, not of {}", key.len())))
}

/// A socket option by its name, with the value that setsockopt(2) takes.
pub(crate) fn socket_option(name: &str, value: &Bound<'_, PyAny>) -> PyResult<SocketOption> {
    let name: OptionName = name.parse().map_err(to_python)?;
    if name == OptionName::Congestion {
        return algorithm(name.text(), value).map(SocketOption::Congestion);
    }
    // Flags are numbers here, and True is one of them as everywhere else in Python.
    let number = match value.is_instance_of::<PyBool>() {
        true => i64::from(value.is_truthy()?),
        false => whole(name.text(), whole_number(name.text(), value)?)?,
    };
    SocketOption::from_number(name, number).map_err(to_python)
}

/// The value as [`socket_option`] takes it.
pub(crate) fn socket_option_to_python(
    py: Python<'_>,
    option: SocketOption,
) -> PyResult<Bound<'_, PyAny>> {
    match (option, option.number()) {
        (SocketOption::Congestion(algorithm), _) => {
            Ok(algorithm.name().into_pyobject(py)?.into_any())
        }
        (_, number) => Ok(number.into_pyobject(py)?.into_any()),
    }
}

/// Congestion control by its name in Linux.
fn algorithm(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Algorithm> {
    let algorithm: String = value.extract().map_err(|_| {
        PyTypeError::new_err(format!("{name} is a name such as 'reno', not {value}"))
    })?;
    algorithm.parse().map_err(|error| PyValueError::new_err(format!("{error}")))
}

pub(crate) fn number<T: Bounded>(name: &str, value: &Bound<'_, PyAny>) -> PyResult<T> {
    whole(name, whole_number(name, value)?)
}

fn whole_number(name: &str, value: &Bound<'_, PyAny>) -> PyResult<i128> {
    whole::number(value)
        .map_err(|_| PyTypeError::new_err(format!("{name} is a whole number, not {value}")))
}
