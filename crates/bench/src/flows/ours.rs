//! Flows sent by our stack.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millrace_channel::{Channel, Completions, Handle, Kind};

use super::{CHUNK, PATIENCE, Short};

pub(super) fn bulk(
    mut channel: Channel,
    to: SocketAddr,
    time: Duration,
) -> io::Result<Vec<(&'static str, u64)>> {
    let chunk = vec![0x5a; CHUNK];
    let handle = channel.connect(to, None)?;
    let mut batch = Completions::new();
    let end = Instant::now() + time;
    let mut written = 0;
    let mut ended = false;
    while !ended {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        channel.turn(&mut batch, Some(left))?;
        for done in &batch {
            match done.kind {
                Kind::Connected | Kind::Writable => {
                    written += fill(&mut channel, handle, &chunk)?;
                }
                Kind::Closed => match done.error() {
                    // The receiver has seen enough.
                    Some(error) if error.kind() == io::ErrorKind::ConnectionReset => ended = true,
                    Some(error) => return Err(error),
                    None => ended = true,
                },
                _ => {}
            }
        }
    }
    let mut figures = vec![("written", written)];
    figures.extend(channel.stack().counters().iter());
    figures.extend(channel.counters().iter());
    figures.extend(channel.statistics().drops.iter().filter(|(_, count)| *count > 0));
    Ok(figures)
}

/// Writes until the send buffer is full.
fn fill(channel: &mut Channel, handle: Handle, chunk: &[u8]) -> io::Result<u64> {
    let mut written = 0;
    loop {
        let taken = match channel.write(handle, chunk) {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(written),
            Err(error) => return Err(error),
        };
        written += taken as u64;
        if taken < chunk.len() {
            return Ok(written);
        }
    }
}

/// A flow under way.
struct Flow {
    handle: Handle,
    begun: Instant,
    /// Bytes not written yet.
    left: usize,
}

/// The time of each flow, from connect to the peer's end; none for one that failed.
pub(super) fn short(mut channel: Channel, work: &Short) -> io::Result<Vec<Option<Duration>>> {
    // One more, which learns the peer's hardware address and says at once what is wrong with all.
    let first = Short { to: work.to, bytes: 1, count: 1, parallel: 1 };
    if run(&mut channel, &first)? != [None] {
        return run(&mut channel, work);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the first flow did not come to its end"))
}

fn run(channel: &mut Channel, work: &Short) -> io::Result<Vec<Option<Duration>>> {
    let data = vec![0x5a; work.bytes];
    let mut batch = Completions::new();
    let mut flows: Vec<Flow> = Vec::with_capacity(work.parallel);
    let mut times = Vec::with_capacity(work.count);
    while times.len() < work.count {
        while flows.len() < work.parallel && times.len() + flows.len() < work.count {
            let begun = Instant::now();
            let handle = channel.connect(work.to, None)?;
            flows.push(Flow { handle, begun, left: work.bytes });
        }
        channel.turn(&mut batch, Some(Duration::from_millis(100)))?;
        for done in &batch {
            let Some(at) = flows.iter().position(|flow| flow.handle == done.handle) else {
                continue;
            };
            match done.kind {
                Kind::Connected | Kind::Writable => send(channel, &mut flows[at], &data)?,
                Kind::Finished => {
                    let flow = flows.swap_remove(at);
                    times.push(Some(flow.begun.elapsed()));
                    channel.close_handle(flow.handle);
                }
                Kind::Closed => {
                    flows.swap_remove(at);
                    times.push(None);
                }
                _ => {}
            }
        }
        while let Some(at) = flows.iter().position(|flow| flow.begun.elapsed() > PATIENCE) {
            channel.abort(flows.swap_remove(at).handle);
            times.push(None);
        }
    }
    Ok(times)
}

/// Writes what there is room for, and the end behind it.
fn send(channel: &mut Channel, flow: &mut Flow, data: &[u8]) -> io::Result<()> {
    if flow.left == 0 {
        return Ok(());
    }
    flow.left -= channel.write(flow.handle, &data[..flow.left])?;
    if flow.left == 0 {
        channel.shutdown_write(flow.handle)?;
    }
    Ok(())
}
