//! A stack under attack: bytes are read as a script of frames, program's calls and time, against a
//! stack with connections in every state. Shared by the property test and the fuzz target.
//!
//! Whatever the script is: no panic, the invariants hold after every step, and at the end every
//! frame and every entry comes back.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use millrace_frames::{
    Arena, ArenaConfig, ChecksumState, Frame, Hugepages, Instant, Owners, RxBatch, Transmit,
    TxBatch,
};
use millrace_stack::{
    Algorithm, Config, ConnectionId, DhcpConfig, Ecn, Event, InterfaceAddress, Ipv6Config,
    ListenerId, MulticastConfig, ProbeConfig, ReassemblyConfig, SocketId, Stack, SynCookies,
    UserTimeoutOption,
};
use millrace_wire::arp::Operation;
use millrace_wire::dhcpv4;
use millrace_wire::mac::Mac;
use millrace_wire::ndp;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{self, AccurateEcn, FastOpen, Flags, OptionWriter, UserTimeout};

use super::craft::{self, PEER_IP, PEER_MAC, STACK_IP, STACK_MAC, TcpSegment};
use super::craft6::{self, PEER_V6, STACK_V6};

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

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte
            }
            None => 0,
        }
    }

    fn one_in(&mut self, number: u8) -> bool {
        self.byte().is_multiple_of(number)
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn long(&mut self) -> u32 {
        u32::from(self.word()) << 16 | u32::from(self.word())
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let (now, later) = self.0.split_at(len.min(self.0.len()));
        self.0 = later;
        now.to_vec()
    }

    fn over(&self) -> bool {
        self.0.is_empty()
    }
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

    // Frames.

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

    /// A segment at the expected numbers, moved by so much.
    fn segment(&mut self, flow: usize, flags: Flags, seq: i32, ack: i32, payload: &[u8]) {
        let ack = self.flows[flow].snd_max.wrapping_add_signed(ack);
        self.absolute(flow, flags, seq, ack, payload, 0);
    }

    fn absolute(
        &mut self,
        flow: usize,
        flags: Flags,
        seq: i32,
        ack: u32,
        payload: &[u8],
        variant: u8,
    ) {
        let options = self.options(flow, flags, variant);
        let bytes = self.bytes(flow, flags, seq, ack, payload, variant, options);
        self.inject(&bytes, checksum_state(variant >> 4));
    }

    #[allow(clippy::too_many_arguments, reason = "one for each thing a segment has")]
    fn bytes(
        &self,
        flow: usize,
        flags: Flags,
        seq: i32,
        ack: u32,
        payload: &[u8],
        variant: u8,
        options: OptionWriter,
    ) -> Vec<u8> {
        let Flow { peer_port, stack_port, rcv_nxt, six, .. } = self.flows[flow];
        let mut options = options;
        if variant & 4 == 0 {
            let counter = [None, Some(0), Some(1), Some(0xff_ffff)][usize::from(variant >> 3) % 4];
            options.accurate_ecn(&AccurateEcn { e0b: counter, ceb: counter, e1b: counter });
        }
        let bytes = TcpSegment {
            source: (PEER_IP, peer_port),
            destination: (STACK_IP, stack_port),
            sequence: rcv_nxt.wrapping_add_signed(seq),
            acknowledgement: ack,
            flags,
            window: [0, 1, 500, 3000, 65_535][usize::from(variant >> 2) % 5],
            urgent: u16::from(variant),
            options,
            payload,
            ecn: (variant ^ variant >> 4) & 3,
            ae: variant & 8 != 0,
        }
        .bytes();
        if six { craft6::from_v4(&bytes) } else { bytes }
    }

    /// The peer's clock, in milliseconds.
    fn clock(&self) -> u32 {
        (self.now.as_micros() / 1000) as u32
    }

    /// Options that an honest peer would send.
    fn options(&self, flow: usize, flags: Flags, variant: u8) -> OptionWriter {
        let Flow { modern, stamp, .. } = self.flows[flow];
        let mut options = OptionWriter::new();
        if flags.contains(Flags::SYN) {
            if variant & 1 == 0 {
                options.mss([0, 100, 536, 1460, 65_535][usize::from(variant) % 5]);
            }
            if variant & 2 == 0 {
                options.window_scale([0, 7, 14, 255][usize::from(variant) % 4]);
            }
            if modern {
                options.sack_permitted();
            }
        }
        if modern {
            options.timestamps(self.clock(), stamp);
        }
        options
    }

    /// Options that lie: clocks that jump, blocks that were never sent or are gone, cookies.
    fn lies(&self, flow: usize, script: &mut Script<'_>) -> OptionWriter {
        let Flow { snd_una, snd_max, stamp, .. } = self.flows[flow];
        let mut options = OptionWriter::new();
        let what = script.byte();
        if what & 1 != 0 {
            let ahead = script.word() as i16;
            let echo = stamp.wrapping_add_signed((script.byte() as i8).into());
            options.timestamps(self.clock().wrapping_add_signed(ahead.into()), echo);
        }
        if what & 2 != 0 {
            let cookie = script.bytes(usize::from(what >> 5) * 2 + 2);
            if let Some(cookie) = FastOpen::new(&cookie) {
                options.fast_open(&cookie);
            }
        }
        if what & 4 != 0 {
            options.sack_permitted();
        }
        if what & 8 != 0 {
            let mut blocks = Vec::new();
            for _ in 0..1 + script.byte() % 4 {
                let base = if script.one_in(4) { snd_max } else { snd_una };
                let start = base.wrapping_add_signed(script.word() as i16 as i32);
                let len = match script.byte() % 4 {
                    0 => 1448,
                    1 => u32::from(script.byte()),
                    2 => u32::from(script.word()),
                    _ => script.long(),
                };
                blocks.push((Seq(start), Seq(start.wrapping_add(len))));
            }
            options.sack(&blocks);
        }
        if what & 16 != 0 {
            options.user_timeout(UserTimeout(script.word()));
        }
        options
    }

    /// Segments around the edges of windows and queues: what an attacker on the path would try.
    fn near_the_window(&mut self, script: &mut Script<'_>) {
        let bytes = self.attack(script);
        self.inject(&bytes, ChecksumState::Unknown);
    }

    fn attack(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let number = usize::from(script.byte()) % FLOWS;
        let flow = self.flows[number];
        let flags = Flags(script.byte());
        let flags = if !script.one_in(4) { flags | Flags::ACK } else { flags };
        let flags = if !script.one_in(4) { flags & !(Flags::RST | Flags::SYN) } else { flags };
        let near = script.byte() as i8 as i32;
        let seq = match script.byte() % 6 {
            0 | 1 => 0,
            2 => near,
            3 => near * 100,
            4 => flow.window as i32 + near,
            _ => script.long() as i32,
        };
        let near = script.byte() as i8 as i32;
        let ack = match script.byte() % 6 {
            0 | 1 => flow.snd_max,
            2 => flow.snd_una,
            3 => flow.snd_una.wrapping_add_signed(near),
            4 => flow.snd_max.wrapping_add_signed(near),
            _ => script.long(),
        };
        let len = match script.byte() % 5 {
            0 | 1 => 0,
            2 => usize::from(script.byte()),
            3 => usize::from(script.word()) % 1461,
            _ => usize::from(script.word()) % 20_000,
        };
        let payload = vec![0x5a; len];
        let variant = script.byte();
        let options = if variant & 0x40 != 0 {
            self.lies(number, script)
        } else {
            self.options(number, flags, variant & 0x0f)
        };
        let mut bytes = self.bytes(number, flags, seq, ack, &payload, variant & 0x0f, options);
        // The ECN field of the IP header.
        if !flow.six {
            bytes[15] |= variant >> 4 & 3;
            craft::mend_ip_checksum(&mut bytes);
            return bytes;
        }
        bytes[15] |= variant & 0x30;
        if variant & 0x80 != 0 {
            for _ in 0..1 + script.byte() % 3 {
                let kind = [0, 43, 44, 60, 51, 135][usize::from(script.byte()) % 6];
                bytes = craft6::extended(&bytes, kind, script.byte() % 3);
            }
        }
        bytes
    }

    fn burst(&mut self, script: &mut Script<'_>) {
        let mut batch = RxBatch::new();
        for _ in 0..1 + script.byte() % 16 {
            let bytes = self.attack(script);
            if let Some(frame) = self.frame(&bytes) {
                let _ = batch.push(frame);
            }
        }
        self.stack.receive(self.now, &mut batch);
        self.collect();
    }

    /// A good packet with some bytes changed, its transport checksum vouched for by the port.
    fn mutated(&mut self, script: &mut Script<'_>) {
        let mut bytes = match script.byte() % 4 {
            0 => craft::udp_datagram((PEER_IP, 999), (STACK_IP, 53), b"question"),
            1 => craft::echo_request(PEER_IP, STACK_IP, b"ping"),
            _ => self.attack(script),
        };
        for _ in 0..script.byte() % 8 {
            let at = usize::from(script.byte()) % bytes.len();
            bytes[at] = script.byte();
        }
        if script.one_in(2) && bytes.len() >= 34 {
            craft::mend_ip_checksum(&mut bytes);
        }
        if script.one_in(4) {
            let len = usize::from(script.word()) % (bytes.len() + 1);
            bytes.truncate(len);
        }
        self.inject(&bytes, checksum_state(script.byte()));
    }

    fn datagram(&mut self, script: &mut Script<'_>) {
        let payload = vec![0x5a; usize::from(script.word()) % 1473];
        let port = if script.one_in(4) { script.word() } else { 53 };
        let to = match script.byte() % 8 {
            0 => Ipv4Addr::BROADCAST,
            1 | 2 => Ipv4Addr::new(239, 0, 0, script.byte() % 4),
            _ => STACK_IP,
        };
        let bytes = craft::udp_datagram((PEER_IP, script.word()), (to, port), &payload);
        self.inject(&bytes, ChecksumState::Unknown);
    }

    /// IPv6: fragments and queries that were good once.
    fn six(&mut self, script: &mut Script<'_>) {
        let len = usize::from(script.word()) % [100, 3000, 20_000][usize::from(script.byte()) % 3];
        let data = vec![0x5a; len];
        let group = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, u16::from(script.byte() % 4));
        let mut parts = match script.byte() % 6 {
            4 => {
                let target = if script.one_in(2) { STACK_V6 } else { PEER_V6 };
                let source = [PEER_V6, craft6::PEER_LINK, Ipv6Addr::UNSPECIFIED, STACK_V6];
                let source = source[usize::from(script.byte()) % 4];
                let mac = Mac([2, 0, 0, 0, 1, script.byte()]);
                let flags = ndp::AdvertisementFlags {
                    router: script.one_in(2),
                    solicited: script.one_in(2),
                    override_: script.one_in(2),
                };
                match script.one_in(2) {
                    true => vec![craft6::solicitation(source, target, None)],
                    false => {
                        let ends = (source, STACK_V6);
                        vec![craft6::advertisement(ends, target, flags, Some(mac))]
                    }
                }
            }
            5 => {
                let router = craft6::RouterAdvertisement {
                    hop_limit: script.byte(),
                    lifetime: script.word(),
                    reachable_ms: script.long(),
                    retransmit_ms: script.long(),
                    ..craft6::RouterAdvertisement::default()
                };
                let network = Ipv6Addr::new(0x2001, 0xdb8, script.word() % 4, 0, 0, 0, 0, 0);
                let mut router =
                    router.mtu([1280, 1400, 0, u32::MAX][usize::from(script.byte()) % 4]);
                for _ in 0..script.byte() % 4 {
                    let (flags, valid) = (script.byte(), script.long());
                    router = router.prefix(network, flags, valid, script.long());
                    router = router.route(network, script.byte(), script.byte() % 4, valid);
                }
                vec![router.bytes()]
            }
            0 => {
                let mut message = vec![[130, 130, 131, 143][usize::from(script.byte()) % 4], 0];
                message.extend([0, 0, script.byte(), script.byte(), 0, 0]);
                let all = script.one_in(3);
                message.extend(if all { [0; 16] } else { group.octets() });
                message.extend([script.byte(), script.byte(), 0, script.byte() % 3]);
                message.extend(STACK_V6.octets());
                message.truncate(8 + usize::from(script.byte()) % 40);
                let to = if all { craft6::ALL_NODES } else { group };
                vec![craft6::mld(craft6::PEER_LINK, to, &message)]
            }
            choice => {
                let to = if script.one_in(4) { group } else { STACK_V6 };
                let whole = match choice {
                    1 => craft6::echo(PEER_V6, to, &data),
                    _ => craft6::udp((PEER_V6, 999), (to, 53), &data),
                };
                let mtu = [96, 300, 1500][usize::from(script.byte()) % 3];
                craft6::fragments(&whole, mtu, u32::from(script.byte() % 8))
            }
        };
        for _ in 0..script.byte() % 4 {
            let at = usize::from(script.byte()) % parts.len();
            match script.byte() % 4 {
                0 => parts.push(parts[at].clone()),
                1 => parts.reverse(),
                2 => {
                    let byte = usize::from(script.byte()) % parts[at].len().min(80);
                    parts[at][byte] = script.byte();
                }
                _ => {
                    let len = usize::from(script.word()) % parts[at].len();
                    parts[at].truncate(len + 1);
                }
            }
        }
        for part in parts.iter().take(80) {
            self.inject(part, ChecksumState::Unknown);
        }
    }

    /// A server that knows the exchange's number and lies about the rest.
    fn dhcp(&mut self, script: &mut Script<'_>) {
        let mut bytes = vec![0; dhcpv4::MAX_LEN];
        let header = dhcpv4::Header {
            reply: !script.one_in(8),
            transaction: self.transaction,
            seconds: 0,
            broadcast: false,
            client_address: Ipv4Addr::UNSPECIFIED,
            your_address: Ipv4Addr::new(192, 0, 2, 60 + script.byte() % 4),
            hardware_address: STACK_MAC,
        };
        use dhcpv4::MessageType::{Ack, Nak, Offer};
        let kind = [Offer, Ack, Ack, Nak][usize::from(script.byte()) % 4];
        let mut writer = dhcpv4::Writer::new(&mut bytes, header, kind);
        writer.option(dhcpv4::option::SERVER_IDENTIFIER, &PEER_IP.octets());
        writer.option(dhcpv4::option::SUBNET_MASK, &[255, 255, 255, script.byte()]);
        let seconds = [0, 1, 100, u32::MAX][usize::from(script.byte()) % 4];
        writer.option(dhcpv4::option::LEASE_TIME, &seconds.to_be_bytes());
        for _ in 0..script.byte() % 4 {
            let code = [1, 3, 6, 26, 51, 58, 59, 121][usize::from(script.byte()) % 8];
            let len = usize::from(script.byte()) % 12;
            let mut data = script.bytes(len);
            data.resize(len, 192);
            writer.option(code, &data);
        }
        let len = writer.finish();
        let packet = craft::udp_datagram((PEER_IP, 67), (Ipv4Addr::BROADCAST, 68), &bytes[..len]);
        self.inject(&packet, ChecksumState::Unknown);
    }

    /// Queries and reports of every version, with lists that may lie about their length.
    fn igmp(&mut self, script: &mut Script<'_>) {
        let group = Ipv4Addr::new(239, 0, 0, script.byte() % 4);
        let [a, b, c, d] = if script.one_in(3) { [0; 4] } else { group.octets() };
        let kind = [0x11, 0x11, 0x16, 0x12][usize::from(script.byte()) % 4];
        let mut message = vec![kind, script.byte(), 0, 0, a, b, c, d];
        if !script.one_in(3) {
            let sources = script.byte() % 5;
            message.extend_from_slice(&[script.byte(), script.byte(), 0, sources]);
            for _ in 0..if script.one_in(4) { script.byte() % 5 } else { sources } {
                message.extend_from_slice(&[198, 51, 100, script.byte() % 4]);
            }
        }
        let to = if a == 0 { Ipv4Addr::new(224, 0, 0, 1) } else { group };
        let bytes = craft::igmp_message(PEER_IP, to, &message);
        self.inject(&bytes, ChecksumState::Unknown);
    }

    /// Fragments of a good packet: some of them, out of order, twice, moved, cut.
    fn fragments(&mut self, script: &mut Script<'_>) {
        let len = usize::from(script.word()) % [100, 3000, 20_000][usize::from(script.byte()) % 3];
        let source = Ipv4Addr::new(192, 0, 2, 2 + script.byte() % 4);
        let whole = match script.byte() % 4 {
            0 => craft::echo_request(source, STACK_IP, &vec![0x5a; len]),
            1 => self.attack(script),
            _ => craft::udp_datagram((source, 999), (STACK_IP, 53), &vec![0x5a; len]),
        };
        let (mtu, number) = ([68, 300, 1500][usize::from(script.byte()) % 3], script.byte() % 8);
        let six = craft6::is_six(&whole);
        let mut parts = match six {
            true => craft6::fragments(&whole, mtu.max(96), number.into()),
            false => craft::fragments(&whole, mtu, number.into()),
        };
        for _ in 0..script.byte() % 4 {
            let at = usize::from(script.byte()) % parts.len();
            match script.byte() % 5 {
                0 => drop(parts.swap_remove(at)),
                1 => parts.push(parts[at].clone()),
                2 => parts.reverse(),
                3 => parts[at][20] ^= 0x20,
                _ => parts[at][21] ^= script.byte() % 8,
            }
            if parts.is_empty() {
                return;
            }
            let at = at % parts.len();
            if !six {
                craft::mend_ip_checksum(&mut parts[at]);
            }
        }
        for part in parts.iter().take(80) {
            self.inject(part, ChecksumState::Unknown);
        }
    }

    fn icmp_error(&mut self, script: &mut Script<'_>) {
        let number = usize::from(script.byte()) % FLOWS;
        let Flow { peer_port, stack_port, snd_una, six, .. } = self.flows[number];
        let quoted = TcpSegment {
            source: (STACK_IP, stack_port),
            destination: (PEER_IP, peer_port),
            sequence: snd_una.wrapping_add_signed((script.byte() as i8).into()),
            ..TcpSegment::default()
        }
        .bytes();
        if six {
            let whole = craft6::packet(STACK_V6, PEER_V6, 64, 6, &quoted[34..]);
            let len = 14 + usize::from(script.byte()) % (whole.len() - 13);
            let (kind, code) = (1 + script.byte() % 4, script.byte() % 5);
            let word = if script.one_in(2) { 1280 } else { script.long() };
            let bytes = craft6::error(PEER_V6, kind, code, word, &whole[14..len]);
            return self.inject(&bytes, ChecksumState::Unknown);
        }
        let len = 14 + usize::from(script.byte()) % (quoted.len() - 13);
        let code = script.byte();
        let bytes = craft::unreachable(Ipv4Addr::new(192, 0, 2, 254), code, &quoted[14..len]);
        self.inject(&bytes, ChecksumState::Unknown);
    }

    fn arp(&mut self, script: &mut Script<'_>) {
        let host = |byte: u8| Ipv4Addr::new(192, 0, 2, byte % 8);
        let operation = Operation::from(u16::from(script.byte() % 4));
        let sender = (Mac([2, 0, 0, 0, 1, script.byte()]), host(script.byte()));
        let target = (Mac([0; 6]), host(script.byte()));
        let bytes = craft::arp_packet(operation, sender, target);
        self.inject(&bytes, ChecksumState::Unknown);
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

    // What the program does.

    fn program(&mut self, script: &mut Script<'_>) {
        let choice = usize::from(script.byte());
        let id = match self.connections.len() {
            0 => None,
            len => Some((choice % len, self.connections[choice % len])),
        };
        match (script.byte() % 16, id) {
            (0..=2, Some((_, id))) => {
                let data = vec![0x77; usize::from(script.word()) % 30_000];
                let _ = self.stack.write(id, &data);
            }
            (3 | 4, Some((_, id))) => self.read(id, usize::from(script.byte() % 8)),
            (5, Some((_, id))) => drop(self.stack.shutdown_write(id)),
            (6, Some((_, id))) => drop(self.stack.shutdown_read(id)),
            (7, Some((at, id))) => {
                self.stack.close(id);
                self.connections.swap_remove(at);
            }
            (8, Some((_, id))) => self.stack.abort(id),
            (9, Some((_, id))) => {
                let linger = Duration::from_millis(script.word().into());
                let _ = self.stack.set_linger(id, script.one_in(2).then_some(linger));
            }
            (10, Some((_, id))) => {
                let _ = self.stack.set_no_delay(id, script.one_in(2));
                let _ = self.stack.rearm(id);
            }
            (11, _) => {
                let number = script.byte() % 12;
                let (six, last) = (number >= 6, 2 + number % 6);
                let host: IpAddr = match six {
                    true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into(),
                    false => Ipv4Addr::new(192, 0, 2, last).into(),
                };
                let port = 5000 + u16::from(script.byte()) % 16;
                let remote = SocketAddr::new(host, port);
                let opened = if script.one_in(3) {
                    let data = vec![0x33; usize::from(script.word()) % 3000];
                    self.stack.connect_with_data(remote, None, &data).map(|(id, _)| id)
                } else {
                    self.stack.connect(remote, None)
                };
                if let Ok(id) = opened {
                    let local = self.stack.info(id).expect("just made").local.port();
                    self.connections.push(id);
                    let number = usize::from(script.byte()) % FLOWS;
                    let flow = &mut self.flows[number];
                    (flow.peer_port, flow.stack_port, flow.six) = (port, local, six);
                }
            }
            (12, _) => match self.listener.take() {
                Some(listener) => self.stack.close_listener(listener),
                None => {
                    self.listener =
                        self.stack.listen(any(80), 1 + u32::from(script.byte()) % 8).ok();
                }
            },
            (13, _) => self.datagram_calls(script),
            (14, _) => self.events(),
            _ => self.stack.announce(),
        }
        self.collect();
    }

    fn datagram_calls(&mut self, script: &mut Script<'_>) {
        let Some(&socket) = self.sockets.first() else {
            let local = SocketAddr::new(STACK_IP.into(), 53);
            self.sockets.extend(self.stack.bind_datagram(local));
            return;
        };
        match script.byte() % 6 {
            4 | 5 => {
                let six = script.one_in(2);
                let number = script.byte() % 5;
                let group: IpAddr = match six {
                    true => Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, u16::from(number)).into(),
                    false => Ipv4Addr::new(239, 0, 0, number).into(),
                };
                let source = || match six {
                    true => IpAddr::from(PEER_V6),
                    false => Ipv4Addr::new(198, 51, 100, 1).into(),
                };
                let named = script.one_in(2).then(source);
                let _ = match script.byte() % 5 {
                    0 | 1 => self.stack.join_group(socket, group, named),
                    2 => self.stack.leave_group(socket, group, named),
                    3 => self.stack.block_source(socket, group, source()),
                    _ => self.stack.unblock_source(socket, group, source()),
                };
            }
            0 => {
                let host = match script.one_in(4) {
                    true => Ipv4Addr::new(239, 0, 0, script.byte() % 4),
                    false => Ipv4Addr::new(192, 0, 2, script.byte() % 8),
                };
                let remote = SocketAddr::new(host.into(), script.word());
                let most = if script.one_in(4) { 25_000 } else { 1600 };
                let data = vec![1; usize::from(script.word()) % most];
                let _ = self.stack.send_datagram(socket, &data, Some(remote));
            }
            1 => {
                while let Ok(Some(datagram)) = self.stack.receive_datagram(socket) {
                    self.stack.arena_mut().release_chain(datagram.frame, Owners::RECEIVED);
                }
            }
            2 => {
                let remote = SocketAddr::new(PEER_IP.into(), script.word());
                let _ = self.stack.connect_datagram(socket, remote);
            }
            _ => {
                self.stack.close_datagram(socket);
                self.sockets.clear();
            }
        }
    }

    fn read(&mut self, id: ConnectionId, frames: usize) {
        for _ in 0..frames {
            let Ok(Some(frame)) = self.stack.read(id) else { return };
            self.stack.arena_mut().release(frame, Owners::RECEIVED);
        }
    }

    fn events(&mut self) {
        let mut count = 0;
        while let Some(event) = self.stack.next_event() {
            count += 1;
            assert!(count < 1000, "events without end: {event:?}");
            match event {
                Event::Accept(listener) => {
                    if let Ok(Some(id)) = self.stack.accept(listener) {
                        self.connections.push(id);
                    }
                }
                Event::Connection(id, _) => {
                    self.stack.info(id).expect("an event about a live handle");
                }
                Event::Datagram(_) => {}
            }
        }
    }

    // What the stack sends: taken note of, as somebody on the path would.

    fn collect(&mut self) {
        let mut batch = TxBatch::new();
        let mut rounds = 0;
        while self.stack.transmit(self.now, &mut batch) > 0 {
            rounds += 1;
            assert!(rounds < 1000, "the stack sends without end");
            for packet in batch.iter() {
                self.observe(packet);
                self.in_flight.push(*packet);
            }
            batch.clear();
        }
        // A port that is done at once, but for a few of the last packets.
        while self.in_flight.len() > 8 {
            let packet = self.in_flight.remove(0);
            self.stack.arena_mut().transmitted(&packet);
        }
    }

    fn observe(&mut self, packet: &Transmit) {
        let start = usize::from(packet.offset);
        let mut bytes =
            self.stack.arena().room(packet.head)[start..start + usize::from(packet.len)].to_vec();
        let mut frame = packet.head;
        for _ in 1..packet.frames {
            frame = self.stack.arena().meta(frame).next;
            bytes.extend_from_slice(self.stack.arena().bytes(frame));
        }
        assert_eq!(bytes.len(), packet.total as usize);
        // Parsing verifies lengths and checksums.
        if let craft::Packet::Udp { source: (_, 68), payload, .. } =
            craft::parse(&bytes, packet.checksum_start != 0)
            && let Ok(message) = dhcpv4::Packet::parse(&payload)
        {
            self.transaction = message.transaction();
        }
        match craft::parse(&bytes, packet.checksum_start != 0) {
            craft::Packet::Tcp(_) => self.note(false, &bytes[34..]),
            craft::Packet::V6(sent) if sent.protocol == 6 && sent.fragment.is_none() => {
                self.note(true, &sent.payload);
            }
            _ => {}
        }
    }

    fn note(&mut self, six: bool, bytes: &[u8]) {
        let segment = tcp::Segment::parse(bytes).expect("it was parsed before");
        let ports = (segment.source_port(), segment.destination_port());
        let flow = self
            .flows
            .iter_mut()
            .find(|flow| (flow.stack_port, flow.peer_port) == ports && flow.six == six);
        let flags = segment.flags();
        if let Some(flow) = flow
            && !flags.contains(Flags::RST)
        {
            let taken =
                u32::from(flags.contains(Flags::SYN)) + u32::from(flags.contains(Flags::FIN));
            let payload = bytes.len() - segment.header_len();
            flow.snd_una = segment.sequence().0;
            flow.snd_max = flow.snd_una.wrapping_add(payload as u32 + taken);
            if let Some((stamp, _)) = segment.options().expect("ours").timestamps {
                flow.stamp = stamp;
            }
            if flags.contains(Flags::ACK) {
                flow.rcv_nxt = segment.acknowledgement().0;
                flow.window = u32::from(segment.window());
            }
        }
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
