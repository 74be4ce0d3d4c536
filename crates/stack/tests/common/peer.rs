//! The other side of one stack, played by hand: every segment to it is written by the test, and
//! every segment from it is looked at. Time goes on only when the test says so.
//!
//! Sequence numbers are relative, as in packetdrill: what the peer sends counts from its own SYN
//! (0), and what it acknowledges counts from the stack's.

use std::collections::VecDeque;

use core::net::SocketAddr;
use millrace_frames::{
    BURST, ChecksumState, Duration, Frame, Instant, Owners, RxBatch, Transmit, TxBatch,
};
use millrace_stack::{Config, ConnectionId, Event, ListenerId, Ready, SocketId, Stack, State};
use millrace_wire::arp::Operation;
use millrace_wire::mac::Mac;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{Flags, OptionWriter};

use super::craft::{self, PEER_IP, PEER_MAC, Packet, STACK_IP, Segment, TcpSegment};

pub const SYN: Flags = Flags::SYN;
pub const ACK: Flags = Flags::ACK;
pub const FIN: Flags = Flags::FIN;
pub const RST: Flags = Flags::RST;
pub const PSH: Flags = Flags::PSH;
pub const URG: Flags = Flags::URG;

/// Segment size that the peer offers: round numbers are easy to follow.
pub const MSS: u16 = 1000;

/// One connection as the peer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub peer_port: u16,
    pub stack_port: u16,
    /// Our initial sequence number.
    pub isn: u32,
    /// The stack's, once its SYN was seen.
    pub iss: u32,
}

pub struct Peer {
    pub stack: Stack,
    pub now: Instant,
    /// The connection that `send` and `expect` are about.
    pub flow: Flow,
    /// What the peer announces in every segment.
    pub window: u16,
    /// Timestamp that the peer puts on its segments; it sends none before a test sets it.
    pub timestamp: Option<u32>,
    /// The stack's last timestamp, which the peer echoes.
    pub echo: u32,
    /// Whether packets stay in flight (with the port) until [`Peer::complete`].
    pub hold: bool,
    in_flight: Vec<Transmit>,
    sent: VecDeque<Packet>,
    /// Messages of multicast listener discovery, apart: every IPv6 address brings some.
    pub reports: VecDeque<super::craft6::V6>,
    frames: usize,
    connections: Vec<ConnectionId>,
    listeners: Vec<ListenerId>,
    sockets: Vec<SocketId>,
}

/// Bytes that show where they were in the stream.
pub fn pattern(start: usize, len: usize) -> Vec<u8> {
    (start..start + len).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}

impl Peer {
    /// A stack with the tests' configuration, changed by `change`, that knows the peer's hardware
    /// address already.
    pub fn with(change: impl FnOnce(&mut Config)) -> Peer {
        let mut config = super::config();
        change(&mut config);
        let mut peer = Peer::stranger(config, 2048);
        peer.introduce();
        peer
    }

    pub fn new() -> Peer {
        Peer::with(|_| {})
    }

    /// A stack that has never heard of the peer.
    pub fn stranger(config: Config, frames: u32) -> Peer {
        let now = Instant::from_millis(1_000_000);
        let stack = Stack::new(config, super::arena(frames), now).expect("a stack");
        Peer {
            stack,
            now,
            flow: Flow { peer_port: 5000, stack_port: 80, isn: 70_000, iss: 0 },
            window: 65_535,
            timestamp: None,
            echo: 0,
            hold: false,
            in_flight: Vec::new(),
            sent: VecDeque::new(),
            reports: VecDeque::new(),
            frames: frames as usize,
            connections: Vec::new(),
            listeners: Vec::new(),
            sockets: Vec::new(),
        }
    }

    /// Tells the stack our hardware address, by asking for its.
    pub fn introduce(&mut self) {
        self.inject(&craft::arp_packet(
            Operation::Request,
            (PEER_MAC, PEER_IP),
            (Mac([0; 6]), STACK_IP),
        ));
        assert!(matches!(self.next_packet(), Some(Packet::Arp { .. })));
    }

