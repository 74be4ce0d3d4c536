//! The page: a file of fixed size with a few blocks, each of which is replaced as a whole.
//!
//! All numbers are little-endian. The head, 128 bytes:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `MILLPAGE`, written last when the page is made |
//! | 8 | 4 | version of this layout, 1 |
//! | 12 | 4 | number of blocks |
//! | 16 | 4 | process number |
//! | 20 | 4 | number of the page in its process |
//! | 24 | 8 | start of the process, clock ticks since boot |
//! | 32 | 8 | inode of its PID namespace |
//! | 40 | 16 | boot, as `/proc/sys/kernel/random/boot_id` has it |
//! | 56 | 8 | when the page was made, nanoseconds of `CLOCK_MONOTONIC` |
//! | 64 | 64 | the blocks: for each where it begins (4) and how many bytes it may have (4) |
//!
//! A block is 32 bytes and its content: a sequence number (8) that is odd while it is written, when
//! it was written (8, `CLOCK_MONOTONIC`), length of the content (4), its Adler-32 (4, RFC 1950 §8.2),
//! a generation (4) and four bytes of zero. A reader takes a block whose sequence number is even and
//! the same before and after, and whose sum is right; else it looks again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use millrace_frames::Instant;

use crate::folder::Identity;

/// The first bytes of a page.
pub const MAGIC: [u8; 8] = *b"MILLPAGE";
/// Version of the layout.
pub const VERSION: u32 = 1;

const HEAD: usize = 128;
const BLOCK_HEAD: usize = 32;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Block {
    /// A table `facts` of names and texts.
    Facts = 0,
    /// A table `names`: group, name and kind of each value.
    Names = 1,
    /// The values, 8 bytes each. Its generation is that of the names they belong to.
    Values = 2,
    /// Tables one after the other.
    Tables = 3,
}

/// Bytes of content that each block may have.
const CAPACITIES: [usize; 4] = [8 << 10, 24 << 10, 8 << 10, 96 << 10];

impl Block {
    /// Bytes of content that it may have.
    pub const fn capacity(self) -> usize {
        CAPACITIES[self as usize]
    }

    fn offset(self) -> u64 {
        let before: usize = CAPACITIES[..self as usize].iter().map(|len| len + BLOCK_HEAD).sum();
        (HEAD + before) as u64
    }
}

/// A page that this process writes. It is removed when this is dropped.
#[derive(Debug)]
pub struct Page {
    file: File,
    path: PathBuf,
    /// A child that was forked has this too, and must leave the file alone.
    owner: u32,
    sequences: [u64; CAPACITIES.len()],
    scratch: Vec<u8>,
}

impl Page {
    /// Makes page `number` of this process in `folder`.
    ///
    /// # Errors
    /// What open(2) and pwrite(2) say, with the file's name.
    pub fn create(
        folder: &Path,
        identity: &Identity,
        number: u32,
        now: Instant,
    ) -> io::Result<Page> {
        let path = folder.join(format!("{identity}.{number}.page"));
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // Of an earlier boot, at the very worst.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(named)?;
        let page = Page {
            file,
            path: path.clone(),
            owner: identity.pid,
            sequences: [0; CAPACITIES.len()],
            scratch: Vec::with_capacity(BLOCK_HEAD + Block::Names.capacity()),
        };
        let end = Block::Tables.offset() + (BLOCK_HEAD + Block::Tables.capacity()) as u64;
        page.file.set_len(end).map_err(named)?;
        page.file.write_all_at(&head(identity, number, now), 8).map_err(named)?;
        page.file.write_all_at(&MAGIC, 0).map_err(named)?;
        Ok(page)
    }

