//! UDP (RFC 768, RFC 1122 §4.1): sockets with a bounded queue of received frames.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::io;

use millrace_frames::{ChecksumState, Frame, Owners};
use millrace_wire::mac::Mac;
use millrace_wire::{checksum, dhcpv4, ipv4, ipv6, protocol, udp};

use crate::Stack;
use crate::address::{Word, address, is_v4, word, word_v4};
use crate::bound::Bound;
use crate::chain;
use crate::control::{Hop, L4};
use crate::destination::{canonical, no_source};
use crate::first_hop::Path;
use crate::fragmentation::{Body, IpHeader};
use crate::ip::IpInfo;
use crate::multicast::{SocketMulticast, group_mac, is_multicast};
use crate::stack::NO_SOCKET;
use crate::tables::DatagramInfo;
use crate::tcp::connection::Queue;

/// A datagram socket of this stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    pub(crate) index: u16,
    pub(crate) generation: u16,
}

/// A received datagram. Its frames belong to the receiver ([`Owners::RECEIVED`]), who releases
/// them; their bytes are the payload. One that came in fragments is in several.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// First frame of the payload.
    pub frame: Frame,
    /// Who sent it.
    pub source: SocketAddr,
    /// The address of ours that it came to.
    pub destination: IpAddr,
}

#[derive(Clone, Debug)]
pub(crate) struct UdpSocket {
    open: bool,
    generation: u16,
    pub(crate) local: Bound,
    port: u16,
    /// Only from there, if connected.
    pub(crate) remote: Option<(Word, u16)>,
    /// Next socket of the same port.
    pub(crate) next: u16,
    queue: Queue,
    /// Frames in the queue.
    queued: u16,
    waiting: bool,
    dropped: u64,
    dont_fragment: bool,
    /// The peer that the socket is connected to has nobody at the port.
    refused: bool,
    pub(crate) multicast: SocketMulticast,
}

impl UdpSocket {
    pub(crate) fn look(&self) -> Option<DatagramInfo> {
        self.open.then(|| DatagramInfo {
            local: SocketAddr::new(self.local.address(), self.port),
            remote: self.remote.map(|(ip, port)| SocketAddr::new(address(ip), port)),
            queued: self.queued,
            dropped: self.dropped,
        })
    }
}

const HEADERS: usize = L4 + udp::HEADER_LEN;

impl Stack {
    pub(crate) fn udp_packet(&mut self, frame: Frame, ip: &IpInfo) {
        let bytes = &self.arena.bytes(frame)[ip.payload..];
        // One that was reassembled is in several frames, with the header in the first.
        let datagram = match udp::Datagram::parse_cut(&bytes[..bytes.len().min(ip.len)]) {
            Ok(datagram) if datagram.total_len() <= ip.len => datagram,
            _ => {
                self.counters.drop_udp_malformed += 1;
                return self.drop_chain(frame);
            }
        };
        let (source_port, port, len, field) = (
            datagram.source_port(),
            datagram.destination_port(),
            datagram.total_len(),
            datagram.checksum(),
        );
        let pseudo = ip.pseudo(protocol::UDP, len);
        let holds = match field {
            0 if is_v4(ip.source) => true,
            // By IPv6 a datagram has one (RFC 8200 §8.1), unless it never left this machine.
            0 => self.arena.meta(frame).checksum == ChecksumState::Verified,
            _ => {
                let bytes = self.arena.bytes(frame);
                self.checksum_holds(frame, bytes, ip.payload, len, field, pseudo)
            }
        };
        if !holds {
            self.counters.drop_udp_checksum += 1;
            return self.drop_chain(frame);
        }
        let from_server = port == dhcpv4::CLIENT_PORT && source_port == dhcpv4::SERVER_PORT;
        // DHCPv4 is spoken by IPv4 only.
        if from_server && is_v4(ip.source) && self.dhcp.is_some() {
            return self.dhcp_packet(frame, ip, len);
        }
        if ip.many && self.addresses.find(ip.destination).is_none() {
            return self.udp_to_many(frame, ip, (source_port, port), len);
        }
        let Some(index) = self.find_socket(port, ip.destination, ip.source, source_port) else {
            self.counters.drop_udp_no_socket += 1;
            self.port_unreachable(frame, ip);
            return self.drop_chain(frame);
        };
        self.udp_deliver(index, frame, ip, len);
    }

