//! The generator, and the meter that reads its stamps.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_packets::generator::template::Repair;
use millrace_packets::generator::{self, Field, Pace, Plan, Template, Values};
use millrace_packets::meter::{self, Until};
use millrace_port::Wait;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::port::Port;
use crate::errors::to_python;
use crate::options::duration;
use crate::whole::{self, whole_or_none, within};

/// What rendered packets may take in Python, and what each takes besides its bytes.
const MOST_RENDERED_BYTES: usize = 1 << 30;
const OBJECT_BYTES: usize = 64;
/// Percentiles that are told of times.
const PERCENTILES: [f64; 8] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values as Python describes them: ("sequence", first, count, step), ("random", first, span, seed),
/// ("list", values), ("weighted", values, weights, seed) or ("zipf", first, count, exponent, seed).
fn values(spec: &Bound<'_, PyTuple>) -> PyResult<Values> {
    let kind: String = spec.get_item(0)?.extract()?;
    let made = match kind.as_str() {
        "sequence" => {
            let (_, first, count, step): (String, u128, u64, i128) = spec.extract()?;
            Some(Values::sequence(first, count, step.cast_unsigned()))
        }
        "random" => {
            let (_, first, span, seed): (String, u128, u64, u64) = spec.extract()?;
            Some(Values::random(first, span, seed))
        }
        "list" => {
            let (_, values): (String, Vec<u128>) = spec.extract()?;
            Values::list(values)
        }
        "weighted" => {
            let (_, values, weights, seed): (String, Vec<u128>, Vec<f64>, u64) = spec.extract()?;
            Values::weighted(values, &weights, seed)
        }
        "zipf" => {
            let (_, first, count, exponent, seed): (String, u128, usize, f64, u64) =
                spec.extract()?;
            Values::zipf(first, count, exponent, seed)
        }
        _ => None,
    };
    made.ok_or_else(|| PyValueError::new_err(format!("these are no values: {spec}")))
}

/// A pace: at most one of the two may be given.
pub(super) fn pace(packets: Option<f64>, bits: Option<f64>) -> PyResult<Pace> {
    let (pace, rate) = match (packets, bits) {
        (None, None) => return Ok(Pace::Fastest),
        (Some(rate), None) => (Pace::Packets(rate), rate),
        (None, Some(rate)) => (Pace::Bits(rate), rate),
        (Some(_), Some(_)) => {
            return Err(PyValueError::new_err(
                "a pace is in packets or in bits a second, not both",
            ));
        }
    };
    if rate.is_finite() && rate > 0.0 {
        return Ok(pace);
    }
    Err(PyValueError::new_err(format!("a pace is a number above 0, not {rate}")))
}

/// Renders and sends packets. Use `millrace.packets.generator`.
#[pyclass(frozen, module = "millrace._native.packets")]
pub(crate) struct Generator {
    inner: Mutex<generator::Generator>,
}

#[pymethods]
impl Generator {
    #[new]
    #[pyo3(signature = (
        frame, sizes, fields, *, lengths=true, checksums=true, stamp=None, packets=None, seconds=None,
        packets_per_s=None, bits_per_s=None, burst=1, batch=64
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        frame: Vec<u8>,
        sizes: &Bound<'_, PyTuple>,
        fields: Vec<(usize, usize, u128, Bound<'_, PyTuple>)>,
        lengths: bool,
        checksums: bool,
        #[pyo3(from_py_with = whole::number_or_none)] stamp: Option<i128>,
        #[pyo3(from_py_with = whole::number_or_none)] packets: Option<i128>,
        seconds: Option<f64>,
        packets_per_s: Option<f64>,
        bits_per_s: Option<f64>,
        #[pyo3(from_py_with = whole::number)] burst: i128,
        #[pyo3(from_py_with = whole::number)] batch: i128,
    ) -> PyResult<Generator> {
        let fields = fields
            .into_iter()
            .map(|(offset, width, mask, spec)| {
                Ok(Field { offset, width, mask, values: values(&spec)? })
            })
            .collect::<PyResult<Vec<_>>>()?;
        let repair = Repair { lengths, checksums };
        let stamp = whole_or_none("stamp", stamp)?;
        let template = Template::new(frame, values(sizes)?, fields, repair, stamp)
            .map_err(|wrong| PyValueError::new_err(wrong.to_string()))?;
        let batch = within("batch", batch, 1..=64)?;
        let burst = within("burst", burst, 1..=1 << 20)?;
        let packets = whole_or_none("packets", packets)?;
        let time = seconds.map(|seconds| duration("seconds", seconds)).transpose()?;
        let plan = Plan { packets, time, pace: pace(packets_per_s, bits_per_s)?, burst, batch };
        Ok(Generator { inner: Mutex::new(generator::Generator::new(template, plan)) })
    }

    /// After how many packets the same come again; None: never.
    #[getter]
    fn period(&self) -> Option<u64> {
        lock(&self.inner).template().period()
    }

