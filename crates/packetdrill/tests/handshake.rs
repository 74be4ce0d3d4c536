//! Plays packetdrill: takes the table and runs a connection in virtual time.

use core::ffi::{c_int, c_longlong, c_void};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use std::ffi::CString;

use libc::{sockaddr_in, timeval};
use millrace_packetdrill::abi::packetdrill_interface_init;
use millrace_packetdrill::interface::Interface;

const LOCAL: [u8; 4] = [192, 0, 2, 1];
const REMOTE: [u8; 4] = [192, 0, 2, 9];
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// One TCP segment.
#[derive(Clone, Copy, Debug)]
struct Segment<'a> {
    source: u16,
    destination: u16,
    seq: u32,
    ack: u32,
    flags: u8,
    payload: &'a [u8],
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

fn checksum(total: u32) -> [u8; 2] {
    let folded = (total & 0xffff) + (total >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

/// The IPv4 packet of a segment from the peer.
fn packet(segment: Segment<'_>) -> Vec<u8> {
    let total = 40 + segment.payload.len() as u16;
    let mut bytes = vec![0x45, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    bytes.extend(REMOTE);
    bytes.extend(LOCAL);
    let header = checksum(sum(&bytes));
    bytes[10..12].copy_from_slice(&header);
    bytes.extend(segment.source.to_be_bytes());
    bytes.extend(segment.destination.to_be_bytes());
    bytes.extend(segment.seq.to_be_bytes());
    bytes.extend(segment.ack.to_be_bytes());
    bytes.extend([0x50, segment.flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(segment.payload);
    let pseudo = sum(&bytes[12..20]) + 6 + u32::from(total - 20);
    let transport = checksum(pseudo + sum(&bytes[20..]));
    bytes[36..38].copy_from_slice(&transport);
    bytes
}

fn parse(bytes: &[u8]) -> Segment<'_> {
    let tcp = &bytes[20..];
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    Segment {
        source: port(0),
        destination: port(2),
        seq: number(4),
        ack: number(8),
        flags: tcp[13],
        payload: &tcp[usize::from(tcp[12] >> 4) * 4..],
    }
}

/// A table, and what packetdrill does with it.
struct Drill {
    table: Interface,
}

impl Drill {
    fn new() -> Drill {
        let flags = CString::new("local=192.0.2.1,sysctl=/nonexistent").expect("no zero inside");
        let mut table = MaybeUninit::uninit();
        // SAFETY: a C string and a place for a table.
        unsafe { packetdrill_interface_init(flags.as_ptr(), table.as_mut_ptr()) };
        // SAFETY: it has been filled.
        Drill { table: unsafe { table.assume_init() } }
    }

    fn time(&self) -> i64 {
        let mut time = timeval { tv_sec: 0, tv_usec: 0 };
        let read = self.table.gettimeofday.expect("filled");
        // SAFETY: the table's own world and a valid place.
        assert_eq!(unsafe { read(self.table.userdata, &mut time, null_mut()) }, 0);
        time.tv_sec * 1_000_000 + time.tv_usec
    }

    fn sleep(&self, micros: u32) {
        let sleep = self.table.usleep.expect("filled");
        // SAFETY: the table's own world.
        assert_eq!(unsafe { sleep(self.table.userdata, micros) }, 0);
    }

    fn inject(&self, segment: Segment<'_>) {
        let bytes = packet(segment);
        let send = self.table.netdev_send.expect("filled");
        // SAFETY: the table's own world and the packet's bytes.
        let status = unsafe { send(self.table.userdata, bytes.as_ptr().cast(), bytes.len()) };
        assert_eq!(status, 0);
    }

    /// The next packet and when it left; empty when none will come.
    fn sniff(&self) -> (Vec<u8>, c_longlong) {
        let mut bytes = vec![0; 65_536];
        let (mut count, mut time) = (bytes.len(), 0);
        let receive = self.table.netdev_receive.expect("filled");
        let place = bytes.as_mut_ptr().cast::<c_void>();
        // SAFETY: the table's own world and places of the sizes that are told.
        assert_eq!(unsafe { receive(self.table.userdata, place, &mut count, &mut time) }, 0);
        bytes.truncate(count);
        (bytes, time)
    }

    fn socket(&self) -> c_int {
        let socket = self.table.socket.expect("filled");
        // SAFETY: the table's own world.
        let number = unsafe { socket(self.table.userdata, libc::AF_INET, libc::SOCK_STREAM, 0) };
        assert!(number > 2);
        number
    }

    fn listener(&self, port: u16) -> c_int {
        let number = self.socket();
        let address = sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(LOCAL) },
            sin_zero: [0; 8],
        };
        let length = size_of::<sockaddr_in>() as u32;
        let (bind, listen) = (self.table.bind.expect("filled"), self.table.listen.expect("filled"));
        // SAFETY: the table's own world and a valid address.
        unsafe {
            assert_eq!(bind(self.table.userdata, number, (&raw const address).cast(), length), 0);
            assert_eq!(listen(self.table.userdata, number, 1), 0);
        }
        number
    }

    fn nonblocking(&self, number: c_int) {
        let fcntl = self.table.fcntl.expect("filled");
        let flags = i64::from(libc::O_RDWR | libc::O_NONBLOCK);
        // SAFETY: the table's own world.
        assert_eq!(unsafe { fcntl(self.table.userdata, number, libc::F_SETFL, flags) }, 0);
    }

    fn accept(&self, number: c_int) -> c_int {
        let accept = self.table.accept.expect("filled");
        // SAFETY: the table's own world; nobody wants the address.
        unsafe { accept(self.table.userdata, number, null_mut(), null_mut()) }
    }

    fn read(&self, number: c_int) -> Vec<u8> {
        let mut bytes = vec![0_u8; 4096];
        let read = self.table.read.expect("filled");
        // SAFETY: the table's own world and a place of the size that is told.
        let count =
            unsafe { read(self.table.userdata, number, bytes.as_mut_ptr().cast(), bytes.len()) };
        bytes.truncate(usize::try_from(count).expect("something to read"));
        bytes
    }

    fn write(&self, number: c_int, bytes: &[u8]) {
        let write = self.table.write.expect("filled");
        // SAFETY: the table's own world and the bytes.
        let count =
            unsafe { write(self.table.userdata, number, bytes.as_ptr().cast(), bytes.len()) };
        assert_eq!(count, bytes.len() as isize);
    }

    /// An accepted connection: its descriptor and the sequence number after the stack's SYN.
    fn connection(&self) -> (c_int, u32) {
        let listener = self.listener(80);
        let syn =
            Segment { source: 5000, destination: 80, seq: 0, ack: 0, flags: SYN, payload: &[] };
        self.inject(syn);
        let (bytes, _) = self.sniff();
        let answer = parse(&bytes);
        assert_eq!((answer.flags, answer.ack), (SYN | ACK, 1));
        let next = answer.seq.wrapping_add(1);
        self.inject(Segment { seq: 1, ack: next, flags: ACK, ..syn });
        let number = self.accept(listener);
        assert!(number >= 0 && number != listener, "{number}");
        (number, next)
    }
}

impl Drop for Drill {
    fn drop(&mut self) {
        let free = self.table.free.expect("filled");
        // SAFETY: the last call.
        unsafe { free(self.table.userdata) };
    }
}

const PEER: Segment<'static> =
    Segment { source: 5000, destination: 80, seq: 1, ack: 0, flags: ACK, payload: &[] };

#[test]
fn a_connection_opens_and_carries_data_both_ways() {
    let drill = Drill::new();
    let (number, next) = drill.connection();
    drill.inject(Segment { ack: next, flags: ACK | PSH, payload: b"ping", ..PEER });
    assert_eq!(drill.read(number), b"ping");
    // A new connection acknowledges at once.
    let (bytes, _) = drill.sniff();
    assert_eq!((parse(&bytes).flags, parse(&bytes).ack), (ACK, 5));
    drill.write(number, b"pong");
    let (bytes, _) = drill.sniff();
    let segment = parse(&bytes);
    assert_eq!((segment.source, segment.destination, segment.ack), (80, 5000, 5));
    assert_eq!(segment.payload, b"pong");
}

#[test]
fn time_passes_only_when_it_is_waited_for() {
    let drill = Drill::new();
    let (number, next) = drill.connection();
    let began = drill.time();
    drill.sleep(5_000_000);
    let slept = drill.time() - began;
    assert!((5_000_000..5_000_010).contains(&slept), "{slept}");
    drill.write(number, b"x");
    let (_, first) = drill.sniff();
    // Nobody acknowledges: the same segment comes again, a timeout later, in an instant.
    let (bytes, second) = drill.sniff();
    assert_eq!((parse(&bytes).seq, parse(&bytes).payload), (next, b"x".as_slice()));
    assert!(second - first >= 200_000, "sent again after {} us", second - first);
}

#[test]
fn reading_the_clock_twice_moves_it() {
    let drill = Drill::new();
    let first = drill.time();
    assert_eq!(drill.time(), first + 1);
}

#[test]
fn a_script_that_waits_for_nothing_is_told() {
    let drill = Drill::new();
    drill.listener(80);
    let (bytes, _) = drill.sniff();
    assert!(bytes.is_empty());
}

#[test]
fn a_nonblocking_call_returns_at_once() {
    let drill = Drill::new();
    let listener = drill.listener(80);
    drill.nonblocking(listener);
    assert_eq!(drill.accept(listener), -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));
}

#[test]
fn a_blocking_call_on_another_thread_returns_at_the_instant_at_which_it_can() {
    let drill = Drill::new();
    let (number, next) = drill.connection();
    // Pointers that only these two threads have, as packetdrill's two threads do.
    struct Pass<T>(T);
    // SAFETY: the table's world locks itself.
    unsafe impl<T> Send for Pass<T> {}
    let (read, clock) =
        (drill.table.read.expect("filled"), drill.table.gettimeofday.expect("filled"));
    let userdata = Pass(drill.table.userdata);
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let Pass(userdata) = { userdata };
        // SAFETY: gettid has no arguments and cannot fail.
        tell.send(unsafe { libc::gettid() }).expect("somebody listens");
        let mut bytes = [0_u8; 16];
        let mut time = timeval { tv_sec: 0, tv_usec: 0 };
        // SAFETY: the table's own world and valid places.
        let count = unsafe {
            let count = read(userdata, number, bytes.as_mut_ptr().cast(), bytes.len());
            clock(userdata, &mut time, null_mut());
            count
        };
        (bytes[..count as usize].to_vec(), time.tv_sec * 1_000_000 + time.tv_usec)
    });
    let status = format!("/proc/self/task/{}/stat", told.recv().expect("it starts"));
    // As packetdrill does: the thread sleeps when its call waits.
    while !std::fs::read_to_string(&status).expect("a thread").contains(") S ") {
        std::thread::yield_now();
    }
    drill.sleep(1_000_000);
    let came = drill.time();
    drill.inject(Segment { ack: next, flags: ACK | PSH, payload: b"late", ..PEER });
    drill.sleep(1_000_000);
    let (bytes, when) = thread.join().expect("it ends");
    assert_eq!(bytes, b"late");
    assert!((came..came + 10).contains(&when), "came at {came}, seen at {when}");
}

#[test]
fn the_c_librarys_getsockopt_knows_our_descriptors() {
    let drill = Drill::new();
    let (number, _) = drill.connection();
    let mut info = [0_u8; 280];
    let mut length = info.len() as u32;
    // SAFETY: valid places of the sizes that are told.
    let status = unsafe {
        libc::getsockopt(
            number,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    assert_eq!((status, length), (0, 280));
    // TCP_ESTABLISHED, and ten segments of initial window.
    assert_eq!((info[0], info[80]), (1, 10));
}

#[test]
fn a_stranger_is_reset() {
    let drill = Drill::new();
    drill.listener(80);
    drill.inject(Segment { destination: 81, ack: 7, ..PEER });
    let (bytes, _) = drill.sniff();
    assert_eq!((parse(&bytes).flags, parse(&bytes).seq), (RST, 7));
}
