//! What the redirector decides on each kind of frame, through the kernel's own test run.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use millrace_bpf::program::action;
use millrace_bpf::{
    Counters, Error, Filter, Mode, Ports, Protocol, RedirectConfig, Redirector, attached,
};

const OURS4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OTHER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const OURS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 3);
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 5]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

#[derive(Clone)]
struct Packet4 {
    to: Ipv4Addr,
    protocol: u8,
    options: usize,
    fragment: u16,
    port: u16,
}

impl Packet4 {
    fn new(to: Ipv4Addr, protocol: u8, port: u16) -> Self {
        Self { to, protocol, options: 0, fragment: 0, port }
    }

    fn bytes(&self) -> Vec<u8> {
        let words = 5 + self.options / 4;
        let mut packet = vec![0x40 | words as u8, 0, 0, 0, 0, 1];
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0, 192, 0, 2, 1]);
        packet.extend(self.to.octets());
        // Options that would be read as port 1 if they were taken for the transport header.
        packet.extend([0, 1].repeat(self.options / 2));
        packet.extend(4321u16.to_be_bytes());
        packet.extend(self.port.to_be_bytes());
        packet.extend([0; 16]);
        packet
    }

    fn frame(&self) -> Vec<u8> {
        ethernet(&[], 0x0800, &self.bytes())
    }
}

fn packet6(to: Ipv6Addr, next_header: u8, port: u16) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 20, next_header, 64];
    packet.extend(OTHER6.octets());
    packet.extend(to.octets());
    packet.extend(4321u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0; 16]);
    packet
}

fn arp(operation: u16, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend([2, 0, 0, 0, 0, 1, 192, 0, 2, 1]);
    packet.extend([0; 6]);
    packet.extend(target.octets());
    packet
}

struct Judge {
    redirector: Redirector,
    _socket: std::os::fd::OwnedFd,
}

impl Judge {
    fn new(config: &RedirectConfig) -> Self {
        let redirector = Redirector::load(config, 1).unwrap();
        let socket = support::xdp_socket();
        redirector.register(0, socket.as_fd()).unwrap();
        Self { redirector, _socket: socket }
    }

    fn takes(&self, frame: &[u8]) -> bool {
        match self.redirector.test_run(frame, 1).unwrap().action {
            action::REDIRECT => true,
            action::PASS => false,
            other => panic!("action {other}"),
        }
    }
}

fn ours() -> RedirectConfig {
    RedirectConfig::addresses([IpAddr::V4(OURS4), IpAddr::V6(OURS6)])
}

#[test]
fn ipv4_goes_by_address_and_protocol() {
    support::in_namespace("ipv4_goes_by_address_and_protocol", || {
        let judge = Judge::new(&ours());
        for protocol in [ICMP, TCP, UDP] {
            assert!(judge.takes(&Packet4::new(OURS4, protocol, 80).frame()), "{protocol}");
            assert!(!judge.takes(&Packet4::new(OTHER4, protocol, 80).frame()), "{protocol}");
        }
        for protocol in [0, 2, 41, 47, 50, 58, 132, 255] {
            assert!(!judge.takes(&Packet4::new(OURS4, protocol, 80).frame()), "{protocol}");
        }
        for first in [0x00, 0x44, 0x50, 0x65, 0xff] {
            let mut packet = Packet4::new(OURS4, TCP, 80).bytes();
            packet[0] = first;
            assert!(!judge.takes(&ethernet(&[], 0x0800, &packet)), "{first:#x}");
        }
    });
}

#[test]
fn ipv6_goes_by_address_and_protocol() {
    support::in_namespace("ipv6_goes_by_address_and_protocol", || {
        let judge = Judge::new(&ours());
        let takes = |to, next| judge.takes(&ethernet(&[], 0x86dd, &packet6(to, next, 80)));
        for next in [ICMPV6, TCP, UDP, 0, 43, 44, 60] {
            assert!(takes(OURS6, next), "{next}");
            assert!(!takes(OTHER6, next), "{next}");
        }
        for next in [ICMP, 41, 50, 59, 132] {
            assert!(!takes(OURS6, next), "{next}");
        }
        let group = |low| Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, low);
        assert!(takes(group(2), ICMPV6), "neighbour solicitation for our address");
        assert!(!takes(group(3), ICMPV6), "neighbour solicitation for another");
        let mut packet = packet6(OURS6, TCP, 80);
        packet[0] = 0x40;
        assert!(!judge.takes(&ethernet(&[], 0x86dd, &packet)), "not version 6");
    });
}

