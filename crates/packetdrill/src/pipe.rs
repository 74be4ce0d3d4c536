//! Pipes, for `splice`: packetdrill makes them through its table.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a Linux pipe holds (pipe(7)).
const CAPACITY: usize = 65_536;

/// One end of a pipe.
#[derive(Clone)]
pub(crate) struct End {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    pub(crate) writes: bool,
}

/// A read end and a write end.
pub(crate) fn pair() -> (End, End) {
    let bytes = Arc::new(Mutex::new(VecDeque::new()));
    (End { bytes: Arc::clone(&bytes), writes: false }, End { bytes, writes: true })
}

impl End {
    fn bytes(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn room(&self) -> usize {
        CAPACITY - self.bytes().len().min(CAPACITY)
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Takes what there is room for.
    pub(crate) fn write(&self, data: &[u8]) -> usize {
        let taken = data.len().min(self.room());
        self.bytes().extend(&data[..taken]);
        taken
    }

    /// A copy of the first bytes; [`End::consume`] takes them out.
    pub(crate) fn peek(&self, most: usize) -> Vec<u8> {
        self.bytes().iter().take(most).copied().collect()
    }

    pub(crate) fn consume(&self, count: usize) {
        let mut bytes = self.bytes();
        let count = count.min(bytes.len());
        bytes.drain(..count);
    }
}
