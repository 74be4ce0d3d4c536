//! Finds out what this process may do with eBPF, by doing it, and says why not.

use std::fmt;

use crate::asm::Assembler;
use crate::error::{Error, errno_text};
use crate::insn::Reg::R0;
use crate::map::{MapKind, TypedMap};
use crate::program::{LoadOptions, XdpProgram, action};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Why eBPF is not to be had, and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The kernel is built without bpf(2), or a filter of system calls hides it.
    NoBpf,
    /// The kernel knows no XDP programs or no AF_XDP maps.
    NoXdp {
        /// The `errno` of the attempt.
        errno: i32,
    },
    /// Capabilities are missing.
    Capabilities {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// All capabilities are there and the kernel refuses all the same: the process is in a user
    /// namespace, or a security module or a filter of system calls forbids it.
    Forbidden {
        /// The `errno` of the attempt.
        errno: i32,
        /// Whether the process is outside the initial user namespace.
        user_namespace: bool,
    },
    /// Anything else.
    Other {
        /// What was tried, and how it failed.
        text: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBpf => f.write_str(
                "this kernel has no bpf(2); it takes CONFIG_BPF_SYSCALL, and a container's \
                 seccomp profile must allow it",
            ),
            Self::NoXdp { errno } => write!(
                f,
                "this kernel has no XDP sockets ({}); it takes CONFIG_XDP_SOCKETS",
                errno_text(*errno)
            ),
            Self::Capabilities { missing } => {
                write!(f, "loading XDP programs needs {}; run as root", missing.join(" and "))
            }
            Self::Forbidden { user_namespace: true, .. } => f.write_str(
                "loading XDP programs needs capabilities of the initial user namespace, and this \
                 process is in another; run as root outside it",
            ),
            Self::Forbidden { errno, .. } => write!(
                f,
                "the kernel refuses bpf(2) though the capabilities are there ({}); look at \
                 seccomp, the security module and RLIMIT_MEMLOCK",
                errno_text(*errno)
            ),
            Self::Other { text } => f.write_str(text),
        }
    }
}

impl std::error::Error for Refusal {}

/// Tells whether this process may make an XSKMAP and load an XDP program, by doing both.
///
/// # Errors
/// [`Refusal`] says why not, and what it takes.
pub fn may_bpf() -> Result<(), Refusal> {
    TypedMap::<u32, u32>::create("mr_probe", MapKind::XskMap, 1)
        .map_err(|error| explain(&error))?;
    load_probe(false).map_err(|error| explain(&error))
}

/// Whether the kernel takes programs for frames of several buffers (Linux 5.18).
///
/// # Errors
/// [`Refusal`] if no program can be loaded at all.
pub fn has_frags() -> Result<bool, Refusal> {
    load_probe(false).map_err(|error| explain(&error))?;
    Ok(load_probe(true).is_ok())
}

fn load_probe(frags: bool) -> Result<(), Error> {
    let mut asm = Assembler::new();
    asm.mov(R0, action::PASS as i32).exit();
    let options = LoadOptions { frags, ..LoadOptions::named("mr_probe") };
    XdpProgram::load(&asm.finish()?, &options)?;
    Ok(())
}

fn explain(error: &Error) -> Refusal {
    match error.errno() {
        Some(libc::ENOSYS) => Refusal::NoBpf,
        Some(errno @ libc::EINVAL) => Refusal::NoXdp { errno },
        Some(errno @ (libc::EPERM | libc::EACCES)) => {
            let missing = missing_capabilities(effective_capabilities());
            if missing.is_empty() {
                Refusal::Forbidden { errno, user_namespace: in_user_namespace() }
            } else {
                Refusal::Capabilities { missing }
            }
        }
        _ => Refusal::Other { text: error.to_string() },
    }
}

/// The effective capabilities of the calling thread, as bits; none if they cannot be read.
fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    parse_effective(&status).unwrap_or(0)
}

fn parse_effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective >> capability & 1 == 1;
    let mut missing = Vec::new();
    // CAP_SYS_ADMIN stands for CAP_BPF, as it did before Linux 5.8.
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    missing
}

/// The initial user namespace maps all ids onto themselves.
fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities(0), ["CAP_BPF", "CAP_NET_ADMIN"]);
        assert_eq!(missing_capabilities(1 << CAP_BPF), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_capabilities(1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN), [""; 0]);
        let text = Refusal::Capabilities { missing: missing_capabilities(0) }.to_string();
        assert!(text.contains("CAP_BPF and CAP_NET_ADMIN"), "{text}");
    }

    #[test]
    fn status_is_parsed() {
        assert_eq!(parse_effective("Name:\tx\nCapEff:\t0000000000001000\n"), Some(1 << 12));
        assert_eq!(parse_effective("Name:\tx\n"), None);
    }

    #[test]
    fn probe_agrees_with_the_capabilities() {
        let missing = missing_capabilities(effective_capabilities());
        match may_bpf() {
            Ok(()) => assert!(missing.is_empty(), "allowed without {missing:?}"),
            Err(Refusal::Capabilities { missing: said }) => assert_eq!(said, missing),
            Err(other) => assert!(missing.is_empty(), "{other}"),
        }
    }
}
