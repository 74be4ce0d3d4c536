//! The peer to compare with: smoltcp, on a wire that costs it nothing but its own work.
//!
//! What is chosen in its favour:
//! * the wire hands out its own buffers, preallocated: smoltcp writes and reads packets in place;
//! * each side takes all packets, runs its program, and then sends, so that the sockets are looked
//!   through as seldom as can be (`poll_ingress_single` and `poll_egress` instead of `poll`);
//! * socket buffers are as small as the work allows, and as large as made bulk fastest;
//! * no congestion control, no Nagle; acknowledgements are delayed, so they ride on data;
//! * a socket in TIME-WAIT is used again at once, which our own stack must earn by its rules.
//!
//! The link is Ethernet, checksums are computed and verified, as on our side; except for
//! [`Work::Bulk`] with super-segments. smoltcp has none, so its link has an MTU of 65,535 bytes
//! and no checksums there, which comes to the same packets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet,
};
use smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::pair::{BULK_UNIT, CONNECT_CLOSE_SIZE, Done, Pair, Work};
use crate::options::Failure;

const PORT: u16 = 7;
const FIRST_EPHEMERAL: u16 = 49_152;
const RING: usize = 4096;
const ETHERNET_HEADER: usize = 14;

/// A buffer and how much of it is filled.
struct Packet {
    buffer: Box<[u8]>,
    len: usize,
}

/// One direction of the wire: a ring of packet buffers.
struct Direction {
    slots: RefCell<VecDeque<Packet>>,
    spare: RefCell<Vec<Box<[u8]>>>,
    /// Packets that went in since the beginning.
    packets: Cell<u64>,
}

impl Direction {
    fn new(packets: usize, packet_size: usize) -> Rc<Self> {
        Rc::new(Direction {
            slots: RefCell::new(VecDeque::with_capacity(packets)),
            spare: RefCell::new((0..packets).map(|_| vec![0; packet_size].into()).collect()),
            packets: Cell::new(0),
        })
    }
}

struct Wire {
    receive: Rc<Direction>,
    transmit: Rc<Direction>,
    mtu: usize,
    checksum: ChecksumCapabilities,
}

struct Received {
    packet: Packet,
    from: Rc<Direction>,
}

struct Room<'a>(&'a Direction);

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Room<'_>)> {
        if self.transmit.spare.borrow().is_empty() {
            return None;
        }
        let packet = self.receive.slots.borrow_mut().pop_front()?;
        Some((Received { packet, from: Rc::clone(&self.receive) }, Room(&self.transmit)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        (!self.transmit.spare.borrow().is_empty()).then_some(Room(&self.transmit))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER;
        capabilities.checksum = self.checksum.clone();
        capabilities
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.packet.buffer[..self.packet.len]);
        self.from.spare.borrow_mut().push(self.packet.buffer);
        result
    }
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut buffer = self.0.spare.borrow_mut().pop().expect("looked before");
        let result = f(&mut buffer[..len]);
        self.0.slots.borrow_mut().push_back(Packet { buffer, len });
        self.0.packets.set(self.0.packets.get() + 1);
        result
    }
}

/// One stack and its sockets.
struct Side {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
}

impl Side {
    fn new(wire: Wire, last: u8, sockets: usize, buffer: usize) -> Self {
        let mut wire = wire;
        let mac = EthernetAddress([2, 0, 0, 0, 0, last]);
        let config = Config::new(HardwareAddress::Ethernet(mac));
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let address = IpCidr::new(IpAddress::v4(192, 0, 2, last), 24);
            addresses.push(address).expect("the first address fits");
        });
        let mut set = SocketSet::new(Vec::with_capacity(sockets));
        let handles = (0..sockets)
            .map(|_| {
                let buffer = || SocketBuffer::new(vec![0; buffer]);
                let mut socket = Socket::new(buffer(), buffer());
                socket.set_nagle_enabled(false);
                set.add(socket)
            })
            .collect();
        Side { wire, interface, sockets: set, handles }
    }

    fn receive(&mut self, now: Instant) {
        let Side { wire, interface, sockets, .. } = self;
        while interface.poll_ingress_single(now, wire, sockets) != PollIngressSingleResult::None {}
    }

    fn transmit(&mut self, now: Instant) {
        let Side { wire, interface, sockets, .. } = self;
        while interface.poll_egress(now, wire, sockets) != PollResult::None {}
    }
}

