//! Every bound of a stack, in one place. What others may set has its name in [`by_name`].

pub(crate) mod by_name;
pub(crate) mod check;

use core::net::IpAddr;
use core::ops::RangeInclusive;
use core::time::Duration;

use millrace_wire::mac::Mac;

use crate::ip6::config::Ipv6Config;
use crate::tcp::congestion::Algorithm;
use crate::tcp::ecn::Ecn;

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The host's address.
    pub address: IpAddr,
    /// Bits of the network's prefix.
    pub prefix: u8,
}

/// Parts of TCP that can be switched off, so that the effect of each can be measured. All are on
/// unless said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFeatures {
    /// Window scaling (RFC 7323 §2).
    pub window_scaling: bool,
    /// Timestamps and protection against wrapped sequence numbers (RFC 7323 §3 to §5).
    pub timestamps: bool,
    /// Selective acknowledgements, both ways (RFC 2018, RFC 6675).
    pub sack: bool,
    /// Duplicates are reported, and reports believed (RFC 2883).
    pub dsack: bool,
    /// Loss detection by time (RFC 8985 §6).
    pub rack: bool,
    /// Tail loss probes (RFC 8985 §7).
    pub tail_loss_probe: bool,
    /// Proportional rate reduction (RFC 9937).
    pub prr: bool,
    /// Spurious timeouts are detected (RFC 5682).
    pub frto: bool,
    /// New segments on the first duplicate acknowledgements (RFC 3042).
    pub limited_transmit: bool,
    /// A reduction that proves unnecessary is taken back (RFC 3708, RFC 4015).
    pub undo: bool,
    /// The retransmission timer counts from the segment's own time (RFC 7765).
    pub rto_restart: bool,
    /// Copies that leave in fast recovery, on a path that reorders, have a timestamp that has the
    /// peer refuse nothing which they overtake (RFC 7323 §5.3).
    pub held_timestamps: bool,
    /// Segments are spread over the round trip.
    pub pacing: bool,
    /// Acknowledgements go at once where a sender needs them, and are delayed for as long as was
    /// learned; without it each second segment has one and the others wait for `delayed_ack`.
    pub quick_ack: bool,
    /// A window that was not used for a timeout is the initial one again (RFC 5681 §4.1).
    pub slow_start_after_idle: bool,
    /// Segments that are as predicted, acknowledgements in order and single segments take shorter
    /// ways, on which nothing is different but the time that they take.
    pub prediction: bool,
}

impl Default for TcpFeatures {
    fn default() -> Self {
        TcpFeatures {
            window_scaling: true,
            timestamps: true,
            sack: true,
            dsack: true,
            rack: true,
            tail_loss_probe: true,
            prr: true,
            frto: true,
            limited_transmit: true,
            undo: true,
            rto_restart: true,
            held_timestamps: true,
            pacing: true,
            quick_ack: true,
            slow_start_after_idle: true,
            prediction: true,
        }
    }
}

/// Fast Open (RFC 7413): data in SYNs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastOpenConfig {
    /// [`crate::Stack::connect_with_data`] asks for cookies and sends data in SYNs; without it
    /// the data waits for the handshake.
    pub client: bool,
    /// Listeners that ask for it open connections early.
    pub server: bool,
    /// Our SYNs carry data without a cookie (Linux's `tcp_fastopen` 0x4).
    pub client_without_cookie: bool,
    /// Data in SYNs is taken without a cookie: only where nobody can invent addresses (Linux's
    /// `tcp_fastopen` 0x200).
    pub server_without_cookie: bool,
    /// Keys of our cookies, at most two: the first makes them, both are believed. None: the seed
    /// gives one. Servers behind one address need the same.
    pub keys: Vec<[u8; 16]>,
    /// Most servers whose cookies are kept.
    pub cache: u32,
}

impl Default for FastOpenConfig {
    fn default() -> Self {
        FastOpenConfig {
            client: true,
            server: true,
            client_without_cookie: false,
            server_without_cookie: false,
            keys: Vec::new(),
            cache: 1024,
        }
    }
}

/// Bounds of what comes of the peer's user timeout (RFC 5482 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserTimeoutOption {
    /// The least, whatever the peer wants (L_LIMIT): RFC 1122 §4.2.3.5 has 100 seconds.
    pub least: Duration,
    /// The most (U_LIMIT), so that no peer keeps a connection for ever.
    pub most: Duration,
}

impl Default for UserTimeoutOption {
    fn default() -> Self {
        UserTimeoutOption { least: Duration::from_secs(100), most: Duration::from_secs(3600) }
    }
}

