//! IPv6 (RFC 8200): what is taken, TCP and UDP over it, and sockets of both families.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::ErrorKind;

use millrace_frames::{ChecksumState, Owners};
use millrace_port::memory::WireConfig;
use millrace_stack::{Config, Failure, InterfaceAddress, ListenOptions, Ready, SocketId, State};
use millrace_wire::tcp::Flags;
use millrace_wire::{checksum, icmpv6, ipv6, protocol, udp};

use crate::common::craft::{PEER_IP, PEER_MAC, Packet, STACK_IP, udp_datagram};
use crate::common::craft6::{
    ALL_NODES, PEER_V6, RouterAdvertisement, STACK_V6, echo, error, from_v4, packet, segment, udp,
};
use crate::common::net::Net;
use crate::common::peer::{ACK, FIN, Peer, RST, SYN, pattern};
use crate::{met, six};

const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80);
const V6_ONLY: ListenOptions =
    ListenOptions { backlog: 4, syn_queue: None, defer_accept: None, fast_open: 0, v6_only: true };
const ANY_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);

/// The name of the one drop counter that rose.
fn dropped(packet: &[u8]) -> &'static str {
    let mut peer = met(|_| {});
    let before = peer.stack.counters().clone();
    peer.inject(packet);
    let risen: Vec<_> = peer
        .stack
        .counters()
        .iter()
        .zip(before.iter())
        .filter(|((name, now), (_, then))| name.starts_with("drop_") && now > then)
        .map(|((name, _), _)| name)
        .collect();
    while peer.next_packet().is_some() {}
    match risen[..] {
        [one] => one,
        _ => panic!("{risen:?}"),
    }
}

#[test]
fn what_is_not_for_us_is_dropped_by_name() {
    let good = echo(PEER_V6, STACK_V6, b"ping");
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        dropped(&bytes)
    };
    assert_eq!(changed(&|bytes| bytes[14] = 0x45), "drop_ip_malformed");
    assert_eq!(changed(&|bytes| bytes.truncate(50)), "drop_ip_malformed");
    assert_eq!(changed(&|bytes| bytes.truncate(60)), "drop_ip_malformed");
    assert_eq!(changed(&|bytes| bytes[53] = 9), "drop_ip_not_ours");
    assert_eq!(changed(&|bytes| bytes[22] = 0xff), "drop_ip_source");
    assert_eq!(changed(&|bytes| bytes[60] ^= 1), "drop_icmp_malformed");
    // Addresses that no host on a link has, written as ours or as a neighbour's.
    for text in ["::1", "::ffff:192.0.2.2", "::192.0.2.2"] {
        let odd: Ipv6Addr = text.parse().unwrap();
        assert_eq!(dropped(&echo(odd, STACK_V6, b"")), "drop_ip_source", "{text}");
        assert_eq!(dropped(&echo(PEER_V6, odd, b"")), "drop_ip_not_ours", "{text}");
    }
    assert_eq!(dropped(&echo(Ipv6Addr::UNSPECIFIED, STACK_V6, b"")), "drop_ip_source");
    let group: Ipv6Addr = "ff02::77".parse().unwrap();
    assert_eq!(dropped(&echo(PEER_V6, group, b"")), "drop_multicast_not_joined");
    let unknown = packet(PEER_V6, STACK_V6, 64, 99, b"?");
    assert_eq!(dropped(&unknown), "drop_ip_protocol");
    assert_eq!(dropped(&packet(PEER_V6, STACK_V6, 64, 59, b"")), "drop_ip_protocol");
    let padded = packet(PEER_V6, STACK_V6, 64, 60, &[59, 0, 1, 4, 0, 0, 9, 0]);
    assert_eq!(dropped(&padded), "drop_ip_extension");
    let to_all = segment((5000, 80), SYN, 1, 0, &[]);
    let mut to_all = to_all;
    to_all[38..54].copy_from_slice(&ALL_NODES.octets());
    assert_eq!(dropped(&to_all), "drop_tcp_not_unicast");
}

