//! The kernel's settings, as a script left them in its network namespace, and what they mean to
//! the stack. What is not in [`Sysctl::configure`] has no meaning here.

use core::time::Duration;
use std::io;
use std::path::Path;

use millrace_stack::{Config, Ecn, MtuProbing};

use crate::fast_open::bits;

/// The window of a new connection, whatever `tcp_rmem` allows, bytes.
const FIRST_WINDOW: u64 = 1 << 16;

/// The settings that are looked at (`Documentation/networking/ip-sysctl.rst` of Linux, which is
/// also where the defaults come from). `None`: the kernel does not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sysctl {
    sack: Option<u64>,
    dsack: Option<u64>,
    timestamps: Option<u64>,
    window_scaling: Option<u64>,
    recovery: Option<u64>,
    early_retrans: Option<u64>,
    mtu_probing: Option<u64>,
    base_mss: Option<u64>,
    frto: Option<u64>,
    syn_retries: Option<u64>,
    synack_retries: Option<u64>,
    retries2: Option<u64>,
    fin_timeout: Option<u64>,
    min_tso_segs: Option<u64>,
    tso_win_divisor: Option<u64>,
    ecn: Option<u64>,
    slow_start_after_idle: Option<u64>,
    fastopen: Option<u64>,
    fastopen_key: Option<String>,
    keepalive_time: Option<u64>,
    keepalive_intvl: Option<u64>,
    keepalive_probes: Option<u64>,
    notsent_lowat: Option<u64>,
    congestion_control: Option<String>,
    /// Least, first and greatest receive buffer.
    pub(crate) rmem: Option<[u64; 3]>,
    /// Least, first and greatest send buffer.
    pub(crate) wmem: Option<[u64; 3]>,
}

