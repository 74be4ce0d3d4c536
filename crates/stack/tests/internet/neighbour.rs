//! The neighbour cache as a stranger would have it: what a packet from an invented address may put
//! there, and what must stay (RFC 826, RFC 4861 §7.3, RFC 6583 §7).

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use millrace_stack::{Config, NeighbourState, SocketId};
use millrace_wire::arp::Operation;
use millrace_wire::mac::Mac;
use millrace_wire::{checksum, protocol};

use crate::common::craft::{PEER_IP, PEER_MAC, Packet, STACK_IP, TcpSegment, arp_packet};
use crate::common::craft6::{self, STACK_V6};
use crate::common::peer::{ACK, Peer, SYN};
use crate::six;

/// Beyond the gateway.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

fn behind_a_gateway(change: impl FnOnce(&mut Config)) -> (Peer, SocketId) {
    let mut peer = Peer::with(|config| {
        config.gateway = Some(PEER_IP.into());
        config.addresses[0].prefix = 16;
        change(config);
    });
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    (peer, socket)
}

/// One of those on the link who are not there.
fn nobody(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(192, 0, 100 + high, low)
}

fn syn_from(source: Ipv4Addr) -> Vec<u8> {
    TcpSegment { source: (source, 5000), flags: SYN, ..TcpSegment::default() }.bytes()
}

/// Whether a datagram leaves at once, to where the peer is.
fn sends(peer: &mut Peer, socket: SocketId, to: Ipv4Addr) -> bool {
    peer.stack.send_datagram(socket, b"?", Some(SocketAddr::new(to.into(), 7))).unwrap();
    everything(peer).iter().any(|packet| matches!(packet, Packet::Udp { to: PEER_MAC, .. }))
}

fn everything(peer: &mut Peer) -> Vec<Packet> {
    core::iter::from_fn(|| peer.next_packet()).collect()
}

/// A SYN proves nothing of who sent it: a router may have forwarded one with a forged source.
#[test]
fn nothing_but_its_answer_goes_where_a_syn_came_from() {
    let victim = Ipv4Addr::new(192, 0, 2, 99);
    let mut peer =
        Peer::with(|config| config.neighbour_reachable = Config::default().neighbour_reachable);
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    peer.listen(80, 16);
    peer.inject(&syn_from(victim));
    assert!(matches!(peer.next_packet(), Some(Packet::Tcp(answer)) if answer.to == PEER_MAC));
    for _ in 0..120 {
        assert!(!sends(&mut peer, socket, victim));
        peer.advance(Duration::from_secs(1));
    }
    assert!(peer.stack.counters().arp_requests_sent >= 100);
    everything(&mut peer);
    peer.finish();
}

#[test]
fn nothing_but_its_answer_goes_where_a_syn_came_from_by_ipv6() {
    let victim: Ipv6Addr = "2001:db8::99".parse().unwrap();
    let mut peer = six(|_| {});
    peer.stack.listen(SocketAddr::new(STACK_V6.into(), 80), 5).unwrap();
    let socket = peer.bind_datagram(SocketAddr::new(STACK_V6.into(), 9));
    // The peer's SYN with another last byte of the source, and the checksum that belongs to it.
    let mut bytes = craft6::segment((5000, 80), SYN, 1, 0, &[]);
    let (last, sum) = (14 + 8 + 15, 14 + 40 + 16);
    let before = u16::from(core::mem::replace(&mut bytes[last], 0x99));
    let field = u16::from_be_bytes([bytes[sum], bytes[sum + 1]]);
    bytes[sum..sum + 2].copy_from_slice(&checksum::update(field, before, 0x99).to_be_bytes());
    peer.inject(&bytes);
    assert_eq!(peer.expect_v6().to, PEER_MAC);
    peer.stack.send_datagram(socket, b"?", Some(SocketAddr::new(victim.into(), 7))).unwrap();
    peer.collect();
    peer.advance(Duration::ZERO);
    assert_ne!(peer.expect_v6().protocol, protocol::UDP, "sent to whoever forged the SYN");
    everything(&mut peer);
    peer.finish();
}

/// Whoever acknowledges our number is where the answer went (RFC 4861 §7.3.1).
#[test]
fn a_handshake_makes_a_neighbour_known() {
    let source = Ipv4Addr::new(192, 0, 2, 99);
    let mut peer = Peer::new();
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    let listener = peer.listen(80, 16);
    peer.inject(&syn_from(source));
    let Some(Packet::Tcp(answer)) = peer.next_packet() else { panic!("no answer") };
    let iss = if answer.seq == 0 { peer.flow.iss } else { answer.seq };
    let ack = TcpSegment {
        source: (source, 5000),
        sequence: 1,
        acknowledgement: iss.wrapping_add(1),
        flags: ACK,
        ..TcpSegment::default()
    };
    peer.inject(&ack.bytes());
    assert!(peer.accept(listener).is_some());
    assert!(sends(&mut peer, socket, source));
    peer.finish();
}

