//! `millrace-bench latency`: what one step costs on this machine: a load from each cache and from
//! memory, a system call, a switch between threads, a wake-up across cores, a round trip through
//! loopback.
//!
//! Each is measured in batches of some milliseconds; the rows tell the median and the least batch,
//! since everything else that runs here only adds.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::getppid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::options::{Failure, Options};

/// One cache line; the first word is the number of the next.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u32; 16]);

/// What a round trip through loopback carries each way.
const MESSAGE: usize = 1024;
/// Enough that the clock's own cost does not show.
const BATCH: Duration = Duration::from_millis(4);
const MOST_BYTES: usize = 1 << 30;
const MOST_BATCHES: usize = 1000;

/// One measured step.
struct Row {
    what: &'static str,
    /// The working set; 0 where there is none to speak of.
    bytes: usize,
    median: f64,
    least: f64,
}

impl Row {
    fn json(&self) -> String {
        format!(
            r#"{{"what": "{}", "bytes": {}, "ns": {:.2}, "least_ns": {:.2}}}"#,
            self.what, self.bytes, self.median, self.least
        )
    }
}

/// Runs the command with what follows its name, and prints its rows as JSON.
///
/// # Errors
/// A wrong command line, or a CPU that may not be used.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let options = Options::parse(arguments, &["bytes", "cpus", "batches"])?;
    let sizes: String = options.value("bytes", String::new())?;
    let sizes = numbers("bytes", &sizes)?;
    let cpus: String = options.value("cpus", "0".to_owned())?;
    let cpus = numbers("cpus", &cpus)?;
    let batches: usize = options.value("batches", 15)?;
    if !(1..=MOST_BATCHES).contains(&batches) {
        return Err(Failure::Usage(format!("--batches {batches}: 1 to {MOST_BATCHES}")));
    }
    if let Some(size) = sizes.iter().find(|size| !(128..=MOST_BYTES).contains(*size)) {
        return Err(Failure::Usage(format!("--bytes {size}: 128 to {MOST_BYTES}")));
    }
    if cpus.is_empty() || cpus.iter().any(|cpu| *cpu >= CpuSet::MAX_CPU) {
        return Err(Failure::Usage("--cpus: one or two numbers of CPUs".into()));
    }
    let rows = measure(&sizes, &cpus, batches)
        .map_err(|error| Failure::of("measuring latencies", error))?;
    let lines: Vec<String> = rows.iter().map(|row| format!("  {}", row.json())).collect();
    println!("[\n{}\n]", lines.join(",\n"));
    Ok(())
}

fn numbers(name: &str, text: &str) -> Result<Vec<usize>, Failure> {
    text.split(',')
        .filter(|word| !word.is_empty())
        .map(|word| {
            word.parse().map_err(|error| Failure::Usage(format!("--{name} {word:?}: {error}")))
        })
        .collect()
}

fn measure(sizes: &[usize], cpus: &[usize], batches: usize) -> io::Result<Vec<Row>> {
    let every = sched_getaffinity(None)?;
    let here = only(cpus[0]);
    sched_setaffinity(None, &here)?;
    let mut rows = Vec::new();
    for &bytes in sizes {
        let mut chase = Chase::new(bytes);
        let samples = sample(batches, |times| {
            chase.run(times);
            Ok(())
        })?;
        rows.push(row("load", bytes, &samples, 1.0));
    }
    let samples = sample(batches, |times| {
        for _ in 0..times {
            black_box(getppid());
        }
        Ok(())
    })?;
    rows.push(row("system call", 0, &samples, 1.0));
    let samples = sample(batches, |times| {
        for _ in 0..times {
            black_box(Instant::now());
        }
        Ok(())
    })?;
    rows.push(row("clock", 0, &samples, 1.0));

    // There and back is two switches, each with a write and a read of a pipe.
    let switches = |first: &CpuSet, second: &CpuSet| -> io::Result<Vec<f64>> {
        sched_setaffinity(None, first)?;
        let mut peer = PipePeer::start(*second)?;
        let samples = sample(batches, |times| peer.exchange(times));
        peer.end()?;
        samples
    };
    rows.push(row("switch, one core", 0, &switches(&here, &here)?, 0.5));
    rows.push(row("switch, no affinity", 0, &switches(&every, &every)?, 0.5));
    if let Some(&other) = cpus.get(1) {
        rows.push(row("wake-up, other core", 0, &switches(&here, &only(other))?, 0.5));
    }
    let round_trips = |second: &CpuSet| -> io::Result<Vec<f64>> {
        sched_setaffinity(None, &here)?;
        let mut peer = LoopbackPeer::start(*second)?;
        let samples = sample(batches, |times| peer.exchange(times));
        peer.end()?;
        samples
    };
    rows.push(row("loopback 1 KiB, one core", MESSAGE, &round_trips(&here)?, 1.0));
    if let Some(&other) = cpus.get(1) {
        rows.push(row("loopback 1 KiB, two cores", MESSAGE, &round_trips(&only(other))?, 1.0));
    }
    Ok(rows)
}

fn only(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu);
    set
}

fn row(what: &'static str, bytes: usize, samples: &[f64], share: f64) -> Row {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    Row { what, bytes, median: share * sorted[sorted.len() / 2], least: share * sorted[0] }
}

