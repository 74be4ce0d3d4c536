//! IGMPv3 as a host speaks it (RFC 3376), with routers of older versions, too.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use millrace_stack::{FilterMode, SocketId};

use crate::common::craft::{PEER_IP, Packet, STACK_IP, STACK_MAC, igmp_message};
use crate::common::peer::Peer;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const OTHER: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 4);
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

const IS_INCLUDE: u8 = 1;
const IS_EXCLUDE: u8 = 2;
const TO_INCLUDE: u8 = 3;
const TO_EXCLUDE: u8 = 4;
const ALLOW: u8 = 5;
const BLOCK: u8 = 6;

/// A record: what it says, of which group, which sources by their last byte.
type Record = (u8, Ipv4Addr, Vec<u8>);

fn source(last: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, last).into()
}

fn socket(peer: &mut Peer, port: u16) -> SocketId {
    peer.bind_datagram(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
}

fn join(peer: &mut Peer, socket: SocketId, from: Option<u8>) {
    peer.stack.join_group(socket, GROUP.into(), from.map(source)).unwrap();
}

fn leave(peer: &mut Peer, socket: SocketId, from: Option<u8>) {
    peer.stack.leave_group(socket, GROUP.into(), from.map(source)).unwrap();
}

/// The records of the next report, which must have been sent by now.
#[track_caller]
fn report(peer: &mut Peer) -> Vec<Record> {
    let Some(Packet::Igmp { source, destination, message, .. }) = peer.next_packet() else {
        panic!("no report")
    };
    assert_eq!((source, destination), (STACK_IP, Ipv4Addr::new(224, 0, 0, 22)));
    assert_eq!(message[0], 0x22);
    let count = u16::from_be_bytes([message[6], message[7]]);
    let mut rest = &message[8..];
    let records = (0..count).map(|_| {
        let sources = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let group = Ipv4Addr::new(rest[4], rest[5], rest[6], rest[7]);
        let kind = rest[0];
        let list = rest[8..][..4 * sources].chunks(4).map(|octets| octets[3]).collect();
        rest = &rest[8 + 4 * sources..];
        (kind, group, list)
    });
    let records = records.collect();
    assert!(rest.is_empty());
    records
}

/// The next message, of version 1 or 2: its type, its group and where it went.
#[track_caller]
fn old_message(peer: &mut Peer) -> (u8, Ipv4Addr, Ipv4Addr) {
    let Some(Packet::Igmp { destination, message, .. }) = peer.next_packet() else {
        panic!("no message")
    };
    assert_eq!(message.len(), 8);
    (message[0], Ipv4Addr::new(message[4], message[5], message[6], message[7]), destination)
}

fn query(group: Ipv4Addr, tenths: u8, sources: &[u8]) -> Vec<u8> {
    let mut message = vec![0x11, tenths, 0, 0];
    message.extend_from_slice(&group.octets());
    message.extend_from_slice(&[2, 125, 0, sources.len() as u8]);
    for &last in sources {
        message.extend_from_slice(&[198, 51, 100, last]);
    }
    let to = if group.is_unspecified() { ALL_HOSTS } else { group };
    igmp_message(PEER_IP, to, &message)
}

fn old_query(group: Ipv4Addr, tenths: u8) -> Vec<u8> {
    let [a, b, c, d] = group.octets();
    let to = if group.is_unspecified() { ALL_HOSTS } else { group };
    igmp_message(PEER_IP, to, &[0x11, tenths, 0, 0, a, b, c, d])
}

/// Lets what is told again be told again.
fn settle(peer: &mut Peer) {
    peer.advance_ms(20_000);
    while peer.next_packet().is_some() {}
}

#[test]
fn a_join_and_a_leave_are_told_twice() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, None);
    assert_eq!(report(&mut peer), [(TO_EXCLUDE, GROUP, vec![])]);
    peer.expect_silence();
    assert!(peer.wait() <= Duration::from_secs(1));
    assert_eq!(report(&mut peer), [(TO_EXCLUDE, GROUP, vec![])]);
    peer.advance_ms(10_000);
    peer.expect_silence();
    leave(&mut peer, socket, None);
    assert_eq!(report(&mut peer), [(TO_INCLUDE, GROUP, vec![])]);
    assert!(peer.wait() <= Duration::from_secs(1));
    assert_eq!(report(&mut peer), [(TO_INCLUDE, GROUP, vec![])]);
    assert_eq!(peer.stack.next_deadline(), None);
    assert_eq!(peer.stack.counters().multicast_reports, 4);
}

