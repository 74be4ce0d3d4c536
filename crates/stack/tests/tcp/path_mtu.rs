//! Path MTU discovery by routers' reports (RFC 1191).

use core::time::Duration;

use millrace_frames::TxBatch;
use millrace_stack::{Algorithm, ConnectionId, MtuDiscovery, SocketOption};
use millrace_wire::checksum;

use crate::common::craft::{self, PEER_IP, STACK_IP, TcpSegment};
use crate::common::peer::{ACK, Peer, SYN, pattern};

/// What a router says of a segment of the flow with this sequence number that needs fragmenting.
fn report(peer: &Peer, seq: u32, mtu: u16) -> Vec<u8> {
    let payload = [0; 1460];
    let ours = TcpSegment {
        source: (STACK_IP, peer.flow.stack_port),
        destination: (PEER_IP, peer.flow.peer_port),
        sequence: peer.flow.iss.wrapping_add(seq),
        payload: &payload,
        ..TcpSegment::default()
    };
    craft::fragmentation_needed(PEER_IP, mtu, &ours.bytes()[14..14 + 28])
}

fn too_large(peer: &mut Peer, seq: u32, mtu: u16) {
    let report = report(peer, seq, mtu);
    peer.inject(&report);
}

fn full(peer: &mut Peer) -> ConnectionId {
    let id = peer.accepted_with(Some(1460), None);
    peer.write(id, 0, 5 * 1460);
    assert!(peer.take().iter().all(|segment| segment.payload.len() == 1460));
    id
}

/// Everything sent again and from there on, put together.
fn stream(peer: &mut Peer, from: u32, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..100 {
        for segment in peer.take() {
            assert!(segment.payload.len() <= most, "{} bytes", segment.payload.len());
            let at = from + bytes.len() as u32;
            if segment.seq == at {
                bytes.extend_from_slice(&segment.payload);
            }
        }
        let at = from + bytes.len() as u32;
        peer.send(ACK, 1, at, &[]);
    }
    bytes
}

#[test]
fn what_was_too_large_is_sent_again_in_smaller_pieces_at_once() {
    let mut peer = Peer::new();
    let id = full(&mut peer);
    let window = peer.stack.info(id).unwrap().congestion_window;
    too_large(&mut peer, 1, 1000);
    let info = peer.stack.tcp_info(id).unwrap();
    assert_eq!((info.snd_mss, info.pmtu), (960, 1000));
    assert_eq!(stream(&mut peer, 1, 960), pattern(0, 5 * 1460));
    assert!(peer.stack.info(id).unwrap().congestion_window >= window, "it was no congestion");
    assert_eq!(peer.stack.counters().path_mtu_reductions, 1);
    assert_eq!(peer.stack.counters().retransmission_timeouts, 0);
    // What is written from now on is cut to the new size.
    peer.write(id, 5 * 1460, 3000);
    assert_eq!(stream(&mut peer, 5 * 1460 + 1, 960), pattern(5 * 1460, 3000));
}

/// It looks at each loss, and has nothing to learn from these.
#[test]
fn bbr_does_not_hear_of_what_was_too_large() {
    let mut peer = Peer::with(|config| config.congestion = Algorithm::Bbr);
    let id = peer.accepted_sack_over(20);
    peer.write(id, 0, 10_000);
    peer.advance_ms(20);
    assert_eq!(peer.take().len(), 10);
    // By the one that has arrived out of order it looks for losses.
    peer.send_sack(1, 1, &[(1001, 2001)]);
    peer.send_sack(1, 2001, &[]);
    // What it has not heard of by now it would hear with the next ones.
    too_large(&mut peer, 2001, 700);
    assert_eq!(peer.stack.info(id).unwrap().mss, 660);
    assert!(peer.stack.tcp_info(id).unwrap().total_retrans > 0);
}

#[test]
fn super_segments_are_cut_to_the_new_size() {
    let mut peer = Peer::with(|config| {
        config.tx_gso = 65_535;
        config.tx_checksum = true;
    });
    let id = peer.accepted_with(Some(1460), None);
    peer.write(id, 0, 8000);
    peer.take();
    too_large(&mut peer, 1, 1000);
    let again = peer.take();
    assert!(!again.is_empty());
    for segment in &again {
        assert!(segment.payload.len() <= 960 || segment.gso_size == 960, "{segment:?}");
    }
    peer.send(ACK, 1, 8001, &[]);
    assert_eq!(peer.stack.info(id).unwrap().send_queue, 0);
}

