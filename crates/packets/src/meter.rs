//! What became of generated packets, from the stamps in them: lost, out of order, doubled, and how
//! long they took.
//!
//! Reordering is counted as RFC 4737 says: a packet is out of order when one that was sent later has
//! come before it (§3.4). A packet that came before is doubled (RFC 5560). Times are from the stamp
//! to the port's timestamp, which are of one clock on one machine only.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use hdrhistogram::Histogram;
use millrace_frames::{Duration, Instant};
use millrace_port::wait::{self, Bell};
use millrace_port::{Wait, clock};

use crate::generator::Stamp;
use crate::headers;
use crate::raw_port::RawPort;

/// Streams that are told apart; packets of others are counted together.
const MOST_STREAMS: usize = 64;
/// How far back packets are remembered, to tell a late one from a doubled one.
const WINDOW: u64 = 1 << 16;
/// The longest time that is told from longer ones.
const LONGEST: u64 = 60_000_000_000;
/// Packets that are taken before anything else is looked at.
const BURST: usize = 256;
/// How long a sleep may be.
const LOOK: Duration = Duration::from_millis(50);

/// What became of one stream.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its number.
    pub number: u16,
    /// Packets that came, doubled ones among them, and their bytes.
    pub received: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// The number of the first packet that came, and the greatest number that did.
    pub first: u64,
    /// The greatest.
    pub highest: u64,
    /// Packets that came once at least.
    pub unique: u64,
    /// Packets that came after one that was sent later.
    pub reordered: u64,
    /// Packets that had come before.
    pub duplicated: u64,
    /// Packets so late that it is not known whether they had come before.
    pub late: u64,
    /// Packets that came before they were sent: the clocks differ.
    pub negative: u64,
    /// When the first and the last came, nanoseconds since 1970.
    pub span: (u64, u64),
    /// Nanoseconds on the way.
    pub latency: Histogram<u64>,
    seen: Box<[u64]>,
}

impl Stream {
    fn new(number: u16, first: u64, time: u64) -> Stream {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3);
        Stream {
            number,
            received: 0,
            bytes: 0,
            first,
            highest: first,
            unique: 0,
            reordered: 0,
            duplicated: 0,
            late: 0,
            negative: 0,
            span: (time, time),
            latency: latency.unwrap_or_else(|_| unreachable!("the bounds are sound")),
            seen: vec![0; (WINDOW / 64) as usize].into(),
        }
    }

    /// Packets that were sent, from the first that came to the last, and did not come.
    pub fn lost(&self) -> u64 {
        (self.highest - self.first + 1).saturating_sub(self.unique)
    }

    fn add(&mut self, stamp: &Stamp, length: u32, time: u64) {
        self.received += 1;
        self.bytes += u64::from(length);
        self.span.1 = self.span.1.max(time);
        match time.checked_sub(stamp.time) {
            Some(taken) => self.latency.saturating_record(taken.clamp(1, LONGEST)),
            None => self.negative += 1,
        }
        // The number nearest to the greatest so far.
        let ahead = stamp.sequence.wrapping_sub(self.highest as u32) as i32;
        let Some(number) = self.highest.checked_add_signed(ahead.into()) else {
            self.late += 1;
            return;
        };
        if number > self.highest {
            self.forget(number);
            self.highest = number;
        } else if self.highest - number >= WINDOW {
            self.late += 1;
            return;
        }
        let (word, bit) = ((number % WINDOW / 64) as usize, 1 << (number % 64));
        if self.seen[word] & bit != 0 {
            self.duplicated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.unique += 1;
        // Before the first that came there may be others.
        self.first = self.first.min(number);
        self.reordered += u64::from(number < self.highest);
    }

    /// Forgets what lies so far back that the numbers up to `number` need its place.
    fn forget(&mut self, number: u64) {
        let gap = number - self.highest;
        if gap >= WINDOW {
            self.seen.fill(0);
            return;
        }
        for number in self.highest + 1..=number {
            self.seen[(number % WINDOW / 64) as usize] &= !(1 << (number % 64));
        }
    }
}

/// When a meter ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Until {
    /// After so many stamped packets.
    pub packets: Option<u64>,
    /// After so long.
    pub time: Option<Duration>,
    /// When no stamped packet has come for so long, once one has.
    pub idle: Option<Duration>,
}

/// Reads the stamps of what a port receives.
#[derive(Debug)]
pub struct Meter {
    until: Until,
    streams: Vec<Stream>,
    /// Stamped packets of streams beyond those that are told apart.
    other_streams: u64,
    /// Packets without a stamp.
    unstamped: u64,
    stamped: u64,
    /// Where the last stamp was.
    place: usize,
    begun: Option<Instant>,
    last: Option<Instant>,
}

impl Meter {
    /// A meter that has seen nothing.
    pub fn new(until: Until) -> Meter {
        Meter {
            until,
            streams: Vec::new(),
            other_streams: 0,
            unstamped: 0,
            stamped: 0,
            place: 42,
            begun: None,
            last: None,
        }
    }

