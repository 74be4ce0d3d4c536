//! What a channel's Python objects share: the channel itself, and whose it is.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, TryLockError};

use millrace_channel::{Bell, Completions};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::handle::Handle;

/// The thread that made a channel.
struct Owner {
    ident: libc::pthread_t,
    name: String,
    /// Only the main thread runs signal handlers.
    is_main: bool,
}

/// The number that `threading.get_ident()` gives.
#[inline]
fn thread_ident() -> libc::pthread_t {
    // SAFETY: takes and touches nothing.
    unsafe { libc::pthread_self() }
}

fn thread_name(py: Python<'_>) -> PyResult<String> {
    py.import("threading")?.call_method0("current_thread")?.getattr("name")?.extract()
}

impl Owner {
    fn current(py: Python<'_>) -> PyResult<Owner> {
        let main = py.import("threading")?.call_method0("main_thread")?.getattr("ident")?;
        let ident = thread_ident();
        let is_main = main.extract::<u64>().is_ok_and(|main| main == ident);
        Ok(Owner { ident, name: thread_name(py)?, is_main })
    }
}

/// The channel and the objects that stand for its handles.
pub(crate) struct Core {
    pub(crate) channel: millrace_channel::Channel,
    pub(crate) batch: Completions,
    /// Connections, by the index of their handle.
    pub(crate) connections: Vec<Option<Py<Handle>>>,
    /// Listeners and datagram sockets.
    pub(crate) others: HashMap<millrace_channel::Handle, Py<Handle>>,
    /// Payloads that were copied for want of frames.
    pub(crate) copied: u64,
}

impl Core {
    pub(crate) fn new(channel: millrace_channel::Channel) -> Core {
        Core {
            channel,
            batch: Completions::new(),
            connections: Vec::new(),
            others: HashMap::new(),
            copied: 0,
        }
    }

    pub(crate) fn insert(&mut self, py: Python<'_>, handle: &Py<Handle>) {
        let inner = handle.get().inner();
        match inner.index() {
            Some(index) => {
                if index >= self.connections.len() {
                    let len = (index + 1).next_power_of_two();
                    self.connections.resize_with(len, || None);
                }
                self.connections[index] = Some(handle.clone_ref(py));
            }
            None => {
                self.others.insert(inner, handle.clone_ref(py));
            }
        }
    }

    #[inline]
    pub(crate) fn find(&self, handle: millrace_channel::Handle) -> Option<&Py<Handle>> {
        match handle.index() {
            Some(index) => self
                .connections
                .get(index)?
                .as_ref()
                .filter(|object| object.get().inner() == handle),
            None => self.others.get(&handle),
        }
    }

    pub(crate) fn remove(&mut self, handle: millrace_channel::Handle) -> Option<Py<Handle>> {
        self.find(handle)?;
        match handle.index() {
            Some(index) => self.connections[index].take(),
            None => self.others.remove(&handle),
        }
    }
}

pub(crate) struct Shared {
    owner: Owner,
    bell: Bell,
    core: Mutex<Core>,
}

impl Shared {
    pub(crate) fn new(py: Python<'_>, channel: millrace_channel::Channel) -> PyResult<Shared> {
        Ok(Shared {
            owner: Owner::current(py)?,
            bell: channel.bell(),
            core: Mutex::new(Core::new(channel)),
        })
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    pub(crate) fn owner_is_main(&self) -> bool {
        self.owner.is_main
    }

    pub(crate) fn owner_name<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &self.owner.name)
    }

    /// The channel, for its own thread.
    #[inline]
    pub(crate) fn core(&self) -> PyResult<MutexGuard<'_, Core>> {
        if thread_ident() != self.owner.ident {
            return Err(self.wrong_thread());
        }
        self.try_core().ok_or_else(|| {
            PyRuntimeError::new_err(
                "the channel is in the middle of a call; a finalizer that ran meanwhile may not \
                 use it",
            )
        })
    }

    /// The channel, if nobody is using it. What a panic left is still whole enough to be closed.
    #[inline]
    pub(crate) fn try_core(&self) -> Option<MutexGuard<'_, Core>> {
        match self.core.try_lock() {
            Ok(core) => Some(core),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    #[cold]
    fn wrong_thread(&self) -> PyErr {
        let caller = Python::attach(thread_name).unwrap_or_else(|_| "another thread".to_owned());
        PyRuntimeError::new_err(format!(
            "this channel belongs to the thread {}, and {caller} used it; only wake() is for other \
             threads",
            self.owner.name
        ))
    }
}
