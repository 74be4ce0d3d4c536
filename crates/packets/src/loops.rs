//! The three loops that packet I/O is measured by, over bursts of any port: receive and drop,
//! transmit, and forward at layer 2. They count what they did and nothing else; what was lost, the
//! ports count.
//!
//! A loop spins or sleeps while there is nothing to do, and ends when it has done so many packets,
//! at a deadline, when it is told to, or when a signal wakes it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_frames::{
    Arena, Duration, Frame, Instant, Owners, RxBatch, RxFlags, Transmit, TxBatch,
};
use millrace_port::wait::{self, Bell, Wake};
use millrace_port::{Port, Wait, clock, finish_checksum};

use crate::batch::Batch;
use crate::checksum;
use crate::filter::Filter;
use crate::flags;
use crate::raw_port::RawPort;

/// How a loop runs, and when it ends.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Most packets of a burst, 1 to 64.
    pub batch: usize,
    /// Ends after so many packets. `None`: never.
    pub packets: Option<u64>,
    /// Ends after so long. `None`: never.
    pub time: Option<Duration>,
    /// What to do while there is nothing to do.
    pub wait: Wait,
    /// How long more packets may come after a burst that was not full, before the next look. Zero:
    /// no time. With it bursts are fuller, and a packet costs less.
    pub linger: Duration,
    /// Rung to end a sleep.
    pub bell: &'a Bell,
    /// Ends when it is set.
    pub stop: &'a AtomicBool,
}

/// What a loop did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Packets that were dropped on purpose, taken by the port to send, or forwarded.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bursts that had a packet at least.
    pub bursts: u64,
    /// Packets that a filter let not through; they are not among those above.
    pub filtered: u64,
    /// Turns that found nothing to do.
    pub idle: u64,
    /// How long it ran.
    pub elapsed: Duration,
    /// Nothing will ever come any more: a file or a wire has ended.
    pub ended: bool,
}

/// How many fruitless turns pass between two looks at the clock.
const TURNS_PER_LOOK: u32 = 16;

/// Packets that pass between two looks at the clock: in bursts of one a look would cost more than
/// what the loop itself does.
const PACKETS_PER_LOOK: u64 = 64;

/// How long a sleep may be. An interface that vanishes does not wake who sleeps on AF_XDP.
const LOOK: Duration = Duration::from_millis(200);
/// Pauses of a spinning loop between two looks at a port that had nothing; so many after so many
/// looks. Each look takes a line of memory away from the core that writes it.
const MOST_PAUSES: u32 = 32;

/// When a loop began, what it has done, and whether it goes on.
pub(crate) struct Turns<'a> {
    run: Run<'a>,
    begun: Instant,
    pub(crate) now: Instant,
    last_work: Instant,
    pub(crate) done: Done,
    fruitless: u32,
    /// Packets since the last look at the clock.
    unseen: u64,
    /// A signal came while it slept; its handler may want to run.
    interrupted: bool,
}

