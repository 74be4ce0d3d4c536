//! A loaded program.

use std::path::PathBuf;

use millrace_bpf::{Ingress, LoadOptions, XdpProgram as Inner};
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::link::XdpLink;
use super::{information, mode_named, program_from, to_python};
use crate::whole;

/// A program in the kernel, for as long as this object or a link to it lives.
#[pyclass(frozen, module = "millrace._native")]
pub(crate) struct XdpProgram {
    pub(super) inner: Inner,
}

#[pymethods]
impl XdpProgram {
    /// Gives instructions (`struct bpf_insn` one after the other) to the verifier.
    #[new]
    #[pyo3(signature = (instructions, name, *, license="Apache-2.0", frags=false))]
    fn new(
        py: Python<'_>,
        instructions: &[u8],
        name: &str,
        license: &str,
        frags: bool,
    ) -> PyResult<Self> {
        let program = program_from(instructions)?;
        let options = LoadOptions { name, license, frags };
        let inner = py.detach(|| Inner::load(&program, &options)).map_err(to_python)?;
        Ok(Self { inner })
    }

    /// What the kernel knows of it.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        information(py, &self.inner.info().map_err(to_python)?)
    }

    /// Attach it to an interface of this network namespace.
    fn attach(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = whole::number)] ifindex: i128,
        mode: &str,
    ) -> PyResult<XdpLink> {
        let ifindex = whole::whole("ifindex", ifindex)?;
        let mode = mode_named(mode)?;
        let link = py.detach(|| self.inner.attach(ifindex, mode)).map_err(to_python)?;
        Ok(XdpLink::new(link))
    }

    /// Name it in a BPF file system.
    fn pin(&self, path: PathBuf) -> PyResult<()> {
        self.inner.pin(&path).map_err(to_python)
    }

    /// Run it on each frame, `repeat` times: (action, frame as the program left it, mean
    /// nanoseconds) of each.
    #[pyo3(signature = (frames, repeat=1, ingress=None))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        frames: &Bound<'py, PyList>,
        #[pyo3(from_py_with = whole::number)] repeat: i128,
        ingress: Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    ) -> PyResult<Bound<'py, PyList>> {
        let repeat = whole::whole("repeat", repeat)?;
        let ingress = match ingress {
            None => None,
            Some((ifindex, queue)) => Some(Ingress {
                ifindex: whole::whole("ifindex", whole::number(&ifindex)?)?,
                queue: whole::whole("queue", whole::number(&queue)?)?,
            }),
        };
        let results = PyList::empty(py);
        let mut out = Vec::new();
        for frame in frames {
            let Ok(frame) = frame.cast_into::<PyBytes>() else {
                return Err(PyBufferError::new_err("every frame must be bytes"));
            };
            let frame = frame.as_bytes();
            // The test run is cut short by a signal; Python then says what it is.
            let run = || self.inner.test_run_into(frame, &mut out, repeat, ingress);
            let (action, nanoseconds) = match py.detach(run) {
                Ok(run) => run,
                Err(error) => {
                    py.check_signals()?;
                    return Err(to_python(error));
                }
            };
            results.append((action, PyBytes::new(py, &out), nanoseconds))?;
        }
        Ok(results)
    }
}
