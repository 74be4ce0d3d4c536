//! The stack, its sockets, its clock, and the packets that leave it.

use core::time::Duration;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;

use millrace_frames::{
    Arena, ArenaConfig, Frame, Hugepages, Instant, Owners, RxBatch, Transmit, TxBatch,
};
use millrace_stack::{Config, ConnectionId, Event, InterfaceAddress, ListenerId, Ready, Stack};

use crate::descriptor::{Descriptors, Object};
use crate::errno::{Errno, Result};
use crate::flags::Flags;
use crate::poll;
use crate::route::Route;
use crate::shared::Blocked;
use crate::socket::{Kind, Socket};
use crate::sysctl::Sysctl;
use crate::wire::{self, Leaving};

/// The clock starts here, far enough from zero for everything that looks back.
const EPOCH: Duration = Duration::from_secs(1_000_000);

/// Frames of the stack: 16 MiB, all of which packetdrill pins.
const FRAMES: u32 = 8192;

/// Everything that a script acts on.
pub(crate) struct World {
    pub(crate) flags: Flags,
    /// Made when it is first needed, after the script's settings.
    stack: Option<Stack>,
    pub(crate) sysctl: Sysctl,
    pub(crate) route: Route,
    /// The address whose route that is.
    pub(crate) remote: Option<IpAddr>,
    /// Packets can leave.
    pub(crate) wire_takes: bool,
    pub(crate) now: Instant,
    pub(crate) descriptors: Descriptors,
    /// Packets that left, and when.
    pub(crate) leaving: VecDeque<(Instant, Vec<u8>)>,
    pub(crate) blocked: Option<Blocked>,
    /// The thread whose call has ended and that has not yet read the clock.
    pub(crate) returning: Option<i32>,
    /// The thread that has read it and is about to take note of the result.
    pub(crate) settling: Option<i32>,
    /// The last call read the clock.
    pub(crate) clock_read: bool,
}

impl World {
    pub(crate) fn new(flags: Flags) -> World {
        World {
            flags,
            stack: None,
            sysctl: Sysctl::default(),
            route: Route::default(),
            remote: None,
            wire_takes: true,
            now: Instant::ZERO + EPOCH,
            descriptors: Descriptors::default(),
            leaving: VecDeque::new(),
            blocked: None,
            returning: None,
            settling: None,
            clock_read: false,
        }
    }

    /// The stack. It is made by the first call that needs one: `local` is an address that it must
    /// have, `remote` one that the script talks to.
    ///
    /// # Errors
    /// `EINVAL`, with the reason on the standard error, when the settings make no stack.
    pub(crate) fn stack_for(
        &mut self,
        local: Option<IpAddr>,
        remote: Option<IpAddr>,
    ) -> Result<&mut Stack> {
        if self.stack.is_none() {
            let stack = self.make_stack(local, remote).map_err(|reason| {
                eprintln!("millrace: cannot make a stack: {reason}");
                Errno(libc::EINVAL)
            })?;
            self.stack = Some(stack);
            self.follow_route();
        }
        self.stack.as_mut().ok_or(Errno(libc::EINVAL))
    }

    /// The stack that a socket in use already has.
    pub(crate) fn stack(&mut self) -> Result<&mut Stack> {
        self.stack_for(None, None)
    }

    /// A socket and the stack, both to be changed.
    pub(crate) fn parts(&mut self, number: i32) -> Result<(&mut Stack, &mut Socket)> {
        self.stack()?;
        let World { stack: Some(stack), descriptors, .. } = self else {
            return Err(Errno(libc::EINVAL));
        };
        Ok((stack, descriptors.socket_mut(number)?))
    }

    /// The stack if there is one.
    pub(crate) fn stack_ref(&self) -> Option<&Stack> {
        self.stack.as_ref()
    }

    fn make_stack(
        &mut self,
        local: Option<IpAddr>,
        remote: Option<IpAddr>,
    ) -> core::result::Result<Stack, String> {
        self.sysctl = Sysctl::read(Path::new(&self.flags.sysctl))?;
        self.remote = self.flags.remote.or(remote);
        if let Some(remote) = self.remote {
            self.route = Route::ask(remote);
        }
        let mut config = Config {
            mac: wire::STACK,
            mtu: self.flags.mtu,
            seed: [self.flags.seed, 2, 3, 4],
            connections: 1024,
            time_wait_connections: 512,
            frame_reserve: 64,
            // The wire answers at once and for everybody.
            neighbour_reachable: Duration::from_secs(1_000_000),
            ..Config::default()
        };
        // Addresses are given and nobody else has them; there are no routers to listen to.
        config.ipv6.dad_transmits = 0;
        config.ipv6.link_local = false;
        config.ipv6.slaac = false;
        let mut addresses = self.flags.local.clone();
        addresses.extend(self.route.source);
        addresses.extend(local.filter(|address| !address.is_unspecified()));
        for address in addresses {
            // Everything is on this link, as behind a tun device without a gateway.
            let own = InterfaceAddress { address, prefix: 0 };
            if !config.addresses.contains(&own) {
                config.addresses.push(own);
            }
        }
        // Linux paces only what asks for it, such as BBR, or what goes through the qdisc fq, and
        // has no RTO restart.
        config.tcp.pacing = false;
        config.tcp.rto_restart = false;
        self.sysctl.configure(&mut config);
        self.route.configure(&mut config);
        let arena = Arena::new(ArenaConfig {
            frames: FRAMES,
            frame_size: 2048,
            hugepages: Hugepages::Never,
        })
        .map_err(|error| error.to_string())?;
        Stack::new(config, arena, self.now).map_err(|error| error.to_string())
    }

