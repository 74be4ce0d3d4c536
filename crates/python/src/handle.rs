//! Handles as Python sees them: one object for each listener, connection and datagram socket, for
//! as long as it is open.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_channel::{LONGEST_SETTING, OptionName};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::completion::socket_address;
use crate::errors::to_python;
use crate::info::{ConnectionInfo, tcp_info};
use crate::options;
use crate::shared::{Core, Shared};
use crate::whole;
use crate::write;

/// A listener, a connection or a datagram socket of one channel. There is one object for each, so
/// handles are compared by identity and may be keys of a dictionary.
#[pyclass(frozen, weakref, module = "millrace._native")]
pub(crate) struct Handle {
    inner: millrace_channel::Handle,
    shared: Arc<Shared>,
    /// Never locked while Python code may run.
    state: Mutex<Py<PyAny>>,
}

impl Handle {
    pub(crate) fn new(
        inner: millrace_channel::Handle,
        shared: Arc<Shared>,
        py: Python<'_>,
    ) -> Handle {
        Handle { inner, shared, state: Mutex::new(py.None()) }
    }

    #[inline]
    pub(crate) fn inner(&self) -> millrace_channel::Handle {
        self.inner
    }

    /// The channel, for its own thread in the process that opened it.
    #[inline]
    fn core(&self) -> PyResult<MutexGuard<'_, Core>> {
        let core = self.shared.core()?;
        core.channel.check_process().map_err(to_python)?;
        Ok(core)
    }
}

#[pymethods]
impl Handle {
    /// Whatever the program wants to remember with this handle; None at first.
    #[getter]
    fn state(&self, py: Python<'_>) -> Py<PyAny> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone_ref(py)
    }

