//! TCP options: all that Millrace knows, read in one pass.

use core::time::Duration;

use crate::{Malformed, Seq};

/// The largest window scale that may be used (RFC 7323 §2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;
/// SACK blocks that fit into one header (RFC 2018 §3).
pub const MAX_SACK_BLOCKS: usize = 4;

/// Numbers that stand for options on the wire.
pub(super) mod kind {
    pub const END: u8 = 0;
    pub const NO_OPERATION: u8 = 1;
    pub const MSS: u8 = 2;
    pub const WINDOW_SCALE: u8 = 3;
    pub const SACK_PERMITTED: u8 = 4;
    pub const SACK: u8 = 5;
    pub const TIMESTAMPS: u8 = 8;
    pub const USER_TIMEOUT: u8 = 28;
    pub const FAST_OPEN: u8 = 34;
    pub const ACCURATE_ECN_0: u8 = 172;
    pub const ACCURATE_ECN_1: u8 = 174;
    pub const EXPERIMENT: u8 = 254;
}

/// Experiment identifier of Fast Open before it had a number (RFC 7413 §4.1.1, RFC 6994).
pub(super) const FAST_OPEN_EXPERIMENT: [u8; 2] = [0xf9, 0x89];

/// The options of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size, in bytes. Means something on SYN only.
    pub mss: Option<u16>,
    /// Window scale, at most [`MAX_WINDOW_SCALE`]. Means something on SYN only.
    pub window_scale: Option<u8>,
    /// The peer sent a window scale above 14: it was cut to 14, and RFC 7323 §2.3 wants a log.
    pub window_scale_clamped: bool,
    /// The peer can read SACK (RFC 2018). Means something on SYN only.
    pub sack_permitted: bool,
    /// Timestamps: value and echo reply (RFC 7323 §3).
    pub timestamps: Option<(u32, u32)>,
    /// TCP Fast Open (RFC 7413). Means something on SYN only.
    pub fast_open: Option<FastOpen>,
    /// `fast_open` came in the form that it had before it got a number of its own (RFC 7413 §4.1.1,
    /// RFC 6994).
    pub fast_open_experiment: bool,
    /// The peer's user timeout (RFC 5482).
    pub user_timeout: Option<UserTimeout>,
    /// Accurate ECN's byte counters (RFC 9768 §3.2.3). Means nothing on a SYN without ACK.
    pub accurate_ecn: Option<AccurateEcn>,
    sack: [(Seq, Seq); MAX_SACK_BLOCKS],
    sack_len: u8,
}

