//! Memory that Python looks at through the buffer protocol, and what keeps it.

use std::ffi::c_int;
use std::sync::Arc;

use millrace_packets::Batch;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

/// A piece of memory as bytes. NumPy's arrays and memoryviews are made over it.
#[pyclass(frozen, module = "millrace._native.packets")]
pub(super) struct Memory {
    /// What keeps the memory where it is: a batch, or a table that only the view knows.
    _owner: Arc<dyn Send + Sync>,
    start: *const u8,
    len: usize,
    read_only: bool,
}

// SAFETY: the memory belongs to `_owner`, which may be used and dropped in any thread. What others
// write at the same time (frames that are not the batch's, in the whole of an arena) is never looked
// at from Rust through `start`.
unsafe impl Send for Memory {}
// SAFETY: as above; this class only hands the address out.
unsafe impl Sync for Memory {}

impl Memory {
    /// `items` of a batch: one of its columns.
    pub(super) fn column<T>(batch: &Arc<Batch>, items: &[T]) -> Memory {
        let _owner = Arc::clone(batch) as Arc<dyn Send + Sync>;
        let (start, len) = (items.as_ptr().cast(), size_of_val(items));
        Memory { _owner, start, len, read_only: true }
    }

    /// The bytes of one packet.
    pub(super) fn packet(batch: &Arc<Batch>, index: usize) -> Memory {
        Memory::column(batch, batch.packet(index))
    }

    /// What a batch's offsets count in.
    pub(super) fn whole(batch: &Arc<Batch>) -> Memory {
        let (start, len) = batch.memory();
        Memory { start, len, ..Memory::column::<u8>(batch, &[]) }
    }

    /// A table that was made for this view, which may change it.
    pub(super) fn table<T: Send + Sync + 'static>(table: Vec<T>) -> Memory {
        let (start, len) = (table.as_ptr().cast(), size_of_val(&table[..]));
        Memory { _owner: Arc::new(table), start, len, read_only: false }
    }
}

#[pymethods]
impl Memory {
    /// # Safety
    /// Python calls it with a `Py_buffer` to be filled, or null, which it must not.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no buffer to fill"));
        }
        let memory = slf.get();
        // SAFETY: `view` is Python's to be filled. The memory lives as long as `slf`, of which the
        // view keeps a reference, and does not move: it is that of vectors and frames that nobody
        // touches any more. What is not announced as read-only belongs to this object alone, and
        // Rust never looks at it again.
        let result = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                memory.start.cast_mut().cast(),
                memory.len as ffi::Py_ssize_t,
                memory.read_only.into(),
                flags,
            )
        };
        if result == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
