//! What leaves a simulation besides figures: a pcapng file for Wireshark, and a digest of every
//! packet on every wire, by which two runs are compared to the byte.

use std::fs::File;
use std::io;
use std::path::Path;

use millrace_frames::{Duration, Instant};
use millrace_port::pcap::{ByteOrder, FileFormat, PcapWriter};
use sha2::{Digest as _, Sha256};

/// Bytes collected before they are hashed.
const BUFFER: usize = 32 << 10;

/// SHA-256 over time, wire, direction, fate, length and bytes of each packet put on a wire.
pub(crate) struct Digest {
    hasher: Sha256,
    buffer: Vec<u8>,
}

impl Digest {
    pub(crate) fn new() -> Digest {
        Digest { hasher: Sha256::new(), buffer: Vec::with_capacity(BUFFER + (64 << 10)) }
    }

    pub(crate) fn packet(
        &mut self,
        time: Duration,
        wire: u32,
        direction: u8,
        fate: u8,
        bytes: &[u8],
    ) {
        self.buffer.extend_from_slice(&(time.as_nanos() as u64).to_le_bytes());
        self.buffer.extend_from_slice(&wire.to_le_bytes());
        self.buffer.extend_from_slice(&[direction, fate]);
        self.buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// The digest of all packets so far, in hexadecimal.
    pub(crate) fn hex(&self) -> String {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.buffer);
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A pcapng file with an interface for each end of each captured wire: what the end sent and what
/// came out there, as `tcpdump` would see it.
pub(crate) struct Trace {
    writer: PcapWriter<File>,
    /// Number in the file of each wire's two ends.
    interfaces: Vec<Option<[u32; 2]>>,
    error: Option<io::Error>,
}

impl Trace {
    /// `ends` has the names of each captured wire's ends.
    pub(crate) fn create(path: &Path, ends: &[Option<[String; 2]>]) -> io::Result<Trace> {
        let name = path.display().to_string();
        let file = File::create(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        let mut names = ends.iter().flatten().flatten();
        let Some(first) = names.next() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name}: no wire is captured, so a trace would be empty"),
            ));
        };
        let format = FileFormat::PcapNg;
        let mut writer = PcapWriter::new(file, &name, first, format, ByteOrder::default())?;
        for name in names {
            writer.add_interface(name)?;
        }
        let mut next = 0;
        let interfaces = ends
            .iter()
            .map(|wire| {
                wire.as_ref().map(|_| {
                    next += 2;
                    [next - 2, next - 1]
                })
            })
            .collect();
        Ok(Trace { writer, interfaces, error: None })
    }

    pub(crate) fn packet(&mut self, wire: u32, end: u8, time: Duration, bytes: &[u8]) {
        let Some(ends) = self.interfaces[wire as usize] else { return };
        let time = Instant::ZERO + time;
        if let Err(error) = self.writer.write(ends[usize::from(end)], time, bytes) {
            self.error.get_or_insert(error);
        }
    }

    /// Writes what is collected, and says what went wrong so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.writer.flush(),
        }
    }
}
