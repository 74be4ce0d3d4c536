//! What is measured: two stacks, a wire of memory between them, and a program on each side.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::options::Failure;

/// The work that the two programs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Every connection sends `size` bytes, waits for as many back, and starts again.
    RoundTrips {
        /// Bytes each way.
        size: usize,
        /// Connections, all open from the start and all busy.
        connections: usize,
    },
    /// Connect, send 64 bytes, wait for 64 bytes, close both ways (the server first), start again.
    ConnectClose {
        /// How many do so at a time.
        connections: usize,
    },
    /// One connection sends as fast as it can. One operation is 64 KiB received.
    Bulk {
        /// Packets of up to 64 KiB whose checksums nobody computes, as on a link between virtual
        /// machines; otherwise 1460 bytes of payload in each and full checksums.
        super_segments: bool,
    },
    /// Connections that are open and do nothing. What counts is their memory.
    Idle {
        /// How many.
        connections: usize,
    },
}

impl Work {
    /// How many there are at a time.
    pub fn connections(self) -> usize {
        match self {
            Work::RoundTrips { connections, .. }
            | Work::ConnectClose { connections }
            | Work::Idle { connections } => connections,
            Work::Bulk { .. } => 1,
        }
    }
}

/// Bytes of a [`Work::Bulk`] operation.
pub const BULK_UNIT: u64 = 64 * 1024;
/// Bytes each way of a [`Work::ConnectClose`] operation.
pub const CONNECT_CLOSE_SIZE: usize = 64;

/// Two stacks of one kind, joined and busy with one work.
pub trait Pair {
    /// Both sides once: take what has arrived, run the program, send what is to be sent.
    fn turn(&mut self, now: Duration);

    /// What has been done since the beginning.
    fn done(&self) -> Done;

    /// Whether all connections that the work begins with are open.
    fn ready(&self) -> bool;

    /// What is known of the inside, for a message about a pair that is stuck.
    fn state(&self) -> String {
        String::new()
    }

    /// What went wrong, if anything did; turns do nothing from then on.
    fn failure(&self) -> Option<String> {
        None
    }
}

/// Sums since a pair was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Operations, see [`Work`].
    pub operations: u64,
    /// Packets that crossed the wire, both ways together.
    pub segments: u64,
    /// Payload bytes that the programs received, both sides together.
    pub bytes: u64,
}

impl Done {
    fn since(self, earlier: Done) -> Done {
        Done {
            operations: self.operations - earlier.operations,
            segments: self.segments - earlier.segments,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

/// What one stretch of time showed.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// What was done in it.
    pub done: Done,
    /// Processor time that it took, in seconds. On an idle machine that is the time that passed;
    /// on a busy one, other programs' turns are left out.
    pub seconds: f64,
}

/// A pair that is driven by the clock, once its connections are open.
pub struct Running {
    pair: Box<dyn Pair>,
    started: Instant,
}

/// After so long without an operation a pair is called stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// Turns for each reading of the clock: reading it would be a twentieth of a short turn.
const TURNS_A_READING: usize = 8;

impl Running {
    /// Opens all connections.
    ///
    /// # Errors
    /// When they do not open.
    pub fn start(pair: Box<dyn Pair>) -> Result<Self, Failure> {
        let mut running = Running { pair, started: Instant::now() };
        let mut segments = 0;
        let mut last_progress = Duration::ZERO;
        while !running.pair.ready() {
            let now = running.started.elapsed();
            running.pair.turn(now);
            let done = running.pair.done();
            if done.segments > segments {
                segments = done.segments;
                last_progress = now;
            } else if let Some(failure) = running.pair.failure() {
                return Err(Failure::Failed(failure));
            } else if now - last_progress > PATIENCE {
                let state = running.pair.state();
                return Err(Failure::Failed(format!("the connections do not open: {state}")));
            }
        }
        Ok(running)
    }

    /// Works for so long.
    ///
    /// # Errors
    /// When nothing gets done.
    pub fn measure(&mut self, duration: Duration) -> Result<Measured, Failure> {
        let before = self.pair.done();
        let processor_start = processor_time();
        let start = self.started.elapsed();
        let mut now = start;
        let mut operations = before.operations;
        let mut last_progress = start;
        while now - start < duration {
            for _ in 0..TURNS_A_READING {
                self.pair.turn(now);
            }
            now = self.started.elapsed();
            let done = self.pair.done();
            if done.operations > operations {
                operations = done.operations;
                last_progress = now;
            } else if let Some(failure) = self.pair.failure() {
                return Err(Failure::Failed(failure));
            } else if now - last_progress > PATIENCE {
                let state = self.pair.state();
                return Err(Failure::Failed(format!("stuck after {done:?}: {state}")));
            }
        }
        let seconds = (processor_time() - processor_start).as_secs_f64();
        Ok(Measured { done: self.pair.done().since(before), seconds })
    }
}

/// What this thread has used so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