/// When a SYN is answered with a cookie, and nothing about it is kept (RFC 4987 §3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SynCookies {
    /// Never: when the SYN queue is full, the oldest connection in it that was asked twice makes
    /// way, and if there is none, the SYN is dropped.
    Off,
    /// While the listener's SYN queue is full.
    #[default]
    WhenFull,
    /// Always. For tests, and for those who are always under attack.
    Always,
}

/// Whether `connect` may take four numbers that are in TIME-WAIT when no other port is left, or
/// when they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimeWaitReuse {
    /// No.
    Never,
    /// If the old connection had timestamps, a second later (RFC 6191).
    #[default]
    WithTimestamps,
    /// Whenever. An old segment of the peer's that was long on its way may pass for a new one.
    Always,
}

/// What happens to a connection whose handshake ends when the accept queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AcceptOverflow {
    /// The acknowledgement is dropped. The peer's data or our SYN-ACK comes again, and with luck
    /// there is room then.
    #[default]
    Drop,
    /// The peer gets a reset (Linux's `tcp_abort_on_overflow`).
    Reset,
}

/// Whether segment sizes are searched for that a path takes (RFC 4821), Linux's
/// `tcp_mtu_probing`. Reports of routers (RFC 1191, RFC 8201) are taken in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MtuProbing {
    /// Never.
    Off,
    /// When full segments time out again and again.
    #[default]
    BlackHole,
    /// From the beginning of each connection.
    Always,
}

/// What a stack is given when it is made. Nothing here changes afterwards.
#[derive(Clone, Debug)]
pub struct Config {
    /// Hardware address of the stack's end of the wire.
    pub mac: Mac,
    /// Largest IP packet in bytes, 576 to 65535.
    pub mtu: u16,
    /// The stack's own addresses, at most 255.
    pub addresses: Vec<InterfaceAddress>,
    /// Where packets for other networks go.
    pub gateway: Option<IpAddr>,
    /// Most entries of the routing table.
    pub routes: u16,
    /// Follow redirects of routers (RFC 1122 §3.2.2.2, RFC 4861 §8.3).
    pub redirects: bool,
    /// Most redirects of each family that are remembered; the oldest makes way.
    pub learned_redirects: u8,
    /// Settings of IPv6.
    pub ipv6: Ipv6Config,
    /// Secret of hashes, sequence numbers and ports. The same seed and the same input give the
    /// same output to the byte; a stack that faces others takes it from the system's randomness.
    pub seed: [u64; 4],
    /// The port finishes transport checksums.
    pub tx_checksum: bool,
    /// Payload bytes of the largest super-segment that the port cuts up; 0: none.
    pub tx_gso: u32,

    /// Most connections in any state, TIME-WAIT included.
    pub connections: u32,
    /// Most connections in TIME-WAIT; the oldest makes way.
    pub time_wait_connections: u32,
    /// Whether `connect` may take over a connection in TIME-WAIT.
    pub time_wait_reuse: TimeWaitReuse,
    /// Most connections that go on after their application has closed them; the oldest in FIN-WAIT-2
    /// makes way, and where there is none another one is reset.
    pub orphans: u32,
    /// Retransmissions of such a connection before it is given up, and probes of a window that stays
    /// closed though the peer answers: at least so many, and until they are `max_rto` apart.
    pub orphan_retries: u8,
    /// Most listeners.
    pub listeners: u16,
    /// Most half-open connections of a listener that does not say otherwise. All listeners
    /// together have at most half of `connections`.
    pub syn_queue: u32,
    /// When a SYN is answered with a cookie.
    pub syn_cookies: SynCookies,
    /// For how long more may arrive than the stack can take before SYNs that would get a cookie get
    /// no answer, but from peers that had a connection before and one in sixteen of the others.
    pub syn_patience: Duration,
    /// What happens when the accept queue is full at the end of a handshake.
    pub accept_overflow: AcceptOverflow,
    /// Data in SYNs.
    pub fast_open: FastOpenConfig,
    /// Most datagram sockets.
    pub datagram_sockets: u16,
    /// Most entries of the neighbour cache.
    pub neighbours: u16,
    /// Most packets that wait for one neighbour's address to be resolved.
    pub neighbour_queue: u8,
    /// Most packets that wait besides those of connections: resets, ICMP, ARP, datagrams.
    pub control_queue: u16,
    /// Frames that payload to be sent, and payload received out of order, may not take, so that
    /// the rest still works. Received payload in order leaves half of them.
    pub frame_reserve: u32,
    /// Frames in use from which on they are kept for those who hold few, and buffers do not grow
    /// (the second number of Linux's `tcp_mem`); 0: three quarters of those that there are, but for
    /// the reserve.
    pub memory_pressure: u32,
    /// Frames in use below which that ends (the first number of `tcp_mem`); 0: five eighths.
    pub memory_low: u32,
    /// Timeouts in a row, or probes of a closed window, after which a connection is given up while
    /// the frames but for the reserve are used up. One that its application has closed: the first.
    pub memory_retries: u8,

