//! One question to rtnetlink(7) and its answer, in the network namespace that the asker was made in.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// Largest answer that is read.
const MOST: usize = 16 << 10;

/// A socket that asks the kernel.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// A socket of the calling thread's network namespace.
    pub(crate) fn new() -> io::Result<Netlink> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: makes a descriptor, touches no memory.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        Ok(Netlink(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Asks with a message of this kind, `body` behind its header, and returns the body of the answer;
    /// `None` if the kernel has another one than of the kind `answers`.
    pub(crate) fn ask(&self, kind: u16, body: &[u8], answers: u16) -> io::Result<Option<Vec<u8>>> {
        let len = (HEADER_LEN + body.len()) as u32;
        let mut question = Vec::with_capacity(len as usize);
        question.extend(len.to_ne_bytes());
        question.extend(kind.to_ne_bytes());
        question.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
        question.extend([0; 8]);
        question.extend_from_slice(body);
        let mut answer = vec![0; MOST];
        // SAFETY: both buffers live through the calls, with their true lengths. The kernel answers a
        // request within send, so recv does not block.
        let len = unsafe {
            let fd = self.0.as_raw_fd();
            if libc::send(fd, question.as_ptr().cast(), question.len(), 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), libc::MSG_DONTWAIT)
        };
        let Ok(len) = usize::try_from(len) else { return Err(io::Error::last_os_error()) };
        answer.truncate(len);
        let is_it = answer.get(4..6) == Some(&answers.to_ne_bytes());
        Ok((is_it && len >= HEADER_LEN).then(|| answer.split_off(HEADER_LEN)))
    }
}
