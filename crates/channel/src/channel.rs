//! The channel itself: what it owns, and one turn of it.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;

use millrace_frames::{Arena, BURST, Frame, Held, Instant, Owners, RxBatch, TxBatch};
use millrace_port::{Capabilities, LinuxAddresses, Owner, Port, Statistics, Wait, clock};
use millrace_stack::{ConnectionId, Event, ListenerId, Ready, Route, SocketId, Stack};

use crate::completion::{Completion, Completions, Kind};
use crate::handle::Inner;
use crate::wait::Wake;
use crate::watched::Watched;
use crate::write::Extra;
use crate::{Bell, Config, Handle};

/// Bursts that are taken from the port before the application gets to see them. More would save
/// little and let the first wait.
const BURSTS: usize = 4;

/// What a channel counts besides its stack and its port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Turns that brought at least one completion.
    pub turns: u64,
    /// Completions.
    pub completions: u64,
    /// Sleeps in the kernel.
    pub sleeps: u64,
    /// Turns that ended with packets that the port had no room for.
    pub transmit_stalls: u64,
    /// Writes that found no free frame.
    pub writes_starved: u64,
    /// Packets that were dropped because the interface was down.
    pub drop_link_down: u64,
    /// How often the interface was found down.
    pub link_downs: u64,
    /// Nanoseconds in which there was nothing to do: slept, or spun in vain.
    pub idle_nanoseconds: u64,
    /// Writes to the page for watchers that failed.
    pub watch_failures: u64,
}

impl Counters {
    /// Names and values, in the order of declaration.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("turns", self.turns),
            ("completions", self.completions),
            ("sleeps", self.sleeps),
            ("transmit_stalls", self.transmit_stalls),
            ("writes_starved", self.writes_starved),
            ("drop_link_down", self.drop_link_down),
            ("link_downs", self.link_downs),
            ("idle_nanoseconds", self.idle_nanoseconds),
            ("watch_failures", self.watch_failures),
        ]
        .into_iter()
    }
}

/// What the channel knows of a connection, beside the stack's entry of the same number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The application has it.
    pub(crate) id: Option<ConnectionId>,
    /// Its place in `extras`, [`NO_EXTRA`] for the many that need none.
    pub(crate) extra: u32,
}

pub(crate) const NO_EXTRA: u32 = u32::MAX;

/// One thread's channel: a stack, a port and what happened between them.
pub struct Channel {
    pub(crate) stack: Stack,
    pub(crate) port: Box<dyn Port>,
    pub(crate) rx: RxBatch,
    pub(crate) tx: TxBatch,
    pub(crate) bell: Bell,
    pub(crate) wait: Wait,
    pub(crate) now: Instant,
    pub(crate) last_work: Instant,
    pub(crate) slots: Box<[Slot]>,
    /// What only few connections have: bytes that wait, a pause, an end that must wait for both.
    pub(crate) extras: Vec<Extra>,
    pub(crate) free_extras: Vec<u32>,
    /// Connections whose write found no frame; nothing of theirs is under way that would tell.
    pub(crate) starved: VecDeque<ConnectionId>,
    /// Connections that may have something to be read without an event that says so: their pause
    /// has ended, or a turn's budget had.
    pub(crate) resumed: Vec<ConnectionId>,
    pub(crate) listeners: Vec<ListenerId>,
    pub(crate) sockets: Vec<SocketId>,
    /// Frames of this turn's payloads.
    frames: Vec<Frame>,
    sources: Vec<SocketAddr>,
    /// Connections that this turn told the end of.
    ended: Vec<ConnectionId>,
    turn: u32,
    pub(crate) write_queue: usize,
    read_budget: u32,
    pub(crate) counters: Counters,
    pub(crate) link_down: bool,
    /// The port had no room for what is in `tx`.
    pub(crate) stalled: bool,
    pub(crate) closed: bool,
    pub(crate) owner: Owner,
    /// Who knows which addresses are Linux's, where the port is an interface of Linux's.
    pub(crate) linux: Option<LinuxAddresses>,
    /// What [`Channel::open`] decided, to be shown.
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) watched: Watched,
}

