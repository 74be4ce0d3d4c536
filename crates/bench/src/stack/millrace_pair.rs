//! Our own stack, on the memory port.
//!
//! A turn of a side is the loop that every program of ours runs: a burst from the port, the
//! stack, the program's answers to what the stack tells, and bursts to the port. Everything is at its
//! default but what the work itself asks for: table sizes, and for bulk a send buffer that keeps to
//! the cache, as smoltcp has.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use millrace_frames::{Arena, ArenaConfig, Hugepages, Instant, Owners, RxBatch, TxBatch};
use millrace_port::Port;
use millrace_port::memory::{self, MemoryPort, WireConfig};
use millrace_stack::{Config, ConnectionId, Event, InterfaceAddress, ListenerId, Ready, Stack};

use super::pair::{BULK_UNIT, CONNECT_CLOSE_SIZE, Done, Pair, Work};
use crate::options::Failure;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const FIRST_PORT: u16 = 7;
/// Connections that one port of the server takes from one client address: a little less than
/// there are ephemeral ports.
const CONNECTIONS_A_PORT: usize = 60_000;
/// Connections that are being opened at a time, so that no queue on the way overflows.
const OPENING: usize = 256;
/// Packets on the wire each way. A turn sends at most one burst before the other side takes it,
/// but for bulk, which is bounded by its buffers.
const WIRE_QUEUE: usize = 4096;

struct Side {
    stack: Stack,
    port: MemoryPort,
    received: RxBatch,
    transmit: TxBatch,
}

impl Side {
    fn new(
        port: MemoryPort,
        address: IpAddr,
        config: Config,
        arena: ArenaConfig,
    ) -> io::Result<Self> {
        let capabilities = port.capabilities();
        let config = Config {
            mac: capabilities.mac.expect("a memory port has a hardware address"),
            addresses: vec![InterfaceAddress { address, prefix: 24 }],
            tx_checksum: capabilities.tx_checksum,
            tx_gso: capabilities.tx_gso,
            ..config
        };
        let stack = Stack::new(config, Arena::new(arena)?, Instant::ZERO)?;
        Ok(Side { stack, port, received: RxBatch::new(), transmit: TxBatch::new() })
    }

    /// One burst through the stack; `program` answers. Returns how many packets came.
    #[inline]
    fn burst(&mut self, now: Instant, program: &mut Program) -> io::Result<usize> {
        let Side { stack, port, received, transmit } = self;
        let count = port.rx(now, stack.arena_mut(), received)?;
        stack.receive(now, received);
        stack.advance(now);
        while let Some(event) = stack.next_event() {
            program.told(stack, event)?;
        }
        program.begin(stack)?;
        loop {
            stack.transmit(now, transmit);
            if transmit.is_empty() {
                return Ok(count);
            }
            // What finds no room stays in the batch for the next turn.
            if port.tx(now, stack.arena_mut(), transmit)? == 0 {
                return Ok(count);
            }
        }
    }
}

/// What a side's program does and what it knows.
struct Program {
    role: Role,
    work: Work,
    message: Vec<u8>,
    /// Bytes of the message under way that have come, by connection.
    progress: Vec<u32>,
    /// Connections to open still.
    to_open: usize,
    /// Connections asked for, and connections that were opened, since the beginning.
    asked_for: usize,
    open: usize,
    /// Ports of the server, used one after the other.
    ports: u16,
    operations: u64,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

impl Program {
    fn new(role: Role, work: Work, connections: usize, table: u32) -> Self {
        let message = match work {
            Work::RoundTrips { size, .. } => size,
            Work::ConnectClose { .. } => CONNECT_CLOSE_SIZE,
            Work::Bulk { .. } => BULK_UNIT as usize,
            Work::Idle { .. } => 0,
        };
        Program {
            role,
            work,
            message: vec![0x5a; message],
            progress: vec![0; if message > 0 { table as usize } else { 0 }],
            to_open: if role == Role::Client { connections } else { 0 },
            asked_for: 0,
            open: 0,
            ports: ports(connections),
            operations: 0,
            bytes: 0,
        }
    }

