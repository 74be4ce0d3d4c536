//! A capture, which runs without the interpreter.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use millrace_packets::capture::{
    self, Control, End, Limits, Output, Rotation, Settings, Sink, Source, SourceOptions,
};
use millrace_port::af_packet::MOST_V3_BYTES;
use millrace_port::name::PortName;
use millrace_port::pcap::FileFormat;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::filter::Filter;
use super::memory::Memory;
use super::numpy::{self, Kind};
use crate::errors::to_python;
use crate::options::duration;
use crate::whole::{self, whole_or_none, within};

/// What a file says it was written by.
const PROGRAM: &str = concat!("millrace ", env!("CARGO_PKG_VERSION"));

/// The headers of a packet of each flow, their packets, their bytes, and how many were given up.
type Flows<'py> = (Bound<'py, PyAny>, Vec<u64>, Vec<u64>, u64);
/// A table of headers, if there is one in time, and whether there will be none.
type Rows<'py> = (Option<Bound<'py, PyAny>>, bool);

/// Packets of a port into files, into tables of headers, or into counts. Use
/// `millrace.packets.Capture`.
#[pyclass(frozen, module = "millrace._native.packets")]
pub(crate) struct Capture {
    inner: Mutex<Option<capture::Capture>>,
    control: Arc<Control>,
    facts: Vec<(&'static str, String)>,
}

#[pymethods]
impl Capture {
    #[new]
    #[pyo3(signature = (
        port, *, path=None, descriptor=None, format="pcapng", rows=None, filter=None, snap_length=0,
        buffer_bytes=None, promiscuous=true, incoming=true, outgoing=true, packets=None, seconds=None,
        rotate_bytes=None, rotate_seconds=None, keep=None, flows=None
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        port: &str,
        path: Option<PathBuf>,
        #[pyo3(from_py_with = whole::number_or_none)] descriptor: Option<i128>,
        format: &str,
        #[pyo3(from_py_with = whole::number_or_none)] rows: Option<i128>,
        filter: Option<&Bound<'_, Filter>>,
        #[pyo3(from_py_with = whole::number)] snap_length: i128,
        #[pyo3(from_py_with = whole::number_or_none)] buffer_bytes: Option<i128>,
        promiscuous: bool,
        incoming: bool,
        outgoing: bool,
        #[pyo3(from_py_with = whole::number_or_none)] packets: Option<i128>,
        seconds: Option<f64>,
        #[pyo3(from_py_with = whole::number_or_none)] rotate_bytes: Option<i128>,
        rotate_seconds: Option<f64>,
        #[pyo3(from_py_with = whole::number_or_none)] keep: Option<i128>,
        #[pyo3(from_py_with = whole::number_or_none)] flows: Option<i128>,
    ) -> PyResult<Capture> {
        let name: PortName = port.parse().map_err(to_python)?;
        let time = |name, seconds: Option<f64>| seconds.map(|s| duration(name, s)).transpose();
        let packets = whole_or_none("packets", packets)?;
        let limits = Limits { packets, time: time("seconds", seconds)? };
        let rotation = Rotation {
            bytes: whole_or_none("rotate_bytes", rotate_bytes)?,
            time: time("rotate_seconds", rotate_seconds)?,
            keep: whole_or_none("keep", keep)?,
        };
        let format = match format {
            "pcapng" => FileFormat::PcapNg,
            "pcap" => FileFormat::PcapNanos,
            _ => {
                let text = format!("format is 'pcapng' or 'pcap', not {format:?}");
                return Err(PyValueError::new_err(text));
            }
        };
        let output = match (path, whole_or_none("descriptor", descriptor)?) {
            (Some(path), None) => Some(Output::Path(path)),
            (None, Some(fd)) => Some(Output::File(duplicate(fd)?, format!("descriptor {fd}"))),
            (None, None) => None,
            (Some(_), Some(_)) => {
                return Err(PyValueError::new_err("a capture has a path or a descriptor"));
            }
        };
        let sink = match (output, whole_or_none("rows", rows)?) {
            (Some(output), None) => {
                let program = PROGRAM.to_owned();
                let directions =
                    incoming && outgoing && matches!(name.kind, None | Some("af_packet"));
                Sink::Files(Box::new(Settings { output, format, rotation, program, directions }))
            }
            (None, Some(rows)) => Sink::Rows(rows),
            (None, None) => Sink::Nothing,
            (Some(_), Some(_)) => {
                return Err(PyValueError::new_err("a capture gives files or rows"));
            }
        };
        let options = SourceOptions {
            filter: filter.map(|filter| filter.get().inner().clone()),
            expression: filter.map(|filter| filter.get().expression().to_owned()),
            snap_length: whole::whole("snap_length", snap_length)?,
            ring_bytes: match buffer_bytes {
                Some(bytes) => within("buffer_bytes", bytes, 0..=MOST_V3_BYTES as i128)?,
                None => capture::RING_BYTES,
            },
            promiscuous,
            incoming,
            outgoing,
        };
        let flows = whole_or_none("flows", flows)?;
        let made = py.detach(|| {
            let source = Source::open(&name, options)?;
            capture::Capture::new(source, sink, limits, flows)
        });
        let inner = made.map_err(to_python)?;
        let (control, facts) = (inner.control(), inner.facts());
        Ok(Capture { inner: Mutex::new(Some(inner)), control, facts })
    }

