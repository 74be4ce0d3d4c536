//! Facts of a network interface: what a port must know before it opens one.
//!
//! They are asked with ioctl(2) and rtnetlink(7), never read from `/sys`: a mounted `/sys` shows
//! the network namespace of whoever mounted it, the sockets here that of the calling thread.
//! Nothing but the few settings that [`crate::tap`] needs for its own interface is changed here.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use millrace_wire::mac::Mac;

use crate::netlink::Netlink;

/// What the kernel says of an interface of the calling thread's network namespace, at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number (ifindex).
    pub index: u32,
    /// Its hardware address; `None` where it is not Ethernet (loopback has one: all zero).
    pub mac: Option<Mac>,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// Whether it has a carrier, too (`IFF_RUNNING`).
    pub running: bool,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// The driver's name (`veth`, `virtio_net`, `tun`), empty where the kernel names none.
    pub driver: String,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
}

impl Interface {
    /// Asks for the facts of the interface called `name`.
    ///
    /// # Errors
    /// `NotFound` names the interfaces that there are; `InvalidInput` for what cannot be a name.
    pub fn find(name: &str) -> io::Result<Interface> {
        let control = Control::new()?;
        let mut request = request(name)?;
        let get = |code, request: &mut libc::ifreq, what| {
            control.ioctl(code, request).map_err(|error| match error.raw_os_error() {
                Some(libc::ENODEV) => absent(name),
                _ => {
                    io::Error::new(error.kind(), format!("{name}: cannot read its {what}: {error}"))
                }
            })
        };
        get(libc::SIOCGIFINDEX, &mut request, "index")?;
        // SAFETY: the kernel has filled in the index.
        let index = unsafe { request.ifr_ifru.ifru_ifindex } as u32;
        get(libc::SIOCGIFFLAGS, &mut request, "flags")?;
        // SAFETY: the kernel has filled in the flags.
        let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        get(libc::SIOCGIFMTU, &mut request, "MTU")?;
        // SAFETY: the kernel has filled in the MTU.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu } as u32;
        get(libc::SIOCGIFHWADDR, &mut request, "hardware address")?;
        // SAFETY: the kernel has filled in the hardware address.
        let hardware = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mac = matches!(hardware.sa_family, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK)
            .then(|| Mac(core::array::from_fn(|i| hardware.sa_data[i] as u8)));
        let (rx_queues, tx_queues) =
            control.channels(name).or_else(|| link_queues(index)).unwrap_or((1, 1));
        Ok(Interface {
            name: name.to_owned(),
            index,
            mac,
            mtu,
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
            loopback: flags & libc::IFF_LOOPBACK != 0,
            driver: control.driver(name).unwrap_or_default(),
            rx_queues,
            tx_queues,
        })
    }

    /// The names of all interfaces, in the order of their numbers.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn names() -> io::Result<Vec<String>> {
        // SAFETY: takes no arguments; the result is freed below.
        let list = unsafe { libc::if_nameindex() };
        if list.is_null() {
            return Err(io::Error::last_os_error());
        }
        let mut names = Vec::new();
        let mut entry = list;
        // SAFETY: the list ends with an entry of index 0, and until then each names an interface
        // by a C string that lives as long as the list.
        unsafe {
            while (*entry).if_index != 0 {
                names.push(CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
                entry = entry.add(1);
            }
            libc::if_freenameindex(list);
        }
        Ok(names)
    }

    /// The name that the interface with this number has now.
    ///
    /// # Errors
    /// When there is no such interface (any more).
    pub fn name_of(index: u32) -> io::Result<String> {
        let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
        // SAFETY: the buffer has the IF_NAMESIZE bytes that the call may write.
        if unsafe { libc::if_indextoname(index, name.as_mut_ptr()) }.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call wrote a C string into the buffer.
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// # Errors
    /// `ENETDOWN` (kind `NetworkDown`) with what to do when the interface is not up.
    pub fn require_up(&self) -> io::Result<()> {
        if self.up { Ok(()) } else { Err(down(&self.name)) }
    }

    /// Whether its other end is on this machine, in memory: no wire can damage a packet, and
    /// senders may leave transport checksums unfinished (`CHECKSUM_PARTIAL`).
    pub fn is_local_virtual(&self) -> bool {
        self.loopback
            || matches!(self.driver.as_str(), "veth" | "tun" | "loopback" | "dummy" | "ifb")
    }
}

/// The addresses that Linux has on an interface; those that it makes for every link by itself
/// (link-local ones of IPv6) are left out.
///
/// # Errors
/// When the kernel does not list them.
pub fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut list = core::ptr::null_mut();
    // SAFETY: the call writes the list's address, and the list is freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut entry = list;
    // SAFETY: the list ends with a null pointer. Each entry has a name and may have an address,
    // which is of the kind that its family says; all live as long as the list.
    unsafe {
        while let Some(found) = entry.as_ref() {
            if CStr::from_ptr(found.ifa_name).to_bytes() == name.as_bytes() {
                addresses.extend(found.ifa_addr.as_ref().and_then(|address| ip(address)));
            }
            entry = found.ifa_next;
        }
        libc::freeifaddrs(list);
    }
    addresses.retain(|address| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    });
    Ok(addresses)
}