    /// Opens connections, as long as there are some to open.
    #[inline]
    fn begin(&mut self, stack: &mut Stack) -> io::Result<()> {
        if self.to_open == 0 {
            return Ok(());
        }
        // The first one finds the peer's hardware address.
        let most = if self.open == 0 { 1 } else { OPENING };
        let now = self.to_open.min(most - most.min(self.asked_for - self.open));
        for _ in 0..now {
            let port =
                FIRST_PORT + (self.asked_for / CONNECTIONS_A_PORT % usize::from(self.ports)) as u16;
            stack.connect(SocketAddr::new(SERVER, port), None)?;
            self.asked_for += 1;
        }
        self.to_open -= now;
        Ok(())
    }

    #[inline]
    fn told(&mut self, stack: &mut Stack, event: Event) -> io::Result<()> {
        match event {
            Event::Accept(listener) => self.accept(stack, listener),
            Event::Connection(id, ready) => match self.act(stack, id, ready) {
                // A connection that this program has closed had something to tell still.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                result => result,
            },
            Event::Datagram(_) => Ok(()),
        }
    }

    fn accept(&mut self, stack: &mut Stack, listener: ListenerId) -> io::Result<()> {
        while let Some(id) = stack.accept(listener)? {
            self.open += 1;
            if let Some(progress) = self.progress.get_mut(id.index()) {
                *progress = 0;
            }
            // What came before is told of nowhere else.
            self.act(stack, id, Ready::READABLE)?;
        }
        Ok(())
    }

    #[inline]
    fn act(&mut self, stack: &mut Stack, id: ConnectionId, ready: Ready) -> io::Result<()> {
        if ready.has(Ready::READABLE) && !self.message.is_empty() {
            let read = self.read(stack, id)?;
            if matches!(self.work, Work::Bulk { .. }) {
                self.operations = self.bytes / BULK_UNIT;
            } else {
                self.answer(stack, id, read)?;
            }
        }
        if ready.has(Ready::CONNECTED) {
            self.open += 1;
            if let Some(progress) = self.progress.get_mut(id.index()) {
                *progress = 0;
                self.write(stack, id)?;
            }
        }
        if ready.has(Ready::WRITABLE) && matches!(self.work, Work::Bulk { .. }) {
            self.write(stack, id)?;
        }
        if ready.has(Ready::FINISHED) && self.role == Role::Client {
            stack.shutdown_write(id)?;
        }
        if ready.has(Ready::CLOSED) {
            self.ended(stack, id)?;
        }
        Ok(())
    }

    /// Takes all that a connection has received; returns how many bytes.
    #[inline]
    fn read(&mut self, stack: &mut Stack, id: ConnectionId) -> io::Result<u32> {
        let mut bytes = 0;
        while let Some(frame) = stack.read(id)? {
            let arena = stack.arena_mut();
            bytes += u32::from(arena.meta(frame).len);
            arena.release(frame, Owners::RECEIVED);
        }
        self.bytes += u64::from(bytes);
        Ok(bytes)
    }

    /// Counts a message in; a whole one is answered, or begins the next round.
    #[inline]
    fn answer(&mut self, stack: &mut Stack, id: ConnectionId, read: u32) -> io::Result<()> {
        let progress = &mut self.progress[id.index()];
        *progress += read;
        if (*progress as usize) < self.message.len() {
            return Ok(());
        }
        *progress = 0;
        let closing = matches!(self.work, Work::ConnectClose { .. });
        match self.role {
            Role::Server => {
                self.write(stack, id)?;
                if closing {
                    stack.close(id);
                }
            }
            Role::Client if closing => {}
            Role::Client => {
                self.operations += 1;
                self.write(stack, id)?;
            }
        }
        Ok(())
    }

    /// Writes the message; for bulk, as often as it is taken.
    #[inline]
    fn write(&mut self, stack: &mut Stack, id: ConnectionId) -> io::Result<()> {
        let bulk = matches!(self.work, Work::Bulk { .. });
        loop {
            let written = stack.write(id, &self.message)?;
            if written < self.message.len() || !bulk {
                return Ok(());
            }
        }
    }

