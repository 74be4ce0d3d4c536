//! Opening: what is checked first, the order in which sockets, frames and the program come, the
//! fall-back from native to generic XDP, and what the user is told of it.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use millrace_bpf::Mode;
use millrace_frames::{Arena, ChecksumState, Meta};

use super::config::{BusyPoll, Config, XdpMode, ZeroCopy};
use super::socket::{self, Socket};
use super::steering::Steering;
use super::sys::TX_BATCH_SIZE;
use super::umem::Umem;
use super::{AfXdp, Counts, ETHERNET_LEN, Open, VLAN_LEN};
use crate::interface::{Control, Interface};
use crate::{Capabilities, Owner, Port, Timestamps};

/// Tells whether this process can open AF_XDP ports, by making a socket and loading a program.
///
/// # Errors
/// The text says what is missing and what it takes.
pub fn probe() -> io::Result<()> {
    socket::new_socket()?;
    millrace_bpf::may_bpf()
        .map_err(|refusal| io::Error::new(io::ErrorKind::PermissionDenied, refusal.to_string()))
}

impl AfXdp {
    /// Opens one queue of an interface. Frames of its other queues go to Linux.
    ///
    /// # Errors
    /// `NotFound` without the interface, `NetworkDown` when it is down, `PermissionDenied`
    /// without the capabilities, `ResourceBusy` when the queue or the interface's XDP hook is
    /// taken, `InvalidInput` for a queue that it does not have or an MTU that does not fit.
    pub fn open(name: &str, queue: u32, config: &Config, arena: &mut Arena) -> io::Result<Self> {
        let mut ports = Self::open_queues(name, queue, config, &mut [arena])?;
        ports.pop().ok_or_else(|| io::Error::other("no port was opened"))
    }

    /// Opens as many queues as there are arenas, from `first_queue` on, with one XDP program.
    ///
    /// # Errors
    /// As [`AfXdp::open`].
    pub fn open_queues(
        name: &str,
        first_queue: u32,
        config: &Config,
        arenas: &mut [&mut Arena],
    ) -> io::Result<Vec<Self>> {
        let interface = find(name, config)?;
        open(&interface, first_queue, config, &mut Arenas::Each(arenas))
    }

    fn new(
        interface: &Interface,
        config: &Config,
        attempt: &Attempt,
        umem: Umem,
        open: Open,
        arena: &mut Arena,
        sharers: usize,
    ) -> Self {
        let checksum = if interface.is_local_virtual() {
            ChecksumState::MaybeUnfinished
        } else {
            ChecksumState::Unknown
        };
        let share = arena.frames() / 2 / sharers.max(1);
        let fill_target = config.fill_ring.min(share as u32).max(1);
        let mut received = Meta::default();
        received.set_rx_queue(open.queue);
        let capabilities = Capabilities {
            kind: "af_xdp",
            name: interface.name.clone(),
            mac: interface.mac,
            mtu: interface.mtu,
            queue: open.queue,
            queues: interface.rx_queues,
            tx_checksum: false,
            tx_gso: 0,
            rx_checksum: checksum,
            tx_in_flight: true,
            timestamps: Timestamps::None,
            facts: facts(interface, config, attempt, &open.socket, fill_target, arena),
        };
        let mut port = AfXdp {
            capabilities,
            umem,
            open: Some(open),
            statistics: Counts::default(),
            checksum,
            received,
            max_packet: interface.mtu + ETHERNET_LEN + VLAN_LEN,
            fill_target,
            kick_pending: false,
            busy_poll: config.busy_poll.is_some(),
            slept: false,
            fruitless: 0,
            gone: false,
            ifindex: interface.index,
            last: Default::default(),
            _memory: arena.keep_alive(),
        };
        port.refill(arena);
        port
    }
}

/// The arenas of the queues that are opened together.
enum Arenas<'a, 'b> {
    /// One for each.
    Each(&'a mut [&'b mut Arena]),
    /// One for so many queues.
    One(&'b mut Arena, usize),
}

impl Arenas<'_, '_> {
    fn len(&self) -> usize {
        match self {
            Arenas::Each(arenas) => arenas.len(),
            Arenas::One(_, queues) => *queues,
        }
    }

