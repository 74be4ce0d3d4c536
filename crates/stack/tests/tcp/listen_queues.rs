//! The queue of half-open connections and that of those to be accepted: bounds, and what happens
//! at them (RFC 4987 §3).

use core::net::SocketAddr;
use core::time::Duration;

use millrace_wire::tcp::UserTimeout;

use crate::common::craft::{self, PEER_IP, STACK_IP, TcpSegment};
use crate::common::peer::{ACK, FIN, MSS, Peer, RST, SYN, pattern};
use millrace_stack::{
    AcceptOverflow, ListenOptions, ListenerId, State, SynCookies, UserTimeoutOption,
};

fn here(port: u16) -> SocketAddr {
    SocketAddr::new(STACK_IP.into(), port)
}

fn listen(peer: &mut Peer, options: ListenOptions) -> ListenerId {
    peer.stack.listen_with(here(80), options).unwrap()
}

fn syn(peer: &mut Peer, port: u16) -> usize {
    peer.flow.peer_port = port;
    peer.send_syn(SYN, Some(MSS), None);
    peer.take().len()
}

fn without_cookies(syn_queue: u32) -> Peer {
    Peer::with(|config| {
        config.syn_cookies = SynCookies::Off;
        config.syn_queue = syn_queue;
    })
}

#[test]
fn both_queues_have_bounds_of_their_own() {
    let mut peer = without_cookies(5);
    let id = peer.listen(80, 2);
    for port in 6000..6005 {
        assert_eq!(syn(&mut peer, port), 1);
    }
    assert_eq!(syn(&mut peer, 6005), 0);
    assert_eq!(peer.stack.counters().drop_listen_syn_queue_full, 1);
    let info = peer.stack.listener_info(id).unwrap();
    assert_eq!((info.half_open, info.syn_queue, info.accept_queue, info.backlog), (5, 5, 0, 2));
    assert_eq!(info.local, here(80));
}

#[test]
fn a_listener_may_have_another_syn_queue() {
    let mut peer = without_cookies(5);
    let options = ListenOptions { syn_queue: Some(1), ..ListenOptions::new(8) };
    let id = listen(&mut peer, options);
    assert_eq!((syn(&mut peer, 6000), syn(&mut peer, 6001)), (1, 0));
    let none = ListenOptions { syn_queue: Some(0), ..options };
    assert!(peer.stack.listen_with(here(81), none).is_err());
    peer.stack.close_listener(id);
    peer.take();
}

#[test]
fn all_listeners_together_leave_half_of_the_table() {
    let mut peer = Peer::with(|config| {
        config.syn_cookies = SynCookies::Off;
        config.connections = 10;
    });
    peer.listen(80, 8);
    peer.listen(81, 8);
    for port in 6000..6003 {
        assert_eq!(syn(&mut peer, port), 1);
    }
    peer.flow.stack_port = 81;
    assert_eq!((syn(&mut peer, 6000), syn(&mut peer, 6001), syn(&mut peer, 6002)), (1, 1, 0));
}

#[test]
fn one_that_was_asked_twice_makes_way() {
    let mut peer = without_cookies(2);
    peer.listen(80, 8);
    syn(&mut peer, 6000);
    peer.advance_ms(800);
    syn(&mut peer, 6001);
    // Both are young.
    assert_eq!(syn(&mut peer, 6002), 0);
    peer.advance_ms(300);
    peer.take();
    // Now the first had its second SYN-ACK; the other one stays.
    assert_eq!(syn(&mut peer, 6002), 1);
    assert_eq!(peer.stack.counters().half_open_evicted, 1);
    assert_eq!(syn(&mut peer, 6003), 0);
    peer.flow.peer_port = 6000;
    peer.send(ACK, 1, 1, &[]);
    peer.expect(RST);
}

#[test]
fn syn_acks_are_sent_again_less_often_under_pressure() {
    // How often a connection's SYN-ACK is sent again, with so many others.
    let count = |others: u16| {
        let mut peer = without_cookies(16);
        peer.listen(80, 8);
        syn(&mut peer, 6000);
        for port in 0..others {
            syn(&mut peer, 7000 + port);
        }
        peer.advance(Duration::from_secs(200));
        let again = peer.take().iter().filter(|segment| segment.destination.1 == 6000).count();
        assert_eq!(peer.stack.connections(), 0);
        again
    };
    assert_eq!(count(0), 5);
    assert_eq!(count(7), 5);
    assert_eq!(count(15), 2);
}

