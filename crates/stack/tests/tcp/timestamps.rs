//! Timestamps and protection against wrapped sequence numbers (RFC 7323 §3 to §5).

use millrace_frames::Duration;
use millrace_wire::tcp::{self, OptionWriter};

use crate::common::craft::TcpSegment;
use crate::common::peer::{ACK, FIN, MSS, Peer, RST, SYN, pattern};
use millrace_stack::State;

/// A peer whose segments have timestamps from `value` on.
fn with_clock(value: u32) -> Peer {
    let mut peer = Peer::new();
    peer.timestamp = Some(value);
    peer
}

#[test]
fn the_stack_offers_them() {
    let mut peer = Peer::new();
    peer.connect();
    let syn = peer.expect(SYN);
    assert_eq!(syn.options.timestamps.map(|(_, echo)| echo), Some(0));
    assert!(syn.options.sack_permitted);
    // The order and padding that others' fast paths and fingerprints know.
    assert_eq!(syn.options_bytes.len(), 20);
    assert_eq!(syn.options_bytes[..8], [2, 4, 5, 180, 4, 2, 8, 10]);
    assert_eq!(syn.options_bytes[16..19], [1, 3, 3]);
}

#[test]
fn what_is_switched_off_is_not_offered() {
    let mut peer = Peer::with(|config| {
        config.tcp.timestamps = false;
        config.tcp.window_scaling = false;
    });
    peer.connect();
    let syn = peer.expect(SYN);
    assert_eq!(syn.options_bytes, [2, 4, 5, 180, 1, 1, 4, 2]);
    peer.flow.peer_port += 1;
    peer.timestamp = Some(7);
    let (peer_port, stack_port) = (peer.flow.peer_port, peer.flow.stack_port);
    peer.flow.stack_port = 80;
    peer.listen(80, 4);
    peer.send_syn_sack(SYN);
    let answer = peer.expect(SYN | ACK);
    assert_eq!(answer.options.timestamps, None);
    assert!(answer.options.sack_permitted);
    (peer.flow.peer_port, peer.flow.stack_port) = (peer_port, stack_port);
}

#[test]
fn a_syn_ack_has_only_what_the_syn_had() {
    let mut peer = Peer::new();
    peer.listen(80, 4);
    peer.send_syn(SYN, Some(MSS), None);
    let answer = peer.expect(SYN | ACK);
    assert_eq!(answer.options_bytes, [2, 4, 5, 180]);
    peer.flow.peer_port += 1;
    peer.timestamp = Some(100);
    peer.send_syn_sack(SYN);
    let answer = peer.expect(SYN | ACK);
    assert_eq!(answer.options.timestamps.map(|(_, echo)| echo), Some(100));
    assert!(answer.options.sack_permitted && answer.window_scale.is_none());
}

#[test]
fn every_segment_has_one_and_the_payload_leaves_room() {
    let mut peer = with_clock(100);
    let id = peer.accepted_sack();
    assert_eq!(peer.stack.info(id).unwrap().mss, MSS - 12);
    peer.write(id, 0, 988);
    let first = peer.expect_data(1, 988);
    assert_eq!(first.options_bytes.len(), 12);
    assert_eq!(first.options_bytes[..4], [1, 1, 8, 10]);
    peer.timestamp = Some(150);
    peer.send(ACK, 1, 989, &pattern(0, 10));
    peer.take();
    peer.advance_ms(100);
    let ack = peer.expect_ack(11);
    assert_eq!(ack.options.timestamps.map(|(_, echo)| echo), Some(150));
    peer.close(id);
    for segment in peer.take() {
        assert!(segment.flags.contains(RST) || segment.options.timestamps.is_some());
    }
}

#[test]
fn the_clock_counts_milliseconds() {
    let mut peer = with_clock(100);
    let id = peer.accepted_sack();
    let before = peer.echo;
    peer.advance(Duration::from_secs(90));
    peer.write(id, 0, 10);
    let (value, _) = peer.expect_data(1, 10).options.timestamps.unwrap();
    assert_eq!(value.wrapping_sub(before), 90_000);
}

