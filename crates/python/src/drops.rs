//! What programs at the kernel's tracepoints count: drops, and polls of NAPI.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use millrace_bpf::Error;
use millrace_bpf::drop_monitor::{DropConfig, DropMonitor as Inner, Place, reasons};
use millrace_bpf::napi_monitor::NapiMonitor as InnerNapi;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

/// Counts the packets that the kernel drops, by reason and place, and keeps some of the frames, from
/// now until close(). All network namespaces of the machine are seen.
///
/// `snap` bytes are kept of a frame (a multiple of 8, 64 to 2048), in a ring of `ring` bytes (a power
/// of two); `places` are counted apart. Only with `every_frame` may every frame be kept.
///
/// Raises OSError without CAP_BPF and CAP_PERFMON, ValueError for sizes that make no sense and on a
/// kernel that does not tell why it drops.
#[pyclass(frozen, module = "millrace._native")]
pub(crate) struct DropMonitor {
    inner: Mutex<Option<Inner>>,
    counting: Mutex<Option<OwnedFd>>,
}

impl DropMonitor {
    fn with<T>(&self, run: impl FnOnce(&mut Inner) -> Result<T, Error>) -> PyResult<T> {
        let mut inner = lock(&self.inner);
        let inner =
            inner.as_mut().ok_or_else(|| PyRuntimeError::new_err("this monitor is closed"))?;
        run(inner).map_err(to_python)
    }
}

#[pymethods]
impl DropMonitor {
    #[new]
    #[pyo3(signature = (*, snap=256, ring=1048576, places=4096, every_frame=false))]
    fn new(
        py: Python<'_>,
        snap: u32,
        ring: u32,
        places: u32,
        every_frame: bool,
    ) -> PyResult<DropMonitor> {
        let config = DropConfig { snap, ring, places, every_frame };
        let inner = py.detach(|| Inner::open(&config)).map_err(to_python)?;
        Ok(DropMonitor { inner: Mutex::new(Some(inner)), counting: Mutex::new(None) })
    }

    /// What was dropped since it was made: (location, reason, interface's number, namespace's inode,
    /// ether type, interface's name, packets), in no order.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let counts = py.detach(|| self.with(Inner::counts))?;
        PyList::new(
            py,
            counts.into_iter().map(|count| {
                let Place { location, reason, ifindex, namespace, protocol } = count.place;
                (location, reason, ifindex, namespace, protocol, count.interface, count.packets)
            }),
        )
    }

    /// At most `most` of the frames that were kept: (nanoseconds of CLOCK_MONOTONIC, location, reason,
    /// interface's number, namespace's inode, ether type, whether there is an Ethernet header, where
    /// the network header begins, length of the whole frame, first bytes).
    #[pyo3(signature = (most=4096))]
    fn frames<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let mut failed = Ok(());
        self.with(|inner| {
            inner.frames(most, |one| {
                let Place { location, reason, ifindex, namespace, protocol } = one.place;
                let row = (
                    (one.time, location, reason, ifindex, namespace, protocol),
                    (one.ethernet, one.network, one.original, PyBytes::new(py, one.bytes)),
                );
                if failed.is_ok() {
                    failed = flat(py, row).and_then(|row| list.append(row));
                }
            });
            Ok(())
        })?;
        failed.map(|()| list)
    }

    /// Keep one frame of about so many at each place (and the first few of each); 0: none, as at the
    /// beginning.
    fn keep_one_of(&self, drops: u64) -> PyResult<()> {
        self.with(|inner| inner.keep_one_of(drops))
    }

    /// "frames": those that were to be kept and found no room; "places": drops in no count, for too
    /// many places were counted already.
    fn lost<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (frames, places) = self.with(|inner| Ok((inner.frames_lost()?, inner.uncounted()?)))?;
        let lost = PyDict::new(py);
        lost.set_item("frames", frames)?;
        lost.set_item("places", places)?;
        Ok(lost)
    }

    /// Measure from now on how often and how long it runs (True), or no longer (False). That costs
    /// each run of every BPF program of the machine two looks at a clock.
    fn measure(&self, on: bool) -> PyResult<()> {
        let fd = if on { Some(self.with(|inner| inner.count_runs())?) } else { None };
        *lock(&self.counting) = fd;
        Ok(())
    }

    /// Runs and nanoseconds while they were measured, and runs that were left out because it ran on
    /// that CPU already.
    fn runs(&self) -> PyResult<(u64, u64, u64)> {
        let runs = self.with(|inner| inner.runs())?;
        Ok((runs.count, runs.nanoseconds, runs.missed))
    }

    /// Stop counting. Closing twice is no error.
    fn close(&self) {
        *lock(&self.counting) = None;
        *lock(&self.inner) = None;
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (kind, value, trace))]
    fn __exit__(
        &self,
        kind: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        trace: &Bound<'_, PyAny>,
    ) {
        let _ = (kind, value, trace);
        self.close();
    }
}

/// Counts what each NAPI poll found to do, by interface, from now until close(). All network
/// namespaces of the machine are seen.
///
/// Raises OSError without CAP_BPF and CAP_PERFMON, ValueError on a kernel without BTF.
#[pyclass(frozen, module = "millrace._native")]
pub(crate) struct NapiMonitor {
    inner: Mutex<Option<InnerNapi>>,
}

#[pymethods]
impl NapiMonitor {
    #[new]
    fn new(py: Python<'_>) -> PyResult<NapiMonitor> {
        let inner = py.detach(InnerNapi::open).map_err(to_python)?;
        Ok(NapiMonitor { inner: Mutex::new(Some(inner)) })
    }

    /// Polls since it was made: (interface's number, namespace's inode, bucket, polls). A bucket is
    /// an index in NAPI_BUCKETS, which has the most work of each; the one behind the last is that of
    /// polls that used up their budget.
    fn polls(&self) -> PyResult<Vec<(u32, u32, u32, u64)>> {
        let inner = lock(&self.inner);
        let inner =
            inner.as_ref().ok_or_else(|| PyRuntimeError::new_err("this monitor is closed"))?;
        let polls = inner.polls().map_err(to_python)?;
        Ok(polls.iter().map(|one| (one.ifindex, one.namespace, one.bucket, one.count)).collect())
    }

    /// Stop counting. Closing twice is no error.
    fn close(&self) {
        *lock(&self.inner) = None;
    }
}

/// Names of the drop reasons by their numbers, as the running kernel has them.
///
/// Raises ValueError where it does not tell.
#[pyfunction]
pub(crate) fn drop_reasons(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let names = PyDict::new(py);
    for (number, name) in py.detach(reasons).map_err(to_python)? {
        names.set_item(number, name)?;
    }
    Ok(names)
}

/// One tuple of two.
fn flat<'py>(
    py: Python<'py>,
    (first, second): (
        impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
        impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
    ),
) -> PyResult<Bound<'py, PyAny>> {
    first.into_pyobject(py)?.add(second.into_pyobject(py)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn to_python(error: Error) -> PyErr {
    match error.errno() {
        Some(libc::EPERM | libc::EACCES) => PyOSError::new_err((
            libc::EPERM,
            format!(
                "watching the kernel's drops takes CAP_BPF and CAP_PERFMON in the initial user \
                 namespace; run as root ({error})"
            ),
        )),
        Some(errno) => PyOSError::new_err((errno, error.to_string())),
        None => PyValueError::new_err(error.to_string()),
    }
}
