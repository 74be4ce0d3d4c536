//! Capture: packets of a port into files, into rows of headers, or into nothing but counts, without
//! a word from Python while it runs.
//!
//! On a packet socket packets go from the kernel's ring straight into the file's buffer: they are
//! not put into frames. What is written is whole at any moment, so a file is readable up to its
//! last packet whatever ends the capture. What was lost is counted where it was lost.

mod file;
mod files;
mod flows;
mod rows;
mod source;

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_frames::{Duration, Instant};
use millrace_port::wait::{self, Bell};
use millrace_port::{Statistics, clock};

pub use files::{Output, Rotation, Settings};
pub use flows::{Flow, Flows};
pub use rows::Rows;
pub use source::{RING_BYTES, Source, SourceOptions};

use crate::headers;
use files::Files;
use source::Packet;

/// Packets that are taken before anything else is looked at.
const BURST: usize = 1024;
/// How long a sleep may be. An interface that vanishes does not wake who sleeps on AF_XDP.
const LOOK: Duration = Duration::from_millis(200);
/// Time between two questions to the kernel how much it has lost.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

/// Between two looks for what was not handed over yet.
const REST: Duration = Duration::from_millis(1);
/// How long taking the rest may go on where no stamp tells what came later.
const MOST_REST: Duration = Duration::from_millis(500);

/// Where packets go.
#[derive(Debug)]
pub enum Sink {
    /// Into capture files.
    Files(Box<Settings>),
    /// Into tables of headers, of so many rows, which [`Control::rows`] gives.
    Rows(usize),
    /// Nowhere: they are counted.
    Nothing,
}

/// When a capture ends by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// After so many packets.
    pub packets: Option<u64>,
    /// After so long.
    pub time: Option<Duration>,
}

/// Why a capture has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As many packets came as were wanted.
    Packets,
    /// The time is over.
    Time,
    /// It was told to.
    Stopped,
    /// Nothing will ever come any more: a file or a wire has ended.
    Exhausted,
}

/// What a capture has done so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Packets that were kept.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
    /// Of the packets that were kept, those that were cut.
    pub cut: u64,
    /// Of the packets that were kept, those that could not be written.
    pub unwritten: u64,
    /// Bytes that were written.
    pub written: u64,
    /// Files that were begun.
    pub files: u32,
    /// Packets that a filter in this process let not through.
    pub filtered: u64,
    /// How long it has run.
    pub elapsed: Duration,
    /// What the port counts, its drops by reason among it.
    pub port: Statistics,
}

/// What a capture shares with those who look at it and end it.
#[derive(Debug)]
pub struct Control {
    stop: AtomicBool,
    bell: Bell,
    progress: Mutex<Progress>,
    flows: Option<Mutex<Flows>>,
    rows: Option<Rows>,
}

impl Control {
    /// Ends the capture.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Whether it was told to end.
    pub fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// What it has done so far.
    pub fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// The flows with the most bytes, the greatest first, and how many others were given up because
    /// there were too many. Nothing where flows are not followed.
    pub fn top(&self, count: usize) -> (Vec<Flow>, u64) {
        match &self.flows {
            Some(flows) => {
                let flows = lock(flows);
                (flows.top(count), flows.given_up())
            }
            None => (Vec::new(), 0),
        }
    }

    /// The rows of headers.
    pub fn rows(&self) -> Option<&Rows> {
        self.rows.as_ref()
    }
}

/// A capture that can be run once.
#[derive(Debug)]
pub struct Capture {
    source: Source,
    files: Option<Files>,
    limits: Limits,
    control: Arc<Control>,
    /// Readable, with an error, once nobody reads what is written.
    reader: Option<RawFd>,
    table: Vec<headers::Header>,
    rows: usize,
    scratch: Vec<u8>,
    progress: Progress,
    begun: Instant,
    next_count: Instant,
    /// Packets that came after this, in nanoseconds since 1970, are not wanted any more, and
    /// whether one was seen.
    until: u64,
    past: bool,
}

impl Capture {
    /// A capture from `source` into `sink`. `flows`: follow so many flows at least.
    ///
    /// # Errors
    /// What opening a file says, with its name; `InvalidInput` for settings that make no sense.
    pub fn new(
        source: Source,
        sink: Sink,
        limits: Limits,
        flows: Option<usize>,
    ) -> io::Result<Capture> {
        let mut rows = 0;
        if let Sink::Rows(wanted) = &sink {
            rows = (*wanted).clamp(1, 1 << 24);
        }
        let control = Arc::new(Control {
            stop: AtomicBool::new(false),
            bell: Bell::new()?,
            progress: Mutex::default(),
            flows: flows.map(|count| Mutex::new(Flows::new(count))),
            rows: (rows > 0).then(Rows::new),
        });
        let files = match sink {
            Sink::Files(settings) => {
                Some(Files::open(*settings, &source.description(), Arc::clone(&control))?)
            }
            Sink::Rows(_) | Sink::Nothing => None,
        };
        Ok(Capture {
            source,
            reader: files.as_ref().and_then(Files::pipe),
            files,
            limits,
            control,
            table: Vec::with_capacity(rows),
            rows,
            scratch: Vec::new(),
            progress: Progress::default(),
            begun: Instant::ZERO,
            next_count: Instant::ZERO,
            until: u64::MAX,
            past: false,
        })
    }

