//! Captures from wires in memory and from files, into files, rows and counts.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use millrace_bpf::classic::{Instruction, Program};
use millrace_frames::{Arena, ArenaConfig, Duration, Hugepages};
use millrace_packets::capture::{
    Capture, End, Limits, Output, Rotation, Settings, Sink, Source, SourceOptions,
};
use millrace_packets::{Filter, RawPort, SharedArena};
use millrace_port::memory::{WireConfig, wire};
use millrace_port::pcap::{FileFormat, PcapReader};

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("capture-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The names of its files, in order.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn arena() -> SharedArena {
    let config = ArenaConfig { frames: 4096, frame_size: 2048, hugepages: Hugepages::Never };
    SharedArena::new(Arena::new(config).unwrap())
}

/// Frames that tell where one is missing.
fn frames(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number as u8; 60 + number % 900]).collect()
}

/// A wire that has carried `frames` and ends with them.
fn carried(frames: &[Vec<u8>], options: SourceOptions) -> Source {
    let (a, b) = wire(WireConfig { queue: 4096, ..WireConfig::by_name(9000) });
    let (mut left, right) = (
        RawPort::new(Box::new(a), arena(), Vec::new()),
        RawPort::new(Box::new(b), arena(), Vec::new()),
    );
    assert_eq!(left.send_bytes(frames.iter().map(Vec::as_slice)).unwrap(), frames.len());
    left.close().unwrap();
    Source::of(right.filtered(options.filter.clone()), options)
}

fn settings(path: &Path, rotation: Rotation, format: FileFormat) -> Settings {
    let output = Output::Path(path.to_owned());
    Settings { output, format, rotation, program: "test".to_owned(), directions: false }
}

fn files(path: &Path, rotation: Rotation) -> Sink {
    Sink::Files(Box::new(settings(path, rotation, FileFormat::PcapNg)))
}

/// The packets of a file, and what it says was received and lost.
fn read(path: &Path) -> (Vec<Vec<u8>>, Option<u64>, Option<u64>) {
    let mut reader = PcapReader::new(File::open(path).unwrap(), "it").unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet().unwrap() {
        packets.push(packet.bytes.to_vec());
    }
    let interface = reader.interfaces().first().cloned().unwrap_or_default();
    (packets, interface.received, interface.dropped)
}

#[test]
fn what_came_is_in_the_file() {
    let folder = Folder::new();
    for (name, format) in [
        ("a.pcapng", FileFormat::PcapNg),
        ("b.pcap", FileFormat::PcapNanos),
        ("c.pcap", FileFormat::PcapMicros),
    ] {
        let sent = frames(2000);
        let path = folder.path(name);
        let sink = Sink::Files(Box::new(settings(&path, Rotation::default(), format)));
        let source = carried(&sent, SourceOptions::default());
        let mut capture = Capture::new(source, sink, Limits::default(), None).unwrap();
        assert_eq!(capture.run().unwrap(), End::Exhausted);
        let progress = capture.control().progress();
        assert_eq!((progress.packets, progress.files, progress.unwritten), (2000, 1, 0));
        assert_eq!(progress.bytes, sent.iter().map(|frame| frame.len() as u64).sum::<u64>());
        assert_eq!(progress.written, fs::metadata(&path).unwrap().len());
        let (packets, received, dropped) = read(&path);
        assert!(packets == sent);
        if format == FileFormat::PcapNg {
            assert_eq!((received, dropped), (Some(2000), Some(0)));
        }
    }
}

#[test]
fn packets_are_cut_and_counted() {
    let folder = Folder::new();
    let sent = frames(100);
    let options = SourceOptions { snap_length: 70, ..SourceOptions::default() };
    let sink = files(&folder.path("a.pcapng"), Rotation::default());
    let mut capture = Capture::new(carried(&sent, options), sink, Limits::default(), None).unwrap();
    capture.run().unwrap();
    let long = sent.iter().filter(|frame| frame.len() > 70).count() as u64;
    assert_eq!(capture.control().progress().cut, long);
    let mut reader = PcapReader::new(File::open(folder.path("a.pcapng")).unwrap(), "it").unwrap();
    for frame in &sent {
        let packet = reader.next_packet().unwrap().unwrap();
        assert_eq!(packet.bytes, &frame[..frame.len().min(70)]);
        assert_eq!(packet.original_len as usize, frame.len());
    }
    assert_eq!(reader.interfaces()[0].snap_len, 70);
}

