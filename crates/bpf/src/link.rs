//! Links: what attaches a program to an interface for as long as a descriptor lives.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::{Error, Result};
use crate::netlink;
use crate::pin;
use crate::program::XdpProgram;
use crate::sys;

const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where in the receive path a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In the driver, before the kernel makes an skb (`XDP_FLAGS_DRV_MODE`).
    Native,
    /// After the skb is made, on any driver (`XDP_FLAGS_SKB_MODE`).
    Generic,
}

impl Mode {
    const fn flag(self) -> u32 {
        match self {
            Self::Native => XDP_FLAGS_DRV_MODE,
            Self::Generic => XDP_FLAGS_SKB_MODE,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// An attached program. Dropping it detaches, unless it is pinned or its descriptor was copied
/// elsewhere.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    ifindex: u32,
}

impl Link {
    pub(crate) fn create(program: &XdpProgram, ifindex: u32, mode: Mode) -> Result<Self> {
        let mut attr = sys::LinkCreate {
            prog_fd: program.as_fd().as_raw_fd() as u32,
            target_ifindex: ifindex,
            attach_type: sys::ATTACH_TYPE_XDP,
            flags: mode.flag(),
        };
        // SAFETY: the attribute holds no address.
        match unsafe { sys::bpf_fd(sys::LINK_CREATE, &mut attr) } {
            Ok(fd) => Ok(Self { fd, ifindex }),
            Err(errno) => Err(attach_error(ifindex, mode, errno)),
        }
    }

    /// Behind the packet sockets of the interface and before the protocols, beside the programs that are
    /// there already.
    pub(crate) fn create_tcx(program: &OwnedFd, name: &str, ifindex: u32) -> Result<Self> {
        let mut attr = sys::LinkCreate {
            prog_fd: program.as_raw_fd() as u32,
            target_ifindex: ifindex,
            attach_type: sys::ATTACH_TYPE_TCX_INGRESS,
            flags: 0,
        };
        // SAFETY: the attribute holds no address.
        match unsafe { sys::bpf_fd(sys::LINK_CREATE, &mut attr) } {
            Ok(fd) => Ok(Self { fd, ifindex }),
            Err(errno) => {
                let interface = sys::interface_name(ifindex);
                Err(Error::system(format!("attaching {name} to {interface} by TCX"), errno))
            }
        }
    }

    /// Puts `program` in the place of the one attached, without a gap. With `expected`, it fails
    /// with `EPERM` if another program than that is attached by now.
    ///
    /// # Errors
    /// `ENOLINK` once the link is detached or its interface is gone.
    pub fn replace(&self, program: &XdpProgram, expected: Option<&XdpProgram>) -> Result<()> {
        let mut attr = sys::LinkUpdate {
            link_fd: self.fd.as_raw_fd() as u32,
            new_prog_fd: program.as_fd().as_raw_fd() as u32,
            flags: if expected.is_some() { sys::F_REPLACE } else { 0 },
            old_prog_fd: expected.map_or(0, |old| old.as_fd().as_raw_fd() as u32),
        };
        // SAFETY: the attribute holds no address.
        unsafe { sys::bpf(sys::LINK_UPDATE, &mut attr) }.map_err(|errno| {
            let interface = sys::interface_name(self.ifindex);
            Error::system(format!("replacing the XDP program of {interface}"), errno)
        })?;
        Ok(())
    }

    /// Detaches the program now, whoever else holds the link's descriptor.
    ///
    /// # Errors
    /// What the kernel says; an interface that is gone meanwhile is no error.
    pub fn detach(self) -> Result<()> {
        let mut attr = sys::LinkDetach { link_fd: self.fd.as_raw_fd() as u32 };
        // SAFETY: the attribute holds no address.
        unsafe { sys::bpf(sys::LINK_DETACH, &mut attr) }.map_err(|errno| {
            let interface = sys::interface_name(self.ifindex);
            Error::system(format!("detaching the XDP program of {interface}"), errno)
        })?;
        Ok(())
    }

    /// Gives the link a name in a BPF file system: the program then stays attached when this
    /// process ends, until the name is removed or the link is detached.
    ///
    /// # Errors
    /// [`Error::Pin`].
    pub fn pin(&self, path: &Path) -> Result<()> {
        pin::pin(self.fd.as_fd(), path, "link")
    }

    /// Opens a link that was pinned, by this process or another.
    ///
    /// # Errors
    /// [`Error::Pin`]; [`Error::Argument`] if the name belongs to something else.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = pin::open(path, "link")?;
        // Any other BPF object has another layout of information, if it answers at all.
        let kind = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        // `bpf_link` and `bpf-link`, by how it came to be open.
        let is_link = kind.is_ok_and(|kind| kind.to_string_lossy().ends_with("link"));
        let raw = if is_link { Some(raw_info(fd.as_fd())?) } else { None };
        match raw {
            Some(raw) if raw.link_type == sys::LINK_TYPE_XDP => {
                Ok(Self { fd, ifindex: raw.ifindex })
            }
            _ => Err(Error::Argument(format!("{} is no XDP link", path.display()))),
        }
    }

    /// What the kernel knows of the link.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn info(&self) -> Result<LinkInfo> {
        Ok(LinkInfo::from(&raw_info(self.fd.as_fd())?))
    }
}

