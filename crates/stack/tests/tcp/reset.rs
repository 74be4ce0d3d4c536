//! Resets, given and taken (RFC 9293 §3.5.2, §3.5.3 and §3.10.7; RFC 5961 §3, §4 and §5).

use core::time::Duration;
use millrace_stack::{ConnectionId, Failure, Ready, State};

use crate::common::peer::{ACK, FIN, PSH, Peer, RST, SYN, pattern};

/// Brings a connection into a state. Returns what the peer sends next and acknowledges.
fn bring_to(peer: &mut Peer, state: State) -> (Option<ConnectionId>, u32, u32) {
    let (id, seq, ack) = match state {
        State::SynReceived => {
            peer.listen(80, 4);
            peer.send_syn(SYN, None, None);
            (None, 1, 1)
        }
        State::SynSent => (Some(peer.connect()), 0, 1),
        _ => {
            let id = peer.accepted();
            let (mut seq, mut ack) = (1, 1);
            let we_close = |peer: &mut Peer| peer.shutdown_write(id);
            match state {
                State::Established => {}
                State::FinWait1 => we_close(peer),
                State::FinWait2 => {
                    we_close(peer);
                    ack = 2;
                    peer.send(ACK, seq, ack, &[]);
                }
                State::CloseWait | State::LastAck => {
                    peer.send(FIN | ACK, seq, ack, &[]);
                    seq = 2;
                    if state == State::LastAck {
                        we_close(peer);
                    }
                }
                State::Closing => {
                    we_close(peer);
                    peer.send(FIN | ACK, seq, ack, &[]);
                    seq = 2;
                }
                State::TimeWait => {
                    we_close(peer);
                    ack = 2;
                    peer.send(FIN | ACK, seq, ack, &[]);
                    seq = 2;
                }
                State::Closed | State::SynSent | State::SynReceived => unreachable!(),
            }
            (Some(id), seq, ack)
        }
    };
    if let Some(id) = id {
        assert_eq!(peer.state(id), state);
    }
    peer.take();
    while peer.stack.next_event().is_some() {}
    (id, seq, ack)
}