    fn get(&mut self, index: usize) -> &mut Arena {
        match self {
            Arenas::Each(arenas) => arenas[index],
            Arenas::One(arena, _) => arena,
        }
    }

    /// How many queues live on one arena.
    fn sharers(&self) -> usize {
        match self {
            Arenas::Each(_) => 1,
            Arenas::One(_, queues) => *queues,
        }
    }
}

/// The interface, if everything is there that it takes.
fn find(name: &str, config: &Config) -> io::Result<Interface> {
    config.check()?;
    probe().map_err(|error| {
        let text = format!("AF_XDP on {name}: {error}");
        let remedy = if text.contains("--port") { "" } else { ", or use --port af_packet" };
        io::Error::new(error.kind(), format!("{text}{remedy}"))
    })?;
    let interface = Interface::find(name)?;
    interface.require_up()?;
    Ok(interface)
}

/// Opens every receive queue of an interface on one arena.
pub(super) fn open_all(name: &str, config: &Config, arena: &mut Arena) -> io::Result<Vec<AfXdp>> {
    let interface = find(name, config)?;
    let queues = interface.rx_queues as usize;
    open(&interface, 0, config, &mut Arenas::One(arena, queues))
}

fn open(
    interface: &Interface,
    first_queue: u32,
    config: &Config,
    arenas: &mut Arenas<'_, '_>,
) -> io::Result<Vec<AfXdp>> {
    check_queues(interface, first_queue, arenas.len())?;
    for index in 0..arenas.len() {
        check_mtu(interface, arenas.get(index).frame_size())?;
    }
    let mut open = |attempt| open_attempt(interface, first_queue, config, arenas, attempt);
    let native = Attempt { mode: Mode::Native, zero_copy: config.zero_copy, refused: None };
    let generic = |refused| Attempt { mode: Mode::Generic, zero_copy: ZeroCopy::Never, refused };
    let may_fall_back = config.xdp == XdpMode::Auto && config.zero_copy != ZeroCopy::Require;
    let result = match config.xdp {
        XdpMode::Generic => open(generic(None)),
        XdpMode::Native | XdpMode::Auto => match open(native) {
            Err(Failure::Attach(error @ millrace_bpf::Error::Attach { .. })) if may_fall_back => {
                open(generic(Some(error.to_string())))
            }
            result => result,
        },
    };
    result.map_err(|failure| failure.into_io(&interface.name))
}

/// One way to open an interface.
struct Attempt {
    mode: Mode,
    zero_copy: ZeroCopy,
    /// Why native XDP could not be had, if it was tried.
    refused: Option<String>,
}

enum Failure {
    Attach(millrace_bpf::Error),
    Other(io::Error),
}

