//! A stack under attack: bytes are read as a script of frames, program's calls and time, against a
//! stack with connections in every state. Shared by the property test and the fuzz target.
//!
//! Whatever the script is: no panic, the invariants hold after every step, and at the end every
//! frame and every entry comes back.

mod observation;
mod packets;
mod program;
mod script;
mod segments;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use millrace_frames::{
    Arena, ArenaConfig, ChecksumState, Frame, Hugepages, Instant, Owners, RxBatch, Transmit,
};
use millrace_stack::{
    Algorithm, Config, ConnectionId, DhcpConfig, Ecn, InterfaceAddress, Ipv6Config, ListenerId,
    MulticastConfig, ProbeConfig, ReassemblyConfig, SocketId, Stack, SynCookies, UserTimeoutOption,
};
use millrace_wire::arp::Operation;
use millrace_wire::mac::Mac;
use millrace_wire::tcp::Flags;

use crate::craft::{self, PEER_IP, PEER_MAC, STACK_IP, STACK_MAC};
use crate::craft6::{self, PEER_V6, STACK_V6};

use script::Script;

const FRAMES: u32 = 256;
const FLOWS: usize = 12;

/// A connection as an attacker on the path sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    peer_port: u16,
    stack_port: u16,
    /// What the stack expects next, by its last acknowledgement.
    rcv_nxt: u32,
    window: u32,
    /// What the stack has sent so far.
    snd_max: u32,
    /// What it repeats.
    snd_una: u32,
    /// The peer speaks timestamps and selective acknowledgements.
    modern: bool,
    /// Over IPv6.
    six: bool,
    /// The stack's last timestamp.
    stamp: u32,
}

struct Target {
    stack: Stack,
    now: Instant,
    flows: [Flow; FLOWS],
    listener: Option<ListenerId>,
    sockets: Vec<SocketId>,
    connections: Vec<ConnectionId>,
    in_flight: Vec<Transmit>,
    hoard: Vec<Frame>,
    /// Of the stack's last DHCP message.
    transaction: u32,
}

/// Runs a script.
pub fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    let mut target = Target::new(script.byte(), script.byte());
    target.open_connections();
    while !script.over() {
        target.step(&mut script);
        target.stack.check_invariants();
    }
    target.finish();
}

impl Target {
    /// `families`: which flows are over IPv6.
    fn new(variant: u8, families: u8) -> Target {
        let gso = variant & 1 != 0;
        let config = Config {
            ecn: [Ecn::Passive, Ecn::Accurate, Ecn::On, Ecn::Off][usize::from(variant >> 3) % 4],
            dhcp: (variant & 4 != 0).then(|| DhcpConfig {
                probe: ProbeConfig { count: variant >> 3 & 1, ..ProbeConfig::default() },
                ..DhcpConfig::default()
            }),
            mac: STACK_MAC,
            addresses: vec![
                InterfaceAddress { address: STACK_IP.into(), prefix: 24 },
                InterfaceAddress { address: STACK_V6.into(), prefix: 64 },
            ],
            // An address that is not sure yet takes no connections.
            ipv6: Ipv6Config { dad_transmits: u8::from(families == 0), ..Ipv6Config::default() },
            user_timeout_option: (families & 2 != 0).then(UserTimeoutOption::default),
            gateway: Some(Ipv4Addr::new(192, 0, 2, 254).into()),
            seed: [1, 2, 3, 4],
            tx_gso: if gso { 65_535 } else { 0 },
            tx_checksum: gso,
            connections: 16,
            time_wait_connections: 4,
            listeners: 2,
            datagram_sockets: 2,
            neighbours: 4,
            neighbour_queue: 3,
            control_queue: 16,
            frame_reserve: 32,
            send_buffer: 20_000,
            receive_buffer: if variant & 2 != 0 { 2048 } else { 150_000 },
            out_of_order_frames: 12,
            datagram_queue: 30,
            multicast: MulticastConfig { groups: 3, sources: 2, ..MulticastConfig::default() },
            reassembly: ReassemblyConfig {
                datagrams: 4,
                datagrams_per_source: 3,
                frames_per_datagram: 40,
                memory: 60 * 2048,
                ..ReassemblyConfig::default()
            },
            ephemeral_ports: 40_000..=40_003,
            retries: 4,
            congestion: Algorithm::ALL[usize::from(variant >> 4 & 3)],
            syn_cookies: match variant >> 6 {
                0 => SynCookies::Off,
                1 => SynCookies::Always,
                _ => SynCookies::WhenFull,
            },
            ..Config::default()
        };
        let now = Instant::from_millis(5_000_000);
        let arena = Arena::new(ArenaConfig {
            frames: FRAMES,
            frame_size: 2048,
            hugepages: Hugepages::Never,
        })
        .expect("a small arena");
        let mut stack = Stack::new(config, arena, now).expect("a stack");
        let listener = stack.listen(any(80), 6).expect("listen");
        stack.set_fast_open(listener, 3).expect("just made");
        let listener = Some(listener);
        let socket = stack.bind_datagram(any(53)).expect("bind");
        Target {
            stack,
            now,
            flows: core::array::from_fn(|number| Flow {
                peer_port: 5000 + number as u16,
                stack_port: 80,
                rcv_nxt: 1000,
                modern: number % 2 == 1 || variant & 8 != 0,
                six: families >> (number % 8) & 1 != 0,
                ..Flow::default()
            }),
            listener,
            sockets: vec![socket],
            connections: Vec::new(),
            in_flight: Vec::new(),
            hoard: Vec::new(),
            transaction: 0,
        }
    }

