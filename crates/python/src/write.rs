//! Bytes that a program writes: what fits is copied at once, and what does not waits.

use millrace_channel::Handle;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBlockingIOError, PyBufferError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::to_python;
use crate::shared::Core;

/// A `bytes` object that is kept until all of it is sent. Its bytes can be looked at without the
/// interpreter, because they never change and never move.
struct Kept {
    object: Py<PyBytes>,
    start: *const u8,
    len: usize,
}

// SAFETY: the pointer is to memory that no thread writes and that lives as long as `object`, whose
// reference may be given up in any thread (PyO3 defers that until the interpreter is attached).
unsafe impl Send for Kept {}

impl Kept {
    fn new(bytes: &Bound<'_, PyBytes>) -> Kept {
        let view = bytes.as_bytes();
        Kept { start: view.as_ptr(), len: view.len(), object: bytes.clone().unbind() }
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        let _lives = &self.object;
        // SAFETY: see `Send`: the object lives, and a `bytes` object is never changed.
        unsafe { core::slice::from_raw_parts(self.start, self.len) }
    }
}

/// Writes bytes-like `data`. Returns how many bytes wait for room.
#[inline]
pub(crate) fn write(core: &mut Core, handle: Handle, data: &Bound<'_, PyAny>) -> PyResult<usize> {
    if let Ok(bytes) = data.cast::<PyBytes>() {
        let view = bytes.as_bytes();
        let written = core.channel.write(handle, view).map_err(to_python)?;
        if written == view.len() {
            return Ok(0);
        }
        let kept = Box::new(Kept::new(bytes));
        return core.channel.write_owned(handle, kept, written).map_err(to_python);
    }
    let buffer = PyUntypedBuffer::get(data)?;
    with_bytes(&buffer, |view| write_view(core, handle, view))?
}

/// Others may change, so what waits of them is copied, and there may not be more of it than the
/// queue is meant for.
fn write_view(core: &mut Core, handle: Handle, view: &[u8]) -> PyResult<usize> {
    let channel = &mut core.channel;
    let room = channel.write_room(handle).map_err(to_python)?;
    let most = channel.write_queue();
    if view.len() > room.saturating_add(most) {
        return Err(PyBlockingIOError::new_err((
            libc::EAGAIN,
            format!(
                "{} bytes do not fit: {room} are sent at once and {most} may wait; write less at \
                 a time, or a bytes object",
                view.len()
            ),
        )));
    }
    let written = channel.write(handle, view).map_err(to_python)?;
    if written == view.len() {
        return Ok(0);
    }
    let rest = Box::new(view[written..].to_vec());
    channel.write_owned(handle, rest, 0).map_err(to_python)
}

/// The bytes of a buffer, for the length of a call.
pub(crate) fn with_bytes<R>(
    buffer: &PyUntypedBuffer,
    use_bytes: impl FnOnce(&[u8]) -> R,
) -> PyResult<R> {
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err("the bytes to be written are not in one piece"));
    }
    let (start, len) = (buffer.buf_ptr().cast::<u8>(), buffer.len_bytes());
    if start.is_null() || len == 0 {
        return Ok(use_bytes(&[]));
    }
    // SAFETY: the buffer is exported, so its `len` contiguous bytes stay where they are. This
    // thread is attached to the interpreter and runs no Python code until `use_bytes` has returned,
    // so nobody changes them meanwhile.
    Ok(use_bytes(unsafe { core::slice::from_raw_parts(start, len) }))
}