impl Channel {
    /// Makes a channel over a port and the arena that it was opened with.
    ///
    /// # Errors
    /// `InvalidInput` names what makes no sense in the configuration; `OutOfMemory` when there is
    /// none for its connections; what eventfd(2) says.
    pub fn new(port: Box<dyn Port>, arena: Arena, config: &Config) -> io::Result<Channel> {
        let now = clock::now();
        let stack = config.for_stack(port.capabilities())?;
        let bell = Bell::new()?;
        let mut stack = Stack::new(stack, arena, now)?;
        let connections = stack.config().connections as usize;
        let slots = vec![Slot { id: None, extra: NO_EXTRA }; connections];
        for &gateway in &config.gateways {
            stack.add_route(Route::default_by(gateway))?;
        }
        let mut channel = Channel {
            stack,
            port,
            rx: RxBatch::new(),
            tx: TxBatch::new(),
            bell,
            wait: config.wait,
            now,
            last_work: now,
            slots: slots.into_boxed_slice(),
            extras: Vec::new(),
            free_extras: Vec::new(),
            starved: VecDeque::new(),
            resumed: Vec::new(),
            listeners: Vec::new(),
            sockets: Vec::new(),
            frames: Vec::with_capacity(BURSTS * BURST),
            sources: Vec::new(),
            ended: Vec::new(),
            turn: 0,
            write_queue: config.write_queue,
            read_budget: config.read_budget,
            counters: Counters::default(),
            link_down: false,
            stalled: false,
            closed: false,
            owner: Owner::new(),
            linux: None,
            facts: Vec::new(),
            watched: Watched::off(),
        };
        channel.tell_port()?;
        if config.watch {
            channel.start_watch();
        }
        Ok(channel)
    }

    /// Sends what was written since the last turn, and gives the completions of what has happened.
    /// With none it waits as [`Wait`] says, for at most `timeout` (`None`: without end).
    ///
    /// What came with the last turn's completions is let go of first, so their payloads are gone
    /// unless they were held.
    ///
    /// # Errors
    /// When the port is of no more use. An interface that is down is none: it is counted, and
    /// connections live on for as long as their timers let them.
    pub fn turn(&mut self, batch: &mut Completions, timeout: Option<Duration>) -> io::Result<Wake> {
        self.check_open()?;
        self.begin(batch);
        self.now = clock::now();
        let end = timeout.map(|timeout| self.now + timeout);
        self.run(batch, end, |_| false)
    }

    /// The rest of a turn, which also ends when `done` says so.
    pub(crate) fn run(
        &mut self,
        batch: &mut Completions,
        end: Option<Instant>,
        done: impl Fn(&Channel) -> bool,
    ) -> io::Result<Wake> {
        self.transmit()?;
        loop {
            self.attend();
            let received = self.receive(|_| clock::now())?;
            self.gather(batch);
            if !batch.is_empty() || done(self) {
                self.last_work = self.now;
                self.counters.turns += 1;
                self.counters.completions += batch.len() as u64;
                return Ok(Wake::Work);
            }
            if self.stack.wants_transmit() || self.stalled {
                self.transmit()?;
            }
            if self.bell.answer() {
                return Ok(Wake::Bell);
            }
            if received == 0 {
                if self.port.exhausted() {
                    return Ok(Wake::Exhausted);
                }
                if end.is_some_and(|end| end <= self.now) {
                    return Ok(Wake::Timeout);
                }
                let wake = self.idle(end)?;
                let now = clock::now();
                self.counters.idle_nanoseconds += (now - self.now).as_nanos() as u64;
                self.now = now;
                if let Some(wake) = wake {
                    return Ok(wake);
                }
                // A turn may be long, and without frames it would never end.
                self.stack.arena_mut().collect_held();
                continue;
            }
            self.last_work = self.now;
        }
    }

    /// One turn at the time `now`, without any waiting and without a look at the clock: for a
    /// program that has a loop of its own, and for simulations. Returns whether anything was
    /// received or is to be told.
    ///
    /// # Errors
    /// As [`Channel::turn`].
    pub fn poll(&mut self, batch: &mut Completions, now: Instant) -> io::Result<bool> {
        self.check_open()?;
        self.begin(batch);
        self.now = self.now.max(now);
        self.attend();
        self.transmit()?;
        let received = self.receive(|now| now)?;
        self.gather(batch);
        self.transmit()?;
        Ok(received > 0 || !batch.is_empty())
    }

