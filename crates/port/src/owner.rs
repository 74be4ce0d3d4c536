//! The process that opened something. A child that fork(2) makes has a copy of all its memory, and
//! shares its descriptors, rings and programs: what the child drops must undo nothing of its parent's,
//! and what it uses would ruin the rings of both.

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Once;

/// Forks between the process that was started and this one. Counted, because to ask the kernel for
/// the process's number takes longer than a turn may.
static FORKS: AtomicU32 = AtomicU32::new(0);
static COUNTS: Once = Once::new();

extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Whose something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u32);

impl Owner {
    /// The process that asks.
    pub fn new() -> Owner {
        COUNTS.call_once(|| {
            // SAFETY: the handler adds to a number and does nothing else, which a child may do whatever
            // its parent's threads held. Without memory for it children are not told apart.
            unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        });
        Owner(FORKS.load(Ordering::Relaxed))
    }

    /// Whether the process that asks is the owner, and no child of its.
    #[inline]
    pub fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.0
    }
}

impl Default for Owner {
    fn default() -> Self {
        Owner::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_not_the_owner_of_what_its_parent_made() {
        let owner = Owner::new();
        assert!(owner.is_here());
        // SAFETY: the child only reads and adds to memory of its own, and leaves.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let own = Owner::new();
            let told = i32::from(owner.is_here()) | i32::from(!own.is_here()) << 1;
            // SAFETY: ends the child, and nothing of its parent's that it has copies of.
            unsafe { libc::_exit(told) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above; `status` is ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        assert!(owner.is_here());
    }
}
