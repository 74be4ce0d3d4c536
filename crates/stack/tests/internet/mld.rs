//! MLDv2 as a host speaks it (RFC 3810), and version 1 where a router does (§8).

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use millrace_frames::Owners;
use millrace_stack::{FilterMode, SocketId};
use millrace_wire::ndp;

use crate::common::craft6::{
    self, ALL_NODES, ALL_ROUTERS, PEER_LINK, PEER_V6, RouterAdvertisement, STACK_V6,
};
use crate::common::peer::Peer;
use crate::{met, six};

const GROUP: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x1234);
const REPORTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// A record: what it says, of which group, which sources by their last byte.
type Record = (u8, Ipv6Addr, Vec<u8>);

fn source(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into())
}

fn socket(peer: &mut Peer) -> SocketId {
    peer.bind_datagram(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 53))
}

/// A stack with a link-local address that has told of its own groups.
fn host() -> Peer {
    let mut peer = met(|config| config.ipv6.link_local = true);
    settle(&mut peer);
    peer
}

fn settle(peer: &mut Peer) {
    peer.advance_ms(20_000);
    while peer.next_packet().is_some() {}
    peer.reports.clear();
}

/// The records of the next report.
#[track_caller]
fn report(peer: &mut Peer) -> Vec<Record> {
    peer.collect();
    let sent = peer.reports.pop_front().expect("a report");
    assert_eq!((sent.destination, sent.hop_limit), (REPORTS, 1));
    assert_eq!(sent.to, ndp::group_mac(REPORTS));
    assert_eq!(sent.source.segments()[0], 0xfe80);
    let message = &sent.payload;
    assert_eq!(message[0], 143);
    let mut rest = &message[8..];
    let records = (0..u16::from_be_bytes([message[6], message[7]])).map(|_| {
        let sources = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let group = Ipv6Addr::from(<[u8; 16]>::try_from(&rest[4..20]).unwrap());
        let kind = rest[0];
        let list = rest[20..][..16 * sources].chunks(16).map(|octets| octets[15]).collect();
        rest = &rest[20 + 16 * sources..];
        (kind, group, list)
    });
    let records = records.collect();
    assert!(rest.is_empty());
    records
}

fn query(group: Ipv6Addr, millis: u16, sources: &[u8]) -> Vec<u8> {
    let mut message = old_query(group, millis);
    message.extend([2, 125, 0, sources.len() as u8]);
    sources.iter().for_each(|&last| message.extend(source(last).octets()));
    message
}

fn old_query(group: Ipv6Addr, millis: u16) -> Vec<u8> {
    let mut message = vec![130, 0, 0, 0];
    message.extend(millis.to_be_bytes());
    message.extend([0, 0]);
    message.extend(group.octets());
    message
}

fn inject(peer: &mut Peer, message: &[u8]) {
    let group = Ipv6Addr::from(<[u8; 16]>::try_from(&message[8..24]).unwrap());
    let to = if group.is_unspecified() { ALL_NODES } else { group };
    peer.inject(&craft6::mld(PEER_LINK, to, message));
}

/// How long it takes until something is told.
fn wait(peer: &mut Peer) -> Duration {
    let start = peer.now;
    while peer.reports.is_empty() {
        let next = peer.stack.next_deadline().expect("something to wait for");
        peer.advance(next - peer.now);
    }
    peer.now - start
}

#[test]
fn joins_and_leaves_are_told_twice() {
    let mut peer = host();
    let socket = socket(&mut peer);
    peer.stack.join_group(socket, GROUP.into(), None).unwrap();
    assert_eq!(report(&mut peer), [(4, GROUP, vec![])]);
    assert!(wait(&mut peer) <= Duration::from_secs(1));
    assert_eq!(report(&mut peer), [(4, GROUP, vec![])]);
    peer.stack.leave_group(socket, GROUP.into(), None).unwrap();
    assert_eq!(report(&mut peer), [(3, GROUP, vec![])]);
    peer.stack.join_group(socket, GROUP.into(), Some(source(9).into())).unwrap();
    assert_eq!(report(&mut peer), [(3, GROUP, vec![9])]);
    settle(&mut peer);
}

