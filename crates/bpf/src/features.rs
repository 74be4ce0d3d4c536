//! Asks the kernel what an interface can do with XDP (generic netlink, family `netdev`, Linux 6.3).
//! It changes nothing.
//!
//! Linux, Documentation/netlink/specs/netdev.yaml.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Error, Result};
use crate::sys;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// `struct nlmsghdr`, then `struct genlmsghdr`.
const HEADERS: usize = 16 + 4;
const TYPE_MASK: u16 = 0x3fff;

/// What an interface can do (`enum netdev_xdp_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(pub u64);

impl Features {
    /// Frames may be redirected to it (`NETDEV_XDP_ACT_NDO_XMIT`). A veth has it while its peer has
    /// a program, or generic receive offload.
    pub const TAKES_REDIRECTED: Features = Features(4);
    /// AF_XDP without a copy (`NETDEV_XDP_ACT_XSK_ZEROCOPY`).
    pub const ZERO_COPY: Features = Features(8);

    /// Whether all of `other` are there.
    pub const fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What an interface of the caller's network namespace can do.
///
/// # Errors
/// `EOPNOTSUPP` from a kernel that cannot say it, `ENODEV` without the interface, else what the
/// socket says.
pub fn features(ifindex: u32) -> Result<Features> {
    let failed = |errno| {
        let interface = sys::interface_name(ifindex);
        Error::system(format!("asking what {interface} can do with XDP"), errno)
    };
    let socket = open().map_err(failed)?;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let reply = ask(&socket, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name);
    let reply = reply.map_err(|errno| match errno {
        libc::ENOENT => failed(libc::EOPNOTSUPP),
        errno => failed(errno),
    })?;
    let family = find(&reply, CTRL_ATTR_FAMILY_ID).and_then(|value| value.first_chunk());
    let family = u16::from_ne_bytes(*family.ok_or_else(|| failed(libc::EBADMSG))?);
    let index = attribute(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let reply = ask(&socket, family, NETDEV_CMD_DEV_GET, &index).map_err(failed)?;
    let bits = find(&reply, NETDEV_A_DEV_XDP_FEATURES).and_then(|value| value.first_chunk());
    bits.map(|bits| Features(u64::from_ne_bytes(*bits))).ok_or_else(|| failed(libc::EBADMSG))
}

type Outcome<T> = std::result::Result<T, i32>;

fn open() -> Outcome<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: a plain call; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_GENERIC) };
    if fd < 0 {
        return Err(sys::errno());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One request and the attributes of its answer.
fn ask(socket: &OwnedFd, family: u16, command: u8, attributes: &[u8]) -> Outcome<Vec<u8>> {
    let mut request = vec![0u8; HEADERS];
    request[0..4].copy_from_slice(&((HEADERS + attributes.len()) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&family.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    (request[16], request[17]) = (command, 1);
    request.extend_from_slice(attributes);
    let mut reply = vec![0u8; 16 << 10];
    // SAFETY: both buffers live through the calls, with their true lengths. The kernel answers a
    // request within send, so recv does not block.
    let len = unsafe {
        let fd = socket.as_raw_fd();
        if libc::send(fd, request.as_ptr().cast(), request.len(), 0) < 0 {
            return Err(sys::errno());
        }
        libc::recv(fd, reply.as_mut_ptr().cast(), reply.len(), libc::MSG_DONTWAIT)
    };
    let Ok(len) = usize::try_from(len) else { return Err(sys::errno()) };
    reply.truncate(len);
    if reply.get(4..6) == Some(&NLMSG_ERROR.to_ne_bytes()) {
        let code = reply.get(16..20).and_then(<[u8]>::first_chunk);
        let code = code.map_or(0, |code| i32::from_ne_bytes(*code));
        return Err(code.checked_neg().filter(|&errno| errno > 0).unwrap_or(libc::EBADMSG));
    }
    if len < HEADERS {
        return Err(libc::EBADMSG);
    }
    Ok(reply.split_off(HEADERS))
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len());
    bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of a kind.
fn find(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let word = |at: usize| Some(u16::from_ne_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let (len, kind) = (usize::from(word(0)?), word(2)? & TYPE_MASK);
        let value = bytes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_between_others_and_damage_does_no_harm() {
        let mut bytes = attribute(1, b"abc");
        bytes.extend(attribute(3, &[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(find(&bytes, 3), Some(&[1, 2, 3, 4, 5, 6, 7, 8][..]));
        assert_eq!(find(&bytes, 7), None);
        for cut in 0..bytes.len() {
            let _ = find(&bytes[..cut], 3);
        }
        assert_eq!(find(&[0; 64], 3), None);
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        match features(i32::MAX as u32) {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {
                println!("SKIP an_interface_that_is_not_there_is_named: {error}");
            }
            Err(error) => assert!(error.to_string().contains("2147483647"), "{error}"),
            Ok(found) => panic!("{found:?}"),
        }
    }
}
