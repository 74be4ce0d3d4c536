//! Opens and their options (RFC 9293 §3.5 and §3.7.1, RFC 7323 §2.2).

use millrace_stack::{Event, Ready, State};
use millrace_wire::tcp::OptionWriter;

use crate::common::craft::TcpSegment;
use crate::common::peer::{ACK, MSS, PSH, Peer, SYN, pattern};

#[test]
fn a_passive_open_answers_acknowledges_and_is_accepted() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 4);
    peer.send_syn(SYN, Some(1400), Some(7));
    let answer = peer.expect(SYN | ACK);
    assert_eq!((answer.ack, answer.mss, answer.window_scale), (1, Some(1460), Some(0)));
    assert_eq!(peer.events(), []);
    peer.send(ACK, 1, 1, &[]);
    peer.expect_silence();
    assert_eq!(peer.events(), [Event::Accept(listener)]);
    let id = peer.accept(listener).unwrap();
    assert_eq!(peer.state(id), State::Established);
    let info = peer.stack.info(id).unwrap();
    assert_eq!((info.mss, info.send_window), (1400, 65_535 << 7));
    assert_eq!(peer.accept(listener), None);
    assert_eq!(peer.stack.counters().connections_accepted, 1);
}

#[test]
fn an_active_open_sends_its_options_and_tells_when_it_is_connected() {
    let mut peer = Peer::with(|config| config.receive_buffer = 1 << 20);
    let id = peer.connect();
    let syn = peer.expect(SYN);
    assert_eq!((syn.seq, syn.mss, syn.window_scale), (0, Some(1460), Some(5)));
    assert_eq!(peer.state(id), State::SynSent);
    peer.send_syn(SYN | ACK, Some(MSS), Some(2));
    peer.expect_ack(1);
    assert!(peer.ready(id).has(Ready::CONNECTED));
    assert_eq!(peer.state(id), State::Established);
    assert_eq!(peer.stack.info(id).unwrap().mss, MSS);
    assert_eq!(peer.stack.counters().connections_opened, 1);
}

#[test]
fn a_syn_ack_that_acknowledges_something_else_is_reset() {
    use crate::common::peer::RST;
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    for ack in [0, 2, 70_000] {
        peer.send(SYN | ACK, 0, ack, &[]);
        let reset = peer.expect(RST);
        assert_eq!(reset.seq, ack);
        assert_eq!(peer.state(id), State::SynSent);
    }
    peer.send_syn(SYN | ACK, None, None);
    peer.expect_ack(1);
}

#[test]
fn without_an_mss_option_536_bytes_are_sent() {
    let mut peer = Peer::new();
    let id = peer.accepted_with(None, None);
    peer.write(id, 0, 1000);
    peer.expect_data(1, 536);
}

#[test]
fn a_peers_mss_is_kept_within_bounds() {
    for (offered, used) in [
        // As without the option.
        (0, 536),
        (1, 48),
        (47, 48),
        (48, 48),
        (536, 536),
        (1460, 1460),
        (9000, 1460),
        (65_535, 1460),
    ] {
        let mut peer = Peer::new();
        let id = peer.accepted_with(Some(offered), None);
        assert_eq!(peer.stack.info(id).unwrap().mss, used, "offered {offered}");
    }
}

#[test]
fn the_mtu_sets_the_mss() {
    for mtu in [576, 1006, 1500] {
        let mut peer = Peer::with(|config| config.mtu = mtu);
        let id = peer.connect();
        assert_eq!(peer.expect(SYN).mss, Some(mtu - 40));
        peer.send_syn(SYN | ACK, Some(60_000), None);
        assert_eq!(peer.stack.info(id).unwrap().mss, mtu - 40);
        peer.take();
    }
}

#[test]
fn window_scaling_needs_both_sides() {
    // The peer does not scale: no option in the SYN-ACK, and the window stays within 16 bits.
    let mut peer = Peer::with(|config| config.receive_buffer = 500_000);
    peer.listen(80, 4);
    peer.send_syn(SYN, Some(MSS), None);
    let answer = peer.expect(SYN | ACK);
    assert_eq!((answer.window_scale, answer.window), (None, 65_535));
    peer.send(ACK | PSH, 1, 1, &pattern(0, 2000));
    assert_eq!(peer.expect_ack(2001).window, 65_535);
    // It does: the SYN-ACK has the option, its own window is not scaled, later ones are.
    let mut peer = Peer::with(|config| config.receive_buffer = 500_000);
    peer.listen(80, 4);
    peer.send_syn(SYN, Some(MSS), Some(3));
    let answer = peer.expect(SYN | ACK);
    assert_eq!((answer.window_scale, answer.window), (Some(3), 65_535));
    peer.send(ACK, 1, 1, &pattern(0, 2000));
    assert_eq!(peer.expect_ack(2001).window, (500_000u32 - 2000).div_ceil(8) as u16);
}

#[test]
fn a_window_scale_above_14_counts_as_14() {
    let mut peer = Peer::new();
    peer.window = 3;
    let id = peer.accepted_with(Some(MSS), Some(255));
    assert_eq!(peer.stack.info(id).unwrap().send_window, 3 << 14);
}