#[test]
fn the_groups_of_our_addresses_are_told_too() {
    let mut peer = met(|config| config.ipv6.link_local = true);
    peer.advance_ms(5000);
    let told: Vec<_> = peer.reports.iter().flat_map(|sent| sent.payload[12..28].to_vec()).collect();
    let own = ndp::solicited_node(STACK_V6).octets();
    assert!(told.windows(16).any(|octets| octets == own));
    settle(&mut peer);
    // Every node is in the group of all nodes, so nobody has to be told.
    let socket = socket(&mut peer);
    peer.stack.join_group(socket, ALL_NODES.into(), None).unwrap();
    peer.collect();
    assert!(peer.reports.is_empty());
}

#[test]
fn groups_are_told_again_when_the_link_local_address_is_ours() {
    // RFC 3590 §4: routers do not believe reports from nobody.
    let mut peer = six(|config| {
        config.ipv6.link_local = true;
        config.ipv6.dad_transmits = 1;
        // Solicitations for longer than the reports of a join are repeated.
        config.ipv6.retransmit_timer = Duration::from_secs(5);
    });
    let socket = socket(&mut peer);
    peer.stack.join_group(socket, GROUP.into(), None).unwrap();
    peer.advance_ms(4900);
    assert!(!peer.reports.is_empty());
    assert!(peer.reports.iter().all(|sent| sent.source.is_unspecified()));
    peer.reports.clear();
    let wanted = (4, GROUP, vec![]);
    peer.advance_ms(100);
    assert!(report(&mut peer).contains(&wanted));
    assert!(wait(&mut peer) <= Duration::from_secs(1));
    assert!(report(&mut peer).contains(&wanted));
    settle(&mut peer);
}

#[test]
fn queries_are_answered() {
    let mut peer = host();
    let socket = socket(&mut peer);
    for last in [1, 2] {
        peer.stack.join_group(socket, GROUP.into(), Some(source(last).into())).unwrap();
    }
    settle(&mut peer);
    inject(&mut peer, &query(Ipv6Addr::UNSPECIFIED, 3000, &[]));
    assert!(peer.reports.is_empty());
    assert!(wait(&mut peer) <= Duration::from_secs(3));
    let records = report(&mut peer);
    assert!(records.contains(&(1, GROUP, vec![1, 2])), "{records:?}");
    assert!(records.contains(&(2, ndp::solicited_node(STACK_V6), vec![])), "{records:?}");
    inject(&mut peer, &query(GROUP, 1000, &[2, 3]));
    assert!(wait(&mut peer) <= Duration::from_secs(1));
    assert_eq!(report(&mut peer), [(1, GROUP, vec![2])]);
    assert_eq!(peer.stack.counters().multicast_queries, 2);
}

#[test]
fn a_version_1_router_gets_version_1() {
    let mut peer = host();
    let socket = socket(&mut peer);
    peer.stack.join_group(socket, GROUP.into(), None).unwrap();
    settle(&mut peer);
    // Any query of version 1 makes us speak it, one for a single group as well (§8.2.1).
    inject(&mut peer, &old_query(GROUP, 1000));
    assert!(wait(&mut peer) <= Duration::from_secs(1));
    let sent = peer.reports.pop_front().unwrap();
    assert_eq!((sent.payload[0], sent.destination), (131, GROUP));
    assert_eq!(sent.payload[8..24], GROUP.octets());
    peer.stack.leave_group(socket, GROUP.into(), None).unwrap();
    peer.collect();
    let sent = peer.reports.pop_front().unwrap();
    assert_eq!((sent.payload[0], sent.destination), (132, ALL_ROUTERS));
    settle(&mut peer);
}