    // What goes to the stack.

    /// A frame that holds `bytes`, as a port hands it over.
    pub fn frame(&mut self, bytes: &[u8]) -> Frame {
        let arena = self.stack.arena_mut();
        let mut chunks = bytes.chunks(arena.frame_size() - 2);
        let head = arena.allocate(Owners::RECEIVED).expect("a free frame");
        let mut last = head;
        let mut chunk = chunks.next().unwrap_or(&[]);
        loop {
            arena.room_mut(last)[2..2 + chunk.len()].copy_from_slice(chunk);
            let meta = arena.meta_mut(last);
            meta.offset = 2;
            meta.len = chunk.len() as u16;
            let Some(next) = chunks.next() else { break };
            chunk = next;
            let frame = arena.allocate(Owners::RECEIVED).expect("a free frame");
            arena.meta_mut(last).next = frame;
            last = frame;
        }
        arena.meta_mut(head).total = bytes.len() as u32;
        head
    }

    /// Hands one packet to the stack and collects what it answers.
    pub fn inject(&mut self, bytes: &[u8]) {
        self.inject_with(bytes, ChecksumState::Unknown);
    }

    pub fn inject_with(&mut self, bytes: &[u8], checksum: ChecksumState) {
        let frame = self.frame(bytes);
        self.stack.arena_mut().meta_mut(frame).checksum = checksum;
        let mut batch = RxBatch::new();
        batch.push(frame).expect("room in an empty batch");
        self.stack.receive(self.now, &mut batch);
        self.collect();
    }

    /// Hands several packets to the stack in one batch.
    pub fn inject_batch(&mut self, packets: &[Vec<u8>]) {
        assert!(packets.len() <= BURST);
        let mut batch = RxBatch::new();
        for packet in packets {
            let frame = self.frame(packet);
            batch.push(frame).expect("room in the batch");
        }
        self.stack.receive(self.now, &mut batch);
        self.collect();
    }

