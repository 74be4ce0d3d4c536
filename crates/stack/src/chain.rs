//! Packets in several frames: cut to a range, compared, copied from.

use millrace_frames::{Arena, Frame, Owners};

/// The end of a chain and how many frames it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) tail: Frame,
    pub(crate) frames: u16,
}

/// Cuts a chain to `len` bytes from `start` of its first frame on. Frames behind the end are
/// released. `start` lies within the first frame, and the chain has the bytes.
pub(crate) fn cut(arena: &mut Arena, head: Frame, start: usize, len: usize) -> Chain {
    let meta = arena.meta_mut(head);
    meta.offset += start as u16;
    meta.len -= start as u16;
    meta.total = len as u32;
    let (mut at, mut left, mut frames) = (head, len, 1);
    loop {
        let meta = arena.meta_mut(at);
        meta.len = usize::from(meta.len).min(left) as u16;
        left -= usize::from(meta.len);
        let next = meta.next;
        if left == 0 || next.is_none() {
            meta.next = Frame::NONE;
            arena.release_chain(next, Owners::RECEIVED);
            return Chain { tail: at, frames };
        }
        at = next;
        frames += 1;
    }
}

/// Copies `len` bytes from `start` of the chain on behind the bytes of `target`. Returns how many
/// bytes there were and had room.
pub(crate) fn append(
    arena: &mut Arena,
    target: Frame,
    chain: Frame,
    start: usize,
    len: usize,
) -> usize {
    let (mut at, mut skip, mut done) = (chain, start, 0);
    while done < len && at.is_some() {
        let meta = *arena.meta(at);
        let available = usize::from(meta.len);
        if skip < available {
            let part = (available - skip).min(len - done);
            let copied = arena.append_from(target, at, usize::from(meta.offset) + skip, part);
            done += copied;
            if copied < part {
                break;
            }
        }
        skip = skip.saturating_sub(available);
        at = meta.next;
    }
    done
}
