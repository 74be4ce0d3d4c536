//! SYN cookies (RFC 4987 §3.6): what they keep, when they are sent, and which are believed.

use core::net::Ipv4Addr;
use core::time::Duration;
use millrace_frames::BURST;
use millrace_wire::tcp::OptionWriter;

use crate::common::craft::PEER_IP;
use crate::common::peer::{ACK, FIN, MSS, Peer, RST, SYN, pattern};
use millrace_stack::{
    AcceptOverflow, ConnectionInfo, ListenOptions, SocketOption, State, SynCookies,
};

fn always() -> Peer {
    Peer::with(|config| config.syn_cookies = SynCookies::Always)
}

/// What a peer's SYN may have.
#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    mss: Option<u16>,
    scale: Option<u8>,
    sack: bool,
    timestamp: Option<u32>,
}

fn send_syn(peer: &mut Peer, offer: Offer) {
    let mut segment = peer.segment(SYN, 0, 0, &[]);
    segment.options = OptionWriter::new();
    if let Some(mss) = offer.mss {
        segment.options.mss(mss);
    }
    if offer.sack {
        segment.options.sack_permitted();
    }
    if let Some(value) = offer.timestamp {
        segment.options.timestamps(value, 0);
    }
    if let Some(scale) = offer.scale {
        segment.options.window_scale(scale);
    }
    peer.timestamp = offer.timestamp;
    peer.inject(&segment.bytes());
}

/// A connection from a cookie, its first segment from the stack, and what it looks like.
fn through(offer: Offer, cookies: SynCookies) -> (Peer, ConnectionInfo, bool) {
    let mut peer = Peer::with(|config| {
        config.syn_cookies = cookies;
        config.receive_buffer = 1 << 20;
    });
    let listener = peer.listen(80, 4);
    send_syn(&mut peer, offer);
    assert_eq!(peer.stack.connections(), usize::from(cookies == SynCookies::Off));
    let answer = peer.expect(SYN | ACK);
    let sack = answer.options.sack_permitted;
    assert_eq!(answer.window_scale.is_some(), answer.options.window_scale.is_some());
    peer.advance_ms(30);
    peer.window = 1000;
    peer.send(ACK, 1, 1, &[]);
    let id = peer.accept(listener).expect("a connection");
    let info = peer.stack.info(id).unwrap();
    assert_eq!(info.state, State::Established);
    (peer, info, sack)
}

#[test]
fn with_timestamps_a_connection_lacks_nothing() {
    let offer = Offer { mss: Some(1460), scale: Some(9), sack: true, timestamp: Some(77) };
    let (_, plain, _) = through(offer, SynCookies::Off);
    let (mut peer, cookie, sack) = through(offer, SynCookies::Always);
    assert!(sack);
    assert_eq!(cookie.send_window, 1000 << 9);
    assert_eq!((cookie.send_window, cookie.mss), (plain.send_window, plain.mss));
    assert_eq!(cookie.receive_window, plain.receive_window);
    // SACK and timestamps work.
    peer.timestamp = Some(78);
    peer.send(ACK, 1001, 1, &pattern(1000, 100));
    let ack = peer.expect_ack(1);
    assert_eq!(peer.blocks(&ack), [(1001, 1101)]);
    assert_eq!(ack.options.timestamps.unwrap().1, 77);
    assert_eq!(peer.stack.counters().syn_cookies_accepted, 1);
    assert_eq!(peer.stack.counters().connections_accepted, 1);
}

#[test]
fn every_combination_comes_back() {
    for scale in [None, Some(0), Some(7), Some(14)] {
        for sack in [false, true] {
            for timestamp in [None, Some(5)] {
                let offer = Offer { mss: Some(1300), scale, sack, timestamp };
                let (_, info, agreed) = through(offer, SynCookies::Always);
                let shift = scale.filter(|_| timestamp.is_some()).unwrap_or(0);
                assert_eq!(info.send_window, 1000 << shift, "{offer:?}");
                assert_eq!(agreed, sack && timestamp.is_some(), "{offer:?}");
            }
        }
    }
}

