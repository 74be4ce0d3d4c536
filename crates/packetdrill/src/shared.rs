//! The world behind its lock, and how calls wait in virtual time.
//!
//! packetdrill has two threads. The first one runs the script: it makes the calls that do not
//! block, hands packets over, and is the only one that lets time go on. The second one makes the
//! calls that the script says block. A call that has to wait leaves what it waits for in the world
//! as an [`Attempt`], which is tried whenever something has happened; so it succeeds at exactly the
//! instant at which it can, on whatever thread that comes about. From then until the second thread
//! has read the clock, the clock stands still: the thread finds the time at which its call
//! returned.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use millrace_frames::Instant;

use crate::errno::{Errno, Result};
use crate::world::World;

/// No end to real waiting is a criterion; it ends a hang.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// A call that waits this long in virtual time waits for nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What a call returns, and what it writes to its caller's memory.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) value: i64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) address: Option<SocketAddr>,
    /// Level, type and data of control messages.
    pub(crate) control: Vec<(i32, i32, Vec<u8>)>,
    pub(crate) message_flags: i32,
}

impl Outcome {
    pub(crate) fn value(value: i64) -> Outcome {
        Outcome { value, ..Outcome::default() }
    }
}

/// Tries to finish a call. `true` says that it may not wait any longer, so it must end.
pub(crate) type Attempt = Box<dyn FnMut(&mut World, bool) -> Option<Result<Outcome>> + Send>;

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    For(Duration),
    Forever,
}

/// A call that waits.
pub(crate) struct Blocked {
    pub(crate) attempt: Attempt,
    pub(crate) deadline: Option<Instant>,
    pub(crate) result: Option<Result<Outcome>>,
}

/// A world that two threads share.
pub(crate) struct Shared {
    world: Mutex<World>,
    changed: Condvar,
    script_thread: ThreadId,
}

impl Shared {
    pub(crate) fn new(world: World) -> Shared {
        Shared {
            world: Mutex::new(world),
            changed: Condvar::new(),
            script_thread: thread::current().id(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        // A panic aborts the process at the C boundary, so nobody sees a half-changed world.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call that returns at once.
    pub(crate) fn now<T>(&self, call: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.lock();
        world.clock_read = false;
        let value = call(&mut world);
        world.settle();
        self.changed.notify_all();
        value
    }

    /// Makes a call that may wait.
    pub(crate) fn call(&self, patience: Patience, mut attempt: Attempt) -> Result<Outcome> {
        let mut world = self.lock();
        world.clock_read = false;
        world.settle();
        let first = attempt(&mut world, patience == Patience::None);
        world.settle();
        self.changed.notify_all();
        if let Some(result) = first {
            return result;
        }
        let deadline = match patience {
            Patience::For(time) => Some(world.now + time),
            _ => None,
        };
        if thread::current().id() == self.script_thread || world.blocked.is_some() {
            return self.wait_alone(world, attempt, deadline);
        }
        // SAFETY: gettid has no arguments and cannot fail.
        let thread = unsafe { libc::gettid() };
        world.blocked = Some(Blocked { attempt, deadline, result: None });
        loop {
            world = self.changed.wait(world).unwrap_or_else(PoisonError::into_inner);
            if let Some(Blocked { result: Some(_), .. }) = world.blocked
                && let Some(Blocked { result: Some(result), .. }) = world.blocked.take()
            {
                world.returning = Some(thread);
                return result;
            }
        }
    }

    /// The thread that moves the clock waits itself: time goes on until the call can end.
    fn wait_alone<'a>(
        &'a self,
        mut world: MutexGuard<'a, World>,
        mut attempt: Attempt,
        deadline: Option<Instant>,
    ) -> Result<Outcome> {
        let limit = deadline.unwrap_or(world.now + LONGEST_WAIT);
        loop {
            let Some(next) = world.next_time().filter(|&next| next < limit) else {
                if deadline.is_some() {
                    world = self.advance_to(world, limit);
                    return attempt(&mut world, true).unwrap_or(Err(Errno(libc::EAGAIN)));
                }
                eprintln!(
                    "millrace: this call waits for something that can no longer happen; \
                     the script does not mark it as one that blocks"
                );
                return Err(Errno(libc::EDEADLK));
            };
            world = self.advance_to(world, next);
            if let Some(result) = attempt(&mut world, false) {
                world.settle();
                self.changed.notify_all();
                return result;
            }
        }
    }

    /// Lets time go on to `target` and everything happen that is due on the way.
    pub(crate) fn advance_to<'a>(
        &'a self,
        mut world: MutexGuard<'a, World>,
        target: Instant,
    ) -> MutexGuard<'a, World> {
        loop {
            world.settle();
            world = self.let_return(world);
            if world.now >= target {
                return world;
            }
            let next = world.next_time().unwrap_or(target).min(target);
            // A deadline that has passed without anything to do must not stop the clock.
            world.now = next.max(world.now + Duration::from_micros(1)).min(target);
        }
    }

