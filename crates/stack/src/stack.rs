//! The stack itself: what it owns, and one turn of it.

use std::collections::VecDeque;
use std::io;

use millrace_frames::{Arena, BURST, Frame, Instant, Owners, RxBatch, TxBatch};

use crate::address::{Addresses, Word, is_v4};
use crate::backlog::Backlog;
use crate::config::check::check;
use crate::control::Waiting;
use crate::dhcp::Dhcp;
use crate::first_hop::Path;
use crate::group::Listening;
use crate::hash::Keys;
use crate::ip6;
use crate::large_datagrams::LargeDatagrams;
use crate::memory::Memory;
use crate::neighbour::{Action, NeighbourRef, Neighbours};
use crate::path_mtu::{self, PathMtus};
use crate::rate::{Purpose, RateLimit};
use crate::reassembly::Reassembly;
use crate::table::FlowTable;
use crate::tcp::api::{ConnectionId, ListenerId};
use crate::tcp::challenge_ack::Answers;
use crate::tcp::connection::{Connection, Flags, NO_LINK, Ready};
use crate::tcp::fast_open::cache::Cache;
use crate::tcp::list::List;
use crate::tcp::listen::Listener;
use crate::tcp::ordinary;
use crate::tcp::proven_peers::ProvenPeers;
use crate::tcp::rtt::Bounds;
use crate::tcp::settings::Settings;
use crate::tcp::table::FourTuple;
use crate::tcp::transfer::Transfers;
use crate::udp::{SocketId, UdpSocket};
use crate::wheel::{self, Wheel};
use crate::{Config, Counters};

/// No listener or socket has the port.
pub(crate) const NO_SOCKET: u16 = u16::MAX;

/// The last destination of a connection that a next hop was found for, from which address, and how it
/// is reached: connections come in runs. Forgotten when routes or addresses change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastHop {
    pub(crate) destination: Word,
    pub(crate) local: u8,
    pub(crate) path: Path,
    pub(crate) neighbour: NeighbourRef,
}

impl LastHop {
    /// Everybody's group, which no packet comes from or can be for one host; not 0, which hostile
    /// ones come from.
    pub(crate) const NONE: LastHop = LastHop {
        destination: Word::MAX,
        local: 0,
        path: Path { local: 0, next_hop: 0 },
        neighbour: NeighbourRef::NONE,
    };
}

/// A stack whose timers should have run so long ago (19 hours) runs them before it does anything else:
/// the deadlines of connections are 32 bits, which tell what is over from what is to come while
/// nothing is set anew.
const STANDSTILL_TICKS: u64 = 1 << 30;

/// One TCP/IP stack.
pub struct Stack {
    pub(crate) config: Config,
    pub(crate) arena: Arena,
    pub(crate) memory: Memory,
    pub(crate) counters: Counters,
    pub(crate) keys: Keys,
    pub(crate) addresses: Addresses,
    pub(crate) neighbours: Neighbours,
    pub(crate) last_hop: LastHop,

    pub(crate) now: Instant,
    pub(crate) now_us: u32,
    /// The same, all of it.
    pub(crate) whole_us: u64,
    /// For timestamps (RFC 7323).
    pub(crate) now_ms: u32,
    pub(crate) now_s: u32,
    /// When the next millisecond begins, microseconds.
    next_ms_us: u64,
    pub(crate) tick: u64,

    pub(crate) connections: Box<[Connection]>,
    pub(crate) free_connections: u32,
    pub(crate) connections_in_use: u32,
    pub(crate) transfers: Transfers,
    pub(crate) flows: FlowTable,
    pub(crate) wheel: Wheel,
    /// No timer runs out before this tick.
    pub(crate) next_tick: u64,
    /// Connections with something to send.
    pub(crate) out: List,
    /// Connections with something to tell.
    pub(crate) ready: List,
    /// Connections that found no frame to write to.
    pub(crate) starved: VecDeque<u32>,
    pub(crate) time_wait: List,
    pub(crate) time_wait_count: u32,
    /// Frames that wait beyond gaps, of all connections, and how many may.
    pub(crate) out_of_order_total: u32,
    pub(crate) out_of_order_most: u32,

    pub(crate) fast_open_cache: Cache,
    /// Connections that go on without an application, and those of them in FIN-WAIT-2.
    pub(crate) orphans: u32,
    pub(crate) fin_wait_2: List,
    /// Half-open connections of all listeners.
    pub(crate) half_open_total: u32,
    pub(crate) listeners: Vec<Listener>,
    /// First listener of each TCP port.
    pub(crate) tcp_ports: Box<[u16]>,
    pub(crate) ready_listeners: VecDeque<u16>,
    pub(crate) port_counter: [u32; 16],
    /// Where the ports of the last destination that was connected to are chosen from.
    pub(crate) port_secret: Option<(FourTuple, u64)>,