    /// Most unacknowledged and unsent bytes of a connection.
    pub send_buffer: u32,
    /// Most received bytes that a connection keeps for its application; the window's limit.
    pub receive_buffer: u32,
    /// To how many bytes the send buffer may grow with the congestion window; no more than
    /// `send_buffer`: not at all.
    pub send_buffer_max: u32,
    /// To how many bytes the receive buffer may grow with what is read in a round trip; no more than
    /// `receive_buffer`: not at all. The window scale is chosen for it.
    pub receive_buffer_max: u32,
    /// Most frames that wait for a gap before them to be filled, per connection; at most 24,576.
    pub out_of_order_frames: u16,
    /// Most such frames of all connections together; 0: half of the arena's. None gets more than the
    /// others leave free. Less than half makes windows that are announced larger than what is kept
    /// behind a gap, and a peer that fills them sends much again.
    pub out_of_order_frames_total: u32,
    /// Most frames of datagrams that a socket keeps for its application; newer datagrams are
    /// dropped. An empty queue takes one datagram of any size.
    pub datagram_queue: u16,

    /// Parts of TCP that can be switched off.
    pub tcp: TcpFeatures,
    /// Explicit congestion notification (RFC 3168, RFC 9768).
    pub ecn: Ecn,
    /// Congestion control of connections for which
    /// [`Stack::set_congestion`](crate::Stack::set_congestion) chooses no other.
    pub congestion: Algorithm,
    /// Ports that `connect` and port 0 choose from (RFC 6056).
    pub ephemeral_ports: RangeInclusive<u16>,
    /// Initial congestion window in segments (RFC 6928).
    pub initial_window: u8,
    /// Segments of which a train, at whose end PSH stands, has at least (Linux's
    /// `tcp_min_tso_segs`).
    pub least_train: u8,
    /// Room for less than this part of the window (3: a third) waits for the next acknowledgement
    /// where one is due, so that more leaves at once (Linux's `tcp_tso_win_divisor`). It saves work
    /// where a port cuts super-segments, and delays what it holds back. 0: all room is used.
    pub tso_win_divisor: u8,
    /// First retransmission timeout (RFC 6298 §2.1).
    pub initial_rto: Duration,
    /// Least retransmission timeout.
    pub min_rto: Duration,
    /// Greatest retransmission timeout.
    pub max_rto: Duration,
    /// Retransmissions of a SYN before `connect` fails.
    pub syn_retries: u8,
    /// Retransmissions of a SYN-ACK before the half-open connection is forgotten.
    pub syn_ack_retries: u8,
    /// Retransmissions of data (and window probes without an answer) before the connection is
    /// given up (RFC 1122 §4.2.3.5, R2).
    pub retries: u8,
    /// How long an acknowledgement may wait for data to ride on (RFC 1122 §4.2.3.2: below 500 ms).
    pub delayed_ack: Duration,
    /// Time in TIME-WAIT, twice the maximum segment lifetime.
    pub time_wait: Duration,
    /// Time in FIN-WAIT-2 without an application.
    pub fin_wait_2: Duration,

    /// Whether segment sizes are searched for that a path takes.
    pub mtu_probing: MtuProbing,
    /// Payload of a segment that the search begins with (RFC 4821 §7.2).
    pub base_mss: u16,
    /// Most destinations whose path MTU is remembered.
    pub path_mtus: u16,
    /// Whether idle connections are probed (`SO_KEEPALIVE`; RFC 1122 §4.2.3.6: off unless asked).
    pub keepalive: bool,
    /// Idle time before the first keepalive probe.
    pub keepalive_idle: Duration,
    /// Time between keepalive probes.
    pub keepalive_interval: Duration,
    /// Keepalive probes without an answer before the connection ends.
    pub keepalive_count: u8,
    /// How long what was sent may stay unacknowledged (RFC 5482); `None`: `retries` decides.
    pub user_timeout: Option<Duration>,
    /// Whether user timeouts are told to peers, and theirs taken where the application has set none
    /// itself (the option of RFC 5482, which wants it off unless asked for).
    pub user_timeout_option: Option<UserTimeoutOption>,
    /// Small segments leave at once (no Nagle).
    pub no_delay: bool,
    /// A connection is writable only while fewer bytes than this are unsent
    /// (`TCP_NOTSENT_LOWAT`).
    pub notsent_lowat: u32,