#[test]
fn nobody_opens_a_connection() {
    let nobody = Ipv6Addr::UNSPECIFIED;
    let mut syn = segment((5000, 80), SYN, 1, 0, &[])[54..].to_vec();
    syn[16..18].fill(0);
    let pseudo = checksum::pseudo_v6(nobody, STACK_V6, protocol::TCP, syn.len());
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&syn)));
    syn[16..18].copy_from_slice(&sum.to_be_bytes());
    let syn = packet(nobody, STACK_V6, 64, protocol::TCP, &syn);

    let mut peer = met(|_| {});
    peer.stack.listen(ANY, 4).unwrap();
    peer.inject(&syn);
    assert!(peer.next_packet().is_none());
    assert_eq!(peer.stack.counters().drop_ip_source, 1);
    // Nor after its routes have changed, which is when it forgets whom it spoke with.
    let address = InterfaceAddress { address: "2001:db8::77".parse().unwrap(), prefix: 64 };
    peer.stack.add_address(address).unwrap();
    while peer.next_packet().is_some() {}
    peer.inject(&syn);
    assert!(peer.next_packet().is_none());
    assert_eq!(peer.stack.counters().drop_ip_source, 2);
}

#[test]
fn an_ipv4_stack_takes_no_ipv6() {
    let mut peer = Peer::new();
    peer.inject(&echo(PEER_V6, STACK_V6, b"ping"));
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_ipv6, 1);
    let error = peer.stack.connect(SocketAddr::new(PEER_V6.into(), 80), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
}

#[test]
fn an_ipv6_address_makes_no_ipv4_address_of_the_mapped_one() {
    // ::ffff:192.0.2.1 on the wire must not reach what listens at 192.0.2.1.
    let mut peer = Peer::with(|config| {
        config.addresses.push(InterfaceAddress { address: STACK_V6.into(), prefix: 64 });
        config.ipv6.dad_transmits = 0;
        config.ipv6.link_local = false;
    });
    peer.listen(80, 4);
    let mut syn = segment((5000, 80), SYN, 1, 0, &[]);
    syn[38..54].copy_from_slice(&STACK_IP.to_ipv6_mapped().octets());
    peer.inject_with(&syn, ChecksumState::Verified);
    peer.expect_silence();
    assert_eq!(peer.stack.counters().drop_ip_not_ours, 1);
}

