//! What ICMP errors do to connections (RFC 5927, RFC 5461): only those are believed that quote
//! what is in flight, and only attempts are ended by them.

use crate::common::craft::{self, PEER_IP, STACK_IP, TcpSegment};
use crate::common::peer::{ACK, FIN, MSS, Peer, SYN};
use millrace_stack::{Failure, State};

/// Host and port unreachable.
const CODES: [(u8, Failure); 2] = [(1, Failure::HostUnreachable), (3, Failure::Refused)];

/// An error about a segment of the flow with this sequence number, relative to the stack's SYN.
fn unreachable(peer: &mut Peer, code: u8, seq: u32) {
    let ours = TcpSegment {
        source: (STACK_IP, peer.flow.stack_port),
        destination: (PEER_IP, peer.flow.peer_port),
        sequence: peer.flow.iss.wrapping_add(seq),
        ..TcpSegment::default()
    };
    let quote = ours.bytes()[14..14 + 28].to_vec();
    peer.inject(&craft::unreachable(PEER_IP, code, &quote));
}

#[test]
fn a_half_open_connection_ends() {
    for (code, _) in CODES {
        let mut peer = Peer::new();
        peer.listen(80, 4);
        peer.send_syn(SYN, Some(MSS), None);
        peer.expect(SYN | ACK);
        for wrong in [1, 5000, u32::MAX] {
            unreachable(&mut peer, code, wrong);
            assert_eq!(peer.stack.connections(), 1);
        }
        assert_eq!(peer.stack.counters().drop_icmp_unrelated, 3);
        unreachable(&mut peer, code, 0);
        assert_eq!(peer.stack.connections(), 0);
        assert_eq!(peer.stack.counters().icmp_errors_taken, 1);
        peer.expect_silence();
    }
}

#[test]
fn an_attempt_ends_with_what_was_said() {
    for (code, failure) in CODES {
        let mut peer = Peer::new();
        let id = peer.connect();
        peer.expect(SYN);
        unreachable(&mut peer, code, 1);
        assert_eq!(peer.state(id), State::SynSent);
        unreachable(&mut peer, code, 0);
        assert_eq!(peer.stack.failure(id).unwrap(), Some(failure));
    }
}

#[test]
fn an_open_connection_goes_on() {
    for (code, _) in CODES {
        let mut peer = Peer::new();
        let id = peer.accepted();
        peer.write(id, 0, 1000);
        peer.expect_data(1, 1000);
        for wrong in [0, 1001, 9000] {
            unreachable(&mut peer, code, wrong);
        }
        assert_eq!(peer.stack.counters().drop_icmp_unrelated, 3);
        unreachable(&mut peer, code, 500);
        assert_eq!(peer.stack.counters().icmp_errors_soft, 1);
        assert_eq!(peer.state(id), State::Established);
        peer.send(ACK, 1, 1001, &[]);
        peer.close(id);
        peer.expect(FIN | ACK);
        unreachable(&mut peer, code, 1001);
        assert_eq!(peer.stack.counters().icmp_errors_soft, 2);
        assert_eq!(peer.stack.connections(), 1);
    }
}
