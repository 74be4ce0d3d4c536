//! Two stacks over a bad wire, many seeds: whatever the wire does, every byte arrives once and in
//! order or the connection says that it failed; both sides end; nothing is left behind.
//!
//! `MILLRACE_SEEDS=5000 cargo test -p millrace-stack --test simulation` runs more of them, and
//! `MILLRACE_SEED=17` one. A failure names its seed.

mod common;

use common::net::Net;
use millrace_frames::{Duration, Instant};
use millrace_port::memory::{Impairment, WireConfig};
use millrace_stack::{ConnectionId, Event, Failure, ListenerId, Ready, State};

/// SplitMix64: enough for dice, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn from<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How the application of one side behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Writes all, shuts its side, reads to the end, closes.
    Polite,
    /// Writes all and closes without reading to the end.
    Hasty,
    /// Resets the connection after so many bytes in both directions together.
    Rude(usize),
}

#[derive(Debug)]
struct Side {
    host: usize,
    stream: usize,
    manner: Manner,
    /// Acts only on what the stack tells; else it looks whenever it likes.
    by_events: bool,
    id: Option<ConnectionId>,
    connected: bool,
    total: usize,
    written: usize,
    received: usize,
    shut: bool,
    finished: bool,
    failure: Option<Failure>,
    ended: bool,
    readable: bool,
    writable: bool,
    quiet_since: Instant,
}

/// The byte at `offset` of a stream.
fn byte(stream: usize, offset: usize) -> u8 {
    (offset.wrapping_mul(0x9e37_79b1).wrapping_add(stream * 0x51_7cc1) >> 11) as u8
}

impl Side {
    fn new(host: usize, stream: usize, dice: &mut Dice) -> Side {
        let total = match dice.below(4) {
            0 => 0,
            1 => dice.below(2_000) as usize,
            _ => dice.below(150_000) as usize,
        };
        let manner = match dice.below(8) {
            0 => Manner::Hasty,
            1 => Manner::Rude(dice.below(100_000) as usize),
            _ => Manner::Polite,
        };
        Side {
            host,
            stream,
            manner,
            by_events: dice.chance(50),
            id: None,
            connected: false,
            total,
            written: 0,
            received: 0,
            shut: false,
            finished: false,
            failure: None,
            ended: false,
            readable: false,
            writable: false,
            quiet_since: Instant::ZERO,
        }
    }

    fn hear(&mut self, net: &mut Net, ready: Ready) {
        let Some(id) = self.id else { return };
        let stack = &mut net.hosts[self.host].stack;
        if ready.has(Ready::CONNECTED) {
            self.connected = true;
            self.writable = true;
        }
        self.readable |= ready.has(Ready::READABLE);
        self.writable |= ready.has(Ready::WRITABLE);
        if ready.has(Ready::FINISHED) {
            assert!(stack.finished(id).unwrap(), "told FINISHED before the end: {self:?}");
            self.readable = true;
        }
        if ready.has(Ready::CLOSED) {
            assert!(
                matches!(stack.info(id).unwrap().state, State::Closed | State::TimeWait),
                "told CLOSED too early: {self:?}"
            );
            self.failure = stack.failure(id).unwrap();
            self.readable = true;
            self.take(net, usize::MAX);
            if self.manner == Manner::Polite && self.failure.is_none() {
                assert!(self.finished, "closed in order without the end: {self:?}");
            }
            net.hosts[self.host].stack.release(id);
            self.id = None;
            self.ended = true;
        }
    }

    /// Reads at most `frames` frames.
    fn take(&mut self, net: &mut Net, frames: usize) {
        let Some(id) = self.id else { return };
        let host = &mut net.hosts[self.host];
        for _ in 0..frames {
            let Some(frame) = host.stack.read(id).unwrap() else {
                self.readable = false;
                break;
            };
            for &got in host.stack.arena().bytes(frame) {
                let wanted = byte(self.stream ^ 1, self.received);
                assert_eq!(got, wanted, "byte {} of {self:?}", self.received);
                self.received += 1;
            }
            host.stack.arena_mut().release(frame, millrace_frames::Owners::RECEIVED);
        }
        if host.stack.finished(id).unwrap() && host.stack.info(id).unwrap().receive_queue == 0 {
            self.finished = true;
        }
    }

    /// Writes up to `most` bytes. Returns whether the stack took all it was offered.
    fn put(&mut self, net: &mut Net, most: usize) {
        let Some(id) = self.id else { return };
        let end = self.total.min(self.written + most);
        let data: Vec<u8> = (self.written..end).map(|at| byte(self.stream, at)).collect();
        match net.hosts[self.host].stack.write(id, &data) {
            Ok(taken) => {
                self.written += taken;
                self.writable = taken == data.len();
            }
            // It ended under us; CLOSED says how.
            Err(_) => self.writable = false,
        }
    }