const SYNCHRONISED: [State; 7] = [
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

#[test]
fn an_exact_reset_ends_every_synchronised_state() {
    for state in SYNCHRONISED {
        let mut peer = Peer::new();
        if state == State::TimeWait {
            // RFC 1337; see there.
            continue;
        }
        let (id, seq, _) = bring_to(&mut peer, state);
        peer.send(RST, seq, 0, &[]);
        let id = id.unwrap();
        assert_eq!(peer.state(id), State::Closed, "{state:?}");
        let failure = match state {
            State::Closing | State::LastAck | State::TimeWait => None,
            _ => Some(Failure::Reset),
        };
        assert_eq!(peer.stack.failure(id).unwrap(), failure, "{state:?}");
        assert!(peer.ready(id).has(Ready::CLOSED), "{state:?}");
        peer.expect_silence();
        assert_eq!(peer.stack.counters().connections_reset, 1);
    }
}

#[test]
fn a_reset_takes_what_the_peer_has_not_acknowledged_though_both_have_closed() {
    for (state, acked) in [
        (State::LastAck, 1),
        (State::LastAck, 501),
        (State::LastAck, 1001),
        (State::Closing, 501),
        (State::Closing, 1001),
    ] {
        let mut peer = Peer::new();
        let id = peer.accepted();
        peer.write(id, 0, 1000);
        if state == State::LastAck {
            peer.send(FIN | ACK, 1, 1, &[]);
        }
        peer.shutdown_write(id);
        if state == State::Closing {
            peer.send(FIN | ACK, 1, 1, &[]);
        }
        peer.send(ACK, 2, acked, &[]);
        peer.take();
        assert_eq!(peer.state(id), state);
        peer.send(RST, 2, 0, &[]);
        // Our FIN alone is no loss.
        let failure = (acked < 1001).then_some(Failure::Reset);
        assert_eq!(peer.stack.failure(id).unwrap(), failure, "{state:?} at {acked}");
    }
}

#[test]
fn a_reset_in_the_window_is_challenged() {
    for state in SYNCHRONISED {
        if state == State::TimeWait {
            // RFC 1337; see there.
            continue;
        }
        let mut peer = Peer::with(|config| config.invalid_ack_interval = Duration::ZERO);
        let (id, seq, _) = bring_to(&mut peer, state);
        for ahead in [1, 100, 60_000] {
            peer.send(RST, seq + ahead, 0, &[]);
            peer.expect_ack(seq);
            peer.expect_silence();
        }
        assert_eq!(peer.state(id.unwrap()), state);
        assert_eq!(peer.stack.counters().challenge_acks, 3);
        assert_eq!(peer.stack.counters().drop_tcp_challenged, 3);
    }
}

#[test]
fn a_reset_outside_the_window_is_ignored() {
    for state in SYNCHRONISED {
        let mut peer = Peer::new();
        let (id, seq, _) = bring_to(&mut peer, state);
        for other in [seq.wrapping_sub(2), seq + 65_600, seq.wrapping_add(1 << 31)] {
            peer.send(RST, other, 0, &[]);
            peer.expect_silence();
        }
        assert_eq!(peer.state(id.unwrap()), state);
        assert_eq!(peer.stack.counters().drop_tcp_outside_window, 3);
    }
}

#[test]
fn a_reset_may_have_the_number_of_the_fin() {
    for (ours_first, theirs_first) in [(false, false), (false, true), (true, false)] {
        let mut peer = Peer::new();
        let id = peer.accepted();
        if ours_first {
            peer.shutdown_write(id);
            peer.expect(FIN | ACK);
        }
        // Before there was a FIN it is an old number.
        peer.send(RST, 0, 0, &[]);
        assert_ne!(peer.state(id), State::Closed);
        peer.send(FIN | ACK, 1, 1, &[]);
        peer.expect_ack(2);
        if theirs_first {
            peer.shutdown_write(id);
            peer.expect(FIN | ACK);
        }
        peer.send(RST, 0, 0, &[]);
        assert_ne!(peer.state(id), State::Closed);
        peer.send(RST, 1, 0, if ours_first { b"why" } else { &[] });
        assert_eq!(peer.state(id), State::Closed);
        peer.stack.release(id);
        peer.expect_silence();
    }
}

#[test]
fn a_reset_may_come_from_behind_what_waits_for_a_gap() {
    for (bits, number) in [(ACK, 201), (FIN | ACK, 201), (FIN | ACK, 202)] {
        let mut peer = Peer::new();
        let id = peer.accepted();
        peer.send(bits, 101, 1, &pattern(100, 100));
        peer.expect_ack(1);
        peer.send(RST, 203, 0, &[]);
        assert_eq!(peer.state(id), State::Established);
        peer.send(RST, number, 0, &[]);
        assert_eq!(peer.state(id), State::Closed, "{number}");
        peer.stack.release(id);
        peer.take();
    }
}

#[test]
fn a_reset_is_exact_with_a_closed_window_too() {
    let mut peer = Peer::with(|config| config.receive_buffer = 2048);
    let id = peer.accepted();
    peer.send(ACK, 1, 1, &[7; 2048]);
    assert_eq!(peer.take().last().unwrap().window, 0);
    peer.send(RST, 2049, 0, &[]);
    assert_eq!(peer.state(id), State::Closed);
    assert_eq!(peer.read(id).len(), 2048, "what came before the reset can be read");
}

#[test]
fn a_reset_returns_a_half_open_connection_to_listening() {
    let mut peer = Peer::new();
    bring_to(&mut peer, State::SynReceived);
    peer.send(RST, 1, 0, &[]);
    assert_eq!(peer.stack.connections(), 0);
    assert_eq!(peer.events(), []);
    peer.send_syn(SYN, None, None);
    peer.expect(SYN | ACK);
}

#[test]
fn a_reset_refuses_a_connect_only_if_it_acknowledges_the_syn() {
    let mut peer = Peer::new();
    let (id, ..) = bring_to(&mut peer, State::SynSent);
    let id = id.unwrap();
    peer.send(RST, 0, 0, &[]);
    peer.send(RST | ACK, 0, 0, &[]);
    peer.send(RST | ACK, 0, 2, &[]);
    peer.expect_silence();
    assert_eq!(peer.state(id), State::SynSent);
    peer.send(RST | ACK, 0, 1, &[]);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::Refused));
    assert_eq!(peer.ready(id), Ready::CLOSED);
}

#[test]
fn segments_that_belong_to_nothing_are_reset_as_the_rfc_says() {
    let mut peer = Peer::new();
    peer.flow.iss = 0;
    // With an ACK: the reset has its number.
    peer.send(ACK, 5, 1234, b"who");
    let reset = peer.expect(RST);
    assert_eq!(reset.seq, 1234);
    // Without: sequence number 0, and an acknowledgement of all that it took up.
    for (flags, len) in [(SYN, 4), (FIN, 4), (SYN | FIN, 5), (PSH, 3)] {
        peer.send(flags, 5, 0, b"who");
        let reset = peer.expect(RST | ACK);
        assert_eq!((reset.seq, reset.ack), (0, 5 + len), "{flags}");
    }
    peer.send(SYN | ACK, 5, 99, &[]);
    assert_eq!(peer.expect(RST).seq, 99);
    // A reset is never answered.
    peer.send(RST, 5, 0, &[]);
    peer.send(RST | ACK, 5, 7, &[]);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_tcp_no_connection, 8);
}

