//! A packet filter. libpcap compiles it, which `millrace.packets.filter` asks for it; here it runs.

use millrace_bpf::classic::{Instruction, Program, socket};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::batch::Batch;
use super::buffers::Frames;
use super::memory::Memory;
use super::numpy::{self, Kind};

/// An instruction: code, jt, jf, k.
type Plain = (u16, u8, u8, u32);

/// A packet filter that was compiled. Use `millrace.Filter`, which compiles it.
#[pyclass(frozen, subclass, module = "millrace._native.packets")]
pub(crate) struct Filter {
    inner: millrace_packets::Filter,
    expression: String,
}

impl Filter {
    pub(super) fn inner(&self) -> &millrace_packets::Filter {
        &self.inner
    }
}

#[pymethods]
impl Filter {
    #[new]
    fn new(expression: String, instructions: Vec<Plain>) -> PyResult<Filter> {
        let instructions: Vec<_> = instructions
            .into_iter()
            .map(|(code, jt, jf, k)| Instruction { code, jt, jf, k })
            .collect();
        let program = Program::new(&instructions)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Filter { inner: millrace_packets::Filter::new(program), expression })
    }

    /// The expression that it was compiled from.
    #[getter]
    pub(super) fn expression(&self) -> &str {
        &self.expression
    }

    /// The instructions of classic BPF.
    #[getter]
    fn instructions(&self) -> Vec<Plain> {
        self.inner.program().instructions().iter().map(plain).collect()
    }

    /// The instructions that a packet socket of the kernel gets.
    fn socket_instructions(&self) -> PyResult<Vec<Plain>> {
        let program = socket::program(self.inner.program())
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(program.iter().map(plain).collect())
    }

    /// Which packets of a batch pass: bool.
    fn mask<'py>(&self, py: Python<'py>, batch: &Bound<'py, Batch>) -> PyResult<Bound<'py, PyAny>> {
        let batch = batch.get().inner();
        let answers = py.detach(|| self.inner.accepted(batch));
        let items = answers.len();
        numpy::array(py, Memory::table(answers), items, Kind::Bool)
    }

    /// Whether one frame passes, of which `length` bytes were on the wire.
    #[pyo3(signature = (frame, length=None))]
    fn matches(&self, frame: &Bound<'_, PyAny>, length: Option<u32>) -> PyResult<bool> {
        let frames = Frames::of(frame)?;
        // SAFETY: the interpreter is attached while this is used.
        let mut frames = unsafe { frames.slices() };
        let (Some(frame), None) = (frames.next(), frames.next()) else {
            return Err(PyValueError::new_err("one frame is matched at a time; use mask()"));
        };
        let length = length.unwrap_or(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        Ok(self.inner.accepts(frame, length))
    }

    fn __str__(&self) -> String {
        self.inner.program().to_string()
    }

    fn __repr__(&self) -> String {
        let count = self.inner.program().ops().len();
        format!("<Filter '{}', {count} instructions>", self.expression)
    }
}

fn plain(instruction: &Instruction) -> Plain {
    let Instruction { code, jt, jf, k } = *instruction;
    (code, jt, jf, k)
}