#[test]
fn a_connection_is_opened_from_outside_used_and_closed() {
    let mut peer = met(|_| {});
    let listener = peer.stack.listen(SocketAddr::new(STACK_V6.into(), 80), 4).unwrap();
    peer.inject(&segment((5000, 80), SYN, 100, 0, &[]));
    let answer = peer.expect_v6();
    assert_eq!((answer.to, answer.source, answer.hop_limit), (PEER_MAC, STACK_V6, 64));
    let syn = answer.tcp();
    assert_eq!((syn.flags(), syn.acknowledgement().0), (SYN | ACK, 101));
    assert_eq!(syn.options().unwrap().mss, Some(1440));
    let iss = syn.sequence().0;
    peer.inject(&segment((5000, 80), ACK, 101, iss.wrapping_add(1), b"question"));
    let id = peer.stack.accept(listener).unwrap().expect("a connection");
    assert_eq!(peer.read(id), b"question");
    let info = peer.stack.info(id).unwrap();
    assert_eq!(info.local, SocketAddr::new(STACK_V6.into(), 80));
    assert_eq!(info.remote, SocketAddr::new(PEER_V6.into(), 5000));
    peer.stack.set_no_delay(id, true).unwrap();
    peer.write(id, 0, 1500);
    let data: Vec<_> = core::iter::from_fn(|| peer.next_packet())
        .map(|packet| match packet {
            crate::common::craft::Packet::V6(packet) => packet.tcp().payload().to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(data.concat() == pattern(0, 1500));
    assert_eq!(data[0].len(), 1000, "the peer's segment size");
    let fin = iss.wrapping_add(1501);
    peer.inject(&segment((5000, 80), FIN | ACK, 109, fin, &[]));
    peer.expect_v6();
    peer.stack.close(id);
    let last = peer.expect_v6();
    assert_eq!(last.tcp().flags() & !Flags::PSH, FIN | ACK);
    peer.inject(&segment((5000, 80), ACK, 110, fin.wrapping_add(1), &[]));
    assert_eq!(peer.stack.connections(), 0);
    peer.stack.close_listener(listener);
}

/// The lengths of the packets with segments that the stack has sent.
fn segments(peer: &mut Peer) -> Vec<usize> {
    let packets = core::iter::from_fn(|| peer.next_packet());
    let six = packets.filter_map(|packet| match packet {
        Packet::V6(packet) => Some(packet),
        _ => None,
    });
    six.filter(|packet| packet.protocol == protocol::TCP)
        .map(|packet| ipv6::HEADER_LEN + packet.payload.len())
        .collect()
}

#[test]
fn an_open_connection_follows_what_a_router_says_fits_the_link() {
    let mut peer = met(|config| config.ipv6.router_discovery = true);
    // RFC 4861 §6.3.4. A lasting route, so that nobody is asked for another.
    let router = RouterAdvertisement::default().route(Ipv6Addr::UNSPECIFIED, 0, 0, u32::MAX);
    peer.inject(&router.bytes());
    let listener = peer.stack.listen(ANY, 4).unwrap();
    let mut syn = peer.segment(SYN, 0, 0, &[]);
    syn.options.mss(1440);
    let syn = from_v4(&syn.bytes());
    peer.inject(&syn);
    peer.flow.iss = peer.expect_v6().tcp().sequence().0;
    let acknowledge = |peer: &mut Peer, all: u32| {
        let ack = from_v4(&peer.segment(ACK, 1, all, &[]).bytes());
        peer.inject(&ack);
    };
    acknowledge(&mut peer, 1);
    let id = peer.stack.accept(listener).unwrap().expect("a connection");
    peer.stack.set_no_delay(id, true).unwrap();
    let mut sent = 1;
    for mtu in [1280, 1500] {
        peer.inject(&router.clone().mtu(mtu).bytes());
        peer.stack.write(id, &[7; 4000]).unwrap();
        assert_eq!(segments(&mut peer).into_iter().max(), Some(mtu as usize));
        sent += 4000;
        acknowledge(&mut peer, sent);
    }
    peer.stack.abort(id);
    peer.stack.release(id);
    peer.stack.close_listener(listener);
    while peer.next_packet().is_some() {}
}

#[test]
fn the_hot_path_and_the_general_one_say_the_same() {
    // An extension header takes a segment off the hot path.
    let mut peer = met(|_| {});
    let listener = peer.stack.listen(ANY, 4).unwrap();
    for port in [5000, 5001] {
        let mut syn = segment((port, 80), SYN, 100, 0, &[]);
        if port == 5001 {
            syn.splice(54..54, [protocol::TCP, 0, 1, 4, 0, 0, 0, 0]);
            syn[20] = 60;
            syn[19] += 8;
        }
        peer.inject(&syn);
        let answer = peer.expect_v6();
        let answer = answer.tcp();
        assert_eq!((answer.destination_port(), answer.flags()), (port, SYN | ACK));
    }
    let mut wrong = segment((5002, 80), SYN, 100, 0, &[]);
    wrong[70] ^= 1;
    peer.inject(&wrong);
    assert_eq!(peer.stack.counters().drop_tcp_checksum, 1);
    peer.stack.close_listener(listener);
    while peer.next_packet().is_some() {}
}

#[test]
fn a_port_that_nobody_has_is_refused() {
    let mut peer = met(|_| {});
    peer.inject(&segment((5000, 81), SYN, 100, 0, &[]));
    let reset = peer.expect_v6();
    assert_eq!((reset.tcp().flags(), reset.to), (RST | ACK, PEER_MAC));
    let id = peer.stack.connect(SocketAddr::new(PEER_V6.into(), 7), None).unwrap();
    let syn = peer.expect_v6();
    let (port, seq) = (syn.tcp().source_port(), syn.tcp().sequence().0);
    peer.inject(&segment((7, port), RST | ACK, 0, seq.wrapping_add(1), &[]));
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::Refused));
    peer.stack.release(id);
}