#[test]
fn frames_of_no_bytes_and_of_many_are_kept() {
    let folder = Folder::new();
    let sent: Vec<_> = [0, 13, 14, 9014].iter().map(|&length| vec![7; length]).collect();
    let sink = files(&folder.path("a.pcapng"), Rotation::default());
    let source = carried(&sent, SourceOptions::default());
    let mut capture = Capture::new(source, sink, Limits::default(), Some(8)).unwrap();
    capture.run().unwrap();
    assert_eq!(read(&folder.path("a.pcapng")).0, sent);
}

#[test]
fn a_number_of_packets_ends_it_and_a_filter_chooses() {
    // ether[0] & 1 = 1
    let program = [(0x30, 0, 0, 0), (0x45, 0, 1, 1), (6, 0, 0, 1), (6, 0, 0, 0)];
    let program: Vec<_> =
        program.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
    let filter = Some(Filter::new(Program::new(&program).unwrap()));
    let options = SourceOptions { filter, ..SourceOptions::default() };
    let folder = Folder::new();
    let sent = frames(200);
    let limits = Limits { packets: Some(30), ..Limits::default() };
    let sink = files(&folder.path("a.pcapng"), Rotation::default());
    let mut capture = Capture::new(carried(&sent, options), sink, limits, None).unwrap();
    assert_eq!(capture.run().unwrap(), End::Packets);
    let odd: Vec<_> = sent.iter().skip(1).step_by(2).take(30).cloned().collect();
    assert_eq!(read(&folder.path("a.pcapng")).0, odd);
    assert!(capture.control().progress().filtered >= 30);
}

#[test]
fn a_time_ends_it_and_so_does_a_word() {
    let (_open, b) = wire(WireConfig::by_name(1500));
    let source =
        Source::of(RawPort::new(Box::new(b), arena(), Vec::new()), SourceOptions::default());
    let limits = Limits { time: Some(Duration::from_millis(5)), ..Limits::default() };
    let mut capture = Capture::new(source, Sink::Nothing, limits, None).unwrap();
    assert_eq!(capture.run().unwrap(), End::Time);
    assert!(capture.control().progress().elapsed >= Duration::from_millis(5));

    let (_open, b) = wire(WireConfig::by_name(1500));
    let source =
        Source::of(RawPort::new(Box::new(b), arena(), Vec::new()), SourceOptions::default());
    let mut capture = Capture::new(source, Sink::Nothing, Limits::default(), None).unwrap();
    let control = capture.control();
    let runs = std::thread::spawn(move || capture.run());
    control.stop();
    assert_eq!(runs.join().unwrap().unwrap(), End::Stopped);
}

#[test]
fn files_follow_one_another_by_size() {
    let folder = Folder::new();
    let sent: Vec<_> = frames(300)
        .into_iter()
        .map(|mut frame| {
            frame.resize(1000, 0);
            frame
        })
        .collect();
    let rotation = Rotation { bytes: Some(65_536), ..Rotation::default() };
    let sink = files(&folder.path("trace.pcapng"), rotation);
    let source = carried(&sent, SourceOptions::default());
    let mut capture = Capture::new(source, sink, Limits::default(), None).unwrap();
    capture.run().unwrap();
    let names = folder.names();
    let wanted: Vec<_> = (1..=5).map(|number| format!("trace-{number:05}.pcapng")).collect();
    assert_eq!(names, wanted);
    let mut all = Vec::new();
    for name in &names {
        let (packets, received, _) = read(&folder.path(name));
        assert!(fs::metadata(folder.path(name)).unwrap().len() <= 65_536 + 200);
        assert!(!packets.is_empty() && received.is_some());
        all.extend(packets);
    }
    assert!(all == sent);
    assert_eq!(capture.control().progress().files, 5);
}

#[test]
fn only_the_last_files_are_kept() {
    let folder = Folder::new();
    let sent: Vec<_> = frames(300).into_iter().map(|_| vec![1; 1000]).collect();
    let rotation = Rotation { bytes: Some(65_536), keep: Some(2), ..Rotation::default() };
    let sink = files(&folder.path("trace.pcap"), rotation);
    let source = carried(&sent, SourceOptions::default());
    Capture::new(source, sink, Limits::default(), None).unwrap().run().unwrap();
    assert_eq!(folder.names(), ["trace-00004.pcap", "trace-00005.pcap"]);
}