    /// To look at it and to end it from another thread.
    pub fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// How packets are taken.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        self.source.facts()
    }

    /// Captures until a limit, [`Control::stop`], or the end of what can come. Whatever ends it, the
    /// files are ended as they should be.
    ///
    /// # Errors
    /// As [`millrace_port::Port::rx`]; what writing says, with the file's name. What was written
    /// before stays readable.
    pub fn run(&mut self) -> io::Result<End> {
        self.begun = clock::now();
        let ended = self.turns();
        self.count(clock::now());
        let finished = self.finish();
        self.publish(clock::now());
        match (ended, finished) {
            (Ok(end), Ok(())) => Ok(end),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn turns(&mut self) -> io::Result<End> {
        loop {
            if self.control.stops() {
                return self.take_rest().map(|()| End::Stopped);
            }
            let now = clock::now();
            let end = self.limits.time.map(|time| self.begun + time);
            if end.is_some_and(|end| now >= end) {
                return self.take_rest().map(|()| End::Time);
            }
            let limit = self.limit();
            if limit == 0 {
                return Ok(End::Packets);
            }
            let taken = self.burst(now, limit)?;
            if now >= self.next_count {
                self.count(now);
            }
            self.publish(now);
            if taken > 0 {
                continue;
            }
            // Whoever reads the file meanwhile sees all that has come.
            if let Some(files) = &mut self.files {
                files.flush()?;
            }
            if self.source.exhausted() {
                return Ok(End::Exhausted);
            }
            self.sleep(now, end)?;
        }
    }

    /// How many packets the next burst may have.
    fn limit(&self) -> usize {
        let left = self.limits.packets.map_or(u64::MAX, |most| most - self.progress.packets);
        usize::try_from(left).unwrap_or(BURST).min(BURST)
    }

    /// Takes what came before now and was not handed over yet.
    fn take_rest(&mut self) -> io::Result<()> {
        let Some(until) = self.source.clock() else { return Ok(()) };
        self.until = until;
        let end = clock::now() + self.source.delay();
        while !self.past && self.limit() > 0 {
            let now = clock::now();
            let taken = self.burst(now, self.limit())?;
            if now >= end && (taken == 0 || now >= end + MOST_REST) || self.source.exhausted() {
                break;
            }
            if taken == 0 {
                std::thread::sleep(REST);
            }
        }
        Ok(())
    }

    fn sleep(&mut self, now: Instant, end: Option<Instant>) -> io::Result<()> {
        let Some(armed) = self.source.arm(now) else { return Ok(()) };
        let mut deadline =
            [end, armed.arrival].into_iter().flatten().fold(now + LOOK, Instant::min);
        if !self.table.is_empty() {
            deadline = deadline.min(now + rows::PATIENCE);
        }
        wait::poll(
            &[armed.fds[0], armed.fds[1], self.reader],
            &self.control.bell,
            now,
            Some(deadline),
        )?;
        if !self.table.is_empty() && clock::now() >= deadline {
            self.hand_over();
        }
        match &self.files {
            Some(files) => files.check_reader(),
            None => Ok(()),
        }
    }

    /// Takes what is there, at most `limit` packets; returns how many came.
    fn burst(&mut self, now: Instant, limit: usize) -> io::Result<usize> {
        let Capture { source, files, control, table, rows, scratch, progress, until, past, .. } =
            self;
        let mut flows = control.flows.as_ref().map(lock);
        let mut failed = None;
        let (rows, snap) = (*rows, source.snap_length());
        let wants_header = rows > 0 || flows.is_some();
        let room = if rows > 0 { limit.min(rows - table.len()) } else { limit };
        let until = *until;
        let mut visitor = |packet: Packet<'_>| {
            if packet.time > until {
                *past = true;
                return;
            }
            progress.packets += 1;
            progress.bytes += u64::from(packet.length);
            if wants_header {
                let header = packet.header(scratch);
                if rows > 0 {
                    table.push(header);
                }
                if let Some(flows) = &mut flows {
                    flows.add(&header);
                }
            }
            let packet = packet.cut(snap);
            progress.cut += u64::from(packet.is_cut());
            if let Some(files) = files
                && failed.is_none()
            {
                failed = files.append(&packet).err();
            }
        };
        let taken = source.visit(now, room, &mut visitor)?;
        drop(flows);
        if let Some(error) = failed {
            return Err(error);
        }
        if rows > 0 && table.len() >= rows {
            self.hand_over();
        }
        Ok(taken)
    }

    /// Gives the rows that there are to whoever wants them.
    fn hand_over(&mut self) {
        let Some(rows) = &self.control.rows else { return };
        let table = core::mem::replace(&mut self.table, Vec::with_capacity(self.rows));
        rows.put(table, &self.control.stop);
    }

    /// Asks the port what it has lost.
    fn count(&mut self, now: Instant) {
        self.next_count = now + COUNT_INTERVAL;
        self.progress.port = self.source.statistics();
        self.progress.filtered = self.source.filtered();
        if let Some(files) = &mut self.files {
            files.note(&self.progress);
        }
    }

    fn publish(&mut self, now: Instant) {
        self.progress.elapsed = now - self.begun;
        if let Some(files) = &self.files {
            self.progress.written = files.written();
            self.progress.files = files.begun();
            // Behind a failure packets are seen and not given to the file.
            let missed = self.progress.packets.saturating_sub(files.delivered());
            self.progress.unwritten = files.unwritten() + missed;
        }
        let mut shown = lock(&self.control.progress);
        shown.clone_from(&self.progress);
    }

    fn finish(&mut self) -> io::Result<()> {
        if !self.table.is_empty() {
            self.hand_over();
        }
        if let Some(rows) = &self.control.rows {
            rows.end();
        }
        let finished = match &mut self.files {
            Some(files) => files.finish(),
            None => Ok(()),
        };
        self.source.close();
        finished
    }
}

/// What a panic elsewhere left is whole: counts are changed one at a time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
