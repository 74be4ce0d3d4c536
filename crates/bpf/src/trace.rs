//! Programs at tracepoints (`BPF_TRACE_RAW_TP`): loading, attaching, and what they cost.
//!
//! Such a program reads its arguments by their types as BTF tells them, so a load through a pointer
//! is one instruction and no call. It stays attached for as long as its descriptor lives.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::asm::Program;
use crate::btf::Btf;
use crate::error::{Error, Result};
use crate::sys;

const RAW_TRACEPOINT_OPEN: u32 = 17;
const ENABLE_STATS: u32 = 32;
const PROG_TYPE_TRACING: u32 = 26;
const ATTACH_TYPE_TRACE_RAW_TP: u32 = 23;
/// `BPF_STATS_RUN_TIME`.
const STATS_RUN_TIME: u32 = 0;
const LOG_LEN: usize = 1 << 20;

/// `BPF_PROG_LOAD` up to the type that a program attaches to.
#[repr(C)]
#[derive(Default)]
struct Load {
    head: [u32; 2],
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; sys::NAME_LEN],
    prog_ifindex: u32,
    expected_attach_type: u32,
    btf: [u32; 2],
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

#[repr(C)]
#[derive(Default)]
struct Open {
    name: u64,
    prog_fd: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Default)]
struct Stats {
    kind: u32,
}

/// `struct bpf_prog_info` up to the counters of runs.
#[repr(C)]
#[derive(Default)]
struct Info {
    before: [u64; 24],
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
}

macro_rules! attrs {
    ($($name:ty: $size:expr),*) => {$(
        // SAFETY: repr(C), integers only; the assertion shows there is no padding.
        unsafe impl sys::Attr for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

attrs! { Load: 112, Open: 16, Stats: 4, Info: 216 }

/// A program at a tracepoint. It is detached when this is dropped.
#[derive(Debug)]
pub struct TraceProgram {
    fd: OwnedFd,
    name: String,
    /// Keeps it attached.
    _link: OwnedFd,
}

/// How often a program ran while that was counted, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Runs.
    pub count: u64,
    /// Nanoseconds of all of them. Reading the clock twice is in it.
    pub nanoseconds: u64,
    /// Runs that did not take place because the program was running on that CPU already.
    pub missed: u64,
}

impl TraceProgram {
    /// Loads a program and attaches it to a tracepoint of the kernel.
    ///
    /// # Errors
    /// [`Error::Verifier`] with the log if it is refused, [`Error::System`] if it does not get that
    /// far: `EPERM` without `CAP_BPF` and `CAP_PERFMON`.
    pub fn attach(
        btf: &Btf,
        tracepoint: &str,
        name: &str,
        license: &str,
        program: &Program,
    ) -> Result<TraceProgram> {
        let (attach_btf_id, _) = btf.tracepoint(tracepoint)?;
        let license = CString::new(license)
            .map_err(|_| Error::Argument("the licence contains a zero byte".into()))?;
        let slots = program.slots();
        let mut attr = Load {
            head: [PROG_TYPE_TRACING, slots.len() as u32],
            insns: slots.as_ptr() as u64,
            license: license.as_ptr() as u64,
            prog_name: sys::object_name(name),
            expected_attach_type: ATTACH_TYPE_TRACE_RAW_TP,
            attach_btf_id,
            ..Default::default()
        };
        // SAFETY: the instructions and the licence outlive the call.
        let fd = match unsafe { sys::bpf_fd(sys::PROG_LOAD, &mut attr) } {
            Ok(fd) => fd,
            Err(errno) => return Err(refused(&mut attr, name, errno)),
        };
        let mut open = Open { prog_fd: fd.as_raw_fd() as u32, ..Default::default() };
        // SAFETY: the attribute holds no address: such a program knows its tracepoint.
        let link = unsafe { sys::bpf_fd(RAW_TRACEPOINT_OPEN, &mut open) }.map_err(|errno| {
            Error::system(format!("attaching {name} to the tracepoint {tracepoint}"), errno)
        })?;
        Ok(TraceProgram { fd, name: name.to_owned(), _link: link })
    }

    /// How often it ran and for how long, while somebody had [`count_runs`] on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn runs(&self) -> Result<Runs> {
        let info: Info = sys::object_info(self.fd.as_fd())
            .map_err(|errno| Error::system(format!("asking about program {}", self.name), errno))?;
        Ok(Runs {
            count: info.run_cnt,
            nanoseconds: info.run_time_ns,
            missed: info.recursion_misses,
        })
    }
}

impl AsFd for TraceProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Has the kernel count runs of all programs and their time until the descriptor is closed. That
/// costs each run two looks at a clock.
///
/// # Errors
/// What the kernel says.
pub fn count_runs() -> Result<OwnedFd> {
    let mut attr = Stats { kind: STATS_RUN_TIME };
    // SAFETY: the attribute holds no address.
    unsafe { sys::bpf_fd(ENABLE_STATS, &mut attr) }
        .map_err(|errno| Error::system("counting runs of programs", errno))
}

/// Loads once more, to be told why it is refused.
fn refused(attr: &mut Load, name: &str, errno: i32) -> Error {
    let mut log = vec![0u8; LOG_LEN];
    attr.log_level = 1;
    attr.log_size = log.len() as u32;
    attr.log_buf = log.as_mut_ptr() as u64;
    // SAFETY: as in `attach`, and the log is `log_size` writable bytes.
    let _ = unsafe { sys::bpf_fd(sys::PROG_LOAD, attr) };
    let log = sys::name_text(&log);
    match log.is_empty() {
        true => Error::system(format!("loading the tracing program {name}"), errno),
        false => Error::Verifier { program: name.to_owned(), errno, log },
    }
}
