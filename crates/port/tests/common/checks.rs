//! The checks. Each opens a port of its own. `Err` says why a check does not apply.

use std::time::{Duration, Instant as Clock};

use millrace_frames::{Arena, BURST, ChecksumState, Frame, Owners, RxBatch, Transmit, TxBatch};
use millrace_port::{Port, clock};

use super::{
    DESTINATION, Fixture, Peer, Received, TCP_HEADERS, TRANSPORT, chain_bytes,
    checksum_is_unfinished, checksum_verifies, frame, is_ours, stage, tcp, tcp_payload, udp,
};

/// Ends a test that would hang otherwise. No check depends on how long anything takes.
const HANG: Duration = Duration::from_secs(20);

/// Frames that any wire holds while nobody receives.
const WINDOW: usize = 32;

type Check = Result<(), String>;

/// A port under test, its arena, and the other end of its wire.
struct Bench {
    port: Box<dyn Port>,
    peer: Box<dyn Peer>,
    arena: Arena,
    batch: RxBatch,
    /// Packets and bytes that the port has delivered, those of others included.
    delivered: (u64, u64),
}

impl Bench {
    fn new(fixture: &mut dyn Fixture) -> Self {
        let mut arena = Arena::new(fixture.arena()).unwrap();
        let (port, peer) = fixture.open(&mut arena);
        Bench { port, peer, arena, batch: RxBatch::new(), delivered: (0, 0) }
    }

    /// Where frames to the port are addressed.
    fn address(&self) -> [u8; 6] {
        self.port.capabilities().mac.map_or(DESTINATION, |mac| mac.0)
    }

    /// Sends what is in the batch, all of it.
    fn tx(&mut self, batch: &mut TxBatch) {
        let start = Clock::now();
        while !batch.is_empty() {
            let before = batch.len();
            let taken = self.port.tx(clock::now(), &mut self.arena, batch).unwrap();
            assert_eq!(batch.len(), before - taken);
            assert!(start.elapsed() < HANG, "the port takes nothing more");
        }
    }

    fn tx_one(&mut self, packet: Transmit) {
        let mut batch = TxBatch::new();
        batch.push(packet).unwrap();
        self.tx(&mut batch);
    }

    fn tx_bytes(&mut self, bytes: &[u8]) {
        let packet = stage(&mut self.arena, bytes, usize::MAX);
        self.tx_one(packet);
    }

    /// Gives the port occasion to return frames whose transmission is complete.
    fn tx_nothing(&mut self) {
        self.port.tx(clock::now(), &mut self.arena, &mut TxBatch::new()).unwrap();
    }

    /// One call of the port. Keeps the frames that are ours, releases those that are not.
    fn rx(&mut self) -> Vec<Frame> {
        self.batch.clear();
        let count = self.port.rx(clock::now(), &mut self.arena, &mut self.batch).unwrap();
        assert_eq!(count, self.batch.len());
        let mut ours = Vec::new();
        for &head in self.batch.iter() {
            let bytes = chain_bytes(&self.arena, head);
            self.delivered.0 += 1;
            self.delivered.1 += bytes.len() as u64;
            if is_ours(&bytes) {
                ours.push(head);
            } else {
                self.arena.release_chain(head, Owners::RECEIVED);
            }
        }
        self.batch.clear();
        ours
    }

    /// The next `count` frames that are ours, and what is known of their checksums.
    fn rx_count(&mut self, count: usize) -> Vec<(Vec<u8>, ChecksumState, u16)> {
        let start = Clock::now();
        let mut received = Vec::new();
        while received.len() < count {
            for head in self.rx() {
                let meta = *self.arena.meta(head);
                let bytes = chain_bytes(&self.arena, head);
                received.push((bytes, meta.checksum, meta.gso_size));
                self.arena.release_chain(head, Owners::RECEIVED);
            }
            assert!(start.elapsed() < HANG, "{} of {count} frames came", received.len());
        }
        assert_eq!(received.len(), count, "more came than was sent");
        received
    }

    fn expect_rx(&mut self, frames: &[Vec<u8>]) {
        for ((got, ..), expected) in self.rx_count(frames.len()).iter().zip(frames) {
            assert_same(got, expected);
        }
    }

