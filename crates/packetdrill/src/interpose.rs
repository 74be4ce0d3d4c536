//! Calls that packetdrill makes through the C library, past its table: `getsockopt` for its code
//! blocks, `sendfile`, and `system` for a script's commands. When this library is preloaded, these definitions stand before the C
//! library's. A descriptor that is not ours goes on to the kernel. `mlockall` and
//! `sched_setscheduler` do nothing: virtual time cannot be late, and a user without privileges may
//! not pin what packetdrill and the stack use.

use core::ffi::{c_char, c_int, c_long, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use crate::abi;
use crate::errno::{Errno, Result};
use crate::shared::Shared;
use crate::world::World;

/// Every world of this process.
static WORLDS: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());

/// Makes a world's descriptors known here.
pub(crate) fn register(shared: &Arc<Shared>) {
    WORLDS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(shared));
}

/// Ends that.
pub(crate) fn forget(shared: &Arc<Shared>) {
    WORLDS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|other| !Arc::ptr_eq(other, shared));
}

fn owner(number: c_int) -> Option<Arc<Shared>> {
    let worlds = WORLDS.lock().unwrap_or_else(PoisonError::into_inner);
    worlds.iter().find(|shared| shared.lock().descriptors.contains(number)).cloned()
}

/// `getsockopt(2)`.
///
/// # Safety
/// As the C library's: `value` and `length` are valid for what they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    number: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut libc::socklen_t,
) -> c_int {
    match owner(number) {
        // SAFETY: the caller's promise is passed on.
        Some(shared) => unsafe { abi::get_option(&shared, number, level, name, value, length) },
        // SAFETY: the same call, made by the kernel.
        None => unsafe {
            libc::syscall(libc::SYS_getsockopt, number, level, name, value, length) as c_int
        },
    }
}

/// `sendfile(2)`.
///
/// # Safety
/// As the C library's: `offset` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile(
    to: c_int,
    from: c_int,
    offset: *mut libc::off_t,
    count: usize,
) -> isize {
    let Some(shared) = owner(to) else {
        // SAFETY: the same call, made by the kernel.
        return unsafe { libc::syscall(libc::SYS_sendfile, to, from, offset, count) as isize };
    };
    // SAFETY: the caller says that it is null or valid.
    let place = unsafe { offset.as_mut() };
    match copy_file(&shared, to, from, place, count) {
        Ok(sent) => sent,
        Err(error) => abi::fail(error) as isize,
    }
}

/// `system(3)`, around which every world shows what it has and looks at what has changed.
///
/// # Safety
/// As the C library's: `command` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn system(command: *const c_char) -> c_int {
    // SAFETY: the name is a C string, and nothing else is asked of the caller.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"system".as_ptr()) };
    if next.is_null() {
        return abi::fail(Errno(libc::ENOSYS));
    }
    // SAFETY: the C library's `system` has this type.
    let next: unsafe extern "C" fn(*const c_char) -> c_int = unsafe { core::mem::transmute(next) };
    let worlds = WORLDS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for shared in &worlds {
        shared.now(World::before_command);
    }
    // SAFETY: the caller's promise is passed on.
    let status = unsafe { next(command) };
    for shared in &worlds {
        shared.now(World::after_command);
    }
    status
}

/// `mlockall(2)`: succeeds and pins nothing.
#[unsafe(no_mangle)]
pub extern "C" fn mlockall(_flags: c_int) -> c_int {
    0
}

/// `sched_setscheduler(2)`: succeeds and leaves the thread to its fellows.
#[unsafe(no_mangle)]
pub extern "C" fn sched_setscheduler(
    _process: libc::pid_t,
    _policy: c_int,
    _parameters: *const libc::sched_param,
) -> c_int {
    0
}

fn copy_file(
    shared: &Shared,
    to: c_int,
    from: c_int,
    offset: Option<&mut libc::off_t>,
    count: usize,
) -> Result<isize> {
    // sendfile(2): at most this much at a time.
    let mut buffer = vec![0; count.min(0x7fff_f000)];
    let got = match &offset {
        // SAFETY: the buffer is as long as is said, and the kernel checks the descriptor.
        Some(place) => unsafe {
            libc::pread(from, buffer.as_mut_ptr().cast(), buffer.len(), **place)
        },
        // SAFETY: as above.
        None => unsafe { libc::read(from, buffer.as_mut_ptr().cast(), buffer.len()) },
    };
    if got < 0 {
        return Err(last_error());
    }
    buffer.truncate(got as usize);
    let sent = abi::send(shared, to, buffer, 0, None)?.value;
    if let Some(place) = offset {
        *place += sent as c_long;
    }
    Ok(sent as isize)
}

fn last_error() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
