//! Capture files sent again: at their own pace, faster, slower, or at a given one.
//!
//! A file is hostile input. All packets before a damage are sent, then the damage is an error. Times
//! that go back are no gap, and a gap is at most as long as the plan says, so that a file that lies
//! about its times does not keep anybody waiting.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_frames::{Arena, Duration, Instant, TxBatch};
use millrace_port::clock;
use millrace_port::pcap::PcapReader;
use millrace_port::wait::{self, Bell};

use crate::filter::Filter;
use crate::generator::Pace;
use crate::generator::pace::Clock;
use crate::generator::run::{PATIENCE, takes_nothing, total};
use crate::raw_port::RawPort;
use crate::transmit;

/// When packets are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Timing {
    /// As long after one another as they were captured, so many times faster.
    Original {
        /// 1 is as fast, 2 twice as fast.
        speed: f64,
        /// The longest time without a packet; what is longer in the file is cut to it.
        longest_gap: Duration,
    },
    /// At a pace of its own.
    Paced(Pace),
}

/// What is sent again, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file.
    pub path: PathBuf,
    /// When its packets are sent.
    pub timing: Timing,
    /// How often the file is sent.
    pub times: u64,
    /// Ends after so many packets.
    pub packets: Option<u64>,
    /// Ends after so long.
    pub time: Option<Duration>,
    /// Which packets are sent; all where there is none.
    pub filter: Option<Filter>,
    /// Most packets of one call to the port, 1 to 64.
    pub batch: usize,
}

/// What was sent, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Packets that the port took.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Packets that were read, sent or not.
    pub read: u64,
    /// Of these, packets that the filter let not through.
    pub filtered: u64,
    /// Of these, packets that the port can never send, being too long or too short for it.
    pub too_long: u64,
    /// Too short.
    pub too_short: u64,
    /// Packets that were sent as they are in the file, which has not all of their bytes.
    pub cut: u64,
    /// Gaps that were cut.
    pub gaps_cut: u64,
    /// Packets that left more than a millisecond after their time.
    pub late: u64,
    /// How often the file was begun.
    pub times: u64,
}

/// A packet that leaves so much after its time is late.
const LATE: Duration = Duration::from_millis(1);
/// How long before a packet is due a sleep ends; the rest is spun.
const EARLY: Duration = Duration::from_micros(80);

/// Sends a capture file, slice after slice.
#[derive(Debug)]
pub struct Replay {
    plan: Plan,
    reader: Option<PcapReader<File>>,
    /// The reader shows a packet that was not sent yet.
    pending: bool,
    /// When it is due, where its own time says so.
    due: Option<Instant>,
    /// The file has just been begun again.
    again: bool,
    /// When the packet before it was due and was captured.
    previous: Option<(Instant, Instant)>,
    begun: Option<Instant>,
    pace: Option<Clock>,
    batch: TxBatch,
    done: Replayed,
    /// The file has been sent as often as it was to be.
    over: bool,
    last_progress: Instant,
}