    #[setter]
    fn set_state(&self, value: Py<PyAny>) {
        let old = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, value)
        };
        // Its finalizer may be Python code.
        drop(old);
    }

    /// What it is: "connection", "listener" or "datagram socket".
    #[getter]
    fn type_name(&self) -> &'static str {
        self.inner.what()
    }

    /// Whether it can be used no more.
    #[getter]
    fn closed(&self) -> PyResult<bool> {
        let core = self.shared.core()?;
        Ok(core.find(self.inner).is_none())
    }

    /// Write bytes behind what was written, and give how many bytes wait for room.
    ///
    /// They leave at the end of the turn. What the send buffer has no room for waits and goes on by
    /// itself; WRITTEN tells when nothing waits any more. A bytes object that waits is kept and not
    /// copied. What is written to a connection that has ended is lost; CLOSED tells, in this turn.
    /// Raises BlockingIOError, and takes nothing, while `write_queue` bytes wait already, and for
    /// more than that of what is no bytes object, because it is copied; OSError (ENOTCONN) when the
    /// handle was closed before; BrokenPipeError after shutdown().
    #[inline]
    pub(crate) fn write(&self, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let mut core = self.core()?;
        write::write(&mut core, self.inner, data)
    }

    /// Send one datagram to `to`, a (host, port), or to the peer that the socket was opened for.
    ///
    /// One that does not fit the MTU leaves in fragments. Raises ValueError when it is too long
    /// even so, BlockingIOError when not enough frames are free, ConnectionRefusedError when the
    /// peer that the socket was opened for has told that nobody has the port of an earlier one,
    /// OSError when there is no way to that host.
    #[pyo3(signature = (data, to=None))]
    fn send(&self, data: &Bound<'_, PyAny>, to: Option<&Bound<'_, PyTuple>>) -> PyResult<()> {
        let to = to.map(options::socket_address).transpose()?;
        let buffer = PyUntypedBuffer::get(data)?;
        let mut core = self.core()?;
        write::with_bytes(&buffer, |bytes| {
            core.channel.send_datagram(self.inner, bytes, to).map_err(to_python)
        })?
    }

    /// Bytes that write() would take now without letting any wait.
    #[getter]
    fn write_room(&self) -> PyResult<usize> {
        self.core()?.channel.write_room(self.inner).map_err(to_python)
    }

    /// Bytes that were written and wait for room in the send buffer.
    #[getter]
    fn waiting(&self) -> PyResult<usize> {
        self.core()?.channel.waiting(self.inner).map_err(to_python)
    }

    /// Take no more of what comes in until resume(); the peer is held back as its window closes.
    fn pause(&self) -> PyResult<()> {
        self.core()?.channel.pause(self.inner).map_err(to_python)
    }

    /// Take again what comes in, beginning with what came meanwhile.
    fn resume(&self) -> PyResult<()> {
        self.core()?.channel.resume(self.inner).map_err(to_python)
    }

    /// Write no more: the peer is told that this was all. Reading goes on.
    fn shutdown(&self) -> PyResult<()> {
        self.core()?.channel.shutdown_write(self.inner).map_err(to_python)
    }

    /// Close it; what was written is still delivered.
    ///
    /// What came in and was not told (READ), or comes in later, makes it a reset, with which what
    /// was written may be lost (RFC 2525 §2.17): shutdown() and FINISHED come before it where the
    /// peer may still send. Nothing more is told of it. Closing twice is no error.
    pub(crate) fn close(&self) -> PyResult<()> {
        self.end(|channel| channel.close_handle(self.inner))
    }

    /// End a connection with a reset; what was written may be lost. Other handles are closed.
    fn abort(&self) -> PyResult<()> {
        self.end(|channel| channel.abort(self.inner))
    }

    /// How many seconds close() may take to deliver what was written before it aborts: None for
    /// as long as retransmission goes on, 0 to abort at once.
    #[pyo3(signature = (seconds))]
    fn linger(&self, seconds: Option<f64>) -> PyResult<()> {
        let time = seconds.map(|seconds| options::duration("linger", seconds)).transpose()?;
        self.core()?.channel.set_linger(self.inner, time).map_err(to_python)
    }

    /// Whether small segments are sent at once (True, the channel's default) or wait for
    /// acknowledgements (Nagle's algorithm).
    fn no_delay(&self, on: bool) -> PyResult<()> {
        self.core()?.channel.set_no_delay(self.inner, on).map_err(to_python)
    }

    /// Whether datagrams carry the don't-fragment bit (IP_MTU_DISCOVER); send() then raises
    /// ValueError for one that does not fit the MTU. False at first.
    fn dont_fragment(&self, on: bool) -> PyResult<()> {
        self.core()?.channel.set_dont_fragment(self.inner, on).map_err(to_python)
    }

    /// Take datagrams to a multicast group: from every source, or only from `source` and those of
    /// further calls. Without this the socket gets nothing that is sent to the group.
    ///
    /// Raises ValueError for what is no group, OSError: EEXIST for a member, ENOBUFS at a bound.
    #[pyo3(signature = (group, source=None))]
    fn join_group(&self, group: &str, source: Option<&str>) -> PyResult<()> {
        let (group, source) = (options::ip(group)?, source.map(options::ip).transpose()?);
        self.core()?.channel.join_group(self.inner, group, source).map_err(to_python)
    }

    /// Take no more datagrams to a group, or no more from a source that was joined by name.
    ///
    /// Raises OSError (EADDRNOTAVAIL) when the socket is no member.
    #[pyo3(signature = (group, source=None))]
    fn leave_group(&self, group: &str, source: Option<&str>) -> PyResult<()> {
        let (group, source) = (options::ip(group)?, source.map(options::ip).transpose()?);
        self.core()?.channel.leave_group(self.inner, group, source).map_err(to_python)
    }

    /// Take no datagrams from `source` any more, of a group that was joined for every source.
    fn block_source(&self, group: &str, source: &str) -> PyResult<()> {
        let (group, source) = (options::ip(group)?, options::ip(source)?);
        self.core()?.channel.block_source(self.inner, group, source).map_err(to_python)
    }

    /// Take datagrams from a blocked source again.
    fn unblock_source(&self, group: &str, source: &str) -> PyResult<()> {
        let (group, source) = (options::ip(group)?, options::ip(source)?);
        self.core()?.channel.unblock_source(self.inner, group, source).map_err(to_python)
    }

    /// How many routers may forward what is sent to groups: 1 at first, which is none; 0 keeps it
    /// on this host (IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS).
    fn multicast_ttl(&self, #[pyo3(from_py_with = whole::number)] ttl: i128) -> PyResult<()> {
        let ttl = whole::whole("ttl", ttl)?;
        self.core()?.channel.set_multicast_ttl(self.inner, ttl).map_err(to_python)
    }

    /// Whether members on this channel hear what is sent to groups (IP_MULTICAST_LOOP). True at
    /// first.
    fn multicast_loop(&self, on: bool) -> PyResult<()> {
        self.core()?.channel.set_multicast_loop(self.inner, on).map_err(to_python)
    }

    /// The channel's address that what is sent to groups comes from (IP_MULTICAST_IF); None for the
    /// first one.
    fn multicast_source(&self, address: Option<&str>) -> PyResult<()> {
        let address = address.map(options::ip).transpose()?;
        self.core()?.channel.set_multicast_source(self.inner, address).map_err(to_python)
    }

    /// Set an option of a connection, or of a listener, whose connections inherit it: by the name
    /// and with the value that setsockopt(2) has, such as ("TCP_KEEPIDLE", 10).
    fn set_option(&self, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let option = options::socket_option(name, value)?;
        self.core()?.channel.set_option(self.inner, option).map_err(to_python)
    }

    /// An option of a connection or a listener, as set_option() takes it.
    fn option<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let name: OptionName = name.parse().map_err(to_python)?;
        let option = self.core()?.channel.option(self.inner, name).map_err(to_python)?;
        options::socket_option_to_python(py, option)
    }

    /// All that TCP knows of this connection, under the names of Linux's struct tcp_info.
    fn tcp_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.core()?.channel.tcp_info(self.inner).map_err(to_python)?;
        tcp_info(py, &info)
    }

    /// What TCP knows of this connection now.
    fn info(&self) -> PyResult<ConnectionInfo> {
        let core = self.core()?;
        core.channel.info(self.inner).map(ConnectionInfo::from).map_err(to_python)
    }

    /// Our address and port, (host, port).
    #[getter]
    fn local<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let address: SocketAddr =
            self.core()?.channel.local_address(self.inner).map_err(to_python)?;
        socket_address(py, address)
    }

    /// The peer's address and port, (host, port), of a connection.
    #[getter]
    fn remote<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let info = self.core()?.channel.info(self.inner).map_err(to_python)?;
        socket_address(py, info.remote)
    }

    /// Datagrams that this socket dropped because nobody took them in time.
    #[getter]
    fn dropped(&self) -> PyResult<u64> {
        self.core()?.channel.datagrams_dropped(self.inner).map_err(to_python)
    }

    fn __repr__(&self) -> String {
        let what = self.inner.what();
        let Ok(mut core) = self.shared.core() else { return format!("<{what}>") };
        let channel = &mut core.channel;
        match (channel.info(self.inner), channel.local_address(self.inner)) {
            (Ok(info), _) => format!("<{what} {} to {}>", info.local, info.remote),
            (_, Ok(local)) => format!("<{what} {local}>"),
            _ => format!("<closed {what}>"),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.state.try_lock() {
            Ok(state) => visit.call(&*state),
            Err(_) => Ok(()),
        }
    }

    fn __clear__(&self) {
        Python::attach(|py| self.set_state(py.None()));
    }
}

impl Handle {
    fn end(&self, end: impl FnOnce(&mut millrace_channel::Channel)) -> PyResult<()> {
        let object = {
            let mut core = self.shared.core()?;
            end(&mut core.channel);
            core.remove(self.inner)
        };
        drop(object);
        Ok(())
    }
}

/// `None` or a time that makes sense; one that no clock will see is none.
pub(crate) fn timeout(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    match seconds {
        Some(seconds) if seconds.is_nan() => {
            Err(PyValueError::new_err("a timeout is a number of seconds, not NaN"))
        }
        Some(seconds) if seconds > LONGEST_SETTING.as_secs_f64() => Ok(None),
        Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds.max(0.0)))),
        None => Ok(None),
    }
}
