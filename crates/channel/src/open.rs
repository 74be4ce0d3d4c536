//! A channel from a port's name, as people write it ([`PortName`]). An interface's name alone lets the
//! machine choose.

use std::io;

use millrace_frames::Arena;
use millrace_port::af_packet::{AfPacket, AfPacketConfig};
use millrace_port::af_xdp::{self, RedirectConfig, WithGroups};
use millrace_port::interface::Interface;
use millrace_port::memory::{self, WireConfig};
use millrace_port::name::{PortName, SEND_ONLY};
use millrace_port::pcap::PcapPort;
use millrace_port::tap::{Tap, TapConfig};
use millrace_port::{LinuxAddresses, Port};

use crate::{Address, Channel, Config};

/// An open port, its arena, and why it is of this kind.
struct Opened {
    port: Box<dyn Port>,
    arena: Arena,
    chosen: Option<String>,
}

impl Channel {
    /// Opens a port by its name (`af_xdp:eth1`, `tap:mill0`, `memory:wire`, or `eth1` alone) and
    /// makes a channel over it. An AF_XDP port takes the frames of the channel's addresses, has copies
    /// of those to groups and to all hosts, and leaves all else to Linux. An interface's name alone
    /// becomes AF_XDP, or AF_PACKET where that cannot be had; a TAP interface becomes a TAP port.
    /// [`Channel::facts`] tells what was chosen and why. A TAP interface is made only when its kind is
    /// named.
    ///
    /// # Errors
    /// `InvalidInput` for a name or a configuration that makes no sense, `AddrInUse` when Linux has
    /// one of the addresses, `NotFound` for an interface that is not there; else what the port says.
    pub fn open(name: &str, config: Config) -> io::Result<Channel> {
        let name: PortName = name.parse()?;
        Channel::open_port(&name, config)
    }

    /// As [`Channel::open`].
    ///
    /// # Errors
    /// As [`Channel::open`].
    pub fn open_port(name: &PortName, mut config: Config) -> io::Result<Channel> {
        config.check()?;
        let kind = match name.kind {
            Some(kind) => kind,
            None => best_kind(&name.name)?,
        };
        if kind == SEND_ONLY {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name} only sends, and a stack has to receive; use af_xdp:{}", name.name),
            ));
        }
        if kind == "pcap" {
            // A file takes whatever is sent; what is sent should look like a network's.
            config.mtu.get_or_insert(1500);
        }
        let linux = match kind {
            "memory" | "pcap" => None,
            _ => Some(LinuxAddresses::new()?),
        };
        if let Some(linux) = &linux {
            let mut own = config.addresses.iter();
            own.try_for_each(|address| refuse_taken(linux, address, &name.name))?;
        }
        let opened = match (name.kind, kind) {
            (None, "af_xdp") => open_best(name, &config)?,
            _ => open_kind(kind, name, &config)?,
        };
        let mut channel = Channel::new(opened.port, opened.arena, &config)?;
        channel.linux = linux;
        if let Some(chosen) = opened.chosen {
            channel.facts.push(("chosen", chosen));
            channel.show_facts();
        }
        Ok(channel)
    }
}

/// The kind that suits an interface that is there.
fn best_kind(name: &str) -> io::Result<&'static str> {
    match Interface::find(name) {
        Ok(interface) if interface.driver == "tun" => Ok("tap"),
        Ok(_) => Ok("af_xdp"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{error}; tap:{name} would make it"),
        )),
        Err(error) => Err(error),
    }
}

fn open_best(name: &PortName, config: &Config) -> io::Result<Opened> {
    match open_kind("af_xdp", name, config) {
        Ok(mut opened) => {
            opened.chosen = Some("af_xdp, the best for this interface".to_owned());
            Ok(opened)
        }
        // These would be the same on the other kind.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NetworkDown | io::ErrorKind::NotFound) =>
        {
            Err(error)
        }
        Err(refused) => {
            let mut opened = open_kind("af_packet", name, config).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("neither AF_XDP ({refused}) nor AF_PACKET ({error})"),
                )
            })?;
            opened.chosen = Some(format!("af_packet, because: {refused}"));
            Ok(opened)
        }
    }
}

fn open_kind(kind: &str, name: &PortName, config: &Config) -> io::Result<Opened> {
    let with_arena = |port: Box<dyn Port>, config: &Config| {
        let arena = config.arena(port.capabilities().mtu)?;
        Ok(Opened { port, arena, chosen: None })
    };
    match kind {
        "af_xdp" => {
            let interface = Interface::find(&name.name)?;
            if name.queue.is_none() && interface.rx_queues > 1 {
                return Err(several_queues(&interface));
            }
            let mut arena = config.arena(interface.mtu)?;
            // Those that come later the channel tells.
            let own = config.addresses.iter().map(|own| own.ip);
            let xdp = af_xdp::Config {
                redirect: RedirectConfig::addresses(own),
                ..af_xdp::Config::default()
            };
            let queue = name.queue.unwrap_or(0);
            let port = WithGroups::open(&name.name, queue, &xdp, config.mac, &mut arena)?;
            Ok(Opened { port: Box::new(port), arena, chosen: None })
        }
        "af_packet" => {
            let packet = AfPacketConfig {
                queue: name.queue.unwrap_or(0),
                queues: name.queues,
                mac: config.mac,
                claim: true,
                ..AfPacketConfig::new(&name.name)
            };
            with_arena(Box::new(AfPacket::open(&packet)?), config)
        }
        "tap" => {
            // An interface that is there keeps its MTU unless another is asked for.
            let there = Interface::find(&name.name).map_or(1500, |interface| interface.mtu);
            let tap = TapConfig {
                queue: name.queue.unwrap_or(0),
                queues: name.queues,
                mac: config.mac,
                mtu: config.mtu.map_or(there, u32::from),
                ..TapConfig::new(&name.name)
            };
            with_arena(Box::new(Tap::open(&tap)?), config)
        }
        "memory" => {
            let wire = WireConfig::by_name(config.mtu.unwrap_or(1500).into());
            with_arena(Box::new(memory::join(&name.name, wire)?), config)
        }
        _ => {
            let (read, write) = name.files();
            let port = Box::new(PcapPort::open(read, write)?);
            let arena = config.arena(config.mtu.unwrap_or(1500).into())?;
            Ok(Opened { port, arena, chosen: None })
        }
    }
}

/// A socket of AF_XDP sees one queue; the frames of the others would go to Linux without a word,
/// and connections whose hash leads there would never come about.
fn several_queues(interface: &Interface) -> io::Error {
    let Interface { name, rx_queues, .. } = interface;
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "{name} spreads what comes in over {rx_queues} queues, and an AF_XDP channel has one; \
             give the interface one (ethtool -L {name} combined 1), name the queue that you steer \
             to (af_xdp:{name}#0), or use af_packet:{name}"
        ),
    )
}

/// Linux answers for its own addresses, on whatever interface they are; two that answer for one
/// would break each other's connections.
pub(crate) fn refuse_taken(
    linux: &LinuxAddresses,
    address: &Address,
    interface: &str,
) -> io::Result<()> {
    let ip = address.ip;
    if !linux.have(ip)? {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        format!(
            "the address {ip} is taken: Linux has it; give the channel on {interface} another \
             address of that network, or take it from Linux: ip address del {address} dev ..."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_not_made_by_guess() {
        let config = Config::new("192.0.2.2/24".parse().unwrap());
        let error = Channel::open("nosuch0", config).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("tap:nosuch0"), "{error}");
    }
}
