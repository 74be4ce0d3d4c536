//! Limited transmit (RFC 3042): the first duplicate acknowledgements let new segments leave, for
//! each of them tells that one has arrived. So a small window still makes enough duplicates for
//! its losses to be found.
//!
//! With selective acknowledgements it needs no code of its own: what has arrived no longer counts
//! as in flight. This file is what is different when it is switched off.

use super::congestion::CaState;
use super::transfer::Transfer;

/// Bytes that have arrived out of order and make room for new ones.
#[inline]
pub(crate) fn makes_room(transfer: &Transfer, enabled: bool) -> u32 {
    if !enabled && transfer.recovery.state == CaState::Disorder {
        return 0;
    }
    transfer.sent.sacked + transfer.recovery.duplicate_bytes
}