#[test]
fn the_segment_size_is_the_next_smaller_one() {
    let cases = [(None, 536), (Some(40), 88), (Some(88), 88), (Some(535), 88), (Some(536), 536)];
    let more = [(Some(1400), 1360), (Some(1460), 1460), (Some(9000), 1460), (Some(1459), 1440)];
    for (mss, expected) in cases.into_iter().chain(more) {
        let (_, info, _) = through(Offer { mss, ..Offer::default() }, SynCookies::Always);
        assert_eq!(info.mss, expected, "{mss:?}");
    }
}

#[test]
fn the_clock_does_not_go_back() {
    for step in 0..70 {
        let mut peer = always();
        peer.listen(80, 4);
        peer.advance_ms(step);
        let offer = Offer { scale: Some(14), sack: true, timestamp: Some(1), mss: None };
        send_syn(&mut peer, offer);
        let first = peer.expect(SYN | ACK).options.timestamps.unwrap().0;
        peer.send(ACK, 1, 1, &pattern(0, 3000));
        let second = peer.expect_ack(3001).options.timestamps.unwrap().0;
        let difference = second.wrapping_sub(first) as i32;
        assert!((0..64).contains(&difference), "{difference}");
    }
}

#[test]
fn the_first_acknowledgement_may_have_data_and_a_fin() {
    let mut peer = always();
    let listener = peer.listen(80, 4);
    send_syn(&mut peer, Offer::default());
    peer.expect(SYN | ACK);
    peer.send(FIN | ACK, 1, 1, &pattern(0, 100));
    peer.expect_ack(102);
    let id = peer.accept(listener).unwrap();
    assert_eq!(peer.read(id), pattern(0, 100));
    assert_eq!(peer.state(id), State::CloseWait);
    peer.write(id, 0, 100);
    peer.expect_data(1, 100);
}

#[test]
fn a_full_queue_switches_them_on_and_room_off_again() {
    let mut peer = Peer::with(|config| config.syn_queue = 2);
    let listener = peer.listen(80, 8);
    let info = |peer: &Peer| peer.stack.listener_info(listener).unwrap();
    for port in 6000..6005 {
        peer.flow.peer_port = port;
        peer.send_syn(SYN, None, None);
        peer.expect(SYN | ACK);
    }
    assert_eq!(peer.stack.counters().syn_cookies_sent, 3);
    assert_eq!((info(&peer).half_open, info(&peer).cookies), (2, true));
    // The last one's number is known; it is let in.
    peer.send(ACK, 1, 1, &[]);
    assert_eq!(peer.stack.counters().syn_cookies_accepted, 1);
    peer.accept(listener).unwrap();
    // Those that waited go, and entries are given again.
    peer.advance(Duration::from_secs(100));
    peer.take();
    assert_eq!(info(&peer).half_open, 0);
    peer.flow.peer_port = 6100;
    peer.send_syn(SYN, None, None);
    peer.expect(SYN | ACK);
    assert_eq!(peer.stack.counters().syn_cookies_sent, 3);
    assert_eq!(info(&peer).half_open, 1);
    peer.advance(Duration::from_secs(130));
    peer.take();
    assert!(!info(&peer).cookies);
}

#[test]
fn without_any_sent_lately_none_is_believed() {
    for (wait, taken) in [(0, true), (60, true), (128, false), (200, false)] {
        let mut peer = always();
        let listener = peer.listen(80, 4);
        send_syn(&mut peer, Offer::default());
        peer.expect(SYN | ACK);
        peer.advance(Duration::from_secs(wait));
        peer.send(ACK, 1, 1, &[]);
        assert_eq!(peer.accept(listener).is_some(), taken, "{wait} s");
        if !taken {
            peer.expect(RST);
        }
    }
}

