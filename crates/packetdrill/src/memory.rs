//! The memory behind packetdrill's pointers: buffers, pieces of buffers, addresses and control
//! messages of C, read and written.
//!
//! Null is `EFAULT`; everything else is as long as the caller says.

use core::ffi::{c_uint, c_void};

use libc::{iovec, msghdr, sockaddr, socklen_t};

use crate::address::{self, Address};
use crate::errno::{Errno, Result};

/// Reads a `sockaddr`.
///
/// # Safety
/// `address` is null or valid for `length` bytes.
pub(crate) unsafe fn read_address(address: *const sockaddr, length: socklen_t) -> Result<Address> {
    if address.is_null() {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: not null, so valid for the length.
    address::parse(unsafe { core::slice::from_raw_parts(address.cast(), length as usize) })
}

/// Writes a `sockaddr` as far as there is room, and its whole length.
///
/// # Safety
/// `length` is null, or valid with `address` valid for as many bytes as it says.
pub(crate) unsafe fn write_address(bytes: &[u8], address: *mut sockaddr, length: *mut socklen_t) {
    if address.is_null() || length.is_null() {
        return;
    }
    // SAFETY: neither is null, so both are valid.
    unsafe {
        let room = (*length as usize).min(bytes.len());
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), address.cast(), room);
        *length = bytes.len() as socklen_t;
    }
}

/// A copy of the caller's bytes.
///
/// # Safety
/// `data` is null or valid for `count` bytes.
pub(crate) unsafe fn copy_in(data: *const c_void, count: usize) -> Result<Vec<u8>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if data.is_null() {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: not null, so valid for the count.
    Ok(unsafe { core::slice::from_raw_parts(data.cast::<u8>(), count) }.to_vec())
}

/// Copies what was read to the caller.
///
/// # Safety
/// `data` is valid for as many bytes as there are.
pub(crate) unsafe fn copy_out(bytes: &[u8], data: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), data.cast(), bytes.len()) };
}

/// The pieces of an `iovec` array.
///
/// # Safety
/// `pieces` is null or valid for `count` entries.
unsafe fn pieces<'a>(pieces: *const iovec, count: usize) -> Result<&'a [iovec]> {
    if count == 0 {
        return Ok(&[]);
    }
    if pieces.is_null() {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: not null, so valid for the count.
    Ok(unsafe { core::slice::from_raw_parts(pieces, count) })
}

/// All bytes of the pieces.
///
/// # Safety
/// As [`pieces`], and each piece is null or valid for its length.
pub(crate) unsafe fn gather(array: *const iovec, count: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // SAFETY: the caller's promise.
    for piece in unsafe { pieces(array, count) }? {
        // SAFETY: the caller's promise.
        bytes.extend(unsafe { copy_in(piece.iov_base, piece.iov_len) }?);
    }
    Ok(bytes)
}

/// Copies bytes into the pieces, one after the other.
///
/// # Safety
/// As [`gather`], and the pieces may be written.
pub(crate) unsafe fn scatter(mut bytes: &[u8], array: *const iovec, count: usize) -> Result<()> {
    // SAFETY: the caller's promise.
    for piece in unsafe { pieces(array, count) }? {
        let (now, rest) = bytes.split_at(piece.iov_len.min(bytes.len()));
        if !now.is_empty() && piece.iov_base.is_null() {
            return Err(Errno(libc::EFAULT));
        }
        // SAFETY: the caller's promise.
        unsafe { copy_out(now, piece.iov_base) };
        bytes = rest;
    }
    Ok(())
}

/// Bytes of all pieces.
///
/// # Safety
/// As [`pieces`].
pub(crate) unsafe fn room(array: *const iovec, count: usize) -> Result<usize> {
    // SAFETY: the caller's promise.
    Ok(unsafe { pieces(array, count) }?.iter().map(|piece| piece.iov_len).sum())
}

/// Writes control messages as far as there is room (cmsg(3)).
///
/// # Safety
/// `msg_control` is null or valid for `msg_controllen` bytes.
pub(crate) unsafe fn write_control(message: &mut msghdr, control: &[(i32, i32, Vec<u8>)]) {
    let room = message.msg_controllen;
    let mut bytes = Vec::new();
    for (level, kind, data) in control {
        // SAFETY: only arithmetic.
        let (len, space) = unsafe {
            (libc::CMSG_LEN(data.len() as c_uint), libc::CMSG_SPACE(data.len() as c_uint))
        };
        let end = bytes.len() + space as usize;
        if message.msg_control.is_null() || end > room {
            message.msg_flags |= libc::MSG_CTRUNC;
            break;
        }
        bytes.extend((len as usize).to_ne_bytes());
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(end, 0);
    }
    // SAFETY: no more than the room that was told.
    unsafe { copy_out(&bytes, message.msg_control) };
    message.msg_controllen = bytes.len();
}
