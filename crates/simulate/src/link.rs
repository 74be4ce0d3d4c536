//! What a direction of a wire did: the impairments' own counters, and what only the simulation
//! knows.

use millrace_port::impair::Counters;

/// What a direction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Bytes that were put on the wire, Ethernet headers included.
    pub bytes: u64,
    /// Packets that came while the wire was down.
    pub down: u64,
    /// Packets longer than the MTU.
    pub too_long: u64,
    /// What went wrong.
    pub link: Counters,
}

impl LinkCounters {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [("bytes", self.bytes), ("down", self.down), ("too_long", self.too_long)]
            .into_iter()
            .chain(self.link.iter())
    }
}
