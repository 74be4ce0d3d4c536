//! Round trips in real time, where sending takes its time.

mod common;

use std::io;
use std::thread;
use std::time::Duration;

use common::{CLIENT, SERVER, channel, config, ping, serve};
use millrace_channel::Channel;
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
    let server = channel(far, &config(SERVER));
    let settings = config(CLIENT);
    let arena = settings.arena(near.capabilities().mtu).unwrap();
    let mut client = Channel::new(Box::new(Slow(near)), arena, &settings).unwrap();
    let echo = thread::spawn(move || serve(server));
    let handle = client.connect(format!("{SERVER}:7").parse().unwrap(), None).unwrap();
    ping(&mut client, handle, ROUNDS);
    let info = client.tcp_info(handle).unwrap();
    assert!(Duration::from_micros(info.min_rtt.into()) >= SENDING, "{info:?}");
    client.abort(handle);
    client.close(Duration::ZERO).unwrap();
    drop(echo.join().unwrap());
}
