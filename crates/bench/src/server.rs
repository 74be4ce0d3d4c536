//! Millrace's native arm: HTTP on a channel, in one thread.
//!
//! The same program as [`mod@crate::epoll`], with completions where that one has events. A request is
//! parsed where it lies; only one that comes in pieces is copied.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use millrace_channel::{Channel, Completion, Completions, Handle, Kind};

use crate::http::{self, Answers, Parsed, Refusal};

/// Pending requests of a turn's batch are answered from here.
pub struct Server {
    channel: Channel,
    answers: Answers,
    /// The start of a request whose end has not come, by connection.
    partial: Vec<Vec<u8>>,
    /// What the payload at hand asks for.
    asked: Vec<Asked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Body { keep_alive: bool },
    Refusal(Refusal),
}

impl Asked {
    fn is_last(self) -> bool {
        self != Asked::Body { keep_alive: true }
    }
}

impl Server {
    /// Listens on a port of any of the channel's addresses.
    ///
    /// # Errors
    /// As [`Channel::listen`].
    pub fn new(mut channel: Channel, port: u16, body: usize) -> io::Result<Self> {
        channel.listen(Channel::any(port), 4096)?;
        let partial = vec![Vec::new(); channel.capacity()];
        Ok(Server { channel, answers: Answers::new(body), partial, asked: Vec::new() })
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// When the port is of no more use.
    pub fn serve(&mut self) -> io::Result<()> {
        let mut batch = Completions::new();
        loop {
            self.channel.turn(&mut batch, None)?;
            self.answer(&batch)?;
        }
    }

    /// Serves for ever, and prints a line of JSON with all counters so often.
    ///
    /// # Errors
    /// When the port is of no more use.
    pub fn serve_reporting(&mut self, every: Duration) -> io::Result<()> {
        let mut batch = Completions::new();
        let mut next = Instant::now() + every;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.report();
                next = Instant::now() + every;
            }
            self.channel.turn(&mut batch, Some(left))?;
            self.answer(&batch)?;
        }
    }

    fn report(&mut self) {
        let port = self.channel.statistics();
        let frame_size = self.channel.stack().arena().frame_size();
        let mut figures = vec![
            ("at_ns", millrace_port::clock::now().as_nanos()),
            ("frames", self.channel.total_frames() as u64),
            ("frames_free", self.channel.free_frames() as u64),
            ("frame_size", frame_size as u64),
            ("connections", self.channel.connections() as u64),
            ("connections_most", self.channel.capacity() as u64),
            ("partial_bytes", self.partial.iter().map(|part| part.capacity() as u64).sum()),
            ("port_rx_packets", port.rx_packets),
        ];
        figures.extend(port.drops.iter().copied());
        figures.extend(self.channel.counters().iter());
        figures.extend(self.channel.stack().counters().iter());
        let fields: Vec<String> =
            figures.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        println!("{{{}}}", fields.join(", "));
    }

    /// Serves until `stop` is set, which is looked at as often as every `look`.
    ///
    /// # Errors
    /// When the port is of no more use.
    pub fn serve_until(&mut self, stop: &AtomicBool, look: Duration) -> io::Result<()> {
        let mut batch = Completions::new();
        while !stop.load(Ordering::Relaxed) {
            self.channel.turn(&mut batch, Some(look))?;
            self.answer(&batch)?;
        }
        Ok(())
    }

    /// Answers what one turn brought.
    fn answer(&mut self, batch: &Completions) -> io::Result<()> {
        for done in batch {
            let Some(index) = done.handle.index() else { continue };
            match done.kind {
                Kind::Read => self.read(done, index)?,
                Kind::Finished => self.channel.close_handle(done.handle),
                Kind::Accepted | Kind::Closed => self.partial[index].clear(),
                _ => {}
            }
        }
        Ok(())
    }

    #[inline]
    fn read(&mut self, done: &Completion, index: usize) -> io::Result<()> {
        self.asked.clear();
        let partial = &mut self.partial[index];
        for bytes in self.channel.payload(done) {
            if partial.is_empty() {
                let taken = parse(bytes, &mut self.asked);
                partial.extend_from_slice(&bytes[taken..]);
            } else {
                partial.extend_from_slice(bytes);
                let taken = parse(partial, &mut self.asked);
                partial.drain(..taken);
            }
            if self.asked.last().is_some_and(|asked| asked.is_last()) {
                break;
            }
        }
        for at in 0..self.asked.len() {
            let asked = self.asked[at];
            if !self.write(done.handle, asked)? {
                break;
            }
            if asked.is_last() {
                self.channel.close_handle(done.handle);
            }
        }
        Ok(())
    }

    /// Writes one answer. False if the connection is no more.
    #[inline]
    fn write(&mut self, handle: Handle, asked: Asked) -> io::Result<bool> {
        let bytes = match asked {
            Asked::Body { keep_alive } => self.answers.to(keep_alive),
            Asked::Refusal(refusal) => self.answers.refusing(refusal),
        };
        let result = match self.channel.write(handle, bytes) {
            Ok(written) if written == bytes.len() => return Ok(true),
            Ok(written) => {
                let rest = Box::new(bytes[written..].to_vec());
                self.channel.write_owned(handle, rest, 0).map(drop)
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                // Closed by an earlier completion of this turn, or by the peer.
                io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe => Ok(false),
                // A peer that asks and asks and does not take the answers.
                io::ErrorKind::WouldBlock => {
                    self.channel.abort(handle);
                    Ok(false)
                }
                _ => Err(error),
            },
        }
    }
}