#[test]
fn an_old_one_is_not_believed_though_others_are() {
    let mut peer = always();
    let listener = peer.listen(80, 4);
    send_syn(&mut peer, Offer::default());
    peer.expect(SYN | ACK);
    let old = peer.flow;
    peer.advance(Duration::from_secs(129));
    peer.flow.peer_port += 1;
    send_syn(&mut peer, Offer::default());
    peer.expect(SYN | ACK);
    peer.send(ACK, 1, 1, &[]);
    assert!(peer.accept(listener).is_some());
    peer.flow = old;
    peer.send(ACK, 1, 1, &[]);
    peer.expect(RST);
    assert_eq!(peer.stack.counters().syn_cookies_wrong, 1);
    assert_eq!(peer.stack.connections(), 1);
}

#[test]
fn what_differs_in_anything_is_wrong() {
    let mut peer = always();
    peer.listen(80, 4);
    send_syn(&mut peer, Offer::default());
    peer.expect(SYN | ACK);
    let right = peer.flow;
    for bit in 0..32 {
        peer.flow = right;
        peer.send(ACK, 1, 1 ^ 1 << bit, &[]);
        peer.send(ACK, 1 ^ 1 << bit, 1, &[]);
    }
    peer.flow.peer_port += 1;
    peer.send(ACK, 1, 1, &[]);
    peer.take();
    assert_eq!(peer.stack.counters().syn_cookies_wrong, 65);
    assert_eq!(peer.stack.connections(), 0);
    peer.flow = right;
    peer.send(ACK, 1, 1, &[]);
    assert_eq!(peer.stack.connections(), 1);
}

#[test]
fn a_full_accept_queue_takes_no_cookie() {
    for (overflow, flags) in [(AcceptOverflow::Drop, None), (AcceptOverflow::Reset, Some(RST))] {
        let mut peer = Peer::with(|config| {
            config.syn_cookies = SynCookies::Always;
            config.accept_overflow = overflow;
        });
        let listener = peer.listen(80, 1);
        send_syn(&mut peer, Offer::default());
        peer.expect(SYN | ACK);
        let first = peer.flow;
        peer.flow.peer_port += 1;
        send_syn(&mut peer, Offer::default());
        peer.expect(SYN | ACK);
        peer.send(ACK, 1, 1, &[]);
        let second = core::mem::replace(&mut peer.flow, first);
        peer.send(ACK, 1, 1, b"too many");
        match flags {
            Some(flags) => assert_eq!(peer.expect(flags).seq, 1),
            None => peer.expect_silence(),
        }
        assert_eq!(peer.stack.counters().drop_listen_accept_queue_full, 1);
        peer.flow = second;
        peer.accept(listener).unwrap();
        // There is room again: the data that comes again opens the connection.
        peer.flow = first;
        peer.send(ACK, 1, 1, b"too many");
        let id = peer.accept(listener).unwrap();
        assert_eq!(peer.read(id), b"too many");
    }
}

#[test]
fn a_flood_leaves_nothing_behind() {
    let mut peer = Peer::with(|config| config.connections = 16);
    let listener = peer.listen(80, 100);
    for port in 1..3000 {
        peer.flow.peer_port = port;
        send_syn(&mut peer, Offer::default());
        assert_eq!(peer.take().len(), 1);
    }
    // Half of the table, and cookies for the rest.
    assert_eq!(peer.stack.connections(), 8);
    assert_eq!(peer.stack.counters().syn_cookies_sent, 2999 - 8);
    // Who is real is let in.
    peer.send(ACK, 1, 1, &[]);
    assert!(peer.accept(listener).is_some());
    assert_eq!(peer.stack.counters().dropped(), 0);
}

#[test]
fn switched_off_a_cookie_is_an_acknowledgement_of_nothing() {
    let mut peer = Peer::with(|config| config.syn_cookies = SynCookies::Off);
    peer.stack.listen_with("192.0.2.1:81".parse().unwrap(), ListenOptions::new(1)).unwrap();
    peer.flow.stack_port = 81;
    peer.send(ACK, 1, 1, &[]);
    peer.expect(RST);
    assert_eq!(peer.stack.counters().syn_cookies_wrong, 0);
}

