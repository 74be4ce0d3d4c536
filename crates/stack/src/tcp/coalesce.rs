//! Small segments that were lost one after the other leave again as one, as far as a segment takes
//! them (Linux's `tcp_retrans_try_collapse`): on a path that loses much, each retransmission is a
//! turn at the dice, and a stream of single bytes would have to win one for every byte.
//!
//! What made separate frames of the send queue is one frame afterwards.

use millrace_frames::{Arena, Frame, Owners};
use millrace_wire::checksum;
use millrace_wire::seq::Seq;

use super::connection::Queue;
use super::scoreboard::Sent;
use crate::stack::Stack;

/// Moves the bytes of a record that has a frame of its own into the frame before it. Both frames
/// must be nobody's but the send queue's. Returns whether that was so, and there was room.
fn merge(arena: &mut Arena, queue: &mut Queue, head: Frame, next: &Sent) -> bool {
    let (meta, more) = (*arena.meta(head), *arena.meta(next.frame));
    let used = usize::from(meta.offset) + usize::from(meta.len);
    let whole = Seq(more.mark) == next.start && u32::from(more.len) == next.len();
    let alone = [head, next.frame].iter().all(|&frame| arena.owners(frame) == Owners::UNACKED);
    let room = usize::from(more.len) <= arena.frame_size() - used;
    if !whole || !alone || !room || meta.next != next.frame || meta.record_end {
        return false;
    }
    arena.append_from(head, next.frame, more.offset.into(), more.len.into());
    let meta = arena.meta_mut(head);
    meta.sum = checksum::concat(meta.sum, used - usize::from(meta.offset), more.sum);
    meta.next = more.next;
    meta.record_end = more.record_end;
    if queue.tail == next.frame {
        queue.tail = head;
    }
    arena.release(next.frame, Owners::UNACKED);
    true
}

impl Stack {
    /// Joins what follows `first`, the lost record with that number, and is lost as well, to it, up
    /// to `most` bytes. Returns the record as it is then.
    pub(crate) fn coalesce(&mut self, index: usize, at: usize, first: Sent, most: u32) -> Sent {
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return first };
        let end_of_data = connection.snd_end;
        let head = first.frame;
        if first.len() >= most || !first.is_due() || first.end.gt(end_of_data) {
            return first;
        }
        let (mut joined, mut len) = (0, first.len());
        while let Some(&next) = transfer.sent.get(at + joined + 1).filter(|next| next.is_due()) {
            if next.start == end_of_data {
                // A FIN alone.
                joined += 1;
                break;
            }
            len += next.len();
            if len > most || next.end.gt(end_of_data) {
                break;
            }
            // In one frame they are only where the segments were smaller for a while.
            if next.frame != head {
                if !merge(&mut self.arena, &mut connection.send, head, &next) {
                    break;
                }
                connection.send_frames -= 1;
            }
            joined += 1;
        }
        transfer.sent.join(at, joined);
        self.counters.retransmissions_coalesced += joined as u64;
        transfer.sent.get(at).copied().unwrap_or(first)
    }
}
