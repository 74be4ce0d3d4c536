//! Asks the kernel by rtnetlink which XDP programs an interface has. It changes nothing.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Error, Result};
use crate::link::Mode;
use crate::program::ProgramInfo;
use crate::sys;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const XDP_ATTACHED_SKB: u8 = 2;
/// The two high bits of an attribute's type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_MASK: u16 = 0x3fff;

const NLMSG_LEN: usize = 16;
const IFINFO_LEN: usize = 16;
const RTA_LEN: usize = 4;

/// An XDP program that is attached to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The kernel's id of the program.
    pub id: u32,
    /// Its name, if it has one and the caller may ask for it.
    pub name: Option<String>,
    /// Where it runs; nothing for programs on the NIC itself.
    pub mode: Option<Mode>,
}

/// The XDP programs of an interface of the caller's network namespace.
///
/// # Errors
/// `ENODEV` if there is no such interface, else what the socket says.
pub fn attached(ifindex: u32) -> Result<Vec<Attached>> {
    let failed = |errno| {
        let interface = sys::interface_name(ifindex);
        Error::system(format!("asking for the XDP programs of {interface}"), errno)
    };
    let reply = request_link(ifindex).map_err(failed)?;
    let programs = parse_link(&reply).map_err(failed)?;
    Ok(programs
        .into_iter()
        .map(|(id, mode)| {
            let info = ProgramInfo::by_id(id).ok().flatten();
            let name = info.map(|info| info.name).filter(|name| !name.is_empty());
            Attached { id, name, mode }
        })
        .collect())
}

/// One `RTM_GETLINK` and its answer.
fn request_link(ifindex: u32) -> std::result::Result<Vec<u8>, i32> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: a plain call; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(sys::errno());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };

    let mut request = [0u8; NLMSG_LEN + IFINFO_LEN];
    request[0..4].copy_from_slice(&((NLMSG_LEN + IFINFO_LEN) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[8..12].copy_from_slice(&1u32.to_ne_bytes());
    request[NLMSG_LEN + 4..NLMSG_LEN + 8].copy_from_slice(&ifindex.to_ne_bytes());
    // SAFETY: the request is as many readable bytes as stated.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(sys::errno());
    }

    // With MSG_TRUNC and MSG_PEEK the kernel tells the length that the answer needs.
    let mut reply = vec![0u8; 0];
    let mut flags = libc::MSG_PEEK | libc::MSG_TRUNC;
    loop {
        // SAFETY: the reply is as many writable bytes as stated.
        let len = unsafe {
            libc::recv(socket.as_raw_fd(), reply.as_mut_ptr().cast(), reply.len(), flags)
        };
        let Ok(len) = usize::try_from(len) else {
            match sys::errno() {
                libc::EINTR => continue,
                errno => return Err(errno),
            }
        };
        if flags == 0 {
            reply.truncate(len);
            return Ok(reply);
        }
        reply.resize(len, 0);
        flags = 0;
    }
}

/// Ids and modes from an `RTM_NEWLINK` message, or the `errno` that the answer carries.
fn parse_link(reply: &[u8]) -> std::result::Result<Vec<(u32, Option<Mode>)>, i32> {
    let kind = read_u16(reply, 4).ok_or(libc::EBADMSG)?;
    if kind == NLMSG_ERROR {
        let code = read_u32(reply, NLMSG_LEN).ok_or(libc::EBADMSG)? as i32;
        return Err(code.checked_neg().filter(|&errno| errno > 0).unwrap_or(libc::EBADMSG));
    }
    if kind != RTM_NEWLINK {
        return Err(libc::EBADMSG);
    }
    let len = read_u32(reply, 0).ok_or(libc::EBADMSG)? as usize;
    let body = reply.get(NLMSG_LEN + IFINFO_LEN..len).ok_or(libc::EBADMSG)?;

    let mut programs = Vec::new();
    let Some((_, xdp)) = attributes(body).find(|&(kind, _)| kind == IFLA_XDP) else {
        return Ok(programs);
    };
    let (mut any, mut attached) = (None, 0);
    for (kind, value) in attributes(xdp) {
        match kind {
            IFLA_XDP_ATTACHED => attached = value.first().copied().unwrap_or(0),
            IFLA_XDP_PROG_ID => any = read_u32(value, 0),
            IFLA_XDP_DRV_PROG_ID => {
                programs.extend(read_u32(value, 0).map(|id| (id, Some(Mode::Native))));
            }
            IFLA_XDP_SKB_PROG_ID => {
                programs.extend(read_u32(value, 0).map(|id| (id, Some(Mode::Generic))));
            }
            _ => {}
        }
    }
    if programs.is_empty() {
        let mode = (attached == XDP_ATTACHED_SKB).then_some(Mode::Generic);
        programs.extend(any.map(|id| (id, mode)));
    }
    Ok(programs)
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The attributes of a message; ends at the first that does not fit.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(RTA_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(((RTA_LEN + value.len()) as u16).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = vec![0; NLMSG_LEN + IFINFO_LEN];
        out.extend(body);
        let len = out.len() as u32;
        out[0..4].copy_from_slice(&len.to_ne_bytes());
        out[4..6].copy_from_slice(&kind.to_ne_bytes());
        out
    }

    #[test]
    fn programs_are_found_between_other_attributes() {
        let mut xdp = attribute(IFLA_XDP_ATTACHED, &[1]);
        xdp.extend(attribute(IFLA_XDP_PROG_ID, &7u32.to_ne_bytes()));
        xdp.extend(attribute(IFLA_XDP_DRV_PROG_ID, &7u32.to_ne_bytes()));
        let mut body = attribute(3, b"mill0\0");
        body.extend(attribute(IFLA_XDP | 0x8000, &xdp));
        let reply = message(RTM_NEWLINK, &body);
        assert_eq!(parse_link(&reply), Ok(vec![(7, Some(Mode::Native))]));
        for cut in 0..reply.len() {
            let _ = parse_link(&reply[..cut]);
        }
    }

    #[test]
    fn interface_without_a_program_has_none() {
        let body = attribute(IFLA_XDP, &attribute(IFLA_XDP_ATTACHED, &[0]));
        assert_eq!(parse_link(&message(RTM_NEWLINK, &body)), Ok(vec![]));
    }

    #[test]
    fn error_answer_becomes_errno() {
        let mut reply = message(NLMSG_ERROR, &[]);
        reply[NLMSG_LEN..NLMSG_LEN + 4].copy_from_slice(&(-libc::ENODEV).to_ne_bytes());
        assert_eq!(parse_link(&reply), Err(libc::ENODEV));
        assert_eq!(parse_link(&[]), Err(libc::EBADMSG));
    }

    #[test]
    fn absent_interface_is_named() {
        let error = attached(i32::MAX as u32).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENODEV));
        assert!(error.to_string().contains("2147483647"), "{error}");
    }
}
