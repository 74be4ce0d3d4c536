//! All queues of an interface as one port: what a network card spreads over its queues comes in one
//! stream, each packet with the number of its queue.
//!
//! One thread and one arena serve them; who has a core for each queue opens a port for each. What is
//! sent leaves by the first queue.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use millrace_frames::{Arena, Instant, RxBatch, TxBatch};

use super::{AfXdp, Config, open};
use crate::{Capabilities, Port, Statistics};

/// All queues of an interface through AF_XDP.
pub struct AllQueues {
    queues: Vec<AfXdp>,
    /// Readable when one of the sockets is.
    poll: OwnedFd,
    capabilities: Capabilities,
    /// The queue that is looked at first next time.
    next: usize,
}

impl AllQueues {
    /// Opens every receive queue of an interface, with one XDP program. The frames of `arena` are
    /// registered once for each queue.
    ///
    /// # Errors
    /// As [`AfXdp::open`].
    pub fn open(name: &str, config: &Config, arena: &mut Arena) -> io::Result<AllQueues> {
        let queues = open::open_all(name, config, arena)?;
        let poll = epoll(&queues).map_err(|error| {
            io::Error::new(error.kind(), format!("AF_XDP on {name}: no epoll: {error}"))
        })?;
        let Some(first) = queues.first() else {
            return Err(io::Error::other(format!("{name} has no queue")));
        };
        let mut capabilities = first.capabilities().clone();
        capabilities.facts.retain(|(name, _)| *name != "queues");
        capabilities.facts.push(("queues", format!("all {}", queues.len())));
        Ok(AllQueues { queues, poll, capabilities, next: 0 })
    }
}

/// An epoll(7) descriptor that is readable when one of the sockets is.
fn epoll(queues: &[AfXdp]) -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor, touches no memory.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    let poll = unsafe { OwnedFd::from_raw_fd(fd) };
    for socket in queues.iter().filter_map(Port::fd) {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: the event lives through the call, which copies it.
        let added = unsafe {
            libc::epoll_ctl(poll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket, &raw mut event)
        };
        if added != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(poll)
}

impl Port for AllQueues {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, now: Instant, arena: &mut Arena, batch: &mut RxBatch) -> io::Result<usize> {
        let before = batch.len();
        let count = self.queues.len();
        for _ in 0..count {
            let queue = &mut self.queues[self.next];
            self.next = if self.next + 1 == count { 0 } else { self.next + 1 };
            match queue.rx(now, arena, batch) {
                Err(error) if batch.len() == before => return Err(error),
                // What came is given first; the next call finds the same error.
                Err(_) => break,
                Ok(_) if batch.is_full() => break,
                Ok(_) => {}
            }
        }
        Ok(batch.len() - before)
    }

    fn tx(&mut self, now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize> {
        match self.queues.first_mut() {
            Some(queue) => queue.tx(now, arena, batch),
            None => Ok(0),
        }
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.poll.as_raw_fd())
    }

    fn arm(&mut self, now: Instant) -> bool {
        // Every one of them, so that each knows that it was slept on.
        let mut may_sleep = true;
        for queue in &mut self.queues {
            may_sleep &= queue.arm(now);
        }
        may_sleep
    }

    fn close(&mut self, arena: &mut Arena) {
        for queue in &mut self.queues {
            queue.close(arena);
        }
    }

    fn statistics(&mut self) -> Statistics {
        let mut sum = Statistics::default();
        for queue in &mut self.queues {
            let mut one = queue.statistics();
            if !sum.details.is_empty() {
                // The program counts for all queues together.
                one.details.retain(|(name, _)| !name.starts_with("xdp_"));
            }
            sum.add(one);
        }
        sum
    }
}
