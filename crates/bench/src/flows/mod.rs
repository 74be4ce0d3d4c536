//! Flows over a real wire: one that sends all it can (`bulk`), many short ones (`short`), and who
//! receives them (`sink`). The sender is our stack on a port, or the kernel's; the receiver is
//! always the kernel's, so that two senders differ in nothing else.

mod kernel;
mod ours;
mod sink;

use std::net::SocketAddr;
use std::time::Duration;

use millrace_channel::{Channel, Config, PortName};

use crate::options::{Failure, Options};

/// What is sent, again and again.
const CHUNK: usize = 256 << 10;
/// A flow that is not done after this has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where flows go and how they are sent.
struct Sender {
    to: SocketAddr,
    congestion: String,
    /// `None`: the kernel's TCP.
    port: Option<PortName>,
    address: Option<millrace_channel::Address>,
    buffer: u32,
}

const SENDER: [&str; 5] = ["port", "address", "to", "congestion", "buffer"];

impl Sender {
    fn parse(options: &Options) -> Result<Sender, Failure> {
        let port = options.text("port").map(str::parse).transpose();
        let port = port.map_err(|error: std::io::Error| Failure::Usage(error.to_string()))?;
        let address = match &port {
            Some(_) => Some(options.required("address")?),
            None => None,
        };
        Ok(Sender {
            to: options.required("to")?,
            congestion: options.required("congestion")?,
            port,
            address,
            buffer: options.value("buffer", 1 << 20)?,
        })
    }

    /// Our stack on its port, with a send buffer of the size that was asked for.
    fn open(&self, port: &PortName) -> Result<Channel, Failure> {
        let Some(address) = self.address else {
            return Err(Failure::Usage("--port takes --address".into()));
        };
        let mut config = Config::new(address);
        config.stack.send_buffer = self.buffer;
        config.stack.congestion = self
            .congestion
            .parse()
            .map_err(|error| Failure::Usage(format!("--congestion: {error}")))?;
        // A frame holds a segment, and one connection may hold a fifth of the frames; without them the
        // buffer would be smaller than what was asked for.
        config.frames = config.frames.max(self.buffer / 256);
        Channel::open_port(port, config).map_err(|error| Failure::of(port, error))
    }
}

/// `millrace-bench bulk`: one flow, as much as goes, for so long.
pub fn bulk(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let options = Options::parse(arguments, &[&SENDER[..], &["seconds"]].concat())?;
    let sender = Sender::parse(&options)?;
    let time = seconds(&options)?;
    let figures = match &sender.port {
        Some(port) => ours::bulk(sender.open(port)?, sender.to, time),
        None => kernel::bulk(sender.to, &sender.congestion, time),
    };
    print(figures.map_err(|error| Failure::of(format!("sending to {}", sender.to), error))?);
    Ok(())
}

/// `millrace-bench short`: flows of so many bytes, one after the other in each of some places.
pub fn short(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let known = [&SENDER[..], &["bytes", "count", "parallel"]].concat();
    let options = Options::parse(arguments, &known)?;
    let sender = Sender::parse(&options)?;
    let work = Short {
        to: sender.to,
        bytes: options.required("bytes")?,
        count: options.required("count")?,
        parallel: options.value("parallel", 1)?,
    };
    if work.parallel == 0 {
        return Err(Failure::Usage("--parallel 0: at least one flow at a time".into()));
    }
    let times = match &sender.port {
        Some(port) => ours::short(sender.open(port)?, &work),
        None => kernel::short(&sender.congestion, &work),
    };
    let times = times.map_err(|error| Failure::of(format!("flows to {}", work.to), error))?;
    let micros: Vec<String> =
        times.iter().flatten().map(|time| time.as_micros().to_string()).collect();
    let failed = times.len() - micros.len();
    println!("{{\"failed\": {failed}, \"times_us\": [{}]}}", micros.join(", "));
    Ok(())
}

/// `millrace-bench sink`: takes flows, and tells of as many as it is asked to.
pub fn sink(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let options = Options::parse(arguments, &["address", "flows", "seconds"])?;
    let address: SocketAddr = options.required("address")?;
    let flows = options.value("flows", 0)?;
    let time = if flows == 0 { Duration::MAX } else { seconds(&options)? };
    sink::run(address, flows, time)
        .map_err(|error| Failure::of(format!("receiving at {address}"), error))
}

/// Short flows: how long, how many, how many at a time.
struct Short {
    to: SocketAddr,
    bytes: usize,
    count: usize,
    parallel: usize,
}

fn seconds(options: &Options) -> Result<Duration, Failure> {
    let seconds: f64 = options.required("seconds")?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| Failure::Usage(format!("--seconds {seconds}: {error}")))
}

/// One line of JSON.
fn print(figures: Vec<(&'static str, u64)>) {
    let fields: Vec<String> =
        figures.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    println!("{{{}}}", fields.join(", "));
}