impl Replay {
    /// Opens the file.
    ///
    /// # Errors
    /// What opening says, with the file's name; those of [`PcapReader::new`]; `InvalidInput` for a
    /// plan that makes no sense.
    pub fn new(plan: Plan) -> io::Result<Replay> {
        if let Timing::Original { speed, .. } = plan.timing
            && !(speed.is_finite() && speed > 0.0)
        {
            let text = format!("a speed is a number above 0, not {speed}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut replay = Replay {
            batch: TxBatch::with_limit(plan.batch),
            plan,
            reader: None,
            pending: false,
            due: None,
            again: false,
            previous: None,
            begun: None,
            pace: None,
            done: Replayed::default(),
            over: false,
            last_progress: Instant::ZERO,
        };
        replay.reader = Some(replay.open()?);
        Ok(replay)
    }

    fn open(&mut self) -> io::Result<PcapReader<File>> {
        let name = self.plan.path.display().to_string();
        let file = File::open(&self.plan.path)
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        let reader = PcapReader::new(file, &name)?;
        self.done.times += 1;
        Ok(reader)
    }

    /// What was sent so far.
    pub fn done(&self) -> Replayed {
        self.done
    }

    /// Sends for a while, or to the end; returns whether that was reached.
    ///
    /// # Errors
    /// Those of the file, after all packets before the damage were sent; `TimedOut` where the port
    /// takes nothing; else as [`millrace_port::Port::tx`].
    pub fn step(
        &mut self,
        raw: &mut RawPort,
        slice: Duration,
        bell: &Bell,
        stop: &AtomicBool,
    ) -> io::Result<bool> {
        let now = clock::now();
        if self.begun.is_none() {
            self.begun = Some(now);
            self.last_progress = now;
            if let Timing::Paced(pace) = self.plan.timing {
                self.pace = Some(Clock::new(pace, 1, now));
            }
        }
        let begun = self.begun.unwrap_or(now);
        let over = self.plan.time.map(|time| begun + time);
        let end = over.map_or(now + slice, |over| over.min(now + slice));
        let shared = raw.arena.clone();
        let mut arena = shared.lock();
        let result = self.turns(raw, &mut arena, end, bell, stop);
        let now = clock::now();
        self.done.elapsed = now - begun;
        result?;
        let sent = self.over && self.batch.is_empty();
        let enough = self.plan.packets.is_some_and(|packets| self.done.packets >= packets);
        Ok(sent || enough || stop.load(Ordering::Relaxed) || over.is_some_and(|over| now >= over))
    }

    fn turns(
        &mut self,
        raw: &mut RawPort,
        arena: &mut Arena,
        end: Instant,
        bell: &Bell,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        loop {
            let now = clock::now();
            if now >= end || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            arena.collect_held();
            let (due, damage) = self.fill(raw, arena, now);
            let bytes = total(&self.batch);
            if !self.batch.is_empty() {
                let taken = raw.port.tx(now, arena, &mut self.batch)?;
                let bytes = bytes - total(&self.batch);
                self.done.packets += taken as u64;
                self.done.bytes += bytes;
                if let Some(pace) = &mut self.pace {
                    pace.sent(taken as u64, bytes);
                }
                if taken > 0 {
                    self.last_progress = now;
                } else if now - self.last_progress > PATIENCE {
                    return Err(takes_nothing(&raw.capabilities().name));
                }
                if let Some(error) = damage {
                    // All before it have left when it is told.
                    self.drain(raw, arena)?;
                    return Err(error);
                }
                continue;
            }
            if let Some(error) = damage {
                return Err(error);
            }
            let enough = self.plan.packets.is_some_and(|packets| self.done.packets >= packets);
            if self.over || enough {
                return Ok(());
            }
            let until = due.unwrap_or(now).min(end);
            self.last_progress = now;
            if until > now + EARLY {
                let early = Instant::from_nanos(until.as_nanos() - EARLY.as_nanos() as u64);
                wait::poll(&[], bell, now, Some(early))?;
            } else {
                core::hint::spin_loop();
            }
        }
    }

    /// Sends what is left of the batch.
    fn drain(&mut self, raw: &mut RawPort, arena: &mut Arena) -> io::Result<()> {
        let begun = clock::now();
        while !self.batch.is_empty() {
            let now = clock::now();
            let bytes = total(&self.batch);
            self.done.packets += raw.port.tx(now, arena, &mut self.batch)? as u64;
            self.done.bytes += bytes - total(&self.batch);
            if now - begun > PATIENCE {
                return Err(takes_nothing(&raw.capabilities().name));
            }
        }
        Ok(())
    }

    /// Puts what is due into the batch. Returns when the next packet is due, if one is known, and
    /// what is wrong with the file.
    fn fill(
        &mut self,
        raw: &RawPort,
        arena: &mut Arena,
        now: Instant,
    ) -> (Option<Instant>, Option<io::Error>) {
        let capabilities = raw.capabilities();
        let longest = capabilities.mtu as usize + 14;
        let reserve = arena.frames() / 8;
        let mut room = self.plan.packets.map_or(u64::MAX, |all| {
            all.saturating_sub(self.done.packets + self.batch.len() as u64)
        });
        let mut looks = 0;
        while !self.batch.is_full() && room > 0 {
            looks += 1;
            if looks > MOST_LOOKS {
                return (Some(now), None);
            }
            let due = match self.look_ahead(now) {
                Ok(Some(due)) => due,
                Ok(None) => return (None, None),
                Err(error) => return (None, Some(error)),
            };
            if due > now {
                return (Some(due), None);
            }
            let Some(packet) = self.reader.as_ref().and_then(PcapReader::packet) else {
                return (None, None);
            };
            let bytes = packet.bytes;
            let tagged = matches!(bytes.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
            let filter = self.plan.filter.as_ref();
            if filter.is_some_and(|filter| !filter.accepts(bytes, packet.original_len)) {
                self.done.filtered += 1;
            } else if bytes.len() > longest + if tagged { 4 } else { 0 } {
                self.done.too_long += 1;
            } else if bytes.len() < raw.shortest as usize {
                self.done.too_short += 1;
            } else {
                let needed = bytes.len().div_ceil(arena.frame_size()).max(1);
                let chain = match arena.free() >= reserve + needed {
                    true => transmit::chain(arena, bytes),
                    false => None,
                };
                // The packet waits for frames that come back.
                let Some(chain) = chain else { return (Some(now), None) };
                self.done.cut += u64::from((bytes.len() as u64) < u64::from(packet.original_len));
                self.done.late += u64::from(self.pace.is_none() && now - due > LATE);
                // There is room: the loop looks.
                let _ = self.batch.push(chain);
                room -= 1;
            }
            self.previous = Some((due, packet.timestamp));
            (self.pending, self.due, self.again) = (false, None, false);
        }
        (Some(now), None)
    }

    /// When the packet that the reader shows is due; reads one if there is none.
    fn look_ahead(&mut self, now: Instant) -> io::Result<Option<Instant>> {
        if !self.pending && !self.read_on()? {
            return Ok(None);
        }
        let Some(packet) = self.reader.as_ref().and_then(PcapReader::packet) else {
            return Ok(None);
        };
        if let Some(pace) = &mut self.pace {
            let len = packet.bytes.len() as u32;
            let is_due = pace.due(now, len) > self.batch.len() as u64;
            let next = || pace.next(len).unwrap_or(now).max(now + LOOK);
            return Ok(Some(if is_due { now } else { next() }));
        }
        if self.due.is_some() {
            return Ok(self.due);
        }
        let due = match (self.plan.timing, self.previous) {
            (Timing::Original { speed, longest_gap }, Some((before, captured))) => {
                let gap = match self.again {
                    true => 0.0,
                    false => (packet.timestamp - captured).as_secs_f64() / speed,
                };
                let longest = longest_gap.as_secs_f64();
                self.done.gaps_cut += u64::from(gap > longest);
                before + Duration::from_secs_f64(gap.min(longest))
            }
            _ => now,
        };
        self.due = Some(due);
        Ok(Some(due))
    }

    /// Reads the next packet, from the beginning again if the file is to be sent again. False: there
    /// is none.
    fn read_on(&mut self) -> io::Result<bool> {
        while !self.over {
            let Some(reader) = &mut self.reader else { return Ok(false) };
            match reader.advance() {
                Ok(true) => {
                    self.done.read += 1;
                    self.pending = true;
                    return Ok(true);
                }
                // A file without packets is not read again and again.
                Ok(false) if self.done.times < self.plan.times && self.done.read > 0 => {
                    self.reader = Some(self.open()?);
                    self.again = true;
                }
                Ok(false) => self.over = true,
                Err(error) => {
                    self.over = true;
                    return Err(error);
                }
            }
        }
        Ok(false)
    }

    /// Gives up what was read and not taken. Call it at the end, whatever that was.
    pub fn finish(&mut self, raw: &mut RawPort) {
        let shared = raw.arena.clone();
        let mut arena = shared.lock();
        for packet in self.batch.iter() {
            arena.transmitted(packet);
        }
        self.batch.clear();
    }
}

/// Packets that are read, if none of them is sent, before anything else is looked at.
const MOST_LOOKS: u32 = 4096;
/// How long a pace that is not due is left alone at least.
const LOOK: Duration = Duration::from_micros(1);
