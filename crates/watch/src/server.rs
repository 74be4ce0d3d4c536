//! The socket of this process: it is there while at least one publisher is.
//!
//! One thread accepts; each client has a thread for as long as it stays, at most [`MOST_CLIENTS`] of
//! them. Whoever is neither the same user nor root is sent away. A client that says nothing, stops
//! reading or goes away holds up nothing but its own thread.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use millrace_port::wait::block_signals;
use rustix::net::{SendFlags, Shutdown};

use crate::folder::{self, Identity};
use crate::request::{MOST_LINE, Request};
use crate::source::Source;

mod dump;

/// Clients at a time.
const MOST_CLIENTS: usize = 16;
/// How long a client may take to say what it wants, and to take what fits no buffer any more.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the publisher's thread may take to answer, turn by turn.
const TURN: Duration = Duration::from_secs(2);
const STACK: usize = 256 << 10;

struct Server {
    identity: Identity,
    folder: PathBuf,
    listener: Arc<UnixListener>,
    socket: PathBuf,
    sources: Vec<Weak<Source>>,
}

/// The number of the next publisher of this process; a number is used once.
static SERVER: Mutex<(Option<Server>, u32)> = Mutex::new((None, 0));
static CLIENTS: AtomicUsize = AtomicUsize::new(0);

fn state() -> MutexGuard<'static, (Option<Server>, u32)> {
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place among those who publish.
pub(crate) struct Place {
    pub(crate) source: Arc<Source>,
    pub(crate) identity: Identity,
    pub(crate) folder: PathBuf,
}

/// Adds a publisher, and opens the socket for the first.
pub(crate) fn register(name: &str, wake: Box<dyn Fn() + Send + Sync>) -> io::Result<Place> {
    let mut state = state();
    let (server, next) = &mut *state;
    // A child that was forked has its parent's memory, and none of its threads.
    if server.as_ref().is_some_and(|server| server.identity.pid != std::process::id()) {
        *server = None;
        CLIENTS.store(0, Ordering::Relaxed);
        dump::forget();
    }
    let server = match server {
        Some(server) => server,
        None => server.insert(start()?),
    };
    let source = Arc::new(Source::new(*next, name.to_owned(), wake));
    *next += 1;
    server.sources.retain(|other| other.strong_count() > 0);
    server.sources.push(Arc::downgrade(&source));
    Ok(Place { source, identity: server.identity, folder: server.folder.clone() })
}

/// Takes a publisher out. After the last it closes the socket, and lets those who look at frames have
/// the last of them.
pub(crate) fn leave(source: &Source) {
    let mut state = state();
    let (place, _) = &mut *state;
    let Some(server) = place else { return };
    if server.identity.pid != std::process::id() {
        return;
    }
    server.sources.retain(|other| other.upgrade().is_some_and(|o| o.number != source.number));
    if server.sources.is_empty() {
        let _ = fs::remove_file(&server.socket);
        // Ends the accept.
        let _ = rustix::net::shutdown(server.listener.as_fd(), Shutdown::Both);
        *place = None;
        drop(state);
        dump::wait_for_streams();
    }
}

fn find(number: u32) -> io::Result<Arc<Source>> {
    let state = state();
    let sources = state.0.iter().flat_map(|server| &server.sources);
    sources.filter_map(Weak::upgrade).find(|source| source.number == number).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("this process has no page {number} (any more)"),
        )
    })
}

fn start() -> io::Result<Server> {
    let folder = folder::open()?;
    let identity = Identity::own()?;
    folder::sweep(&folder, &identity);
    let socket = folder.join(format!("{identity}.sock"));
    let _ = fs::remove_file(&socket);
    let listener = bind(&socket)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", socket.display())))?;
    let listener = Arc::new(listener);
    let accepting = Arc::clone(&listener);
    spawn(move || accept(&accepting)).inspect_err(|_| {
        let _ = fs::remove_file(&socket);
    })?;
    Ok(Server { identity, folder, listener, socket, sources: Vec::new() })
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A thread that takes no signals: those are for the program's own.
fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("millrace-watch".into()).stack_size(STACK);
    thread.spawn(move || {
        block_signals();
        run();
    })?;
    Ok(())
}

