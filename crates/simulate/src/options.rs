//! A host's options by name: what a scenario or a random world says about a stack.

use std::io;

use millrace_frames::Duration;
use millrace_stack::{Config, SettingError, SettingField, SettingValue};

use crate::topology::HostSpec;

/// Options that are no settings of a stack.
const OF_THE_HOST: [&str; 4] = ["frames", "frame_size", "super_segments", "transmit_time"];

/// Sets an option of a host: one of its own, or a setting of its stack.
///
/// # Errors
/// For a name that there is not, and for a value that it cannot have; [`explain`] says it.
pub fn set_option(
    host: &mut HostSpec,
    name: &str,
    value: &SettingValue,
) -> Result<(), SettingError> {
    match name {
        "frames" => host.frames = u32::take(value)?,
        "frame_size" => host.frame_size = u32::take(value)?,
        "super_segments" => host.super_segments = u16::take(value)?,
        "transmit_time" => host.transmit_time = Duration::take(value)?,
        _ => return host.config.set(name, value),
    }
    Ok(())
}

/// The error of an option that was shown as this, for people: a name that there is not is answered
/// with all that there are.
pub fn explain(error: &SettingError, name: &str, shown: &str) -> io::Error {
    let text = match error {
        SettingError::Unknown => {
            let names: Vec<&str> = OF_THE_HOST.iter().chain(Config::SETTINGS).copied().collect();
            format!("a host has no option {name:?}; there are: {}", names.join(", "))
        }
        _ => error.explain(name, shown),
    };
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