fn raw_info(fd: BorrowedFd<'_>) -> Result<sys::RawLinkInfo> {
    sys::object_info(fd).map_err(|errno| Error::system("asking about an XDP link", errno))
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A link in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's id of the link.
    pub id: u32,
    /// The kernel's id of the program that is attached by it.
    pub program_id: u32,
    /// The interface, or nothing once it is detached or gone.
    pub ifindex: Option<u32>,
}

impl LinkInfo {
    fn from(raw: &sys::RawLinkInfo) -> Self {
        Self {
            id: raw.id,
            program_id: raw.prog_id,
            ifindex: (raw.ifindex != 0).then_some(raw.ifindex),
        }
    }

    /// The XDP links of this machine, those of other network namespaces included, where an
    /// interface may have the same index.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`, which the kernel asks for here.
    pub fn all() -> Result<Vec<Self>> {
        let mut links = Vec::new();
        let mut last = 0;
        loop {
            let mut attr = sys::GetById { id: last, ..Default::default() };
            // SAFETY: the attribute holds no address.
            match unsafe { sys::bpf(sys::LINK_GET_NEXT_ID, &mut attr) } {
                Ok(_) => last = attr.next_id,
                Err(libc::ENOENT) => return Ok(links),
                Err(errno) => return Err(Error::system("walking the BPF links", errno)),
            }
            let mut attr = sys::GetById { id: last, ..Default::default() };
            // SAFETY: as above.
            let fd = match unsafe { sys::bpf_fd(sys::LINK_GET_FD_BY_ID, &mut attr) } {
                Ok(fd) => fd,
                // It has just gone, or is not there yet.
                Err(libc::ENOENT | libc::EAGAIN) => continue,
                Err(errno) => {
                    return Err(Error::system(format!("opening BPF link {last}"), errno));
                }
            };
            let raw = raw_info(fd.as_fd())?;
            if raw.link_type == sys::LINK_TYPE_XDP {
                links.push(Self::from(&raw));
            }
        }
    }
}

fn attach_error(ifindex: u32, mode: Mode, errno: i32) -> Error {
    let Some(interface) = sys::existing_interface(ifindex) else {
        // The kernel says EINVAL here, as it does for much else.
        let interface = sys::interface_name(ifindex);
        return Error::Attach { interface, mode, errno: libc::ENODEV };
    };
    if !matches!(errno, libc::EBUSY | libc::EEXIST) {
        return Error::Attach { interface, mode, errno };
    }
    // The reason is known already; that its details cannot be read must not hide it.
    let occupant = netlink::attached(ifindex).unwrap_or_default().into_iter().next();
    let (program_id, program_name, mode) = occupant
        .map_or((None, None, None), |program| (Some(program.id), program.name, program.mode));
    Error::Occupied { interface, program_id, program_name, mode, errno }
}
