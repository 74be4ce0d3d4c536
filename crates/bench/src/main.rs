//! `millrace-bench`: native servers to compare with, the floor, and the stack without a kernel.
//!
//! A tool of the tree's own measurements, started by `millrace demo` and `millrace bench`; it
//! has no stable interface.
#![forbid(unsafe_code)]

mod attack;
mod epoll;
mod floor;
mod flows;
mod http;
mod latency;
mod memory;
mod options;
mod ports;
mod server;
mod stack;
mod visitors;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use millrace_channel::Channel;
use options::{Failure, Options, Wait};
use ports::{Network, PortName};

const USAGE: &str = "\
usage: millrace-bench COMMAND [--OPTION VALUE]...

  epoll   serve HTTP on the kernel's TCP, one thread, epoll
          --address IP:PORT  [--wait sleep|spin]  [--body BYTES]
  floor   answer HTTP without keeping state, on a port of ours
          --port KIND:INTERFACE  --address A/N  [--listen PORT]  [--wait sleep|spin]
          [--body BYTES]
  http    serve HTTP on a channel, Millrace's native arm; options as for floor
          [--gateway A]  [--report SECONDS]  (print counters so often)
  visitors  well-behaved clients at a rate, over the kernel's TCP
          --to IP:PORT  --seconds N  [--rate N]  [--new-rate N]  [--clients N]  [--body BYTES]
  attack  a hostile peer
          --kind NAME  --to IP:PORT  --seconds N  [--pps N]  [--connections N]  [--seed N]
          [--port INTERFACE  --to-mac MAC  --from-mac MAC  --sources A/N  --client A]
  bulk    send as much as goes, by our stack or, without --port, by the kernel's
          [--port KIND:INTERFACE  --address A/N]  --to IP:PORT  --congestion NAME  --seconds N
          [--buffer BYTES]
  short   many short flows, and how long each took; --port to --buffer as for bulk
          --bytes N  --count N  [--parallel N]
  sink    receive flows on the kernel's TCP; with --flows, tell what came of so many
          --address IP:PORT  [--flows N  --seconds N]
  memory  server and load in one process, joined by memory
          [--connections N]  [--keepalive true|false]  [--wait sleep|spin]  [--seconds N]
          [--body BYTES]
  latency  what a load, a system call, a switch, a wake-up and a round trip cost here
          [--bytes N,...]  [--cpus A,B]  [--batches N]
  stack   two stacks joined by memory, beside smoltcp, without a kernel
          [--json FILE]  [--seconds N]  [--rounds N]  [--work NAME,...]  [--arm NAME,...]
          [--connections N]  (only the works with so many)
  idle    print the resident memory with so many idle connections
          --arm NAME  --connections N
";

/// Enough for the port's rings to be full both ways.
const FLOOR_FRAMES: u32 = 4096;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    let result = match command.as_deref() {
        Some("epoll") => epoll(arguments),
        Some("floor") => floor(arguments),
        Some("http") => http_server(arguments),
        Some("attack") => attack::run(arguments),
        Some("visitors") => visitors::run(arguments),
        Some("bulk") => flows::bulk(arguments),
        Some("short") => flows::short(arguments),
        Some("sink") => flows::sink(arguments),
        Some("memory") => memory::run(arguments),
        Some("latency") => latency::run(arguments),
        Some("stack") => stack::run(arguments),
        Some("idle") => stack::run_idle(arguments),
        Some("--help" | "help") => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => Err(Failure::Usage(format!("no command {other:?}\n\n{USAGE}"))),
        None => Err(Failure::Usage(USAGE.trim_end().to_owned())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("millrace-bench: {failure}");
            ExitCode::from(match failure {
                Failure::Usage(_) => 2,
                Failure::Failed(_) => 1,
            })
        }
    }
}

fn epoll(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let options = Options::parse(arguments, &["address", "wait", "body"])?;
    let address: SocketAddr = options.required("address")?;
    let wait = options.value("wait", Wait::Sleep)?;
    let body = options.value("body", 1024)?;
    let mut server = epoll::Server::bind(address, body)
        .map_err(|error| Failure::of(format!("cannot listen on {address}"), error))?;
    server.serve(wait).map_err(|error| Failure::of(format!("serving on {address}"), error))
}

fn floor(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let options = Options::parse(arguments, &["port", "address", "listen", "wait", "body"])?;
    let name: PortName = options.required("port")?;
    let network: Network = options.required("address")?;
    let listen = options.value("listen", 80)?;
    let wait = options.value("wait", Wait::Sleep)?;
    let body = options.value("body", 1024)?;
    let (mut port, mut arena) = ports::open(&name, network.address, FLOOR_FRAMES)?;
    let mac = port
        .capabilities()
        .mac
        .ok_or_else(|| Failure::Failed("the port has no hardware address".into()))?;
    let failed = |error| Failure::of("floor", error);
    let responder = floor::Responder::new(mac, network.address, listen, body).map_err(failed)?;
    floor::serve(port.as_mut(), &mut arena, &responder, wait).map_err(failed)
}

fn http_server(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let options = Options::parse(
        arguments,
        &["port", "address", "listen", "wait", "body", "report", "gateway"],
    )?;
    let port: millrace_channel::PortName = options.required("port")?;
    let listen = options.value("listen", 80)?;
    let wait = options.value("wait", Wait::Sleep)?;
    let body = options.value("body", 1024)?;
    let config = millrace_channel::Config {
        wait: wait.into(),
        gateways: options.optional("gateway")?.into_iter().collect(),
        ..millrace_channel::Config::new(options.required("address")?)
    };
    let failed = |error| Failure::of(format!("http on {port}"), error);
    let channel = Channel::open_port(&port, config).map_err(failed)?;
    let mut server = server::Server::new(channel, listen, body).map_err(failed)?;
    let report: f64 = options.value("report", 0.0)?;
    if report > 0.0 {
        let every = Duration::try_from_secs_f64(report)
            .map_err(|error| Failure::Usage(format!("--report {report}: {error}")))?;
        return server.serve_reporting(every).map_err(failed);
    }
    server.serve().map_err(failed)
}