    /// What became of each stream, in the order in which they began.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Stamped packets, those of streams that are not told apart, and packets without a stamp.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.stamped, self.other_streams, self.unstamped)
    }

    /// Counts a packet: its bytes, its length on the wire, and when it came.
    #[inline]
    pub fn add(&mut self, bytes: &[u8], length: u32, time: u64) {
        let stamp = match bytes.get(self.place..).and_then(Stamp::read) {
            Some(stamp) => stamp,
            None => {
                let place = headers::parse(bytes, length, 0).payload_offset as usize;
                let Some(stamp) = bytes.get(place..).and_then(Stamp::read) else {
                    self.unstamped += 1;
                    return;
                };
                self.place = place;
                stamp
            }
        };
        self.stamped += 1;
        let index = match self.streams.iter().position(|stream| stream.number == stamp.stream) {
            Some(index) => index,
            None if self.streams.len() < MOST_STREAMS => {
                self.streams.push(Stream::new(stamp.stream, stamp.sequence.into(), time));
                self.streams.len() - 1
            }
            None => {
                self.other_streams += 1;
                return;
            }
        };
        self.streams[index].add(&stamp, length, time);
    }

    /// Receives for a while, or to the end; returns whether that was reached.
    ///
    /// # Errors
    /// As [`millrace_port::Port::rx`].
    pub fn step(
        &mut self,
        raw: &mut RawPort,
        slice: Duration,
        wait: Wait,
        bell: &Bell,
        stop: &AtomicBool,
    ) -> io::Result<bool> {
        let mut now = clock::now();
        let begun = *self.begun.get_or_insert(now);
        let slice_end = now + slice;
        let end = self.until.time.map(|time| begun + time);
        loop {
            let before = self.stamped;
            let taken = raw.visit(BURST, |bytes, length, time, _| self.add(bytes, length, time))?;
            now = clock::now();
            if self.stamped > before {
                self.last = Some(now);
            }
            let quiet = |last: Instant| self.until.idle.is_some_and(|idle| now - last >= idle);
            if self.until.packets.is_some_and(|packets| self.stamped >= packets)
                || end.is_some_and(|end| now >= end)
                || (taken == 0 && self.last.is_some_and(quiet))
                || stop.load(Ordering::Relaxed)
                || raw.exhausted()
            {
                return Ok(true);
            }
            if now >= slice_end {
                return Ok(false);
            }
            if taken > 0 {
                continue;
            }
            if wait == Wait::Spin {
                core::hint::spin_loop();
                continue;
            }
            let Some(armed) = raw.arm(now) else { continue };
            let deadlines = [end, armed.arrival, Some(slice_end)];
            let deadline = deadlines.into_iter().flatten().fold(now + LOOK, Instant::min);
            if wait::poll(&armed.fds, bell, now, Some(deadline))? == wait::Wake::Signal {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A meter that was shown packets with these numbers, a microsecond apart, each on its way for
    /// 500 ns.
    fn shown(numbers: &[u64]) -> Meter {
        let mut meter = Meter::new(Until::default());
        for (at, &number) in (1..).zip(numbers) {
            let stamp = Stamp { stream: 3, sequence: number as u32, time: at * 1000 };
            let mut bytes = vec![0; 42];
            bytes.extend(stamp.bytes());
            meter.add(&bytes, 60, at * 1000 + 500);
        }
        meter
    }

    fn counts(numbers: &[u64]) -> [u64; 5] {
        let meter = shown(numbers);
        let stream = &meter.streams()[0];
        [stream.received, stream.lost(), stream.reordered, stream.duplicated, stream.late]
    }

    #[test]
    fn losses_disorder_and_doubles_are_told_apart() {
        assert_eq!(counts(&[0, 1, 2, 3]), [4, 0, 0, 0, 0]);
        assert_eq!(counts(&[0, 1, 4, 5]), [4, 2, 0, 0, 0]);
        assert_eq!(counts(&[0, 2, 1, 3]), [4, 0, 1, 0, 0]);
        assert_eq!(counts(&[0, 1, 1, 2, 0]), [5, 0, 0, 2, 0]);
        assert_eq!(counts(&[5, 7, 4, 6]), [4, 0, 2, 0, 0]);
        assert_eq!(counts(&[0, 200_000, 1]), [3, 199_999, 0, 0, 1]);
        assert_eq!(counts(&[10, 200_000, 200_001, 200_000]), [4, 199_989, 0, 1, 0]);
    }

    #[test]
    fn numbers_go_on_beyond_their_32_bits() {
        let high = u64::from(u32::MAX);
        let meter = shown(&[high - 1, high, high + 1, high + 3]);
        let stream = &meter.streams()[0];
        assert_eq!((stream.unique, stream.lost()), (4, 1));
        // A stream that begins with 0 and a stray one from before it.
        assert_eq!(counts(&[0, high]), [2, 0, 0, 0, 1]);
    }

    #[test]
    fn times_are_kept() {
        let meter = shown(&[0, 1, 2]);
        let latency = &meter.streams()[0].latency;
        assert_eq!((latency.len(), latency.max(), latency.min()), (3, 500, 500));
        let mut meter = Meter::new(Until::default());
        let mut bytes = vec![0; 42];
        bytes.extend(Stamp { stream: 0, sequence: 0, time: 1000 }.bytes());
        meter.add(&bytes, 60, 999);
        assert_eq!(meter.streams()[0].negative, 1);
    }

    #[test]
    fn a_flood_of_streams_takes_no_memory() {
        let mut meter = Meter::new(Until::default());
        for stream in 0..1000 {
            let mut bytes = vec![0; 42];
            bytes.extend(Stamp { stream, sequence: 0, time: 0 }.bytes());
            meter.add(&bytes, 60, 1);
        }
        meter.add(&[0; 60], 60, 1);
        assert_eq!(meter.streams().len(), MOST_STREAMS);
        assert_eq!(meter.counts(), (1000, 1000 - MOST_STREAMS as u64, 1));
    }
}
