//! A port against the kernel's own UDP, TCP and ICMP: what it may rely on, it must be told right.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use millrace_frames::{
    Arena, ArenaConfig, ChecksumState, Frame, Hugepages, Owners, RxBatch, TxBatch,
};
use millrace_port::{Port, clock};

use crate::netns::{Namespace, OUR_ADDRESS, PEER_ADDRESS, reply};

/// Ends a test that would hang otherwise. No check depends on how long anything takes.
const HANG: Duration = Duration::from_secs(20);

/// A received packet, copied out.
#[derive(Debug)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub frames: usize,
    pub gso_size: u16,
    pub checksum: ChecksumState,
}

/// A port, its arena, and turns of a loop.
pub struct Side<P: Port> {
    pub port: P,
    pub arena: Arena,
    waiting: std::collections::VecDeque<Packet>,
}

impl<P: Port> Side<P> {
    pub fn new(port: P) -> Self {
        let config = ArenaConfig { frames: 1024, frame_size: 2048, hugepages: Hugepages::Never };
        Side { port, arena: Arena::new(config).unwrap(), waiting: Default::default() }
    }

    /// Packets that have come.
    pub fn rx(&mut self) -> std::io::Result<Vec<Packet>> {
        let mut batch = RxBatch::new();
        self.port.rx(clock::now(), &mut self.arena, &mut batch)?;
        Ok(batch.iter().map(|&head| self.copy(head)).collect())
    }

    fn copy(&mut self, head: Frame) -> Packet {
        let meta = *self.arena.meta(head);
        let mut packet = Packet {
            bytes: Vec::new(),
            frames: 0,
            gso_size: meta.gso_size,
            checksum: meta.checksum,
        };
        let mut frame = head;
        while frame.is_some() {
            packet.bytes.extend_from_slice(self.arena.bytes(frame));
            packet.frames += 1;
            frame = self.arena.meta(frame).next;
        }
        assert_eq!(packet.bytes.len(), meta.total as usize);
        self.arena.release_chain(head, Owners::RECEIVED);
        packet
    }

    /// The next packet that `wanted` accepts; others are passed over.
    pub fn expect(&mut self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        let start = Instant::now();
        loop {
            while let Some(packet) = self.waiting.pop_front() {
                if wanted(&packet) {
                    return packet;
                }
            }
            let packets = self.rx().unwrap();
            self.waiting.extend(packets);
            assert!(start.elapsed() < HANG, "the packet did not come");
        }
    }

    pub fn expect_udp(&mut self) -> Packet {
        self.expect(|packet| reply::is(reply::UDP, &packet.bytes))
    }

    pub fn expect_tcp(&mut self) -> Packet {
        self.expect(|packet| reply::is(reply::TCP, &packet.bytes))
    }

    /// Sends one packet whose checksum the port is to finish.
    pub fn send(&mut self, bytes: &[u8], gso_size: u16) {
        let mut batch = TxBatch::new();
        assert!(reply::send(&mut self.arena, &mut batch, bytes, gso_size));
        self.transmit(&mut batch);
    }

    /// Sends one packet as it is.
    pub fn send_finished(&mut self, bytes: &[u8]) {
        let mut batch = TxBatch::new();
        assert!(reply::send(&mut self.arena, &mut batch, bytes, 0));
        batch[0].checksum_start = 0;
        self.transmit(&mut batch);
    }

    /// Sends all of a batch.
    pub fn transmit(&mut self, batch: &mut TxBatch) {
        let start = Instant::now();
        while !batch.is_empty() {
            self.port.tx(clock::now(), &mut self.arena, batch).unwrap();
            assert!(start.elapsed() < HANG, "the packet does not leave");
        }
    }

    pub fn dropped(&mut self, name: &str) -> u64 {
        let statistics = self.port.statistics();
        statistics.drops.iter().find(|drop| drop.0 == name).map_or(0, |drop| drop.1)
    }

    /// Everything must have come back.
    pub fn close(mut self) {
        self.port.close(&mut self.arena);
        assert_eq!(self.arena.free(), self.arena.frames(), "frames after the port was closed");
        let mut batch = RxBatch::new();
        assert!(self.port.rx(clock::now(), &mut self.arena, &mut batch).is_err());
    }
}

