//! Capture files sent again.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use millrace_packets::generator::Pace;
use millrace_packets::replay::{self, Plan, Timing};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::filter::Filter;
use super::generator::pace;
use super::port::Port;
use crate::errors::to_python;
use crate::options::duration;
use crate::whole::{self, whole_or_none, within};

/// Sends a capture file. Use `millrace.packets.replay`.
#[pyclass(frozen, module = "millrace._native.packets")]
pub(crate) struct Replay {
    inner: Mutex<replay::Replay>,
}

#[pymethods]
impl Replay {
    #[new]
    #[pyo3(signature = (
        path, *, speed=None, longest_gap=60.0, packets_per_s=None, bits_per_s=None, times=1,
        packets=None, seconds=None, filter=None, batch=64
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        speed: Option<f64>,
        longest_gap: f64,
        packets_per_s: Option<f64>,
        bits_per_s: Option<f64>,
        #[pyo3(from_py_with = whole::number)] times: i128,
        #[pyo3(from_py_with = whole::number_or_none)] packets: Option<i128>,
        seconds: Option<f64>,
        filter: Option<&Bound<'_, Filter>>,
        #[pyo3(from_py_with = whole::number)] batch: i128,
    ) -> PyResult<Replay> {
        let longest_gap = duration("longest_gap", longest_gap)?;
        let timing = match (speed, pace(packets_per_s, bits_per_s)?) {
            (Some(speed), Pace::Fastest) => Timing::Original { speed, longest_gap },
            (None, pace) => Timing::Paced(pace),
            (Some(_), _) => {
                return Err(PyValueError::new_err(
                    "a file is sent at a multiple of its own speed or at a pace, not both",
                ));
            }
        };
        let batch = within("batch", batch, 1..=64)?;
        let times = within("times", times, 1..=u64::MAX.into())?;
        let packets = whole_or_none("packets", packets)?;
        let time = seconds.map(|seconds| duration("seconds", seconds)).transpose()?;
        let filter = filter.map(|filter| filter.get().inner().clone());
        let plan = Plan { path, timing, times, packets, time, filter, batch };
        let inner = py.detach(|| replay::Replay::new(plan)).map_err(to_python)?;
        Ok(Replay { inner: Mutex::new(inner) })
    }

    /// Send for a while, or to the end; whether that was reached.
    fn step(&self, py: Python<'_>, port: &Port, seconds: f64) -> PyResult<bool> {
        let slice = duration("seconds", seconds)?;
        port.check_open()?;
        let step = || {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            port.shared().drive(|raw, bell, stop| inner.step(raw, slice, bell, stop))
        };
        let over = py.detach(step).map_err(to_python)?;
        py.check_signals()?;
        Ok(over)
    }

    /// Give up what was read and not taken. Call it at the end, whatever that was.
    fn finish(&self, py: Python<'_>, port: &Port) {
        py.detach(|| {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.finish(&mut port.shared().raw());
        });
    }

    /// What was sent so far.
    fn done<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let done = self.inner.lock().unwrap_or_else(PoisonError::into_inner).done();
        let told = PyDict::new(py);
        for (name, value) in [
            ("packets", done.packets),
            ("bytes", done.bytes),
            ("read", done.read),
            ("filtered", done.filtered),
            ("too_long", done.too_long),
            ("too_short", done.too_short),
            ("cut", done.cut),
            ("gaps_cut", done.gaps_cut),
            ("late", done.late),
            ("times", done.times),
        ] {
            told.set_item(name, value)?;
        }
        told.set_item("seconds", done.elapsed.as_secs_f64())?;
        Ok(told)
    }
}
