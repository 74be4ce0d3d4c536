//! The honest baseline: HTTP on the kernel's own TCP, one thread, epoll, no library.
//!
//! Per request it makes one `recv` and one `send`, and per turn one `epoll_wait` for up to 256
//! connections. Edge-triggered: a level-triggered set is looked through once more a turn, which
//! measured up to eight per cent more processor time for a request.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::http::{self, Answers, Parsed};
use crate::options::Wait;

const LISTENER: u64 = u64::MAX;
const EVENTS: usize = 256;
const READ_SIZE: usize = 64 * 1024;
/// Answers that a peer has not taken are kept up to here; then it is not read until it has.
const MAX_UNSENT: usize = 256 * 1024;

/// A listening server.
pub struct Server {
    epoll: OwnedFd,
    listener: OwnedFd,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    answers: Answers,
    buffer: Box<[u8]>,
    /// False while accepting failed for want of descriptors; closing one tries again.
    accepting: bool,
}

struct Connection {
    socket: OwnedFd,
    /// The start of a request whose end has not come.
    partial: Vec<u8>,
    /// What the peer had no window for.
    unsent: Vec<u8>,
    close_when_sent: bool,
}

/// What became of a connection in a turn.
#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    Ends,
}

impl Server {
    /// Listens on `address`.
    ///
    /// # Errors
    /// What socket(2), bind(2) and the like say.
    pub fn bind(address: SocketAddr, body: usize) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let listener = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&listener, true)?;
        // Accepted sockets inherit it, which saves a call for each.
        sockopt::set_tcp_nodelay(&listener, true)?;
        rustix::net::bind(&listener, &address)?;
        rustix::net::listen(&listener, 4096)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let readable = epoll::EventFlags::IN;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), readable)?;
        Ok(Server {
            epoll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            answers: Answers::new(body),
            buffer: vec![0; READ_SIZE].into_boxed_slice(),
            accepting: true,
        })
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// What getsockname(2) says.
    #[cfg(test)]
    fn address(&self) -> io::Result<SocketAddr> {
        Ok(rustix::net::getsockname(&self.listener)?.try_into()?)
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// What epoll_wait(2) or accept(2) say when the server is of no more use.
    pub fn serve(&mut self, wait: Wait) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            self.turn(&mut events, wait)?;
        }
    }

    fn turn(&mut self, events: &mut Vec<epoll::Event>, wait: Wait) -> io::Result<()> {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = (wait == Wait::Spin).then_some(&AT_ONCE);
        events.clear();
        let spare = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, spare, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.iter() {
            match event.data.u64() {
                LISTENER => self.accept()?,
                index => self.advance(index as usize),
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                // The peer gave up before we came.
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
                    if self.free.len() < self.connections.len() =>
                {
                    epoll::delete(&self.epoll, &self.listener)?;
                    self.accepting = false;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest = epoll::EventFlags::IN
                | epoll::EventFlags::OUT
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ET;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&self.epoll, &socket, data, interest)?;
            self.connections[index] = Some(Connection {
                socket,
                partial: Vec::new(),
                unsent: Vec::new(),
                close_when_sent: false,
            });
        }
    }

    fn advance(&mut self, index: usize) {
        // A turn has at most one event for each connection, so its place is taken; what an earlier
        // event freed and the listener gave away again has none yet.
        let Some(connection) = self.connections[index].as_mut() else { return };
        if connection.advance(&mut self.buffer, &self.answers) == Fate::Ends {
            self.connections[index] = None;
            self.free.push(index);
            if !self.accepting {
                let data = epoll::EventData::new_u64(LISTENER);
                self.accepting =
                    epoll::add(&self.epoll, &self.listener, data, epoll::EventFlags::IN).is_ok();
            }
        }
    }
}