#[test]
fn a_retransmitted_syn_gets_the_same_number() {
    let mut peer = always();
    peer.listen(80, 4);
    send_syn(&mut peer, Offer::default());
    peer.expect(SYN | ACK);
    let first = peer.flow.iss;
    send_syn(&mut peer, Offer::default());
    peer.expect(SYN | ACK);
    assert_eq!(peer.flow.iss, first);
    peer.flow.isn += 1;
    send_syn(&mut peer, Offer::default());
    peer.expect(SYN | ACK);
    assert_ne!(peer.flow.iss, first);
}

/// A SYN from another address, and another port than the peer's.
fn stranger(peer: &Peer, number: usize) -> Vec<u8> {
    let mut segment = peer.segment(SYN, 0, 0, &[]);
    segment.source = (Ipv4Addr::new(192, 0, 2, number as u8 + 50), 1);
    segment.bytes()
}

/// So many SYNs from addresses that nobody knows, in one batch. Gives how many were answered.
fn flood(peer: &mut Peer, syns: usize) -> usize {
    let batch: Vec<_> = (0..syns).map(|number| stranger(peer, number)).collect();
    peer.inject_batch(&batch);
    peer.take().iter().filter(|segment| segment.flags == SYN | ACK).count()
}

/// As many as a batch holds, and the last of them from the peer. Whether it was answered.
fn among_a_flood(peer: &mut Peer) -> bool {
    let mut batch: Vec<_> = (1..BURST).map(|number| stranger(peer, number)).collect();
    batch.push(peer.segment(SYN, 0, 0, &[]).bytes());
    peer.inject_batch(&batch);
    peer.take().iter().any(|segment| segment.destination.0 == PEER_IP)
}

#[test]
fn a_flood_that_the_stack_cannot_answer_leaves_it_to_those_it_knows() {
    let mut peer = always();
    peer.accepted();
    peer.flow.peer_port += 1;
    assert_eq!(flood(&mut peer, BURST), BURST, "a burst is no flood");
    peer.advance_ms(1);
    // More and more has come since.
    let answered: usize = (0..16).map(|_| flood(&mut peer, BURST)).sum();
    assert!((32..128).contains(&answered), "{answered}, not one in sixteen");
    assert_eq!(peer.stack.counters().drop_listen_behind, (16 * BURST - answered) as u64);
    for _ in 0..16 {
        assert!(among_a_flood(&mut peer));
    }
    // Once nothing waits any more, everybody is answered.
    let before = peer.stack.counters().drop_listen_behind;
    peer.advance_ms(1);
    assert_eq!(flood(&mut peer, BURST - 1), BURST - 1);
    peer.advance_ms(1000);
    assert_eq!(flood(&mut peer, BURST), BURST);
    assert_eq!(peer.stack.counters().drop_listen_behind, before);
}

#[test]
fn a_flood_shuts_nobody_out_and_who_came_in_is_known() {
    let mut peer = always();
    let listener = peer.listen(80, 4);
    flood(&mut peer, BURST);
    peer.advance_ms(1);
    // The SYN comes again and again, and the flood goes on in between.
    let mut tries = 1;
    while !among_a_flood(&mut peer) {
        tries += 1;
        assert!(tries < 100, "shut out");
        peer.advance_ms(1000);
    }
    assert!(tries > 1, "it was no flood");
    let batch = [vec![peer.segment(ACK, 1, 1, &[]).bytes()], vec![vec![0; 60]; BURST - 1]].concat();
    peer.inject_batch(&batch);
    assert!(peer.accept(listener).is_some());
    peer.flow.peer_port += 1;
    for _ in 0..16 {
        assert!(among_a_flood(&mut peer));
    }
}

