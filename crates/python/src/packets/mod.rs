//! Raw packets as Python sees them: module `millrace._native.packets`.
//!
//! What runs per packet is in `millrace-packets`; here are the objects. A batch is one object, its
//! columns are NumPy arrays over its memory, and each array keeps what it looks at.

mod batch;
mod buffers;
mod capture;
mod filter;
mod forward;
mod generator;
mod loops;
mod memory;
mod numpy;
mod options;
mod port;
mod replay;
mod shared;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Raw packets: ports and batches. Use `millrace`, which has the same names.
#[pymodule(submodule)]
pub(crate) mod packets {
    #[pymodule_export]
    use super::batch::Batch;
    #[pymodule_export]
    use super::capture::Capture;
    #[pymodule_export]
    use super::filter::Filter;
    #[pymodule_export]
    use super::forward::Forwarder;
    #[pymodule_export]
    use super::generator::{Generator, Meter};
    #[pymodule_export]
    use super::loops::{l2fwd, rxdrop, txpush};
    #[pymodule_export]
    use super::port::Port;
    #[pymodule_export]
    use super::replay::Replay;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::init(module)
    }
}

const NAME: &str = "millrace._native.packets";

fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let flags = PyDict::new(py);
    for (name, bit) in millrace_packets::flags::ALL {
        flags.set_item(name, bit)?;
    }
    let options = PyDict::new(py);
    options.set_item("module", NAME)?;
    let class = py.import("enum")?.getattr("IntFlag")?.call(("Flags", flags), Some(&options))?;
    class.setattr("__doc__", "What is known of a packet besides its bytes.")?;
    module.add("Flags", class)?;
    let fields = millrace_packets::headers::FIELDS;
    let fields: Vec<_> =
        fields.iter().map(|field| (field.name, field.kind, field.offset)).collect();
    module.add("HEADER_FIELDS", fields)?;
    module.add("HEADER_SIZE", millrace_packets::headers::ROW)?;
    // A module inside a compiled one is no file that Python could look for.
    py.import("sys")?.getattr("modules")?.set_item(NAME, module)
}
