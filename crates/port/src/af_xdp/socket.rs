//! One AF_XDP socket: its options, its four rings, its binding to a queue, its system calls.
//! It moves no frames; that is the port's part.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use millrace_frames::{Arena, Duration};

use super::config::{BusyPoll, Config, ZeroCopy};
use super::ring::{Consumer, Producer};
use super::sys::*;
use crate::interface::Interface;

/// How often, and how far apart, a queue is asked for that is still in use.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// A bound socket with its rings.
#[derive(Debug)]
pub(super) struct Socket {
    // The rings are unmapped before the descriptor is closed: fields drop in this order.
    pub(super) fill: Producer<u64>,
    pub(super) completion: Consumer<u64>,
    pub(super) rx: Consumer<Descriptor>,
    pub(super) tx: Producer<Descriptor>,
    fd: OwnedFd,
    zero_copy: bool,
    tx_budget: Option<u32>,
}

/// How a transmission call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kick {
    /// The kernel has looked at the whole ring.
    Done,
    /// It has stopped early: its budget is used up, or something has no room now.
    Again,
    /// It has dropped one packet and stopped.
    Dropped,
}

impl Socket {
    /// Makes a socket on the arena's memory and binds it to a queue. Frames are given later.
    ///
    /// # Errors
    /// In words that name the interface, the queue and the remedy.
    pub(super) fn open(
        interface: &Interface,
        queue: u32,
        config: &Config,
        zero_copy: ZeroCopy,
        arena: &Arena,
    ) -> io::Result<Self> {
        let fd = new_socket()?;
        let failed = |what: &str, error: io::Error| {
            let text = format!("AF_XDP socket on {}: {what}: {error}", interface.name);
            io::Error::new(error.kind(), text)
        };
        register_umem(fd.as_fd(), arena).map_err(|error| {
            if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM)) {
                let text = "no memory may be pinned for frames; raise RLIMIT_MEMLOCK \
                            (ulimit -l), run with CAP_IPC_LOCK, or use fewer frames";
                return failed("registering the arena", io::Error::new(error.kind(), text));
            }
            failed("registering the arena", error)
        })?;

        for (option, size, ring) in [
            (XDP_UMEM_FILL_RING, config.fill_ring, "fill"),
            (XDP_UMEM_COMPLETION_RING, config.completion_ring, "completion"),
            (XDP_RX_RING, config.rx_ring, "receive"),
            (XDP_TX_RING, config.tx_ring, "transmit"),
        ] {
            set_option(fd.as_fd(), SOL_XDP, option, size)
                .map_err(|error| failed(&format!("{ring} ring of {size} entries"), error))?;
        }
        let offsets: Offsets = get_option(fd.as_fd(), SOL_XDP, XDP_MMAP_OFFSETS)
            .map_err(|error| failed("asking for the rings' layout", error))?;
        let mapping = |error| failed("mapping the rings", error);
        let socket = fd.as_fd();
        let fill = Producer::map(socket, offsets.fill, config.fill_ring, XDP_UMEM_PGOFF_FILL_RING)
            .map_err(mapping)?;
        let completion = Consumer::map(
            socket,
            offsets.completion,
            config.completion_ring,
            XDP_UMEM_PGOFF_COMPLETION_RING,
        )
        .map_err(mapping)?;
        let rx = Consumer::map(socket, offsets.rx, config.rx_ring, XDP_PGOFF_RX_RING)
            .map_err(mapping)?;
        let tx = Producer::map(socket, offsets.tx, config.tx_ring, XDP_PGOFF_TX_RING)
            .map_err(mapping)?;

        if let Some(busy_poll) = &config.busy_poll {
            set_busy_poll(socket, busy_poll)
                .map_err(|error| failed("busy polling (it needs Linux 5.11)", error))?;
        }
        // A kernel that does not know the option sends fewer packets a call, and says so.
        let tx_budget = set_option(socket, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, config.tx_ring)
            .is_ok()
            .then_some(config.tx_ring);
        // In copy mode every packet under way counts against the send buffer.
        let send_buffer = i32::try_from(u64::from(config.tx_ring) * 8192).unwrap_or(i32::MAX);
        if set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, send_buffer).is_err() {
            set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, send_buffer)
                .map_err(|error| failed("send buffer", error))?;
        }

        bind(socket, interface, queue, zero_copy)?;
        let options: u32 = get_option(socket, SOL_XDP, XDP_OPTIONS)
            .map_err(|error| failed("asking for the mode", error))?;
        let zero_copy = options & XDP_OPTIONS_ZEROCOPY != 0;
        Ok(Socket { fill, completion, rx, tx, fd, zero_copy, tx_budget })
    }

    /// Whether the driver reads and writes the frames itself.
    pub(super) fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Packets that one call may send in copy mode, where the kernel let us set it.
    pub(super) fn tx_budget(&self) -> Option<u32> {
        self.tx_budget
    }

    /// Makes the kernel transmit. One call, which never blocks.
    ///
    /// # Errors
    /// `ENETDOWN` if the interface is down, `ENXIO` if it is gone.
    pub(super) fn kick_tx(&self) -> io::Result<Kick> {
        // SAFETY: no data and no address are passed.
        let result = unsafe {
            let no_data = core::ptr::null();
            libc::sendto(self.fd.as_raw_fd(), no_data, 0, libc::MSG_DONTWAIT, core::ptr::null(), 0)
        };
        if result >= 0 {
            return Ok(Kick::Done);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS) => Ok(Kick::Again),
            Some(libc::EBUSY) => Ok(Kick::Dropped),
            _ => Err(error),
        }
    }

    /// Makes the kernel look at the fill ring, or poll the queue. One call, which never blocks.
    ///
    /// # Errors
    /// `ENETDOWN` if the interface is down, `ENXIO` if it is gone.
    pub(super) fn kick_rx(&self) -> io::Result<()> {
        // SAFETY: no room and no address are passed.
        let result = unsafe {
            let (nowhere, none) = (core::ptr::null_mut(), core::ptr::null_mut());
            libc::recvfrom(
                self.raw_fd(),
                nowhere,
                0,
                libc::MSG_DONTWAIT,
                none,
                core::ptr::null_mut(),
            )
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::EBUSY) => Ok(()),
            _ => Err(error),
        }
    }

    /// What has happened to the socket behind our back, and forgets it: `ENETDOWN` when its
    /// interface was deleted or moved.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        let code: i32 = get_option(self.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR).ok()?;
        (code != 0).then(|| io::Error::from_raw_os_error(code))
    }

    /// # Errors
    /// Only if the kernel has no statistics.
    pub(super) fn statistics(&self) -> io::Result<KernelStatistics> {
        get_option(self.as_fd(), SOL_XDP, XDP_STATISTICS)
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An AF_XDP socket that is bound to nothing.
///
/// # Errors
/// In words that say what this process or this kernel lacks.
pub(super) fn new_socket() -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor, touches no memory.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd >= 0 {
        // SAFETY: just made, owned by nobody else.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let error = io::Error::last_os_error();
    let text = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "AF_XDP sockets need CAP_NET_RAW; run as root or use --port af_packet".to_owned()
        }
        Some(libc::EAFNOSUPPORT) => {
            "this kernel has no AF_XDP sockets (it takes CONFIG_XDP_SOCKETS); use --port af_packet"
                .to_owned()
        }
        _ => format!("no AF_XDP socket: {error}"),
    };
    Err(io::Error::new(error.kind(), text))
}