    /// The next frame that the port has sent.
    fn peer_receive(&mut self) -> Received {
        let start = Clock::now();
        loop {
            match self.peer.receive() {
                Some(received) if is_ours(&received.bytes) => return received,
                Some(_) => {}
                // A port may have to be asked again to push its frames out.
                None => self.tx_nothing(),
            }
            assert!(start.elapsed() < HANG, "nothing came to the peer");
        }
    }

    fn expect_at_peer(&mut self, frames: &[Vec<u8>]) {
        for expected in frames {
            let got = self.peer_receive();
            assert_same(&got.bytes, expected);
        }
    }

    fn dropped(&mut self, reason: &str) -> u64 {
        let statistics = self.port.statistics();
        statistics.drops.iter().filter(|(name, _)| *name == reason).map(|(_, count)| count).sum()
    }

    /// Closes both ends; every frame is free then.
    fn close(mut self) {
        self.port.close(&mut self.arena);
        assert_eq!(self.arena.free(), self.arena.frames(), "frames after the port was closed");
        self.peer.close();
    }
}

/// Equality with a message of bearable length.
fn assert_same(got: &[u8], expected: &[u8]) {
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    assert!(
        differs.is_none() && got.len() == expected.len(),
        "{} bytes came for {}, the first that differs is {differs:?}",
        got.len(),
        expected.len()
    );
}

/// Every length of an Ethernet frame, both ways, in order.
pub fn frames_of_every_length_arrive_unchanged(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let address = bench.address();
    let lengths: Vec<usize> = (60..=1514).collect();
    for window in lengths.chunks(WINDOW) {
        let frames: Vec<_> = window.iter().map(|&len| frame(address, len as u32, len)).collect();
        for frame in &frames {
            bench.peer.send(frame);
        }
        bench.expect_rx(&frames);
        let frames: Vec<_> =
            window.iter().map(|&len| frame(DESTINATION, len as u32, len)).collect();
        for frame in &frames {
            bench.tx_bytes(frame);
        }
        bench.expect_at_peer(&frames);
    }
    bench.close();
    Ok(())
}

/// One to [`BURST`] packets in a call.
pub fn bursts_of_every_size_arrive_in_order(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let address = bench.address();
    for size in 1..=BURST {
        let frames: Vec<_> = (0..size as u32).map(|at| frame(DESTINATION, at, 64)).collect();
        let mut batch = TxBatch::new();
        for frame in &frames {
            batch.push(stage(&mut bench.arena, frame, usize::MAX)).unwrap();
        }
        bench.tx(&mut batch);
        bench.expect_at_peer(&frames);
        let frames: Vec<_> = (0..size as u32).map(|at| frame(address, at, 100)).collect();
        for frame in &frames {
            bench.peer.send(frame);
        }
        bench.expect_rx(&frames);
    }
    bench.close();
    Ok(())
}

/// What finds no room in the batch waits for the next call.
pub fn a_full_batch_takes_nothing(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let waiting = frame(bench.address(), 1, 200);
    bench.peer.send(&waiting);
    let mut full = RxBatch::new();
    while !full.is_full() {
        full.push(Frame::NONE).unwrap();
    }
    for _ in 0..10 {
        let count = bench.port.rx(clock::now(), &mut bench.arena, &mut full).unwrap();
        assert_eq!((count, full.len()), (0, BURST));
        assert!(full.iter().all(|frame| frame.is_none()));
    }
    bench.expect_rx(&[waiting]);
    bench.close();
    Ok(())
}