#[test]
fn a_listener_resets_acknowledgements_and_ignores_what_is_neither_syn_nor_ack() {
    let mut peer = Peer::new();
    peer.listen(80, 4);
    peer.send(ACK, 5, 1234, &[]);
    assert_eq!(peer.expect(RST).seq, 1234);
    peer.send(SYN | ACK, 5, 1234, &[]);
    assert_eq!(peer.expect(RST).seq, 1234);
    peer.send(FIN, 5, 0, &[]);
    peer.send(PSH, 5, 0, b"data");
    peer.expect_silence();
    assert_eq!(peer.stack.connections(), 0);
}

#[test]
fn a_syn_in_a_connection_is_challenged_wherever_it_is() {
    for state in SYNCHRONISED {
        // A larger one may reopen a TIME-WAIT; see there.
        if state == State::TimeWait {
            continue;
        }
        let mut peer = Peer::with(|config| config.invalid_ack_interval = Duration::ZERO);
        let (id, seq, _) = bring_to(&mut peer, state);
        for at in [seq, seq + 100, seq.wrapping_sub(70_000), seq.wrapping_add(1 << 30)] {
            peer.send(SYN, at, 0, &[]);
            peer.expect_ack(seq);
            peer.expect_silence();
        }
        assert_eq!(peer.state(id.unwrap()), state);
    }
}

#[test]
fn a_half_open_connection_answers_segments_outside_its_window() {
    let mut peer = Peer::new();
    bring_to(&mut peer, State::SynReceived);
    peer.send(ACK, 200_000, 1, b"far away");
    let answer = peer.expect_ack(1);
    assert_eq!(answer.seq, 1);
    assert_eq!(peer.stack.connections(), 1);
}

#[test]
fn a_half_open_connection_resets_a_wrong_acknowledgement() {
    let mut peer = Peer::new();
    bring_to(&mut peer, State::SynReceived);
    for ack in [0, 2, 5000] {
        peer.send(ACK, 1, ack, &[]);
        assert_eq!(peer.expect(RST).seq, ack);
    }
    assert_eq!(peer.stack.connections(), 1, "and stays half-open");
}

#[test]
fn acknowledgements_of_what_was_never_sent_or_long_ago_are_challenged() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 100);
    peer.take();
    peer.send(ACK, 1, 102, b"x");
    peer.expect_ack(1);
    peer.advance_ms(500);
    peer.take();
    peer.send(ACK, 1, 1u32.wrapping_sub(65_540), b"x");
    peer.expect_ack(1);
    assert_eq!(peer.stack.counters().drop_tcp_bad_ack, 2);
    assert_eq!(peer.stack.info(id).unwrap().in_flight, 100);
    assert_eq!(peer.read(id), [0; 0]);
}

#[test]
fn a_segment_without_ack_is_dropped() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(PSH, 1, 0, b"no ack");
    peer.expect_silence();
    assert_eq!(peer.read(id), [0; 0]);
    assert_eq!(peer.stack.counters().drop_tcp_no_ack, 1);
}

#[test]
fn resets_for_strangers_are_limited() {
    let mut peer = Peer::with(|config| config.resets_per_second = 50);
    for _ in 0..100 {
        peer.send(ACK, 1, 1, &[]);
    }
    let resets = peer.take().len();
    assert!((35..65).contains(&resets), "{resets}");
    assert_eq!(peer.stack.counters().drop_reset_rate, 100 - resets as u64);
}

#[test]
fn our_reset_is_one_that_the_peer_believes_after_a_timeout_too() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 2000);
    peer.take();
    // The peer has it all, but its acknowledgements were lost; we go back to the beginning.
    peer.wait();
    peer.take();
    peer.stack.abort(id);
    assert_eq!(peer.expect(RST | ACK).seq, 2001);
}

#[test]
fn one_drop_is_counted_once() {
    let mut peer = Peer::with(|config| config.challenge_acks_per_second = 1_000);
    peer.accepted();
    let before = peer.stack.counters().dropped();
    peer.send(SYN, 1, 0, &[]);
    peer.send(RST, 2, 0, &[]);
    peer.send(ACK, 100_000, 1, b"x");
    peer.send(ACK, 1, 50_000, b"x");
    assert_eq!(peer.stack.counters().dropped() - before, 4);
}
