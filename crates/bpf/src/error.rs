//! What can go wrong, in words that say what to do about it.

use std::fmt;
use std::path::PathBuf;

use crate::asm::AssembleError;
use crate::link::Mode;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation. Its text names the object, the cause and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    System {
        /// What was tried, on which object.
        what: String,
        /// The `errno` of the call.
        errno: i32,
    },
    /// The verifier refused a program.
    Verifier {
        /// The program's name.
        program: String,
        /// The `errno` of the load.
        errno: i32,
        /// The verifier's whole log.
        log: String,
    },
    /// The instructions do not make a program.
    Assemble(AssembleError),
    /// An XDP program is attached to the interface already.
    Occupied {
        /// The interface's name.
        interface: String,
        /// The kernel's id of the program that is attached, where it could be found.
        program_id: Option<u32>,
        /// Its name, where it has one.
        program_name: Option<String>,
        /// Where it runs, where that could be found.
        mode: Option<Mode>,
        /// The `errno` of the attach.
        errno: i32,
    },
    /// The kernel or the driver refused to attach a program.
    Attach {
        /// The interface's name.
        interface: String,
        /// The mode that was asked for.
        mode: Mode,
        /// The `errno` of the attach.
        errno: i32,
    },
    /// A name in a BPF file system could not be made or opened.
    Pin {
        /// What was tried, with which kind of object.
        action: String,
        /// The name.
        path: PathBuf,
        /// The `errno` of the call.
        errno: i32,
    },
    /// An argument is outside what the call accepts.
    Argument(String),
}

impl Error {
    pub(crate) fn system(what: impl Into<String>, errno: i32) -> Self {
        Self::System { what: what.into(), errno }
    }

    /// The `errno` behind the error, where a system call was its cause.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { errno, .. }
            | Self::Verifier { errno, .. }
            | Self::Occupied { errno, .. }
            | Self::Attach { errno, .. }
            | Self::Pin { errno, .. } => Some(*errno),
            Self::Assemble(_) | Self::Argument(_) => None,
        }
    }
}

/// The kernel's text for an `errno`.
pub(crate) fn errno_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { what, errno } => {
                write!(f, "{what}: {}", errno_text(*errno))?;
                match *errno {
                    libc::EPERM => f.write_str(
                        "; it needs CAP_BPF and CAP_NET_ADMIN in the initial user namespace \
                         (run as root), and before Linux 5.11 a larger RLIMIT_MEMLOCK",
                    ),
                    libc::ENOSYS => f.write_str("; this kernel is built without bpf(2)"),
                    _ => Ok(()),
                }
            }
            Self::Verifier { program, errno, log } => write!(
                f,
                "the verifier refused program {program}: {}\n{}",
                errno_text(*errno),
                log.trim_end()
            ),
            Self::Assemble(error) => error.fmt(f),
            Self::Occupied { interface, program_id, program_name, mode, .. } => {
                write!(f, "{interface} has an XDP program already")?;
                if let Some(id) = program_id {
                    write!(f, ": id {id}")?;
                }
                if let Some(name) = program_name {
                    write!(f, ", name {name}")?;
                    if name.starts_with("xdp_dispatcher") {
                        f.write_str(" (libxdp's dispatcher)")?;
                    }
                }
                if let Some(mode) = mode {
                    write!(f, ", in {mode} mode")?;
                }
                f.write_str(
                    "; stop the program that attached it, or detach it with `ip link set ",
                )?;
                write!(f, "dev {interface} xdp off` if no link holds it")
            }
            Self::Attach { interface, mode, errno } => {
                write!(f, "cannot attach to {interface} in {mode} mode: {}", errno_text(*errno))?;
                match (*errno, mode) {
                    (libc::EOPNOTSUPP, Mode::Native) => {
                        f.write_str("; its driver has no native XDP, use the generic mode")
                    }
                    (libc::ERANGE, _) => f.write_str(
                        "; the MTU is too large for one XDP buffer (on veth the peer's MTU \
                         counts), lower it or use the generic mode",
                    ),
                    (libc::ENOSPC, Mode::Native) => f.write_str(
                        "; the driver lacks queues for XDP (a veth needs as many receive queues \
                         as its peer has transmit queues), see `ethtool -l`",
                    ),
                    (libc::EINVAL, Mode::Native) => f.write_str(
                        "; the driver refuses XDP with its present settings (often the MTU, \
                         LRO or the number of queues), change them or use the generic mode",
                    ),
                    (libc::ENOTCONN, _) => f.write_str("; this veth has no peer"),
                    (libc::ENODEV, _) => f.write_str("; there is no such interface"),
                    (libc::EPERM, _) => f.write_str("; it needs CAP_NET_ADMIN"),
                    _ => Ok(()),
                }
            }
            Self::Pin { action, path, errno } => {
                write!(f, "{action} {}: {}", path.display(), errno_text(*errno))?;
                match *errno {
                    libc::EPERM | libc::EACCES | libc::EINVAL => f.write_str(
                        "; the path must lie in a BPF file system \
                         (mount -t bpf bpf /sys/fs/bpf), and it needs CAP_BPF",
                    ),
                    libc::EEXIST => f.write_str("; remove the file, or take another name"),
                    libc::ENOENT => f.write_str("; there is no such file or directory"),
                    _ => Ok(()),
                }
            }
            Self::Argument(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl From<AssembleError> for Error {
    fn from(error: AssembleError) -> Self {
        Self::Assemble(error)
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.errno() {
            Some(errno) => std::io::Error::from_raw_os_error(errno).kind(),
            None => std::io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_the_occupant() {
        let error = Error::Occupied {
            interface: "mill0".into(),
            program_id: Some(17),
            program_name: Some("xdp_dispatcher".into()),
            mode: Some(Mode::Native),
            errno: libc::EBUSY,
        };
        let text = error.to_string();
        assert!(text.contains("mill0") && text.contains("id 17"), "{text}");
        assert!(text.contains("xdp_dispatcher") && text.contains("libxdp"), "{text}");
        assert!(text.contains("native mode"), "{text}");
    }

    #[test]
    fn io_error_keeps_kind_and_text() {
        let error = std::io::Error::from(Error::system("load", libc::EPERM));
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("CAP_BPF"));
    }
}
