//! The anonymous memory under an arena: huge pages if there are any, ordinary ones otherwise.

use core::ptr::NonNull;
use std::io;

/// Whether an arena asks for huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hugepages {
    /// Ordinary pages only.
    Never,
    /// Reserved huge pages when there are enough, else ordinary pages that the kernel is asked
    /// to merge (transparent huge pages). [`Mapping::hugepages`] says which it became.
    #[default]
    Prefer,
    /// Reserved huge pages, or an error.
    Require,
}

const HUGE: usize = 2 << 20;

/// Memory that stays mapped for as long as anything refers to it: the arena, a socket whose UMEM
/// it is, or a view that outlived its turn.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    hugepages: bool,
}

// SAFETY: the mapping is plain memory without thread affinity; who may touch which part of it is
// decided by the arena (one thread) and by `Held` (read only, frames that the arena has set aside).
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared reference alone gives nothing but the address and the length.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(len: usize, hugepages: Hugepages) -> io::Result<Self> {
        if hugepages != Hugepages::Never {
            let rounded = len.next_multiple_of(HUGE);
            // Without MAP_POPULATE a reserved pool that is too small fails here, at once, and not
            // later with SIGBUS: huge pages are reserved at mmap time.
            match map(rounded, libc::MAP_HUGETLB) {
                Ok(base) => return Ok(Mapping { base, len: rounded, hugepages: true }),
                Err(error) if hugepages == Hugepages::Require => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!(
                            "no huge pages for {rounded} bytes of frames ({error}); reserve some \
                             (sysctl vm.nr_hugepages={}) or do not require them",
                            rounded / HUGE
                        ),
                    ));
                }
                Err(_) => {}
            }
        }
        let base = map(len, 0).map_err(|error| {
            io::Error::new(error.kind(), format!("no memory for {len} bytes of frames: {error}"))
        })?;
        if hugepages == Hugepages::Prefer {
            // SAFETY: the range is the mapping made above; advice does not change its contents.
            unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        Ok(Mapping { base, len, hugepages: false })
    }

    /// First byte.
    #[inline]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Size in bytes.
    #[inline]
    pub fn size(&self) -> usize {
        self.len
    }

    /// Whether reserved huge pages are underneath.
    pub fn hugepages(&self) -> bool {
        self.hugepages
    }
}

fn map(len: usize, flags: i32) -> io::Result<NonNull<u8>> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing existing.
    let address = unsafe {
        libc::mmap(
            core::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap returned address 0"))
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and len are those of the mapping made in `new`, unmapped once, and every
        // user of the memory holds a reference that has ended by now.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
