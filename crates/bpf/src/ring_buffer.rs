//! Reads what programs put into a ring of the kernel's (`BPF_MAP_TYPE_RINGBUF`).
//!
//! The kernel maps the consumer's position for writing, and the producer's position and the data,
//! twice in a row, for reading: a record that wraps is in one piece all the same (the kernel's
//! Documentation/bpf/ringbuf.rst).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::map::{Map, MapKind, MapSpec};
use crate::sys;

/// Of a record's length: it is being written, it was thrown away.
const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
const RECORD_HEAD: usize = 8;

#[derive(Debug)]
struct Mapped {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: memory without thread affinity; `RingBuffer` alone has it.
unsafe impl Send for Mapped {}

impl Mapped {
    fn new(fd: BorrowedFd<'_>, offset: usize, len: usize, protection: i32) -> Result<Mapped> {
        // SAFETY: maps memory anew, at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Error::system("mapping a ring buffer", sys::errno()));
        }
        let base = NonNull::new(base.cast()).expect("no mapping is at address zero");
        Ok(Mapped { base, len })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the range that was mapped, and nobody refers to it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A ring, and this process as the one that reads it.
#[derive(Debug)]
pub struct RingBuffer {
    map: Map,
    consumer: Mapped,
    producer: Mapped,
    /// Bytes of data; a power of two.
    size: usize,
    page: usize,
    position: u64,
}

impl RingBuffer {
    /// Makes a ring of so many bytes: a power of two, and at least a page.
    ///
    /// # Errors
    /// [`Error::Argument`] for another size, else what the kernel says.
    pub fn new(name: &str, bytes: u32) -> Result<RingBuffer> {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let size = bytes as usize;
        if !bytes.is_power_of_two() || !size.is_multiple_of(page) {
            return Err(Error::Argument(format!(
                "a ring buffer has a power of two of bytes, and at least {page}, not {bytes}"
            )));
        }
        let map = Map::create(&MapSpec {
            name,
            kind: MapKind::RingBuffer,
            key_size: 0,
            value_size: 0,
            max_entries: bytes,
            flags: 0,
        })?;
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let consumer = Mapped::new(map.as_fd(), 0, page, both)?;
        let producer = Mapped::new(map.as_fd(), page, page + 2 * size, libc::PROT_READ)?;
        Ok(RingBuffer { map, consumer, producer, size, page, position: 0 })
    }

    /// Hands over at most `most` records, the oldest first. Returns how many there were.
    pub fn read(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> usize {
        // SAFETY: the first eight bytes of a mapping that lives as long as `self`; the kernel writes
        // them as one number.
        let produced = unsafe { AtomicU64::from_ptr(self.producer.base.as_ptr().cast()) };
        // SAFETY: as above, and this process is the one that writes these.
        let consumed = unsafe { AtomicU64::from_ptr(self.consumer.base.as_ptr().cast()) };
        let mut count = 0;
        while count < most && self.position < produced.load(Ordering::Acquire) {
            let at = self.page + (self.position as usize & (self.size - 1));
            // SAFETY: `at` lies in the first copy of the data, at a multiple of eight.
            let head = unsafe { AtomicU32::from_ptr(self.producer.base.as_ptr().add(at).cast()) };
            let head = head.load(Ordering::Acquire);
            if head & BUSY != 0 {
                break;
            }
            let len = (head & !(BUSY | DISCARD)) as usize;
            if len + RECORD_HEAD > self.size {
                // The kernel makes no such record.
                break;
            }
            if head & DISCARD == 0 {
                // SAFETY: a record that is not busy is not written to until it is consumed, and lies
                // in the two copies of the data in one piece.
                let bytes = unsafe {
                    std::slice::from_raw_parts(
                        self.producer.base.as_ptr().add(at + RECORD_HEAD),
                        len,
                    )
                };
                take(bytes);
                count += 1;
            }
            self.position += (RECORD_HEAD + len).next_multiple_of(8) as u64;
            consumed.store(self.position, Ordering::Release);
        }
        count
    }
}

impl AsFd for RingBuffer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}
