//! Sending what a template makes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_frames::{Arena, BURST, Duration, Instant, Owners, Transmit, TxBatch};
use millrace_port::clock;
use millrace_port::wait::{self, Bell};

use super::Pace;
use super::pace::Clock;
use super::template::Template;
use crate::raw_port::RawPort;

/// How much is sent, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Ends after so many packets. `None`: never.
    pub packets: Option<u64>,
    /// Ends after so long. `None`: never.
    pub time: Option<Duration>,
    /// The pace.
    pub pace: Pace,
    /// Packets that leave together.
    pub burst: u64,
    /// Most packets of one call to the port, 1 to 64.
    pub batch: usize,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sent {
    /// Packets that the port took.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Packets that were due and given up, because the port or this machine was too slow.
    pub behind: u64,
    /// How often the port had no room.
    pub stalls: u64,
    /// Whether the port repeats the packets by itself.
    pub repeated: bool,
}

/// How long before a packet is due a sleep ends; the rest is spun.
const EARLY: Duration = Duration::from_micros(80);
/// A port that takes nothing for so long will not take anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How often a port that repeats packets by itself is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// Sends the packets of a template, slice after slice.
#[derive(Debug)]
pub struct Generator {
    template: Template,
    plan: Plan,
    begun: Option<(Instant, Clock)>,
    /// Rendered and not taken by the port yet.
    batch: TxBatch,
    /// The sizes of packets that the port repeats by itself, and how many packets it was to send.
    repeating: Option<(Vec<usize>, u64)>,
    sent: Sent,
    last_progress: Instant,
    scratch: Vec<u8>,
    over: bool,
}

impl Generator {
    /// What is to be sent.
    pub fn new(template: Template, plan: Plan) -> Generator {
        Generator {
            template,
            batch: TxBatch::with_limit(plan.batch),
            plan,
            begun: None,
            repeating: None,
            sent: Sent::default(),
            last_progress: Instant::ZERO,
            scratch: Vec::new(),
            over: false,
        }
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// What packets are made of.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Sends for a while, or to the end; returns whether that was reached. The first call begins.
    ///
    /// # Errors
    /// `InvalidInput` for packets that the port never takes, `TimedOut` where it takes none, else as
    /// [`millrace_port::Port::tx`].
    pub fn step(
        &mut self,
        raw: &mut RawPort,
        slice: Duration,
        bell: &Bell,
        stop: &AtomicBool,
    ) -> io::Result<bool> {
        let now = clock::now();
        if self.begun.is_none() {
            self.begin(raw, now)?;
        }
        let Some((begun, clock)) = &mut self.begun else { return Ok(true) };
        let begun = *begun;
        let end = now + slice;
        let end = self.plan.time.map_or(end, |time| end.min(begun + time));
        let result = if self.repeating.is_some() {
            self.watch(raw, end, stop)
        } else {
            let shared = raw.arena.clone();
            let mut arena = shared.lock();
            let mut turns = Turns {
                template: &mut self.template,
                plan: &self.plan,
                clock,
                batch: &mut self.batch,
                sent: &mut self.sent,
                last_progress: &mut self.last_progress,
                scratch: &mut self.scratch,
            };
            turns.run(raw, &mut arena, end, bell, stop)
        };
        let now = clock::now();
        self.sent.elapsed = now - begun;
        if let Some((_, clock)) = &self.begun {
            self.sent.behind = clock.behind as u64;
        }
        let enough = self.plan.packets.is_some_and(|packets| self.sent.packets >= packets);
        self.over = enough
            || stop.load(Ordering::Relaxed)
            || self.plan.time.is_some_and(|time| now >= begun + time);
        result?;
        Ok(self.over)
    }

    fn begin(&mut self, raw: &mut RawPort, now: Instant) -> io::Result<()> {
        let (least, most) = self.template.sizes();
        let zeros = vec![0; most];
        if let Some(refusal) = raw.refuse([&zeros[..least], &zeros[..]].into_iter()) {
            let text = refusal.to_string().replace("packet 0 has", "a packet of the template has");
            let text = text.replace("packet 1 has", "a packet of the template has");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.begun = Some((now, Clock::new(self.plan.pace, self.plan.burst, now)));
        self.last_progress = now;
        if self.plan.pace == Pace::Fastest
            && let Some(port) = raw.port.repeater()
            && let Some(period) =
                self.template.period().filter(|&period| period <= port.most() as u64)
        {
            let mut frames = vec![vec![0; most]; period as usize];
            let mut sizes = Vec::with_capacity(frames.len());
            for frame in &mut frames {
                let size = self.template.size();
                self.template.render(frame, 0);
                frame.truncate(size);
                sizes.push(size);
            }
            let count = self.plan.packets.unwrap_or(u64::MAX >> 20);
            let views: Vec<_> = frames.iter().map(Vec::as_slice).collect();
            port.repeat(&views, count)?;
            self.repeating = Some((sizes, count));
            self.sent.repeated = true;
        }
        Ok(())
    }

    /// Looks at a port that repeats packets by itself.
    fn watch(&mut self, raw: &mut RawPort, end: Instant, stop: &AtomicBool) -> io::Result<()> {
        let Some((sizes, count)) = &self.repeating else { return Ok(()) };
        let Some(port) = raw.port.repeater() else { return Ok(()) };
        loop {
            let now = clock::now();
            let sent = count - port.waiting();
            if sent > self.sent.packets {
                self.sent.packets = sent;
                self.sent.bytes = bytes_of(sizes, sent);
                self.last_progress = now;
            }
            port.check(now)?;
            if port.waiting() == 0 || now >= end || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if now - self.last_progress > PATIENCE {
                return Err(takes_nothing(&raw.capabilities().name));
            }
            std::thread::sleep(LOOK.min(end - now));
        }
    }

    /// Gives up what was rendered and not taken, and what the port was to repeat. Call it at the
    /// end, whatever that was.
    pub fn finish(&mut self, raw: &mut RawPort) {
        if let Some((sizes, count)) = self.repeating.take()
            && let Some(port) = raw.port.repeater()
        {
            self.sent.packets = count - port.withdraw();
            self.sent.bytes = bytes_of(&sizes, self.sent.packets);
            if let Some((begun, _)) = &self.begun {
                self.sent.elapsed = clock::now() - *begun;
            }
        }
        let shared = raw.arena.clone();
        let mut arena = shared.lock();
        for packet in self.batch.iter() {
            arena.transmitted(packet);
        }
        self.batch.clear();
    }
}

/// Bytes of `count` packets whose sizes are these in turn.
fn bytes_of(sizes: &[usize], count: u64) -> u64 {
    let all: usize = sizes.iter().sum();
    let (whole, rest) = (count / sizes.len() as u64, (count % sizes.len() as u64) as usize);
    all as u64 * whole + sizes[..rest].iter().sum::<usize>() as u64
}

pub(crate) fn takes_nothing(name: &str) -> io::Error {
    let seconds = PATIENCE.as_secs();
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{name} has taken no packet for {seconds} s; is anybody at its other end?"),
    )
}

/// What a slice works with.
struct Turns<'a> {
    template: &'a mut Template,
    plan: &'a Plan,
    clock: &'a mut Clock,
    batch: &'a mut TxBatch,
    sent: &'a mut Sent,
    last_progress: &'a mut Instant,
    scratch: &'a mut Vec<u8>,
}

