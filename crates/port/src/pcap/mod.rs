//! Capture files: read as a wire that replays, written as a wire that records.
//!
//! [`PcapReader`] and [`PcapWriter`] are the plain types; [`PcapPort`] is the port on them. A file
//! is hostile input like a packet: lengths are bounded before memory is asked for, and the error
//! says the byte and what was expected there, after all that came before was delivered.

mod format;
mod reader;
mod source;
mod writer;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use millrace_frames::pipe::Record;
use millrace_frames::{Arena, ChecksumState, Duration, Instant, RxBatch, RxFlags, TxBatch};

use crate::{Capabilities, Port, Statistics, Timestamps, copy};

pub use format::ByteOrder;
pub use reader::{Interface, Packet, PcapReader};
pub use writer::{Counts, Description, Direction, FileFormat, PacketInfo, PcapWriter};

/// Largest IP packet, and with the link's header (one VLAN tag) the largest frame.
const MTU: u32 = 65_535;
const LARGEST: u32 = MTU + 14 + 4;

/// What a port reads from.
pub type Input = Box<dyn Read + Send>;
/// What a port writes to.
pub type Output = Box<dyn Write + Send>;

/// Receives from one capture file and transmits to another; either may be missing.
pub struct PcapPort {
    capabilities: Capabilities,
    reader: Option<PcapReader<Input>>,
    writer: Option<PcapWriter<Output>>,
    pace: Pace,
    epoch: Duration,
    /// The reader shows a packet that was not delivered yet.
    pending: bool,
    exhausted: bool,
    /// What reading said after packets that had to be delivered first.
    failed: Option<io::Error>,
    last_tx: Instant,
    closed: bool,
    counters: Counters,
}

/// When a packet of the file is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As soon as it is asked for.
    Immediate,
    /// As long after the first as its timestamp says. The first is due when it is asked for.
    Original(Option<Start>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    now: Instant,
    timestamp: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    rx_packets: u64,
    rx_bytes: u64,
    rx_bursts: u64,
    rx_no_frame: u64,
    rx_truncated: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_too_long: u64,
    tx_unsupported: u64,
    tx_no_carrier: u64,
    write_errors: u64,
}

impl PcapPort {
    /// Replays the file `read` and records to the file `write`, which is made or overwritten: as
    /// pcap with nanoseconds when its name ends in `.pcap`, else as pcapng.
    ///
    /// # Errors
    /// `InvalidInput` when both are missing or the same file; what opening a file said, with its
    /// name; and those of [`PcapReader::new`].
    pub fn open(read: Option<&Path>, write: Option<&Path>) -> io::Result<Self> {
        let named = |path: &Path, error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        };
        let input = match read {
            Some(path) => {
                let file = File::open(path).map_err(|error| named(path, error))?;
                Some((path.display().to_string(), Box::new(file) as Input))
            }
            None => None,
        };
        let output = match write {
            Some(path) => {
                // Opening for writing would empty the file that is to be read.
                let same = read.and_then(|read| read.canonicalize().ok());
                if same.is_some() && same == path.canonicalize().ok() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("{}: cannot be read and written at once", path.display()),
                    ));
                }
                let format = match path.extension() {
                    Some(extension) if extension == "pcap" => FileFormat::PcapNanos,
                    _ => FileFormat::PcapNg,
                };
                let file = File::create(path).map_err(|error| named(path, error))?;
                Some((path.display().to_string(), Box::new(file) as Output, format))
            }
            None => None,
        };
        Self::new(input, output)
    }

    /// As [`PcapPort::open`], with streams and what errors are to call them.
    ///
    /// # Errors
    /// As [`PcapPort::open`].
    pub fn new(
        input: Option<(String, Input)>,
        output: Option<(String, Output, FileFormat)>,
    ) -> io::Result<Self> {
        let mut names = Vec::new();
        let reader = match input {
            Some((name, input)) => {
                let reader = PcapReader::new(input, &name)?;
                names.push(name);
                Some(reader)
            }
            None => None,
        };
        let writer = match output {
            Some((name, output, format)) => {
                let order = ByteOrder::default();
                let writer = PcapWriter::new(output, &name, "millrace", format, order)?;
                names.push(name);
                Some(writer)
            }
            None => None,
        };
        if names.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a pcap port reads a file, writes a file, or both; name one",
            ));
        }
        let exhausted = reader.is_none();
        Ok(PcapPort {
            capabilities: Capabilities {
                kind: "pcap",
                name: names.join(","),
                mac: None,
                mtu: MTU,
                queue: 0,
                queues: 1,
                tx_checksum: false,
                tx_gso: 0,
                rx_checksum: ChecksumState::Unknown,
                tx_in_flight: false,
                timestamps: Timestamps::File,
                facts: Vec::new(),
            },
            reader,
            writer,
            pace: Pace::Immediate,
            epoch: Duration::ZERO,
            pending: false,
            exhausted,
            failed: None,
            last_tx: Instant::ZERO,
            closed: false,
            counters: Counters::default(),
        })
    }

    /// Delivers packets as long after the first as their timestamps say, and not at once.
    pub fn at_original_pace(mut self) -> Self {
        self.pace = Pace::Original(None);
        self
    }

    /// What is added to the time of a transmitted packet to make it the time in the file, which is
    /// counted from 1970. For `CLOCK_MONOTONIC` that is the time of day when it was zero; without
    /// it the time is written as it is, and a simulation's file is the same in every run.
    pub fn with_epoch(mut self, epoch: Duration) -> Self {
        self.epoch = epoch;
        self
    }

    fn check_open(&self) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                format!("the pcap port {} is closed", self.capabilities.name),
            ));
        }
        Ok(())
    }

    /// When the pending packet is to be delivered.
    fn due(&self) -> Option<Instant> {
        if !self.pending {
            return None;
        }
        let packet = self.reader.as_ref()?.packet()?;
        Some(match self.pace {
            Pace::Immediate | Pace::Original(None) => Instant::ZERO,
            Pace::Original(Some(start)) => start.now + (packet.timestamp - start.timestamp),
        })
    }

    /// Makes the next packet pending. False when there is none.
    fn look_ahead(&mut self, now: Instant) -> io::Result<bool> {
        let Some(reader) = &mut self.reader else {
            return Ok(false);
        };
        if !self.pending {
            self.pending = reader.advance()?;
            self.exhausted = !self.pending;
        }
        if let (Pace::Original(start @ None), Some(packet)) = (&mut self.pace, reader.packet()) {
            *start = Some(Start { now, timestamp: packet.timestamp });
        }
        Ok(self.pending)
    }
}

