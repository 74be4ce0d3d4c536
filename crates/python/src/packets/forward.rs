//! A host in the middle of two raw ports.

use std::sync::{Mutex, PoisonError};

use millrace_packets::forward::{Config, Counters, Forwarder as Inner};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::filter::Filter;
use super::loops::Wanted;
use super::port::Port;
use crate::errors::to_python;
use crate::forwarder::impairment;
use crate::whole;

/// Forwards between two ports. Use `millrace.packets.forward`.
#[pyclass(frozen, module = "millrace._native.packets")]
pub(crate) struct Forwarder {
    first: Py<Port>,
    second: Py<Port>,
    inner: Mutex<Inner>,
}

/// The counters of a direction by name, if there is such a direction.
type Told<'py> = Option<Bound<'py, PyDict>>;

#[pymethods]
impl Forwarder {
    #[new]
    #[pyo3(signature = (first, second, forth, back, *, filter=None, swap=false, seed=0))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        first: Py<Port>,
        second: Py<Port>,
        forth: &Bound<'_, PyDict>,
        back: Option<&Bound<'_, PyDict>>,
        filter: Option<&Filter>,
        swap: bool,
        #[pyo3(from_py_with = whole::number)] seed: i128,
    ) -> PyResult<Forwarder> {
        if first.is(&second) {
            return Err(PyValueError::new_err("a port cannot forward to itself; use two ports"));
        }
        let config = Config {
            forth: impairment(forth)?,
            back: back.map(impairment).transpose()?,
            filter: filter.map(|filter| filter.inner().clone()),
            swap,
            seed: whole::whole("seed", seed)?,
        };
        second.bind(py).get().check_open()?;
        let frames = first.bind(py).get().arena()?.lock().frames();
        let inner = Mutex::new(Inner::new(config, frames).map_err(to_python)?);
        Ok(Forwarder { first, second, inner })
    }

    /// Forward until so many packets were sent, or so many seconds are over.
    #[pyo3(signature = (*, packets=None, seconds=None, batch=64, wait=None, linger=0.0))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = whole::number_or_none)] packets: Option<i128>,
        seconds: Option<f64>,
        #[pyo3(from_py_with = whole::number)] batch: i128,
        wait: Option<&Bound<'_, PyAny>>,
        linger: f64,
    ) -> PyResult<Bound<'py, PyDict>> {
        let wanted = Wanted::read(batch, packets, seconds, wait, linger)?;
        let (first, second) = (self.first.bind(py).get(), self.second.bind(py).get());
        first.check_open()?;
        second.check_open()?;
        wanted.run(py, first, |slice| {
            first.shared().drive_both(second.shared(), |from, to, bell, stop| {
                self.inner().run(from, to, slice.with(bell, stop))
            })
        })
    }

    /// What each direction has done.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<(Told<'py>, Told<'py>)> {
        let [forth, back] = self.inner().counters();
        let told = |counters: Option<Counters>| {
            counters.map(|counters| dictionary(py, &counters)).transpose()
        };
        Ok((told(forth)?, told(back)?))
    }

    /// Drop what is on its way.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        // A port that was closed has its frames still.
        let arena = self.first.bind(py).get().shared().raw().arena().clone();
        self.inner().end(&mut arena.lock());
        Ok(())
    }
}

impl Forwarder {
    /// What a panic elsewhere left is whole: a turn changes one thing at a time.
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dictionary<'py>(py: Python<'py>, counters: &Counters) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    for (name, value) in counters.link.iter() {
        told.set_item(name, value)?;
    }
    for (name, value) in [
        ("received", counters.received),
        ("received_bytes", counters.received_bytes),
        ("filtered", counters.filtered),
        ("sent", counters.sent),
        ("sent_bytes", counters.sent_bytes),
        ("damaged_whole", counters.damaged_whole),
        ("lost_copies", counters.lost_copies),
        ("no_frame", counters.no_frame),
        ("refused", counters.refused),
        ("late", counters.late),
        ("in_flight", counters.in_flight),
    ] {
        told.set_item(name, value)?;
    }
    told.set_item("latest", counters.latest.as_secs_f64())?;
    Ok(told)
}
