//! Frames that Python gives to be sent: bytes-like objects, or the rows of an array.

use std::ffi::CStr;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

/// The frames, and what keeps their bytes where they are.
pub(super) struct Frames {
    spans: Vec<(*const u8, usize)>,
    bytes: Vec<Py<PyBytes>>,
    buffers: Vec<PyUntypedBuffer>,
}

// SAFETY: the addresses are of memory that the references and buffers beside them keep. Both may be
// given up in any thread.
unsafe impl Send for Frames {}
// SAFETY: nothing is changed through a reference.
unsafe impl Sync for Frames {}

impl Frames {
    /// The frames in a bytes-like object (one), an array of two dimensions (one a row), or anything
    /// that gives bytes-like objects.
    pub(super) fn of(object: &Bound<'_, PyAny>) -> PyResult<Frames> {
        let mut frames = Frames { spans: Vec::new(), bytes: Vec::new(), buffers: Vec::new() };
        if let Ok(list) = object.cast::<PyList>() {
            frames.reserve(list.len());
            list.iter().try_for_each(|frame| frames.push(&frame))?;
        } else if let Ok(tuple) = object.cast::<PyTuple>() {
            frames.reserve(tuple.len());
            tuple.iter().try_for_each(|frame| frames.push(&frame))?;
        } else if object.is_instance_of::<PyBytes>() {
            frames.push(object)?;
        } else if let Ok(buffer) = PyUntypedBuffer::get(object) {
            frames.push_rows(buffer)?;
        } else {
            let items = object.try_iter().map_err(|_| wrong(object))?;
            for frame in items {
                frames.push(&frame?)?;
            }
        }
        Ok(frames)
    }

    fn reserve(&mut self, count: usize) {
        self.spans.reserve(count);
        self.bytes.reserve(count);
    }

    #[inline]
    fn push(&mut self, frame: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(bytes) = frame.cast::<PyBytes>() {
            let view = bytes.as_bytes();
            self.spans.push((view.as_ptr(), view.len()));
            self.bytes.push(bytes.clone().unbind());
            return Ok(());
        }
        let buffer = PyUntypedBuffer::get(frame).map_err(|_| wrong(frame))?;
        if buffer.dimensions() > 1 || !is_bytes(&buffer) {
            return Err(PyBufferError::new_err(
                "a frame is a bytes-like object of one dimension, contiguous, of single bytes",
            ));
        }
        self.spans.push((buffer.buf_ptr().cast(), buffer.len_bytes()));
        self.buffers.push(buffer);
        Ok(())
    }

    fn push_rows(&mut self, buffer: PyUntypedBuffer) -> PyResult<()> {
        if !is_bytes(&buffer) || buffer.dimensions() > 2 {
            return Err(PyBufferError::new_err(
                "frames in one array are the rows of a contiguous array of uint8 with two dimensions",
            ));
        }
        match *buffer.shape() {
            [rows, len] => {
                let start = buffer.buf_ptr().cast::<u8>().cast_const();
                // Within the buffer, which is contiguous and has so many rows.
                self.spans.extend((0..rows).map(|row| (start.wrapping_add(row * len), len)));
            }
            _ => self.spans.push((buffer.buf_ptr().cast(), buffer.len_bytes())),
        }
        self.buffers.push(buffer);
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether nobody can change them: all are `bytes`.
    pub(super) fn are_constant(&self) -> bool {
        self.buffers.is_empty()
    }

    /// The frames' bytes.
    ///
    /// # Safety
    /// Nobody may write them while the slices are used: either the interpreter is attached, so that
    /// no other Python code runs, or [`Frames::are_constant`].
    pub(super) unsafe fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|&(start, len)| match len {
            // Python may give a null pointer for no bytes.
            0 => &[][..],
            // SAFETY: the span lies in an object that `self` keeps, and a buffer's memory does not
            // move or go while it is exported; the caller promises that nobody writes it.
            len => unsafe { core::slice::from_raw_parts(start, len) },
        })
    }
}

fn is_bytes(buffer: &PyUntypedBuffer) -> bool {
    let format: &[&CStr] = &[c"B", c"b", c"c"];
    buffer.item_size() == 1 && buffer.is_c_contiguous() && format.contains(&buffer.format())
}

fn wrong(object: &Bound<'_, PyAny>) -> PyErr {
    let name = object.get_type().name().map_or_else(|_| "this".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{name} is no frame: a frame is a bytes-like object"))
}
