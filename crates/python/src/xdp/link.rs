//! What holds a program on an interface.

use std::path::PathBuf;
use std::sync::Mutex;

use millrace_bpf::{Link, ProgramInfo};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{XdpProgram, information, to_python};

/// An attached program: detached when this object is gone, unless it was pinned.
#[pyclass(frozen, module = "millrace._native")]
pub(crate) struct XdpLink {
    /// `None` once detached.
    inner: Mutex<Option<Link>>,
}

impl XdpLink {
    pub(super) fn new(link: Link) -> Self {
        Self { inner: Mutex::new(Some(link)) }
    }

    fn with<T>(&self, work: impl FnOnce(&Link) -> PyResult<T>) -> PyResult<T> {
        match self.inner.lock().as_deref() {
            Ok(Some(link)) => work(link),
            _ => Err(PyValueError::new_err("the program was detached already")),
        }
    }
}

#[pymethods]
impl XdpLink {
    /// Opens a link that was pinned.
    #[staticmethod]
    fn open(path: PathBuf) -> PyResult<Self> {
        Link::open(&path).map(Self::new).map_err(to_python)
    }

    /// Put another program in the place of the attached one, without a gap. With `expected`, only
    /// if that is the one attached.
    #[pyo3(signature = (program, expected=None))]
    fn replace(&self, program: &XdpProgram, expected: Option<&XdpProgram>) -> PyResult<()> {
        self.with(|link| {
            link.replace(&program.inner, expected.map(|old| &old.inner)).map_err(to_python)
        })
    }

    /// Detach it now, whoever else holds it. A second call does nothing.
    fn detach(&self) -> PyResult<()> {
        let taken = self.inner.lock().ok().and_then(|mut inner| inner.take());
        taken.map_or(Ok(()), |link| link.detach().map_err(to_python))
    }

    /// Let go of it; a pinned program stays attached.
    fn close(&self) {
        if let Ok(mut inner) = self.inner.lock() {
            *inner = None;
        }
    }

    /// Name it in a BPF file system, so that it stays when this process ends.
    fn pin(&self, path: PathBuf) -> PyResult<()> {
        self.with(|link| link.pin(&path).map_err(to_python))
    }

    /// The link's `id`, its interface's `ifindex` (None once that is gone), and what the kernel
    /// knows of its `program`.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.with(|link| link.info().map_err(to_python))?;
        let dict = PyDict::new(py);
        dict.set_item("id", info.id)?;
        dict.set_item("ifindex", info.ifindex)?;
        let program = ProgramInfo::by_id(info.program_id).map_err(to_python)?;
        let program = program.map(|program| information(py, &program)).transpose()?;
        dict.set_item("program", program)?;
        Ok(dict)
    }
}
