//! The native loops, for measuring and for forwarding.

use std::io;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use millrace_frames::BURST;
use millrace_packets::loops::{Done, Run};
use millrace_port::Wait;
use millrace_port::wait::Bell;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::batch::Batch;
use super::port::Port;
use crate::errors::to_python;
use crate::whole::{self, whole_or_none, within};

/// How long a loop runs before it looks for signals and lets other threads at the port.
const SLICE: Duration = Duration::from_millis(10);

/// How a loop runs, or the next slice of it: as [`Run`].
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    batch: usize,
    packets: Option<u64>,
    time: Option<Duration>,
    wait: Wait,
    linger: Duration,
}

impl Wanted {
    pub(super) fn read(
        batch: i128,
        packets: Option<i128>,
        seconds: Option<f64>,
        wait: Option<&Bound<'_, PyAny>>,
        linger: f64,
    ) -> PyResult<Wanted> {
        let batch = within("batch", batch, 1..=BURST as i128)?;
        let packets = whole_or_none("packets", packets)?;
        let time = seconds.map(|seconds| crate::options::duration("seconds", seconds));
        let wait = wait.map_or(Ok(Wait::Spin), crate::options::wait)?;
        let linger = crate::options::duration("linger", linger)?;
        Ok(Wanted { batch, packets, time: time.transpose()?, wait, linger })
    }

    pub(super) fn with<'a>(self, bell: &'a Bell, stop: &'a AtomicBool) -> Run<'a> {
        let Wanted { batch, packets, time, wait, linger } = self;
        Run { batch, packets, time, wait, linger, bell, stop }
    }

    /// Runs slice after slice until all is done, `port` is closed or its wire has ended.
    pub(super) fn run<'py>(
        self,
        py: Python<'py>,
        port: &Port,
        slice: impl Fn(Wanted) -> io::Result<Done> + Send + Sync,
    ) -> PyResult<Bound<'py, PyDict>> {
        let begun = Instant::now();
        let mut sum = Done::default();
        loop {
            let packets = self.packets.map(|packets| packets.saturating_sub(sum.packets));
            let left = self.time.map(|time| time.saturating_sub(begun.elapsed()));
            let over = packets == Some(0) || left == Some(Duration::ZERO);
            if over || sum.ended || port.shared().is_closed() {
                break;
            }
            let time = Some(left.map_or(SLICE, |left| left.min(SLICE)));
            let done = py.detach(|| slice(Wanted { packets, time, ..self })).map_err(to_python)?;
            sum.packets += done.packets;
            sum.bytes += done.bytes;
            sum.bursts += done.bursts;
            sum.filtered += done.filtered;
            sum.idle += done.idle;
            sum.elapsed += done.elapsed;
            sum.ended = done.ended;
            py.check_signals()?;
        }
        let told = PyDict::new(py);
        for (name, value) in [
            ("packets", sum.packets),
            ("bytes", sum.bytes),
            ("bursts", sum.bursts),
            ("filtered", sum.filtered),
            ("idle", sum.idle),
        ] {
            told.set_item(name, value)?;
        }
        told.set_item("seconds", sum.elapsed.as_secs_f64())?;
        told.set_item("ended", sum.ended)?;
        Ok(told)
    }
}

/// Receive and drop. Returns what was done.
#[pyfunction]
#[pyo3(signature = (port, *, packets=None, seconds=None, batch=64, wait=None, linger=0.0))]
pub(super) fn rxdrop<'py>(
    py: Python<'py>,
    port: &Port,
    #[pyo3(from_py_with = whole::number_or_none)] packets: Option<i128>,
    seconds: Option<f64>,
    #[pyo3(from_py_with = whole::number)] batch: i128,
    wait: Option<&Bound<'py, PyAny>>,
    linger: f64,
) -> PyResult<Bound<'py, PyDict>> {
    let wanted = Wanted::read(batch, packets, seconds, wait, linger)?;
    port.check_open()?;
    let shared = port.shared();
    wanted.run(py, port, |slice| shared.drive(|raw, bell, stop| raw.rxdrop(slice.with(bell, stop))))
}

/// Transmit kept frames over and over. Returns what was done.
#[pyfunction]
#[pyo3(signature = (port, frames, *, packets=None, seconds=None, batch=64))]
pub(super) fn txpush<'py>(
    py: Python<'py>,
    port: &Port,
    frames: &Batch,
    #[pyo3(from_py_with = whole::number_or_none)] packets: Option<i128>,
    seconds: Option<f64>,
    #[pyo3(from_py_with = whole::number)] batch: i128,
) -> PyResult<Bound<'py, PyDict>> {
    let wanted = Wanted::read(batch, packets, seconds, None, 0.0)?;
    port.check_open()?;
    let (shared, frames) = (port.shared(), frames.inner());
    wanted.run(py, port, |slice| {
        shared.drive(|raw, bell, stop| raw.txpush(frames, slice.with(bell, stop)))
    })
}

/// Forward from one port to another that shares its frames. Returns what was done.
#[pyfunction]
#[pyo3(signature = (
    first, second, *, packets=None, seconds=None, batch=64, wait=None, linger=0.0, both_ways=false,
    swap=false
))]
#[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
pub(super) fn l2fwd<'py>(
    py: Python<'py>,
    first: &Bound<'py, Port>,
    second: &Bound<'py, Port>,
    #[pyo3(from_py_with = whole::number_or_none)] packets: Option<i128>,
    seconds: Option<f64>,
    #[pyo3(from_py_with = whole::number)] batch: i128,
    wait: Option<&Bound<'py, PyAny>>,
    linger: f64,
    both_ways: bool,
    swap: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let wanted = Wanted::read(batch, packets, seconds, wait, linger)?;
    if first.is(second) {
        return Err(PyValueError::new_err("a port cannot forward to itself; use two ports"));
    }
    let (first, second) = (first.get(), second.get());
    first.check_open()?;
    second.check_open()?;
    wanted.run(py, first, |slice| {
        first.shared().drive_both(second.shared(), |from, to, bell, stop| {
            from.l2fwd(to, both_ways, swap, slice.with(bell, stop))
        })
    })
}
