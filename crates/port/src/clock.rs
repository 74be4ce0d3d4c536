//! The one place that reads the clock.

use millrace_frames::{Duration, Instant};

/// `CLOCK_MONOTONIC`, now.
#[inline]
pub fn now() -> Instant {
    Instant::from_nanos(read(libc::CLOCK_MONOTONIC))
}

/// `CLOCK_REALTIME`, now, since 1970: the time of day, by which packet sockets stamp packets.
#[inline]
pub fn wall() -> Duration {
    Duration::from_nanos(read(libc::CLOCK_REALTIME))
}

#[inline]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to. Both clocks exist on every Linux, so the
    // call cannot fail.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
