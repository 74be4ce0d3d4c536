//! Capture files: what is written is read, and no file does harm.

use std::cell::Cell;
use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use millrace_frames::{Arena, ArenaConfig, Hugepages, Instant, Owners, RxBatch, Transmit, TxBatch};
use millrace_port::Port;
use millrace_port::pcap::{ByteOrder, FileFormat, PcapPort, PcapReader, PcapWriter};
use proptest::prelude::*;

const FORMATS: [FileFormat; 3] =
    [FileFormat::PcapMicros, FileFormat::PcapNanos, FileFormat::PcapNg];
const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    nanos: u64,
    interface: u32,
    original_len: u32,
    bytes: Vec<u8>,
}

fn written(format: FileFormat, order: ByteOrder, packets: &[Owned]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = PcapWriter::new(&mut file, "test", "eth0", format, order).unwrap();
    for packet in packets {
        let (time, len) = (Instant::from_nanos(packet.nanos), packet.bytes.len() as u32);
        writer
            .write_with(packet.interface, time, packet.original_len, len, |to| {
                to.copy_from_slice(&packet.bytes);
            })
            .unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    file
}

/// Everything up to the end or the first error.
fn read(file: &[u8]) -> (Vec<Owned>, Option<io::Error>) {
    let mut packets = Vec::new();
    let mut reader = match PcapReader::new(file, "test") {
        Ok(reader) => reader,
        Err(error) => return (packets, Some(error)),
    };
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => packets.push(Owned {
                nanos: packet.timestamp.as_nanos(),
                interface: packet.interface,
                original_len: packet.original_len,
                bytes: packet.bytes.to_vec(),
            }),
            Ok(None) => return (packets, None),
            Err(error) => {
                let again = reader.next_packet().unwrap_err();
                assert_eq!(again.to_string(), error.to_string(), "an error stays");
                return (packets, Some(error));
            }
        }
    }
}

fn sample(format: FileFormat) -> Vec<Owned> {
    let unit = if format == FileFormat::PcapMicros { 1000 } else { 1 };
    (0..4u32)
        .map(|at| Owned {
            nanos: 1_700_000_000_123_456_789 / unit * unit + u64::from(at) * 1_000_000,
            interface: 0,
            original_len: 61 + at,
            bytes: (0..61 + at).map(|byte| (byte + at) as u8).collect(),
        })
        .collect()
}

fn packets() -> impl Strategy<Value = Vec<Owned>> {
    let packet = (0..u64::from(u32::MAX) * 1_000_000_000, any::<u32>(), 0..2000usize, any::<u8>())
        .prop_map(|(nanos, original_len, len, fill)| Owned {
            nanos,
            interface: 0,
            original_len,
            bytes: (0..len).map(|at| fill.wrapping_add(at as u8)).collect(),
        });
    prop::collection::vec(packet, 0..20)
}

proptest! {
    #[test]
    fn what_is_written_is_read(mut packets in packets()) {
        for format in FORMATS {
            if format == FileFormat::PcapMicros {
                for packet in &mut packets {
                    packet.nanos -= packet.nanos % 1000;
                }
            }
            for order in ORDERS {
                let (back, error) = read(&written(format, order, &packets));
                prop_assert!(error.is_none(), "{error:?}");
                prop_assert_eq!(&back, &packets);
            }
        }
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read(&bytes);
        // The same behind a header that is right.
        for format in FORMATS {
            for order in ORDERS {
                let mut file = written(format, order, &[]);
                file.extend_from_slice(&bytes);
                read(&file);
            }
        }
    }
}

