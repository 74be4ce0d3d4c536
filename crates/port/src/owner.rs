//! The process that opened something. A child that fork(2) makes has a copy of all its memory, and
//! shares its descriptors, rings and programs: what the child drops must undo nothing of its parent's.

/// Whose something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u32);

impl Owner {
    /// The process that asks.
    pub fn new() -> Owner {
        Owner(std::process::id())
    }

    /// Whether the process that asks is the owner, and no child of its.
    pub fn is_here(self) -> bool {
        self == Owner::new()
    }
}

impl Default for Owner {
    fn default() -> Self {
        Owner::new()
    }
}
