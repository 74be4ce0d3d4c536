//! A raw port.

use std::io;
use std::time::{Duration, Instant};

use millrace_packets::{RawPort, SharedArena, TimestampSource};
use millrace_port::Wait;
use millrace_port::name::PortName;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::batch::Batch;
use super::buffers::Frames;
use super::options;
use super::shared::{Manner, Received, Shared, closed};
use crate::errors::to_python;
use crate::handle::timeout as seconds;
use crate::whole::{self, within};

/// How long the main thread may wait before it looks for signals by itself.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);
/// Most packets of a batch.
const MOST: usize = 4096;
/// Most packets of a batch where nobody said how many.
const USUAL: usize = 64;

/// Raw packets of an interface, a wire in memory or a capture file. Use `millrace.open`.
#[pyclass(frozen, weakref, module = "millrace._native.packets")]
pub(crate) struct Port {
    shared: Shared,
    manner: Manner,
    /// The number of the thread that runs signal handlers.
    main: u64,
    text: String,
}

impl Port {
    /// The arena, for another port.
    pub(super) fn arena(&self) -> PyResult<SharedArena> {
        self.check_open()?;
        Ok(self.shared.raw().arena().clone())
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn check_open(&self) -> PyResult<()> {
        match self.shared.is_closed() {
            true => Err(to_python(closed(&self.shared.raw()))),
            false => Ok(()),
        }
    }

    fn wait(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<Option<Batch>> {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // SAFETY: takes and touches nothing.
        let is_main = unsafe { libc::pthread_self() } as u64 == self.main;
        let mut left = timeout;
        loop {
            let slice = match (is_main, left) {
                (true, left) => Some(left.unwrap_or(SIGNAL_CHECK).min(SIGNAL_CHECK)),
                (false, left) => left,
            };
            let received = py.detach(|| self.shared.receive(self.manner, slice));
            match received.map_err(to_python)? {
                Received::Batch(batch) => return Ok(Some(Batch::new(batch))),
                Received::End => return Ok(None),
                Received::Nothing => {}
            }
            py.check_signals()?;
            if let Some(end) = end {
                left = Some(end.saturating_duration_since(Instant::now()));
                if left == Some(Duration::ZERO) {
                    return Ok(Some(Batch::new(millrace_packets::Batch::empty())));
                }
            }
        }
    }

    /// Sends what `send` sends of `count` packets, the first `taken` of them left out.
    fn send_all(
        &self,
        py: Python<'_>,
        count: usize,
        timeout: Duration,
        detach: bool,
        mut send: impl FnMut(&mut RawPort, usize) -> io::Result<usize> + Send,
    ) -> PyResult<usize> {
        let mut call = || self.shared.send(count, timeout, &mut send);
        let taken = if detach { py.detach(call) } else { call() };
        taken.map_err(to_python)
    }
}

#[pymethods]
impl Port {
    #[new]
    #[pyo3(signature = (name, *, latency=false, batch=None, linger=None, wait=None, **options))]
    fn new(
        py: Python<'_>,
        name: &str,
        latency: bool,
        #[pyo3(from_py_with = whole::number_or_none)] batch: Option<i128>,
        linger: Option<f64>,
        wait: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Port> {
        let options = millrace_packets::Options { latency, ..options::read(options)? };
        let name: PortName = name.parse().map_err(to_python)?;
        let batch = batch.map(|batch| within("batch", batch, 1..=MOST as i128)).transpose()?;
        let linger = linger.unwrap_or(if latency { 0.0 } else { 50e-6 });
        let linger = crate::options::duration("linger", linger)?;
        let wait = match wait {
            Some(wait) => crate::options::wait(wait)?,
            None if latency => Wait::Spin,
            None => Wait::Sleep,
        };
        let raw = py.detach(|| millrace_packets::open(&name, &options)).map_err(to_python)?;
        let frames = raw.arena().lock().frames();
        let most = (frames / 4).max(1);
        let limit = batch.unwrap_or(if latency { 1 } else { USUAL.min(most) });
        if limit > most {
            return Err(PyValueError::new_err(format!(
                "batches of {limit} packets take at least {} frames, not {frames}",
                limit * 4
            )));
        }
        let capabilities = raw.capabilities();
        let text = format!("{}:{}", capabilities.kind, capabilities.name);
        let main = py.import("threading")?.call_method0("main_thread")?.getattr("ident")?;
        Ok(Port {
            shared: Shared::new(raw).map_err(to_python)?,
            manner: Manner { limit, linger, wait },
            main: main.extract().unwrap_or(0),
            text,
        })
    }

    /// Wait for packets, for at most `timeout` seconds (None: for ever).
    #[pyo3(signature = (timeout=None))]
    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Batch>> {
        let timeout = seconds(timeout)?;
        self.check_open()?;
        self.wait(py, timeout)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        match self.shared.is_closed() {
            true => Ok(None),
            false => self.wait(py, None),
        }
    }

    /// Send a batch, or frames; returns how many were taken.
    #[pyo3(signature = (frames, timeout=0.0))]
    fn send(&self, py: Python<'_>, frames: &Bound<'_, PyAny>, timeout: f64) -> PyResult<usize> {
        let timeout = crate::options::duration("timeout", timeout)?;
        self.check_open()?;
        let too_long = |refusal: millrace_packets::Refusal| match refusal.length > refusal.longest {
            true => PyOSError::new_err((libc::EMSGSIZE, refusal.to_string())),
            false => PyValueError::new_err(refusal.to_string()),
        };
        if let Ok(batch) = frames.cast::<Batch>() {
            let batch = batch.get().inner();
            if let Some(refusal) = self.shared.raw().refuse_batch(batch) {
                return Err(too_long(refusal));
            }
            return self.send_all(py, batch.len(), timeout, true, |raw, taken| match taken {
                0 => raw.send(batch),
                _ => raw.send(&batch.select(taken..batch.len())),
            });
        }
        let frames = Frames::of(frames)?;
        // SAFETY: the interpreter is attached while this is used.
        if let Some(refusal) = self.shared.raw().refuse(unsafe { frames.slices() }) {
            return Err(too_long(refusal));
        }
        let detach = frames.are_constant();
        self.send_all(py, frames.len(), timeout, detach, |raw, taken| {
            // SAFETY: the interpreter is detached only if nobody can change the frames.
            raw.send_bytes(unsafe { frames.slices() }.skip(taken))
        })
    }

    /// Copy frames into the port's own memory, to be sent from there without a copy.
    fn keep(&self, frames: &Bound<'_, PyAny>) -> PyResult<Batch> {
        self.check_open()?;
        let frames = Frames::of(frames)?;
        let mut raw = self.shared.raw();
        // SAFETY: the interpreter is attached while these are used.
        let (shortest, kept) = unsafe {
            if let Some(refusal) = raw.refuse(frames.slices()) {
                return Err(PyValueError::new_err(refusal.to_string()));
            }
            (frames.slices().map(<[u8]>::len).max(), raw.keep(frames.slices()))
        };
        kept.map(Batch::new).ok_or_else(|| {
            let arena = raw.arena().lock();
            PyOSError::new_err((
                libc::ENOBUFS,
                format!(
                    "no room to keep {} frames of up to {} bytes: {} of {} frames of {} bytes are \
                     free, and an eighth is kept for what is received; open the port with more \
                     (frames=...)",
                    frames.len(),
                    shortest.unwrap_or(0),
                    arena.free(),
                    arena.frames(),
                    arena.frame_size()
                ),
            ))
        })
    }

    /// What the port has counted since it was opened.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut raw = self.shared.raw();
        let (statistics, counters) = (raw.statistics(), raw.counters());
        drop(raw);
        let told = PyDict::new(py);
        for (name, value) in [
            ("rx_packets", statistics.rx_packets),
            ("rx_bytes", statistics.rx_bytes),
            ("rx_bursts", statistics.rx_bursts),
            ("rx_filtered", counters.rx_filtered),
            ("rx_copied", counters.rx_copied),
            ("tx_packets", statistics.tx_packets),
            ("tx_bytes", statistics.tx_bytes),
            ("tx_copied", counters.tx_copied),
            ("tx_no_frame", counters.tx_no_frame),
            ("system_calls", statistics.system_calls),
        ] {
            told.set_item(name, value)?;
        }
        let table = |rows: Vec<(&'static str, u64)>| {
            let table = PyDict::new(py);
            rows.into_iter().try_for_each(|(name, value)| table.set_item(name, value))?;
            PyResult::Ok(table)
        };
        told.set_item("drops", table(statistics.drops)?)?;
        told.set_item("details", table(statistics.details)?)?;
        Ok(told)
    }

    /// How it works, by name.
    #[getter]
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let facts = PyDict::new(py);
        for (name, text) in self.shared.raw().facts() {
            // What was decided when it was opened comes first, and says more than the port knows.
            if !facts.contains(name)? {
                facts.set_item(name, text)?;
            }
        }
        Ok(facts)
    }

    /// "hardware", "software" or "file".
    #[getter]
    fn timestamps(&self) -> &'static str {
        match self.shared.raw().timestamps() {
            TimestampSource::Hardware => "hardware",
            TimestampSource::Software => "software",
            TimestampSource::File => "file",
        }
    }

