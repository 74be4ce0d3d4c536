//! The files of a capture: how they are named, when the next is begun, which are kept.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_frames::{Duration, Instant};
use millrace_port::clock;
use millrace_port::pcap::{
    ByteOrder, Counts, Description, Direction, FileFormat, PacketInfo, PcapWriter,
};

use super::file::Target;
use super::source::Packet;
use super::{Control, Progress};

/// Where a capture is written.
#[derive(Debug)]
pub enum Output {
    /// To a file of this name, or to several whose names are made from it.
    Path(PathBuf),
    /// To what is open already, which errors call so.
    File(File, String),
}

/// When the next file is begun, and how many are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Before a file has more bytes than this.
    pub bytes: Option<u64>,
    /// With the first packet that came so long after the file's first.
    pub time: Option<Duration>,
    /// The oldest file is deleted when there are more than so many.
    pub keep: Option<usize>,
}

impl Rotation {
    /// Whether there is more than one file.
    pub fn is_wanted(&self) -> bool {
        self.bytes.is_some() || self.time.is_some()
    }
}

/// How files are written.
#[derive(Debug)]
pub struct Settings {
    /// Where to.
    pub output: Output,
    /// Of which kind.
    pub format: FileFormat,
    /// When the next is begun.
    pub rotation: Rotation,
    /// What the file says of the program that wrote it.
    pub program: String,
    /// Whether each packet says which way it went.
    pub directions: bool,
}

/// Bytes of pcapng's block around a packet's bytes at most: header, padding, flags.
const AROUND: u64 = 32 + 3 + 12;
/// The least that a file may be limited to: a packet of any size and what describes it.
const LEAST_BYTES: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Files {
    settings: Settings,
    description: Description,
    control: Arc<Control>,
    writer: Option<PcapWriter<Target>>,
    /// Those that are kept, the oldest first.
    names: VecDeque<PathBuf>,
    begun: u32,
    /// Bytes and packets of files that were ended.
    written: u64,
    unwritten: u64,
    /// Packets in the file that is open.
    packets: u64,
    /// When the first of them came.
    first: Instant,
    start: Instant,
    last: Instant,
    counts: Counts,
    delivered: u64,
}

impl Files {
    /// Begins the first file.
    pub(super) fn open(
        settings: Settings,
        description: &Description,
        control: Arc<Control>,
    ) -> io::Result<Files> {
        let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        let Rotation { bytes, keep, .. } = settings.rotation;
        if settings.rotation.is_wanted() && matches!(settings.output, Output::File(..)) {
            return invalid("what is written to a pipe is one file; rotate files by name".into());
        }
        if let Some(bytes) = bytes.filter(|&bytes| bytes < LEAST_BYTES) {
            return invalid(format!(
                "a file that is followed by the next has {LEAST_BYTES} bytes at least, not {bytes}"
            ));
        }
        if keep == Some(0) || (keep.is_some() && !settings.rotation.is_wanted()) {
            return invalid(
                "a number of files to keep is 1 or more, and takes a size or a time after which \
                 the next is begun"
                    .into(),
            );
        }
        let start = wall();
        let mut files = Files {
            settings,
            description: description.clone(),
            control,
            writer: None,
            names: VecDeque::new(),
            begun: 0,
            written: 0,
            unwritten: 0,
            packets: 0,
            first: start,
            start,
            last: start,
            counts: Counts::default(),
            delivered: 0,
        };
        files.begin()?;
        Ok(files)
    }

    /// The pipe that is written to, if it is one.
    pub(super) fn pipe(&self) -> Option<RawFd> {
        self.writer.as_ref().and_then(|writer| writer.get_ref().pipe())
    }

