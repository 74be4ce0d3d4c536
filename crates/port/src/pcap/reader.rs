//! Reads capture files as a stream, one packet at a time, in memory that the file cannot grow.

use std::io::{self, Read};

use millrace_frames::Instant;

use super::format::*;
use super::source::Source;

/// Most bytes of a block that is kept whole (descriptions, statistics).
const LARGEST_DESCRIPTION: u32 = 64 << 10;
/// Most interfaces of one section.
const MOST_INTERFACES: usize = 4096;
/// Most bytes of an interface's name.
const LONGEST_NAME: usize = 256;

/// A packet of a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was captured: since 1970 in a file from a real network. Zero where the file does
    /// not say.
    pub timestamp: Instant,
    /// Which of the section's [`PcapReader::interfaces`].
    pub interface: u32,
    /// Its length on the wire; more than `bytes` when it was cut.
    pub original_len: u32,
    /// What was kept of it, from the Ethernet header on.
    pub bytes: &'a [u8],
}

/// An interface that a capture file describes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name, if the file has it.
    pub name: Option<String>,
    /// Most bytes kept of a packet; 0: all.
    pub snap_len: u32,
    /// Packets received, from the last statistics block read so far.
    pub received: Option<u64>,
    /// Packets lost by the interface, from the last statistics block read so far.
    pub dropped: Option<u64>,
    /// `if_tsresol`.
    resolution: u8,
    /// `if_tsoffset`: seconds to add.
    offset: i64,
}

impl Interface {
    fn time(&self, ticks: u64) -> Instant {
        let ticks = u128::from(ticks);
        let exponent = u32::from(self.resolution & 0x7f);
        let nanos = if self.resolution & 0x80 != 0 {
            (ticks * 1_000_000_000) >> exponent
        } else if exponent <= 9 {
            ticks * 10u128.pow(9 - exponent)
        } else {
            // A tick that is too short to be said in u128 is no time at all.
            10u128.checked_pow(exponent - 9).map_or(0, |divisor| ticks / divisor)
        };
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX);
        let nanos = nanos.saturating_add(i128::from(self.offset) * 1_000_000_000);
        Instant::from_nanos(nanos.clamp(0, u64::MAX.into()) as u64)
    }
}

/// Reads pcap (microseconds and nanoseconds) and pcapng, both in either byte order.
///
/// All of a damaged file that comes before the damage is delivered. The error then says the name,
/// the byte and what was expected there; it is returned again by every later call.
#[derive(Debug)]
pub struct PcapReader<R> {
    source: Source<R>,
    order: ByteOrder,
    format: Format,
    interfaces: Vec<Interface>,
    packet: Option<Head>,
    bytes: Vec<u8>,
    failed: Option<(io::ErrorKind, String)>,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    /// Nanoseconds of a unit of the fraction; bytes of the check sequence behind each frame.
    Pcap {
        unit: u32,
        check_sequence: u32,
    },
    PcapNg,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    timestamp: Instant,
    interface: u32,
    original_len: u32,
}

