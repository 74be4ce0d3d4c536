//! The Python bindings: module `millrace._native`, the one place that knows Python.
//!
//! Thin: what a channel does is in `millrace-channel`, what applications do is in Python. Here is
//! what once per completion must be cheap: objects that exist once per connection, kinds that are
//! compared by identity, payloads that are memory views of the arena's frames.
//!
//! The module's types are written down by hand in `python/millrace/_native.pyi`.

use pyo3::prelude::*;

mod channel;
mod completion;
mod drops;
mod errors;
mod forwarder;
mod handle;
mod info;
mod options;
mod packets;
mod setting;
mod shared;
mod simulation;
mod whole;
mod write;
mod xdp;

/// Channels over Millrace's own TCP/IP stack. Use `millrace`, which has the same names.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::channel::Channel;
    #[pymodule_export]
    use crate::completion::Completion;
    #[pymodule_export]
    use crate::drops::{DropMonitor, NapiMonitor, drop_reasons};
    #[pymodule_export]
    use crate::forwarder::Forwarder;
    #[pymodule_export]
    use crate::handle::Handle;
    #[pymodule_export]
    use crate::info::ConnectionInfo;
    #[pymodule_export]
    use crate::packets::packets;
    #[pymodule_export]
    use crate::simulation::{Simulation, random_world};
    #[pymodule_export]
    use crate::xdp::{
        XdpLink, XdpMap, XdpProgram, XdpRunStatistics, xdp_attached, xdp_disassemble,
        xdp_possible_cpus,
    };

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        module.add("Kind", crate::completion::kind_class(py)?)?;
        for kind in crate::completion::told() {
            let member = &crate::completion::kinds(py)?[kind as usize];
            module.add(kind.name().to_uppercase(), member)?;
        }
        module.add("NAPI_BUCKETS", millrace_bpf::napi_monitor::BUCKETS.to_vec())?;
        module.add("PORT_KINDS", millrace_channel::KINDS.to_vec())?;
        Ok(())
    }
}
