//! Completions as Python sees them, their payloads and their kinds.
//!
//! A payload is a frame of the arena, without a copy. It is set aside for as long as the completion
//! or a view of it lives, so it never shows other bytes than those that came, however long it is
//! kept.

use std::ffi::c_int;
use std::net::SocketAddr;
use std::sync::Arc;

use millrace_channel::{Held, Kind};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyMemoryView};
use pyo3::{PyTraverseError, PyVisit};

use crate::errors;
use crate::handle::Handle;
use crate::shared::{Core, Shared};

/// One thing that happened: what (`kind`), to which handle, and what came with it.
///
/// One with a payload is bytes-like: it can be written, hashed and searched as it is.
#[pyclass(frozen, module = "millrace._native")]
pub(crate) struct Completion {
    /// A member of `Kind`, to be compared by identity: `done.kind is READ`.
    #[pyo3(get)]
    kind: Py<PyAny>,
    /// The connection or datagram socket it happened to.
    #[pyo3(get)]
    handle: Py<Handle>,
    /// ACCEPTED: the listener. DATAGRAM: the sender. CLOSED: the error or None.
    more: Py<PyAny>,
    payload: Payload,
    what: Kind,
}

enum Payload {
    None,
    /// The frame itself.
    Held(Held),
    /// A copy, made because too few frames were free.
    Copied(Box<[u8]>),
}

impl Payload {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Payload::None => &[],
            Payload::Held(held) => held,
            Payload::Copied(bytes) => bytes,
        }
    }
}

#[pymethods]
impl Completion {
    /// The payload of READ and DATAGRAM as a read-only memoryview, without a copy. Empty where there
    /// is none. It may be kept for as long as anybody likes.
    #[getter]
    fn data<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(slf.as_any())
    }

    /// The payload as bytes, copied: the quickest for what is short. Empty where there is none.
    fn tobytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.payload.bytes())
    }

    /// Bytes of the payload.
    fn __len__(&self) -> usize {
        self.payload.bytes().len()
    }

    fn __bool__(&self) -> bool {
        true
    }

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
        let bytes = slf.get().payload.bytes();
        // SAFETY: `view` is Python's to be filled. The bytes live and do not change for as long as
        // `slf` lives, of which the view keeps a reference, and are announced as read-only.
        let result = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                bytes.as_ptr().cast_mut().cast(),
                bytes.len() as ffi::Py_ssize_t,
                1,
                flags,
            )
        };
        if result == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }

    /// The listener whose connection was ACCEPTED, else None.
    #[getter]
    fn listener(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.more_of(py, Kind::Accepted)
    }

    /// Who sent a DATAGRAM, as (host, port), else None.
    #[getter]
    fn source(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.more_of(py, Kind::Datagram)
    }

    /// Why a connection was CLOSED before its time, an OSError, else None.
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.more_of(py, Kind::Closed)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let handle = self.handle.bind(py).repr()?;
        let mut text = format!("<{} {handle}", self.what.name());
        if !matches!(self.payload, Payload::None) {
            text += &format!(", {} bytes", self.payload.bytes().len());
        }
        if self.what == Kind::Closed && !self.more.is_none(py) {
            text += &format!(", {}", self.more.bind(py));
        }
        Ok(text + ">")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.handle)?;
        visit.call(&self.more)
    }
}

impl Completion {
    fn more_of(&self, py: Python<'_>, kind: Kind) -> Option<Py<PyAny>> {
        (self.what == kind).then(|| self.more.clone_ref(py))
    }
}

/// The kinds that Python gets to see. [`Kind::Writable`] follows a write that was short, and here
/// what is left of one waits by itself.
pub(crate) fn told() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|&kind| kind != Kind::Writable)
}

static KIND_CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static MEMBERS: PyOnceLock<[Py<PyAny>; Kind::ALL.len()]> = PyOnceLock::new();

/// The class `Kind`, an `enum.IntEnum`.
pub(crate) fn kind_class(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    let class = KIND_CLASS.get_or_try_init(py, || {
        let members = PyDict::new(py);
        for kind in told() {
            members.set_item(kind.name().to_uppercase(), kind as u8)?;
        }
        let options = PyDict::new(py);
        options.set_item("module", "millrace._native")?;
        let class = py.import("enum")?.getattr("IntEnum")?;
        let class = class.call(("Kind", members), Some(&options))?;
        class.setattr("__doc__", "What a completion is about.")?;
        PyResult::Ok(class.unbind())
    })?;
    Ok(class.bind(py))
}

