//! What the tests share: a thread in a network namespace of its own, and veth pairs in it.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use millrace_bpf::insn::Reg::R0;
use millrace_bpf::program::action;
use millrace_bpf::{Assembler, LoadOptions, XdpProgram, attached};

/// A program that lets everything through.
pub fn passing(name: &str) -> XdpProgram {
    let mut asm = Assembler::new();
    asm.mov(R0, action::PASS as i32).exit();
    XdpProgram::load(&asm.finish().unwrap(), &LoadOptions::named(name)).unwrap()
}

/// The last link of an interface was dropped. A process that another test starts just now holds the
/// link's descriptor until its exec, so the program may stay as long.
pub fn expect_nothing_attached(ifindex: u32) {
    let mut left = attached(ifindex).unwrap();
    for _ in 0..2000 {
        if left.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
        left = attached(ifindex).unwrap();
    }
    panic!("{left:?} is attached still");
}

/// Runs `body` in a fresh network namespace, which goes when `body` has ended. Prints a SKIP line
/// and runs nothing if this process may not have a namespace or eBPF.
pub fn in_namespace(test: &str, body: impl FnOnce() + Send + 'static) {
    if let Err(why) = millrace_bpf::may_bpf() {
        return skip(test, &why.to_string());
    }
    let thread = std::thread::spawn(move || {
        // SAFETY: a plain call; it changes this thread only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(format!("no network namespace: {}", std::io::Error::last_os_error()));
        }
        body();
        Ok(())
    });
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(why)) => skip(test, &why),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Says that a test did not run. The harness captures what the macros print, so this does not
/// use them.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP {test}: {why}");
}

/// A BPF file system that this thread alone sees, and that goes with it; or why there is none.
pub fn bpf_file_system() -> Result<&'static Path, String> {
    // SAFETY: a plain call; it changes this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(format!("no mount namespace: {}", std::io::Error::last_os_error()));
    }
    for arguments in ["--make-rprivate /", "-t bpf bpf /sys/fs/bpf"] {
        let output = Command::new("mount").args(arguments.split(' ')).output();
        let output = output.map_err(|error| format!("mount {arguments}: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    Ok(Path::new("/sys/fs/bpf"))
}

/// Runs iproute2 in this thread's namespace.
pub fn ip(arguments: &str) {
    run(&format!("ip {arguments}"));
}

/// Runs a program in this thread's namespace.
pub fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes the pair mrbpf0 and mrbpf1, both up, and returns their indices.
pub fn veth_pair() -> (u32, u32) {
    ip("link add mrbpf0 type veth peer name mrbpf1");
    ip("link set mrbpf0 up");
    ip("link set mrbpf1 up");
    (index("mrbpf0"), index("mrbpf1"))
}

pub fn index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the name ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{name:?} exists");
    index
}

/// An AF_XDP socket that is bound to nothing: enough to fill a slot of an XSKMAP.
pub fn xdp_socket() -> OwnedFd {
    // SAFETY: a plain call; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "AF_XDP socket: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Sets the loopback interface up.
pub fn loopback_up() {
    ip("link set lo up");
}
