//! How a turn waits when there is nothing to do.

use core::time::Duration;
use std::io;

use millrace_frames::Instant;
use millrace_port::{Wait, wait};

use crate::Channel;

/// How soon packets that found the port full are tried again. Ports tell of arrivals, not of
/// room, so the sleep is short.
const RETRY_TRANSMIT: Duration = Duration::from_micros(200);
/// How soon a write that found no frame is tried again, and frames that others had are looked for.
const RETRY_STARVED: Duration = Duration::from_millis(1);
/// How often an interface that is down is looked at.
const RETRY_LINK: Duration = Duration::from_millis(10);

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// There are completions.
    Work,
    /// The time given is over.
    Timeout,
    /// Somebody rang the [`crate::Bell`].
    Bell,
    /// A signal was delivered while the thread slept; its handler may want to run.
    Signal,
    /// Nothing will ever come in again: the end of a capture file, or the other end of a memory
    /// wire has left.
    Exhausted,
}

impl Channel {
    /// When to look again for what nobody tells of: room at the port, and frames that others give
    /// back.
    pub(crate) fn retry(&self) -> Option<Instant> {
        let reserve = self.stack.config().frame_reserve as usize;
        if self.stalled {
            return Some(self.now + RETRY_TRANSMIT);
        }
        let short = !self.starved.is_empty() || self.free_frames() <= reserve;
        short.then(|| self.now + RETRY_STARVED)
    }

    /// Spins once or sleeps until something may have happened, at the latest at `end`. A reason to
    /// end the turn, or nothing.
    pub(crate) fn idle(&mut self, end: Option<Instant>) -> io::Result<Option<Wake>> {
        let deadline = [end, self.stack.next_deadline(), self.retry(), self.watched.due()]
            .into_iter()
            .flatten()
            .min();
        if deadline.is_some_and(|deadline| deadline <= self.now) {
            return Ok(None);
        }
        let spin = match self.wait {
            Wait::Spin => true,
            Wait::Sleep => false,
            Wait::SpinThenSleep(time) => self.now - self.last_work < time,
        };
        if spin {
            core::hint::spin_loop();
            return Ok(None);
        }
        self.counters.sleeps += 1;
        if self.link_down {
            // Its descriptor may report the same error for ever, so it is not slept on.
            let left = deadline.map_or(RETRY_LINK, |deadline| deadline - self.now);
            std::thread::sleep(left.min(RETRY_LINK));
            return Ok(None);
        }
        match wait::sleep(&mut *self.port, self.bell.inner(), self.now, deadline)? {
            wait::Wake::Signal => Ok(Some(Wake::Signal)),
            // The loop looks again, the bell included.
            wait::Wake::Arrival | wait::Wake::Deadline => Ok(None),
            wait::Wake::Bell => Ok(self.bell.answer().then_some(Wake::Bell)),
        }
    }
}