    fn ended(&mut self, stack: &mut Stack, id: ConnectionId) -> io::Result<()> {
        if let Some(failure) = stack.failure(id)? {
            return Err(io::Error::other(format!("a connection ended: {failure:?}")));
        }
        stack.release(id);
        if self.role == Role::Client && matches!(self.work, Work::ConnectClose { .. }) {
            self.operations += 1;
            self.to_open += 1;
        }
        Ok(())
    }
}

fn ports(connections: usize) -> u16 {
    connections.div_ceil(CONNECTIONS_A_PORT) as u16
}

/// Two stacks and their programs.
pub struct MillracePair {
    work: Work,
    connections: usize,
    client: Side,
    server: Side,
    client_program: Program,
    server_program: Program,
    failed: Option<io::Error>,
}

impl MillracePair {
    /// Makes both stacks. The connections are opened in the turns that follow.
    ///
    /// # Errors
    /// What the stack says to its configuration.
    pub fn open(work: Work) -> Result<Self, Failure> {
        Self::try_open(work).map_err(|error| Failure::of("millrace", error))
    }

    fn try_open(work: Work) -> io::Result<Self> {
        let connections = match work {
            Work::RoundTrips { connections, .. }
            | Work::ConnectClose { connections }
            | Work::Idle { connections } => connections,
            Work::Bulk { .. } => 1,
        };
        let super_segments = matches!(work, Work::Bulk { super_segments: true });
        let (near, far) = memory::wire(WireConfig {
            gso: if super_segments { u32::from(u16::MAX) } else { 0 },
            queue: WIRE_QUEUE,
            ..WireConfig::default()
        });
        let ports = ports(connections);
        let mut config = Config {
            connections: connections as u32 + 16,
            time_wait_connections: 0,
            listeners: ports,
            ephemeral_ports: 1024..=u16::MAX,
            ..Config::default()
        };
        if matches!(work, Work::ConnectClose { .. }) {
            config.time_wait_connections = 16_384;
            config.connections += config.time_wait_connections;
        }
        if matches!(work, Work::Bulk { .. }) {
            config.send_buffer = 128 * 1024;
            config.send_buffer_max = config.send_buffer;
        }
        let arena = ArenaConfig { frames: 16_384, frame_size: 2048, hugepages: Hugepages::Prefer };
        let table = config.connections;
        let client = Side::new(near, CLIENT, config.clone(), arena)?;
        let mut server = Side::new(far, SERVER, config, arena)?;
        for port in FIRST_PORT..FIRST_PORT + ports {
            server.stack.listen(SocketAddr::new(SERVER, port), 4096)?;
        }
        Ok(MillracePair {
            work,
            connections,
            client,
            server,
            client_program: Program::new(Role::Client, work, connections, table),
            server_program: Program::new(Role::Server, work, connections, table),
            failed: None,
        })
    }

    fn try_turn(&mut self, now: Instant) -> io::Result<()> {
        self.client.burst(now, &mut self.client_program)?;
        self.server.burst(now, &mut self.server_program)?;
        Ok(())
    }
}

impl Pair for MillracePair {
    fn turn(&mut self, now: Duration) {
        if self.failed.is_none()
            && let Err(error) = self.try_turn(Instant::from_nanos(now.as_nanos() as u64))
        {
            self.failed = Some(error);
        }
    }

    fn done(&self) -> Done {
        let (client, server) = (self.client.stack.counters(), self.server.stack.counters());
        Done {
            operations: self.client_program.operations + self.server_program.operations,
            segments: client.packets_out + server.packets_out,
            bytes: self.client_program.bytes + self.server_program.bytes,
        }
    }

    fn ready(&self) -> bool {
        matches!(self.work, Work::ConnectClose { .. })
            || (self.client_program.open == self.connections
                && self.server_program.open == self.connections)
    }

    fn state(&self) -> String {
        let side = |name, side: &Side, program: &Program| {
            let (open, free) = (program.open, side.stack.arena().free());
            format!("{name}: {open} open, {free} frames free, {:?}", side.stack.counters())
        };
        let client = side("client", &self.client, &self.client_program);
        let server = side("server", &self.server, &self.server_program);
        format!("{client}; {server}")
    }

    fn failure(&self) -> Option<String> {
        self.failed.as_ref().map(ToString::to_string)
    }
}
