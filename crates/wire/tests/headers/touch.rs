//! Asks everything of bytes that may be anything. Nothing here may panic, and what the views say
//! must agree with the bytes they came from. Property tests and fuzz targets share it.

use std::hint::black_box;

use millrace_wire::domain::Name;
use millrace_wire::ipv6::extension;
use millrace_wire::tcp::{Quoted, Segment};
use millrace_wire::{Flow, arp, dhcpv4, ether, icmpv4, icmpv6, igmp, ipv4, ipv6, mld, ndp, udp};

/// Offset of a view's part in the bytes that the view was made from.
fn offset_in(part: &[u8], whole: &[u8]) -> usize {
    let offset = part.as_ptr() as usize - whole.as_ptr() as usize;
    assert!(offset + part.len() <= whole.len(), "a part outside of the whole");
    offset
}

/// Reads an Ethernet frame.
pub fn ether(bytes: &[u8]) {
    let Ok(frame) = ether::Frame::parse(bytes) else {
        return;
    };
    black_box((frame.destination(), frame.source(), frame.ether_type()));
    assert!(frame.vlan().is_some() || frame.inner_vlan().is_none());
    assert_eq!(offset_in(frame.payload(), bytes), frame.header_len());
    assert_eq!(frame.header_len() + frame.payload().len(), bytes.len());
}

/// Reads an ARP packet.
pub fn arp(bytes: &[u8]) {
    let Ok(packet) = arp::Packet::parse(bytes) else {
        return;
    };
    black_box((packet.sender_mac(), packet.sender_ip(), packet.target_mac(), packet.target_ip()));
    assert_eq!(arp::Operation::from(u16::from(packet.operation())), packet.operation());
}

/// Reads an IPv4 packet, whole or cut.
pub fn ipv4(bytes: &[u8]) {
    let whole = ipv4::Packet::parse(bytes);
    let cut = ipv4::Packet::parse_cut(bytes);
    if let Ok(packet) = &whole {
        assert_eq!(packet.header_len() + packet.payload().len(), packet.total_len());
        assert_eq!(cut.as_ref().map(ipv4::Packet::payload), Ok(packet.payload()));
    }
    let Ok(packet) = cut else {
        assert!(whole.is_err());
        return;
    };
    black_box((packet.source(), packet.destination(), packet.protocol(), packet.ttl()));
    black_box((packet.identification(), packet.dont_fragment(), packet.checksum()));
    black_box(packet.verify_checksum());
    assert_eq!(packet.dscp() << 2 | packet.ecn(), packet.tos());
    assert_eq!(packet.is_fragment(), packet.more_fragments() || packet.fragment_offset() > 0);
    assert_eq!(offset_in(packet.payload(), bytes), packet.header_len());
    assert!((ipv4::HEADER_LEN..=ipv4::MAX_HEADER_LEN).contains(&packet.header_len()));
    assert_eq!(ipv4::HEADER_LEN + packet.options().len(), packet.header_len());

    let mut options = packet.options_iter();
    let mut count = 0;
    for option in &mut options {
        count += 1;
        assert!(count <= 20);
        if let Ok(option) = option {
            offset_in(option.data, packet.options());
        }
    }
    assert!(options.next().is_none());
}

/// Reads an IPv6 packet, whole or cut.
pub fn ipv6(bytes: &[u8]) {
    if let Ok(packet) = ipv6::Packet::parse(bytes) {
        assert_eq!(packet.payload().len(), packet.payload_len());
    }
    let Ok(packet) = ipv6::Packet::parse_cut(bytes) else {
        return;
    };
    black_box((packet.source(), packet.destination(), packet.next_header(), packet.hop_limit()));
    assert_eq!(packet.dscp() << 2 | packet.ecn(), packet.traffic_class());
    assert!(packet.flow_label() < 1 << 20);
    assert_eq!(offset_in(packet.payload(), bytes), ipv6::HEADER_LEN);
    assert!(packet.payload().len() <= packet.payload_len());
    if let Ok(upper) = packet.upper_layer() {
        assert_eq!(offset_in(upper.payload, bytes), upper.offset);
        assert!(upper.offset + upper.payload.len() <= bytes.len());
    }
    let (mut number, mut rest) = (packet.next_header(), packet.payload());
    while let Ok(Some((header, behind))) = extension::Header::split(number, rest) {
        assert_eq!(header.len() + behind.len(), rest.len());
        assert!(header.len() >= 8 && header.len() % 8 == 0);
        black_box((header.routing_type(), header.segments_left()));
        let mut end = 2;
        for option in header.options().map_while(Result::ok) {
            assert_eq!(option.offset, end);
            end += if option.kind == 0 { 1 } else { 2 + option.data.len() };
            assert!(end <= header.len());
            black_box(option.action());
        }
        (number, rest) = (header.next, behind);
    }
}

