//! The forwarder between two interfaces, which is how a lab impairs a wire.

use std::sync::Mutex;

use millrace_frames::{Arena, ArenaConfig, Hugepages};
use millrace_port::Port;
use millrace_port::af_packet::{AfPacket, AfPacketConfig};
use millrace_port::forwarder::{Forwarder as Inner, Remote};
use millrace_port::impair::{GilbertElliott, Impairment};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::to_python;
use crate::options;

/// Forwards between two interfaces of this network namespace, and does to the packets of each
/// direction what a mapping says: `loss`, `duplicate`, `corrupt` and `reorder` are probabilities;
/// `delay`, `jitter` and `reorder_delay` seconds; `rate` bits per second; `queue` and `mark` bytes;
/// `jitter_reorders` a flag; `bursts` the four probabilities of a Gilbert-Elliott channel (to bad,
/// to good, loss when good, loss when bad).
///
/// `millrace.lab.Lab.wire` uses it; that is the way to impair a wire.
///
/// Raises ValueError for what makes no sense, OSError when an interface cannot be opened.
#[pyclass(frozen, module = "millrace._native")]
pub(crate) struct Forwarder {
    inner: Mutex<Option<Inner>>,
    remote: Remote,
}

#[pymethods]
impl Forwarder {
    #[new]
    #[pyo3(signature = (first, second, forth, back, *, seed=0, frames=32768))]
    fn new(
        first: &str,
        second: &str,
        forth: &Bound<'_, PyDict>,
        back: &Bound<'_, PyDict>,
        seed: u64,
        frames: u32,
    ) -> PyResult<Forwarder> {
        let impairments = [impairment(forth)?, impairment(back)?];
        let mut ports: Vec<Box<dyn Port>> = Vec::new();
        for interface in [first, second] {
            let config = AfPacketConfig { promiscuous: true, ..AfPacketConfig::new(interface) };
            ports.push(Box::new(AfPacket::open(&config).map_err(to_python)?));
        }
        let mtu = ports.iter().map(|port| port.capabilities().mtu).max().unwrap_or(1500);
        let frame_size = Inner::frame_size(mtu);
        let arena = Arena::new(ArenaConfig { frames, frame_size, hugepages: Hugepages::Never });
        let arena = arena.map_err(to_python)?;
        let Ok(ports) = <[Box<dyn Port>; 2]>::try_from(ports) else { unreachable!() };
        let inner = Inner::new(ports, arena, impairments, seed).map_err(to_python)?;
        let remote = inner.remote();
        Ok(Forwarder { inner: Mutex::new(Some(inner)), remote })
    }

    /// Forward until `stop`. It looks for no signals, so call it in a thread that is not the main
    /// one.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let taken = self.inner.lock().ok().and_then(|mut inner| inner.take());
        let Some(mut inner) = taken else {
            return Err(PyRuntimeError::new_err("this forwarder runs already, or has ended"));
        };
        py.detach(|| inner.run()).map_err(to_python)
    }

    /// End `run`. Packets that are on their way are dropped.
    fn stop(&self) {
        self.remote.stop();
    }

    /// What it has done to the packets of each direction. Waits for `run`'s thread to tell.
    fn statistics<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
        let told = py.detach(|| self.remote.statistics());
        let Some([forth, back]) = told else {
            return Err(PyRuntimeError::new_err("the forwarder does not run"));
        };
        let dict = |pairs: Vec<(&'static str, u64)>| {
            let dict = PyDict::new(py);
            pairs.into_iter().try_for_each(|(name, value)| dict.set_item(name, value))?;
            PyResult::Ok(dict)
        };
        Ok((dict(forth)?, dict(back)?))
    }

    /// Do this to packets from now on.
    fn impair(&self, forth: &Bound<'_, PyDict>, back: &Bound<'_, PyDict>) -> PyResult<()> {
        self.remote.impair([impairment(forth)?, impairment(back)?]).map_err(to_python)
    }
}

/// An impairment from its fields by name; the others are as they are on a perfect wire.
pub(crate) fn impairment(fields: &Bound<'_, PyDict>) -> PyResult<Impairment> {
    let mut made = Impairment::default();
    for (name, value) in fields {
        let name: String = name.extract()?;
        let time = || options::duration(&name, value.extract()?);
        match name.as_str() {
            "loss" => made.loss = value.extract()?,
            "duplicate" => made.duplicate = value.extract()?,
            "corrupt" => made.corrupt = value.extract()?,
            "reorder" => made.reorder = value.extract()?,
            "delay" => made.delay = time()?,
            "jitter" => made.jitter = time()?,
            "reorder_delay" => made.reorder_delay = time()?,
            "jitter_reorders" => made.jitter_reorders = value.extract()?,
            "rate" => made.rate_bits_per_s = Some(value.extract()?),
            "queue" => made.queue_bytes = value.extract()?,
            "mark" => made.mark_bytes = Some(value.extract()?),
            "bursts" => {
                let (to_bad, to_good, loss_good, loss_bad) = value.extract()?;
                made.bursts = Some(GilbertElliott { to_bad, to_good, loss_good, loss_bad });
            }
            _ => return Err(PyTypeError::new_err(format!("no impairment is called {name}"))),
        }
    }
    made.validate().map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(made)
}
