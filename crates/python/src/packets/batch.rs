//! A batch of packets.

use std::sync::Arc;

use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView, PySlice};

use super::buffers::Frames;
use super::memory::Memory;
use super::numpy::{self, Kind, Places};
use crate::whole;

/// Packets that came together, as columns over one piece of memory.
///
/// `Batch(frames)` makes one of bytes-like objects, which are copied.
#[pyclass(frozen, sequence, weakref, module = "millrace._native.packets")]
pub(crate) struct Batch {
    inner: Arc<millrace_packets::Batch>,
}

impl Batch {
    pub(super) fn new(inner: millrace_packets::Batch) -> Batch {
        Batch { inner: Arc::new(inner) }
    }

    pub(super) fn inner(&self) -> &Arc<millrace_packets::Batch> {
        &self.inner
    }

    fn column<'py, T>(
        &self,
        py: Python<'py>,
        column: &[T],
        kind: Kind,
    ) -> PyResult<Bound<'py, PyAny>> {
        numpy::array(py, Memory::column(&self.inner, column), column.len(), kind)
    }

    fn view<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyMemoryView>> {
        let memory = Bound::new(py, Memory::packet(&self.inner, index))?;
        PyMemoryView::from(memory.as_any())
    }

    /// A place that may count from the end.
    fn place(&self, index: i64) -> PyResult<usize> {
        let len = self.inner.len() as i64;
        let place = if index < 0 { index + len } else { index };
        if (0..len).contains(&place) {
            return Ok(place as usize);
        }
        Err(PyIndexError::new_err(format!("there is no packet {index} in a batch of {len}")))
    }
}

#[pymethods]
impl Batch {
    #[new]
    #[pyo3(signature = (frames, *, timestamp=0))]
    fn py_new(
        frames: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = whole::number)] timestamp: i128,
    ) -> PyResult<Batch> {
        let timestamp = whole::whole("timestamp", timestamp)?;
        if let Ok(batch) = frames.cast::<Batch>() {
            return Ok(Batch { inner: Arc::clone(&batch.get().inner) });
        }
        let frames = Frames::of(frames)?;
        // SAFETY: the interpreter is attached until the end of the call, and what is copied is not
        // looked at afterwards.
        let packets = unsafe { frames.slices() };
        Ok(Batch::new(millrace_packets::Batch::copied(packets, timestamp)))
    }

    /// Where each packet starts in `buffer`: int64.
    #[getter]
    fn offset<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.column(py, &self.inner.columns().offset, Kind::Int64)
    }

    /// Bytes of each packet that are here: uint32.
    #[getter]
    fn length<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.column(py, &self.inner.columns().length, Kind::UInt32)
    }

    /// Bytes of each packet on the wire: uint32.
    #[getter]
    fn original_length<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.column(py, &self.inner.columns().original, Kind::UInt32)
    }

    /// When each packet arrived, nanoseconds since 1970: int64.
    #[getter]
    fn timestamp<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.column(py, &self.inner.columns().timestamp, Kind::Int64)
    }

    /// The receive queue that each packet came from: uint16.
    #[getter]
    fn queue<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.column(py, &self.inner.columns().queue, Kind::UInt16)
    }

    /// What else is known of each packet, bits of `Flags`: uint16.
    #[getter]
    fn flags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.column(py, &self.inner.columns().flags, Kind::UInt16)
    }

    /// The memory that the offsets count in, as bytes: uint8, read-only.
    #[getter]
    fn buffer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let memory = Memory::whole(&self.inner);
        numpy::array(py, memory, self.inner.memory().1, Kind::UInt8)
    }

    /// Whether the packets are a copy, and not where they came in.
    #[getter]
    fn copied(&self) -> bool {
        self.inner.is_copied()
    }

    /// Bytes of all packets together.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.inner.bytes()
    }

    /// The headers of every packet as one structured array.
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let table = py.detach(|| self.inner.headers());
        let rows = table.len();
        numpy::array(py, Memory::table(table), rows, Kind::Headers)
    }

    /// The packets as a list of bytes, copied.
    fn tolist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, ExactPackets { batch: &self.inner, next: 0 }.map(|p| PyBytes::new(py, p)))
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    /// A packet as a read-only memoryview; for a slice, a mask or an array of places a batch of
    /// those packets, which shares their bytes.
    fn __getitem__<'py>(
        slf: &Bound<'py, Self>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if let Ok(index) = index.extract::<i64>() {
            return Ok(this.view(py, this.place(index)?)?.into_any());
        }
        let inner = &this.inner;
        if let Ok(slice) = index.cast::<PySlice>() {
            let range = slice.indices(inner.len() as isize)?;
            let place = |step: isize| (range.start + step * range.step) as usize;
            let chosen = inner.select((0..range.slicelength).map(|at| place(at as isize)));
            return Ok(Bound::new(py, Batch::new(chosen))?.into_any());
        }
        let list = match numpy::places(index)? {
            Places::Mask { len, .. } if len != inner.len() => {
                return Err(PyIndexError::new_err(format!(
                    "the mask has {len} entries, and the batch {} packets",
                    inner.len()
                )));
            }
            Places::Mask { found, .. } => found,
            Places::List(list) => list,
            Places::Neither => {
                return Err(PyTypeError::new_err(format!(
                    "a batch is indexed by a number, a slice, or a one-dimensional array of truth \
                     values or of places, not by {}",
                    index.get_type().name()?
                )));
            }
        };
        let places = list.into_iter().map(|at| this.place(at)).collect::<PyResult<Vec<_>>>()?;
        Ok(Bound::new(py, Batch::new(inner.select(places.into_iter())))?.into_any())
    }

    fn __repr__(&self) -> String {
        let copied = if self.inner.is_copied() { ", copied" } else { "" };
        format!("<Batch of {} packets, {} bytes{copied}>", self.inner.len(), self.inner.bytes())
    }
}

/// The packets' bytes, with their number known beforehand.
struct ExactPackets<'a> {
    batch: &'a millrace_packets::Batch,
    next: usize,
}

impl<'a> Iterator for ExactPackets<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        (self.next < self.batch.len()).then(|| {
            self.next += 1;
            self.batch.packet(self.next - 1)
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batch.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for ExactPackets<'_> {}