impl<'a> Turns<'a> {
    pub(crate) fn new(run: Run<'a>) -> Turns<'a> {
        let now = clock::now();
        let done = Done::default();
        let (fruitless, unseen) = (0, 0);
        Turns { run, begun: now, now, last_work: now, done, fruitless, unseen, interrupted: false }
    }

    /// Whether there is one more turn.
    #[inline]
    pub(crate) fn go_on(&self) -> bool {
        self.run.packets.is_none_or(|packets| self.done.packets < packets)
            && self.run.time.is_none_or(|time| self.now - self.begun < time)
            && !self.interrupted
            && !self.run.stop.load(Ordering::Relaxed)
    }

    /// How many packets the next burst may have.
    #[inline]
    pub(crate) fn burst(&self) -> usize {
        let left = self.run.packets.map_or(u64::MAX, |packets| packets - self.done.packets);
        self.run.batch.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    #[inline]
    pub(crate) fn worked(&mut self, packets: usize, bytes: u64) {
        self.done.packets += packets as u64;
        self.done.bytes += bytes;
        self.done.bursts += 1;
        self.fruitless = 0;
        self.unseen += packets as u64;
        if self.unseen >= PACKETS_PER_LOOK {
            self.unseen = 0;
            self.now = clock::now();
        }
        self.last_work = self.now;
    }

    /// After a turn without work: spins or sleeps, until `earliest` at the latest.
    ///
    /// # Errors
    /// What sleeping says.
    #[inline]
    pub(crate) fn idle(
        &mut self,
        ports: &mut [&mut dyn Port],
        earliest: Option<Instant>,
    ) -> io::Result<()> {
        self.done.idle += 1;
        self.fruitless += 1;
        let spins = match self.run.wait {
            Wait::Spin => true,
            Wait::Sleep => false,
            Wait::SpinThenSleep(time) => self.now - self.last_work < time,
        };
        if spins {
            for _ in 0..self.fruitless.min(MOST_PAUSES) {
                core::hint::spin_loop();
            }
            if self.fruitless.is_multiple_of(TURNS_PER_LOOK) {
                self.now = clock::now();
            }
            return Ok(());
        }
        self.now = clock::now();
        let end = self.run.time.map_or(Instant::FAR_FUTURE, |time| self.begun + time);
        let end = earliest.map_or(end, |earliest| end.min(earliest));
        let deadline = Some(end.min(self.now + LOOK));
        let woken = wait::sleep_any(ports, self.run.bell, self.now, deadline)?;
        self.now = clock::now();
        self.interrupted = woken == Wake::Signal;
        Ok(())
    }

    /// After a burst of `count`: lets more packets come.
    ///
    /// # Errors
    /// What sleeping says.
    #[inline]
    pub(crate) fn linger(&mut self, count: usize) -> io::Result<()> {
        if self.run.linger.is_zero() || count >= self.run.batch {
            return Ok(());
        }
        self.pause(self.run.linger)
    }

    /// Does nothing for so long.
    ///
    /// # Errors
    /// What sleeping says.
    pub(crate) fn pause(&mut self, time: Duration) -> io::Result<()> {
        self.now = clock::now();
        let until = self.now + time;
        if self.run.wait == Wait::Spin {
            while clock::now() < until {
                core::hint::spin_loop();
            }
        } else {
            let woken = wait::poll(&[], self.run.bell, self.now, Some(until))?;
            self.interrupted = woken == Wake::Signal;
        }
        self.now = clock::now();
        Ok(())
    }

    /// After a turn in which what there was found no room.
    pub(crate) fn full(&mut self) {
        self.done.idle += 1;
        core::hint::spin_loop();
        self.now = clock::now();
    }

    pub(crate) fn end(mut self) -> Done {
        self.done.elapsed = clock::now() - self.begun;
        self.done
    }
}

/// Whether a received packet passes a filter.
#[inline]
pub(crate) fn passes(filter: &Filter, arena: &Arena, head: Frame) -> bool {
    let meta = arena.meta(head);
    let length = if meta.rx_flags().contains(RxFlags::CUT) { meta.mark } else { meta.total };
    if meta.next.is_none() {
        return filter.accepts(arena.bytes(head), length);
    }
    filter.accepts(&whole(arena, head), length)
}

/// The bytes of a packet that lies in several frames.
#[cold]
fn whole(arena: &Arena, head: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(arena.meta(head).total as usize);
    let mut frame = head;
    while frame.is_some() {
        bytes.extend_from_slice(arena.bytes(frame));
        frame = arena.meta(frame).next;
    }
    bytes
}

/// Receives and drops.
///
/// # Errors
/// As [`Port::rx`].
pub fn rxdrop(
    port: &mut dyn Port,
    arena: &mut Arena,
    filter: Option<&Filter>,
    run: Run<'_>,
) -> io::Result<Done> {
    let mut turns = Turns::new(run);
    while turns.go_on() {
        let mut batch = RxBatch::with_limit(turns.burst());
        let count = port.rx(turns.now, arena, &mut batch)?;
        if count == 0 {
            if port.exhausted() {
                turns.done.ended = true;
                break;
            }
            turns.idle(&mut [&mut *port], None)?;
            continue;
        }
        let (mut packets, mut bytes) = (0, 0);
        for &head in batch.iter() {
            if filter.is_none_or(|filter| passes(filter, arena, head)) {
                packets += 1;
                bytes += u64::from(arena.meta(head).total);
            }
            arena.release_chain(head, Owners::RECEIVED);
        }
        turns.done.filtered += (count - packets) as u64;
        turns.worked(packets, bytes);
        turns.linger(count)?;
    }
    Ok(turns.end())
}

/// Transmits packets over and over, which lie in frames of `arena` that somebody else owns as well
/// and that are not changed. A packet that is under way is not sent again before it has left, so a
/// port that keeps many under way wants as many.
///
/// # Errors
/// As [`Port::tx`]; `InvalidInput` without packets.
pub fn txpush(
    port: &mut dyn Port,
    arena: &mut Arena,
    packets: &[Transmit],
    run: Run<'_>,
) -> io::Result<Done> {
    if packets.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no packet to send"));
    }
    let mut turns = Turns::new(run);
    let mut batch = TxBatch::with_limit(run.batch);
    let mut next = 0;
    let total = |batch: &TxBatch| batch.iter().map(|packet| u64::from(packet.total)).sum();
    let result = loop {
        if !turns.go_on() {
            break Ok(());
        }
        let wanted = turns.burst();
        while batch.len() < wanted {
            let packet = packets[next];
            if arena.owners(packet.head).intersects(Owners::TRANSMIT) {
                break;
            }
            arena.own(packet.head, Owners::TRANSMIT);
            // There is room for a burst.
            let _ = batch.push(packet);
            next = if next + 1 == packets.len() { 0 } else { next + 1 };
        }
        let bytes: u64 = total(&batch);
        match port.tx(turns.now, arena, &mut batch) {
            Ok(0) => turns.full(),
            Ok(taken) => turns.worked(taken, bytes - total(&batch)),
            Err(error) => break Err(error),
        }
    };
    for packet in batch.iter() {
        arena.transmitted(packet);
    }
    result.map(|()| turns.end())
}

/// What a forwarder does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forward<'a> {
    /// Also from the second port to the first.
    pub both_ways: bool,
    /// Exchange the hardware addresses, as a switch's user does that sends back.
    pub swap: bool,
    /// Drops what it lets not through, in both directions.
    pub filter: Option<&'a Filter>,
}