impl Options {
    /// Reads the bytes of all options, padding included.
    ///
    /// # Errors
    /// [`Malformed::Option`]; see [`Segment::options`](super::Segment::options).
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut options = Self::NONE;
        if bytes.is_empty() {
            return Ok(options);
        }
        if let Some(timestamps) = timestamps_only(bytes) {
            options.timestamps = Some(timestamps);
            return Ok(options);
        }
        if !options.read_syn(bytes) {
            options.read(bytes)?;
        }
        Ok(options)
    }

    /// No options.
    pub const NONE: Self = Self {
        mss: None,
        window_scale: None,
        window_scale_clamped: false,
        sack_permitted: false,
        timestamps: None,
        fast_open: None,
        fast_open_experiment: false,
        user_timeout: None,
        accurate_ecn: None,
        sack: [(Seq(0), Seq(0)); MAX_SACK_BLOCKS],
        sack_len: 0,
    };

    /// The SACK blocks `(first, end)` in the order of the segment: `first` is the first sequence
    /// number of a block and `end` the one after its last.
    #[inline]
    pub fn sack(&self) -> &[(Seq, Seq)] {
        self.sack.get(..self.sack_len.into()).unwrap_or(&self.sack)
    }

    /// Reads the options of nearly every SYN: MSS, SACK permitted, timestamps and window scale, in
    /// the order and with the padding that Linux and this crate's writer have. Returns false, with
    /// nothing done, for any others.
    #[inline]
    fn read_syn(&mut self, bytes: &[u8]) -> bool {
        let Ok(&syn) = <&[u8; 20]>::try_from(bytes) else { return false };
        let usual = syn[0..2] == [kind::MSS, 4]
            && syn[4..8] == [kind::SACK_PERMITTED, 2, kind::TIMESTAMPS, 10]
            && syn[16..19] == [kind::NO_OPERATION, kind::WINDOW_SCALE, 3];
        if !usual {
            return false;
        }
        let word = |at: usize| u32::from_be_bytes([syn[at], syn[at + 1], syn[at + 2], syn[at + 3]]);
        self.mss = Some(word(0) as u16);
        self.sack_permitted = true;
        self.timestamps = Some((word(8), word(12)));
        self.window_scale = Some(syn[19].min(MAX_WINDOW_SCALE));
        self.window_scale_clamped = syn[19] > MAX_WINDOW_SCALE;
        true
    }

    fn read(&mut self, mut rest: &[u8]) -> Result<(), Malformed> {
        while let Some((&kind, after)) = rest.split_first() {
            match kind {
                kind::END => break,
                kind::NO_OPERATION => rest = after,
                _ => {
                    // The length counts the kind and itself.
                    let &len = after.first().ok_or(Malformed::Option)?;
                    let Some(([_, _, data @ ..], after)) = rest.split_at_checked(len.into()) else {
                        return Err(Malformed::Option);
                    };
                    self.read_one(kind, data)?;
                    rest = after;
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn read_one(&mut self, kind: u8, data: &[u8]) -> Result<(), Malformed> {
        match (kind, data) {
            (kind::MSS, &[a, b]) => self.mss = Some(u16::from_be_bytes([a, b])),
            (kind::WINDOW_SCALE, &[scale]) => {
                self.window_scale = Some(scale.min(MAX_WINDOW_SCALE));
                self.window_scale_clamped = scale > MAX_WINDOW_SCALE;
            }
            (kind::SACK_PERMITTED, &[]) => self.sack_permitted = true,
            (kind::SACK, blocks) => self.read_sack(blocks)?,
            (kind::TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => {
                let (value, echo) = ([a, b, c, d], [e, f, g, h]);
                self.timestamps = Some((u32::from_be_bytes(value), u32::from_be_bytes(echo)));
            }
            (kind::USER_TIMEOUT, &[a, b]) => {
                self.user_timeout = Some(UserTimeout(u16::from_be_bytes([a, b])));
            }
            (kind::ACCURATE_ECN_0, fields) => {
                let [e0b, ceb, e1b] = AccurateEcn::read(fields);
                self.accurate_ecn = Some(AccurateEcn { e0b, ceb, e1b });
            }
            (kind::ACCURATE_ECN_1, fields) => {
                let [e1b, ceb, e0b] = AccurateEcn::read(fields);
                self.accurate_ecn = Some(AccurateEcn { e0b, ceb, e1b });
            }
            (kind::FAST_OPEN, cookie) => self.read_fast_open(cookie, false),
            (kind::EXPERIMENT, data) => {
                if let Some(cookie) = data.strip_prefix(&FAST_OPEN_EXPERIMENT) {
                    self.read_fast_open(cookie, true);
                }
            }
            (kind::MSS | kind::WINDOW_SCALE | kind::SACK_PERMITTED, _)
            | (kind::TIMESTAMPS | kind::USER_TIMEOUT, _) => return Err(Malformed::Option),
            _ => {}
        }
        Ok(())
    }

    #[inline]
    fn read_sack(&mut self, data: &[u8]) -> Result<(), Malformed> {
        let (blocks, rest) = data.as_chunks::<8>();
        if !rest.is_empty() || blocks.is_empty() || blocks.len() > MAX_SACK_BLOCKS {
            return Err(Malformed::Option);
        }
        for (to, &[a, b, c, d, e, f, g, h]) in self.sack.iter_mut().zip(blocks) {
            let (first, end) = ([a, b, c, d], [e, f, g, h]);
            *to = (Seq(u32::from_be_bytes(first)), Seq(u32::from_be_bytes(end)));
        }
        self.sack_len = blocks.len() as u8;
        Ok(())
    }

    /// > Options with invalid Length values or without the SYN flag set MUST be ignored.
    ///
    /// (RFC 7413 §4.1.1)
    #[inline]
    fn read_fast_open(&mut self, cookie: &[u8], experiment: bool) {
        if let Some(fast_open) = FastOpen::new(cookie) {
            self.fast_open = Some(fast_open);
            self.fast_open_experiment = experiment;
        }
    }
}

/// The timestamps `(value, echo reply)` where the options are two no-operations and timestamps: the
/// layout of RFC 7323 appendix A, which nearly every segment of an established connection has.
/// `None` for anything else.
#[inline(always)]
pub fn timestamps_only(bytes: &[u8]) -> Option<(u32, u32)> {
    let &[kinds @ .., a, b, c, d, e, f, g, h] = <&[u8; 12]>::try_from(bytes).ok()?;
    if kinds != [kind::NO_OPERATION, kind::NO_OPERATION, kind::TIMESTAMPS, 10] {
        return None;
    }
    Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])))
}

