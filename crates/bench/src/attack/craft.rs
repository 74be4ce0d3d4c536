//! Segments made by hand, with right checksums, and a port to send them at full speed.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use millrace_frames::{
    Arena, ArenaConfig, Duration, Hugepages, Instant, Owners, Transmit, TxBatch,
};
use millrace_port::af_packet::{AfPacket, AfPacketConfig};
use millrace_port::{Port, clock};
use millrace_wire::ether::{self, EtherType};
use millrace_wire::tcp::{self, Flags, OptionWriter};
use millrace_wire::{Mac, Seq, checksum, ipv4, protocol};

use crate::ports::Network;

const IP: usize = ether::HEADER_LEN;
const TCP: usize = IP + ipv4::HEADER_LEN;
const FRAMES: u32 = 1024;
/// How long to wait when enough has been sent for the moment.
const PAUSE: Duration = Duration::from_micros(100);

/// Between attacker and server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) to: SocketAddrV4,
    pub(super) to_mac: Mac,
    pub(super) from_mac: Mac,
    /// Addresses that the attacker claims to have.
    pub(super) sources: Network,
}

/// One segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Craft<'a> {
    pub(super) from: SocketAddrV4,
    pub(super) flags: Flags,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) options: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl Wire {
    /// An address out of the attacker's.
    pub(super) fn source(&self, number: u32) -> Ipv4Addr {
        let mask = u32::MAX.checked_shr(self.sources.prefix.into()).unwrap_or(0);
        Ipv4Addr::from_bits(self.sources.address.to_bits() & !mask | number & mask)
    }

    fn emit(&self, room: &mut [u8], craft: &Craft<'_>) -> usize {
        let len = tcp::HEADER_LEN + craft.options.len() + craft.payload.len();
        ether::emit(room, self.to_mac, self.from_mac, EtherType::IPV4);
        let header = ipv4::Header {
            source: *craft.from.ip(),
            destination: *self.to.ip(),
            protocol: protocol::TCP,
            ttl: 64,
            tos: 0,
            identification: 0,
            dont_fragment: true,
        };
        header.emit(&mut room[IP..], len);
        let header = tcp::Header {
            source_port: craft.from.port(),
            destination_port: self.to.port(),
            sequence: Seq(craft.sequence),
            acknowledgement: Seq(craft.acknowledgement),
            flags: craft.flags,
            window: 0xffff,
            urgent: 0,
        };
        let pseudo = checksum::pseudo_v4(*craft.from.ip(), *self.to.ip(), protocol::TCP, len);
        let sum = checksum::sum(craft.payload);
        let start = header.emit_with_checksum(&mut room[TCP..], craft.options, pseudo, sum);
        room[TCP + start..TCP + len].copy_from_slice(craft.payload);
        TCP + len
    }
}

/// What an ordinary SYN carries, without timestamps.
pub(super) fn syn_options() -> OptionWriter {
    let mut options = OptionWriter::new();
    options.mss(1460).sack_permitted().window_scale(7);
    options
}

/// A packet socket on the attacker's interface.
pub(super) struct Gun {
    pub(super) port: AfPacket,
    pub(super) arena: Arena,
    wire: Wire,
    batch: TxBatch,
    begun: Instant,
    packets_per_s: u64,
    sent: u64,
}

impl Gun {
    /// Opens `interface`; `filter` says what of the answers is looked at.
    pub(super) fn new(
        interface: &str,
        wire: Wire,
        packets_per_s: u64,
        filter: Vec<libc::sock_filter>,
    ) -> io::Result<Gun> {
        let config = AfPacketConfig { filter, ..AfPacketConfig::new(interface) };
        let arena = ArenaConfig { frames: FRAMES, frame_size: 2048, hugepages: Hugepages::Never };
        Ok(Gun {
            port: AfPacket::open(&config)?,
            arena: Arena::new(arena)?,
            wire,
            batch: TxBatch::new(),
            begun: clock::now(),
            packets_per_s,
            sent: 0,
        })
    }

    /// Packets that may be sent now; 0 after a short wait.
    pub(super) fn allowance(&self) -> usize {
        if self.packets_per_s == 0 {
            return self.batch.room();
        }
        let passed = (clock::now() - self.begun).as_nanos();
        let due = (passed * u128::from(self.packets_per_s) / 1_000_000_000) as u64;
        let allowed = due.saturating_sub(self.sent + self.batch.len() as u64);
        if allowed == 0 {
            std::thread::sleep(PAUSE);
        }
        allowed.min(self.batch.room() as u64) as usize
    }

    /// Loads one segment; there must be room.
    pub(super) fn load(&mut self, craft: &Craft<'_>) {
        let Some(frame) = self.arena.allocate(Owners::TRANSMIT) else { return };
        let offset = self.arena.meta(frame).offset;
        let len = self.wire.emit(&mut self.arena.room_mut(frame)[usize::from(offset)..], craft);
        let packet = Transmit {
            head: frame,
            total: len as u32,
            offset,
            len: len as u16,
            frames: 1,
            ..Transmit::default()
        };
        if self.batch.push(packet).is_err() {
            self.arena.transmitted(&packet);
        }
    }

    /// Sends what is loaded.
    pub(super) fn fire(&mut self) -> io::Result<()> {
        while !self.batch.is_empty() {
            self.sent += self.port.tx(clock::now(), &mut self.arena, &mut self.batch)? as u64;
        }
        Ok(())
    }

    /// Packets that the kernel took.
    pub(super) fn packets_sent(&mut self) -> u64 {
        self.port.statistics().tx_packets
    }

    /// Since it was opened.
    pub(super) fn elapsed(&self) -> Duration {
        clock::now() - self.begun
    }
}

/// A classic BPF program that lets nothing in.
pub(super) fn nothing() -> Vec<libc::sock_filter> {
    vec![libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }]
}

/// A classic BPF program that lets TCP of the server's to a network in.
pub(super) fn answers(wire: &Wire, network: Network) -> Vec<libc::sock_filter> {
    let mask = !u32::MAX.checked_shr(network.prefix.into()).unwrap_or(0);
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    vec![
        op(0x28, 0, 0, 12), // EtherType
        op(0x15, 0, 8, EtherType::IPV4.into()),
        op(0x30, 0, 0, 23), // protocol
        op(0x15, 0, 6, protocol::TCP.into()),
        op(0x20, 0, 0, 26), // source
        op(0x15, 0, 4, wire.to.ip().to_bits()),
        op(0x20, 0, 0, 30), // destination
        op(0x54, 0, 0, mask),
        op(0x15, 0, 1, network.address.to_bits() & mask),
        op(0x06, 0, 0, u32::MAX),
        op(0x06, 0, 0, 0),
    ]
}

/// What a frame of the server's says: to whom, and its segment.
pub(super) fn answer(frame: &[u8]) -> Option<(SocketAddrV4, tcp::Segment<'_>)> {
    let link = ether::Frame::parse(frame).ok()?;
    let packet = ipv4::Packet::parse_cut(link.payload()).ok()?;
    let segment = tcp::Segment::parse(packet.payload()).ok()?;
    Some((SocketAddrV4::new(packet.destination(), segment.destination_port()), segment))
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
