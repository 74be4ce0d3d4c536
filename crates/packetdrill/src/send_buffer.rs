//! How much a socket takes, as Linux counts it: memory, in packets. A packet that has been begun is
//! filled whatever the limits say, and a new one is begun while the memory is below `SO_SNDBUF`
//! (or what autotuning made of it) and less than `TCP_NOTSENT_LOWAT` is unsent. The stack's own
//! bounds count bytes of payload and never overshoot; a script's results depend on Linux's.

use millrace_stack::TcpInfo;

/// What Linux's structures take for each packet, besides the payload.
const OVERHEAD: u64 = 1280;

/// What Linux reserves for a segment besides its payload when it sizes a buffer by itself.
const HEADROOM: u64 = 640;
const STRUCTURE: u64 = 256;

/// The limits of one socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// `SO_SNDBUF`, doubled; `None`: sizes itself.
    pub(crate) fixed: Option<u32>,
    /// First and greatest size of one that sizes itself (`tcp_wmem`).
    pub(crate) tuned: [u64; 2],
    /// `TCP_NOTSENT_LOWAT`.
    pub(crate) lowat: u32,
    /// `tcp_min_tso_segs`.
    pub(crate) least_segments: u64,
}

/// One socket's send buffer.
#[derive(Debug, Default)]
pub(crate) struct SendBuffer {
    /// Where the packet that is being filled begins.
    tail: u64,
    /// The largest window that the peer announced.
    max_window: u64,
    size: u64,
    /// The application found it full.
    full: bool,
    /// Where the last part ended that was pushed.
    pushed: u64,
}

/// How far the stream has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) written: u64,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
}

impl SendBuffer {
    /// Payload of a packet: a half of the peer's largest window, in whole segments.
    fn goal(&self, mss: u64) -> u64 {
        let most = if self.max_window > 536 { self.max_window / 2 } else { self.max_window };
        (most.min(65_535) / mss).max(1) * mss
    }

    fn memory(&self, limits: &Limits, info: &TcpInfo, progress: Progress) -> u64 {
        let mss = u64::from(info.snd_mss).max(1);
        let window = u64::from(info.snd_cwnd);
        let rate = match u64::from(info.rtt) {
            0 => u64::MAX,
            rtt => 2 * window * mss * 1000 / rtt,
        };
        let train = (rate / mss).max(limits.least_segments).min(window / 2).max(1) * mss;
        let in_flight = progress.sent - progress.acknowledged;
        let unsent = progress.written - progress.sent;
        let packets = in_flight.div_ceil(train) + unsent.div_ceil(self.goal(mss));
        in_flight + unsent + packets * OVERHEAD
    }

    fn limit(&self, limits: &Limits) -> u64 {
        limits.fixed.map_or(self.size, u64::from)
    }

    /// Bytes that go into the packet that is being filled, or a new one.
    pub(crate) fn room(&mut self, limits: &Limits, info: &TcpInfo, progress: Progress) -> usize {
        self.note(limits, info);
        let goal = self.goal(u64::from(info.snd_mss).max(1));
        let unsent = progress.written - progress.sent;
        let begun = (progress.written - self.tail).min(unsent);
        if begun > 0 && begun < goal {
            return (goal - begun) as usize;
        }
        // Whoever waits for room waits until a third of it is free.
        let below = if self.full {
            self.is_writable(limits, info, progress)
        } else {
            self.memory(limits, info, progress) < self.limit(limits)
                && unsent < u64::from(limits.lowat)
        };
        if !below {
            return 0;
        }
        self.full = false;
        self.tail = progress.written;
        goal as usize
    }

    /// Whether the part of a write that ends at `end` pushes: the `last` one does, and one that
    /// takes more than half of the peer's largest window since the one before.
    pub(crate) fn pushes(&mut self, end: u64, last: bool) -> bool {
        let pushes = last || end > self.pushed + self.max_window / 2;
        if pushes {
            self.pushed = end;
        }
        pushes
    }

