//! Loading XDP programs and running them on given frames. Attaching is in [`crate::link`].

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::asm::Program;
use crate::error::{Error, Result};
use crate::link::{Link, Mode};
use crate::pin;
use crate::sys;

/// Each length costs one more look at the whole program. Since Linux 6.4 a log that does not fit
/// keeps its end, which tells why.
const LOG_LENGTHS: [usize; 2] = [256 << 10, 16 << 20];

/// What a program returns (`enum xdp_action`).
pub mod action {
    #![allow(missing_docs)]
    pub const ABORTED: u32 = 0;
    pub const DROP: u32 = 1;
    pub const PASS: u32 = 2;
    pub const TX: u32 = 3;
    pub const REDIRECT: u32 = 4;
}

/// How a program is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions<'a> {
    /// The name that the kernel shows; at most 15 bytes are kept.
    pub name: &'a str,
    /// The licence; some helpers are for GPL-compatible programs only.
    pub license: &'a str,
    /// `BPF_F_XDP_HAS_FRAGS`: take frames that span several buffers.
    pub frags: bool,
}

impl<'a> LoadOptions<'a> {
    /// Options for a program with this name: Apache-2.0, frames of one buffer.
    pub fn named(name: &'a str) -> Self {
        Self { name, license: "Apache-2.0", frags: false }
    }
}

/// What a program is called for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Frames before the kernel's own receive path.
    Xdp,
    /// Packets between packet sockets and protocols.
    SchedCls,
}

/// Gives a program to the kernel; see [`XdpProgram::load`].
pub(crate) fn load(kind: Kind, program: &Program, options: &LoadOptions<'_>) -> Result<OwnedFd> {
    let license = CString::new(options.license)
        .map_err(|_| Error::Argument("the licence contains a zero byte".into()))?;
    let slots = program.slots();
    let (prog_type, expected_attach_type) = match kind {
        Kind::Xdp => (sys::PROG_TYPE_XDP, sys::ATTACH_TYPE_XDP),
        // It does not have to say where.
        Kind::SchedCls => (sys::PROG_TYPE_SCHED_CLS, 0),
    };
    let mut attr = sys::ProgLoad {
        prog_type,
        insn_cnt: slots.len() as u32,
        insns: slots.as_ptr() as u64,
        license: license.as_ptr() as u64,
        prog_flags: if options.frags { sys::F_XDP_HAS_FRAGS } else { 0 },
        prog_name: sys::object_name(options.name),
        expected_attach_type,
        ..Default::default()
    };
    // SAFETY: the instructions and the licence outlive the call.
    let errno = match unsafe { sys::bpf_fd(sys::PROG_LOAD, &mut attr) } {
        Ok(fd) => return Ok(fd),
        Err(errno) => errno,
    };
    let log = verifier_log(&mut attr);
    if log.is_empty() {
        return Err(Error::system(format!("loading program {}", options.name), errno));
    }
    Err(Error::Verifier { program: options.name.to_owned(), errno, log })
}

/// Loads once more, with a log that grows until it fits.
fn verifier_log(attr: &mut sys::ProgLoad) -> String {
    let mut log = Vec::new();
    for len in LOG_LENGTHS {
        log.clear();
        log.resize(len, 0u8);
        attr.log_level = 1;
        attr.log_size = len as u32;
        attr.log_buf = log.as_mut_ptr() as u64;
        // SAFETY: as in `load`, and the log is `log_size` writable bytes.
        let result = unsafe { sys::bpf_fd(sys::PROG_LOAD, attr) };
        if !matches!(result, Err(libc::ENOSPC)) {
            break;
        }
    }
    sys::name_text(&log)
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct XdpProgram {
    fd: OwnedFd,
    name: String,
}

impl XdpProgram {
    /// Gives the program to the kernel's verifier and compiler.
    ///
    /// # Errors
    /// [`Error::Verifier`] with the whole log if the program is refused, [`Error::System`] if it
    /// does not get that far (`EPERM` without the capability).
    pub fn load(program: &Program, options: &LoadOptions<'_>) -> Result<Self> {
        let fd = load(Kind::Xdp, program, options)?;
        Ok(Self { fd, name: options.name.to_owned() })
    }

    /// The name it was loaded with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the kernel knows of it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn info(&self) -> Result<ProgramInfo> {
        ProgramInfo::of(self.fd.as_fd(), &self.name)
    }

    /// Attaches the program to an interface of the caller's network namespace. It stays until
    /// the link is dropped or detached, or the process ends.
    ///
    /// # Errors
    /// [`Error::Occupied`] with the other program's id and name if there is one, else
    /// [`Error::Attach`].
    pub fn attach(&self, ifindex: u32, mode: Mode) -> Result<Link> {
        Link::create(self, ifindex, mode)
    }

    /// Gives the program a name in a BPF file system, which keeps it loaded.
    ///
    /// # Errors
    /// [`Error::Pin`].
    pub fn pin(&self, path: &Path) -> Result<()> {
        pin::pin(self.fd.as_fd(), path, "program")
    }

    /// Runs the program `repeat` times on a copy of `frame` and reports the last run.
    ///
    /// The kernel takes frames from 14 bytes up to a page without its head room and tail room;
    /// longer ones, of several buffers, only for programs loaded with [`LoadOptions::frags`].
    /// The context says receive queue 0 of the loopback interface.
    ///
    /// # Errors
    /// `EINVAL` for a frame of a length outside that range.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<TestRun> {
        let mut out = Vec::new();
        let (action, nanoseconds) = self.test_run_into(frame, &mut out, repeat, None)?;
        Ok(TestRun { action, frame: out, nanoseconds })
    }

    /// As [`XdpProgram::test_run`], for many frames in turn: `out` receives the frame as the
    /// program left it, the action and the mean time in nanoseconds are returned, and `from` says
    /// where the frame came in.
    ///
    /// # Errors
    /// As [`XdpProgram::test_run`]; `EINVAL` too if there is no such interface or queue, and
    /// `EINTR` if a signal came first.
    pub fn test_run_into(
        &self,
        frame: &[u8],
        out: &mut Vec<u8>,
        repeat: u32,
        from: Option<Ingress>,
    ) -> Result<(u32, u32)> {
        // A program may grow the frame into its head room and tail room.
        out.clear();
        out.resize(frame.len() + 4096, 0);
        let mut context = sys::XdpContext { data_end: frame.len() as u32, ..Default::default() };
        let mut attr = sys::TestRunAttr {
            prog_fd: self.fd.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_size_out: out.len() as u32,
            data_in: frame.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            repeat,
            ..Default::default()
        };
        if let Some(from) = from {
            context.ingress_ifindex = from.ifindex;
            context.rx_queue_index = from.queue;
            attr.ctx_in = (&raw const context) as u64;
            attr.ctx_size_in = size_of::<sys::XdpContext>() as u32;
        }
        // SAFETY: both buffers and the context have the stated lengths and outlive the call.
        unsafe { sys::bpf(sys::PROG_TEST_RUN, &mut attr) }.map_err(|errno| {
            let what = format!("test run of {} on {} bytes", self.name, frame.len());
            Error::system(what, errno)
        })?;
        out.truncate(attr.data_size_out as usize);
        Ok((attr.retval, attr.duration))
    }
}