/// Two stacks and what their programs know.
pub struct SmoltcpPair {
    work: Work,
    client: Side,
    server: Side,
    /// Whether the client's request on a connection is out.
    asked: Vec<bool>,
    message: Vec<u8>,
    next_port: u16,
    operations: u64,
    bytes: u64,
}

impl SmoltcpPair {
    /// Makes both stacks and starts to connect.
    ///
    /// # Errors
    /// When a socket refuses.
    pub fn open(work: Work) -> Result<Self, Failure> {
        let (connections, buffer, message) = match work {
            Work::RoundTrips { size, connections } => (connections, size.max(64) * 2, size),
            Work::ConnectClose { connections } => {
                (connections, 2 * CONNECT_CLOSE_SIZE, CONNECT_CLOSE_SIZE)
            }
            Work::Bulk { super_segments: false } => (1, 128 * 1024, BULK_UNIT as usize),
            Work::Bulk { super_segments: true } => (1, 64 * 1024, BULK_UNIT as usize),
            Work::Idle { connections } => (connections, 128, 64),
        };
        let super_segments = matches!(work, Work::Bulk { super_segments: true });
        let mtu = if super_segments { 65_535 } else { 1500 };
        let checksum = if super_segments {
            ChecksumCapabilities::ignored()
        } else {
            ChecksumCapabilities::default()
        };
        let packets = if super_segments { 64 } else { RING };
        let up = Direction::new(packets, mtu + ETHERNET_HEADER);
        let down = Direction::new(packets, mtu + ETHERNET_HEADER);
        let wire = |receive: &Rc<Direction>, transmit: &Rc<Direction>| Wire {
            receive: Rc::clone(receive),
            transmit: Rc::clone(transmit),
            mtu,
            checksum: checksum.clone(),
        };
        let mut pair = SmoltcpPair {
            work,
            client: Side::new(wire(&down, &up), 1, connections, buffer),
            server: Side::new(wire(&up, &down), 2, connections, buffer),
            asked: vec![false; connections],
            message: vec![0x5a; message],
            next_port: FIRST_EPHEMERAL,
            operations: 0,
            bytes: 0,
        };
        for index in 0..connections {
            pair.listen(index);
            pair.connect(index)?;
        }
        Ok(pair)
    }

    fn listen(&mut self, index: usize) {
        let socket = self.server.sockets.get_mut::<Socket>(self.server.handles[index]);
        socket.listen(PORT).expect("the socket was closed");
    }

