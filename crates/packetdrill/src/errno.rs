//! Errors as a system call tells them.

use std::io;

use millrace_stack::Failure;

/// A number of `errno.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

pub(crate) type Result<T> = core::result::Result<T, Errno>;

impl From<io::Error> for Errno {
    /// The stack speaks in kinds; a socket would show these numbers.
    fn from(error: io::Error) -> Errno {
        Errno(match error.kind() {
            io::ErrorKind::AddrInUse => libc::EADDRINUSE,
            io::ErrorKind::AddrNotAvailable => libc::EADDRNOTAVAIL,
            io::ErrorKind::NetworkUnreachable => libc::ENETUNREACH,
            io::ErrorKind::BrokenPipe => libc::EPIPE,
            io::ErrorKind::NotConnected => libc::ENOTCONN,
            io::ErrorKind::QuotaExceeded => libc::ENOBUFS,
            io::ErrorKind::Unsupported => libc::EOPNOTSUPP,
            _ => libc::EINVAL,
        })
    }
}

/// What a socket reports for a connection that ended before its time.
pub(crate) fn of_failure(failure: Failure) -> Errno {
    Errno(match failure {
        Failure::Reset => libc::ECONNRESET,
        Failure::Refused => libc::ECONNREFUSED,
        Failure::TimedOut => libc::ETIMEDOUT,
        Failure::HostUnreachable => libc::EHOSTUNREACH,
        Failure::Aborted => libc::ECONNABORTED,
    })
}
