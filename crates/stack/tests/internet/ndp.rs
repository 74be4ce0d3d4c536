//! Neighbour discovery (RFC 4861) and duplicate address detection (RFC 4862 §5.4).

use core::net::{Ipv6Addr, SocketAddr};
use core::time::Duration;

use millrace_stack::{AddressState, Config, InterfaceAddress};
use millrace_wire::mac::Mac;
use millrace_wire::ndp::{AdvertisementFlags, Message, group_mac, solicited_node};
use millrace_wire::protocol;

use crate::common::craft::{PEER_IP, PEER_MAC, Packet, STACK_IP, STACK_MAC};
use crate::common::craft6::{
    ALL_NODES, PEER_V6, STACK_V6, V6, advertisement, echo, extended, fragments, icmp, segment,
    solicitation,
};
use crate::common::peer::{ACK, Peer, SYN};
use crate::six;

const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const ANSWER: AdvertisementFlags =
    AdvertisementFlags { router: false, solicited: true, override_: true };

fn stranger(change: impl FnOnce(&mut Config)) -> Peer {
    six(|config| {
        config.ipv6.reachable_time = Duration::from_secs(30);
        change(config);
    })
}

/// A solicitation for `wanted`: where it went, and whether it told our address.
#[track_caller]
fn expect_solicitation(peer: &mut Peer, wanted: Ipv6Addr) -> (V6, Option<Mac>) {
    let packet = peer.expect_v6();
    let Message::NeighbourSolicitation { target, options } = packet.ndp() else {
        panic!("{packet:?}")
    };
    assert_eq!(target, wanted);
    let mac = options.source_link_layer();
    (packet, mac)
}

#[track_caller]
fn expect_advertisement(peer: &mut Peer) -> (V6, AdvertisementFlags) {
    let packet = peer.expect_v6();
    let Message::NeighbourAdvertisement { router, solicited, override_, target, options } =
        packet.ndp()
    else {
        panic!("{packet:?}")
    };
    assert_eq!((target, options.target_link_layer()), (packet.source, Some(STACK_MAC)));
    let flags = AdvertisementFlags { router, solicited, override_ };
    (packet, flags)
}

/// Sends a datagram to the peer.
fn speak(peer: &mut Peer) {
    let socket = peer.stack.bind_datagram(SocketAddr::new(STACK_V6.into(), 9)).unwrap();
    let remote = SocketAddr::new(PEER_V6.into(), 7);
    peer.stack.send_datagram(socket, b"hello", Some(remote)).unwrap();
    peer.collect();
    peer.stack.close_datagram(socket);
    peer.advance(Duration::ZERO);
}

#[test]
fn who_asks_for_us_is_answered_and_known() {
    let mut peer = stranger(|_| {});
    peer.inject(&solicitation(PEER_V6, STACK_V6, None));
    let (answer, flags) = expect_advertisement(&mut peer);
    assert_eq!((answer.to, answer.destination, flags), (PEER_MAC, PEER_V6, ANSWER));
    // Known, and not yet confirmed: five seconds after it was used it is asked.
    speak(&mut peer);
    let datagram = peer.expect_v6();
    assert_eq!((datagram.protocol, datagram.to), (protocol::UDP, PEER_MAC));
    peer.expect_silence();
    assert_eq!(peer.wait(), Duration::from_secs(5));
    let (probe, _) = expect_solicitation(&mut peer, PEER_V6);
    assert_eq!((probe.to, probe.destination, probe.source), (PEER_MAC, PEER_V6, STACK_V6));
    peer.inject(&advertisement((PEER_V6, STACK_V6), PEER_V6, ANSWER, None));
    peer.advance_ms(20_000);
    peer.expect_silence();
}

#[test]
fn a_neighbour_is_asked_for_three_times_by_its_group() {
    let mut peer = stranger(|_| {});
    let begin = peer.now;
    speak(&mut peer);
    for second in 0..3 {
        let (question, mac) = expect_solicitation(&mut peer, PEER_V6);
        let group = solicited_node(PEER_V6);
        assert_eq!((question.to, question.destination), (group_mac(group), group));
        assert_eq!((question.source, mac), (STACK_V6, Some(STACK_MAC)));
        assert_eq!(peer.now - begin, Duration::from_secs(second));
        peer.advance_ms(1000);
    }
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_neighbour_unreachable, 1);
    // What waits goes when it answers.
    speak(&mut peer);
    expect_solicitation(&mut peer, PEER_V6);
    peer.inject(&advertisement((PEER_V6, STACK_V6), PEER_V6, ANSWER, Some(PEER_MAC)));
    let datagram = peer.expect_v6();
    assert_eq!((datagram.protocol, datagram.to), (protocol::UDP, PEER_MAC));
}