impl Connection {
    /// Sends what is left, then reads and answers until nothing more is there.
    fn advance(&mut self, buffer: &mut [u8], answers: &Answers) -> Fate {
        if !self.unsent.is_empty() {
            match send(&self.socket, &self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(_) => return Fate::Ends,
            }
            if self.unsent.is_empty() && self.close_when_sent {
                return Fate::Ends;
            }
        }
        while self.unsent.len() < MAX_UNSENT && !self.close_when_sent {
            let kept = self.partial.len();
            buffer[..kept].copy_from_slice(&self.partial);
            let room = &mut buffer[kept..];
            let wanted = room.len();
            let read = match rustix::net::recv(&self.socket, room, RecvFlags::empty()) {
                Ok((_, 0)) => return Fate::Ends,
                Ok((_, read)) => read,
                Err(Errno::AGAIN) => return Fate::Stays,
                Err(Errno::INTR) => continue,
                Err(_) => return Fate::Ends,
            };
            self.partial.clear();
            if self.answer(&buffer[..kept + read], answers) == Fate::Ends {
                return Fate::Ends;
            }
            // A short read emptied the socket, and what comes now is a new edge.
            if read < wanted {
                return Fate::Stays;
            }
        }
        Fate::Stays
    }

    /// Answers every whole request in `bytes` with one `send`, and keeps the rest.
    fn answer(&mut self, mut bytes: &[u8], answers: &Answers) -> Fate {
        let mut single: &[u8] = &[];
        let mut several = Vec::new();
        loop {
            let (answer, last) = match http::parse(bytes) {
                Parsed::Partial => break,
                Parsed::Request { len, keep_alive } => {
                    bytes = &bytes[len..];
                    (answers.to(keep_alive), !keep_alive)
                }
                Parsed::Refused(refusal) => (answers.refusing(refusal), true),
            };
            if single.is_empty() {
                single = answer;
            } else {
                if several.is_empty() {
                    several.extend_from_slice(single);
                }
                several.extend_from_slice(answer);
            }
            if last {
                self.close_when_sent = true;
                bytes = &[];
                break;
            }
            if bytes.is_empty() {
                break;
            }
        }
        self.partial.extend_from_slice(bytes);
        let answer = if several.is_empty() { single } else { &several };
        let sent = if !self.unsent.is_empty() || answer.is_empty() {
            0
        } else {
            match send(&self.socket, answer) {
                Ok(sent) => sent,
                Err(_) => return Fate::Ends,
            }
        };
        self.unsent.extend_from_slice(&answer[sent..]);
        if self.close_when_sent && self.unsent.is_empty() { Fate::Ends } else { Fate::Stays }
    }
}

fn send(socket: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const CLOSING: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

    /// Serves in a thread that ends with the test's process.
    fn served(body: usize) -> SocketAddr {
        let mut server = Server::bind("127.0.0.1:0".parse().unwrap(), body).unwrap();
        let address = server.address().unwrap();
        std::thread::spawn(move || server.serve(Wait::Sleep).unwrap());
        address
    }

    fn read_exactly(stream: &mut TcpStream, expected: &[u8]) {
        let mut bytes = vec![0; expected.len()];
        stream.read_exact(&mut bytes).unwrap();
        assert!(bytes == expected);
    }

    #[test]
    fn a_request_in_two_pieces_is_answered_once() {
        let address = served(100);
        let answers = Answers::new(100);
        let mut stream = TcpStream::connect(address).unwrap();
        for _ in 0..3 {
            stream.write_all(&REQUEST[..9]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            stream.write_all(&REQUEST[9..]).unwrap();
            read_exactly(&mut stream, answers.to(true));
        }
        stream.write_all(CLOSING).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, answers.to(false));
    }

    #[test]
    fn a_peer_that_reads_late_gets_every_answer() {
        let body = 100_000;
        let address = served(body);
        let answers = Answers::new(body);
        let mut stream = TcpStream::connect(address).unwrap();
        // More than any socket buffer holds; the last request ends the connection.
        let requests = 400;
        let mut bytes = REQUEST.repeat(requests);
        bytes.extend_from_slice(CLOSING);
        stream.write_all(&bytes).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        for _ in 0..requests {
            read_exactly(&mut stream, answers.to(true));
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest == answers.to(false));
    }

    #[test]
    fn many_connections_come_and_go() {
        let address = served(10);
        let answers = Answers::new(10);
        for _ in 0..5 {
            let mut streams: Vec<_> =
                (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
            for stream in &mut streams {
                stream.write_all(REQUEST).unwrap();
            }
            for stream in &mut streams {
                read_exactly(stream, answers.to(true));
            }
        }
    }

    #[test]
    fn nonsense_is_refused_and_the_server_lives() {
        let address = served(10);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"\x16\x03\x01\x02\r\n\r\n").unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.starts_with(b"HTTP/1.1 400 "));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(CLOSING).unwrap();
        rest.clear();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, Answers::new(10).to(false));
    }
}