    /// Capture until it ends: "packets", "time", "stopped" or "exhausted" says why.
    fn run(&self, py: Python<'_>) -> PyResult<&'static str> {
        let taken = self.inner.lock().ok().and_then(|mut inner| inner.take());
        let Some(mut inner) = taken else {
            return Err(PyRuntimeError::new_err("this capture runs already, or has ended"));
        };
        let end = py.detach(|| inner.run()).map_err(to_python)?;
        Ok(match end {
            End::Packets => "packets",
            End::Time => "time",
            End::Stopped => "stopped",
            End::Exhausted => "exhausted",
        })
    }

    /// End `run` in another thread.
    fn stop(&self) {
        self.control.stop();
    }

    /// What it has done so far.
    fn progress<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let progress = self.control.progress();
        let told = PyDict::new(py);
        for (name, value) in [
            ("packets", progress.packets),
            ("bytes", progress.bytes),
            ("cut", progress.cut),
            ("unwritten", progress.unwritten),
            ("written", progress.written),
            ("files", progress.files.into()),
            ("filtered", progress.filtered),
            ("seen", progress.port.rx_packets),
        ] {
            told.set_item(name, value)?;
        }
        told.set_item("seconds", progress.elapsed.as_secs_f64())?;
        let drops = PyDict::new(py);
        for (name, count) in progress.port.drops.iter().filter(|(name, _)| name.starts_with("rx_"))
        {
            drops.set_item(name, count)?;
        }
        told.set_item("drops", drops)?;
        Ok(told)
    }

    /// The flows with the most bytes: the headers of a packet of each, their packets and bytes, and
    /// how many others were given up.
    fn top<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = whole::number)] count: i128,
    ) -> PyResult<Flows<'py>> {
        let count = whole::whole("count", count)?;
        let (flows, given_up) = py.detach(|| self.control.top(count));
        let first: Vec<_> = flows.iter().map(|flow| flow.first).collect();
        let items = first.len();
        let first = numpy::array(py, Memory::table(first), items, Kind::Headers)?;
        let packets = flows.iter().map(|flow| flow.packets).collect();
        Ok((first, packets, flows.iter().map(|flow| flow.bytes).collect(), given_up))
    }

    /// The next table of headers, or None if there is none in time; and whether there will be none.
    fn rows<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Rows<'py>> {
        let timeout = duration("timeout", timeout)?;
        let Some(rows) = self.control.rows() else {
            return Err(PyRuntimeError::new_err("this capture gives no rows"));
        };
        let (table, ended) = py.detach(|| rows.take(timeout));
        let table = table.map(|table| {
            let items = table.len();
            numpy::array(py, Memory::table(table), items, Kind::Headers)
        });
        Ok((table.transpose()?, ended))
    }

    /// How packets are taken, by name.
    #[getter]
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let facts = PyDict::new(py);
        self.facts.iter().try_for_each(|(name, text)| facts.set_item(name, text))?;
        Ok(facts)
    }
}

/// A descriptor of our own for what `fd` is open on.
fn duplicate(fd: i32) -> PyResult<File> {
    if fd < 0 {
        return Err(PyValueError::new_err(format!("{fd} is no descriptor")));
    }
    // SAFETY: it is borrowed for the length of this call; one that is not open is an error of the
    // kernel's.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map(File::from).map_err(to_python)
}