#[test]
fn patience_can_be_without_end() {
    let mut peer = Peer::with(|config| {
        config.syn_cookies = SynCookies::Always;
        config.syn_patience = Duration::MAX;
    });
    peer.listen(80, 4);
    for _ in 0..10 {
        assert_eq!(flood(&mut peer, BURST), BURST);
        peer.advance_ms(10_000);
    }
    assert_eq!(peer.stack.counters().drop_listen_behind, 0);
}

#[test]
fn the_first_round_trip_is_not_the_time_that_the_stack_is_up() {
    for timestamp in [None, Some(5000)] {
        // With timestamps it is known but for the bits that the cookie has of them.
        // Seventeen minutes, and three hours later: the clock's microseconds do not fit 32 bits then.
        for (up_s, waited) in [(0, 1), (0, 30), (0, 250), (10_800, 30)] {
            let mut peer = always();
            peer.advance(Duration::from_secs(up_s));
            let listener = peer.listen(80, 4);
            send_syn(&mut peer, Offer { mss: Some(1460), timestamp, ..Offer::default() });
            peer.expect(SYN | ACK);
            peer.advance_ms(waited);
            peer.send(ACK, 1, 1, &[]);
            let id = peer.accept(listener).unwrap();
            let round_trip = peer.stack.info(id).unwrap().round_trip;
            let true_one = Duration::from_millis(waited);
            let known = true_one..true_one + Duration::from_millis(66);
            assert!(timestamp.is_none() || known.contains(&round_trip), "{round_trip:?}");
            assert!(timestamp.is_some() || round_trip.is_zero(), "{round_trip:?}");
            peer.write(id, 0, 100);
            peer.take();
            let timeout = peer.wait();
            let most = if timestamp.is_some() { 1000 } else { 3010 };
            assert!(
                timeout <= Duration::from_millis(most),
                "{timeout:?} after {waited} ms, {up_s} s up"
            );
        }
    }
}

#[test]
fn an_acknowledgement_that_came_late_shows_no_round_trip() {
    let mut peer = always();
    let listener = peer.listen(80, 4);
    send_syn(&mut peer, Offer { timestamp: Some(5000), ..Offer::default() });
    peer.expect(SYN | ACK);
    // The bare acknowledgement was lost, and the client had nothing to say for a while.
    peer.advance_ms(20_000);
    peer.send(ACK, 1, 1, &pattern(0, 100));
    let id = peer.accept(listener).unwrap();
    assert_eq!(peer.stack.info(id).unwrap().round_trip, Duration::ZERO);
    peer.take();
    peer.write(id, 0, 100);
    peer.take();
    assert!(peer.wait() <= Duration::from_millis(3010));
}

#[test]
fn they_announce_what_the_listener_has_set() {
    let announced = |cookies| {
        let mut peer = Peer::with(|config| config.syn_cookies = cookies);
        let listener = peer.listen(80, 4);
        for option in [SocketOption::MaxSegment(500), SocketOption::ReceiveBuffer(8000)] {
            peer.stack.set_listener_option(listener, option).unwrap();
        }
        peer.send_syn(SYN, Some(MSS), None);
        let answer = peer.expect(SYN | ACK);
        (answer.options.mss, answer.window)
    };
    assert_eq!(announced(SynCookies::Always), (Some(500), 8000));
    assert_eq!(announced(SynCookies::Off), (Some(500), 8000));
}

#[test]
fn they_travel_as_the_listener_has_set() {
    let fields = |cookies| {
        let mut peer = Peer::with(|config| config.syn_cookies = cookies);
        let listener = peer.listen(80, 4);
        for option in [SocketOption::TypeOfService(0x48), SocketOption::TimeToLive(255)] {
            peer.stack.set_listener_option(listener, option).unwrap();
        }
        peer.send_syn(SYN, Some(MSS), None);
        peer.expect(SYN | ACK).fields
    };
    assert_eq!(fields(SynCookies::Always), (0x48, 255));
    assert_eq!(fields(SynCookies::Off), (0x48, 255));
}