#[test]
fn errors_about_a_connection_are_believed_by_their_numbers() {
    for (number, code, failure) in [
        (icmpv6::kind::UNREACHABLE, icmpv6::unreachable::PORT, Failure::Refused),
        (icmpv6::kind::UNREACHABLE, icmpv6::unreachable::NO_ROUTE, Failure::HostUnreachable),
        (icmpv6::kind::PARAMETER_PROBLEM, icmpv6::parameter::NEXT_HEADER, Failure::Refused),
    ] {
        let mut peer = met(|_| {});
        let id = peer.stack.connect(SocketAddr::new(PEER_V6.into(), 7), None).unwrap();
        let syn = peer.expect_v6();
        let mut quote = packet(STACK_V6, PEER_V6, 63, protocol::TCP, &syn.payload);
        quote.drain(..14);
        // One number beside what is in flight.
        quote[47] ^= 0x80;
        peer.inject(&error(PEER_V6, number, code, 0, &quote));
        assert_eq!(peer.state(id), State::SynSent);
        assert_eq!(peer.stack.counters().drop_icmp_unrelated, 1);
        quote[47] ^= 0x80;
        // Seen again, with as little as a router must quote.
        peer.inject(&error(PEER_V6, number, code, 0, &quote[..48]));
        assert_eq!(peer.stack.failure(id).unwrap(), Some(failure));
        peer.stack.release(id);
    }
}

#[test]
fn a_packet_whose_hops_ran_out_ends_no_attempt() {
    let mut peer = met(|_| {});
    let id = peer.stack.connect(SocketAddr::new(PEER_V6.into(), 7), None).unwrap();
    let syn = peer.expect_v6();
    let quote = packet(STACK_V6, PEER_V6, 1, protocol::TCP, &syn.payload);
    for (count, code) in [(1, 0), (2, 1)] {
        peer.inject(&error(PEER_V6, icmpv6::kind::TIME_EXCEEDED, code, 0, &quote[14..]));
        assert_eq!(peer.state(id), State::SynSent);
        assert_eq!(peer.stack.counters().icmp_errors_soft, count);
    }
    peer.stack.release(id);
}

fn received(peer: &mut Peer, socket: SocketId) -> Option<(Vec<u8>, SocketAddr, IpAddr)> {
    let datagram = peer.stack.receive_datagram(socket).unwrap()?;
    let bytes = peer.stack.arena().bytes(datagram.frame).to_vec();
    peer.stack.arena_mut().release(datagram.frame, Owners::RECEIVED);
    Some((bytes, datagram.source, datagram.destination))
}

