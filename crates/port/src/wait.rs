//! How long to look for work before giving the core back: spin, sleep, or spin and then sleep.
//!
//! The loop belongs to the port's user, who has other work besides frames (timers, mailboxes).
//! What lives here is the policy and the sleep.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use millrace_frames::{Duration, Instant};

use crate::Port;

/// What to do with a turn that finds nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Look again at once, for ever: lowest latency, one core.
    Spin,
    /// Sleep in the kernel until a frame, a timer or a wake-up.
    Sleep,
    /// Spin for so long after the last work, then sleep.
    SpinThenSleep(Duration),
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// A frame may have arrived.
    Arrival,
    /// The deadline has come.
    Deadline,
    /// Another thread rang the [`Bell`].
    Bell,
    /// A signal was delivered; its handler may want to run (Ctrl-C).
    Signal,
}

/// Wakes a sleeper from another thread.
#[derive(Clone, Debug)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: creates a new descriptor, no memory involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and is owned by nobody else.
        Ok(Bell(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Ends the current or the next sleep.
    pub fn ring(&self) {
        let one = 1u64;
        // SAFETY: writes eight bytes from a live u64. The only failure is a full counter, and
        // then the sleeper is awake anyway.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Forgets earlier rings. Returns whether there were any.
    pub fn silence(&self) -> bool {
        let mut count = 0u64;
        // SAFETY: reads eight bytes into a live u64.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) == 8 }
    }

    /// The descriptor, readable once rung.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Most ports that one thread sleeps over.
const MOST_PORTS: usize = 2;
/// Most descriptors that it polls for them.
const MOST_FDS: usize = 2 * MOST_PORTS;

/// Sleeps until a frame arrives at `port`, `bell` rings, or `deadline` has come (`None`: never).
///
/// # Errors
/// What ppoll(2) says; a signal is no error.
pub fn sleep(
    port: &mut dyn Port,
    bell: &Bell,
    now: Instant,
    deadline: Option<Instant>,
) -> io::Result<Wake> {
    sleep_any(&mut [port], bell, now, deadline)
}

/// As [`sleep`], for a thread with one or two ports.
///
/// # Errors
/// As [`sleep`].
pub fn sleep_any(
    ports: &mut [&mut dyn Port],
    bell: &Bell,
    now: Instant,
    deadline: Option<Instant>,
) -> io::Result<Wake> {
    assert!(ports.len() <= MOST_PORTS, "a thread sleeps over at most {MOST_PORTS} ports");
    let mut fds = [None; MOST_FDS];
    let mut count = 0;
    let mut deadline = deadline;
    for port in ports.iter_mut() {
        let Some(armed) = arm(&mut **port, now) else { return Ok(Wake::Arrival) };
        deadline = match (deadline, armed.arrival) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        for fd in armed.fds.into_iter().flatten() {
            fds[count] = Some(fd);
            count += 1;
        }
    }
    poll(&fds[..count], bell, now, deadline)
}

/// What to sleep on until a port has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// What becomes readable, one or the other.
    pub fds: [Option<RawFd>; 2],
    /// When the next frame will have arrived, where that is known.
    pub arrival: Option<Instant>,
}

/// The first half of [`sleep`]: from now on an arrival wakes who polls what this returns. `None`:
/// something has arrived already.
pub fn arm(port: &mut dyn Port, now: Instant) -> Option<Armed> {
    // After arming: a frame that is put on a delayed wire from now on wakes us by itself.
    let fds = [port.fd(), port.second_fd()];
    port.arm(now).then(|| Armed { arrival: port.next_arrival(), fds })
}

/// The second half of [`sleep`], which needs no port: sleeps until one of `fds` is readable, `bell`
/// rings, or `deadline` has come. Who closes a port meanwhile must ring the bell and wait for the
/// sleeper first.
///
/// # Errors
/// As [`sleep`].
///
/// # Panics
/// With more descriptors than a thread may sleep over.
pub fn poll(
    fds: &[Option<RawFd>],
    bell: &Bell,
    now: Instant,
    deadline: Option<Instant>,
) -> io::Result<Wake> {
    const NOBODY: libc::pollfd = libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 };
    assert!(fds.len() <= MOST_FDS, "a thread sleeps over at most {MOST_FDS} descriptors");
    let count = 1 + fds.len();
    let mut entries = [NOBODY; 1 + MOST_FDS];
    entries[0].fd = bell.fd();
    for (entry, fd) in entries[1..].iter_mut().zip(fds) {
        entry.fd = fd.unwrap_or(-1);
    }
    let timeout = deadline.map(|deadline| timespec(deadline - now));
    // SAFETY: `entries` and `timeout` outlive the call, and there are `count` entries at least.
    let ready = unsafe {
        libc::ppoll(
            entries.as_mut_ptr(),
            count as libc::nfds_t,
            timeout.as_ref().map_or(core::ptr::null(), core::ptr::from_ref),
            core::ptr::null(),
        )
    };
    match ready {
        0 => Ok(Wake::Deadline),
        1.. if entries[0].revents != 0 => {
            bell.silence();
            Ok(Wake::Bell)
        }
        1.. => Ok(Wake::Arrival),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(Wake::Signal),
            error => Err(error),
        },
    }
}

/// Sleeps until there is room to send on `fd`, or `deadline` has come.
///
/// # Errors
/// As [`sleep`].
pub fn poll_writable(fd: RawFd, now: Instant, deadline: Instant) -> io::Result<Wake> {
    let mut entry = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    let timeout = timespec(deadline - now);
    // SAFETY: one entry and the timeout outlive the call.
    let ready = unsafe { libc::ppoll(&raw mut entry, 1, &raw const timeout, core::ptr::null()) };
    match ready {
        0 => Ok(Wake::Deadline),
        1.. => Ok(Wake::Arrival),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(Wake::Signal),
            error => Err(error),
        },
    }
}

/// Whether nobody is at the other end of a pipe or socket any more.
pub fn peer_is_gone(fd: RawFd) -> bool {
    let mut entry = libc::pollfd { fd, events: 0, revents: 0 };
    // SAFETY: one entry, which outlives the call; the call does not wait.
    let ready = unsafe { libc::poll(&raw mut entry, 1, 0) };
    ready > 0 && entry.revents & (libc::POLLERR | libc::POLLHUP) != 0
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: time.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// Has the kernel end this thread's sleeps on time. By default it may do so 50 µs late, to wake
/// several threads at once.
pub fn wake_punctually() {
    // SAFETY: takes numbers; 1 ns is the least there is. It fails on no Linux.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Leaves all signals to the other threads of the process: for a thread that serves others in the
/// background, since a signal that it took would not end their sleeps.
pub fn block_signals() {
    // SAFETY: an all-zero sigset_t is a valid one to be filled, and both calls take its address.
    unsafe {
        let mut all = core::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, core::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_rung_before_the_sleep_is_heard_once() {
        let bell = Bell::new().unwrap();
        bell.ring();
        bell.ring();
        assert!(bell.silence());
        assert!(!bell.silence());
    }
}