    /// One of `PORT_KINDS`.
    #[getter]
    fn kind(&self) -> &'static str {
        self.shared.raw().capabilities().kind
    }

    /// The interface, the wire or the file.
    #[getter]
    fn name(&self) -> String {
        self.shared.raw().capabilities().name.clone()
    }

    /// The hardware address of this end, if it has one.
    #[getter]
    fn mac(&self) -> Option<String> {
        self.shared.raw().capabilities().mac.map(|mac| mac.to_string())
    }

    /// Largest IP packet.
    #[getter]
    fn mtu(&self) -> u32 {
        self.shared.raw().capabilities().mtu
    }

    /// Most packets of a batch.
    #[getter]
    fn batch(&self) -> usize {
        self.manner.limit
    }

    /// Frames that nobody uses, and all frames.
    #[getter]
    fn frames(&self) -> (usize, usize) {
        let arena = self.shared.raw().arena().clone();
        let mut arena = arena.lock();
        arena.collect_held();
        (arena.free(), arena.frames())
    }

    /// The descriptor that is readable when packets wait.
    fn fileno(&self) -> PyResult<i32> {
        self.check_open()?;
        let raw = self.shared.raw();
        raw.fd().ok_or_else(|| {
            PyOSError::new_err((libc::EBADF, format!("{} has no file descriptor", self.text)))
        })
    }

    /// Leave the wire. Batches that were given out stay as they are.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.shared.close()).map_err(to_python)
    }

    /// Whether close() was called.
    #[getter]
    fn closed(&self) -> bool {
        self.shared.is_closed()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (kind, value, trace))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (kind, value, trace);
        self.close(py)
    }

    fn __repr__(&self) -> String {
        let state = if self.shared.is_closed() { "closed " } else { "" };
        format!("<{state}Port {}>", self.text)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let _ = self.shared.close();
    }
}