/// Without free frames packets are lost and counted; with free frames they come again.
pub fn an_exhausted_arena_drops_counts_and_recovers(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let address = bench.address();
    let hoard: Vec<_> = std::iter::from_fn(|| bench.arena.allocate(Owners::RECEIVED)).collect();
    // The port may have frames of its own in store, so its deliveries are kept as well.
    let mut kept = Vec::new();
    let mut sent = 0;
    while bench.dropped("rx_no_frame") == 0 {
        bench.peer.send(&frame(address, sent, 300));
        kept.extend(bench.rx());
        sent += 1;
        assert!(sent < 1_000_000, "{} frames are enough for everything", bench.arena.frames());
    }
    assert!(kept.len() < sent as usize);
    for frame in hoard.into_iter().chain(kept) {
        bench.arena.release_chain(frame, Owners::RECEIVED);
    }
    // What is still on the wire may come or be dropped; what is sent from now on must come.
    let start = Clock::now();
    let mut number = 1 << 31;
    let mut recovered = false;
    while !recovered {
        number += 1;
        bench.peer.send(&frame(address, number, 300));
        for head in bench.rx() {
            recovered |= chain_bytes(&bench.arena, head)[14] & 0x80 != 0;
            bench.arena.release_chain(head, Owners::RECEIVED);
        }
        assert!(start.elapsed() < HANG, "no frame came after frames were free again");
    }
    // All that was under way comes before this one.
    let last = frame(address, u32::MAX, 301);
    bench.peer.send(&last);
    while !bench.rx_count_until(&last) {
        assert!(start.elapsed() < HANG, "the last frame is missing");
    }
    bench.close();
    Ok(())
}

impl Bench {
    /// Receives and releases. Whether `last` was among it.
    fn rx_count_until(&mut self, last: &[u8]) -> bool {
        let mut seen = false;
        for head in self.rx() {
            seen |= chain_bytes(&self.arena, head) == last;
            self.arena.release_chain(head, Owners::RECEIVED);
        }
        seen
    }
}

/// More than the MTU is no error, and what follows is sent.
pub fn a_packet_that_is_too_long_is_dropped_and_counted(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let len = bench.port.capabilities().mtu as usize + 14 + 200;
    let before = bench.port.statistics();
    bench.tx_bytes(&frame(DESTINATION, 1, len));
    let next = frame(DESTINATION, 2, 64);
    bench.tx_bytes(&next);
    bench.expect_at_peer(&[next]);
    assert_eq!(bench.dropped("tx_too_long"), 1);
    let after = bench.port.statistics();
    assert_eq!(after.tx_packets - before.tx_packets, 1, "only what was sent counts as sent");
    bench.close();
    Ok(())
}

/// However the bytes are spread over frames.
pub fn a_chain_arrives_as_one_packet(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    for (number, piece) in [1000, 757, 300, 90].into_iter().enumerate() {
        let bytes = frame(DESTINATION, number as u32, 1514);
        let packet = stage(&mut bench.arena, &bytes, piece);
        assert!(packet.frames > 1);
        bench.tx_one(packet);
        bench.expect_at_peer(&[bytes]);
    }
    bench.close();
    Ok(())
}

/// Whole or cut up, all bytes come, in order, with good checksums.
pub fn a_super_segment_arrives_with_all_its_bytes(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let limit = bench.port.capabilities().tx_gso as usize;
    if limit == 0 {
        return Err("the port cuts no super-segments".into());
    }
    let mss = 1460;
    for len in [mss + 1, 10 * mss, limit.min(65_535 - 40)] {
        let bytes = tcp(DESTINATION, len);
        let mut packet = stage(&mut bench.arena, &bytes, usize::MAX);
        packet.gso_size = mss as u16;
        packet.checksum_start = TRANSPORT as u16;
        packet.checksum_offset = 16;
        bench.tx_one(packet);
        let mut payload = Vec::new();
        while payload.len() < len {
            let received = bench.peer_receive();
            assert_checksum(&received);
            payload.extend_from_slice(tcp_payload(&received.bytes));
        }
        assert_same(&payload, &bytes[TCP_HEADERS..]);
    }
    bench.close();
    Ok(())
}

/// A super-segment from the peer is one chain, or its pieces.
pub fn a_super_segment_is_received_whole_or_cut(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let mss = 1460;
    for len in [mss + 1, 10 * mss, 64_000] {
        let bytes = tcp(bench.address(), len);
        if !bench.peer.send_offloaded(&bytes, mss as u16, TRANSPORT as u16, 16) {
            return Err("the peer sends no super-segments".into());
        }
        let mut payload = Vec::new();
        while payload.len() < len {
            let (got, checksum, gso_size) = bench.rx_count(1).remove(0);
            assert!(got.len() <= 1514 || gso_size == mss as u16, "gso_size {gso_size}");
            assert_received_checksum(&got, checksum);
            payload.extend_from_slice(tcp_payload(&got));
        }
        assert_same(&payload, &bytes[TCP_HEADERS..]);
    }
    bench.close();
    Ok(())
}

