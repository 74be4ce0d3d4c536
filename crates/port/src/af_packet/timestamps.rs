//! Timestamps of the network card: whether it stamps what it receives, and having it do so.
//!
//! Linux, Documentation/networking/timestamping.rst.

use std::io;

use super::Timestamping;
use super::socket::Socket;
use crate::Owner;
use crate::interface::{Control, Interface};

const SIOCSHWTSTAMP: libc::c_ulong = 0x89b0;
const SIOCGHWTSTAMP: libc::c_ulong = 0x89b1;
const HWTSTAMP_FILTER_NONE: i32 = 0;
const HWTSTAMP_FILTER_ALL: i32 = 1;
const SOF_TIMESTAMPING_RAW_HARDWARE: i32 = 1 << 6;

/// `struct hwtstamp_config`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Config {
    flags: i32,
    tx_type: i32,
    rx_filter: i32,
}

/// A card that was made to stamp for us; it stops when this is dropped.
#[derive(Debug)]
pub(super) struct Stamping {
    control: Control,
    interface: String,
    before: Config,
    owner: Owner,
}

impl Drop for Stamping {
    fn drop(&mut self) {
        if self.owner.is_here() {
            // The interface may be gone, and then there is nothing to be put back.
            let _ = self.control.device(SIOCSHWTSTAMP, &self.interface, &mut self.before.clone());
        }
    }
}

/// Has the socket take hardware timestamps, as asked for. Returns whether there are any, and what
/// has to be kept for as long as there shall be.
///
/// # Errors
/// When they were required and the card has none, or its settings may not be changed.
pub(super) fn enable(
    socket: &Socket,
    link: &Interface,
    wanted: Timestamping,
) -> io::Result<(bool, Option<Stamping>)> {
    if wanted == Timestamping::Software {
        return Ok((false, None));
    }
    let control = Control::new()?;
    let name = &link.name;
    let mut before = Config::default();
    let known = control.device(SIOCGHWTSTAMP, name, &mut before);
    let stamps_all = known.is_ok() && before.rx_filter == HWTSTAMP_FILTER_ALL;
    let mut stamping = None;
    if !stamps_all {
        if wanted == Timestamping::Auto {
            return Ok((false, None));
        }
        let mut config = Config { rx_filter: HWTSTAMP_FILTER_ALL, ..before };
        control.device(SIOCSHWTSTAMP, name, &mut config).map_err(|error| {
            let why = match error.raw_os_error() {
                Some(libc::EPERM) => "this needs CAP_NET_ADMIN; run as root".to_owned(),
                _ => format!("{error} (driver {}); see ethtool -T {name}", link.driver),
            };
            io::Error::new(
                error.kind(),
                format!("{name} cannot stamp what it receives in hardware: {why}"),
            )
        })?;
        if config.rx_filter == HWTSTAMP_FILTER_NONE {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{name} does not stamp what it receives; see ethtool -T {name}"),
            ));
        }
        stamping = Some(Stamping { control, interface: name.clone(), before, owner: Owner::new() });
    }
    let what = "take hardware timestamps";
    socket.set(libc::PACKET_TIMESTAMP, SOF_TIMESTAMPING_RAW_HARDWARE, what)?;
    Ok((true, stamping))
}
