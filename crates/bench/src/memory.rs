//! `millrace-bench memory`: server and load on two stacks that a memory wire joins, one thread
//! each. It needs no network and no privilege.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace_channel::{Channel, Completion, Completions, Config, Handle, Kind};
use millrace_port::Port;
use millrace_port::memory::{self, WireConfig};
use rustix::time::{ClockId, clock_gettime};

use crate::http::Answers;
use crate::options::{Failure, Options, Wait};
use crate::server::Server;

const CLIENT: &str = "192.0.2.1/24";
const SERVER: &str = "192.0.2.2/24";
const PORT: u16 = 80;
/// How often the server looks whether it shall stop, and the load whether its time is over.
const LOOK: Duration = Duration::from_millis(20);

/// What the load does.
#[derive(Clone, Copy, Debug)]
struct Load {
    connections: usize,
    keep_alive: bool,
    duration: Duration,
}

/// What the load saw.
#[derive(Debug, Default)]
struct Seen {
    /// From writing a request to the end of its answer, nanoseconds.
    latencies: Vec<u32>,
    errors: u64,
    seconds: f64,
}

/// Runs the command with what follows its name. Prints one line of JSON, with the load's figures
/// and the processor time of the server's thread, all times in microseconds.
///
/// # Errors
/// A wrong command line, or a channel that fails.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let known = ["connections", "keepalive", "wait", "seconds", "body"];
    let options = Options::parse(arguments, &known)?;
    let wait = options.value("wait", Wait::Sleep)?;
    let body = options.value("body", 1024)?;
    let seconds: f64 = options.value("seconds", 1.0)?;
    let load = Load {
        connections: options.value("connections", 1)?,
        keep_alive: options.value("keepalive", true)?,
        duration: Duration::try_from_secs_f64(seconds)
            .map_err(|error| Failure::Usage(format!("--seconds {seconds}: {error}")))?,
    };
    if load.connections == 0 {
        return Err(Failure::Usage("--connections 0: at least one is needed".into()));
    }
    let (seen, busy) =
        measure(load, wait, body).map_err(|error| Failure::of("on the memory wire", error))?;
    println!("{}", json(seen, busy));
    Ok(())
}

fn measure(load: Load, wait: Wait, body: usize) -> io::Result<(Seen, Duration)> {
    let (near, far) = memory::wire(WireConfig::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut server = Server::new(open(far, SERVER, wait)?, PORT, body)?;
            server.serve_until(&stop, LOOK)?;
            Ok(clock_gettime(ClockId::ThreadCPUTime))
        });
        // The load ends the server, however it ends itself.
        let seen =
            open(near, CLIENT, wait).and_then(|channel| Client::new(channel, load, body).run());
        stop.store(true, Ordering::Relaxed);
        let busy: io::Result<_> = server.join().expect("the server does not panic");
        let busy = busy?;
        Ok((seen?, Duration::new(busy.tv_sec as u64, busy.tv_nsec as u32)))
    })
}

fn open(port: impl Port + 'static, address: &str, wait: Wait) -> io::Result<Channel> {
    let config = Config { wait: wait.into(), ..Config::new(address.parse()?) };
    let arena = config.arena(port.capabilities().mtu)?;
    Channel::new(Box::new(port), arena, &config)
}

/// A closed loop: one request at a time on each connection.
struct Client {
    channel: Channel,
    load: Load,
    request: &'static [u8],
    /// Bytes of an answer.
    answer: usize,
    exchanges: Vec<Exchange>,
    seen: Seen,
}

/// Where a connection is in its exchange.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    asked: Instant,
    received: usize,
}

impl Client {
    fn new(channel: Channel, load: Load, body: usize) -> Self {
        let request: &[u8] = if load.keep_alive {
            b"GET / HTTP/1.1\r\nHost: 192.0.2.2\r\n\r\n"
        } else {
            b"GET / HTTP/1.1\r\nHost: 192.0.2.2\r\nConnection: close\r\n\r\n"
        };
        let fresh = Exchange { asked: Instant::now(), received: 0 };
        Client {
            exchanges: vec![fresh; channel.capacity()],
            channel,
            load,
            request,
            answer: Answers::new(body).to(load.keep_alive).len(),
            seen: Seen::default(),
        }
    }

