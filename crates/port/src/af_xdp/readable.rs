//! One descriptor to sleep on for a port that has several.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An epoll(7) descriptor that is readable when one of the sockets of an interface's port is.
pub(super) fn readable_if_any(
    interface: &str,
    sockets: impl IntoIterator<Item = RawFd>,
) -> io::Result<OwnedFd> {
    let failed = || {
        let error = io::Error::last_os_error();
        io::Error::new(error.kind(), format!("AF_XDP on {interface}: no epoll: {error}"))
    };
    // SAFETY: makes a descriptor, touches no memory.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(failed());
    }
    // SAFETY: just made, owned by nobody else.
    let poll = unsafe { OwnedFd::from_raw_fd(fd) };
    for socket in sockets {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: the event lives through the call, which copies it.
        let added = unsafe {
            libc::epoll_ctl(poll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket, &raw mut event)
        };
        if added != 0 {
            return Err(failed());
        }
    }
    Ok(poll)
}