#[test]
fn a_full_accept_queue_drops_what_a_peer_thinks_is_open() {
    let mut peer = Peer::new();
    let id = peer.listen(80, 1);
    syn(&mut peer, 6000);
    let first = peer.flow;
    syn(&mut peer, 6001);
    peer.send(ACK, 1, 1, &[]);
    peer.flow = first;
    peer.send(ACK, 1, 1, b"hello");
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_listen_accept_queue_full, 1);
    peer.accept(id).unwrap();
    // Our SYN-ACK comes again, and what answers it is taken.
    peer.wait();
    peer.expect(SYN | ACK);
    peer.send(ACK, 1, 1, b"hello");
    let id = peer.accept(id).unwrap();
    assert_eq!(peer.read(id), b"hello");
}

#[test]
fn or_resets_it_where_that_is_asked_for() {
    let mut peer = Peer::with(|config| config.accept_overflow = AcceptOverflow::Reset);
    peer.listen(80, 1);
    syn(&mut peer, 6000);
    let first = peer.flow;
    syn(&mut peer, 6001);
    peer.send(ACK, 1, 1, &[]);
    peer.flow = first;
    peer.send(ACK, 1, 1, &[]);
    peer.expect(RST);
    assert_eq!(peer.stack.connections(), 1);
    // A SYN is not reset even so.
    assert_eq!(syn(&mut peer, 6002), 0);
}

fn deferring(peer: &mut Peer, seconds: u64) -> ListenerId {
    let defer_accept = Some(Duration::from_secs(seconds));
    listen(peer, ListenOptions { defer_accept, ..ListenOptions::new(8) })
}

#[test]
fn a_deferred_accept_waits_for_data() {
    let mut peer = Peer::new();
    let id = deferring(&mut peer, 5);
    assert_eq!(syn(&mut peer, 6000), 1);
    peer.send(ACK, 1, 1, &[]);
    peer.expect_silence();
    assert_eq!(peer.accept(id), None);
    peer.advance_ms(1500);
    peer.expect_silence();
    peer.send(ACK, 1, 1, &pattern(0, 10));
    let connection = peer.accept(id).unwrap();
    assert_eq!(peer.read(connection), pattern(0, 10));
    // A FIN is something to tell, too.
    syn(&mut peer, 6001);
    peer.send(ACK, 1, 1, &[]);
    peer.send(FIN | ACK, 1, 1, &[]);
    let connection = peer.accept(id).unwrap();
    assert_eq!(peer.state(connection), State::CloseWait);
    peer.take();
    peer.stack.close_listener(id);
}

#[test]
fn and_is_handed_over_in_the_end() {
    let mut peer = Peer::new();
    let id = deferring(&mut peer, 5);
    syn(&mut peer, 6000);
    peer.send(ACK, 1, 1, &[]);
    // 1 + 2 + 4 seconds are the first that are five.
    peer.advance_ms(6_900);
    peer.expect_silence();
    peer.advance_ms(200);
    peer.expect(SYN | ACK);
    assert_eq!(peer.accept(id), None);
    peer.send(ACK, 1, 1, &[]);
    assert!(peer.accept(id).is_some());
    peer.stack.close_listener(id);
}

#[test]
fn half_open_connections_end_by_themselves() {
    let mut peer = Peer::new();
    let id = deferring(&mut peer, 5);
    syn(&mut peer, 6000);
    syn(&mut peer, 6001);
    peer.send(ACK, 1, 1, &[]);
    peer.advance(Duration::from_secs(70));
    assert_eq!(peer.stack.connections(), 0);
    assert_eq!(peer.stack.counters().connections_timed_out, 2);
    peer.take();
    peer.stack.close_listener(id);
}

#[test]
fn a_half_open_connection_takes_no_record_whatever_its_peer_sends() {
    let mut peer = Peer::with(|config| {
        config.syn_cookies = SynCookies::Off;
        config.user_timeout_option = Some(UserTimeoutOption::default());
    });
    peer.listen(80, 4);
    peer.timestamp = Some(1000);
    let mut syn = peer.segment(SYN, 0, 0, &[]);
    assert!(syn.options.sack_permitted().user_timeout(UserTimeout(30)));
    let bytes = syn.bytes();
    peer.inject(&bytes);
    peer.expect(SYN | ACK);
    let below = 0u32.wrapping_sub(99);
    peer.send(ACK, below, 1, &pattern(0, 50));
    peer.timestamp = Some(10);
    peer.send(ACK, below, 1, &pattern(0, 50));
    // A router says that the SYN-ACK is too large.
    let ours = TcpSegment {
        source: (STACK_IP, peer.flow.stack_port),
        destination: (PEER_IP, peer.flow.peer_port),
        sequence: peer.flow.iss,
        ..TcpSegment::default()
    };
    let quote = ours.bytes()[14..14 + 28].to_vec();
    peer.inject(&craft::fragmentation_needed(PEER_IP, 600, &quote));
    assert_eq!(peer.stack.counters().path_mtu_reductions, 1);
    assert_eq!(peer.stack.connections(), 1);
    peer.stack.check_invariants();
    peer.take();
}