/// RFC 4861 §7.2.2: the newest packet takes the place of the oldest.
#[test]
fn the_oldest_packets_make_way_when_too_many_wait() {
    let mut peer = stranger(|config| config.neighbour_queue = 2);
    let socket = peer.bind_datagram(SocketAddr::new(STACK_V6.into(), 9));
    let remote = SocketAddr::new(PEER_V6.into(), 7);
    for len in [3000, 1, 2, 3] {
        peer.stack.send_datagram(socket, &vec![7; len], Some(remote)).unwrap();
        peer.collect();
    }
    // Three fragments and a datagram.
    assert_eq!(peer.stack.counters().drop_neighbour_queue_full, 4);
    peer.advance(Duration::ZERO);
    expect_solicitation(&mut peer, PEER_V6);
    peer.inject(&advertisement((PEER_V6, STACK_V6), PEER_V6, ANSWER, Some(PEER_MAC)));
    for len in [2, 3] {
        assert_eq!(peer.expect_v6().payload.len(), 8 + len);
    }
    peer.expect_silence();
    peer.stack.close_datagram(socket);
}

#[test]
fn a_connection_to_nobody_fails() {
    let mut peer = stranger(|_| {});
    let id = peer.stack.connect(SocketAddr::new(PEER_V6.into(), 80), None).unwrap();
    peer.collect();
    peer.advance_ms(3100);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(millrace_stack::Failure::HostUnreachable));
    peer.stack.release(id);
    while peer.next_packet().is_some() {}
}

#[test]
fn claims_that_nobody_asked_for_are_not_believed() {
    let mut peer = stranger(|_| {});
    peer.inject(&advertisement(
        (PEER_V6, ALL_NODES),
        PEER_V6,
        AdvertisementFlags::default(),
        Some(OTHER_MAC),
    ));
    assert_eq!(peer.stack.counters().drop_ndp_not_ours, 1);
    speak(&mut peer);
    expect_solicitation(&mut peer, PEER_V6);
    peer.advance_ms(5000);
    while peer.next_packet().is_some() {}
}

#[test]
fn a_neighbour_may_move_if_it_insists() {
    let mut peer = stranger(|_| {});
    peer.inject(&solicitation(PEER_V6, STACK_V6, None));
    expect_advertisement(&mut peer);
    let unasked = |override_| AdvertisementFlags { router: false, solicited: false, override_ };
    for (flags, mac) in [(unasked(false), PEER_MAC), (unasked(true), OTHER_MAC)] {
        peer.inject(&advertisement((PEER_V6, ALL_NODES), PEER_V6, flags, Some(OTHER_MAC)));
        speak(&mut peer);
        assert_eq!(peer.expect_v6().to, mac);
    }
    peer.advance_ms(20_000);
    while peer.next_packet().is_some() {}
}

#[test]
fn what_did_not_come_from_the_link_is_malformed() {
    let mut peer = stranger(|_| {});
    let mut messages = vec![
        // To be asked by nobody with a hardware address, or not through the group.
        icmp(NOBODY, solicited_node(STACK_V6), 255, &{
            let mut bytes = [0; 40];
            millrace_wire::ndp::emit_neighbour_solicitation(
                &mut bytes,
                STACK_V6,
                Some(PEER_MAC),
                None,
            );
            bytes[..32].to_vec()
        }),
        icmp(NOBODY, STACK_V6, 255, &{
            let mut bytes = vec![0; 24];
            millrace_wire::ndp::emit_neighbour_solicitation(&mut bytes, STACK_V6, None, None);
            bytes
        }),
        // For a group.
        icmp(PEER_V6, STACK_V6, 255, &{
            let mut bytes = vec![0; 24];
            millrace_wire::ndp::emit_neighbour_solicitation(&mut bytes, ALL_NODES, None, None);
            bytes
        }),
        // An answer to all.
        advertisement((PEER_V6, ALL_NODES), PEER_V6, ANSWER, Some(PEER_MAC)),
        // A group's hardware address.
        advertisement((PEER_V6, STACK_V6), PEER_V6, ANSWER, Some(Mac([1; 6]))),
        // An option of length zero, a code, too short.
        icmp(
            PEER_V6,
            STACK_V6,
            255,
            &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &STACK_V6.octets(), &[1, 0, 0, 0, 0, 0, 0, 0]]
                .concat(),
        ),
        icmp(
            PEER_V6,
            STACK_V6,
            255,
            &[&[135, 1, 0, 0, 0, 0, 0, 0][..], &STACK_V6.octets()].concat(),
        ),
        icmp(PEER_V6, STACK_V6, 255, &[135, 0, 0, 0, 0, 0, 0, 0]),
    ];
    // Through a router.
    let mut message = [0; 32];
    let len = millrace_wire::ndp::emit_neighbour_solicitation(
        &mut message,
        STACK_V6,
        Some(PEER_MAC),
        None,
    );
    messages.push(icmp(PEER_V6, solicited_node(STACK_V6), 254, &message[..len]));
    for (number, message) in messages.iter().enumerate() {
        peer.inject(message);
        peer.expect_silence();
        assert_eq!(peer.stack.counters().drop_ndp_malformed, number as u64 + 1, "{number}");
    }
}

