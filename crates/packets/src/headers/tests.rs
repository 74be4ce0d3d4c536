//! Rows of known frames, and that both ways of reading say the same of any.

use proptest::prelude::*;

use super::{FIELDS, Header, ROW, general, parse};

/// The general way alone.
fn slow(frame: &[u8], length: u32, timestamp: i64) -> Header {
    let mut header = Header { timestamp, length, ..Header::default() };
    general::parse(frame, &mut header);
    header
}

fn ethernet(tags: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0xb, 0x02, 0, 0, 0, 0, 0xa];
    for (place, tag) in tags.iter().enumerate() {
        let kind: u16 = if place + 1 < tags.len() { 0x88a8 } else { 0x8100 };
        frame.extend(kind.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ipv4(protocol: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let words = 5 + options;
    let total = (words * 4 + payload.len()) as u16;
    let mut packet = vec![0x40 | words as u8, 0xb8];
    packet.extend(total.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([63, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
    packet.extend(vec![1; options * 4]);
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, extensions: &[u8], payload: &[u8]) -> Vec<u8> {
    let len = (extensions.len() + payload.len()) as u16;
    let mut packet = vec![0x6b, 0x80, 0, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([next, 62]);
    packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(extensions);
    packet.extend(payload);
    packet
}

fn tcp(options: usize, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x30, 0x39, 0x01, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8];
    segment.extend([((5 + options) << 4) as u8 | 1, 0x18, 0xab, 0xcd, 0, 0, 0, 0]);
    segment.extend(vec![1; options * 4]);
    segment.extend(payload);
    segment
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x14, 0xe9, 0, 53];
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

#[test]
fn a_tcp_segment_over_ipv4() {
    let frame = ethernet(&[], 0x0800, &ipv4(6, 0, 0x4000, &tcp(3, b"GET /")));
    let row = parse(&frame, 70, 1_000);
    let wanted = Header {
        timestamp: 1_000,
        length: 70,
        source_mac: 0x0200_0000_000a,
        destination_mac: 0x0200_0000_000b,
        ether_type: 0x0800,
        l3_offset: 14,
        ip_version: 4,
        source_ipv4: 0xc000_0201,
        destination_ipv4: 0xc633_6402,
        protocol: 6,
        ttl: 63,
        traffic_class: 0xb8,
        l4_offset: 34,
        source_port: 12345,
        destination_port: 443,
        tcp_seq: 0x0102_0304,
        tcp_ack: 0x0506_0708,
        tcp_flags: 0x118,
        tcp_window: 0xabcd,
        payload_offset: 34 + 32,
        payload_length: 5,
        flow_hash: row.flow_hash,
        ..Header::default()
    };
    assert_eq!(row, wanted);
    assert_ne!(row.flow_hash, 0);
    assert_eq!(row, slow(&frame, 70, 1_000));
}

#[test]
fn a_datagram_over_ipv6_in_a_vlan() {
    let frame = ethernet(&[0xa005], 0x86dd, &ipv6(17, &[], &udp(b"?")));
    let row = parse(&frame, frame.len() as u32, 0);
    assert_eq!((row.vlan, row.vlan_tags, row.ether_type, row.l3_offset), (5, 1, 0x86dd, 18));
    assert_eq!((row.ip_version, row.protocol, row.ttl, row.traffic_class), (6, 17, 62, 0xb8));
    assert_eq!((row.source_ipv6_high, row.source_ipv6_low), (0x2001_0db8_0000_0000, 1));
    assert_eq!((row.destination_ipv6_high, row.destination_ipv6_low), (0x2001_0db8_0000_0000, 2));
    assert_eq!((row.source_port, row.destination_port), (5353, 53));
    assert_eq!((row.l4_offset, row.payload_offset, row.payload_length), (58, 66, 1));
    assert_eq!(row, slow(&frame, frame.len() as u32, 0));
}

#[test]
fn two_tags_options_fragments_and_extension_headers() {
    let double = parse(&ethernet(&[7, 8], 0x0800, &ipv4(17, 0, 0, &udp(b""))), 0, 0);
    assert_eq!((double.vlan, double.inner_vlan, double.vlan_tags), (7, 8, 2));
    assert_eq!(double.destination_port, 53);

    let options = parse(&ethernet(&[], 0x0800, &ipv4(17, 2, 0, &udp(b"ab"))), 0, 0);
    assert_eq!((options.l4_offset, options.payload_offset, options.payload_length), (42, 50, 2));

    let first = parse(&ethernet(&[], 0x0800, &ipv4(17, 0, 0x2000, &udp(b"abc"))), 0, 0);
    assert!(first.fragment && first.destination_port == 53 && first.l4_offset == 34);
    let later = parse(&ethernet(&[], 0x0800, &ipv4(17, 0, 0x0001, b"12345678")), 0, 0);
    assert!(later.fragment && later.destination_port == 0 && later.l4_offset == 0);
    assert_eq!(first.flow_hash, later.flow_hash);

    let hop_by_hop = [17, 0, 1, 4, 0, 0, 0, 0];
    let behind = parse(&ethernet(&[], 0x86dd, &ipv6(0, &hop_by_hop, &udp(b"x"))), 0, 0);
    assert_eq!((behind.protocol, behind.l4_offset, behind.destination_port), (17, 62, 53));
}

#[test]
fn arp_icmp_and_what_is_no_ip() {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend([2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2]);
    let row = parse(&ethernet(&[], 0x0806, &arp), 42, 0);
    assert_eq!((row.source_ipv4, row.destination_ipv4), (0xc000_0201, 0xc000_0202));
    assert_eq!((row.ip_version, row.flow_hash), (0, 0));

    let echo = ethernet(&[], 0x0800, &ipv4(1, 0, 0, &[8, 3, 0, 0, 0, 1, 0, 2, 9]));
    let row = parse(&echo, 0, 0);
    assert_eq!((row.icmp_type, row.icmp_code, row.payload_length), (8, 3, 1));
    assert_eq!(row, slow(&echo, 0, 0));

    for len in [0, 1, 13] {
        assert_eq!(parse(&vec![0xff; len], 0, 0).source_mac, 0);
    }
    assert_eq!(parse(&ethernet(&[], 0x88cc, b"lldp"), 0, 0).payload_length, 4);
}

/// Ethernet's padding is no payload, and what a capture cut off is not counted.
#[test]
fn payload_is_what_is_there_of_the_packet() {
    let mut padded = ethernet(&[], 0x0800, &ipv4(17, 0, 0, &udp(b"ab")));
    padded.resize(60, 0);
    assert_eq!(parse(&padded, 60, 0).payload_length, 2);
    let whole = ethernet(&[], 0x0800, &ipv4(6, 0, 0, &tcp(0, &[7; 100])));
    let cut = parse(&whole[..64], 154, 0);
    assert_eq!((cut.length, cut.payload_offset, cut.payload_length), (154, 54, 10));
}

#[test]
fn the_fields_lie_where_they_are_said_to_and_do_not_overlap() {
    let mut end = 0;
    for field in FIELDS {
        let size: usize = field.kind[1..].parse().unwrap();
        assert_eq!(field.offset % size, 0, "{}", field.name);
        assert_eq!(field.offset, end, "{}: there is a hole before it", field.name);
        end = field.offset + size;
    }
    assert_eq!(end, ROW);
}

fn upper() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        (0..11usize, bytes()).prop_map(|(options, payload)| (6, tcp(options, &payload))),
        bytes().prop_map(|payload| (17, udp(&payload))),
        (prop_oneof![Just(1u8), Just(58), Just(47), any::<u8>()], bytes()),
    ]
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![4 => Just(0u16), 1 => Just(0x4000), 1 => any::<u16>()];
    let tags = prop::collection::vec(any::<u16>(), 0..4);
    let packet = (upper(), any::<bool>(), 0..11usize, fragment, any::<bool>()).prop_map(
        |((protocol, upper), six, options, fragment, extended)| match (six, extended) {
            (false, _) => (0x0800u16, ipv4(protocol, options % 3, fragment, &upper)),
            (true, false) => (0x86dd, ipv6(protocol, &[], &upper)),
            (true, true) => {
                let header = [protocol, 0, 1, 4, 0, 0, 0, 0];
                (0x86dd, ipv6([0, 43, 44, 60][options % 4], &header, &upper))
            }
        },
    );
    let whole = (tags, packet).prop_map(|(tags, (kind, packet))| ethernet(&tags, kind, &packet));
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (whole, flips, any::<prop::sample::Index>(), 0..3u8).prop_map(|(mut frame, flips, cut, how)| {
        for (place, value) in flips {
            let place = place.index(frame.len());
            frame[place] = value;
        }
        match how {
            0 => frame.truncate(cut.index(frame.len() + 1)),
            1 => frame.resize(frame.len().max(60), 0),
            _ => {}
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    /// The quick way and the general one agree on every field of every frame.
    #[test]
    fn the_quick_way_says_what_the_general_one_says(frame in frames()) {
        prop_assert_eq!(parse(&frame, 7, 9), slow(&frame, 7, 9));
    }

    /// What a row points at lies within the frame.
    #[test]
    fn offsets_lie_within_the_frame(frame in frames()) {
        let row = parse(&frame, 0, 0);
        prop_assert!(row.payload_offset as usize + row.payload_length as usize <= frame.len());
        prop_assert!(row.l4_offset as usize <= frame.len() && row.l3_offset as usize <= frame.len());
    }

    #[test]
    fn any_bytes_have_a_row(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(parse(&bytes, 0, 0), slow(&bytes, 0, 0));
    }
}