    /// Replaces a block by what `fill` appends to the empty list that it is given. Content beyond
    /// the block's capacity is an error, and nothing is written then.
    ///
    /// # Errors
    /// `InvalidData` for too much content, what pwrite(2) says (`StorageFull`).
    pub fn write(
        &mut self,
        block: Block,
        generation: u32,
        now: Instant,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> io::Result<()> {
        self.scratch.clear();
        self.scratch.resize(BLOCK_HEAD, 0);
        let mut scratch = core::mem::take(&mut self.scratch);
        fill(&mut scratch);
        let result = self.replace(block, generation, now, &mut scratch);
        self.scratch = scratch;
        result
    }

    fn replace(
        &mut self,
        block: Block,
        generation: u32,
        now: Instant,
        bytes: &mut [u8],
    ) -> io::Result<()> {
        let content = &bytes[BLOCK_HEAD..];
        if content.len() > block.capacity() {
            let (len, most) = (content.len(), block.capacity());
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{len} bytes for block {block:?} of a page, which has {most}"),
            ));
        }
        let (len, sum) = (content.len() as u32, adler32(content));
        bytes[8..16].copy_from_slice(&now.as_nanos().to_le_bytes());
        bytes[16..20].copy_from_slice(&len.to_le_bytes());
        bytes[20..24].copy_from_slice(&sum.to_le_bytes());
        bytes[24..28].copy_from_slice(&generation.to_le_bytes());
        let sequence = &mut self.sequences[block as usize];
        // One that failed in between left an odd number, from which the next goes on.
        let odd = (*sequence + 1) | 1;
        *sequence = odd;
        let offset = block.offset();
        self.file.write_all_at(&odd.to_le_bytes(), offset)?;
        self.file.write_all_at(&bytes[8..], offset + 8)?;
        self.file.write_all_at(&(odd + 1).to_le_bytes(), offset)?;
        *sequence = odd + 1;
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if std::process::id() == self.owner {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The head behind the magic.
fn head(identity: &Identity, number: u32, now: Instant) -> [u8; HEAD - 8] {
    let mut head = [0; HEAD - 8];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        head[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&VERSION.to_le_bytes());
    put(&(CAPACITIES.len() as u32).to_le_bytes());
    put(&identity.pid.to_le_bytes());
    put(&number.to_le_bytes());
    put(&identity.start.to_le_bytes());
    put(&identity.namespace.to_le_bytes());
    put(&boot_id());
    put(&now.as_nanos().to_le_bytes());
    for block in [Block::Facts, Block::Names, Block::Values, Block::Tables] {
        put(&(block.offset() as u32).to_le_bytes());
        put(&(block.capacity() as u32).to_le_bytes());
    }
    head
}

/// Zero where the kernel does not tell.
fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&hex, 16).map_or([0; 16], u128::to_be_bytes)
}

/// RFC 1950 §8.2.
pub(crate) fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (mut a, mut b) = (1u32, 0u32);
    // So many sums stay below 2^32.
    for chunk in bytes.chunks(5552) {
        for &byte in chunk {
            a += u32::from(byte);
            b += a;
        }
        a %= MODULUS;
        b %= MODULUS;
    }
    b << 16 | a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let own = Identity::own().unwrap();
        let folder = std::env::temp_dir().join(format!("mr-page-{name}-{own}"));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_sum_is_that_of_the_standard() {
        assert_eq!(adler32(b""), 1);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(adler32(&[0xff; 100_000]), 0x149a_302c);
    }

    #[test]
    fn a_block_is_replaced_and_the_file_goes_with_the_page() {
        let folder = folder("replaced");
        let own = Identity::own().unwrap();
        let mut page = Page::create(&folder, &own, 7, Instant::from_nanos(5)).unwrap();
        let path = page.path().to_owned();
        let now = Instant::from_nanos(99);
        page.write(Block::Facts, 1, now, |bytes| bytes.extend_from_slice(b"first, longer"))
            .unwrap();
        page.write(Block::Facts, 2, now, |bytes| bytes.extend_from_slice(b"second")).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[..8], MAGIC);
        assert_eq!(bytes[16..20], own.pid.to_le_bytes());
        assert_eq!(bytes[20..24], 7u32.to_le_bytes());
        let block = &bytes[Block::Facts.offset() as usize..];
        assert_eq!(block[..8], 4u64.to_le_bytes());
        assert_eq!(block[8..16], 99u64.to_le_bytes());
        assert_eq!(block[16..20], 6u32.to_le_bytes());
        assert_eq!(block[20..24], adler32(b"second").to_le_bytes());
        assert_eq!(block[24..28], 2u32.to_le_bytes());
        assert_eq!(&block[32..38], b"second");
        drop(page);
        assert!(!path.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn too_much_content_is_refused_and_leaves_the_block_as_it_was() {
        let folder = folder("much");
        let own = Identity::own().unwrap();
        let mut page = Page::create(&folder, &own, 0, Instant::ZERO).unwrap();
        page.write(Block::Values, 0, Instant::ZERO, |bytes| bytes.push(1)).unwrap();
        let before = fs::read(page.path()).unwrap();
        let much = |bytes: &mut Vec<u8>| bytes.resize(Block::Values.capacity() + 33, 0);
        let error = page.write(Block::Values, 0, Instant::ZERO, much).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read(page.path()).unwrap(), before);
        drop(page);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn somebody_who_shortens_the_file_harms_only_readers() {
        let folder = folder("short");
        let own = Identity::own().unwrap();
        let mut page = Page::create(&folder, &own, 0, Instant::ZERO).unwrap();
        File::create(page.path()).unwrap().set_len(0).unwrap();
        page.write(Block::Tables, 0, Instant::ZERO, |bytes| bytes.push(1)).unwrap();
        drop(page);
        fs::remove_dir_all(folder).unwrap();
    }
}
