//! The other end of the wire as the kernel sees it: a raw AF_PACKET socket.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::common::{Peer, Received};

const PACKET_VNET_HDR: i32 = 15;
const PACKET_IGNORE_OUTGOING: i32 = 23;
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;

pub struct KernelPeer {
    socket: OwnedFd,
    /// As `socket`, but with a virtio-net header before each frame; only sends.
    offload: OwnedFd,
}

impl KernelPeer {
    pub fn new(interface: &str) -> Self {
        let socket = open(interface, libc::ETH_P_ALL);
        set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 256 << 20);
        let offload = open(interface, 0);
        set(&offload, libc::SOL_PACKET, PACKET_VNET_HDR, 1);
        KernelPeer { socket, offload }
    }

    /// Sends a frame whose checksum is to be finished, in pieces if `gso_size` is not 0.
    pub fn send_with_header(&self, frame: &[u8], gso_size: u16, start: u16, offset: u16) {
        let (kind, headers) = if gso_size > 0 { (GSO_TCPV4, start + 20) } else { (0, 0) };
        let mut bytes = vec![NEEDS_CSUM, kind];
        for field in [headers, gso_size, start, offset] {
            bytes.extend(field.to_ne_bytes());
        }
        bytes.extend_from_slice(frame);
        send(&self.offload, &bytes);
    }
}

fn open(interface: &str, protocol: i32) -> OwnedFd {
    let protocol = (protocol as u16).to_be();
    let name = CString::new(interface).unwrap();
    // SAFETY: plain calls; the name ends with a zero, the address lives through the call, and the
    // descriptor is owned as soon as it is known to be one.
    unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let fd = libc::socket(libc::AF_PACKET, kind, 0);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = core::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        let len = size_of_val(&address) as u32;
        let result = libc::bind(fd, (&raw const address).cast(), len);
        assert_eq!(result, 0, "{interface}: {}", io::Error::last_os_error());
        socket
    }
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: i32) {
    // SAFETY: the value lives through the call and has the stated length.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4)
    };
    assert_eq!(result, 0, "option {option}: {}", io::Error::last_os_error());
}

fn send(socket: &OwnedFd, bytes: &[u8]) {
    loop {
        // SAFETY: the bytes live through the call.
        let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent >= 0 {
            return assert_eq!(sent as usize, bytes.len());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS) => std::thread::yield_now(),
            _ => panic!("the peer cannot send {} bytes: {error}", bytes.len()),
        }
    }
}

impl Peer for KernelPeer {
    fn send(&mut self, frame: &[u8]) {
        send(&self.socket, frame);
    }

    fn receive(&mut self) -> Option<Received> {
        let mut bytes = vec![0; 70_000];
        // SAFETY: the room lives through the call.
        let len = unsafe {
            libc::recv(self.socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0)
        };
        if len < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
            return None;
        }
        bytes.truncate(len as usize);
        Some(Received { bytes, unfinished: None })
    }

    fn send_offloaded(&mut self, frame: &[u8], gso_size: u16, start: u16, offset: u16) -> bool {
        // With native XDP the pieces of a super-segment come in one burst, with generic XDP the
        // whole comes if it fits a frame: `traffic` has tests of its own for both.
        if gso_size > 0 {
            return false;
        }
        self.send_with_header(frame, 0, start, offset);
        true
    }
}