#[test]
fn every_truncation_delivers_what_is_whole_and_says_where_it_ends() {
    for format in FORMATS {
        let expected = sample(format);
        for order in ORDERS {
            let whole = written(format, order, &expected);
            let ends: Vec<usize> = (0..=expected.len())
                .map(|count| written(format, order, &expected[..count]).len())
                .collect();
            for len in 0..whole.len() {
                let (packets, error) = read(&whole[..len]);
                let complete = ends.iter().skip(1).filter(|&&end| end <= len).count();
                assert_eq!(packets, expected[..complete]);
                // Between two packets it ends well, and in pcapng between any two blocks.
                let between = ends.contains(&len) || (format == FileFormat::PcapNg && len == 28);
                match error {
                    None => assert!(between, "{format:?} cut at {len}"),
                    Some(error) => {
                        assert!(!between, "{format:?} cut at {len}");
                        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                        let text = error.to_string();
                        assert!(text.starts_with("test: byte "), "{text}");
                        assert!(text.contains("the file ends"), "{text}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_leaves_what_comes_before_it() {
    for format in FORMATS {
        let expected = sample(format);
        for order in ORDERS {
            let whole = written(format, order, &expected);
            let ends: Vec<usize> = (1..=expected.len())
                .map(|count| written(format, order, &expected[..count]).len())
                .collect();
            for bit in 0..whole.len() * 8 {
                let mut file = whole.clone();
                file[bit / 8] ^= 1 << (bit % 8);
                let (packets, _) = read(&file);
                let before = ends.iter().filter(|&&end| end <= bit / 8).count();
                assert!(packets.len() >= before);
                assert_eq!(packets[..before], expected[..before]);
            }
        }
    }
}

/// Serves a header, then the same bytes for ever, and counts them.
struct Endless {
    header: Cursor<Vec<u8>>,
    served: Rc<Cell<u64>>,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.header.read(buffer)?;
        if count > 0 {
            return Ok(count);
        }
        buffer.fill(0);
        self.served.set(self.served.get() + buffer.len() as u64);
        Ok(buffer.len())
    }
}

#[test]
fn a_claimed_length_is_checked_before_memory_is_asked_for() {
    for (format, at) in [(FileFormat::PcapNanos, 24 + 8), (FileFormat::PcapNg, 0)] {
        let mut header = written(format, ByteOrder::Little, &[]);
        let (start, len) = (header.len(), 0xffff_fff0u32);
        if format == FileFormat::PcapNanos {
            header.extend_from_slice(&[0; 8]);
            header.extend_from_slice(&[len.to_le_bytes(), len.to_le_bytes()].concat());
        } else {
            let words = [6, len, 0, 0, 0, len - 32, len - 32];
            header.extend(words.into_iter().flat_map(u32::to_le_bytes));
        }
        let served = Rc::new(Cell::new(0));
        let endless = Endless { header: Cursor::new(header), served: Rc::clone(&served) };
        let mut reader = PcapReader::new(endless, "test").unwrap();
        let error = reader.next_packet().unwrap_err();
        let at = if at == 0 { start + 20 } else { at };
        assert!(error.to_string().contains(&format!("byte {at}: ")), "{error}");
        assert!(error.to_string().contains("at most 262144 bytes"), "{error}");
        assert!(served.get() <= 1 << 20, "{} bytes read for nothing", served.get());
    }
}

#[test]
fn other_link_types_are_refused_by_name() {
    for order in ORDERS {
        for (format, at) in [(FileFormat::PcapMicros, 20), (FileFormat::PcapNg, 28 + 8)] {
            let mut file = written(format, order, &sample(format));
            let wide =
                if order == ByteOrder::Big && format == FileFormat::PcapMicros { 2 } else { 0 };
            let number =
                if order == ByteOrder::Big { 113u16.to_be_bytes() } else { 113u16.to_le_bytes() };
            file[at + wide..at + wide + 2].copy_from_slice(&number);
            let (packets, error) = read(&file);
            assert!(packets.is_empty());
            let text = error.unwrap().to_string();
            assert!(text.contains(&format!("byte {at}: ")) && text.contains("LINUX_SLL"), "{text}");
        }
    }
}

#[test]
fn a_file_of_another_kind_is_named() {
    let (_, error) = read(b"PK\x03\x04 is a zip file");
    let text = error.unwrap().to_string();
    assert!(text.contains("byte 0") && text.contains("magic number of pcap or pcapng"), "{text}");
}

/// A pcapng file in pieces, made by hand.
struct Blocks(Vec<u8>, ByteOrder);

impl Blocks {
    fn new(order: ByteOrder) -> Self {
        let mut blocks = Blocks(Vec::new(), order);
        blocks.section();
        blocks
    }

    fn word(&self, word: u32) -> [u8; 4] {
        match self.1 {
            ByteOrder::Little => word.to_le_bytes(),
            ByteOrder::Big => word.to_be_bytes(),
        }
    }

    fn half(&self, half: u16) -> [u8; 2] {
        match self.1 {
            ByteOrder::Little => half.to_le_bytes(),
            ByteOrder::Big => half.to_be_bytes(),
        }
    }

    fn section(&mut self) {
        let version = [self.half(1), self.half(0)].concat();
        let body = [&self.word(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &body);
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let total = self.word(body.len() as u32 + 12);
        let block = [&self.word(kind)[..], &total, &body, &total].concat();
        self.0.extend_from_slice(&block);
    }

    fn interface(&mut self, snap_len: u32, options: &[(u16, &[u8])]) {
        let mut body = [&self.half(1)[..], &[0; 2], &self.word(snap_len)].concat();
        for (code, value) in options {
            body.extend_from_slice(&self.half(*code));
            body.extend_from_slice(&self.half(value.len() as u16));
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(1, &body);
    }

    fn packet(&mut self, interface: u32, ticks: u64, bytes: &[u8]) {
        let len = bytes.len() as u32;
        let words = [interface, (ticks >> 32) as u32, ticks as u32, len, len];
        let mut body: Vec<u8> = words.iter().flat_map(|&word| self.word(word)).collect();
        body.extend_from_slice(bytes);
        self.block(6, &body);
    }
}

#[test]
fn resolutions_and_offsets_of_interfaces_are_honoured() {
    for order in ORDERS {
        let mut file = Blocks::new(order);
        let offset = match order {
            ByteOrder::Little => 100i64.to_le_bytes(),
            ByteOrder::Big => 100i64.to_be_bytes(),
        };
        file.interface(0, &[(2, b"micro"), (9999, b"unknown")]);
        file.interface(0, &[(9, &[9]), (14, &offset)]);
        file.interface(0, &[(9, &[0x80 | 10])]);
        file.interface(0, &[(9, &[12])]);
        file.interface(0, &[(9, &[127])]);
        file.interface(0, &[(9, &[0xff])]);
        let ticks = [5, 5, 2048, 7_000, u64::MAX, u64::MAX];
        for (interface, ticks) in ticks.into_iter().enumerate() {
            file.packet(interface as u32, ticks, b"abc");
        }
        let (packets, error) = read(&file.0);
        assert!(error.is_none(), "{error:?}");
        let times: Vec<u64> = packets.iter().map(|packet| packet.nanos).collect();
        assert_eq!(times, [5_000, 100_000_000_005, 2_000_000_000, 7, 0, 0]);
        assert!(packets.iter().all(|packet| packet.bytes == b"abc"));
    }
}

#[test]
fn unknown_blocks_new_sections_and_old_packets_are_read_through() {
    for order in ORDERS {
        let mut file = Blocks::new(order);
        file.block(0x0bad_f00d, &[7; 300_000]);
        file.interface(4, &[]);
        file.packet(0, 1, b"one");
        // A simple packet is cut at the interface's snap length.
        let simple = [&file.word(9)[..], b"twos"].concat();
        file.block(3, &simple);
        let head = [file.half(0), file.half(3)].concat();
        let words: Vec<u8> = [0, 3, 3, 3].iter().flat_map(|&word| file.word(word)).collect();
        file.block(2, &[&head[..], &words, b"old"].concat());
        let flipped = if order == ByteOrder::Big { ByteOrder::Little } else { ByteOrder::Big };
        let mut second = Blocks::new(flipped);
        second.interface(0, &[]);
        second.packet(0, 4, b"four");
        file.0.extend_from_slice(&second.0);
        let (packets, error) = read(&file.0);
        assert!(error.is_none(), "{error:?}");
        let got: Vec<_> = packets.iter().map(|packet| (packet.nanos, &packet.bytes[..])).collect();
        let expected: [(u64, &[u8]); 4] =
            [(1_000, b"one"), (0, b"twos"), (3_000, b"old"), (4_000, b"four")];
        assert_eq!(got, expected);
    }
}

#[test]
fn a_block_that_contradicts_itself_is_an_error_at_its_place() {
    let base = || {
        let mut file = Blocks::new(ByteOrder::Little);
        file.interface(0, &[]);
        file
    };
    let start = base().0.len();
    type Damage = fn(&mut Blocks);
    let cases: [(&str, usize, Damage); 6] = [
        ("multiple of 4", 4, |file| file.0.extend([6, 0, 0, 0, 33, 0, 0, 0])),
        ("at least 12", 4, |file| file.0.extend([6, 0, 0, 0, 8, 0, 0, 0])),
        ("interfaces described", 8, |file| file.packet(1, 0, b"x")),
        ("fits the 4 bytes", 20, |file| {
            file.packet(0, 0, b"abcd");
            let at = file.0.len() - 4 - 4 - 8;
            file.0[at] = 5;
        }),
        ("length 36 again", 32, |file| {
            file.packet(0, 0, b"abcd");
            let at = file.0.len() - 4;
            file.0[at] = 32;
        }),
        ("with a length that fits", 16, |file| file.interface(0, &[(9, &[1, 2])])),
    ];
    for (words, offset, damage) in cases {
        let mut file = base();
        damage(&mut file);
        let (packets, error) = read(&file.0);
        assert!(packets.is_empty());
        let text = error.unwrap().to_string();
        let place = format!("byte {}: ", start + offset);
        assert!(text.contains(words) && text.contains(&place), "{text}, not {place}");
    }
}

#[test]
fn several_interfaces_and_their_losses_are_kept() {
    for order in ORDERS {
        let mut file = Vec::new();
        let mut writer =
            PcapWriter::new(&mut file, "test", "eth0", FileFormat::PcapNg, order).unwrap();
        assert_eq!(writer.add_interface("eth1").unwrap(), 1);
        writer.write(1, Instant::from_nanos(7), b"over eth1").unwrap();
        writer.write_statistics(1, Instant::from_nanos(8), 10, 3).unwrap();
        assert!(writer.write(2, Instant::ZERO, b"no such interface").is_err());
        drop(writer);
        let mut reader = PcapReader::new(&file[..], "test").unwrap();
        assert_eq!(reader.next_packet().unwrap().unwrap().interface, 1);
        assert!(reader.next_packet().unwrap().is_none());
        let [first, second] = reader.interfaces() else { panic!("two interfaces") };
        assert_eq!((first.name.as_deref(), second.name.as_deref()), (Some("eth0"), Some("eth1")));
        assert_eq!((second.received, second.dropped), (Some(10), Some(3)));
        assert_eq!(first.dropped, None);
    }
    let mut file = Vec::new();
    let order = ByteOrder::Little;
    let mut writer =
        PcapWriter::new(&mut file, "test", "eth0", FileFormat::PcapNanos, order).unwrap();
    assert_eq!(writer.add_interface("eth1").unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn check_sequences_behind_frames_are_cut_off() {
    let packets = sample(FileFormat::PcapNanos);
    let mut file = written(FileFormat::PcapNanos, ByteOrder::Little, &packets);
    // Bit 26: the length is given; bits 28 to 31: in 16-bit units.
    file[23] = 0x24;
    let (back, error) = read(&file);
    assert!(error.is_none());
    for (got, packet) in back.iter().zip(&packets) {
        assert_eq!(got.bytes, packet.bytes[..packet.bytes.len() - 4]);
        assert_eq!(got.original_len, packet.original_len - 4);
    }
}

/// A folder that is gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn arena(frames: u32) -> Arena {
    Arena::new(ArenaConfig { frames, frame_size: 2048, hugepages: Hugepages::Never }).unwrap()
}

fn transmit(arena: &mut Arena, batch: &mut TxBatch, bytes: &[u8]) {
    let head = arena.allocate(Owners::TRANSMIT).unwrap();
    arena.room_mut(head)[..bytes.len()].copy_from_slice(bytes);
    let len = bytes.len() as u16;
    let packet = Transmit { head, total: len.into(), len, frames: 1, ..Transmit::default() };
    batch.push(packet).unwrap();
}

/// Packets by the port into a file, by the port out of it again.
#[test]
fn a_port_records_and_replays() {
    let folder = Folder::new("records");
    for name in ["a.pcap", "a.pcapng"] {
        let path = folder.file(name);
        let mut port = PcapPort::open(None, Some(&path)).unwrap();
        port = port.with_epoch(Duration::from_secs(1_700_000_000));
        assert!(port.exhausted());
        let mut arena = arena(128);
        for turn in 0..3u8 {
            let mut batch = TxBatch::new();
            for number in 0..50 {
                transmit(&mut arena, &mut batch, &[turn, number, 3, 4]);
            }
            let now = Instant::from_micros(turn.into());
            assert_eq!(port.tx(now, &mut arena, &mut batch).unwrap(), 50);
        }
        assert_eq!(port.statistics().system_calls, 4);
        port.finish().unwrap();
        port.close(&mut arena);
        assert_eq!(arena.free(), 128);

        let mut port = PcapPort::open(Some(&path), None).unwrap();
        let mut numbers = Vec::new();
        while !port.exhausted() {
            assert!(!port.arm(Instant::ZERO));
            let mut batch = RxBatch::new();
            port.rx(Instant::ZERO, &mut arena, &mut batch).unwrap();
            for &head in batch.iter() {
                let &[turn, number, 3, 4] = arena.bytes(head) else { panic!("other bytes") };
                let time = 1_700_000_000_000_000_000 + u64::from(turn) * 1000;
                assert_eq!(arena.meta(head).timestamp, time);
                numbers.push(u32::from(turn) * 50 + u32::from(number));
                arena.release_chain(head, Owners::RECEIVED);
            }
        }
        assert!(port.arm(Instant::ZERO) && port.next_arrival().is_none());
        assert_eq!(numbers, (0..150).collect::<Vec<_>>());
        port.close(&mut arena);
        assert_eq!(arena.free(), 128);
    }
}

#[test]
fn a_port_replays_at_the_original_pace() {
    let file = written(FileFormat::PcapNg, ByteOrder::Little, &sample(FileFormat::PcapNg));
    let input = Some(("test".to_owned(), Box::new(Cursor::new(file)) as _));
    let mut port = PcapPort::new(input, None).unwrap().at_original_pace();
    let mut arena = arena(8);
    let start = Instant::from_millis(77);
    for at in 0..4u64 {
        let due = start + Duration::from_millis(at);
        let early = Instant::from_nanos(due.as_nanos() - 1);
        let mut batch = RxBatch::new();
        if at > 0 {
            assert_eq!(port.rx(early, &mut arena, &mut batch).unwrap(), 0);
            assert_eq!(port.next_arrival(), Some(due));
            assert!(port.arm(early) && !port.arm(due));
        }
        assert_eq!(port.rx(due, &mut arena, &mut batch).unwrap(), 1);
    }
    assert_eq!(port.rx(Instant::FAR_FUTURE, &mut arena, &mut RxBatch::new()).unwrap(), 0);
    assert!(port.exhausted());
}

#[test]
fn a_port_delivers_what_is_whole_before_the_error() {
    let packets = sample(FileFormat::PcapNanos);
    let mut file = written(FileFormat::PcapNanos, ByteOrder::Little, &packets);
    file.truncate(file.len() - 1);
    let input = Some(("cut.pcap".to_owned(), Box::new(Cursor::new(file)) as _));
    let mut port = PcapPort::new(input, None).unwrap();
    let mut arena = arena(8);
    let mut batch = RxBatch::new();
    assert_eq!(port.rx(Instant::ZERO, &mut arena, &mut batch).unwrap(), 3);
    assert!(!port.arm(Instant::ZERO), "an error waits to be seen");
    for _ in 0..2 {
        let error = port.rx(Instant::ZERO, &mut arena, &mut batch).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().starts_with("cut.pcap: byte "), "{error}");
    }
}

/// /dev/full is a disk without room.
#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let full = PathBuf::from("/dev/full");
    let error = PcapPort::open(None, Some(&full)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("/dev/full"), "{error}");

    /// Has room for so many bytes.
    struct Small(usize);
    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            if count == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(count) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let output = ("small.pcap".to_owned(), Box::new(Small(200)) as _, FileFormat::PcapNanos);
    let mut port = PcapPort::new(None, Some(output)).unwrap();
    let mut arena = arena(8);
    let mut batch = TxBatch::new();
    transmit(&mut arena, &mut batch, &[0; 300]);
    transmit(&mut arena, &mut batch, &[0; 300]);
    let error = port.tx(Instant::ZERO, &mut arena, &mut batch).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("small.pcap"), "{error}");
    assert_eq!((arena.free(), batch.len()), (8, 0));
    assert!(port.finish().is_err());
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = Folder::new("named");
    let missing = folder.file("missing.pcap");
    let error = PcapPort::open(Some(&missing), None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("missing.pcap"), "{error}");
    assert!(PcapPort::open(None, None).is_err());
    let both = folder.file("both.pcap");
    fs::write(&both, written(FileFormat::PcapNanos, ByteOrder::Little, &[])).unwrap();
    let error = PcapPort::open(Some(&both), Some(&both)).unwrap_err();
    assert!(error.to_string().contains("read and written at once"), "{error}");
    assert_eq!(fs::metadata(&both).unwrap().len(), 24, "the file was not touched");
    let error = PcapPort::open(Some(&folder.0), None).unwrap_err();
    assert!(error.to_string().contains("named"), "{error}");
}

/// tcpdump reads what we write, and we read what tcpdump writes.
#[test]
fn tcpdump_agrees() {
    let folder = Folder::new("tcpdump");
    if Command::new("tcpdump").arg("--version").output().is_err() {
        println!("SKIP tcpdump_agrees: there is no tcpdump");
        return;
    }
    for format in FORMATS {
        for order in ORDERS {
            let ours = folder.file("ours");
            let mut packets = sample(format);
            for packet in &mut packets {
                packet.nanos -= packet.nanos % 1000;
            }
            fs::write(&ours, written(format, order, &packets)).unwrap();
            let theirs = folder.file("theirs");
            let run = Command::new("tcpdump")
                .args(["-Z", "root", "-r"])
                .arg(&ours)
                .arg("-w")
                .arg(&theirs)
                .output()
                .unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            let (back, error) = read(&fs::read(&theirs).unwrap());
            assert!(error.is_none(), "{error:?}");
            assert_eq!(back, packets, "{format:?} {order:?}");
        }
    }
}