#[test]
fn each_connection_has_its_own_offset_and_the_same_again_later() {
    let mut peer = with_clock(100);
    peer.accepted_sack();
    let first = peer.echo;
    peer.flow.peer_port += 1;
    peer.accepted_sack();
    assert!(peer.echo.abs_diff(first) > 1000, "{} and {first}", peer.echo);
    peer.flow.peer_port -= 1;
    peer.send(RST, 1, 1, &[]);
    peer.advance_ms(10);
    peer.accepted_sack();
    assert_eq!(peer.echo.wrapping_sub(first), 10);
}

#[test]
fn the_echo_is_of_the_first_segment_since_the_last_acknowledgement() {
    let mut peer = with_clock(100);
    peer.accepted_sack();
    // RFC 7323 §4.3 (A): delayed acknowledgements.
    peer.timestamp = Some(101);
    peer.send(ACK, 1, 1, &pattern(0, 10));
    peer.timestamp = Some(102);
    peer.send(ACK, 11, 1, &pattern(10, 10));
    peer.expect_silence();
    peer.advance_ms(200);
    let ack = peer.expect_ack(21);
    assert_eq!(ack.options.timestamps.unwrap().1, 101);
}

#[test]
fn the_echo_across_a_gap_is_of_what_was_in_order() {
    let mut peer = with_clock(100);
    peer.accepted_sack();
    let mut round = |value, seq: u32, ack| {
        peer.timestamp = Some(value);
        peer.send(ACK, seq, 1, &pattern(seq as usize - 1, 1000));
        if peer.stack.next_deadline().is_some() {
            peer.advance_ms(200);
        }
        let segment = peer.expect_ack(ack);
        segment.options.timestamps.unwrap().1
    };
    // RFC 7323 §4.3 (B): one is lost, comes late, and fills the gap.
    assert_eq!(round(101, 1, 1001), 101);
    assert_eq!(round(103, 2001, 1001), 101);
    assert_eq!(round(104, 3001, 1001), 101);
    assert_eq!(round(102, 1001, 4001), 102);
    assert_eq!(round(105, 4001, 5001), 105);
}

#[test]
fn an_old_segment_is_dropped_and_answered() {
    for value in [u32::MAX - 1, 98, 0x8000_0065] {
        let mut peer = with_clock(100);
        let id = peer.accepted_sack();
        peer.timestamp = Some(value);
        peer.send(ACK, 1, 1, b"from another time");
        let ack = peer.expect_ack(1);
        assert_eq!(ack.options.timestamps.unwrap().1, 100);
        assert_eq!(peer.stack.counters().drop_tcp_paws, 1);
        assert_eq!(peer.read(id), [0; 0]);
        peer.timestamp = Some(100);
        peer.send(ACK, 1, 1, &pattern(0, 5));
        assert_eq!(peer.read(id), pattern(0, 5));
    }
}

#[test]
fn values_wrap() {
    let mut peer = with_clock(u32::MAX - 1);
    let id = peer.accepted_sack();
    for (at, value) in [u32::MAX, 0, 1].into_iter().enumerate() {
        peer.timestamp = Some(value);
        peer.send(ACK, 1 + at as u32 * 10, 1, &pattern(at * 10, 10));
    }
    assert_eq!(peer.read(id), pattern(0, 30));
}

#[test]
fn resets_are_believed_whatever_their_timestamp() {
    let mut peer = with_clock(100);
    let id = peer.accepted_sack();
    peer.timestamp = Some(5);
    peer.send(RST, 1, 1, &[]);
    assert_eq!(peer.state(id), State::Closed);
}

#[test]
fn after_24_days_any_value_is_right() {
    let mut peer = with_clock(1 << 30);
    let id = peer.accepted_sack();
    peer.advance(Duration::from_secs(24 * 24 * 3600 + 10));
    peer.timestamp = Some(3);
    peer.send(ACK, 1, 1, &pattern(0, 10));
    assert_eq!(peer.read(id), pattern(0, 10));
    assert_eq!(peer.stack.counters().drop_tcp_paws, 0);
}

#[test]
fn what_acknowledges_the_future_does_not_set_the_clock() {
    let mut peer = with_clock(100);
    let id = peer.accepted_sack();
    peer.timestamp = Some(200_000);
    peer.send(FIN | ACK, 1, 9999, &[]);
    peer.take();
    peer.timestamp = Some(101);
    peer.send(ACK, 1, 1, &pattern(0, 10));
    assert_eq!(peer.read(id), pattern(0, 10));
}