#[test]
fn sources_are_allowed_and_blocked_one_by_one() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, Some(1));
    assert_eq!(report(&mut peer), [(ALLOW, GROUP, vec![1])]);
    // The second is told with what is left to tell of the first.
    join(&mut peer, socket, Some(2));
    assert_eq!(report(&mut peer), [(ALLOW, GROUP, vec![1, 2])]);
    peer.wait();
    assert_eq!(report(&mut peer), [(ALLOW, GROUP, vec![2])]);
    settle(&mut peer);
    leave(&mut peer, socket, Some(1));
    join(&mut peer, socket, Some(3));
    assert_eq!(report(&mut peer), [(BLOCK, GROUP, vec![1])]);
    assert_eq!(report(&mut peer), [(ALLOW, GROUP, vec![3]), (BLOCK, GROUP, vec![1])]);
    settle(&mut peer);
    leave(&mut peer, socket, None);
    assert_eq!(report(&mut peer), [(BLOCK, GROUP, vec![2, 3])]);
    settle(&mut peer);
    assert!(peer.stack.multicast_groups().is_empty());
}

#[test]
fn several_sockets_are_told_as_one() {
    let mut peer = Peer::new();
    let sockets = [1, 2, 3].map(|port| socket(&mut peer, port));
    join(&mut peer, sockets[0], Some(1));
    join(&mut peer, sockets[1], Some(1));
    assert_eq!(report(&mut peer), [(ALLOW, GROUP, vec![1])]);
    settle(&mut peer);
    // One wants all, so all but what nobody wants is told.
    join(&mut peer, sockets[2], None);
    assert_eq!(report(&mut peer), [(TO_EXCLUDE, GROUP, vec![])]);
    peer.stack.block_source(sockets[2], GROUP.into(), source(2)).unwrap();
    assert_eq!(report(&mut peer), [(TO_EXCLUDE, GROUP, vec![2])]);
    settle(&mut peer);
    // The one that another socket wants by name is not blocked.
    peer.stack.block_source(sockets[2], GROUP.into(), source(1)).unwrap();
    peer.expect_silence();
    let groups = peer.stack.multicast_groups();
    assert_eq!(groups[0].group, IpAddr::from(GROUP));
    assert_eq!((groups[0].mode, &groups[0].sources[..]), (FilterMode::Exclude, &[source(2)][..]));
    peer.stack.close_datagram(sockets[0]);
    peer.expect_silence();
    peer.stack.close_datagram(sockets[1]);
    assert_eq!(report(&mut peer), [(BLOCK, GROUP, vec![1])]);
    peer.stack.close_datagram(sockets[2]);
    assert_eq!(report(&mut peer)[0].0, TO_INCLUDE);
    settle(&mut peer);
}

#[test]
fn a_general_query_is_answered_within_its_time() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, Some(1));
    peer.stack.join_group(socket, OTHER.into(), None).unwrap();
    settle(&mut peer);
    peer.inject(&query(Ipv4Addr::UNSPECIFIED, 100, &[]));
    peer.expect_silence();
    assert!(peer.wait() <= Duration::from_secs(10));
    let mut records = report(&mut peer);
    records.sort();
    assert_eq!(records, [(IS_INCLUDE, GROUP, vec![1]), (IS_EXCLUDE, OTHER, vec![])]);
    peer.advance_ms(20_000);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().multicast_queries, 1);
}

#[test]
fn a_switch_without_an_address_is_answered() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, None);
    settle(&mut peer);
    let message = [0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
    peer.inject(&igmp_message(Ipv4Addr::UNSPECIFIED, ALL_HOSTS, &message));
    assert!(peer.wait() <= Duration::from_secs(1));
    assert_eq!(report(&mut peer), [(IS_EXCLUDE, GROUP, vec![])]);
}