#[test]
fn datagrams_go_both_ways() {
    let mut peer = met(|_| {});
    let socket = peer.bind_datagram(SocketAddr::new(STACK_V6.into(), 53));
    peer.inject(&udp((PEER_V6, 999), (STACK_V6, 53), b"question"));
    let from = SocketAddr::new(PEER_V6.into(), 999);
    let expected = (b"question".to_vec(), from, STACK_V6.into());
    assert_eq!(received(&mut peer, socket), Some(expected));
    peer.stack.send_datagram(socket, b"answer", Some(from)).unwrap();
    let answer = peer.expect_v6();
    let datagram = udp::Datagram::parse(&answer.payload).unwrap();
    assert_eq!((datagram.source_port(), datagram.destination_port()), (53, 999));
    assert_eq!((datagram.payload(), answer.to), (&b"answer"[..], PEER_MAC));
    // A checksum is no choice here (RFC 8200 §8.1).
    let mut bare = udp((PEER_V6, 999), (STACK_V6, 53), b"question");
    bare[60..62].fill(0);
    peer.inject(&bare);
    assert_eq!(peer.stack.counters().drop_udp_checksum, 1);
    assert_eq!(received(&mut peer, socket), None);
    // Not even where none would be right by chance.
    let field = |bytes: &[u8]| [bytes[60], bytes[61]];
    let complement = field(&udp((PEER_V6, 999), (STACK_V6, 53), &[0; 2]));
    let mut bare = udp((PEER_V6, 999), (STACK_V6, 53), &complement);
    assert_eq!(field(&bare), [0xff; 2]);
    bare[60..62].fill(0);
    peer.inject(&bare);
    assert_eq!(peer.stack.counters().drop_udp_checksum, 2);
    assert_eq!(received(&mut peer, socket), None);
    let longest = vec![7; 1452];
    peer.stack.send_datagram(socket, &longest, Some(from)).unwrap();
    assert_eq!(peer.expect_v6().payload.len(), 1460);
}

fn both(change: impl FnOnce(&mut Config)) -> Peer {
    let mut peer = met(|config| {
        config.addresses.push(InterfaceAddress { address: STACK_IP.into(), prefix: 24 });
        change(config);
    });
    peer.introduce();
    peer
}

/// Which families a SYN to port 80 gets a connection by.
fn opened(peer: &mut Peer) -> (bool, bool) {
    peer.inject(&segment((5000, 80), SYN, 100, 0, &[]));
    let six = peer.expect_v6().tcp().flags() == SYN | ACK;
    peer.send_syn(SYN, Some(1000), None);
    let four = peer.take()[0].flags == SYN | ACK;
    (four, six)
}

#[test]
fn a_listener_takes_the_families_that_it_was_asked_to() {
    let mut peer = both(|_| {});
    let any = peer.stack.listen(ANY, 4).unwrap();
    assert_eq!(peer.stack.listener_address(any).unwrap(), ANY);
    assert_eq!(opened(&mut peer), (true, true));
    // A port is one family's, or both's.
    for taken in [ANY, ANY_V4] {
        assert_eq!(peer.stack.listen(taken, 4).unwrap_err().kind(), ErrorKind::AddrInUse);
    }
    assert_eq!(peer.stack.listen_with(ANY, V6_ONLY).unwrap_err().kind(), ErrorKind::AddrInUse);
    peer.stack.close_listener(any);
    while peer.next_packet().is_some() {}

    let mut peer = both(|_| {});
    let four = peer.stack.listen(ANY_V4, 4).unwrap();
    assert_eq!(opened(&mut peer), (true, false));
    let six = peer.stack.listen_with(ANY, V6_ONLY).unwrap();
    peer.inject(&segment((5001, 80), SYN, 100, 0, &[]));
    assert_eq!(peer.expect_v6().tcp().flags(), SYN | ACK);
    peer.stack.close_listener(four);
    peer.stack.close_listener(six);
    while peer.next_packet().is_some() {}

    let mut peer = both(|_| {});
    let six = peer.stack.listen_with(ANY, V6_ONLY).unwrap();
    assert_eq!(opened(&mut peer), (false, true));
    peer.stack.close_listener(six);
    while peer.next_packet().is_some() {}
}

