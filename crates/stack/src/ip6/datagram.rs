//! UDP over IPv6: what differs on the way out (RFC 8200 §8.1). The way in is [`crate::udp`]'s.

use core::net::Ipv6Addr;
use std::io;

use millrace_frames::Frame;
use millrace_wire::{checksum, icmpv4, icmpv6, ipv6, ndp, protocol, udp};

use crate::address::{Word, is_v4};
use crate::bound::Bound;
use crate::control::{Hop, L4_V6};
use crate::first_hop::Path;
use crate::fragmentation::{Body, IpHeader};
use crate::ip::{IpInfo, pseudo};
use crate::multicast::leaves_the_host;
use crate::stack::Stack;
use crate::udp::too_long;

impl Stack {
    /// Sends one datagram from a socket's port to an IPv6 destination.
    pub(crate) fn send_datagram_v6(
        &mut self,
        (bound, port): (Bound, u16),
        (destination, to_port): (Ipv6Addr, u16),
        (group_hops, looped, group_source): (u8, bool, Word),
        dont_fragment: bool,
        data: &[u8],
    ) -> io::Result<()> {
        let one_packet = self.one_packet_to(destination.to_bits());
        let most = match dont_fragment {
            true => one_packet - ipv6::HEADER_LEN - udp::HEADER_LEN,
            false => usize::from(u16::MAX) - udp::HEADER_LEN,
        };
        if data.len() > most {
            return Err(too_long(data.len(), most, dont_fragment));
        }
        let group = destination.is_multicast();
        let Path { local: chosen, next_hop } = match group {
            true => self.multicast_path(destination.into(), group_source)?,
            false => self.route_to(destination.into())?,
        };
        let local = self.datagram_source(bound, chosen)?;
        let source = self.addresses.word(local);
        let hop = match group {
            true => Hop::Mac(ndp::group_mac(destination)),
            false if local == chosen => Hop::Address(next_hop),
            false => match self.addresses.route_from(destination.into(), local) {
                Some(path) => Hop::Address(path.next_hop),
                None => return Err(io::ErrorKind::NetworkUnreachable.into()),
            },
        };
        let len = udp::HEADER_LEN + data.len();
        let header = ipv6::Header {
            source: Ipv6Addr::from_bits(source),
            destination,
            next_header: protocol::UDP,
            hop_limit: if group { group_hops } else { self.ip6.hop_limit },
            traffic_class: 0,
            flow_label: 0,
        };
        if group && looped {
            self.loop_back(&IpHeader::V6(header), (port, to_port), data);
        }
        if header.hop_limit == 0 || (group && !leaves_the_host(destination.to_bits())) {
            return Ok(());
        }
        self.sent_large(&IpHeader::V6(header), (port, to_port), ipv6::HEADER_LEN + len);
        if ipv6::HEADER_LEN + len > one_packet {
            let mut head = [0; udp::HEADER_LEN];
            udp::emit(&mut head, port, to_port, data.len());
            let pseudo = pseudo(source, destination.to_bits(), protocol::UDP, len);
            udp::fill_checksum(&mut head, pseudo, checksum::sum(data));
            let header = IpHeader::V6(header);
            let to = (hop, one_packet);
            if !self.send_fragments(header, to, &head, Body::Bytes(data), data.len()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.counters.datagrams_out += 1;
            return Ok(());
        }
        let Some(frame) = self.control_frame() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        self.control_header_v6(frame, header, len);
        let room = &mut self.control_room(frame)[L4_V6..];
        udp::emit(room, port, to_port, data.len());
        let sum = checksum::copy_and_sum(&mut room[udp::HEADER_LEN..][..data.len()], data);
        let pseudo = pseudo(source, destination.to_bits(), protocol::UDP, len);
        udp::fill_checksum(room, pseudo, sum);
        self.counters.datagrams_out += 1;
        self.control_packet(frame, L4_V6 + len, hop);
        Ok(())
    }

    /// Tells a sender of either family that nobody has the port.
    pub(crate) fn port_unreachable(&mut self, frame: Frame, ip: &IpInfo) {
        if is_v4(ip.source) {
            self.icmp_unreachable(frame, ip, icmpv4::unreachable::PORT);
        } else {
            let code = icmpv6::unreachable::PORT;
            self.icmpv6_error(frame, ip, icmpv6::kind::UNREACHABLE, code, 0);
        }
    }
}
