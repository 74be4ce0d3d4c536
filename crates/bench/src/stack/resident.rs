//! Resident memory of this process.

use std::{fs, io};

/// Bytes in main memory now (`VmRSS` in proc_pid_status(5)).
///
/// # Errors
/// When /proc is not there or not what it should be.
pub fn bytes() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    kibibytes(&status)
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| io::Error::other("no VmRSS in /proc/self/status"))
}

fn kibibytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_written_is_resident() {
        let memory = vec![1u8; 256 << 20];
        assert!(bytes().unwrap() >= 256 << 20);
        assert_eq!(memory.last(), Some(&1));
    }

    #[test]
    fn the_field_is_found() {
        assert_eq!(kibibytes("VmHWM:\t  99 kB\nVmRSS:\t    1234 kB\n"), Some(1234));
        assert_eq!(kibibytes("VmHWM:\t  99 kB\n"), None);
    }
}
