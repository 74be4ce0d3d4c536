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
    /// `seed=`: everything that the stack draws at random comes from it.
    pub(crate) seed: u64,
    /// `sysctl=`: folder that stands for `/proc/sys`.
    pub(crate) sysctl: String,
    /// `trace`: every call and every packet is written to the standard error.
    pub(crate) trace: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Flags {
            local: Vec::new(),
            remote: None,
            mtu: 1500,
            seed: 1,
            sysctl: "/proc/sys".into(),
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
            "seed" => flags.seed = value.parse().map_err(|_| bad("not a number"))?,
            "sysctl" => flags.sysctl = value.into(),
            "trace" => flags.trace = true,
            _ => {
                return Err(format!(
                    "--so_flags: {key} is unknown; known are local, remote, mtu, seed, sysctl, trace"
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
        let flags = parse("local=192.0.2.1,local=2001:db8::1,mtu=1520,seed=7,trace").unwrap();
        assert_eq!(flags.local.len(), 2);
        assert_eq!((flags.mtu, flags.seed, flags.trace), (1520, 7, true));
        assert_eq!(parse("").unwrap(), Flags::default());
    }

    #[test]
    fn nonsense_is_named() {
        assert!(parse("local=here").unwrap_err().contains("local=here"));
        assert!(parse("colour=red").unwrap_err().contains("colour"));
    }
}
