//! TCP_INFO.

use core::time::Duration;

use millrace_stack::{OptionName, SocketOption, TcpInfo};

use crate::common::peer::{ACK, FIN, Peer, RST, SYN, pattern};

fn info(peer: &Peer, id: millrace_stack::ConnectionId) -> TcpInfo {
    peer.stack.tcp_info(id).unwrap()
}

#[test]
fn counts_segments_and_bytes_both_ways() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    let before = info(&peer, id);
    assert_eq!((before.state, before.bytes_acked, before.bytes_received), (1, 0, 0));
    peer.write(id, 0, 3000);
    peer.take();
    let sent = info(&peer, id);
    assert_eq!((sent.unacked, sent.bytes_sent, sent.data_segs_out), (3, 3000, 3));
    assert_eq!(sent.segs_out - before.segs_out, 3);
    peer.send(ACK, 1, 3001, &pattern(0, 700));
    peer.read(id);
    let after = info(&peer, id);
    assert_eq!((after.unacked, after.bytes_acked, after.bytes_received), (0, 3000, 700));
    assert_eq!((after.data_segs_in, after.segs_in - before.segs_in), (1, 1));
    assert_eq!(after.delivered - before.delivered, 3);
    assert_eq!((after.snd_mss, after.notsent_bytes), (1000, 0));
}

#[test]
fn a_super_segment_counts_as_what_it_is_cut_into() {
    let mut peer = Peer::with(|config| {
        config.tx_gso = 65_535;
        config.tx_checksum = true;
    });
    let id = peer.accepted();
    peer.write(id, 0, 9600);
    peer.take();
    let sent = info(&peer, id);
    assert!((10..=11).contains(&sent.data_segs_out), "{}", sent.data_segs_out);
    assert_eq!((sent.unacked, sent.bytes_sent), (10, 9600));
}

#[test]
fn tells_windows_and_what_waits() {
    let mut peer = Peer::new();
    peer.window = 5000;
    let id = peer.accepted();
    peer.write(id, 0, 8000);
    peer.take();
    let info = info(&peer, id);
    assert_eq!((info.snd_wnd, info.notsent_bytes, info.unacked), (5000, 3000, 5));
    assert_eq!(info.snd_cwnd, 10);
    assert_eq!(info.snd_ssthresh, i32::MAX as u32);
    assert_eq!(info.rcv_wnd, 65_535);
}

#[test]
fn tells_how_long_ago() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.send(ACK, 1, 1, b"x");
    peer.write(id, 0, 10);
    peer.advance_ms(70);
    peer.send(ACK, 2, 11, &[]);
    peer.advance_ms(30);
    let info = info(&peer, id);
    assert!((99..=101).contains(&info.last_data_recv), "{}", info.last_data_recv);
    assert!((99..=101).contains(&info.last_data_sent), "{}", info.last_data_sent);
    assert!((29..=31).contains(&info.last_ack_recv), "{}", info.last_ack_recv);
    assert!(info.rtt > 8000 && info.rtt < 71_000, "{}", info.rtt);
    peer.read(id);
}

#[test]
fn times_since_something_are_right_after_hours_and_days() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack_over(20);
    peer.write(id, 0, 1000);
    peer.take();
    let start = peer.now;
    peer.send(ACK, 1, 1001, &pattern(0, 100));
    for hours in [1, 2, 39, 41, 77, 80, 400] {
        peer.advance(Duration::from_secs(hours * 3600) - (peer.now - start));
        let info = info(&peer, id);
        for since in [info.last_data_sent, info.last_data_recv, info.last_ack_recv] {
            assert_eq!(u64::from(since), hours * 3_600_000);
        }
    }
    peer.read(id);
}

#[test]
fn time_under_a_limit_is_counted_beyond_days() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack_over(20);
    peer.window = 0;
    peer.send(ACK, 1, 1, &[]);
    peer.write(id, 0, 1000);
    let start = peer.now;
    while peer.now - start < Duration::from_secs(80 * 3600) {
        peer.advance_ms(100_000);
        if !peer.take().is_empty() {
            peer.send(ACK, 1, 1, &[]);
        }
    }
    let (info, hours) = (info(&peer, id), 3_600_000_000);
    assert!(info.busy_time > 79 * hours, "{}", info.busy_time);
    assert!(info.rwnd_limited > 79 * hours, "{}", info.rwnd_limited);
}

#[test]
fn times_stand_still_when_the_connection_is_over() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack_over(20);
    peer.window = 0;
    peer.send(ACK, 1, 1, &[]);
    peer.write(id, 0, 1000);
    peer.advance_ms(3000);
    peer.take();
    peer.send(RST, 1, 0, &[]);
    let seconds = |micros: u64| (2_999_000..=3_001_000).contains(&micros);
    for _ in 0..2 {
        let info = info(&peer, id);
        assert!(seconds(info.busy_time), "{}", info.busy_time);
        assert!(seconds(info.rwnd_limited), "{}", info.rwnd_limited);
        peer.advance_ms(60_000);
    }
}

