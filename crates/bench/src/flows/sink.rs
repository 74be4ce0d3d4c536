//! Who receives flows, on the kernel's TCP: counts what arrives and when.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use millrace_port::clock;

const BUFFER: usize = 1 << 20;
/// How often what has arrived is written down.
const STEP: Duration = Duration::from_millis(50);

/// What became of a flow: bytes after each [`STEP`] from when it was accepted.
struct Flow {
    peer: SocketAddr,
    /// When it was accepted, `CLOCK_MONOTONIC`.
    begun_ns: u64,
    seconds: f64,
    bytes: u64,
    steps: Vec<u64>,
    /// Whether the sender ended it before its time.
    ended: bool,
}

/// Receives at `address`: for ever where `flows` is 0, else until so many flows have been watched
/// for `time` each, which are then printed, each on a line of JSON.
pub(super) fn run(address: SocketAddr, flows: usize, time: Duration) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening");
    let (tell, told) = mpsc::channel();
    for number in 0.. {
        if flows > 0 && number == flows {
            break;
        }
        let (stream, peer) = listener.accept()?;
        let tell = tell.clone();
        std::thread::spawn(move || {
            let flow = receive(stream, peer, time);
            // Without a number of flows nobody listens.
            let _ = tell.send(flow);
        });
        if flows == 0 {
            while told.try_recv().is_ok() {}
        }
    }
    drop(tell);
    for flow in told {
        let flow = flow?;
        let steps: Vec<String> = flow.steps.iter().map(u64::to_string).collect();
        println!(
            "{{\"peer\": \"{}\", \"begun_ns\": {}, \"seconds\": {}, \"bytes\": {}, \"ended\": {}, \
             \"step_ms\": {}, \"steps\": [{}]}}",
            flow.peer.ip(),
            flow.begun_ns,
            flow.seconds,
            flow.bytes,
            flow.ended,
            STEP.as_millis(),
            steps.join(", ")
        );
    }
    Ok(())
}

/// Reads until the end, or for so long.
fn receive(mut stream: TcpStream, peer: SocketAddr, time: Duration) -> io::Result<Flow> {
    let begun_ns = clock::now().as_nanos();
    let begun = Instant::now();
    let mut flow = Flow { peer, begun_ns, seconds: 0.0, bytes: 0, steps: Vec::new(), ended: false };
    let mut buffer = vec![0; BUFFER];
    loop {
        let passed = begun.elapsed();
        if time != Duration::MAX {
            while STEP * (flow.steps.len() as u32 + 1) <= passed.min(time) {
                flow.steps.push(flow.bytes);
            }
        }
        if passed >= time {
            flow.seconds = passed.as_secs_f64();
            return Ok(flow);
        }
        let patience = if time == Duration::MAX { super::PATIENCE } else { STEP };
        stream.set_read_timeout(Some(patience.min(time - passed).max(Duration::from_millis(1))))?;
        match stream.read(&mut buffer) {
            Ok(0) => {
                flow.ended = true;
                flow.seconds = begun.elapsed().as_secs_f64();
                return Ok(flow);
            }
            Ok(bytes) => flow.bytes += bytes as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && time != Duration::MAX => {}
            Err(error) => return Err(error),
        }
    }
}