    fn connect(&mut self, index: usize) -> Result<(), Failure> {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_EPHEMERAL);
        let Side { interface, sockets, handles, .. } = &mut self.client;
        sockets
            .get_mut::<Socket>(handles[index])
            .connect(interface.context(), (IpAddress::v4(192, 0, 2, 2), PORT), port)
            .map_err(|error| Failure::of("smoltcp cannot connect", error))
    }

    fn client_program(&mut self) {
        match self.work {
            Work::RoundTrips { size, .. } => self.ask(size),
            Work::ConnectClose { .. } => self.ask_and_close(),
            Work::Bulk { .. } => {
                let socket = self.client.sockets.get_mut::<Socket>(self.client.handles[0]);
                while socket.can_send() {
                    socket.send_slice(&self.message).expect("it can send");
                }
            }
            Work::Idle { .. } => {}
        }
    }

    fn server_program(&mut self) {
        match self.work {
            Work::RoundTrips { size, .. } => self.answer(size),
            Work::ConnectClose { .. } => self.answer_and_close(),
            Work::Bulk { .. } => {
                let socket = self.server.sockets.get_mut::<Socket>(self.server.handles[0]);
                while socket.can_recv() {
                    let len = socket.recv(|bytes| (bytes.len(), bytes.len())).expect("it can");
                    self.bytes += len as u64;
                }
                self.operations = self.bytes / BULK_UNIT;
            }
            Work::Idle { .. } => {}
        }
    }

    fn ask(&mut self, size: usize) {
        for (asked, &handle) in self.asked.iter_mut().zip(&self.client.handles) {
            let socket = self.client.sockets.get_mut::<Socket>(handle);
            if *asked {
                if socket.recv_queue() < size {
                    continue;
                }
                self.bytes += take(socket);
                self.operations += 1;
            } else if !socket.may_send() {
                continue;
            }
            socket.send_slice(&self.message).expect("the connection is open");
            *asked = true;
        }
    }

    fn answer(&mut self, size: usize) {
        for &handle in &self.server.handles {
            let socket = self.server.sockets.get_mut::<Socket>(handle);
            if socket.recv_queue() >= size {
                self.bytes += take(socket);
                socket.send_slice(&self.message).expect("the connection is open");
            }
        }
    }

    fn ask_and_close(&mut self) {
        for index in 0..self.asked.len() {
            let socket = self.client.sockets.get_mut::<Socket>(self.client.handles[index]);
            if !self.asked[index] {
                if socket.may_send() {
                    socket.send_slice(&self.message).expect("the connection is open");
                    self.asked[index] = true;
                }
            } else if socket.recv_queue() >= CONNECT_CLOSE_SIZE {
                self.bytes += take(socket);
                socket.close();
            } else if socket.state() == State::Closed {
                self.operations += 1;
                self.asked[index] = false;
                self.connect(index).expect("the socket is closed");
            }
        }
    }

    fn answer_and_close(&mut self) {
        for index in 0..self.server.handles.len() {
            let socket = self.server.sockets.get_mut::<Socket>(self.server.handles[index]);
            if socket.recv_queue() >= CONNECT_CLOSE_SIZE {
                self.bytes += take(socket);
                socket.send_slice(&self.message).expect("the connection is open");
                socket.close();
            }
        }
    }

    /// Makes listeners of sockets in TIME-WAIT. Done when their last acknowledgement has been sent
    /// and before the peer can have come back.
    fn listen_again(&mut self) {
        for index in 0..self.server.handles.len() {
            let socket = self.server.sockets.get_mut::<Socket>(self.server.handles[index]);
            if socket.state() == State::TimeWait {
                socket.abort();
                self.listen(index);
            }
        }
    }
}

/// Reads all that a socket has, in place.
fn take(socket: &mut Socket) -> u64 {
    let mut bytes = 0;
    while socket.can_recv() {
        bytes += socket.recv(|bytes| (bytes.len(), bytes.len() as u64)).expect("it can");
    }
    bytes
}

impl Pair for SmoltcpPair {
    fn turn(&mut self, now: Duration) {
        let now = Instant::from_micros(now.as_micros() as i64);
        self.client.receive(now);
        self.client_program();
        self.client.transmit(now);
        self.server.receive(now);
        self.server_program();
        self.server.transmit(now);
        if matches!(self.work, Work::ConnectClose { .. }) {
            self.listen_again();
        }
    }

    fn done(&self) -> Done {
        let segments =
            self.client.wire.transmit.packets.get() + self.server.wire.transmit.packets.get();
        Done { operations: self.operations, segments, bytes: self.bytes }
    }

    fn ready(&self) -> bool {
        if matches!(self.work, Work::ConnectClose { .. }) {
            return true;
        }
        let open = |side: &Side| {
            side.handles.iter().all(|&handle| side.sockets.get::<Socket>(handle).may_send())
        };
        open(&self.client) && open(&self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(work: Work, turns: u64) -> Done {
        let mut pair = SmoltcpPair::open(work).unwrap();
        for turn in 0..turns {
            pair.turn(Duration::from_micros(turn));
        }
        assert!(pair.ready());
        pair.done()
    }

    #[test]
    fn a_round_trip_costs_two_segments() {
        for connections in [1, 10] {
            let work = Work::RoundTrips { size: 64, connections };
            let (early, late) = (run(work, 1000), run(work, 2000));
            let operations = late.operations - early.operations;
            assert_eq!(operations, 1000 * connections as u64);
            assert_eq!(late.segments - early.segments, 2 * operations);
            assert_eq!(late.bytes - early.bytes, 2 * 64 * operations);
        }
    }

    #[test]
    fn connections_end_and_begin_again() {
        let done = run(Work::ConnectClose { connections: 3 }, 1000);
        assert!(done.operations > 300, "{done:?}");
        assert!(done.segments / done.operations <= 8, "{done:?}");
    }

    #[test]
    fn bulk_fills_its_packets() {
        for (super_segments, least) in [(false, 900), (true, 10_000)] {
            let done = run(Work::Bulk { super_segments }, 1000);
            assert!(done.bytes / done.segments > least, "{done:?}");
        }
    }
}