    /// When [`Channel::poll`] has something to do although nothing arrives and nothing is written.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.resumed.is_empty() {
            true => [self.stack.next_deadline(), self.retry(), self.watched.due()]
                .into_iter()
                .flatten()
                .min(),
            false => Some(self.now),
        }
    }

    pub(crate) fn check_open(&self) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the channel is closed"));
        }
        self.check_process()
    }

    /// Whether this process may use the channel.
    ///
    /// # Errors
    /// `PermissionDenied` in a child that fork(2) made.
    #[inline]
    pub fn check_process(&self) -> io::Result<()> {
        if self.owner.is_here() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the channel is this process's parent's, from which fork(2) copied it; open one here",
        ))
    }

    /// Lets go of what the last turn brought.
    pub(crate) fn begin(&mut self, batch: &mut Completions) {
        batch.clear();
        self.turn = self.turn.wrapping_add(1);
        for &frame in &self.frames {
            self.stack.arena_mut().release(frame, Owners::RECEIVED);
        }
        self.frames.clear();
        self.sources.clear();
        self.stack.arena_mut().collect_held();
        for index in 0..self.ended.len() {
            self.let_go(self.ended[index]);
        }
        self.ended.clear();
    }

    /// Takes what has arrived and runs the timers. `look` gives the time when packets were there:
    /// what was read before them may be older than they are, by all that sending took and by all
    /// that this thread was not run, and a round trip that ends before it began to is a wrong one.
    fn receive(&mut self, look: impl Fn(Instant) -> Instant) -> io::Result<usize> {
        let mut received = 0;
        for _ in 0..BURSTS {
            let count = match self.port.rx(self.now, self.stack.arena_mut(), &mut self.rx) {
                Ok(0) => 0,
                Ok(count) => {
                    self.link_down = false;
                    count
                }
                Err(error) if error.kind() == io::ErrorKind::NetworkDown => {
                    self.link_is_down();
                    0
                }
                Err(error) => return Err(error),
            };
            if count == 0 {
                // Nothing waits: the stack is to know it.
                self.stack.receive(self.now, &mut self.rx);
                break;
            }
            self.now = look(self.now);
            let full = self.rx.is_full();
            if !self.watched.taps.is_empty() {
                self.show_received();
            }
            self.stack.receive(self.now, &mut self.rx);
            received += count;
            if !full {
                break;
            }
        }
        if received > 0 {
            self.watched.note();
        }
        self.stack.advance(self.now);
        self.tell_port()?;
        Ok(received)
    }

    /// Sends all there is to send, as far as the port has room.
    pub(crate) fn transmit(&mut self) -> io::Result<()> {
        let mut called = false;
        self.stalled = false;
        loop {
            self.stack.transmit(self.now, &mut self.tx);
            if self.tx.is_empty() {
                break;
            }
            called = true;
            if !self.watched.taps.is_empty() {
                self.show_sent();
            }
            let taken = self.port.tx(self.now, self.stack.arena_mut(), &mut self.tx);
            self.watched.shown = self.tx.len();
            match taken {
                Ok(0) => {}
                Ok(_) => self.link_down = false,
                Err(error) if error.kind() == io::ErrorKind::NetworkDown => {
                    self.link_is_down();
                    self.drop_unsent();
                    continue;
                }
                Err(error) => return Err(error),
            }
            if !self.tx.is_empty() {
                self.stalled = true;
                self.counters.transmit_stalls += 1;
                break;
            }
            if !self.stack.wants_transmit() {
                break;
            }
        }
        if called {
            self.watched.note();
        } else if self.port.capabilities().tx_in_flight {
            // Takes back the frames whose transmission has ended.
            match self.port.tx(self.now, self.stack.arena_mut(), &mut self.tx) {
                Err(error) if error.kind() != io::ErrorKind::NetworkDown => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// It counts as down until a packet passes: not every port tells when it is up again.
    fn link_is_down(&mut self) {
        self.counters.link_downs += u64::from(!self.link_down);
        self.link_down = true;
    }

    /// Gives up the packets that a dead link does not take; what must arrive is sent again.
    pub(crate) fn drop_unsent(&mut self) {
        for index in 0..self.tx.len() {
            let packet = self.tx[index];
            self.stack.arena_mut().transmitted(&packet);
        }
        self.counters.drop_link_down += self.tx.len() as u64;
        self.tx.clear();
        self.watched.shown = 0;
    }

    /// Turns what the stack has to tell into completions.
    fn gather(&mut self, batch: &mut Completions) {
        if !self.resumed.is_empty() {
            self.tell_resumed(batch);
        }
        while let Some(event) = self.stack.next_event() {
            match event {
                Event::Connection(id, ready) => self.connection_event(id, ready, batch),
                Event::Accept(listener) => {
                    while let Ok(Some(id)) = self.stack.accept(listener) {
                        self.adopt(id);
                        let mut done = self.completion(Kind::Accepted, Handle::connection(id));
                        done.listener = Some(Handle::listener(listener));
                        batch.push(done);
                    }
                }
                Event::Datagram(socket) => self.datagrams(socket, batch),
            }
        }
        if !self.starved.is_empty() {
            self.feed_starved(batch);
        }
    }

    /// Takes a new connection into the table.
    pub(crate) fn adopt(&mut self, id: ConnectionId) {
        self.slots[id.index()] = Slot { id: Some(id), extra: NO_EXTRA };
    }

    #[inline]
    pub(crate) fn completion(&self, kind: Kind, handle: Handle) -> Completion {
        Completion {
            kind,
            handle,
            listener: None,
            errno: 0,
            bytes: 0,
            first: self.frames.len() as u32,
            count: 0,
            source: 0,
            turn: self.turn,
        }
    }

    #[inline]
    fn connection_event(&mut self, id: ConnectionId, ready: Ready, batch: &mut Completions) {
        let handle = Handle::connection(id);
        if ready.has(Ready::CONNECTED) && self.slots[id.index()].id == Some(id) {
            batch.push(self.completion(Kind::Connected, handle));
        }
        let mut ready = match self.slots[id.index()].extra {
            NO_EXTRA => ready,
            _ => self.special_event(id, ready, batch),
        };
        if ready.has(Ready::READABLE) && !self.read(id, batch) {
            self.keep_reading(id, &mut ready);
        }
        if ready.has(Ready::FINISHED) {
            batch.push(self.completion(Kind::Finished, handle));
        }
        if ready.has(Ready::WRITABLE) {
            batch.push(self.completion(Kind::Writable, handle));
        }
        if ready.has(Ready::CLOSED) {
            self.tell_closed(id, batch);
        }
    }

    /// Tells what has come, as far as the turn's budget reaches. Returns whether that was all.
    #[inline]
    pub(crate) fn read(&mut self, id: ConnectionId, batch: &mut Completions) -> bool {
        let mut done = self.completion(Kind::Read, Handle::connection(id));
        let mut all = false;
        while done.bytes < self.read_budget {
            let Ok(Some(frame)) = self.stack.read(id) else {
                all = true;
                break;
            };
            done.bytes += u32::from(self.stack.arena().meta(frame).len);
            self.frames.push(frame);
        }
        done.count = self.frames.len() as u32 - done.first;
        if done.count > 0 {
            batch.push(done);
        }
        all
    }

    pub(crate) fn tell_closed(&mut self, id: ConnectionId, batch: &mut Completions) {
        let mut done = self.completion(Kind::Closed, Handle::connection(id));
        done.errno = self.stack.failure(id).ok().flatten().map_or(0, crate::operations::errno);
        batch.push(done);
        self.ended.push(id);
    }

    fn datagrams(&mut self, socket: SocketId, batch: &mut Completions) {
        while let Ok(Some(datagram)) = self.stack.receive_datagram(socket) {
            let mut done = self.completion(Kind::Datagram, Handle::datagram(socket));
            let mut frame = datagram.frame;
            while frame.is_some() {
                let meta = self.stack.arena().meta(frame);
                done.bytes += u32::from(meta.len);
                self.frames.push(frame);
                frame = meta.next;
            }
            done.count = self.frames.len() as u32 - done.first;
            done.source = self.sources.len() as u32;
            self.sources.push(datagram.source);
            batch.push(done);
        }
    }

    /// The frames of a completion of this turn; none for one of an earlier turn.
    #[inline]
    fn frames_of(&self, done: &Completion) -> &[Frame] {
        if done.turn != self.turn {
            return &[];
        }
        let first = done.first as usize;
        self.frames.get(first..first + done.frames()).unwrap_or_default()
    }

    /// The payload of a completion, frame by frame. Empty for one of an earlier turn, and for one
    /// that has none.
    #[inline]
    pub fn payload(&self, done: &Completion) -> impl ExactSizeIterator<Item = &[u8]> {
        self.frames_of(done).iter().map(|&frame| self.stack.arena().bytes(frame))
    }

    /// Sets one frame of a completion's payload aside, so that it outlives the turn. Its bytes stay
    /// as they are until the reader is dropped, in whatever thread. `None` when somebody holds that
    /// frame already, or the turn is over.
    ///
    /// Held frames are missing elsewhere: with few left ([`Channel::free_frames`]), copy.
    #[inline]
    pub fn hold(&mut self, done: &Completion, frame: usize) -> Option<Held> {
        let frame = *self.frames_of(done).get(frame)?;
        let meta = self.stack.arena().meta(frame);
        let (start, len) = (usize::from(meta.offset), usize::from(meta.len));
        self.stack.arena_mut().hold(frame, start, len)
    }

    /// Who sent a datagram.
    pub fn source(&self, done: &Completion) -> Option<SocketAddr> {
        let current = done.kind == Kind::Datagram && done.turn == self.turn;
        current.then(|| self.sources.get(done.source as usize).copied()).flatten()
    }

    /// Whether a completion belongs to the turn that is going on.
    #[inline]
    pub fn is_current(&self, done: &Completion) -> bool {
        done.turn == self.turn
    }

    /// Frames that nobody uses.
    #[inline]
    pub fn free_frames(&self) -> usize {
        self.stack.arena().free()
    }

    /// All frames.
    #[inline]
    pub fn total_frames(&self) -> usize {
        self.stack.arena().frames()
    }

    /// Most connections at a time; [`Handle::index`] is below it.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Connections that the stack has, in any state, TIME-WAIT included.
    pub fn connections(&self) -> usize {
        self.stack.connections()
    }

    /// Wakes this channel from another thread.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// What to do while there is nothing to do.
    pub fn wait(&self) -> Wait {
        self.wait
    }

    /// Changes what to do while there is nothing to do.
    ///
    /// # Errors
    /// `NotConnected` when the channel is closed.
    pub fn set_wait(&mut self, wait: Wait) -> io::Result<()> {
        self.check_open()?;
        self.wait = wait;
        Ok(())
    }

    /// What the port is and can do.
    pub fn port(&self) -> &Capabilities {
        self.port.capabilities()
    }

    /// What the port has counted.
    pub fn statistics(&mut self) -> Statistics {
        self.port.statistics()
    }

    /// What the channel has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether [`Channel::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bytes that a connection may have waiting and still take more.
    pub fn write_queue(&self) -> usize {
        self.write_queue
    }

    /// The stack, to look at.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Forgets a connection whose end was told.
    fn let_go(&mut self, id: ConnectionId) {
        if self.slots[id.index()].id == Some(id) {
            self.drop_slot(id);
            self.stack.release(id);
        }
    }

    pub(crate) fn drop_slot(&mut self, id: ConnectionId) {
        let slot = &mut self.slots[id.index()];
        slot.id = None;
        if slot.extra != NO_EXTRA {
            self.drop_extra(id);
        }
    }

    /// The stack's id of a handle that is open.
    #[inline]
    pub(crate) fn live(&self, handle: Handle) -> io::Result<ConnectionId> {
        match handle.0 {
            Inner::Connection(id)
                if self.slots.get(id.index()).is_some_and(|s| s.id == Some(id)) =>
            {
                Ok(id)
            }
            Inner::Connection(_) => {
                Err(io::Error::new(io::ErrorKind::NotConnected, "the connection is closed"))
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a {} is no connection", handle.what()),
            )),
        }
    }
}