    fn run(mut self) -> io::Result<Seen> {
        let start = Instant::now();
        for _ in 0..self.load.connections {
            self.connect()?;
        }
        let mut batch = Completions::new();
        while start.elapsed() < self.load.duration {
            self.channel.turn(&mut batch, Some(LOOK))?;
            for done in &batch {
                self.act(done)?;
            }
        }
        self.seen.seconds = start.elapsed().as_secs_f64();
        Ok(self.seen)
    }

    fn connect(&mut self) -> io::Result<()> {
        let server = SERVER.split('/').next().expect("an address");
        let server = SocketAddr::new(server.parse().expect("an address"), PORT);
        self.channel.connect(server, None).map(drop)
    }

    #[inline]
    fn act(&mut self, done: &Completion) -> io::Result<()> {
        match done.kind {
            Kind::Connected => self.ask(done.handle),
            Kind::Read => self.read(done),
            // The server closes first; the next connection follows when this one is done with.
            Kind::Finished => {
                self.channel.close_handle(done.handle);
                self.seen.errors += u64::from(self.load.keep_alive);
                self.connect()
            }
            Kind::Closed => {
                self.seen.errors += 1;
                self.connect()
            }
            _ => Ok(()),
        }
    }

    fn ask(&mut self, handle: Handle) -> io::Result<()> {
        let Some(index) = handle.index() else { return Ok(()) };
        self.exchanges[index] = Exchange { asked: Instant::now(), received: 0 };
        self.channel.write(handle, self.request).map(drop)
    }

    #[inline]
    fn read(&mut self, done: &Completion) -> io::Result<()> {
        let Some(index) = done.handle.index() else { return Ok(()) };
        let exchange = &mut self.exchanges[index];
        if exchange.received == 0 {
            let first = self.channel.payload(done).next().unwrap_or_default();
            self.seen.errors += u64::from(!first.starts_with(b"HTTP/1.1 200 "));
        }
        exchange.received += done.bytes as usize;
        if exchange.received < self.answer {
            return Ok(());
        }
        self.seen.errors += u64::from(exchange.received > self.answer);
        let latency = exchange.asked.elapsed().as_nanos();
        self.seen.latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
        if self.load.keep_alive { self.ask(done.handle) } else { Ok(()) }
    }
}

fn json(mut seen: Seen, busy: Duration) -> String {
    seen.latencies.sort_unstable();
    let percentile = |percent: usize| {
        let at = seen.latencies.len().saturating_sub(1) * percent / 100;
        f64::from(seen.latencies.get(at).copied().unwrap_or(0)) / 1e3
    };
    format!(
        r#"{{"requests": {}, "seconds": {:.6}, "p50_us": {:.3}, "p99_us": {:.3}, "#,
        seen.latencies.len(),
        seen.seconds,
        percentile(50),
        percentile(99)
    ) + &format!(r#""server_us": {}, "errors": {}}}"#, busy.as_micros(), seen.errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(load: Load, wait: Wait) -> Seen {
        let (seen, busy) = measure(load, wait, 1024).unwrap();
        assert!(busy > Duration::ZERO);
        seen
    }

    #[test]
    fn requests_are_answered_in_every_scenario() {
        for (connections, keep_alive, wait) in
            [(1, true, Wait::Spin), (64, true, Wait::Sleep), (64, false, Wait::Sleep)]
        {
            let duration = Duration::from_millis(200);
            let seen = seen(Load { connections, keep_alive, duration }, wait);
            assert!(seen.latencies.len() > 2 * connections, "{connections} {keep_alive}");
            assert_eq!(seen.errors, 0, "{connections} {keep_alive}");
        }
    }

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let latencies = (0..=100).rev().map(|us| us * 1000).collect();
        let text = json(Seen { latencies, errors: 2, seconds: 1.0 }, Duration::from_micros(7));
        assert_eq!(
            text,
            r#"{"requests": 101, "seconds": 1.000000, "p50_us": 50.000, "p99_us": 99.000, "#
                .to_owned()
                + r#""server_us": 7, "errors": 2}"#
        );
        assert!(json(Seen::default(), Duration::ZERO).contains(r#""requests": 0"#));
    }
}