/// Makes a received packet one to send, by a port that finishes checksums itself or does not.
#[inline]
pub(crate) fn to_send(arena: &mut Arena, head: Frame, swap: bool, port_sums: bool) -> Transmit {
    let meta = *arena.meta(head);
    let mut frames = 0;
    let mut frame = head;
    while frame.is_some() {
        arena.pass(frame, Owners::RECEIVED, Owners::TRANSMIT);
        frames += 1;
        frame = arena.meta(frame).next;
    }
    let mut packet = Transmit {
        head,
        total: meta.total,
        offset: meta.offset,
        len: meta.len,
        frames,
        ..Transmit::default()
    };
    if swap && meta.len >= 12 {
        let bytes = arena.bytes_mut(head);
        let (destination, rest) = bytes.split_at_mut(6);
        destination.swap_with_slice(&mut rest[..6]);
    }
    let flags = flags::of(&meta);
    if flags != 0
        && let Some(place) = checksum::unfinished(arena.bytes(head), flags)
    {
        if port_sums || frames > 1 {
            packet.checksum_start = place.start;
            packet.checksum_offset = place.offset;
            packet.ipv6 = place.ipv6;
            packet.gso_size = meta.gso_size;
        } else {
            let (start, offset) = (place.start.into(), place.offset.into());
            finish_checksum(arena.bytes_mut(head), start, offset);
        }
    }
    packet
}

/// From one port to the other.
struct Way {
    batch: TxBatch,
    /// The port finishes checksums itself.
    port_sums: bool,
}

impl Way {
    fn new(run: &Run<'_>, to: &dyn Port) -> Way {
        let port_sums = to.capabilities().tx_checksum;
        Way { batch: TxBatch::with_limit(run.batch), port_sums }
    }

    /// One turn: what the port took, in `done`.
    #[inline]
    fn turn(
        &mut self,
        from: &mut dyn Port,
        to: &mut dyn Port,
        arena: &mut Arena,
        now: Instant,
        how: &Forward<'_>,
        done: &mut Done,
    ) -> io::Result<()> {
        let room = self.batch.room();
        if room > 0 {
            let mut received = RxBatch::with_limit(room);
            from.rx(now, arena, &mut received)?;
            for &head in received.iter() {
                if how.filter.is_some_and(|filter| !passes(filter, arena, head)) {
                    arena.release_chain(head, Owners::RECEIVED);
                    done.filtered += 1;
                    continue;
                }
                let packet = to_send(arena, head, how.swap, self.port_sums);
                // There is room: so much was received and no more.
                let _ = self.batch.push(packet);
            }
        }
        // Without a packet as well: frames come back, and what the kernel has not sent is sent.
        let total = |batch: &TxBatch| batch.iter().map(|packet| u64::from(packet.total)).sum();
        let bytes: u64 = total(&self.batch);
        done.packets += to.tx(now, arena, &mut self.batch)? as u64;
        done.bytes += bytes - total(&self.batch);
        Ok(())
    }

    fn end(self, arena: &mut Arena) {
        for packet in self.batch.iter() {
            arena.transmitted(packet);
        }
    }
}