#[test]
fn only_what_is_in_flight_is_believed_and_never_dust() {
    let mut peer = Peer::new();
    let id = full(&mut peer);
    too_large(&mut peer, 9000, 1000);
    too_large(&mut peer, u32::MAX, 1000);
    assert_eq!(peer.stack.info(id).unwrap().mss, 1460);
    assert_eq!(peer.stack.counters().drop_icmp_unrelated, 2);
    too_large(&mut peer, 1, 68);
    assert_eq!(peer.stack.info(id).unwrap().mss, 512);
    // Larger than what is in use already.
    too_large(&mut peer, 1, 1400);
    assert_eq!(peer.stack.info(id).unwrap().mss, 512);
    assert_eq!(peer.stack.counters().path_mtu_ignored, 1);
}

#[test]
fn an_old_router_that_tells_no_size_is_understood() {
    let mut peer = Peer::new();
    let id = full(&mut peer);
    too_large(&mut peer, 1, 0);
    assert_eq!(peer.stack.info(id).unwrap().mss, 1492 - 40, "the plateau below 1500");
}

#[test]
fn later_connections_know_and_forget() {
    let mut peer = Peer::new();
    full(&mut peer);
    too_large(&mut peer, 1, 1000);
    peer.take();
    peer.flow.peer_port += 1;
    let second = peer.accepted_with(Some(1460), None);
    assert_eq!(peer.stack.info(second).unwrap().mss, 960);
    peer.send(ACK, 1, 1, &[]);
    peer.flow.peer_port -= 1;
    peer.send(ACK, 1, 5 * 1460 + 1, &[]);
    peer.advance(Duration::from_secs(601));
    peer.take();
    peer.flow.peer_port += 2;
    let third = peer.accepted_with(Some(1460), None);
    assert_eq!(peer.stack.info(third).unwrap().mss, 1460);
}

#[test]
fn a_window_of_one_segment_is_one_of_a_larger_size_too() {
    let mut peer = Peer::new();
    peer.stack.set_path_mtu(PEER_IP.into(), Some(640)).unwrap();
    let id = peer.accepted_with(Some(1460), None);
    peer.write(id, 0, 600);
    peer.expect_data(1, 600);
    peer.wait();
    peer.expect_data(1, 600);
    assert_eq!(peer.stack.info(id).unwrap().congestion_window, 600);
    peer.stack.set_path_mtu(PEER_IP.into(), None).unwrap();
    peer.send(ACK, 1, 601, &[]);
    peer.write(id, 600, 3000);
    peer.expect_data(601, 1460);
}

#[test]
fn an_operator_knows_of_a_path() {
    let mut peer = Peer::new();
    peer.stack.set_path_mtu(PEER_IP.into(), Some(640)).unwrap();
    let listener = peer.listen(80, 4);
    peer.send_syn(SYN, Some(1460), None);
    assert_eq!(peer.expect(SYN | ACK).mss, Some(600));
    peer.send(ACK, 1, 1, &[]);
    let id = peer.accept(listener).unwrap();
    peer.write(id, 0, 1300);
    for (at, len) in [(1, 600), (601, 600), (1201, 100)] {
        peer.expect_data(at, len);
    }
    peer.send(ACK, 1, 1301, &[]);
    // No router is asked for that, and none makes it more.
    peer.advance(Duration::from_secs(700));
    peer.write(id, 1300, 700);
    peer.expect_data(1301, 600);
    peer.expect_data(1901, 100);
    // A router may know of less.
    too_large(&mut peer, 1301, 600);
    assert_eq!(peer.stack.info(id).unwrap().mss, 560);
    peer.take();
    peer.send(ACK, 1, 2001, &[]);
    // Or it is no longer so, and the size is simply used.
    peer.advance(Duration::from_secs(700));
    peer.stack.set_path_mtu(PEER_IP.into(), None).unwrap();
    peer.write(id, 2000, 1500);
    peer.expect_data(2001, 1460);
    peer.expect_data(3461, 40);
}