/// Reads an ICMPv6 message.
pub fn icmpv6(bytes: &[u8]) {
    let Ok(packet) = icmpv6::Packet::parse(bytes) else {
        return;
    };
    black_box((packet.message_type(), packet.code(), packet.checksum()));
    black_box(packet.verify_checksum(0x1234));
    assert_eq!(offset_in(packet.body(), bytes), icmpv6::HEADER_LEN);
    match packet.kind() {
        icmpv6::Kind::EchoRequest { data, .. } | icmpv6::Kind::EchoReply { data, .. } => {
            assert_eq!(data, packet.body());
        }
        icmpv6::Kind::Unreachable { quote, .. }
        | icmpv6::Kind::PacketTooBig { quote, .. }
        | icmpv6::Kind::TimeExceeded { quote, .. }
        | icmpv6::Kind::ParameterProblem { quote, .. } => {
            assert!(packet.body().starts_with(quote));
            assert!(packet.is_error());
            ipv6(quote);
        }
        icmpv6::Kind::Other { .. } => {}
    }
}

/// Reads a message of neighbour discovery.
pub fn ndp(bytes: &[u8]) {
    let Ok(Some(message)) = ndp::Message::parse(bytes) else {
        return;
    };
    let options = match message {
        ndp::Message::RouterSolicitation { options }
        | ndp::Message::RouterAdvertisement { options, .. }
        | ndp::Message::NeighbourSolicitation { options, .. }
        | ndp::Message::NeighbourAdvertisement { options, .. }
        | ndp::Message::Redirect { options, .. } => options,
    };
    let mut count = 0;
    for option in options {
        count += 1;
        assert!(count <= bytes.len() / 8);
        match option {
            ndp::Opt::PrefixInformation(prefix) => assert!(prefix.len <= 128),
            ndp::Opt::RouteInformation { prefix, .. } => assert!(prefix <= 128),
            ndp::Opt::NameServers { servers, .. } => assert!(!servers.is_empty()),
            ndp::Opt::SearchDomains { names, .. } => {
                for label in names.flat_map(Name::labels) {
                    assert!((1..=63).contains(&label.len()));
                    offset_in(label, bytes);
                }
            }
            ndp::Opt::RedirectedHeader(quote) => ipv6(quote),
            ndp::Opt::Nonce(nonce) => assert!(nonce.len() >= 6),
            _ => {}
        }
    }
    black_box((options.source_link_layer(), options.target_link_layer()));
}

/// Reads an ICMP message.
pub fn icmpv4(bytes: &[u8]) {
    let Ok(packet) = icmpv4::Packet::parse(bytes) else {
        return;
    };
    black_box((packet.message_type(), packet.code(), packet.is_error()));
    black_box(packet.verify_checksum());
    assert_eq!(offset_in(packet.body(), bytes), icmpv4::HEADER_LEN);
    match packet.kind() {
        icmpv4::Kind::EchoRequest { data, .. } | icmpv4::Kind::EchoReply { data, .. } => {
            assert_eq!(data, packet.body());
        }
        icmpv4::Kind::Unreachable { quote, .. }
        | icmpv4::Kind::Redirect { quote, .. }
        | icmpv4::Kind::TimeExceeded { quote, .. }
        | icmpv4::Kind::ParameterProblem { quote, .. } => {
            assert!(packet.body().starts_with(quote));
            assert!(packet.is_error());
            ipv4(quote);
        }
        icmpv4::Kind::Other { .. } => {}
    }
}

/// Reads an IGMP message.
pub fn igmp(bytes: &[u8]) {
    let Ok(packet) = igmp::Packet::parse(bytes) else {
        return;
    };
    black_box(packet.verify_checksum());
    if let igmp::Kind::Query(query) = packet.kind() {
        assert!((1..=3).contains(&query.version) && query.robustness < 8);
        assert!(query.interval <= 31_744 && query.max_response.as_millis() <= 3_174_400);
        assert!(4 * query.sources().count() <= bytes.len());
        black_box(query.sources().last());
    }
}