/// By the packets' own times, so a file in the past is cut up as it would have been then.
#[test]
fn files_follow_one_another_by_time() {
    let folder = Folder::new();
    let path = folder.path("in.pcapng");
    let mut file = File::create(&path).unwrap();
    let mut writer = millrace_port::pcap::PcapWriter::new(
        &mut file,
        "it",
        "eth0",
        FileFormat::PcapNg,
        millrace_port::pcap::ByteOrder::Little,
    )
    .unwrap();
    for second in [10u64, 11, 14, 15, 19, 20, 100] {
        let time = millrace_frames::Instant::from_millis(second * 1000);
        writer.write(0, time, &[second as u8; 60]).unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    let name = format!("pcap:{}", path.display()).parse().unwrap();
    let source = Source::open(&name, SourceOptions::default()).unwrap();
    let rotation = Rotation { time: Some(Duration::from_secs(5)), ..Rotation::default() };
    let sink = files(&folder.path("out.pcapng"), rotation);
    Capture::new(source, sink, Limits::default(), None).unwrap().run().unwrap();
    let first_bytes = |number| {
        let (packets, ..) = read(&folder.path(&format!("out-{number:05}.pcapng")));
        packets.iter().map(|packet| packet[0]).collect::<Vec<_>>()
    };
    assert_eq!(first_bytes(1), [10, 11, 14]);
    assert_eq!(first_bytes(2), [15, 19]);
    assert_eq!(first_bytes(3), [20]);
    assert_eq!(first_bytes(4), [100]);
}

#[test]
fn rows_come_in_tables() {
    let sent = frames(250);
    let source = carried(&sent, SourceOptions::default());
    let mut capture = Capture::new(source, Sink::Rows(100), Limits::default(), None).unwrap();
    let control = capture.control();
    capture.run().unwrap();
    let rows = control.rows().unwrap();
    let mut lengths = Vec::new();
    let mut tables = 0;
    while let (Some(table), _) = rows.take(Duration::from_secs(60)) {
        tables += 1;
        lengths.extend(table.iter().map(|header| header.length as usize));
    }
    assert_eq!(tables, 3);
    assert_eq!(lengths, sent.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(rows.take(Duration::from_secs(60)), (None, true));
}

#[test]
fn a_full_disk_is_told() {
    let sink = files(Path::new("/dev/full"), Rotation::default());
    let source = carried(&frames(5), SourceOptions::default());
    let error = Capture::new(source, sink, Limits::default(), None).unwrap_err();
    assert!(error.to_string().contains("/dev/full: writing failed: No space left"), "{error}");
}

#[test]
fn a_reader_that_goes_is_told_and_one_that_sleeps_keeps_nobody() {
    let pipe = |sent: &[Vec<u8>]| {
        let (reader, writer) = io::pipe().unwrap();
        let output = Output::File(File::from(std::os::fd::OwnedFd::from(writer)), "-".to_owned());
        let settings =
            Settings { output, ..settings(Path::new(""), Rotation::default(), FileFormat::PcapNg) };
        let source = carried(sent, SourceOptions::default());
        let sink = Sink::Files(Box::new(settings));
        (reader, Capture::new(source, sink, Limits::default(), None).unwrap())
    };
    let sent = frames(500);
    let (mut reader, mut capture) = pipe(&sent);
    let runs = std::thread::spawn(move || capture.run());
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    runs.join().unwrap().unwrap();
    let mut read = PcapReader::new(bytes.as_slice(), "it").unwrap();
    for frame in &sent {
        assert_eq!(read.next_packet().unwrap().unwrap().bytes, frame);
    }

    let (reader, mut capture) = pipe(&sent);
    drop(reader);
    let error = capture.run().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(error.to_string().contains("the reader of the pipe is gone"), "{error}");
    assert_eq!(capture.control().progress().unwritten, 500);

    let (_reader, mut capture) = pipe(&sent);
    capture.control().stop();
    let error = capture.run().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let folder = Folder::new();
    for (rotation, says) in [
        (Rotation { bytes: Some(100), ..Rotation::default() }, "65536 bytes at least, not 100"),
        (Rotation { keep: Some(3), ..Rotation::default() }, "takes a size or a time"),
    ] {
        let source = carried(&[], SourceOptions::default());
        let sink = files(&folder.path("a.pcapng"), rotation);
        let error = Capture::new(source, sink, Limits::default(), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(says), "{error}");
    }
    let sink = files(&folder.path("missing/a.pcapng"), Rotation::default());
    let error = Capture::new(carried(&[], SourceOptions::default()), sink, Limits::default(), None);
    assert!(error.unwrap_err().to_string().contains("missing/a.pcapng: cannot be written"));
    let neither = SourceOptions { incoming: false, outgoing: false, ..SourceOptions::default() };
    assert!(Source::open(&"lo".parse().unwrap(), neither).is_err());
    let queue = Source::open(&"af_packet:lo#1".parse().unwrap(), SourceOptions::default());
    assert!(queue.unwrap_err().to_string().contains("leave the queue out"));
}
