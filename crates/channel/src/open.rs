//! A channel from a port's name, as people write it.
//!
//! `KIND:NAME`, `KIND:NAME#QUEUE` or, for the kinds whose queues are made together,
//! `KIND:NAME#QUEUE/QUEUES`. An interface's name alone lets the machine choose.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;
use std::io;
use std::net::UdpSocket;
use std::path::Path;

use millrace_frames::Arena;
use millrace_port::Port;
use millrace_port::af_packet::{AfPacket, AfPacketConfig};
use millrace_port::af_xdp::{self, AfXdp, RedirectConfig};
use millrace_port::interface::Interface;
use millrace_port::memory::{self, WireConfig};
use millrace_port::pcap::PcapPort;
use millrace_port::tap::{Tap, TapConfig};

use crate::{Address, Channel, Config};

/// The kinds of port, the best first.
pub const KINDS: [&str; 5] = ["af_xdp", "af_packet", "tap", "memory", "pcap"];

/// Payload bytes of a super-segment on a memory wire that is opened by name.
const MEMORY_GSO: u32 = 65_160;
/// Packets on such a wire.
const MEMORY_QUEUE: usize = 4096;

/// What a port is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    /// One of [`KINDS`]; `None`: the best that this machine allows.
    pub kind: Option<&'static str>,
    /// The interface, the wire's name or the file: `pcap:READ`, `pcap:READ,WRITE`, `pcap:,WRITE`.
    pub name: String,
    /// Which queue, from 0; `None`: the interface's only one.
    pub queue: Option<u32>,
    /// Of how many queues; for AF_XDP the interface has them already.
    pub queues: u32,
}

impl FromStr for PortName {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<PortName> {
        let wrong = |why: &str| {
            let text = format!("{text:?} is no port: {why}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) => match KINDS.iter().find(|known| **known == kind) {
                Some(kind) => (Some(*kind), rest),
                None => return wrong(&format!("the kinds are {}", KINDS.join(", "))),
            },
            None => (None, text),
        };
        let (name, queue, queues) = match rest.rsplit_once('#') {
            // A file's name may have the sign in it.
            Some((name, queues)) if kind != Some("pcap") => {
                let (queue, queues) = queues.split_once('/').unwrap_or((queues, ""));
                let Ok(queue) = queue.parse::<u32>() else {
                    return wrong("write the queue as KIND:NAME#QUEUE, counted from 0");
                };
                match queues {
                    "" => (name, Some(queue), queue.saturating_add(1)),
                    queues => match queues.parse() {
                        Ok(queues) if queue < queues => (name, Some(queue), queues),
                        _ => return wrong("write the queue as KIND:NAME#QUEUE/QUEUES"),
                    },
                }
            }
            _ => (rest, None, 1),
        };
        if name.is_empty() {
            return wrong("a name is missing; write it as af_xdp:eth1");
        }
        Ok(PortName { kind, name: name.to_owned(), queue, queues })
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = self.kind {
            write!(f, "{kind}:")?;
        }
        f.write_str(&self.name)?;
        match self.queue {
            None => Ok(()),
            Some(queue) => write!(f, "#{queue}"),
        }
    }
}

/// An open port, its arena, and why it is of this kind.
struct Opened {
    port: Box<dyn Port>,
    arena: Arena,
    chosen: Option<String>,
}