fn register_umem(socket: BorrowedFd<'_>, arena: &Arena) -> io::Result<()> {
    let registration = UmemRegistration {
        address: arena.mapping().base().as_ptr() as u64,
        len: arena.frames() as u64 * arena.frame_size() as u64,
        chunk_size: arena.frame_size() as u32,
        ..UmemRegistration::default()
    };
    set_option(socket, SOL_XDP, XDP_UMEM_REG, registration)
}

fn set_busy_poll(socket: BorrowedFd<'_>, busy_poll: &BusyPoll) -> io::Result<()> {
    let set = |option, value: i32| set_option(socket, libc::SOL_SOCKET, option, value);
    set(SO_PREFER_BUSY_POLL, 1)?;
    set(SO_BUSY_POLL, i32::try_from(busy_poll.microseconds).unwrap_or(i32::MAX))?;
    set(SO_BUSY_POLL_BUDGET, i32::from(busy_poll.budget))
}

fn bind(
    socket: BorrowedFd<'_>,
    interface: &Interface,
    queue: u32,
    zero_copy: ZeroCopy,
) -> io::Result<()> {
    let mode = match zero_copy {
        ZeroCopy::Auto => 0,
        ZeroCopy::Require => XDP_ZEROCOPY,
        ZeroCopy::Never => XDP_COPY,
    };
    let address = Address {
        family: libc::AF_XDP as u16,
        flags: mode | XDP_USE_NEED_WAKEUP,
        ifindex: interface.index,
        queue,
        shared_umem_fd: 0,
    };
    let mut tries = 0;
    let error = loop {
        // SAFETY: the address lives through the call and has the stated length.
        let result = unsafe {
            let len = size_of::<Address>() as libc::socklen_t;
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len)
        };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        tries += 1;
        // The kernel lets go of a queue some time after its socket was closed.
        if error.raw_os_error() != Some(libc::EBUSY) || tries == BUSY_TRIES {
            break error;
        }
        std::thread::sleep(BUSY_PAUSE);
    };
    let name = &interface.name;
    let text = match error.raw_os_error() {
        Some(libc::EBUSY) => format!(
            "queue {queue} of {name} is in use by another AF_XDP socket; stop its owner or take \
             another queue"
        ),
        Some(libc::EOPNOTSUPP | libc::EINVAL) if zero_copy == ZeroCopy::Require => format!(
            "{name} (driver {}) has no zero-copy on queue {queue}: {error}; let the kernel copy",
            interface.driver
        ),
        _ => format!("binding an AF_XDP socket to queue {queue} of {name}: {error}"),
    };
    Err(io::Error::new(error.kind(), text))
}

fn set_option<T: Layout>(
    socket: BorrowedFd<'_>,
    level: i32,
    option: i32,
    value: T,
) -> io::Result<()> {
    // SAFETY: the value lives through the call and has the stated length.
    let result = unsafe {
        let len = size_of::<T>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What an older kernel does not fill in stays zero.
fn get_option<T: Layout>(socket: BorrowedFd<'_>, level: i32, option: i32) -> io::Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is `len` writable bytes, and any bytes are a value of it.
    let result = unsafe {
        let (value, len) = ((&raw mut value).cast(), &raw mut len);
        libc::getsockopt(socket.as_raw_fd(), level, option, value, len)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
