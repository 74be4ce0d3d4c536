//! A map, with keys and values as bytes.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use millrace_bpf::map::possible_cpus;
use millrace_bpf::{Map, MapKind, MapSpec, Update};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::to_python;
use crate::whole;

/// A map in the kernel, for as long as this object or a program that uses it lives. A value of a
/// per-CPU kind is one value, rounded up to eight bytes, for each possible CPU.
#[pyclass(frozen, module = "millrace._native")]
pub(crate) struct XdpMap {
    inner: Map,
}

#[pymethods]
impl XdpMap {
    /// `kind` is a number of `enum bpf_map_type`; with `open`, the map that was pinned there is
    /// opened, and must be of the shape given.
    #[new]
    #[pyo3(signature = (kind, name, key_size, value_size, entries, flags=0, open=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        #[pyo3(from_py_with = whole::number)] kind: i128,
        name: &str,
        #[pyo3(from_py_with = whole::number)] key_size: i128,
        #[pyo3(from_py_with = whole::number)] value_size: i128,
        #[pyo3(from_py_with = whole::number)] entries: i128,
        #[pyo3(from_py_with = whole::number)] flags: i128,
        open: Option<PathBuf>,
    ) -> PyResult<Self> {
        let kind = whole::whole("kind", kind)?;
        let Some(kind) = MapKind::from_number(kind) else {
            return Err(PyValueError::new_err(format!("no kind of map has the number {kind}")));
        };
        let spec = MapSpec {
            name,
            kind,
            key_size: whole::whole("key_size", key_size)?,
            value_size: whole::whole("value_size", value_size)?,
            max_entries: whole::whole("entries", entries)?,
            flags: whole::whole("flags", flags)?,
        };
        let inner = match open {
            Some(path) => Map::open(&path, &spec),
            None => Map::create(&spec),
        };
        Ok(Self { inner: inner.map_err(to_python)? })
    }

    /// The descriptor, which belongs to this object.
    fn fileno(&self) -> i32 {
        self.inner.as_fd().as_raw_fd()
    }

    /// The kernel's id of the map.
    fn id(&self) -> PyResult<u32> {
        self.inner.id().map_err(to_python)
    }

    /// The value of a key, or None.
    fn get<'py>(&self, py: Python<'py>, key: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut value = vec![0; self.inner.value_len()];
        let found = self.inner.lookup(key, &mut value).map_err(to_python)?;
        Ok(found.then(|| PyBytes::new(py, &value)))
    }

    /// Write a value: `mode` 0 in any case, 1 only if the key is new, 2 only if it is there.
    #[pyo3(signature = (key, value, mode=0))]
    fn set(
        &self,
        key: &[u8],
        value: &[u8],
        #[pyo3(from_py_with = whole::number)] mode: i128,
    ) -> PyResult<()> {
        let mode = match mode {
            0 => Update::Any,
            1 => Update::Insert,
            2 => Update::Replace,
            _ => return Err(PyValueError::new_err(format!("the mode is 0, 1 or 2, not {mode}"))),
        };
        self.inner.update(key, value, mode).map_err(to_python)
    }

    /// Remove a key; False if it was not there.
    fn delete(&self, key: &[u8]) -> PyResult<bool> {
        self.inner.delete(key).map_err(to_python)
    }

    /// All keys. Some that come or go meanwhile may be missed.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for key in self.inner.keys() {
            list.append(PyBytes::new(py, &key.map_err(to_python)?))?;
        }
        Ok(list)
    }

    /// All keys and values. Some that come or go meanwhile may be missed.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let mut value = vec![0; self.inner.value_len()];
        for key in self.inner.keys() {
            let key = key.map_err(to_python)?;
            if self.inner.lookup(&key, &mut value).map_err(to_python)? {
                list.append((PyBytes::new(py, &key), PyBytes::new(py, &value)))?;
            }
        }
        Ok(list)
    }

    /// Name it in a BPF file system, so that it stays when this process ends.
    fn pin(&self, path: PathBuf) -> PyResult<()> {
        self.inner.pin(&path).map_err(to_python)
    }
}

/// How many CPUs the kernel counts as possible.
#[pyfunction]
pub(crate) fn xdp_possible_cpus() -> PyResult<usize> {
    possible_cpus().map_err(to_python)
}
