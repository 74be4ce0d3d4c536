//! Round trips in real time, where sending takes its time.

mod common;

use std::io;
use std::thread;
use std::time::Duration;

use common::{CLIENT, SERVER, bytes, channel, config};
use millrace_channel::{Channel, Completions, Kind};
use millrace_frames::{Arena, Instant, RxBatch, TxBatch};
use millrace_port::memory::{MemoryPort, WireConfig, wire};
use millrace_port::{Capabilities, Port, Statistics, clock};

const SENDING: Duration = Duration::from_millis(20);

/// A port as a kernel's is: what has arrived is there, whatever the time is said to be; and sending
/// runs the rest of the path, as long as that takes.
struct Slow(MemoryPort);

impl Port for Slow {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn rx(&mut self, _: Instant, arena: &mut Arena, batch: &mut RxBatch) -> io::Result<usize> {
        self.0.rx(clock::now(), arena, batch)
    }

    fn tx(&mut self, now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize> {
        let taken = self.0.tx(now, arena, batch)?;
        if taken > 0 {
            thread::sleep(SENDING);
        }
        Ok(taken)
    }

    fn close(&mut self, arena: &mut Arena) {
        self.0.close(arena);
    }

    fn statistics(&mut self) -> Statistics {
        self.0.statistics()
    }
}

/// The answer is there when the packet has been sent. A time read before that would make the round
/// trip none at all, and all that follows from the shortest one wrong: for minutes.
#[test]
fn no_round_trip_is_shorter_than_it_was() {
    const ROUNDS: usize = 10;
    let (near, far) = wire(WireConfig::default());
    let mut server = channel(far, &config(SERVER));
    let settings = config(CLIENT);
    let arena = settings.arena(near.capabilities().mtu).unwrap();
    let mut client = Channel::new(Box::new(Slow(near)), arena, &settings).unwrap();
    let echo = thread::spawn(move || {
        server.listen(Channel::any(7), 8).unwrap();
        let mut batch = Completions::new();
        loop {
            server.turn(&mut batch, None).unwrap();
            if batch.is_empty() {
                return;
            }
            for done in &batch {
                match done.kind {
                    Kind::Read => {
                        let data = bytes(&server, done);
                        server.write_owned(done.handle, Box::new(data), 0).unwrap();
                    }
                    Kind::Closed => return,
                    _ => {}
                }
            }
        }
    });
    let handle = client.connect(format!("{SERVER}:7").parse().unwrap(), None).unwrap();
    client.write(handle, b"x").unwrap();
    let (mut rounds, mut batch) = (0, Completions::new());
    while rounds < ROUNDS {
        client.turn(&mut batch, None).unwrap();
        for done in &batch {
            if done.kind == Kind::Read {
                rounds += 1;
                client.write(handle, b"x").unwrap();
            }
        }
    }
    let info = client.tcp_info(handle).unwrap();
    assert!(Duration::from_micros(info.min_rtt.into()) >= SENDING, "{info:?}");
    client.abort(handle);
    client.close(Duration::ZERO).unwrap();
    echo.join().unwrap();
}
