//! Wires by name, so that two users of one process can meet without handing an end over.

use std::collections::HashMap;
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::{MemoryPort, WireConfig, try_wire};

struct Entry {
    config: WireConfig,
    /// The end that nobody has asked for yet.
    waiting: Option<MemoryPort>,
    /// Ends that were handed out and are not closed.
    open: usize,
}

static WIRES: LazyLock<Mutex<HashMap<String, Entry>>> = LazyLock::new(Mutex::default);

fn wires() -> MutexGuard<'static, HashMap<String, Entry>> {
    WIRES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the two places at a named wire. The name is free again when both are left.
#[derive(Debug)]
pub(super) struct Place {
    name: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut wires = wires();
        if let Some(entry) = wires.get_mut(&self.name) {
            entry.open -= 1;
            if entry.open == 0 {
                // An end that nobody took has no place, so dropping it does not come back here.
                wires.remove(&self.name);
            }
        }
    }
}

/// An end of the wire called `name` in this process. The first caller of a name gets one end and
/// decides what the wire is like, the second gets the other. What is sent before the second has
/// come waits for it.
///
/// # Errors
/// `ResourceBusy` when both ends are taken; `InvalidInput` for a bad name or `config`, or one that
/// differs from the first caller's; what eventfd(2) says.
pub fn join(name: &str, config: WireConfig) -> io::Result<MemoryPort> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    if name.is_empty() || name.len() > 64 {
        return Err(invalid(format!(
            "the name of a memory wire has 1 to 64 bytes, not {}",
            name.len()
        )));
    }
    let mut wires = wires();
    let mut port = match wires.get_mut(name) {
        None => {
            let (first, second) = try_wire(config)?;
            let entry = Entry { config, waiting: Some(second), open: 1 };
            wires.insert(name.to_owned(), entry);
            first
        }
        Some(entry) if entry.config != config => {
            return Err(invalid(format!(
                "the memory wire {name} was made with other settings; give both ends the same"
            )));
        }
        Some(entry) => {
            let Some(second) = entry.waiting.take() else {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!("both ends of the memory wire {name} are taken; use another name"),
                ));
            };
            entry.open += 1;
            second
        }
    };
    port.take_place(name, Place { name: name.to_owned() });
    Ok(port)
}
