//! The end of a stack: everything is let go of, in steps that the bounds allow.

use core::net::{Ipv4Addr, SocketAddr};

use crate::common::config;
use crate::common::craft::{PEER_IP, STACK_IP};
use crate::common::peer::{ACK, FIN, MSS, Peer, RST, SYN};

#[test]
fn every_connection_is_reset_some_at_a_time() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 16);
    // Accepted, waiting to be accepted, half-open, half-closed, in TIME-WAIT.
    for port in 6000..6003 {
        peer.flow.peer_port = port;
        peer.accepted();
    }
    for port in 6003..6005 {
        peer.flow.peer_port = port;
        peer.send_syn(SYN, Some(MSS), None);
        peer.expect(SYN | ACK);
        if port == 6003 {
            peer.send(ACK, 1, 1, &[]);
        }
    }
    peer.flow.peer_port = 6005;
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
    peer.send(ACK, 1, 1, &[]);
    while let Some(id) = peer.accept(listener) {
        let remote = peer.stack.info(id).unwrap().remote.port();
        if remote == 6005 {
            peer.close(id);
        }
    }
    peer.expect(FIN | ACK);
    peer.send(FIN | ACK, 1, 2, &[]);
    peer.expect_ack(2);
    assert_eq!((peer.stack.connections(), peer.stack.time_wait_connections()), (6, 1));

    let mut resets = 0;
    let mut rounds = 0;
    while peer.stack.abort_some(2) {
        let sent = peer.take();
        assert!(sent.len() <= 2 && sent.iter().all(|segment| segment.flags.contains(RST)));
        resets += sent.len();
        rounds += 1;
        assert!(rounds < 10);
    }
    resets += peer.take().len();
    assert_eq!(resets, 5, "one for each but TIME-WAIT");
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn packets_that_wait_for_an_address_or_their_turn_give_their_frames_back() {
    let mut peer = Peer::stranger(config(), 256);
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    for host in 2..6 {
        let remote = SocketAddr::new(Ipv4Addr::new(192, 0, 2, host).into(), 7);
        peer.stack.send_datagram(socket, b"for nobody", Some(remote)).unwrap();
    }
    peer.collect();
    // And some that were not even transmitted.
    let remote = SocketAddr::new(PEER_IP.into(), 7);
    for _ in 0..3 {
        peer.stack.send_datagram(socket, b"not yet", Some(remote)).unwrap();
    }
    assert_eq!(peer.stack.arena().free(), 256 - 7);
    peer.stack.drop_waiting();
    assert_eq!(peer.stack.arena().free(), 256);
    peer.advance_ms(10_000);
    while peer.next_packet().is_some() {}
}