    /// Resets sent in one second for segments that no connection takes, in the mean: how many it is
    /// in each nobody can foresee.
    pub resets_per_second: u32,
    /// ICMP messages (echo replies apart) sent in one second (RFC 1812 §4.3.2.8), in the mean as well.
    pub icmp_per_second: u32,
    /// Challenge acknowledgements sent in one second (RFC 5961 §7) in the mean: the bound of each
    /// second is another one between half and one and a half of it, so that nobody learns from
    /// it. `u32::MAX`: no bound.
    pub challenge_acks_per_second: u32,
    /// Time between two answers of one connection to segments that cannot be right and carry no
    /// data: outside the window, or challenged (Linux's `tcp_invalid_ratelimit`).
    pub invalid_ack_interval: Duration,
    /// Get an IPv4 address, and what goes with it, from a DHCP server.
    pub dhcp: Option<crate::DhcpConfig>,
    /// Bounds and timers of multicast.
    pub multicast: crate::MulticastConfig,
    /// Bounds of reassembly.
    pub reassembly: crate::ReassemblyConfig,
    /// How long a neighbour's address is believed without a confirmation (RFC 1122 §2.3.2.1).
    pub neighbour_reachable: Duration,
    /// Time between two requests for a neighbour's address (RFC 1122: at most one a second).
    pub neighbour_retry: Duration,
    /// Requests before a neighbour is unreachable.
    pub neighbour_retries: u8,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            addresses: Vec::new(),
            gateway: None,
            routes: 64,
            redirects: true,
            learned_redirects: 16,
            ipv6: Ipv6Config::default(),
            seed: [0; 4],
            tx_checksum: false,
            tx_gso: 0,
            connections: 16_384,
            time_wait_connections: 8_192,
            time_wait_reuse: TimeWaitReuse::WithTimestamps,
            orphans: 8_192,
            orphan_retries: 8,
            listeners: 64,
            syn_queue: 1024,
            syn_cookies: SynCookies::WhenFull,
            syn_patience: Duration::from_millis(1),
            accept_overflow: AcceptOverflow::Drop,
            fast_open: FastOpenConfig::default(),
            datagram_sockets: 64,
            neighbours: 256,
            neighbour_queue: 8,
            control_queue: 256,
            frame_reserve: 256,
            memory_pressure: 0,
            memory_low: 0,
            memory_retries: 6,
            send_buffer: 1 << 20,
            receive_buffer: 1 << 20,
            send_buffer_max: 6 << 20,
            receive_buffer_max: 6 << 20,
            out_of_order_frames: 8192,
            out_of_order_frames_total: 0,
            datagram_queue: 256,
            tcp: TcpFeatures::default(),
            ephemeral_ports: 32_768..=65_535,
            ecn: Ecn::default(),
            congestion: Algorithm::default(),
            initial_window: 10,
            least_train: 2,
            tso_win_divisor: 0,
            initial_rto: Duration::from_secs(1),
            min_rto: Duration::from_millis(200),
            max_rto: Duration::from_secs(120),
            syn_retries: 6,
            syn_ack_retries: 5,
            retries: 15,
            delayed_ack: Duration::from_millis(40),
            time_wait: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            mtu_probing: MtuProbing::BlackHole,
            base_mss: 1024,
            path_mtus: 1024,
            keepalive: false,
            keepalive_idle: Duration::from_secs(7200),
            keepalive_interval: Duration::from_secs(75),
            keepalive_count: 9,
            user_timeout: None,
            user_timeout_option: None,
            no_delay: false,
            notsent_lowat: u32::MAX,
            resets_per_second: 10_000,
            icmp_per_second: 1_000,
            challenge_acks_per_second: 1_000,
            invalid_ack_interval: Duration::from_millis(500),
            dhcp: None,
            multicast: crate::MulticastConfig::default(),
            reassembly: crate::ReassemblyConfig::default(),
            neighbour_reachable: Duration::from_secs(60),
            neighbour_retry: Duration::from_secs(1),
            neighbour_retries: 3,
        }
    }
}