impl AsFd for XdpProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The outcome of [`XdpProgram::test_run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned; see [`action`].
    pub action: u32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// The mean time of a run, in nanoseconds.
    pub nanoseconds: u32,
}

/// Where a frame of a test run comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingress {
    /// The interface.
    pub ifindex: u32,
    /// Its receive queue.
    pub queue: u32,
}

/// While this lives, the kernel counts the runs and the time of all BPF programs, which costs each
/// run some tens of nanoseconds.
#[derive(Debug)]
pub struct RunStatistics {
    _fd: OwnedFd,
}

impl RunStatistics {
    /// Has the kernel count (Linux 5.8).
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`.
    pub fn enable() -> Result<Self> {
        let mut attr = sys::EnableStats { kind: 0 };
        // SAFETY: the attribute holds no address.
        let fd = unsafe { sys::bpf_fd(sys::ENABLE_STATS, &mut attr) }
            .map_err(|errno| Error::system("having the kernel time BPF programs", errno))?;
        Ok(Self { _fd: fd })
    }
}

/// A program in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// The kernel's id.
    pub id: u32,
    /// The name, or nothing.
    pub name: String,
    /// The user who loaded it.
    pub uid: u32,
    /// When it was loaded, in nanoseconds since the machine started.
    pub loaded_at: u64,
    /// Bytes of its instructions, after the verifier has rewritten them.
    pub translated_len: u32,
    /// Bytes of its machine code; 0 if it is interpreted.
    pub compiled_len: u32,
    /// Instructions the verifier looked at, each as often as it did (Linux 5.16).
    pub verified: u32,
    /// How often it ran while a [`RunStatistics`] lived.
    pub run_count: u64,
    /// How long these runs took, in nanoseconds.
    pub run_nanoseconds: u64,
}

impl ProgramInfo {
    fn of(fd: BorrowedFd<'_>, what: &str) -> Result<Self> {
        let raw: sys::RawProgramInfo = sys::object_info(fd)
            .map_err(|errno| Error::system(format!("asking about program {what}"), errno))?;
        Ok(Self {
            id: raw.id,
            name: sys::name_text(&raw.name),
            uid: raw.created_by_uid,
            loaded_at: raw.load_time,
            translated_len: raw.xlated_len,
            compiled_len: raw.jited_len,
            verified: raw.verified_insns,
            run_count: raw.run_cnt,
            run_nanoseconds: raw.run_time_ns,
        })
    }

    /// The program with this id, or nothing if it is gone.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`, which the kernel asks for here.
    pub fn by_id(id: u32) -> Result<Option<Self>> {
        let mut attr = sys::GetById { id, ..Default::default() };
        // SAFETY: the attribute holds no address.
        match unsafe { sys::bpf_fd(sys::PROG_GET_FD_BY_ID, &mut attr) } {
            Ok(fd) => Self::of(fd.as_fd(), &format!("id {id}")).map(Some),
            Err(libc::ENOENT) => Ok(None),
            Err(errno) => Err(Error::system(format!("opening program id {id}"), errno)),
        }
    }
}