#[test]
fn arp_goes_by_target_address() {
    support::in_namespace("arp_goes_by_target_address", || {
        let judge = Judge::new(&ours());
        for operation in [1, 2] {
            assert!(judge.takes(&ethernet(&[], 0x0806, &arp(operation, OURS4))));
            assert!(!judge.takes(&ethernet(&[], 0x0806, &arp(operation, OTHER4))));
        }
        for at in 0..6 {
            let mut packet = arp(1, OURS4);
            packet[at] ^= 0x10;
            assert!(!judge.takes(&ethernet(&[], 0x0806, &packet)), "byte {at} is not ARP for IPv4");
        }
    });
}

#[test]
fn one_vlan_tag_is_looked_through() {
    support::in_namespace("one_vlan_tag_is_looked_through", || {
        let judge = Judge::new(&ours());
        for tag in [0x8100, 0x88a8] {
            let tcp = Packet4::new(OURS4, TCP, 80).bytes();
            assert!(judge.takes(&ethernet(&[tag], 0x0800, &tcp)));
            assert!(judge.takes(&ethernet(&[tag], 0x86dd, &packet6(OURS6, UDP, 53))));
            assert!(judge.takes(&ethernet(&[tag], 0x0806, &arp(1, OURS4))));
            let other = Packet4::new(OTHER4, TCP, 80).bytes();
            assert!(!judge.takes(&ethernet(&[tag], 0x0800, &other)));
            assert!(!judge.takes(&ethernet(&[tag, 0x8100], 0x0800, &tcp)), "two tags");
        }
    });
}

#[test]
fn truncated_frames_pass() {
    support::in_namespace("truncated_frames_pass", || {
        let mut config = ours();
        let filter = config.filter.as_mut().unwrap();
        filter.tcp = Ports::Only(vec![80..=80]);
        let judge = Judge::new(&config);
        let options = Packet4 { options: 40, ..Packet4::new(OURS4, TCP, 80) };
        for (frame, needed) in [
            (Packet4::new(OURS4, TCP, 80).frame(), 14 + 20 + 4),
            (options.frame(), 14 + 60 + 4),
            (ethernet(&[0x8100], 0x0800, &options.bytes()), 18 + 60 + 4),
            (ethernet(&[], 0x86dd, &packet6(OURS6, TCP, 80)), 14 + 40 + 4),
            (ethernet(&[], 0x0806, &arp(1, OURS4)), 14 + 28),
        ] {
            for len in 14..=frame.len() {
                assert_eq!(judge.takes(&frame[..len]), len >= needed, "{len} of {}", frame.len());
            }
        }
    });
}

#[test]
fn other_ethertypes_pass() {
    support::in_namespace("other_ethertypes_pass", || {
        let judge = Judge::new(&ours());
        for ethertype in [0x0000, 0x0026, 0x05ff, 0x0008, 0x0801, 0x8847, 0x88cc, 0xffff] {
            let payload = Packet4::new(OURS4, TCP, 80).bytes();
            assert!(!judge.takes(&ethernet(&[], ethertype, &payload)), "{ethertype:#x}");
        }
    });
}

