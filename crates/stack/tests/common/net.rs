//! Two stacks joined by a memory wire in virtual time.

use core::net::{Ipv4Addr, SocketAddr};

use millrace_frames::{Duration, Frame, Instant, Owners, RxBatch, TxBatch};
use millrace_port::Port;
use millrace_port::memory::{self, MemoryPort, WireConfig};
use millrace_stack::{Config, ConnectionId, Event, InterfaceAddress, Stack};
use millrace_wire::mac::Mac;

pub const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];

/// A stack and its end of the wire.
pub struct Host {
    pub stack: Stack,
    pub port: MemoryPort,
    rx: RxBatch,
    tx: TxBatch,
    frames: usize,
}

/// Two hosts, 0 and 1.
pub struct Net {
    pub hosts: [Host; 2],
    pub now: Instant,
}

impl Net {
    /// Joins two stacks by a wire; `change` makes the configuration of each (0 or 1) its own.
    pub fn new(wire: WireConfig, frames: u32, change: impl Fn(usize, &mut Config)) -> Net {
        let now = Instant::from_millis(1_000_000);
        let (gso, mtu) = (wire.gso, wire.mtu);
        let (first, second) = memory::wire(WireConfig { macs: MACS, ..wire });
        let mut index = 0;
        let hosts = [first, second].map(|port| {
            let mut config = super::config();
            config.mac = MACS[index];
            config.addresses =
                vec![InterfaceAddress { address: ADDRESSES[index].into(), prefix: 24 }];
            config.mtu = mtu.min(65_535) as u16;
            config.tx_gso = gso;
            config.tx_checksum = gso > 0;
            config.seed = [9, index as u64, 3, 4];
            change(index, &mut config);
            index += 1;
            let stack = Stack::new(config, super::arena(frames), now).expect("a stack");
            Host { stack, port, rx: RxBatch::new(), tx: TxBatch::new(), frames: frames as usize }
        });
        Net { hosts, now }
    }

    pub fn address(&self, host: usize, port: u16) -> SocketAddr {
        SocketAddr::new(ADDRESSES[host].into(), port)
    }

    /// Both sides once. Returns whether a packet moved.
    pub fn turn(&mut self) -> bool {
        let mut moved = false;
        for host in &mut self.hosts {
            moved |= host.turn(self.now);
        }
        moved
    }

    /// When something happens next without an application.
    pub fn next_time(&self) -> Option<Instant> {
        self.hosts
            .iter()
            .flat_map(|host| [host.stack.next_deadline(), host.port.next_arrival()])
            .flatten()
            .min()
    }

    /// Turns until nothing moves at this time, then goes on to when something does, until `done`
    /// or the time is over. `work` is the applications' part of each turn; it returns whether it
    /// did something. Returns whether `done` held in the end.
    pub fn run(
        &mut self,
        limit: Duration,
        mut work: impl FnMut(&mut Net) -> bool,
        mut done: impl FnMut(&Net) -> bool,
    ) -> bool {
        let end = self.now + limit;
        loop {
            while self.turn() | work(self) {
                if done(self) {
                    return true;
                }
            }
            if done(self) {
                return true;
            }
            match self.next_time() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => return false,
            }
        }
    }

    /// As [`Net::run`] without applications, for so long.
    pub fn idle(&mut self, time: Duration) {
        let end = self.now + time;
        self.run(time, |_| false, |_| false);
        self.now = end;
    }

    /// Connects from host 0 to host 1's `port`, where a listener must be, and accepts there.
    pub fn pair(&mut self, port: u16) -> (ConnectionId, ConnectionId) {
        let listener = self.hosts[1].stack.listen(self.address(1, port), 8).expect("listen");
        let client = self.hosts[0].stack.connect(self.address(1, port), None).expect("connect");
        let mut server = None;
        self.run(
            Duration::from_secs(60),
            |net| {
                if server.is_none() {
                    server = net.hosts[1].stack.accept(listener).expect("an open listener");
                }
                false
            },
            |_| false,
        );
        let server = server.expect("the connection was accepted");
        self.hosts[1].stack.close_listener(listener);
        for host in &mut self.hosts {
            while host.stack.next_event().is_some() {}
        }
        (client, server)
    }

    /// Asserts that neither stack has connections or has lost frames.
    #[track_caller]
    pub fn assert_clean(&mut self) {
        for (index, host) in self.hosts.iter_mut().enumerate() {
            assert_eq!(host.stack.connections(), 0, "connections left on host {index}");
            host.stack.arena_mut().collect_held();
            let arena = host.stack.arena();
            if arena.free() != host.frames {
                for frame in (0..host.frames as u32).map(Frame::new) {
                    if !arena.owners(frame).is_empty() {
                        let (owners, meta) = (arena.owners(frame), arena.meta(frame));
                        eprintln!("{frame:?} {owners:?} {meta:?} {:02x?}", arena.bytes(frame));
                    }
                }
                let counters: Vec<_> =
                    host.stack.counters().iter().filter(|&(_, count)| count > 0).collect();
                panic!("frames leaked on host {index}: {counters:?}");
            }
        }
    }
}

impl Host {
    fn turn(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while self.port.rx(now, self.stack.arena_mut(), &mut self.rx).expect("an open wire") > 0 {
            moved = true;
            self.stack.receive(now, &mut self.rx);
        }
        self.stack.advance(now);
        while self.stack.transmit(now, &mut self.tx) > 0 {
            moved = true;
            self.port.tx(now, self.stack.arena_mut(), &mut self.tx).expect("an open wire");
            assert!(self.tx.is_empty(), "the memory wire takes all");
        }
        self.stack.check_invariants();
        moved
    }

    /// Reads everything that is there.
    pub fn read(&mut self, id: ConnectionId) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Ok(Some(frame)) = self.stack.read(id) {
            bytes.extend_from_slice(self.stack.arena().bytes(frame));
            self.stack.arena_mut().release(frame, Owners::RECEIVED);
        }
        bytes
    }

    pub fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.stack.next_event()).collect()
    }
}