    /// Tells the stack what the route says of the path.
    pub(crate) fn follow_route(&mut self) {
        let (Some(remote), Some(stack)) = (self.remote, &mut self.stack) else { return };
        if let Err(error) = stack.set_path_mtu(remote, self.route.mtu) {
            eprintln!("millrace: the route to {remote} makes no sense to the stack: {error}");
        }
    }

    /// Reads the settings again, for what applies to sockets that are made or opened from now on.
    ///
    /// # Errors
    /// `EINVAL`, with the reason on the standard error, when one makes no sense.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.sysctl = Sysctl::read(Path::new(&self.flags.sysctl)).map_err(|reason| {
            eprintln!("millrace: {reason}");
            Errno(libc::EINVAL)
        })?;
        if let Some(stack) = &mut self.stack {
            let mut config = stack.config().clone();
            self.sysctl.configure(&mut config);
            stack.set_tcp_features(config.tcp);
            stack.set_ecn(config.ecn);
            stack.set_fast_open_modes(config.fast_open);
        }
        Ok(())
    }

    /// Takes one packet from the network.
    ///
    /// # Errors
    /// `EINVAL` for what is not IP.
    pub(crate) fn inject(&mut self, packet: &[u8]) -> Result<()> {
        let destination = match packet.first().map(|byte| byte >> 4) {
            Some(4) => packet
                .get(16..20)
                .and_then(|bytes| bytes.first_chunk::<4>())
                .map(|bytes| IpAddr::from(*bytes)),
            _ => packet
                .get(24..40)
                .and_then(|bytes| bytes.first_chunk::<16>())
                .map(|bytes| IpAddr::from(*bytes)),
        };
        self.trace("<", packet);
        let frame = wire::wrap(packet).ok_or(Errno(libc::EINVAL))?;
        self.stack_for(destination, None)?;
        self.receive(&frame)
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<()> {
        let (now, mss) = (self.now, self.flags.mss);
        let stack = self.stack()?;
        let frame = chain(stack.arena_mut(), bytes).ok_or(Errno(libc::ENOBUFS))?;
        if mss > 0 && wire::payload_len(bytes).is_some_and(|len| len > mss.into()) {
            stack.arena_mut().meta_mut(frame).gso_size = mss;
        }
        let mut batch = RxBatch::new();
        if batch.push(frame).is_err() {
            return Err(Errno(libc::ENOBUFS));
        }
        stack.receive(now, &mut batch);
        Ok(())
    }

    /// Lets everything happen that is due now, until nothing more does.
    pub(crate) fn settle(&mut self) {
        while self.collect_events() | self.try_blocked() | self.transmit() | self.report() {}
    }

    fn collect_events(&mut self) -> bool {
        let now = self.now;
        let Some(stack) = &mut self.stack else { return false };
        stack.advance(now);
        let mut some = false;
        while let Some(event) = self.stack.as_mut().and_then(Stack::next_event) {
            some = true;
            match event {
                Event::Accept(listener) => self.note_accept(listener),
                Event::Connection(id, ready) => self.note_ready(id, ready),
                Event::Datagram(_) => {}
            }
        }
        some
    }

    fn note_accept(&mut self, listener: ListenerId) {
        let found = self.descriptors.iter_mut().find_map(|(number, object)| match object {
            Object::Socket(socket) => match &mut socket.kind {
                Kind::Listener { id, acceptable, .. } if *id == listener => {
                    *acceptable = true;
                    Some(number)
                }
                _ => None,
            },
            _ => None,
        });
        if let Some(number) = found {
            self.note_edge(number, libc::EPOLLIN as u32);
        }
    }

    fn note_ready(&mut self, wanted: ConnectionId, ready: Ready) {
        let found = self.descriptors.iter_mut().find_map(|(number, object)| match object {
            Object::Socket(socket) => match &mut socket.kind {
                Kind::Stream(stream) if stream.id == wanted => {
                    stream.connected |= ready.has(Ready::CONNECTED);
                    Some(number)
                }
                _ => None,
            },
            _ => None,
        });
        if let Some(number) = found {
            self.note_edge(number, poll::edges(ready));
        }
    }

    fn note_edge(&mut self, number: i32, events: u32) {
        for (_, object) in self.descriptors.iter_mut() {
            if let Object::Epoll(epoll) = object {
                epoll.note(number, events);
            }
        }
    }

    fn try_blocked(&mut self) -> bool {
        let Some(mut blocked) = self.blocked.take() else { return false };
        if blocked.result.is_none() {
            let last = blocked.deadline.is_some_and(|deadline| deadline <= self.now);
            blocked.result = (blocked.attempt)(self, last);
            let done = blocked.result.is_some();
            self.blocked = Some(blocked);
            return done;
        }
        self.blocked = Some(blocked);
        false
    }

    /// Takes what the stack sends.
    pub(crate) fn transmit(&mut self) -> bool {
        if !self.wire_takes {
            return false;
        }
        let now = self.now;
        let mut moved = false;
        let mut batch = TxBatch::new();
        let mut answers = Vec::new();
        let Some(stack) = &mut self.stack else { return false };
        let mut left = Vec::new();
        while stack.transmit(now, &mut batch) > 0 {
            moved = true;
            for packet in batch.iter() {
                match wire::unwrap(&gather(stack.arena(), packet)) {
                    Leaving::Packet(bytes) => left.push(bytes),
                    Leaving::Answer(bytes) => answers.push(bytes),
                    Leaving::Nothing => {}
                }
                stack.arena_mut().transmitted(packet);
            }
            batch.clear();
        }
        for bytes in left {
            self.trace(">", &bytes);
            self.leaving.push_back((now, bytes));
        }
        for bytes in answers {
            // A wire may lose what finds no frame; the stack asks again.
            let _ = self.receive(&bytes);
        }
        moved
    }

    /// Fills error queues, and tells who waits for room.
    fn report(&mut self) -> bool {
        let World { stack: Some(stack), descriptors, sysctl, now, .. } = self else {
            return false;
        };
        let mut some = Vec::new();
        for (number, object) in descriptors.iter_mut() {
            if let Object::Socket(socket) = object
                && let Kind::Stream(stream) = &mut socket.kind
                && let Ok(info) = stack.tcp_info(stream.id)
            {
                let progress = stream.progress(stack);
                if socket.errors.progress(progress.sent, progress.acknowledged, *now) {
                    some.push((number, libc::EPOLLERR as u32));
                }
                if stream.buffer.freed(&socket.options.limits(sysctl), &info, progress) {
                    some.push((number, libc::EPOLLOUT as u32));
                    // The entry was looked at just now.
                    let _ = stack.set_withheld(stream.id, false);
                }
            }
        }
        for &(number, edge) in &some {
            self.note_edge(number, edge);
        }
        !some.is_empty()
    }

    /// When something happens next on its own.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        let timer = self.stack.as_ref().and_then(Stack::next_deadline);
        let waiting = self.blocked.as_ref().and_then(|blocked| blocked.deadline);
        [timer, waiting].into_iter().flatten().min()
    }

    /// One line about a packet, if asked for.
    fn trace(&self, direction: &str, packet: &[u8]) {
        if self.flags.trace {
            eprintln!("{:>12} {direction} {packet:02x?}", self.now.as_micros());
        }
    }
}

