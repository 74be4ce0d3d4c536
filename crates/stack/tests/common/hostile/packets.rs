//! Everything else that arrives: datagrams, fragments, ARP, ICMP, IGMP, DHCP, and what only IPv6 has.

use core::net::{Ipv4Addr, Ipv6Addr};

use millrace_frames::ChecksumState;
use millrace_wire::arp::Operation;
use millrace_wire::dhcpv4;
use millrace_wire::mac::Mac;
use millrace_wire::ndp;

use crate::craft::{self, PEER_IP, STACK_IP, STACK_MAC, TcpSegment};
use crate::craft6::{self, PEER_V6, STACK_V6};

use super::script::Script;
use super::{FLOWS, Flow, Target};

impl Target {
    pub(super) fn datagram(&mut self, script: &mut Script<'_>) {
        let payload = vec![0x5a; usize::from(script.word()) % 1473];
        let port = if script.one_in(4) { script.word() } else { 53 };
        let to = match script.byte() % 8 {
            0 => Ipv4Addr::BROADCAST,
            1 | 2 => Ipv4Addr::new(239, 0, 0, script.byte() % 4),
            _ => STACK_IP,
        };
        let bytes = craft::udp_datagram((PEER_IP, script.word()), (to, port), &payload);
        self.inject(&bytes, ChecksumState::Unknown);
    }

