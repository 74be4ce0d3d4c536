//! XDP programs, maps and links: what `millrace.xdp` needs of the kernel. Which instructions make a
//! program, and what a map's bytes mean, is decided in Python.

mod link;
mod map;
mod program;

pub(crate) use link::XdpLink;
pub(crate) use map::{XdpMap, xdp_possible_cpus};
pub(crate) use program::XdpProgram;

use millrace_bpf::{Error, Insn, LinkInfo, Mode, Program, ProgramInfo, attached};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// An `OSError` with the errno where a system call failed, else a `ValueError`. One of the verifier
/// carries its whole log as `log`.
fn to_python(error: Error) -> PyErr {
    let Some(errno) = error.errno() else { return PyValueError::new_err(error.to_string()) };
    let raised = PyOSError::new_err((errno, error.to_string()));
    if let Error::Verifier { log, .. } = error {
        Python::attach(|py| {
            // Without the attribute the text still says it all.
            let _ = raised.value(py).setattr("log", log);
        });
    }
    raised
}

fn mode_named(name: &str) -> PyResult<Mode> {
    match name {
        "native" => Ok(Mode::Native),
        "generic" => Ok(Mode::Generic),
        _ => Err(PyValueError::new_err(format!("mode is native or generic, not {name:?}"))),
    }
}

fn program_from(instructions: &[u8]) -> PyResult<Program> {
    let (slots, rest) = instructions.as_chunks::<8>();
    if !rest.is_empty() {
        let len = instructions.len();
        return Err(PyValueError::new_err(format!("{len} bytes are no whole instructions")));
    }
    let slots = slots.iter().map(|&[code, regs, a, b, c, d, e, f]| Insn {
        code,
        regs,
        offset: i16::from_ne_bytes([a, b]),
        imm: i32::from_ne_bytes([c, d, e, f]),
    });
    Program::from_slots(slots.collect()).map_err(|error| to_python(error.into()))
}

fn information<'py>(py: Python<'py>, info: &ProgramInfo) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", info.id)?;
    dict.set_item("name", &info.name)?;
    dict.set_item("uid", info.uid)?;
    dict.set_item("loaded_at", info.loaded_at)?;
    dict.set_item("translated_bytes", info.translated_len)?;
    dict.set_item("compiled_bytes", info.compiled_len)?;
    dict.set_item("verified_instructions", info.verified)?;
    dict.set_item("run_count", info.run_count)?;
    dict.set_item("run_nanoseconds", info.run_nanoseconds)?;
    Ok(dict)
}

/// The XDP programs of an interface of this network namespace: what the kernel knows of each
/// (`id`, `name`, run counts and more), its `mode`, and the `link` that holds it, where there is one.
///
/// Raises OSError when there is no such interface.
#[pyfunction]
pub(crate) fn xdp_attached(py: Python<'_>, ifindex: u32) -> PyResult<Bound<'_, PyList>> {
    let programs = attached(ifindex).map_err(to_python)?;
    // It takes CAP_SYS_ADMIN to walk the links; the programs are told all the same.
    let links = LinkInfo::all().unwrap_or_default();
    let list = PyList::empty(py);
    for program in programs {
        let info = ProgramInfo::by_id(program.id).ok().flatten();
        let dict = match &info {
            Some(info) => information(py, info)?,
            None => PyDict::new(py),
        };
        dict.set_item("id", program.id)?;
        dict.set_item("name", program.name)?;
        dict.set_item("mode", program.mode.map(|mode| mode.to_string()))?;
        let link = links
            .iter()
            .find(|link| link.program_id == program.id && link.ifindex == Some(ifindex));
        dict.set_item("link", link.map(|link| link.id))?;
        list.append(dict)?;
    }
    Ok(list)
}

/// The text of instructions in the kernel's notation: (slot, text) of each.
#[pyfunction]
pub(crate) fn xdp_disassemble(instructions: &[u8]) -> PyResult<Vec<(usize, String)>> {
    let text = program_from(instructions)?.to_string();
    Ok(text
        .lines()
        .filter_map(|line| {
            let (slot, text) = line.trim_start().split_once(": ")?;
            Some((slot.parse().ok()?, text.to_owned()))
        })
        .collect())
}

/// Has the kernel count runs and time of all BPF programs until it is closed or gone.
#[pyclass(frozen, module = "millrace._native")]
pub(crate) struct XdpRunStatistics(std::sync::Mutex<Option<millrace_bpf::RunStatistics>>);

#[pymethods]
impl XdpRunStatistics {
    #[new]
    fn new() -> PyResult<Self> {
        let enabled = millrace_bpf::RunStatistics::enable().map_err(to_python)?;
        Ok(Self(std::sync::Mutex::new(Some(enabled))))
    }

    /// Stop counting, unless somebody else has it counted too.
    fn close(&self) {
        if let Ok(mut enabled) = self.0.lock() {
            *enabled = None;
        }
    }
}