#[test]
fn totals_go_on_where_sequence_numbers_begin_anew() {
    let mut peer = Peer::with(|config| config.receive_buffer = 1 << 20);
    let id = peer.accepted_with(Some(1000), Some(0));
    // Not four gigabytes, but past the end of the 32 bits: with a window of a megabyte, what is
    // outside of it would be refused, so that this is the honest way.
    let mut at = 1u32;
    for _ in 0..200 {
        peer.send(ACK, at, 1, &pattern(at as usize - 1, 1000));
        at += 1000;
        peer.read(id);
    }
    peer.take();
    assert_eq!(info(&peer, id).bytes_received, 200_000);
    peer.send(FIN | ACK, at, 1, &[]);
    peer.take();
    let last = info(&peer, id);
    assert_eq!((last.bytes_received, last.state), (200_001, 8), "a FIN counts, as in Linux");
}

#[test]
fn every_name_is_linux_s() {
    let names: Vec<&str> = TcpInfo::default().iter().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| name.starts_with("tcpi_")));
    assert!(names.len() > 50, "{}", names.len());
}

#[test]
fn options_are_told_as_they_were_set() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    for (name, value) in [
        ("TCP_NODELAY", 1),
        ("TCP_CORK", 1),
        ("SO_KEEPALIVE", 1),
        ("TCP_KEEPIDLE", 33),
        ("TCP_KEEPINTVL", 12),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", 12_345),
        ("SO_LINGER", 7),
        ("TCP_NOTSENT_LOWAT", 4096),
        ("TCP_LINGER2", -1),
        ("TCP_SYNCNT", 3),
        ("IP_TTL", 7),
        ("IP_TOS", 0x28),
        ("IP_MTU_DISCOVER", 3),
        ("SO_SNDBUF", 40_000),
        ("SO_RCVBUF", 50_000),
    ] {
        let name: OptionName = name.parse().unwrap();
        let option = SocketOption::from_number(name, value).unwrap();
        peer.stack.set_option(id, option).unwrap();
        assert_eq!(peer.stack.option(id, name).unwrap().number(), Some(value), "{name:?}");
    }
    peer.stack.set_option(id, SocketOption::Linger(None)).unwrap();
    peer.stack.check_invariants();
}

#[test]
fn values_out_of_bounds_are_refused_by_name() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    for (name, value) in
        [("TCP_KEEPIDLE", 0), ("TCP_KEEPCNT", 128), ("IP_TTL", 0), ("TCP_USER_TIMEOUT", -1)]
    {
        let error = SocketOption::from_number(name.parse().unwrap(), value).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let error = peer.stack.set_option(id, SocketOption::MaxSegment(20)).unwrap_err();
    assert!(error.to_string().contains("TCP_MAXSEG"), "{error}");
    assert!("TCP_NONSENSE".parse::<OptionName>().is_err());
}

#[test]
fn a_listener_tells_the_buffers_that_its_connections_begin_with() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 4);
    for set in [
        &[][..],
        &[SocketOption::WindowClamp(30_000)],
        &[SocketOption::SendBuffer(40_000), SocketOption::ReceiveBuffer(20_000)],
        &[SocketOption::SendBuffer(0), SocketOption::ReceiveBuffer(0)],
    ] {
        for &option in set {
            peer.stack.set_listener_option(listener, option).unwrap();
        }
        let id = peer.accepted();
        for name in [OptionName::SendBuffer, OptionName::ReceiveBuffer] {
            let told = peer.stack.listener_option(listener, name).unwrap();
            assert_eq!(told, peer.stack.option(id, name).unwrap(), "with {set:?}");
            assert_ne!(told.number(), Some(0), "with {set:?}");
        }
        peer.flow.peer_port += 1;
    }
}

#[test]
fn a_listener_s_options_are_inherited() {
    let mut peer = Peer::new();
    let listener = peer.listen(80, 4);
    for option in
        [SocketOption::NoDelay(true), SocketOption::KeepCount(3), SocketOption::TimeToLive(9)]
    {
        peer.stack.set_listener_option(listener, option).unwrap();
        assert_eq!(peer.stack.listener_option(listener, option.name()).unwrap(), option);
    }
    let id = peer.accepted();
    for option in
        [SocketOption::NoDelay(true), SocketOption::KeepCount(3), SocketOption::TimeToLive(9)]
    {
        assert_eq!(peer.stack.option(id, option.name()).unwrap(), option);
    }
}

