//! `/dev/net/tun`: one queue of a TAP interface, and what its errors mean.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::interface;
use crate::vnet::Header;

const PATH: &str = "/dev/net/tun";

/// What we take from the kernel unfinished, best first: checksums; TCP super-segments with them;
/// UDP ones, too (Linux 6.2).
const OFFLOADS: [(libc::c_uint, &str); 3] = [
    (TCP_OFFLOAD | TUN_F_USO4 | TUN_F_USO6, "checksum, TCP and UDP segmentation"),
    (TCP_OFFLOAD, "checksum, TCP segmentation"),
    (libc::TUN_F_CSUM, "checksum"),
];
const TCP_OFFLOAD: libc::c_uint =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;

#[derive(Debug)]
pub(super) struct Device {
    file: File,
}

impl Device {
    /// Attaches to the interface `name`, which is made if there is none.
    pub(super) fn open(name: &str, multi_queue: bool) -> io::Result<Device> {
        let mut request = interface::request(name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(PATH)
            .map_err(|error| {
                let help = match error.raw_os_error() {
                    Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                        "load the driver: modprobe tun (in a container, the host must provide it)"
                    }
                    _ => "run as root, or be given access to it",
                };
                io::Error::new(error.kind(), format!("TAP needs {PATH}: {error}; {help}"))
            })?;
        let several = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
        request.ifr_ifru.ifru_flags =
            (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | several) as libc::c_short;
        let device = Device { file };
        device.ioctl(libc::TUNSETIFF, &mut request).map_err(|error| {
            let text = match error.raw_os_error() {
                Some(libc::EPERM) => format!(
                    "{name}: TAP needs CAP_NET_ADMIN; run as root, or have the interface made for \
                     you: ip tuntap add dev {name} mode tap vnet_hdr user $USER{}",
                    if multi_queue { " multi_queue" } else { "" }
                ),
                Some(libc::EBUSY) => format!("{name} is in use by another program"),
                Some(libc::EINVAL) => format!(
                    "{name} exists already and is no TAP interface, or was made {} several queues; \
                     choose another name or number of queues",
                    if multi_queue { "without" } else { "with" }
                ),
                Some(libc::E2BIG) => format!("{name} has no queue left"),
                _ => format!("{name}: cannot make a TAP interface: {error}"),
            };
            io::Error::new(error.kind(), text)
        })?;
        Ok(device)
    }

    /// Sets up how packets look: a virtio-net header first, super-segments whole. Returns what we
    /// and the kernel agreed to leave unfinished.
    pub(super) fn negotiate(&self) -> io::Result<&'static str> {
        let mut len = Header::LEN as libc::c_int;
        self.ioctl(libc::TUNSETVNETHDRSZ, &mut len)?;
        for (flags, text) in OFFLOADS {
            if self.ioctl_value(libc::TUNSETOFFLOAD, flags.into()).is_ok() {
                return Ok(text);
            }
        }
        self.ioctl_value(libc::TUNSETOFFLOAD, 0)?;
        Ok("none")
    }

    /// Whether the interface outlives its last queue.
    pub(super) fn set_persist(&self, persist: bool) -> io::Result<()> {
        self.ioctl_value(libc::TUNSETPERSIST, persist.into())
    }

    /// The interface's name now.
    ///
    /// # Errors
    /// `EBADFD` when it was deleted.
    pub(super) fn name(&self) -> io::Result<String> {
        // SAFETY: ifreq is plain data; all zero is valid.
        let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
        self.ioctl(libc::TUNGETIFF, &mut request)?;
        let name = request.ifr_name.iter().take_while(|&&byte| byte != 0);
        Ok(name.map(|&byte| char::from(byte as u8)).collect())
    }

    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn ioctl<T>(&self, code: impl Into<u64>, argument: &mut T) -> io::Result<()> {
        self.ioctl_value(code, core::ptr::from_mut(argument) as libc::c_ulong)
    }

    fn ioctl_value(&self, code: impl Into<u64>, argument: libc::c_ulong) -> io::Result<()> {
        // SAFETY: every code used here takes a number, or the address of the structure that it is
        // used with, which lives through the call.
        match unsafe { libc::ioctl(self.fd(), code.into() as _, argument) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Reads a packet into `pieces`; returns its length, cut to their room.
    #[inline]
    pub(super) fn read(&self, pieces: &mut [libc::iovec]) -> io::Result<usize> {
        // SAFETY: the caller's pieces are memory that it owns and nobody else uses.
        let len = unsafe { libc::readv(self.fd(), pieces.as_ptr(), pieces.len() as i32) };
        usize::try_from(len).map_err(|_| io::Error::last_os_error())
    }

    /// Writes a packet from `pieces`.
    #[inline]
    pub(super) fn write(&self, pieces: &[libc::iovec]) -> io::Result<()> {
        // SAFETY: the caller's pieces are memory that stays unchanged through the call.
        let len = unsafe { libc::writev(self.fd(), pieces.as_ptr(), pieces.len() as i32) };
        if len < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
