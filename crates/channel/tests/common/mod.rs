//! Two channels on a memory wire, in virtual time in one thread, or in real time in two.
#![allow(dead_code, reason = "each test file uses its part")]

use std::time::Duration;

use millrace_channel::{Channel, Completion, Completions, Config, Handle, Kind};
use millrace_frames::Instant;
use millrace_port::Port;
use millrace_port::memory::{MemoryPort, WireConfig, wire};

pub const SERVER: &str = "192.0.2.2";
pub const CLIENT: &str = "192.0.2.1";

pub fn config(address: &str) -> Config {
    Config {
        seed: Some([7; 4]),
        frames: 4096,
        ..Config::new(format!("{address}/24").parse().unwrap())
    }
}

pub fn channel(port: MemoryPort, config: &Config) -> Channel {
    let arena = config.arena(port.capabilities().mtu).unwrap();
    Channel::new(Box::new(port), arena, config).unwrap()
}

/// Client and server with what the last round told each of them.
pub struct Pair {
    pub client: Channel,
    pub server: Channel,
    pub told_client: Completions,
    pub told_server: Completions,
    pub now: Instant,
}

impl Pair {
    pub fn new() -> Pair {
        Pair::with(WireConfig::default(), config(CLIENT), config(SERVER))
    }

    pub fn with(wire_config: WireConfig, client: Config, server: Config) -> Pair {
        let (a, b) = wire(wire_config);
        Pair {
            client: channel(a, &client),
            server: channel(b, &server),
            told_client: Completions::new(),
            told_server: Completions::new(),
            now: Instant::from_nanos(u64::MAX / 4),
        }
    }

    /// One turn of each, a millisecond later.
    pub fn round(&mut self) {
        self.now += Duration::from_millis(1);
        self.client.poll(&mut self.told_client, self.now).unwrap();
        self.server.poll(&mut self.told_server, self.now).unwrap();
    }

    /// Rounds until `done` or, in a broken program, until many.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Pair) -> bool) {
        for _ in 0..200_000 {
            self.round();
            if done(self) {
                return;
            }
        }
        panic!("it never came to this: {what}");
    }

    /// A connection: the client's handle and the server's.
    pub fn connect(&mut self) -> (Handle, Handle) {
        self.server.listen(Channel::any(80), 64).ok();
        let client = self.client.connect(format!("{SERVER}:80").parse().unwrap(), None).unwrap();
        let (mut ours, mut theirs) = (false, None);
        self.until("connected", |pair| {
            ours |=
                pair.told_client.iter().any(|d| d.kind == Kind::Connected && d.handle == client);
            theirs = theirs.or(pair
                .told_server
                .iter()
                .find(|d| d.kind == Kind::Accepted)
                .map(|d| d.handle));
            ours && theirs.is_some()
        });
        (client, theirs.unwrap())
    }

    /// Closes both and asserts that every frame came back.
    pub fn close(mut self) {
        self.client.close(Duration::ZERO).unwrap();
        self.server.close(Duration::ZERO).unwrap();
        assert_eq!(self.client.free_frames(), self.client.total_frames(), "the client's frames");
        assert_eq!(self.server.free_frames(), self.server.total_frames(), "the server's frames");
    }
}

/// All bytes of a completion.
pub fn bytes(channel: &Channel, done: &Completion) -> Vec<u8> {
    channel.payload(done).flatten().copied().collect()
}

/// `len` bytes that differ from place to place.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

/// Echoes until the peer has closed its connection.
pub fn serve(mut server: Channel) -> Channel {
    server.listen(Channel::any(7), 8).unwrap();
    let mut batch = Completions::new();
    loop {
        server.turn(&mut batch, None).unwrap();
        for done in &batch {
            match done.kind {
                Kind::Read => {
                    let data = bytes(&server, done);
                    server.write_owned(done.handle, Box::new(data), 0).unwrap();
                }
                Kind::Finished => server.close_handle(done.handle),
                Kind::Closed => return server,
                _ => {}
            }
        }
        if batch.is_empty() {
            return server;
        }
    }
}

/// A byte there and back, so many times.
pub fn ping(client: &mut Channel, handle: Handle, rounds: usize) {
    client.write(handle, b"x").unwrap();
    let (mut done_rounds, mut batch) = (0, Completions::new());
    while done_rounds < rounds {
        client.turn(&mut batch, None).unwrap();
        for done in &batch {
            if done.kind == Kind::Read {
                done_rounds += 1;
                client.write(handle, b"x").unwrap();
            }
        }
    }
}