#[test]
fn windows_of_syns_are_not_scaled() {
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    peer.window = 1000;
    peer.send_syn(SYN | ACK, Some(MSS), Some(7));
    peer.expect_ack(1);
    assert_eq!(peer.stack.info(id).unwrap().send_window, 1000);
    peer.send(ACK, 1, 1, &[]);
    assert_eq!(peer.stack.info(id).unwrap().send_window, 128_000);
}

#[test]
fn options_that_nobody_knows_are_skipped_and_broken_ones_drop_the_syn() {
    let mut peer = Peer::new();
    peer.listen(80, 4);
    let mut options = OptionWriter::new();
    options.mss(1200).sack_permitted().timestamps(1, 0).window_scale(2);
    let segment = TcpSegment { options, ..peer.segment(SYN, 0, 0, &[]) };
    peer.inject(&segment.bytes());
    let answer = peer.expect(SYN | ACK);
    assert_eq!((answer.mss, answer.window_scale), (Some(1460), Some(0)));

    let mut bytes = segment.bytes();
    bytes[14 + 20 + 20 + 1] = 0; // the length of the first option
    bytes[14 + 20 + 1] += 1; // another port
    let sum =
        millrace_wire::checksum::update(u16::from_be_bytes([bytes[50], bytes[51]]), 0x0204, 0x0200);
    let port = u16::from_be_bytes([bytes[34], bytes[35]]);
    let sum = millrace_wire::checksum::update(sum, port - 1, port);
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    peer.inject(&bytes);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_tcp_options, 1);
    assert_eq!(peer.stack.counters().drop_tcp_checksum, 0);
}

#[test]
fn data_and_fin_that_come_with_the_handshakes_ack_are_taken() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 4);
    peer.send_syn(SYN, Some(MSS), None);
    peer.expect(SYN | ACK);
    peer.send(ACK | PSH | crate::common::peer::FIN, 1, 1, &pattern(0, 10));
    peer.expect_ack(12);
    let id = peer.accept(listener).unwrap();
    let ready = peer.ready(id);
    assert!(ready.has(Ready::READABLE) && ready.has(Ready::FINISHED));
    assert_eq!(peer.read(id), pattern(0, 10));
    assert_eq!(peer.state(id), State::CloseWait);
}

#[test]
fn data_on_a_syn_comes_again() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 4);
    let bytes = peer.segment(SYN, 0, 0, b"early").bytes();
    peer.inject(&bytes);
    assert_eq!(peer.expect(SYN | ACK).ack, 1);
    peer.send(ACK, 1, 1, b"early");
    let id = peer.accept(listener).unwrap();
    assert_eq!(peer.read(id), b"early");
}

#[test]
fn what_is_written_before_the_handshake_ends_is_sent_after_it() {
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.expect(SYN);
    peer.write(id, 0, 2500);
    peer.expect_silence();
    // The peer takes smaller segments than the frames that were filled.
    peer.send_syn(SYN | ACK, Some(MSS), None);
    let mut at = 1;
    for _ in 0..4 {
        for segment in peer.take() {
            assert_eq!(segment.seq, at);
            assert_eq!(segment.payload, pattern(at as usize - 1, segment.payload.len()));
            assert!(segment.payload.len() <= 1000);
            at += segment.payload.len() as u32;
        }
        peer.send(ACK, 1, at, &[]);
    }
    assert_eq!(at, 2501);
}

#[test]
fn a_repeated_syn_gets_the_same_syn_ack() {
    let mut peer = Peer::new();
    peer.listen(80, 4);
    peer.send_syn(SYN, Some(MSS), None);
    let first = peer.expect(SYN | ACK);
    let iss = peer.flow.iss;
    peer.send_syn(SYN, Some(MSS), None);
    let second = peer.expect(SYN | ACK);
    assert_eq!(peer.flow.iss, iss);
    assert_eq!(first, second);
    assert_eq!(peer.stack.connections(), 1);
}

#[test]
fn a_repeated_syn_ack_is_acknowledged_again() {
    let mut peer = Peer::new();
    peer.connected();
    peer.send_syn(SYN | ACK, Some(MSS), None);
    peer.expect_ack(1);
}

#[test]
fn initial_sequence_numbers_differ_between_connections_and_follow_the_clock() {
    let mut peer = Peer::new();
    peer.listen(80, 8);
    let mut seen = Vec::new();
    for port in 6000..6004 {
        peer.flow.peer_port = port;
        peer.send_syn(SYN, None, None);
        peer.expect(SYN | ACK);
        seen.push(peer.flow.iss);
    }
    let near = |a: u32, b: u32| a.abs_diff(b) < 1 << 16;
    for (index, &a) in seen.iter().enumerate() {
        assert!(seen[index + 1..].iter().all(|&b| !near(a, b)), "{seen:?}");
    }
}

#[test]
fn what_was_written_before_the_peers_segment_size_was_known_leaves_in_full_segments() {
    let mut peer = Peer::new();
    let id = peer.connect();
    peer.write(id, 0, 3100);
    peer.expect(SYN);
    peer.send_syn(SYN | ACK, Some(MSS), None);
    for at in [1, 1001, 2001] {
        peer.expect_data(at, 1000);
    }
    peer.send(ACK, 1, 3001, &[]);
    peer.expect_data(3001, 100);
}
