//! Hostile peers, as hostile as one core of this machine can be: floods of single segments, peers
//! that have themselves kept waiting, peers that fill queues. For `millrace bench attack`, against a
//! server in a network namespace of its own.

mod craft;
mod flood;
mod hoard;
mod slow;

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use craft::{Dice, Wire};

use crate::options::{Failure, Options};
use crate::ports::Network;

/// What to do to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    /// Single segments from addresses at random.
    Flood(Segment),
    /// Single segments in the name of clients that are there, with numbers near their windows.
    Near(Segment),
    /// Established connections that send single bytes, with a gap before each.
    Tiny,
    /// Established connections that send full segments, but never the first.
    OutOfOrder,
    /// Connections that ask for more and more and read next to nothing.
    SlowReaders,
    /// Connections that send a request a byte a second.
    SlowWriters,
}

/// What a flood is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segment {
    Syn,
    Ack,
    Rst,
    Fin,
}

impl FromStr for Attack {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "syn" => Attack::Flood(Segment::Syn),
            "ack" => Attack::Flood(Segment::Ack),
            "rst" => Attack::Flood(Segment::Rst),
            "fin" => Attack::Flood(Segment::Fin),
            "syn-near" => Attack::Near(Segment::Syn),
            "ack-near" => Attack::Near(Segment::Ack),
            "rst-near" => Attack::Near(Segment::Rst),
            "fin-near" => Attack::Near(Segment::Fin),
            "tiny" => Attack::Tiny,
            "out-of-order" => Attack::OutOfOrder,
            "slow-readers" => Attack::SlowReaders,
            "slow-writers" => Attack::SlowWriters,
            _ => {
                return Err("attacks are syn, ack, rst, fin, syn-near, ack-near, rst-near, \
                            fin-near, tiny, out-of-order, slow-readers, slow-writers");
            }
        })
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
struct Strength {
    time: Duration,
    /// Packets in a second at most; 0: as many as go.
    packets_per_s: u64,
    connections: usize,
}

/// `millrace-bench attack`.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let known = [
        "kind",
        "port",
        "to",
        "to-mac",
        "from-mac",
        "sources",
        "client",
        "seconds",
        "pps",
        "connections",
        "seed",
    ];
    let options = Options::parse(arguments, &known)?;
    let attack: Attack = options.required("kind")?;
    let seconds: f64 = options.required("seconds")?;
    let strength = Strength {
        time: Duration::try_from_secs_f64(seconds)
            .map_err(|error| Failure::Usage(format!("--seconds {seconds}: {error}")))?,
        packets_per_s: options.value("pps", 0)?,
        connections: options.value("connections", 1000)?,
    };
    let to = options.required("to")?;
    let figures = match attack {
        Attack::SlowReaders => slow::readers(to, &strength),
        Attack::SlowWriters => slow::writers(to, &strength),
        _ => {
            let wire = Wire {
                to,
                to_mac: options.required("to-mac")?,
                from_mac: options.required("from-mac")?,
                sources: options.required::<Network>("sources")?,
            };
            let port: String = options.required("port")?;
            let dice = Dice::new(options.value("seed", 1)?);
            match attack {
                Attack::Flood(segment) => flood::random(&port, wire, segment, &strength, dice),
                Attack::Near(segment) => {
                    let client: Ipv4Addr = options.required("client")?;
                    flood::near(&port, wire, client, segment, &strength, dice)
                }
                Attack::Tiny => hoard::run(&port, wire, hoard::Kind::Tiny, &strength, dice),
                _ => hoard::run(&port, wire, hoard::Kind::OutOfOrder, &strength, dice),
            }
        }
    };
    let figures = figures.map_err(|error| Failure::of(format!("attacking {to}"), error))?;
    let fields: Vec<String> =
        figures.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    println!("{{{}}}", fields.join(", "));
    Ok(())
}

/// What an attack tells at its end.
type Figures = Vec<(&'static str, u64)>;