/// Its members at the place of each kind's number.
pub(crate) fn kinds(py: Python<'_>) -> PyResult<&[Py<PyAny>; Kind::ALL.len()]> {
    MEMBERS.get_or_try_init(py, || {
        let class = kind_class(py)?;
        let mut members = Kind::ALL.map(|_| py.None());
        for kind in told() {
            members[kind as usize] = class.getattr(kind.name().to_uppercase())?.unbind();
        }
        Ok(members)
    })
}

/// An address and port as Python's `socket` writes them.
pub(crate) fn socket_address<'py>(
    py: Python<'py>,
    address: SocketAddr,
) -> PyResult<Bound<'py, PyAny>> {
    Ok((address.ip().to_string(), address.port()).into_pyobject(py)?.into_any())
}

/// The payload of one frame of a completion. With less than a quarter of the frames free the bytes
/// are copied, so that a program that keeps its payloads cannot take the frames away from
/// everything else.
#[inline]
fn payload(core: &mut Core, done: &millrace_channel::Completion, frame: usize) -> Payload {
    let channel = &mut core.channel;
    if channel.free_frames() > channel.total_frames() / 4
        && let Some(held) = channel.hold(done, frame)
    {
        return Payload::Held(held);
    }
    core.copied += 1;
    Payload::Copied(channel.payload(done).nth(frame).unwrap_or_default().into())
}

/// A turn's completions as a list. A payload of several frames becomes one completion for each,
/// because a memoryview is of one piece.
pub(crate) fn list<'py>(
    py: Python<'py>,
    shared: &Arc<Shared>,
    core: &mut Core,
) -> PyResult<Bound<'py, PyList>> {
    let kinds = kinds(py)?;
    let batch = std::mem::take(&mut core.batch);
    let list = PyList::empty(py);
    let result = batch.iter().try_for_each(|done| append(&list, shared, core, kinds, done));
    core.batch = batch;
    result.map(|()| list)
}

#[inline]
fn append(
    list: &Bound<'_, PyList>,
    shared: &Arc<Shared>,
    core: &mut Core,
    kinds: &[Py<PyAny>; Kind::ALL.len()],
    done: &millrace_channel::Completion,
) -> PyResult<()> {
    let py = list.py();
    let what = done.kind;
    let push = |handle, payload, more| {
        let kind = kinds[what as usize].clone_ref(py);
        list.append(Bound::new(py, Completion { kind, handle, more, payload, what })?)
    };
    if what == Kind::Read {
        for frame in 0..done.frames() {
            let payload = payload(core, done, frame);
            let Some(handle) = core.find(done.handle) else { return Ok(()) };
            push(handle.clone_ref(py), payload, py.None())?;
        }
        return Ok(());
    }
    let mut more = py.None();
    let handle = match what {
        Kind::Accepted => {
            let handle = Py::new(py, Handle::new(done.handle, shared.clone(), py))?;
            core.insert(py, &handle);
            if let Some(listener) = done.listener.and_then(|listener| core.find(listener)) {
                more = listener.clone_ref(py).into_any();
            }
            handle
        }
        Kind::Closed => {
            let Some(handle) = core.remove(done.handle) else { return Ok(()) };
            if done.errno != 0 {
                more = errors::end_of_connection(done.errno).into_value(py).into_any();
            }
            handle
        }
        Kind::Writable => return Ok(()),
        _ => {
            let Some(handle) = core.find(done.handle) else { return Ok(()) };
            handle.clone_ref(py)
        }
    };
    if what != Kind::Datagram {
        return push(handle, Payload::None, more);
    }
    if let Some(source) = core.channel.source(done) {
        more = socket_address(py, source)?.unbind();
    }
    let payload = match done.frames() {
        1 => payload(core, done, 0),
        // A datagram is one thing, so one that came in fragments is put together.
        _ => Payload::Copied(core.channel.payload(done).collect::<Vec<_>>().concat().into()),
    };
    push(handle, payload, more)
}
