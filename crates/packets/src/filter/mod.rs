//! Packet filters in this process: classic BPF, decoded once and run per packet.
//!
//! What libpcap compiles is mostly a load and a comparison of what was loaded, so the two are one
//! step here. Semantics are those of libpcap's interpreter (see [`millrace_bpf::classic`]).

mod decode;
mod run;

use millrace_bpf::classic::Program;

use crate::batch::Batch;
use decode::Step;

/// A packet filter, ready to run.
#[derive(Clone, Debug)]
pub struct Filter {
    program: Program,
    steps: Box<[Step]>,
}

impl Filter {
    /// Makes a checked program ready.
    pub fn new(program: Program) -> Filter {
        let steps = decode::steps(&program);
        Filter { program, steps }
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What the program returns for a packet of which `packet` is there and which had `length`
    /// bytes on the wire: 0 rejects it.
    #[inline]
    pub fn run(&self, packet: &[u8], length: u32) -> u32 {
        run::run(&self.steps, packet, length)
    }

    /// Whether the program accepts a packet; see [`Filter::run`].
    #[inline]
    pub fn accepts(&self, packet: &[u8], length: u32) -> bool {
        self.run(packet, length) != 0
    }

    /// Which packets of a batch it accepts: 1 or 0 for each.
    pub fn accepted(&self, batch: &Batch) -> Vec<u8> {
        let mut answers = Vec::with_capacity(batch.len());
        let mut lengths = batch.columns().original.iter();
        batch.for_each(|packet| {
            let length = lengths.next().copied().unwrap_or_default();
            answers.push(self.accepts(packet, length).into());
        });
        answers
    }
}