#[test]
fn what_came_in_fragments_is_ignored() {
    // RFC 6980 §5: behind a fragment header that means nothing, and put together.
    let mut peer = stranger(|_| {});
    let question = solicitation(PEER_V6, STACK_V6, None);
    peer.inject(&extended(&question, 44, 0));
    for part in fragments(&question, 40 + 8 + 16, 7) {
        peer.inject(&part);
    }
    peer.expect_silence();
    let counters = peer.stack.counters();
    assert_eq!((counters.drop_ndp_fragment, counters.datagrams_reassembled), (2, 1));
    // Of what is no neighbour discovery a fragment may be the whole (RFC 6946).
    peer.inject(&extended(&echo(PEER_V6, STACK_V6, b""), 44, 0));
    peer.expect_v6();
}

#[test]
fn a_claim_to_our_address_is_counted() {
    let mut peer = stranger(|_| {});
    let flags = AdvertisementFlags { override_: true, ..AdvertisementFlags::default() };
    peer.inject(&advertisement((STACK_V6, ALL_NODES), STACK_V6, flags, Some(OTHER_MAC)));
    assert_eq!(peer.stack.counters().address_conflicts, 1);
    // Our own come back is none.
    peer.inject(&advertisement((STACK_V6, ALL_NODES), STACK_V6, flags, Some(STACK_MAC)));
    assert_eq!(peer.stack.counters().address_conflicts, 1);
    // We keep it.
    peer.inject(&echo(PEER_V6, STACK_V6, b""));
    peer.expect_v6();
}

#[test]
fn nothing_is_said_of_neighbours_of_ipv4() {
    // ::ffff:192.0.2.2 is on no link, but looks like 192.0.2.2 inside.
    let mut peer = stranger(|config| {
        config.addresses.push(InterfaceAddress { address: STACK_IP.into(), prefix: 24 });
    });
    peer.introduce();
    let flags = AdvertisementFlags { override_: true, ..AdvertisementFlags::default() };
    let (own, far) = (STACK_IP.to_ipv6_mapped(), PEER_IP.to_ipv6_mapped());
    peer.inject(&advertisement((PEER_V6, ALL_NODES), far, flags, Some(OTHER_MAC)));
    let mut question = [0; 32];
    millrace_wire::ndp::emit_neighbour_solicitation(&mut question, own, Some(PEER_MAC), None);
    peer.inject(&icmp(PEER_V6, STACK_V6, 255, &question));
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_ndp_malformed, 2);
    let socket = peer.bind_datagram(SocketAddr::new(STACK_IP.into(), 9));
    peer.stack.send_datagram(socket, b"?", Some(SocketAddr::new(PEER_IP.into(), 7))).unwrap();
    assert!(matches!(peer.next_packet(), Some(Packet::Udp { to: PEER_MAC, .. })));
}

#[test]
fn announcing_tells_all_nodes() {
    let mut peer = stranger(|_| {});
    peer.stack.announce();
    let (told, flags) = expect_advertisement(&mut peer);
    assert_eq!((told.to, told.destination), (group_mac(ALL_NODES), ALL_NODES));
    assert_eq!((flags.solicited, flags.override_), (false, true));
}

