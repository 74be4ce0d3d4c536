//! A host in the middle of two raw ports that share an arena: what comes in at one leaves by the
//! other, in the frame that it came in, through filters and after what a [`Link`] of that direction
//! does to it.
//!
//! Without a link a direction holds back nothing: what the other port has no room for waits in the
//! first. With one, a packet counts from the moment at which the kernel put it on the port, where
//! the port knows it, and waits in its frame until it is due. A super-segment is one packet.

use std::io;

use millrace_frames::{Arena, Duration, Frame, Instant, Owners, RxBatch, Transmit, TxBatch};
use millrace_port::impair::{self, Impairment, InFlight, Link, Verdict};
use millrace_port::{Port, Timestamps, Wait, clock, finish_checksum, wait};

use crate::filter::Filter;
use crate::loops::{Done, Run, Turns, passes, to_send};
use crate::raw_port::RawPort;

/// A packet that leaves so much after its time is counted as late.
pub const LATE: Duration = Duration::from_millis(1);

/// Between two turns of a sleeper while packets are on their way, so that one waking serves many.
const GRAIN: Duration = Duration::from_micros(50);
/// Bursts that are taken from a port in one turn, where a link says when they leave.
const BURSTS: usize = 4;
/// How long a port may refuse to take packets before they are dropped.
const PATIENCE: Duration = Duration::from_millis(100);
/// A packet cannot have waited longer than this for us; a clock was set.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What a forwarder does.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What goes wrong with packets from the first port to the second, and back. `None` for the
    /// way back: nothing is taken from the second port.
    pub forth: Impairment,
    /// See `forth`.
    pub back: Option<Impairment>,
    /// Drops what it lets not through, after the filters of the ports.
    pub filter: Option<Filter>,
    /// Exchange the hardware addresses.
    pub swap: bool,
    /// Where the dice start.
    pub seed: u64,
}

/// What one direction has done. Every packet that was received was filtered, dropped for a reason
/// below, or taken to be sent: `received + duplicated` is `filtered + lost + queue_dropped +
/// damaged_whole + lost_copies + no_frame + refused + in_flight + sent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that came.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets that a filter in this process let not through.
    pub filtered: u64,
    /// Packets that the other port took. It may have lost some of them: see its drops.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Super-segments that met damage. Their sender left the checksum to the device, which would
    /// hide it, so they are lost.
    pub damaged_whole: u64,
    /// Copies of such ones, which are lost with them.
    pub lost_copies: u64,
    /// Copies for which no frame was free.
    pub no_frame: u64,
    /// Given up because the other port took nothing for [`PATIENCE`].
    pub refused: u64,
    /// Sent more than [`LATE`] after their time.
    pub late: u64,
    /// The most that one was late.
    pub latest: Duration,
    /// On their way now.
    pub in_flight: u64,
    /// What the link did.
    pub link: impair::Counters,
}

/// From one port to the other.
#[derive(Debug)]
struct Way {
    /// `None`: nothing goes wrong here.
    link: Option<Link>,
    in_flight: InFlight<Transmit>,
    /// Due, and not yet taken by the port.
    due: TxBatch,
    /// When the port stopped taking packets.
    stalled: Option<Instant>,
    /// When the last packet came.
    last: Instant,
    /// Was on its way when it ended.
    abandoned: u64,
    counters: Counters,
}

/// Forwards between two ports; see the module.
#[derive(Debug)]
pub struct Forwarder {
    /// From the first to the second port, and back.
    ways: [Option<Way>; 2],
    filter: Option<Filter>,
    swap: bool,
}

/// What a turn of one direction needs beside its ports.
struct Turn<'a> {
    now: Instant,
    /// The time of day, by which some ports stamp their packets.
    wall: Duration,
    /// What a packet must pass, one after the other.
    filters: [Option<&'a Filter>; 2],
    swap: bool,
    /// Most packets of a burst.
    batch: usize,
    /// Most packets that may still be sent.
    most: u64,
}