#[test]
fn questions_push_out_no_answer() {
    let (mut peer, socket) = behind_a_gateway(|_| {});
    assert!(sends(&mut peer, socket, FAR));
    // What a service answers to forged sources: hosts that are not there, more than the cache holds.
    for number in 0..300 {
        assert!(!sends(&mut peer, socket, nobody(number)));
    }
    assert!(sends(&mut peer, socket, FAR));
    // The others wait for those that came after them, and are counted.
    let waiting = u64::from(Config::default().neighbours) - 1;
    assert_eq!(peer.stack.counters().drop_neighbour_cache_full, 300 - waiting);
    peer.advance(Duration::from_secs(10));
    assert_eq!(peer.stack.counters().drop_neighbour_unreachable, waiting);
    everything(&mut peer);
    peer.finish();
}

#[test]
fn syns_push_out_no_answer() {
    let (mut peer, socket) = behind_a_gateway(|config| config.connections = 2048);
    peer.listen(80, 1024);
    assert!(sends(&mut peer, socket, FAR));
    for number in 0..300 {
        peer.inject(&syn_from(nobody(number)));
        let answer = everything(&mut peer);
        assert!(matches!(answer[..], [Packet::Tcp(ref answer)] if answer.to == PEER_MAC));
    }
    assert!(sends(&mut peer, socket, FAR));
    peer.finish();
}

/// What was asked last is answered, however many questions are open.
#[test]
fn the_latest_question_has_a_place() {
    let (mut peer, socket) = behind_a_gateway(|config| config.gateway = None);
    for number in 0..300 {
        assert!(!sends(&mut peer, socket, nobody(number)));
    }
    let last = nobody(299);
    peer.inject(&arp_packet(
        Operation::Reply,
        (PEER_MAC, last),
        (crate::common::craft::STACK_MAC, STACK_IP),
    ));
    let sent = everything(&mut peer);
    assert!(sent.iter().any(|packet| matches!(packet, Packet::Udp { to: PEER_MAC, .. })));
    peer.advance(Duration::from_secs(10));
    everything(&mut peer);
    peer.finish();
}

/// What waited for a neighbour that made way is lost, and is nothing for who has its place now.
#[test]
fn nobody_gets_what_waited_for_another() {
    let (mut peer, socket) = behind_a_gateway(|config| config.gateway = None);
    for number in 0..Config::default().neighbours {
        assert!(!sends(&mut peer, socket, nobody(number)));
    }
    let lost = peer.stack.counters().drop_neighbour_cache_full;
    let stranger = (Mac([2, 0, 0, 0, 0, 0x66]), Ipv4Addr::new(192, 0, 2, 66));
    peer.inject(&arp_packet(Operation::Request, stranger, (Mac([0; 6]), STACK_IP)));
    let sent = everything(&mut peer);
    assert!(matches!(sent[..], [Packet::Arp { .. }]), "{sent:?}");
    assert_eq!(peer.stack.counters().drop_neighbour_cache_full, lost + 1);
    peer.advance(Duration::from_secs(10));
    everything(&mut peer);
    peer.finish();
}

#[test]
fn nobody_gets_what_waited_for_another_by_ipv6() {
    let mut peer = six(|_| {});
    let socket = peer.bind_datagram(SocketAddr::new(STACK_V6.into(), 9));
    for number in 0..Config::default().neighbours {
        let nobody = Ipv6Addr::from_bits(STACK_V6.to_bits() | u128::from(number) << 16);
        let to = SocketAddr::new(nobody.into(), 7);
        if nobody != STACK_V6 {
            peer.stack.send_datagram(socket, b"?", Some(to)).unwrap();
        }
        peer.collect();
    }
    peer.stack.send_datagram(socket, b"?", Some("[2001:db8::77]:7".parse().unwrap())).unwrap();
    peer.collect();
    let stranger: Ipv6Addr = "2001:db8::66".parse().unwrap();
    peer.inject(&craft6::solicitation(stranger, STACK_V6, None));
    assert_eq!(peer.expect_v6().protocol, protocol::ICMPV6);
    peer.expect_silence();
    peer.advance(Duration::from_secs(10));
    everything(&mut peer);
    peer.finish();
}

/// However many connections a client opens at once, none waits for a question to be answered.
#[test]
fn every_syn_of_a_burst_is_answered_where_it_came_from() {
    let source = Ipv4Addr::new(192, 0, 2, 99);
    let mut peer = Peer::new();
    peer.listen(80, 64);
    let syn = |port| TcpSegment { source: (source, port), flags: SYN, ..TcpSegment::default() };
    let burst: Vec<_> = (5000..5024).map(|port| syn(port).bytes()).collect();
    peer.inject_batch(&burst);
    let answers = everything(&mut peer);
    assert_eq!(answers.len(), burst.len());
    assert!(answers.iter().all(|one| matches!(one, Packet::Tcp(one) if one.to == PEER_MAC)));
    peer.finish();
}

#[test]
fn what_is_told_of_neighbours_is_what_is_believed() {
    let mut peer = Peer::with(|config| config.neighbour_reachable = Duration::from_secs(60));
    let state = |peer: &Peer| peer.stack.neighbours().next().unwrap().state;
    assert_eq!(state(&peer), NeighbourState::Reachable);
    peer.advance(Duration::from_secs(60));
    assert_eq!(state(&peer), NeighbourState::Stale);
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    assert!(sends(&mut peer, socket, PEER_IP));
    assert_eq!(state(&peer), NeighbourState::Probing);
    peer.advance(Duration::from_secs(10));
    everything(&mut peer);
}