fn assert_checksum(received: &Received) {
    let verifies = checksum_verifies(&received.bytes);
    let unfinished = checksum_is_unfinished(&received.bytes);
    match received.unfinished {
        Some(true) => assert!(unfinished, "announced as unfinished, but it is not"),
        Some(false) => assert!(verifies, "the checksum is wrong, and nobody said why"),
        None => assert!(verifies || unfinished, "the checksum is neither finished nor unfinished"),
    }
}

fn assert_received_checksum(bytes: &[u8], state: ChecksumState) {
    match state {
        ChecksumState::Unknown => assert!(checksum_verifies(bytes)),
        ChecksumState::Unfinished => assert!(checksum_is_unfinished(bytes)),
        // Whoever verified it may have done so before it was finished.
        ChecksumState::Verified | ChecksumState::MaybeUnfinished => {
            assert!(checksum_verifies(bytes) || checksum_is_unfinished(bytes));
        }
    }
}

/// The port finishes it, or the other end is told.
pub fn an_unfinished_checksum_is_finished_or_announced(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    if !bench.port.capabilities().tx_checksum {
        return Err("the port finishes no checksums".into());
    }
    for (bytes, field) in [(tcp(DESTINATION, 777), 16), (udp(DESTINATION, 778), 6)] {
        for piece in [usize::MAX, 100] {
            let mut packet = stage(&mut bench.arena, &bytes, piece);
            packet.checksum_start = TRANSPORT as u16;
            packet.checksum_offset = field;
            bench.tx_one(packet);
            let received = bench.peer_receive();
            assert_checksum(&received);
            // All but the field is as it was.
            let at = TRANSPORT + field as usize;
            let mut expected = bytes.clone();
            expected[at..at + 2].copy_from_slice(&received.bytes[at..at + 2]);
            assert_same(&received.bytes, &expected);
        }
    }
    bench.close();
    Ok(())
}

/// Nothing is called unknown whose sum is not there yet.
pub fn an_unfinished_checksum_is_received_as_such(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let address = bench.address();
    for (bytes, field) in [(tcp(address, 777), 16), (udp(address, 778), 6)] {
        if !bench.peer.send_offloaded(&bytes, 0, TRANSPORT as u16, field) {
            return Err("the peer leaves no checksum unfinished".into());
        }
        let (got, checksum, gso_size) = bench.rx_count(1).remove(0);
        assert_eq!((got.len(), gso_size), (bytes.len(), 0));
        assert_received_checksum(&got, checksum);
    }
    bench.close();
    Ok(())
}

/// It only collects what is complete.
pub fn an_empty_batch_may_be_sent(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    for _ in 0..3 {
        let mut batch = TxBatch::new();
        let taken = bench.port.tx(clock::now(), &mut bench.arena, &mut batch).unwrap();
        assert_eq!((taken, batch.len()), (0, 0));
    }
    let next = frame(DESTINATION, 1, 64);
    bench.tx_bytes(&next);
    bench.expect_at_peer(&[next]);
    assert_eq!(bench.port.statistics().tx_packets, 1);
    bench.close();
    Ok(())
}

/// Nothing of ours comes that was not sent, and looking for it takes no frames.
pub fn an_idle_wire_brings_nothing(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let first = bench.rx();
    assert!(first.is_empty());
    let free = bench.arena.free();
    for _ in 0..1000 {
        assert!(bench.rx().is_empty());
    }
    assert!(bench.arena.free() >= free);
    bench.close();
    Ok(())
}

