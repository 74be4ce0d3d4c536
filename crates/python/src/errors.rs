//! Errors as Python knows them: `OSError` with an errno (Python picks the subclass by it), and
//! `ValueError` for what makes no sense.

use std::io::{self, ErrorKind};

use pyo3::PyErr;
use pyo3::exceptions::{PyOSError, PyValueError};

/// The exception for an error of the channel.
pub(crate) fn to_python(error: io::Error) -> PyErr {
    if error.kind() == ErrorKind::InvalidInput && error.raw_os_error().is_none() {
        return PyValueError::new_err(error.to_string());
    }
    let errno = error.raw_os_error().unwrap_or_else(|| errno(error.kind()));
    PyOSError::new_err((errno, error.to_string()))
}

fn errno(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::PermissionDenied => libc::EPERM,
        ErrorKind::ConnectionRefused => libc::ECONNREFUSED,
        ErrorKind::ConnectionReset => libc::ECONNRESET,
        ErrorKind::ConnectionAborted => libc::ECONNABORTED,
        ErrorKind::HostUnreachable => libc::EHOSTUNREACH,
        ErrorKind::NetworkUnreachable => libc::ENETUNREACH,
        ErrorKind::NetworkDown => libc::ENETDOWN,
        ErrorKind::NotConnected => libc::ENOTCONN,
        ErrorKind::AddrInUse => libc::EADDRINUSE,
        ErrorKind::AddrNotAvailable => libc::EADDRNOTAVAIL,
        ErrorKind::BrokenPipe => libc::EPIPE,
        ErrorKind::AlreadyExists => libc::EEXIST,
        ErrorKind::WouldBlock => libc::EAGAIN,
        ErrorKind::TimedOut => libc::ETIMEDOUT,
        ErrorKind::QuotaExceeded => libc::ENOBUFS,
        ErrorKind::ResourceBusy => libc::EBUSY,
        ErrorKind::OutOfMemory => libc::ENOMEM,
        ErrorKind::IsADirectory => libc::EISDIR,
        ErrorKind::NotADirectory => libc::ENOTDIR,
        ErrorKind::StorageFull => libc::ENOSPC,
        ErrorKind::FileTooLarge => libc::EFBIG,
        ErrorKind::ReadOnlyFilesystem => libc::EROFS,
        ErrorKind::Unsupported => libc::EOPNOTSUPP,
        ErrorKind::Interrupted => libc::EINTR,
        ErrorKind::InvalidInput => libc::EINVAL,
        _ => libc::EIO,
    }
}

/// Why a connection ended before its time.
pub(crate) fn end_of_connection(errno: i32) -> PyErr {
    let text = match errno {
        libc::ECONNRESET => "the peer reset the connection",
        libc::ECONNREFUSED => "nobody takes connections there",
        libc::ETIMEDOUT => "the peer did not answer, however often it was asked",
        libc::EHOSTUNREACH => "the host, or the way to it, does not answer",
        libc::ECONNABORTED => "the connection was ended from this side",
        _ => "the connection failed",
    };
    PyOSError::new_err((errno, text))
}
