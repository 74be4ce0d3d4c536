//! Sending: the packets of a burst with one sendmmsg(2), each gathered from where it lies in the
//! arena. The kernel copies them before it returns, so frames are done at once.

use std::io;

use millrace_frames::{Arena, BURST, Transmit, TxBatch};

use super::Counters;
use super::socket::Socket;
use crate::interface;
use crate::vnet::{self, Header};

/// Pieces of all packets in one call; a packet with more than [`MAX_PIECES`] is not sent.
const PIECES: usize = 4096;
/// What the kernel takes for one packet (`UIO_MAXIOV`), the virtio-net header being one.
const MAX_PIECES: usize = 1024;

/// The lists that sendmmsg(2) reads.
pub(super) struct Sender {
    headers: Box<[Header; BURST]>,
    pieces: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    /// Packets go to the driver past the queueing discipline.
    bypass: bool,
}

// SAFETY: the pointers in `pieces` and `messages` are made and used within one call of `send`.
unsafe impl Send for Sender {}

impl Sender {
    pub(super) fn new(bypass: bool) -> Sender {
        Sender {
            headers: Box::new([Header::default(); BURST]),
            pieces: Vec::with_capacity(PIECES),
            messages: Vec::with_capacity(BURST),
            bypass,
        }
    }

    /// Sends from the front of `batch`; returns how many packets were taken from it.
    ///
    /// # Errors
    /// That the interface is down, or gone.
    pub(super) fn send(
        &mut self,
        socket: &Socket,
        arena: &mut Arena,
        batch: &mut TxBatch,
        counters: &mut Counters,
    ) -> io::Result<usize> {
        let mut taken = 0;
        while !batch.is_empty() {
            let prepared = self.prepare(arena, batch);
            if prepared == 0 {
                counters.tx_too_long += 1;
                taken += drop_first(arena, batch);
                continue;
            }
            counters.system_calls += 1;
            // SAFETY: the messages point into `pieces`, and these into `headers` and into frames
            // that the batch owns; nothing of them moves or is freed before the call returns.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.fd(),
                    self.messages.as_mut_ptr(),
                    prepared as _,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if sent > 0 {
                let sent = sent as usize;
                for packet in &batch[..sent] {
                    counters.tx_bytes += u64::from(packet.total);
                    arena.transmitted(packet);
                }
                counters.tx_packets += sent as u64;
                batch.consume(sent);
                taken += sent;
                // Fewer than prepared: the call after this one says why.
                continue;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error().unwrap_or(0) {
                libc::EINTR => {}
                libc::ENOBUFS if self.bypass && batch[0].gso_size != 0 => {
                    // Past the queueing discipline the kernel drops what the driver does not cut,
                    // and does not cut itself.
                    socket.set(libc::PACKET_QDISC_BYPASS, 0i32, "use the queueing discipline")?;
                    self.bypass = false;
                }
                libc::EAGAIN | libc::ENOBUFS => {
                    counters.tx_stalls += 1;
                    break;
                }
                libc::ENETDOWN if taken == 0 => return Err(interface::down(socket.interface())),
                libc::ENXIO | libc::ENODEV if taken == 0 => {
                    return Err(interface::gone(socket.interface()));
                }
                // Those sent are reported first; the next call to receive or to send looks again.
                libc::ENETDOWN | libc::ENXIO | libc::ENODEV => {
                    counters.socket_error = true;
                    break;
                }
                libc::EMSGSIZE => {
                    counters.tx_too_long += 1;
                    taken += drop_first(arena, batch);
                }
                _ => {
                    counters.tx_refused += 1;
                    taken += drop_first(arena, batch);
                }
            }
        }
        Ok(taken)
    }

    /// Fills the lists in for as many packets as they have room for. 0: the first is longer, or
    /// in more pieces, than the kernel takes.
    fn prepare(&mut self, arena: &Arena, batch: &[Transmit]) -> usize {
        self.pieces.clear();
        self.messages.clear();
        for (packet, header) in batch.iter().zip(self.headers.iter_mut()) {
            let pieces = usize::from(packet.frames) + 1;
            let too_long = packet.gso_size != 0 && packet.total as usize > vnet::MAX_PACKET;
            if too_long || pieces > MAX_PIECES || self.pieces.len() + pieces > PIECES {
                break;
            }
            *header = Header::transmit(packet, vnet::first_bytes(arena, packet));
            // SAFETY: msghdr is plain data; all zero is valid.
            let mut message: libc::mmsghdr = unsafe { core::mem::zeroed() };
            // Within the capacity: the list does not move while there are pointers into it.
            message.msg_hdr.msg_iov = self.pieces.as_mut_ptr().wrapping_add(self.pieces.len());
            message.msg_hdr.msg_iovlen = pieces as _;
            let iov_base = core::ptr::from_mut(header).cast();
            self.pieces.push(libc::iovec { iov_base, iov_len: Header::LEN });
            vnet::gather(arena, packet, &mut self.pieces);
            self.messages.push(message);
        }
        self.messages.len()
    }
}

/// Takes the first packet out of the batch unsent.
fn drop_first(arena: &mut Arena, batch: &mut TxBatch) -> usize {
    arena.transmitted(&batch[0]);
    batch.consume(1);
    1
}

impl core::fmt::Debug for Sender {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}