impl Forwarder {
    /// A forwarder for ports whose arena has so many frames.
    ///
    /// # Errors
    /// `InvalidInput` where [`Impairment::validate`] says so.
    pub fn new(config: Config, frames: usize) -> io::Result<Forwarder> {
        let way = |impairment: Impairment, seed: u64| -> io::Result<Way> {
            impairment.validate()?;
            let link = (!impairment.is_none()).then(|| Link::new(impairment, seed));
            // A heap that never grows.
            let capacity = if link.is_some() { frames } else { 0 };
            Ok(Way {
                link,
                in_flight: InFlight::with_capacity(capacity),
                due: TxBatch::new(),
                stalled: None,
                last: Instant::ZERO,
                abandoned: 0,
                counters: Counters::default(),
            })
        };
        let Config { forth, back, filter, swap, seed } = config;
        let forth = way(forth, seed)?;
        // Another sequence than that of the way there.
        let back = back.map(|back| way(back, !seed)).transpose()?;
        Ok(Forwarder { ways: [Some(forth), back], filter, swap })
    }

    /// What each direction has done. `None`: there is no such direction.
    pub fn counters(&self) -> [Option<Counters>; 2] {
        self.ways.each_ref().map(|way| way.as_ref().map(Way::counters))
    }

    /// Forwards between two ports until `run` says to end. What is on its way stays so, for the next
    /// call. Counts what the ports took, of both directions together.
    ///
    /// # Errors
    /// `InvalidInput` for ports with arenas of their own; as [`Port::rx`] and [`Port::tx`], for an
    /// interface that is down as well.
    pub fn run(
        &mut self,
        first: &mut RawPort,
        second: &mut RawPort,
        run: Run<'_>,
    ) -> io::Result<Done> {
        first.check_shares(second)?;
        let shared = first.arena.clone();
        let mut arena = shared.lock();
        let arena = &mut *arena;
        first.forget_pending(arena);
        second.forget_pending(arena);
        let own = self.filter.as_ref();
        let filters = [[first.filter.as_ref(), own], [second.filter.as_ref(), own]];
        let [forth, back] = &mut self.ways;
        let (first, second) = (&mut *first.port, &mut *second.port);
        let timed = [&*forth, &*back].into_iter().flatten().any(Way::takes_time);
        if timed && run.wait != Wait::Spin {
            wait::wake_punctually();
        }
        let mut turns = Turns::new(run);
        while turns.go_on() {
            let wall = if timed { clock::wall() } else { Duration::ZERO };
            let mut worked = Worked::default();
            let mut result = Ok(());
            for (way, filters, back) in [(&mut *forth, filters[0], false), (back, filters[1], true)]
            {
                let Some(way) = way else { continue };
                let most = run
                    .packets
                    .map_or(u64::MAX, |most| most.saturating_sub(turns.done.packets + worked.sent));
                let (now, swap, batch) = (turns.now, self.swap, run.batch);
                let turn = Turn { now, wall, filters, swap, batch, most };
                let (from, to) = match back {
                    false => (&mut *first, &mut *second),
                    true => (&mut *second, &mut *first),
                };
                result = way.turn(from, to, arena, &turn, &mut worked);
                if result.is_err() {
                    break;
                }
            }
            turns.done.filtered += worked.filtered;
            if worked.sent > 0 {
                turns.worked(worked.sent as usize, worked.sent_bytes);
            }
            if timed {
                turns.now = clock::now();
            }
            result?;
            let waits = [&*forth, &*back].into_iter().flatten().any(|way| way.stalled.is_some());
            if waits {
                turns.full();
                if run.wait != Wait::Spin {
                    turns.pause(GRAIN)?;
                }
            } else if worked.received + worked.sent > 0 {
                if worked.sent == 0 {
                    turns.now = clock::now();
                }
                match timed && run.wait != Wait::Spin {
                    true => turns.pause(GRAIN)?,
                    false => turns.linger(worked.received as usize)?,
                }
            } else {
                let ways = [(&*forth, &*first), (&*back, &*second)];
                let ended = |(way, port): (&Option<Way>, &dyn Port)| {
                    way.as_ref().is_none_or(|way| port.exhausted() && way.on_its_way() == 0)
                };
                if ways.into_iter().all(ended) {
                    turns.done.ended = true;
                    break;
                }
                let earliest = [&*forth, &*back]
                    .into_iter()
                    .flatten()
                    .filter_map(|way| way.in_flight.earliest())
                    .min();
                match back {
                    Some(_) => turns.idle(&mut [&mut *first, &mut *second], earliest)?,
                    None => turns.idle(&mut [&mut *first], earliest)?,
                }
            }
        }
        Ok(turns.end())
    }