/// Reads an MLD message.
pub fn mld(bytes: &[u8]) {
    let Ok(Some(kind)) = mld::parse(bytes) else {
        return;
    };
    if let mld::Kind::Query(query) = kind {
        assert!((1..=2).contains(&query.version) && query.robustness < 8);
        assert!(query.max_response.as_millis() <= 8_387_584);
        assert!(16 * query.sources().count() <= bytes.len());
        black_box(query.sources().last());
    }
}

/// Reads a DHCP message.
pub fn dhcpv4(bytes: &[u8]) {
    let Ok(packet) = dhcpv4::Packet::parse(bytes) else {
        return;
    };
    black_box((packet.is_reply(), packet.is_request(), packet.transaction(), packet.seconds()));
    black_box((packet.client_address(), packet.your_address(), packet.hardware_address()));
    black_box((packet.wants_broadcast(), packet.message_type()));
    let mut total = 0;
    for item in packet.options() {
        let item = item.expect("a parsed message has no broken option");
        offset_in(item.data, bytes);
        total += item.data.len() + 2;
        black_box(packet.addresses(item.code).last());
        black_box((packet.long_option(item.code), packet.short_option(item.code)));
    }
    assert!(total <= bytes.len());
    for route in packet.classless_routes().into_iter().flatten() {
        assert!(route.prefix <= 32);
    }
}

/// Reads a UDP datagram.
pub fn udp(bytes: &[u8]) {
    let Ok(datagram) = udp::Datagram::parse(bytes) else {
        return;
    };
    black_box((datagram.source_port(), datagram.destination_port()));
    black_box((datagram.verify_checksum(0x1234), datagram.has_partial_checksum(0x1234)));
    assert_eq!(datagram.has_checksum(), datagram.checksum() != 0);
    assert_eq!(offset_in(datagram.payload(), bytes), udp::HEADER_LEN);
    assert!(datagram.total_len() <= bytes.len());
}

/// Reads a TCP segment.
pub fn tcp(bytes: &[u8]) {
    let quoted = Quoted::parse(bytes);
    let Ok(segment) = Segment::parse(bytes) else {
        return;
    };
    assert_eq!(
        quoted,
        Ok(Quoted {
            source_port: segment.source_port(),
            destination_port: segment.destination_port(),
            sequence: segment.sequence(),
        })
    );
    black_box((segment.acknowledgement(), segment.window(), segment.urgent(), segment.ae()));
    black_box((segment.verify_checksum(0x1234), segment.has_partial_checksum(0x1234)));
    black_box((segment.checksum(), segment.flags().to_string()));
    assert_eq!(offset_in(segment.payload(), bytes), segment.header_len());
    assert_eq!(segment.total_len(), bytes.len());
    assert!(segment.sequence_len() as usize <= segment.payload().len() + 2);
    if let Ok(options) = segment.options() {
        assert!(options.window_scale.is_none_or(|scale| scale <= 14));
        assert!(options.sack().len() <= 4);
        if let Some(fast_open) = options.fast_open {
            assert_eq!(fast_open.is_request(), fast_open.cookie().is_empty());
        }
        if let Some(timeout) = options.user_timeout {
            black_box(timeout.duration());
        }
        if let Some(timestamps) = millrace_wire::tcp::timestamps_only(segment.options_bytes()) {
            assert_eq!(options.timestamps, Some(timestamps));
        }
    } else {
        assert!(millrace_wire::tcp::timestamps_only(segment.options_bytes()).is_none());
    }
}

/// Reads a whole frame at one glance.
pub fn flow(bytes: &[u8]) {
    let flow = Flow::parse(bytes);
    assert!(flow.payload_offset + flow.payload_len <= bytes.len());
    assert!(flow.l3_offset.is_none_or(|offset| offset <= bytes.len()));
    assert!(flow.l4_offset.is_none_or(|offset| offset <= flow.payload_offset));
    assert_eq!(flow.source_port.is_some(), flow.destination_port.is_some());
    assert_eq!(flow.source.is_some(), flow.destination.is_some());
    assert!(flow.ip_version == 0 || flow.source.is_some());
    assert!(flow.tcp_flags.is_none() || flow.source_port.is_some());
}

/// Reads the bytes as everything.
pub fn all(bytes: &[u8]) {
    for touch in [ether, arp, ipv4, ipv6, icmpv4, icmpv6, ndp, udp, tcp, flow] {
        touch(bytes);
    }
}
