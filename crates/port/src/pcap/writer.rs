//! Writes capture files.

use std::io::{self, Write};

use millrace_frames::Instant;

use super::format::*;

/// Bytes that are collected before they are written.
const BUFFER: usize = 256 << 10;
/// Most bytes of a text about a file or an interface.
const LONGEST_TEXT: usize = 4096;

/// The kinds of capture file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileFormat {
    /// pcap with microseconds, which everything reads. Times are cut to the microsecond.
    PcapMicros,
    /// pcap with nanoseconds.
    PcapNanos,
    /// pcapng: several interfaces, nanoseconds, counters of what was lost.
    #[default]
    PcapNg,
}

/// What a file says of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// What else there is to say of it.
    pub text: Option<String>,
    /// Most bytes kept of a packet; 0: all.
    pub snap_len: u32,
    /// The expression by which packets were chosen.
    pub filter: Option<String>,
    /// The operating system that has it.
    pub system: Option<String>,
}

impl Description {
    /// An interface of which the name is known.
    pub fn named(name: &str) -> Description {
        Description { name: name.to_owned(), ..Description::default() }
    }
}

/// A packet without its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketInfo {
    /// The number of its interface.
    pub interface: u32,
    /// When it was captured, since 1970.
    pub timestamp: Instant,
    /// Its length on the wire.
    pub original_len: u32,
    /// Which way it went, where that is known; pcap has no place for it.
    pub direction: Option<Direction>,
}

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// It was received.
    Inbound = 1,
    /// It was sent.
    Outbound = 2,
}

/// What became of an interface's packets (draft-ietf-opsawg-pcapng §4.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// When the capture began.
    pub start: Option<Instant>,
    /// When it ended.
    pub end: Option<Instant>,
    /// Packets that the interface received.
    pub received: Option<u64>,
    /// Of these, lost by the interface for want of resources.
    pub dropped: Option<u64>,
    /// Packets that the filter let through.
    pub accepted: Option<u64>,
    /// Of these, lost by the operating system.
    pub system_dropped: Option<u64>,
    /// Of these, delivered to the one who captures.
    pub delivered: Option<u64>,
}

/// Writes pcap or pcapng. What was written is in the file after [`PcapWriter::flush`].
#[derive(Debug)]
pub struct PcapWriter<W: Write> {
    writer: W,
    name: String,
    format: FileFormat,
    order: ByteOrder,
    interfaces: u32,
    buffer: Vec<u8>,
    writes: u64,
    /// A write failed, so the file is damaged, and nothing may be written behind the damage.
    failed: bool,
}

impl<W: Write> PcapWriter<W> {
    /// Starts a file with one interface, number 0, called `interface`. `name` is what errors call
    /// the file.
    ///
    /// # Errors
    /// What writing said, with the file's name.
    pub fn new(
        writer: W,
        name: &str,
        interface: &str,
        format: FileFormat,
        order: ByteOrder,
    ) -> io::Result<Self> {
        Self::with(writer, name, &Description::named(interface), None, format, order)
    }

    /// As [`PcapWriter::new`], with all that is known of the interface, and of the program that
    /// writes the file.
    ///
    /// # Errors
    /// As [`PcapWriter::new`].
    pub fn with(
        writer: W,
        name: &str,
        interface: &Description,
        program: Option<&str>,
        format: FileFormat,
        order: ByteOrder,
    ) -> io::Result<Self> {
        let mut this = PcapWriter {
            writer,
            name: name.into(),
            format,
            order,
            interfaces: 0,
            buffer: Vec::with_capacity(BUFFER),
            writes: 0,
            failed: false,
        };
        match format {
            FileFormat::PcapMicros => this.pcap_header(MAGIC_MICROS, interface.snap_len),
            FileFormat::PcapNanos => this.pcap_header(MAGIC_NANOS, interface.snap_len),
            FileFormat::PcapNg => this.section_header(program),
        }
        this.describe(interface)?;
        this.flush()?;
        Ok(this)
    }