impl<R: Read> PcapReader<R> {
    /// Reads the file's header. `name` is what errors call it.
    ///
    /// # Errors
    /// `InvalidData` when it is no capture file or one of another link than Ethernet,
    /// `UnexpectedEof` when it is cut, else what reading said.
    pub fn new(reader: R, name: &str) -> io::Result<Self> {
        let mut source = Source::new(reader, name);
        let mut magic = [0; 4];
        source.exact(&mut magic, "the magic number of a capture file")?;
        let (order, format) = match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
            (SECTION_HEADER, _) => (ByteOrder::Little, Format::PcapNg),
            (MAGIC_MICROS, _) => {
                (ByteOrder::Little, Format::Pcap { unit: 1000, check_sequence: 0 })
            }
            (MAGIC_NANOS, _) => (ByteOrder::Little, Format::Pcap { unit: 1, check_sequence: 0 }),
            (_, MAGIC_MICROS) => (ByteOrder::Big, Format::Pcap { unit: 1000, check_sequence: 0 }),
            (_, MAGIC_NANOS) => (ByteOrder::Big, Format::Pcap { unit: 1, check_sequence: 0 }),
            _ => {
                return Err(source.invalid(
                    0,
                    format!("expected the magic number of pcap or pcapng, found {magic:02x?}"),
                ));
            }
        };
        let mut reader = PcapReader {
            source,
            order,
            format,
            interfaces: Vec::new(),
            packet: None,
            bytes: Vec::new(),
            failed: None,
        };
        match format {
            Format::Pcap { unit, .. } => reader.pcap_header(unit)?,
            Format::PcapNg => {
                let mut len = [0; 4];
                reader.source.exact(&mut len, "the length of the section header")?;
                reader.section_header(0, len)?;
            }
        }
        Ok(reader)
    }

    /// The interfaces of the current section, as far as they have been described.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Reads the next packet. `None` at the end of the file; when the file grows, or is a pipe,
    /// a later call goes on.
    ///
    /// # Errors
    /// As [`PcapReader::new`].
    pub fn next_packet(&mut self) -> io::Result<Option<Packet<'_>>> {
        self.advance()?;
        Ok(self.packet())
    }

    /// Reads the next packet, for [`PcapReader::packet`] to show. False at the end of the file.
    ///
    /// # Errors
    /// As [`PcapReader::new`].
    pub fn advance(&mut self) -> io::Result<bool> {
        if let Some((kind, text)) = &self.failed {
            return Err(io::Error::new(*kind, text.clone()));
        }
        self.packet = None;
        let found = match self.format {
            Format::Pcap { unit, check_sequence } => self.pcap_record(unit, check_sequence),
            Format::PcapNg => self.blocks(),
        };
        match found {
            Ok(packet) => self.packet = packet,
            Err(error) => {
                self.failed = Some((error.kind(), error.to_string()));
                return Err(error);
            }
        }
        Ok(self.packet.is_some())
    }

    /// The packet that was read last.
    pub fn packet(&self) -> Option<Packet<'_>> {
        self.packet.map(|Head { timestamp, interface, original_len }| Packet {
            timestamp,
            interface,
            original_len,
            bytes: &self.bytes,
        })
    }

    /// How often the stream underneath was read.
    pub fn reads(&self) -> u64 {
        self.source.reads()
    }

    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        self.order.u16([bytes[at], bytes[at + 1]])
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        self.order.u32([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    fn check_link_type(&self, at: u64, link_type: u16) -> io::Result<()> {
        if link_type == ETHERNET {
            return Ok(());
        }
        Err(self.source.invalid(
            at,
            format!(
                "expected packets of link type 1 (ETHERNET), found {link_type}, {}",
                link_type_name(link_type)
            ),
        ))
    }

    /// Reads a packet's bytes into the buffer.
    fn packet_bytes(&mut self, at: u64, len: u32) -> io::Result<()> {
        if len > LARGEST_PACKET {
            return Err(self.source.invalid(
                at,
                format!("expected a packet of at most {LARGEST_PACKET} bytes, found {len}"),
            ));
        }
        self.bytes.resize(len as usize, 0);
        self.source.exact(&mut self.bytes, "a packet's bytes")
    }

    // pcap

    fn pcap_header(&mut self, unit: u32) -> io::Result<()> {
        let mut header = [0; 20];
        self.source.exact(&mut header, "the file header")?;
        let (major, minor) = (self.u16(&header, 0), self.u16(&header, 2));
        if (major, minor) != (2, 4) {
            return Err(self
                .source
                .invalid(4, format!("expected version 2.4, found {major}.{minor}")));
        }
        // The upper half says whether, and how many, bytes of check sequence end each frame.
        let link = self.u32(&header, 16);
        self.check_link_type(20, link as u16)?;
        let check_sequence = if link & 0x0400_0000 != 0 { (link >> 28) * 2 } else { 0 };
        self.format = Format::Pcap { unit, check_sequence };
        self.interfaces =
            vec![Interface { snap_len: self.u32(&header, 12), ..Interface::default() }];
        Ok(())
    }

    fn pcap_record(&mut self, unit: u32, check_sequence: u32) -> io::Result<Option<Head>> {
        let at = self.source.offset();
        let mut header = [0; 16];
        if !self.source.exact_or_end(&mut header, "a packet's header")? {
            return Ok(None);
        }
        let (seconds, fraction) = (self.u32(&header, 0), self.u32(&header, 4));
        let (len, original) = (self.u32(&header, 8), self.u32(&header, 12));
        self.packet_bytes(at + 8, len)?;
        // Frames that were cut have lost their check sequence first.
        if len == original && len >= check_sequence {
            self.bytes.truncate((len - check_sequence) as usize);
        }
        let nanos = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * u64::from(unit);
        Ok(Some(Head {
            timestamp: Instant::from_nanos(nanos),
            interface: 0,
            original_len: original.saturating_sub(check_sequence),
        }))
    }

    // pcapng

    /// Reads blocks up to the next packet.
    fn blocks(&mut self) -> io::Result<Option<Head>> {
        loop {
            let at = self.source.offset();
            let mut header = [0; 8];
            if !self.source.exact_or_end(&mut header, "a block's header")? {
                return Ok(None);
            }
            let kind = self.u32(&header, 0);
            if kind == SECTION_HEADER {
                self.section_header(at, [header[4], header[5], header[6], header[7]])?;
                continue;
            }
            let mut block = Block { at, total: self.u32(&header, 4), left: 0 };
            self.check_block(&mut block)?;
            let packet = match kind {
                INTERFACE_DESCRIPTION => self.interface_description(&mut block).map(|()| None),
                INTERFACE_STATISTICS => self.interface_statistics(&mut block).map(|()| None),
                ENHANCED_PACKET | OLD_PACKET => {
                    self.packet_block(&mut block, kind == OLD_PACKET).map(Some)
                }
                SIMPLE_PACKET => self.simple_packet(&mut block).map(Some),
                _ => Ok(None),
            }?;
            self.end_block(block)?;
            if packet.is_some() {
                return Ok(packet);
            }
        }
    }

    fn check_block(&self, block: &mut Block) -> io::Result<()> {
        if block.total < 12 || !block.total.is_multiple_of(4) {
            return Err(self.source.invalid(
                block.at + 4,
                format!(
                    "expected a block length that is a multiple of 4 and at least 12, found {}",
                    block.total
                ),
            ));
        }
        block.left = block.total - 12;
        Ok(())
    }

    /// The next `N` bytes of a block.
    fn field<const N: usize>(&mut self, block: &mut Block, what: &str) -> io::Result<[u8; N]> {
        if (block.left as usize) < N {
            return Err(self.source.invalid(
                self.source.offset(),
                format!("expected {what}, {N} bytes, but the block has only {} left", block.left),
            ));
        }
        let mut bytes = [0; N];
        self.source.exact(&mut bytes, what)?;
        block.left -= N as u32;
        Ok(bytes)
    }

    /// Skips what is left of a block and checks that its length is repeated at the end.
    fn end_block(&mut self, block: Block) -> io::Result<()> {
        self.source.skip(block.left.into(), "the rest of a block")?;
        let at = self.source.offset();
        let mut trailer = [0; 4];
        self.source.exact(&mut trailer, "the length at the end of a block")?;
        let trailer = self.order.u32(trailer);
        if trailer != block.total {
            return Err(self.source.invalid(
                at,
                format!("expected the block's length {} again, found {trailer}", block.total),
            ));
        }
        Ok(())
    }

    /// `at` is where the block starts; its type and length have been read.
    fn section_header(&mut self, at: u64, len: [u8; 4]) -> io::Result<()> {
        let mut magic = [0; 4];
        self.source.exact(&mut magic, "the byte-order magic")?;
        self.order = if u32::from_le_bytes(magic) == BYTE_ORDER_MAGIC {
            ByteOrder::Little
        } else if u32::from_be_bytes(magic) == BYTE_ORDER_MAGIC {
            ByteOrder::Big
        } else {
            return Err(self.source.invalid(
                at + 8,
                format!("expected the byte-order magic 1a2b3c4d, found {magic:02x?}"),
            ));
        };
        let mut block = Block { at, total: self.order.u32(len), left: 0 };
        self.check_block(&mut block)?;
        block.left = block.left.saturating_sub(4);
        let fixed: [u8; 12] = self.field(&mut block, "the section's version and length")?;
        let (major, minor) = (self.u16(&fixed, 0), self.u16(&fixed, 2));
        // Minor version 2 is what some writers said for the same format.
        if major != 1 || (minor != 0 && minor != 2) {
            return Err(self
                .source
                .invalid(at + 12, format!("expected version 1.0, found {major}.{minor}")));
        }
        self.interfaces.clear();
        self.end_block(block)
    }

    fn interface_description(&mut self, block: &mut Block) -> io::Result<()> {
        if self.interfaces.len() == MOST_INTERFACES {
            return Err(self.source.invalid(
                block.at,
                format!("expected at most {MOST_INTERFACES} interfaces in a section"),
            ));
        }
        let fixed: [u8; 8] = self.field(block, "an interface's link type and snap length")?;
        self.check_link_type(block.at + 8, self.u16(&fixed, 0))?;
        let mut interface =
            Interface { snap_len: self.u32(&fixed, 4), resolution: 6, ..Interface::default() };
        let order = self.order;
        self.options(block, |code, value| match (code, value) {
            (IF_NAME, name) => {
                let name = String::from_utf8_lossy(&name[..name.len().min(LONGEST_NAME)]);
                interface.name = Some(name.into_owned());
                true
            }
            (IF_TSRESOL, &[resolution]) => {
                interface.resolution = resolution;
                true
            }
            (IF_TSOFFSET, value) => value.try_into().is_ok_and(|value| {
                interface.offset = order.u64(value) as i64;
                true
            }),
            (IF_TSRESOL, _) => false,
            _ => true,
        })?;
        self.interfaces.push(interface);
        Ok(())
    }

    fn interface_statistics(&mut self, block: &mut Block) -> io::Result<()> {
        let fixed: [u8; 12] = self.field(block, "an interface's number and a time")?;
        let index = self.interface_index(block.at + 8, self.u32(&fixed, 0))?;
        let (mut received, mut dropped) = (None, None);
        let order = self.order;
        self.options(block, |code, value| {
            let counter = match code {
                ISB_IFRECV => &mut received,
                ISB_IFDROP => &mut dropped,
                _ => return true,
            };
            *counter = value.try_into().ok().map(|value| order.u64(value));
            counter.is_some()
        })?;
        let interface = &mut self.interfaces[index];
        interface.received = received.or(interface.received);
        interface.dropped = dropped.or(interface.dropped);
        Ok(())
    }

    /// Calls `take` with each option of the rest of a block. False: its length is wrong.
    fn options(
        &mut self,
        block: &mut Block,
        mut take: impl FnMut(u16, &[u8]) -> bool,
    ) -> io::Result<()> {
        if block.left > LARGEST_DESCRIPTION {
            return Err(self.source.invalid(
                block.at + 4,
                format!(
                    "expected at most {LARGEST_DESCRIPTION} bytes of options, found {}",
                    block.left
                ),
            ));
        }
        let start = self.source.offset();
        self.bytes.resize(block.left as usize, 0);
        self.source.exact(&mut self.bytes, "a block's options")?;
        block.left = 0;
        let mut at = 0;
        while self.bytes.len() - at >= 4 {
            let (code, len) = (self.u16(&self.bytes, at), self.u16(&self.bytes, at + 2));
            if code == OPTION_END {
                break;
            }
            let value = at + 4..at + 4 + len as usize;
            if value.end > self.bytes.len() || !take(code, &self.bytes[value.clone()]) {
                return Err(self.source.invalid(
                    start + at as u64,
                    format!("expected option {code} with a length that fits, found {len} bytes"),
                ));
            }
            at = value.end.next_multiple_of(4).min(self.bytes.len());
        }
        Ok(())
    }

    fn interface_index(&self, at: u64, index: u32) -> io::Result<usize> {
        if index as usize >= self.interfaces.len() {
            return Err(self.source.invalid(
                at,
                format!(
                    "expected one of {} interfaces described before, found number {index}",
                    self.interfaces.len()
                ),
            ));
        }
        Ok(index as usize)
    }

    fn packet_block(&mut self, block: &mut Block, old: bool) -> io::Result<Head> {
        let fixed: [u8; 20] = self.field(block, "the head of a packet block")?;
        let number = if old { self.u16(&fixed, 0).into() } else { self.u32(&fixed, 0) };
        let interface = self.interface_index(block.at + 8, number)?;
        let ticks = u64::from(self.u32(&fixed, 4)) << 32 | u64::from(self.u32(&fixed, 8));
        let (len, original_len) = (self.u32(&fixed, 12), self.u32(&fixed, 16));
        self.block_bytes(block, block.at + 20, len)?;
        Ok(Head {
            timestamp: self.interfaces[interface].time(ticks),
            interface: number,
            original_len,
        })
    }

    fn simple_packet(&mut self, block: &mut Block) -> io::Result<Head> {
        let original_len = self.order.u32(self.field(block, "the length of a simple packet")?);
        let interface = self.interface_index(block.at, 0)?;
        let limit = match self.interfaces[interface].snap_len {
            0 => u32::MAX,
            limit => limit,
        };
        self.block_bytes(block, block.at + 8, original_len.min(limit))?;
        Ok(Head { timestamp: Instant::ZERO, interface: 0, original_len })
    }

    fn block_bytes(&mut self, block: &mut Block, at: u64, len: u32) -> io::Result<()> {
        if len > block.left {
            return Err(self.source.invalid(
                at,
                format!(
                    "expected a packet that fits the {} bytes of its block, found {len}",
                    block.left
                ),
            ));
        }
        self.packet_bytes(at, len)?;
        block.left -= len;
        Ok(())
    }
}

/// A block that is being read.
struct Block {
    /// Where it starts in the file.
    at: u64,
    /// Its length as it says itself.
    total: u32,
    /// Bytes of its body that were not read yet.
    left: u32,
}