    /// # Errors
    /// That nobody reads the pipe any more.
    pub(super) fn check_reader(&self) -> io::Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        writer.get_ref().check_reader()
    }

    /// Bytes that are in files.
    pub(super) fn written(&self) -> u64 {
        self.written + self.writer.as_ref().map_or(0, |writer| writer.get_ref().position())
    }

    /// Packets that it was given.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Packets that could not be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten + self.writer.as_ref().map_or(0, |writer| writer.get_ref().unwritten())
    }

    /// Files that were begun.
    pub(super) fn begun(&self) -> u32 {
        self.begun
    }

    /// What the file is to say of losses when it ends.
    pub(super) fn note(&mut self, progress: &Progress) {
        let port = &progress.port;
        let dropped = port.dropped();
        let seen = port.rx_packets + dropped;
        self.counts = Counts {
            received: Some(seen),
            dropped: Some(dropped),
            accepted: Some(seen - progress.filtered.min(seen)),
            system_dropped: Some(dropped),
            ..Counts::default()
        };
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// What writing says, with the file's name.
    #[inline]
    pub(super) fn append(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let timestamp = Instant::from_nanos(packet.time);
        if self.settings.rotation.is_wanted() && self.is_over(packet, timestamp) {
            self.end()?;
            self.begin()?;
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if self.packets == 0 {
            self.first = timestamp;
        }
        self.packets += 1;
        self.delivered += 1;
        self.last = timestamp;
        let direction = self.settings.directions.then_some(match packet.outgoing {
            true => Direction::Outbound,
            false => Direction::Inbound,
        });
        let info = PacketInfo { interface: 0, timestamp, original_len: packet.length, direction };
        writer.append(&info, packet.parts())
    }

    /// Whether this packet belongs to the next file.
    fn is_over(&self, packet: &Packet<'_>, timestamp: Instant) -> bool {
        let Some(writer) = self.writer.as_ref().filter(|_| self.packets > 0) else { return false };
        let Rotation { bytes, time, .. } = self.settings.rotation;
        let size = writer.get_ref().position() + writer.collected() as u64;
        let next = u64::from(packet.kept()) + AROUND;
        bytes.is_some_and(|most| size + next > most)
            || time.is_some_and(|time| timestamp >= self.first + time)
    }

    /// Writes what is collected.
    ///
    /// # Errors
    /// As [`Files::append`].
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), PcapWriter::flush)
    }

    /// Ends the last file.
    ///
    /// # Errors
    /// As [`Files::append`].
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if self.writer.is_some() { self.end() } else { Ok(()) }
    }

    fn begin(&mut self) -> io::Result<()> {
        let (file, name) = match &self.settings.output {
            Output::File(file, name) => (file.try_clone()?, name.clone()),
            Output::Path(path) => {
                let path = match self.settings.rotation.is_wanted() {
                    true => numbered(path, self.begun + 1),
                    false => path.clone(),
                };
                let name = path.display().to_string();
                let file = File::create(&path).map_err(|error| {
                    io::Error::new(error.kind(), format!("{name}: cannot be written: {error}"))
                })?;
                self.names.push_back(path);
                (file, name)
            }
        };
        let target = Target::new(file, self.settings.format, Arc::clone(&self.control))?;
        self.writer = Some(PcapWriter::with(
            target,
            &name,
            &self.description,
            Some(&self.settings.program),
            self.settings.format,
            ByteOrder::Little,
        )?);
        self.begun += 1;
        self.packets = 0;
        if let Some(keep) = self.settings.rotation.keep {
            while self.names.len() > keep {
                let Some(oldest) = self.names.pop_front() else { break };
                // Somebody else may have taken it away.
                match fs::remove_file(&oldest) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        let text = format!("{}: cannot be deleted: {error}", oldest.display());
                        return Err(io::Error::new(error.kind(), text));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        // What was counted last may be older than what is in the file.
        let dropped = self.counts.system_dropped.unwrap_or(0);
        let least = Some(self.delivered + dropped);
        let counts = Counts {
            start: Some(self.start),
            end: Some(self.last.max(self.start)),
            received: self.counts.received.max(least),
            accepted: self.counts.accepted.max(least),
            delivered: Some(self.delivered),
            // Readers of files show these and not what the system has lost.
            dropped: Some(dropped),
            system_dropped: Some(dropped),
        };
        let ended = writer.write_counts(0, wall(), &counts).and_then(|()| writer.flush());
        self.written += writer.get_ref().position();
        self.unwritten += writer.get_ref().unwritten();
        ended
    }
}

/// `trace.pcapng` as `trace-00001.pcapng`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{number:05}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{number:05}"),
    };
    path.with_file_name(name)
}

fn wall() -> Instant {
    Instant::from_nanos(clock::wall().as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_before_the_suffix() {
        for (path, first) in [
            ("trace.pcapng", "trace-00001.pcapng"),
            ("/var/log/a.b.pcap", "/var/log/a.b-00001.pcap"),
            ("bare", "bare-00001"),
        ] {
            assert_eq!(numbered(Path::new(path), 1), Path::new(first));
        }
    }
}