#[test]
fn a_query_for_a_group_is_answered_for_it_only() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, None);
    peer.stack.join_group(socket, OTHER.into(), None).unwrap();
    settle(&mut peer);
    peer.inject(&query(GROUP, 10, &[]));
    assert!(peer.wait() <= Duration::from_secs(1));
    assert_eq!(report(&mut peer), [(IS_EXCLUDE, GROUP, vec![])]);
    peer.inject(&query(Ipv4Addr::new(239, 9, 9, 9), 10, &[]));
    peer.advance_ms(5000);
    peer.expect_silence();
}

#[test]
fn a_query_for_sources_is_answered_with_those_that_are_wanted() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    for last in [1, 2, 3] {
        join(&mut peer, socket, Some(last));
    }
    settle(&mut peer);
    // Two queries before the answer: one answer for both.
    peer.inject(&query(GROUP, 100, &[2, 9]));
    peer.inject(&query(GROUP, 100, &[3, 8]));
    peer.wait();
    assert_eq!(report(&mut peer), [(IS_INCLUDE, GROUP, vec![2, 3])]);
    peer.inject(&query(GROUP, 10, &[9]));
    peer.advance_ms(5000);
    peer.expect_silence();
    // With one for the group in between, the whole state is the answer.
    peer.inject(&query(GROUP, 100, &[2]));
    peer.inject(&query(GROUP, 100, &[]));
    peer.wait();
    assert_eq!(report(&mut peer), [(IS_INCLUDE, GROUP, vec![1, 2, 3])]);
}

#[test]
fn a_version_2_router_gets_version_2() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, Some(1));
    settle(&mut peer);
    peer.inject(&old_query(Ipv4Addr::UNSPECIFIED, 50));
    assert!(peer.wait() <= Duration::from_secs(5));
    assert_eq!(old_message(&mut peer), (0x16, GROUP, GROUP));
    // A new group: at once, and again within ten seconds.
    peer.stack.join_group(socket, OTHER.into(), None).unwrap();
    assert_eq!(old_message(&mut peer), (0x16, OTHER, OTHER));
    assert!(peer.wait() <= Duration::from_secs(10));
    assert_eq!(old_message(&mut peer), (0x16, OTHER, OTHER));
    leave(&mut peer, socket, None);
    assert_eq!(old_message(&mut peer), (0x17, GROUP, Ipv4Addr::new(224, 0, 0, 2)));
    // When the old router has not asked for long, version 3 comes back.
    peer.advance_ms(300_000);
    peer.stack.leave_group(socket, OTHER.into(), None).unwrap();
    assert_eq!(report(&mut peer), [(TO_INCLUDE, OTHER, vec![])]);
    settle(&mut peer);
}

#[test]
fn one_report_of_several_hosts_is_enough_for_an_old_router() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, None);
    settle(&mut peer);
    peer.inject(&old_query(Ipv4Addr::UNSPECIFIED, 100));
    let [a, b, c, d] = GROUP.octets();
    peer.inject(&igmp_message(PEER_IP, GROUP, &[0x16, 0, 0, 0, a, b, c, d]));
    peer.advance_ms(20_000);
    peer.expect_silence();
    // We were not the last to report, so somebody else may still listen.
    leave(&mut peer, socket, None);
    peer.expect_silence();
}

#[test]
fn a_version_1_router_hears_of_no_leave() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, None);
    settle(&mut peer);
    peer.inject(&old_query(Ipv4Addr::UNSPECIFIED, 0));
    assert!(peer.wait() <= Duration::from_secs(10));
    assert_eq!(old_message(&mut peer), (0x12, GROUP, GROUP));
    leave(&mut peer, socket, None);
    peer.advance_ms(5000);
    peer.expect_silence();
}

#[test]
fn the_routers_robustness_is_taken() {
    let mut peer = Peer::new();
    let mut message = vec![0x11, 10, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&[4, 125, 0, 0]);
    peer.inject(&igmp_message(PEER_IP, ALL_HOSTS, &message));
    settle(&mut peer);
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, None);
    for _ in 0..4 {
        assert_eq!(report(&mut peer), [(TO_EXCLUDE, GROUP, vec![])]);
        if peer.stack.next_deadline().is_some() {
            peer.wait();
        }
    }
    peer.advance_ms(10_000);
    peer.expect_silence();
}