/// The IP address in a socket address.
///
/// # Safety
/// There must be as much of it as its family says.
unsafe fn ip(address: &libc::sockaddr) -> Option<IpAddr> {
    let address = core::ptr::from_ref(address);
    // SAFETY: the caller's promise. The structures are of integers, read where they are.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => {
                let address = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let address = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// The error for an interface that is down, the same wherever it is noticed.
pub(crate) fn down(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NetworkDown,
        format!("{name} is down; bring it up: ip link set {name} up"),
    )
}

/// The error for an interface that has vanished while it was in use.
pub(crate) fn gone(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("{name} is gone: it was deleted or moved"))
}

/// The error for an interface that does not exist.
fn absent(name: &str) -> io::Error {
    let there = match Interface::names() {
        Ok(names) if names.is_empty() => "there is none here".to_owned(),
        Ok(names) => format!("there are: {}", names.join(", ")),
        Err(error) => format!("and they could not be listed: {error}"),
    };
    io::Error::new(io::ErrorKind::NotFound, format!("no interface {name:?}; {there}"))
}

/// The error of a setting that the kernel refuses.
fn explain(error: &io::Error, name: &str, what: &str) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => " (this needs CAP_NET_ADMIN; run as root)",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{name} cannot {what}: {error}{hint}"))
}

/// An IPv4 address as ioctl(2) wants it, a `sockaddr_in`.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

/// An `ifreq` that names an interface.
pub(crate) fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain data; all zero is valid.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    let fits = !name.is_empty() && name.len() < request.ifr_name.len();
    if !fits || name.bytes().any(|byte| byte == 0 || byte == b'/' || byte.is_ascii_whitespace()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{name:?} cannot be an interface: a name has 1 to {} bytes, no space and no slash",
                libc::IF_NAMESIZE - 1
            ),
        ));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// A socket that serves only to ask and to set interface properties by ioctl(2). It belongs to the
/// network namespace that its maker was in.
#[derive(Debug)]
pub(crate) struct Control(OwnedFd);

impl Control {
    pub(crate) fn new() -> io::Result<Control> {
        Control::of_family(libc::AF_INET)
    }

    fn of_family(family: i32) -> io::Result<Control> {
        // SAFETY: makes a descriptor, touches no memory.
        let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        Ok(Control(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// `request` is a structure that the code takes: an ifreq, or an in6_ifreq.
    fn ioctl<T>(&self, code: libc::c_ulong, request: &mut T) -> io::Result<()> {
        // SAFETY: every code used here takes the structure it is used with, which lives through
        // the call.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), code as _, core::ptr::from_mut(request)) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether the interface is up.
    pub(crate) fn is_up(&self, name: &str) -> io::Result<bool> {
        let mut request = request(name)?;
        self.ioctl(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the kernel has filled in the flags.
        Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }) & libc::IFF_UP != 0)
    }

    /// The interface's number now.
    pub(crate) fn index(&self, name: &str) -> io::Result<u32> {
        let mut request = request(name)?;
        self.ioctl(libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: the kernel has filled in the index.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
    }

    /// Sets the interface up.
    pub(crate) fn set_up(&self, name: &str) -> io::Result<()> {
        let mut request = request(name)?;
        self.ioctl(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the kernel has filled in the flags.
        unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
        self.ioctl(libc::SIOCSIFFLAGS, &mut request)
            .map_err(|error| explain(&error, name, "be set up"))
    }

    /// Sets the interface's MTU.
    pub(crate) fn set_mtu(&self, name: &str, mtu: u32) -> io::Result<()> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_mtu = i32::try_from(mtu).unwrap_or(i32::MAX);
        self.ioctl(libc::SIOCSIFMTU, &mut request)
            .map_err(|error| explain(&error, name, &format!("have an MTU of {mtu}")))
    }

    /// Gives the kernel's side of the interface an address.
    pub(crate) fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        let failed = |error: io::Error| explain(&error, name, &format!("have {address}/{prefix}"));
        match address {
            IpAddr::V4(address) if prefix <= 32 => {
                let mut request = request(name)?;
                request.ifr_ifru.ifru_addr = socket_address(address);
                self.ioctl(libc::SIOCSIFADDR, &mut request).map_err(failed)?;
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                request.ifr_ifru.ifru_netmask = socket_address(Ipv4Addr::from_bits(mask));
                self.ioctl(libc::SIOCSIFNETMASK, &mut request).map_err(failed)
            }
            IpAddr::V6(address) if prefix <= 128 => {
                let mut request = libc::in6_ifreq {
                    ifr6_addr: libc::in6_addr { s6_addr: address.octets() },
                    ifr6_prefixlen: prefix.into(),
                    ifr6_ifindex: Interface::find(name)?.index as i32,
                };
                match Control::of_family(libc::AF_INET6)?.ioctl(libc::SIOCSIFADDR, &mut request) {
                    // Another queue of the same interface was here before.
                    Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
                    result => result.map_err(failed),
                }
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{address}/{prefix}: the prefix is longer than the address"),
            )),
        }
    }

    /// An ethtool command: `data` is a structure of the command's layout, its number first.
    fn ethtool<T>(&self, name: &str, data: &mut T) -> Option<()> {
        let mut request = request(name).ok()?;
        request.ifr_ifru.ifru_data = core::ptr::from_mut(data).cast();
        self.ioctl(libc::SIOCETHTOOL, &mut request).ok()
    }

    /// An ioctl(2) of the interface's driver whose argument is a structure.
    pub(crate) fn device<T>(
        &self,
        code: libc::c_ulong,
        name: &str,
        data: &mut T,
    ) -> io::Result<()> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_data = core::ptr::from_mut(data).cast();
        self.ioctl(code, &mut request)
    }