    /// IPv6: fragments and queries that were good once.
    pub(super) fn six(&mut self, script: &mut Script<'_>) {
        let len = usize::from(script.word()) % [100, 3000, 20_000][usize::from(script.byte()) % 3];
        let data = vec![0x5a; len];
        let group = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, u16::from(script.byte() % 4));
        let mut parts = match script.byte() % 6 {
            4 => {
                let target = if script.one_in(2) { STACK_V6 } else { PEER_V6 };
                let source = [PEER_V6, craft6::PEER_LINK, Ipv6Addr::UNSPECIFIED, STACK_V6];
                let source = source[usize::from(script.byte()) % 4];
                let mac = Mac([2, 0, 0, 0, 1, script.byte()]);
                let flags = ndp::AdvertisementFlags {
                    router: script.one_in(2),
                    solicited: script.one_in(2),
                    override_: script.one_in(2),
                };
                match script.one_in(2) {
                    true => vec![craft6::solicitation(source, target, None)],
                    false => {
                        let ends = (source, STACK_V6);
                        vec![craft6::advertisement(ends, target, flags, Some(mac))]
                    }
                }
            }
            5 => {
                let router = craft6::RouterAdvertisement {
                    hop_limit: script.byte(),
                    lifetime: script.word(),
                    reachable_ms: script.long(),
                    retransmit_ms: script.long(),
                    ..craft6::RouterAdvertisement::default()
                };
                let network = Ipv6Addr::new(0x2001, 0xdb8, script.word() % 4, 0, 0, 0, 0, 0);
                let mut router =
                    router.mtu([1280, 1400, 0, u32::MAX][usize::from(script.byte()) % 4]);
                for _ in 0..script.byte() % 4 {
                    let (flags, valid) = (script.byte(), script.long());
                    router = router.prefix(network, flags, valid, script.long());
                    router = router.route(network, script.byte(), script.byte() % 4, valid);
                }
                vec![router.bytes()]
            }
            0 => {
                let mut message = vec![[130, 130, 131, 143][usize::from(script.byte()) % 4], 0];
                message.extend([0, 0, script.byte(), script.byte(), 0, 0]);
                let all = script.one_in(3);
                message.extend(if all { [0; 16] } else { group.octets() });
                message.extend([script.byte(), script.byte(), 0, script.byte() % 3]);
                message.extend(STACK_V6.octets());
                message.truncate(8 + usize::from(script.byte()) % 40);
                let to = if all { craft6::ALL_NODES } else { group };
                vec![craft6::mld(craft6::PEER_LINK, to, &message)]
            }
            choice => {
                let to = if script.one_in(4) { group } else { STACK_V6 };
                let whole = match choice {
                    1 => craft6::echo(PEER_V6, to, &data),
                    _ => craft6::udp((PEER_V6, 999), (to, 53), &data),
                };
                let mtu = [96, 300, 1500][usize::from(script.byte()) % 3];
                craft6::fragments(&whole, mtu, u32::from(script.byte() % 8))
            }
        };
        for _ in 0..script.byte() % 4 {
            let at = usize::from(script.byte()) % parts.len();
            match script.byte() % 4 {
                0 => parts.push(parts[at].clone()),
                1 => parts.reverse(),
                2 => {
                    let byte = usize::from(script.byte()) % parts[at].len().min(80);
                    parts[at][byte] = script.byte();
                }
                _ => {
                    let len = usize::from(script.word()) % parts[at].len();
                    parts[at].truncate(len + 1);
                }
            }
        }
        for part in parts.iter().take(80) {
            self.inject(part, ChecksumState::Unknown);
        }
    }

    /// A server that knows the exchange's number and lies about the rest.
    pub(super) fn dhcp(&mut self, script: &mut Script<'_>) {
        let mut bytes = vec![0; dhcpv4::MAX_LEN];
        let header = dhcpv4::Header {
            reply: !script.one_in(8),
            transaction: self.transaction,
            seconds: 0,
            broadcast: false,
            client_address: Ipv4Addr::UNSPECIFIED,
            your_address: Ipv4Addr::new(192, 0, 2, 60 + script.byte() % 4),
            hardware_address: STACK_MAC,
        };
        use dhcpv4::MessageType::{Ack, Nak, Offer};
        let kind = [Offer, Ack, Ack, Nak][usize::from(script.byte()) % 4];
        let mut writer = dhcpv4::Writer::new(&mut bytes, header, kind);
        writer.option(dhcpv4::option::SERVER_IDENTIFIER, &PEER_IP.octets());
        writer.option(dhcpv4::option::SUBNET_MASK, &[255, 255, 255, script.byte()]);
        let seconds = [0, 1, 100, u32::MAX][usize::from(script.byte()) % 4];
        writer.option(dhcpv4::option::LEASE_TIME, &seconds.to_be_bytes());
        for _ in 0..script.byte() % 4 {
            let code = [1, 3, 6, 26, 51, 58, 59, 121][usize::from(script.byte()) % 8];
            let len = usize::from(script.byte()) % 12;
            let mut data = script.bytes(len);
            data.resize(len, 192);
            writer.option(code, &data);
        }
        let len = writer.finish();
        let packet = craft::udp_datagram((PEER_IP, 67), (Ipv4Addr::BROADCAST, 68), &bytes[..len]);
        self.inject(&packet, ChecksumState::Unknown);
    }

    /// Queries and reports of every version, with lists that may lie about their length.
    pub(super) fn igmp(&mut self, script: &mut Script<'_>) {
        let group = Ipv4Addr::new(239, 0, 0, script.byte() % 4);
        let [a, b, c, d] = if script.one_in(3) { [0; 4] } else { group.octets() };
        let kind = [0x11, 0x11, 0x16, 0x12][usize::from(script.byte()) % 4];
        let mut message = vec![kind, script.byte(), 0, 0, a, b, c, d];
        if !script.one_in(3) {
            let sources = script.byte() % 5;
            message.extend_from_slice(&[script.byte(), script.byte(), 0, sources]);
            for _ in 0..if script.one_in(4) { script.byte() % 5 } else { sources } {
                message.extend_from_slice(&[198, 51, 100, script.byte() % 4]);
            }
        }
        let to = if a == 0 { Ipv4Addr::new(224, 0, 0, 1) } else { group };
        let bytes = craft::igmp_message(PEER_IP, to, &message);
        self.inject(&bytes, ChecksumState::Unknown);
    }

    /// Fragments of a good packet: some of them, out of order, twice, moved, cut.
    pub(super) fn fragments(&mut self, script: &mut Script<'_>) {
        let len = usize::from(script.word()) % [100, 3000, 20_000][usize::from(script.byte()) % 3];
        let source = Ipv4Addr::new(192, 0, 2, 2 + script.byte() % 4);
        let whole = match script.byte() % 4 {
            0 => craft::echo_request(source, STACK_IP, &vec![0x5a; len]),
            1 => self.attack(script),
            _ => craft::udp_datagram((source, 999), (STACK_IP, 53), &vec![0x5a; len]),
        };
        let (mtu, number) = ([68, 300, 1500][usize::from(script.byte()) % 3], script.byte() % 8);
        let six = craft6::is_six(&whole);
        let mut parts = match six {
            true => craft6::fragments(&whole, mtu.max(96), number.into()),
            false => craft::fragments(&whole, mtu, number.into()),
        };
        for _ in 0..script.byte() % 4 {
            let at = usize::from(script.byte()) % parts.len();
            match script.byte() % 5 {
                0 => drop(parts.swap_remove(at)),
                1 => parts.push(parts[at].clone()),
                2 => parts.reverse(),
                3 => parts[at][20] ^= 0x20,
                _ => parts[at][21] ^= script.byte() % 8,
            }
            if parts.is_empty() {
                return;
            }
            let at = at % parts.len();
            if !six {
                craft::mend_ip_checksum(&mut parts[at]);
            }
        }
        for part in parts.iter().take(80) {
            self.inject(part, ChecksumState::Unknown);
        }
    }

    pub(super) fn icmp_error(&mut self, script: &mut Script<'_>) {
        let number = usize::from(script.byte()) % FLOWS;
        let Flow { peer_port, stack_port, snd_una, six, .. } = self.flows[number];
        let quoted = TcpSegment {
            source: (STACK_IP, stack_port),
            destination: (PEER_IP, peer_port),
            sequence: snd_una.wrapping_add_signed((script.byte() as i8).into()),
            ..TcpSegment::default()
        }
        .bytes();
        if six {
            let whole = craft6::packet(STACK_V6, PEER_V6, 64, 6, &quoted[34..]);
            let len = 14 + usize::from(script.byte()) % (whole.len() - 13);
            let (kind, code) = (1 + script.byte() % 4, script.byte() % 5);
            let word = if script.one_in(2) { 1280 } else { script.long() };
            let bytes = craft6::error(PEER_V6, kind, code, word, &whole[14..len]);
            return self.inject(&bytes, ChecksumState::Unknown);
        }
        let len = 14 + usize::from(script.byte()) % (quoted.len() - 13);
        let code = script.byte();
        let bytes = craft::unreachable(Ipv4Addr::new(192, 0, 2, 254), code, &quoted[14..len]);
        self.inject(&bytes, ChecksumState::Unknown);
    }

    pub(super) fn arp(&mut self, script: &mut Script<'_>) {
        let host = |byte: u8| Ipv4Addr::new(192, 0, 2, byte % 8);
        let operation = Operation::from(u16::from(script.byte() % 4));
        let sender = (Mac([2, 0, 0, 0, 1, script.byte()]), host(script.byte()));
        let target = (Mac([0; 6]), host(script.byte()));
        let bytes = craft::arp_packet(operation, sender, target);
        self.inject(&bytes, ChecksumState::Unknown);
    }
}