impl Failure {
    fn into_io(self, name: &str) -> io::Error {
        let (kind, text) = match self {
            Failure::Other(error) => return error,
            Failure::Attach(error) => {
                let generic_helps =
                    matches!(error, millrace_bpf::Error::Attach { mode: Mode::Native, .. });
                let option = if generic_helps { " (--xdp generic)" } else { "" };
                (io::Error::from(error.clone()).kind(), format!("{error}{option}"))
            }
        };
        io::Error::new(kind, format!("AF_XDP on {name}: {text}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Other(error)
    }
}

/// Sockets, frames, map entries, and the program last. On failure the arenas have back what they
/// gave.
fn open_attempt(
    interface: &Interface,
    first_queue: u32,
    config: &Config,
    arenas: &mut Arenas<'_, '_>,
    attempt: Attempt,
) -> Result<Vec<AfXdp>, Failure> {
    let slots = interface.rx_queues.max(first_queue + arenas.len() as u32);
    let steering = Arc::new(Steering::load(&config.redirect, slots)?);
    let mut ports: Vec<AfXdp> = Vec::new();
    let mut failure = None;
    for (queue, index) in (first_queue..).zip(0..arenas.len()) {
        let sharers = arenas.sharers();
        let arena = arenas.get(index);
        match open_queue(interface, queue, config, &attempt, &steering, arena, sharers) {
            Ok(port) => ports.push(port),
            Err(error) => {
                failure = Some(Failure::Other(error));
                break;
            }
        }
    }
    if failure.is_none() && config.attach && !config.send_only {
        failure = steering.attach(interface.index, attempt.mode).err().map(Failure::Attach);
    }
    match failure {
        None => Ok(ports),
        Some(failure) => {
            for (index, port) in ports.iter_mut().enumerate() {
                port.close(arenas.get(index));
            }
            Err(failure)
        }
    }
}

fn open_queue(
    interface: &Interface,
    queue: u32,
    config: &Config,
    attempt: &Attempt,
    steering: &Arc<Steering>,
    arena: &mut Arena,
    sharers: usize,
) -> io::Result<AfXdp> {
    let umem = Umem::new(arena)?;
    let socket = Socket::open(interface, queue, config, attempt.zero_copy, arena)?;
    steering.join(queue, socket.as_fd())?;
    let control = Control::new()?;
    let owner = Owner::new();
    let open = Open { socket, steering: Arc::clone(steering), queue, control, owner };
    Ok(AfXdp::new(interface, config, attempt, umem, open, arena, sharers))
}

fn check_queues(interface: &Interface, first: u32, count: usize) -> io::Result<()> {
    let queues = interface.rx_queues.max(interface.tx_queues);
    let end = u64::from(first) + count as u64;
    if count > 0 && end <= u64::from(queues) {
        return Ok(());
    }
    let name = &interface.name;
    let text = format!(
        "{name} has {queues} queues, numbered from 0; {count} from {first} on do not exist"
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

fn check_mtu(interface: &Interface, frame_size: usize) -> io::Result<()> {
    // Other sizes are refused with a text of their own.
    if !(2048..=4096).contains(&frame_size) {
        return Ok(());
    }
    let overhead = (ETHERNET_LEN + VLAN_LEN) as usize;
    let largest = |frame_size| Umem::rx_room(frame_size) - overhead;
    let mtu = interface.mtu as usize;
    if mtu <= largest(frame_size) {
        return Ok(());
    }
    let name = &interface.name;
    let remedy = if frame_size < 4096 && mtu <= largest(4096) {
        "use frames of 4096 bytes".to_owned()
    } else {
        format!("lower the MTU: ip link set {name} mtu {}", largest(frame_size))
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "{name} has an MTU of {mtu}, and AF_XDP frames of {frame_size} bytes take {}; {remedy}",
            largest(frame_size)
        ),
    ))
}

fn facts(
    interface: &Interface,
    config: &Config,
    attempt: &Attempt,
    socket: &Socket,
    fill_target: u32,
    arena: &Arena,
) -> Vec<(&'static str, String)> {
    let mode = match &attempt.refused {
        _ if config.send_only => "none, it only sends".to_owned(),
        Some(reason) => format!("generic, because native was refused: {reason}"),
        None => attempt.mode.to_string(),
    };
    let zero_copy = match (socket.zero_copy(), attempt.zero_copy, attempt.mode) {
        (true, ..) => "yes".to_owned(),
        (false, _, Mode::Generic) => "no, generic XDP has none".to_owned(),
        (false, ZeroCopy::Never, _) => "no, as asked".to_owned(),
        (false, ..) => format!("no, the driver ({}) has none", interface.driver),
    };
    let busy_poll = match config.busy_poll {
        Some(BusyPoll { microseconds, budget }) => {
            format!("up to {microseconds} us and {budget} packets a call")
        }
        None => "no".to_owned(),
    };
    let tx_budget = match socket.tx_budget() {
        Some(budget) => format!("{budget} packets a call"),
        None => format!("{} packets a call, the kernel has no option for it", TX_BATCH_SIZE),
    };
    let steering = match &config.redirect.filter {
        _ if config.send_only => "nothing; Linux keeps all that comes in",
        _ if !config.attach => "what another program on the interface redirects here",
        Some(_) => "chosen addresses and protocols; all else goes to Linux",
        None => "every frame of the queue",
    };
    let mut facts = vec![
        ("mode", mode),
        ("zero-copy", zero_copy),
        ("busy-poll", busy_poll),
        ("tx-budget", tx_budget),
        ("steering", steering.to_owned()),
        ("frames-ready", fill_target.to_string()),
        ("huge-pages", if arena.mapping().hugepages() { "yes" } else { "no" }.to_owned()),
    ];
    if interface.rx_queues > 1 {
        let text = format!("{}; frames of queues without a port go to Linux", interface.rx_queues);
        facts.push(("queues", text));
    }
    facts
}
