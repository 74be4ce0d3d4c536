//! The `AF_PACKET` socket: its options, where it is bound, and what its errors mean.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use millrace_wire::mac::Mac;

use super::Fanout;
use crate::interface::{self, Interface};

/// `packet(7)`, raw: packets with their Ethernet headers.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    interface: String,
}

/// The filter that lets nothing through.
const NOTHING: [libc::sock_filter; 1] =
    [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];

impl Socket {
    /// A socket that is bound to no interface and so receives nothing yet.
    pub(super) fn new(interface: &str) -> io::Result<Socket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: with any other the socket would at once receive from all interfaces.
        // SAFETY: makes a descriptor, touches no memory.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            let text = match error.raw_os_error() {
                Some(libc::EPERM) => "AF_PACKET needs CAP_NET_RAW; run as root, give the \
                    program the capability, or enter a user namespace that owns the network"
                    .to_owned(),
                Some(libc::EAFNOSUPPORT) => {
                    "this kernel has no AF_PACKET (CONFIG_PACKET)".to_owned()
                }
                _ => format!("cannot open an AF_PACKET socket: {error}"),
            };
            return Err(io::Error::new(error.kind(), text));
        }
        // SAFETY: just made, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Socket { fd, interface: interface.to_owned() })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(super) fn interface(&self) -> &str {
        &self.interface
    }

    /// Sets an option of `AF_PACKET`; `what` names it in the error.
    pub(super) fn set<T: Copy>(&self, option: i32, value: T, what: &str) -> io::Result<()> {
        self.set_at(libc::SOL_PACKET, option, value).map_err(|error| self.failed(what, &error))
    }

    fn set_at<T: Copy>(&self, level: i32, option: i32, value: T) -> io::Result<()> {
        // SAFETY: `value` is plain data that lives through the call, with its true size.
        let result = unsafe {
            libc::setsockopt(
                self.fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Reads an option into `value`, a structure of which every bit pattern is valid.
    fn get_at<T: Copy>(&self, level: i32, option: i32, value: &mut T) -> io::Result<()> {
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes into `value`. All uses are with integers
        // and structures of integers.
        let result = unsafe {
            let value = core::ptr::from_mut(value).cast();
            libc::getsockopt(self.fd(), level, option, value, &raw mut len)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn failed(&self, what: &str, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: cannot {what}: {error}", self.interface))
    }

    /// Asks for socket buffers of `bytes` each; returns what (receive, send) became of it. More
    /// than `net.core.rmem_max` and `wmem_max` takes CAP_NET_ADMIN.
    pub(super) fn set_buffers(&self, bytes: usize) -> io::Result<(usize, usize)> {
        // The kernel doubles the value for its own overhead.
        let value = i32::try_from(bytes / 2).unwrap_or(i32::MAX / 2);
        let buffer = |force, plain| -> io::Result<usize> {
            self.set_at(libc::SOL_SOCKET, force, value)
                .or_else(|_| self.set_at(libc::SOL_SOCKET, plain, value))
                .and_then(|()| {
                    let mut granted = 0i32;
                    self.get_at(libc::SOL_SOCKET, plain, &mut granted)?;
                    Ok(usize::try_from(granted).unwrap_or(0))
                })
                .map_err(|error| self.failed("set its socket buffers", &error))
        };
        Ok((
            buffer(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?,
            buffer(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?,
        ))
    }

    /// Lets only those packets in that the classic BPF program accepts. Empty: all.
    pub(super) fn set_filter(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        if program.is_empty() {
            return match self.set_at(libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0i32) {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                    Err(self.failed("take its packet filter away", &error))
                }
                _ => Ok(()),
            };
        }
        let Ok(len) = u16::try_from(program.len()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a packet filter of {} instructions is too long", program.len()),
            ));
        };
        // The kernel only reads the program.
        let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
        self.set_at(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, filter)
            .map_err(|error| self.failed("attach the packet filter (is it valid?)", &error))
    }

    /// Binds to the interface; from now on packets of all protocols arrive, or, with `quiet`, none
    /// before [`Socket::set_filter`].
    pub(super) fn bind(&self, index: u32, quiet: bool) -> io::Result<()> {
        if quiet {
            self.set_filter(&NOTHING)?;
        }
        // SAFETY: sockaddr_ll is plain data; all zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        // SAFETY: the address lives through the call, with its true length.
        let result = unsafe {
            libc::bind(
                self.fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result != 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ENETDOWN) => interface::down(&self.interface),
                Some(libc::ENODEV | libc::ENXIO) => interface::gone(&self.interface),
                _ => self.failed("bind to it", &error),
            });
        }
        Ok(())
    }

    /// Asks the interface for packets that are not to its own address: for `mac` or for all. Ends
    /// with the socket.
    pub(super) fn join(&self, index: u32, mac: Option<Mac>) -> io::Result<()> {
        let mut address = [0; 8];
        if let Some(mac) = mac {
            address[..6].copy_from_slice(&mac.0);
        }
        const PACKET_MR_UNICAST: i32 = 3;
        let kind = if mac.is_some() { PACKET_MR_UNICAST } else { libc::PACKET_MR_PROMISC };
        let request = libc::packet_mreq {
            mr_ifindex: index as i32,
            mr_type: kind as u16,
            mr_alen: if mac.is_some() { 6 } else { 0 },
            mr_address: address,
        };
        let what =
            if mac.is_some() { "add our hardware address to it" } else { "make it promiscuous" };
        self.set(libc::PACKET_ADD_MEMBERSHIP, request, what)
    }

    /// Asks the interface for packets to all groups: those of neighbour discovery come to groups.
    pub(super) fn join_groups(&self, index: u32) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: index as i32,
            mr_type: libc::PACKET_MR_ALLMULTI as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        self.set(libc::PACKET_ADD_MEMBERSHIP, request, "get packets to groups from it")
    }

    /// Joins the group of sockets among which the interface's packets are spread.
    pub(super) fn fan_out(&self, fanout: Fanout, group: u16) -> io::Result<()> {
        let kind = match fanout {
            Fanout::Hash => libc::PACKET_FANOUT_HASH,
            Fanout::Cpu => libc::PACKET_FANOUT_CPU,
            Fanout::Queue => libc::PACKET_FANOUT_QM,
        } | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
        self.set_at(libc::SOL_PACKET, libc::PACKET_FANOUT, kind << 16 | u32::from(group)).map_err(
            |error| {
                let hint = match error.raw_os_error() {
                    Some(libc::EINVAL) => {
                        " (the group exists with another interface or way of spreading; choose \
                         another group)"
                    }
                    Some(libc::ENOSPC) => " (the group is full)",
                    _ => "",
                };
                self.failed(&format!("join fanout group {group}{hint}"), &error)
            },
        )
    }

    /// Packets seen, packets dropped and how often a V3 queue froze, since the last call.
    pub(super) fn kernel_statistics(&self) -> [u32; 3] {
        let mut counters = [0u32; 3];
        // V2 fills in the first two. A failure leaves zeros: nothing new is known.
        let _ = self.get_at(libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut counters);
        counters
    }

    /// The error that waits on the socket, if any; it waits no longer.
    pub(super) fn take_error(&self) -> Option<i32> {
        let mut code = 0i32;
        match self.get_at(libc::SOL_SOCKET, libc::SO_ERROR, &mut code) {
            Ok(()) if code == 0 => None,
            Ok(()) => Some(code),
            Err(error) => error.raw_os_error(),
        }
    }

    /// Whether the interface can be used now.
    ///
    /// # Errors
    /// That it is down, or gone.
    pub(super) fn check_link(&self) -> io::Result<()> {
        // SAFETY: sockaddr_ll and ifreq are plain data; all zero is valid.
        let (mut address, mut request): (libc::sockaddr_ll, libc::ifreq) =
            unsafe { core::mem::zeroed() };
        let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes into `address`.
        let result =
            unsafe { libc::getsockname(self.fd(), (&raw mut address).cast(), &raw mut len) };
        // The kernel unbinds the socket (index -1) when the interface goes.
        if result != 0 || address.sll_ifindex <= 0 {
            return Err(interface::gone(&self.interface));
        }
        request.ifr_ifru.ifru_ifindex = address.sll_ifindex;
        // Asked on this socket, the answer is about its namespace, whatever the thread's own is.
        // SAFETY: both codes take an ifreq, which lives through the calls.
        let flags = unsafe {
            let request = &raw mut request;
            if libc::ioctl(self.fd(), libc::SIOCGIFNAME as _, request) != 0
                || libc::ioctl(self.fd(), libc::SIOCGIFFLAGS as _, request) != 0
            {
                return Err(interface::gone(&self.interface));
            }
            (*request).ifr_ifru.ifru_flags
        };
        if i32::from(flags) & libc::IFF_UP == 0 {
            return Err(interface::down(&self.interface));
        }
        Ok(())
    }

    /// The interface's facts.
    pub(super) fn find(&self) -> io::Result<Interface> {
        Interface::find(&self.interface)
    }
}