#[test]
fn a_path_has_room_for_data() {
    let mut peer = Peer::with(|config| config.path_mtus = 1);
    let peer_ip = PEER_IP.into();
    for mtu in [0, 68, 147] {
        let error = peer.stack.set_path_mtu(peer_ip, Some(mtu)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
    }
    peer.stack.set_path_mtu(peer_ip, Some(148)).unwrap();
    peer.stack.set_path_mtu(peer_ip, Some(1000)).unwrap();
    let error = peer.stack.set_path_mtu(STACK_IP.into(), Some(1000)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded, "{error}");
    peer.stack.set_path_mtu(peer_ip, None).unwrap();
    peer.stack.set_path_mtu(STACK_IP.into(), Some(1000)).unwrap();
}

/// Whether routers may cut the next packet that leaves, and its identification.
fn fragment_fields(peer: &mut Peer, id: ConnectionId) -> (bool, u16) {
    peer.stack.write(id, &[7; 1460]).unwrap();
    let mut batch = TxBatch::new();
    assert_eq!(peer.stack.transmit(peer.now, &mut batch), 1);
    let packet = batch[0];
    let start = usize::from(packet.offset);
    let ip = peer.stack.arena().room(packet.head)[start + 14..start + 34].to_vec();
    peer.stack.arena_mut().transmitted(&packet);
    assert_eq!(checksum::sum(&ip), 0xffff, "the IP header's checksum");
    (ip[6] & 0x40 == 0, u16::from_be_bytes([ip[4], ip[5]]))
}

#[test]
fn a_connection_may_let_routers_cut_its_packets() {
    let mut peer = Peer::with(|config| {
        config.tx_gso = 65_535;
        config.tx_checksum = true;
    });
    let id = peer.accepted_with(Some(1460), None);
    assert_eq!(fragment_fields(&mut peer, id), (false, 0));
    peer.stack.set_option(id, SocketOption::MtuDiscover(MtuDiscovery::Never)).unwrap();
    let (cut, first) = fragment_fields(&mut peer, id);
    let (_, second) = fragment_fields(&mut peer, id);
    assert!(cut && first != second, "{first} {second}");
    peer.send(ACK, 1, 3 * 1460 + 1, &[]);
    // No router has a reason to complain, and each packet has an identification of its own.
    peer.write(id, 0, 4 * 1460);
    assert!(peer.take().iter().all(|segment| segment.payload.len() == 1460));
    too_large(&mut peer, 3 * 1460 + 1, 1000);
    assert_eq!(peer.stack.info(id).unwrap().mss, 1460);
    peer.expect_silence();
    peer.stack.set_option(id, SocketOption::MtuDiscover(MtuDiscovery::Want)).unwrap();
    assert_eq!(fragment_fields(&mut peer, id), (false, 0));
}

#[test]
fn a_connection_that_probes_follows_no_report() {
    for (how, mss) in
        [(MtuDiscovery::Probe, 1460), (MtuDiscovery::Always, 960), (MtuDiscovery::Want, 960)]
    {
        let mut peer = Peer::new();
        let id = full(&mut peer);
        peer.stack.set_option(id, SocketOption::MtuDiscover(how)).unwrap();
        too_large(&mut peer, 1, 1000);
        assert_eq!(peer.stack.info(id).unwrap().mss, mss, "{how:?}");
    }
    assert!(SocketOption::from_number("IP_MTU_DISCOVER".parse().unwrap(), 4).is_err());
}

/// A peer can tell of a path as often as it likes, each time of a byte less, and each time all
/// connections would be looked at.
#[test]
fn others_are_looked_for_so_often_a_second() {
    let mut peer = Peer::with(|config| config.connections = 1 << 14);
    let other = full(&mut peer);
    let first = peer.flow.iss;
    peer.flow.peer_port += 1;
    let teller = full(&mut peer);
    let mss = |peer: &Peer, id| peer.stack.info(id).unwrap().mss;
    too_large(&mut peer, 1, 1000);
    assert_eq!((mss(&peer, teller), mss(&peer, other)), (960, 960));
    let reports: Vec<_> = (680..1000).rev().map(|mtu| report(&peer, 1, mtu)).collect();
    reports.chunks(64).for_each(|reports| peer.inject_batch(reports));
    assert_eq!(mss(&peer, teller), 640);
    assert!(mss(&peer, other) > 660, "{}", mss(&peer, other));
    // What is said of its own segments is always heard.
    peer.flow.peer_port -= 1;
    peer.flow.iss = first;
    too_large(&mut peer, 1, 800);
    assert_eq!(mss(&peer, other), 640);
    peer.advance_ms(1000);
    too_large(&mut peer, 1, 600);
    assert_eq!((mss(&peer, teller), mss(&peer, other)), (560, 560));
    peer.take();
}

#[test]
fn a_path_of_less_than_reports_are_believed_of_is_found_by_trying() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted_with(Some(1460), None);
    peer.write(id, 0, 5000);
    let mut at = 1;
    for _ in 0..200 {
        for segment in peer.take() {
            if segment.payload.len() + 40 > 500 {
                too_large(&mut peer, segment.seq, 500);
            } else if segment.seq == at {
                at += segment.payload.len() as u32;
                peer.send(ACK, 1, at, &[]);
            }
        }
        peer.advance_ms(1000);
    }
    assert_eq!((at, peer.stack.failure(id).unwrap()), (5001, None));
}