/// Packets and bytes, as many as passed.
pub fn statistics_add_up(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let address = bench.address();
    let (mut packets, mut bytes) = (0, 0);
    for round in 0..20u32 {
        let len = 60 + round as usize * 70;
        let frames: Vec<_> = (0..WINDOW as u32).map(|at| frame(DESTINATION, at, len)).collect();
        let mut batch = TxBatch::new();
        for frame in &frames {
            batch.push(stage(&mut bench.arena, frame, 500)).unwrap();
            packets += 1;
            bytes += frame.len() as u64;
        }
        bench.tx(&mut batch);
        bench.expect_at_peer(&frames);
        let frames: Vec<_> = (0..WINDOW as u32).map(|at| frame(address, at, len)).collect();
        for frame in &frames {
            bench.peer.send(frame);
        }
        bench.expect_rx(&frames);
    }
    let statistics = bench.port.statistics();
    assert_eq!((statistics.tx_packets, statistics.tx_bytes), (packets, bytes));
    assert_eq!((statistics.rx_packets, statistics.rx_bytes), bench.delivered);
    assert!((1..=statistics.rx_packets).contains(&statistics.rx_bursts));
    assert_eq!(statistics.dropped(), 0, "{:?}", statistics.drops);
    for (name, _) in &statistics.drops {
        assert!(name.starts_with("rx_") || name.starts_with("tx_"), "{name}");
    }
    bench.close();
    Ok(())
}

/// Many times the arena's frames pass through, in both directions.
pub fn every_frame_comes_back(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let address = bench.address();
    let rounds = 4 * bench.arena.frames() / WINDOW;
    for round in 0..rounds as u32 {
        let frames: Vec<_> =
            (0..WINDOW as u32).map(|at| frame(DESTINATION, round << 8 | at, 1514)).collect();
        for frame in &frames {
            let start = Clock::now();
            while bench.arena.free() < 2 {
                bench.tx_nothing();
                assert!(start.elapsed() < HANG, "transmitted frames do not come back");
            }
            let packet = stage(&mut bench.arena, frame, 1000);
            bench.tx_one(packet);
        }
        bench.expect_at_peer(&frames);
        let frames: Vec<_> =
            (0..WINDOW as u32).map(|at| frame(address, round << 8 | at, 1514)).collect();
        for frame in &frames {
            bench.peer.send(frame);
        }
        bench.expect_rx(&frames);
    }
    bench.close();
    Ok(())
}

/// Frames sent and not looked at, frames arrived and not received.
pub fn a_port_closed_with_frames_under_way_keeps_none(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let address = bench.address();
    for number in 0..WINDOW as u32 {
        bench.peer.send(&frame(address, number, 500));
        bench.tx_bytes(&frame(DESTINATION, number, 500));
    }
    bench.port.close(&mut bench.arena);
    assert_eq!(bench.arena.free(), bench.arena.frames());
    while bench.peer.receive().is_some() {}
    bench.peer.close();
    Ok(())
}

/// What has arrived keeps the sleeper awake, what arrives wakes it.
pub fn an_arrival_wakes_a_sleeper(fixture: &mut dyn Fixture) -> Check {
    let mut bench = Bench::new(fixture);
    let address = bench.address();
    let Some(fd) = bench.port.fd() else {
        return Err("the port has no descriptor to sleep on".into());
    };
    let start = Clock::now();
    for number in 0..20 {
        while !bench.port.arm(clock::now()) {
            assert!(bench.rx().is_empty());
            assert!(start.elapsed() < HANG, "an idle port does not let its user sleep");
        }
        let sent = frame(address, number, 128);
        bench.peer.send(&sent);
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is one live pollfd.
        let ready = unsafe { libc::poll(&mut poll, 1, HANG.as_millis() as i32) };
        assert_eq!(ready, 1, "the descriptor is not readable");
        bench.expect_rx(&[sent]);
        // Somebody who did not sleep yet must not.
        let sent = frame(address, number, 129);
        bench.peer.send(&sent);
        let mut kept = Vec::new();
        while kept.is_empty() {
            if !bench.port.arm(clock::now()) || poll_now(fd) {
                kept = bench.rx();
            }
            assert!(start.elapsed() < HANG, "an arrival before the sleep went unnoticed");
        }
        assert_same(&chain_bytes(&bench.arena, kept[0]), &sent);
        for head in kept {
            bench.arena.release_chain(head, Owners::RECEIVED);
        }
    }
    bench.close();
    Ok(())
}

fn poll_now(fd: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one live pollfd.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}
