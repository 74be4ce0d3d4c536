//! How much a connection may keep: bytes to be sent, bytes received and not read.

use super::chronograph::Limit;
use super::connection::{Flags, Ready, State};
use crate::stack::Stack;

impl Stack {
    /// Most bytes, unsent and unacknowledged, that the connection takes.
    #[inline]
    pub(crate) fn send_limit(&self, index: usize) -> u32 {
        if self.connections[index].flags.has(Flags::CUSTOM) {
            let fixed = self.settings(index).send_buffer;
            if fixed > 0 {
                return fixed;
            }
        }
        self.tuned_send_limit(index)
    }

    /// Most received bytes that the connection keeps.
    #[inline]
    pub(crate) fn receive_limit(&self, index: usize) -> u32 {
        if self.connections[index].flags.has(Flags::CUSTOM) {
            return self.settings(index).receive_limit(self.tuned_receive_limit(index));
        }
        self.tuned_receive_limit(index)
    }

    /// Whether so many bytes fit into the least that a send buffer ever is; saying no means nothing.
    #[inline]
    pub(crate) fn has_room(&self, index: usize, bytes: usize) -> bool {
        let connection = &self.connections[index];
        !connection.flags.has(Flags::CUSTOM)
            && self.default_settings.notsent_lowat == u32::MAX
            && bytes <= self.config.send_buffer.saturating_sub(connection.queued()) as usize
    }

    /// Bytes that a write takes now.
    #[inline]
    pub(crate) fn send_room(&self, index: usize) -> usize {
        let connection = &self.connections[index];
        let room = self.send_limit(index).saturating_sub(connection.queued());
        let lowat = match connection.flags.has(Flags::CUSTOM) {
            true => self.settings(index).notsent_lowat,
            false => self.default_settings.notsent_lowat,
        };
        // A whole segment at least, as Linux takes one: less at a time would leave in pieces as small.
        let more = match lowat.saturating_sub(connection.unsent()) {
            0 => 0,
            more => more.max(connection.mss.into()),
        };
        room.min(more) as usize
    }

    /// Data has left: room may have come where what is unsent is bounded.
    pub(crate) fn tell_unsent_room(&mut self, index: usize) {
        if self.settings(index).notsent_lowat != u32::MAX
            && !self.connections[index].flags.has(Flags::IN_STARVED)
        {
            self.tell_room(index);
        }
    }

    /// Tells who waits for room, if there is enough for it to be worth while: a third of the
    /// buffer, and half of the unsent bytes that are allowed (as Linux's `sk_stream_is_writeable`
    /// and `tcp_stream_memory_free` have it).
    #[inline]
    pub(crate) fn tell_room(&mut self, index: usize) {
        let connection = &self.connections[index];
        if !connection.flags.has(Flags::WANT_WRITE)
            || matches!(connection.state, State::Closed | State::TimeWait)
        {
            return;
        }
        let lowat = self.settings(index).notsent_lowat;
        if connection.queued() <= self.send_limit(index) / 3 * 2
            && (lowat == u32::MAX || connection.unsent() <= lowat / 2)
        {
            self.connections[index].flags.clear(Flags::WANT_WRITE);
            self.set_limit(index, Limit::None);
            self.tell(index, Ready::WRITABLE);
        }
    }
}
