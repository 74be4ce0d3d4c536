//! `ioctl` on a socket: how much is queued (tcp(7)).

use std::os::fd::RawFd;

use crate::errno::{Errno, Result};
use crate::socket::Kind;
use crate::world::World;

/// Bytes not yet sent (`linux/sockios.h`; not in libc).
const SIOCOUTQNSD: libc::c_ulong = 0x894b;

impl World {
    /// The number that the request asks for.
    ///
    /// # Errors
    /// `ENOTTY` for other requests, `EINVAL` on a listener.
    pub(crate) fn ioctl(&mut self, number: RawFd, request: libc::c_ulong) -> Result<i32> {
        let socket = self.descriptors.socket(number)?;
        let stream = match &socket.kind {
            Kind::Listener { .. } => return Err(Errno(libc::EINVAL)),
            Kind::Fresh | Kind::Deferred { .. } => None,
            Kind::Stream(stream) => Some(stream),
        };
        let value = match (stream, self.stack_ref()) {
            (Some(stream), Some(stack)) => {
                let info = stack.info(stream.id)?;
                match request {
                    // SIOCINQ.
                    libc::FIONREAD => stream.readable(stack),
                    // SIOCOUTQ.
                    libc::TIOCOUTQ => info.send_queue as usize,
                    SIOCOUTQNSD => info.send_queue.saturating_sub(info.in_flight) as usize,
                    _ => return Err(Errno(libc::ENOTTY)),
                }
            }
            _ if matches!(request, libc::FIONREAD | libc::TIOCOUTQ | SIOCOUTQNSD) => 0,
            _ => return Err(Errno(libc::ENOTTY)),
        };
        Ok(value as i32)
    }
}
