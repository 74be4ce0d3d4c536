//! A learning switch (IEEE 802.1D §7): it learns where addresses are from the frames they send, and
//! floods what it has no place for.

use std::collections::HashMap;

use millrace_wire::mac::Mac;

#[derive(Debug, Default)]
pub(crate) struct Switch {
    places: HashMap<Mac, u16>,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    To(u16),
    /// To every port but the one it came from.
    Flood,
    /// It came from where it goes, or is no frame.
    Nowhere,
}

impl Switch {
    pub(crate) fn forward(&mut self, port: u16, frame: &[u8]) -> Forward {
        let Some((destination, source)) = macs(frame) else { return Forward::Nowhere };
        if source.is_unicast() {
            self.places.insert(source, port);
        }
        match self.places.get(&destination) {
            _ if destination.is_multicast() => Forward::Flood,
            Some(&to) if to == port => Forward::Nowhere,
            Some(&to) => Forward::To(to),
            None => Forward::Flood,
        }
    }
}

/// Destination and source of a frame.
pub(crate) fn macs(frame: &[u8]) -> Option<(Mac, Mac)> {
    let (destination, rest) = frame.split_first_chunk::<6>()?;
    let source = rest.first_chunk::<6>()?;
    Some((Mac(*destination), Mac(*source)))
}