/// Datagrams in both directions; the kernel leaves its checksum unfinished, and takes one that is
/// finished, one that the port finishes, and no wrong one.
pub fn udp_passes_both_ways<P: Port>(side: &mut Side<P>, host: &Namespace) {
    let socket = host.udp(4000);
    socket.set_read_timeout(Some(HANG)).unwrap();
    let mut buffer = [0; 2048];
    for len in [0, 1, 18, 19, 500, 1472] {
        let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
        socket.send(&data).unwrap();
        let packet = side.expect_udp();
        assert_eq!(reply::udp_payload(&packet.bytes), data);
        assert_eq!((packet.checksum, packet.gso_size), (ChecksumState::Unfinished, 0));
        let answer = reply::udp_answer(&packet.bytes, &data);
        side.send(&answer, 0);
        assert_eq!(socket.recv(&mut buffer).unwrap(), len);
        assert_eq!(buffer[..len], data);
    }
    socket.send(b"?").unwrap();
    let request = side.expect_udp();
    let mut answer = reply::udp_answer(&request.bytes, b"good");
    let sum = millrace_wire::checksum::sum(&answer[reply::TRANSPORT..]);
    let sum = millrace_wire::checksum::finish(sum);
    answer[40..42].copy_from_slice(&(sum ^ 0x0101).to_be_bytes());
    side.send_finished(&answer);
    answer[40..42].copy_from_slice(&sum.to_be_bytes());
    *answer.last_mut().unwrap() = b'?';
    side.send_finished(&answer);
    *answer.last_mut().unwrap() = b'd';
    side.send_finished(&answer);
    assert_eq!(socket.recv(&mut buffer).unwrap(), 4);
    assert_eq!(buffer[..4], *b"good");
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut buffer).is_err(), "the kernel took a damaged datagram");
}

/// An echo request to the kernel is answered.
pub fn the_kernel_answers_a_ping<P: Port>(side: &mut Side<P>, kernel: [u8; 6]) {
    let mac = side.port.capabilities().mac.unwrap();
    let mut echo = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
    echo.extend_from_slice(b"millrace");
    let sum = millrace_wire::checksum::finish(millrace_wire::checksum::sum(&echo));
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut request = [&kernel[..], &mac.0, &[8, 0, 0x45, 0]].concat();
    request.extend_from_slice(&(20 + echo.len() as u16).to_be_bytes());
    request.extend_from_slice(&[0, 1, 0, 0, 64, 1, 0, 0]);
    request.extend_from_slice(&OUR_ADDRESS.octets());
    request.extend_from_slice(&PEER_ADDRESS.octets());
    let sum = millrace_wire::checksum::finish(millrace_wire::checksum::sum(&request[14..34]));
    request[24..26].copy_from_slice(&sum.to_be_bytes());
    request.extend_from_slice(&echo);
    side.send_finished(&request);
    let answer = side.expect(|packet| reply::is(1, &packet.bytes));
    assert_eq!(answer.bytes[34..36], [0, 0], "an echo reply");
    assert_eq!(answer.bytes[38..50], request[38..50]);
}

/// A super-segment of the kernel's UDP comes as one chain, and one of ours arrives in its pieces.
pub fn udp_super_segments_pass_both_ways<P: Port>(side: &mut Side<P>, host: &Namespace) {
    const UDP_SEGMENT: i32 = 103;
    let socket = host.udp(4001);
    socket.set_read_timeout(Some(HANG)).unwrap();
    let size: i32 = 1000;
    // SAFETY: a live integer, with its true size.
    let result = unsafe {
        let value = (&raw const size).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, UDP_SEGMENT, value, 4)
    };
    assert_eq!(result, 0);
    let data: Vec<u8> = (0..30_500u32).map(|i| (i % 251) as u8).collect();
    socket.send(&data).unwrap();
    let mut got = Vec::new();
    let mut pieces = 0;
    let mut last = None;
    while got.len() < data.len() {
        let packet = side.expect_udp();
        assert!(packet.bytes.len() <= 1042 || packet.gso_size == 1000, "{}", packet.gso_size);
        assert_eq!(packet.checksum, ChecksumState::Unfinished);
        let begin = reply::TRANSPORT + 8;
        got.extend_from_slice(&packet.bytes[begin..]);
        pieces += 1;
        last = Some(packet);
    }
    assert_eq!(got, data);
    assert_eq!(pieces, 1, "the kernel cut it up");

    let answer = reply::udp_answer(&last.unwrap().bytes, &data);
    side.send(&answer, 1000);
    let (mut back, mut buffer) = (Vec::new(), [0; 2048]);
    while back.len() < data.len() {
        let len = socket.recv(&mut buffer).unwrap();
        assert!(len <= 1000);
        back.extend_from_slice(&buffer[..len]);
    }
    assert_eq!(back, data);
}

