//! What Python says about how a port is to be opened.

use millrace_frames::Hugepages;
use millrace_packets::Options;
use millrace_port::af_packet::{Receive, Timestamping};
use millrace_port::af_xdp::{XdpMode, ZeroCopy};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::filter::Filter;
use super::port::Port;

/// Options of `Port(...)` by their names.
pub(super) fn read(given: Option<&Bound<'_, PyDict>>) -> PyResult<Options> {
    let mut options = Options::default();
    let Some(given) = given else { return Ok(options) };
    for (name, value) in given.iter() {
        let name: String = name.extract()?;
        let wrong = |wanted: &str| {
            let shown = value.repr().map_or_else(|_| "that".to_owned(), |text| text.to_string());
            PyValueError::new_err(format!("{name} is {wanted}, not {shown}"))
        };
        let number = || crate::options::number::<u32>(&name, &value);
        let truth = || value.extract::<bool>().map_err(|_| wrong("True or False"));
        let word = |words: &[&str], wanted: &str| {
            let text = value.extract::<String>().ok();
            let found = words.iter().position(|word| text.as_deref() == Some(*word));
            found.ok_or_else(|| wrong(wanted))
        };
        match name.as_str() {
            "frames" => options.frames = Some(number()?),
            "frame_size" => options.frame_size = Some(number()?),
            "hugepages" => {
                options.hugepages = match truth()? {
                    true => Hugepages::Require,
                    false => Hugepages::Never,
                };
            }
            "arena" => {
                let port =
                    value.cast::<Port>().map_err(|_| wrong("a port to share frames with"))?;
                options.arena = Some(port.get().arena()?);
            }
            "mtu" => options.mtu = Some(number()?),
            "receive" => options.send_only = !truth()?,
            "promiscuous" => options.promiscuous = truth()?,
            "outgoing" => options.outgoing = truth()?,
            "attach" => options.attach = truth()?,
            "xdp" => {
                let modes = [XdpMode::Auto, XdpMode::Native, XdpMode::Generic];
                let words = ["auto", "native", "generic"];
                options.xdp = modes[word(&words, "'auto', 'native' or 'generic'")?];
            }
            "zero_copy" => {
                options.zero_copy = match truth()? {
                    true => ZeroCopy::Require,
                    false => ZeroCopy::Never,
                };
            }
            "busy_poll" => options.busy_poll = Some(number()?),
            "snap_length" => options.snap_length = Some(number()?).filter(|&length| length > 0),
            "ring_bytes" => options.ring_bytes = Some(number()? as usize),
            "ring" => {
                let rings = [Receive::RingV2, Receive::RingV3];
                options.receive = rings[word(&["v2", "v3"], "'v2' or 'v3'")?];
            }
            "timestamps" => {
                let kinds = [Timestamping::Auto, Timestamping::Hardware, Timestamping::Software];
                let words = ["auto", "hardware", "software"];
                options.timestamping = kinds[word(&words, "'auto', 'hardware' or 'software'")?];
            }
            "filter" => {
                let filter = value.cast::<Filter>().map_err(|_| wrong("a Filter"))?;
                options.filter = Some(filter.get().inner().clone());
            }
            "original_pace" => options.original_pace = truth()?,
            _ => {
                return Err(PyTypeError::new_err(format!(
                    "open() got an unexpected keyword argument '{name}'"
                )));
            }
        }
    }
    Ok(options)
}