    /// The application found it full and waits.
    pub(crate) fn wait(&mut self) {
        self.full = true;
    }

    /// What `poll` calls writable.
    pub(crate) fn is_writable(&self, limits: &Limits, info: &TcpInfo, progress: Progress) -> bool {
        let unsent = progress.written - progress.sent;
        let memory = self.memory(limits, info, progress);
        self.limit(limits).saturating_sub(memory) >= memory / 2
            && 2 * unsent < u64::from(limits.lowat)
    }

    /// After an acknowledgement: grows the buffer, and says whether one that was found full has
    /// become writable.
    pub(crate) fn freed(&mut self, limits: &Limits, info: &TcpInfo, progress: Progress) -> bool {
        self.note(limits, info);
        if !self.full {
            return false;
        }
        if info.unacked < info.snd_cwnd {
            self.grow(limits, info);
        }
        let writable = self.is_writable(limits, info, progress);
        self.full = !writable;
        writable
    }

    fn note(&mut self, limits: &Limits, info: &TcpInfo) {
        self.max_window = self.max_window.max(info.snd_wnd.into());
        if self.size == 0 {
            self.size = limits.tuned[0];
            self.grow(limits, info);
        }
    }

    /// Room for two windows.
    fn grow(&mut self, limits: &Limits, info: &TcpInfo) {
        let segment = (u64::from(info.snd_mss) + HEADROOM).next_power_of_two() + STRUCTURE;
        let wanted = 2 * u64::from(info.snd_cwnd.max(10)) * segment;
        self.size = self.size.max(wanted.min(limits.tuned[1]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        fixed: Some(42_000),
        tuned: [50_000, 4_194_304],
        lowat: u32::MAX,
        least_segments: 10,
    };

    fn info(window: u32) -> TcpInfo {
        let mut info = TcpInfo::default();
        (info.snd_mss, info.snd_cwnd, info.snd_wnd, info.rtt) = (1000, 10, window, 100_000);
        info
    }

    fn progress(written: u64, sent: u64, acknowledged: u64) -> Progress {
        Progress { written, sent, acknowledged }
    }

    #[test]
    fn packets_are_filled_beyond_the_limit() {
        let mut buffer = SendBuffer::default();
        let info = info(50_000);
        assert_eq!(buffer.room(&LIMITS, &info, progress(0, 0, 0)), 25_000);
        // Ten segments have left; the packet is filled up again.
        assert_eq!(buffer.room(&LIMITS, &info, progress(25_000, 10_000, 0)), 10_000);
        assert_eq!(buffer.room(&LIMITS, &info, progress(35_000, 10_000, 0)), 25_000);
        assert_eq!(buffer.room(&LIMITS, &info, progress(60_000, 10_000, 0)), 0);
    }

    #[test]
    fn who_waits_is_woken_when_a_third_is_free() {
        let mut buffer = SendBuffer::default();
        let mut info = info(50_000);
        info.snd_cwnd = 40;
        buffer.room(&LIMITS, &info, progress(0, 0, 0));
        buffer.wait();
        assert!(!buffer.freed(&LIMITS, &info, progress(60_000, 60_000, 35_000)));
        assert!(buffer.freed(&LIMITS, &info, progress(60_000, 60_000, 36_000)));
        assert!(!buffer.freed(&LIMITS, &info, progress(60_000, 60_000, 40_000)), "told once");
    }

    #[test]
    fn what_is_unsent_has_a_limit_of_its_own() {
        let limits = Limits { fixed: None, lowat: 4000, ..LIMITS };
        let mut buffer = SendBuffer::default();
        let info = info(32_896);
        assert_eq!(buffer.room(&limits, &info, progress(0, 0, 0)), 16_000);
        assert_eq!(buffer.room(&limits, &info, progress(26_000, 10_000, 0)), 0);
        assert!(!buffer.is_writable(&limits, &info, progress(26_000, 24_000, 8000)));
        assert!(buffer.is_writable(&limits, &info, progress(26_000, 26_000, 8000)));
    }
}