    /// A segment of the current flow, to be changed before it is sent.
    pub fn segment<'a>(
        &self,
        flags: Flags,
        seq: u32,
        ack: u32,
        payload: &'a [u8],
    ) -> TcpSegment<'a> {
        let mut options = OptionWriter::new();
        if let Some(value) = self.timestamp {
            options.timestamps(value, if flags.contains(ACK) { self.echo } else { 0 });
        }
        TcpSegment {
            source: (PEER_IP, self.flow.peer_port),
            destination: (STACK_IP, self.flow.stack_port),
            sequence: self.flow.isn.wrapping_add(seq),
            acknowledgement: if flags.contains(ACK) { self.flow.iss.wrapping_add(ack) } else { 0 },
            flags,
            window: self.window,
            options,
            payload,
            ..TcpSegment::default()
        }
    }

    /// Sends a segment of the current flow, in relative numbers.
    pub fn send(&mut self, flags: Flags, seq: u32, ack: u32, payload: &[u8]) {
        let bytes = self.segment(flags, seq, ack, payload).bytes();
        self.inject(&bytes);
    }

    /// Sends a SYN (or SYN-ACK) with these options.
    pub fn send_syn(&mut self, flags: Flags, mss: Option<u16>, window_scale: Option<u8>) {
        let mut options = OptionWriter::new();
        if let Some(mss) = mss {
            options.mss(mss);
        }
        if let Some(shift) = window_scale {
            options.window_scale(shift);
        }
        let ack = u32::from(flags.contains(ACK));
        let segment = TcpSegment { options, ..self.segment(flags, 0, ack, &[]) };
        self.inject(&segment.bytes());
    }

    /// Sends a SYN (or SYN-ACK) with an MSS of [`MSS`], SACK, and the timestamp if one is set.
    pub fn send_syn_sack(&mut self, flags: Flags) {
        let ack = u32::from(flags.contains(ACK));
        let mut segment = self.segment(flags, 0, ack, &[]);
        segment.options.sack_permitted().mss(MSS);
        self.inject(&segment.bytes());
    }

    /// An acknowledgement with SACK blocks, in relative numbers.
    pub fn send_sack(&mut self, seq: u32, ack: u32, blocks: &[(u32, u32)]) {
        let iss = Seq(self.flow.iss);
        let blocks: Vec<_> = blocks.iter().map(|&(from, to)| (iss + from, iss + to)).collect();
        let mut segment = self.segment(ACK, seq, ack, &[]);
        assert_eq!(segment.options.sack(&blocks), blocks.len(), "room for all blocks");
        self.inject(&segment.bytes());
    }

    /// SACK blocks of a segment from the stack, in the peer's relative numbers.
    pub fn blocks(&self, segment: &Segment) -> Vec<(u32, u32)> {
        let relative = |seq: Seq| seq.0.wrapping_sub(self.flow.isn);
        segment.options.sack().iter().map(|&(a, b)| (relative(a), relative(b))).collect()
    }

    // What comes from the stack.

    /// Runs the stack's transmit side until it has nothing more to say.
    pub fn collect(&mut self) {
        let mut batch = TxBatch::new();
        while self.stack.transmit(self.now, &mut batch) > 0 {
            for packet in batch.iter() {
                let bytes = self.gather(packet);
                let mut parsed = craft::parse(&bytes, packet.checksum_start != 0);
                if let Packet::Tcp(segment) = &mut parsed {
                    segment.gso_size = packet.gso_size;
                    self.make_relative(segment);
                }
                match parsed {
                    Packet::V6(report) if report.is_mld() => self.reports.push_back(report),
                    parsed => self.sent.push_back(parsed),
                }
            }
            for packet in batch.iter() {
                match self.hold {
                    true => self.in_flight.push(*packet),
                    false => self.stack.arena_mut().transmitted(packet),
                }
            }
            batch.clear();
        }
        self.stack.check_invariants();
    }

    /// The port is done with everything that was in flight.
    pub fn complete(&mut self) {
        for packet in core::mem::take(&mut self.in_flight) {
            self.stack.arena_mut().transmitted(&packet);
        }
    }

    fn gather(&self, packet: &Transmit) -> Vec<u8> {
        let arena = self.stack.arena();
        let (start, len) = (usize::from(packet.offset), usize::from(packet.len));
        let mut bytes = arena.room(packet.head)[start..start + len].to_vec();
        let mut frame = packet.head;
        for _ in 1..packet.frames {
            frame = arena.meta(frame).next;
            bytes.extend_from_slice(arena.bytes(frame));
        }
        assert_eq!(bytes.len(), packet.total as usize, "Transmit::total");
        bytes
    }

    fn make_relative(&mut self, segment: &mut Segment) {
        if segment.source.1 != self.flow.stack_port || segment.destination.1 != self.flow.peer_port
        {
            return;
        }
        if segment.flags.contains(SYN) {
            self.flow.iss = segment.seq;
        }
        if let Some((value, _)) = segment.options.timestamps {
            self.echo = value;
        }
        segment.seq = segment.seq.wrapping_sub(self.flow.iss);
        if segment.flags.contains(ACK) {
            segment.ack = segment.ack.wrapping_sub(self.flow.isn);
        }
    }

    pub fn next_packet(&mut self) -> Option<Packet> {
        self.collect();
        self.sent.pop_front()
    }

    /// Everything that the stack has sent and nobody has looked at.
    pub fn take(&mut self) -> Vec<Segment> {
        let mut segments = Vec::new();
        while let Some(packet) = self.next_packet() {
            match packet {
                Packet::Tcp(segment) => segments.push(segment),
                other => panic!("not TCP: {other:?}"),
            }
        }
        segments
    }

    /// The next thing that the stack sent must be a segment with exactly these flags (PSH apart).
    #[track_caller]
    pub fn expect(&mut self, flags: Flags) -> Segment {
        match self.next_packet() {
            Some(Packet::Tcp(segment)) => {
                assert_eq!(segment.flags & !PSH, flags, "{segment:?}");
                segment
            }
            other => panic!("expected {flags}, the stack sent {other:?}"),
        }
    }

    /// As [`Peer::expect`], and it acknowledges `ack` and has no payload.
    #[track_caller]
    pub fn expect_ack(&mut self, ack: u32) -> Segment {
        let segment = self.expect(ACK);
        assert_eq!((segment.ack, segment.payload.len()), (ack, 0), "{segment:?}");
        segment
    }

    /// As [`Peer::expect`] with ACK, and it carries `len` bytes of the pattern from `seq` on.
    #[track_caller]
    pub fn expect_data(&mut self, seq: u32, len: usize) -> Segment {
        let segment = self.expect(ACK);
        assert_eq!((segment.seq, segment.payload.len()), (seq, len));
        assert_eq!(segment.payload, pattern(seq as usize - 1, len), "payload of {seq}+{len}");
        segment
    }

    /// The next thing that the stack sent must be an IPv6 packet.
    #[track_caller]
    pub fn expect_v6(&mut self) -> super::craft6::V6 {
        match self.next_packet() {
            Some(Packet::V6(packet)) => packet,
            other => panic!("expected IPv6, the stack sent {other:?}"),
        }
    }

    #[track_caller]
    pub fn expect_silence(&mut self) {
        let packet = self.next_packet();
        assert_eq!(packet, None, "the stack should have sent nothing");
    }

    // Time.

    /// Lets time pass, with the stack's timers run when they are due.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.stack.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(deadline);
            self.stack.advance(self.now);
            self.collect();
        }
        self.now = end;
        self.stack.advance(end);
        self.collect();
    }

    pub fn advance_ms(&mut self, millis: u64) {
        self.advance(Duration::from_millis(millis));
    }

    /// Lets time pass until the stack sends something, and says how long that took.
    #[track_caller]
    pub fn wait(&mut self) -> Duration {
        let start = self.now;
        for _ in 0..100_000 {
            if !self.sent.is_empty() {
                return self.now - start;
            }
            let deadline = self.stack.next_deadline().expect("the stack waits for something");
            self.now = self.now.max(deadline);
            self.stack.advance(self.now);
            self.collect();
        }
        panic!("the stack wakes up again and again and sends nothing");
    }

    // The application's side.

    pub fn listen(&mut self, port: u16, backlog: u32) -> ListenerId {
        let id =
            self.stack.listen(SocketAddr::new(STACK_IP.into(), port), backlog).expect("listen");
        self.listeners.push(id);
        id
    }

    pub fn bind_datagram(&mut self, local: SocketAddr) -> SocketId {
        let id = self.stack.bind_datagram(local).expect("bind");
        self.sockets.push(id);
        id
    }

    pub fn accept(&mut self, listener: ListenerId) -> Option<ConnectionId> {
        let id = self.stack.accept(listener).expect("an open listener")?;
        self.connections.push(id);
        Some(id)
    }

    /// Starts to connect to the peer's port of the flow.
    pub fn connect(&mut self) -> ConnectionId {
        self.connect_and(|_, _| ())
    }

    /// The same, and does something before the SYN leaves.
    pub fn connect_and(&mut self, first: impl FnOnce(&mut Stack, ConnectionId)) -> ConnectionId {
        let remote = SocketAddr::new(PEER_IP.into(), self.flow.peer_port);
        let id = self.stack.connect(remote, None).expect("connect");
        first(&mut self.stack, id);
        self.connections.push(id);
        self.flow.stack_port = self.stack.info(id).expect("a new connection").local.port();
        self.collect();
        id
    }

    /// Starts to connect to the peer's port of the flow, with data for the SYN (RFC 7413).
    pub fn connect_with_data(&mut self, data: &[u8]) -> ConnectionId {
        let remote = SocketAddr::new(PEER_IP.into(), self.flow.peer_port);
        let (id, written) =
            self.stack.connect_with_data(remote, None, data).expect("connect_with_data");
        assert_eq!(written, data.len());
        self.connections.push(id);
        self.flow.stack_port = self.stack.info(id).expect("a new connection").local.port();
        self.collect();
        id
    }

    /// A connection that the peer opened: MSS 1000, no window scaling.
    pub fn accepted(&mut self) -> ConnectionId {
        self.accepted_with(Some(MSS), None)
    }

    pub fn accepted_with(&mut self, mss: Option<u16>, window_scale: Option<u8>) -> ConnectionId {
        let listener = match self.listeners.first() {
            Some(&listener) => listener,
            None => self.listen(self.flow.stack_port, 16),
        };
        self.send_syn(SYN, mss, window_scale);
        self.expect(SYN | ACK);
        self.send(ACK, 1, 1, &[]);
        self.expect_silence();
        let id = self.accept(listener).expect("a connection to accept");
        while self.stack.next_event().is_some() {}
        id
    }

    /// A connection that the peer opened, with SACK, and with timestamps if one is set.
    pub fn accepted_sack(&mut self) -> ConnectionId {
        self.accepted_sack_over(0)
    }

    /// The same over a path whose round trip takes so many milliseconds.
    pub fn accepted_sack_over(&mut self, round_trip: u64) -> ConnectionId {
        let listener = match self.listeners.first() {
            Some(&listener) => listener,
            None => self.listen(self.flow.stack_port, 16),
        };
        self.send_syn_sack(SYN);
        self.expect(SYN | ACK);
        self.advance_ms(round_trip);
        self.send(ACK, 1, 1, &[]);
        self.expect_silence();
        let id = self.accept(listener).expect("a connection to accept");
        while self.stack.next_event().is_some() {}
        id
    }

    /// A connection that the stack opened: MSS 1000, no window scaling.
    pub fn connected(&mut self) -> ConnectionId {
        let id = self.connect();
        self.expect(SYN);
        self.send_syn(SYN | ACK, Some(MSS), None);
        self.expect_ack(1);
        while self.stack.next_event().is_some() {}
        id
    }

    /// Writes `len` bytes of the pattern as if `start` were already written.
    pub fn write(&mut self, id: ConnectionId, start: usize, len: usize) {
        let written = self.stack.write(id, &pattern(start, len)).expect("a writable connection");
        assert_eq!(written, len);
        self.collect();
    }

    /// Reads everything that is there.
    pub fn read(&mut self, id: ConnectionId) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(frame) = self.stack.read(id).expect("a connection") {
            let arena = self.stack.arena_mut();
            bytes.extend_from_slice(arena.bytes(frame));
            arena.release(frame, Owners::RECEIVED);
        }
        self.collect();
        bytes
    }

    pub fn state(&self, id: ConnectionId) -> State {
        self.stack.info(id).expect("a connection").state
    }

    pub fn close(&mut self, id: ConnectionId) {
        self.stack.close(id);
        self.collect();
    }

    pub fn shutdown_write(&mut self, id: ConnectionId) {
        self.stack.shutdown_write(id).expect("a connection");
        self.collect();
    }

    pub fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.stack.next_event()).collect()
    }

    /// What the connection has told since the last look.
    pub fn ready(&mut self, id: ConnectionId) -> Ready {
        let mut all = Ready::default();
        for event in self.events() {
            if let Event::Connection(about, ready) = event
                && about == id
            {
                all.set(ready);
            }
        }
        all
    }

    /// Everything is let go of and time goes by: no entry and no frame may be left.
    pub fn finish(&mut self) {
        self.complete();
        for listener in self.listeners.drain(..) {
            self.stack.close_listener(listener);
        }
        for id in self.connections.drain(..) {
            self.stack.abort(id);
            self.stack.release(id);
        }
        for socket in self.sockets.drain(..) {
            self.stack.close_datagram(socket);
        }
        self.hold = false;
        self.collect();
        self.advance(Duration::from_secs(3600));
        assert_eq!(self.stack.connections(), 0, "connections left");
        assert_eq!(self.stack.time_wait_connections(), 0);
        assert_eq!(self.stack.arena().free(), self.frames, "frames leaked");
        assert!(!self.stack.wants_transmit());
        assert_eq!(self.stack.next_deadline(), None, "an idle stack has nothing to wait for");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish();
        }
    }
}