    /// Flows 0 to 8 in the states of RFC 9293 from SYN-SENT to TIME-WAIT.
    fn open_connections(&mut self) {
        self.inject(
            &craft::arp_packet(Operation::Request, (PEER_MAC, PEER_IP), (Mac([0; 6]), STACK_IP)),
            ChecksumState::Unknown,
        );
        self.inject(&craft6::solicitation(PEER_V6, STACK_V6, None), ChecksumState::Unknown);
        let peer: IpAddr = if self.flows[0].six { PEER_V6.into() } else { PEER_IP.into() };
        let remote = SocketAddr::new(peer, self.flows[0].peer_port);
        let id = self.stack.connect(remote, None).expect("a free port");
        self.connections.push(id);
        self.flows[0].stack_port = self.stack.info(id).expect("just made").local.port();
        self.collect();
        for number in 1..9 {
            self.segment(number, Flags::SYN, 0, 0, &[]);
            if number == 1 {
                continue;
            }
            self.segment(number, Flags::ACK, 0, 0, &[]);
            self.events();
            let id = *self.connections.last().expect("accepted");
            match number {
                3 | 4 | 7 | 8 => {
                    self.stack.shutdown_write(id).expect("open");
                    self.collect();
                    match number {
                        4 => self.segment(number, Flags::ACK, 0, 0, &[]),
                        7 => {
                            let behind = self.flows[number].snd_max.wrapping_sub(1);
                            self.absolute(number, Flags::FIN | Flags::ACK, 0, behind, &[], 0);
                        }
                        8 => self.segment(number, Flags::FIN | Flags::ACK, 0, 0, &[]),
                        _ => {}
                    }
                }
                5 | 6 => {
                    self.segment(number, Flags::FIN | Flags::ACK, 0, 0, &[]);
                    if number == 6 {
                        self.stack.shutdown_write(id).expect("open");
                        self.collect();
                    }
                }
                _ => {}
            }
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0 => {
                let len = usize::from(script.byte()) % 100;
                let mut bytes = script.bytes(len);
                // Long ones without using up the script.
                bytes.resize(len * (1 + usize::from(script.byte()) % 40), 0x5a);
                self.inject(&bytes, checksum_state(script.byte()));
            }
            1 => self.mutated(script),
            2..=6 => self.near_the_window(script),
            7 if script.one_in(2) => self.fragments(script),
            7 => self.datagram(script),
            8 if script.one_in(3) => self.igmp(script),
            8 if script.one_in(3) => self.dhcp(script),
            8 => self.icmp_error(script),
            9 if script.one_in(2) => self.six(script),
            9 => self.arp(script),
            10 => {
                let millis = u64::from(script.word());
                self.advance(Duration::from_millis(millis));
            }
            11 => self.burst(script),
            12 => {
                for packet in core::mem::take(&mut self.in_flight) {
                    self.stack.arena_mut().transmitted(&packet);
                }
            }
            13 => self.hoarding(script),
            _ => self.program(script),
        }
    }