fn accept(listener: &UnixListener) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => admit(stream),
            // The listener was shut down.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // No descriptor or memory left: perhaps later.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn admit(mut stream: UnixStream) {
    if stream.set_write_timeout(Some(PATIENCE)).is_err() {
        return;
    }
    if let Err(error) = check_peer(&stream) {
        refuse(&mut stream, &error);
        return;
    }
    if CLIENTS.fetch_add(1, Ordering::Relaxed) >= MOST_CLIENTS {
        CLIENTS.fetch_sub(1, Ordering::Relaxed);
        let text = format!("{MOST_CLIENTS} others watch this process already");
        refuse(&mut stream, &io::Error::new(io::ErrorKind::ResourceBusy, text));
        return;
    }
    let client = Client;
    // Without a thread the stream is dropped, which the client sees.
    let _ = spawn(move || {
        let _client = client;
        serve(stream);
    });
}

/// Counted for as long as it lives.
struct Client;

impl Drop for Client {
    fn drop(&mut self) {
        CLIENTS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The same user or root (`SO_PEERCRED`, see unix(7)).
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid;
    let own = rustix::process::geteuid();
    if peer == own || peer.is_root() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("user {} may not watch a process of user {}", peer.as_raw(), own.as_raw()),
    ))
}

fn serve(mut stream: UnixStream) {
    let result = match read_line(&mut stream).and_then(|line| {
        Request::parse(&line).map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))
    }) {
        Ok(Request::Table { source, name }) => table(&mut stream, source, &name),
        Ok(Request::Dump { sources, snap, buffer }) => {
            dump::dump(&mut stream, &sources, snap, buffer)
        }
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        refuse(&mut stream, &error);
    }
}

fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    // For the whole line, or somebody would send a byte now and then for ever.
    let end = std::time::Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the request takes too long"));
        }
        stream.set_read_timeout(Some(left))?;
        let count = match stream.read(&mut piece) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no request came")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let piece = &piece[..count];
        if let Some(at) = piece.iter().position(|&byte| byte == b'\n') {
            line.extend_from_slice(&piece[..at]);
            return Ok(line);
        }
        line.extend_from_slice(piece);
        if line.len() > MOST_LINE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a request of more than {MOST_LINE} bytes"),
            ));
        }
    }
}

/// Says why not; where that fails as well nobody is left to hear it.
fn refuse(stream: &mut UnixStream, error: &io::Error) {
    let text = format!("error {}\n", error.to_string().replace('\n', " "));
    let _ = Quiet(stream).write_all(text.as_bytes());
}

/// Sends the parts of a table as the publisher's thread makes them.
fn table(stream: &mut UnixStream, number: u32, name: &str) -> io::Result<()> {
    let source = find(number)?;
    let mut cursor = 0;
    let mut first = true;
    loop {
        let answer = source.ask_table(name, cursor)?;
        // The source is let go of, or its owner would not notice that it is the last.
        let answer = answer.recv_timeout(TURN).map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "{} did not turn for {} s: its thread is busy with something else, or stuck",
                    source.name,
                    TURN.as_secs()
                ),
            )
        });
        let answer = match answer {
            Ok(answer) if first && answer.bytes.is_empty() => {
                let text = format!("{} has no table {name}", source.name);
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
            Ok(answer) => answer,
            Err(error) if first => return Err(error),
            Err(error) => {
                let text = error.to_string();
                send(stream, &[&u32::MAX.to_le_bytes()])?;
                return send(stream, &[&(text.len() as u32).to_le_bytes(), text.as_bytes()]);
            }
        };
        if core::mem::take(&mut first) {
            send(stream, &[b"ok\n"])?;
        }
        send(stream, &[&(answer.bytes.len() as u32).to_le_bytes(), &answer.bytes])?;
        match answer.next {
            // It must go on, or a mistake there would have us ask for ever.
            Some(next) if next > cursor => cursor = next,
            _ => return send(stream, &[&[0; 4]]),
        }
    }
}

fn send(stream: &mut UnixStream, parts: &[&[u8]]) -> io::Result<()> {
    parts.iter().try_for_each(|part| Quiet(stream).write_all(part))
}

/// A socket that reports a peer who is gone as an error, and by no signal: the program around may
/// not have ignored SIGPIPE.
struct Quiet<'a>(&'a UnixStream);

impl Write for Quiet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