/// A connection of the kernel's TCP: its super-segments come as chains that say how to cut them,
/// and it takes one of ours.
pub fn tcp_super_segments_pass_both_ways<P: Port>(side: &mut Side<P>, host: &Namespace) {
    const LEN: usize = 400_000;
    const ANSWER: usize = 60_000;
    let data: Vec<u8> = (0..LEN as u32).map(|i| (i % 253) as u8).collect();
    let kernel = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut stream = host.enter(|| TcpStream::connect((OUR_ADDRESS, 4002))).unwrap();
            stream.write_all(&data).unwrap();
            let mut back = vec![0; ANSWER];
            stream.read_exact(&mut back).unwrap();
            back
        });
        let syn = side.expect_tcp();
        let start = reply::long(&syn.bytes, 38).wrapping_add(1);
        side.send(&reply::tcp_answer(&syn.bytes, 0, start, reply::SYN | reply::ACK, &[]), 0);
        // Two senders in the kernel may overtake each other, so segments come in any order.
        let (mut got, mut have) = (vec![0u8; LEN], vec![false; LEN]);
        let (mut next, mut largest) = (0, 0);
        let mut last = syn;
        while next < LEN {
            let packet = side.expect_tcp();
            let (begin, len) = reply::tcp_payload(&packet.bytes);
            if len == 0 {
                continue;
            }
            assert_eq!(packet.checksum, ChecksumState::Unfinished);
            if len > 1460 {
                assert!((1000..=1460).contains(&packet.gso_size), "{}", packet.gso_size);
                assert_eq!(packet.frames, (2 + packet.bytes.len()).div_ceil(2048));
            } else {
                assert_eq!(packet.gso_size, 0);
            }
            largest = largest.max(len);
            let at = reply::long(&packet.bytes, 38).wrapping_sub(start) as usize;
            got[at..at + len].copy_from_slice(&packet.bytes[begin..begin + len]);
            have[at..at + len].fill(true);
            next += have[next..].iter().take_while(|&&there| there).count();
            let acknowledged = start.wrapping_add(next as u32);
            side.send(&reply::tcp_answer(&packet.bytes, 1, acknowledged, reply::ACK, &[]), 0);
            last = packet;
        }
        assert_eq!(got, data);
        assert!(largest > 16 * 1460, "no super-segment came: the largest had {largest} bytes");

        let acknowledged = start.wrapping_add(LEN as u32);
        let answer = reply::tcp_answer(&last.bytes, 1, acknowledged, reply::ACK, &data[..ANSWER]);
        side.send(&answer, 1460);
        let back = client.join().unwrap();
        assert_eq!(back, data[..ANSWER]);
        // The kernel's FIN: answered with a reset, so that it does not wait.
        let acknowledged = acknowledged.wrapping_add(1);
        let sequence = 1 + ANSWER as u32;
        side.send(&reply::tcp_answer(&last.bytes, sequence, acknowledged, 4 | reply::ACK, &[]), 0);
        back
    });
    assert_eq!(kernel.len(), ANSWER);
}

/// Runs `work` without any of the capabilities that root has.
pub fn without_capabilities<T>(work: impl FnOnce() -> T) -> T {
    #[repr(C)]
    struct Header(u32, i32);
    let (mut header, mut sets) = (Header(0x2008_0522, 0), [[0u32; 3]; 2]);
    // SAFETY: a header of version 3 and the two halves of the sets that belong to it, of the
    // calling thread.
    unsafe { assert_eq!(libc::syscall(libc::SYS_capget, &raw mut header, &raw mut sets), 0) };
    // What is permitted stays permitted, so the effective set can be put back.
    let mut none = sets;
    none[0][0] = 0;
    none[1][0] = 0;
    // SAFETY: as above.
    unsafe { assert_eq!(libc::syscall(libc::SYS_capset, &raw mut header, &raw const none), 0) };
    let result = work();
    // SAFETY: as above.
    unsafe { assert_eq!(libc::syscall(libc::SYS_capset, &raw mut header, &raw const sets), 0) };
    result
}
