//! Bytes that nobody sends in good faith.

use std::net::{Ipv4Addr, Ipv6Addr};

use millrace_wire::ether::EtherType;
use millrace_wire::tcp::{Flags, OptionWriter};
use millrace_wire::vlan::Tag;
use millrace_wire::{Mac, Seq, arp, ether, icmpv4, icmpv6, ipv4, ipv6, ndp, protocol, tcp, udp};
use proptest::prelude::*;

use crate::{payload, touch};

/// One good frame of each kind, to be cut and flipped.
fn good_frames() -> Vec<Vec<u8>> {
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let (source, destination) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let link = |ether_type: u16, payload: &[u8]| {
        let mut frame = vec![0; ether::HEADER_LEN];
        ether::emit(&mut frame, mac, mac, ether_type);
        [frame, payload.to_vec()].concat()
    };
    let network = |protocol: u8, payload: &[u8]| {
        let mut packet = vec![0; ipv4::HEADER_LEN];
        let header = ipv4::Header {
            source,
            destination,
            protocol,
            ttl: 64,
            tos: 0,
            identification: 1,
            dont_fragment: true,
        };
        header.emit(&mut packet, payload.len());
        [packet, payload.to_vec()].concat()
    };
    let network6 = |next_header: u8, payload: &[u8]| {
        let mut packet = vec![0; ipv6::HEADER_LEN];
        let header = ipv6::Header {
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::LOCALHOST,
            next_header,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
        };
        header.emit(&mut packet, payload.len());
        [packet, payload.to_vec()].concat()
    };

    let mut request = [0; arp::LEN];
    arp::emit(&mut request, arp::Operation::Request, mac, source, mac, destination);

    let mut echo = [0; icmpv4::HEADER_LEN + 16];
    icmpv4::emit_echo_request(&mut echo, 1, 2, &[7; 16]);

    let mut datagram = vec![0; udp::HEADER_LEN];
    udp::emit(&mut datagram, 1000, 53, 5);
    datagram.extend(b"query");

    let segment = |flags, options: &OptionWriter, payload: &[u8]| {
        let mut bytes = vec![0; tcp::HEADER_LEN + options.padded().len()];
        let header = tcp::Header {
            source_port: 40000,
            destination_port: 80,
            sequence: Seq(1),
            acknowledgement: Seq(2),
            flags,
            window: 3,
            urgent: 0,
        };
        header.emit(&mut bytes, options.padded());
        [bytes, payload.to_vec()].concat()
    };
    let mut handshake = OptionWriter::new();
    handshake.mss(1460).sack_permitted().timestamps(1, 2).window_scale(7);
    let syn = segment(Flags::SYN, &handshake, &[]);
    let mut recovery = OptionWriter::new();
    recovery.timestamps(1, 2).sack(&[(Seq(1), Seq(2)), (Seq(5), Seq(9)), (Seq(11), Seq(12))]);
    let duplicate = segment(Flags::ACK, &recovery, b"data");

    let mut error = [0; icmpv4::HEADER_LEN + 48];
    icmpv4::emit_unreachable(&mut error, 4, 1400, &network(protocol::TCP, &syn));

    let mut tagged = [0; 4];
    Tag { pcp: 1, dei: false, vid: 5 }.emit(&mut tagged, EtherType::IPV4);
    let fragment = [protocol::UDP, 0, 0, 1, 0, 0, 0, 1];
    let options = [protocol::ICMPV6, 0, 1, 1, 0, 0xde, 0, 0];
    let mut solicitation = [0; 40];
    let len = ndp::emit_neighbour_solicitation(
        &mut solicitation,
        Ipv6Addr::LOCALHOST,
        Some(mac),
        Some([7; 6]),
    );
    let mut advertisement = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    advertisement.extend([3, 4, 64, 0xc0]);
    advertisement.extend([1; 28]);
    let mut too_big = [0; icmpv6::HEADER_LEN + 60];
    icmpv6::emit_error(&mut too_big, 2, 0, 1400, &network6(protocol::TCP, &syn));

    vec![
        link(EtherType::ARP, &request),
        link(EtherType::IPV4, &network(protocol::ICMP, &echo)),
        link(EtherType::IPV4, &network(protocol::ICMP, &error)),
        link(EtherType::IPV4, &network(protocol::UDP, &datagram)),
        link(EtherType::IPV4, &network(protocol::TCP, &syn)),
        link(EtherType::VLAN, &[&tagged[..], &network(protocol::TCP, &duplicate)].concat()),
        link(EtherType::IPV6, &network6(protocol::TCP, &duplicate)),
        link(EtherType::IPV6, &network6(44, &[&fragment[..], &datagram].concat())),
        link(EtherType::IPV6, &network6(protocol::ICMPV6, &advertisement)),
        link(EtherType::IPV6, &network6(protocol::ICMPV6, &too_big)),
        link(EtherType::IPV6, &network6(0, &[&options[..], &solicitation[..len]].concat())),
    ]
}

/// Reads every suffix that starts at a header as everything, so that a header is also reached
/// where a wrong parser would look for it.
fn touch_all_suffixes(frame: &[u8]) {
    for start in [0, 14, 18, 34, 38, 42, 54, 62] {
        touch::all(frame.get(start..).unwrap_or_default());
    }
}

#[test]
fn cut_anywhere() {
    for frame in good_frames() {
        for len in 0..=frame.len() {
            touch_all_suffixes(&frame[..len]);
        }
    }
}

#[test]
fn every_single_bit_flipped() {
    for mut frame in good_frames() {
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            touch_all_suffixes(&frame);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn every_value_of_every_byte() {
    for frame in good_frames() {
        for at in 0..frame.len() {
            for value in 0..=u8::MAX {
                let mut frame = frame.clone();
                frame[at] = value;
                touch_all_suffixes(&frame);
            }
        }
    }
}

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn random_bytes(bytes in payload(2000)) {
        touch::all(&bytes);
    }

    #[test]
    fn random_bytes_behind_good_beginnings(
        frame in prop::sample::select(good_frames()),
        keep: prop::sample::Index,
        tail in payload(200),
    ) {
        let keep = keep.index(frame.len() + 1);
        touch_all_suffixes(&[&frame[..keep], &tail[..]].concat());
    }

    #[test]
    fn several_bits_flipped(
        mut frame in prop::sample::select(good_frames()),
        flips in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        for flip in flips {
            let bit = flip.index(frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        touch_all_suffixes(&frame);
    }
}