#[test]
fn a_version_2_query_for_one_group_does_not_make_us_speak_version_2() {
    // RFC 3376 §7.2.1: only a general one does.
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, None);
    settle(&mut peer);
    peer.inject(&old_query(GROUP, 10));
    assert!(peer.wait() <= Duration::from_secs(1));
    assert_eq!(report(&mut peer), [(IS_EXCLUDE, GROUP, vec![])]);
    peer.stack.join_group(socket, OTHER.into(), None).unwrap();
    assert_eq!(report(&mut peer), [(TO_EXCLUDE, OTHER, vec![])]);
    settle(&mut peer);
}

#[test]
fn forged_queries_are_dropped() {
    let good = query(Ipv4Addr::UNSPECIFIED, 10, &[]);
    let forge = |change: fn(&mut Vec<u8>)| {
        let mut peer = Peer::new();
        let socket = socket(&mut peer, 53);
        join(&mut peer, socket, None);
        settle(&mut peer);
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes[24..26].fill(0);
        let sum = millrace_wire::checksum::finish(millrace_wire::checksum::sum(&bytes[14..38]));
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        peer.inject(&bytes);
        peer.advance_ms(20_000);
        peer.expect_silence();
        let counters = peer.stack.counters();
        (
            counters.drop_igmp_ignored,
            counters.drop_igmp_malformed,
            counters.drop_multicast_not_joined,
        )
    };
    // From off the link; without the option; to another group than it asks for; damaged; cut.
    assert_eq!(forge(|bytes| bytes[22] = 2), (1, 0, 0));
    assert_eq!(forge(|bytes| bytes[34..38].fill(1)), (1, 0, 0));
    assert_eq!(forge(|bytes| bytes[30..34].copy_from_slice(&[239, 1, 2, 3])), (1, 0, 0));
    assert_eq!(forge(|bytes| bytes[30..34].copy_from_slice(&[239, 1, 2, 9])), (0, 0, 1));
    assert_eq!(forge(|bytes| bytes[40] ^= 1), (0, 1, 0));
    assert_eq!(
        forge(|bytes| {
            bytes.truncate(38 + 11);
            bytes[17] = 35;
        }),
        (0, 1, 0)
    );
}

