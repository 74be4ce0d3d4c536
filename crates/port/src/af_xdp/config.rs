//! What a user can choose about an AF_XDP port. Plain data.

use std::io;

use millrace_bpf::RedirectConfig;

/// Where XDP runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver; where the driver refuses, after it. [`crate::Capabilities::facts`] tells
    /// which it became, and why.
    #[default]
    Auto,
    /// In the driver, or an error.
    Native,
    /// After the driver, on any interface. On local virtual links a kernel peer then still sends
    /// super-segments, which do not fit a frame: turn them off there
    /// (`ethtool -K PEER tso off gso off`).
    Generic,
}

/// Whether the NIC reads and writes the frames itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Where the driver can. [`crate::Capabilities::facts`] tells.
    #[default]
    Auto,
    /// Always, or an error. It takes native XDP.
    Require,
    /// Never: the kernel copies each packet.
    Never,
}

/// Lets the port's thread run the driver's receive path instead of an interrupt
/// (`SO_PREFER_BUSY_POLL`). The interface should hold interrupts off meanwhile: set its
/// `napi_defer_hard_irqs` and `gro_flush_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// How long one call may poll, in microseconds (`SO_BUSY_POLL`).
    pub microseconds: u32,
    /// Packets that one call may take (`SO_BUSY_POLL_BUDGET`).
    pub budget: u16,
}

/// How an [`super::AfXdp`] is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where XDP runs.
    pub xdp: XdpMode,
    /// Whether the NIC reads and writes the frames itself.
    pub zero_copy: ZeroCopy,
    /// Which frames come to the port; all else goes to Linux.
    pub redirect: RedirectConfig,
    /// Whether the port attaches a program of its own. Without one it gets what another program on
    /// the interface redirects to its socket ([`crate::Port::fd`]), and `redirect` means nothing.
    pub attach: bool,
    /// Entries of the receive ring, a power of two.
    pub rx_ring: u32,
    /// Entries of the transmit ring, a power of two from 32 on.
    pub tx_ring: u32,
    /// Entries of the fill ring, a power of two. So many frames, at most half the arena, lie
    /// ready for packets to come: the burst that is survived, and the memory that is touched.
    pub fill_ring: u32,
    /// Entries of the completion ring, a power of two and at least `tx_ring`.
    pub completion_ring: u32,
    /// Busy polling, or interrupts.
    pub busy_poll: Option<BusyPoll>,
    /// Nothing is received, and so no program is attached: Linux keeps all that comes in.
    pub send_only: bool,
}

impl Default for Config {
    /// Everything on the interface, native and zero-copy where it can be had, rings of 1,024.
    fn default() -> Self {
        Config {
            xdp: XdpMode::Auto,
            zero_copy: ZeroCopy::Auto,
            redirect: RedirectConfig::everything(),
            attach: true,
            rx_ring: 1024,
            tx_ring: 1024,
            fill_ring: 1024,
            completion_ring: 1024,
            busy_poll: None,
            send_only: false,
        }
    }
}

impl Config {
    /// # Errors
    /// `InvalidInput` names the field that is wrong.
    pub(super) fn check(&self) -> io::Result<()> {
        let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        for (name, size) in [
            ("rx_ring", self.rx_ring),
            ("tx_ring", self.tx_ring),
            ("fill_ring", self.fill_ring),
            ("completion_ring", self.completion_ring),
        ] {
            if !size.is_power_of_two() || !(32..=1 << 20).contains(&size) {
                return wrong(format!("{name} is a power of two from 32 to 1048576, not {size}"));
            }
        }
        if self.completion_ring < self.tx_ring {
            return wrong(format!(
                "completion_ring ({}) is smaller than tx_ring ({}): packets could not complete",
                self.completion_ring, self.tx_ring
            ));
        }
        if self.zero_copy == ZeroCopy::Require && self.xdp == XdpMode::Generic {
            return wrong("zero-copy takes native XDP, and generic XDP was asked for".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_named() {
        Config::default().check().unwrap();
        for (config, word) in [
            (Config { rx_ring: 100, ..Config::default() }, "rx_ring"),
            (Config { tx_ring: 16, ..Config::default() }, "tx_ring"),
            (Config { fill_ring: 0, ..Config::default() }, "fill_ring"),
            (Config { completion_ring: 512, ..Config::default() }, "completion_ring"),
            (
                Config { xdp: XdpMode::Generic, zero_copy: ZeroCopy::Require, ..Config::default() },
                "zero-copy",
            ),
        ] {
            let error = config.check().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