impl Sysctl {
    /// Reads the settings below a folder like `/proc/sys`.
    ///
    /// # Errors
    /// A sentence about the first one that cannot be read or makes no sense.
    pub(crate) fn read(root: &Path) -> Result<Sysctl, String> {
        let text = |name: &str| {
            let path = root.join("net/ipv4").join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text.trim().to_owned())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("cannot read {}: {error}", path.display())),
            }
        };
        let numbers = |name: &str| {
            let Some(text) = text(name)? else { return Ok(None) };
            text.split_whitespace()
                .map(parse_number)
                .collect::<Option<Vec<u64>>>()
                .filter(|numbers| !numbers.is_empty())
                .map(Some)
                .ok_or_else(|| format!("net.ipv4.{name} is {text:?}, which is no number"))
        };
        let number = |name: &str| numbers(name).map(|all| all.and_then(|all| all.first().copied()));
        let three = |name: &str| {
            numbers(name).map(|all| all.and_then(|all| <[u64; 3]>::try_from(all).ok()))
        };
        Ok(Sysctl {
            sack: number("tcp_sack")?,
            dsack: number("tcp_dsack")?,
            timestamps: number("tcp_timestamps")?,
            window_scaling: number("tcp_window_scaling")?,
            recovery: number("tcp_recovery")?,
            early_retrans: number("tcp_early_retrans")?,
            mtu_probing: number("tcp_mtu_probing")?,
            base_mss: number("tcp_base_mss")?,
            frto: number("tcp_frto")?,
            syn_retries: number("tcp_syn_retries")?,
            synack_retries: number("tcp_synack_retries")?,
            retries2: number("tcp_retries2")?,
            fin_timeout: number("tcp_fin_timeout")?,
            min_tso_segs: number("tcp_min_tso_segs")?,
            tso_win_divisor: number("tcp_tso_win_divisor")?,
            ecn: number("tcp_ecn")?,
            slow_start_after_idle: number("tcp_slow_start_after_idle")?,
            fastopen: number("tcp_fastopen")?,
            fastopen_key: text("tcp_fastopen_key")?,
            keepalive_time: number("tcp_keepalive_time")?,
            keepalive_intvl: number("tcp_keepalive_intvl")?,
            keepalive_probes: number("tcp_keepalive_probes")?,
            notsent_lowat: number("tcp_notsent_lowat")?,
            congestion_control: text("tcp_congestion_control")?,
            rmem: three("tcp_rmem")?,
            wmem: three("tcp_wmem")?,
        })
    }

    /// `tcp_notsent_lowat`.
    pub(crate) fn lowat(&self) -> u32 {
        self.notsent_lowat.map_or(u32::MAX, |bytes| u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// A bit of `tcp_fastopen`, whose default is 1.
    pub(crate) fn fast_open(&self, bit: u64) -> bool {
        self.fastopen.unwrap_or(bits::CLIENT) & bit != 0
    }

    /// `tcp_min_tso_segs`.
    pub(crate) fn least_segments(&self) -> u64 {
        self.min_tso_segs.unwrap_or(2)
    }

    /// Carries over what has a meaning for the stack.
    pub(crate) fn configure(&self, config: &mut Config) {
        let on = |value: Option<u64>, default: bool| value.map_or(default, |value| value != 0);
        let tcp = &mut config.tcp;
        tcp.sack = on(self.sack, tcp.sack);
        tcp.dsack = on(self.dsack, tcp.dsack);
        tcp.timestamps = on(self.timestamps, tcp.timestamps);
        tcp.window_scaling = on(self.window_scaling, tcp.window_scaling);
        tcp.frto = on(self.frto, tcp.frto);
        tcp.slow_start_after_idle = on(self.slow_start_after_idle, tcp.slow_start_after_idle);
        // Bit 0 of tcp_recovery: RACK.
        tcp.rack = self.recovery.map_or(tcp.rack, |value| value & 1 != 0);
        // 3 and 4 of tcp_early_retrans: tail loss probes.
        tcp.tail_loss_probe =
            self.early_retrans.map_or(tcp.tail_loss_probe, |value| matches!(value, 3 | 4));
        let small = |value: Option<u64>, default: u8| {
            value.map_or(default, |value| u8::try_from(value).unwrap_or(u8::MAX))
        };
        config.syn_retries = small(self.syn_retries, config.syn_retries);
        config.syn_ack_retries = small(self.synack_retries, config.syn_ack_retries);
        config.retries = small(self.retries2, config.retries);
        config.ecn = match self.ecn {
            None => config.ecn,
            Some(0) => Ecn::Off,
            Some(1) => Ecn::On,
            Some(3) => Ecn::Accurate,
            Some(_) => Ecn::Passive,
        };
        config.fast_open.client_without_cookie = self.fast_open(bits::CLIENT_WITHOUT_COOKIE);
        config.fast_open.server_without_cookie = self.fast_open(bits::SERVER_WITHOUT_COOKIE);
        if let Some(text) = &self.fastopen_key {
            config.fast_open.keys = text.split(',').filter_map(parse_key).collect();
        }
        config.mtu_probing = match self.mtu_probing {
            None => config.mtu_probing,
            Some(0) => MtuProbing::Off,
            Some(1) => MtuProbing::BlackHole,
            Some(_) => MtuProbing::Always,
        };
        if let Some(bytes) = self.base_mss {
            config.base_mss = u16::try_from(bytes).unwrap_or(u16::MAX);
        }
        config.tso_win_divisor = small(self.tso_win_divisor, config.tso_win_divisor);
        config.least_train = small(self.min_tso_segs, config.least_train);
        let seconds = |value: Option<u64>, default| value.map_or(default, Duration::from_secs);
        config.fin_wait_2 = seconds(self.fin_timeout, config.fin_wait_2);
        config.keepalive_idle = seconds(self.keepalive_time, config.keepalive_idle);
        config.keepalive_interval = seconds(self.keepalive_intvl, config.keepalive_interval);
        config.keepalive_count = small(self.keepalive_probes, config.keepalive_count);
        if let Some(algorithm) = self.congestion_control.as_ref().and_then(|n| n.parse().ok()) {
            config.congestion = algorithm;
        }
        let bytes = |value: u64| value.clamp(2048, 1 << 30) as u32;
        if let Some([_, first, most]) = self.rmem {
            // Linux never begins with more than a window that needs no scaling.
            config.receive_buffer = bytes(first.min(FIRST_WINDOW));
            config.receive_buffer_max = bytes(most);
        }
        // What a socket takes is counted as Linux counts it, before the stack is asked.
        config.send_buffer = 1 << 30;
    }
}

/// Four words in hexadecimal, each in the byte order of x86.
fn parse_key(text: &str) -> Option<[u8; 16]> {
    let words: Option<Vec<[u8; 4]>> = text
        .split('-')
        .map(|word| u32::from_str_radix(word, 16).ok().map(u32::to_le_bytes))
        .collect();
    words?.concat().try_into().ok()
}

/// A number in decimal, or in hexadecimal after `0x`: the kernel takes both.
fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A folder with some settings, removed in the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, settings: &[(&str, &str)]) -> Folder {
            let root =
                std::env::temp_dir().join(format!("millrace-sysctl-{name}-{}", std::process::id()));
            let folder = root.join("net/ipv4");
            std::fs::create_dir_all(&folder).unwrap();
            for (name, value) in settings {
                std::fs::write(folder.join(name), value).unwrap();
            }
            Folder(root)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn settings_become_configuration() {
        let folder = Folder::new(
            "some",
            &[
                ("tcp_sack", "0\n"),
                ("tcp_recovery", "0x1\n"),
                ("tcp_early_retrans", "0\n"),
                ("tcp_rmem", "4096\t540000\t15728640\n"),
                ("tcp_retries2", "999"),
            ],
        );
        let mut config = Config::default();
        Sysctl::read(&folder.0).unwrap().configure(&mut config);
        assert!(!config.tcp.sack && config.tcp.rack && !config.tcp.tail_loss_probe);
        assert_eq!((config.receive_buffer, config.receive_buffer_max), (65_536, 15_728_640));
        assert_eq!(config.retries, 255);
    }

    #[test]
    fn what_the_kernel_lacks_changes_nothing() {
        let folder = Folder::new("none", &[]);
        let sysctl = Sysctl::read(&folder.0).unwrap();
        assert_eq!(sysctl, Sysctl::default());
        let mut config = Config::default();
        sysctl.configure(&mut config);
        let unchanged = Config { send_buffer: config.send_buffer, ..Config::default() };
        assert_eq!(format!("{config:?}"), format!("{unchanged:?}"));
    }

    #[test]
    fn keys_are_four_words() {
        assert_eq!(
            parse_key("04030201-08070605-0c0b0a09-100f0e0d"),
            Some([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
        );
        assert_eq!(parse_key("1-2-3"), None);
    }

    #[test]
    fn nonsense_is_named() {
        let folder = Folder::new("bad", &[("tcp_sack", "yes")]);
        assert!(Sysctl::read(&folder.0).unwrap_err().contains("tcp_sack"));
    }
}
