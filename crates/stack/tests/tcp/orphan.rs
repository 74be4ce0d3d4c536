//! Connections that go on after their application has closed them: how many, and for how long.

use core::time::Duration;

use crate::common::peer::{ACK, FIN, Peer, RST};
use millrace_stack::ConnectionId;

fn accepted(peer: &mut Peer, port: u16) -> ConnectionId {
    peer.flow.peer_port = port;
    peer.flow.iss = 0;
    peer.accepted()
}

#[test]
fn one_too_many_is_reset() {
    let mut peer = Peer::with(|config| config.orphans = 2);
    let (mut sent, mut second) = (Vec::new(), 0);
    for port in 6000..6003 {
        let id = accepted(&mut peer, port);
        if port == 6001 {
            second = peer.flow.iss;
        }
        peer.write(id, 0, 100);
        peer.close(id);
        sent.extend(peer.take());
        assert_eq!(peer.stack.orphans(), usize::from(port - 5999).min(2));
    }
    assert_eq!(sent.iter().filter(|segment| segment.flags.contains(RST)).count(), 1);
    assert_eq!(peer.stack.counters().orphans_reset, 1);
    // One that is over makes room.
    peer.flow.peer_port = 6001;
    peer.flow.iss = second;
    peer.send(FIN | ACK, 1, 102, &[]);
    assert_eq!(peer.stack.orphans(), 1);
    peer.take();
}

#[test]
fn one_that_only_waits_for_its_peer_makes_way() {
    let mut peer = Peer::with(|config| config.orphans = 2);
    for port in 6000..6005 {
        let id = accepted(&mut peer, port);
        peer.write(id, 0, 100);
        peer.close(id);
        assert!(peer.take().iter().all(|segment| !segment.flags.contains(RST)), "{port}");
        // Delivered; the peer says no more.
        peer.send(ACK, 1, 102, &[]);
        peer.expect_silence();
    }
    assert_eq!((peer.stack.orphans(), peer.stack.connections()), (2, 2));
    assert_eq!(peer.stack.counters().orphans_reset, 0);
    assert_eq!(peer.stack.counters().fin_wait_2_recycled, 3);
    // They leave in any order.
    peer.send(FIN | ACK, 1, 102, &[]);
    peer.expect_ack(2);
    assert_eq!((peer.stack.orphans(), peer.stack.time_wait_connections()), (1, 1));
}

#[test]
fn in_a_full_table_it_makes_way_too() {
    let mut peer = Peer::with(|config| config.connections = 2);
    for port in 6000..6004 {
        let id = accepted(&mut peer, port);
        peer.close(id);
        peer.expect(FIN | ACK);
        peer.send(ACK, 1, 2, &[]);
    }
    assert_eq!(peer.stack.counters().fin_wait_2_recycled, 2);
    assert_eq!(peer.stack.counters().drop_no_connection_entry, 0);
}

#[test]
fn no_application_no_orphan() {
    let mut peer = Peer::new();
    let id = accepted(&mut peer, 6000);
    peer.shutdown_write(id);
    assert_eq!(peer.stack.orphans(), 0);
    peer.close(id);
    assert_eq!(peer.stack.orphans(), 1);
    peer.expect(FIN | ACK);
    peer.send(ACK, 1, 2, &[]);
    assert_eq!(peer.stack.orphans(), 1);
    peer.send(FIN | ACK, 1, 2, &[]);
    assert_eq!(peer.stack.orphans(), 0);
    assert_eq!(peer.stack.time_wait_connections(), 1);
    peer.take();
}

#[test]
fn a_peer_that_is_silent_is_given_up_sooner() {
    let mut peer = Peer::with(|config| config.orphan_retries = 3);
    let id = accepted(&mut peer, 6000);
    peer.write(id, 0, 100);
    peer.close(id);
    // 200 ms and its doubles: a fourth timeout ends it.
    peer.advance(Duration::from_secs(10));
    assert_eq!(peer.stack.connections(), 0);
    assert_eq!(peer.stack.counters().connections_timed_out, 1);
    peer.take();
}

#[test]
fn a_window_that_stays_closed_ends_it_though_the_peer_answers() {
    let mut peer = Peer::with(|config| {
        config.orphan_retries = 4;
        config.max_rto = Duration::from_secs(100);
    });
    let id = accepted(&mut peer, 6000);
    peer.write(id, 0, 1000);
    peer.expect_data(1, 1000);
    peer.window = 0;
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 1000);
    let answered = |peer: &mut Peer, seconds: u64| {
        for _ in 0..seconds * 10 {
            peer.advance_ms(100);
            for segment in peer.take() {
                if !segment.flags.contains(RST) {
                    peer.send(ACK, 1, 1001, &[]);
                }
            }
        }
        peer.stack.connections()
    };
    // As long as somebody owns it, it may wait.
    assert_eq!(answered(&mut peer, 60), 1);
    peer.close(id);
    // The probe at 102.2 s is followed by one a hundred seconds later, the longest that there is.
    assert_eq!(answered(&mut peer, 142), 1);
    assert_eq!(answered(&mut peer, 2), 0);
}

/// A timeout that begins so small does not become as long as `max_rto`, however often it is doubled.
#[test]
fn a_window_that_stays_closed_ends_it_where_timeouts_are_short() {
    let mut peer = Peer::with(|config| config.min_rto = Duration::from_millis(1));
    let id = accepted(&mut peer, 6000);
    peer.write(id, 0, 1000);
    peer.expect_data(1, 1000);
    peer.window = 0;
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 1000);
    peer.close(id);
    let start = peer.now;
    while peer.stack.connections() > 0 {
        let next = peer.stack.next_deadline().expect("a timer");
        peer.advance(next - peer.now);
        if !peer.take().is_empty() {
            peer.send(ACK, 1, 1001, &[]);
        }
        assert!(peer.now - start < Duration::from_secs(1000), "it waits for ever");
    }
    peer.take();
}

/// What a peer tells of copies while nothing is in flight is no progress: the window is probed all the
/// same, and who may wait no longer is given up.
#[test]
fn reports_of_copies_put_no_probe_off() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack();
    peer.write(id, 0, 1000);
    peer.expect_data(1, 1000);
    peer.window = 0;
    peer.send(ACK, 1, 1001, &[]);
    peer.write(id, 1000, 1000);
    peer.close(id);
    for _ in 0..10_000 {
        peer.advance_ms(100);
        peer.take();
        peer.send_sack(1, 1001, &[(1, 501)]);
        if peer.stack.connections() == 0 {
            break;
        }
    }
    assert!(peer.stack.counters().window_probes > 8);
    assert_eq!(peer.stack.connections(), 0);
    peer.take();
}