/// The message, to `to` and with this time to live when it arrives.
fn by_a_router(mut bytes: Vec<u8>, to: Ipv4Addr, ttl: u8) -> Vec<u8> {
    if !to.is_multicast() {
        bytes[..6].copy_from_slice(&STACK_MAC.0);
    }
    bytes[22] = ttl;
    bytes[30..34].copy_from_slice(&to.octets());
    bytes[24..26].fill(0);
    let sum = millrace_wire::checksum::finish(millrace_wire::checksum::sum(&bytes[14..38]));
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Whoever is beyond a router can send to our address, with a time to live that is 1 here.
#[test]
fn nobody_beyond_a_router_speaks_older_versions() {
    let mut peer = Peer::new();
    let socket = socket(&mut peer, 53);
    join(&mut peer, socket, Some(1));
    settle(&mut peer);
    // Of version 1 and of version 2: the sources are not forgotten for them.
    for tenths in [0, 100] {
        let query = old_query(Ipv4Addr::UNSPECIFIED, tenths);
        peer.inject(&by_a_router(query, STACK_IP, 1));
        peer.advance_ms(20_000);
        peer.expect_silence();
    }
    assert_eq!(peer.stack.counters().drop_igmp_ignored, 2);
    join(&mut peer, socket, Some(2));
    assert_eq!(report(&mut peer), [(ALLOW, GROUP, vec![2])]);
    settle(&mut peer);
    // Nor does a report from there say that somebody else listens here.
    peer.inject(&old_query(Ipv4Addr::UNSPECIFIED, 100));
    let [a, b, c, d] = GROUP.octets();
    let heard = igmp_message(PEER_IP, GROUP, &[0x16, 0, 0, 0, a, b, c, d]);
    peer.inject(&by_a_router(heard.clone(), STACK_IP, 1));
    peer.inject(&by_a_router(heard, GROUP, 2));
    assert_eq!(peer.stack.counters().drop_igmp_ignored, 4);
    assert!(peer.wait() <= Duration::from_secs(10));
    assert_eq!(old_message(&mut peer), (0x16, GROUP, GROUP));
}

#[test]
fn long_lists_go_in_several_reports() {
    let mut peer = Peer::with(|config| {
        config.mtu = 576;
        config.multicast.sources = 300;
    });
    let socket = socket(&mut peer, 53);
    let sources: Vec<IpAddr> = (0..250).map(source).collect();
    let group = IpAddr::from(GROUP);
    peer.stack.set_source_filter(socket, group, FilterMode::Include, &sources).unwrap();
    let first = report(&mut peer);
    let second = report(&mut peer);
    let told: Vec<u8> = [&first[0].2[..], &second[0].2[..]].concat();
    assert_eq!(told, (0..250).collect::<Vec<u8>>());
    settle(&mut peer);
    // What is excluded cannot be split.
    peer.stack.set_source_filter(socket, group, FilterMode::Exclude, &sources).unwrap();
    let cut = report(&mut peer);
    assert_eq!((cut.len(), cut[0].0), (1, TO_EXCLUDE));
    assert!(cut[0].2.len() < 250);
    peer.expect_silence();
    peer.stack.close_datagram(socket);
    settle(&mut peer);
}

#[test]
fn bounds_hold_and_errors_say_so() {
    let mut peer = Peer::with(|config| {
        config.multicast.groups = 3;
        config.multicast.groups_per_socket = 2;
        config.multicast.sources = 2;
    });
    let sockets = [1, 2].map(|port| socket(&mut peer, port));
    let group = |last: u8| IpAddr::from([239, 0, 0, last]);
    let mut join = |socket: usize, last: u8, from: Option<u8>| {
        peer.stack.join_group(sockets[socket], group(last), from.map(source))
    };
    join(0, 1, None).unwrap();
    join(0, 2, Some(1)).unwrap();
    join(0, 2, Some(2)).unwrap();
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    use std::io::ErrorKind::{
        AddrNotAvailable, AlreadyExists, InvalidInput, NotConnected, QuotaExceeded,
    };
    assert_eq!(kind(join(0, 2, Some(3))), QuotaExceeded);
    assert_eq!(kind(join(0, 3, None)), QuotaExceeded);
    assert_eq!(kind(join(0, 1, None)), AlreadyExists);
    assert_eq!(kind(join(0, 2, Some(1))), AlreadyExists);
    assert_eq!(kind(join(0, 1, Some(1))), InvalidInput);
    join(1, 3, None).unwrap();
    assert_eq!(kind(join(1, 4, None)), QuotaExceeded);
    let stack = &mut peer.stack;
    let unicast = stack.join_group(sockets[0], STACK_IP.into(), None);
    assert!(unicast.unwrap_err().to_string().contains("192.0.2.1 is no multicast group"));
    let mixed = stack.join_group(sockets[0], group(1), Some("::1".parse().unwrap()));
    assert_eq!(kind(mixed), InvalidInput);
    assert_eq!(kind(stack.leave_group(sockets[0], group(9), None)), AddrNotAvailable);
    assert_eq!(kind(stack.leave_group(sockets[0], group(2), Some(source(9)))), AddrNotAvailable);
    assert_eq!(kind(stack.block_source(sockets[0], group(2), source(9))), InvalidInput);
    assert_eq!(kind(stack.unblock_source(sockets[0], group(1), source(9))), AddrNotAvailable);
    stack.close_datagram(sockets[1]);
    assert_eq!(kind(stack.join_group(sockets[1], group(1), None)), NotConnected);
    stack.close_datagram(sockets[0]);
    settle(&mut peer);
}

#[test]
fn the_same_seed_draws_the_same_delays() {
    let delays = || {
        let mut peer = Peer::new();
        let socket = socket(&mut peer, 53);
        join(&mut peer, socket, None);
        settle(&mut peer);
        let mut delays = Vec::new();
        for _ in 0..5 {
            peer.inject(&query(Ipv4Addr::UNSPECIFIED, 100, &[]));
            delays.push(peer.wait());
            report(&mut peer);
        }
        delays
    };
    let first = delays();
    assert_eq!(first, delays());
    assert!(first.windows(2).any(|pair| pair[0] != pair[1]), "{first:?}");
}
