//! Acknowledgements at once and delayed ones, by the heuristics.

use core::time::Duration;

use millrace_stack::{Config, SocketOption};

use crate::common::peer::{ACK, PSH, Peer, pattern};

fn quick(config: &mut Config) {
    config.tcp.quick_ack = true;
}

/// Sends the next full segment.
fn feed(peer: &mut Peer, at: &mut u32) {
    peer.send(ACK, *at, 1, &pattern(*at as usize - 1, 1000));
    *at += 1000;
}

/// Sends full segments until one is not acknowledged at once; tells how many were.
fn quick_ones(peer: &mut Peer, at: &mut u32) -> usize {
    for count in 0..100 {
        peer.advance_ms(1);
        feed(peer, at);
        if peer.take().is_empty() {
            return count;
        }
    }
    panic!("quick without end");
}

#[test]
fn a_connection_begins_with_acknowledgements_at_once() {
    let mut peer = Peer::with(quick);
    peer.accepted();
    let mut at = 1;
    assert_eq!(quick_ones(&mut peer, &mut at), 16);
    // From then on, every second one.
    feed(&mut peer, &mut at);
    peer.expect_ack(at);
    peer.advance_ms(1);
    feed(&mut peer, &mut at);
    peer.expect_silence();
}

#[test]
fn a_small_window_gets_fewer() {
    let mut peer = Peer::with(|config| {
        quick(config);
        config.receive_buffer = 10_000;
    });
    let id = peer.accepted();
    let mut at = 1;
    for _ in 0..4 {
        feed(&mut peer, &mut at);
        peer.read(id);
        peer.take();
    }
    assert!(peer.stack.tcp_info(id).unwrap().rcv_mss == 1000);
    peer.advance_ms(1);
    assert!(quick_ones(&mut peer, &mut at) < 8);
}

#[test]
fn answers_make_it_interactive() {
    let mut peer = Peer::with(quick);
    let id = peer.accepted();
    peer.send(ACK | PSH, 1, 1, b"question");
    peer.expect_ack(9);
    peer.read(id);
    peer.write(id, 0, 6);
    peer.expect_data(1, 6);
    // The next one waits for its answer.
    peer.send(ACK | PSH, 9, 7, b"question");
    peer.expect_silence();
    peer.read(id);
    peer.expect_silence();
    peer.write(id, 6, 6);
    assert_eq!(peer.expect_data(7, 6).ack, 17);
    peer.expect_silence();
}

#[test]
fn an_answer_that_does_not_come_ends_that() {
    let mut peer = Peer::with(quick);
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::QuickAck(false)).unwrap();
    peer.send(ACK | PSH, 1, 1, b"question");
    let time = peer.wait();
    assert!(time > Duration::from_millis(39) && time < Duration::from_millis(42), "{time:?}");
    peer.expect_ack(9);
    peer.send(ACK | PSH, 9, 1, b"question");
    peer.expect_ack(17);
    peer.read(id);
}

#[test]
fn a_loss_brings_them_back() {
    let mut peer = Peer::with(quick);
    let id = peer.accepted();
    let mut at = 1;
    quick_ones(&mut peer, &mut at);
    peer.read(id);
    peer.take();
    peer.send(ACK, at + 1000, 1, &pattern(at as usize + 999, 1000));
    peer.take();
    feed(&mut peer, &mut at);
    peer.take();
    at += 1000;
    assert!(quick_ones(&mut peer, &mut at) > 8);
}

#[test]
fn the_option_asks_for_them() {
    let mut peer = Peer::with(quick);
    let id = peer.accepted();
    let mut at = 1;
    quick_ones(&mut peer, &mut at);
    peer.stack.set_option(id, SocketOption::QuickAck(true)).unwrap();
    peer.expect_ack(at);
    peer.advance_ms(1);
    feed(&mut peer, &mut at);
    peer.expect_ack(at);
}

#[test]
fn steady_slow_arrivals_lengthen_the_delay() {
    let mut peer = Peer::with(quick);
    let id = peer.accepted();
    let mut at = 1;
    quick_ones(&mut peer, &mut at);
    let first = peer.stack.tcp_info(id).unwrap().ato;
    for _ in 0..12 {
        peer.send(ACK, at, 1, &pattern(at as usize - 1, 700));
        at += 700;
        peer.advance_ms(150);
        peer.take();
    }
    let later = peer.stack.tcp_info(id).unwrap().ato;
    assert!(later > first && later <= 200_000, "{first} and then {later}");
}

#[test]
fn what_ends_a_write_is_acknowledged_when_it_was_read() {
    let mut peer = Peer::with(quick);
    let id = peer.accepted();
    let mut at = 1;
    quick_ones(&mut peer, &mut at);
    peer.read(id);
    peer.advance_ms(100);
    peer.take();
    let next = at;
    peer.send(ACK | PSH, next, 1, &pattern(next as usize - 1, 100));
    peer.expect_silence();
    peer.read(id);
    peer.expect_ack(next + 100);
}