    /// One turn of the application.
    fn act(&mut self, net: &mut Net, dice: &mut Dice) {
        let Some(id) = self.id else { return };
        if let Manner::Rude(after) = self.manner
            && self.written + self.received >= after
            && self.connected
        {
            net.hosts[self.host].stack.abort(id);
            net.hosts[self.host].stack.release(id);
            self.id = None;
            self.ended = true;
            return;
        }
        if !self.connected {
            return;
        }
        if self.by_events {
            if self.readable {
                self.take(net, usize::MAX);
            }
            while self.writable && self.written < self.total {
                self.put(net, 20_000);
            }
        } else {
            if dice.chance(60) {
                self.take(net, dice.below(20) as usize);
            }
            if dice.chance(60) && self.written < self.total {
                self.put(net, 1 + dice.below(5_000) as usize);
            }
        }
        if self.written == self.total && !self.shut {
            self.shut = true;
            let stack = &mut net.hosts[self.host].stack;
            if self.manner == Manner::Hasty {
                stack.close(id);
                self.id = None;
                self.ended = true;
                return;
            }
            stack.shutdown_write(id).unwrap();
        }
        if self.shut && self.finished {
            net.hosts[self.host].stack.close(id);
            self.id = None;
            self.ended = true;
        }
    }
}

struct Pair {
    sides: [Side; 2],
    listener: Option<ListenerId>,
    port: u16,
}

fn simulate(seed: u64) {
    let dice = &mut Dice(seed.wrapping_mul(0x1234_5678_9abc_def1));
    let bad = |dice: &mut Dice| Impairment {
        loss: dice.from(&[0.0, 0.0, 0.01, 0.05, 0.2]),
        duplicate: dice.from(&[0.0, 0.0, 0.05, 0.2]),
        corrupt: dice.from(&[0.0, 0.0, 0.02]),
        delay: Duration::from_micros(dice.from(&[0, 50, 5_000, 80_000])),
        jitter: Duration::from_micros(dice.from(&[0, 0, 10_000])),
        reorder: dice.from(&[0.0, 0.0, 0.1, 0.3]),
        reorder_delay: Duration::from_micros(dice.from(&[100, 3_000])),
        rate_bits_per_s: dice.from(&[None, None, Some(1_000_000), Some(50_000_000)]),
        queue_bytes: dice.from(&[20_000, 256 << 10]),
        ..Impairment::default()
    };
    let gso = dice.from(&[0, 0, 65_535]);
    let wire = WireConfig {
        mtu: dice.from(&[576, 1006, 1500]),
        gso,
        queue: if gso > 0 { 64 } else { 512 },
        impairment: [bad(dice), bad(dice)],
        seed: dice.roll(),
        ..WireConfig::default()
    };
    let buffers: Vec<u32> = (0..4).map(|_| dice.from(&[2_048, 5_000, 65_535, 1 << 20])).collect();
    let frames = dice.from(&[400, 4_096]);
    let mut net = Net::new(wire, frames, |index, config| {
        config.receive_buffer = buffers[index];
        config.send_buffer = buffers[2 + index];
        config.frame_reserve = 100;
        config.connections = 8;
        config.neighbour_reachable = Duration::from_secs(20);
    });
    let mut pairs: Vec<Pair> = (0..1 + dice.below(5) as usize)
        .map(|number| {
            let client = dice.below(2) as usize;
            let port = 1_000 + number as u16;
            let server = 1 - client;
            let local = net.address(server, port);
            let listener = net.hosts[server].stack.listen(local, 4).unwrap();
            let mut sides = [client, server]
                .map(|host| Side::new(host, number * 2 + (host != client) as usize, dice));
            sides[0].id = Some(net.hosts[client].stack.connect(local, None).unwrap());
            let no_delay = dice.chance(50);
            net.hosts[client].stack.set_no_delay(sides[0].id.unwrap(), no_delay).unwrap();
            Pair { sides, listener: Some(listener), port }
        })
        .collect();

    let end = net.now + Duration::from_secs(12 * 3600);
    let mut steps = 0u64;
    loop {
        steps += 1;
        assert!(steps < 3_000_000, "no end in sight: {:?}", net.now);
        while net.turn() {}
        for host in 0..2 {
            for event in net.hosts[host].events() {
                dispatch(&mut net, &mut pairs, host, event);
            }
        }
        for pair in &mut pairs {
            for side in &mut pair.sides {
                side.act(&mut net, dice);
            }
            impatience(&mut net, pair);
        }
        while net.turn() {}
        let over = pairs.iter().all(|pair| pair.sides.iter().all(|side| side.ended));
        if over && net.hosts.iter().all(|host| host.stack.connections() == 0) {
            break;
        }
        let polling = pairs
            .iter()
            .flat_map(|pair| &pair.sides)
            .any(|side| side.id.is_some() && side.connected && !side.by_events);
        let tick = polling.then(|| net.now + Duration::from_micros(1 + dice.below(40_000)));
        let next = net.next_time().into_iter().chain(tick).min();
        match next {
            Some(next) => net.now = net.now.max(next),
            None => {
                // Nothing will ever happen by itself: only somebody who waits for a peer that is
                // gone may be left.
                net.now += Duration::from_secs(600);
            }
        }
        assert!(net.now < end, "still going on after 12 hours: {:#?}", sides(&pairs));
    }
    for pair in &mut pairs {
        verdict(pair);
        if let Some(listener) = pair.listener.take() {
            let server = pair.sides[1].host;
            net.hosts[server].stack.close_listener(listener);
        }
    }
    while net.turn() {}
    while let Some(next) = net.next_time() {
        net.now = next.max(net.now);
        while net.turn() {}
    }
    net.assert_clean();
}