/// Forwards from the first port to the second, which share an arena, without a copy. What the
/// second has no room for waits in the first. Counts the packets of both directions; it may send a
/// burst more than it was told to.
///
/// # Errors
/// As [`Port::rx`] and [`Port::tx`].
pub fn l2fwd(
    first: &mut dyn Port,
    second: &mut dyn Port,
    arena: &mut Arena,
    how: Forward<'_>,
    run: Run<'_>,
) -> io::Result<Done> {
    let mut turns = Turns::new(run);
    let mut forth = Way::new(&run, second);
    let mut back = how.both_ways.then(|| Way::new(&run, first));
    let result = loop {
        if !turns.go_on() {
            break Ok(());
        }
        let mut done = Done::default();
        let mut turn = forth.turn(first, second, arena, turns.now, &how, &mut done);
        if let (Ok(()), Some(back)) = (&turn, &mut back) {
            turn = back.turn(second, first, arena, turns.now, &how, &mut done);
        }
        turns.done.filtered += done.filtered;
        if done.packets > 0 {
            turns.worked(done.packets as usize, done.bytes);
        }
        if let Err(error) = turn {
            break Err(error);
        }
        if done.packets + done.filtered > 0 {
            if let Err(error) = turns.linger((done.packets + done.filtered) as usize) {
                break Err(error);
            }
            continue;
        }
        let waits =
            !forth.batch.is_empty() || back.as_ref().is_some_and(|back| !back.batch.is_empty());
        if waits {
            // What found no room is tried again.
            turns.full();
            continue;
        }
        if first.exhausted() {
            turns.done.ended = true;
            break Ok(());
        }
        let slept = match how.both_ways {
            true => turns.idle(&mut [&mut *first, &mut *second], None),
            false => turns.idle(&mut [&mut *first], None),
        };
        if let Err(error) = slept {
            break Err(error);
        }
    };
    forth.end(arena);
    if let Some(back) = back {
        back.end(arena);
    }
    result.map(|()| turns.end())
}

impl RawPort {
    /// [`rxdrop`] on this port.
    ///
    /// # Errors
    /// As [`rxdrop`].
    pub fn rxdrop(&mut self, run: Run<'_>) -> io::Result<Done> {
        let shared = self.arena.clone();
        let mut arena = shared.lock();
        self.forget_pending(&mut arena);
        rxdrop(&mut *self.port, &mut arena, self.filter.as_ref(), run)
    }

    /// [`txpush`] of the packets that [`RawPort::keep`] has put into this port's frames.
    ///
    /// # Errors
    /// As [`txpush`]; `InvalidInput` for a batch that lies elsewhere.
    pub fn txpush(&mut self, packets: &Batch, run: Run<'_>) -> io::Result<Done> {
        let shared = self.arena.clone();
        let mut arena = shared.lock();
        let ours = core::ptr::eq(packets.memory().0, arena.mapping().base().as_ptr());
        let lengths = &packets.columns().length;
        let transmit = |index: usize| {
            let (head, offset) = packets.frame(index).filter(|_| ours)?;
            let total = lengths[index];
            Some(Transmit {
                head,
                offset,
                total,
                len: total as u16,
                frames: 1,
                ..Transmit::default()
            })
        };
        let kept: Option<Vec<_>> = (0..packets.len()).map(transmit).collect();
        let Some(kept) = kept else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the packets do not lie in the frames of {}", self.capabilities().name),
            ));
        };
        txpush(&mut *self.port, &mut arena, &kept, run)
    }

    /// [`l2fwd`] from this port to another that shares its arena, through this port's filter.
    ///
    /// # Errors
    /// As [`l2fwd`]; `InvalidInput` for a port with an arena of its own.
    pub fn l2fwd(
        &mut self,
        to: &mut RawPort,
        both_ways: bool,
        swap: bool,
        run: Run<'_>,
    ) -> io::Result<Done> {
        self.check_shares(to)?;
        let shared = self.arena.clone();
        let mut arena = shared.lock();
        self.forget_pending(&mut arena);
        let how = Forward { both_ways, swap, filter: self.filter.as_ref() };
        l2fwd(&mut *self.port, &mut *to.port, &mut arena, how, run)
    }

    /// That frames may pass between this port and another.
    pub(crate) fn check_shares(&self, to: &RawPort) -> io::Result<()> {
        if !self.arena.is(&to.arena) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{} and {} have frames of their own; open the second with arena=the first",
                    self.capabilities().name,
                    to.capabilities().name
                ),
            ));
        }
        Ok(())
    }

    /// Drops what was received and not given out.
    pub(crate) fn forget_pending(&mut self, arena: &mut Arena) {
        self.heads.extend_from_slice(&self.pending);
        self.pending.clear();
        self.release_heads(arena);
    }
}