// Duplicate address detection.

fn state(peer: &Peer, of: Ipv6Addr) -> Option<AddressState> {
    peer.stack.addresses().find(|one| one.address == of).map(|one| one.state)
}

fn detecting(change: impl FnOnce(&mut Config)) -> Peer {
    stranger(|config| {
        config.ipv6.dad_transmits = 1;
        change(config);
    })
}

#[test]
fn an_address_is_ours_when_nobody_answers() {
    let mut peer = detecting(|_| {});
    let (question, mac) = expect_solicitation(&mut peer, STACK_V6);
    let group = solicited_node(STACK_V6);
    assert_eq!((question.source, question.destination, mac), (NOBODY, group, None));
    assert_eq!(question.to, group_mac(group));
    // Nothing comes to it yet, and nobody is told that it is ours.
    peer.inject(&echo(PEER_V6, STACK_V6, b""));
    peer.inject(&solicitation(PEER_V6, STACK_V6, None));
    peer.expect_silence();
    assert_eq!(state(&peer, STACK_V6), Some(AddressState::Tentative));
    peer.advance_ms(999);
    assert_eq!(state(&peer, STACK_V6), Some(AddressState::Tentative));
    peer.advance_ms(1);
    assert_eq!(state(&peer, STACK_V6), Some(AddressState::Preferred));
    peer.inject(&echo(PEER_V6, STACK_V6, b""));
    peer.expect_v6();
    peer.expect_silence();
}

#[test]
fn an_address_that_another_has_is_not_used() {
    let taken = |peer: &mut Peer, message: &[u8]| {
        peer.inject(message);
        assert_eq!(state(peer, STACK_V6), Some(AddressState::Duplicate));
        assert_eq!(peer.stack.counters().duplicate_addresses, 1);
        while peer.next_packet().is_some() {}
        peer.advance_ms(5000);
        for message in [echo(PEER_V6, STACK_V6, b""), solicitation(PEER_V6, STACK_V6, None)] {
            peer.inject(&message);
        }
        peer.expect_silence();
        let socket = peer.stack.bind_datagram(SocketAddr::new(NOBODY.into(), 9)).unwrap();
        let remote = SocketAddr::new(PEER_V6.into(), 7);
        assert!(peer.stack.send_datagram(socket, b"?", Some(remote)).is_err());
        peer.stack.close_datagram(socket);
    };
    // Its answer, and its own question for the same address.
    let flags = AdvertisementFlags { override_: true, ..AdvertisementFlags::default() };
    let answer = advertisement((STACK_V6, ALL_NODES), STACK_V6, flags, Some(OTHER_MAC));
    taken(&mut detecting(|_| {}), &answer);
    taken(&mut detecting(|_| {}), &solicitation(NOBODY, STACK_V6, Some([9; 6])));
    taken(&mut detecting(|_| {}), &solicitation(NOBODY, STACK_V6, None));
}

#[test]
fn our_own_question_come_back_is_no_answer() {
    let mut peer = detecting(|_| {});
    let (question, _) = expect_solicitation(&mut peer, STACK_V6);
    let message = question.payload.clone();
    peer.inject(&icmp(NOBODY, solicited_node(STACK_V6), 255, &message));
    peer.advance_ms(1000);
    assert_eq!(state(&peer, STACK_V6), Some(AddressState::Preferred));
    // And one that comes when the address is ours is told so, for all to hear.
    peer.inject(&solicitation(NOBODY, STACK_V6, Some([9; 6])));
    let (answer, flags) = expect_advertisement(&mut peer);
    assert_eq!((answer.destination, answer.to), (ALL_NODES, group_mac(ALL_NODES)));
    assert_eq!((flags.solicited, flags.override_), (false, true));
}

#[test]
fn several_questions_where_they_are_asked_for() {
    let mut peer = detecting(|config| config.ipv6.dad_transmits = 3);
    for _ in 0..3 {
        assert_eq!(state(&peer, STACK_V6), Some(AddressState::Tentative));
        expect_solicitation(&mut peer, STACK_V6);
        peer.advance_ms(1000);
    }
    assert_eq!(state(&peer, STACK_V6), Some(AddressState::Preferred));
}