/// Collects what the whole requests at the start of `bytes` ask for, up to one that ends the
/// connection. Returns how many bytes they are; all, when nothing after them matters.
#[inline]
fn parse(bytes: &[u8], asked: &mut Vec<Asked>) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        match http::parse(&bytes[taken..]) {
            Parsed::Partial => break,
            Parsed::Request { len, keep_alive } => {
                taken += len;
                asked.push(Asked::Body { keep_alive });
                if !keep_alive {
                    return bytes.len();
                }
            }
            Parsed::Refused(refusal) => {
                asked.push(Asked::Refusal(refusal));
                return bytes.len();
            }
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use millrace_channel::Config;
    use millrace_frames::Instant;
    use millrace_port::Port;
    use millrace_port::memory::{self, WireConfig};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const CLOSING: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

    /// A server and a client on a wire, in virtual time.
    struct Bench {
        server: Server,
        server_batch: Completions,
        client: Channel,
        client_batch: Completions,
        now: Instant,
        handle: Handle,
        received: Vec<u8>,
        finished: bool,
    }

    impl Bench {
        fn new(body: usize) -> Self {
            let (near, far) = memory::wire(WireConfig::default());
            let channel = |port: Box<dyn Port>, address: &str| {
                let config = Config { frames: 4096, ..Config::new(address.parse().unwrap()) };
                let arena = config.arena(1500).unwrap();
                Channel::new(port, arena, &config).unwrap()
            };
            let mut client = channel(Box::new(near), "192.0.2.1/24");
            let server = channel(Box::new(far), "192.0.2.2/24");
            let handle = client.connect("192.0.2.2:80".parse().unwrap(), None).unwrap();
            Bench {
                server: Server::new(server, 80, body).unwrap(),
                server_batch: Completions::new(),
                client,
                client_batch: Completions::new(),
                now: millrace_port::clock::now(),
                handle,
                received: Vec::new(),
                finished: false,
            }
        }

        fn run(&mut self, milliseconds: u64) {
            let end = self.now.as_nanos() + milliseconds * 1_000_000;
            while self.now.as_nanos() < end {
                self.now = Instant::from_nanos(self.now.as_nanos() + 100_000);
                self.server.channel.poll(&mut self.server_batch, self.now).unwrap();
                self.server.answer(&self.server_batch).unwrap();
                self.client.poll(&mut self.client_batch, self.now).unwrap();
                for done in &self.client_batch {
                    match done.kind {
                        Kind::Read => {
                            for bytes in self.client.payload(done) {
                                self.received.extend_from_slice(bytes);
                            }
                        }
                        Kind::Finished => self.finished = true,
                        _ => {}
                    }
                }
            }
        }

        fn write(&mut self, bytes: &[u8]) {
            assert_eq!(self.client.write(self.handle, bytes).unwrap(), bytes.len());
        }
    }

    #[test]
    fn pieces_and_pipelines_are_answered_in_order() {
        let answers = Answers::new(100);
        let mut bench = Bench::new(100);
        bench.run(5);
        bench.write(&REQUEST[..9]);
        bench.run(5);
        assert!(bench.received.is_empty());
        let mut rest = REQUEST[9..].to_vec();
        rest.extend_from_slice(&REQUEST.repeat(3));
        rest.extend_from_slice(&REQUEST[..4]);
        bench.write(&rest);
        bench.run(5);
        bench.write(&REQUEST[4..]);
        bench.run(5);
        assert_eq!(bench.received, answers.to(true).repeat(5));
        assert!(!bench.finished);
        bench.received.clear();
        bench.write(CLOSING);
        bench.write(REQUEST);
        bench.run(50);
        assert_eq!(bench.received, answers.to(false));
        assert!(bench.finished);
    }

    #[test]
    fn answers_larger_than_every_buffer_arrive_whole() {
        let body = 3 << 20;
        let mut bench = Bench::new(body);
        bench.run(5);
        bench.write(CLOSING);
        bench.run(5_000);
        assert!(bench.received == Answers::new(body).to(false), "{}", bench.received.len());
        assert!(bench.finished);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut bench = Bench::new(10);
        bench.run(5);
        bench.write(b"\x16\x03\x01\r\n\r\n");
        bench.run(50);
        assert!(bench.received.starts_with(b"HTTP/1.1 400 "));
        assert!(bench.finished);
    }
}