impl Turns<'_> {
    fn run(
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
            let waits = self.batch.len() as u64;
            let left = self.plan.packets.map_or(u64::MAX, |all| all - self.sent.packets);
            if left == 0 {
                return Ok(());
            }
            let size = self.template.size() as u32;
            let due = self.clock.due(now, size).saturating_sub(waits).min(left - waits);
            if due == 0 && waits == 0 {
                self.wait(now, end, size, bell)?;
                *self.last_progress = clock::now();
                continue;
            }
            arena.collect_held();
            self.fill(arena, due.min(BURST as u64) as usize);
            let bytes = total(self.batch);
            // A wire in memory takes this for the time of arrival, which is after the stamps.
            let taken = raw.port.tx(clock::now(), arena, self.batch)?;
            if taken > 0 {
                let bytes = bytes - total(self.batch);
                self.sent.packets += taken as u64;
                self.sent.bytes += bytes;
                self.clock.sent(taken as u64, bytes);
                *self.last_progress = now;
            } else {
                self.sent.stalls += 1;
                if now - *self.last_progress > PATIENCE {
                    return Err(takes_nothing(&raw.capabilities().name));
                }
                core::hint::spin_loop();
            }
        }
    }

    /// Renders packets into free frames, while there are some: an eighth is kept for others.
    #[inline]
    fn fill(&mut self, arena: &mut Arena, count: usize) {
        let time = clock::wall().as_nanos() as u64;
        let frame_size = arena.frame_size();
        let reserve = arena.frames() / 8;
        for _ in 0..count {
            if self.batch.is_full() {
                return;
            }
            let size = self.template.size();
            if size > frame_size {
                if !self.fill_chain(arena, time, reserve) {
                    return;
                }
                continue;
            }
            let Some(head) = arena.allocate_keeping(Owners::TRANSMIT, reserve) else { return };
            let offset = Arena::HEADROOM.min(frame_size - size);
            self.template.render(&mut arena.room_mut(head)[offset..], time);
            let meta = arena.meta_mut(head);
            (meta.offset, meta.len) = (offset as u16, size as u16);
            let packet = Transmit {
                head,
                total: size as u32,
                offset: offset as u16,
                len: size as u16,
                frames: 1,
                ..Transmit::default()
            };
            // There is room: the loop looks.
            let _ = self.batch.push(packet);
        }
    }

    /// One packet that is longer than a frame. False: too few frames are free.
    #[cold]
    fn fill_chain(&mut self, arena: &mut Arena, time: u64, reserve: usize) -> bool {
        let size = self.template.size();
        if arena.free() < reserve + size.div_ceil(arena.frame_size()) {
            return false;
        }
        self.scratch.resize(size, 0);
        self.template.render(self.scratch, time);
        match crate::transmit::chain(arena, self.scratch) {
            Some(packet) => self.batch.push(packet).is_ok(),
            None => false,
        }
    }

    /// Waits until the next packet is due.
    fn wait(&self, now: Instant, end: Instant, size: u32, bell: &Bell) -> io::Result<()> {
        let until = self.clock.next(size).unwrap_or(end).min(end);
        if until > now + EARLY {
            let early = Instant::from_nanos(until.as_nanos() - EARLY.as_nanos() as u64);
            wait::poll(&[], bell, now, Some(early))?;
        } else {
            core::hint::spin_loop();
        }
        Ok(())
    }
}

#[inline]
pub(crate) fn total(batch: &TxBatch) -> u64 {
    batch.iter().map(|packet| u64::from(packet.total)).sum()
}
