//! What watchers see of the stack's tables: every connection, whoever has it.

use core::net::SocketAddr;

use crate::common::craft::STACK_IP;
use crate::common::peer::{MSS, Peer, SYN};
use millrace_stack::{NeighbourState, State};

#[test]
fn connections_are_seen_before_and_after_an_application_has_them() {
    let mut peer = Peer::new();
    let states = |peer: &Peer| {
        let entries = 0..peer.stack.connection_entries();
        let found = entries.filter_map(|index| peer.stack.connection_at(index));
        found.map(|info| info.state).collect::<Vec<_>>()
    };
    assert_eq!(states(&peer), []);
    peer.listen(80, 4);
    peer.flow.peer_port = 7000;
    peer.send_syn(SYN, Some(MSS), None);
    peer.take();
    assert_eq!(states(&peer), [State::SynReceived]);
    let half_open = (0..peer.stack.connection_entries())
        .find(|&index| peer.stack.connection_at(index).is_some())
        .unwrap();
    assert!(!peer.stack.is_attached(half_open));
    assert_eq!(peer.stack.tcp_info_at(half_open).unwrap().0.state, 3);
    assert!(peer.stack.connection_at(peer.stack.connection_entries()).is_none());
    assert!(peer.stack.tcp_info_at(usize::MAX).is_none());

    let mut peer = Peer::new();
    let id = peer.accepted();
    assert_eq!(states(&peer), [State::Established]);
    assert!(peer.stack.is_attached(id.index()));
    assert_eq!(peer.stack.connection_at(id.index()).unwrap(), peer.stack.info(id).unwrap());
    let (tcp, _) = peer.stack.tcp_info_at(id.index()).unwrap();
    assert_eq!(tcp, peer.stack.tcp_info(id).unwrap());
}

#[test]
fn listeners_sockets_and_neighbours_are_listed_while_they_are_open() {
    let mut peer = Peer::new();
    let here = |port: u16| SocketAddr::new(STACK_IP.into(), port);
    let listener = peer.listen(80, 4);
    let socket = peer.stack.bind_datagram(here(53)).unwrap();
    let listed: Vec<_> =
        peer.stack.listeners().map(|one| (one.local.port(), one.backlog)).collect();
    assert_eq!(listed, [(80, 4)]);
    let sockets: Vec<_> = peer.stack.datagram_sockets().collect();
    assert_eq!((sockets[0].local, sockets[0].remote, sockets[0].dropped), (here(53), None, 0));
    let _ = peer.accepted();
    let neighbours: Vec<_> = peer.stack.neighbours().collect();
    assert!(neighbours.iter().all(|one| one.state != NeighbourState::Free));
    peer.stack.close_listener(listener);
    peer.stack.close_datagram(socket);
    assert_eq!(peer.stack.datagram_sockets().count(), 0);
}
