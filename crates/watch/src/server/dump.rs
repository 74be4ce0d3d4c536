//! Frames of publishers as a pcapng stream.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use millrace_port::clock;
use millrace_port::pcap::{ByteOrder, Direction, FileFormat, PacketInfo, PcapWriter};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Quiet, TURN, find, send};
use crate::source::{Ask, Source};
use crate::tap::{self, TapReader, tap};

/// How often to look whether a publisher has come by.
const LOOK_AGAIN: Duration = Duration::from_micros(500);
/// How long to wait before a publisher that has no room for another tap is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How long to wait for frames when none has come.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// How long the process's last publisher waits for its frames to get away: as a rule it leaves
/// because the process ends, and takes this thread along.
const LAST_FRAMES: Duration = Duration::from_millis(250);

/// Streams that are not through.
static STREAMS: AtomicUsize = AtomicUsize::new(0);

/// Counted for as long as it lives.
struct Stream;

impl Stream {
    fn begin() -> Stream {
        STREAMS.fetch_add(1, Ordering::Relaxed);
        Stream
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        STREAMS.fetch_sub(1, Ordering::Release);
    }
}

/// Forgets streams whose threads a fork has left behind.
pub(super) fn forget() {
    STREAMS.store(0, Ordering::Relaxed);
}

/// Waits until the streams are through, but not for clients that do not read.
pub(super) fn wait_for_streams() {
    let patience = Instant::now() + LAST_FRAMES;
    while STREAMS.load(Ordering::Acquire) > 0 && Instant::now() < patience {
        thread::sleep(LOOK_AGAIN);
    }
}

pub(super) fn dump(
    stream: &mut UnixStream,
    sources: &[u32],
    snap: usize,
    buffer: usize,
) -> io::Result<()> {
    let _counted = Stream::begin();
    let sources = sources.iter().map(|&number| find(number)).collect::<io::Result<Vec<_>>>()?;
    let mut readers = Vec::with_capacity(sources.len());
    for source in &sources {
        readers.push(ask(source, snap, buffer)?);
    }
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    // Publishers that leave must not be kept by us.
    let sources: Vec<Weak<Source>> = sources.iter().map(Arc::downgrade).collect();
    // What passes after the answer is to be seen. Who makes no turn is not waited for: its frames come
    // when it makes one.
    let patience = Instant::now() + TURN;
    for (source, reader) in sources.iter().zip(&mut readers) {
        wait_until_settled(reader, patience);
        while let Some(source) = refused_by(source, reader) {
            if Instant::now() >= patience {
                let text = format!(
                    "as many as can look at the frames of {} do so already; end one of them",
                    source.name
                );
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            // Who was killed gives its place back when its thread has noticed.
            thread::sleep(ASK_AGAIN);
            *reader = ask(&source, snap, buffer)?;
            drop(source);
            wait_until_settled(reader, patience);
        }
    }
    send(stream, &[b"ok\n"])?;
    // A reader that pauses only loses frames, which is counted.
    stream.set_write_timeout(None)?;
    stream.set_nonblocking(false)?;
    // What went wrong with the stream has nobody left to be told to.
    let _ = copy(stream, &names, &mut readers);
    Ok(())
}

fn ask(source: &Source, snap: usize, buffer: usize) -> io::Result<TapReader> {
    let (tap, reader) = tap(snap, buffer);
    source.ask(Ask::Tap(tap))?;
    Ok(reader)
}

/// Waits until the tap is placed or thrown away.
fn wait_until_settled(reader: &TapReader, patience: Instant) {
    while Instant::now() < patience && !(reader.is_placed() || reader.is_ended()) {
        thread::sleep(LOOK_AGAIN);
    }
}

/// The source, if it is there and has thrown the tap away.
fn refused_by(source: &Weak<Source>, reader: &TapReader) -> Option<Arc<Source>> {
    // In this order: a source that leaves throws its taps away before it goes.
    let source = source.upgrade()?;
    (reader.is_ended() && !reader.is_placed()).then_some(source)
}

fn copy(stream: &UnixStream, names: &[String], readers: &mut [TapReader]) -> io::Result<()> {
    let epoch = clock::wall() - (clock::now() - millrace_frames::Instant::ZERO);
    let mut writer = PcapWriter::new(
        Quiet(stream),
        "the client's socket",
        &names[0],
        FileFormat::PcapNg,
        ByteOrder::Little,
    )?;
    for name in &names[1..] {
        writer.add_interface(name)?;
    }
    writer.flush()?;
    let mut last_round = false;
    loop {
        let ended = readers.iter().all(TapReader::is_ended);
        let mut moved = false;
        for (interface, reader) in readers.iter_mut().enumerate() {
            while let Some(seen) = reader.next() {
                moved = true;
                let info = PacketInfo {
                    interface: interface as u32,
                    timestamp: seen.time + epoch,
                    original_len: seen.original,
                    direction: Some(match seen.direction {
                        tap::Direction::Inbound => Direction::Inbound,
                        tap::Direction::Outbound => Direction::Outbound,
                    }),
                };
                writer.append(&info, [seen.bytes])?;
            }
        }
        writer.flush()?;
        if last_round || (ended && !moved) {
            break;
        }
        if client_is_done(stream, moved)? {
            readers.iter().for_each(TapReader::stop);
            last_round = true;
        }
    }
    let now = clock::now() + epoch;
    for (interface, reader) in readers.iter().enumerate() {
        let (seen, lost) = reader.counts();
        writer.write_statistics(interface as u32, now, seen + lost, lost)?;
    }
    writer.flush()
}

/// Whether the client has shut down its side or is gone. Waits a little for that unless there is
/// work.
fn client_is_done(mut stream: &UnixStream, busy: bool) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)];
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut fds, Some(if busy { &none } else { &REST })) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Ok(false),
        // Anything that it says now is thrown away.
        Ok(_) => Ok(stream.read(&mut [0; 256])? == 0),
        Err(error) => Err(error.into()),
    }
}