/// Nanoseconds a step, in each of some batches; `step` does it so many times.
fn sample(batches: usize, mut step: impl FnMut(u64) -> io::Result<()>) -> io::Result<Vec<f64>> {
    let mut times: u64 = 16;
    // Also warms up what it measures.
    while timed(&mut step, times)? < BATCH && times < 1 << 40 {
        times *= 2;
    }
    (0..batches).map(|_| Ok(timed(&mut step, times)?.as_secs_f64() * 1e9 / times as f64)).collect()
}

fn timed(step: &mut impl FnMut(u64) -> io::Result<()>, times: u64) -> io::Result<Duration> {
    let begun = Instant::now();
    step(times)?;
    Ok(begun.elapsed())
}

/// Loads that depend on each other, in an order that no prefetcher guesses.
struct Chase {
    lines: Vec<Line>,
    at: u32,
}

impl Chase {
    fn new(bytes: usize) -> Self {
        let count = (bytes / size_of::<Line>()).max(2);
        // One cycle through all of them (Sattolo's algorithm), from a fixed seed.
        let mut order: Vec<u32> = (0..count as u32).collect();
        let mut seed: u64 = 0x9E37_79B9_7F4A_7C15;
        for at in (1..count).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order.swap(at, (seed >> 33) as usize % at);
        }
        let mut lines = vec![Line([0; 16]); count];
        for (line, next) in lines.iter_mut().zip(order) {
            line.0[0] = next;
        }
        Self { lines, at: 0 }
    }

    fn run(&mut self, times: u64) {
        let mut at = self.at;
        for _ in 0..times {
            at = self.lines[at as usize].0[0];
        }
        self.at = black_box(at);
    }
}

/// A thread that answers each byte of a pipe by a byte of another.
struct PipePeer {
    read: OwnedFd,
    write: Option<OwnedFd>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl PipePeer {
    fn start(cpus: CpuSet) -> io::Result<Self> {
        let (their_read, write) = rustix::pipe::pipe()?;
        let (read, their_write) = rustix::pipe::pipe()?;
        let thread = thread::spawn(move || {
            sched_setaffinity(None, &cpus)?;
            let mut byte = [0];
            while rustix::io::read(&their_read, &mut byte)? == 1 {
                rustix::io::write(&their_write, &byte)?;
            }
            Ok(())
        });
        Ok(Self { read, write: Some(write), thread })
    }

    fn exchange(&mut self, times: u64) -> io::Result<()> {
        let write = self.write.as_ref().expect("it was not ended");
        let mut byte = [1];
        for _ in 0..times {
            rustix::io::write(write, &byte)?;
            if rustix::io::read(&self.read, &mut byte)? != 1 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        self.write = None;
        self.thread.join().expect("the peer does not panic")
    }
}

/// A thread that answers each message on a connection through loopback.
struct LoopbackPeer {
    stream: TcpStream,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl LoopbackPeer {
    fn start(cpus: CpuSet) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (mut peer, _) = listener.accept()?;
        for end in [&stream, &peer] {
            end.set_nodelay(true)?;
        }
        let thread = thread::spawn(move || {
            sched_setaffinity(None, &cpus)?;
            let mut message = [0; MESSAGE];
            loop {
                match peer.read_exact(&mut message) {
                    Ok(()) => peer.write_all(&message)?,
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        });
        Ok(Self { stream, thread })
    }

    fn exchange(&mut self, times: u64) -> io::Result<()> {
        let mut message = [1; MESSAGE];
        for _ in 0..times {
            self.stream.write_all(&message)?;
            self.stream.read_exact(&mut message)?;
        }
        Ok(())
    }

    fn end(self) -> io::Result<()> {
        drop(self.stream);
        self.thread.join().expect("the peer does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chase_visits_every_line_once_before_it_is_back() {
        for count in [2, 3, 64, 1000] {
            let mut chase = Chase::new(count * size_of::<Line>());
            let mut seen = vec![false; count];
            for _ in 0..count {
                assert!(!seen[chase.at as usize]);
                seen[chase.at as usize] = true;
                chase.run(1);
            }
            assert_eq!(chase.at, 0);
            assert!(seen.into_iter().all(|line| line));
        }
    }

    #[test]
    fn rows_tell_the_median_and_the_least() {
        let found = row("load", 64, &[3.0, 1.0, 2.0], 0.5);
        assert_eq!((found.median, found.least), (1.0, 0.5));
        assert_eq!(found.json(), r#"{"what": "load", "bytes": 64, "ns": 1.00, "least_ns": 0.50}"#);
    }

    #[test]
    fn every_step_is_measured() {
        let cpu = (0..CpuSet::MAX_CPU)
            .find(|cpu| sched_getaffinity(None).expect("it is known").is_set(*cpu))
            .expect("there is one");
        // On a thread of its own, because it stays where it was pinned.
        let rows = thread::spawn(move || measure(&[4096], &[cpu], 1)).join().expect("no panic");
        let rows = rows.expect("they can be measured");
        assert_eq!(rows.len(), 6);
        assert!(rows.iter().all(|row| row.least > 0.0 && row.median >= row.least));
    }

    #[test]
    fn wrong_options_are_refused() {
        for wrong in [
            "--bytes x",
            "--bytes 64",
            "--bytes 99999999999",
            "--cpus a",
            "--cpus ",
            "--cpus 99999",
            "--batches 0",
            "--batches 100000",
            "--what x",
        ] {
            let words = wrong.split(' ').map(str::to_owned);
            assert!(matches!(run(words), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
