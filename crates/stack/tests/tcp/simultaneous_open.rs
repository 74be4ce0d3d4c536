//! Both sides connect at once (RFC 9293 §3.5, figures 7 and 8).

use millrace_stack::{Ready, State};

use crate::common::peer::{ACK, MSS, Peer, RST, SYN, pattern};

#[test]
fn crossing_syns_make_one_connection() {
    let mut peer = Peer::new();
    let id = peer.connect();
    assert_eq!(peer.expect(SYN).seq, 0);
    peer.send_syn(SYN, Some(MSS), None);
    let answer = peer.expect(SYN | ACK);
    assert_eq!((answer.seq, answer.ack), (0, 1));
    assert_eq!(peer.state(id), State::SynReceived);
    assert!(!peer.ready(id).has(Ready::CONNECTED));
    peer.send_syn(SYN | ACK, Some(MSS), None);
    assert_eq!(peer.state(id), State::Established);
    assert!(peer.ready(id).has(Ready::CONNECTED));
    peer.take();
    peer.write(id, 0, 10);
    peer.expect_data(1, 10);
}

#[test]
fn the_last_step_may_be_a_plain_acknowledgement() {
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
    peer.send(ACK, 1, 1, &pattern(0, 5));
    assert_eq!(peer.state(id), State::Established);
    assert_eq!(peer.read(id), pattern(0, 5));
}

#[test]
fn the_window_of_the_peers_syn_ack_is_not_scaled() {
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    peer.window = 2000;
    peer.send_syn(SYN, Some(MSS), Some(4));
    peer.expect(SYN | ACK);
    peer.send_syn(SYN | ACK, Some(MSS), Some(4));
    assert_eq!(peer.stack.info(id).unwrap().send_window, 2000);
}

#[test]
fn a_lost_syn_ack_is_sent_again() {
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
    peer.wait();
    assert_eq!(peer.expect(SYN | ACK).seq, 0);
    peer.send(ACK, 1, 1, &[]);
    assert_eq!(peer.state(id), State::Established);
}

#[test]
fn a_reset_refuses_it() {
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
    peer.send(RST, 1, 0, &[]);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(millrace_stack::Failure::Refused));
}

#[test]
fn two_stacks_that_connect_to_each_other_at_once() {
    use crate::common::net::{ADDRESSES, Net};
    use core::net::SocketAddr;
    use millrace_frames::Duration;
    use millrace_port::memory::{Impairment, WireConfig};
    // With a delay, so that the SYNs do cross.
    let slow = Impairment { delay: Duration::from_millis(5), ..Impairment::default() };
    let wire = WireConfig { impairment: [slow; 2], ..WireConfig::default() };
    let mut net = Net::new(wire, 512, |_, _| {});
    let end = |host: usize, port| SocketAddr::new(ADDRESSES[host].into(), port);
    let a = net.hosts[0].stack.connect(end(1, 2000), Some(end(0, 1000))).unwrap();
    let b = net.hosts[1].stack.connect(end(0, 1000), Some(end(1, 2000))).unwrap();
    net.idle(Duration::from_secs(10));
    assert_eq!(net.hosts[0].stack.info(a).unwrap().state, State::Established);
    assert_eq!(net.hosts[1].stack.info(b).unwrap().state, State::Established);
    net.hosts[0].stack.write(a, b"hello").unwrap();
    net.idle(Duration::from_secs(1));
    assert_eq!(net.hosts[1].read(b), b"hello");
    net.hosts[0].stack.close(a);
    net.hosts[1].stack.close(b);
    net.idle(Duration::from_secs(200));
    net.assert_clean();
}