    /// The next packets, which are not sent then; as many as fit into a gigabyte.
    fn render(&self, #[pyo3(from_py_with = whole::number)] count: i128) -> PyResult<Vec<Vec<u8>>> {
        let inner = lock(&self.inner);
        let mut template = inner.template().clone();
        drop(inner);
        let most = MOST_RENDERED_BYTES / (template.size() + OBJECT_BYTES);
        let count = whole::within("count", count, 0..=most as i128)?;
        let mut next = || {
            let mut frame = vec![0; template.size()];
            template.render(&mut frame, 0);
            frame
        };
        Ok((0..count).map(|_: usize| next()).collect())
    }

    /// Send for a while, or to the end; whether that was reached.
    fn step(&self, py: Python<'_>, port: &Port, seconds: f64) -> PyResult<bool> {
        let slice = duration("seconds", seconds)?;
        port.check_open()?;
        let step = || {
            let mut inner = lock(&self.inner);
            port.shared().drive(|raw, bell, stop| inner.step(raw, slice, bell, stop))
        };
        let over = py.detach(step).map_err(to_python)?;
        py.check_signals()?;
        Ok(over)
    }

    /// Give up what was rendered and not taken. Call it at the end, whatever that was.
    fn finish(&self, py: Python<'_>, port: &Port) {
        py.detach(|| lock(&self.inner).finish(&mut port.shared().raw()));
    }

    /// What was sent so far.
    fn sent<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let sent = lock(&self.inner).sent();
        let told = PyDict::new(py);
        for (name, value) in [
            ("packets", sent.packets),
            ("bytes", sent.bytes),
            ("behind", sent.behind),
            ("stalls", sent.stalls),
        ] {
            told.set_item(name, value)?;
        }
        told.set_item("seconds", sent.elapsed.as_secs_f64())?;
        told.set_item("repeated", sent.repeated)?;
        Ok(told)
    }
}

/// Reads the stamps of generated packets. Use `millrace.packets.generator`.
#[pyclass(frozen, module = "millrace._native.packets")]
pub(crate) struct Meter {
    inner: Mutex<meter::Meter>,
}

#[pymethods]
impl Meter {
    #[new]
    #[pyo3(signature = (*, packets=None, seconds=None, idle=None))]
    fn new(
        #[pyo3(from_py_with = whole::number_or_none)] packets: Option<i128>,
        seconds: Option<f64>,
        idle: Option<f64>,
    ) -> PyResult<Meter> {
        let packets = whole_or_none("packets", packets)?;
        let time = |name, seconds: Option<f64>| seconds.map(|s| duration(name, s)).transpose();
        let until = Until { packets, time: time("seconds", seconds)?, idle: time("idle", idle)? };
        Ok(Meter { inner: Mutex::new(meter::Meter::new(until)) })
    }

    /// Receive for a while, or to the end; whether that was reached.
    #[pyo3(signature = (port, seconds, wait=None))]
    fn step(
        &self,
        py: Python<'_>,
        port: &Port,
        seconds: f64,
        wait: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let slice = duration("seconds", seconds)?;
        let wait = wait.map_or(Ok(Wait::Sleep), crate::options::wait)?;
        port.check_open()?;
        let step = || {
            let mut inner = lock(&self.inner);
            port.shared().drive(|raw, bell, stop| inner.step(raw, slice, wait, bell, stop))
        };
        let over = py.detach(step).map_err(to_python)?;
        py.check_signals()?;
        Ok(over)
    }

    /// Stamped packets; those of streams that are not told apart; packets without a stamp.
    fn counts(&self) -> (u64, u64, u64) {
        lock(&self.inner).counts()
    }

    /// What became of each stream.
    fn streams<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let inner = lock(&self.inner);
        inner.streams().iter().map(|stream| tell(py, stream)).collect()
    }
}

fn tell<'py>(py: Python<'py>, stream: &meter::Stream) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    for (name, value) in [
        ("stream", stream.number.into()),
        ("received", stream.received),
        ("bytes", stream.bytes),
        ("unique", stream.unique),
        ("first", stream.first),
        ("last", stream.highest),
        ("lost", stream.lost()),
        ("reordered", stream.reordered),
        ("duplicated", stream.duplicated),
        ("late", stream.late),
        ("negative", stream.negative),
    ] {
        told.set_item(name, value)?;
    }
    let seconds = Duration::from_nanos(stream.span.1 - stream.span.0).as_secs_f64();
    told.set_item("seconds", seconds)?;
    let latency = &stream.latency;
    told.set_item("latency_mean_ns", latency.mean())?;
    let percentiles = PyDict::new(py);
    for percentile in PERCENTILES {
        let value = match percentile {
            0.0 => latency.min(),
            _ => latency.value_at_percentile(percentile),
        };
        percentiles.set_item(percentile, value)?;
    }
    told.set_item("latency_ns", percentiles)?;
    let histogram: Vec<(u64, u64)> = latency
        .iter_recorded()
        .map(|value| (value.value_iterated_to(), value.count_at_value()))
        .collect();
    told.set_item("histogram", histogram)?;
    Ok(told)
}