/// Accurate ECN's counters (RFC 9768 §3.2.3): payload bytes by the codepoint that they came with,
/// modulo 2^24. A counter that did not change may be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccurateEcn {
    /// ECT(0).
    pub e0b: Option<u32>,
    /// CE.
    pub ceb: Option<u32>,
    /// ECT(1).
    pub e1b: Option<u32>,
}

impl AccurateEcn {
    /// The whole fields; what is left over is padding (RFC 9768 §3.2.3).
    #[inline]
    fn read(fields: &[u8]) -> [Option<u32>; 3] {
        let (whole, _) = fields.as_chunks::<3>();
        let mut read = [None; 3];
        for (to, &[a, b, c]) in read.iter_mut().zip(whole) {
            *to = Some(u32::from_be_bytes([0, a, b, c]));
        }
        read
    }

    /// Kind and fields, in the order that leaves out the most.
    #[inline]
    pub(super) fn order(&self) -> (u8, [Option<u32>; 3]) {
        if self.e0b.is_none() && self.e1b.is_some() {
            (kind::ACCURATE_ECN_1, [self.e1b, self.ceb, None])
        } else {
            let ceb = if self.e1b.is_some() { self.ceb.or(Some(0)) } else { self.ceb };
            let e0b = if ceb.is_some() { self.e0b.or(Some(0)) } else { self.e0b };
            (kind::ACCURATE_ECN_0, [e0b, ceb, self.e1b])
        }
    }

    /// Bytes of the option with its padding.
    #[inline]
    pub fn padded_len(&self) -> usize {
        let (_, fields) = self.order();
        (2 + 3 * fields.iter().flatten().count()).next_multiple_of(4)
    }
}

/// A Fast Open cookie, or the request for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastOpen {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl FastOpen {
    /// Length of the longest cookie.
    pub const MAX_LEN: usize = 16;

    /// Asks for a cookie.
    pub const REQUEST: Self = Self { bytes: [0; Self::MAX_LEN], len: 0 };

    /// A cookie of 4 to 16 bytes and even length, or the request for one if it is empty; `None`
    /// for any other length.
    #[inline]
    pub fn new(cookie: &[u8]) -> Option<Self> {
        if !matches!(cookie.len(), 0 | 4 | 6 | 8 | 10 | 12 | 14 | 16) {
            return None;
        }
        let mut bytes = [0; Self::MAX_LEN];
        for (to, byte) in bytes.iter_mut().zip(cookie) {
            *to = *byte;
        }
        Some(Self { bytes, len: cookie.len() as u8 })
    }

    /// The cookie; empty if one is asked for.
    #[inline]
    pub fn cookie(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or(&self.bytes)
    }

    /// True if a cookie is asked for.
    #[inline]
    pub fn is_request(&self) -> bool {
        self.len == 0
    }
}

/// How long a peer keeps unacknowledged data before it gives up (RFC 5482 §2), as sent: the upper
/// bit says minutes instead of seconds, and the rest is their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserTimeout(pub u16);

impl UserTimeout {
    /// A time of at least a second, rounded up: to seconds as long as those can be told, else to
    /// minutes, of which the most are 22 days and a half.
    pub fn of(time: Duration) -> Self {
        let seconds = time.as_secs().saturating_add((time.subsec_nanos() > 0).into());
        match u16::try_from(seconds) {
            Ok(seconds @ 0..=0x7fff) => Self(seconds.max(1)),
            _ => Self(0x8000 | seconds.div_ceil(60).min(0x7fff) as u16),
        }
    }

    /// The time itself.
    #[inline]
    pub const fn duration(self) -> Duration {
        let number = (self.0 & 0x7fff) as u64;
        Duration::from_secs(if self.0 & 0x8000 != 0 { 60 * number } else { number })
    }
}
