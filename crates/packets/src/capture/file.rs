//! One file that is written, or one pipe: whole packets only.
//!
//! A file that cannot take any more, because the disk is full, ends behind the last packet that it
//! has whole. A pipe is given pieces that it takes at once, so that a reader that does not read
//! keeps nobody from ending the capture.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

use millrace_frames::Duration;
use millrace_port::pcap::FileFormat;
use millrace_port::{clock, wait};

use super::Control;

/// What a pipe that is writable takes without blocking (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;
/// How often one who waits for a reader looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// How long a reader may take for what is left once the capture has ended.
const GRACE: Duration = Duration::from_secs(2);
/// Bytes of the header of a pcap file, and of that of a packet in it.
const PCAP_HEADER: usize = 24;
const PCAP_RECORD: usize = 16;
/// pcapng's enhanced packet block.
const ENHANCED_PACKET: u32 = 6;

/// What is written to.
#[derive(Debug)]
pub(super) struct Target {
    file: File,
    format: FileFormat,
    is_pipe: bool,
    /// Bytes that are in the file.
    position: u64,
    /// Packets that could not be written.
    unwritten: u64,
    control: Arc<Control>,
}

impl Target {
    pub(super) fn new(file: File, format: FileFormat, control: Arc<Control>) -> io::Result<Target> {
        let kind = file.metadata()?.file_type();
        let is_pipe = kind.is_fifo() || kind.is_socket();
        Ok(Target { file, format, is_pipe, position: 0, unwritten: 0, control })
    }

    /// Bytes that are in the file.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Packets that could not be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// The descriptor, if somebody reads at its other end.
    pub(super) fn pipe(&self) -> Option<RawFd> {
        self.is_pipe.then(|| self.file.as_raw_fd())
    }

    /// # Errors
    /// That nobody reads any more.
    pub(super) fn check_reader(&self) -> io::Result<()> {
        match self.is_pipe && wait::peer_is_gone(self.file.as_raw_fd()) {
            true => Err(reader_gone()),
            false => Ok(()),
        }
    }

    /// Writes as much as goes; how much, and what was in the way.
    fn put(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let piece = if self.is_pipe { &rest[..rest.len().min(PIECE)] } else { rest };
            if self.is_pipe
                && let Err(error) = self.wait_for_reader()
            {
                return (done, Some(error));
            }
            match self.file.write(piece) {
                Ok(0) => return (done, Some(io::ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.is_pipe => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return (done, Some(reader_gone()));
                }
                Err(error) => return (done, Some(error)),
            }
        }
        (done, None)
    }

    /// Waits until the pipe takes a piece.
    fn wait_for_reader(&self) -> io::Result<()> {
        let mut end = None;
        loop {
            let now = clock::now();
            if self.control.stops() && now >= *end.get_or_insert(now + GRACE) {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the reader of the pipe does not read, so the last packets are missing there",
                ));
            }
            match wait::poll_writable(self.file.as_raw_fd(), now, now + LOOK)? {
                wait::Wake::Arrival => return Ok(()),
                _ => continue,
            }
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    /// `bytes` are whole packets, as a writer of capture files collects them.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (done, failed) = self.put(bytes);
        let Some(error) = failed else {
            self.position += done as u64;
            return Ok(());
        };
        let (whole, packets) = whole(bytes, done, self.format, self.position == 0);
        self.unwritten += packets;
        if !self.is_pipe {
            // Behind the last whole packet the file would be damaged. That is said anyway.
            let _ = self.file.set_len(self.position + whole as u64);
        }
        self.position += whole as u64;
        Err(error)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many of the first `done` bytes are whole packets or blocks, and how many packets follow.
fn whole(bytes: &[u8], done: usize, format: FileFormat, at_start: bool) -> (usize, u64) {
    let word = |at: usize| {
        bytes.get(at..at + 4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    };
    let (mut whole, mut lost) = (0, 0);
    let mut at = 0;
    while at < bytes.len() {
        let (len, is_packet) = match format {
            FileFormat::PcapNg => (word(at + 4), word(at) == Some(ENHANCED_PACKET)),
            _ if at_start && at == 0 => (Some(PCAP_HEADER as u32), false),
            _ => (word(at + 8).map(|len| len + PCAP_RECORD as u32), true),
        };
        // What we wrote ourselves has a length.
        let Some(len) = len.filter(|&len| len > 0) else { break };
        at += len as usize;
        if at <= done {
            whole = at;
        } else {
            lost += u64::from(is_packet);
        }
    }
    (whole, lost)
}

fn reader_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the reader of the pipe is gone")
}
