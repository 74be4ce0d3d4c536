//! Operations and completions in virtual time, in one thread.

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod ending;
mod reading;
mod writing;

use millrace_channel::{Completion, Handle, Kind};

fn find(told: &[Completion], kind: Kind, handle: Handle) -> bool {
    told.iter().any(|done| done.kind == kind && done.handle == handle)
}
