//! Tables of headers on their way from a capture to whoever writes them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use millrace_frames::Duration;

use crate::headers::Header;

/// Tables that may wait. While they do, packets wait in the kernel's ring, where they are lost, and
/// counted, if it takes too long.
const MOST: usize = 4;
/// How long rows wait for a table to become full.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// How often one who waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// A short queue of tables.
#[derive(Debug, Default)]
pub struct Rows {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    tables: VecDeque<Vec<Header>>,
    ended: bool,
}

impl Rows {
    pub(super) fn new() -> Rows {
        Rows::default()
    }

    /// Puts a table into the queue, once there is room or it is to stop.
    pub(super) fn put(&self, table: Vec<Header>, stop: &AtomicBool) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while queue.tables.len() >= MOST && !stop.load(Ordering::Acquire) {
            let waited = self.changed.wait_timeout(queue, LOOK);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.tables.push_back(table);
        self.changed.notify_all();
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.notify_all();
    }

    /// The next table. `None`: nothing came in `time`, or nothing comes any more; the flag says
    /// which.
    pub fn take(&self, time: Duration) -> (Option<Vec<Header>>, bool) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.tables.is_empty() && !queue.ended {
            let waited = self
                .changed
                .wait_timeout_while(queue, time, |queue| queue.tables.is_empty() && !queue.ended);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let table = queue.tables.pop_front();
        let ended = queue.ended && queue.tables.is_empty() && table.is_none();
        self.changed.notify_all();
        (table, ended)
    }
}