#[test]
fn tells_what_was_sent_again_and_what_came_out_of_order() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.write(id, 0, 1000);
    peer.take();
    peer.wait();
    let lost = info(&peer, id);
    assert_eq!((lost.total_retrans, lost.bytes_retrans, lost.bytes_sent), (1, 1000, 2000));
    assert_eq!((lost.retransmits, lost.backoff, lost.ca_state), (1, 1, 4));
    assert_eq!((lost.total_rto, lost.total_rto_recoveries), (1, 1));
    peer.advance_ms(100);
    peer.send(ACK, 501, 1001, &pattern(500, 500));
    peer.take();
    let after = info(&peer, id);
    assert_eq!((after.rcv_ooopack, after.total_retrans, after.retransmits), (1, 1, 0));
    assert!((99..=102).contains(&after.total_rto_time), "{}", after.total_rto_time);
}

#[test]
fn the_variation_is_the_mean_deviation_and_not_the_timeout_s() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack_over(10);
    let mut at = 0;
    for _ in 0..40 {
        peer.write(id, at, 1000);
        peer.take();
        peer.advance_ms(10);
        at += 1000;
        peer.send(ACK, 1, at as u32 + 1, &[]);
    }
    let info = info(&peer, id);
    assert!(info.rtt.abs_diff(10_000) < 500, "{}", info.rtt);
    assert!(info.rttvar < 500, "{}", info.rttvar);
    assert!(info.rto >= 200_000, "{}", info.rto);
}

#[test]
fn what_is_selectively_acknowledged_is_delivered() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted_sack_over(50);
    let before = info(&peer, id).delivered;
    peer.write(id, 0, 10_000);
    peer.take();
    peer.advance_ms(50);
    peer.send_sack(1, 1, &[(1001, 3001)]);
    assert_eq!(info(&peer, id).delivered - before, 2);
    peer.send(ACK, 1, 3001, &[]);
    assert_eq!(info(&peer, id).delivered - before, 3);
}

#[test]
fn type_of_service_and_time_to_live_are_in_the_packets() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    peer.stack.set_option(id, SocketOption::NoDelay(true)).unwrap();
    peer.write(id, 0, 1);
    assert_eq!(peer.expect_data(1, 1).fields, (0, 64));
    peer.stack.set_option(id, SocketOption::TypeOfService(0x2b)).unwrap();
    peer.stack.set_option(id, SocketOption::TimeToLive(7)).unwrap();
    peer.write(id, 1, 1);
    assert_eq!(peer.expect_data(2, 1).fields, (0x28, 7), "without ECN's two bits");
    // A peer that believes only neighbours (RFC 5082) has to believe the reset too.
    peer.stack.abort(id);
    peer.collect();
    assert_eq!(peer.expect(RST | ACK).fields, (0x28, 7));
}

#[test]
fn who_keeps_writes_back_says_so_and_it_counts_as_the_buffer() {
    let mut peer = Peer::with(|config| config.tcp.pacing = false);
    let id = peer.accepted_sack_over(10);
    peer.stack.set_withheld(id, true).unwrap();
    peer.write(id, 0, 3000);
    assert_eq!(peer.take().len(), 3);
    peer.advance_ms(10);
    let limited = info(&peer, id).sndbuf_limited;
    assert!((9_000..=11_000).contains(&limited), "{limited}");
    peer.stack.set_withheld(id, false).unwrap();
    peer.advance_ms(10);
    assert_eq!(info(&peer, id).sndbuf_limited, limited);
    // With nothing under way the network is not waited for.
    peer.send(ACK, 1, 3001, &[]);
    peer.stack.set_withheld(id, true).unwrap();
    peer.advance_ms(10);
    assert_eq!(info(&peer, id).sndbuf_limited, limited);
    peer.stack.set_withheld(id, false).unwrap();
    peer.stack.check_invariants();
}

#[test]
fn a_lone_segment_counts_so_too() {
    let mut peer = Peer::new();
    let id = peer.accepted_sack_over(10);
    peer.stack.set_withheld(id, true).unwrap();
    peer.write(id, 0, 100);
    assert_eq!(peer.take().len(), 1);
    peer.advance_ms(10);
    let limited = info(&peer, id).sndbuf_limited;
    assert!((9_000..=11_000).contains(&limited), "{limited}");
    peer.stack.check_invariants();
}

#[test]
fn a_look_counts_bytes_and_neither_the_syn_nor_the_fin() {
    let mut peer = Peer::new();
    let id = peer.connect();
    let queues = |peer: &Peer| {
        let info = peer.stack.info(id).unwrap();
        (info.send_queue, info.in_flight)
    };
    peer.expect(SYN);
    assert_eq!(queues(&peer), (0, 0));
    peer.write(id, 0, 100);
    assert_eq!(queues(&peer), (100, 0));
    peer.send(SYN | ACK, 0, 1, &[]);
    assert_eq!(queues(&peer), (100, 100));
    // The FIN leaves as well.
    peer.shutdown_write(id);
    assert_eq!(queues(&peer), (100, 100));
    peer.send(ACK, 1, 101, &[]);
    assert_eq!(queues(&peer), (0, 0));
    peer.send(ACK, 1, 102, &[]);
    assert_eq!(queues(&peer), (0, 0));
}
