//! What a publisher's thread and the socket's threads have in common: a flag and a small inbox.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Tap;

/// Requests that may wait for a publisher's next turn.
const MOST_WAITING: usize = 16;

/// What somebody asks a publisher for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ask {
    /// A part of a table.
    Table(TableAsk),
    /// Show the frames from now on, until [`Tap::is_wanted`] says no.
    Tap(Tap),
}

/// A request for a part of a table that may be too large for one turn.
#[derive(Debug)]
pub struct TableAsk {
    /// The table's name.
    pub name: String,
    /// Where to go on: 0, or what the last part's answer said.
    pub cursor: u32,
    reply: SyncSender<Answer>,
}

impl TableAsk {
    /// Answers with the bytes of a [`crate::Table`], and where to go on, if there is more. Empty
    /// bytes say that there is no such table.
    pub fn answer(self, bytes: Vec<u8>, next: Option<u32>) {
        // Nobody may be waiting any more.
        let _ = self.reply.try_send(Answer { bytes, next });
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) next: Option<u32>,
}

/// One publisher as the socket's threads see it.
pub(crate) struct Source {
    pub(crate) number: u32,
    /// What a capture file calls it.
    pub(crate) name: String,
    attention: Arc<AtomicBool>,
    inbox: Mutex<Vec<Ask>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({} {})", self.number, self.name)
    }
}

impl Source {
    pub(crate) fn new(number: u32, name: String, wake: Box<dyn Fn() + Send + Sync>) -> Source {
        Source { number, name, attention: Arc::default(), inbox: Mutex::default(), wake }
    }

    fn inbox(&self) -> MutexGuard<'_, Vec<Ask>> {
        // A list of requests is whole whatever panicked beside it.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raised while somebody has asked.
    pub(crate) fn attention(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.attention)
    }

    pub(crate) fn take(&self) -> Vec<Ask> {
        let mut inbox = self.inbox();
        self.attention.store(false, Ordering::Relaxed);
        core::mem::take(&mut inbox)
    }

    /// Puts a request where the publisher's thread finds it, and wakes that.
    pub(crate) fn ask(&self, ask: Ask) -> io::Result<()> {
        {
            let mut inbox = self.inbox();
            if inbox.len() >= MOST_WAITING {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!(
                        "{}: {MOST_WAITING} requests wait for its thread already; is the program \
                         stuck outside its loop?",
                        self.name
                    ),
                ));
            }
            inbox.push(ask);
            self.attention.store(true, Ordering::Relaxed);
        }
        (self.wake)();
        Ok(())
    }

    /// Asks for a part of a table.
    pub(crate) fn ask_table(&self, name: &str, cursor: u32) -> io::Result<Receiver<Answer>> {
        let (reply, answer) = sync_channel(1);
        self.ask(Ask::Table(TableAsk { name: name.to_owned(), cursor, reply }))?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn asking_wakes_and_is_bounded() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let source = Source::new(0, "x".into(), Box::new(wake));
        assert!(!source.attention().load(Ordering::Relaxed));
        let answer = source.ask_table("t", 3).unwrap();
        assert!(source.attention().load(Ordering::Relaxed));
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let Some(Ask::Table(ask)) = source.take().pop() else { panic!() };
        assert!(!source.attention().load(Ordering::Relaxed));
        assert_eq!((ask.name.as_str(), ask.cursor), ("t", 3));
        ask.answer(vec![1], Some(4));
        assert_eq!(answer.recv().unwrap().next, Some(4));
        for _ in 0..MOST_WAITING {
            source.ask_table("t", 0).unwrap();
        }
        let error = source.ask_table("t", 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    }
}