    /// Drops what is on its way, after which the counters are final.
    pub fn end(&mut self, arena: &mut Arena) {
        for way in self.ways.iter_mut().flatten() {
            way.abandoned += way.on_its_way();
            for packet in way.due.iter() {
                arena.transmitted(packet);
            }
            way.due.clear();
            while let Some((_, packet)) = way.in_flight.pop(Instant::FAR_FUTURE) {
                arena.transmitted(&packet);
            }
        }
    }
}

/// What the directions have done in one turn.
#[derive(Clone, Copy, Debug, Default)]
struct Worked {
    received: u64,
    filtered: u64,
    sent: u64,
    sent_bytes: u64,
}

impl Way {
    /// Whether packets leave later than they came.
    fn takes_time(&self) -> bool {
        self.link.as_ref().is_some_and(|link| {
            let impairment = link.impairment();
            impairment.rate_bits_per_s.is_some()
                || !impairment.delay.is_zero()
                || !impairment.jitter.is_zero()
                || impairment.reorder > 0.0
        })
    }

    fn on_its_way(&self) -> u64 {
        (self.in_flight.len() + self.due.len()) as u64
    }

    fn counters(&self) -> Counters {
        let link = self.link.as_ref().map_or(impair::Counters::default(), |link| *link.counters());
        Counters { in_flight: self.on_its_way() + self.abandoned, link, ..self.counters }
    }

    #[inline]
    fn turn(
        &mut self,
        from: &mut dyn Port,
        to: &mut dyn Port,
        arena: &mut Arena,
        turn: &Turn<'_>,
        worked: &mut Worked,
    ) -> io::Result<()> {
        let sums = to.capabilities().tx_checksum;
        if self.link.is_some() {
            let clock = Clock::of(from, turn);
            for _ in 0..BURSTS {
                let mut received = RxBatch::with_limit(turn.batch);
                let count = from.rx(turn.now, arena, &mut received)?;
                worked.received += count as u64;
                for &head in received.iter() {
                    if self.admits(arena, head, turn, worked) {
                        let came = clock.came(turn.now, arena.meta(head).timestamp);
                        let packet = to_send(arena, head, turn.swap, sums);
                        self.pass(arena, came, packet);
                    }
                }
                if count < turn.batch {
                    break;
                }
            }
        } else {
            let wanted = turn.most.saturating_sub(self.due.len() as u64).min(turn.batch as u64);
            let room = (wanted as usize).min(self.due.room());
            if room > 0 {
                let mut received = RxBatch::with_limit(room);
                worked.received += from.rx(turn.now, arena, &mut received)? as u64;
                for &head in received.iter() {
                    if self.admits(arena, head, turn, worked) {
                        let packet = to_send(arena, head, turn.swap, sums);
                        // There is room: so much was received and no more.
                        let _ = self.due.push(packet);
                    }
                }
            }
        }
        self.send(to, arena, turn, worked)
    }

    /// Counts a packet that came, and says whether the filters let it through; else it is dropped.
    #[inline]
    fn admits(
        &mut self,
        arena: &mut Arena,
        head: Frame,
        turn: &Turn<'_>,
        worked: &mut Worked,
    ) -> bool {
        self.counters.received += 1;
        self.counters.received_bytes += u64::from(arena.meta(head).total);
        if turn.filters.into_iter().flatten().all(|filter| passes(filter, arena, head)) {
            return true;
        }
        self.counters.filtered += 1;
        worked.filtered += 1;
        arena.release_chain(head, Owners::RECEIVED);
        false
    }

    /// Puts a packet that came at `came` on the link.
    fn pass(&mut self, arena: &mut Arena, came: Instant, mut packet: Transmit) {
        let Some(link) = &mut self.link else { return };
        self.last = self.last.max(came);
        let passage = match link.offer(self.last, packet.total) {
            Verdict::Passes(passage) => passage,
            Verdict::Lost | Verdict::QueueDropped => {
                arena.transmitted(&packet);
                return;
            }
        };
        if passage.flipped_bit.is_some() {
            if packet.frames > 1 || packet.gso_size != 0 {
                self.counters.damaged_whole += 1;
                // Neither it nor a copy of it arrives.
                self.counters.lost_copies += u64::from(passage.duplicate);
                arena.transmitted(&packet);
                return;
            }
            if packet.checksum_start != 0 {
                // So that the receiver can tell.
                let (start, at) = (packet.checksum_start.into(), packet.checksum_offset.into());
                finish_checksum(arena.bytes_mut(packet.head), start, at);
                packet.checksum_start = 0;
            }
        }
        link.alter(&passage, arena.bytes_mut(packet.head));
        self.in_flight.push(passage.arrival, packet);
        if passage.duplicate {
            match copy(arena, &packet) {
                Some(copy) => self.in_flight.push(passage.arrival, copy),
                None => self.counters.no_frame += 1,
            }
        }
    }

