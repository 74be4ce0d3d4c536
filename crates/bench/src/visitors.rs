//! Well-behaved clients of an HTTP server, over the kernel's TCP, at a given rate: some on
//! connections that they keep, some on a new one each time.
//!
//! A request has its time on a clock, whether or not the ones before it were answered in time, and
//! its latency counts from there. A client that falls a second behind leaves out what it missed, and
//! that is counted.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::options::{Failure, Options};

/// How often is told what happened.
const TELL: Duration = Duration::from_millis(250);
/// A request that is not answered by then has failed. A lost SYN is sent again after one second.
const PATIENCE: Duration = Duration::from_millis(2500);
/// How far behind its time a client may be.
const BEHIND: Duration = Duration::from_secs(1);
/// Steps of the latency's histogram within a power of two.
const STEPS: u32 = 16;
const BUCKETS: usize = (64 * STEPS) as usize;

struct Tally {
    kept: u64,
    new: u64,
    failed_kept: u64,
    failed_new: u64,
    missed: u64,
    /// Requests by latency, see [`bucket`].
    latencies: Box<[u32; BUCKETS]>,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            kept: 0,
            new: 0,
            failed_kept: 0,
            failed_new: 0,
            missed: 0,
            latencies: Box::new([0; BUCKETS]),
        }
    }
}

/// The place of a latency: powers of two of microseconds, each in equal steps.
fn bucket(latency: Duration) -> usize {
    let micros = (latency.as_micros() as u64).max(1);
    let power = micros.ilog2();
    let step = if power >= 4 { (micros >> (power - 4)) as u32 - STEPS } else { 0 };
    (power * STEPS + step) as usize
}

/// The greatest latency of a place, in microseconds.
fn upper(bucket: usize) -> u64 {
    let (power, step) = (bucket as u32 / STEPS, u64::from(bucket as u32 % STEPS));
    if power < 4 {
        (1 << (power + 1)) - 1
    } else {
        ((u64::from(STEPS) + step + 1) << (power - 4)) - 1
    }
}

#[derive(Clone, Copy)]
struct Plan {
    to: SocketAddr,
    body: usize,
    /// Between two requests of one client.
    interval: Duration,
    /// Its first, after the beginning.
    offset: Duration,
    keep: bool,
}

/// `millrace-bench visitors`: prints a line of JSON four times a second.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let known = ["to", "rate", "new-rate", "clients", "seconds", "body"];
    let options = Options::parse(arguments, &known)?;
    let to: SocketAddr = options.required("to")?;
    let rates = [options.value("rate", 1000.0)?, options.value("new-rate", 200.0)?];
    let clients: u32 = options.value("clients", 16)?;
    let seconds: f64 = options.required("seconds")?;
    let body = options.value("body", 1024)?;
    let valid = |rate: &f64| rate.is_finite() && (0.0..1e6).contains(rate);
    if clients == 0 || !rates.iter().all(valid) || !(0.0..1e6).contains(&seconds) {
        return Err(Failure::Usage("rates, seconds and clients are numbers above 0".into()));
    }
    let tally = Mutex::new(Tally::new());
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    std::thread::scope(|scope| {
        for (rate, keep) in rates.into_iter().zip([true, false]) {
            for client in 0..clients {
                if rate == 0.0 {
                    continue;
                }
                let plan = Plan {
                    to,
                    body,
                    interval: Duration::from_secs_f64(f64::from(clients) / rate),
                    offset: Duration::from_secs_f64(f64::from(client) / rate),
                    keep,
                };
                let tally = &tally;
                scope.spawn(move || visit(plan, begun, end, tally));
            }
        }
        let mut next = begun + TELL;
        while next <= end {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            tell(&tally);
            next += TELL;
        }
    });
    Ok(())
}

fn tell(tally: &Mutex<Tally>) {
    let Ok(mut tally) = tally.lock() else { return };
    let tally = core::mem::replace(&mut *tally, Tally::new());
    let latencies: Vec<String> = (0..BUCKETS)
        .filter(|&place| tally.latencies[place] > 0)
        .map(|place| format!("[{}, {}]", upper(place), tally.latencies[place]))
        .collect();
    println!(
        "{{\"at_ns\": {}, \"kept\": {}, \"new\": {}, \"failed_kept\": {}, \"failed_new\": {}, \
         \"missed\": {}, \"latencies_us\": [{}]}}",
        millrace_port::clock::now().as_nanos(),
        tally.kept,
        tally.new,
        tally.failed_kept,
        tally.failed_new,
        tally.missed,
        latencies.join(", ")
    );
}

fn visit(plan: Plan, begun: Instant, end: Instant, tally: &Mutex<Tally>) {
    let mut due = begun + plan.offset;
    let mut kept: Option<TcpStream> = None;
    let mut buffer = vec![0; plan.body + 4096];
    while due < end {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut missed = 0;
        while due + BEHIND < Instant::now() {
            due += plan.interval;
            missed += 1;
        }
        let result = match kept.take().map_or_else(|| connect(plan.to), Ok) {
            Ok(mut stream) => request(&mut stream, &plan, &mut buffer).map(|()| stream),
            Err(error) => Err(error),
        };
        let latency = due.elapsed();
        due += plan.interval;
        let Ok(mut tally) = tally.lock() else { return };
        tally.missed += missed;
        match result {
            Ok(stream) => {
                tally.latencies[bucket(latency)] += 1;
                if plan.keep {
                    tally.kept += 1;
                    kept = Some(stream);
                } else {
                    tally.new += 1;
                }
            }
            Err(_) if plan.keep => tally.failed_kept += 1,
            Err(_) => tally.failed_new += 1,
        }
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks, and reads one whole answer.
fn request(stream: &mut TcpStream, plan: &Plan, buffer: &mut [u8]) -> io::Result<()> {
    let question: &[u8] = match plan.keep {
        true => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        false => b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    };
    let begun = Instant::now();
    stream.write_all(question)?;
    let (mut have, mut need) = (0, None);
    loop {
        if let Some(need) = need
            && have >= need
        {
            return if buffer.starts_with(b"HTTP/1.1 200 ") && have == need {
                Ok(())
            } else {
                Err(io::ErrorKind::InvalidData.into())
            };
        }
        if begun.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(&mut buffer[have..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => have += bytes,
        }
        if need.is_none() {
            let end = buffer[..have].windows(4).position(|window| window == b"\r\n\r\n");
            need = end.map(|end| end + 4 + plan.body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_not_above_its_place_and_near_it() {
        for micros in (1..5000).chain([10_000, 123_456, 2_500_000]) {
            let place = bucket(Duration::from_micros(micros));
            let seen = upper(place);
            assert!(seen >= micros && seen <= micros * 2, "{micros} {seen}");
            if micros >= 16 {
                assert!(seen as f64 <= micros as f64 * 1.07, "{micros} {seen}");
            }
            assert!(place == 0 || upper(place - 1) < seen);
        }
    }
}