#[test]
fn ports_choose_and_can_change() {
    support::in_namespace("ports_choose_and_can_change", || {
        let mut config = ours();
        let filter = config.filter.as_mut().unwrap();
        filter.tcp = Ports::Only(vec![80..=80, 49152..=65535]);
        filter.udp = Ports::Only(vec![0..=63]);
        let judge = Judge::new(&config);
        let tcp = |port| judge.takes(&Packet4::new(OURS4, TCP, port).frame());
        let udp = |port| judge.takes(&Packet4::new(OURS4, UDP, port).frame());
        let tcp6 = |port| judge.takes(&ethernet(&[], 0x86dd, &packet6(OURS6, TCP, port)));
        for port in [80, 49152, 50000, 65535] {
            assert!(tcp(port) && tcp6(port), "{port}");
            assert!(!udp(port), "{port}");
        }
        for port in [0, 1, 79, 81, 8080, 49151] {
            assert!(!tcp(port) && !tcp6(port), "{port}");
        }
        assert!(udp(0) && udp(63) && !udp(64));
        assert!(judge.takes(&Packet4::new(OURS4, ICMP, 9).frame()), "ICMP has no ports");
        assert!(!judge.takes(&Packet4::new(OTHER4, TCP, 80).frame()));
        let options = Packet4 { options: 40, ..Packet4::new(OURS4, TCP, 80) };
        assert!(judge.takes(&options.frame()), "the port behind the options counts");

        judge.redirector.add_ports(Protocol::Tcp, 8000..=8200).unwrap();
        judge.redirector.remove_ports(Protocol::Tcp, 8064..=8064).unwrap();
        judge.redirector.remove_ports(Protocol::Tcp, 80..=80).unwrap();
        for port in 7900..8300 {
            assert_eq!(tcp(port), (8000..=8200).contains(&port) && port != 8064, "{port}");
        }
        assert!(!tcp(80) && udp(0));
        judge.redirector.remove_ports(Protocol::Udp, 0..=65535).unwrap();
        assert!(!udp(0) && tcp(65535));
    });
}

#[test]
fn fragments_go_by_address() {
    support::in_namespace("fragments_go_by_address", || {
        let mut config = ours();
        config.filter.as_mut().unwrap().tcp = Ports::Only(vec![80..=80]);
        let judge = Judge::new(&config);
        let fragment =
            |to, fragment| judge.takes(&Packet4 { fragment, ..Packet4::new(to, TCP, 81) }.frame());
        assert!(fragment(OURS4, 0x2000), "the first, with more to follow");
        assert!(fragment(OURS4, 0x2001) && fragment(OURS4, 0x0001), "later ones");
        assert!(!fragment(OURS4, 0x4000), "don't fragment is no fragment");
        assert!(!fragment(OTHER4, 0x2000));
    });
}

#[test]
fn protocols_can_be_left_to_linux() {
    support::in_namespace("protocols_can_be_left_to_linux", || {
        let base = Filter::new([IpAddr::V4(OURS4), IpAddr::V6(OURS6)]);
        for chosen in 1..16 {
            let [arp_on, icmp_on, tcp_on, udp_on] = [0, 1, 2, 3].map(|bit| chosen >> bit & 1 == 1);
            let ports = |on| if on { Ports::All } else { Ports::None };
            let filter = Filter {
                arp: arp_on,
                icmp: icmp_on,
                tcp: ports(tcp_on),
                udp: ports(udp_on),
                ..base.clone()
            };
            let judge = Judge::new(&RedirectConfig {
                filter: Some(filter),
                ..RedirectConfig::everything()
            });
            assert_eq!(judge.takes(&ethernet(&[], 0x0806, &arp(1, OURS4))), arp_on);
            for (protocol, on) in [(ICMP, icmp_on), (TCP, tcp_on), (UDP, udp_on)] {
                assert_eq!(judge.takes(&Packet4::new(OURS4, protocol, 1).frame()), on);
            }
            for (next, on) in [(ICMPV6, icmp_on), (TCP, tcp_on), (UDP, udp_on)] {
                assert_eq!(judge.takes(&ethernet(&[], 0x86dd, &packet6(OURS6, next, 1))), on);
            }
        }
        let nothing =
            Filter { arp: false, icmp: false, tcp: Ports::None, udp: Ports::None, ..base };
        let config = RedirectConfig { filter: Some(nothing), ..RedirectConfig::everything() };
        assert!(matches!(Redirector::load(&config, 1), Err(Error::Argument(_))));
    });
}

#[test]
fn addresses_come_and_go() {
    support::in_namespace("addresses_come_and_go", || {
        let mut judge = Judge::new(&RedirectConfig::addresses([]));
        let four = Packet4::new(OURS4, TCP, 80).frame();
        let six = ethernet(&[], 0x86dd, &packet6(OURS6, TCP, 80));
        assert!(!judge.takes(&four) && !judge.takes(&six));
        judge.redirector.add_address(OURS4.into()).unwrap();
        assert!(judge.takes(&four) && !judge.takes(&six));
        judge.redirector.add_address(OURS6.into()).unwrap();
        assert!(judge.takes(&six));

        // A second address behind the same solicited-node group keeps the group.
        let twin = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2);
        let solicitation = ethernet(&[], 0x86dd, &packet6(group, ICMPV6, 0));
        judge.redirector.add_address(twin.into()).unwrap();
        judge.redirector.add_address(twin.into()).unwrap();
        assert!(judge.redirector.remove_address(OURS6.into()).unwrap());
        assert!(!judge.takes(&six) && judge.takes(&solicitation));
        assert!(judge.redirector.remove_address(twin.into()).unwrap());
        assert!(!judge.takes(&solicitation));

        assert!(judge.redirector.remove_address(OURS4.into()).unwrap());
        assert!(!judge.redirector.remove_address(OURS4.into()).unwrap());
        assert!(!judge.takes(&four));
    });
}