    pub(crate) sockets: Vec<UdpSocket>,
    /// First socket of each UDP port.
    pub(crate) udp_ports: Box<[u16]>,
    pub(crate) ready_sockets: VecDeque<u16>,

    /// The configuration's, in the units of their users.
    pub(crate) rtt_bounds: Bounds,
    pub(crate) initial_timeout_us: u32,
    pub(crate) delayed_ack_ticks: u32,
    pub(crate) default_settings: Settings,
    /// The configuration asks for nothing that not all headers have.
    pub(crate) ordinary_headers: bool,
    pub(crate) path_mtus: PathMtus,
    pub(crate) large_datagrams: LargeDatagrams,

    pub(crate) reassembly: Reassembly,
    pub(crate) dhcp: Option<Box<Dhcp>>,
    /// Groups of IPv4 and of IPv6.
    pub(crate) igmp: Listening,
    pub(crate) mld: Listening,
    pub(crate) ip6: ip6::State,
    /// Counters of the datagrams that were given an identification (RFC 6864), by destination.
    pub(crate) identifications: Box<[u32]>,

    /// Packets besides those of connections.
    pub(crate) control: VecDeque<Waiting>,
    pub(crate) reset_rate: RateLimit,
    pub(crate) icmp_rate: RateLimit,
    /// Reports of a path's MTU for which all connections are looked at.
    pub(crate) path_rate: RateLimit,
    /// To segments that cannot be right.
    pub(crate) answers: Answers,
    /// Who has ended a handshake.
    pub(crate) proven_peers: ProvenPeers,
    /// What waits before the stack.
    pub(crate) backlog: Backlog,
}

/// Something that the application must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection waits to be accepted. Told again after each [`Stack::accept`] that leaves
    /// others waiting, and when another comes.
    Accept(ListenerId),
    /// A connection has something to tell.
    Connection(ConnectionId, Ready),
    /// A datagram has arrived.
    Datagram(SocketId),
}