#[test]
fn a_segment_beyond_a_gap_does_not_set_the_clock() {
    let mut peer = with_clock(100);
    let id = peer.accepted_sack();
    peer.timestamp = Some(300);
    peer.send(ACK, 1001, 1, &pattern(1000, 1000));
    peer.timestamp = Some(200);
    peer.send(ACK, 1, 1, &pattern(0, 1000));
    assert_eq!(peer.read(id), pattern(0, 2000));
}

#[test]
fn a_segment_without_one_is_taken_and_counted() {
    let mut peer = with_clock(100);
    let id = peer.accepted_sack();
    let bare = TcpSegment { options: OptionWriter::new(), ..peer.segment(ACK, 1, 1, b"bare") };
    peer.inject(&bare.bytes());
    assert_eq!(peer.read(id), b"bare");
    assert_eq!(peer.stack.counters().timestamps_missing, 1);
}

#[test]
fn acknowledgements_that_overtook_each_other_are_no_reason_to_answer() {
    let mut peer = with_clock(100);
    let id = peer.accepted_sack();
    peer.write(id, 0, 10);
    peer.take();
    peer.timestamp = Some(120);
    peer.send(ACK, 1, 11, &[]);
    peer.timestamp = Some(110);
    peer.send(ACK, 1, 11, &[]);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_tcp_paws, 0);
}

#[test]
fn resets_of_a_connection_have_one() {
    let mut peer = with_clock(100);
    let id = peer.accepted_sack();
    let before = peer.echo;
    peer.advance_ms(1000);
    peer.stack.abort(id);
    peer.collect();
    let reset = peer.expect(RST | ACK);
    let (value, echo) = reset.options.timestamps.unwrap();
    assert_eq!((value.wrapping_sub(before), echo), (1000, 100));
}

#[test]
fn the_segment_size_never_falls_to_nothing() {
    let mut peer = with_clock(100);
    let listener = peer.listen(80, 4);
    let mut syn = peer.segment(SYN, 0, 0, &[]);
    syn.options.mss(1);
    peer.inject(&syn.bytes());
    peer.expect(SYN | ACK);
    peer.send(ACK, 1, 1, &[]);
    let id = peer.accept(listener).unwrap();
    peer.write(id, 0, 100);
    let segment = peer.expect(ACK);
    assert_eq!(segment.payload.len() + tcp::timestamps(0, 0).len(), 48);
    peer.take();
}

#[test]
fn after_24_days_only_what_is_in_the_window_sets_the_clock() {
    let mut peer = with_clock(1000);
    let id = peer.accepted_sack();
    let days = Duration::from_secs(24 * 24 * 3600 + 10);
    peer.advance(days);
    peer.timestamp = Some(1000u32.wrapping_sub(1_000_000_000));
    peer.send(ACK, 0x4000_0000, 1, &[]);
    peer.take();
    peer.timestamp = Some(1000u32.wrapping_add(days.as_millis() as u32));
    peer.send(ACK, 1, 1, &pattern(0, 100));
    assert_eq!(peer.read(id), pattern(0, 100));
    assert_eq!(peer.stack.counters().drop_tcp_paws, 0);
}

#[test]
fn after_24_days_a_clock_that_has_gone_round_by_half_is_believed() {
    let mut peer =
        Peer::with(|config| config.neighbour_reachable = Duration::from_secs(10_000_000));
    peer.timestamp = Some(1000);
    let id = peer.accepted_sack();
    peer.advance(Duration::from_secs(24 * 24 * 3600 + 10));
    for (round, clock) in [1000u32.wrapping_sub(1_000_000_000), 500].into_iter().enumerate() {
        peer.timestamp = Some(clock);
        peer.send(ACK, 1 + round as u32 * 100, 1, &pattern(round * 100, 100));
        peer.advance_ms(200);
        peer.expect_ack(101 + round as u32 * 100);
    }
    // The second is later than the first.
    assert_eq!(peer.read(id), pattern(0, 200));
    peer.timestamp = Some(400);
    peer.send(ACK, 201, 1, &pattern(200, 100));
    assert_eq!(peer.read(id), []);
    assert_eq!(peer.stack.counters().drop_tcp_paws, 1);
    peer.take();
}
