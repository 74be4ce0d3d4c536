//! What is heard of marks, what is told of them, and what the window does then (RFC 9768 §3.2, RFC 8257).

use super::*;
use crate::common::net::Net;
use millrace_frames::{Duration, RxBatch};
use millrace_port::memory::{Impairment, WireConfig};
use millrace_wire::seq::Seq;

/// RFC 9768 §3.2.2.2.
#[test]
fn an_acknowledgement_that_was_superseded_tells_of_no_marks() {
    let (mut peer, id) = accurate();
    peer.write(id, 0, 10_000);
    peer.take();
    // One packet was marked, of which the newer acknowledgement tells.
    peer.say(says(6), ACK, 1, 2001, &[]);
    assert_eq!(peer.stack.tcp_info(id).unwrap().delivered_ce, 1);
    peer.say(says(5), ACK, 1, 2001, &[]);
    assert_eq!(peer.stack.tcp_info(id).unwrap().delivered_ce, 1);
    // What it does not tell of for that, the next one does.
    peer.say(says(7), ACK, 1, 3001, &[]);
    assert_eq!(peer.stack.tcp_info(id).unwrap().delivered_ce, 2);
}

/// RFC 9768 §3.2.2.1 has how a SYN-ACK came told in the place of a count. Who is not on the path does
/// not know the numbers, and must not have the peer take that for marks.
#[test]
fn a_syn_ack_that_is_not_the_peers_is_not_told_of() {
    let mut peer = with(Ecn::Accurate);
    connected(&mut peer, says(0b010));
    let mut at = 1;
    for (seq, ack) in [(1_000_000, 1), (0, 1_000_000), (0, 0), (u32::MAX, 1)] {
        peer.advance_ms(1000);
        peer.say(came(CE), SYN | ACK, seq, ack, &[]);
        peer.say(Says::default(), ACK, at, 1, &pattern(0, 1000));
        peer.say(Says::default(), ACK, at + 1000, 1, &pattern(0, 1000));
        at += 2000;
        let acks: Vec<_> = peer.take().iter().map(three).collect();
        assert_eq!(acks, [5, 5], "{seq} {ack}");
    }
    // The peer's own is.
    peer.advance_ms(1000);
    peer.say(came(ECT_0), SYN | ACK, 0, 1, &[]);
    assert_eq!(three(&peer.answer()), 0b100);
}

/// RFC 9768 §1.3: only what passes the tests of RFC 5961 as well is counted.
#[test]
fn a_mark_on_what_cannot_be_the_peers_is_none() {
    for accurately in [false, true] {
        let (mut peer, id) = if accurately { accurate() } else { classic() };
        for ack in [1_000_000, 0x8000_0000] {
            peer.say(came(CE), ACK, 1, ack, &pattern(0, 1000));
        }
        peer.take();
        peer.say(came(ECT_0), ACK, 1, 1, &pattern(0, 1000));
        peer.say(came(ECT_0), ACK, 1001, 1, &pattern(1000, 1000));
        assert_eq!(three(&peer.answer()), if accurately { 5 } else { 0 });
        assert_eq!(peer.stack.counters().ce_received, 0);
        assert_eq!(peer.stack.tcp_info(id).unwrap().received_ce, 0);
    }
}

/// RFC 9768 §3.2.2.1: how the SYN-ACK came stands in the place of a count, whatever else the segment
/// acknowledges.
#[test]
fn an_early_connection_hears_how_its_syn_ack_came() {
    for (acks, count, capable) in [(0b010, 5, true), (0b110, 6, false)] {
        let mut peer = Peer::with(|config| config.fast_open.server_without_cookie = true);
        let address = SocketAddr::new(STACK_IP.into(), 80);
        let options = ListenOptions { fast_open: 4, ..ListenOptions::new(8) };
        let listener = peer.stack.listen_with(address, options).unwrap();
        let mut syn = peer.segment(SYN, 0, 0, b"hello");
        syn.options.mss(MSS);
        let bytes = marked(syn, says(0b111)).bytes();
        peer.inject(&bytes);
        assert_eq!(three(&peer.answer()), 0b010);
        let id = peer.accept(listener).expect("a connection before its handshake");
        peer.write(id, 0, 20_000);
        peer.take();
        peer.say(says(acks), ACK, 6, 2001, &[]);
        let sent = peer.take();
        assert!(sent.iter().all(|data| (data.ecn == ECT_0) == capable), "{sent:?}");
        // And from then on it is one.
        peer.say(says(count), ACK, 6, 3001, &[]);
        assert_eq!(peer.stack.counters().congestion_reductions, 0, "{acks:03b}");
        assert_eq!(peer.stack.tcp_info(id).unwrap().delivered_ce, 0, "{acks:03b}");
        assert_eq!(peer.stack.counters().accurate_ecn_connections, 1);
        peer.stack.close_listener(listener);
    }
}