impl Stack {
    /// Makes a stack over an arena; `now` is the time it starts at.
    ///
    /// # Errors
    /// `InvalidInput` when a bound in the configuration makes no sense, naming it.
    pub fn new(mut config: Config, arena: Arena, now: Instant) -> io::Result<Stack> {
        check(&config, &arena)?;
        // A port may cut up more than an IP packet can hold beside its headers.
        config.tx_gso = config.tx_gso.min(u32::from(u16::MAX) - 40);
        let tick = now.as_nanos() >> wheel::TICK_SHIFT;
        let mut connections =
            vec![Connection::EMPTY; config.connections as usize].into_boxed_slice();
        for (index, connection) in connections.iter_mut().enumerate() {
            connection.link = index as u32 + 1;
        }
        if let Some(last) = connections.last_mut() {
            last.link = NO_LINK;
        }
        let mut stack = Stack {
            keys: Keys::new(config.seed),
            addresses: Addresses::new(&config.addresses, config.gateway, config.routes),
            neighbours: Neighbours::new(&config),
            last_hop: LastHop::NONE,
            memory: Memory::new(&config, &arena, now),
            counters: Counters::default(),
            now,
            now_us: (now.as_nanos() / 1000) as u32,
            whole_us: now.as_nanos() / 1000,
            now_ms: (now.as_nanos() / 1_000_000) as u32,
            now_s: (now.as_nanos() / 1_000_000_000) as u32,
            next_ms_us: 0,
            tick,
            free_connections: if connections.is_empty() { NO_LINK } else { 0 },
            connections,
            connections_in_use: 0,
            transfers: Transfers::default(),
            flows: FlowTable::new(config.connections),
            wheel: Wheel::new(config.connections, tick),
            next_tick: 0,
            out: List::EMPTY,
            ready: List::EMPTY,
            starved: VecDeque::new(),
            time_wait: List::EMPTY,
            time_wait_count: 0,
            out_of_order_total: 0,
            out_of_order_most: match config.out_of_order_frames_total {
                0 => arena.frames() as u32 / 2,
                most => most,
            },
            fast_open_cache: Cache::default(),
            orphans: 0,
            fin_wait_2: List::EMPTY,
            half_open_total: 0,
            listeners: Vec::with_capacity(config.listeners.into()),
            tcp_ports: vec![NO_SOCKET; 1 << 16].into_boxed_slice(),
            ready_listeners: VecDeque::with_capacity(config.listeners.into()),
            port_counter: [0; 16],
            port_secret: None,
            sockets: Vec::with_capacity(config.datagram_sockets.into()),
            udp_ports: vec![NO_SOCKET; 1 << 16].into_boxed_slice(),
            ready_sockets: VecDeque::with_capacity(config.datagram_sockets.into()),
            rtt_bounds: Bounds {
                min: config.min_rto.as_micros().min(u128::from(u32::MAX)) as u32,
                max: config.max_rto.as_micros().min(u128::from(u32::MAX)) as u32,
            },
            default_settings: Settings::new(&config),
            ordinary_headers: ordinary::are_ordinary(&config),
            path_mtus: PathMtus::new(config.path_mtus),
            large_datagrams: LargeDatagrams::new(),
            initial_timeout_us: config.initial_rto.as_micros().min(1 << 31) as u32,
            delayed_ack_ticks: crate::tcp::timers::ticks(config.delayed_ack),
            dhcp: config
                .dhcp
                .clone()
                .map(|dhcp| Box::new(Dhcp::new(dhcp, &Keys::new(config.seed), now, config.mtu))),
            igmp: Listening::new(&config.multicast),
            mld: Listening::new(&config.multicast),
            ip6: ip6::State::new(&config.ipv6, config.mtu),
            reassembly: Reassembly::new(&config.reassembly, arena.frame_size()),
            identifications: vec![0; crate::fragmentation::COUNTERS].into_boxed_slice(),
            control: VecDeque::with_capacity(usize::from(config.control_queue)),
            reset_rate: RateLimit::new(config.resets_per_second, Purpose::Resets, now),
            icmp_rate: RateLimit::new(config.icmp_per_second, Purpose::Icmp, now),
            path_rate: path_mtu::rate(config.connections, now),
            answers: Answers::new(config.connections),
            proven_peers: ProvenPeers::new(),
            backlog: Backlog::new(config.syn_patience),
            config,
            arena,
        };
        stack.start_ipv6();
        Ok(stack)
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Switches parts of TCP on or off, for connections that open from now on. Those that are open
    /// keep what they agreed on with their peers.
    pub fn set_tcp_features(&mut self, features: crate::TcpFeatures) {
        self.config.tcp = features;
        self.ordinary_headers = ordinary::are_ordinary(&self.config);
    }

    /// Whether ECN is asked for and granted, for connections that open from now on.
    pub fn set_ecn(&mut self, ecn: crate::Ecn) {
        self.config.ecn = ecn;
    }

    /// What Fast Open does, for connections that open from now on. Keys, and the size of the cache
    /// of cookies, stay what they are.
    pub fn set_fast_open_modes(&mut self, modes: crate::FastOpenConfig) {
        let now = &mut self.config.fast_open;
        let (keys, cache) = (core::mem::take(&mut now.keys), now.cache);
        *now = crate::FastOpenConfig { keys, cache, ..modes };
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The frames.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The frames, for the port and for who returns what was read.
    #[inline]
    pub fn arena_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }

    /// Connections in any state, TIME-WAIT included.
    pub fn connections(&self) -> usize {
        self.connections_in_use as usize
    }

    /// Connections that their application has closed and that go on, TIME-WAIT apart.
    pub fn orphans(&self) -> usize {
        self.orphans as usize
    }

    /// Connections in TIME-WAIT.
    pub fn time_wait_connections(&self) -> usize {
        self.time_wait_count as usize
    }

    #[inline]
    fn set_time(&mut self, now: Instant) {
        if now <= self.now {
            return;
        }
        self.now = now;
        self.whole_us = self.now.as_nanos() / 1000;
        self.now_us = self.whole_us as u32;
        self.tick = self.now.as_nanos() >> wheel::TICK_SHIFT;
        if self.whole_us >= self.next_ms_us {
            self.begin_millisecond();
        }
    }

    /// What cannot change sooner. Most calls come within a few microseconds of each other.
    #[inline(never)]
    fn begin_millisecond(&mut self) {
        let millis = self.whole_us / 1000;
        self.next_ms_us = (millis + 1) * 1000;
        self.now_ms = millis as u32;
        self.now_s = (millis / 1000) as u32;
        if self.tick.saturating_sub(self.next_tick) > STANDSTILL_TICKS {
            self.run_timers();
        }
    }

    /// Runs the timers of connections that have run out.
    fn run_timers(&mut self) {
        while let Some((entry, expires)) = self.wheel.pop(self.tick) {
            self.tcp_timer(entry as usize, expires);
        }
        self.next_tick = self.wheel.next().unwrap_or(u64::MAX);
    }

    /// Takes the packets in `batch` and empties it. One that is not full, and an empty one, says that
    /// no others wait.
    pub fn receive(&mut self, now: Instant, batch: &mut RxBatch) {
        self.set_time(now);
        self.look_at_memory();
        self.backlog.batch(self.now, batch.is_full());
        for index in 0..batch.len() {
            let frame = batch[index];
            self.counters.packets_in += 1;
            self.packet(frame);
        }
        batch.clear();
    }

    /// Runs the timers that have run out by `now`.
    pub fn advance(&mut self, now: Instant) {
        self.set_time(now);
        if self.tick >= self.next_tick {
            self.run_timers();
        }
        self.advance_reassembly();
        self.advance_multicast();
        self.advance_dhcp();
        self.ipv6_timers();
        while let Some(action) = self.neighbours.act(self.now) {
            match action {
                Action::Ask { address, known } if is_v4(address) => {
                    self.arp_request(address, known);
                }
                Action::Ask { address, known } => self.neighbour_solicitation(address, known),
                Action::Lost { neighbour, address, packets, connecting } => {
                    self.counters.drop_neighbour_unreachable += packets as u64;
                    self.release_neighbour_packets();
                    if self.addresses.routes.gateway_lost(address) {
                        self.routes_changed();
                    }
                    if connecting {
                        self.tcp_neighbour_lost(neighbour);
                    }
                }
            }
        }
    }

    /// When [`Stack::advance`] has something to do at the latest. `None`: only a packet or the
    /// application can make something happen.
    pub fn next_deadline(&self) -> Option<Instant> {
        // Both are no later than the first timer. The wheel alone would name a time at which
        // `advance` has nothing to do yet, and whoever sleeps until then would not sleep.
        let tick = self.wheel.next().map(|tick| tick.max(self.next_tick));
        let timer = tick.map(|tick| Instant::from_nanos(tick << wheel::TICK_SHIFT));
        [
            timer,
            (self.ip6.due != Instant::FAR_FUTURE).then_some(self.ip6.due),
            self.neighbours.next_deadline(),
            self.reassembly.next_deadline(),
            self.igmp.next_deadline(),
            self.mld.next_deadline(),
            self.dhcp.as_ref().and_then(|dhcp| dhcp.next_deadline()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether [`Stack::transmit`] has something to do.
    #[inline]
    pub fn wants_transmit(&self) -> bool {
        self.out.head != NO_LINK || !self.control.is_empty()
    }

    /// Appends what is to be sent to `batch`, as much as there is room for. To be called until
    /// it appends nothing (returns 0), with the port taking the batch in between.
    #[inline]
    pub fn transmit(&mut self, now: Instant, batch: &mut TxBatch) -> usize {
        self.set_time(now);
        // The last call of each turn finds nothing.
        if self.wants_transmit() { self.transmit_waiting(batch) } else { 0 }
    }

    fn transmit_waiting(&mut self, batch: &mut TxBatch) -> usize {
        let before = batch.len();
        self.transmit_control(batch);
        // A connection that filled the batch goes to the end of the list, so one with much to
        // send does not keep the others waiting.
        let last = self.out.tail;
        while self.out.head != NO_LINK && !batch.is_full() {
            let index = self.pop_out();
            let done = self.tcp_output(index, batch);
            if !done {
                self.push_out(index);
                if !batch.is_full() || index as u32 == last {
                    break;
                }
            }
        }
        let appended = batch.len() - before;
        debug_assert!(batch.len() <= BURST);
        self.counters.packets_out += appended as u64;
        appended
    }

    /// The next thing to tell the application.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event> {
        let nothing = self.ready.head == NO_LINK
            && self.ready_listeners.is_empty()
            && self.ready_sockets.is_empty()
            && self.starved.is_empty();
        if nothing { None } else { self.next_of_events() }
    }

    fn next_of_events(&mut self) -> Option<Event> {
        if !self.starved.is_empty() {
            self.feed_starved();
        }
        while let Some(listener) = self.ready_listeners.pop_front() {
            if let Some(id) = self.listener_ready(listener) {
                return Some(Event::Accept(id));
            }
        }
        while let Some(index) = self.pop_ready() {
            let connection = &mut self.connections[index];
            // One that nobody has accepted keeps what it has to tell until then.
            if !connection.flags.has(Flags::ATTACHED) {
                continue;
            }
            let ready = core::mem::take(&mut connection.ready);
            if !ready.is_empty() {
                let id = ConnectionId { index: index as u32, generation: connection.generation };
                return Some(Event::Connection(id, ready));
            }
        }
        while let Some(index) = self.ready_sockets.pop_front() {
            if let Some(id) = self.socket_ready(index) {
                return Some(Event::Datagram(id));
            }
        }
        None
    }

    pub(crate) fn drop_chain(&mut self, frame: Frame) {
        self.arena.release_chain(frame, Owners::RECEIVED);
    }
}
