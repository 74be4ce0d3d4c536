//! A look at what the stack's tables hold, for who watches from outside: every connection, also one
//! that no application has, by the place of its entry.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use millrace_wire::mac::Mac;

use crate::address::address;
use crate::tcp::congestion::Algorithm;
use crate::tcp::connection::{Flags, State};
use crate::{ConnectionInfo, ListenerInfo, NeighbourState, Stack, TcpInfo};

/// A look at a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourInfo {
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, where it is known.
    pub mac: Option<Mac>,
    /// What is known of it.
    pub state: NeighbourState,
}

/// A look at a datagram socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramInfo {
    /// Where it takes datagrams.
    pub local: SocketAddr,
    /// The peer that it is connected to.
    pub remote: Option<SocketAddr>,
    /// Frames that wait to be read, and how many may.
    pub queued: u16,
    /// Datagrams that found no room.
    pub dropped: u64,
}

impl Stack {
    /// Number of entries for connections, used or not: what the functions below take is below it.
    pub fn connection_entries(&self) -> usize {
        self.connections.len()
    }

    /// A look at the connection of an entry, whatever its state; nothing where there is none.
    pub fn connection_at(&self, index: usize) -> Option<ConnectionInfo> {
        let connection = self.connections.get(index)?;
        (connection.state != State::Closed).then(|| self.look(index))
    }

    /// All that TCP knows of the connection of an entry, and its congestion control.
    pub fn tcp_info_at(&self, index: usize) -> Option<(TcpInfo, Algorithm)> {
        let connection = self.connections.get(index)?;
        (connection.state != State::Closed).then(|| (self.tcp_info_of(index), connection.algorithm))
    }

    /// Whether an application has the connection of an entry.
    pub fn is_attached(&self, index: usize) -> bool {
        self.connections.get(index).is_some_and(|one| one.flags.has(Flags::ATTACHED))
    }

    pub(crate) fn look(&self, index: usize) -> ConnectionInfo {
        let connection = &self.connections[index];
        // A SYN and a FIN take a sequence number each, and are no bytes.
        let syn = u32::from(matches!(connection.state, State::SynSent | State::SynReceived));
        let fin = u32::from(connection.flags.has(Flags::FIN_QUEUED) && !connection.fin_unsent());
        ConnectionInfo {
            local: SocketAddr::new(self.addresses.get(connection.local), connection.local_port),
            remote: SocketAddr::new(address(connection.remote), connection.remote_port),
            state: connection.state,
            send_queue: connection.queued().saturating_sub(syn),
            receive_queue: connection.receive_bytes,
            memory: self.held(index),
            in_flight: connection.flight().saturating_sub(syn + fin),
            mss: connection.mss,
            congestion_window: connection.congestion.window,
            slow_start_threshold: connection.congestion.threshold,
            send_window: connection.snd_wnd,
            receive_window: connection.rcv_wnd(),
            round_trip: Duration::from_micros(connection.rtt.smoothed().into()),
            retransmission_timeout: Duration::from_micros(connection.rtt.timeout.into()),
            retries: connection.retries,
        }
    }

    /// The listeners.
    pub fn listeners(&self) -> impl Iterator<Item = ListenerInfo> + '_ {
        self.listener_ids().filter_map(|id| self.listener_info(id).ok())
    }

    /// The datagram sockets.
    pub fn datagram_sockets(&self) -> impl Iterator<Item = DatagramInfo> + '_ {
        self.sockets.iter().filter_map(|socket| socket.look())
    }

    /// The neighbours that are known or asked for.
    pub fn neighbours(&self) -> impl Iterator<Item = NeighbourInfo> + '_ {
        self.neighbours.look(self.now)
    }
}