    /// Describes one more interface. Returns its number.
    ///
    /// # Errors
    /// `Unsupported` for a second interface in pcap, else as [`PcapWriter::new`].
    pub fn add_interface(&mut self, name: &str) -> io::Result<u32> {
        self.describe(&Description::named(name))
    }

    fn describe(&mut self, interface: &Description) -> io::Result<u32> {
        if self.format == FileFormat::PcapNg {
            let start = self.begin(INTERFACE_DESCRIPTION);
            self.order.put_u16(&mut self.buffer, ETHERNET);
            self.order.put_u16(&mut self.buffer, 0);
            self.order.put_u32(&mut self.buffer, snap_len(interface.snap_len));
            self.text(IF_NAME, &interface.name);
            for (code, text) in [(IF_DESCRIPTION, &interface.text), (IF_OS, &interface.system)] {
                if let Some(text) = text {
                    self.text(code, text);
                }
            }
            if let Some(filter) = &interface.filter {
                // A zero before it: the language is that of libpcap.
                self.text(IF_FILTER, &format!("\0{filter}"));
            }
            self.option(IF_TSRESOL, &[9]);
            self.option(OPTION_END, &[]);
            self.end(start)?;
        } else if self.interfaces > 0 {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{}: pcap has one interface; write pcapng for more", self.name),
            ));
        }
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Adds a packet that was `original_len` bytes long on the wire. Its bytes are what `fill` puts
    /// into the `len` bytes that it is given.
    ///
    /// # Errors
    /// `InvalidInput` for an interface that was not described, a packet of more than 262144 bytes,
    /// or a time that the format cannot say; else as [`PcapWriter::new`].
    pub fn write_with(
        &mut self,
        interface: u32,
        timestamp: Instant,
        original_len: u32,
        len: u32,
        fill: impl FnOnce(&mut [u8]),
    ) -> io::Result<()> {
        self.packet(interface, timestamp, original_len, len, None, fill)
    }

    fn packet(
        &mut self,
        interface: u32,
        timestamp: Instant,
        original_len: u32,
        len: u32,
        direction: Option<Direction>,
        fill: impl FnOnce(&mut [u8]),
    ) -> io::Result<()> {
        self.check(interface, len)?;
        let nanos = timestamp.as_nanos();
        if self.format == FileFormat::PcapNg {
            let start = self.begin(ENHANCED_PACKET);
            for word in [interface, (nanos >> 32) as u32, nanos as u32, len, original_len] {
                self.order.put_u32(&mut self.buffer, word);
            }
            self.place(len, fill);
            self.pad();
            if let Some(direction) = direction {
                self.order.put_u16(&mut self.buffer, EPB_FLAGS);
                self.order.put_u16(&mut self.buffer, 4);
                self.order.put_u32(&mut self.buffer, direction as u32);
                self.option(OPTION_END, &[]);
            }
            return self.end(start);
        }
        let Ok(seconds) = u32::try_from(nanos / 1_000_000_000) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{}: pcap cannot say {timestamp:?} after 1970; write pcapng", self.name),
            ));
        };
        let fraction = (nanos % 1_000_000_000) as u32;
        let fraction = match self.format {
            FileFormat::PcapMicros => fraction / 1000,
            _ => fraction,
        };
        for word in [seconds, fraction, len, original_len] {
            self.order.put_u32(&mut self.buffer, word);
        }
        self.place(len, fill);
        self.flush_if_large()
    }

    /// Adds a whole packet.
    ///
    /// # Errors
    /// As [`PcapWriter::write_with`].
    pub fn write(&mut self, interface: u32, timestamp: Instant, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.write_with(interface, timestamp, len, len, |to| to.copy_from_slice(bytes))
    }

    /// Adds counters of an interface: packets it received, and packets it lost. pcap has no place
    /// for them, so there it does nothing.
    ///
    /// # Errors
    /// As [`PcapWriter::new`].
    pub fn write_statistics(
        &mut self,
        interface: u32,
        timestamp: Instant,
        received: u64,
        dropped: u64,
    ) -> io::Result<()> {
        let (received, dropped) = (Some(received), Some(dropped));
        self.write_counts(interface, timestamp, &Counts { received, dropped, ..Counts::default() })
    }

    /// Adds what is known of what became of an interface's packets. pcap has no place for it, so
    /// there it does nothing.
    ///
    /// # Errors
    /// As [`PcapWriter::new`].
    pub fn write_counts(
        &mut self,
        interface: u32,
        timestamp: Instant,
        counts: &Counts,
    ) -> io::Result<()> {
        if self.format != FileFormat::PcapNg {
            return Ok(());
        }
        let nanos = timestamp.as_nanos();
        let start = self.begin(INTERFACE_STATISTICS);
        for word in [interface, (nanos >> 32) as u32, nanos as u32] {
            self.order.put_u32(&mut self.buffer, word);
        }
        for (code, time) in [(ISB_STARTTIME, counts.start), (ISB_ENDTIME, counts.end)] {
            let Some(time) = time else { continue };
            self.order.put_u16(&mut self.buffer, code);
            self.order.put_u16(&mut self.buffer, 8);
            // A time is two words, the upper one first in either byte order.
            self.order.put_u32(&mut self.buffer, (time.as_nanos() >> 32) as u32);
            self.order.put_u32(&mut self.buffer, time.as_nanos() as u32);
        }
        for (code, count) in [
            (ISB_IFRECV, counts.received),
            (ISB_IFDROP, counts.dropped),
            (ISB_FILTERACCEPT, counts.accepted),
            (ISB_OSDROP, counts.system_dropped),
            (ISB_USRDELIV, counts.delivered),
        ] {
            let Some(count) = count else { continue };
            self.order.put_u16(&mut self.buffer, code);
            self.order.put_u16(&mut self.buffer, 8);
            self.order.put_u64(&mut self.buffer, count);
        }
        self.option(OPTION_END, &[]);
        self.end(start)
    }

    /// Adds a packet whose bytes are those of `parts`, one after the other. pcap has no place for
    /// its direction and leaves it out.
    ///
    /// # Errors
    /// As [`PcapWriter::write_with`].
    #[inline]
    pub fn append<const N: usize>(
        &mut self,
        info: &PacketInfo,
        parts: [&[u8]; N],
    ) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let len = u32::try_from(total).unwrap_or(u32::MAX);
        self.check(info.interface, len)?;
        if self.format != FileFormat::PcapNg || self.order != ByteOrder::Little {
            let PacketInfo { interface, timestamp, original_len, direction } = *info;
            return self.packet(interface, timestamp, original_len, len, direction, |mut to| {
                for part in parts {
                    let (here, rest) = to.split_at_mut(part.len());
                    here.copy_from_slice(part);
                    to = rest;
                }
            });
        }
        let nanos = info.timestamp.as_nanos();
        let padded = len.next_multiple_of(4);
        let options = if info.direction.is_some() { 12 } else { 0 };
        let block = 32 + padded + options;
        self.buffer.reserve(block as usize);
        let words = [
            ENHANCED_PACKET,
            block,
            info.interface,
            (nanos >> 32) as u32,
            nanos as u32,
            len,
            info.original_len,
        ];
        let mut head = [0; 28];
        for (to, word) in head.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        self.buffer.extend_from_slice(&head);
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        self.buffer.extend_from_slice(&[0; 3][..(padded - len) as usize]);
        if let Some(direction) = info.direction {
            let mut flags = [0; 12];
            flags[..2].copy_from_slice(&EPB_FLAGS.to_le_bytes());
            flags[2] = 4;
            flags[4..8].copy_from_slice(&(direction as u32).to_le_bytes());
            self.buffer.extend_from_slice(&flags);
        }
        self.buffer.extend_from_slice(&block.to_le_bytes());
        self.flush_if_large()
    }

    /// Bytes that are collected and not written yet.
    pub fn collected(&self) -> usize {
        self.buffer.len()
    }

    /// What is written to.
    pub fn get_ref(&self) -> &W {
        &self.writer
    }

    /// What is written to. What is collected comes behind what is written here, so write nothing.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.writer
    }

    /// Writes what is collected.
    ///
    /// # Errors
    /// What writing said (`StorageFull`), with the file's name. The file ends with damage then, and
    /// later calls fail too.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other(format!("{}: an earlier write failed", self.name)));
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.writes += 1;
        let written = self.writer.write_all(&self.buffer).and_then(|()| self.writer.flush());
        self.buffer.clear();
        written.map_err(|error| {
            self.failed = true;
            io::Error::new(error.kind(), format!("{}: writing failed: {error}", self.name))
        })
    }

    /// How often the collected bytes were written.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Whether a packet can be written.
    #[inline]
    fn check(&self, interface: u32, len: u32) -> io::Result<()> {
        if interface < self.interfaces && len <= LARGEST_PACKET {
            return Ok(());
        }
        let what = match interface < self.interfaces {
            true => format!("a packet has at most {LARGEST_PACKET} bytes, not {len}"),
            false => format!("there is no interface {interface}"),
        };
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {what}", self.name)))
    }

    fn flush_if_large(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn place(&mut self, len: u32, fill: impl FnOnce(&mut [u8])) {
        let start = self.buffer.len();
        self.buffer.resize(start + len as usize, 0);
        fill(&mut self.buffer[start..]);
    }

    fn pcap_header(&mut self, magic: u32, snap: u32) {
        self.order.put_u32(&mut self.buffer, magic);
        self.order.put_u16(&mut self.buffer, 2);
        self.order.put_u16(&mut self.buffer, 4);
        for word in [0, 0, snap_len(snap), ETHERNET.into()] {
            self.order.put_u32(&mut self.buffer, word);
        }
    }

    fn section_header(&mut self, program: Option<&str>) {
        let start = self.begin(SECTION_HEADER);
        let order = self.order;
        order.put_u32(&mut self.buffer, BYTE_ORDER_MAGIC);
        order.put_u16(&mut self.buffer, 1);
        order.put_u16(&mut self.buffer, 0);
        // The section's length is not known in advance.
        order.put_u64(&mut self.buffer, u64::MAX);
        if let Some(program) = program {
            self.text(SHB_USERAPPL, program);
            self.option(OPTION_END, &[]);
        }
        self.close_block(start);
    }

    /// Starts a block; its length comes at the end.
    fn begin(&mut self, kind: u32) -> usize {
        let start = self.buffer.len();
        self.order.put_u32(&mut self.buffer, kind);
        self.order.put_u32(&mut self.buffer, 0);
        start
    }

    fn end(&mut self, start: usize) -> io::Result<()> {
        self.close_block(start);
        self.flush_if_large()
    }

    fn close_block(&mut self, start: usize) {
        let total = (self.buffer.len() - start + 4) as u32;
        self.order.put_u32(&mut self.buffer, total);
        let trailer = self.buffer.len() - 4;
        self.buffer.copy_within(trailer.., start + 4);
    }

    fn text(&mut self, code: u16, text: &str) {
        let mut len = text.len().min(LONGEST_TEXT);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        self.option(code, &text.as_bytes()[..len]);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.order.put_u16(&mut self.buffer, code);
        self.order.put_u16(&mut self.buffer, value.len() as u16);
        self.buffer.extend_from_slice(value);
        self.pad();
    }

    /// Everything in pcapng starts at a multiple of four. The buffer does too, whenever it is
    /// flushed, so its length tells.
    fn pad(&mut self) {
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }
}

/// A snap length as a file says it.
fn snap_len(snap_len: u32) -> u32 {
    if snap_len == 0 { LARGEST_PACKET } else { snap_len.min(LARGEST_PACKET) }
}

impl<W: Write> Drop for PcapWriter<W> {
    /// Writes what is collected. Who wants to know whether that worked calls
    /// [`PcapWriter::flush`] before.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}