    /// Puts a datagram of `len` bytes, its header included, into a socket's queue.
    pub(crate) fn udp_deliver(&mut self, index: usize, frame: Frame, ip: &IpInfo, len: usize) {
        // The headers stay in the frame before the payload; `mark` tells where they are.
        let meta = self.arena.meta_mut(frame);
        let header = meta.offset + ip.start as u16;
        meta.mark = u32::from(header) << 16 | u32::from(meta.offset + ip.payload as u16);
        let payload = ip.payload + udp::HEADER_LEN;
        let chain = chain::cut(&mut self.arena, frame, payload, len - udp::HEADER_LEN);
        let socket = &mut self.sockets[index];
        let room = self.config.datagram_queue.saturating_sub(socket.queued);
        if chain.frames > room && socket.queued > 0 {
            socket.dropped += 1;
            self.counters.drop_udp_queue_full += 1;
            return self.drop_chain(frame);
        }
        let free = self.arena.free();
        let few = free < self.config.frame_reserve as usize / 2;
        if few || !self.memory.fair(free, socket.queued) {
            self.udp_not_delivered(index);
            return self.drop_chain(frame);
        }
        socket.queue.push_chain(&mut self.arena, frame, chain.tail);
        socket.queued += chain.frames;
        self.counters.datagrams_in += 1;
        if !core::mem::replace(&mut socket.waiting, true) {
            self.ready_sockets.push_back(index as u16);
        }
    }

    /// An ICMP error says that nobody has the port that a datagram of ours went to. A connected
    /// socket is told with its next datagram (RFC 1122 §4.1.3.3); the error is believed by both
    /// addresses and both ports (RFC 5927 §4).
    pub(crate) fn udp_icmp_error(
        &mut self,
        source: Word,
        destination: Word,
        [a, b, c, d]: [u8; 4],
        port: bool,
    ) {
        if !port {
            // Other errors may pass (RFC 1122 §4.1.3.3), and a datagram promised nothing.
            self.counters.drop_icmp_ignored += 1;
            return;
        }
        let remote = (destination, u16::from_be_bytes([c, d]));
        let mut at = self.udp_ports[usize::from(u16::from_be_bytes([a, b]))];
        while at != NO_SOCKET {
            let socket = &mut self.sockets[usize::from(at)];
            if socket.remote == Some(remote) && socket.local.takes(source).is_some() {
                socket.refused = true;
                self.counters.icmp_errors_taken += 1;
                return;
            }
            at = socket.next;
        }
        self.counters.drop_icmp_unrelated += 1;
    }

    /// Counts a datagram that found too few frames left.
    pub(crate) fn udp_not_delivered(&mut self, index: usize) {
        self.sockets[index].dropped += 1;
        self.counters.drop_udp_no_frame += 1;
    }

    /// The most specific socket: connected before bound to an address before bound to any.
    pub(crate) fn find_socket(
        &self,
        port: u16,
        local: Word,
        source: Word,
        source_port: u16,
    ) -> Option<usize> {
        let mut best = None;
        let mut next = self.udp_ports[usize::from(port)];
        while next != NO_SOCKET {
            let socket = &self.sockets[usize::from(next)];
            let rank = socket.local.takes(local);
            let remote_fits = socket.remote.is_none_or(|remote| remote == (source, source_port));
            if let Some(rank) = rank.filter(|_| remote_fits) {
                let score = u8::from(socket.remote.is_some()) * 4 + rank;
                if best.is_none_or(|(best_score, _)| score > best_score) {
                    best = Some((score, usize::from(next)));
                }
            }
            next = socket.next;
        }
        best.map(|(_, index)| index)
    }

    /// Opens a socket. 0.0.0.0 takes datagrams to any IPv4 address of ours, `::` to any of both
    /// families; port 0 is chosen.
    ///
    /// # Errors
    /// `AddrNotAvailable` for an address that is not ours or when no port is free; `AddrInUse`;
    /// `QuotaExceeded` when all sockets are in use.
    pub fn bind_datagram(&mut self, local: SocketAddr) -> io::Result<SocketId> {
        self.bind_datagram_to(local, false)
    }

    /// As [`Stack::bind_datagram`], with `::` meaning any IPv6 address only (RFC 3493 §5.3,
    /// `IPV6_V6ONLY`).
    ///
    /// # Errors
    /// As [`Stack::bind_datagram`].
    pub fn bind_datagram_v6_only(&mut self, local: SocketAddr) -> io::Result<SocketId> {
        self.bind_datagram_to(local, true)
    }