    fn frame(&mut self, bytes: &[u8]) -> Option<Frame> {
        let arena = self.stack.arena_mut();
        let head = arena.allocate(Owners::RECEIVED)?;
        let mut last = head;
        let mut chunks = bytes.chunks(arena.frame_size() - 2);
        let mut chunk = chunks.next().unwrap_or(&[]);
        loop {
            arena.room_mut(last)[2..2 + chunk.len()].copy_from_slice(chunk);
            let meta = arena.meta_mut(last);
            (meta.offset, meta.len) = (2, chunk.len() as u16);
            let Some(next) = chunks.next() else { break };
            chunk = next;
            let Some(frame) = arena.allocate(Owners::RECEIVED) else {
                arena.release_chain(head, Owners::RECEIVED);
                return None;
            };
            arena.meta_mut(last).next = frame;
            last = frame;
        }
        arena.meta_mut(head).total = bytes.len() as u32;
        Some(head)
    }

    fn inject(&mut self, bytes: &[u8], checksum: ChecksumState) {
        let Some(frame) = self.frame(bytes) else { return };
        self.stack.arena_mut().meta_mut(frame).checksum = checksum;
        let mut batch = RxBatch::new();
        let _ = batch.push(frame);
        self.stack.receive(self.now, &mut batch);
        self.collect();
    }

    fn hoarding(&mut self, script: &mut Script<'_>) {
        let arena = self.stack.arena_mut();
        if self.hoard.is_empty() {
            let left = usize::from(script.byte()) % 64;
            while arena.free() > left {
                self.hoard.extend(arena.allocate(Owners::RECEIVED));
            }
        } else {
            for frame in self.hoard.drain(..) {
                arena.release(frame, Owners::RECEIVED);
            }
        }
        self.collect();
    }

    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        let mut rounds = 0;
        while let Some(deadline) = self.stack.next_deadline().filter(|&at| at <= end) {
            rounds += 1;
            assert!(rounds < 200_000, "wakes up without end");
            self.now = self.now.max(deadline);
            self.stack.advance(self.now);
            self.collect();
        }
        self.now = end;
        self.stack.advance(end);
        self.collect();
    }

    fn finish(mut self) {
        self.events();
        self.stack.dhcp_release();
        for frame in self.hoard.drain(..) {
            self.stack.arena_mut().release(frame, Owners::RECEIVED);
        }
        if let Some(listener) = self.listener.take() {
            self.stack.close_listener(listener);
        }
        for id in self.connections.drain(..) {
            self.stack.abort(id);
            self.stack.release(id);
        }
        for socket in self.sockets.drain(..) {
            self.stack.close_datagram(socket);
        }
        self.collect();
        self.advance(Duration::from_secs(3 * 3600));
        for packet in core::mem::take(&mut self.in_flight) {
            self.stack.arena_mut().transmitted(&packet);
        }
        self.stack.check_invariants();
        assert_eq!(self.stack.connections(), 0, "entries leaked");
        assert_eq!(self.stack.arena().free(), FRAMES as usize, "frames leaked");
    }
}

/// Any address of either family.
fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)
}

fn checksum_state(choice: u8) -> ChecksumState {
    match choice % 4 {
        0 => ChecksumState::Unknown,
        1 => ChecksumState::Verified,
        2 => ChecksumState::Unfinished,
        _ => ChecksumState::MaybeUnfinished,
    }
}