    /// Waits until a call that has ended is seen by its thread.
    fn let_return<'a>(&'a self, mut world: MutexGuard<'a, World>) -> MutexGuard<'a, World> {
        self.changed.notify_all();
        while world.returning.is_some()
            || matches!(world.blocked, Some(Blocked { result: Some(_), .. }))
        {
            let (guard, timeout) = self
                .changed
                .wait_timeout(world, HANGS_AFTER)
                .unwrap_or_else(PoisonError::into_inner);
            world = guard;
            if timeout.timed_out() {
                world.returning = None;
                break;
            }
        }
        world
    }

    /// The script's clock. Reading it twice in a row moves it on by a microsecond, because
    /// packetdrill waits for the last instants before an event by reading.
    pub(crate) fn read_clock(&self) -> Instant {
        let mut world = self.lock();
        if let Some(thread) = world.returning {
            // SAFETY: gettid has no arguments and cannot fail.
            if thread == unsafe { libc::gettid() } {
                world.returning = None;
                world.settling = Some(thread);
                self.changed.notify_all();
                return world.now;
            }
        }
        if world.clock_read {
            let next = world.now + Duration::from_micros(1);
            world = self.advance_to(world, next);
        }
        world.clock_read = true;
        world.now
    }

    /// The script waits.
    pub(crate) fn sleep(&self, time: Duration) {
        let mut world = self.lock();
        world.clock_read = false;
        if let Some(thread) = world.settling.take() {
            drop(world);
            let_rest(thread);
            world = self.lock();
        }
        let target = world.now + time;
        let mut world = self.advance_to(world, target);
        let settling = world.settling.take();
        drop(world);
        if let Some(thread) = settling {
            let_rest(thread);
        }
    }

    /// The next packet from the stack; time goes on until there is one. `None`: nothing more can
    /// come, or not for a long time.
    pub(crate) fn next_packet(&self) -> Option<(Instant, Vec<u8>)> {
        let mut world = self.lock();
        world.clock_read = false;
        let limit = world.now + LONGEST_WAIT;
        loop {
            world.settle();
            if let Some(packet) = world.leaving.pop_front() {
                self.changed.notify_all();
                return Some(packet);
            }
            let next = world.next_time().filter(|&next| next < limit)?;
            let target = next.max(world.now + Duration::from_micros(1));
            world = self.advance_to(world, target);
        }
    }
}

/// Gives a thread whose call has returned the real time that it needs to take note of the result:
/// virtual waiting takes none, and the script may go on with the descriptor that `accept` returned.
/// It is done when it sleeps again.
fn let_rest(thread: i32) {
    let path = format!("/proc/self/task/{thread}/stat");
    for _ in 0..200 {
        thread::sleep(Duration::from_millis(1));
        let Ok(text) = std::fs::read_to_string(&path) else { return };
        // The name of the thread, in parentheses, may hold anything.
        if text.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')) {
            return;
        }
    }
}
