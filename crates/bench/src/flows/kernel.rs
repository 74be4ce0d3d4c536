//! Flows sent by the kernel's TCP.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{CHUNK, PATIENCE, Short};

/// A connection whose sender controls congestion as asked.
fn connect(to: SocketAddr, congestion: &str) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_tcp_congestion(&socket, congestion).map_err(|error| {
        let text = format!(
            "the kernel has no congestion control {congestion:?} for this user ({error}); see \
             net.ipv4.tcp_available_congestion_control and tcp_allowed_congestion_control"
        );
        io::Error::new(ErrorKind::Unsupported, text)
    })?;
    let seen = sockopt::tcp_congestion(&socket)?;
    if seen != congestion {
        return Err(io::Error::other(format!("asked for {congestion}, the kernel uses {seen}")));
    }
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

pub(super) fn bulk(
    to: SocketAddr,
    congestion: &str,
    time: Duration,
) -> io::Result<Vec<(&'static str, u64)>> {
    let chunk = vec![0x5a; CHUNK];
    let mut stream = connect(to, congestion)?;
    let end = Instant::now() + time;
    let mut written = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(vec![("written", written)]);
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(&chunk) {
            Ok(bytes) => written += bytes as u64,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The receiver has seen enough.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                return Ok(vec![("written", written)]);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The time of each flow, from connect to the peer's end; none for one that failed.
pub(super) fn short(congestion: &str, work: &Short) -> io::Result<Vec<Option<Duration>>> {
    let begun = AtomicUsize::new(0);
    let place = || {
        let data = vec![0x5a; work.bytes];
        let mut times = Vec::new();
        while begun.fetch_add(1, Ordering::Relaxed) < work.count {
            times.push(one(work.to, congestion, &data).ok());
        }
        times
    };
    // One more, which says at once what is wrong with all.
    one(work.to, congestion, &[0x5a; 1])?;
    Ok(std::thread::scope(|scope| {
        let places: Vec<_> = (0..work.parallel).map(|_| scope.spawn(place)).collect();
        places.into_iter().flat_map(|place| place.join().unwrap_or_default()).collect()
    }))
}

fn one(to: SocketAddr, congestion: &str, data: &[u8]) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut stream = connect(to, congestion)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(data)?;
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(begun.elapsed()),
        _ => Err(io::Error::other("the receiver says something")),
    }
}
