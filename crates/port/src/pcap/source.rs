//! A file read as a stream: its bytes, how far they were read, and errors that say the place.

use std::io::{self, BufRead, BufReader, Read};

#[derive(Debug)]
pub(super) struct Source<R> {
    reader: BufReader<Counted<R>>,
    name: String,
    offset: u64,
}

/// Counts the reads, each of which is a system call when a file is underneath.
#[derive(Debug)]
struct Counted<R> {
    reader: R,
    reads: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        self.reader.read(buffer)
    }
}

impl<R: Read> Source<R> {
    pub(super) fn new(reader: R, name: &str) -> Self {
        let counted = Counted { reader, reads: 0 };
        Source {
            reader: BufReader::with_capacity(256 << 10, counted),
            name: name.into(),
            offset: 0,
        }
    }

    /// How many bytes have been read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// How often the stream underneath was read.
    pub(super) fn reads(&self) -> u64 {
        self.reader.get_ref().reads
    }

    pub(super) fn invalid(&self, at: u64, what: String) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: byte {at}: {what}", self.name))
    }

    fn cut(&self, what: &str, wanted: u64, found: u64) -> io::Error {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "{}: byte {}: expected {what}, {wanted} bytes, but the file ends after {found}",
                self.name,
                self.offset - found
            ),
        )
    }

    fn failed(&self, error: io::Error) -> io::Error {
        io::Error::new(
            error.kind(),
            format!("{}: byte {}: reading failed: {error}", self.name, self.offset),
        )
    }

    /// Fills `to` as far as there are bytes.
    fn fill(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < to.len() {
            match self.reader.read(&mut to[filled..]) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(filled)
    }

    pub(super) fn exact(&mut self, to: &mut [u8], what: &str) -> io::Result<()> {
        match self.fill(to)? {
            count if count == to.len() => Ok(()),
            count => Err(self.cut(what, to.len() as u64, count as u64)),
        }
    }

    /// False when the file ends before the first byte.
    pub(super) fn exact_or_end(&mut self, to: &mut [u8], what: &str) -> io::Result<bool> {
        match self.fill(to)? {
            0 => Ok(false),
            count if count == to.len() => Ok(true),
            count => Err(self.cut(what, to.len() as u64, count as u64)),
        }
    }

    pub(super) fn skip(&mut self, len: u64, what: &str) -> io::Result<()> {
        let mut left = len;
        while left > 0 {
            let there = match self.reader.fill_buf() {
                Ok([]) => return Err(self.cut(what, len, len - left)),
                Ok(bytes) => left.min(bytes.len() as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            self.reader.consume(there as usize);
            self.offset += there;
            left -= there;
        }
        Ok(())
    }
}
