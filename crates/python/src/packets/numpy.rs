//! NumPy's arrays over memory of ours. NumPy is Python here: nothing of it is linked.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::memory::Memory;

/// The kinds of array that are made.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Int64,
    UInt32,
    UInt16,
    UInt8,
    Bool,
    Headers,
}

struct Known {
    from_buffer: Py<PyAny>,
    empty: Py<PyAny>,
    flat_nonzero: Py<PyAny>,
    as_array: Py<PyAny>,
    kinds: [Py<PyAny>; 6],
}

static KNOWN: PyOnceLock<Known> = PyOnceLock::new();

fn known(py: Python<'_>) -> PyResult<&'static Known> {
    KNOWN.get_or_try_init(py, || {
        let numpy = py.import("numpy")?;
        let kind = |text: &str| numpy.call_method1("dtype", (text,)).map(Bound::unbind);
        Ok(Known {
            from_buffer: numpy.getattr("frombuffer")?.unbind(),
            empty: numpy.getattr("empty")?.unbind(),
            flat_nonzero: numpy.getattr("flatnonzero")?.unbind(),
            as_array: numpy.getattr("asarray")?.unbind(),
            kinds: [
                kind("i8")?,
                kind("u4")?,
                kind("u2")?,
                kind("u1")?,
                kind("b1")?,
                headers(&numpy)?.unbind(),
            ],
        })
    })
}

/// The type of a row of headers.
fn headers<'py>(numpy: &Bound<'py, PyModule>) -> PyResult<Bound<'py, PyAny>> {
    let fields = millrace_packets::headers::FIELDS;
    let spec = PyDict::new(numpy.py());
    spec.set_item("names", fields.iter().map(|field| field.name).collect::<Vec<_>>())?;
    spec.set_item("formats", fields.iter().map(|field| field.kind).collect::<Vec<_>>())?;
    spec.set_item("offsets", fields.iter().map(|field| field.offset).collect::<Vec<_>>())?;
    spec.set_item("itemsize", millrace_packets::headers::ROW)?;
    numpy.call_method1("dtype", (spec,))
}

/// An array over `memory`, which it keeps.
pub(super) fn array<'py>(
    py: Python<'py>,
    memory: Memory,
    items: usize,
    kind: Kind,
) -> PyResult<Bound<'py, PyAny>> {
    let known = known(py)?;
    let kind = &known.kinds[kind as usize];
    if items == 0 {
        return known.empty.bind(py).call1((0, kind));
    }
    known.from_buffer.bind(py).call1((Bound::new(py, memory)?, kind))
}

/// The places that a mask of truth values or an array of places names, both of one dimension.
pub(super) fn places(index: &Bound<'_, PyAny>) -> PyResult<Places> {
    let py = index.py();
    let known = known(py)?;
    let array = known.as_array.bind(py).call1((index,))?;
    let shape: Vec<usize> = array.getattr(intern!(py, "shape"))?.extract()?;
    let kind: String =
        array.getattr(intern!(py, "dtype"))?.getattr(intern!(py, "kind"))?.extract()?;
    let whole = |array: &Bound<'_, PyAny>| -> PyResult<Vec<i64>> {
        let array = known.as_array.bind(py).call1((array, &known.kinds[Kind::Int64 as usize]))?;
        pyo3::buffer::PyBuffer::<i64>::get(&array)?.to_vec(py)
    };
    match (shape.as_slice(), kind.as_str()) {
        (&[len], "b") => {
            let found = known.flat_nonzero.bind(py).call1((array,))?;
            Ok(Places::Mask { len, found: whole(&found)? })
        }
        (&[0], _) => Ok(Places::List(Vec::new())),
        (&[_], "i" | "u") => Ok(Places::List(whole(&array)?)),
        _ => Ok(Places::Neither),
    }
}

/// What an index that is no number and no slice means.
pub(super) enum Places {
    /// A mask of `len` truth values, and where it is true.
    Mask { len: usize, found: Vec<i64> },
    /// Places, negative ones from the end.
    List(Vec<i64>),
    /// Nothing that could be an index.
    Neither,
}