#[test]
fn no_address_is_ours_before_anybody_was_asked() {
    let mut peer = detecting(|config| config.control_queue = 1);
    peer.advance_ms(5000);
    while peer.next_packet().is_some() {}
    let second: Ipv6Addr = "2001:db8::99".parse().unwrap();
    let asked = peer.stack.counters().neighbour_solicitations_sent;
    // The report of its group is all that has room.
    peer.stack.add_address(InterfaceAddress { address: second.into(), prefix: 64 }).unwrap();
    let now = peer.now;
    peer.stack.advance(now);
    assert_eq!(peer.stack.counters().neighbour_solicitations_sent, asked);
    peer.collect();
    peer.advance_ms(1000);
    assert_eq!(state(&peer, second), Some(AddressState::Tentative));
    expect_solicitation(&mut peer, second);
    peer.advance_ms(1000);
    assert_eq!(state(&peer, second), Some(AddressState::Preferred));
    peer.advance_ms(5000);
}

#[test]
fn an_optimist_uses_its_address_and_does_not_insist() {
    let mut peer = detecting(|config| config.ipv6.optimistic = true);
    expect_solicitation(&mut peer, STACK_V6);
    assert_eq!(state(&peer, STACK_V6), Some(AddressState::Optimistic));
    peer.inject(&solicitation(PEER_V6, STACK_V6, None));
    let (_, flags) = expect_advertisement(&mut peer);
    assert!(flags.solicited && !flags.override_);
    peer.inject(&echo(PEER_V6, STACK_V6, b""));
    peer.expect_v6();
    peer.inject(&solicitation(NOBODY, STACK_V6, None));
    assert_eq!(state(&peer, STACK_V6), Some(AddressState::Duplicate));
}

#[test]
fn an_address_that_is_added_is_looked_for_and_a_link_local_one_made() {
    let mut peer = detecting(|config| config.ipv6.link_local = true);
    let mut wanted: Vec<_> = peer.stack.addresses().map(|one| one.address).collect();
    assert_eq!(wanted.len(), 2);
    let second: Ipv6Addr = "2001:db8::99".parse().unwrap();
    peer.stack.add_address(InterfaceAddress { address: second.into(), prefix: 64 }).unwrap();
    wanted.push(second.into());
    peer.advance(Duration::ZERO);
    for address in wanted {
        let std::net::IpAddr::V6(address) = address else { panic!() };
        expect_solicitation(&mut peer, address);
    }
    peer.advance_ms(1000);
    assert!(peer.stack.addresses().all(|one| one.state == AddressState::Preferred));
    let link_local = peer.stack.addresses().find(|one| one.prefix == 64 && one.address != STACK_V6);
    let std::net::IpAddr::V6(link_local) = link_local.unwrap().address else { panic!() };
    assert!(link_local.is_unicast_link_local());
    // The link's own traffic comes from it.
    let neighbour: Ipv6Addr = "fe80::77".parse().unwrap();
    let socket = peer.bind_datagram(SocketAddr::new(NOBODY.into(), 9));
    peer.stack.send_datagram(socket, b"?", Some(SocketAddr::new(neighbour.into(), 7))).unwrap();
    peer.collect();
    peer.advance(Duration::ZERO);
    let (question, _) = expect_solicitation(&mut peer, neighbour);
    assert_eq!(question.source, link_local);
    peer.advance_ms(4000);
    while peer.next_packet().is_some() {}
}

#[test]
fn a_syn_waits_until_the_address_is_ours() {
    let mut peer = detecting(|_| {});
    peer.inject(&solicitation(PEER_V6, STACK_V6, None));
    let id = peer.stack.connect(SocketAddr::new(PEER_V6.into(), 7), None).unwrap();
    peer.advance_ms(900);
    expect_solicitation(&mut peer, STACK_V6);
    peer.expect_silence();
    peer.advance_ms(100);
    expect_solicitation(&mut peer, PEER_V6);
    peer.inject(&advertisement((PEER_V6, STACK_V6), PEER_V6, ANSWER, Some(PEER_MAC)));
    let syn = peer.expect_v6();
    let (port, seq) = (syn.tcp().source_port(), syn.tcp().sequence().0);
    assert_eq!(syn.tcp().flags(), SYN);
    peer.inject(&segment((7, port), SYN | ACK, 500, seq.wrapping_add(1), &[]));
    assert_eq!(peer.expect_v6().tcp().flags(), ACK);
    assert_eq!(peer.state(id), millrace_stack::State::Established);
    peer.stack.abort(id);
    peer.stack.release(id);
    while peer.next_packet().is_some() {}
}
