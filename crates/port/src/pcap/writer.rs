//! Writes capture files.

use std::io::{self, Write};

use millrace_frames::Instant;

use super::format::*;

/// Bytes that are collected before they are written.
const BUFFER: usize = 256 << 10;

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
            FileFormat::PcapMicros => this.pcap_header(MAGIC_MICROS),
            FileFormat::PcapNanos => this.pcap_header(MAGIC_NANOS),
            FileFormat::PcapNg => this.section_header(),
        }
        this.add_interface(interface)?;
        this.flush()?;
        Ok(this)
    }

    /// Describes one more interface. Returns its number.
    ///
    /// # Errors
    /// `Unsupported` for a second interface in pcap, else as [`PcapWriter::new`].
    pub fn add_interface(&mut self, name: &str) -> io::Result<u32> {
        if self.format == FileFormat::PcapNg {
            let name = &name.as_bytes()[..name.len().min(256)];
            let start = self.begin(INTERFACE_DESCRIPTION);
            self.order.put_u16(&mut self.buffer, ETHERNET);
            self.order.put_u16(&mut self.buffer, 0);
            self.order.put_u32(&mut self.buffer, LARGEST_PACKET);
            self.option(IF_NAME, name);
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
        flags: Option<u32>,
        fill: impl FnOnce(&mut [u8]),
    ) -> io::Result<()> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        if interface >= self.interfaces {
            return Err(invalid(format!("{}: there is no interface {interface}", self.name)));
        }
        if len > LARGEST_PACKET {
            return Err(invalid(format!(
                "{}: a packet has at most {LARGEST_PACKET} bytes, not {len}",
                self.name
            )));
        }
        let nanos = timestamp.as_nanos();
        if self.format == FileFormat::PcapNg {
            let start = self.begin(ENHANCED_PACKET);
            for word in [interface, (nanos >> 32) as u32, nanos as u32, len, original_len] {
                self.order.put_u32(&mut self.buffer, word);
            }
            self.place(len, fill);
            self.pad();
            if let Some(flags) = flags {
                let flags = match self.order {
                    ByteOrder::Little => flags.to_le_bytes(),
                    ByteOrder::Big => flags.to_be_bytes(),
                };
                self.option(EPB_FLAGS, &flags);
                self.option(OPTION_END, &[]);
            }
            return self.end(start);
        }
        let Ok(seconds) = u32::try_from(nanos / 1_000_000_000) else {
            return Err(invalid(format!(
                "{}: pcap cannot say {timestamp:?} after 1970; write pcapng",
                self.name
            )));
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

    /// Adds a packet of which `bytes` are the first, with what pcapng can say of it in `epb_flags`: 1
    /// it was received, 2 it was sent. pcap has no place for that and leaves it out.
    ///
    /// # Errors
    /// As [`PcapWriter::write_with`].
    pub fn write_directed(
        &mut self,
        interface: u32,
        timestamp: Instant,
        original_len: u32,
        flags: u32,
        bytes: &[u8],
    ) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.packet(interface, timestamp, original_len, len, Some(flags), |to| {
            to.copy_from_slice(bytes);
        })
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
        if self.format != FileFormat::PcapNg {
            return Ok(());
        }
        let nanos = timestamp.as_nanos();
        let start = self.begin(INTERFACE_STATISTICS);
        for word in [interface, (nanos >> 32) as u32, nanos as u32] {
            self.order.put_u32(&mut self.buffer, word);
        }
        for (code, count) in [(ISB_IFRECV, received), (ISB_IFDROP, dropped)] {
            self.order.put_u16(&mut self.buffer, code);
            self.order.put_u16(&mut self.buffer, 8);
            self.order.put_u64(&mut self.buffer, count);
        }
        self.option(OPTION_END, &[]);
        self.end(start)
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

    fn flush_if_large(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn place(&mut self, len: u32, fill: impl FnOnce(&mut [u8])) {
        let start = self.buffer.len();
        self.buffer.resize(start + len as usize, 0);
        fill(&mut self.buffer[start..]);
    }

    fn pcap_header(&mut self, magic: u32) {
        self.order.put_u32(&mut self.buffer, magic);
        self.order.put_u16(&mut self.buffer, 2);
        self.order.put_u16(&mut self.buffer, 4);
        for word in [0, 0, LARGEST_PACKET, ETHERNET.into()] {
            self.order.put_u32(&mut self.buffer, word);
        }
    }

    fn section_header(&mut self) {
        let order = self.order;
        for word in [SECTION_HEADER, 28, BYTE_ORDER_MAGIC] {
            order.put_u32(&mut self.buffer, word);
        }
        order.put_u16(&mut self.buffer, 1);
        order.put_u16(&mut self.buffer, 0);
        // The section's length is not known in advance.
        order.put_u64(&mut self.buffer, u64::MAX);
        order.put_u32(&mut self.buffer, 28);
    }

    /// Starts a block; its length comes at the end.
    fn begin(&mut self, kind: u32) -> usize {
        let start = self.buffer.len();
        self.order.put_u32(&mut self.buffer, kind);
        self.order.put_u32(&mut self.buffer, 0);
        start
    }

    fn end(&mut self, start: usize) -> io::Result<()> {
        let total = (self.buffer.len() - start + 4) as u32;
        self.order.put_u32(&mut self.buffer, total);
        let trailer = self.buffer.len() - 4;
        self.buffer.copy_within(trailer.., start + 4);
        self.flush_if_large()
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

impl<W: Write> Drop for PcapWriter<W> {
    /// Writes what is collected. Who wants to know whether that worked calls
    /// [`PcapWriter::flush`] before.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}