impl Port for PcapPort {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, now: Instant, arena: &mut Arena, batch: &mut RxBatch) -> io::Result<usize> {
        self.check_open()?;
        let mut count = 0;
        for _ in 0..batch.room() {
            if self.failed.is_some() {
                break;
            }
            match self.look_ahead(now) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
            if self.due().is_none_or(|due| due > now) {
                break;
            }
            let Some(packet) = self.reader.as_ref().and_then(PcapReader::packet) else {
                break;
            };
            let record = Record {
                arrival: packet.timestamp,
                len: packet.bytes.len() as u32,
                gso_size: 0,
                checksum: ChecksumState::Unknown,
            };
            let head = copy::scatter(arena, record, packet.bytes);
            if head.is_none() && count > 0 {
                // A file waits, so what is lost is only what finds no frame on its own.
                break;
            }
            self.pending = false;
            let Some(head) = head else {
                self.counters.rx_no_frame += 1;
                continue;
            };
            let len = packet.bytes.len() as u64;
            let cut = len < u64::from(packet.original_len);
            if cut {
                let meta = arena.meta_mut(head);
                meta.mark = packet.original_len;
                meta.set_rx_flags(RxFlags::CUT);
            }
            self.counters.rx_truncated += u64::from(cut);
            self.counters.rx_packets += 1;
            self.counters.rx_bytes += len;
            // There is room: the loop counts it.
            let _ = batch.push(head);
            count += 1;
        }
        self.counters.rx_bursts += u64::from(count > 0);
        match (&self.failed, count) {
            (Some(error), 0) => Err(io::Error::new(error.kind(), error.to_string())),
            _ => Ok(count),
        }
    }

    fn tx(&mut self, now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize> {
        self.check_open()?;
        if batch.is_empty() {
            return Ok(0);
        }
        self.last_tx = now;
        let mut written = Ok(());
        for packet in batch.iter() {
            if self.writer.is_none() {
                self.counters.tx_no_carrier += 1;
            } else if packet.gso_size != 0 || packet.checksum_start != 0 {
                self.counters.tx_unsupported += 1;
            } else if packet.total > LARGEST {
                self.counters.tx_too_long += 1;
            } else if let (Some(writer), Ok(())) = (&mut self.writer, &written) {
                let (time, len) = (now + self.epoch, packet.total);
                let write = |to: &mut [u8]| arena.gather(packet, to);
                written = writer.write_with(0, time, len, len, write);
                self.counters.tx_packets += 1;
                self.counters.tx_bytes += u64::from(len);
            }
            arena.transmitted(packet);
        }
        let taken = batch.len();
        batch.clear();
        // Once a burst, so that a full disk is an error of this burst and not of the close.
        if let Some(writer) = &mut self.writer {
            written = written.and_then(|()| writer.flush());
        }
        self.counters.write_errors += u64::from(written.is_err());
        written.map(|()| taken)
    }

    fn arm(&mut self, now: Instant) -> bool {
        // What was not looked at yet may be due, and an error is to be seen.
        self.exhausted || (self.failed.is_none() && self.due().is_some_and(|due| due > now))
    }

    fn next_arrival(&self) -> Option<Instant> {
        (!self.exhausted).then(|| self.due().unwrap_or(Instant::ZERO))
    }

    fn exhausted(&self) -> bool {
        self.exhausted
    }

    fn close(&mut self, _arena: &mut Arena) {
        // Counted in `write_errors`; who wants the message calls `finish` before.
        let _ = self.finish();
        self.reader = None;
        self.exhausted = true;
        self.closed = true;
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some(mut writer) = self.writer.take() else {
            return Ok(());
        };
        let time = self.last_tx + self.epoch;
        let (sent, dropped) = (self.counters.tx_packets, self.statistics().dropped());
        let written = writer.write_statistics(0, time, sent, dropped).and_then(|()| writer.flush());
        self.counters.write_errors += u64::from(written.is_err());
        written
    }

    fn statistics(&mut self) -> Statistics {
        let counters = self.counters;
        Statistics {
            rx_packets: counters.rx_packets,
            rx_bytes: counters.rx_bytes,
            tx_packets: counters.tx_packets,
            tx_bytes: counters.tx_bytes,
            rx_bursts: counters.rx_bursts,
            system_calls: self.reader.as_ref().map_or(0, PcapReader::reads)
                + self.writer.as_ref().map_or(0, PcapWriter::writes),
            drops: vec![
                ("rx_no_frame", counters.rx_no_frame),
                ("tx_too_long", counters.tx_too_long),
                ("tx_unsupported", counters.tx_unsupported),
                ("tx_no_carrier", counters.tx_no_carrier),
            ],
            details: vec![
                ("rx_truncated", counters.rx_truncated),
                ("write_errors", counters.write_errors),
            ],
        }
    }
}

impl fmt::Debug for PcapPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapPort")
            .field("name", &self.capabilities.name)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
