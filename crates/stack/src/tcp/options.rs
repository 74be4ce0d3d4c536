//! Which options a segment carries.

use millrace_wire::checksum;
use millrace_wire::tcp::{self, OptionWriter};

use super::connection::{Features, Flags};
use crate::stack::Stack;

/// Bytes of the timestamps option with its padding (RFC 7323 appendix A).
const TIMESTAMPS_LEN: u16 = 12;

/// What stands behind the fixed header of a segment.
#[derive(Clone, Copy)]
pub(crate) enum SegmentOptions<'a> {
    /// Nothing.
    None,
    /// Timestamps, value and echo, and nothing else: what nearly every segment has.
    Timestamps(u32, u32),
    /// Whatever stands in these bytes, with its padding.
    Written(&'a [u8]),
}

impl SegmentOptions<'_> {
    /// How many bytes they take.
    #[inline]
    pub(crate) fn len(self) -> usize {
        match self {
            SegmentOptions::None => 0,
            SegmentOptions::Timestamps(..) => TIMESTAMPS_LEN.into(),
            SegmentOptions::Written(bytes) => bytes.len(),
        }
    }

    /// Their sum, not folded.
    #[inline]
    pub(crate) fn sum(self) -> u32 {
        match self {
            SegmentOptions::None => 0,
            SegmentOptions::Timestamps(value, echo) => {
                const FIXED: u32 = {
                    let [a, b, c, d, ..] = tcp::timestamps(0, 0);
                    u16::from_be_bytes([a, b]) as u32 + u16::from_be_bytes([c, d]) as u32
                };
                FIXED + (value >> 16) + (value & 0xffff) + (echo >> 16) + (echo & 0xffff)
            }
            SegmentOptions::Written(bytes) => checksum::sum(bytes).into(),
        }
    }

    /// Writes them to `to`, which has as many bytes as they take.
    #[inline]
    pub(crate) fn write(self, to: &mut [u8]) {
        match self {
            SegmentOptions::None => {}
            SegmentOptions::Timestamps(value, echo) => {
                if let Some(to) = to.first_chunk_mut() {
                    *to = tcp::timestamps(value, echo);
                }
            }
            SegmentOptions::Written(bytes) => to.copy_from_slice(bytes),
        }
    }

    /// Those that were written; none for timestamps alone.
    #[inline]
    pub(crate) fn written(&self) -> &[u8] {
        match self {
            SegmentOptions::Written(bytes) => bytes,
            _ => &[],
        }
    }
}

impl Features {
    /// Bytes of the options that every segment has.
    pub(crate) fn options_len(self) -> u16 {
        if self.has(Features::TIMESTAMPS) { TIMESTAMPS_LEN } else { 0 }
    }
}

impl Stack {
    /// Options of our SYN: what we offer; on a SYN-ACK what the SYN asked for.
    pub(crate) fn syn_options(&self, index: usize, passive: bool) -> OptionWriter {
        let connection = &self.connections[index];
        let tcp = &self.config.tcp;
        let (timestamps, sack, scaling) = if passive {
            let features = connection.features;
            let scaling = connection.flags.has(Flags::SCALING);
            (features.has(Features::TIMESTAMPS), features.has(Features::SACK), scaling)
        } else {
            (tcp.timestamps, tcp.sack, tcp.window_scaling)
        };
        let mut options = OptionWriter::new();
        // What a path does not take from here it most often does not take from there either.
        options.mss(self.announced_mss(index).min(self.path_mss(connection.remote)));
        let echo = timestamps.then_some(if passive { connection.ts_recent } else { 0 });
        write_syn(
            &mut options,
            echo.map(|echo| (self.timestamp(index), echo)),
            sack,
            scaling.then(|| self.receive_shift()),
        );
        self.fast_open_option(index, &mut options);
        self.syn_user_timeout_option(index, &mut options);
        if passive {
            self.syn_ack_ecn_option(index, &mut options);
        }
        options
    }

    /// Options of a segment with `len` bytes of payload: what was agreed on (RFC 7323, RFC 2018),
    /// as far as it fits. `mss` of the connection leaves room for those that every segment has.
    /// `timestamp`: the value to carry.
    #[inline]
    pub(crate) fn segment_options<'a>(
        &mut self,
        index: usize,
        len: u32,
        timestamp: u32,
        to: &'a mut OptionWriter,
    ) -> SegmentOptions<'a> {
        let connection = &self.connections[index];
        let rare = Flags::REPORT_DUPLICATE.with(Flags::COUNTS_MARKS);
        if !connection.out_of_order.is_empty()
            || connection.flags.has(rare)
            || self.config.user_timeout_option.is_some()
        {
            self.rare_options(index, len, timestamp, to);
            return SegmentOptions::Written(to.padded());
        }
        match connection.features.has(Features::TIMESTAMPS) {
            true => SegmentOptions::Timestamps(timestamp, connection.ts_recent),
            false => SegmentOptions::None,
        }
    }

    #[cold]
    fn rare_options(&mut self, index: usize, len: u32, timestamp: u32, to: &mut OptionWriter) {
        let connection = &self.connections[index];
        if connection.features.has(Features::TIMESTAMPS) {
            to.timestamps(timestamp, connection.ts_recent);
        }
        let reports =
            !connection.out_of_order.is_empty() || connection.flags.has(Flags::REPORT_DUPLICATE);
        if reports && connection.features.has(Features::SACK) {
            self.sack_option(index, len, to);
        }
        if self.connections[index].flags.has(Flags::COUNTS_MARKS) {
            self.accurate_ecn_option(index, len, to);
        }
        if self.config.user_timeout_option.is_some() {
            self.user_timeout_option(index, len, to);
        }
    }
}

/// What follows the MSS, in the order and with the padding that Linux has.
pub(crate) fn write_syn(
    options: &mut OptionWriter,
    timestamps: Option<(u32, u32)>,
    sack: bool,
    window_scale: Option<u8>,
) {
    match timestamps {
        Some((value, echo)) => {
            if sack {
                options.sack_permitted();
            }
            options.timestamps(value, echo);
        }
        None if sack => {
            options.no_operation().no_operation().sack_permitted();
        }
        None => {}
    }
    if let Some(shift) = window_scale {
        options.window_scale(shift);
    }
}
