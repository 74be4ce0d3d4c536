//! What a port is called, as people write it.
//!
//! `KIND:NAME`, `KIND:NAME#QUEUE` or, for the kinds whose queues are made together,
//! `KIND:NAME#QUEUE/QUEUES`. An interface's name alone names no kind.

use core::fmt;
use core::str::FromStr;
use std::io;
use std::path::Path;

/// The kinds of port, the best first.
pub const KINDS: [&str; 5] = ["af_xdp", "af_packet", "tap", "memory", "pcap"];

/// A kind that sends and never receives; it is named by who sends only.
pub const SEND_ONLY: &str = "xdp_live";

/// What a port is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortName {
    /// One of [`KINDS`], or [`SEND_ONLY`]; `None`: the best that this machine allows.
    pub kind: Option<&'static str>,
    /// The interface, the wire's name or the file: `pcap:READ`, `pcap:READ,WRITE`, `pcap:,WRITE`.
    pub name: String,
    /// Which queue, from 0; `None`: the interface's only one.
    pub queue: Option<u32>,
    /// Of how many queues; for AF_XDP the interface has them already.
    pub queues: u32,
}

impl PortName {
    /// The file that a `pcap` port reads and the one that it writes.
    pub fn files(&self) -> (Option<&Path>, Option<&Path>) {
        let (read, write) = self.name.split_once(',').unwrap_or((&self.name, ""));
        let path = |text| Some(text).filter(|text: &&str| !text.is_empty()).map(Path::new);
        (path(read), path(write))
    }
}

impl FromStr for PortName {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<PortName> {
        let wrong = |why: &str| {
            let text = format!("{text:?} is no port: {why}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) => {
                match KINDS.iter().chain([&SEND_ONLY]).find(|known| **known == kind) {
                    Some(kind) => (Some(*kind), rest),
                    None => return wrong(&format!("the kinds are {}", KINDS.join(", "))),
                }
            }
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
    fn a_capture_port_has_two_files() {
        for (text, read, write) in [
            ("pcap:in.pcap", Some("in.pcap"), None),
            ("pcap:in.pcap,out.pcapng", Some("in.pcap"), Some("out.pcapng")),
            ("pcap:,out.pcapng", None, Some("out.pcapng")),
        ] {
            let name = text.parse::<PortName>().unwrap();
            assert_eq!(name.files(), (read.map(Path::new), write.map(Path::new)));
        }
    }
}
