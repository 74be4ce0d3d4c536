//! Where processes show themselves, and whose files those are.
//!
//! The folder is `MILLRACE_RUN_DIR`, or `/run/millrace` for root, `$XDG_RUNTIME_DIR/millrace` for
//! others, `/tmp/millrace-UID` without that. Only its owner may enter it. A file's name begins with
//! the [`Identity`] of the process that made it, so whoever comes next can tell what a killed process
//! left behind, and removes it.

use core::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Environment variable that names the folder.
pub const VARIABLE: &str = "MILLRACE_RUN_DIR";

/// Entries of the folder that are looked at for what the dead left.
const MOST_ENTRIES: usize = 4096;

/// Which process: its number alone is given to another one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its number, in its own PID namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`, see proc(5)).
    pub start: u64,
    /// The inode of its PID namespace: in another one the number means another process.
    pub namespace: u64,
}

impl Identity {
    /// This process.
    ///
    /// # Errors
    /// When /proc does not show it.
    pub fn own() -> io::Result<Identity> {
        let pid = std::process::id();
        let start = start_time(pid)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("/proc does not show process {pid}"))
        })?;
        Ok(Identity { pid, start, namespace: pid_namespace()? })
    }

    /// The identity at the beginning of a file's name, and what comes after it.
    pub fn parse(name: &str) -> Option<(Identity, &str)> {
        let (pid, rest) = name.split_once('-')?;
        let (start, rest) = rest.split_once('-')?;
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (namespace, rest) = rest.split_at(end);
        let identity = Identity {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
            namespace: namespace.parse().ok()?,
        };
        Some((identity, rest))
    }

    /// Whether the process is gone; of one in another PID namespace nobody here can tell.
    fn is_gone(&self, own: &Identity) -> bool {
        self.namespace == own.namespace
            && matches!(start_time(self.pid), Ok(start) if start != Some(self.start))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.pid, self.start, self.namespace)
    }
}

fn start_time(pid: u32) -> io::Result<Option<u64>> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        // ESRCH: it ended between the two system calls.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // The second field is the program's name in brackets and may hold anything.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    match fields.next() {
        None | Some("Z" | "X") => Ok(None),
        Some(_) => Ok(fields.nth(18).and_then(|start| start.parse().ok())),
    }
}

fn pid_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// The folder of this process's user, made if it is not there.
///
/// # Errors
/// `PermissionDenied` for a folder that others may write to or that is not the user's, else what
/// mkdir(2) says, with the folder's name.
pub fn open() -> io::Result<PathBuf> {
    let path = path();
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(named(error)),
        _ => {}
    }
    // Not what a link leads to: the folder may be in /tmp, where anybody may have made it.
    let found = fs::symlink_metadata(&path).map_err(named)?;
    let denied = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if !found.is_dir() {
        return denied(format!("{} is no folder", path.display()));
    }
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        return denied(format!(
            "{} belongs to user {}, not to user {user}; name another in {VARIABLE}",
            path.display(),
            found.uid()
        ));
    }
    if found.mode() & 0o077 != 0 {
        return denied(format!(
            "others may enter {} (mode {:o}); chmod 700 it, or name another in {VARIABLE}",
            path.display(),
            found.mode() & 0o7777
        ));
    }
    Ok(path)
}

fn path() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = named(VARIABLE) {
        return path.into();
    }
    let user = rustix::process::geteuid();
    if user.is_root() {
        return "/run/millrace".into();
    }
    match named("XDG_RUNTIME_DIR") {
        Some(path) => Path::new(&path).join("millrace"),
        None => format!("/tmp/millrace-{}", user.as_raw()).into(),
    }
}

/// Removes what processes left that are gone. What cannot be removed stays for the next.
pub fn sweep(folder: &Path, own: &Identity) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().take(MOST_ENTRIES) {
        let name = entry.file_name();
        let found = name.to_str().and_then(Identity::parse);
        let ours =
            |rest: &str| rest == ".sock" || (rest.starts_with('.') && rest.ends_with(".page"));
        if found.is_some_and(|(identity, rest)| ours(rest) && identity.is_gone(own)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_process() {
        let own = Identity::own().unwrap();
        assert_eq!(own.pid, std::process::id());
        let name = format!("{own}.3.page");
        assert_eq!(Identity::parse(&name), Some((own, ".3.page")));
        for name in ["", "12", "12-3", "a-1-2.sock", "1-2-", "1-2-3", "99999999999-1-2.sock"] {
            assert_eq!(Identity::parse(name), None, "{name}");
        }
    }

    #[test]
    fn only_what_the_dead_left_is_removed() {
        let own = Identity::own().unwrap();
        let folder = std::env::temp_dir().join(format!("mr-sweep-{own}"));
        fs::create_dir(&folder).unwrap();
        let reused = Identity { start: own.start + 1, ..own };
        let foreign = Identity { namespace: own.namespace + 1, start: 1, pid: 1 };
        let names = [
            (format!("{own}.sock"), true),
            (format!("{reused}.sock"), false),
            (format!("{reused}.0.page"), false),
            (format!("{reused}.txt"), true),
            (format!("{foreign}.0.page"), true),
            ("notes".to_owned(), true),
        ];
        for (name, _) in &names {
            fs::write(folder.join(name), b"").unwrap();
        }
        sweep(&folder, &own);
        for (name, stays) in &names {
            assert_eq!(folder.join(name).exists(), *stays, "{name}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