impl Channel {
    /// Opens a port by its name (`af_xdp:eth1`, `tap:mill0`, `memory:wire`, or `eth1` alone) and
    /// makes a channel over it. An AF_XDP port takes the frames of the channel's addresses and
    /// leaves all else to Linux; with DHCP it takes all frames of its queue. An interface's name alone becomes AF_XDP, or AF_PACKET where that
    /// cannot be had; a TAP interface becomes a TAP port. [`Channel::facts`] tells what was chosen
    /// and why. A TAP interface is made only when its kind is named.
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
        if kind == "pcap" {
            // A file takes whatever is sent; what is sent should look like a network's.
            config.mtu.get_or_insert(1500);
        }
        if !matches!(kind, "memory" | "pcap") {
            for address in &config.addresses {
                refuse_taken(address, &name.name)?;
            }
        }
        let opened = match (name.kind, kind) {
            (None, "af_xdp") => open_best(name, &mut config)?,
            _ => open_kind(kind, name, &mut config)?,
        };
        let mut channel = Channel::new(opened.port, opened.arena, &config)?;
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

fn open_best(name: &PortName, config: &mut Config) -> io::Result<Opened> {
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

fn open_kind(kind: &str, name: &PortName, config: &mut Config) -> io::Result<Opened> {
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
            // Only frames to the addresses above come here, so there can be no other address.
            config.stack.ipv6.link_local &= config.slaac;
            let xdp = af_xdp::Config {
                // Which address a server will give, and what its answers come to, nobody knows.
                redirect: match config.dhcp.is_some() || config.slaac {
                    true => RedirectConfig::everything(),
                    false => RedirectConfig::addresses(config.addresses.iter().map(|own| own.ip)),
                },
                ..af_xdp::Config::default()
            };
            let port = AfXdp::open(&name.name, name.queue.unwrap_or(0), &xdp, &mut arena)?;
            Ok(Opened { port: Box::new(port), arena, chosen: None })
        }
        "af_packet" => {
            let packet = AfPacketConfig {
                queue: name.queue.unwrap_or(0),
                queues: name.queues,
                mac: config.mac,
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
            let wire = WireConfig {
                mtu: config.mtu.unwrap_or(1500).into(),
                gso: MEMORY_GSO,
                queue: MEMORY_QUEUE,
                ..WireConfig::default()
            };
            with_arena(Box::new(memory::join(&name.name, wire)?), config)
        }
        _ => {
            let (read, write) = name.name.split_once(',').unwrap_or((&name.name, ""));
            let path = |text: &'_ str| (!text.is_empty()).then(|| Path::new(text).to_owned());
            let (read, write) = (path(read), path(write));
            let port = Box::new(PcapPort::open(read.as_deref(), write.as_deref())?);
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
fn refuse_taken(address: &Address, interface: &str) -> io::Result<()> {
    // With this setting Linux lets anybody bind anything, so binding says nothing.
    let ip: IpAddr = address.ip;
    let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
    let nonlocal = std::fs::read_to_string(format!("/proc/sys/net/{family}/ip_nonlocal_bind"));
    if nonlocal.is_ok_and(|text| text.trim() == "1") {
        return Ok(());
    }
    match UdpSocket::bind((ip, 0)) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "the address {ip} is taken: Linux has it; give the channel on {interface} another \
                 address of that network, or take it from Linux: ip address del {address} dev ..."
            ),
        )),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(kind: Option<&'static str>, name: &str, queue: Option<u32>, queues: u32) -> PortName {
        PortName { kind, name: name.to_owned(), queue, queues }
    }

    #[test]
    fn names_are_read() {
        for (text, wanted) in [
            ("af_xdp:eth1", name(Some("af_xdp"), "eth1", None, 1)),
            ("af_xdp:eth1#2", name(Some("af_xdp"), "eth1", Some(2), 3)),
            ("tap:mill0#1/4", name(Some("tap"), "mill0", Some(1), 4)),
            ("eth1", name(None, "eth1", None, 1)),
            ("pcap:a#b.pcap", name(Some("pcap"), "a#b.pcap", None, 1)),
            ("pcap:,out.pcap", name(Some("pcap"), ",out.pcap", None, 1)),
        ] {
            assert_eq!(text.parse::<PortName>().unwrap(), wanted);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_and_shown() {
        for text in ["xdp:eth1", "af_xdp:", "", "af_xdp:#0", "tap:mill0#x", "tap:mill0#4/4"] {
            let error = text.parse::<PortName>().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_not_made_by_guess() {
        let config = Config::new("192.0.2.2/24".parse().unwrap());
        let error = Channel::open("nosuch0", config).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("tap:nosuch0"), "{error}");
    }
}
