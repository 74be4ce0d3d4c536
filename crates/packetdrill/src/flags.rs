//! What `--so_flags` says: `key=value` pairs, separated by commas.

use core::net::IpAddr;

/// Options of the plug-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    /// `local=`: addresses of the stack, besides those that sockets are bound to.
    pub(crate) local: Vec<IpAddr>,
    /// `remote=`: the address whose route is asked for.
    pub(crate) remote: Option<IpAddr>,
    /// `mtu=`: largest IP packet.
    pub(crate) mtu: u16,
    /// `mss=`: packets with more payload are what a device has put together from segments of so
    /// many bytes; 0: none are.
    pub(crate) mss: u16,
    /// `seed=`: everything that the stack draws at random comes from it.
    pub(crate) seed: u64,
    /// `sysctl=`: folder that stands for `/proc/sys`.
    pub(crate) sysctl: String,
    /// `proc=`: folder in which the kernel's tools find the stack's counters (`PROC_ROOT`).
    pub(crate) proc: Option<String>,
    /// `trace`: every call and every packet is written to the standard error.
    pub(crate) trace: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Flags {
            local: Vec::new(),
            remote: None,
            mtu: 1500,
            mss: 0,
            seed: 1,
            sysctl: "/proc/sys".into(),
            proc: None,
            trace: false,
        }
    }
}

/// Reads the flags.
///
/// # Errors
/// A sentence about the first pair that makes no sense.
pub(crate) fn parse(text: &str) -> Result<Flags, String> {
    let mut flags = Flags::default();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let bad = |what: &str| format!("--so_flags: {key}={value}: {what}");
        let address = || value.parse::<IpAddr>().map_err(|_| bad("not an IP address"));
        match key {
            "local" => flags.local.push(address()?),
            "remote" => flags.remote = Some(address()?),
            "mtu" => flags.mtu = value.parse().map_err(|_| bad("not a size in bytes"))?,
            "mss" => flags.mss = value.parse().map_err(|_| bad("not a size in bytes"))?,
            "seed" => flags.seed = value.parse().map_err(|_| bad("not a number"))?,
            "sysctl" => flags.sysctl = value.into(),
            "proc" => flags.proc = Some(value.into()),
            "trace" => flags.trace = true,
            _ => {
                return Err(format!(
                    "--so_flags: {key} is unknown; known are local, remote, mtu, mss, seed, \
                     sysctl, proc, trace"
                ));
            }
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read() {
        let flags =
            parse("local=192.0.2.1,local=2001:db8::1,mtu=1520,mss=1000,proc=/x,seed=7,trace")
                .unwrap();
        assert_eq!(flags.local.len(), 2);
        assert_eq!((flags.mtu, flags.mss, flags.seed, flags.trace), (1520, 1000, 7, true));
        assert_eq!(flags.proc.as_deref(), Some("/x"));
        assert_eq!(parse("").unwrap(), Flags::default());
    }

    #[test]
    fn nonsense_is_named() {
        assert!(parse("local=here").unwrap_err().contains("local=here"));
        assert!(parse("colour=red").unwrap_err().contains("colour"));
    }
}