#[test]
fn reports_fit_what_a_router_says_fits_the_link() {
    let mut peer = met(|config| {
        config.ipv6.link_local = true;
        config.ipv6.router_discovery = true;
        config.multicast.sources = 200;
    });
    // RFC 3810 §5.2.15, RFC 4861 §6.3.4.
    let router = RouterAdvertisement { lifetime: 0, ..RouterAdvertisement::default() };
    peer.inject(&router.mtu(1280).bytes());
    settle(&mut peer);
    let socket = socket(&mut peer);
    let sources: Vec<IpAddr> = (0..200).map(|last| source(last).into()).collect();
    let group = IpAddr::from(GROUP);
    peer.stack.set_source_filter(socket, group, FilterMode::Include, &sources).unwrap();
    peer.collect();
    let longest = peer.reports.iter().map(|sent| 40 + 8 + sent.payload.len()).max().unwrap();
    assert!(longest > 1280 - 20 - 16 && longest <= 1280, "{longest}");
    let told: Vec<u8> = (0..3).flat_map(|_| report(&mut peer)[0].2.clone()).collect();
    assert_eq!(told, (0..200).collect::<Vec<u8>>());
    peer.stack.close_datagram(socket);
    // Nobody is asked for routers any more.
    let lasting = RouterAdvertisement::default().route(Ipv6Addr::UNSPECIFIED, 0, 0, u32::MAX);
    peer.inject(&lasting.bytes());
    settle(&mut peer);
}

#[test]
fn what_no_router_on_the_link_sent_is_ignored() {
    let mut peer = host();
    let good = query(Ipv6Addr::UNSPECIFIED, 100, &[]);
    peer.inject(&craft6::mld(PEER_V6, ALL_NODES, &good));
    let mut far = craft6::mld(PEER_LINK, ALL_NODES, &good);
    far[14 + 7] = 2;
    peer.inject(&far);
    peer.inject(&craft6::icmp(PEER_LINK, ALL_NODES, 1, &good));
    assert_eq!(peer.stack.counters().drop_mld_ignored, 3);
    inject(&mut peer, &good[..26]);
    assert_eq!(peer.stack.counters().drop_mld_malformed, 1);
    peer.advance_ms(5000);
    assert!(peer.reports.is_empty());
    assert_eq!(peer.stack.counters().multicast_queries, 0);
}

#[test]
fn members_get_datagrams_of_every_length() {
    let mut peer = host();
    let socket = socket(&mut peer);
    peer.stack.join_group(socket, GROUP.into(), None).unwrap();
    let group = SocketAddr::new(GROUP.into(), 53);
    for len in [5, 9000, 65_527] {
        let data = crate::common::peer::pattern(0, len);
        let packet = craft6::udp((PEER_V6, 4000), (GROUP, 53), &data);
        for part in craft6::fragments(&packet, 1500, len as u32) {
            peer.inject(&part);
        }
        // What members send they hear themselves.
        peer.stack.send_datagram(socket, &data, Some(group)).unwrap();
        for from in [PEER_V6, STACK_V6] {
            let datagram = peer.stack.receive_datagram(socket).unwrap().expect("a datagram");
            assert_eq!(datagram.source.ip(), from);
            let arena = peer.stack.arena_mut();
            let (mut bytes, mut frame) = (Vec::new(), datagram.frame);
            while frame.is_some() {
                bytes.extend_from_slice(arena.bytes(frame));
                frame = arena.meta(frame).next;
            }
            arena.release_chain(datagram.frame, Owners::RECEIVED);
            assert!(bytes == data, "{len} from {from}");
        }
        while peer.next_packet().is_some() {}
    }
}

/// RFC 4291 §2.7.
#[test]
fn groups_of_the_host_itself_are_not_on_the_link() {
    let mut peer = host();
    let socket = socket(&mut peer);
    let group = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 0x1234);
    peer.stack.join_group(socket, group.into(), None).unwrap();
    peer.inject(&craft6::udp((PEER_V6, 4000), (group, 53), b"from outside"));
    peer.inject(&craft6::echo(PEER_V6, "ff01::1".parse().unwrap(), b"anybody?"));
    assert_eq!(peer.stack.counters().drop_multicast_not_joined, 2);
    assert!(peer.stack.receive_datagram(socket).unwrap().is_none());
    peer.stack.send_datagram(socket, b"here", Some(SocketAddr::new(group.into(), 53))).unwrap();
    peer.expect_silence();
    let datagram = peer.stack.receive_datagram(socket).unwrap().expect("our own");
    peer.stack.arena_mut().release_chain(datagram.frame, Owners::RECEIVED);
}