    fn bind_datagram_to(&mut self, local: SocketAddr, v6_only: bool) -> io::Result<SocketId> {
        let bound = match local.ip().to_canonical() {
            // Only what is sent to the group, of those that the socket joins.
            ip if ip.is_multicast() => Bound::One(word(ip)),
            _ => self.bound(local.ip(), v6_only)?,
        };
        let port = match local.port() {
            0 => self.free_udp_port(bound)?,
            port if self.udp_port_taken(port, bound) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    format!("UDP {local} is taken by another socket of this stack"),
                ));
            }
            port => port,
        };
        let index = match self.sockets.iter().position(|socket| !socket.open) {
            Some(index) => index,
            None if self.sockets.len() < usize::from(self.config.datagram_sockets) => {
                self.sockets.push(UdpSocket {
                    open: false,
                    generation: 0,
                    local: Bound::Any,
                    port: 0,
                    remote: None,
                    next: NO_SOCKET,
                    queue: Queue::default(),
                    queued: 0,
                    waiting: false,
                    dropped: 0,
                    dont_fragment: false,
                    refused: false,
                    multicast: SocketMulticast::NONE,
                });
                self.sockets.len() - 1
            }
            None => {
                return Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    format!("all {} datagram sockets are in use", self.config.datagram_sockets),
                ));
            }
        };
        let first = &mut self.udp_ports[usize::from(port)];
        let socket = &mut self.sockets[index];
        socket.open = true;
        socket.local = bound;
        socket.port = port;
        socket.remote = None;
        socket.dropped = 0;
        socket.dont_fragment = false;
        socket.refused = false;
        socket.multicast = SocketMulticast::NONE;
        socket.next = core::mem::replace(first, index as u16);
        Ok(SocketId { index: index as u16, generation: socket.generation })
    }

    fn udp_port_taken(&self, port: u16, bound: Bound) -> bool {
        let mut next = self.udp_ports[usize::from(port)];
        while next != NO_SOCKET {
            let socket = &self.sockets[usize::from(next)];
            if socket.local.conflicts(bound) {
                return true;
            }
            next = socket.next;
        }
        false
    }

    fn free_udp_port(&mut self, bound: Bound) -> io::Result<u16> {
        let (first, last) =
            (*self.config.ephemeral_ports.start(), *self.config.ephemeral_ports.end());
        let count = u32::from(last - first) + 1;
        let offset =
            self.keys.prf(&[u64::from(self.now_us), u64::from(self.port_counter[0])]) as u32;
        self.port_counter[0] = self.port_counter[0].wrapping_add(1);
        (0..count)
            .map(|step| first + (offset.wrapping_add(step) % count) as u16)
            .find(|&port| !self.udp_port_taken(port, bound))
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::AddrNotAvailable,
                    format!("no UDP port from {first} to {last} is free"),
                )
            })
    }

    pub(crate) fn socket(&mut self, id: SocketId) -> io::Result<&mut UdpSocket> {
        self.sockets
            .get_mut(usize::from(id.index))
            .filter(|socket| socket.open && socket.generation == id.generation)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the socket is closed"))
    }

    /// Takes datagrams from one peer only, and makes it the default of [`Stack::send_datagram`].
    ///
    /// # Errors
    /// `NotConnected` if the socket is closed; `InvalidInput` for a peer of another family than the
    /// socket's (RFC 3493 §5.3), and for one that nothing may be sent to; no route.
    pub fn connect_datagram(&mut self, id: SocketId, remote: SocketAddr) -> io::Result<()> {
        let remote = canonical(remote);
        let local = self.socket(id)?.local;
        if !local.speaks(word(remote.ip())) {
            return Err(other_family(local, remote.ip()));
        }
        let many = remote.ip().is_multicast() || remote.ip() == IpAddr::V4(Ipv4Addr::BROADCAST);
        if !many {
            self.route_to(remote.ip())?;
        }
        self.socket(id)?.remote = Some((word(remote.ip()), remote.port()));
        Ok(())
    }

    /// The socket's own address and port.
    ///
    /// # Errors
    /// `NotConnected` if it is closed.
    pub fn datagram_address(&mut self, id: SocketId) -> io::Result<SocketAddr> {
        let socket = self.socket(id)?;
        Ok(SocketAddr::new(socket.local.address(), socket.port))
    }

    /// Our address that a datagram comes from: the socket's own, or the one of the route.
    pub(crate) fn datagram_source(&self, bound: Bound, chosen: u8) -> io::Result<u8> {
        let source = match bound {
            // A socket that is bound to a group sends from an address of its stack's.
            Bound::One(own) if !is_multicast(own) => own,
            _ => self.addresses.word(chosen),
        };
        self.addresses.find(source).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!(
                    "{} is no address of this stack that can be used now: it was removed, another \
                     host has it, or duplicate address detection is under way",
                    address(source)
                ),
            )
        })
    }

    /// Sends one datagram to `remote`, or to the peer that the socket is connected to: in
    /// fragments if it does not fit the MTU.
    ///
    /// # Errors
    /// `InvalidInput` (`EMSGSIZE`) when it is longer than any datagram, or does not fit the path's MTU
    /// and [`Stack::set_dont_fragment`] forbids fragments, and for a destination of another family than
    /// the socket's or that nothing may be sent to (RFC 1122 §3.2.1.3); `ConnectionRefused`, once, when
    /// the peer that the socket is connected to said that nobody has the port of an earlier one; no
    /// route; `WouldBlock` when not enough frames are free or too many packets wait.
    pub fn send_datagram(
        &mut self,
        id: SocketId,
        data: &[u8],
        remote: Option<SocketAddr>,
    ) -> io::Result<()> {
        let socket = self.socket(id)?;
        if core::mem::take(&mut socket.refused) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "nobody has the port: the peer refused an earlier datagram",
            ));
        }
        let (local, port, dont_fragment) = (socket.local, socket.port, socket.dont_fragment);
        let SocketMulticast { ttl, looped, source: multicast_source, .. } = socket.multicast;
        let remote = match (remote, socket.remote) {
            (Some(remote), _) => canonical(remote),
            (None, Some((ip, port))) => SocketAddr::new(address(ip), port),
            (None, None) => {
                return Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "the socket is not connected and no destination was given",
                ));
            }
        };
        if !local.speaks(word(remote.ip())) {
            return Err(other_family(local, remote.ip()));
        }
        if let IpAddr::V6(destination) = remote.ip() {
            let to = (destination, remote.port());
            let groups = (ttl, looped, multicast_source);
            return self.send_datagram_v6((local, port), to, groups, dont_fragment, data);
        }
        let one_packet = self.one_packet_to(word(remote.ip()));
        let whole = ipv4::HEADER_LEN + udp::HEADER_LEN + data.len();
        let most = if dont_fragment { one_packet } else { usize::from(u16::MAX) };
        if whole > most {
            let most = most - ipv4::HEADER_LEN - udp::HEADER_LEN;
            return Err(too_long(data.len(), most, dont_fragment));
        }
        let multicast = remote.ip().is_multicast();
        let broadcast =
            matches!(remote.ip(), IpAddr::V4(address) if self.addresses.is_broadcast(address));
        let route = if remote.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
            let local = self.addresses.first_v4().ok_or_else(|| no_source(remote.ip()))?;
            Path { local, next_hop: 0 }
        } else if multicast {
            self.multicast_path(remote.ip(), multicast_source)?
        } else {
            self.route_to(remote.ip())?
        };
        let hop = if broadcast {
            Hop::Mac(Mac::BROADCAST)
        } else if multicast {
            Hop::Mac(group_mac(word(remote.ip())))
        } else {
            Hop::Address(route.next_hop)
        };
        let (IpAddr::V4(source), IpAddr::V4(destination)) =
            (self.addresses.get(self.datagram_source(local, route.local)?), remote.ip())
        else {
            return Err(other_family(local, remote.ip()));
        };
        let len = udp::HEADER_LEN + data.len();
        let mut ip = ipv4::Header {
            source,
            destination,
            protocol: protocol::UDP,
            ttl: if multicast { ttl } else { 64 },
            tos: 0,
            identification: 0,
            dont_fragment,
        };
        if multicast && looped {
            self.loop_back(&IpHeader::V4(ip), (port, remote.port()), data);
        }
        if ip.ttl == 0 {
            return Ok(());
        }
        self.sent_large(&IpHeader::V4(ip), (port, remote.port()), whole);
        if whole > one_packet {
            let mut header = [0; udp::HEADER_LEN];
            udp::emit(&mut header, port, remote.port(), data.len());
            let pseudo = checksum::pseudo_v4(source, destination, protocol::UDP, len);
            udp::fill_checksum(&mut header, pseudo, checksum::sum(data));
            let (ip, to) = (IpHeader::V4(ip), (hop, one_packet));
            if !self.send_fragments(ip, to, &header, Body::Bytes(data), data.len()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.counters.datagrams_out += 1;
            return Ok(());
        }
        let Some(frame) = self.control_frame() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        if !dont_fragment {
            ip.identification =
                self.identification(word_v4(source), word_v4(destination), protocol::UDP) as u16;
        }
        self.control_header(frame, ip, len);
        let room = &mut self.control_room(frame)[L4..];
        udp::emit(room, port, remote.port(), data.len());
        let sum = checksum::copy_and_sum(&mut room[udp::HEADER_LEN..][..data.len()], data);
        let pseudo = checksum::pseudo_v4(source, destination, protocol::UDP, len);
        udp::fill_checksum(room, pseudo, sum);
        self.counters.datagrams_out += 1;
        self.control_packet(frame, HEADERS + data.len(), hop);
        Ok(())
    }

    /// Takes the oldest datagram that waits at the socket.
    ///
    /// # Errors
    /// `NotConnected` if it is closed.
    pub fn receive_datagram(&mut self, id: SocketId) -> io::Result<Option<Datagram>> {
        self.socket(id)?;
        let socket = &mut self.sockets[usize::from(id.index)];
        let Some((frame, frames)) = socket.queue.pop_chain(&mut self.arena) else {
            return Ok(None);
        };
        socket.queued -= frames;
        let meta = self.arena.meta(frame);
        let (header, transport) = ((meta.mark >> 16) as usize, (meta.mark & 0xffff) as usize);
        let room = self.arena.room(frame);
        let ip = &room[header..];
        let source_port = u16::from_be_bytes([room[transport], room[transport + 1]]);
        let v4 = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
        let (source, destination) = match ipv6::Packet::parse_cut(ip) {
            Ok(packet) => (packet.source().into(), packet.destination().into()),
            Err(_) => (v4(12), v4(16)),
        };
        Ok(Some(Datagram { frame, source: SocketAddr::new(source, source_port), destination }))
    }

    /// Whether the socket's datagrams may be fragmented, here (where a datagram that does not fit
    /// the MTU is then an error) and by routers: the don't-fragment bit. Off at first.
    ///
    /// # Errors
    /// `NotConnected` if it is closed.
    pub fn set_dont_fragment(&mut self, id: SocketId, on: bool) -> io::Result<()> {
        self.socket(id)?.dont_fragment = on;
        Ok(())
    }

    /// Datagrams that the socket dropped because its queue was full.
    ///
    /// # Errors
    /// `NotConnected` if it is closed.
    pub fn datagrams_dropped(&mut self, id: SocketId) -> io::Result<u64> {
        self.socket(id).map(|socket| socket.dropped)
    }

    /// Closes the socket; what waits in it is dropped.
    pub fn close_datagram(&mut self, id: SocketId) {
        if self.socket(id).is_err() {
            return;
        }
        let index = id.index;
        self.leave_all_groups(index);
        let socket = &mut self.sockets[usize::from(index)];
        socket.open = false;
        socket.generation = socket.generation.wrapping_add(1);
        socket.queue.release_all(&mut self.arena, Owners::RECEIVED);
        socket.queued = 0;
        let (port, after) = (socket.port, socket.next);
        let mut at = self.udp_ports[usize::from(port)];
        if at == index {
            self.udp_ports[usize::from(port)] = after;
            return;
        }
        while at != NO_SOCKET {
            let next = self.sockets[usize::from(at)].next;
            if next == index {
                self.sockets[usize::from(at)].next = after;
                return;
            }
            at = next;
        }
    }

    /// Asserts that each socket's count of frames is that of its queue.
    pub(crate) fn check_sockets(&self) {
        for socket in &self.sockets {
            let (mut at, mut last, mut frames) = (socket.queue.head, Frame::NONE, 0);
            while at.is_some() {
                assert!(self.arena.owners(at).contains(Owners::RECEIVED), "{at:?} at a socket");
                frames += 1;
                (last, at) = (at, self.arena.meta(at).next);
            }
            assert_eq!((last, frames), (socket.queue.tail, socket.queued), "a socket's queue");
        }
    }

    pub(crate) fn socket_ready(&mut self, index: u16) -> Option<SocketId> {
        let socket = &mut self.sockets[usize::from(index)];
        socket.waiting = false;
        (socket.open && !socket.queue.is_empty())
            .then_some(SocketId { index, generation: socket.generation })
    }
}

pub(crate) fn too_long(len: usize, most: usize, dont_fragment: bool) -> io::Error {
    let why = if dont_fragment { " and the socket may not fragment" } else { "" };
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("a datagram of {len} bytes does not fit{why}; at most {most} do"),
    )
}

fn other_family(local: Bound, remote: IpAddr) -> io::Error {
    let local = local.address();
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{local} and {remote} are of different families; bind to one of the other's"),
    )
}
