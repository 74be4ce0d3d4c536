//! The user timeout option (RFC 5482): each end tells the other how long it waits for what it sent to
//! be acknowledged, and one that has no wish of its own waits as long.
//!
//! It is advice: it may be lost, and nothing else depends on it. It goes with SYNs, with the first
//! segment after them, and again when the application changes its mind.

use core::time::Duration;

use millrace_wire::tcp::{OptionWriter, UserTimeout};

use crate::config::UserTimeoutOption;
use crate::stack::Stack;

/// Most bytes that the other options of a segment may take beyond those that every one has.
const OTHERS: u32 = 28;

/// What one end was told, and what it has to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Advice {
    /// What the peer said last (REMOTE_UTO).
    remote: Option<UserTimeout>,
    /// Ours is to be told with the next segment that has room.
    due: bool,
}

impl UserTimeoutOption {
    /// RFC 5482 §3.1: the longer of both wishes, within the bounds.
    fn agreed(&self, own: Option<Duration>, remote: Duration) -> Duration {
        own.unwrap_or_default().max(remote).max(self.least).min(self.most)
    }
}

impl Stack {
    /// How long what was sent may stay unacknowledged; `None`: retransmissions are counted.
    #[inline]
    pub(crate) fn user_timeout(&self, index: usize) -> Option<Duration> {
        let own = self.settings(index).user_timeout;
        match self.config.user_timeout_option {
            None => own,
            Some(bounds) => self.advised_user_timeout(index, own, &bounds),
        }
    }

    fn advised_user_timeout(
        &self,
        index: usize,
        own: Option<Duration>,
        bounds: &UserTimeoutOption,
    ) -> Option<Duration> {
        // An application's own wish is kept (CHANGEABLE).
        if own != self.default_settings.user_timeout {
            return own;
        }
        let remote = self.transfer(index)?.advice.remote;
        remote.map(|remote| bounds.agreed(own, remote.duration())).or(own)
    }

    /// What we tell (ADV_UTO), if there is anything to tell.
    fn own_user_timeout(&self, index: usize) -> Option<UserTimeout> {
        self.config.user_timeout_option?;
        self.settings(index).user_timeout.map(UserTimeout::of)
    }

    /// Ours is new to the peer, or may be.
    pub(crate) fn advertise_user_timeout(&mut self, index: usize) {
        if self.own_user_timeout(index).is_some() {
            self.transfer_mut(index).advice.due = true;
        }
    }

    /// Adds it to a SYN.
    pub(crate) fn syn_user_timeout_option(&self, index: usize, to: &mut OptionWriter) {
        if let Some(timeout) = self.own_user_timeout(index) {
            to.user_timeout(timeout);
        }
    }

    /// Adds it to a segment with `len` bytes of payload, where it is due.
    pub(crate) fn user_timeout_option(&mut self, index: usize, len: u32, to: &mut OptionWriter) {
        let room = len == 0 || len + OTHERS <= self.connections[index].mss.into();
        let due = self.transfer(index).is_some_and(|transfer| transfer.advice.due);
        if due
            && room
            && let Some(timeout) = self.own_user_timeout(index)
        {
            self.transfer_mut(index).advice.due = !to.user_timeout(timeout);
        }
    }

    /// The peer told its own. One of zero means nothing (RFC 5482 §3.1).
    pub(crate) fn user_timeout_received(&mut self, index: usize, timeout: UserTimeout) {
        if self.config.user_timeout_option.is_some() && !timeout.duration().is_zero() {
            self.transfer_mut(index).advice.remote = Some(timeout);
            self.counters.user_timeouts_received += 1;
        }
    }
}