/// RFC 9768 §3.2: every packet counts, also where something on the way joined them.
#[test]
fn packets_that_came_as_one_are_many() {
    let (mut peer, id) = accurate();
    let payload = pattern(0, 10_000);
    let bytes = marked(peer.segment(ACK, 1, 1, &payload), came(CE)).bytes();
    let frame = peer.frame(&bytes);
    peer.stack.arena_mut().meta_mut(frame).gso_size = 1000;
    let mut batch = RxBatch::new();
    batch.push(frame).expect("room in an empty batch");
    peer.stack.receive(peer.now, &mut batch);
    assert_eq!(three(&peer.answer()), (5 + 10) & 7);
    let info = peer.stack.tcp_info(id).unwrap();
    assert_eq!((info.received_ce, info.received_ce_bytes), (10, 10_000));
    assert_eq!(peer.stack.counters().ce_received, 10);
}

/// RFC 8257 §3.5: marks bring the window down by little, and a loss by half, whichever comes first.
#[test]
fn a_loss_halves_the_window_of_dctcp_while_it_comes_down_for_marks() {
    let mut peer = Peer::with(|config| {
        config.congestion = Algorithm::Dctcp;
        config.tcp.pacing = false;
    });
    let listener = peer.listen(80, 16);
    let mut syn = peer.segment(SYN, 0, 0, &[]);
    syn.options.sack_permitted().mss(MSS);
    let bytes = marked(syn, says(0b111)).bytes();
    peer.inject(&bytes);
    peer.answer();
    peer.say(says(0b010), ACK, 1, 1, &[]);
    let id = peer.accept(listener).expect("a connection");
    // Many windows without a mark: there are few.
    let mut end = 1;
    for _ in 0..60 {
        peer.write(id, end as usize - 1, 10_000);
        peer.take();
        end += 10_000;
        peer.say(says(5), ACK, 1, end - 5000, &[]);
        peer.say(says(5), ACK, 1, end, &[]);
    }
    let before = peer.window(id);
    peer.write(id, end as usize - 1, 50_000);
    peer.take();
    peer.say(says(6), ACK, 1, end + 1000, &[]);
    let threshold = |peer: &Peer| peer.stack.info(id).unwrap().slow_start_threshold;
    assert!(threshold(&peer) > before / 10 * 9, "{} of {before}", threshold(&peer));
    let iss = Seq(peer.flow.iss);
    let mut lost = peer.segment(ACK, 1, end + 1000, &[]);
    lost.options.sack(&[(iss + end + 2000, iss + end + 6000)]);
    let bytes = marked(lost, says(6)).bytes();
    peer.inject(&bytes);
    assert_eq!(peer.stack.counters().fast_retransmits, 1);
    assert!(threshold(&peer) <= before / 2, "{} of {before}", threshold(&peer));
}

/// RFC 9768 §3.2.3.2.5: bytes that are marked in no packet end ECN, where it is certain that they are.
#[test]
fn eight_small_packets_with_marks_are_no_contradiction() {
    let (mut peer, id) = accurate();
    peer.stack.set_no_delay(id, true).unwrap();
    for at in 0..8 {
        peer.write(id, at * 100, 100);
    }
    assert_eq!(peer.take().len(), 8);
    let option = Some(AccurateEcn { e0b: Some(1), ceb: Some(800), e1b: None });
    peer.say(Says { three: 5, ip: NOT_ECT, option }, ACK, 1, 801, &[]);
    assert_eq!(peer.stack.tcp_info(id).unwrap().delivered_ce, 8);
    assert_eq!(peer.stack.counters().ecn_mangled, 0);
    peer.write(id, 800, 100);
    assert_eq!(peer.answer().ecn, ECT_0);
}

