//! What Python gives to a channel, checked and named in errors.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use millrace_channel::{
    AcceptOverflow, Algorithm, Config, Ecn, OptionName, SocketOption, SynCookies,
    UserTimeoutOption, Wait,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};

use crate::errors::to_python;
use crate::whole::{self, Bounded, whole};

/// A century. What is later than all clocks go would overflow them.
pub(crate) const LONGEST_SECONDS: f64 = 3.2e9;

/// A time in seconds; a longer one than a century is a century.
pub(crate) fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    let bounded = if seconds.is_finite() { seconds.min(LONGEST_SECONDS) } else { seconds };
    Duration::try_from_secs_f64(bounded).map_err(|_| {
        PyValueError::new_err(format!("{name} is a number of seconds from 0 on, not {seconds}"))
    })
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

/// Sets a field of the stack's configuration by its name.
pub(crate) fn limits(config: &mut Config, limits: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let Some(limits) = limits else { return Ok(()) };
    for (name, value) in limits {
        let name: String = name.extract()?;
        let stack = &mut config.stack;
        match name.as_str() {
            "connections" => stack.connections = number(&name, &value)?,
            "time_wait_connections" => stack.time_wait_connections = number(&name, &value)?,
            "listeners" => stack.listeners = number(&name, &value)?,
            "datagram_sockets" => stack.datagram_sockets = number(&name, &value)?,
            "datagram_queue" => stack.datagram_queue = number(&name, &value)?,
            "neighbours" => stack.neighbours = number(&name, &value)?,
            "neighbour_retries" => stack.neighbour_retries = number(&name, &value)?,
            "frame_reserve" => stack.frame_reserve = number(&name, &value)?,
            "memory_low" => stack.memory_low = number(&name, &value)?,
            "memory_pressure" => stack.memory_pressure = number(&name, &value)?,
            "memory_retries" => stack.memory_retries = number(&name, &value)?,
            "send_buffer" => stack.send_buffer = number(&name, &value)?,
            "send_buffer_max" => stack.send_buffer_max = number(&name, &value)?,
            "receive_buffer_max" => stack.receive_buffer_max = number(&name, &value)?,
            "receive_buffer" => stack.receive_buffer = number(&name, &value)?,
            "initial_window" => stack.initial_window = number(&name, &value)?,
            "syn_queue" => stack.syn_queue = number(&name, &value)?,
            "syn_cookies" => {
                stack.syn_cookies = match text(&name, &value)?.as_str() {
                    "off" => SynCookies::Off,
                    "when-full" => SynCookies::WhenFull,
                    "always" => SynCookies::Always,
                    other => {
                        return Err(PyValueError::new_err(format!(
                            "syn_cookies is 'off', 'when-full' or 'always', not '{other}'"
                        )));
                    }
                }
            }
            "syn_patience" => stack.syn_patience = seconds(&name, &value)?,
            "abort_on_overflow" => {
                stack.accept_overflow = match flag(&name, &value)? {
                    true => AcceptOverflow::Reset,
                    false => AcceptOverflow::Drop,
                }
            }
            "challenge_acks_per_second" => {
                stack.challenge_acks_per_second = number(&name, &value)?;
            }
            "out_of_order_frames" => stack.out_of_order_frames = number(&name, &value)?,
            "syn_retries" => stack.syn_retries = number(&name, &value)?,
            "syn_ack_retries" => stack.syn_ack_retries = number(&name, &value)?,
            "retries" => stack.retries = number(&name, &value)?,
            "initial_rto" => stack.initial_rto = seconds(&name, &value)?,
            "min_rto" => stack.min_rto = seconds(&name, &value)?,
            "max_rto" => stack.max_rto = seconds(&name, &value)?,
            "keepalive" => stack.keepalive = flag(&name, &value)?,
            "keepalive_idle" => stack.keepalive_idle = seconds(&name, &value)?,
            "keepalive_interval" => stack.keepalive_interval = seconds(&name, &value)?,
            "keepalive_count" => stack.keepalive_count = number(&name, &value)?,
            "user_timeout" => stack.user_timeout = Some(seconds(&name, &value)?),
            "congestion" => stack.congestion = algorithm(&name, &value)?,
            "ecn" => {
                let ecn = text(&name, &value)?;
                stack.ecn = Ecn::named(&ecn).ok_or_else(|| {
                    let names = Ecn::ALL.map(Ecn::name).join("', '");
                    PyValueError::new_err(format!("ecn is one of '{names}', not '{ecn}'"))
                })?;
            }
            "user_timeout_option" => {
                let on = flag(&name, &value)?;
                stack.user_timeout_option = on.then(UserTimeoutOption::default);
            }
            "notsent_lowat" => stack.notsent_lowat = number(&name, &value)?,
            "delayed_ack" => stack.delayed_ack = seconds(&name, &value)?,
            "time_wait" => stack.time_wait = seconds(&name, &value)?,
            "fin_wait_2" => stack.fin_wait_2 = seconds(&name, &value)?,
            "dad_transmits" => stack.ipv6.dad_transmits = number(&name, &value)?,
            "temporary_addresses" => stack.ipv6.temporary_addresses = flag(&name, &value)?,
            "redirects" => stack.redirects = flag(&name, &value)?,
            "neighbour_retry" => stack.neighbour_retry = seconds(&name, &value)?,
            "ephemeral_ports" => {
                let (first, last): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
                    value.extract().map_err(|_| {
                        PyTypeError::new_err("ephemeral_ports is (first, last), both 1 to 65535")
                    })?;
                stack.ephemeral_ports = number(&name, &first)?..=number(&name, &last)?;
            }
            _ => {
                return Err(PyTypeError::new_err(format!(
                    "Channel() got an unexpected keyword argument '{name}'"
                )));
            }
        }
    }
    Ok(())
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

fn flag(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value
        .extract()
        .map_err(|_| PyTypeError::new_err(format!("{name} is True or False, not {value}")))
}

fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    value.extract().map_err(|_| PyTypeError::new_err(format!("{name} is a text, not {value}")))
}

fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds: f64 = value
        .extract()
        .map_err(|_| PyTypeError::new_err(format!("{name} is a number of seconds, not {value}")))?;
    duration(name, seconds)
}
