//! Names in a BPF file system, which keep an object alive after the process that made it.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys;

/// Gives the object behind `fd` a name. `what` is told in errors.
///
/// # Errors
/// `EEXIST` if the name is taken, `EPERM` outside a BPF file system.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path, what: &str) -> Result<()> {
    let name = c_path(path)?;
    let mut attr = sys::ObjectPath {
        path: name.as_ptr() as u64,
        bpf_fd: fd.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: the path ends with a zero and outlives the call.
    unsafe { sys::bpf(sys::OBJ_PIN, &mut attr) }
        .map_err(|errno| failed("pinning", what, path, errno))?;
    Ok(())
}

/// Opens the object that has this name.
///
/// # Errors
/// `ENOENT` if there is none, `EACCES` or `EPERM` outside a BPF file system.
pub(crate) fn open(path: &Path, what: &str) -> Result<OwnedFd> {
    let name = c_path(path)?;
    let mut attr = sys::ObjectPath { path: name.as_ptr() as u64, ..Default::default() };
    // SAFETY: as above.
    unsafe { sys::bpf_fd(sys::OBJ_GET, &mut attr) }
        .map_err(|errno| failed("opening", what, path, errno))
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::Argument(format!("the path {} contains a zero byte", path.display())))
}

fn failed(action: &str, what: &str, path: &Path, errno: i32) -> Error {
    Error::Pin { action: format!("{action} {what}"), path: path.to_owned(), errno }
}