    #[inline]
    fn send(
        &mut self,
        port: &mut dyn Port,
        arena: &mut Arena,
        turn: &Turn<'_>,
        worked: &mut Worked,
    ) -> io::Result<()> {
        let now = turn.now;
        let mut sent_now = 0;
        loop {
            while !self.due.is_full() && sent_now + (self.due.len() as u64) < turn.most {
                let Some((arrival, packet)) = self.in_flight.pop(now) else { break };
                let late = now - arrival;
                self.counters.late += u64::from(late > LATE);
                self.counters.latest = self.counters.latest.max(late);
                // There is room: the loop looks.
                let _ = self.due.push(packet);
            }
            let bytes = total(&self.due);
            // Called without packets too: a port may have frames to give back.
            let sent = port.tx(now, arena, &mut self.due)? as u64;
            let bytes = bytes - total(&self.due);
            sent_now += sent;
            self.counters.sent += sent;
            self.counters.sent_bytes += bytes;
            worked.sent += sent;
            worked.sent_bytes += bytes;
            if !self.due.is_empty() {
                let since = *self.stalled.get_or_insert(now);
                if sent > 0 {
                    self.stalled = Some(now);
                } else if now - since > PATIENCE {
                    self.counters.refused += self.due.len() as u64;
                    for packet in self.due.iter() {
                        arena.transmitted(packet);
                    }
                    self.due.clear();
                    self.stalled = None;
                }
                return Ok(());
            }
            self.stalled = None;
            let more = self.in_flight.earliest().is_some_and(|earliest| earliest <= now);
            if !more || sent_now >= turn.most {
                return Ok(());
            }
        }
    }
}

/// When a port's packets came.
enum Clock {
    /// At a time of day, which is so now.
    Wall(Duration),
    /// At a time of our own clock.
    Now,
    /// Nobody knows: now.
    Unknown,
}

impl Clock {
    fn of(port: &dyn Port, turn: &Turn<'_>) -> Clock {
        match port.capabilities().timestamps {
            Timestamps::Kernel => Clock::Wall(turn.wall),
            Timestamps::Now => Clock::Now,
            Timestamps::None | Timestamps::Hardware | Timestamps::File => Clock::Unknown,
        }
    }

    #[inline]
    fn came(&self, now: Instant, stamp: u64) -> Instant {
        let clock = match self {
            Clock::Wall(wall) if !wall.is_zero() => *wall,
            Clock::Now => Duration::from_nanos(now.as_nanos()),
            Clock::Wall(_) | Clock::Unknown => return now,
        };
        let waited = clock
            .checked_sub(Duration::from_nanos(stamp))
            .filter(|waited| stamp != 0 && *waited < LONGEST_WAIT)
            .unwrap_or_default();
        Instant::from_nanos(now.as_nanos().saturating_sub(waited.as_nanos() as u64))
    }
}

fn total(batch: &TxBatch) -> u64 {
    batch.iter().map(|packet| u64::from(packet.total)).sum()
}

/// The same packet in frames of its own. `None`: too few are free.
fn copy(arena: &mut Arena, packet: &Transmit) -> Option<Transmit> {
    let mut made = Transmit { head: Frame::NONE, frames: 0, ..*packet };
    let (mut from, mut last) = (packet.head, Frame::NONE);
    for _ in 0..packet.frames {
        let Some(to) = arena.allocate(Owners::TRANSMIT) else {
            if made.frames > 0 {
                arena.transmitted(&made);
            }
            return None;
        };
        let meta = *arena.meta(from);
        let (start, len) = match made.frames {
            0 => (packet.offset, packet.len),
            _ => (meta.offset, meta.len),
        };
        arena.meta_mut(to).offset = start;
        arena.append_from(to, from, start.into(), len.into());
        match made.frames {
            0 => made.head = to,
            _ => arena.meta_mut(last).next = to,
        }
        made.frames += 1;
        (from, last) = (meta.next, to);
    }
    Some(made)
}