/// A frame, or a chain of them, that holds `bytes`, as a port hands it over.
fn chain(arena: &mut Arena, bytes: &[u8]) -> Option<Frame> {
    // IP headers begin at a multiple of four.
    const START: usize = 2;
    let size = arena.frame_size() - START;
    let mut head = Frame::NONE;
    let mut last = Frame::NONE;
    for chunk in bytes.chunks(size) {
        let Some(frame) = arena.allocate(Owners::RECEIVED) else {
            arena.release_chain(head, Owners::RECEIVED);
            return None;
        };
        arena.room_mut(frame)[START..START + chunk.len()].copy_from_slice(chunk);
        let meta = arena.meta_mut(frame);
        meta.next = Frame::NONE;
        meta.offset = START as u16;
        meta.len = chunk.len() as u16;
        if last.is_some() {
            arena.meta_mut(last).next = frame;
        } else {
            head = frame;
        }
        last = frame;
    }
    arena.meta_mut(head.get()?).total = bytes.len() as u32;
    Some(head)
}

/// The bytes of a packet.
fn gather(arena: &Arena, packet: &Transmit) -> Vec<u8> {
    let start = usize::from(packet.offset);
    let mut bytes = arena.room(packet.head)[start..start + usize::from(packet.len)].to_vec();
    let mut frame = packet.head;
    for _ in 1..packet.frames {
        frame = arena.meta(frame).next;
        bytes.extend_from_slice(arena.bytes(frame));
    }
    bytes
}