#[test]
fn too_many_addresses_are_an_error() {
    support::in_namespace("too_many_addresses_are_an_error", || {
        let filter = Filter { max_addresses: 2, ..Filter::new([]) };
        let config = RedirectConfig { filter: Some(filter), ..RedirectConfig::everything() };
        let mut redirector = Redirector::load(&config, 1).unwrap();
        for host in 1..=2 {
            redirector.add_address(Ipv4Addr::new(192, 0, 2, host).into()).unwrap();
            redirector.add_address(Ipv6Addr::from(u128::from(host)).into()).unwrap();
        }
        let error = redirector.add_address(OTHER4.into()).unwrap_err();
        assert_eq!(error.errno(), Some(libc::E2BIG));
        let error = redirector.add_address(Ipv6Addr::from(3).into()).unwrap_err();
        assert_eq!(error.errno(), Some(libc::E2BIG));
        redirector.remove_address(Ipv6Addr::from(1).into()).unwrap();
        redirector.add_address(Ipv6Addr::from(3).into()).unwrap();
    });
}

#[test]
fn everything_means_everything() {
    support::in_namespace("everything_means_everything", || {
        let mut judge = Judge::new(&RedirectConfig::everything());
        assert!(judge.takes(&[0; 14]));
        assert!(judge.takes(&Packet4::new(OTHER4, 132, 0).frame()));
        assert!(matches!(judge.redirector.add_address(OURS4.into()), Err(Error::Argument(_))));
        assert!(matches!(
            judge.redirector.add_ports(Protocol::Tcp, 1..=1),
            Err(Error::Argument(_))
        ));
        let frags = RedirectConfig { frags: true, ..RedirectConfig::everything() };
        assert!(Judge::new(&frags).takes(&[0; 14]));
    });
}

#[test]
fn queue_without_a_socket_passes_and_is_counted() {
    support::in_namespace("queue_without_a_socket_passes_and_is_counted", || {
        let judge = Judge::new(&ours());
        let frame = Packet4::new(OURS4, TCP, 80).frame();
        let other = Packet4::new(OTHER4, TCP, 80).frame();
        judge.redirector.test_run(&frame, 3).unwrap();
        judge.redirector.test_run(&other, 2).unwrap();
        judge.redirector.unregister(0).unwrap();
        assert!(!judge.takes(&frame));
        assert_eq!(
            judge.redirector.counters().unwrap(),
            Counters { redirected: 3, passed: 2, no_socket: 1 }
        );
    });
}

#[test]
fn wrong_queues_and_sockets_are_refused() {
    support::in_namespace("wrong_queues_and_sockets_are_refused", || {
        let redirector = Redirector::load(&ours(), 2).unwrap();
        let socket = support::xdp_socket();
        redirector.register(1, socket.as_fd()).unwrap();
        let text = redirector.register(2, socket.as_fd()).unwrap_err().to_string();
        assert!(text.contains("no queue 2") && text.contains("has 2"), "{text}");
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(redirector.register(0, file.as_fd()).is_err());
        assert!(matches!(Redirector::load(&ours(), 0), Err(Error::Argument(_))));
    });
}

#[test]
fn redirector_attaches_and_detaches() {
    support::in_namespace("redirector_attaches_and_detaches", || {
        let (near, _) = support::veth_pair();
        let redirector = Redirector::load(&ours(), 1).unwrap();
        let link = redirector.attach(near, Mode::Native).unwrap();
        assert_eq!(attached(near).unwrap()[0].name.as_deref(), Some("mr_redirector"));
        // A link keeps its program, so the redirector may go first.
        drop(redirector);
        assert_eq!(attached(near).unwrap().len(), 1);
        drop(link);
        support::expect_nothing_attached(near);
    });
}