#[test]
fn a_socket_takes_the_families_that_it_was_asked_to() {
    let mut peer = both(|_| {});
    let any = peer.bind_datagram(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 53));
    peer.inject(&udp((PEER_V6, 999), (STACK_V6, 53), b"six"));
    peer.inject(&udp_datagram((PEER_IP, 999), (STACK_IP, 53), b"four"));
    let (six, from_six, _) = received(&mut peer, any).unwrap();
    let (four, from_four, to) = received(&mut peer, any).unwrap();
    assert_eq!((&six[..], &four[..]), (&b"six"[..], &b"four"[..]));
    assert_eq!(to, IpAddr::from(STACK_IP));
    for remote in [from_six, from_four] {
        peer.stack.send_datagram(any, b"answer", Some(remote)).unwrap();
        assert!(peer.next_packet().is_some());
    }
    peer.stack.close_datagram(any);
    let only = peer.stack.bind_datagram_v6_only(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 53));
    let only = only.unwrap();
    peer.inject(&udp_datagram((PEER_IP, 999), (STACK_IP, 53), b"four"));
    assert_eq!(received(&mut peer, only), None);
    let four = peer.bind_datagram(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 53));
    let wrong = peer.stack.send_datagram(four, b"?", Some(from_six)).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidInput);
    peer.stack.close_datagram(only);
    while peer.next_packet().is_some() {}
}

const ADDRESSES: [Ipv6Addr; 2] = [STACK_V6, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)];

fn net(gso: u32) -> Net {
    let wire = WireConfig { gso, ..WireConfig::default() };
    Net::new(wire, 2048, |index, config| {
        config.addresses = vec![InterfaceAddress { address: ADDRESSES[index].into(), prefix: 64 }];
    })
}

#[test]
fn two_stacks_talk_after_duplicate_address_detection() {
    for gso in [0, 65_160] {
        let mut net = net(gso);
        let to = SocketAddr::new(ADDRESSES[1].into(), 80);
        let listener = net.hosts[1].stack.listen(ANY, 8).unwrap();
        // At once: the SYN waits until the address is ours.
        let client = net.hosts[0].stack.connect(to, None).unwrap();
        let begun = net.now;
        let data = pattern(0, 300_000);
        let (mut server, mut sent, mut got) = (None, 0, Vec::new());
        let mut finished = false;
        net.run(
            Duration::from_secs(60),
            |net| {
                let before = (sent, got.len());
                if server.is_none() {
                    server = net.hosts[1].stack.accept(listener).unwrap();
                }
                if let Ok(written) = net.hosts[0].stack.write(client, &data[sent..]) {
                    sent += written;
                }
                if let Some(server) = server {
                    got.extend(net.hosts[1].read(server));
                }
                finished |= got.len() == data.len();
                (sent, got.len()) != before
            },
            |_| false,
        );
        assert!(finished && got == data, "{} of {} bytes", got.len(), data.len());
        assert!(net.now - begun >= Duration::from_secs(1));
        let info = net.hosts[0].stack.info(client).unwrap();
        assert_eq!(info.local.ip(), IpAddr::from(ADDRESSES[0]));
        let server = server.expect("accepted");
        for (host, id) in [(0, client), (1, server)] {
            net.hosts[host].stack.close(id);
        }
        net.hosts[1].stack.close_listener(listener);
        net.idle(Duration::from_secs(200));
        net.assert_clean();
    }
}

#[test]
fn a_connection_fails_when_its_address_is_another_hosts() {
    let mut peer = six(|config| config.ipv6.dad_transmits = 1);
    let id = peer.stack.connect(SocketAddr::new(PEER_V6.into(), 80), None).unwrap();
    while peer.next_packet().is_some() {}
    assert_eq!(peer.state(id), State::SynSent);
    peer.inject(&crate::common::craft6::solicitation(Ipv6Addr::UNSPECIFIED, STACK_V6, None));
    assert_eq!(peer.stack.counters().duplicate_addresses, 1);
    assert_eq!(peer.stack.failure(id).unwrap(), Some(Failure::Aborted));
    assert!(peer.ready(id).has(Ready::CLOSED));
    peer.stack.release(id);
}