fn sides(pairs: &[Pair]) -> Vec<&Side> {
    pairs.iter().flat_map(|pair| &pair.sides).filter(|side| !side.ended).collect()
}

fn dispatch(net: &mut Net, pairs: &mut [Pair], host: usize, event: Event) {
    match event {
        Event::Accept(listener) => {
            let pair = pairs
                .iter_mut()
                .find(|pair| pair.listener == Some(listener) && pair.sides[1].host == host)
                .expect("an event about a listener of ours");
            let Some(id) = net.hosts[host].stack.accept(listener).unwrap() else { return };
            assert_eq!(net.hosts[host].stack.info(id).unwrap().local.port(), pair.port);
            let side = &mut pair.sides[1];
            if side.id.is_some() || side.ended {
                // A SYN that came twice, long after the first was over.
                net.hosts[host].stack.abort(id);
                net.hosts[host].stack.release(id);
                return;
            }
            side.id = Some(id);
            side.hear(net, Ready::CONNECTED);
        }
        Event::Connection(id, ready) => {
            let side = pairs
                .iter_mut()
                .flat_map(|pair| &mut pair.sides)
                .find(|side| side.host == host && side.id == Some(id));
            match side {
                Some(side) => side.hear(net, ready),
                None => panic!("event {ready:?} about a connection that was let go of"),
            }
        }
        Event::Datagram(_) => panic!("no datagrams here"),
    }
}

/// TCP has no way to notice that a silent peer is gone; an application's own timeout has.
fn impatience(net: &mut Net, pair: &mut Pair) {
    for one in 0..2 {
        let other_ended = pair.sides[1 - one].ended;
        let never_came = one == 1 && pair.sides[1].id.is_none();
        let side = &mut pair.sides[one];
        if side.ended || !other_ended {
            side.quiet_since = net.now;
            continue;
        }
        if net.now - side.quiet_since > Duration::from_secs(2 * 3600) {
            if let Some(id) = side.id.take() {
                // Whoever still has something to say must have been told by now.
                let info = net.hosts[side.host].stack.info(id).unwrap();
                assert_eq!(info.send_queue, 0, "unanswered data for two hours: {info:?} {side:?}");
                let polite = pair.sides[1 - one].manner == Manner::Polite
                    && pair.sides[1 - one].failure.is_none();
                assert!(!polite, "hangs though the peer ended in order: {:?} {info:?}", pair.sides);
                net.hosts[pair.sides[one].host].stack.abort(id);
                net.hosts[pair.sides[one].host].stack.release(id);
            }
            let side = &mut pair.sides[one];
            side.ended = true;
            side.failure = Some(Failure::TimedOut);
        } else if never_came && net.now - side.quiet_since > Duration::from_secs(600) {
            side.ended = true;
        }
    }
}

fn verdict(pair: &Pair) {
    let [client, server] = &pair.sides;
    for (side, other) in [(client, server), (server, client)] {
        assert!(side.received <= other.written, "more than was written: {pair:?}");
        if side.finished {
            assert_eq!(side.received, other.total, "FIN before the end: {pair:?}");
        } else if side.manner == Manner::Polite
            && other.manner == Manner::Polite
            && side.failure.is_none()
        {
            assert!(side.id.is_none() && !side.connected, "no end and no failure: {pair:?}");
        }
    }
}

impl core::fmt::Debug for Pair {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(&self.sides).finish()
    }
}

#[test]
fn every_byte_arrives_or_the_connection_says_that_it_failed() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seeds: Vec<u64> = match number("MILLRACE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("MILLRACE_SEEDS").unwrap_or(300)).collect(),
    };
    for seed in seeds {
        if std::env::var_os("MILLRACE_VERBOSE").is_some() {
            eprintln!("seed {seed}");
        }
        let result = std::panic::catch_unwind(|| simulate(seed));
        if let Err(panic) = result {
            eprintln!("this was seed {seed}: run it alone with MILLRACE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
