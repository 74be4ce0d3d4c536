//! What two hosts have to say to each other: one connection, its two sides, and how each behaves.

use millrace_frames::{Duration, Instant};
use millrace_stack::{ConnectionInfo, Failure};

use crate::topology::NodeId;

/// How a side ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Writes all, shuts its side, reads to the end, and waits until all that it wrote was
    /// acknowledged.
    Patient,
    /// Writes all, shuts its side, reads to the end, closes.
    Polite,
    /// Writes all and closes without reading to the end.
    Hasty,
    /// Resets the connection after so many bytes in both directions together.
    Rude(u64),
    /// As `Polite`, but what it receives is thrown away unread (`shutdown_read`).
    Deaf,
    /// The client closes before it knows whether it is connected.
    Fickle,
}

impl Manner {
    /// Whether it reads to the end and ends in order.
    pub fn is_polite(self) -> bool {
        matches!(self, Manner::Patient | Manner::Polite)
    }
}

/// When a side acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once, whenever the stack tells it something.
    Eager,
    /// Some time later, up to `pause`, and then it reads at most `frames` frames and writes at
    /// most `bytes` bytes.
    Lazy {
        /// Longest time between two looks.
        pause: Duration,
        /// Frames read at a look.
        frames: u32,
        /// Bytes written at a look.
        bytes: u32,
    },
}

/// What one side of a conversation does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behaviour {
    /// Bytes that it writes, for as long as it may.
    pub bytes: u64,
    /// It stops writing so long after it was connected.
    pub writes_for: Option<Duration>,
    /// How it ends.
    pub manner: Manner,
    /// When it acts.
    pub pace: Pace,
    /// No Nagle.
    pub no_delay: bool,
    /// `Stack::set_linger`.
    pub linger: Option<Duration>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            bytes: 0,
            writes_for: None,
            manner: Manner::Patient,
            pace: Pace::Eager,
            no_delay: false,
            linger: None,
        }
    }
}

/// Requests and responses in turn, as many as the client's bytes make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Bytes of a request, at least 1.
    pub request: u32,
    /// Bytes of a response, at least 1.
    pub response: u32,
    /// Time from a response to the next request.
    pub think: Duration,
}

/// One connection, from a client to a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversation {
    /// Who connects.
    pub client: NodeId,
    /// Who listens.
    pub server: NodeId,
    /// The server's port.
    pub port: u16,
    /// By IPv6.
    pub ipv6: bool,
    /// When it starts, counted from the simulation's start.
    pub start: Duration,
    /// What the client and what the server does.
    pub sides: [Behaviour; 2],
    /// If both talk in turn.
    pub exchange: Option<Exchange>,
}

impl Conversation {
    /// The client sends `bytes` bytes, then both close.
    pub fn bulk(client: NodeId, server: NodeId, port: u16, bytes: u64) -> Conversation {
        Conversation {
            client,
            server,
            port,
            ipv6: false,
            start: Duration::ZERO,
            sides: [Behaviour { bytes, ..Behaviour::default() }, Behaviour::default()],
            exchange: None,
        }
    }

    /// `count` requests, each answered before the next is sent.
    pub fn requests(
        client: NodeId,
        server: NodeId,
        port: u16,
        count: u64,
        exchange: Exchange,
    ) -> Conversation {
        let side = |bytes| Behaviour { bytes, no_delay: true, ..Behaviour::default() };
        Conversation {
            sides: [
                side(count * u64::from(exchange.request)),
                side(count * u64::from(exchange.response)),
            ],
            exchange: Some(exchange),
            ..Conversation::bulk(client, server, port, 0)
        }
    }
}

/// What became of one side.
#[derive(Clone, Debug, Default)]
pub struct SideReport {
    /// Bytes that it wrote and the stack took.
    pub written: u64,
    /// Bytes that it read.
    pub received: u64,
    /// It read all that the other side sent, to the end.
    pub finished: bool,
    /// Why its connection ended before its time.
    pub failure: Option<Failure>,
    /// It let go of its connection by itself: closed or aborted it.
    pub let_go: bool,
    /// Its host vanished.
    pub vanished: bool,
    /// When it was connected.
    pub connected: Option<Instant>,
    /// When it received its first and its last byte.
    pub first_byte: Option<Instant>,
    /// When it received its last byte.
    pub last_byte: Option<Instant>,
    /// When it was over.
    pub ended: Option<Instant>,
    /// The last look at its connection.
    pub info: Option<ConnectionInfo>,
}

impl SideReport {
    /// Bytes received in a second, from being connected to the last byte.
    pub fn goodput(&self) -> f64 {
        match (self.connected, self.last_byte) {
            (Some(first), Some(last)) if last > first => {
                self.received as f64 / (last - first).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

/// What became of a conversation.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it was to be.
    pub conversation: Conversation,
    /// When it started.
    pub started: Instant,
    /// Client and server.
    pub sides: [SideReport; 2],
    /// How long each request took until its response was there, in order.
    pub latencies: Vec<Duration>,
}

impl Report {
    /// Whether both sides got all that the other wrote, and nobody failed.
    pub fn complete(&self) -> bool {
        let [client, server] = &self.sides;
        client.received == server.written
            && server.received == client.written
            && self.sides.iter().all(|side| side.failure.is_none() && side.ended.is_some())
    }

    /// From the start until the later side had its last byte or its connection.
    pub fn duration(&self) -> Option<Duration> {
        let last = |side: &SideReport| side.last_byte.or(side.connected);
        let end = self.sides.iter().filter_map(last).max()?;
        Some(end - self.started)
    }
}
