//! Writing of TCP options, aligned as RFC 7323 appendix A advises and peers' fast paths expect.

use super::MAX_OPTIONS_LEN;
use super::options::{
    AccurateEcn, FAST_OPEN_EXPERIMENT, FastOpen, MAX_SACK_BLOCKS, UserTimeout, kind,
};
use crate::Seq;

/// The options of nearly every segment of an established connection: two no-operations and
/// timestamps. The same bytes as [`OptionWriter::timestamps`] alone writes, but of a length that is
/// known when compiling, so that a header with them is a few stores.
#[inline]
pub const fn timestamps(value: u32, echo_reply: u32) -> [u8; 12] {
    let [a, b, c, d] = value.to_be_bytes();
    let [e, f, g, h] = echo_reply.to_be_bytes();
    [kind::NO_OPERATION, kind::NO_OPERATION, kind::TIMESTAMPS, 10, a, b, c, d, e, f, g, h]
}

/// Collects options for [`Header::emit`](super::Header::emit).
///
/// Values of 32 bits begin at a multiple of four bytes, behind no-operations. MSS, SACK permitted,
/// timestamps and window scale in this order take 20 bytes; timestamps and three SACK blocks fill
/// all 40.
///
/// # Panics
/// Every method that returns the writer panics if its option does not fit into the 40 bytes.
#[derive(Clone, Copy, Debug)]
pub struct OptionWriter {
    bytes: [u8; MAX_OPTIONS_LEN],
    len: usize,
}

impl Default for OptionWriter {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

impl OptionWriter {
    /// No options.
    #[inline]
    pub const fn new() -> Self {
        Self { bytes: [kind::NO_OPERATION; MAX_OPTIONS_LEN], len: 0 }
    }

    /// One byte of padding (RFC 9293 §3.2).
    #[inline]
    pub fn no_operation(&mut self) -> &mut Self {
        self.push(&[kind::NO_OPERATION])
    }

    /// Maximum segment size, in bytes (RFC 9293 §3.7.1).
    #[inline]
    pub fn mss(&mut self, bytes: u16) -> &mut Self {
        self.push(&[kind::MSS, 4]).push(&bytes.to_be_bytes())
    }

    /// Window scale (RFC 7323 §2).
    #[inline]
    pub fn window_scale(&mut self, shift: u8) -> &mut Self {
        self.align(1).push(&[kind::WINDOW_SCALE, 3, shift])
    }

    /// SACK permitted (RFC 2018 §2).
    #[inline]
    pub fn sack_permitted(&mut self) -> &mut Self {
        self.push(&[kind::SACK_PERMITTED, 2])
    }

    /// Timestamps (RFC 7323 §3).
    #[inline]
    pub fn timestamps(&mut self, value: u32, echo_reply: u32) -> &mut Self {
        self.align(2).push(&[kind::TIMESTAMPS, 10]);
        self.push(&value.to_be_bytes()).push(&echo_reply.to_be_bytes())
    }

    /// As many of the SACK blocks `(first, end)` as there is room for, from the first one on; the
    /// most recent one belongs in front (RFC 2018 §4). Returns how many were written.
    #[inline]
    pub fn sack(&mut self, blocks: &[(Seq, Seq)]) -> usize {
        let before = (2usize.wrapping_sub(self.len) % 4) + 2;
        let room = (MAX_OPTIONS_LEN - self.len).saturating_sub(before) / 8;
        let count = blocks.len().min(room).min(MAX_SACK_BLOCKS);
        if count > 0 {
            self.align(2).push(&[kind::SACK, 2 + 8 * count as u8]);
            for (first, end) in &blocks[..count] {
                self.push(&first.0.to_be_bytes()).push(&end.0.to_be_bytes());
            }
        }
        count
    }

    /// Fast Open cookie or the request for one (RFC 7413 §4.1.1).
    #[inline]
    pub fn fast_open(&mut self, fast_open: &FastOpen) -> &mut Self {
        let cookie = fast_open.cookie();
        self.push(&[kind::FAST_OPEN, 2 + cookie.len() as u8]).push(cookie)
    }

    /// The same in the form that it had before it got a number of its own (RFC 7413 §4.1.1).
    #[inline]
    pub fn fast_open_experiment(&mut self, fast_open: &FastOpen) -> &mut Self {
        let cookie = fast_open.cookie();
        self.push(&[kind::EXPERIMENT, 4 + cookie.len() as u8]);
        self.push(&FAST_OPEN_EXPERIMENT).push(cookie)
    }

    /// User timeout (RFC 5482 §2). Returns whether there was room for it.
    #[inline]
    pub fn user_timeout(&mut self, timeout: UserTimeout) -> bool {
        if self.len + 4 > MAX_OPTIONS_LEN {
            return false;
        }
        self.push(&[kind::USER_TIMEOUT, 4]).push(&timeout.0.to_be_bytes());
        true
    }

    /// Accurate ECN's counters (RFC 9768 §3.2.3), fields at the end left out that are `None`.
    /// Returns whether there was room for them.
    #[inline]
    pub fn accurate_ecn(&mut self, counters: &AccurateEcn) -> bool {
        let (kind, fields) = counters.order();
        let len = 2 + 3 * fields.iter().flatten().count();
        if self.len + len > MAX_OPTIONS_LEN {
            return false;
        }
        self.push(&[kind, len as u8]);
        for field in fields.into_iter().flatten() {
            let [_, a, b, c] = field.to_be_bytes();
            self.push(&[a, b, c]);
        }
        true
    }

    /// The options, filled up to a multiple of four bytes with no-operations.
    #[inline]
    pub fn padded(&self) -> &[u8] {
        &self.bytes[..self.len.next_multiple_of(4)]
    }

    /// Adds no-operations until the length is `rest` modulo 4.
    #[inline]
    fn align(&mut self, rest: usize) -> &mut Self {
        self.len += rest.wrapping_sub(self.len) % 4;
        self
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }
}
