//! A port from its name on the command line, and an arena for it.

use std::net::Ipv4Addr;
use std::str::FromStr;

use millrace_frames::{Arena, ArenaConfig, Hugepages};
use millrace_port::af_packet::{AfPacket, AfPacketConfig};
use millrace_port::af_xdp::{self, AfXdp, RedirectConfig};
use millrace_port::tap::{Tap, TapConfig};
use millrace_port::{Port, Wait as PortWait};

use crate::options::{Failure, Wait};

/// `KIND:INTERFACE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    kind: Kind,
    interface: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    AfXdp,
    AfPacket,
    Tap,
}

impl FromStr for PortName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, interface) =
            text.split_once(':').ok_or("a port is KIND:INTERFACE, such as af_xdp:eth0")?;
        let kind = match kind {
            "af_xdp" => Kind::AfXdp,
            "af_packet" => Kind::AfPacket,
            "tap" => Kind::Tap,
            _ => return Err("port kinds are af_xdp, af_packet and tap"),
        };
        if interface.is_empty() {
            return Err("the interface is missing");
        }
        Ok(PortName { kind, interface: interface.to_owned() })
    }
}

/// An address and the length of its network's prefix, `A/N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of the prefix.
    pub prefix: u8,
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "an address is A.B.C.D/N with N up to 32";
        let (address, prefix) = text.split_once('/').ok_or(FORM)?;
        let prefix: u8 = prefix.parse().map_err(|_| FORM)?;
        if prefix > 32 {
            return Err(FORM);
        }
        Ok(Network { address: address.parse().map_err(|_| FORM)?, prefix })
    }
}

/// Opens a port for one address of ours. On af_xdp all other frames go to Linux.
///
/// # Errors
/// What the port says, with its name.
pub fn open(
    name: &PortName,
    address: Ipv4Addr,
    frames: u32,
) -> Result<(Box<dyn Port>, Arena), Failure> {
    let failed = |error| Failure::of(format!("cannot open {}", name.interface), error);
    let config = ArenaConfig { frames, frame_size: 2048, hugepages: Hugepages::Prefer };
    let mut arena = Arena::new(config).map_err(failed)?;
    let port: Box<dyn Port> = match name.kind {
        Kind::AfXdp => {
            let redirect = RedirectConfig::addresses([address.into()]);
            let config = af_xdp::Config { redirect, ..af_xdp::Config::default() };
            Box::new(AfXdp::open(&name.interface, 0, &config, &mut arena).map_err(failed)?)
        }
        Kind::AfPacket => {
            let config = AfPacketConfig::new(&name.interface);
            Box::new(AfPacket::open(&config).map_err(failed)?)
        }
        Kind::Tap => Box::new(Tap::open(&TapConfig::new(&name.interface)).map_err(failed)?),
    };
    Ok((port, arena))
}

impl From<Wait> for PortWait {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Spin => PortWait::Spin,
            Wait::Sleep => PortWait::Sleep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let name: PortName = "af_xdp:eth0".parse().unwrap();
        assert_eq!(name, PortName { kind: Kind::AfXdp, interface: "eth0".into() });
        for wrong in ["eth0", "xdp:eth0", "tap:"] {
            assert!(wrong.parse::<PortName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_are_read() {
        let network: Network = "192.0.2.2/24".parse().unwrap();
        assert_eq!(network, Network { address: Ipv4Addr::new(192, 0, 2, 2), prefix: 24 });
        for wrong in ["192.0.2.2", "192.0.2/24", "192.0.2.2/33", "192.0.2.2/-1", "::1/64"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let name: PortName = "af_packet:nosuch0".parse().unwrap();
        let error = open(&name, Ipv4Addr::new(192, 0, 2, 2), 64).err().unwrap();
        assert!(error.to_string().contains("nosuch0"), "{error}");
    }
}
