//! Ends a channel's wait from another thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_port::wait;

/// Ends the current or the next wait of a channel, whether it sleeps or spins. Any thread may have
/// a copy; it outlives the channel without harm.
#[derive(Clone, Debug)]
pub struct Bell {
    /// What a spinning channel looks at: no system call.
    rung: Arc<AtomicBool>,
    inner: wait::Bell,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        Ok(Bell { rung: Arc::default(), inner: wait::Bell::new()? })
    }

    /// Ends the wait. Several rings before the channel notices are one.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::Release) {
            self.inner.ring();
        }
    }

    /// Has a channel that sleeps look around once, without ending its wait.
    pub(crate) fn nudge(&self) {
        self.inner.ring();
    }

    /// Whether it was rung since this was last asked.
    #[inline]
    pub(crate) fn answer(&self) -> bool {
        if !self.rung.load(Ordering::Relaxed) {
            return false;
        }
        // The order matters: a ring between the two is heard twice and never missed.
        self.inner.silence();
        self.rung.swap(false, Ordering::Acquire)
    }

    pub(crate) fn inner(&self) -> &wait::Bell {
        &self.inner
    }
}