#[test]
fn ipv4_written_as_ipv6_is_ipv4() {
    let mut peer = both(|config| config.gateway = Some(PEER_IP.into()));
    let mapped = |v4: Ipv4Addr, port| SocketAddr::new(v4.to_ipv6_mapped().into(), port);
    // No connection to many (RFC 9293 §3.9.2.3), by neither name.
    for to in ["224.0.0.1", "192.0.2.255", "255.255.255.255", "0.0.0.0"] {
        let error = peer.stack.connect(mapped(to.parse().unwrap(), 80), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let local = mapped(STACK_IP, 0);
    let id = peer.stack.connect(mapped(PEER_IP, 80), Some(local)).unwrap();
    assert_eq!(peer.stack.info(id).unwrap().remote, SocketAddr::new(PEER_IP.into(), 80));
    peer.stack.abort(id);
    peer.stack.release(id);
    while peer.next_packet().is_some() {}
    let socket = peer.bind_datagram(mapped(Ipv4Addr::UNSPECIFIED, 53));
    let own = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 53);
    assert_eq!(peer.stack.datagram_address(socket).unwrap(), own);
    peer.stack.send_datagram(socket, b"four", Some(mapped(PEER_IP, 7))).unwrap();
    assert!(matches!(peer.next_packet(), Some(Packet::Udp { destination: (PEER_IP, 7), .. })));
}

/// RFC 3493 §5.3.
#[test]
fn a_socket_of_ipv6_only_sends_no_ipv4() {
    let mut peer = both(|_| {});
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 53);
    let socket = peer.stack.bind_datagram_v6_only(any).unwrap();
    for to in [PEER_IP.into(), IpAddr::from(PEER_IP.to_ipv6_mapped())] {
        let to = SocketAddr::new(to, 7);
        for refused in [
            peer.stack.connect_datagram(socket, to).unwrap_err(),
            peer.stack.send_datagram(socket, b"?", Some(to)).unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        }
    }
    let own = SocketAddr::new(STACK_IP.to_ipv6_mapped().into(), 54);
    let refused = peer.stack.bind_datagram_v6_only(own).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    peer.expect_silence();
}

#[test]
fn no_packet_leaves_for_what_is_no_other_host() {
    let mut peer = met(|config| config.gateway = Some(PEER_V6.into()));
    let socket = peer.bind_datagram(SocketAddr::new(STACK_V6.into(), 9));
    for to in [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED] {
        let to = SocketAddr::new(to.into(), 7);
        for refused in [
            peer.stack.send_datagram(socket, b"?", Some(to)).unwrap_err(),
            peer.stack.connect(to, None).unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        }
    }
    peer.expect_silence();
}

#[test]
fn a_broadcast_leaves_from_the_first_ipv4_address() {
    let mut peer = both(|_| {});
    let socket = peer.bind_datagram(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 9));
    let all = SocketAddr::new(Ipv4Addr::BROADCAST.into(), 7);
    peer.stack.send_datagram(socket, b"?", Some(all)).unwrap();
    assert!(matches!(peer.next_packet(), Some(Packet::Udp { source: (STACK_IP, 9), .. })));
    // Without one there is nowhere to send from.
    let mut peer = met(|_| {});
    let socket = peer.bind_datagram(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 9));
    let error = peer.stack.send_datagram(socket, b"?", Some(all)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

/// RFC 4862 §5.4.5.
#[test]
fn no_connection_comes_from_an_address_that_another_host_has() {
    let mut peer = six(|config| config.ipv6.dad_transmits = 1);
    let second = "2001:db8::77".parse().unwrap();
    peer.stack.add_address(InterfaceAddress { address: second, prefix: 64 }).unwrap();
    peer.inject(&crate::common::craft6::solicitation(Ipv6Addr::UNSPECIFIED, STACK_V6, None));
    peer.advance(Duration::from_secs(2));
    while peer.next_packet().is_some() {}
    let to = SocketAddr::new(PEER_V6.into(), 80);
    let error = peer.stack.connect(to, Some(SocketAddr::new(STACK_V6.into(), 0))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{error}");
    assert_eq!(peer.stack.connections(), 0);
    let id = peer.stack.connect(to, Some(SocketAddr::new(second, 0))).unwrap();
    peer.stack.abort(id);
    peer.stack.release(id);
    peer.advance(Duration::from_secs(5));
    while peer.next_packet().is_some() {}
}