/// A mark halves the window, however little of it was in use.
#[test]
fn a_mark_leaves_half_of_a_window_that_was_not_used() {
    let (mut peer, id) = classic();
    peer.stack.set_no_delay(id, true).unwrap();
    for at in 0..4 {
        peer.write(id, at * 100, 100);
    }
    assert_eq!(peer.take().len(), 4);
    peer.say(says(0b001), ACK, 1, 101, &[]);
    peer.say(says(0), ACK, 1, 401, &[]);
    assert_eq!((peer.window(id), peer.stack.counters().congestion_reductions), (5000, 1));
}

/// Data that overtakes other data leaves the timestamp to compare with where it was; what it tells of
/// marks is heard all the same, and what it overtook tells less.
#[test]
fn data_that_was_overtaken_tells_of_no_marks() {
    let mut peer = with(Ecn::Passive);
    peer.timestamp = Some(100);
    let listener = peer.listen(80, 16);
    let mut syn = peer.segment(SYN, 0, 0, &[]);
    syn.options.sack_permitted().mss(MSS);
    let bytes = marked(syn, says(0b111)).bytes();
    peer.inject(&bytes);
    peer.answer();
    peer.say(says(0b010), ACK, 1, 1, &[]);
    let id = peer.accept(listener).expect("a connection");
    peer.write(id, 0, 8 * 988);
    peer.take();
    let end = |segments: u32| 1 + segments * 988;
    let told = |peer: &mut Peer, timestamp, ace, seq, ack, block: (u32, u32)| {
        let (payload, iss) = (pattern(seq as usize - 1, 100), Seq(peer.flow.iss));
        peer.timestamp = Some(timestamp);
        let mut segment = peer.segment(ACK, seq, ack, &payload);
        if block.0 < block.1 {
            segment.options.sack(&[(iss + block.0, iss + block.1)]);
        }
        let bytes = marked(segment, says(ace)).bytes();
        peer.inject(&bytes);
        peer.take();
        peer.stack.tcp_info(id).unwrap().delivered_ce
    };
    assert_eq!(told(&mut peer, 120, 6, 101, end(2), (0, 0)), 1);
    assert_eq!(told(&mut peer, 110, 5, 1, end(0), (end(1), end(2))), 1, "a gap that is filled");
    assert_eq!(told(&mut peer, 140, 7, 301, end(2), (end(3), end(4))), 2);
    assert_eq!(told(&mut peer, 130, 6, 201, end(2), (0, 0)), 2, "before there was a gap");
    assert_eq!(told(&mut peer, 150, 0, 401, end(4), (0, 0)), 3);
    assert_eq!(peer.stack.counters().congestion_reductions, 1);
}

/// Over a path that marks, loses and reorders, with data both ways, what the peers tell each other is
/// what they got.
#[test]
fn marks_are_told_of_exactly() {
    for (gso, seed) in [(0, 7), (65_160, 8)] {
        let path = Impairment {
            loss: 0.01,
            reorder: 0.05,
            reorder_delay: Duration::from_millis(3),
            delay: Duration::from_millis(10),
            rate_bits_per_s: Some(20_000_000),
            mark_bytes: Some(10_000),
            ..Impairment::default()
        };
        let wire = WireConfig { gso, impairment: [path; 2], seed, ..WireConfig::default() };
        let mut net = Net::new(wire, 8192, |_, config| {
            config.congestion = Algorithm::Bbr;
            config.ecn = Ecn::Accurate;
        });
        let (client, server) = net.pair(80);
        let ends = [client, server];
        let mut left = [1_500_000; 2];
        net.run(
            Duration::from_secs(60),
            |net| {
                let mut busy = false;
                for (host, id) in ends.into_iter().enumerate() {
                    let len = left[host].min(50_000);
                    let written = net.hosts[host].stack.write(id, &pattern(0, len)).unwrap();
                    left[host] -= written;
                    busy |= written > 0 || !net.hosts[host].read(id).is_empty();
                }
                busy
            },
            |_| false,
        );
        let info = |host: usize| net.hosts[host].stack.tcp_info(ends[host]).unwrap();
        for (sender, receiver) in [(info(0), info(1)), (info(1), info(0))] {
            assert_eq!(receiver.bytes_received, 1_500_000);
            assert!(receiver.received_ce > 10, "{}", receiver.received_ce);
            assert_eq!(sender.delivered_ce, receiver.received_ce);
            assert_eq!(sender.delivered_ce_bytes, receiver.received_ce_bytes);
        }
    }
}