    fn driver(&self, name: &str) -> Option<String> {
        let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, ..DriverInfo::default() };
        self.ethtool(name, &mut info)?;
        let end = info.driver.iter().position(|&byte| byte == 0).unwrap_or(info.driver.len());
        Some(String::from_utf8_lossy(&info.driver[..end]).into_owned())
    }

    fn channels(&self, name: &str) -> Option<(u32, u32)> {
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
        self.ethtool(name, &mut channels)?;
        let rx = channels.rx.saturating_add(channels.combined);
        let tx = channels.tx.saturating_add(channels.combined);
        (rx > 0 && tx > 0).then_some((rx, tx))
    }
}

const ETHTOOL_GDRVINFO: u32 = 0x3;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_drvinfo` (linux/ethtool.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 32 + 32 + 32 + 32 + 12 + 5 * 4],
}

impl Default for DriverInfo {
    fn default() -> Self {
        DriverInfo { command: 0, driver: [0; 32], rest: [0; 160] }
    }
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

/// `struct ethtool_channels` (linux/ethtool.h).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Channels {
    command: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Receive and transmit queues by rtnetlink(7), for drivers that do not answer ethtool.
fn link_queues(index: u32) -> Option<(u32, u32)> {
    const IFLA_NUM_TX_QUEUES: u16 = 31;
    const IFLA_NUM_RX_QUEUES: u16 = 32;
    /// Bytes of `struct ifinfomsg`, which begins the answer, too.
    const LINK_LEN: usize = 16;
    let mut link = [0; LINK_LEN];
    link[4..8].copy_from_slice(&index.to_ne_bytes());
    let netlink = Netlink::new().ok()?;
    let answer = netlink.ask(libc::RTM_GETLINK, &link, libc::RTM_NEWLINK).ok()??;
    let (mut rx, mut tx) = (None, None);
    let mut rest = answer.get(LINK_LEN..)?;
    while let Some((&[l0, l1, t0, t1], value)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let number = || value.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes));
        match u16::from_ne_bytes([t0, t1]) {
            IFLA_NUM_RX_QUEUES => rx = number(),
            IFLA_NUM_TX_QUEUES => tx = number(),
            _ => {}
        }
        rest = rest.get(len.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Some((rx?, tx?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_with_its_facts() {
        let lo = Interface::find("lo").unwrap();
        assert_eq!((lo.name.as_str(), lo.loopback, lo.mac), ("lo", true, Some(Mac([0; 6]))));
        assert!(lo.index > 0 && lo.mtu > 0 && lo.rx_queues > 0 && lo.tx_queues > 0);
        assert!(lo.is_local_virtual());
        assert_eq!(Interface::name_of(lo.index).unwrap(), "lo");
    }

    #[test]
    fn a_missing_interface_is_told_with_those_that_exist() {
        let error = Interface::find("mrpb-none").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let text = error.to_string();
        assert!(text.contains("\"mrpb-none\"") && text.contains("lo"), "{text}");
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        for name in ["", "sixteen-letters-", "a b", "a/b", "a\0b"] {
            let error = Interface::find(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
    }

    #[test]
    fn an_interface_that_is_down_is_told_with_the_remedy() {
        let mut lo = Interface::find("lo").unwrap();
        lo.up = false;
        let error = lo.require_up().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NetworkDown);
        assert!(error.to_string().contains("ip link set lo up"), "{error}");
    }

    #[test]
    fn the_addresses_of_loopback_are_told() {
        let told = addresses("lo").unwrap();
        let up = Interface::find("lo").unwrap().up;
        assert_eq!(told.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), up, "{told:?}");
        assert_eq!(addresses("mrpb-none").unwrap(), Vec::<IpAddr>::new());
    }

    #[test]
    fn netlink_counts_the_queues_of_loopback() {
        let lo = Interface::find("lo").unwrap();
        assert_eq!(link_queues(lo.index), Some((1, 1)));
        assert_eq!(link_queues(u32::MAX >> 1), None);
    }
}
